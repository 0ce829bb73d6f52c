//! Renders what only the batch engine computes: any other aggregate over a changed group's rows, and window functions over a
//! changed partition's rows.

use std::rc::Rc;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{Field, Schema as ArrowSchema, SchemaRef};
use datafusion::common::{Column as PlanColumn, ScalarValue};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::expr_rewriter::normalize_col;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::PhysicalExpr;
use deltaworks_dataflow::batch::{datum_at, from_record_batch, to_array, to_record_batch};
use deltaworks_dataflow::{Collection, Column, DataType, Datum, Diff, Row, Schema};
use deltaworks_operators::aggregate::recompute;

use super::Renderer;
use super::layout::Layout;
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::plan::{AggregateCall, AggregateFunction, Node, Plan, SortKey, Window};
use crate::session::{ClockReading, Session};

/// What an aggregate of the batch engine gives for no rows.
pub(super) fn empty_result(name: &str, data_type: &DataType) -> Datum<'static> {
    match (name, data_type) {
        (name, DataType::BigInt) if name.starts_with("group_bitmap") => Datum::Int(0),
        (name, DataType::Bitmap) if name.starts_with("group_bitmap") => deltaworks_dataflow::bitmap::from_members([]),
        (name, DataType::BigInt) if name.contains("count") || name.starts_with("regr_count") => Datum::Int(0),
        _ => Datum::Null,
    }
}

/// An aggregate of the batch engine over the rows of one group: arguments, then sort keys, then the filter.
pub(super) struct GroupAggregate {
    function: Option<AggregateFunctionExpr>,
    types: Vec<DataType>,
    arguments: usize,
    order: Vec<SortKey>,
    /// Whether equal arguments count once.
    distinct: bool,
    result: DataType,
}

impl GroupAggregate {
    /// Makes the aggregate ready; the planner has resolved it before, so it is known.
    pub(super) fn new(session: Rc<Session>, call: &AggregateCall, types: &[DataType]) -> Self {
        GroupAggregate {
            function: function(&session, call, types).ok(),
            types: types.to_vec(),
            arguments: call.arguments.len(),
            order: call.order_by.clone(),
            distinct: call.distinct,
            result: call.data_type.clone(),
        }
    }
    /// The result for a group's rows, as a row of one field; NULL where the function fails on them.
    pub(super) fn evaluate(&mut self, rows: &[(&[u8], Diff)]) -> Row {
        let value = self.value(rows).unwrap_or(Datum::Null);
        Row::pack([value])
    }
    fn value(&self, rows: &[(&[u8], Diff)]) -> Option<Datum<'static>> {
        let mut decoded: Vec<Vec<Datum<'_>>> = Vec::new();
        for (bytes, diff) in rows {
            let mut rest = *bytes;
            let fields: Vec<Datum<'_>> = self.types.iter().map(|t| Datum::decode(&mut rest, t)).collect();
            if fields.last() == Some(&Datum::Bool(true)) {
                decoded.extend((0..*diff).map(|_| fields.clone()));
            }
        }
        if self.distinct {
            decoded.sort_by(|a, b| a[..self.arguments].cmp(&b[..self.arguments]));
            decoded.dedup_by(|a, b| a[..self.arguments] == b[..self.arguments]);
        }
        decoded.sort_by(|a, b| self.compare(a, b));
        let arrays: Vec<ArrayRef> = (0..self.arguments)
            .map(|i| to_array(&decoded.iter().map(|row| row[i].clone()).collect::<Vec<_>>(), &self.types[i]))
            .collect();
        let mut accumulator = self.function.as_ref()?.create_accumulator().ok()?;
        if !decoded.is_empty() {
            accumulator.update_batch(&arrays).ok()?;
        }
        let result: ScalarValue = accumulator.evaluate().ok()?.cast_to(&self.result.to_arrow()).ok()?;
        let array = result.to_array().ok()?;
        Some(datum_at(&array, &self.result, 0).into_owned())
    }
    fn compare(&self, a: &[Datum<'_>], b: &[Datum<'_>]) -> std::cmp::Ordering {
        let mut order = std::cmp::Ordering::Equal;
        for (index, key) in self.order.iter().enumerate() {
            let (x, y) = (&a[self.arguments + index], &b[self.arguments + index]);
            let nulls = x.is_null().cmp(&y.is_null());
            let nulls = if key.nulls_first { nulls.reverse() } else { nulls };
            let values = if key.descending { y.cmp(x) } else { x.cmp(y) };
            order = order.then(nulls).then(values);
        }
        order
    }
}

