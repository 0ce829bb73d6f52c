//! Functions and API connections.

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::error::Result;
use super::options::Options;
use super::parse::{Prefix, refuse_replace};
use super::statement::{CreateExternalFunction, CreateFunction, Name, Parameter, Statement};

/// Reads what follows `CREATE FUNCTION`.
pub(super) fn create_function(cursor: &mut Cursor, prefix: Prefix) -> Result<Statement> {
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.name()?;
    let parameters = cursor.list(parameter)?;
    cursor.expect("RETURNS")?;
    let returns = cursor.data_type()?;
    if !cursor.accept("RETURN") {
        cursor.expect("AS")?;
    }
    Ok(Statement::CreateFunction(CreateFunction {
        name,
        or_replace: prefix.or_replace,
        if_not_exists,
        parameters,
        returns,
        body: cursor.expression()?,
    }))
}

/// Reads what follows `CREATE EXTERNAL FUNCTION`.
pub(super) fn create_external_function(cursor: &mut Cursor, prefix: Prefix) -> Result<Statement> {
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.name()?;
    let parameters = cursor.list(parameter)?;
    cursor.expect("RETURNS")?;
    let returns = cursor.data_type()?;
    let (connection, options) = external_options(cursor)?;
    let Some(connection) = connection else {
        return Err(cursor.expected("CONNECTION = <name of an API connection>"));
    };
    Ok(Statement::CreateExternalFunction(CreateExternalFunction {
        name,
        or_replace: prefix.or_replace,
        if_not_exists,
        parameters,
        returns,
        connection,
        options,
    }))
}

/// Reads `LANGUAGE l`, `CONNECTION = c` and `k = v` in any order.
fn external_options(cursor: &mut Cursor) -> Result<(Option<Name>, Options)> {
    let mut options = Options::default();
    let mut connection = None;
    loop {
        if cursor.at("CONNECTION") {
            cursor.skip(1);
            cursor.expect_token(&Token::Eq)?;
            connection = Some(connection_name(cursor)?);
        } else if cursor.at("LANGUAGE") && !cursor.at_option() {
            cursor.skip(1);
            let language = cursor.option_value()?;
            options.insert("language", language);
        } else if cursor.at_option() {
            cursor.option(&mut options)?;
        } else {
            return Ok((connection, options));
        }
        cursor.accept_token(&Token::Comma);
    }
}

fn connection_name(cursor: &mut Cursor) -> Result<Name> {
    match cursor.token(0) {
        Token::SingleQuotedString(_) => Ok(Name::new([cursor.string()?])),
        _ => cursor.name(),
    }
}

/// Reads what follows `CREATE API CONNECTION`.
pub(super) fn create_connection(cursor: &mut Cursor, prefix: Prefix) -> Result<Statement> {
    refuse_replace(cursor, prefix, "an API connection")?;
    let if_not_exists = cursor.if_not_exists();
    Ok(Statement::CreateConnection { name: cursor.name()?, if_not_exists, options: cursor.bare_options()? })
}

fn parameter(cursor: &mut Cursor) -> Result<Parameter> {
    Ok(Parameter { name: cursor.identifier()?, data_type: cursor.data_type()? })
}

#[cfg(test)]
mod tests {
    use super::super::parse::tests::{one, refused};
    use super::*;

    #[test]
    fn functions_are_expressions() {
        let text = "CREATE OR REPLACE FUNCTION s.F(A STRING, b ARRAY<INT>) RETURNS DECIMAL(10,2) AS CASE WHEN a = 'x' THEN 1 ELSE b END";
        let Statement::CreateFunction(function) = one(text) else { panic!() };
        assert!(function.or_replace && !function.if_not_exists);
        assert_eq!(function.name, Name::new(["s", "f"]));
        let shown = function.parameters.iter().map(|p| format!("{} {}", p.name, p.data_type));
        assert_eq!(shown.collect::<Vec<_>>(), ["a STRING", "b ARRAY<INT>"]);
        assert_eq!(function.returns.to_string(), "DECIMAL(10,2)");
        assert_eq!(function.body.to_string(), "CASE WHEN a = 'x' THEN 1 ELSE b END");
        assert!(matches!(one("CREATE FUNCTION f() RETURNS INT RETURN 1"), Statement::CreateFunction(_)));
        refused("CREATE FUNCTION f(a INT) AS a", (1, 26), "expected RETURNS, found \"AS\"");
    }

    #[test]
    fn external_functions_have_a_connection() {
        let text = "CREATE EXTERNAL FUNCTION IF NOT EXISTS f(a STRING) RETURNS STRING LANGUAGE PYTHON CONNECTION = Conn RESOURCE_URIS = 'v'";
        let Statement::CreateExternalFunction(function) = one(text) else { panic!() };
        assert!(function.if_not_exists);
        assert_eq!(function.connection, Name::new(["conn"]));
        assert_eq!(function.options.to_string(), "'language' = 'PYTHON', 'RESOURCE_URIS' = 'v'");
        let message = "expected CONNECTION = <name of an API connection>, found end of script";
        refused("CREATE EXTERNAL FUNCTION f() RETURNS INT", (1, 41), message);
    }

    #[test]
    fn connections_have_options() {
        let text =
            "CREATE API CONNECTION IF NOT EXISTS c TYPE='http' URL='http://x' TIMEOUT='5 s', HEADERS='Authorization: y'";
        let Statement::CreateConnection { name, if_not_exists, options } = one(text) else { panic!() };
        assert!(if_not_exists);
        assert_eq!(
            (name, options.get("type"), options.get("headers")),
            (Name::new(["c"]), Some("http"), Some("Authorization: y"))
        );
        assert!(!format!("{options:?}").contains("Authorization"));
        refused("CREATE API CONNECTION c TYPE 'http'", (1, 25), "expected end of statement, found \"TYPE\"");
    }
}
