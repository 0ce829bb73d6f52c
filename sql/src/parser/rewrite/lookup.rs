//! Lookup joins: `JOIN t FOR SYSTEM_TIME AS OF PROCTIME() AS a`.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Select, Spanned as _, TableFactor, TableVersion, VisitMut,
    VisitorMut,
};

use super::{alias, finish, flow, is_called, last_ident};

use super::super::error::{ParseError, Position, Result};
use super::super::statement::{Name, fold};

/// What a looked-up table's name ends in after rewriting, so that a plan tells it from the table itself.
pub const LOOKUP_SUFFIX: &str = "$lookup";

/// A table that is looked up.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    /// The table, without [`LOOKUP_SUFFIX`].
    pub table: Name,
    /// What it is called in the query, folded.
    pub alias: String,
    /// The column of `AS OF column`, which has to be a processing time; None for `PROCTIME()`.
    pub as_of: Option<Name>,
    /// Where the table stands.
    pub position: Position,
}

/// Takes every `FOR SYSTEM_TIME AS OF` out of a tree and renames its table to `<name>$lookup`.
///
/// # Errors
///
/// Any other version of a table, any other time than `PROCTIME()` or a column, and a table that is joined to nothing.
pub fn take_lookups(tree: &mut impl VisitMut) -> std::result::Result<Vec<Lookup>, ParseError> {
    let mut taken = Taken(Vec::new());
    finish(tree.visit(&mut taken))?;
    Ok(taken.0)
}

struct Taken(Vec<Lookup>);

impl VisitorMut for Taken {
    type Break = ParseError;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<ParseError> {
        flow(select.from.iter().try_for_each(|from| refuse_alone(&from.relation)))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<ParseError> {
        flow(self.take(factor))
    }
}

/// Refuses a versioned table that stands first: there is nothing that it could be looked up for.
fn refuse_alone(relation: &TableFactor) -> Result<()> {
    let TableFactor::Table { name, version: Some(_), .. } = relation else {
        return Ok(());
    };
    Err(ParseError::new(
        name.span().start.into(),
        format!("table \"{}\" is looked up outside of a join", Name::from(name)),
        "the form is FROM stream JOIN table FOR SYSTEM_TIME AS OF PROCTIME() AS alias ON ..",
    ))
}

impl Taken {
    fn take(&mut self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Table { name, alias: given, version, .. } = factor else {
            return Ok(());
        };
        let Some(version) = version.take() else {
            return Ok(());
        };
        let position = name.span().start.into();
        let as_of = as_of(&version, position)?;
        let table = Name::from(&*name);
        let Some(own) = last_ident(name).cloned() else {
            return Ok(());
        };
        let alias = given.get_or_insert_with(|| alias(own.clone()));
        self.0.push(Lookup { table, alias: fold(&alias.name), as_of, position });
        mark(name, &own);
        Ok(())
    }
}

fn mark(name: &mut ObjectName, own: &Ident) {
    let marked = Ident { value: format!("{}{LOOKUP_SUFFIX}", own.value), ..own.clone() };
    name.0.pop();
    name.0.push(ObjectNamePart::Identifier(marked));
}

fn as_of(version: &TableVersion, table: Position) -> Result<Option<Name>> {
    const HELP: &str = "only FOR SYSTEM_TIME AS OF PROCTIME(), or of a column that is PROCTIME(), can be looked up";
    let TableVersion::ForSystemTimeAsOf(time) = version else {
        return Err(ParseError::new(table, "unsupported version of a table", HELP));
    };
    match time {
        Expr::Identifier(column) => Ok(Some(Name::new([fold(column)]))),
        Expr::CompoundIdentifier(parts) => Ok(Some(Name::new(parts.iter().map(fold)))),
        Expr::Function(f) if is_called(&f.name, "proctime") && has_no_arguments(&f.args) => Ok(None),
        other => {
            let message = format!("a table cannot be looked up as of \"{other}\"");
            let at = other.span().start;
            let at = if at.line == 0 { table } else { at.into() };
            Err(ParseError::new(at, message, HELP))
        }
    }
}

fn has_no_arguments(arguments: &FunctionArguments) -> bool {
    match arguments {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty(),
        FunctionArguments::Subquery(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_error, run};
    use super::*;

    #[test]
    fn the_version_is_taken_out_and_recorded() {
        let text = "SELECT * FROM o JOIN s.Dim FOR SYSTEM_TIME AS OF PROCTIME() AS D ON o.id = d.id \
                    LEFT JOIN \"X\" FOR SYSTEM_TIME AS OF o.Pt ON o.x = \"X\".id";
        check(
            text,
            "SELECT * FROM o JOIN s.Dim$lookup AS D ON o.id = d.id LEFT JOIN \"X$lookup\" AS \"X\" ON o.x = \"X\".id",
        );
        let lookups = run(text).unwrap().1.lookups;
        let parts =
            |l: &Lookup| (l.table.to_string(), l.alias.clone(), l.as_of.clone().map(|c| c.to_string()), l.position.column);
        assert_eq!(
            lookups.iter().map(parts).collect::<Vec<_>>(),
            [("s.dim".into(), "d".into(), None, 22), ("\"X\"".into(), "X".into(), Some("o.pt".into()), 91),]
        );
    }

    #[test]
    fn other_times_are_refused() {
        check_error(
            "SELECT * FROM o JOIN d FOR SYSTEM_TIME AS OF NOW() ON o.id = d.id",
            46,
            "a table cannot be looked up as of \"NOW()\"",
        );
        check_error(
            "SELECT * FROM o JOIN d FOR SYSTEM_TIME AS OF PROCTIME(3) ON o.id = d.id",
            46,
            "a table cannot be looked up as of \"PROCTIME(3)\"",
        );
        check_error("SELECT * FROM o JOIN d VERSION AS OF 3 ON o.id = d.id", 22, "unsupported version of a table");
    }

    #[test]
    fn a_lookup_needs_a_join() {
        check_error(
            "SELECT * FROM s.d FOR SYSTEM_TIME AS OF PROCTIME()",
            15,
            "table \"s.d\" is looked up outside of a join",
        );
    }
}
