//! The semi join and the anti join: left rows that have a match on the right, or have none.
//!
//! *Definition.* Semi: `{ logic(k, l) : l in L(k), some r in R(k) matches }`, with the counts of `l`; anti: those for which
//! none does. `r` matches if it is there a positive number of times and passes the residual condition, if there is one.
//! That is EXISTS, NOT EXISTS and IN. [`null_aware_anti_join`] is NOT IN over one column: all left rows if the right side
//! is empty; none if a right key is NULL; else the left rows whose key is not NULL and not among the right keys.
//!
//! *State.* The two shared arrangements. NOT IN keeps in addition an arrangement of the anti join, and three numbers.
//!
//! *On retraction.* Exact. Without a residual a changed left row costs a test for presence, a changed right row walks the
//! left group only if the presence of its key changes. With a residual, each left row that the changed right row passes
//! with looks for another match. For NOT IN, the first and last right row, and the first and last NULL, revise all.
//!
//! *On ties, nulls, late rows.* A key with a NULL field matches nothing, so anti lets it pass, unless `null_equal` is set
//! (INTERSECT, EXCEPT).
//!
//! *Example.* L = (a, 1), (b, 2); R = (a, x), (a, y): semi 1, anti 2; retracting (a, x) changes nothing, then (a, y) moves
//! 1 over.

use deltaworks_dataflow::arrange::{Batch, arrange, collection};
use deltaworks_dataflow::cursor::{batches_of, for_each_update, never_cut};
use deltaworks_dataflow::{Arranged, Diff, Row, Time, Trace, TraceCursor};
use differential_dataflow::VecCollection;
use differential_dataflow::trace::{BatchReader, TraceReader};
use std::collections::BTreeMap;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Broadcast;
use timely::progress::Antichain;

use super::pair::{Moment, PairLogic, Side, lower_bound, pair};
use super::{has_null, since_of};

/// A condition on a pair beyond the equality of keys: key, left value, right value.
pub type Residual = Box<dyn FnMut(&[u8], &[u8], &[u8]) -> bool>;

/// Emits the left rows that have a match on the right, or with `anti` those that have none.
pub fn semi_join<'s, D: Clone + 'static>(
    left: Arranged<'s>,
    right: Arranged<'s>,
    anti: bool,
    residual: Option<Residual>,
    null_equal: bool,
    name: &str,
    logic: impl FnMut(&[u8], &[u8]) -> D + 'static,
) -> VecCollection<'s, Time, D, Diff> {
    pair(left, right, name, Semi { anti, residual, null_equal, logic })
}

struct Semi<F> {
    anti: bool,
    residual: Option<Residual>,
    null_equal: bool,
    logic: F,
}
impl<D, F: FnMut(&[u8], &[u8]) -> D> PairLogic<D> for Semi<F> {
    fn null_equal(&self) -> bool {
        self.null_equal
    }
    fn step(&mut self, now: &mut Moment<'_, '_>, emit: &mut impl FnMut(D, Diff)) {
        let key = now.key;
        let gate = Gate { before: now.before, upto: now.upto, matchable: now.matchable, matched: !self.anti };
        let residual = self.residual.as_mut().map(|test| move |left: &[u8], right: &[u8]| test(key, left, right));
        gate.pass(&mut now.left, &mut now.right, residual, |left, diff| emit((self.logic)(key, left), diff));
    }
}

