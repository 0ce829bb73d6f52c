//! `LATERAL VIEW EXPLODE(x) v AS c`: a row for each element of an array.
//!
//! `FROM f t LATERAL VIEW EXPLODE(x) v AS c` becomes `FROM (SELECT *, unnest(x) AS c FROM f t) AS t`, and `v.c` becomes `t.c`. In a
//! join the relation that `x` comes from is wrapped. This is the same only where the join keeps all rows of that relation's matches:
//! for every relation of inner joins, and for the first one of left joins. Rows whose array is empty or NULL go, as without
//! `OUTER`.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, JoinOperator, LateralView, ObjectName, Query,
    Select, SelectItem, SetExpr, Spanned as _, TableFactor, TableWithJoins, VisitMut, VisitorMut, visit_expressions,
    visit_expressions_mut,
};

use super::super::cursor::Cursor;
use super::super::error::{ParseError, Position, Result};
use super::super::statement::fold;
use super::unnest::take_unnests;
use super::{alias, finish, flow, is_called, last_ident};

const FORM: &str = "the form is FROM t LATERAL VIEW EXPLODE(array) v AS element";

/// Rewrites every `LATERAL VIEW` of a tree.
///
/// # Errors
///
/// Other functions than `EXPLODE`, `OUTER`, and joins that the view cannot be moved into.
pub fn explode_lateral_views(tree: &mut impl VisitMut) -> std::result::Result<(), ParseError> {
    struct Queries;
    impl VisitorMut for Queries {
        type Break = ParseError;
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<ParseError> {
            flow(in_query(query))
        }
    }
    finish(tree.visit(&mut Queries))
}

fn in_query(query: &mut Query) -> Result<()> {
    let renamed = in_set(&mut query.body)?;
    if let Some(order) = &mut query.order_by {
        rename(order, &renamed);
    }
    Ok(())
}

/// Rewrites the SELECTs of a set expression and returns what ORDER BY may still call by the view's name.
fn in_set(set: &mut SetExpr) -> Result<Vec<Renamed>> {
    match set {
        SetExpr::Select(select) => in_select(select),
        SetExpr::SetOperation { left, right, .. } => {
            in_set(left)?;
            in_set(right)?;
            Ok(Vec::new())
        }
        _ => Ok(Vec::new()),
    }
}

/// A view's column, and the relation that it belongs to now.
struct Renamed {
    view: String,
    relation: Ident,
}

fn in_select(select: &mut Select) -> Result<Vec<Renamed>> {
    let mut renamed = Vec::new();
    let unnested = take_unnests(select)?;
    for view in std::mem::take(&mut select.lateral_views) {
        let relation = explode(&mut select.from, &view, &renamed)?;
        if let Some(name) = last_ident(&view.lateral_view_name) {
            renamed.push(Renamed { view: fold(name), relation });
        }
    }
    // What UNNEST unfolds is known to the joins behind it.
    for join in select.from.iter_mut().flat_map(|tables| &mut tables.joins) {
        rename(&mut join.join_operator, &renamed[..unnested]);
    }
    // A lateral view is not known inside FROM: what has its name there is something else.
    let from = std::mem::take(&mut select.from);
    rename(select, &renamed);
    select.from = from;
    Ok(renamed)
}

/// Wraps the relation that a view unfolds and returns its name.
fn explode(from: &mut [TableWithJoins], view: &LateralView, renamed: &[Renamed]) -> Result<Ident> {
    let (mut function, column) = parts(view)?;
    rename(&mut function.args, renamed);
    let relation = relation(from, &function, view)?;
    let name = match own_name(relation) {
        Some(name) => name,
        None => last_ident(&view.lateral_view_name).cloned().unwrap_or_else(|| column.clone()),
    };
    wrap(relation, function, column, name.clone())?;
    Ok(name)
}

/// Returns the call of `EXPLODE` and the column's name.
fn parts(view: &LateralView) -> Result<(Function, Ident)> {
    let at = position(view);
    let function = match &view.lateral_view {
        Expr::Function(function) if is_called(&function.name, "explode") => function.clone(),
        other => {
            let message = format!("unsupported LATERAL VIEW of \"{other}\"");
            return Err(ParseError::new(at, message, FORM));
        }
    };
    if view.outer {
        let help = "leave out OUTER, and add the rows whose array is empty with UNION ALL";
        return Err(ParseError::new(at, "LATERAL VIEW OUTER is not supported", help));
    }
    match (view.lateral_col_alias.as_slice(), argument(&function)) {
        ([column], Some(_)) => Ok((function, column.clone())),
        _ => Err(ParseError::new(at, "LATERAL VIEW takes one array and names one column", FORM)),
    }
}

