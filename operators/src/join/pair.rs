//! The loop of the operators that react to both of two arrangements: linear, outer, semi and lookback join.
//!
//! It visits every (key, time) at which a side changed, keys ascending, and the times of a key ascending, and gives a
//! [`PairLogic`] the changes and both traces. "As of a time" is always a filter on the times of the whole trace, never a
//! choice of batches. So batches that cover several ticks, batches that reach beyond the other input's frontier (kept in a
//! queue), and rows that came early are all harmless.
//!
//! Compaction: everything before `done` has been emitted. The traces are compacted to `done - 1`, since the smallest time
//! read is the one before the next change. With `done` the states before and at a time could not be told apart any more.
//! Physical compaction is given up: no batch boundary is ever asked for, so this loop never holds merging back.
//!
//! An imported arrangement carries its history at times that may be compacted up to its `since`. What happened until then
//! counts as having happened at `since`, from nothing.

use deltaworks_dataflow::arrange::{Batch, collection};
use deltaworks_dataflow::cursor::{batches_of, never_cut};
use deltaworks_dataflow::{Arranged, Diff, Row, Time, Trace, TraceCursor};
use differential_dataflow::VecCollection;
use differential_dataflow::trace::implementations::BatchContainer;
use differential_dataflow::trace::{BatchReader, TraceReader};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Antichain;
use timely::progress::frontier::MutableAntichain;

use super::{FUEL, can_match, since_of};

/// One update of the key and side at hand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change<'a> {
    pub(super) time: Time,
    pub(super) value: &'a [u8],
    pub(super) diff: Diff,
}

/// What an operator does where something changed.
pub(super) trait PairLogic<D> {
    /// Whether NULL fields of the key match each other.
    fn null_equal(&self) -> bool {
        false
    }
    /// Called before the steps of an activation with the left batches that wait; `several`: for more than one time.
    /// Returns the largest beginning of changed right values that matter, if there is such a bound (see [`begins_by`]):
    /// the others are left out, and their keys are not looked up.
    fn prepare(&mut self, _left: &[Batch], _several: bool) -> Option<Vec<u8>> {
        None
    }
    /// Called when all steps of an activation are done.
    fn finish(&mut self) {}
    /// Emits the output's changes at one key and time.
    fn step(&mut self, now: &mut Moment<'_, '_>, emit: &mut impl FnMut(D, Diff));
}

/// Whether the value begins with `bound` or is less than it.
#[inline]
pub(super) fn begins_by(value: &[u8], bound: &[u8]) -> bool {
    value[..value.len().min(bound.len())] <= *bound
}

/// A key and a time at which something changed.
pub(super) struct Moment<'m, 'a> {
    pub(super) key: &'a [u8],
    /// Updates at times less than this make the state before the moment.
    pub(super) before: Time,
    /// Updates at times less than this make the state at the moment.
    pub(super) upto: Time,
    /// False where the key holds a NULL that equals nothing.
    pub(super) matchable: bool,
    pub(super) left: Side<'m, 'a>,
    pub(super) right: Side<'m, 'a>,
}
/// One side at a moment: its changes, ascending by value, and its trace.
pub(super) struct Side<'m, 'a> {
    pub(super) changes: &'m [Change<'a>],
    pub(super) scan: &'m mut Scan<'a>,
}

