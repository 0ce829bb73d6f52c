//! Replaying: order, odd lines, compressed files, tick logs, and what is wrong with a folder.

use super::*;
use proptest::prelude::*;
use std::fs;

fn recording(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        if name.ends_with(".zst") {
            fs::write(path, zstd::encode_all(content.as_bytes(), 0).expect("compressed")).expect("a file");
        } else {
            fs::write(path, content).expect("a file");
        }
    }
    dir
}
fn names(topics: &[&str]) -> Vec<String> {
    topics.iter().map(|topic| (*topic).to_owned()).collect()
}
fn open(dir: &tempfile::TempDir, topics: &[&str]) -> Result<Replay> {
    Replay::open(dir.path(), &names(topics))
}
/// Lines of offset and timestamp, the value being the offset.
fn lines(records: &[(u64, i64)]) -> String {
    records.iter().map(|(offset, at)| format!("{{\"offset\":{offset},\"timestamp\":{at},\"value\":{offset}}}\n")).collect()
}
fn read_all(source: &mut impl RecordSource, size: usize) -> Vec<(i64, u32, u32, u64)> {
    let mut seen = vec![];
    let mut records = Records::new();
    loop {
        records.clear();
        let state = source.read(size, usize::MAX, &mut records).expect("records");
        assert!(records.len() <= size);
        seen.extend(records.iter().map(|record| (record.timestamp, record.topic, record.partition, record.offset)));
        if state == ReadState::End {
            return seen;
        }
    }
}

#[test]
fn records_are_merged_by_timestamp_topic_and_partition() {
    let dir = recording(&[
        ("b/0.jsonl", &lines(&[(0, 10), (1, 10), (2, 5)])),
        ("a/1.jsonl.zst", &lines(&[(0, 10), (1, 30), (2, 1), (3, 40)])),
        ("a/0.jsonl", &lines(&[(5, 20)])),
        ("a/.hidden", ""),
        ("ticks.jsonl", ""),
    ]);
    let expected = vec![
        (10, 0, 1, 0),
        (10, 1, 0, 0),
        (10, 1, 0, 1),
        (5, 1, 0, 2),
        (20, 0, 0, 5),
        (30, 0, 1, 1),
        (1, 0, 1, 2),
        (40, 0, 1, 3),
    ];
    for size in [1, 2, 3, 100] {
        let mut replay = open(&dir, &["b", "a", "a"]).expect("a replay");
        assert_eq!(replay.topics(), names(&["a", "b"]));
        assert_eq!(read_all(&mut replay, size), expected, "{size}");
        let progress = replay.progress();
        let told: Vec<_> = progress.iter().map(|p| (p.topic, p.partition, p.records, p.next_offset, p.ended)).collect();
        assert_eq!(told, [(0, 0, 1, 6, true), (0, 1, 4, 4, true), (1, 0, 3, 3, true)]);
    }
}

#[test]
fn a_read_ends_before_a_timestamp() {
    let dir =
        recording(&[("a/0.jsonl", &lines(&[(0, 1), (1, 5), (2, 3)])), ("a/1.jsonl", &lines(&[(0, 2), (1, 4), (2, 6)]))]);
    let mut replay = open(&dir, &["a"]).expect("a replay");
    let mut read = |end: i64, most: usize| {
        let mut records = Records::new();
        let state = replay.read_before(end, most, usize::MAX, &mut records).expect("records");
        let timestamps: Vec<i64> = (0..records.len()).filter_map(|i| records.get(i)).map(|r| r.timestamp).collect();
        (timestamps, replay.next_timestamp(), state)
    };
    assert_eq!(read(1, 9), (vec![], Some(1), ReadState::More));
    assert_eq!(read(5, 2), (vec![1, 2], Some(4), ReadState::More));
    assert_eq!(read(5, 9), (vec![4], Some(5), ReadState::More));
    // What comes behind a later record of its partition comes after it.
    assert_eq!(read(6, 9), (vec![5, 3], Some(6), ReadState::More));
    assert_eq!(read(i64::MAX, 9), (vec![6], None, ReadState::End));
}
#[test]
fn bytes_bound_a_read() {
    let dir = recording(&[("a/0.jsonl", &lines(&[(10, 1), (11, 1), (12, 1)]))]);
    let mut records = Records::new();
    let mut replay = open(&dir, &["a"]).expect("a replay");
    assert_eq!(replay.read(100, 3, &mut records).expect("records"), ReadState::More);
    assert_eq!((records.len(), records.bytes()), (2, 4));
}

