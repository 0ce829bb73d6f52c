//! Changes to a topic: what `'connector' = 'kafka'` and `'upsert-kafka'` mean where a table is written.
//!
//! | option | meaning |
//! |---|---|
//! | `topic` | one topic; made by the broker where it makes topics by itself, else it has to be there |
//! | `properties.*` | `properties.bootstrap.servers` and whatever else the client knows |
//! | `format`, `value.format` | `json` (default), `csv`, `raw`: rows, inserts only; `debezium-json`, `changelog-json`: every change; `avro-confluent`, `debezium-avro-confluent`: the same as Avro, see `format/avro/` |
//! | `changelog.mode` = `upsert` | with `json` or `csv` the same as `'connector' = 'upsert-kafka'`: a row per key, tombstones for deletes |
//! | `key.fields` | the columns of the key, `a;b`; without it those of the PRIMARY KEY; without both there is no key |
//! | `key.format` | `json`: an object; `csv`: a line; `raw`: the text of the one column; `avro-confluent`; default: the text of one column, an object of several, and Avro with Debezium's |
//! | `key.fields-prefix` | what the names of key columns begin with in the table, but not in the object; needs `EXCEPT_KEY` |
//! | `value.fields-include` | `ALL` (default) or `EXCEPT_KEY`; what these mean, a source of the same options reads: `keys.rs` |
//! | `sink.delivery-guarantee` | `at-least-once` (default; `none` is the same) or `exactly-once` |
//! | `sink.transactional-id-prefix` | needed for `exactly-once`: a name that no other job has |
//! | `sink.replay.path` | the file that takes the changes while a recording is replayed, and no broker is asked for; default: `--out DIR`/`topic`.jsonl |
//! | `sink.partitioner` | `default`: by the key as Java's clients do, without a key spread evenly |
//! | `sink.parallelism`, `sink.buffer-flush.*` | taken and without effect: a sink has one writer, a key changes once per tick |
//!
//! *Guarantee*: one consolidated change per key and tick, in the order of ticks, a key always in the same partition. With
//! `at-least-once` a producer that numbers its records, so that its own retries write nothing twice; what a job sends again
//! after a crash is there twice. With `exactly-once` see `epochs.rs`.
//!
//! *While brokers are away* records wait, up to `properties.queue.buffering.max.kbytes` (64 MiB); then the job waits too.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deltaworks_dataflow::Schema;
use deltaworks_dataflow::changelog::Changes;

use super::client::Connection;
use super::epochs::Epochs;
use super::letters::ERRORS_TOPIC;
use super::messages::{Batch, Encoder, Form, KeyFormat, Part, RowFormat};
use super::producer::{LAST, Outgoing};
use crate::error::{Error, Result};
use crate::format::avro::{self, AvroRows};
use crate::format::csv;
use crate::format::text::check_unique;
use crate::keys::KeyColumns;
use crate::options::Options;
use crate::sink::ChangeSink;

/// Options of sinks.
const KNOWN: &[&str] = &[
    "sink.delivery-guarantee",
    "sink.transactional-id-prefix",
    "sink.replay.path",
    "sink.partitioner",
    "sink.parallelism",
    "sink.buffer-flush.interval",
    "sink.buffer-flush.max-rows",
];

/// Whether a table's rows go to or come from topics.
pub fn is_kafka(options: &Options) -> bool {
    matches!(options.connector(), Some("kafka" | "upsert-kafka"))
}

