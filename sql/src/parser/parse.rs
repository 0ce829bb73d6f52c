//! Scripts, and which rule reads which statement.

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::error::{ParseError, Result};
use super::statement::{Spanned, Statement};
use super::{function, ingest, table, utility, write};

/// Splits a script into its statements.
///
/// Empty statements are left out, and the last semicolon is optional.
///
/// # Errors
///
/// The first thing that is not ours, with its place and what would be right.
pub fn parse_script(text: &str) -> std::result::Result<Vec<Spanned<Statement>>, ParseError> {
    let mut cursor = Cursor::new(text)?;
    let mut statements = Vec::new();
    loop {
        while cursor.accept_token(&Token::SemiColon) {}
        if cursor.at_end() {
            return Ok(statements);
        }
        statements.push(statement(&mut cursor)?);
        if !cursor.at_end() && *cursor.token(0) != Token::SemiColon {
            return Err(leftover(&cursor));
        }
    }
}

/// Returns the error that a statement goes on where it should end.
pub(super) fn leftover(cursor: &Cursor) -> ParseError {
    cursor
        .expected("end of statement")
        .or_help("statements end with \";\"; before this point a clause is misspelled or out of order")
}

/// Reads one statement up to its semicolon.
pub(super) fn statement(cursor: &mut Cursor) -> Result<Spanned<Statement>> {
    let start = cursor.location();
    let at = cursor.position();
    let node = dispatch(cursor)?;
    Ok(Spanned { node, text: cursor.text_since(start).to_string(), line: at.line, column: at.column })
}

/// What a rule gets to know of what stood before it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prefix {
    /// Whether `OR REPLACE` stood there.
    pub(super) or_replace: bool,
}

/// A rule: the words that it begins with, what reads the rest, and the form of the statement for help lines.
struct Rule {
    words: &'static str,
    /// Whether the rule reads the words itself, as sqlparser's do.
    keeps_words: bool,
    read: fn(&mut Cursor, Prefix) -> Result<Statement>,
    form: &'static str,
}

const fn rule(words: &'static str, read: fn(&mut Cursor, Prefix) -> Result<Statement>, form: &'static str) -> Rule {
    Rule { words, keeps_words: false, read, form }
}

const fn whole(words: &'static str, read: fn(&mut Cursor, Prefix) -> Result<Statement>, form: &'static str) -> Rule {
    Rule { keeps_words: true, ..rule(words, read, form) }
}

const QUERY: &str = "before this point a comma, bracket, quote or keyword is missing or misspelled";
const DYNAMIC: &str = "the form is CREATE [OR REPLACE] DYNAMIC TABLE [IF NOT EXISTS] t [(columns)] [FRESHNESS = INTERVAL '3' MINUTE] [WITH ('k' = 'v', ..)] AS SELECT ..";
const REFRESH: &str = "the form is REFRESH DYNAMIC TABLE t";
const STATEMENT_SET: &str = "the form is EXECUTE STATEMENT SET BEGIN INSERT ..; MERGE ..; END";

