//! MERGE INTO, one-shot: reads at the newest complete tick and writes as one tick.
//!
//! *On ties*: two source rows that would change one target row, or write one key, are an error that names it, and nothing is
//! written. A target row that matches several source rows of which at most one fires a clause is fine.

use std::collections::BTreeSet;

use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, try_cast};
use datafusion::prelude::lit;
use deltaworks_connectors::format::text::write_plain;
use deltaworks_dataflow::row::{is_null_field, project, split_field};
use deltaworks_dataflow::{CommandKind, Datum, Row, Schema};
use deltaworks_operators::merge::Engine as MergeEngine;
use deltaworks_sql::parser::{Statement, table_names};
use sqlparser::ast;

use super::{Action, Parts, SOURCE_ROW, TARGET_ROW, When, expression};
use crate::catalog::Table;
use crate::error::EngineError;
use crate::query::{Answered, short};
use crate::script::Engine;
use crate::write::{check_not_null, loss, moves};

type Result<T> = std::result::Result<T, EngineError>;

/// What a MERGE did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) inserted: usize,
    pub(crate) updated: usize,
    pub(crate) deleted: usize,
}

/// Columns of the join before the target's own: the number of the target's row, and whether there is a source row.
const MARKS: usize = 2;

impl Engine {
    /// MERGE INTO, once.
    pub(crate) fn merge_once(&mut self, merge: &ast::Merge) -> Result<Merged> {
        let target = Statement::Merge(Box::new(merge.clone())).target();
        let target = target.ok_or_else(|| EngineError::new("MERGE INTO takes a table", "name a table behind INTO"))?;
        let (qualified, table) = self.writable(&target)?;
        let parts = Parts::new(merge, &qualified, &table)?;
        let names = table_names(&Statement::Merge(Box::new(merge.clone())));
        self.check_names(&names)?;
        let plan = self.merge_plan(&parts, &table)?;
        let Answered { result: joined, failures } = self.run(plan, &names)?;
        let mut outcome = Outcome::new(&qualified, &table, &parts);
        joined.rows.iter().try_for_each(|row| outcome.take(row))?;
        let (merged, changes) = outcome.finish();
        self.write(&qualified, &table, changes)?;
        self.count_failures(&qualified, failures);
        Ok(merged)
    }
    /// Source joined with target: marks, the target's columns, and per clause whether it fires and what it writes.
    fn merge_plan(&mut self, parts: &Parts, table: &Table) -> Result<LogicalPlan> {
        let mut items = vec![
            expression(&format!("{}.\"{TARGET_ROW}\"", parts.target_alias))?,
            expression(&format!("{}.\"{SOURCE_ROW}\"", parts.source_alias))?,
        ];
        for column in &table.schema.columns {
            items.push(parts.target_column(&column.name)?);
        }
        // Per item behind the marks and the target's columns: the place in the table that it is cast for, and whether its
        // default stands in for it.
        let mut casts: Vec<Option<(usize, bool)>> = vec![None; items.len()];
        for clause in &parts.clauses {
            items.push(parts.fires(clause)?);
            casts.push(None);
            if matches!(clause.action, Action::Delete) {
                continue;
            }
            for place in &table.delivered {
                let value = parts.value(clause, table, *place)?;
                casts.push(Some((*place, value.is_none())));
                items.push(match value {
                    Some(value) => only_when(parts.fires(clause)?, value)?,
                    None => expression("NULL")?,
                });
            }
        }
        let join = if parts.has(When::NotMatchedBySource) { "FULL OUTER" } else { "LEFT OUTER" };
        let plan = self.session.logical_plan(&parts.query(join, items)?)?;
        let columns = plan.schema().columns();
        let mut expressions = Vec::with_capacity(columns.len());
        for (column, cast) in columns.into_iter().zip(casts) {
            let name = column.name.clone();
            expressions.push(match cast {
                None => Expr::Column(column),
                Some((place, true)) => lit(self.default_value(table, place)?).alias(name),
                Some((place, false)) => {
                    try_cast(Expr::Column(column), table.schema.columns[place].data_type.to_arrow()).alias(name)
                }
            });
        }
        Ok(LogicalPlanBuilder::from(plan).project(expressions)?.build()?)
    }
}

/// What the rows of the join ask for.
struct Outcome<'a> {
    name: &'a str,
    table: &'a Table,
    parts: &'a Parts,
    delivered: Schema,
    /// The numbers of the target rows that a clause changes.
    changed: BTreeSet<Row>,
    /// The keys that are written.
    written: BTreeSet<Row>,
    losses: Vec<(CommandKind, Row)>,
    gains: Vec<(CommandKind, Row)>,
    merged: Merged,
}

