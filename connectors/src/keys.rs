//! Which columns of a table the keys of its records hold: what `key.fields` and its companions mean, for sources and sinks alike.
//!
//! | option | meaning |
//! |---|---|
//! | `key.fields` | the columns that a key holds, `a;b`; without it those of the PRIMARY KEY, which it has to name with `upsert-kafka` |
//! | `key.format` | how a key is written; a source with `key.fields` needs it |
//! | `key.fields-prefix` | what the names of these columns begin with in the table, but not in the key |
//! | `value.fields-include` | `ALL` (default): values hold these columns too; `EXCEPT_KEY`: they do not |
//!
//! A source fills these columns from the key where `key.fields` names them, where values leave them out, and with
//! `upsert-kafka`. A field that the value has wins.

use std::collections::BTreeSet;

use deltaworks_dataflow::Schema;

use crate::decode::MetadataColumn;
use crate::error::{Error, Result};
use crate::options::Options;

/// The columns of the keys of a table's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyColumns {
    /// Their places in the row, in the order in which a key holds them.
    pub(crate) columns: Vec<usize>,
    /// What their names begin with in the table alone.
    prefix: String,
    /// Whether `key.fields` names them.
    pub(crate) named: bool,
    /// Whether values leave them out.
    pub(crate) except_key: bool,
}

impl KeyColumns {
    /// The columns that a table's options name. `primary_key` are the places of its PRIMARY KEY; metadata columns are in no key.
    ///
    /// # Errors
    /// Columns that are not there; options that mean nothing together.
    pub fn from_options(
        options: &Options,
        schema: &Schema,
        primary_key: &[usize],
        metadata: &[MetadataColumn],
    ) -> Result<KeyColumns> {
        let fields = options.get("key.fields");
        let columns = match fields {
            Some(fields) => named_columns(options, fields, schema, metadata)?,
            None => primary_key.to_vec(),
        };
        if let Some(fields) = fields.filter(|_| is_upsert(options) && !same(&columns, primary_key)) {
            return Err(options.invalid("key.fields", fields, "the columns of the PRIMARY KEY, or nothing"));
        }
        let except_key = match options.get("value.fields-include") {
            Some("EXCEPT_KEY") => true,
            None | Some("ALL") => false,
            Some(value) => return Err(options.invalid("value.fields-include", value, "ALL or EXCEPT_KEY")),
        };
        let prefix = options.get("key.fields-prefix").unwrap_or_default().to_owned();
        let keys = KeyColumns { columns, prefix, named: fields.is_some(), except_key };
        keys.check(options, schema)?;
        Ok(keys)
    }
    /// The columns of a PRIMARY KEY, without a word about them.
    pub(crate) fn of_primary(key: &[usize]) -> KeyColumns {
        KeyColumns { columns: key.to_vec(), ..KeyColumns::default() }
    }
    fn check(&self, options: &Options, schema: &Schema) -> Result<()> {
        let option = "key.fields-prefix";
        if self.columns.is_empty() {
            let set = [
                ("key.format", options.get("key.format").is_some()),
                (option, !self.prefix.is_empty()),
                ("value.fields-include", self.except_key),
            ];
            return set.iter().find(|(_, is_set)| *is_set).map_or(Ok(()), |(name, _)| {
                let what = format!("option \"{name}\" is of no use: the records' keys hold no column of this table");
                Err(together(what, "name the columns in 'key.fields' = 'a;b', or leave out the option"))
            });
        }
        if !self.prefix.is_empty() && !self.except_key {
            let what = format!("option \"{option}\" needs 'value.fields-include' = 'EXCEPT_KEY'");
            return Err(together(what, "set it, or leave out the prefix: a value has a column under its whole name only"));
        }
        match self.columns.iter().find(|column| self.name(&schema.columns[**column].name).is_empty()) {
            None => Ok(()),
            Some(column) => {
                let name = &schema.columns[*column].name;
                let expected = format!("what the columns of the key begin with, and \"{name}\" does not");
                Err(options.invalid(option, &self.prefix, &expected))
            }
        }
    }
    /// Checks what only a source needs to be told.
    ///
    /// # Errors
    /// Options that mean nothing together.
    pub(crate) fn check_source(&self, options: &Options) -> Result<()> {
        if !self.named {
            return Ok(());
        }
        if self.columns.is_empty() {
            return Err(options.invalid("key.fields", "", "at least one column, or leave out the option"));
        }
        if options.get("key.format").is_none() {
            let what = "option \"key.fields\" needs 'key.format', which says how keys are written".to_owned();
            return Err(together(what, "set 'key.format' = 'raw' for the text of one column, 'json' or 'csv' for several"));
        }
        Ok(())
    }
    /// The name that a column of the key has in the key; empty where it does not begin with the prefix.
    pub(crate) fn name<'n>(&self, column: &'n str) -> &'n str {
        match column.get(..self.prefix.len()) {
            Some(start) if start.eq_ignore_ascii_case(&self.prefix) => &column[self.prefix.len()..],
            _ => "",
        }
    }
    /// Whether values hold this column.
    pub(crate) fn in_value(&self, column: usize) -> bool {
        !(self.except_key && self.columns.contains(&column))
    }
}

fn named_columns(options: &Options, fields: &str, schema: &Schema, metadata: &[MetadataColumn]) -> Result<Vec<usize>> {
    let is_physical = |place: &usize| !metadata.iter().any(|metadata| metadata.column == *place);
    let place = |name: &str| {
        let folded = || schema.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
        schema.index_of(name).or_else(folded).filter(is_physical)
    };
    let unknown = || {
        let names = (0..schema.len()).filter(is_physical).map(|place| schema.columns[place].name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        options.invalid("key.fields", fields, &format!("columns of the table, as in a;b: {names}"))
    };
    let mut columns = Vec::new();
    for name in fields.split(';').map(str::trim).filter(|name| !name.is_empty()) {
        let column = place(name).ok_or_else(unknown)?;
        if columns.contains(&column) {
            return Err(options.invalid("key.fields", fields, "each column once"));
        }
        columns.push(column);
    }
    Ok(columns)
}
fn same(some: &[usize], others: &[usize]) -> bool {
    some.iter().collect::<BTreeSet<_>>() == others.iter().collect::<BTreeSet<_>>()
}
fn together(what: String, help: &str) -> Error {
    Error::Together { what, help: help.to_owned() }
}

/// Whether a topic holds the newest row of each key.
pub(crate) fn is_upsert(options: &Options) -> bool {
    options.connector() == Some("upsert-kafka") || options.get("changelog.mode") == Some("upsert")
}
