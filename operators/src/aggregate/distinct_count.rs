//! How many different arguments a group has: COUNT(DISTINCT x).
//!
//! **Definition.** For each key with rows, one row of one field: the number of different argument rows that have no NULL
//! field.
//!
//! **State.** Each (key, argument) with its count, and per key the number of rows and of different arguments: 8 bytes per number.
//!
//! **On retraction.** An argument is counted until its last row leaves. A group whose arguments are all NULL counts 0; a group
//! without rows is gone.
//!
//! **On ties, nulls, late rows.** Arguments are equal if their encodings are. Each tick is applied as a whole.

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use crate::distinct::Counts;
use crate::keyed_store::{KeyColumns, KeyedStore};
use crate::pending::Pending;
use deltaworks_dataflow::arrange::KeyedUpdate;
use deltaworks_dataflow::row::{hash_bytes, is_null_field, split_field};
use deltaworks_dataflow::{Datum, Diff, KeyedCollection, Row};

/// Counts each key's different arguments.
pub fn distinct_count<'s>(input: KeyedCollection<'s>, name: &str) -> KeyedCollection<'s> {
    let by_key = Exchange::new(|update: &KeyedUpdate| hash_bytes(&update.0.0));
    input
        .inner
        .unary_frontier(by_key, name, move |_, _| {
            let mut waiting: Pending<((Row, Row), Diff)> = Pending::new();
            let mut arguments = Counts::new();
            let mut groups = KeyedStore::new(KeyColumns::leading());
            move |(input, frontier), output| {
                input.for_each(|capability, updates| waiting.stash(&capability, updates, 0));
                while let Some(([capability], mut updates)) = waiting.next_complete(frontier) {
                    consolidate(&mut updates);
                    let time = *capability.time();
                    let mut session = output.session(&capability);
                    for of_key in updates.chunk_by(|a, b| a.0.0 == b.0.0) {
                        let key = &of_key[0].0.0;
                        let (rows, distinct) = changes(&mut arguments, of_key);
                        update_group(&mut groups, key, rows, distinct, |count, diff| {
                            session.give(((key.clone(), Row::pack([Datum::Int(count)])), time, diff));
                        });
                    }
                }
            }
        })
        .as_collection()
}

/// Applies the updates of one key; returns by how much its rows and its different arguments change.
fn changes(arguments: &mut Counts, updates: &[((Row, Row), Diff)]) -> (Diff, Diff) {
    let (mut rows, mut distinct) = (0, 0);
    for ((key, argument), diff) in updates {
        rows += diff;
        if !has_null(argument) {
            distinct += arguments.add(&[&key[..], &argument[..]].concat(), *diff);
        }
    }
    (rows, distinct)
}
fn has_null(mut row: &[u8]) -> bool {
    while !row.is_empty() {
        if is_null_field(split_field(&mut row)) {
            return true;
        }
    }
    false
}

/// Changes a group's numbers and emits the difference in its result. A record is the key, the rows, the different arguments.
fn update_group(groups: &mut KeyedStore, key: &[u8], rows: Diff, distinct: Diff, mut emit: impl FnMut(i64, Diff)) {
    let hash = hash_bytes(key);
    let slot = groups.find(hash, key);
    let before = slot.map_or((0, 0), |slot| numbers(&groups.at(slot)[key.len()..]));
    let after = (before.0 + rows, before.1 + distinct);
    let record = [key, &after.0.to_le_bytes(), &after.1.to_le_bytes()].concat();
    if after == (0, 0) {
        groups.remove(hash, key);
    } else {
        groups.put(slot, hash, key, &record);
    }
    let result = |numbers: (i64, i64)| (numbers.0 > 0).then_some(numbers.1);
    if result(before) != result(after) {
        result(before).into_iter().for_each(|count| emit(count, -1));
        result(after).into_iter().for_each(|count| emit(count, 1));
    }
}
fn numbers(bytes: &[u8]) -> (i64, i64) {
    match bytes.as_chunks::<8>().0 {
        [rows, distinct] => (i64::from_le_bytes(*rows), i64::from_le_bytes(*distinct)),
        _ => (0, 0),
    }
}
