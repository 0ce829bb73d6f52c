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

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use differential_dataflow::trace::TraceReader;
use timely::WorkerConfig;
use timely::communication::WorkerGuards;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::core::Input as _;
use timely::dataflow::{InputHandle, ProbeHandle, Scope, StreamVec};
use timely::progress::Antichain;
use timely::worker::Worker;

use crate::arrange::{Arranged, Batch, Collection, Trace, collection};
use crate::command::Command;
use crate::cursor::{TraceCursor, batches_of};
use crate::row::Row;
use crate::timing::{Busy, log_schedule, stop_log};
use crate::{Diff, Time};

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

type Handle<D> = InputHandle<Time, CapacityContainerBuilder<Vec<D>>>;
enum Input {
    Commands(Handle<Command>),
    Updates(Handle<(Row, Time, Diff)>),
    Clock(Handle<i64>),
}
impl Input {
    fn advance_to(&mut self, time: Time) {
        match self {
            Input::Commands(handle) => handle.advance_to(time),
            Input::Updates(handle) => handle.advance_to(time),
            Input::Clock(handle) => handle.advance_to(time),
        }
    }
    fn push(&mut self, time: Time, batch: InputBatch) {
        match (self, batch) {
            (Input::Commands(handle), InputBatch::Commands(mut commands)) => handle.send_batch(&mut commands),
            (Input::Commands(handle), InputBatch::Deferred(decode)) => handle.send_batch(&mut decode()),
            (Input::Updates(handle), InputBatch::Updates(updates)) => {
                handle.send_batch(&mut updates.into_iter().map(|(row, diff)| (row, time, diff)).collect());
            }
            (Input::Clock(handle), InputBatch::Clock(instant)) => handle.send(instant),
            _ => panic!("an input was given a batch of another kind"),
        }
    }
}

/// Commands that one dataflow makes for a table of another: handed over tick by tick.
type FeedQueue = Rc<RefCell<BTreeMap<Time, Vec<Command>>>>;
/// The input of a table that later dataflows may feed. It follows their frontiers.
struct Feed {
    handle: Handle<Command>,
    /// The feeding dataflow's name, its queue and its probe.
    sources: Vec<(String, FeedQueue, ProbeHandle<Time>)>,
}
impl Feed {
    /// Moves complete ticks from the queues into the input; `next` bounds a feed without sources.
    fn pump(&mut self, next: Time) {
        let mut frontier = next;
        for (_, _, probe) in &self.sources {
            // Empty only before the first step: the heartbeat is among what the probe watches.
            frontier = frontier.min(probe.with_frontier(|f| f.iter().copied().min().unwrap_or(0)));
        }
        let mut due: BTreeMap<Time, Vec<Command>> = BTreeMap::new();
        for (_, queue, _) in &self.sources {
            let mut queue = queue.borrow_mut();
            let later = queue.split_off(&frontier);
            for (time, commands) in std::mem::replace(&mut *queue, later) {
                due.entry(time).or_default().extend(commands);
            }
        }
        for (time, mut commands) in due {
            self.handle.advance_to(time);
            self.handle.send_batch(&mut commands);
        }
        if *self.handle.time() < frontier {
            self.handle.advance_to(frontier);
            self.handle.flush();
        }
    }
}

struct Installed {
    index: usize,
    probe: ProbeHandle<Time>,
    /// An input without data that moves with the ticks: with it the probe's frontier is empty only before its first step.
    heartbeat: Handle<()>,
    inputs: Vec<InputId>,
    exports: Vec<String>,
    feeds: Vec<String>,
    observers: Vec<(String, Observer)>,
    /// How long its operators run; None where nobody asked.
    busy: Option<Rc<RefCell<Busy>>>,
}

/// One worker's dataflows, inputs and kept traces.
struct Local {
    /// All inputs stand at this tick.
    next: Time,
    dataflows: BTreeMap<String, Installed>,
    inputs: BTreeMap<InputId, Input>,
    traces: BTreeMap<String, Trace>,
    feeds: BTreeMap<String, Feed>,
    /// What the dataflows that feed a table share with the table's own, by table.
    by_table: BTreeMap<String, Rc<dyn Any>>,
    reads: VecDeque<Reading>,
    shared: Arc<Shared>,
}

/// Builds one dataflow on one worker.
pub struct Build<'b, 's> {
    /// The dataflow's scope.
    pub scope: Scope<'s, Time>,
    /// This worker's number.
    pub worker: usize,
    /// The number of workers.
    pub workers: usize,
    /// The tick at which imported rows appear.
    pub start: Time,
    local: &'b mut Local,
    installed: &'b mut Installed,
    beats: StreamVec<'s, Time, ()>,
    name: &'b str,
}

