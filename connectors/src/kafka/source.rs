//! The source `kafka`: topics of a broker as one stream of records.
//!
//! *Order*: a partition's records come in the order of their offsets. While partitions are *behind* (they hold records that were there
//! when reading began), all of them are merged by timestamp, of their next records the one with the smallest (timestamp,
//! topic, partition) first, and a tick is full or the last of the backlog: a backlog gives the ticks that a replay of its
//! recording gives. After that, records are taken as they come.
//!
//! *State*: per partition at most twice [`IN_FLIGHT`] divided by their number, or one record, and as much again in the client.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::Connection;
use super::fetch::Fetcher;
use super::scan::{Scan, Topics};
use super::shared::{Bell, Shared, Standing};
use crate::error::{Error, Result};
use crate::record::{NO_TIMESTAMP, Records};
use crate::source::{PartitionProgress, ReadState, RecordSource};

/// Bytes that all partitions of a source may have in the client, come and not taken, and taken and not merged: each.
pub(super) const IN_FLIGHT: usize = 16 << 20;

/// Topics of a broker.
pub struct KafkaSource {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    topics: Vec<String>,
    lanes: Vec<Lane>,
    /// A tick that is not full yet.
    pending: Records,
    bounded: bool,
}

/// A partition as it is read.
#[derive(Default)]
struct Lane {
    topic: u32,
    partition: u32,
    /// What was taken from the inbox, and how much of it was read.
    block: Records,
    read: usize,
    standing: Standing,
    last_timestamp: i64,
    records: u64,
    next_offset: u64,
}
impl Lane {
    /// The timestamp of the next record; one that goes back counts as the largest before it.
    fn head(&self) -> Option<i64> {
        self.block.get(self.read).map(|record| record.timestamp.max(self.last_timestamp))
    }
    fn take(&mut self, into: &mut Records) {
        if let Some(record) = self.block.get(self.read) {
            self.last_timestamp = self.last_timestamp.max(record.timestamp);
            self.next_offset = record.offset.saturating_add(1);
            self.records += 1;
            self.read += 1;
            into.push(record);
        }
    }
}

/// Why merging stopped.
#[derive(PartialEq, Eq)]
enum Merged {
    /// The tick is full.
    Full,
    /// A partition has more and it is not here yet.
    Behind,
    /// Nothing is left.
    All,
}

