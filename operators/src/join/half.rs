//! The half join: a stream of updates probes an arrangement, each match once, under the total order of times.
//!
//! *Definition.* An update `((k, v), t, d)` of the stream yields `(logic(k, v, r), t, d * c)` for every value `r` that the
//! arrangement holds `c` times under `k` as of `t` ([`When::UpTo`]) or just before it ([`When::Before`]). Where `outer` is
//! set and no `r` matches, it yields `(logic(k, v, None), t, d)`. `logic` returning None for a pair rejects it: it is no
//! match. Changes of the arrangement yield nothing.
//!
//! *State.* Updates of the stream that are ahead of the arrangement, and the shared arrangement.
//!
//! *On retraction.* A retraction probes as of its own time. It takes back what the insertion yielded only if the
//! arrangement has not changed in between; the sum of a delta join's paths accounts for that, a lookup join's user has to.
//!
//! *On ties, nulls, late rows.* A key with a NULL field matches nothing. Values are visited in byte order. Stream and
//! arrangement changes of one tick meet with `UpTo` and do not with `Before`.
//!
//! *Example.* `s` = (a, 1) at tick 5; arrangement = (a, x) since tick 3, (a, y) since tick 5. `UpTo`: (1, x), (1, y) at 5;
//! `Before`: (1, x) at 5.

use deltaworks_dataflow::arrange::{Batch, KeyedUpdate, collection};
use deltaworks_dataflow::cursor::{batches_of, never_cut};
use deltaworks_dataflow::row::hash_bytes;
use deltaworks_dataflow::{Arranged, Diff, KeyedCollection, Row, Time, Trace, TraceCursor};
use differential_dataflow::VecCollection;
use differential_dataflow::consolidation::consolidate;
use differential_dataflow::trace::TraceReader;
use std::collections::BTreeMap;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Antichain;
use timely::progress::frontier::MutableAntichain;

use super::{FUEL, can_match, since_of};

/// Which changes of the arrangement an update of the stream sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Those at earlier times.
    Before,
    /// Those at earlier times and at its own.
    UpTo,
}

/// How a half join probes.
#[derive(Clone, Copy, Debug)]
pub struct HalfJoin {
    /// Which changes of the arrangement are seen.
    pub when: When,
    /// Whether updates without a match are emitted.
    pub outer: bool,
    /// Whether NULL fields of the key match each other.
    pub null_equal: bool,
}

/// Probes the arrangement with each update of the stream; a NULL in the key matches nothing.
pub fn half_join<'s, D: Clone + 'static>(
    stream: KeyedCollection<'s>,
    arranged: Arranged<'s>,
    when: When,
    outer: bool,
    name: &str,
    logic: impl FnMut(&[u8], &[u8], Option<&[u8]>) -> Option<D> + 'static,
) -> VecCollection<'s, Time, D, Diff> {
    HalfJoin { when, outer, null_equal: false }.render(stream, arranged, name, logic)
}

impl HalfJoin {
    /// Probes the arrangement with each update of the stream.
    pub fn render<'s, D: Clone + 'static>(
        self,
        stream: KeyedCollection<'s>,
        mut arranged: Arranged<'s>,
        name: &str,
        mut logic: impl FnMut(&[u8], &[u8], Option<&[u8]>) -> Option<D> + 'static,
    ) -> VecCollection<'s, Time, D, Diff> {
        let scope = stream.inner.scope();
        let by_key = Exchange::new(|update: &KeyedUpdate| hash_bytes(&update.0.0));
        never_cut(&mut arranged.trace);
        let mut prober = Prober::new(self, arranged.trace);
        let output = stream.inner.binary_frontier(arranged.stream, by_key, Pipeline, name, move |_, info| {
            let activator = scope.activator_for(info.address);
            move |(updates, frontier), (batches, through), output| {
                updates.for_each(|capability, updates| prober.receive(&capability.retain(0), updates));
                // The batches are read from the trace; their arrival only tells that there is something to do.
                batches.for_each(|_, batches| batches.clear());
                let mut fuel = FUEL;
                while let Some(mut probe) = prober.next_probe(through) {
                    let mut session = output.session(&probe.capability);
                    let mut give = |row, diff| session.give((row, probe.time, diff));
                    let finished = probe.rows.run(self, &prober.batches(), probe.limit, &mut fuel, &mut logic, &mut give);
                    drop(session);
                    if !finished {
                        prober.current = Some(probe);
                        activator.activate();
                        break;
                    }
                }
                prober.compact(frontier);
            }
        });
        collection(output)
    }
}

