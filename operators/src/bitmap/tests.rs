//! Bitmaps against sets built anew from all rows of a group, at every tick.

use super::*;
use crate::testing::{Change, Multiset, Pair, Random, Script, Shape, check, ints, run};
use deltaworks_dataflow::bitmap::canonical_bytes;
use deltaworks_dataflow::row::split_fields;
use deltaworks_dataflow::{DataType, Datum, KeyedCollection, Row, Time};
use roaring::RoaringTreemap;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

fn workers(seed: u64) -> usize {
    [1, 1, 2, 4][seed as usize % 4]
}
/// Ids on both sides of chunk borders, some that are none, few enough to be there several times.
fn id_row(random: &mut Random) -> Pair {
    let ids = [0, 1, 2, 63, 64, 65_535, 65_536, 65_537, (1 << 32) - 1, 1 << 32, 1 << 40, i64::MAX, -1, i64::MIN];
    let id = ids.get(random.below(16) as usize).copied();
    let group = random.below(3) as i64;
    (ints(&[(group > 0).then_some(group)]), ints(&[id]))
}
fn script(seed: u64, inputs: usize, negative: bool, row: &dyn Fn(&mut Random) -> Pair) -> Script {
    let shape = Shape { inputs, ticks: 14, row: &|random, _, _| row(random), expired: &|_, _| false, negative };
    Script::random(seed, &shape)
}
fn bitmap(set: &RoaringTreemap) -> Datum<'static> {
    Datum::Bitmap(Cow::Owned(canonical_bytes(set)))
}

/// The set of each group of ids, straight from the definition.
fn naive_sets(held: &Multiset<Pair>) -> BTreeMap<Row, RoaringTreemap> {
    let mut groups: BTreeMap<Row, (i64, BTreeMap<u64, i64>)> = BTreeMap::new();
    for ((group, row), count) in held {
        let group = groups.entry(group.clone()).or_default();
        group.0 += count;
        if let Datum::Int(id @ 0..) = Datum::decode(&mut &row[..], &DataType::BigInt) {
            *group.1.entry(id as u64).or_default() += count;
        }
    }
    let present = groups.into_iter().filter(|(_, (rows, _))| *rows > 0);
    present
        .map(|(key, (_, ids))| (key, ids.into_iter().filter(|(_, count)| *count > 0).map(|(id, _)| id).collect()))
        .collect()
}
fn naive_results(sets: BTreeMap<Row, Option<RoaringTreemap>>, result: SetResult) -> Multiset<Pair> {
    let show = |set: RoaringTreemap| match result {
        SetResult::Bitmap => bitmap(&set),
        SetResult::Cardinality => Datum::Int(set.len() as i64),
    };
    sets.into_iter().map(|(group, set)| ((group, Row::pack([set.map_or(Datum::Null, show)])), 1)).collect()
}
fn naive_chunks(sets: &BTreeMap<Row, RoaringTreemap>) -> Multiset<Pair> {
    let mut rows = Multiset::new();
    for (group, set) in sets {
        let mut chunks: BTreeMap<u64, RoaringTreemap> = BTreeMap::new();
        set.iter().for_each(|id| {
            chunks.entry(id >> 16).or_default().insert(id);
        });
        rows.insert((group.clone(), Row::pack([Datum::Null, bitmap(&RoaringTreemap::new())])), 1);
        for (high, ids) in chunks {
            rows.insert((group.clone(), Row::pack([Datum::Int(high as i64), bitmap(&ids)])), 1);
        }
    }
    rows
}
fn present(sets: BTreeMap<Row, RoaringTreemap>) -> BTreeMap<Row, Option<RoaringTreemap>> {
    sets.into_iter().map(|(group, set)| (group, Some(set))).collect()
}

