//! Sinks: changelogs to files and to the standard output, one line per change.
//!
//! | format | a line | takes |
//! |---|---|---|
//! | `changelog-json` (default) | `{"op":"+I","tick":7,"row":{..}}` | every change |
//! | `upsert-json`, or `'changelog.mode' = 'upsert'` | `{"op":"upsert","tick":7,"key":{..},"row":{..}}`; a delete has row null | every change; needs a key |
//! | `json` | `{..}` | inserts only |
//! | `csv` | a line of CSV, below a header with `'header' = 'true'` as for a source | inserts only |
//! | `raw` | the one column, of type STRING | inserts only |
//!
//! With `'sink.mode' = 'snapshot'` a file of `json`, `csv` or `raw` holds the rows that are there, and takes every change:
//! `snapshot.rs`.
//!
//! *Guarantee*: a file is begun anew at every start, so a run's output is complete and in order. Lines are handed to the
//! system when 64 KiB have gathered, and at [`ChangeSink::flush`].

use deltaworks_dataflow::changelog::{Changes, RowKind};
use deltaworks_dataflow::row::project;
use deltaworks_dataflow::{DataType, Datum, Schema};
use std::fs::File;
use std::io::{Stdout, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::csv;
use crate::format::text::{JsonRows, check_unique, write_csv_header, write_csv_row};
use crate::options::Options;

mod snapshot;

/// Takes the changes of a view, tick by tick.
pub trait ChangeSink: Send {
    /// Takes one tick's changes.
    ///
    /// # Errors
    /// The outside does not take them, or the sink cannot express them.
    fn write(&mut self, changes: &Changes) -> Result<()>;
    /// Hands on what has gathered.
    ///
    /// # Errors
    /// The outside does not take it.
    fn flush(&mut self) -> Result<()>;
    /// Hands on everything; nothing is written after it.
    ///
    /// # Errors
    /// The outside does not take it.
    fn finish(&mut self) -> Result<()>;

    /// Whether readers see what was written only when its epoch is committed.
    fn has_epochs(&self) -> bool {
        false
    }
    /// The last epoch that readers have, from this writer or one before it; None where there was none, or none is noted.
    fn committed(&self) -> Option<u64> {
        None
    }
    /// What is written from here on belongs to this epoch, a larger one than the last. What belongs to an epoch that is committed
    /// already is left out.
    ///
    /// # Errors
    /// The outside does not take it.
    fn begin(&mut self, _epoch: u64) -> Result<()> {
        Ok(())
    }
    /// Whether the epoch is so old or so large that it should be committed.
    fn is_due(&self) -> bool {
        false
    }
    /// Returns once what was written is safe outside; its epoch ends.
    ///
    /// # Errors
    /// The outside does not take it.
    fn commit(&mut self) -> Result<()> {
        self.flush()
    }
}

/// How changes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkFormat {
    /// Row kinds and rows.
    ChangelogJson,
    /// Upserts and deletes by key.
    UpsertJson,
    /// Rows alone, as JSON.
    Json,
    /// Rows alone, as CSV.
    Csv {
        /// Whether the names of the columns come first.
        header: bool,
    },
    /// The one column alone.
    Raw,
}

/// Where changes are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkTarget {
    /// A file.
    File(PathBuf),
    /// The standard output.
    Stdout,
    /// Nowhere: changes are counted by who makes them, and dropped.
    Blackhole,
}

/// A sink that was checked and can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSpec {
    /// Where to.
    pub target: SinkTarget,
    /// In which form.
    pub format: SinkFormat,
    /// The columns of the rows.
    pub schema: Schema,
    /// The key columns, as places in the row.
    pub key: Vec<usize>,
    /// Whether the file holds the rows that are there, rather than the changes that led to them.
    pub snapshot: bool,
}