/// A (key, value) row and its difference at one time.
type Summed = ((Row, Row), Diff);

/// Updates of one time, and how far they have been probed with.
struct Probe {
    time: Time,
    /// Updates of the arrangement at times less than this are seen.
    limit: Time,
    capability: Capability<Time>,
    rows: Rows,
}

/// What waits for the arrangement.
struct Prober {
    how: HalfJoin,
    trace: Option<Trace>,
    /// The arrangement's history before this time may have been merged: it counts as having happened at it.
    since: Time,
    waiting: BTreeMap<Time, (Capability<Time>, Vec<Summed>)>,
    current: Option<Probe>,
}

impl Prober {
    fn new(how: HalfJoin, mut trace: Trace) -> Self {
        let since = since_of(&mut trace);
        Prober { how, trace: Some(trace), since, waiting: BTreeMap::new(), current: None }
    }
    fn receive(&mut self, capability: &Capability<Time>, updates: &mut Vec<KeyedUpdate>) {
        for (row, time, diff) in updates.drain(..) {
            let time = time.max(self.since);
            let waiting = self.waiting.entry(time).or_insert_with(|| (capability.delayed(&time), Vec::new()));
            waiting.1.push((row, diff));
        }
    }
    /// The interrupted probe, else the earliest that the arrangement is complete for.
    fn next_probe(&mut self, through: &MutableAntichain<Time>) -> Option<Probe> {
        if let Some(probe) = self.current.take() {
            return Some(probe);
        }
        let entry = self.waiting.first_entry()?;
        let time = *entry.key();
        let (ready, limit) = match self.how.when {
            When::UpTo => (!through.less_equal(&time), time + 1),
            When::Before => (!through.less_than(&time), if time == self.since { 0 } else { time }),
        };
        if !ready {
            return None;
        }
        let (capability, mut rows) = entry.remove();
        consolidate(&mut rows);
        Some(Probe { time, limit, capability, rows: Rows { rows, next: 0, within: None } })
    }
    fn batches(&mut self) -> Vec<Batch> {
        self.trace.as_mut().map_or_else(Vec::new, batches_of)
    }
    /// Lets the arrangement forget what no later probe tells apart: sums as of the earliest one (or as of the time before
    /// it, for [`When::Before`]) stay exact.
    fn compact(&mut self, frontier: &MutableAntichain<Time>) {
        let received = frontier.frontier().iter().copied().min();
        let held = self.current.as_ref().map(|probe| probe.time);
        let waiting = self.waiting.keys().next().copied();
        match (received.into_iter().chain(held).chain(waiting).min(), self.trace.as_mut()) {
            (Some(earliest), Some(trace)) => {
                let read = if self.how.when == When::Before { earliest.saturating_sub(1) } else { earliest };
                trace.set_logical_compaction(Antichain::from_elem(read.max(self.since)).borrow());
            }
            _ => self.trace = None,
        }
    }
}

/// Consolidated updates, ascending, and the next one to probe with.
struct Rows {
    rows: Vec<Summed>,
    next: usize,
    /// Set where fuel ran out within a row: the next value to look at, and whether one before it matched.
    within: Option<(Row, bool)>,
}

