//! Sources and ticks: records are read, decoded and handed to the workers, at most four ticks ahead of what is complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deltaworks_connectors::decode::{Prepared, Refused, TableFormat, TopicFilter};
use deltaworks_connectors::error::Error;
use deltaworks_connectors::file::FileSource;
use deltaworks_connectors::folder::FolderSource;
use deltaworks_connectors::format::Format;
use deltaworks_connectors::kafka::{Bell, Connection, KafkaSource, Scan};
use deltaworks_connectors::ordered::{OrderedFiles, TimestampColumn};
use deltaworks_connectors::record::{NO_TIMESTAMP, Records};
use deltaworks_connectors::recorded::writer::Recording;
use deltaworks_connectors::recorded::{RecordedTick, Replay};
use deltaworks_connectors::source::{PartitionProgress, ReadState, RecordSource};
use deltaworks_dataflow::host::{Host, InputBatch, InputId};
use deltaworks_dataflow::{Command, Time};
use deltaworks_operators::merge::{DeleteBehavior, Engine as MergeEngine, MergeSpec};

use crate::catalog::{Entry, Table};
use crate::clock::Clock;
use crate::error::EngineError;
use crate::letters::Outbox;
use crate::options::Options;
use crate::pace::Pace;
use crate::pipe::Folder;
use crate::reader::{Progress, Reader, read_ordered};
use crate::tick_log::TicksToCome;
use crate::topics::{TopicTable, recorded_topics};

type Result<T> = std::result::Result<T, EngineError>;

/// Ticks that may be under way. Two keep one worker busy; two more let several workers, the reading and the writing of changes
/// go on beside each other (measured on first touch: a tenth of the wall time).
const IN_FLIGHT: Time = 4;
/// Bytes of records per tick and worker.
const TICK_BYTES: usize = 4 << 20;

