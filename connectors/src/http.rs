//! External functions over HTTP: rows of arguments go out in batches, one result per row comes back.
//!
//! ```text
//! POST {"function":"f","rows":[[a1,a2],..]}   ->   200 {"results":[r1,..]}
//! ```
//!
//! A place that holds `{"error":".."}`, or what does not fit the function's type, is NULL and says why. A time-out, a connection
//! that breaks, 429 and 5xx are tried again with a growing pause; any other answer fails the whole call. Batches go out side by
//! side, as many as the connection allows. Nothing is asked twice: the caller passes each row of arguments once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deltaworks_dataflow::{DataType, Datum, Row};
use serde_json::value::RawValue;

use crate::error::Result;
use crate::format::json::{Conversion, datum};
use crate::format::text::{write_json_string, write_json_value};
use crate::options::Options;

/// The first pause before a call is tried again; it doubles each time.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a pause goes on without a look whether the run is stopped.
pub(crate) const PAUSE_STEP: Duration = Duration::from_millis(50);
/// The largest answer that is read, in bytes.
pub(crate) const ANSWER_BYTES: u64 = 64 << 20;

/// Where and how functions are called.
#[derive(Clone, Debug)]
pub struct Endpoint {
    url: String,
    timeout: Duration,
    retries: u32,
    concurrency: usize,
    batch: usize,
    headers: Vec<(String, String)>,
}

impl Endpoint {
    /// The endpoint that options name: `url`, `timeout` (5 s), `retries` (5), `concurrency` (8), `batch` (100) and `headers`,
    /// `Name: value` separated by line breaks or `;`.
    ///
    /// # Errors
    /// A URL that is missing or not http; values that are no numbers or durations.
    pub fn from_options(options: &Options) -> Result<Endpoint> {
        let url = options.get("url").unwrap_or_default();
        if !url.starts_with("http://") {
            return Err(options.invalid("url", url, "a URL as in http://host:port/path; https is not supported yet"));
        }
        let number = |name: &str, default: u32, least: u32| match options.get(name) {
            None => Ok(default),
            Some(value) => match value.parse() {
                Ok(number) if number >= least => Ok(number),
                _ => Err(options.invalid(name, value, &format!("a whole number from {least} on"))),
            },
        };
        let mut headers = Vec::new();
        for header in options.get("headers").unwrap_or_default().split(['\n', ';']).filter(|line| !line.trim().is_empty()) {
            let Some((name, value)) = header.split_once(':') else {
                return Err(options.invalid("headers", "***", "Name: value, separated by ;"));
            };
            headers.push((name.trim().to_string(), value.trim().to_string()));
        }
        Ok(Endpoint {
            url: url.to_string(),
            timeout: options.duration("timeout")?.unwrap_or(Duration::from_secs(5)),
            retries: number("retries", 5, 0)?,
            concurrency: number("concurrency", 8, 1)? as usize,
            batch: number("batch", 100, 1)? as usize,
            headers,
        })
    }
}

/// What became of one row of arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The result, an encoded field.
    Result(Row),
    /// NULL, for this reason.
    Null(String),
    /// The call failed for good.
    Failed(String),
}

/// A function behind an endpoint.
#[derive(Clone, Debug)]
pub struct HttpFunction {
    endpoint: Endpoint,
    name: String,
    arguments: Vec<DataType>,
    returns: DataType,
    agent: ureq::Agent,
}

/// How one try of a call ended.
enum Try {
    Answers(Vec<Answer>),
    /// It may go better later.
    Again(String),
    Failed(String),
}

/// `{"results":[..]}`.
#[derive(serde::Deserialize)]
struct Results<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}
/// `{"error":".."}`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    error: String,
}

