//! Pipes: COPY INTO that goes on, from a topic or from a watched folder.
//!
//! A topic behind READ_KAFKA(..) becomes a source table of the pipe's own, `<pipe>$source`, with the columns topic, partition,
//! offset, timestamp, headers, key and value; its query is a continuous INSERT. A folder is read straight into the table, and what
//! is rejected goes to the table's own dead letters. A job with such a pipe runs until it is stopped, except while recordings are
//! replayed: then the folder gives what is there and ends.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use deltaworks_connectors::decode::TableFormat;
use deltaworks_sql::parser::{
    Body, CopySource, CreatePipe, Insert, KafkaRead, Name, Spanned, Statement, parse_script, rewrite,
};
use sqlparser::ast;

use crate::catalog::InsertKind;
use crate::copy::{Filled, file_format};
use crate::error::EngineError;
use crate::query::short;
use crate::script::Engine;

type Result<T> = std::result::Result<T, EngineError>;

/// A pipe of the catalog.
#[derive(Clone, Debug)]
pub(crate) struct Pipe {
    /// The table that it loads.
    pub(crate) target: String,
    /// The folder that it watches.
    pub(crate) folder: Option<Folder>,
    /// The source tables that were made for it.
    pub(crate) sources: Vec<String>,
}

/// A watched folder, and how its files are read.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// The names that are read; empty for all.
    pub(crate) names: Vec<String>,
    pub(crate) format: TableFormat,
    pub(crate) filled: Vec<Filled>,
}

