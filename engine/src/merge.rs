//! MERGE INTO: taken apart here, run once in `merge/once.rs`, kept running in `merge/continuous.rs`.
//!
//! The clauses are tried in their order, and the first whose kind and condition fit decides. Conditions and values are planned
//! as the select list of a join of source and target, so that names mean there what they mean in any query.

mod continuous;
mod once;

pub(crate) use once::described;

use std::collections::BTreeMap;

use deltaworks_operators::merge::Engine as MergeEngine;
use deltaworks_sql::parser::{ColumnName, Name, fold, rewrite};
use sqlparser::ast::{self, Spanned as _};

use crate::catalog::Table;
use crate::error::EngineError;
use crate::query::short;
use crate::write::{assignments, parse_query};

type Result<T> = std::result::Result<T, EngineError>;

/// The column that numbers the target's rows: NULL where none matches.
const TARGET_ROW: &str = "$row";
/// The column that is true in the source's rows: NULL where none matches.
const SOURCE_ROW: &str = "$source";

/// A MERGE taken apart.
struct Parts {
    /// The source as it stands behind USING.
    source: ast::TableFactor,
    /// How the clauses call source and target.
    source_alias: String,
    target_alias: String,
    target_name: String,
    on: ast::Expr,
    clauses: Vec<Clause>,
}

/// When a clause applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Matched,
    NotMatched,
    NotMatchedBySource,
}

/// One WHEN .. THEN.
struct Clause {
    when: When,
    condition: Option<ast::Expr>,
    action: Action,
}

/// What a clause does; columns by their places in the table.
enum Action {
    Delete,
    /// The columns that are assigned; the others stay.
    Update(BTreeMap<usize, ast::Expr>),
    /// The columns that are given; the others have their default.
    Insert(BTreeMap<usize, ast::Expr>),
}

impl Parts {
    /// Takes a MERGE into `table`, the qualified `name`, apart.
    fn new(merge: &ast::Merge, name: &str, table: &Table) -> Result<Parts> {
        let mut merge = merge.clone();
        rewrite(&mut merge)?;
        if merge.output.is_some() {
            return Err(EngineError::new("MERGE has no OUTPUT clause here", "read the table afterwards"));
        }
        let clauses: Vec<Clause> = merge.clauses.iter().map(|clause| Clause::new(clause, table)).collect::<Result<_>>()?;
        if clauses.iter().any(|clause| matches!(clause.action, Action::Update(_))) {
            check_updatable(name, table)?;
        }
        let target_alias = alias_of(&merge.table)?;
        let target_name = match &merge.table {
            ast::TableFactor::Table { name, .. } => name.to_string(),
            _ => return Err(EngineError::new("MERGE INTO takes a table", "write MERGE INTO table USING ..")),
        };
        Ok(Parts {
            source_alias: alias_of(&merge.source)?,
            source: merge.source,
            target_alias,
            target_name,
            on: *merge.on,
            clauses,
        })
    }
    fn has(&self, when: When) -> bool {
        self.clauses.iter().any(|clause| clause.when == when)
    }
    /// `SELECT <items> FROM <source> <join> <target> ON <on>`; the target's rows are numbered.
    fn query(&self, join: &str, items: Vec<ast::Expr>) -> Result<ast::Query> {
        let (source, target, name) = (&self.source_alias, &self.target_alias, &self.target_name);
        let text = format!(
            "SELECT 1 FROM (SELECT *, TRUE AS \"{SOURCE_ROW}\" FROM x) AS {source} \
             {join} JOIN (SELECT *, ROW_NUMBER() OVER () AS \"{TARGET_ROW}\" FROM {name}) AS {target} ON TRUE"
        );
        let body = parse_query(&text)?;
        let mut query = *body.query;
        let skeleton = || EngineError::new("the MERGE could not be turned into a query", "");
        let ast::SetExpr::Select(select) = &mut *query.body else { return Err(skeleton()) };
        let from = select.from.first_mut().ok_or_else(skeleton)?;
        *derived_source(&mut from.relation).ok_or_else(skeleton)? = self.source.clone();
        let join = from.joins.first_mut().ok_or_else(skeleton)?;
        *constraint(&mut join.join_operator).ok_or_else(skeleton)? = ast::JoinConstraint::On(self.on.clone());
        let named = |(place, expr): (usize, ast::Expr)| ast::SelectItem::ExprWithAlias {
            expr,
            alias: ast::Ident::with_quote('"', format!("column {place}")),
        };
        select.projection = items.into_iter().enumerate().map(named).collect();
        Ok(query)
    }
    fn target_column(&self, column: &str) -> Result<ast::Expr> {
        expression(&format!("{}.\"{column}\"", self.target_alias))
    }
    /// Whether a row of the join is of the kind that the clause is for, and its condition.
    fn fires(&self, clause: &Clause) -> Result<ast::Expr> {
        let (source, target) = (&self.source_alias, &self.target_alias);
        let kind = expression(&match clause.when {
            When::Matched => {
                format!("{target}.\"{TARGET_ROW}\" IS NOT NULL AND {source}.\"{SOURCE_ROW}\" IS NOT NULL")
            }
            When::NotMatched => format!("{target}.\"{TARGET_ROW}\" IS NULL"),
            When::NotMatchedBySource => format!("{source}.\"{SOURCE_ROW}\" IS NULL"),
        })?;
        Ok(match &clause.condition {
            None => kind,
            Some(condition) => ast::Expr::BinaryOp {
                left: Box::new(kind),
                op: ast::BinaryOperator::And,
                right: Box::new(ast::Expr::Nested(Box::new(condition.clone()))),
            },
        })
    }
    /// What the clause writes into a column; None for its default.
    fn value(&self, clause: &Clause, table: &Table, place: usize) -> Result<Option<ast::Expr>> {
        match &clause.action {
            Action::Insert(given) => Ok(given.get(&place).cloned()),
            Action::Update(assigned) => match assigned.get(&place) {
                Some(value) => Ok(Some(value.clone())),
                None => self.target_column(&table.schema.columns[place].name).map(Some),
            },
            Action::Delete => Ok(None),
        }
    }
}