#[test]
fn sets_of_ids_agree_with_sets() {
    for seed in 0..24 {
        let script = script(seed, 1, seed.is_multiple_of(2), &id_row);
        for result in [SetResult::Bitmap, SetResult::Cardinality] {
            check(
                workers(seed),
                seed,
                &script,
                move |mut inputs| group_bitmap(inputs.remove(0), result, Rc::default(), "GroupBitmap"),
                |held| naive_results(present(naive_sets(&held[0])), result),
            );
        }
        check(
            workers(seed),
            seed,
            &script,
            |mut inputs| group_bitmap_chunks(inputs.remove(0), Rc::default(), "GroupBitmap"),
            |held| naive_chunks(&naive_sets(&held[0])),
        );
    }
}

/// Chunks that grow from arrays into bits and runs and shrink again, with ids that are there twice.
fn large_script(seed: u64) -> Script {
    let mut random = Random::new(seed);
    let mut script = Script { inputs: 2, ticks: 8, changes: Vec::new() };
    let mut held: [Multiset<i64>; 2] = Default::default();
    for time in 0..script.ticks {
        for (input, held) in held.iter_mut().enumerate() {
            let (start, step) = (random.below(100_000) as i64, 1 + random.below(3) as i64);
            let leaving = random.once_in(3);
            for id in (start..start + 9000).step_by(step as usize) {
                let diff = if leaving { -held.get(&id).copied().unwrap_or(0) } else { 1 };
                crate::testing::add(held, id, diff);
                let row = (ints(&[Some(1)]), ints(&[Some(id)]));
                script.changes.extend((diff != 0).then_some(Change { input, row, time, diff }));
            }
        }
    }
    script
}

const OPERATIONS: [SetOperation; 4] = [SetOperation::And, SetOperation::Or, SetOperation::Xor, SetOperation::AndNot];

/// Whole bitmaps of each group of ids; those with a certain number of ids are NULL instead.
fn bitmaps<'s>(ids: KeyedCollection<'s>, null_of: i64) -> KeyedCollection<'s> {
    group_bitmap(ids, SetResult::Bitmap, Rc::default(), "GroupBitmap").map(move |(group, row)| {
        let Datum::Bitmap(bytes) = Datum::decode(&mut &row[..], &DataType::Bitmap) else { unreachable!() };
        let is_null = deltaworks_dataflow::bitmap::cardinality(&bytes) == Some(null_of as u64);
        (group, if is_null { Row::pack([Datum::Null]) } else { row.clone() })
    })
}
fn naive_combination(
    held: &[Multiset<Pair>],
    operation: SetOperation,
    null_of: i64,
) -> BTreeMap<Row, Option<RoaringTreemap>> {
    let right = naive_sets(&held[1]);
    let is_null = |set: &RoaringTreemap| set.len() as i64 == null_of;
    let mut combined = BTreeMap::new();
    for (group, a) in naive_sets(&held[0]) {
        let Some(b) = right.get(&group) else { continue };
        let set = match operation {
            SetOperation::And => &a & b,
            SetOperation::Or => &a | b,
            SetOperation::Xor => &a ^ b,
            SetOperation::AndNot => &a - b,
        };
        combined.insert(group, (!is_null(&a) && !is_null(b)).then_some(set));
    }
    combined
}
fn check_combination(seed: u64, script: &Script, operation: SetOperation, result: SetResult, null_of: i64) {
    check(
        workers(seed),
        seed,
        script,
        move |inputs| {
            let mut chunks = inputs.into_iter().map(|ids| into_chunks(bitmaps(ids, null_of)));
            let (left, right) = (chunks.next().unwrap(), chunks.next().unwrap());
            assemble(combine_chunks(left, right, operation, "Combine"), result, "Assemble")
        },
        |held| naive_results(naive_combination(held, operation, null_of), result),
    );
}

#[test]
fn combinations_agree_with_operations_on_sets() {
    for seed in 0..24 {
        let script = script(seed, 2, seed.is_multiple_of(2), &id_row);
        let result = if seed % 3 == 0 { SetResult::Cardinality } else { SetResult::Bitmap };
        check_combination(seed, &script, OPERATIONS[seed as usize % 4], result, if seed % 5 == 0 { 2 } else { -1 });
        check_combination(seed, &script, OPERATIONS[(seed as usize / 4) % 4], result, 0);
    }
}

