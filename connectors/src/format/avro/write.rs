//! Rows as Avro: the schema of a table's columns, and their bytes.
//!
//! A column that may be NULL is a union with null, null by default; those of the PRIMARY KEY may not.
//!
//! | type | Avro |
//! |---|---|
//! | BOOLEAN, BIGINT, FLOAT, DOUBLE, STRING, BYTES | the type of that name; TINYINT, SMALLINT, INT are int |
//! | DECIMAL | bytes, decimal |
//! | DATE, TIMESTAMP, TIMESTAMP_LTZ | date, local-timestamp-micros, timestamp-micros |
//! | INTERVAL | string, as in JSON |
//! | BITMAP | an array of decimals of 20 digits, because a long does not hold every id |
//! | ARRAY, STRUCT | array, whose items may be null; record |
//!
//! A change is Debezium's envelope: `before`, `after` and `op`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaworks_dataflow::{Column, DataType, Datum, Schema, bitmap};
use serde_json::{Value, json};

use super::registry::Registry;
use super::{ROWS, key_options};
use crate::error::{Error, Result};
use crate::format::text::write_plain;
use crate::options::Options;

/// Writes rows of some columns.
#[derive(Clone, Debug)]
pub(crate) struct AvroRows {
    /// What the format is called, and where its options are.
    format: &'static str,
    options: Options,
    columns: Vec<Column>,
    subject: String,
    schema: String,
    /// The schema's id in the registry, once it is registered.
    id: u32,
}

impl AvroRows {
    /// A writer of rows alone, or with `envelope` of changes.
    ///
    /// # Errors
    /// Options with impossible values; columns whose names Avro does not allow.
    pub(crate) fn new(
        schema: &Schema,
        envelope: bool,
        options: &Options,
        format: &'static str,
        subject: String,
    ) -> Result<Self> {
        AvroRows::of(schema, envelope, options.of_value(), format, subject)
    }
    /// A writer of keys.
    ///
    /// # Errors
    /// Options with impossible values; columns whose names Avro does not allow.
    pub(crate) fn of_key(schema: &Schema, options: &Options, subject: String) -> Result<Self> {
        AvroRows::of(schema, false, key_options(options), ROWS, subject)
    }
    fn of(schema: &Schema, envelope: bool, options: Options, format: &'static str, subject: String) -> Result<Self> {
        Registry::from_options(&options, format)?;
        let subject = options.get(&format!("{format}.subject")).map_or(subject, str::to_owned);
        let columns = schema.columns.clone();
        let name = if envelope { "Value" } else { "record" };
        let mut json = record(name, &columns, format)?;
        if envelope {
            let image = |name: &str, image: Value| json!({ "name": name, "type": ["null", image], "default": null });
            let fields = [image("before", json), image("after", json!("Value")), json!({ "name": "op", "type": "string" })];
            json = json!({ "type": "record", "name": "Envelope", "fields": fields });
        }
        Ok(AvroRows { format, options, columns, subject, schema: json.to_string(), id: 0 })
    }
    /// Registers the schema.
    ///
    /// # Errors
    /// No registry, or one that does not take the schema.
    pub(crate) fn register(&mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        let mut registry = Registry::from_options(&self.options, self.format)?;
        self.id = registry.register(stop, &self.subject, &self.schema)?;
        Ok(())
    }
    /// Appends the message of a row.
    ///
    /// # Errors
    /// Names a column that is NULL and may not be.
    pub(crate) fn write(&self, row: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), String> {
        self.begin(out);
        self.row(row, out)
    }
    /// Appends the message of a change.
    ///
    /// # Errors
    /// Names a column that is NULL and may not be.
    pub(crate) fn write_change(
        &self,
        before: Option<&[u8]>,
        after: Option<&[u8]>,
        op: &str,
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), String> {
        self.begin(out);
        for image in [before, after] {
            write_long(image.is_some().into(), out);
            image.map_or(Ok(()), |row| self.row(row, out))?;
        }
        write_bytes(op.as_bytes(), out);
        Ok(())
    }
    fn begin(&self, out: &mut Vec<u8>) {
        out.push(0);
        out.extend_from_slice(&self.id.to_be_bytes());
    }
    fn row(&self, mut row: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), String> {
        for column in &self.columns {
            let datum = Datum::decode(&mut row, &column.data_type);
            write_column(&datum, column, out)?;
        }
        Ok(())
    }
    #[cfg(test)]
    pub(super) fn schema_text(&self) -> &str {
        &self.schema
    }
}