fn function(session: &Session, call: &AggregateCall, types: &[DataType]) -> Result<AggregateFunctionExpr, SqlError> {
    let name = match &call.function {
        AggregateFunction::Other(name) => name.clone(),
        other => format!("{other:?}").to_lowercase(),
    };
    let function = session.aggregate_function(&name)?;
    let fields: Vec<Field> =
        types.iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t.to_arrow(), true)).collect();
    let schema: SchemaRef = Arc::new(ArrowSchema::new(fields));
    let literal = |i: usize| call.arguments[i].as_literal().is_some();
    let argument = |i: usize| -> Arc<dyn PhysicalExpr> {
        // Some functions want a parameter that is fixed, e.g. the fraction of a percentile.
        if literal(i)
            && let Some(value) = call.arguments[i].as_literal()
        {
            let array = to_array(std::slice::from_ref(value), &types[i]);
            if let Ok(scalar) = ScalarValue::try_from_array(&array, 0) {
                return datafusion::physical_expr::expressions::lit(scalar);
            }
        }
        Arc::new(PhysicalColumn::new(&format!("c{i}"), i))
    };
    let arguments = (0..call.arguments.len()).map(argument).collect();
    let built = AggregateExprBuilder::new(function, arguments).schema(schema).alias("result");
    let built = if call.distinct { built.distinct() } else { built };
    Ok(built.build()?)
}

impl<'s> Renderer<'_, '_, 's> {
    /// The input's columns and one column per window function, by recomputing a changed partition.
    pub(super) fn window(&mut self, window: &Window, plan: &Plan) -> Collection<'s> {
        let types = window.input.schema.types();
        let whole: Vec<ScalarExpr> = types.iter().enumerate().map(|(c, t)| ScalarExpr::column(c, t.clone())).collect();
        let layout = Layout { key: window.partition.clone(), value: whole };
        let arranged = self.arrange(&window.input, layout, &[], "Window");
        let session = self.session();
        let partition = PartitionWindow {
            input: numbered(&types),
            output: plan.schema.clone(),
            functions: window.functions.iter().map(|call| call.expression.clone()).collect(),
        };
        let results = recompute(arranged, "Window", move |_, rows, results| {
            results.extend(partition.evaluate(&session, rows).unwrap_or_else(|_| partition.without_results(rows)));
        });
        results.map(|(_, row)| row)
    }
}

/// Checks that the batch engine can evaluate a plan's window functions, by trying them on no rows.
///
/// # Errors
/// What it says about the first that it cannot.
pub fn check_windows(plan: &Plan, session: &Session) -> Result<(), SqlError> {
    if let Node::Window(window) = &plan.node {
        let functions = window.functions.iter().map(|call| call.expression.clone()).collect();
        let input = numbered(&window.input.schema.types());
        PartitionWindow { input, output: plan.schema.clone(), functions }.evaluate(session, &[])?;
    }
    plan.inputs().into_iter().try_for_each(|input| check_windows(input, session))
}

/// Columns `c0`, `c1`, ..
fn numbered(types: &[DataType]) -> Schema {
    Schema::new(types.iter().enumerate().map(|(i, t)| Column::new(format!("c{i}"), t.clone())).collect())
}

/// Window functions over the rows of one partition.
struct PartitionWindow {
    input: Schema,
    output: Schema,
    functions: Vec<Expr>,
}
impl PartitionWindow {
    /// The rows with NULL for every function: what is left where the functions fail on the partition's data.
    fn without_results(&self, rows: &[(&[u8], Diff)]) -> Vec<Row> {
        let nulls = super::shape::nulls(self.functions.len());
        let repeated = rows.iter().flat_map(|(row, diff)| (0..*diff).map(move |_| *row));
        repeated.map(|row| Row::from_bytes(&[row, &nulls].concat())).collect()
    }
    fn evaluate(&self, session: &Session, rows: &[(&[u8], Diff)]) -> Result<Vec<Row>, SqlError> {
        let repeated = rows.iter().flat_map(|(row, diff)| (0..*diff).map(move |_| *row));
        let batch = to_record_batch(&self.input, repeated).map_err(|e| SqlError::new(e.to_string(), ""))?;
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        let scan = LogicalPlanBuilder::scan("p", provider_as_source(Arc::new(table)), None)?.build()?;
        // Functions of different orders are planned one on top of the other, in an order that is not ours.
        let functions =
            self.functions.iter().map(|f| Ok(normalize_col(f.clone(), &scan)?)).collect::<Result<Vec<_>, SqlError>>()?;
        let mut columns: Vec<Expr> = scan.schema().columns().into_iter().map(Expr::Column).collect();
        columns.extend(functions.iter().map(|f| Expr::Column(PlanColumn::from_name(f.schema_name().to_string()))));
        let windows = LogicalPlanBuilder::window_plan(scan, functions)?;
        let plan = LogicalPlanBuilder::from(windows).project(columns)?.build()?;
        let mut results = Vec::with_capacity(rows.len());
        for batch in session.execute(plan, ClockReading::default())?.batches {
            results.extend(from_record_batch(&self.output, &batch).map_err(|e| SqlError::new(e.to_string(), ""))?);
        }
        Ok(results)
    }
}
