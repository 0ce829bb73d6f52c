//! The engine: runs the statements of a script in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::catalog::view::ViewTable;
use deltaworks_connectors::decode::DeadLetter;
use deltaworks_connectors::format::text::{OutputFormat, ResultSet, ResultWriter};
use deltaworks_connectors::options::Options as ConnectorOptions;
use deltaworks_connectors::sink::{SinkFormat, SinkSpec, SinkTarget};
use deltaworks_dataflow::Time;
use deltaworks_dataflow::host::{Host, InputBatch, InputId};
use deltaworks_operators::merge::Engine as MergeEngine;
use deltaworks_sql::expr::ScalarExpr;
use deltaworks_sql::lower::JoinStrategy;
use deltaworks_sql::lower::unique::unique_columns;
use deltaworks_sql::parser::{
    CreateDynamicTable, CreateTable, CreateView, DropObject, Insert, Name, ObjectKind, Spanned, Statement, parse_script,
    substitute, table_names,
};
use deltaworks_sql::plan::{Node, Plan};
use deltaworks_sql::render::check_lookups;
use deltaworks_sql::session::Session;

use crate::catalog::{self, Catalog, Entry, Kind, Table, View};
use crate::clock::Clock;
use crate::create;
use crate::error::EngineError;
use crate::install::{self, OpenSink, SharedSink};
use crate::options::{ClockMode, Evaluation, Options};
use crate::query::{short, take_stamp};
use crate::snapshot::SnapshotTable;
use crate::ticks::{self, Sources};
use crate::write::name_apart;

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
    pub(crate) sinks: BTreeMap<String, SharedSink>,
    pub(crate) join_strategy: JoinStrategy,
    timezone: chrono_tz::Tz,
    results: Results,
    messages: Messages,
    stop: Arc<AtomicBool>,
    next_input: u32,
    statements: u32,
    dataflows: u32,
    /// The clock inputs of the installed dataflows.
    clocks: Vec<InputId>,
    /// The names that statements still to come read, by object name.
    read_later: BTreeSet<String>,
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
        Ok(Engine {
            session,
            catalog: Catalog::new(),
            host: Host::start(options.workers.max(1))?,
            clock: Clock::new(clock),
            sources: Sources::default(),
            sinks: BTreeMap::new(),
            join_strategy: JoinStrategy::Auto,
            timezone,
            results,
            messages,
            stop,
            next_input: 1,
            statements: 0,
            dataflows: 0,
            clocks: Vec::new(),
            read_later: BTreeSet::new(),
            random: if let Evaluation::Chopped(seed) = options.evaluation { seed } else { 0 },
            options,
        })
    }
    /// Says something that is no result.
    pub(crate) fn say(&mut self, text: &str) {
        (self.messages)(text);
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
            self.execute(statement).map_err(|e| e.in_statement(file, (statement.line, statement.column)))?;
        }
        self.read_later.clear();
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
                self.say(&format!("dynamic table {}:", create.name));
                let plan = self.explain(statement, false)?;
                self.print(&plan)?;
                self.execute(statement)
            }
            Statement::Insert(insert) if self.is_continuous(&insert.table) && !insert.is_values() => {
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
            | Statement::Set { .. } => self.execute(statement),
            _ => Ok(()),
        }
    }

    fn execute(&mut self, statement: &Spanned<Statement>) -> Result<()> {
        match &statement.node {
            Statement::CreateSchema { name, if_not_exists } => self.create_schema(name, *if_not_exists),
            Statement::UseSchema(name) => self.use_schema(name),
            Statement::CreateTable(create) => self.create_table(create, statement),
            Statement::CreateView(create) => self.create_view(create, statement),
            Statement::CreateDynamicTable(create) => self.create_dynamic_table(create, statement),
            Statement::CreateFunction(create) => Ok(self.session.create_function(create)?),
            Statement::Drop(object) => self.drop_object(object),
            Statement::Insert(insert) if self.is_continuous(&insert.table) && !insert.is_values() => {
                self.insert_continuously(insert)
            }
            Statement::Insert(insert) => {
                let count = self.insert_once(insert)?;
                self.report(count, &format!("inserted into {}", insert.table));
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
            other => Err(not_supported(other)),
        }
    }
    fn report(&mut self, count: usize, what: &str) {
        let rows = if count == 1 { "row" } else { "rows" };
        self.say(&format!("{count} {rows} {what}"));
    }
    pub(crate) fn print(&mut self, result: &ResultSet) -> Result<()> {
        (self.results)(result)
    }

    fn create_schema(&mut self, name: &Name, if_not_exists: bool) -> Result<()> {
        if !self.catalog.schemas.insert(name.object().to_string()) && !if_not_exists {
            return Err(EngineError::new(
                format!("schema \"{}\" exists already", name.object()),
                "leave the statement out or write CREATE SCHEMA IF NOT EXISTS",
            ));
        }
        Ok(self.session.create_schema(name.object())?)
    }
    fn use_schema(&mut self, name: &Name) -> Result<()> {
        if !self.catalog.schemas.contains(name.object()) {
            return Err(EngineError::new(
                format!("schema \"{}\" does not exist", name.object()),
                format!("create it first: CREATE SCHEMA {}", name.object()),
            ));
        }
        self.catalog.current = name.object().to_string();
        Ok(self.session.use_schema(name.object())?)
    }
    /// The qualified name for a new entry; None where it exists and may.
    fn new_name(&mut self, name: &Name, if_not_exists: bool, or_replace: bool) -> Result<Option<String>> {
        let qualified = self.catalog.qualify(name);
        let schema = qualified.split('.').next().unwrap_or_default().to_string();
        if !self.catalog.schemas.contains(&schema) {
            return Err(EngineError::new(
                format!("schema \"{schema}\" does not exist"),
                format!("create it first: CREATE SCHEMA {schema}"),
            ));
        }
        let Some(entry) = self.catalog.get(&qualified) else { return Ok(Some(qualified)) };
        if if_not_exists {
            return Ok(None);
        }
        let noun = entry.noun();
        if or_replace {
            return Ok(Some(qualified));
        }
        Err(EngineError::new(
            format!("{noun} \"{}\" exists already", name.object()),
            "drop it first, or give this one another name",
        ))
    }
    /// Makes room for a definition that was planned and replaces this one.
    fn replace(&mut self, name: &str, reads: &BTreeSet<String>) -> Result<()> {
        if self.catalog.get(name).is_none() {
            return Ok(());
        }
        if self.catalog.closure(reads.iter().cloned()).contains(name) {
            return Err(EngineError::new(
                format!("\"{}\" would depend on itself", short(name)),
                "give the new one another name",
            ));
        }
        self.remove(name, false)
    }
    fn add(&mut self, name: &str, kind: Kind, statement: String) -> Result<()> {
        let mut entry = Entry { kind, statement, snapshot: None, dataflow: None, kept: None };
        if let (Some(schema), false) = (entry.schema(), matches!(entry.kind, Kind::Inlined(..))) {
            let snapshot = SnapshotTable::new(schema);
            let handle = Name::new(name.split('.'));
            self.session.register_table(&handle, snapshot.clone())?;
            let lookup = format!("{name}{}", deltaworks_sql::parser::LOOKUP_SUFFIX);
            let lookup = Name::new(lookup.split('.'));
            self.session.register_table(&lookup, snapshot.clone())?;
            entry.snapshot = Some(snapshot);
        }
        self.catalog.entries.insert(name.to_string(), entry);
        Ok(())
    }
    fn create_table(&mut self, create: &CreateTable, statement: &Spanned<Statement>) -> Result<()> {
        let Some(name) = self.new_name(&create.name, create.if_not_exists, false)? else { return Ok(()) };
        let table = create::table(&self.session, create, &mut self.next_input)?;
        self.add(&name, Kind::Table(Box::new(table)), statement.shown())?;
        self.add(&format!("{name}$errors"), Kind::Errors(DeadLetter::schema()), statement.shown())
    }
    fn create_view(&mut self, create: &CreateView, statement: &Spanned<Statement>) -> Result<()> {
        let Some(name) = self.new_name(&create.name, create.if_not_exists, create.or_replace)? else { return Ok(()) };
        let mut query = create.body.query.clone();
        deltaworks_sql::parser::rewrite(&mut *query)?;
        let names = table_names(&Statement::Query(create.body.clone()));
        self.check_names(&names)?;
        let mut plan = self.session.logical_plan(&query)?;
        if !create.columns.is_empty() {
            plan = rename(plan, &create.columns)?;
        }
        let tables: BTreeSet<String> = names.iter().map(|n| self.catalog.qualify(n)).collect();
        let schema = deltaworks_dataflow::Schema::from_arrow(plan.schema().as_arrow());
        let schema = schema.map_err(|e| EngineError::new(e, "cast the column"))?;
        check_column_names(&schema)?;
        self.replace(&name, &tables)?;
        self.add(&name, Kind::Inlined(schema, tables), statement.shown())?;
        let handle = Name::new(name.split('.'));
        let view = ViewTable::new(plan, Some(statement.text.clone()));
        Ok(self.session.register_table(&handle, Arc::new(view))?)
    }
    fn create_dynamic_table(&mut self, create: &CreateDynamicTable, statement: &Spanned<Statement>) -> Result<()> {
        let Some(name) = self.new_name(&create.name, create.if_not_exists, create.or_replace)? else { return Ok(()) };
        let continuous = self.continuous(&create.body)?;
        check_lookups(&continuous.plan, &[])?;
        let mut schema = continuous.plan.schema.clone();
        let renamed: Vec<&String> = create.schema.columns.iter().map(|column| &column.name).collect();
        if !renamed.is_empty() && renamed.len() != schema.len() {
            return Err(EngineError::new(
                format!("the query has {} columns, the table names {}", schema.len(), renamed.len()),
                "name all columns or none",
            ));
        }
        for (column, new) in schema.columns.iter_mut().zip(renamed) {
            column.name.clone_from(new);
        }
        check_column_names(&schema)?;
        let smallest = unique_columns(&continuous.plan, &self.catalog).into_iter().min_by_key(BTreeSet::len);
        let key = smallest.unwrap_or_default().into_iter().filter(|c| Some(*c) != continuous.stamp).collect();
        let view = View {
            schema,
            key,
            append_only: false,
            stamp: continuous.stamp,
            logical: Arc::new(continuous.logical),
            plan: continuous.plan,
        };
        let mut reads = BTreeSet::new();
        Catalog::reads(&view.plan, &mut reads);
        self.replace(&name, &reads)?;
        self.add(&name, Kind::Dynamic(Box::new(view)), statement.shown())?;
        self.install_over_installed(&name, &reads)
    }
    /// A continuous statement over tables that run already sees their present rows at once, as inserts of one tick.
    fn install_over_installed(&mut self, name: &str, reads: &BTreeSet<String>) -> Result<()> {
        let closure = self.catalog.closure(reads.iter().cloned());
        if !closure.iter().any(|read| self.catalog.get(read).is_some_and(|entry| entry.dataflow.is_some())) {
            return Ok(());
        }
        self.ensure_installed(closure.into_iter().chain([name.to_string()]).collect())?;
        self.settle()
    }
    fn drop_object(&mut self, object: &DropObject) -> Result<()> {
        match object.kind {
            ObjectKind::Table | ObjectKind::View | ObjectKind::DynamicTable => {
                let qualified = self.catalog.qualify(&object.name);
                if self.catalog.get(&qualified).is_none() {
                    if object.if_exists {
                        return Ok(());
                    }
                    return self.check_names(std::slice::from_ref(&object.name));
                }
                self.remove(&qualified, object.cascade)
            }
            ObjectKind::Schema => self.drop_schema(object),
            _ => Err(EngineError::new("this DROP is not supported yet", "drop tables, views and schemas")),
        }
    }
    fn drop_schema(&mut self, object: &DropObject) -> Result<()> {
        let schema = object.name.object().to_string();
        if !self.catalog.schemas.contains(&schema) {
            if object.if_exists {
                return Ok(());
            }
            return Err(EngineError::new(format!("schema \"{schema}\" does not exist"), "write DROP SCHEMA IF EXISTS"));
        }
        let prefix = format!("{schema}.");
        let inside: Vec<String> = self.catalog.entries.keys().filter(|n| n.starts_with(&prefix)).cloned().collect();
        if !inside.is_empty() && !object.cascade {
            return Err(EngineError::new(
                format!("schema \"{schema}\" is not empty: it has {}", short(&inside[0])),
                "write DROP SCHEMA .. CASCADE",
            ));
        }
        for name in inside {
            if self.catalog.get(&name).is_some() {
                self.remove(&name, true)?;
            }
        }
        self.catalog.schemas.remove(&schema);
        Ok(())
    }
    /// Removes an entry and, with `cascade`, what reads it.
    fn remove(&mut self, name: &str, cascade: bool) -> Result<()> {
        let dependents = self.catalog.dependents(name);
        if let Some(dependent) = dependents.first() {
            if !cascade {
                let noun = self.catalog.get(name).map_or("table", Entry::noun);
                return Err(EngineError::new(
                    format!("{noun} \"{}\" is used by \"{}\"", short(name), short(dependent)),
                    format!("drop \"{}\" first, or write CASCADE", short(dependent)),
                ));
            }
            for dependent in dependents {
                if self.catalog.get(&dependent).is_some() {
                    self.remove(&dependent, true)?;
                }
            }
        }
        let inserts = std::mem::take(&mut self.catalog.inserts);
        let (removed, kept): (Vec<_>, Vec<_>) = inserts.into_iter().partition(|insert| insert.target == name);
        self.catalog.inserts = kept;
        let mut dataflows: BTreeSet<String> = removed.into_iter().filter_map(|insert| insert.dataflow).collect();
        for removed in [name.to_string(), format!("{name}$errors")] {
            let Some(entry) = self.catalog.entries.remove(&removed) else { continue };
            self.session.deregister_table(&Name::new(removed.split('.')))?;
            let lookup = format!("{removed}{}", deltaworks_sql::parser::LOOKUP_SUFFIX);
            self.session.deregister_table(&Name::new(lookup.split('.')))?;
            dataflows.extend(entry.dataflow);
        }
        self.sources.forget(name);
        if let Some(sink) = self.sinks.remove(name) {
            let mut open = install::lock(&sink);
            open.closed = true;
            open.writer.finish()?;
        }
        for dataflow in dataflows {
            let entries = self.catalog.entries.values().any(|entry| entry.dataflow.as_ref() == Some(&dataflow));
            let inserts = self.catalog.inserts.iter().any(|insert| insert.dataflow.as_ref() == Some(&dataflow));
            if !entries && !inserts {
                self.host.drop_dataflow(&dataflow);
            }
        }
        Ok(())
    }

    /// Whether INSERT .. SELECT into the table is continuous.
    fn is_continuous(&self, name: &Name) -> bool {
        let entry = self.catalog.get(&self.catalog.qualify(name));
        entry.and_then(|entry| entry.table()).is_some_and(|table| table.continuous)
    }
    fn statement_set(&mut self, statements: &[Spanned<Statement>]) -> Result<()> {
        for statement in statements {
            let at = |error: EngineError| error.in_column(statement.line, statement.column);
            match &statement.node {
                Statement::Insert(insert) => self.insert_continuously(insert).map_err(at)?,
                other => return Err(at(not_supported(other))),
            }
        }
        Ok(())
    }
    fn insert_continuously(&mut self, insert: &Insert) -> Result<()> {
        self.check_names(std::slice::from_ref(&insert.table))?;
        let target = self.catalog.qualify(&insert.table);
        let Some(table) = self.catalog.get(&target).and_then(|entry| entry.table()).cloned() else {
            return Err(EngineError::new(
                format!("\"{}\" cannot be inserted into", insert.table.object()),
                "insert into a table",
            ));
        };
        let mut body = insert.body.clone();
        name_apart(&mut body.query);
        let mut continuous = self.continuous(&body)?;
        self.check_circle(&target, &continuous.plan)?;
        continuous.plan = into_table(continuous.plan, &table, &insert.columns, &self.session)?;
        let stamp = match continuous.stamp {
            Some(place) => stamp_place(&table, &insert.columns, place),
            None => take_stamp(&mut continuous.plan)?,
        };
        let lookups = deltaworks_sql::render::has_lookup(&continuous.plan);
        let sink = table.connector.is_some();
        if sink && lookups {
            return Err(EngineError::new(
                "the result of a lookup join cannot go to a sink directly",
                "insert it into a keyed table with a 'table.merge-engine', and that table into the sink",
            ));
        }
        check_lookups(&continuous.plan, &table.key)?;
        if lookups && matches!(table.merge.as_ref().map(|m| &m.engine), Some(MergeEngine::Aggregation(_))) {
            return Err(EngineError::new(
                "the result of a lookup join cannot be subtracted from an aggregation table",
                "insert it into a last_row table, and aggregate that in a dynamic table",
            ));
        }
        if sink {
            self.check_not_read(&target)?;
        }
        self.check_retractions(&insert.table, &table, &continuous.plan)?;
        let statement = self.next_statement();
        self.say(&format!("continuous insert into {}", insert.table));
        let plan = continuous.plan;
        let mut reads = BTreeSet::new();
        Catalog::reads(&plan, &mut reads);
        let name = target.clone();
        self.catalog.inserts.push(catalog::Insert { target, plan, stamp, statement, dataflow: None });
        self.install_over_installed(&name, &reads)
    }
    /// Whether what the query takes back can be taken back from the table.
    fn check_retractions(&self, name: &Name, table: &Table, plan: &Plan) -> Result<()> {
        let keeps = match table.merge.as_ref().map(|merge| &merge.engine) {
            Some(MergeEngine::Aggregation(columns)) => columns.iter().all(|column| column.aggregate.subtracts()),
            _ => !table.key.is_empty(),
        };
        if keeps || deltaworks_sql::lower::is_append_only(plan, &self.catalog) {
            return Ok(());
        }
        if table.key.is_empty() {
            return Err(EngineError::new(
                format!("table \"{}\" has no key, and the query may take rows back", name.object()),
                "declare a PRIMARY KEY, or insert from tables whose rows are only ever added",
            ));
        }
        Err(EngineError::new(
            format!("the query may take rows back, which an aggregate of table \"{}\" cannot follow", name.object()),
            "use sum, count or avg there, or a dynamic table with GROUP BY",
        ))
    }
    /// A connector table is read or written, not both.
    fn check_not_read(&self, target: &str) -> Result<()> {
        match self.catalog.dependents(target).first() {
            None => Ok(()),
            Some(reader) => Err(EngineError::new(
                format!("table \"{}\" cannot be written: \"{}\" reads it", short(target), short(reader)),
                "declare a second table on the same topic or file",
            )),
        }
    }
    /// A table that is fed by what is computed from it would never come to rest.
    fn check_circle(&self, target: &str, plan: &Plan) -> Result<()> {
        let mut reads = BTreeSet::new();
        Catalog::reads(plan, &mut reads);
        if !self.catalog.closure(reads).contains(target) {
            return Ok(());
        }
        Err(EngineError::new(
            format!("the query reads what is computed from \"{}\" itself: the insert would be a circle", short(target)),
            "insert into another table",
        ))
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
        self.catch_up(&BTreeSet::from([qualified]))
    }

    /// Installs what is pending of the names and of everything connected to them.
    pub(crate) fn ensure_installed(&mut self, names: BTreeSet<String>) -> Result<()> {
        let base = |name: &String| name.strip_suffix("$errors").unwrap_or(name).to_string();
        let mut wanted: BTreeSet<String> = names.iter().map(base).collect();
        if !wanted.iter().any(|name| self.is_pending(name)) && !self.pending_insert_into(&wanted) {
            return Ok(());
        }
        // Grow the set until nothing pending reads it or is read by it.
        loop {
            let before = wanted.len();
            let pending: Vec<String> = self.catalog.entries.keys().filter(|n| self.is_pending(n)).cloned().collect();
            for name in pending {
                let upstream: BTreeSet<String> = self.catalog.upstream(&name).iter().map(base).collect();
                if wanted.contains(&name) {
                    wanted.extend(upstream);
                } else if upstream.iter().any(|read| wanted.contains(read)) {
                    wanted.insert(name);
                }
            }
            for insert in self.catalog.inserts.iter().filter(|insert| insert.dataflow.is_none()) {
                let mut reads = BTreeSet::new();
                Catalog::reads(&insert.plan, &mut reads);
                let reads: BTreeSet<String> = reads.iter().map(base).collect();
                if wanted.contains(&insert.target) || reads.iter().any(|read| wanted.contains(read)) {
                    wanted.insert(insert.target.clone());
                    wanted.extend(reads);
                }
            }
            if wanted.len() == before {
                break;
            }
        }
        self.install(wanted)
    }
    fn is_pending(&self, name: &str) -> bool {
        let Some(entry) = self.catalog.get(name) else { return false };
        let renderable = match &entry.kind {
            Kind::Table(_) => true,
            Kind::Dynamic(_) => self.options.evaluation != Evaluation::Batch,
            Kind::Inlined(..) | Kind::Errors(_) => false,
        };
        renderable && entry.dataflow.is_none() && !self.sinks.contains_key(name)
    }
    fn pending_insert_into(&self, names: &BTreeSet<String>) -> bool {
        self.catalog.inserts.iter().any(|insert| insert.dataflow.is_none() && names.contains(&insert.target))
    }
    fn install(&mut self, wanted: BTreeSet<String>) -> Result<()> {
        let inserts: Vec<usize> = (0..self.catalog.inserts.len())
            .filter(|i| {
                let insert = &self.catalog.inserts[*i];
                insert.dataflow.is_none() && wanted.contains(&insert.target)
            })
            .collect();
        for index in &inserts {
            let target = self.catalog.inserts[*index].target.clone();
            self.open_sink(&target)?;
        }
        let names: BTreeSet<String> = wanted.into_iter().filter(|name| self.is_pending(name)).collect();
        let later = self.later();
        let interactive = self.options.interactive;
        let batch = self.options.evaluation == Evaluation::Batch;
        self.dataflows += 1;
        let clock_input = self.next_input;
        self.next_input += 1;
        self.clocks.push(clock_input);
        let request = install::Request {
            names,
            inserts,
            read_later: &|name| interactive || batch || later.contains(name),
            sinks: &self.sinks,
            dataflow: format!("dataflow {}", self.dataflows),
            clock_input,
            timezone: self.timezone,
        };
        install::install(&mut self.catalog, &self.host, &request)
    }
    /// The qualified names that statements still to come read, through inlined views.
    fn later(&self) -> BTreeSet<String> {
        let mut later = BTreeSet::new();
        let matches = |name: &&String| {
            let object = name.split_once('.').map_or(name.as_str(), |(_, object)| object);
            self.read_later.contains(object)
        };
        let mut open: Vec<String> = self.catalog.entries.keys().filter(matches).cloned().collect();
        while let Some(name) = open.pop() {
            if !later.insert(name.clone()) {
                continue;
            }
            if let Some(Kind::Inlined(_, tables)) = self.catalog.get(&name).map(|entry| &entry.kind) {
                open.extend(tables.iter().cloned());
            }
        }
        later
    }
    /// Opens the sink behind a connector table, once.
    fn open_sink(&mut self, name: &str) -> Result<()> {
        let Some(table) = self.catalog.get(name).and_then(|entry| entry.table()) else { return Ok(()) };
        let Some(connector) = &table.connector else { return Ok(()) };
        if self.sinks.contains_key(name) {
            return Ok(());
        }
        if self.sources.is_started(name) {
            return Err(EngineError::new(
                format!("table \"{}\" is both read and written", short(name)),
                "declare a second table on the same topic or file",
            ));
        }
        let spec = self.sink_spec(name, table, connector)?;
        let sink = OpenSink::new(name, &table.key, spec.open()?);
        self.sinks.insert(name.to_string(), sink);
        Ok(())
    }
    /// A Kafka sink is a file of its changes while a recording is replayed.
    fn sink_spec(&self, name: &str, table: &Table, connector: &ConnectorOptions) -> Result<SinkSpec> {
        let kafka = matches!(connector.connector(), Some("kafka" | "upsert-kafka"));
        if !kafka {
            return Ok(SinkSpec::from_options(connector, &table.schema, &table.key)?);
        }
        if self.options.replay.is_none() {
            return Err(EngineError::new(
                format!("table \"{}\" writes a Kafka topic, and writing to a broker is not supported yet", short(name)),
                "run with --replay DIR to write the changes to --out DIR",
            ));
        }
        let upsert = connector.connector() == Some("upsert-kafka");
        let format = if upsert { SinkFormat::UpsertJson } else { SinkFormat::ChangelogJson };
        let path = self.options.out.join(format!("{}.jsonl", connector.require("topic")?));
        Ok(SinkSpec::new(SinkTarget::File(path), format, &table.schema, &table.key)?)
    }

    /// Makes the named tables and views reflect everything that bounded sources behind them hold.
    pub(crate) fn catch_up(&mut self, names: &BTreeSet<String>) -> Result<()> {
        let closure = self.catalog.closure(names.iter().cloned());
        let sources = closure.iter().any(|name| self.is_source(name));
        if sources && closure.iter().any(|name| self.is_source(name) && !self.sources.is_started(name)) {
            self.install_all()?;
            self.start_sources()?;
        }
        self.ensure_installed(closure)?;
        if sources {
            self.drain()?;
        }
        self.settle()
    }
    /// Whether a table reads from a connector: it has one and nothing is inserted into it.
    fn is_source(&self, name: &str) -> bool {
        let Some(table) = self.catalog.get(name).and_then(|entry| entry.table()) else { return false };
        table.connector.is_some() && !self.catalog.inserts.iter().any(|insert| insert.target == name)
    }
    fn install_all(&mut self) -> Result<()> {
        let pending: BTreeSet<String> = self.catalog.entries.keys().filter(|n| self.is_pending(n)).cloned().collect();
        let targets = self.catalog.inserts.iter().filter(|insert| insert.dataflow.is_none());
        let all: BTreeSet<String> = targets.map(|insert| insert.target.clone()).chain(pending).collect();
        if all.is_empty() { Ok(()) } else { self.install(all) }
    }
    /// Starts the sources of all tables that something reads, together.
    fn start_sources(&mut self) -> Result<()> {
        let mut read = BTreeSet::new();
        for (name, entry) in &self.catalog.entries {
            if !matches!(entry.kind, Kind::Errors(_)) {
                read.extend(self.catalog.upstream(name));
            }
        }
        read.extend(self.later());
        let wanted: Vec<(String, &Entry)> = self
            .catalog
            .entries
            .iter()
            .filter(|(name, _)| self.is_source(name) && !self.sources.is_started(name))
            .filter(|(name, _)| read.contains(*name) || read.contains(&format!("{name}$errors")))
            .map(|(name, entry)| (name.clone(), entry))
            .collect();
        self.sources.start(&self.options, &wanted)
    }
    /// Reads the started sources to their end.
    fn drain(&mut self) -> Result<()> {
        while !self.sources.ended() && !self.stopped() {
            let batches = self.sources.read(&self.options, &mut self.clock, self.host.workers())?;
            self.send_tick(batches)?;
        }
        Ok(())
    }
    /// Starts a tick with these batches.
    pub(crate) fn send_tick(&mut self, batches: Vec<(InputId, InputBatch)>) -> Result<Time> {
        let now = self.clock.now();
        let clocks: Vec<(InputId, i64)> = self.clocks.iter().map(|id| (*id, now)).collect();
        let tick = ticks::send(&mut self.host, batches, &clocks)?;
        self.check_sinks()?;
        Ok(tick)
    }
    /// Waits until everything that was sent is complete. A dataflow installed since the last tick gets one.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let tick = self.send_tick(Vec::new())?;
        self.host.wait_complete(tick)?;
        self.check_sinks()
    }
    fn check_sinks(&self) -> Result<()> {
        for sink in self.sinks.values() {
            if let Some(failure) = &install::lock(sink).failure {
                return Err(failure.clone());
            }
        }
        Ok(())
    }
    /// Installs everything, reads all sources to their end and closes the sinks.
    fn finish(&mut self) -> Result<()> {
        self.install_all()?;
        self.start_sources()?;
        self.drain()?;
        self.settle()?;
        let sinks: Vec<SharedSink> = self.sinks.values().cloned().collect();
        for sink in sinks {
            let mut open = install::lock(&sink);
            open.writer.finish()?;
            let line = format!("{} changes written to {}", open.entries, short(&open.table));
            let conflicts = open.conflicts;
            let table = short(&open.table).to_string();
            drop(open);
            self.say(&line);
            if conflicts > 0 {
                self.say(&format!(
                    "warning: {conflicts} rows of {table} shared their key with another row and were left out"
                ));
            }
        }
        self.report_sources();
        Ok(())
    }
    fn report_sources(&mut self) {
        let progress = self.sources.progress.clone();
        if progress.records > 0 {
            self.say(&format!("{} records read in {} ticks", progress.records, self.host.next_tick() - 1));
        }
        for (table, letters) in &progress.dead {
            let table = short(table);
            let (records, are) = if *letters == 1 { ("record", "is") } else { ("records", "are") };
            self.say(&format!("warning: {letters} {records} of {table} could not be decoded and {are} in {table}$errors"));
        }
    }
}

