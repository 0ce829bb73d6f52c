//! Reads an arrangement by key and value.
//!
//! Differential's own `CursorList` (0.25.1) panics in `seek_val` once one of its batches has run out of keys, and it
//! compares the keys of all batches at every step. This reader looks a key up in each batch once, then walks the values
//! of that key in order, in either direction. "As of t" is always a filter on times, never a choice of batches.

use differential_dataflow::trace::TraceReader;
use differential_dataflow::trace::implementations::BatchContainer;
use timely::progress::Antichain;

use crate::arrange::{Batch, Trace};
use crate::{Diff, Time};

/// All batches of a trace, as they are now.
pub fn batches_of(trace: &mut Trace) -> Vec<Batch> {
    let mut batches = Vec::new();
    trace.map_batches(|batch| batches.push(batch.clone()));
    batches
}

/// Gives up the right to ask for batch boundaries, so that this handle never holds merging back. For operators that read
/// whole traces and filter on times.
pub fn never_cut(trace: &mut Trace) {
    trace.set_physical_compaction(Antichain::new().borrow());
}

/// Reads keys in ascending order and the values of the current key in any order.
pub struct TraceCursor<'a> {
    batches: &'a [Batch],
    /// Per batch, the position of the first key not before the current one.
    at: Vec<usize>,
    hits: Vec<Hit>,
    /// The hit that holds the current value; `usize::MAX` past the end.
    least: usize,
}
/// A batch that has the current key: its value range and the position in it.
struct Hit {
    batch: usize,
    lower: usize,
    upper: usize,
    current: usize,
}

