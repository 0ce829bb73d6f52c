//! Tables, views and dynamic tables.

use sqlparser::ast::{Expr, Value};
use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::error::{ParseError, Position, Result};
use super::options::Options;
use super::parse::{Prefix, refuse_replace};
use super::statement::{
    ColumnDef, ColumnKind, CreateDynamicTable, CreateTable, CreateView, Statement, TableSchema, Watermark,
};

/// Reads what follows `CREATE TABLE`.
pub(super) fn create_table(cursor: &mut Cursor, prefix: Prefix) -> Result<Statement> {
    refuse_replace(cursor, prefix, "a table")?;
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.name()?;
    let schema = schema(cursor, TypesAre::Required)?;
    let clauses = clauses(cursor)?;
    if cursor.at("AS") || cursor.at("LIKE") {
        let help = "create the table with its columns and INSERT INTO it, or write CREATE DYNAMIC TABLE .. AS";
        return Err(cursor.error("a table is not created from a query or another table", help));
    }
    Ok(Statement::CreateTable(CreateTable {
        name,
        if_not_exists,
        schema,
        comment: clauses.comment,
        partitioned_by: clauses.partitioned_by,
        options: clauses.options,
    }))
}

/// Reads what follows `CREATE DYNAMIC TABLE`.
pub(super) fn create_dynamic_table(cursor: &mut Cursor, prefix: Prefix) -> Result<Statement> {
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.name()?;
    let schema = match cursor.token(0) {
        Token::LParen => schema(cursor, TypesAre::Optional)?,
        _ => TableSchema::default(),
    };
    let mut settings = Clauses::default();
    while settings.clause(cursor)? || settings.dynamic_clause(cursor)? {}
    cursor.expect("AS")?;
    Ok(Statement::CreateDynamicTable(CreateDynamicTable {
        name,
        or_replace: prefix.or_replace,
        if_not_exists,
        schema,
        comment: settings.comment,
        partitioned_by: settings.partitioned_by,
        freshness: settings.freshness,
        options: settings.options,
        body: cursor.body()?,
    }))
}

/// Reads what follows `CREATE VIEW`.
pub(super) fn create_view(cursor: &mut Cursor, prefix: Prefix) -> Result<Statement> {
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.name()?;
    let columns = match cursor.token(0) {
        Token::LParen => cursor.list(|cursor| {
            let column = cursor.identifier()?;
            comment(cursor)?;
            Ok(column)
        })?,
        _ => Vec::new(),
    };
    let comment = comment(cursor)?;
    cursor.expect("AS")?;
    Ok(Statement::CreateView(CreateView {
        name,
        or_replace: prefix.or_replace,
        if_not_exists,
        columns,
        comment,
        body: cursor.body()?,
    }))
}

/// Reads what follows `REFRESH DYNAMIC TABLE`.
pub(super) fn refresh(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    Ok(Statement::Refresh(cursor.name()?))
}

/// Whether columns must say their type.
#[derive(Debug, Clone, Copy, PartialEq)]
enum TypesAre {
    Required,
    Optional,
}

fn schema(cursor: &mut Cursor, types: TypesAre) -> Result<TableSchema> {
    let mut schema = TableSchema::default();
    cursor.list(|cursor| {
        if at_key(cursor) {
            let at = cursor.position();
            key_constraint(cursor).and_then(|key| set_key(&mut schema, key, at))
        } else if cursor.at("WATERMARK FOR") {
            watermark(cursor, &mut schema)
        } else {
            column(cursor, types, &mut schema)
        }
    })?;
    Ok(schema)
}

fn at_key(cursor: &Cursor) -> bool {
    let is_named = cursor.is_word(0, "CONSTRAINT") && cursor.is_word(2, "PRIMARY");
    is_named || cursor.at("PRIMARY KEY") && *cursor.token(2) == Token::LParen
}

fn key_constraint(cursor: &mut Cursor) -> Result<Vec<String>> {
    if cursor.accept("CONSTRAINT") {
        cursor.identifier()?;
    }
    cursor.expect("PRIMARY KEY")?;
    let key = cursor.list(Cursor::identifier)?;
    if key.is_empty() {
        return Err(cursor.error("a primary key has at least one column", "the form is PRIMARY KEY (column, ..)"));
    }
    cursor.accept("NOT ENFORCED");
    Ok(key)
}

