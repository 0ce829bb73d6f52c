//! PUT and COPY INTO: files into the user volume, and from there into a table.
//!
//! A row that does not fit the table goes to `<table>$errors` and is counted; the rest loads, as one tick.

use std::path::{Path, PathBuf};

use deltaworks_connectors::decode::{DeadLetter, Decoded, TableFormat, TopicFilter};
use deltaworks_connectors::file::FileSource;
use deltaworks_connectors::format::Format;
use deltaworks_connectors::options::Options as ConnectorOptions;
use deltaworks_connectors::record::Records;
use deltaworks_connectors::source::{ReadState, RecordSource};
use deltaworks_dataflow::row::nth_field;
use deltaworks_dataflow::{CommandKind, Datum, Row, Schema};
use deltaworks_sql::expr::{EvalErrors, Evaluator, ScalarExpr};
use deltaworks_sql::parser::{CopyFiles, CopyInto, CopySource, FileLocation};

use crate::catalog::Table;
use crate::error::EngineError;
use crate::query::short;
use crate::script::Engine;

type Result<T> = std::result::Result<T, EngineError>;

/// Records and bytes that are decoded at a time.
const CHUNK: (usize, usize) = (8192, 4 << 20);

impl Engine {
    /// PUT: copies a file into the user volume.
    pub(crate) fn put(&mut self, path: &str, file: Option<&str>) -> Result<()> {
        let from = Path::new(path);
        let name = file.map(PathBuf::from).or_else(|| from.file_name().map(PathBuf::from)).unwrap_or_default();
        let to = self.options.volume.join(name);
        let copied = to.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::copy(from, &to));
        let bytes = copied.map_err(|e| {
            EngineError::new(
                format!("cannot put \"{path}\" into the user volume as \"{}\": {e}", to.display()),
                "name a file that can be read; --volume DIR says where the user volume is",
            )
        })?;
        self.say(&format!("{bytes} bytes put into {}", to.display()));
        Ok(())
    }
    /// COPY INTO. Returns how many rows were loaded and how many rejected.
    pub(crate) fn copy_into(&mut self, copy: &CopyInto) -> Result<(usize, usize)> {
        let CopySource::Files(files) = &copy.source else {
            return Err(EngineError::new("COPY INTO from a query is not supported yet", "use INSERT INTO .. SELECT"));
        };
        let (qualified, table) = self.writable(&copy.table)?;
        let places = table.places(&copy.columns)?;
        let format = file_format(&table, &places, files)?;
        let paths = self.paths(files)?;
        self.check_files(files, &paths)?;
        let source = FileSource::from_files(paths, &format)?;
        let (rows, dead) = read_all(source, &format)?;
        let filled = self.filled(&table, &places)?;
        let missing = filled_at(&filled, self.instant()?, self.timezone);
        let upserts = rows.iter().map(|row| (CommandKind::Upsert, widen(row, &missing))).collect::<Vec<_>>();
        let (loaded, rejected) = (upserts.len(), dead.len());
        let seen_at = self.instant()?;
        let letters = dead.iter().map(|letter| (letter.to_row(seen_at), 1)).collect();
        self.write_with_letters(&qualified, &table, upserts, letters)?;
        if rejected > 0 {
            *self.rejected.entry(qualified.clone()).or_default() += rejected as u64;
            let first = &dead[0];
            let place = format!("{}:{}", first.source, first.position);
            let field = first.field.as_ref().map_or(String::new(), |field| format!(": column \"{field}\""));
            let name = short(&qualified);
            self.say(&format!(
                "warning: {rejected} rows of {name} were rejected and are in {name}$errors; the first is {place}{field}: {}",
                first.reason
            ));
        }
        Ok((loaded, rejected))
    }
    fn check_files(&self, files: &CopyFiles, paths: &[PathBuf]) -> Result<()> {
        let Some(missing) = paths.iter().find(|path| !path.is_file()) else { return Ok(()) };
        let help = match files.location {
            FileLocation::Directory(_) => "relative paths are relative to the working directory".to_string(),
            _ => format!(
                "put it there first: PUT 'path' TO USER VOLUME FILE '..'; the user volume is {}, see --volume",
                self.options.volume.display()
            ),
        };
        Err(EngineError::new(format!("there is no file \"{}\" to copy", missing.display()), help))
    }
    /// The folder that a COPY or a pipe reads.
    pub(crate) fn copy_folder(&self, files: &CopyFiles) -> Result<PathBuf> {
        let mut folder = match &files.location {
            FileLocation::UserVolume => self.options.volume.clone(),
            FileLocation::Volume(name) => self.options.volume.join(name.object()),
            FileLocation::Directory(path) => PathBuf::from(path),
        };
        if let Some(inside) = &files.subdirectory {
            folder.push(inside);
        }
        if files.pattern.is_some() {
            return Err(EngineError::new(
                "COPY INTO .. REGEXP is not supported yet",
                "list the files in FILES ('a.csv', ..)",
            ));
        }
        Ok(folder)
    }
    fn paths(&self, files: &CopyFiles) -> Result<Vec<PathBuf>> {
        let folder = self.copy_folder(files)?;
        if files.files.is_empty() {
            return Ok(deltaworks_connectors::file::expand(&folder.to_string_lossy())?);
        }
        Ok(files.files.iter().map(|file| folder.join(file)).collect())
    }
    /// Per delivered column, where its value comes from when the columns at `places` are loaded.
    pub(crate) fn filled(&self, table: &Table, places: &[usize]) -> Result<Vec<Filled>> {
        let source = |place: &usize| {
            let data_type = &table.schema.columns[*place].data_type;
            Ok(match (places.iter().position(|p| p == place), table.defaults.get(place)) {
                (Some(field), _) => Filled::Field(field),
                (None, Some(default)) => {
                    Filled::Default(self.session.expression(default, &Schema::default())?.cast_to(data_type))
                }
                (None, None) => Filled::Default(ScalarExpr::literal(Datum::Null, data_type.clone())),
            })
        };
        table.delivered.iter().map(source).collect()
    }
}

