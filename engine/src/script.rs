//! The engine: runs the statements of a script in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deltaworks_connectors::format::text::{OutputFormat, ResultSet, ResultWriter};
use deltaworks_connectors::recorded::writer::Recording;
use deltaworks_dataflow::host::{Host, InputId};
use deltaworks_sql::lower::JoinStrategy;
use deltaworks_sql::parser::{Name, Spanned, Statement, identities, parse_script, substitute, table_names};
use deltaworks_sql::session::Session;

use crate::bench::{Figures, Measuring};
use crate::calls::Calls;
use crate::catalog::{self, Catalog, Kind};
use crate::clock::Clock;
use crate::error::EngineError;
use crate::options::{ClockMode, Evaluation, Options};
use crate::pace::{Pace, WallTimer};
use crate::sinks::OpenSink;
use crate::ticks::Sources;

type Result<T> = std::result::Result<T, EngineError>;

/// Takes result sets, in order.
pub type Results = Box<dyn FnMut(&ResultSet) -> std::result::Result<(), EngineError> + Send>;
/// Takes everything else that is said.
pub type Messages = Box<dyn FnMut(&str) + Send>;

/// Result sets printed to `out` in a format.
pub fn print_results(format: OutputFormat, out: impl Write + Send + 'static) -> Results {
    let mut writer = ResultWriter::new(format, out);
    Box::new(move |result| Ok(writer.write(result)?))
}

/// Runs scripts.
pub struct Engine {
    pub(crate) options: Options,
    pub(crate) session: Session,
    pub(crate) catalog: Catalog,
    pub(crate) host: Host,
    pub(crate) clock: Clock,
    pub(crate) sources: Sources,
    pub(crate) sinks: BTreeMap<String, OpenSink>,
    pub(crate) join_strategy: JoinStrategy,
    pub(crate) timezone: chrono_tz::Tz,
    results: Results,
    pub(crate) messages: Arc<Mutex<Messages>>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) next_input: u32,
    pub(crate) statements: u32,
    pub(crate) dataflows: u32,
    /// The clock inputs of the installed dataflows, by their names.
    pub(crate) clocks: BTreeMap<String, InputId>,
    /// What continuous queries ask of external functions.
    pub(crate) calls: Calls,
    /// Rows that COPY INTO rejected, by table.
    pub(crate) rejected: BTreeMap<String, u64>,
    /// Records at the end that are measured one by one.
    pub(crate) measuring: Measuring,
    pub(crate) figures: Figures,
    /// The names that statements still to come read, by object name.
    pub(crate) read_later: BTreeSet<String>,
    /// Those that are to be analysed: of a dynamic table what is behind it is read too.
    pub(crate) analyzed_later: BTreeSet<String>,
    random: u64,
}

