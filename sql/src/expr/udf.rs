//! Functions of the batch engine that the evaluator does not know, called on arrays of one row.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::Array;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use datafusion::scalar::ScalarValue;
use deltaworks_dataflow::batch::{datum_at, to_array};
use deltaworks_dataflow::{DataType, Datum};

use super::ScalarExpr;
use super::arithmetic::{Fault, canonical};
use super::compile::{Failure, Node};
use super::eval::View;

/// A function of the batch engine.
#[derive(Clone)]
pub struct UdfCall {
    pub(crate) function: Arc<ScalarUDF>,
}

impl UdfCall {
    /// Its name.
    pub fn name(&self) -> &str {
        self.function.name()
    }
}

impl fmt::Debug for UdfCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UdfCall").field(&self.name()).finish()
    }
}
impl PartialEq for UdfCall {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function
    }
}

/// A call made ready: the parts that do not change from row to row.
#[derive(Debug)]
pub(super) struct CompiledUdf {
    function: UdfCall,
    arguments: Vec<(Node, DataType, FieldRef)>,
    /// Literal arguments are passed as scalars: some functions read their unit or format at planning.
    literals: Vec<Option<ScalarValue>>,
    /// The field returned; None where the function refuses the arguments, so that every call fails.
    field: Option<FieldRef>,
    to: DataType,
    options: Arc<ConfigOptions>,
    fails: Failure,
}

impl CompiledUdf {
    pub(super) fn new(
        function: &UdfCall,
        arguments: &[ScalarExpr],
        nodes: Vec<Node>,
        to: &DataType,
        fails: Failure,
    ) -> CompiledUdf {
        let field = |argument: &ScalarExpr| Arc::new(Field::new("argument", argument.data_type().to_arrow(), true));
        let literals: Vec<Option<ScalarValue>> = arguments.iter().map(literal).collect();
        let arguments: Vec<_> = arguments
            .iter()
            .zip(nodes)
            .map(|(argument, node)| (node, argument.data_type(), field(argument) as FieldRef))
            .collect();
        let fields: Vec<FieldRef> = arguments.iter().map(|(_, _, field)| Arc::clone(field)).collect();
        let scalars: Vec<Option<&ScalarValue>> = literals.iter().map(Option::as_ref).collect();
        let given = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &scalars };
        let field = function.function.return_field_from_args(given).ok();
        let options = Arc::new(ConfigOptions::default());
        CompiledUdf { function: function.clone(), arguments, literals, field, to: to.clone(), options, fails }
    }
    pub(super) fn datum<'a>(&'a self, view: &View<'a>) -> Datum<'a> {
        let values: Vec<Datum<'a>> = self.arguments.iter().map(|(node, _, _)| node.datum(view)).collect();
        self.invoke(&values).unwrap_or_else(|Fault| {
            let inputs: Vec<_> = values.iter().zip(self.arguments.iter().map(|(_, data_type, _)| data_type)).collect();
            self.fails.count(&inputs);
            Datum::Null
        })
    }
    fn invoke(&self, values: &[Datum<'_>]) -> Result<Datum<'static>, Fault> {
        let argument = |(index, value): (usize, &Datum<'_>)| match &self.literals[index] {
            Some(scalar) => ColumnarValue::Scalar(scalar.clone()),
            None => ColumnarValue::Array(to_array(std::slice::from_ref(value), &self.arguments[index].1)),
        };
        let arguments = ScalarFunctionArgs {
            args: values.iter().enumerate().map(argument).collect(),
            arg_fields: self.arguments.iter().map(|(_, _, field)| Arc::clone(field)).collect(),
            number_rows: 1,
            return_field: Arc::clone(self.field.as_ref().ok_or(Fault)?),
            config_options: Arc::clone(&self.options),
        };
        let result = self.function.function.invoke_with_args(arguments).map_err(|_| Fault)?;
        let given = result.into_array(1).map_err(|_| Fault)?;
        let array = cast(&given, &self.to.to_arrow()).map_err(|_| Fault)?;
        // A value that our type does not hold, e.g. milliseconds that are too many microseconds, is cast to NULL.
        if array.is_empty() || (array.is_null(0) && !given.is_null(0)) {
            return Err(Fault);
        }
        Ok(match datum_at(&array, &self.to, 0).into_owned() {
            Datum::Float(value) => Datum::Float(canonical(value)),
            value => value,
        })
    }
}

/// The value of a literal argument as the batch engine holds it.
fn literal(expr: &ScalarExpr) -> Option<ScalarValue> {
    let ScalarExpr::Literal { value, data_type } = expr else { return None };
    ScalarValue::try_from_array(&to_array(std::slice::from_ref(value), data_type), 0).ok()
}
