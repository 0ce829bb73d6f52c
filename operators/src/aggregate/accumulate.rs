//! Count, sum, average, minimum and maximum per group, all of them in one record of the group.
//!
//! **Definition.** For each key with rows, one row with one field per [`Accumulator`], over the argument rows of that key. The
//! i-th field of an argument row is the argument of the i-th accumulator; `CountRows` ignores its, and so does one that reads a
//! set of values which another before it reads too.
//!
//! **State.** Per group its key, 9 bytes, and 8 to 32 bytes per accumulator; per sum of floats about 60 more. For MIN, MAX and
//! COUNT(DISTINCT) the different arguments, each once for all that read them.
//!
//! **On retraction.** Everything subtracts exactly: whole numbers in 192 bits, floats in an exact sum. A group without rows is
//! gone, one whose sum is zero is not.
//!
//! **On ties, nulls, late rows.** NULL arguments are ignored; a sum or average of none is NULL. A sum of more than 38 digits is
//! NULL until it fits again, and counted. Each tick is applied as a whole; a group that is as before emits nothing.
//!
//! **Example.** Groups `a: 1, 2` and `b: NULL`, with `CountRows` and `SumInt`: `a: (2, 3)` and `b: (1, NULL)`.

use differential_dataflow::AsCollection;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use super::exact_sum::ExactSum;
use super::values::Values;
use super::wide_sum::{DECIMAL_LIMIT, WideSum, divide_rounding};
use crate::key_order::order_by_bytes;
use crate::keyed_store::{KeyColumns, KeyedStore, Slot};
use crate::pending::Pending;
use deltaworks_dataflow::arrange::KeyedUpdate;
use deltaworks_dataflow::row::{
    encode_bool, encode_float, encode_int, encode_null, encode_wide, hash_bytes, is_null_field, split_field,
};
use deltaworks_dataflow::{DataType, Datum, Diff, KeyedCollection, Row};

/// One aggregate of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulator {
    /// How many rows.
    CountRows,
    /// How many arguments are not NULL.
    Count,
    /// The sum of integers, a BIGINT or a DECIMAL(38, 0): both are the same bytes.
    SumInt,
    /// The sum of integers of a type that holds no more than `most`: an INTERVAL.
    SumWithin {
        /// The greatest value of the type.
        most: i64,
    },
    /// The sum of decimals, at their scale.
    SumDecimal,
    /// The exact sum of floats, rounded once.
    SumFloat,
    /// The average of integers, a DOUBLE.
    AvgInt,
    /// The exact sum of floats, rounded, by their count.
    AvgFloat,
    /// The average of decimals or integers with `shift` more digits after the point, rounded half away from zero.
    AvgDecimal {
        /// The result's scale less the argument's.
        shift: u32,
    },
    /// Whether all arguments are true.
    BoolAnd,
    /// Whether one argument is true.
    BoolOr,
    /// The smallest argument, of the set of values with this number.
    Min(usize),
    /// The greatest argument, of the set of values with this number.
    Max(usize),
    /// How many different arguments the set of values with this number has.
    CountDistinct(usize),
}

/// Keeps the accumulators of each key's argument rows.
pub fn accumulate<'s>(input: KeyedCollection<'s>, aggregates: Vec<Accumulator>, name: &str) -> KeyedCollection<'s> {
    accumulate_counting(input, aggregates, Rc::default(), name)
}

/// As [`accumulate`]; `overflows` is how many results on this worker are NULL now because they have too many digits.
pub fn accumulate_counting<'s>(
    input: KeyedCollection<'s>,
    aggregates: Vec<Accumulator>,
    overflows: Rc<Cell<i64>>,
    name: &str,
) -> KeyedCollection<'s> {
    let by_key = Exchange::new(|update: &KeyedUpdate| hash_bytes(&update.0.0));
    input
        .inner
        .unary_frontier(by_key, name, move |_, _| {
            let mut waiting: Pending<((Row, Row), Diff)> = Pending::new();
            let mut groups = Groups::new(aggregates, overflows);
            move |(input, frontier), output| {
                input.for_each(|capability, updates| waiting.stash(&capability, updates, 0));
                while let Some(([capability], updates)) = waiting.next_complete(frontier) {
                    groups.add_all(&updates);
                    let mut session = output.session(&capability);
                    let time = *capability.time();
                    groups.emit(|key, result, diff| session.give(((key, result), time, diff)));
                }
            }
        })
        .as_collection()
}

