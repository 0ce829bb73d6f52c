//! Avro with a schema registry: `avro-confluent` for keys and values, `debezium-avro-confluent` for values.
//!
//! A message is a byte 0, the four bytes of its schema's id, and its body. The registry says what the id means.
//!
//! | option | meaning |
//! |---|---|
//! | `avro-confluent.url` | the registry, `http://host:port`; of a key `key.avro-confluent.url`, else that of the value |
//! | `avro-confluent.basic-auth.credentials-source` | `USER_INFO`, with `avro-confluent.basic-auth.user-info` = `user:password` |
//! | `avro-confluent.subject` | a sink registers its schema under it; default: `<topic>-key` and `<topic>-value` |
//!
//! The options of `debezium-avro-confluent` begin with its name; all of them may stand behind `value.`.
//!
//! | file | what |
//! |---|---|
//! | `registry.rs` | the registry over HTTP, and what if it is away |
//! | `schema.rs` | the schema that a message was written with |
//! | `cursor.rs`, `read.rs` | from bytes to the columns of a row |
//! | `envelope.rs` | Debezium's changes |
//! | `write.rs` | from rows to a schema and bytes |
//!
//! *Waiting for the registry*: decoding itself asks for nothing. Before records are decoded, `prepare` looks for ids that are not known
//! yet and asks for those; where the registry does not answer, it says so, nothing is decoded, and whoever holds the records asks
//! again. So no record is lost or rejected because a registry is away, a tick has the records that it would have had, and the
//! engine keeps its sinks going meanwhile. An id that the registry does not have rejects its records.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use self::cursor::Cursor;
use self::read::Columns;
use self::registry::{Known, Registry};
use self::schema::WriterSchema;
use super::json::Field;
use super::{Reject, ValueFormat};
use crate::decode::{Prepared, Slots, TableFormat, Target};
use crate::error::Result;
use crate::options::Options;

mod cursor;
mod envelope;
mod read;
mod registry;
mod schema;
mod write;

pub(crate) use envelope::DebeziumAvro;
pub(crate) use write::AvroRows;

/// The name of the format of rows.
pub(crate) const ROWS: &str = "avro-confluent";
/// The name of the format of changes.
pub(crate) const CHANGES: &str = "debezium-avro-confluent";

/// Where the id ends and the body begins.
const HEADER: usize = 5;

