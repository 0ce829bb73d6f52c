//! NOT IN as NOT EXISTS, where the optimizer's own way does not see the NULLs.
//!
//! `x NOT IN (SELECT y ..)` is true where no row has a `y` for which `x = y` is not false. The optimizer knows that for a NOT IN that
//! stands alone in a WHERE and whose subquery says nothing of the row outside: that one stays. Under OR it forgets about NULLs, and
//! where the subquery is correlated it looks for them among all rows. Those become `NOT EXISTS (SELECT .. WHERE (x = y) IS NOT
//! FALSE)`; an IN under NOT becomes the same without NOT. In a WHERE, false and NULL are the same, so nothing is lost.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ExprSchema, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::logical_plan::Filter;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit, not,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{Optimizer, OptimizerConfig, OptimizerRule};

use crate::error::SqlError;

/// The rule that turns subqueries into joins.
const DECORRELATES: &str = "decorrelate_predicate_subquery";

/// The optimizer's rules with this one where it belongs.
pub(super) fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let before = rules.iter().position(|rule| rule.name() == DECORRELATES).unwrap_or(0);
    rules.insert(before, Arc::new(NotIn));
    rules
}

#[derive(Debug)]
struct NotIn;

impl OptimizerRule for NotIn {
    fn name(&self) -> &str {
        "not_in_as_not_exists"
    }
    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }
    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        let mut changed = false;
        let mut conjuncts = split_conjunction_owned(filter.predicate.clone());
        for conjunct in &mut conjuncts {
            let alone = matches!(conjunct, Expr::InSubquery(asked) if asked.subquery.outer_ref_columns.is_empty());
            if !alone {
                *conjunct = rewrite(conjunct.clone(), true, &filter.input, &mut changed)?;
            }
        }
        Ok(match conjunction(conjuncts) {
            Some(predicate) if changed => Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)),
            _ => Transformed::no(LogicalPlan::Filter(filter)),
        })
    }
}

/// The predicate with every IN put in other words that must not take NULL for false: a NOT IN where truth makes the row stay
/// (`positive`), an IN where it makes the row go.
fn rewrite(predicate: Expr, positive: bool, input: &LogicalPlan, changed: &mut bool) -> Result<Expr> {
    Ok(match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let left = rewrite(*left, positive, input, changed)?;
            let right = rewrite(*right, positive, input, changed)?;
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        }
        Expr::Not(inner) => not(rewrite(*inner, !positive, input, changed)?),
        Expr::InSubquery(asked) if asked.negated == positive && !is_compared(&asked) => match exists(&asked, input)? {
            Some(exists) => {
                *changed = true;
                exists
            }
            None => Expr::InSubquery(asked),
        },
        Expr::InSubquery(asked) if is_compared(&asked) => {
            // A row that is there even where nothing matches: a comparison with its value.
            *changed = true;
            let value = Expr::ScalarSubquery(asked.subquery);
            let asks = if asked.negated { Operator::NotEq } else { Operator::Eq };
            Expr::BinaryExpr(BinaryExpr::new(asked.expr, asks, Box::new(value)))
        }
        Expr::Exists(asked) if gives_one_row(&asked.subquery.subquery) => {
            *changed = true;
            lit(!asked.negated)
        }
        other => {
            refuse_inside(&other, input)?;
            other
        }
    })
}
/// Refuses an IN whose NULL matters to what is around it: the optimizer's joins know true and false alone.
fn refuse_inside(expression: &Expr, input: &LogicalPlan) -> Result<()> {
    if matches!(expression, Expr::InSubquery(_)) {
        return Ok(());
    }
    let unknown = expression.exists(|part| match part {
        Expr::InSubquery(asked) => may_be_unknown(asked, input),
        _ => Ok(false),
    })?;
    if !unknown {
        return Ok(());
    }
    let help = "use it in WHERE, with AND, OR and NOT, or join the subquery";
    Err(SqlError::new("IN with a subquery cannot stand inside another expression, because it may be NULL", help).into())
}
/// Whether a subquery is an aggregate over all of its rows: one row, whatever they are.
fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => gives_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}
/// Whether the comparison that IN makes is NULL for some rows.
fn may_be_unknown(asked: &InSubquery, input: &LogicalPlan) -> Result<bool> {
    let rows = &asked.subquery.subquery;
    let value = Expr::Column(Column::from(rows.schema().qualified_field(0)));
    Ok(asked.expr.nullable(input.schema())? || value.nullable(rows.schema())?)
}

/// Whether a correlated IN asks about one value.
fn is_compared(asked: &InSubquery) -> bool {
    !asked.subquery.outer_ref_columns.is_empty() && gives_one_row(&asked.subquery.subquery)
}

/// Whether there is a row for which the comparison is not false; None where it is never NULL.
fn exists(asked: &InSubquery, input: &LogicalPlan) -> Result<Option<Expr>> {
    let rows = &asked.subquery.subquery;
    let value = Expr::Column(Column::from(rows.schema().qualified_field(0)));
    let has_outer = asked.expr.exists(|part| Ok(matches!(part, Expr::OuterReferenceColumn(..))))?;
    if has_outer || !may_be_unknown(asked, input)? {
        return Ok(None);
    }
    let mut outer = asked.subquery.outer_ref_columns.clone();
    let outside = asked.expr.as_ref().clone().transform_up(|part| {
        let Expr::Column(column) = part else { return Ok(Transformed::no(part)) };
        let field = Arc::clone(input.schema().field_from_column(&column)?);
        let reference = Expr::OuterReferenceColumn(field, column);
        if !outer.contains(&reference) {
            outer.push(reference.clone());
        }
        Ok(Transformed::yes(reference))
    })?;
    let matching = outside.data.eq(value).is_not_false();
    let subquery = LogicalPlanBuilder::from(rows.as_ref().clone()).filter(matching)?.build()?;
    let subquery = Subquery { subquery: Arc::new(subquery), outer_ref_columns: outer, spans: asked.subquery.spans.clone() };
    Ok(Some(Expr::Exists(Exists { subquery, negated: asked.negated })))
}