impl<'s> Build<'_, 's> {
    fn input<D: Clone + 'static>(&mut self, id: InputId, wrap: impl FnOnce(Handle<D>) -> Input) -> StreamVec<'s, Time, D> {
        let (mut handle, stream) = self.scope.new_input::<Vec<D>>();
        handle.advance_to(self.local.next);
        self.installed.inputs.push(id);
        self.local.inputs.insert(id, wrap(handle));
        stream
    }
    /// An input of commands.
    pub fn commands(&mut self, id: InputId) -> StreamVec<'s, Time, Command> {
        self.input(id, Input::Commands)
    }
    /// An input of updates.
    pub fn updates(&mut self, id: InputId) -> Collection<'s> {
        collection(self.input(id, Input::Updates))
    }
    /// An input of instants.
    pub fn clock(&mut self, id: InputId) -> StreamVec<'s, Time, i64> {
        self.input(id, Input::Clock)
    }
    /// Commands for the table `table` that dataflows installed later make with [`feed`](Self::feed).
    pub fn fed(&mut self, table: &str) -> StreamVec<'s, Time, Command> {
        let (mut handle, stream) = self.scope.new_input::<Vec<Command>>();
        handle.advance_to(self.local.next);
        self.installed.feeds.push(table.to_string());
        self.local.feeds.insert(table.to_string(), Feed { handle, sources: Vec::new() });
        stream
    }
    /// Hands the commands to the table `table` of a dataflow installed earlier, at the tick they are made.
    pub fn feed(&mut self, table: &str, commands: StreamVec<'s, Time, Command>) {
        use timely::dataflow::channels::pact::Pipeline;
        use timely::dataflow::operators::generic::Operator;
        let queue: FeedQueue = Rc::default();
        let (ours, start) = (Rc::clone(&queue), self.start);
        let done = commands.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "Feed", move |_, _| {
            move |input, _output| {
                input.for_each(|capability, data| {
                    let time = start.max(*capability.time());
                    ours.borrow_mut().entry(time).or_default().append(data);
                });
            }
        });
        let probe = ProbeHandle::new();
        let done = done.probe_with(&probe);
        self.watch(done);
        let _ = self.beats.clone().probe_with(&probe);
        let feed = self.local.feeds.get_mut(table).expect("the engine feeds only tables that are installed");
        feed.sources.push((self.name.to_string(), queue, probe));
    }
    /// What the dataflows of this worker that feed the table `table` share with the one that folds it; made when first asked
    /// for, and gone with the table. One table shares one type.
    pub fn shared<T: Default + 'static>(&mut self, table: &str) -> Rc<T> {
        let made = self.local.by_table.entry(table.to_string()).or_insert_with(|| Rc::new(T::default()));
        Rc::clone(made).downcast().expect("one table shares one type")
    }
    /// Makes completion of a tick wait for this stream.
    pub fn watch<D: Clone + 'static>(&mut self, stream: StreamVec<'s, Time, D>) {
        let _ = stream.probe_with(&self.installed.probe);
    }
    /// Keeps the arrangement under a name, for reads and later dataflows.
    pub fn export(&mut self, name: &str, arranged: &Arranged<'s>) {
        self.watch(arranged.stream.clone());
        self.installed.exports.push(name.to_string());
        self.local.traces.insert(name.to_string(), arranged.trace.clone());
    }
    /// Registers what [`Host::observe`] asks on this worker.
    pub fn observe(&mut self, name: &str, observer: impl Fn() -> Report + 'static) {
        self.installed.observers.push((name.to_string(), Box::new(observer)));
    }
    /// How long the dataflow's operators run, if it was installed with [`Host::install_timed`]; else nothing.
    pub fn busy(&self) -> Rc<RefCell<Busy>> {
        self.installed.busy.clone().unwrap_or_default()
    }
    /// The number of the next operator on this worker.
    pub fn next_operator(&self) -> usize {
        self.scope.worker().peek_identifier()
    }
    /// What ends the run from within the dataflow.
    pub fn alarm(&self) -> Alarm {
        Alarm(Arc::clone(&self.local.shared))
    }
    /// Whether an arrangement of that name is kept.
    pub fn has_export(&self, name: &str) -> bool {
        self.local.traces.contains_key(name)
    }
    /// An arrangement kept by an earlier dataflow. Its history comes at the ticks it happened at, as far as they are still
    /// distinguished: outputs of a dataflow that imports are moved to [`start`](Self::start) by whoever keeps or sends them.
    ///
    /// # Panics
    /// Where no such arrangement is kept: the engine checks before.
    pub fn import(&mut self, name: &str) -> Arranged<'s> {
        let trace = self.local.traces.get_mut(name).expect("the engine imports only what is exported");
        trace.import_named(self.scope, name)
    }
}

