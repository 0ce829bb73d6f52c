//! Calls over HTTP against a small server that answers as it is told, fails and stalls.

use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// What the server does with one request.
#[derive(Clone)]
enum Reply {
    /// Status and body.
    Status(u16, &'static str),
    /// The rows' first arguments, doubled.
    Double,
    /// Nothing, until the caller gives up.
    Stall,
    /// The connection breaks.
    Hang,
}

/// A small HTTP server: the n-th request gets the n-th reply, later ones the last. Returns its URL and what it was asked.
fn serve(replies: Vec<Reply>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/call", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let reply = replies[number.min(replies.len() - 1)].clone();
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || answer(stream.unwrap(), &reply, &seen));
        }
    });
    (url, asked)
}
/// Head and body of a request.
pub(crate) fn received(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut length, mut head, mut line) = (0, String::new(), String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head += &line;
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}
/// Answers a request.
pub(crate) fn send(mut stream: TcpStream, status: u16, text: &str) {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
    let _ = stream.write_all(format!("{head}{text}").as_bytes());
}
fn answer(stream: TcpStream, reply: &Reply, seen: &Mutex<Vec<String>>) {
    let (head, body) = received(&stream);
    seen.lock().unwrap().push(format!("{head}{body}"));
    let (status, text) = match reply {
        Reply::Status(status, text) => (*status, text.to_string()),
        Reply::Double => (200, doubled(&body)),
        Reply::Stall => return std::thread::sleep(Duration::from_secs(5)),
        Reply::Hang => return,
    };
    send(stream, status, &text);
}
fn doubled(body: &str) -> String {
    let request: serde_json::Value = serde_json::from_str(body).unwrap();
    let double = |row: &serde_json::Value| (row[0].as_i64().unwrap() * 2).to_string();
    let results: Vec<String> = request["rows"].as_array().unwrap().iter().map(double).collect();
    format!("{{\"results\":[{}]}}", results.join(","))
}

fn function(url: &str, more: &[(&str, &str)]) -> HttpFunction {
    let mut options = vec![("url", url), ("timeout", "300 ms")];
    options.extend(more);
    let endpoint = Endpoint::from_options(&Options::new(options)).unwrap();
    HttpFunction::new(endpoint, "f", vec![DataType::BigInt, DataType::String], DataType::BigInt)
}
fn row(number: i64) -> Row {
    Row::pack([Datum::Int(number), Datum::str("x\"y")])
}
fn result(number: i64) -> Answer {
    Answer::Result(Row::pack([Datum::Int(number)]))
}
fn call(function: &HttpFunction, rows: &[Row]) -> Vec<Answer> {
    function.call(rows, &AtomicBool::new(false))
}

#[test]
fn a_call_sends_the_rows_and_reads_the_results() {
    let (url, asked) = serve(vec![Reply::Double]);
    let function = function(&url, &[("headers", "X-Key: secret; Accept: application/json")]);
    assert_eq!(call(&function, &[row(1), row(7)]), [result(2), result(14)]);
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with("POST /call HTTP/1.1"), "{asked:?}");
    assert!(asked[0].to_lowercase().contains("x-key: secret"), "{asked:?}");
    assert!(asked[0].ends_with(r#"{"function":"f","rows":[[1,"x\"y"],[7,"x\"y"]]}"#), "{asked:?}");
    assert_eq!(call(&function, &[]), []);
}
#[test]
fn what_fails_stalls_and_breaks_is_tried_again() {
    let again = [Reply::Status(503, "busy"), Reply::Stall, Reply::Hang, Reply::Status(429, "")];
    let (url, asked) = serve([&again[..], &[Reply::Double]].concat());
    assert_eq!(call(&function(&url, &[]), &[row(4)]), [result(8)]);
    assert_eq!(asked.lock().unwrap().len(), 5);
}
#[test]
fn after_the_last_try_the_rows_fail() {
    let (url, asked) = serve(vec![Reply::Status(500, "no luck\nat all")]);
    let failed = Answer::Failed(format!("{url} answered 500: no luck, after 3 tries"));
    assert_eq!(call(&function(&url, &[("retries", "2")]), &[row(1), row(2)]), [failed.clone(), failed]);
    assert_eq!(asked.lock().unwrap().len(), 3);
}
#[test]
fn other_answers_fail_at_once() {
    for (reply, reason) in [
        (Reply::Status(404, "nothing here"), "answered 404: nothing here"),
        (Reply::Status(302, ""), "answered 302"),
        (Reply::Status(200, "{\"results\":[1]}"), "answered 1 results for 2 rows"),
        (Reply::Status(200, "done"), "answered no {\"results\":[..]}"),
    ] {
        let (url, asked) = serve(vec![reply]);
        let answers = call(&function(&url, &[]), &[row(1), row(2)]);
        let [Answer::Failed(first), Answer::Failed(_)] = &answers[..] else { panic!("{answers:?}") };
        assert!(first.contains(reason), "{first}");
        assert_eq!(asked.lock().unwrap().len(), 1, "{reason}");
    }
}
#[test]
fn a_place_may_say_why_it_has_no_result() {
    let (url, _) = serve(vec![Reply::Status(200, r#"{"results":[{"error":"unknown"},"5",null,"five",9]}"#)]);
    let rows: Vec<Row> = (1..=5).map(row).collect();
    let null = |reason: &str| Answer::Null(reason.to_string());
    let nothing = Answer::Result(HttpFunction::null());
    assert_eq!(
        call(&function(&url, &[]), &rows),
        [null("unknown"), result(5), nothing, null("\"five\" is no BIGINT"), result(9)]
    );
}
#[test]
fn batches_go_out_side_by_side_and_come_back_in_order() {
    let (url, asked) = serve(vec![Reply::Status(503, ""), Reply::Double]);
    let rows: Vec<Row> = (0..23).map(row).collect();
    let answers = call(&function(&url, &[("batch", "5"), ("concurrency", "3")]), &rows);
    assert_eq!(answers, (0..23).map(|number| result(number * 2)).collect::<Vec<_>>());
    assert_eq!(asked.lock().unwrap().len(), 6);
}
#[test]
fn a_stopped_run_waits_for_nothing() {
    let (url, asked) = serve(vec![Reply::Status(503, "")]);
    let answers = function(&url, &[]).call(&[row(1)], &AtomicBool::new(true));
    assert!(matches!(&answers[..], [Answer::Failed(reason)] if reason.contains("stopped")), "{answers:?}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}
#[test]
fn options_are_checked() {
    for (name, value) in
        [("url", "https://x"), ("retries", "many"), ("batch", "0"), ("timeout", "soon"), ("headers", "none")]
    {
        let mut options = vec![("url".to_string(), "http://x".to_string())];
        options.push((name.to_string(), value.to_string()));
        let error = Endpoint::from_options(&Options::new(options)).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
