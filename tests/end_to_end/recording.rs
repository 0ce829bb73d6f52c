//! Recordings: what a run consumed, replayed tick for tick; topics of a real broker, written down.

use std::path::Path;

use crate::broker::shared;
use crate::program::{deltaworks, repository};

const MARTS: [&str; 2] = ["mart_order_first_touch.jsonl", "mart_order_first_touch_frozen.jsonl"];

/// Runs the first-touch job and returns its changelogs, byte for byte: with the ticks, and with when rows were written.
fn first_touch(folder: &Path, out: &str, arguments: &[&str]) -> [String; 2] {
    let job = repository("jobs/first_touch");
    let set = format!("OUT={out}");
    let mut all = vec!["run", job.to_str().unwrap(), "--set", &set];
    all.extend(arguments);
    let run = deltaworks(folder, &all);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    // Only a recording with its ticks says for sure what was frozen.
    let note =
        "note: the recording has no ticks: what mart_order_first_touch, mart_order_first_touch_frozen froze may differ";
    assert_eq!(run.stderr.contains(note), arguments[1].ends_with("topics"), "{}", run.stderr);
    MARTS.map(|mart| std::fs::read_to_string(folder.join(out).join(mart)).unwrap())
}

#[test]
fn a_recorded_run_is_replayed_tick_for_tick() {
    let folder = tempfile::tempdir().unwrap();
    let topics = repository("jobs/first_touch/topics");
    let topics = topics.to_str().unwrap();
    for (ticks, workers) in [("8192", "1"), ("20", "2")] {
        let recording = format!("recording-{ticks}");
        let recorded = first_touch(
            folder.path(),
            "recorded",
            &[
                "--replay",
                topics,
                "--clock",
                "system",
                "--tick-records",
                ticks,
                "--workers",
                workers,
                "--record",
                &recording,
            ],
        );
        assert!(recorded.iter().all(|mart| mart.lines().count() > 20 && mart.contains("_tech_write_ts")));
        // Whatever the ticks of this run would be.
        let replayed = first_touch(folder.path(), "replayed", &["--replay", &recording, "--tick-records", "3"]);
        assert!(recorded == replayed, "ticks of {ticks}");
    }
}

#[test]
fn dead_letters_are_seen_when_they_were_seen() {
    let folder = tempfile::tempdir().unwrap();
    let topic = folder.path().join("topics/t");
    std::fs::create_dir_all(&topic).unwrap();
    let lines = "{\"offset\":0,\"timestamp\":5,\"value\":{\"id\":\"x\"}}\nno record\n{\"offset\":7,\"timestamp\":6,\"value\":{\"id\":1}}\n";
    std::fs::write(topic.join("0.jsonl"), lines).unwrap();
    let sql = "CREATE TABLE t (id INT, at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL) WITH ('connector' = 'kafka', \
        'topic' = 't', 'properties.bootstrap.servers' = 'localhost:1', 'format' = 'json');
        SELECT * FROM t; SELECT position, reason, seen_at FROM t$errors ORDER BY position";
    std::fs::write(folder.path().join("job.sql"), sql).unwrap();
    let run = |arguments: &[&str]| {
        let mut all = vec!["run", "job.sql", "--format", "json"];
        all.extend(arguments);
        let run = deltaworks(folder.path(), &all);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stdout
    };
    let recorded = run(&["--replay", "topics", "--clock", "system", "--record", "recording"]);
    assert!(recorded.contains("\"id\":1") && recorded.contains("\"position\":1"), "{recorded}");
    assert_eq!(run(&["--replay", "recording"]), recorded);
    assert_eq!(std::fs::read_to_string(folder.path().join("recording/t/0.jsonl")).unwrap(), lines);
}

#[test]
fn a_recording_goes_into_a_folder_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("job.sql"), "SELECT 1").unwrap();
    let run = deltaworks(folder.path(), &["run", "job.sql", "--record", "."]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("error: \".\" is not empty") && run.stderr.contains("  help: record into"),
        "{}",
        run.stderr
    );
}

/// Partition, timestamp, key and value.
type Sent = (i32, i64, Option<&'static [u8]>, Option<&'static [u8]>);

