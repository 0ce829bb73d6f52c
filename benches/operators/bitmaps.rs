//! `bitmaps`: sets of ten million ids of 1 .. 20,000,000: loading them, their size, a member that enters, and stored values.

use clap::Parser;
use deltaworks_benches::Result;
use deltaworks_benches::latency::Latencies;
use deltaworks_benches::random::Random;
use deltaworks_benches::single::{Ticks, resident_bytes};
use deltaworks_dataflow::bitmap::{SetOperation, canonical_bytes, cardinality, combine, combined_cardinality};
use deltaworks_dataflow::{Datum, KeyedCollection, Row, Time};
use deltaworks_operators::bitmap::{SetResult, assemble, combine_chunks, group_bitmap, group_bitmap_chunks};
use differential_dataflow::AsCollection;
use mimalloc::MiMalloc;
use roaring::RoaringTreemap;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::{Probe, vec::Input};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures sets of many ids.
#[derive(Parser)]
struct Arguments {
    /// Ids per set.
    #[arg(long, default_value_t = 10_000_000)]
    ids: usize,
    /// Ids are from 1 to this.
    #[arg(long, default_value_t = 20_000_000)]
    range: u32,
    /// Ids per tick.
    #[arg(long, default_value_t = 100_000)]
    tick: usize,
    /// Single changes, and repetitions of an operation.
    #[arg(long, default_value_t = 1000)]
    changes: usize,
}

/// An input row: whether it is of the second set, the group, the id.
type Id = (bool, (Row, Row));

const OPERATIONS: [SetOperation; 4] = [SetOperation::And, SetOperation::Or, SetOperation::Xor, SetOperation::AndNot];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut random = Random::new(42);
    let (first, second) = (pick(&arguments, &mut random), pick(&arguments, &mut random));
    let cardinalities = |ids: KeyedCollection<'_>, _: KeyedCollection<'_>, probe: &ProbeHandle<Time>| {
        let sets = group_bitmap(ids, SetResult::Cardinality, Rc::default(), "GroupBitmap");
        sets.inner.probe_with(probe);
    };
    load(&arguments, "cardinality", &first, cardinalities);
    let chunks = |ids: KeyedCollection<'_>, _: KeyedCollection<'_>, probe: &ProbeHandle<Time>| {
        group_bitmap_chunks(ids, Rc::default(), "GroupBitmap").inner.probe_with(probe);
    };
    load(&arguments, "chunks", &first, chunks);
    enter(&arguments, &first, &second);
    stored(&arguments, &first, &second);
    Ok(())
}

/// Different ids in random order.
fn pick(arguments: &Arguments, random: &mut Random) -> Vec<u32> {
    let mut ids: Vec<u32> = (1..=arguments.range).collect();
    let count = arguments.ids.min(ids.len());
    for at in 0..count {
        let other = at + random.below((ids.len() - at) as u64) as usize;
        ids.swap(at, other);
    }
    ids.truncate(count);
    ids.shrink_to_fit();
    ids
}
fn row(id: u32, second: bool) -> Id {
    (second, (Row::default(), Row::pack([Datum::Int(id.into())])))
}

fn stored(arguments: &Arguments, first: &[u32], second: &[u32]) {
    let bytes = |ids: &[u32]| canonical_bytes(&ids.iter().map(|id| u64::from(*id)).collect::<RoaringTreemap>());
    let (a, b) = (bytes(first), bytes(second));
    println!("stored: bytes={} bytes/id={:.3}", a.len(), a.len() as f64 / first.len() as f64);
    let repeat = |name: String, operation: &dyn Fn()| {
        let mut latencies = Latencies::default();
        for _ in 0..arguments.changes.min(100) {
            let start = Instant::now();
            operation();
            latencies.push(start.elapsed());
        }
        println!("stored: {name} {latencies}");
    };
    repeat("count".to_string(), &|| {
        black_box(cardinality(black_box(&a)));
    });
    for operation in OPERATIONS {
        repeat(format!("{operation:?}"), &|| {
            black_box(combine(operation, black_box(&a), &b));
        });
        repeat(format!("{operation:?} count"), &|| {
            black_box(combined_cardinality(operation, black_box(&a), &b));
        });
    }
}

