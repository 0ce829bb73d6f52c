//! How brokers are reached: from `properties.*` to a client's settings, and what a client says about its brokers.
//!
//! Properties go to librdkafka under their own names. Where the names of the Java client differ, those work too
//! (`sasl.jaas.config`, PEM trust stores, `max.request.size`). What librdkafka does not know is an error: a misspelt
//! property must not be passed over.
//!
//! A client hides from its caller that a broker is away and tries on for ever. At the start that is wrong: [`connect`] fails
//! within seconds, with the reason. While a job runs it is right, and [`Watch`] tells what is going on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::statistics::Statistics;
use rdkafka::util::Timeout;

use crate::error::{Error, Result};
use crate::options::{Options, masked};

/// How long brokers may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long they may be away at the start, e.g. because they are just starting themselves.
const AWAY: Duration = Duration::from_secs(3);
/// How often a client is polled for what it has to say. One event may hide behind another: a poll that gives nothing is no
/// end.
pub(super) const EVENTS: usize = 32;
/// What stands before a client's settings among the options.
const PROPERTIES: &str = "properties.";
/// Names of the Java client that librdkafka has under another name.
const RENAMED: &[(&str, &str)] = &[
    ("max.request.size", "message.max.bytes"),
    ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
    ("ssl.keystore.key", "ssl.key.pem"),
    ("ssl.truststore.certificates", "ssl.ca.pem"),
    ("ssl.truststore.location", "ssl.ca.location"),
];
/// What is ours to say, and how it is.
const OURS: &[(&str, &str)] =
    &[("enable.auto.commit", "false"), ("enable.auto.offset.store", "false"), ("enable.partition.eof", "true")];

/// Where the brokers are and how they are spoken to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// By librdkafka's names.
    properties: BTreeMap<String, String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.properties.iter().map(|(name, value)| (name, masked(name, value)));
        f.debug_map().entries(shown).finish()
    }
}

impl Connection {
    /// The connection that a table's `properties.*` describe.
    ///
    /// # Errors
    /// No brokers; values that cannot be. Names that do not exist show when a client is made.
    pub fn from_options(options: &Options) -> Result<Connection> {
        options.require("properties.bootstrap.servers")?;
        let mut properties = BTreeMap::new();
        for (option, value) in options.iter() {
            let Some(name) = option.strip_prefix(PROPERTIES) else { continue };
            match name {
                "sasl.jaas.config" => {
                    let (user, password) = jaas(value).ok_or_else(|| {
                        options.invalid(
                            option,
                            value,
                            "PlainLoginModule or ScramLoginModule with username=\"..\" password=\"..\"",
                        )
                    })?;
                    properties.insert("sasl.username".to_owned(), user);
                    properties.insert("sasl.password".to_owned(), password);
                }
                "ssl.truststore.type" | "ssl.keystore.type" => {
                    if !["pem", "pkcs12"].contains(&value.to_ascii_lowercase().as_str()) {
                        return Err(options.invalid(option, value, "PEM (for trust stores) or PKCS12 (for key stores)"));
                    }
                }
                "ssl.endpoint.identification.algorithm" if value.is_empty() => {
                    properties.insert(name.to_owned(), "none".to_owned());
                }
                _ => {
                    if let Some((_, ours)) = OURS.iter().find(|(own, _)| *own == name) {
                        if value != *ours {
                            return Err(options.invalid(
                                option,
                                value,
                                &format!("{ours}, which it is without the option too"),
                            ));
                        }
                        continue;
                    }
                    let renamed = RENAMED.iter().find(|(java, _)| *java == name).map_or(name, |(_, own)| own);
                    properties.insert(renamed.to_owned(), value.to_owned());
                }
            }
        }
        Ok(Connection { properties })
    }
    /// The brokers, as the options name them.
    pub fn brokers(&self) -> &str {
        self.get("bootstrap.servers").unwrap_or_default()
    }
    /// The consumer group, if there is one.
    pub fn group(&self) -> Option<&str> {
        self.get("group.id").filter(|group| !group.is_empty())
    }
    /// A property, by librdkafka's name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }
    /// The settings of a client, without those that are of consumers or producers alone: the other kind would complain.
    fn config(&self, without: &[&str]) -> ClientConfig {
        let mut config = ClientConfig::new();
        // What the client learns about topics is told by its log alone: see [`Watch::made_anew`].
        config.set_log_level(RDKafkaLogLevel::Debug);
        // Certificates lie elsewhere in every system, and OpenSSL comes with us.
        config.set("ssl.ca.location", "probe");
        config.set("client.id", "deltaworks");
        for (name, value) in self.properties.iter().filter(|(name, _)| !without.contains(&name.as_str())) {
            config.set(name, value);
        }
        if self.properties.contains_key("ssl.ca.pem") {
            config.remove("ssl.ca.location");
        }
        let debug = self.get("debug").map_or("metadata".to_owned(), |more| format!("metadata,{more}"));
        config.set("debug", debug);
        config
    }
    /// The settings of a consumer; what is set on top is the caller's.
    pub fn consumer_config(&self) -> ClientConfig {
        let mut config = self.config(&["auto.offset.reset"]);
        for (name, value) in OURS {
            config.set(*name, *value);
        }
        // A group has to have a name, even if nothing is ever committed to it.
        config.set("group.id", self.group().unwrap_or("deltaworks"));
        config
    }
    /// The settings of a producer; what is set on top is the caller's.
    pub fn producer_config(&self) -> ClientConfig {
        self.config(&["auto.offset.reset", "group.id", "isolation.level"])
    }
    /// The error of brokers that do not answer.
    pub fn unreachable(&self, reason: impl Into<String>) -> Error {
        Error::Unreachable { brokers: self.brokers().to_owned(), reason: reason.into() }
    }
    /// The error of brokers that do not let us in.
    pub fn refused(&self, reason: impl Into<String>) -> Error {
        Error::LoginRefused { brokers: self.brokers().to_owned(), reason: reason.into() }
    }
    /// The error of a client that could not be made, with the property that is to blame.
    pub fn no_client(&self, error: &KafkaError) -> Error {
        match error {
            KafkaError::ClientConfig(_, reason, name, _) => {
                Error::Property { name: format!("{PROPERTIES}{name}"), reason: lowered(reason) }
            }
            KafkaError::ClientCreation(reason) => Error::Client { reason: lowered(reason) },
            other => Error::Client { reason: other.to_string() },
        }
    }
}

