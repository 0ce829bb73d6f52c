//! Letters: the rows of a dead-letter table, which leave when they are old, and the oldest when they are too many.
//!
//! **Definition.** A letter's time is its last column; NULL there stands for the clock at the tick at which it came, and is
//! replaced by it. At tick t the output holds of the letters that came those with `now(t) - time <= span`, and of these the
//! newest, by (time, row), as long as their bytes together are at most `bytes_max`. now(t) is the largest value of the clock at
//! ticks up to t. A letter's bytes are those of its packed row.
//!
//! **State.** The letters that are in the output, on one worker, by time: at most `bytes_max` beside what one tick brings.
//!
//! **On retraction.** A letter that is taken back goes, and makes room. One that has left already cannot be taken back: that does
//! nothing.
//!
//! **On ties, late rows.** Of equal letters each counts. One that is too old when it comes never enters. One whose time is not
//! after 1970 came before a clock that follows records had begun: it does not age. What leaves is counted, by the reason.
//!
//! **Example.** 7 days and 1 GiB: a letter of 2026-06-01 00:00 is there until 2026-06-08 00:00, or until 1 GiB of newer ones is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator;

use crate::pending::Pending;
use deltaworks_dataflow::row::{hash_bytes, is_null_field, nth_field};
use deltaworks_dataflow::{Collection, DataType, Datum, Diff, Row, Time};

/// How long a dead-letter table keeps its letters, and what became of them.
#[derive(Clone, Debug)]
pub struct Letters {
    /// The age that a letter may reach, in microseconds.
    pub span: i64,
    /// The bytes that all of them may have.
    pub bytes_max: u64,
    /// What left, on all workers.
    pub counts: Arc<LetterCounts>,
}
impl Default for Letters {
    /// 7 days and 1 GiB.
    fn default() -> Self {
        Letters { span: 7 * 86_400_000_000, bytes_max: 1 << 30, counts: Arc::default() }
    }
}

/// How many letters left a dead-letter table by themselves, and how many its own table made.
#[derive(Debug, Default)]
pub struct LetterCounts {
    /// For their age.
    pub aged: AtomicU64,
    /// Because there were too many bytes.
    pub crowded_out: AtomicU64,
    /// Rows that the table itself rejected.
    pub rejected: AtomicU64,
}

/// Adds to a counter of letters.
pub fn count(counter: &AtomicU64, times: u64) {
    counter.fetch_add(times, Ordering::Relaxed);
}

/// A clock value or an update of a letter.
enum Event {
    Clock(i64),
    Update(Row, Diff),
}

/// Keeps letters of `arity` columns. Every worker must receive the whole clock, in microseconds.
pub fn letters<'s>(
    input: Collection<'s>,
    clock: StreamVec<'s, Time, i64>,
    limits: Letters,
    arity: usize,
    name: &str,
) -> Collection<'s> {
    // Another worker for each table.
    let worker = hash_bytes(name.as_bytes());
    let together = Exchange::new(move |_: &(Row, Time, Diff)| worker);
    input
        .inner
        .binary_frontier(clock, together, Pipeline, name, move |_, _| {
            let mut waiting: Pending<Event> = Pending::new();
            let mut held = Held { limits, arity, now: i64::MIN, by_time: BTreeMap::new(), bytes: 0 };
            move |(input, input_frontier), (clock, clock_frontier), output| {
                clock.for_each(|capability, values| {
                    waiting.at(*capability.time(), &capability).extend(values.drain(..).map(Event::Clock));
                });
                input.for_each(|capability, updates| {
                    for (row, time, diff) in updates.drain(..) {
                        waiting.at(time, &capability).push(Event::Update(row, diff));
                    }
                });
                let complete = |time: Time| !input_frontier.less_equal(&time) && !clock_frontier.less_equal(&time);
                while waiting.first_time().is_some_and(complete) {
                    if let Some(([capability], events)) = waiting.pop_first() {
                        let time = *capability.time();
                        let changes = held.tick(events).into_iter().map(|(row, diff)| (row, time, diff));
                        output.session(&capability).give_iterator(changes);
                    }
                }
            }
        })
        .as_collection()
}

