//! The indexes that joins need, and which of them are one and the same.
//!
//! Two joins share an index when they read the same rows by the same keys in the same order; names of columns do not count.
//! A table with a PRIMARY KEY is indexed by it in any case: a join by that key, over projections and filters of the table,
//! probes this index and projects and filters what it finds.

use deltaworks_dataflow::Schema;

use crate::expr::ScalarExpr;
use crate::lower::{TableInfo, columns};
use crate::plan::{Node, Plan, SortKey};

/// What an index holds: the rows of a plan, by keys, the rows of a key in an order.
#[derive(Clone, Debug, PartialEq)]
pub struct ArrangementKey {
    /// Whose rows, with the names of columns left out.
    pub plan: Plan,
    /// The keys over its columns.
    pub keys: Vec<ScalarExpr>,
    /// What the rows of a key are sorted by before the row itself (lookback joins: the time and the tie breakers).
    pub order: Vec<SortKey>,
}

/// What is to be done with a row that an index gave.
#[derive(Clone, Debug, PartialEq)]
pub struct MapFilter {
    /// Rows for which this is not true are no match.
    pub predicate: Option<ScalarExpr>,
    /// The columns that the join wants.
    pub expressions: Vec<ScalarExpr>,
}

/// An index that a join needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrangement {
    /// What it holds.
    pub key: ArrangementKey,
    /// The same for people: `event by (customer_id) in order of (event_ts)`.
    pub text: String,
    /// What is done with its rows; None: nothing.
    pub then: Option<MapFilter>,
    /// The table whose rows it holds, if it is a table's.
    pub table: Option<String>,
    /// Whether it is there already: the table's index by its PRIMARY KEY.
    pub exists: bool,
}

/// The index that a join needs of `input` by `keys`.
pub fn of(input: &Plan, keys: &[ScalarExpr], order: &[SortKey], tables: &dyn TableInfo) -> Arrangement {
    if order.is_empty()
        && let Some(own) = table_index(input, keys, tables)
    {
        return own;
    }
    let table = match &input.node {
        Node::Get { table, .. } => Some(table.clone()),
        _ => None,
    };
    let mut text = format!("{} by {}", table.as_deref().unwrap_or("input"), key_text(input, keys));
    if !order.is_empty() {
        text.push_str(&format!(" in order of {}", order_text(input, order)));
    }
    let key = ArrangementKey { plan: unnamed(input.clone()), keys: keys.to_vec(), order: order.to_vec() };
    Arrangement { key, text, then: None, table, exists: false }
}

/// The indexes that the joins of a plan need, each join with its own, parents first.
pub fn required(plan: &Plan, tables: &dyn TableInfo) -> Vec<Arrangement> {
    let mut all = Vec::new();
    plan.walk(&mut |node| all.extend(of_node(node, tables)));
    all
}

/// The indexes that one node needs.
pub fn of_node(plan: &Plan, tables: &dyn TableInfo) -> Vec<Arrangement> {
    use crate::plan::JoinKind::{LookupInner, LookupLeft};
    match &plan.node {
        // The clock is in no index, nor are the rows that meet it.
        Node::Join(join) if matches!(join.right.node, Node::Clock { .. }) => Vec::new(),
        Node::Join(join) => {
            let right = of(&join.right, &join.right_keys, &[], tables);
            match join.kind {
                LookupInner | LookupLeft => vec![right],
                _ => vec![of(&join.left, &join.left_keys, &[], tables), right],
            }
        }
        Node::Lookback(lookback) => {
            let left_order = SortKey { expression: lookback.left_time.clone(), descending: false, nulls_first: false };
            vec![
                of(&lookback.left, &lookback.left_keys, &[left_order], tables),
                of(&lookback.right, &lookback.right_keys, &lookback.right_order(), tables),
            ]
        }
        Node::DeltaJoin(join) => {
            let mut all: Vec<Arrangement> = Vec::new();
            for hop in join.paths.iter().flatten() {
                let next = of(&join.inputs[hop.input], &hop.target_keys, &[], tables);
                if !all.contains(&next) {
                    all.push(next);
                }
            }
            all
        }
        _ => Vec::new(),
    }
}

