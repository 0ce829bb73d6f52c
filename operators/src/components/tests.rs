//! Components against a union-find over all links, at every tick.

use super::graph::Graph;
use super::*;
use crate::testing::{Multiset, Pair, Random, Script, Shape, add, check, ints, joined, run};
use deltaworks_dataflow::row::{field_len, is_null_field};
use std::collections::{BTreeMap, BTreeSet};

fn workers(seed: u64) -> usize {
    [1, 1, 2, 4][seed as usize % 4]
}
/// Links of `members` ids: the key holds the two ends, the value when it was seen; all of them NULL at times.
fn script(seed: u64, members: u64, ticks: Time, negative: bool) -> Script {
    let row = |random: &mut Random, _: usize, _: Time| {
        let mut id = || if random.once_in(12) { None } else { Some(random.below(members) as i64 - 3) };
        let ends = [id(), id()];
        let seen = if random.once_in(6) { None } else { Some(random.below(4) as i64) };
        (ints(&ends), ints(&[seen]))
    };
    Script::random(seed, &Shape { inputs: 1, ticks, row: &row, expired: &|_, _| false, negative })
}
fn links(rows: KeyedCollection<'_>) -> VecCollection<'_, Time, Link, Diff> {
    rows.map(|(ends, seen)| {
        let (a, b) = ends.split_at(field_len(&ends));
        (Row::from_bytes(a), Row::from_bytes(b), seen.clone())
    })
}

/// Every member's one id, by joining sets until no link joins two.
fn naive(held: &Multiset<Pair>) -> BTreeMap<Row, Row> {
    let mut counts: Multiset<(BTreeSet<Row>, Row)> = Multiset::new();
    for ((ends, seen), count) in held {
        let (a, b) = ends.split_at(field_len(ends));
        let ends: BTreeSet<Row> = [a, b].iter().filter(|id| !is_null_field(id)).map(|id| Row::from_bytes(id)).collect();
        add(&mut counts, (ends, seen.clone()), *count);
    }
    let mut components: Vec<(BTreeSet<Row>, (Row, Row))> = Vec::new();
    for ((ends, seen), count) in counts {
        let Some(first) = ends.first().filter(|_| count > 0) else { continue };
        let mut component = (ends.clone(), (seen, first.clone()));
        let (connected, others): (Vec<_>, Vec<_>) =
            components.into_iter().partition(|(members, _)| !members.is_disjoint(&ends));
        components = others;
        for (members, oldest) in connected {
            component.0.extend(members);
            component.1 = component.1.min(oldest);
        }
        components.push(component);
    }
    components.into_iter().flat_map(|(members, (_, one))| members.into_iter().map(move |id| (id, one.clone()))).collect()
}

#[test]
fn one_ids_agree_with_a_union_find() {
    for seed in 0..60 {
        let (members, ticks) = [(4, 14), (8, 40), (16, 60), (30, 80)][seed as usize / 15];
        check(
            workers(seed),
            seed,
            &script(seed, members, ticks, seed.is_multiple_of(3)),
            |mut inputs| components(links(inputs.remove(0)), "Components").one_ids,
            |held| naive(&held[0]).into_iter().map(|row| (row, 1)).collect(),
        );
    }
}

/// The (old, new) rows of every tick, from what the one ids are before and after.
fn naive_history(script: &Script) -> BTreeMap<Time, BTreeSet<Row>> {
    let mut held: Multiset<Pair> = Multiset::new();
    let mut changes = script.changes.iter().peekable();
    let mut before = BTreeMap::new();
    let mut history: BTreeMap<Time, BTreeSet<Row>> = BTreeMap::new();
    for time in 0..script.ticks {
        while let Some(change) = changes.next_if(|change| change.time == time) {
            add(&mut held, change.row.clone(), change.diff);
        }
        let after = naive(&held);
        for (id, old) in &before {
            if let Some(new) = after.get(id).filter(|new| *new != old) {
                history.entry(time).or_default().insert(joined(&[old, new]));
            }
        }
        before = after;
    }
    history
}

#[test]
fn the_history_has_what_was_replaced() {
    for seed in 0..24 {
        let script = script(seed, [5, 12, 20][seed as usize % 3], 40, seed.is_multiple_of(4));
        let updates =
            run(workers(seed), seed, &script, |mut inputs| components(links(inputs.remove(0)), "Components").history);
        let mut history: BTreeMap<Time, BTreeSet<Row>> = BTreeMap::new();
        for (row, time, diff) in updates {
            assert_eq!(diff, 1, "seed {seed}: the history only grows");
            assert!(history.entry(time).or_default().insert(row), "seed {seed}, tick {time}: a row twice");
        }
        assert_eq!(history, naive_history(&script), "seed {seed}");
    }
}

/// Long chains and rings, cut in the middle and joined again: walks that are longer than a few steps.
#[test]
fn chains_and_rings() {
    let link = |a: i64, b: i64| (ints(&[Some(a), Some(b)]), ints(&[Some(7)]));
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let mut changes = Vec::new();
        let mut present: BTreeSet<(i64, i64)> =
            (0..60).filter(|id| id % 20 != 19 || seed % 2 == 0).map(|id| (id, (id + 1) % 60)).collect();
        present.extend((0..seed as i64).map(|id| (id, 59 - id)));
        let change = |(a, b), time, diff| crate::testing::Change { input: 0, row: link(a, b), time, diff };
        changes.extend(present.iter().map(|pair| change(*pair, 0, 1)));
        let mut absent: BTreeSet<(i64, i64)> = BTreeSet::new();
        for time in 1..40 {
            for _ in 0..random.below(4) {
                let (from, to) = if random.once_in(2) { (&mut absent, &mut present) } else { (&mut present, &mut absent) };
                if let Some(pair) = from.iter().nth(random.below(60) as usize).copied() {
                    from.remove(&pair);
                    to.insert(pair);
                    changes.push(change(pair, time, if present.contains(&pair) { 1 } else { -1 }));
                }
            }
        }
        let script = Script { inputs: 1, ticks: 40, changes };
        check(
            workers(seed),
            seed,
            &script,
            |mut inputs| components(links(inputs.remove(0)), "Components").one_ids,
            |held| naive(&held[0]).into_iter().map(|row| (row, 1)).collect(),
        );
    }
}