impl Local {
    fn new(shared: &Arc<Shared>) -> Self {
        Local {
            shared: Arc::clone(shared),
            next: 1,
            dataflows: BTreeMap::new(),
            inputs: BTreeMap::new(),
            traces: BTreeMap::new(),
            feeds: BTreeMap::new(),
            by_table: BTreeMap::new(),
            reads: VecDeque::new(),
        }
    }
    fn apply(&mut self, worker: &mut Worker, request: Request) {
        match request {
            Request::Install { name, build, start, timed } => self.install(worker, &name, &*build, start, timed),
            Request::Drop { name } => self.drop_dataflow(worker, &name),
            Request::Tick { time, inputs } => self.tick(time, inputs),
            Request::Read { trace, at, reply } => {
                let batches = self.traces.get_mut(&trace).map(batches_of).unwrap_or_default();
                self.reads.push_back(Reading { batches, at, after: None, reply });
            }
            Request::Observe { reply } => {
                if let Some(mut log) = worker.log_register() {
                    log.flush();
                }
                let observers = self.dataflows.values().flat_map(|dataflow| &dataflow.observers);
                let _ = reply.send(observers.map(|(name, observer)| (name.clone(), observer())).collect());
            }
            Request::Stop => {}
        }
    }
    fn install(&mut self, worker: &mut Worker, name: &str, build: &BuildFn, start: Time, timed: bool) {
        let busy = timed.then(|| log_schedule(worker));
        let mut installed = Installed {
            index: worker.next_dataflow_index(),
            probe: ProbeHandle::new(),
            heartbeat: InputHandle::new(),
            inputs: Vec::new(),
            exports: Vec::new(),
            feeds: Vec::new(),
            observers: Vec::new(),
            busy,
        };
        let (index, peers) = (worker.index(), worker.peers());
        worker.dataflow_named::<Time, _, _>(name, |scope| {
            let beats = scope.input_from(&mut installed.heartbeat);
            installed.heartbeat.advance_to(self.next);
            let installed = &mut installed;
            let mut built =
                Build { scope, worker: index, workers: peers, start, local: self, installed, beats: beats.clone(), name };
            built.watch(beats);
            build(&mut built);
        });
        self.dataflows.insert(name.to_string(), installed);
    }
    fn drop_dataflow(&mut self, worker: &mut Worker, name: &str) {
        let Some(installed) = self.dataflows.remove(name) else { return };
        for id in &installed.inputs {
            self.inputs.remove(id);
        }
        for trace in &installed.exports {
            self.traces.remove(trace);
        }
        for table in &installed.feeds {
            self.by_table.remove(table);
            self.feeds.remove(table);
        }
        for feed in self.feeds.values_mut() {
            feed.sources.retain(|(source, _, _)| source != name);
        }
        worker.drop_dataflow(installed.index);
        if installed.busy.is_some() {
            stop_log(worker);
        }
    }
    fn tick(&mut self, time: Time, inputs: Vec<(InputId, InputBatch)>) {
        for (id, batch) in inputs {
            if let Some(input) = self.inputs.get_mut(&id) {
                input.push(time, batch);
            }
        }
        self.next = time + 1;
        for input in self.inputs.values_mut() {
            input.advance_to(time + 1);
        }
        for dataflow in self.dataflows.values_mut() {
            dataflow.heartbeat.advance_to(time + 1);
        }
    }
    /// All ticks before this one are complete.
    fn upper(&self) -> Time {
        let reached = |dataflow: &Installed| dataflow.probe.with_frontier(|f| f.iter().copied().min().unwrap_or(0));
        self.dataflows.values().map(reached).chain([self.next]).min().unwrap_or(self.next)
    }
    /// Lets kept traces merge and forget everything before the newest complete tick.
    fn compact(&mut self, upper: Time) {
        let logical = Antichain::from_elem(upper - 1);
        let physical = Antichain::from_elem(upper);
        for trace in self.traces.values_mut() {
            trace.set_logical_compaction(logical.borrow());
            trace.set_physical_compaction(physical.borrow());
        }
    }
    fn pump_feeds(&mut self) {
        for feed in self.feeds.values_mut() {
            feed.pump(self.next);
        }
    }
    /// Does a part of the oldest read. All requested ticks are complete.
    fn step_read(&mut self) {
        let Some(mut read) = self.reads.pop_front() else { return };
        if read.step() {
            self.reads.push_back(read);
        }
    }
}

