//! Commands of a continuous INSERT: what the changes of a query ask of a keyed table.
//!
//! *Definition*: per tick, a delete for every row that the query loses (a retraction of the whole row where `retract`), then
//! an upsert for every row that it gains, in encoded-row order; their positions say so. With `deletes`, the query's rows are
//! probes of a lookup join, which are never retracted; the keys that it loses come as a collection of their own.
//!
//! *State*: the updates of incomplete ticks. *On retraction*: see above. *On ties*: a row that is gained n times is upserted n
//! times. *On late rows*: history before `start` comes as one tick, `start`.

use differential_dataflow::consolidation::consolidate;
use std::cell::Cell;
use std::cmp::Reverse;
use std::rc::Rc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use deltaworks_dataflow::row::{hash_bytes, project};
use deltaworks_dataflow::{Collection, Command, CommandKind, Diff, Position, Row, Time};

use crate::pending::Pending;

/// Where the commands go.
#[derive(Clone, Debug)]
pub struct Target {
    /// The key columns of the table; empty where it has none.
    pub key: Vec<usize>,
    /// Whether lost rows are retracted whole instead of deleted by key.
    pub retract: bool,
    /// For a continuous MERGE: gains become merges, and losses, which it ignores, are counted here.
    pub merge: Option<Rc<Cell<u64>>>,
    /// The number of the statement, part of the position.
    pub statement: u32,
    /// The tick from which on the table listens.
    pub start: Time,
}

/// Turns the changes of `rows` (and the keys of `deletes`) into commands.
pub fn commands<'s>(
    rows: Collection<'s>,
    deletes: Option<Collection<'s>>,
    target: Target,
    name: &str,
) -> StreamVec<'s, Time, Command> {
    // One stream: a lost key is a row whose first element says so, so that both meet at the key's worker.
    let gained = rows.map(|row| (false, row));
    let all = match deletes {
        Some(keys) => gained.concat(keys.map(|key| (true, key))),
        None => gained,
    };
    let key = target.key.clone();
    let mut scratch = Vec::new();
    let by_key = Exchange::new(move |((is_key, row), _, _): &((bool, Row), Time, Diff)| {
        if *is_key || key.is_empty() {
            return hash_bytes(row);
        }
        scratch.clear();
        project(row, &key, &mut scratch);
        hash_bytes(&scratch)
    });
    all.inner.unary_frontier::<CapacityContainerBuilder<Vec<Command>>, _, _, _>(by_key, name, move |_, _| {
        let mut pending: Pending<((bool, Row), Diff)> = Pending::new();
        move |(input, frontier), output| {
            input.for_each(|capability, updates| pending.stash(&capability, updates, target.start));
            while let Some(([capability], mut updates)) = pending.next_complete(frontier) {
                consolidate(&mut updates);
                output.session(&capability).give_iterator(in_order(updates, &target).into_iter());
            }
        }
    })
}

/// The commands of one tick: losses before gains, each in encoded-row order.
fn in_order(mut updates: Vec<((bool, Row), Diff)>, target: &Target) -> Vec<Command> {
    updates.sort_by(|((a_key, a), a_diff), ((b_key, b), b_diff)| {
        let gain = |is_key: bool, diff: Diff| !is_key && diff > 0;
        (gain(*a_key, *a_diff), Reverse(*a_key), a).cmp(&(gain(*b_key, *b_diff), Reverse(*b_key), b))
    });
    let mut commands = Vec::with_capacity(updates.len());
    for ((is_key, row), diff) in updates {
        if let (Some(ignored), true) = (&target.merge, diff < 0) {
            ignored.set(ignored.get() + diff.unsigned_abs());
            continue;
        }
        let (kind, row) = match (is_key, diff > 0) {
            (false, true) if target.merge.is_some() => (CommandKind::Merge, row),
            (true, _) => (CommandKind::Delete, row),
            (false, true) => (CommandKind::Upsert, row),
            (false, false) if target.retract || target.key.is_empty() => (CommandKind::Retract, row),
            (false, false) => (CommandKind::Delete, key_of(&row, &target.key)),
        };
        let times = if kind == CommandKind::Delete { 1 } else { diff.unsigned_abs() };
        for _ in 0..times {
            let offset = commands.len() as u64;
            let position = Position { timestamp: 0, source: target.statement, partition: 0, offset };
            commands.push(Command { position, kind, row: row.clone() });
        }
    }
    commands
}
fn key_of(row: &[u8], key: &[usize]) -> Row {
    let mut bytes = Vec::new();
    project(row, key, &mut bytes);
    Row::from_bytes(&bytes)
}
