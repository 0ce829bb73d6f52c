//! From raw records to commands on a table: what a table needs to decode a record, and what becomes of a bad one.
//!
//! ```text
//! Records -- Decoder (one per table) --> commands, in the order of the records
//!                                    \-> dead letters: what was rejected, why, and all that is needed to repair it
//! ```
//!
//! The columns of a row are filled in [`Slots`] by a format and by metadata, checked (NOT NULL, key) and packed. A record
//! gives all of its commands or none. *Nulls*: a missing field is NULL; NULL in a key column rejects the record.

use deltaworks_dataflow::row::is_null_field;
use deltaworks_dataflow::{Column, Command, CommandKind, DataType, Datum, Position, Row, Schema};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::format::avro::{Avro, DebeziumAvro};
use crate::format::csv::Csv;
use crate::format::debezium::Debezium;
use crate::format::json::{Conversion, Field, Json, utf8};
use crate::format::key::KeyReader;
use crate::format::packed::Packed;
use crate::format::raw::Raw;
use crate::format::{Format, RecordFormat, Reject, Upserts};
use crate::keys::KeyColumns;
use crate::options::Options;
use crate::record::{NO_TIMESTAMP, Record, Records};

/// What a table needs to decode a record into its row.
#[derive(Clone, Debug)]
pub struct TableFormat {
    /// The format of values.
    pub format: Format,
    /// The columns of the row: physical and metadata, in the table's order; those that may not be NULL say so.
    pub schema: Schema,
    /// The key columns, as places in the row; empty for a table without a key.
    pub key: Vec<usize>,
    /// The columns that come from the record instead of its value.
    pub metadata: Vec<MetadataColumn>,
    /// The table's options.
    pub options: Options,
    /// Whether an update whose key stays also takes the old image back, where the format has it. Tables without a key do
    /// so in any case; with a key it serves engines that subtract.
    pub old_images: bool,
    /// What the table does not take.
    pub refused: Refused,
}

/// Why a table cannot fold some commands; a record that asks for one is rejected as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Why it does not take deletes by key.
    pub deletes: Option<&'static str>,
    /// Why it does not take rows back.
    pub retractions: Option<&'static str>,
}

/// A column that comes from the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataColumn {
    /// The place in the row.
    pub column: usize,
    /// What stands there.
    pub metadata: Metadata,
}

/// What `METADATA FROM '..'` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// The topic or file: STRING.
    Topic,
    /// The partition: INT or BIGINT.
    Partition,
    /// The offset or line: BIGINT.
    Offset,
    /// The record's timestamp: TIMESTAMP_LTZ, TIMESTAMP, or BIGINT in milliseconds.
    Timestamp,
    /// The headers: STRING, a JSON object.
    Headers,
    /// The raw key: BYTES or STRING.
    Key,
}

impl Metadata {
    /// The metadata of that name; None where there is none.
    pub fn from_name(name: &str) -> Option<Metadata> {
        Some(match name {
            "topic" | "file.path" => Metadata::Topic,
            "partition" => Metadata::Partition,
            "offset" => Metadata::Offset,
            "timestamp" => Metadata::Timestamp,
            "headers" => Metadata::Headers,
            "key" => Metadata::Key,
            _ => return None,
        })
    }
    fn fits(self, data_type: &DataType) -> bool {
        match self {
            Metadata::Topic | Metadata::Headers => matches!(data_type, DataType::String),
            Metadata::Partition => matches!(data_type, DataType::Int | DataType::BigInt),
            Metadata::Offset => matches!(data_type, DataType::BigInt),
            Metadata::Timestamp => {
                matches!(data_type, DataType::TimestampLtz | DataType::Timestamp | DataType::BigInt)
            }
            Metadata::Key => matches!(data_type, DataType::Bytes | DataType::String),
        }
    }
}

