//! The bytes of a BITMAP, read and written chunk by chunk, without a set in between.
//!
//! They are the portable form of 64-bit roaring bitmaps (RoaringFormatSpec): per 2^32 ids a 32-bit bitmap, in it per 2^16 ids
//! one container as an array, as bits or as runs, behind a header that says how many members each has. What is written here is
//! canonical: the same as [`canonical_bytes`](super::canonical_bytes) of the set. What is read may be any portable bitmap.

use super::container::{ARRAY_MAX, Container, SetOperation, StoredForm};

/// Says that no container is of runs.
const WITHOUT_RUNS: u32 = 12346;
/// In the low half of a word whose high half is the number of containers less one: some are of runs.
const WITH_RUNS: u32 = 12347;
/// With runs, the offsets are left out below this number of containers.
const OFFSETS_FROM: usize = 4;
const BITS_BYTES: usize = 8192;

/// A chunk of stored bytes: the high 48 bits that its ids share, and the low 16 of each.
#[derive(Clone, Copy, Debug)]
pub struct StoredChunk<'a> {
    /// The high 48 bits.
    pub high: u64,
    form: StoredForm,
    len: u64,
    body: &'a [u8],
}

impl StoredChunk<'_> {
    /// How many ids, as the header says it.
    pub fn len(&self) -> u64 {
        self.len
    }
    /// Whether there is no id; no chunk that is written is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The ids; None where the bytes are damaged.
    pub fn container(&self) -> Option<Container> {
        let pairs = || self.body.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        let container = match self.form {
            StoredForm::Array => {
                let members: Vec<u16> = pairs().collect();
                Container::from_sorted(members.is_sorted_by(|a, b| a < b).then_some(members)?)
            }
            StoredForm::Bits => {
                Container::from_words(self.body.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)))
            }
            StoredForm::Runs(_) => Container::from_runs(pairs().step_by(2).zip(pairs().skip(1).step_by(2)))?,
        };
        (container.len() == self.len).then_some(container)
    }
}

/// The chunks of a BITMAP, ascending; None where the bytes are damaged.
pub fn chunks(mut bytes: &[u8]) -> Option<Vec<StoredChunk<'_>>> {
    let bitmaps = u64::from_le_bytes(*take(&mut bytes)?);
    let mut chunks = Vec::new();
    let mut last = None;
    for _ in 0..bitmaps {
        let high = u32::from_le_bytes(*take(&mut bytes)?);
        if last.replace(high).is_some_and(|last| last >= high) {
            return None;
        }
        read_bitmap(&mut bytes, high, &mut chunks)?;
    }
    bytes.is_empty().then_some(chunks)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(head)
}
fn take_slice<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

/// Reads the bitmap of 2^32 ids at the front.
fn read_bitmap<'a>(bytes: &mut &'a [u8], high: u32, chunks: &mut Vec<StoredChunk<'a>>) -> Option<()> {
    let cookie = u32::from_le_bytes(*take(bytes)?);
    let (count, run_marks) = if cookie == WITHOUT_RUNS {
        (u32::from_le_bytes(*take(bytes)?) as usize, &[][..])
    } else if cookie & 0xFFFF == WITH_RUNS {
        let count = (cookie >> 16) as usize + 1;
        (count, take_slice(bytes, count.div_ceil(8))?)
    } else {
        return None;
    };
    if count > 1 << 16 {
        return None;
    }
    let descriptions = take_slice(bytes, 4 * count)?.as_chunks::<4>().0;
    if run_marks.is_empty() || count >= OFFSETS_FROM {
        take_slice(bytes, 4 * count)?;
    }
    let mut last = None;
    for (index, [k0, k1, l0, l1]) in descriptions.iter().enumerate() {
        let (key, mut len) = (u16::from_le_bytes([*k0, *k1]), u64::from(u16::from_le_bytes([*l0, *l1])) + 1);
        if last.replace(key).is_some_and(|last| last >= key) {
            return None;
        }
        let is_runs = run_marks.get(index / 8).is_some_and(|mark| mark >> (index % 8) & 1 == 1);
        let (form, body) = if is_runs {
            let runs = usize::from(u16::from_le_bytes(*take(bytes)?));
            let body = take_slice(bytes, 4 * runs)?;
            len = body.as_chunks::<4>().0.iter().map(|run| u64::from(u16::from_le_bytes([run[2], run[3]])) + 1).sum();
            (StoredForm::Runs(runs), body)
        } else if len as usize <= ARRAY_MAX {
            (StoredForm::Array, take_slice(bytes, 2 * len as usize)?)
        } else {
            (StoredForm::Bits, take_slice(bytes, BITS_BYTES)?)
        };
        chunks.push(StoredChunk { high: u64::from(high) << 16 | u64::from(key), form, len, body });
    }
    Some(())
}

