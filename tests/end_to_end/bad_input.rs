//! Broken records and broken scripts: nothing is lost, and every error names the place and the remedy.

use std::path::Path;

use crate::program::script;

const TABLE: &str = "CREATE TABLE event (id STRING, n INT NOT NULL, at TIMESTAMP, PRIMARY KEY (id) NOT ENFORCED)
    WITH ('connector' = 'kafka', 'topic' = 'event', 'format' = 'json'";

fn recording(folder: &Path, lines: &[&str]) {
    std::fs::create_dir_all(folder.join("topics/event")).unwrap();
    std::fs::write(folder.join("topics/event/0.jsonl"), lines.join("\n") + "\n").unwrap();
}

#[test]
fn broken_records_are_dead_letters_and_the_rest_loads() {
    let folder = tempfile::tempdir().unwrap();
    recording(
        folder.path(),
        &[
            r#"{"offset":0,"timestamp":1,"key":"a","value":{"id":"a","n":1}}"#,
            r#"{"offset":1,"timestamp":2,"key":"b","value":"{broken"}"#,
            r#"{"offset":2,"timestamp":3,"key":"c","value":{"id":"c","n":"many"}}"#,
            r#"{"offset":3,"timestamp":4,"key":"d","value":{"id":"d"}}"#,
            r#"{"offset":4,"timestamp":5,"key":"e","value":{"n":5}}"#,
            r#"{"offset":5,"timestamp":6,"key":"f","value":[1]}"#,
            "not a record at all",
            r#"{"offset":7,"timestamp":8,"key":"g","value":{"id":"g","n":7,"more":true}}"#,
        ],
    );
    let sql = format!(
        "{TABLE}); SELECT id, n FROM event;
         SELECT position, field FROM event$errors ORDER BY position;"
    );
    let run = script(folder.path(), &sql, &["--replay", "topics"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let mut lines = run.stdout.lines();
    assert_eq!(lines.next(), Some(r#"[{"id":"a","n":1},{"id":"g","n":7}]"#));
    let letters = lines.next().unwrap();
    for (position, field) in [(1, "null"), (2, "\"n\""), (3, "\"n\""), (4, "\"id\""), (5, "null"), (6, "null")] {
        let letter = format!("{{\"position\":{position},\"field\":{field}}}");
        assert!(letters.contains(&letter), "{letter} is not in {letters}");
    }
    assert!(run.stderr.contains("6 records of event could not be decoded"), "{}", run.stderr);
}

#[test]
fn a_table_may_ask_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    recording(folder.path(), &[r#"{"offset":0,"timestamp":1,"key":"a","value":{"id":"a"}}"#]);
    let run = script(folder.path(), &format!("{TABLE}, 'errors' = 'fail'); SELECT * FROM event"), &["--replay", "topics"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("\"event\" partition 0 offset 0"), "{}", run.stderr);
}

#[test]
fn what_a_script_can_get_wrong() {
    let cases = [
        ("SELECT * FROM nowhere", "\"nowhere\" does not exist"),
        ("CREATE TABLE t (a INT); SELECT b FROM t", "b"),
        ("CREATE TABLE t (a INT, a INT)", "column \"a\" is declared twice"),
        ("CREATE TABLE t (a INT); CREATE TABLE t (a INT)", "\"t\" exists already"),
        ("CREATE TABLE t (a STRING); SELECT * FROM t WHERE a = 1", "cast"),
        ("CREATE TABLE t (a INT); CREATE DYNAMIC TABLE v AS SELECT a FROM t; DROP TABLE t", "\"v\""),
        ("CREATE TABLE t (a INT, PRIMARY KEY (b))", "\"b\""),
        ("CREATE TABLE t (a INT) WITH ('connector' = 'carrier-pigeon')", "carrier-pigeon"),
        ("CREATE TABLE t (a INT) WITH ('table.merge-engine' = 'first_row')", "needs a key"),
        ("CREATE TABLE t (a INT, PRIMARY KEY (a)); INSERT INTO t VALUES (NULL)", "NOT NULL"),
        ("CREATE TABLE t (a INT); INSERT INTO t VALUES (1, 2)", "2 values for 1"),
        (
            "CREATE TABLE a (k INT, PRIMARY KEY (k)) WITH ('table.merge-engine' = 'last_row');
             CREATE TABLE b (k INT, PRIMARY KEY (k)) WITH ('table.merge-engine' = 'last_row');
             INSERT INTO a SELECT k FROM b; INSERT INTO b SELECT k FROM a",
            "circle",
        ),
        (
            "CREATE TABLE e (a INT) WITH ('connector' = 'filesystem', 'path' = 'no.json', 'format' = 'json'); SELECT * FROM e",
            "no.json",
        ),
        (
            "CREATE TABLE e (a INT) WITH ('connector' = 'kafka', 'topic' = 'e', 'format' = 'json'); SELECT * FROM e",
            "--replay",
        ),
        ("CREATE EXTERNAL FUNCTION f(a INT) RETURNS INT CONNECTION = c", "API connection \"c\" does not exist"),
        ("CREATE API CONNECTION c TYPE = 'http'", "has no URL"),
        ("CREATE TABLE t (a STRING); CREATE PIPE p AS COPY INTO t FROM (SELECT 'x' AS a)", "reads no topic"),
        (
            "CREATE TABLE t (a STRING); CREATE PIPE p AS COPY INTO t FROM (SELECT value FROM READ_KAFKA('b:1', 'x', '', '', '', '', '', '', '', 'json'))",
            "'json'",
        ),
    ];
    for (sql, message) in cases {
        let folder = tempfile::tempdir().unwrap();
        let run = script(folder.path(), sql, &[]);
        assert_eq!(run.code, Some(1), "{sql}\n{}{}", run.stdout, run.stderr);
        let errors: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "{sql}\n{}", run.stderr);
        assert!(run.stderr.contains(message), "{sql}\nshould say {message}:\n{}", run.stderr);
        assert!(run.stderr.contains("\n  help: "), "{sql}\n{}", run.stderr);
    }
}

#[test]
fn a_missing_topic_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("topics")).unwrap();
    let run = script(folder.path(), &format!("{TABLE}); SELECT * FROM event"), &["--replay", "topics"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("event"), "{}", run.stderr);
}