impl SinkSpec {
    /// The sink that a table's options describe.
    ///
    /// # Errors
    /// Options, formats or connectors that do not exist or do not go together.
    pub fn from_options(options: &Options, schema: &Schema, key: &[usize]) -> Result<SinkSpec> {
        options.check()?;
        let target = match options.require("connector")? {
            "filesystem" => SinkTarget::File(file_path(options)?),
            "stdout" | "print" => SinkTarget::Stdout,
            "blackhole" => SinkTarget::Blackhole,
            other => return Err(Error::UnknownConnector { name: other.to_owned() }),
        };
        let format = SinkFormat::from_options(options)?;
        let mut spec = SinkSpec::new(target, format, schema, key)?;
        spec.snapshot = match options.get("sink.mode") {
            None | Some("append") => false,
            Some("snapshot") if spec.can_be_snapshot() => true,
            Some("snapshot") => {
                let expected = "append; a snapshot is a file with 'format' = 'json', 'csv' or 'raw'";
                return Err(options.invalid("sink.mode", "snapshot", expected));
            }
            Some(value) => return Err(options.invalid("sink.mode", value, "append or snapshot")),
        };
        Ok(spec)
    }
    fn can_be_snapshot(&self) -> bool {
        let rows = matches!(self.format, SinkFormat::Json | SinkFormat::Csv { .. } | SinkFormat::Raw);
        rows && matches!(self.target, SinkTarget::File(_))
    }
    /// Whether rows can be taken back; else it takes inserts only.
    pub fn takes_retractions(&self) -> bool {
        self.snapshot || matches!(self.format, SinkFormat::ChangelogJson | SinkFormat::UpsertJson)
    }
    /// A sink of known parts, e.g. the file that stands for a topic in a replay.
    ///
    /// # Errors
    /// A sink by key without a key; two columns of one name.
    pub fn new(target: SinkTarget, format: SinkFormat, schema: &Schema, key: &[usize]) -> Result<SinkSpec> {
        let spec = SinkSpec { target, format, schema: schema.clone(), key: key.to_vec(), snapshot: false };
        if format == SinkFormat::UpsertJson && key.is_empty() {
            return Err(Error::NoKey { sink: spec.name() });
        }
        if format == SinkFormat::Raw && schema.types() != [DataType::String] {
            let reason = "it takes one column of type STRING".to_owned();
            return Err(Error::Columns { format: "raw", reason });
        }
        if !matches!(format, SinkFormat::Csv { .. }) {
            check_unique(schema)?;
        }
        Ok(spec)
    }
    /// Opens the sink; a file is created with its folders, or begun anew.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn open(&self) -> Result<Box<dyn ChangeSink>> {
        let out = match &self.target {
            SinkTarget::Blackhole => return Ok(Box::new(Blackhole)),
            SinkTarget::Stdout => Output::Stdout(std::io::stdout()),
            SinkTarget::File(path) if self.snapshot => {
                create_folder(path)?;
                return Ok(Box::new(snapshot::SnapshotSink::open(self, path)?));
            }
            SinkTarget::File(path) => Output::File(create(path)?, path.clone()),
        };
        let mut sink = TextSink { lines: Lines::new(self), buffer: Vec::with_capacity(2 * BUFFER_BYTES), out };
        if self.format == (SinkFormat::Csv { header: true }) {
            write_csv_header(&self.schema, &mut sink.buffer);
        }
        Ok(Box::new(sink))
    }
    fn name(&self) -> String {
        match &self.target {
            SinkTarget::File(path) => path.to_string_lossy().into_owned(),
            SinkTarget::Stdout => "stdout".to_owned(),
            SinkTarget::Blackhole => "blackhole".to_owned(),
        }
    }
}

impl SinkFormat {
    /// The format that options name.
    ///
    /// # Errors
    /// A format that sinks do not have.
    pub fn from_options(options: &Options) -> Result<SinkFormat> {
        let upsert = match options.get("changelog.mode") {
            None | Some("changelog") => false,
            Some("upsert") => true,
            Some(value) => return Err(options.invalid("changelog.mode", value, "changelog or upsert")),
        };
        match options.first(&["value.format", "format"]).map(|(_, value)| value) {
            Some("upsert-json") => Ok(SinkFormat::UpsertJson),
            None | Some("json" | "changelog-json") if upsert => Ok(SinkFormat::UpsertJson),
            None | Some("changelog-json") => Ok(SinkFormat::ChangelogJson),
            Some("json") => Ok(SinkFormat::Json),
            Some("csv") if !upsert => {
                csv::check_plain(options).and_then(|()| Ok(SinkFormat::Csv { header: csv::has_header(options)? }))
            }
            Some("raw") if !upsert => Ok(SinkFormat::Raw),
            Some("csv" | "raw") => Err(options.invalid("changelog.mode", "upsert", "'format' = 'upsert-json' with it")),
            Some(name) => {
                let known = "changelog-json, upsert-json, json, csv, raw".to_owned();
                Err(Error::UnknownFormat { name: name.to_owned(), known })
            }
        }
    }
}
fn file_path(options: &Options) -> Result<PathBuf> {
    let path = options.require("path")?;
    let path = Path::new(path.strip_prefix("file://").unwrap_or(path));
    if path.is_dir() || path.file_name().is_none() {
        return Err(options.invalid("path", &path.to_string_lossy(), "a file, not a folder"));
    }
    Ok(path.to_path_buf())
}
fn create_folder(path: &Path) -> Result<()> {
    match path.parent().filter(|folder| *folder != Path::new("")) {
        Some(folder) => std::fs::create_dir_all(folder).map_err(Error::io("create", folder)),
        None => Ok(()),
    }
}
fn create(path: &Path) -> Result<File> {
    create_folder(path)?;
    File::create(path).map_err(Error::io("create", path))
}

