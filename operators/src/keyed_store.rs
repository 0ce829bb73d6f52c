//! A keyed store: one row per key, all rows in one arena.
//!
//! Rows lie in blocks of 1 MiB, which are never moved, so that growing copies the table alone: an open-addressing table of
//! one word per row, 28 bits of the key's hash beside the row's 36-bit address in units of 4 bytes. A lookup compares hash
//! bits in the table and touches a row only if they agree. The key is not stored beside the row: it is columns of it.
//!
//! A replaced row of another size leaves garbage behind; once more than half of the arena is garbage, the live rows move
//! together. One million rows of 66 bytes take about 90 MB, the table's growth included.
//!
//! Callers pass the key's [`hash_bytes`] along, which they have computed already to route the row.

use hashbrown::HashTable;

use deltaworks_dataflow::row::{field_len, hash_bytes, project};

/// Which columns of a row are its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumns {
    columns: Vec<usize>,
    shape: Shape,
}
/// Where the key's bytes are in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Prefix,
    Slice,
    Scattered,
}

impl KeyColumns {
    /// The key made of these columns, in this order; no column means that all rows share the empty key.
    pub fn new(columns: Vec<usize>) -> Self {
        let contiguous = columns.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        let shape = match columns.first() {
            _ if !contiguous => Shape::Scattered,
            None | Some(0) => Shape::Prefix,
            Some(_) => Shape::Slice,
        };
        KeyColumns { columns, shape }
    }
    /// The key is what comes first in a row; only its users know how long it is.
    pub fn leading() -> Self {
        KeyColumns::new(Vec::new())
    }
    /// The columns, in key order.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }
    /// The key of a full row; `scratch` holds it where it is no slice of the row.
    pub fn key_of<'a>(&self, row: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if self.shape != Shape::Scattered {
            return self.slice_of(row);
        }
        scratch.clear();
        project(row, &self.columns, scratch);
        scratch
    }
    /// The hash of a full row's key.
    pub fn hash_of(&self, row: &[u8], scratch: &mut Vec<u8>) -> u64 {
        hash_bytes(self.key_of(row, scratch))
    }
    fn slice_of<'a>(&self, row: &'a [u8]) -> &'a [u8] {
        let mut start = 0;
        for _ in 0..self.columns.first().copied().unwrap_or(0) {
            start += field_len(&row[start..]);
        }
        let mut end = start;
        for _ in &self.columns {
            end += field_len(&row[end..]);
        }
        &row[start..end]
    }
    /// Whether the full row has this key.
    fn matches(&self, row: &[u8], key: &[u8]) -> bool {
        match self.shape {
            // Fields delimit themselves: a row that begins with the key's bytes begins with the key's fields.
            Shape::Prefix => row.starts_with(key),
            Shape::Slice => self.slice_of(row) == key,
            Shape::Scattered => self.key_of(row, &mut Vec::new()) == key,
        }
    }
}

/// Where a row lies in its [`KeyedStore`]; valid until the store is next compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u64);

