//! External functions, against a small HTTP server that fails, stalls and recovers.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{received, send};
use crate::program::script;

/// What the server does with the n-th request: the n-th of these, and from then on the last.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Each row's first argument in upper case; `?` is an error, `!` none at all.
    Upper,
    Status(u16),
    /// No answer until the caller gives up.
    Stall,
}

struct Server {
    url: String,
    /// The rows of every request that was answered with results.
    rows: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    fn start(turns: &[Turn]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/f", listener.local_addr().unwrap());
        let rows: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (turns, seen) = (turns.to_vec(), Arc::clone(&rows));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let turn = turns[number.min(turns.len() - 1)];
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || answer(stream.unwrap(), turn, &seen));
            }
        });
        Server { url, rows }
    }
    fn declared(&self, more: &str) -> String {
        format!(
            "CREATE API CONNECTION service TYPE = 'http' URL = '{}' TIMEOUT = '300 ms' {more};
             CREATE EXTERNAL FUNCTION loud(a STRING, b INT) RETURNS STRING CONNECTION = service;",
            self.url
        )
    }
    /// How many rows were answered, over all requests.
    fn answered(&self) -> usize {
        self.rows.lock().unwrap().len()
    }
}

fn answer(stream: TcpStream, turn: Turn, seen: &Mutex<Vec<Value>>) {
    let (_, body) = received(&stream);
    let (status, text) = match turn {
        Turn::Stall => return std::thread::sleep(Duration::from_secs(3)),
        Turn::Status(status) => (status, "not now".to_string()),
        Turn::Upper => {
            let request: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(request["function"], "loud");
            let rows = request["rows"].as_array().unwrap();
            seen.lock().unwrap().extend(rows.iter().cloned());
            let upper = |row: &Value| match row[0].as_str() {
                Some("?") => json!({"error": "no such thing"}),
                Some(text) => json!(text.to_uppercase()),
                None => Value::Null,
            };
            (200, json!({"results": rows.iter().map(upper).collect::<Vec<_>>()}).to_string())
        }
    };
    send(stream, status, &text);
}

const TABLE: &str = "CREATE TABLE word (id INT, text STRING, n INT, PRIMARY KEY (id));";
const VIEW: &str = "CREATE DYNAMIC TABLE shout AS SELECT id, loud(lower(text), n) AS loud FROM word WHERE n < 10;
    CREATE DYNAMIC TABLE words AS SELECT loud, COUNT(*) AS times FROM shout GROUP BY loud;";

