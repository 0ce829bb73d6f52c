//! Sinks whose key several rows share: at every tick the first row of each key, in encoded-row order, against a fold by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Run, deltaworks, repository, script};

/// A row of the sinks: the key, NULL last, and a value, NULL last.
type SinkRow = (Option<i64>, Option<i64>);
/// What one tick writes: the row kind and the row, in any order.
type Tick = BTreeSet<(String, SinkRow)>;

fn order(value: Option<i64>) -> (bool, i64) {
    (value.is_none(), value.unwrap_or(0))
}

/// Random records of a table by id: rows that share keys, upserts that move an id to another key, tombstones.
fn records(mut seed: u64, count: usize) -> Vec<(i64, Option<SinkRow>)> {
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) % limit) as i64
    };
    let mut record = || {
        let id = below(9);
        let number = |value: i64| (value > 0).then_some(value);
        (id, (below(4) > 0).then(|| (number(below(4)), number(below(6)))))
    };
    (0..count).map(|_| record()).collect()
}
fn write_topic(folder: &Path, records: &[(i64, Option<SinkRow>)]) {
    std::fs::create_dir_all(folder.join("topics/t")).unwrap();
    let line = |(offset, (id, row)): (usize, &(i64, Option<SinkRow>))| {
        let value = row.map(|(k, v)| json!({"id": id, "k": k, "v": v}));
        json!({"offset": offset, "timestamp": offset, "key": id.to_string(), "value": value}).to_string() + "\n"
    };
    let text: String = records.iter().enumerate().map(line).collect();
    std::fs::write(folder.join("topics/t/0.jsonl"), text).unwrap();
}

/// The rows of the table after some records.
fn folded(records: &[(i64, Option<SinkRow>)]) -> BTreeMap<i64, SinkRow> {
    let mut rows = BTreeMap::new();
    for (id, row) in records {
        match row {
            Some(row) => rows.insert(*id, *row),
            None => rows.remove(id),
        };
    }
    rows
}
/// The first row of each key, and how many are left out.
fn first_rows(rows: &BTreeMap<i64, SinkRow>) -> (BTreeMap<Option<i64>, SinkRow>, usize) {
    let mut sorted: Vec<SinkRow> = rows.values().copied().collect();
    sorted.sort_by_key(|row| (order(row.0), order(row.1)));
    let mut first = BTreeMap::new();
    for row in &sorted {
        first.entry(row.0).or_insert(*row);
    }
    let left_out = sorted.len() - first.len();
    (first, left_out)
}
/// What a changelog holds where ticks have `size` records, without ticks that change nothing.
fn expected_ticks(records: &[(i64, Option<SinkRow>)], size: usize) -> Vec<Tick> {
    let mut ticks = Vec::new();
    let mut old = BTreeMap::new();
    let mut end = 0;
    while end < records.len() {
        end = (end + size).min(records.len());
        let (new, _) = first_rows(&folded(&records[..end]));
        let mut tick = Tick::new();
        for key in old.keys().chain(new.keys()).copied().collect::<BTreeSet<Option<i64>>>() {
            match (old.get(&key), new.get(&key)) {
                (Some(old), Some(new)) if old != new => {
                    tick.extend([("-U".to_string(), *old), ("+U".to_string(), *new)]);
                }
                (Some(old), None) => drop(tick.insert(("-D".into(), *old))),
                (None, Some(new)) => drop(tick.insert(("+I".into(), *new))),
                _ => {}
            }
        }
        if !tick.is_empty() {
            ticks.push(tick);
        }
        old = new;
    }
    ticks
}

fn row_of(row: &Value) -> SinkRow {
    (row["k"].as_i64(), row["v"].as_i64())
}
fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
fn written_ticks(path: &Path) -> Vec<Tick> {
    let mut ticks: BTreeMap<i64, Tick> = BTreeMap::new();
    for line in lines(path) {
        let change = (line["op"].as_str().unwrap().to_string(), row_of(&line["row"]));
        assert!(ticks.entry(line["tick"].as_i64().unwrap()).or_default().insert(change), "twice: {line}");
    }
    ticks.into_values().collect()
}
/// The rows that upserts and deletes by key lead to.
fn upserted(path: &Path) -> BTreeMap<Option<i64>, SinkRow> {
    let mut rows = BTreeMap::new();
    for line in lines(path) {
        let key = line["key"]["k"].as_i64();
        match line["op"].as_str().unwrap() {
            "upsert" => rows.insert(key, row_of(&line["row"])),
            _ => rows.remove(&key),
        };
    }
    rows
}

const TABLE: &str = "CREATE TABLE t (id INT, k INT, v INT, PRIMARY KEY (id) NOT ENFORCED)
    WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'x', 'format' = 'json');";

fn sink(name: &str, options: &str) -> String {
    format!(
        "CREATE TABLE {name} (k INT, v INT, PRIMARY KEY (k) NOT ENFORCED)
         WITH ('connector' = 'filesystem', 'path' = '{name}.jsonl', {options});"
    )
}