impl TableFormat {
    /// The format of a table without metadata, options or old images.
    pub fn new(format: Format, schema: Schema, key: Vec<usize>) -> Self {
        let (options, refused) = (Options::default(), Refused::default());
        TableFormat { format, schema, key, metadata: vec![], options, old_images: false, refused }
    }
    /// A decoder of records of this table.
    ///
    /// # Errors
    /// Columns that the format or the metadata cannot fill; options with impossible values.
    pub fn decoder(&self) -> Result<Box<dyn Decoder>> {
        self.check_metadata()?;
        let table = &TableFormat { options: self.options.of_value(), ..self.clone() };
        Ok(match self.format {
            Format::Json => self.upserts(Json::new(table)?)?,
            Format::Csv => self.upserts(Csv::new(table.in_value()?, &table.options, "table")?)?,
            Format::Raw => self.upserts(Raw::new(table)?)?,
            Format::Packed => self.upserts(Packed::new(table))?,
            Format::Avro => self.upserts(Avro::new(table)?)?,
            Format::DebeziumAvro => Box::new(TableDecoder::new(self, DebeziumAvro::new(table)?)?),
            Format::Debezium => Box::new(TableDecoder::new(self, Debezium::new(table)?)?),
        })
    }
    fn upserts<F: crate::format::ValueFormat + 'static>(&self, format: F) -> Result<Box<dyn Decoder>> {
        Ok(Box::new(TableDecoder::new(self, Upserts(format))?))
    }
    fn check_metadata(&self) -> Result<()> {
        for MetadataColumn { column, metadata } in &self.metadata {
            let Some(column) = self.schema.columns.get(*column) else { continue };
            if !metadata.fits(&column.data_type) {
                let reason = format!("column \"{}\" of type {} cannot hold that metadata", column.name, column.data_type);
                return Err(Error::Columns { format: "metadata", reason });
            }
        }
        Ok(())
    }
    /// The columns that the records' keys hold.
    pub(crate) fn keys(&self) -> Result<KeyColumns> {
        match self.options.connector() {
            None | Some("kafka" | "upsert-kafka") => {
                KeyColumns::from_options(&self.options, &self.schema, &self.key, &self.metadata)
            }
            Some(_) => Ok(KeyColumns::of_primary(&self.key)),
        }
    }
    /// The columns that values hold.
    pub(crate) fn in_value(&self) -> Result<Vec<Field>> {
        let keys = self.keys()?;
        Ok(self.physical().into_iter().filter(|field| keys.in_value(field.slot)).collect())
    }
    /// The columns that come from the record's value or key.
    pub(crate) fn physical(&self) -> Vec<Field> {
        let field = |(slot, column): (usize, &Column)| Field {
            name: column.name.clone(),
            slot,
            data_type: column.data_type.clone(),
            conversion: Conversion::default(),
        };
        let is_metadata = |slot: usize| self.metadata.iter().any(|metadata| metadata.column == slot);
        self.schema.columns.iter().enumerate().filter(|(slot, _)| !is_metadata(*slot)).map(field).collect()
    }
}

/// Decodes records of one table.
pub trait Decoder: Send {
    /// Decodes the records whose topics `topics` holds, in order, and adds what they give to `out`.
    fn decode(&mut self, records: &Records, topics: &TopicFilter, out: &mut Decoded);
    /// Makes sure that what decoding needs from outside is there. Whatever waits outside ends once `stop` is set.
    ///
    /// # Errors
    /// Within seconds, where it is not.
    fn open(&mut self, _stop: &Arc<AtomicBool>) -> Result<()> {
        Ok(())
    }
    /// Gets what decoding these records needs from outside. They may be decoded only once it has come.
    fn prepare(&mut self, _records: &Records, _topics: &TopicFilter) -> Prepared {
        Prepared::Ready
    }
}

/// Whether records can be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// They can.
    Ready,
    /// Not now, for this reason: ask again soon.
    NotYet(String),
}

/// What decoding gives.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Commands in the order of the records. Of one record they have one position, so sort them stably.
    pub commands: Vec<Command>,
    /// The records that were rejected, in order.
    pub dead: Vec<DeadLetter>,
    /// Records that by their format carry no change: heartbeats, messages, tombstones behind a delete.
    pub ignored: u64,
}
impl Decoded {
    /// Takes everything out and keeps the space.
    pub fn clear(&mut self) {
        self.commands.clear();
        self.dead.clear();
        self.ignored = 0;
    }
}

