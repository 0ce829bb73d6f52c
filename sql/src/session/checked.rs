//! What our dialect means after types are resolved: nothing that a row holds makes a query fail.
//!
//! | planned | becomes |
//! |---|---|
//! | `+ - * / %`, unary `-` | the same, NULL on overflow and division by zero |
//! | a cast | TRY_CAST; between TIMESTAMP_LTZ and other types by the session zone |
//! | a function of the batch engine | the same, NULL on rows where it fails |
//! | a float from a cast or a function | the same, with one zero and one NaN |
//! | an interval literal | INTERVAL DAY TO SECOND or INTERVAL YEAR TO MONTH |

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType as ArrowType, IntervalUnit, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, TryCast};
use datafusion::optimizer::AnalyzerRule;
use deltaworks_dataflow::DataType;

use super::counted::Counted;
use super::dialect::rewrite_node;
use crate::expr::lower::arithmetic_op;
use crate::expr::{BinaryOp, Function, lower_literal};
use crate::functions::external::is_external;
use crate::functions::guarded::Guarded;
use crate::functions::native::{Checked, Native};
use crate::functions::{canonical_float, parse_instant, temporal_text, to_instant, to_local};

/// Functions that cannot fail and that the optimizer knows by name.
const TOTAL: [&str; 6] = ["get_field", "named_struct", "struct", "make_array", "coalesce", "nullif"];

const INTERVAL: ArrowType = ArrowType::Interval(IntervalUnit::MonthDayNano);
const DURATION: ArrowType = ArrowType::Duration(TimeUnit::Microsecond);

/// The rule.
#[derive(Debug)]
pub(super) struct CheckedRule {
    pub(super) timezone: chrono_tz::Tz,
}

impl AnalyzerRule for CheckedRule {
    fn name(&self) -> &str {
        "deltaworks_checked"
    }
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(|plan| rewrite_node(plan, &|expr, schema| self.rewrite(expr, schema)))?.data)
    }
}

impl CheckedRule {
    fn rewrite(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        let rewritten = expr.transform_up(|expr| {
            Ok(match expr {
                Expr::BinaryExpr(binary) => self.binary(binary, schema)?,
                Expr::Negative(input) => match input.get_type(schema) {
                    Ok(gives) if DataType::from_arrow(&gives).is_some() => {
                        Transformed::yes(Checked::call(None, gives, vec![*input]))
                    }
                    _ => Transformed::no(Expr::Negative(input)),
                },
                Expr::Cast(cast) => Transformed::yes(self.cast(*cast.expr, cast.field.data_type(), schema)?),
                Expr::TryCast(cast) => Transformed::yes(self.cast(*cast.expr, cast.field.data_type(), schema)?),
                Expr::ScalarFunction(call) => guarded(call, schema),
                other => Transformed::no(other),
            })
        })?;
        // Literals inside calls stay as they are: functions of the batch engine take no other intervals.
        match rewritten.data {
            Expr::Alias(mut alias) => {
                *alias.expr = one_part(*alias.expr)?;
                Ok(Expr::Alias(alias))
            }
            other => one_part(other),
        }
    }

    fn binary(&self, binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        if !binary.op.is_numerical_operators() {
            return compare_intervals(binary, schema);
        }
        let gives = Expr::BinaryExpr(binary.clone()).get_type(schema);
        let (Some(op), Ok(gives)) = (arithmetic_op(binary.op), gives) else {
            return Ok(Transformed::no(Expr::BinaryExpr(binary)));
        };
        let BinaryExpr { left, right, .. } = binary;
        // Months and days cannot be added at once: the months first, as the batch engine does.
        if let (Some((months, rest)), false) = (both_parts(&right), op == BinaryOp::Multiply) {
            let inner = Checked::call(Some(op), gives.clone(), vec![*left, months]);
            return Ok(Transformed::yes(Checked::call(Some(op), gives, vec![inner, rest])));
        }
        let gives = if gives == INTERVAL { interval_type(&left, &right, schema)? } else { gives };
        let (left, right) = (one_part(*left)?, one_part(*right)?);
        let known = |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| DataType::from_arrow(&data_type).is_some());
        if !known(&left) || !known(&right) || DataType::from_arrow(&gives).is_none() {
            return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), binary.op, Box::new(right)))));
        }
        Ok(Transformed::yes(Checked::call(Some(op), gives, vec![left, right])))
    }

    /// Whether a cast goes between an instant and something else in a zone other than UTC.
    fn crosses(&self, expr: &Expr, to: &ArrowType, schema: &DFSchema) -> bool {
        let from = expr.get_type(schema).is_ok_and(|from| is_instant(&from));
        self.timezone != chrono_tz::UTC && from != is_instant(to)
    }
    fn cast(&self, expr: Expr, to: &ArrowType, schema: &DFSchema) -> Result<Expr> {
        let expr = if *to == DURATION || to.is_string() || matches!(to, ArrowType::Interval(IntervalUnit::YearMonth)) {
            one_part(expr)?
        } else {
            expr
        };
        let from = expr.get_type(schema)?;
        let micros = ArrowType::Timestamp(TimeUnit::Microsecond, None);
        Ok(match (self.crosses(&expr, to, schema), is_instant(&from)) {
            (true, true) if !to.is_integer() => {
                let local = to_local(self.timezone).call(vec![expr]);
                if *to == micros { local } else { cast(local, &micros, to) }
            }
            (true, false) if from.is_string() => parse_instant(self.timezone).call(vec![expr]),
            (true, false) if !from.is_integer() && !from.is_null() => {
                let local = if from == micros { expr } else { cast(expr, &from, &micros) };
                to_instant(self.timezone).call(vec![local])
            }
            _ if from == *to => expr,
            _ if is_float(to) && !is_float(&from) && !from.is_integer() => canonical(cast(expr, &from, to), to),
            _ => cast(expr, &from, to),
        })
    }
}

