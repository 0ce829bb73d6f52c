//! Calls of external functions in continuous queries: what is asked for, who answers, and what becomes of the answers.
//!
//! ```text
//! view's arguments -> Desk::take -> the function's thread -> answers -> one tick: results table, <view>$errors
//! (a worker)          (asked once)   (HTTP, outside)          (coordinator)
//! ```
//!
//! A row of arguments is asked for once, however many views want it; its answer stays. A call that failed for good leaves its row
//! out of the view and a letter in `<view>$errors`, until a REFRESH asks again. A function's thread takes what has gathered as
//! one round of batches: a call that is tried again holds up the rounds behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltaworks_connectors::http::{Answer, HttpFunction};
use deltaworks_dataflow::host::{InputBatch, InputId};
use deltaworks_dataflow::{Command, CommandKind, Datum, Diff, Position, Row};

use crate::catalog::Kind;
use crate::error::EngineError;
use crate::query::short;
use crate::script::Engine;

type Result<T> = std::result::Result<T, EngineError>;

/// How long a wait for answers goes on without a look whether the run is stopped.
const LOOK: Duration = Duration::from_millis(50);

/// What is known of one row of arguments.
#[derive(Debug, Default)]
struct Asked {
    /// How often each view wants it.
    wanted: BTreeMap<String, Diff>,
    state: State,
}
impl Asked {
    /// The views that want it.
    fn views(&self) -> impl Iterator<Item = &String> {
        self.wanted.iter().filter(|(_, times)| **times > 0).map(|(view, _)| view)
    }
}
#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    New,
    Waiting,
    Answered,
    Failed(String),
}

#[derive(Default)]
struct Ledger {
    asked: BTreeMap<(String, Row), Asked>,
    threads: BTreeMap<String, Sender<Vec<Row>>>,
    waiting: usize,
    /// What may have changed in a dead-letter table.
    unsettled: BTreeSet<(String, Row)>,
}

/// Takes what views ask for; shared with the workers.
#[derive(Clone, Default)]
pub(crate) struct Desk(Arc<Mutex<Ledger>>);

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Notes how a view's wishes change, and asks for what nobody asked for before.
    pub(crate) fn take(&self, function: &str, view: &str, updates: Vec<(Row, Diff)>) {
        let mut ledger = self.lock();
        let mut ask = Vec::new();
        for (row, diff) in updates {
            let key = (function.to_string(), row);
            let asked = ledger.asked.entry(key.clone()).or_default();
            let wanted = asked.wanted.entry(view.to_string()).or_default();
            *wanted += diff;
            if *wanted == 0 {
                asked.wanted.remove(view);
            }
            match asked.state {
                State::New if asked.views().next().is_some() => {
                    asked.state = State::Waiting;
                    ask.push(key.1);
                }
                State::Failed(_) => {
                    ledger.unsettled.insert(key);
                }
                _ => {}
            }
        }
        ledger.ask(function, ask);
    }
}

impl Ledger {
    fn ask(&mut self, function: &str, rows: Vec<Row>) {
        if rows.is_empty() {
            return;
        }
        self.waiting += rows.len();
        if let Some(thread) = self.threads.get(function) {
            // The thread ends only after its sender.
            let _ = thread.send(rows);
        }
    }
}

/// Answers of one round.
type Round = (String, Vec<(Row, Answer)>);

/// The coordinator's side.
pub(crate) struct Calls {
    pub(crate) desk: Desk,
    answers: (Sender<Round>, Receiver<Round>),
    /// The letters that stand in dead-letter tables, by function, arguments and view.
    letters: BTreeMap<(String, Row, String), Row>,
    /// Answers that are NULL and say why, by function, with a sample.
    pub(crate) nulls: BTreeMap<String, (u64, String)>,
}
impl Default for Calls {
    fn default() -> Self {
        Calls { desk: Desk::default(), answers: channel(), letters: BTreeMap::new(), nulls: BTreeMap::new() }
    }
}

