//! `IDENTITY(links)` and `IDENTITY_HISTORY(links)`: what is one and the same, as tables.
//!
//! | written | read as |
//! |---|---|
//! | `FROM IDENTITY(links)` | `FROM links$identity AS identity` |
//! | `FROM IDENTITY_HISTORY(s.links) h` | `FROM s.links$identity_history h` |
//! | `FROM IDENTITY(links, left_id, right_id, seen)` | `FROM links$identity(left_id,right_id,seen) AS identity` |
//!
//! The engine makes the table of such a name when a statement first reads it: every query on the same links reads the same one.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, Spanned as _, TableAlias, TableFactor, Value,
    VisitMut, VisitorMut,
};

use super::error::{ParseError, Position, Result};
use super::statement::{Name, fold};

const ONE_IDS: &str = "$identity";
const HISTORY: &str = "$identity_history";
const FORM: &str = "the form is IDENTITY(links), or IDENTITY(links, id_a, id_b, first_seen) with the names of its columns";

/// What a table that the identity function gives is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The table or view of the links.
    pub links: Name,
    /// The columns of the two ids and of when the link was first seen, where they are named.
    pub columns: Option<[String; 3]>,
    /// Whether it is the history.
    pub history: bool,
}

impl Identity {
    /// What a table is made of, by its name; None where it is no such table.
    pub fn of(name: &Name) -> Option<Identity> {
        let object = name.object();
        let (links, rest) = object.split_at(object.rfind(ONE_IDS)?);
        let (history, rest) = match rest.strip_prefix(HISTORY) {
            Some(rest) => (true, rest),
            None => (false, rest.strip_prefix(ONE_IDS)?),
        };
        let columns = if rest.is_empty() {
            None
        } else {
            let columns: Vec<String> = rest.strip_prefix('(')?.strip_suffix(')')?.split(',').map(String::from).collect();
            Some(columns.try_into().ok()?)
        };
        let schema = name.parts().iter().take(name.parts().len() - 1).cloned();
        Some(Identity { links: Name::new(schema.chain([links.to_string()])), columns, history })
    }
    /// The name of the table of one ids.
    pub fn one_ids(&self) -> Name {
        self.table(ONE_IDS)
    }
    /// The name of the table of how they were replaced.
    pub fn replaced(&self) -> Name {
        self.table(HISTORY)
    }
    fn table(&self, suffix: &str) -> Name {
        let columns = self.columns.as_ref().map(|columns| format!("({})", columns.join(","))).unwrap_or_default();
        let parts = self.links.parts();
        let schema = parts.iter().take(parts.len() - 1).cloned();
        Name::new(schema.chain([format!("{}{suffix}{columns}", self.links.object())]))
    }
}
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let function = if self.history { "IDENTITY_HISTORY" } else { "IDENTITY" };
        let columns = self.columns.iter().flatten().map(|column| format!(", {column}")).collect::<String>();
        write!(f, "{function}({}{columns})", self.links)
    }
}