/// All statements but those that create something. The first rule that fits is taken.
const RULES: &[Rule] = &[
    whole("SELECT", write::query, QUERY),
    whole("WITH", write::query, QUERY),
    whole("VALUES", write::query, QUERY),
    rule("INSERT", write::insert, "the form is INSERT INTO t [(columns)] SELECT .. or VALUES (..), .."),
    whole("UPDATE", write::update, "the form is UPDATE t SET column = expression, .. [WHERE condition]"),
    whole("DELETE", write::delete, "the form is DELETE FROM t [WHERE condition]"),
    whole(
        "MERGE",
        write::merge,
        "the form is MERGE INTO t USING source ON condition WHEN [NOT] MATCHED [AND condition] THEN ..",
    ),
    rule("TRUNCATE", write::truncate, "the form is TRUNCATE TABLE t"),
    rule("EXECUTE STATEMENT SET", write::statement_set, STATEMENT_SET),
    rule("BEGIN STATEMENT SET", write::statement_set_after_begin, STATEMENT_SET),
    rule(
        "REPAIR",
        write::repair,
        "the form is REPAIR TABLE t FROM SELECT <all columns of t>, source, partition, position FROM t$errors",
    ),
    rule("REFRESH DYNAMIC TABLE", table::refresh, REFRESH),
    rule("REFRESH MATERIALIZED TABLE", table::refresh, REFRESH),
    rule("EXPLAIN", utility::explain, "the form is EXPLAIN [ANALYZE] statement"),
    rule("SHOW", utility::show, "the forms are SHOW TABLES, SHOW SOURCES, SHOW JOBS, SHOW ERRORS and SHOW CREATE TABLE t"),
    rule("DESCRIBE", utility::describe, "the form is DESCRIBE t"),
    rule("DESC", utility::describe, "the form is DESCRIBE t"),
    rule("USE", utility::use_schema, "the form is USE [SCHEMA] name"),
    rule(
        "DROP",
        utility::drop_object,
        "the form is DROP TABLE | VIEW | DYNAMIC TABLE | SCHEMA | PIPE | FUNCTION [IF EXISTS] name [CASCADE]",
    ),
    rule("SET", utility::set, "the form is SET 'key' = 'value'"),
    rule("PUT", ingest::put, "the form is PUT 'path' TO USER VOLUME [FILE 'name']"),
    rule("COPY INTO", ingest::copy_into, ingest::COPY_FORM),
];

/// The statements that create something, from the word after `CREATE [OR REPLACE]` on.
const CREATE_RULES: &[Rule] = &[
    rule(
        "TABLE",
        table::create_table,
        "the form is CREATE TABLE [IF NOT EXISTS] t (column TYPE, .., PRIMARY KEY (column)) [WITH ('k' = 'v', ..)]",
    ),
    rule("DYNAMIC TABLE", table::create_dynamic_table, DYNAMIC),
    rule("MATERIALIZED TABLE", table::create_dynamic_table, DYNAMIC),
    rule("VIEW", table::create_view, "the form is CREATE [OR REPLACE] VIEW v [(columns)] AS SELECT .."),
    rule("SCHEMA", utility::create_schema, "the form is CREATE SCHEMA [IF NOT EXISTS] name"),
    rule("DATABASE", utility::create_schema, "the form is CREATE DATABASE [IF NOT EXISTS] name"),
    rule("PIPE", ingest::create_pipe, "the form is CREATE PIPE p [k = 'v' ..] AS COPY INTO t FROM .."),
    rule(
        "FUNCTION",
        function::create_function,
        "the form is CREATE [OR REPLACE] FUNCTION f(parameter TYPE, ..) RETURNS TYPE AS expression",
    ),
    rule(
        "EXTERNAL FUNCTION",
        function::create_external_function,
        "the form is CREATE EXTERNAL FUNCTION f(parameter TYPE, ..) RETURNS TYPE CONNECTION = c [k = 'v' ..]",
    ),
    rule(
        "API CONNECTION",
        function::create_connection,
        "the form is CREATE API CONNECTION c TYPE = 'http' URL = '..' [k = 'v' ..]",
    ),
];

/// What to write instead of statements that others know and we do not.
const INSTEAD: &[(&str, &str)] = &[
    ("ALTER", "drop the object and create it anew; a dynamic table can be replaced with CREATE OR REPLACE DYNAMIC TABLE"),
    (
        "BEGIN",
        "every statement is atomic by itself; several continuous ones start together inside EXECUTE STATEMENT SET BEGIN .. END",
    ),
    ("START", "every statement is atomic by itself"),
    ("COMMIT", "every statement is atomic by itself"),
    ("ROLLBACK", "every statement is atomic by itself"),
    ("CREATE MATERIALIZED VIEW", "write CREATE DYNAMIC TABLE"),
    ("CREATE TEMPORARY", "leave out TEMPORARY"),
    ("CREATE INDEX", "leave it out: what queries need is arranged by itself"),
    ("CREATE TEMP", "leave out TEMP"),
    ("CREATE CATALOG", "write CREATE SCHEMA"),
    ("REPLACE", "write INSERT INTO: inserting an existing key is an upsert"),
    ("UPSERT", "write INSERT INTO: inserting an existing key is an upsert"),
    ("REFRESH", REFRESH),
    ("COPY", ingest::COPY_FORM),
    ("EXECUTE", STATEMENT_SET),
];

