//! A schema registry, over plain HTTP.
//!
//! | call | when |
//! |---|---|
//! | `GET /schemas/types` | at the start: whatever it answers, it is there |
//! | `GET /schemas/ids/N` | where a source meets the id N for the first time |
//! | `POST /subjects/S/versions` | where a sink opens: its schema has an id then |
//!
//! *While it is away*: at the start that is an error, after [`START`]. Later a call fails with its reason, and for a while that doubles
//! up to 10 s nothing is asked again. A call ends at once when the run is stopped: it waits on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::http::{ANSWER_BYTES, FIRST_PAUSE, LONGEST_PAUSE, PAUSE_STEP, agent, start, wait};
use crate::options::Options;

/// How long a registry is asked at the start.
const START: Duration = Duration::from_secs(5);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(3);
const JSON: &str = "application/vnd.schemaregistry.v1+json";

/// What is known of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The text of its schema.
    Schema(String),
    /// There is none that could be used, for this reason.
    Nothing(String),
}

/// A registry, or several that hold the same.
pub(super) struct Registry {
    urls: Vec<String>,
    authorization: Option<String>,
    agent: ureq::Agent,
    stop: Arc<AtomicBool>,
    /// Since it is away: when to ask again, the pause behind that, and why.
    away: Option<(Instant, Duration, String)>,
}

/// The status and text of an answer.
type Answer = (u16, String);

impl Registry {
    /// The registry that a format's options name: `<format>.url`, and how to log in there.
    ///
    /// # Errors
    /// A URL that is missing or not http; another way to log in.
    pub(super) fn from_options(options: &Options, format: &str) -> Result<Registry> {
        let name = format!("{format}.url");
        let url = options.require(&name)?;
        let mut urls: Vec<String> = Vec::new();
        for url in url.split(',').map(str::trim) {
            let host = url.strip_prefix("http://").filter(|host| !host.is_empty());
            match host {
                Some(host) if host.contains('@') => {
                    let expected = format!("a URL without a user, who stands in '{format}.basic-auth.user-info'");
                    return Err(options.invalid(&name, "***", &expected));
                }
                Some(_) => urls.push(url.trim_end_matches('/').to_owned()),
                None => {
                    let expected = "a URL as in http://host:port; https is not supported yet";
                    return Err(options.invalid(&name, url, expected));
                }
            }
        }
        let authorization = authorization(options, format)?;
        Ok(Registry { urls, authorization, agent: agent(CALL), stop: Arc::default(), away: None })
    }
    /// Makes sure that it is there; calls end when `stop` is set.
    ///
    /// # Errors
    /// It does not answer within seconds, or does not let us in.
    pub(super) fn open(&mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        self.stop = Arc::clone(stop);
        let answer = self.insist(&|url| format!("{url}/schemas/types"), None)?;
        self.let_in(answer).map(drop)
    }
    /// The id of a schema under a subject, where it is registered if it is not yet.
    ///
    /// # Errors
    /// No registry, or one that does not take the schema.
    pub(super) fn register(&mut self, stop: &Arc<AtomicBool>, subject: &str, schema: &str) -> Result<u32> {
        #[derive(Deserialize)]
        struct Registered {
            id: u32,
        }
        self.stop = Arc::clone(stop);
        let body = serde_json::json!({ "schema": schema }).to_string();
        let subject = escaped(subject);
        let answer = self.insist(&|url| format!("{url}/subjects/{subject}/versions"), Some(&body))?;
        let (status, text) = self.let_in(answer)?;
        let registered: Option<Registered> = serde_json::from_str(&text).ok().filter(|_| status == 200);
        registered.map(|registered| registered.id).ok_or_else(|| Error::RegistryRefused {
            registry: self.name(),
            what: format!("the schema of subject \"{subject}\""),
            reason: format!("it answered {status}{}", start(&text)),
        })
    }
    /// What is known of an id; as an error why the registry does not say it now.
    pub(super) fn schema(&mut self, id: u32) -> std::result::Result<Known, String> {
        if let Some((again, _, reason)) = &self.away
            && Instant::now() < *again
        {
            return Err(reason.clone());
        }
        let answered = match self.ask(&|url| format!("{url}/schemas/ids/{id}"), None) {
            Ok((status @ (200 | 404), text)) => Ok(self.known(id, status, &text)),
            Ok((status, text)) => Err(format!("it answered {status}{}", start(&text))),
            Err(reason) => Err(reason),
        };
        match answered {
            Ok(known) => {
                self.away = None;
                Ok(known)
            }
            Err(reason) => {
                let pause = self.away.as_ref().map_or(FIRST_PAUSE, |(_, pause, _)| (*pause * 2).min(LONGEST_PAUSE));
                let reason = format!("schema registry at \"{}\" does not say what schema {id} is: {reason}", self.name());
                self.away = Some((Instant::now() + pause, pause, reason.clone()));
                Err(reason)
            }
        }
    }
    fn known(&self, id: u32, status: u16, text: &str) -> Known {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Found {
            schema: String,
            schema_type: Option<String>,
            #[serde(default)]
            references: Vec<serde::de::IgnoredAny>,
        }
        if status == 404 {
            return Known::Nothing(format!("schema {id} is not in the registry at \"{}\"", self.name()));
        }
        let found: Found = match serde_json::from_str(text) {
            Ok(found) => found,
            Err(error) => return Known::Nothing(format!("the registry did not answer with schema {id}: {error}")),
        };
        match found.schema_type.as_deref() {
            None | Some("AVRO") if found.references.is_empty() => Known::Schema(found.schema),
            None | Some("AVRO") => {
                Known::Nothing(format!("schema {id} refers to schemas of other subjects, which is not supported yet"))
            }
            Some(other) => Known::Nothing(format!("schema {id} is of type {other}, not AVRO")),
        }
    }
    /// Asks until there is an answer that is not about being away, for [`START`].
    fn insist(&self, url: &dyn Fn(&str) -> String, body: Option<&str>) -> Result<Answer> {
        let begin = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let reason = match self.ask(url, body) {
                Ok((status @ (429 | 500..=599), text)) => format!("it answered {status}{}", start(&text)),
                Ok(answer) => return Ok(answer),
                Err(reason) => reason,
            };
            if begin.elapsed() + pause >= START || !wait(pause, &self.stop) {
                return Err(Error::RegistryAway { registry: self.name(), reason });
            }
            pause *= 2;
        }
    }
    fn let_in(&self, answer: Answer) -> Result<Answer> {
        match answer {
            (status @ (401 | 403), text) => Err(Error::RegistryRefused {
                registry: self.name(),
                what: "the connection".to_owned(),
                reason: format!("it answered {status}{}", start(&text)),
            }),
            answer => Ok(answer),
        }
    }
    /// The first answer that one of the registries gives.
    fn ask(&self, url: &dyn Fn(&str) -> String, body: Option<&str>) -> std::result::Result<Answer, String> {
        let mut reason = String::new();
        for base in &self.urls {
            match self.call(url(base), body.map(str::to_owned)) {
                Ok(answer) => return Ok(answer),
                Err(failure) => reason = failure,
            }
        }
        Err(reason)
    }
    fn call(&self, url: String, body: Option<String>) -> std::result::Result<Answer, String> {
        let (sender, receiver) = channel();
        let (agent, authorization) = (self.agent.clone(), self.authorization.clone());
        let call = move || drop(sender.send(attempt(&agent, &url, authorization.as_deref(), body.as_deref())));
        let thread = std::thread::Builder::new().name("registry".into()).spawn(call);
        thread.map_err(|error| error.to_string())?;
        loop {
            match receiver.recv_timeout(PAUSE_STEP) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if !self.stop.load(Ordering::Relaxed) => {}
                Err(_) => return Err("the run was stopped".into()),
            }
        }
    }
    fn name(&self) -> String {
        self.urls.join(",")
    }
}

