//! Rows, times, changelogs, arrangements and the worker host: the ground that operators and connectors stand on.
//!
//! | file | what |
//! |---|---|
//! | `row.rs` | [`Row`]: one packed, order-preserving, self-delimiting row; [`Datum`]: one decoded field |
//! | `types.rs` | [`DataType`], [`Column`], [`Schema`]: what the fields of a row mean |
//! | `temporal.rs` | dates, timestamps and intervals as text |
//! | `batch.rs` | rows to and from Arrow record batches |
//! | `bitmap` | the bytes of a BITMAP, and set operations on them, chunk by chunk |
//! | `container.rs` | the byte container that arrangements store rows in |
//! | `arrange.rs` | [`Arranged`]: a keyed, shared index; the one place that names spine, batcher and builder |
//! | `cursor.rs` | [`TraceCursor`]: seeks keys and values in the batches of an arrangement |
//! | `command.rs` | [`Command`]: an upsert or delete by key with its position in the order of arrival |
//! | `changelog.rs` | [`RowKind`](changelog::RowKind): the only place that turns diffs into row kinds |
//! | `host.rs` | the worker host: threads, ticks, installed dataflows, shared traces, reads |
//!
//! There is one row type, one time and one diff; nothing above this crate is generic over them.

pub mod arrange;
pub mod batch;
pub mod bitmap;
pub mod changelog;
pub mod command;
pub mod container;
pub mod cursor;
pub mod host;
pub mod row;
pub mod temporal;
pub mod timing;
pub mod types;

pub use arrange::{Arranged, Collection, KeyedCollection, Trace};
pub use command::{Command, CommandKind, Position};
pub use cursor::TraceCursor;
pub use row::{Datum, Row};
pub use types::{Column, DataType, Schema};

/// Logical time: the number of a tick. Totally ordered.
pub type Time = u64;
/// Signed multiplicity of a row in an update: +1 inserts, -1 retracts.
pub type Diff = i64;