/// Gives every call of the identity function the name of its table.
///
/// # Errors
///
/// Arguments that are no table and three columns.
pub(super) fn name_identities(tree: &mut impl VisitMut) -> Result<()> {
    match tree.visit(&mut Calls) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Calls;

impl VisitorMut for Calls {
    type Break = ParseError;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<ParseError> {
        match take(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn take(factor: &mut TableFactor) -> Result<()> {
    let TableFactor::Table { name, alias, args, .. } = factor else { return Ok(()) };
    let [ObjectNamePart::Identifier(function)] = &name.0[..] else { return Ok(()) };
    let called = fold(function).to_lowercase();
    let history = called == "identity_history";
    let (Some(arguments), true) = (&args, history || called == "identity") else { return Ok(()) };
    let at = name.span().start.into();
    let expressions = arguments.args.iter().map(|argument| plain(argument, at)).collect::<Result<Vec<_>>>()?;
    let (links, columns) = match &expressions[..] {
        [links] => (links, None),
        [links, a, b, seen] => (links, Some([column(a, at)?, column(b, at)?, column(seen, at)?])),
        other => {
            let message = format!("{} has {} arguments", called.to_uppercase(), other.len());
            return Err(ParseError::new(at, message, FORM));
        }
    };
    let parts = table(links, at)?;
    let links = Name::new(parts.iter().map(fold));
    let identity = Identity { links, columns, history };
    let table = if history { identity.replaced() } else { identity.one_ids() };
    let ident = |(part, written): (&String, &Ident)| {
        ObjectNamePart::Identifier(Ident { value: part.clone(), quote_style: Some('"'), span: written.span })
    };
    *name = ObjectName(table.parts().iter().zip(&parts).map(ident).collect());
    alias.get_or_insert_with(|| TableAlias { explicit: true, name: Ident::new(called), columns: Vec::new(), at: None });
    *args = None;
    Ok(())
}

fn plain(argument: &FunctionArg, at: Position) -> Result<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Ok(expression),
        other => Err(ParseError::new(at, format!("unsupported argument \"{other}\" of IDENTITY"), FORM)),
    }
}

fn table(expression: &Expr, at: Position) -> Result<Vec<Ident>> {
    match expression {
        Expr::Identifier(name) => Ok(vec![name.clone()]),
        Expr::CompoundIdentifier(parts) => Ok(parts.clone()),
        other => {
            let help = "name a table or view of links; make a view for anything else: CREATE VIEW links AS SELECT ..";
            Err(ParseError::new(place(other, at), format!("IDENTITY of \"{other}\", which is no table"), help))
        }
    }
}

fn column(expression: &Expr, at: Position) -> Result<String> {
    let name = match expression {
        Expr::Identifier(name) => Some(fold(name)),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    };
    // The columns become part of a name.
    let name = name.filter(|name| !name.is_empty() && !name.contains(['.', ',', '(', ')', '$']));
    name.ok_or_else(|| {
        let message = format!("\"{expression}\" is no column that IDENTITY can name");
        ParseError::new(place(expression, at), message, "give it a plain name in a view, and name that")
    })
}

fn place(expression: &Expr, otherwise: Position) -> Position {
    let at = expression.span().start;
    if at.line == 0 { otherwise } else { at.into() }
}

#[cfg(test)]
mod tests {
    use super::super::{Statement, parse_script, table_names};
    use super::*;

    fn query(text: &str) -> String {
        let Statement::Query(body) = parse_script(text).unwrap().remove(0).node else { panic!("no query: {text}") };
        body.query.to_string()
    }

    #[test]
    fn a_call_is_a_table_of_its_own() {
        let cases = [
            ("SELECT * FROM IDENTITY(Links)", "SELECT * FROM \"links$identity\" AS identity"),
            ("SELECT * FROM identity_history(s.\"L\") h", "SELECT * FROM \"s\".\"L$identity_history\" h"),
            (
                "SELECT 1 FROM t JOIN IDENTITY(l, A, 'B', \"C\") AS i ON true",
                "SELECT 1 FROM t JOIN \"l$identity(a,B,C)\" AS i ON true",
            ),
            ("SELECT * FROM identity", "SELECT * FROM identity"),
        ];
        for (written, read) in cases {
            assert_eq!(query(written), read);
            // A second pass finds nothing to do.
            assert_eq!(query(read), read);
        }
    }

    #[test]
    fn a_name_says_what_it_is_made_of() {
        for call in
            ["IDENTITY(links)", "IDENTITY_HISTORY(s.links)", "IDENTITY(s.links, a, b, c)", "IDENTITY_HISTORY(l, a, b, c)"]
        {
            let names = table_names(&parse_script(&format!("SELECT * FROM {call}")).unwrap()[0].node);
            let identity = Identity::of(&names[0]).unwrap();
            assert_eq!(identity.to_string(), call);
            assert_eq!(if identity.history { identity.replaced() } else { identity.one_ids() }, names[0]);
        }
        for name in ["links", "links$errors", "links$identity(a,b)", "links$identities"] {
            assert_eq!(Identity::of(&Name::new([name])), None, "{name}");
        }
    }

    #[test]
    fn other_arguments_are_refused_at_their_place() {
        let cases = [
            ("SELECT * FROM IDENTITY()", 15, "IDENTITY has 0 arguments"),
            ("SELECT * FROM IDENTITY(links, a)", 15, "IDENTITY has 2 arguments"),
            ("SELECT * FROM IDENTITY('links')", 24, "IDENTITY of \"'links'\", which is no table"),
            ("SELECT * FROM IDENTITY(l, a + b, c, d)", 27, "\"a + b\" is no column that IDENTITY can name"),
            ("SELECT * FROM IDENTITY(l, 'a.b', c, d)", 27, "\"'a.b'\" is no column that IDENTITY can name"),
        ];
        for (text, column, message) in cases {
            let error = parse_script(text).unwrap_err();
            assert_eq!((error.column, error.message.as_str()), (column, message));
            assert!(!error.help.is_empty());
        }
    }
}