/// A trace at one key at a time; the key is looked up when first asked for.
pub(super) struct Scan<'a> {
    pub(super) cursor: TraceCursor<'a>,
    key: &'a [u8],
    found: Option<bool>,
    loaded: Vec<(&'a [u8], Diff)>,
}
impl<'a> Scan<'a> {
    fn new(batches: &'a [Batch]) -> Self {
        Scan { cursor: TraceCursor::new(batches), key: &[], found: None, loaded: Vec::new() }
    }
    fn enter(&mut self, key: &'a [u8]) {
        self.key = key;
        self.found = None;
    }
    /// Whether any batch has the key; the cursor stands on it then, at an arbitrary value.
    #[inline]
    pub(super) fn at_key(&mut self) -> bool {
        *self.found.get_or_insert_with(|| self.cursor.seek_key(self.key))
    }
    /// Whether some value for which `test` holds is there more than zero times by the updates before `limit`.
    pub(super) fn any(&mut self, limit: Time, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        if !self.at_key() {
            return false;
        }
        self.cursor.rewind_values();
        while let Some(value) = self.cursor.value() {
            if self.cursor.count_before(limit) > 0 && test(value) {
                return true;
            }
        }
        false
    }
    /// All values of the key by the updates before `limit`, with their counts, which are not zero.
    pub(super) fn load(&mut self, limit: Time) -> &[(&'a [u8], Diff)] {
        self.loaded.clear();
        if self.at_key() {
            self.cursor.rewind_values();
            while let Some(value) = self.cursor.value() {
                let count = self.cursor.count_before(limit);
                if count != 0 {
                    self.loaded.push((value, count));
                }
            }
        }
        &self.loaded
    }
}

/// Which updates of the waiting batches are due: those at times in `done..upto`, earlier than `start` counting as `start`.
#[derive(Clone, Copy)]
struct Due {
    start: Time,
    done: Time,
    upto: Time,
}
impl Due {
    #[inline]
    fn at(&self, time: Time) -> Option<Time> {
        let time = time.max(self.start);
        (self.done <= time && time < self.upto).then_some(time)
    }
}

/// Walks the due updates of waiting batches, key by key.
struct Changes<'a> {
    batches: &'a [Batch],
    /// Per batch, the position of its next key that has a due update to keep.
    at: Vec<usize>,
    due: Due,
    /// Values that begin later are left out.
    bound: Option<Vec<u8>>,
}
impl<'a> Changes<'a> {
    /// The changes of all keys, or of those after `after`.
    fn new(batches: &'a [Batch], due: Due, after: Option<&[u8]>, bound: Option<Vec<u8>>) -> Self {
        let mut changes = Changes { batches, at: vec![0; batches.len()], due, bound };
        for (index, batch) in batches.iter().enumerate() {
            if let Some(after) = after {
                let keys = &batch.storage.keys;
                changes.at[index] = keys.advance(0, keys.len(), |key| key <= after);
            }
            changes.settle(index);
        }
        changes
    }
    /// Moves on to the next key that matters.
    fn settle(&mut self, index: usize) {
        let storage = &self.batches[index].storage;
        while self.at[index] < storage.keys.len() && !self.matters(index) {
            self.at[index] += 1;
        }
    }
    fn matters(&self, index: usize) -> bool {
        let storage = &self.batches[index].storage;
        let (lower, upper) = storage.vals.bounds(self.at[index]);
        (lower..upper).take_while(|value| self.keeps(storage.vals.get_abs(*value))).any(|value| {
            let (from, to) = storage.upds.bounds(value);
            (from..to).any(|update| self.due.at(storage.upds.times[update]).is_some())
        })
    }
    /// Values ascend, so those that are kept come first.
    #[inline]
    fn keeps(&self, value: &[u8]) -> bool {
        self.bound.as_ref().is_none_or(|bound| begins_by(value, bound))
    }
    /// The smallest key left.
    fn key(&self) -> Option<&'a [u8]> {
        let keys = self.batches.iter().zip(&self.at).map(|(batch, at)| (&batch.storage.keys, *at));
        keys.filter(|(keys, at)| *at < keys.len()).map(|(keys, at)| keys.index(at)).min()
    }
    /// Puts the changes of `key` into `into`, ascending by time and value, and moves past it.
    fn take(&mut self, key: &[u8], into: &mut Vec<Change<'a>>) {
        into.clear();
        for index in 0..self.batches.len() {
            let storage = &self.batches[index].storage;
            if self.at[index] >= storage.keys.len() || storage.keys.index(self.at[index]) != key {
                continue;
            }
            let (lower, upper) = storage.vals.bounds(self.at[index]);
            for position in lower..upper {
                let value = storage.vals.get_abs(position);
                if !self.keeps(value) {
                    break;
                }
                let (from, to) = storage.upds.bounds(position);
                for update in from..to {
                    if let Some(time) = self.due.at(storage.upds.times[update]) {
                        into.push(Change { time, value, diff: storage.upds.diffs[update] });
                    }
                }
            }
            self.at[index] += 1;
            self.settle(index);
        }
        if !into.is_sorted() {
            into.sort_unstable();
        }
    }
}

