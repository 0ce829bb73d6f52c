//! Building a dataflow on one worker: its inputs, what it imports and exports, and the tables that later dataflows may feed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::core::Input as _;
use timely::dataflow::{InputHandle, ProbeHandle, Scope, StreamVec};

use super::worker::{Installed, Local};
use super::{Alarm, InputBatch, InputId, Report};

use crate::arrange::{Arranged, Collection, collection};
use crate::command::Command;
use crate::row::Row;
use crate::timing::Busy;
use crate::{Diff, Time};

pub(super) type Handle<D> = InputHandle<Time, CapacityContainerBuilder<Vec<D>>>;
pub(super) enum Input {
    Commands(Handle<Command>),
    Updates(Handle<(Row, Time, Diff)>),
    Clock(Handle<i64>),
}
impl Input {
    pub(super) fn advance_to(&mut self, time: Time) {
        match self {
            Input::Commands(handle) => handle.advance_to(time),
            Input::Updates(handle) => handle.advance_to(time),
            Input::Clock(handle) => handle.advance_to(time),
        }
    }
    pub(super) fn push(&mut self, time: Time, batch: InputBatch) {
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
pub(super) type FeedQueue = Rc<RefCell<BTreeMap<Time, Vec<Command>>>>;
/// The input of a table that later dataflows may feed. It follows their frontiers.
pub(super) struct Feed {
    pub(super) handle: Handle<Command>,
    /// The feeding dataflow's name, its queue and its probe.
    pub(super) sources: Vec<(String, FeedQueue, ProbeHandle<Time>)>,
}
impl Feed {
    /// Moves complete ticks from the queues into the input; `next` bounds a feed without sources.
    pub(super) fn pump(&mut self, next: Time) {
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
    pub(super) local: &'b mut Local,
    pub(super) installed: &'b mut Installed,
    pub(super) beats: StreamVec<'s, Time, ()>,
    pub(super) name: &'b str,
}

impl<'s> Build<'_, 's> {
    pub(super) fn input<D: Clone + 'static>(
        &mut self,
        id: InputId,
        wrap: impl FnOnce(Handle<D>) -> Input,
    ) -> StreamVec<'s, Time, D> {
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