/// Where a delivered column of a loaded row comes from.
#[derive(Clone, Debug)]
pub(crate) enum Filled {
    /// A field of what is loaded.
    Field(usize),
    /// The column's default, which may read the clock.
    Default(ScalarExpr),
}
/// The same at an instant: the place of a field, or the encoded value that stands in for it.
pub(crate) fn filled_at(filled: &[Filled], now: i64, timezone: chrono_tz::Tz) -> Vec<std::result::Result<usize, Row>> {
    let at = |filled: &Filled| match filled {
        Filled::Field(field) => Ok(*field),
        Filled::Default(default) => {
            let default = at_instant(default, now, timezone);
            let mut field = Vec::new();
            Evaluator::new(vec![default], EvalErrors::new()).eval_row(&[], &mut field);
            Err(Row::from_bytes(&field))
        }
    };
    filled.iter().map(at).collect()
}
/// An expression with the clock read.
pub(crate) fn at_instant(expression: &ScalarExpr, now: i64, timezone: chrono_tz::Tz) -> ScalarExpr {
    expression.transform(&|part| match part {
        ScalarExpr::Clock(variable) => {
            let data_type = ScalarExpr::Clock(variable).data_type();
            ScalarExpr::literal(variable.at(now, 1, timezone), data_type)
        }
        other => other,
    })
}
pub(crate) fn file_format(table: &Table, places: &[usize], files: &CopyFiles) -> Result<TableFormat> {
    let schema = Schema::new(places.iter().map(|place| table.schema.columns[*place].clone()).collect());
    let key: Option<Vec<usize>> = table.key.iter().map(|column| places.iter().position(|p| p == column)).collect();
    let key = key.ok_or_else(|| {
        EngineError::new("the columns that are loaded leave out a part of the PRIMARY KEY", "list the key columns too")
    })?;
    let format = Format::from_name(files.format.as_deref().unwrap_or("csv"))?;
    let mut table_format = TableFormat::new(format, schema, key);
    table_format.options = ConnectorOptions::new(files.options.iter());
    table_format.options.check_format()?;
    Ok(table_format)
}
fn read_all(mut source: FileSource, format: &TableFormat) -> Result<(Vec<Row>, Vec<DeadLetter>)> {
    let topics = TopicFilter::all(source.topics());
    let mut decoder = format.decoder()?;
    let (mut rows, mut dead) = (Vec::new(), Vec::new());
    loop {
        let (mut records, mut decoded) = (Records::new(), Decoded::default());
        let state = source.read(CHUNK.0, CHUNK.1, &mut records)?;
        decoder.decode(&records, &topics, &mut decoded);
        rows.extend(decoded.commands.into_iter().map(|command| command.row));
        dead.extend(decoded.dead);
        if state == ReadState::End {
            return Ok((rows, dead));
        }
    }
}
/// The loaded row with every delivered column.
pub(crate) fn widen(row: &Row, sources: &[std::result::Result<usize, Row>]) -> Row {
    if sources.iter().enumerate().all(|(index, source)| source.as_ref().is_ok_and(|field| *field == index)) {
        return row.clone();
    }
    let mut bytes = Vec::with_capacity(row.len());
    for source in sources {
        match source {
            Ok(field) => bytes.extend_from_slice(nth_field(row, *field)),
            Err(value) => bytes.extend_from_slice(value),
        }
    }
    Row::from_bytes(&bytes)
}
