//! What our dialect means before types are resolved: clock functions become variables, IF a CASE, inlined functions their
//! bodies, results come in our types; and a comparison of text with a number is refused.

use datafusion::arrow::datatypes::{DataType as ArrowType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, Spans};
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, cast, lit};
use datafusion::optimizer::AnalyzerRule;

use crate::error::SqlError;
use crate::expr::text_of;
use crate::functions::native::type_name;
use crate::functions::{AsCast, If, clock, date_format, datetime, macros::Macro, to_instant, to_local, to_timestamp_ltz};

/// The rule.
#[derive(Debug)]
pub(super) struct DialectRule {
    pub(super) timezone: chrono_tz::Tz,
}

impl AnalyzerRule for DialectRule {
    fn name(&self) -> &str {
        "deltaworks_dialect"
    }
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(|plan| rewrite_node(plan, &|expr, schema| self.rewrite(expr, schema)))?.data)
    }
}

/// Rewrites all expressions of a node, keeping the names of its columns.
pub(super) fn rewrite_node(
    plan: LogicalPlan,
    rewrite: &dyn Fn(Expr, &DFSchema) -> Result<Expr>,
) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    if let LogicalPlan::Dml(dml) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(dml.table_name.clone(), &dml.target.schema())?);
    }
    if let LogicalPlan::Join(join) = &plan {
        for (left, right) in &join.on {
            check_pair(left, right, &schema)?;
        }
    }
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let before = expr.clone();
        let after = rewrite(expr, &schema)?;
        Ok(if after == before { Transformed::no(after) } else { Transformed::yes(name.restore(after)) })
    })?
    .map_data(LogicalPlan::recompute_schema)
}

impl DialectRule {
    fn rewrite(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        let rewritten = expr.transform_up(|expr| {
            check(&expr, schema)?;
            match expr {
                Expr::ScalarFunction(call) => self.call(call, schema),
                other => Ok(Transformed::no(other)),
            }
        })?;
        Ok(rewritten.data)
    }
    fn call(&self, mut call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        if let Some(variable) = clock::variable_of(&call.func) {
            return Ok(Transformed::yes(self.clock(variable)));
        }
        let implementation = call.func.inner();
        if implementation.downcast_ref::<If>().is_some() {
            let [condition, then, otherwise] = call.args.try_into().map_err(|_| wrong_if())?;
            // Not by the builder, which wants the types of the values to be one already.
            let branches = vec![(Box::new(condition), Box::new(then))];
            return Ok(Transformed::yes(Expr::Case(Case::new(None, branches, Some(Box::new(otherwise))))));
        }
        if implementation.downcast_ref::<AsCast>().is_some() {
            return Ok(call.args.into_iter().next().map_or_else(|| Transformed::no(lit(0)), Transformed::yes));
        }
        if let Some(function) = implementation.downcast_ref::<Macro>() {
            return Ok(Transformed::yes(self.rewrite(function.inline(&call.args)?, schema)?));
        }
        if call.func.name() == "unix_timestamp" && call.args.is_empty() {
            let args = vec![self.clock(clock::NOW)];
            return Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { args, ..call })));
        }
        if call.func.name() == "round" {
            call.args.iter_mut().skip(1).for_each(as_int);
        }
        let expr = match self.timezone {
            chrono_tz::UTC => Expr::ScalarFunction(call),
            zone => in_zone(call, zone, schema),
        };
        Ok(match expr.get_type(schema) {
            Ok(ArrowType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Nanosecond, zone)) => {
                Transformed::yes(cast(expr, ArrowType::Timestamp(TimeUnit::Microsecond, zone)))
            }
            // Told apart from the call by the caller, which compares.
            _ => Transformed::yes(expr),
        })
    }
    /// The variable, in wall-clock time of the session zone.
    fn clock(&self, name: &str) -> Expr {
        let variable = clock::variable(name);
        if self.timezone == chrono_tz::UTC || name == clock::CURRENT_DATE {
            return variable;
        }
        to_local(self.timezone).call(vec![variable])
    }
}
/// A whole number in the type that ROUND takes its digits in. The scale of its result is read off the constant: one that is cast is
/// none until it is folded, and then the type would be another one than the plan was made for.
fn as_int(digits: &mut Expr) {
    let number = match digits {
        Expr::Literal(value, _) => value.cast_to(&ArrowType::Int64),
        Expr::Negative(inner) => match &**inner {
            Expr::Literal(value, _) => value.cast_to(&ArrowType::Int64).and_then(|value| value.arithmetic_negate()),
            _ => return,
        },
        _ => return,
    };
    if let Ok(ScalarValue::Int64(Some(number))) = number
        && let Ok(number) = i32::try_from(number)
    {
        *digits = lit(number);
    }
}
/// Functions that take the calendar's parts of an instant: they see its wall-clock time.
fn in_zone(mut call: ScalarFunction, zone: chrono_tz::Tz, schema: &DFSchema) -> Expr {
    let is_instant = |expr: &Expr| matches!(expr.get_type(schema), Ok(ArrowType::Timestamp(_, Some(_))));
    let local = |expr: Expr| if is_instant(&expr) { to_local(zone).call(vec![expr]) } else { expr };
    match call.func.name() {
        "from_unixtime" => {
            let mut args = call.args.into_iter();
            let seconds = args.next().unwrap_or_else(|| lit(0));
            let pattern = args.next().unwrap_or_else(|| lit(datetime::DEFAULT_PATTERN));
            date_format().call(vec![to_local(zone).call(vec![to_timestamp_ltz().call(vec![seconds, lit(0)])]), pattern])
        }
        "date_part" | "to_char" | "date_format" => {
            call.args = call.args.into_iter().map(local).collect();
            Expr::ScalarFunction(call)
        }
        "date_trunc" if call.args.get(1).is_some_and(is_instant) => {
            call.args = call.args.into_iter().map(local).collect();
            to_instant(zone).call(vec![Expr::ScalarFunction(call)])
        }
        _ => Expr::ScalarFunction(call),
    }
}
fn wrong_if() -> SqlError {
    SqlError::new("IF takes a condition and two values", "write IF(condition, then, otherwise)")
}

