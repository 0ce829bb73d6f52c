//! What no continuous query may contain: each is refused by its name, with its place where known, and with what to write
//! instead.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use sqlparser::ast;

use super::TableInfo;
use crate::error::SqlError;
use crate::functions::external::is_external;
use crate::plan::{Node, Plan};

/// Volatile functions that the engine gives a meaning of its own.
const ALLOWED: [&str; 1] = ["write_timestamp"];

/// Refuses, with their place, the functions and forms that no continuous query may contain.
///
/// # Errors
/// The first of them in the order of the text.
pub fn check_query(query: &ast::Query) -> Result<(), SqlError> {
    struct Search;
    impl ast::Visitor for Search {
        type Break = SqlError;
        fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<SqlError> {
            match &query.with {
                Some(with) if with.recursive => {
                    let name = with.cte_tables.first().map(|cte| cte.alias.name.value.clone()).unwrap_or_default();
                    let place = with.with_token.0.span.start;
                    ControlFlow::Break(placed(recursive(&name), place.line, place.column))
                }
                _ => ControlFlow::Continue(()),
            }
        }
        fn pre_visit_expr(&mut self, expression: &ast::Expr) -> ControlFlow<SqlError> {
            let ast::Expr::Function(function) = expression else {
                return ControlFlow::Continue(());
            };
            let Some(name) = function.name.0.last().and_then(|part| part.as_ident()) else {
                return ControlFlow::Continue(());
            };
            match function_error(&name.value.to_lowercase()) {
                Some(error) => ControlFlow::Break(placed(error, name.span.start.line, name.span.start.column)),
                None => ControlFlow::Continue(()),
            }
        }
    }
    match ast::Visit::visit(query, &mut Search) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn placed(error: SqlError, line: u64, column: u64) -> SqlError {
    if line == 0 { error } else { error.at(line as usize, column as usize) }
}

/// What is wrong with a function of that name, lower case, in a continuous query.
fn function_error(name: &str) -> Option<SqlError> {
    let refused = |help: &str| Some(SqlError::new(format!("function \"{name}\" cannot be kept up to date"), help));
    match name {
        "random" | "rand" | "random_uniform" => {
            refused("a result must be a function of the tables: hash a column instead, e.g. md5(id)")
        }
        "uuid" | "gen_random_uuid" => refused("derive the id from the row, e.g. md5(CONCAT(a, b))"),
        "approx_distinct" => refused("use COUNT(DISTINCT x) or GROUP_BITMAP(x), which are exact"),
        "approx_median" => refused("use MEDIAN(x), which is exact"),
        name if name.starts_with("approx_") => refused("use the exact aggregate"),
        _ => None,
    }
}

/// Refuses the functions of an expression.
pub(super) fn functions(expression: &Expr) -> Result<(), SqlError> {
    let mut refused = None;
    let visited = expression.apply(|part| {
        let name = match part {
            Expr::ScalarFunction(call) => call.func.name(),
            Expr::AggregateFunction(call) => call.func.name(),
            Expr::WindowFunction(call) => call.fun.name(),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        refused = refused.take().or_else(|| function_error(&name.to_lowercase())).or_else(|| volatile(part));
        Ok(TreeNodeRecursion::Continue)
    });
    visited?;
    refused.map_or(Ok(()), Err)
}

fn volatile(part: &Expr) -> Option<SqlError> {
    let Expr::ScalarFunction(call) = part else {
        return None;
    };
    let name = call.func.name();
    let free =
        call.func.signature().volatility != Volatility::Volatile || ALLOWED.contains(&name) || is_external(&call.func);
    (!free).then(|| {
        let message = format!("function \"{name}\" cannot be kept up to date");
        SqlError::new(message, "a result must be a function of the tables and the clock")
    })
}

pub(super) fn recursive(name: &str) -> SqlError {
    SqlError::new(
        format!("recursive query \"{name}\" cannot be kept up to date"),
        "to follow links between ids read IDENTITY(links), of a table or view with the columns id_a, id_b and first_seen",
    )
}

pub(super) fn node(plan: &LogicalPlan) -> SqlError {
    let name = plan.display().to_string();
    let name = name.split([':', ' ']).next().unwrap_or_default();
    SqlError::new(format!("{name} cannot be part of a continuous query"), "run it as a statement of its own")
}

/// Refuses plans that would have to keep the rows of a table that keeps none.
///
/// # Errors
/// The table and the operator that would need its rows again.
pub fn check_streams(plan: &Plan, tables: &dyn TableInfo) -> Result<(), SqlError> {
    let needs = match &plan.node {
        Node::Join(join) if join.kind.is_lookup() => needs_rows("lookup join", &join.right, tables),
        Node::Join(_) | Node::DeltaJoin(_) | Node::Lookback(_) => {
            plan.inputs().into_iter().find_map(|input| needs_rows("join", input, tables))
        }
        Node::Window(window) => needs_rows("window function", &window.input, tables),
        _ => None,
    };
    match needs {
        Some(error) => Err(error),
        None => plan.inputs().into_iter().try_for_each(|input| check_streams(input, tables)),
    }
}

/// The error, if rows of a stream reach `plan` without having been folded.
fn needs_rows(what: &str, plan: &Plan, tables: &dyn TableInfo) -> Option<SqlError> {
    match &plan.node {
        Node::Get { table, .. } => {
            let facts = tables.table(table)?;
            (!facts.retained).then(|| {
                SqlError::new(
                    format!("the {what} needs the rows of table \"{table}\", which keeps none"),
                    "leave out 'table.retain' = 'none', insert it into a keyed table and read that, or look the other side up: \
                     JOIN t FOR SYSTEM_TIME AS OF PROCTIME()",
                )
            })
        }
        // These hold what they need themselves.
        Node::Aggregate(_) | Node::TopK(_) | Node::Distinct { .. } => None,
        _ => plan.inputs().into_iter().find_map(|input| needs_rows(what, input, tables)),
    }
}
