//! A batch of raw records, laid end to end in one allocation, so that one thread can read and another decode.

/// The timestamp of a record whose source has none, e.g. a line of a file. It sorts before all others and moves no clock.
pub const NO_TIMESTAMP: i64 = i64::MIN;

/// One raw record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// The topic's number: its place among the source's topics.
    pub topic: u32,
    /// The partition, or the file's number.
    pub partition: u32,
    /// The offset in the partition, or the line of the file, counted from 1.
    pub offset: u64,
    /// Milliseconds since 1970, or [`NO_TIMESTAMP`].
    pub timestamp: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; None is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers as JSON text; rarely there, rarely read.
    pub headers: Option<&'a str>,
    /// Why this is no record although its source delivered it; `value` then holds what was delivered.
    pub broken: Option<&'a str>,
}

/// A batch of records.
#[derive(Clone, Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    topic: u32,
    partition: u32,
    offset: u64,
    timestamp: i64,
    start: usize,
    /// Lengths of key, value, headers and broken, or `ABSENT`.
    lengths: [usize; 4],
}
const ABSENT: usize = usize::MAX;

impl Records {
    /// An empty batch.
    pub fn new() -> Self {
        Records::default()
    }
    /// Adds a record.
    #[inline]
    pub fn push(&mut self, record: Record<'_>) {
        let start = self.bytes.len();
        let parts = [record.key, record.value, record.headers.map(str::as_bytes), record.broken.map(str::as_bytes)];
        let lengths = parts.map(|part| match part {
            Some(bytes) => {
                self.bytes.extend_from_slice(bytes);
                bytes.len()
            }
            None => ABSENT,
        });
        let Record { topic, partition, offset, timestamp, .. } = record;
        self.entries.push(Entry { topic, partition, offset, timestamp, start, lengths });
    }
    /// Takes over all records of another batch, behind its own.
    pub fn append(&mut self, other: &mut Records) {
        if self.is_empty() {
            std::mem::swap(self, other);
        } else {
            let start = self.bytes.len();
            self.bytes.append(&mut other.bytes);
            self.entries.extend(other.entries.drain(..).map(|entry| Entry { start: start + entry.start, ..entry }));
        }
    }
    /// The record at a place.
    #[inline]
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        self.entries.get(index).map(|entry| self.record(entry))
    }
    /// The records, in the order in which they were added.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.entries.iter().map(|entry| self.record(entry))
    }
    /// The number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// The bytes of all keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
    /// Takes all records out and keeps the space.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
    /// The largest timestamp, which a replayed clock follows.
    pub fn latest(&self) -> Option<i64> {
        self.entries.iter().map(|entry| entry.timestamp).filter(|timestamp| *timestamp != NO_TIMESTAMP).max()
    }

    #[inline]
    fn record(&self, entry: &Entry) -> Record<'_> {
        let mut rest = &self.bytes[entry.start..];
        let [key, value, headers, broken] = entry.lengths.map(|length| {
            if length == ABSENT {
                return None;
            }
            let (part, after) = rest.split_at(length);
            rest = after;
            Some(part)
        });
        Record {
            topic: entry.topic,
            partition: entry.partition,
            offset: entry.offset,
            timestamp: entry.timestamp,
            key,
            value,
            headers: headers.map(text),
            broken: broken.map(text),
        }
    }
}
fn text(part: &[u8]) -> &str {
    std::str::from_utf8(part).expect("it was pushed as text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parts = (u32, u64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Option<String>, Option<String>);

    proptest! {
        #[test]
        fn what_goes_in_comes_out(parts in proptest::collection::vec(any::<Parts>(), 0..20)) {
            let expected: Vec<Record<'_>> = parts
                .iter()
                .map(|(partition, offset, timestamp, key, value, headers, broken)| Record {
                    topic: 7,
                    partition: *partition,
                    offset: *offset,
                    timestamp: *timestamp,
                    key: key.as_deref(),
                    value: value.as_deref(),
                    headers: headers.as_deref(),
                    broken: broken.as_deref(),
                })
                .collect();
            let mut records = Records::new();
            expected.iter().for_each(|record| records.push(*record));
            prop_assert_eq!(records.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(records.get(records.len()), None);
            let mut twice = Records::new();
            for expected_length in [expected.len(), 2 * expected.len()] {
                let mut more = records.clone();
                twice.append(&mut more);
                prop_assert_eq!((twice.len(), more.len(), more.bytes()), (expected_length, 0, 0));
            }
            prop_assert_eq!(twice.iter().collect::<Vec<_>>(), [expected.clone(), expected.clone()].concat());
            records.clear();
            prop_assert_eq!((records.len(), records.bytes()), (0, 0));
        }
    }
}