#[test]
fn large_sets_agree_too() {
    for seed in 0..8 {
        let script = large_script(seed);
        check(
            workers(seed),
            seed,
            &script,
            |mut inputs| group_bitmap_chunks(inputs.remove(0), Rc::default(), "GroupBitmap"),
            |held| naive_chunks(&naive_sets(&held[0])),
        );
        let result = if seed % 2 == 0 { SetResult::Cardinality } else { SetResult::Bitmap };
        check_combination(seed, &script, OPERATIONS[seed as usize % 4], result, -1);
    }
}

/// Rows of a few small bitmaps, the same ones often, some NULL.
fn bitmap_row(random: &mut Random) -> Pair {
    let pool = [0u64, 1, 5, 65_535, 65_536, 1 << 33];
    let mask = random.below(80);
    let set: RoaringTreemap = pool.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, id)| *id).collect();
    (ints(&[Some(random.below(2) as i64)]), Row::pack([if mask >= 64 { Datum::Null } else { bitmap(&set) }]))
}
fn naive_fold(held: &Multiset<Pair>, operation: FoldOperation) -> BTreeMap<Row, Option<RoaringTreemap>> {
    let mut folded: BTreeMap<Row, Option<RoaringTreemap>> = BTreeMap::new();
    for ((group, row), count) in held {
        let folded = folded.entry(group.clone()).or_default();
        let Datum::Bitmap(bytes) = Datum::decode(&mut &row[..], &DataType::Bitmap) else { continue };
        for _ in 0..*count {
            let set = RoaringTreemap::deserialize_from(&bytes[..]).unwrap();
            *folded = Some(match (folded.take(), operation) {
                (None, _) => set,
                (Some(all), FoldOperation::And) => all & set,
                (Some(all), FoldOperation::Or) => all | set,
                (Some(all), FoldOperation::Xor) => all ^ set,
            });
        }
    }
    present(folded.into_iter().map(|(group, set)| (group, set.unwrap_or_default())).collect())
}

#[test]
fn folds_agree_with_folding_all_bitmaps() {
    for seed in 0..36 {
        let operation = [FoldOperation::And, FoldOperation::Or, FoldOperation::Xor][seed as usize % 3];
        let result = if seed % 2 == 0 { SetResult::Cardinality } else { SetResult::Bitmap };
        check(
            workers(seed / 3),
            seed,
            &script(seed, 1, false, &bitmap_row),
            move |mut inputs| assemble(fold_chunks(into_chunks(inputs.remove(0)), operation, "Fold"), result, "Assemble"),
            |held| naive_results(naive_fold(&held[0], operation), result),
        );
    }
}

/// Two inputs of ids, then rows that ask: keyed by a group of each input, some of which are not there.
fn asking_script(seed: u64) -> Script {
    let row = |random: &mut Random, input: usize, _: Time| {
        if input < 2 {
            return id_row(random);
        }
        let mut group = || {
            let group = random.below(4) as i64;
            (group > 0).then_some(group)
        };
        (ints(&[group(), group()]), ints(&[Some(random.below(3) as i64)]))
    };
    Script::random(seed, &Shape { inputs: 3, ticks: 14, row: &row, expired: &|_, _| false, negative: false })
}

/// Large sets that change while rows ask about them, at times none.
fn large_asking_script(seed: u64) -> Script {
    let mut script = large_script(seed);
    script.inputs = 3;
    for (time, diff) in [(2, 2), (3, -1), (5, -1), (6, 1)] {
        let row = (ints(&[Some(1), Some(1)]), ints(&[Some(7)]));
        script.changes.push(Change { input: 2, row, time, diff });
    }
    script.changes.sort_by_key(|change| change.time);
    script
}

/// A question is about one group of the first input, one of the second, and one of the first again.
fn operands<'s>(inputs: &mut Vec<KeyedCollection<'s>>) -> Operands<'s> {
    let mut source = || {
        let chunks = group_bitmap_chunks(inputs.remove(0), Rc::default(), "GroupBitmap");
        chunks.map(|(group, chunk)| (handle(&group), chunk))
    };
    Operands { sources: vec![source(), source()], of: vec![0, 1, 0] }
}
fn question(groups: &Row) -> Row {
    let (a, b) = split_fields(groups, 1);
    crate::testing::joined(&[&handle(a), &handle(b), &handle(b)])
}

