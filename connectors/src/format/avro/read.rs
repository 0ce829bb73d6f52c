//! From the bytes of a message to the columns of a row, by the schema that it was written with.
//!
//! A field goes to the column of its exact name, else without regard to case; a column that has no field is NULL, a field that has no
//! column is skipped. What a value becomes in a column of another type is decided where JSON decides it: numbers and strings are
//! handed on as their text, so that both formats read `12` into a STRING, a DECIMAL or a TINYINT in the same way. Beyond that:
//!
//! | written as | read into |
//! |---|---|
//! | decimal, big-decimal, fixed or bytes; Debezium's VariableScaleDecimal | numbers, STRING |
//! | date, timestamp-*, local-timestamp-*, Debezium's and Connect's times | DATE, TIMESTAMP, TIMESTAMP_LTZ, STRING; integers as they stand |
//! | time-*, Debezium's times of day and durations | INTERVAL DAY; times of day as STRING; integers as they stand |
//! | duration | the INTERVAL that holds it |
//! | uuid | STRING; BYTES where it is bytes |
//! | enum | as a string |
//! | array | ARRAY; of integers BITMAP |
//! | record | STRUCT |
//!
//! The reader of `apache_avro` is not used: it takes a message that is cut off for one whose last fields are NULL, and follows a
//! record that holds itself as deep as the bytes say.

use std::borrow::Cow;

use deltaworks_dataflow::temporal::write_temporal;
use deltaworks_dataflow::{Column, DataType, Datum, bitmap};

use super::cursor::{Broken, Cursor};
use super::schema::{Kind, Meaning, WriterSchema, Zone};
use crate::decode::Slots;
use crate::format::Reject;
use crate::format::debezium::{is_unavailable, unscaled_digits};
use crate::format::json::{self, Conversion, Field, TimeUnit};
use crate::format::parse::{Parsed, Problem};
use crate::format::text::write_plain;

/// How deep values may be nested.
const DEPTH_MAX: u32 = 64;
/// How many items without a byte of their own an array may have.
const EMPTY_ITEMS_MAX: u64 = 1 << 16;

/// Where the fields of a record go.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// What is read: a record, a union of records and null, or the one column's value.
    node: usize,
    /// Per record that it may be, the column of each field.
    records: Vec<(usize, Vec<Option<usize>>)>,
    /// Whether a value that is no record is that of the first column.
    lone: bool,
}

impl Columns {
    /// Finds the columns of what `node` may be. With `lone` a value that is no record is that of the first column.
    pub(super) fn new(schema: &WriterSchema, node: usize, fields: &[Field], lone: bool) -> Columns {
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let records = schema.branches(node).into_iter().filter_map(|branch| {
            let record = schema.record(branch)?;
            Some((branch, targets(record, &names)))
        });
        Columns { node, records: records.collect(), lone }
    }
}
/// The place among `names` that each field of a record goes to.
fn targets(record: &[(String, usize)], names: &[&str]) -> Vec<Option<usize>> {
    let mut targets = vec![None; record.len()];
    for (place, name) in names.iter().enumerate() {
        let exact = record.iter().position(|(field, _)| field == name);
        let folded = || record.iter().rposition(|(field, _)| field.to_lowercase() == name.to_lowercase());
        if let Some(field) = exact.or_else(folded) {
            targets[field] = Some(place);
        }
    }
    targets
}

/// Why a value cannot be read.
#[derive(Debug)]
pub(super) enum Failure {
    /// It does not fit: where in the column, and why.
    Wrong(String, String),
    /// The database left it out.
    Unavailable,
    Broken(Broken),
}
impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Failure::Broken(broken)
    }
}
impl Failure {
    fn new(problem: &Problem, data_type: &DataType, found: &str) -> Failure {
        match problem {
            Problem::Unavailable => Failure::Unavailable,
            problem => Failure::Wrong(problem.place(), problem.reason(data_type, found)),
        }
    }
    fn syntax(data_type: &DataType, found: &str) -> Failure {
        Failure::new(&Problem::Syntax, data_type, found)
    }
    /// The same, within a part of the value.
    fn within(self, part: impl FnOnce() -> String) -> Failure {
        match self {
            Failure::Wrong(place, reason) => Failure::Wrong(format!("{}{place}", part()), reason),
            other => other,
        }
    }
}
type Found<T> = Result<T, Failure>;