/// The canonical bytes of the chunks, ascending by high bits; empty ones are left out.
pub fn from_chunks<'a>(chunks: impl IntoIterator<Item = (u64, &'a Container)>) -> Vec<u8> {
    let described: Vec<(u64, StoredForm, &Container)> = chunks
        .into_iter()
        .filter(|(_, container)| !container.is_empty())
        .map(|(high, container)| (high, container.stored_form(), container))
        .collect();
    let bitmaps = || described.chunk_by(|a, b| a.0 >> 16 == b.0 >> 16);
    let mut out = Vec::with_capacity(8 + bitmaps().map(|chunks| 4 + bitmap_size(chunks)).sum::<usize>());
    out.extend_from_slice(&(bitmaps().count() as u64).to_le_bytes());
    for chunks in bitmaps() {
        out.extend_from_slice(&((chunks[0].0 >> 16) as u32).to_le_bytes());
        write_bitmap(chunks, &mut out);
    }
    out
}

type Described<'a> = (u64, StoredForm, &'a Container);

fn has_runs(chunks: &[Described<'_>]) -> bool {
    chunks.iter().any(|(_, form, _)| matches!(form, StoredForm::Runs(_)))
}
fn header_size(chunks: &[Described<'_>]) -> usize {
    let count = chunks.len();
    match has_runs(chunks) {
        true => 4 + count.div_ceil(8) + if count >= OFFSETS_FROM { 8 * count } else { 4 * count },
        false => 8 + 8 * count,
    }
}
fn body_size((_, form, container): &Described<'_>) -> usize {
    match form {
        StoredForm::Array => 2 * container.len() as usize,
        StoredForm::Bits => BITS_BYTES,
        StoredForm::Runs(runs) => 2 + 4 * runs,
    }
}
fn bitmap_size(chunks: &[Described<'_>]) -> usize {
    header_size(chunks) + chunks.iter().map(body_size).sum::<usize>()
}
fn write_bitmap(chunks: &[Described<'_>], out: &mut Vec<u8>) {
    let runs = has_runs(chunks);
    if runs {
        out.extend_from_slice(&(WITH_RUNS | (chunks.len() as u32 - 1) << 16).to_le_bytes());
        for eight in chunks.chunks(8) {
            let mark = |(index, chunk): (usize, &Described<'_>)| u8::from(matches!(chunk.1, StoredForm::Runs(_))) << index;
            out.push(eight.iter().enumerate().map(mark).sum());
        }
    } else {
        out.extend_from_slice(&WITHOUT_RUNS.to_le_bytes());
        out.extend_from_slice(&(chunks.len() as u32).to_le_bytes());
    }
    for (high, _, container) in chunks {
        out.extend_from_slice(&(*high as u16).to_le_bytes());
        out.extend_from_slice(&((container.len() - 1) as u16).to_le_bytes());
    }
    if !runs || chunks.len() >= OFFSETS_FROM {
        let mut offset = header_size(chunks);
        for chunk in chunks {
            out.extend_from_slice(&(offset as u32).to_le_bytes());
            offset += body_size(chunk);
        }
    }
    chunks.iter().for_each(|(_, form, container)| container.write(*form, out));
}

/// How many ids a BITMAP holds, from its headers alone; None where the bytes are damaged.
pub fn cardinality(bytes: &[u8]) -> Option<u64> {
    Some(chunks(bytes)?.iter().map(StoredChunk::len).sum())
}
/// The BITMAP that the operation makes of two; None where their bytes are damaged.
pub fn combine(operation: SetOperation, a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let mut combined: Vec<(u64, Container)> = Vec::new();
    pair_up(&chunks(a)?, &chunks(b)?, |high, a, b| {
        let container = match (a, b, operation.keeps()) {
            (Some(a), Some(b), _) => a.container()?.combine(operation, &b.container()?),
            (Some(one), None, (true, _)) | (None, Some(one), (_, true)) => one.container()?,
            _ => return Some(()),
        };
        combined.push((high, container));
        Some(())
    })?;
    Some(from_chunks(combined.iter().map(|(high, container)| (*high, container))))
}
/// How many ids [`combine`] would give; None where the bytes are damaged.
pub fn combined_cardinality(operation: SetOperation, a: &[u8], b: &[u8]) -> Option<u64> {
    let mut sum = 0;
    pair_up(&chunks(a)?, &chunks(b)?, |_, a, b| {
        sum += match (a, b, operation.keeps()) {
            (Some(a), Some(b), _) => a.container()?.combined_len(operation, &b.container()?),
            (Some(one), None, (true, _)) | (None, Some(one), (_, true)) => one.len(),
            _ => 0,
        };
        Some(())
    })?;
    Some(sum)
}
/// Calls `each` for every high part that one of the two has, ascending; stops where it returns None.
fn pair_up<'a, 'b>(
    mut a: &'b [StoredChunk<'a>],
    mut b: &'b [StoredChunk<'a>],
    mut each: impl FnMut(u64, Option<&'b StoredChunk<'a>>, Option<&'b StoredChunk<'a>>) -> Option<()>,
) -> Option<()> {
    let first = |chunks: &[StoredChunk<'_>]| chunks.first().map_or(u64::MAX, |chunk| chunk.high);
    while !(a.is_empty() && b.is_empty()) {
        let high = first(a).min(first(b));
        let of_a = a.split_off(..usize::from(first(a) == high)).and_then(<[_]>::first);
        let of_b = b.split_off(..usize::from(first(b) == high)).and_then(<[_]>::first);
        each(high, of_a, of_b)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitmap::canonical_bytes;
    use proptest::prelude::*;
    use roaring::RoaringTreemap;

    /// Sets with arrays, bits and runs, in few and in many chunks, on both sides of 2^32.
    fn sets() -> impl Strategy<Value = RoaringTreemap> {
        let range = (prop_oneof![0u64..400_000, (1u64 << 32) - 70_000..(1u64 << 32) + 70_000], 0u64..90_000, 1u64..4);
        let single = prop_oneof![0u64..400_000, any::<u64>(), u64::MAX - 3..=u64::MAX];
        (proptest::collection::vec(range, 0..4), proptest::collection::vec(single, 0..30)).prop_map(|(ranges, singles)| {
            let mut set: RoaringTreemap = singles.into_iter().collect();
            ranges.into_iter().for_each(|(start, size, step)| set.extend((start..start + size).step_by(step as usize)));
            set
        })
    }
    fn containers(bytes: &[u8]) -> Option<Vec<(u64, Container)>> {
        chunks(bytes)?.iter().map(|chunk| Some((chunk.high, chunk.container()?))).collect()
    }
    fn write(chunks: &[(u64, Container)]) -> Vec<u8> {
        from_chunks(chunks.iter().map(|(high, container)| (*high, container)))
    }

    #[test]
    fn damage_is_seen() {
        let array = canonical_bytes(&RoaringTreemap::from_iter([1, 65_541]));
        assert!(containers(&array).is_some());
        assert!(containers(&[&array[..], &[0]].concat()).is_none(), "bytes behind the end");
        let mut keys = array.clone();
        // Behind the number of bitmaps, the high half, the cookie and the number of containers: a key and a cardinality each.
        keys[24] = 0;
        assert!(containers(&keys).is_none(), "two containers with one key");
        let mut bits = canonical_bytes(&(0..65_536).step_by(2).collect());
        *bits.last_mut().expect("there are bytes") ^= 1;
        assert!(containers(&bits).is_none(), "another cardinality than the header says");
    }

    proptest! {
        #[test]
        fn chunks_are_those_of_the_set(set in sets()) {
            let bytes = canonical_bytes(&set);
            let read = containers(&bytes).expect("canonical bytes");
            let ids = read.iter().flat_map(|(high, container)| container.iter().map(move |low| high << 16 | u64::from(low)));
            prop_assert_eq!(ids.collect::<RoaringTreemap>(), set.clone());
            prop_assert_eq!(write(&read), bytes.clone());
            prop_assert_eq!(cardinality(&bytes), Some(set.len()));
            // Portable bytes need not be canonical.
            let mut plain = Vec::new();
            set.serialize_into(&mut plain).expect("a vector takes everything");
            prop_assert_eq!(write(&containers(&plain).expect("portable bytes")), bytes);
        }
        #[test]
        fn operations_are_those_of_sets(a in sets(), b in sets()) {
            use SetOperation::{And, AndNot, Or, Xor};
            let (left, right) = (canonical_bytes(&a), canonical_bytes(&b));
            for (operation, expected) in [(And, &a & &b), (Or, &a | &b), (Xor, &a ^ &b), (AndNot, &a - &b)] {
                prop_assert_eq!(combine(operation, &left, &right), Some(canonical_bytes(&expected)), "{:?}", operation);
                prop_assert_eq!(combined_cardinality(operation, &left, &right), Some(expected.len()));
            }
        }
        #[test]
        fn damaged_bytes_are_refused_or_read(set in sets(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>()) {
            let mut bytes = canonical_bytes(&set);
            prop_assert_eq!(chunks(&bytes[..cut.index(bytes.len())]).is_none(), true);
            for (at, byte) in changes {
                let at = at.index(bytes.len().min(60));
                bytes[at] = byte;
            }
            if let Some(read) = containers(&bytes) {
                prop_assert!(containers(&write(&read)).is_some());
            }
        }
    }
}
