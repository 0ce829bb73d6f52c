//! Aggregates against naive ones over all rows of a group.

use super::*;
use crate::testing::{Multiset, Pair, Random, Script, Shape, add, check, ints, run};
use deltaworks_dataflow::arrange::arrange;
use deltaworks_dataflow::{DataType, Datum, Diff, KeyedCollection, Row};
use std::collections::BTreeMap;

fn script(seed: u64, inputs: usize, row: &dyn Fn(&mut Random, usize) -> Pair) -> Script {
    let shape =
        Shape { inputs, ticks: 14, row: &|random, input, _| row(random, input), expired: &|_, _| false, negative: false };
    Script::random(seed, &shape)
}
fn key(random: &mut Random) -> Row {
    ints(&[Some(random.below(3) as i64)])
}
fn decode(row: &[u8], types: &[DataType]) -> Vec<Datum<'static>> {
    let mut rest = row;
    types.iter().map(|data_type| Datum::decode(&mut rest, data_type).into_owned()).collect()
}
/// The rows of each group, each as often as it is there.
fn groups(held: &Multiset<Pair>) -> BTreeMap<Row, Vec<Row>> {
    let mut groups: BTreeMap<Row, Vec<Row>> = BTreeMap::new();
    for ((key, row), count) in held {
        (0..*count).for_each(|_| groups.entry(key.clone()).or_default().push(row.clone()));
    }
    groups
}
/// One result per group.
fn per_group(held: &Multiset<Pair>, result: impl Fn(&[Row]) -> Row) -> Multiset<Pair> {
    groups(held).into_iter().map(|(key, rows)| ((key, result(&rows)), 1)).collect()
}
fn workers(seed: u64) -> usize {
    [1, 1, 2, 4][seed as usize % 4]
}

const WIDE: DataType = DataType::Decimal { precision: 38, scale: 0 };
const TYPES: [DataType; 4] = [DataType::BigInt, WIDE, DataType::Double, DataType::Boolean];
/// The field each accumulator reads.
const AGGREGATES: [(Accumulator, usize); 18] = [
    (Accumulator::CountRows, 0),
    (Accumulator::Count, 0),
    (Accumulator::SumInt, 0),
    (Accumulator::SumWithin { most: 5 }, 0),
    (Accumulator::SumDecimal, 1),
    (Accumulator::SumFloat, 2),
    (Accumulator::AvgInt, 0),
    (Accumulator::AvgFloat, 2),
    (Accumulator::AvgDecimal { shift: 4 }, 0),
    (Accumulator::AvgDecimal { shift: 1 }, 1),
    (Accumulator::BoolAnd, 3),
    (Accumulator::BoolOr, 3),
    (Accumulator::Max(7), 0),
    (Accumulator::CountDistinct(3), 2),
    (Accumulator::Min(7), 0),
    (Accumulator::CountDistinct(7), 0),
    (Accumulator::Max(3), 2),
    (Accumulator::Min(0), 1),
];

/// An argument row: a value of each type, then in the order of `AGGREGATES`.
fn arguments(random: &mut Random) -> Row {
    let null = |random: &mut Random, datum: Datum<'static>| if random.once_in(4) { Datum::Null } else { datum };
    let floats = [0.1, 0.2, -0.3, 1e16, -1e300, 5e-324, f64::NAN, f64::INFINITY];
    let wide = [1, -7, 10i128.pow(38) - 1, -(10i128.pow(38) - 1), 10i128.pow(37)];
    let values = [
        Datum::Int([1, 2, -5, i64::MAX, i64::MIN][random.below(5) as usize]),
        Datum::Decimal(wide[random.below(5) as usize]),
        Datum::Float(floats[random.below(8) as usize]),
        Datum::Bool(random.once_in(2)),
    ];
    let values: Vec<Datum<'static>> = values.into_iter().map(|value| null(random, value)).collect();
    Row::pack(AGGREGATES.iter().map(|(_, field)| values[*field].clone()))
}

