//! `first_row`: the first row that arrived, or the earliest by a column.
//!
//! **Definition.** By arrival, the row of a key is that of its first upsert, for ever: the output only inserts, unless
//! deletes are allowed, after which the next upsert is the first again. With an order column it is the row with the smallest
//! value there, and a late earlier row revises it.
//!
//! **State.** By arrival the key alone if deletes are not allowed, else one row per key. With an order column one row per key,
//! the winner: what lost is not kept, so deleting the winner leaves the key without a row.
//!
//! **On retraction.** Deletes its key, as a delete does. **On ties, nulls, late rows.** Rows of one order value are compared as
//! a whole, in encoded order; NULL is later than every value.

use std::cmp::Ordering;

use super::{Folded, MergeEngine};
use deltaworks_dataflow::row::nth_field;
use deltaworks_dataflow::{Command, CommandKind};

pub(super) struct FirstRow;

impl MergeEngine for FirstRow {
    fn fold(&mut self, current: Option<&[u8]>, command: &Command) -> Folded {
        match (command.kind, current) {
            (CommandKind::Upsert, None) => Folded::Accept,
            (CommandKind::Upsert, Some(_)) => Folded::Ignored,
            (_, Some(_)) => Folded::Remove,
            (_, None) => Folded::Keep,
        }
    }
}

pub(super) struct FirstRowBy {
    order: usize,
}

impl FirstRowBy {
    pub(super) fn new(order: usize) -> Self {
        FirstRowBy { order }
    }
}
impl MergeEngine for FirstRowBy {
    fn fold(&mut self, current: Option<&[u8]>, command: &Command) -> Folded {
        match (command.kind, current) {
            (CommandKind::Upsert, None) => Folded::Accept,
            (CommandKind::Upsert, Some(row)) => {
                let (new, old) = (&command.row[..], row);
                match nth_field(new, self.order).cmp(nth_field(old, self.order)).then_with(|| new.cmp(old)) {
                    Ordering::Less => Folded::Accept,
                    Ordering::Equal | Ordering::Greater => Folded::Ignored,
                }
            }
            (_, Some(_)) => Folded::Remove,
            (_, None) => Folded::Keep,
        }
    }
}
