//! Lookup joins: `JOIN t FOR SYSTEM_TIME AS OF PROCTIME()`.
//!
//! The parser renames a looked-up table to `t$lookup`. Here the join above it becomes a lookup join, and the table gets its
//! own name back. The result is not a function of the tables (a later change of `t` revises nothing), so it may only go where
//! a left row can be deleted without probing: into a table whose key is made of left columns, or anywhere if the left side is
//! append-only.

use super::join::Parts;
use super::unique::{Columns, plain_columns};
use super::{Result, TableInfo, terms};
use crate::error::SqlError;
use crate::parser::LOOKUP_SUFFIX;
use crate::plan::{ComponentRows, JoinKind, Node, Plan};

/// What lookup joins make of a plan's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupOutput {
    /// The output columns that depend on the left side alone: what a target's key may consist of.
    pub left_columns: Vec<usize>,
    /// Whether the left side is append-only: then the output may go anywhere.
    pub append_only: bool,
}

/// The kind of lookup join that a join is; None where its right side is no looked-up table.
pub(super) fn of_join(parts: &mut Parts, kind: JoinKind, tables: &dyn TableInfo) -> Result<Option<JoinKind>> {
    let Some(table) = looked_up(&mut parts.right) else {
        return Ok(None);
    };
    let kind = match kind {
        JoinKind::Inner => JoinKind::LookupInner,
        JoinKind::Left => JoinKind::LookupLeft,
        _ => return Err(SqlError::new(format!("table \"{table}\" cannot be looked up here"), FORM)),
    };
    let key = tables.table(&table).map(|facts| facts.primary_key).unwrap_or_default();
    if key.is_empty() {
        let message = format!("table \"{table}\" cannot be looked up: it has no PRIMARY KEY");
        return Err(SqlError::new(message, "declare one, or join without FOR SYSTEM_TIME AS OF"));
    }
    let sources = table_columns(&parts.right);
    let matched: Columns =
        plain_columns(&parts.right_keys).into_iter().filter_map(|c| sources.get(c).copied().flatten()).collect();
    if !key.iter().all(|column| matched.contains(column)) {
        let message = format!("table \"{table}\" is looked up, but not by its full PRIMARY KEY");
        return Err(SqlError::new(message, "compare every column of the key with = in ON"));
    }
    Ok(Some(kind))
}

const FORM: &str = "the form is FROM stream [LEFT] JOIN table FOR SYSTEM_TIME AS OF PROCTIME() AS alias ON ..";

/// The looked-up table that a plan reads through projections and filters, which gets its own name back.
fn looked_up(plan: &mut Plan) -> Option<String> {
    match &mut plan.node {
        Node::Get { table, .. } => {
            let own = table.strip_suffix(LOOKUP_SUFFIX)?.to_string();
            table.clone_from(&own);
            Some(own)
        }
        Node::Project { input, .. } | Node::Filter { input, .. } => looked_up(input),
        _ => None,
    }
}

/// For each column of a plan over one table, the table's column that it is.
fn table_columns(plan: &Plan) -> Vec<Option<usize>> {
    match &plan.node {
        Node::Get { columns, .. } => columns.iter().copied().map(Some).collect(),
        Node::Filter { input, .. } => table_columns(input),
        Node::Project { input, expressions } => {
            let below = table_columns(input);
            expressions.iter().map(|e| e.as_column().and_then(|c| below.get(c).copied().flatten())).collect()
        }
        _ => Vec::new(),
    }
}

/// Refuses looked-up tables outside of lookup joins.
pub(super) fn check(plan: &Plan) -> Result<()> {
    let mut stray = None;
    plan.walk(&mut |node| {
        if let Node::Get { table, .. } = &node.node
            && let Some(own) = table.strip_suffix(LOOKUP_SUFFIX)
        {
            stray.get_or_insert_with(|| own.to_string());
        }
    });
    match stray {
        Some(table) => Err(SqlError::new(format!("table \"{table}\" cannot be looked up here"), FORM)),
        None => Ok(()),
    }
}

/// Traces the output back to the left sides of lookup joins.
///
/// # Errors
/// A lookup join over a left side that changes, below anything but projections and filters.
pub(super) fn output(plan: &Plan, tables: &dyn TableInfo) -> Result<Option<LookupOutput>> {
    if !plan.has_lookup() {
        return Ok(None);
    }
    let append_only = is_append_only(plan, tables);
    match left_columns(plan) {
        Some(columns) => Ok(Some(LookupOutput { left_columns: columns.into_iter().collect(), append_only })),
        None if append_only || lookups_append(plan, tables) => {
            Ok(Some(LookupOutput { left_columns: Vec::new(), append_only: true }))
        }
        None => Err(SqlError::new(
            "a lookup join over rows that change cannot be joined or aggregated further",
            "insert its result into a table with a PRIMARY KEY of left columns, and read that table",
        )),
    }
}

/// The columns that are functions of the left side alone; None where something else than a projection, a filter or a further
/// lookup stands on top.
fn left_columns(plan: &Plan) -> Option<Columns> {
    if !plan.has_lookup() {
        return Some((0..plan.schema.len()).collect());
    }
    match &plan.node {
        Node::Project { input, expressions } => {
            let left = left_columns(input)?;
            let stable = |index: &usize| terms::used(&expressions[*index]).is_subset(&left);
            Some((0..expressions.len()).filter(stable).collect())
        }
        Node::Filter { input, .. } => left_columns(input),
        Node::Join(join) if join.kind.is_lookup() && !join.right.has_lookup() => left_columns(&join.left),
        _ => None,
    }
}

/// Whether every lookup join has an append-only left side.
fn lookups_append(plan: &Plan, tables: &dyn TableInfo) -> bool {
    let own = match &plan.node {
        Node::Join(join) if join.kind.is_lookup() => is_append_only(&join.left, tables),
        _ => true,
    };
    own && plan.inputs().into_iter().all(|input| lookups_append(input, tables))
}

/// Whether rows are only ever added to the plan's output.
pub fn is_append_only(plan: &Plan, tables: &dyn TableInfo) -> bool {
    match &plan.node {
        Node::Get { table, .. } => tables.table(table).is_some_and(|facts| facts.append_only),
        Node::Constant { .. } => true,
        Node::Project { .. } | Node::Filter { .. } | Node::Unnest { .. } | Node::Union { .. } | Node::Distinct { .. } => {
            plan.inputs().into_iter().all(|input| is_append_only(input, tables))
        }
        Node::TemporalFilter { input, upper, .. } => upper.is_none() && is_append_only(input, tables),
        Node::DeltaJoin(_) => plan.inputs().into_iter().all(|input| is_append_only(input, tables)),
        Node::Join(join) => match join.kind {
            JoinKind::Inner | JoinKind::Semi => is_append_only(&join.left, tables) && is_append_only(&join.right, tables),
            JoinKind::LookupInner | JoinKind::LookupLeft => is_append_only(&join.left, tables),
            _ => false,
        },
        Node::Components(components) => components.rows == ComponentRows::History,
        Node::Clock { .. } | Node::Lookback(_) | Node::Aggregate(_) | Node::TopK(_) | Node::Window(_) => false,
        Node::Bitmaps(_) => false,
    }
}