fn with_dataflow(
    build: impl Fn(KeyedCollection<'_>, KeyedCollection<'_>, &ProbeHandle<Time>) + Send + Sync + 'static,
    drive: impl FnOnce(Ticks<'_, Id>) + Send + Sync + 'static,
) {
    timely::execute_directly(move |worker| {
        let probe = ProbeHandle::new();
        let input = worker.dataflow::<Time, _, _>(|scope| {
            let (input, stream) = scope.new_input();
            let ids = stream.as_collection();
            let of = |second: bool| ids.clone().filter(move |(of_second, _): &Id| *of_second == second).map(|(_, row)| row);
            build(of(false), of(true), &probe);
            input
        });
        drive(Ticks::new(worker, input, probe));
    });
}

/// Loads one set: ids per second from the input of the dataflow on, and bytes of resident memory per id.
fn load(
    arguments: &Arguments,
    name: &'static str,
    ids: &[u32],
    build: impl Fn(KeyedCollection<'_>, KeyedCollection<'_>, &ProbeHandle<Time>) + Send + Sync + 'static,
) {
    let (ids, tick) = (ids.to_vec(), arguments.tick);
    with_dataflow(build, move |mut ticks| {
        let before = resident_bytes();
        let spent: Duration = ids.chunks(tick).map(|ids| ticks.tick(ids.iter().map(|id| (row(*id, false), 1)))).sum();
        let bytes = resident_bytes().saturating_sub(before);
        let (count, wall, cpu) = (ids.len() as f64, spent.as_secs_f64(), ticks.cpu.as_secs_f64());
        println!(
            "load to {name}: ids={count} s={wall:.3} ids/s={:.0} cpu_s={cpu:.3} ids/cpu_s={:.0} resident_bytes/id={:.2}",
            count / wall,
            count / cpu,
            bytes as f64 / count
        );
    });
}

/// One member enters the first of two sets, or leaves it: the cardinality of the set and of what is made of both.
fn enter(arguments: &Arguments, first: &[u32], second: &[u32]) {
    let build = |left: KeyedCollection<'_>, right: KeyedCollection<'_>, probe: &ProbeHandle<Time>| {
        let left = group_bitmap_chunks(left, Rc::default(), "Left");
        let right = group_bitmap_chunks(right, Rc::default(), "Right");
        assemble(left.clone(), SetResult::Cardinality, "Count").inner.probe_with(probe);
        for operation in [SetOperation::And, SetOperation::Or, SetOperation::AndNot] {
            let combined = combine_chunks(left.clone(), right.clone(), operation, "Combine");
            assemble(combined, SetResult::Cardinality, "Count").inner.probe_with(probe);
        }
    };
    let (first, second, range, changes) = (first.to_vec(), second.to_vec(), arguments.range, arguments.changes);
    with_dataflow(build, move |mut ticks| {
        for (ids, is_second) in [(&first, false), (&second, true)] {
            ids.chunks(1_000_000).for_each(|ids| {
                ticks.tick(ids.iter().map(|id| (row(*id, is_second), 1)));
            });
        }
        let mut random = Random::new(7);
        let (mut entering, mut leaving) = (Latencies::default(), Latencies::default());
        for _ in 0..changes {
            // An id that is there already would be there twice, and change nothing.
            let id = loop {
                let id = 1 + random.below(u64::from(range)) as u32;
                if !first.contains(&id) {
                    break id;
                }
            };
            entering.push(ticks.tick([(row(id, false), 1)]));
            leaving.push(ticks.tick([(row(id, false), -1)]));
        }
        println!("one member enters: {entering}");
        println!("one member leaves: {leaving}");
    });
}