/// User and password of a Java login module.
fn jaas(config: &str) -> Option<(String, String)> {
    if !config.contains("PlainLoginModule") && !config.contains("ScramLoginModule") {
        return None;
    }
    let value = |name: &str| {
        let rest = config.split_once(&format!("{name}="))?.1;
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        Some(rest[1..].split_once(quote)?.0.to_owned())
    };
    Some((value("username")?, value("password")?))
}
/// An error of librdkafka's as a part of ours.
fn lowered(reason: &str) -> String {
    let mut chars = reason.trim_end_matches('.').chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
/// Without the broker, the client's state and how long it took: `a:1/bootstrap: Connect to .. failed: Connection refused
/// (after ..)`.
fn short_reason(reason: &str) -> String {
    let end = reason.find(" (after ").unwrap_or(reason.len());
    reason[..end].trim().to_owned()
}

/// What a client says about its brokers. Shared by the client and whoever wants to know.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}
#[derive(Debug, Default)]
struct State {
    /// Why the login was refused.
    refused: Option<String>,
    /// The last error of a connection.
    broken: Option<String>,
    /// Whether no broker is there, since all of them went.
    down: bool,
    /// Whether a broker answered once: what it then says of our login is a matter of the moment.
    known: bool,
    /// By topic and partition, the offset after the last record that there is.
    ends: BTreeMap<(String, i32), i64>,
    /// Topics of which another of the same name came.
    anew: BTreeSet<String>,
}

impl Watch {
    /// A watch for one client.
    pub fn new() -> Watch {
        Watch::default()
    }
    /// A watch for one client of a job that is to stop once `stop` is set.
    pub fn until(stop: &Arc<AtomicBool>) -> Watch {
        Watch { stop: Arc::clone(stop), ..Watch::default() }
    }
    /// Waits before something is tried again.
    ///
    /// # Errors
    /// The job is to stop.
    pub(super) fn pause(&self) -> Result<()> {
        std::thread::sleep(Duration::from_millis(100));
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }
    /// Why the login was refused, if it was.
    pub fn login_refused(&self) -> Option<String> {
        self.lock().refused.clone()
    }
    /// Why no broker can be reached; None while one can.
    pub fn unreachable(&self) -> Option<String> {
        let state = self.lock();
        state.down.then(|| state.broken.clone().unwrap_or_else(|| "all brokers are down".to_owned()))
    }
    /// The last error of a connection, whether it went well again or not.
    pub fn last_error(&self) -> Option<String> {
        self.lock().broken.clone()
    }
    /// Notes that a broker answers.
    pub fn answered(&self) {
        let mut state = self.lock();
        (state.down, state.known) = (false, true);
    }
    /// Topics that went and of which others of the same name came, since this was asked last. The client itself goes on in the
    /// middle of such a topic.
    pub fn made_anew(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.lock().anew)
    }
    /// The offset after the last record of a partition, as the client last heard.
    pub fn end_of(&self, topic: &str, partition: i32) -> Option<i64> {
        self.lock().ends.get(&(topic.to_owned(), partition)).copied()
    }
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Watch {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Everything else that matters comes as an error too.
        if facility == "METADATA"
            && let Some(topic) = another_of_its_name(message)
        {
            self.lock().anew.insert(topic.to_owned());
        }
    }
    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        let mut state = self.lock();
        match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed) if !is_cut(reason) => {
                state.refused = Some(short_reason(reason));
            }
            // A broker that goes leaves handshakes half done, too.
            Some(Code::SSL) if !state.known && !is_cut(reason) => state.refused = Some(short_reason(reason)),
            Some(Code::AllBrokersDown) => state.down = true,
            Some(
                Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::SSL
                | Code::BrokerTransportFailure
                | Code::Resolve
                | Code::OperationTimedOut,
            ) => {
                state.broken = Some(short_reason(reason));
            }
            // Of a partition: whoever reads it hears of it too.
            _ => {}
        }
    }
    fn stats(&self, statistics: Statistics) {
        let mut state = self.lock();
        // Brokers that are known by their number only come out of an answer.
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            state.down = false;
            state.broken = None;
        }
        for (topic, of) in statistics.topics {
            for (partition, at) in of.partitions.into_iter().filter(|(number, at)| *number >= 0 && at.hi_offset >= 0) {
                state.ends.insert((topic.clone(), partition), at.hi_offset);
            }
        }
    }
}
impl ConsumerContext for Watch {}

