//! The byte container: many rows in one allocation, read back as `&[u8]`.
//!
//! It sits inside differential's stock batches and spine. Against `Vec<Row>` it saves a pointer, a length and a heap
//! block per row, and merging copies bytes instead of chasing pointers.

use differential_dataflow::trace::implementations::BatchContainer;
use timely::container::PushInto;

use crate::row::Row;

/// Rows laid end to end, with the offset of each.
pub struct RowContainer {
    offsets: Offsets,
    bytes: Vec<u8>,
    /// How many rows were announced: sizes are not known then, so space is reserved at the first row.
    expected: usize,
}

impl RowContainer {
    fn with_space(rows: usize, bytes: usize) -> Self {
        let mut offsets = Offsets::with_capacity(rows + 1);
        offsets.add(0);
        RowContainer { offsets, bytes: Vec::with_capacity(bytes), expected: rows }
    }
    #[inline]
    fn add(&mut self, row: &[u8]) {
        if self.bytes.capacity() == 0 && self.expected > 1 {
            self.bytes.reserve_exact(self.expected * (row.len() + 1));
        }
        self.bytes.extend_from_slice(row);
        self.offsets.add(self.bytes.len());
    }
    /// Bytes held, offsets included.
    pub fn size_bytes(&self) -> usize {
        self.bytes.capacity() + self.offsets.size_bytes()
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
        self.offsets.clear();
        self.offsets.add(0);
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

/// Ascending offsets, four bytes each up to 4 GiB. The stock list does the same, but its functions are not inlined into
/// other crates, and seeks and merges call them for every row.
#[derive(Default)]
pub struct Offsets {
    small: Vec<u32>,
    /// Those from the first on that does not fit into `small`.
    large: Vec<u64>,
}

impl Offsets {
    #[inline]
    fn add(&mut self, offset: usize) {
        match u32::try_from(offset) {
            Ok(offset) if self.large.is_empty() => self.small.push(offset),
            _ => self.large.push(offset as u64),
        }
    }
    fn size_bytes(&self) -> usize {
        4 * self.small.capacity() + 8 * self.large.capacity()
    }
}

impl PushInto<usize> for Offsets {
    #[inline]
    fn push_into(&mut self, offset: usize) {
        self.add(offset);
    }
}

impl BatchContainer for Offsets {
    type Owned = usize;
    type ReadItem<'a> = usize;
    #[inline(always)]
    fn into_owned(item: usize) -> usize {
        item
    }
    #[inline(always)]
    fn reborrow<'b, 'a: 'b>(item: usize) -> usize {
        item
    }
    #[inline]
    fn push_ref(&mut self, item: usize) {
        self.add(item);
    }
    #[inline]
    fn push_own(&mut self, item: &usize) {
        self.add(*item);
    }
    fn clear(&mut self) {
        self.small.clear();
        self.large.clear();
    }
    fn with_capacity(size: usize) -> Self {
        Offsets { small: Vec::with_capacity(size), large: Vec::new() }
    }
    fn merge_capacity(a: &Self, b: &Self) -> Self {
        Self::with_capacity(a.len() + b.len())
    }
    #[inline]
    fn index(&self, index: usize) -> usize {
        match self.small.get(index) {
            Some(offset) => *offset as usize,
            None => self.large[index - self.small.len()] as usize,
        }
    }
    #[inline]
    fn len(&self) -> usize {
        self.small.len() + self.large.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_beyond_four_gibibytes() {
        let given = [0, 7, u32::MAX as usize, u32::MAX as usize + 1, 9, usize::MAX];
        let mut offsets = Offsets::with_capacity(2);
        given.iter().for_each(|offset| offsets.push_ref(*offset));
        let taken: Vec<usize> = (0..offsets.len()).map(|index| offsets.index(index)).collect();
        assert_eq!(taken, given);
        offsets.clear();
        assert_eq!((offsets.len(), offsets.get(0)), (0, None));
    }
}
