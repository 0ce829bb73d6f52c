//! `CREATE FUNCTION`: calls are replaced by the function's body.

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};

/// A function defined by an expression over its parameters.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Macro {
    name: String,
    parameters: Vec<(String, ArrowType)>,
    returns: ArrowType,
    body: Expr,
    signature: Signature,
}

impl Macro {
    pub(crate) fn udf(name: String, parameters: Vec<(String, ArrowType)>, returns: ArrowType, body: Expr) -> ScalarUDF {
        let types = parameters.iter().map(|(_, data_type)| data_type.clone()).collect();
        let signature = match parameters.is_empty() {
            true => Signature::nullary(Volatility::Immutable),
            false => Signature::exact(types, Volatility::Immutable),
        };
        ScalarUDF::new_from_impl(Macro { name, parameters, returns, body, signature })
    }
    /// The body with the arguments in place of the parameters, each of the type declared.
    pub(crate) fn inline(&self, arguments: &[Expr]) -> Result<Expr> {
        let body = self.body.clone().transform_up(|expr| {
            let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
            match self.parameters.iter().position(|(name, _)| *name == column.name) {
                Some(index) => Ok(Transformed::yes(cast(arguments[index].clone(), self.parameters[index].1.clone()))),
                None => Ok(Transformed::no(expr)),
            }
        })?;
        Ok(cast(body.data, self.returns.clone()))
    }
}
impl ScalarUDFImpl for Macro {
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
        internal_err!("function \"{}\" was not replaced by its body", self.name)
    }
}