/// The topics that a table reads, of those that a source has.
#[derive(Clone, Debug, Default)]
pub struct TopicFilter {
    names: Vec<Option<String>>,
}
impl TopicFilter {
    /// Those of a source's topics that are wanted.
    pub fn new(topics: &[String], wanted: impl Fn(&str) -> bool) -> Self {
        TopicFilter { names: topics.iter().map(|name| wanted(name).then(|| name.clone())).collect() }
    }
    /// All topics of a source.
    pub fn all(topics: &[String]) -> Self {
        TopicFilter::new(topics, |_| true)
    }
    /// The name of a wanted topic.
    #[inline]
    pub fn name(&self, topic: u32) -> Option<&str> {
        self.names.get(topic as usize)?.as_deref()
    }
}

/// A record that could not be decoded, with all that is needed to repair it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// The topic or file.
    pub source: String,
    /// The partition or the file's number.
    pub partition: i32,
    /// The offset or line.
    pub position: i64,
    /// The record's timestamp, or [`NO_TIMESTAMP`].
    pub record_ts_ms: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers as JSON text.
    pub headers: Option<String>,
    /// The field that is to blame.
    pub field: Option<String>,
    /// Why it was rejected.
    pub reason: String,
}

impl DeadLetter {
    fn new(record: &Record<'_>, source: &str, reject: Reject) -> Self {
        DeadLetter {
            source: source.to_owned(),
            partition: i32::try_from(record.partition).unwrap_or(i32::MAX),
            position: i64::try_from(record.offset).unwrap_or(i64::MAX),
            record_ts_ms: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.map(str::to_owned),
            field: reject.field,
            reason: reject.reason,
        }
    }
    /// The columns of `<table>$errors`.
    pub fn schema() -> Schema {
        let columns = [
            ("source", DataType::String),
            ("partition", DataType::Int),
            ("position", DataType::BigInt),
            ("record_ts", DataType::TimestampLtz),
            ("key", DataType::Bytes),
            ("value", DataType::Bytes),
            ("field", DataType::String),
            ("reason", DataType::String),
            ("seen_at", DataType::TimestampLtz),
        ];
        Schema::new(columns.into_iter().map(|(name, data_type)| Column::new(name, data_type)).collect())
    }
    /// The row of `<table>$errors`, for a record seen at a time in microseconds.
    pub fn to_row(&self, seen_at_us: i64) -> Row {
        let bytes = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => Datum::Bytes(Cow::Owned(bytes.clone())),
            None => Datum::Null,
        };
        Row::pack([
            Datum::str(self.source.as_str()),
            Datum::Int(self.partition.into()),
            Datum::Int(self.position),
            timestamp_datum(self.record_ts_ms),
            bytes(&self.key),
            bytes(&self.value),
            self.field.as_deref().map_or(Datum::Null, Datum::str),
            Datum::str(self.reason.as_str()),
            Datum::Int(seen_at_us),
        ])
    }
}
/// A record's timestamp in microseconds; NULL where there is none.
fn timestamp_datum(timestamp_ms: i64) -> Datum<'static> {
    if timestamp_ms == NO_TIMESTAMP { Datum::Null } else { Datum::Int(timestamp_ms.saturating_mul(1000)) }
}

/// The option that says how many bytes a record may have.
pub const RECORD_BYTES_MAX: &str = "errors.record-bytes-max";
/// What it is where the table does not say.
const DEFAULT_RECORD_BYTES_MAX: u64 = 64 << 20;

/// A decoder: a format, and the row that it fills.
struct TableDecoder<F> {
    format: F,
    row: RowBuilder,
    order: Order,
    /// Larger records are not looked into.
    record_bytes_max: u64,
}

