//! A correlated NOT IN as NOT EXISTS.
//!
//! The optimizer turns `x NOT IN (SELECT y FROM s WHERE s.k = t.k)` into a null-aware anti join by `x = y AND s.k = t.k`. Such a
//! join asks whether there is a NULL anywhere on its right side, but the question is whether there is one among the rows of the
//! same `k`: the batch engine refuses it. It says the same without asking about NULLs: keep what has no row with `s.k = t.k` for
//! which `x = y` is not false.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::logical_plan::Join;
use datafusion::logical_expr::{BinaryExpr, Expr, JoinType, LogicalPlan, Operator};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{Optimizer, OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// The rule that makes such joins.
const MAKES_THEM: &str = "decorrelate_predicate_subquery";

/// The optimizer's rules with this one where it belongs.
pub(super) fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let after = rules.iter().position(|rule| rule.name() == MAKES_THEM).map_or(rules.len(), |at| at + 1);
    rules.insert(after, Arc::new(CorrelatedNotIn));
    rules
}

#[derive(Debug)]
struct CorrelatedNotIn;

impl OptimizerRule for CorrelatedNotIn {
    fn name(&self) -> &str {
        "correlated_not_in"
    }
    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }
    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        Ok(match plan {
            LogicalPlan::Join(join) if join.null_aware && join.join_type == JoinType::LeftAnti && join.on.is_empty() => {
                let Some((equal, correlated)) = join.filter.as_ref().and_then(parts) else {
                    return Ok(Transformed::no(LogicalPlan::Join(join)));
                };
                let filter = correlated.and(equal.is_not_false());
                Transformed::yes(LogicalPlan::Join(Join { filter: Some(filter), null_aware: false, ..join }))
            }
            other => Transformed::no(other),
        })
    }
}

/// What IN asks and what the subquery's rows have to do with the row outside; None where they have nothing to do with it.
fn parts(filter: &Expr) -> Option<(Expr, Expr)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => Some(((**left).clone(), (**right).clone())),
        _ => None,
    }
}