impl Rows {
    /// Probes with row after row; false where fuel ran out before the last.
    fn run<D>(
        &mut self,
        how: HalfJoin,
        batches: &[Batch],
        limit: Time,
        fuel: &mut usize,
        logic: &mut impl FnMut(&[u8], &[u8], Option<&[u8]>) -> Option<D>,
        give: &mut impl FnMut(D, Diff),
    ) -> bool {
        let mut cursor = TraceCursor::new(batches);
        let mut at: Option<(usize, bool)> = None;
        while let Some(((key, value), diff)) = self.rows.get(self.next) {
            let found = match at {
                // The previous row's key again: the cursor stands on it.
                Some((row, found)) if self.rows[row].0.0 == *key => {
                    cursor.rewind_values();
                    found
                }
                _ => can_match(key, how.null_equal) && cursor.seek_key(key),
            };
            at = Some((self.next, found));
            let mut matched = false;
            if let Some((position, before)) = self.within.take() {
                cursor.seek_value(&position);
                matched = before;
            }
            while let Some(candidate) = cursor.value().filter(|_| found) {
                if *fuel == 0 {
                    self.within = Some((Row::from_bytes(candidate), matched));
                    return false;
                }
                *fuel -= 1;
                let count = cursor.count_before(limit);
                if count != 0
                    && let Some(row) = logic(key, value, Some(candidate))
                {
                    give(row, diff * count);
                    matched |= count > 0;
                }
            }
            if how.outer
                && !matched
                && let Some(row) = logic(key, value, None)
            {
                give(row, *diff);
            }
            self.next += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Multiset, Pair, Script, Update, add, run, small_script};
    use deltaworks_dataflow::arrange::arrange;

    type Output = (Row, Row, Option<Row>);

    /// The output's updates, summed, by the definition.
    fn reference(script: &Script, how: HalfJoin) -> Multiset<(Time, Output)> {
        let mut expected = Multiset::new();
        for update in script.changes.iter().filter(|change| change.input == 0) {
            let (key, value) = &update.row;
            let mut right: Multiset<Pair> = Multiset::new();
            for change in script.changes.iter().filter(|change| change.input == 1) {
                let seen = change.time < update.time || (how.when == When::UpTo && change.time == update.time);
                if seen && change.row.0 == *key && can_match(key, how.null_equal) {
                    add(&mut right, change.row.clone(), change.diff);
                }
            }
            right.retain(|(_, candidate), _| !rejected(value, candidate));
            for ((_, candidate), count) in &right {
                let output = (key.clone(), value.clone(), Some(candidate.clone()));
                add(&mut expected, (update.time, output), update.diff * count);
            }
            if how.outer && !right.values().any(|count| *count > 0) {
                add(&mut expected, (update.time, (key.clone(), value.clone(), None)), update.diff);
            }
        }
        expected
    }
    fn rejected(left: &[u8], right: &[u8]) -> bool {
        (left[left.len() - 1] + right[right.len() - 1]).is_multiple_of(3)
    }

    #[test]
    fn each_update_meets_what_it_should() {
        let mut seed = 0;
        for workers in [1, 2, 4] {
            for (outer, null_equal) in [(false, false), (true, false), (true, true)] {
                for when in [When::Before, When::UpTo] {
                    seed += 1;
                    let how = HalfJoin { when, outer, null_equal };
                    let script = small_script(seed, 200, 2);
                    let updates: Vec<Update<Output>> = run(workers, seed, &script, move |inputs| {
                        let [stream, right]: [_; 2] = inputs.try_into().ok().expect("two inputs");
                        how.render(stream, arrange(right, "Right"), "Half", |key, value, right| {
                            let row = (Row::from_bytes(key), Row::from_bytes(value), right.map(Row::from_bytes));
                            right.is_none_or(|right| !rejected(value, right)).then_some(row)
                        })
                    });
                    let mut output = Multiset::new();
                    updates.into_iter().for_each(|(row, time, diff)| add(&mut output, (time, row), diff));
                    assert_eq!(output, reference(&script, how), "{workers} workers, seed {seed}, {how:?}");
                }
            }
        }
    }
}