impl<F> TableDecoder<F> {
    fn new(table: &TableFormat, format: F) -> Result<Self> {
        let record_bytes_max = table.options.size(RECORD_BYTES_MAX)?.unwrap_or(DEFAULT_RECORD_BYTES_MAX);
        Ok(TableDecoder { format, row: RowBuilder::new(table)?, order: Order::default(), record_bytes_max })
    }
    fn check_size(&self, record: &Record<'_>) -> std::result::Result<(), Reject> {
        let bytes = (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        if bytes <= self.record_bytes_max {
            return Ok(());
        }
        let max = self.record_bytes_max;
        Err(Reject::record(format!("too large: {bytes} bytes are more than the {max} of '{RECORD_BYTES_MAX}'")))
    }
}

/// The place of records in time: a timestamp that goes back within a partition keeps the order of offsets, so it counts as
/// the largest before it.
#[derive(Debug, Default)]
struct Order {
    /// By topic and partition, the largest timestamp.
    latest: BTreeMap<(u32, u32), i64>,
    /// The partition of the record before, and its timestamp: records of a partition come in runs.
    last: Option<((u32, u32), i64)>,
}
impl Order {
    #[inline]
    fn timestamp(&mut self, record: &Record<'_>) -> i64 {
        let partition = (record.topic, record.partition);
        let before = match self.last {
            Some((last, timestamp)) if last == partition => timestamp,
            last => {
                self.latest.extend(last);
                self.latest.get(&partition).copied().unwrap_or(NO_TIMESTAMP)
            }
        };
        let timestamp = record.timestamp.max(before);
        self.last = Some((partition, timestamp));
        timestamp
    }
}

impl<F: RecordFormat> Decoder for TableDecoder<F> {
    fn open(&mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        self.format.open(stop)?;
        self.row.key_reader.open(stop)
    }
    fn prepare(&mut self, records: &Records, topics: &TopicFilter) -> Prepared {
        let wanted = || records.iter().filter(|record| record.broken.is_none() && topics.name(record.topic).is_some());
        match self.format.prepare(&mut wanted().filter_map(|record| record.value)) {
            Prepared::Ready => self.row.key_reader.prepare(&mut wanted().filter_map(|record| record.key)),
            not_yet => not_yet,
        }
    }
    fn decode(&mut self, records: &Records, topics: &TopicFilter, out: &mut Decoded) {
        for record in records.iter() {
            let Some(topic) = topics.name(record.topic) else { continue };
            let before = out.commands.len();
            let result = match record.broken {
                Some(reason) => Err(Reject::record(reason)),
                None => {
                    self.row.slots.clear();
                    self.row.key_reader.forget();
                    let ignored = &mut out.ignored;
                    let timestamp = self.order.timestamp(&record);
                    self.check_size(&record).and_then(|()| {
                        let (row, commands) = (&mut self.row, &mut out.commands);
                        let mut target = Target { row, record: &record, timestamp, topic, commands, ignored };
                        self.format.decode(&record, &mut target)
                    })
                }
            };
            if let Err(reject) = result {
                out.commands.truncate(before);
                out.dead.push(DeadLetter::new(&record, topic, reject));
            }
        }
    }
}

/// Where the fields of a row gather, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    bytes: Vec<u8>,
    /// Where each column's field lies; an empty span is a column that is not there.
    spans: Vec<(usize, usize)>,
    unavailable: Vec<usize>,
}

impl Slots {
    pub(crate) fn new(columns: usize) -> Self {
        Slots { bytes: Vec::new(), spans: vec![(0, 0); columns], unavailable: Vec::new() }
    }
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.spans.fill((0, 0));
        self.unavailable.clear();
    }
    /// Sets a column, again if it was set.
    #[inline]
    pub(crate) fn put(&mut self, column: usize, datum: &Datum<'_>) {
        let start = self.bytes.len();
        datum.encode(&mut self.bytes);
        self.spans[column] = (start, self.bytes.len());
    }
    /// Sets a column to an encoded field.
    #[inline]
    pub(crate) fn put_encoded(&mut self, column: usize, field: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(field);
        self.spans[column] = (start, self.bytes.len());
    }
    /// Notes that the source left this column's value out.
    pub(crate) fn put_unavailable(&mut self, column: usize) {
        self.spans[column] = (0, 0);
        self.unavailable.push(column);
    }
    /// The columns whose values the source left out.
    pub(crate) fn unavailable(&self) -> &[usize] {
        &self.unavailable
    }
    /// The encoded field of a column, if it is there.
    #[inline]
    pub(crate) fn field(&self, column: usize) -> Option<&[u8]> {
        let (start, end) = self.spans[column];
        if start == end { None } else { Some(&self.bytes[start..end]) }
    }
    /// The packed row: as it lies where the fields came in order, else gathered in `scratch`. What is missing is NULL.
    #[inline]
    fn pack<'s>(&'s self, scratch: &'s mut Vec<u8>) -> &'s [u8] {
        let mut end = 0;
        let in_order = self.spans.iter().all(|span| {
            let follows = span.0 == end && span.1 > span.0;
            end = span.1;
            follows
        });
        if in_order {
            return &self.bytes;
        }
        scratch.clear();
        for (start, end) in &self.spans {
            if start == end {
                deltaworks_dataflow::row::encode_null(scratch);
            } else {
                scratch.extend_from_slice(&self.bytes[*start..*end]);
            }
        }
        scratch
    }
}

