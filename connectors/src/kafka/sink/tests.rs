//! Topics as sinks: every form of a change, what is refused, and a broker that is mocked within its limits.

use super::*;
use deltaworks_dataflow::changelog::RowKind;
use deltaworks_dataflow::{Column, DataType, Datum, Row};
use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaApiKey;
use std::sync::Mutex;
use std::time::Duration;

fn schema() -> Schema {
    let columns = [("id", DataType::BigInt), ("name", DataType::String), ("shop", DataType::String)];
    Schema::new(columns.into_iter().map(|(name, data_type)| Column::new(name, data_type)).collect())
}
fn row(id: i64, name: Option<&'static str>) -> Row {
    Row::pack([Datum::Int(id), name.map_or(Datum::Null, Datum::str), Datum::str("s")])
}
fn spec(key: &[usize], options: &[(&str, &str)]) -> Result<KafkaSinkSpec> {
    let mut all = vec![("connector", "kafka"), ("topic", "t")];
    all.extend(options);
    KafkaSinkSpec::from_options(&Options::new(all), &schema(), key)
}
/// A row that appears, changes and disappears, as keys and values.
fn messages(key: &[usize], options: &[(&str, &str)]) -> Vec<String> {
    let entries = vec![
        (RowKind::Insert, row(1, Some("a\""))),
        (RowKind::UpdateBefore, row(2, Some("b"))),
        (RowKind::UpdateAfter, row(2, None)),
        (RowKind::Delete, row(3, Some("c"))),
    ];
    written(key, options, &Changes { tick: 7, entries, conflicts: Vec::new() }).expect("messages")
}
fn written(key: &[usize], options: &[(&str, &str)], changes: &Changes) -> Result<Vec<String>> {
    let mut batch = Batch::default();
    spec(key, options)?.encoder.encode(changes, &mut batch)?;
    let text = |part: Option<&[u8]>| part.map_or("-".to_owned(), |part| String::from_utf8_lossy(part).into_owned());
    Ok(batch.iter().map(|(key, value)| format!("{} {}", text(key), text(value))).collect())
}
fn inserts(rows: Vec<Row>) -> Changes {
    Changes { tick: 1, entries: rows.into_iter().map(|row| (RowKind::Insert, row)).collect(), conflicts: Vec::new() }
}

