//! The packed row: field after field, order-preserving and self-delimiting.
//!
//! Comparing two rows of one schema byte by byte compares them as SQL does, column after column: NULL last ascending
//! and first descending, NaN after every number, -0.0 equal to 0.0. Concatenating two rows gives the row of both. A
//! field's length can be read without knowing its type, so one field is reached without decoding the others.
//!
//! Format, version 1 (fixture: `tests::format_is_fixed`). Each field is a tag byte and a payload; the layout follows the
//! tuple layer of FoundationDB (`design/tuple.md` of apple/foundationdb) with tags of our own:
//!
//! | tag | field | payload |
//! |---|---|---|
//! | 0x02, 0x03 | false, true | none |
//! | 0x20 - n .. 0x20 + n | integer, decimal, date, timestamp, interval | n bytes, big-endian; a negative number plus 2^8n - 1 |
//! | 0x38 | float | 8 bytes, sign flipped so that bytes compare as numbers; one NaN |
//! | 0x40, 0x41 | string, bytes | 0x00 written as 0x00 0xFF, then the terminator 0x00 |
//! | 0x48, 0x49 | array, struct | the fields, then 0x00 |
//! | 0x50 | bitmap | length (4 bytes), canonical bytes |
//! | 0x7E | NULL | none |
//!
//! A descending field is its ascending form with every bit inverted, so its tag has the high bit set; a descending string
//! or bytes field ends in one more 0xFF.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use crate::types::DataType;

/// Version of the row format; part of everything durable that contains rows.
pub const ROW_FORMAT: u32 = 1;

const FALSE: u8 = 0x02;
const TRUE: u8 = 0x03;
const INT: u8 = 0x20;
const FLOAT: u8 = 0x38;
const STRING: u8 = 0x40;
const BYTES: u8 = 0x41;
const ARRAY: u8 = 0x48;
const STRUCT: u8 = 0x49;
const BITMAP: u8 = 0x50;
const NULL: u8 = 0x7E;
/// A tag with this bit belongs to a descending field.
const DESCENDING: u8 = 0x80;

/// A packed row, owned. Keys of a few fields fit inline; longer rows are one heap block.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Row(SmallVec<[u8; 22]>);

impl Row {
    /// Returns the row of the given encoded bytes.
    #[inline]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Row(SmallVec::from_slice(bytes))
    }
    /// Returns the row of the given fields.
    pub fn pack<'a>(fields: impl IntoIterator<Item = Datum<'a>>) -> Self {
        let mut bytes = Vec::new();
        for field in fields {
            field.encode(&mut bytes);
        }
        Row::from_bytes(&bytes)
    }
    /// The encoded bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
impl std::ops::Deref for Row {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
impl AsRef<[u8]> for Row {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
impl PartialEq<Row> for [u8] {
    #[inline]
    fn eq(&self, other: &Row) -> bool {
        self == &other.0[..]
    }
}
impl Hash for Row {
    /// One word: rows are routed and found by [`hash_bytes`], whatever the hasher.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(hash_bytes(&self.0));
    }
}

/// The hash of encoded bytes: the same on every machine and in every run. Workers own keys by it.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
    #[inline]
    fn fold(a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        (product as u64) ^ ((product >> 64) as u64)
    }
    let mut hash = bytes.len() as u64 ^ SEED;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word), SEED);
    }
    if !rest.is_empty() {
        let mut word = [0u8; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = fold(hash ^ u64::from_le_bytes(word), SEED);
    }
    fold(hash, 0xD6E8_FEB8_6659_FD93)
}

