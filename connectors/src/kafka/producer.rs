//! A producer that waits where brokers are away, says so once, and fails where waiting would not help.
//!
//! The client delivers on threads of its own and tries again by itself, so a record is late, not lost, while no broker answers. What
//! it gives up on (too large, not allowed, the topic gone) ends the job: the first such record is kept with its reason.
//!
//! *State*: records under way, at most 64 MiB unless `properties.queue.buffering.max.kbytes` says otherwise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use rdkafka::util::Timeout;

use super::client::{Connection, Watch, connect};
use super::messages::Batch;
use super::sink::Caller;
use crate::error::{Error, Result};

/// How long a topic may take to appear that the broker makes when it is asked for.
const APPEARS: Duration = Duration::from_secs(3);
/// How long brokers may say nothing of it, and how long one question waits.
const SILENT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_secs(1);
/// How long nothing may move once the job is to stop.
const PARTING: Duration = Duration::from_secs(10);
/// How long nothing may move at the end of a job.
pub(crate) const LAST: Duration = Duration::from_secs(120);
/// Between two looks at whether something has moved.
const MOMENT: Duration = Duration::from_millis(5);
/// What a producer is set to, unless the table's properties say otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    // As Java's clients do: consumers of several topics rely on equal keys in partitions of equal number.
    ("partitioner", "murmur2_random"),
    ("queue.buffering.max.kbytes", "65536"),
    ("queue.buffering.max.messages", "500000"),
    ("statistics.interval.ms", "1000"),
];
/// Without a transaction a record waits for as long as it takes.
const FOR_EVER: (&str, &str) = ("message.timeout.ms", "0");
/// Other names of the same.
const TIMEOUTS: [&str; 2] = ["message.timeout.ms", "delivery.timeout.ms"];

/// What became of the records.
#[derive(Default)]
pub(crate) struct Deliveries {
    pub(crate) watch: Watch,
    state: Mutex<Outcome>,
}
#[derive(Default)]
struct Outcome {
    delivered: u64,
    failed: Option<Failure>,
}
/// A record that was given up.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: RDKafkaErrorCode,
    key: Option<Vec<u8>>,
    bytes: usize,
}

impl Failure {
    fn is_rather_to_blame_than(&self, other: &Failure) -> bool {
        use RDKafkaErrorCode as Code;
        self.code == other.code
            && match self.code {
                Code::MessageSizeTooLarge | Code::InvalidMessageSize => self.bytes > other.bytes,
                Code::PolicyViolation | Code::InvalidRecord => self.key.is_none() && other.key.is_some(),
                _ => false,
            }
    }
}
impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn delivered(&self) -> u64 {
        self.lock().delivered
    }
    /// The first record that was given up; it is not reported again.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.lock().failed.take()
    }
}
impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.watch.log(level, facility, message);
    }
    fn stats(&self, statistics: Statistics) {
        self.watch.stats(statistics);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        self.watch.error(error, reason);
    }
}
impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.lock().delivered += 1;
                self.watch.answered();
            }
            Err((error, record)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                let (key, bytes) = (record.key().map(<[u8]>::to_vec), record.payload().map_or(0, <[u8]>::len));
                let failure = Failure { code, key, bytes };
                let mut outcome = self.lock();
                // A batch is refused as a whole: of its records, the one that is to blame is told.
                if outcome.failed.as_ref().is_none_or(|other| failure.is_rather_to_blame_than(other)) {
                    outcome.failed = Some(failure);
                }
            }
        }
    }
}

/// Records on their way to one topic.
pub(crate) struct Outgoing {
    topic: Arc<str>,
    brokers: String,
    pub(crate) producer: ThreadedProducer<Deliveries>,
    caller: Caller,
    /// Whether it was said that no broker answers.
    told: bool,
}

