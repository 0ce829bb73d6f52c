//! Recorded topics: `DIR/<topic>/<partition>.jsonl[.zst]`, one record per line, replayed in one order.
//!
//! *Order*: of the partitions' next records, the one with the smallest (timestamp, topic, partition). A timestamp that goes
//! back within a partition keeps the order of offsets, so what is read depends on the recording alone.
//!
//! *Bad lines*: a line that is no record takes the timestamp of the record before it and is delivered as broken, with its
//! text as value, and ends up among the dead letters.
//!
//! A recording may hold `ticks.jsonl`, the [`TickLog`]: what each tick took, so that a replay cuts ticks as they were.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::json::unquote;
use crate::format::parse::{self, quoted};
use crate::lines::Lines;
use crate::record::{NO_TIMESTAMP, Record, Records};
use crate::source::{PartitionProgress, ReadState, RecordSource};

/// Recorded topics, merged.
pub struct Replay {
    topics: Vec<String>,
    /// Sorted by (topic, partition), so that an index orders partitions.
    partitions: Vec<Partition>,
    /// (timestamp, partition's index) of the partitions that have a next record.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
}

struct Partition {
    topic: u32,
    partition: u32,
    lines: Lines,
    /// The next record, alone; empty at the end.
    head: Records,
    /// Timestamp and offset for a line that has none.
    last_timestamp: i64,
    next_offset: u64,
    taken: u64,
    taken_offset: u64,
}

impl Replay {
    /// Opens the recordings of the given topics. Topic numbers are places in the order of their names.
    ///
    /// # Errors
    /// A topic without a folder or partition, a partition that is there twice, a file that is none.
    pub fn open(dir: &Path, topics: &[String]) -> Result<Replay> {
        let mut names = topics.to_vec();
        names.sort();
        names.dedup();
        let mut replay = Replay { topics: names.clone(), partitions: Vec::new(), heads: BinaryHeap::new() };
        for (number, topic) in names.iter().enumerate() {
            for (partition, path) in partition_files(dir, topic)? {
                replay.partitions.push(Partition::open(number as u32, partition, &path)?);
            }
        }
        for index in 0..replay.partitions.len() {
            replay.advance(index)?;
        }
        Ok(replay)
    }
    /// The timestamp of the next record; None at the end, and [`NO_TIMESTAMP`] where it has none.
    pub fn next_timestamp(&self) -> Option<i64> {
        self.heads.peek().map(|Reverse((timestamp, _))| *timestamp)
    }
    /// As [`RecordSource::read`], but stops before the first record whose timestamp is not before `end`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read_before(&mut self, end: i64, max_records: usize, max_bytes: usize, into: &mut Records) -> Result<ReadState> {
        let mut left = max_records;
        while left > 0 && into.bytes() < max_bytes && self.next_timestamp().is_some_and(|next| next < end) {
            let Some(Reverse((_, index))) = self.heads.pop() else { break };
            // The same partition goes on while it stays the smallest: that saves the way through the heap.
            let others = self.heads.peek().map(|Reverse(head)| *head);
            loop {
                self.partitions[index].take_head(into);
                left -= 1;
                let Some(timestamp) = self.partitions[index].read_head()? else { break };
                let is_smallest = others.is_none_or(|other| (timestamp, index) < other);
                if !is_smallest || timestamp >= end || left == 0 || into.bytes() >= max_bytes {
                    self.heads.push(Reverse((timestamp, index)));
                    break;
                }
            }
        }
        Ok(self.state())
    }
    /// Adds the records of one tick of the tick log to `into`, in the order of a replay.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read_tick(&mut self, tick: &RecordedTick, into: &mut Records) -> Result<ReadState> {
        let limit = |partition: &Partition| tick.upto(&self.topics[partition.topic as usize], partition.partition);
        let limits: Vec<u64> = self.partitions.iter().map(limit).collect();
        let mut kept = Vec::new();
        while let Some(Reverse((timestamp, index))) = self.heads.pop() {
            let offset = self.partitions[index].head.get(0).map_or(0, |record| record.offset);
            if offset < limits[index] {
                self.take(index, into)?;
            } else {
                kept.push(Reverse((timestamp, index)));
            }
        }
        self.heads.extend(kept);
        Ok(self.state())
    }
    /// Reads the next record of a partition and puts it among the heads.
    fn advance(&mut self, index: usize) -> Result<()> {
        if let Some(timestamp) = self.partitions[index].read_head()? {
            self.heads.push(Reverse((timestamp, index)));
        }
        Ok(())
    }
    /// Moves a partition's next record, which was taken from the heads, to `into`.
    fn take(&mut self, index: usize, into: &mut Records) -> Result<()> {
        self.partitions[index].take_head(into);
        self.advance(index)
    }
    fn state(&self) -> ReadState {
        if self.heads.is_empty() { ReadState::End } else { ReadState::More }
    }
}

