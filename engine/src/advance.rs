//! Getting ahead: pending definitions are installed, sources start and are read, ticks complete, sinks are flushed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use deltaworks_connectors::kafka::sink::is_kafka;
use deltaworks_connectors::kafka::{Caller, Connection, Form, KafkaSinkSpec};
use deltaworks_connectors::options::Options as ConnectorOptions;
use deltaworks_connectors::sink::{ChangeSink, SinkFormat, SinkSpec, SinkTarget};
use deltaworks_dataflow::host::{InputBatch, InputId};
use deltaworks_dataflow::{Schema, Time};
use deltaworks_sql::render::EXPIRED;

use crate::bench::Measuring;
use crate::catalog::{Catalog, Entry, Kind, Table, owner};
use crate::continuous::is_sink_by_key;
use crate::error::EngineError;
use crate::install;
use crate::merge::described;
use crate::options::Evaluation;
use crate::query::short;
use crate::script::Engine;
use crate::sinks::OpenSink;
use crate::ticks;

type Result<T> = std::result::Result<T, EngineError>;

/// How long the coordinator rests when no source has anything.
const IDLE: Duration = Duration::from_millis(50);
/// How long the clock may stand still while no source has anything.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// How long the changes of a stream that never rests may stay with us.
const HAND_ON: Duration = Duration::from_millis(100);
/// How often consumer groups are told what is done with.
const TELL_GROUP: Duration = Duration::from_secs(5);

/// How far unbounded sources are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// What is there now.
    Present,
    /// Everything that had arrived when reading began.
    Arrived,
    /// Until the run is stopped.
    End,
}

