//! Rendering: builds the dataflow that keeps a plan's rows exact.
//!
//! One match over [`Node`]; each arm is a function in a file of its own. Only this module sees both plans and dataflows.
//!
//! Projections and filters above an operator run inside it ([`shape`]). Arrangements are shared: two joins of one dataflow that
//! need the same rows cut in the same way use one, and arrangements of tables are kept under a name for later dataflows.

mod aggregate;
mod analyze;
mod bitmap;
mod components;
mod insert;
mod join;
mod layout;
mod merge;
mod number;
mod rank;
mod recompute;
mod shape;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use deltaworks_dataflow::arrange::{arrange, as_rows, collection};
use deltaworks_dataflow::host::Build;
use deltaworks_dataflow::row::project;
use deltaworks_dataflow::{Arranged, Collection, Diff, Row, Time};
use deltaworks_operators::join::clock_join;
use differential_dataflow::VecCollection;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::ToStream;
use timely::dataflow::operators::vec::Map;

use self::analyze::Analysis;
use self::bitmap::{ChunkSource, ChunkedRows};
use self::layout::Layout;
use self::shape::{Exiting, Shape};
use crate::arrangement::unnamed;
use crate::expr::{EvalErrors, ScalarExpr};
use crate::plan::{ClockVariable, Node, Plan, SortKey};
use crate::session::Session;

pub use analyze::{Measured, add_report};
pub use insert::{InsertTarget, check_lookups};
pub use merge::{MergeClause, MergeSpecification};
pub use recompute::check_windows;
pub use table::{EXPIRED, TableSpec};

/// How a kept arrangement of a table holds its rows: the key columns, then the others in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The key columns, in order.
    pub key: Vec<usize>,
    /// The number of columns.
    pub arity: usize,
    /// The columns whose bitmaps travel in chunks: rows have handles there, and the chunks are kept apart.
    pub in_chunks: Vec<usize>,
}
impl Kept {
    /// The trace that keeps the chunks of a column, by handle, of the table that is kept under `trace`.
    pub fn chunks_trace(trace: &str, column: usize) -> String {
        format!("{trace}/chunks {column}")
    }
    /// Where each column stands in key ++ value.
    pub fn places(&self) -> Vec<usize> {
        let rest: Vec<usize> = (0..self.arity).filter(|column| !self.key.contains(column)).collect();
        let all: Vec<usize> = self.key.iter().copied().chain(rest).collect();
        (0..self.arity).map(|column| all.iter().position(|c| *c == column).unwrap_or(0)).collect()
    }
    fn value(&self) -> Vec<usize> {
        (0..self.arity).filter(|column| !self.key.contains(column)).collect()
    }
}

/// Builds dataflows on one worker.
pub struct Renderer<'r, 'b, 's> {
    build: &'r mut Build<'b, 's>,
    timezone: chrono_tz::Tz,
    /// The batch engine, for what only it computes; made when first needed.
    session: Option<Rc<Session>>,
    tables: BTreeMap<String, Collection<'s>>,
    /// Views whose bitmaps travel in chunks; one that something reads whole is among the tables too.
    chunked: BTreeMap<String, ChunkedRows<'s>>,
    /// Where handles lead to.
    sources: Vec<ChunkSource<'s>>,
    /// Those of them that something reads.
    read: BTreeSet<String>,
    arranged: Vec<(Plan, Layout, Vec<SortKey>, Arranged<'s>)>,
    /// The connected components that this dataflow keeps.
    components: Vec<components::Rendered<'s>>,
    errors: Rc<EvalErrors>,
    /// The view under construction.
    view: String,
    clock_input: u32,
    clock: Option<StreamVec<'s, Time, i64>>,
    /// The resolution of `@@now`, in microseconds.
    clock_resolution: i64,
    /// What EXPLAIN ANALYZE measures; None for every other dataflow.
    analysis: Option<Analysis<'s>>,
}

