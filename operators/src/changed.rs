//! The keys that the batches of an arrangement change, and when: the driver of operators that read groups in place.
//!
//! Such an operator reads a changed group in the trace as of just before each change and as of it, and emits the difference.
//! It keeps nothing but the trace, compacted as far as the newest complete time.
//!
//! A trace that was imported into the dataflow may already have been compacted: its history before that is not what it was.
//! All of it counts as one change, at the time `floor` up to which the trace was compacted.

use std::ops::ControlFlow;

use differential_dataflow::trace::TraceReader;
use timely::dataflow::operators::{Capability, InputCapability};
use timely::progress::Antichain;
use timely::progress::frontier::MutableAntichain;

use deltaworks_dataflow::arrange::Batch;
use deltaworks_dataflow::cursor::{batches_of, never_cut};
use deltaworks_dataflow::{Time, Trace, TraceCursor};

/// Collects an arrangement's new batches, next to its trace.
pub(crate) struct Changed {
    trace: Trace,
    floor: Time,
    received: Vec<Batch>,
    capability: Option<Capability<Time>>,
}

/// A changed key: where the trace is read, and the distinct times at which the key changes, in order.
pub(crate) struct ChangedKey<'a, 'b> {
    pub(crate) key: &'a [u8],
    pub(crate) cursor: &'b mut TraceCursor<'a>,
    pub(crate) times: &'b [Time],
    /// The time before the first; None where there is nothing before it.
    pub(crate) before: Option<Time>,
}

impl Changed {
    pub(crate) fn new(mut trace: Trace) -> Self {
        never_cut(&mut trace);
        let floor = trace.get_logical_compaction().first().copied().unwrap_or(0);
        Changed { trace, floor, received: Vec::new(), capability: None }
    }
    pub(crate) fn receive(&mut self, capability: InputCapability<Time>, batches: &mut Vec<Batch>) {
        self.capability.get_or_insert_with(|| capability.retain(0));
        self.received.append(batches);
    }
    /// Calls `each` for every changed key in order, if there are new batches, and lets the trace compact.
    pub(crate) fn process(
        &mut self,
        frontier: &MutableAntichain<Time>,
        each: impl FnMut(&Capability<Time>, ChangedKey<'_, '_>),
    ) {
        // Until the history is complete it must not be read: what arrives in parts would be emitted in parts.
        if frontier.less_equal(&self.floor) {
            return;
        }
        if let Some(capability) = self.capability.take() {
            let received = std::mem::take(&mut self.received);
            let all = batches_of(&mut self.trace);
            for_each_key(&received, &all, self.floor, &capability, each);
        }
        let since: Antichain<Time> = frontier.frontier().iter().map(|time| time.saturating_sub(1)).collect();
        self.trace.set_logical_compaction(since.borrow());
    }
}

fn for_each_key(
    received: &[Batch],
    all: &[Batch],
    floor: Time,
    capability: &Capability<Time>,
    mut each: impl FnMut(&Capability<Time>, ChangedKey<'_, '_>),
) {
    let (mut changes, mut cursor) = (TraceCursor::new(received), TraceCursor::new(all));
    let mut times: Vec<Time> = Vec::new();
    while let Some(key) = changes.next_key() {
        times.clear();
        while changes.value().is_some() {
            changes.take_value(|time, _| {
                let time = time.max(floor);
                if times.last() != Some(&time) {
                    times.push(time);
                }
            });
        }
        times.sort_unstable();
        times.dedup();
        cursor.seek_key(key);
        let before = times.first().filter(|first| **first > floor).map(|first| first - 1);
        each(capability, ChangedKey { key, cursor: &mut cursor, times: &times, before });
    }
}

/// Walks the values of the cursor's key that are there as of `time`, in order, with how often they are.
pub(crate) fn values_as_of<'a>(
    cursor: &mut TraceCursor<'a>,
    time: Time,
    mut each: impl FnMut(&'a [u8], i64) -> ControlFlow<()>,
) {
    cursor.rewind_values();
    while let Some(value) = cursor.value() {
        let count = cursor.count_as_of(time);
        if count > 0 && each(value, count).is_break() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Multiset, Random, add, ints};
    use crate::top_k::{TopK, top_k};
    use deltaworks_dataflow::arrange::{KeyedUpdate, arrange};
    use deltaworks_dataflow::{Diff, Row};
    use differential_dataflow::AsCollection;
    use std::sync::{Arc, Mutex};
    use timely::dataflow::ProbeHandle;
    use timely::dataflow::operators::{Inspect, Probe, vec::Input};

    /// The heads of an arrangement whose history is compacted up to tick 30, in a dataflow that is added then: its updates,
    /// and what the heads are in the end.
    fn heads_of_an_imported_trace(seed: u64) -> (Vec<(Row, Time, Diff)>, Multiset<Row>) {
        let updates: Arc<Mutex<Vec<(Row, Time, Diff)>>> = Arc::default();
        let sink = updates.clone();
        let expected = timely::execute_directly(move |worker| {
            let probe = ProbeHandle::new();
            let (mut input, mut trace) = worker.dataflow::<Time, _, _>(|scope| {
                let (handle, stream) = scope.new_input::<KeyedUpdate>();
                let arranged = arrange(stream.as_collection(), "Values");
                arranged.stream.probe_with(&probe);
                (handle, arranged.trace)
            });
            let mut random = Random::new(seed);
            let mut held: Multiset<(Row, Row)> = Multiset::new();
            for tick in 0..40 {
                for _ in 0..4 {
                    let row = (ints(&[Some(random.below(6) as i64)]), ints(&[Some(random.below(5) as i64)]));
                    let diff = if held.contains_key(&row) { -1 } else { 1 };
                    add(&mut held, row.clone(), diff);
                    input.send((row, tick, diff));
                }
                input.advance_to(tick + 1);
                worker.step_while(|| probe.less_than(&(tick + 1)));
                if tick < 30 && random.once_in(3) {
                    let since = Antichain::from_elem(tick);
                    trace.set_logical_compaction(since.borrow());
                    trace.set_physical_compaction(since.borrow());
                }
                if tick == 30 {
                    trace.set_logical_compaction(Antichain::from_elem(30).borrow());
                    let (sink, probe) = (sink.clone(), probe.clone());
                    worker.dataflow::<Time, _, _>(|scope| {
                        let heads = top_k(trace.import(scope), TopK::first(), "Heads", |key, value, _| {
                            Some(Row::from_bytes(&[key, value].concat()))
                        });
                        let heads = heads.inner.inspect(move |update| sink.lock().unwrap().push(update.clone()));
                        heads.probe_with(&probe);
                    });
                }
            }
            let mut heads: Multiset<Row> = Multiset::new();
            for of_key in held.keys().collect::<Vec<_>>().chunk_by(|a, b| a.0 == b.0) {
                add(&mut heads, Row::from_bytes(&[&of_key[0].0[..], &of_key[0].1[..]].concat()), 1);
            }
            heads
        });
        let updates = updates.lock().unwrap().clone();
        (updates, expected)
    }

    #[test]
    fn history_before_the_compaction_is_one_change() {
        for seed in 0..20 {
            let (updates, expected) = heads_of_an_imported_trace(seed);
            let mut heads = Multiset::new();
            for (row, time, diff) in updates {
                assert!(time >= 30, "seed {seed}");
                add(&mut heads, row, diff);
            }
            assert_eq!(heads, expected, "seed {seed}");
        }
    }
}
