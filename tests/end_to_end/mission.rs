//! The SQL statements that the documents behind the project print, run as printed over the data rebuilt for them, where that
//! folder is there.
//!
//! The expected answers are what the documents print, with their known errata mended: "app only" is 4, not 0, and "At Risk and
//! High Value without miniapp" is 2, not 4.

use std::path::{Path, PathBuf};

use crate::program::{Run, deltaworks, repository};

const CLOCK: &str = "2026-06-06 00:00:00";
const UPLIFT: &str = "best_practice_uplift_model";
const CDP: &str = "best_practice_marketing_cdp";

/// The folder with the documents; None, and said so, where it is not there.
fn documents() -> Option<PathBuf> {
    let folder = repository("../shared/mission");
    if folder.join("statements").is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there", folder.display());
    None
}

/// The printed statement of a number, or of a label such as `A1`, with its files in the data folder.
fn printed(documents: &Path, label: &str, data: &Path) -> String {
    let mut files = std::fs::read_dir(documents.join("statements")).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(&format!("{label}_")) || name.starts_with(&format!("cdp_ddl_not_printed_{label}_"))
    };
    let path = files.find(named).unwrap_or_else(|| panic!("there is no statement {label}"));
    let data = format!("{}/", data.display());
    let text = std::fs::read_to_string(path).unwrap();
    format!("{}\n;\n", text.replace("/path/to/", &data).replace("/tmp/marketing_cdp/", &data))
}
fn numbers(ranges: &[std::ops::RangeInclusive<u32>]) -> Vec<String> {
    ranges.iter().flat_map(|range| range.clone().map(|number| format!("{number:02}"))).collect()
}
/// Runs a script with CSV output under the documents' date, with a recording of the one topic that they read.
fn run(folder: &Path, sql: &str) -> Run {
    let topic = folder.join("topics/marketing_conversions");
    std::fs::create_dir_all(&topic).unwrap();
    let record = r#"{"offset":0,"timestamp":1777626000000,"value":"{\"user_id\": \"U051\", \"order_value\": 10.5}"}"#;
    std::fs::write(topic.join("0.jsonl"), format!("{record}\n")).unwrap();
    std::fs::write(folder.join("job.sql"), sql).unwrap();
    deltaworks(folder, &["run", "job.sql", "--format", "csv", "--clock", CLOCK, "--replay", "topics"])
}
/// The result sets of a run, each as its lines without the header.
fn results(run: &Run) -> Vec<Vec<String>> {
    assert_eq!(run.code, Some(0), "{}\n{}", run.stdout, run.stderr);
    let text = run.stdout.replace("\r\n", "\n");
    let lines = |block: &str| block.lines().skip(1).map(str::to_string).collect();
    text.trim_end().split("\n\n").map(lines).collect()
}
/// Rows written below each other, columns between `|`.
fn table(text: &str) -> Vec<String> {
    let row = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join(",");
    text.trim().lines().map(row).collect()
}

