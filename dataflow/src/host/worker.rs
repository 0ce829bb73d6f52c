//! A worker: its dataflows, inputs and kept traces, and the loop that applies requests and steps.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use differential_dataflow::trace::TraceReader;
use timely::dataflow::operators::core::Input as _;
use timely::dataflow::{InputHandle, ProbeHandle};
use timely::progress::Antichain;
use timely::worker::Worker;

use super::build::{Build, Feed, Handle, Input};
use super::{BuildFn, Failure, InputBatch, InputId, Observer, READ_KEYS, ReadChunk, Request, Shared};

use crate::Time;
use crate::arrange::{Batch, Trace};
use crate::cursor::{TraceCursor, batches_of};
use crate::row::Row;
use crate::timing::{Busy, log_schedule, stop_log};

pub(super) struct Installed {
    pub(super) index: usize,
    pub(super) probe: ProbeHandle<Time>,
    /// An input without data that moves with the ticks: with it the probe's frontier is empty only before its first step.
    pub(super) heartbeat: Handle<()>,
    pub(super) inputs: Vec<InputId>,
    pub(super) exports: Vec<String>,
    pub(super) feeds: Vec<String>,
    pub(super) observers: Vec<(String, Observer)>,
    /// How long its operators run; None where nobody asked.
    pub(super) busy: Option<Rc<RefCell<Busy>>>,
}

/// One worker's dataflows, inputs and kept traces.
pub(super) struct Local {
    /// All inputs stand at this tick.
    pub(super) next: Time,
    pub(super) dataflows: BTreeMap<String, Installed>,
    pub(super) inputs: BTreeMap<InputId, Input>,
    pub(super) traces: BTreeMap<String, Trace>,
    pub(super) feeds: BTreeMap<String, Feed>,
    /// What the dataflows that feed a table share with the table's own, by table.
    pub(super) by_table: BTreeMap<String, Rc<dyn Any>>,
    pub(super) reads: VecDeque<Reading>,
    pub(super) shared: Arc<Shared>,
}

impl Local {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
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
    pub(super) fn apply(&mut self, worker: &mut Worker, request: Request) {
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
    pub(super) fn install(&mut self, worker: &mut Worker, name: &str, build: &BuildFn, start: Time, timed: bool) {
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
    pub(super) fn drop_dataflow(&mut self, worker: &mut Worker, name: &str) {
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
    pub(super) fn tick(&mut self, time: Time, inputs: Vec<(InputId, InputBatch)>) {
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
    pub(super) fn upper(&self) -> Time {
        let reached = |dataflow: &Installed| dataflow.probe.with_frontier(|f| f.iter().copied().min().unwrap_or(0));
        self.dataflows.values().map(reached).chain([self.next]).min().unwrap_or(self.next)
    }
    /// Lets kept traces merge and forget everything before the newest complete tick.
    pub(super) fn compact(&mut self, upper: Time) {
        let logical = Antichain::from_elem(upper - 1);
        let physical = Antichain::from_elem(upper);
        for trace in self.traces.values_mut() {
            trace.set_logical_compaction(logical.borrow());
            trace.set_physical_compaction(physical.borrow());
        }
    }
    pub(super) fn pump_feeds(&mut self) {
        for feed in self.feeds.values_mut() {
            feed.pump(self.next);
        }
    }
    /// Does a part of the oldest read. All requested ticks are complete.
    pub(super) fn step_read(&mut self) {
        let Some(mut read) = self.reads.pop_front() else { return };
        if read.step() {
            self.reads.push_back(read);
        }
    }
}

/// A read under way.
pub(super) struct Reading {
    pub(super) batches: Vec<Batch>,
    pub(super) at: Time,
    pub(super) after: Option<Row>,
    pub(super) reply: Sender<ReadChunk>,
}
impl Reading {
    /// Reads some keys; true while there are more.
    pub(super) fn step(&mut self) -> bool {
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

pub(super) fn run_worker(worker: &mut Worker, requests: &Receiver<Request>, shared: &Arc<Shared>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| serve(worker, requests, shared)));
    let mut state = shared.lock();
    state.stopped += 1;
    if let Err(panic) = outcome {
        state.failure.get_or_insert(Failure::Panic(panic_message(&*panic)));
    }
    drop(state);
    shared.changed.notify_all();
}
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".into())
}

/// Applies requests and steps until told to stop.
pub(super) fn serve(worker: &mut Worker, requests: &Receiver<Request>, shared: &Arc<Shared>) {
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
