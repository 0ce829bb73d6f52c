//! The fold loop: one tick's commands into the rows of a keyed table.
//!
//! The commands are brought into the order of their positions, grouped by the hash of their keys, and each key's are folded
//! against its row in the store. A command whose row is accepted as it is costs no allocation: the row moves to the output.

use std::mem::take;
use std::rc::Rc;

use super::{DeleteBehavior, Folded, MergeCounters, MergeEngine, MergeSpec, Merges, Rejected, add, key_hash, merges};
use crate::keyed_store::{KeyColumns, KeyedStore, Slot};
use crate::retention::{Aging, push_time, split_time};
use crate::schedule::Schedule;
use deltaworks_dataflow::row::hash_bytes;
use deltaworks_dataflow::{Command, CommandKind, Diff, Row};
use differential_dataflow::consolidation::consolidate;

/// A keyed table's rows on one worker.
pub(super) struct Table {
    columns: KeyColumns,
    engine: Box<dyn MergeEngine>,
    delete: DeleteBehavior,
    store: KeyedStore,
    counters: Rc<MergeCounters>,
    merges: Rc<Merges>,
    rejected: Vec<Rejected>,
    /// The commands of a tick by hash of their key, then by position.
    order: Vec<(u64, u32)>,
    /// How old rows become; the store then holds a time behind each row.
    aging: Option<Aging>,
    /// The keys by the instant at which their rows leave.
    leaving: Schedule<Row>,
}

/// Where the state of a key is while its commands are folded.
enum State {
    Absent,
    Stored,
    /// It is the row of this command.
    Command(usize),
    Owned(Row),
}

impl State {
    /// The state itself, where `old` is the stored one.
    fn row<'a>(&'a self, old: Option<&'a [u8]>, commands: &'a [Command]) -> Option<&'a [u8]> {
        match self {
            State::Absent => None,
            State::Stored => old,
            State::Command(index) => Some(&commands[*index].row),
            State::Owned(row) => Some(row),
        }
    }
}

/// The commands on one key, by position.
struct Group<'a> {
    hash: u64,
    key: &'a [u8],
    members: &'a [(u64, u32)],
}