#[test]
fn upserts_and_tombstones() {
    let expected = [r#"1 {"id":1,"name":"a\"","shop":"s"}"#, r#"2 {"id":2,"name":null,"shop":"s"}"#, r#"3 -"#];
    assert_eq!(messages(&[0], &[("connector", "upsert-kafka")]), expected);
    assert_eq!(messages(&[0], &[("changelog.mode", "upsert")]), expected);
    let two = [("connector", "upsert-kafka"), ("value.fields-include", "EXCEPT_KEY")];
    let expected =
        [r#"{"shop":"s","id":1} {"name":"a\""}"#, r#"{"shop":"s","id":2} {"name":null}"#, r#"{"shop":"s","id":3} -"#];
    assert_eq!(messages(&[2, 0], &two), expected);
    let csv = [("connector", "upsert-kafka"), ("key.format", "json"), ("value.format", "csv")];
    assert_eq!(messages(&[0], &csv), [r#"{"id":1} 1,"a""",s"#, r#"{"id":2} 2,,s"#, r#"{"id":3} -"#]);
}
#[test]
fn old_and_new_images() {
    let expected = [
        r#"1 {"before":null,"after":{"id":1,"name":"a\"","shop":"s"},"op":"c"}"#,
        r#"2 {"before":{"id":2,"name":"b","shop":"s"},"after":{"id":2,"name":null,"shop":"s"},"op":"u"}"#,
        r#"3 {"before":{"id":3,"name":"c","shop":"s"},"after":null,"op":"d"}"#,
    ];
    assert_eq!(messages(&[0], &[("format", "debezium-json")]), expected);
}
#[test]
fn row_kinds() {
    let expected = [
        r#"{"id":1} {"op":"+I","tick":7,"row":{"id":1,"name":"a\"","shop":"s"}}"#,
        r#"{"id":2} {"op":"-U","tick":7,"row":{"id":2,"name":"b","shop":"s"}}"#,
        r#"{"id":2} {"op":"+U","tick":7,"row":{"id":2,"name":null,"shop":"s"}}"#,
        r#"{"id":3} {"op":"-D","tick":7,"row":{"id":3,"name":"c","shop":"s"}}"#,
    ];
    let options = [("value.format", "changelog-json"), ("key.format", "json")];
    assert_eq!(messages(&[0], &options), expected);
    let prefixed = [
        ("format", "changelog-json"),
        ("key.format", "json"),
        ("key.fields-prefix", "i"),
        ("value.fields-include", "EXCEPT_KEY"),
    ];
    assert!(messages(&[0], &prefixed)[0].starts_with(r#"{"d":1} {"op":"+I","tick":7,"row":{"name""#));
}
#[test]
fn rows_alone() {
    let rows = || inserts(vec![row(1, Some("x")), row(2, None)]);
    let plain = [r#"- {"id":1,"name":"x","shop":"s"}"#, r#"- {"id":2,"name":null,"shop":"s"}"#];
    assert_eq!(written(&[], &[], &rows()).expect("rows"), plain);
    // A key that is NULL is none.
    let keyed = ["x 1,x,s", "- 2,,s"];
    assert_eq!(written(&[], &[("format", "csv"), ("key.fields", "name")], &rows()).expect("rows"), keyed);
    let raw = [("format", "raw"), ("key.fields", "id; shop"), ("value.fields-include", "EXCEPT_KEY")];
    assert_eq!(written(&[], &raw, &rows()).expect("rows"), [r#"{"id":1,"shop":"s"} x"#, r#"{"id":2,"shop":"s"} -"#]);
    let taken_back = Changes { tick: 7, entries: vec![(RowKind::Delete, row(1, None))], conflicts: Vec::new() };
    let error = written(&[0], &[], &taken_back).expect_err("a delete").to_string();
    assert_eq!(error, "sink \"t\" only appends, but the query takes rows back (-D in tick 7)");
    assert!(!spec(&[], &[]).expect("a sink").takes_retractions());
    assert!(spec(&[0], &[("format", "debezium-json")]).expect("a sink").takes_retractions());
}
/// A key, options, how the message begins, and a part of the help.
type Refused<'a> = (&'a [usize], &'a [(&'a str, &'a str)], &'a str, &'a str);
#[test]
fn what_does_not_go_together_is_refused() {
    let cases: [Refused<'_>; 16] = [
        (&[], &[("topic", "a;b")], "invalid value \"a;b\" of option \"topic\"", "one topic"),
        (&[], &[("topic-pattern", "a.*")], "invalid value \"a.*\" of option \"topic-pattern\"", "'topic' for a sink"),
        (&[], &[("connector", "upsert-kafka")], "sink \"t\" writes by key, but its table has no key", "PRIMARY KEY"),
        (
            &[0],
            &[("connector", "upsert-kafka"), ("format", "debezium-json")],
            "unknown format \"debezium-json\"",
            "json, csv",
        ),
        (
            &[0],
            &[("connector", "upsert-kafka"), ("key.fields", "name")],
            "invalid value \"name\" of option \"key.fields\"",
            "PRIMARY",
        ),
        (
            &[0],
            &[("format", "debezium-json"), ("key.fields", "name")],
            "invalid value \"name\" of option \"key.fields\"",
            "order",
        ),
        (&[], &[("key.fields", "id;nam")], "invalid value \"id;nam\" of option \"key.fields\"", "a;b: id, name, shop"),
        (&[], &[("key.fields", "id;name"), ("key.format", "raw")], "invalid value \"raw\" of option \"key.format\"", "json"),
        (
            &[],
            &[("key.fields", "id"), ("key.format", "avro")],
            "unknown format \"avro\"",
            "json, raw, csv, avro-confluent for keys",
        ),
        (&[], &[("format", "raw")], "format \"raw\" cannot hold the columns of this table: it takes one column", "change"),
        (
            &[],
            &[("sink.semantic", "exactly-once")],
            "invalid value \"exactly-once\" of option \"sink.semantic\"",
            "delivery-guar",
        ),
        (
            &[],
            &[("sink.delivery-guarantee", "once")],
            "invalid value \"once\" of option \"sink.delivery-guarantee\"",
            "exactly",
        ),
        (&[], &[("sink.delivery-guarantee", "exactly-once")], "missing option \"sink.transactional-id-prefix\"", "add"),
        (
            &[],
            &[("properties.transactional.id", "x")],
            "invalid value \"x\" of option \"properties.transactional.id\"",
            "exactly",
        ),
        (&[], &[("sink.paralelism", "1")], "unknown option \"sink.paralelism\" of connector \"kafka\"", "sink.parallelism"),
        (&[], &[("sink.partitioner", "fixed")], "invalid value \"fixed\" of option \"sink.partitioner\"", "default"),
    ];
    for (key, options, message, help) in cases {
        let error = spec(key, options).expect_err(message);
        assert!(error.to_string().starts_with(message), "{error}");
        assert!(error.help().contains(help), "{message}: {}", error.help());
    }
}

/// A cluster in this process, and what a sink on it says.
struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    said: Arc<Mutex<Vec<String>>>,
    caller: Caller,
}
impl Mock {
    fn new(partitions: i32) -> Mock {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("t", partitions, 1).expect("a topic");
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let taken = Arc::clone(&said);
        let say = move |text: &str| taken.lock().expect("not poisoned").push(text.to_owned());
        Mock { cluster, said, caller: Caller { say: Arc::new(say), stop: Arc::default() } }
    }
    fn open(&self, key: &[usize], options: &[(&str, &str)]) -> Result<Box<dyn ChangeSink>> {
        let brokers = self.cluster.bootstrap_servers();
        let mut all = vec![("connector", "kafka"), ("topic", "t"), ("properties.bootstrap.servers", brokers.as_str())];
        all.extend(options);
        let options = Options::new(all);
        let spec = KafkaSinkSpec::from_options(&options, &schema(), key)?;
        spec.open(&Connection::from_options(&options)?, self.caller.clone())
    }
    /// What a partition holds.
    fn read(&self, partition: i32, count: usize) -> Vec<String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.cluster.bootstrap_servers()).set("group.id", "reads");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", partition, Offset::Beginning).expect("a partition");
        consumer.assign(&list).expect("assigned");
        let mut values = Vec::new();
        while values.len() < count {
            let message = consumer.poll(Duration::from_secs(30)).expect("a message in time").expect("a message");
            values.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned());
        }
        values
    }
}

#[test]
fn a_broker_that_is_away_for_a_while_loses_nothing() {
    let mock = Mock::new(1);
    let mut sink = mock.open(&[0], &[("format", "csv")]).expect("a sink");
    sink.write(&inserts(vec![row(1, None)])).expect("written");
    sink.commit().expect("delivered");
    mock.cluster.broker_down(-1).expect("down");
    sink.write(&inserts(vec![row(2, None), row(3, None)])).expect("written");
    while mock.said.lock().expect("not poisoned").is_empty() {
        sink.flush().expect("nothing failed");
        std::thread::sleep(Duration::from_millis(20));
    }
    mock.cluster.broker_up(-1).expect("up");
    sink.finish().expect("delivered");
    assert_eq!(mock.read(0, 3), ["1,,s", "2,,s", "3,,s"]);
    let said = mock.said.lock().expect("not poisoned").clone();
    assert!(said[0].starts_with("warning: Kafka at \"127.0.0.1:"), "{said:?}");
    assert!(
        said[0].contains("\" does not answer: ") && said[0].ends_with("; what is written to topic \"t\" waits"),
        "{said:?}"
    );
    assert!(said[1..].iter().all(|text| text.ends_with("answers again; topic \"t\" is written on")), "{said:?}");
}
#[test]
fn a_job_that_is_to_stop_does_not_wait_for_ever() {
    let mock = Mock::new(1);
    let mut sink = mock.open(&[0], &[]).expect("a sink");
    mock.cluster.broker_down(-1).expect("down");
    sink.write(&inserts(vec![row(2, None)])).expect("written");
    mock.caller.stop.store(true, Ordering::Relaxed);
    let error = sink.finish().expect_err("nobody took it");
    assert!(error.to_string().starts_with("could not write topic \"t\": 1 record was not taken in time: "), "{error}");
    assert_eq!(error.help(), "bring the brokers back and run the job again");
}
#[test]
fn a_full_queue_waits() {
    let mock = Mock::new(1);
    let small = [("format", "csv"), ("properties.queue.buffering.max.messages", "3")];
    let mut sink = mock.open(&[0], &small).expect("a sink");
    sink.write(&inserts((0..50).map(|id| row(id, None)).collect())).expect("written");
    sink.finish().expect("delivered");
    let expected: Vec<String> = (0..50).map(|id| format!("{id},,s")).collect();
    assert_eq!(mock.read(0, 50), expected);
}
#[test]
fn a_record_that_is_too_large_is_named() {
    let mock = Mock::new(1);
    let mut sink = mock.open(&[0], &[("properties.message.max.bytes", "1000")]).expect("a sink");
    let large = Row::pack([Datum::Int(42), Datum::str("x".repeat(2000)), Datum::Null]);
    let error = sink.write(&inserts(vec![large])).expect_err("too large");
    let start = "could not write topic \"t\": ";
    let text = error.to_string();
    assert!(text.starts_with(start) && text.contains("(the record with key \"42\", 20"), "{text}");
    assert!(error.help().contains("'properties.message.max.bytes'"), "{}", error.help());
}
#[test]
fn a_record_that_the_broker_refuses_ends_the_job() {
    let mock = Mock::new(1);
    let mut sink = mock.open(&[0], &[]).expect("a sink");
    let refusal = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    mock.cluster.request_errors(RDKafkaApiKey::Produce, &[refusal; 5]);
    sink.write(&inserts(vec![row(5, None)])).expect("on its way");
    let error = sink.finish().expect_err("refused");
    assert!(error.to_string().contains("(the record with key \"5\""), "{error}");
    assert!(error.help().starts_with("let the user write the topic"), "{}", error.help());
}
#[test]
fn keys_lie_where_javas_clients_put_them() {
    // Of the default partitioner of Kafka's Java client: murmur2, without its sign, modulo the partitions.
    let expected = [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)];
    let mock = Mock::new(7);
    let mut sink = mock.open(&[], &[("format", "raw"), ("key.fields", "name"), ("value.fields-include", "EXCEPT_KEY")]);
    assert!(sink.is_err(), "two columns are left");
    sink = mock.open(&[], &[("format", "csv"), ("key.fields", "name")]);
    let mut sink = sink.expect("a sink");
    sink.write(&inserts(expected.iter().map(|(key, _)| row(1, Some(key))).collect())).expect("written");
    sink.finish().expect("delivered");
    for (key, hash) in expected {
        let partition = (hash & 0x7fff_ffff) % 7;
        assert!(mock.read(partition, 1).contains(&format!("1,{key},s")), "{key} in {partition}");
    }
}
#[test]
fn epochs_that_are_committed_are_left_out() {
    // Of transactions the mocked cluster only says that they went well: what readers see is for the real broker.
    let mock = Mock::new(1);
    let exactly_once =
        [("format", "csv"), ("sink.delivery-guarantee", "exactly-once"), ("sink.transactional-id-prefix", "p")];
    let mut sink = mock.open(&[0], &exactly_once).expect("a sink");
    assert!(sink.has_epochs());
    assert_eq!(sink.committed(), None);
    for (epoch, id) in [(4, 1), (4, 2), (3, 3), (5, 4)] {
        sink.begin(epoch).expect("begun");
        sink.write(&inserts(vec![row(id, None)])).expect("written");
        sink.commit().expect("committed");
    }
    assert_eq!(sink.committed(), Some(5));
    assert_eq!(mock.read(0, 2), ["1,,s", "4,,s"]);
}
#[test]
fn brokers_that_are_not_there_are_an_error_within_seconds() {
    let caller = Mock::new(1).caller;
    let options = Options::new([("connector", "kafka"), ("topic", "t"), ("properties.bootstrap.servers", "127.0.0.1:1")]);
    let spec = KafkaSinkSpec::from_options(&options, &schema(), &[]).expect("a sink");
    let error = spec.open(&Connection::from_options(&options).expect("a connection"), caller).err().expect("nobody there");
    assert!(error.to_string().starts_with("could not reach Kafka at \"127.0.0.1:1\": "), "{error}");
}