impl Engine {
    /// An engine that gives result sets to `results` and says everything else to `messages`. It stops cleanly between two
    /// ticks once `stop` is set.
    ///
    /// # Errors
    /// An unknown time zone; threads that cannot be had.
    pub fn new(options: Options, results: Results, messages: Messages, stop: Arc<AtomicBool>) -> Result<Engine> {
        let timezone: chrono_tz::Tz = options.timezone.parse().map_err(|_| {
            EngineError::new(
                format!("there is no time zone \"{}\"", options.timezone),
                "name one as in Europe/Berlin or UTC",
            )
        })?;
        let clock = options.clock.unwrap_or(if options.replay.is_some() { ClockMode::Replay } else { ClockMode::System });
        let session = Session::new(timezone)?;
        session.create_schema(catalog::DEFAULT_SCHEMA)?;
        let pace = options.replay_speed.map(|speed| Pace::new(speed, Box::new(WallTimer::new(Arc::clone(&stop)))));
        let mut sources = Sources::new(pace, Arc::clone(&stop));
        if let Some(dir) = &options.record {
            sources.record(Recording::create(dir, false)?);
        }
        Ok(Engine {
            session,
            catalog: Catalog::new(),
            host: Host::start(options.workers.max(1))?,
            clock: Clock::new(clock),
            sources,
            sinks: BTreeMap::new(),
            join_strategy: JoinStrategy::Auto,
            timezone,
            results,
            messages: Arc::new(Mutex::new(messages)),
            stop,
            next_input: 1,
            statements: 0,
            dataflows: 0,
            clocks: BTreeMap::new(),
            calls: Calls::default(),
            rejected: BTreeMap::new(),
            measuring: Measuring::default(),
            figures: Figures::default(),
            read_later: BTreeSet::new(),
            analyzed_later: BTreeSet::new(),
            random: if let Evaluation::Chopped(seed) = options.evaluation { seed } else { 0 },
            options,
        })
    }
    /// Says something that is no result.
    pub(crate) fn say(&mut self, text: &str) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)(text);
    }
    /// Whether a clean stop was asked for.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    pub(crate) fn next_statement(&mut self) -> u32 {
        self.statements += 1;
        self.statements
    }
    /// A number that looks random, from the seed of a chopped evaluation (xorshift64*).
    pub(crate) fn random(&mut self) -> u64 {
        let mut state = self.random.max(1);
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random = state;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Runs a script and, at its end, everything that it defined: until all sources have ended and every sink is flushed.
    ///
    /// # Errors
    /// The first statement, source or sink that fails.
    pub fn run_script(&mut self, text: &str, file: &str) -> Result<()> {
        let outcome = self.run_statements(text, file).and_then(|()| self.finish());
        outcome.map_err(|error| error.in_file(file))
    }
    /// Runs the statements of a text, without waiting for the sources at its end.
    ///
    /// # Errors
    /// The first statement that fails.
    pub fn run_statements(&mut self, text: &str, file: &str) -> Result<()> {
        let statements = self.parse(text).map_err(|error| error.in_file(file))?;
        for (index, statement) in statements.iter().enumerate() {
            if self.stopped() {
                return Ok(());
            }
            self.read_later = statements[index..].iter().flat_map(|s| reads_of(&s.node)).collect();
            self.analyzed_later = statements[index..].iter().flat_map(|s| analyzed_by(&s.node)).collect();
            self.execute(statement).map_err(|e| e.in_statement(file, (statement.line, statement.column)))?;
        }
        self.read_later.clear();
        self.analyzed_later.clear();
        Ok(())
    }
    fn parse(&self, text: &str) -> Result<Vec<Spanned<Statement>>> {
        let text = substitute(text, &|name| self.options.set.get(name).cloned())?;
        Ok(parse_script(&text)?)
    }
    /// The plan of every continuous statement of a script, as one result set each. Nothing is run.
    ///
    /// # Errors
    /// The first statement that cannot be planned.
    pub fn explain_script(&mut self, text: &str, file: &str) -> Result<()> {
        let statements = self.parse(text).map_err(|error| error.in_file(file))?;
        for statement in &statements {
            self.explain_statement(statement).map_err(|e| e.in_statement(file, (statement.line, statement.column)))?;
        }
        Ok(())
    }
    fn explain_statement(&mut self, statement: &Spanned<Statement>) -> Result<()> {
        match &statement.node {
            Statement::CreateDynamicTable(create) => {
                self.make_identities(statement)?;
                self.say(&format!("dynamic table {}:", create.name));
                let plan = self.explain(statement, false)?;
                self.print(&plan)?;
                self.execute(statement)
            }
            Statement::Insert(insert) if self.is_continuous_insert(insert) => {
                self.make_identities(statement)?;
                self.say(&format!("insert into {}:", insert.table));
                let plan = self.explain(statement, false)?;
                self.print(&plan)
            }
            Statement::StatementSet(statements) => statements.iter().try_for_each(|s| self.explain_statement(s)),
            Statement::CreateSchema { .. }
            | Statement::UseSchema(_)
            | Statement::CreateTable(_)
            | Statement::CreateView(_)
            | Statement::CreateFunction(_)
            | Statement::CreateConnection { .. }
            | Statement::CreateExternalFunction(_)
            | Statement::CreatePipe(_)
            | Statement::Set { .. } => self.execute(statement),
            _ => Ok(()),
        }
    }

    fn execute(&mut self, statement: &Spanned<Statement>) -> Result<()> {
        self.make_identities(statement)?;
        match &statement.node {
            Statement::CreateSchema { name, if_not_exists } => self.create_schema(name, *if_not_exists),
            Statement::UseSchema(name) => self.use_schema(name),
            Statement::CreateTable(create) => self.create_table(create, statement),
            Statement::CreateView(create) => self.create_view(create, statement),
            Statement::CreateDynamicTable(create) => self.create_dynamic_table(create, statement),
            Statement::CreateFunction(create) => Ok(self.session.create_function(create)?),
            Statement::Drop(object) => self.drop_object(object),
            Statement::Insert(insert) if self.is_continuous_insert(insert) => self.insert_continuously(insert),
            Statement::Insert(insert) => {
                let count = self.insert_once(insert)?;
                let rows = rows(count);
                self.say(&format!("one-shot insert into {}: {rows}", insert.table));
                Ok(())
            }
            Statement::StatementSet(statements) => self.statement_set(statements),
            Statement::Update(update) => {
                let count = self.update(update)?;
                self.report(count, "updated");
                Ok(())
            }
            Statement::Delete(delete) => {
                let count = self.delete(delete)?;
                self.report(count, "deleted");
                Ok(())
            }
            Statement::Merge(merge) => {
                let done = self.merge_once(merge)?;
                let total = done.inserted + done.updated + done.deleted;
                let what = format!("merged: {} inserted, {} updated, {} deleted", done.inserted, done.updated, done.deleted);
                self.report(total, &what);
                Ok(())
            }
            Statement::Truncate(name) => {
                let count = self.truncate(name)?;
                self.report(count, &format!("deleted from {name}"));
                Ok(())
            }
            Statement::Query(body) => {
                let result = self.query(body)?;
                self.print(&result)
            }
            Statement::Explain { analyze, statement } => {
                let result = self.explain(statement, *analyze)?;
                self.print(&result)
            }
            Statement::Show(show) => {
                let result = self.show(show)?;
                self.print(&result)
            }
            Statement::Describe(name) => {
                let result = self.describe(name)?;
                self.print(&result)
            }
            Statement::Refresh(name) => self.refresh(name),
            Statement::Set { key, value } => self.set(key, value),
            Statement::Put { path, file } => self.put(path, file.as_deref()),
            Statement::CopyInto(copy) => {
                let (loaded, _) = self.copy_into(copy)?;
                self.report(loaded, &format!("copied into {}", copy.table));
                Ok(())
            }
            Statement::Repair { table, body } => {
                let (rows, letters) = self.repair(table, body)?;
                self.report(rows, &format!("of {table} repaired, {letters} dead letters removed"));
                Ok(())
            }
            Statement::CreatePipe(create) => self.create_pipe(create, statement),
            Statement::CreateConnection { name, if_not_exists, options } => {
                self.create_connection(name, *if_not_exists, options)
            }
            Statement::CreateExternalFunction(create) => self.create_external_function(create, statement),
        }
    }
    fn report(&mut self, count: usize, what: &str) {
        let rows = rows(count);
        self.say(&format!("{rows} {what}"));
    }
    pub(crate) fn print(&mut self, result: &ResultSet) -> Result<()> {
        (self.results)(result)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "join.strategy" => {
                self.join_strategy = match value.to_lowercase().as_str() {
                    "auto" => JoinStrategy::Auto,
                    "delta" => JoinStrategy::Delta,
                    "linear" => JoinStrategy::Linear,
                    _ => {
                        let message = format!("'join.strategy' cannot be '{value}'");
                        return Err(EngineError::new(message, "it is auto, delta or linear"));
                    }
                };
                Ok(())
            }
            _ => Err(EngineError::new(format!("there is no setting '{key}'"), "known is join.strategy")),
        }
    }
    fn refresh(&mut self, name: &Name) -> Result<()> {
        self.check_names(std::slice::from_ref(name))?;
        let qualified = self.catalog.qualify(name);
        if !matches!(self.catalog.entries[&qualified].kind, Kind::Dynamic(_)) {
            return Err(EngineError::new(
                format!("\"{}\" is no dynamic table", name.object()),
                "REFRESH takes a dynamic table; tables are always fresh",
            ));
        }
        self.refresh_all(&BTreeSet::from([qualified]))
    }
}

