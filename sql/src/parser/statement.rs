//! The statements of a script.
//!
//! Query bodies, expressions and types stay sqlparser's, so that they can be handed to DataFusion; everything that is ours to
//! interpret has types of its own. Names of tables and columns are folded here, once: to lower case unless they were quoted.

use std::fmt;

use sqlparser::ast;

use super::error::Position;
use super::options::{Options, redact};

/// A node with the text that it was read from and the place where it begins.
#[derive(Clone, PartialEq)]
pub struct Spanned<T> {
    /// The node.
    pub node: T,
    /// The exact text, without the semicolon. It may hold secrets: see [`Spanned::shown`].
    pub text: String,
    /// Line of the first token, from 1.
    pub line: usize,
    /// Column of the first token in characters, from 1.
    pub column: usize,
}

impl<T> Spanned<T> {
    /// Returns the text with `***` for the values of secrets.
    pub fn shown(&self) -> String {
        redact(&self.text)
    }

    /// Returns the place of the first token.
    pub fn position(&self) -> Position {
        Position { line: self.line, column: self.column }
    }
}

impl<T: fmt::Debug> fmt::Debug for Spanned<T> {
    /// Leaves the text out: it may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} ", self.line, self.column)?;
        self.node.fmt(f)
    }
}

/// The name of a table, view, function or any other object: one part or more, folded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<String>);

impl Name {
    /// Returns a name of already folded parts.
    ///
    /// # Panics
    ///
    /// If there are no parts.
    pub fn new<S: Into<String>>(parts: impl IntoIterator<Item = S>) -> Self {
        let parts: Vec<String> = parts.into_iter().map(Into::into).collect();
        assert!(!parts.is_empty(), "a name has at least one part");
        Name(parts)
    }

    /// Returns all parts, the outermost first.
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// Returns the last part: the object's own name.
    pub fn object(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// Returns the part before the last: the schema.
    pub fn schema(&self) -> Option<&str> {
        let at = self.0.len().checked_sub(2)?;
        self.0.get(at).map(String::as_str)
    }
}

impl From<&ast::ObjectName> for Name {
    fn from(name: &ast::ObjectName) -> Self {
        Name::new(name.0.iter().map(|part| match part.as_ident() {
            Some(ident) => fold(ident),
            None => part.to_string(),
        }))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            if is_plain(part) {
                write!(f, "{dot}{part}")?;
            } else {
                write!(f, "{dot}\"{}\"", part.replace('"', "\"\""))?;
            }
        }
        Ok(())
    }
}

/// Returns whether a folded identifier reads back without quotes.
fn is_plain(part: &str) -> bool {
    !part.starts_with(|c: char| c.is_ascii_digit() || c == '$')
        && !part.is_empty()
        && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$')
}

/// Folds an identifier: to lower case unless it is quoted.
pub fn fold(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// One statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// `CREATE SCHEMA | DATABASE`
    CreateSchema {
        /// The schema.
        name: Name,
        /// Whether an existing schema is left alone.
        if_not_exists: bool,
    },
    /// `USE [SCHEMA]`
    UseSchema(Name),
    /// `SHOW ..`
    Show(Show),
    /// `DESCRIBE | DESC t`
    Describe(Name),
    /// `DROP ..`
    Drop(DropObject),
    /// `CREATE TABLE`
    CreateTable(CreateTable),
    /// `CREATE VIEW`
    CreateView(CreateView),
    /// `CREATE DYNAMIC | MATERIALIZED TABLE`
    CreateDynamicTable(CreateDynamicTable),
    /// `REFRESH DYNAMIC | MATERIALIZED TABLE t`
    Refresh(Name),
    /// `INSERT INTO | OVERWRITE`
    Insert(Insert),
    /// `EXECUTE STATEMENT SET BEGIN .. END`: inserts and merges that start together
    StatementSet(Vec<Spanned<Statement>>),
    /// `UPDATE`
    Update(Box<ast::Update>),
    /// `DELETE`
    Delete(Box<ast::Delete>),
    /// `MERGE INTO`
    Merge(Box<ast::Merge>),
    /// `TRUNCATE TABLE t`
    Truncate(Name),
    /// `REPAIR TABLE t FROM SELECT ..`
    Repair {
        /// The table whose dead letters are repaired.
        table: Name,
        /// The repaired rows, followed by `source, partition, position`.
        body: Body,
    },
    /// `SELECT`, `WITH`, `VALUES`
    Query(Body),
    /// `EXPLAIN [ANALYZE]`
    Explain {
        /// Whether the plan comes with what it cost.
        analyze: bool,
        /// The explained statement.
        statement: Box<Spanned<Statement>>,
    },
    /// `PUT 'path' TO USER VOLUME [FILE 'f']`
    Put {
        /// The local path.
        path: String,
        /// The name in the volume; the path's own file name where it is left out.
        file: Option<String>,
    },
    /// `COPY INTO t FROM ..`
    CopyInto(CopyInto),
    /// `CREATE PIPE p AS COPY INTO ..`
    CreatePipe(CreatePipe),
    /// `CREATE FUNCTION f(..) RETURNS T AS expr`
    CreateFunction(CreateFunction),
    /// `CREATE EXTERNAL FUNCTION f(..) RETURNS T ..`
    CreateExternalFunction(CreateExternalFunction),
    /// `CREATE API CONNECTION c k = v ..`
    CreateConnection {
        /// The connection.
        name: Name,
        /// Whether an existing connection is left alone.
        if_not_exists: bool,
        /// `TYPE`, `URL`, ..
        options: Options,
    },
    /// `SET 'k' = 'v'`
    Set {
        /// The setting, in lower case.
        key: String,
        /// Its value.
        value: String,
    },
}

