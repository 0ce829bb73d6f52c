//! Sources and ticks: records are read, decoded and handed to the workers, at most two ticks ahead of what is complete.

use std::collections::BTreeMap;
use std::path::PathBuf;

use deltaworks_connectors::decode::{DeadLetter, Decoded, Decoder, TableFormat, TopicFilter};
use deltaworks_connectors::file::FileSource;
use deltaworks_connectors::folder::FolderSource;
use deltaworks_connectors::format::Format;
use deltaworks_connectors::ordered::{OrderedFiles, TimestampColumn};
use deltaworks_connectors::record::Records;
use deltaworks_connectors::recorded::{RecordedTick, Replay, TickLog};
use deltaworks_connectors::source::{ReadState, RecordSource};
use deltaworks_dataflow::host::{Host, InputBatch, InputId};
use deltaworks_dataflow::{Command, Time};

use crate::catalog::{Entry, Table};
use crate::clock::Clock;
use crate::copy::{Filled, filled_at, widen};
use crate::error::EngineError;
use crate::options::Options;
use crate::pipe::Folder;

type Result<T> = std::result::Result<T, EngineError>;

/// Ticks that may be under way.
const IN_FLIGHT: Time = 2;
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
    /// Where the columns come from when a source delivers only some of them.
    filled: Option<Vec<Filled>>,
}

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

/// What was read, for the report at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) records: u64,
    pub(crate) ignored: u64,
    /// Dead letters by table.
    pub(crate) dead: BTreeMap<String, u64>,
    /// Files that changed after they were read, by table.
    pub(crate) changed_files: BTreeMap<String, u64>,
}

/// The sources of a run.
#[derive(Default)]
pub(crate) struct Sources {
    started: Vec<String>,
    open: Vec<Source>,
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

impl Sources {
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
        let mut recorded: Vec<(&str, &Table, String)> = Vec::new();
        let (mut lanes, mut lane_readers) = (Vec::new(), Vec::new());
        for (name, entry) in tables {
            let Some(table) = entry.table() else { continue };
            let connector = table.connector.clone().unwrap_or_default();
            match connector.connector() {
                Some("kafka" | "upsert-kafka") => recorded.push((name, table, topic(name, table)?)),
                Some("filesystem") => {
                    let format = table_format(table)?;
                    let source = FileSource::open(connector.require("path")?, &format)?;
                    let topics = TopicFilter::all(source.topics());
                    let mut reader = Reader::new(name, table, &format, topics)?;
                    if let Some(column) = TimestampColumn::of(&format)? {
                        reader.lane = lanes.len();
                        lanes.push((source, column));
                        lane_readers.push(reader);
                    } else {
                        self.open.push(Source::new(Feed::Files(source), vec![reader]));
                    }
                }
                Some(other) => {
                    return Err(EngineError::new(
                        format!("table \"{name}\" is read, but its connector \"{other}\" is a sink only"),
                        "read from a kafka or filesystem table",
                    ));
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
    fn start_replay(&mut self, options: &Options, tables: &[(&str, &Table, String)]) -> Result<()> {
        let Some(dir) = &options.replay else {
            return Err(EngineError::new(
                format!("table \"{}\" reads a Kafka topic, and reading from a broker is not supported yet", tables[0].0),
                "run with --replay DIR to read recorded topics",
            ));
        };
        let topics: Vec<String> = tables.iter().map(|(_, _, topic)| topic.clone()).collect();
        let replay = Replay::open(dir, &topics)?;
        let log = TickLog::open(dir)?.map(|log| log.ticks.into_iter());
        let mut readers = Vec::new();
        for (name, table, topic) in tables {
            let filter = TopicFilter::new(replay.topics(), |other| other == topic);
            readers.push(Reader::new(name, table, &table_format(table)?, filter)?);
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
        for source in self.open.iter_mut().filter(|source| !source.ended) {
            if let Feed::Ordered(files) = &mut source.feed {
                let state = read_ordered(files, &mut source.readers, records_max, clock, &mut self.progress, &mut batches)?;
                source.ended = state == ReadState::End;
                continue;
            }
            let mut records = Records::new();
            let state = match &mut source.feed {
                Feed::Recording { replay, log: Some(log) } => match log.next() {
                    Some(tick) => {
                        clock.saw_record(tick.clock_us / 1000);
                        replay.read_tick(&tick, &mut records)?;
                        ReadState::More
                    }
                    None => ReadState::End,
                },
                Feed::Recording { replay, log: None } => replay.read(records_max, bytes_max, &mut records)?,
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
            filled: None,
        })
    }
    fn decode(
        &mut self,
        records: &Records,
        (seen_at, timezone): (i64, chrono_tz::Tz),
        progress: &mut Progress,
        batches: &mut Vec<(InputId, InputBatch)>,
    ) -> Result<()> {
        let mut decoded = Decoded::default();
        self.decoder.decode(records, &self.topics, &mut decoded);
        if let Some(filled) = &self.filled {
            let filled = filled_at(filled, seen_at, timezone);
            decoded.commands.iter_mut().for_each(|command| command.row = widen(&command.row, &filled));
        }
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
