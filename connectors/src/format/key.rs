//! The key of a record: the columns that it fills, and what a record without a value deletes.
//!
//! | `key.format` | a key is |
//! |---|---|
//! | `raw`, and of one column the default | the text of the one column, of BYTES its bytes |
//! | `json`, and of several columns the default | a JSON object |
//! | `csv` | a line of fields, in the order of the columns |
//! | `avro-confluent`, and the default with Debezium's Avro | a message of a schema registry: a record, or the one column alone |
//! | `debezium-json`, and the default with that format | an object, bare or in a Debezium wrapper; else the text of the one column |
//!
//! *Deletes*: the PRIMARY KEY is taken from the key, in whatever order and beside whatever other columns that has it. An object may
//! hold columns of it that `key.fields` does not name; if a part of it is nowhere, the record is rejected.

use deltaworks_dataflow::row::is_null_field;
use deltaworks_dataflow::{DataType, Datum};

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Reject;
use super::avro::{self, AvroReader};
use super::csv::Csv;
use super::json::{self, Field, ObjectReader, utf8};
use super::parse::{self, Parsed, Problem};
use crate::decode::{Prepared, Slots, TableFormat};
use crate::error::{Error, Result as SetupResult};
use crate::format::Format;
use crate::keys::{KeyColumns, is_upsert};

/// How keys are written.
enum KeyForm {
    /// The text of the one column.
    Text,
    /// Fields by position.
    Csv(Csv),
    /// A JSON object of the columns.
    Object(ObjectReader),
    /// An object, bare or in a Debezium wrapper; else the text of the one column.
    Debezium(ObjectReader),
    /// A message of a schema registry.
    Avro(AvroReader),
}

/// What the record at hand has for a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    NotYet,
    Nothing,
    Fields,
}

/// When columns are filled from the key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fills {
    Never,
    /// Where the value lacks one; only then the key is looked at.
    Lacking,
    Always,
}

/// Reads keys of a table, each at most once.
pub(crate) struct KeyReader {
    /// The columns of the key, under the names that they have there; then those of the PRIMARY KEY that may be there too.
    fields: Vec<Field>,
    /// Their places in the row and their names in the table.
    columns: Vec<(usize, String)>,
    /// How many of them fill columns of the row.
    filling: usize,
    fills: Fills,
    /// The columns of the PRIMARY KEY, as places among the fields and by name.
    primary: Vec<(Option<usize>, String)>,
    form: KeyForm,
    slots: Slots,
    read: Read,
}

