//! Queries and the statements that write.

use sqlparser::ast;
use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::error::{ParseError, Position, Result};
use super::parse::{self, Prefix};
use super::statement::{Insert, Spanned, Statement};

/// Reads a query.
pub(super) fn query(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    Ok(Statement::Query(cursor.body()?))
}

/// Reads what follows `INSERT`.
pub(super) fn insert(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    let overwrite = cursor.accept("OVERWRITE");
    if !overwrite {
        cursor.expect("INTO")?;
    }
    // A table may itself be called table.
    if cursor.is_word(0, "TABLE") && matches!(cursor.token(1), Token::Word(_)) && !cursor.is_word(1, "SELECT") {
        cursor.skip(1);
    }
    Ok(Statement::Insert(Insert { table: cursor.name()?, columns: cursor.column_names()?, overwrite, body: cursor.body()? }))
}

/// Reads an `UPDATE`.
pub(super) fn update(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    match sqlparser_statement(cursor)? {
        (ast::Statement::Update(update), _) => Ok(Statement::Update(Box::new(update))),
        (_, at) => Err(not_that(at, "UPDATE")),
    }
}

/// Reads a `DELETE`.
pub(super) fn delete(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    match sqlparser_statement(cursor)? {
        (ast::Statement::Delete(delete), _) => Ok(Statement::Delete(Box::new(delete))),
        (_, at) => Err(not_that(at, "DELETE")),
    }
}

/// Reads a `MERGE`.
pub(super) fn merge(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    match sqlparser_statement(cursor)? {
        (ast::Statement::Merge(merge), _) => Ok(Statement::Merge(Box::new(merge))),
        (_, at) => Err(not_that(at, "MERGE")),
    }
}

fn sqlparser_statement(cursor: &mut Cursor) -> Result<(ast::Statement, Position)> {
    let at = cursor.position();
    let mut statement = cursor.sqlparser(|parser| parser.parse_statement())?;
    super::identity::name_identities(&mut statement)?;
    Ok((statement, at))
}

fn not_that(at: Position, word: &str) -> ParseError {
    ParseError::new(at, format!("unsupported form of {word}"), "")
}

/// Reads what follows `TRUNCATE`.
pub(super) fn truncate(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    cursor.accept("TABLE");
    Ok(Statement::Truncate(cursor.name()?))
}

/// Reads what follows `REPAIR`.
pub(super) fn repair(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    cursor.expect("TABLE")?;
    let table = cursor.name()?;
    cursor.expect("FROM")?;
    let body = cursor.body()?;
    Ok(Statement::Repair { table, body })
}

/// Reads what follows `EXECUTE STATEMENT SET`.
pub(super) fn statement_set(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    cursor.expect("BEGIN")?;
    members(cursor)
}

/// Reads what follows `BEGIN STATEMENT SET`, the older spelling.
pub(super) fn statement_set_after_begin(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    members(cursor)
}

fn members(cursor: &mut Cursor) -> Result<Statement> {
    let mut members = Vec::new();
    loop {
        while cursor.accept_token(&Token::SemiColon) {}
        if cursor.accept("END") {
            break;
        }
        members.push(member(cursor)?);
        if *cursor.token(0) != Token::SemiColon && !cursor.at("END") {
            return Err(if cursor.at_end() { cursor.expected("END") } else { parse::leftover(cursor) });
        }
    }
    Ok(Statement::StatementSet(members))
}

