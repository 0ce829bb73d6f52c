//! What changes become on a topic: keys and values.
//!
//! | form | +I | -U, +U | -D |
//! |---|---|---|---|
//! | append | the row | refused | refused |
//! | upsert | the row | the new row | no value: a tombstone |
//! | debezium-json | `{"before":null,"after":{..},"op":"c"}` | one message: `{"before":{..},"after":{..},"op":"u"}` | `{"before":{..},"after":null,"op":"d"}` |
//! | debezium-avro-confluent | as debezium-json, as Avro | | |
//! | changelog-json | `{"op":"+I","tick":7,"row":{..}}` | a message each | `{"op":"-D","tick":7,"row":{..}}` |
//!
//! A key of one column is its text, as sources read it; a key of several is a JSON object, and with `'key.format' = 'json'` every
//! key is; with `'csv'` it is a line. A text or line of one column that is NULL is an object too: a record without a key would have no
//! order, and no tombstone could name it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaworks_dataflow::changelog::{Changes, RowKind};
use deltaworks_dataflow::row::{is_null_field, project};
use deltaworks_dataflow::{Column, DataType, Datum, Schema};

use crate::error::{Error, Result};
use crate::format::avro::AvroRows;
use crate::format::text::{JsonRows, write_csv_row, write_plain};

/// What a topic holds of a query's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Rows that are there, as long as none is taken back.
    Append,
    /// The newest row of each key, and tombstones.
    Upsert,
    /// Old and new image.
    Debezium,
    /// Row kinds and rows.
    Changelog,
}

/// How a row is written where it stands alone.
#[derive(Clone, Debug)]
pub(crate) enum RowFormat {
    Json,
    Csv,
    Raw,
    Avro(AvroRows),
}

/// How keys are written.
#[derive(Clone, Debug)]
pub(crate) enum KeyFormat {
    /// The text of the one column.
    Text,
    /// A line of CSV without its end.
    Csv,
    /// A JSON object.
    Object,
    Avro(AvroRows),
}

/// Some of a row's columns.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Their places in the row.
    columns: Vec<usize>,
    schema: Schema,
    types: Vec<DataType>,
    json: JsonRows,
    whole: bool,
}

impl Part {
    /// The columns at these places, under the names that they have in a message.
    pub(crate) fn new(schema: &Schema, columns: Vec<usize>, name: impl Fn(&str) -> String) -> Part {
        let named = |place: &usize| {
            let column = &schema.columns[*place];
            Column { name: name(&column.name), ..column.clone() }
        };
        let part = Schema::new(columns.iter().map(named).collect());
        let whole = columns.len() == schema.len() && columns.iter().enumerate().all(|(index, place)| index == *place);
        Part { types: part.types(), json: JsonRows::new(&part), schema: part, columns, whole }
    }
    pub(crate) fn types(&self) -> &[DataType] {
        &self.types
    }
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }
    fn of<'a>(&self, row: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if self.whole {
            return row;
        }
        scratch.clear();
        project(row, &self.columns, scratch);
        scratch
    }
}

/// Turns changes into messages.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    pub(crate) topic: String,
    pub(crate) form: Form,
    pub(crate) format: RowFormat,
    pub(crate) value: Part,
    pub(crate) key: Option<(KeyFormat, Part)>,
}

