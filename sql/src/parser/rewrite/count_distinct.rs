//! `COUNT(DISTINCT a, b)`: the number of different pairs without a NULL in them.
//!
//! DataFusion counts one argument. The pair becomes a struct, and since a struct with a NULL inside is itself not NULL, a CASE
//! keeps such rows out, as the standard wants it. A column of a select list that nobody named is called as it was written.

use std::convert::Infallible;
use std::ops::ControlFlow;

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    BinaryOperator, CaseWhen, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, Select, SelectItem, Value, VisitMut, VisitorMut, visit_expressions,
    visit_expressions_mut,
};

use super::is_called;

/// Rewrites every `COUNT(DISTINCT a, b, ..)` of a tree.
pub fn merge_distinct_counts(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Names);
    let _: ControlFlow<()> = visit_expressions_mut(tree, |expression| {
        if let Expr::Function(function) = expression {
            merge(function);
        }
        ControlFlow::Continue(())
    });
}

/// Names the columns that count pairs after the text that is there before the rewrite.
struct Names;
impl VisitorMut for Names {
    type Break = Infallible;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Infallible> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && counts_pairs(expr)
            {
                let alias = Ident::with_quote('"', expr.to_string());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }
}
fn counts_pairs(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |part| match part {
        Expr::Function(function) if pairs_of(function).is_some() => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}
/// The arguments of a `COUNT(DISTINCT a, b, ..)` of several.
fn pairs_of(function: &Function) -> Option<&FunctionArgumentList> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    (is_called(&function.name, "count") && distinct && list.args.len() > 1).then_some(list)
}

fn merge(function: &mut Function) {
    if pairs_of(function).is_none() {
        return;
    }
    let template = function.clone();
    let FunctionArguments::List(list) = &mut function.args else { return };
    let parts: Option<Vec<Expr>> = list.args.iter().map(expression).collect();
    let Some(parts) = parts else { return };
    if let Some(condition) = all_present(&parts) {
        list.args = vec![argument(when(condition, as_struct(template, parts)))];
    }
}

fn expression(argument: &FunctionArg) -> Option<Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
        _ => None,
    }
}

fn argument(expression: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expression))
}

/// `a IS NOT NULL AND b IS NOT NULL`
fn all_present(parts: &[Expr]) -> Option<Expr> {
    let present = |part: &Expr| Expr::IsNotNull(Box::new(operand(part)));
    parts.iter().map(present).reduce(|left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(right),
    })
}

/// Puts an expression in parentheses unless it holds together by itself, so that it prints as it is meant.
fn operand(part: &Expr) -> Expr {
    match part {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Function(_) | Expr::Nested(_) => part.clone(),
        _ => Expr::Nested(Box::new(part.clone())),
    }
}

/// `CASE WHEN condition THEN result END`
fn when(condition: Expr, result: Expr) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: None,
    }
}

/// `named_struct('c0', a, 'c1', b)`, which takes the place of `count` in a copy of its call.
fn as_struct(call: Function, parts: Vec<Expr>) -> Expr {
    let name = |i: usize| argument(Expr::value(Value::SingleQuotedString(format!("c{i}"))));
    let args = parts.into_iter().enumerate().flat_map(|(i, part)| [name(i), argument(part)]).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("named_struct")]),
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
        ..call
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn pairs_become_structs() {
        check(
            "SELECT count(DISTINCT t.a, b + 1) FILTER (WHERE c) FROM t HAVING COUNT(DISTINCT x, y, z) > 1",
            "SELECT count(DISTINCT CASE WHEN t.a IS NOT NULL AND (b + 1) IS NOT NULL THEN named_struct('c0', t.a, 'c1', b + 1) END) \
             FILTER (WHERE c) AS \"count(DISTINCT t.a, b + 1) FILTER (WHERE c)\" FROM t HAVING COUNT(DISTINCT CASE WHEN x IS NOT NULL AND y IS NOT NULL AND z IS NOT NULL \
             THEN named_struct('c0', x, 'c1', y, 'c2', z) END) > 1",
        );
    }

    #[test]
    fn one_argument_and_no_distinct_stay() {
        for query in ["SELECT COUNT(DISTINCT a) FROM t", "SELECT COUNT(a, b) FROM t", "SELECT f(DISTINCT a, b) FROM t"] {
            check(query, query);
        }
    }
}
