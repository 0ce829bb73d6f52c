//! Merge engines: how the commands on a key fold into the table's row.
//!
//! **Definition.** At tick t the table holds, per key, what the [`MergeEngine`] made of all commands on that key, in the order
//! of (tick, [`Position`](deltaworks_dataflow::Position)), and per tick and key the output is one retraction of the old row and
//! one insertion of the new one, or nothing where they are equal.
//!
//! | engine | the row of a key | file |
//! |---|---|---|
//! | `last_row` | the last that arrived | `last_row.rs` |
//! | `first_row` | the first that arrived, or the earliest by a column | `first_row.rs` |
//! | `versioned` | the one with the largest version | `versioned.rs` |
//! | `partial_update` | per column the last value that was not NULL | `partial_update.rs` |
//! | `aggregation` | per column an aggregate of all that arrived | `aggregation.rs` |
//!
//! The commands of a continuous MERGE say what to make of the row of their key; they become an upsert, a delete or nothing when
//! their turn comes (`merges.rs`).
//!
//! **State.** One row per key in a [`KeyedStore`]; `first_row` by arrival without deletes keeps the key alone. Commands are
//! buffered until their tick is complete.
//!
//! **On retraction.** A [`CommandKind::Retract`] is a delete of its key, except where the engine subtracts it (`aggregation`).
//! Deletes are folded, ignored (and counted) or rejected as [`DeleteBehavior`] says.
//!
//! **On ties, nulls, late rows.** Commands at one position, e.g. a change of the row's key that one record announces, keep
//! the order in which their reader sent them. A key with commands from two partitions in a tick is counted: their order is
//! that of record timestamps, which nobody promised. Deleting a key that is not there does nothing.

mod aggregation;
mod first_row;
mod last_row;
mod merges;
mod partial_update;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_aging;
mod versioned;

pub use aggregation::{AggregatedColumn, ColumnAggregate};
pub use merges::{Applied, Apply, Merges};

use differential_dataflow::AsCollection;
use std::cell::Cell;
use std::rc::Rc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use self::table::Table;
use crate::keyed_store::{KeyColumns, KeyedStore};
use crate::pending::Pending;
use crate::retention::{Retention, aging_operator};
use deltaworks_dataflow::row::hash_bytes;
use deltaworks_dataflow::{Collection, Command, CommandKind, Row, Time};

/// A command that no table row reflects, and why.
pub type Rejected = (Command, &'static str);

/// What a command makes of the current row of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folded {
    /// The row stays as it is.
    Keep,
    /// The command's own row becomes the current one.
    Accept,
    /// This becomes the current row.
    Replace(Row),
    /// The key has no row any more.
    Remove,
    /// The row stays, and the command is counted as a duplicate or an old version.
    Ignored,
    /// The command cannot be folded, for this reason.
    Rejected(&'static str),
}

/// Folds commands on one key at a time.
pub trait MergeEngine {
    /// What the command makes of the state of its key: the row, or whatever the engine keeps in its place.
    fn fold(&mut self, current: Option<&[u8]>, command: &Command) -> Folded;
    /// The table's row in a state; None where the key has none to show.
    fn visible<'a>(&self, state: &'a [u8]) -> Option<&'a [u8]> {
        Some(state)
    }
    /// Whether a retraction is subtracted, instead of deleting its key.
    fn subtracts(&self) -> bool {
        false
    }
}

/// How commands on a key fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The last by arrival.
    LastRow,
    /// The first by arrival.
    FirstRow,
    /// The earliest by a column.
    FirstRowBy {
        /// The column.
        order: usize,
    },
    /// The largest version.
    Versioned {
        /// The column that holds the version.
        version: usize,
    },
    /// Per column the last value that was not NULL.
    PartialUpdate,
    /// Per column an aggregate; one entry per column of the table, `ColumnAggregate::Key` for those of the key.
    Aggregation(Vec<AggregatedColumn>),
}

