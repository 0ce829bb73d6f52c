//! Write stamps: when this version of a row was produced.
//!
//! *Definition*: every row with the clock's instant at the tick at which it was inserted, put in at column `column`. A
//! retraction carries the stamp that the row was emitted with.
//!
//! *State*: each present row with its stamp. *On retraction*: the stamped row leaves. *On ties*: a row that is there several
//! times has one stamp per insertion, the oldest leaves first. A row that is retracted and inserted at one tick keeps its stamp.
//!
//! The result is not a function of the input's rows, but of when they came: it is frozen.

use hashbrown::HashMap;
use std::collections::VecDeque;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;

use deltaworks_dataflow::arrange::collection;
use deltaworks_dataflow::row::{encode_int, hash_bytes, split_fields};
use deltaworks_dataflow::{Collection, Diff, Row, Time};
use differential_dataflow::consolidation::consolidate;

use crate::pending::Pending;

/// The row with the stamp put in as column `column`.
fn with_stamp(row: &[u8], column: usize, stamp: i64) -> Row {
    let (before, after) = split_fields(row, column);
    let mut bytes = Vec::with_capacity(row.len() + 9);
    bytes.extend_from_slice(before);
    encode_int(&mut bytes, stamp);
    bytes.extend_from_slice(after);
    Row::from_bytes(&bytes)
}

/// Stamps the rows of `input` with the newest instant of `clock`, which every worker has for itself.
pub fn stamp<'s>(
    input: Collection<'s>,
    clock: StreamVec<'s, Time, i64>,
    column: usize,
    start: Time,
    name: &str,
) -> Collection<'s> {
    let mut present: HashMap<Row, VecDeque<i64>> = HashMap::new();
    stamped(input, clock, start, name, move |mut updates, now, emit| {
        consolidate(&mut updates);
        for (row, diff) in updates {
            change(&mut present, row, diff, now, |row, stamp, diff| emit(with_stamp(row, column, stamp), diff));
        }
    })
}

/// Gives each complete tick's updates, with the newest instant at it, to `each`.
fn stamped<'s>(
    input: Collection<'s>,
    clock: StreamVec<'s, Time, i64>,
    start: Time,
    name: &str,
    mut each: impl FnMut(Vec<(Row, Diff)>, i64, &mut dyn FnMut(Row, Diff)) + 'static,
) -> Collection<'s> {
    let by_row = Exchange::new(|update: &(Row, Time, Diff)| hash_bytes(&update.0));
    let output = input.inner.binary_frontier::<_, CapacityContainerBuilder<Vec<(Row, Time, Diff)>>, _, _, _, _>(
        clock,
        by_row,
        Pipeline,
        name,
        move |_, _| {
            let mut pending: Pending<(Row, Diff)> = Pending::new();
            let mut instants: VecDeque<(Time, i64)> = VecDeque::new();
            move |(input, frontier), (clock, clock_frontier), output| {
                clock.for_each(|capability, data| {
                    instants.extend(data.drain(..).map(|instant| (*capability.time(), instant)));
                });
                input.for_each(|capability, updates| pending.stash(&capability, updates, start));
                while pending.first_time().is_some_and(|time| !clock_frontier.less_equal(&time)) {
                    let Some(([capability], updates)) = pending.next_complete(frontier) else { break };
                    let time = *capability.time();
                    while instants.len() > 1 && instants[1].0 <= time {
                        instants.pop_front();
                    }
                    let now = instants.front().map_or(0, |(_, instant)| *instant);
                    let mut session = output.session(&capability);
                    each(updates, now, &mut |row, diff| session.give((row, time, diff)));
                }
            }
        },
    );
    collection(output)
}

/// Stamps every update, gain or loss, with the newest instant at its tick. For changes that end as commands by key: what a
/// lost row says beside its key does not matter.
pub fn stamp_changes<'s>(
    input: Collection<'s>,
    clock: StreamVec<'s, Time, i64>,
    column: usize,
    start: Time,
    name: &str,
) -> Collection<'s> {
    stamped(input, clock, start, name, move |updates, now, emit| {
        for (row, diff) in updates {
            emit(with_stamp(&row, column, now), diff);
        }
    })
}

/// Applies one consolidated update to the present rows and reports each stamped change.
fn change(
    present: &mut HashMap<Row, VecDeque<i64>>,
    row: Row,
    diff: Diff,
    now: i64,
    mut report: impl FnMut(&[u8], i64, Diff),
) {
    if diff > 0 {
        for _ in 0..diff {
            report(&row, now, 1);
        }
        present.entry(row).or_default().extend((0..diff).map(|_| now));
        return;
    }
    let Some(stamps) = present.get_mut(&row) else { return };
    for _ in diff..0 {
        if let Some(stamp) = stamps.pop_front() {
            report(&row, stamp, -1);
        }
    }
    if stamps.is_empty() {
        present.remove(&row);
    }
}