/// The names that a statement reads, by object name: what must stay readable for it.
fn reads_of(statement: &Statement) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = table_names(statement).iter().map(|name| name.object().to_string()).collect();
    names.extend(identities(statement).iter().map(|read| read.identity.links.object().to_string()));
    match statement {
        Statement::Truncate(name) => {
            names.insert(name.object().to_string());
        }
        Statement::Repair { table, .. } => {
            names.insert(format!("{}$errors", table.object()));
        }
        Statement::StatementSet(statements) => names.extend(statements.iter().flat_map(|s| reads_of(&s.node))),
        _ => {}
    }
    names
}

fn rows(count: usize) -> String {
    format!("{count} {}", if count == 1 { "row" } else { "rows" })
}
/// The names that a statement analyses.
fn analyzed_by(statement: &Statement) -> BTreeSet<String> {
    match statement {
        Statement::Explain { analyze: true, .. } => reads_of(statement),
        _ => BTreeSet::new(),
    }
}

/// Reads a script: a file, or the `job.sql` of a folder.
///
/// # Errors
/// Names the path that cannot be read.
pub fn read_job(path: &Path) -> Result<(String, String)> {
    let file = if path.is_dir() { path.join("job.sql") } else { path.to_path_buf() };
    let name = file.to_string_lossy().into_owned();
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok((text, name)),
        Err(error) => {
            Err(EngineError::new(format!("cannot read \"{name}\": {error}"), "name a .sql file, or a folder with a job.sql"))
        }
    }
}
