//! Dead letters of topics: whatever a broker delivers and a table cannot take is in `$errors` and in the topic that
//! `'errors.topic'` names, byte for byte, and REPAIR TABLE mends it; live and in a replay.

use std::collections::BTreeSet;
use std::path::Path;

use deltaworks_connectors::format::text::write_json_datum;
use deltaworks_dataflow::{DataType, Datum};
use rdkafka::Message;
use rdkafka::message::{Headers, OwnedMessage};

use crate::broker::{Broker, Sender, shared};
use crate::program::{Run, Running, script, shell, wait_for};

/// A header's name and value.
type Header = (&'static str, Option<&'static [u8]>);
/// A record and why it is a dead letter: key, value, field, what the reason says.
type Letter = (Option<&'static [u8]>, Option<&'static [u8]>, Option<&'static str>, &'static str);

/// What the table of [`values`] cannot take; the first is at offset 1.
const LETTERS: [Letter; 12] = [
    (Some(b"b"), Some(b"{\"id\":\"b\""), None, "invalid JSON"),
    (Some(b"c"), Some(b"{\"id\":\"c\",\"n\":\"\xff\"}"), None, "UTF-8"),
    (Some(b"d"), Some(b"{\"id\":\"d\"}"), Some("n"), "the field is missing in a NOT NULL column"),
    (Some(b"e"), Some(b"{\"id\":\"e\",\"n\":null}"), Some("n"), "NULL in a NOT NULL column"),
    (None, Some(b"{\"id\":null,\"n\":5}"), Some("id"), "NULL in a key column"),
    (Some(b"g"), Some(b"{\"id\":\"g\",\"n\":128}"), Some("n"), "128 is out of range for TINYINT"),
    (Some(b"h"), Some(b"{\"id\":\"h\",\"n\":-129}"), Some("n"), "-129 is out of range for TINYINT"),
    (Some(b"i"), Some(b"{\"id\":\"i\",\"n\":1,\"amount\":9999.995}"), Some("amount"), "out of range for DECIMAL(6, 2)"),
    (Some(b"j"), Some(b"{\"id\":\"j\",\"n\":1,\"at\":\"2026-02-30\"}"), Some("at"), "out of range for DATE"),
    (Some(b"k"), Some(&[b'x'; 2000]), None, "too large: 2001 bytes are more than the 1024 of 'errors.record-bytes-max'"),
    (None, None, None, "neither a value nor a key"),
    (Some(b"\xff\x00"), None, Some("id"), "UTF-8"),
];
/// Headers of every letter: twice the same name, nothing, and no value at all.
const HEADERS: [Header; 4] =
    [("trace", Some(b"1")), ("trace", Some(b"2 \"\xC3\xA9\"")), ("empty", Some(b"")), ("none", None)];

/// Sends a good record, the letters with their offsets as timestamps, and a good one behind them.
fn send_letters(sender: &Sender, topic: &str) {
    sender.send(topic, 1, Some(1), Some(b"a"), Some(b"{\"id\":\"a\",\"n\":-128,\"amount\":9999.994}"));
    for (place, (key, value, _, _)) in LETTERS.iter().enumerate() {
        sender.send_with_headers(topic, 1, Some(place as i64 + 2), (*key, *value), &HEADERS);
    }
    sender.send(topic, 1, Some(90), Some(b"z"), Some(b"{\"id\":\"z\",\"n\":127}"));
    sender.flush();
}
/// The table `e` on a topic.
fn values(broker: &Broker, topic: &str, options: &str) -> String {
    format!(
        "CREATE TABLE e (id STRING, n TINYINT NOT NULL, amount DECIMAL(6, 2), at DATE, PRIMARY KEY (id) NOT ENFORCED)
           WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{}', 'format' = 'json',
                 'errors.record-bytes-max' = '1 kb'{options});\n",
        broker.address()
    )
}
const BOUNDED: &str = ", 'scan.bounded.mode' = 'latest-offset'";

