//! Sources and ticks: records are read, decoded and handed to the workers, at most four ticks ahead of what is complete.

use std::path::PathBuf;
use std::time::Duration;

use deltaworks_connectors::decode::{TableFormat, TopicFilter};
use deltaworks_connectors::error::Error;
use deltaworks_connectors::file::FileSource;
use deltaworks_connectors::folder::FolderSource;
use deltaworks_connectors::format::Format;
use deltaworks_connectors::ordered::{OrderedFiles, TimestampColumn};
use deltaworks_connectors::record::{NO_TIMESTAMP, Records};
use deltaworks_connectors::recorded::{RecordedTick, Replay, TickLog};
use deltaworks_connectors::source::{ReadState, RecordSource};
use deltaworks_dataflow::host::{Host, InputBatch, InputId};
use deltaworks_dataflow::{Command, Time};

use crate::catalog::{Entry, Table};
use crate::clock::Clock;
use crate::error::EngineError;
use crate::options::Options;
use crate::pace::Pace;
use crate::pipe::Folder;
use crate::reader::{Progress, Reader, read_ordered};

type Result<T> = std::result::Result<T, EngineError>;

/// Ticks that may be under way. Two keep one worker busy; two more let several workers, the reading and the writing of changes
/// go on beside each other (measured on first touch: a tenth of the wall time).
const IN_FLIGHT: Time = 4;
/// Bytes of records per tick and worker.
const TICK_BYTES: usize = 4 << 20;

enum Feed {
    Recording {
        replay: Replay,
        log: Option<std::vec::IntoIter<RecordedTick>>,
    },
    Files(FileSource),
    /// Files merged by a timestamp column; readers know their lanes.
    Ordered(OrderedFiles),
    Folder(FolderSource),
}
impl Feed {
    /// What a reader's progress is told by.
    fn source(&self, reader: &Reader) -> &dyn RecordSource {
        match self {
            Feed::Recording { replay, .. } => replay,
            Feed::Files(files) => files,
            Feed::Ordered(files) => files.source(reader.lane),
            Feed::Folder(folder) => folder,
        }
    }
    /// How long it is until the next tick of a paced replay is due, and the timestamp before which its records lie.
    fn due(&self, pace: &mut Pace) -> (Duration, i64) {
        let (next, frame) = match self {
            Feed::Files(_) | Feed::Ordered(_) | Feed::Folder(_) => (None, 0),
            Feed::Recording { log: Some(log), .. } => (log.as_slice().first().map(|tick| tick.clock_us / 1000), 0),
            Feed::Recording { replay, log: None } => (replay.next_timestamp(), pace.frame()),
        };
        let Some(next) = next else { return (Duration::ZERO, i64::MAX) };
        if next == NO_TIMESTAMP {
            // Broken lines before the first record.
            return (Duration::ZERO, NO_TIMESTAMP + 1);
        }
        let first = pace.until(next);
        let end = next.saturating_add(frame);
        (first.max(pace.until(end)), if frame == 0 { i64::MAX } else { end })
    }
}

/// Sources under way, and who reads them.
struct Source {
    feed: Feed,
    readers: Vec<Reader>,
    ended: bool,
    /// Whether the last read found that nothing is there for now.
    idle: bool,
    /// The pipe that it is read for.
    pipe: Option<String>,
}
impl Source {
    fn new(feed: Feed, readers: Vec<Reader>) -> Self {
        Source { feed, readers, ended: false, idle: false, pipe: None }
    }
}

/// The sources of a run.
#[derive(Default)]
pub(crate) struct Sources {
    started: Vec<String>,
    open: Vec<Source>,
    /// How fast a replay goes; None: as fast as it can.
    pace: Option<Pace>,
    pub(crate) progress: Progress,
}

