//! The jobs on real data, where it is there: a grocery panel through first touch, an e-mail experiment through uplift, and a web
//! shop's order lines through the recency, frequency and segments of the customer job.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::jobs::rows;
use crate::program::{deltaworks, fold, repository, script};

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

/// A file or folder of real data; says so where it is not there.
pub(crate) fn data(name: &str) -> Option<PathBuf> {
    let path = repository("../shared/data").join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// The uplift job's table of arms and of scores, with what `outcome` names as the conversion.
fn hillstrom(data: &Path, outcome: &str) -> Option<(Vec<Value>, Vec<Value>)> {
    let folder = tempfile::tempdir().unwrap();
    let topics = folder.path().join("topics");
    let tool = repository("tests/tools/hillstrom_topics.py");
    let written = Command::new("python3").arg(tool).arg(data).arg(&topics).arg(outcome).status();
    if !written.is_ok_and(|status| status.success()) {
        println!("skipped: the script needs python3");
        return None;
    }
    let (job, set) = (repository("jobs/uplift"), format!("OUT={}", folder.path().display()));
    let arguments = ["run", job.to_str().unwrap(), "--replay", topics.to_str().unwrap(), "--set", &set];
    let run = deltaworks(folder.path(), &arguments);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let table = |name: &str| {
        let rows = rows(&folder.path().join(name));
        rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
    };
    Some((table("dws_channel_uplift.jsonl"), table("ads_uplift_score.jsonl")))
}

#[test]
fn hillstrom_e_mail_experiment() {
    let Some(path) = data("hillstrom.csv.gz") else {
        return;
    };
    let Some((arms, _)) = hillstrom(&path, "visit") else {
        return;
    };
    let counts: Vec<(&str, i64, i64, i64)> = arms
        .iter()
        .map(|arm| {
            let count = |column: &str| arm[column].as_i64().unwrap();
            (arm["campaign_id"].as_str().unwrap(), count("is_treated"), count("user_count"), count("converted_count"))
        })
        .collect();
    let expected =
        [("mens", 0, 21_306, 2_262), ("mens", 1, 21_307, 3_894), ("womens", 0, 21_306, 2_262), ("womens", 1, 21_387, 3_238)];
    assert_eq!(counts, expected);
    // The published effect of the women's mail on visits, to ten digits.
    let rate = |arm: usize| counts[arm].3 as f64 / counts[arm].2 as f64;
    assert_eq!(format!("{:.10}", rate(3) - rate(2)), "0.0452331066");

    let (_, scores) = hillstrom(&path, "conversion").unwrap();
    let effects: Vec<String> = scores
        .iter()
        .map(|score| format!("{} {} {}", score["campaign_id"], score["uplift_cvr"], score["uplift_arpu"]))
        .collect();
    // +0.681 and +0.311 points; the published +0.770 and +0.424 a head.
    assert_eq!(effects, ["\"mens\" 0.0068 0.77", "\"womens\" 0.0031 0.42"]);
}

#[test]
fn online_retail_by_recency_frequency_and_money() {
    let Some(path) = data("online_retail_II.parquet") else {
        return;
    };
    let job = std::fs::read_to_string(repository("jobs/customer_360/job.sql")).unwrap();
    let (begin, end) = (job.find("-- DWS").unwrap(), job.find("-- ADS").unwrap());
    let sql = format!(
        "CREATE TABLE online_retail (quantity INT, invoicedate TIMESTAMP, price DOUBLE, \"Customer ID\" STRING)
         WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         CREATE VIEW dwd_user_events AS
         SELECT \"Customer ID\" AS one_id, CAST(ROUND(price * quantity, 2) AS DECIMAL(18, 2)) AS revenue,
           CAST(invoicedate AS DATE) AS event_date
         FROM online_retail
         WHERE \"Customer ID\" IS NOT NULL;
         {}
         SELECT COUNT(*) AS customers, SUM(frequency) AS days, SUM(monetary) AS money, SUM(recency_days) AS recency,
           COUNT(*) FILTER (WHERE monetary >= 300) AS high_value
         FROM dws_user_rfm;
         SELECT rfm_segment, COUNT(*) AS n FROM dws_user_segment GROUP BY rfm_segment ORDER BY n DESC;
         SELECT one_id, monetary FROM dws_user_rfm ORDER BY monetary DESC LIMIT 1",
        path.display(),
        &job[begin..end]
    );
    let folder = tempfile::tempdir().unwrap();
    let run = script(folder.path(), &sql, &["--clock", "2011-12-10 00:00:00"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let expected = concat!(
        "[{\"customers\":5942,\"days\":38502,\"money\":16648292.37,\"recency\":1208942,\"high_value\":4605}]\n",
        "[{\"rfm_segment\":\"Champions\",\"n\":3012},{\"rfm_segment\":\"Loyal Customers\",\"n\":1313},",
        "{\"rfm_segment\":\"At Risk\",\"n\":1227},{\"rfm_segment\":\"Hibernating\",\"n\":390}]\n",
        "[{\"one_id\":\"18102\",\"monetary\":598215.22}]\n",
    );
    assert_eq!(run.stdout, expected);
}
