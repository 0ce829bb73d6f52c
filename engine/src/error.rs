//! What went wrong, where, and what would be right.

use deltaworks_dataflow::host::HostError;
use deltaworks_sql::error::SqlError;
use deltaworks_sql::parser::place_of;
use sqlparser::ast::{ObjectName, Query, Spanned};
use sqlparser::tokenizer::Location;
use std::fmt;

/// An error that ends a run. Prints as `<file>:<line>:<column>: <what>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineError {
    /// The script's file name, where one is at fault.
    pub file: Option<String>,
    /// Line and column in it, from 1.
    pub position: Option<(usize, usize)>,
    /// What went wrong: lower case, no full stop.
    pub message: String,
    /// What would be right; may be empty.
    pub help: String,
}

impl EngineError {
    /// An error without a place.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        EngineError { file: None, position: None, message: message.into(), help: help.into() }
    }
    /// Whether it only says that the run was told to stop.
    pub(crate) fn is_stop(&self) -> bool {
        self.message == deltaworks_connectors::error::Error::Stopped.to_string()
    }
    /// The same error at a place in the script.
    pub(crate) fn in_column(mut self, line: usize, column: usize) -> Self {
        self.position.get_or_insert((line, column));
        self
    }
    /// The same error at a name of the script.
    pub(crate) fn at_name(self, name: &ObjectName) -> Self {
        match name.span().start {
            Location { line: 0, .. } => self,
            Location { line, column } => self.in_column(line as usize, column as usize),
        }
    }
    /// The same error, where it has no place, at the first thing it names that stands in a query.
    pub(crate) fn in_query(self, query: &Query) -> Self {
        // Names stand in double quotes.
        let place = self.message.split('"').skip(1).step_by(2).find_map(|name| place_of(query, name));
        match place {
            Some(at) => self.in_column(at.line, at.column),
            None => self,
        }
    }
    /// The same error in a file, where it has a place.
    pub(crate) fn in_file(mut self, file: &str) -> Self {
        if self.position.is_some() {
            self.file.get_or_insert_with(|| file.to_string());
        }
        self
    }
    /// The same error in a statement that begins at `position`; a more exact place that is known stays.
    pub(crate) fn in_statement(mut self, file: &str, position: (usize, usize)) -> Self {
        self.file.get_or_insert_with(|| file.to_string());
        self.position.get_or_insert(position);
        self
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            if let Some((line, column)) = self.position {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}
impl std::error::Error for EngineError {}

impl From<SqlError> for EngineError {
    fn from(error: SqlError) -> Self {
        EngineError { file: None, position: error.position, message: error.message, help: error.help }
    }
}
impl From<deltaworks_sql::parser::ParseError> for EngineError {
    fn from(error: deltaworks_sql::parser::ParseError) -> Self {
        SqlError::from(error).into()
    }
}
impl From<deltaworks_connectors::error::Error> for EngineError {
    fn from(error: deltaworks_connectors::error::Error) -> Self {
        EngineError::new(error.to_string(), error.help())
    }
}
impl From<HostError> for EngineError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Limit { message, help } => EngineError::new(message, help),
            other => EngineError::new(other.to_string(), "this is a defect of deltaworks: please report it with the script"),
        }
    }
}
impl From<datafusion::error::DataFusionError> for EngineError {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        SqlError::from(error).into()
    }
}
impl From<datafusion::arrow::error::ArrowError> for EngineError {
    fn from(error: datafusion::arrow::error::ArrowError) -> Self {
        EngineError::new(error.to_string(), "")
    }
}
