//! Queries: SELECT at the newest complete tick, through the batch engine; EXPLAIN.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::logical_expr::LogicalPlan;
use deltaworks_connectors::format::text::ResultSet;
use deltaworks_dataflow::batch::{from_record_batch, to_record_batch};
use deltaworks_dataflow::row::{project, split_fields};
use deltaworks_dataflow::{Column, DataType, Datum, Row, Schema, Time};
use deltaworks_operators::bitmap::{Chunk, whole};
use deltaworks_sql::arrangement::ArrangementKey;
use deltaworks_sql::error::{SqlError, closest};
use deltaworks_sql::explain::{Context, ExplainRow, Target, explain_statement};
use deltaworks_sql::expr::{ExpressionErrors, Function, ScalarExpr};
use deltaworks_sql::external::{CallSite, take_calls};
use deltaworks_sql::lower::{PlanSettings, check_query, chunks, lower_query};
use deltaworks_sql::parser::{Body, Name, Spanned, Statement, place_of, rewrite, shown_name, table_names};
use deltaworks_sql::plan::{Node, Plan};
use deltaworks_sql::render::{Kept, Measured, check_windows};
use deltaworks_sql::session::{Answer, ClockReading};

use crate::analyze::by_line;
use crate::catalog::{Catalog, Entry, Kind};
use crate::continuous::is_sink_by_key;
use crate::error::EngineError;
use crate::external::check_placed;
use crate::identity::one_ids_of_links;
use crate::options::Evaluation;
use crate::script::Engine;

type Result<T> = std::result::Result<T, EngineError>;

/// A query that is kept up to date: its plan, and where a write stamp stands in its rows.
pub(crate) struct Continuous {
    pub(crate) plan: Plan,
    pub(crate) logical: LogicalPlan,
    pub(crate) stamp: Option<usize>,
    /// What it asks of external functions.
    pub(crate) calls: Vec<CallSite>,
    /// The columns of the plan that have handles, where its rows are a table's.
    pub(crate) in_chunks: Vec<usize>,
}

/// What a continuous query's rows are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowsFor {
    /// A dynamic table, whose bitmaps may travel in chunks.
    DynamicTable,
    /// Whoever takes bitmaps as whole values.
    Others,
}

/// How many failed expressions of one statement are named.
const FAILURES_SHOWN: usize = 5;

/// The rows of a query, and what could not be computed in them.
pub(crate) struct Answered {
    pub(crate) result: ResultSet,
    pub(crate) failures: Vec<ExpressionErrors>,
}

