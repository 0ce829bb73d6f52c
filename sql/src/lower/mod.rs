//! Lowering: from DataFusion's logical plan to ours.
//!
//! Two steps. First every node of the logical plan becomes the node of ours that means the same, with positions for names;
//! then [`optimize`](crate::optimize) rewrites our plan: top-k, lookback and delta joins are recognised there, on positions.
//!
//! | logical plan | plan | file |
//! |---|---|---|
//! | TableScan, Values, EmptyRelation, Union, Unnest, Distinct, Sort and Limit | Get, Constant, Union, Unnest, Distinct, TopK | `relation.rs` |
//! | Projection, Filter | Project, Filter, TemporalFilter | `clock.rs` |
//! | Join | Join | `join.rs`, `lookup.rs` |
//! | Aggregate, with grouping sets | Aggregate, Union | `aggregate.rs` |
//! | Window | TopK, Window | `window.rs` |
//! | what no continuous query may contain | an error | `refuse.rs` |
//!
//! | rewrite of our plan | file |
//! |---|---|
//! | `rank <= k` becomes part of the ranking; FIRST_VALUEs of one order become a ranking | `top_k.rs` |
//! | the first right row in a time range: one seek per left row | `lookback.rs` |
//! | trees of inner joins as one delta join | `delta.rs` |
//! | which columns are unique | `unique.rs` |
//! | bitmaps that travel in chunks; last of all, since it depends on where the rows go | `chunks.rs` |
//! | before a sink, where rows may share its key: the first of them | `one_per_key.rs` |
//! | conjunctions, sums and what a predicate says about time | `terms.rs` |

mod aggregate;
pub mod chunks;
mod clock;
pub(crate) mod delta;
pub(crate) mod join;
pub(crate) mod lookback;
pub(crate) mod lookup;
mod one_per_key;
mod refuse;
mod relation;
pub(crate) mod terms;
mod time_range;
pub(crate) mod top_k;
pub mod unique;
pub mod window;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use deltaworks_dataflow::Schema;

pub use lookup::{LookupOutput, is_append_only};
pub use one_per_key::one_per_key;
pub use refuse::{check_query, check_streams};

use crate::error::SqlError;
use crate::expr::{ScalarExpr, lower_expr};
use crate::plan::{Node, Plan};

/// What the planner asks about a table or view.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableFacts {
    /// The qualified name that the catalog knows it by; plans refer to it by this name.
    pub name: String,
    /// Its columns.
    pub schema: Schema,
    /// The positions of its PRIMARY KEY, in key order; empty without one. For a view: a set of columns that
    /// [`unique::unique_columns`] proved.
    pub primary_key: Vec<usize>,
    /// Whether it has at most one row, however its rows come.
    pub single_row: bool,
    /// Whether rows are only ever added.
    pub append_only: bool,
    /// Whether its rows are kept. A table with `'table.retain' = 'none'` is a stream.
    pub retained: bool,
    /// Whether what is kept stays bounded: one row per key, or a retention.
    pub bounded: bool,
    /// Whether the rows are already indexed by the primary key, so that a join may probe that index.
    pub arranged: bool,
    /// Roughly how many rows it has.
    pub row_estimate: Option<u64>,
    /// The columns whose bitmaps travel in chunks.
    pub in_chunks: Vec<usize>,
}

/// The catalog, as far as the planner sees it.
pub trait TableInfo {
    /// Returns the facts of a table or view, by the name that a query wrote or by its qualified name.
    fn table(&self, name: &str) -> Option<TableFacts>;
}

/// How joins are to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinStrategy {
    /// Delta joins where they are cheaper.
    #[default]
    Auto,
    /// Delta joins wherever possible.
    Delta,
    /// No delta joins.
    Linear,
}

/// What the user set about planning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanSettings {
    /// `SET 'join.strategy'`.
    pub join_strategy: JoinStrategy,
    /// The hints of the query, in upper case.
    pub hints: Vec<String>,
}