/// A read under way.
struct Reading {
    batches: Vec<Batch>,
    at: Time,
    after: Option<Row>,
    reply: Sender<ReadChunk>,
}
impl Reading {
    /// Reads some keys; true while there are more.
    fn step(&mut self) -> bool {
        let mut cursor = TraceCursor::new(&self.batches);
        if let Some(after) = &self.after {
            cursor.seek_key(after);
        }
        let mut chunk = Vec::new();
        let mut last = None;
        for _ in 0..READ_KEYS {
            let Some(key) = cursor.next_key() else {
                let _ = self.reply.send(chunk);
                return false;
            };
            while let Some(value) = cursor.value() {
                let count = cursor.count_as_of(self.at);
                if count != 0 {
                    chunk.push((Row::from_bytes(key), Row::from_bytes(value), count));
                }
            }
            last = Some(key);
        }
        self.after = last.map(Row::from_bytes);
        self.reply.send(chunk).is_ok()
    }
}

fn run_worker(worker: &mut Worker, requests: &Receiver<Request>, shared: &Arc<Shared>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| serve(worker, requests, shared)));
    let mut state = shared.lock();
    state.stopped += 1;
    if let Err(panic) = outcome {
        state.failure.get_or_insert(Failure::Panic(panic_message(&*panic)));
    }
    drop(state);
    shared.changed.notify_all();
}
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".into())
}