/// Lets rows of one side pass by whether the other side has a match for them, at one key and time.
pub(super) struct Gate {
    /// Updates before this time make the state before the moment.
    pub(super) before: Time,
    /// Updates before this time make the state at the moment.
    pub(super) upto: Time,
    /// Whether the key can match at all.
    pub(super) matchable: bool,
    /// Whether rows with a match pass, or those without.
    pub(super) matched: bool,
}
impl Gate {
    /// Emits the change of the rows that pass: `d(gated) = d(side) x open(t) + side(t-1) x (open(t) - open(t-1))`.
    pub(super) fn pass(
        &self,
        side: &mut Side<'_, '_>,
        other: &mut Side<'_, '_>,
        residual: Option<impl FnMut(&[u8], &[u8]) -> bool>,
        mut emit: impl FnMut(&[u8], Diff),
    ) {
        match residual {
            None => self.pass_by_key(side, other, &mut emit),
            Some(mut test) => self.pass_by_row(side, other, &mut test, &mut emit),
        }
    }
    fn pass_by_key(&self, side: &mut Side<'_, '_>, other: &mut Side<'_, '_>, emit: &mut impl FnMut(&[u8], Diff)) {
        let now = self.matchable && other.scan.any(self.upto, |_| true);
        if now == self.matched {
            side.changes.iter().for_each(|change| emit(change.value, change.diff));
        }
        if !self.matchable || other.changes.is_empty() || now == other.scan.any(self.before, |_| true) {
            return;
        }
        let sign = if now == self.matched { 1 } else { -1 };
        for (value, count) in side.scan.load(self.before) {
            emit(value, sign * count);
        }
    }
    fn pass_by_row(
        &self,
        side: &mut Side<'_, '_>,
        other: &mut Side<'_, '_>,
        test: &mut impl FnMut(&[u8], &[u8]) -> bool,
        emit: &mut impl FnMut(&[u8], Diff),
    ) {
        for change in side.changes {
            let now = self.matchable && other.scan.any(self.upto, |candidate| test(change.value, candidate));
            if now == self.matched {
                emit(change.value, change.diff);
            }
        }
        if !self.matchable || other.changes.is_empty() {
            return;
        }
        for (value, count) in side.scan.load(self.before) {
            if !other.changes.iter().any(|change| test(value, change.value)) {
                continue;
            }
            let now = other.scan.any(self.upto, |candidate| test(value, candidate));
            if now != other.scan.any(self.before, |candidate| test(value, candidate)) {
                emit(value, if now == self.matched { *count } else { -count });
            }
        }
    }
}

/// What NOT IN has to know of the whole right side: None if it is empty, else whether a key is NULL.
type Fact = Option<bool>;

/// Emits the left rows whose key is NOT IN the right keys, by SQL's rules for NULL. Keys are one column.
pub fn null_aware_anti_join<'s, D: Clone + 'static>(
    left: Arranged<'s>,
    mut right: Arranged<'s>,
    name: &str,
    mut logic: impl FnMut(&[u8], &[u8]) -> D + 'static,
) -> VecCollection<'s, Time, D, Diff> {
    let since = since_of(&mut right.trace);
    let facts = facts_of(right.stream.clone(), since);
    let row = |key: &[u8], value: &[u8]| (Row::from_bytes(key), Row::from_bytes(value));
    let absent = semi_join(left.clone(), right, true, None, false, name, row).filter(|(key, _)| !has_null(key));
    let absent = arrange(absent, name);
    let all = while_fact(left, facts.clone(), None);
    let absent = while_fact(absent, facts, Some(false));
    all.concat(absent).map(move |(key, value)| logic(&key, &value))
}

/// What a worker saw of the right side at a time: how many rows more, and how many more with a NULL key.
type Seen = (Time, Diff, Diff);