/// Reads a record and puts its fields into their slots.
pub(super) fn row(
    schema: &WriterSchema,
    columns: &Columns,
    fields: &[Field],
    cursor: &mut Cursor<'_>,
    slots: &mut Slots,
) -> Result<(), Reject> {
    let broken = |Broken(reason)| Reject::record(reason);
    let values = Values { schema };
    let node = values.branch(columns.node, cursor).map_err(broken)?;
    let Some((_, targets)) = columns.records.iter().find(|(record, _)| *record == node) else {
        return lone(&values, node, fields.first().filter(|_| columns.lone), cursor, slots);
    };
    for ((name, value), target) in schema.record(node).unwrap_or_default().iter().zip(targets) {
        match target {
            None => values.skip(*value, cursor, 1).map_err(|Broken(reason)| Reject::field(name, reason))?,
            Some(place) => put(&values, *value, &fields[*place], cursor, slots)?,
        }
    }
    Ok(())
}
/// A value that is no record may be that of one column; null holds no column.
fn lone(
    values: &Values<'_>,
    node: usize,
    field: Option<&Field>,
    cursor: &mut Cursor<'_>,
    slots: &mut Slots,
) -> Result<(), Reject> {
    match (field, &values.schema.node(node).kind) {
        (Some(field), _) => put(values, node, field, cursor, slots),
        (_, Kind::Null) => Ok(()),
        (_, kind) => Err(Reject::record(format!("expected a record, found {}", kind_name(kind)))),
    }
}
fn put(values: &Values<'_>, node: usize, field: &Field, cursor: &mut Cursor<'_>, slots: &mut Slots) -> Result<(), Reject> {
    match values.datum(node, &field.data_type, field.conversion, cursor, 1) {
        Ok(datum) => slots.put(field.slot, &datum),
        Err(Failure::Unavailable) => slots.put_unavailable(field.slot),
        Err(Failure::Wrong(place, reason)) => return Err(Reject::field(format!("{}{place}", field.name), reason)),
        Err(Failure::Broken(Broken(reason))) => return Err(Reject::field(&field.name, reason)),
    }
    Ok(())
}

/// Reads values of one schema.
pub(super) struct Values<'s> {
    pub(super) schema: &'s WriterSchema,
}

