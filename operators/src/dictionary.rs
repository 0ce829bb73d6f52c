//! A dictionary: every distinct string as a number, for ever.
//!
//! **Definition.** The first string gets 1, every other one more than the last; at one tick they are numbered in the order of
//! their bytes. A string is new at the first tick at which its rows sum to more than zero. The output is (string, number).
//!
//! Numbers that were given before this dataflow began come in as `known` and are not emitted again: new ones are larger. The
//! output may be what `known` is made of, since what comes back is known already.
//!
//! **State.** Each string, on the worker that owns its hash, and 5 bytes in a [`KeyedStore`]; one worker has the last number.
//!
//! **On retraction.** Nothing: the output only grows, and a string that comes back has its number. It depends on what came when,
//! so it is frozen, and belongs into a durable table.
//!
//! **On ties, nulls, late rows.** Any row is a string, of whatever type and number of fields; one with a NULL field is none and
//! has no number. A string that comes and goes within one tick was never there.
//!
//! **Example.** `b`, `a` at one tick and `c`, `b` at the next: `a: 1, b: 2`, then `c: 3`.

use differential_dataflow::consolidation::consolidate;

use crate::keyed_store::{KeyColumns, KeyedStore};
use crate::per_tick::per_tick;
use deltaworks_dataflow::row::{hash_bytes, is_null_field, split_field};
use deltaworks_dataflow::{Collection, DataType, Datum, KeyedCollection, Row};

/// Numbers the strings that are not among the `known`, which are (string, number).
pub fn dictionary<'s>(strings: Collection<'s>, known: KeyedCollection<'s>, name: &str) -> KeyedCollection<'s> {
    let is_known = known.clone().map(|(string, _)| (string, false));
    let new = new_strings(strings.map(|string| (string, true)).concat(is_known), name);
    let numbers = known.map(|(_, number)| (false, number)).concat(new.map(|string| (true, string)));
    let mut last = 0;
    // One worker numbers what all the others found to be new; false sorts first, so known numbers come before new strings.
    per_tick(
        numbers,
        |_| 0,
        name,
        move |mut rows, emit| {
            consolidate(&mut rows);
            for ((is_new, row), _) in rows {
                if is_new {
                    last += 1;
                    emit((row, Row::pack([Datum::Int(last)])), 1);
                } else if let Datum::Int(number) = Datum::decode(&mut &row[..], &DataType::BigInt) {
                    last = last.max(number);
                }
            }
        },
    )
}

/// Each string when it first appears; those tagged false are known from then on.
fn new_strings<'s>(
    strings: differential_dataflow::VecCollection<'s, deltaworks_dataflow::Time, (Row, bool), deltaworks_dataflow::Diff>,
    name: &str,
) -> Collection<'s> {
    let mut seen = KeyedStore::keys_only(KeyColumns::leading());
    per_tick(
        strings,
        |(string, _)| hash_bytes(string),
        name,
        move |mut rows, emit| {
            consolidate(&mut rows);
            for ((string, is_new), diff) in rows {
                let hash = hash_bytes(&string);
                if diff > 0 && !has_null(&string) && seen.find(hash, &string).is_none() {
                    seen.insert(hash, &string, &string);
                    if is_new {
                        emit(string, 1);
                    }
                }
            }
        },
    )
}
fn has_null(mut row: &[u8]) -> bool {
    while !row.is_empty() {
        if is_null_field(split_field(&mut row)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Change, Multiset, Pair, Random, Script, Shape, add, flat, ints, run};
    use std::collections::BTreeSet;

    fn string(text: &str) -> Row {
        Row::pack([Datum::str(text)])
    }
    fn script(seed: u64) -> Script {
        let row = |random: &mut Random, _: usize, time: u64| {
            let text = format!("CUS{}", random.below(3 + 4 * (time / 4)));
            (if random.once_in(9) { Row::pack([Datum::Null]) } else { string(&text) }, ints(&[]))
        };
        let shape = Shape { inputs: 1, ticks: 20, row: &row, expired: &|_, _| false, negative: false };
        let mut script = Script::random(seed, &shape);
        script.inputs = 2;
        script
    }
    /// The numbers, and the ticks at which they are given, by going through the script.
    fn naive(script: &Script) -> Vec<(Pair, u64)> {
        let mut held: Multiset<Row> = Multiset::new();
        let mut numbered: BTreeSet<Row> = BTreeSet::new();
        let (mut expected, mut last) = (Vec::new(), 0);
        for tick in 0..script.ticks {
            for change in script.changes.iter().filter(|change| change.time == tick) {
                if change.input == 0 {
                    add(&mut held, change.row.0.clone(), change.diff);
                } else if let Datum::Int(number) = Datum::decode(&mut &change.row.1[..], &DataType::BigInt) {
                    numbered.insert(change.row.0.clone());
                    last = last.max(number);
                }
            }
            for (row, _) in held.iter().filter(|(row, _)| !has_null(row)) {
                if numbered.insert(row.clone()) {
                    last += 1;
                    expected.push(((row.clone(), ints(&[Some(last)])), tick));
                }
            }
        }
        expected
    }
    fn check(workers: usize, seed: u64, script: &Script) {
        let mut updates = run(workers, seed, script, |mut inputs| {
            let known = inputs.remove(1);
            dictionary(flat(inputs.remove(0)), known, "Dictionary")
        });
        updates.sort_by_key(|((_, number), ..)| number.clone());
        let expected: Vec<_> = naive(script).into_iter().map(|(row, tick)| (row, tick, 1)).collect();
        assert_eq!(updates, expected, "{workers} workers, seed {seed}");
    }

    #[test]
    fn numbers_are_dense_stable_and_in_order_on_any_number_of_workers() {
        for seed in 0..12 {
            let script = script(seed);
            assert!(naive(&script).last().is_some_and(|((_, last), _)| *last == ints(&[Some(naive(&script).len() as i64)])));
            [1, 2, 4].into_iter().for_each(|workers| check(workers, seed, &script));
        }
    }

    #[test]
    fn known_numbers_are_kept_and_not_given_again() {
        for seed in 0..8 {
            let mut script = script(seed);
            let known = [("CUS1", 1), ("CUS3", 7), ("absent", 5)];
            let known = known.map(|(text, number)| Change {
                input: 1,
                row: (string(text), ints(&[Some(number)])),
                time: 0,
                diff: 1,
            });
            script.changes.splice(0..0, known);
            check([1, 2, 4][seed as usize % 3], seed, &script);
        }
    }

    #[test]
    fn what_was_only_retracted_is_not_there() {
        let change = |time, diff| Change { input: 0, row: (string("x"), ints(&[])), time, diff };
        let script = Script { inputs: 2, ticks: 3, changes: vec![change(0, -1), change(2, 2)] };
        let updates = run(1, 1, &script, |mut inputs| {
            let known = inputs.remove(1);
            dictionary(flat(inputs.remove(0)), known, "Dictionary")
        });
        assert_eq!(updates, [((string("x"), ints(&[Some(1)])), 2, 1)]);
    }
}