/// Splits the changes at the first time off.
fn split_at_time<'m, 'a>(changes: &mut &'m [Change<'a>], time: Time) -> &'m [Change<'a>] {
    let size = changes.iter().take_while(|change| change.time == time).count();
    let (now, later) = changes.split_at(size);
    *changes = later;
    now
}

/// One input: its trace and the batches that have arrived and reach beyond what is done.
struct Input {
    trace: Trace,
    waiting: Vec<Batch>,
}
impl Input {
    fn new(mut trace: Trace, start: Time) -> Self {
        never_cut(&mut trace);
        trace.set_logical_compaction(Antichain::from_elem(start).borrow());
        Input { trace, waiting: Vec::new() }
    }
    fn release(&mut self, done: Time) {
        // An empty upper reaches to the end of time.
        self.waiting.retain(|batch| batch.upper().iter().next().is_none_or(|upper| *upper > done));
        self.trace.set_logical_compaction(Antichain::from_elem(done.saturating_sub(1)).borrow());
    }
}

/// The state of the loop between activations.
struct Pair<L> {
    left: Input,
    right: Input,
    logic: L,
    /// What happened before this time counts as having happened at it.
    start: Time,
    /// Everything before this time has been emitted.
    done: Time,
    /// Set where fuel ran out: the work's upper bound in time, and the last key worked on.
    interrupted: Option<(Time, Row)>,
}

impl<L> Pair<L> {
    /// Works through the changes before `upto` until all are done (true) or the fuel is used up.
    fn work<D>(&mut self, upto: Time, mut give: impl FnMut(D, Time, Diff)) -> bool
    where
        L: PairLogic<D>,
    {
        let due = Due { start: self.start, done: self.done, upto };
        let bound = self.logic.prepare(&self.left.waiting, upto - self.done > 1);
        let (left_batches, right_batches) = (batches_of(&mut self.left.trace), batches_of(&mut self.right.trace));
        let (mut left_scan, mut right_scan) = (Scan::new(&left_batches), Scan::new(&right_batches));
        let after = self.interrupted.take().map(|(_, key)| key);
        let mut left_changes = Changes::new(&self.left.waiting, due, after.as_deref(), None);
        let mut right_changes = Changes::new(&self.right.waiting, due, after.as_deref(), bound);
        let (mut lefts, mut rights, mut fuel) = (Vec::new(), Vec::new(), FUEL);
        while let Some(key) = smaller(left_changes.key(), right_changes.key()) {
            left_changes.take(key, &mut lefts);
            right_changes.take(key, &mut rights);
            left_scan.enter(key);
            right_scan.enter(key);
            let matchable = can_match(key, self.logic.null_equal());
            let (mut lefts, mut rights) = (&lefts[..], &rights[..]);
            while let Some(time) = smaller(lefts.first().map(|c| c.time), rights.first().map(|c| c.time)) {
                let left = Side { changes: split_at_time(&mut lefts, time), scan: &mut left_scan };
                let right = Side { changes: split_at_time(&mut rights, time), scan: &mut right_scan };
                let before = if time == self.start { 0 } else { time };
                let mut now = Moment { key, before, upto: time + 1, matchable, left, right };
                self.logic.step(&mut now, &mut |row, diff| {
                    fuel = fuel.saturating_sub(1);
                    give(row, time, diff);
                });
            }
            if fuel == 0 {
                self.interrupted = Some((upto, Row::from_bytes(key)));
                return false;
            }
        }
        self.logic.finish();
        true
    }
}

fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
/// The times before this one are complete.
pub(super) fn lower_bound(frontier: &MutableAntichain<Time>) -> Time {
    frontier.frontier().iter().next().copied().unwrap_or(Time::MAX)
}

