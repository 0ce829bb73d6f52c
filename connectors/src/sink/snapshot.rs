//! A file that holds the rows of a view as they are now, one a line: `'sink.mode' = 'snapshot'`.
//!
//! Rows come in key order (encoded rows); as `json`, `csv`, or `raw` where they are one column of text. The file is written beside
//! its place and moved there at every flush that has something new, so whoever opens it reads one complete state.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use deltaworks_dataflow::changelog::{Changes, RowKind};
use deltaworks_dataflow::{DataType, Row};

use super::{ChangeSink, SinkFormat, SinkSpec, write_raw};
use crate::error::{Error, Result};
use crate::format::text::{JsonRows, write_csv_header, write_csv_row};

/// The rows that are there, and the file that says so.
pub(super) struct SnapshotSink {
    spec: SinkSpec,
    path: PathBuf,
    rows: BTreeMap<Row, usize>,
    changed: bool,
}

impl SnapshotSink {
    /// A sink that has no rows yet; the file is there, and empty, at once.
    pub(super) fn open(spec: &SinkSpec, path: &Path) -> Result<Self> {
        let mut sink = SnapshotSink { spec: spec.clone(), path: path.to_path_buf(), rows: BTreeMap::new(), changed: true };
        sink.flush()?;
        Ok(sink)
    }
    fn take_back(&mut self, row: &Row) {
        let Some(count) = self.rows.get_mut(row) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.rows.remove(row);
        }
    }
    fn write_file(&self, path: &Path) -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        let (mut lines, mut line) = (Lines::new(&self.spec), Vec::new());
        lines.header(&self.spec, &mut line);
        for (row, count) in &self.rows {
            for _ in 0..*count {
                lines.write(row, &mut line);
                out.write_all(&line)?;
                line.clear();
            }
        }
        out.write_all(&line)?;
        out.flush()
    }
}
impl ChangeSink for SnapshotSink {
    fn write(&mut self, changes: &Changes) -> Result<()> {
        for (kind, row) in &changes.entries {
            match kind {
                RowKind::Insert | RowKind::UpdateAfter => *self.rows.entry(row.clone()).or_default() += 1,
                RowKind::UpdateBefore | RowKind::Delete => self.take_back(row),
            }
        }
        self.changed |= !changes.entries.is_empty();
        Ok(())
    }
    fn flush(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let mut name = self.path.file_name().unwrap_or_default().to_os_string();
        name.push(".part");
        let part = self.path.with_file_name(name);
        self.write_file(&part).map_err(Error::io("write", &part))?;
        fs::rename(&part, &self.path).map_err(Error::io("write", &self.path))
    }
    fn finish(&mut self) -> Result<()> {
        self.flush()
    }
}

/// Renders rows.
struct Lines {
    format: SinkFormat,
    json: JsonRows,
    types: Vec<DataType>,
}
impl Lines {
    fn new(spec: &SinkSpec) -> Self {
        Lines { format: spec.format, json: JsonRows::new(&spec.schema), types: spec.schema.types() }
    }
    fn header(&self, spec: &SinkSpec, out: &mut Vec<u8>) {
        if self.format == (SinkFormat::Csv { header: true }) {
            write_csv_header(&spec.schema, out);
        }
    }
    fn write(&mut self, row: &[u8], out: &mut Vec<u8>) {
        match self.format {
            SinkFormat::Csv { .. } => write_csv_row(&self.types, row, out),
            SinkFormat::Raw => write_raw(row, out),
            SinkFormat::Json | SinkFormat::ChangelogJson | SinkFormat::UpsertJson => {
                self.json.write(row, out);
                out.push(b'\n');
            }
        }
    }
}