/// The groups on one worker. A group's record is its key, then a mark, the number of rows, and the accumulators' states.
struct Groups {
    parts: Vec<Part>,
    /// Bytes of a record behind its key.
    width: usize,
    records: KeyedStore,
    aside: Aside,
    overflows: Rc<Cell<i64>>,
    /// The groups that the current tick changed, and where in `old` their results before it are.
    touched: Vec<(Slot, Option<Range<usize>>)>,
    old: Vec<u8>,
}

/// How many keys are looked up before their records are changed.
const AHEAD: usize = 64;

/// Where in the part of a record behind the key things are: the mark that the tick has touched the group, then these.
const ROWS: Range<usize> = 1..9;
const STATES: usize = 9;

impl Groups {
    fn new(aggregates: Vec<Accumulator>, overflows: Rc<Cell<i64>>) -> Self {
        let parts = parts(aggregates);
        Groups {
            width: parts.iter().map(|part| part.state.end).max().unwrap_or(STATES),
            parts,
            records: KeyedStore::new(KeyColumns::leading()),
            aside: Aside::default(),
            overflows,
            touched: Vec::new(),
            old: Vec::new(),
        }
    }
    fn add_all(&mut self, updates: &[((Row, Row), Diff)]) {
        // Looking up many keys before changing any lets the processor fetch their records side by side.
        let mut slots: Vec<Slot> = Vec::with_capacity(AHEAD);
        for updates in updates.chunks(AHEAD) {
            slots.clear();
            slots.extend(updates.iter().map(|((key, _), _)| self.slot(key)));
            for (((key, arguments), diff), slot) in updates.iter().zip(&slots) {
                self.add(*slot, key.len(), arguments, *diff);
            }
        }
    }
    /// The record of a group, made if there is none.
    fn slot(&mut self, key: &[u8]) -> Slot {
        let hash = hash_bytes(key);
        self.records.find(hash, key).unwrap_or_else(|| {
            let mut record = Vec::with_capacity(key.len() + self.width);
            record.extend_from_slice(key);
            record.resize(key.len() + self.width, 0);
            self.records.insert(hash, key, &record)
        })
    }
    fn add(&mut self, slot: Slot, key_len: usize, mut arguments: &[u8], diff: Diff) {
        if self.records.at(slot)[key_len] == 0 {
            self.touch(slot, key_len);
        }
        let state = &mut self.records.at_mut(slot)[key_len..];
        add_count(&mut state[ROWS], diff);
        for part in &self.parts {
            let argument = split_field(&mut arguments);
            if part.takes_in && !is_null_field(argument) {
                part.aggregate.add(&mut state[part.state.clone()], argument, diff, &mut self.aside);
            }
        }
    }
    /// Notes the group's result before the tick, once per tick.
    fn touch(&mut self, slot: Slot, key_len: usize) {
        self.records.at_mut(slot)[key_len] = 1;
        let state = &self.records.at(slot)[key_len..];
        let start = self.old.len();
        let overflows = result(&self.parts, state, &self.aside, &mut self.old);
        self.overflows.set(self.overflows.get() - overflows.unwrap_or(0));
        self.touched.push((slot, overflows.map(|_| start..self.old.len())));
    }
    /// Emits how the touched groups changed, in key order, and ends the tick.
    fn emit(&mut self, mut emit: impl FnMut(Row, Row, Diff)) {
        let key = |slot: Slot| {
            let record = self.records.at(slot);
            &record[..record.len() - self.width]
        };
        let order = order_by_bytes(self.touched.len(), |index| key(self.touched[index].0));
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for (_, index) in order {
            let (slot, old) = &self.touched[index as usize];
            let record = self.records.at(*slot);
            let (key, state) = record.split_at(record.len() - self.width);
            new.clear();
            let overflows = result(&self.parts, state, &self.aside, &mut new);
            self.overflows.set(self.overflows.get() + overflows.unwrap_or(0));
            let old = old.as_ref().map(|range| &self.old[range.clone()]);
            let new = overflows.map(|_| &new[..]);
            if old != new {
                old.into_iter().for_each(|old| emit(Row::from_bytes(key), Row::from_bytes(old), -1));
                new.into_iter().for_each(|new| emit(Row::from_bytes(key), Row::from_bytes(new), 1));
            }
            if is_blank(&self.parts, state, &self.aside) {
                gone.push(Row::from_bytes(key));
            }
        }
        self.end_tick(&gone);
    }
    fn end_tick(&mut self, gone: &[Row]) {
        for (slot, _) in self.touched.drain(..) {
            let record = self.records.at_mut(slot);
            let mark = record.len() - self.width;
            record[mark] = 0;
        }
        self.old.clear();
        // Last, because taking records out may move the others.
        for key in gone {
            let hash = hash_bytes(key);
            if let Some(record) = self.records.get(hash, key) {
                self.aside.free(&self.parts, &record[key.len()..]);
            }
            self.records.remove(hash, key);
        }
    }
}

