//! Sinks that are open: changes wait for their tick to be complete on all workers and are then written by the coordinator.
//!
//! The workers only hand on what they gathered, so that formatting and writing go on while they are at later ticks. All of a
//! tick's changes are written together, those of several inserts too: one consolidated change per key.
//!
//! Where readers see whole epochs only, an epoch is what was written since the last one; it is committed when it is due. Epochs
//! are numbered on from the last one that the sink notes.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use deltaworks_connectors::sink::ChangeSink;
use deltaworks_dataflow::changelog::{Changelog, Changes};
use deltaworks_dataflow::{Diff, Row, Time};

use crate::error::EngineError;
use crate::shared_keys::{Brought, LeftOut};

/// One tick's changes, or a part of them, in no order.
pub(crate) enum Gathered {
    /// Of the rows.
    Rows(Time, Vec<(Row, Diff)>),
    /// Of how many rows are left out, by key.
    LeftOut(Time, Vec<(Row, Diff)>),
}

/// What has been gathered of a tick.
#[derive(Default)]
struct Waiting {
    rows: Vec<(Row, Diff)>,
    left_out: Vec<(Row, Diff)>,
}

/// A sink that is open, and what it has reported.
pub(crate) struct OpenSink {
    pub(crate) table: String,
    writer: Box<dyn ChangeSink>,
    changelog: Changelog,
    /// Where several INSERTs may bring rows of one key: what they bring.
    brought: Option<Brought>,
    pub(crate) left_out: LeftOut,
    pub(crate) entries: u64,
    sender: Sender<Gathered>,
    gathered: Receiver<Gathered>,
    waiting: BTreeMap<Time, Waiting>,
    /// Whether something was written to the epoch.
    in_epoch: bool,
}

impl OpenSink {
    /// A sink with the key columns `key`. With `several` of INSERTs may come rows of one key.
    pub(crate) fn new(table: &str, key: &[usize], several: bool, writer: Box<dyn ChangeSink>) -> OpenSink {
        let (sender, gathered) = channel();
        OpenSink {
            table: table.to_string(),
            writer,
            changelog: Changelog::new(key.to_vec()),
            brought: several.then(|| Brought::new(key)),
            left_out: LeftOut::default(),
            entries: 0,
            sender,
            gathered,
            waiting: BTreeMap::new(),
            in_epoch: false,
        }
    }
    /// Where the workers hand on what they gather.
    pub(crate) fn sender(&self) -> Sender<Gathered> {
        self.sender.clone()
    }
    /// Writes the changes of all ticks up to `complete`.
    pub(crate) fn write(&mut self, complete: Time) -> Result<(), EngineError> {
        for gathered in self.gathered.try_iter() {
            match gathered {
                Gathered::Rows(tick, mut updates) => self.waiting.entry(tick).or_default().rows.append(&mut updates),
                Gathered::LeftOut(tick, mut updates) => self.waiting.entry(tick).or_default().left_out.append(&mut updates),
            }
        }
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= complete) {
            let (tick, waiting) = first.remove_entry();
            let changes = self.changes(tick, waiting);
            self.entries += changes.entries.len() as u64;
            if !changes.entries.is_empty() {
                self.begin()?;
                self.writer.write(&changes)?;
            }
            if self.in_epoch && self.writer.is_due() {
                self.commit()?;
            }
        }
        Ok(())
    }
    fn changes(&mut self, tick: Time, waiting: Waiting) -> Changes {
        waiting.left_out.iter().for_each(|(key, rows)| self.left_out.add(key, *rows));
        let rows = match &mut self.brought {
            Some(brought) => brought.sent(waiting.rows, &mut self.left_out),
            None => waiting.rows,
        };
        let mut changes = self.changelog.changes(tick, rows);
        for (key, rows) in changes.conflicts.drain(..) {
            self.left_out.add_for_good(key, rows);
        }
        changes
    }
    fn begin(&mut self) -> Result<(), EngineError> {
        if !self.in_epoch && self.writer.has_epochs() {
            self.writer.begin(self.writer.committed().map_or(1, |committed| committed + 1))?;
            self.in_epoch = true;
        }
        Ok(())
    }
    fn commit(&mut self) -> Result<(), EngineError> {
        self.in_epoch = false;
        Ok(self.writer.commit()?)
    }
    /// Gives what was written to whoever reads it; of an epoch that is not due only with `all`.
    pub(crate) fn hand_on(&mut self, all: bool) -> Result<(), EngineError> {
        if self.in_epoch && (all || self.writer.is_due()) {
            self.commit()?;
        }
        Ok(self.writer.flush()?)
    }
    /// Returns once everything that was written is where its readers find it, or will after a crash.
    pub(crate) fn deliver(&mut self) -> Result<(), EngineError> {
        match self.writer.has_epochs() {
            true => self.hand_on(true),
            false => Ok(self.writer.commit()?),
        }
    }
    /// Flushes what was written; nothing comes after it.
    pub(crate) fn finish(&mut self) -> Result<(), EngineError> {
        Ok(self.writer.finish()?)
    }
}
