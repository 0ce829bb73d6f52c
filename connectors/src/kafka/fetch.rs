//! The thread that fetches: it owns the client, puts what comes into the inboxes, and sees to what happens to topics and
//! brokers.
//!
//! Every partition has a queue of its own in the client. One whose inbox is full is not polled: then its queue fills up to
//! its limit and the client stops asking the broker for more.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Connection, EVENTS, Watch};
use super::scan::{Scan, Topics};
use super::shared::{Inbox, Shared, Standing};
use super::source::IN_FLIGHT;
use super::topics::{self, Span};
use crate::error::{Error, Result};
use crate::format::text::write_json_string;
use crate::record::{NO_TIMESTAMP, Record, Records};

/// How long the thread rests where nothing comes; what it looks after waits for that long.
const REST: Duration = Duration::from_millis(100);
/// Messages that are taken from a partition before the next one has its turn.
const TURN: usize = 512;
/// How often what became of brokers and lost topics is looked at.
const HEALTH: Duration = Duration::from_secs(1);
/// How often offsets are committed.
const COMMIT: Duration = Duration::from_secs(5);

/// A partition that is fetched.
pub(super) struct Reading {
    pub(super) topic: String,
    /// The topic's number.
    number: u32,
    pub(super) partition: i32,
    /// What came and is not in the inbox yet: it is gathered while the reader has the inboxes to itself.
    block: Records,
    /// Whether the broker has nothing behind it, and whether nothing will ever come.
    pub(super) at_end: bool,
    ended: bool,
    /// None once it has ended.
    pub(super) queue: Option<PartitionQueue<Watch>>,
    /// Whether the queue may hold something.
    pub(super) ready: Arc<AtomicBool>,
    /// The offset of the next record.
    pub(super) next: i64,
    /// The end up to which nothing came behind `next`: what lies between them are no records.
    pub(super) through: i64,
    /// The offset before which it ends, and whether the log was that long when reading began.
    pub(super) stop: Option<(i64, bool)>,
    /// The topic or the partition went away.
    pub(super) gone: bool,
    /// Whether the broker did not know the topic when it was asked last.
    pub(super) missing: bool,
    /// Its log is another one than what was read of it: it was once shorter, or its topic has another id.
    pub(super) another: bool,
}

impl Reading {
    /// Takes in a message, unless it was taken before or lies behind the end.
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        if message.offset() < self.next {
            return;
        }
        let inside = self.stop.is_none_or(|(stop, _)| message.offset() < stop);
        if inside {
            push(message, self.number, &mut self.block);
        }
        self.next = message.offset() + i64::from(inside);
        self.at_end = false;
        self.ended = self.stop.is_some_and(|(stop, _)| self.next >= stop);
    }
    /// Puts what came into the inbox.
    fn hand_over(&mut self, inbox: &mut Inbox) {
        inbox.arrived.append(&mut self.block);
        if self.at_end {
            self.through = self.through.max(inbox.at.target);
        }
        let high = inbox.at.high.max(self.next);
        inbox.at = Standing { next: self.next, high, at_end: self.at_end, ended: self.ended, ..inbox.at };
    }
}

pub(super) struct Fetcher {
    pub(super) connection: Connection,
    pub(super) scan: Scan,
    pub(super) wanted: Vec<Topics>,
    pub(super) watch: Watch,
    pub(super) shared: Arc<Shared>,
    // Queues go before the client that they belong to.
    pub(super) readings: Vec<Reading>,
    pub(super) consumer: Arc<BaseConsumer<Watch>>,
    /// Asks what is to be asked while the other fetches: a question there waits until the broker has answered a fetch. Topics that
    /// were made anew are heard of from the other alone, which is the one that reads them.
    pub(super) asks: BaseConsumer<Watch>,
    pub(super) away: bool,
    /// The topic whose turn it is to be looked at.
    pub(super) turn: usize,
    pub(super) committed: Vec<i64>,
    pub(super) looked: Instant,
    pub(super) committed_at: Instant,
    pub(super) discovered: Instant,
}

