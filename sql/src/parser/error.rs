//! What is wrong with a script, where, and what would be right.

use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Token, TokenizerError};

/// The result of a parsing step.
pub(crate) type Result<T> = std::result::Result<T, ParseError>;

/// A place in a script: line and column count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl From<Location> for Position {
    /// An unknown location (line 0) becomes the start of the script.
    fn from(location: Location) -> Self {
        Position { line: (location.line as usize).max(1), column: (location.column as usize).max(1) }
    }
}

/// A script that is not ours, with the place and the remedy.
///
/// Prints as `line:column: message`, so that a file name and a colon before it make a clickable place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ParseError {
    /// Line of the offending token, from 1.
    pub line: usize,
    /// Column of the offending token in characters, from 1.
    pub column: usize,
    /// What is wrong: short, lower case, no full stop.
    pub message: String,
    /// What would be right.
    pub help: String,
}

impl ParseError {
    /// Returns an error at a position.
    pub fn new(at: Position, message: impl Into<String>, help: impl Into<String>) -> Self {
        ParseError { line: at.line, column: at.column, message: message.into(), help: help.into() }
    }

    /// Returns the place of the offending token.
    pub fn position(&self) -> Position {
        Position { line: self.line, column: self.column }
    }

    /// Adds a help line where there is none yet: the innermost rule knows best.
    pub(crate) fn or_help(mut self, help: &str) -> Self {
        if self.help.is_empty() {
            self.help = help.to_string();
        }
        self
    }

    /// Rewrites an error of sqlparser, which carries its place inside the text of its message. `here` stands in for errors
    /// without a place.
    pub(crate) fn from_sqlparser(error: ParserError, here: Position) -> Self {
        match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
                let (text, at) = split_place(&text);
                ParseError::new(at.unwrap_or(here), in_our_words(text), "")
            }
            ParserError::RecursionLimitExceeded => {
                ParseError::new(here, "statement is nested too deeply", "split it with common table expressions or views")
            }
        }
    }
}

impl From<TokenizerError> for ParseError {
    fn from(error: TokenizerError) -> Self {
        let help = if error.message.contains("comment") {
            "close the comment with */"
        } else {
            "close it with the same quote; a quote inside is written twice"
        };
        ParseError::new(error.location.into(), lower_first(&error.message), help)
    }
}

/// Names a token in a message. String literals are not shown: they may hold a password.
pub(crate) fn describe(token: &Token) -> String {
    match token {
        Token::EOF => "end of script".into(),
        Token::SingleQuotedString(_) => "a string".into(),
        other => format!("\"{other}\""),
    }
}

/// Splits ` at Line: 3, Column: 7` off the end of a message.
fn split_place(text: &str) -> (&str, Option<Position>) {
    let split = || {
        let (message, place) = text.rsplit_once(" at Line: ")?;
        let (line, column) = place.split_once(", Column: ")?;
        let at = Position { line: line.parse().ok()?, column: column.parse().ok()? };
        Some((message, at))
    };
    match split() {
        Some((message, at)) => (message, Some(at)),
        None => (text, None),
    }
}

/// Turns `Expected: x, found: y` into `expected x, found "y"`.
fn in_our_words(text: &str) -> String {
    let Some((expected, found)) = text.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: ")) else {
        return lower_first(text);
    };
    match found {
        "EOF" => format!("expected {expected}, found end of script"),
        _ if found.starts_with('\'') => format!("expected {expected}, found a string"),
        _ => format!("expected {expected}, found \"{found}\""),
    }
}

/// Lower-cases the first letter unless the first word is an abbreviation or a keyword in capitals.
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => first.to_lowercase().chain(letters).collect(),
        _ => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(text: &str) -> (String, usize, usize) {
        let here = Position { line: 9, column: 9 };
        let error = ParseError::from_sqlparser(ParserError::ParserError(text.into()), here);
        (error.message, error.line, error.column)
    }

    #[test]
    fn sqlparser_messages_are_put_in_our_words() {
        assert_eq!(
            converted("Expected: end of statement, found: x at Line: 3, Column: 7"),
            ("expected end of statement, found \"x\"".into(), 3, 7)
        );
        assert_eq!(
            converted("Expected: an expression, found: EOF"),
            ("expected an expression, found end of script".into(), 9, 9)
        );
        assert_eq!(converted("Unsupported thing").0, "unsupported thing");
        assert_eq!(converted("INTERVAL requires a unit").0, "INTERVAL requires a unit");
    }

    #[test]
    fn string_literals_are_not_shown() {
        let text = "Expected: =, found: 'hunter2' at Line: 1, Column: 2";
        assert_eq!(converted(text).0, "expected =, found a string");
        assert_eq!(describe(&Token::SingleQuotedString("hunter2".into())), "a string");
    }

    #[test]
    fn prints_as_a_place() {
        let error = ParseError::new(Position { line: 3, column: 7 }, "what", "help");
        assert_eq!(error.to_string(), "3:7: what");
    }
}
