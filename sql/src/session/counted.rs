//! Counting what an execution of the batch engine could not compute and gave as NULL.
//!
//! Before a plan is executed, each expression in it that may fail is wrapped: it computes the same and counts the rows on
//! which it failed. The evaluator of continuous queries counts its own, under the same texts.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::CastOptions;
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use deltaworks_dataflow::DataType;
use deltaworks_dataflow::batch::datum_at;

use super::dialect::rewrite_node;
use crate::expr::{ExpressionErrors, Function, ScalarExpr, cast, lower_expr, text_of};
use crate::functions::guarded::Guarded;
use crate::functions::native::{Checked, Native};

/// The failures of one execution.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Vec<ExpressionErrors>>);

impl Tally {
    fn count(&self, expression: &str, sample: impl FnOnce() -> String) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().position(|entry| entry.expression == expression);
        let index = found.unwrap_or_else(|| {
            entries.push(ExpressionErrors::of(expression.to_string()));
            entries.len() - 1
        });
        entries[index].add(1, sample);
    }
    /// What failed, in the order in which it first did.
    pub(super) fn report(&self) -> Vec<ExpressionErrors> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The plan with its failures counted in `tally`.
pub(super) fn counted(plan: LogicalPlan, tally: &Arc<Tally>) -> Result<LogicalPlan> {
    let rewrite = |expr: Expr, schema: &DFSchema| Ok(expr.transform_down(|part| Ok(wrap(part, schema, tally)))?.data);
    Ok(plan.transform_up_with_subqueries(|plan| rewrite_node(plan, &rewrite))?.data)
}

fn wrap(expr: Expr, schema: &DFSchema, tally: &Arc<Tally>) -> Transformed<Expr> {
    if !can_fail(&expr) {
        return Transformed::no(expr);
    }
    let text = text(&expr, schema);
    let (computes, args) = match expr {
        Expr::TryCast(cast) => (Computes::Cast(cast.field.data_type().clone()), vec![*cast.expr]),
        Expr::ScalarFunction(call) => (Computes::Call(call.func), call.args),
        other => return Transformed::no(other),
    };
    let signature = Signature::any(args.len(), Volatility::Immutable);
    let function = ScalarUDF::new_from_impl(Counted { computes, text, tally: Arc::clone(tally), signature });
    Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), args)))
}
fn can_fail(expr: &Expr) -> bool {
    match expr {
        Expr::TryCast(_) => true,
        Expr::ScalarFunction(call) if !call.args.is_empty() => {
            let implementation = call.func.inner();
            match implementation.downcast_ref::<Native>() {
                Some(native) => native.function != Function::CanonicalFloat,
                None => {
                    implementation.downcast_ref::<Checked>().is_some() || implementation.downcast_ref::<Guarded>().is_some()
                }
            }
        }
        _ => false,
    }
}
/// The expression as the evaluator would name it. Constants that are cast, those of VALUES above all, have one name: the
/// samples tell them apart.
fn text(expr: &Expr, schema: &DFSchema) -> String {
    match lower_expr(expr, schema) {
        Ok(ScalarExpr::Cast { input, data_type }) if input.as_literal().is_some() => format!("CAST(? AS {data_type})"),
        _ => text_of(expr, schema),
    }
}

/// What computes the values.
#[derive(Debug, PartialEq, Eq)]
enum Computes {
    Cast(ArrowType),
    Call(Arc<ScalarUDF>),
}

/// An expression whose failures are counted.
#[derive(Debug)]
pub(crate) struct Counted {
    computes: Computes,
    text: String,
    tally: Arc<Tally>,
    signature: Signature,
}
impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.computes == other.computes
    }
}
impl Eq for Counted {}
impl Hash for Counted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl ScalarUDFImpl for Counted {
    fn name(&self) -> &str {
        "counted"
    }
    fn schema_name(&self, _: &[Expr]) -> Result<String> {
        Ok(self.text.clone())
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[ArrowType]) -> Result<ArrowType> {
        match &self.computes {
            Computes::Cast(to) => Ok(to.clone()),
            Computes::Call(function) => function.return_type(types),
        }
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match &self.computes {
            Computes::Cast(to) => Ok(Arc::new(Field::new(self.name(), to.clone(), true))),
            Computes::Call(function) => function.return_field_from_args(args),
        }
    }
    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let Computes::Call(function) = &self.computes else { return None };
        let computes = Computes::Call(Arc::new(function.inner().with_updated_config(config)?));
        let (text, tally, signature) = (self.text.clone(), Arc::clone(&self.tally), self.signature.clone());
        Some(ScalarUDF::new_from_impl(Counted { computes, text, tally, signature }))
    }
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match &self.computes {
            Computes::Cast(_) => Ok(ExprSimplifyResult::Original(args)),
            Computes::Call(function) => function.inner().simplify(args, info),
        }
    }
    fn short_circuits(&self) -> bool {
        matches!(&self.computes, Computes::Call(function) if function.short_circuits())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let inputs = args.args.clone();
        let mut fault = |row: usize| self.tally.count(&self.text, || sample(&inputs, row));
        let Computes::Call(function) = &self.computes else { return self.cast(&args, &mut fault) };
        let implementation = function.inner();
        if let Some(native) = implementation.downcast_ref::<Native>() {
            return native.invoke(&args, &mut fault);
        }
        if let Some(checked) = implementation.downcast_ref::<Checked>() {
            return checked.invoke(&args, &mut fault);
        }
        match implementation.downcast_ref::<Guarded>() {
            Some(guarded) => guarded.invoke(&args, &mut fault),
            None => function.invoke_with_args(args),
        }
    }
}
impl Counted {
    /// A cast that gives NULL where it fails.
    fn cast(&self, args: &ScalarFunctionArgs, fault: &mut dyn FnMut(usize)) -> Result<ColumnarValue> {
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let result = args.args[0].cast_to(args.return_type(), Some(&options))?;
        let (before, after) = (any_array(&args.args[0])?, any_array(&result)?);
        let nulls = |array: &ArrayRef| array.logical_nulls().map_or(0, |nulls| nulls.null_count());
        if nulls(&after) > nulls(&before) {
            let (before, after) = (before.logical_nulls(), after.logical_nulls());
            let is_null = |nulls: &Option<datafusion::arrow::buffer::NullBuffer>, row| {
                nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
            };
            let rows = after.as_ref().map_or(0, datafusion::arrow::buffer::NullBuffer::len);
            (0..rows).filter(|row| is_null(&after, *row) && !is_null(&before, *row)).for_each(fault);
        }
        Ok(result)
    }
}
/// The values as an array; of a scalar one row.
fn any_array(value: &ColumnarValue) -> Result<ArrayRef> {
    match value {
        ColumnarValue::Array(array) => Ok(Arc::clone(array)),
        ColumnarValue::Scalar(scalar) => scalar.to_array(),
    }
}
/// The inputs of a row as text.
fn sample(inputs: &[ColumnarValue], row: usize) -> String {
    let text = |value: &ColumnarValue| {
        let array = any_array(value).ok()?;
        let data_type = DataType::from_arrow(array.data_type())?;
        let array = datafusion::arrow::compute::cast(&array, &data_type.to_arrow()).ok()?;
        let row = if matches!(value, ColumnarValue::Scalar(_)) { 0 } else { row };
        Some(cast::text(&datum_at(&array, &data_type, row), &data_type))
    };
    inputs.iter().map(|value| text(value).unwrap_or_else(|| "?".into())).collect::<Vec<_>>().join(", ")
}