/// Whether a login came to nothing because the connection broke: the next try may do better.
fn is_cut(reason: &str) -> bool {
    ["Broker transport failure", "Disconnected", "Connection reset", "Timed out", "timed out"]
        .iter()
        .any(|cut| reason.contains(cut))
}
/// The topic of which a line of the client's log says that it is another one now: `[thrd:main]: Topic t changed id from X to Y`.
fn another_of_its_name(message: &str) -> Option<&str> {
    let (before, ids) = message.split_once(" changed id from ")?;
    let (_, topic) = before.split_once("Topic ")?;
    let (old, _) = ids.split_once(" to ")?;
    // Of a topic that was not known before the id is zero.
    (!old.trim_end_matches('=').bytes().all(|letter| letter == b'A')).then_some(topic)
}

/// Waits until a broker answers and returns what it says of a topic, or of all.
///
/// # Errors
/// No broker answers within seconds, or the login is refused; the job is to stop.
pub fn connect(connection: &Connection, consumer: &BaseConsumer<Watch>, topic: Option<&str>) -> Result<Metadata> {
    let (start, watch) = (Instant::now(), consumer.context());
    loop {
        let answer = consumer.fetch_metadata(topic, Timeout::After(Duration::from_millis(500)));
        // Events, the reason of a refusal among them, come to whoever polls; here nothing is assigned yet.
        for _ in 0..EVENTS {
            drop(consumer.poll(Duration::ZERO));
        }
        if let Some(reason) = watch.login_refused() {
            return Err(connection.refused(reason));
        }
        match answer {
            Ok(metadata) if !metadata.brokers().is_empty() => {
                watch.answered();
                return Ok(metadata);
            }
            _ => {}
        }
        let waited = start.elapsed();
        if waited >= PATIENCE {
            let reason = watch.last_error();
            return Err(
                connection.unreachable(reason.unwrap_or_else(|| format!("no answer within {} s", PATIENCE.as_secs())))
            );
        }
        if let Some(reason) = watch.unreachable().filter(|_| waited >= AWAY) {
            return Err(connection.unreachable(reason));
        }
        watch.pause()?;
    }
}

/// Asks until there is an answer: a topic that was just made has no leader for a moment.
///
/// # Errors
/// What the client says after some seconds, or at once where waiting does not help; the job is to stop.
pub(super) fn settled<T>(
    consumer: &BaseConsumer<Watch>,
    action: impl Fn() -> String,
    mut question: impl FnMut(Duration) -> std::result::Result<T, KafkaError>,
) -> Result<T> {
    use RDKafkaErrorCode as Code;
    let start = Instant::now();
    loop {
        let error = match question(PATIENCE) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let passes = matches!(
            error.rdkafka_error_code(),
            Some(
                Code::NotLeaderForPartition
                    | Code::LeaderNotAvailable
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownPartition
                    | Code::UnknownTopicId
                    | Code::BrokerNotAvailable
                    | Code::BrokerTransportFailure
                    | Code::OperationTimedOut
                    | Code::RequestTimedOut
                    | Code::CoordinatorLoadInProgress
                    | Code::CoordinatorNotAvailable
                    | Code::NotCoordinator
            )
        );
        if !passes || start.elapsed() >= PATIENCE {
            return Err(Error::Kafka { action: action(), reason: error.to_string() });
        }
        consumer.context().pause()?;
    }
}

#[cfg(test)]
mod tests;