impl Values<'_> {
    /// What a value is: of a union the branch that stands there, else itself.
    #[inline]
    pub(super) fn branch(&self, node: usize, cursor: &mut Cursor<'_>) -> Result<usize, Broken> {
        let Kind::Union(branches) = &self.schema.node(node).kind else { return Ok(node) };
        let index = cursor.long()?;
        let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
        branch.copied().ok_or_else(|| Broken(format!("a union of {} has no branch {index}", branches.len())))
    }
    /// Reads a value for a column of this type.
    pub(super) fn datum<'a>(
        &self,
        node: usize,
        data_type: &DataType,
        conversion: Conversion,
        cursor: &mut Cursor<'a>,
        depth: u32,
    ) -> Found<Datum<'a>> {
        let node = self.schema.node(self.branch(node, cursor)?);
        let meaning = node.meaning;
        match &node.kind {
            Kind::Null => Ok(Datum::Null),
            Kind::Boolean => handed_on(boolean(cursor)?, data_type, conversion),
            Kind::Int => number(cursor.int()?, meaning, data_type, conversion),
            Kind::Long => number(cursor.long()?, meaning, data_type, conversion),
            Kind::Float => float(f32::from_le_bytes(array(cursor)?).into(), true, data_type, conversion),
            Kind::Double => float(f64::from_le_bytes(array(cursor)?), false, data_type, conversion),
            Kind::String => text(cursor.text()?.into(), data_type, conversion),
            Kind::Enum(symbols) => text(symbol(symbols, cursor)?.to_owned().into(), data_type, conversion),
            Kind::Bytes => bytes(cursor.bytes()?, meaning, data_type, conversion),
            Kind::Fixed(size) => bytes(cursor.take(*size)?, meaning, data_type, conversion),
            Kind::Array(item) => self.array(*item, data_type, conversion, cursor, deeper(depth)?),
            Kind::Record(fields) if meaning == Meaning::VariableDecimal => {
                self.variable_decimal(fields, data_type, conversion, cursor)
            }
            Kind::Record(fields) => self.structure(fields, data_type, conversion, cursor, deeper(depth)?),
            kind @ (Kind::Map(_) | Kind::Union(_)) => Err(Failure::syntax(data_type, kind_name(kind))),
        }
    }
    fn array<'a>(
        &self,
        item: usize,
        data_type: &DataType,
        conversion: Conversion,
        cursor: &mut Cursor<'a>,
        depth: u32,
    ) -> Found<Datum<'a>> {
        const MEMBER: DataType = DataType::Decimal { precision: 20, scale: 0 };
        let item_type = match data_type {
            DataType::Array(item) => item,
            DataType::Bitmap => &MEMBER,
            _ => return Err(Failure::syntax(data_type, "an array")),
        };
        let (mut items, mut members) = (Vec::new(), Vec::new());
        each_item(cursor, |cursor, index| {
            let read = self.datum(item, item_type, conversion, cursor, depth);
            let read = read.map_err(|failure| failure.within(|| format!("[{index}]")))?;
            match data_type {
                DataType::Bitmap => members.push(member(&read, index)?),
                _ => items.push(read),
            }
            Ok::<(), Failure>(())
        })?;
        if *data_type == DataType::Bitmap { Ok(bitmap::from_members(members)) } else { Ok(Datum::Array(items)) }
    }
    fn structure<'a>(
        &self,
        fields: &[(String, usize)],
        data_type: &DataType,
        conversion: Conversion,
        cursor: &mut Cursor<'a>,
        depth: u32,
    ) -> Found<Datum<'a>> {
        let DataType::Struct(columns) = data_type else { return Err(Failure::syntax(data_type, "a record")) };
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let mut values: Vec<Datum<'a>> = vec![Datum::Null; columns.len()];
        for ((_, node), target) in fields.iter().zip(targets(fields, &names)) {
            let Some(place) = target else {
                self.skip(*node, cursor, depth)?;
                continue;
            };
            let column = &columns[place];
            let read = self.datum(*node, &column.data_type, conversion, cursor, depth);
            values[place] = read.map_err(|failure| failure.within(|| format!(".{}", column.name)))?;
        }
        let is_missing = |(column, value): &(&Column, &Datum<'_>)| !column.nullable && value.is_null();
        match columns.iter().zip(&values).find(is_missing) {
            Some((column, _)) => Err(Failure::Wrong(format!(".{}", column.name), "NULL in a NOT NULL field".into())),
            None => Ok(Datum::Struct(values)),
        }
    }
    /// Debezium's number that brings its scale.
    fn variable_decimal<'a>(
        &self,
        fields: &[(String, usize)],
        data_type: &DataType,
        conversion: Conversion,
        cursor: &mut Cursor<'a>,
    ) -> Found<Datum<'a>> {
        let (mut scale, mut unscaled) = (0, Datum::Null);
        for (name, node) in fields {
            let expected = if name == "scale" { DataType::Int } else { DataType::Bytes };
            match self.datum(*node, &expected, Conversion::default(), cursor, DEPTH_MAX)? {
                Datum::Int(value) => scale = i32::try_from(value).unwrap_or_default(),
                value => unscaled = value,
            }
        }
        match unscaled {
            Datum::Bytes(unscaled) => decimal(&unscaled, scale, data_type, conversion),
            _ => Ok(Datum::Null),
        }
    }
    /// Reads past a value.
    pub(super) fn skip(&self, node: usize, cursor: &mut Cursor<'_>, depth: u32) -> Result<(), Broken> {
        let node = self.schema.node(self.branch(node, cursor)?);
        match &node.kind {
            Kind::Null | Kind::Union(_) => {}
            Kind::Boolean => drop(cursor.take(1)?),
            Kind::Int | Kind::Long | Kind::Enum(_) => drop(cursor.long()?),
            Kind::Float => drop(cursor.take(4)?),
            Kind::Double => drop(cursor.take(8)?),
            Kind::Bytes | Kind::String => drop(cursor.bytes()?),
            Kind::Fixed(size) => drop(cursor.take(*size)?),
            Kind::Array(item) => {
                let depth = deeper(depth)?;
                each_item(cursor, |cursor, _| self.skip(*item, cursor, depth))?;
            }
            Kind::Map(value) => {
                let depth = deeper(depth)?;
                each_item(cursor, |cursor, _| {
                    cursor.bytes()?;
                    self.skip(*value, cursor, depth)
                })?;
            }
            Kind::Record(fields) => {
                let depth = deeper(depth)?;
                fields.iter().try_for_each(|(_, field)| self.skip(*field, cursor, depth))?;
            }
        }
        Ok(())
    }
}