/// The fact, as a stream of (time, fact from then on) that every worker gets; None before the first.
fn facts_of(batches: StreamVec<'_, Time, Batch>, since: Time) -> StreamVec<'_, Time, (Time, Fact)> {
    let counted = batches.unary::<timely::container::CapacityContainerBuilder<Vec<Seen>>, _, _, _>(
        Pipeline,
        "NotInCount",
        move |_, _| {
            move |input, output| {
                input.for_each(|capability, batches| {
                    let mut seen: BTreeMap<Time, (Diff, Diff)> = BTreeMap::new();
                    for batch in batches.drain(..) {
                        for_each_update(&batch, |key, _, time, diff| {
                            let counts = seen.entry(time.max(since)).or_default();
                            counts.0 += diff;
                            counts.1 += if has_null(key) { diff } else { 0 };
                        });
                    }
                    let mut session = output.session(&capability);
                    seen.into_iter().for_each(|(time, (rows, nulls))| session.give((time, rows, nulls)));
                });
            }
        },
    );
    let facts = counted.unary_frontier(Exchange::new(|_: &Seen| 0), "NotInFact", move |_, _| {
        let mut waiting: BTreeMap<Time, (Capability<Time>, Diff, Diff)> = BTreeMap::new();
        let (mut rows, mut nulls, mut fact) = (0, 0, None);
        move |(input, frontier), output| {
            input.for_each(|capability, seen| {
                let capability = capability.retain(0);
                for (time, rows, nulls) in seen.drain(..) {
                    let counts = waiting.entry(time).or_insert_with(|| (capability.delayed(&time), 0, 0));
                    counts.1 += rows;
                    counts.2 += nulls;
                }
            });
            while let Some(entry) = waiting.first_entry().filter(|entry| !frontier.less_equal(entry.key())) {
                let (time, (capability, more_rows, more_nulls)) = entry.remove_entry();
                rows += more_rows;
                nulls += more_nulls;
                let next = (rows > 0).then_some(nulls > 0);
                if next != fact {
                    fact = next;
                    output.session(&capability).give((time, fact));
                }
            }
        }
    });
    facts.broadcast()
}

/// The arrangement's rows at the times when the fact is `wanted`, and none at other times.
fn while_fact<'s>(
    mut arranged: Arranged<'s>,
    facts: StreamVec<'s, Time, (Time, Fact)>,
    wanted: Fact,
) -> VecCollection<'s, Time, (Row, Row), Diff> {
    let start = since_of(&mut arranged.trace);
    never_cut(&mut arranged.trace);
    let mut gate = FactGate {
        trace: Some(arranged.trace),
        start,
        done: start,
        open: wanted.is_none(),
        turns: BTreeMap::new(),
        waiting: Vec::new(),
    };
    let stream = arranged.stream.binary_frontier(facts, Pipeline, Pipeline, "NotInGate", move |_, _| {
        let mut capability: Option<Capability<Time>> = None;
        move |(batches, batch_frontier), (facts, fact_frontier), output| {
            let mut earliest = |received: Capability<Time>| match &capability {
                Some(held) if held.time() <= received.time() => {}
                _ => capability = Some(received),
            };
            batches.for_each(|received, batches| {
                earliest(received.retain(0));
                gate.waiting.append(batches);
            });
            facts.for_each(|received, facts| {
                earliest(received.retain(0));
                gate.turns.extend(facts.drain(..).map(|(time, fact)| (time, fact == wanted)));
            });
            let upto = lower_bound(batch_frontier).min(lower_bound(fact_frontier));
            if upto <= gate.done {
                return;
            }
            if let Some(capability) = &capability {
                let mut session = output.session(capability);
                gate.work(upto, |key, value, time, diff| {
                    session.give(((Row::from_bytes(key), Row::from_bytes(value)), time, diff));
                });
            }
            gate.release(upto);
            if !gate.is_waiting() {
                capability = None;
            } else if let Some(capability) = capability.as_mut().filter(|held| *held.time() < upto) {
                capability.downgrade(&upto);
            }
        }
    });
    collection(stream)
}

/// The state of [`while_fact`].
struct FactGate {
    trace: Option<Trace>,
    /// What happened before this time counts as having happened at it.
    start: Time,
    /// Everything before this time has been emitted.
    done: Time,
    /// Whether rows pass just before `done`.
    open: bool,
    /// From `done` on: from when on rows pass or do not.
    turns: BTreeMap<Time, bool>,
    waiting: Vec<Batch>,
}
impl FactGate {
    fn is_open(&self, time: Time) -> bool {
        self.turns.range(..=time).next_back().map_or(self.open, |(_, open)| *open)
    }
    fn work(&mut self, upto: Time, mut give: impl FnMut(&[u8], &[u8], Time, Diff)) {
        for batch in &self.waiting {
            for_each_update(batch, |key, value, time, diff| {
                let time = time.max(self.start);
                if self.done <= time && time < upto && self.is_open(time) {
                    give(key, value, time, diff);
                }
            });
        }
        let Some(trace) = &mut self.trace else { return };
        let mut open = self.open;
        for (&time, &opens) in self.turns.range(..upto) {
            // What was there before `start` is among the changes at it.
            if opens != open && time > self.start {
                let sign = if opens { 1 } else { -1 };
                for_each_before(&batches_of(trace), time, |key, value, count| give(key, value, time, sign * count));
            }
            open = opens;
        }
    }
    fn release(&mut self, upto: Time) {
        self.waiting.retain(|batch| batch.upper().iter().next().is_none_or(|upper| *upper > upto));
        self.open = self.is_open(upto.saturating_sub(1));
        self.turns = self.turns.split_off(&upto);
        self.done = upto;
        if upto == Time::MAX {
            self.trace = None;
        } else if let Some(trace) = &mut self.trace {
            trace.set_logical_compaction(Antichain::from_elem(upto.saturating_sub(1)).borrow());
        }
    }
    fn is_waiting(&self) -> bool {
        self.trace.is_some() && (!self.waiting.is_empty() || !self.turns.is_empty())
    }
}