#[test]
fn every_sink_shows_the_first_row_of_each_key_at_every_tick() {
    let sinks = [
        ("changes", "'format' = 'changelog-json'"),
        ("upserts", "'format' = 'upsert-json'"),
        ("present", "'format' = 'json', 'sink.mode' = 'snapshot'"),
        ("several", "'format' = 'changelog-json'"),
    ];
    let mut sql = TABLE.to_string();
    for (name, options) in sinks {
        sql += &sink(name, options);
        sql += &match name {
            // Each brings rows of all keys.
            "several" => (0..3)
                .map(|part| format!("INSERT INTO several SELECT k, v FROM t WHERE id % 3 = {part};"))
                .collect::<String>(),
            _ => format!("INSERT INTO {name} SELECT k, v FROM t;"),
        };
    }
    for (seed, workers, size) in [(1, "1", 1), (2, "2", 3), (3, "4", 2), (4, "2", 1), (5, "1", 7), (6, "4", 40)] {
        let folder = tempfile::tempdir().unwrap();
        let records = records(seed, 120);
        write_topic(folder.path(), &records);
        let size_text = size.to_string();
        let arguments = ["--replay", "topics", "--workers", workers, "--tick-records", &size_text];
        let run = script(folder.path(), &sql, &arguments);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let expected = expected_ticks(&records, size);
        let (first, left_out) = first_rows(&folded(&records));
        for name in ["changes", "several"] {
            assert_eq!(written_ticks(&folder.path().join(format!("{name}.jsonl"))), expected, "{name}, seed {seed}");
        }
        assert_eq!(upserted(&folder.path().join("upserts.jsonl")), first, "seed {seed}");
        let present: BTreeSet<SinkRow> = lines(&folder.path().join("present.jsonl")).iter().map(row_of).collect();
        assert_eq!(present, first.values().copied().collect(), "seed {seed}");
        for (name, _) in sinks {
            check_left_out(&run, name, &records, left_out);
        }
    }
}
fn check_left_out(run: &Run, name: &str, records: &[(i64, Option<SinkRow>)], left_out: usize) {
    let mut rows: BTreeMap<(bool, i64), usize> = BTreeMap::new();
    folded(records).values().for_each(|row| *rows.entry(order(row.0)).or_default() += 1);
    let said = run.stderr.lines().find(|line| line.contains(&format!(" of {name} share")));
    match rows.iter().find(|(_, count)| **count > 1) {
        None => assert_eq!(said, None),
        Some(((is_null, key), _)) => {
            let (rows, share, are) =
                if left_out == 1 { ("row", "shares its", "is") } else { ("rows", "share their", "are") };
            let key = if *is_null { "NULL".to_string() } else { key.to_string() };
            let expected = format!(
                "warning: {left_out} {rows} of {name} {share} key with another row and {are} left out: first of k = {key}"
            );
            assert_eq!(said, Some(expected.as_str()), "{}", run.stderr);
        }
    }
}