fn attempt(
    agent: &ureq::Agent,
    url: &str,
    authorization: Option<&str>,
    body: Option<&str>,
) -> std::result::Result<Answer, String> {
    let sent = match body {
        None => {
            let request = agent.get(url).header("Accept", JSON);
            authorization.into_iter().fold(request, |request, value| request.header("Authorization", value)).call()
        }
        Some(body) => {
            let request = agent.post(url).header("Accept", JSON).content_type(JSON);
            authorization.into_iter().fold(request, |request, value| request.header("Authorization", value)).send(body)
        }
    };
    let mut response = sent.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(ANSWER_BYTES).read_to_string();
    Ok((status, text.map_err(|error| format!("it broke off its answer: {error}"))?))
}
/// The header that says who we are.
fn authorization(options: &Options, format: &str) -> Result<Option<String>> {
    let (source, user) = (format!("{format}.basic-auth.credentials-source"), format!("{format}.basic-auth.user-info"));
    match options.get(&source) {
        None | Some("USER_INFO") => {}
        Some(value) => return Err(options.invalid(&source, value, "USER_INFO")),
    }
    match options.get(&user) {
        Some(info) if info.contains(':') => Ok(Some(format!("Basic {}", STANDARD.encode(info)))),
        Some(info) => Err(options.invalid(&user, info, "user:password")),
        None if options.get(&source).is_some() => options.require(&user).map(|_| None),
        None => Ok(None),
    }
}
/// A subject as a part of a path.
fn escaped(subject: &str) -> String {
    let mut path = String::new();
    for byte in subject.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}