/// Trees of up to three operands.
fn expressions(seed: u64) -> Vec<SetExpression> {
    let operand = |number: u64| Box::new(SetExpression::Operand(number as usize % 3));
    let operation = |number: u64| OPERATIONS[number as usize % 4];
    let pair = |seed: u64| SetExpression::Combined(operation(seed), operand(seed / 4), operand(seed / 12 + 1));
    let nested = SetExpression::Combined(operation(seed / 5), Box::new(pair(seed)), operand(seed / 3 + 2));
    vec![SetExpression::Operand(1), pair(seed), pair(seed * 7 + 3), nested]
}

fn naive_set(expression: &SetExpression, operands: &[RoaringTreemap]) -> RoaringTreemap {
    match expression {
        SetExpression::Operand(number) => operands[*number].clone(),
        SetExpression::Combined(operation, left, right) => {
            let (left, right) = (naive_set(left, operands), naive_set(right, operands));
            match operation {
                SetOperation::And => left & right,
                SetOperation::Or => left | right,
                SetOperation::Xor => left ^ right,
                SetOperation::AndNot => left - right,
            }
        }
    }
}

/// The operands of each question that is asked.
fn naive_operands(held: &[Multiset<Pair>]) -> BTreeMap<Row, Vec<RoaringTreemap>> {
    let sets = [naive_sets(&held[0]), naive_sets(&held[1])];
    let set = |input: usize, group: &[u8]| sets[input].get(&Row::from_bytes(group)).cloned().unwrap_or_default();
    let of = |groups: &Row| {
        let (a, b) = split_fields(groups, 1);
        vec![set(0, a), set(1, b), set(0, b)]
    };
    held[2].keys().map(|(groups, _)| (groups.clone(), of(groups))).collect()
}

fn check_questions(seed: u64, script: &Script) {
    let of_seed = expressions(seed);
    check(
        workers(seed),
        seed,
        script,
        move |mut inputs| {
            let operands = operands(&mut inputs);
            let asking = inputs.remove(0).map(|(groups, row)| (question(&groups), row));
            count_sets(asking, operands, expressions(seed), "Count")
        },
        |held| {
            let operands = naive_operands(held);
            let mut rows = Multiset::new();
            for ((groups, row), count) in &held[2] {
                let counts = of_seed.iter().map(|expression| naive_set(expression, &operands[groups]).len() as i64);
                let counts: Vec<Option<i64>> = counts.map(Some).collect();
                crate::testing::add(&mut rows, crate::testing::joined(&[row, &ints(&counts)]), *count);
            }
            rows
        },
    );
    check(
        workers(seed),
        seed,
        script,
        move |mut inputs| {
            let operands = operands(&mut inputs);
            let questions = inputs.remove(0).map(|(groups, _)| question(&groups));
            assemble(
                combine_sets(questions, operands, expressions(seed).remove(3), "Combine"),
                SetResult::Bitmap,
                "Assemble",
            )
        },
        |held| {
            let result = |(groups, operands): (Row, Vec<RoaringTreemap>)| {
                (handle(&question(&groups)), Some(naive_set(&of_seed[3], &operands)))
            };
            naive_results(naive_operands(held).into_iter().map(result).collect(), SetResult::Bitmap)
        },
    );
}

#[test]
fn answers_agree_with_operations_on_sets() {
    (0..36).for_each(|seed| check_questions(seed, &asking_script(seed)));
    (0..6).for_each(|seed| check_questions(seed, &large_asking_script(seed)));
}

