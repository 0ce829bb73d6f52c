//! The change envelope of Debezium, as JSON, bare or wrapped in its schema.
//!
//! | `op` | gives |
//! |---|---|
//! | `c`, `r` | upsert of `after` |
//! | `u` | upsert of `after`; first a delete of the old key where it changed, or the old image taken back where the table wants it |
//! | `d` | delete by key: of `before`, else of the record's key; without a key, `before` taken back |
//! | `t` | rejected: a truncated table is not emptied yet |
//! | `m`, heartbeats | ignored and counted |
//!
//! Flattened records (`__op`, `__deleted`) are taken as they are. A tombstone deletes its key once more, which changes nothing,
//! unless compaction already removed the delete before it; where it cannot say a key it is ignored.
//!
//! The schema wrapper says in which unit times and at which scale decimals are written. Without it the table has to:
//! `'debezium-json.timestamp-unit'` = `ms`, `us` or `ns`; `'debezium-json.decimal'` = `bytes` if decimals are base64, at the
//! column's own scale. A value that the database left out (`__debezium_unavailable_value`) is taken from `before`, else the
//! record is rejected.

use deltaworks_dataflow::DataType;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;

use super::json::{Conversion, ObjectReader, Pairs, TimeUnit, utf8};
use super::parse::{self, Parsed, Problem};
use super::{RecordFormat, Reject};
use crate::decode::{Slots, TableFormat, Target};
use crate::error::{Error, Result as SetupResult};
use crate::record::Record;
use deltaworks_dataflow::row::is_null_field;

const UNAVAILABLE: &str = "__debezium_unavailable_value";
const UNAVAILABLE_BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";

/// Whether a text stands for a value that the database left out.
pub(crate) fn is_unavailable(text: &str) -> bool {
    text == UNAVAILABLE || text == UNAVAILABLE_BASE64
}

/// Records that are Debezium envelopes.
pub(crate) struct Debezium {
    object: ObjectReader,
    names: Vec<String>,
    /// What the table's options say; a schema overrides it.
    base: Vec<Conversion>,
    /// The schema that the conversions were last taken from.
    schema: String,
}

