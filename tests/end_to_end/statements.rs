//! What statements say on stderr: failed values, which INSERT is continuous, places of errors.

use crate::program::script;

#[test]
fn values_that_could_not_be_computed_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INT, amount STRING);
               INSERT INTO t VALUES (1, '5'), (2, 'abc'), (0, 'x');
               SELECT CAST(amount AS INT) AS n, 6 / id AS q FROM t WHERE id <> 1;
               CREATE TABLE u (n INT);
               INSERT INTO u SELECT amount FROM t;
               DELETE FROM t WHERE CAST(amount AS INT) = 5;
               SELECT COUNT(*) AS n FROM t";
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.stdout, "[{\"n\":null,\"q\":3},{\"n\":null,\"q\":null}]\n[{\"n\":2}]\n");
    let texts = "warning: 2 values could not be computed and are NULL: CAST(amount AS INT), for example 'x'";
    let quotient = "warning: 1 value could not be computed and is NULL: 6 / CAST(id AS BIGINT), for example '6, 0'";
    let times = |text: &str| run.stderr.lines().filter(|line| *line == text).count();
    // In the SELECT, the INSERT and the DELETE.
    assert_eq!((times(texts), times(quotient)), (3, 1), "{}", run.stderr);
}

#[test]
fn a_continuous_query_names_the_columns_of_what_fails() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INT, amount STRING, half AS CAST(amount AS INT) / 2, PRIMARY KEY (id));
               CREATE TABLE u (id INT, more STRING, PRIMARY KEY (id));
               CREATE DYNAMIC TABLE v AS SELECT t.id, CAST(CONCAT(amount, more) AS INT) AS n FROM t JOIN u ON t.id = u.id;
               INSERT INTO t VALUES (1, 'abc');
               INSERT INTO u VALUES (1, 'd');
               SHOW ERRORS";
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.contains("\"CAST(amount AS INT)\""), "{}", run.stdout);
    assert!(run.stdout.contains("\"CAST(CONCAT(amount, more) AS INT)\""), "{}", run.stdout);
}

#[test]
fn every_insert_says_whether_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE a (id INT, PRIMARY KEY (id));
               CREATE TABLE b (id INT, PRIMARY KEY (id)) WITH ('table.merge-engine' = 'last_row');
               INSERT INTO a VALUES (1), (2);
               INSERT INTO b SELECT id FROM a;
               INSERT INTO b VALUES (3);
               EXPLAIN INSERT INTO b SELECT id FROM a;
               EXPLAIN INSERT INTO a SELECT id FROM b";
    let run = script(folder.path(), sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for line in ["one-shot insert into a: 2 rows", "continuous insert into b", "one-shot insert into b: 1 row"] {
        assert!(run.stderr.lines().any(|said| said == line), "{line}\n{}", run.stderr);
    }
    let plans: Vec<&str> = run.stdout.lines().collect();
    assert!(plans[0].contains("\"continuous: ") && plans[1].contains("\"one-shot: "), "{}", run.stdout);
}

#[test]
fn a_csv_sink_is_read_back_with_the_same_options() {
    for (options, first) in [("", "1,a"), (", 'header' = 'true'", "id,name")] {
        let folder = tempfile::tempdir().unwrap();
        let table = |name: &str| {
            format!(
                "CREATE TABLE {name} (id INT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'out.csv', \
                 'format' = 'csv'{options});"
            )
        };
        let write =
            "CREATE TABLE t (id INT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'in.json', 'format' = 'json');";
        let lines = "{\"id\":1,\"name\":\"a\"}\n{\"id\":2,\"name\":null}\n{\"id\":3,\"name\":\"\"}\n";
        std::fs::write(folder.path().join("in.json"), lines).unwrap();
        let run = script(folder.path(), &format!("{write} {} INSERT INTO s SELECT * FROM t", table("s")), &[]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let written = std::fs::read_to_string(folder.path().join("out.csv")).unwrap();
        assert_eq!(written.lines().next(), Some(first));
        let run = script(folder.path(), &format!("{} SELECT * FROM s", table("s")), &[]);
        let rows = r#"[{"id":1,"name":"a"},{"id":2,"name":null},{"id":3,"name":""}]"#;
        assert_eq!(run.stdout, format!("{rows}\n"), "{}", run.stderr);
        assert!(!run.stderr.contains("could not be decoded"), "{}", run.stderr);
    }
}

#[test]
fn an_error_of_a_source_is_at_its_table() {
    let cases = [
        ("CREATE TABLE e (a INT)\n WITH ('connector' = 'filesystem', 'path' = 'no.json', 'format' = 'json')", "no.json"),
        ("CREATE TABLE e (a INT)\n WITH ('connector' = 'kafka', 'topic' = 'gone', 'format' = 'json')", "gone"),
    ];
    for (table, name) in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("topics")).unwrap();
        let run = script(folder.path(), &format!("SELECT 1 AS x;\n\n  {table};\nSELECT * FROM e"), &["--replay", "topics"]);
        assert_eq!(run.code, Some(1));
        let error = run.stderr.lines().find(|line| line.starts_with("error:")).unwrap();
        assert!(error.starts_with("error: job.sql:3:3: ") && error.contains(name), "{error}");
    }
}

#[test]
fn an_error_stands_where_its_name_does() {
    let cases = [
        ("UPDATE t\n  SET a = a +\n    nope", "3:5"),
        ("DELETE FROM t\n  WHERE b + 1 = 2", "2:9"),
        ("SELECT *\n FROM missing", "2:7"),
        ("CREATE TABLE u (a INT,\n b AS lower(nope))", "2:13"),
        ("CREATE VIEW v AS SELECT a,\n  random() AS r FROM t;\nCREATE DYNAMIC TABLE d AS SELECT r FROM v", "2:3"),
    ];
    for (sql, place) in cases {
        let folder = tempfile::tempdir().unwrap();
        let run = script(folder.path(), &format!("CREATE TABLE t (a INT);{sql}"), &[]);
        assert!(run.stderr.contains(&format!("error: job.sql:{place}: ")), "{sql}\n{}", run.stderr);
    }
}
