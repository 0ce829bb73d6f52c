//! The command line from outside: exit codes, streams, messages, formats.

use crate::program::{deltaworks, script};

#[test]
fn version_and_usage() {
    let folder = tempfile::tempdir().unwrap();
    let run = deltaworks(folder.path(), &["--version"]);
    assert_eq!((run.code, run.stdout.trim()), (Some(0), concat!("deltaworks ", env!("CARGO_PKG_VERSION"))));
    assert_eq!(deltaworks(folder.path(), &["run"]).code, Some(2));
    assert_eq!(deltaworks(folder.path(), &["run", "x.sql", "--no-such-option"]).code, Some(2));
    assert_eq!(deltaworks(folder.path(), &["run", "x.sql", "--workers", "0"]).code, Some(2));
    assert_eq!(deltaworks(folder.path(), &["run", "x.sql", "--clock", "noon"]).code, Some(2));
    assert_eq!(deltaworks(folder.path(), &["run", "x.sql", "--set", "A"]).code, Some(2));
    let run = deltaworks(folder.path(), &["run", "x.sql", "--state", "s"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.starts_with("error: --state is not supported yet"), "{}", run.stderr);
}

#[test]
fn a_missing_job_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = deltaworks(folder.path(), &["run", "nothing.sql"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.starts_with("error: cannot read \"nothing.sql\""), "{}", run.stderr);
    assert!(run.stderr.contains("\n  help: "), "{}", run.stderr);
}

#[test]
fn results_go_to_stdout_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (k INT, v DECIMAL(10, 2), s STRING, PRIMARY KEY (k)); ;
               INSERT INTO t VALUES (1, 1.5, 'a'), (2, NULL, ''), (3, 2.25, 'q\"'), (1, 3.00, 'b');
               SELECT * FROM t; SELECT k FROM t WHERE k > 9";
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let rows = r#"[{"k":1,"v":3.00,"s":"b"},{"k":2,"v":null,"s":""},{"k":3,"v":2.25,"s":"q\""}]"#;
    assert_eq!(run.stdout, format!("{rows}\n[]\n"));
    assert!(run.stderr.contains("4 rows"), "{}", run.stderr);

    let run = deltaworks(folder.path(), &["run", "job.sql", "--format", "csv"]);
    assert_eq!(run.stdout.replace("\r\n", "\n"), "k,v,s\n1,3.00,b\n2,,\"\"\n3,2.25,\"q\"\"\"\n\nk\n");
}

#[test]
fn an_error_names_file_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let run = script(folder.path(), "CREATE TABLE t (k INT);\n\nSELECT nope FROM t;\n", &[]);
    assert_eq!(run.code, Some(1));
    let last: Vec<&str> = run.stderr.lines().rev().take(2).collect();
    assert!(last[1].starts_with("error: job.sql:3:"), "{}", run.stderr);
    assert!(last[1].contains("nope"), "{}", run.stderr);
    assert!(last[0].starts_with("  help: "), "{}", run.stderr);

    let run = script(folder.path(), "CREATE TABEL t (k INT);", &[]);
    assert!(run.stderr.contains("error: job.sql:1:"), "{}", run.stderr);
}

#[test]
fn substitution() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "5\n").unwrap();
    let sql = "SELECT ${A} AS a, ${B:-2} AS b, ${file:secret} AS c";
    let run = script(folder.path(), sql, &["--set", "A=1"]);
    assert_eq!(run.stdout, "[{\"a\":1,\"b\":2,\"c\":5}]\n", "{}", run.stderr);
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("job.sql:1:8") && run.stderr.contains("--set A="), "{}", run.stderr);
}

#[test]
fn the_clock_is_what_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let run = script(folder.path(), "SELECT CURRENT_DATE() AS d", &["--clock", "2026-06-06 00:00:00"]);
    assert_eq!(run.stdout, "[{\"d\":\"2026-06-06\"}]\n", "{}", run.stderr);
}

