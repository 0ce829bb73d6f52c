//! The fold loop: one tick's commands into the rows of a keyed table.
//!
//! The commands are brought into the order of their positions, grouped by the hash of their keys, and each key's are folded
//! against its row in the store. A command whose row is accepted as it is costs no allocation: the row moves to the output.

use std::mem::take;
use std::rc::Rc;

use super::{DeleteBehavior, Folded, MergeCounters, MergeEngine, MergeSpec, Merges, Rejected, add, key_hash, merges};
use crate::keyed_store::{KeyColumns, KeyedStore, Slot};
use deltaworks_dataflow::{Command, CommandKind, Diff, Row};

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
    /// The row in this state, where `stored` is what the store holds.
    fn row<'a>(&'a self, stored: Option<&'a [u8]>, commands: &'a [Command]) -> Option<&'a [u8]> {
        match self {
            State::Absent => None,
            State::Stored => stored,
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
        }
    }
    /// The same table, with statements to ask what a merge makes of a row.
    pub(super) fn with_merges(self, merges: Rc<Merges>) -> Self {
        Table { merges, ..self }
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
        let old = slot.map(|slot| self.store.at(slot));
        let mut state = if old.is_some() { State::Stored } else { State::Absent };
        let mut merged = None;
        for (_, index) in group.members {
            let index = *index as usize;
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
            let current = state.row(old, commands);
            match fold(&mut *self.engine, self.delete, current, &commands[index], &self.counters) {
                Folded::Keep => {}
                Folded::Accept => state = State::Command(index),
                Folded::Replace(row) => state = State::Owned(row),
                Folded::Remove => state = State::Absent,
                Folded::Ignored => add(&self.counters.ignored_rows, 1),
                Folded::Rejected(reason) => self.rejected.push((commands[index].clone(), reason)),
            }
        }
        match state {
            State::Stored => {}
            State::Absent => self.write(slot, group, None, emit),
            State::Command(index) => self.write(slot, group, Some(take(&mut commands[index].row)), emit),
            State::Owned(row) => self.write(slot, group, Some(row), emit),
        }
    }
    /// Puts the new state of a key in the place of the old one and emits what that changes in the table.
    fn write(&mut self, slot: Option<Slot>, group: &Group<'_>, state: Option<Row>, emit: &mut impl FnMut(Row, Diff)) {
        let old = slot.and_then(|slot| self.engine.visible(self.store.at(slot)));
        let new = state.as_ref().and_then(|state| self.engine.visible(state));
        let changed = old != new;
        if changed && let Some(old) = old {
            emit(Row::from_bytes(old), -1);
        }
        match &state {
            Some(state) => self.store.put(slot, group.hash, group.key, state),
            None => {
                self.store.remove(group.hash, group.key);
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