const STATEMENTS: &str = "statements begin with SELECT, WITH, VALUES, INSERT, UPDATE, DELETE, MERGE, TRUNCATE, CREATE, DROP, REFRESH, COPY INTO, PUT, REPAIR, EXECUTE STATEMENT SET, EXPLAIN, SHOW, DESCRIBE, USE or SET";

fn dispatch(cursor: &mut Cursor) -> Result<Statement> {
    if *cursor.token(0) == Token::LParen {
        return write::query(cursor, Prefix::default()).map_err(|e| e.or_help(QUERY));
    }
    if cursor.is_word(0, "CREATE") {
        return create(cursor);
    }
    match RULES.iter().find(|rule| cursor.at(rule.words)) {
        Some(rule) => run(cursor, rule, Prefix::default()),
        None => Err(unsupported(cursor)),
    }
}

fn create(cursor: &mut Cursor) -> Result<Statement> {
    let or_replace = cursor.at("CREATE OR REPLACE");
    let words_before = if or_replace { 3 } else { 1 };
    let fits = |rule: &&Rule| rule.words.split(' ').enumerate().all(|(n, word)| cursor.is_word(words_before + n, word));
    let Some(rule) = CREATE_RULES.iter().find(fits) else {
        return Err(unsupported(cursor));
    };
    cursor.skip(words_before);
    run(cursor, rule, Prefix { or_replace })
}

fn run(cursor: &mut Cursor, rule: &Rule, prefix: Prefix) -> Result<Statement> {
    if !rule.keeps_words {
        cursor.skip(rule.words.split(' ').count());
    }
    (rule.read)(cursor, prefix).map_err(|error| error.or_help(rule.form))
}

fn unsupported(cursor: &Cursor) -> ParseError {
    let words = cursor.first_words(3);
    if words.is_empty() {
        return cursor.expected("a statement").or_help(STATEMENTS);
    }
    let instead = INSTEAD.iter().find(|(first, _)| cursor.at(first));
    let help = match instead {
        Some((_, help)) => help,
        None if cursor.is_word(0, "CREATE") => {
            "what can be created is a TABLE, DYNAMIC TABLE, VIEW, SCHEMA, PIPE, FUNCTION, EXTERNAL FUNCTION or API CONNECTION"
        }
        None => STATEMENTS,
    };
    cursor.error(format!("unsupported statement \"{words}\""), help)
}

