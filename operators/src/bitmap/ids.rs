//! The set of a group's ids, as one value or in chunks.
//!
//! **Definition.** For each key with rows, the set of the ids among its argument rows, which have one integer field:
//! [`group_bitmap`] gives one row per key, the set's cardinality or canonical bytes; [`group_bitmap_chunks`] gives the set as
//! [`Chunk`](super::Chunk) rows.
//!
//! **State.** Per chunk of 65,536 ids its members, 2 bytes per id or 8 KiB, and those ids whose count is neither zero nor one
//! with their count, about 16 bytes each; about 100 bytes per chunk and per group. Ten million ids of 1 .. 20,000,000 take
//! 2.5 MB. A BITMAP as one value keeps the chunks once more.
//!
//! **On retraction.** An id is in the set as long as its rows sum to more than zero. A group without rows is gone.
//!
//! **On ties, nulls, late rows.** NULL is no id, and a negative one cannot be in a bitmap; both count as rows, and the negative
//! ones are counted. Each tick is applied as a whole; a chunk that is as before emits nothing. An id that was retracted more
//! often than inserted is out of the set until its rows sum to more than zero again.
//!
//! **Example.** Group `a` with ids `1, 5, 5, NULL`: cardinality 2; when one `5` goes nothing changes, with the other it is 1.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::chunk::{Chunk, ids_row};
use super::store::{ChunkStore, TickUpdates, per_tick};
use super::{SetResult, assemble};
use deltaworks_dataflow::bitmap::Container;
use deltaworks_dataflow::{DataType, Datum, Diff, KeyedCollection, Row};

/// Keeps the set of each key's ids; `negative` is how many rows on this worker have a negative id now.
pub fn group_bitmap<'s>(
    ids: KeyedCollection<'s>,
    result: SetResult,
    negative: Rc<Cell<i64>>,
    name: &str,
) -> KeyedCollection<'s> {
    if result == SetResult::Bitmap {
        return assemble(group_bitmap_chunks(ids, negative, name), result, name);
    }
    let mut sets = Sets::new(negative);
    per_tick(ids, name, move |updates, emit| {
        sets.add_all(&updates, false);
        sets.emit_cardinalities(emit);
    })
}

/// Keeps the set of each key's ids, in chunks; `negative` as for [`group_bitmap`].
pub fn group_bitmap_chunks<'s>(ids: KeyedCollection<'s>, negative: Rc<Cell<i64>>, name: &str) -> KeyedCollection<'s> {
    let mut sets = Sets::new(negative);
    per_tick(ids, name, move |updates, emit| {
        sets.add_all(&updates, true);
        sets.emit_chunks(emit);
    })
}

/// A group: how many rows and different ids it has.
#[derive(Default)]
struct Group {
    rows: i64,
    ids: i64,
    /// Both before the current tick, once that has touched the group.
    before: Option<(i64, i64)>,
}

/// A chunk of a group: the ids that are in the set, and how often those are there that are not there once or not at all.
#[derive(Default)]
struct CountedIds {
    members: Container,
    counts: BTreeMap<u16, i64>,
}

impl CountedIds {
    fn count(&self, id: u16) -> i64 {
        self.counts.get(&id).copied().unwrap_or_else(|| i64::from(self.members.contains(id)))
    }
    /// Adds to an id's count; `first` is called with the members before they change.
    fn add(&mut self, id: u16, diff: Diff, first: impl FnOnce(&Container)) -> i64 {
        let before = self.count(id);
        let after = before.wrapping_add(diff);
        if after == 0 || after == 1 {
            self.counts.remove(&id);
        } else {
            self.counts.insert(id, after);
        }
        let change = i64::from(after > 0) - i64::from(before > 0);
        if change != 0 {
            first(&self.members);
            if change > 0 {
                self.members.insert(id)
            } else {
                self.members.remove(id)
            };
        }
        change
    }
    fn is_blank(&self) -> bool {
        self.members.is_empty() && self.counts.is_empty()
    }
}

/// An update, decoded: the group's number, the id and the difference.
type Entry = (u32, u64, Diff);

