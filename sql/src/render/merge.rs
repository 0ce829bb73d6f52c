//! Renders continuous MERGE statements: a source row becomes a command on the key that it looks up, and the clauses are asked
//! where that key's row is folded.
//!
//! ```text
//! source query -> key ++ source row -> commands (Merge) -> the table's fold, which asks Clauses -> upsert, delete or nothing
//! ```
//!
//! The table's dataflow may have been built long before the statement, so the clauses are handed over through what the dataflows
//! of a table share on a worker.

use std::cell::Cell;
use std::rc::Rc;

use deltaworks_dataflow::row::{encode_bool, encode_null, is_null_field, nth_field};
use deltaworks_dataflow::{Command, Diff, Row, Time};
use deltaworks_operators::commands::{Target, commands};
use deltaworks_operators::merge::{Applied, Apply, Merges};
use timely::dataflow::StreamVec;

use super::Renderer;
use crate::expr::{EvalErrors, Evaluator, ScalarExpr};
use crate::plan::Plan;

/// A continuous MERGE. Expressions are over the target's columns, then the source's. Plain data.
#[derive(Clone, Debug)]
pub struct MergeSpecification {
    /// The table's name as [`TableSpec::feed`](super::TableSpec::feed) gives it.
    pub feed: String,
    /// The number of key columns; they lead the rows of the statement's plan.
    pub key_columns: usize,
    /// The number of the target's columns.
    pub target_columns: usize,
    /// The target's columns that may not be NULL.
    pub required: Vec<usize>,
    /// What a row of the same key must fulfil to match, beside the key; None where nothing.
    pub matches: Option<ScalarExpr>,
    /// WHEN .. THEN, in order.
    pub clauses: Vec<MergeClause>,
}

/// One WHEN .. THEN.
#[derive(Clone, Debug)]
pub struct MergeClause {
    /// Whether it is for source rows that match.
    pub matched: bool,
    /// Its condition.
    pub condition: Option<ScalarExpr>,
    /// The row that it writes; None where it deletes.
    pub row: Option<Vec<ScalarExpr>>,
}

/// The clauses of a statement, made ready.
struct Clauses {
    matches: Option<Evaluator>,
    clauses: Vec<Clause>,
    required: Vec<usize>,
    /// A target row of NULLs.
    absent: Vec<u8>,
    scratch: Vec<u8>,
}
struct Clause {
    matched: bool,
    condition: Option<Evaluator>,
    row: Option<Evaluator>,
}

impl Clauses {
    fn new(spec: &MergeSpecification, errors: &Rc<EvalErrors>) -> Clauses {
        let ready = |expressions: Vec<ScalarExpr>| Evaluator::new(expressions, Rc::clone(errors));
        let clause = |clause: &MergeClause| Clause {
            matched: clause.matched,
            condition: clause.condition.clone().map(|condition| ready(vec![condition])),
            row: clause.row.clone().map(ready),
        };
        let mut absent = Vec::new();
        (0..spec.target_columns).for_each(|_| encode_null(&mut absent));
        Clauses {
            matches: spec.matches.clone().map(|matches| ready(vec![matches])),
            clauses: spec.clauses.iter().map(clause).collect(),
            required: spec.required.clone(),
            absent,
            scratch: Vec::new(),
        }
    }
}

/// Whether a condition is true of a row; NULL is not.
fn holds(condition: &mut Option<Evaluator>, parts: &[&[u8]], scratch: &mut Vec<u8>) -> bool {
    let Some(condition) = condition else { return true };
    scratch.clear();
    condition.set_diff(1);
    condition.eval_parts(parts, scratch);
    let mut yes = Vec::new();
    encode_bool(&mut yes, true);
    *scratch == yes
}

impl Apply for Clauses {
    fn apply(&mut self, current: Option<&[u8]>, source: &[u8]) -> Applied {
        let found = current.filter(|target| holds(&mut self.matches, &[target, source], &mut self.scratch));
        let parts = [found.unwrap_or(&self.absent), source];
        for clause in self.clauses.iter_mut().filter(|clause| clause.matched == found.is_some()) {
            if !holds(&mut clause.condition, &parts, &mut self.scratch) {
                continue;
            }
            let Some(row) = &mut clause.row else { return Applied::Delete };
            self.scratch.clear();
            row.set_diff(1);
            row.eval_parts(&parts, &mut self.scratch);
            if self.required.iter().any(|column| is_null_field(nth_field(&self.scratch, *column))) {
                return Applied::Rejected("NULL in a column that is NOT NULL or part of the key");
            }
            return Applied::Upsert(Row::from_bytes(&self.scratch));
        }
        Applied::Keep
    }
}

impl<'s> Renderer<'_, '_, 's> {
    /// The commands of a continuous MERGE with the number `statement`, whose plan gives key ++ source row.
    pub(super) fn merges(&mut self, plan: &Plan, spec: &MergeSpecification, statement: u32) -> StreamVec<'s, Time, Command> {
        let merges: Rc<Merges> = self.build.shared(&spec.feed);
        merges.add(statement, Box::new(Clauses::new(spec, &self.errors)));
        let ignored: Rc<Cell<u64>> = Rc::default();
        let shown = Rc::clone(&ignored);
        let line = move || {
            let count = Diff::try_from(shown.get()).unwrap_or(Diff::MAX);
            vec![("source rows taken back, which MERGE ignores".to_string(), count, Vec::new())]
        };
        self.build.observe(&self.view, line);
        let target = Target {
            key: (0..spec.key_columns).collect(),
            retract: false,
            merge: Some(ignored),
            statement,
            start: self.build.start,
        };
        commands(self.rows(plan), None, target, "Merge")
    }
}