enum Feed {
    Recording(Replay),
    Files(FileSource),
    /// Files merged by a timestamp column; readers know their lanes.
    Ordered(OrderedFiles),
    Folder(FolderSource),
    Kafka(Box<KafkaSource>),
}
impl Feed {
    /// What a reader's progress is told by.
    fn source(&self, reader: &Reader) -> &dyn RecordSource {
        match self {
            Feed::Recording(replay) => replay,
            Feed::Files(files) => files,
            Feed::Ordered(files) => files.source(reader.lane),
            Feed::Folder(folder) => folder,
            Feed::Kafka(kafka) => &**kafka,
        }
    }
    /// The topics, where a recording holds what comes from them.
    fn recorded(&self) -> Option<(&[String], &dyn RecordSource)> {
        match self {
            Feed::Recording(replay) => Some((replay.topics(), replay)),
            Feed::Kafka(kafka) => Some((kafka.topics(), &**kafka)),
            Feed::Files(_) | Feed::Ordered(_) | Feed::Folder(_) => None,
        }
    }
    /// How long it is until the next tick of a paced replay is due, and the timestamp before which its records lie. `log` is the
    /// clock of that tick, in milliseconds, where the recording has ticks.
    fn due(&self, pace: &mut Pace, log: Option<i64>, has_log: bool) -> (Duration, i64) {
        let (next, frame) = match self {
            Feed::Files(_) | Feed::Ordered(_) | Feed::Folder(_) | Feed::Kafka(_) => (None, 0),
            Feed::Recording(_) if has_log => (log, 0),
            Feed::Recording(replay) => (replay.next_timestamp(), pace.frame()),
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
    /// Whether it found that more was there already and is still on its way.
    behind: bool,
    /// What was taken for the tick that comes next.
    taken: Records,
    /// The pipe that it is read for.
    pipe: Option<String>,
}
impl Source {
    fn new(feed: Feed, readers: Vec<Reader>) -> Self {
        Source { feed, readers, ended: false, idle: false, behind: false, taken: Records::new(), pipe: None }
    }
}

/// The sources of a run.
#[derive(Default)]
pub(crate) struct Sources {
    started: Vec<String>,
    open: Vec<Source>,
    /// How fast a replay goes; None: as fast as it can.
    pace: Option<Pace>,
    /// Rings when something came from a broker.
    bell: Bell,
    /// Set once the run is to stop.
    stop: Arc<AtomicBool>,
    pub(crate) progress: Progress,
    /// Where what is read from topics is written down.
    recording: Option<Recording>,
    /// The ticks of the recording that is replayed, where it has them.
    log: Option<TicksToCome>,
    /// While what was taken cannot be decoded yet, because something outside does not answer: what else the tick has.
    held: Option<Vec<(InputId, InputBatch)>>,
    /// Whether that was said.
    said_held: bool,
    /// What happened and is to be said.
    news: Vec<String>,
}

/// How far a partition of a table was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartitionLine {
    pub(crate) table: String,
    /// The topic or file.
    pub(crate) source: String,
    pub(crate) partition: u32,
    pub(crate) records: u64,
    pub(crate) next_offset: u64,
    pub(crate) ended: bool,
    /// Records that are there and were not taken, where that is known.
    pub(crate) lag: Option<u64>,
    /// What happened to it last.
    pub(crate) note: String,
}

/// How a table's records are decoded.
pub(crate) fn table_format(table: &Table) -> Result<TableFormat> {
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
    table_format.old_images = matches!(table.merge.as_ref().map(|m| &m.engine), Some(MergeEngine::Aggregation(_)));
    table_format.refused = table.merge.as_ref().map(refused).unwrap_or_default();
    Ok(table_format)
}
/// What a record cannot ask of a table.
fn refused(merge: &MergeSpec) -> Refused {
    let disabled = merge.delete == DeleteBehavior::Disable;
    let subtracts = match &merge.engine {
        MergeEngine::Aggregation(columns) => columns.iter().all(|column| column.aggregate.subtracts()),
        _ => true,
    };
    Refused {
        deletes: disabled.then_some("the table does not allow deletes"),
        retractions: (!subtracts).then_some("an aggregate of this table cannot take a row back"),
    }
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
    /// Sources whose replay goes at a pace, of a run that is to stop once `stop` is set.
    pub(crate) fn new(pace: Option<Pace>, stop: &Arc<AtomicBool>) -> Self {
        Sources { pace, stop: Arc::clone(stop), ..Sources::default() }
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
        let mut topics: Vec<TopicTable<'_>> = Vec::new();
        let (mut lanes, mut lane_readers) = (Vec::new(), Vec::new());
        for (name, entry) in tables {
            let at = |error: EngineError| error.in_column(entry.position.0, entry.position.1);
            let Some(table) = entry.table() else { continue };
            let connector = table.connector.clone().unwrap_or_default();
            match connector.connector() {
                Some("kafka" | "upsert-kafka") => {
                    topics.push(TopicTable::new(name, entry, table)?);
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
        match &options.replay {
            _ if topics.is_empty() => Ok(()),
            Some(dir) => self.start_replay(dir, &topics),
            None => self.start_kafka(&topics),
        }
    }
    fn start_replay(&mut self, dir: &Path, tables: &[TopicTable<'_>]) -> Result<()> {
        let mut topics = Vec::new();
        for table in tables {
            topics.extend(recorded_topics(dir, &table.topics).map_err(|error| table.at(error.into()))?);
        }
        let replay = Replay::open(dir, &topics).map_err(|error| {
            let missing = match &error {
                Error::MissingTopic { topic, .. } => tables.iter().find(|table| table.topics.matches(topic)),
                _ => None,
            };
            let error = EngineError::from(error);
            missing.map_or(error.clone(), |table| table.at(error))
        })?;
        let readers = tables.iter().map(|table| table.reader(replay.topics(), &self.stop)).collect::<Result<Vec<_>>>()?;
        self.open.push(Source::new(Feed::Recording(replay), readers));
        Ok(())
    }
    /// Tables whose brokers and scans are the same are read together, in the order of their records' timestamps.
    fn start_kafka(&mut self, tables: &[TopicTable<'_>]) -> Result<()> {
        let mut groups: Vec<(Connection, Scan, Vec<&TopicTable<'_>>)> = Vec::new();
        for table in tables {
            let (connection, scan) = table.scan().map_err(|error| table.at(error))?;
            match groups.iter_mut().find(|(other, same, _)| *other == connection && *same == scan) {
                Some((_, _, group)) => group.push(table),
                None => groups.push((connection, scan, vec![table])),
            }
        }
        for (connection, scan, group) in groups {
            let wanted = group.iter().map(|table| table.topics.clone()).collect();
            let opened = KafkaSource::open(&connection, &scan, wanted, self.bell.clone(), &self.stop);
            let kafka = opened.map_err(|error| {
                let named = |table: &&&TopicTable<'_>| match &error {
                    Error::UnknownTopic { topic, .. } => table.topics.names().contains(topic),
                    _ => false,
                };
                group.iter().find(named).unwrap_or(&group[0]).at(EngineError::from(error))
            })?;
            if let Some(topic) = kafka.topics().iter().find(|topic| self.recording.is_some() && self.reads_topic(topic)) {
                return Err(group[0].at(EngineError::new(
                    format!("topic \"{topic}\" is read twice, from other brokers or offsets, and a recording holds it once"),
                    "give all tables of a topic the same brokers and 'scan.*' options, or run it without --record",
                )));
            }
            let readers = group.iter().map(|table| table.reader(kafka.topics(), &self.stop)).collect::<Result<Vec<_>>>()?;
            self.open.push(Source::new(Feed::Kafka(Box::new(kafka)), readers));
        }
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
        !self.is_held_up() && self.open.iter().all(|source| source.ended || source.idle)
    }
    /// Whether a source still gets what was there before.
    pub(crate) fn is_behind(&self) -> bool {
        self.open.iter().any(|source| source.behind)
    }
    /// Whether a source that has nothing now will have more and then end.
    pub(crate) fn will_end(&self) -> bool {
        self.open.iter().any(|source| !source.ended && matches!(&source.feed, Feed::Kafka(kafka) if kafka.is_bounded()))
    }
    /// Whether no source has anything at this moment.
    pub(crate) fn is_resting(&self) -> bool {
        self.open.iter().all(|source| source.ended || source.idle || source.behind)
    }
    /// Whether a source goes on for as long as its brokers do.
    pub(crate) fn is_live(&self) -> bool {
        self.open.iter().any(|source| matches!(source.feed, Feed::Kafka(_)) && !source.ended)
    }
    /// Whether what was taken waits for something outside, so that there is no tick.
    pub(crate) fn is_held_up(&self) -> bool {
        self.held.is_some()
    }
    /// Waits until something may have come, at most so long.
    pub(crate) fn wait(&self, at_most: Duration) {
        if self.is_live() && !self.is_held_up() { self.bell.wait(at_most) } else { std::thread::sleep(at_most) }
    }
    /// Asks again the sources that had nothing. With `arrived`, those behind which brokers stand are behind until they have what
    /// is there by now.
    pub(crate) fn ask_again(&mut self, arrived: bool) {
        for source in &mut self.open {
            source.idle = false;
            match &mut source.feed {
                Feed::Folder(folder) => folder.look_again(),
                Feed::Kafka(kafka) if arrived => kafka.wait_for_present(),
                _ => {}
            }
        }
    }
    /// What happened to brokers, topics and schema registries.
    pub(crate) fn take_news(&mut self) -> Vec<String> {
        let own = std::mem::take(&mut self.news);
        self.kafka().flat_map(KafkaSource::take_news).chain(own).collect()
    }
    /// Tells consumer groups that everything up to a tick is done with.
    pub(crate) fn done(&mut self, upto: Time) {
        self.kafka().for_each(|kafka| kafka.done(upto));
    }
    fn kafka(&mut self) -> impl Iterator<Item = &mut KafkaSource> {
        self.open.iter_mut().filter_map(|source| match &mut source.feed {
            Feed::Kafka(kafka) => Some(&mut **kafka),
            _ => None,
        })
    }
    /// Whether a consumer group is told how far its topics were read.
    pub(crate) fn tells_group(&self) -> bool {
        self.open.iter().any(|source| matches!(&source.feed, Feed::Kafka(kafka) if kafka.tells_group()))
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
    /// What is to go to topics of dead letters, by table, of what was read last.
    pub(crate) fn take_letters(&mut self) -> Vec<Outbox> {
        self.open.iter_mut().flat_map(|source| &mut source.readers).filter_map(Reader::take_letters).collect()
    }
    /// Whether every started source has ended.
    pub(crate) fn ended(&self) -> bool {
        !self.is_held_up() && self.open.iter().all(|source| source.ended)
    }
    /// Reads and decodes one tick's records: per input, its commands. What cannot be decoded yet is held, and nothing more is read
    /// until it can be: a tick has the records that it would have had.
    pub(crate) fn read(
        &mut self,
        options: &Options,
        clock: &mut Clock,
        timezone: chrono_tz::Tz,
        workers: usize,
    ) -> Result<Vec<(InputId, InputBatch)>> {
        // One instant for all that a tick takes in.
        let present = clock.now();
        let batches = match self.held.take() {
            Some(held) => held,
            None => self.take(options, clock, workers)?,
        };
        if let Some(reason) = self.unprepared() {
            self.hold_up(reason, batches);
            return Ok(Vec::new());
        }
        self.decode(batches, clock, (present, timezone))
    }
    /// Takes one tick's records; those of files that are merged are decoded at once.
    fn take(&mut self, options: &Options, clock: &mut Clock, workers: usize) -> Result<Vec<(InputId, InputBatch)>> {
        let mut batches = Vec::new();
        let (records_max, bytes_max) = (options.tick_records, TICK_BYTES * workers);
        let mut running = self.open.iter().filter(|source| !source.ended).count();
        let (has_log, next_clock) = (self.log.is_some(), self.log.as_ref().and_then(TicksToCome::next_clock));
        let mut recorded: Option<RecordedTick> = None;
        for source in self.open.iter_mut().filter(|source| !source.ended) {
            if let Feed::Ordered(files) = &mut source.feed {
                let state = read_ordered(files, &mut source.readers, records_max, clock, &mut self.progress, &mut batches)?;
                source.ended = state == ReadState::End;
                continue;
            }
            let records = &mut source.taken;
            let mut end = i64::MAX;
            if let Some(pace) = &mut self.pace {
                let (due, frame_end) = source.feed.due(pace, next_clock.map(|clock| clock / 1000), has_log);
                // Others go on meanwhile.
                if !due.is_zero() && (running > 1 || !pace.wait(due)) {
                    running -= 1;
                    continue;
                }
                end = frame_end;
            }
            let state = match &mut source.feed {
                Feed::Recording(replay) => match &mut self.log {
                    Some(log) => {
                        // All topics take the same tick.
                        recorded = recorded.or_else(|| log.next());
                        match &recorded {
                            Some(tick) => {
                                clock.saw_tick(tick.clock_us);
                                replay.read_tick(tick, records)?;
                                ReadState::More
                            }
                            None => ReadState::End,
                        }
                    }
                    None => replay.read_before(end, records_max, bytes_max, records)?,
                },
                Feed::Files(files) => files.read(records_max, bytes_max, records)?,
                Feed::Ordered(_) => ReadState::End,
                Feed::Kafka(kafka) => {
                    let known = kafka.topics().len();
                    let state = kafka.read(records_max, bytes_max, records)?;
                    if kafka.topics().len() > known {
                        source.readers.iter_mut().for_each(|reader| reader.meet(kafka.topics()));
                    }
                    state
                }
                Feed::Folder(folder) => {
                    let known = folder.topics().len();
                    let state = folder.read(records_max, bytes_max, records)?;
                    if folder.topics().len() > known {
                        let topics = TopicFilter::all(folder.topics());
                        source.readers.iter_mut().for_each(|reader| reader.topics = topics.clone());
                    }
                    state
                }
            };
            source.idle = state == ReadState::Idle;
            source.behind = state == ReadState::Behind;
            source.ended = state == ReadState::End;
        }
        Ok(batches)
    }
    /// Why what was taken cannot be decoded yet.
    fn unprepared(&mut self) -> Option<String> {
        let mut readers = self.open.iter_mut().filter(|source| !source.taken.is_empty()).flat_map(|source| {
            let Source { readers, taken, .. } = source;
            readers.iter_mut().map(|reader| reader.decoder.prepare(taken, &reader.topics))
        });
        let unprepared = readers.find_map(|prepared| match prepared {
            Prepared::Ready => None,
            Prepared::NotYet(reason) => Some(reason),
        });
        drop(readers);
        unprepared
    }
    /// Holds what was taken, and says so once.
    fn hold_up(&mut self, reason: String, batches: Vec<(InputId, InputBatch)>) {
        self.held = Some(batches);
        if !self.said_held && !self.stop.load(Ordering::Relaxed) {
            self.said_held = true;
            self.news.push(format!("warning: {reason}; what is read waits for it"));
        }
    }
    /// Decodes what was taken.
    fn decode(
        &mut self,
        mut batches: Vec<(InputId, InputBatch)>,
        clock: &mut Clock,
        (present, timezone): (i64, chrono_tz::Tz),
    ) -> Result<Vec<(InputId, InputBatch)>> {
        if std::mem::take(&mut self.said_held) {
            self.news.push("warning: the schema registry answers again; reading goes on".to_string());
        }
        for source in self.open.iter_mut() {
            let Source { feed, readers, taken, .. } = source;
            // Recorded ticks bring their clock with them.
            let has_clock = self.log.is_some() && matches!(feed, Feed::Recording(_));
            if let Some(latest) = taken.latest().filter(|_| !has_clock) {
                clock.saw_record(latest);
            }
            if let (Some(recording), Some((topics, _))) = (&mut self.recording, feed.recorded()) {
                recording.write(topics, taken)?;
            }
            self.progress.records += taken.len() as u64;
            let seen_at = if clock.is_of_records() { clock.now() } else { present };
            for reader in readers.iter_mut().filter(|_| !taken.is_empty()) {
                reader.decode(taken, (seen_at, timezone), &mut self.progress, &mut batches)?;
            }
            taken.clear();
        }
        Ok(batches)
    }
    /// Writes down what is read from topics from now on.
    pub(crate) fn record(&mut self, recording: Recording) {
        self.recording = Some(recording);
    }
    /// Follows the ticks of the recording that is replayed.
    pub(crate) fn follow(&mut self, log: Option<TicksToCome>) {
        self.log = log;
    }
    /// Whether the run that was recorded read no further before a statement made tick `next`.
    pub(crate) fn is_at_statement(&mut self, next: Time) -> bool {
        self.log.as_mut().is_some_and(|log| log.is_of_statement(next))
    }
    /// The clock at which a statement made tick `next` in the run that was recorded.
    pub(crate) fn statement_clock(&mut self, next: Time) -> Option<i64> {
        self.log.as_mut()?.take_statement(next)
    }
    /// Notes a tick that a statement made.
    pub(crate) fn note_statement(&mut self, tick: Time, clock_us: i64) -> Result<()> {
        Ok(self.recording.as_mut().map_or(Ok(()), |recording| recording.statement(tick, clock_us))?)
    }
    /// Notes a tick that took what was read last.
    pub(crate) fn note_tick(&mut self, tick: u64, clock_us: i64) -> Result<()> {
        self.kafka().for_each(|kafka| kafka.note_tick(tick));
        let Some(recording) = &mut self.recording else { return Ok(()) };
        let mut upto: BTreeMap<(String, u32), u64> = BTreeMap::new();
        for source in &self.open {
            let Some((topics, read)) = source.feed.recorded() else { continue };
            let partitions: Vec<PartitionProgress> = read.progress();
            recording.meet(topics, &partitions)?;
            for partition in partitions {
                let offset = upto.entry((topics[partition.topic as usize].clone(), partition.partition)).or_default();
                *offset = partition.next_offset.max(*offset);
            }
        }
        Ok(recording.tick(tick, clock_us, &upto)?)
    }
    /// Hands on what was written down.
    pub(crate) fn flush_recording(&mut self) -> Result<()> {
        Ok(self.recording.as_mut().map_or(Ok(()), Recording::flush)?)
    }
    /// Ends what was written down.
    pub(crate) fn finish_recording(&mut self) -> Result<()> {
        Ok(self.recording.take().map_or(Ok(()), Recording::finish)?)
    }
    /// Whether a source is open that reads this topic.
    fn reads_topic(&self, topic: &str) -> bool {
        self.open
            .iter()
            .any(|source| matches!(&source.feed, Feed::Kafka(kafka) if kafka.topics().iter().any(|t| t == topic)))
    }
    /// Whether a recording is replayed that does not say where its ticks ended.
    pub(crate) fn cuts_ticks_anew(&self) -> bool {
        self.log.is_none() && self.open.iter().any(|source| matches!(source.feed, Feed::Recording(_)))
    }
    /// Files that are read, which a recording does not hold.
    pub(crate) fn reads_files(&self) -> bool {
        self.open.iter().any(|source| matches!(source.feed, Feed::Files(_) | Feed::Ordered(_) | Feed::Folder(_)))
    }
    /// One line per table and partition.
    pub(crate) fn partitions(&self) -> Vec<PartitionLine> {
        let mut lines = Vec::new();
        for source in &self.open {
            let notes = match &source.feed {
                Feed::Kafka(kafka) => kafka.notes(),
                _ => Vec::new(),
            };
            for reader in &source.readers {
                for (place, progress) in source.feed.source(reader).progress().into_iter().enumerate() {
                    let Some(topic) = reader.topics.name(progress.topic) else { continue };
                    lines.push(PartitionLine {
                        table: reader.name.clone(),
                        source: topic.to_string(),
                        partition: progress.partition,
                        records: progress.records,
                        next_offset: progress.next_offset,
                        ended: progress.ended,
                        lag: progress.lag,
                        note: notes.get(place).cloned().unwrap_or_default(),
                    });
                }
            }
        }
        lines.sort();
        lines
    }
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
