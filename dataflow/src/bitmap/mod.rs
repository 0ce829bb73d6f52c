//! BITMAP: a set of unsigned 64-bit integers as a roaring bitmap, in the one form that a set has.
//!
//! The same set always gives the same bytes, whatever it was built from: runs are taken apart first and made again only by
//! what that gives, so no container remembers its history, and a bitmap that became empty leaves no entry.
//!
//! | file | what |
//! |---|---|
//! | `container.rs` | [`Container`]: up to 65,536 ids that share their high 48 bits |
//! | `stored.rs` | the bytes, read and written chunk by chunk: set operations without a set in between |

mod container;
mod stored;

pub use container::{Container, SetOperation};
pub use stored::{StoredChunk, cardinality, chunks, combine, combined_cardinality, from_chunks};

use crate::row::Datum;
use roaring::RoaringTreemap;
use std::borrow::Cow;

/// The canonical bytes of a set.
pub fn canonical_bytes(set: &RoaringTreemap) -> Vec<u8> {
    let bitmaps = set.bitmaps().filter(|(_, bitmap)| !bitmap.is_empty()).map(|(high, bitmap)| {
        let mut bitmap = bitmap.clone();
        bitmap.remove_run_compression();
        bitmap.optimize();
        (high, bitmap)
    });
    let set = RoaringTreemap::from_bitmaps(bitmaps);
    let mut bytes = Vec::with_capacity(set.serialized_size());
    set.serialize_into(&mut bytes).expect("a vector takes everything");
    bytes
}

/// The BITMAP of the given members.
pub fn from_members(members: impl IntoIterator<Item = u64>) -> Datum<'static> {
    Datum::Bitmap(Cow::Owned(canonical_bytes(&members.into_iter().collect())))
}

/// The set of canonical bytes; the empty set where they are damaged.
pub fn to_set(bytes: &[u8]) -> RoaringTreemap {
    RoaringTreemap::deserialize_from(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Three neighbours take the same space as a run and as an array, so only their history would tell them apart.
    #[test]
    fn what_was_a_run_forgets_it() {
        let mut set = RoaringTreemap::from_iter(0..100);
        set.optimize();
        set.remove_range(..5);
        set.remove_range(8..);
        assert_eq!(canonical_bytes(&set), canonical_bytes(&RoaringTreemap::from_iter([5, 6, 7])));
        assert!(canonical_bytes(&RoaringTreemap::from_iter(0..60_000)).len() < 100);
    }

    proptest! {
        #[test]
        fn the_same_set_has_the_same_bytes(
            ranges in proptest::collection::vec((0u64..200_000, 0u64..9000), 0..6),
            singles in proptest::collection::vec(prop_oneof![0u64..200_000, any::<u64>()], 0..50),
            removed in proptest::collection::vec(0u64..200_000, 0..50),
        ) {
            let mut by_range = RoaringTreemap::new();
            for (start, size) in &ranges {
                by_range.insert_range(*start..start + size);
            }
            by_range.extend(singles.iter().copied());
            for member in &removed {
                by_range.remove(*member);
            }
            let one_by_one: RoaringTreemap = by_range.iter().collect();
            let mut backwards = RoaringTreemap::new();
            backwards.insert(1 << 40);
            by_range.iter().collect::<Vec<_>>().into_iter().rev().for_each(|member| { backwards.insert(member); });
            if !by_range.contains(1 << 40) {
                backwards.remove(1 << 40);
            }
            let bytes = canonical_bytes(&by_range);
            prop_assert_eq!(&bytes, &canonical_bytes(&one_by_one));
            prop_assert_eq!(&bytes, &canonical_bytes(&backwards));
            prop_assert_eq!(to_set(&bytes), by_range);
        }
    }
}