impl Statement {
    /// Returns the table that the statement writes.
    pub fn target(&self) -> Option<Name> {
        match self {
            Statement::Insert(insert) => Some(insert.table.clone()),
            Statement::Update(update) => factor_name(&update.table.relation),
            Statement::Delete(delete) => delete_target(delete),
            Statement::Merge(merge) => factor_name(&merge.table),
            Statement::Truncate(table) | Statement::Repair { table, .. } => Some(table.clone()),
            Statement::CopyInto(copy) => Some(copy.table.clone()),
            Statement::CreatePipe(pipe) => Some(pipe.copy.table.clone()),
            _ => None,
        }
    }
}

fn delete_target(delete: &ast::Delete) -> Option<Name> {
    let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &delete.from;
    factor_name(&from.first()?.relation)
}

fn factor_name(factor: &ast::TableFactor) -> Option<Name> {
    match factor {
        ast::TableFactor::Table { name, .. } => Some(name.into()),
        _ => None,
    }
}

/// A query and the hints that stood in its SELECTs.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// The query, without the hints.
    pub query: Box<ast::Query>,
    /// Hints in upper case and in the order of the text: `DELTA_JOIN`.
    pub hints: Vec<String>,
}

/// What a `SHOW` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// The tables of the current schema or the one given.
    Tables(Option<Name>),
    /// What feeds the job.
    Sources,
    /// The continuous statements.
    Jobs,
    /// The tables with dead letters.
    Errors,
    /// The statement that makes a table.
    CreateTable(Name),
}

/// `DROP kind [IF EXISTS] name [CASCADE]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropObject {
    /// What is dropped.
    pub kind: ObjectKind,
    /// Its name.
    pub name: Name,
    /// Whether a missing object is no error.
    pub if_exists: bool,
    /// Whether everything that uses it goes too.
    pub cascade: bool,
}

/// The kinds of objects that can be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A table.
    Table,
    /// A view.
    View,
    /// A dynamic table.
    DynamicTable,
    /// A schema.
    Schema,
    /// A pipe.
    Pipe,
    /// A function, inlined or external.
    Function,
    /// An API connection.
    Connection,
}

/// `CREATE TABLE`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    /// The table.
    pub name: Name,
    /// Whether an existing table is left alone.
    pub if_not_exists: bool,
    /// Columns, key and watermark.
    pub schema: TableSchema,
    /// What the table is about.
    pub comment: Option<String>,
    /// Partitioning as written; without effect.
    pub partitioned_by: Vec<String>,
    /// `WITH (..)`.
    pub options: Options,
}

/// What stands between the parentheses of a table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableSchema {
    /// Columns in order.
    pub columns: Vec<ColumnDef>,
    /// Names of the key's columns; empty without a key.
    pub primary_key: Vec<String>,
    /// `WATERMARK FOR`.
    pub watermark: Option<Watermark>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDef {
    /// Its name, folded.
    pub name: String,
    /// Where it is declared.
    pub position: Position,
    /// Its type: always there for a physical or metadata column of a `CREATE TABLE`, left out by dynamic tables and computed columns.
    pub data_type: Option<ast::DataType>,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// Where its values come from.
    pub kind: ColumnKind,
    /// What the column is about.
    pub comment: Option<String>,
}

/// Where a column's values come from.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnKind {
    /// From whoever writes the row.
    Physical {
        /// The value where the writer gives none.
        default: Option<ast::Expr>,
    },
    /// From the table, which numbers its keys.
    AutoIncrement,
    /// From the other columns.
    Computed(ast::Expr),
    /// From what carried the row.
    Metadata {
        /// The key of the metadata; the column's name where it is left out.
        key: Option<String>,
        /// Whether the column is left out of writes.
        is_virtual: bool,
    },
}

/// `WATERMARK FOR column AS expression`.
#[derive(Debug, Clone, PartialEq)]
pub struct Watermark {
    /// The event-time column, folded.
    pub column: String,
    /// The watermark.
    pub expression: ast::Expr,
}

/// `CREATE [OR REPLACE] VIEW`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateView {
    /// The view.
    pub name: Name,
    /// Whether an existing view is replaced.
    pub or_replace: bool,
    /// Whether an existing view is left alone.
    pub if_not_exists: bool,
    /// New names for the query's columns; empty where they keep their own.
    pub columns: Vec<String>,
    /// What the view is about.
    pub comment: Option<String>,
    /// The query.
    pub body: Body,
}

