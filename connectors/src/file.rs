//! Files as a source: one file, a folder or a pattern, as JSON lines, CSV or Parquet.
//!
//! Files are read one after another, in the order of their names; each is a partition, its lines (or rows) are the offsets,
//! counted from 1, and its path is the name that dead letters carry. Files have no record timestamps. The source is bounded:
//! what is there when a file is opened is read. JSON lines and CSV may be compressed with zstd (`*.zst`). Empty lines are
//! no records.
//!
//! Parquet columns map by name, without regard to case; a column that the file lacks is NULL. A value that does not fit its
//! column rejects its row; a column whose type could lose something silently is refused at the start.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType as ArrowType;
use arrow::util::display::array_value_to_string;
use deltaworks_dataflow::batch::datum_at;
use deltaworks_dataflow::{DataType, Datum};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::decode::TableFormat;
use crate::error::{Error, Result};
use crate::format::csv::{Dialect, has_header};
use crate::format::json::Field;
use crate::format::{Format, parse, text};
use crate::lines::Lines;
use crate::record::{NO_TIMESTAMP, Record, Records};
use crate::source::{PartitionProgress, ReadState, RecordSource};

/// Reads files.
pub struct FileSource {
    /// The files' paths, as text.
    topics: Vec<String>,
    format: Format,
    dialect: Dialect,
    header: bool,
    columns: Vec<Field>,
    current: Option<Reader>,
    /// The file that is read or comes next.
    index: usize,
    /// Records taken and the last offset, per file.
    taken: Vec<(u64, u64)>,
}

enum Reader {
    Lines(Lines),
    Csv(Lines),
    Parquet(Box<ParquetRows>),
}

impl FileSource {
    /// Opens what a path names: a file, a folder, or a pattern with `*` and `?` in its last part.
    ///
    /// # Errors
    /// Nothing is there; options with impossible values. That a file cannot be read shows when its turn comes.
    pub fn open(path: &str, table: &TableFormat) -> Result<FileSource> {
        FileSource::from_files(expand(path)?, table)
    }
    /// Reads the given files, in this order.
    ///
    /// # Errors
    /// A file that is not there; options with impossible values.
    pub fn from_files(paths: Vec<PathBuf>, table: &TableFormat) -> Result<FileSource> {
        if let Some(path) = paths.iter().find(|path| !path.is_file()) {
            return Err(Error::MissingFile { path: path.clone() });
        }
        let topics: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        Ok(FileSource {
            format: table.format,
            dialect: Dialect::from_options(&table.options)?,
            header: has_header(&table.options)?,
            columns: table.physical(),
            current: None,
            index: 0,
            taken: vec![(0, 0); topics.len()],
            topics,
        })
    }
    /// Adds a file behind those that are there. It may be gone when its turn comes.
    pub(crate) fn push(&mut self, path: PathBuf) {
        self.topics.push(path.to_string_lossy().into_owned());
        self.taken.push((0, 0));
    }
    /// Gives the file whose turn it is up: a broken record says why.
    pub(crate) fn skip(&mut self, reason: &str, into: &mut Records) {
        let (number, offset) = (self.index as u32, self.taken[self.index].1);
        let place = Record { topic: number, partition: number, offset, timestamp: NO_TIMESTAMP, ..Record::default() };
        into.push(Record { broken: Some(reason), ..place });
        self.current = None;
        self.index += 1;
    }
    fn open_next(&mut self) -> Result<bool> {
        let Some(path) = self.topics.get(self.index).map(PathBuf::from) else { return Ok(false) };
        self.current = Some(match self.format {
            Format::Packed => Reader::Parquet(Box::new(ParquetRows::open(&path, &self.columns)?)),
            Format::Csv => {
                let mut lines = Lines::open(&path)?;
                if self.header {
                    next_csv(&mut lines, self.dialect)?;
                }
                Reader::Csv(lines)
            }
            _ => Reader::Lines(Lines::open(&path)?),
        });
        Ok(true)
    }
    /// Moves one record to `into`; false at the end of the file.
    fn take(&mut self, into: &mut Records) -> Result<bool> {
        let number = self.index as u32;
        let place =
            |offset: u64| Record { topic: number, partition: number, offset, timestamp: NO_TIMESTAMP, ..Record::default() };
        let offset = match &mut self.current {
            None => return Ok(false),
            Some(Reader::Parquet(rows)) => {
                let Some(offset) = rows.push_next(place, into)? else { return Ok(false) };
                offset
            }
            Some(Reader::Csv(lines)) => {
                let Some(start) = next_csv(lines, self.dialect)? else { return Ok(false) };
                into.push(Record { value: Some(lines.line()), ..place(start) });
                start
            }
            Some(Reader::Lines(lines)) => {
                let Some(start) = next_filled(lines)? else { return Ok(false) };
                into.push(Record { value: Some(lines.line()), ..place(start) });
                start
            }
        };
        let taken = &mut self.taken[self.index];
        *taken = (taken.0 + 1, offset);
        Ok(true)
    }
}