fn deeper(depth: u32) -> Result<u32, Broken> {
    if depth < DEPTH_MAX { Ok(depth + 1) } else { Err(Broken(format!("values are nested more than {DEPTH_MAX} deep"))) }
}
/// Calls `read` for the items of all blocks.
fn each_item<'a, E: From<Broken>>(
    cursor: &mut Cursor<'a>,
    mut read: impl FnMut(&mut Cursor<'a>, u64) -> Result<(), E>,
) -> Result<(), E> {
    let (mut index, mut empty) = (0, 0);
    loop {
        let count = cursor.block()?;
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            let at = cursor.at();
            read(cursor, index)?;
            index += 1;
            empty += u64::from(cursor.at() == at);
            if empty > EMPTY_ITEMS_MAX {
                return Err(Broken(format!("an array has more than {EMPTY_ITEMS_MAX} items that are empty")).into());
            }
        }
    }
}
fn array<const N: usize>(cursor: &mut Cursor<'_>) -> Result<[u8; N], Broken> {
    let mut bytes = [0; N];
    bytes.copy_from_slice(cursor.take(N)?);
    Ok(bytes)
}
fn boolean(cursor: &mut Cursor<'_>) -> Result<&'static str, Broken> {
    match cursor.take(1)?[0] {
        0 => Ok("false"),
        1 => Ok("true"),
        other => Err(Broken(format!("a boolean is {other}"))),
    }
}
fn symbol<'s>(symbols: &'s [String], cursor: &mut Cursor<'_>) -> Result<&'s str, Broken> {
    let index = cursor.long()?;
    let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
    symbol.map(String::as_str).ok_or_else(|| Broken(format!("an enum of {} has no symbol {index}", symbols.len())))
}
fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Boolean => "a boolean",
        Kind::Int | Kind::Long | Kind::Float | Kind::Double => "a number",
        Kind::Bytes | Kind::Fixed(_) => "bytes",
        Kind::String | Kind::Enum(_) => "a string",
        Kind::Array(_) => "an array",
        Kind::Map(_) => "a map",
        Kind::Union(_) => "a union",
        Kind::Record(_) => "a record",
    }
}

