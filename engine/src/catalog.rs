//! The catalog: tables, views and what is known about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaworks_connectors::decode::MetadataColumn;
use deltaworks_connectors::options::Options as ConnectorOptions;
use deltaworks_dataflow::{Diff, Schema};
use deltaworks_operators::letters::Letters;
use deltaworks_operators::merge::MergeSpec;
use deltaworks_operators::retention::Retention;
use deltaworks_sql::arrangement::{ArrangementKey, required};
use deltaworks_sql::error::SqlError;
use deltaworks_sql::explain::growing_table;
use deltaworks_sql::expr::ScalarExpr;
use deltaworks_sql::external::{CallSite, ResultsTable};
use deltaworks_sql::lower::{TableFacts, TableInfo};
use deltaworks_sql::parser::{ColumnName, Name};
use deltaworks_sql::plan::{Node, Plan};
use deltaworks_sql::render::{Kept, MergeSpecification};
use sqlparser::ast;

use crate::create::columns_help;
use crate::error::EngineError;
use crate::external::{Connection, ExternalFunction};
use crate::identity::{history_of, one_ids_of};
use crate::pipe::Pipe;
use crate::snapshot::SnapshotTable;

/// The schema of names without one.
pub(crate) const DEFAULT_SCHEMA: &str = "public";

/// A table.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) schema: Schema,
    /// The key columns, in key order.
    pub(crate) key: Vec<usize>,
    pub(crate) merge: Option<MergeSpec>,
    /// The column that numbers the keys, which are all other columns.
    pub(crate) number: Option<usize>,
    /// The columns that a source or statement delivers, as places among all columns.
    pub(crate) delivered: Vec<usize>,
    pub(crate) metadata: Vec<MetadataColumn>,
    /// Every column over the delivered ones, where some are computed.
    pub(crate) computed: Option<Vec<ScalarExpr>>,
    /// Defaults of delivered columns, by place among all columns.
    pub(crate) defaults: BTreeMap<usize, ast::Expr>,
    /// Types as they are declared, where that says more than the column's type, by place among all columns.
    pub(crate) declared: BTreeMap<usize, String>,
    /// The connector's options; None for a table that statements feed.
    pub(crate) connector: Option<ConnectorOptions>,
    /// Whether INSERT INTO it is continuous.
    pub(crate) continuous: bool,
    pub(crate) append_only: bool,
    /// Whether its rows are kept; a stream keeps none.
    pub(crate) retained: bool,
    /// How long they are kept; None: until they are deleted.
    pub(crate) retention: Option<Retention>,
    /// Whether a source that fails to decode a record stops the job.
    pub(crate) errors_fail: bool,
    /// How long its dead letters are kept, and what became of them.
    pub(crate) letters: Letters,
    pub(crate) input: u32,
    pub(crate) errors_input: u32,
}

impl Table {
    /// The schema of the rows that sources and statements deliver.
    pub(crate) fn delivered_schema(&self) -> Schema {
        Schema::new(self.delivered.iter().map(|c| self.schema.columns[*c].clone()).collect())
    }
    /// The columns that a statement may fill: neither computed, nor the metadata of a record.
    fn fillable(&self) -> Vec<usize> {
        let metadata = |place: &usize| self.metadata.iter().any(|m| self.delivered[m.column] == *place);
        self.delivered.iter().copied().filter(|place| !metadata(place)).collect()
    }
    /// The columns that a statement fills, in the order of its values: the listed ones, else all that may be filled.
    ///
    /// # Errors
    /// A name that is no such column, or is listed twice.
    pub(crate) fn places(&self, listed: &[ColumnName]) -> Result<Vec<usize>, EngineError> {
        let fillable = self.fillable();
        if listed.is_empty() {
            return Ok(fillable);
        }
        let help = || columns_help(&Schema::new(fillable.iter().map(|c| self.schema.columns[*c].clone()).collect()));
        let mut places = Vec::with_capacity(listed.len());
        for ColumnName { name, position } in listed {
            let error =
                |message: String, help: String| EngineError::new(message, help).in_column(position.line, position.column);
            if self.number.is_some_and(|number| self.schema.columns[number].name == *name) {
                return Err(error(
                    format!("column \"{name}\" is AUTO_INCREMENT: the table gives its numbers itself"),
                    help(),
                ));
            }
            let place = self.schema.index_of(name).filter(|place| fillable.contains(place));
            let place = place.ok_or_else(|| error(format!("column \"{name}\" cannot be inserted into"), help()))?;
            if places.contains(&place) {
                return Err(error(format!("column \"{name}\" is listed twice"), "list it once".into()));
            }
            places.push(place);
        }
        Ok(places)
    }
    /// The same for an INSERT that gives `given` values.
    ///
    /// # Errors
    /// As [`places`](Self::places), and another number of values.
    pub(crate) fn places_for(&self, listed: &[ColumnName], given: usize) -> Result<Vec<usize>, EngineError> {
        let places = self.places(listed)?;
        if places.len() != given {
            return Err(EngineError::new(
                format!("INSERT has {} for {}", counted(given, "value"), counted(places.len(), "column")),
                columns_help(&Schema::new(places.iter().map(|p| self.schema.columns[*p].clone()).collect())),
            ));
        }
        Ok(places)
    }
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A dynamic table.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) schema: Schema,
    pub(crate) plan: Plan,
    /// A set of columns that is unique; empty where none is known.
    pub(crate) key: Vec<usize>,
    /// Whether it has at most one row.
    pub(crate) single_row: bool,
    pub(crate) stamp: Option<usize>,
    /// What it asks of external functions.
    pub(crate) calls: Vec<CallSite>,
    /// The input of its dead letters, where it calls external functions.
    pub(crate) errors_input: Option<u32>,
    pub(crate) append_only: bool,
    /// The columns whose bitmaps travel in chunks.
    pub(crate) in_chunks: Vec<usize>,
    /// The query as the batch engine plans it, for tests that evaluate it so.
    pub(crate) logical: Arc<datafusion::logical_expr::LogicalPlan>,
}

