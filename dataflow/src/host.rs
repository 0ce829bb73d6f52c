//! The worker host: threads that run dataflows, and the one sequence of requests that they all follow.
//!
//! ```text
//!   coordinator (Host)                    worker 0 .. n-1 (one thread each)
//!     install / tick / read / drop  ──►   apply requests in order, step, publish what is complete
//!     wait_complete(tick)           ◄──   completed tick, replies, a panic's message
//! ```
//!
//! Every worker receives the same requests in the same order, so dataflows are built alike everywhere. A tick's data go in at
//! the tick's time and all inputs move past it; the tick is complete when every probe has passed it. Idle workers park: there
//! is no timer and no polling. Traces that are kept for later dataflows and reads are compacted, logically and physically,
//! whenever a tick completes; a trace that were forgotten would stop all merging.

mod build;
mod worker;

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use timely::WorkerConfig;
use timely::communication::WorkerGuards;

use crate::command::Command;
use crate::row::Row;
use crate::{Diff, Time};

pub use build::Build;
use worker::run_worker;

/// Names an input across all workers.
pub type InputId = u32;
/// Builds a dataflow on one worker; called once on each.
pub type BuildFn = dyn for<'b, 's> Fn(&mut Build<'b, 's>) + Send + Sync;

/// What one worker pushes into one input at a tick.
pub enum InputBatch {
    /// For an input made by [`Build::commands`].
    Commands(Vec<Command>),
    /// Decoded on the worker's own thread, for an input made by [`Build::commands`].
    Deferred(Box<dyn FnOnce() -> Vec<Command> + Send>),
    /// For an input made by [`Build::updates`].
    Updates(Vec<(Row, Diff)>),
    /// For an input made by [`Build::clock`]: the instant in microseconds since 1970.
    Clock(i64),
}

/// What went wrong in the host itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// A worker thread panicked; the message and place.
    #[error("a worker thread failed: {0}")]
    WorkerPanicked(String),
    /// A limit that stops the run was reached: what, and what to do about it.
    #[error("{message}")]
    Limit {
        /// What has reached which limit.
        message: String,
        /// What would be right.
        help: String,
    },
    /// The threads could not be started.
    #[error("could not start the worker threads: {0}")]
    Start(String),
}

enum Request {
    Install { name: String, build: Arc<BuildFn>, start: Time, timed: bool },
    Drop { name: String },
    Tick { time: Time, inputs: Vec<(InputId, InputBatch)> },
    Read { trace: String, at: Time, reply: Sender<ReadChunk> },
    Observe { reply: Sender<Vec<(String, Report)>> },
    Stop,
}

/// A part of an arrangement as of a tick: consolidated (key, value) rows.
pub type ReadChunk = Vec<(Row, Row, Diff)>;

/// What an observer reports: lines of (what, how often, samples).
pub type Report = Vec<(String, Diff, Vec<String>)>;
type Observer = Box<dyn Fn() -> Report>;

/// How often a wait for answers looks whether a worker has failed, which would never answer.
const FAILURE_CHECK: Duration = Duration::from_millis(200);
/// Keys per step of a read, so that ticks go on beside a long one.
const READ_KEYS: usize = 4096;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}
#[derive(Default)]
struct State {
    /// Per worker: all ticks before this one are complete.
    upper: Vec<Time>,
    failure: Option<Failure>,
    stopped: usize,
}
/// Why a run cannot go on.
#[derive(Clone)]
enum Failure {
    Panic(String),
    Limit { message: String, help: String },
}
impl From<Failure> for HostError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Panic(message) => HostError::WorkerPanicked(message),
            Failure::Limit { message, help } => HostError::Limit { message, help },
        }
    }
}
/// Ends the run from within a dataflow.
#[derive(Clone)]
pub struct Alarm(Arc<Shared>);
impl Alarm {
    /// Makes whoever waits for a tick fail with [`HostError::Limit`]. The first alarm counts.
    pub fn limit(&self, message: String, help: String) {
        self.0.lock().failure.get_or_insert(Failure::Limit { message, help });
        self.0.changed.notify_all();
    }
}
impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The coordinator's side of the workers.
pub struct Host {
    requests: Vec<(Sender<Request>, Thread)>,
    shared: Arc<Shared>,
    guards: Option<WorkerGuards<()>>,
    next: Time,
}