/// Calls `each(key, value, count)` for all rows that the updates at times before `limit` leave.
fn for_each_before(batches: &[Batch], limit: Time, mut each: impl FnMut(&[u8], &[u8], Diff)) {
    let mut cursor = TraceCursor::new(batches);
    while let Some(key) = cursor.next_key() {
        while let Some(value) = cursor.value() {
            let count = cursor.count_before(limit);
            if count != 0 {
                each(key, value, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Change, Multiset, Pair, Random, Script, Shape, add, check, ints, small_script};

    fn passes(left: &[u8], right: &[u8]) -> bool {
        !(left[left.len() - 1] + right[right.len() - 1]).is_multiple_of(3)
    }
    fn reference(held: &[Multiset<Pair>], anti: bool, residual: bool, null_equal: bool) -> Multiset<Pair> {
        let matched = |(key, left): &Pair| {
            (null_equal || !has_null(key))
                && held[1]
                    .iter()
                    .any(|((other, right), there)| *there > 0 && other == key && (!residual || passes(left, right)))
        };
        held[0].iter().filter(|(row, _)| matched(row) != anti).map(|(row, count)| (row.clone(), *count)).collect()
    }
    fn pair_of(key: &[u8], value: &[u8]) -> Pair {
        (Row::from_bytes(key), Row::from_bytes(value))
    }

    #[test]
    fn every_tick_is_as_brute_force_says() {
        for seed in 0..16 {
            let (anti, residual, null_equal) = (seed & 1 > 0, seed & 2 > 0, seed & 4 > 0);
            check(
                if seed & 8 > 0 { 2 } else { 1 },
                seed,
                &small_script(seed, 120, 2),
                move |inputs| {
                    let [left, right]: [_; 2] = inputs.try_into().ok().expect("two inputs");
                    let (left, right) = (arrange(left, "Left"), arrange(right, "Right"));
                    let test = residual.then(|| -> Residual { Box::new(|_, left, right| passes(left, right)) });
                    semi_join(left, right, anti, test, null_equal, "Semi", pair_of)
                },
                |held| reference(held, anti, residual, null_equal),
            );
        }
    }

    /// The right side is emptied for the second half of every 16 ticks, and has NULL keys in a part of the first half.
    fn not_in_script(seed: u64, ticks: Time) -> Script {
        let row = |random: &mut Random, _: usize, _: Time| {
            let key = random.below(9) as i64;
            (ints(&[(key > 0).then_some(key % 4)]), ints(&[Some(random.below(3) as i64)]))
        };
        let mut script =
            Script::random(seed, &Shape { inputs: 2, ticks, row: &row, expired: &|_, _| false, negative: false });
        // Per round of 16 ticks: what the right side holds before it is emptied, never less than nothing.
        let mut right: Multiset<(Time, Pair)> = Multiset::new();
        script.changes.retain(|Change { input, row, time, diff }| {
            let due = time % 16 < 4 || time % 16 < 8 && !has_null(&row.0);
            let held = (time / 16, row.clone());
            let kept = due && right.get(&held).copied().unwrap_or(0) + diff >= 0;
            if *input == 1 && kept {
                add(&mut right, held, *diff);
            }
            *input == 0 || kept
        });
        for ((round, row), count) in right {
            let null = has_null(&row.0);
            script.changes.push(Change { input: 1, time: round * 16 + if null { 5 } else { 8 }, row, diff: -count });
        }
        script.changes.retain(|change| change.time < ticks);
        script.changes.sort_by_key(|change| change.time);
        script
    }
    fn not_in(held: &[Multiset<Pair>]) -> Multiset<Pair> {
        let has_null_key = held[1].keys().any(|(key, _)| has_null(key));
        let passes = |key: &Row| {
            held[1].is_empty()
                || !has_null_key && !has_null(key) && !held[1].iter().any(|((other, _), there)| *there > 0 && other == key)
        };
        held[0].iter().filter(|((key, _), _)| passes(key)).map(|(row, count)| (row.clone(), *count)).collect()
    }

    #[test]
    fn not_in_is_as_brute_force_says() {
        for seed in 0..18 {
            let script = not_in_script(seed, 200);
            let workers = [1, 2, 4][seed as usize % 3];
            check(
                workers,
                seed,
                &script,
                |inputs| {
                    let [left, right]: [_; 2] = inputs.try_into().ok().expect("two inputs");
                    null_aware_anti_join(arrange(left, "Left"), arrange(right, "Right"), "NotIn", pair_of)
                },
                not_in,
            );
        }
    }

    #[test]
    fn the_script_for_not_in_visits_all_cases() {
        let script = not_in_script(0, 200);
        let mut seen = std::collections::BTreeSet::new();
        let mut right = Multiset::new();
        let mut changes = script.changes.iter().filter(|change| change.input == 1).peekable();
        for time in 0..script.ticks {
            while let Some(change) = changes.next_if(|change| change.time == time) {
                add(&mut right, change.row.clone(), change.diff);
            }
            seen.insert((right.is_empty(), right.keys().any(|(key, _)| has_null(key))));
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
}