impl Debezium {
    pub(crate) fn new(table: &TableFormat) -> SetupResult<Self> {
        if table.key.is_empty() && !table.metadata.is_empty() {
            let reason = "without a key a row is found again by all its columns, and metadata differ from record to record";
            return Err(Error::Columns { format: "debezium-json", reason: reason.to_owned() });
        }
        let unit = match table.options.get("debezium-json.timestamp-unit") {
            None => None,
            Some("ms") => Some(TimeUnit::Millis),
            Some("us") => Some(TimeUnit::Micros),
            Some("ns") => Some(TimeUnit::Nanos),
            Some(value) => return Err(table.options.invalid("debezium-json.timestamp-unit", value, "ms, us or ns")),
        };
        let bytes = match table.options.get("debezium-json.decimal") {
            None | Some("text") => false,
            Some("bytes") => true,
            Some(value) => return Err(table.options.invalid("debezium-json.decimal", value, "text or bytes")),
        };
        let mut fields = table.in_value()?;
        for field in &mut fields {
            let time = matches!(field.data_type, DataType::Timestamp | DataType::TimestampLtz);
            let unscaled = match field.data_type {
                DataType::Decimal { scale, .. } if bytes => Some(i32::from(scale)),
                _ => None,
            };
            field.conversion = Conversion { unit: unit.filter(|_| time), unscaled, database: true };
        }
        let names = fields.iter().map(|field| field.name.clone()).collect();
        let base = fields.iter().map(|field| field.conversion).collect();
        Ok(Debezium { object: ObjectReader::new(fields), names, base, schema: String::new() })
    }
    /// Takes the conversions from a schema, unless it is the one seen last.
    fn learn(&mut self, schema: &str) {
        if schema == self.schema {
            return;
        }
        self.schema = schema.to_owned();
        let node: SchemaNode<'_> = serde_json::from_str(schema).unwrap_or_default();
        let image = node.fields.iter().find(|field| matches!(field.field.as_deref(), Some("after" | "before")));
        let columns = image.unwrap_or(&node);
        for ((field, name), base) in self.object.fields_mut().iter_mut().zip(&self.names).zip(&self.base) {
            let column = columns.column(name);
            field.conversion = column.map_or(*base, |column| column.conversion(*base));
        }
    }
    fn read_old(&mut self, before: &str, target: &mut Target<'_>) -> Result<(), Reject> {
        let (_, old) = target.both_slots();
        old.clear();
        self.object.read(before, old).map_err(|reject| Reject { reason: format!("before: {}", reject.reason), ..reject })?;
        target.fill_old_from_key()
    }
    fn read_new(&mut self, after: Option<&RawValue>, target: &mut Target<'_>) -> Result<(), Reject> {
        let Some(after) = after else { return Err(Reject::field("after", "the new image is missing")) };
        self.object.read(after.get(), target.slots())?;
        target.fill_from_key()
    }
    fn update(&mut self, envelope: &Envelope<'_>, target: &mut Target<'_>) -> Result<(), Reject> {
        if let Some(before) = envelope.before {
            self.read_old(before.get(), target)?;
        } else if !target.has_key() {
            return Err(Reject::field("before", "an update of a table without a key needs the old image"));
        } else {
            target.both_slots().1.clear();
        }
        self.read_new(envelope.after, target)?;
        let (slots, old) = target.both_slots();
        fill_unavailable(slots, old, &self.names_by_slot())?;
        if envelope.before.is_some() {
            if target.wants_old_images() {
                target.retract_old()?;
            } else if target.key_changes() {
                target.delete_old_key();
            }
        }
        target.upsert()
    }
    fn insert(&mut self, after: Option<&RawValue>, target: &mut Target<'_>) -> Result<(), Reject> {
        self.read_new(after, target)?;
        let (slots, old) = target.both_slots();
        old.clear();
        fill_unavailable(slots, old, &self.names_by_slot())?;
        target.upsert()
    }
    fn delete(&mut self, before: Option<&RawValue>, target: &mut Target<'_>) -> Result<(), Reject> {
        match before {
            Some(before) => self.read_old(before.get(), target)?,
            None => target.both_slots().1.clear(),
        }
        if before.is_some() && target.wants_old_images() {
            target.retract_old()
        } else if target.has_old_key() {
            target.delete_old_key();
            Ok(())
        } else if target.has_key() {
            target.delete_by_record_key()
        } else {
            Err(Reject::field("before", "a delete from a table without a key needs the old image"))
        }
    }
    /// A row that was flattened on its way.
    fn flattened(&mut self, row: &str, envelope: &Envelope<'_>, target: &mut Target<'_>) -> Result<(), Reject> {
        let deleted = envelope.flat_deleted.is_some_and(|flag| matches!(flag.get(), "true" | "\"true\""));
        if deleted || envelope.flat_op.as_deref() == Some("d") {
            self.read_old(row, target)?;
            if !target.has_old_key() {
                return target.delete_by_record_key();
            }
            target.delete_old_key();
            return Ok(());
        }
        self.object.read(row, target.slots())?;
        target.fill_from_key()?;
        target.upsert()
    }
    fn names_by_slot(&mut self) -> Vec<(usize, String)> {
        self.object.fields_mut().iter().map(|field| (field.slot, field.name.clone())).collect()
    }
}

/// Takes values that were left out from the old image. NULL there is not trusted: a value that was left out is not NULL.
fn fill_unavailable(slots: &mut Slots, old: &Slots, names: &[(usize, String)]) -> Result<(), Reject> {
    for column in slots.unavailable().to_vec() {
        if slots.field(column).is_some() {
            continue;
        }
        match old.field(column).filter(|field| !is_null_field(field)) {
            Some(field) => slots.put_encoded(column, field),
            None => {
                let name = names.iter().find(|(slot, _)| *slot == column).map_or("", |(_, name)| name);
                let reason = "the database left the unchanged value out; set REPLICA IDENTITY FULL on its table";
                return Err(Reject::field(name, reason));
            }
        }
    }
    Ok(())
}

impl RecordFormat for Debezium {
    fn decode(&mut self, record: &Record<'_>, target: &mut Target<'_>) -> Result<(), Reject> {
        let Some(value) = record.value else { return tombstone(target) };
        let text = utf8(value)?;
        let outer = envelope(text)?;
        let Some(payload) = outer.payload else { return self.envelope(text, &outer, target) };
        if payload.get() == "null" {
            return tombstone(target);
        }
        if let Some(schema) = outer.schema.filter(|schema| schema.get() != "null") {
            self.learn(schema.get());
        }
        self.envelope(payload.get(), &envelope(payload.get())?, target)
    }
}
impl Debezium {
    fn envelope(&mut self, text: &str, envelope: &Envelope<'_>, target: &mut Target<'_>) -> Result<(), Reject> {
        match envelope.op.as_deref() {
            Some("c" | "r") => self.insert(envelope.after, target),
            Some("u") => self.update(envelope, target),
            Some("d") => self.delete(envelope.before, target),
            Some("t") => Err(Reject::field("op", "the table was truncated, which is not carried over yet")),
            Some("m") => {
                target.ignore();
                Ok(())
            }
            Some(other) => Err(Reject::field("op", format!("unknown operation \"{}\"", parse::quoted(other)))),
            None if envelope.flat_op.is_some() || envelope.flat_deleted.is_some() => self.flattened(text, envelope, target),
            None if is_heartbeat(text) => {
                target.ignore();
                Ok(())
            }
            None => Err(Reject::field("op", "no change envelope: the operation is missing")),
        }
    }
}
fn tombstone(target: &mut Target<'_>) -> Result<(), Reject> {
    let deletes = target.has_key() && !target.wants_old_images() && target.delete_by_record_key().is_ok();
    if !deletes {
        target.ignore();
    }
    Ok(())
}
fn is_heartbeat(text: &str) -> bool {
    let pairs: Result<Pairs<'_>, _> = serde_json::from_str(text);
    pairs.is_ok_and(|pairs| !pairs.0.is_empty() && pairs.0.iter().all(|(name, _)| name == "ts_ms"))
}

