//! The source: merging by itself, and reading from a mock cluster.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::super::shared::Inbox;
use super::*;
use crate::options::Options;
use crate::record::Record;

/// A record as (topic, partition, offset).
type Place = (u32, u32, u64);

/// A source without a broker: partitions of one topic that hold so many records behind what arrives.
fn by_hand(lengths: &[usize]) -> KafkaSource {
    let shared = Arc::new(Shared::default());
    {
        let mut state = shared.lock();
        state.topics = vec!["t".to_owned()];
        for (partition, length) in lengths.iter().enumerate() {
            let target = *length as i64;
            let at = Standing { target, high: target, ended: *length == 0, ..Standing::default() };
            state.inboxes.push(Inbox { partition: partition as i32, at, ..Inbox::default() });
        }
    }
    KafkaSource {
        shared,
        thread: None,
        topics: vec![],
        lanes: vec![],
        pending: Records::new(),
        read_by: Default::default(),
        bounded: true,
        group: false,
    }
}
/// The next records of a partition arrive.
fn arrive(source: &KafkaSource, partition: usize, timestamps: &[i64], upto: usize) {
    let mut state = source.shared.lock();
    let inbox = &mut state.inboxes[partition];
    for (offset, timestamp) in timestamps.iter().enumerate().take(upto).skip(inbox.at.next as usize) {
        let (partition, timestamp) = (partition as u32, *timestamp);
        inbox.arrived.push(Record { partition, offset: offset as u64, timestamp, ..Record::default() });
    }
    inbox.at.next = inbox.at.next.max(upto.min(timestamps.len()) as i64);
    inbox.at.ended = inbox.at.next >= inbox.at.target;
}
fn places(records: &Records) -> Vec<Place> {
    records.iter().map(|record| (record.topic, record.partition, record.offset)).collect()
}

proptest! {
    #[test]
    fn a_backlog_comes_in_the_order_and_the_ticks_of_a_replay(
        partitions in proptest::collection::vec(proptest::collection::vec(0_i64..20, 0..30), 1..5),
        steps in proptest::collection::vec((0_usize..5, 0_usize..12), 0..60),
        tick in 1_usize..20,
    ) {
        // All records, sorted by the largest timestamp up to theirs, then partition and offset, and cut.
        let mut sorted: Vec<(i64, Place)> = Vec::new();
        for (number, partition) in partitions.iter().enumerate() {
            let mut latest = i64::MIN;
            for (offset, timestamp) in partition.iter().enumerate() {
                latest = latest.max(*timestamp);
                sorted.push((latest, (0, number as u32, offset as u64)));
            }
        }
        sorted.sort_unstable();
        let expected: Vec<Vec<Place>> = sorted.chunks(tick).map(|chunk| chunk.iter().map(|(_, place)| *place).collect()).collect();

        let lengths: Vec<usize> = partitions.iter().map(Vec::len).collect();
        let mut source = by_hand(&lengths);
        let mut ticks = Vec::new();
        let mut read = |source: &mut KafkaSource| {
            let mut records = Records::new();
            let state = source.read(tick, usize::MAX, &mut records).expect("nothing fails");
            if !records.is_empty() {
                ticks.push(places(&records));
            }
            state
        };
        for (partition, more) in steps {
            let partition = partition % partitions.len();
            let upto = source.shared.lock().inboxes[partition].at.next as usize + more;
            arrive(&source, partition, &partitions[partition], upto);
            read(&mut source);
        }
        for (number, partition) in partitions.iter().enumerate() {
            arrive(&source, number, partition, partition.len());
        }
        let mut reads = 0;
        while read(&mut source) != ReadState::End {
            reads += 1;
            prop_assert!(reads < 200, "it never ends");
        }
        prop_assert_eq!(ticks, expected);
    }
}

#[test]
fn what_is_behind_is_waited_for_and_what_is_new_is_not() {
    let mut source = by_hand(&[2, 1]);
    let mut records = Records::new();
    assert_eq!(source.read(10, 1000, &mut records).expect("nothing fails"), ReadState::Behind);
    arrive(&source, 0, &[5, 6], 2);
    assert_eq!(source.read(10, 1000, &mut records).expect("nothing fails"), ReadState::Behind);
    assert!(records.is_empty(), "partition 1 may hold an older record");
    // Its only record was of a transaction that was given up: the broker says that nothing follows.
    source.shared.lock().inboxes[1].at.at_end = true;
    source.bounded = false;
    assert_eq!(source.read(10, 1000, &mut records).expect("nothing fails"), ReadState::Idle);
    assert_eq!(places(&records), [(0, 0, 0), (0, 0, 1)]);
    // Partition 1 goes on, without waiting for partition 0.
    arrive(&source, 1, &[1, 2, 3], 3);
    let mut records = Records::new();
    assert_eq!(source.read(2, 1000, &mut records).expect("nothing fails"), ReadState::More);
    assert_eq!(source.read(2, 1000, &mut records).expect("nothing fails"), ReadState::Idle);
    assert_eq!(places(&records), [(0, 1, 0), (0, 1, 1), (0, 1, 2)]);
    let progress = source.progress();
    assert_eq!((progress[1].records, progress[1].next_offset), (3, 3));
}

