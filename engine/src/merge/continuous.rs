//! MERGE INTO that goes on: each tick applies the rows that its source gains.
//!
//! A source row looks one row of the target up by its key, so ON must equate every key column with an expression over the
//! source; what else stands in ON is part of the match. The target is as the commands before it have left it: rows of one tick and
//! key are applied one after another, in encoded-row order. Rows that the source loses are ignored and counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use deltaworks_dataflow::{Column, Datum, Schema};
use deltaworks_operators::merge::Engine as MergeEngine;
use deltaworks_sql::expr::{BinaryOp, ScalarExpr, lower_expr};
use deltaworks_sql::parser::{Body, Statement};
use deltaworks_sql::plan::{Node, Plan};
use deltaworks_sql::render::{MergeClause, MergeSpecification};
use sqlparser::ast;

use super::{Action, Clause, Parts, When};
use crate::catalog::{self, Catalog, InsertKind, Table};
use crate::create::refuse_clock;
use crate::error::EngineError;
use crate::install::spec;
use crate::query::{Continuous, RowsFor, short};
use crate::script::Engine;
use crate::write::parse_query;

type Result<T> = std::result::Result<T, EngineError>;

impl Engine {
    /// MERGE INTO inside EXECUTE STATEMENT SET.
    pub(crate) fn merge_continuously(&mut self, merge: &ast::Merge) -> Result<()> {
        let name = Statement::Merge(Box::new(merge.clone())).target();
        let name = name.ok_or_else(|| EngineError::new("MERGE INTO takes a table", "name a table behind INTO"))?;
        let (target, table) = self.writable(&name)?;
        check_target(&target, &table)?;
        let parts = Parts::new(merge, &target, &table)?;
        let source = self.source_plan(&parts)?;
        self.check_circle(&target, &source.plan)?;
        let (spec, keys) = self.specification(&parts, &target, &table)?;
        let plan = keyed(source.plan, keys);
        let mut reads = BTreeSet::new();
        Catalog::reads(&plan, &mut reads);
        self.check_streams_ahead(&reads)?;
        let statement = self.next_statement();
        self.say(&format!("continuous merge into {}", short(&target)));
        let inserted = catalog::Insert {
            kind: InsertKind::Merge,
            target: target.clone(),
            plan,
            stamp: None,
            calls: source.calls,
            merge: Some(spec),
            statement,
            dataflow: None,
            stopped: Arc::default(),
        };
        self.catalog.inserts.push(inserted);
        self.install_over_installed(&target, &reads)
    }
    fn source_plan(&mut self, parts: &Parts) -> Result<Continuous> {
        let body = parse_query("SELECT * FROM x")?;
        let Body { mut query, hints } = body;
        if let ast::SetExpr::Select(select) = &mut *query.body
            && let Some(from) = select.from.first_mut()
        {
            from.relation = parts.source.clone();
        }
        let source = self.continuous(&Body { query, hints }, RowsFor::Others)?;
        if source.stamp.is_some() || source.plan.has_lookup() {
            return Err(EngineError::new(
                "the source of a continuous MERGE is no function of the tables",
                "put lookup joins and WRITE_TIMESTAMP() into a keyed table, and merge from that",
            ));
        }
        Ok(source)
    }
    /// The clauses over target and source, and per key column what looks it up, over the source alone.
    fn specification(&mut self, parts: &Parts, name: &str, table: &Table) -> Result<(MergeSpecification, Vec<ScalarExpr>)> {
        let pair = Pair { engine: self, parts, table, width: table.schema.len() };
        let (keys, matches) = pair.lookup(name)?;
        let mut clauses = parts.clauses.iter().map(|clause| pair.clause(clause)).collect::<Result<Vec<_>>>()?;
        for row in clauses.iter_mut().filter(|clause| !clause.matched).filter_map(|clause| clause.row.as_mut()) {
            insert_under(table, row, &keys)?;
        }
        let width = table.schema.len();
        let keys = keys.iter().map(|key| key.map_columns(&|column| column - width)).collect();
        let required = (0..width).filter(|column| !table.schema.columns[*column].nullable).collect();
        let (feed, key_columns) = (spec(name, table).feed(), table.key.len());
        Ok((MergeSpecification { feed, key_columns, target_columns: width, required, matches, clauses }, keys))
    }
}