/// Refuses comparisons of text with numbers.
fn check(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::BinaryExpr(binary) if compares(binary.op) => check_pair(&binary.left, &binary.right, schema),
        Expr::Between(between) => {
            check_pair(&between.expr, &between.low, schema)?;
            check_pair(&between.expr, &between.high, schema)
        }
        Expr::InList(list) => list.list.iter().try_for_each(|item| check_pair(&list.expr, item, schema)),
        Expr::Case(case) => match &case.expr {
            Some(operand) => case.when_then_expr.iter().try_for_each(|(value, _)| check_pair(operand, value, schema)),
            None => Ok(()),
        },
        Expr::InSubquery(query) => {
            let field = query.subquery.subquery.schema().fields().first().map(|field| field.data_type().clone());
            match (query.expr.get_type(schema), field) {
                (Ok(left), Some(right)) => {
                    let value = || text_of(&query.expr, schema);
                    refuse_mixed(&left, &right, place(&query.expr), value, || "the subquery".into())
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}
fn check_pair(left: &Expr, right: &Expr, schema: &DFSchema) -> Result<()> {
    let (Ok(left_type), Ok(right_type)) = (left.get_type(schema), right.get_type(schema)) else { return Ok(()) };
    let at = place(left).or_else(|| place(right));
    refuse_mixed(&left_type, &right_type, at, || text_of(left, schema), || text_of(right, schema))
}
fn refuse_mixed(
    left_type: &ArrowType,
    right_type: &ArrowType,
    at: Option<(usize, usize)>,
    left: impl Fn() -> String,
    right: impl Fn() -> String,
) -> Result<()> {
    let text = |data_type: &ArrowType| matches!(data_type, ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View);
    let (text_side, number_type) = match (text(left_type), text(right_type)) {
        (true, false) if right_type.is_numeric() => (left(), right_type),
        (false, true) if left_type.is_numeric() => (right(), left_type),
        _ => return Ok(()),
    };
    let message =
        format!("{} ({}) cannot be compared with {} ({})", type_name(left_type), left(), type_name(right_type), right());
    let help = format!("cast explicitly: CAST({text_side} AS {})", type_name(number_type));
    let error = SqlError::new(message, help);
    Err(match at {
        Some((line, column)) => error.at(line, column),
        None => error,
    }
    .into())
}
/// Where the first column of an expression stands.
fn place(expr: &Expr) -> Option<(usize, usize)> {
    let mut found = None;
    // The closure never fails, so neither does the walk.
    let _ = expr.apply(|expr| {
        if found.is_none() {
            found = expr.spans().and_then(Spans::first).map(|span| (span.start.line as usize, span.start.column as usize));
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    found
}
