//! Natively interpreted functions as functions of the batch engine: one implementation for both.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, FieldRef};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use deltaworks_dataflow::batch::{datum_at, to_array};
use deltaworks_dataflow::{DataType, Datum};

use crate::expr::arithmetic::{self, Fault};
use crate::expr::{BinaryOp, Function};

/// What a function takes, given the types of the arguments: the types to cast them to, or None.
pub(crate) type Takes = fn(&[ArrowType]) -> Option<Vec<ArrowType>>;

/// A natively interpreted function.
#[derive(Debug)]
pub(crate) struct Native {
    name: &'static str,
    aliases: Vec<String>,
    pub(crate) function: Function,
    takes: Takes,
    gives: ArrowType,
    signature: Signature,
}

impl Native {
    pub(crate) fn udf(name: &'static str, aliases: &[&str], function: Function, takes: Takes, gives: DataType) -> ScalarUDF {
        ScalarUDF::new_from_impl(Native {
            name,
            aliases: aliases.iter().map(ToString::to_string).collect(),
            function,
            takes,
            gives: gives.to_arrow(),
            signature: Signature::user_defined(Volatility::Immutable),
        })
    }
}
impl PartialEq for Native {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function
    }
}
impl Eq for Native {}
impl Hash for Native {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.hash(state);
    }
}
impl ScalarUDFImpl for Native {
    fn name(&self) -> &str {
        self.name
    }
    fn aliases(&self) -> &[String] {
        &self.aliases
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[ArrowType]) -> Result<Vec<ArrowType>> {
        match (self.takes)(types) {
            Some(wanted) => Ok(wanted),
            None => {
                let types: Vec<String> = types.iter().map(type_name).collect();
                plan_err!("function \"{}\" does not take ({})", self.name, types.join(", "))
            }
        }
    }
    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType> {
        Ok(self.gives.clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.invoke(&args, &mut |_| {})
    }
}
impl Native {
    /// The values; the rows on which the function fails are named to `fault`.
    pub(crate) fn invoke(&self, args: &ScalarFunctionArgs, fault: &mut dyn FnMut(usize)) -> Result<ColumnarValue> {
        invoke_by_row(args, fault, |values, types, to| self.function.call(values, types, to))
    }
}

/// The SQL name of a type of the batch engine.
pub(crate) fn type_name(data_type: &ArrowType) -> String {
    DataType::from_arrow(data_type).map_or_else(|| data_type.to_string(), |data_type| data_type.to_string())
}

/// Calls an interpreted function row by row; a fault is NULL, and its row is named.
pub(crate) fn invoke_by_row(
    args: &ScalarFunctionArgs,
    fault: &mut dyn FnMut(usize),
    call: impl for<'a> Fn(&[Datum<'a>], &[DataType], &DataType) -> std::result::Result<Datum<'a>, Fault>,
) -> Result<ColumnarValue> {
    let ours = |data_type: &ArrowType| match DataType::from_arrow(data_type) {
        Some(ours) => Ok(ours),
        None => plan_err!("type {data_type} is not supported"),
    };
    let to = ours(args.return_type())?;
    let mut types = Vec::with_capacity(args.args.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(args.args.len());
    // Arguments that are all constant give a constant: one row is enough.
    let constant = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { args.number_rows };
    for value in &args.args {
        let array = value.to_array(rows)?;
        let data_type = ours(array.data_type())?;
        arrays.push(datafusion::arrow::compute::cast(&array, &data_type.to_arrow())?);
        types.push(data_type);
    }
    let mut results = Vec::with_capacity(rows);
    let mut values = Vec::with_capacity(arrays.len());
    for row in 0..rows {
        values.clear();
        values.extend(arrays.iter().zip(&types).map(|(array, data_type)| datum_at(array, data_type, row)));
        results.push(call(&values, &types, &to).unwrap_or_else(|Fault| {
            fault(row);
            Datum::Null
        }));
    }
    let array = to_array(&results, &to);
    // The names of nested fields are the planner's: they are restored so that the batch engine finds the type it planned.
    let array = datafusion::arrow::compute::cast(&array, args.return_type())?;
    if constant {
        return Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

/// Arithmetic that gives NULL where it has no answer, in place of the batch engine's operators, which wrap or fail.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Checked {
    /// The operator; None negates.
    pub(crate) op: Option<BinaryOp>,
    /// The type of the result, as the planner resolved it.
    gives: ArrowType,
    signature: Signature,
}

impl Checked {
    pub(crate) fn call(op: Option<BinaryOp>, gives: ArrowType, arguments: Vec<Expr>) -> Expr {
        let signature = Signature::any(arguments.len(), Volatility::Immutable);
        let function = Arc::new(ScalarUDF::new_from_impl(Checked { op, gives, signature }));
        Expr::ScalarFunction(datafusion::logical_expr::expr::ScalarFunction::new_udf(function, arguments))
    }
    fn text(&self, arguments: &[String]) -> String {
        match (self.op, arguments) {
            (Some(op), [left, right]) => format!("{left} {op} {right}"),
            (None, [input]) => format!("(- {input})"),
            _ => arguments.join(", "),
        }
    }
}
impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Some(BinaryOp::Plus) => "checked_add",
            Some(BinaryOp::Minus) => "checked_subtract",
            Some(BinaryOp::Multiply) => "checked_multiply",
            Some(BinaryOp::Divide) => "checked_divide",
            Some(_) => "checked_modulo",
            None => "checked_negate",
        }
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(self.text(&args.iter().map(|arg| arg.schema_name().to_string()).collect::<Vec<_>>()))
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType> {
        Ok(self.gives.clone())
    }
    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.gives.clone(), true)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.invoke(&args, &mut |_| {})
    }
}
impl Checked {
    /// The values; the rows that have none are named to `fault`.
    pub(crate) fn invoke(&self, args: &ScalarFunctionArgs, fault: &mut dyn FnMut(usize)) -> Result<ColumnarValue> {
        if let Some(done) = self.by_kernel(args) {
            return Ok(done);
        }
        invoke_by_row(args, fault, |values, types, to| match (self.op, values) {
            (Some(op), [left, right]) => arithmetic::arithmetic(op, left, &types[0], right, &types[1], to),
            (None, [input]) => arithmetic::negate(input, to),
            _ => Err(Fault),
        })
    }
    /// Arrow's kernels, which fail on the whole batch where one integer overflows: then every row is computed on its own.
    fn by_kernel(&self, args: &ScalarFunctionArgs) -> Option<ColumnarValue> {
        use datafusion::arrow::compute::kernels::numeric::{add, mul, sub};
        let op = self.op?;
        let integer = |value: &ColumnarValue| value.data_type() == self.gives && self.gives.is_signed_integer();
        if !args.args.iter().all(integer) || args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_))) {
            return None;
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args).ok()?;
        let kernel = match op {
            BinaryOp::Plus => add,
            BinaryOp::Minus => sub,
            BinaryOp::Multiply => mul,
            _ => return None,
        };
        kernel(&arrays[0], &arrays[1]).ok().map(ColumnarValue::Array)
    }
}
