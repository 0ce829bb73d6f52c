//! JSON objects, driven by the table's columns: known fields go straight into the row, others are skipped.
//!
//! A field is matched by its exact name, else without regard to case; of two fields of one name the last counts. A missing
//! field is NULL. Every value is read from its own text, so a DECIMAL keeps all digits and a reason can quote what stood
//! there. A number is not taken for a timestamp: its unit is not known.
//!
//! Fields usually come in the order of the columns, so the next column's name is tried first; names that were looked up
//! once are remembered.

use deltaworks_dataflow::{DataType, Datum};
use hashbrown::HashMap;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

use super::parse::{self, Parsed, Problem, quoted};
use super::{Reject, ValueFormat};
use crate::decode::{Slots, TableFormat, Target};
use crate::error::Result as SetupResult;
use deltaworks_dataflow::bitmap;

/// Values that are JSON objects.
pub(crate) struct Json {
    object: ObjectReader,
}

impl Json {
    pub(crate) fn new(table: &TableFormat) -> SetupResult<Self> {
        let mut object = ObjectReader::new(table.in_value()?);
        object.all_required = table.options.boolean("json.fail-on-missing-field", false)?;
        Ok(Json { object })
    }
}
impl ValueFormat for Json {
    #[inline]
    fn fields(&mut self, value: &[u8], target: &mut Target<'_>) -> Result<(), Reject> {
        self.object.read(utf8(value)?, target.slots())
    }
}

/// The bytes as text.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Reject> {
    std::str::from_utf8(bytes).map_err(|error| Reject::record(format!("not UTF-8 at byte {}", error.valid_up_to())))
}

/// How values are to be read where their text alone does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conversion {
    /// What a number means in a TIMESTAMP column: so many per microsecond (negative: so many microseconds each).
    pub unit: Option<TimeUnit>,
    /// A DECIMAL is base64 of its unscaled bytes, with this scale.
    pub unscaled: Option<i32>,
    /// The value comes from a database's log: 0 and 1 are BOOLEANs, values may be marked as unavailable.
    pub database: bool,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeUnit {
    Days,
    Millis,
    Micros,
    Nanos,
}
impl TimeUnit {
    pub(crate) fn to_micros(self, value: i64) -> Parsed<i64> {
        match self {
            TimeUnit::Days => value.checked_mul(86_400_000_000).ok_or(Problem::Range),
            TimeUnit::Millis => value.checked_mul(1000).ok_or(Problem::Range),
            TimeUnit::Micros => Ok(value),
            TimeUnit::Nanos => Ok(value.div_euclid(1000)),
        }
    }
}

/// A field to look for, and the slot that it fills.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub name: String,
    pub slot: usize,
    pub data_type: DataType,
    pub conversion: Conversion,
}

/// Reads objects into slots.
pub(crate) struct ObjectReader {
    fields: Vec<Field>,
    names: Names,
    /// Whether every field has to be there.
    pub(crate) all_required: bool,
}

impl ObjectReader {
    pub(crate) fn new(fields: Vec<Field>) -> Self {
        let names = Names::new(&fields);
        ObjectReader { fields, names, all_required: false }
    }
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }
    pub(crate) fn fields_mut(&mut self) -> &mut [Field] {
        &mut self.fields
    }
    /// Reads one object and puts its fields into their slots.
    #[inline]
    pub(crate) fn read(&mut self, text: &str, slots: &mut Slots) -> Result<(), Reject> {
        self.names.begin_object();
        let mut reject = None;
        let visitor = ObjectVisitor { fields: &self.fields, names: &mut self.names, slots, reject: &mut reject };
        let mut json = serde_json::Deserializer::from_str(text);
        let read = serde::Deserializer::deserialize_map(&mut json, visitor).and_then(|()| json.end());
        if let Err(error) = read {
            return Err(reject.unwrap_or_else(|| not_an_object(text, &error)));
        }
        if self.all_required { self.require_all(slots) } else { Ok(()) }
    }
    fn require_all(&self, slots: &Slots) -> Result<(), Reject> {
        match self.fields.iter().find(|field| slots.field(field.slot).is_none()) {
            Some(field) => Err(Reject::field(&field.name, "the field is missing")),
            None => Ok(()),
        }
    }
}
fn not_an_object(text: &str, error: &serde_json::Error) -> Reject {
    let text = text.trim_start_matches([' ', '\t', '\r', '\n']);
    let found = match text.as_bytes().first() {
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        _ if text.starts_with("true") || text.starts_with("false") => "a boolean",
        _ if text.starts_with("null") => "null",
        Some(b'-' | b'0'..=b'9') => "a number",
        None => "nothing",
        _ => return Reject::record(format!("invalid JSON: {error}")),
    };
    Reject::record(format!("expected an object, found {found}"))
}

