//! Lowering of window functions: rankings become top-k nodes that rank everything (a filter on the rank cuts them later, see
//! `top_k.rs`), all others recompute a changed partition.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::logical_plan::Window as LogicalWindow;
use datafusion::logical_expr::{Expr, WindowFunctionDefinition};
use deltaworks_dataflow::{Column, DataType, Schema};

use super::{Lowering, Result, pick, schema_of};
use crate::error::SqlError;
use crate::plan::{Node, Plan, Ranking, TopK, Window, WindowCall};

impl Lowering<'_> {
    pub(super) fn window(&mut self, window: &LogicalWindow) -> Result<Plan> {
        let mut plan = self.plan(&window.input)?;
        let width = plan.schema.len();
        let output = schema_of(&window.schema)?;
        let over = window.input.schema();
        let mut places = vec![0; window.window_expr.len()];
        // Rankings go on top, where a filter on them finds them.
        for wants_ranking in [false, true] {
            for (index, expression) in window.window_expr.iter().enumerate() {
                super::refuse::functions(expression)?;
                let call = window_function(expression)?;
                let ranking = ranking(call);
                if ranking.is_some() != wants_ranking {
                    continue;
                }
                let column = Column { name: call.fun.name().to_string(), ..output.columns[width + index].clone() };
                places[index] = plan.schema.len();
                plan = match ranking {
                    Some(ranking) => self.ranked(plan, call, ranking, over)?,
                    None => self.windowed(plan, call, &column, over)?,
                };
            }
        }
        if places.is_sorted() {
            return Ok(plan);
        }
        let order: Vec<usize> = (0..width).chain(places).collect();
        Ok(pick(plan, &order))
    }

    fn ranked(&self, input: Plan, call: &WindowFunction, ranking: Ranking, over: &DFSchema) -> Result<Plan> {
        let partition = self.expressions(&call.params.partition_by, over)?;
        let order = self.sort_keys(&call.params.order_by, over)?;
        refuse_clock(partition.iter().chain(order.iter().map(|key| &key.expression)).any(super::clock::uses_clock))?;
        let mut schema = input.schema.clone();
        schema.columns.push(Column { name: call.fun.name().to_string(), data_type: DataType::BigInt, nullable: false });
        let top_k = TopK { input, partition, order, offset: 0, limit: None, ranking, emit_rank: true, before_sink: false };
        Ok(Plan::new(Node::TopK(Box::new(top_k)), schema))
    }

    /// Calls over one partition share a node.
    fn windowed(&self, input: Plan, call: &WindowFunction, column: &Column, over: &DFSchema) -> Result<Plan> {
        let partition = self.expressions(&call.params.partition_by, over)?;
        let expression = positioned(Expr::WindowFunction(Box::new(call.clone())), over)?;
        let call = WindowCall { expression, data_type: column.data_type.clone() };
        let mut schema = input.schema.clone();
        schema.columns.push(column.clone());
        match input.node {
            Node::Window(mut window) if window.partition == partition => {
                window.functions.push(call);
                Ok(Plan::new(Node::Window(window), schema))
            }
            node => {
                let input = Plan::new(node, Schema::new(schema.columns[..schema.len() - 1].to_vec()));
                let window = Window { input, partition, functions: vec![call] };
                Ok(Plan::new(Node::Window(Box::new(window)), schema))
            }
        }
    }
}

fn refuse_clock(used: bool) -> Result<()> {
    if used {
        let help = "compute the expression with NOW() or CURRENT_DATE in a subquery";
        return Err(SqlError::new("a window function over the clock cannot be kept up to date", help));
    }
    Ok(())
}

fn window_function(expression: &Expr) -> Result<&WindowFunction> {
    match expression {
        Expr::Alias(alias) => window_function(&alias.expr),
        Expr::WindowFunction(call) => Ok(call),
        other => Err(SqlError::new(format!("\"{other}\" is no window function"), "")),
    }
}

fn ranking(call: &WindowFunction) -> Option<Ranking> {
    let WindowFunctionDefinition::WindowUDF(function) = &call.fun else {
        return None;
    };
    match function.name() {
        "row_number" => Some(Ranking::RowNumber),
        "rank" => Some(Ranking::Rank),
        "dense_rank" => Some(Ranking::DenseRank),
        _ => None,
    }
}

/// The expression with columns by position: `c3` is column 3 of the input.
fn positioned(expression: Expr, over: &DFSchema) -> Result<Expr> {
    let renamed = expression.transform(|part| match &part {
        Expr::Column(column) => {
            let index = over.index_of_column(column)?;
            Ok(Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(position_name(index)))))
        }
        Expr::ScalarVariable(..) => Err(refuse_clock(true).err().map_or_else(
            || datafusion::common::DataFusionError::Plan(String::new()),
            datafusion::common::DataFusionError::from,
        )),
        _ => Ok(Transformed::no(part)),
    })?;
    Ok(renamed.data)
}

/// How a window function names column `index` of its input.
pub fn position_name(index: usize) -> String {
    format!("c{index}")
}

fn position_of(name: &str) -> Option<usize> {
    name.strip_prefix('c')?.parse().ok()
}

impl WindowCall {
    /// The positions of the input's columns that the call uses.
    pub fn columns(&self) -> super::unique::Columns {
        self.expression.column_refs().into_iter().filter_map(|column| position_of(&column.name)).collect()
    }
    /// The call over renumbered columns.
    pub fn map_columns(&self, f: &dyn Fn(usize) -> usize) -> WindowCall {
        let renamed = self.expression.clone().transform(|part| {
            Ok(match &part {
                Expr::Column(column) => match position_of(&column.name) {
                    Some(index) => {
                        let name = position_name(f(index));
                        Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(name)))
                    }
                    None => Transformed::no(part),
                },
                _ => Transformed::no(part),
            })
        });
        let expression = renamed.map_or_else(|_| self.expression.clone(), |renamed| renamed.data);
        WindowCall { expression, data_type: self.data_type.clone() }
    }
}
