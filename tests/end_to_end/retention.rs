//! Streams and retention on recorded topics, with the clock of the records; and the pace of a replay.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::program::{Run, fold, script};

/// (timestamp in milliseconds, key, event time in milliseconds, value), in the order of a replay.
const RECORDS: [(i64, &str, i64, i64); 9] = [
    (1_000, "a", 1_000, 1),
    (2_000, "b", 2_000, 2),
    (3_000, "a", 2_500, 3),
    (9_000, "c", 9_000, 4),
    (11_500, "c", 1_000, 5),
    (12_000, "b", 12_000, 6),
    (13_001, "d", 3_001, 7),
    (13_001, "e", 3_000, 8),
    (14_000, "c", 13_500, 9),
];

fn recording(folder: &Path) {
    std::fs::create_dir_all(folder.join("topics/event")).unwrap();
    let line = |(offset, (timestamp, key, at, value)): (usize, &(i64, &str, i64, i64))| {
        let value = format!("{{\"k\":\"{key}\",\"at\":{at},\"v\":{value}}}");
        format!("{{\"offset\":{offset},\"timestamp\":{timestamp},\"key\":\"{key}\",\"value\":{value}}}\n")
    };
    let lines: String = RECORDS.iter().enumerate().map(line).collect();
    std::fs::write(folder.join("topics/event/0.jsonl"), lines).unwrap();
}
/// A table on the recorded topic: `more` stands behind its columns, `options` among its options.
fn table(name: &str, more: &str, options: &str) -> String {
    format!(
        "CREATE TABLE {name} (k STRING, at BIGINT, v INT, ts AS TO_TIMESTAMP_MILLIS(at){more})
           WITH ('connector' = 'kafka', 'topic' = 'event', 'format' = 'json'{options});\n"
    )
}
fn succeeded(run: Run) -> String {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.stdout
}