fn naive(aggregate: Accumulator, arguments: &[Datum<'static>]) -> Datum<'static> {
    let present: Vec<&Datum<'_>> = arguments.iter().filter(|argument| !argument.is_null()).collect();
    let count = present.len();
    let wholes: Vec<i128> = present
        .iter()
        .filter_map(|datum| match datum {
            Datum::Int(value) => Some(i128::from(*value)),
            Datum::Decimal(value) => Some(*value),
            _ => None,
        })
        .collect();
    // Checked addition in an order that does not overflow before the sum does.
    let (mut positive, mut negative): (Vec<i128>, Vec<i128>) = wholes.iter().partition(|value| **value >= 0);
    let mut sum = Some(0i128);
    while let (Some(so_far), false) = (sum, positive.is_empty() && negative.is_empty()) {
        let next =
            if so_far >= 0 { negative.pop().or_else(|| positive.pop()) } else { positive.pop().or_else(|| negative.pop()) };
        sum = so_far.checked_add(next.unwrap());
    }
    let values: BTreeMap<Row, Datum<'static>> =
        present.iter().map(|datum| (Row::pack([(*datum).clone()]), (*datum).clone())).collect();
    let limit = |value: i128| if value.abs() < 10i128.pow(38) { Datum::Decimal(value) } else { Datum::Null };
    let float_sum = || {
        let mut sum = exact_sum::ExactSum::new();
        present.iter().for_each(|datum| {
            if let Datum::Float(value) = datum {
                sum.add(*value, 1)
            }
        });
        sum.value()
    };
    let truths = || present.iter().map(|datum| **datum == Datum::Bool(true));
    let sum = sum.filter(|sum| sum.abs() < 10i128.pow(38));
    match aggregate {
        Accumulator::CountRows => Datum::Int(arguments.len() as i64),
        Accumulator::Count => Datum::Int(count as i64),
        Accumulator::CountDistinct(_) => Datum::Int(values.len() as i64),
        _ if count == 0 => Datum::Null,
        Accumulator::SumInt | Accumulator::SumDecimal => sum.map_or(Datum::Null, limit),
        Accumulator::SumWithin { most } => sum.filter(|sum| sum.abs() <= most.into()).map_or(Datum::Null, limit),
        Accumulator::SumFloat => Datum::Float(float_sum()),
        Accumulator::AvgFloat => Datum::Float(float_sum() / count as f64),
        Accumulator::AvgInt => sum.map_or(Datum::Null, |sum| Datum::Float(sum as f64 / count as f64)),
        Accumulator::AvgDecimal { shift } => {
            let scaled = sum.and_then(|sum| sum.checked_mul(10i128.pow(shift)));
            let half = count as i128 / 2;
            let odd_half = |value: i128| (value.abs() + half) / count as i128 * value.signum();
            scaled.map_or(Datum::Null, |value| limit(odd_half(value)))
        }
        Accumulator::BoolAnd => Datum::Bool(truths().all(|truth| truth)),
        Accumulator::BoolOr => Datum::Bool(truths().any(|truth| truth)),
        Accumulator::Min(_) => values.first_key_value().unwrap().1.clone(),
        Accumulator::Max(_) => values.last_key_value().unwrap().1.clone(),
    }
}
fn naive_row(rows: &[Row]) -> Row {
    let types: Vec<DataType> = AGGREGATES.iter().map(|(_, field)| TYPES[*field].clone()).collect();
    let rows: Vec<Vec<Datum<'static>>> = rows.iter().map(|row| decode(row, &types)).collect();
    Row::pack(
        AGGREGATES.iter().enumerate().map(|(index, (aggregate, _))| {
            naive(*aggregate, &rows.iter().map(|row| row[index].clone()).collect::<Vec<_>>())
        }),
    )
}

#[test]
fn accumulators_agree_with_naive_ones() {
    for seed in 0..16 {
        let script = script(seed, 1, &|random, _| (key(random), arguments(random)));
        let aggregates = || AGGREGATES.iter().map(|(aggregate, _)| *aggregate).collect();
        check(
            workers(seed),
            seed,
            &script,
            move |mut inputs| accumulate(inputs.remove(0), aggregates(), "Accumulate"),
            |held| per_group(&held[0], naive_row),
        );
    }
}

#[test]
fn results_come_once_per_tick_in_key_order() {
    let script = script(3, 1, &|random, _| (key(random), arguments(random)));
    let aggregates = || AGGREGATES.iter().map(|(aggregate, _)| *aggregate).collect();
    let updates = run(1, 3, &script, move |mut inputs| accumulate(inputs.remove(0), aggregates(), "Accumulate"));
    for tick in updates.chunk_by(|a, b| a.1 == b.1) {
        for pair in tick.windows(2) {
            let ((before, after), order) = ((&pair[0], &pair[1]), pair[0].0.0.cmp(&pair[1].0.0));
            assert!(order.is_lt() || order.is_eq() && before.2 == -1 && after.2 == 1 && before.0 != after.0);
        }
    }
}

/// The median and how many rows are larger: two results per group, one of them often unchanged.
fn median(values: &[Row]) -> Vec<Row> {
    let median = &values[values.len() / 2];
    vec![median.clone(), ints(&[Some(-1), Some(values.iter().filter(|value| *value > median).count() as i64)])]
}

#[test]
fn recomputed_groups_agree_with_naive_ones() {
    for seed in 0..16 {
        let script = script(seed, 1, &|random, _| (key(random), ints(&[Some(random.below(6) as i64)])));
        check(
            workers(seed),
            seed,
            &script,
            |mut inputs| {
                recompute(arrange(inputs.remove(0), "Values"), "Median", |_, values, results| {
                    let repeat = |(value, count): &(&[u8], Diff)| vec![Row::from_bytes(value); *count as usize];
                    results.extend(median(&values.iter().flat_map(repeat).collect::<Vec<_>>()));
                })
            },
            |held| {
                let mut results = Multiset::new();
                for (key, values) in groups(&held[0]) {
                    median(&values).into_iter().for_each(|result| add(&mut results, (key.clone(), result), 1));
                }
                results
            },
        );
    }
}

/// Two parts: the number of rows, and of distinct rows that are not NULL, of two inputs.
fn parts<'s>(inputs: Vec<KeyedCollection<'s>>) -> Vec<KeyedCollection<'s>> {
    inputs.into_iter().map(|input| accumulate(input, vec![Accumulator::SumInt], "Sum")).collect()
}
fn sum(rows: &[Row]) -> Row {
    Row::pack([naive(Accumulator::SumInt, &rows.iter().flat_map(|row| decode(row, &[WIDE])).collect::<Vec<_>>())])
}