/// The id and the body of a message.
fn split(message: &[u8]) -> std::result::Result<(u32, &[u8]), Reject> {
    match message {
        [0, a, b, c, d, body @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        [0, ..] | [] => {
            let reason = format!("no message of a schema registry: it has {} bytes, its header {HEADER}", message.len());
            Err(Reject::record(reason))
        }
        [first, ..] => {
            Err(Reject::record(format!("no message of a schema registry: it begins with the byte {first}, not 0")))
        }
    }
}

/// The schemas that messages were written with, and what was made of each for a table.
struct Schemas<P> {
    registry: Registry,
    plans: HashMap<u32, std::result::Result<P, String>>,
    /// Ids that the registry did not have; it may have them later.
    missing: HashMap<u32, String>,
}

impl<P> Schemas<P> {
    fn new(registry: Registry) -> Self {
        Schemas { registry, plans: HashMap::new(), missing: HashMap::new() }
    }
    /// Asks for what is not known yet of these messages.
    fn prepare(&mut self, messages: &mut dyn Iterator<Item = &[u8]>, plan: impl Fn(WriterSchema) -> P) -> Prepared {
        self.missing.clear();
        let mut last = None;
        for id in messages.filter_map(|message| split(message).ok()).map(|(id, _)| id) {
            if last == Some(id) || self.plans.contains_key(&id) || self.missing.contains_key(&id) {
                last = Some(id);
                continue;
            }
            match self.registry.schema(id) {
                Err(reason) => return Prepared::NotYet(reason),
                Ok(Known::Nothing(reason)) => drop(self.missing.insert(id, reason)),
                Ok(Known::Schema(text)) => {
                    let parsed = WriterSchema::parse(&text).map(&plan);
                    self.plans.insert(id, parsed.map_err(|error| format!("schema {id} cannot be read: {error}")));
                }
            }
        }
        Prepared::Ready
    }
    fn plan(&self, id: u32) -> std::result::Result<&P, Reject> {
        match self.plans.get(&id) {
            Some(Ok(plan)) => Ok(plan),
            Some(Err(reason)) => Err(Reject::record(reason.as_str())),
            None => {
                let unknown = || format!("schema {id} is not known");
                Err(Reject::record(self.missing.get(&id).cloned().unwrap_or_else(unknown)))
            }
        }
    }
}
/// Nothing may follow a body.
fn check_end(cursor: &Cursor<'_>) -> std::result::Result<(), Reject> {
    match cursor.left() {
        0 => Ok(()),
        left => Err(Reject::record(format!("{left} bytes follow what the schema says"))),
    }
}

/// Reads keys, or values that are rows.
pub(crate) struct AvroReader {
    fields: Vec<Field>,
    /// Whether a message that is no record is the first field.
    lone: bool,
    schemas: Schemas<(WriterSchema, Columns)>,
}

impl AvroReader {
    /// A reader of messages that hold these fields, with the options as their part of a record sees them.
    fn new(fields: Vec<Field>, lone: bool, options: &Options) -> Result<AvroReader> {
        Ok(AvroReader { fields, lone, schemas: Schemas::new(Registry::from_options(options, ROWS)?) })
    }
    /// A reader of keys that hold these fields; with `lone` the first of them is all that a key has to hold.
    ///
    /// # Errors
    /// Options with impossible values.
    pub(crate) fn of_key(fields: Vec<Field>, lone: bool, options: &Options) -> Result<AvroReader> {
        AvroReader::new(fields, lone, &key_options(options))
    }
    pub(crate) fn open(&mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        self.schemas.registry.open(stop)
    }
    pub(crate) fn prepare(&mut self, messages: &mut dyn Iterator<Item = &[u8]>) -> Prepared {
        let (fields, lone) = (&self.fields, self.lone);
        self.schemas.prepare(messages, |schema| {
            let columns = Columns::new(&schema, schema.root(), fields, lone);
            (schema, columns)
        })
    }
    /// Reads one message and puts its fields into their slots.
    pub(crate) fn read(&self, message: &[u8], slots: &mut Slots) -> std::result::Result<(), Reject> {
        let (id, body) = split(message)?;
        let (schema, columns) = self.schemas.plan(id)?;
        let mut cursor = Cursor::new(body);
        read::row(schema, columns, &self.fields, &mut cursor, slots)?;
        check_end(&cursor)
    }
}

/// Values that are rows.
pub(crate) struct Avro(AvroReader);

impl Avro {
    pub(crate) fn new(table: &TableFormat) -> Result<Avro> {
        let fields = table.in_value()?;
        let lone = fields.len() == 1;
        AvroReader::new(fields, lone, &table.options).map(Avro)
    }
}
impl ValueFormat for Avro {
    fn fields(&mut self, value: &[u8], target: &mut Target<'_>) -> std::result::Result<(), Reject> {
        self.0.read(value, target.slots())
    }
    fn open(&mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        self.0.open(stop)
    }
    fn prepare(&mut self, values: &mut dyn Iterator<Item = &[u8]>) -> Prepared {
        self.0.prepare(values)
    }
}

/// The options of a key: those behind `key.`, and without a registry of its own that of the value.
fn key_options(options: &Options) -> Options {
    let (mut key, value) = (options.of_key(), options.of_value());
    if key.get("avro-confluent.url").is_none() {
        let parts = ["url", "basic-auth.credentials-source", "basic-auth.user-info"];
        let shared = parts.into_iter().filter_map(|part| {
            let of = |format: &str| value.get(&format!("{format}.{part}"));
            Some((format!("{ROWS}.{part}"), of(ROWS).or_else(|| of(CHANGES))?.to_owned()))
        });
        key = key.with(shared);
    }
    key
}

#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;