/// Applies requests and steps until told to stop.
fn serve(worker: &mut Worker, requests: &Receiver<Request>, shared: &Arc<Shared>) {
    let mut local = Local::new(shared);
    let mut published = 1;
    // A request that waits until all ticks before it are complete. Ticks themselves do not wait: while one is held up by another
    // worker, the next goes on.
    let mut held = None;
    loop {
        let under_way = local.upper() < local.next;
        match held.take().map_or_else(|| requests.try_recv(), Ok) {
            Ok(request @ Request::Tick { .. }) => local.apply(worker, request),
            Ok(request) if under_way => {
                held = Some(request);
                // Parks only where other workers have to go on first.
                worker.step_or_park(None);
            }
            Ok(Request::Stop) | Err(TryRecvError::Disconnected) => break,
            Ok(request) => local.apply(worker, request),
            Err(TryRecvError::Empty) if under_way || local.reads.is_empty() => {
                worker.step_or_park(None);
            }
            Err(TryRecvError::Empty) => local.step_read(),
        }
        local.pump_feeds();
        let upper = local.upper();
        if upper > published {
            published = upper;
            local.compact(upper);
            shared.lock().upper[worker.index()] = upper;
            shared.changed.notify_all();
        }
    }
    let names: Vec<String> = local.dataflows.keys().cloned().collect();
    for name in names {
        local.drop_dataflow(worker, &name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrange::{arrange, as_rows};
    use crate::row::Datum;

    fn row(values: &[i64]) -> Row {
        Row::pack(values.iter().map(|v| Datum::Int(*v)))
    }
    fn updates(rows: &[(i64, Diff)]) -> InputBatch {
        InputBatch::Updates(rows.iter().map(|(v, d)| (row(&[*v]), *d)).collect())
    }
    /// Input 1, arranged by its row under the name "t".
    fn table() -> Arc<BuildFn> {
        Arc::new(|build: &mut Build<'_, '_>| {
            let rows = build.updates(1);
            let arranged = arrange(rows.map(|row| (row, Row::default())), "t");
            build.export("t", &arranged);
        })
    }
    fn contents(host: &Host, trace: &str) -> Vec<(Row, Diff)> {
        let mut rows = Vec::new();
        host.read(trace, host.complete(), |chunk| rows.extend(chunk.into_iter().map(|(k, _, d)| (k, d)))).expect("a read");
        rows.sort();
        rows
    }

    #[test]
    fn dataflows_share_traces_and_are_dropped_while_others_run() {
        for workers in [1, 2, 4] {
            let mut host = Host::start(workers).expect("a host");
            host.install("base", table());
            host.tick(vec![vec![(1, updates(&[(1, 1), (2, 1)]))]]);
            host.install(
                "copy",
                Arc::new(|build: &mut Build<'_, '_>| {
                    let rows = as_rows(build.import("t"), |key, _| Row::from_bytes(key));
                    let arranged = arrange(rows.map(|row| (row, Row::default())), "u");
                    build.export("u", &arranged);
                }),
            );
            let tick = host.tick(vec![vec![(1, updates(&[(2, -1), (3, 2)]))]]);
            host.wait_complete(tick).expect("complete");
            let expected = vec![(row(&[1]), 1), (row(&[3]), 2)];
            assert_eq!(contents(&host, "t"), expected);
            assert_eq!(contents(&host, "u"), expected);
            host.drop_dataflow("copy");
            let tick = host.tick(vec![vec![(1, updates(&[(3, -2)]))]]);
            host.wait_complete(tick).expect("complete");
            assert_eq!(contents(&host, "t"), vec![(row(&[1]), 1)]);
            assert_eq!(contents(&host, "u"), vec![]);
            host.stop().expect("a clean stop");
        }
    }

    #[test]
    fn a_later_dataflow_feeds_a_table_of_an_earlier_one() {
        use crate::command::{CommandKind, Position};
        use timely::dataflow::operators::vec::Map;
        for workers in [1, 2] {
            let mut host = Host::start(workers).expect("a host");
            host.install("base", table());
            host.install(
                "target",
                Arc::new(|build: &mut Build<'_, '_>| {
                    let commands = build.fed("v");
                    let rows = collection(commands.map_in_time());
                    let arranged = arrange(rows.map(|row| (row, Row::default())), "v");
                    build.export("v", &arranged);
                }),
            );
            host.tick(vec![vec![(1, updates(&[(1, 1)]))]]);
            host.install(
                "insert",
                Arc::new(|build: &mut Build<'_, '_>| {
                    let rows = as_rows(build.import("t"), |key, _| Row::from_bytes(key));
                    let command = |(row, _, _)| Command { position: Position::default(), kind: CommandKind::Upsert, row };
                    build.feed("v", rows.inner.map(command));
                }),
            );
            let tick = host.tick(vec![vec![(1, updates(&[(2, 1)]))]]);
            host.wait_complete(tick).expect("complete");
            assert_eq!(contents(&host, "v"), vec![(row(&[1]), 1), (row(&[2]), 1)]);
        }
    }

    #[test]
    fn an_alarm_is_an_error_of_the_run_and_the_threads_end() {
        let mut host = Host::start(2).expect("a host");
        host.install(
            "limited",
            Arc::new(|build: &mut Build<'_, '_>| {
                let alarm = build.alarm();
                let rows = build.updates(1).map(move |row| {
                    alarm.limit("too many".into(), "have fewer".into());
                    row
                });
                build.watch(rows.inner);
            }),
        );
        let tick = host.tick(vec![vec![(1, updates(&[(1, 1)]))]]);
        while host.complete() < tick {
            std::thread::yield_now();
        }
        let error = host.wait_complete(tick).expect_err("a failure");
        assert!(matches!(&error, HostError::Limit { help, .. } if help == "have fewer"), "{error:?}");
        assert_eq!(host.stop().expect_err("the same").to_string(), "too many");
    }

    #[test]
    fn a_panic_of_a_worker_is_an_error_of_the_run() {
        let mut host = Host::start(2).expect("a host");
        host.install(
            "bad",
            Arc::new(|build: &mut Build<'_, '_>| {
                let rows = build.updates(1).map(|row| if row.len() > 1 { panic!("seven") } else { row });
                build.watch(rows.inner);
            }),
        );
        let tick = host.tick(vec![vec![(1, updates(&[(700, 1)]))]]);
        let error = host.wait_complete(tick).expect_err("a failure");
        assert_eq!(error.to_string(), "a worker thread failed: seven");
    }

    trait MapInTime<'s> {
        fn map_in_time(self) -> StreamVec<'s, Time, (Row, Time, Diff)>;
    }
    impl<'s> MapInTime<'s> for StreamVec<'s, Time, Command> {
        fn map_in_time(self) -> StreamVec<'s, Time, (Row, Time, Diff)> {
            use timely::dataflow::channels::pact::Pipeline;
            use timely::dataflow::operators::generic::Operator;
            self.unary(Pipeline, "Timed", |_, _| {
                |input, output| {
                    input.for_each(|capability, data| {
                        let time = *capability.time();
                        output.session(&capability).give_iterator(data.drain(..).map(|c| (c.row, time, 1)));
                    });
                }
            })
        }
    }
}
