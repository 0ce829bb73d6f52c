//! ARG_MIN and ARG_MAX: the value of the row with the smallest or largest key.
//!
//! Rows whose key is NULL are ignored. Of equal keys the smallest value wins, NULL last.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use deltaworks_dataflow::batch::{datum_at, to_array};
use deltaworks_dataflow::{DataType, Datum};

/// ARG_MIN.
pub(crate) fn arg_min() -> AggregateUDF {
    udf(false)
}
/// ARG_MAX.
pub(crate) fn arg_max() -> AggregateUDF {
    udf(true)
}
fn udf(largest: bool) -> AggregateUDF {
    let aliases = vec![if largest { "max_by".to_string() } else { "min_by".to_string() }];
    AggregateUDF::new_from_impl(Arg { largest, aliases, signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Arg {
    largest: bool,
    aliases: Vec<String>,
    signature: Signature,
}
impl AggregateUDFImpl for Arg {
    fn name(&self) -> &str {
        if self.largest { "arg_max" } else { "arg_min" }
    }
    fn aliases(&self) -> &[String] {
        &self.aliases
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[ArrowType]) -> Result<ArrowType> {
        Ok(types[0].clone())
    }
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let ours = |field: &FieldRef| DataType::from_arrow(field.data_type());
        match args.expr_fields {
            [value, key] => match (ours(value), ours(key)) {
                (Some(value), Some(key)) => Ok(Box::new(Best {
                    largest: self.largest,
                    value_type: args.expr_fields[0].data_type().clone(),
                    value,
                    key,
                    best: None,
                })),
                _ => exec_err!("function \"{}\" is called on an unknown type", self.name()),
            },
            _ => exec_err!("function \"{}\" takes a value and a key", self.name()),
        }
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name: &str, index: usize| {
            Arc::new(Field::new(format!("{}[{name}]", args.name), args.input_fields[index].data_type().clone(), true))
        };
        Ok(vec![field("value", 0), field("key", 1)])
    }
}

#[derive(Debug)]
struct Best {
    largest: bool,
    value_type: ArrowType,
    value: DataType,
    key: DataType,
    /// The key and the value of the best row.
    best: Option<(Datum<'static>, Datum<'static>)>,
}
impl Best {
    fn scalar(&self, datum: Datum<'_>, data_type: &DataType) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&to_array(&[datum], data_type), 0)
    }
}
impl Accumulator for Best {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for index in 0..columns[0].len() {
            let key = datum_at(&columns[1], &self.key, index);
            if key.is_null() {
                continue;
            }
            let value = datum_at(&columns[0], &self.value, index);
            let better = self.best.as_ref().is_none_or(|(best, kept)| {
                let order = if self.largest { best.cmp(&key) } else { key.cmp(best) };
                order.then_with(|| value.cmp(kept)).is_lt()
            });
            if better {
                self.best = Some((key.into_owned(), value.into_owned()));
            }
        }
        Ok(())
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (key, value) = self.best.clone().unwrap_or((Datum::Null, Datum::Null));
        Ok(vec![self.scalar(value, &self.value)?, self.scalar(key, &self.key)?])
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.best.as_ref().map_or(Datum::Null, |(_, value)| value.clone());
        self.scalar(value, &self.value)?.cast_to(&self.value_type)
    }
    fn size(&self) -> usize {
        size_of_val(self)
    }
}