impl KafkaSource {
    /// Begins to read the topics that any of `wanted` names. The bell rings when there is something to read.
    ///
    /// # Errors
    /// Brokers that do not answer or let us in, topics that are not there, offsets that cannot be.
    pub fn open(connection: &Connection, scan: &Scan, wanted: Vec<Topics>, bell: Bell) -> Result<KafkaSource> {
        let shared = Arc::new(Shared::new(bell));
        let fetcher = Fetcher::open(connection, scan, wanted, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("kafka".into()).spawn(move || fetcher.run());
        let thread = thread.map_err(|error| Error::Client { reason: error.to_string() })?;
        let mut source = KafkaSource {
            shared,
            thread: Some(thread),
            topics: Vec::new(),
            lanes: Vec::new(),
            pending: Records::new(),
            bounded: scan.is_bounded(),
        };
        source.receive()?;
        Ok(source)
    }
    /// What happened and is to be said.
    pub fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().news)
    }
    /// Makes what the broker has by now what is waited for.
    pub fn wait_for_present(&mut self) {
        self.shared.lock().retarget = true;
        self.shared.fetch.ring();
    }
    /// What became of a partition last, by its place in [`RecordSource::progress`]; empty where nothing did.
    pub fn notes(&self) -> Vec<String> {
        let state = self.shared.lock();
        let away = |note: &String| if state.away { "no broker answers".to_owned() } else { note.clone() };
        state.inboxes.iter().take(self.lanes.len()).map(|inbox| away(&inbox.note)).collect()
    }
    /// Takes over what came.
    fn receive(&mut self) -> Result<()> {
        let mut state = self.shared.lock();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        if state.topics.len() > self.topics.len() {
            self.topics.clone_from(&state.topics);
        }
        for inbox in &state.inboxes[self.lanes.len()..] {
            self.lanes.push(Lane {
                topic: inbox.topic,
                partition: u32::try_from(inbox.partition).unwrap_or_default(),
                last_timestamp: NO_TIMESTAMP,
                next_offset: u64::try_from(inbox.at.next).unwrap_or_default(),
                ..Lane::default()
            });
        }
        for (lane, inbox) in self.lanes.iter_mut().zip(&mut state.inboxes) {
            lane.standing = inbox.at;
            if lane.head().is_none() {
                lane.block.clear();
                lane.read = 0;
                std::mem::swap(&mut lane.block, &mut inbox.arrived);
            }
        }
        drop(state);
        self.shared.fetch.ring();
        Ok(())
    }
    /// Takes over what came of one partition, whose block is read.
    fn refill(&mut self, index: usize) {
        let mut state = self.shared.lock();
        let (lane, inbox) = (&mut self.lanes[index], &mut state.inboxes[index]);
        lane.standing = inbox.at;
        lane.block.clear();
        lane.read = 0;
        std::mem::swap(&mut lane.block, &mut inbox.arrived);
        drop(state);
        self.shared.fetch.ring();
    }
    /// Adds records to the pending ones until they are a tick or nothing can be added.
    fn merge(&mut self, max_records: usize, max_bytes: usize) -> Merged {
        let is_full = |pending: &Records| pending.len() >= max_records || pending.bytes() >= max_bytes;
        if self.lanes.iter().any(|lane| lane.head().is_none() && lane.standing.is_behind()) {
            return if is_full(&self.pending) { Merged::Full } else { Merged::Behind };
        }
        let head = |(index, lane): (usize, &Lane)| lane.head().map(|timestamp| Reverse((timestamp, index)));
        let mut heads: BinaryHeap<Reverse<(i64, usize)>> = self.lanes.iter().enumerate().filter_map(head).collect();
        while !is_full(&self.pending) {
            let Some(Reverse((_, index))) = heads.pop() else { return Merged::All };
            let others = heads.peek().map(|Reverse(head)| *head);
            // The same partition goes on while it stays the smallest.
            loop {
                self.lanes[index].take(&mut self.pending);
                if self.lanes[index].head().is_none() {
                    self.refill(index);
                }
                let Some(timestamp) = self.lanes[index].head() else {
                    if self.lanes[index].standing.is_behind() {
                        return if is_full(&self.pending) { Merged::Full } else { Merged::Behind };
                    }
                    break;
                };
                if is_full(&self.pending) || others.is_some_and(|other| other < (timestamp, index)) {
                    heads.push(Reverse((timestamp, index)));
                    break;
                }
            }
        }
        Merged::Full
    }
    fn has_ended(&self) -> bool {
        self.bounded && self.lanes.iter().all(|lane| lane.standing.ended && lane.head().is_none())
    }
    /// What was read is taken in: from here on the group's offsets may say so.
    pub fn acknowledge(&mut self) {
        let mut state = self.shared.lock();
        state.taken = state.delivered.clone();
    }
}

impl RecordSource for KafkaSource {
    fn topics(&self) -> &[String] {
        &self.topics
    }
    fn read(&mut self, max_records: usize, max_bytes: usize, into: &mut Records) -> Result<ReadState> {
        self.receive()?;
        if self.shared.lock().retarget {
            return Ok(ReadState::Behind);
        }
        let merged = self.merge(max_records, max_bytes);
        if merged == Merged::Behind {
            return Ok(ReadState::Behind);
        }
        if into.is_empty() {
            std::mem::swap(&mut self.pending, into);
        } else {
            self.pending.iter().for_each(|record| into.push(record));
        }
        self.pending.clear();
        let next = |lane: &Lane| i64::try_from(lane.next_offset).unwrap_or(i64::MAX);
        self.shared.lock().delivered = self.lanes.iter().map(next).collect();
        Ok(match merged {
            Merged::All if self.has_ended() => ReadState::End,
            Merged::All => ReadState::Idle,
            _ => ReadState::More,
        })
    }
    fn progress(&self) -> Vec<PartitionProgress> {
        let state = self.shared.lock();
        let progress = |(index, lane): (usize, &Lane)| {
            let at = state.inboxes.get(index).map_or(lane.standing, |inbox| inbox.at);
            let left = u64::try_from(at.high).unwrap_or_default().saturating_sub(lane.next_offset);
            let through = (at.at_end || at.ended) && lane.next_offset >= u64::try_from(at.next).unwrap_or_default();
            PartitionProgress {
                topic: lane.topic,
                partition: lane.partition,
                records: lane.records,
                next_offset: lane.next_offset,
                ended: lane.standing.ended && lane.head().is_none(),
                lag: Some(if through { 0 } else { left }),
            }
        };
        self.lanes.iter().enumerate().map(progress).collect()
    }
}

/// How long a client may take to leave its brokers.
const FAREWELL: Duration = Duration::from_secs(3);

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.fetch.ring();
        let Some(thread) = self.thread.take() else { return };
        // The client may wait for an answer to a commit for as long as its brokers are away: it is left behind then.
        let begin = Instant::now();
        while !thread.is_finished() && begin.elapsed() < FAREWELL {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            // A panic there was reported when it happened; there is nobody to tell it again.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
