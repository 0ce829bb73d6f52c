//! `CREATE EXTERNAL FUNCTION`: a function that is answered outside, so that an expression never calls it.

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

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
