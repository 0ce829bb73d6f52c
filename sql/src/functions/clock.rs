//! Functions that read the clock. They never do so themselves: the planner puts a variable in their place, which the dataflow
//! reads from the clock's collection and the batch engine from a reading given to it.

use datafusion::arrow::datatypes::{DataType as ArrowType, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::var_provider::VarProvider;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

use datafusion::arrow::datatypes::Field;

/// The variable of the present instant.
pub const NOW: &str = "@@now";
/// The variable of the present date in the session zone.
pub const CURRENT_DATE: &str = "@@current_date";
/// The variable of `WRITE_TIMESTAMP()`.
pub const WRITE_TIMESTAMP: &str = "@@write_timestamp";

/// What functions of these names read.
const FUNCTIONS: [(&str, &str); 8] = [
    ("now", NOW),
    ("current_timestamp", NOW),
    ("localtimestamp", NOW),
    ("current_row_timestamp", NOW),
    ("proctime", NOW),
    ("current_date", CURRENT_DATE),
    ("today", CURRENT_DATE),
    ("write_timestamp", WRITE_TIMESTAMP),
];

/// The type of a variable.
pub(crate) fn variable_type(name: &str) -> Option<ArrowType> {
    match name {
        CURRENT_DATE => Some(ArrowType::Date32),
        NOW | WRITE_TIMESTAMP => Some(ArrowType::Timestamp(TimeUnit::Microsecond, None)),
        _ => None,
    }
}
/// A variable as an expression: nothing folds it, and equal ones are equal.
pub(crate) fn variable(name: &str) -> Expr {
    let field = Field::new(name, variable_type(name).unwrap_or(ArrowType::Null), true);
    Expr::ScalarVariable(Arc::new(field), vec![name.to_string()])
}
/// The variable that a clock function reads.
pub(crate) fn variable_of(function: &ScalarUDF) -> Option<&'static str> {
    function.inner().downcast_ref::<ClockFunction>().map(|function| function.variable)
}
/// All clock functions.
pub(crate) fn all() -> Vec<ScalarUDF> {
    let function = |(name, variable)| {
        let signature = Signature::nullary(Volatility::Stable);
        ScalarUDF::new_from_impl(ClockFunction { name, variable, signature })
    };
    FUNCTIONS.into_iter().map(function).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ClockFunction {
    name: &'static str,
    variable: &'static str,
    signature: Signature,
}
impl ScalarUDFImpl for ClockFunction {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType> {
        Ok(variable_type(self.variable).unwrap_or(ArrowType::Null))
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("function \"{}\" was not replaced by a variable", self.name)
    }
}

/// A reading of the clock for the batch engine.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) now: i64,
    pub(crate) today: i32,
}
impl VarProvider for Reading {
    fn get_value(&self, names: Vec<String>) -> Result<ScalarValue> {
        match names.first().map(String::as_str) {
            Some(CURRENT_DATE) => Ok(ScalarValue::Date32(Some(self.today))),
            Some(NOW | WRITE_TIMESTAMP) => Ok(ScalarValue::TimestampMicrosecond(Some(self.now), None)),
            _ => exec_err!("unknown variable {names:?}"),
        }
    }
    fn get_type(&self, names: &[String]) -> Option<ArrowType> {
        variable_type(names.first()?)
    }
}
