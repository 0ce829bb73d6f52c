//! `CREATE EXTERNAL FUNCTION`: a function that is answered outside. In a continuous query its calls become joins
//! (`crate::external`); in any other the batch engine asks whoever calls it, once per distinct row of arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use deltaworks_dataflow::batch::{datum_at, to_array};
use deltaworks_dataflow::{DataType, Datum, Row};

use super::native::type_name;

/// Answers calls outside of a continuous query.
pub trait Caller: Send + Sync {
    /// One encoded field per row of arguments.
    ///
    /// # Errors
    /// Why the call failed.
    fn call(&self, rows: &[Row]) -> std::result::Result<Vec<Row>, String>;
}

/// A function whose answers come from an API connection.
pub(crate) struct External {
    name: String,
    types: Vec<ArrowType>,
    returns: ArrowType,
    signature: Signature,
    caller: Option<Arc<dyn Caller>>,
}

impl External {
    pub(crate) fn udf(
        name: String,
        types: Vec<ArrowType>,
        returns: ArrowType,
        caller: Option<Arc<dyn Caller>>,
    ) -> ScalarUDF {
        // Volatile, so that no rule evaluates it or moves it to where it is evaluated more often.
        let signature = match types.is_empty() {
            true => Signature::nullary(Volatility::Volatile),
            false => Signature::user_defined(Volatility::Volatile),
        };
        ScalarUDF::new_from_impl(External { name, types, returns, signature, caller })
    }
}
/// Whether a function of the batch engine is an external one.
pub fn is_external(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<External>().is_some()
}

/// The names of the external functions that a plan calls, subqueries included.
pub fn external_calls(plan: &LogicalPlan) -> BTreeSet<String> {
    calls_where(plan, |_| true)
}
/// Those that it calls elsewhere than in a select list or a filter.
pub fn misplaced_calls(plan: &LogicalPlan) -> BTreeSet<String> {
    calls_where(plan, |node| !matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Filter(_)))
}
fn calls_where(plan: &LogicalPlan, of: impl Fn(&LogicalPlan) -> bool) -> BTreeSet<String> {
    let mut called = BTreeSet::new();
    let mut note = |expr: &Expr| {
        if let Expr::ScalarFunction(call) = expr
            && is_external(&call.func)
        {
            called.insert(call.func.name().to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    };
    // Nothing in the visit can fail.
    let _ = plan.apply_with_subqueries(|node| match of(node) {
        true => node.apply_expressions(|expr| expr.apply(&mut note)),
        false => Ok(TreeNodeRecursion::Continue),
    });
    called
}

fn no_type(arrow: &ArrowType) -> DataFusionError {
    DataFusionError::Execution(format!("an external function cannot take or return {arrow}"))
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("External").field(&self.name).finish()
    }
}
// Who answers is no part of what the function is.
impl PartialEq for External {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.types, &self.returns) == (&other.name, &other.types, &other.returns)
    }
}
impl Eq for External {}
impl Hash for External {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, &self.types, &self.returns).hash(state);
    }
}

impl ScalarUDFImpl for External {
    fn name(&self) -> &str {
        &self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    /// Numbers become the numbers that were declared; anything else must be of its type.
    fn coerce_types(&self, given: &[ArrowType]) -> Result<Vec<ArrowType>> {
        let fits = |(given, wanted): (&ArrowType, &ArrowType)| {
            given == wanted || given.is_null() || (given.is_numeric() && wanted.is_numeric())
        };
        if given.len() != self.types.len() || !given.iter().zip(&self.types).all(fits) {
            let names = |types: &[ArrowType]| types.iter().map(type_name).collect::<Vec<_>>().join(", ");
            let (wanted, given) = (names(&self.types), names(given));
            return plan_err!(
                "external function \"{0}\" takes ({wanted}), not ({given}). write {0}({wanted}), with CAST(x AS ..) where x is \
                 of another type",
                self.name
            );
        }
        Ok(self.types.clone())
    }
    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType> {
        Ok(self.returns.clone())
    }
    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(caller) = &self.caller else {
            return exec_err!("external function \"{}\" has no connection that answers it", self.name);
        };
        let mut columns = Vec::new();
        for (value, field) in call.args.iter().zip(&call.arg_fields) {
            let data_type = DataType::from_arrow(field.data_type()).ok_or_else(|| no_type(field.data_type()))?;
            columns.push((value.to_array(call.number_rows)?, data_type));
        }
        let row = |index: usize| Row::pack(columns.iter().map(|(array, data_type)| datum_at(array, data_type, index)));
        let rows: Vec<Row> = (0..call.number_rows).map(row).collect();
        let asked: Vec<Row> = rows.iter().cloned().collect::<BTreeSet<Row>>().into_iter().collect();
        let answers = caller
            .call(&asked)
            .map_err(|reason| DataFusionError::Execution(format!("external function \"{}\" failed: {reason}", self.name)))?;
        let answers: BTreeMap<Row, Row> = asked.into_iter().zip(answers).collect();
        let returns = DataType::from_arrow(&self.returns).ok_or_else(|| no_type(&self.returns))?;
        let result = |row: &Row| answers.get(row).map_or(Datum::Null, |field| Datum::decode(&mut &field[..], &returns));
        let results: Vec<Datum<'_>> = rows.iter().map(result).collect();
        Ok(ColumnarValue::Array(to_array(&results, &returns)))
    }
}