/// Renders the loop with `logic` over the two arrangements.
pub(super) fn pair<'s, D: Clone + 'static, L: PairLogic<D> + 'static>(
    mut left: Arranged<'s>,
    mut right: Arranged<'s>,
    name: &str,
    logic: L,
) -> VecCollection<'s, Time, D, Diff> {
    let start = since_of(&mut left.trace).max(since_of(&mut right.trace));
    let (left_input, right_input) = (Input::new(left.trace, start), Input::new(right.trace, start));
    let scope = left.stream.scope();
    let stream = left.stream.binary_frontier(right.stream, Pipeline, Pipeline, name, move |_, info| {
        let activator = scope.activator_for(info.address);
        let pair = Pair { left: left_input, right: right_input, logic, start, done: start, interrupted: None };
        let mut running = Some(pair);
        // At or before every time that is still to be emitted.
        let mut capability: Option<Capability<Time>> = None;
        move |(left, left_frontier), (right, right_frontier), output| {
            let Some(pair) = running.as_mut() else {
                left.for_each(|_, batches| batches.clear());
                right.for_each(|_, batches| batches.clear());
                return;
            };
            let mut earliest = |received: Capability<Time>| match &capability {
                Some(held) if held.time() <= received.time() => {}
                _ => capability = Some(received),
            };
            left.for_each(|received, batches| {
                earliest(received.retain(0));
                pair.left.waiting.append(batches);
            });
            right.for_each(|received, batches| {
                earliest(received.retain(0));
                pair.right.waiting.append(batches);
            });
            let complete = lower_bound(left_frontier).min(lower_bound(right_frontier));
            let upto = pair.interrupted.as_ref().map_or(complete, |(upto, _)| *upto);
            if upto <= pair.done {
                return;
            }
            if let Some(capability) = &capability {
                let mut session = output.session(capability);
                if !pair.work(upto, |row, time, diff| session.give((row, time, diff))) {
                    activator.activate();
                    return;
                }
                if upto < complete {
                    // What arrived during the interruption has its turn next.
                    activator.activate();
                }
            }
            pair.done = upto;
            pair.left.release(upto);
            pair.right.release(upto);
            if upto == Time::MAX {
                running = None;
                capability = None;
            } else if pair.left.waiting.is_empty() && pair.right.waiting.is_empty() {
                capability = None;
            } else if let Some(capability) = capability.as_mut().filter(|held| *held.time() < upto) {
                // A batch that is ahead of the other input has come with a later capability than `upto`.
                capability.downgrade(&upto);
            }
        }
    });
    collection(stream)
}

#[cfg(test)]
mod tests {
    use crate::join::{OuterKind, Pick, Range, lookback_join, outer_join};
    use crate::testing::{Multiset, Pair, add, small_script};
    use deltaworks_dataflow::arrange::arrange;
    use deltaworks_dataflow::{Arranged, Diff, Row, Time};
    use differential_dataflow::trace::TraceReader;
    use differential_dataflow::{AsCollection, VecCollection};
    use std::cell::RefCell;
    use std::rc::Rc;
    use timely::dataflow::operators::{Inspect, Probe, vec::Input};
    use timely::progress::Antichain;

    type Output = (Row, Option<Row>, Option<Row>);