impl Engine {
    fn build(&self) -> Box<dyn MergeEngine> {
        match self {
            Engine::LastRow => Box::new(last_row::LastRow),
            Engine::FirstRow => Box::new(first_row::FirstRow),
            Engine::FirstRowBy { order } => Box::new(first_row::FirstRowBy::new(*order)),
            Engine::Versioned { version } => Box::new(versioned::Versioned::new(*version)),
            Engine::PartialUpdate => Box::new(partial_update::PartialUpdate::default()),
            Engine::Aggregation(columns) => Box::new(aggregation::Aggregation::new(columns.clone())),
        }
    }
    /// What a delete does where the table does not say.
    pub fn default_delete(&self) -> DeleteBehavior {
        match self {
            Engine::FirstRow | Engine::FirstRowBy { .. } | Engine::Aggregation(_) => DeleteBehavior::Ignore,
            Engine::LastRow | Engine::Versioned { .. } | Engine::PartialUpdate => DeleteBehavior::Allow,
        }
    }
}

/// What a delete does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteBehavior {
    /// It deletes.
    Allow,
    /// Nothing; it is counted.
    Ignore,
    /// It is rejected.
    Disable,
}

/// How the commands of one table merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeSpec {
    /// The key columns, in the order in which the row of a delete holds them.
    pub key: Vec<usize>,
    /// How commands fold.
    pub engine: Engine,
    /// What deletes do.
    pub delete: DeleteBehavior,
    /// Whether to keep only the keys. Has no effect unless the first row by arrival is kept and never deleted.
    pub keys_only: bool,
    /// How long rows are kept; None: until they are deleted. For [`merge_aging`].
    pub retention: Option<Retention>,
}

impl MergeSpec {
    /// The smallest state for this engine.
    pub fn new(key: Vec<usize>, engine: Engine, delete: DeleteBehavior) -> Self {
        MergeSpec { key, engine, delete, keys_only: true, retention: None }
    }
    fn store(&self) -> KeyedStore {
        let columns = KeyColumns::new(self.key.clone());
        // A row that is to leave must be known whole.
        let keys_only = self.keys_only && self.retention.is_none();
        if keys_only && self.engine == Engine::FirstRow && self.delete != DeleteBehavior::Allow {
            KeyedStore::keys_only(columns)
        } else {
            KeyedStore::new(columns)
        }
    }
}

/// What a worker's merges did not apply.
#[derive(Debug, Default)]
pub struct MergeCounters {
    /// Deletes and retractions that the table ignores.
    pub ignored_deletes: Cell<u64>,
    /// Duplicates of a first row and versions older than the current one.
    pub ignored_rows: Cell<u64>,
    /// Keys with commands from two partitions in one tick, once per tick.
    pub mixed_partitions: Cell<u64>,
    /// Source rows of a MERGE whose key another source row of the same statement and tick was merged into before.
    pub merged_again: Cell<u64>,
    /// Commands that were rejected.
    pub rejected: Cell<u64>,
    /// Rows that were too old for the table's retention when they arrived.
    pub expired: Cell<u64>,
}
impl MergeCounters {
    pub(crate) fn count_expired(&self) {
        add(&self.expired, 1);
    }
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}

/// Folds commands into the rows of a keyed table: the rows, and the commands that could not be folded.
pub fn merge<'s>(
    commands: StreamVec<'s, Time, Command>,
    spec: MergeSpec,
    counters: Rc<MergeCounters>,
    name: &str,
) -> (Collection<'s>, StreamVec<'s, Time, Rejected>) {
    merge_with(commands, spec, counters, Rc::default(), name)
}