fn argument(function: &Function) -> Option<&Expr> {
    match &function.args {
        FunctionArguments::List(list) => match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(array))] => Some(array),
            _ => None,
        },
        _ => None,
    }
}

fn position(view: &LateralView) -> Position {
    view.lateral_view.span().start.into()
}

/// Finds the relation that an array comes from.
fn relation<'a>(from: &'a mut [TableWithJoins], function: &Function, view: &LateralView) -> Result<&'a mut TableFactor> {
    let is_alone = matches!(&*from, [only] if only.joins.is_empty());
    let qualifier = if is_alone { None } else { qualifier(function) };
    let fits =
        |factor: &TableFactor| is_alone || qualifier.is_some() && own_name(factor).map(|name| fold(&name)) == qualifier;
    for tables in from {
        let keeps_all = tables.joins.iter().all(|join| is_inner(&join.join_operator));
        let keeps_first = tables.joins.iter().all(|join| is_inner_or_left(&join.join_operator));
        if fits(&tables.relation) && keeps_first {
            return Ok(&mut tables.relation);
        }
        let joined = tables.joins.iter_mut().map(|join| &mut join.relation);
        if let Some(found) = joined.into_iter().find(|factor| fits(factor))
            && keeps_all
        {
            return Ok(found);
        }
    }
    Err(ParseError::new(
        position(view),
        "LATERAL VIEW cannot be moved into this join",
        "qualify the array's column, or put the join into a subquery: FROM (SELECT .. FROM a JOIN b ON ..) t LATERAL VIEW ..",
    ))
}