impl Encoder {
    /// Gets what encoding needs from outside.
    ///
    /// # Errors
    /// Within seconds, where it is not there.
    pub(crate) fn open(&mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        if let RowFormat::Avro(rows) = &mut self.format {
            rows.register(stop)?;
        }
        match &mut self.key {
            Some((KeyFormat::Avro(rows), _)) => rows.register(stop),
            _ => Ok(()),
        }
    }
    /// Adds the messages of one tick to a batch.
    pub(crate) fn encode(&self, changes: &Changes, batch: &mut Batch) -> Result<()> {
        let mut old: Option<&[u8]> = None;
        for (kind, row) in &changes.entries {
            let row: &[u8] = row;
            match (self.form, kind) {
                (Form::Append, RowKind::Insert) | (Form::Upsert, RowKind::Insert | RowKind::UpdateAfter) => {
                    self.key(row, batch)?;
                    self.row(row, batch)?;
                }
                (Form::Append, kind) => {
                    let (sink, tick) = (self.topic.clone(), changes.tick);
                    return Err(Error::NotAppendOnly { sink, kind: kind.symbol(), tick });
                }
                (Form::Upsert, RowKind::UpdateBefore) => {}
                (Form::Upsert, RowKind::Delete) => {
                    self.key(row, batch)?;
                    batch.no_value();
                }
                (Form::Debezium, RowKind::UpdateBefore) => old = Some(row),
                (Form::Debezium, RowKind::Insert) => self.envelope(None, Some(row), "c", batch)?,
                (Form::Debezium, RowKind::UpdateAfter) => self.envelope(old.take(), Some(row), "u", batch)?,
                (Form::Debezium, RowKind::Delete) => self.envelope(Some(row), None, "d", batch)?,
                (Form::Changelog, kind) => self.changelog(changes.tick, *kind, row, batch)?,
            }
        }
        Ok(())
    }
    fn key(&self, row: &[u8], batch: &mut Batch) -> Result<()> {
        let Some((format, part)) = &self.key else {
            batch.no_key();
            return Ok(());
        };
        let (out, scratch) = batch.begin();
        let mut row = part.of(row, scratch);
        match format {
            KeyFormat::Object => part.json.write(row, out),
            KeyFormat::Avro(rows) => rows.write(row, out).map_err(|column| self.null(&column))?,
            // Rows alone need no order. Else the changes of NULL have to stay together as those of any other key.
            _ if part.types.len() == 1 && is_null_field(row) => match self.form {
                Form::Append => {
                    batch.no_key();
                    return Ok(());
                }
                _ => part.json.write(row, out),
            },
            KeyFormat::Csv => write_line(&part.types, row, out),
            KeyFormat::Text => write_raw(&Datum::decode(&mut row, &part.types[0]), &part.types[0], out),
        }
        batch.end_key();
        Ok(())
    }
    /// A NULL that a message cannot hold.
    fn null(&self, column: &str) -> Error {
        Error::Delivery {
            topic: self.topic.clone(),
            what: format!("column \"{column}\" is NULL, and its Avro schema says that it may not be"),
            help: "declare the column without NOT NULL, or give it a value with COALESCE".to_owned(),
            timed_out: false,
        }
    }
    fn row(&self, row: &[u8], batch: &mut Batch) -> Result<()> {
        let (out, scratch) = batch.begin();
        let mut row = self.value.of(row, scratch);
        match &self.format {
            RowFormat::Avro(rows) => rows.write(row, out).map_err(|column| self.null(&column))?,
            RowFormat::Json => self.value.json.write(row, out),
            RowFormat::Csv => write_line(&self.value.types, row, out),
            RowFormat::Raw => {
                let datum = Datum::decode(&mut row, &self.value.types[0]);
                if datum.is_null() {
                    batch.no_value();
                    return Ok(());
                }
                write_raw(&datum, &self.value.types[0], out);
            }
        }
        batch.end_value();
        Ok(())
    }
    fn envelope(&self, before: Option<&[u8]>, after: Option<&[u8]>, op: &str, batch: &mut Batch) -> Result<()> {
        if let Some(row) = after.or(before) {
            self.key(row, batch)?;
        }
        let (out, scratch) = batch.begin();
        if let RowFormat::Avro(rows) = &self.format {
            let mut other = Vec::new();
            let before = before.map(|row| self.value.of(row, &mut other));
            let after = after.map(|row| self.value.of(row, scratch));
            rows.write_change(before, after, op, out).map_err(|column| self.null(&column))?;
            batch.end_value();
            return Ok(());
        }
        for (name, image) in [("{\"before\":", before), (",\"after\":", after)] {
            out.extend_from_slice(name.as_bytes());
            match image {
                Some(row) => self.value.json.write(self.value.of(row, scratch), out),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(b",\"op\":\"");
        out.extend_from_slice(op.as_bytes());
        out.extend_from_slice(b"\"}");
        batch.end_value();
        Ok(())
    }
    fn changelog(&self, tick: u64, kind: RowKind, row: &[u8], batch: &mut Batch) -> Result<()> {
        self.key(row, batch)?;
        let (out, scratch) = batch.begin();
        out.extend_from_slice(b"{\"op\":\"");
        out.extend_from_slice(kind.symbol().as_bytes());
        out.extend_from_slice(b"\",\"tick\":");
        out.extend_from_slice(itoa::Buffer::new().format(tick).as_bytes());
        out.extend_from_slice(b",\"row\":");
        self.value.json.write(self.value.of(row, scratch), out);
        out.push(b'}');
        batch.end_value();
        Ok(())
    }
}

/// A line of CSV without its end.
fn write_line(types: &[DataType], row: &[u8], out: &mut Vec<u8>) {
    write_csv_row(types, row, out);
    out.pop();
}
/// Bytes as they are, everything else as its text.
fn write_raw(datum: &Datum<'_>, data_type: &DataType, out: &mut Vec<u8>) {
    match datum {
        Datum::Bytes(bytes) => out.extend_from_slice(bytes),
        _ => write_plain(datum, data_type, out),
    }
}

/// Where key and value lie; None where there is none.
type Placed = (Option<Range<usize>>, Option<Range<usize>>);

/// Messages in one allocation.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    messages: Vec<Placed>,
    start: usize,
    key: Option<Range<usize>>,
    scratch: Vec<u8>,
}

impl Batch {
    fn begin(&mut self) -> (&mut Vec<u8>, &mut Vec<u8>) {
        self.start = self.bytes.len();
        (&mut self.bytes, &mut self.scratch)
    }
    fn no_key(&mut self) {
        self.key = None;
    }
    fn end_key(&mut self) {
        self.key = Some(self.start..self.bytes.len());
    }
    fn no_value(&mut self) {
        let key = self.key.take();
        self.messages.push((key, None));
    }
    fn end_value(&mut self) {
        let key = self.key.take();
        self.messages.push((key, Some(self.start..self.bytes.len())));
    }
    /// Keys and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Option<&[u8]>, Option<&[u8]>)> {
        let part = |range: &Option<Range<usize>>| range.clone().map(|range| &self.bytes[range]);
        self.messages.iter().map(move |(key, value)| (part(key), part(value)))
    }
    /// How much memory the messages take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + self.messages.len() * size_of::<Placed>()
    }
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.messages.clear();
    }
}