/// The names that a statement reads, by object name: what must stay readable for it.
fn reads_of(statement: &Statement) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = table_names(statement).iter().map(|name| name.object().to_string()).collect();
    match statement {
        Statement::Truncate(name) => {
            names.insert(name.object().to_string());
        }
        Statement::StatementSet(statements) => names.extend(statements.iter().flat_map(|s| reads_of(&s.node))),
        _ => {}
    }
    names
}

/// The plan with columns as the target has them: in place or by the listed names, cast, missing ones NULL, computed ones
/// computed.
fn into_table(plan: Plan, table: &Table, listed: &[String], session: &Session) -> Result<Plan> {
    let given = plan.schema.len();
    let places = insert_columns(table, listed);
    if places.len() != given {
        return Err(EngineError::new(
            format!("INSERT has {given} columns for {} of the table", places.len()),
            create::columns_help(&table.schema),
        ));
    }
    let mut delivered = Vec::new();
    for place in &table.delivered {
        let column = &table.schema.columns[*place];
        delivered.push(match places.iter().position(|p| *p == Some(*place)) {
            Some(index) => {
                ScalarExpr::column(index, plan.schema.columns[index].data_type.clone()).cast_to(&column.data_type)
            }
            None => match table.defaults.get(place) {
                Some(default) => {
                    let default = session.expression(default, &Default::default())?;
                    create::refuse_clock(&default, &column.name)?;
                    default.cast_to(&column.data_type)
                }
                None => ScalarExpr::literal(deltaworks_dataflow::Datum::Null, column.data_type.clone()),
            },
        });
    }
    if let Some(place) = places.iter().position(Option::is_none) {
        return Err(EngineError::new(
            format!("column \"{}\" cannot be inserted into", listed.get(place).map_or("?", String::as_str)),
            create::columns_help(&table.schema),
        ));
    }
    let expressions: Vec<ScalarExpr> = match &table.computed {
        Some(computed) => computed.iter().map(|expression| expression.substitute(&delivered)).collect(),
        None => delivered,
    };
    let identity = expressions.len() == given && expressions.iter().enumerate().all(|(i, e)| e.as_column() == Some(i));
    if identity {
        return Ok(Plan { schema: table.schema.clone(), ..plan });
    }
    Ok(Plan { node: Node::Project { input: Box::new(plan), expressions }, schema: table.schema.clone() })
}
/// Per given column its place in the table; None for a name that is no such column.
fn insert_columns(table: &Table, listed: &[String]) -> Vec<Option<usize>> {
    if listed.is_empty() {
        return table.delivered.iter().map(|place| Some(*place)).collect();
    }
    listed.iter().map(|name| table.schema.index_of(name).filter(|place| table.delivered.contains(place))).collect()
}
/// Where the stamp of the query's column `place` stands in the table.
fn stamp_place(table: &Table, listed: &[String], place: usize) -> Option<usize> {
    insert_columns(table, listed).get(place).copied().flatten()
}
fn rename(plan: datafusion::logical_expr::LogicalPlan, names: &[String]) -> Result<datafusion::logical_expr::LogicalPlan> {
    use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
    let columns = plan.schema().columns();
    if columns.len() != names.len() {
        return Err(EngineError::new(
            format!("the query has {} columns, the view names {}", columns.len(), names.len()),
            "name all columns or none",
        ));
    }
    let expressions = columns.into_iter().zip(names).map(|(column, name)| Expr::Column(column).alias(name));
    Ok(LogicalPlanBuilder::from(plan).project(expressions.collect::<Vec<_>>())?.build()?)
}
fn check_column_names(schema: &deltaworks_dataflow::Schema) -> Result<()> {
    for (place, column) in schema.columns.iter().enumerate() {
        if schema.columns[..place].iter().any(|other| other.name == column.name) {
            return Err(EngineError::new(
                format!("column \"{}\" is there twice", column.name),
                "give one of them another name with AS",
            ));
        }
    }
    Ok(())
}
fn not_supported(statement: &Statement) -> EngineError {
    let what = match statement {
        Statement::Merge(_) => "MERGE INTO",
        Statement::Repair { .. } => "REPAIR TABLE",
        Statement::CreatePipe(_) => "CREATE PIPE",
        Statement::CreateExternalFunction(_) => "CREATE EXTERNAL FUNCTION",
        Statement::CreateConnection { .. } => "CREATE API CONNECTION",
        _ => "this statement",
    };
    EngineError::new(format!("{what} is not supported yet"), "see the list of statements in the README")
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