#[test]
fn parts_stand_side_by_side() {
    for seed in 0..16 {
        let script = script(seed, 3, &|random, _| (key(random), ints(&[Some(random.below(4) as i64)])));
        check(
            workers(seed),
            seed,
            &script,
            |inputs| collate(parts(inputs), None, 0, "Collate"),
            |held| {
                let parts: Vec<BTreeMap<Row, Row>> =
                    held.iter().map(|held| per_group(held, sum).into_keys().collect()).collect();
                let row = |key: &Row| {
                    let rows: Option<Vec<&[u8]>> = parts.iter().map(|part| part.get(key).map(|row| &row[..])).collect();
                    Some(((key.clone(), Row::from_bytes(&rows?.concat())), 1))
                };
                parts[0].keys().filter_map(row).collect()
            },
        );
    }
}

#[test]
fn a_global_aggregate_always_has_a_row() {
    const START: u64 = 4;
    for seed in 0..16 {
        let script = script(seed, 2, &|random, _| (Row::default(), ints(&[Some(random.below(4) as i64)])));
        let mut at_ticks: BTreeMap<u64, Vec<(Pair, Diff)>> = BTreeMap::new();
        let updates = run(workers(seed), seed, &script, |inputs| {
            collate(parts(inputs), Some(vec![ints(&[None]), ints(&[Some(0)])]), START, "Collate")
        });
        updates.into_iter().for_each(|(row, time, diff)| at_ticks.entry(time).or_default().push((row, diff)));
        assert!(at_ticks.keys().all(|time| *time >= START));
        let (mut view, mut held) = (Multiset::new(), vec![Multiset::new(); 2]);
        for tick in 0..script.ticks {
            for change in script.changes.iter().filter(|change| change.time == tick) {
                add(&mut held[change.input], change.row.clone(), change.diff);
            }
            at_ticks.remove(&tick).into_iter().flatten().for_each(|(row, diff)| add(&mut view, row, diff));
            if tick >= START {
                let part = |input: usize, default: Option<i64>| {
                    per_group(&held[input], sum).into_keys().next().map_or(ints(&[default]), |pair| pair.1)
                };
                let row = [&part(0, None)[..], &part(1, Some(0))[..]].concat();
                assert_eq!(view, Multiset::from([((Row::default(), Row::from_bytes(&row)), 1)]), "seed {seed}, tick {tick}");
            }
        }
    }
}
