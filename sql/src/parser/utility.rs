//! Schemas, settings and what shows or drops things.

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::error::Result;
use super::parse::{self, Prefix, refuse_replace};
use super::statement::{DropObject, ObjectKind, Show, Statement};

/// Reads what follows `CREATE SCHEMA`.
pub(super) fn create_schema(cursor: &mut Cursor, prefix: Prefix) -> Result<Statement> {
    refuse_replace(cursor, prefix, "a schema")?;
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.name()?;
    Ok(Statement::CreateSchema { name, if_not_exists })
}

/// Reads what follows `USE`.
pub(super) fn use_schema(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    // A schema may itself be called schema.
    if (cursor.at("SCHEMA") || cursor.at("DATABASE")) && matches!(cursor.token(1), Token::Word(_)) {
        cursor.skip(1);
    }
    Ok(Statement::UseSchema(cursor.name()?))
}

/// Reads what follows `SHOW`.
pub(super) fn show(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    let show = if cursor.accept("TABLES") {
        let has_schema = cursor.accept("IN") || cursor.accept("FROM");
        Show::Tables(has_schema.then(|| cursor.name()).transpose()?)
    } else if cursor.accept("SOURCES") {
        Show::Sources
    } else if cursor.accept("JOBS") {
        Show::Jobs
    } else if cursor.accept("ERRORS") {
        Show::Errors
    } else if cursor.accept("CREATE TABLE") || cursor.accept("CREATE DYNAMIC TABLE") || cursor.accept("CREATE VIEW") {
        Show::CreateTable(cursor.name()?)
    } else {
        return Err(cursor.expected("TABLES, SOURCES, JOBS, ERRORS or CREATE TABLE"));
    };
    Ok(Statement::Show(show))
}

/// Reads what follows `DESCRIBE`.
pub(super) fn describe(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    if cursor.at("TABLE") && matches!(cursor.token(1), Token::Word(_)) {
        cursor.skip(1);
    }
    Ok(Statement::Describe(cursor.name()?))
}

/// What can be dropped, by its words.
const KINDS: &[(&str, ObjectKind)] = &[
    ("TABLE", ObjectKind::Table),
    ("VIEW", ObjectKind::View),
    ("DYNAMIC TABLE", ObjectKind::DynamicTable),
    ("MATERIALIZED TABLE", ObjectKind::DynamicTable),
    ("SCHEMA", ObjectKind::Schema),
    ("DATABASE", ObjectKind::Schema),
    ("PIPE", ObjectKind::Pipe),
    ("FUNCTION", ObjectKind::Function),
    ("EXTERNAL FUNCTION", ObjectKind::Function),
    ("API CONNECTION", ObjectKind::Connection),
];

/// Reads what follows `DROP`.
pub(super) fn drop_object(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    let Some(&(_, kind)) = KINDS.iter().find(|(words, _)| cursor.accept(words)) else {
        return Err(cursor.expected("what to drop"));
    };
    let if_exists = cursor.accept("IF EXISTS");
    let name = cursor.name()?;
    let cascade = cursor.accept("CASCADE");
    if !cascade {
        cursor.accept("RESTRICT");
    }
    Ok(Statement::Drop(DropObject { kind, name, if_exists, cascade }))
}

/// Reads what follows `SET`.
pub(super) fn set(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    let key = cursor.option_key()?.to_lowercase();
    cursor.expect_token(&Token::Eq)?;
    let value = cursor.option_value()?;
    Ok(Statement::Set { key, value })
}

/// Reads what follows `EXPLAIN`.
pub(super) fn explain(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    let analyze = cursor.accept("ANALYZE");
    cursor.accept("PLAN FOR");
    if cursor.at_end() {
        return Err(cursor.expected("a statement"));
    }
    let statement = Box::new(parse::statement(cursor)?);
    Ok(Statement::Explain { analyze, statement })
}

#[cfg(test)]
mod tests {
    use super::super::parse::tests::{one, refused};
    use super::super::statement::Name;
    use super::*;

    fn name(name: &str) -> Name {
        Name::new(name.split('.'))
    }

    #[test]
    fn schemas() {
        let create = |if_not_exists| Statement::CreateSchema { name: name("s"), if_not_exists };
        assert_eq!(one("CREATE SCHEMA IF NOT EXISTS S"), create(true));
        assert_eq!(one("create database s"), create(false));
        for text in ["USE s", "USE SCHEMA s", "USE DATABASE s"] {
            assert_eq!(one(text), Statement::UseSchema(name("s")));
        }
        assert_eq!(one("USE schema"), Statement::UseSchema(name("schema")));
    }

    #[test]
    fn shows() {
        let cases = [
            ("SHOW TABLES", Show::Tables(None)),
            ("SHOW TABLES IN s", Show::Tables(Some(name("s")))),
            ("SHOW SOURCES", Show::Sources),
            ("SHOW JOBS", Show::Jobs),
            ("SHOW ERRORS", Show::Errors),
            ("SHOW CREATE TABLE s.t", Show::CreateTable(name("s.t"))),
        ];
        for (text, show) in cases {
            assert_eq!(one(text), Statement::Show(show));
        }
        refused("SHOW COLUMNS", (1, 6), "expected TABLES, SOURCES, JOBS, ERRORS or CREATE TABLE, found \"COLUMNS\"");
        for text in ["DESCRIBE s.t", "DESC s.t", "DESCRIBE TABLE s.t"] {
            assert_eq!(one(text), Statement::Describe(name("s.t")));
        }
    }

    #[test]
    fn drops() {
        for (words, kind) in KINDS {
            let drop =
                |if_exists, cascade| Statement::Drop(DropObject { kind: *kind, name: name("s.x"), if_exists, cascade });
            assert_eq!(one(&format!("DROP {words} s.x")), drop(false, false));
            assert_eq!(one(&format!("DROP {words} IF EXISTS s.x CASCADE")), drop(true, true));
        }
        refused("DROP INDEX i", (1, 6), "expected what to drop, found \"INDEX\"");
        refused("DROP TABLE a, b", (1, 13), "expected end of statement, found \",\"");
    }

    #[test]
    fn settings() {
        for text in ["SET 'join.strategy' = 'Delta'", "SET Join.Strategy = Delta"] {
            assert_eq!(one(text), Statement::Set { key: "join.strategy".into(), value: "Delta".into() });
        }
        refused("SET 'a' 'b'", (1, 9), "expected \"=\", found a string");
    }

    #[test]
    fn explanations_hold_a_statement() {
        let Statement::Explain { analyze, statement } = one("EXPLAIN ANALYZE SELECT 1") else { panic!() };
        assert!(analyze && matches!(statement.node, Statement::Query(_)));
        assert_eq!((statement.text.as_str(), statement.column), ("SELECT 1", 17));
        let Statement::Explain { analyze, statement } = one("EXPLAIN PLAN FOR INSERT INTO t SELECT 1") else { panic!() };
        assert!(!analyze && matches!(statement.node, Statement::Insert(_)));
        refused("EXPLAIN", (1, 8), "expected a statement, found end of script");
    }
}