/// The letters that are there.
struct Held {
    limits: Letters,
    arity: usize,
    now: i64,
    by_time: BTreeMap<(i64, Row), Diff>,
    bytes: u64,
}

impl Held {
    /// Applies a tick and returns how the letters change.
    fn tick(&mut self, events: Vec<Event>) -> Vec<(Row, Diff)> {
        let mut updates = Vec::new();
        for event in events {
            match event {
                Event::Clock(value) => self.now = self.now.max(value),
                Event::Update(row, diff) => updates.push((row, diff)),
            }
        }
        updates.iter_mut().for_each(|(row, _)| self.stamp(row));
        consolidate(&mut updates);
        let mut changes = Vec::new();
        for (row, diff) in updates {
            self.update(row, diff, &mut changes);
        }
        self.expire(&mut changes);
        self.make_room(&mut changes);
        // What came and left in one tick was never there.
        consolidate(&mut changes);
        changes
    }
    /// Notes when a letter came that does not say so.
    fn stamp(&self, row: &mut Row) {
        let time = nth_field(row, self.arity - 1);
        if is_null_field(time) {
            let mut stamped = row[..row.len() - time.len()].to_vec();
            Datum::Int(self.now.max(0)).encode(&mut stamped);
            *row = Row::from_bytes(&stamped);
        }
    }
    fn time_of(&self, row: &[u8]) -> i64 {
        match Datum::decode(&mut nth_field(row, self.arity - 1), &DataType::TimestampLtz) {
            Datum::Int(time) => time,
            _ => self.now,
        }
    }
    fn update(&mut self, row: Row, diff: Diff, changes: &mut Vec<(Row, Diff)>) {
        let key = (self.time_of(&row), row);
        let there = self.by_time.get(&key).copied().unwrap_or(0);
        let diff = diff.max(-there);
        if diff == 0 {
            return;
        }
        self.bytes = self.bytes.saturating_add_signed(diff * key.1.len() as i64);
        changes.push((key.1.clone(), diff));
        if there + diff > 0 {
            self.by_time.insert(key, there + diff);
        } else {
            self.by_time.remove(&key);
        }
    }
    fn expire(&mut self, changes: &mut Vec<(Row, Diff)>) {
        let kept_from = (self.now.saturating_sub(self.limits.span), Row::default());
        let first = (1, Row::default());
        if kept_from <= first {
            return;
        }
        for ((_, row), times) in self.by_time.extract_if(first..kept_from, |_, _| true) {
            self.bytes -= row.len() as u64 * times as u64;
            count(&self.limits.counts.aged, times as u64);
            changes.push((row, -times));
        }
    }
    fn make_room(&mut self, changes: &mut Vec<(Row, Diff)>) {
        while self.bytes > self.limits.bytes_max {
            let Some(mut oldest) = self.by_time.first_entry() else { return };
            let row = oldest.key().1.clone();
            let over = (self.bytes - self.limits.bytes_max).div_ceil(row.len() as u64);
            let leaving = (*oldest.get()).min(over as Diff);
            *oldest.get_mut() -= leaving;
            if *oldest.get() == 0 {
                oldest.remove();
            }
            self.bytes -= row.len() as u64 * leaving as u64;
            count(&self.limits.counts.crowded_out, leaving as u64);
            changes.push((row, -leaving));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Multiset, Pair, Random, Script, Shape, check, fields, flat, instants, ints};

    const SPAN: i64 = 12;

    /// Input 0 holds letters (id, time), one per row, that come at the time of the clock; input 1 the clock.
    fn row(random: &mut Random, input: usize, time: Time) -> Pair {
        if input == 0 {
            (ints(&[Some(random.below(200) as i64)]), ints(&[Some(time as i64 + 1)]))
        } else {
            (ints(&[Some(time as i64 + 1)]), ints(&[]))
        }
    }
    fn limits(bytes_max: u64) -> Letters {
        Letters { span: SPAN, bytes_max, counts: Arc::default() }
    }
    /// Of everything that came and was not taken back the newest that are young enough and fit. What was crowded out once does
    /// not come back, so nothing is taken back here where bytes are short.
    fn kept(held: &[Multiset<Pair>], bytes_max: u64) -> Multiset<Row> {
        let now = held[1].keys().map(|(value, _)| fields(value)[0].unwrap()).max().unwrap_or(i64::MIN);
        let letters = held[0]
            .iter()
            .map(|((id, time), count)| (fields(time)[0].unwrap(), Row::from_bytes(&[&id[..], &time[..]].concat()), *count));
        let mut young: Vec<_> = letters.filter(|(time, _, _)| now.saturating_sub(*time) <= SPAN).collect();
        young.sort();
        let (mut bytes, mut kept) = (0, Multiset::new());
        'newest: for (_, row, count) in young.into_iter().rev() {
            for _ in 0..count {
                bytes += row.len() as u64;
                if bytes > bytes_max {
                    break 'newest;
                }
                *kept.entry(row.clone()).or_default() += 1;
            }
        }
        kept
    }
    fn agrees(seed: u64, bytes_max: u64, takes_back: bool) {
        let mut script =
            Script::random(seed, &Shape { inputs: 2, ticks: 40, row: &row, expired: &|_, _| false, negative: false });
        script.changes.retain(|change| change.diff > 0 || takes_back && change.input == 0);
        let workers = [1, 1, 2, 4][seed as usize % 4];
        check(
            workers,
            seed,
            &script,
            move |mut inputs| {
                let clock = instants(inputs.remove(1));
                letters(flat(inputs.remove(0)), clock, limits(bytes_max), 2, "Letters")
            },
            |held| kept(held, bytes_max),
        );
    }
    #[test]
    fn agrees_with_looking_at_everything_that_came() {
        for seed in 0..16 {
            agrees(seed, 60, false);
            agrees(seed, u64::MAX, true);
        }
    }

