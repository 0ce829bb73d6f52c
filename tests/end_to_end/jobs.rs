//! The uplift job and the customer job on their recorded topics, against tables that `tests/oracle.py` computed.
//!
//! Their tables are functions of the topics' last records alone, so they come out the same whatever the ticks and the order
//! across keys were. Only the order of one key's records counts; in Kafka they share a partition.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{deltaworks, golden, repository};
use crate::replay::redeliver;

/// A job and the tables that it leaves as changelogs.
struct Job {
    name: &'static str,
    tables: &'static [&'static str],
}
const UPLIFT: Job = Job {
    name: "uplift",
    tables: &["dwd_user_campaign_facts", "dws_channel_uplift", "ads_uplift_score", "channel_roi", "campaign_audience"],
};
const CUSTOMER_360: Job = Job {
    name: "customer_360",
    tables: &[
        "dwd_id_mapping",
        "dwd_user_events",
        "dws_user_rfm",
        "dws_user_segment",
        "ads_user_bitmap",
        "ads_audience_package",
    ],
};
/// A MERGE takes nothing back: beside the ids that are known now this table holds those that once were at the end of a tick.
const REMEMBERS: &str = "dwd_id_mapping";
const JOBS: [Job; 2] = [UPLIFT, CUSTOMER_360];

impl Job {
    fn topics(&self) -> std::path::PathBuf {
        repository("jobs").join(self.name).join("topics")
    }
    /// Runs the job on the topics and holds what it leaves behind against what is expected.
    fn check(&self, topics: &Path, arguments: &[&str]) {
        let out = tempfile::tempdir().unwrap();
        let job = repository("jobs").join(self.name);
        let set = format!("OUT={}", out.path().display());
        let mut all = vec!["run", job.to_str().unwrap(), "--replay", topics.to_str().unwrap(), "--set", &set];
        all.extend(arguments);
        let run = deltaworks(out.path(), &all);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        for table in self.tables {
            let file = format!("{table}.jsonl");
            let mut expected = golden(&job.join("expected").join(&file));
            expected.sort_unstable();
            assert!(!expected.is_empty(), "{table}");
            let mut rows = rows(&out.path().join(&file));
            if *table == REMEMBERS {
                rows.retain(|row| expected.contains(row));
            }
            assert_eq!(rows, expected, "{} {table} {arguments:?}", self.name);
        }
        if self.name == CUSTOMER_360.name {
            check_packages(&out.path().join("packages"), &job.join("expected/ads_audience_package.jsonl"));
        }
    }
}

/// The exported files hold exactly the members of their packages.
fn check_packages(folder: &Path, expected: &Path) {
    let mut packages: BTreeMap<String, String> = BTreeMap::new();
    let mut all = String::new();
    for line in golden(expected) {
        let row: Value = serde_json::from_str(&line).unwrap();
        let text = |column: &str| row[column].as_str().unwrap().to_string();
        packages.entry(text("package_id")).or_default().push_str(&format!("{}\n", text("one_id")));
        let (package, one_id, segment) = (&row["package_id"], &row["one_id"], &row["rfm_segment"]);
        all.push_str(&format!("{{\"package_id\":{package},\"one_id\":{one_id},\"rfm_segment\":{segment}}}\n"));
    }
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    assert_eq!(read("PKG001.txt"), packages["PKG001"]);
    assert_eq!(read("PKG002.txt"), packages["PKG002"]);
    assert_eq!(read("PKG003.csv"), format!("one_id\n{}", packages["PKG003"]));
    assert_eq!(read("all.jsonl"), all);
}

/// Folds a changelog to its final rows, sorted as text, without `created_at`. What is taken back must be there.
pub(crate) fn rows(path: &Path) -> Vec<String> {
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let row = line[line.find("\"row\":").unwrap() + 6..line.len() - 1].to_string();
        let count = rows.entry(row).or_default();
        match entry["op"].as_str().unwrap() {
            "+I" | "+U" => *count += 1,
            _ => *count = count.checked_sub(1).unwrap_or_else(|| panic!("a row is taken back that is not there: {line}")),
        }
    }
    let bare = |row: String| match row.find(",\"created_at\":") {
        Some(at) => format!("{}}}", &row[..at]),
        None => row,
    };
    let mut rows: Vec<String> = rows.into_iter().flat_map(|(row, count)| std::iter::repeat_n(bare(row), count)).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn complete_with_1_2_and_4_workers() {
    for job in JOBS {
        for workers in ["1", "2", "4"] {
            job.check(&job.topics(), &["--workers", workers]);
        }
    }
}

