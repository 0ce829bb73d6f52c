//! From analysed DataFusion expressions to our own.
//!
//! "Analysed" means that types are resolved and casts are explicit, as `Session::logical_plan` leaves them. Checked arithmetic
//! and guarded functions of the batch engine become what they stand for.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{InList, Like, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Case, Expr, ExprSchemable, Operator};
use deltaworks_dataflow::batch::datum_at;
use deltaworks_dataflow::{DataType, Datum};

use super::interpreted::interpreted;
use super::{BinaryOp, Function, ScalarExpr, UdfCall, UnaryOp};
use crate::error::SqlError;
use crate::functions::clock;
use crate::functions::datetime::Unit;
use crate::functions::guarded::Guarded;
use crate::functions::native::{Checked, Native};
use crate::parser::shown_name;
use crate::plan::ClockVariable;

/// Lowers an analysed expression over the columns of `schema`.
///
/// # Errors
/// Names what has no counterpart: aggregates, window functions, subqueries, types that we do not have.
pub fn lower_expr(expr: &Expr, schema: &DFSchema) -> Result<ScalarExpr, SqlError> {
    Lowering { schema }.lower(expr)
}

/// An expression over the columns of `schema` as text, for messages and reports.
pub(crate) fn text_of(expr: &Expr, schema: &DFSchema) -> String {
    match lower_expr(expr, schema) {
        Ok(lowered) => lowered.to_text(&|index| shown_name(schema.field(index).name()).to_string()),
        Err(_) => crate::error::in_our_words(&expr.to_string()),
    }
}

/// The value of a literal of the batch engine and its type.
///
/// # Errors
/// Names a type that we do not have.
pub fn lower_literal(scalar: &ScalarValue) -> Result<(Datum<'static>, DataType), SqlError> {
    if let ScalarValue::IntervalMonthDayNano(Some(interval)) = scalar {
        return lower_interval(interval.months, interval.days, interval.nanoseconds);
    }
    let data_type = our_type(&scalar.data_type())?;
    let array = scalar.to_array()?;
    let array = datafusion::arrow::compute::cast(&array, &data_type.to_arrow())
        .map_err(|error| SqlError::new(error.to_string(), ""))?;
    Ok((datum_at(&array, &data_type, 0).into_owned(), data_type))
}
fn lower_interval(months: i32, days: i32, nanoseconds: i64) -> Result<(Datum<'static>, DataType), SqlError> {
    let micros = i64::from(days) * super::arithmetic::DAY + nanoseconds / 1000;
    match (months, micros) {
        (0, micros) => Ok((Datum::Int(micros), DataType::IntervalDay)),
        (months, 0) => Ok((Datum::Int(i64::from(months)), DataType::IntervalMonth)),
        _ => Err(SqlError::new(
            "an interval of both months and days has no type",
            "add two intervals, one of months and one of days",
        )),
    }
}

/// Our type for a type of the batch engine.
fn our_type(arrow: &ArrowType) -> Result<DataType, SqlError> {
    DataType::from_arrow(arrow)
        .ok_or_else(|| SqlError::new(format!("type {arrow} is not supported"), "cast to one of the types of CREATE TABLE"))
}

struct Lowering<'a> {
    schema: &'a DFSchema,
}