/// Builds the rows of one table.
pub(crate) struct RowBuilder {
    slots: Slots,
    old: Slots,
    scratch: Vec<u8>,
    columns: Vec<Column>,
    /// The columns that must not be NULL: declared so, or of the key.
    required: Vec<usize>,
    key: Vec<usize>,
    key_reader: KeyReader,
    metadata: Vec<MetadataColumn>,
    old_images: bool,
    refused: Refused,
}

impl RowBuilder {
    fn new(table: &TableFormat) -> Result<Self> {
        let columns = table.schema.columns.clone();
        let is_required = |column: &usize| !columns[*column].nullable || table.key.contains(column);
        Ok(RowBuilder {
            slots: Slots::new(columns.len()),
            old: Slots::new(columns.len()),
            scratch: Vec::new(),
            required: (0..columns.len()).filter(is_required).collect(),
            key: table.key.clone(),
            key_reader: KeyReader::new(table)?,
            metadata: table.metadata.clone(),
            old_images: table.old_images || table.key.is_empty(),
            refused: table.refused,
            columns,
        })
    }
}
fn put_metadata(
    slots: &mut Slots,
    columns: &[Column],
    metadata: &[MetadataColumn],
    record: &Record<'_>,
    topic: &str,
) -> std::result::Result<(), Reject> {
    for MetadataColumn { column, metadata } in metadata {
        let wide = matches!(columns[*column].data_type, DataType::BigInt);
        let datum = match metadata {
            Metadata::Topic => Datum::str(topic),
            Metadata::Partition => Datum::Int(record.partition.into()),
            Metadata::Offset => Datum::Int(i64::try_from(record.offset).unwrap_or(i64::MAX)),
            Metadata::Timestamp if wide && record.timestamp != NO_TIMESTAMP => Datum::Int(record.timestamp),
            Metadata::Timestamp => timestamp_datum(record.timestamp),
            Metadata::Headers => record.headers.map_or(Datum::Null, Datum::str),
            Metadata::Key => match (record.key, &columns[*column].data_type) {
                (None, _) => Datum::Null,
                (Some(key), DataType::String) => Datum::str(utf8(key)?),
                (Some(key), _) => Datum::Bytes(Cow::Borrowed(key)),
            },
        };
        slots.put(*column, &datum);
    }
    Ok(())
}
fn check_required(slots: &Slots, columns: &[Column], required: &[usize], key: &[usize]) -> std::result::Result<(), Reject> {
    for &column in required {
        let missing = match slots.field(column) {
            Some(field) if !is_null_field(field) => continue,
            Some(_) => "NULL",
            None => "the field is missing",
        };
        let place = if key.contains(&column) { "a key column" } else { "a NOT NULL column" };
        return Err(Reject::field(&columns[column].name, format!("{missing} in {place}")));
    }
    Ok(())
}

/// What a format does with one record: fill slots, then say what they are.
pub(crate) struct Target<'t> {
    row: &'t mut RowBuilder,
    record: &'t Record<'t>,
    /// The record's place in time.
    timestamp: i64,
    topic: &'t str,
    commands: &'t mut Vec<Command>,
    ignored: &'t mut u64,
}

