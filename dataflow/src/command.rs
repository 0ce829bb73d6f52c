//! Commands: what reaches a keyed table before its merge engine folds it.

use serde::{Deserialize, Serialize};

use crate::row::Row;

/// Where a command stands in the order of arrival within its tick: (record timestamp, topic, partition, offset), or for
/// statements (0, statement, 0, row). The position travels with the command to the key's worker, which sorts the tick's
/// commands of a key by it before folding them; then it is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Record timestamp in milliseconds since 1970.
    pub timestamp: i64,
    /// The topic's number in the order of topic names, or the statement's.
    pub source: u32,
    /// The partition.
    pub partition: u32,
    /// The offset in the partition, or the row's number in the statement.
    pub offset: u64,
}

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CommandKind {
    /// Insert or replace: `row` is a full row of the table.
    Upsert,
    /// Delete by key: `row` holds the key columns only, in key order.
    Delete,
    /// Take this full row back (-U or -D with the old image). Engines that keep one row per key treat it as a delete of
    /// its key; `aggregation` subtracts it; a table without a key removes one such row.
    Retract,
    /// Whatever the continuous MERGE of the number `position.source` makes of the key's row: `row` holds the key columns in
    /// key order, then the statement's source row.
    Merge,
}

/// An upsert, delete, retraction or merge with its place in the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Command {
    /// The place in the order of arrival; first, so that commands sort by it.
    pub position: Position,
    /// What is asked for.
    pub kind: CommandKind,
    /// The row: full, only the key for [`CommandKind::Delete`], or key and source row for [`CommandKind::Merge`].
    pub row: Row,
}