#[test]
fn keys_and_values_in_all_forms() {
    let dir = recording(&[(
        "a/0.jsonl",
        concat!(
            "\u{feff}{\"offset\":0,\"timestamp\":1,\"key\":\"k\\u00e9\",\"value\":{\"a\": 1},\"headers\":{\"h\":\"x\"}}\r\n",
            "\n",
            "{\"value\":\"te\\nxt\",\"timestamp\":1,\"offset\":1,\"key\":null,\"more\":[]}\n",
            "{\"offset\":2,\"timestamp\":1,\"key\":5,\"value\":null}\n",
            "{\"offset\":3,\"timestamp\":1,\"key_base64\":\"AA==\",\"value_base64\":\"/w==\"}\n",
            "{\"offset\":4,\"timestamp\":1,\"value\":\"plain\"}"
        ),
    )]);
    let mut records = Records::new();
    assert_eq!(open(&dir, &["a"]).expect("a replay").read(100, 1 << 20, &mut records).expect("records"), ReadState::End);
    type Parts<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, Option<&'a str>, Option<&'a str>);
    let seen: Vec<Parts<'_>> = records.iter().map(|r| (r.key, r.value, r.headers, r.broken)).collect();
    let expected: Vec<Parts<'_>> = vec![
        (Some("ké".as_bytes()), Some(b"{\"a\": 1}"), Some("{\"h\":\"x\"}"), None),
        (None, Some(b"te\nxt"), None, None),
        (Some(b"5"), None, None, None),
        (Some(&[0]), Some(&[255]), None, None),
        (None, Some(b"plain"), None, None),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn lines_that_are_no_records_are_broken_records() {
    let bad = [
        ("nonsense", "expected an object"),
        ("{nonsense}", "key must be a string at line 1 column 2"),
        ("[7,50,null,null,5,null,null]", "expected an object"),
        ("{\"timestamp\":1,\"value\":1}", "missing field `offset` at line 1 column 25"),
        ("{\"offset\":1,\"timestamp\":1}", "missing field `value`"),
        ("{\"offset\":-1,\"timestamp\":1,\"value\":1}", "invalid value: integer `-1`, expected u64 at line 1 column 12"),
        ("{\"offset\":1,\"timestamp\":1,\"value_base64\":\"?\"}", "value_base64: Invalid symbol 63, offset 0."),
        ("{\"offset\":1,\"timestamp\":1,\"value\":\"\\ud800\"}", "value: invalid string \"\\ud800\""),
    ];
    for (line, reason) in bad {
        let content = format!("{}{line}\n{}", lines(&[(7, 50)]), lines(&[(9, 60)]));
        let dir = recording(&[("a/0.jsonl", &content)]);
        let mut records = Records::new();
        open(&dir, &["a"]).expect("a replay").read(100, 1 << 20, &mut records).expect("records");
        let broken = records.get(1).expect("a record");
        assert_eq!(broken.broken, Some(format!("line 2 is not a record: {reason}").as_str()));
        assert_eq!((broken.value, broken.offset, broken.timestamp), (Some(line.as_bytes()), 8, 50));
        assert_eq!(records.len(), 3);
        assert_eq!(records.latest(), Some(60));
    }
    let dir = recording(&[("a/0.jsonl", "x\n")]);
    let mut records = Records::new();
    open(&dir, &["a"]).expect("a replay").read(100, 1 << 20, &mut records).expect("records");
    assert_eq!((records.get(0).expect("a record").timestamp, records.latest()), (NO_TIMESTAMP, None));
}

#[test]
fn folders_that_are_no_recording() {
    let message = |files: &[(&str, &str)]| {
        let dir = recording(files);
        let error = open(&dir, &["a"]).err().expect("an error");
        let at = format!("{}/", dir.path().display());
        (error.to_string().replace(&at, ""), error.help())
    };
    let (error, help) = message(&[]);
    assert_eq!(error, "topic \"a\" is not recorded: there is no folder \"a\"");
    assert_eq!(help, "record the topic, or point --replay at the folder that holds one folder per topic");
    assert_eq!(message(&[("a/.x", "")]).0, "topic \"a\" has no recorded partition in \"a\"");
    assert_eq!(
        message(&[("a/0.jsonl", ""), ("a/0.jsonl.zst", "")]).0,
        "partition 0 of topic \"a\" is recorded twice in \"a\""
    );
    for name in ["a/x.jsonl", "a/0.json", "a/-1.jsonl", "a/99999999999.jsonl", "a/+1.jsonl"] {
        let (error, help) = message(&[("a/0.jsonl", ""), (name, "")]);
        assert_eq!(error, format!("\"{name}\" is not a recorded partition"));
        assert_eq!(help, "a topic's folder holds <partition>.jsonl and <partition>.jsonl.zst only, e.g. 0.jsonl");
    }
    let dir = recording(&[("a/0.jsonl.zst", "")]);
    fs::write(dir.path().join("a/0.jsonl.zst"), "not zstd").expect("a file");
    let error = open(&dir, &["a"]).err().expect("an error").to_string();
    assert!(error.starts_with("could not read \""), "{error}");
}

