//! `last_row`: the last row that arrived.
//!
//! **Definition.** The row of a key is that of its last upsert, if no delete came after it.
//!
//! **State.** One row per key. **On retraction**: deletes its key. **On ties, nulls, late rows**: arrival decides, whatever a
//! row says of its own time.

use super::{Folded, MergeEngine};
use deltaworks_dataflow::{Command, CommandKind};

pub(super) struct LastRow;

impl MergeEngine for LastRow {
    fn fold(&mut self, current: Option<&[u8]>, command: &Command) -> Folded {
        match (command.kind, current) {
            (CommandKind::Upsert, Some(row)) if *row == command.row => Folded::Keep,
            (CommandKind::Upsert, _) => Folded::Accept,
            (_, Some(_)) => Folded::Remove,
            (_, None) => Folded::Keep,
        }
    }
}
