//! State of the bitmap operators: something per group, and something per chunk of a group.
//!
//! All chunks lie in one ordered map, by the group's number and the ids' high bits, so that a million groups of one chunk each
//! take little more than their ids.

use differential_dataflow::VecCollection;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use timely::ExchangeData;

use deltaworks_dataflow::row::hash_bytes;
use deltaworks_dataflow::{Diff, KeyedCollection, Row, Time};

/// The updates of one tick, by group.
pub(super) type TickUpdates<V> = Vec<((Row, V), Diff)>;

/// Gives every tick's updates to `tick`, which reports the changes of its output: (group, row, diff). Workers own groups.
pub(super) fn per_tick<'s, V: ExchangeData>(
    input: VecCollection<'s, Time, (Row, V), Diff>,
    name: &str,
    mut tick: impl FnMut(TickUpdates<V>, &mut dyn FnMut(&Row, Row, Diff)) + 'static,
) -> KeyedCollection<'s> {
    crate::per_tick::per_tick(
        input,
        |(group, _)| hash_bytes(group),
        name,
        move |updates, emit| tick(updates, &mut |group, row, diff| emit((group.clone(), row), diff)),
    )
}

/// A number for each group that has a state, and its state `G`; and `C` per chunk.
pub(super) struct ChunkStore<G, C> {
    numbers: HashMap<Row, u32>,
    groups: Vec<(Row, G)>,
    free: Vec<u32>,
    chunks: BTreeMap<(u32, u64), C>,
}

impl<G: Default, C: Default> ChunkStore<G, C> {
    pub(super) fn new() -> Self {
        ChunkStore { numbers: HashMap::new(), groups: Vec::new(), free: Vec::new(), chunks: BTreeMap::new() }
    }
    /// The group's number; it gets one if it has none.
    pub(super) fn number(&mut self, key: &Row) -> u32 {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let group = (key.clone(), G::default());
        let number = match self.free.pop() {
            Some(number) => {
                self.groups[number as usize] = group;
                number
            }
            None => {
                self.groups.push(group);
                self.groups.len() as u32 - 1
            }
        };
        self.numbers.insert(key.clone(), number);
        number
    }
    pub(super) fn key(&self, number: u32) -> &Row {
        &self.groups[number as usize].0
    }
    pub(super) fn group(&self, number: u32) -> &G {
        &self.groups[number as usize].1
    }
    pub(super) fn group_mut(&mut self, number: u32) -> &mut G {
        &mut self.groups[number as usize].1
    }
    pub(super) fn chunk(&self, number: u32, high: u64) -> Option<&C> {
        self.chunks.get(&(number, high))
    }
    /// Changes a chunk; `change` says whether there is anything left to keep.
    pub(super) fn change_chunk(&mut self, number: u32, high: u64, change: impl FnOnce(&mut C) -> bool) {
        if !change(self.chunks.entry((number, high)).or_default()) {
            self.chunks.remove(&(number, high));
        }
    }
    /// The group's chunks, ascending.
    pub(super) fn chunks_of(&self, number: u32) -> impl Iterator<Item = (u64, &C)> {
        self.chunks.range((number, 0)..=(number, u64::MAX)).map(|((_, high), chunk)| (*high, chunk))
    }
    /// The high bits of the group's chunks.
    pub(super) fn highs_of(&self, number: u32) -> Vec<u64> {
        self.chunks_of(number).map(|(high, _)| high).collect()
    }
    /// Forgets the group, if it has no chunk; its own state must be as new.
    pub(super) fn release(&mut self, number: u32) {
        if self.chunks_of(number).next().is_none() {
            let key = std::mem::take(&mut self.groups[number as usize].0);
            self.numbers.remove(&key);
            self.free.push(number);
        }
    }
    /// How many groups there are, and how many chunks.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.numbers.len(), self.chunks.len())
    }
}

/// Calls `each` with the changes, sorted by high bits, of each chunk that has any, and with none for the other chunks in `all`.
pub(super) fn for_each_chunk<C>(changes: &[(u64, C)], all: &[u64], mut each: impl FnMut(u64, &[(u64, C)])) {
    changes.chunk_by(|a, b| a.0 == b.0).for_each(|of_chunk| each(of_chunk[0].0, of_chunk));
    let unchanged = all.iter().filter(|high| changes.binary_search_by_key(*high, |change| change.0).is_err());
    unchanged.for_each(|high| each(*high, &[]));
}
