//! Retention: rows that leave a table when they have reached an age.
//!
//! **Definition.** A row's time is its value in a column of event time, where the table has one and it is not NULL, else the
//! timestamp of the record that brought it, else the clock when it was written. At tick t the table holds of its rows those
//! with `now(t) - time <= span`; the others leave by ordinary retractions. now(t) is the largest value of the clock at ticks
//! up to t.
//!
//! A command meets the clock as it stood when the command arrived ([`Aging::arrival`]): with a clock that follows the records,
//! that is the timestamp of its own record, wherever in a tick it comes, so that the cut into ticks changes nothing.
//!
//! **State.** Of a table without a key ([`keyless_aging`]) each row once, at the instant at which it leaves; rows timed by
//! arrival a second time, by row, because a retraction does not say when its row came. Of a keyed table the keys, see
//! [`merge_aging`](crate::merge::merge_aging). Nothing is scanned.
//!
//! **On retraction.** A retracted row does not leave a second time. Of several equal rows timed by arrival the oldest is
//! retracted. A row that has left cannot be retracted: that does nothing.
//!
//! **On ties, nulls, late rows.** A row that is too old when it arrives never enters, and is counted.
//!
//! **Example.** span 7 days, now 2026-06-08 00:00: a row of 2026-06-01 00:00 is there, and leaves when the clock moves on.

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::rc::Rc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::merge::{MergeCounters, Rejected};
use crate::pending::Pending;
use crate::schedule::Schedule;
use deltaworks_dataflow::row::{encode_int, hash_bytes, is_null_field, nth_field};
use deltaworks_dataflow::{Collection, Command, CommandKind, DataType, Datum, Diff, Row, Time};

/// How long a table keeps its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The age that a row may reach, in microseconds.
    pub span: i64,
    /// The column of its time, a TIMESTAMP or TIMESTAMP_LTZ; None: by arrival.
    pub column: Option<usize>,
    /// Whether the clock is the largest timestamp of the records, as in a replay.
    pub record_clock: bool,
}

/// The ages of one table's rows under a clock.
pub(crate) struct Aging {
    retention: Retention,
    /// The clock at the end of the last tick, and of this one.
    before: Option<i64>,
    now: i64,
}

impl Aging {
    pub(crate) fn new(retention: Retention) -> Self {
        Aging { retention, before: None, now: i64::MIN }
    }
    /// Moves the clock to its value at the tick that begins.
    pub(crate) fn begin_tick(&mut self, clock: Option<i64>) {
        self.before = (self.now > i64::MIN).then_some(self.now);
        self.now = clock.map_or(self.now, |clock| clock.max(self.now));
    }
    /// The clock at the end of the tick.
    pub(crate) fn now(&self) -> i64 {
        self.now
    }
    /// The timestamp of a command's record; None for a statement and for a record without.
    fn record_time(command: &Command) -> Option<i64> {
        let timestamp = command.position.timestamp;
        (timestamp > 0).then(|| timestamp.saturating_mul(1000))
    }
    /// The clock when the command arrived.
    pub(crate) fn arrival(&self, command: &Command) -> i64 {
        match Self::record_time(command) {
            Some(time) if self.retention.record_clock => time.max(self.before.unwrap_or(time)).min(self.now),
            _ => self.now,
        }
    }
    /// The time of a row by its own column.
    fn own_time(&self, row: &[u8]) -> Option<i64> {
        let field = nth_field(row, self.retention.column?);
        if is_null_field(field) {
            return None;
        }
        match Datum::decode(&mut &field[..], &DataType::Timestamp) {
            Datum::Int(time) => Some(time),
            _ => None,
        }
    }
    /// The time of the row that a command made; None for a key that has no row to show.
    pub(crate) fn time_of(&self, row: Option<&[u8]>, command: &Command) -> i64 {
        let own = row.and_then(|row| self.own_time(row));
        own.or_else(|| Self::record_time(command)).unwrap_or_else(|| self.arrival(command))
    }
    /// Whether a row of this time is too old at an instant.
    pub(crate) fn is_over(&self, time: i64, now: i64) -> bool {
        now >= self.end_of(time)
    }
    /// The first instant at which a row of this time is too old.
    pub(crate) fn end_of(&self, time: i64) -> i64 {
        time.saturating_add(self.retention.span).saturating_add(1)
    }
}