/// What an entry is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Table(Box<Table>),
    Dynamic(Box<View>),
    /// A view that is inlined where it is used: its columns, and the tables it reads.
    Inlined(Schema, BTreeSet<String>),
    /// The dead letters of a table.
    Errors(Schema),
    /// How the one ids of an identity were replaced.
    History(Schema),
}

/// A named entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// The statement that made it, secrets masked.
    pub(crate) statement: String,
    /// Where that statement begins: line and column.
    pub(crate) position: (usize, usize),
    /// The batch engine's handle.
    pub(crate) snapshot: Option<Arc<SnapshotTable>>,
    /// The dataflow that computes it; None while it is pending.
    pub(crate) dataflow: Option<String>,
    /// Under which trace it is kept, and how; None where nothing reads it later.
    pub(crate) kept: Option<(String, Kept)>,
    /// What one-shot statements wrote as NULL because it could not be computed, by expression: how often, and samples.
    pub(crate) failures: BTreeMap<String, (Diff, Vec<String>)>,
    /// Of a view that is inlined: what keeps its query from being a continuous one, with its place.
    pub(crate) refused: Option<SqlError>,
}

impl Entry {
    pub(crate) fn schema(&self) -> Option<&Schema> {
        match &self.kind {
            Kind::Table(table) => Some(&table.schema),
            Kind::Dynamic(view) => Some(&view.schema),
            Kind::Errors(schema) | Kind::History(schema) => Some(schema),
            Kind::Inlined(schema, _) => Some(schema),
        }
    }
    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.kind {
            Kind::Table(table) => Some(table),
            _ => None,
        }
    }
    /// How its rows are kept for reading: by its key where it has one, else by the whole row.
    pub(crate) fn keeping(&self) -> Kept {
        let in_chunks = match &self.kind {
            Kind::Dynamic(view) => view.in_chunks.clone(),
            _ => Vec::new(),
        };
        let (key, arity) = match &self.kind {
            Kind::Table(table) => (table.key.clone(), table.schema.len()),
            Kind::Dynamic(view) => (view.key.clone(), view.schema.len()),
            Kind::Errors(schema) | Kind::History(schema) => (Vec::new(), schema.len()),
            Kind::Inlined(..) => (Vec::new(), 0),
        };
        Kept { key: if key.is_empty() { (0..arity).collect() } else { key }, arity, in_chunks }
    }
    /// Whether it is a table that keeps no rows.
    pub(crate) fn is_stream(&self) -> bool {
        self.table().is_some_and(|table| !table.retained)
    }
    /// What kind of thing it is, in words.
    pub(crate) fn noun(&self) -> &'static str {
        match &self.kind {
            Kind::Table(_) => "table",
            Kind::Dynamic(_) => "dynamic table",
            Kind::Inlined(..) => "view",
            Kind::Errors(_) => "dead-letter table",
            Kind::History(_) => "history",
        }
    }
}

/// Which statement made a continuous insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InsertKind {
    Insert,
    Merge,
    /// The pipe's qualified name.
    Pipe(String),
}