impl Outgoing {
    /// A producer that delivers at least once, with `defaults` of its own where the table's properties say nothing.
    ///
    /// # Errors
    /// Within seconds: no broker, a refused login, no such topic.
    pub(crate) fn open(connection: &Connection, topic: &str, caller: Caller, defaults: &[(&str, &str)]) -> Result<Outgoing> {
        let consumer = consumer(connection, connection.consumer_config(), &caller)?;
        connect(connection, &consumer, Some(topic))?;
        let mut config = connection.producer_config();
        if TIMEOUTS.iter().all(|name| connection.get(name).is_none()) {
            config.set(FOR_EVER.0, FOR_EVER.1);
        }
        for (name, value) in defaults.iter().filter(|(name, _)| connection.get(name).is_none()) {
            config.set(*name, *value);
        }
        let outgoing = Outgoing::new(connection, config, topic, caller)?;
        outgoing.find_topic(connection)?;
        Ok(outgoing)
    }
    /// A producer of these settings. Whether brokers and topic are there is not looked at.
    pub(crate) fn new(connection: &Connection, mut config: ClientConfig, topic: &str, caller: Caller) -> Result<Outgoing> {
        for (name, value) in DEFAULTS.iter().filter(|(name, _)| config.get(name).is_none()).collect::<Vec<_>>() {
            config.set(*name, *value);
        }
        let made = config.create_with_context(Deliveries::default());
        let producer = made.map_err(|error| connection.no_client(&error))?;
        Ok(Outgoing { topic: topic.into(), brokers: connection.brokers().to_owned(), producer, caller, told: false })
    }
    /// Waits a little for the topic: asking for it makes it, where the broker allows that.
    pub(crate) fn find_topic(&self, connection: &Connection) -> Result<()> {
        let start = Instant::now();
        loop {
            let answer = self.producer.client().fetch_metadata(Some(&self.topic), Timeout::After(STEP));
            let found = answer.as_ref().ok().and_then(|metadata| metadata.topics().first());
            match found.map(|topic| (topic.error(), topic.partitions().len())) {
                Some((None, 1..)) => return Ok(()),
                Some((Some(error), _)) if error_code(error) == RDKafkaErrorCode::TopicAuthorizationFailed => {
                    return Err(self.failed(error_code(error), String::new()));
                }
                _ if self.caller.stops() => return Err(Error::Stopped),
                Some(_) if start.elapsed() >= APPEARS => return Err(self.unknown_topic(connection)),
                None if start.elapsed() >= SILENT => {
                    let error = answer.err().map_or("no answer".to_owned(), |error| error.to_string());
                    return Err(connection.unreachable(error));
                }
                _ => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }
    fn unknown_topic(&self, connection: &Connection) -> Error {
        let all = self.producer.client().fetch_metadata(None, Timeout::After(APPEARS));
        let names = |metadata: rdkafka::metadata::Metadata| {
            let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
            names.filter(|name| !name.starts_with("__")).take(10).collect()
        };
        let known = all.map(names).unwrap_or_default();
        Error::UnknownTopic { topic: self.topic.to_string(), brokers: connection.brokers().to_owned(), known }
    }
    /// Hands records to the client, waiting where it has enough.
    ///
    /// # Errors
    /// A record that the topic does not take, or an earlier one that was given up.
    pub(crate) fn send(&mut self, batch: &Batch) -> Result<()> {
        for (key, value) in batch.iter() {
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("");
            (record.key, record.payload) = (key, value);
            self.send_record(record)?;
        }
        self.check()
    }
    /// Hands one record, whatever topic it names, to the client, waiting where it has enough.
    ///
    /// # Errors
    /// The topic does not take it, or an earlier one was given up.
    pub(crate) fn send_record(&mut self, record: BaseRecord<'_, [u8], [u8]>) -> Result<()> {
        let topic = Arc::clone(&self.topic);
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord { topic: &topic, ..record };
        let mut patience: Option<Patience> = None;
        while let Err((error, again)) = self.producer.send(record) {
            let code = error.rdkafka_error_code();
            if code != Some(RDKafkaErrorCode::QueueFull) {
                let code = code.unwrap_or(RDKafkaErrorCode::Fail);
                let (key, bytes) = (again.key.map(<[u8]>::to_vec), again.payload.map_or(0, <[u8]>::len));
                return Err(self.given_up(&Failure { code, key, bytes }));
            }
            record = again;
            self.moment(patience.get_or_insert_with(Patience::new), None)?;
        }
        Ok(())
    }
    /// Says whether brokers are away, or back.
    ///
    /// # Errors
    /// A record that was given up.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.tell();
        match self.producer.context().take_failure() {
            Some(failure) => Err(self.given_up(&failure)),
            None => Ok(()),
        }
    }
    fn tell(&mut self) {
        let unreachable = self.producer.context().watch.unreachable();
        let (topic, brokers) = (&self.topic, &self.brokers);
        match unreachable {
            Some(reason) if !self.told => {
                self.told = true;
                let waits = format!("what is written to topic \"{topic}\" waits");
                (self.caller.say)(&format!("warning: Kafka at \"{brokers}\" does not answer: {reason}; {waits}"));
            }
            None if self.told => {
                self.told = false;
                (self.caller.say)(&format!(
                    "warning: Kafka at \"{brokers}\" answers again; topic \"{topic}\" is written on"
                ));
            }
            _ => {}
        }
    }
    /// Returns once every record is delivered.
    ///
    /// # Errors
    /// A record that was given up; nothing moves for `longest`.
    pub(crate) fn drain(&mut self, longest: Option<Duration>) -> Result<()> {
        let mut patience = Patience::new();
        while self.producer.flush(Timeout::After(Duration::from_millis(100))).is_err() {
            self.moment(&mut patience, longest)?;
        }
        self.check()
    }
    /// Lets a moment pass.
    ///
    /// # Errors
    /// A record that was given up, or nothing has moved for `longest`, or for seconds while the job is to stop.
    pub(crate) fn moment(&mut self, patience: &mut Patience, longest: Option<Duration>) -> Result<()> {
        self.check()?;
        std::thread::sleep(MOMENT);
        let still = patience.still(self.producer.context().delivered());
        if longest.is_none_or(|longest| still < longest) && (!self.caller.stops() || still < PARTING) {
            return Ok(());
        }
        let watch = &self.producer.context().watch;
        let reason = watch.unreachable().or_else(|| watch.last_error()).unwrap_or_else(|| "no answer".to_owned());
        let (records, were) = match self.producer.in_flight_count() {
            1 => ("1 record".to_owned(), "was"),
            many => (format!("{many} records"), "were"),
        };
        Err(Error::Delivery {
            topic: self.topic.to_string(),
            what: format!("{records} {were} not taken in time: {reason}"),
            help: "bring the brokers back and run the job again".to_owned(),
            timed_out: false,
        })
    }
    /// The error of a record that was given up.
    pub(crate) fn given_up(&self, failure: &Failure) -> Error {
        let key = failure.key.as_deref().map(String::from_utf8_lossy);
        let key = key.map_or("no key".to_owned(), |key| format!("key \"{}\"", shortened(&key)));
        self.failed(failure.code, format!(" (the record with {key}, {} bytes)", failure.bytes))
    }
    pub(crate) fn failed(&self, code: RDKafkaErrorCode, record: String) -> Error {
        let fatal = self.producer.client().fatal_error();
        let (code, reason) = fatal.unwrap_or_else(|| (code, code.to_string()));
        Error::Delivery {
            topic: self.topic.to_string(),
            what: format!("{reason}{record}"),
            help: remedy(code).to_owned(),
            timed_out: code == RDKafkaErrorCode::MessageTimedOut,
        }
    }
}

/// A consumer that asks and reads nothing.
pub(crate) fn consumer(connection: &Connection, config: ClientConfig, caller: &Caller) -> Result<BaseConsumer<Watch>> {
    config.create_with_context(Watch::until(&caller.stop)).map_err(|error| connection.no_client(&error))
}
fn error_code(error: rdkafka::types::RDKafkaRespErr) -> RDKafkaErrorCode {
    error.into()
}
/// What would be right.
fn remedy(code: RDKafkaErrorCode) -> &'static str {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            "allow larger records with 'properties.message.max.bytes' on the table and max.message.bytes on the topic"
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed => {
            "let the user write the topic, and its transactional id where the delivery is exactly-once"
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            "the topic went while it was written: make it again and run the job again"
        }
        Code::MessageTimedOut => {
            "brokers were away for longer than 'properties.message.timeout.ms': without it records wait as long as it takes"
        }
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => {
            "another writer has this transactional id: give every job its own 'sink.transactional-id-prefix', and run it once"
        }
        Code::PolicyViolation | Code::InvalidRecord => {
            "the topic's settings forbid such records, e.g. a compacted one those without a key"
        }
        _ => "the broker's own log may say more",
    }
}
fn shortened(key: &str) -> String {
    let mut chars = key.chars();
    let start: String = chars.by_ref().take(80).collect();
    if chars.next().is_some() { format!("{start}..") } else { start }
}

/// How long nothing has moved.
pub(crate) struct Patience {
    delivered: u64,
    since: Instant,
}
impl Patience {
    pub(crate) fn new() -> Patience {
        Patience { delivered: 0, since: Instant::now() }
    }
    fn still(&mut self, delivered: u64) -> Duration {
        if delivered != self.delivered {
            (self.delivered, self.since) = (delivered, Instant::now());
        }
        self.since.elapsed()
    }
}
