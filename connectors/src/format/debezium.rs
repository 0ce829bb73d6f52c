//! The change envelope of Debezium, as JSON, bare or wrapped in its schema.
//!
//! What an envelope does stands in `change.rs`. Flattened records (`__op`, `__deleted`) are taken as they are.
//!
//! The schema wrapper says in which unit times and at which scale decimals are written. Without it the table has to:
//! `'debezium-json.timestamp-unit'` = `ms`, `us` or `ns`; `'debezium-json.decimal'` = `bytes` if decimals are base64, at the
//! column's own scale. A value that the database left out (`__debezium_unavailable_value`) is taken from `before`, else the
//! record is rejected.

use deltaworks_dataflow::DataType;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;

use super::change::{self, Images};
use super::json::{Conversion, Field, ObjectReader, Pairs, TimeUnit, utf8};
use super::parse::{self, Parsed, Problem};
use super::{RecordFormat, Reject};
use crate::decode::{Slots, TableFormat, Target};
use crate::error::{Error, Result as SetupResult};
use crate::record::Record;

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
        Ok(Debezium { object: ObjectReader::new(fields), names, base, schema: "null".to_owned() })
    }
    /// Takes the conversions from a record's schema, unless it is the one seen last. A record without one is read as the options
    /// say, whatever came before it.
    fn learn(&mut self, schema: Option<&RawValue>) {
        let schema = schema.map_or("null", RawValue::get);
        if schema == self.schema {
            return;
        }
        self.schema = schema.to_owned();
        let node: Option<SchemaNode<'_>> = serde_json::from_str(schema).unwrap_or_default();
        let node = node.unwrap_or_default();
        let image = node.fields.iter().find(|field| matches!(field.field.as_deref(), Some("after" | "before")));
        let columns = image.unwrap_or(&node);
        for ((field, name), base) in self.object.fields_mut().iter_mut().zip(&self.names).zip(&self.base) {
            let column = columns.column(name);
            field.conversion = column.map_or(*base, |column| column.conversion(*base));
        }
    }
}

impl Images<&str> for ObjectReader {
    fn read(&mut self, image: &str, slots: &mut Slots) -> Result<(), Reject> {
        ObjectReader::read(self, image, slots)
    }
    fn fields(&self) -> &[Field] {
        ObjectReader::fields(self)
    }
}

impl RecordFormat for Debezium {
    fn decode(&mut self, record: &Record<'_>, target: &mut Target<'_>) -> Result<(), Reject> {
        let Some(value) = record.value else { return change::tombstone(target) };
        let text = utf8(value)?;
        let outer = envelope(text)?;
        let Some(payload) = outer.payload else {
            self.learn(None);
            return self.envelope(text, &outer, target);
        };
        if payload.get() == "null" {
            return change::tombstone(target);
        }
        self.learn(outer.schema);
        self.envelope(payload.get(), &envelope(payload.get())?, target)
    }
}
impl Debezium {
    fn envelope(&mut self, text: &str, envelope: &Envelope<'_>, target: &mut Target<'_>) -> Result<(), Reject> {
        match envelope.op.as_deref() {
            Some(op) => change::apply(
                &mut self.object,
                op,
                envelope.before.map(RawValue::get),
                envelope.after.map(RawValue::get),
                target,
            ),
            None if envelope.flat_op.is_some() || envelope.flat_deleted.is_some() => {
                let deleted = envelope.flat_deleted.is_some_and(|flag| matches!(flag.get(), "true" | "\"true\""));
                change::flattened(&mut self.object, text, deleted || envelope.flat_op.as_deref() == Some("d"), target)
            }
            None if is_heartbeat(text) => {
                target.ignore();
                Ok(())
            }
            None => Err(change::no_envelope()),
        }
    }
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
/// What a number counts whose schema has this name.
pub(crate) fn time_unit(name: &str) -> Option<TimeUnit> {
    Some(match name {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => TimeUnit::Days,
        "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => TimeUnit::Millis,
        "io.debezium.time.MicroTimestamp" => TimeUnit::Micros,
        "io.debezium.time.NanoTimestamp" => TimeUnit::Nanos,
        _ => return None,
    })
}
impl SchemaNode<'_> {
    fn column(&self, name: &str) -> Option<&SchemaNode<'_>> {
        let named = |node: &&SchemaNode<'_>| node.field.as_deref() == Some(name);
        let folded =
            |node: &&SchemaNode<'_>| node.field.as_deref().is_some_and(|field| field.to_lowercase() == name.to_lowercase());
        self.fields.iter().find(named).or_else(|| self.fields.iter().find(folded))
    }
    fn conversion(&self, base: Conversion) -> Conversion {
        let unit = self.name.as_deref().and_then(time_unit).or(base.unit);
        let is_decimal = self.name.as_deref() == Some("org.apache.kafka.connect.data.Decimal");
        let scale = self.parameters.as_ref().and_then(|parameters| parameters.scale.as_ref()?.parse().ok());
        Conversion { unit, unscaled: if is_decimal { scale } else { None }, ..base }
    }
}

/// A DECIMAL as base64 of its unscaled bytes: big-endian two's complement.
pub(crate) fn unscaled_decimal(text: &str, unscaled: i32, precision: u8, scale: i8) -> Parsed<i128> {
    let digits = unscaled_digits(&parse::bytes(text)?)?;
    parse::decimal(&format!("{digits}e{}", -i64::from(unscaled)), precision, scale)
}
/// The digits of a number, from its bytes: big-endian two's complement.
pub(crate) fn unscaled_digits(bytes: &[u8]) -> Parsed<i128> {
    let (first, size) = (*bytes.first().ok_or(Problem::Syntax)?, bytes.len());
    if size > 16 {
        return Err(Problem::Range);
    }
    let fill = if first & 0x80 == 0 { 0 } else { 0xFF };
    let mut word = [fill; 16];
    word[16 - size..].copy_from_slice(bytes);
    Ok(i128::from_be_bytes(word))
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