impl RecordSource for FileSource {
    fn topics(&self) -> &[String] {
        &self.topics
    }
    fn read(&mut self, max_records: usize, max_bytes: usize, into: &mut Records) -> Result<ReadState> {
        let mut left = max_records;
        while left > 0 && into.bytes() < max_bytes {
            if self.current.is_none() && !self.open_next()? {
                return Ok(ReadState::End);
            }
            if self.take(into)? {
                left -= 1;
            } else {
                self.current = None;
                self.index += 1;
            }
        }
        Ok(if self.index == self.topics.len() { ReadState::End } else { ReadState::More })
    }
    fn progress(&self) -> Vec<PartitionProgress> {
        let progress = |(number, (records, last)): (usize, &(u64, u64))| PartitionProgress {
            topic: number as u32,
            partition: number as u32,
            records: *records,
            next_offset: last + 1,
            ended: number < self.index,
            lag: None,
        };
        self.taken.iter().enumerate().map(progress).collect()
    }
}

/// Reads the next line that is not empty; returns its number.
fn next_filled(lines: &mut Lines) -> Result<Option<u64>> {
    while let Some(line) = lines.next()? {
        if !line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Some(lines.count()));
        }
    }
    Ok(None)
}
/// Reads the next record of CSV, which goes on over line breaks in quotes; returns the number of its first line.
fn next_csv(lines: &mut Lines, dialect: Dialect) -> Result<Option<u64>> {
    while let Some(line) = lines.next()? {
        if line.is_empty() {
            continue;
        }
        let mut open = dialect.is_open_after(line, false);
        let start = lines.count();
        while open {
            let joined = lines.line().len();
            if !lines.join_next()? {
                break;
            }
            open = dialect.is_open_after(&lines.line()[joined..], true);
        }
        return Ok(Some(start));
    }
    Ok(None)
}