fn set_key(schema: &mut TableSchema, key: Vec<String>, at: Position) -> Result<()> {
    if !schema.primary_key.is_empty() {
        let help = "name all columns of the key once, as in PRIMARY KEY (a, b)";
        return Err(ParseError::new(at, "table has more than one primary key", help));
    }
    schema.primary_key = key;
    Ok(())
}

fn watermark(cursor: &mut Cursor, schema: &mut TableSchema) -> Result<()> {
    if schema.watermark.is_some() {
        return Err(cursor.error("table has more than one watermark", "keep one of them"));
    }
    cursor.expect("WATERMARK FOR")?;
    let column = cursor.identifier()?;
    cursor.expect("AS").map_err(|e| e.or_help("the form is WATERMARK FOR column AS expression"))?;
    let expression = cursor.expression()?;
    schema.watermark = Some(Watermark { column, expression });
    Ok(())
}

fn column(cursor: &mut Cursor, types: TypesAre, schema: &mut TableSchema) -> Result<()> {
    let position = cursor.position();
    let name = cursor.identifier()?;
    if schema.columns.iter().any(|column| column.name == name) {
        let message = format!("column \"{name}\" is declared twice");
        return Err(ParseError::new(position, message, "rename one of them"));
    }
    let mut column = ColumnDef {
        name,
        position,
        data_type: None,
        not_null: false,
        kind: ColumnKind::Physical { default: None },
        comment: None,
    };
    if cursor.accept("AS") {
        column.kind = ColumnKind::Computed(cursor.expression()?);
    } else if types == TypesAre::Required || at_type(cursor) {
        column.data_type = Some(column_type(cursor, &column.name)?);
    }
    while column_clause(cursor, &mut column, schema)? {}
    if types == TypesAre::Optional && column.kind == ColumnKind::AutoIncrement {
        let message = format!("column \"{}\" of a dynamic table cannot be AUTO_INCREMENT", column.name);
        return Err(ParseError::new(position, message, "number the keys in a table, and join it"));
    }
    schema.columns.push(column);
    Ok(())
}

/// Returns whether a type follows the name of a column of a dynamic table.
fn at_type(cursor: &Cursor) -> bool {
    let is_clause = ["AUTO_INCREMENT", "COMMENT", "NOT", "PRIMARY"].iter().any(|word| cursor.is_word(0, word));
    matches!(cursor.token(0), Token::Word(_)) && !is_clause
}

fn column_type(cursor: &mut Cursor, column: &str) -> Result<sqlparser::ast::DataType> {
    if !matches!(cursor.token(0), Token::Word(_)) {
        return Err(cursor.expected(&format!("the type of column \"{column}\"")));
    }
    cursor.data_type()
}

