//! Dead letters: how long `$errors` keeps them, what is said when they leave, and what reads them.

use std::path::Path;

use crate::program::{Run, fold, script};

fn succeeds(folder: &Path, sql: &str, arguments: &[&str]) -> Run {
    let run = script(folder, sql, arguments);
    assert_eq!(run.code, Some(0), "{sql}\n{}", run.stderr);
    run
}
/// Records (timestamp in milliseconds, value) of topic "event".
fn recording(folder: &Path, records: &[(i64, String)]) {
    std::fs::create_dir_all(folder.join("topics/event")).unwrap();
    let line = |(offset, (timestamp, value)): (usize, &(i64, String))| {
        format!("{{\"offset\":{offset},\"timestamp\":{timestamp},\"value\":{value}}}\n")
    };
    let lines: String = records.iter().enumerate().map(line).collect();
    std::fs::write(folder.join("topics/event/0.jsonl"), lines).unwrap();
}
fn table(name: &str, options: &str) -> String {
    format!("CREATE TABLE {name} (n INT) WITH ('connector' = 'kafka', 'topic' = 'event', 'format' = 'json'{options});\n")
}

#[test]
fn letters_leave_when_they_are_old() {
    const DAY: i64 = 86_400_000;
    let bad = |timestamp: i64| (timestamp, "{\"n\":\"x\"}".to_string());
    let sql = table("e", "") + &table("f", ", 'errors.retention' = '30 d'")
        + "CREATE DYNAMIC TABLE bad AS SELECT COUNT(*) AS n FROM e$errors;
           SELECT position FROM e$errors ORDER BY position; SELECT COUNT(*) AS n FROM f$errors; SELECT n FROM bad; SHOW ERRORS;";
    // By hand: at 1 s + 7 days the first is exactly 7 days old, and stays; a millisecond later it has left.
    let aged = r#"[{"position":1}]"#;
    for (last, expected, n) in [(1000 + 7 * DAY, r#"[{"position":0},{"position":1}]"#, 2), (1001 + 7 * DAY, aged, 1)] {
        let folder = tempfile::tempdir().unwrap();
        recording(folder.path(), &[bad(1000), bad(2000), (last, "{\"n\":1}".to_string())]);
        let run = succeeds(folder.path(), &sql, &["--replay", "topics", "--tick-records", "1"]);
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert_eq!(lines[..3], [expected, "[{\"n\":2}]", &format!("[{{\"n\":{n}}}]")]);
        let left = r#""what":"dead letters that left e$errors for their age","count":1"#;
        assert_eq!((lines[3].contains(left), n), (n == 1, n), "{}", lines[3]);
        let said = "note: 1 dead letter of e left e$errors for their age";
        assert_eq!(run.stderr.contains(said), n == 1, "{}", run.stderr);
    }
}

#[test]
fn the_oldest_letters_make_room_and_it_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let records: Vec<(i64, String)> = (0..40).map(|n| (n + 1, format!("{{\"n\":\"{}\"}}", "x".repeat(100)))).collect();
    recording(folder.path(), &records);
    let select = "SELECT MIN(position) AS oldest, MAX(position) AS newest, COUNT(*) AS n FROM e$errors; SHOW ERRORS;";
    let sql = table("e", ", 'errors.retention.bytes' = '2 kb'") + select;
    for arguments in [&["--tick-records", "1"][..], &["--tick-records", "7", "--workers", "2"], &[]] {
        let run = succeeds(folder.path(), &sql, &[&["--replay", "topics"], arguments].concat());
        let lines: Vec<&str> = run.stdout.lines().collect();
        // By hand: a letter is its source (5), value (108), reason ("expected INT, found " with the first 80 characters of the value: 102), three
        // terminators and some ten tags, with numbers of up to 4 bytes: 230 to 240 bytes. Eight fit into 2048.
        assert_eq!(lines[0], r#"[{"oldest":32,"newest":39,"n":8}]"#, "{arguments:?}");
        assert!(lines[1].contains(r#""what":"dead letters that left e$errors to make room","count":32"#), "{}", lines[1]);
        assert!(lines[1].contains(r#""what":"dead letters, see e$errors","count":40"#), "{}", lines[1]);
        let said = "warning: 32 dead letters of e left e$errors to make room: 'errors.retention.bytes' allows no more";
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
    // Where nothing reads them, none is held, and none leaves.
    let run = succeeds(
        folder.path(),
        &(table("e", ", 'errors.retention.bytes' = '2 kb'") + "SELECT COUNT(*) FROM e"),
        &["--replay", "topics"],
    );
    assert!(run.stderr.contains("40 records of e could not be decoded"), "{}", run.stderr);
    assert!(!run.stderr.contains("to make room"), "{}", run.stderr);
}

#[test]
fn rows_that_a_table_rejects_are_counted_and_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE raw (id INT, n INT);
        CREATE TABLE t (id INT, n INT NOT NULL, PRIMARY KEY (id)) WITH ('table.merge-engine' = 'last_row');
        INSERT INTO t SELECT id, n FROM raw;
        INSERT INTO raw VALUES (1, 1), (2, NULL), (3, NULL);
        SELECT record_ts, seen_at, reason FROM t$errors LIMIT 1; SHOW ERRORS;
        REPAIR TABLE t FROM SELECT id, n, source, partition, position
          FROM (SELECT ROW_NUMBER() OVER (ORDER BY position) + 1 AS id, 5 AS n, * FROM t$errors) WHERE id = 2;
        SELECT * FROM t; SHOW ERRORS;";
    let run = succeeds(folder.path(), sql, &["--clock", "2026-06-06 00:00:00"]);
    let lines: Vec<&str> = run.stdout.lines().collect();
    let letter = r#"[{"record_ts":null,"seen_at":"2026-06-06 00:00:00Z","reason":"NULL in a column that is NOT NULL or part of the key"}]"#;
    assert_eq!(lines[0], letter);
    assert!(lines[1].contains(r#""what":"dead letters, see t$errors","count":2"#), "{}", lines[1]);
    assert_eq!(lines[2], r#"[{"id":1,"n":1},{"id":2,"n":5}]"#);
    assert!(lines[3].contains(r#""what":"dead letters, see t$errors","count":1"#), "{}", lines[3]);
    assert!(run.stderr.contains("warning: 1 row of t could not be folded and is in t$errors"), "{}", run.stderr);
}

#[test]
fn letters_go_to_a_sink_that_can_take_them_back() {
    let folder = tempfile::tempdir().unwrap();
    recording(folder.path(), &[(1, "{\"n\":\"x\"}".to_string()), (2, "{\"n\":\"y\"}".to_string())]);
    let sink = |key: &str| {
        format!(
            "{}CREATE TABLE bad (position BIGINT, field STRING{key})
               WITH ('connector' = 'filesystem', 'path' = 'bad.jsonl', 'format' = 'changelog-json');
             INSERT INTO bad SELECT position, field FROM e$errors;
             REPAIR TABLE e FROM SELECT 1, source, partition, position FROM e$errors WHERE position = 0;",
            table("e", "")
        )
    };
    let run = script(folder.path(), &sink(""), &["--replay", "topics"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("the query may take rows back"), "{}", run.stderr);
    assert!(run.stderr.contains("help: dead letters leave when they are repaired or old"), "{}", run.stderr);
    succeeds(folder.path(), &sink(", PRIMARY KEY (position)"), &["--replay", "topics"]);
    assert_eq!(fold(&folder.path().join("bad.jsonl")), [r#"{"position":1,"field":"n"}"#]);
}

#[test]
fn options_of_dead_letters_are_checked() {
    let kafka = |options: &str| table("e", options);
    let cases = [
        (kafka(", 'errors' = 'fial'"), "invalid value \"fial\" of option \"errors\""),
        (kafka(", 'errors.retension' = '7 d'"), "unknown option \"errors.retension\""),
        (kafka(", 'errors.retention' = 'long'"), "invalid value \"long\""),
        (kafka(", 'errors.retention' = '0 s'"), "option \"errors.retention\" leaves nothing"),
        (kafka(", 'errors.retention.bytes' = 'many'"), "invalid value \"many\""),
        (kafka(", 'errors.retention.bytes' = '0'"), "option \"errors.retention.bytes\" leaves nothing"),
        (kafka(", 'errors.record-bytes-max' = 'some'"), "invalid value \"some\""),
        (kafka(", 'errors.record-bytes-max' = '0'"), "option \"errors.record-bytes-max\" leaves nothing"),
        ("CREATE TABLE t (n INT) WITH ('errors.retension' = '7 d')".to_string(), "there is no option \"errors.retension\""),
        ("CREATE TABLE t (n INT) WITH ('errors.topic' = 'dead')".to_string(), "option \"errors.topic\""),
        (
            "CREATE TABLE t (n INT) WITH ('connector' = 'filesystem', 'path' = 'x', 'errors.topic' = 'dead')".to_string(),
            "unknown option \"errors.topic\" of connector \"filesystem\"",
        ),
    ];
    for (sql, message) in cases {
        let folder = tempfile::tempdir().unwrap();
        let run = script(folder.path(), &sql, &[]);
        assert_eq!(run.code, Some(1), "{sql}");
        assert!(run.stderr.contains("error: job.sql:1:1: ") && run.stderr.contains(message), "{message}\n{}", run.stderr);
        assert!(run.stderr.contains("\n  help: "), "{}", run.stderr);
    }
    let folder = tempfile::tempdir().unwrap();
    succeeds(
        folder.path(),
        "CREATE TABLE t (n INT) WITH ('errors.retention' = '1 h', 'errors.retention.bytes' = '1 mb')",
        &[],
    );
}
