//! Files and pipes: `PUT`, `COPY INTO`, `CREATE PIPE`.

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::error::Result;
use super::options::Options;
use super::parse::Prefix;
use super::statement::{CopyFiles, CopyInto, CopySource, CreatePipe, FileLocation, Statement};

/// The form of a `COPY INTO`, for help lines.
pub(super) const COPY_FORM: &str = "the form is COPY INTO t [(columns)] FROM USER VOLUME | VOLUME v | 'directory' USING csv | json | parquet [OPTIONS ('k' = 'v', ..)] [FILES ('name', ..)]";

/// Reads what follows `PUT`.
pub(super) fn put(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    let path = cursor.string()?;
    cursor.expect("TO USER VOLUME")?;
    let file = cursor.accept("FILE").then(|| cursor.string()).transpose()?;
    Ok(Statement::Put { path, file })
}

/// Reads what follows `COPY INTO`.
pub(super) fn copy_into(cursor: &mut Cursor, _: Prefix) -> Result<Statement> {
    Ok(Statement::CopyInto(copy(cursor)?))
}

/// Reads what follows `CREATE PIPE`.
pub(super) fn create_pipe(cursor: &mut Cursor, prefix: Prefix) -> Result<Statement> {
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.name()?;
    let options = cursor.bare_options()?;
    cursor.expect("AS")?;
    cursor.expect("COPY INTO")?;
    let copy = copy(cursor).map_err(|error| error.or_help(COPY_FORM))?;
    Ok(Statement::CreatePipe(CreatePipe { name, or_replace: prefix.or_replace, if_not_exists, options, copy }))
}

fn copy(cursor: &mut Cursor) -> Result<CopyInto> {
    let table = cursor.name()?;
    let columns = cursor.column_names()?;
    cursor.expect("FROM")?;
    let source =
        if cursor.at_query() { CopySource::Query(copied_query(cursor)?) } else { CopySource::Files(files(cursor)?) };
    Ok(CopyInto { table, columns, source })
}

/// Reads a query without the parentheses around it: they would be a level of nesting that says nothing.
fn copied_query(cursor: &mut Cursor) -> Result<super::statement::Body> {
    if *cursor.token(0) != Token::LParen {
        return cursor.body();
    }
    cursor.skip(1);
    let body = cursor.body()?;
    cursor.expect_token(&Token::RParen)?;
    Ok(body)
}

fn files(cursor: &mut Cursor) -> Result<CopyFiles> {
    let mut files = CopyFiles {
        location: location(cursor)?,
        format: None,
        options: Options::default(),
        files: Vec::new(),
        subdirectory: None,
        pattern: None,
    };
    loop {
        if cursor.accept("USING") {
            files.format = Some(cursor.identifier()?.to_lowercase());
        } else if cursor.accept("OPTIONS") {
            files.options = cursor.options()?;
        } else if cursor.accept("FILES") {
            files.files = cursor.list(Cursor::string)?;
        } else if cursor.accept("SUBDIRECTORY") {
            files.subdirectory = Some(cursor.string()?);
        } else if cursor.accept("REGEXP") {
            files.pattern = Some(cursor.string()?);
        } else {
            return Ok(files);
        }
    }
}

fn location(cursor: &mut Cursor) -> Result<FileLocation> {
    if let Token::SingleQuotedString(_) = cursor.token(0) {
        return cursor.string().map(FileLocation::Directory);
    }
    if cursor.accept("USER VOLUME") {
        return Ok(FileLocation::UserVolume);
    }
    if cursor.accept("VOLUME") {
        return cursor.name().map(FileLocation::Volume);
    }
    Err(cursor.expected("USER VOLUME, VOLUME, a directory or a query"))
}

#[cfg(test)]
mod tests {
    use super::super::parse::tests::{one, refused};
    use super::super::statement::Name;
    use super::*;

    fn copied(text: &str) -> CopyInto {
        match one(text) {
            Statement::CopyInto(copy) => copy,
            other => panic!("{other:?}"),
        }
    }

    fn copied_files(text: &str) -> CopyFiles {
        match copied(text).source {
            CopySource::Files(files) => files,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_are_put() {
        let put = |file: Option<&str>| Statement::Put { path: "/tmp/a.csv".into(), file: file.map(String::from) };
        assert_eq!(one("PUT '/tmp/a.csv' TO USER VOLUME FILE 'b.csv'"), put(Some("b.csv")));
        assert_eq!(one("put '/tmp/a.csv' to user volume"), put(None));
        refused("PUT 'a' TO USER FILE 'b'", (1, 17), "expected VOLUME, found \"FILE\"");
        refused("PUT a TO USER VOLUME", (1, 5), "expected a string in single quotes, found \"a\"");
    }

    #[test]
    fn files_are_copied() {
        let copy = copied(
            "COPY INTO s.t (A, b) FROM USER VOLUME USING CSV OPTIONS('header'='true', 'sep'=',') FILES ('x.csv', 'y.csv')",
        );
        let columns: Vec<&str> = copy.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!((copy.table, columns), (Name::new(["s", "t"]), vec!["a", "b"]));
        let CopySource::Files(files) = copy.source else { panic!() };
        assert_eq!(files.location, FileLocation::UserVolume);
        assert_eq!(files.format.as_deref(), Some("csv"));
        assert_eq!(files.options.get("sep"), Some(","));
        assert_eq!(files.files, ["x.csv", "y.csv"]);
    }

    #[test]
    fn files_lie_in_volumes_and_directories() {
        let files = copied_files("COPY INTO t FROM VOLUME s.v USING json SUBDIRECTORY 'd' REGEXP '.*[.]json'");
        assert_eq!(files.location, FileLocation::Volume(Name::new(["s", "v"])));
        assert_eq!((files.subdirectory.as_deref(), files.pattern.as_deref()), (Some("d"), Some(".*[.]json")));
        let files = copied_files("COPY INTO t FROM '/data' USING parquet");
        assert_eq!(files.location, FileLocation::Directory("/data".into()));
        let message = "expected USER VOLUME, VOLUME, a directory or a query, found \"x\"";
        refused("COPY INTO t FROM x", (1, 18), message);
    }

    #[test]
    fn pipes_copy_continuously() {
        let Statement::CreatePipe(pipe) =
            one("CREATE PIPE IF NOT EXISTS s.p VIRTUAL_CLUSTER = 'DEFAULT' BATCH_INTERVAL_IN_SECONDS = '60' \
             AS COPY INTO t FROM (SELECT value FROM READ_KAFKA('b', map()))")
        else {
            panic!()
        };
        assert!(pipe.if_not_exists && !pipe.or_replace);
        assert_eq!(pipe.options.get("batch_interval_in_seconds"), Some("60"));
        let CopySource::Query(body) = pipe.copy.source else { panic!() };
        assert_eq!(body.query.to_string(), "SELECT value FROM READ_KAFKA('b', map())");
        let Statement::CreatePipe(pipe) = one("CREATE OR REPLACE PIPE p AS COPY INTO t FROM VOLUME v USING csv") else {
            panic!()
        };
        assert!(pipe.or_replace && pipe.options.is_empty());
        refused("CREATE PIPE p AS INSERT INTO t", (1, 18), "expected COPY, found \"INSERT\"");
    }
}
