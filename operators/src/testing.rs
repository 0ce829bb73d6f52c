//! The driver of operator tests: random scripts of changes, cut into ticks, against a naive reference at every tick.
//!
//! A [`Script`] is replayed by any number of workers, each sending its share. Several ticks are sent at once, and the
//! inputs are advanced one after the other, sometimes with the worker running in between, so that operators see batches
//! of several times and inputs that are ahead of each other. The output is compared with the reference, which is given
//! the whole contents of the inputs as of each tick.

use deltaworks_dataflow::{Collection, DataType, Datum, Diff, KeyedCollection, Row, Time};
use differential_dataflow::{AsCollection, VecCollection};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::{Broadcast, Input};
use timely::dataflow::operators::{Inspect, Probe};

/// A (key, value) row.
pub(crate) type Pair = (Row, Row);
/// Rows with their counts, none of them zero.
pub(crate) type Multiset<D> = BTreeMap<D, Diff>;
/// An update of the output.
pub(crate) type Update<D> = (D, Time, Diff);

/// Pseudo-random numbers: the same for the same seed.
#[derive(Clone)]
pub(crate) struct Random(u64);
impl Random {
    /// Starts the sequence of the seed.
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    /// A number less than `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// One change of an input.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The number of the input.
    pub(crate) input: usize,
    /// The key and value.
    pub(crate) row: Pair,
    /// The tick.
    pub(crate) time: Time,
    /// The difference.
    pub(crate) diff: Diff,
}

/// Changes of some inputs over some ticks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// The number of inputs.
    pub(crate) inputs: usize,
    /// The ticks: all times are less.
    pub(crate) ticks: Time,
    /// The changes, ascending by time.
    pub(crate) changes: Vec<Change>,
}

/// How a random script is made.
pub(crate) struct Shape<'a> {
    /// The number of inputs.
    pub(crate) inputs: usize,
    /// The number of ticks.
    pub(crate) ticks: Time,
    /// A random row of an input at a tick.
    pub(crate) row: &'a dyn Fn(&mut Random, usize, Time) -> Pair,
    /// Whether a row has expired at a tick: such rows are retracted, not all at once.
    pub(crate) expired: &'a dyn Fn(&Pair, Time) -> bool,
    /// Whether rows that are not there are retracted now and then.
    pub(crate) negative: bool,
}

impl Script {
    /// A random script: mostly insertions, often deletions of what is there, counts above one, sometimes mass deletion.
    pub(crate) fn random(seed: u64, shape: &Shape<'_>) -> Script {
        let mut random = Random::new(seed);
        let mut script = Script { inputs: shape.inputs, ticks: shape.ticks, changes: Vec::new() };
        let mut held: Vec<Multiset<Pair>> = vec![Multiset::new(); shape.inputs];
        for time in 0..shape.ticks {
            let size = match random.below(6) {
                0 => 0,
                5 => 25,
                other => 2 * other,
            };
            for _ in 0..size {
                let input = random.below(shape.inputs as u64) as usize;
                let row = (shape.row)(&mut random, input, time);
                let there = held[input].get(&row).copied().unwrap_or(0);
                let diff = match random.below(10) {
                    0..5 => 1,
                    5..9 => -there.signum(),
                    _ if shape.negative => random.below(3) as Diff - 1,
                    _ => 2,
                };
                script.push(&mut held, input, row, time, diff);
            }
            for input in 0..shape.inputs {
                let mass = random.once_in(40);
                let leaving: Vec<(Pair, Diff)> = held[input]
                    .iter()
                    .filter(
                        |(row, _)| {
                            if (shape.expired)(row, time) { random.once_in(4) } else { mass && random.once_in(2) }
                        },
                    )
                    .map(|(row, count)| (row.clone(), *count))
                    .collect();
                leaving.into_iter().for_each(|(row, count)| script.push(&mut held, input, row, time, -count));
            }
        }
        script
    }
    fn push(&mut self, held: &mut [Multiset<Pair>], input: usize, row: Pair, time: Time, diff: Diff) {
        if diff != 0 {
            add(&mut held[input], row.clone(), diff);
            self.changes.push(Change { input, row, time, diff });
        }
    }
}

