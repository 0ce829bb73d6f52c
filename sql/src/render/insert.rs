//! Renders continuous INSERTs: the changes of a query as commands for a table, or as changes for a sink.
//!
//! A lookup join's output is not a function of the tables, so it cannot be retracted row by row. Its query is rendered
//! twice: gains probe ([`Renderer::gains`]); losses are followed by key alone, through projections down to the
//! lookup's left side, without probing ([`Renderer::losses`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deltaworks_dataflow::arrange::collection;
use deltaworks_dataflow::row::split_fields;
use deltaworks_dataflow::{Collection, Command, Diff, Row, Time};
use deltaworks_operators::commands::{Target, commands};
use deltaworks_operators::consolidate::consolidate;
use deltaworks_operators::gather::gather;
use deltaworks_operators::stamp::{stamp, stamp_changes};
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::{Filter, Map};

use super::Renderer;
use super::merge::MergeSpecification;
use super::shape::Shape;
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::plan::{Join, Node, Plan};

/// The table that a continuous INSERT writes.
#[derive(Clone, Debug)]
pub struct InsertTarget {
    /// Its key columns; empty where it has none.
    pub key: Vec<usize>,
    /// Whether its merge engine subtracts retracted rows.
    pub retract: bool,
    /// The number of the statement.
    pub statement: u32,
    /// Where the statement is a MERGE: its clauses. The plan's rows are then the key, followed by the source row.
    pub merge: Option<MergeSpecification>,
    /// Set when the INSERT is dropped: nothing is written from then on. Set between ticks only, so that all workers stop at
    /// the same one.
    pub stopped: Arc<AtomicBool>,
}

/// The keys of a lost row, over the columns of the first plan below the lookups; or why they cannot be known.
fn lost_keys(plan: &Plan, keys: Vec<ScalarExpr>) -> Result<(&Plan, Vec<ScalarExpr>), SqlError> {
    match &plan.node {
        Node::Project { input, expressions } if input.has_lookup() => {
            lost_keys(input, keys.iter().map(|key| key.substitute(expressions)).collect())
        }
        Node::Filter { input, .. } if input.has_lookup() => lost_keys(input, keys),
        Node::Join(join) if join.kind.is_lookup() => {
            let left = join.left.schema.len();
            let mut read = std::collections::BTreeSet::new();
            keys.iter().for_each(|key| key.columns(&mut read));
            if read.iter().any(|column| *column >= left) {
                return Err(SqlError::new(
                    "the key of the target table depends on the looked-up side of a lookup join",
                    "make the target's PRIMARY KEY of columns of the left side only",
                ));
            }
            lost_keys(&join.left, keys)
        }
        _ if plan.has_lookup() => Err(SqlError::new(
            "a lookup join cannot stand below this operation",
            "apply it after the lookups' result is in a table",
        )),
        _ => Ok((plan, keys)),
    }
}

/// Checks that a query with lookup joins can be inserted into a table with the key columns `key`.
///
/// # Errors
/// Where the rows that the query loses could not be found again.
pub fn check_lookups(plan: &Plan, key: &[usize]) -> Result<(), SqlError> {
    if !plan.has_lookup() {
        return Ok(());
    }
    if key.is_empty() {
        return Err(SqlError::new(
            "the result of a lookup join is never revised and needs a table with a PRIMARY KEY",
            "insert it into a keyed table, its key made of columns of the left side only",
        ));
    }
    let types = plan.schema.types();
    lost_keys(plan, key.iter().map(|c| ScalarExpr::column(*c, types[*c].clone())).collect()).map(|_| ())
}

