//! The lookback join: every left row with the first (or last) right row in a range around its event time.
//!
//! *Definition.* Values begin with the event time, an integer field; byte order is (time, rest). For a left row `l` of key
//! `k` let `F(l)` be the first (or last) value `r` in byte order that the right side holds a positive number of times
//! under `k`, with `r.time` in `[l.time - before, l.time + after]`; or, for [`Range::Whole`], of all. The output is
//! `{ logic(k, l, F(l)) }` with the counts of `l`; without `outer`, rows that have no `F(l)` are left out. With a unique
//! right key, `Whole` is the LEFT JOIN of a dimension that reacts to both sides.
//!
//! *State.* The two shared arrangements, and the newest left time; nothing is kept of the output.
//!
//! *On retraction.* The output is linear in the left side, so its change at time t is exactly
//!
//! ```text
//! dL(t) x F(t)  +  L(t-1) x (F(t) - F(t-1))
//! ```
//!
//! - Each changed left row takes one seek in the right values, and the walk to the first one that is there.
//! - A changed right row `r` matters only to left rows that see it and whose better answer, of those before and at t, is
//!   `r`. So where there are many, those that also see the nearest `p` before `r` that is there at one of the two are left
//!   out. For the others both answers are read in one walk. Where they are the same `a`, no left row that still sees `a`
//!   can have changed: a seek leads past them. Where they differ, they hold for all left rows that still see both.
//! - A right row that is later than every left row can be in no range: its key is not even looked up. This is a bound
//!   on what is there, not an assumption about lateness.
//!
//! *On ties, nulls, late rows.* The bytes behind the time break ties. Rows without a time, or with a NULL in the key,
//! match nothing. Rows may come in any order. A row on both sides at once, counts above one, and left rows there a
//! negative number of times need no special case; a right row there a negative number of times is not there.
//!
//! *Example.* `before` 7, `after` 0, first: order at 10; events at 2, 5, 9: the answer is 5. Deleting 5 emits -(10, 5) and
//! +(10, 9); deleting 2 emits nothing; inserting 3 emits -(10, 9) and +(10, 3).

use deltaworks_dataflow::arrange::Batch;
use deltaworks_dataflow::row::{encode_wide, is_null_field};
use deltaworks_dataflow::{Arranged, DataType, Datum, Diff, Time};
use differential_dataflow::VecCollection;
use differential_dataflow::trace::implementations::BatchContainer;

use super::pair::{Change, Moment, PairLogic, Scan, begins_by, pair};

/// Which right times a left row sees: `[left - before, left + after]`, both ends included, in the units of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How far the range reaches back; negative where it begins after the left time.
    pub before: i64,
    /// How far it reaches ahead; negative where it ends before the left time.
    pub after: i64,
}

/// Which right rows of its key a left row sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Those in a window of time; values on both sides begin with it.
    Window(Window),
    /// All; values need not begin with a time.
    Whole,
}

/// Which of the right rows it sees is a left row's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The least in byte order.
    First,
    /// The greatest in byte order.
    Last,
}

/// Up to this many left rows are looked at without asking first which of them can be affected. (Tests ask nearly always.)
const FEW: usize = if cfg!(test) { 1 } else { 4 };

/// Joins every left row with the first or last right row in its range.
pub fn lookback_join<'s, D: Clone + 'static>(
    left: Arranged<'s>,
    right: Arranged<'s>,
    range: Range,
    pick: Pick,
    outer: bool,
    name: &str,
    logic: impl FnMut(&[u8], &[u8], Option<&[u8]>, Diff) -> Option<D> + 'static,
) -> VecCollection<'s, Time, D, Diff> {
    let answers = Answers { pick, bytes: Bounds::default() };
    let newest = Newest { done: None, waiting: None };
    let bytes = Bounds::default();
    pair(left, right, name, Lookback { range, outer, answers, newest, reaches: Vec::new(), bytes, logic })
}