/// Whoever opened a sink: where it says what happens, and whether it is still wanted.
#[derive(Clone)]
pub struct Caller {
    /// Takes a line for people.
    pub say: Arc<dyn Fn(&str) + Send + Sync>,
    /// Set once the job is to stop: a sink then no longer waits for ever.
    pub stop: Arc<AtomicBool>,
}
impl Caller {
    pub(crate) fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

/// A topic that was checked and can be written.
#[derive(Clone, Debug)]
pub struct KafkaSinkSpec {
    encoder: Encoder,
    /// With exactly-once, what the transactional id begins with.
    transactional_prefix: Option<String>,
}

impl KafkaSinkSpec {
    /// The sink that a table's options describe. `key` are the places of its PRIMARY KEY.
    ///
    /// # Errors
    /// Options that do not exist or do not go together; columns that the format cannot hold.
    pub fn from_options(options: &Options, schema: &Schema, key: &[usize]) -> Result<KafkaSinkSpec> {
        options.check()?;
        check_sink_options(options)?;
        let topic = options.require("topic")?;
        if topic.is_empty() || topic.contains([';', ',']) {
            return Err(options.invalid("topic", topic, "one topic: a sink writes no more"));
        }
        check_unique(schema)?;
        let keys = KeyColumns::from_options(options, schema, key, &[])?;
        let value_columns = (0..schema.len()).filter(|place| keys.in_value(*place)).collect();
        let value = Part::new(schema, value_columns, str::to_owned);
        let (form, format) = form(options, topic, value.schema())?;
        if form == Form::Upsert && key.is_empty() {
            return Err(Error::NoKey { sink: topic.to_owned() });
        }
        check_order(options, &keys, key, form)?;
        if matches!(format, RowFormat::Raw) && value.types().len() != 1 {
            let reason =
                "it takes one column, beside those that 'value.fields-include' = 'EXCEPT_KEY' leaves out".to_owned();
            return Err(Error::Columns { format: "raw", reason });
        }
        let key = match keys.columns.is_empty() {
            true => None,
            false => {
                let part = Part::new(schema, keys.columns.clone(), |name| keys.name(name).to_owned());
                Some((key_format(options, topic, part.schema())?, part))
            }
        };
        let encoder = Encoder { topic: topic.to_owned(), form, format, value, key };
        Ok(KafkaSinkSpec { encoder, transactional_prefix: transactional_prefix(options)? })
    }
    /// Whether rows can be taken back.
    pub fn takes_retractions(&self) -> bool {
        self.encoder.form != Form::Append
    }
    /// What the topic holds.
    pub fn form(&self) -> Form {
        self.encoder.form
    }
    /// Opens the topic for writing. With exactly-once this ends whatever an earlier writer left open.
    ///
    /// # Errors
    /// Within seconds: no broker, a refused login, no such topic, no schema registry.
    pub fn open(&self, connection: &Connection, caller: Caller) -> Result<Box<dyn ChangeSink>> {
        let mut encoder = self.encoder.clone();
        encoder.open(&caller.stop)?;
        match &self.transactional_prefix {
            None => {
                let outgoing = Outgoing::open(connection, &encoder.topic, caller, &[])?;
                Ok(Box::new(KafkaSink { encoder, outgoing, batch: Batch::default() }))
            }
            Some(prefix) => Ok(Box::new(Epochs::open(connection, encoder, prefix, caller)?)),
        }
    }
}

fn check_sink_options(options: &Options) -> Result<()> {
    if options.get("topic-pattern").is_some() {
        return Err(options.invalid(
            "topic-pattern",
            options.get("topic-pattern").unwrap_or_default(),
            "'topic' for a sink",
        ));
    }
    if let Some(value) = options.get("sink.semantic") {
        return Err(options.invalid("sink.semantic", value, "'sink.delivery-guarantee', as the option is called today"));
    }
    if let Some(value) = options.get(ERRORS_TOPIC) {
        return Err(options.invalid(ERRORS_TOPIC, value, "nothing: a table that is written has no dead letters"));
    }
    let id = "properties.transactional.id";
    if let Some(value) = options.get(id) {
        let instead = "'sink.delivery-guarantee' = 'exactly-once' with 'sink.transactional-id-prefix'";
        return Err(options.invalid(id, value, instead));
    }
    if let Some((name, _)) = options.iter().find(|(name, _)| name.starts_with("sink.") && !KNOWN.contains(name)) {
        let connector = options.connector().unwrap_or_default().to_owned();
        return Err(Error::UnknownOption { name: name.to_owned(), connector, known: KNOWN.join(", ") });
    }
    if let Some(value) = options.get("sink.partitioner").filter(|value| *value != "default") {
        return Err(options.invalid(
            "sink.partitioner",
            value,
            "default: by the key, so that a key's changes stay in order",
        ));
    }
    let written = "json.timestamp-format.standard";
    for part in [options.of_value(), options.of_key()] {
        if let Some(value) = part.get(written).filter(|value| *value != "SQL") {
            return Err(options.invalid(written, value, "SQL: a sink writes 2026-05-01 09:00:00"));
        }
    }
    Ok(())
}
fn transactional_prefix(options: &Options) -> Result<Option<String>> {
    match options.get("sink.delivery-guarantee") {
        None | Some("at-least-once" | "none") => Ok(None),
        Some("exactly-once") => Ok(Some(options.require("sink.transactional-id-prefix")?.to_owned())),
        Some(value) => Err(options.invalid("sink.delivery-guarantee", value, "at-least-once or exactly-once")),
    }
}
fn form(options: &Options, topic: &str, value: &Schema) -> Result<(Form, RowFormat)> {
    let upsert = match (options.connector(), options.get("changelog.mode")) {
        (_, Some("upsert")) => true,
        (Some("upsert-kafka"), None) => true,
        (Some("upsert-kafka"), Some(value)) => return Err(options.invalid("changelog.mode", value, "upsert or nothing")),
        (_, None | Some("changelog")) => false,
        (_, Some(value)) => return Err(options.invalid("changelog.mode", value, "changelog or upsert")),
    };
    let rows = if upsert { Form::Upsert } else { Form::Append };
    Ok(match options.format() {
        "json" => (rows, RowFormat::Json),
        "csv" => {
            csv::check_plain(&options.of_value())?;
            (rows, RowFormat::Csv)
        }
        avro::ROWS => (rows, RowFormat::Avro(AvroRows::new(value, false, options, avro::ROWS, format!("{topic}-value"))?)),
        avro::CHANGES if !upsert => {
            let changes = AvroRows::new(value, true, options, avro::CHANGES, format!("{topic}-value"))?;
            (Form::Debezium, RowFormat::Avro(changes))
        }
        "raw" if !upsert => (rows, RowFormat::Raw),
        "debezium-json" | "debezium" if !upsert => (Form::Debezium, RowFormat::Json),
        "changelog-json" if !upsert => (Form::Changelog, RowFormat::Json),
        name => {
            let known = match upsert {
                true => "json, csv, avro-confluent",
                false => "json, csv, raw, avro-confluent, debezium-json, debezium-avro-confluent, changelog-json",
            };
            let known = format!("{known} for a Kafka sink{}", if upsert { " by key" } else { "" });
            return Err(Error::UnknownFormat { name: name.to_owned(), known });
        }
    })
}
/// Changes of one row have to lie in one partition, or they are in no order.
fn check_order(options: &Options, keys: &KeyColumns, primary_key: &[usize], form: Form) -> Result<()> {
    let images = matches!(form, Form::Debezium | Form::Changelog);
    match options.get("key.fields") {
        Some(fields) if images && !keys.columns.iter().all(|column| primary_key.contains(column)) => Err(options.invalid(
            "key.fields",
            fields,
            "columns of the PRIMARY KEY: others change, and order is kept within a key only",
        )),
        _ => Ok(()),
    }
}
fn key_format(options: &Options, topic: &str, key: &Schema) -> Result<KeyFormat> {
    let columns = key.len();
    match options.get("key.format") {
        Some("json" | "debezium-json") => Ok(KeyFormat::Object),
        Some("csv") => {
            csv::check_plain(&options.of_key())?;
            Ok(KeyFormat::Csv)
        }
        Some(avro::ROWS) => AvroRows::of_key(key, options, format!("{topic}-key")).map(KeyFormat::Avro),
        None if options.format() == avro::CHANGES => {
            AvroRows::of_key(key, options, format!("{topic}-key")).map(KeyFormat::Avro)
        }
        None if columns > 1 => Ok(KeyFormat::Object),
        None | Some("raw") if columns == 1 => Ok(KeyFormat::Text),
        Some(value @ "raw") => Err(options.invalid("key.format", value, "json or csv: the key has several columns")),
        name => {
            let name = name.unwrap_or_default().to_owned();
            Err(Error::UnknownFormat { name, known: "json, raw, csv, avro-confluent for keys".to_owned() })
        }
    }
}
/// Sends every change at once; the client's own thread delivers.
struct KafkaSink {
    encoder: Encoder,
    outgoing: Outgoing,
    batch: Batch,
}

impl ChangeSink for KafkaSink {
    fn write(&mut self, changes: &Changes) -> Result<()> {
        self.batch.clear();
        self.encoder.encode(changes, &mut self.batch)?;
        self.outgoing.send(&self.batch)
    }
    /// Everything is on its way already; what failed on it is said here.
    fn flush(&mut self) -> Result<()> {
        self.outgoing.check()
    }
    fn finish(&mut self) -> Result<()> {
        self.outgoing.drain(Some(LAST))
    }
    fn commit(&mut self) -> Result<()> {
        self.outgoing.drain(None)
    }
}

#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;