#[test]
fn explain_prints_every_continuous_statement() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("job.sql"),
        "CREATE TABLE t (k INT, v INT, PRIMARY KEY (k));
         CREATE DYNAMIC TABLE s AS SELECT v, COUNT(*) AS n FROM t GROUP BY v;",
    )
    .unwrap();
    let run = deltaworks(folder.path(), &["explain", "job.sql", "--format", "json"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(
        run.stdout.contains("\"operator\":\"aggregate\"") && run.stdout.contains("\"operator\":\"source\""),
        "{}",
        run.stdout
    );
}

#[test]
fn put_and_copy_into() {
    let folder = tempfile::tempdir().unwrap();
    let csv = "id,amount,at\n1,2.50,5/1/2026 9:05\n2,,5/2/2026 10:00\nthree,1,5/3/2026 1:00\n4,1\n";
    std::fs::write(folder.path().join("in.csv"), csv).unwrap();
    let sql = "CREATE TABLE t (at TIMESTAMP, id INT, amount DECIMAL(10, 2), note STRING DEFAULT 'none');
               PUT 'in.csv' TO USER VOLUME FILE 'a.csv';
               COPY INTO t (id, amount, at) FROM USER VOLUME USING csv
                 OPTIONS ('header' = 'true', 'nullValue' = '', 'timestampFormat' = 'M/d/yyyy H:mm') FILES ('a.csv');
               SELECT * FROM t ORDER BY id; SELECT position FROM t$errors ORDER BY position";
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let rows = r#"[{"at":"2026-05-01 09:05:00","id":1,"amount":2.50,"note":"none"},{"at":"2026-05-02 10:00:00","id":2,"amount":null,"note":"none"}]"#;
    assert_eq!(run.stdout, format!("{rows}\n[{{\"position\":4}},{{\"position\":5}}]\n"), "{}", run.stderr);
    assert!(run.stderr.contains("2 rows of t were rejected") && run.stderr.contains("a.csv:4"), "{}", run.stderr);
}

#[test]
fn bench_prints_figures_and_the_answer_stays_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let input: String = (0..50).map(|i| format!("{{\"id\":{},\"n\":{i}}}\n", i % 20)).collect();
    std::fs::write(folder.path().join("t.json"), input).unwrap();
    let sql = "CREATE TABLE t (id INT, n INT, PRIMARY KEY (id)) WITH ('connector'='filesystem', 'path'='t.json', 'format'='json');
        CREATE TABLE o (s BIGINT, PRIMARY KEY (s) NOT ENFORCED) WITH ('connector'='filesystem', 'path'='o.jsonl', 'format'='changelog-json');
        INSERT INTO o SELECT SUM(n) FROM t";
    std::fs::write(folder.path().join("job.sql"), sql).unwrap();
    for (single, measured) in [("0", 0), ("30", 30), ("999", 50)] {
        let run = deltaworks(folder.path(), &["bench", "job.sql", "--single", single]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let figures: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(figures["records"], 50);
        assert_eq!(figures["single"][0]["changes"].as_i64().unwrap_or(0), measured);
        // Per id the last of 0..50 is i + 40 for i < 10, else i + 20.
        assert_eq!(crate::program::fold(&folder.path().join("o.jsonl")), [r#"{"s":790}"#]);
    }
}

#[test]
fn bench_lets_days_pass() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.json"), "{\"id\":1,\"d\":\"2026-06-01\"}\n{\"id\":2,\"d\":\"2026-06-05\"}\n")
        .unwrap();
    let sql = "CREATE TABLE t (id INT, d DATE) WITH ('connector'='filesystem', 'path'='t.json', 'format'='json');
        CREATE TABLE o (id INT, days BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector'='filesystem', 'path'='o.jsonl', 'format'='changelog-json');
        INSERT INTO o SELECT id, DATEDIFF(CURRENT_DATE(), MAX(d)) FROM t GROUP BY id";
    std::fs::write(folder.path().join("job.sql"), sql).unwrap();
    let run = deltaworks(folder.path(), &["bench", "job.sql", "--clock", "2026-06-06", "--days", "3"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let figures: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(figures["days"]["changes"], 3);
    // Three days after 2026-06-06.
    assert_eq!(crate::program::fold(&folder.path().join("o.jsonl")), [r#"{"id":1,"days":8}"#, r#"{"id":2,"days":4}"#]);
}