/// The event time that the value begins with.
#[inline]
fn event_time(value: &[u8]) -> Option<i128> {
    if value.is_empty() {
        return None;
    }
    match Datum::decode(&mut &value[..], &DataType::BigInt) {
        Datum::Int(time) => Some(i128::from(time)),
        _ => None,
    }
}

/// A range of event times, both ends included. Wide, so that adding to a time cannot overflow.
#[derive(Clone, Copy)]
struct Reach {
    low: i128,
    high: i128,
}
impl Reach {
    const EVERYTHING: Reach = Reach { low: i128::MIN, high: i128::MAX };
}
impl Range {
    /// What a left row sees; None where it has no time.
    fn seen_from(self, left: &[u8]) -> Option<Reach> {
        match self {
            Range::Whole => Some(Reach::EVERYTHING),
            Range::Window(Window { before, after }) => {
                event_time(left).map(|time| Reach { low: time - i128::from(before), high: time + i128::from(after) })
            }
        }
    }
    /// The left rows that see a right row; None where it has no time.
    fn seeing(self, right: &[u8]) -> Option<Reach> {
        match self {
            Range::Whole => Some(Reach::EVERYTHING),
            Range::Window(Window { before, after }) => {
                event_time(right).map(|time| Reach { low: time - i128::from(after), high: time + i128::from(before) })
            }
        }
    }
}

/// A reach as bytes that values are compared with.
#[derive(Default)]
struct Bounds {
    low: Vec<u8>,
    high: Vec<u8>,
}
impl Bounds {
    fn set(&mut self, reach: Reach) {
        self.low.clear();
        self.high.clear();
        if reach.low != i128::MIN {
            encode_wide(&mut self.low, reach.low);
        }
        if reach.high == i128::MAX {
            self.high.push(0xFF);
        } else {
            encode_wide(&mut self.high, reach.high);
        }
    }
    /// Whether the value, which is not before the far end of a larger range, is in this one at its `pick` end.
    #[inline]
    fn begins_before(&self, value: &[u8], pick: Pick) -> bool {
        match pick {
            Pick::First => *self.low <= *value,
            Pick::Last => begins_by(value, &self.high),
        }
    }
}

/// Goes to the `pick` end of the range in the values of the scan's key.
fn enter(scan: &mut Scan<'_>, bounds: &Bounds, pick: Pick) {
    match pick {
        Pick::First => scan.cursor.seek_value(&bounds.low),
        Pick::Last => scan.cursor.seek_past(|value| begins_by(value, &bounds.high)),
    }
}
/// Takes the next value in the range, from its `pick` end on, and gives its updates to `each`.
#[inline]
fn next<'a>(scan: &mut Scan<'a>, bounds: &Bounds, pick: Pick, each: impl FnMut(Time, Diff)) -> Option<&'a [u8]> {
    match pick {
        Pick::First => {
            let value = scan.cursor.value().filter(|value| begins_by(value, &bounds.high))?;
            scan.cursor.take_value(each);
            Some(value)
        }
        Pick::Last => {
            let value = scan.cursor.peek_previous().filter(|value| **value >= *bounds.low)?;
            scan.cursor.take_previous(each);
            Some(value)
        }
    }
}
/// Takes the next value in the range, with its counts before and at the moment.
#[inline]
fn next_counts<'a>(
    scan: &mut Scan<'a>,
    bounds: &Bounds,
    pick: Pick,
    (before, upto): (Time, Time),
) -> Option<(&'a [u8], Diff, Diff)> {
    let (mut old, mut new) = (0, 0);
    let value = next(scan, bounds, pick, |time, diff| {
        old += if time < before { diff } else { 0 };
        new += if time < upto { diff } else { 0 };
    })?;
    Some((value, old, new))
}

