//! What every source promises: batches of raw records, and how far it has come.

use crate::error::Result;
use crate::record::Records;

/// Reads raw records.
///
/// *Guarantee*: a source delivers each record of a partition once and in the order of its offsets. Where it resumes after a
/// restart is the caller's to say.
pub trait RecordSource: Send {
    /// The names behind the topic numbers of its records, in order. For files: their paths.
    fn topics(&self) -> &[String];
    /// Adds records to `into`: at most `max_records`, and none after `max_bytes` are reached.
    ///
    /// # Errors
    /// Where the source itself fails. A record that cannot be read is a record with its reason, not an error.
    fn read(&mut self, max_records: usize, max_bytes: usize, into: &mut Records) -> Result<ReadState>;
    /// How far each partition was read.
    fn progress(&self) -> Vec<PartitionProgress>;
}

/// What a read leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadState {
    /// There may be more at once.
    More,
    /// Nothing now; ask again later.
    Idle,
    /// Nothing now, but what was there when reading began is not all here: ask again soon.
    Behind,
    /// There will never be more.
    End,
}

/// How far a partition was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The topic's number.
    pub topic: u32,
    /// The partition.
    pub partition: u32,
    /// Records taken so far.
    pub records: u64,
    /// The offset after the last record taken; 0 before the first.
    pub next_offset: u64,
    /// Whether the partition has ended.
    pub ended: bool,
    /// The records that are there and were not taken; None where that is not known.
    pub lag: Option<u64>,
}
