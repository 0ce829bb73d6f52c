//! `components`: connected components of a million links: loading them, one link more, one link less.

use clap::Parser;
use deltaworks_benches::Result;
use deltaworks_benches::latency::Latencies;
use deltaworks_benches::random::Random;
use deltaworks_benches::single::{Ticks, resident_bytes};
use deltaworks_dataflow::{Datum, Row, Time};
use deltaworks_operators::components::{Link, components};
use differential_dataflow::AsCollection;
use mimalloc::MiMalloc;
use std::time::Duration;
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::{Probe, vec::Input};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures connected components.
#[derive(Parser)]
struct Arguments {
    /// Links to load.
    #[arg(long, default_value_t = 1_000_000)]
    links: usize,
    /// Links per tick.
    #[arg(long, default_value_t = 10_000)]
    tick: usize,
    /// Single changes.
    #[arg(long, default_value_t = 1000)]
    changes: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (count, tick, changes) = (arguments.links, arguments.tick, arguments.changes);
    let mut random = Random::new(42);
    let people: Vec<(u64, u64)> = (0..count as u64).map(|link| person_link(&mut random, link)).collect();
    with_components(move |ticks| load_and_add("people", people, tick, changes, ticks));
    // As many links as members, so that one component has most of them.
    let mesh: Vec<(u64, u64)> = (0..count).map(|_| (random.below(count as u64), random.below(count as u64))).collect();
    with_components(move |ticks| load_and_add("random", mesh, tick, changes, ticks));
    for members in [10, 1000, 100_000] {
        with_components(move |ticks| remove("tree and 25 % more links", members, tree(members), changes, ticks));
        with_components(move |ticks| remove("tree", members, tree(members).split_off(members as usize / 4), changes, ticks));
        let ring: Vec<(u64, u64)> = (0..members).map(|id| (id, (id + 1) % members)).collect();
        with_components(move |ticks| remove("ring", members, ring, changes, ticks));
    }
    Ok(())
}

/// One of the three links of a person's four ids; now and then two people share the last, a device.
fn person_link(random: &mut Random, link: u64) -> (u64, u64) {
    let person = link / 3;
    let end = 4 * person + link % 3;
    let shared = link % 3 == 2 && random.chance(0.05);
    (end, if shared { 4 * random.below(person + 1) + 3 } else { end + 1 })
}
/// A quarter more links than the tree needs, those first, then the tree: every member hangs on an earlier one.
fn tree(members: u64) -> Vec<(u64, u64)> {
    let mut random = Random::new(members);
    let more = (0..members / 4).map(|_| (random.below(members), random.below(members))).collect::<Vec<_>>();
    more.into_iter().chain((1..members).map(|id| (id, random.below(id)))).collect()
}
fn link((a, b): (u64, u64), seen: i64) -> Link {
    let id = |number: u64| Row::pack([Datum::str(format!("id{number:09}"))]);
    (id(a), id(b), Row::pack([Datum::Int(seen)]))
}

fn with_components(drive: impl FnOnce(Ticks<'_, Link>) + Send + Sync + 'static) {
    timely::execute_directly(move |worker| {
        let probe = ProbeHandle::new();
        let input = worker.dataflow::<Time, _, _>(|scope| {
            let (input, stream) = scope.new_input();
            let made = components(stream.as_collection(), "Components");
            made.one_ids.inner.probe_with(&probe);
            made.history.inner.probe_with(&probe);
            input
        });
        drive(Ticks::new(worker, input, probe));
    });
}

fn load_and_add(name: &str, links: Vec<(u64, u64)>, tick: usize, changes: usize, mut ticks: Ticks<'_, Link>) {
    let before = resident_bytes();
    let mut seen = 0;
    let mut timed = |ticks: &mut Ticks<'_, Link>, links: &[(u64, u64)]| {
        let rows = links.iter().map(|pair| {
            seen += 1;
            (link(*pair, seen), 1)
        });
        ticks.tick(rows.collect::<Vec<_>>())
    };
    let spent: Duration = links.chunks(tick).map(|links| timed(&mut ticks, links)).sum();
    let bytes = resident_bytes().saturating_sub(before) as f64 / links.len() as f64;
    let (count, wall, cpu) = (links.len() as f64, spent.as_secs_f64(), ticks.cpu.as_secs_f64());
    println!(
        "load {name}: links={count} s={wall:.3} links/s={:.0} cpu_s={cpu:.3} links/cpu_s={:.0} bytes/link={bytes:.0}",
        count / wall,
        count / cpu
    );
    let (mut random, mut added) = (Random::new(7), Latencies::default());
    for _ in 0..changes {
        let mut end = || links[random.below(links.len() as u64) as usize].0;
        let pair = (end(), end());
        added.push(timed(&mut ticks, &[pair]));
    }
    println!("one link added, {name}: {added}");
}

/// Takes random links out of one component, each put back before the next.
fn remove(shape: &str, members: u64, links: Vec<(u64, u64)>, changes: usize, mut ticks: Ticks<'_, Link>) {
    let row = |index: usize, diff| (link(links[index], index as i64), diff);
    ticks.tick((0..links.len()).map(|index| row(index, 1)));
    let (mut random, mut removed, mut added) = (Random::new(7), Latencies::default(), Latencies::default());
    for _ in 0..changes {
        let index = random.below(links.len() as u64) as usize;
        removed.push(ticks.tick([row(index, -1)]));
        added.push(ticks.tick([row(index, 1)]));
    }
    println!("one link removed, members={members} {shape}: {removed}");
    println!("put back, members={members} {shape}: {added}");
}