const ADDRESS_BITS: u32 = 36;
/// A table entry: hash bits and address.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    fn new(tag: u64, address: u64) -> Self {
        Entry(tag << ADDRESS_BITS | address)
    }
    fn tag(self) -> u64 {
        self.0 >> ADDRESS_BITS
    }
    fn address(self) -> u64 {
        self.0 & ((1 << ADDRESS_BITS) - 1)
    }
}
fn tag_of(hash: u64) -> u64 {
    hash >> ADDRESS_BITS
}
/// The table's own hash is made of the tag alone, so that growing never reads a row.
fn spread(tag: u64) -> u64 {
    tag.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Rows by key.
pub struct KeyedStore {
    columns: KeyColumns,
    keys_only: bool,
    table: HashTable<Entry>,
    arena: Arena,
}

impl KeyedStore {
    /// An empty store of full rows.
    pub fn new(columns: KeyColumns) -> Self {
        KeyedStore { columns, keys_only: false, table: HashTable::new(), arena: Arena::default() }
    }
    /// An empty store that keeps the key of each row and nothing else.
    pub fn keys_only(columns: KeyColumns) -> Self {
        KeyedStore { keys_only: true, ..KeyedStore::new(columns) }
    }
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.table.len()
    }
    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
    /// Bytes held, garbage and reserve included.
    pub fn size_bytes(&self) -> usize {
        self.table.allocation_size() + self.arena.blocks.iter().map(Vec::capacity).sum::<usize>()
    }
    /// Where the row of this key lies.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        let tag = tag_of(hash);
        let entry = self.table.find(spread(tag), |entry| entry.tag() == tag && self.has_key(entry.address(), key))?;
        Some(Slot(entry.address()))
    }
    /// The row of this key (the key itself in a store of keys).
    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&[u8]> {
        self.find(hash, key).map(|slot| self.at(slot))
    }
    /// The row in this slot.
    #[inline]
    pub fn at(&self, slot: Slot) -> &[u8] {
        self.arena.get(slot.0)
    }
    /// The row in this slot, to change what is not its key.
    #[inline]
    pub fn at_mut(&mut self, slot: Slot) -> &mut [u8] {
        self.arena.get_mut(slot.0)
    }
    fn has_key(&self, address: u64, key: &[u8]) -> bool {
        let row = self.arena.get(address);
        if self.keys_only { row == key } else { self.columns.matches(row, key) }
    }
    /// Adds a row whose key is not in the store yet.
    pub fn insert(&mut self, hash: u64, key: &[u8], row: &[u8]) -> Slot {
        let address = self.arena.push(if self.keys_only { key } else { row });
        let tag = tag_of(hash);
        self.table.insert_unique(spread(tag), Entry::new(tag, address), |entry| spread(entry.tag()));
        Slot(address)
    }
    /// Puts the row in the place of the one with its key, or adds it.
    pub fn replace(&mut self, hash: u64, key: &[u8], row: &[u8]) {
        self.put(self.find(hash, key), hash, key, row);
    }
    /// As [`replace`](Self::replace), where [`find`](Self::find) has just returned `slot` for the key.
    pub fn put(&mut self, slot: Option<Slot>, hash: u64, key: &[u8], row: &[u8]) {
        let Some(slot) = slot else {
            self.insert(hash, key, row);
            return;
        };
        if self.keys_only || self.arena.overwrite(slot.0, row) {
            return;
        }
        let (tag, address) = (tag_of(hash), self.arena.push(row));
        self.arena.discard(slot.0);
        let entry = self.table.find_mut(spread(tag), |entry| entry.address() == slot.0);
        *entry.expect("the row was found above") = Entry::new(tag, address);
        self.compact_if_worthwhile();
    }
    /// Takes the row of this key out; false where there is none.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        let Some(slot) = self.find(hash, key) else { return false };
        if let Ok(entry) = self.table.find_entry(spread(tag_of(hash)), |entry| entry.address() == slot.0) {
            entry.remove();
        }
        self.arena.discard(slot.0);
        self.compact_if_worthwhile();
        true
    }
    /// All rows, in no particular order: whoever cares sorts them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.table.iter().map(|entry| self.arena.get(entry.address()))
    }
    fn compact_if_worthwhile(&mut self) {
        if self.arena.garbage > self.arena.used / 2 && self.arena.used > BLOCK {
            self.compact();
        }
    }
    /// Moves the live rows together, in the order of their addresses, and frees each block as soon as it is empty.
    fn compact(&mut self) {
        let mut entries: Vec<Entry> = self.table.drain().collect();
        entries.sort_unstable_by_key(|entry| entry.address());
        let mut compacted = Arena::default();
        let mut freed = 0;
        for entry in entries {
            let block = (entry.address() >> BLOCK_BITS) as usize;
            self.arena.blocks[freed..block].iter_mut().for_each(|block| *block = Vec::new());
            freed = block;
            let moved = Entry::new(entry.tag(), compacted.push(self.arena.get(entry.address())));
            self.table.insert_unique(spread(entry.tag()), moved, |entry| spread(entry.tag()));
        }
        self.arena = compacted;
    }
}

const BLOCK: usize = 1 << 20;
const UNIT: usize = 4;
/// Bits of an address that say where in its block a row begins, in units.
const BLOCK_BITS: u32 = (BLOCK / UNIT).trailing_zeros();
/// A length of this or more is written as this byte and four bytes of length.
const LONG: usize = 255;

/// Byte strings in blocks, each with its length before it. A string longer than a block has one of its own.
#[derive(Default)]
struct Arena {
    blocks: Vec<Vec<u8>>,
    used: usize,
    garbage: usize,
}

/// The space a string of this length takes.
fn footprint(len: usize) -> usize {
    (len + if len < LONG { 1 } else { 5 }).next_multiple_of(UNIT)
}

