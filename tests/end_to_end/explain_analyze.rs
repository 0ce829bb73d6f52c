//! EXPLAIN ANALYZE from outside: the rows and failures of every operator, to the last one.

use serde_json::Value;

use crate::program::{deltaworks, script, shell};

const TABLES: &str = "CREATE TABLE sale (id INT, customer INT, amount STRING, PRIMARY KEY (id));
    CREATE TABLE customer (id INT, segment STRING, PRIMARY KEY (id));
    CREATE DYNAMIC TABLE by_segment AS
      SELECT c.segment, COUNT(*) AS n, MAX(s.amount) AS most, SUM(CAST(s.amount AS INT)) AS total
      FROM sale AS s JOIN customer AS c ON c.id = s.customer WHERE s.id > 1 GROUP BY c.segment;
    INSERT INTO customer VALUES (1, 'a'), (2, 'b'), (3, 'b');
    INSERT INTO sale VALUES (1, 1, '10'), (2, 1, '20'), (3, 1, 'x'), (4, 2, '30'), (5, 3, '40'), (6, 9, '50'), (7, 1, '5');
    DELETE FROM customer WHERE id = 3;";

/// (operator, what it says, rows, errors) per line, and the lines.
fn measured(stdout: &str) -> (Vec<(String, i64, i64)>, Vec<Value>) {
    let lines: Vec<Value> = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let figures = |line: &Value| {
        let operator = line["operator"].as_str().unwrap().to_string();
        (operator, line["rows"].as_i64().unwrap(), line["errors"].as_i64().unwrap())
    };
    (lines.iter().map(figures).collect(), lines)
}
fn total(lines: &[Value], figure: &str) -> f64 {
    lines.iter().filter_map(|line| line[figure].as_f64()).sum()
}

#[test]
fn every_operator_has_its_rows() {
    for workers in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let run =
            script(folder.path(), &format!("{TABLES} EXPLAIN ANALYZE SELECT * FROM by_segment"), &["--workers", workers]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let (figures, lines) = measured(&run.stdout);
        let of = |operator: &str| -> Vec<(i64, i64)> {
            figures.iter().filter(|(name, _, _)| name == operator).map(|(_, rows, errors)| (*rows, *errors)).collect()
        };
        // By hand: 7 sales, 6 of them after the first; 2 customers. Of the 6 sales 2, 3, 7 and 4 have a customer; the amount of
        // sale 3 is no number.
        let mut read = of("table");
        read.extend(of("source"));
        assert!(read.contains(&(7, 0)) && read.contains(&(2, 0)), "{figures:?}");
        assert_eq!(of("filter"), [(6, 0)], "{figures:?}");
        assert_eq!(of("linear_join"), [(4, 0)], "{figures:?}");
        assert_eq!(of("aggregate"), [(2, 1)], "{figures:?}");
        assert_eq!(figures[0], ("table".to_string(), 2, 0), "{figures:?}");
        assert_eq!(figures.iter().map(|(_, _, errors)| errors).sum::<i64>(), 1);
        // The join and MAX have indexes. No test says how long anything took, only that somebody looked.
        let join = lines.iter().find(|line| line["operator"] == "linear_join").unwrap();
        assert!(join["bytes"].as_i64().unwrap() > 8 * 16, "{join}");
        assert!(total(&lines, "busy_ms") > 0.0, "{lines:?}");
    }
}

#[test]
fn a_query_of_the_moment_is_run_once_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let sql = format!(
        "{TABLES} EXPLAIN ANALYZE SELECT customer, COUNT(*) AS n FROM sale GROUP BY customer;
         INSERT INTO sale VALUES (8, 9, '1');
         SELECT segment, n FROM by_segment ORDER BY segment; SHOW ERRORS;
         EXPLAIN ANALYZE SELECT a.id FROM sale AS a JOIN sale AS b ON a.customer = b.customer"
    );
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    let (first, _) = measured(lines[0]);
    assert_eq!(first.first(), Some(&("aggregate".to_string(), 4, 0)), "{first:?}");
    assert_eq!(first.last().map(|(_, rows, _)| *rows), Some(7), "{first:?}");
    assert_eq!(lines[1], r#"[{"segment":"a","n":3},{"segment":"b","n":1}]"#);
    assert!(!lines[2].contains("analysis"), "{}", lines[2]);
    // Both sides of the join are the same rows, read once: customers 1 (4 sales), 2, 3 (one each) and 9 (2) give 16 + 1 + 1 + 4.
    let (pairs, _) = measured(lines[3]);
    assert!(pairs.iter().any(|(operator, rows, _)| operator == "linear_join" && *rows == 22), "{pairs:?}");
    assert_eq!(
        pairs.iter().filter(|(_, rows, _)| *rows == 8).count(),
        pairs.len() - 1 - usize::from(pairs[0].0 == "project")
    );
}

#[test]
fn a_join_that_is_too_large_ends_the_analysis_alone() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE a (n BIGINT);
               INSERT INTO a SELECT value FROM generate_series(1, 10001);
               EXPLAIN ANALYZE SELECT COUNT(*) AS c FROM a AS x JOIN a AS y ON x.n + 1 < y.n;
               SELECT COUNT(*) AS c FROM a;";
    let run = shell(folder.path(), sql);
    assert_eq!(run.stdout, "[{\"c\":10001}]\n", "{}", run.stderr);
    assert!(run.stderr.contains("error: shell:1:16: a join in \"the query\" has no equality"), "{}", run.stderr);
}

#[test]
fn a_stream_has_nothing_to_analyse() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE s (id INT) WITH ('table.retain' = 'none'); EXPLAIN ANALYZE SELECT COUNT(*) AS n FROM s";
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(run.stderr.contains("\"s\" keeps no rows to read"), "{}", run.stderr);
}

#[test]
fn explain_without_analyze_has_no_figures() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("job.sql"), format!("{TABLES} EXPLAIN SELECT * FROM sale")).unwrap();
    let run = deltaworks(folder.path(), &["run", "job.sql", "--format", "json"]);
    assert!(!run.stdout.contains("busy_ms"), "{}", run.stdout);
}