impl<'r, 'b, 's> Renderer<'r, 'b, 's> {
    /// A renderer into the dataflow under construction. `clock_input` is the id of the dataflow's clock input, made when a plan
    /// first reads the clock.
    pub fn new(build: &'r mut Build<'b, 's>, timezone: chrono_tz::Tz, clock_input: u32, clock_resolution: i64) -> Self {
        Renderer {
            build,
            timezone,
            session: None,
            tables: BTreeMap::new(),
            chunked: BTreeMap::new(),
            sources: Vec::new(),
            read: BTreeSet::new(),
            arranged: Vec::new(),
            components: Vec::new(),
            errors: EvalErrors::new(),
            view: String::new(),
            clock_input,
            clock: None,
            clock_resolution,
            analysis: None,
        }
    }
    /// Names the view whose expressions are rendered from here on; its failures are counted apart.
    pub fn begin(&mut self, view: &str) {
        self.errors = EvalErrors::new();
        self.view = view.to_string();
        let errors = Rc::clone(&self.errors);
        self.build.observe(view, move || {
            let report = errors.report().into_iter();
            report.map(|e| (e.expression, e.count, e.samples)).collect()
        });
    }
    /// The dataflow under construction.
    pub fn build(&mut self) -> &mut Build<'b, 's> {
        self.build
    }
    /// Makes a table or view readable by the plans rendered from here on.
    pub fn define(&mut self, name: &str, rows: Collection<'s>) {
        self.tables.insert(name.to_string(), rows);
    }
    /// Makes a table readable that an earlier dataflow keeps under `trace`.
    pub fn import(&mut self, name: &str, trace: &str, kept: &Kept) {
        let places = kept.places();
        let mut scratch = Vec::new();
        let identity = places.iter().enumerate().all(|(index, place)| index == *place);
        let rows = as_rows(self.build.import(trace), move |key, value| {
            scratch.clear();
            scratch.extend_from_slice(key);
            scratch.extend_from_slice(value);
            if identity {
                return Row::from_bytes(&scratch);
            }
            let mut row = Vec::with_capacity(scratch.len());
            project(&scratch, &places, &mut row);
            Row::from_bytes(&row)
        });
        let start = self.build.start;
        let rows = collection(rows.inner.map(move |(row, time, diff)| (row, time.max(start), diff)));
        if kept.in_chunks.is_empty() {
            self.define(name, rows);
        } else {
            self.import_chunks(name, trace, &kept.in_chunks, rows);
        }
    }
    /// Keeps a table or view under `trace` for reads and later dataflows.
    pub fn keep(&mut self, name: &str, trace: &str, kept: &Kept) {
        let chunked = self.chunked.get(name).map(|chunked| chunked.rows.clone());
        let Some(rows) = chunked.or_else(|| self.tables.get(name).cloned()) else { return };
        self.read.insert(name.to_string());
        self.keep_chunks(name, trace);
        let (key, value) = (kept.key.clone(), kept.value());
        let start = self.build.start;
        let mut scratch = Vec::new();
        let keyed = rows.inner.map(move |(row, time, diff)| {
            scratch.clear();
            project(&row, &key, &mut scratch);
            let key = Row::from_bytes(&scratch);
            scratch.clear();
            project(&row, &value, &mut scratch);
            ((key, Row::from_bytes(&scratch)), Time::max(time, start), diff)
        });
        let arranged = arrange(collection(keyed), &format!("Arrange: {trace}"));
        self.build.export(trace, &arranged);
    }
    /// To be called at the end: a tick is complete only when what nobody reads has worked it in too, failures counted.
    pub fn finish(self) {
        for chunked in self.chunked.into_values() {
            self.build.watch(chunked.rows.inner);
            chunked.sets.into_values().for_each(|chunks| self.build.watch(chunks.inner));
        }
        for (_, rows) in self.tables.into_iter().filter(|(name, _)| !self.read.contains(name)) {
            self.build.watch(rows.inner);
        }
    }
    /// The rows of a plan.
    pub fn rows(&mut self, plan: &Plan) -> Collection<'s> {
        self.render(plan, Shape::rows())
    }

    /// The rows of a plan, each given `shape` on its way out.
    fn render<D: Exiting>(&mut self, plan: &Plan, shape: Shape) -> VecCollection<'s, Time, D, Diff> {
        match self.analysis.as_ref().and_then(|analysis| analysis.number(plan)) {
            Some(number) => self.render_measured(number, plan, shape),
            None => self.render_node(plan, shape),
        }
    }
    fn render_node<D: Exiting>(&mut self, plan: &Plan, shape: Shape) -> VecCollection<'s, Time, D, Diff> {
        let arity = plan.schema.len();
        match &plan.node {
            Node::Project { input, expressions } => self.render(input, shape.after_project(&input.schema, expressions)),
            Node::Filter { input, predicate } => self.render(input, shape.after_filter(&input.schema, predicate)),
            Node::Get { table, columns, in_chunks } => {
                let rows = self.table_rows(table, *in_chunks);
                self.map(rows, arity, columns, shape)
            }
            Node::Union { inputs } => {
                let mut parts = inputs.iter().map(|input| self.render(input, shape.clone())).collect::<Vec<_>>().into_iter();
                let first = parts.next().expect("a union has inputs");
                first.concatenate(parts)
            }
            Node::Join(join) if !shape.can_fail() || join::counts_failures(join) => self.join(join, shape),
            Node::Lookback(lookback) => self.lookback(lookback, shape),
            Node::DeltaJoin(join) => {
                let rows = self.delta_join(join);
                self.map_whole(rows, arity, shape)
            }
            Node::TopK(top_k) if !shape.can_fail() => self.top_k(top_k, shape),
            Node::Join(join) => {
                let rows = self.join(join, Shape::rows());
                self.map_whole(rows, arity, shape)
            }
            Node::TopK(top_k) => {
                let rows = self.top_k(top_k, Shape::rows());
                self.map_whole(rows, arity, shape)
            }
            node => {
                let rows = self.node(node, plan);
                self.map_whole(rows, arity, shape)
            }
        }
    }
    /// Nodes whose operators give whole rows.
    fn node(&mut self, node: &Node, plan: &Plan) -> Collection<'s> {
        match node {
            Node::Constant { rows } => self.constant(rows),
            Node::TemporalFilter { input, lower, upper, variable } => {
                self.temporal_filter(input, lower.as_ref(), upper.as_ref(), *variable)
            }
            Node::Unnest { input, array, outer } => self.unnest(input, array, *outer),
            Node::Distinct { input } => {
                let rows = self.rows(input);
                deltaworks_operators::distinct::distinct(rows, "Distinct")
            }
            Node::Aggregate(aggregate) => self.aggregate(aggregate, plan),
            Node::Window(window) => self.window(window, plan),
            Node::Components(components) => self.components(components),
            Node::Bitmaps(bitmaps) => self.bitmaps(bitmaps, plan),
            _ => unreachable!("rendered by `render`"),
        }
    }
    /// The input's columns `columns`, given `shape`.
    fn map<D: Exiting>(
        &mut self,
        rows: Collection<'s>,
        arity: usize,
        columns: &[usize],
        shape: Shape,
    ) -> VecCollection<'s, Time, D, Diff> {
        let mut compiled = shape.compile(arity, arity, &|column| columns[column], &self.errors);
        let whole = columns.iter().enumerate().all(|(index, column)| index == *column);
        // A shape that passes rows on whole would pass on columns that the plan leaves out behind the last one.
        let cut = (whole && shape.passes_whole()).then(|| columns.to_vec());
        let mut scratch = Vec::new();
        collection(rows.inner.flat_map(move |(row, time, diff)| {
            let data = match &cut {
                Some(columns) => {
                    scratch.clear();
                    project(&row, columns, &mut scratch);
                    compiled.apply(&[&scratch], diff)
                }
                None => compiled.apply(&[&row], diff),
            };
            data.map(|data| (data, time, diff))
        }))
    }
    fn map_whole<D: Exiting>(
        &mut self,
        rows: Collection<'s>,
        arity: usize,
        shape: Shape,
    ) -> VecCollection<'s, Time, D, Diff> {
        let mut compiled = shape.compile(arity, arity, &|column| column, &self.errors);
        let mapped =
            rows.inner.flat_map(move |(row, time, diff)| compiled.apply(&[&row], diff).map(|data| (data, time, diff)));
        collection(mapped)
    }
    fn constant(&mut self, rows: &[Row]) -> Collection<'s> {
        let start = self.build.start;
        let rows = if self.build.worker == 0 { rows.to_vec() } else { Vec::new() };
        let updates: Vec<(Row, Time, Diff)> = rows.into_iter().map(|row| (row, start, 1)).collect();
        collection(updates.to_stream(self.build.scope).container::<Vec<_>>())
    }
    /// The instants of the clock: one per tick at which it moved, on every worker.
    fn clock(&mut self) -> StreamVec<'s, Time, i64> {
        if self.clock.is_none() {
            self.clock = Some(self.build.clock(self.clock_input));
        }
        self.clock.clone().expect("made above")
    }
    /// The variables' values, on every worker, whenever one of them has changed.
    fn clock_values(&mut self, variables: &[ClockVariable]) -> StreamVec<'s, Time, Row> {
        let (variables, resolution, timezone) = (variables.to_vec(), self.clock_resolution, self.timezone);
        let mut current = None;
        self.clock().flat_map(move |instant| {
            let row = Row::pack(variables.iter().map(|v| v.at(instant, resolution, timezone)));
            (current.as_ref() != Some(&row)).then(|| current.insert(row).clone())
        })
    }
    /// Every row of the input beside the clock.
    fn with_clock<D: Exiting>(
        &mut self,
        input: &Plan,
        variables: &[ClockVariable],
        shape: Shape,
    ) -> VecCollection<'s, Time, D, Diff> {
        let arity = input.schema.len() + variables.len();
        let mut compiled = shape.compile(arity, arity, &|column| column, &self.errors);
        let (rows, clock) = (self.rows(input), self.clock_values(variables));
        clock_join(rows, clock, "ClockJoin", move |row, clock, diff| compiled.apply(&[row, clock], diff))
    }
    fn temporal_filter(
        &mut self,
        input: &Plan,
        lower: Option<&ScalarExpr>,
        upper: Option<&ScalarExpr>,
        variable: ClockVariable,
    ) -> Collection<'s> {
        use crate::expr::Evaluator;
        use deltaworks_dataflow::{DataType, Datum};
        let rows = self.rows(input);
        let (resolution, timezone) = (self.clock_resolution, self.timezone);
        let clock = self.clock().map(move |instant| variable.instant(instant, resolution, timezone));
        let both: Vec<ScalarExpr> = lower.into_iter().chain(upper).cloned().collect();
        let (has_lower, has_upper) = (lower.is_some(), upper.is_some());
        let mut evaluator = Evaluator::named(both, &input.schema, Rc::clone(&self.errors));
        let mut out = Vec::new();
        let bounds = move |row: &[u8]| {
            out.clear();
            evaluator.eval_row(row, &mut out);
            let mut fields = &out[..];
            let mut bound = |wanted: bool, never: i64| {
                wanted.then(|| match Datum::decode(&mut fields, &DataType::BigInt) {
                    Datum::Int(instant) => instant,
                    _ => never,
                })
            };
            // NULL: never there. From the end of time on, or until its beginning.
            (bound(has_lower, i64::MAX), bound(has_upper, i64::MIN))
        };
        deltaworks_operators::temporal_filter::temporal_filter(rows, clock, "TemporalFilter", bounds)
    }
    fn unnest(&mut self, input: &Plan, array: &ScalarExpr, outer: bool) -> Collection<'s> {
        use crate::expr::Evaluator;
        use deltaworks_dataflow::Datum;
        let rows = self.rows(input);
        let array_type = array.data_type();
        let mut evaluator = Evaluator::named(vec![array.clone()], &input.schema, Rc::clone(&self.errors));
        let mut field = Vec::new();
        collection(rows.inner.flat_map(move |(row, time, diff)| {
            field.clear();
            evaluator.set_diff(diff);
            evaluator.eval_row(&row, &mut field);
            let mut items = match Datum::decode(&mut &field[..], &array_type) {
                Datum::Array(items) => items,
                _ => Vec::new(),
            };
            if items.is_empty() && outer {
                items.push(Datum::Null);
            }
            let mut unnested = Vec::with_capacity(items.len());
            for item in items {
                let mut bytes = row.to_vec();
                item.encode(&mut bytes);
                unnested.push((Row::from_bytes(&bytes), time, diff));
            }
            unnested
        }))
    }
    /// The plan's rows cut by `layout` and arranged; shared by structural equality.
    fn arrange(&mut self, plan: &Plan, layout: Layout, order: &[SortKey], name: &str) -> Arranged<'s> {
        // The same rows under another alias are the same rows.
        let rows = unnamed(plan.clone());
        let same =
            |entry: &&(Plan, Layout, Vec<SortKey>, Arranged<'s>)| entry.0 == rows && entry.1 == layout && entry.2 == order;
        if let Some((_, _, _, arranged)) = self.arranged.iter().find(same) {
            return arranged.clone();
        }
        let shape = if order.is_empty() {
            Shape::keyed(&plan.schema, layout.key.clone(), layout.value.clone())
        } else {
            Shape::sorted(&plan.schema, layout.key.clone(), order, layout.value.clone())
        };
        let keyed = self.render::<(Row, Row)>(plan, shape);
        let arranged = arrange(keyed, &format!("Arrange: {name}"));
        self.made(&arranged);
        self.arranged.push((rows, layout, order.to_vec(), arranged.clone()));
        arranged
    }
    /// Notes an index for EXPLAIN ANALYZE.
    fn made(&mut self, arranged: &Arranged<'s>) {
        if let Some(analysis) = &mut self.analysis {
            analysis.made(arranged);
        }
    }
    fn session(&mut self) -> Rc<Session> {
        let timezone = self.timezone;
        let make = || Rc::new(Session::new(timezone).expect("a session of this zone was made before"));
        Rc::clone(self.session.get_or_insert_with(make))
    }
    fn wanted(&self, columns: &BTreeSet<usize>, from: usize, to: usize) -> BTreeSet<usize> {
        columns.iter().filter(|c| (from..to).contains(*c)).map(|c| c - from).collect()
    }
}