/// Refuses `OR REPLACE` before statements that do not have it.
pub(super) fn refuse_replace(cursor: &Cursor, prefix: Prefix, what: &str) -> Result<()> {
    if !prefix.or_replace {
        return Ok(());
    }
    let message = format!("{what} cannot be replaced");
    Err(cursor.error(message, "drop it first, or write IF NOT EXISTS"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::statement::Name;
    use super::super::table_names;
    use super::*;

    /// Parses one statement.
    #[track_caller]
    pub(in super::super) fn one(text: &str) -> Statement {
        let mut statements = parse_script(text).unwrap_or_else(|e| panic!("{e} in {text}\n{}", e.help));
        assert_eq!(statements.len(), 1, "{text}");
        statements.remove(0).node
    }

    /// Checks where and why a script is refused.
    #[track_caller]
    pub(in super::super) fn refused(text: &str, at: (usize, usize), message: &str) -> String {
        let error = parse_script(text).expect_err(text);
        assert_eq!(((error.line, error.column), error.message.as_str()), (at, message), "{text}");
        assert!(!error.help.is_empty(), "{text}");
        error.help
    }

    #[test]
    fn statements_of_the_documents_parse() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/mission/statements");
        let Ok(files) = fs::read_dir(&folder) else {
            eprintln!("skipped: no folder {}", folder.display());
            return;
        };
        let mut count = 0;
        for file in files {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let parsed = parse_script(&text).unwrap_or_else(|e| panic!("{}:{e}", path.display()));
            assert_eq!(parsed.len(), 1, "{}", path.display());
            let end = text.trim_end().trim_end_matches(';').trim_end();
            if !text.contains("--") {
                assert_eq!(parsed[0].text, end, "{}", path.display());
            }
            assert!(text.contains(&parsed[0].text), "{}", path.display());
            count += 1;
        }
        assert!(count >= 74, "only {count} statements");
    }

    #[test]
    fn scripts_are_split_at_semicolons_outside_of_strings_and_comments() {
        let text = "-- first; comment\n;;SELECT ';' AS \"a;b\" /* ; /* ; */ */ ;\n\n  SELECT 'it''s;'\n  || 'é' -- end;\n;\n/* tail; */ -- done";
        let parsed = parse_script(text).unwrap();
        let seen: Vec<_> = parsed.iter().map(|s| (s.text.as_str(), s.line, s.column)).collect();
        assert_eq!(seen, [("SELECT ';' AS \"a;b\"", 2, 3), ("SELECT 'it''s;'\n  || 'é'", 4, 3)]);
    }

    #[test]
    fn empty_scripts_have_no_statements() {
        for text in ["", " \n", ";", "-- only a comment", "/* a */ ; -- b\n;"] {
            assert!(parse_script(text).unwrap().is_empty(), "{text}");
        }
    }

    #[test]
    fn lines_and_columns_survive_carriage_returns_and_tabs() {
        let parsed = parse_script("SELECT 1;\r\n\t SELECT 'é',\r\n 2;").unwrap();
        assert_eq!((parsed[1].line, parsed[1].column), (2, 3));
        assert_eq!(parsed[1].text, "SELECT 'é',\r\n 2");
    }

    #[test]
    fn errors_name_place_and_remedy() {
        refused("SELECT 1;\n SELECT a FROM t whre x = 1", (2, 23), "expected end of statement, found \"x\"");
        refused("SELECT 1 SELECT 2", (1, 10), "expected end of statement, found \"SELECT\"");
        refused("SELECT (1,\n", (1, 11), "expected an expression, found end of script");
        refused("SELECT 1;\nSELECT 'open", (2, 8), "unterminated string literal");
        refused(", SELECT 1", (1, 1), "expected a statement, found \",\"");
        refused("'SELECT 1'", (1, 1), "expected a statement, found a string");
        let nested = format!("SELECT {}1{}", "(".repeat(300), ")".repeat(300));
        let error = parse_script(&nested).unwrap_err();
        assert_eq!(error.message, "statement is nested too deeply");
    }

    #[test]
    fn foreign_statements_are_named() {
        let help = refused("SELECT 1;\n  alter table t add x int", (2, 3), "unsupported statement \"alter table t\"");
        assert!(help.contains("CREATE OR REPLACE DYNAMIC TABLE"), "{help}");
        refused("COMMIT", (1, 1), "unsupported statement \"COMMIT\"");
        refused("CREATE MATERIALIZED VIEW v AS SELECT 1", (1, 1), "unsupported statement \"CREATE MATERIALIZED VIEW\"");
        refused("CREATE SEQUENCE s", (1, 1), "unsupported statement \"CREATE SEQUENCE s\"");
        refused("REFRESH t", (1, 1), "unsupported statement \"REFRESH t\"");
        let help = refused("SELEC 1", (1, 1), "unsupported statement \"SELEC\"");
        assert!(help.contains("SELECT, WITH"), "{help}");
    }

    #[test]
    fn or_replace_is_refused_where_nothing_is_replaced() {
        refused("CREATE OR REPLACE TABLE t (a INT)", (1, 25), "a table cannot be replaced");
        refused("CREATE OR REPLACE SCHEMA s", (1, 26), "a schema cannot be replaced");
    }

    #[test]
    fn every_rule_has_its_form_in_the_help() {
        for rule in RULES.iter().chain(CREATE_RULES) {
            let form = rule.form.to_uppercase();
            let first = rule.words.split(' ').next().unwrap();
            let synonyms = ["DESC", "BEGIN STATEMENT SET", "MATERIALIZED TABLE", "REFRESH MATERIALIZED TABLE"];
            assert!(
                rule.form == QUERY || form.contains(first) || synonyms.contains(&rule.words),
                "{} against {form}",
                rule.words
            );
        }
    }

    fn reads(text: &str) -> String {
        let names = table_names(&one(text));
        names.iter().map(Name::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn reads_are_collected_from_all_corners() {
        assert_eq!(
            reads(
                "SELECT (SELECT MAX(a) FROM s.X) FROM t, u JOIN (SELECT * FROM \"V\") v ON v.a IN (SELECT b FROM w) WHERE EXISTS (SELECT 1 FROM t)"
            ),
            "s.x t u \"V\" w"
        );
        assert_eq!(reads("SELECT * FROM o JOIN d FOR SYSTEM_TIME AS OF PROCTIME() ON true JOIN e$lookup ON true"), "o d e");
        assert_eq!(reads("SELECT * FROM t UNION SELECT * FROM t$errors"), "t t$errors");
        assert_eq!(reads("SELECT * FROM unnest(a), generate_series(1, 2)"), "");
    }

    #[test]
    fn common_tables_are_no_reads() {
        assert_eq!(reads("WITH a AS (SELECT * FROM t), b AS (SELECT * FROM a, s.a) SELECT * FROM b, A"), "t s.a");
        assert_eq!(reads("WITH t AS (SELECT * FROM t) SELECT * FROM t"), "t");
        assert_eq!(reads("WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT * FROM n) SELECT * FROM n"), "");
        assert_eq!(reads("SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a), a"), "a");
        assert_eq!(reads("WITH a AS (SELECT 1) SELECT (SELECT 1 FROM (SELECT * FROM a))"), "");
        assert_eq!(reads("WITH a AS (WITH b AS (SELECT * FROM t) SELECT * FROM b) SELECT * FROM a, b"), "t b");
    }

    #[test]
    fn statements_tell_what_they_read_and_write() {
        let cases = [
            ("INSERT INTO s.t SELECT * FROM a", "a", Some("s.t")),
            ("UPDATE t SET x = (SELECT 1 FROM b)", "t b", Some("t")),
            ("DELETE FROM t WHERE a IN (SELECT a FROM b)", "t b", Some("t")),
            ("MERGE INTO t USING (SELECT * FROM b) s ON t.a = s.a WHEN MATCHED THEN DELETE", "t b", Some("t")),
            ("TRUNCATE TABLE t", "", Some("t")),
            ("REFRESH DYNAMIC TABLE t", "t", None),
            ("REPAIR TABLE t FROM SELECT * FROM t$errors", "t$errors", Some("t")),
            ("CREATE DYNAMIC TABLE d AS SELECT * FROM t", "t", None),
            ("CREATE VIEW v AS SELECT * FROM t", "t", None),
            ("EXPLAIN INSERT INTO t SELECT * FROM a", "a", None),
            ("CREATE PIPE p AS COPY INTO t FROM (SELECT * FROM a, READ_KAFKA('b'))", "a", Some("t")),
            ("EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT * FROM x; INSERT INTO b SELECT * FROM y; END", "x y", None),
        ];
        for (text, read, written) in cases {
            assert_eq!(reads(text), read, "{text}");
            assert_eq!(one(text).target().map(|n| n.to_string()).as_deref(), written, "{text}");
        }
    }
}