/// The bytes that a time takes behind a row.
const STAMP: usize = 9;
/// Times are moved up so that they all take eight bytes.
const BIAS: i64 = 1 << 62;

/// Appends a time as a field that always takes the same space, so that it is found from the end.
pub(crate) fn push_time(row: &mut Vec<u8>, time: i64) {
    let room = BIAS / 2;
    encode_int(row, BIAS + time.clamp(-room, room));
}
/// A row and the time behind it.
pub(crate) fn split_time(stamped: &[u8]) -> (&[u8], i64) {
    let (row, stamp) = stamped.split_at(stamped.len() - STAMP);
    match Datum::decode(&mut &stamp[..], &DataType::BigInt) {
        Datum::Int(biased) => (row, biased - BIAS),
        _ => (row, 0),
    }
}

/// What reaches a table at a tick.
pub(crate) enum Event {
    Clock(i64),
    Command(Command),
}
/// The clock's value at a tick and the commands, in the order in which they came.
pub(crate) fn sort_events(events: Vec<Event>) -> (Option<i64>, Vec<Command>) {
    let (mut clock, mut commands) = (None, Vec::with_capacity(events.len()));
    for event in events {
        match event {
            Event::Clock(value) => clock = clock.max(Some(value)),
            Event::Command(command) => commands.push(command),
        }
    }
    (clock, commands)
}

/// The rows of a table without a key on one worker.
struct Keyless {
    aging: Aging,
    leaving: Schedule<Row>,
    /// When rows came whose time is that of their arrival, oldest first.
    arrived: HashMap<Row, VecDeque<i64>>,
    counters: Rc<MergeCounters>,
}

impl Keyless {
    /// Applies a tick and returns how the rows change, and which commands were rejected.
    fn tick(&mut self, clock: Option<i64>, mut commands: Vec<Command>) -> (Vec<(Row, Diff)>, Vec<Rejected>) {
        self.aging.begin_tick(clock);
        commands.sort_by_key(|command| command.position);
        let (mut changes, mut rejected) = (Vec::new(), Vec::new());
        for command in commands {
            match command.kind {
                CommandKind::Upsert => self.insert(command, &mut changes),
                CommandKind::Retract => self.retract(command, &mut changes),
                CommandKind::Merge => rejected.push((command, "a table without a key takes no continuous MERGE")),
                CommandKind::Delete => rejected.push((command, "a table without a key has no row to delete by key")),
            }
        }
        let mut due = self.leaving.due(self.aging.now());
        consolidate(&mut due);
        for (row, count) in due {
            self.forget_arrivals(&row, self.aging.now());
            changes.push((row, -count));
        }
        consolidate(&mut changes);
        (changes, rejected)
    }
    fn insert(&mut self, command: Command, changes: &mut Vec<(Row, Diff)>) {
        let time = self.aging.time_of(Some(&command.row), &command);
        if self.aging.is_over(time, self.aging.arrival(&command)) {
            self.counters.count_expired();
            return;
        }
        if self.aging.own_time(&command.row).is_none() {
            let times = self.arrived.entry(command.row.clone()).or_default();
            times.insert(times.partition_point(|other| *other <= time), time);
        }
        self.leaving.add(self.aging.end_of(time), command.row.clone(), 1);
        changes.push((command.row, 1));
    }
    fn retract(&mut self, command: Command, changes: &mut Vec<(Row, Diff)>) {
        let arrival = self.aging.arrival(&command);
        let row = command.row;
        // What had left when the retraction came cannot be taken away.
        self.forget_arrivals(&row, arrival);
        let time = match self.aging.own_time(&row) {
            Some(time) => Some(time).filter(|time| !self.aging.is_over(*time, arrival)),
            None => self.arrived.get_mut(&row).and_then(VecDeque::pop_front),
        };
        let Some(time) = time else { return };
        self.leaving.add(self.aging.end_of(time), row.clone(), -1);
        changes.push((row, -1));
    }
    /// Forgets when those of the row came that are too old at an instant.
    fn forget_arrivals(&mut self, row: &Row, now: i64) {
        let Some(times) = self.arrived.get_mut(row) else { return };
        while times.front().is_some_and(|time| self.aging.is_over(*time, now)) {
            times.pop_front();
        }
        if times.is_empty() {
            self.arrived.remove(row);
        }
    }
}