impl<'a> TraceCursor<'a> {
    /// A cursor before the first key.
    pub fn new(batches: &'a [Batch]) -> Self {
        TraceCursor { at: vec![0; batches.len()], batches, hits: Vec::new(), least: usize::MAX }
    }
    /// Goes to `key`, which must not be smaller than the key of the last call; false where no batch has it.
    pub fn seek_key(&mut self, key: &[u8]) -> bool {
        self.hits.clear();
        for (index, at) in self.at.iter_mut().enumerate() {
            let storage = &self.batches[index].storage;
            *at += storage.keys.advance(*at, storage.keys.len(), |x| x < key);
            if *at < storage.keys.len() && storage.keys.index(*at) == key {
                let (lower, upper) = storage.vals.bounds(*at);
                self.hits.push(Hit { batch: index, lower, upper, current: lower });
            }
        }
        self.find_least();
        !self.hits.is_empty()
    }
    /// Goes to any key, forward or backward; false where no batch has it.
    pub fn seek_any_key(&mut self, key: &[u8]) -> bool {
        self.at.iter_mut().for_each(|at| *at = 0);
        self.seek_key(key)
    }
    /// Moves to the next key in order and returns it. The first call after `new` returns the first key.
    pub fn next_key(&mut self) -> Option<&'a [u8]> {
        for hit in &self.hits {
            self.at[hit.batch] += 1;
        }
        self.hits.clear();
        let mut key: Option<&'a [u8]> = None;
        for (index, at) in self.at.iter().enumerate() {
            let keys = &self.batches[index].storage.keys;
            if *at < keys.len() {
                let candidate = keys.index(*at);
                key = Some(key.map_or(candidate, |k| k.min(candidate)));
            }
        }
        self.seek_key(key?);
        key
    }
    fn find_least(&mut self) {
        self.least = usize::MAX;
        let mut least: &[u8] = &[];
        for (index, hit) in self.hits.iter().enumerate() {
            if hit.current < hit.upper {
                let value = self.batches[hit.batch].storage.vals.get_abs(hit.current);
                if self.least == usize::MAX || value < least {
                    self.least = index;
                    least = value;
                }
            }
        }
    }
    /// Goes to the first value of the current key that is not less than `value`, forward or backward.
    pub fn seek_value(&mut self, value: &[u8]) {
        self.seek_past(|candidate| candidate < value);
    }
    /// Goes to the first value of the current key for which `passed` is false, forward or backward; `passed` must hold for
    /// the smaller values and for no other.
    pub fn seek_past(&mut self, passed: impl Fn(&[u8]) -> bool) {
        for hit in &mut self.hits {
            let values = &self.batches[hit.batch].storage.vals;
            let (mut low, mut high) = (hit.lower, hit.upper);
            while low < high {
                let middle = (low + high) / 2;
                if passed(values.get_abs(middle)) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            hit.current = low;
        }
        self.find_least();
    }
    /// Goes back to the first value of the current key.
    pub fn rewind_values(&mut self) {
        for hit in &mut self.hits {
            hit.current = hit.lower;
        }
        self.find_least();
    }
    /// The current value, None past the last.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        let hit = self.hits.get(self.least)?;
        Some(self.batches[hit.batch].storage.vals.get_abs(hit.current))
    }
    /// The largest value before the current position, None at the first.
    #[inline]
    pub fn peek_previous(&self) -> Option<&'a [u8]> {
        let mut best: Option<&'a [u8]> = None;
        for hit in &self.hits {
            if hit.current > hit.lower {
                let value = self.batches[hit.batch].storage.vals.get_abs(hit.current - 1);
                best = Some(best.map_or(value, |b| b.max(value)));
            }
        }
        best
    }
    /// Steps back to the largest value before the current position and returns it; None (and no move) at the first.
    pub fn previous_value(&mut self) -> Option<&'a [u8]> {
        let best = self.peek_previous()?;
        self.take_previous(|_, _| {});
        Some(best)
    }
    /// Steps back to the largest value before the current position and calls `each` for all its (time, diff).
    #[inline]
    pub fn take_previous(&mut self, mut each: impl FnMut(Time, Diff)) {
        let Some(value) = self.peek_previous() else { return };
        for hit in &mut self.hits {
            let storage = &self.batches[hit.batch].storage;
            if hit.current > hit.lower && storage.vals.get_abs(hit.current - 1) == value {
                hit.current -= 1;
                let (lower, upper) = storage.upds.bounds(hit.current);
                for index in lower..upper {
                    each(storage.upds.times[index], storage.upds.diffs[index]);
                }
            }
        }
        self.find_least();
    }
    /// Calls `each` for all (time, diff) of the current value and steps to the next value.
    #[inline]
    pub fn take_value(&mut self, mut each: impl FnMut(Time, Diff)) {
        let Some(value) = self.value() else { return };
        for hit in &mut self.hits {
            let storage = &self.batches[hit.batch].storage;
            if hit.current < hit.upper && storage.vals.get_abs(hit.current) == value {
                let (lower, upper) = storage.upds.bounds(hit.current);
                for index in lower..upper {
                    each(storage.upds.times[index], storage.upds.diffs[index]);
                }
                hit.current += 1;
            }
        }
        self.find_least();
    }
    /// Steps to the next value and returns how often the current one is there as of `time` (inclusive).
    #[inline]
    pub fn count_as_of(&mut self, time: Time) -> Diff {
        let mut count = 0;
        self.take_value(|t, diff| {
            if t <= time {
                count += diff;
            }
        });
        count
    }
    /// Steps to the next value and returns how often the current one is there by the updates at times before `time`.
    #[inline]
    pub fn count_before(&mut self, time: Time) -> Diff {
        let mut count = 0;
        self.take_value(|t, diff| {
            if t < time {
                count += diff;
            }
        });
        count
    }
}

/// Calls `each(key, value, time, diff)` for every update in a batch, in order.
pub fn for_each_update<'a>(batch: &'a Batch, mut each: impl FnMut(&'a [u8], &'a [u8], Time, Diff)) {
    let storage = &batch.storage;
    for key in 0..storage.keys.len() {
        let (lower, upper) = storage.vals.bounds(key);
        for value in lower..upper {
            let (from, to) = storage.upds.bounds(value);
            for index in from..to {
                each(
                    storage.keys.index(key),
                    storage.vals.get_abs(value),
                    storage.upds.times[index],
                    storage.upds.diffs[index],
                );
            }
        }
    }
}
