//! Pair limit: what stops a join whose every pair is a candidate before it has more pairs than anybody can wait for.
//!
//! *Definition.* Hands on the batches of both sides until, at the end of some tick, both have more than `limit` rows; from then
//! on hands on nothing, having said so once. One side may be as large as it likes.
//!
//! *State.* The number of rows of each side, and the batches of ticks that the other side has not completed.
//!
//! *On retraction.* Rows count net: what comes and goes within a tick is never counted. *On ties, nulls, late rows*: every row
//! counts, as every row is a candidate.
//!
//! *Example.* limit 2: sides of 2 and 1,000,000 rows join; sides of 3 and 3 do not.

use std::collections::BTreeMap;

use deltaworks_dataflow::arrange::Batch;
use deltaworks_dataflow::cursor::for_each_update;
use deltaworks_dataflow::{Arranged, Diff, Time};
use differential_dataflow::operators::arrange::Arranged as DifferentialArranged;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::pair::lower_bound;

/// Batches of one side that wait, each with the right to send it.
type Waiting = Vec<(Capability<Time>, Batch)>;

/// The rows of both sides, and how they change at the ticks that are not complete.
struct Count {
    limit: u64,
    rows: [Diff; 2],
    changes: BTreeMap<Time, [Diff; 2]>,
}

impl Count {
    fn add(&mut self, side: usize, batch: &Batch) {
        for_each_update(batch, |_, _, time, diff| self.changes.entry(time).or_default()[side] += diff);
    }
    /// Whether both sides were above the limit at the end of a tick before `complete`.
    fn exceeded_before(&mut self, complete: Time) -> bool {
        while let Some(change) = self.changes.first_entry().filter(|change| *change.key() < complete) {
            let change = change.remove();
            self.rows = [self.rows[0] + change[0], self.rows[1] + change[1]];
            if self.rows.iter().all(|rows| u64::try_from(*rows).is_ok_and(|rows| rows > self.limit)) {
                return true;
            }
        }
        false
    }
}

/// Stops both sides, and calls `exceeded`, once both have more than `limit` rows. All rows must be on one worker, as those of
/// sides that are arranged by an empty key are.
pub fn limit_pairs<'s>(
    left: Arranged<'s>,
    right: Arranged<'s>,
    limit: u64,
    mut exceeded: impl FnMut() + 'static,
) -> (Arranged<'s>, Arranged<'s>) {
    let mut builder = OperatorBuilder::new("PairLimit".to_owned(), left.stream.scope());
    let mut inputs = [builder.new_input(left.stream, Pipeline), builder.new_input(right.stream, Pipeline)];
    let (left_output, left_stream) = builder.new_output();
    let (right_output, right_stream) = builder.new_output();
    let mut outputs =
        [OutputBuilder::<_, CapacityContainerBuilder<Vec<Batch>>>::from(left_output), OutputBuilder::from(right_output)];
    builder.build(move |_| {
        let mut count = Some(Count { limit, rows: [0, 0], changes: BTreeMap::new() });
        let mut waiting: [Waiting; 2] = [Vec::new(), Vec::new()];
        move |frontiers| {
            for (side, input) in inputs.iter_mut().enumerate() {
                input.for_each(|capability, batches| {
                    for batch in batches.drain(..) {
                        let Some(count) = &mut count else { continue };
                        count.add(side, &batch);
                        waiting[side].push((capability.retain(side), batch));
                    }
                });
            }
            let complete = lower_bound(&frontiers[0]).min(lower_bound(&frontiers[1]));
            if count.as_mut().is_some_and(|count| count.exceeded_before(complete)) {
                (count, waiting) = (None, [Vec::new(), Vec::new()]);
                exceeded();
            }
            for (waiting, output) in waiting.iter_mut().zip(&mut outputs) {
                let due = waiting.iter().take_while(|(_, batch)| ends_by(batch, complete)).count();
                let mut output = output.activate();
                for (capability, batch) in waiting.drain(..due) {
                    output.session(&capability).give(batch);
                }
            }
        }
    });
    let (left_trace, right_trace) = (left.trace, right.trace);
    let left = DifferentialArranged { stream: left_stream, trace: left_trace };
    (left, DifferentialArranged { stream: right_stream, trace: right_trace })
}

