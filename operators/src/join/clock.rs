//! Clock join: every row beside the clock as it is now.
//!
//! **Definition.** At tick t the output has, for each row of the input, what `join` makes of the row and of the clock's newest
//! value at ticks up to t, as often as the row is there; before the clock's first value nothing.
//!
//! **State.** Each row once with its count, in a [`KeyedStore`](crate::keyed_store). Nothing is sorted: a changed row costs one
//! lookup, and a clock that moves one pass over the rows.
//!
//! **On retraction.** As in any join, with the clock's newest value.
//!
//! **On ties, nulls, late rows.** A row and a clock value of one tick: the row meets the new clock. A clock value that is as the
//! one before changes nothing. Of several values of a tick the greatest counts.
//!
//! **Example.** `DATEDIFF(CURRENT_DATE(), MAX(d))` over an aggregate: midnight changes one row per group.

use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator;

use crate::distinct::Counts;
use crate::pending::Pending;
use deltaworks_dataflow::row::hash_bytes;
use deltaworks_dataflow::{Collection, Diff, Row, Time};

enum Event {
    Clock(Row),
    Update(Row, Diff),
}

/// Joins each row with the clock. Every worker must receive the whole clock. `join` is given a row, a clock value and how often
/// the result comes or goes.
pub fn clock_join<'s, D: Clone + 'static>(
    rows: Collection<'s>,
    clock: StreamVec<'s, Time, Row>,
    name: &str,
    mut join: impl FnMut(&[u8], &[u8], Diff) -> Option<D> + 'static,
) -> VecCollection<'s, Time, D, Diff> {
    let by_row = Exchange::new(|update: &(Row, Time, Diff)| hash_bytes(&update.0));
    rows.inner
        .binary_frontier(clock, by_row, Pipeline, name, move |_, _| {
            let mut waiting: Pending<Event> = Pending::new();
            let mut present = Counts::new();
            let mut now: Option<Row> = None;
            move |(rows, rows_frontier), (clock, clock_frontier), output| {
                clock.for_each(|capability, values| {
                    waiting.at(*capability.time(), &capability).extend(values.drain(..).map(Event::Clock));
                });
                rows.for_each(|capability, updates| {
                    for (row, time, diff) in updates.drain(..) {
                        waiting.at(time, &capability).push(Event::Update(row, diff));
                    }
                });
                let complete = |time: Time| !rows_frontier.less_equal(&time) && !clock_frontier.less_equal(&time);
                while waiting.first_time().is_some_and(complete) {
                    let Some(([capability], events)) = waiting.pop_first() else { break };
                    let time = *capability.time();
                    let mut session = output.session(&capability);
                    let mut emit = |row: &[u8], clock: &Row, diff: Diff| {
                        join(row, clock, diff).into_iter().for_each(|data| session.give((data, time, diff)));
                    };
                    if let Some(new) = newest(&events).filter(|new| now.as_ref() != Some(new)) {
                        for (row, count) in present.iter() {
                            now.iter().for_each(|old| emit(row, old, -count));
                            emit(row, &new, count);
                        }
                        now = Some(new);
                    }
                    for event in events {
                        let Event::Update(row, diff) = event else { continue };
                        present.add(&row, diff);
                        now.iter().for_each(|now| emit(&row, now, diff));
                    }
                }
            }
        })
        .as_collection()
}

fn newest(events: &[Event]) -> Option<Row> {
    let values = events.iter().filter_map(|event| if let Event::Clock(value) = event { Some(value) } else { None });
    values.max().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Multiset, Random, Script, Shape, add, check, fields, flat, instants, ints};
    use timely::dataflow::operators::vec::Map;

    /// Input 0 holds rows; input 1 what the clock has shown, a value that grows with the tick and often stays.
    fn row(random: &mut Random, input: usize, tick: Time) -> (Row, Row) {
        let number = |number: u64| ints(&[Some(number as i64)]);
        if input == 0 { (number(random.below(6)), ints(&[None])) } else { (number(tick / 3), Row::default()) }
    }
    #[test]
    fn agrees_with_pairing_every_row_with_the_newest_value() {
        for seed in 0..32u64 {
            let shape = Shape { inputs: 2, ticks: 14, row: &row, expired: &|_, _| false, negative: seed.is_multiple_of(2) };
            let mut script = Script::random(seed, &shape);
            // What the clock once showed is not taken back.
            script.changes.retain(|change| change.input == 0 || change.diff > 0);
            check(
                [1, 1, 2, 4][seed as usize % 4],
                seed,
                &script,
                |mut inputs| {
                    let clock = instants(inputs.remove(1)).map(|instant| ints(&[Some(instant)]));
                    clock_join(flat(inputs.remove(0)), clock, "ClockJoin", |row, clock, _| {
                        Some(Row::from_bytes(&[row, clock].concat()))
                    })
                },
                |held| {
                    let newest = held[1].keys().map(|(value, _)| fields(value)[0]).max();
                    let mut expected = Multiset::new();
                    for ((key, value), count) in newest.iter().flat_map(|_| &held[0]) {
                        let row = [&key[..], &value[..], &ints(&[newest.flatten()])[..]].concat();
                        add(&mut expected, Row::from_bytes(&row), *count);
                    }
                    expected
                },
            );
        }
    }
}