/// A continuous INSERT, or a MERGE or pipe, which are kinds of it.
#[derive(Debug, Clone)]
pub(crate) struct Insert {
    pub(crate) kind: InsertKind,
    pub(crate) target: String,
    pub(crate) plan: Plan,
    pub(crate) stamp: Option<usize>,
    /// What it asks of external functions.
    pub(crate) calls: Vec<CallSite>,
    /// The clauses of a MERGE.
    pub(crate) merge: Option<MergeSpecification>,
    pub(crate) statement: u32,
    pub(crate) dataflow: Option<String>,
    /// Set when it is dropped: its part of a dataflow cannot be taken out, and passes nothing on from then on.
    pub(crate) stopped: Arc<AtomicBool>,
}

impl Insert {
    /// What kind of statement it is, in a word.
    pub(crate) fn noun(&self) -> &'static str {
        match self.kind {
            InsertKind::Insert => "insert",
            InsertKind::Merge => "merge",
            InsertKind::Pipe(_) => "pipe",
        }
    }
    /// Whether its query reads a table or its dead letters.
    pub(crate) fn reads(&self, name: &str) -> bool {
        let mut read = BTreeSet::new();
        Catalog::reads(&self.plan, &mut read);
        with_companions(name).any(|name| read.contains(&name))
    }
}

/// The entry that an entry comes and goes with: itself, but for dead letters their table and for a history its one ids.
pub(crate) fn owner(name: &str) -> String {
    let table = name.strip_suffix("$errors").map(str::to_string);
    table.or_else(|| one_ids_of(name)).unwrap_or_else(|| name.to_string())
}
/// The entries that may come and go with one.
pub(crate) fn companions(name: &str) -> impl Iterator<Item = String> {
    std::iter::once(format!("{name}$errors")).chain(history_of(name))
}
fn with_companions(name: &str) -> impl Iterator<Item = String> {
    std::iter::once(name.to_string()).chain(companions(name))
}

