//! `CROSS JOIN UNNEST(t.x) AS v (c)`, as `LATERAL VIEW EXPLODE(t.x) v AS c`.
//!
//! So are `FROM t, UNNEST(t.x) AS v (c)` and `JOIN UNNEST(t.x) AS v (c) ON TRUE`. An array without columns needs nothing of this: it
//! is a relation of its own, and stays.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint, JoinOperator, LateralView,
    ObjectName, Select, SetExpr, Spanned as _, TableAlias, TableFactor, Value, ValueWithSpan, visit_expressions,
};

use super::super::cursor::Cursor;
use super::super::error::{ParseError, Position, Result};

const FORM: &str = "the form is FROM t CROSS JOIN UNNEST(t.array) AS v (element)";

/// Moves the arrays of columns that FROM unfolds in front of the lateral views, and returns how many there are.
///
/// # Errors
///
/// Other joins than inner ones, more than one array, and what stands behind UNNEST.
pub(super) fn take_unnests(select: &mut Select) -> Result<usize> {
    let mut taken = Vec::new();
    for index in 0..select.from.len() {
        let mut kept: Vec<Join> = Vec::new();
        for join in std::mem::take(&mut select.from[index].joins) {
            match unfolded(&join.relation)? {
                Some(view) => {
                    check_join(&join)?;
                    taken.push(view);
                }
                None => kept.push(join),
            }
        }
        select.from[index].joins = kept;
    }
    let mut index = 1;
    while index < select.from.len() {
        match unfolded(&select.from[index].relation)? {
            Some(view) => {
                taken.push(view);
                let joins = select.from.remove(index).joins;
                let plain = |join: &Join| matches!(join.join_operator, JoinOperator::Join(_) | JoinOperator::Inner(_));
                if let Some(join) = joins.iter().find(|join| !plain(join)) {
                    return Err(ParseError::new(position(&join.relation), "UNNEST cannot be moved out of this join", FORM));
                }
                select.from[index - 1].joins.extend(joins);
            }
            None => index += 1,
        }
    }
    let count = taken.len();
    taken.append(&mut select.lateral_views);
    select.lateral_views = taken;
    Ok(count)
}

/// The view that a relation is, where it unfolds an array of columns.
fn unfolded(relation: &TableFactor) -> Result<Option<LateralView>> {
    let TableFactor::UNNEST { alias, array_exprs, with_offset, with_ordinality, .. } = relation else {
        return Ok(None);
    };
    if !array_exprs.iter().any(reads_columns) {
        return Ok(None);
    }
    if *with_offset || *with_ordinality {
        let message = "UNNEST with the places of elements is not supported";
        return Err(ParseError::new(position(relation), message, FORM));
    }
    let ([array], Some((name, column))) = (array_exprs.as_slice(), alias.as_ref().and_then(names)) else {
        return Err(ParseError::new(position(relation), "UNNEST takes one array and names one column", FORM));
    };
    view(array.clone(), name, column).map(Some)
}

/// What a relation and its one column are called.
fn names(alias: &TableAlias) -> Option<(Ident, Ident)> {
    match alias.columns.as_slice() {
        [] => Some((alias.name.clone(), alias.name.clone())),
        [column] => Some((alias.name.clone(), column.name.clone())),
        _ => None,
    }
}

fn view(array: Expr, name: Ident, column: Ident) -> Result<LateralView> {
    let written = Cursor::new("SELECT 0 FROM t LATERAL VIEW EXPLODE(0) v AS c")?.body()?.query;
    let view = match *written.body {
        SetExpr::Select(mut select) => select.lateral_views.pop(),
        _ => None,
    };
    let mut view = view.expect("written above");
    if let Expr::Function(function) = &mut view.lateral_view
        && let FunctionArguments::List(list) = &mut function.args
    {
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(array))];
    }
    view.lateral_view_name = ObjectName::from(vec![name]);
    view.lateral_col_alias = vec![column];
    Ok(view)
}

fn reads_columns(expression: &Expr) -> bool {
    visit_expressions(expression, |part| match part {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// Only joins that keep every pair are lateral views.
fn check_join(join: &Join) -> Result<()> {
    let constraint = match &join.join_operator {
        JoinOperator::CrossJoin(constraint) | JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => constraint,
        _ => {
            let help = "join it by CROSS JOIN, and add the rows whose array is empty with UNION ALL";
            return Err(ParseError::new(position(&join.relation), "UNNEST in an outer join is not supported", help));
        }
    };
    let keeps_all = match constraint {
        JoinConstraint::None => true,
        JoinConstraint::On(Expr::Value(ValueWithSpan { value: Value::Boolean(truth), .. })) => *truth,
        _ => false,
    };
    if keeps_all {
        return Ok(());
    }
    let help = "join it by CROSS JOIN, and put the condition into WHERE";
    Err(ParseError::new(position(&join.relation), "UNNEST is joined by a condition", help))
}

fn position(relation: &TableFactor) -> Position {
    match relation {
        TableFactor::UNNEST { array_exprs, .. } => array_exprs.first().map_or(relation.span(), Expr::span).start.into(),
        _ => relation.span().start.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_error};

    #[test]
    fn arrays_of_a_relation_wrap_it() {
        let expected = "SELECT t.id, t.x FROM (SELECT *, unnest(t.a) AS x FROM t) AS t";
        check("SELECT t.id, u.x FROM t CROSS JOIN UNNEST(t.a) AS u (x)", expected);
        check("SELECT t.id, u.x FROM t, UNNEST(t.a) AS u (x)", expected);
        check("SELECT t.id, u.x FROM t JOIN UNNEST(t.a) AS u (x) ON TRUE", expected);
        check("SELECT u FROM t, UNNEST(a) AS u", "SELECT u FROM (SELECT *, unnest(a) AS u FROM t) AS t");
    }

    #[test]
    fn joins_behind_it_see_its_column() {
        check(
            "SELECT d.n FROM t CROSS JOIN UNNEST(t.a) AS u (x) JOIN d ON d.x = u.x LATERAL VIEW EXPLODE(d.ys) w AS y",
            "SELECT d.n FROM (SELECT *, unnest(t.a) AS x FROM t) AS t \
             JOIN (SELECT *, unnest(d.ys) AS y FROM d) AS d ON d.x = t.x",
        );
        check(
            "SELECT w.y FROM t, UNNEST(t.a) AS u (x), UNNEST(u.x) AS w (y)",
            "SELECT t.y FROM (SELECT *, unnest(t.x) AS y FROM (SELECT *, unnest(t.a) AS x FROM t) AS t) AS t",
        );
    }

    #[test]
    fn arrays_without_columns_stay() {
        check("SELECT * FROM t, UNNEST([1, 2]) AS u (x)", "SELECT * FROM t, UNNEST([1, 2]) AS u (x)");
    }

    #[test]
    fn other_forms_are_refused() {
        check_error(
            "SELECT * FROM t LEFT JOIN UNNEST(t.a) AS u (x) ON TRUE",
            34,
            "UNNEST in an outer join is not supported",
        );
        check_error("SELECT * FROM t JOIN UNNEST(t.a) AS u (x) ON u.x = t.id", 29, "UNNEST is joined by a condition");
        check_error("SELECT * FROM t, UNNEST(t.a, t.b) AS u (x, y)", 25, "UNNEST takes one array and names one column");
        check_error(
            "SELECT * FROM t, UNNEST(t.a) WITH ORDINALITY AS u (x)",
            25,
            "UNNEST with the places of elements is not supported",
        );
    }
}