/// The files that a path names, in order.
///
/// # Errors
/// There is none.
pub fn expand(path: &str) -> Result<Vec<PathBuf>> {
    let plain = path.strip_prefix("file://").unwrap_or(path);
    let missing = || Error::MissingFile { path: PathBuf::from(plain) };
    let whole = Path::new(plain);
    if whole.is_file() {
        return Ok(vec![whole.to_path_buf()]);
    }
    let (folder, pattern) = if whole.is_dir() {
        (whole, "*".to_owned())
    } else {
        let name = whole.file_name().ok_or_else(missing)?.to_string_lossy().into_owned();
        (whole.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")), name)
    };
    if !folder.is_dir() || !pattern.contains(['*', '?']) {
        return Err(missing());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_file() && fits(pattern.as_bytes(), name.as_bytes()) {
            files.push(entry.path());
        }
    }
    files.sort();
    if files.is_empty() { Err(missing()) } else { Ok(files) }
}
/// Whether a name fits a pattern, where `*` stands for any characters and `?` for one.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    // Goes back to the last star only: that is enough, and never exponential.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, n) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The rows of a Parquet file, packed.
struct ParquetRows {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    columns: Vec<Field>,
    /// Per column, its place in the batches.
    places: Vec<Option<usize>>,
    batch: Vec<FileColumn>,
    rows: usize,
    next: usize,
    count: u64,
    packed: Vec<u8>,
}
/// A column of a batch: as the file has it, and cast to the table's type where that is not done by text.
struct FileColumn {
    original: ArrayRef,
    cast: Option<ArrayRef>,
}

impl ParquetRows {
    fn open(path: &Path, columns: &[Field]) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let damaged =
            |error: parquet::errors::ParquetError| Error::Parquet { path: path.to_path_buf(), reason: error.to_string() };
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(damaged)?;
        let schema = builder.schema().clone();
        let find = |name: &str| {
            let exact = schema.fields().iter().position(|field| field.name() == name);
            exact.or_else(|| schema.fields().iter().position(|field| field.name().to_lowercase() == name.to_lowercase()))
        };
        let roots: Vec<Option<usize>> = columns.iter().map(|column| find(&column.name)).collect();
        for (column, root) in columns.iter().zip(&roots) {
            if let Some(root) = root {
                check_column(path, column, schema.field(*root).data_type())?;
            }
        }
        let mut kept: Vec<usize> = roots.iter().flatten().copied().collect();
        kept.sort_unstable();
        kept.dedup();
        let places = roots.iter().map(|root| root.and_then(|root| kept.binary_search(&root).ok())).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), kept);
        let reader = builder.with_projection(mask).with_batch_size(1024).build().map_err(damaged)?;
        let (batch, packed) = (Vec::new(), Vec::new());
        Ok(ParquetRows {
            path: path.to_path_buf(),
            reader,
            columns: columns.to_vec(),
            places,
            batch,
            rows: 0,
            next: 0,
            count: 0,
            packed,
        })
    }
    /// Adds the next row; returns its number, or None at the end.
    fn push_next<'a>(&mut self, place: impl Fn(u64) -> Record<'a>, into: &mut Records) -> Result<Option<u64>> {
        while self.next == self.rows {
            let Some(batch) = self.reader.next() else { return Ok(None) };
            let damaged =
                |error: arrow::error::ArrowError| Error::Parquet { path: self.path.clone(), reason: error.to_string() };
            self.load(&batch.map_err(damaged)?)?;
        }
        let row = self.next;
        self.next += 1;
        self.count += 1;
        let record = place(self.count);
        match self.pack(row) {
            Ok(()) => into.push(Record { value: Some(&self.packed), ..pass(record) }),
            Err(reason) => {
                let shown = self.show(row);
                into.push(Record { value: Some(&shown), broken: Some(&reason), ..pass(record) });
            }
        }
        Ok(Some(self.count))
    }
    fn load(&mut self, batch: &RecordBatch) -> Result<()> {
        (self.rows, self.next) = (batch.num_rows(), 0);
        self.batch.clear();
        for (column, place) in self.columns.iter().zip(&self.places) {
            let Some(place) = place else { continue };
            let damaged = |error: arrow::error::ArrowError| Error::Parquet {
                path: self.path.clone(),
                reason: format!("column \"{}\": {error}", column.name),
            };
            let mut original = batch.column(*place).clone();
            if let ArrowType::Dictionary(_, values) = original.data_type() {
                original = cast(&original, &values.clone()).map_err(damaged)?;
            }
            let by_text = is_text(original.data_type()) && column.data_type != DataType::String;
            let target = if by_text { ArrowType::Utf8 } else { column.data_type.to_arrow() };
            let cast_to = cast(&original, &target).map_err(damaged)?;
            self.batch.push(if by_text {
                FileColumn { original: cast_to, cast: None }
            } else {
                FileColumn { original, cast: Some(cast_to) }
            });
        }
        Ok(())
    }
    /// Packs a row; the error is the reason why it does not fit.
    fn pack(&mut self, row: usize) -> std::result::Result<(), String> {
        self.packed.clear();
        let mut batch = self.batch.iter();
        for (column, place) in self.columns.iter().zip(&self.places) {
            let datum = match place.and_then(|_| batch.next()) {
                None => Datum::Null,
                Some(file) => {
                    file.datum(row, &column.data_type).map_err(|reason| format!("column \"{}\": {reason}", column.name))?
                }
            };
            datum.encode(&mut self.packed);
        }
        Ok(())
    }
    /// The row as JSON text, for a dead letter.
    fn show(&self, row: usize) -> Vec<u8> {
        let mut shown = vec![b'{'];
        let present = self.columns.iter().zip(&self.places).filter(|(_, place)| place.is_some());
        for ((column, _), file) in present.zip(&self.batch) {
            if shown.len() > 1 {
                shown.push(b',');
            }
            text::write_json_string(&column.name, &mut shown);
            shown.push(b':');
            match file.original.is_null(row) {
                true => shown.extend_from_slice(b"null"),
                false => text::write_json_string(&file.text(row), &mut shown),
            }
        }
        shown.push(b'}');
        shown
    }
}
/// The same record at a shorter lifetime.
fn pass<'a>(record: Record<'_>) -> Record<'a> {
    let Record { topic, partition, offset, timestamp, .. } = record;
    Record { topic, partition, offset, timestamp, ..Record::default() }
}

