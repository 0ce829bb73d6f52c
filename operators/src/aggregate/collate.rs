//! Collation: the rows that several operators have for one key, side by side.
//!
//! **Definition.** Each part has at most one row per key. For each key that all parts have, the concatenation of their rows, in
//! the order of the parts. With defaults, which a global aggregate has, the empty key always has a row: a part without one
//! contributes its default.
//!
//! **State.** Per key the parts' rows.
//!
//! **On retraction.** A part's new row replaces its old one; per tick and key one retraction and one insertion are emitted, or
//! nothing if the concatenation stays.
//!
//! **On ties, nulls, late rows.** That a part has one row per key is relied upon, not checked. History before `start` counts
//! as of `start`.

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::core::Concatenate;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;

use crate::keyed_store::{KeyColumns, KeyedStore};
use crate::pending::Pending;
use deltaworks_dataflow::row::hash_bytes;
use deltaworks_dataflow::{Diff, KeyedCollection, Row, Time};

/// One update of one part.
type PartUpdate = (Row, usize, Row);

/// Puts the parts' rows side by side. `start` is the time at which the dataflow begins; `defaults` are one row per part.
pub fn collate<'s>(
    mut parts: Vec<KeyedCollection<'s>>,
    defaults: Option<Vec<Row>>,
    start: Time,
    name: &str,
) -> KeyedCollection<'s> {
    if parts.len() == 1 && defaults.is_none() {
        return parts.remove(0);
    }
    let count = parts.len();
    let scope = parts[0].inner.scope();
    let owns_empty_key = hash_bytes(&[]) % scope.peers() as u64 == scope.index() as u64;
    let tagged = parts
        .into_iter()
        .enumerate()
        .map(|(part, rows)| rows.inner.map(move |((key, row), time, diff)| ((key, part, row), time, diff)));
    let by_key = Exchange::new(|update: &(PartUpdate, Time, Diff)| hash_bytes(&update.0.0));
    let tagged: Vec<_> = tagged.collect();
    scope
        .concatenate(tagged)
        .unary_frontier(by_key, name, move |capability: Capability<Time>, _| {
            let mut waiting: Pending<(PartUpdate, Diff)> = Pending::new();
            let mut collator = Collator::new(count, defaults.filter(|_| owns_empty_key));
            if collator.defaults.is_some() {
                waiting.expect([capability.delayed(&start)], start);
            }
            move |(input, frontier), output| {
                input.for_each(|capability, updates| waiting.stash(&capability, updates, start));
                while let Some(([capability], updates)) = waiting.next_complete(frontier) {
                    let time = *capability.time();
                    let mut session = output.session(&capability);
                    collator.tick(updates, |key, row, diff| session.give(((key, row), time, diff)));
                }
            }
        })
        .as_collection()
}

/// The parts' rows on one worker. A record is the key, and per part its row with its length before it.
struct Collator {
    count: usize,
    defaults: Option<Vec<Row>>,
    /// Whether the row of the empty key has been emitted, which then is always there.
    announced: bool,
    records: KeyedStore,
}

impl Collator {
    fn new(count: usize, defaults: Option<Vec<Row>>) -> Self {
        Collator { count, defaults, announced: false, records: KeyedStore::new(KeyColumns::leading()) }
    }
    fn tick(&mut self, mut updates: Vec<(PartUpdate, Diff)>, mut emit: impl FnMut(Row, Row, Diff)) {
        consolidate(&mut updates);
        let mut updates = &updates[..];
        if self.defaults.is_some() && !self.announced {
            // The empty key is the first in order.
            let (of_empty, others) = updates.split_at(updates.partition_point(|update| update.0.0.is_empty()));
            self.update_key(&Row::default(), of_empty, &mut emit);
            self.announced = true;
            updates = others;
        }
        for of_key in updates.chunk_by(|a, b| a.0.0 == b.0.0) {
            self.update_key(&of_key[0].0.0, of_key, &mut emit);
        }
    }
    fn update_key(&mut self, key: &Row, updates: &[(PartUpdate, Diff)], emit: &mut impl FnMut(Row, Row, Diff)) {
        let hash = hash_bytes(key);
        let slot = self.records.find(hash, key);
        let mut parts: Vec<Option<&[u8]>> = vec![None; self.count];
        if let Some(slot) = slot {
            read_parts(&self.records.at(slot)[key.len()..], &mut parts);
        }
        let old =
            if key.is_empty() && !self.announced && self.defaults.is_some() { None } else { self.assemble(key, &parts) };
        for ((_, part, _), _) in updates.iter().filter(|update| update.1 < 0) {
            parts[*part] = None;
        }
        for ((_, part, row), _) in updates.iter().filter(|update| update.1 > 0) {
            parts[*part] = Some(row);
        }
        let new = self.assemble(key, &parts);
        if old != new {
            old.into_iter().for_each(|old| emit(key.clone(), old, -1));
            new.into_iter().for_each(|new| emit(key.clone(), new, 1));
        }
        if parts.iter().all(Option::is_none) {
            self.records.remove(hash, key);
        } else {
            let record = write_parts(key, &parts);
            self.records.put(slot, hash, key, &record);
        }
    }
    /// The concatenation, if every part has a row or may use its default.
    fn assemble(&self, key: &[u8], parts: &[Option<&[u8]>]) -> Option<Row> {
        let defaults = self.defaults.as_ref().filter(|_| key.is_empty());
        let mut bytes = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            bytes.extend_from_slice(part.or_else(|| defaults.map(|rows| &rows[index][..]))?);
        }
        Some(Row::from_bytes(&bytes))
    }
}

/// Marks a part without a row.
const ABSENT: u32 = u32::MAX;

fn read_parts<'a>(mut bytes: &'a [u8], parts: &mut [Option<&'a [u8]>]) {
    for part in parts {
        let Some((length, rest)) = bytes.split_first_chunk() else { return };
        let length = u32::from_le_bytes(*length);
        let (row, rest) = rest.split_at(if length == ABSENT { 0 } else { length as usize });
        *part = (length != ABSENT).then_some(row);
        bytes = rest;
    }
}
fn write_parts(key: &[u8], parts: &[Option<&[u8]>]) -> Vec<u8> {
    let mut record = key.to_vec();
    for part in parts {
        record.extend_from_slice(&part.map_or(ABSENT, |row| row.len() as u32).to_le_bytes());
        record.extend_from_slice(part.unwrap_or_default());
    }
    record
}