/// Whether everything in the batch is before `complete`.
fn ends_by(batch: &Batch, complete: Time) -> bool {
    use differential_dataflow::trace::BatchReader;
    batch.description().upper().iter().all(|upper| *upper <= complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::linear_join;
    use crate::testing::{Change, Multiset, Pair, Random, Script, Shape, add, check, ints, run};
    use deltaworks_dataflow::arrange::arrange;
    use deltaworks_dataflow::{KeyedCollection, Row};
    use differential_dataflow::VecCollection;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn limited<'s>(
        mut inputs: Vec<KeyedCollection<'s>>,
        limit: u64,
        stops: &Arc<AtomicU64>,
    ) -> VecCollection<'s, Time, (Row, Row), Diff> {
        let right = arrange(inputs.remove(1), "Right");
        let left = arrange(inputs.remove(0), "Left");
        let stops = Arc::clone(stops);
        let (left, right) = limit_pairs(left, right, limit, move || {
            stops.fetch_add(1, Ordering::Relaxed);
        });
        linear_join(left, right, "Join", |_, left, right, _| Some((Row::from_bytes(left), Row::from_bytes(right))))
    }
    fn pairs(held: &[Multiset<Pair>]) -> Multiset<(Row, Row)> {
        let mut all = Multiset::new();
        for ((_, left), left_count) in &held[0] {
            for ((_, right), right_count) in &held[1] {
                add(&mut all, (left.clone(), right.clone()), left_count * right_count);
            }
        }
        all
    }
    fn row(random: &mut Random, _: usize, _: Time) -> Pair {
        (Row::default(), ints(&[Some(random.below(6) as i64)]))
    }

    #[test]
    fn below_the_limit_nothing_changes() {
        for seed in 0..16 {
            let shape = Shape { inputs: 2, ticks: 14, row: &row, expired: &|_, _| false, negative: true };
            let stops = Arc::<AtomicU64>::default();
            let seen = Arc::clone(&stops);
            let script = Script::random(seed, &shape);
            check([1, 2, 4][seed as usize % 3], seed, &script, move |inputs| limited(inputs, 10_000, &seen), pairs);
            assert_eq!(stops.load(Ordering::Relaxed), 0);
        }
    }

    /// Both sides change at the same ticks, by these differences.
    fn sides(left: &[Diff], right: &[Diff]) -> Script {
        let mut changes = Vec::new();
        for (time, diffs) in left.iter().zip(right).enumerate() {
            for (input, diff) in [(0, *diffs.0), (1, *diffs.1)] {
                for value in 0..diff.abs() {
                    let row = (Row::default(), ints(&[Some(value)]));
                    changes.push(Change { input, row, time: time as Time, diff: diff.signum() });
                }
            }
        }
        Script { inputs: 2, ticks: left.len() as Time, changes }
    }

    #[test]
    fn stops_where_both_sides_end_a_tick_above_the_limit() {
        let cases: [(&[Diff], &[Diff], u64); 5] = [
            (&[3, 100], &[2, 0], 0),
            (&[4, 0, 1], &[4, 1, 0], 1),
            (&[4, 1, 0], &[4, 0, 1], 1),
            // One side falls below the limit at the tick at which the other one passes it.
            (&[4, 1, 0], &[5, -2, 0], 0),
            (&[4, 1, -1], &[5, 0, 1], 1),
        ];
        for (left, right, expected) in cases {
            for seed in 0..8 {
                let stops = Arc::<AtomicU64>::default();
                let seen = Arc::clone(&stops);
                let changes = run(1 + seed as usize % 2, seed, &sides(left, right), move |inputs| limited(inputs, 4, &seen));
                assert_eq!(stops.load(Ordering::Relaxed), expected, "{left:?} {right:?} seed {seed}");
                assert!(expected == 0 || changes.iter().map(|(_, _, diff)| diff.abs()).sum::<Diff>() <= 20);
            }
        }
    }
}