impl Engine {
    /// Runs a query and returns its rows at the newest complete tick.
    pub(crate) fn query(&mut self, body: &Body) -> Result<ResultSet> {
        let mut query = body.query.clone();
        rewrite(&mut *query)?;
        let names = self.check_reads(body)?;
        let plan = self.session.logical_plan(&query)?;
        let Answered { mut result, .. } = self.run(plan, &names).map_err(|error| error.in_query(&body.query))?;
        if query.order_by.is_none() {
            result.rows.sort();
        }
        Ok(result)
    }
    /// Runs an analysed plan that reads the named tables, and says what could not be computed.
    pub(crate) fn run(&mut self, plan: LogicalPlan, names: &[Name]) -> Result<Answered> {
        self.check_calls(&plan)?;
        let reads = self.reads(names);
        self.check_no_streams(&reads)?;
        self.catch_up(&reads)?;
        let mut filled = BTreeSet::new();
        for name in &reads {
            self.fill(name, &mut filled)?;
        }
        let schema =
            shown_schema(Schema::from_arrow(plan.schema().as_arrow()).map_err(|e| EngineError::new(e, "cast the column"))?);
        let clock = ClockReading { now: self.instant()? };
        let answer = self.session.execute(plan, clock);
        for name in &filled {
            if let Some(snapshot) = self.catalog.get(name).and_then(|entry| entry.snapshot.as_ref()) {
                snapshot.set(Vec::new());
            }
        }
        let Answer { batches, failures } = answer?;
        let mut rows = Vec::new();
        for batch in &batches {
            rows.extend(from_record_batch(&schema, batch)?);
        }
        self.warn_of_failures(&failures);
        Ok(Answered { result: ResultSet { schema, rows }, failures })
    }
    /// Says what could not be computed and is NULL, an expression at a time.
    fn warn_of_failures(&mut self, failures: &[ExpressionErrors]) {
        for failure in failures.iter().take(FAILURES_SHOWN) {
            let (values, are) = if failure.count == 1 { ("value", "is") } else { ("values", "are") };
            let example = failure.samples.first().map_or(String::new(), |sample| format!(", for example '{sample}'"));
            let (count, expression) = (failure.count, &failure.expression);
            self.say(&format!("warning: {count} {values} could not be computed and {are} NULL: {expression}{example}"));
        }
        if let Some(more) = failures.len().checked_sub(FAILURES_SHOWN).filter(|more| *more > 0) {
            self.say(&format!("warning: so could those of {more} more expressions"));
        }
    }
    /// The tables and dynamic tables behind the names: views that are inlined give what they read.
    pub(crate) fn reads(&self, names: &[Name]) -> BTreeSet<String> {
        let mut reads = BTreeSet::new();
        let mut open: Vec<String> = names.iter().map(|name| self.catalog.qualify(name)).collect();
        while let Some(name) = open.pop() {
            match self.catalog.get(&name).map(|entry| &entry.kind) {
                Some(Kind::Inlined(_, tables)) => open.extend(tables.iter().cloned()),
                Some(_) => {
                    reads.insert(name);
                }
                None => {}
            }
        }
        reads
    }
    /// An error for the first name that the catalog does not know.
    pub(crate) fn check_names(&self, names: &[Name]) -> Result<()> {
        for name in names {
            let qualified = self.catalog.qualify(name);
            if self.catalog.get(&qualified).is_none() {
                let known = self.catalog.entries.keys().filter(|n| !n.contains('$'));
                let known: Vec<String> = known.map(|n| short(n).to_string()).collect();
                let help = match closest(name.object(), &known) {
                    _ if known.is_empty() => "create it first: there are no tables yet".to_string(),
                    Some(close) => format!("did you mean {close}? There are {}", known.join(", ")),
                    None => format!("create it first; there are {}", known.join(", ")),
                };
                return Err(EngineError::new(format!("table \"{}\" does not exist", name.object()), help));
            }
        }
        Ok(())
    }
    /// The same for the names that a query reads, with the place of the unknown one.
    pub(crate) fn check_reads(&self, body: &Body) -> Result<Vec<Name>> {
        let names = table_names(&Statement::Query(body.clone()));
        for name in &names {
            self.check_names(std::slice::from_ref(name)).map_err(|error| match place_of(&*body.query, name.object()) {
                Some(at) => error.in_column(at.line, at.column),
                None => error,
            })?;
        }
        Ok(names)
    }
    /// The error of a continuous query, with its place in the view that is at fault.
    fn in_views(&self, error: SqlError, names: &[Name]) -> EngineError {
        let mut open: Vec<String> = names.iter().map(|name| self.catalog.qualify(name)).collect();
        while let Some(name) = open.pop() {
            let Some(entry) = self.catalog.get(&name) else { continue };
            if let Kind::Inlined(_, tables) = &entry.kind {
                open.extend(tables.iter().cloned());
            }
            if let Some(refused) = entry.refused.clone().filter(|refused| refused.message == error.message) {
                let message = format!("{} in a continuous query, where view \"{}\" is used", refused.message, short(&name));
                return SqlError { message, ..refused }.into();
            }
        }
        error.into()
    }
    /// Puts a table's rows at the newest complete tick before the batch engine.
    fn fill(&mut self, name: &str, filled: &mut BTreeSet<String>) -> Result<()> {
        if !filled.insert(name.to_string()) {
            return Ok(());
        }
        let Some(entry) = self.catalog.get(name).cloned() else { return Ok(()) };
        if let (Kind::History(_), Evaluation::Batch) = (&entry.kind, self.options.evaluation) {
            // All links at once replace no id.
            return set(&entry, &[]);
        }
        if let (Kind::Dynamic(view), Evaluation::Batch) = (&entry.kind, self.options.evaluation) {
            let mut reads = BTreeSet::new();
            Catalog::reads(&view.plan, &mut reads);
            for read in &reads {
                self.fill(read, filled)?;
            }
            let answer = self.session.execute((*view.logical).clone(), ClockReading { now: self.clock.now() })?;
            let mut rows = Vec::new();
            let links = match &view.plan.node {
                Node::Components(components) => Some(&components.links.schema),
                _ => None,
            };
            for batch in &answer.batches {
                rows.extend(from_record_batch(links.unwrap_or(&view.schema), batch)?);
            }
            if links.is_some() {
                rows = one_ids_of_links(&rows);
            }
            return set(&entry, &rows);
        }
        let rows = self.rows_of(name, &entry)?;
        set(&entry, &rows)
    }
    /// The rows of a kept table at the newest complete tick, each as often as it is there.
    pub(crate) fn rows_of(&mut self, name: &str, entry: &Entry) -> Result<Vec<Row>> {
        let Some((trace, kept)) = entry.kept.clone() else {
            return Err(EngineError::new(
                format!("{} \"{}\" cannot be read", entry.noun(), short(name)),
                "nothing keeps its rows: read the table or view that feeds it",
            ));
        };
        let places = kept.places();
        let identity = places.iter().enumerate().all(|(i, place)| i == *place);
        let mut rows = Vec::new();
        let tick = self.host.next_tick() - 1;
        let mut bitmaps = Vec::with_capacity(kept.in_chunks.len());
        for column in &kept.in_chunks {
            bitmaps.push((*column, self.bitmaps_of(&Kept::chunks_trace(&trace, *column), tick)?));
        }
        let mut bytes = Vec::new();
        self.host.read(&trace, tick, |chunk| {
            for (key, value, diff) in chunk {
                let whole = [&key[..], &value[..]].concat();
                bytes.clear();
                if identity {
                    bytes.extend_from_slice(&whole);
                } else {
                    project(&whole, &places, &mut bytes);
                }
                let row = with_bitmaps(Row::from_bytes(&bytes), &bitmaps);
                rows.extend((0..diff).map(|_| row.clone()));
            }
        })?;
        rows.sort();
        Ok(rows)
    }
    /// The bitmaps that are kept in chunks, as fields, by handle.
    fn bitmaps_of(&self, trace: &str, tick: Time) -> Result<BTreeMap<Row, Row>> {
        let mut chunks: BTreeMap<Row, Vec<Chunk>> = BTreeMap::new();
        self.host.read(trace, tick, |read| {
            for (set, chunk, _) in read {
                chunks.entry(Row::from_bytes(&set)).or_default().push(Chunk::from_row(&chunk));
            }
        })?;
        Ok(chunks.into_iter().map(|(set, chunks)| (set, whole(chunks))).collect())
    }
    /// Plans a query that is kept up to date.
    pub(crate) fn continuous(&mut self, body: &Body, rows_for: RowsFor) -> Result<Continuous> {
        let mut query = body.query.clone();
        rewrite(&mut *query)?;
        check_query(&query)?;
        let names = self.check_reads(body)?;
        let logical = self.session.logical_plan(&query)?;
        self.check_calls(&logical)?;
        check_placed(&logical)?;
        let optimized = self.session.optimize_for_stream(logical.clone())?;
        let settings = PlanSettings { join_strategy: self.join_strategy, hints: body.hints.clone() };
        let lowered = lower_query(&optimized, &self.catalog, &settings).map_err(|error| self.in_views(error, &names))?;
        for warning in &lowered.warnings {
            self.say(&format!("warning: {warning}"));
        }
        let mut plan = lowered.plan;
        self.check_no_sinks(&plan)?;
        check_windows(&plan, &self.session)?;
        let stamp = take_stamp(&mut plan)?;
        let mut calls = Vec::new();
        let plan = take_calls(plan, &|function| self.catalog.results_of(function), &mut calls)?;
        for site in &mut calls {
            site.function = self.catalog.qualify_text(&site.function);
        }
        // A stamp says when the row was written, the bitmap in it too.
        let (plan, in_chunks) = match rows_for {
            RowsFor::DynamicTable if stamp.is_none() => chunks::throughout(plan, &self.catalog),
            _ => (chunks::inside(plan, &self.catalog), Vec::new()),
        };
        Ok(Continuous { plan, logical, stamp, calls, in_chunks })
    }
    /// A stream keeps no rows that a statement of its own could read.
    pub(crate) fn check_no_streams(&self, reads: &BTreeSet<String>) -> Result<()> {
        let is_stream = |name: &&String| self.catalog.get(name).is_some_and(Entry::is_stream);
        match reads.iter().find(is_stream) {
            None => Ok(()),
            Some(name) => Err(EngineError::new(
                format!("table \"{}\" keeps no rows to read: it is a stream, by 'table.retain' = 'none'", short(name)),
                "read a dynamic table made from it, or leave out the option",
            )),
        }
    }
    /// A table that is only written keeps no rows to read.
    fn check_no_sinks(&self, plan: &Plan) -> Result<()> {
        let mut reads = BTreeSet::new();
        Catalog::reads(plan, &mut reads);
        let is_sink = |name: &&String| {
            let connector = self.catalog.get(name).and_then(Entry::table).is_some_and(|table| table.connector.is_some());
            connector && self.catalog.inserts.iter().any(|insert| insert.target == **name)
        };
        match reads.iter().find(is_sink) {
            None => Ok(()),
            Some(name) => Err(EngineError::new(
                format!("table \"{}\" is a sink, and nothing keeps its rows", short(name)),
                "read what is inserted into it",
            )),
        }
    }
    /// The plan of a statement's query, as a result set.
    pub(crate) fn explain(&mut self, statement: &Spanned<Statement>, analyze: bool) -> Result<ResultSet> {
        let body = match &statement.node {
            Statement::Query(body) => body,
            Statement::CreateDynamicTable(create) => &create.body,
            Statement::CreateView(create) => &create.body,
            Statement::Insert(insert) => &insert.body,
            _ => {
                return Err(EngineError::new(
                    "EXPLAIN takes a query",
                    "write EXPLAIN SELECT .., or EXPLAIN INSERT INTO .. SELECT ..",
                ));
            }
        };
        let rows_for = match &statement.node {
            Statement::CreateDynamicTable(_) => RowsFor::DynamicTable,
            _ => RowsFor::Others,
        };
        let mut plan = self.continuous(body, rows_for)?.plan;
        if let Statement::Insert(insert) = &statement.node {
            plan = self.explained_insert(plan, insert)?;
        }
        let view = if analyze { self.view_behind(&plan) } else { None };
        let view = view.map(|(name, behind)| {
            plan = behind;
            name
        });
        let nodes = if analyze { Some(self.measure(&plan)?) } else { None };
        let sharers = |key: &ArrangementKey| self.catalog.sharers(key);
        // What is analysed is what the query itself does.
        let behind = |table: &str| if analyze { None } else { self.identity_behind(table) };
        let context = Context { tables: &self.catalog, sharers: &sharers, behind: &behind };
        let target = match &statement.node {
            Statement::Insert(insert) => Some(insert.table.to_string()),
            Statement::CreateDynamicTable(create) => Some(create.name.to_string()),
            _ => view.as_deref().map(|name| short(name).to_string()),
        };
        let sink = match &statement.node {
            Statement::Insert(insert) => self.catalog.get(&self.catalog.qualify(&insert.table)),
            _ => None,
        };
        let to_sink = sink.and_then(|entry| entry.table()).is_some_and(|table| table.connector.is_some());
        let target = target.as_deref().map(|name| if to_sink { Target::Sink(name) } else { Target::Table(name) });
        let mut lines = explain_statement(&plan, target, &context);
        if let (Statement::Insert(insert), Some(first)) = (&statement.node, lines.first_mut()) {
            first.reason = match self.is_continuous_insert(insert) {
                true => "continuous: the insert goes on as its sources change",
                false => "one-shot: the insert runs once, over what is there",
            }
            .into();
            let by_key = sink.and_then(Entry::table).map_or(Ok(false), is_sink_by_key)?;
            if by_key && self.inserts_into(&self.catalog.qualify(&insert.table)) > 1 {
                first
                    .reason
                    .push_str("; of rows of one key that several INSERTs bring the first in encoded-row order is sent");
            }
        }
        let measured = nodes.map(|nodes| by_line(&lines, &nodes));
        Ok(explained(&lines, measured.as_deref()))
    }
}

