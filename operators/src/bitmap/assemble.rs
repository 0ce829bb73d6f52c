//! The bitmap of a group from its chunks, or how many ids it has.
//!
//! **Definition.** For each key with a head, one row of one field: the bitmap that its chunks make, in canonical bytes, or its
//! cardinality; NULL where the bitmap is NULL.
//!
//! **State.** For the cardinality some 100 bytes per group and nothing per chunk: the chunks' own cardinalities, which their
//! headers say, are summed. For the bitmap the ids, 2 bytes each or 8 KiB per 65,536.
//!
//! **On retraction.** A chunk that changes replaces its part. A cardinality costs the change; a bitmap is written anew, twice,
//! since its old bytes are not kept.
//!
//! **On ties, nulls, late rows.** That a key has one bitmap is relied upon, not checked: of several the cardinalities add up. Each
//! tick is applied as a whole; a result that stays emits nothing.

use differential_dataflow::consolidation::consolidate;

use super::SetResult;
use super::chunk::{Heads, Raw};
use super::store::{ChunkStore, TickUpdates, per_tick};
use deltaworks_dataflow::bitmap::{Container, cardinality, from_chunks};
use deltaworks_dataflow::row::{encode_bitmap, encode_int, encode_null};
use deltaworks_dataflow::{Diff, KeyedCollection, Row};

/// Puts the chunks of each key's bitmap together.
pub fn assemble<'s>(chunks: KeyedCollection<'s>, result: SetResult, name: &str) -> KeyedCollection<'s> {
    let mut assembly = Assembly { result, store: ChunkStore::new() };
    per_tick(chunks, name, move |mut updates, emit| {
        consolidate(&mut updates);
        assembly.tick(&updates, emit);
    })
}

#[derive(Default)]
struct Group {
    heads: Heads,
    ids: i64,
}

struct Assembly {
    result: SetResult,
    /// The chunks are empty where only cardinalities are wanted.
    store: ChunkStore<Group, Container>,
}

impl Assembly {
    fn tick(&mut self, updates: &TickUpdates<Row>, emit: &mut dyn FnMut(&Row, Row, Diff)) {
        for of_group in updates.chunk_by(|a, b| a.0.0 == b.0.0) {
            let key = &of_group[0].0.0;
            let number = self.store.number(key);
            let old = self.row(number);
            self.add(number, of_group);
            let new = self.row(number);
            if old != new {
                old.into_iter().for_each(|old| emit(key, old, -1));
                new.into_iter().for_each(|new| emit(key, new, 1));
            }
            let group = self.store.group(number);
            if group.heads == Heads::default() && group.ids == 0 {
                self.store.release(number);
            }
        }
    }
    fn add(&mut self, number: u32, updates: &[((Row, Row), Diff)]) {
        let mut added: Vec<(u64, Container)> = Vec::new();
        for ((_, row), diff) in updates {
            match Raw::read(row) {
                Raw::Ids(high, bytes) => {
                    self.store.group_mut(number).ids += diff * cardinality(bytes).unwrap_or(0) as i64;
                    if self.result == SetResult::Bitmap && *diff > 0 {
                        added.push((high, Raw::container(bytes)));
                    } else if self.result == SetResult::Bitmap {
                        self.store.change_chunk(number, high, |_| false);
                    }
                }
                head => self.store.group_mut(number).heads.add(&head, *diff),
            }
        }
        // Last, because the old chunk of an id's high bits is taken out by them alone.
        for (high, container) in added {
            self.store.change_chunk(number, high, |chunk| {
                *chunk = container;
                !chunk.is_empty()
            });
        }
    }
    /// The result of a group, if it has one.
    fn row(&self, number: u32) -> Option<Row> {
        let group = self.store.group(number);
        let mut row = Vec::new();
        match (group.heads.state()?, self.result) {
            (false, _) => encode_null(&mut row),
            (true, SetResult::Cardinality) => encode_int(&mut row, group.ids),
            (true, SetResult::Bitmap) => encode_bitmap(&mut row, &from_chunks(self.store.chunks_of(number))),
        }
        Some(Row::from_bytes(&row))
    }
}
