//! How a bitmap travels as rows: a head, and one row per 65,536 ids.
//!
//! **Definition.** The bitmaps of a group are rows of two fields: the high 48 bits that the ids of the chunk share, a BIGINT, and
//! the ids as a BITMAP of their own. Each bitmap also has one row that says that it is there, even if it is empty:
//!
//! | high | bitmap | means |
//! |---|---|---|
//! | 0 .. 2^48 - 1 | not empty | these ids are in a bitmap of the group |
//! | NULL | empty | the head of a bitmap: there is one |
//! | NULL | NULL | a bitmap that is NULL |
//!
//! A group with several bitmaps is the sum of their rows, so a collection of chunks says how many bitmaps there are, and not
//! which chunk is whose: [`fold_chunks`](super::fold_chunks) needs no more.
//!
//! **State.** None: [`into_chunks`] is a map. **On retraction**: every row of the bitmap is retracted; what its successor has too
//! cancels. **On ties, nulls, late rows**: bytes that are no bitmap count as an empty one.
//!
//! **Example.** The bitmap {1, 5, 65536} of a group is `(NULL, {})`, `(0, {1, 5})` and `(1, {65536})`.

use deltaworks_dataflow::bitmap::{Container, chunks, from_chunks};
use deltaworks_dataflow::row::{encode_bitmap, encode_int, encode_null, split_field};
use deltaworks_dataflow::{DataType, Datum, Diff, KeyedCollection, Row};
use std::borrow::Cow;

/// What a row of a bitmap that travels in chunks says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// There is a bitmap.
    Head,
    /// There is a bitmap that is NULL.
    Null,
    /// These ids are in a bitmap: their high 48 bits, and the low 16 of each.
    Ids(u64, Container),
}

impl Chunk {
    /// The row of this chunk.
    pub fn to_row(&self) -> Row {
        match self {
            Chunk::Head => head(true),
            Chunk::Null => head(false),
            Chunk::Ids(high, ids) => ids_row(*high, ids),
        }
    }
    /// Reads a chunk's row.
    pub fn from_row(row: &[u8]) -> Chunk {
        match Raw::read(row) {
            Raw::Head => Chunk::Head,
            Raw::Null => Chunk::Null,
            Raw::Ids(high, bytes) => Chunk::Ids(high, Raw::container(bytes)),
        }
    }
}

/// A chunk's row, the ids as their bytes.
pub(super) enum Raw<'a> {
    Head,
    Null,
    Ids(u64, &'a [u8]),
}

impl<'a> Raw<'a> {
    pub(super) fn read(mut row: &'a [u8]) -> Raw<'a> {
        let high = Datum::decode(&mut row, &DataType::BigInt);
        match (high, Datum::decode(&mut row, &DataType::Bitmap)) {
            (Datum::Int(high), Datum::Bitmap(Cow::Borrowed(bytes))) => Raw::Ids(high as u64, bytes),
            (_, Datum::Null) => Raw::Null,
            _ => Raw::Head,
        }
    }
    /// The ids of a chunk's bytes.
    pub(super) fn container(bytes: &[u8]) -> Container {
        chunks(bytes).and_then(|chunks| chunks.first()?.container()).unwrap_or_default()
    }
}

/// What stands in a row for a bitmap that travels in chunks: the key of its group, as a field that is never NULL.
pub fn handle(key: &[u8]) -> Row {
    let mut field = Vec::with_capacity(key.len() + 5);
    encode_bitmap(&mut field, key);
    Row::from_bytes(&field)
}

/// The key that a [`handle`] stands for.
pub fn handle_key(handle: &Row) -> Row {
    match Datum::decode(&mut &handle[..], &DataType::Bitmap) {
        Datum::Bitmap(key) => Row::from_bytes(&key),
        _ => Row::default(),
    }
}

/// The bitmap, a row of one field, that all chunks of a set make.
pub fn whole(mut chunks: Vec<Chunk>) -> Row {
    chunks.sort_by_key(|chunk| if let Chunk::Ids(high, _) = chunk { *high } else { 0 });
    let ids = chunks.iter().filter_map(|chunk| if let Chunk::Ids(high, ids) = chunk { Some((*high, ids)) } else { None });
    let mut field = Vec::new();
    encode_bitmap(&mut field, &from_chunks(ids));
    Row::from_bytes(&field)
}

/// How many bitmaps a group has, and how many that are NULL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heads {
    pub(super) set: i64,
    pub(super) null: i64,
}

impl Heads {
    pub(super) fn add(&mut self, head: &Raw<'_>, diff: Diff) {
        match head {
            Raw::Head => self.set = self.set.wrapping_add(diff),
            Raw::Null => self.null = self.null.wrapping_add(diff),
            Raw::Ids(..) => {}
        }
    }
    /// Of a group that has at most one bitmap: whether it is not NULL; None where there is none.
    pub(super) fn state(&self) -> Option<bool> {
        (self.set > 0 || self.null > 0).then_some(self.set > 0)
    }
}

/// The row that says that there is a bitmap, or (not `set`) one that is NULL.
fn head(set: bool) -> Row {
    let mut row = Vec::with_capacity(16);
    encode_null(&mut row);
    if set {
        encode_bitmap(&mut row, &from_chunks([]))
    } else {
        encode_null(&mut row)
    }
    Row::from_bytes(&row)
}
/// The row of a chunk with ids.
pub(super) fn ids_row(high: u64, ids: &Container) -> Row {
    let bytes = from_chunks([(high, ids)]);
    let mut row = Vec::with_capacity(bytes.len() + 14);
    encode_int(&mut row, high as i64);
    encode_bitmap(&mut row, &bytes);
    Row::from_bytes(&row)
}
/// Emits what turns the chunk `old` into `new`.
pub(super) fn emit_change(high: u64, old: &Container, new: &Container, emit: &mut impl FnMut(Row, Diff)) {
    if old != new {
        let present = [(old, -1), (new, 1)].into_iter().filter(|(ids, _)| !ids.is_empty());
        present.for_each(|(ids, diff)| emit(ids_row(high, ids), diff));
    }
}

/// Takes whole bitmaps, one field per row, apart.
pub fn into_chunks(bitmaps: KeyedCollection<'_>) -> KeyedCollection<'_> {
    bitmaps.flat_map(|(group, row)| {
        let rows: Vec<(Row, Row)> = rows_of(&row).into_iter().map(|row| (group.clone(), row)).collect();
        rows
    })
}
fn rows_of(mut row: &[u8]) -> Vec<Row> {
    let Datum::Bitmap(bytes) = Datum::decode(&mut split_field(&mut row), &DataType::Bitmap) else {
        return vec![head(false)];
    };
    let mut rows = vec![head(true)];
    let ids = chunks(&bytes).unwrap_or_default();
    rows.extend(ids.iter().filter_map(|chunk| Some(ids_row(chunk.high, &chunk.container()?))));
    rows
}