/// A cast that gives NULL where it fails. Of a literal it is a literal: the types of some functions depend on them.
fn cast(expr: Expr, from: &ArrowType, to: &ArrowType) -> Expr {
    if to.is_string() && has_own_text(from) {
        return temporal_text().call(vec![expr]);
    }
    if let Expr::Literal(scalar, metadata) = &expr
        && let Ok(value) = scalar.cast_to(to)
    {
        return Expr::Literal(value, metadata.clone());
    }
    Expr::TryCast(TryCast::new(Box::new(expr), to.clone()))
}
/// Whether we write values of the type otherwise than the batch engine does.
fn has_own_text(data_type: &ArrowType) -> bool {
    use DataType::{IntervalDay, IntervalMonth, Timestamp, TimestampLtz};
    matches!(DataType::from_arrow(data_type), Some(Timestamp | TimestampLtz | IntervalDay | IntervalMonth))
}
fn is_instant(data_type: &ArrowType) -> bool {
    matches!(data_type, ArrowType::Timestamp(_, Some(_)))
}
fn is_float(data_type: &ArrowType) -> bool {
    matches!(data_type, ArrowType::Float32 | ArrowType::Float64)
}
fn canonical(expr: Expr, data_type: &ArrowType) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(canonical_float(data_type)), vec![expr]))
}
fn is_canonical(expr: &Expr) -> bool {
    let Expr::ScalarFunction(call) = expr else { return false };
    call.func.inner().downcast_ref::<Native>().is_some_and(|native| native.function == Function::CanonicalFloat)
}

/// A call that cannot fail.
fn guarded(call: ScalarFunction, schema: &DFSchema) -> Transformed<Expr> {
    let implementation = call.func.inner();
    // Analysis runs again before execution: what is guarded stays as it is.
    if is_canonical(&Expr::ScalarFunction(call.clone())) {
        if is_canonical(&call.args[0]) {
            return Transformed::yes(call.args[0].clone());
        }
        return Transformed::no(Expr::ScalarFunction(call));
    }
    let ours = implementation.downcast_ref::<Native>().is_some()
        || implementation.downcast_ref::<Checked>().is_some()
        || implementation.downcast_ref::<Counted>().is_some();
    if ours || TOTAL.contains(&call.func.name()) || is_external(&call.func) {
        return Transformed::no(Expr::ScalarFunction(call));
    }
    let call = match implementation.downcast_ref::<Guarded>() {
        Some(_) => call,
        None => ScalarFunction { func: Guarded::udf(Arc::clone(&call.func)), args: call.args },
    };
    let expr = Expr::ScalarFunction(call);
    match expr.get_type(schema) {
        Ok(data_type) if is_float(&data_type) => Transformed::yes(canonical(expr, &data_type)),
        _ => Transformed::yes(expr),
    }
}

fn interval_literal(expr: &Expr) -> Option<(i32, i32, i64)> {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) => {
            Some((value.months, value.days, value.nanoseconds))
        }
        _ => None,
    }
}
/// An interval literal in the one of our types that holds it; anything else as it is.
fn one_part(expr: Expr) -> Result<Expr> {
    if interval_literal(&expr).is_none() {
        return Ok(expr);
    }
    let Expr::Literal(scalar, metadata) = &expr else { return Ok(expr) };
    let (value, data_type) = lower_literal(scalar)?;
    let array = deltaworks_dataflow::batch::to_array(&[value], &data_type);
    Ok(Expr::Literal(ScalarValue::try_from_array(&array, 0)?, metadata.clone()))
}
/// The months and the rest of an interval literal that has both.
fn both_parts(expr: &Expr) -> Option<(Expr, Expr)> {
    let (months, days, nanoseconds) = interval_literal(expr)?;
    let micros = i64::from(days) * crate::expr::arithmetic::DAY + nanoseconds / 1000;
    (months != 0 && micros != 0).then(|| {
        let months = Expr::Literal(ScalarValue::IntervalYearMonth(Some(months)), None);
        (months, Expr::Literal(ScalarValue::DurationMicrosecond(Some(micros)), None))
    })
}
/// The type of arithmetic between intervals.
fn interval_type(left: &Expr, right: &Expr, schema: &DFSchema) -> Result<ArrowType> {
    let months = |expr: &Expr| match interval_literal(expr) {
        Some((months, ..)) => months != 0,
        None => matches!(expr.get_type(schema), Ok(ArrowType::Interval(IntervalUnit::YearMonth))),
    };
    Ok(if months(left) || months(right) { ArrowType::Interval(IntervalUnit::YearMonth) } else { DURATION })
}
/// A comparison of intervals is one of microseconds: the batch engine would compare days before hours.
fn compare_intervals(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_interval = |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| data_type == INTERVAL);
    let comparable =
        matches!(binary.op, Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
    if !comparable || !is_interval(&binary.left) && !is_interval(&binary.right) {
        return Ok(Transformed::no(Expr::BinaryExpr(binary)));
    }
    let plain = |expr: Expr| match expr {
        Expr::TryCast(cast) if cast.expr.get_type(schema).is_ok_and(|from| from == DURATION) => Ok(*cast.expr),
        other => one_part(other),
    };
    let (left, right) = (plain(*binary.left.clone())?, plain(*binary.right.clone())?);
    Ok(if left.get_type(schema)? == right.get_type(schema)? {
        Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), binary.op, Box::new(right))))
    } else {
        Transformed::no(Expr::BinaryExpr(binary))
    })
}
