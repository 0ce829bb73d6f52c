//! Writing a recording: `DIR/<topic>/<partition>.jsonl[.zst]`, and `ticks.jsonl` for a run.
//!
//! *Exactness*: the bytes of keys and values come back from a replay as they were, timestamps, offsets and headers too. A value
//! stands in its line as JSON if it is JSON, else as a string, else in base64.
//!
//! *Interrupted*: what was handed on by [`Recording::flush`] is whole lines on disk. A compressed recording needs
//! [`Recording::finish`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::record::{Record, Records};
use crate::source::PartitionProgress;
use deltaworks_dataflow::DataType;
use deltaworks_dataflow::temporal::write_temporal;

/// Bytes that wait before they are written.
const BUFFER_BYTES: usize = 256 * 1024;
/// The level of zstd at which it is as fast as a disk.
const LEVEL: i32 = 3;

/// A recording under way.
pub struct Recording {
    dir: PathBuf,
    compressed: bool,
    partitions: BTreeMap<(String, u32), Partition>,
    ticks: Option<Lines>,
    /// How far each partition was when a tick told it last.
    noted: BTreeMap<(String, u32), u64>,
    line: Vec<u8>,
}

struct Partition {
    lines: Lines,
    /// Records before it are written already.
    next_offset: u64,
}

impl Recording {
    /// Begins a recording in a folder that holds none yet.
    ///
    /// # Errors
    /// A folder that is not empty, or cannot be made.
    pub fn create(dir: &Path, compressed: bool) -> Result<Recording> {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        if std::fs::read_dir(dir).map_err(Error::io("read", dir))?.next().is_some() {
            return Err(Error::NotEmpty { path: dir.to_owned() });
        }
        let (partitions, dir) = (BTreeMap::new(), dir.to_owned());
        Ok(Recording { dir, compressed, partitions, ticks: None, noted: BTreeMap::new(), line: Vec::new() })
    }
    /// Makes sure that there is a file for each partition, also for one without records.
    ///
    /// # Errors
    /// A file that cannot be made.
    pub fn meet(&mut self, topics: &[String], partitions: &[PartitionProgress]) -> Result<()> {
        partitions.iter().try_for_each(|p| self.partition(&topics[p.topic as usize], p.partition).map(|_| ()))
    }
    /// Writes records down. A topic must come from one source.
    ///
    /// # Errors
    /// A file that cannot be written; an offset that was written already.
    pub fn write(&mut self, topics: &[String], records: &Records) -> Result<()> {
        for record in records.iter() {
            let mut line = std::mem::take(&mut self.line);
            let topic = &topics[record.topic as usize];
            let partition = self.partition(topic, record.partition)?;
            // A line of a recording that is no record has the offset behind the one before it, which the next may have too.
            if record.offset < partition.next_offset && record.broken.is_none() {
                let (topic, partition, offset) = (topic.clone(), record.partition, record.offset);
                return Err(Error::RecordedAnew { topic, partition, offset });
            }
            if record.broken.is_none() {
                partition.next_offset = record.offset + 1;
            }
            line.clear();
            write_record(&record, &mut line);
            partition.lines.write(&line)?;
            self.line = line;
        }
        Ok(())
    }
    /// Notes a tick: its clock in microseconds since 1970, and how far the partitions were read by then.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn tick(&mut self, tick: u64, clock_us: i64, upto: &BTreeMap<(String, u32), u64>) -> Result<()> {
        let mut line = self.tick_line(tick, clock_us);
        line.extend_from_slice(b"\"upto\":{");
        // What stands still is not told again.
        let mut between: &[u8] = b"";
        for (partition, offset) in upto {
            if self.noted.insert(partition.clone(), *offset) == Some(*offset) {
                continue;
            }
            line.extend_from_slice(std::mem::replace(&mut between, b","));
            write_json(&format!("{}/{}", partition.0, partition.1), &mut line);
            line.extend_from_slice(format!(":{offset}").as_bytes());
        }
        line.extend_from_slice(b"}}\n");
        self.write_tick(line)
    }
    /// Notes a tick that a statement of the script makes, or before which it looks at the clock.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn statement(&mut self, tick: u64, clock_us: i64) -> Result<()> {
        let mut line = self.tick_line(tick, clock_us);
        line.extend_from_slice(b"\"statement\":true}\n");
        self.write_tick(line)
    }
    /// The beginning of a tick's line.
    fn tick_line(&mut self, tick: u64, clock_us: i64) -> Vec<u8> {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        line.extend_from_slice(format!("{{\"tick\":{tick},\"clock\":\"").as_bytes());
        write_temporal(clock_us, &DataType::TimestampLtz, &mut line);
        line.extend_from_slice(b"\",");
        line
    }
    fn write_tick(&mut self, line: Vec<u8>) -> Result<()> {
        let ticks = match &mut self.ticks {
            Some(ticks) => ticks,
            none => none.insert(Lines::create(self.dir.join("ticks.jsonl"), false)?),
        };
        ticks.write(&line)?;
        self.line = line;
        Ok(())
    }
    /// Hands on what was written so far.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        // Records first: a tick never speaks of what is not there.
        self.partitions.values_mut().map(|partition| &mut partition.lines).chain(&mut self.ticks).try_for_each(Lines::flush)
    }
    /// Ends the recording.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(self) -> Result<()> {
        self.partitions.into_values().map(|partition| partition.lines).chain(self.ticks).try_for_each(Lines::finish)
    }
    fn partition(&mut self, topic: &str, partition: u32) -> Result<&mut Partition> {
        let key = (topic.to_owned(), partition);
        if !self.partitions.contains_key(&key) {
            let folder = self.dir.join(topic);
            std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
            let name = format!("{partition}.jsonl{}", if self.compressed { ".zst" } else { "" });
            let lines = Lines::create(folder.join(name), self.compressed)?;
            self.partitions.insert(key.clone(), Partition { lines, next_offset: 0 });
        }
        Ok(self.partitions.get_mut(&key).expect("it was just put there"))
    }
}