    fn letter(id: i64, time: Option<i64>) -> Row {
        ints(&[Some(id), time])
    }
    fn held(bytes_max: u64) -> Held {
        Held { limits: limits(bytes_max), arity: 2, now: i64::MIN, by_time: BTreeMap::new(), bytes: 0 }
    }
    #[test]
    fn what_left_cannot_be_taken_back_and_is_counted() {
        let size = letter(7, Some(5)).len() as u64;
        let mut held = held(2 * size);
        let come = |id, time| Event::Update(letter(id, Some(time)), 1);
        assert_eq!(held.tick(vec![Event::Clock(6), come(7, 5), come(7, 5)]), [(letter(7, Some(5)), 2)]);
        // By hand: one of the two equal ones makes room, then it is taken back.
        let changes = held.tick(vec![come(8, 6)]);
        assert_eq!(changes, [(letter(7, Some(5)), -1), (letter(8, Some(6)), 1)]);
        assert_eq!(held.tick(vec![Event::Update(letter(7, Some(5)), -2)]), [(letter(7, Some(5)), -1)]);
        assert_eq!(held.tick(vec![Event::Update(letter(7, Some(5)), -1)]), []);
        assert_eq!(held.bytes, size);
        // 6 + 12 is not too old, 6 + 13 is.
        assert_eq!(held.tick(vec![Event::Clock(18)]), []);
        assert_eq!(held.tick(vec![Event::Clock(19), come(9, 1)]), [(letter(8, Some(6)), -1)]);
        assert_eq!((held.bytes, held.by_time.len()), (0, 0));
        let counts = &held.limits.counts;
        assert_eq!((counts.aged.load(Ordering::Relaxed), counts.crowded_out.load(Ordering::Relaxed)), (2, 1));
    }
    #[test]
    fn what_came_before_the_clock_began_does_not_age() {
        let mut held = held(u64::MAX);
        held.tick(vec![Event::Clock(0), Event::Update(letter(1, Some(0)), 1), Event::Update(letter(2, None), 1)]);
        assert_eq!(held.tick(vec![Event::Clock(1_000)]), []);
        assert_eq!(held.by_time.len(), 2);
    }
    #[test]
    fn a_letter_that_does_not_say_when_it_came_came_now() {
        let mut held = held(u64::MAX);
        held.tick(vec![Event::Clock(100)]);
        assert_eq!(held.tick(vec![Event::Update(letter(1, None), 1)]), [(letter(1, Some(100)), 1)]);
        assert_eq!(held.tick(vec![Event::Update(letter(1, Some(100)), -1)]), [(letter(1, Some(100)), -1)]);
    }
}
