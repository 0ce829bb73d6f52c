//! Files in the order of a timestamp column: several file sources read as one stream, like the partitions of topics.
//!
//! Each source is a lane. Records are decoded a block ahead, because only a decoded row shows its timestamp; of the lanes' next
//! commands the one with the smallest (timestamp, lane) is taken. A timestamp that goes back within a lane counts as the
//! largest before it: the order of the file holds. So does one that is missing (NULL, or a delete by key).
//!
//! *State*: one decoded block per lane.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use deltaworks_dataflow::row::nth_field;
use deltaworks_dataflow::{Command, CommandKind, DataType, Datum};

use crate::decode::{Decoded, TableFormat};
use crate::error::Result;
use crate::file::FileSource;
use crate::record::{NO_TIMESTAMP, Records};
use crate::source::{ReadState, RecordSource};

/// The option that names the column.
pub const TIMESTAMP_COLUMN: &str = "scan.timestamp-column";

/// Records that a lane decodes ahead.
const BLOCK_RECORDS: usize = 1024;
const BLOCK_BYTES: usize = 1 << 20;

/// Decodes the records of a lane.
pub type Decode<'a> = dyn FnMut(usize, &Records, &mut Decoded) + 'a;

/// Where a table's rows have their timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampColumn {
    column: usize,
    micros: bool,
}

impl TimestampColumn {
    /// The column that the table's options name; None where they name none.
    ///
    /// # Errors
    /// There is no such column, or it holds neither timestamps nor milliseconds since 1970 (BIGINT).
    pub fn of(table: &TableFormat) -> Result<Option<TimestampColumn>> {
        let Some(name) = table.options.get(TIMESTAMP_COLUMN) else { return Ok(None) };
        let wanted = "a column of type BIGINT (milliseconds since 1970), TIMESTAMP or TIMESTAMP_LTZ";
        let column = table.schema.index_of(name);
        let column = column.ok_or_else(|| table.options.invalid(TIMESTAMP_COLUMN, name, wanted))?;
        match table.schema.columns[column].data_type {
            DataType::BigInt => Ok(Some(TimestampColumn { column, micros: false })),
            DataType::Timestamp | DataType::TimestampLtz => Ok(Some(TimestampColumn { column, micros: true })),
            _ => Err(table.options.invalid(TIMESTAMP_COLUMN, name, wanted)),
        }
    }
    /// The command's timestamp in milliseconds.
    fn read(self, command: &Command) -> Option<i64> {
        if command.kind == CommandKind::Delete {
            return None;
        }
        match Datum::decode(&mut nth_field(&command.row, self.column), &DataType::BigInt) {
            Datum::Int(time) if self.micros => Some(time.div_euclid(1000)),
            Datum::Int(time) => Some(time),
            _ => None,
        }
    }
}

struct Lane {
    source: FileSource,
    column: TimestampColumn,
    /// The block that was decoded, without what was taken of it.
    commands: std::vec::IntoIter<Command>,
    last_timestamp: i64,
    ended: bool,
}

/// File sources merged by their timestamps.
pub struct OrderedFiles {
    lanes: Vec<Lane>,
    /// (timestamp, lane) of the lanes that have a next command.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    started: bool,
    records: Records,
    /// Records read so far.
    taken: u64,
}

impl OrderedFiles {
    /// Merges the sources, each of which has its timestamps in a column.
    pub fn new(sources: Vec<(FileSource, TimestampColumn)>) -> Self {
        let lane = |(source, column)| Lane {
            source,
            column,
            commands: Vec::new().into_iter(),
            last_timestamp: NO_TIMESTAMP,
            ended: false,
        };
        let lanes = sources.into_iter().map(lane).collect();
        OrderedFiles { lanes, heads: BinaryHeap::new(), started: false, records: Records::new(), taken: 0 }
    }
    /// The number of lanes.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }
    /// The source of a lane.
    pub fn source(&self, lane: usize) -> &FileSource {
        &self.lanes[lane].source
    }
    /// Stops reading a lane.
    pub fn close(&mut self, lane: usize) {
        self.lanes[lane].ended = true;
        self.lanes[lane].commands = Vec::new().into_iter();
        self.heads.retain(|Reverse((_, other))| *other != lane);
    }
    /// Records read so far, which may be a block ahead of the commands taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }
    /// Adds the next commands, at most `max_commands` of them, to their lanes' entries of `out`. Dead letters come with the
    /// block in which they were found.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&mut self, max_commands: usize, decode: &mut Decode<'_>, out: &mut [Decoded]) -> Result<ReadState> {
        if !self.started {
            self.started = true;
            for lane in 0..self.lanes.len() {
                self.advance(lane, decode, out)?;
            }
        }
        let mut left = max_commands;
        while left > 0 {
            let Some(Reverse((_, lane))) = self.heads.pop() else { break };
            let others = self.heads.peek().map(|Reverse(head)| *head);
            // The same lane goes on while it stays the smallest: that saves the way through the heap.
            loop {
                out[lane].commands.extend(self.lanes[lane].commands.next());
                left -= 1;
                let Some(timestamp) = self.next_timestamp(lane, decode, out)? else { break };
                if left == 0 || others.is_some_and(|other| other < (timestamp, lane)) {
                    self.heads.push(Reverse((timestamp, lane)));
                    break;
                }
            }
        }
        Ok(if self.heads.is_empty() { ReadState::End } else { ReadState::More })
    }
    fn advance(&mut self, lane: usize, decode: &mut Decode<'_>, out: &mut [Decoded]) -> Result<()> {
        if let Some(timestamp) = self.next_timestamp(lane, decode, out)? {
            self.heads.push(Reverse((timestamp, lane)));
        }
        Ok(())
    }
    /// The timestamp of the lane's next command; None at its end.
    fn next_timestamp(&mut self, index: usize, decode: &mut Decode<'_>, out: &mut [Decoded]) -> Result<Option<i64>> {
        while self.lanes[index].commands.as_slice().is_empty() {
            if self.lanes[index].ended {
                return Ok(None);
            }
            self.next_block(index, decode, &mut out[index])?;
        }
        Ok(self.lanes[index].commands.as_slice().first().map(|command| command.position.timestamp))
    }
    fn next_block(&mut self, index: usize, decode: &mut Decode<'_>, out: &mut Decoded) -> Result<()> {
        let lane = &mut self.lanes[index];
        self.records.clear();
        lane.ended = lane.source.read(BLOCK_RECORDS, BLOCK_BYTES, &mut self.records)? == ReadState::End;
        self.taken += self.records.len() as u64;
        let mut block = Decoded { commands: Vec::with_capacity(self.records.len()), ..Decoded::default() };
        decode(index, &self.records, &mut block);
        for command in &mut block.commands {
            // Within a lane the order of the file counts: a timestamp never goes back.
            lane.last_timestamp = lane.column.read(command).unwrap_or(NO_TIMESTAMP).max(lane.last_timestamp);
            command.position.timestamp = lane.last_timestamp;
        }
        lane.commands = block.commands.into_iter();
        out.dead.append(&mut block.dead);
        out.ignored += block.ignored;
        Ok(())
    }
}

impl Decoded {
    /// The largest timestamp of the commands, which a replayed clock follows.
    pub fn latest(&self) -> Option<i64> {
        let timestamps = self.commands.iter().map(|command| command.position.timestamp);
        timestamps.filter(|timestamp| *timestamp != NO_TIMESTAMP).max()
    }
}

#[cfg(test)]
mod tests;