/// The schema of a record with these fields. Records in it are called after the way to them.
fn record(name: &str, columns: &[Column], format: &'static str) -> Result<Value> {
    let mut fields = Vec::with_capacity(columns.len());
    for column in columns {
        if !is_name(&column.name) {
            let reason = format!("Avro does not allow the name \"{}\": letters, digits and _ only", column.name);
            return Err(Error::Columns { format, reason });
        }
        let type_of = data_type(&column.data_type, &format!("{name}_{}", column.name), format)?;
        fields.push(match column.nullable {
            true => json!({ "name": column.name, "type": ["null", type_of], "default": null }),
            false => json!({ "name": column.name, "type": type_of }),
        });
    }
    Ok(json!({ "type": "record", "name": name, "fields": fields }))
}
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
fn data_type(data_type: &DataType, name: &str, format: &'static str) -> Result<Value> {
    let decimal = |precision: u8, scale: i8| json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale });
    Ok(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::TinyInt | DataType::SmallInt | DataType::Int => json!("int"),
        DataType::BigInt => json!("long"),
        DataType::Float => json!("float"),
        DataType::Double => json!("double"),
        DataType::String | DataType::IntervalDay | DataType::IntervalMonth => json!("string"),
        DataType::Bytes => json!("bytes"),
        DataType::Decimal { precision, scale } => decimal(*precision, *scale),
        DataType::Date => json!({ "type": "int", "logicalType": "date" }),
        DataType::Timestamp => json!({ "type": "long", "logicalType": "local-timestamp-micros" }),
        DataType::TimestampLtz => json!({ "type": "long", "logicalType": "timestamp-micros" }),
        DataType::Bitmap => json!({ "type": "array", "items": decimal(20, 0) }),
        DataType::Array(item) => json!({ "type": "array", "items": ["null", self::data_type(item, name, format)?] }),
        DataType::Struct(columns) => record(name, columns, format)?,
    })
}

fn write_column(datum: &Datum<'_>, column: &Column, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    match (column.nullable, datum.is_null()) {
        (true, is_null) => write_nullable(datum, is_null, &column.data_type, out),
        (false, true) => Err(column.name.clone()),
        (false, false) => write_value(datum, &column.data_type, out),
    }
}
fn write_nullable(
    datum: &Datum<'_>,
    is_null: bool,
    data_type: &DataType,
    out: &mut Vec<u8>,
) -> std::result::Result<(), String> {
    write_long((!is_null).into(), out);
    if is_null { Ok(()) } else { write_value(datum, data_type, out) }
}
fn write_value(datum: &Datum<'_>, data_type: &DataType, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    match datum {
        Datum::Null => {}
        Datum::Bool(value) => out.push((*value).into()),
        Datum::Int(_) if matches!(data_type, DataType::IntervalDay | DataType::IntervalMonth) => {
            let mut text = Vec::new();
            write_plain(datum, data_type, &mut text);
            write_bytes(&text, out);
        }
        Datum::Int(value) => write_long(*value, out),
        Datum::Float(value) if *data_type == DataType::Float => out.extend_from_slice(&(*value as f32).to_le_bytes()),
        Datum::Float(value) => out.extend_from_slice(&value.to_le_bytes()),
        Datum::Decimal(value) => write_decimal(*value, out),
        Datum::Str(text) => write_bytes(text.as_bytes(), out),
        Datum::Bytes(bytes) => write_bytes(bytes, out),
        Datum::Bitmap(bytes) => write_bitmap(bytes, out),
        Datum::Array(items) => write_array(items, data_type, out)?,
        Datum::Struct(fields) => {
            let DataType::Struct(columns) = data_type else { return Ok(()) };
            for (field, column) in fields.iter().zip(columns) {
                write_column(field, column, out)?;
            }
        }
    }
    Ok(())
}
fn write_array(items: &[Datum<'_>], data_type: &DataType, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    let DataType::Array(item_type) = data_type else { return Ok(()) };
    if !items.is_empty() {
        write_length(items.len(), out);
        for item in items {
            write_nullable(item, item.is_null(), item_type, out)?;
        }
    }
    write_long(0, out);
    Ok(())
}
fn write_bitmap(bytes: &[u8], out: &mut Vec<u8>) {
    let members = bitmap::to_set(bytes);
    if !members.is_empty() {
        write_long(i64::try_from(members.len()).unwrap_or(i64::MAX), out);
        members.iter().for_each(|member| write_decimal(member.into(), out));
    }
    write_long(0, out);
}
/// The fewest bytes of a number in two's complement.
fn write_decimal(value: i128, out: &mut Vec<u8>) {
    let bits = 128 - (if value < 0 { !value } else { value }).leading_zeros() as usize;
    let bytes = value.to_be_bytes();
    write_bytes(&bytes[16 - (bits / 8 + 1)..], out);
}
fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}
fn write_length(length: usize, out: &mut Vec<u8>) {
    write_long(i64::try_from(length).unwrap_or(i64::MAX), out);
}
fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut word = ((value << 1) ^ (value >> 63)) as u64;
    while word >= 0x80 {
        out.push(word as u8 | 0x80);
        word >>= 7;
    }
    out.push(word as u8);
}
