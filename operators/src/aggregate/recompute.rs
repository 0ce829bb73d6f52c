//! Any function of a group, recomputed whenever the group changes.
//!
//! **Definition.** For each key with rows, the rows that `logic` makes of the key and the multiset of its values, which it
//! receives in encoded order with how often each is there.
//!
//! **State.** None but the arrangement of the input. The previous result is computed again, from the group as of just before,
//! instead of being kept: results can be as large as the input (a window function has one row per row), a second copy of
//! which would cost more than a factor of two on changes, and the cost of a change is in the size of the group already.
//! So `logic` must be a function: it is called with old groups too, and what it counts is counted there again.
//!
//! **On retraction.** The group is recomputed without the row; results that stay are not emitted again.
//!
//! **On ties, nulls, late rows.** All of it is up to `logic`. A key without rows has no result, and `logic` is not asked.
//!
//! **Example.** The median of a group; ROW_NUMBER, LAG or a running sum over a partition.

use differential_dataflow::AsCollection;
use std::cmp::Ordering;
use std::ops::ControlFlow;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::changed::{Changed, ChangedKey, values_as_of};
use deltaworks_dataflow::{Arranged, Diff, KeyedCollection, Row, Time};

/// Keeps what `logic` makes of each group: (key, values in encoded order, results to fill).
pub fn recompute<'s>(
    input: Arranged<'s>,
    name: &str,
    mut logic: impl FnMut(&[u8], &[(&[u8], Diff)], &mut Vec<Row>) + 'static,
) -> KeyedCollection<'s> {
    let trace = input.trace.clone();
    input
        .stream
        .unary_frontier(Pipeline, name, move |_, _| {
            let mut changed = Changed::new(trace);
            move |(input, frontier), output| {
                input.for_each(|capability, batches| changed.receive(capability, batches));
                changed.process(frontier, |capability, mut group| {
                    let mut old = group.before.map_or_else(Vec::new, |before| results(&mut group, before, &mut logic));
                    let mut session = output.session(capability);
                    for time in group.times {
                        let new = results(&mut group, *time, &mut logic);
                        differences(&old, &new, |row, diff| {
                            session.give(((Row::from_bytes(group.key), row.clone()), *time, diff));
                        });
                        old = new;
                    }
                });
            }
        })
        .as_collection()
}

/// The results of the group as of `time`, sorted.
fn results(
    group: &mut ChangedKey<'_, '_>,
    time: Time,
    logic: &mut impl FnMut(&[u8], &[(&[u8], Diff)], &mut Vec<Row>),
) -> Vec<Row> {
    let (mut values, mut results) = (Vec::new(), Vec::new());
    values_as_of(group.cursor, time, |value, count| {
        values.push((value, count));
        ControlFlow::Continue(())
    });
    if !values.is_empty() {
        logic(group.key, &values, &mut results);
        results.sort_unstable();
    }
    results
}

/// Calls `emit` for what turns the sorted rows `old` into the sorted rows `new`.
fn differences(mut old: &[Row], mut new: &[Row], mut emit: impl FnMut(&Row, Diff)) {
    loop {
        let order = match (old.first(), new.first()) {
            (Some(old), Some(new)) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        match order {
            Ordering::Less => emit(&old[0], -1),
            Ordering::Greater => emit(&new[0], 1),
            Ordering::Equal => {}
        }
        old = if order.is_le() { &old[1..] } else { old };
        new = if order.is_ge() { &new[1..] } else { new };
    }
}
