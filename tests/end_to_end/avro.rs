//! Avro with a schema registry: recorded messages while the registry fails and recovers, and topics of a broker that one job
//! writes and another reads.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::broker::shared;
use crate::http::{received, send};
use crate::program::{Running, script, wait_for};

/// A schema registry with some schemas. Those behind the first are had only once it is well.
#[derive(Clone)]
struct Registry {
    url: String,
    schemas: Arc<Mutex<Vec<String>>>,
    /// How many more questions for other schemas than the first it does not answer.
    failures: Arc<Mutex<u32>>,
}

impl Registry {
    fn start(schemas: &[&str], failures: u32) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Registry {
            url: format!("http://{}", listener.local_addr().unwrap()),
            schemas: Arc::new(Mutex::new(schemas.iter().map(|schema| (*schema).to_string()).collect())),
            failures: Arc::new(Mutex::new(failures)),
        };
        let serving = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map(|stream| stream.unwrap()) {
                let (line, body) = received(&stream);
                let (status, text) = serving.answer(&line, &body);
                send(stream, status, &text);
            }
        });
        registry
    }
    fn answer(&self, line: &str, body: &[u8]) -> (u16, String) {
        let mut schemas = self.schemas.lock().unwrap();
        if line.starts_with("POST /subjects/") {
            let request: Value = serde_json::from_slice(body).unwrap();
            schemas.push(request["schema"].as_str().unwrap().to_string());
            return (200, json!({"id": schemas.len()}).to_string());
        }
        let Some(id) = line.strip_prefix("GET /schemas/ids/") else { return (200, "[\"AVRO\"]".to_string()) };
        let id: usize = id.split(' ').next().unwrap().parse().unwrap();
        let mut failures = self.failures.lock().unwrap();
        if id > 1 && *failures > 0 {
            *failures -= 1;
            return (503, "not now".to_string());
        }
        match schemas.get(id - 1) {
            Some(schema) => (200, json!({"schema": schema}).to_string()),
            None => (404, "{\"error_code\":40403}".to_string()),
        }
    }
    /// A table of recorded messages.
    fn table(&self) -> String {
        format!(
            "CREATE TABLE r (id BIGINT, name STRING, n INT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'kafka', \
             'topic' = 'r', 'value.format' = 'avro-confluent', 'value.avro-confluent.url' = '{}');\n",
            self.url
        )
    }
}

const FIRST: &str = r#"{"type":"record","name":"r","fields":[{"name":"id","type":"long"},{"name":"name","type":"string"}]}"#;
const SECOND: &str = r#"{"type":"record","name":"r","fields":[{"name":"id","type":"long"},{"name":"name","type":"string"},{"name":"n","type":"int"}]}"#;
/// Of schema 1: 1, "a"; of schema 2: 2, "b", 5; of a schema that is not there.
const RECORDS: [&str; 3] = [
    r#"{"offset":0,"timestamp":1,"key":"1","value_base64":"AAAAAAECAmE="}"#,
    r#"{"offset":1,"timestamp":2,"key":"2","value_base64":"AAAAAAIEAmIK"}"#,
    r#"{"offset":2,"timestamp":3,"key":"3","value_base64":"AAAAAAcE"}"#,
];