impl Lowering<'_> {
    fn lower(&self, expr: &Expr) -> Result<ScalarExpr, SqlError> {
        Ok(match expr {
            Expr::Alias(alias) => self.lower(&alias.expr)?,
            Expr::Column(column) => {
                let index = self.schema.index_of_column(column)?;
                ScalarExpr::column(index, our_type(self.schema.field(index).data_type())?)
            }
            Expr::Literal(scalar, _) => {
                let (value, data_type) = lower_literal(scalar)?;
                ScalarExpr::literal(value, data_type)
            }
            Expr::ScalarVariable(_, names) => variable(names)?,
            Expr::BinaryExpr(binary) => self.binary(expr, binary)?,
            Expr::Like(like) => self.like(like)?,
            Expr::Not(input) => self.unary(UnaryOp::Not, input)?,
            Expr::IsNull(input) | Expr::IsUnknown(input) => self.unary(UnaryOp::IsNull, input)?,
            Expr::IsNotNull(input) | Expr::IsNotUnknown(input) => self.unary(UnaryOp::IsNotNull, input)?,
            Expr::IsTrue(input) => self.unary(UnaryOp::IsTrue, input)?,
            Expr::IsNotTrue(input) => self.unary(UnaryOp::IsNotTrue, input)?,
            Expr::IsFalse(input) => self.unary(UnaryOp::IsFalse, input)?,
            Expr::IsNotFalse(input) => self.unary(UnaryOp::IsNotFalse, input)?,
            Expr::Negative(input) => self.unary(UnaryOp::Negate, input)?,
            Expr::Between(between) => self.between(between)?,
            Expr::Case(case) => self.case(expr, case)?,
            Expr::Cast(cast) => self.lower(&cast.expr)?.cast_to(&our_type(cast.field.data_type())?),
            Expr::TryCast(cast) => self.lower(&cast.expr)?.cast_to(&our_type(cast.field.data_type())?),
            Expr::ScalarFunction(call) => self.call(expr, call)?,
            Expr::InList(list) => self.in_list(list)?,
            Expr::SimilarTo(like) => self.interpreted(expr, &[&like.expr, &like.pattern])?,
            other => {
                return Err(SqlError::new(
                    format!("\"{other}\" cannot be computed from one row"),
                    "put it into a query of its own and join that",
                ));
            }
        })
    }
    fn lower_all<'e>(&self, exprs: impl IntoIterator<Item = &'e Expr>) -> Result<Vec<ScalarExpr>, SqlError> {
        exprs.into_iter().map(|expr| self.lower(expr)).collect()
    }
    fn type_of(&self, expr: &Expr) -> Result<DataType, SqlError> {
        our_type(&expr.get_type(self.schema)?)
    }
    fn unary(&self, op: UnaryOp, input: &Expr) -> Result<ScalarExpr, SqlError> {
        Ok(ScalarExpr::Unary { op, input: Box::new(self.lower(input)?) })
    }
    fn binary(&self, expr: &Expr, binary: &BinaryExpr) -> Result<ScalarExpr, SqlError> {
        let Some(op) = binary_op(binary.op) else {
            return match binary.op {
                Operator::StringConcat => self.concat(expr, &binary.left, &binary.right),
                _ => self.interpreted(expr, &[&binary.left, &binary.right]),
            };
        };
        let (left, right) = (self.lower(&binary.left)?, self.lower(&binary.right)?);
        if op.is_comparison() {
            return Ok(compare(op, left, right));
        }
        let data_type = if op.is_arithmetic() { self.type_of(expr)? } else { DataType::Boolean };
        Ok(ScalarExpr::Binary { op, left: Box::new(left), right: Box::new(right), data_type })
    }
    fn concat(&self, expr: &Expr, left: &Expr, right: &Expr) -> Result<ScalarExpr, SqlError> {
        if self.type_of(expr)? != DataType::String {
            return self.interpreted(expr, &[left, right]);
        }
        let arguments = vec![self.lower(left)?.cast_to(&DataType::String), self.lower(right)?.cast_to(&DataType::String)];
        Ok(ScalarExpr::Call { function: Function::Concat, arguments, data_type: DataType::String })
    }
    fn like(&self, like: &Like) -> Result<ScalarExpr, SqlError> {
        let function =
            Function::Like { negated: like.negated, ignore_case: like.case_insensitive, escape: like.escape_char };
        let arguments = self.lower_all([&*like.expr, &*like.pattern])?;
        Ok(ScalarExpr::Call { function, arguments, data_type: DataType::Boolean })
    }
    fn between(&self, between: &Between) -> Result<ScalarExpr, SqlError> {
        let value = self.lower(&between.expr)?;
        let low = compare(BinaryOp::GtEq, value.clone(), self.lower(&between.low)?);
        let high = compare(BinaryOp::LtEq, value, self.lower(&between.high)?);
        let both = low.and(high);
        Ok(if between.negated { ScalarExpr::Unary { op: UnaryOp::Not, input: Box::new(both) } } else { both })
    }
    fn case(&self, expr: &Expr, case: &Case) -> Result<ScalarExpr, SqlError> {
        let data_type = self.type_of(expr)?;
        let operand = case.expr.as_ref().map(|operand| self.lower(operand)).transpose()?;
        let mut branches = Vec::with_capacity(case.when_then_expr.len());
        for (when, then) in &case.when_then_expr {
            let when = self.lower(when)?;
            let when = match &operand {
                Some(operand) => compare(BinaryOp::Eq, operand.clone(), when),
                None => when,
            };
            branches.push((when, self.lower(then)?.cast_to(&data_type)));
        }
        let otherwise = case.else_expr.as_ref().map(|value| self.lower(value)).transpose()?;
        let otherwise = otherwise.map(|value| Box::new(value.cast_to(&data_type)));
        Ok(ScalarExpr::Case { branches, otherwise, data_type })
    }
    fn in_list(&self, list: &InList) -> Result<ScalarExpr, SqlError> {
        let mut arguments = self.lower_all(std::iter::once(&*list.expr).chain(&list.list))?;
        let data_type = arguments[0].data_type();
        if arguments.iter().any(|argument| argument.data_type() != data_type && !data_type.is_int()) {
            arguments[1..].iter_mut().for_each(|item| *item = item.clone().cast_to(&data_type));
        }
        let function = Function::InList { negated: list.negated };
        Ok(ScalarExpr::Call { function, arguments, data_type: DataType::Boolean })
    }

    fn call(&self, expr: &Expr, call: &ScalarFunction) -> Result<ScalarExpr, SqlError> {
        let data_type = self.type_of(expr)?;
        let implementation = call.func.inner();
        if let Some(checked) = implementation.downcast_ref::<Checked>() {
            return self.checked(checked, &call.args, data_type);
        }
        if let Some(native) = implementation.downcast_ref::<Native>() {
            let mut arguments = self.lower_all(&call.args)?;
            if native.function == Function::TemporalText {
                return Ok(arguments.remove(0).cast_to(&data_type));
            }
            return Ok(ScalarExpr::Call { function: native.function, arguments, data_type });
        }
        let function = match implementation.downcast_ref::<Guarded>() {
            Some(guarded) => &guarded.inner,
            None => &call.func,
        };
        if let Some(native) = self.known(function.name(), &call.args, &data_type)? {
            return Ok(native);
        }
        let arguments = self.lower_all(&call.args)?;
        Ok(ScalarExpr::Udf { function: UdfCall { function: Arc::clone(function) }, arguments, data_type })
    }
    fn checked(&self, checked: &Checked, args: &[Expr], data_type: DataType) -> Result<ScalarExpr, SqlError> {
        let mut arguments = self.lower_all(args)?;
        match (checked.op, arguments.pop(), arguments.pop()) {
            (Some(op), Some(right), Some(left)) => {
                Ok(ScalarExpr::Binary { op, left: Box::new(left), right: Box::new(right), data_type })
            }
            (None, Some(input), None) => Ok(ScalarExpr::Unary { op: UnaryOp::Negate, input: Box::new(input) }),
            _ => Err(SqlError::new("arithmetic with a wrong number of operands", "")),
        }
    }
    /// Functions of the batch engine that are interpreted natively as well, with the same results.
    fn known(&self, name: &str, args: &[Expr], data_type: &DataType) -> Result<Option<ScalarExpr>, SqlError> {
        let function = match name {
            "coalesce" => Function::Coalesce,
            "upper" => Function::Upper,
            "lower" => Function::Lower,
            "btrim" | "trim" => Function::Trim { front: true, back: true },
            "ltrim" => Function::Trim { front: true, back: false },
            "rtrim" => Function::Trim { front: false, back: true },
            "character_length" | "char_length" | "length" => Function::CharLength,
            "round" if *data_type != DataType::Float => Function::Round,
            "make_array" => Function::MakeArray,
            "named_struct" => return self.named_struct(args, data_type).map(Some),
            "get_field" => return self.get_field(args).map(Some),
            "date_trunc" | "date_part" => return self.date_unit(name, args, data_type),
            _ => return Ok(None),
        };
        let mut arguments = self.lower_all(args)?;
        let wrong = |argument: &ScalarExpr| argument.data_type() != DataType::String;
        match function {
            Function::Upper | Function::Lower | Function::CharLength | Function::Trim { .. }
                if arguments.iter().any(wrong) =>
            {
                return Ok(None);
            }
            Function::Coalesce => {
                arguments = arguments.into_iter().map(|argument| argument.cast_to(data_type)).collect();
            }
            Function::MakeArray => {
                let DataType::Array(item) = data_type else { return Ok(None) };
                arguments = arguments.into_iter().map(|argument| argument.cast_to(item)).collect();
            }
            _ => {}
        }
        Ok(Some(ScalarExpr::Call { function, arguments, data_type: data_type.clone() }))
    }
    /// `named_struct('a', x, 'b', y)`: every second argument is a value.
    fn named_struct(&self, args: &[Expr], data_type: &DataType) -> Result<ScalarExpr, SqlError> {
        let arguments = self.lower_all(args.iter().skip(1).step_by(2))?;
        Ok(ScalarExpr::Call { function: Function::MakeStruct, arguments, data_type: data_type.clone() })
    }
    /// `get_field(x, 'a', 'b')`: one step per name.
    fn get_field(&self, args: &[Expr]) -> Result<ScalarExpr, SqlError> {
        let unknown = || SqlError::new("a field of a struct is named by a string", "write x['name']");
        let [base, names @ ..] = args else { return Err(unknown()) };
        let mut value = self.lower(base)?;
        for name in names {
            let Expr::Literal(scalar, _) = name else { return Err(unknown()) };
            let name = scalar.try_as_str().flatten().ok_or_else(unknown)?;
            let DataType::Struct(fields) = value.data_type() else { return Err(unknown()) };
            let Some(index) = fields.iter().position(|field| field.name == name) else {
                return Err(SqlError::new(format!("the struct has no field \"{name}\""), "name one of its fields"));
            };
            let data_type = fields[index].data_type.clone();
            value = ScalarExpr::Call { function: Function::GetField(index), arguments: vec![value], data_type };
        }
        Ok(value)
    }
    /// `date_trunc('unit', t)` and `date_part('unit', t)` of a literal unit.
    fn date_unit(&self, name: &str, args: &[Expr], data_type: &DataType) -> Result<Option<ScalarExpr>, SqlError> {
        let [Expr::Literal(scalar, _), value] = args else { return Ok(None) };
        let Some(unit) = scalar.try_as_str().flatten().and_then(Unit::of) else { return Ok(None) };
        let value = self.lower(value)?;
        let from = value.data_type();
        let instant = matches!(from, DataType::Timestamp | DataType::TimestampLtz);
        let function = match name {
            "date_trunc" if instant && from == *data_type => Function::DateTrunc(unit),
            "date_part" if (instant || from == DataType::Date) && *data_type == DataType::Int => Function::DatePart(unit),
            _ => return Ok(None),
        };
        Ok(Some(ScalarExpr::Call { function, arguments: vec![value], data_type: data_type.clone() }))
    }
    /// An expression that is left to the batch engine, over its operands.
    fn interpreted(&self, expr: &Expr, operands: &[&Expr]) -> Result<ScalarExpr, SqlError> {
        let arguments = self.lower_all(operands.iter().copied())?;
        let types: Vec<DataType> = arguments.iter().map(ScalarExpr::data_type).collect();
        let data_type = self.type_of(expr)?;
        let function = interpreted(expr, &types, &data_type)?;
        Ok(ScalarExpr::Udf { function: UdfCall { function }, arguments, data_type })
    }
}