/// How a table's records are decoded.
pub(crate) fn table_format(table: &Table) -> Result<TableFormat> {
    use deltaworks_operators::merge::Engine;
    let options = table.connector.clone().unwrap_or_default();
    let delivered = table.delivered_schema();
    let place = |column: &usize| table.delivered.iter().position(|d| d == column);
    let key: Option<Vec<usize>> = table.key.iter().map(place).collect();
    let key = key.ok_or_else(|| {
        EngineError::new(
            "a computed column is part of the PRIMARY KEY of a table with a connector",
            "key the table by columns that the source delivers",
        )
    })?;
    let format = options.first(&["value.format", "format"]).map_or("json", |(_, value)| value).to_string();
    let mut table_format = TableFormat::new(Format::from_name(&format)?, delivered, key);
    table_format.metadata.clone_from(&table.metadata);
    table_format.options = options;
    table_format.old_images = matches!(table.merge.as_ref().map(|m| &m.engine), Some(Engine::Aggregation(_)));
    Ok(table_format)
}

/// The files of a table, and what reads them.
fn open_files(name: &str, table: &Table) -> Result<(FileSource, Option<TimestampColumn>, Reader)> {
    let format = table_format(table)?;
    let path = table.connector.as_ref().map(|connector| connector.require("path")).transpose()?;
    let files = FileSource::open(path.unwrap_or_default(), &format)?;
    let reader = Reader::new(name, table, &format, TopicFilter::all(files.topics()))?;
    Ok((files, TimestampColumn::of(&format)?, reader))
}