/// The parts of an envelope that we read, with and without the schema wrapper.
#[derive(Deserialize, Default)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    schema: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
    #[serde(borrow, default)]
    op: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "__op")]
    flat_op: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "__deleted")]
    flat_deleted: Option<&'a RawValue>,
}
/// Keeps "present but null" apart from "absent", which `Option` alone does not.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}
fn envelope(text: &str) -> Result<Envelope<'_>, Reject> {
    if !text.trim_start().starts_with('{') {
        return Err(Reject::record("expected a change envelope, which is an object"));
    }
    serde_json::from_str(text).map_err(|error| Reject::record(format!("invalid change envelope: {error}")))
}
/// The object of a key, out of its wrapper; None where the text is no object.
pub(crate) fn payload(text: &str) -> Option<&str> {
    let wrapped: Envelope<'_> = serde_json::from_str(text).ok()?;
    Some(wrapped.payload.map_or(text, RawValue::get)).filter(|object| object.trim_start().starts_with('{'))
}

/// A node of a Connect schema.
#[derive(Deserialize, Default)]
#[serde(default)]
struct SchemaNode<'a> {
    #[serde(borrow)]
    field: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    fields: Vec<SchemaNode<'a>>,
    #[serde(borrow)]
    parameters: Option<Parameters<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Parameters<'a> {
    #[serde(borrow)]
    scale: Option<Cow<'a, str>>,
}
impl SchemaNode<'_> {
    fn column(&self, name: &str) -> Option<&SchemaNode<'_>> {
        let named = |node: &&SchemaNode<'_>| node.field.as_deref() == Some(name);
        let folded =
            |node: &&SchemaNode<'_>| node.field.as_deref().is_some_and(|field| field.to_lowercase() == name.to_lowercase());
        self.fields.iter().find(named).or_else(|| self.fields.iter().find(folded))
    }
    fn conversion(&self, base: Conversion) -> Conversion {
        let unit = match self.name.as_deref() {
            Some("io.debezium.time.Date" | "org.apache.kafka.connect.data.Date") => Some(TimeUnit::Days),
            Some("io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp") => Some(TimeUnit::Millis),
            Some("io.debezium.time.MicroTimestamp") => Some(TimeUnit::Micros),
            Some("io.debezium.time.NanoTimestamp") => Some(TimeUnit::Nanos),
            _ => base.unit,
        };
        let is_decimal = self.name.as_deref() == Some("org.apache.kafka.connect.data.Decimal");
        let scale = self.parameters.as_ref().and_then(|parameters| parameters.scale.as_ref()?.parse().ok());
        Conversion { unit, unscaled: if is_decimal { scale } else { None }, ..base }
    }
}

/// A DECIMAL as base64 of its unscaled bytes: big-endian two's complement.
pub(crate) fn unscaled_decimal(text: &str, unscaled: i32, precision: u8, scale: i8) -> Parsed<i128> {
    let bytes = parse::bytes(text)?;
    let (first, size) = (*bytes.first().ok_or(Problem::Syntax)?, bytes.len());
    if size > 16 {
        return Err(Problem::Range);
    }
    let fill = if first & 0x80 == 0 { 0 } else { 0xFF };
    let mut word = [fill; 16];
    word[16 - size..].copy_from_slice(&bytes);
    let number = format!("{}e{}", i128::from_be_bytes(word), -i64::from(unscaled));
    parse::decimal(&number, precision, scale)
}
/// A DECIMAL that brings its scale: `{"scale":2,"value":"/w=="}`.
pub(crate) fn variable_decimal(text: &str, precision: u8, scale: i8) -> Parsed<i128> {
    #[derive(Deserialize)]
    struct Variable<'a> {
        scale: i32,
        #[serde(borrow)]
        value: Cow<'a, str>,
    }
    let variable: Variable<'_> = serde_json::from_str(text).map_err(|_| Problem::Syntax)?;
    unscaled_decimal(&variable.value, variable.scale, precision, scale)
}
