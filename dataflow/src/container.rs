//! The byte container: many rows in one allocation, read back as `&[u8]`.
//!
//! It sits inside differential's stock batches and spine. Against `Vec<Row>` it saves a pointer, a length and a heap
//! block per row, and merging copies bytes instead of chasing pointers.

use differential_dataflow::trace::implementations::{BatchContainer, OffsetList};
use timely::container::PushInto;

use crate::row::Row;

/// Rows laid end to end, with the offset of each.
pub struct RowContainer {
    offsets: OffsetList,
    bytes: Vec<u8>,
    /// How many rows were announced: sizes are not known then, so space is reserved at the first row.
    expected: usize,
}

impl RowContainer {
    fn with_space(rows: usize, bytes: usize) -> Self {
        let mut offsets = OffsetList::with_capacity(rows + 1);
        offsets.push(0);
        RowContainer { offsets, bytes: Vec::with_capacity(bytes), expected: rows }
    }
    #[inline]
    fn add(&mut self, row: &[u8]) {
        if self.bytes.capacity() == 0 && self.expected > 1 {
            self.bytes.reserve_exact(self.expected * (row.len() + 1));
        }
        self.bytes.extend_from_slice(row);
        self.offsets.push(self.bytes.len());
    }
    /// Bytes held, offsets included.
    pub fn size_bytes(&self) -> usize {
        self.bytes.capacity() + 4 * self.offsets.len()
    }
}

impl PushInto<Row> for RowContainer {
    #[inline]
    fn push_into(&mut self, row: Row) {
        self.add(&row);
    }
}

impl BatchContainer for RowContainer {
    type Owned = Row;
    type ReadItem<'a> = &'a [u8];
    #[inline(always)]
    fn into_owned(item: &[u8]) -> Row {
        Row::from_bytes(item)
    }
    #[inline(always)]
    fn reborrow<'b, 'a: 'b>(item: &'a [u8]) -> &'b [u8] {
        item
    }
    #[inline]
    fn push_ref(&mut self, item: &[u8]) {
        self.add(item);
    }
    #[inline]
    fn push_own(&mut self, item: &Row) {
        self.add(item);
    }
    fn clear(&mut self) {
        BatchContainer::clear(&mut self.offsets);
        self.offsets.push(0);
        self.bytes.clear();
    }
    fn with_capacity(size: usize) -> Self {
        Self::with_space(size, 0)
    }
    fn merge_capacity(a: &Self, b: &Self) -> Self {
        Self::with_space(a.len() + b.len(), a.bytes.len() + b.bytes.len())
    }
    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets.index(index)..self.offsets.index(index + 1)]
    }
    #[inline]
    fn len(&self) -> usize {
        self.offsets.len() - 1
    }
}