/// A mock of three brokers.
struct Brokers(MockCluster<'static, DefaultProducerContext>);
impl Brokers {
    fn start() -> Brokers {
        Brokers(MockCluster::new(3).expect("mock brokers"))
    }
    fn connection(&self) -> Connection {
        Connection::from_options(&Options::new([("properties.bootstrap.servers", self.0.bootstrap_servers())]))
            .expect("a connection")
    }
    fn producer(&self) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.0.bootstrap_servers()).set("retry.backoff.ms", "50");
        config.create().expect("a producer")
    }
    fn open(&self, options: &[(&str, &str)]) -> Result<KafkaSource> {
        let options = Options::new(options.iter().copied());
        let topics = Topics::from_options(&options)?;
        KafkaSource::open(&self.connection(), &Scan::from_options(&options)?, vec![topics], Bell::new(), &Arc::default())
    }
}
/// Reads until so many records are there, or the end.
fn read(source: &mut KafkaSource, wanted: usize) -> (Records, ReadState) {
    let (mut all, start) = (Records::new(), Instant::now());
    loop {
        let mut records = Records::new();
        let state = source.read(usize::MAX, usize::MAX, &mut records).expect("it reads");
        records.iter().for_each(|record| all.push(record));
        if state == ReadState::End || all.len() >= wanted {
            return (all, state);
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{} of {wanted} records", all.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}
const LATEST: (&str, &str) = ("scan.bounded.mode", "latest-offset");

#[test]
fn a_message_is_a_record_with_all_that_it_has() {
    let brokers = Brokers::start();
    brokers.0.create_topic("t", 1, 1).expect("a topic");
    let producer = brokers.producer();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some("a\"b") })
        .insert(Header { key: "none", value: None::<&str> });
    let record = BaseRecord::to("t").key("k").payload("v").timestamp(7).headers(headers);
    producer.send(record).map_err(|(error, _)| error).expect("it is taken");
    let tombstone: BaseRecord<'_, str, str> = BaseRecord::to("t").key("k").timestamp(8);
    producer.send(tombstone).map_err(|(error, _)| error).expect("it is taken");
    producer.flush(Duration::from_secs(30)).expect("it is sent");
    let mut source = brokers.open(&[("topic", "t"), LATEST]).expect("a source");
    let (records, state) = read(&mut source, usize::MAX);
    assert_eq!(state, ReadState::End);
    let (key, headers) = (Some(b"k".as_slice()), Some(r#"{"trace":"a\"b","none":null}"#));
    let first = Record { timestamp: 7, key, value: Some(b"v"), headers, ..Record::default() };
    let second = Record { offset: 1, timestamp: 8, key, ..Record::default() };
    assert_eq!(records.iter().collect::<Vec<_>>(), [first, second]);
    let progress = source.progress();
    assert_eq!((progress[0].ended, progress[0].lag, progress[0].next_offset), (true, Some(0), 2));
}
#[test]
fn a_topic_that_is_not_there_is_named_with_those_that_are() {
    let brokers = Brokers::start();
    brokers.0.create_topic("clicks", 1, 1).expect("a topic");
    brokers.0.topic_error("klicks", rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).expect("none");
    let error = brokers.open(&[("topic", "klicks")]).err().expect("there is no such topic");
    assert!(error.to_string().starts_with("topic \"klicks\" does not exist at \"127.0.0.1:"), "{error}");
    assert!(error.help().contains("clicks"), "{}", error.help());
}
#[test]
fn brokers_that_go_and_come_lose_nothing_and_repeat_nothing() {
    let brokers = Brokers::start();
    brokers.0.create_topic("t", 2, 3).expect("a topic");
    let producer = brokers.producer();
    let send = |from: usize, to: usize| {
        for n in from..to {
            let (key, partition) = (n.to_string(), (n % 2) as i32);
            let record = BaseRecord::to("t").partition(partition).key(&key).payload("v").timestamp(n as i64);
            producer.send(record).map_err(|(error, _)| error).expect("it is taken");
        }
        producer.flush(Duration::from_secs(60)).expect("it is sent");
    };
    send(0, 500);
    let mut source = brokers.open(&[("topic", "t")]).expect("a source");
    let (first, _) = read(&mut source, 500);
    brokers.0.broker_down(-1).expect("down");
    let start = Instant::now();
    let mut news = Vec::new();
    while news.is_empty() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
        news.extend(source.take_news());
    }
    assert!(news[0].contains("does not answer"), "{news:?}");
    assert_eq!(source.notes(), ["no broker answers", "no broker answers"]);
    brokers.0.broker_up(-1).expect("up");
    send(500, 1000);
    let (second, _) = read(&mut source, 500);
    let mut places = [places(&first), places(&second)].concat();
    places.sort_unstable();
    let all: Vec<Place> = (0..2).flat_map(|partition| (0..500).map(move |offset| (0, partition, offset))).collect();
    assert_eq!(places, all);
    // The mock keeps 5 MiB per partition: what it threw away would look like a loss of ours.
    assert!(first.bytes() + second.bytes() < 4 << 20);
}