/// An accumulator and where in a group's state its own is.
struct Part {
    aggregate: Accumulator,
    state: Range<usize>,
    /// Whether arguments go in through this one: the first of those that read the same set of values.
    takes_in: bool,
}

fn parts(aggregates: Vec<Accumulator>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(aggregates.len());
    let mut end = STATES;
    for aggregate in aggregates {
        let set = aggregate.set();
        let shared = parts.iter().find(|part| set.is_some() && part.aggregate.set() == set).map(|part| part.state.clone());
        let takes_in = shared.is_none();
        let state = shared.unwrap_or(end..end + aggregate.width());
        end = end.max(state.end);
        parts.push(Part { aggregate, state, takes_in });
    }
    parts
}
/// Appends the result row of a group and returns how many of its fields overflow; None if the group has no rows.
fn result(parts: &[Part], state: &[u8], aside: &Aside, out: &mut Vec<u8>) -> Option<i64> {
    let rows = count(&state[ROWS]);
    if rows <= 0 {
        return None;
    }
    let overflows = |part: &Part| !part.aggregate.result(&state[part.state.clone()], rows, aside, out);
    Some(parts.iter().map(overflows).map(i64::from).sum())
}
/// Whether the group is as if nothing had ever been added.
fn is_blank(parts: &[Part], state: &[u8], aside: &Aside) -> bool {
    count(&state[ROWS]) == 0
        && parts.iter().all(|part| {
            let state = &state[part.state.clone()];
            match part.aggregate {
                Accumulator::SumFloat | Accumulator::AvgFloat => {
                    count(state) == 0 && aside.floats.get(&state[8..]).is_none_or(ExactSum::is_zero)
                }
                aggregate if aggregate.set().is_some() => aside.values.get(state).is_none_or(Values::is_empty),
                _ => state.iter().all(|byte| *byte == 0),
            }
        })
}

fn word(state: &[u8]) -> [u8; 8] {
    let mut word = [0; 8];
    word.copy_from_slice(&state[..8]);
    word
}
fn count(state: &[u8]) -> i64 {
    i64::from_le_bytes(word(state))
}
fn add_count(state: &mut [u8], diff: Diff) {
    let sum = count(state).wrapping_add(diff);
    state[..8].copy_from_slice(&sum.to_le_bytes());
}
fn wide(state: &[u8]) -> WideSum {
    state.first_chunk().map_or(WideSum::default(), WideSum::from_bytes)
}

