//! `versioned`: the row with the largest version.
//!
//! **Definition.** An upsert replaces the row of its key unless its version is smaller.
//!
//! **State.** One row per key. **On retraction**: deletes its key, unless the retracted row's version is smaller than the current one.
//! A delete names no version and always deletes; no trace of the deleted version is kept.
//!
//! **On ties, nulls, late rows.** An equal version wins, a smaller one is ignored and counted, NULL is smaller than every
//! version.

use std::cmp::Ordering;

use super::{Folded, MergeEngine};
use deltaworks_dataflow::row::{is_null_field, nth_field};
use deltaworks_dataflow::{Command, CommandKind};

pub(super) struct Versioned {
    version: usize,
}

impl Versioned {
    pub(super) fn new(version: usize) -> Self {
        Versioned { version }
    }
    fn is_older(&self, row: &[u8], than: &[u8]) -> bool {
        let (row, than) = (nth_field(row, self.version), nth_field(than, self.version));
        match (is_null_field(row), is_null_field(than)) {
            (true, null) => !null,
            (false, true) => false,
            (false, false) => row.cmp(than) == Ordering::Less,
        }
    }
}
impl MergeEngine for Versioned {
    fn fold(&mut self, current: Option<&[u8]>, command: &Command) -> Folded {
        match (command.kind, current) {
            (CommandKind::Upsert, None) => Folded::Accept,
            (CommandKind::Upsert, Some(row)) if self.is_older(&command.row, row) => Folded::Ignored,
            (CommandKind::Upsert, Some(row)) if *row == command.row => Folded::Keep,
            (CommandKind::Upsert, Some(_)) => Folded::Accept,
            (CommandKind::Retract, Some(row)) if self.is_older(&command.row, row) => Folded::Ignored,
            (_, Some(_)) => Folded::Remove,
            (_, None) => Folded::Keep,
        }
    }
}