#[test]
fn rows_leave_by_the_clock_of_the_records_wherever_ticks_end() {
    let sql = [
        table("bag", ", WATERMARK FOR ts AS ts", ", 'table.retention' = '10 s'"),
        table("arrived", "", ", 'table.retention' = '10 s'"),
        table("last", ", WATERMARK FOR ts AS ts, PRIMARY KEY (k) NOT ENFORCED", ", 'table.retention' = '10 s'"),
        table("first", ", PRIMARY KEY (k) NOT ENFORCED", ", 'table.retention' = '10 s', 'table.merge-engine' = 'first_row'"),
        "CREATE DYNAMIC TABLE counted AS SELECT k, COUNT(*) AS n FROM bag GROUP BY k;
         CREATE TABLE mirror (k STRING, v INT, PRIMARY KEY (k) NOT ENFORCED)
           WITH ('connector' = 'filesystem', 'path' = 'out.jsonl', 'format' = 'changelog-json');
         INSERT INTO mirror SELECT k, v FROM last;
         SELECT k, v FROM bag ORDER BY v; SELECT v FROM arrived ORDER BY v; SELECT k, v FROM last ORDER BY v;
         SELECT k, v FROM first ORDER BY v; SELECT k, n FROM counted ORDER BY k;"
            .to_string(),
    ]
    .concat();
    // By hand; the clock ends at 14 s, so what is of 4 s or later is there. By event time: 4, 6, 9 (7 has left at 13.002 s, 8 and
    // 5 were too old when they came). By arrival: 4 to 9. The last version of "c" is of 13.5 s. First by arrival: "a" of 1 s left
    // at 11.001 s and nothing followed; "b" of 2 s left just after 12 s, so that its second record, of 12 s, was not the first;
    // "c" is of 9 s.
    let expected = [
        r#"[{"k":"c","v":4},{"k":"b","v":6},{"k":"c","v":9}]"#,
        r#"[{"v":4},{"v":5},{"v":6},{"v":7},{"v":8},{"v":9}]"#,
        r#"[{"k":"b","v":6},{"k":"c","v":9}]"#,
        r#"[{"k":"c","v":4},{"k":"d","v":7},{"k":"e","v":8}]"#,
        r#"[{"k":"b","n":1},{"k":"c","n":2}]"#,
    ];
    for arguments in [
        &["--tick-records", "1"][..],
        &["--tick-records", "2", "--workers", "2"],
        &["--tick-records", "4"],
        &[],
        &["--replay-speed", "100000x"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        recording(folder.path());
        let arguments = [&["--replay", "topics"], arguments].concat();
        let run = script(folder.path(), &sql, &arguments);
        assert!(run.stderr.contains("of bag were older than its retention on arrival"), "{}", run.stderr);
        let lines = succeeded(run);
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected, "{arguments:?}");
        // What leaves is deleted from the sink too.
        assert_eq!(fold(&folder.path().join("out.jsonl")), [r#"{"k":"b","v":6}"#, r#"{"k":"c","v":9}"#], "{arguments:?}");
    }
}

#[test]
fn a_stream_feeds_aggregates_and_keyed_tables_and_keeps_nothing() {
    let sql = [
        table("event", "", ", 'table.retain' = 'none'"),
        "CREATE TABLE dim (k STRING, name STRING, PRIMARY KEY (k) NOT ENFORCED);
         INSERT INTO dim VALUES ('a', 'Anna'), ('c', 'Carl');
         CREATE TABLE last (k STRING, v INT, PRIMARY KEY (k) NOT ENFORCED) WITH ('table.merge-engine' = 'last_row');
         INSERT INTO last SELECT k, v FROM event;
         CREATE TABLE named (v INT, name STRING, PRIMARY KEY (v) NOT ENFORCED) WITH ('table.merge-engine' = 'last_row');
         INSERT INTO named SELECT e.v, d.name FROM event AS e JOIN dim FOR SYSTEM_TIME AS OF PROCTIME() AS d ON d.k = e.k;
         CREATE DYNAMIC TABLE counted AS SELECT k, COUNT(*) AS n FROM event GROUP BY k;
         SELECT k, v FROM last ORDER BY k; SELECT v, name FROM named ORDER BY v; SELECT k, n FROM counted ORDER BY k;"
            .to_string(),
    ]
    .concat();
    let expected = [
        r#"[{"k":"a","v":3},{"k":"b","v":6},{"k":"c","v":9},{"k":"d","v":7},{"k":"e","v":8}]"#,
        r#"[{"v":1,"name":"Anna"},{"v":3,"name":"Anna"},{"v":4,"name":"Carl"},{"v":5,"name":"Carl"},{"v":9,"name":"Carl"}]"#,
        r#"[{"k":"a","n":2},{"k":"b","n":2},{"k":"c","n":3},{"k":"d","n":1},{"k":"e","n":1}]"#,
    ];
    for arguments in [&["--tick-records", "1"][..], &["--workers", "2"]] {
        let folder = tempfile::tempdir().unwrap();
        recording(folder.path());
        let arguments = [&["--replay", "topics"], arguments].concat();
        let lines = succeeded(script(folder.path(), &sql, &arguments));
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected, "{arguments:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    recording(folder.path());
    let late = format!("{sql} CREATE DYNAMIC TABLE late AS SELECT COUNT(*) AS n FROM event;");
    let run = script(folder.path(), &late, &["--replay", "topics"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("stream \"event\" runs already"), "{}", run.stderr);
}

#[test]
fn a_paced_replay_gives_the_same_answers() {
    let sql = [table("event", "", ""), "SELECT SUM(v) AS s, COUNT(*) AS n FROM event".to_string()].concat();
    for speed in ["1000x", "max"] {
        let folder = tempfile::tempdir().unwrap();
        recording(folder.path());
        let run = script(folder.path(), &sql, &["--replay", "topics", "--replay-speed", speed]);
        assert_eq!(succeeded(run), "[{\"s\":45,\"n\":9}]\n", "{speed}");
    }
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["--replay", "topics", "--replay-speed", "0x"][..], &["--replay-speed", "2x"]] {
        let run = script(folder.path(), &sql, arguments);
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        assert!(run.stderr.contains("--replay-speed"), "{}", run.stderr);
    }
}

/// The recording would take more than a year.
#[cfg(unix)]
#[test]
fn a_paced_replay_stops_when_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    recording(folder.path());
    let sql = [
        table("event", "", ""),
        "CREATE TABLE mirror (v INT) WITH ('connector' = 'filesystem', 'path' = 'out.jsonl', 'format' = 'changelog-json');
         INSERT INTO mirror SELECT v FROM event"
            .to_string(),
    ]
    .concat();
    std::fs::write(folder.path().join("job.sql"), sql).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltaworks"))
        .current_dir(folder.path())
        .args(["run", "job.sql", "--replay", "topics", "--replay-speed", "0.0000001x"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The sink is there once the job listens for signals.
    while !folder.path().join("out.jsonl").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the job ended by itself");
        std::thread::yield_now();
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_join_without_equality_stops_at_its_limit() {
    let job = |left: i64, right: i64| {
        format!(
            "CREATE TABLE a (n BIGINT); CREATE TABLE b (n BIGINT);
             CREATE DYNAMIC TABLE pairs AS SELECT COUNT(*) AS n FROM a JOIN b ON a.n + 20000 < b.n;
             INSERT INTO a SELECT value FROM generate_series(1, {left});
             INSERT INTO b SELECT value FROM generate_series(1, {right});
             SELECT n FROM pairs"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let run = script(folder.path(), &job(10_001, 10_001), &[]);
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(run.stderr.contains("a join in \"pairs\" has no equality (inner ON"), "{}", run.stderr);
    assert!(run.stderr.contains("both its sides have more than 10000 rows"), "{}", run.stderr);
    assert!(run.stderr.contains("\n  help: equate a column"), "{}", run.stderr);
    // The larger side may be as large as it likes: of 3 x 30,000 pairs those match in which b.n > a.n + 20,000.
    let run = script(folder.path(), &job(3, 30_000), &[]);
    assert_eq!(succeeded(run), "[{\"n\":29994}]\n");
}