impl RecordSource for Replay {
    fn topics(&self) -> &[String] {
        &self.topics
    }
    fn read(&mut self, max_records: usize, max_bytes: usize, into: &mut Records) -> Result<ReadState> {
        self.read_before(i64::MAX, max_records, max_bytes, into)
    }
    fn progress(&self) -> Vec<PartitionProgress> {
        let progress = |partition: &Partition| PartitionProgress {
            topic: partition.topic,
            partition: partition.partition,
            records: partition.taken,
            next_offset: partition.taken_offset,
            ended: partition.head.is_empty(),
            lag: None,
        };
        self.partitions.iter().map(progress).collect()
    }
}

/// The partitions of a topic, by number.
fn partition_files(dir: &Path, topic: &str) -> Result<BTreeMap<u32, PathBuf>> {
    let folder = dir.join(topic);
    if !folder.is_dir() {
        return Err(Error::MissingTopic { topic: topic.to_owned(), path: folder });
    }
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
        let entry = entry.map_err(Error::io("read", &folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let stem = name.strip_suffix(".jsonl.zst").or_else(|| name.strip_suffix(".jsonl"));
        let number = stem.filter(|stem| stem.bytes().all(|byte| byte.is_ascii_digit())).and_then(|stem| stem.parse().ok());
        let Some(partition) = number else { return Err(Error::NotAPartition { path: entry.path() }) };
        if files.insert(partition, entry.path()).is_some() {
            return Err(Error::PartitionTwice { topic: topic.to_owned(), partition, path: folder });
        }
    }
    if files.is_empty() {
        return Err(Error::NoPartition { topic: topic.to_owned(), path: folder });
    }
    Ok(files)
}

impl Partition {
    fn open(topic: u32, partition: u32, path: &Path) -> Result<Self> {
        let lines = Lines::open(path)?;
        let (last_timestamp, next_offset) = (NO_TIMESTAMP, 0);
        Ok(Partition {
            topic,
            partition,
            lines,
            head: Records::new(),
            last_timestamp,
            next_offset,
            taken: 0,
            taken_offset: 0,
        })
    }
    #[inline]
    fn take_head(&mut self, into: &mut Records) {
        if let Some(record) = self.head.get(0) {
            into.push(record);
            self.taken += 1;
            self.taken_offset = record.offset.saturating_add(1);
        }
    }
    /// Reads the next line that is not empty; returns the record's timestamp.
    fn read_head(&mut self) -> Result<Option<i64>> {
        self.head.clear();
        loop {
            let Some(line) = self.lines.next()? else { return Ok(None) };
            if !line.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        let count = self.lines.count();
        let line = self.lines.line();
        let (topic, partition) = (self.topic, self.partition);
        if let Err(reason) = push_line(line, topic, partition, &mut self.head) {
            self.head.clear();
            let reason = format!("line {count} is not a record: {reason}");
            let (offset, timestamp) = (self.next_offset, self.last_timestamp);
            let broken = Some(reason.as_str());
            self.head.push(Record { topic, partition, offset, timestamp, value: Some(line), broken, ..Record::default() });
        }
        let record = self.head.get(0).expect("it was just pushed");
        self.last_timestamp = record.timestamp;
        self.next_offset = record.offset.saturating_add(1);
        Ok(Some(record.timestamp))
    }
}

/// A record as it is written down.
#[derive(Deserialize)]
struct Envelope<'a> {
    offset: u64,
    timestamp: i64,
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    key_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
}
/// Keeps a value that is null apart from one that is not there.
fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

/// Adds the record of a line; the error is the reason why it is none.
fn push_line(line: &[u8], topic: u32, partition: u32, into: &mut Records) -> std::result::Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
    if !text.trim_start_matches([' ', '\t']).starts_with('{') {
        return Err("expected an object".into());
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let key = bytes("key", envelope.key, envelope.key_base64)?;
    let has_value = envelope.value.is_some() || envelope.value_base64.is_some();
    if !has_value {
        return Err("missing field `value`".into());
    }
    let value = bytes("value", envelope.value, envelope.value_base64)?;
    let headers = envelope.headers.map(RawValue::get);
    let Envelope { offset, timestamp, .. } = envelope;
    let (key, value) = (key.as_deref(), value.as_deref());
    into.push(Record { topic, partition, offset, timestamp, key, value, headers, broken: None });
    Ok(())
}
/// The bytes of a key or value: base64, the content of a string, or JSON as it stands; None for null.
fn bytes<'a>(
    name: &str,
    inline: Option<&'a RawValue>,
    base64: Option<Cow<'a, str>>,
) -> std::result::Result<Option<Cow<'a, [u8]>>, String> {
    if let Some(base64) = base64 {
        return match STANDARD.decode(base64.as_bytes()) {
            Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
            Err(error) => Err(format!("{name}_base64: {error}")),
        };
    }
    let Some(text) = inline.map(RawValue::get).filter(|text| *text != "null") else { return Ok(None) };
    if !text.starts_with('"') {
        return Ok(Some(Cow::Borrowed(text.as_bytes())));
    }
    match unquote(text) {
        Ok(Cow::Borrowed(content)) => Ok(Some(Cow::Borrowed(content.as_bytes()))),
        Ok(Cow::Owned(content)) => Ok(Some(Cow::Owned(content.into_bytes()))),
        Err(_) => Err(format!("{name}: invalid string {}", quoted(text))),
    }
}