/// A file of lines that grows.
struct Lines {
    path: PathBuf,
    writer: Writer,
}
enum Writer {
    Plain(BufWriter<File>),
    Compressed(zstd::Encoder<'static, BufWriter<File>>),
}

impl Lines {
    fn create(path: PathBuf, compressed: bool) -> Result<Lines> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, File::create(&path).map_err(Error::io("create", &path))?);
        let writer = if compressed {
            Writer::Compressed(zstd::Encoder::new(file, LEVEL).map_err(Error::io("compress", &path))?)
        } else {
            Writer::Plain(file)
        };
        Ok(Lines { path, writer })
    }
    fn write(&mut self, line: &[u8]) -> Result<()> {
        let written = match &mut self.writer {
            Writer::Plain(writer) => writer.write_all(line),
            Writer::Compressed(writer) => writer.write_all(line),
        };
        written.map_err(Error::io("write", &self.path))
    }
    fn flush(&mut self) -> Result<()> {
        let flushed = match &mut self.writer {
            Writer::Plain(writer) => writer.flush(),
            Writer::Compressed(writer) => writer.flush(),
        };
        flushed.map_err(Error::io("write", &self.path))
    }
    fn finish(self) -> Result<()> {
        let finished = match self.writer {
            Writer::Plain(mut writer) => writer.flush(),
            Writer::Compressed(writer) => writer.finish().and_then(|mut writer| writer.flush()),
        };
        finished.map_err(Error::io("write", &self.path))
    }
}