fn record(folder: &Path) {
    std::fs::create_dir_all(folder.join("topics/r")).unwrap();
    std::fs::write(folder.join("topics/r/0.jsonl"), RECORDS.join("\n") + "\n").unwrap();
}
/// How often a text stands in another.
fn times(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_registry_that_goes_is_waited_for() {
    let registry = Registry::start(&[FIRST, SECOND], 4);
    let folder = tempfile::tempdir().unwrap();
    record(folder.path());
    // A tick per record: those before the one that has to wait are complete.
    let sql = format!("{}SELECT * FROM r; SELECT position, reason FROM r$errors", registry.table());
    let run = script(folder.path(), &sql, &["--replay", "topics", "--tick-records", "1"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let letter = format!("[{{\"position\":2,\"reason\":\"schema 7 is not in the registry at \\\"{}\\\"\"}}]", registry.url);
    let rows = r#"[{"id":1,"name":"a","n":null},{"id":2,"name":"b","n":5}]"#;
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), [rows, &letter]);
    let warning =
        format!("warning: schema registry at \"{}\" does not say what schema 2 is: it answered 503: not now", registry.url);
    assert_eq!(
        (times(&run.stderr, &warning), times(&run.stderr, "warning: the schema registry answers again")),
        (1, 1),
        "{}",
        run.stderr
    );
    assert_eq!(times(&run.stderr, "schema registry"), 2, "{}", run.stderr);
}

#[test]
fn a_job_that_waits_can_be_stopped() {
    let registry = Registry::start(&[FIRST, SECOND], u32::MAX);
    let folder = tempfile::tempdir().unwrap();
    record(folder.path());
    let sql = format!(
        "{}CREATE TABLE written (id BIGINT, name STRING, PRIMARY KEY (id)) WITH ('connector' = 'filesystem', 'path' = 'written.jsonl');\n\
         INSERT INTO written SELECT id, name FROM r",
        registry.table()
    );
    let job = Running::start_with(folder.path(), &sql, &["--replay", "topics", "--tick-records", "1"]);
    // What came before has its way to the sinks.
    wait_for(&folder.path().join("written.jsonl"), "\"id\":1");
    wait_for(&folder.path().join("said.txt"), "what is read waits for it");
    let (code, said) = job.stop();
    assert_eq!((code, times(&said, "schema registry")), (Some(0), 1), "{said}");
    let written = std::fs::read_to_string(folder.path().join("written.jsonl")).unwrap();
    assert_eq!(written.lines().count(), 1, "{written}");
}

#[test]
fn a_registry_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path());
    let nobody = Registry { url: "http://127.0.0.1:1".to_string(), ..Registry::start(&[], 0) };
    let run = script(folder.path(), &format!("{}SELECT * FROM r", nobody.table()), &["--replay", "topics"]);
    let expected = "error: job.sql:1:1: could not reach the schema registry at \"http://127.0.0.1:1\": ";
    assert!(run.code == Some(1) && run.stderr.contains(expected), "{}", run.stderr);
}

#[test]
fn a_job_reads_what_another_wrote() {
    let Some(broker) = shared() else { return };
    let registry = Registry::start(&[], 0);
    let address = broker.address();
    let columns = "id BIGINT, town STRING, at TIMESTAMP_LTZ(3), tags ARRAY<STRING>, PRIMARY KEY (town, id) NOT ENFORCED";
    let topics = [
        (
            "avro_newest",
            "'upsert-kafka', 'key.format' = 'avro-confluent', 'value.fields-include' = 'EXCEPT_KEY'",
            "avro-confluent",
        ),
        ("avro_changes", "'kafka'", "debezium-avro-confluent"),
    ];
    for (topic, options, format) in topics {
        broker.create_topic(topic, 2);
        let table = format!(
            "CREATE TABLE {topic} ({columns}) WITH ('connector' = {options}, 'topic' = '{topic}', 'value.format' = '{format}', \
             'properties.bootstrap.servers' = '{address}', 'value.{format}.url' = '{}');\n",
            registry.url
        );
        let sql = format!(
            "{table}CREATE TABLE given ({columns}); INSERT INTO {topic} SELECT * FROM given;\n\
             INSERT INTO given VALUES (1, 'Köln', TIMESTAMP '2026-05-01 09:00:00', make_array('a', NULL)), \
             (2, 'Bonn', NULL, NULL), (3, 'Ulm', NULL, NULL);\n\
             SELECT COUNT(*) AS n FROM given; DELETE FROM given WHERE id = 3; UPDATE given SET tags = make_array() WHERE id = 2"
        );
        let folder = tempfile::tempdir().unwrap();
        let run = script(folder.path(), &sql, &[]);
        assert_eq!(run.code, Some(0), "{topic}: {}", run.stderr);
        let read = table.replace("'topic'", "'scan.bounded.mode' = 'latest-offset', 'topic'");
        let sql = format!("{read}SELECT * FROM {topic} ORDER BY id; SELECT reason FROM {topic}$errors");
        let run = script(folder.path(), &sql, &[]);
        assert_eq!(run.code, Some(0), "{topic}: {}", run.stderr);
        let rows = r#"[{"id":1,"town":"Köln","at":"2026-05-01 09:00:00Z","tags":["a",null]},{"id":2,"town":"Bonn","at":null,"tags":[]}]"#;
        assert_eq!(run.stdout.lines().collect::<Vec<_>>(), [rows, "[]"], "{topic}");
    }
}