impl Sources {
    /// Sources whose replay goes at a pace.
    pub(crate) fn new(pace: Option<Pace>) -> Self {
        Sources { pace, ..Sources::default() }
    }
    /// Whether ticks come at the pace of a recording.
    pub(crate) fn is_paced(&self) -> bool {
        self.pace.is_some()
    }
    /// Whether the table's source was started.
    pub(crate) fn is_started(&self, name: &str) -> bool {
        self.started.iter().any(|other| other == name)
    }
    /// Stops reading for a table that is gone.
    pub(crate) fn forget(&mut self, name: &str) {
        self.started.retain(|other| other != name);
        for source in &mut self.open {
            for reader in source.readers.iter().filter(|reader| reader.name == name) {
                if let Feed::Ordered(files) = &mut source.feed {
                    files.close(reader.lane);
                }
            }
            source.readers.retain(|reader| reader.name != name);
        }
        self.open.retain(|source| !source.readers.is_empty());
    }
    /// Stops watching the folder of a pipe.
    pub(crate) fn forget_pipe(&mut self, pipe: &str) {
        self.started.retain(|other| other != pipe);
        self.open.retain(|source| source.pipe.as_deref() != Some(pipe));
    }
    /// Starts the sources of the given tables together.
    pub(crate) fn start(&mut self, options: &Options, tables: &[(String, &Entry)]) -> Result<()> {
        let mut recorded: Vec<(&str, &Entry, &Table, String)> = Vec::new();
        let (mut lanes, mut lane_readers) = (Vec::new(), Vec::new());
        for (name, entry) in tables {
            let at = |error: EngineError| error.in_column(entry.position.0, entry.position.1);
            let Some(table) = entry.table() else { continue };
            let connector = table.connector.clone().unwrap_or_default();
            match connector.connector() {
                Some("kafka" | "upsert-kafka") => {
                    recorded.push((name, entry, table, topic(name, table).map_err(at)?));
                }
                Some("filesystem") => {
                    let (files, column, mut reader) = open_files(name, table).map_err(at)?;
                    if let Some(column) = column {
                        reader.lane = lanes.len();
                        lanes.push((files, column));
                        lane_readers.push(reader);
                    } else {
                        self.open.push(Source::new(Feed::Files(files), vec![reader]));
                    }
                }
                Some(other) => {
                    return Err(at(EngineError::new(
                        format!("table \"{name}\" is read, but its connector \"{other}\" is a sink only"),
                        "read from a kafka or filesystem table",
                    )));
                }
                None => continue,
            }
            self.started.push(name.clone());
        }
        if !lanes.is_empty() {
            let feed = Feed::Ordered(OrderedFiles::new(lanes));
            self.open.push(Source::new(feed, lane_readers));
        }
        if !recorded.is_empty() {
            self.start_replay(options, &recorded)?;
        }
        Ok(())
    }
    fn start_replay(&mut self, options: &Options, tables: &[(&str, &Entry, &Table, String)]) -> Result<()> {
        let at = |entry: &Entry, error: EngineError| error.in_column(entry.position.0, entry.position.1);
        let Some(dir) = &options.replay else {
            let error = EngineError::new(
                format!("table \"{}\" reads a Kafka topic, and reading from a broker is not supported yet", tables[0].0),
                "run with --replay DIR to read recorded topics",
            );
            return Err(at(tables[0].1, error));
        };
        let topics: Vec<String> = tables.iter().map(|(_, _, _, topic)| topic.clone()).collect();
        let replay = Replay::open(dir, &topics).map_err(|error| {
            let missing = match &error {
                Error::MissingTopic { topic, .. } => tables.iter().find(|(_, _, _, other)| other == topic),
                _ => None,
            };
            let error = EngineError::from(error);
            missing.map_or(error.clone(), |(_, entry, _, _)| at(entry, error))
        })?;
        let log = TickLog::open(dir)?.map(|log| log.ticks.into_iter());
        let mut readers = Vec::new();
        for (name, entry, table, topic) in tables {
            let filter = TopicFilter::new(replay.topics(), |other| other == topic);
            let reader = table_format(table).and_then(|format| Reader::new(name, table, &format, filter));
            readers.push(reader.map_err(|error| at(entry, error))?);
        }
        self.open.push(Source::new(Feed::Recording { replay, log }, readers));
        Ok(())
    }
    /// Starts watching the folder of a pipe. While recordings are replayed, it gives what is there and ends.
    pub(crate) fn start_folder(&mut self, options: &Options, pipe: &str, to: (&str, &Table), from: &Folder) -> Result<()> {
        let source = FolderSource::open(&from.path, &from.names, &from.format, options.replay.is_some())?;
        let (name, table) = to;
        let reader = Reader::new(name, table, &from.format, TopicFilter::default())?;
        let readers = vec![Reader { filled: Some(from.filled.clone()), ..reader }];
        self.open.push(Source { pipe: Some(pipe.to_string()), ..Source::new(Feed::Folder(source), readers) });
        self.started.push(pipe.to_string());
        Ok(())
    }
    /// Whether every started source has ended or has nothing for now.
    pub(crate) fn idle(&self) -> bool {
        self.open.iter().all(|source| source.ended || source.idle)
    }
    /// Asks again the sources that had nothing.
    pub(crate) fn ask_again(&mut self) {
        for source in &mut self.open {
            source.idle = false;
            if let Feed::Folder(folder) = &mut source.feed {
                folder.look_again();
            }
        }
    }
    /// What is there and cannot be read yet: files that may still grow.
    pub(crate) fn waiting(&self) -> Vec<PathBuf> {
        let folders = self.open.iter().filter_map(|source| match &source.feed {
            Feed::Folder(folder) => Some(folder.waiting()),
            _ => None,
        });
        folders.flatten().collect()
    }
    /// Files that changed after they were read, with the table that they were read into.
    pub(crate) fn take_changed(&mut self) -> Vec<(String, PathBuf)> {
        let mut changed = Vec::new();
        for source in &mut self.open {
            let (Feed::Folder(folder), Some(reader)) = (&mut source.feed, source.readers.first()) else { continue };
            changed.extend(folder.take_changed().into_iter().map(|path| (reader.name.clone(), path)));
        }
        for (table, _) in &changed {
            *self.progress.changed_files.entry(table.clone()).or_default() += 1;
        }
        changed
    }
    /// Whether every started source has ended.
    pub(crate) fn ended(&self) -> bool {
        self.open.iter().all(|source| source.ended)
    }
    /// Reads and decodes one tick's records: per input, its commands.
    pub(crate) fn read(
        &mut self,
        options: &Options,
        clock: &mut Clock,
        timezone: chrono_tz::Tz,
        workers: usize,
    ) -> Result<Vec<(InputId, InputBatch)>> {
        let mut batches = Vec::new();
        let (records_max, bytes_max) = (options.tick_records, TICK_BYTES * workers);
        let mut running = self.open.iter().filter(|source| !source.ended).count();
        for source in self.open.iter_mut().filter(|source| !source.ended) {
            if let Feed::Ordered(files) = &mut source.feed {
                let state = read_ordered(files, &mut source.readers, records_max, clock, &mut self.progress, &mut batches)?;
                source.ended = state == ReadState::End;
                continue;
            }
            let mut records = Records::new();
            let mut end = i64::MAX;
            if let Some(pace) = &mut self.pace {
                let (due, frame_end) = source.feed.due(pace);
                // Others go on meanwhile.
                if !due.is_zero() && (running > 1 || !pace.wait(due)) {
                    running -= 1;
                    continue;
                }
                end = frame_end;
            }
            let state = match &mut source.feed {
                Feed::Recording { replay, log: Some(log) } => match log.next() {
                    Some(tick) => {
                        clock.saw_record(tick.clock_us / 1000);
                        replay.read_tick(&tick, &mut records)?;
                        ReadState::More
                    }
                    None => ReadState::End,
                },
                Feed::Recording { replay, log: None } => replay.read_before(end, records_max, bytes_max, &mut records)?,
                Feed::Files(files) => files.read(records_max, bytes_max, &mut records)?,
                Feed::Ordered(_) => ReadState::End,
                Feed::Folder(folder) => {
                    let known = folder.topics().len();
                    let state = folder.read(records_max, bytes_max, &mut records)?;
                    if folder.topics().len() > known {
                        let topics = TopicFilter::all(folder.topics());
                        source.readers.iter_mut().for_each(|reader| reader.topics = topics.clone());
                    }
                    state
                }
            };
            source.idle = state == ReadState::Idle;
            source.ended = state == ReadState::End;
            if let Some(latest) = records.latest() {
                clock.saw_record(latest);
            }
            self.progress.records += records.len() as u64;
            let seen_at = clock.now();
            for reader in &mut source.readers {
                reader.decode(&records, (seen_at, timezone), &mut self.progress, &mut batches)?;
            }
        }
        Ok(batches)
    }
    /// One line per source and partition: table, topic, partition, records read, next offset, whether it has ended.
    pub(crate) fn partitions(&self) -> Vec<(String, String, u32, u64, u64, bool)> {
        let mut lines = Vec::new();
        for source in &self.open {
            for reader in &source.readers {
                for progress in source.feed.source(reader).progress() {
                    if let Some(topic) = reader.topics.name(progress.topic) {
                        lines.push((
                            reader.name.clone(),
                            topic.to_string(),
                            progress.partition,
                            progress.records,
                            progress.next_offset,
                            progress.ended,
                        ));
                    }
                }
            }
        }
        lines.sort();
        lines
    }
}