impl Table {
    pub(super) fn new(spec: &MergeSpec, counters: Rc<MergeCounters>) -> Self {
        Table {
            columns: KeyColumns::new(spec.key.clone()),
            engine: spec.engine.build(),
            delete: spec.delete,
            store: spec.store(),
            counters,
            merges: Rc::default(),
            rejected: Vec::new(),
            order: Vec::new(),
            aging: spec.retention.clone().map(Aging::new),
            leaving: Schedule::default(),
        }
    }
    /// The same table, with statements to ask what a merge makes of a row.
    pub(super) fn with_merges(self, merges: Rc<Merges>) -> Self {
        Table { merges, ..self }
    }
    /// Moves the clock of a table with retention to its value at the tick that begins.
    pub(super) fn begin_tick(&mut self, clock: Option<i64>) {
        if let Some(aging) = &mut self.aging {
            aging.begin_tick(clock);
        }
    }
    /// Takes away the rows that are too old at the end of the tick.
    pub(super) fn expire(&mut self, emit: &mut dyn FnMut(Row, Diff)) {
        let Some(aging) = &self.aging else { return };
        let mut due = self.leaving.due(aging.now());
        consolidate(&mut due);
        for (key, _) in due.into_iter().filter(|(_, count)| *count > 0) {
            let hash = hash_bytes(&key);
            if let Some(slot) = self.store.find(hash, &key) {
                if let Some(row) = self.engine.visible(self.state_at(slot).0) {
                    emit(Row::from_bytes(row), -1);
                }
                self.store.remove(hash, &key);
            }
        }
    }
    /// The number of entries of the schedule.
    #[cfg(test)]
    pub(super) fn scheduled(&self) -> usize {
        self.leaving.len()
    }
    /// The state in a slot, and its time where the table has a retention.
    fn state_at(&self, slot: Slot) -> (&[u8], Option<i64>) {
        split(self.aging.as_ref(), self.store.at(slot))
    }
    /// Hands out the rejected commands of the last tick, in the order of their positions.
    pub(super) fn take_rejected(&mut self) -> impl Iterator<Item = Rejected> {
        self.rejected.sort_by_key(|rejected| rejected.0.position);
        add(&self.counters.rejected, self.rejected.len() as u64);
        take(&mut self.rejected).into_iter()
    }
    /// Folds the commands of one tick and calls `emit` for each change of the table.
    pub(super) fn fold_tick(&mut self, mut commands: Vec<Command>, mut emit: impl FnMut(Row, Diff)) {
        // IMPORTANT: the sort is stable. Commands of one record share its position and must stay in order.
        if !commands.is_sorted_by_key(|command| command.position) {
            commands.sort_by_key(|command| command.position);
        }
        let mut order = take(&mut self.order);
        self.sort_by_key(&commands, &mut order);
        let (mut key, mut scratch) = (Vec::new(), Vec::new());
        let mut rest = &order[..];
        while let Some((hash, first)) = rest.first().copied() {
            key.clear();
            key.extend_from_slice(self.key_of(&commands[first as usize], &mut scratch));
            let same = |member: &&(u64, u32)| {
                member.0 == hash && self.key_of(&commands[member.1 as usize], &mut scratch) == &key[..]
            };
            let (members, after) = rest.split_at(1 + rest[1..].iter().take_while(same).count());
            rest = after;
            self.fold_key(&mut commands, &Group { hash, key: &key, members }, &mut emit);
        }
        self.order = order;
    }
    fn key_of<'a>(&self, command: &'a Command, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match command.kind {
            CommandKind::Delete => &command.row,
            CommandKind::Merge => merges::key_of(&command.row, self.columns.columns().len()),
            CommandKind::Upsert | CommandKind::Retract => self.columns.key_of(&command.row, scratch),
        }
    }
    /// Orders the commands, which are sorted by position, so that those on one key are neighbours.
    fn sort_by_key(&self, commands: &[Command], order: &mut Vec<(u64, u32)>) {
        let mut scratch = Vec::new();
        order.clear();
        order.extend((0u32..).zip(commands).map(|(i, command)| (key_hash(&self.columns, command, &mut scratch), i)));
        order.sort_unstable();
        self.separate_keys(commands, order);
    }
    /// Different keys of one hash may interleave: as good as never, but then they must be told apart.
    pub(super) fn separate_keys(&self, commands: &[Command], order: &mut [(u64, u32)]) {
        for run in order.chunk_by_mut(|a, b| a.0 == b.0).filter(|run| run.len() > 1) {
            let key = |index: u32| self.key_of(&commands[index as usize], &mut Vec::new()).to_vec();
            let first = key(run[0].1);
            if run.iter().any(|member| key(member.1) != first) {
                run.sort_by_cached_key(|member| (key(member.1), member.1));
            }
        }
    }
    fn fold_key(&mut self, commands: &mut [Command], group: &Group<'_>, emit: &mut impl FnMut(Row, Diff)) {
        self.count_mixed_partitions(commands, group);
        let slot = self.store.find(group.hash, group.key);
        let stored = slot.map(|slot| split(self.aging.as_ref(), self.store.at(slot)));
        let old = stored.map(|(state, _)| state);
        let mut time = stored.and_then(|(_, time)| time);
        let mut state = if old.is_some() { State::Stored } else { State::Absent };
        let mut merged = None;
        for (_, index) in group.members {
            let index = *index as usize;
            if over(self.aging.as_ref(), time, |aging| aging.arrival(&commands[index])) {
                (state, time) = (State::Absent, None);
            }
            if commands[index].kind == CommandKind::Merge {
                self.count_merged_again(&mut merged, &commands[index]);
                let applied = self.merges.apply(state.row(old, commands), &commands[index], self.columns.columns().len());
                match merges::resolve(&mut commands[index], applied, self.columns.columns().len()) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(reason) => {
                        self.rejected.push((commands[index].clone(), reason));
                        continue;
                    }
                }
            }
            let command = &commands[index];
            let mut renewed = command.kind == CommandKind::Upsert;
            match fold(&mut *self.engine, self.delete, state.row(old, commands), command, &self.counters) {
                Folded::Keep => {}
                Folded::Accept => state = State::Command(index),
                Folded::Replace(row) => (state, renewed) = (State::Owned(row), true),
                Folded::Remove => state = State::Absent,
                Folded::Ignored => {
                    add(&self.counters.ignored_rows, 1);
                    renewed = false;
                }
                Folded::Rejected(reason) => {
                    self.rejected.push((command.clone(), reason));
                    renewed = false;
                }
            }
            if let Some(aging) = &self.aging {
                if renewed && let Some(row) = state.row(old, commands) {
                    time = renew(aging, self.engine.visible(row), command, &self.counters);
                }
                if time.is_none() {
                    state = State::Absent;
                }
            }
        }
        if over(self.aging.as_ref(), time, Aging::now) {
            (state, time) = (State::Absent, None);
        }
        if let State::Absent = state {
            time = None;
        }
        let state = match state {
            State::Stored if time == stored.and_then(|(_, time)| time) => return,
            State::Stored => old.map(Row::from_bytes),
            State::Absent => None,
            State::Command(index) => Some(take(&mut commands[index].row)),
            State::Owned(row) => Some(row),
        };
        self.write(slot, group, state, time, emit);
    }
    /// Puts the new state of a key in the place of the old one and emits what that changes in the table.
    fn write(
        &mut self,
        slot: Option<Slot>,
        group: &Group<'_>,
        state: Option<Row>,
        time: Option<i64>,
        emit: &mut impl FnMut(Row, Diff),
    ) {
        let stored = slot.map(|slot| self.state_at(slot));
        let old = stored.and_then(|(state, _)| self.engine.visible(state));
        let old_time = stored.and_then(|(_, time)| time);
        let new = state.as_ref().and_then(|state| self.engine.visible(state));
        let changed = old != new;
        if changed && let Some(old) = old {
            emit(Row::from_bytes(old), -1);
        }
        match (&state, time) {
            (Some(state), None) => self.store.put(slot, group.hash, group.key, state),
            (Some(state), Some(time)) => {
                let mut stamped = state.to_vec();
                push_time(&mut stamped, time);
                self.store.put(slot, group.hash, group.key, &stamped);
            }
            (None, _) => {
                self.store.remove(group.hash, group.key);
            }
        }
        if let Some(aging) = self.aging.as_ref().filter(|_| old_time != time) {
            for (time, diff) in [(old_time, -1), (time, 1)] {
                if let Some(time) = time {
                    self.leaving.add(aging.end_of(time), Row::from_bytes(group.key), diff);
                }
            }
        }
        // The visible row is the first part of the state, usually all of it.
        let len = new.filter(|_| changed).map(<[u8]>::len);
        if let (Some(state), Some(len)) = (state, len) {
            emit(if state.len() == len { state } else { Row::from_bytes(&state[..len]) }, 1);
        }
    }
    /// Counts a source row of the statement `merged`, which was merged into this key before.
    fn count_merged_again(&self, merged: &mut Option<u32>, command: &Command) {
        if merged.replace(command.position.source) == Some(command.position.source) {
            add(&self.counters.merged_again, 1);
        }
    }
    fn count_mixed_partitions(&self, commands: &[Command], group: &Group<'_>) {
        let partition = |member: &(u64, u32)| {
            let position = commands[member.1 as usize].position;
            (position.source, position.partition)
        };
        let first = partition(&group.members[0]);
        if group.members[1..].iter().any(|member| partition(member) != first) {
            add(&self.counters.mixed_partitions, 1);
        }
    }
}