fn write_record(record: &Record<'_>, line: &mut Vec<u8>) {
    if let (Some(_), Some(text)) = (record.broken, record.value) {
        // The line of a recording that is no record, as it stood there.
        line.extend_from_slice(text);
        line.push(b'\n');
        return;
    }
    line.extend_from_slice(format!("{{\"offset\":{},\"timestamp\":{}", record.offset, record.timestamp).as_bytes());
    if let Some(key) = record.key {
        write_bytes("key", key, false, line);
    }
    match record.value {
        Some(value) => write_bytes("value", value, true, line),
        None => line.extend_from_slice(b",\"value\":null"),
    }
    if let Some(headers) = record.headers {
        line.extend_from_slice(b",\"headers\":");
        line.extend_from_slice(headers.as_bytes());
    }
    line.extend_from_slice(b"}\n");
}
/// `,"name":..`, from which a replay makes the same bytes.
fn write_bytes(name: &str, bytes: &[u8], may_inline: bool, line: &mut Vec<u8>) {
    let text = std::str::from_utf8(bytes);
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    match text {
        Ok(text) if may_inline && is_inline(text) => {
            line.extend_from_slice(b"\":");
            line.extend_from_slice(bytes);
        }
        Ok(text) => {
            line.extend_from_slice(b"\":");
            write_json(text, line);
        }
        Err(_) => {
            line.extend_from_slice(b"_base64\":\"");
            line.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            line.push(b'"');
        }
    }
}
/// Whether a text is JSON that a line can hold as it is. A JSON string is not: it would come back without its quotes.
fn is_inline(text: &str) -> bool {
    text.starts_with(['{', '[']) && text.ends_with(['}', ']']) && !text.contains(['\n', '\r']) && is_json(text)
}
fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}
fn write_json(text: &str, line: &mut Vec<u8>) {
    line.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::{Replay, TickLog};
    use crate::source::RecordSource;
    use proptest::prelude::*;

    type Written = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

    fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        let texts = prop_oneof![
            Just("{\"a\": 1}".to_owned()),
            Just("\"quoted\"".to_owned()),
            Just(" {} ".to_owned()),
            Just("{\n}".to_owned()),
            Just("null".to_owned()),
            Just("17".to_owned()),
            Just("{\"a\":".to_owned()),
            ".{0,12}",
        ];
        proptest::option::of(prop_oneof![texts.prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..9)])
    }

    fn check(records: &[Written], compressed: bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("r");
        let topics = ["t".to_owned()];
        let mut recording = Recording::create(&dir, compressed).expect("a recording");
        let mut given = Records::new();
        for (place, (timestamp, key, value)) in records.iter().enumerate() {
            let (key, value) = (key.as_deref(), value.as_deref());
            let (offset, headers) = (place as u64 * 2, (place % 2 == 0).then_some("{\"h\":\"x\"}"));
            given.push(Record { offset, timestamp: *timestamp, key, value, headers, ..Record::default() });
        }
        let partition = PartitionProgress { topic: 0, partition: 0, records: 0, next_offset: 0, ended: false, lag: None };
        recording.meet(&topics, std::slice::from_ref(&partition)).expect("met");
        recording.write(&topics, &given).expect("written");
        // What begins again is not the same topic.
        assert_eq!(recording.write(&topics, &given).is_err(), !given.is_empty());
        let upto = BTreeMap::from([(("t".to_owned(), 0), 1_000)]);
        recording.tick(7, 1_780_704_000_123_456, &upto).expect("noted");
        recording.finish().expect("finished");
        let mut replay = Replay::open(&dir, &topics).expect("a replay");
        let mut back = Records::new();
        while replay.read(3, usize::MAX, &mut back).expect("read") != crate::source::ReadState::End {}
        assert!(given.iter().eq(back.iter()), "{given:?} {back:?}");
        let log = TickLog::open(&dir).expect("a log").expect("ticks");
        assert_eq!((log.ticks[0].tick, log.ticks[0].clock_us, log.ticks[0].upto("t", 0)), (7, 1_780_704_000_123_456, 1_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_replay_gives_the_same_bytes(
            records in proptest::collection::vec((0i64..100, bytes(), bytes()), 0..12),
            compressed: bool,
        ) {
            let mut records = records;
            // Within a partition timestamps may go back; the order of offsets stays.
            records.truncate(10);
            check(&records, compressed);
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("x"), "").expect("written");
        let error = Recording::create(folder.path(), false).err().expect("an error");
        assert!(error.to_string().contains("is not empty"), "{error}");
    }
}
