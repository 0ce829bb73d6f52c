//! EXPLAIN ANALYZE: a plan rendered so that every node's work is measured.
//!
//! Projections and filters, which otherwise run inside the operator below them, are operators of their own here, so that each
//! node has rows to count. A dataflow that is not analysed has none of this: what is measured is rendered apart, and nothing
//! else asks whether it is.
//!
//! | figure | what |
//! |---|---|
//! | rows | the node's rows as they stand: insertions less retractions |
//! | bytes | of the encoded rows in the indexes that the node made, with their times and differences |
//! | busy | how long its operators ran, on all workers together |
//! | errors | how often its expressions failed |

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use deltaworks_dataflow::arrange::collection;
use deltaworks_dataflow::cursor::{batches_of, for_each_update};
use deltaworks_dataflow::host::Report;
use deltaworks_dataflow::{Arranged, Collection, Diff, Row, Time, Trace};
use differential_dataflow::VecCollection;
use timely::dataflow::operators::vec::Map;

use super::Renderer;
use super::shape::{Exiting, Shape};
use crate::arrangement::unnamed;
use crate::error::SqlError;
use crate::expr::EvalErrors;
use crate::plan::Plan;

/// What a time and a difference take in an index.
const UPDATE_BYTES: usize = size_of::<Time>() + size_of::<Diff>();

/// What was measured of one node on all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Rows that came out, less those taken back.
    pub rows: i64,
    /// Bytes of the indexes made for it; None where it made none.
    pub bytes: Option<i64>,
    /// How long its operators ran, in nanoseconds.
    pub busy_nanos: i64,
    /// Expressions that failed.
    pub errors: i64,
}

/// How a limit is reported that stopped the analysis.
const LIMIT: &str = "limit";

/// Adds a worker's report to the measurements, by the nodes' numbers.
///
/// # Errors
/// A limit that stopped the analysis.
pub fn add_report(report: &Report, into: &mut [Measured]) -> Result<(), SqlError> {
    for (line, count, samples) in report {
        if let (LIMIT, [message, help]) = (line.as_str(), &samples[..]) {
            return Err(SqlError::new(message.as_str(), help.as_str()));
        }
        let Some((what, number)) = line.split_once(' ') else { continue };
        let Some(node) = number.parse().ok().and_then(|number: usize| into.get_mut(number)) else { continue };
        match what {
            "rows" => node.rows += count,
            "bytes" => node.bytes = Some(node.bytes.unwrap_or(0) + count),
            "busy" => node.busy_nanos += count,
            "errors" => node.errors += count,
            _ => {}
        }
    }
    Ok(())
}

/// One node under analysis.
struct NodeCounts {
    /// The node without names, to find its like.
    plan: Plan,
    rendered: bool,
    rows: Rc<Cell<Diff>>,
    errors: Rc<EvalErrors>,
    failures: Vec<Rc<Cell<Diff>>>,
    traces: Vec<Trace>,
}
impl NodeCounts {
    fn bytes(&self) -> Option<i64> {
        let mut bytes = 0;
        for trace in &self.traces {
            for batch in batches_of(&mut trace.clone()) {
                let mut last: Option<&[u8]> = None;
                for_each_update(&batch, |key, value, _, _| {
                    bytes += value.len() + UPDATE_BYTES;
                    if last != Some(key) {
                        bytes += key.len();
                        last = Some(key);
                    }
                });
            }
        }
        (!self.traces.is_empty()).then(|| i64::try_from(bytes).unwrap_or(i64::MAX))
    }
    fn failures(&self) -> Diff {
        let of_expressions: Diff = self.errors.report().iter().map(|error| error.count).sum();
        of_expressions + self.failures.iter().map(|count| count.get()).sum::<Diff>()
    }
}

