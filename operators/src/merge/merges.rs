//! Continuous MERGE: what a statement's source row makes of the row of its key, asked when the command's turn comes.
//!
//! **Definition.** A [`CommandKind::Merge`](deltaworks_dataflow::CommandKind) is folded in the order of positions like any other
//! command: the statement sees the key's row as the commands before it have left it, and its answer is folded as an upsert or a
//! delete. Several source rows of one tick and key are so applied one after another, in encoded-row order, as if each had come in
//! a tick of its own.
//!
//! **State.** The statements, by number; rows are the table's. **On retraction.** The source's retractions never get here.
//! **On ties.** From the second source row of a statement, tick and key on, each is counted.

use std::cell::RefCell;
use std::collections::BTreeMap;

use deltaworks_dataflow::row::split_fields;
use deltaworks_dataflow::{Command, CommandKind, Row};

/// What becomes of the row of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// No clause fits.
    Keep,
    /// This row is inserted or replaces the other.
    Upsert(Row),
    /// It goes.
    Delete,
    /// The source row is refused, for this reason.
    Rejected(&'static str),
}

/// The clauses of a MERGE.
pub trait Apply {
    /// What the source row makes of the row of its key.
    fn apply(&mut self, current: Option<&[u8]>, source: &[u8]) -> Applied;
}

/// The continuous MERGE statements into one table on one worker, by number. Later dataflows add theirs.
#[derive(Default)]
pub struct Merges {
    statements: RefCell<BTreeMap<u32, Box<dyn Apply>>>,
}

impl Merges {
    /// Adds a statement.
    pub fn add(&self, statement: u32, clauses: Box<dyn Apply>) {
        self.statements.borrow_mut().insert(statement, clauses);
    }
    /// What a merge makes of the row of its key, whose `key_columns` columns lead the command's row.
    pub(super) fn apply(&self, current: Option<&[u8]>, command: &Command, key_columns: usize) -> Applied {
        let source = &command.row[key_of(&command.row, key_columns).len()..];
        match self.statements.borrow_mut().get_mut(&command.position.source) {
            Some(clauses) => clauses.apply(current, source),
            None => Applied::Rejected("the MERGE that this row is for is not there"),
        }
    }
}

/// Turns a merge into the command that its answer asks for; false where it asks for none. The error is why it is refused.
pub(super) fn resolve(command: &mut Command, applied: Applied, key_columns: usize) -> Result<bool, &'static str> {
    match applied {
        Applied::Keep => return Ok(false),
        Applied::Upsert(row) => (command.kind, command.row) = (CommandKind::Upsert, row),
        Applied::Delete => {
            let key = Row::from_bytes(key_of(&command.row, key_columns));
            (command.kind, command.row) = (CommandKind::Delete, key);
        }
        Applied::Rejected(reason) => return Err(reason),
    }
    Ok(true)
}

/// The leading `columns` fields of a row.
pub(super) fn key_of(row: &[u8], columns: usize) -> &[u8] {
    split_fields(row, columns).0
}

#[cfg(test)]
mod tests {
    use super::super::table::Table;
    use super::super::{DeleteBehavior, Engine, MergeCounters, MergeSpec};
    use super::*;
    use crate::testing::ints;
    use deltaworks_dataflow::{Datum, Position};
    use std::rc::Rc;

    /// Adds the source's second number to the row's; deletes at zero, keeps at a negative one, refuses 99.
    struct Sums;
    impl Apply for Sums {
        fn apply(&mut self, current: Option<&[u8]>, source: &[u8]) -> Applied {
            let number =
                |row: &[u8]| match Datum::decode(&mut split_fields(row, 1).1, &deltaworks_dataflow::DataType::BigInt) {
                    Datum::Int(number) => number,
                    _ => 0,
                };
            match number(source) {
                99 => Applied::Rejected("no"),
                0 => Applied::Delete,
                added if added < 0 => Applied::Keep,
                added => {
                    let total = current.map_or(0, number) + added;
                    let key = split_fields(source, 1).0;
                    Applied::Upsert(Row::from_bytes(&[key, &ints(&[Some(total)])[..]].concat()))
                }
            }
        }
    }
    /// A merge of statement 7: the key, then the source row (key, number).
    fn merge(offset: u64, key: i64, number: i64) -> Command {
        let position = Position { source: 7, offset, ..Position::default() };
        Command { position, kind: CommandKind::Merge, row: ints(&[Some(key), Some(key), Some(number)]) }
    }

    #[test]
    fn merges_of_one_tick_are_applied_one_after_another() {
        let (counters, merges) = (Rc::new(MergeCounters::default()), Rc::new(Merges::default()));
        merges.add(7, Box::new(Sums));
        let spec = MergeSpec::new(vec![0], Engine::LastRow, DeleteBehavior::Allow);
        let mut table = Table::new(&spec, counters.clone()).with_merges(merges);
        let mut tick = |commands: Vec<Command>| {
            let mut changes = Vec::new();
            table.fold_tick(commands, |row, diff| changes.push((row, diff)));
            changes.sort();
            (changes, table.take_rejected().map(|(command, reason)| (command.row, reason)).collect::<Vec<_>>())
        };
        let row = |key: i64, number: i64| ints(&[Some(key), Some(number)]);
        // The order of positions counts, not that of arrival: 5, then deleted, then 4.
        let (changes, _) = tick(vec![merge(3, 1, 4), merge(1, 1, 5), merge(2, 1, 0), merge(4, 2, 8)]);
        assert_eq!(changes, [(row(1, 4), 1), (row(2, 8), 1)]);
        assert_eq!(counters.merged_again.get(), 2);
        let (changes, rejected) = tick(vec![merge(1, 1, -1), merge(2, 2, 99), merge(3, 2, 1)]);
        assert_eq!(changes, [(row(2, 8), -1), (row(2, 9), 1)]);
        assert_eq!(rejected, [(ints(&[Some(2), Some(2), Some(99)]), "no")]);
        // An ordinary command between two merges is seen by the second.
        let upsert = Command {
            position: Position { source: 7, offset: 2, ..Position::default() },
            kind: CommandKind::Upsert,
            row: row(2, 100),
        };
        let (changes, _) = tick(vec![merge(3, 2, 1), upsert, merge(1, 2, 0)]);
        assert_eq!(changes, [(row(2, 9), -1), (row(2, 101), 1)]);
    }
}