    /// Replays a script into two arrangements, compacts them to different times, and only then builds the join over the
    /// imported arrangements. Returns the output's updates, and both sides' changes.
    fn run_imported(
        seed: u64,
        since: [Time; 2],
        installed: Time,
        build: for<'s> fn(Arranged<'s>, Arranged<'s>) -> VecCollection<'s, Time, Output, Diff>,
    ) -> Vec<(Output, Time, Diff)> {
        let script = small_script(seed, 60, 2);
        timely::execute_directly(move |worker| {
            let updates: Rc<RefCell<Vec<_>>> = Rc::default();
            let probe = timely::dataflow::ProbeHandle::new();
            let (mut inputs, mut traces): (Vec<_>, Vec<_>) = worker.dataflow::<Time, _, _>(|scope| {
                let side = |_| {
                    let (input, stream) = scope.new_input::<(Pair, Time, Diff)>();
                    let arranged = arrange(stream.as_collection(), "Side");
                    arranged.stream.probe_with(&probe);
                    (input, arranged.trace)
                };
                (0..2).map(side).unzip()
            });
            for time in 0..script.ticks {
                for change in script.changes.iter().filter(|change| change.time == time) {
                    inputs[change.input].send((change.row.clone(), time, change.diff));
                }
                for input in &mut inputs {
                    input.advance_to(time + 1);
                }
                while probe.less_than(&(time + 1)) {
                    worker.step();
                }
                for (trace, since) in traces.iter_mut().zip(since) {
                    let frontier = Antichain::from_elem(since.min(time));
                    trace.set_logical_compaction(frontier.borrow());
                    trace.set_physical_compaction(Antichain::from_elem(time).borrow());
                }
                if time == installed {
                    let sink = updates.clone();
                    worker.dataflow::<Time, _, _>(|scope| {
                        let [left, right] = [0, 1].map(|side| traces[side].import(scope));
                        let output = build(left, right).inner;
                        output.inspect(move |update| sink.borrow_mut().push(update.clone())).probe_with(&probe);
                    });
                }
            }
            drop((inputs, traces));
            while worker.step() {}
            updates.take()
        })
    }
    fn check_imported(
        build: for<'s> fn(Arranged<'s>, Arranged<'s>) -> VecCollection<'s, Time, Output, Diff>,
        reference: impl Fn(&Multiset<Pair>, &Multiset<Pair>) -> Multiset<Output>,
    ) {
        for (seed, since) in [(1, [20, 27]), (2, [27, 20]), (3, [0, 0]), (4, [30, 30]), (5, [0, 30]), (6, [29, 30])] {
            let script = small_script(seed, 60, 2);
            let updates = run_imported(seed, since, 30, build);
            for time in since[0].max(since[1])..script.ticks {
                let mut sides = [Multiset::new(), Multiset::new()];
                for change in script.changes.iter().filter(|change| change.time <= time) {
                    add(&mut sides[change.input], change.row.clone(), change.diff);
                }
                let mut view = Multiset::new();
                for (row, _, diff) in updates.iter().filter(|(_, t, _)| *t <= time) {
                    add(&mut view, row.clone(), *diff);
                }
                assert_eq!(view, reference(&sides[0], &sides[1]), "seed {seed}, tick {time}");
            }
        }
    }

    #[test]
    fn an_outer_join_of_imported_arrangements_has_their_history() {
        check_imported(
            |left, right| {
                outer_join(left, right, OuterKind::Full, false, true, "Outer", |key, left, right| {
                    Some((Row::from_bytes(key), left.map(Row::from_bytes), right.map(Row::from_bytes)))
                })
            },
            |lefts, rights| {
                let mut expected = Multiset::new();
                for ((key, left), count) in lefts {
                    let matches = || rights.iter().filter(move |((other, _), _)| other == key);
                    for ((_, right), other) in matches() {
                        add(&mut expected, (key.clone(), Some(left.clone()), Some(right.clone())), count * other);
                    }
                    if !matches().any(|(_, there)| *there > 0) {
                        add(&mut expected, (key.clone(), Some(left.clone()), None), *count);
                    }
                }
                for ((key, right), count) in rights {
                    if !lefts.iter().any(|((other, _), there)| other == key && *there > 0) {
                        add(&mut expected, (key.clone(), None, Some(right.clone())), *count);
                    }
                }
                expected
            },
        );
    }

    #[test]
    fn a_lookback_join_of_imported_arrangements_has_their_history() {
        let window = |left: &Row, right: &Row| *left >= *right;
        check_imported(
            |left, right| {
                let range = Range::Window(crate::join::Window { before: 100, after: 0 });
                lookback_join(left, right, range, Pick::Last, true, "Lookback", |key, left, right, _| {
                    Some((Row::from_bytes(key), Some(Row::from_bytes(left)), right.map(Row::from_bytes)))
                })
            },
            |lefts, rights| {
                let mut expected = Multiset::new();
                for ((key, left), count) in lefts {
                    let seen = rights.iter().filter(|((other, right), there)| {
                        **there > 0 && other == key && !super::super::has_null(key) && window(left, right)
                    });
                    let last = seen.map(|((_, right), _)| right.clone()).max();
                    add(&mut expected, (key.clone(), Some(left.clone()), last), *count);
                }
                expected
            },
        );
    }
}