impl<'s> Renderer<'_, '_, 's> {
    /// The commands that a query's changes ask of a table, gains stamped where `stamp_column` says.
    ///
    /// # Errors
    /// [`check_lookups`].
    pub fn commands(
        &mut self,
        plan: &Plan,
        target: &InsertTarget,
        stamp_column: Option<usize>,
    ) -> Result<StreamVec<'s, Time, Command>, SqlError> {
        let stopped = Arc::clone(&target.stopped);
        let goes_on = move |_: &Command| !stopped.load(Ordering::SeqCst);
        if let Some(merge) = &target.merge {
            return Ok(self.merges(plan, merge, target.statement).filter(goes_on));
        }
        let command_target = Target {
            key: target.key.clone(),
            retract: target.retract,
            merge: None,
            statement: target.statement,
            start: self.build.start,
        };
        let (rows, deletes) = if plan.has_lookup() {
            let gains = self.gains(plan);
            (self.map_whole(gains, plan.schema.len(), Shape::rows()), Some(self.losses(plan, &target.key)?))
        } else {
            (self.rows(plan), None)
        };
        let rows = match stamp_column {
            Some(column) => self.stamp_gains(rows, column, !target.retract && !target.key.is_empty()),
            None => rows,
        };
        Ok(commands(rows, deletes, command_target, "Insert").filter(goes_on))
    }
    /// The changes of a query for a sink, stamped where `stamp_column` says. Where only the first row of a key is sent,
    /// `left_out` is given by key how many others there are.
    pub fn sink(
        &mut self,
        plan: &Plan,
        stamp_column: Option<usize>,
        name: &str,
        each: impl FnMut(Time, Vec<(Row, Diff)>) + 'static,
        left_out: impl FnMut(Time, Vec<(Row, Diff)>) + 'static,
    ) {
        let rows = match &plan.node {
            Node::TopK(top_k) if top_k.before_sink => {
                let (first, others) = self.first_rows(top_k);
                self.gather(others, "LeftOut", left_out);
                first
            }
            _ => self.rows(plan),
        };
        let rows = self.stamped(rows, stamp_column);
        self.gather(rows, name, each);
    }
    fn gather(&mut self, rows: Collection<'s>, name: &str, each: impl FnMut(Time, Vec<(Row, Diff)>) + 'static) {
        let done = gather(rows, self.build.start, name, each);
        self.build.watch(done);
    }
    /// The rows of a view, stamped where `stamp_column` says.
    pub fn view(&mut self, name: &str, plan: &Plan, stamp_column: Option<usize>) {
        let rows = self.rows(plan);
        let rows = self.stamped(rows, stamp_column);
        if !self.define_chunked(name, plan, &rows) {
            self.define(name, rows);
        }
    }
    fn stamped(&mut self, rows: Collection<'s>, column: Option<usize>) -> Collection<'s> {
        let Some(column) = column else { return rows };
        let (clock, start) = (self.clock(), self.build.start);
        let bare = rows.map(move |row| without_column(&row, column));
        stamp(bare, clock, column, start, "WriteStamp")
    }
    /// Commands' rows: a gain is stamped with its tick; a loss goes by key, so its stamp does not matter.
    fn stamp_gains(&mut self, rows: Collection<'s>, column: usize, by_key: bool) -> Collection<'s> {
        if !by_key {
            return self.stamped(rows, Some(column));
        }
        let (clock, start) = (self.clock(), self.build.start);
        let bare = rows.map(move |row| without_column(&row, column));
        stamp_changes(bare, clock, column, start, "WriteStamp")
    }

    /// The query's rows where lookup joins are below: each gain of their left side, probed once.
    fn gains(&mut self, plan: &Plan) -> Collection<'s> {
        match &plan.node {
            Node::Project { input, expressions } if input.has_lookup() => {
                let rows = self.gains(input);
                self.map_whole(rows, input.schema.len(), Shape::rows().after_project(&input.schema, expressions))
            }
            Node::Filter { input, predicate } if input.has_lookup() => {
                let rows = self.gains(input);
                self.map_whole(rows, input.schema.len(), Shape::rows().after_filter(&input.schema, predicate))
            }
            Node::Join(join) if join.kind.is_lookup() => self.probe(join),
            _ => {
                let rows = consolidate(self.rows(plan), "Consolidate");
                collection(rows.inner.flat_map(|(row, time, diff)| (diff > 0).then_some((row, time, diff))))
            }
        }
    }
    fn probe(&mut self, join: &Join) -> Collection<'s> {
        let gains = self.gains(&join.left);
        self.lookup(join, gains, Shape::rows())
    }
    /// The keys of the rows that the query loses.
    fn losses(&mut self, plan: &Plan, key: &[usize]) -> Result<Collection<'s>, SqlError> {
        let types = plan.schema.types();
        let keys = key.iter().map(|c| ScalarExpr::column(*c, types[*c].clone())).collect();
        let (base, keys) = lost_keys(plan, keys)?;
        let rows = consolidate(self.rows(base), "Consolidate");
        let lost = collection(rows.inner.flat_map(|(row, time, diff)| (diff < 0).then_some((row, time, -diff))));
        Ok(self.map_whole(lost, base.schema.len(), Shape::rows().after_project(&base.schema, &keys)))
    }
}

/// The row without one column: the place that a stamp will take.
pub(super) fn without_column(row: &[u8], column: usize) -> Row {
    let (before, rest) = split_fields(row, column);
    Row::from_bytes(&[before, split_fields(rest, 1).1].concat())
}
