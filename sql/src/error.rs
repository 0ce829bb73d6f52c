//! What is wrong with a query, where, and what would be right.

mod forms;
mod planner;
mod wording;

use datafusion::error::DataFusionError;

use crate::parser::{ParseError, place_of};

pub use planner::closest;

/// A text of the planner with types, constants and columns as we write them.
pub(crate) fn in_our_words(text: &str) -> String {
    wording::unqualified(&wording::in_our_types(text))
}

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
    /// The same error, where it has no place, at the first name in it that the tree has.
    pub(crate) fn located(self, tree: &impl sqlparser::ast::Visit) -> Self {
        if self.position.is_some() {
            return self;
        }
        // Names stand in double quotes.
        let place = self.message.split('"').skip(1).step_by(2).find_map(|name| place_of(tree, name));
        SqlError { position: place.map(|at| (at.line, at.column)), ..self }
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
    /// Our own errors pass through DataFusion unchanged; others are put in our words.
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
            other => planner::translated(&other),
        }
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
