//! Dead letters beside `<table>$errors`: the topics that they go to, and what became of those that are kept.
//!
//! A letter is written once its tick is complete. Tables that name one topic at the same brokers write it together. While
//! a recording is replayed the topic is a file of changelog lines of `<table>$errors`, `<out>/<topic>.jsonl`, as it is for a sink.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;

use deltaworks_connectors::decode::DeadLetter;
use deltaworks_connectors::kafka::letters::errors_topic;
use deltaworks_connectors::kafka::sink::is_kafka;
use deltaworks_connectors::kafka::{Connection, KafkaLetters, Topics};
use deltaworks_connectors::options::Options as ConnectorOptions;
use deltaworks_connectors::sink::{ChangeSink, SinkFormat, SinkSpec, SinkTarget};
use deltaworks_dataflow::Time;
use deltaworks_dataflow::changelog::{Changes, RowKind};

use crate::catalog::Entry;
use crate::error::EngineError;
use crate::query::short;
use crate::script::Engine;

type Result<T> = std::result::Result<T, EngineError>;

/// Letters of one table, and when they were seen, in microseconds.
pub(crate) struct Outbox {
    pub(crate) table: String,
    pub(crate) letters: Vec<(i64, DeadLetter)>,
}

/// The topics that are open.
#[derive(Default)]
pub(crate) struct LetterTopics {
    open: Vec<LetterTopic>,
}

/// A topic that takes dead letters.
struct LetterTopic {
    topic: String,
    /// How its brokers are reached; None for a file.
    connection: Option<Connection>,
    tables: BTreeSet<String>,
    writer: Writer,
    /// What waits for its tick to be complete.
    waiting: VecDeque<(Time, Outbox)>,
    /// How many letters were written, by table.
    written: BTreeMap<String, u64>,
}
enum Writer {
    Topic(KafkaLetters),
    File(Box<dyn ChangeSink>, String),
}

impl Writer {
    fn write(&mut self, tick: Time, outbox: &Outbox) -> Result<()> {
        let Outbox { table, letters } = outbox;
        match self {
            Writer::Topic(topic) => letters.iter().try_for_each(|(_, letter)| topic.send(short(table), letter))?,
            Writer::File(file, _) => {
                let entries = letters.iter().map(|(seen_at, letter)| (RowKind::Insert, letter.to_row(*seen_at))).collect();
                file.write(&Changes { tick, entries, conflicts: Vec::new() })?;
            }
        }
        Ok(())
    }
    fn flush(&mut self) -> Result<()> {
        match self {
            Writer::Topic(topic) => Ok(topic.flush()?),
            Writer::File(file, _) => Ok(file.flush()?),
        }
    }
    fn finish(&mut self) -> Result<()> {
        match self {
            Writer::Topic(topic) => Ok(topic.finish()?),
            Writer::File(file, _) => Ok(file.finish()?),
        }
    }
    /// Where it writes, in words.
    fn place(&self, topic: &str) -> String {
        match self {
            Writer::Topic(_) => format!("topic \"{topic}\""),
            Writer::File(_, path) => format!("\"{path}\""),
        }
    }
}

impl LetterTopics {
    /// Keeps letters until their tick is complete.
    pub(crate) fn wait(&mut self, tick: Time, outbox: Outbox) {
        if let Some(open) = self.open.iter_mut().find(|open| open.tables.contains(&outbox.table)) {
            open.waiting.push_back((tick, outbox));
        }
    }
    /// Writes the letters of all ticks up to `complete`.
    pub(crate) fn write(&mut self, complete: Time) -> Result<()> {
        for open in &mut self.open {
            while let Some((tick, outbox)) = open.waiting.pop_front_if(|(tick, _)| *tick <= complete) {
                open.writer.write(tick, &outbox)?;
                *open.written.entry(outbox.table).or_default() += outbox.letters.len() as u64;
            }
        }
        Ok(())
    }
    /// Hands on what was written.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.open.iter_mut().try_for_each(|open| open.writer.flush())
    }
    /// Returns once everything that was written is where its readers find it.
    pub(crate) fn deliver(&mut self) -> Result<()> {
        self.open.iter_mut().try_for_each(|open| open.writer.finish())
    }
    /// Hands on everything; nothing comes after it. Returns a line per table that wrote something.
    pub(crate) fn finish(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for open in &mut self.open {
            open.writer.finish()?;
            let place = open.writer.place(&open.topic);
            for (table, count) in &open.written {
                lines.push(format!("note: {} of {} written to {place}", dead_letters(*count), short(table)));
            }
        }
        Ok(lines)
    }
    /// A table goes, and with the last one of a topic the topic.
    pub(crate) fn forget(&mut self, table: &str) -> Result<()> {
        for mut open in self.open.extract_if(.., |open| open.tables.remove(table) && open.tables.is_empty()) {
            open.writer.finish()?;
        }
        Ok(())
    }
}