impl Fetcher {
    /// Reaches the brokers, finds the topics and where to begin, and begins.
    pub(super) fn open(
        connection: &Connection,
        scan: &Scan,
        wanted: Vec<Topics>,
        (shared, stop): (Arc<Shared>, &Arc<AtomicBool>),
    ) -> Result<Fetcher> {
        let asks = consumer(connection, &Watch::until(stop), 1)?;
        let found = topics::find(connection, &asks, &wanted)?;
        let partitions: Vec<(String, i32)> =
            found.iter().flat_map(|(topic, partitions)| partitions.iter().map(|p| (topic.clone(), *p))).collect();
        let spans = topics::spans(connection, &asks, scan, &partitions)?;
        // How many share the space is known now.
        let watch = Watch::until(stop);
        let consumer = Arc::new(consumer(connection, &watch, partitions.len())?);
        watch.answered();
        shared.lock().topics = found.keys().cloned().collect();
        let now = Instant::now();
        let mut fetcher = Fetcher {
            connection: connection.clone(),
            scan: scan.clone(),
            wanted,
            watch,
            shared,
            readings: Vec::new(),
            consumer,
            asks,
            away: false,
            turn: 0,
            committed: Vec::new(),
            looked: now,
            committed_at: now,
            discovered: now,
        };
        for ((topic, partition), span) in partitions.into_iter().zip(spans) {
            fetcher.add(topic, partition, span, String::new())?;
        }
        Ok(fetcher)
    }
    /// Begins to read a partition.
    pub(super) fn add(&mut self, topic: String, partition: i32, span: Span, note: String) -> Result<()> {
        let Span { start, stop, high } = span;
        let ended = stop.is_some_and(|(stop, _)| start >= stop);
        let number = self.number_of(&topic);
        let reading = Reading {
            topic,
            number,
            partition,
            block: Records::new(),
            at_end: false,
            ended,
            queue: None,
            ready: Arc::new(AtomicBool::new(true)),
            next: start,
            through: start,
            stop,
            gone: false,
            missing: false,
            another: false,
        };
        self.readings.push(reading);
        if !ended {
            self.assign(self.readings.len() - 1)?;
        }
        let target = stop.map_or(high, |(stop, _)| stop);
        let at = Standing { next: start, target, high, at_end: false, ended };
        self.shared.lock().inboxes.push(Inbox { topic: number, partition, arrived: Records::new(), at, note });
        Ok(())
    }
    /// The number of a topic, which may be new.
    fn number_of(&self, topic: &str) -> u32 {
        let mut state = self.shared.lock();
        let known = state.topics.iter().position(|name| name == topic);
        let number = known.unwrap_or_else(|| {
            state.topics.push(topic.to_owned());
            state.topics.len() - 1
        });
        u32::try_from(number).unwrap_or(u32::MAX)
    }
    /// Makes the client fetch a partition from its next offset on, into a queue of its own.
    pub(super) fn assign(&mut self, index: usize) -> Result<()> {
        let reading = &mut self.readings[index];
        let (topic, partition) = (reading.topic.as_str(), reading.partition);
        let failed = |error: KafkaError| broken(&format!("read topic \"{topic}\" partition {partition}"), &error);
        // Before it is fetched: what came before would be in the common queue.
        let mut queue = self.consumer.split_partition_queue(topic, partition);
        if let Some(queue) = &mut queue {
            let (ready, shared) = (Arc::clone(&reading.ready), Arc::clone(&self.shared));
            queue.set_nonempty_callback(move || {
                ready.store(true, Ordering::Release);
                shared.fetch.ring();
            });
        }
        reading.queue = queue;
        reading.ready.store(true, Ordering::Release);
        let list = one(topic, partition, Offset::Offset(reading.next)).map_err(failed)?;
        self.consumer.incremental_assign(&list).map_err(failed)
    }
    pub(super) fn unassign(&mut self, index: usize) {
        let reading = &mut self.readings[index];
        if reading.queue.take().is_some() {
            // Where it fails, the client does not have the partition any more.
            let list = one(&reading.topic, reading.partition, Offset::Invalid);
            let _ = list.and_then(|list| self.consumer.incremental_unassign(&list));
        }
    }