/// The sets of the groups on one worker.
struct Sets {
    store: ChunkStore<Group, CountedIds>,
    negative: Rc<Cell<i64>>,
    /// The groups that the current tick touched.
    touched: Vec<u32>,
    /// The members of the chunks that the tick changed, before it; by group and high bits.
    old: Vec<((u32, u64), Container)>,
}

impl Sets {
    fn new(negative: Rc<Cell<i64>>) -> Self {
        Sets { store: ChunkStore::new(), negative, touched: Vec::new(), old: Vec::new() }
    }
    /// Applies a tick. `keep_old` is whether the chunks that it changes are wanted as they were before.
    fn add_all(&mut self, updates: &TickUpdates<Row>, keep_old: bool) {
        let mut entries: Vec<Entry> = Vec::with_capacity(updates.len());
        let mut group: Option<(&Row, u32)> = None;
        for ((key, argument), diff) in updates {
            // Neighbours often are of one group.
            let number = match group {
                Some((last, number)) if last == key => number,
                _ => self.touch(key),
            };
            group = Some((key, number));
            let rows = &mut self.store.group_mut(number).rows;
            *rows = rows.wrapping_add(*diff);
            match Datum::decode(&mut &argument[..], &DataType::BigInt) {
                Datum::Int(id) if id >= 0 => entries.push((number, id as u64, *diff)),
                Datum::Int(_) => self.negative.set(self.negative.get().wrapping_add(*diff)),
                _ => {}
            }
        }
        entries.sort_unstable_by_key(|(number, id, _)| (*number, *id));
        for of_chunk in entries.chunk_by(|a, b| (a.0, a.1 >> 16) == (b.0, b.1 >> 16)) {
            self.add_to_chunk(of_chunk, keep_old);
        }
    }
    /// The number of the group, which the tick changes.
    fn touch(&mut self, key: &Row) -> u32 {
        let number = self.store.number(key);
        let group = self.store.group_mut(number);
        if group.before.is_none() {
            group.before = Some((group.rows, group.ids));
            self.touched.push(number);
        }
        number
    }
    /// Applies updates of one chunk, sorted by id.
    fn add_to_chunk(&mut self, entries: &[Entry], keep_old: bool) {
        let (number, high) = (entries[0].0, entries[0].1 >> 16);
        let mut change = 0;
        let mut old = None;
        self.store.change_chunk(number, high, |chunk| {
            for of_id in entries.chunk_by(|a, b| a.1 == b.1) {
                let diff = of_id.iter().fold(0, |sum: i64, entry| sum.wrapping_add(entry.2));
                change += chunk.add(of_id[0].1 as u16, diff, |members| {
                    if keep_old && old.is_none() {
                        old = Some(members.clone());
                    }
                });
            }
            !chunk.is_blank()
        });
        self.store.group_mut(number).ids += change;
        self.old.extend(old.map(|old| ((number, high), old)));
    }
    /// The touched groups in the order of their keys, and what each was before: (rows, ids). Ends the tick for them.
    fn take_touched(&mut self) -> Vec<(u32, (i64, i64))> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable_by(|a, b| self.store.key(*a).cmp(self.store.key(*b)));
        let mut before = |number| self.store.group_mut(number).before.take().unwrap_or_default();
        touched.into_iter().map(|number| (number, before(number))).collect()
    }
    fn emit_cardinalities(&mut self, emit: &mut dyn FnMut(&Row, Row, Diff)) {
        let result = |(rows, ids): (i64, i64)| (rows > 0).then_some(ids);
        for (number, before) in self.take_touched() {
            let group = self.store.group(number);
            let (old, new) = (result(before), result((group.rows, group.ids)));
            if old != new {
                let key = self.store.key(number);
                old.into_iter().for_each(|ids| emit(key, Row::pack([Datum::Int(ids)]), -1));
                new.into_iter().for_each(|ids| emit(key, Row::pack([Datum::Int(ids)]), 1));
            }
            self.release_if_blank(number);
        }
    }
    fn emit_chunks(&mut self, emit: &mut dyn FnMut(&Row, Row, Diff)) {
        let old = std::mem::take(&mut self.old);
        for (number, (rows_before, _)) in self.take_touched() {
            let (before, after) = (rows_before > 0, self.store.group(number).rows > 0);
            // Sorted: the entries that made them were.
            let from = old.partition_point(|(place, _)| place.0 < number);
            let to = old.partition_point(|(place, _)| place.0 <= number);
            let key = self.store.key(number);
            if before != after {
                emit(key, Chunk::Head.to_row(), if after { 1 } else { -1 });
            }
            for ((_, high), old) in &old[from..to] {
                let new = self.store.chunk(number, *high).map(|chunk| &chunk.members);
                if before && !old.is_empty() {
                    emit(key, ids_row(*high, old), -1);
                }
                new.filter(|new| after && !new.is_empty()).into_iter().for_each(|new| emit(key, ids_row(*high, new), 1));
            }
            if before != after {
                // Only where rows were retracted that were not there does a group come or go with chunks that stay.
                let changed = |high: u64| old[from..to].binary_search_by_key(&high, |((_, high), _)| *high).is_ok();
                for (high, chunk) in self.store.chunks_of(number) {
                    if !changed(high) && !chunk.members.is_empty() {
                        emit(key, ids_row(high, &chunk.members), if after { 1 } else { -1 });
                    }
                }
            }
            self.release_if_blank(number);
        }
    }
    fn release_if_blank(&mut self, number: u32) {
        if self.store.group(number).rows == 0 {
            self.store.release(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What counts cost nothing once they are gone, and what remains of a group that has left.
    #[test]
    fn nothing_is_kept_of_what_left() {
        let mut sets = Sets::new(Rc::default());
        let update = |id: i64, diff| ((Row::pack([Datum::str("g")]), Row::pack([Datum::Int(id)])), diff);
        sets.add_all(&vec![update(7, 3), update(8, -1), update(70_000, 1)], true);
        sets.emit_chunks(&mut |_, _, _| {});
        assert_eq!(sets.store.sizes(), (1, 2));
        sets.add_all(&vec![update(7, -2), update(8, 1), update(70_000, -1)], true);
        sets.emit_chunks(&mut |_, _, _| {});
        assert_eq!(sets.store.sizes(), (1, 1));
        assert!(sets.store.chunk(0, 0).is_some_and(|chunk| chunk.counts.is_empty()));
        sets.add_all(&vec![update(7, -1)], true);
        sets.emit_chunks(&mut |_, _, _| {});
        assert_eq!(sets.store.sizes(), (0, 0));
    }

    #[test]
    fn negative_ids_are_counted() {
        let negative: Rc<Cell<i64>> = Rc::default();
        let mut sets = Sets::new(negative.clone());
        let update = |id: i64, diff| ((Row::default(), Row::pack([Datum::Int(id)])), diff);
        sets.add_all(&vec![update(-1, 3), update(i64::MIN, 1), update(5, 1)], false);
        assert_eq!(negative.get(), 4);
        sets.add_all(&vec![update(-1, -3)], false);
        assert_eq!(negative.get(), 1);
    }

    /// Half of all ids, as they arrive, and every tenth of them twice.
    #[test]
    fn a_dense_set_takes_less_than_a_byte_per_id() {
        let mut sets = Sets::new(Rc::default());
        let row = |id: u64| ((Row::default(), Row::pack([Datum::Int((id * 2_654_435_761 % (1 << 19)) as i64)])), 1);
        (0..1 << 18).step_by(1000).for_each(|start| {
            let ids = start..(start + 1000).min(1 << 18);
            let twice = ids.clone().filter(|id| id % 10 == 0);
            sets.add_all(&ids.chain(twice).map(row).collect(), false);
        });
        let chunks: Vec<&CountedIds> = sets.store.chunks_of(0).map(|(_, chunk)| chunk).collect();
        assert_eq!(chunks.iter().map(|chunk| chunk.members.len()).sum::<u64>(), 1 << 18);
        let bytes: usize =
            chunks.iter().map(|chunk| chunk.members.size_bytes() + size_of::<((u32, u64), CountedIds)>()).sum();
        assert!(bytes < 1 << 17, "{bytes}");
        assert_eq!(chunks.iter().map(|chunk| chunk.counts.len()).sum::<usize>(), (1 << 18) / 10 + 1);
    }
}
