//! Functions of bitmaps: sets of unsigned 64-bit integers as roaring bitmaps.
//!
//! The bytes are canonical: equal sets have equal bytes, so that a bitmap can be compared, grouped and hashed as it is.

use std::borrow::Cow;
use std::fmt;

use deltaworks_dataflow::Datum;
use deltaworks_dataflow::bitmap::{self, SetOperation};
use roaring::RoaringTreemap;

use crate::expr::arithmetic::Fault;

/// A function of bitmaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BitmapFunction {
    /// `TO_BITMAP(id)`: the set of one.
    ToBitmap,
    /// `BITMAP_BUILD(array)`.
    Build,
    /// `BITMAP_AND(a, b)`.
    And,
    /// `BITMAP_OR(a, b)`.
    Or,
    /// `BITMAP_XOR(a, b)`.
    Xor,
    /// `BITMAP_ANDNOT(a, b)`.
    AndNot,
    /// `BITMAP_AND_CARDINALITY(a, b)`.
    AndCardinality,
    /// `BITMAP_OR_CARDINALITY(a, b)`.
    OrCardinality,
    /// `BITMAP_XOR_CARDINALITY(a, b)`.
    XorCardinality,
    /// `BITMAP_ANDNOT_CARDINALITY(a, b)`.
    AndNotCardinality,
    /// `BITMAP_COUNT(a)`.
    Count,
    /// `BITMAP_CONTAINS(a, id)`.
    Contains,
    /// `BITMAP_HAS_ANY(a, b)`.
    HasAny,
    /// `BITMAP_HAS_ALL(a, b)`: whether `a` holds all of `b`.
    HasAll,
    /// `BITMAP_MIN(a)`; NULL of the empty set.
    Min,
    /// `BITMAP_MAX(a)`; NULL of the empty set.
    Max,
    /// `BITMAP_TO_ARRAY(a)`, ascending.
    ToArray,
    /// `BITMAP_TO_STRING(a)`: ascending, separated by commas.
    ToString,
}

impl fmt::Display for BitmapFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BitmapFunction::ToBitmap => "TO_BITMAP",
            BitmapFunction::Build => "BITMAP_BUILD",
            BitmapFunction::And => "BITMAP_AND",
            BitmapFunction::Or => "BITMAP_OR",
            BitmapFunction::Xor => "BITMAP_XOR",
            BitmapFunction::AndNot => "BITMAP_ANDNOT",
            BitmapFunction::AndCardinality => "BITMAP_AND_CARDINALITY",
            BitmapFunction::OrCardinality => "BITMAP_OR_CARDINALITY",
            BitmapFunction::XorCardinality => "BITMAP_XOR_CARDINALITY",
            BitmapFunction::AndNotCardinality => "BITMAP_ANDNOT_CARDINALITY",
            BitmapFunction::Count => "BITMAP_COUNT",
            BitmapFunction::Contains => "BITMAP_CONTAINS",
            BitmapFunction::HasAny => "BITMAP_HAS_ANY",
            BitmapFunction::HasAll => "BITMAP_HAS_ALL",
            BitmapFunction::Min => "BITMAP_MIN",
            BitmapFunction::Max => "BITMAP_MAX",
            BitmapFunction::ToArray => "BITMAP_TO_ARRAY",
            BitmapFunction::ToString => "BITMAP_TO_STRING",
        })
    }
}

/// The set that bytes hold; None where they are no bitmap.
pub fn decode_bitmap(bytes: &[u8]) -> Option<RoaringTreemap> {
    RoaringTreemap::deserialize_from(bytes).ok()
}
/// The canonical bytes of a set.
pub fn encode_bitmap(set: &RoaringTreemap) -> Vec<u8> {
    deltaworks_dataflow::bitmap::canonical_bytes(set)
}
/// An id as a member of a set; ids are not negative.
pub(crate) fn member(id: i64) -> Result<u64, Fault> {
    u64::try_from(id).map_err(|_| Fault)
}

fn set_of(datum: Option<&Datum<'_>>) -> Result<RoaringTreemap, Fault> {
    match datum {
        Some(Datum::Bitmap(bytes) | Datum::Bytes(bytes)) => decode_bitmap(bytes).ok_or(Fault),
        _ => Err(Fault),
    }
}
fn bytes_of<'a>(datum: Option<&'a Datum<'_>>) -> Result<&'a [u8], Fault> {
    match datum {
        Some(Datum::Bitmap(bytes) | Datum::Bytes(bytes)) => Ok(bytes),
        _ => Err(Fault),
    }
}
fn int(value: u64) -> Result<Datum<'static>, Fault> {
    i64::try_from(value).map(Datum::Int).map_err(|_| Fault)
}
fn bitmap_of(set: &RoaringTreemap) -> Datum<'static> {
    Datum::Bitmap(Cow::Owned(encode_bitmap(set)))
}

