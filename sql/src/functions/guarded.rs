//! The batch engine's own functions, kept from failing a whole query: a row on which one fails is NULL.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, new_null_array};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// A function of the batch engine whose failures are NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Guarded {
    pub(crate) inner: Arc<ScalarUDF>,
}

impl Guarded {
    pub(crate) fn udf(inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Guarded { inner }))
    }
    /// The values; the rows on which the function fails are named to `fault`.
    pub(crate) fn invoke(&self, args: &ScalarFunctionArgs, fault: &mut dyn FnMut(usize)) -> Result<ColumnarValue> {
        match self.inner.invoke_with_args(args.clone()) {
            Ok(value) => Ok(value),
            Err(_) => self.row_by_row(args, fault),
        }
    }
    /// Each row by itself.
    fn row_by_row(&self, args: &ScalarFunctionArgs, fault: &mut dyn FnMut(usize)) -> Result<ColumnarValue> {
        let mut rows: Vec<ArrayRef> = Vec::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            let one = |value: &ColumnarValue| match value {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(row, 1)),
                scalar => scalar.clone(),
            };
            let call = ScalarFunctionArgs {
                args: args.args.iter().map(one).collect(),
                number_rows: 1,
                arg_fields: args.arg_fields.clone(),
                return_field: Arc::clone(&args.return_field),
                config_options: Arc::clone(&args.config_options),
            };
            let result = self.inner.invoke_with_args(call).and_then(|value| value.into_array(1));
            rows.push(result.unwrap_or_else(|_| {
                fault(row);
                new_null_array(args.return_type(), 1)
            }));
        }
        Ok(ColumnarValue::Array(match rows.is_empty() {
            true => new_null_array(args.return_type(), 0),
            false => {
                let cast = |array: &ArrayRef| datafusion::arrow::compute::cast(array, args.return_type());
                let rows = rows.iter().map(cast).collect::<std::result::Result<Vec<_>, _>>()?;
                concat(&rows.iter().map(|array| array as &dyn Array).collect::<Vec<_>>())?
            }
        }))
    }
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn return_type(&self, types: &[ArrowType]) -> Result<ArrowType> {
        self.inner.return_type(types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let field = self.inner.return_field_from_args(args)?;
        Ok(Arc::new(Field::new(field.name(), field.data_type().clone(), true)))
    }
    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = self.inner.inner().with_updated_config(config)?;
        Some(ScalarUDF::new_from_impl(Guarded { inner: Arc::new(inner) }))
    }
    fn coerce_types(&self, types: &[ArrowType]) -> Result<Vec<ArrowType>> {
        self.inner.coerce_types(types)
    }
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }
    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.invoke(&args, &mut |_| {})
    }
}