impl<'a> Outcome<'a> {
    fn new(name: &'a str, table: &'a Table, parts: &'a Parts) -> Self {
        Outcome {
            name,
            table,
            parts,
            delivered: table.delivered_schema(),
            changed: BTreeSet::new(),
            written: BTreeSet::new(),
            losses: Vec::new(),
            gains: Vec::new(),
            merged: Merged::default(),
        }
    }
    /// Takes one row of the join: the first clause that fires decides.
    fn take(&mut self, row: &[u8]) -> Result<()> {
        let mut rest = row;
        let fields: Vec<&[u8]> = std::iter::from_fn(|| (!rest.is_empty()).then(|| split_field(&mut rest))).collect();
        let width = self.table.schema.len();
        let old = Row::from_bytes(&fields[MARKS..MARKS + width].concat());
        let mut at = MARKS + width;
        let yes = Row::pack([Datum::Bool(true)]);
        for clause in &self.parts.clauses {
            let values = if matches!(clause.action, Action::Delete) { 0 } else { self.table.delivered.len() };
            if fields[at] != &yes[..] {
                at += 1 + values;
                continue;
            }
            let new = Row::from_bytes(&fields[at + 1..at + 1 + values].concat());
            if !is_null_field(fields[0]) && !self.changed.insert(Row::from_bytes(fields[0])) {
                return Err(self.twice("match", &self.described(&old)));
            }
            return self.act(&clause.action, &old, new);
        }
        Ok(())
    }
    fn act(&mut self, action: &Action, old: &[u8], new: Row) -> Result<()> {
        match action {
            Action::Delete => {
                self.merged.deleted += 1;
                self.losses.push(loss(self.table, old));
                return Ok(());
            }
            Action::Update(_) => {
                self.merged.updated += 1;
                // partial_update would keep the old value where the new one is NULL.
                let whole = matches!(self.table.merge.as_ref().map(|m| &m.engine), Some(MergeEngine::PartialUpdate));
                if whole || self.table.key.is_empty() || moves(self.table, old, &new) {
                    self.losses.push(loss(self.table, old));
                }
            }
            Action::Insert(_) => self.merged.inserted += 1,
        }
        check_not_null(&self.delivered, &new)?;
        self.write_key(&new)?;
        self.gains.push((CommandKind::Upsert, new));
        Ok(())
    }
    /// Notes the key that a row writes; a computed key is not known before the row is in the table.
    fn write_key(&mut self, new: &[u8]) -> Result<()> {
        let place = |column: &usize| self.table.delivered.iter().position(|place| place == column);
        let Some(places) = self.table.key.iter().map(place).collect::<Option<Vec<usize>>>() else { return Ok(()) };
        if places.is_empty() {
            return Ok(());
        }
        let mut key = Vec::new();
        project(new, &places, &mut key);
        if self.written.insert(Row::from_bytes(&key)) {
            return Ok(());
        }
        let schema = Schema::new(places.iter().map(|place| self.delivered.columns[*place].clone()).collect());
        Err(self.twice("write", &described(&schema, &key)))
    }
    fn twice(&self, what: &str, row: &str) -> EngineError {
        EngineError::new(
            format!("two source rows of the MERGE {what} the row ({row}) of table \"{}\"", short(self.name)),
            "nothing was written; leave one source row per target row, as with ROW_NUMBER() or GROUP BY in USING",
        )
    }
    /// The key of a target row, or all of a row without one.
    fn described(&self, old: &[u8]) -> String {
        let (schema, key) = (&self.table.schema, &self.table.key);
        if key.is_empty() {
            return described(schema, old);
        }
        let mut bytes = Vec::new();
        project(old, key, &mut bytes);
        described(&Schema::new(key.iter().map(|place| schema.columns[*place].clone()).collect()), &bytes)
    }
    /// All losses first: a new row may take the key of another row that goes.
    fn finish(mut self) -> (Merged, Vec<(CommandKind, Row)>) {
        self.losses.append(&mut self.gains);
        (self.merged, self.losses)
    }
}

/// `name = value` for every column.
pub(crate) fn described(schema: &Schema, mut row: &[u8]) -> String {
    let mut parts = Vec::new();
    for column in &schema.columns {
        let datum = Datum::decode(&mut row, &column.data_type);
        let mut text = Vec::new();
        write_plain(&datum, &column.data_type, &mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let shown = match datum {
            Datum::Null => "NULL".to_string(),
            Datum::Str(_) => format!("'{text}'"),
            _ => text,
        };
        parts.push(format!("{} = {shown}", column.name));
    }
    parts.join(", ")
}
/// A value where the condition holds, else NULL: what is not written is not computed either, and cannot fail.
fn only_when(condition: ast::Expr, value: ast::Expr) -> Result<ast::Expr> {
    let mut case = expression("CASE WHEN TRUE THEN NULL END")?;
    if let ast::Expr::Case { conditions, .. } = &mut case
        && let Some(when) = conditions.first_mut()
    {
        (when.condition, when.result) = (condition, value);
    }
    Ok(case)
}