/// Finds answers in the right side.
struct Answers {
    pick: Pick,
    bytes: Bounds,
}
type Answer<'a> = Option<&'a [u8]>;
impl Answers {
    /// The answer at the moment for a left row that sees `reach`.
    fn at<'a>(&mut self, right: &mut Scan<'a>, reach: Reach, upto: Time) -> Answer<'a> {
        self.bytes.set(reach);
        if !right.at_key() {
            return None;
        }
        enter(right, &self.bytes, self.pick);
        while let Some((value, _, count)) = next_counts(right, &self.bytes, self.pick, (0, upto)) {
            if count > 0 {
                return Some(value);
            }
        }
        None
    }
    /// The answers before and at the moment, in one walk.
    fn both<'a>(&mut self, right: &mut Scan<'a>, reach: Reach, limits: (Time, Time)) -> (Answer<'a>, Answer<'a>) {
        self.bytes.set(reach);
        let (mut old, mut new) = (None, None);
        if !right.at_key() {
            return (old, new);
        }
        enter(right, &self.bytes, self.pick);
        while let Some((value, before, upto)) = next_counts(right, &self.bytes, self.pick, limits) {
            if before > 0 {
                old = old.or(Some(value));
            }
            if upto > 0 {
                new = new.or(Some(value));
            }
            if old.is_some() && new.is_some() {
                break;
            }
        }
        (old, new)
    }
}

/// The newest left times: of the rows that are worked in, and of those that wait.
struct Newest {
    done: Option<i128>,
    waiting: Option<i128>,
}
/// The newest event time in the batches.
fn newest_time(batches: &[Batch]) -> Option<i128> {
    let mut newest: Option<&[u8]> = None;
    for batch in batches {
        let storage = &batch.storage;
        for key in 0..storage.keys.len() {
            let (lower, upper) = storage.vals.bounds(key);
            let values = (lower..upper).rev().map(|index| storage.vals.get_abs(index));
            // NULL comes after every time.
            newest = newest.max(values.into_iter().find(|value| !value.is_empty() && !is_null_field(value)));
        }
    }
    newest.and_then(event_time)
}

struct Lookback<F> {
    range: Range,
    outer: bool,
    answers: Answers,
    newest: Newest,
    /// Ranges of left rows whose answer may have changed; kept for its space.
    reaches: Vec<Reach>,
    /// Bounds of left values, or all; kept for its space.
    bytes: Bounds,
    logic: F,
}

impl<D, F: FnMut(&[u8], &[u8], Option<&[u8]>, Diff) -> Option<D>> PairLogic<D> for Lookback<F> {
    fn prepare(&mut self, left: &[Batch], several: bool) -> Option<Vec<u8>> {
        let Range::Window(window) = self.range else { return None };
        self.newest.waiting = newest_time(left);
        // Changes on the right meet the left rows of earlier times. With several times in hand, those may be among the
        // waiting ones.
        let newest = if several { self.newest.done.max(self.newest.waiting) } else { self.newest.done };
        let mut bound = Vec::new();
        match newest {
            Some(time) => encode_wide(&mut bound, time + i128::from(window.after)),
            None => bound.push(0), // no value begins by a zero byte
        }
        Some(bound)
    }
    fn finish(&mut self) {
        self.newest.done = self.newest.done.max(self.newest.waiting);
    }
    fn step(&mut self, now: &mut Moment<'_, '_>, emit: &mut impl FnMut(D, Diff)) {
        self.answer_changed_left(now, emit);
        if now.matchable && !now.right.changes.is_empty() {
            self.collect_reaches(now);
            self.revise(now, emit);
        }
    }
}