impl ClockVariable {
    /// The variable's value at an instant, a field of a row.
    pub fn at(self, instant: i64, resolution: i64, timezone: chrono_tz::Tz) -> deltaworks_dataflow::Datum<'static> {
        use deltaworks_dataflow::Datum;
        match self {
            ClockVariable::Now => Datum::Int(instant.div_euclid(resolution) * resolution),
            ClockVariable::CurrentDate => Datum::Int(local_days(instant, timezone)),
        }
    }
    /// The variable as an instant in microseconds: for a date, its midnight.
    pub fn instant(self, instant: i64, resolution: i64, timezone: chrono_tz::Tz) -> i64 {
        match self {
            ClockVariable::Now => instant.div_euclid(resolution) * resolution,
            ClockVariable::CurrentDate => local_days(instant, timezone) * 86_400_000_000,
        }
    }
}
/// The date in the zone, in days since 1970-01-01.
fn local_days(instant: i64, timezone: chrono_tz::Tz) -> i64 {
    use chrono::{DateTime, Offset, TimeZone};
    let utc = DateTime::from_timestamp_micros(instant).unwrap_or_default().naive_utc();
    let offset = i64::from(timezone.offset_from_utc_datetime(&utc).fix().local_minus_utc());
    (instant + offset * 1_000_000).div_euclid(86_400_000_000)
}