/// Renders changes as lines.
struct Lines {
    name: String,
    format: SinkFormat,
    rows: JsonRows,
    keys: JsonRows,
    key: Vec<usize>,
    types: Vec<DataType>,
    scratch: Vec<u8>,
    number: itoa::Buffer,
}

impl Lines {
    fn new(spec: &SinkSpec) -> Self {
        let key_columns = spec.key.iter().map(|column| spec.schema.columns[*column].clone()).collect();
        Lines {
            name: spec.name(),
            format: spec.format,
            rows: JsonRows::new(&spec.schema),
            keys: JsonRows::new(&Schema::new(key_columns)),
            key: spec.key.clone(),
            types: spec.schema.types(),
            scratch: Vec::new(),
            number: itoa::Buffer::new(),
        }
    }
    fn write(&mut self, tick: u64, kind: RowKind, row: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self.format {
            SinkFormat::ChangelogJson => self.changelog(tick, kind, row, out),
            SinkFormat::UpsertJson => self.upsert(tick, kind, row, out),
            SinkFormat::Json | SinkFormat::Csv { .. } | SinkFormat::Raw if kind != RowKind::Insert => {
                return Err(Error::NotAppendOnly { sink: self.name.clone(), kind: kind.symbol(), tick });
            }
            SinkFormat::Json => {
                self.rows.write(row, out);
                out.push(b'\n');
            }
            SinkFormat::Csv { .. } => write_csv_row(&self.types, row, out),
            SinkFormat::Raw => write_raw(row, out),
        }
        Ok(())
    }
    fn changelog(&mut self, tick: u64, kind: RowKind, row: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"op\":\"");
        out.extend_from_slice(kind.symbol().as_bytes());
        out.extend_from_slice(b"\",\"tick\":");
        out.extend_from_slice(self.number.format(tick).as_bytes());
        out.extend_from_slice(b",\"row\":");
        self.rows.write(row, out);
        out.extend_from_slice(b"}\n");
    }
    fn upsert(&mut self, tick: u64, kind: RowKind, row: &[u8], out: &mut Vec<u8>) {
        if kind == RowKind::UpdateBefore {
            return;
        }
        let deletes = kind == RowKind::Delete;
        out.extend_from_slice(if deletes { b"{\"op\":\"delete\",\"tick\":" } else { b"{\"op\":\"upsert\",\"tick\":" });
        out.extend_from_slice(self.number.format(tick).as_bytes());
        out.extend_from_slice(b",\"key\":");
        self.scratch.clear();
        project(row, &self.key, &mut self.scratch);
        self.keys.write(&self.scratch, out);
        out.extend_from_slice(b",\"row\":");
        match deletes {
            true => out.extend_from_slice(b"null"),
            false => self.rows.write(row, out),
        }
        out.extend_from_slice(b"}\n");
    }
}

/// Appends a row of one STRING as a line; NULL is an empty one.
fn write_raw(mut row: &[u8], out: &mut Vec<u8>) {
    if let Datum::Str(text) = Datum::decode(&mut row, &DataType::String) {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'\n');
}

const BUFFER_BYTES: usize = 64 * 1024;

/// Lines to a file or the standard output.
struct TextSink {
    lines: Lines,
    buffer: Vec<u8>,
    out: Output,
}
enum Output {
    File(File, PathBuf),
    Stdout(Stdout),
}

impl TextSink {
    fn hand_on(&mut self) -> Result<()> {
        let written = match &mut self.out {
            Output::File(file, path) => file.write_all(&self.buffer).map_err(Error::io("write", path)),
            Output::Stdout(out) => out.write_all(&self.buffer).map_err(Error::Output),
        };
        self.buffer.clear();
        written
    }
}
impl ChangeSink for TextSink {
    fn write(&mut self, changes: &Changes) -> Result<()> {
        for (kind, row) in &changes.entries {
            self.lines.write(changes.tick, *kind, row, &mut self.buffer)?;
            if self.buffer.len() >= BUFFER_BYTES {
                self.hand_on()?;
            }
        }
        Ok(())
    }
    fn flush(&mut self) -> Result<()> {
        self.hand_on()?;
        match &mut self.out {
            Output::File(..) => Ok(()),
            Output::Stdout(out) => out.flush().map_err(Error::Output),
        }
    }
    fn finish(&mut self) -> Result<()> {
        self.flush()
    }
}

/// Takes everything and keeps nothing.
struct Blackhole;
impl ChangeSink for Blackhole {
    fn write(&mut self, _: &Changes) -> Result<()> {
        Ok(())
    }
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
