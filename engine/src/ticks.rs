//! Sources and ticks: records are read, decoded and handed to the workers, at most two ticks ahead of what is complete.

use std::collections::BTreeMap;
use std::time::Duration;

use deltaworks_connectors::decode::{DeadLetter, Decoded, Decoder, TableFormat, TopicFilter};
use deltaworks_connectors::error::Error;
use deltaworks_connectors::file::FileSource;
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

type Result<T> = std::result::Result<T, EngineError>;

/// Ticks that may be under way. Two keep one worker busy; two more let several workers, the reading and the writing of changes
/// go on beside each other (measured on first touch: a tenth of the wall time).
const IN_FLIGHT: Time = 4;
/// Bytes of records per tick and worker.
const TICK_BYTES: usize = 4 << 20;

/// A table that reads from a source.
struct Reader {
    name: String,
    decoder: Box<dyn Decoder>,
    topics: TopicFilter,
    input: InputId,
    errors_input: InputId,
    errors_fail: bool,
    /// Its lane of ordered files.
    lane: usize,
}

enum Feed {
    Recording {
        replay: Replay,
        log: Option<std::vec::IntoIter<RecordedTick>>,
    },
    Files(FileSource),
    /// Files merged by a timestamp column; readers know their lanes.
    Ordered(OrderedFiles),
}
impl Feed {
    /// What a reader's progress is told by.
    fn source(&self, reader: &Reader) -> &dyn RecordSource {
        match self {
            Feed::Recording { replay, .. } => replay,
            Feed::Files(files) => files,
            Feed::Ordered(files) => files.source(reader.lane),
        }
    }
    /// How long it is until the next tick of a paced replay is due, and the timestamp before which its records lie.
    fn due(&self, pace: &mut Pace) -> (Duration, i64) {
        let (next, frame) = match self {
            Feed::Files(_) | Feed::Ordered(_) => (None, 0),
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
}

/// What was read, for the report at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) records: u64,
    pub(crate) ignored: u64,
    /// Dead letters by table.
    pub(crate) dead: BTreeMap<String, u64>,
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
                        self.open.push(Source { feed: Feed::Files(files), readers: vec![reader], ended: false });
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
            self.open.push(Source { feed, readers: lane_readers, ended: false });
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
        self.open.push(Source { feed: Feed::Recording { replay, log }, readers, ended: false });
        Ok(())
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
            };
            source.ended = state == ReadState::End;
            if let Some(latest) = records.latest() {
                clock.saw_record(latest);
            }
            self.progress.records += records.len() as u64;
            let seen_at = clock.now();
            for reader in &mut source.readers {
                reader.decode(&records, seen_at, &mut self.progress, &mut batches)?;
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

impl Reader {
    fn new(name: &str, table: &Table, format: &TableFormat, topics: TopicFilter) -> Result<Self> {
        Ok(Reader {
            name: name.to_string(),
            decoder: format.decoder()?,
            topics,
            input: table.input,
            errors_input: table.errors_input,
            errors_fail: table.errors_fail,
            lane: 0,
        })
    }
    fn decode(
        &mut self,
        records: &Records,
        seen_at: i64,
        progress: &mut Progress,
        batches: &mut Vec<(InputId, InputBatch)>,
    ) -> Result<()> {
        let mut decoded = Decoded::default();
        self.decoder.decode(records, &self.topics, &mut decoded);
        self.deliver(decoded, seen_at, progress, batches)
    }
    fn deliver(
        &self,
        decoded: Decoded,
        seen_at: i64,
        progress: &mut Progress,
        batches: &mut Vec<(InputId, InputBatch)>,
    ) -> Result<()> {
        progress.ignored += decoded.ignored;
        if !decoded.dead.is_empty() {
            if self.errors_fail {
                return Err(failure(&self.name, &decoded.dead[0]));
            }
            *progress.dead.entry(self.name.clone()).or_default() += decoded.dead.len() as u64;
            let letters = decoded.dead.iter().map(|letter| (letter.to_row(seen_at), 1)).collect();
            batches.push((self.errors_input, InputBatch::Updates(letters)));
        }
        if !decoded.commands.is_empty() {
            batches.push((self.input, InputBatch::Commands(decoded.commands)));
        }
        Ok(())
    }
}
/// Reads and decodes one tick of ordered files.
fn read_ordered(
    files: &mut OrderedFiles,
    readers: &mut [Reader],
    commands_max: usize,
    clock: &mut Clock,
    progress: &mut Progress,
    batches: &mut Vec<(InputId, InputBatch)>,
) -> Result<ReadState> {
    let before = files.taken();
    let mut decoded: Vec<Decoded> = vec![Decoded::default(); files.lanes()];
    let mut decode = |lane: usize, records: &Records, out: &mut Decoded| {
        if let Some(reader) = readers.iter_mut().find(|reader| reader.lane == lane) {
            reader.decoder.decode(records, &reader.topics, out);
        }
    };
    let state = files.read(commands_max, &mut decode, &mut decoded)?;
    if let Some(latest) = decoded.iter().filter_map(Decoded::latest).max() {
        clock.saw_record(latest);
    }
    progress.records += files.taken() - before;
    let seen_at = clock.now();
    for reader in readers {
        reader.deliver(std::mem::take(&mut decoded[reader.lane]), seen_at, progress, batches)?;
    }
    Ok(state)
}
fn failure(table: &str, letter: &DeadLetter) -> EngineError {
    EngineError::new(
        format!(
            "could not decode a record of table \"{table}\": \"{}\" partition {} offset {}: {}",
            letter.source, letter.partition, letter.position, letter.reason
        ),
        format!("mend the record, or leave out 'errors' = 'fail' to collect such records in {table}$errors"),
    )
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
