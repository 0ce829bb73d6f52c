//! Formats: one file per format, from the bytes of a record to the fields of a row, and the text that rows become.
//!
//! | file | what |
//! |---|---|
//! | `json.rs` | JSON objects, driven by the table's columns |
//! | `change.rs` | what a change envelope of Debezium does |
//! | `debezium.rs` | that envelope as JSON |
//! | `avro/` | both as Avro with a schema registry, in a build with that feature; else `without_avro.rs` |
//! | `csv.rs` | lines of separated fields |
//! | `raw.rs` | the whole value as one column |
//! | `packed.rs` | values that are packed rows already (Parquet) |
//! | `key.rs` | the key of a record: columns that it fills, and what it deletes |
//! | `parse.rs` | text to values, one reader per SQL type |
//! | `pattern.rs` | patterns of dates and times, such as `M/d/yyyy H:mm` |
//! | `text.rs` | values to text: JSON, CSV, tables |

#[cfg(feature = "avro")]
pub(crate) mod avro;
#[cfg(not(feature = "avro"))]
#[path = "without_avro.rs"]
pub(crate) mod avro;
pub(crate) mod change;
pub mod csv;
pub mod debezium;
pub mod json;
pub(crate) mod key;
pub(crate) mod packed;
pub mod parse;
pub(crate) mod pattern;
pub(crate) mod raw;
pub mod text;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::decode::{Prepared, Target};
use crate::error::{Error, Result};
use crate::record::Record;

/// The format of a source's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object with a field per column.
    Json,
    /// The change envelope of Debezium, as JSON.
    Debezium,
    /// Avro with a schema registry.
    Avro,
    /// The change envelope of Debezium, as Avro with a schema registry.
    DebeziumAvro,
    /// A line of separated fields, by position.
    Csv,
    /// The value as it is, in the one column that is no metadata.
    Raw,
    /// Packed rows, which sources with columns of their own make (Parquet).
    Packed,
}

impl Format {
    /// The format of that name.
    ///
    /// # Errors
    /// Names the formats that there are.
    pub fn from_name(name: &str) -> Result<Format> {
        match name {
            "json" => Ok(Format::Json),
            "debezium-json" | "debezium" => Ok(Format::Debezium),
            avro::ROWS => Ok(Format::Avro),
            avro::CHANGES => Ok(Format::DebeziumAvro),
            "csv" => Ok(Format::Csv),
            "raw" => Ok(Format::Raw),
            "parquet" => Ok(Format::Packed),
            _ => {
                let known = "json, debezium-json, csv, raw, parquet, avro-confluent, debezium-avro-confluent".to_owned();
                Err(Error::UnknownFormat { name: name.to_owned(), known })
            }
        }
    }
}

/// Why a record is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The field that is to blame, if one is: a column, or a place within it (`address.city`, `tags[2]`).
    pub field: Option<String>,
    /// What is wrong.
    pub reason: String,
}

impl Reject {
    /// The record as a whole is wrong.
    pub(crate) fn record(reason: impl Into<String>) -> Reject {
        Reject { field: None, reason: reason.into() }
    }
    /// A field is wrong.
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Reject {
        Reject { field: Some(field.into()), reason: reason.into() }
    }
}

/// Reads whole records of one format.
pub(crate) trait RecordFormat: Send {
    /// Turns a record into commands; on an error none of them count.
    fn decode(&mut self, record: &Record<'_>, target: &mut Target<'_>) -> std::result::Result<(), Reject>;
    /// See [`Decoder::open`](crate::Decoder::open).
    fn open(&mut self, _stop: &Arc<AtomicBool>) -> Result<()> {
        Ok(())
    }
    /// See [`Decoder::prepare`](crate::Decoder::prepare), for the values of some records.
    fn prepare(&mut self, _values: &mut dyn Iterator<Item = &[u8]>) -> Prepared {
        Prepared::Ready
    }
}

/// Reads values of one format whose records are upserts, and deletes where there is no value.
pub(crate) trait ValueFormat: Send {
    /// Puts the fields of a value into the target's slots.
    fn fields(&mut self, value: &[u8], target: &mut Target<'_>) -> std::result::Result<(), Reject>;
    /// See [`Decoder::open`](crate::Decoder::open).
    fn open(&mut self, _stop: &Arc<AtomicBool>) -> Result<()> {
        Ok(())
    }
    /// See [`Decoder::prepare`](crate::Decoder::prepare), for the values of some records.
    fn prepare(&mut self, _values: &mut dyn Iterator<Item = &[u8]>) -> Prepared {
        Prepared::Ready
    }
}

/// The records of a [`ValueFormat`].
pub(crate) struct Upserts<F>(pub F);

impl<F: ValueFormat> RecordFormat for Upserts<F> {
    #[inline]
    fn decode(&mut self, record: &Record<'_>, target: &mut Target<'_>) -> std::result::Result<(), Reject> {
        match record.value {
            Some(value) => {
                self.0.fields(value, target)?;
                target.fill_from_key()?;
                target.upsert()
            }
            None => target.delete_by_record_key(),
        }
    }
    fn open(&mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        self.0.open(stop)
    }
    fn prepare(&mut self, values: &mut dyn Iterator<Item = &[u8]>) -> Prepared {
        self.0.prepare(values)
    }
}
