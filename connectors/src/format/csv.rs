//! CSV: lines of separated fields, which map to the columns by position.
//!
//! Options: `sep` or `delimiter` (`,`), `quote` (`"`), `nullValue` (empty), `header` (`false`; a source of files skips it, a sink
//! writes it) and `timestampFormat`, a pattern such as `M/d/yyyy H:mm`. A field is NULL if it is written as `nullValue`, and, where the
//! column is no STRING, if it is empty; a field in quotes is never NULL.

use deltaworks_dataflow::{DataType, Datum};

use super::json::{self, Field, utf8};
use super::parse::{self, Parsed, Problem};
use super::pattern::Pattern;
use super::{Reject, ValueFormat};
use crate::decode::{Slots, Target};
use crate::error::Result as SetupResult;
use crate::options::Options;

/// Whether files begin with the names of the columns: the same for sources and sinks.
pub(crate) fn has_header(options: &Options) -> SetupResult<bool> {
    options.boolean("header", false)
}
/// Refuses what a sink does not obey: it separates by commas, quotes by `"` and writes nothing for NULL.
pub(crate) fn check_plain(options: &Options) -> SetupResult<()> {
    let fixed = [
        ("sep", ","),
        ("delimiter", ","),
        ("csv.field-delimiter", ","),
        ("quote", "\""),
        ("csv.quote-character", "\""),
        ("nullValue", ""),
        ("csv.null-literal", ""),
    ];
    for (name, only) in fixed {
        if let Some(value) = options.get(name).filter(|value| *value != only) {
            return Err(options.invalid(name, value, &format!("\"{only}\": a sink writes no other")));
        }
    }
    match options.get("timestampFormat") {
        Some(value) => Err(options.invalid("timestampFormat", value, "nothing: a sink writes 2026-05-01 09:00:00")),
        None => Ok(()),
    }
}

/// How a file separates its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Stands between fields.
    pub delimiter: u8,
    /// Stands around fields that contain what separates; None where nothing does.
    pub quote: Option<u8>,
}
impl Default for Dialect {
    fn default() -> Self {
        Dialect { delimiter: b',', quote: Some(b'"') }
    }
}

impl Dialect {
    /// The dialect that options name.
    ///
    /// # Errors
    /// A delimiter or quote that is not one ASCII character.
    pub fn from_options(options: &Options) -> SetupResult<Dialect> {
        let mut dialect = Dialect::default();
        if let Some((name, value)) = options.first(&["sep", "delimiter", "csv.field-delimiter"]) {
            dialect.delimiter = one_byte(options, name, value)?;
        }
        if let Some((name, value)) = options.first(&["quote", "csv.quote-character"]) {
            dialect.quote = if value.is_empty() { None } else { Some(one_byte(options, name, value)?) };
        }
        Ok(dialect)
    }
    /// Whether a quoted field is open after `line`, given whether one was before it.
    pub(crate) fn is_open_after(&self, line: &[u8], mut open: bool) -> bool {
        let Some(quote) = self.quote else { return false };
        if memchr::memchr(quote, line).is_none() {
            return open;
        }
        let mut at_start = !open;
        for byte in line {
            if open {
                open = *byte != quote;
                // A second quote right behind opens the field again: it was a quoted quote.
                at_start = *byte == quote;
            } else {
                open = at_start && *byte == quote;
                at_start = *byte == self.delimiter;
            }
        }
        open
    }
}
fn one_byte(options: &Options, name: &str, value: &str) -> SetupResult<u8> {
    match value.as_bytes() {
        [byte] if byte.is_ascii() => Ok(*byte),
        b"\\t" => Ok(b'\t'),
        _ => Err(options.invalid(name, value, "one ASCII character, or \\t")),
    }
}

/// A line taken apart.
#[derive(Default)]
pub(crate) struct Fields {
    text: Vec<u8>,
    /// Where each field ends, and whether it stood in quotes.
    ends: Vec<(usize, bool)>,
}