/// One decoded field. Integers, dates (days), timestamps and intervals (microseconds, or months) are `Int`.
#[derive(Clone, Debug)]
pub enum Datum<'a> {
    /// SQL NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// Every type that is a count: integers, DATE (days since 1970), TIMESTAMP and INTERVAL (microseconds, or months).
    Int(i64),
    /// A DECIMAL, scaled by its column's scale.
    Decimal(i128),
    /// FLOAT and DOUBLE.
    Float(f64),
    /// STRING.
    Str(Cow<'a, str>),
    /// BYTES.
    Bytes(Cow<'a, [u8]>),
    /// ARRAY: the elements.
    Array(Vec<Datum<'a>>),
    /// STRUCT: the fields.
    Struct(Vec<Datum<'a>>),
    /// BITMAP: the canonical bytes of a 64-bit roaring bitmap.
    Bitmap(Cow<'a, [u8]>),
}

impl<'a> Datum<'a> {
    /// A string datum.
    pub fn str(text: impl Into<Cow<'a, str>>) -> Self {
        Datum::Str(text.into())
    }
    /// Whether this is NULL.
    #[inline]
    pub fn is_null(&self) -> bool {
        matches!(self, Datum::Null)
    }
    /// The same value, owning what it holds.
    pub fn into_owned(self) -> Datum<'static> {
        match self {
            Datum::Null => Datum::Null,
            Datum::Bool(b) => Datum::Bool(b),
            Datum::Int(i) => Datum::Int(i),
            Datum::Decimal(d) => Datum::Decimal(d),
            Datum::Float(f) => Datum::Float(f),
            Datum::Str(s) => Datum::Str(Cow::Owned(s.into_owned())),
            Datum::Bytes(b) => Datum::Bytes(Cow::Owned(b.into_owned())),
            Datum::Bitmap(b) => Datum::Bitmap(Cow::Owned(b.into_owned())),
            Datum::Array(v) => Datum::Array(v.into_iter().map(Datum::into_owned).collect()),
            Datum::Struct(v) => Datum::Struct(v.into_iter().map(Datum::into_owned).collect()),
        }
    }

    /// Appends the field, ascending.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Datum::Null => out.push(NULL),
            Datum::Bool(b) => out.push(if *b { TRUE } else { FALSE }),
            Datum::Int(i) => encode_int(out, *i),
            Datum::Decimal(d) => encode_wide(out, *d),
            Datum::Float(f) => encode_float(out, *f),
            Datum::Str(s) => encode_str(out, s),
            Datum::Bytes(b) => encode_escaped(out, BYTES, b),
            Datum::Array(items) => encode_list(out, ARRAY, items),
            Datum::Struct(items) => encode_list(out, STRUCT, items),
            Datum::Bitmap(b) => encode_bitmap(out, b),
        }
    }
    /// Appends the field so that its bytes sort in descending order.
    pub fn encode_descending(&self, out: &mut Vec<u8>) {
        let mut ascending = Vec::new();
        self.encode(&mut ascending);
        encode_field_descending(out, &ascending);
    }

    /// Decodes the field at the front of `bytes`, which holds a value of type `data_type`, and moves `bytes` past it.
    ///
    /// # Panics
    /// Where the bytes were not written by [`encode`](Self::encode): rows are ours, never input.
    #[inline]
    pub fn decode(bytes: &mut &'a [u8], data_type: &DataType) -> Datum<'a> {
        let tag = bytes[0];
        if tag & DESCENDING != 0 {
            let field = split_field(bytes);
            let ascending: Vec<u8> = field.iter().map(|b| !b).collect();
            return Datum::decode(&mut &ascending[..], data_type).into_owned();
        }
        let body = &bytes[1..];
        match tag {
            NULL => *bytes = body,
            FALSE | TRUE => {
                *bytes = body;
                return Datum::Bool(tag == TRUE);
            }
            FLOAT => {
                let (word, rest) = body.split_at(8);
                *bytes = rest;
                return Datum::Float(decode_float(word));
            }
            STRING => {
                let (raw, rest) = split_escaped(body);
                *bytes = rest;
                return Datum::Str(match unescape(raw) {
                    Cow::Borrowed(b) => String::from_utf8_lossy(b),
                    Cow::Owned(b) => Cow::Owned(String::from_utf8_lossy(&b).into_owned()),
                });
            }
            BYTES => {
                let (raw, rest) = split_escaped(body);
                *bytes = rest;
                return Datum::Bytes(unescape(raw));
            }
            ARRAY | STRUCT => return Datum::decode_list(bytes, data_type),
            BITMAP => {
                let field = split_field(bytes);
                return Datum::Bitmap(Cow::Borrowed(&field[5..]));
            }
            _ => {
                let size = usize::from(tag.abs_diff(INT));
                let (raw, rest) = body.split_at(size);
                *bytes = rest;
                return match data_type {
                    DataType::Decimal { .. } => Datum::Decimal(decode_wide(tag, raw)),
                    _ => Datum::Int(decode_int(tag, raw)),
                };
            }
        }
        Datum::Null
    }
    fn decode_list(bytes: &mut &'a [u8], data_type: &DataType) -> Datum<'a> {
        let is_array = bytes[0] == ARRAY;
        *bytes = &bytes[1..];
        let mut items = Vec::new();
        while bytes[0] != 0 {
            let item_type = match data_type {
                DataType::Array(item) => item,
                DataType::Struct(fields) => &fields[items.len()].data_type,
                other => other,
            };
            items.push(Datum::decode(bytes, item_type));
        }
        *bytes = &bytes[1..];
        if is_array { Datum::Array(items) } else { Datum::Struct(items) }
    }

    fn rank(&self) -> u8 {
        match self {
            Datum::Bool(_) => 0,
            Datum::Int(_) | Datum::Decimal(_) => 1,
            Datum::Float(_) => 2,
            Datum::Str(_) => 3,
            Datum::Bytes(_) => 4,
            Datum::Array(_) => 5,
            Datum::Struct(_) => 6,
            Datum::Bitmap(_) => 7,
            Datum::Null => 8,
        }
    }
}

/// SQL's ascending order with NULL last: the order of the encoded bytes.
impl Ord for Datum<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Datum::Bool(a), Datum::Bool(b)) => a.cmp(b),
            (Datum::Int(a), Datum::Int(b)) => a.cmp(b),
            (Datum::Decimal(a), Datum::Decimal(b)) => a.cmp(b),
            (Datum::Int(a), Datum::Decimal(b)) => i128::from(*a).cmp(b),
            (Datum::Decimal(a), Datum::Int(b)) => a.cmp(&i128::from(*b)),
            (Datum::Float(a), Datum::Float(b)) => canonical(*a).total_cmp(&canonical(*b)),
            (Datum::Str(a), Datum::Str(b)) => a.cmp(b),
            (Datum::Bytes(a), Datum::Bytes(b)) => a.cmp(b),
            (Datum::Bitmap(a), Datum::Bitmap(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            (Datum::Array(a), Datum::Array(b)) | (Datum::Struct(a), Datum::Struct(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}
impl PartialOrd for Datum<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Datum<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Datum<'_> {}

/// Appends NULL.
#[inline]
pub fn encode_null(out: &mut Vec<u8>) {
    out.push(NULL);
}
/// Appends a truth value.
#[inline]
pub fn encode_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { TRUE } else { FALSE });
}
/// Appends an integer with its leading bytes dropped.
#[inline]
pub fn encode_int(out: &mut Vec<u8>, value: i64) {
    let magnitude = value.unsigned_abs();
    let size = (8 - magnitude.leading_zeros() as usize / 8) as u8;
    let word = if value < 0 {
        out.push(INT - size);
        !magnitude
    } else {
        out.push(INT + size);
        magnitude
    };
    out.extend_from_slice(&word.to_be_bytes()[8 - usize::from(size)..]);
}
/// Appends a scaled decimal; the same bytes as [`encode_int`] where the value fits.
#[inline]
pub fn encode_wide(out: &mut Vec<u8>, value: i128) {
    if let Ok(narrow) = i64::try_from(value) {
        return encode_int(out, narrow);
    }
    let magnitude = value.unsigned_abs();
    let size = (16 - magnitude.leading_zeros() as usize / 8) as u8;
    let word = if value < 0 {
        out.push(INT - size);
        !magnitude
    } else {
        out.push(INT + size);
        magnitude
    };
    out.extend_from_slice(&word.to_be_bytes()[16 - usize::from(size)..]);
}
/// Appends a float.
#[inline]
pub fn encode_float(out: &mut Vec<u8>, value: f64) {
    let bits = canonical(value).to_bits();
    let word = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.push(FLOAT);
    out.extend_from_slice(&word.to_be_bytes());
}
/// Appends a string.
#[inline]
pub fn encode_str(out: &mut Vec<u8>, text: &str) {
    encode_escaped(out, STRING, text.as_bytes());
}
/// Appends a bitmap's canonical bytes.
pub fn encode_bitmap(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(BITMAP);
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}
#[inline]
fn encode_escaped(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    if memchr::memchr(0, bytes).is_none() {
        out.extend_from_slice(bytes);
    } else {
        for &byte in bytes {
            out.push(byte);
            if byte == 0 {
                out.push(0xFF);
            }
        }
    }
    out.push(0);
}
fn encode_list(out: &mut Vec<u8>, tag: u8, items: &[Datum<'_>]) {
    out.push(tag);
    for item in items {
        item.encode(out);
    }
    out.push(0);
}
/// Appends the descending form of one ascending field.
pub fn encode_field_descending(out: &mut Vec<u8>, ascending: &[u8]) {
    out.extend(ascending.iter().map(|byte| !byte));
    if matches!(ascending[0], STRING | BYTES) {
        // An inverted escape is 0xFF 0x00: what follows the terminator must be larger, also at the end of a row.
        out.push(0xFF);
    }
}
/// One NaN and one zero.
fn canonical(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN.abs()
    } else if value == 0.0 {
        0.0
    } else {
        value
    }
}

#[inline]
fn decode_int(tag: u8, raw: &[u8]) -> i64 {
    let fill = if tag < INT { 0xFF } else { 0 };
    let mut word = [fill; 8];
    word[8usize.saturating_sub(raw.len())..].copy_from_slice(&raw[raw.len().saturating_sub(8)..]);
    let word = u64::from_be_bytes(word);
    if tag < INT { (!word).wrapping_neg() as i64 } else { word as i64 }
}
fn decode_wide(tag: u8, raw: &[u8]) -> i128 {
    let fill = if tag < INT { 0xFF } else { 0 };
    let mut word = [fill; 16];
    word[16 - raw.len()..].copy_from_slice(raw);
    let word = u128::from_be_bytes(word);
    if tag < INT { (!word).wrapping_neg() as i128 } else { word as i128 }
}
fn decode_float(word: &[u8]) -> f64 {
    let mut bytes = [0u8; 8];
    bytes.copy_from_slice(word);
    let word = u64::from_be_bytes(bytes);
    f64::from_bits(if word >> 63 == 1 { word & !(1 << 63) } else { !word })
}
/// Splits an escaped payload at its terminator: the raw bytes, and what follows.
#[inline]
fn split_escaped(body: &[u8]) -> (&[u8], &[u8]) {
    let mut from = 0;
    loop {
        let end = from + memchr::memchr(0, &body[from..]).expect("a string ends in its terminator");
        if body.get(end + 1) != Some(&0xFF) {
            return (&body[..end], &body[end + 1..]);
        }
        from = end + 2;
    }
}
#[inline]
fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(0, raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut escaped = false;
    for &byte in raw {
        if !escaped {
            bytes.push(byte);
        }
        escaped = byte == 0 && !escaped;
    }
    Cow::Owned(bytes)
}

/// The length in bytes of the field at the front of `bytes`.
#[inline]
pub fn field_len(bytes: &[u8]) -> usize {
    let tag = bytes[0];
    match tag {
        NULL | FALSE | TRUE => 1,
        FLOAT => 9,
        STRING | BYTES => bytes.len() - split_escaped(&bytes[1..]).1.len(),
        ARRAY | STRUCT => {
            let mut at = 1;
            while bytes[at] != 0 {
                at += field_len(&bytes[at..]);
            }
            at + 1
        }
        BITMAP => 5 + u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize,
        _ if tag & DESCENDING != 0 => descending_len(bytes),
        _ => 1 + usize::from(tag.abs_diff(INT)),
    }
}
fn descending_len(bytes: &[u8]) -> usize {
    match !bytes[0] {
        STRING | BYTES => {
            let mut from = 1;
            loop {
                let end = from + memchr::memchr(0xFF, &bytes[from..]).expect("a string ends in its terminator");
                if bytes.get(end + 1) != Some(&0) {
                    return end + 2;
                }
                from = end + 2;
            }
        }
        ARRAY | STRUCT | BITMAP => {
            let ascending: Vec<u8> = bytes.iter().map(|b| !b).collect();
            field_len(&ascending)
        }
        NULL | FALSE | TRUE => 1,
        FLOAT => 9,
        tag => 1 + usize::from(tag.abs_diff(INT)),
    }
}
/// Splits the first field off: returns its bytes and moves `bytes` past it.
#[inline]
pub fn split_field<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let (field, rest) = bytes.split_at(field_len(bytes));
    *bytes = rest;
    field
}
/// The bytes of the first `fields` fields, and those of the others.
#[inline]
pub fn split_fields(bytes: &[u8], fields: usize) -> (&[u8], &[u8]) {
    let end = (0..fields).fold(0, |end, _| end + field_len(&bytes[end..]));
    bytes.split_at(end)
}
/// The encoded bytes of field `index`.
#[inline]
pub fn nth_field(mut bytes: &[u8], index: usize) -> &[u8] {
    for _ in 0..index {
        bytes = &bytes[field_len(bytes)..];
    }
    &bytes[..field_len(bytes)]
}
/// Whether the encoded field is NULL, ascending or descending.
#[inline]
pub fn is_null_field(field: &[u8]) -> bool {
    field[0] == NULL || field[0] == !NULL
}
/// Collects the offsets of all fields: field `i` is `bytes[ends[i]..ends[i + 1]]`, with `ends[0] == 0`.
#[inline]
pub fn field_offsets(bytes: &[u8], ends: &mut Vec<usize>) {
    ends.clear();
    ends.push(0);
    let mut at = 0;
    while at < bytes.len() {
        at += field_len(&bytes[at..]);
        ends.push(at);
    }
}
/// Appends the named fields of `bytes`, in the given order, to `out`.
pub fn project(bytes: &[u8], columns: &[usize], out: &mut Vec<u8>) {
    let mut ends: SmallVec<[usize; 24]> = SmallVec::new();
    ends.push(0);
    let mut at = 0;
    while at < bytes.len() {
        at += field_len(&bytes[at..]);
        ends.push(at);
    }
    for &column in columns {
        out.extend_from_slice(&bytes[ends[column]..ends[column + 1]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn int_type() -> DataType {
        DataType::BigInt
    }
    fn encoded(datum: &Datum<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        datum.encode(&mut out);
        out
    }

    #[test]
    fn format_is_fixed() {
        let row = Row::pack([
            Datum::Null,
            Datum::Bool(true),
            Datum::Int(0),
            Datum::Int(258),
            Datum::Int(-1),
            Datum::Decimal(-(1i128 << 70)),
            Datum::Float(1.5),
            Datum::str("a\0b"),
            Datum::Bytes(Cow::Borrowed(&[0xFF])),
            Datum::Array(vec![Datum::Int(1), Datum::Null]),
            Datum::Bitmap(Cow::Borrowed(&[7, 8])),
        ]);
        let text: String = row.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            text,
            "7e0320220102".to_string()
                + "1ffe"
                + "17bfffffffffffffffff"
                + "38bff8000000000000"
                + "406100ff6200"
                + "41ff00"
                + "4821017e00"
                + "50000000020708"
        );
    }

    fn any_datum(kind: u8) -> BoxedStrategy<Datum<'static>> {
        let value = match kind {
            0 => any::<bool>().prop_map(Datum::Bool).boxed(),
            1 => prop_oneof![any::<i64>(), -300i64..300, Just(i64::MIN), Just(i64::MAX)].prop_map(Datum::Int).boxed(),
            2 => prop_oneof![any::<i128>(), (-70000i128..70000), Just(i128::MIN), Just(i128::MAX)]
                .prop_map(Datum::Decimal)
                .boxed(),
            3 => prop_oneof![any::<f64>(), Just(f64::NAN), Just(-0.0), Just(0.0), Just(f64::NEG_INFINITY)]
                .prop_map(Datum::Float)
                .boxed(),
            4 => "[\\x00a\\u{ff}b]{0,6}".prop_map(Datum::str).boxed(),
            5 => proptest::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..6)
                .prop_map(|b| Datum::Bytes(Cow::Owned(b)))
                .boxed(),
            6 => proptest::collection::vec(prop_oneof![(-3i64..3).prop_map(Datum::Int), Just(Datum::Null)], 0..4)
                .prop_map(Datum::Array)
                .boxed(),
            _ => proptest::collection::vec(any::<u8>(), 0..4).prop_map(|b| Datum::Bitmap(Cow::Owned(b))).boxed(),
        };
        prop_oneof![9 => value, 1 => Just(Datum::Null)].boxed()
    }
    fn type_of(kind: u8) -> DataType {
        match kind {
            2 => DataType::Decimal { precision: 38, scale: 0 },
            6 => DataType::Array(Box::new(int_type())),
            _ => int_type(),
        }
    }
    fn two_rows() -> impl Strategy<Value = Vec<(u8, bool, Datum<'static>, Datum<'static>)>> {
        let field = (0u8..8, any::<bool>())
            .prop_flat_map(|(kind, descending)| (Just(kind), Just(descending), any_datum(kind), any_datum(kind)));
        proptest::collection::vec(field, 1..4)
    }

    proptest! {
        #[test]
        fn byte_order_is_sql_order_and_fields_are_found(fields in two_rows()) {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            let mut order = Ordering::Equal;
            for (_, descending, a, b) in &fields {
                if *descending {
                    a.encode_descending(&mut left);
                    b.encode_descending(&mut right);
                    order = order.then(b.cmp(a));
                } else {
                    a.encode(&mut left);
                    b.encode(&mut right);
                    order = order.then(a.cmp(b));
                }
            }
            prop_assert_eq!(left.cmp(&right), order);
            let mut rest = &left[..];
            for (index, (kind, _, a, _)) in fields.iter().enumerate() {
                let mut field = nth_field(&left, index);
                prop_assert_eq!(is_null_field(field), a.is_null());
                prop_assert_eq!(&Datum::decode(&mut field, &type_of(*kind)), a);
                prop_assert!(field.is_empty());
                prop_assert_eq!(&Datum::decode(&mut rest, &type_of(*kind)), a);
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_projection_copies_fields(values in proptest::collection::vec(any::<i64>(), 1..6), pick in any::<prop::sample::Index>()) {
            let row = Row::pack(values.iter().map(|v| Datum::Int(*v)));
            let column = pick.index(values.len());
            let mut out = Vec::new();
            project(&row, &[column, 0], &mut out);
            prop_assert_eq!(out, [encoded(&Datum::Int(values[column])), encoded(&Datum::Int(values[0]))].concat());
        }
    }

    #[test]
    fn null_is_last_ascending_and_first_descending() {
        for datum in [Datum::Int(i64::MAX), Datum::str("\u{10ffff}"), Datum::Float(f64::NAN), Datum::Bool(true)] {
            assert!(encoded(&datum) < encoded(&Datum::Null));
            let (mut value, mut null) = (Vec::new(), Vec::new());
            datum.encode_descending(&mut value);
            Datum::Null.encode_descending(&mut null);
            assert!(null < value);
        }
    }
}