/// What each tick of the recorded run took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TickLog {
    /// The ticks, in order.
    pub ticks: Vec<RecordedTick>,
}

/// One tick of a recorded run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedTick {
    /// The tick.
    pub tick: u64,
    /// The clock, in microseconds since 1970.
    pub clock_us: i64,
    /// Per `topic/partition` that got further: the offset before which all records were taken. Others took none.
    pub upto: BTreeMap<String, u64>,
    /// Whether a statement of the script made it, or looked at the clock before it: then it took no records.
    pub statement: bool,
}

impl RecordedTick {
    /// The offset before which the records of a partition belong to this tick or an earlier one.
    pub fn upto(&self, topic: &str, partition: u32) -> u64 {
        self.upto.get(&format!("{topic}/{partition}")).copied().unwrap_or(0)
    }
}

impl TickLog {
    /// Reads `ticks.jsonl` of a recording; None where there is none.
    ///
    /// # Errors
    /// A line that is not a tick.
    pub fn open(dir: &Path) -> Result<Option<TickLog>> {
        #[derive(Deserialize)]
        struct Tick {
            tick: u64,
            clock: String,
            upto: Option<BTreeMap<String, u64>>,
            #[serde(default)]
            statement: bool,
        }
        let path = dir.join("ticks.jsonl");
        if !path.exists() {
            return Ok(None);
        }
        let mut lines = Lines::open(&path)?;
        let mut log = TickLog::default();
        while let Some(line) = lines.next()? {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let parsed: std::result::Result<Tick, String> = serde_json::from_slice(line).map_err(|error| error.to_string());
            let tick = parsed.and_then(|Tick { tick, clock, upto, statement }| {
                let clock_us =
                    parse::timestamp(&clock, true).map_err(|_| format!("clock \"{clock}\" is not a timestamp"))?;
                match upto {
                    None if !statement => Err("\"upto\" is missing".to_owned()),
                    upto => Ok(RecordedTick { tick, clock_us, upto: upto.unwrap_or_default(), statement }),
                }
            });
            match tick {
                Ok(tick) => log.ticks.push(tick),
                Err(reason) => return Err(Error::TickLog { path, line: lines.count(), reason }),
            }
        }
        Ok(Some(log))
    }
}

#[cfg(test)]
mod tests;
pub mod writer;