/// Adds to a multiset.
pub(crate) fn add<D: Ord>(multiset: &mut Multiset<D>, row: D, diff: Diff) {
    let entry = multiset.entry(row);
    match entry {
        std::collections::btree_map::Entry::Vacant(vacant) if diff != 0 => {
            vacant.insert(diff);
        }
        std::collections::btree_map::Entry::Occupied(mut occupied) => {
            *occupied.get_mut() += diff;
            if *occupied.get() == 0 {
                occupied.remove();
            }
        }
        _ => {}
    }
}

/// The fields of a row of integers.
pub(crate) fn fields(row: &[u8]) -> Vec<Option<i64>> {
    let (mut rest, mut fields) = (row, Vec::new());
    while !rest.is_empty() {
        fields.push(match Datum::decode(&mut rest, &DataType::BigInt) {
            Datum::Int(value) => Some(value),
            _ => None,
        });
    }
    fields
}
/// A row of integers; None is NULL.
pub(crate) fn ints(fields: &[Option<i64>]) -> Row {
    Row::pack(fields.iter().map(|field| field.map_or(Datum::Null, Datum::Int)))
}
/// The rows of a keyed collection, key and value appended.
pub(crate) fn flat<'s>(collection: KeyedCollection<'s>) -> Collection<'s> {
    collection.map(|(key, value)| joined(&[&key, &value]))
}
/// The row of several rows.
pub(crate) fn joined(rows: &[&[u8]]) -> Row {
    Row::from_bytes(&rows.concat())
}

/// Tells the other workers that one has panicked: they would wait for it for ever.
struct Alarm(Arc<AtomicBool>);
impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Replays the script on `workers` workers and returns the output's updates. `seed` decides how many ticks are sent at
/// once and in which order the inputs advance.
pub(crate) fn run<D: Clone + Send + Debug + 'static>(
    workers: usize,
    seed: u64,
    script: &Script,
    build: impl for<'s> Fn(Vec<KeyedCollection<'s>>) -> VecCollection<'s, Time, D, Diff> + Send + Sync + 'static,
) -> Vec<Update<D>> {
    let output: Arc<Mutex<Vec<Update<D>>>> = Arc::default();
    let (sink, script) = (output.clone(), Arc::new(script.clone()));
    let failed: Arc<AtomicBool> = Arc::default();
    let config = if workers == 1 { timely::Config::thread() } else { timely::Config::process(workers) };
    let guards = timely::execute(config, move |worker| {
        let probe = timely::dataflow::ProbeHandle::new();
        let (sink, alarm) = (sink.clone(), Alarm(failed.clone()));
        let mut inputs = worker.dataflow::<Time, _, _>(|scope| {
            let (handles, streams): (Vec<_>, Vec<_>) =
                (0..script.inputs).map(|_| scope.new_input::<(Pair, Time, Diff)>()).unzip();
            let collections = streams.into_iter().map(|stream| stream.as_collection()).collect();
            build(collections)
                .inner
                .inspect(move |update| {
                    sink.lock().expect("no test thread panics while it holds the lock").push(update.clone())
                })
                .probe_with(&probe);
            handles
        });
        let mut random = Random::new(seed);
        let (me, peers) = (worker.index(), worker.peers());
        let mut changes = script.changes.iter().enumerate().peekable();
        let mut time = 0;
        while time < script.ticks {
            // Mostly tick by tick, sometimes several ticks at once.
            let group = if random.once_in(3) { 1 + random.below(4) } else { 1 };
            time = (time + group).min(script.ticks);
            while let Some((index, change)) = changes.next_if(|(_, change)| change.time < time) {
                if index % peers == me {
                    inputs[change.input].send((change.row.clone(), change.time, change.diff));
                }
            }
            let first = random.below(script.inputs as u64) as usize;
            for offset in 0..script.inputs {
                let input = (first + offset) % script.inputs;
                inputs[input].advance_to(time);
                inputs[input].flush();
                let steps = if random.once_in(2) { random.below(4) } else { 0 };
                (0..steps).for_each(|_| {
                    worker.step();
                });
            }
            if random.once_in(4) && time < script.ticks {
                continue; // the next group is sent before this one is worked off
            }
            while probe.less_than(&time) {
                assert!(!alarm.0.load(Ordering::Relaxed), "another worker panicked");
                // Spinning workers would take the cores from the ones that they wait for.
                worker.step_or_park(Some(Duration::from_millis(1)));
            }
        }
    });
    for result in guards.expect("the workers start").join() {
        result.expect("no worker panics");
    }
    std::mem::take(&mut *output.lock().expect("no worker panics"))
}