#[test]
fn tick_logs_cut_ticks_as_they_were() {
    let ticks = concat!(
        "{\"tick\":1,\"clock\":\"2026-05-01 09:00:00Z\",\"upto\":{\"a/0\":1,\"b/0\":2}}\n",
        "{\"tick\":2,\"clock\":\"2026-05-01T09:00:01.5Z\",\"upto\":{\"a/0\":3}}\n"
    );
    let dir = recording(&[
        ("a/0.jsonl", &lines(&[(0, 10), (1, 20), (2, 30)])),
        ("b/0.jsonl", &lines(&[(0, 5), (1, 40), (2, 15)])),
        ("ticks.jsonl", ticks),
    ]);
    let log = TickLog::open(dir.path()).expect("a tick log").expect("a tick log");
    assert_eq!(log.ticks[1].clock_us - log.ticks[0].clock_us, 1_500_000);
    let mut replay = open(&dir, &["a", "b"]).expect("a replay");
    let mut read = |tick: &RecordedTick| {
        let mut records = Records::new();
        let state = replay.read_tick(tick, &mut records).expect("records");
        (records.iter().map(|record| (record.topic, record.offset)).collect::<Vec<_>>(), state)
    };
    assert_eq!(read(&log.ticks[0]), (vec![(1, 0), (0, 0), (1, 1)], ReadState::More));
    assert_eq!(read(&log.ticks[1]), (vec![(0, 1), (0, 2)], ReadState::More));
    assert_eq!(TickLog::open(recording(&[]).path()).expect("none"), None);
    for (line, reason) in [
        ("{\"tick\":1}", "missing field `clock` at line 1 column 10"),
        ("{\"tick\":1,\"clock\":\"x\",\"upto\":{}}", "clock \"x\" is not a timestamp"),
        ("{\"tick\":1,\"clock\":\"2026-05-01 09:00:00Z\"}", "\"upto\" is missing"),
    ] {
        let dir = recording(&[("ticks.jsonl", line)]);
        let error = TickLog::open(dir.path()).expect_err("an error").to_string();
        assert!(error.ends_with(&format!("ticks.jsonl\" line 1 is not a tick: {reason}")), "{error}");
    }
}

proptest! {
    #[test]
    fn the_order_is_that_of_a_naive_merge(
        partitions in proptest::collection::vec(proptest::collection::vec(0i64..6, 0..12), 1..5), size in 1usize..7,
    ) {
        let files: Vec<(String, String)> = partitions
            .iter()
            .enumerate()
            .map(|(index, times)| {
                let records: Vec<(u64, i64)> = times.iter().enumerate().map(|(offset, at)| (offset as u64, *at)).collect();
                (format!("t{}/{}.jsonl", index / 2, index % 2), lines(&records))
            })
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
        let dir = recording(&files);
        let topics: Vec<String> = (0..partitions.len().div_ceil(2)).map(|topic| format!("t{topic}")).collect();
        let mut replay = Replay::open(dir.path(), &topics).expect("a replay");
        let mut next = vec![0; partitions.len()];
        let mut expected = vec![];
        loop {
            let head = |index: usize| Some((*partitions[index].get(next[index])?, index));
            let Some((at, index)) = (0..partitions.len()).filter_map(head).min() else { break };
            expected.push((at, (index / 2) as u32, (index % 2) as u32, next[index] as u64));
            next[index] += 1;
        }
        prop_assert_eq!(read_all(&mut replay, size), expected);
    }

    #[test]
    fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..60), json in "\\{\"offset\":[0-9]{1,3},\"timestamp\":1,\"(key|value)\":[^\n]{0,20}\\}") {
        for line in [&line[..], json.as_bytes()] {
            let mut records = Records::new();
            let _ = push_line(line, 0, 0, &mut records);
        }
    }
}