impl Target<'_> {
    /// The slots of the row.
    #[inline]
    pub(crate) fn slots(&mut self) -> &mut Slots {
        &mut self.row.slots
    }
    /// The slots of the row, and those of its old image.
    pub(crate) fn both_slots(&mut self) -> (&mut Slots, &mut Slots) {
        (&mut self.row.slots, &mut self.row.old)
    }
    /// Fills what the value left open from the record's key.
    #[inline]
    pub(crate) fn fill_from_key(&mut self) -> std::result::Result<(), Reject> {
        let RowBuilder { key_reader, slots, .. } = &mut *self.row;
        key_reader.fill(self.record.key, slots)
    }
    /// The same for the old image.
    pub(crate) fn fill_old_from_key(&mut self) -> std::result::Result<(), Reject> {
        let RowBuilder { key_reader, old, .. } = &mut *self.row;
        key_reader.fill(self.record.key, old)
    }
    /// The slots hold a full row: insert or replace it.
    #[inline]
    pub(crate) fn upsert(&mut self) -> std::result::Result<(), Reject> {
        let RowBuilder { slots, scratch, columns, required, key, metadata, .. } = &mut *self.row;
        if !metadata.is_empty() {
            put_metadata(slots, columns, metadata, self.record, self.topic)?;
        }
        check_required(slots, columns, required, key)?;
        let row = Row::from_bytes(slots.pack(scratch));
        self.push(CommandKind::Upsert, row)
    }
    /// The old slots hold a full row: take it back.
    pub(crate) fn retract_old(&mut self) -> std::result::Result<(), Reject> {
        let RowBuilder { old, scratch, columns, required, key, metadata, .. } = &mut *self.row;
        put_metadata(old, columns, metadata, self.record, self.topic)?;
        check_required(old, columns, required, key)?;
        let row = Row::from_bytes(old.pack(scratch));
        self.push(CommandKind::Retract, row)
    }
    /// Whether old images are to be taken back although the key stays.
    pub(crate) fn wants_old_images(&self) -> bool {
        self.row.old_images
    }
    /// Whether the table has a key.
    pub(crate) fn has_key(&self) -> bool {
        !self.row.key_reader.is_keyless()
    }
    /// Whether the old slots hold a whole key.
    pub(crate) fn has_old_key(&self) -> bool {
        let is_there = |column: &usize| self.row.old.field(*column).is_some_and(|field| !is_null_field(field));
        self.has_key() && self.row.key.iter().all(is_there)
    }
    /// Whether the key in the old slots is another than that in the slots.
    pub(crate) fn key_changes(&self) -> bool {
        self.has_old_key() && self.row.key.iter().any(|column| self.row.old.field(*column) != self.row.slots.field(*column))
    }
    /// Deletes the key that the old slots hold.
    pub(crate) fn delete_old_key(&mut self) -> std::result::Result<(), Reject> {
        self.row.scratch.clear();
        for column in &self.row.key {
            self.row.scratch.extend_from_slice(self.row.old.field(*column).unwrap_or_default());
        }
        let row = Row::from_bytes(&self.row.scratch);
        self.push(CommandKind::Delete, row)
    }
    /// Deletes the key that the record has.
    pub(crate) fn delete_by_record_key(&mut self) -> std::result::Result<(), Reject> {
        let RowBuilder { key_reader, scratch, .. } = &mut *self.row;
        if key_reader.is_keyless() {
            return Err(Reject::record("a record without a value deletes by key, but the table has no key"));
        }
        scratch.clear();
        key_reader.delete(self.record.key, scratch)?;
        let row = Row::from_bytes(scratch);
        self.push(CommandKind::Delete, row)
    }
    /// The record carries no change.
    pub(crate) fn ignore(&mut self) {
        *self.ignored += 1;
    }
    #[inline]
    fn push(&mut self, kind: CommandKind, row: Row) -> std::result::Result<(), Reject> {
        let refused = match kind {
            CommandKind::Delete => self.row.refused.deletes,
            CommandKind::Retract => self.row.refused.retractions,
            CommandKind::Upsert | CommandKind::Merge => None,
        };
        if let Some(reason) = refused {
            return Err(Reject::record(reason));
        }
        let (timestamp, Record { topic, partition, offset, .. }) = (self.timestamp, *self.record);
        self.commands.push(Command { position: Position { timestamp, source: topic, partition, offset }, kind, row });
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
