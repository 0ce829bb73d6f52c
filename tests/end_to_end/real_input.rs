//! The first-touch job on a grocery panel turned into recorded topics, where that data is there.

use std::collections::BTreeSet;
use std::process::Command;

use crate::program::{deltaworks, fold, repository};

#[test]
fn complete_journey() {
    let data = repository("../shared/data/completejourney");
    if !data.is_dir() {
        println!("skipped: {} is not there", data.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let topics = folder.path().join("topics");
    let script = repository("tests/tools/completejourney_topics.py");
    let written = Command::new("python3").arg(script).arg(&data).arg(&topics).status();
    if !written.is_ok_and(|status| status.success()) {
        println!("skipped: the script needs python3 with duckdb (pip install duckdb)");
        return;
    }
    let job = repository("jobs/first_touch");
    let set = format!("OUT={}", folder.path().display());
    let arguments = ["run", job.to_str().unwrap(), "--replay", topics.to_str().unwrap(), "--set", &set];
    let run = deltaworks(folder.path(), &arguments);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let rows = fold(&folder.path().join("mart_order_first_touch.jsonl"));
    let touched: Vec<&String> = rows.iter().filter(|row| !row.contains("\"first_touch_event_id\":null")).collect();
    assert_eq!((rows.len(), touched.len()), (155_848, 15_899));
    let by = |kind: &str| touched.iter().filter(|row| row.contains(&format!("\"first_touch_event_id\":\"{kind}-"))).count();
    assert_eq!((by("mail"), by("redemption")), (13_264, 2_635));
    let cents = |row: &String| field(row, "total_amount").replace('.', "").parse::<i64>().unwrap();
    assert_eq!(rows.iter().map(cents).sum::<i64>(), 459_603_958);
    assert_eq!(touched.iter().map(|row| cents(row)).sum::<i64>(), 55_569_681);
    let households: BTreeSet<&str> = touched.iter().map(|row| field(row, "customer_id")).collect();
    assert_eq!(households.len(), 1_346);
}

/// The text of a field without inner commas.
fn field<'r>(row: &'r str, name: &str) -> &'r str {
    let label = format!("\"{name}\":");
    let start = row.find(&label).unwrap() + label.len();
    row[start..].split([',', '}']).next().unwrap()
}