    /// Fetches until it is told to stop.
    pub(super) fn run(mut self) {
        while !self.shared.lock().stop {
            match self.round() {
                Ok(true) => {}
                Ok(false) => self.shared.fetch.wait(REST),
                Err(failure) => {
                    self.shared.lock().failure = Some(failure);
                    self.shared.arrived.ring();
                    return;
                }
            }
        }
        self.commit();
    }
    /// Looks at everything once; returns whether something came.
    fn round(&mut self) -> Result<bool> {
        self.events()?;
        self.begin_anew()?;
        let mut moved = false;
        for index in 0..self.readings.len() {
            moved |= self.fetch(index)?;
        }
        if moved {
            self.shared.arrived.ring();
        }
        if self.looked.elapsed() >= HEALTH {
            self.looked = Instant::now();
            self.health();
        }
        if self.committed_at.elapsed() >= COMMIT {
            self.commit();
        }
        if self.shared.lock().retarget {
            self.retarget();
        }
        if let Some(interval) = self.scan.discovery.filter(|_| !self.scan.is_bounded())
            && self.discovered.elapsed() >= interval
        {
            self.discovered = Instant::now();
            self.discover()?;
        }
        Ok(moved)
    }
    /// What the client has to say beside records.
    fn events(&mut self) -> Result<()> {
        let consumer = Arc::clone(&self.consumer);
        for _ in 0..EVENTS {
            match consumer.poll(Duration::ZERO) {
                Some(Err(error)) => self.refused(&error)?,
                Some(Ok(message)) => self.stray(&message),
                None => {}
            }
        }
        match self.watch.login_refused() {
            Some(reason) => Err(self.connection.refused(reason)),
            None => Ok(()),
        }
    }
    /// A message that was not in its partition's queue came before those that are.
    fn stray(&mut self, message: &BorrowedMessage<'_>) {
        let of = |reading: &Reading| reading.partition == message.partition() && reading.topic == message.topic();
        if let Some(index) = self.readings.iter().position(of) {
            self.readings[index].take(message);
            self.readings[index].hand_over(&mut self.shared.lock().inboxes[index]);
        }
    }
    /// Moves what came of a partition into its inbox; returns whether something did.
    fn fetch(&mut self, index: usize) -> Result<bool> {
        let room = IN_FLIGHT / self.readings.len();
        let reading = &mut self.readings[index];
        let Some(queue) = reading.queue.take() else { return Ok(false) };
        let waits = self.shared.lock().inboxes[index].arrived.bytes();
        if waits > room || !reading.ready.swap(false, Ordering::AcqRel) {
            reading.queue = Some(queue);
            return Ok(false);
        }
        let (mut came, mut trouble) = (0, None);
        while came < TURN && waits + reading.block.bytes() <= room && !reading.ended {
            match queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => reading.take(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    reading.at_end = true;
                    // Offsets may be left out: of transactions, and of what was compacted.
                    reading.ended = reading.stop.is_some_and(|(_, known)| known);
                }
                Some(Err(error)) => {
                    trouble = Some(error);
                    break;
                }
            }
            came += 1;
        }
        let ended = reading.ended;
        reading.hand_over(&mut self.shared.lock().inboxes[index]);
        reading.queue = Some(queue);
        if came > 0 || trouble.is_some() {
            reading.ready.store(true, Ordering::Release);
        }
        if ended {
            self.unassign(index);
        }
        if came > 0 && self.away {
            // Said before they may go again.
            self.watch.answered();
            self.look_at_brokers();
        }
        match trouble {
            Some(error) => self.lost(index, &error).map(|()| true),
            None => Ok(came > 0),
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the thread that reads from it failed, which is a defect".to_owned();
            self.shared.lock().failure = Some(Error::Client { reason });
            self.shared.arrived.ring();
        }
    }
}

/// A consumer whose partitions share the space of a source.
fn consumer(connection: &Connection, watch: &Watch, partitions: usize) -> Result<BaseConsumer<Watch>> {
    let mut config = connection.consumer_config();
    let share = (IN_FLIGHT / 1024 / partitions.max(1)).max(64);
    for (name, value) in [
        // Said to us instead of guessed: what is not there any more is told apart from what is new.
        ("auto.offset.reset", "error".to_owned()),
        ("queued.max.messages.kbytes", share.to_string()),
        // A full queue is looked at again soon. Until then the client asks for the other partitions alone, and where those have
        // nothing, the broker keeps it waiting that long (measured: half of the throughput of a backlog).
        ("fetch.queue.backoff.ms", "10".to_owned()),
        ("fetch.wait.max.ms", "50".to_owned()),
        ("statistics.interval.ms", "1000".to_owned()),
    ] {
        if connection.get(name).is_none() || name == "auto.offset.reset" {
            config.set(name, value);
        }
    }
    config.create_with_context(watch.clone()).map_err(|error| connection.no_client(&error))
}
fn one(topic: &str, partition: i32, offset: Offset) -> std::result::Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, offset)?;
    Ok(list)
}
pub(super) fn broken(action: &str, error: &KafkaError) -> Error {
    Error::Kafka { action: action.to_owned(), reason: error.to_string() }
}

/// Adds a message to records. A header's value that is no text is `{"base64":".."}`.
///
/// The client's library panics at a header whose name is not UTF-8: such a record is broken, and no reason to end a job.
fn push(message: &BorrowedMessage<'_>, topic: u32, into: &mut Records) {
    let headers = std::panic::catch_unwind(AssertUnwindSafe(|| headers(message)));
    let broken = headers.is_err().then_some("the name of a header is not UTF-8");
    let headers = headers.unwrap_or_default();
    into.push(Record {
        topic,
        partition: u32::try_from(message.partition()).unwrap_or_default(),
        offset: u64::try_from(message.offset()).unwrap_or_default(),
        timestamp: message.timestamp().to_millis().unwrap_or(NO_TIMESTAMP),
        key: message.key(),
        value: message.payload(),
        headers: headers.as_deref(),
        broken,
    });
}
/// A message's headers as a JSON object.
fn headers(message: &BorrowedMessage<'_>) -> Option<String> {
    message.headers().map(|headers| {
        let mut text = vec![b'{'];
        for header in headers.iter() {
            if text.len() > 1 {
                text.push(b',');
            }
            write_json_string(header.key, &mut text);
            text.push(b':');
            match header.value {
                Some(value) => match std::str::from_utf8(value) {
                    Ok(value) => write_json_string(value, &mut text),
                    Err(_) => text.extend_from_slice(format!("{{\"base64\":\"{}\"}}", STANDARD.encode(value)).as_bytes()),
                },
                None => text.extend_from_slice(b"null"),
            }
        }
        text.push(b'}');
        String::from_utf8_lossy(&text).into_owned()
    })
}
