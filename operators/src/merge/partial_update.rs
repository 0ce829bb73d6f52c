//! `partial_update`: per column the last value that was not NULL.
//!
//! **Definition.** An upsert writes its columns that are not NULL over the row of its key and leaves the others.
//!
//! **State.** One row per key. **On retraction**: deletes its key; the next upsert begins with NULLs. **On ties, nulls, late rows**:
//! arrival decides; a column can never be set back to NULL but by deleting the row.

use super::{Folded, MergeEngine};
use deltaworks_dataflow::row::{is_null_field, split_field};
use deltaworks_dataflow::{Command, CommandKind, Row};

#[derive(Default)]
pub(super) struct PartialUpdate {
    scratch: Vec<u8>,
}

impl MergeEngine for PartialUpdate {
    fn fold(&mut self, current: Option<&[u8]>, command: &Command) -> Folded {
        match (command.kind, current) {
            (CommandKind::Upsert, None) => Folded::Accept,
            (CommandKind::Upsert, Some(old)) => self.update(old, &command.row),
            (_, Some(_)) => Folded::Remove,
            (_, None) => Folded::Keep,
        }
    }
}

impl PartialUpdate {
    fn update(&mut self, old: &[u8], new: &[u8]) -> Folded {
        let (mut old_rest, mut new_rest) = (old, new);
        self.scratch.clear();
        while !new_rest.is_empty() {
            let (old_field, new_field) = (split_field(&mut old_rest), split_field(&mut new_rest));
            self.scratch.extend_from_slice(if is_null_field(new_field) { old_field } else { new_field });
        }
        if self.scratch == old { Folded::Keep } else { Folded::Replace(Row::from_bytes(&self.scratch)) }
    }
}
