//! Bitmaps that travel in chunks: what is kept up to date against what is asked for anew, after each of many random changes.

use serde_json::Value;

use crate::program::{Run, fold, script, shell};

const TABLES: &str = "
    CREATE TABLE visit (id INT, page STRING, customer BIGINT, PRIMARY KEY (id));
    CREATE DYNAMIC TABLE audience AS SELECT page, GROUP_BITMAP_STATE(customer) AS customers FROM visit GROUP BY page;
    CREATE DYNAMIC TABLE pairs AS
      SELECT a.page AS l, b.page AS r, BITMAP_COUNT(BITMAP_AND(a.customers, b.customers)) AS n,
             BITMAP_ANDNOT(a.customers, b.customers) AS rest
      FROM audience AS a JOIN audience AS b ON a.page <> b.page;
    CREATE DYNAMIC TABLE lonely AS
      SELECT l, GROUP_BITMAP_AND_STATE(rest) AS customers, GROUP_BITMAP_OR(rest) AS n FROM pairs GROUP BY l;
    CREATE DYNAMIC TABLE sizes AS
      SELECT p.l, p.r, BITMAP_COUNT(BITMAP_XOR(BITMAP_OR(p.rest, q.customers), a.customers)) AS n
      FROM pairs AS p JOIN lonely AS q ON q.l = p.r JOIN audience AS a ON a.page = p.l WHERE BITMAP_COUNT(a.customers) > 1;
";
/// The same from the base table alone, with whole bitmaps.
const ANEW: [(&str, &str); 3] = [
    (
        "SELECT l, r, n, BITMAP_TO_STRING(rest) AS ids FROM pairs ORDER BY l, r",
        "SELECT l, r, n, BITMAP_TO_STRING(rest) AS ids FROM ap ORDER BY l, r",
    ),
    (
        "SELECT l, n, BITMAP_TO_STRING(customers) AS ids FROM lonely ORDER BY l",
        "SELECT l, n, BITMAP_TO_STRING(customers) AS ids FROM al ORDER BY l",
    ),
    (
        "SELECT l, r, n FROM sizes ORDER BY l, r",
        "SELECT p.l, p.r, BITMAP_COUNT(BITMAP_XOR(BITMAP_OR(p.rest, q.customers), a.customers)) AS n
         FROM ap AS p JOIN al AS q ON q.l = p.r JOIN aa AS a ON a.page = p.l WHERE BITMAP_COUNT(a.customers) > 1 ORDER BY l, r",
    ),
];
const WITH: &str = "WITH aa AS (SELECT page, GROUP_BITMAP_STATE(customer) AS customers FROM visit GROUP BY page),
    ap AS (SELECT a.page AS l, b.page AS r, BITMAP_COUNT(BITMAP_AND(a.customers, b.customers)) AS n,
                  BITMAP_ANDNOT(a.customers, b.customers) AS rest FROM aa AS a JOIN aa AS b ON a.page <> b.page),
    al AS (SELECT l, GROUP_BITMAP_AND_STATE(rest) AS customers, GROUP_BITMAP_OR(rest) AS n FROM ap GROUP BY l) ";

/// Random writes, the same for the same seed: rows come, move to other pages and customers, and go.
fn changes(mut seed: u64, count: usize) -> Vec<String> {
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    let customers = ["1", "2", "65535", "65536", "70000", "4294967296", "8589934592", "NULL", "-3"];
    let mut change = || {
        let (id, page, customer) =
            (below(24), ["'a'", "'b'", "'c'", "NULL"][below(4) as usize], customers[below(9) as usize]);
        match below(10) {
            0 => format!("DELETE FROM visit WHERE page = {page};"),
            1 => format!("UPDATE visit SET customer = {customer} WHERE id % 3 = {};", id % 3),
            2 | 3 => format!("DELETE FROM visit WHERE id = {id};"),
            _ => format!("INSERT INTO visit VALUES ({id}, {page}, {customer}), ({}, {page}, 2);", below(24)),
        }
    };
    (0..count).map(|_| change()).collect()
}

fn lines(run: Run) -> Vec<String> {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.stdout.lines().map(str::to_string).collect()
}

#[test]
fn views_over_chunks_agree_with_the_query_asked_anew() {
    for (seed, workers) in [(1, "1"), (2, "2"), (3, "4")] {
        let mut sql = TABLES.to_string();
        sql += "INSERT INTO visit VALUES (100, 'a', 1), (101, 'a', 65536), (102, 'b', 65536), (103, 'c', 4294967296);";
        for change in changes(seed, 20) {
            let queries: String = ANEW.iter().map(|(kept, anew)| format!("{kept};\n{WITH}{anew};\n")).collect();
            sql += &format!("{change}\n{queries}");
        }
        let folder = tempfile::tempdir().unwrap();
        let results = lines(script(folder.path(), &sql, &["--workers", workers]));
        assert_eq!(results.len(), 20 * 2 * ANEW.len());
        for (number, pair) in results.chunks(2).enumerate() {
            assert_eq!(pair[0], pair[1], "seed {seed}, {workers} workers, result {number}");
        }
        assert!(results.iter().any(|line| line.contains("4294967296")), "no answer has large ids");
    }
}