impl Calls {
    /// Starts the thread that calls a function.
    pub(crate) fn start(&self, name: &str, function: HttpFunction, stop: Arc<AtomicBool>) -> std::io::Result<()> {
        let (sender, requests) = channel::<Vec<Row>>();
        let (answers, name) = (self.answers.0.clone(), name.to_string());
        self.desk.lock().threads.insert(name.clone(), sender);
        let work = move || {
            while let Ok(mut rows) = requests.recv() {
                rows.extend(requests.try_iter().flatten());
                let answered = function.call(&rows, &stop);
                let round = rows.into_iter().zip(answered).collect();
                if answers.send((name.clone(), round)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("external function".into()).spawn(work).map(|_| ())
    }
    pub(crate) fn waiting(&self) -> bool {
        let ledger = self.desk.lock();
        ledger.waiting > 0 || !ledger.unsettled.is_empty()
    }
    /// Asks again for what failed and one of the views wants.
    fn ask_again(&self, views: &BTreeSet<String>) {
        let mut ledger = self.desk.lock();
        let mut again: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for ((function, row), asked) in &mut ledger.asked {
            if matches!(asked.state, State::Failed(_)) && asked.views().any(|view| views.contains(view)) {
                asked.state = State::Waiting;
                again.entry(function.clone()).or_default().push(row.clone());
            }
        }
        again.into_iter().for_each(|(function, rows)| ledger.ask(&function, rows));
    }
    /// The rounds that have come; with `wait`, after a moment if there is none.
    fn rounds(&self, wait: bool) -> Vec<Round> {
        let mut rounds: Vec<Round> = self.answers.1.try_iter().collect();
        if rounds.is_empty() && wait {
            match self.answers.1.recv_timeout(LOOK) {
                Ok(round) => rounds.push(round),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        rounds
    }
    /// Notes the answers; returns the rows of results, by function.
    fn note(&mut self, rounds: Vec<Round>) -> BTreeMap<String, Vec<Row>> {
        let mut ledger = self.desk.lock();
        let mut results: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for (function, answers) in rounds {
            for (row, answer) in answers {
                let key = (function.clone(), row);
                ledger.waiting = ledger.waiting.saturating_sub(1);
                let result = match answer {
                    Answer::Result(result) => Ok(result),
                    Answer::Null(reason) => {
                        let (count, _) = self.nulls.entry(function.clone()).or_insert((0, reason));
                        *count += 1;
                        Ok(HttpFunction::null())
                    }
                    Answer::Failed(reason) => Err(reason),
                };
                let state = match result {
                    Ok(result) => {
                        let row = Row::from_bytes(&[&key.1[..], &result[..]].concat());
                        results.entry(function.clone()).or_default().push(row);
                        State::Answered
                    }
                    Err(reason) => State::Failed(reason),
                };
                if let Some(asked) = ledger.asked.get_mut(&key) {
                    asked.state = state;
                }
                ledger.unsettled.insert(key);
            }
        }
        results
    }
    /// How the dead-letter tables of views change: (view, letter, diff).
    fn settle_letters(&mut self, write: impl Fn(&str, &[u8], &str) -> Row) -> Vec<(String, Row, Diff)> {
        let mut ledger = self.desk.lock();
        let mut changes = Vec::new();
        for (function, row) in std::mem::take(&mut ledger.unsettled) {
            let Some(asked) = ledger.asked.get(&(function.clone(), row.clone())) else { continue };
            let failed = match &asked.state {
                State::Failed(reason) => Some(reason),
                _ => None,
            };
            let from = (function.clone(), row.clone(), String::new());
            let standing: Vec<(String, Row, String)> = self
                .letters
                .range(from..)
                .map(|(key, _)| key.clone())
                .take_while(|key| key.0 == function && key.1 == row)
                .collect();
            for key in standing {
                if (failed.is_none() || asked.views().all(|view| *view != key.2))
                    && let Some(letter) = self.letters.remove(&key)
                {
                    changes.push((key.2, letter, -1));
                }
            }
            let Some(reason) = failed else { continue };
            for view in asked.views() {
                let key = (function.clone(), row.clone(), view.clone());
                let letter = write(&function, &row, reason);
                let old = self.letters.insert(key, letter.clone());
                changes.extend(old.map(|old| (view.clone(), old, -1)));
                changes.push((view.clone(), letter, 1));
            }
        }
        changes
    }
}

impl Engine {
    /// Waits until every call that continuous queries ask for is answered or has failed.
    pub(crate) fn await_calls(&mut self) -> Result<()> {
        while self.calls.waiting() && !self.stopped() {
            self.take_answers(true)?;
        }
        Ok(())
    }
    /// Asks again for what failed and the views want.
    pub(crate) fn ask_again(&mut self, views: &BTreeSet<String>) {
        self.calls.ask_again(views);
    }
    /// Puts the answers that have come into the tables, as one tick that is complete afterwards.
    pub(crate) fn take_answers(&mut self, wait: bool) -> Result<()> {
        let rounds = self.calls.rounds(wait);
        let results = self.calls.note(rounds);
        let mut batches = Vec::new();
        for (function, rows) in results {
            let Some(input) = self.results_input(&function) else { continue };
            let statement = self.next_statement();
            let command = |(offset, row): (usize, Row)| {
                let position = Position { timestamp: 0, source: statement, partition: 0, offset: offset as u64 };
                Command { position, kind: CommandKind::Upsert, row }
            };
            batches.push((input, InputBatch::Commands(rows.into_iter().enumerate().map(command).collect())));
        }
        let seen_at = self.clock.now();
        let functions = &self.catalog.external;
        let letters = self.calls.settle_letters(|function, row, reason| {
            let mut arguments = Vec::new();
            if let Some(http) = functions.get(function).and_then(|function| function.http.as_ref()) {
                http.write_arguments(row, &mut arguments);
            }
            letter(short(function), arguments, reason, seen_at)
        });
        for (view, letter, diff) in letters {
            if let Some(input) = self.letters_input(&view) {
                batches.push((input, InputBatch::Updates(vec![(letter, diff)])));
            }
        }
        if batches.is_empty() {
            return Ok(());
        }
        let tick = self.send_answers(batches)?;
        self.complete(tick)
    }
    fn results_input(&self, function: &str) -> Option<InputId> {
        let results = self.catalog.external.get(function)?.results.as_ref()?;
        self.catalog.get(results)?.table().map(|table| table.input)
    }
    fn letters_input(&self, view: &str) -> Option<InputId> {
        match &self.catalog.get(view)?.kind {
            Kind::Table(table) => Some(table.errors_input),
            Kind::Dynamic(view) => view.errors_input,
            _ => None,
        }
    }
}

/// A call that failed, as a row of a dead-letter table: the function and its arguments.
fn letter(function: &str, arguments: Vec<u8>, reason: &str, seen_at: i64) -> Row {
    Row::pack([
        Datum::str(function),
        Datum::Int(0),
        Datum::Int(0),
        Datum::Null,
        Datum::Null,
        Datum::Bytes(arguments.into()),
        Datum::Null,
        Datum::str(reason),
        Datum::Int(seen_at),
    ])
}