#[test]
fn other_tick_sizes() {
    for job in JOBS {
        for (records, workers) in [("1", "1"), ("1", "2"), ("20", "1"), ("20", "2")] {
            job.check(&job.topics(), &["--tick-records", records, "--workers", workers]);
        }
    }
}

#[test]
fn messages_delivered_twice() {
    for job in JOBS {
        let twice = tempfile::tempdir().unwrap();
        redeliver(&job.topics(), twice.path());
        for arguments in [["--workers", "2"], ["--tick-records", "1"], ["--tick-records", "20"]] {
            job.check(twice.path(), &arguments);
        }
    }
}

#[test]
fn rows_in_random_order_deleted_and_put_back() {
    for job in JOBS {
        for seed in 1..=4 {
            let mut random = Random(seed);
            let chopped = tempfile::tempdir().unwrap();
            chop(&job.topics(), chopped.path(), &mut random);
            let records = (random.below(40) + 1).to_string();
            job.check(chopped.path(), &["--tick-records", &records, "--workers", "2"]);
        }
    }
}

/// Numbers that look random, from a seed (splitmix64).
struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The records of one key: those of the file that it lives in.
type Queues = BTreeMap<(String, String), Vec<Value>>;

/// Copies recorded topics with their records in a random order, except that those of one key keep theirs; about every fourth
/// record is deleted again, and its key's history sent once more. The timestamps stay the same ones, in their order.
fn chop(from: &Path, to: &Path, random: &mut Random) {
    let (mut queues, mut times) = (Queues::new(), Vec::new());
    for topic in std::fs::read_dir(from).unwrap() {
        let topic = topic.unwrap();
        for partition in std::fs::read_dir(topic.path()).unwrap() {
            let path = partition.unwrap().path();
            let file = path.strip_prefix(from).unwrap().display().to_string();
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                times.push(record["timestamp"].as_i64().unwrap());
                let key = record["key"].as_str().unwrap().to_string();
                queues.entry((file.clone(), key)).or_default().push(record);
            }
        }
    }
    let mut placed: Vec<(u64, String, Value)> = Vec::new();
    for ((file, _), queue) in queues {
        let queue = put_back(&queue, random);
        let mut places: Vec<u64> = queue.iter().map(|_| random.next()).collect();
        places.sort_unstable();
        placed.extend(places.into_iter().zip(queue).map(|(place, record)| (place, file.clone(), record)));
    }
    placed.sort_by_key(|(place, ..)| *place);
    times.sort_unstable();
    write_records(placed, &times, to);
}
/// A key's records, with deletes between them after which all that came before comes again.
fn put_back(queue: &[Value], random: &mut Random) -> Vec<Value> {
    let mut out = Vec::new();
    for (at, record) in queue.iter().enumerate() {
        out.push(record.clone());
        if random.below(4) == 0 {
            out.push(json!({"key": record["key"], "value": null}));
            out.extend_from_slice(&queue[..=at]);
        }
    }
    out
}
/// Writes records under new offsets; the last one has the last time.
fn write_records(placed: Vec<(u64, String, Value)>, times: &[i64], to: &Path) {
    let (mut files, all): (BTreeMap<String, (usize, String)>, usize) = (BTreeMap::new(), placed.len());
    for (n, (_, file, record)) in placed.into_iter().enumerate() {
        let timestamp = times[((n + 1) * times.len() / all).max(1) - 1];
        let (offset, text) = files.entry(file).or_default();
        let line = json!({"offset": *offset, "timestamp": timestamp, "key": record["key"], "value": record["value"]});
        *offset += 1;
        text.push_str(&format!("{line}\n"));
    }
    for (file, (_, text)) in files {
        let path = to.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}