/// A stored state, and its time where the table has a retention.
fn split<'a>(aging: Option<&Aging>, stored: &'a [u8]) -> (&'a [u8], Option<i64>) {
    match aging {
        None => (stored, None),
        Some(_) => {
            let (state, time) = split_time(stored);
            (state, Some(time))
        }
    }
}
/// The time of the version that a command made; None where it is too old already, which is counted.
fn renew(aging: &Aging, row: Option<&[u8]>, command: &Command, counters: &MergeCounters) -> Option<i64> {
    let time = aging.time_of(row, command);
    if aging.is_over(time, aging.arrival(command)) {
        counters.count_expired();
        return None;
    }
    Some(time)
}
/// Whether a row of this time is too old at an instant.
fn over(aging: Option<&Aging>, time: Option<i64>, instant: impl FnOnce(&Aging) -> i64) -> bool {
    match (aging, time) {
        (Some(aging), Some(time)) => aging.is_over(time, instant(aging)),
        _ => false,
    }
}

/// Folds one command, after the table's rule on deletes.
fn fold(
    engine: &mut dyn MergeEngine,
    delete: DeleteBehavior,
    current: Option<&[u8]>,
    command: &Command,
    counters: &MergeCounters,
) -> Folded {
    let deletes = match command.kind {
        CommandKind::Upsert => false,
        CommandKind::Delete => true,
        CommandKind::Retract => !engine.subtracts(),
        CommandKind::Merge => false,
    };
    match delete {
        DeleteBehavior::Ignore if deletes => {
            add(&counters.ignored_deletes, 1);
            Folded::Keep
        }
        DeleteBehavior::Disable if deletes => Folded::Rejected("the table does not allow deletes"),
        _ => engine.fold(current, command),
    }
}