/// The function's value; no argument is NULL.
pub(crate) fn call<'a>(function: BitmapFunction, args: &[Datum<'a>]) -> Result<Datum<'a>, Fault> {
    use BitmapFunction::{
        And, AndCardinality, AndNot, AndNotCardinality, Build, Count, HasAll, HasAny, Or, OrCardinality, ToBitmap, Xor,
        XorCardinality,
    };
    match function {
        ToBitmap => build(args),
        Build => match args {
            [Datum::Array(ids)] => build(ids),
            _ => Err(Fault),
        },
        And | Or | Xor | AndNot | AndCardinality | OrCardinality | XorCardinality | AndNotCardinality => {
            combine(function, bytes_of(args.first())?, bytes_of(args.get(1))?)
        }
        Count => bitmap::cardinality(bytes_of(args.first())?).map_or(Err(Fault), int),
        HasAny => Ok(Datum::Bool(!set_of(args.first())?.is_disjoint(&set_of(args.get(1))?))),
        HasAll => Ok(Datum::Bool(set_of(args.get(1))?.is_subset(&set_of(args.first())?))),
        _ => inspect(function, &set_of(args.first())?, args.get(1)),
    }
}
/// The set of some ids; NULL is ignored.
fn build(ids: &[Datum<'_>]) -> Result<Datum<'static>, Fault> {
    let mut set = RoaringTreemap::new();
    for id in ids {
        match id {
            Datum::Int(id) => set.insert(member(*id)?),
            Datum::Null => false,
            _ => return Err(Fault),
        };
    }
    Ok(bitmap_of(&set))
}
/// Two sets put together chunk by chunk, as their bytes are.
fn combine(function: BitmapFunction, a: &[u8], b: &[u8]) -> Result<Datum<'static>, Fault> {
    use BitmapFunction::{AndCardinality, AndNotCardinality, OrCardinality, XorCardinality};
    let operation = match function {
        BitmapFunction::And | AndCardinality => SetOperation::And,
        BitmapFunction::Or | OrCardinality => SetOperation::Or,
        BitmapFunction::Xor | XorCardinality => SetOperation::Xor,
        _ => SetOperation::AndNot,
    };
    match function {
        AndCardinality | OrCardinality | XorCardinality | AndNotCardinality => {
            bitmap::combined_cardinality(operation, a, b).map_or(Err(Fault), int)
        }
        _ => bitmap::combine(operation, a, b).map(|bytes| Datum::Bitmap(Cow::Owned(bytes))).ok_or(Fault),
    }
}
fn inspect(function: BitmapFunction, set: &RoaringTreemap, id: Option<&Datum<'_>>) -> Result<Datum<'static>, Fault> {
    Ok(match function {
        BitmapFunction::Contains => match id {
            Some(Datum::Int(id)) => Datum::Bool(u64::try_from(*id).is_ok_and(|id| set.contains(id))),
            _ => return Err(Fault),
        },
        BitmapFunction::Min => set.min().map_or(Ok(Datum::Null), int)?,
        BitmapFunction::Max => set.max().map_or(Ok(Datum::Null), int)?,
        BitmapFunction::ToArray => Datum::Array(set.iter().map(int).collect::<Result<_, _>>()?),
        BitmapFunction::ToString => {
            Datum::Str(Cow::Owned(set.iter().map(|id| id.to_string()).collect::<Vec<_>>().join(",")))
        }
        _ => return Err(Fault),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_have_equal_bytes() {
        let mut ranged = RoaringTreemap::new();
        ranged.insert_range(0..10_000);
        ranged.optimize();
        let single: RoaringTreemap = (0..10_000).collect();
        assert_eq!(encode_bitmap(&ranged), encode_bitmap(&single));
        let mut emptied: RoaringTreemap = [1, 1 << 40].into_iter().collect();
        emptied.remove(1 << 40);
        assert_eq!(encode_bitmap(&emptied), encode_bitmap(&[1].into_iter().collect()));
    }
}