/// The rows of an EXPLAIN as a result set, with what was measured.
fn explained(lines: &[ExplainRow], measured: Option<&[Measured]>) -> ResultSet {
    let mut columns = vec![
        ("id", DataType::Int),
        ("parent", DataType::Int),
        ("operator", DataType::String),
        ("detail", DataType::String),
        ("arrangement", DataType::String),
        ("shared_with", DataType::String),
        ("state", DataType::String),
        ("reason", DataType::String),
    ];
    if measured.is_some() {
        columns.extend([
            ("rows", DataType::BigInt),
            ("bytes", DataType::BigInt),
            ("busy_ms", DataType::Double),
            ("errors", DataType::BigInt),
        ]);
    }
    let schema = Schema::new(columns.into_iter().map(|(name, data_type)| Column::new(name, data_type)).collect());
    let row = |(at, line): (usize, &ExplainRow)| {
        let figures = measured.and_then(|measured| measured.get(at)).map(|node| {
            let bytes = node.bytes.map_or(Datum::Null, Datum::Int);
            [Datum::Int(node.rows), bytes, Datum::Float(node.busy_nanos as f64 / 1e6), Datum::Int(node.errors)]
        });
        let plan = [
            Datum::Int(line.id.into()),
            line.parent.map_or(Datum::Null, |parent| Datum::Int(parent.into())),
            Datum::str(line.operator),
            Datum::str(line.detail.as_str()),
            Datum::str(line.arrangement.as_str()),
            Datum::str(line.shared_with.as_str()),
            Datum::str(line.state),
            Datum::str(line.reason.as_str()),
        ];
        Row::pack(plan.into_iter().chain(figures.into_iter().flatten()))
    };
    ResultSet { schema, rows: lines.iter().enumerate().map(row).collect() }
}

