//! Operators that are left to the batch engine (regular expressions, bits): its physical expression as a function of the
//! operands.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, col,
};
use datafusion::physical_expr::create_physical_expr;
use deltaworks_dataflow::DataType;

/// An expression over columns `a0`, `a1`, .. as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Interpreted {
    name: String,
    expr: Expr,
    types: Vec<ArrowType>,
    gives: ArrowType,
    signature: Signature,
}

/// The expression as a function of its direct operands.
pub(super) fn interpreted(expr: &Expr, types: &[DataType], gives: &DataType) -> Result<Arc<ScalarUDF>> {
    let name = expr.to_string();
    let mut operand = 0;
    let expr = expr.clone().map_children(|_| {
        operand += 1;
        Ok(Transformed::new(col(format!("a{}", operand - 1)), true, TreeNodeRecursion::Continue))
    })?;
    Ok(Arc::new(ScalarUDF::new_from_impl(Interpreted {
        name,
        expr: expr.data,
        types: types.iter().map(DataType::to_arrow).collect(),
        gives: gives.to_arrow(),
        signature: Signature::any(types.len(), Volatility::Immutable),
    })))
}

impl ScalarUDFImpl for Interpreted {
    fn name(&self) -> &str {
        &self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType> {
        Ok(self.gives.clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let field = |(index, data_type): (usize, &ArrowType)| Field::new(format!("a{index}"), data_type.clone(), true);
        let schema = Schema::new(self.types.iter().enumerate().map(field).collect::<Vec<_>>());
        let arrays = args.args.iter().map(|value| value.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let batch = RecordBatch::try_new(Arc::new(schema.clone()), arrays)?;
        let schema = DFSchema::try_from(schema)?;
        let physical = create_physical_expr(&self.expr, &schema, &ExecutionProps::new(), &Default::default())?;
        let array = physical.evaluate(&batch)?.into_array(args.number_rows)?;
        Ok(ColumnarValue::Array(datafusion::arrow::compute::cast(&array, &self.gives)?))
    }
}