impl Host {
    /// Starts `workers` threads. The first tick is 1.
    ///
    /// # Errors
    /// [`HostError::Start`] where threads cannot be had.
    pub fn start(workers: usize) -> Result<Host, HostError> {
        let shared = Arc::new(Shared::default());
        shared.lock().upper = vec![1; workers];
        let (hello, greetings) = channel();
        let config = if workers == 1 { timely::Config::thread() } else { timely::Config::process(workers) };
        let (allocators, others) = config.communication.try_build().map_err(HostError::Start)?;
        let (ours, hello) = (Arc::clone(&shared), Mutex::new(hello));
        let guards = timely::execute::execute_from(allocators, others, WorkerConfig::default(), move |worker| {
            let (sender, receiver) = channel();
            let greeting = (worker.index(), sender, std::thread::current());
            let sent = hello.lock().unwrap_or_else(PoisonError::into_inner).send(greeting);
            if sent.is_ok() {
                run_worker(worker, &receiver, &ours);
            }
        })
        .map_err(HostError::Start)?;
        let mut links: Vec<_> = greetings.iter().take(workers).collect();
        links.sort_by_key(|(index, _, _)| *index);
        let requests = links.into_iter().map(|(_, sender, thread)| (sender, thread)).collect();
        Ok(Host { requests, shared, guards: Some(guards), next: 1 })
    }
    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.requests.len()
    }
    /// The tick that the next call of [`tick`](Self::tick) will be.
    pub fn next_tick(&self) -> Time {
        self.next
    }
    fn send(&self, worker: usize, request: Request) {
        let (sender, thread) = &self.requests[worker];
        // A worker that is gone has left its message in `failure`; whoever waits next will see it.
        let _ = sender.send(request);
        thread.unpark();
    }
    /// Builds a dataflow on every worker. What it imports appears in it at the next tick.
    pub fn install(&self, name: &str, build: Arc<BuildFn>) {
        self.install_all(name, &build, false);
    }
    /// As [`install`](Self::install); [`Build::busy`] says how long its operators run. No other dataflow may be installed
    /// before this one is dropped.
    pub fn install_timed(&self, name: &str, build: Arc<BuildFn>) {
        self.install_all(name, &build, true);
    }
    fn install_all(&self, name: &str, build: &Arc<BuildFn>, timed: bool) {
        for worker in 0..self.workers() {
            let request = Request::Install { name: name.to_string(), build: Arc::clone(build), start: self.next, timed };
            self.send(worker, request);
        }
    }
    /// Drops a dataflow and everything it exported.
    pub fn drop_dataflow(&self, name: &str) {
        for worker in 0..self.workers() {
            self.send(worker, Request::Drop { name: name.to_string() });
        }
    }
    /// Starts the next tick with one list of input batches per worker (missing ones are empty) and returns its number.
    pub fn tick(&mut self, inputs: Vec<Vec<(InputId, InputBatch)>>) -> Time {
        let time = self.next;
        self.next += 1;
        let mut inputs = inputs.into_iter();
        for worker in 0..self.workers() {
            self.send(worker, Request::Tick { time, inputs: inputs.next().unwrap_or_default() });
        }
        time
    }
    /// Waits until the tick is complete on all workers.
    ///
    /// # Errors
    /// [`HostError::WorkerPanicked`], [`HostError::Limit`].
    pub fn wait_complete(&self, tick: Time) -> Result<(), HostError> {
        let mut state = self.shared.lock();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone().into());
            }
            if state.upper.iter().all(|upper| *upper > tick) {
                return Ok(());
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
    /// The newest complete tick; 0 before the first.
    pub fn complete(&self) -> Time {
        self.shared.lock().upper.iter().min().map_or(0, |upper| upper - 1)
    }
    /// Reads an exported arrangement as of `tick`, the newest requested tick, and gives its rows to `each`. Ticks requested
    /// while the read runs go on beside it: it holds on to the batches it began with.
    ///
    /// # Errors
    /// [`HostError::WorkerPanicked`].
    pub fn read(&self, trace: &str, tick: Time, mut each: impl FnMut(ReadChunk)) -> Result<(), HostError> {
        let (reply, chunks) = channel();
        for worker in 0..self.workers() {
            self.send(worker, Request::Read { trace: trace.to_string(), at: tick, reply: reply.clone() });
        }
        drop(reply);
        loop {
            match chunks.recv_timeout(FAILURE_CHECK) {
                Ok(chunk) => each(chunk),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if self.failure().is_some() => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.failure().map_or(Ok(()), |failure| Err(failure.into()))
    }
    fn failure(&self) -> Option<Failure> {
        self.shared.lock().failure.clone()
    }
    /// What the observers of all dataflows report, by name: one entry per worker and observer.
    pub fn observe(&self) -> Vec<(String, Report)> {
        let (reply, reports) = channel();
        for worker in 0..self.workers() {
            self.send(worker, Request::Observe { reply: reply.clone() });
        }
        drop(reply);
        reports.iter().flatten().collect()
    }
    /// Stops the workers after what was already requested and waits for their threads.
    ///
    /// # Errors
    /// [`HostError::WorkerPanicked`].
    pub fn stop(mut self) -> Result<(), HostError> {
        self.stop_workers();
        match self.shared.lock().failure.take() {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }
    fn stop_workers(&mut self) {
        let Some(guards) = self.guards.take() else { return };
        for worker in 0..self.workers() {
            self.send(worker, Request::Stop);
        }
        if matches!(self.shared.lock().failure, Some(Failure::Panic(_))) {
            // The other workers may wait for the failed one for ever: they end with the process.
            std::mem::forget(guards);
        } else {
            for result in guards.join() {
                if let Err(message) = result {
                    self.shared.lock().failure.get_or_insert(Failure::Panic(message));
                }
            }
        }
    }
}
impl Drop for Host {
    fn drop(&mut self) {
        self.stop_workers();
    }
}

#[cfg(test)]
mod tests;