impl PlanSettings {
    /// The strategy that applies: a hint before the setting.
    pub fn strategy(&self) -> JoinStrategy {
        let hinted = |name: &str| self.hints.iter().any(|hint| hint == name);
        match () {
            () if hinted("DELTA_JOIN") => JoinStrategy::Delta,
            () if hinted("LINEAR_JOIN") => JoinStrategy::Linear,
            () => self.join_strategy,
        }
    }
}

/// A plan and what is to be said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// The plan.
    pub plan: Plan,
    /// What the user should know: an ORDER BY that means nothing, a clock that touches every row.
    pub warnings: Vec<String>,
    /// What lookup joins make of the output; None without lookup joins.
    pub lookup: Option<LookupOutput>,
}

/// Lowers an optimised logical plan and optimises the result.
///
/// # Errors
/// What a continuous query may not contain, by name and with the remedy.
pub fn lower_query(plan: &LogicalPlan, tables: &dyn TableInfo, settings: &PlanSettings) -> Result<Lowered, SqlError> {
    let mut lowering = Lowering { tables, warnings: Vec::new() };
    let names = schema_of(plan.schema())?;
    let plan = lowering.plan(plan)?;
    lookup::check(&plan)?;
    let mut plan = crate::optimize::optimize(plan, tables, settings, &mut lowering.warnings);
    relation::rename(&mut plan, &names);
    check_streams(&plan, tables)?;
    let lookup = lookup::output(&plan, tables)?;
    Ok(Lowered { plan, warnings: lowering.warnings, lookup })
}

type Result<T, E = SqlError> = std::result::Result<T, E>;

struct Lowering<'a> {
    tables: &'a dyn TableInfo,
    warnings: Vec<String>,
}

impl Lowering<'_> {
    fn plan(&mut self, plan: &LogicalPlan) -> Result<Plan> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::SubqueryAlias(alias) => self.plan(&alias.input),
            LogicalPlan::Subquery(subquery) => self.plan(&subquery.subquery),
            LogicalPlan::Repartition(repartition) => self.plan(&repartition.input),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Distinct(distinct) => self.distinct(distinct),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::EmptyRelation(empty) => self.empty(empty),
            LogicalPlan::RecursiveQuery(query) => Err(refuse::recursive(&query.name)),
            other => Err(refuse::node(other)),
        }
    }

    /// Lowers the expressions over the columns of one input.
    fn expressions<'e>(
        &self,
        expressions: impl IntoIterator<Item = &'e Expr>,
        schema: &DFSchema,
    ) -> Result<Vec<ScalarExpr>> {
        expressions.into_iter().map(|expression| self.expression(expression, schema)).collect()
    }

    fn expression(&self, expression: &Expr, schema: &DFSchema) -> Result<ScalarExpr> {
        refuse::functions(expression)?;
        lower_expr(expression, schema)
    }
}

/// The columns of a logical node in our types.
fn schema_of(schema: &DFSchema) -> Result<Schema> {
    Schema::from_arrow(schema.as_arrow()).map_err(|reason| SqlError::new(reason, "cast the column to a type of ours"))
}

/// A column of a plan as an expression.
pub(crate) fn column(plan: &Plan, index: usize) -> ScalarExpr {
    ScalarExpr::Column { index, data_type: plan.schema.columns[index].data_type.clone() }
}

/// All columns of a plan as expressions.
pub(crate) fn columns(plan: &Plan) -> Vec<ScalarExpr> {
    (0..plan.schema.len()).map(|index| column(plan, index)).collect()
}

/// A projection of `input` to expressions, named by `schema`.
pub(crate) fn project(input: Plan, expressions: Vec<ScalarExpr>, schema: Schema) -> Plan {
    Plan::new(Node::Project { input: Box::new(input), expressions }, schema)
}

/// A filter of `input`.
pub(crate) fn filter(input: Plan, predicate: ScalarExpr) -> Plan {
    let schema = input.schema.clone();
    Plan::new(Node::Filter { input: Box::new(input), predicate }, schema)
}

/// The given columns of a plan, in that order.
pub(crate) fn pick(input: Plan, positions: &[usize]) -> Plan {
    let expressions = positions.iter().map(|index| column(&input, *index)).collect();
    let schema = Schema::new(positions.iter().map(|index| input.schema.columns[*index].clone()).collect());
    project(input, expressions, schema)
}