/// A comparison; decimals of different scales are brought to one.
fn compare(op: BinaryOp, left: ScalarExpr, right: ScalarExpr) -> ScalarExpr {
    let (left_type, right_type) = (left.data_type(), right.data_type());
    if left_type == right_type || left_type.is_int() && right_type.is_int() {
        return ScalarExpr::predicate(op, left, right);
    }
    let common = match (&left_type, &right_type) {
        (DataType::Decimal { scale: a, .. }, DataType::Decimal { scale: b, .. }) if a == b => {
            return ScalarExpr::predicate(op, left, right);
        }
        (DataType::Decimal { scale: a, .. }, DataType::Decimal { scale: b, .. }) => {
            DataType::Decimal { precision: 38, scale: *a.max(b) }
        }
        // A NULL literal has no type of its own.
        (_, _) if left.as_literal().is_some_and(Datum::is_null) => right_type,
        _ => left_type,
    };
    ScalarExpr::predicate(op, left.cast_to(&common), right.cast_to(&common))
}
fn variable(names: &[String]) -> Result<ScalarExpr, SqlError> {
    match names.first().map(String::as_str) {
        Some(clock::NOW) => Ok(ScalarExpr::Clock(ClockVariable::Now)),
        Some(clock::CURRENT_DATE) => Ok(ScalarExpr::Clock(ClockVariable::CurrentDate)),
        Some(clock::WRITE_TIMESTAMP) => Ok(ScalarExpr::Call {
            function: Function::WriteTimestamp,
            arguments: Vec::new(),
            data_type: DataType::Timestamp,
        }),
        _ => Err(SqlError::new(format!("unknown variable {}", names.join(".")), "")),
    }
}
fn binary_op(op: Operator) -> Option<BinaryOp> {
    Some(match op {
        Operator::Plus => BinaryOp::Plus,
        Operator::Minus => BinaryOp::Minus,
        Operator::Multiply => BinaryOp::Multiply,
        Operator::Divide => BinaryOp::Divide,
        Operator::Modulo => BinaryOp::Modulo,
        Operator::Eq => BinaryOp::Eq,
        Operator::NotEq => BinaryOp::NotEq,
        Operator::Lt => BinaryOp::Lt,
        Operator::LtEq => BinaryOp::LtEq,
        Operator::Gt => BinaryOp::Gt,
        Operator::GtEq => BinaryOp::GtEq,
        Operator::IsDistinctFrom => BinaryOp::NullSafeNotEq,
        Operator::IsNotDistinctFrom => BinaryOp::NullSafeEq,
        Operator::And => BinaryOp::And,
        Operator::Or => BinaryOp::Or,
        _ => return None,
    })
}
/// The operator of the batch engine that a checked one stands for.
pub(crate) fn arithmetic_op(op: Operator) -> Option<BinaryOp> {
    binary_op(op).filter(|op| op.is_arithmetic())
}