/// Replays the script and compares the accumulated output with the reference at every tick.
///
/// # Panics
/// Where they differ, naming seed and tick.
pub(crate) fn check<D: Ord + Clone + Send + Debug + 'static>(
    workers: usize,
    seed: u64,
    script: &Script,
    build: impl for<'s> Fn(Vec<KeyedCollection<'s>>) -> VecCollection<'s, Time, D, Diff> + Send + Sync + 'static,
    reference: impl Fn(&[Multiset<Pair>]) -> Multiset<D>,
) {
    let mut by_time: BTreeMap<Time, Vec<(D, Diff)>> = BTreeMap::new();
    for (row, time, diff) in run(workers, seed, script, build) {
        by_time.entry(time).or_default().push((row, diff));
    }
    let mut held: Vec<Multiset<Pair>> = vec![Multiset::new(); script.inputs];
    let mut view: Multiset<D> = Multiset::new();
    let mut changes = script.changes.iter().peekable();
    for time in 0..script.ticks {
        while let Some(change) = changes.next_if(|change| change.time == time) {
            add(&mut held[change.input], change.row.clone(), change.diff);
        }
        for (row, diff) in by_time.remove(&time).unwrap_or_default() {
            add(&mut view, row, diff);
        }
        let expected = reference(&held);
        if view != expected {
            let difference = |a: &Multiset<D>, b: &Multiset<D>| -> Vec<(D, Diff)> {
                a.iter().filter(|(row, count)| b.get(row) != Some(count)).map(|(r, c)| (r.clone(), *c)).collect()
            };
            panic!(
                "{workers} workers, seed {seed}, tick {time}: output has {:?}, reference has {:?}",
                difference(&view, &expected),
                difference(&expected, &view)
            );
        }
    }
    assert!(by_time.is_empty(), "{workers} workers, seed {seed}: output at times after the last tick");
}

/// A script of few keys of two fields, some of them NULL, and few values.
pub(crate) fn small_script(seed: u64, ticks: Time, inputs: usize) -> Script {
    let row = |random: &mut Random, _: usize, _: Time| {
        let mut field = |limit| {
            let number = random.below(limit) as i64;
            (number > 0).then_some(number)
        };
        (ints(&[field(3), field(5)]), ints(&[Some(random.below(4) as i64)]))
    };
    Script::random(seed, &Shape { inputs, ticks, row: &row, expired: &|_, _| false, negative: true })
}

/// The numbers that an input's keys are, as a clock that every worker receives.
pub(crate) fn instants<'s>(input: KeyedCollection<'s>) -> StreamVec<'s, Time, i64> {
    let values = input.inner.unary(Pipeline, "Clock", |_, _| {
        |input, output| {
            input.for_each(|capability, updates| {
                for ((value, _), time, _) in updates.drain(..) {
                    output.session(&capability.delayed(&time, 0)).give(fields(&value)[0].unwrap());
                }
            });
        }
    });
    values.broadcast()
}