impl Engine {
    /// Installs what is pending of the names and of everything connected to them.
    pub(crate) fn ensure_installed(&mut self, names: BTreeSet<String>) -> Result<()> {
        let base = |name: &String| owner(name);
        let mut wanted: BTreeSet<String> = names.iter().map(base).collect();
        if !wanted.iter().any(|name| self.is_pending(name)) && !self.pending_insert_into(&wanted) {
            return Ok(());
        }
        // Grow the set until nothing pending reads it or is read by it.
        loop {
            let before = wanted.len();
            let pending: Vec<String> = self.catalog.entries.keys().filter(|n| self.is_pending(n)).cloned().collect();
            for name in pending {
                let upstream: BTreeSet<String> = self.catalog.upstream(&name).iter().map(base).collect();
                if wanted.contains(&name) {
                    wanted.extend(upstream);
                } else if upstream.iter().any(|read| wanted.contains(read)) {
                    wanted.insert(name);
                }
            }
            for insert in self.catalog.inserts.iter().filter(|insert| insert.dataflow.is_none()) {
                let mut reads = BTreeSet::new();
                Catalog::reads(&insert.plan, &mut reads);
                let reads: BTreeSet<String> = reads.iter().map(base).collect();
                if wanted.contains(&insert.target) || reads.iter().any(|read| wanted.contains(read)) {
                    wanted.insert(insert.target.clone());
                    wanted.extend(reads);
                }
            }
            if wanted.len() == before {
                break;
            }
        }
        self.install(wanted)
    }
    fn is_pending(&self, name: &str) -> bool {
        let Some(entry) = self.catalog.get(name) else { return false };
        let renderable = match &entry.kind {
            Kind::Table(_) => true,
            Kind::Dynamic(_) => self.options.evaluation != Evaluation::Batch,
            Kind::Inlined(..) | Kind::Errors(_) | Kind::History(_) => false,
        };
        renderable && entry.dataflow.is_none() && !self.sinks.contains_key(name)
    }
    fn pending_insert_into(&self, names: &BTreeSet<String>) -> bool {
        self.catalog.inserts.iter().any(|insert| insert.dataflow.is_none() && names.contains(&insert.target))
    }
    pub(crate) fn install(&mut self, wanted: BTreeSet<String>) -> Result<()> {
        let inserts: Vec<usize> = (0..self.catalog.inserts.len())
            .filter(|i| {
                let insert = &self.catalog.inserts[*i];
                insert.dataflow.is_none() && wanted.contains(&insert.target)
            })
            .collect();
        for index in &inserts {
            let target = self.catalog.inserts[*index].target.clone();
            self.open_sink(&target)?;
        }
        let names: BTreeSet<String> = wanted.into_iter().filter(|name| self.is_pending(name)).collect();
        let later = self.later();
        let interactive = self.options.interactive;
        let batch = self.options.evaluation == Evaluation::Batch;
        let streams: BTreeSet<String> =
            self.catalog.entries.iter().filter(|(_, entry)| entry.is_stream()).map(|(name, _)| name.clone()).collect();
        self.dataflows += 1;
        let clock_input = self.next_input;
        self.next_input += 1;
        let dataflow = format!("dataflow {}", self.dataflows);
        self.clocks.insert(dataflow.clone(), clock_input);
        let request = install::Request {
            names,
            inserts,
            // The batch evaluation of tests computes its views from rows, those of streams too. Any later query may call an
            // external function.
            read_later: &|name| {
                let read = interactive || later.contains(name) || name.ends_with("$results");
                batch || !streams.contains(name) && read
            },
            desk: self.calls.desk.clone(),
            sinks: &self.sinks,
            dataflow,
            clock_input,
            timezone: self.timezone,
        };
        install::install(&mut self.catalog, &self.host, &request)
    }
    /// The qualified names that statements still to come read, through inlined views.
    pub(crate) fn later(&self) -> BTreeSet<String> {
        let mut later = BTreeSet::new();
        let matches = |name: &&String| self.read_later.contains(object(name));
        let mut open: Vec<String> = self.catalog.entries.keys().filter(matches).cloned().collect();
        while let Some(name) = open.pop() {
            if !later.insert(name.clone()) {
                continue;
            }
            match self.catalog.get(&name).map(|entry| &entry.kind) {
                Some(Kind::Inlined(_, tables)) => open.extend(tables.iter().cloned()),
                Some(Kind::Dynamic(view)) if self.analyzed_later.contains(object(&name)) => {
                    let mut reads = BTreeSet::new();
                    Catalog::reads(&view.plan, &mut reads);
                    open.extend(reads);
                }
                _ => {}
            }
        }
        later
    }
    /// Opens the sink behind a connector table, once.
    pub(crate) fn open_sink(&mut self, name: &str) -> Result<()> {
        let Some(entry) = self.catalog.get(name) else { return Ok(()) };
        let Some((table, connector)) = entry.table().and_then(|table| Some((table, table.connector.as_ref()?))) else {
            return Ok(());
        };
        if self.sinks.contains_key(name) {
            return Ok(());
        }
        if self.sources.is_started(name) {
            return Err(EngineError::new(
                format!("table \"{}\" is both read and written", short(name)),
                "declare a second table on the same topic or file",
            ));
        }
        let at = |error: EngineError| error.in_column(entry.position.0, entry.position.1);
        self.check_one_writer(name, connector).map_err(at)?;
        let writer = self.writer(table, connector).map_err(at)?;
        let several = self.options.interactive || self.inserts_into(name) > 1;
        let several = several && is_sink_by_key(table)?;
        self.sinks.insert(name.to_string(), OpenSink::new(name, &table.key, several, writer));
        Ok(())
    }
    /// Two sinks of one transactional id would shut each other out.
    fn check_one_writer(&self, name: &str, connector: &ConnectorOptions) -> Result<()> {
        let id = |connector: &ConnectorOptions| {
            let prefix = connector.get("sink.transactional-id-prefix").filter(|_| is_kafka(connector))?;
            Some((
                connector.get("properties.bootstrap.servers")?.to_owned(),
                prefix.to_owned(),
                connector.get("topic")?.to_owned(),
            ))
        };
        let Some(own) = id(connector) else { return Ok(()) };
        let of = |other: &String| self.catalog.get(other)?.table()?.connector.as_ref().and_then(id);
        match self.sinks.keys().find(|other| of(other).as_ref() == Some(&own)) {
            None => Ok(()),
            Some(other) => Err(EngineError::new(
                format!(
                    "\"{}\" and \"{}\" write topic \"{}\" with one 'sink.transactional-id-prefix'",
                    short(other),
                    short(name),
                    own.2
                ),
                "insert into one of them alone, or give each a prefix of its own: a later writer shuts out an earlier one",
            )),
        }
    }
    /// How many INSERTs there are into a table, made or still to come.
    pub(crate) fn inserts_into(&self, name: &str) -> usize {
        let made = self.catalog.inserts.iter().filter(|insert| insert.target == name).count();
        made.max(self.inserts.iter().filter(|target| *target == object(name)).count())
    }
    /// A Kafka sink is a file of its changes while a recording is replayed.
    fn writer(&self, table: &Table, connector: &ConnectorOptions) -> Result<Box<dyn ChangeSink>> {
        if !is_kafka(connector) {
            return Ok(SinkSpec::from_options(connector, &table.schema, &table.key)?.open()?);
        }
        let spec = KafkaSinkSpec::from_options(connector, &table.schema, &table.key)?;
        if self.options.replay.is_some() {
            let format = if spec.form() == Form::Upsert { SinkFormat::UpsertJson } else { SinkFormat::ChangelogJson };
            let path = match connector.get("sink.replay.path") {
                Some(path) => PathBuf::from(path),
                None => self.options.out.join(format!("{}.jsonl", connector.require("topic")?)),
            };
            return Ok(SinkSpec::new(SinkTarget::File(path), format, &table.schema, &table.key)?.open()?);
        }
        Ok(spec.open(&Connection::from_options(connector)?, self.caller())?)
    }
    /// Whoever writes topics for us says what happens, and is told when the run is to stop.
    pub(crate) fn caller(&self) -> Caller {
        let messages = Arc::clone(&self.messages);
        let say = move |text: &str| messages.lock().unwrap_or_else(PoisonError::into_inner)(text);
        Caller { say: Arc::new(say), stop: Arc::clone(&self.stop) }
    }

