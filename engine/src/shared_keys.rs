//! Keys that several rows of a sink share.
//!
//! What one INSERT brings has one row per key: the planner sees to that. Several INSERTs into one sink may bring rows of one
//! key, now or when the next of them is made; [`Brought`] holds what they bring and passes on the first row of each key, in
//! encoded-row order. It runs beside the coordinator, since the INSERTs may be parts of different dataflows.

use std::collections::BTreeMap;

use deltaworks_dataflow::row::project;
use deltaworks_dataflow::{Diff, Row};

/// What several INSERTs bring to one sink, by its key.
#[derive(Debug)]
pub(crate) struct Brought {
    key: Vec<usize>,
    rows: BTreeMap<Row, BTreeMap<Row, Diff>>,
}

impl Brought {
    /// Nothing yet, for a sink with the key columns `key`.
    pub(crate) fn new(key: &[usize]) -> Brought {
        Brought { key: key.to_vec(), rows: BTreeMap::new() }
    }
    /// The changes of what is sent when a tick changes what is brought. `left_out` is told, by key, how many rows more are left
    /// out.
    pub(crate) fn sent(&mut self, updates: Vec<(Row, Diff)>, left_out: &mut LeftOut) -> Vec<(Row, Diff)> {
        let mut by_key: BTreeMap<Row, Vec<(Row, Diff)>> = BTreeMap::new();
        let mut bytes = Vec::new();
        for (row, diff) in updates {
            bytes.clear();
            project(&row, &self.key, &mut bytes);
            by_key.entry(Row::from_bytes(&bytes)).or_default().push((row, diff));
        }
        let mut changes = Vec::new();
        for (key, updates) in by_key {
            let rows = self.rows.entry(key.clone()).or_default();
            let (old, others) = (first(rows), others(rows));
            for (row, diff) in updates {
                *rows.entry(row).or_default() += diff;
            }
            rows.retain(|_, count| *count != 0);
            let new = first(rows);
            left_out.add(&key, self::others(rows) - others);
            if rows.is_empty() {
                self.rows.remove(&key);
            }
            if old != new {
                changes.extend(old.map(|row| (row, -1)).into_iter().chain(new.map(|row| (row, 1))));
            }
        }
        changes
    }
}
fn first(rows: &BTreeMap<Row, Diff>) -> Option<Row> {
    rows.keys().next().cloned()
}
/// How many rows there are beside the first.
fn others(rows: &BTreeMap<Row, Diff>) -> Diff {
    rows.values().sum::<Diff>() - Diff::from(!rows.is_empty())
}

/// The rows of a sink that share its key with the one that is sent.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    by_key: BTreeMap<Row, Diff>,
    /// Those that a sink of rows alone has left out, which nothing brings back, and the first key of them.
    for_good: Diff,
    first_for_good: Option<Row>,
}

impl LeftOut {
    /// Counts rows that are left out from now on, or no longer.
    pub(crate) fn add(&mut self, key: &Row, rows: Diff) {
        let count = self.by_key.entry(key.clone()).or_default();
        *count += rows;
        if *count == 0 {
            self.by_key.remove(key);
        }
    }
    /// Counts rows that are left out for good.
    pub(crate) fn add_for_good(&mut self, key: Row, rows: Diff) {
        self.for_good += rows;
        self.first_for_good.get_or_insert(key);
    }
    /// How many there are.
    pub(crate) fn count(&self) -> Diff {
        self.by_key.values().sum::<Diff>() + self.for_good
    }
    /// The first key of which there are some.
    pub(crate) fn first_key(&self) -> Option<&Row> {
        self.by_key.keys().next().or(self.first_for_good.as_ref())
    }
}
