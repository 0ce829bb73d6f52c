//! Distinct: each row once.
//!
//! **Definition.** A row is in the output once if it is in the input at least once.
//!
//! **State.** Each row with its count, 8 bytes, in a [`KeyedStore`].
//!
//! **On retraction.** A row leaves the output when its last copy leaves the input. **On ties, nulls, late rows**: rows are equal
//! if their encodings are, so NULL equals NULL. Each tick is applied as a whole: a row that leaves and comes back within one
//! changes nothing.

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use crate::keyed_store::{KeyColumns, KeyedStore};
use crate::pending::Pending;
use deltaworks_dataflow::row::hash_bytes;
use deltaworks_dataflow::{Collection, Diff, Row, Time};

/// Keeps one copy of each row.
pub fn distinct<'s>(input: Collection<'s>, name: &str) -> Collection<'s> {
    let by_row = Exchange::new(|update: &(Row, Time, Diff)| hash_bytes(&update.0));
    input
        .inner
        .unary_frontier(by_row, name, move |_, _| {
            let mut waiting: Pending<(Row, Diff)> = Pending::new();
            let mut counts = Counts::new();
            move |(input, frontier), output| {
                input.for_each(|capability, updates| waiting.stash(&capability, updates, 0));
                while let Some(([capability], mut updates)) = waiting.next_complete(frontier) {
                    consolidate(&mut updates);
                    let time = *capability.time();
                    let mut session = output.session(&capability);
                    for (row, diff) in updates {
                        let change = counts.add(&row, diff);
                        if change != 0 {
                            session.give((row, time, change));
                        }
                    }
                }
            }
        })
        .as_collection()
}

/// How often each row is there.
pub(crate) struct Counts {
    /// Each row, followed by its count.
    records: KeyedStore,
}

const COUNT: usize = 8;

impl Counts {
    pub(crate) fn new() -> Self {
        Counts { records: KeyedStore::new(KeyColumns::leading()) }
    }
    /// The rows and how often each is there, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Diff)> {
        self.records.iter().map(|record| {
            let (row, count) = record.split_at(record.len() - COUNT);
            (row, count.first_chunk().map_or(0, |bytes| Diff::from_le_bytes(*bytes)))
        })
    }
    /// Adds `diff` copies; returns 1 if the row appears, -1 if it disappears, 0 otherwise.
    pub(crate) fn add(&mut self, row: &[u8], diff: Diff) -> Diff {
        let hash = hash_bytes(row);
        let Some(slot) = self.records.find(hash, row) else {
            let record = [row, &diff.to_le_bytes()].concat();
            self.records.insert(hash, row, &record);
            return Diff::from(diff > 0);
        };
        let record = self.records.at_mut(slot);
        let at = record.len() - COUNT;
        let before = record[at..].first_chunk().map_or(0, |bytes| Diff::from_le_bytes(*bytes));
        let after = before + diff;
        if after == 0 {
            self.records.remove(hash, row);
        } else {
            record[at..].copy_from_slice(&after.to_le_bytes());
        }
        Diff::from(after > 0) - Diff::from(before > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Script, Shape, check, flat, ints};

    #[test]
    fn agrees_with_a_set() {
        for seed in 0..16u64 {
            let row = |random: &mut crate::testing::Random| (ints(&[Some(random.below(5) as i64)]), ints(&[None]));
            let shape = Shape {
                inputs: 1,
                ticks: 14,
                row: &|random, _, _| row(random),
                expired: &|_, _| false,
                negative: seed.is_multiple_of(2),
            };
            let script = Script::random(seed, &shape);
            check(
                [1, 1, 2, 4][seed as usize % 4],
                seed,
                &script,
                |mut inputs| distinct(flat(inputs.remove(0)), "Distinct"),
                |held| {
                    let joined = |pair: &(Row, Row)| Row::from_bytes(&[&pair.0[..], &pair.1[..]].concat());
                    held[0].iter().filter(|(_, count)| **count > 0).map(|(pair, _)| (joined(pair), 1)).collect()
                },
            );
        }
    }
}
