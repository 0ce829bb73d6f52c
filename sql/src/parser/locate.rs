//! Where a name stands in a statement, for errors that name something but do not say where.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, ObjectName, Visit, Visitor};

use super::error::Position;

/// Where a column, function or table of that name (its last part, in any case) is written first.
pub fn place_of(tree: &impl Visit, name: &str) -> Option<Position> {
    let name = name.rsplit('.').next().unwrap_or(name);
    match tree.visit(&mut Search { name }) {
        ControlFlow::Break(place) => Some(place),
        ControlFlow::Continue(()) => None,
    }
}

struct Search<'a> {
    name: &'a str,
}
impl Search<'_> {
    /// Stops where the last of the parts is the name, at the first of them.
    fn check<'i>(&self, parts: impl IntoIterator<Item = &'i Ident>) -> ControlFlow<Position> {
        let parts: Vec<&Ident> = parts.into_iter().collect();
        let found = parts.last().is_some_and(|last| last.value.eq_ignore_ascii_case(self.name));
        match parts.first().map(|first| first.span.start) {
            Some(start) if found && start.line > 0 => ControlFlow::Break(start.into()),
            _ => ControlFlow::Continue(()),
        }
    }
    fn check_name(&self, name: &ObjectName) -> ControlFlow<Position> {
        self.check(name.0.iter().filter_map(|part| part.as_ident()))
    }
}
impl Visitor for Search<'_> {
    type Break = Position;

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Position> {
        self.check_name(name)
    }
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Position> {
        match expr {
            Expr::Identifier(name) => self.check([name]),
            Expr::CompoundIdentifier(parts) => self.check(parts),
            Expr::Function(function) => self.check_name(&function.name),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{Statement, parse_script};

    #[test]
    fn names_are_found_where_they_are_written_first() {
        let Statement::Query(body) = parse_script("SELECT a, f(t.b)\nFROM s.t").unwrap().remove(0).node else { panic!() };
        let place = |name| place_of(&*body.query, name).map(|at| (at.line, at.column));
        assert_eq!(place("F"), Some((1, 11)));
        assert_eq!(place("t.b"), Some((1, 13)));
        assert_eq!(place("t"), Some((2, 6)));
        assert_eq!(place("nowhere"), None);
    }
}