#[test]
fn only_where_rows_may_share_the_key_something_stands_before_the_sink() {
    let tables = "CREATE TABLE o (id INT, customer INT, day DATE, tags ARRAY<INT>, PRIMARY KEY (id));
        CREATE TABLE c (id INT, name STRING, PRIMARY KEY (id));
        CREATE TABLE loose (k INT, v INT);
        CREATE DYNAMIC TABLE total AS SELECT COUNT(*) AS n FROM o;";
    let by_id = "CREATE TABLE s (id BIGINT, v STRING, PRIMARY KEY (id) NOT ENFORCED)
        WITH ('connector' = 'filesystem', 'path' = 's.jsonl');";
    let by_text = "CREATE TABLE s (k STRING, v STRING, PRIMARY KEY (k) NOT ENFORCED)
        WITH ('connector' = 'filesystem', 'path' = 's.jsonl');";
    let unique = [
        (by_id, "SELECT id, name FROM c"),
        (by_id, "SELECT id, MIN(name) FROM c GROUP BY id"),
        (by_id, "SELECT o.id, c.name FROM o JOIN c ON c.id = o.customer WHERE o.day > DATE '2026-01-01'"),
        (by_id, "SELECT o.id, c.name FROM o LEFT JOIN c ON c.id = o.customer"),
        (by_id, "SELECT o.id, CAST(t.n AS STRING) FROM o CROSS JOIN total AS t"),
        (by_id, "SELECT DISTINCT k, NULL FROM loose"),
        (
            by_id,
            "SELECT k, CAST(v AS STRING) FROM (SELECT k, v, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v) AS n FROM loose)
                 WHERE n = 1",
        ),
        (by_id, "SELECT COUNT(*), 'all' FROM o"),
        (by_text, "SELECT CAST(id AS STRING), name FROM c"),
        (by_text, "SELECT 'C-' || CAST(id AS STRING), name FROM c"),
        (
            by_text,
            "SELECT 'rows', CAST(n AS STRING) FROM total UNION ALL SELECT 'customers', CAST(COUNT(*) AS STRING) FROM c",
        ),
    ];
    let shared = [
        (by_id, "SELECT customer, CAST(day AS STRING) FROM o"),
        (by_id, "SELECT k, CAST(v AS STRING) FROM loose"),
        (by_id, "SELECT c.id, CAST(o.id AS STRING) FROM o JOIN c ON c.id = o.customer"),
        (by_id, "SELECT DISTINCT k, CAST(v AS STRING) FROM loose"),
        (by_id, "SELECT id, name FROM c UNION ALL SELECT id, 'order' FROM o"),
        (by_id, "SELECT tag, 'tag' FROM (SELECT UNNEST(tags) AS tag FROM o)"),
        (by_id, "SELECT COALESCE(o.id, c.id), c.name FROM o FULL JOIN c ON c.id = o.id"),
        (by_text, "SELECT CAST(day AS STRING) || CAST(id AS STRING), '' FROM o"),
        (by_text, "SELECT SUBSTR(name, 2), name FROM c"),
    ];
    let cases = unique.map(|case| (case, false)).into_iter().chain(shared.map(|case| (case, true)));
    for ((sink, query), stands) in cases {
        let folder = tempfile::tempdir().unwrap();
        let run = script(folder.path(), &format!("{tables}{sink}EXPLAIN INSERT INTO s {query};"), &[]);
        assert_eq!(run.code, Some(0), "{query}: {}", run.stderr);
        let plan: Value = serde_json::from_str(&run.stdout).unwrap();
        let found =
            plan.as_array().unwrap().iter().any(|line| line["reason"].as_str().unwrap().contains("the sink's key ("));
        assert_eq!(found, stands, "{query}: {plan:#}");
    }
}

#[test]
fn jobs_with_keys_that_are_proven_keep_their_plans() {
    let sinks = |job: &str| {
        let folder = tempfile::tempdir().unwrap();
        let run = deltaworks(folder.path(), &["explain", repository(job).to_str().unwrap(), "--format", "json"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stdout.matches("the sink's key (").count()
    };
    assert_eq!(sinks("jobs/first_touch"), 0);
    assert_eq!(sinks("benches/first_touch/job.sql"), 0);
    // `exposure_id || '/' || conversion_id` alone: two pairs may give one text.
    assert_eq!(sinks("jobs/uplift"), 1);
}

#[test]
fn rows_of_inserts_that_come_later_count_too() {
    let folder = tempfile::tempdir().unwrap();
    let sql = format!(
        "CREATE TABLE a (k INT, v INT, PRIMARY KEY (k)); CREATE TABLE b (k INT, v INT, PRIMARY KEY (k)); {}
         INSERT INTO s SELECT k, v FROM a;
         INSERT INTO a VALUES (1, 5), (2, 5);
         SELECT COUNT(*) AS n FROM a;
         INSERT INTO s SELECT k, v FROM b;
         INSERT INTO b VALUES (1, 3), (2, 7);
         DELETE FROM b WHERE k = 1;
         DELETE FROM a WHERE k = 2;
         SHOW ERRORS",
        sink("s", "'format' = 'changelog-json'")
    );
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let changes: Vec<(String, SinkRow)> = lines(&folder.path().join("s.jsonl"))
        .iter()
        .map(|line| (line["op"].as_str().unwrap().to_string(), row_of(&line["row"])))
        .collect();
    let change = |op: &str, k, v| (op.to_string(), (Some(k), Some(v)));
    let expected = [
        change("+I", 1, 5),
        change("+I", 2, 5),
        change("-U", 1, 5),
        change("+U", 1, 3),
        change("-U", 1, 3),
        change("+U", 1, 5),
        change("-U", 2, 5),
        change("+U", 2, 7),
    ];
    assert_eq!(changes, expected);
    assert!(!run.stderr.contains("left out"), "{}", run.stderr);
}

#[test]
fn what_is_left_out_is_in_show_errors() {
    let folder = tempfile::tempdir().unwrap();
    let sql = format!(
        "CREATE TABLE a (id INT, k INT, v INT, PRIMARY KEY (id)); {}
         INSERT INTO s SELECT k, v FROM a;
         INSERT INTO a VALUES (1, 7, 5), (2, 7, 4), (3, 7, 4), (4, 8, 1);
         SHOW ERRORS;
         DELETE FROM a WHERE id = 1;
         SHOW ERRORS",
        sink("s", "'format' = 'changelog-json'")
    );
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let shown = |count: usize| {
        format!(
            "[{{\"name\":\"s\",\"what\":\"rows of a key that another row holds\",\"count\":{count},\"samples\":[\"k = 7\"]}}]"
        )
    };
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), [shown(2), shown(1)]);
}
