//! Statements that load and repair: COPY INTO, REPAIR TABLE, pipes.

use crate::program::{Running, script, wait_for};

const MEMBER: &str = "CREATE TABLE member (id INT, points DECIMAL(5, 2) NOT NULL, since DATE, PRIMARY KEY (id));
    CREATE DYNAMIC TABLE total AS SELECT SUM(points) AS points, COUNT(*) AS members FROM member;";
const COPY: &str = "PUT 'in.csv' TO USER VOLUME FILE 'm.csv';
    COPY INTO member FROM USER VOLUME USING csv OPTIONS ('header' = 'true') FILES ('m.csv');";
/// One good line; too few and too many fields, two values that do not fit, one that is missing.
const LINES: &str =
    "id,points,since\n1,2.5,2026-01-01\n2,3\n3,x,2026-01-01\n4,1,2026-13-01\n5,,2026-01-01\n6,1,2026-01-01,9\n";

#[test]
fn what_copy_rejects_names_file_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.csv"), LINES).unwrap();
    let sql = format!(
        "{MEMBER}{COPY} SELECT * FROM total;
         SELECT position, field FROM member$errors WHERE source LIKE '%m.csv' ORDER BY position; SHOW ERRORS"
    );
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let letters = [(3, "\"since\""), (4, "\"points\""), (5, "\"since\""), (6, "\"points\""), (7, "null")]
        .map(|(position, field)| format!("{{\"position\":{position},\"field\":{field}}}"));
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[0], r#"[{"points":2.50,"members":1}]"#);
    assert_eq!(lines[1], format!("[{}]", letters.join(",")));
    assert!(lines[2].contains(r#""what":"dead letters, see member$errors","count":5"#), "{}", lines[2]);
    assert!(run.stderr.contains("5 rows of member were rejected"), "{}", run.stderr);
    assert!(run.stderr.contains("m.csv:3: column \"since\""), "{}", run.stderr);
    let run = script(folder.path(), &format!("{MEMBER}COPY INTO member FROM USER VOLUME USING csv FILES ('no.csv')"), &[]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("no.csv") && run.stderr.contains("PUT"), "{}", run.stderr);
}

#[test]
fn repair_folds_rows_in_and_takes_their_letters_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.csv"), LINES).unwrap();
    let field = |place: u32| format!("split_part(CAST(value AS STRING), ',', {place})");
    let repair = format!(
        "REPAIR TABLE member FROM SELECT CAST({} AS INT), COALESCE(CAST(NULLIF({}, '') AS DECIMAL(5, 2)), 0), NULL,
         source, partition, position FROM member$errors",
        field(1),
        field(2)
    );
    let sql = format!(
        "{MEMBER}{COPY} {repair} WHERE position IN (3, 6);
         SELECT * FROM total; SELECT id, points FROM member; SELECT position FROM member$errors ORDER BY position;
         {repair} WHERE position = 3;
         SELECT COUNT(*) AS letters FROM member$errors; SHOW ERRORS"
    );
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    // 2.5 + 3 + 0.
    assert_eq!(lines[0], r#"[{"points":5.50,"members":3}]"#);
    assert_eq!(lines[1], r#"[{"id":1,"points":2.50},{"id":2,"points":3.00},{"id":5,"points":0.00}]"#);
    assert_eq!(lines[2], r#"[{"position":4},{"position":5},{"position":7}]"#);
    assert_eq!(lines[3], r#"[{"letters":3}]"#);
    assert!(lines[4].contains(r#""count":3"#), "{}", lines[4]);
    assert!(run.stderr.contains("2 rows of member repaired, 2 dead letters removed"), "{}", run.stderr);
    assert!(run.stderr.contains("0 rows of member repaired, 0 dead letters removed"), "{}", run.stderr);

    // A row that names no letter, and one with NULL where there may be none: nothing is written.
    for (select, message) in [
        ("SELECT 9, 1, NULL, 'elsewhere', 0, 1", "no dead letter at source 'elsewhere', partition 0, position 1"),
        ("SELECT id, NULL, NULL, source, partition, position FROM (SELECT 8 AS id, * FROM member$errors)", "NOT NULL"),
        ("SELECT 9, source, partition, position FROM member$errors", "4 columns"),
    ] {
        let run = script(folder.path(), &format!("{MEMBER}{COPY} REPAIR TABLE member FROM {select}"), &[]);
        assert_eq!(run.code, Some(1), "{select}");
        assert!(run.stderr.contains(message), "{}", run.stderr);
    }
}

#[test]
fn records_of_a_topic_are_repaired_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("topics/event")).unwrap();
    let records = r#"{"offset":0,"timestamp":1,"key":"a","value":{"id":"a","n":1}}
{"offset":1,"timestamp":2,"key":"b","value":{"id":"b","n":"two"}}
"#;
    std::fs::write(folder.path().join("topics/event/0.jsonl"), records).unwrap();
    let sql = "CREATE TABLE event (id STRING, n INT, PRIMARY KEY (id))
                 WITH ('connector' = 'kafka', 'topic' = 'event', 'format' = 'json');
               REPAIR TABLE event FROM SELECT 'b', 2, source, partition, position FROM event$errors WHERE field = 'n';
               SELECT * FROM event; SELECT * FROM event$errors";
    let run = script(folder.path(), sql, &["--replay", "topics"]);
    assert_eq!(run.stdout, "[{\"id\":\"a\",\"n\":1},{\"id\":\"b\",\"n\":2}]\n[]\n", "{}", run.stderr);
    assert!(!run.stderr.contains("could not be decoded"), "{}", run.stderr);
}

const PIPE: &str = "CREATE TABLE visit (id INT, page STRING, kind STRING DEFAULT 'web', PRIMARY KEY (id));
    CREATE TABLE pages (page STRING, visits BIGINT, PRIMARY KEY (page))
      WITH ('connector' = 'filesystem', 'path' = 'pages.jsonl', 'format' = 'changelog-json');
    CREATE PIPE visits AS COPY INTO visit (id, page) FROM 'in' USING csv OPTIONS ('header' = 'true');
    INSERT INTO pages SELECT page, COUNT(*) FROM visit GROUP BY page;";

#[test]
fn what_a_merge_does_not_write_is_not_computed() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE raw (id INT, n STRING); CREATE TABLE best (id INT, n INT, PRIMARY KEY (id));
        INSERT INTO raw VALUES (1, 'x'), (2, '2'), (3, 'y'); INSERT INTO best VALUES (1, 1);
        MERGE INTO best AS t USING raw AS s ON t.id = s.id WHEN MATCHED THEN DELETE
        WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id, CAST(s.n AS INT)); SELECT * FROM best; SHOW ERRORS";
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[0], r#"[{"id":2,"n":2},{"id":3,"n":null}]"#);
    // The value of row 1 does not matter: only that of row 3 could not be computed.
    assert!(lines[1].contains("\"count\":1") && lines[1].contains("\"best\""), "{}", lines[1]);
    assert!(run.stderr.contains("1 value could not be computed"), "{}", run.stderr);
    assert!(run.stderr.contains("2 inserted, 0 updated, 1 deleted"), "{}", run.stderr);
}

#[test]
fn a_merge_is_a_job_until_its_source_goes() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE seen (id INT, n INT); CREATE TABLE best (id INT, n INT, PRIMARY KEY (id));
        EXECUTE STATEMENT SET BEGIN MERGE INTO best AS t USING seen AS s ON t.id = s.id
        WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id, s.n); END;
        INSERT INTO seen VALUES (1, 10); SHOW JOBS; DROP TABLE seen CASCADE; SELECT * FROM best; SHOW JOBS";
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].contains(r#""best""#) && lines[0].contains("merge") && lines[0].contains("running"), "{}", lines[0]);
    assert_eq!(lines[1..], [r#"[{"id":1,"n":10}]"#, "[]"]);
    assert!(run.stderr.contains("the merge into best ends"), "{}", run.stderr);
}

#[test]
fn a_pipe_from_a_folder_ends_with_a_replay() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("in")).unwrap();
    std::fs::create_dir_all(folder.path().join("topics")).unwrap();
    std::fs::write(folder.path().join("in/b.csv"), "id,page\n2,home\nx,home\n").unwrap();
    std::fs::write(folder.path().join("in/a.csv"), "id,page\n1,home\n2,shop\n").unwrap();
    let sql = format!(
        "{PIPE} SELECT * FROM visit; SELECT position, field FROM visit$errors; SHOW JOBS;
         DROP PIPE visits; SHOW JOBS; SELECT COUNT(*) AS n FROM visit"
    );
    let run = script(folder.path(), &sql, &["--replay", "topics"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    // Files in the order of their names: the second row of key 2 wins.
    assert_eq!(lines[0], r#"[{"id":1,"page":"home","kind":"web"},{"id":2,"page":"home","kind":"web"}]"#);
    assert_eq!(lines[1], r#"[{"position":3,"field":"id"}]"#);
    assert!(lines[2].contains("pipe visits") && !lines[3].contains("pipe visits"), "{}", run.stdout);
    assert_eq!(lines[4], r#"[{"n":2}]"#);
    let run = script(folder.path(), &format!("{PIPE} DROP TABLE visit"), &[]);
    assert!(run.stderr.contains("\"visits\"") || run.stderr.contains("\"pages\""), "{}", run.stderr);
}

#[test]
fn a_watched_folder_is_read_until_the_run_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("in");
    std::fs::create_dir_all(&inside).unwrap();
    std::fs::write(inside.join("a.csv"), "id,page\n1,home\n").unwrap();
    let running = Running::start(folder.path(), PIPE);
    let out = folder.path().join("pages.jsonl");
    wait_for(&out, r#"{"page":"home","visits":1}"#);
    // Renamed in, as a program does that hands files over.
    std::fs::write(inside.join(".b.csv"), "id,page\n2,home\n").unwrap();
    std::fs::rename(inside.join(".b.csv"), inside.join("b.csv")).unwrap();
    wait_for(&out, r#"{"page":"home","visits":2}"#);
    // A file that changes is reported; another that comes after it is loaded.
    std::fs::write(inside.join("a.csv"), "id,page\n1,home\n3,lost\n").unwrap();
    std::fs::write(inside.join("c.csv"), "id,page\n4,shop\n").unwrap();
    wait_for(&out, r#"{"page":"shop","visits":1}"#);
    let (code, said) = running.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("a.csv\" changed after it was loaded into visit"), "{said}");
    assert!(!std::fs::read_to_string(&out).unwrap().contains("lost"));
}