/// The measurements of a plan under construction.
pub(super) struct Analysis<'s> {
    /// The nodes' numbers by where they are in memory: parents first, as EXPLAIN numbers them.
    numbers: BTreeMap<usize, usize>,
    /// What was rendered, so that a node that is read twice is counted once.
    collections: BTreeMap<usize, Collection<'s>>,
    current: usize,
    counts: Counts,
}
/// What is counted while the dataflow runs.
struct Counts {
    nodes: Vec<NodeCounts>,
    /// From which operator on the operators are of which node.
    owners: Vec<(usize, usize)>,
    /// Limits of joins, whether they were reached, and what is to be said then.
    limits: Vec<(Rc<Cell<bool>>, String, &'static str)>,
}

impl<'s> Analysis<'s> {
    fn new(plan: &Plan) -> Self {
        let (mut numbers, mut nodes) = (BTreeMap::new(), Vec::new());
        plan.walk(&mut |node| {
            numbers.insert(std::ptr::from_ref(node).addr(), nodes.len());
            nodes.push(NodeCounts {
                plan: unnamed(node.clone()),
                rendered: false,
                rows: Rc::default(),
                errors: EvalErrors::new(),
                failures: Vec::new(),
                traces: Vec::new(),
            });
        });
        let counts = Counts { nodes, owners: Vec::new(), limits: Vec::new() };
        Analysis { numbers, collections: BTreeMap::new(), current: 0, counts }
    }
    /// The number of a node of the plan; None for a plan that was made while rendering.
    pub(super) fn number(&self, plan: &Plan) -> Option<usize> {
        self.numbers.get(&std::ptr::from_ref(plan).addr()).copied()
    }
    /// Notes an index that the current node made.
    pub(super) fn made(&mut self, arranged: &Arranged<'s>) {
        self.counts.nodes[self.current].traces.push(arranged.trace.clone());
    }
    /// A limit that stops the analysis where it is set.
    pub(super) fn limited(&mut self, message: String, help: &'static str) -> Rc<Cell<bool>> {
        let reached = Rc::new(Cell::new(false));
        self.counts.limits.push((Rc::clone(&reached), message, help));
        reached
    }
    /// Notes a counter of failures of the current node.
    pub(super) fn fails(&mut self, failures: &Rc<Cell<Diff>>) {
        self.counts.nodes[self.current].failures.push(Rc::clone(failures));
    }
}

impl Counts {
    /// What is measured, line by line.
    fn report(&self, busy: &BTreeMap<usize, u64>) -> Report {
        let mut nanos = vec![0i64; self.nodes.len()];
        for (operator, busy) in busy {
            let at = self.owners.partition_point(|(first, _)| first <= operator);
            if let Some((_, node)) = at.checked_sub(1).and_then(|at| self.owners.get(at)) {
                nanos[*node] += i64::try_from(*busy).unwrap_or(i64::MAX);
            }
        }
        let mut report = Report::new();
        for (_, message, help) in self.limits.iter().filter(|(reached, _, _)| reached.get()) {
            report.push((LIMIT.into(), 1, vec![message.clone(), (*help).to_string()]));
        }
        for (number, node) in self.nodes.iter().enumerate() {
            // The same rows under another name were rendered once.
            let like = || self.nodes.iter().find(|other| other.rendered && other.plan == node.plan);
            let counted = if node.rendered { Some(node) } else { like() };
            let mut line = |what: &str, count: i64| report.push((format!("{what} {number}"), count, Vec::new()));
            line("rows", counted.map_or(0, |node| node.rows.get()));
            line("errors", node.failures());
            line("busy", nanos[number]);
            if let Some(bytes) = node.bytes() {
                line("bytes", bytes);
            }
        }
        report
    }
}

impl<'s> Renderer<'_, '_, 's> {
    /// Renders a plan, measured, and reports under `name` to whoever observes.
    pub fn analyze(&mut self, name: &str, plan: &Plan) {
        self.analysis = Some(Analysis::new(plan));
        self.view = "the query".into();
        self.own(0);
        let rows = self.rows(plan);
        self.build.watch(rows.inner);
        let Some(Analysis { counts, .. }) = self.analysis.take() else { return };
        let busy = self.build.busy();
        self.build.observe(name, move || counts.report(&busy.borrow().by_operator));
    }
    /// The operators made from here on are the node's.
    fn own(&mut self, node: usize) {
        let next = self.build.next_operator();
        if let Some(analysis) = &mut self.analysis {
            analysis.counts.owners.push((next, node));
            analysis.current = node;
        }
    }
    /// A node under analysis: rendered by itself, its rows counted, and what is made of them after that.
    pub(super) fn render_measured<D: Exiting>(
        &mut self,
        number: usize,
        plan: &Plan,
        shape: Shape,
    ) -> VecCollection<'s, Time, D, Diff> {
        let known = self.analysis.as_ref().and_then(|analysis| analysis.collections.get(&number).cloned());
        let rows = match known {
            Some(rows) => rows,
            None => self.measured(number, plan),
        };
        self.map_whole(rows, plan.schema.len(), shape)
    }
    fn measured(&mut self, number: usize, plan: &Plan) -> Collection<'s> {
        let Some(analysis) = &mut self.analysis else { return self.rows(plan) };
        let reader = analysis.current;
        let node = &mut analysis.counts.nodes[number];
        node.rendered = true;
        let count = Rc::clone(&node.rows);
        let errors = std::mem::replace(&mut self.errors, Rc::clone(&node.errors));
        self.own(number);
        let rows = self.render_node::<Row>(plan, Shape::rows());
        let counted = rows.inner.map(move |update| {
            count.set(count.get() + update.2);
            update
        });
        let rows = collection(counted);
        self.own(reader);
        self.errors = errors;
        if let Some(analysis) = &mut self.analysis {
            analysis.collections.insert(number, rows.clone());
        }
        rows
    }
}
