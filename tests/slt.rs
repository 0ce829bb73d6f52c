//! The SQL suite: every `.slt` file under `tests/slt`, run in three ways that must give the same answers.
//!
//! | mode | dynamic tables are |
//! |---|---|
//! | `batch` | evaluated by the batch engine over the final tables |
//! | `stream` | kept up to date, one tick per statement |
//! | `chopped` | kept up to date while every write comes in random ticks, rows retracted and put back |
//!
//! Expected answers come from outside both engines (`tests/oracle.py`, or a calculation in a comment of the file). A file may
//! say `# modes: batch stream`. The seed of `chopped` is printed with a failure; `SLT_SEED` sets it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use deltaworks_engine::{ClockMode, Datum, Engine, EngineError, Evaluation, Options, ResultSet, write_plain};
use libtest_mimic::{Arguments, Failed, Trial};
use sqllogictest::{DBOutput, DefaultColumnType};

/// Planning in an unoptimised build needs a large stack.
const STACK_BYTES: usize = 64 << 20;

struct Database {
    engine: Engine,
    results: Arc<Mutex<Vec<ResultSet>>>,
}

#[derive(Debug)]
struct Error(EngineError);
impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        if self.0.help.is_empty() { Ok(()) } else { write!(f, " help: {}", self.0.help) }
    }
}
impl std::error::Error for Error {}

impl Database {
    fn new(evaluation: Evaluation, workers: usize) -> Result<Self, Error> {
        let options = Options {
            evaluation,
            workers,
            interactive: true,
            clock: Some(ClockMode::Fixed(1_780_704_000_000_000)),
            ..Options::default()
        };
        let results: Arc<Mutex<Vec<ResultSet>>> = Arc::default();
        let sink = Arc::clone(&results);
        let take = Box::new(move |result: &ResultSet| {
            sink.lock().unwrap().push(result.clone());
            Ok(())
        });
        let engine = Engine::new(options, take, Box::new(|_| {}), Arc::new(AtomicBool::new(false))).map_err(Error)?;
        Ok(Database { engine, results })
    }
}

impl sqllogictest::DB for Database {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        self.results.lock().unwrap().clear();
        self.engine.run_statements(sql, "script").map_err(Error)?;
        let mut results = std::mem::take(&mut *self.results.lock().unwrap());
        let Some(result) = results.pop() else { return Ok(DBOutput::StatementComplete(0)) };
        let rows = result.rows.iter().map(|row| cells(&result, row)).collect();
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; result.schema.len()], rows })
    }
    fn engine_name(&self) -> &str {
        "deltaworks"
    }
}

fn cells(result: &ResultSet, mut row: &[u8]) -> Vec<String> {
    let cell = |data_type| match Datum::decode(&mut row, &data_type) {
        Datum::Null => "NULL".to_string(),
        datum => {
            let mut text = Vec::new();
            write_plain(&datum, &data_type, &mut text);
            if text.is_empty() { "(empty)".to_string() } else { String::from_utf8_lossy(&text).into_owned() }
        }
    };
    result.schema.types().into_iter().map(cell).collect()
}

/// Cells are separated by tabs and compared to the letter.
fn same_cells(_: sqllogictest::Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    actual.iter().map(|row| row.join("\t")).eq(expected.iter().cloned())
}

fn run(file: &Path, evaluation: Evaluation) -> Result<(), Failed> {
    let file = file.to_path_buf();
    let workers = if matches!(evaluation, Evaluation::Chopped(_)) { 2 } else { 1 };
    let job = move || {
        let make = move || std::future::ready(Database::new(evaluation, workers));
        let mut runner = sqllogictest::Runner::new(make);
        runner.with_validator(same_cells);
        runner.run_file(&file).map_err(|e| format!("{evaluation:?}: {}", e.display(false)))
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(job).map_err(|e| e.to_string())?;
    match thread.join() {
        Ok(outcome) => outcome.map_err(Failed::from),
        Err(panic) => Err(Failed::from(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "panicked".into()))),
    }
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            into.push(path);
        }
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut all = Vec::new();
    files(&root, &mut all);
    let seed = std::env::var("SLT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let modes = [("batch", Evaluation::Batch), ("stream", Evaluation::Stream), ("chopped", Evaluation::Chopped(seed))];
    let mut trials = Vec::new();
    for file in all {
        let text = std::fs::read_to_string(&file).unwrap();
        let named = text.lines().find_map(|line| line.strip_prefix("# modes:"));
        for (mode, evaluation) in modes {
            if named.is_some_and(|named| !named.split_whitespace().any(|word| word == mode)) {
                continue;
            }
            let short = file.strip_prefix(&root).unwrap().with_extension("");
            let (name, file) = (format!("{mode}::{}", short.display()), file.clone());
            trials.push(Trial::test(name, move || run(&file, evaluation)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}