/// The names that are looked for, and those that were found before.
struct Names {
    /// The name that each field had the last time, and whether it is the exact one.
    last: Vec<(String, bool)>,
    known: HashMap<String, usize>,
    folded: HashMap<String, usize>,
    memo: HashMap<String, Option<(usize, bool)>>,
    /// The object in which each field was last found by its exact name.
    exact_in: Vec<u64>,
    object: u64,
}
/// Beyond so many different names, new ones are not remembered: input must not fill the memory.
const MEMO_NAMES_MAX: usize = 4096;

impl Names {
    fn new(fields: &[Field]) -> Self {
        let mut known = HashMap::new();
        let mut folded = HashMap::new();
        for (index, field) in fields.iter().enumerate() {
            known.entry(field.name.clone()).or_insert(index);
            folded.entry(field.name.to_lowercase()).or_insert(index);
        }
        let last = fields.iter().map(|field| (field.name.clone(), true)).collect();
        Names { last, known, folded, memo: HashMap::new(), exact_in: vec![0; fields.len()], object: 0 }
    }
    #[inline]
    fn begin_object(&mut self) {
        self.object += 1;
    }
    /// The field of that name, where the field `expected` is the likely one.
    #[inline]
    fn find(&mut self, name: &str, expected: usize) -> Option<usize> {
        let (index, exact) = match self.last.get(expected) {
            Some((last, exact)) if last == name => (expected, *exact),
            _ => self.look_up(name)?,
        };
        if exact {
            self.exact_in[index] = self.object;
        } else if self.exact_in[index] == self.object {
            // The field was there under its exact name: another spelling does not replace it.
            return None;
        }
        Some(index)
    }
    fn look_up(&mut self, name: &str) -> Option<(usize, bool)> {
        if let Some(found) = self.memo.get(name) {
            return *found;
        }
        let found = match self.known.get(name) {
            Some(index) => Some((*index, true)),
            None => self.folded.get(&name.to_lowercase()).map(|index| (*index, false)),
        };
        if self.memo.len() < MEMO_NAMES_MAX {
            self.memo.insert(name.to_owned(), found);
        }
        if let Some((index, exact)) = found {
            self.last[index] = (name.to_owned(), exact);
        }
        found
    }
}

struct ObjectVisitor<'r> {
    fields: &'r [Field],
    names: &'r mut Names,
    slots: &'r mut Slots,
    reject: &'r mut Option<Reject>,
}
impl<'de> Visitor<'de> for ObjectVisitor<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut expected = 0;
        while let Some(found) = map.next_key_seed(NameSeed { names: self.names, expected })? {
            let Some(index) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            expected = index + 1;
            let text = map.next_value::<&RawValue>()?.get();
            let field = &self.fields[index];
            match datum(text, &field.data_type, field.conversion) {
                Ok(datum) => self.slots.put(field.slot, &datum),
                Err(Problem::Unavailable) => self.slots.put_unavailable(field.slot),
                Err(problem) => {
                    let place = format!("{}{}", field.name, problem.place());
                    *self.reject = Some(Reject::field(place, problem.reason(&field.data_type, text)));
                    return Err(A::Error::custom("rejected"));
                }
            }
        }
        Ok(())
    }
}

