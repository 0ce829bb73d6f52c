//! Topics that jobs write, read by an ordinary consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deltaworks_connectors::Options;
use deltaworks_connectors::kafka::{Caller, Connection, KafkaSinkSpec};
use deltaworks_connectors::sink::ChangeSink;
use deltaworks_dataflow::changelog::{Changes, RowKind};
use deltaworks_dataflow::{Column, DataType, Datum, Row, Schema};
use rdkafka::Message;
use rdkafka::message::OwnedMessage;

use crate::broker::{Broker, shared};
use crate::program::{Run, script};

/// Key and value of a message as text; `-` where there is none.
fn text(message: &OwnedMessage) -> (String, String) {
    let part = |part: Option<&[u8]>| part.map_or("-".to_owned(), |bytes| String::from_utf8(bytes.to_vec()).unwrap());
    (part(message.key()), part(message.payload()))
}
fn texts(broker: &Broker, topic: &str) -> Vec<(String, String)> {
    broker.read(topic).iter().map(text).collect()
}
/// Runs a script in which `{broker}` stands for the options that reach the broker.
fn run(broker: &Broker, folder: &std::path::Path, sql: &str) -> Run {
    let address = format!("'properties.bootstrap.servers' = '{}'", broker.address());
    script(folder, &sql.replace("{broker}", &address), &[])
}
/// Sales that come, change and go, one tick each: of the two towns one is left.
const TOWNS: &str = "CREATE TABLE sale (id INT, town STRING, amount INT, PRIMARY KEY (id) NOT ENFORCED)
      WITH ('table.merge-engine' = 'last_row');
    CREATE TABLE town (town STRING, amount BIGINT, PRIMARY KEY (town) NOT ENFORCED)
      WITH ('connector' = '{connector}', 'topic' = '{topic}', {broker}, {more});
    INSERT INTO town SELECT town, SUM(amount) FROM sale GROUP BY town;
    INSERT INTO sale VALUES (1, 'Delft', 10), (2, 'Veere', 5);
    INSERT INTO sale VALUES (3, 'Delft', 7);
    INSERT INTO sale VALUES (2, 'Veere', 6);
    DELETE FROM sale WHERE town = 'Veere';
    INSERT INTO sale VALUES (1, 'Delft', 11);";