impl<F> Lookback<F> {
    fn emit<D>(&mut self, key: &[u8], left: &[u8], answer: Answer<'_>, diff: Diff, emit: &mut impl FnMut(D, Diff))
    where
        F: FnMut(&[u8], &[u8], Option<&[u8]>, Diff) -> Option<D>,
    {
        if (self.outer || answer.is_some())
            && let Some(row) = (self.logic)(key, left, answer, diff)
        {
            emit(row, diff);
        }
    }

    /// dL(t) x F(t).
    fn answer_changed_left<D>(&mut self, now: &mut Moment<'_, '_>, emit: &mut impl FnMut(D, Diff))
    where
        F: FnMut(&[u8], &[u8], Option<&[u8]>, Diff) -> Option<D>,
    {
        let pick = self.answers.pick;
        // The last answer found; it holds for the following left rows as long as they see it.
        let mut same: Answer<'_> = None;
        let changes = now.left.changes;
        for index in 0..changes.len() {
            let change = &changes[if pick == Pick::First { index } else { changes.len() - 1 - index }];
            let reach = self.range.seen_from(change.value).filter(|_| now.matchable);
            let Some(reach) = reach else {
                self.emit(now.key, change.value, None, change.diff, emit);
                continue;
            };
            self.answers.bytes.set(reach);
            if same.is_none() || !self.sees(same) {
                same = self.answers.at(now.right.scan, reach, now.upto);
            }
            self.emit(now.key, change.value, same, change.diff, emit);
        }
    }

    /// Collects the ranges of left times in which answers may change, in the order of the pick.
    fn collect_reaches(&mut self, now: &mut Moment<'_, '_>) {
        self.reaches.clear();
        if !now.left.scan.at_key() {
            return;
        }
        for change in now.right.changes {
            let reach = self.range.seeing(change.value).and_then(|reach| self.narrow(now, change, reach));
            self.reaches.extend(reach);
            if reach.is_some() && self.range == Range::Whole {
                break;
            }
        }
        match self.answers.pick {
            Pick::First => self.reaches.sort_unstable_by_key(|reach| reach.low),
            Pick::Last => self.reaches.sort_unstable_by_key(|reach| std::cmp::Reverse(reach.high)),
        }
    }

    /// The part of `reach` in which the changed right row may be, or may have been, the answer.
    fn narrow(&mut self, now: &mut Moment<'_, '_>, change: &Change<'_>, reach: Reach) -> Option<Reach> {
        self.bytes.set(reach);
        enter(now.left.scan, &self.bytes, Pick::First);
        let mut lefts = 0;
        while lefts <= FEW && next(now.left.scan, &self.bytes, Pick::First, |_, _| {}).is_some() {
            lefts += 1;
        }
        let limits = (now.before, now.upto);
        let window = match self.range {
            Range::Window(window) if lefts > FEW => window,
            _ => return (lefts > 0).then_some(reach),
        };
        self.bytes.set(Reach::EVERYTHING);
        let better = better_neighbour(now.right.scan, change.value, self.answers.pick, limits, &self.bytes)?;
        let Some(better) = better.and_then(event_time) else { return Some(reach) };
        let narrowed = match self.answers.pick {
            Pick::First => Reach { low: reach.low.max(better + i128::from(window.before) + 1), ..reach },
            Pick::Last => Reach { high: reach.high.min(better - i128::from(window.after) - 1), ..reach },
        };
        (narrowed.low <= narrowed.high).then_some(narrowed)
    }

    /// L(t-1) x (F(t) - F(t-1)), over the united reaches.
    fn revise<D>(&mut self, now: &mut Moment<'_, '_>, emit: &mut impl FnMut(D, Diff))
    where
        F: FnMut(&[u8], &[u8], Option<&[u8]>, Diff) -> Option<D>,
    {
        let mut index = 0;
        while let Some(mut reach) = self.reaches.get(index).copied() {
            index += 1;
            while let Some(other) = self.reaches.get(index).copied() {
                match self.answers.pick {
                    Pick::First if other.low <= reach.high => reach.high = reach.high.max(other.high),
                    Pick::Last if other.high >= reach.low => reach.low = reach.low.min(other.low),
                    _ => break,
                }
                index += 1;
            }
            self.revise_within(now, reach, emit);
        }
    }

    fn revise_within<D>(&mut self, now: &mut Moment<'_, '_>, mut reach: Reach, emit: &mut impl FnMut(D, Diff))
    where
        F: FnMut(&[u8], &[u8], Option<&[u8]>, Diff) -> Option<D>,
    {
        let (pick, limits) = (self.answers.pick, (now.before, now.upto));
        self.bytes.set(reach);
        enter(now.left.scan, &self.bytes, pick);
        // The last two answers; where both are there, they hold for the following left rows as long as these see both.
        let mut same: Option<(Answer<'_>, Answer<'_>)> = None;
        while let Some((left, count, _)) = next_counts(now.left.scan, &self.bytes, pick, limits) {
            if count == 0 {
                continue;
            }
            let Some(seen) = self.range.seen_from(left) else { continue };
            self.answers.bytes.set(seen);
            let (old, new) = match same.filter(|(old, new)| self.sees(*old) && self.sees(*new)) {
                Some(answers) => answers,
                None => self.answers.both(now.right.scan, seen, limits),
            };
            same = Some((old, new));
            if old != new {
                self.emit(now.key, left, old, -count, emit);
                self.emit(now.key, left, new, count, emit);
            } else if let Some(answer) = old {
                // Nothing changed for the left rows that still see this answer.
                match self.past(answer, reach) {
                    Some(rest) => reach = rest,
                    None => break,
                }
                self.bytes.set(reach);
                enter(now.left.scan, &self.bytes, pick);
            } else if self.range == Range::Whole {
                break; // every left row of the key has the same answer
            }
        }
    }

    /// Whether the left row that was last put into the answers' bounds has this answer too, as rows before it in the order
    /// of the pick had it.
    fn sees(&self, answer: Answer<'_>) -> bool {
        match answer {
            Some(answer) => self.answers.bytes.begins_before(answer, self.answers.pick),
            None => self.range == Range::Whole,
        }
    }

    /// The part of `reach` whose left rows do not see `answer` any more.
    fn past(&self, answer: &[u8], reach: Reach) -> Option<Reach> {
        let Range::Window(window) = self.range else { return None };
        let time = event_time(answer)?;
        let rest = match self.answers.pick {
            Pick::First => Reach { low: time + i128::from(window.before) + 1, ..reach },
            Pick::Last => Reach { high: time - i128::from(window.after) - 1, ..reach },
        };
        (rest.low <= rest.high).then_some(rest)
    }
}

/// The nearest right value that comes before `value` in the order of the pick and is there before or at the moment, if
/// one is found within a few steps. None where `value` itself is there at both or at neither: then it does not matter.
fn better_neighbour<'a>(
    right: &mut Scan<'a>,
    value: &[u8],
    pick: Pick,
    limits: (Time, Time),
    everything: &Bounds,
) -> Option<Option<&'a [u8]>> {
    const STEPS: usize = 8;
    if !right.at_key() {
        return None;
    }
    // The value itself is the first one taken, walking against the order of the pick.
    let away = match pick {
        Pick::First => {
            right.cursor.seek_past(|candidate| candidate <= value);
            Pick::Last
        }
        Pick::Last => {
            right.cursor.seek_value(value);
            Pick::First
        }
    };
    let (_, before, upto) = next_counts(right, everything, away, limits)?;
    if (before > 0) == (upto > 0) {
        return None;
    }
    for _ in 0..STEPS {
        let Some((candidate, before, upto)) = next_counts(right, everything, away, limits) else { break };
        if before > 0 || upto > 0 {
            return Some(Some(candidate));
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Multiset, Pair, Random, Script, Shape, check, ints};
    use deltaworks_dataflow::arrange::arrange;
    use deltaworks_dataflow::{Row, row};

    type Output = (Row, Row, Option<Row>);

    fn time_of(value: &[u8]) -> Option<i64> {
        match Datum::decode(&mut &value[..], &DataType::BigInt) {
            Datum::Int(time) => Some(time),
            _ => None,
        }
    }
    fn sees(range: Range, left: &Row, right: &Row) -> bool {
        match (range, time_of(left), time_of(right)) {
            (Range::Whole, _, _) => true,
            (Range::Window(w), Some(l), Some(r)) => l - w.before <= r && r <= l + w.after,
            _ => false,
        }
    }
    fn reference(held: &[Multiset<Pair>], range: Range, pick: Pick, outer: bool) -> Multiset<Output> {
        let mut expected = Multiset::new();
        for ((key, left), count) in &held[0] {
            let seen = held[1].iter().filter(|((other, right), there)| {
                **there > 0 && other == key && !row::is_null_field(key) && sees(range, left, right)
            });
            let seen = seen.map(|((_, right), _)| right.clone());
            let answer = if pick == Pick::First { seen.min() } else { seen.max() };
            if outer || answer.is_some() {
                expected.insert((key.clone(), left.clone(), answer), *count);
            }
        }
        expected
    }

    /// Rows of 3 keys (now and then NULL), in a fixed domain of time with ties and NULLs, or near the tick.
    fn script(seed: u64, ticks: Time, drift: bool) -> Script {
        let base = if seed.is_multiple_of(2) { -8 } else { 240 };
        let row = |random: &mut Random, _: usize, tick: Time| {
            let key = random.below(30) as i64;
            let time = match random.below(4) {
                _ if drift => tick as i64 + random.below(9) as i64,
                0 => base + random.below(60) as i64,
                _ => base + random.below(24) as i64,
            };
            let time = (!random.once_in(40)).then_some(time);
            (ints(&[(key > 0).then_some(key % 3)]), ints(&[time, Some(random.below(3) as i64)]))
        };
        let old = |row: &Pair, tick: Time| drift && time_of(&row.1).is_none_or(|time| time < tick as i64 - 15);
        Script::random(seed, &Shape { inputs: 2, ticks, row: &row, expired: &old, negative: true })
    }
    fn check_one(workers: usize, seed: u64, range: Range, pick: Pick, drift: bool) {
        let outer = !seed.is_multiple_of(3);
        check(
            workers,
            seed,
            &script(seed, 150, drift),
            move |inputs| {
                let [left, right]: [_; 2] = inputs.try_into().ok().expect("two inputs");
                let (left, right) = (arrange(left, "Left"), arrange(right, "Right"));
                lookback_join(left, right, range, pick, outer, "Lookback", |key, left, right, _| {
                    Some((Row::from_bytes(key), Row::from_bytes(left), right.map(Row::from_bytes)))
                })
            },
            |held| reference(held, range, pick, outer),
        );
    }
    fn window(before: i64, after: i64) -> Range {
        Range::Window(Window { before, after })
    }

    #[test]
    fn every_tick_is_as_brute_force_says() {
        let ranges = [window(7, 0), window(7, -1), window(0, 5), window(3, 4), window(-2, 6), window(2, -4), Range::Whole];
        let mut seed = 0;
        for pick in [Pick::First, Pick::Last] {
            for range in ranges {
                for workers in [1, 2, 4] {
                    for drift in [false, true] {
                        seed += 1;
                        check_one(workers, seed, range, pick, drift);
                    }
                }
            }
        }
    }

    #[test]
    fn many_seeds_of_the_usual_window() {
        for seed in 100..120 {
            check_one(1, seed, window(7, 0), Pick::First, seed % 2 == 0);
            check_one(1, seed, window(7, 0), Pick::Last, seed % 2 == 1);
        }
    }

    #[test]
    fn times_near_the_ends_do_not_overflow() {
        let mut script = Script { inputs: 2, ticks: 3, changes: vec![] };
        let ends = [i64::MIN, i64::MIN + 1, 0, i64::MAX - 1, i64::MAX];
        for (tick, input) in [(0, 0), (1, 1)] {
            for time in ends {
                let row = (ints(&[Some(1)]), ints(&[Some(time)]));
                script.changes.push(crate::testing::Change { input, row, time: tick, diff: 1 });
            }
        }
        for (range, matches) in [(window(i64::MAX, 0), 5), (window(1, 0), 5), (window(-1, 1), 2), (window(-2, i64::MAX), 2)]
        {
            let updates = crate::testing::run(1, 1, &script, move |inputs| {
                let [left, right]: [_; 2] = inputs.try_into().ok().expect("two inputs");
                let (left, right) = (arrange(left, "Left"), arrange(right, "Right"));
                lookback_join(left, right, range, Pick::First, false, "Lookback", |_, left, right, _| {
                    right.map(|right| (time_of(left), time_of(right)))
                })
            });
            assert_eq!(updates.len(), matches, "{range:?}: {updates:?}");
        }
    }
}