impl Accumulator {
    /// The number of the set of values that it reads.
    fn set(self) -> Option<usize> {
        match self {
            Accumulator::Min(set) | Accumulator::Max(set) | Accumulator::CountDistinct(set) => Some(set),
            _ => None,
        }
    }
    /// Bytes of its state: a count of arguments, then the sum (or where it is, for floats) or the arguments that decide; for a
    /// set of values where it is.
    fn width(self) -> usize {
        match self {
            Accumulator::CountRows => 0,
            Accumulator::Count => 8,
            Accumulator::SumInt
            | Accumulator::SumWithin { .. }
            | Accumulator::SumDecimal
            | Accumulator::AvgInt
            | Accumulator::AvgDecimal { .. } => 8 + WideSum::SIZE,
            Accumulator::SumFloat | Accumulator::AvgFloat => 8 + 4,
            Accumulator::BoolAnd | Accumulator::BoolOr => 8 + 8,
            Accumulator::Min(_) | Accumulator::Max(_) | Accumulator::CountDistinct(_) => 4,
        }
    }
    /// Adds an argument that is not NULL.
    fn add(self, state: &mut [u8], mut argument: &[u8], diff: Diff, aside: &mut Aside) {
        if self == Accumulator::CountRows {
            return;
        }
        if self.set().is_some() {
            aside.values.get_mut(state).add(argument, diff);
            return;
        }
        add_count(state, diff);
        let data_type = match self {
            Accumulator::CountRows | Accumulator::Count => return,
            Accumulator::SumFloat | Accumulator::AvgFloat => DataType::Double,
            Accumulator::BoolAnd | Accumulator::BoolOr => DataType::Boolean,
            _ => DataType::Decimal { precision: 38, scale: 0 },
        };
        match Datum::decode(&mut argument, &data_type) {
            Datum::Decimal(value) => {
                let mut sum = wide(&state[8..]);
                sum.add(value, diff);
                state[8..].copy_from_slice(&sum.to_bytes());
            }
            Datum::Float(value) => aside.floats.get_mut(&mut state[8..]).add(value, diff),
            Datum::Bool(value) if value == (self == Accumulator::BoolOr) => add_count(&mut state[8..], diff),
            _ => {}
        }
    }
    /// Appends the result; false if it has too many digits.
    fn result(self, state: &[u8], rows: i64, aside: &Aside, out: &mut Vec<u8>) -> bool {
        if self.set().is_some() {
            self.of_values(aside.values.get(state), out);
            return true;
        }
        let float_sum = || aside.floats.get(&state[8..]).map_or(0.0, ExactSum::value);
        let arguments = if self == Accumulator::CountRows { rows } else { count(state) };
        match self {
            Accumulator::CountRows | Accumulator::Count => encode_int(out, arguments),
            _ if arguments == 0 => encode_null(out),
            Accumulator::BoolAnd => encode_bool(out, count(&state[8..]) == 0),
            Accumulator::BoolOr => encode_bool(out, count(&state[8..]) != 0),
            Accumulator::SumFloat => encode_float(out, float_sum()),
            Accumulator::AvgFloat => encode_float(out, float_sum() / arguments as f64),
            _ => match self.whole(wide(&state[8..]).value(), arguments) {
                None => {
                    encode_null(out);
                    return false;
                }
                Some(Whole::Decimal(value)) => encode_wide(out, value),
                Some(Whole::Float(value)) => encode_float(out, value),
            },
        }
        true
    }
    /// Appends what a set of values gives.
    fn of_values(self, values: Option<&Values>, out: &mut Vec<u8>) {
        let value = match self {
            Accumulator::CountDistinct(_) => return encode_int(out, values.map_or(0, Values::distinct) as i64),
            Accumulator::Max(_) => values.and_then(Values::last),
            _ => values.and_then(Values::first),
        };
        match value {
            Some(value) => out.extend_from_slice(value),
            None => encode_null(out),
        }
    }
    /// The result of a sum of whole numbers; None if it has too many digits.
    fn whole(self, sum: Option<i128>, arguments: i64) -> Option<Whole> {
        let sum = sum?;
        let value = match self {
            Accumulator::AvgInt => return Some(Whole::Float(sum as f64 / arguments as f64)),
            Accumulator::AvgDecimal { shift } => {
                divide_rounding(10i128.checked_pow(shift).and_then(|power| sum.checked_mul(power))?, arguments)
            }
            Accumulator::SumWithin { most } if sum.unsigned_abs() > most.unsigned_abs().into() => return None,
            _ => sum,
        };
        (value.unsigned_abs() < DECIMAL_LIMIT.unsigned_abs()).then_some(Whole::Decimal(value))
    }
}
enum Whole {
    Decimal(i128),
    Float(f64),
}

/// What does not fit a record of fixed size. A state holds the number of its own plus one, or zero while it needs none.
#[derive(Default)]
struct Aside {
    floats: Slab<ExactSum>,
    values: Slab<Values>,
}

impl Aside {
    /// Gives back what a group has that is gone; all of it is as new.
    fn free(&mut self, parts: &[Part], state: &[u8]) {
        for part in parts.iter().filter(|part| part.takes_in) {
            let state = &state[part.state.clone()];
            match part.aggregate {
                Accumulator::SumFloat | Accumulator::AvgFloat => self.floats.free(&state[8..]),
                aggregate if aggregate.set().is_some() => self.values.free(state),
                _ => {}
            }
        }
    }
}

/// Things by number.
#[derive(Default)]
struct Slab<T> {
    things: Vec<T>,
    free: Vec<u32>,
}

impl<T: Default> Slab<T> {
    fn index(state: &[u8]) -> Option<u32> {
        state.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)).checked_sub(1)
    }
    fn get(&self, state: &[u8]) -> Option<&T> {
        Self::index(state).map(|index| &self.things[index as usize])
    }
    fn get_mut(&mut self, state: &mut [u8]) -> &mut T {
        let index = Self::index(state).unwrap_or_else(|| {
            let index = self.free.pop().unwrap_or_else(|| {
                self.things.push(T::default());
                self.things.len() as u32 - 1
            });
            state[..4].copy_from_slice(&(index + 1).to_le_bytes());
            index
        });
        &mut self.things[index as usize]
    }
    /// Takes back the thing of a state, which has become as it was at first.
    fn free(&mut self, state: &[u8]) {
        self.free.extend(Self::index(state));
    }
}
