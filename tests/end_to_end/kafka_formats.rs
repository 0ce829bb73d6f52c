//! Formats of keys and values: jobs on recorded topics whose keys hold columns, and topics of a broker that one job writes and
//! another reads.

use std::path::Path;

use crate::broker::{Broker, shared};
use crate::program::script;

fn record(folder: &Path, topic: &str, lines: &[&str]) {
    std::fs::create_dir_all(folder.join("topics").join(topic)).unwrap();
    std::fs::write(folder.join("topics").join(topic).join("0.jsonl"), lines.join("\n") + "\n").unwrap();
}
/// Runs a script on the recorded topics; its result sets.
fn replayed(folder: &Path, sql: &str) -> Vec<String> {
    let run = script(folder, sql, &["--replay", "topics"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.stdout.lines().map(str::to_string).collect()
}

/// Clicks by user and item: the key holds both, the value the rest and sometimes one of them.
const CLICKS: [&str; 6] = [
    r#"{"offset":0,"timestamp":10,"key":{"user_id":1,"item_id":"a"},"value":{"behavior":"view"}}"#,
    r#"{"offset":1,"timestamp":20,"key":{"user_id":2,"item_id":"b"},"value":{"behavior":"buy","item_id":"c"}}"#,
    r#"{"offset":2,"timestamp":30,"key":{"user_id":"two"},"value":{"behavior":"view"}}"#,
    r#"{"offset":3,"timestamp":40,"key":null,"value":{"behavior":"view","user_id":3}}"#,
    r#"{"offset":4,"timestamp":50,"key":{"user_id":4,"item_id":"d"},"value":{"behavior":"view"}}"#,
    r#"{"offset":5,"timestamp":60,"key":{"user_id":4,"item_id":"d"},"value":null}"#,
];

#[test]
fn columns_are_read_from_keys() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), "click", &CLICKS);
    // The options are those of the example in Flink's documentation of Kafka keys.
    let table = |columns: &str, options: &str| {
        format!(
            "CREATE TABLE click ({columns}, behavior STRING, ts BIGINT METADATA FROM 'timestamp' VIRTUAL{options}) \
             WITH ('connector' = 'kafka', 'topic' = 'click', 'key.format' = 'json', 'key.json.ignore-parse-errors' = 'true', \
             'value.format' = 'json', 'value.json.fail-on-missing-field' = 'false', "
        )
    };
    let letters = "SELECT position, field, reason FROM click$errors ORDER BY position";
    let all = table("user_id BIGINT, item_id STRING", "");
    let results = replayed(
        folder.path(),
        &format!(
            "{all} 'key.fields' = 'user_id;item_id', 'value.fields-include' = 'ALL'); SELECT * FROM click ORDER BY ts; {letters}"
        ),
    );
    let expected = [
        r#"[{"user_id":1,"item_id":"a","behavior":"view","ts":10},{"user_id":2,"item_id":"c","behavior":"buy","ts":20},{"user_id":3,"item_id":null,"behavior":"view","ts":40},{"user_id":4,"item_id":"d","behavior":"view","ts":50}]"#,
        r#"[{"position":2,"field":"user_id","reason":"key: expected BIGINT, found \"two\""},{"position":5,"field":null,"reason":"a record without a value deletes by key, but the table has no key"}]"#,
    ];
    assert_eq!(results, expected);
    // With a PRIMARY KEY of both columns, in another order, the tombstone deletes, and a record without a key has no place.
    let keyed =
        table("k_user_id BIGINT, item_id STRING, k_item_id STRING", ", PRIMARY KEY (k_item_id, k_user_id) NOT ENFORCED");
    let options = "'key.fields' = 'k_user_id;k_item_id', 'key.fields-prefix' = 'k_', 'value.fields-include' = 'EXCEPT_KEY'";
    let results = replayed(folder.path(), &format!("{keyed} {options}); SELECT * FROM click ORDER BY ts; {letters}"));
    let expected = [
        r#"[{"k_user_id":1,"item_id":null,"k_item_id":"a","behavior":"view","ts":10},{"k_user_id":2,"item_id":"c","k_item_id":"b","behavior":"buy","ts":20}]"#,
        r#"[{"position":2,"field":"k_user_id","reason":"key: expected BIGINT, found \"two\""},{"position":3,"field":"k_user_id","reason":"the field is missing in a key column"}]"#,
    ];
    assert_eq!(results, expected);
}

