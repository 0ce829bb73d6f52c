//! The key of a record, which says what a record without a value deletes.
//!
//! A key of one column is the raw text of the record's key, read as the column's type; a key of several columns is a JSON
//! object. `'key.format' = 'json'` makes it an object in any case, `'raw'` never.

use deltaworks_dataflow::Schema;

use super::Reject;
use super::json::{Field, ObjectReader, utf8};
use super::parse::{self, Problem};
use crate::decode::Slots;

/// How keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyForm {
    /// The text of the one column.
    Text,
    /// A JSON object of the columns.
    Object,
    /// An object, bare or in a Debezium wrapper; else the text of the one column.
    Debezium,
}

/// Reads keys of a table.
pub(crate) struct KeyReader {
    columns: Schema,
    form: KeyForm,
    object: ObjectReader,
    slots: Slots,
}

impl KeyReader {
    /// A reader of keys of the given columns, in key order.
    pub(crate) fn new(columns: Schema, form: KeyForm) -> Self {
        let field = |(slot, column): (usize, &deltaworks_dataflow::Column)| Field {
            name: column.name.clone(),
            slot,
            data_type: column.data_type.clone(),
            conversion: Default::default(),
        };
        let object = ObjectReader::new(columns.columns.iter().enumerate().map(field).collect());
        let form = if columns.len() > 1 && form == KeyForm::Text { KeyForm::Object } else { form };
        KeyReader { slots: Slots::new(columns.len()), columns, form, object }
    }
    pub(crate) fn is_keyless(&self) -> bool {
        self.columns.is_empty()
    }
    /// Appends the key's fields, encoded, to `row`.
    pub(crate) fn read(&mut self, key: Option<&[u8]>, row: &mut Vec<u8>) -> Result<(), Reject> {
        let Some(key) = key else { return Err(Reject::record("neither a value nor a key")) };
        let text = key_utf8(key)?;
        match self.form {
            KeyForm::Text => self.text(text, row),
            KeyForm::Object => self.fields(text, row),
            KeyForm::Debezium => match super::debezium::payload(text) {
                Some(payload) => self.fields(payload, row),
                None if self.columns.len() == 1 => self.text(text, row),
                None => self.fields(text, row),
            },
        }
    }
    fn text(&mut self, text: &str, row: &mut Vec<u8>) -> Result<(), Reject> {
        let column = &self.columns.columns[0];
        let value = parse::scalar(text, &column.data_type);
        let reject =
            |problem: Problem| Reject::field(&column.name, format!("key: {}", problem.reason(&column.data_type, text)));
        value.map_err(reject)?.encode(row);
        Ok(())
    }
    fn fields(&mut self, text: &str, row: &mut Vec<u8>) -> Result<(), Reject> {
        self.slots.clear();
        let in_key = |reject: Reject| Reject { reason: format!("key: {}", reject.reason), ..reject };
        self.object.read(text, &mut self.slots).map_err(in_key)?;
        for (slot, column) in self.columns.columns.iter().enumerate() {
            match self.slots.field(slot).filter(|field| !deltaworks_dataflow::row::is_null_field(field)) {
                Some(field) => row.extend_from_slice(field),
                None => return Err(Reject::field(&column.name, "key: NULL in a key column")),
            }
        }
        Ok(())
    }
}
fn key_utf8(key: &[u8]) -> Result<&str, Reject> {
    utf8(key).map_err(|reject| Reject::record(format!("key: {}", reject.reason)))
}