impl KeyReader {
    /// The reader of a table's keys.
    ///
    /// # Errors
    /// Options that mean nothing together, an unknown format, one that cannot hold the columns.
    pub(crate) fn new(table: &TableFormat) -> SetupResult<Self> {
        let keys = table.keys()?;
        keys.check_source(&table.options)?;
        let format = table.options.get("key.format");
        let fills = match (keys.named || keys.except_key, is_upsert(&table.options), format) {
            (true, ..) | (false, true, Some(_)) => Fills::Always,
            (false, true, None) => Fills::Lacking,
            (false, false, _) => Fills::Never,
        };
        let mut columns = keys.columns.clone();
        if is_object(table, columns.len()) {
            columns.extend(table.key.iter().filter(|column| !keys.columns.contains(column)));
        }
        let (fields, columns) = named(table, &keys, &columns);
        let place = |column: &usize| {
            let name = table.schema.columns[*column].name.clone();
            (columns.iter().position(|(slot, _)| slot == column), name)
        };
        let primary = table.key.iter().map(place).collect();
        let form = form(table, &fields, (fills, keys.columns.len() == 1))?;
        let slots = Slots::new(fields.len());
        Ok(KeyReader { filling: keys.columns.len(), fields, columns, fills, primary, form, slots, read: Read::NotYet })
    }
    /// Whether the table has no PRIMARY KEY.
    pub(crate) fn is_keyless(&self) -> bool {
        self.primary.is_empty()
    }
    /// See [`Decoder::open`](crate::Decoder::open).
    pub(crate) fn open(&mut self, stop: &Arc<AtomicBool>) -> SetupResult<()> {
        match &mut self.form {
            KeyForm::Avro(avro) => avro.open(stop),
            _ => Ok(()),
        }
    }
    /// See [`Decoder::prepare`](crate::Decoder::prepare), for the keys of some records.
    pub(crate) fn prepare(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Prepared {
        match &mut self.form {
            KeyForm::Avro(avro) => avro.prepare(keys),
            _ => Prepared::Ready,
        }
    }
    /// The next record follows.
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.read = Read::NotYet;
    }
    /// Fills what a value left open from the record's key.
    #[inline]
    pub(crate) fn fill(&mut self, key: Option<&[u8]>, row: &mut Slots) -> Result<(), Reject> {
        match self.fills {
            Fills::Never => return Ok(()),
            Fills::Lacking if self.filled().all(|(column, _)| row.field(*column).is_some()) => return Ok(()),
            Fills::Lacking | Fills::Always => self.read(key)?,
        }
        if self.read == Read::Fields {
            for (index, (column, _)) in self.filled().enumerate() {
                match self.slots.field(index) {
                    Some(field) if row.field(*column).is_none() => row.put_encoded(*column, field),
                    _ => {}
                }
            }
        }
        Ok(())
    }
    fn filled(&self) -> impl Iterator<Item = &(usize, String)> {
        self.columns.iter().take(self.filling)
    }
    /// Appends the fields of the PRIMARY KEY, encoded, to `row`.
    pub(crate) fn delete(&mut self, key: Option<&[u8]>, row: &mut Vec<u8>) -> Result<(), Reject> {
        self.read(key)?;
        if self.read == Read::Nothing {
            return Err(Reject::record("neither a value nor a key"));
        }
        for (place, name) in &self.primary {
            let Some(place) = place else {
                return Err(Reject::field(name, "key: it does not hold this column of the PRIMARY KEY"));
            };
            match self.slots.field(*place).filter(|field| !is_null_field(field)) {
                Some(field) => row.extend_from_slice(field),
                None => return Err(Reject::field(name, "key: NULL in a key column")),
            }
        }
        Ok(())
    }
    fn read(&mut self, key: Option<&[u8]>) -> Result<(), Reject> {
        if self.read != Read::NotYet {
            return Ok(());
        }
        let Some(key) = key else {
            self.read = Read::Nothing;
            return Ok(());
        };
        self.slots.clear();
        let KeyReader { fields, slots, form, .. } = self;
        let read = match form {
            KeyForm::Text => text(key, fields, slots),
            KeyForm::Csv(csv) => csv.read(key, slots),
            KeyForm::Avro(avro) => avro.read(key, slots),
            KeyForm::Object(object) => utf8(key).and_then(|text| object.read(text, slots)),
            KeyForm::Debezium(object) => utf8(key).and_then(|key| match super::debezium::payload(key) {
                Some(payload) => object.read(payload, slots),
                None if fields.len() == 1 => text(key.as_bytes(), fields, slots),
                None => object.read(key, slots),
            }),
        };
        read.map_err(|reject| self.in_key(reject))?;
        self.read = Read::Fields;
        Ok(())
    }
    /// What is wrong with a key, by the table's names.
    fn in_key(&self, reject: Reject) -> Reject {
        let in_table = |place: String| {
            let name_end = |field: &Field| {
                place.strip_prefix(&field.name).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            let found = self.fields.iter().zip(&self.columns).find_map(|(field, (_, name))| Some((name, name_end(field)?)));
            found.map_or(place.clone(), |(name, rest)| format!("{name}{rest}"))
        };
        Reject { field: reject.field.map(in_table), reason: format!("key: {}", reject.reason) }
    }
}

/// Whether keys are objects, which may hold more than they are asked for.
fn is_object(table: &TableFormat, columns: usize) -> bool {
    match table.options.get("key.format") {
        Some(format) => matches!(format, "json" | "debezium-json" | avro::ROWS),
        None => matches!(table.format, Format::Debezium | Format::DebeziumAvro) || columns > 1,
    }
}
/// The columns under their names in the key, and in the table.
fn named(table: &TableFormat, keys: &KeyColumns, columns: &[usize]) -> (Vec<Field>, Vec<(usize, String)>) {
    let name = |slot: &usize| table.schema.columns[*slot].name.clone();
    let field = |(index, slot): (usize, &usize)| Field {
        name: if keys.columns.contains(slot) { keys.name(&name(slot)).to_owned() } else { name(slot) },
        slot: index,
        data_type: table.schema.columns[*slot].data_type.clone(),
        conversion: Default::default(),
    };
    (columns.iter().enumerate().map(field).collect(), columns.iter().map(|slot| (*slot, name(slot))).collect())
}
fn form(table: &TableFormat, fields: &[Field], (fills, lone): (Fills, bool)) -> SetupResult<KeyForm> {
    let own = table.options.of_key();
    let object = || {
        let mut object = ObjectReader::new(fields.to_vec());
        object.all_required = own.boolean("json.fail-on-missing-field", false)?;
        Ok(object)
    };
    match table.options.get("key.format") {
        Some("json") => object().map(KeyForm::Object),
        Some("debezium-json") => object().map(KeyForm::Debezium),
        None if table.format == Format::Debezium => object().map(KeyForm::Debezium),
        Some(avro::ROWS) => AvroReader::of_key(fields.to_vec(), lone, &table.options).map(KeyForm::Avro),
        None if table.format == Format::DebeziumAvro => {
            AvroReader::of_key(fields.to_vec(), lone, &table.options).map(KeyForm::Avro)
        }
        Some("csv") => Csv::new(fields.to_vec(), &own, "key").map(KeyForm::Csv),
        Some(value @ "raw") if fields.len() > 1 && fills == Fills::Always => {
            Err(table.options.invalid("key.format", value, "json or csv: the key has several columns"))
        }
        Some("raw") | None if fields.len() > 1 => object().map(KeyForm::Object),
        Some("raw") | None => Ok(KeyForm::Text),
        Some(name) => Err(Error::UnknownFormat {
            name: name.to_owned(),
            known: "raw, json, csv, avro-confluent, debezium-json for keys".to_owned(),
        }),
    }
}

/// Reads the text of the one column.
fn text(key: &[u8], fields: &[Field], slots: &mut Slots) -> Result<(), Reject> {
    let Some(field) = fields.first() else { return Ok(()) };
    if field.data_type == DataType::Bytes {
        slots.put(0, &Datum::Bytes(key.into()));
        return Ok(());
    }
    let text = utf8(key).map_err(|reject| Reject::field(&field.name, reject.reason))?;
    let reject = |problem: Problem| {
        Reject::field(format!("{}{}", field.name, problem.place()), problem.reason(&field.data_type, text))
    };
    slots.put(0, &scalar(text, &field.data_type).map_err(reject)?);
    Ok(())
}
fn scalar<'t>(text: &'t str, data_type: &DataType) -> Parsed<Datum<'t>> {
    match data_type {
        DataType::Array(_) | DataType::Struct(_) | DataType::Bitmap => json::of_text(text, data_type),
        _ => parse::scalar(text, data_type),
    }
}

#[cfg(test)]
mod tests;