/// A member that enters a set of many chunks changes one of them, and one of what is made of it.
#[test]
fn a_member_costs_a_chunk() {
    let id_of = |id: i64| (ints(&[]), ints(&[Some(id)]));
    let mut changes: Vec<Change> = Vec::new();
    for id in (0..40 * 65_536).step_by(7001) {
        changes.extend((0..2).map(|input| Change { input, row: id_of(id), time: 0, diff: 1 }));
    }
    changes.push(Change { input: 0, row: id_of(100_000), time: 1, diff: 1 });
    let script = Script { inputs: 2, ticks: 2, changes };
    let updates = run(1, 1, &script, |mut inputs| {
        let right = group_bitmap_chunks(inputs.remove(1), Rc::default(), "Right");
        let left = group_bitmap_chunks(inputs.remove(0), Rc::default(), "Left");
        left.clone().concat(combine_chunks(left, right, SetOperation::Or, "Or"))
    });
    let of_tick = |tick: Time| updates.iter().filter(|update| update.1 == tick).count();
    assert_eq!((of_tick(0), of_tick(1)), (2 * (1 + 40), 2 * 2));
}

/// The same for the sets of questions: two that have the member's set, one that has not.
#[test]
fn a_question_costs_a_chunk() {
    let id_of = |group: i64, id: i64| (ints(&[Some(group)]), ints(&[Some(id)]));
    let ids = (0..40 * 65_536).step_by(7001).flat_map(|id| [1, 2].map(|group| id_of(group, id)));
    let mut changes: Vec<Change> = ids.map(|row| Change { input: 0, row, time: 0, diff: 1 }).collect();
    for (a, b) in [(1, 2), (2, 1), (2, 2)] {
        let row = (crate::testing::joined(&[&handle(&ints(&[Some(a)])), &handle(&ints(&[Some(b)]))]), ints(&[]));
        changes.push(Change { input: 1, row, time: 0, diff: 1 });
    }
    changes.push(Change { input: 0, row: id_of(1, 100_000), time: 1, diff: 1 });
    let script = Script { inputs: 2, ticks: 2, changes };
    let updates = run(2, 1, &script, |mut inputs| {
        let chunks = group_bitmap_chunks(inputs.remove(0), Rc::default(), "GroupBitmap");
        let sources = vec![chunks.map(|(group, chunk)| (handle(&group), chunk))];
        let questions = inputs.remove(0).map(|(question, _)| question);
        let either = SetExpression::Combined(
            SetOperation::Or,
            Box::new(SetExpression::Operand(0)),
            Box::new(SetExpression::Operand(1)),
        );
        combine_sets(questions, Operands { sources, of: vec![0, 0] }, either, "Combine")
    });
    let of_tick = |tick: Time| updates.iter().filter(|update| update.1 == tick).count();
    assert_eq!((of_tick(0), of_tick(1)), (3 * (1 + 40), 2 * 2));
}

/// Retractions of what is not there, several bitmaps where there may be one, and bytes that are no bitmap: whatever comes of
/// it, nothing panics.
#[test]
fn nonsense_is_survived() {
    let chunk_row = |random: &mut Random| {
        let set: RoaringTreemap = (0..random.below(4)).map(|_| random.below(70_000)).collect();
        let datum = match random.below(4) {
            0 => Datum::Null,
            1 => Datum::Bitmap(Cow::Owned(vec![1, 2, 3])),
            _ => bitmap(&set),
        };
        let high = if random.once_in(3) { Datum::Null } else { Datum::Int(random.below(2) as i64) };
        (ints(&[Some(random.below(2) as i64)]), Row::pack([high, datum]))
    };
    for seed in 0..12 {
        let script = script(seed, 2, true, &chunk_row);
        let operation = OPERATIONS[seed as usize % 4];
        run(workers(seed), seed, &script, move |mut inputs| {
            let right = fold_chunks(inputs.remove(1), FoldOperation::And, "Fold");
            let combined = combine_chunks(inputs.remove(0), right.clone(), operation, "Combine");
            assemble(combined.clone(), SetResult::Bitmap, "Assemble").concat(assemble(
                combined,
                SetResult::Cardinality,
                "Count",
            ))
        });
        run(workers(seed), seed, &script, move |mut inputs| {
            let sources = vec![inputs.remove(0).map(|(group, chunk)| (handle(&group), chunk))];
            let questions = inputs.remove(0).map(|(group, row)| (handle(&group), row));
            count_sets(questions, Operands { sources, of: vec![0] }, vec![SetExpression::Operand(0)], "Count")
        });
    }
}