/// [`keyless`](crate::merge::keyless) for a table whose rows leave with age. Every worker must receive the whole clock.
pub fn keyless_aging<'s>(
    commands: StreamVec<'s, Time, Command>,
    clock: StreamVec<'s, Time, i64>,
    retention: Retention,
    counters: Rc<MergeCounters>,
    name: &str,
) -> (Collection<'s>, StreamVec<'s, Time, Rejected>) {
    let by_row = Exchange::new(|command: &Command| hash_bytes(&command.row));
    let mut table =
        Keyless { aging: Aging::new(retention), leaving: Schedule::default(), arrived: HashMap::new(), counters };
    aging_operator(commands, clock, by_row, name, move |clock, commands, rows, rejected| {
        let (changes, refused) = table.tick(clock, commands);
        changes.into_iter().for_each(|(row, diff)| rows(row, diff));
        refused.into_iter().for_each(rejected);
    })
}

/// Applies each complete tick's clock value and commands by `tick`, which hands out changes of rows and rejected commands.
pub(crate) fn aging_operator<'s>(
    commands: StreamVec<'s, Time, Command>,
    clock: StreamVec<'s, Time, i64>,
    exchange: impl timely::dataflow::channels::pact::ParallelizationContract<Time, Vec<Command>> + 'static,
    name: &str,
    mut tick: impl FnMut(Option<i64>, Vec<Command>, &mut dyn FnMut(Row, Diff), &mut dyn FnMut(Rejected)) + 'static,
) -> (Collection<'s>, StreamVec<'s, Time, Rejected>) {
    let mut builder = OperatorBuilder::new(name.to_owned(), commands.scope());
    let mut commands = builder.new_input(commands, exchange);
    let mut clock = builder.new_input(clock, Pipeline);
    let (rows, row_stream) = builder.new_output();
    let (rejected, rejected_stream) = builder.new_output();
    let (mut rows, mut rejected) = (OutputBuilder::from(rows), OutputBuilder::from(rejected));
    builder.build(move |_| {
        let mut waiting: Pending<Event, 2> = Pending::new();
        move |frontiers| {
            commands.for_each(|capability, commands| {
                waiting.at(*capability.time(), &capability).extend(commands.drain(..).map(Event::Command));
            });
            clock.for_each(|capability, values| {
                waiting.at(*capability.time(), &capability).extend(values.drain(..).map(Event::Clock));
            });
            let complete = |time: Time| frontiers.iter().all(|frontier| !frontier.less_equal(&time));
            let (mut rows, mut rejected) = (rows.activate(), rejected.activate());
            while waiting.first_time().is_some_and(complete) {
                let Some(([row_capability, rejected_capability], events)) = waiting.pop_first() else { break };
                let time = *row_capability.time();
                let (value, commands) = sort_events(events);
                let mut row_session = rows.session(&row_capability);
                let mut rejected_session = rejected.session(&rejected_capability);
                tick(value, commands, &mut |row, diff| row_session.give((row, time, diff)), &mut |refused| {
                    rejected_session.give(refused)
                });
            }
        }
    });
    (row_stream.as_collection(), rejected_stream)
}
