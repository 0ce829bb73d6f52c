//! Temporal filter: rows that are present while the clock is between two instants of their own.
//!
//! **Definition.** A row with bounds (lower, upper) is in the output at tick t if `lower <= now(t) < upper`, where now(t) is the
//! largest value of the clock at ticks up to t. A bound that is missing does not bound; before the clock's first value the
//! output is empty.
//!
//! **State.** Each row of the input twice at most, at the instant at which it will appear and at the one at which it will
//! disappear; what is over is not kept. Nothing is scanned: a clock value takes out what is due.
//!
//! **On retraction.** Bounds are a function of the row, so that a retraction follows the insertion wherever it is: taken out of
//! the output, or cancelled where it waits.
//!
//! **On ties, nulls, late rows.** A row whose time is over already is never in the output. A clock that goes back is ignored. A
//! row and a clock value of one tick: the row meets the new clock.
//!
//! **Example.** `WHERE ts > NOW() - INTERVAL '7' DAY`: no lower bound, upper = ts + 7 days.

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::pending::Pending;
use crate::schedule::Schedule;
use deltaworks_dataflow::{Collection, Diff, Row, Time};

/// A clock value or an update of a row.
enum Event {
    Clock(i64),
    Update(Row, Diff),
}

/// Keeps the rows whose bounds the clock is between. Every worker must receive the whole clock, in microseconds.
pub fn temporal_filter<'s>(
    input: Collection<'s>,
    clock: StreamVec<'s, Time, i64>,
    name: &str,
    bounds: impl FnMut(&[u8]) -> (Option<i64>, Option<i64>) + 'static,
) -> Collection<'s> {
    input
        .inner
        .binary_frontier(clock, Pipeline, Pipeline, name, move |_, _| {
            let mut waiting: Pending<Event> = Pending::new();
            let mut filter = Filter::new(bounds);
            move |(input, input_frontier), (clock, clock_frontier), output| {
                clock.for_each(|capability, values| {
                    waiting.at(*capability.time(), &capability).extend(values.drain(..).map(Event::Clock));
                });
                input.for_each(|capability, updates| {
                    for (row, time, diff) in updates.drain(..) {
                        waiting.at(time, &capability).push(Event::Update(row, diff));
                    }
                });
                let complete = |time: Time| !input_frontier.less_equal(&time) && !clock_frontier.less_equal(&time);
                while waiting.first_time().is_some_and(complete) {
                    if let Some(([capability], events)) = waiting.pop_first() {
                        let time = *capability.time();
                        let changes = filter.tick(events).into_iter().map(|(row, diff)| (row, time, diff));
                        output.session(&capability).give_iterator(changes);
                    }
                }
            }
        })
        .as_collection()
}

struct Filter<B> {
    bounds: B,
    now: Option<i64>,
    /// What to insert, and take away, at which instant.
    appearing: Schedule<(Row, Option<i64>)>,
    disappearing: Schedule<Row>,
}

impl<B: FnMut(&[u8]) -> (Option<i64>, Option<i64>)> Filter<B> {
    fn new(bounds: B) -> Self {
        Filter { bounds, now: None, appearing: Schedule::default(), disappearing: Schedule::default() }
    }
    /// Applies a tick and returns how the output changes.
    fn tick(&mut self, events: Vec<Event>) -> Vec<(Row, Diff)> {
        let mut changes = Vec::new();
        let values = events.iter().filter_map(|event| if let Event::Clock(value) = event { Some(*value) } else { None });
        if let Some(value) = values.max().filter(|value| self.now.is_none_or(|now| *value > now)) {
            self.now = Some(value);
            changes.extend(self.disappearing.due(value).into_iter().map(|(row, diff)| (row, -diff)));
            for ((row, upper), diff) in self.appearing.due(value) {
                self.appear(row, upper, diff, &mut changes);
            }
        }
        for event in events {
            if let Event::Update(row, diff) = event {
                let (lower, upper) = (self.bounds)(&row);
                match self.now {
                    Some(now) if lower.is_none_or(|lower| lower <= now) => self.appear(row, upper, diff, &mut changes),
                    _ => self.appearing.add(lower.unwrap_or(i64::MIN), (row, upper), diff),
                }
            }
        }
        consolidate(&mut changes);
        changes
    }
    /// A row is due to be in the output, unless its time is over already.
    fn appear(&mut self, row: Row, upper: Option<i64>, diff: Diff, changes: &mut Vec<(Row, Diff)>) {
        if let Some(upper) = upper {
            if self.now.is_some_and(|now| upper <= now) {
                return;
            }
            self.disappearing.add(upper, row.clone(), diff);
        }
        changes.push((row, diff));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Multiset, Pair, Random, Script, Shape, add, check, fields, flat, instants, ints};

    fn bound(random: &mut Random) -> Option<i64> {
        if random.once_in(4) { None } else { Some(random.below(30) as i64) }
    }
    /// Input 0 holds rows (id, lower, upper); input 1 clock values, which mostly grow.
    fn row(random: &mut Random, input: usize, time: Time) -> Pair {
        if input == 0 {
            (ints(&[Some(random.below(3) as i64)]), ints(&[bound(random), bound(random)]))
        } else {
            (ints(&[Some((2 * time + random.below(6)) as i64 - 3)]), ints(&[]))
        }
    }
    #[test]
    fn agrees_with_asking_every_row_at_every_tick() {
        for seed in 0..24 {
            let mut script =
                Script::random(seed, &Shape { inputs: 2, ticks: 16, row: &row, expired: &|_, _| false, negative: false });
            // What the clock once showed is not taken back.
            script.changes.retain(|change| change.input == 0 || change.diff > 0);
            check(
                [1, 1, 2, 4][seed as usize % 4],
                seed,
                &script,
                |mut inputs| {
                    let clock = instants(inputs.remove(1));
                    temporal_filter(flat(inputs.remove(0)), clock, "TemporalFilter", |row| {
                        let fields = fields(row);
                        (fields[1], fields[2])
                    })
                },
                |held| {
                    let mut rows = Multiset::new();
                    if let Some(now) = held[1].keys().map(|(value, _)| fields(value)[0].unwrap()).max() {
                        for ((id, bounds), count) in &held[0] {
                            let fields = fields(bounds);
                            if fields[0].is_none_or(|lower| lower <= now) && fields[1].is_none_or(|upper| now < upper) {
                                add(&mut rows, Row::from_bytes(&[&id[..], &bounds[..]].concat()), *count);
                            }
                        }
                    }
                    rows
                },
            );
        }
    }

    #[test]
    fn what_comes_and_goes_early_takes_no_space() {
        let mut filter = Filter::new(|row: &[u8]| (Some(fields(row)[0].unwrap()), None));
        filter.tick(vec![Event::Clock(0)]);
        for _ in 0..1000 {
            for diff in [1, -1] {
                filter.tick(vec![Event::Update(ints(&[Some(5)]), diff)]);
            }
        }
        assert!(filter.appearing.len() < 4);
        assert_eq!(filter.tick(vec![Event::Clock(5)]), []);
    }
}