impl Clause {
    fn new(clause: &ast::MergeClause, table: &Table) -> Result<Clause> {
        let when = match clause.clause_kind {
            ast::MergeClauseKind::Matched => When::Matched,
            ast::MergeClauseKind::NotMatched | ast::MergeClauseKind::NotMatchedByTarget => When::NotMatched,
            ast::MergeClauseKind::NotMatchedBySource => When::NotMatchedBySource,
        };
        let oracle =
            || EngineError::new("MERGE has no WHERE behind an action", "write the condition as WHEN MATCHED AND .. THEN");
        let action = match &clause.action {
            ast::MergeAction::Delete { .. } => Action::Delete,
            ast::MergeAction::Update(update) => {
                if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                    return Err(oracle());
                }
                Action::Update(assignments(&update.assignments, table)?)
            }
            ast::MergeAction::Insert(insert) if insert.insert_predicate.is_some() => return Err(oracle()),
            ast::MergeAction::Insert(insert) => Action::Insert(inserted(insert, table)?),
        };
        let inserts = matches!(action, Action::Insert(_));
        if inserts != (when == When::NotMatched) {
            return Err(EngineError::new(
                format!("WHEN {} cannot {}", clause.clause_kind, if inserts { "INSERT" } else { "UPDATE or DELETE" }),
                "a source row without a target row is inserted; a target row is updated or deleted",
            ));
        }
        Ok(Clause { when, condition: clause.predicate.clone(), action })
    }
}

/// The columns that an INSERT of a MERGE gives.
fn inserted(insert: &ast::MergeInsertExpr, table: &Table) -> Result<BTreeMap<usize, ast::Expr>> {
    let ast::MergeInsertKind::Values(values) = &insert.kind else {
        return Err(EngineError::new("MERGE .. INSERT ROW is not known here", "write INSERT (columns) VALUES (values)"));
    };
    let [row] = &values.rows[..] else {
        return Err(EngineError::new("MERGE inserts one row per source row", "write VALUES once, with one row"));
    };
    let column = |name: &ast::ObjectName| ColumnName {
        name: Name::from(name).object().to_string(),
        position: name.span().start.into(),
    };
    let listed: Vec<ColumnName> = insert.columns.iter().map(column).collect();
    let places = table.places_for(&listed, row.content.len())?;
    Ok(places.into_iter().zip(row.content.iter().cloned()).collect())
}
/// A merge engine that decides itself what a row becomes takes no updates.
pub(crate) fn check_updatable(name: &str, table: &Table) -> Result<()> {
    let engine = table.merge.as_ref().map(|merge| &merge.engine);
    if matches!(engine, None | Some(MergeEngine::LastRow | MergeEngine::PartialUpdate)) {
        return Ok(());
    }
    Err(EngineError::new(
        format!("table \"{}\" cannot be updated: its merge engine decides what a row becomes", short(name)),
        "insert a row that the engine folds in, or use a table without a merge engine",
    ))
}
/// How a query calls a relation, as it is written.
fn alias_of(factor: &ast::TableFactor) -> Result<String> {
    let alias = match factor {
        ast::TableFactor::Table { alias, name, .. } => match alias {
            Some(alias) => Some(alias.name.clone()),
            None => name.0.last().and_then(|part| part.as_ident().cloned()),
        },
        ast::TableFactor::Derived { alias, .. } => alias.as_ref().map(|alias| alias.name.clone()),
        _ => None,
    };
    match alias {
        Some(alias) if alias.quote_style.is_some() => Ok(alias.to_string()),
        Some(alias) => Ok(fold(&alias)),
        None => Err(EngineError::new("a subquery of MERGE has no name", "write USING (SELECT ..) AS s")),
    }
}
/// The relation inside the skeleton's `(SELECT * FROM x)`.
fn derived_source(relation: &mut ast::TableFactor) -> Option<&mut ast::TableFactor> {
    let ast::TableFactor::Derived { subquery, .. } = relation else { return None };
    let ast::SetExpr::Select(select) = &mut *subquery.body else { return None };
    select.from.first_mut().map(|from| &mut from.relation)
}
fn constraint(join: &mut ast::JoinOperator) -> Option<&mut ast::JoinConstraint> {
    match join {
        ast::JoinOperator::Join(constraint)
        | ast::JoinOperator::Inner(constraint)
        | ast::JoinOperator::Left(constraint)
        | ast::JoinOperator::LeftOuter(constraint)
        | ast::JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}
fn expression(text: &str) -> Result<ast::Expr> {
    let body = parse_query(&format!("SELECT {text}"))?;
    let ast::SetExpr::Select(select) = *body.query.body else {
        return Err(EngineError::new(format!("\"{text}\" is no expression"), ""));
    };
    match select.projection.into_iter().next() {
        Some(ast::SelectItem::UnnamedExpr(expr)) => Ok(expr),
        _ => Err(EngineError::new(format!("\"{text}\" is no expression"), "")),
    }
}
