//! A real Kafka broker for tests, started by `tests/servers/kafka.sh`: one for the whole test binary, and others for faults.
//!
//! Where the script says that maven or java is missing, tests that need a broker say that they are skipped. With
//! `DELTAWORKS_REQUIRE_SERVERS=1`, as `.ci/run` sets it, they fail instead.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::value::RawValue;

use crate::program::repository;

/// How long anything may take that a broker is asked for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The exit code of the script where something is not installed.
const NOT_INSTALLED: i32 = 3;

/// A broker that runs.
pub(crate) struct Broker {
    folder: PathBuf,
    port: u16,
}

/// The broker that tests share; each takes topics of its own. None, and said so, where there can be none.
pub(crate) fn shared() -> Option<&'static Broker> {
    static BROKER: OnceLock<Option<Broker>> = OnceLock::new();
    let broker = BROKER.get_or_init(Broker::start).as_ref();
    if broker.is_none() {
        println!("skipped: a Kafka broker needs maven and java (apt-get install maven openjdk-17-jre-headless)");
    }
    broker
}

impl Broker {
    /// A broker of one's own, e.g. to kill it. None where there can be none.
    pub(crate) fn start() -> Option<Broker> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("broker-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let broker = Broker { folder, port: free_port() };
        let started = broker.run("start");
        if started == Some(NOT_INSTALLED) && std::env::var_os("DELTAWORKS_REQUIRE_SERVERS").is_none() {
            return None;
        }
        assert_eq!(started, Some(0), "the broker did not start");
        Some(broker)
    }
    fn run(&self, what: &str) -> Option<i32> {
        let mut command = Command::new(repository("tests/servers/kafka.sh"));
        command.arg(what).arg(&self.folder);
        if what == "start" {
            command.arg(self.port.to_string()).arg(std::process::id().to_string());
        }
        command.status().unwrap().code()
    }
    /// Kills it, as a crash would.
    pub(crate) fn kill(&self) {
        assert_eq!(self.run("kill"), Some(0));
    }
    /// Starts it again, on what it had.
    pub(crate) fn restart(&self) {
        assert_eq!(self.run("start"), Some(0));
    }
    /// Its address in plain text.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
    /// Its address with SASL, for user `deltaworks` with password `tide`.
    pub(crate) fn sasl_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 1)
    }
    /// Its address with TLS, for clients with a certificate.
    pub(crate) fn tls_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 3)
    }
    /// Its address with SASL over TLS.
    pub(crate) fn sasl_tls_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 4)
    }
    /// A file that the script keeps: `ca.pem`, `client.p12` with password `harbour`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config
    }
    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }
    /// Makes a topic.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }
    /// Makes a topic with settings of its own.
    pub(crate) fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let made = block_on(self.admin().create_topics(&[topic], &options())).unwrap();
        made.into_iter().for_each(|one| assert_eq!(one.unwrap(), name));
    }
    /// Deletes a topic.
    pub(crate) fn delete_topic(&self, name: &str) {
        let deleted = block_on(self.admin().delete_topics(&[name], &options())).unwrap();
        deleted.into_iter().for_each(|one| assert_eq!(one.unwrap(), name));
    }
    /// Takes the records of partition 0 away that lie before an offset.
    pub(crate) fn delete_before(&self, name: &str, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, 0, Offset::Offset(offset)).unwrap();
        block_on(self.admin().delete_records(&list, &options())).unwrap();
    }
    /// Commits an offset of partition 0 for a group.
    pub(crate) fn commit(&self, group: &str, topic: &str, offset: i64) {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }
    /// Gives a topic more partitions.
    pub(crate) fn grow_topic(&self, name: &str, partitions: usize) {
        let more = [NewPartitions::new(name, partitions)];
        let grown = block_on(self.admin().create_partitions(&more, &options())).unwrap();
        grown.into_iter().for_each(|one| assert_eq!(one.unwrap(), name));
    }
    /// An ordinary producer.
    pub(crate) fn producer(&self) -> Sender {
        let mut config = self.config();
        config.set("message.max.bytes", "8000000").set("queue.buffering.max.messages", "1000000");
        Sender(config.create().unwrap())
    }
    /// Makes the topics of a recording and produces their records, each topic's under the name that `rename` gives it.
    pub(crate) fn produce_recording(&self, folder: &Path, rename: impl Fn(&str) -> String) {
        let sender = self.producer();
        for topic in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let name = rename(&topic.file_name().to_string_lossy());
            let files: Vec<PathBuf> = std::fs::read_dir(topic.path()).unwrap().map(|file| file.unwrap().path()).collect();
            self.create_topic(&name, i32::try_from(files.len()).unwrap());
            for file in files {
                let partition = file.file_stem().unwrap().to_string_lossy().parse().unwrap();
                for line in std::fs::read_to_string(&file).unwrap().lines() {
                    sender.send_recorded(&name, partition, line);
                }
            }
        }
        sender.flush();
    }
    /// An ordinary member of a consumer group that reads a topic.
    pub(crate) fn member(&self, group: &str, topic: &str) -> BaseConsumer {
        let consumer: BaseConsumer =
            self.config().set("group.id", group).set("enable.auto.commit", "false").create().unwrap();
        consumer.subscribe(&[topic]).unwrap();
        consumer
    }
    /// A transaction of this id that is open and has written a record.
    pub(crate) fn transaction(&self, id: &str, topic: &str, value: &[u8]) -> Transaction {
        let producer: BaseProducer = self.config().set("transactional.id", id).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::<(), [u8]>::to(topic).payload(value)).unwrap();
        producer.flush(PATIENCE).unwrap();
        Transaction(producer)
    }
    /// The values that a topic holds, each a line, as Kafka's own console consumer prints them.
    pub(crate) fn console(&self, topic: &str) -> String {
        let jars = Command::new(repository("tests/servers/kafka.sh")).arg("jars").output().unwrap();
        let jars = String::from_utf8(jars.stdout).unwrap();
        let output = Command::new("java")
            .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", &format!("{}/*", jars.trim())])
            .args(["org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", &self.address()])
            .args(["--topic", topic, "--from-beginning", "--timeout-ms", "5000"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
    /// The values that a topic of one partition holds, each a line.
    pub(crate) fn lines(&self, topic: &str) -> String {
        let line = |message: &OwnedMessage| String::from_utf8(message.payload().unwrap().to_vec()).unwrap() + "\n";
        self.read(topic).iter().map(line).collect()
    }
    /// Everything that a topic holds and that is committed, by partition and offset.
    pub(crate) fn read(&self, topic: &str) -> Vec<OwnedMessage> {
        let mut config = self.config();
        config.set("group.id", "tests").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let mut messages = Vec::new();
        for partition in metadata.topics()[0].partitions() {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
            consumer.assign(&list).unwrap();
            loop {
                match consumer.poll(PATIENCE) {
                    Some(Ok(message)) => messages.push(message.detach()),
                    Some(Err(KafkaError::PartitionEOF(_))) => break,
                    other => panic!("{topic}: {other:?}"),
                }
            }
        }
        messages.sort_by_key(|message| (message.partition(), message.offset()));
        messages
    }
}
impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.run("kill");
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Sends records.
pub(crate) struct Sender(BaseProducer);
impl Sender {
    /// Sends a record; without a timestamp it has the present one.
    pub(crate) fn send(
        &self,
        topic: &str,
        partition: i32,
        timestamp: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        self.send_with_headers(topic, partition, timestamp, (key, value), &[]);
    }
    /// Sends a record, key and value, with headers.
    pub(crate) fn send_with_headers(
        &self,
        topic: &str,
        partition: i32,
        timestamp: Option<i64>,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
        record.timestamp = timestamp;
        record.key = key;
        record.payload = value;
        if !headers.is_empty() {
            let all = headers.iter().map(|(key, value)| Header { key, value: *value });
            record.headers = Some(all.fold(OwnedHeaders::new(), OwnedHeaders::insert));
        }
        while let Err((error, again)) = self.0.send(record) {
            assert_eq!(error.to_string(), "Message production error: QueueFull (Local: Queue full)");
            self.0.poll(Duration::from_millis(100));
            record = again;
        }
    }
    /// Sends a record as a recording has it.
    fn send_recorded(&self, topic: &str, partition: i32, line: &str) {
        // As it stands: read as numbers, decimals would be written differently.
        let record: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).unwrap();
        let bytes = |part: &str| match record[part].get() {
            "null" => None,
            text if text.starts_with('"') => Some(serde_json::from_str::<String>(text).unwrap().into_bytes()),
            other => Some(other.as_bytes().to_vec()),
        };
        let timestamp = record["timestamp"].get().parse().ok();
        let (key, value) = (bytes("key"), bytes("value"));
        self.send(topic, partition, timestamp, key.as_deref(), value.as_deref());
    }
    /// Waits until everything that was sent is acknowledged.
    pub(crate) fn flush(&self) {
        self.0.flush(PATIENCE).unwrap();
    }
}

/// A transaction that somebody else has open.
pub(crate) struct Transaction(BaseProducer);
impl Transaction {
    /// Ends its producer without a word to the broker.
    pub(crate) fn die(self) {
        std::mem::forget(self);
    }
    pub(crate) fn commit(&self) -> Result<(), KafkaError> {
        self.0.commit_transaction(PATIENCE)
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE))
}
/// A port that is free, with those behind it that a broker takes.
fn free_port() -> u16 {
    const BEHIND: u16 = 4;
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if port < u16::MAX - BEHIND && (1..=BEHIND).all(|next| free(port + next)) {
            return port;
        }
    }
    panic!("no free ports in a row");
}

/// Wakes the thread that waits for a future.
struct Unpark(Thread);
impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
