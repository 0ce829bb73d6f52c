//! Changelogs: the only place where diffs become row kinds.
//!
//! A sink receives, per tick and key, one consolidated change: `+I`, `-U` then `+U`, or `-D`.

use crate::row::{Row, project};
use crate::{Diff, Time};

/// What a changelog entry does to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKind {
    /// `+I`: the row appears.
    Insert,
    /// `-U`: the old image of a row that changes.
    UpdateBefore,
    /// `+U`: the new image of a row that changes.
    UpdateAfter,
    /// `-D`: the row disappears.
    Delete,
}

impl RowKind {
    /// The two characters that changelogs print.
    pub fn symbol(self) -> &'static str {
        match self {
            RowKind::Insert => "+I",
            RowKind::UpdateBefore => "-U",
            RowKind::UpdateAfter => "+U",
            RowKind::Delete => "-D",
        }
    }
    /// +1 for kinds that add their row, -1 for kinds that take it away.
    pub fn diff(self) -> Diff {
        match self {
            RowKind::Insert | RowKind::UpdateAfter => 1,
            RowKind::UpdateBefore | RowKind::Delete => -1,
        }
    }
}

/// One tick's changes of one view, as row kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The tick.
    pub tick: Time,
    /// The changes, by key in encoded order; an update is two entries, old image first.
    pub entries: Vec<(RowKind, Row)>,
    /// The keys of which several rows were added, and how many of those were left out; see [`Changelog`].
    pub conflicts: Vec<(Row, Diff)>,
}

/// Turns the consolidated updates of a tick into row kinds.
///
/// `key` names the columns that identify a row for the sink; empty means that rows have no key, and every update is `+I` or
/// `-D`, as often as its diff says. A view that is written by key has one row of each; see `one_per_key` of the planner. Only where
/// rows are never taken back may a tick add several rows of one key: the first in encoded-row order is sent and the others are
/// counted in [`Changes::conflicts`].
#[derive(Clone, Debug)]
pub struct Changelog {
    key: Vec<usize>,
}

impl Changelog {
    /// A changelog of rows identified by the columns `key`.
    pub fn new(key: Vec<usize>) -> Self {
        Changelog { key }
    }
    /// The changes of `tick`: `updates` are all its updates, in any order, consolidated or not.
    pub fn changes(&self, tick: Time, mut updates: Vec<(Row, Diff)>) -> Changes {
        differential_dataflow::consolidation::consolidate(&mut updates);
        if self.key.is_empty() {
            return keyless(tick, updates);
        }
        let mut keyed: Vec<(Row, Row, Diff)> = Vec::with_capacity(updates.len());
        let mut scratch = Vec::new();
        for (row, diff) in updates {
            scratch.clear();
            project(&row, &self.key, &mut scratch);
            keyed.push((Row::from_bytes(&scratch), row, diff));
        }
        // Behind the key columns, where they lead, the rows are in this order already.
        if !self.key.iter().enumerate().all(|(place, column)| place == *column) {
            keyed.sort();
        }
        let mut changes = Changes { tick, ..Changes::default() };
        let mut rest = keyed.into_iter().peekable();
        while let Some((key, row, diff)) = rest.next() {
            let mut group = Group::default();
            group.add(row, diff);
            while let Some((_, row, diff)) = rest.next_if(|next| next.0 == key) {
                group.add(row, diff);
            }
            if group.more > 0 {
                changes.conflicts.push((key, group.more));
            }
            changes.push(group);
        }
        changes
    }
}

/// The updates of one key, in the order of their rows.
#[derive(Default)]
struct Group {
    old: Option<Row>,
    new: Option<Row>,
    /// Rows that were added beside the first.
    more: Diff,
}
impl Group {
    fn add(&mut self, row: Row, diff: Diff) {
        if diff < 0 {
            self.old.get_or_insert(row);
        } else if self.new.is_none() {
            self.new = Some(row);
            self.more = diff - 1;
        } else {
            self.more += diff;
        }
    }
}

impl Changes {
    fn push(&mut self, group: Group) {
        match (group.old, group.new) {
            (Some(old), Some(new)) => {
                self.entries.push((RowKind::UpdateBefore, old));
                self.entries.push((RowKind::UpdateAfter, new));
            }
            (Some(old), None) => self.entries.push((RowKind::Delete, old)),
            (None, Some(new)) => self.entries.push((RowKind::Insert, new)),
            (None, None) => {}
        }
    }
}
fn keyless(tick: Time, updates: Vec<(Row, Diff)>) -> Changes {
    let mut entries = Vec::with_capacity(updates.len());
    for (row, diff) in updates {
        let kind = if diff > 0 { RowKind::Insert } else { RowKind::Delete };
        for _ in 0..diff.unsigned_abs() {
            entries.push((kind, row.clone()));
        }
    }
    Changes { tick, entries, conflicts: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Datum;

    fn row(key: i64, value: i64) -> Row {
        Row::pack([Datum::Int(key), Datum::Int(value)])
    }

    #[test]
    fn one_change_per_key() {
        let changelog = Changelog::new(vec![0]);
        let updates = vec![
            (row(1, 10), 1),
            (row(2, 20), -1),
            (row(2, 21), 1),
            (row(3, 30), -1),
            (row(4, 40), 1),
            (row(4, 40), -1),
            (row(5, 51), 1),
            (row(5, 50), 2),
        ];
        let changes = changelog.changes(7, updates);
        let expected = vec![
            (RowKind::Insert, row(1, 10)),
            (RowKind::UpdateBefore, row(2, 20)),
            (RowKind::UpdateAfter, row(2, 21)),
            (RowKind::Delete, row(3, 30)),
            (RowKind::Insert, row(5, 50)),
        ];
        assert_eq!(changes.entries, expected);
        assert_eq!(changes.conflicts, vec![(Row::pack([Datum::Int(5)]), 2)]);
    }

    #[test]
    fn without_a_key_rows_come_as_often_as_their_diff() {
        let changes = Changelog::new(vec![]).changes(1, vec![(row(1, 1), 2), (row(0, 0), -1)]);
        let expected = vec![(RowKind::Delete, row(0, 0)), (RowKind::Insert, row(1, 1)), (RowKind::Insert, row(1, 1))];
        assert_eq!(changes.entries, expected);
    }
}