impl Fields {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
    /// Whether the line is empty, which one field is that is empty and not in quotes.
    fn is_empty(&self) -> bool {
        self.text.is_empty() && matches!(self.ends[..], [(0, false)])
    }
    pub(crate) fn get(&self, index: usize) -> (&[u8], bool) {
        let start = if index == 0 { 0 } else { self.ends[index - 1].0 };
        let (end, quoted) = self.ends[index];
        (&self.text[start..end], quoted)
    }
    /// Takes a line apart.
    pub(crate) fn split(&mut self, line: &[u8], dialect: Dialect) -> Result<(), Reject> {
        self.text.clear();
        self.ends.clear();
        let mut rest = line.strip_suffix(b"\n").unwrap_or(line);
        rest = rest.strip_suffix(b"\r").unwrap_or(rest);
        loop {
            let quoted = dialect.quote.is_some() && rest.first().copied() == dialect.quote;
            if quoted {
                rest = self.quoted(&rest[1..], dialect.quote.unwrap_or_default())?;
            }
            let end = memchr::memchr(dialect.delimiter, rest).unwrap_or(rest.len());
            if memchr::memchr2(b'\n', b'\r', &rest[..end]).is_some() {
                return Err(Reject::record("a line break outside of quotes"));
            }
            self.text.extend_from_slice(&rest[..end]);
            self.ends.push((self.text.len(), quoted));
            if end == rest.len() {
                return Ok(());
            }
            rest = &rest[end + 1..];
        }
    }
    /// Copies what stands in quotes and returns what follows them.
    fn quoted<'l>(&mut self, mut rest: &'l [u8], quote: u8) -> Result<&'l [u8], Reject> {
        loop {
            let Some(end) = memchr::memchr(quote, rest) else {
                return Err(Reject::record("a field in quotes is not closed"));
            };
            self.text.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            if rest.first() != Some(&quote) {
                return Ok(rest);
            }
            self.text.push(quote);
            rest = &rest[1..];
        }
    }
}

/// Values that are lines of CSV.
pub(crate) struct Csv {
    columns: Vec<Field>,
    dialect: Dialect,
    null: String,
    timestamp: Option<Pattern>,
    fields: Fields,
    /// What the fields belong to, for messages.
    whole: &'static str,
}

impl Csv {
    /// A reader of lines that hold these fields, which belong to a `whole` of this name.
    pub(crate) fn new(columns: Vec<Field>, options: &Options, whole: &'static str) -> SetupResult<Self> {
        let timestamp = match options.get("timestampFormat") {
            Some(pattern) => {
                Some(Pattern::new(pattern).map_err(|expected| options.invalid("timestampFormat", pattern, &expected))?)
            }
            None => None,
        };
        let null = options.first(&["nullValue", "csv.null-literal"]).map_or("", |(_, value)| value).to_owned();
        let dialect = Dialect::from_options(options)?;
        Ok(Csv { columns, dialect, null, timestamp, fields: Fields::default(), whole })
    }
    fn check_count(&self) -> Result<(), Reject> {
        let (found, expected) = (self.fields.len(), self.columns.len());
        let reason = format!("the line has {found} fields, the {} {expected} columns", self.whole);
        match self.columns.get(found) {
            _ if found == expected || expected == 0 && self.fields.is_empty() => Ok(()),
            Some(column) => Err(Reject::field(&column.name, format!("{reason}: none is left for this one"))),
            None => Err(Reject::record(reason)),
        }
    }
    /// Reads one line and puts its fields into their slots.
    pub(crate) fn read(&mut self, line: &[u8], slots: &mut Slots) -> Result<(), Reject> {
        self.fields.split(line, self.dialect)?;
        self.check_count()?;
        for (index, column) in self.columns.iter().enumerate() {
            let (bytes, quoted) = self.fields.get(index);
            let text = utf8(bytes).map_err(|reject| Reject::field(&column.name, reject.reason))?;
            let is_null = !quoted && (text == self.null || (text.is_empty() && column.data_type != DataType::String));
            let datum = if is_null { Ok(Datum::Null) } else { datum(text, &column.data_type, self.timestamp.as_ref()) };
            let reject = |problem: Problem| {
                Reject::field(format!("{}{}", column.name, problem.place()), problem.reason(&column.data_type, text))
            };
            slots.put(column.slot, &datum.map_err(reject)?);
        }
        Ok(())
    }
}
impl ValueFormat for Csv {
    fn fields(&mut self, value: &[u8], target: &mut Target<'_>) -> Result<(), Reject> {
        self.read(value, target.slots())
    }
}
fn datum<'a>(text: &'a str, data_type: &DataType, timestamp: Option<&Pattern>) -> Parsed<Datum<'a>> {
    match data_type {
        DataType::String => Ok(Datum::str(text)),
        DataType::Boolean => boolean(text.trim()).map(Datum::Bool),
        DataType::Array(_) | DataType::Struct(_) | DataType::Bitmap => json::of_text(text, data_type),
        DataType::Timestamp | DataType::TimestampLtz | DataType::Date => match timestamp {
            Some(pattern) => match pattern.read(text.trim(), data_type) {
                // The pattern is of times; a date beside them may be written as ever.
                Err(_) if *data_type == DataType::Date => parse::scalar(text.trim(), data_type),
                read => read.map(Datum::Int),
            },
            None => parse::scalar(text.trim(), data_type),
        },
        _ => parse::scalar(text.trim(), data_type),
    }
}
fn boolean(text: &str) -> Parsed<bool> {
    match text {
        "1" | "t" | "T" => Ok(true),
        "0" | "f" | "F" => Ok(false),
        _ => parse::boolean(text),
    }
}
