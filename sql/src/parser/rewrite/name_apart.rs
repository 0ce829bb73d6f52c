//! Select lists in which two columns would have one name.
//!
//! DataFusion names a column after its expression without the casts, and refuses two of one name: `SELECT a, a`,
//! `SELECT SUM(x), SUM(CAST(x AS BIGINT))`. Every later one gets an alias, which is the text of the expression; where that is
//! taken too, a mark behind it that [`shown_name`] takes off again. Aggregates that differ in their casts alone are told apart
//! below the select list as well: there a cast is written as a call of [`CAST_MARK`], which planning takes out.

use std::convert::Infallible;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Query, Select,
    SelectItem, SetExpr, VisitMut, VisitorMut, visit_expressions, visit_expressions_mut,
};

use crate::parser::fold;

/// The function around casts in aggregates that differ in them alone: it gives its argument.
pub const CAST_MARK: &str = "as_cast";
/// Stands between a column's name and what tells it from another of that name. No name that is written contains it.
const MARK: char = '\u{1}';

/// A name that is shown as `name` and is none that `name` could be confused with; `what` tells it from others.
pub fn marked_name(name: &str, what: &str) -> String {
    format!("{name}{MARK}{what}")
}
/// A column's name as it is shown.
pub fn shown_name(name: &str) -> &str {
    name.split(MARK).next().unwrap_or_default()
}

/// Tells the columns of every select list of a tree apart.
pub fn name_apart(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Lists { depth: 0 });
}
/// Tells the columns apart that a query gives.
fn name_results_apart(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => list_apart(select, true),
        SetExpr::Query(query) => name_results_apart(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            name_results_apart(left);
            name_results_apart(right);
        }
        _ => {}
    }
}

struct Lists {
    depth: usize,
}
impl VisitorMut for Lists {
    type Break = Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Infallible> {
        if self.depth == 0 {
            name_results_apart(&mut query.body);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }
    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Infallible> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Infallible> {
        list_apart(select, false);
        mark_casts(select);
        ControlFlow::Continue(())
    }
}

/// Gives aliases to items that share a name with an earlier one. A subquery's plain columns keep theirs: there a name that two
/// of them have is ambiguous.
fn list_apart(select: &mut Select, is_result: bool) {
    let star =
        select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut taken: Vec<String> = Vec::new();
    for (place, item) in select.projection.iter_mut().enumerate() {
        let unnamed = matches!(item, SelectItem::UnnamedExpr(_));
        let (expr, name, bare, plain) = match item {
            SelectItem::UnnamedExpr(expr) => {
                (&*expr, written_name(expr), written_name(&without_casts(expr)).to_lowercase(), is_column(expr))
            }
            SelectItem::ExprWithAlias { expr, alias } => (&*expr, fold(alias), fold(alias), true),
            _ => continue,
        };
        // A star brings the column along already.
        let starred = star && unnamed && is_column(expr);
        let marked = taken.contains(&name) || starred;
        if (marked || taken.contains(&bare)) && (is_result || !plain) {
            let alias = if marked { marked_name(&name, &place.to_string()) } else { name.clone() };
            let alias = Ident::with_quote('"', alias);
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
        taken.extend([bare, name]);
    }
}
fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}
/// What a column is called where nothing names it.
fn written_name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => fold(name),
        Expr::CompoundIdentifier(parts) => parts.last().map_or_else(String::new, fold),
        other => other.to_string(),
    }
}
/// The expression without its casts, and with columns that name no table: what DataFusion names it after.
fn without_casts(expr: &Expr) -> Expr {
    let mut expr = expr.clone();
    let _: ControlFlow<()> = visit_expressions_mut(&mut expr, |part| {
        while let Expr::Cast { expr: inner, .. } | Expr::Nested(inner) = part {
            *part = (**inner).clone();
        }
        if let Expr::CompoundIdentifier(parts) = part
            && let Some(name) = parts.last()
        {
            *part = Expr::Identifier(name.clone());
        }
        ControlFlow::Continue(())
    });
    expr
}

/// Marks the casts of aggregates that would have one name without them.
fn mark_casts(select: &mut Select) {
    let mut calls: Vec<(String, String)> = Vec::new();
    let _: ControlFlow<()> = visit_expressions(select, |part| {
        if let Expr::Function(_) = part {
            let both = (without_casts(part).to_string().to_lowercase(), part.to_string().to_lowercase());
            if !calls.contains(&both) {
                calls.push(both);
            }
        }
        ControlFlow::Continue(())
    });
    let collides = |bare: &String| calls.iter().filter(|(other, _)| other == bare).count() > 1;
    if !calls.iter().any(|(bare, _)| collides(bare)) {
        return;
    }
    let _: ControlFlow<()> = visit_expressions_mut(select, |part| {
        if collides(&without_casts(part).to_string().to_lowercase())
            && let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = part
        {
            list.args.iter_mut().for_each(mark_argument);
        }
        ControlFlow::Continue(())
    });
}
fn mark_argument(argument: &mut FunctionArg) {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument else { return };
    let _: ControlFlow<()> = visit_expressions_mut(expr, |part| {
        if let Expr::Cast { data_type, .. } = part {
            let named = Expr::value(sqlparser::ast::Value::SingleQuotedString(data_type.to_string()));
            let args = [part.clone(), named].map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).into();
            *part = call(CAST_MARK, args);
        }
        ControlFlow::Continue(())
    });
}
fn call(name: &str, args: Vec<FunctionArg>) -> Expr {
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_name_that_is_taken_becomes_another() {
        check("SELECT x, CAST(x AS BIGINT) FROM t", "SELECT x, CAST(x AS BIGINT) AS \"CAST(x AS BIGINT)\" FROM t");
        check("SELECT a.id, b.id FROM a, b", "SELECT a.id, b.id AS \"id\u{1}1\" FROM a, b");
        check("SELECT *, x FROM t", "SELECT *, x AS \"x\u{1}1\" FROM t");
        assert_eq!(shown_name("id\u{1}1"), "id");
    }
    #[test]
    fn aggregates_that_differ_in_casts_are_told_apart() {
        check(
            "SELECT SUM(x), SUM(CAST(x AS BIGINT)) FROM t",
            "SELECT SUM(x), SUM(as_cast(CAST(x AS BIGINT), 'BIGINT')) AS \"SUM(CAST(x AS BIGINT))\" FROM t",
        );
    }
    #[test]
    fn lists_without_two_of_one_name_stay() {
        for query in [
            "SELECT x, y, SUM(CAST(x AS INT)) FROM t",
            "SELECT * FROM (SELECT a.id, b.id FROM a, b)",
            "SELECT x AS a, CAST(x AS INT) AS b FROM t",
        ] {
            check(query, query);
        }
    }
}
