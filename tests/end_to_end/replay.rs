//! The first-touch job on its recorded topics, against tables that `tests/oracle.py` computed.

use std::path::Path;

use crate::program::{deltaworks, fold, golden, repository};

const EXACT: &str = "mart_order_first_touch.jsonl";
const FROZEN: &str = "mart_order_first_touch_frozen.jsonl";

/// Runs the job on the topics and returns the exact and the frozen mart.
fn marts(topics: &Path, arguments: &[&str]) -> (Vec<String>, Vec<String>) {
    let out = tempfile::tempdir().unwrap();
    let job = repository("jobs/first_touch");
    let set = format!("OUT={}", out.path().display());
    let mut all = vec!["run", job.to_str().unwrap(), "--replay", topics.to_str().unwrap(), "--set", &set];
    all.extend(arguments);
    let run = deltaworks(out.path(), &all);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    (fold(&out.path().join(EXACT)), fold(&out.path().join(FROZEN)))
}
fn expected(file: &str) -> Vec<String> {
    golden(&repository("jobs/first_touch/expected").join(file))
}

#[test]
fn complete_with_1_2_and_4_workers() {
    for workers in ["1", "2", "4"] {
        let (exact, frozen) = marts(&repository("jobs/first_touch/topics"), &["--workers", workers]);
        assert_eq!(exact, expected(EXACT), "{workers} workers");
        assert_eq!(frozen, expected(FROZEN), "{workers} workers");
    }
}

#[test]
fn other_tick_sizes() {
    for records in ["1", "20"] {
        for workers in ["1", "2"] {
            let arguments = ["--tick-records", records, "--workers", workers];
            let (exact, frozen) = marts(&repository("jobs/first_touch/topics"), &arguments);
            assert_eq!(exact, expected(EXACT), "{arguments:?}");
            let path = repository("tests/replay/first_touch").join(format!("tick-records-{records}")).join(FROZEN);
            assert_eq!(frozen, golden(&path), "{arguments:?}");
        }
    }
}

#[test]
fn messages_delivered_twice() {
    let twice = tempfile::tempdir().unwrap();
    redeliver(&repository("jobs/first_touch/topics"), twice.path());
    for workers in ["1", "2", "4"] {
        let (exact, frozen) = marts(twice.path(), &["--workers", workers]);
        assert_eq!(exact, expected(EXACT), "{workers} workers");
        assert_eq!(frozen, expected(FROZEN), "{workers} workers");
    }
    for records in ["1", "20"] {
        let (exact, _) = marts(twice.path(), &["--tick-records", records]);
        assert_eq!(exact, expected(EXACT), "ticks of {records}");
    }
}

/// Copies recorded topics with every block of 7 records repeated at once, under new offsets.
pub(crate) fn redeliver(from: &Path, to: &Path) {
    for topic in std::fs::read_dir(from).unwrap() {
        let topic = topic.unwrap();
        let folder = to.join(topic.file_name());
        std::fs::create_dir(&folder).unwrap();
        for partition in std::fs::read_dir(topic.path()).unwrap() {
            let partition = partition.unwrap();
            let lines: Vec<String> =
                std::fs::read_to_string(partition.path()).unwrap().lines().map(str::to_string).collect();
            let repeated = lines.chunks(7).flat_map(|block| block.iter().chain(block));
            let text: String = repeated.enumerate().map(|(offset, line)| with_offset(line, offset) + "\n").collect();
            std::fs::write(folder.join(partition.file_name()), text).unwrap();
        }
    }
}
fn with_offset(line: &str, offset: usize) -> String {
    let rest = line.strip_prefix("{\"offset\":").unwrap();
    format!("{{\"offset\":{offset}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[test]
fn a_timestamp_that_goes_back_keeps_the_order_of_offsets() {
    let topics = tempfile::tempdir().unwrap();
    let folder = topics.path().join("t");
    std::fs::create_dir(&folder).unwrap();
    let line = |offset: u32, timestamp: u32, value: &str| {
        format!(r#"{{"offset":{offset},"timestamp":{timestamp},"value":{{"id":1,"v":"{value}"}}}}"#) + "\n"
    };
    std::fs::write(folder.join("0.jsonl"), line(0, 10, "older") + &line(1, 5, "newer")).unwrap();
    let sql = "CREATE TABLE t (id INT, v STRING, PRIMARY KEY (id) NOT ENFORCED)
        WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'json');
        SELECT v FROM t";
    std::fs::write(topics.path().join("job.sql"), sql).unwrap();
    for records in ["1", "2"] {
        let arguments = ["run", "job.sql", "--replay", ".", "--format", "json", "--tick-records", records];
        let run = deltaworks(topics.path(), &arguments);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(0), "[{\"v\":\"newer\"}]\n"),
            "ticks of {records}: {}",
            run.stderr
        );
    }
}