#[test]
fn a_view_joins_the_answers() {
    let server = Server::start(&[Turn::Status(503), Turn::Stall, Turn::Status(429), Turn::Upper]);
    let folder = tempfile::tempdir().unwrap();
    let sql = format!(
        "{TABLE}{}{VIEW}
         INSERT INTO word VALUES (1, 'one', 1), (2, 'ONE', 1), (3, 'two', 1), (4, NULL, 1), (5, '?', 1), (6, 'six', 60);
         SELECT * FROM shout; SELECT * FROM words;
         DELETE FROM word WHERE id = 1;
         UPDATE word SET text = 'two' WHERE id = 2;
         INSERT INTO word VALUES (7, 'seven', 7);
         SELECT * FROM shout; SELECT * FROM shout$errors; SHOW ERRORS",
        server.declared("")
    );
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    let first =
        r#"{"id":1,"loud":"ONE"},{"id":2,"loud":"ONE"},{"id":3,"loud":"TWO"},{"id":4,"loud":null},{"id":5,"loud":null}"#;
    assert_eq!(lines[0], format!("[{first}]"));
    assert_eq!(lines[1], r#"[{"loud":"ONE","times":2},{"loud":"TWO","times":1},{"loud":null,"times":2}]"#);
    let then =
        r#"{"id":2,"loud":"TWO"},{"id":3,"loud":"TWO"},{"id":4,"loud":null},{"id":5,"loud":null},{"id":7,"loud":"SEVEN"}"#;
    assert_eq!(lines[2], format!("[{then}]"));
    assert_eq!(lines[3], "[]");
    assert!(lines[4].contains("no such thing"), "{}", lines[4]);
    // one, two, NULL, ? and seven: each row of arguments once, and none that the filter leaves out.
    assert_eq!(server.answered(), 5);
}

#[test]
fn what_fails_for_good_is_listed_and_refresh_asks_again() {
    // Two tries fail; the call after the refresh succeeds.
    let server = Server::start(&[Turn::Status(500), Turn::Status(500), Turn::Upper]);
    let folder = tempfile::tempdir().unwrap();
    let sql = format!(
        "{TABLE}{}{VIEW}
         INSERT INTO word VALUES (1, 'one', 1), (2, 'two', 2);
         SELECT * FROM shout; SELECT source, CAST(value AS STRING) AS arguments, reason FROM shout$errors;
         REFRESH DYNAMIC TABLE shout;
         SELECT * FROM shout; SELECT COUNT(*) AS letters FROM shout$errors",
        server.declared("RETRIES = '1'")
    );
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[0], "[]");
    for arguments in [r#"[\"one\",1]"#, r#"[\"two\",2]"#] {
        assert!(lines[1].contains(&format!("{{\"source\":\"loud\",\"arguments\":\"{arguments}\"")), "{}", lines[1]);
    }
    assert!(lines[1].contains("answered 500: not now, after 2 tries"), "{}", lines[1]);
    assert_eq!(lines[2], r#"[{"id":1,"loud":"ONE"},{"id":2,"loud":"TWO"}]"#);
    assert_eq!(lines[3], r#"[{"letters":0}]"#);
}

#[test]
fn a_row_that_goes_takes_its_letter_along() {
    let server = Server::start(&[Turn::Status(404)]);
    let folder = tempfile::tempdir().unwrap();
    let sql = format!(
        "{TABLE}{}{VIEW}
         INSERT INTO word VALUES (1, 'one', 1), (2, 'two', 2);
         SELECT COUNT(*) AS letters FROM shout$errors;
         DELETE FROM word WHERE id = 1; SELECT CAST(value AS STRING) AS arguments FROM shout$errors",
        server.declared("")
    );
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.stdout, "[{\"letters\":2}]\n[{\"arguments\":\"[\\\"two\\\",2]\"}]\n", "{}", run.stderr);
}

#[test]
fn one_shot_statements_call_directly() {
    let server = Server::start(&[Turn::Status(503), Turn::Upper]);
    let folder = tempfile::tempdir().unwrap();
    let sql = format!(
        "{TABLE}{} INSERT INTO word VALUES (1, 'one', 1), (2, 'one', 1), (3, 'two', 2);
         SELECT id, loud(text, n) AS loud FROM word;
         CREATE TABLE copy (id INT, loud STRING); INSERT INTO copy SELECT id, loud(text, n) FROM word WHERE id > 1;
         SELECT * FROM copy",
        server.declared("")
    );
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[0], r#"[{"id":1,"loud":"ONE"},{"id":2,"loud":"ONE"},{"id":3,"loud":"TWO"}]"#);
    assert_eq!(lines[1], r#"[{"id":2,"loud":"ONE"},{"id":3,"loud":"TWO"}]"#);

    let failing = Server::start(&[Turn::Status(404)]);
    let run = script(folder.path(), &format!("{} SELECT loud('a', 1) AS a", failing.declared("")), &[]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("\"loud\" failed") && run.stderr.contains("answered 404"), "{}", run.stderr);
}

#[test]
fn calls_stand_in_a_select_list_or_where() {
    let server = Server::start(&[Turn::Upper]);
    let folder = tempfile::tempdir().unwrap();
    let declared = format!("{TABLE}{}", server.declared(""));
    let sql = format!("{declared} CREATE DYNAMIC TABLE v AS SELECT COUNT(*) AS n FROM word GROUP BY loud(text, n)");
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(run.stderr.contains("select list or WHERE only"), "{}", run.stderr);

    let sql = format!(
        "{declared} CREATE DYNAMIC TABLE v AS SELECT id, loud(loud(text, n), id) AS twice FROM word WHERE loud(text, n) <> 'TWO';
         INSERT INTO word VALUES (1, 'one', 1), (2, 'two', 2); SELECT * FROM v; DROP FUNCTION loud"
    );
    let run = script(folder.path(), &sql, &[]);
    assert_eq!(run.stdout, "[{\"id\":1,\"twice\":\"ONE\"}]\n", "{}", run.stderr);
    assert!(run.stderr.contains("is used by \"v\""), "{}", run.stderr);
}