/// Whether every row of the table is decided by its last command, by key.
fn check_target(name: &str, table: &Table) -> Result<()> {
    match table.merge.as_ref().map(|merge| &merge.engine) {
        Some(MergeEngine::LastRow) => Ok(()),
        None => Err(EngineError::new(
            format!("table \"{}\" has no key, and a continuous MERGE looks rows up by it", short(name)),
            "declare a PRIMARY KEY, or run the MERGE outside of EXECUTE STATEMENT SET",
        )),
        Some(_) => Err(EngineError::new(
            format!("table \"{}\" takes no continuous MERGE: its merge engine decides what a row becomes", short(name)),
            "use a table with 'table.merge-engine' = 'last_row'",
        )),
    }
}
/// A row that is inserted must have the key that was looked up: another worker may hold any other.
fn insert_under(table: &Table, row: &mut [ScalarExpr], keys: &[ScalarExpr]) -> Result<()> {
    for (column, key) in table.key.iter().zip(keys) {
        let same = uncast(&row[*column]) == uncast(key);
        row[*column] = key.clone();
        if !same {
            return Err(EngineError::new(
                format!("the MERGE looks column \"{}\" up and inserts another value", table.schema.columns[*column].name),
                "insert the value that ON compares the column with",
            ));
        }
    }
    Ok(())
}
fn reads_only(expression: &ScalarExpr, columns: std::ops::Range<usize>) -> bool {
    let mut read = BTreeSet::new();
    expression.columns(&mut read);
    read.iter().all(|column| columns.contains(column))
}
/// The source's rows with the keys that they look up in front.
fn keyed(source: Plan, keys: Vec<ScalarExpr>) -> Plan {
    let mut columns = Vec::new();
    for (place, key) in keys.iter().enumerate() {
        columns.push(Column::new(format!("key {place}"), key.data_type()));
    }
    let mut expressions = keys;
    for (place, column) in source.schema.columns.iter().enumerate() {
        expressions.push(ScalarExpr::column(place, column.data_type.clone()));
        columns.push(column.clone());
    }
    Plan { node: Node::Project { input: Box::new(source), expressions }, schema: Schema::new(columns) }
}

/// Lowers what a MERGE says of a target row and a source row: the target's columns come first.
struct Pair<'a> {
    engine: &'a Engine,
    parts: &'a Parts,
    table: &'a Table,
    width: usize,
}

