//! Expressions as SQL-like text, for EXPLAIN and SHOW ERRORS.

use std::fmt;

use deltaworks_dataflow::{DataType, Datum};

use super::{BinaryOp, ScalarExpr, UnaryOp};
use crate::plan::ClockVariable;

impl fmt::Display for ScalarExpr {
    /// Columns print as `#0`, `#1`, ..; see [`ScalarExpr::to_text`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self, &|index| format!("#{index}"), f)
    }
}

impl ScalarExpr {
    /// The expression as text with columns by name.
    pub fn to_text(&self, name: &dyn Fn(usize) -> String) -> String {
        struct Named<'a>(&'a ScalarExpr, &'a dyn Fn(usize) -> String);
        impl fmt::Display for Named<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(self.0, self.1, f)
            }
        }
        Named(self, name).to_string()
    }
}

type Names<'a> = &'a dyn Fn(usize) -> String;

fn write(expr: &ScalarExpr, names: Names<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match expr {
        ScalarExpr::Column { index, .. } => f.write_str(&names(*index)),
        ScalarExpr::Literal { value, data_type } => f.write_str(&literal_text(value, data_type)),
        ScalarExpr::Clock(ClockVariable::Now) => f.write_str("NOW()"),
        ScalarExpr::Clock(ClockVariable::CurrentDate) => f.write_str("CURRENT_DATE"),
        ScalarExpr::Cast { input, data_type } => {
            f.write_str("CAST(")?;
            write(input, names, f)?;
            write!(f, " AS {data_type})")
        }
        ScalarExpr::Unary { op, input } => write_unary(*op, input, names, f),
        ScalarExpr::Binary { op, left, right, .. } => {
            write_operand(left, names, f)?;
            write!(f, " {op} ")?;
            write_operand(right, names, f)
        }
        ScalarExpr::Case { branches, otherwise, .. } => write_case(branches, otherwise.as_deref(), names, f),
        ScalarExpr::Call { function, arguments, .. } => write_call(&function.to_string(), arguments, names, f),
        ScalarExpr::Udf { function, arguments, .. } => write_call(function.name(), arguments, names, f),
    }
}
fn write_operand(expr: &ScalarExpr, names: Names<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if matches!(expr, ScalarExpr::Binary { .. }) {
        f.write_str("(")?;
        write(expr, names, f)?;
        f.write_str(")")
    } else {
        write(expr, names, f)
    }
}
fn write_unary(op: UnaryOp, input: &ScalarExpr, names: Names<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (before, after) = match op {
        UnaryOp::Not => ("NOT ", ""),
        UnaryOp::Negate => ("-", ""),
        UnaryOp::IsNull => ("", " IS NULL"),
        UnaryOp::IsNotNull => ("", " IS NOT NULL"),
        UnaryOp::IsTrue => ("", " IS TRUE"),
        UnaryOp::IsNotTrue => ("", " IS NOT TRUE"),
        UnaryOp::IsFalse => ("", " IS FALSE"),
        UnaryOp::IsNotFalse => ("", " IS NOT FALSE"),
    };
    f.write_str(before)?;
    write_operand(input, names, f)?;
    f.write_str(after)
}
fn write_case(
    branches: &[(ScalarExpr, ScalarExpr)],
    otherwise: Option<&ScalarExpr>,
    names: Names<'_>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.write_str("CASE")?;
    for (when, then) in branches {
        f.write_str(" WHEN ")?;
        write(when, names, f)?;
        f.write_str(" THEN ")?;
        write(then, names, f)?;
    }
    if let Some(otherwise) = otherwise {
        f.write_str(" ELSE ")?;
        write(otherwise, names, f)?;
    }
    f.write_str(" END")
}
fn write_call(name: &str, arguments: &[ScalarExpr], names: Names<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{name}(")?;
    for (index, argument) in arguments.iter().enumerate() {
        f.write_str(if index > 0 { ", " } else { "" })?;
        write(argument, names, f)?;
    }
    f.write_str(")")
}

/// A value as a literal of its type.
pub(crate) fn literal_text(value: &Datum<'_>, data_type: &DataType) -> String {
    match (value, data_type) {
        (Datum::Null, _) => "NULL".into(),
        (Datum::Bool(b), _) => if *b { "TRUE" } else { "FALSE" }.into(),
        (Datum::Str(text), _) => format!("'{}'", text.replace('\'', "''")),
        (_, DataType::Date) => format!("DATE '{}'", super::cast::text(value, data_type)),
        (_, DataType::Timestamp) => format!("TIMESTAMP '{}'", super::cast::text(value, data_type)),
        (_, DataType::TimestampLtz) => format!("TIMESTAMP_LTZ '{}'", super::cast::text(value, data_type)),
        (_, DataType::IntervalDay) => format!("INTERVAL '{}'", super::cast::text(value, data_type)),
        (_, DataType::IntervalMonth) => format!("INTERVAL '{}'", super::cast::text(value, data_type)),
        _ => super::cast::text(value, data_type),
    }
}

impl fmt::Display for BinaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BinaryOp::Plus => "+",
            BinaryOp::Minus => "-",
            BinaryOp::Multiply => "*",
            BinaryOp::Divide => "/",
            BinaryOp::Modulo => "%",
            BinaryOp::Eq => "=",
            BinaryOp::NotEq => "<>",
            BinaryOp::Lt => "<",
            BinaryOp::LtEq => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::GtEq => ">=",
            BinaryOp::NullSafeEq => "IS NOT DISTINCT FROM",
            BinaryOp::NullSafeNotEq => "IS DISTINCT FROM",
            BinaryOp::And => "AND",
            BinaryOp::Or => "OR",
        })
    }
}