#[test]
fn options_of_keys_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), "click", &CLICKS);
    let refused = |key: &str, options: &str, expected: &str| {
        let sql = format!(
            "SELECT 1 AS n;\n  CREATE TABLE click (user_id BIGINT, behavior STRING{key}) \
             WITH ('connector' = 'kafka', 'topic' = 'click', 'format' = 'json', {options});\nSELECT * FROM click"
        );
        let run = script(folder.path(), &sql, &["--replay", "topics"]);
        assert_eq!(run.code, Some(1), "{options}");
        assert!(run.stderr.contains(expected), "{options}: {}", run.stderr);
    };
    refused(
        "",
        "'key.format' = 'json', 'key.fields' = 'user'",
        "error: job.sql:2:3: invalid value \"user\" of option \"key.fields\"\n  help: expected columns of the table, as in a;b: user_id, behavior",
    );
    refused("", "'key.fields' = 'user_id'", "error: job.sql:2:3: option \"key.fields\" needs 'key.format'");
    refused("", "'key.format' = 'raw'", "error: job.sql:2:3: option \"key.format\" is of no use");
    refused(
        "",
        "'key.format' = 'raw', 'key.fields' = 'user_id', 'key.fields-prefix' = 'user_'",
        "error: job.sql:2:3: option \"key.fields-prefix\" needs 'value.fields-include' = 'EXCEPT_KEY'\n  help: set it",
    );
    let computed = ", user_key AS user_id + 1";
    refused(
        computed,
        "'key.format' = 'raw', 'key.fields' = 'user_key'",
        "expected columns of the table, as in a;b: user_id, behavior",
    );
}

/// A table on a topic of the broker.
fn table(broker: &Broker, topic: &str, columns: &str, options: &str) -> String {
    let address = broker.address();
    format!(
        "CREATE TABLE {topic} ({columns}) WITH ('connector' = {options}, 'topic' = '{topic}', 'properties.bootstrap.servers' = '{address}');\n"
    )
}

#[test]
fn a_job_reads_what_another_wrote_with_the_same_options() {
    let Some(broker) = shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let columns = "k_town STRING, amount DECIMAL(10, 2), k_day DATE";
    let key = ", PRIMARY KEY (k_town, k_day) NOT ENFORCED";
    let except = "'value.fields-include' = 'EXCEPT_KEY', 'key.fields-prefix' = 'k_'";
    let topics = [
        (
            "formats_rows",
            columns.to_string(),
            format!("'kafka', 'key.format' = 'csv', 'key.fields' = 'k_day;k_town', 'value.format' = 'csv', {except}"),
        ),
        (
            "formats_newest",
            format!("{columns}{key}"),
            format!("'upsert-kafka', 'key.format' = 'json', 'value.format' = 'csv', {except}"),
        ),
        (
            "formats_images",
            format!("{columns}{key}"),
            format!(
                "'kafka', 'key.format' = 'json', 'key.fields' = 'k_day;k_town', 'value.format' = 'debezium-json', {except}"
            ),
        ),
    ];
    let rows = "('Berlin, Mitte', 1.50, DATE '2026-05-01'), ('Köln', NULL, DATE '2026-05-02')";
    for (topic, columns, options) in topics {
        broker.create_topic(topic, 2);
        let write = table(broker, topic, &columns, &options);
        let given = format!("CREATE TABLE given ({columns}) WITH ('table.retain' = 'none')").replace(key, "");
        let sql = format!("{write}{given}; INSERT INTO {topic} SELECT * FROM given; INSERT INTO given VALUES {rows}");
        let run = script(folder.path(), &sql, &[]);
        assert_eq!(run.code, Some(0), "{topic}: {}", run.stderr);
        let read = write.replace("'topic'", "'scan.bounded.mode' = 'latest-offset', 'topic'");
        let run = script(
            folder.path(),
            &format!("{read}SELECT * FROM {topic} ORDER BY k_day; SELECT reason FROM {topic}$errors"),
            &[],
        );
        assert_eq!(run.code, Some(0), "{topic}: {}", run.stderr);
        let expected = r#"[{"k_town":"Berlin, Mitte","amount":1.50,"k_day":"2026-05-01"},{"k_town":"Köln","amount":null,"k_day":"2026-05-02"}]"#;
        assert_eq!(run.stdout.lines().collect::<Vec<_>>(), [expected, "[]"], "{topic}");
    }
}

#[cfg(not(feature = "avro"))]
#[test]
fn a_format_that_was_not_built_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), "click", &CLICKS);
    let sql = "CREATE TABLE click (user_id BIGINT) WITH ('connector' = 'kafka', 'topic' = 'click', \
               'format' = 'avro-confluent', 'avro-confluent.url' = 'http://localhost:8081');\nSELECT * FROM click";
    let run = script(folder.path(), sql, &["--replay", "topics"]);
    let expected = "error: job.sql:1:1: unknown format \"avro-confluent\"\n  help: it needs a build of deltaworks with `--features avro`";
    assert!(run.code == Some(1) && run.stderr.contains(expected), "{}", run.stderr);
}