impl Engine {
    /// CREATE PIPE.
    pub(crate) fn create_pipe(&mut self, create: &CreatePipe, statement: &Spanned<Statement>) -> Result<()> {
        let name = self.catalog.qualify(&create.name);
        if self.catalog.pipes.contains_key(&name) {
            if create.if_not_exists {
                return Ok(());
            }
            if !create.or_replace {
                return Err(EngineError::new(
                    format!("pipe \"{}\" exists already", short(&name)),
                    "drop it first, or write CREATE OR REPLACE PIPE",
                ));
            }
            self.remove_pipe(&name)?;
        }
        let (target, table) = self.writable(&create.copy.table)?;
        match &create.copy.source {
            CopySource::Query(body) => self.pipe_topics(&name, create, body, statement),
            CopySource::Files(files) => {
                let places = table.places(&create.copy.columns)?;
                let folder = Folder {
                    path: self.copy_folder(files)?,
                    names: files.files.clone(),
                    format: file_format(&table, &places, files)?,
                    filled: self.filled(&table, &places)?,
                };
                folder.format.decoder()?;
                if !folder.path.is_dir() {
                    return Err(EngineError::new(
                        format!("there is no folder \"{}\" to watch", folder.path.display()),
                        "make it first; a VOLUME is a folder inside the user volume, see --volume",
                    ));
                }
                self.say(&format!("pipe {} into {}", short(&name), short(&target)));
                self.catalog.pipes.insert(name, Pipe { target, folder: Some(folder), sources: Vec::new() });
                Ok(())
            }
        }
    }
    fn pipe_topics(&mut self, name: &str, create: &CreatePipe, body: &Body, statement: &Spanned<Statement>) -> Result<()> {
        let mut query = body.query.clone();
        let reads = rewrite(&mut *query)?.kafka_reads;
        if reads.is_empty() {
            return Err(EngineError::new(
                format!("pipe \"{}\" reads no topic", short(name)),
                "copy from (SELECT .. FROM READ_KAFKA('broker:9092', 'topic', ..)), or use INSERT INTO .. SELECT",
            ));
        }
        let mut sources = Vec::new();
        for (index, read) in reads.iter().enumerate() {
            let source = if index == 0 { format!("{name}$source") } else { format!("{name}$source{}", index + 1) };
            self.create_topic_table(&source, read, statement)?;
            rename(&mut query, &read.table, &source);
            sources.push(source);
        }
        let insert = Insert {
            table: create.copy.table.clone(),
            columns: create.copy.columns.clone(),
            overwrite: false,
            body: Body { query, hints: body.hints.clone() },
        };
        let target = self.catalog.qualify(&create.copy.table);
        self.catalog.pipes.insert(name.to_string(), Pipe { target, folder: None, sources });
        let inserted = self.insert_into(&insert, InsertKind::Pipe(name.to_string()));
        if inserted.is_err() {
            self.remove_pipe(name)?;
        }
        inserted
    }
    /// The table of a topic that a pipe reads.
    fn create_topic_table(&mut self, name: &str, read: &KafkaRead, statement: &Spanned<Statement>) -> Result<()> {
        let at = |error: EngineError| error.in_column(read.position.line, read.position.column);
        let option = |name: &str| read.options.get(name).unwrap_or_default();
        if option("topic").is_empty() {
            return Err(at(EngineError::new("READ_KAFKA names no topic", "its second argument is the topic")));
        }
        for format in ["key_format", "value_format"] {
            if !matches!(option(format), "" | "raw") {
                return Err(at(EngineError::new(
                    format!("READ_KAFKA cannot read {format} '{}'", option(format)),
                    "use 'raw', and take the value apart in the query",
                )));
            }
        }
        let quoted = |text: &str| text.replace('\'', "''");
        let text = format!(
            "CREATE TABLE {} (topic STRING METADATA VIRTUAL, \"partition\" INT METADATA VIRTUAL, \
             \"offset\" BIGINT METADATA VIRTUAL, \"timestamp\" TIMESTAMP_LTZ(3) METADATA VIRTUAL, \
             headers STRING METADATA VIRTUAL, key BYTES METADATA VIRTUAL, value BYTES) \
             WITH ('connector' = 'kafka', 'topic' = '{}', 'format' = 'raw', \
             'properties.bootstrap.servers' = '{}', 'properties.group.id' = '{}')",
            Name::new(name.split('.')),
            quoted(option("topic")),
            quoted(option("bootstrap_servers")),
            quoted(option("group_id")),
        );
        let made = parse_script(&text)?;
        match made.first().map(|made| &made.node) {
            Some(Statement::CreateTable(create)) => self.create_table(create, statement).map_err(at),
            _ => Err(at(EngineError::new("the topic could not be turned into a table", ""))),
        }
    }
    /// DROP PIPE: what was loaded stays.
    pub(crate) fn drop_pipe(&mut self, name: &Name, if_exists: bool) -> Result<()> {
        let qualified = self.catalog.qualify(name);
        if self.catalog.pipes.contains_key(&qualified) {
            return self.remove_pipe(&qualified);
        }
        if if_exists {
            return Ok(());
        }
        Err(EngineError::new(format!("pipe \"{}\" does not exist", name.object()), "write DROP PIPE IF EXISTS"))
    }
    /// The pipes that load a table or read it.
    pub(crate) fn pipes_of(&self, name: &str) -> BTreeSet<String> {
        let loading = self.catalog.pipes.iter().filter(|(_, pipe)| pipe.target == name).map(|(pipe, _)| pipe);
        let reading =
            self.catalog.inserts.iter().filter(|insert| insert.reads(name)).filter_map(|insert| match &insert.kind {
                InsertKind::Pipe(pipe) => Some(pipe),
                _ => None,
            });
        loading.chain(reading).filter(|pipe| self.catalog.pipes.contains_key(*pipe)).cloned().collect()
    }
    pub(crate) fn remove_pipe(&mut self, name: &str) -> Result<()> {
        let Some(pipe) = self.catalog.pipes.remove(name) else { return Ok(()) };
        self.sources.forget_pipe(name);
        // What was sent before is written before the pipe stops.
        self.settle()?;
        let kind = InsertKind::Pipe(name.to_string());
        for insert in self.catalog.inserts.extract_if(.., |insert| insert.kind == kind) {
            insert.stopped.store(true, Ordering::SeqCst);
        }
        pipe.sources
            .iter()
            .filter(|source| self.catalog.get(source).is_some())
            .cloned()
            .collect::<Vec<_>>()
            .iter()
            .try_for_each(|source| self.remove(source, true))
    }
}

/// Puts another table in the place of one.
fn rename(query: &mut ast::Query, from: &str, to: &str) {
    let _: ControlFlow<()> = ast::visit_relations_mut(query, |relation| {
        if Name::from(&*relation).parts() == [from] {
            let ident = |part: &str| ast::Ident::with_quote('"', part);
            *relation = ast::ObjectName::from(to.split('.').map(ident).collect::<Vec<_>>());
        }
        ControlFlow::Continue(())
    });
}