fn is_inner(operator: &JoinOperator) -> bool {
    matches!(operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
}

fn is_inner_or_left(operator: &JoinOperator) -> bool {
    is_inner(operator) || matches!(operator, JoinOperator::Left(_) | JoinOperator::LeftOuter(_))
}

/// Returns the one relation that all columns of the array are qualified with.
fn qualifier(function: &Function) -> Option<String> {
    let mut qualifiers: Vec<Option<String>> = Vec::new();
    let _: ControlFlow<()> = visit_expressions(&function.args, |expression| {
        match expression {
            Expr::Identifier(_) => qualifiers.push(None),
            Expr::CompoundIdentifier(parts) => qualifiers.push(parts.first().map(fold)),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let first = qualifiers.first()?.clone();
    qualifiers.iter().all(|other| *other == first).then_some(first)?
}

/// Returns what a relation is called in its query.
fn own_name(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        TableFactor::Table { name, .. } => last_ident(name).cloned(),
        _ => None,
    }
}

/// Puts `(SELECT *, unnest(array) AS column FROM relation) AS name` in the place of a relation.
fn wrap(relation: &mut TableFactor, mut function: Function, column: Ident, name: Ident) -> Result<()> {
    let mut query = Cursor::new("SELECT *, 0 FROM t")?.body()?.query;
    let SetExpr::Select(select) = &mut *query.body else {
        return Ok(());
    };
    function.name = ObjectName::from(vec![Ident::new("unnest")]);
    select.projection.pop();
    select.projection.push(SelectItem::ExprWithAlias { expr: Expr::Function(function), alias: column });
    let Some(inner) = select.from.first_mut() else {
        return Ok(());
    };
    std::mem::swap(&mut inner.relation, relation);
    *relation = TableFactor::Derived { lateral: false, subquery: query, alias: Some(alias(name)), sample: None };
    Ok(())
}

/// Replaces `view.column` by `relation.column`.
fn rename(tree: &mut impl VisitMut, renamed: &[Renamed]) {
    let _: ControlFlow<()> = visit_expressions_mut(tree, |expression| {
        if let Expr::CompoundIdentifier(parts) = expression
            && let Some(first) = parts.first_mut()
            && let Some(new) = renamed.iter().find(|renamed| renamed.view == fold(first))
        {
            *first = new.relation.clone();
        }
        ControlFlow::Continue(())
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_error};

    #[test]
    fn the_relation_keeps_its_name() {
        check(
            "SELECT t.a, user_id FROM (SELECT ids FROM s) t LATERAL VIEW EXPLODE(ids) tmp AS user_id WHERE tmp.user_id > 1 ORDER BY tmp.user_id",
            "SELECT t.a, user_id FROM (SELECT *, unnest(ids) AS user_id FROM (SELECT ids FROM s) t) AS t WHERE t.user_id > 1 ORDER BY t.user_id",
        );
        check(
            "SELECT c FROM s.t LATERAL VIEW explode(split(x, ',')) v AS c",
            "SELECT c FROM (SELECT *, unnest(split(x, ',')) AS c FROM s.t) AS t",
        );
        check(
            "SELECT v.c FROM (SELECT ids FROM s) LATERAL VIEW explode(ids) v AS c",
            "SELECT v.c FROM (SELECT *, unnest(ids) AS c FROM (SELECT ids FROM s)) AS v",
        );
    }

    #[test]
    fn views_may_follow_each_other() {
        check(
            "SELECT v.c, w.d FROM t LATERAL VIEW EXPLODE(xs) v AS c LATERAL VIEW EXPLODE(v.c) w AS d",
            "SELECT t.c, t.d FROM (SELECT *, unnest(t.c) AS d FROM (SELECT *, unnest(xs) AS c FROM t) AS t) AS t",
        );
    }

    #[test]
    fn views_may_follow_each_other_in_a_join() {
        check(
            "SELECT w.d FROM a JOIN b ON true LATERAL VIEW EXPLODE(b.x) v AS c LATERAL VIEW EXPLODE(v.c) w AS d",
            "SELECT b.d FROM a JOIN (SELECT *, unnest(b.c) AS d FROM (SELECT *, unnest(b.x) AS c FROM b) AS b) AS b ON true",
        );
    }

    #[test]
    fn a_views_name_means_nothing_inside_from() {
        check(
            "SELECT v.c FROM (SELECT v.x FROM v) t LATERAL VIEW EXPLODE(x) v AS c",
            "SELECT t.c FROM (SELECT *, unnest(x) AS c FROM (SELECT v.x FROM v) t) AS t",
        );
    }

    #[test]
    fn subqueries_and_unions_are_reached() {
        check(
            "SELECT c FROM t LATERAL VIEW EXPLODE(x) v AS c UNION ALL SELECT (SELECT MAX(c) FROM u LATERAL VIEW EXPLODE(y) v AS c)",
            "SELECT c FROM (SELECT *, unnest(x) AS c FROM t) AS t UNION ALL \
             SELECT (SELECT MAX(c) FROM (SELECT *, unnest(y) AS c FROM u) AS u)",
        );
    }

    #[test]
    fn in_a_join_the_arrays_relation_is_wrapped() {
        check(
            "SELECT a.x, v.c FROM a JOIN b ON a.id = b.id LATERAL VIEW EXPLODE(b.ids) v AS c",
            "SELECT a.x, b.c FROM a JOIN (SELECT *, unnest(b.ids) AS c FROM b) AS b ON a.id = b.id",
        );
        check(
            "SELECT a.x, v.c FROM a LEFT JOIN b ON a.id = b.id LATERAL VIEW EXPLODE(a.ids) v AS c",
            "SELECT a.x, a.c FROM (SELECT *, unnest(a.ids) AS c FROM a) AS a LEFT JOIN b ON a.id = b.id",
        );
    }

    #[test]
    fn what_cannot_be_moved_is_refused() {
        let message = "LATERAL VIEW cannot be moved into this join";
        check_error("SELECT c FROM a LEFT JOIN b ON a.id = b.id LATERAL VIEW EXPLODE(b.ids) v AS c", 57, message);
        check_error("SELECT c FROM a RIGHT JOIN b ON a.id = b.id LATERAL VIEW EXPLODE(a.ids) v AS c", 58, message);
        check_error("SELECT c FROM a JOIN b ON a.id = b.id LATERAL VIEW EXPLODE(ids) v AS c", 52, message);
        check_error("SELECT c FROM a, b LATERAL VIEW EXPLODE(concat(a.x, b.x)) v AS c", 33, message);
    }

    #[test]
    fn other_forms_are_refused() {
        check_error("SELECT c FROM a LATERAL VIEW OUTER EXPLODE(x) v AS c", 36, "LATERAL VIEW OUTER is not supported");
        check_error(
            "SELECT c FROM a LATERAL VIEW POSEXPLODE(x) v AS p, c",
            30,
            "unsupported LATERAL VIEW of \"POSEXPLODE(x)\"",
        );
        check_error(
            "SELECT c FROM a LATERAL VIEW EXPLODE(x, y) v AS c",
            30,
            "LATERAL VIEW takes one array and names one column",
        );
    }
}
