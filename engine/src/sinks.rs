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
use deltaworks_dataflow::changelog::Changelog;
use deltaworks_dataflow::{Diff, Row, Time};

use crate::error::EngineError;

/// One tick's changes, or a part of them, in no order.
pub(crate) type Gathered = (Time, Vec<(Row, Diff)>);

/// A sink that is open, and what it has reported.
pub(crate) struct OpenSink {
    pub(crate) table: String,
    writer: Box<dyn ChangeSink>,
    changelog: Changelog,
    /// Rows that shared the sink's key with another and were left out.
    pub(crate) conflicts: u64,
    pub(crate) entries: u64,
    sender: Sender<Gathered>,
    gathered: Receiver<Gathered>,
    waiting: BTreeMap<Time, Vec<(Row, Diff)>>,
    /// Whether something was written to the epoch.
    in_epoch: bool,
}

impl OpenSink {
    pub(crate) fn new(table: &str, key: &[usize], writer: Box<dyn ChangeSink>) -> OpenSink {
        let (sender, gathered) = channel();
        OpenSink {
            table: table.to_string(),
            writer,
            changelog: Changelog::new(key.to_vec()),
            conflicts: 0,
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
        for (tick, mut updates) in self.gathered.try_iter() {
            self.waiting.entry(tick).or_default().append(&mut updates);
        }
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= complete) {
            let (tick, updates) = first.remove_entry();
            let changes = self.changelog.changes(tick, updates);
            self.conflicts += changes.conflicts;
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