fn succeeds(folder: &Path, sql: &str, arguments: &[&str]) -> Run {
    let run = script(folder, sql, arguments);
    assert_eq!(run.code, Some(0), "{sql}\n{}", run.stderr);
    run
}
fn json(datum: &Datum<'_>, data_type: &DataType) -> String {
    let mut text = Vec::new();
    write_json_datum(datum, data_type, &mut text);
    String::from_utf8(text).unwrap()
}
fn bytes(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_string(), |bytes| json(&Datum::Bytes(bytes.into()), &DataType::Bytes))
}
/// What `SELECT source, partition, position, record_ts, key, value, field FROM e$errors` has of a letter.
fn row(topic: &str, offset: usize, letter: &Letter) -> String {
    let (key, value, field, _) = letter;
    let field = field.map_or("null".to_string(), |field| format!("\"{field}\""));
    format!(
        "{{\"source\":\"{topic}\",\"partition\":1,\"position\":{offset},\"record_ts\":\"1970-01-01 00:00:00.{:03}Z\",\
         \"key\":{},\"value\":{},\"field\":{field}}}",
        offset + 1,
        bytes(*key),
        bytes(*value)
    )
    // Trailing zeros are cut.
    .replace("0Z\"", "Z\"")
}
/// A header of a message, as often as it is there.
fn header(message: &OwnedMessage, name: &str) -> Vec<Option<Vec<u8>>> {
    let all = message.headers().unwrap().iter().filter(|header| header.key == name);
    all.map(|header| header.value.map(<[u8]>::to_vec)).collect()
}
/// A letter in the topic of dead letters is the record, and says where it is from and why it is there.
fn check_written(message: &OwnedMessage, topic: &str, offset: usize, letter: &Letter) {
    let (key, value, field, reason) = letter;
    assert_eq!((message.key(), message.payload()), (*key, *value), "{reason}");
    assert_eq!(message.timestamp().to_millis(), Some(offset as i64 + 1), "{reason}");
    let own = message.headers().unwrap().iter().take(4).map(|header| (header.key, header.value)).collect::<Vec<_>>();
    assert_eq!(own, HEADERS, "{reason}");
    let why = |name: &str| {
        let found = header(message, &format!("deltaworks.errors.{name}"));
        assert!(found.len() < 2, "{name}: {found:?}");
        found.into_iter().next().map(|value| String::from_utf8(value.unwrap()).unwrap())
    };
    let place = ["table", "topic", "partition", "offset", "timestamp"].map(|name| why(name).unwrap());
    assert_eq!(place, ["e", topic, "1", &offset.to_string(), &(offset + 1).to_string()]);
    assert_eq!(why("field").as_deref(), *field);
    assert!(why("reason").unwrap().contains(reason), "{reason}: {:?}", why("reason"));
}