/// What JSON makes of a number or truth value that is written so.
fn handed_on(written: &str, data_type: &DataType, conversion: Conversion) -> Found<Datum<'static>> {
    let read = json::datum(written, data_type, conversion).map(Datum::into_owned);
    read.map_err(|problem| Failure::new(&problem, data_type, written))
}
fn text<'a>(text: Cow<'a, str>, data_type: &DataType, conversion: Conversion) -> Found<Datum<'a>> {
    let found = match data_type {
        // Nothing can be wrong with it, so nothing has to be quoted.
        DataType::String => String::new(),
        _ => format!("\"{text}\""),
    };
    json::from_string(text, data_type, conversion).map_err(|problem| Failure::new(&problem, data_type, &found))
}
#[inline]
fn number(value: i64, meaning: Meaning, data_type: &DataType, conversion: Conversion) -> Found<Datum<'static>> {
    let reads = |parsed: Parsed<i64>| match parsed {
        Ok(value) => Ok(Datum::Int(value)),
        Err(problem) => Err(Failure::new(&problem, data_type, &value.to_string())),
    };
    match (meaning, data_type) {
        (_, DataType::BigInt) => Ok(Datum::Int(value)),
        (Meaning::Instant(unit, zone), DataType::String) => written_instant(value, unit, zone)
            .map_or_else(|problem| Err(Failure::new(&problem, data_type, &value.to_string())), |text| Ok(Datum::str(text))),
        (Meaning::Instant(unit, _), _) => {
            handed_on(&value.to_string(), data_type, Conversion { unit: Some(unit), ..conversion })
        }
        (Meaning::TimeOfDay(unit), DataType::String) => match unit.to_micros(value) {
            Ok(micros) => Ok(Datum::str(time_of_day(micros))),
            Err(problem) => reads(Err(problem)),
        },
        (Meaning::TimeOfDay(unit) | Meaning::Span(unit), DataType::IntervalDay) => reads(unit.to_micros(value)),
        // The remedy is not an option of debezium-json.
        (_, DataType::Timestamp | DataType::TimestampLtz) => handed_on(&value.to_string(), data_type, Conversion::default()),
        _ => handed_on(&value.to_string(), data_type, conversion),
    }
}
fn written_instant(value: i64, unit: TimeUnit, zone: Zone) -> Parsed<String> {
    let mut text = Vec::new();
    match (unit, zone) {
        (TimeUnit::Days, _) => write_temporal(value, &DataType::Date, &mut text),
        (unit, Zone::Local) => write_temporal(unit.to_micros(value)?, &DataType::Timestamp, &mut text),
        (unit, Zone::Utc) => write_temporal(unit.to_micros(value)?, &DataType::TimestampLtz, &mut text),
    };
    Ok(String::from_utf8_lossy(&text).into_owned())
}
/// `09:30:00.5`, as the end of a timestamp prints.
fn time_of_day(micros: i64) -> String {
    let mut text = Vec::new();
    write_temporal(micros.rem_euclid(86_400_000_000), &DataType::Timestamp, &mut text);
    String::from_utf8_lossy(text.get("1970-01-01 ".len()..).unwrap_or_default()).into_owned()
}
fn float(value: f64, single: bool, data_type: &DataType, conversion: Conversion) -> Found<Datum<'static>> {
    let written_type = if single { DataType::Float } else { DataType::Double };
    if *data_type == DataType::Double || *data_type == written_type {
        return Ok(Datum::Float(value));
    }
    let written = plain(&Datum::Float(value), &written_type);
    match (value.is_finite(), data_type) {
        (true, _) => handed_on(&written, data_type, conversion),
        (false, DataType::Float) => Ok(Datum::Float(value)),
        (false, DataType::String) => Ok(Datum::str(written)),
        (false, _) => Err(Failure::syntax(data_type, &written)),
    }
}
fn bytes<'a>(bytes: &'a [u8], meaning: Meaning, data_type: &DataType, conversion: Conversion) -> Found<Datum<'a>> {
    let left_out = || std::str::from_utf8(bytes).is_ok_and(is_unavailable);
    match (meaning, data_type) {
        _ if conversion.database && left_out() => Err(Failure::Unavailable),
        (_, DataType::Bytes) => Ok(Datum::Bytes(bytes.into())),
        (Meaning::Decimal(scale), _) => decimal(bytes, scale, data_type, conversion),
        (Meaning::BigDecimal, _) => {
            let mut inner = Cursor::new(bytes);
            let (unscaled, scale) = (inner.bytes()?, inner.int()?);
            decimal(unscaled, i32::try_from(scale).unwrap_or_default(), data_type, conversion)
        }
        (Meaning::Duration, DataType::IntervalDay | DataType::IntervalMonth) => duration(bytes, data_type),
        (Meaning::Uuid, DataType::String) if bytes.len() == 16 => Ok(Datum::str(uuid(bytes))),
        _ => Err(Failure::syntax(data_type, "bytes")),
    }
}
/// A number from its unscaled bytes.
fn decimal(unscaled: &[u8], scale: i32, data_type: &DataType, conversion: Conversion) -> Found<Datum<'static>> {
    let digits = unscaled_digits(unscaled).map_err(|problem| Failure::new(&problem, data_type, "a decimal"))?;
    let written = match i8::try_from(scale) {
        Ok(scale @ 0..=38) => plain(&Datum::Decimal(digits), &DataType::Decimal { precision: 38, scale }),
        _ => format!("{digits}e{}", -i64::from(scale)),
    };
    handed_on(&written, data_type, conversion)
}
fn duration(bytes: &[u8], data_type: &DataType) -> Found<Datum<'static>> {
    let part = |index: usize| {
        let word = bytes.get(4 * index..4 * index + 4).and_then(|word| word.try_into().ok());
        i64::from(u32::from_le_bytes(word.unwrap_or_default()))
    };
    let [months, days, millis] = [0, 1, 2].map(part);
    match data_type {
        DataType::IntervalDay if months == 0 => Ok(Datum::Int(days * 86_400_000_000 + millis * 1000)),
        DataType::IntervalMonth if days == 0 && millis == 0 && months <= i64::from(i32::MAX) => Ok(Datum::Int(months)),
        _ => {
            let found = format!("{months} months, {days} days and {millis} milliseconds");
            Err(Failure::syntax(data_type, &found))
        }
    }
}
fn uuid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
fn member(datum: &Datum<'_>, index: u64) -> Found<u64> {
    let member = match datum {
        Datum::Decimal(value) => u64::try_from(*value).map_err(|_| value.to_string()),
        _ => Err("null".to_owned()),
    };
    member.map_err(|found| {
        let reason = format!("expected an integer from 0 to {}, found {found}", u64::MAX);
        Failure::Wrong(format!("[{index}]"), reason)
    })
}
fn plain(datum: &Datum<'_>, data_type: &DataType) -> String {
    let mut text = Vec::new();
    write_plain(datum, data_type, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