struct NameSeed<'r> {
    names: &'r mut Names,
    expected: usize,
}
impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Option<usize>;
    #[inline]
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}
impl Visitor<'_> for NameSeed<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    #[inline]
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.names.find(name, self.expected))
    }
}

/// The value of a JSON text, which must be valid JSON.
#[inline]
pub(crate) fn datum<'a>(text: &'a str, data_type: &DataType, conversion: Conversion) -> Parsed<Datum<'a>> {
    match text.as_bytes().first() {
        Some(b'"') => from_string(unquote(text)?, data_type, conversion),
        Some(b'n') => Ok(Datum::Null),
        Some(b't' | b'f') => match data_type {
            DataType::Boolean => Ok(Datum::Bool(text == "true")),
            DataType::String => Ok(Datum::str(text)),
            _ => Err(Problem::Syntax),
        },
        Some(b'[') => from_array(text, data_type, conversion),
        Some(b'{') => from_object(text, data_type, conversion),
        _ => from_number(text, data_type, conversion),
    }
}
/// The value of a text that may be no JSON.
pub(crate) fn of_text<'a>(text: &'a str, data_type: &DataType) -> Parsed<Datum<'a>> {
    let valid: &RawValue = serde_json::from_str(text).map_err(|_| Problem::Syntax)?;
    datum(valid.get(), data_type, Conversion::default())
}
/// The content of a JSON string.
#[inline]
pub(crate) fn unquote(text: &str) -> Parsed<Cow<'_, str>> {
    let content = &text[1..text.len() - 1];
    if memchr::memchr(b'\\', content.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(content));
    }
    let unescaped: Result<String, _> = serde_json::from_str(text);
    unescaped.map(Cow::Owned).map_err(|error| Problem::Other(format!("invalid string: {error}")))
}
#[inline]
fn from_number<'a>(text: &'a str, data_type: &DataType, conversion: Conversion) -> Parsed<Datum<'a>> {
    match data_type {
        DataType::String => Ok(Datum::str(text)),
        DataType::Timestamp | DataType::TimestampLtz => {
            let Some(unit) = conversion.unit else { return Err(no_unit(text, data_type, conversion)) };
            parse::integer(text, &DataType::BigInt).and_then(|value| unit.to_micros(value)).map(Datum::Int)
        }
        DataType::Date => match conversion.unit {
            Some(unit) if unit != TimeUnit::Days => {
                let micros = parse::integer(text, &DataType::BigInt).and_then(|value| unit.to_micros(value))?;
                Ok(Datum::Int(micros.div_euclid(86_400_000_000)))
            }
            _ => parse::integer(text, data_type).map(Datum::Int),
        },
        DataType::Boolean if conversion.database && (text == "0" || text == "1") => Ok(Datum::Bool(text == "1")),
        DataType::IntervalDay if conversion.database => parse::integer(text, &DataType::BigInt).map(Datum::Int),
        DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt => {
            parse::integer(text, data_type).map(Datum::Int)
        }
        DataType::Float | DataType::Double | DataType::Decimal { .. } => parse::scalar(text, data_type),
        _ => Err(Problem::Syntax),
    }
}
fn no_unit(text: &str, data_type: &DataType, conversion: Conversion) -> Problem {
    let remedy = if conversion.database {
        "set 'debezium-json.timestamp-unit' to ms, us or ns"
    } else {
        "declare the column BIGINT and convert it, e.g. with TO_TIMESTAMP_LTZ(c, 3)"
    };
    Problem::Other(format!("expected {data_type}, found the number {} whose unit is not known; {remedy}", quoted(text)))
}
#[inline]
pub(crate) fn from_string<'a>(text: Cow<'a, str>, data_type: &DataType, conversion: Conversion) -> Parsed<Datum<'a>> {
    if conversion.database && super::debezium::is_unavailable(&text) {
        return Err(Problem::Unavailable);
    }
    match (data_type, conversion.unscaled) {
        (DataType::String, _) => Ok(Datum::Str(text)),
        (DataType::Decimal { precision, scale }, Some(unscaled)) => {
            super::debezium::unscaled_decimal(&text, unscaled, *precision, *scale).map(Datum::Decimal)
        }
        _ => parse::scalar(&text, data_type),
    }
}
fn from_array<'a>(text: &'a str, data_type: &DataType, conversion: Conversion) -> Parsed<Datum<'a>> {
    let item_type = match data_type {
        DataType::String => return Ok(Datum::str(text)),
        DataType::Array(item) => item,
        DataType::Bitmap => return members(text),
        _ => return Err(Problem::Syntax),
    };
    let items = raw_items(text)?;
    let item = |(index, item): (usize, &&'a RawValue)| {
        datum(item.get(), item_type, conversion)
            .map_err(|problem| nested(format!("[{index}]"), item_type, problem, item.get()))
    };
    items.iter().enumerate().map(item).collect::<Parsed<_>>().map(Datum::Array)
}
/// A problem within a value; one that concerns the whole column stays as it is.
fn nested(place: String, data_type: &DataType, problem: Problem, text: &str) -> Problem {
    match problem {
        Problem::Unavailable => Problem::Unavailable,
        problem => Problem::Nested(place, Box::new(data_type.clone()), Box::new(problem), text.to_owned()),
    }
}
fn raw_items(text: &str) -> Parsed<Vec<&RawValue>> {
    serde_json::from_str(text).map_err(|error| Problem::Other(format!("invalid JSON: {error}")))
}
/// A BITMAP: an array of unsigned integers.
fn members(text: &str) -> Parsed<Datum<'static>> {
    let mut members = Vec::new();
    for (index, item) in raw_items(text)?.into_iter().enumerate() {
        let digits = item.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(item.get());
        let member = digits.parse::<u64>().map_err(|_| {
            let reason = format!("expected an integer from 0 to 18446744073709551615, found {}", quoted(item.get()));
            nested(format!("[{index}]"), &DataType::Bitmap, Problem::Other(reason), item.get())
        })?;
        members.push(member);
    }
    Ok(bitmap::from_members(members))
}
fn from_object<'a>(text: &'a str, data_type: &DataType, conversion: Conversion) -> Parsed<Datum<'a>> {
    match data_type {
        DataType::String => Ok(Datum::str(text)),
        DataType::Struct(columns) => from_struct(text, columns, conversion),
        DataType::Decimal { precision, scale } if conversion.database => {
            super::debezium::variable_decimal(text, *precision, *scale).map(Datum::Decimal)
        }
        _ => Err(Problem::Syntax),
    }
}
fn from_struct<'a>(text: &'a str, columns: &[deltaworks_dataflow::Column], conversion: Conversion) -> Parsed<Datum<'a>> {
    let pairs: Pairs<'a> = serde_json::from_str(text).map_err(|error| Problem::Other(format!("invalid JSON: {error}")))?;
    let mut fields = Vec::with_capacity(columns.len());
    for column in columns {
        let exact = pairs.0.iter().rev().find(|(name, _)| *name == column.name);
        let folded = || pairs.0.iter().rev().find(|(name, _)| name.to_lowercase() == column.name.to_lowercase());
        let value = exact.or_else(folded).map_or("null", |(_, value)| value.get());
        let wrong = |problem| nested(format!(".{}", column.name), &column.data_type, problem, value);
        let field = datum(value, &column.data_type, conversion).map_err(wrong)?;
        if field.is_null() && !column.nullable {
            return Err(wrong(Problem::Other("NULL in a NOT NULL field".into())));
        }
        fields.push(field);
    }
    Ok(Datum::Struct(fields))
}

/// The fields of an object, in order.
pub(crate) struct Pairs<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    pairs.push((name.0, map.next_value()?));
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(PairsVisitor).map(Pairs)
    }
}
/// A name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