fn topic(name: &str, table: &Table) -> Result<String> {
    let options = table.connector.clone().unwrap_or_default();
    let topic = options.require("topic").map_err(|e| EngineError::new(format!("table \"{name}\": {e}"), e.help()))?;
    Ok(topic.to_string())
}

/// Shares a tick's batches out to the workers: commands in contiguous parts, whose order within a key the positions restore.
pub(crate) fn share(batches: Vec<(InputId, InputBatch)>, workers: usize) -> Vec<Vec<(InputId, InputBatch)>> {
    let mut shares: Vec<Vec<(InputId, InputBatch)>> = (0..workers).map(|_| Vec::new()).collect();
    for (id, batch) in batches {
        match batch {
            InputBatch::Commands(commands) if workers > 1 => {
                for (worker, part) in split(commands, workers).into_iter().enumerate() {
                    shares[worker].push((id, InputBatch::Commands(part)));
                }
            }
            batch => shares[0].push((id, batch)),
        }
    }
    shares
}
fn split(mut commands: Vec<Command>, parts: usize) -> Vec<Vec<Command>> {
    let size = commands.len().div_ceil(parts);
    let mut split = Vec::with_capacity(parts);
    while commands.len() > size {
        let rest = commands.split_off(size);
        split.push(std::mem::replace(&mut commands, rest));
    }
    split.push(commands);
    split
}

/// Starts a tick, after waiting until few enough are under way.
pub(crate) fn send(host: &mut Host, batches: Vec<(InputId, InputBatch)>, clocks: &[(InputId, i64)]) -> Result<Time> {
    if let Some(old) = host.next_tick().checked_sub(IN_FLIGHT).filter(|tick| *tick > 0) {
        host.wait_complete(old)?;
    }
    let workers = host.workers();
    let mut shares = share(batches, workers);
    for share in &mut shares {
        share.extend(clocks.iter().map(|(id, instant)| (*id, InputBatch::Clock(*instant))));
    }
    Ok(host.tick(shares))
}