#[test]
fn topics_of_a_broker_are_written_down() {
    let Some(broker) = shared() else { return };
    broker.create_topic("taken", 2);
    let sender = broker.producer();
    let records: [Sent; 5] = [
        (0, 10, Some(b"a"), Some(b"{\"n\": 1}")),
        (0, 20, Some(b"a"), None),
        (1, 30, None, Some(b"text")),
        (1, 40, None, Some(b"\xFF\x00")),
        (0, 50, Some(b"b"), Some(b"\"quoted\"")),
    ];
    for (partition, timestamp, key, value) in records {
        sender.send("taken", partition, Some(timestamp), key, value);
    }
    sender.flush();
    let expected = [
        concat!(
            "{\"offset\":0,\"timestamp\":10,\"key\":\"a\",\"value\":{\"n\": 1}}\n",
            "{\"offset\":1,\"timestamp\":20,\"key\":\"a\",\"value\":null}\n",
            "{\"offset\":2,\"timestamp\":50,\"key\":\"b\",\"value\":\"\\\"quoted\\\"\"}\n",
        ),
        concat!(
            "{\"offset\":0,\"timestamp\":30,\"value\":\"text\"}\n",
            "{\"offset\":1,\"timestamp\":40,\"value_base64\":\"/wA=\"}\n",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let record = |out: &str, arguments: &[&str]| {
        let brokers = broker.address();
        let mut all = vec!["record", "--brokers", &brokers, "--topic", "taken", "--out", out];
        all.extend(arguments);
        let run = deltaworks(folder.path(), &all);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stderr
    };
    let written = |out: &str| {
        ["0", "1"].map(|n| std::fs::read_to_string(folder.path().join(out).join(format!("taken/{n}.jsonl"))).unwrap())
    };
    assert!(record("all", &["--end"]).contains("5 records recorded in all"));
    assert_eq!(written("all"), expected);
    assert!(record("two", &["--records", "2"]).contains("2 records recorded in two"));
    record("until", &["--until", "1970-01-01 00:00:00.040"]);
    assert_eq!(written("until").concat().lines().count(), 3);
    record("from", &["--from", "1970-01-01 00:00:00.030", "--end"]);
    assert_eq!(written("from"), [expected[0].lines().last().unwrap().to_owned() + "\n", expected[1].to_owned()]);
    // Compressed, it is replayed like any other.
    record("small", &["--end", "--compress"]);
    let sql = "CREATE TABLE t (v BYTES, at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL) WITH ('connector' = 'kafka', \
        'topic' = 'taken', 'properties.bootstrap.servers' = 'localhost:1', 'format' = 'raw'); SELECT COUNT(*) AS n FROM t";
    std::fs::write(folder.path().join("job.sql"), sql).unwrap();
    let run = deltaworks(folder.path(), &["run", "job.sql", "--replay", "small", "--format", "json"]);
    assert!(folder.path().join("small/taken/1.jsonl.zst").is_file());
    assert_eq!(run.stdout, "[{\"n\":4}]\n", "{}", run.stderr);
}

#[test]
fn a_live_run_is_replayed_tick_for_tick() {
    let Some(broker) = shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let job = repository("jobs/first_touch");
    broker.produce_recording(&job.join("topics"), |topic| format!("recorded.{topic}"));
    let sql = std::fs::read_to_string(job.join("job.sql")).unwrap();
    let sql = sql.replace("'topic' = '", "'scan.bounded.mode' = 'latest-offset', 'topic' = 'recorded.");
    std::fs::write(folder.path().join("job.sql"), sql).unwrap();
    let sinks = MARTS.map(|mart| format!("recorded.{}", mart.trim_end_matches(".jsonl")));
    sinks.iter().for_each(|sink| broker.create_topic(sink, 1));
    let brokers = format!("BROKERS={}", broker.address());
    let run = |arguments: &[&str]| {
        let mut all = vec!["run", "job.sql", "--set", &brokers];
        all.extend(arguments);
        let run = deltaworks(folder.path(), &all);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    };
    run(&["--tick-records", "50", "--record", "recording"]);
    let live = sinks.map(|sink| broker.lines(&sink));
    assert!(live[1].lines().count() > 20);
    run(&["--replay", "recording"]);
    assert!(live == MARTS.map(|mart| std::fs::read_to_string(folder.path().join("out").join(mart)).unwrap()));
}

/// Statements between the ticks of a stream find in the replay what they found then.
#[test]
fn a_script_that_reads_while_records_come_is_replayed_statement_for_statement() {
    let Some(broker) = shared() else { return };
    broker.create_topic("meanwhile", 2);
    let folder = tempfile::tempdir().unwrap();
    let table = format!(
        "CREATE TABLE e (n BIGINT, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'kafka', 'topic' = 'meanwhile',
           'properties.bootstrap.servers' = '{}', 'format' = 'json', 'key.format' = 'json');
         CREATE TABLE note (k INT, at TIMESTAMP(6), PRIMARY KEY (k) NOT ENFORCED);
         CREATE DYNAMIC TABLE total AS SELECT COUNT(*) AS n, SUM(n) AS s FROM e;
         CREATE DYNAMIC TABLE stamped AS SELECT k, WRITE_TIMESTAMP() AS written FROM note;
         INSERT INTO note VALUES (0, NOW());",
        broker.address()
    );
    let step = |k: usize| {
        format!(
            "SELECT * FROM total; INSERT INTO note VALUES ({k}, NOW()); REFRESH DYNAMIC TABLE total; SELECT * FROM total; \
             SELECT n.k, n.at, s.written FROM note n JOIN stamped s ON s.k = n.k ORDER BY n.k;\n"
        )
    };
    let sql = table + &(1..=12).map(step).collect::<String>();
    std::fs::write(folder.path().join("job.sql"), sql).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let recorded = std::thread::scope(|scope| {
        scope.spawn(|| {
            let sender = broker.producer();
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                let value = format!("{{\"n\":{n}}}");
                sender.send("meanwhile", n % 2, None, None, Some(value.as_bytes()));
                sender.flush();
            }
        });
        // A shell ends where its input does; the sources have no end.
        let run = crate::program::shell_with(folder.path(), "job.sql", &["--record", "recording"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        run
    });
    assert_eq!(recorded.code, Some(0), "{}", recorded.stderr);
    let counts: std::collections::BTreeSet<&str> = recorded.stdout.lines().filter(|line| line.contains("\"s\"")).collect();
    assert!(counts.len() > 3, "nothing came while the statements ran: {}", recorded.stdout);
    let replayed = crate::program::shell_with(folder.path(), "job.sql", &["--replay", "recording"]);
    assert_eq!(replayed.stdout, recorded.stdout, "{}", replayed.stderr);
}

#[test]
fn a_topic_that_is_read_in_two_ways_is_not_recorded() {
    let Some(broker) = shared() else { return };
    broker.create_topic("twice", 1);
    let folder = tempfile::tempdir().unwrap();
    let table = |name: &str, mode: &str| {
        format!(
            "CREATE TABLE {name} (v BYTES) WITH ('connector' = 'kafka', 'topic' = 'twice', 'format' = 'raw', \
             'properties.bootstrap.servers' = '{}', 'scan.startup.mode' = '{mode}', 'scan.bounded.mode' = 'latest-offset');\n",
            broker.address()
        )
    };
    let sql =
        table("a", "earliest-offset") + &table("b", "latest-offset") + "SELECT COUNT(*) FROM a; SELECT COUNT(*) FROM b";
    std::fs::write(folder.path().join("job.sql"), sql).unwrap();
    let run = deltaworks(folder.path(), &["run", "job.sql", "--record", "recording"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("topic \"twice\" is read twice"), "{}", run.stderr);
    assert_eq!(deltaworks(folder.path(), &["run", "job.sql"]).code, Some(0));
}

#[test]
fn a_time_that_has_not_come_ends_no_recording() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["record", "--brokers", "localhost:1", "--topic", "t", "--out", "o", "--until", "9999-01-01 00:00:00"];
    let run = deltaworks(folder.path(), &arguments);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("has not come yet"), "{}", run.stderr);
}