impl Pair<'_> {
    fn lower(&self, expression: &ast::Expr) -> Result<ScalarExpr> {
        let Parts { source_alias, target_alias, target_name, .. } = self.parts;
        let body = parse_query(&format!(
            "SELECT 1 FROM (SELECT * FROM {target_name}) AS {target_alias} CROSS JOIN (SELECT * FROM x) AS {source_alias}"
        ))?;
        let mut query = *body.query;
        let unfit = || {
            EngineError::new(
                format!("a continuous MERGE cannot evaluate {expression}"),
                "use expressions over one row of the target and one of the source: no subqueries, no aggregates",
            )
        };
        let ast::SetExpr::Select(select) = &mut *query.body else { return Err(unfit()) };
        let relation = select.from.first_mut().and_then(|from| from.joins.first_mut()).map(|join| &mut join.relation);
        let derived = relation.and_then(super::derived_source).ok_or_else(unfit)?;
        *derived = self.parts.source.clone();
        let alias = ast::Ident::new("value");
        select.projection = vec![ast::SelectItem::ExprWithAlias { expr: expression.clone(), alias }];
        let plan = self.engine.session.logical_plan(&query)?;
        self.engine.check_calls(&plan)?;
        let LogicalPlan::Projection(projection) = &plan else { return Err(unfit()) };
        let [value] = &projection.expr[..] else { return Err(unfit()) };
        if !matches!(&*projection.input, LogicalPlan::Join(_)) {
            return Err(unfit());
        }
        let lowered = lower_expr(value, projection.input.schema())?;
        refuse_clock(&lowered, "of a MERGE")?;
        Ok(lowered)
    }
    /// What each key column is looked up by, and what else a match must fulfil.
    fn lookup(&self, name: &str) -> Result<(Vec<ScalarExpr>, Option<ScalarExpr>)> {
        let mut keys: Vec<Option<ScalarExpr>> = vec![None; self.table.key.len()];
        let mut rest = Vec::new();
        for part in self.lower(&self.parts.on)?.into_conjuncts() {
            match self.key_part(&part) {
                Some((place, value, exact)) if keys[place].is_none() => {
                    keys[place] = Some(value);
                    // A value that had to be cast finds the row that it may be equal to.
                    rest.extend((!exact).then_some(part));
                }
                _ => rest.push(part),
            }
        }
        let missing = keys.iter().zip(&self.table.key).find(|(key, _)| key.is_none());
        if let Some((_, column)) = missing {
            return Err(EngineError::new(
                format!(
                    "the MERGE does not say which key it looks up: ON has no equality for column \"{}\" of \"{}\"",
                    self.table.schema.columns[*column].name,
                    short(name)
                ),
                "equate every column of the PRIMARY KEY with an expression over the source",
            ));
        }
        Ok((keys.into_iter().flatten().collect(), ScalarExpr::conjunction(rest)))
    }
    /// A part of ON that equates a key column with an expression over the source: the column's place in the key, the value in
    /// the column's type, and whether they are then equal.
    fn key_part(&self, part: &ScalarExpr) -> Option<(usize, ScalarExpr, bool)> {
        let ScalarExpr::Binary { op: BinaryOp::Eq, left, right, .. } = part else { return None };
        let of = |key: &ScalarExpr, value: &ScalarExpr| {
            let column = uncast(key).as_column()?;
            let place = self.table.key.iter().position(|key| *key == column)?;
            let exact = key.as_column().is_some();
            let value = value.clone().cast_to(&self.table.schema.columns[column].data_type);
            reads_only(&value, self.width..usize::MAX).then_some((place, value, exact))
        };
        of(left, right).or_else(|| of(right, left))
    }
    fn clause(&self, clause: &Clause) -> Result<MergeClause> {
        if clause.when == When::NotMatchedBySource {
            return Err(EngineError::new(
                "a continuous MERGE has no WHEN NOT MATCHED BY SOURCE: its source is the rows of one tick",
                "delete by a condition of WHEN MATCHED, or run the MERGE outside of EXECUTE STATEMENT SET",
            ));
        }
        let condition = clause.condition.as_ref().map(|condition| self.lower(condition)).transpose()?;
        let row = if matches!(clause.action, Action::Delete) { None } else { Some(self.row(clause)?) };
        if let Some(key) = self.table.key.iter().find(|key| assigns(clause, **key)) {
            return Err(EngineError::new(
                format!("a continuous MERGE cannot change the key column \"{}\"", self.table.schema.columns[*key].name),
                "leave it as it is, or run the MERGE outside of EXECUTE STATEMENT SET",
            ));
        }
        Ok(MergeClause { matched: clause.when == When::Matched, condition, row })
    }
    /// The row that a clause writes, computed columns included.
    fn row(&self, clause: &Clause) -> Result<Vec<ScalarExpr>> {
        let mut delivered = Vec::new();
        for place in &self.table.delivered {
            let column = &self.table.schema.columns[*place];
            let value = match (self.parts.value(clause, self.table, *place)?, self.table.defaults.get(place)) {
                (Some(value), _) => self.lower(&value)?,
                (None, Some(default)) => self.engine.session.expression(default, &Schema::default())?,
                (None, None) => ScalarExpr::literal(Datum::Null, column.data_type.clone()),
            };
            refuse_clock(&value, &column.name)?;
            delivered.push(value.cast_to(&column.data_type));
        }
        Ok(match &self.table.computed {
            Some(computed) => computed.iter().map(|expression| expression.substitute(&delivered)).collect(),
            None => delivered,
        })
    }
}

fn assigns(clause: &Clause, column: usize) -> bool {
    matches!(&clause.action, Action::Update(assigned) if assigned.contains_key(&column))
}
/// A value without the casts around it.
fn uncast(expression: &ScalarExpr) -> &ScalarExpr {
    match expression {
        ScalarExpr::Cast { input, .. } => uncast(input),
        other => other,
    }
}