/// Places of `keys` in the order of the PRIMARY KEY of the table that `input` reads, where they contain all of it; None where
/// they do not, or where it reads no such table.
pub fn primary_key_order(input: &Plan, keys: &[ScalarExpr], tables: &dyn TableInfo) -> Option<Vec<usize>> {
    let base = Base::of(input)?;
    let facts = tables.table(base.table).filter(|facts| facts.arranged && !facts.primary_key.is_empty())?;
    let sources: Vec<Option<usize>> = keys.iter().map(|key| key.substitute(&base.expressions).as_column()).collect();
    facts.primary_key.iter().map(|column| sources.iter().position(|source| *source == Some(*column))).collect()
}

/// A table's own index, where the keys are its PRIMARY KEY.
fn table_index(input: &Plan, keys: &[ScalarExpr], tables: &dyn TableInfo) -> Option<Arrangement> {
    let order = primary_key_order(input, keys, tables)?;
    let in_key_order = order.len() == keys.len() && order.iter().enumerate().all(|(at, place)| at == *place);
    if !in_key_order {
        return None;
    }
    let base = Base::of(input)?;
    let facts = tables.table(base.table)?;
    let all = (0..facts.schema.len()).collect();
    let plan = unnamed(Plan::new(Node::Get { table: base.table.to_string(), columns: all, in_chunks: false }, facts.schema));
    let keys = keys.iter().map(|key| key.substitute(&base.expressions)).collect();
    let plain = base.predicate.is_none() && base.expressions == columns(&plan);
    let then = (!plain).then_some(MapFilter { predicate: base.predicate, expressions: base.expressions });
    let key = ArrangementKey { plan, keys, order: Vec::new() };
    let text = format!("{} by PRIMARY KEY", base.table);
    Some(Arrangement { key, text, then, table: Some(base.table.to_string()), exists: true })
}

/// A table under projections and filters, as expressions over all its columns.
struct Base<'a> {
    table: &'a str,
    predicate: Option<ScalarExpr>,
    expressions: Vec<ScalarExpr>,
}

impl Base<'_> {
    fn of(plan: &Plan) -> Option<Base<'_>> {
        match &plan.node {
            Node::Get { table, columns, .. } => {
                let types = plan.schema.types();
                let column = |(index, data_type)| ScalarExpr::column(index, data_type);
                let expressions = columns.iter().copied().zip(types).map(column).collect();
                Some(Base { table, predicate: None, expressions })
            }
            Node::Filter { input, predicate } => {
                let mut base = Base::of(input)?;
                let predicate = predicate.substitute(&base.expressions);
                base.predicate = ScalarExpr::conjunction(base.predicate.into_iter().chain([predicate]));
                Some(base)
            }
            Node::Project { input, expressions } => {
                let mut base = Base::of(input)?;
                base.expressions = expressions.iter().map(|e| e.substitute(&base.expressions)).collect();
                Some(base)
            }
            _ => None,
        }
    }
}

/// The plan with the names of its columns left out, so that plans compare by what they compute.
pub fn unnamed(mut plan: Plan) -> Plan {
    let blank = |schema: &mut Schema| {
        for column in &mut schema.columns {
            column.name.clear();
            column.nullable = true;
        }
    };
    blank(&mut plan.schema);
    for input in plan.inputs_mut() {
        let own = std::mem::replace(input, Plan::new(Node::Constant { rows: Vec::new() }, Schema::default()));
        *input = unnamed(own);
    }
    forget_reasons(&mut plan);
    plan
}

/// Why a form was chosen makes no difference to what it computes.
fn forget_reasons(plan: &mut Plan) {
    match &mut plan.node {
        Node::Join(join) => join.reason.clear(),
        Node::DeltaJoin(join) => join.reason.clear(),
        Node::Lookback(lookback) => lookback.reason.clear(),
        _ => {}
    }
}

/// The columns of a plan that its keys use, for people.
pub fn key_text(plan: &Plan, keys: &[ScalarExpr]) -> String {
    let name = |index: usize| plan.schema.columns[index].name.clone();
    let keys: Vec<String> = keys.iter().map(|key| key.to_text(&name)).collect();
    format!("({})", keys.join(", "))
}

fn order_text(plan: &Plan, order: &[SortKey]) -> String {
    let name = |index: usize| plan.schema.columns[index].name.clone();
    let key = |key: &SortKey| key.expression.to_text(&name) + if key.descending { " DESC" } else { "" };
    format!("({})", order.iter().map(key).collect::<Vec<_>>().join(", "))
}
