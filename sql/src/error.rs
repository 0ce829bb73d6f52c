//! What is wrong with a query, where, and what would be right.

use datafusion::error::DataFusionError;

use crate::parser::ParseError;

/// A query that cannot be planned or answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// What is wrong: short, lower case, no full stop.
    pub message: String,
    /// What would be right; may be empty.
    pub help: String,
    /// Line and column in the script, from 1, where known.
    pub position: Option<(usize, usize)>,
}

impl SqlError {
    /// An error without a place.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        SqlError { message: message.into(), help: help.into(), position: None }
    }
    /// The same error with a place.
    pub fn at(mut self, line: usize, column: usize) -> Self {
        self.position = Some((line, column));
        self
    }
}

impl From<ParseError> for SqlError {
    fn from(error: ParseError) -> Self {
        SqlError { position: Some((error.line, error.column)), message: error.message, help: error.help }
    }
}

impl From<DataFusionError> for SqlError {
    /// Our own errors pass through DataFusion unchanged; others keep its words.
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<SqlError>() {
                Ok(own) => *own,
                Err(other) => SqlError::new(other.to_string(), ""),
            },
            DataFusionError::Context(_, inner) => SqlError::from(*inner),
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let place = diagnostic.span.map(|span| (span.start.line as usize, span.start.column as usize));
                let error = SqlError::from(*inner);
                SqlError { position: error.position.or(place), ..error }
            }
            other => in_our_words(&other.strip_backtrace()),
        }
    }
}

/// What DataFusion puts before its messages.
const PREFIXES: [&str; 6] = [
    "Error during planning: ",
    "Schema error: ",
    "This feature is not implemented: ",
    "Execution error: ",
    "SQL error: ",
    "Invalid input plan passed to Analyzer\ncaused by\n",
];

/// DataFusion's message without its prefix; what follows the first sentence is the help.
fn in_our_words(text: &str) -> SqlError {
    let mut text = text;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (message, help) = text.split_once(". ").unwrap_or((&text, "look at the statement's names and types"));
    SqlError::new(lower_first(message.trim_end_matches('.')), lower_first(help.trim_end_matches('.')))
}
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(letters).collect(),
        _ => text.to_string(),
    }
}

impl From<SqlError> for DataFusionError {
    fn from(error: SqlError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_planner_lose_their_prefix() {
        let error = SqlError::from(DataFusionError::Plan("No such thing. Did you mean x?".into()));
        assert_eq!((error.message.as_str(), error.help.as_str()), ("no such thing", "did you mean x?"));
        let own = SqlError::new("what", "help").at(3, 7);
        assert_eq!(SqlError::from(DataFusionError::from(own.clone()).context("analysis")), own);
    }
}