/// Links that turn out to have been seen earlier or later, while others come and go in the same tick.
#[test]
fn links_that_are_seen_at_another_time() {
    let pair = |random: &mut Random| (random.below(9) as i64, random.below(9) as i64);
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let (mut present, mut changes) = (BTreeMap::<(i64, i64), i64>::new(), Vec::new());
        for time in 0..30 {
            for _ in 0..1 + random.below(4) {
                let ends = pair(&mut random);
                let (old, new) = (present.get(&ends).copied(), random.below(6) as i64);
                let new = (!random.once_in(3)).then_some(new);
                for (seen, diff) in [(old, -1), (new, 1)] {
                    let row = (ints(&[Some(ends.0), Some(ends.1)]), ints(&[seen]));
                    changes.extend(seen.map(|_| crate::testing::Change { input: 0, row, time, diff }));
                }
                present.remove(&ends);
                present.extend(new.map(|seen| (ends, seen)));
            }
        }
        let script = Script { inputs: 1, ticks: 30, changes };
        check(
            workers(seed),
            seed,
            &script,
            |mut inputs| components(links(inputs.remove(0)), "Components").one_ids,
            |held| naive(&held[0]).into_iter().map(|row| (row, 1)).collect(),
        );
    }
}

/// A small component whose oldest member turns out to be younger joins a larger one in the same tick.
#[test]
fn the_oldest_of_an_absorbed_component_is_searched_for() {
    let link = |a: i64, b: i64, seen: i64, diff| ((ints(&[Some(a)]), ints(&[Some(b)]), ints(&[Some(seen)])), diff);
    let mut graph = Graph::default();
    let mut one_ids: Multiset<Pair> = Multiset::new();
    let mut tick = |links: &[(Link, Diff)]| {
        graph.change_links(links);
        graph.emit(|id, one, diff| add(&mut one_ids, (id.clone(), one.clone()), diff));
        one_ids.keys().map(|(_, one)| one.clone()).collect::<BTreeSet<Row>>()
    };
    let id = |number: i64| ints(&[Some(number)]);
    let small = [link(1, 2, 0, 1), link(2, 3, 1, 1)];
    let large = [link(10, 11, 5, 1), link(11, 12, 5, 1), link(12, 13, 5, 1)];
    assert_eq!(tick(&[&small[..], &large].concat()), BTreeSet::from([id(1), id(10)]));
    assert_eq!(tick(&[link(1, 2, 0, -1), link(1, 2, 9, 1), link(3, 10, 7, 1)]), BTreeSet::from([id(2)]));
}

#[test]
fn nothing_is_kept_of_what_left() {
    let mut graph = Graph::default();
    let link = |a: i64, b: i64, diff| ((ints(&[Some(a)]), ints(&[Some(b)]), ints(&[Some(1)])), diff);
    let mut tick = |links: &[(Link, Diff)]| {
        graph.change_links(links);
        graph.emit(|_, _, _| {});
        graph.sizes()
    };
    assert_eq!(tick(&[link(1, 2, 1), link(2, 3, 2), link(5, 5, 1), link(8, 9, -1)]), (6, 4));
    assert_eq!(tick(&[link(2, 3, -1), link(9, 8, 1)]), (4, 3));
    assert_eq!(tick(&[link(2, 3, -1), link(5, 5, -1), link(1, 2, -1)]), (0, 0));
}
