//! Sinks by key take one row per key: where a query's rows may share the key, the first of them in encoded-row order.
//!
//! Where [`unique`](super::unique) proves that no two rows share it, nothing is added. Else a ranking by the whole row stands
//! before the sink, so that what is sent is at every tick a function of the query's rows, however they came; what it leaves out
//! is counted.

use super::unique::{Columns, is_unique};
use super::{TableInfo, column, relation};
use crate::plan::{Node, Plan};

/// The plan with at most one row of each key, for a sink with the key columns `key`.
pub fn one_per_key(plan: Plan, key: &[usize], tables: &dyn TableInfo) -> Plan {
    if is_unique(&plan, &key.iter().copied().collect::<Columns>(), tables) {
        return plan;
    }
    let partition = key.iter().map(|index| column(&plan, *index)).collect();
    let mut first = relation::top_k(plan, partition, Vec::new(), 0, Some(1));
    if let Node::TopK(top_k) = &mut first.node {
        top_k.before_sink = true;
    }
    first
}