impl Engine {
    /// Opens the topics for the dead letters of tables whose sources have started.
    pub(crate) fn open_letters(&mut self, tables: &[String]) -> Result<()> {
        for name in tables {
            let Some(entry) = self.catalog.get(name) else { continue };
            let Some(options) = entry.table().and_then(|table| table.connector.clone()) else { continue };
            let (line, column) = entry.position;
            let Some(topic) = errors_topic(&options)?.map(str::to_string) else { continue };
            self.open_letters_of(name, &options, topic).map_err(|error| error.in_column(line, column))?;
        }
        Ok(())
    }
    fn open_letters_of(&mut self, name: &str, options: &ConnectorOptions, topic: String) -> Result<()> {
        self.check_no_circle(name, options, &topic)?;
        let replayed = self.options.replay.is_some();
        let connection = if replayed { None } else { Some(Connection::from_options(options)?) };
        let same = |open: &&mut LetterTopic| open.topic == topic && open.connection == connection;
        if let Some(open) = self.letters.open.iter_mut().find(same) {
            open.tables.insert(name.to_string());
            return Ok(());
        }
        let writer = match &connection {
            Some(connection) => Writer::Topic(KafkaLetters::open(connection, &topic, self.caller())?),
            None => {
                self.check_no_sink(&topic)?;
                let path = self.options.out.join(format!("{topic}.jsonl"));
                let shown = path.display().to_string();
                let spec = SinkSpec::new(SinkTarget::File(path), SinkFormat::ChangelogJson, &DeadLetter::schema(), &[])?;
                Writer::File(spec.open()?, shown)
            }
        };
        let (tables, waiting, written) = (BTreeSet::from([name.to_string()]), VecDeque::new(), BTreeMap::new());
        self.letters.open.push(LetterTopic { topic, connection, tables, writer, waiting, written });
        Ok(())
    }
    /// In a replay every topic that is written is a file of its own.
    fn check_no_sink(&self, topic: &str) -> Result<()> {
        let writes = |name: &&String| {
            let table = self.catalog.get(name).and_then(Entry::table).and_then(|table| table.connector.as_ref());
            table.is_some_and(|connector| is_kafka(connector) && connector.get("topic") == Some(topic))
        };
        match self.catalog.inserts.iter().map(|insert| &insert.target).find(writes) {
            None => Ok(()),
            Some(sink) => Err(EngineError::new(
                format!("topic \"{topic}\" is written by table \"{}\" and by dead letters", short(sink)),
                "name another 'errors.topic': in a replay each would begin the topic's file anew",
            )),
        }
    }
    /// A letter that no table can take must not go round: the topic of a table's letters may be read by another, whose letters go
    /// on to a third, but not back.
    fn check_no_circle(&self, name: &str, options: &ConnectorOptions, topic: &str) -> Result<()> {
        let brokers = options.get("properties.bootstrap.servers");
        let tables =
            || self.catalog.entries.iter().filter_map(|(name, entry)| Some((name, entry.table()?.connector.as_ref()?)));
        let mut met = BTreeSet::new();
        let mut open = vec![topic.to_string()];
        while let Some(topic) = open.pop() {
            for (reader, options) in tables() {
                let same = options.get("properties.bootstrap.servers") == brokers && self.sources.is_started(reader);
                if !same || !Topics::from_options(options).is_ok_and(|topics| topics.matches(&topic)) {
                    continue;
                }
                if reader == name {
                    return Err(EngineError::new(
                        format!("dead letters of \"{}\" would come back to it by topic \"{topic}\"", short(name)),
                        "give one of the tables on the way another 'errors.topic', or none",
                    ));
                }
                if let Ok(Some(next)) = errors_topic(options)
                    && met.insert(next.to_string())
                {
                    open.push(next.to_string());
                }
            }
        }
        Ok(())
    }
    /// Notes what was rejected of the records that a tick took.
    pub(crate) fn note_letters(&mut self, tick: Time) {
        for outbox in self.sources.take_letters() {
            self.letters.wait(tick, outbox);
        }
    }
    /// Says, once per table and again at the end of the run, that letters had to make room.
    pub(crate) fn report_crowded_out(&mut self, at_end: bool) {
        let mut lines = Vec::new();
        for (name, entry) in &self.catalog.entries {
            let crowded_out = entry.table().map_or(0, |table| table.letters.counts.crowded_out.load(Ordering::Relaxed));
            if crowded_out > 0 && (at_end || self.crowded.insert(name.clone())) {
                let table = short(name);
                lines.push(format!(
                    "warning: {} of {table} left {table}$errors to make room: 'errors.retention.bytes' allows no more",
                    dead_letters(crowded_out)
                ));
            }
        }
        lines.iter().for_each(|line| self.say(line));
    }
    /// Says at the end of the run what else became of letters.
    pub(crate) fn report_letters(&mut self) {
        self.report_crowded_out(true);
        let mut lines = Vec::new();
        for (name, entry) in &self.catalog.entries {
            let Some(counts) = entry.table().map(|table| &table.letters.counts) else { continue };
            let (table, rejected) = (short(name), counts.rejected.load(Ordering::Relaxed));
            if rejected > 0 {
                let (rows, are) = if rejected == 1 { ("row", "is") } else { ("rows", "are") };
                lines.push(format!("warning: {rejected} {rows} of {table} could not be folded and {are} in {table}$errors"));
            }
            let aged = counts.aged.load(Ordering::Relaxed);
            if aged > 0 {
                lines.push(format!("note: {} of {table} left {table}$errors for their age", dead_letters(aged)));
            }
        }
        lines.iter().for_each(|line| self.say(line));
    }
}
fn dead_letters(count: u64) -> String {
    format!("{count} dead {}", if count == 1 { "letter" } else { "letters" })
}