impl Arena {
    fn push(&mut self, bytes: &[u8]) -> u64 {
        let size = footprint(bytes.len());
        self.used += size;
        if self.blocks.last().is_none_or(|block| block.len() + size > BLOCK) {
            // The first block grows by doubling: most stores are small.
            let capacity = if self.blocks.is_empty() { size } else { BLOCK.max(size) };
            self.blocks.push(Vec::with_capacity(capacity));
        }
        let index = self.blocks.len() - 1;
        let block = &mut self.blocks[index];
        let start = block.len();
        if bytes.len() < LONG {
            block.push(bytes.len() as u8);
        } else {
            block.push(LONG as u8);
            block.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        }
        block.extend_from_slice(bytes);
        block.resize(start + size, 0);
        (index as u64) << BLOCK_BITS | (start / UNIT) as u64
    }
    /// The block of an address, and where in it the string's bytes are.
    #[inline]
    fn locate(&self, address: u64) -> (usize, std::ops::Range<usize>) {
        let index = (address >> BLOCK_BITS) as usize;
        let start = (address as usize & (BLOCK / UNIT - 1)) * UNIT;
        let block = &self.blocks[index];
        let short = usize::from(block[start]);
        if short < LONG {
            return (index, start + 1..start + 1 + short);
        }
        let mut length = [0; 4];
        length.copy_from_slice(&block[start + 1..start + 5]);
        (index, start + 5..start + 5 + u32::from_le_bytes(length) as usize)
    }
    #[inline]
    fn get(&self, address: u64) -> &[u8] {
        let (block, range) = self.locate(address);
        &self.blocks[block][range]
    }
    #[inline]
    fn get_mut(&mut self, address: u64) -> &mut [u8] {
        let (block, range) = self.locate(address);
        &mut self.blocks[block][range]
    }
    /// Writes the string over the one at `address` if it takes the same space.
    fn overwrite(&mut self, address: u64, bytes: &[u8]) -> bool {
        let (block, range) = self.locate(address);
        if footprint(range.len()) != footprint(bytes.len()) {
            return false;
        }
        if bytes.len() < LONG {
            self.blocks[block][range.start - 1] = bytes.len() as u8;
        } else {
            let length = (bytes.len() as u32).to_le_bytes();
            self.blocks[block][range.start - 4..range.start].copy_from_slice(&length);
        }
        self.blocks[block][range.start..range.start + bytes.len()].copy_from_slice(bytes);
        true
    }
    fn discard(&mut self, address: u64) {
        self.garbage += footprint(self.locate(address).1.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaworks_dataflow::{Datum, Row};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn row(id: i64, text: &str, size: usize) -> Row {
        Row::pack([Datum::str(text.repeat(size)), Datum::Int(id), Datum::Int(id / 7)])
    }

    fn check(columns: Vec<usize>, operations: &[(u8, i64, usize)]) {
        let columns = KeyColumns::new(columns);
        let mut store = KeyedStore::new(columns.clone());
        let mut reference: BTreeMap<Row, Row> = BTreeMap::new();
        for (kind, id, size) in operations {
            let row = row(*id, "x", *size);
            let mut scratch = Vec::new();
            let key = Row::from_bytes(columns.key_of(&row, &mut scratch));
            let hash = hash_bytes(&key);
            if *kind == 0 {
                assert_eq!(store.remove(hash, &key), reference.remove(&key).is_some());
            } else {
                store.replace(hash, &key, &row);
                reference.insert(key.clone(), row);
            }
            assert_eq!(store.get(hash, &key), reference.get(&key).map(|row| &row[..]));
        }
        let mut rows: Vec<&[u8]> = store.iter().collect();
        let mut expected: Vec<&[u8]> = reference.values().map(|row| &row[..]).collect();
        rows.sort();
        expected.sort();
        assert_eq!(rows, expected);
        assert_eq!(store.len(), expected.len());
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(
            operations in proptest::collection::vec((0u8..4, 0i64..40, prop_oneof![0usize..5, 250usize..260]), 0..300),
            key in prop_oneof![Just(vec![1]), Just(vec![1, 2]), Just(vec![2, 1])]
        ) {
            check(key, &operations);
        }
    }

    #[test]
    fn compaction_keeps_every_row() {
        let mut operations: Vec<(u8, i64, usize)> = (0..3000).map(|id| (1, id, 300 + id as usize % 3)).collect();
        operations.extend((0..3000).map(|id| (u8::from(id % 3 == 0), id, 600)));
        operations.extend((0..3000).filter(|id| id % 5 == 0).map(|id| (1, id, 100)));
        operations.push((1, 5000, 3 << 20));
        operations.extend((0..3000).map(|id| (1, id, 40)));
        check(vec![1], &operations);
    }

    #[test]
    fn garbage_is_taken_back() {
        let columns = KeyColumns::new(vec![1]);
        let mut store = KeyedStore::new(columns.clone());
        for round in 0..200 {
            for id in 0..500 {
                let row = row(id, "x", 100 + (round * 13 + id as usize) % 97);
                let mut scratch = Vec::new();
                let key = columns.key_of(&row, &mut scratch);
                store.replace(hash_bytes(key), key, &row);
            }
        }
        assert_eq!(store.len(), 500);
        assert!(store.size_bytes() < 3 * BLOCK, "{}", store.size_bytes());
    }

    #[test]
    fn a_million_rows_stay_small() {
        let mut store = KeyedStore::new(KeyColumns::leading());
        let filler = "y".repeat(57);
        let mut most = 0;
        for id in 0..1_000_000 {
            let row = Row::pack([Datum::Int(id + (1 << 40)), Datum::str(&filler[..])]);
            assert_eq!(row.len(), 66);
            let key = &row[..7];
            store.insert(hash_bytes(key), key, &row);
            if id % 10_000 == 0 {
                most = most.max(store.size_bytes());
            }
        }
        assert!(most < 92_000_000, "{most}");
    }

    #[test]
    fn a_store_of_keys_keeps_keys() {
        let mut store = KeyedStore::keys_only(KeyColumns::leading());
        let row = Row::pack([Datum::Int(5), Datum::str("long")]);
        store.insert(hash_bytes(&row[..2]), &row[..2], &row);
        assert_eq!(store.get(hash_bytes(&row[..2]), &row[..2]), Some(&row[..2]));
    }
}
