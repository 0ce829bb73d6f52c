//! The tables that a statement reads.

use std::ops::ControlFlow;

use sqlparser::ast::{Query, Spanned as _, TableFactor, Visit, Visitor};

use super::error::Position;
use super::identity::Identity;
use super::rewrite::LOOKUP_SUFFIX;
use super::statement::{CopySource, Name, Statement, fold};

/// Returns the tables that a statement reads, each once, in the order of the text.
///
/// Subqueries count, names of common table expressions and table functions do not. A table that is updated, deleted from or
/// merged into is read too. A lookup table counts by its own name, before and after rewriting.
pub fn table_names(statement: &Statement) -> Vec<Name> {
    let mut reads = Reads::default();
    reads.statement(statement);
    reads.names
}

/// Returns what a statement reads of the identity function, each once, and where it stands first.
pub fn identities(statement: &Statement) -> Vec<IdentityRead> {
    let mut reads = Reads::default();
    reads.statement(statement);
    let identity = |(name, at): (&Name, &Position)| {
        let of_common_table = reads.of_common_tables.contains(name);
        Some(IdentityRead { identity: Identity::of(name)?, position: *at, of_common_table })
    };
    reads.names.iter().zip(&reads.places).filter_map(identity).collect()
}

/// A place where the identity function is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRead {
    /// What is read.
    pub identity: Identity,
    /// Where.
    pub position: Position,
    /// Whether its links are a common table expression there, of which there is no such table.
    pub of_common_table: bool,
}

#[derive(Default)]
struct Reads {
    names: Vec<Name>,
    /// Where each name stands first.
    places: Vec<Position>,
    /// Those that are the identity of a common table expression.
    of_common_tables: Vec<Name>,
    scopes: Vec<Scope>,
}

/// The common table expressions of one query. A name counts only behind its definition: `WITH t AS (SELECT .. FROM t)` reads a
/// table called t.
struct Scope {
    names: Vec<String>,
    /// The definitions, by address, to notice when one of them is left.
    bodies: Vec<*const Query>,
    visible: usize,
}

impl Reads {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Query(body) | Statement::Repair { body, .. } => self.tree(&body.query),
            Statement::Insert(insert) => self.tree(&insert.body.query),
            Statement::CreateView(view) => self.tree(&view.body.query),
            Statement::CreateDynamicTable(table) => self.tree(&table.body.query),
            Statement::CreateFunction(function) => self.tree(&function.body),
            Statement::CopyInto(copy) => self.copy(&copy.source),
            Statement::CreatePipe(pipe) => self.copy(&pipe.copy.source),
            Statement::Update(update) => self.tree(&**update),
            Statement::Delete(delete) => self.tree(&**delete),
            Statement::Merge(merge) => self.tree(&**merge),
            Statement::Refresh(table) => self.add(table.clone(), Position { line: 1, column: 1 }),
            Statement::Explain { statement, .. } => self.statement(&statement.node),
            Statement::StatementSet(members) => {
                members.iter().for_each(|member| self.statement(&member.node));
            }
            _ => {}
        }
    }

    fn copy(&mut self, source: &CopySource) {
        if let CopySource::Query(body) = source {
            self.tree(&body.query);
        }
    }

    fn tree(&mut self, tree: &impl Visit) {
        // Nothing breaks the visit off.
        let _ = tree.visit(self);
    }

    fn add(&mut self, name: Name, at: Position) {
        if !self.names.contains(&name) {
            self.names.push(name);
            self.places.push(at);
        }
    }

    fn is_common_table(&self, name: &Name) -> bool {
        let [name] = name.parts() else { return false };
        self.scopes.iter().any(|scope| scope.names.iter().take(scope.visible).any(|n| n == name))
    }
}

impl Visitor for Reads {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        let names: Vec<String> = tables.clone().map(|cte| fold(&cte.alias.name)).collect();
        let is_recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        self.scopes.push(Scope {
            visible: if is_recursive { names.len() } else { 0 },
            names,
            bodies: tables.map(|cte| std::ptr::from_ref(&*cte.query)).collect(),
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        if let Some(scope) = self.scopes.last_mut()
            && scope.bodies.contains(&std::ptr::from_ref(query))
        {
            scope.visible += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: None, .. } = factor {
            let at = name.span().start.into();
            let name = without_suffix(name.into());
            if Identity::of(&name).is_some_and(|identity| self.is_common_table(&identity.links)) {
                self.of_common_tables.push(name.clone());
            }
            if !self.is_common_table(&name) {
                self.add(name, at);
            }
        }
        ControlFlow::Continue(())
    }
}

/// Returns a table's own name where a rewrite has marked it as a lookup table.
fn without_suffix(name: Name) -> Name {
    let Some(own) = name.object().strip_suffix(LOOKUP_SUFFIX) else {
        return name;
    };
    let schema = name.parts().iter().take(name.parts().len() - 1).cloned();
    Name::new(schema.chain([own.to_string()]))
}