/// The schema with its columns named as they are shown.
pub(crate) fn shown_schema(mut schema: Schema) -> Schema {
    for column in &mut schema.columns {
        column.name = shown_name(&column.name).to_string();
    }
    schema
}
/// The object's own name.
pub(crate) fn short(qualified: &str) -> &str {
    qualified.strip_prefix("public.").unwrap_or(qualified)
}
fn set(entry: &Entry, rows: &[Row]) -> Result<()> {
    let (Some(snapshot), Some(schema)) = (&entry.snapshot, entry.schema()) else { return Ok(()) };
    let batch = to_record_batch(schema, rows.iter().map(|row| &row[..]))?;
    snapshot.set(vec![batch]);
    Ok(())
}

/// The row with the bitmaps of its handles.
fn with_bitmaps(mut row: Row, bitmaps: &[(usize, BTreeMap<Row, Row>)]) -> Row {
    for (column, bitmaps) in bitmaps {
        let (before, rest) = split_fields(&row, *column);
        let (set, after) = split_fields(rest, 1);
        if let Some(bitmap) = bitmaps.get(&Row::from_bytes(set)) {
            row = Row::from_bytes(&[before, bitmap, after].concat());
        }
    }
    row
}

/// Takes WRITE_TIMESTAMP() out of a plan's select list and returns its place.
///
/// # Errors
/// Where it stands elsewhere: a stamp is no value to compute with.
pub(crate) fn take_stamp(plan: &mut Plan) -> Result<Option<usize>> {
    let is_stamp = |expression: &ScalarExpr| expression.any(&is_write_timestamp);
    let mut stamp = None;
    if let Node::Project { expressions, .. } = &mut plan.node {
        for (place, expression) in expressions.iter_mut().enumerate().filter(|(_, e)| is_stamp(e)) {
            if stamp.is_some() {
                return Err(EngineError::new("WRITE_TIMESTAMP() stands twice in a select list", "write it once"));
            }
            stamp = Some(place);
            let data_type = expression.data_type();
            let stamps = matches!(data_type, DataType::Timestamp | DataType::TimestampLtz);
            if !stamps || !is_bare_stamp(expression) {
                return Err(misplaced_stamp());
            }
            *expression = ScalarExpr::literal(Datum::Null, data_type);
        }
    }
    if stamps_left(plan) { Err(misplaced_stamp()) } else { Ok(stamp) }
}
/// The call alone, or cast from one timestamp type to the other.
fn is_bare_stamp(expression: &ScalarExpr) -> bool {
    match expression {
        ScalarExpr::Cast { input, .. } => is_bare_stamp(input),
        other => is_write_timestamp(other),
    }
}
fn misplaced_stamp() -> EngineError {
    EngineError::new(
        "WRITE_TIMESTAMP() can only stand alone in the outermost select list",
        "name it there with AS; it is no value to compute with or to filter by",
    )
}
fn stamps_left(plan: &Plan) -> bool {
    let stamped = |expression: &ScalarExpr| expression.any(&is_write_timestamp);
    let here = match &plan.node {
        Node::Project { expressions, .. } => expressions.iter().any(stamped),
        Node::Filter { predicate, .. } => stamped(predicate),
        Node::Join(join) => join.residual.iter().chain(&join.left_keys).chain(&join.right_keys).any(stamped),
        _ => false,
    };
    here || plan.inputs().into_iter().any(stamps_left)
}
fn is_write_timestamp(expression: &ScalarExpr) -> bool {
    matches!(expression, ScalarExpr::Call { function: Function::WriteTimestamp, .. })
}