#[test]
fn whatever_cannot_be_taken_is_a_letter_and_is_repaired() {
    let Some(broker) = shared() else { return };
    broker.create_topic("letters-all", 2);
    broker.create_topic("letters-dead", 1);
    send_letters(&broker.producer(), "letters-all");
    let folder = tempfile::tempdir().unwrap();
    let sql = values(broker, "letters-all", &format!("{BOUNDED}, 'errors.topic' = 'letters-dead'"))
        + "SELECT id, n, amount FROM e;
           SELECT source, partition, position, record_ts, key, value, field FROM e$errors ORDER BY position;
           SELECT reason FROM e$errors ORDER BY position;
           SHOW ERRORS;
           REPAIR TABLE e FROM SELECT CAST(key AS STRING), 7, NULL, NULL, source, partition, position
             FROM e$errors WHERE field = 'n';
           SELECT id, n FROM e;
           SELECT COUNT(*) AS letters, COUNT(field) AS with_field FROM e$errors;
           SHOW ERRORS;";
    let run = succeeds(folder.path(), &sql, &["--record", "recording"]);
    let lines: Vec<&str> = run.stdout.lines().collect();
    let good = r#"[{"id":"a","n":-128,"amount":9999.99},{"id":"z","n":127,"amount":null}]"#;
    assert_eq!(lines[0], good);
    let letters = || LETTERS.iter().enumerate().map(|(place, letter)| (place + 1, letter));
    let rows: Vec<String> = letters().map(|(offset, letter)| row("letters-all", offset, letter)).collect();
    assert_eq!(lines[1], format!("[{}]", rows.join(",")));
    let reasons: Vec<serde_json::Value> = serde_json::from_str(lines[2]).unwrap();
    for (found, (_, _, _, reason)) in reasons.iter().zip(&LETTERS) {
        assert!(found["reason"].as_str().unwrap().contains(reason), "{reason}: {found}");
    }
    assert!(lines[3].contains(r#""what":"dead letters, see e$errors","count":12"#), "{}", lines[3]);
    // Four letters are of field n: d, e, g and h.
    let repaired =
        r#"[{"id":"a","n":-128},{"id":"d","n":7},{"id":"e","n":7},{"id":"g","n":7},{"id":"h","n":7},{"id":"z","n":127}]"#;
    assert_eq!(lines[4..6], [repaired, r#"[{"letters":8,"with_field":4}]"#]);
    assert!(lines[6].contains(r#""count":8"#), "{}", lines[6]);
    for said in [
        "4 rows of e repaired, 4 dead letters removed",
        "8 records of e could not be decoded and are in e$errors",
        "12 dead letters of e written to topic \"letters-dead\"",
    ] {
        assert!(run.stderr.contains(said), "{said}\n{}", run.stderr);
    }
    let written = broker.read("letters-dead");
    assert_eq!(written.len(), LETTERS.len());
    letters().zip(&written).for_each(|((offset, letter), message)| check_written(message, "letters-all", offset, letter));

    // Without a broker: the same answers, and the letters in a file.
    let replayed = succeeds(folder.path(), &sql, &["--replay", "recording"]);
    assert_eq!(replayed.stdout, run.stdout);
    assert!(replayed.stderr.contains("12 dead letters of e written to \"./out/letters-dead.jsonl\""), "{}", replayed.stderr);
    let file = std::fs::read_to_string(folder.path().join("out/letters-dead.jsonl")).unwrap();
    assert_eq!(file.lines().count(), LETTERS.len());
    for (line, row) in file.lines().zip(&rows) {
        let (op, written) = line.split_once(",\"row\":").unwrap();
        let start = format!("{},\"reason\":\"", &row[..row.len() - 1]);
        assert!(op.starts_with("{\"op\":\"+I\",\"tick\":") && written.starts_with(&start), "{line}\n{start}");
        assert!(written.contains("\"seen_at\":\"20"), "{line}");
    }
    assert_eq!(broker.read("letters-dead").len(), LETTERS.len());
}

#[test]
fn letters_are_repaired_whatever_the_merge_engine() {
    let Some(broker) = shared() else { return };
    broker.create_topic("letters-merge", 2);
    let sender = broker.producer();
    for (key, value) in [("a", "1"), ("b", "\"two\""), ("a", "\"three\""), ("b", "4"), ("c", "\"five\"")] {
        let value = format!("{{\"id\":\"{key}\",\"n\":{value},\"v\":{value}}}");
        sender.send("letters-merge", 0, Some(1), Some(key.as_bytes()), Some(value.as_bytes()));
    }
    sender.flush();
    // By hand: of the letters (b, 2), (a, 3) and (c, 5) that arrive after (a, 1) and (b, 4).
    let cases = [
        ("'last_row'", [("a", 3), ("b", 2), ("c", 5)]),
        ("'first_row'", [("a", 1), ("b", 4), ("c", 5)]),
        ("'first_row', 'table.merge-engine.first_row.order-column' = 'v'", [("a", 1), ("b", 2), ("c", 5)]),
        ("'versioned', 'table.merge-engine.versioned.ver-column' = 'v'", [("a", 3), ("b", 4), ("c", 5)]),
        ("'partial_update'", [("a", 3), ("b", 2), ("c", 5)]),
        ("'aggregation', 'fields.n.agg' = 'sum'", [("a", 4), ("b", 6), ("c", 5)]),
    ];
    let mend = "CASE CAST(key AS STRING) WHEN 'a' THEN 3 WHEN 'b' THEN 2 ELSE 5 END";
    for (engine, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let sql = format!(
            "CREATE TABLE e (id STRING, n BIGINT, v BIGINT, PRIMARY KEY (id) NOT ENFORCED)
               WITH ('connector' = 'kafka', 'topic' = 'letters-merge', 'properties.bootstrap.servers' = '{}',
                     'format' = 'json'{BOUNDED}, 'table.merge-engine' = {engine});
             CREATE DYNAMIC TABLE bad AS SELECT field, COUNT(*) AS n FROM e$errors GROUP BY field;
             SELECT n FROM bad;
             REPAIR TABLE e FROM SELECT CAST(key AS STRING), {mend}, {mend}, source, partition, position FROM e$errors;
             SELECT id, n FROM e; SELECT position FROM e$errors; SELECT n FROM bad;",
            broker.address()
        );
        let run = succeeds(folder.path(), &sql, &[]);
        let rows = expected.map(|(id, n)| format!("{{\"id\":\"{id}\",\"n\":{n}}}"));
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert_eq!(lines, ["[{\"n\":3}]", &format!("[{}]", rows.join(",")), "[]", "[]"], "{engine}");
    }
}

#[test]
fn operations_that_are_not_known_or_not_allowed_are_letters() {
    let Some(broker) = shared() else { return };
    for topic in ["letters-cdc", "letters-plain", "letters-shared"] {
        broker.create_topic(topic, 1);
    }
    let sender = broker.producer();
    let cdc = [
        ("1", r#"{"before":null,"after":{"id":1,"n":1},"op":"c"}"#),
        ("1", r#"{"before":null,"after":{"id":1,"n":2},"op":"x"}"#),
        ("1", r#"{"before":{"id":1,"n":1},"after":null,"op":"d"}"#),
        ("2", r#"{"before":null,"after":null,"op":"t"}"#),
        ("2", "7"),
    ];
    for (timestamp, (key, value)) in cdc.iter().enumerate() {
        sender.send("letters-cdc", 0, Some(timestamp as i64 + 1), Some(key.as_bytes()), Some(value.as_bytes()));
    }
    sender.send("letters-plain", 0, Some(100), Some(b"5"), Some(b"{\"id\":5,\"n\":5}"));
    sender.send("letters-plain", 0, Some(101), Some(b"5"), None);
    sender.flush();
    let table = |name: &str, topic: &str, format: &str| {
        format!(
            "CREATE TABLE {name} (id INT, n INT, PRIMARY KEY (id) NOT ENFORCED)
               WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{}',
                     'format' = '{format}'{BOUNDED}, 'table.delete.behavior' = 'disable', 'errors.topic' = 'letters-shared');\n",
            broker.address()
        )
    };
    let sql = table("changed", "letters-cdc", "debezium-json")
        + &table("plain", "letters-plain", "json")
        + "SELECT * FROM changed; SELECT * FROM plain;
           SELECT source, position, key, field, reason FROM changed$errors ORDER BY position;
           SELECT source, position, key, value, reason FROM plain$errors; SHOW ERRORS;";
    let folder = tempfile::tempdir().unwrap();
    let run = succeeds(folder.path(), &sql, &["--record", "recording"]);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[..2], ["[{\"id\":1,\"n\":1}]", "[{\"id\":5,\"n\":5}]"]);
    let letter = |position: usize, key: &str, field: &str, reason: &str| {
        let key = bytes(Some(key.as_bytes()));
        format!(
            "{{\"source\":\"letters-cdc\",\"position\":{position},\"key\":{key},\"field\":{field},\"reason\":\"{reason}\"}}"
        )
    };
    let letters = [
        letter(1, "1", "\"op\"", "unknown operation \\\"x\\\""),
        letter(2, "1", "null", "the table does not allow deletes"),
        letter(3, "2", "\"op\"", "the table was truncated, which is not carried over yet"),
        letter(4, "2", "null", "expected a change envelope, which is an object"),
    ];
    assert_eq!(lines[2], format!("[{}]", letters.join(",")));
    let key = bytes(Some(b"5"));
    let tombstone = format!(
        "[{{\"source\":\"letters-plain\",\"position\":1,\"key\":{key},\"value\":null,\"reason\":\"the table does not allow deletes\"}}]"
    );
    assert_eq!(lines[3], tombstone);
    for counted in [r#"see changed$errors","count":4"#, r#"see plain$errors","count":1"#] {
        assert!(lines[4].contains(counted), "{}", lines[4]);
    }
    // Both tables write one topic.
    assert!(run.stderr.contains("4 dead letters of changed written to topic \"letters-shared\""), "{}", run.stderr);
    assert!(run.stderr.contains("1 dead letter of plain written to topic \"letters-shared\""), "{}", run.stderr);
    let written = broker.read("letters-shared");
    let of_table = |name: &str| {
        let name = Some(name.as_bytes().to_vec());
        written.iter().filter(|message| header(message, "deltaworks.errors.table") == [name.clone()]).collect::<Vec<_>>()
    };
    let changed: Vec<_> = of_table("changed").iter().map(|message| message.payload().unwrap().to_vec()).collect();
    assert_eq!(changed, cdc[1..].iter().map(|(_, value)| value.as_bytes().to_vec()).collect::<Vec<_>>());
    let plain: Vec<_> = of_table("plain").iter().map(|message| (message.key().unwrap(), message.payload())).collect();
    assert_eq!(plain, [(b"5".as_slice(), None)]);
    let replayed = succeeds(folder.path(), &sql, &["--replay", "recording"]);
    assert_eq!(replayed.stdout, run.stdout);
    let file = std::fs::read_to_string(folder.path().join("out/letters-shared.jsonl")).unwrap();
    assert_eq!(file.lines().count(), 5);
}

#[test]
fn letters_are_written_while_a_job_runs() {
    let Some(broker) = shared() else { return };
    broker.create_topic("letters-live", 2);
    broker.create_topic("letters-live-dead", 1);
    let sender = broker.producer();
    let folder = tempfile::tempdir().unwrap();
    let sql = values(broker, "letters-live", ", 'errors.topic' = 'letters-live-dead'")
        + "CREATE TABLE total (one INT, n BIGINT, PRIMARY KEY (one))
             WITH ('connector' = 'filesystem', 'path' = 'total.jsonl', 'format' = 'changelog-json');
           INSERT INTO total SELECT 1, COUNT(*) FROM e;";
    let running = Running::start(folder.path(), &sql);
    for round in 1..=2 {
        send_letters(&sender, "letters-live");
        // The same keys again.
        wait_for(&folder.path().join("total.jsonl"), "\"n\":2}");
        let written = || broker.read("letters-live-dead").len();
        let patience = std::time::Instant::now();
        while written() < round * LETTERS.len() {
            assert!(patience.elapsed() < std::time::Duration::from_secs(60), "{} letters", written());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("24 dead letters of e written to topic \"letters-live-dead\""), "{said}");
    assert_eq!(broker.read("letters-live-dead").len(), 24);
}

#[test]
fn a_shell_hands_its_letters_on_before_it_ends() {
    let Some(broker) = shared() else { return };
    broker.create_topic("letters-shell", 2);
    broker.create_topic("letters-shell-dead", 1);
    send_letters(&broker.producer(), "letters-shell");
    // Nothing is sent before the shell ends.
    let slow = ", 'properties.linger.ms' = '60000', 'errors.topic' = 'letters-shell-dead'";
    let sql = values(broker, "letters-shell", slow)
        + "SELECT id FROM e;
           REPAIR TABLE e FROM SELECT CAST(key AS STRING), 7, NULL, NULL, source, partition, position
             FROM e$errors WHERE field = 'n';
           SELECT COUNT(*) AS letters FROM e$errors;\n";
    let folder = tempfile::tempdir().unwrap();
    let run = shell(folder.path(), &sql);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), "[{\"id\":\"a\"},{\"id\":\"z\"}]\n[{\"letters\":8}]\n"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("4 rows of e repaired, 4 dead letters removed"), "{}", run.stderr);
    assert_eq!(broker.read("letters-shell-dead").len(), LETTERS.len());
}

#[test]
fn letters_wait_while_the_broker_is_away() {
    let Some(_) = shared() else { return };
    let Some(broker) = Broker::start() else { return };
    broker.create_topic("away", 2);
    broker.create_topic("away-dead", 1);
    let sender = broker.producer();
    for n in 0..20_000 {
        sender.send("away", 1, Some(n + 1), None, Some(b"no JSON"));
    }
    sender.flush();
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(
        folder.path(),
        &(values(&broker, "away", ", 'errors.topic' = 'away-dead'")
            + "CREATE TABLE out (id STRING, n INT, PRIMARY KEY (id)) WITH ('connector' = 'blackhole');
               INSERT INTO out SELECT id, n FROM e;"),
    );
    let offsets = || -> BTreeSet<Vec<u8>> {
        let written = broker.read("away-dead");
        written.iter().map(|message| header(message, "deltaworks.errors.offset").remove(0).unwrap()).collect()
    };
    let wait = |least: usize| {
        for _ in 0..600 {
            if offsets().len() >= least {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{} of {least} letters", offsets().len());
    };
    wait(1);
    broker.kill();
    std::thread::sleep(std::time::Duration::from_secs(2));
    broker.restart();
    wait(20_000);
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("what is written to topic \"away-dead\" waits") || said.contains("does not answer"), "{said}");
    assert!(said.contains("20000 dead letters of e written to topic \"away-dead\""), "{said}");
}

/// Runs a script that fails at a table with a message and a help.
fn fails(sql: &str, place: &str, message: &str, help: &str) {
    let folder = tempfile::tempdir().unwrap();
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(1), "{sql}\n{}", run.stderr);
    let error = run.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.starts_with(&format!("error: job.sql:{place}: ")) && error.contains(message), "{message}\n{}", run.stderr);
    assert!(run.stderr.contains(&format!("\n  help: {help}")), "{help}\n{}", run.stderr);
}

#[test]
fn a_topic_that_cannot_take_letters_is_said_at_once() {
    let Some(broker) = shared() else { return };
    for topic in ["letters-one", "letters-two"] {
        broker.create_topic(topic, 1);
    }
    let select = "SELECT COUNT(*) FROM e;";
    let table = |topic: &str| values(broker, "letters-one", &format!(", 'errors.topic' = '{topic}'")) + select;
    fails(&format!("\n{}", table("letters-none")), "2:1", "topic \"letters-none\" does not exist", "create the topic");
    fails(
        &table("letters-one"),
        "1:1",
        "\"letters-one\" of option \"errors.topic\"",
        "expected another topic than the table reads",
    );
    fails(&table("a;b"), "1:1", "\"a;b\" of option \"errors.topic\"", "expected one topic");
    let failing = values(broker, "letters-one", ", 'errors' = 'fail', 'errors.topic' = 'letters-two'");
    fails(&failing, "1:1", "option \"errors.topic\"", "expected nothing beside 'errors' = 'fail'");
    // Round two tables.
    let other = values(broker, "letters-two", ", 'errors.topic' = 'letters-one'").replace("TABLE e", "TABLE f");
    let both = other + &values(broker, "letters-one", ", 'errors.topic' = 'letters-two'");
    let sql = format!("{both}SELECT COUNT(*) FROM e; SELECT COUNT(*) FROM f;");
    fails(
        &sql,
        "4:1",
        "dead letters of \"e\" would come back to it",
        "give one of the tables on the way another 'errors.topic'",
    );
    // A table that is written has none.
    let sink = values(broker, "letters-one", ", 'errors.topic' = 'letters-two'");
    let sql = format!("CREATE TABLE t (id STRING, n TINYINT); {sink}INSERT INTO e SELECT id, n, NULL, NULL FROM t;");
    fails(&sql, "4:1", "option \"errors.topic\"", "expected nothing: a table that is written has no dead letters");
}

#[test]
fn headers_are_kept_as_they_are() {
    let Some(broker) = shared() else { return };
    broker.create_topic("headers", 1);
    let sender = broker.producer();
    let headers: [&[Header]; 4] =
        [&HEADERS, &[], &[("", Some(b"\n\\")), ("é", None)], &[("null", Some(b"null")), ("json", Some(b"{\"a\":1}"))]];
    for (n, headers) in headers.iter().enumerate() {
        sender.send_with_headers("headers", 0, Some(n as i64 + 1), (None, Some(b"{\"n\":1}")), headers);
    }
    sender.flush();
    let expected = [
        Some(r#"{"trace":"1","trace":"2 \"é\"","empty":"","none":null}"#),
        None,
        Some(r#"{"":"\n\\","é":null}"#),
        Some(r#"{"null":"null","json":"{\"a\":1}"}"#),
    ];
    let sql = format!(
        "CREATE TABLE h (n INT, at BIGINT METADATA FROM 'offset' VIRTUAL, headers STRING METADATA FROM 'headers' VIRTUAL)
           WITH ('connector' = 'kafka', 'topic' = 'headers', 'properties.bootstrap.servers' = '{}', 'format' = 'json'{BOUNDED});
         SELECT headers FROM h ORDER BY at;",
        broker.address()
    );
    let folder = tempfile::tempdir().unwrap();
    let run = succeeds(folder.path(), &sql, &["--record", "recording"]);
    let rows = expected.map(|text| {
        let text = text.map_or("null".to_string(), |text| json(&Datum::str(text), &DataType::String));
        format!("{{\"headers\":{text}}}")
    });
    assert_eq!(run.stdout, format!("[{}]\n", rows.join(",")));
    let line = |(offset, headers): (usize, &Option<&str>)| {
        let headers = headers.map_or(String::new(), |headers| format!(",\"headers\":{headers}"));
        format!("{{\"offset\":{offset},\"timestamp\":{},\"value\":{{\"n\":1}}{headers}}}\n", offset + 1)
    };
    let recorded = std::fs::read_to_string(folder.path().join("recording/headers/0.jsonl")).unwrap();
    assert_eq!(recorded, expected.iter().enumerate().map(line).collect::<String>());
    assert_eq!(succeeds(folder.path(), &sql, &["--replay", "recording"]).stdout, run.stdout);
}