    /// Makes the named tables and views reflect everything that bounded sources behind them hold, and of the others what
    /// is there now.
    pub(crate) fn catch_up(&mut self, names: &BTreeSet<String>) -> Result<()> {
        self.catch_up_until(names, Until::Present)
    }
    /// The same, and of unbounded sources everything that had arrived when this began.
    pub(crate) fn refresh_all(&mut self, names: &BTreeSet<String>) -> Result<()> {
        self.catch_up_until(names, Until::Arrived)
    }
    fn catch_up_until(&mut self, names: &BTreeSet<String>, until: Until) -> Result<()> {
        let closure = self.catalog.closure(names.iter().cloned());
        let sources: Vec<&str> = closure.iter().flat_map(|name| self.sources_of(name)).collect();
        let read = !sources.is_empty();
        if sources.iter().any(|name| !self.sources.is_started(name)) {
            self.install_all()?;
            self.start_sources()?;
        }
        self.ensure_installed(closure)?;
        if read {
            self.drain(until)?;
        }
        if until == Until::Arrived {
            self.ask_again(&names.iter().cloned().collect());
        }
        self.settle()?;
        self.await_calls()
    }
    /// Takes in what sources have by now, for continuous statements, between two statements of a person's.
    ///
    /// # Errors
    /// A source or sink that fails.
    pub fn go_on(&mut self) -> Result<()> {
        if !self.sources.is_live() || self.sinks.is_empty() {
            return Ok(());
        }
        self.drain(Until::Present)?;
        self.host.wait_complete(self.host.next_tick() - 1)?;
        self.hand_on()?;
        self.tell_groups()
    }
    /// What feeds a table from outside, by name: itself if it has a connector, and the pipes from folders.
    fn sources_of<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        let pipes = self.catalog.pipes.iter().filter(|(_, pipe)| pipe.folder.is_some() && pipe.target == name);
        let own = self.is_source(name).then_some(name);
        own.into_iter().chain(pipes.map(|(pipe, _)| pipe.as_str())).collect()
    }
    /// Whether a table reads from a connector: it has one and nothing is inserted into it.
    fn is_source(&self, name: &str) -> bool {
        let Some(table) = self.catalog.get(name).and_then(|entry| entry.table()) else { return false };
        table.connector.is_some()
            && !self.sinks.contains_key(name)
            && !self.catalog.inserts.iter().any(|insert| insert.target == name)
    }
    fn install_all(&mut self) -> Result<()> {
        let pending: BTreeSet<String> = self.catalog.entries.keys().filter(|n| self.is_pending(n)).cloned().collect();
        let targets = self.catalog.inserts.iter().filter(|insert| insert.dataflow.is_none());
        let all: BTreeSet<String> = targets.map(|insert| insert.target.clone()).chain(pending).collect();
        if all.is_empty() { Ok(()) } else { self.install(all) }
    }
    /// Starts the sources of all tables that something reads, together.
    fn start_sources(&mut self) -> Result<()> {
        let mut read = BTreeSet::new();
        for (name, entry) in &self.catalog.entries {
            if !matches!(entry.kind, Kind::Errors(_)) {
                read.extend(self.catalog.upstream(name));
            }
        }
        read.extend(self.later());
        let wanted: Vec<(String, &Entry)> = self
            .catalog
            .entries
            .iter()
            .filter(|(name, _)| self.is_source(name) && !self.sources.is_started(name))
            .filter(|(name, _)| read.contains(*name) || read.contains(&format!("{name}$errors")))
            .map(|(name, entry)| (name.clone(), entry))
            .collect();
        self.sources.start(&self.options, &wanted)?;
        let started: Vec<String> = wanted.into_iter().map(|(name, _)| name).collect();
        self.open_letters(&started)?;
        let anew = !started.is_empty() && self.sources.cuts_ticks_anew();
        let frozen = if anew { self.catalog.frozen() } else { BTreeSet::new() };
        if !frozen.is_empty() {
            let names: Vec<&str> = frozen.iter().map(|name| short(name)).collect();
            self.say(&format!(
                "note: the recording has no ticks: what {} froze may differ from the run that was recorded",
                names.join(", ")
            ));
        }
        if self.options.record.is_some() && self.sources.reads_files() {
            self.say("warning: files are not recorded: a replay reads them again, in ticks of its own");
        }
        for (name, pipe) in &self.catalog.pipes {
            let table = self.catalog.get(&pipe.target).and_then(|entry| entry.table());
            if let (Some(folder), Some(table), false) = (&pipe.folder, table, self.sources.is_started(name)) {
                self.sources.start_folder(&self.options, name, (&pipe.target, table), folder)?;
            }
        }
        Ok(())
    }
    /// Reads the started sources: the bounded ones to their end, the others as far as asked.
    fn drain(&mut self, until: Until) -> Result<()> {
        if self.measuring != Measuring::default() {
            return self.drain_measuring();
        }
        self.sources.ask_again(until == Until::Arrived);
        // What is there and not whole when this begins.
        let mut arrived: Option<Vec<PathBuf>> = None;
        let (mut ticked, mut handed_on, mut told) = (Instant::now(), Instant::now(), Instant::now());
        while !self.sources.ended() && !self.stopped() {
            if until != Until::End && self.sources.is_at_statement(self.host.next_tick()) {
                break;
            }
            let batches = self.sources.read(&self.options, &mut self.clock, self.timezone, self.host.workers())?;
            self.report_changed_files();
            self.report_news();
            self.report_crowded_out(false);
            if self.sources.is_held_up() {
                self.rest()?;
                continue;
            }
            let resting = self.sources.is_resting();
            if !resting || !batches.is_empty() || ticked.elapsed() >= IDLE_TICK {
                let tick = self.send_read(batches)?;
                ticked = Instant::now();
                if self.sources.is_paced() {
                    // The next tick may be long in coming: sinks do not wait for it.
                    self.host.wait_complete(tick)?;
                    self.hand_on()?;
                }
            }
            // Neither do they for the end of a stream.
            if self.sources.is_live() && handed_on.elapsed() >= HAND_ON {
                self.hand_on()?;
                handed_on = Instant::now();
            }
            if told.elapsed() >= TELL_GROUP {
                self.tell_groups()?;
                told = Instant::now();
            }
            if !resting {
                continue;
            }
            let waiting = self.sources.waiting();
            let arrived = arrived.get_or_insert_with(|| waiting.clone());
            let behind = self.sources.is_behind() || self.sources.will_end();
            let through = !waiting.iter().any(|file| arrived.contains(file)) && !behind;
            match until {
                Until::Present if !behind => break,
                Until::Arrived if through => break,
                _ => self.rest()?,
            }
        }
        Ok(())
    }
    /// Nothing is there for now: what is under way completes and the sinks hand it on, then a moment passes. What a source is
    /// behind with comes at any moment, and the workers go on meanwhile.
    fn rest(&mut self) -> Result<()> {
        if !self.sources.is_behind() {
            self.host.wait_complete(self.host.next_tick() - 1)?;
            self.hand_on()?;
        }
        self.take_answers(false)?;
        self.sources.wait(IDLE);
        Ok(())
    }
    /// Tells consumer groups up to where records are done with: their ticks are complete and the sinks have delivered them.
    fn tell_groups(&mut self) -> Result<()> {
        if !self.sources.tells_group() {
            return Ok(());
        }
        let complete = self.host.complete();
        self.sinks.values_mut().try_for_each(|sink| sink.write(complete).and_then(|()| sink.deliver()))?;
        self.letters.deliver()?;
        self.sources.done(complete);
        Ok(())
    }
    /// Makes everybody see what complete ticks have given the sinks.
    fn hand_on(&mut self) -> Result<()> {
        self.write_sinks()?;
        self.sources.flush_recording()?;
        self.letters.flush()?;
        self.sinks.values_mut().try_for_each(|sink| sink.hand_on(false))
    }
    fn report_changed_files(&mut self) {
        for (table, path) in self.sources.take_changed() {
            self.say(&format!(
                "warning: \"{}\" changed after it was loaded into {}; it is not loaded again",
                path.display(),
                short(&table)
            ));
        }
    }
    fn report_news(&mut self) {
        for news in self.sources.take_news() {
            self.say(&news);
        }
    }
    /// Starts a tick of a statement's with these batches.
    pub(crate) fn send_tick(&mut self, batches: Vec<(InputId, InputBatch)>) -> Result<Time> {
        self.instant()?;
        self.send_now(batches)
    }
    /// The present of a statement, in microseconds since 1970; in a replay with ticks, as it was then.
    pub(crate) fn instant(&mut self) -> Result<i64> {
        let next = self.host.next_tick();
        if let Some(recorded) = self.sources.statement_clock(next) {
            self.clock.saw_tick(recorded);
        }
        let now = self.clock.now();
        self.sources.note_statement(next, now)?;
        Ok(now)
    }
    /// Starts a tick with answers from outside, which come when they come.
    pub(crate) fn send_answers(&mut self, batches: Vec<(InputId, InputBatch)>) -> Result<Time> {
        self.clock.now();
        self.send_now(batches)
    }
    /// Starts a tick with what the sources have just given, at the instant at which they gave it, and notes it.
    fn send_read(&mut self, batches: Vec<(InputId, InputBatch)>) -> Result<Time> {
        let tick = self.send_now(batches)?;
        self.note_letters(tick);
        self.sources.note_tick(tick, self.clock.last())?;
        Ok(tick)
    }
    fn send_now(&mut self, batches: Vec<(InputId, InputBatch)>) -> Result<Time> {
        let now = self.clock.last();
        let clocks: Vec<(InputId, i64)> = self.clocks.values().map(|id| (*id, now)).collect();
        let tick = ticks::send(&mut self.host, batches, &clocks)?;
        self.write_sinks()?;
        Ok(tick)
    }
    /// Waits until everything that was sent is complete. A dataflow installed since the last tick gets one.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let tick = self.send_tick(Vec::new())?;
        self.complete(tick)
    }
    /// Waits until a tick is complete, and the sinks have what it changed.
    pub(crate) fn complete(&mut self, tick: Time) -> Result<()> {
        self.host.wait_complete(tick)?;
        self.write_sinks()?;
        if self.options.interactive {
            // The next statement may be long in coming.
            self.report_crowded_out(false);
            self.letters.flush()?;
            self.sinks.values_mut().try_for_each(|sink| sink.hand_on(true))?;
            self.tell_groups()?;
        }
        Ok(())
    }
    /// Writes what complete ticks have changed.
    pub(crate) fn write_sinks(&mut self) -> Result<()> {
        let complete = self.host.complete();
        self.letters.write(complete)?;
        self.sinks.values_mut().try_for_each(|sink| sink.write(complete))
    }
    /// Installs everything, reads all sources to their end and closes the sinks.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.install_all()?;
        self.start_sources()?;
        self.drain(Until::End)?;
        self.settle()?;
        self.sources.finish_recording()?;
        self.await_calls()?;
        let mut lines = Vec::new();
        for sink in self.sinks.values_mut() {
            sink.finish()?;
            let table = short(&sink.table);
            lines.push(format!("{} changes written to {table}", sink.entries));
            if let (count @ 1.., Some(key)) = (sink.left_out.count(), sink.left_out.first_key()) {
                let (rows, share, are) =
                    if count == 1 { ("row", "shares its", "is") } else { ("rows", "share their", "are") };
                let key = self.catalog.get(&sink.table).map_or(String::new(), |entry| key_text(entry, key));
                let of_key = format!("{share} key with another row and {are} left out");
                lines.push(format!("warning: {count} {rows} of {table} {of_key}: first of {key}"));
            }
        }
        lines.extend(self.letters.finish()?);
        self.sources.done(self.host.complete());
        lines.iter().for_each(|line| self.say(line));
        self.report_expired();
        self.report_letters();
        self.report_sources();
        Ok(())
    }
    /// Closes the sinks without waiting for the sources: what was computed is handed on.
    ///
    /// # Errors
    /// A sink that does not take it.
    pub fn close(&mut self) -> Result<()> {
        self.settle()?;
        self.sources.finish_recording()?;
        self.letters.finish()?;
        self.sinks.values_mut().try_for_each(OpenSink::finish)
    }
    /// Says which tables have turned away rows for their age.
    fn report_expired(&mut self) {
        let mut expired: BTreeMap<String, i64> = BTreeMap::new();
        for (name, report) in self.host.observe() {
            for (_, count, _) in report.into_iter().filter(|(what, count, _)| what == EXPIRED && *count > 0) {
                *expired.entry(name.strip_suffix(" table").unwrap_or(&name).to_string()).or_default() += count;
            }
        }
        for (table, count) in expired {
            let (rows, were) = if count == 1 { ("row", "was") } else { ("rows", "were") };
            let table = short(&table);
            self.say(&format!(
                "warning: {count} {rows} of {table} {were} older than its retention on arrival and did not enter"
            ));
        }
    }
    fn report_sources(&mut self) {
        let progress = self.sources.progress.clone();
        if progress.records > 0 {
            self.say(&format!("{} records read in {} ticks", progress.records, self.host.next_tick() - 1));
        }
        for (table, letters) in progress.dead.iter().filter(|(_, letters)| **letters > 0) {
            let table = short(table);
            let (records, are) = if *letters == 1 { ("record", "is") } else { ("records", "are") };
            self.say(&format!("warning: {letters} {records} of {table} could not be decoded and {are} in {table}$errors"));
        }
    }
}

/// The values of a table's key, by name.
pub(crate) fn key_text(entry: &Entry, key: &[u8]) -> String {
    let columns = entry.table().map(|table| table.key.iter().map(|place| table.schema.columns[*place].clone()).collect());
    described(&Schema::new(columns.unwrap_or_default()), key)
}
/// A qualified name without its schema.
fn object(qualified: &str) -> &str {
    qualified.split_once('.').map_or(qualified, |(_, object)| object)
}
