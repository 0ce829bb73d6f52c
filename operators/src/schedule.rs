//! A schedule: data by the instant at which it is due.
//!
//! Nothing is scanned: a clock value takes out what is due and looks at nothing else.

use differential_dataflow::consolidation::consolidate;
use std::collections::BTreeMap;

use deltaworks_dataflow::Diff;

/// Data by the instant at which it is due.
pub(crate) struct Schedule<D> {
    by_instant: BTreeMap<i64, Slot<D>>,
}
/// What is due at one instant, and its size when it was last consolidated.
struct Slot<D> {
    entries: Vec<(D, Diff)>,
    consolidated: usize,
}

impl<D> Default for Schedule<D> {
    fn default() -> Self {
        Schedule { by_instant: BTreeMap::new() }
    }
}
impl<D: Ord> Schedule<D> {
    /// Adds to what is due at `instant`; what nets to nothing takes no space.
    pub(crate) fn add(&mut self, instant: i64, data: D, diff: Diff) {
        let slot = self.by_instant.entry(instant).or_insert_with(|| Slot { entries: Vec::new(), consolidated: 1 });
        slot.entries.push((data, diff));
        // At each doubling, so that rows that come and go long before they are due take no space.
        if slot.entries.len() > 2 * slot.consolidated {
            consolidate(&mut slot.entries);
            slot.consolidated = slot.entries.len().max(1);
            if slot.entries.is_empty() {
                self.by_instant.remove(&instant);
            }
        }
    }
    /// Takes out everything due at `now` or before, by instant; not consolidated.
    pub(crate) fn due(&mut self, now: i64) -> Vec<(D, Diff)> {
        let mut due = Vec::new();
        while let Some(slot) = self.by_instant.first_entry().filter(|slot| *slot.key() <= now) {
            due.append(&mut slot.remove().entries);
        }
        due
    }
    /// The number of entries.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_instant.values().map(|slot| slot.entries.len()).sum()
    }
}