impl FileColumn {
    fn text(&self, row: usize) -> String {
        array_value_to_string(&self.original, row).unwrap_or_default()
    }
    fn datum(&self, row: usize, data_type: &DataType) -> std::result::Result<Datum<'_>, String> {
        if self.original.is_null(row) {
            return Ok(Datum::Null);
        }
        match &self.cast {
            // A value that the cast turned into NULL did not fit.
            Some(cast) if cast.is_null(row) => Err(parse::Problem::Range.reason(data_type, &self.text(row))),
            Some(cast) => Ok(datum_at(cast, data_type, row)),
            None => {
                let text = self.original.as_string::<i32>().value(row);
                parse::scalar(text, data_type).map_err(|problem| problem.reason(data_type, text))
            }
        }
    }
}
fn is_text(arrow: &ArrowType) -> bool {
    matches!(arrow, ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View)
}
fn check_column(path: &Path, column: &Field, arrow: &ArrowType) -> Result<()> {
    if keeps_all(arrow, &column.data_type) {
        return Ok(());
    }
    let reason = format!("column \"{}\" is {arrow} in the file and {} in the table", column.name, column.data_type);
    Err(Error::Parquet { path: path.to_path_buf(), reason })
}
/// Whether values of the file's type become values of the table's type, or NULL where they do not fit.
fn keeps_all(arrow: &ArrowType, table: &DataType) -> bool {
    use DataType::{BigInt, Bytes, Date, Decimal, Double, Float, Int, SmallInt, String, Timestamp, TimestampLtz, TinyInt};
    if let ArrowType::Dictionary(_, values) = arrow {
        return keeps_all(values, table);
    }
    let bytes =
        matches!(arrow, ArrowType::Binary | ArrowType::LargeBinary | ArrowType::BinaryView | ArrowType::FixedSizeBinary(_));
    if bytes {
        return matches!(table, Bytes);
    }
    let Some(file) = DataType::from_arrow(arrow) else { return false };
    match file {
        String => !matches!(table, DataType::Array(_) | DataType::Struct(_) | DataType::Bitmap),
        TinyInt | SmallInt | Int | BigInt => {
            matches!(table, TinyInt | SmallInt | Int | BigInt | Decimal { .. } | Double | Float | String)
        }
        Float | Double => matches!(table, Float | Double),
        Decimal { .. } => matches!(table, Decimal { .. } | Double | Float),
        Date => matches!(table, Date | Timestamp),
        Timestamp | TimestampLtz => matches!(table, Timestamp | TimestampLtz),
        file => file.to_arrow() == table.to_arrow(),
    }
}

#[cfg(test)]
mod tests;
