//! Tables that read topics: which ones, of which brokers or recordings, and from where to where.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaworks_connectors::decode::TopicFilter;
use deltaworks_connectors::error::Error;
use deltaworks_connectors::kafka::{Connection, Scan, Topics};

use crate::catalog::{Entry, Table};
use crate::error::EngineError;
use crate::reader::Reader;
use crate::ticks::table_format;

type Result<T> = std::result::Result<T, EngineError>;

/// A table that reads topics.
pub(crate) struct TopicTable<'a> {
    pub(crate) name: &'a str,
    entry: &'a Entry,
    table: &'a Table,
    pub(crate) topics: Topics,
}
impl<'a> TopicTable<'a> {
    /// The table, with the topics that its options name.
    pub(crate) fn new(name: &'a str, entry: &'a Entry, table: &'a Table) -> Result<Self> {
        let options = table.connector.clone().unwrap_or_default();
        let topics = Topics::from_options(&options).map_err(|error| {
            let error = EngineError::new(format!("table \"{name}\": {error}"), error.help());
            error.in_column(entry.position.0, entry.position.1)
        })?;
        Ok(TopicTable { name, entry, table, topics })
    }
    /// The error of this table.
    pub(crate) fn at(&self, error: EngineError) -> EngineError {
        error.in_column(self.entry.position.0, self.entry.position.1)
    }
    /// What reads its topics among those of a source.
    pub(crate) fn reader(&self, topics: &[String], stop: &Arc<AtomicBool>) -> Result<Reader> {
        let filter = TopicFilter::new(topics, |topic| self.topics.matches(topic));
        let reader = table_format(self.table).and_then(|format| Reader::new(self.name, self.table, &format, filter));
        let mut reader = reader.map_err(|error| self.at(error))?;
        reader.decoder.open(stop).map_err(|error| self.at(error.into()))?;
        Ok(Reader { wanted: Some(self.topics.clone()), ..reader })
    }
    /// The brokers of its topics, and from where to where they are read.
    pub(crate) fn scan(&self) -> Result<(Connection, Scan)> {
        let options = self.table.connector.clone().unwrap_or_default();
        let connection = Connection::from_options(&options).map_err(|error| match &error {
            Error::MissingOption { .. } => EngineError::new(
                error.to_string(),
                format!("{}, or run with --replay DIR to read recorded topics", error.help()),
            ),
            _ => error.into(),
        })?;
        Ok((connection, Scan::from_options(&options)?))
    }
}
/// The recorded topics that are wanted: all that are named, whether they are there or not.
pub(crate) fn recorded_topics(dir: &Path, wanted: &Topics) -> std::result::Result<Vec<String>, Error> {
    let mut topics = wanted.names().to_vec();
    if let Topics::Pattern(pattern) = wanted {
        let io = |source| Error::Io { action: "read", path: dir.to_path_buf(), source };
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && wanted.matches(&name) {
                topics.push(name);
            }
        }
        if topics.is_empty() {
            return Err(Error::MissingTopic { topic: pattern.as_str().to_owned(), path: dir.to_path_buf() });
        }
    }
    Ok(topics)
}
