//! Recognises top-k: a filter on a rank cuts the ranking below it, and FIRST_VALUEs of one order are a ranking's first row.

use deltaworks_dataflow::{Datum, Row};

use super::terms::{self, Comparison};
use super::{column, filter, project, relation};
use crate::expr::ScalarExpr;
use crate::plan::{Aggregate, AggregateFunction, Node, Plan, SortKey, TopK};

/// Rewrites one node; everything below it is rewritten already.
pub(crate) fn recognise(plan: Plan) -> Plan {
    match plan.node {
        Node::Filter { input, predicate } => match input.node {
            Node::TopK(top_k) if top_k.emit_rank => cut(*top_k, input.schema, predicate),
            node => filter(Plan::new(node, input.schema), predicate),
        },
        Node::TopK(mut top_k) => {
            // What is the same throughout a partition orders nothing in it.
            top_k.order.retain(|key| !top_k.partition.contains(&key.expression));
            Plan::new(Node::TopK(top_k), plan.schema)
        }
        Node::Aggregate(aggregate) => match first_rows(&aggregate) {
            Some(rows) => renamed(rows, plan.schema),
            None => Plan::new(Node::Aggregate(aggregate), plan.schema),
        },
        _ => plan,
    }
}

fn renamed(mut plan: Plan, schema: deltaworks_dataflow::Schema) -> Plan {
    plan.schema = schema;
    plan
}

/// `rank <= k` and the like become the ranking's limit and offset; other conjuncts stay above.
fn cut(mut top_k: TopK, schema: deltaworks_dataflow::Schema, predicate: ScalarExpr) -> Plan {
    let rank = top_k.input.schema.len();
    let (mut first, mut last) = (i128::from(top_k.offset) + 1, top_k.limit.map(|k| i128::from(top_k.offset + k)));
    let mut others = Vec::new();
    for conjunct in predicate.into_conjuncts() {
        match ranks(&conjunct, rank) {
            Some((from, to)) => {
                first = first.max(from.unwrap_or(first));
                last = to.map_or(last, |to| Some(last.map_or(to, |last| last.min(to))));
            }
            None => others.push(conjunct),
        }
    }
    let plan = match last {
        Some(last) if last < first => Plan::new(Node::Constant { rows: Vec::<Row>::new() }, schema),
        _ => {
            top_k.offset = u64::try_from(first - 1).unwrap_or(u64::MAX);
            top_k.limit = last.map(|last| u64::try_from(last - first + 1).unwrap_or(u64::MAX));
            Plan::new(Node::TopK(Box::new(top_k)), schema)
        }
    };
    match ScalarExpr::conjunction(others) {
        Some(predicate) => filter(plan, predicate),
        None => plan,
    }
}

/// The ranks that a conjunct lets through, if it speaks of nothing but the rank.
fn ranks(conjunct: &ScalarExpr, rank: usize) -> Option<(Option<i128>, Option<i128>)> {
    let comparison = Comparison::of(conjunct)?;
    let [(term, coefficient)] = &comparison.sum.terms[..] else {
        return None;
    };
    let comparison = match coefficient {
        1 => Comparison { sum: comparison.sum.clone(), op: comparison.op },
        -1 => comparison.negated(),
        _ => return None,
    };
    (term.as_column() == Some(rank)).then(|| Comparison::range(comparison.op, -comparison.sum.constant))
}

/// Groups whose aggregates are all FIRST_VALUE (or all LAST_VALUE) of one order: the first row of each group, so that the
/// values come from one row where the order has ties.
fn first_rows(aggregate: &Aggregate) -> Option<Plan> {
    let first = aggregate.aggregates.first()?;
    let last = first.function == AggregateFunction::LastValue;
    let alike = |call: &crate::plan::AggregateCall| {
        call.function == first.function && call.order_by == first.order_by && call.filter.is_none()
    };
    let suits = matches!(first.function, AggregateFunction::FirstValue | AggregateFunction::LastValue)
        && !first.order_by.is_empty()
        && !aggregate.keys.is_empty()
        && aggregate.aggregates.iter().all(alike);
    if !suits {
        return None;
    }
    let order = first.order_by.iter().map(|key| if last { key.reversed() } else { key.clone() }).collect();
    let rows = relation::top_k(aggregate.input.clone(), aggregate.keys.clone(), order, 0, Some(1));
    let values = aggregate.aggregates.iter().filter_map(|call| call.arguments.first().cloned());
    let expressions: Vec<ScalarExpr> = aggregate.keys.iter().cloned().chain(values).collect();
    let schema = rows.schema.clone();
    (expressions.len() == aggregate.keys.len() + aggregate.aggregates.len()).then(|| project(rows, expressions, schema))
}

/// A ranking whose rank is not asked for, or always 1, under a projection that puts the rank back.
pub(crate) fn without_rank(top_k: TopK, schema: deltaworks_dataflow::Schema) -> Plan {
    let rank = schema.columns[top_k.input.schema.len()].data_type.clone();
    let plain = TopK { emit_rank: false, ..top_k };
    let input_schema = plain.input.schema.clone();
    let rows = Plan::new(Node::TopK(Box::new(plain)), input_schema.clone());
    let mut expressions: Vec<ScalarExpr> = (0..input_schema.len()).map(|index| column(&rows, index)).collect();
    expressions.push(ScalarExpr::literal(Datum::Int(1), rank));
    project(rows, expressions, schema)
}

/// The order of a ranking without keys that are the same throughout a partition.
pub(super) fn varying(order: &[SortKey], is_constant: &dyn Fn(&ScalarExpr) -> bool) -> Vec<SortKey> {
    order.iter().filter(|key| !is_constant(&key.expression) && !terms::used(&key.expression).is_empty()).cloned().collect()
}