/// `CREATE [OR REPLACE] DYNAMIC | MATERIALIZED TABLE`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateDynamicTable {
    /// The dynamic table.
    pub name: Name,
    /// Whether an existing table is replaced.
    pub or_replace: bool,
    /// Whether an existing table is left alone.
    pub if_not_exists: bool,
    /// New names, types and key of the columns, as far as given.
    pub schema: TableSchema,
    /// What the table is about.
    pub comment: Option<String>,
    /// Partitioning as written; without effect.
    pub partitioned_by: Vec<String>,
    /// `FRESHNESS`, `TARGET_LAG` or `REFRESH INTERVAL` as written: an upper bound.
    pub freshness: Option<String>,
    /// `WITH (..)` and the other settings, as `refresh_mode` or `vcluster`.
    pub options: Options,
    /// The query.
    pub body: Body,
}

/// A column that a statement names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnName {
    /// Its name, folded.
    pub name: String,
    /// Where it stands.
    pub position: Position,
}

/// `INSERT`.
#[derive(Debug, Clone, PartialEq)]
pub struct Insert {
    /// The table.
    pub table: Name,
    /// The columns that the query gives; empty for all.
    pub columns: Vec<ColumnName>,
    /// Whether the table's rows are replaced.
    pub overwrite: bool,
    /// The rows.
    pub body: Body,
}

impl Insert {
    /// Returns whether the rows are a plain `VALUES` list.
    pub fn is_values(&self) -> bool {
        let query = &self.body.query;
        query.with.is_none() && matches!(*query.body, ast::SetExpr::Values(_))
    }
}

/// `COPY INTO`.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyInto {
    /// The table.
    pub table: Name,
    /// The columns that are loaded; empty for all.
    pub columns: Vec<ColumnName>,
    /// Where the rows come from.
    pub source: CopySource,
}

/// What a `COPY INTO` reads.
#[derive(Debug, Clone, PartialEq)]
pub enum CopySource {
    /// Files.
    Files(CopyFiles),
    /// A query, as over `READ_KAFKA(..)`.
    Query(Body),
}

/// Files to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFiles {
    /// Where they lie.
    pub location: FileLocation,
    /// `USING format`, in lower case.
    pub format: Option<String>,
    /// `OPTIONS (..)`.
    pub options: Options,
    /// `FILES (..)`; empty for all.
    pub files: Vec<String>,
    /// `SUBDIRECTORY '..'`.
    pub subdirectory: Option<String>,
    /// `REGEXP '..'` over file names.
    pub pattern: Option<String>,
}

/// Where files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileLocation {
    /// `USER VOLUME`
    UserVolume,
    /// `VOLUME v`
    Volume(Name),
    /// `'dir'`
    Directory(String),
}

/// `CREATE PIPE`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreatePipe {
    /// The pipe.
    pub name: Name,
    /// Whether an existing pipe is replaced.
    pub or_replace: bool,
    /// Whether an existing pipe is left alone.
    pub if_not_exists: bool,
    /// Settings before AS.
    pub options: Options,
    /// What is copied.
    pub copy: CopyInto,
}

/// A parameter of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name, folded.
    pub name: String,
    /// Its type.
    pub data_type: ast::DataType,
}

/// `CREATE FUNCTION`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateFunction {
    /// The function.
    pub name: Name,
    /// Whether an existing function is replaced.
    pub or_replace: bool,
    /// Whether an existing function is left alone.
    pub if_not_exists: bool,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// The type of its result.
    pub returns: ast::DataType,
    /// The expression that stands for a call.
    pub body: ast::Expr,
}

/// `CREATE EXTERNAL FUNCTION`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateExternalFunction {
    /// The function.
    pub name: Name,
    /// Whether an existing function is replaced.
    pub or_replace: bool,
    /// Whether an existing function is left alone.
    pub if_not_exists: bool,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// The type of its result.
    pub returns: ast::DataType,
    /// The API connection that calls go through.
    pub connection: Name,
    /// The other settings, with `language` among them.
    pub options: Options,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_print_so_that_they_read_back() {
        assert_eq!(Name::new(["s", "t$errors"]).to_string(), "s.t$errors");
        assert_eq!(Name::new(["S", "a\"b"]).to_string(), "\"S\".\"a\"\"b\"");
        assert_eq!(Name::new(["1a"]).to_string(), "\"1a\"");
        let name = Name::new(["c", "s", "t"]);
        assert_eq!((name.schema(), name.object()), (Some("s"), "t"));
        assert_eq!(Name::new(["t"]).schema(), None);
    }

    #[test]
    fn debug_output_holds_no_source_text() {
        let spanned = Spanned { node: 7, text: "with ('password'='hunter2')".into(), line: 2, column: 3 };
        assert_eq!(format!("{spanned:?}"), "2:3 7");
        assert_eq!(spanned.shown(), "with ('password'='***')");
    }
}