fn column_clause(cursor: &mut Cursor, column: &mut ColumnDef, schema: &mut TableSchema) -> Result<bool> {
    let at = cursor.position();
    if cursor.accept("NOT NULL") {
        column.not_null = true;
    } else if cursor.accept("NULL") {
        column.not_null = false;
    } else if cursor.accept("PRIMARY KEY") {
        cursor.accept("NOT ENFORCED");
        set_key(schema, vec![column.name.clone()], at)?;
    } else if cursor.at("METADATA") || cursor.at("DEFAULT") || cursor.at("AUTO_INCREMENT") {
        source_clause(cursor, column)?;
    } else if let Some(text) = comment(cursor)? {
        column.comment = Some(text);
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Reads `METADATA [FROM 'k'] [VIRTUAL]`, `AUTO_INCREMENT` or `DEFAULT expr`: where values come from.
fn source_clause(cursor: &mut Cursor, column: &mut ColumnDef) -> Result<()> {
    if column.kind != (ColumnKind::Physical { default: None }) {
        let message = format!("column \"{}\" has more than one origin", column.name);
        return Err(cursor.error(message, "a column is computed, METADATA, AUTO_INCREMENT or has a DEFAULT"));
    }
    column.kind = if cursor.accept("METADATA") {
        let key = cursor.accept("FROM").then(|| cursor.string()).transpose()?;
        let is_virtual = cursor.accept("VIRTUAL");
        ColumnKind::Metadata { key, is_virtual }
    } else if cursor.accept("AUTO_INCREMENT") {
        if *cursor.token(0) == Token::LParen {
            return Err(
                cursor.error("AUTO_INCREMENT has no first number to choose", "leave out the brackets: it begins with 1")
            );
        }
        ColumnKind::AutoIncrement
    } else {
        cursor.expect("DEFAULT")?;
        let default = Some(default_value(cursor, column)?);
        ColumnKind::Physical { default }
    };
    Ok(())
}

/// Reads the expression of a DEFAULT. sqlparser takes a NOT NULL behind it for the operator `IS NOT NULL`; here it belongs to the
/// column.
fn default_value(cursor: &mut Cursor, column: &mut ColumnDef) -> Result<Expr> {
    let start = cursor.location();
    let expression = cursor.expression()?;
    let text = cursor.text_since(start).to_uppercase();
    let mut words = text.split_whitespace().rev();
    match expression {
        Expr::IsNotNull(value) if words.nth(2) != Some("IS") => {
            column.not_null = true;
            Ok(*value)
        }
        other => Ok(other),
    }
}

fn comment(cursor: &mut Cursor) -> Result<Option<String>> {
    if !cursor.accept("COMMENT") {
        return Ok(None);
    }
    cursor.accept_token(&Token::Eq);
    cursor.string().map(Some)
}

/// What stands after the columns, in any order.
#[derive(Default)]
struct Clauses {
    comment: Option<String>,
    partitioned_by: Vec<String>,
    options: Options,
    freshness: Option<String>,
}

fn clauses(cursor: &mut Cursor) -> Result<Clauses> {
    let mut clauses = Clauses::default();
    while clauses.clause(cursor)? {}
    Ok(clauses)
}

impl Clauses {
    /// Reads a clause that all tables have.
    fn clause(&mut self, cursor: &mut Cursor) -> Result<bool> {
        if let Some(text) = comment(cursor)? {
            self.comment = Some(text);
        } else if cursor.accept("PARTITIONED BY") {
            self.partitioned_by = cursor.list(|cursor| {
                let start = cursor.location();
                cursor.expression()?;
                Ok(cursor.text_since(start).to_string())
            })?;
        } else if cursor.accept("WITH") || cursor.accept("PROPERTIES") {
            self.merge(cursor)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn merge(&mut self, cursor: &mut Cursor) -> Result<()> {
        cursor.list(|cursor| cursor.option(&mut self.options))?;
        Ok(())
    }

    /// Reads a clause that only dynamic tables have.
    fn dynamic_clause(&mut self, cursor: &mut Cursor) -> Result<bool> {
        if cursor.accept("FRESHNESS") || cursor.accept("TARGET_LAG") {
            cursor.accept_token(&Token::Eq);
            self.freshness = Some(bound(cursor)?);
        } else if cursor.at("REFRESH INTERVAL") {
            cursor.expect("REFRESH")?;
            self.freshness = Some(bound(cursor)?);
        } else if cursor.accept("REFRESH MODE") {
            self.setting(cursor, "refresh_mode")?;
        } else if cursor.accept("VCLUSTER") {
            self.setting(cursor, "vcluster")?;
        } else if cursor.at_option() {
            cursor.option(&mut self.options)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn setting(&mut self, cursor: &mut Cursor, key: &str) -> Result<()> {
        cursor.accept_token(&Token::Eq);
        let value = cursor.option_value()?;
        self.options.insert(key, value);
        Ok(())
    }
}

/// Reads an upper bound of the delay as it is written: `INTERVAL '3' MINUTE`, or the text of `'1 minute'`.
fn bound(cursor: &mut Cursor) -> Result<String> {
    let start = cursor.location();
    match cursor.expression()? {
        Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)) => {
            Ok(value.value.into_string().unwrap_or_default())
        }
        _ => Ok(cursor.text_since(start).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::tests::{one, refused};
    use super::super::statement::Name;
    use super::*;

    fn table(text: &str) -> CreateTable {
        match one(text) {
            Statement::CreateTable(table) => table,
            other => panic!("{other:?}"),
        }
    }

    fn dynamic(text: &str) -> CreateDynamicTable {
        match one(text) {
            Statement::CreateDynamicTable(table) => table,
            other => panic!("{other:?}"),
        }
    }

    fn types(schema: &TableSchema) -> String {
        let shown = schema.columns.iter().map(|column| match &column.data_type {
            Some(data_type) => format!("{} {data_type}", column.name),
            None => column.name.clone(),
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn tables_have_columns_key_and_options() {
        let table = table(
            "CREATE TABLE IF NOT EXISTS S.Orders (Id BIGINT NOT NULL COMMENT 'it''s', \"Note\" STRING DEFAULT 'x' NOT NULL, \
             CONSTRAINT pk PRIMARY KEY (Id, \"Note\") NOT ENFORCED) COMMENT 'orders' PARTITIONED BY (dt, days(ts)) \
             WITH ('connector' = 'kafka', scan.startup = earliest, limit = -3)",
        );
        assert!(table.if_not_exists);
        assert_eq!(table.name, Name::new(["s", "orders"]));
        assert_eq!(types(&table.schema), "id BIGINT, Note STRING");
        assert_eq!(table.schema.primary_key, ["id", "Note"]);
        let [id, note] = &table.schema.columns[..] else { panic!() };
        assert_eq!((id.comment.as_deref(), id.not_null, note.not_null), (Some("it's"), true, true));
        assert!(matches!(&note.kind, ColumnKind::Physical { default: Some(e) } if e.to_string() == "'x'"));
        assert_eq!((note.position.line, note.position.column), (1, 74));
        assert_eq!(table.comment.as_deref(), Some("orders"));
        assert_eq!(table.partitioned_by, ["dt", "days(ts)"]);
        assert_eq!(table.options.to_string(), "'connector' = 'kafka', 'scan.startup' = 'earliest', 'limit' = '-3'");
    }

    #[test]
    fn columns_may_be_computed_metadata_or_the_key() {
        let table = table(
            "create table t (id int primary key not enforced, ts as to_timestamp_ltz(ms, 3) comment 'c', p as proctime(), \
             o bigint metadata from 'offset' virtual, k string metadata, watermark for ts as ts - interval '5' second)",
        );
        assert_eq!(table.schema.primary_key, ["id"]);
        let kinds: Vec<_> = table.schema.columns.iter().map(|c| c.kind.clone()).collect();
        assert!(matches!(&kinds[1], ColumnKind::Computed(e) if e.to_string() == "to_timestamp_ltz(ms, 3)"));
        assert!(matches!(&kinds[2], ColumnKind::Computed(_)));
        assert_eq!(kinds[3], ColumnKind::Metadata { key: Some("offset".into()), is_virtual: true });
        assert_eq!(kinds[4], ColumnKind::Metadata { key: None, is_virtual: false });
        assert_eq!(table.schema.columns[1].comment.as_deref(), Some("c"));
        let watermark = table.schema.watermark.unwrap();
        assert_eq!(
            (watermark.column.as_str(), watermark.expression.to_string().as_str()),
            ("ts", "ts - INTERVAL '5' SECOND")
        );
    }

    #[test]
    fn a_column_may_number_the_keys() {
        let table = table(
            "CREATE TABLE t (k STRING PRIMARY KEY, n BIGINT NOT NULL auto_increment COMMENT 'by key', auto_increment INT)",
        );
        let kinds: Vec<bool> = table.schema.columns.iter().map(|column| column.kind == ColumnKind::AutoIncrement).collect();
        assert_eq!(kinds, [false, true, false]);
        assert_eq!(table.schema.columns[1].comment.as_deref(), Some("by key"));
        let help = refused(
            "CREATE DYNAMIC TABLE t (k, n AUTO_INCREMENT) AS SELECT 1, 2",
            (1, 28),
            "column \"n\" of a dynamic table cannot be AUTO_INCREMENT",
        );
        assert!(help.contains("join"), "{help}");
    }

    #[test]
    fn a_default_may_test_for_null() {
        let table = table(
            "CREATE TABLE t (a BOOLEAN DEFAULT f(1) is\n not  null, b BOOLEAN DEFAULT f(1) NOT NULL COMMENT 'c', c INT)",
        );
        let defaults: Vec<_> = table.schema.columns.iter().map(|c| (&c.kind, c.not_null)).collect();
        assert!(matches!(defaults[0], (ColumnKind::Physical { default: Some(Expr::IsNotNull(_)) }, false)));
        assert!(matches!(defaults[1], (ColumnKind::Physical { default: Some(Expr::Function(_)) }, true)));
    }

    #[test]
    fn all_types_are_read() {
        let text = "a BOOLEAN, b TINYINT, c SMALLINT, d INT, e INTEGER, f BIGINT, g FLOAT, h DOUBLE, i DECIMAL(10,2), j STRING, \
                    k VARCHAR(20), l VARCHAR, m BYTES, n DATE, o TIMESTAMP, p TIMESTAMP(3), q TIMESTAMP_LTZ(3), r INTERVAL, \
                    s INTERVAL DAY TO SECOND, t BITMAP, u ARRAY<ARRAY<INT>>, v STRUCT<a INT, b STRUCT<c STRING>>, w NUMERIC";
        let table = table(&format!("CREATE TABLE t ({text})"));
        assert_eq!(types(&table.schema), text);
    }

    #[test]
    fn tables_that_are_wrong() {
        refused("CREATE TABLE t (a INT, A INT)", (1, 24), "column \"a\" is declared twice");
        refused("CREATE TABLE t (a)", (1, 18), "expected the type of column \"a\", found \")\"");
        refused("CREATE TABLE t (a INT PRIMARY KEY, PRIMARY KEY (a))", (1, 36), "table has more than one primary key");
        refused("CREATE TABLE t (a INT b)", (1, 23), "expected \",\" or \")\", found \"b\"");
        refused("CREATE TABLE t (a INT) WITH ('password' 'hunter2')", (1, 41), "expected \"=\", found a string");
        refused("CREATE TABLE t (a INT) WITH ('k' = 1, 'K' = 2)", (1, 39), "option \"K\" is given twice");
        refused("CREATE TABLE t (a INT) WITH ('k' = (1))", (1, 36), "expected the value of an option, found \"(\"");
        refused("CREATE TABLE t (a BIGINT AUTO_INCREMENT (7))", (1, 41), "AUTO_INCREMENT has no first number to choose");
        refused("CREATE TABLE t (a INT DEFAULT 1 METADATA)", (1, 33), "column \"a\" has more than one origin");
        refused("CREATE TABLE t (a INT, PRIMARY KEY ())", (1, 38), "a primary key has at least one column");
        refused("CREATE TABLE t AS SELECT 1", (1, 16), "expected \"(\", found \"AS\"");
        refused("CREATE TABLE t (a INT) AS SELECT 1", (1, 24), "a table is not created from a query or another table");
        refused("CREATE TABLE (a INT)", (1, 14), "expected a name, found \"(\"");
    }

    #[test]
    fn dynamic_tables_keep_their_bound() {
        let bounds = [
            ("FRESHNESS = INTERVAL '3' MINUTE", "INTERVAL '3' MINUTE"),
            ("TARGET_LAG = '1 minute'", "1 minute"),
            ("TARGET_LAG = DOWNSTREAM", "DOWNSTREAM"),
            ("REFRESH INTERVAL 5 MINUTE vcluster default_ap", "INTERVAL 5 MINUTE"),
        ];
        for (clause, expected) in bounds {
            let table = dynamic(&format!("CREATE MATERIALIZED TABLE t {clause} AS SELECT 1"));
            assert_eq!(table.freshness.as_deref(), Some(expected));
        }
    }

    #[test]
    fn dynamic_tables_keep_their_settings() {
        let table = dynamic(
            "CREATE OR REPLACE DYNAMIC TABLE s.t (id COMMENT 'key', n BIGINT, PRIMARY KEY (id)) COMMENT 'c' REFRESH_MODE = FULL \
             WITH ('k' = 'v') REFRESH INTERVAL '1' HOUR VCLUSTER x AS WITH a AS (SELECT 1) SELECT * FROM a",
        );
        assert!(table.or_replace && !table.if_not_exists);
        assert_eq!(types(&table.schema), "id, n BIGINT");
        assert_eq!(table.schema.primary_key, ["id"]);
        assert_eq!(table.comment.as_deref(), Some("c"));
        assert_eq!(table.options.to_string(), "'REFRESH_MODE' = 'FULL', 'k' = 'v', 'vcluster' = 'x'");
        assert_eq!(table.body.query.to_string(), "WITH a AS (SELECT 1) SELECT * FROM a");
        assert!(dynamic("create dynamic table if not exists t as (select 1)").if_not_exists);
        refused("CREATE DYNAMIC TABLE t SELECT 1", (1, 24), "expected AS, found \"SELECT\"");
        refused("CREATE DYNAMIC TABLE t AS", (1, 26), "expected a query, found end of script");
        assert_eq!(one("REFRESH MATERIALIZED TABLE s.t"), Statement::Refresh(Name::new(["s", "t"])));
    }

    #[test]
    fn views_may_rename_columns() {
        let Statement::CreateView(view) = one("CREATE OR REPLACE VIEW v (A, b COMMENT 'x') COMMENT 'y' AS SELECT 1, 2")
        else {
            panic!()
        };
        assert!(view.or_replace);
        assert_eq!((view.columns, view.comment), (vec!["a".into(), "b".into()], Some("y".into())));
        assert_eq!(view.body.query.to_string(), "SELECT 1, 2");
    }
}