/// In a script that reads nothing in between the views are of one dataflow, and a sink takes whole bitmaps from them.
#[test]
fn a_sink_takes_whole_bitmaps() {
    let sink = "CREATE TABLE out (page STRING, ids STRING, customers BITMAP, PRIMARY KEY (page) NOT ENFORCED)
                  WITH ('connector' = 'filesystem', 'path' = 'out.jsonl', 'format' = 'changelog-json');
                INSERT INTO out SELECT page, BITMAP_TO_STRING(customers), customers FROM audience WHERE page IS NOT NULL;";
    for workers in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let writes = changes(5, 30).join("\n");
        let query = "SELECT page, BITMAP_TO_STRING(customers) AS ids FROM audience WHERE page IS NOT NULL ORDER BY page;";
        let sql = format!("{TABLES}{sink}{writes}\nSELECT COUNT(*) FROM sizes;{query}");
        let results = lines(script(folder.path(), &sql, &["--workers", workers]));
        let expected: Vec<Value> = serde_json::from_str(&results[1]).unwrap();
        let written: Vec<Value> =
            fold(&folder.path().join("out.jsonl")).iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        let shown = |rows: &[Value]| rows.iter().map(|r| (r["page"].clone(), r["ids"].clone())).collect::<Vec<_>>();
        assert_eq!(shown(&written), shown(&expected));
        assert!(!expected.is_empty());
        for row in &written {
            let ids: Vec<String> = row["customers"].as_array().unwrap().iter().map(Value::to_string).collect();
            assert_eq!(row["ids"], ids.join(","));
        }
    }
}

/// The operators of each plan that work in chunks, by what they say themselves.
fn in_chunks(queries: &[&str]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let explains: String = queries.iter().map(|query| format!("EXPLAIN CREATE DYNAMIC TABLE x AS {query};\n")).collect();
    let results = lines(shell(folder.path(), &format!("{TABLES}{explains}")));
    let operators = |line: &String| {
        let plan: Vec<Value> = serde_json::from_str(line).unwrap();
        let works = plan.iter().filter(|row| row["reason"].as_str().unwrap().contains("in chunks"));
        works.map(|row| row["operator"].as_str().unwrap().to_string()).collect()
    };
    results.iter().filter(|line| line.starts_with('[')).map(operators).collect()
}

#[test]
fn plans_work_in_chunks_where_nothing_looks_into_a_bitmap() {
    let chunked = in_chunks(&[
        "SELECT page, GROUP_BITMAP_STATE(customer) AS customers FROM visit GROUP BY page",
        "SELECT page, customers FROM audience WHERE page > 'a' AND customers IS NOT NULL",
        "SELECT BITMAP_OR_CARDINALITY(a.customers, b.customers) + 1 AS n FROM audience a, audience b WHERE a.page = 'a' AND b.page = 'b'",
        "SELECT BITMAP_OR(a.customers, p.rest) AS either FROM audience a JOIN pairs p ON p.l = a.page",
        "SELECT GROUP_BITMAP_OR(customers) AS n FROM audience WHERE BITMAP_COUNT(customers) > 2",
        "SELECT BITMAP_COUNT(customers) AS n FROM (SELECT page, GROUP_BITMAP_STATE(customer) AS customers FROM visit GROUP BY page) AS a WHERE page IN (SELECT l FROM pairs)",
    ]);
    let expected: [&[&str]; 6] = [
        &["aggregate"],
        &["source"],
        &["bitmaps", "source", "source"],
        &["bitmaps", "source", "source"],
        &["bitmaps", "source"],
        &["bitmaps", "aggregate"],
    ];
    assert_eq!(chunked, expected);
    let whole = in_chunks(&[
        "SELECT page, BITMAP_TO_STRING(customers) AS ids, BITMAP_COUNT(customers) AS n FROM audience",
        "SELECT BITMAP_AND_CARDINALITY(customers, TO_BITMAP(7)) AS n FROM audience",
        "SELECT a.page, BITMAP_COUNT(b.customers) AS n FROM visit AS a LEFT JOIN audience AS b ON a.page = b.page",
        "SELECT customers FROM audience UNION ALL SELECT rest FROM pairs",
        "SELECT DISTINCT customers FROM audience",
        "SELECT a.page FROM audience a JOIN audience b ON a.customers = b.customers",
        "SELECT page, BITMAP_COUNT(customers) AS n FROM audience WHERE BITMAP_CONTAINS(customers, 7)",
        "SELECT WRITE_TIMESTAMP() AS at, page, customers FROM audience",
    ]);
    assert!(whole.iter().all(Vec::is_empty), "{whole:?}");
}

/// A sink and a query of its own take bitmaps whole; EXPLAIN ANALYZE counts the rows of plans in chunks.
#[test]
fn explain_analyze_counts_rows_in_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let sql = format!(
        "{TABLES}INSERT INTO visit VALUES (1, 'a', 1), (2, 'b', 1), (3, 'b', 2);
         EXPLAIN SELECT page, customers FROM audience;
         EXPLAIN ANALYZE SELECT * FROM pairs;
         EXPLAIN ANALYZE SELECT * FROM sizes;"
    );
    let results = lines(shell(folder.path(), &sql));
    let plans: Vec<Vec<Value>> =
        results.iter().filter(|line| line.starts_with('[')).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(plans[0].iter().all(|row| !row["reason"].to_string().contains("chunks")), "{:?}", plans[0]);
    let bitmaps = plans[1].iter().find(|row| row["operator"] == "bitmaps").unwrap();
    assert_eq!(bitmaps["detail"], "BITMAP_COUNT(BITMAP_AND(customers, customers)), BITMAP_ANDNOT(customers, customers)");
    // Two pages, each with the other; only page b has two customers.
    assert_eq!((&bitmaps["rows"], &plans[2][0]["rows"]), (&Value::from(2), &Value::from(1)));
}
