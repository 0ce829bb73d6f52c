//! Calls of external functions in a continuous query: answered outside the dataflow, they become joins.
//!
//! ```text
//! SELECT a, f(b) FROM t     =     SELECT a, r.result FROM t JOIN f$results r ON r.argument IS NOT DISTINCT FROM t.b
//! ```
//!
//! The distinct arguments are a query of their own; whoever answers them fills the table of results. So the view is at every tick
//! exactly the join, and a row whose call has no answer yet, or none for good, is not in it.

use deltaworks_dataflow::Schema;

use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::functions::external::is_external;
use crate::plan::{Join, JoinKind, Node, Plan};

/// What a query asks of an external function.
#[derive(Clone, Debug)]
pub struct CallSite {
    /// The function, by the name that the query's calls have.
    pub function: String,
    /// The distinct rows of arguments.
    pub arguments: Plan,
}

/// The table of a function's results: its qualified name and columns, the arguments first.
pub type ResultsTable = (String, Schema);

/// Replaces calls of external functions in projections and filters by joins with their results.
///
/// # Errors
/// Calls without arguments; functions that `results` does not know.
pub fn take_calls(
    plan: Plan,
    results: &dyn Fn(&str) -> Option<ResultsTable>,
    sites: &mut Vec<CallSite>,
) -> Result<Plan, SqlError> {
    let mut plan = plan;
    for input in plan.inputs_mut() {
        let own = std::mem::replace(input, Plan::new(Node::Constant { rows: Vec::new() }, Schema::default()));
        *input = take_calls(own, results, sites)?;
    }
    let schema = plan.schema;
    Ok(match plan.node {
        Node::Project { input, expressions } if expressions.iter().any(calls) => {
            let (input, expressions) = joined(*input, expressions, results, sites)?;
            Plan::new(Node::Project { input: Box::new(input), expressions }, schema)
        }
        Node::Filter { input, predicate } if calls(&predicate) => {
            let columns = columns_of(&schema);
            let (input, predicates) = joined(*input, vec![predicate], results, sites)?;
            let mut filtered = input;
            for predicate in predicates {
                let below = filtered.schema.clone();
                filtered = Plan::new(Node::Filter { input: Box::new(filtered), predicate }, below);
            }
            Plan::new(Node::Project { input: Box::new(filtered), expressions: columns }, schema)
        }
        node => Plan::new(node, schema),
    })
}

fn calls(expression: &ScalarExpr) -> bool {
    expression.any(&is_call)
}
fn is_call(expression: &ScalarExpr) -> bool {
    matches!(expression, ScalarExpr::Udf { function, .. } if is_external(&function.function))
}
fn columns_of(schema: &Schema) -> Vec<ScalarExpr> {
    schema.types().into_iter().enumerate().map(|(index, data_type)| ScalarExpr::column(index, data_type)).collect()
}

/// The input joined with the results of every call in the expressions, inner calls first, and the expressions over it.
fn joined(
    mut input: Plan,
    mut expressions: Vec<ScalarExpr>,
    results: &dyn Fn(&str) -> Option<ResultsTable>,
    sites: &mut Vec<CallSite>,
) -> Result<(Plan, Vec<ScalarExpr>), SqlError> {
    while let Some(call) = expressions.iter().find_map(innermost) {
        let ScalarExpr::Udf { function, arguments, data_type } = &call else { break };
        let unknown = || SqlError::new(format!("there is no external function \"{}\"", function.name()), "create it first");
        let table = results(function.name()).ok_or_else(unknown)?;
        if arguments.is_empty() {
            return Err(SqlError::new(
                format!("external function \"{}\" has no arguments", function.name()),
                "give it one that says which row it is called for",
            ));
        }
        let result = input.schema.len() + 2 * arguments.len();
        input = with_results(input, function.name(), arguments, table, sites);
        let column = ScalarExpr::column(result, data_type.clone());
        let replace = |part: ScalarExpr| if part == call { column.clone() } else { part };
        expressions = expressions.iter().map(|expression| expression.transform(&replace)).collect();
    }
    Ok((input, expressions))
}
/// A call among whose arguments is none.
fn innermost(expression: &ScalarExpr) -> Option<ScalarExpr> {
    let below = expression.children().into_iter().find_map(innermost);
    below.or_else(|| is_call(expression).then(|| expression.clone()))
}
/// The input's columns, the arguments, and the row of results.
fn with_results(
    input: Plan,
    function: &str,
    arguments: &[ScalarExpr],
    (table, results): ResultsTable,
    sites: &mut Vec<CallSite>,
) -> Plan {
    let asked = Schema::new(results.columns[..arguments.len()].to_vec());
    let arguments: Vec<ScalarExpr> =
        arguments.iter().zip(&asked.columns).map(|(a, column)| a.clone().cast_to(&column.data_type)).collect();
    let distinct =
        Plan::new(Node::Project { input: Box::new(input.clone()), expressions: arguments.clone() }, asked.clone());
    let distinct = Plan::new(Node::Distinct { input: Box::new(distinct) }, asked.clone());
    sites.push(CallSite { function: function.to_string(), arguments: distinct });
    let width = input.schema.len();
    let mut expressions = columns_of(&input.schema);
    expressions.extend(arguments);
    let left = Schema::new(input.schema.columns.iter().chain(&asked.columns).cloned().collect());
    let keys = |first: usize| {
        asked.types().into_iter().enumerate().map(move |(i, data_type)| ScalarExpr::column(first + i, data_type)).collect()
    };
    let schema = Schema::new(left.columns.iter().chain(&results.columns).cloned().collect());
    let columns = (0..results.len()).collect();
    let join = Join {
        left: Plan::new(Node::Project { input: Box::new(input), expressions }, left),
        right: Plan::new(Node::Get { table, columns, in_chunks: false }, results),
        kind: JoinKind::Inner,
        left_keys: keys(width),
        right_keys: keys(0),
        null_equal: true,
        residual: None,
        right_unique: true,
        left_unique: false,
        cross_limit: None,
        reason: format!("the answers of external function \"{function}\""),
    };
    Plan::new(Node::Join(Box::new(join)), schema)
}