fn member(cursor: &mut Cursor) -> Result<Spanned<Statement>> {
    if cursor.at_end() {
        return Err(cursor.expected("END"));
    }
    if !cursor.at("INSERT") && !cursor.at("MERGE") {
        let help = "a statement set holds INSERT and MERGE; put other statements before it";
        return Err(cursor.expected("INSERT, MERGE or END").or_help(help));
    }
    parse::statement(cursor)
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse_script;
    use super::super::parse::tests::{one, refused};
    use super::super::statement::{Body, Name};
    use super::*;

    fn inserted(text: &str) -> Insert {
        match one(text) {
            Statement::Insert(insert) => insert,
            other => panic!("{other:?}"),
        }
    }

    fn named(insert: &Insert) -> Vec<(&str, (usize, usize))> {
        let columns = insert.columns.iter();
        columns.map(|column| (column.name.as_str(), (column.position.line, column.position.column))).collect()
    }

    #[test]
    fn inserts_take_queries_and_values() {
        let insert = inserted("INSERT INTO s.t (A, \"B\") VALUES (1, DEFAULT), (2, 'x')");
        assert_eq!(insert.table, Name::new(["s", "t"]));
        assert_eq!(named(&insert), [("a", (1, 18)), ("B", (1, 21))]);
        assert!(insert.is_values() && !insert.overwrite);
        let insert = inserted("INSERT OVERWRITE TABLE t (SELECT 1)");
        assert!(insert.overwrite && insert.columns.is_empty() && !insert.is_values());
        assert_eq!(named(&inserted("INSERT INTO t (a) (SELECT 1)")), [("a", (1, 16))]);
        assert_eq!(inserted("INSERT INTO t (WITH a AS (SELECT 1) SELECT * FROM a)").columns.len(), 0);
        assert_eq!(inserted("INSERT INTO t ((SELECT 1) UNION SELECT 2)").columns.len(), 0);
        assert_eq!(named(&inserted("INSERT INTO table (a) SELECT 1")), [("a", (1, 20))]);
        assert_eq!(inserted("INSERT INTO table SELECT 1").table, Name::new(["table"]));
        refused("INSERT t SELECT 1", (1, 8), "expected INTO, found \"t\"");
        refused("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", (1, 26), "expected end of statement, found \"ON\"");
    }

    #[test]
    fn hints_are_taken_out() {
        let Statement::Query(Body { query, hints }) =
            one("SELECT /* no hint */ /*+ delta_join, Lookup(a, b) */ x, (SELECT /*+ LINEAR_JOIN */ 1) --+ none\nFROM t")
        else {
            panic!()
        };
        assert_eq!(hints, ["DELTA_JOIN", "LOOKUP(A, B)", "LINEAR_JOIN"]);
        assert_eq!(query.to_string(), "SELECT x, (SELECT 1) FROM t");
        assert_eq!(inserted("INSERT INTO t SELECT /*+ DELTA_JOIN */ 1").body.hints, ["DELTA_JOIN"]);
        assert_eq!(inserted("INSERT INTO t SELECT --+ DELTA_JOIN\n 1").body.hints, [""; 0]);
    }

    #[test]
    fn changes_keep_the_syntax_tree() {
        let Statement::Update(update) = one("UPDATE s.t SET a = 1, b = b + 1 WHERE c") else { panic!() };
        assert_eq!(update.to_string(), "UPDATE s.t SET a = 1, b = b + 1 WHERE c");
        let Statement::Delete(delete) = one("DELETE FROM t WHERE a = 1") else { panic!() };
        assert_eq!(delete.to_string(), "DELETE FROM t WHERE a = 1");
        let merge = "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED AND s.d THEN DELETE WHEN NOT MATCHED THEN INSERT (a) VALUES (s.a)";
        let Statement::Merge(merged) = one(merge) else { panic!() };
        assert_eq!(merged.to_string(), merge);
        assert_eq!(one("TRUNCATE TABLE t"), Statement::Truncate(Name::new(["t"])));
        refused("UPDATE t WHERE a", (1, 10), "expected SET, found \"WHERE\"");
    }

    #[test]
    fn repairs_take_a_query() {
        let Statement::Repair { table, body } = one("REPAIR TABLE t FROM SELECT a, source FROM t$errors") else { panic!() };
        assert_eq!(table, Name::new(["t"]));
        assert_eq!(body.query.to_string(), "SELECT a, source FROM t$errors");
    }

    #[test]
    fn statement_sets_hold_statements_with_places() {
        let inserts = "INSERT INTO a SELECT ';';\n MERGE INTO b USING c ON true WHEN MATCHED THEN DELETE";
        for text in [
            format!("EXECUTE STATEMENT SET BEGIN {inserts}; END; SELECT 1"),
            format!("EXECUTE STATEMENT SET\nBEGIN\n;{inserts} END; SELECT 1;"),
            format!("BEGIN STATEMENT SET; {inserts}; END; SELECT 1"),
        ] {
            let parsed = parse_script(&text).unwrap();
            let [set, query] = &parsed[..] else { panic!("{parsed:?}") };
            assert!(matches!(query.node, Statement::Query(_)));
            assert!(set.text.ends_with("END"));
            let Statement::StatementSet(members) = &set.node else { panic!() };
            let [insert, merge] = &members[..] else { panic!("{members:?}") };
            assert_eq!(insert.text, "INSERT INTO a SELECT ';'");
            assert!(matches!(insert.node, Statement::Insert(_)));
            assert!(matches!(merge.node, Statement::Merge(_)));
            assert_eq!((merge.line, merge.column), (insert.line + 1, 2));
        }
    }

    #[test]
    fn statement_sets_that_are_wrong() {
        refused("EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1;", (1, 52), "expected END, found end of script");
        refused("EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1", (1, 51), "expected END, found end of script");
        refused("EXECUTE STATEMENT SET BEGIN SELECT 1; END", (1, 29), "expected INSERT, MERGE or END, found \"SELECT\"");
        refused("EXECUTE STATEMENT SET INSERT", (1, 23), "expected BEGIN, found \"INSERT\"");
    }
}
