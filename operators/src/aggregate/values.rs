//! The values of a group, each with how often it is there: what MIN, MAX and COUNT(DISTINCT) read.
//!
//! A few values are one string of bytes, each value followed by its count as a variable-length number: six dates take 30 bytes.
//! When it gets long, they move into a tree, and back when the tree is empty.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use deltaworks_dataflow::row::field_len;
use deltaworks_dataflow::{Diff, Row};

/// More bytes than this are searched in a tree.
const FEW: usize = 256;

/// Values by their encoding, in its order. A count may be negative for a while; zero is not kept.
#[derive(Debug)]
pub(super) enum Values {
    Few(Few),
    Many { counts: BTreeMap<Row, Diff>, present: usize },
}

impl Default for Values {
    fn default() -> Self {
        Values::Few(Few::default())
    }
}

impl Values {
    /// Adds `diff` copies of a value of one field.
    pub(super) fn add(&mut self, value: &[u8], diff: Diff) {
        match self {
            Values::Few(few) => {
                few.add(value, diff);
                if few.bytes.len() > FEW {
                    let counts = entries(&few.bytes).map(|(value, count)| (Row::from_bytes(value), count)).collect();
                    *self = Values::Many { counts, present: few.present as usize };
                }
            }
            Values::Many { counts, present } => {
                let row = Row::from_bytes(value);
                let count = counts.entry(row.clone()).or_default();
                let before = *count;
                *count += diff;
                *present = *present + usize::from(*count > 0) - usize::from(before > 0);
                if *count == 0 {
                    counts.remove(&row);
                }
                if counts.is_empty() {
                    *self = Values::default();
                }
            }
        }
    }
    /// Whether nothing is held, as if nothing had ever been added.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Values::Few(few) if few.bytes.is_empty())
    }
    /// How many different values are there.
    pub(super) fn distinct(&self) -> usize {
        match self {
            Values::Few(few) => few.present as usize,
            Values::Many { present, .. } => *present,
        }
    }
    /// The smallest value that is there.
    pub(super) fn first(&self) -> Option<&[u8]> {
        match self {
            Values::Few(few) => entries(&few.bytes).find(|(_, count)| *count > 0).map(|(value, _)| value),
            Values::Many { counts, .. } => counts.iter().find(|(_, count)| **count > 0).map(|(value, _)| &value[..]),
        }
    }
    /// The greatest value that is there.
    pub(super) fn last(&self) -> Option<&[u8]> {
        match self {
            Values::Few(few) => few.last_present(),
            Values::Many { counts, .. } => counts.iter().rev().find(|(_, count)| **count > 0).map(|(value, _)| &value[..]),
        }
    }
}

/// The values and their counts in a string of them.
fn entries(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], Diff)> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let (value, rest) = bytes.split_at(field_len(bytes));
        let (count, size) = read_count(rest);
        bytes = &rest[size..];
        Some((value, count))
    })
}

/// Values and their counts as one string.
#[derive(Debug, Default)]
pub(super) struct Few {
    bytes: Vec<u8>,
    /// How many counts are above zero.
    present: u32,
    /// Where the last value begins.
    last: u32,
}

impl Few {
    fn add(&mut self, value: &[u8], diff: Diff) {
        let mut start = 0;
        while start < self.bytes.len() {
            let field = field_len(&self.bytes[start..]);
            let (count, size) = read_count(&self.bytes[start + field..]);
            let end = start + field + size;
            match self.bytes[start..start + field].cmp(value) {
                Ordering::Less => start = end,
                Ordering::Greater => break,
                Ordering::Equal => return self.change(start, start + field, end, count, count + diff),
            }
        }
        if diff != 0 {
            let (written, size) = write_count(diff);
            let at_end = start == self.bytes.len();
            self.bytes.splice(start..start, value.iter().chain(&written[..size]).copied());
            self.last = if at_end { start as u32 } else { self.last + (value.len() + size) as u32 };
            self.present += u32::from(diff > 0);
        }
    }
    /// Changes the count, which is at `field..end`, of the value that begins at `start`.
    fn change(&mut self, start: usize, field: usize, end: usize, before: Diff, after: Diff) {
        self.present = self.present + u32::from(after > 0) - u32::from(before > 0);
        let (written, size) = write_count(after);
        if after != 0 && size == end - field {
            self.bytes[field..end].copy_from_slice(&written[..size]);
            return;
        }
        let replaced = if after == 0 { start..end } else { field..end };
        self.bytes.splice(replaced, written[..if after == 0 { 0 } else { size }].iter().copied());
        let mut at = 0;
        while at < self.bytes.len() {
            self.last = at as u32;
            at += field_len(&self.bytes[at..]);
            at += read_count(&self.bytes[at..]).1;
        }
    }
    fn last_present(&self) -> Option<&[u8]> {
        let last = entries(&self.bytes[self.last as usize..]).next()?;
        let last = if last.1 > 0 { Some(last) } else { entries(&self.bytes).filter(|(_, count)| *count > 0).last() };
        last.map(|(value, _)| value)
    }
}

/// A count as LEB128 of its zigzag form, and how many bytes it takes.
fn write_count(count: Diff) -> ([u8; 10], usize) {
    let mut rest = ((count << 1) ^ (count >> 63)) as u64;
    let (mut bytes, mut size) = ([0; 10], 0);
    loop {
        bytes[size] = rest as u8 & 0x7f | u8::from(rest > 0x7f) << 7;
        size += 1;
        rest >>= 7;
        if rest == 0 {
            return (bytes, size);
        }
    }
}
fn read_count(bytes: &[u8]) -> (Diff, usize) {
    let (mut word, mut size) = (0u64, 0);
    for byte in bytes {
        word |= u64::from(byte & 0x7f) << (7 * size);
        size += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    ((word >> 1) as Diff ^ -((word & 1) as Diff), size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ints;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agree_with_a_map(
            changes in proptest::collection::vec((0i64..80, prop_oneof![Just(1i64), Just(-1), Just(300), Just(i64::MAX / 1000)]), 0..300)
        ) {
            let (mut values, mut naive) = (Values::default(), BTreeMap::<Row, Diff>::new());
            let undone: Vec<_> = changes.iter().rev().map(|(value, diff)| (*value, -diff)).collect();
            for (value, diff) in changes.into_iter().chain(undone) {
                let row = ints(&[Some(value * 1_000_003)]);
                values.add(&row, diff);
                *naive.entry(row).or_default() += diff;
                naive.retain(|_, count| *count != 0);
                let present: Vec<&Row> = naive.iter().filter(|(_, count)| **count > 0).map(|(row, _)| row).collect();
                prop_assert_eq!(values.distinct(), present.len());
                prop_assert_eq!(values.first(), present.first().map(|row| &row[..]));
                prop_assert_eq!(values.last(), present.last().map(|row| &row[..]));
                prop_assert_eq!(values.is_empty(), naive.is_empty());
            }
            prop_assert!(values.is_empty());
        }
    }
}