#[test]
fn uplift_warehouse() {
    let Some(documents) = documents() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = documents.join("uplift");
    let order = numbers(&[1..=8, 10..=12, 14..=15, 17..=32]);
    let mut sql: String = order.iter().map(|label| printed(&documents, label, &data)).collect();
    let facts = "user_id, campaign_id, channel, is_treated, age_group, region, is_converted, order_value";
    sql += &format!(
        "SELECT {facts} FROM {UPLIFT}.dwd_user_campaign_facts
         WHERE user_id IN ('U031', 'U036', 'U039', 'U044', 'U045') ORDER BY user_id;
         SELECT value FROM {UPLIFT}.kafka_raw_conversions; USE {UPLIFT}; SHOW JOBS;"
    );
    let results = results(&run(folder.path(), &sql));
    let [groups, some, channels, sets, both, scores, roi, features, facts, raw, jobs] = &results[..] else {
        panic!("{results:?}")
    };
    assert_eq!(groups, &table("0|20\n1|30"));
    // The document prints five rows of no order: any five are right, and those five are there.
    assert_eq!(some.len(), 5);
    assert_eq!(facts, &table(FIVE_FACTS));
    assert_eq!(channels, &table(CHANNEL_UPLIFT));
    assert_eq!(sets, &table("30|20"));
    assert_eq!(both, &table("30"));
    assert_eq!(scores, &table(UPLIFT_SCORE));
    assert_eq!(roi, &table(CHANNEL_ROI));
    assert_eq!(features.len(), 20);
    assert!(features.contains(&"U001,1,1,8,2".to_string()) && features.contains(&"U003,0,0,1,1".to_string()));
    assert_eq!(raw, &[r#""{""user_id"": ""U051"", ""order_value"": 10.5}""#]);
    assert!(jobs.contains(&format!("{UPLIFT}.kafka_raw_conversions,pipe {UPLIFT}.pipe_conversions,running")), "{jobs:?}");
}

const FIVE_FACTS: &str = "
    U031 | CMP004 | wechat  | 1 | | | 1 | 480.0
    U036 | CMP004 | email   | 1 | | | 1 | 175.0
    U039 | CMP004 | sms     | 1 | | | 1 | 165.0
    U044 | CMP002 | display | 1 | | | 1 | 280.0
    U045 | CMP003 | email   | 1 | | | 1 | 350.0";
const CHANNEL_UPLIFT: &str = "
    CMP001 | douyin  | 0 | 2 | 0 | 0.0000 | 0.0
    CMP001 | douyin  | 1 | 3 | 3 | 1.0000 | 261.63
    CMP001 | search  | 0 | 1 | 0 | 0.0000 | 0.0
    CMP001 | search  | 1 | 1 | 1 | 1.0000 | 430.0
    CMP001 | wechat  | 0 | 3 | 0 | 0.0000 | 0.0
    CMP001 | wechat  | 1 | 4 | 4 | 1.0000 | 210.13
    CMP002 | display | 0 | 2 | 0 | 0.0000 | 0.0
    CMP002 | display | 1 | 4 | 4 | 1.0000 | 182.0
    CMP002 | search  | 0 | 4 | 0 | 0.0000 | 0.0
    CMP002 | search  | 1 | 3 | 3 | 1.0000 | 281.67";
const UPLIFT_SCORE: &str = "
    CMP001 | douyin  | 1.0000 | 0.0000 | 1.0000 | 261.63 | 3 | 2 | HIGH
    CMP001 | search  | 1.0000 | 0.0000 | 1.0000 | 430.0  | 1 | 1 | HIGH
    CMP001 | wechat  | 1.0000 | 0.0000 | 1.0000 | 210.13 | 4 | 3 | HIGH
    CMP002 | display | 1.0000 | 0.0000 | 1.0000 | 182.0  | 4 | 2 | HIGH
    CMP002 | search  | 1.0000 | 0.0000 | 1.0000 | 281.67 | 3 | 4 | HIGH
    CMP003 | email   | 1.0000 | 0.0000 | 1.0000 | 413.33 | 3 | 1 | HIGH
    CMP003 | push    | 1.0000 | 0.0000 | 1.0000 | 217.5  | 2 | 2 | HIGH
    CMP003 | sms     | 1.0000 | 0.0000 | 1.0000 | 244.5  | 2 | 1 | HIGH
    CMP004 | douyin  | 1.0000 | 0.0000 | 1.0000 | 200.0  | 2 | 1 | HIGH
    CMP004 | email   | 1.0000 | 0.0000 | 1.0000 | 175.0  | 1 | 1 | HIGH
    CMP004 | push    | 1.0000 | 0.0000 | 1.0000 | 240.0  | 1 | 1 | HIGH
    CMP004 | wechat  | 1.0000 | 0.0000 | 1.0000 | 300.0  | 2 | 1 | HIGH";
const CHANNEL_ROI: &str = "
    email   | 1415.0 | 4 | 353.75
    search  | 1275.0 | 4 | 318.75
    wechat  | 1440.5 | 6 | 240.08
    douyin  | 1184.9 | 5 | 236.98
    sms     | 944.0  | 4 | 236.0
    push    | 675.0  | 3 | 225.0
    display | 728.0  | 4 | 182.0";

/// The customer data platform up to and with the statement `last`.
fn customer_data_platform(documents: &Path) -> String {
    let data = documents.join("cdp");
    let mapping = format!(
        "PUT '{}/dwd_id_mapping.csv' TO USER VOLUME FILE 'dwd_id_mapping.csv';
         COPY INTO {CDP}.dwd_id_mapping FROM USER VOLUME USING csv OPTIONS ('header' = 'true') FILES ('dwd_id_mapping.csv');",
        data.display()
    );
    let all = |labels: &[&str]| labels.iter().map(|label| printed(documents, label, &data)).collect::<String>();
    let range = |range| numbers(&[range]).iter().map(|label| printed(documents, label, &data)).collect::<String>();
    [
        all(&["33", "34", "37", "A1", "38"]),
        range(39..=41),
        range(43..=46),
        all(&["A2"]),
        mapping,
        all(&["47", "49", "50", "A3"]),
        range(51..=66),
        all(&["A4"]),
        range(67..=70),
    ]
    .concat()
}

#[test]
fn customer_data_platform_results() {
    let Some(documents) = documents() else { return };
    let folder = tempfile::tempdir().unwrap();
    let rfm = "SELECT one_id, recency_days, frequency, monetary FROM dws_user_rfm WHERE one_id IN ('ONE004', 'CUS013085')
               ORDER BY one_id;";
    let sql = customer_data_platform(&documents) + rfm;
    let results = results(&run(folder.path(), &sql));
    let expected = [
        "ods_app_events|10\nods_crm_members|5\nods_retail_transactions|30",
        "MBR001|member_id|ONE_UNKNOWN_MBR001
         hash_mobile_001|mobile_hash|ONE_PHONE_le_001
         union_001|union_id|ONE_WX_on_001",
        // The merged row is new; the others stay as they were.
        "ONE001|email_hash|hash_email_001|1.0|2024-11-20 10:00:00
         ONE001|member_id|MBR001|1.0|2024-11-01 00:00:00
         ONE001|mobile_hash|hash_mobile_001|1.0|2024-11-01 00:00:00
         ONE001|union_id|union_001|0.95|2024-11-05 00:00:00",
        "online_retail|7|30|1628.7|54.29\napp|4|4|1306.0|326.5\nminiapp|4|5|867.9|173.58",
        "At Risk|7|287.0|1.0|575.0\nLost|7|232.67|4.0|5988.0\nLoyal Customers|1|164.9|2.0|578.0",
        "At Risk|7\nchannel_app|4\nchannel_miniapp|4\nHigh Value|3\nLoyal Customers|1",
        "3",
        "8",
        "4",
        "2",
        "PKG001|At Risk High Value|ONE004|At Risk
         PKG001|At Risk High Value|ONE006|At Risk
         PKG001|At Risk High Value|ONE010|At Risk",
        "ads_audience_package|table\nads_user_bitmap|table\ndwd_id_mapping|table\ndwd_user_events|table
         dws_user_rfm|dynamic table\ndws_user_segment|dynamic table\nods_app_events|table\nods_crm_members|table
         ods_retail_transactions|table",
        "CUS013085|6012|3|294.9\nONE004|581|1|599.0",
    ];
    assert_eq!(results.len(), expected.len(), "{results:?}");
    for (place, (found, expected)) in results.iter().zip(expected).enumerate() {
        assert_eq!(found, &table(expected), "result set {place}");
    }
}

#[test]
fn a_function_without_a_url_cannot_be_called() {
    let Some(documents) = documents() else { return };
    let declared: String = ["33", "44", "45"].map(|label| printed(&documents, label, &documents)).concat();
    let call = format!("{CDP}.call_id_graph('MBR001', 'member_id')");
    let calls = [
        format!("SELECT {call} AS one_id;"),
        format!("CREATE TABLE t (k INT); SELECT {CDP}.call_id_graph('MBR001', 'member_id') AS one_id FROM t;"),
        format!("CREATE TABLE t (k INT); CREATE DYNAMIC TABLE v AS SELECT k, {call} AS one_id FROM t;"),
        format!("CREATE TABLE t (k STRING); INSERT INTO t SELECT {call};"),
    ];
    for call in calls {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path(), &format!("{declared}{call}"));
        assert_eq!(run.code, Some(1), "{call}\n{}", run.stderr);
        assert!(run.stderr.contains("conn_id_graph") && run.stderr.contains("URL"), "{call}\n{}", run.stderr);
    }
}

#[test]
fn statements_that_are_alternatives() {
    let Some(documents) = documents() else { return };
    let cases: [(&[&str], String, &str); 5] = [
        (
            &["01", "02", "09"],
            format!("SELECT is_treated, COUNT(*) FROM {UPLIFT}.doc_exposures GROUP BY is_treated"),
            "0|4\n1|6",
        ),
        (&["01", "03", "13"], format!("SELECT COUNT(*), SUM(order_value) FROM {UPLIFT}.doc_conversions"), "5|1392.5"),
        (
            &["01", "04", "16"],
            format!("SELECT COUNT(*), SUM(historical_purchase_count) FROM {UPLIFT}.doc_user_features"),
            "5|39",
        ),
        (
            &["33", "39", "42"],
            format!(
                "SELECT COUNT(*), SUM(quantity), MAX(invoice_date), MAX(ingest_time) FROM {CDP}.ods_retail_transactions"
            ),
            "10|124|2009-12-15 10:00:00|2026-06-06 00:00:00",
        ),
        (
            &["33", "A2", "48"],
            format!("SELECT one_id, COUNT(*), MIN(confidence) FROM {CDP}.dwd_id_mapping GROUP BY one_id ORDER BY one_id"),
            "ONE001|3|0.95\nONE002|2|0.9",
        ),
    ];
    for (labels, query, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let statements: String = labels.iter().map(|label| printed(&documents, label, &documents)).collect();
        let results = results(&run(folder.path(), &format!("{statements}{query};")));
        assert_eq!(results, [table(expected)], "{labels:?}");
    }
}

#[test]
fn members_from_a_file() {
    let Some(documents) = documents() else { return };
    let folder = tempfile::tempdir().unwrap();
    let csv =
        "member_id,mobile_hash,email_hash,real_name,gender,birthday,register_date,channel,level,total_points,updated_at
MBR001,m1,e1,\"Wang, Alice\",F,1990-05-12,2020-01-15,offline,gold,1200,2024-11-01 10:00:00
MBR002,m2,,Bob Chen,M,,2019-06-20,online,silver,,2024-10-15 14:30:00
";
    std::fs::write(folder.path().join("crm_members.csv"), csv).unwrap();
    let statements: String = ["33", "34", "35", "36"].map(|label| printed(&documents, label, folder.path())).concat();
    let sql = format!(
        "{statements}SELECT member_id, email_hash, real_name, birthday, total_points, updated_at FROM {CDP}.ods_crm_members;"
    );
    let results = results(&run(folder.path(), &sql));
    let rows = ["MBR001,e1,\"Wang, Alice\",1990-05-12,1200,2024-11-01 10:00:00", "MBR002,,Bob Chen,,,2024-10-15 14:30:00"];
    assert_eq!(results, [rows.map(String::from)]);
}