/// All entries by qualified name.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) schemas: BTreeSet<String>,
    pub(crate) current: String,
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) inserts: Vec<Insert>,
    /// Pipes by qualified name.
    pub(crate) pipes: BTreeMap<String, Pipe>,
    /// API connections by name.
    pub(crate) connections: BTreeMap<String, Connection>,
    /// External functions by qualified name.
    pub(crate) external: BTreeMap<String, ExternalFunction>,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Catalog {
            schemas: BTreeSet::from([DEFAULT_SCHEMA.to_string()]),
            current: DEFAULT_SCHEMA.to_string(),
            ..Catalog::default()
        }
    }
    /// The tables whose rows are a function of the input and of the ticks: what a lookup join found, when a row
    /// was written.
    pub(crate) fn frozen(&self) -> BTreeSet<String> {
        let entries = self.entries.iter().filter(|(_, entry)| match &entry.kind {
            Kind::Dynamic(view) => view.stamp.is_some() || view.plan.has_lookup(),
            // Numbers follow the ticks too, and so do histories of one ids.
            Kind::Table(table) => table.number.is_some(),
            Kind::History(_) => true,
            Kind::Inlined(..) | Kind::Errors(_) => false,
        });
        let inserts = self.inserts.iter().filter(|insert| insert.stamp.is_some() || insert.plan.has_lookup());
        entries.map(|(name, _)| name.clone()).chain(inserts.map(|insert| insert.target.clone())).collect()
    }
    /// The qualified name: without a schema, the current one.
    pub(crate) fn qualify(&self, name: &Name) -> String {
        match name.schema() {
            Some(schema) => format!("{schema}.{}", name.object()),
            None => format!("{}.{}", self.current, name.object()),
        }
    }
    /// The qualified form of a written name.
    pub(crate) fn qualify_text(&self, name: &str) -> String {
        if name.contains('.') { name.to_string() } else { format!("{}.{name}", self.current) }
    }
    /// The table of an external function's results.
    pub(crate) fn results_of(&self, function: &str) -> Option<ResultsTable> {
        let name = self.external.get(&self.qualify_text(function))?.results.clone()?;
        let schema = self.get(&name)?.schema()?.clone();
        Some((name, schema))
    }
    pub(crate) fn get(&self, qualified: &str) -> Option<&Entry> {
        self.entries.get(qualified)
    }
    /// The tables and dynamic tables that a plan reads.
    pub(crate) fn reads(plan: &Plan, into: &mut BTreeSet<String>) {
        if let Node::Get { table, .. } = &plan.node {
            into.insert(table.clone());
        }
        plan.inputs().into_iter().for_each(|input| Catalog::reads(input, into));
    }
    /// What `name` is computed from directly: the reads of its query, and for a table those of the inserts into it.
    pub(crate) fn upstream(&self, name: &str) -> BTreeSet<String> {
        let mut reads = BTreeSet::new();
        match self.entries.get(name).map(|entry| &entry.kind) {
            Some(Kind::Dynamic(view)) => Catalog::reads(&view.plan, &mut reads),
            Some(Kind::Inlined(_, tables)) => reads.extend(tables.iter().cloned()),
            Some(Kind::Errors(_) | Kind::History(_)) => {
                reads.insert(owner(name));
            }
            _ => {}
        }
        for insert in self.inserts.iter().filter(|insert| insert.target == name) {
            Catalog::reads(&insert.plan, &mut reads);
        }
        reads
    }
    /// Everything that the names are computed from, themselves included.
    pub(crate) fn closure(&self, names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut open: Vec<String> = names.into_iter().collect();
        while let Some(name) = open.pop() {
            if all.insert(name.clone()) {
                open.extend(self.upstream(&name));
            }
        }
        all
    }
    /// The other continuous statements that probe an index, by what they define or write.
    pub(crate) fn sharers(&self, key: &ArrangementKey) -> Vec<String> {
        let views = self.entries.iter().filter_map(|(name, entry)| match &entry.kind {
            Kind::Dynamic(view) => Some((name, &view.plan)),
            _ => None,
        });
        let inserts = self.inserts.iter().map(|insert| (&insert.target, &insert.plan));
        let probes = |plan: &Plan| required(plan, self).iter().any(|arrangement| arrangement.key == *key);
        views.chain(inserts).filter(|(_, plan)| probes(plan)).map(|(name, _)| name.clone()).collect()
    }
    /// The views that read `name` or its dead letters directly.
    pub(crate) fn views_of(&self, name: &str) -> Vec<String> {
        let reads = |(other, entry): (&String, &Entry)| {
            let mut read = BTreeSet::new();
            match &entry.kind {
                Kind::Dynamic(view) => Catalog::reads(&view.plan, &mut read),
                Kind::Inlined(_, tables) => read.extend(tables.iter().cloned()),
                Kind::Table(_) | Kind::Errors(_) | Kind::History(_) => {}
            }
            with_companions(name).any(|name| read.contains(&name)).then(|| other.clone())
        };
        self.entries.iter().filter_map(reads).collect()
    }
    /// The entries and sinks whose definition reads `name` directly.
    pub(crate) fn dependents(&self, name: &str) -> Vec<String> {
        let reads = |other: &String| {
            let upstream = self.upstream(other);
            owner(other) != name && with_companions(name).any(|name| upstream.contains(&name))
        };
        self.entries.keys().filter(|other| reads(other)).cloned().collect()
    }
    /// What reads an entry directly: views by their names, inserts by their targets.
    pub(crate) fn readers(&self, name: &str) -> Vec<String> {
        let inserts = self.inserts.iter().filter(|insert| insert.reads(name)).map(|insert| insert.target.clone());
        self.views_of(name).into_iter().chain(inserts).collect()
    }
}

impl TableInfo for Catalog {
    fn table(&self, name: &str) -> Option<TableFacts> {
        let name = self.qualify_text(name);
        let entry = self.entries.get(&name)?;
        let mut in_chunks = Vec::new();
        let (schema, primary_key, append_only, bounded) = match &entry.kind {
            Kind::Table(table) => {
                let bounded = !table.key.is_empty() || table.retention.is_some();
                (&table.schema, table.key.clone(), table.append_only, bounded)
            }
            Kind::Dynamic(view) => {
                in_chunks.clone_from(&view.in_chunks);
                (&view.schema, view.key.clone(), view.append_only, growing_table(&view.plan, self).is_none())
            }
            // Letters leave: they are repaired, or too old, or too many.
            Kind::Errors(schema) => (schema, Vec::new(), false, true),
            Kind::History(schema) => (schema, Vec::new(), true, false),
            Kind::Inlined(..) => return None,
        };
        Some(TableFacts {
            name,
            schema: schema.clone(),
            arranged: entry.kept.is_some() && !primary_key.is_empty(),
            primary_key,
            single_row: matches!(&entry.kind, Kind::Dynamic(view) if view.single_row),
            append_only,
            retained: !entry.is_stream(),
            bounded,
            row_estimate: None,
            in_chunks,
        })
    }
}