impl HttpFunction {
    /// The function of that name, its argument types and the type of its result.
    pub fn new(endpoint: Endpoint, name: &str, arguments: Vec<DataType>, returns: DataType) -> HttpFunction {
        let agent = agent(endpoint.timeout);
        HttpFunction { endpoint, name: name.to_string(), arguments, returns, agent }
    }
    /// Calls the function for rows of arguments; the answers come in the order of the rows. Ends early, with failures, once
    /// `stop` is set.
    pub fn call(&self, rows: &[Row], stop: &AtomicBool) -> Vec<Answer> {
        let batches: Vec<&[Row]> = rows.chunks(self.endpoint.batch).collect();
        let mut answers: Vec<Vec<Answer>> = vec![Vec::new(); batches.len()];
        let work: Mutex<VecDeque<(&[Row], &mut Vec<Answer>)>> = Mutex::new(batches.into_iter().zip(&mut answers).collect());
        let next = || work.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let threads = self.endpoint.concurrency.min(rows.len().div_ceil(self.endpoint.batch));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| self.work(&next, stop));
            }
            self.work(&next, stop);
        });
        drop(work);
        answers.into_iter().flatten().collect()
    }
    fn work<'w>(&self, next: &(impl Fn() -> Option<(&'w [Row], &'w mut Vec<Answer>)> + Sync), stop: &AtomicBool) {
        while let Some((rows, answers)) = next() {
            *answers = self.call_batch(rows, stop);
        }
    }
    fn call_batch(&self, rows: &[Row], stop: &AtomicBool) -> Vec<Answer> {
        let body = self.body(rows);
        let mut pause = FIRST_PAUSE;
        let mut tries = 0;
        let reason = loop {
            let reason = match self.attempt(&body, rows.len()) {
                Try::Answers(answers) => return answers,
                Try::Failed(reason) => break reason,
                Try::Again(reason) => reason,
            };
            tries += 1;
            if tries > self.endpoint.retries {
                break format!("{reason}, after {tries} {}", if tries == 1 { "try" } else { "tries" });
            }
            if !wait(pause, stop) {
                break format!("{reason}, and the run was stopped");
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        vec![Answer::Failed(reason); rows.len()]
    }
    fn body(&self, rows: &[Row]) -> Vec<u8> {
        let mut body = b"{\"function\":".to_vec();
        write_json_string(&self.name, &mut body);
        body.extend_from_slice(b",\"rows\":[");
        for (index, row) in rows.iter().enumerate() {
            body.extend_from_slice(if index == 0 { b"" } else { b"," });
            self.write_arguments(row, &mut body);
        }
        body.extend_from_slice(b"]}");
        body
    }
    /// Appends a row of arguments as a JSON array.
    pub fn write_arguments(&self, row: &[u8], out: &mut Vec<u8>) {
        let mut rest = row;
        out.push(b'[');
        for (index, data_type) in self.arguments.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"" } else { b"," });
            write_json_value(data_type, &mut rest, out);
        }
        out.push(b']');
    }
    fn attempt(&self, body: &[u8], rows: usize) -> Try {
        let mut request = self.agent.post(&self.endpoint.url).content_type("application/json");
        for (name, value) in &self.endpoint.headers {
            request = request.header(name, value);
        }
        let url = &self.endpoint.url;
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(ureq::Error::Http(error)) => return Try::Failed(format!("could not call {url}: {error}")),
            Err(error) => return Try::Again(format!("could not call {url}: {error}")),
        };
        let status = response.status().as_u16();
        let text = match response.body_mut().with_config().limit(ANSWER_BYTES).read_to_string() {
            Ok(text) => text,
            Err(error) if status < 400 => return Try::Again(format!("{url} broke off its answer: {error}")),
            Err(_) => String::new(),
        };
        match status {
            200 => self.answers(&text, rows).map_or_else(Try::Failed, Try::Answers),
            429 | 500..=599 => Try::Again(format!("{url} answered {status}{}", start(&text))),
            _ => Try::Failed(format!("{url} answered {status}{}", start(&text))),
        }
    }
    fn answers(&self, text: &str, rows: usize) -> std::result::Result<Vec<Answer>, String> {
        let url = &self.endpoint.url;
        let parsed: std::result::Result<Results<'_>, _> = serde_json::from_str(text);
        let results = parsed.map_err(|error| format!("{url} answered no {{\"results\":[..]}}: {error}"))?.results;
        if results.len() != rows {
            return Err(format!("{url} answered {} results for {rows} rows", results.len()));
        }
        Ok(results.into_iter().map(|result| self.answer(result.get())).collect())
    }
    fn answer(&self, result: &str) -> Answer {
        if let Ok(refusal) = serde_json::from_str::<Refusal>(result) {
            return Answer::Null(refusal.error);
        }
        match datum(result, &self.returns, Conversion::default()) {
            Ok(datum) => Answer::Result(Row::pack([datum])),
            Err(_) => Answer::Null(format!("{result} is no {}", self.returns)),
        }
    }
    /// What stands for a result that there is not.
    pub fn null() -> Row {
        Row::pack([Datum::Null])
    }
}

/// A client whose calls take at most so long. A status is an answer, whatever it is, and nothing is asked elsewhere.
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false);
    config.max_redirects(0).build().into()
}
/// Waits, in steps; false where the run is stopped meanwhile.
pub(crate) fn wait(pause: Duration, stop: &AtomicBool) -> bool {
    let mut left = pause;
    while !left.is_zero() && !stop.load(Ordering::Relaxed) {
        let step = left.min(PAUSE_STEP);
        std::thread::sleep(step);
        left -= step;
    }
    !stop.load(Ordering::Relaxed)
}
/// The beginning of an answer, for a message.
pub(crate) fn start(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let start: String = line.chars().take(200).collect();
    if start.is_empty() { start } else { format!(": {start}") }
}

#[cfg(test)]
pub(crate) mod tests;