fn towns(broker: &Broker, connector: &str, topic: &str, more: &str) -> Vec<(String, String)> {
    broker.create_topic(topic, 1);
    let folder = tempfile::tempdir().unwrap();
    let sql = TOWNS.replace("{connector}", connector).replace("{topic}", topic).replace("{more}", more);
    let run = run(broker, folder.path(), &sql);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    texts(broker, topic)
}
fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn upserts_end_in_tombstones() {
    let Some(broker) = shared() else { return };
    let written = towns(broker, "upsert-kafka", "sink-upsert", "'key.format' = 'json', 'value.format' = 'json'");
    let (delft, veere) = (r#"{"town":"Delft"}"#, r#"{"town":"Veere"}"#);
    let expected = [
        (delft, r#"{"town":"Delft","amount":10}"#),
        (veere, r#"{"town":"Veere","amount":5}"#),
        (delft, r#"{"town":"Delft","amount":17}"#),
        (veere, r#"{"town":"Veere","amount":6}"#),
        (veere, "-"),
        (delft, r#"{"town":"Delft","amount":18}"#),
    ];
    assert_eq!(written, pairs(&expected));
}
#[test]
fn debezium_has_old_and_new_images() {
    let Some(broker) = shared() else { return };
    let written = towns(broker, "kafka", "sink-debezium", "'format' = 'debezium-json'");
    let expected = [
        ("Delft", r#"{"before":null,"after":{"town":"Delft","amount":10},"op":"c"}"#),
        ("Veere", r#"{"before":null,"after":{"town":"Veere","amount":5},"op":"c"}"#),
        ("Delft", r#"{"before":{"town":"Delft","amount":10},"after":{"town":"Delft","amount":17},"op":"u"}"#),
        ("Veere", r#"{"before":{"town":"Veere","amount":5},"after":{"town":"Veere","amount":6},"op":"u"}"#),
        ("Veere", r#"{"before":{"town":"Veere","amount":6},"after":null,"op":"d"}"#),
        ("Delft", r#"{"before":{"town":"Delft","amount":17},"after":{"town":"Delft","amount":18},"op":"u"}"#),
    ];
    assert_eq!(written, pairs(&expected));
}
#[test]
fn changelogs_have_row_kinds() {
    let Some(broker) = shared() else { return };
    let written = towns(broker, "kafka", "sink-changelog", "'format' = 'changelog-json'");
    // Ticks are numbered as they come: here the rest counts.
    let bare = |(key, value): &(String, String)| {
        let row = value.find("\"row\"").unwrap();
        format!("{key} {} {}", &value[7..9], &value[row + 6..value.len() - 1])
    };
    let expected = [
        r#"Delft +I {"town":"Delft","amount":10}"#,
        r#"Veere +I {"town":"Veere","amount":5}"#,
        r#"Delft -U {"town":"Delft","amount":10}"#,
        r#"Delft +U {"town":"Delft","amount":17}"#,
        r#"Veere -U {"town":"Veere","amount":5}"#,
        r#"Veere +U {"town":"Veere","amount":6}"#,
        r#"Veere -D {"town":"Veere","amount":6}"#,
        r#"Delft -U {"town":"Delft","amount":17}"#,
        r#"Delft +U {"town":"Delft","amount":18}"#,
    ];
    assert_eq!(written.iter().map(bare).collect::<Vec<_>>(), expected);
}
#[test]
fn values_go_out_at_once_beside_what_goes_on() {
    let Some(broker) = shared() else { return };
    broker.create_topic("sink-values", 1);
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE sale (id INT, town STRING, PRIMARY KEY (id) NOT ENFORCED) WITH ('table.merge-engine' = 'last_row');
        CREATE TABLE town (id INT, town STRING NOT NULL DEFAULT 'Goes', PRIMARY KEY (id) NOT ENFORCED)
          WITH ('connector' = 'upsert-kafka', 'topic' = 'sink-values', {broker}, 'key.format' = 'raw', 'value.format' = 'json');
        INSERT INTO town VALUES (1, 'Delft'), (2, 'Veere');
        INSERT INTO town SELECT id, town FROM sale;
        INSERT INTO sale VALUES (3, 'Sneek');
        INSERT INTO town (id) VALUES (4);
        SELECT * FROM town;";
    let run = run(broker, folder.path(), sql);
    assert!(run.stderr.contains("one-shot insert into town: 2 rows"), "{}", run.stderr);
    assert!(run.stderr.contains("table \"town\" cannot be read"), "{}", run.stderr);
    let town = |id: i32, town: &str| (id.to_string(), format!("{{\"id\":{id},\"town\":\"{town}\"}}"));
    let expected = [town(1, "Delft"), town(2, "Veere"), town(3, "Sneek"), town(4, "Goes")];
    assert_eq!(texts(broker, "sink-values"), expected);
    let lines =
        "CREATE TABLE line (id INT, town STRING) WITH ('connector' = 'filesystem', 'path' = 'out.csv', 'format' = 'csv');
        INSERT INTO line VALUES (7, 'Edam'), (8, NULL);";
    let run = script(folder.path(), lines, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(folder.path().join("out.csv")).unwrap(), "7,Edam\n8,\n");
}
#[test]
fn a_file_goes_to_topics_that_fold_to_its_rows() {
    let Some(broker) = shared() else { return };
    broker.create_topic("sink-rows", 4);
    broker.create_topic("sink-best", 4);
    let folder = tempfile::tempdir().unwrap();
    let order = |id: usize| format!("{{\"id\":{id},\"person\":\"p{}\",\"amount\":{}}}\n", id % 97, id * 31 % 1009);
    std::fs::write(folder.path().join("orders.jsonl"), (0..30_000).map(order).collect::<String>()).unwrap();
    let sql = "CREATE TABLE orders (id INT, person STRING, amount INT)
          WITH ('connector' = 'filesystem', 'path' = 'orders.jsonl', 'format' = 'json');
        CREATE TABLE rows_out (id INT, person STRING, amount INT)
          WITH ('connector' = 'kafka', 'topic' = 'sink-rows', {broker}, 'format' = 'json', 'key.fields' = 'person');
        CREATE TABLE best (person STRING, amount INT, orders BIGINT, PRIMARY KEY (person) NOT ENFORCED)
          WITH ('connector' = 'upsert-kafka', 'topic' = 'sink-best', {broker}, 'key.format' = 'raw', 'value.format' = 'json');
        INSERT INTO rows_out SELECT id, person, amount FROM orders;
        INSERT INTO best SELECT person, MAX(amount), COUNT(*) FROM orders GROUP BY person;";
    let run = run(broker, folder.path(), sql);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("30000 changes written to rows_out"), "{}", run.stderr);

    let mut partitions: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    let mut rows = BTreeSet::new();
    for message in broker.read("sink-rows") {
        let (key, value) = text(&message);
        assert!(value.contains(&format!("\"person\":\"{key}\"")), "{key} {value}");
        assert!(rows.insert(value + "\n"), "a row was written twice");
        partitions.entry(key).or_default().insert(message.partition());
    }
    assert_eq!(rows, (0..30_000).map(order).collect());
    assert!(partitions.values().all(|of_key| of_key.len() == 1), "a key lies in several partitions");
    assert_eq!(partitions.values().flatten().collect::<BTreeSet<_>>().len(), 4, "a partition has nothing");

    let best: BTreeMap<String, String> = texts(broker, "sink-best").into_iter().collect();
    for person in 0..97_usize {
        let of_person = || (person..30_000).step_by(97);
        let amount = of_person().map(|id| id * 31 % 1009).max().unwrap();
        let expected = format!(r#"{{"person":"p{person}","amount":{amount},"orders":{}}}"#, of_person().count());
        assert_eq!(best.get(&format!("p{person}")), Some(&expected));
    }
    assert_eq!(best.len(), 97);
}
#[test]
fn what_a_topic_cannot_take_is_said_at_once() {
    let Some(broker) = shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let table = |with: &str, key: &str| {
        format!(
            "CREATE TABLE sale (id INT, town STRING, PRIMARY KEY (id) NOT ENFORCED) WITH ('table.merge-engine' = 'last_row');
            CREATE TABLE town (town STRING, sales BIGINT{key}) WITH ({with}, {{broker}});
            INSERT INTO town SELECT town, COUNT(*) FROM sale GROUP BY town;"
        )
    };
    let key = ", PRIMARY KEY (town) NOT ENFORCED";
    let cases = [
        (
            table("'connector' = 'kafka', 'topic' = 'gone', 'format' = 'json'", ""),
            "table \"town\" has no key, and the query may take rows back",
            "declare a PRIMARY KEY",
        ),
        (
            table("'connector' = 'kafka', 'topic' = 'gone', 'format' = 'json'", key),
            "job.sql:3:13: table \"town\" writes rows alone to its topic ('format' = 'json'), and the query may take rows back",
            "use 'connector' = 'upsert-kafka', or 'format' = 'debezium-json' or 'changelog-json'",
        ),
        (
            table("'connector' = 'upsert-kafka', 'topic' = 'gone'", key),
            "topic \"gone\" does not exist at \"127.0.0.1:",
            "create the topic",
        ),
        (
            table("'connector' = 'upsert-kafka', 'topic' = 'gone', 'properties.linger' = '1'", key),
            "Kafka property \"properties.linger\"",
            "properties are those of librdkafka",
        ),
    ];
    for (sql, message, help) in cases {
        let run = run(broker, folder.path(), &sql);
        assert_eq!(run.code, Some(1), "{message}: {}", run.stderr);
        assert!(run.stderr.contains(message) && run.stderr.contains(help), "{message}: {}", run.stderr);
    }
}
#[test]
fn a_record_larger_than_the_topic_takes_ends_the_job() {
    let Some(broker) = shared() else { return };
    broker.create_topic("sink-large", 1);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pages.jsonl"), format!("{{\"id\":7,\"body\":\"{}\"}}\n", "x".repeat(9_000_000)))
        .unwrap();
    let sql = "CREATE TABLE page (id INT, body STRING)
          WITH ('connector' = 'filesystem', 'path' = 'pages.jsonl', 'format' = 'json');
        CREATE TABLE page_out (id INT, body STRING)
          WITH ('connector' = 'kafka', 'topic' = 'sink-large', {broker}, 'key.fields' = 'id',
                'properties.max.request.size' = '20000000', 'properties.compression.type' = 'none');
        INSERT INTO page_out SELECT id, body FROM page;";
    let run = run(broker, folder.path(), sql);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let said = "error: could not write topic \"sink-large\": ";
    assert!(run.stderr.contains(said) && run.stderr.contains("(the record with key \"7\", 9000"), "{}", run.stderr);
    assert!(run.stderr.contains("max.message.bytes on the topic"), "{}", run.stderr);
}

/// A sink of one key and one number, below SQL, and what it says.
struct Topic<'a> {
    broker: &'a Broker,
    name: &'static str,
    said: Arc<Mutex<Vec<String>>>,
}
impl Topic<'_> {
    fn open(&self, more: &[(&str, &str)]) -> Box<dyn ChangeSink> {
        let address = self.broker.address();
        let mut options = vec![
            ("connector", "upsert-kafka"),
            ("topic", self.name),
            ("properties.bootstrap.servers", address.as_str()),
            ("format", "csv"),
            ("value.fields-include", "EXCEPT_KEY"),
        ];
        options.extend(more);
        let options = Options::new(options);
        let schema = Schema::new(vec![Column::new("k", DataType::BigInt), Column::new("v", DataType::BigInt)]);
        let spec = KafkaSinkSpec::from_options(&options, &schema, &[0]).unwrap();
        let said = Arc::clone(&self.said);
        let say = Arc::new(move |text: &str| said.lock().unwrap().push(text.to_owned()));
        spec.open(&Connection::from_options(&options).unwrap(), Caller { say, stop: Arc::default() }).unwrap()
    }
    /// The values by key, in the order in which the topic has them.
    fn values(&self) -> BTreeMap<String, Vec<String>> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in texts(self.broker, self.name) {
            values.entry(key).or_default().push(value);
        }
        values
    }
    fn all(&self) -> Vec<String> {
        texts(self.broker, self.name).into_iter().map(|(_, value)| value).collect()
    }
}
fn topic<'a>(broker: &'a Broker, name: &'static str, partitions: i32) -> Topic<'a> {
    broker.create_topic(name, partitions);
    Topic { broker, name, said: Arc::default() }
}
fn upsert(tick: u64, keys: std::ops::Range<i64>) -> Changes {
    let row = |key| Row::pack([Datum::Int(key), Datum::Int(i64::try_from(tick).unwrap())]);
    Changes { tick, entries: keys.map(|key| (RowKind::UpdateAfter, row(key))).collect(), conflicts: Vec::new() }
}
const EXACTLY_ONCE: [(&str, &str); 2] =
    [("sink.delivery-guarantee", "exactly-once"), ("sink.transactional-id-prefix", "tests")];

#[test]
fn epochs_are_seen_whole_and_once() {
    let Some(broker) = shared() else { return };
    let topic = topic(broker, "sink-epochs", 2);
    let mut sink = topic.open(&EXACTLY_ONCE);
    assert_eq!(sink.committed(), None);
    sink.begin(3).unwrap();
    sink.write(&upsert(1, 0..5)).unwrap();
    sink.write(&upsert(2, 0..5)).unwrap();
    sink.flush().unwrap();
    assert_eq!(topic.all(), [""; 0], "an open epoch is seen");
    sink.commit().unwrap();
    assert_eq!((sink.committed(), topic.all().len()), (Some(3), 10));
    // As a crash leaves it: this epoch never comes.
    sink.begin(4).unwrap();
    sink.write(&upsert(3, 0..5)).unwrap();
    drop(sink);

    let mut sink = topic.open(&EXACTLY_ONCE);
    assert_eq!(sink.committed(), Some(3));
    for (epoch, tick) in [(3, 1), (4, 4), (5, 5)] {
        sink.begin(epoch).unwrap();
        sink.write(&upsert(tick, 0..5)).unwrap();
        sink.commit().unwrap();
    }
    assert_eq!(sink.committed(), Some(5));
    let values = topic.values();
    assert_eq!(values.len(), 5);
    assert!(values.values().all(|of_key| *of_key == ["1", "2", "4", "5"]), "{values:?}");
}
#[test]
fn a_transaction_that_was_left_open_is_ended_and_its_writer_shut_out() {
    let Some(broker) = shared() else { return };
    let topic = topic(broker, "sink-left", 1);
    let left = broker.transaction("tests-sink-left", "sink-left", b"never");
    let mut sink = topic.open(&EXACTLY_ONCE);
    sink.begin(1).unwrap();
    sink.write(&upsert(1, 0..1)).unwrap();
    sink.commit().unwrap();
    assert_eq!(topic.all(), ["1"]);
    left.commit().unwrap_err();
    assert_eq!(topic.all(), ["1"]);
    // The other way round: whoever takes over shuts us out, and that is said.
    let _other = broker.transaction("tests-sink-left", "sink-left", b"never");
    sink.begin(2).unwrap();
    sink.write(&upsert(2, 0..1)).unwrap();
    let error = sink.commit().unwrap_err();
    assert!(error.help().starts_with("another writer has this transactional id"), "{error}: {}", error.help());
}
#[test]
fn a_job_that_runs_again_goes_on_with_its_epochs() {
    let Some(broker) = shared() else { return };
    broker.create_topic("sink-again", 1);
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = 'in.jsonl', 'format' = 'json');
        CREATE TABLE s (a INT) WITH ('connector' = 'kafka', 'topic' = 'sink-again', {broker}, 'format' = 'json',
          'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = 'tests');
        INSERT INTO s SELECT a FROM t;";
    for a in 1..=3 {
        std::fs::write(folder.path().join("in.jsonl"), format!("{{\"a\":{a}}}\n")).unwrap();
        let run = run(broker, folder.path(), sql);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    let expected = pairs(&[("-", r#"{"a":1}"#), ("-", r#"{"a":2}"#), ("-", r#"{"a":3}"#)]);
    assert_eq!(texts(broker, "sink-again"), expected);
}
#[test]
fn a_broker_that_is_killed_and_comes_back_has_everything_once() {
    let Some(broker) = Broker::start() else { return };
    let (plain, whole, short) = (topic(&broker, "plain", 3), topic(&broker, "whole", 3), topic(&broker, "short", 3));
    let mut at_least_once = plain.open(&[]);
    // The broker is away for longer than the second one's transactions may last.
    let timeout = [EXACTLY_ONCE[0], EXACTLY_ONCE[1], ("properties.transaction.timeout.ms", "1000")];
    let mut exactly_once = [whole.open(&EXACTLY_ONCE), short.open(&timeout)];
    std::thread::scope(|scope| {
        let faults = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            broker.kill();
            broker.restart();
        });
        let mut tick = 0;
        // On until the broker is back, and a little longer.
        while !faults.is_finished() || tick < 200 {
            tick += 1;
            at_least_once.write(&upsert(tick, 0..50)).unwrap();
            at_least_once.flush().unwrap();
            for sink in &mut exactly_once {
                sink.begin(tick).unwrap();
                sink.write(&upsert(tick, 0..50)).unwrap();
                sink.commit().unwrap();
            }
        }
        at_least_once.finish().unwrap();
        let expected: Vec<String> = (1..=tick).map(|tick| tick.to_string()).collect();
        for topic in [&plain, &whole, &short] {
            let values = topic.values();
            assert_eq!(values.len(), 50, "{}", topic.name);
            assert!(values.values().all(|of_key| *of_key == expected), "{}: {values:?}", topic.name);
        }
        // By whoever was writing at that moment.
        let said: Vec<String> =
            [&plain, &whole, &short].iter().flat_map(|topic| topic.said.lock().unwrap().clone()).collect();
        assert!(said.first().is_some_and(|text| text.contains("\" does not answer: ")), "{said:?}");
    });
}