/// The same, where what a continuous MERGE makes of a row is asked of `merges`.
pub fn merge_with<'s>(
    commands: StreamVec<'s, Time, Command>,
    spec: MergeSpec,
    counters: Rc<MergeCounters>,
    merges: Rc<Merges>,
    name: &str,
) -> (Collection<'s>, StreamVec<'s, Time, Rejected>) {
    let mut builder = OperatorBuilder::new(name.to_owned(), commands.scope());
    let (columns, mut scratch) = (KeyColumns::new(spec.key.clone()), Vec::new());
    let by_key = Exchange::new(move |command: &Command| key_hash(&columns, command, &mut scratch));
    let mut input = builder.new_input(commands, by_key);
    let (rows, row_stream) = builder.new_output();
    let (rejected, rejected_stream) = builder.new_output();
    let (mut rows, mut rejected) = (OutputBuilder::from(rows), OutputBuilder::from(rejected));
    let mut table = Table::new(&spec, counters).with_merges(merges);
    builder.build(move |_| {
        let mut waiting: Pending<Command, 2> = Pending::new();
        move |frontiers| {
            input.for_each(|capability, commands| waiting.stash_all(&capability, commands));
            let (mut rows, mut rejected) = (rows.activate(), rejected.activate());
            while let Some(([row_capability, rejected_capability], commands)) = waiting.next_complete(&frontiers[0]) {
                let time = *row_capability.time();
                let mut session = rows.session(&row_capability);
                table.fold_tick(commands, |row, diff| session.give((row, time, diff)));
                rejected.session(&rejected_capability).give_iterator(table.take_rejected());
            }
        }
    });
    (row_stream.as_collection(), rejected_stream)
}

/// [`merge_with`] for a table whose rows leave when the version that is there reaches the age of `spec.retention`. Every worker must
/// receive the whole clock.
///
/// A key whose row has left has no state: for every engine the next command is the first. A command meets the state as it
/// stood when it arrived, by the clock of that instant, see [`retention`](crate::retention). State: the time behind each row
/// in the store, and each key once at the instant at which its row leaves.
pub fn merge_aging<'s>(
    commands: StreamVec<'s, Time, Command>,
    clock: StreamVec<'s, Time, i64>,
    spec: MergeSpec,
    counters: Rc<MergeCounters>,
    merges: Rc<Merges>,
    name: &str,
) -> (Collection<'s>, StreamVec<'s, Time, Rejected>) {
    let (columns, mut scratch) = (KeyColumns::new(spec.key.clone()), Vec::new());
    let by_key = Exchange::new(move |command: &Command| key_hash(&columns, command, &mut scratch));
    let mut table = Table::new(&spec, counters).with_merges(merges);
    aging_operator(commands, clock, by_key, name, move |clock, commands, rows, rejected| {
        table.begin_tick(clock);
        table.fold_tick(commands, &mut *rows);
        table.expire(rows);
        table.take_rejected().for_each(rejected);
    })
}

/// Turns commands into the rows of a table without a key: an upsert inserts, a retraction takes one such row away, and a
/// delete, which names a key, is rejected. Nothing is kept, so nothing checks that a retracted row was there.
pub fn keyless<'s>(commands: StreamVec<'s, Time, Command>) -> (Collection<'s>, StreamVec<'s, Time, Rejected>) {
    let mut builder = OperatorBuilder::new("Keyless".to_owned(), commands.scope());
    let mut input = builder.new_input(commands, Pipeline);
    let (rows, row_stream) = builder.new_output();
    let (rejected, rejected_stream) = builder.new_output();
    let (mut rows, mut rejected) = (OutputBuilder::from(rows), OutputBuilder::from(rejected));
    builder.build(move |_| {
        move |_| {
            let (mut rows, mut rejected) = (rows.activate(), rejected.activate());
            input.for_each(|capability, commands| {
                let time = *capability.time();
                let mut rows = rows.session(&capability);
                let mut rejected = rejected.session(&capability);
                for command in commands.drain(..) {
                    match command.kind {
                        CommandKind::Upsert => rows.give((command.row, time, 1)),
                        CommandKind::Retract => rows.give((command.row, time, -1)),
                        CommandKind::Merge => rejected.give((command, "a table without a key takes no continuous MERGE")),
                        CommandKind::Delete => rejected.give((command, "a table without a key has no row to delete by key")),
                    }
                }
            });
        }
    });
    (row_stream.as_collection(), rejected_stream)
}

fn key_hash(columns: &KeyColumns, command: &Command, scratch: &mut Vec<u8>) -> u64 {
    match command.kind {
        CommandKind::Delete => hash_bytes(&command.row),
        CommandKind::Merge => hash_bytes(merges::key_of(&command.row, columns.columns().len())),
        CommandKind::Upsert | CommandKind::Retract => columns.hash_of(&command.row, scratch),
    }
}
