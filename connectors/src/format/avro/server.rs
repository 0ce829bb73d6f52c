//! A small schema registry for tests, in a thread, that fails, stalls and recovers as it is told.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::http::tests::{received, send};

/// What it does with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Answers,
    /// This status, whatever is asked.
    Status(u16),
    /// Nothing, until its mood changes.
    Stalls,
    /// The connection breaks.
    HangsUp,
}

#[derive(Default)]
pub(super) struct State {
    /// The answers for the ids 1, 2, 3 ..
    pub(super) schemas: Vec<String>,
    /// Subjects and schemas that were registered.
    pub(super) registered: Vec<(String, String)>,
    /// First lines of requests.
    pub(super) asked: Vec<String>,
    /// Headers that say who asks.
    pub(super) users: Vec<String>,
    pub(super) mood: Mood,
}

/// A registry.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server { url, state: Arc::default() };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let server = serving.clone();
                std::thread::spawn(move || server.serve(stream.unwrap()));
            }
        });
        server
    }
    /// A registry that has a schema under the id 1.
    pub(super) fn with(schema: &str) -> Server {
        let server = Server::start();
        server.add(schema);
        server
    }
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
    /// Adds a schema; its id.
    pub(super) fn add(&self, schema: &str) -> u32 {
        let mut state = self.state();
        state.schemas.push(serde_json::json!({ "schema": schema }).to_string());
        state.schemas.len() as u32
    }
    pub(super) fn set(&self, mood: Mood) {
        self.state().mood = mood;
    }
    fn serve(&self, stream: TcpStream) {
        let (head, body) = received(&stream);
        let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        {
            let mut state = self.state();
            state.asked.push(line.clone());
            state
                .users
                .extend(head.lines().find(|line| line.to_lowercase().starts_with("authorization")).map(str::to_owned));
        }
        while self.state().mood == Mood::Stalls {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mood = self.state().mood;
        match mood {
            Mood::HangsUp => {}
            Mood::Status(status) => send(stream, status, "{\"error_code\":1,\"message\":\"as it was told\"}"),
            _ => {
                let (status, text) = self.answer(&line, &body);
                send(stream, status, &text);
            }
        }
    }
    fn answer(&self, line: &str, body: &str) -> (u16, String) {
        if let Some(id) = line.strip_prefix("GET /schemas/ids/") {
            let index = id.parse::<usize>().unwrap().wrapping_sub(1);
            let missing = (404, "{\"error_code\":40403,\"message\":\"Schema not found\"}".to_owned());
            return self.state().schemas.get(index).map_or(missing, |schema| (200, schema.clone()));
        }
        let subject = line.strip_prefix("POST /subjects/").and_then(|rest| rest.strip_suffix("/versions"));
        let Some(subject) = subject else { return (404, "{}".to_owned()) };
        let request: serde_json::Value = serde_json::from_str(body).unwrap();
        let schema = request["schema"].as_str().unwrap();
        let id = self.add(schema);
        self.state().registered.push((subject.to_owned(), schema.to_owned()));
        (200, format!("{{\"id\":{id}}}"))
    }
}
