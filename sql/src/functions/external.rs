//! `CREATE EXTERNAL FUNCTION`: a function that is answered outside, so that an expression never calls it.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// A function whose answers come from an API connection.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct External {
    name: String,
    returns: ArrowType,
    signature: Signature,
}

impl External {
    pub(crate) fn udf(name: String, types: Vec<ArrowType>, returns: ArrowType) -> ScalarUDF {
        // Volatile, so that no rule evaluates it: only the driver outside the dataflow can.
        let signature = match types.is_empty() {
            true => Signature::nullary(Volatility::Volatile),
            false => Signature::exact(types, Volatility::Volatile),
        };
        ScalarUDF::new_from_impl(External { name, returns, signature })
    }
}
/// Whether a function of the batch engine is an external one.
pub fn is_external(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<External>().is_some()
}
/// The names of the external functions that a plan calls, subqueries included.
pub fn external_calls(plan: &LogicalPlan) -> BTreeSet<String> {
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
    let _ = plan.apply_with_subqueries(|node| node.apply_expressions(|expr| expr.apply(&mut note)));
    called
}

impl ScalarUDFImpl for External {
    fn name(&self) -> &str {
        &self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType> {
        Ok(self.returns.clone())
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("external function \"{}\" can be called in a dynamic table or a continuous INSERT only", self.name)
    }
}
