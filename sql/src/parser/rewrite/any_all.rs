//! `x > ALL (SELECT x FROM t)`: the column of the subquery gets a name of its own.
//!
//! DataFusion compares it with what stands outside below one name: where both are columns of one table, it would compare the
//! subquery's rows with themselves.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, SelectItem, SetExpr, VisitMut, visit_expressions_mut};

/// No name that is written begins so.
const NAME: &str = "$compared";

/// Names the columns of all subqueries behind ANY, SOME and ALL.
pub(super) fn name_compared(tree: &mut impl VisitMut) {
    let _: ControlFlow<()> = visit_expressions_mut(tree, |expr| {
        if let Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } = expr
            && let Expr::Subquery(query) = &mut **right
        {
            name_column(&mut query.body);
        }
        ControlFlow::Continue(())
    });
}

/// A set operation takes its names from its first query.
fn name_column(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            if let [item] = &mut select.projection[..]
                && let SelectItem::UnnamedExpr(expr) = item
            {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', NAME) };
            }
        }
        SetExpr::Query(query) => name_column(&mut query.body),
        SetExpr::SetOperation { left, .. } => name_column(left),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn what_is_compared_has_a_name_of_its_own() {
        check(
            "SELECT a FROM t WHERE a > ALL(SELECT a FROM t) AND b = ANY(SELECT b AS c FROM t)",
            "SELECT a FROM t WHERE a > ALL(SELECT a AS \"$compared\" FROM t) AND b = ANY(SELECT b AS c FROM t)",
        );
        check(
            "SELECT a FROM t WHERE a < SOME(SELECT MAX(a) FROM t UNION SELECT b FROM t)",
            "SELECT a FROM t WHERE a < SOME(SELECT MAX(a) AS \"$compared\" FROM t UNION SELECT b FROM t)",
        );
    }
}
