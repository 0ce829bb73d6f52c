//! Sets made of other sets, for whoever asks: BITMAP_COUNT(BITMAP_AND(a, b)) and any tree of such operations.
//!
//! **Definition.** A question is a row of handles (see [`handle`](super::handle)), one per operand: which sets it is about. For
//! each question that is asked at least once, [`combine_sets`] gives the set that an expression makes of its operands, in chunks;
//! [`count_sets`] appends to each row that asks how many ids the sets have that some expressions make of them. An operand that has
//! no chunks is the empty set.
//!
//! **State.** The ids of all operands' sets, once however many questions ask for them: 2 bytes each or 8 KiB per 65,536; some 100
//! bytes per question. [`count_sets`] keeps the rows that ask, and their counts.
//!
//! Workers own chunks by the ids' high bits, and every worker knows every question: one set of many ids is the work of all
//! workers, and all chunks that an answer needs of a range of ids are on one.
//!
//! **On retraction.** A chunk that changes is combined again, before and after, for the questions about its set; no other chunk is
//! looked at. A question that comes or goes looks at all chunks of its sets.
//!
//! **On ties, nulls, late rows.** That a handle has one set is relied upon, not checked. Each tick is applied as a whole; what
//! stays emits nothing. A question that was retracted more often than asked gets no answer.
//!
//! **Example.** Sets `x` = {1, 2} and `y` = {2}; the row `r` asks about (`x`, `y`): AND counts `r, 1`. When 1 enters `y`: `r, 2`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use differential_dataflow::VecCollection;
use differential_dataflow::consolidation::consolidate;
use hashbrown::HashMap;

use super::chunk::{Chunk, Raw, emit_change, handle};
use super::store::ChunkStore;
use crate::per_tick::per_tick;
use deltaworks_dataflow::bitmap::{Container, SetOperation};
use deltaworks_dataflow::row::{encode_int, hash_bytes, nth_field};
use deltaworks_dataflow::{Collection, Diff, KeyedCollection, Row, Time};

/// A set made of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetExpression {
    /// The operand of that number.
    Operand(usize),
    /// What an operation makes of two sets.
    Combined(SetOperation, Box<SetExpression>, Box<SetExpression>),
}

impl SetExpression {
    /// Adds the numbers of the operands.
    pub fn operands(&self, into: &mut BTreeSet<usize>) {
        match self {
            SetExpression::Operand(number) => {
                into.insert(*number);
            }
            SetExpression::Combined(_, left, right) => [left, right].into_iter().for_each(|part| part.operands(into)),
        }
    }
    /// The expression over renumbered operands.
    pub fn renumbered(&self, number: &dyn Fn(usize) -> usize) -> SetExpression {
        match self {
            SetExpression::Operand(operand) => SetExpression::Operand(number(*operand)),
            SetExpression::Combined(operation, left, right) => {
                SetExpression::Combined(*operation, Box::new(left.renumbered(number)), Box::new(right.renumbered(number)))
            }
        }
    }
    /// The set at some high bits, of the operands' sets there.
    fn at<'a>(&self, operands: &[&'a Container]) -> Cow<'a, Container> {
        match self {
            SetExpression::Operand(number) => Cow::Borrowed(operands[*number]),
            SetExpression::Combined(operation, left, right) => {
                Cow::Owned(left.at(operands).combine(*operation, &right.at(operands)))
            }
        }
    }
    /// How many ids that set has.
    fn ids_at(&self, operands: &[&Container]) -> i64 {
        let ids = match self {
            SetExpression::Operand(number) => operands[*number].len(),
            SetExpression::Combined(operation, left, right) => {
                left.at(operands).combined_len(*operation, &right.at(operands))
            }
        };
        ids as i64
    }
}

/// Where the operands' sets are.
#[derive(Clone)]
pub struct Operands<'s> {
    /// Sets in chunks, by handle.
    pub sources: Vec<KeyedCollection<'s>>,
    /// For each operand, its source.
    pub of: Vec<usize>,
}

/// Appends to each asking row, keyed by its question, how many ids each expression has.
pub fn count_sets<'s>(
    asking: KeyedCollection<'s>,
    operands: Operands<'s>,
    expressions: Vec<SetExpression>,
    name: &str,
) -> Collection<'s> {
    let count = expressions.len();
    let questions = asking.clone().map(|(question, _)| question);
    let ids = evaluate(questions, operands, name, move |question, _, old, new, emit| {
        for (number, expression) in expressions.iter().enumerate() {
            let change = expression.ids_at(new) - expression.ids_at(old);
            if change != 0 {
                emit((question.clone(), number), change);
            }
        }
    });
    let rows = asking.map(|(question, row)| (question, (None, row)));
    let counts = ids.map(|(question, number)| (question, (Some(number), Row::default())));
    let mut tally = Tally { count, questions: HashMap::new() };
    per_tick(rows.concat(counts), |(question, _)| hash_bytes(question), name, move |updates, emit| tally.tick(updates, emit))
}

/// The set that the expression makes of each question's operands, in chunks, by the [`handle`] of the question.
pub fn combine_sets<'s>(
    questions: Collection<'s>,
    operands: Operands<'s>,
    expression: SetExpression,
    name: &str,
) -> KeyedCollection<'s> {
    let asked = crate::distinct::distinct(questions.clone(), name);
    let heads = asked.map(|question| (handle(&question), Chunk::Head.to_row()));
    let chunks = evaluate(questions, operands, name, move |question, high, old, new, emit| {
        let (old, new) = (expression.at(old), expression.at(new));
        emit_change(high, &old, &new, &mut |row, diff| emit((handle(question), row), diff));
    });
    heads.concat(chunks)
}

/// An input of the evaluation: the worker's number or a hash of the high bits; the source, and what comes of it: a handle and a
/// chunk; without a source a question.
type Update = (u64, (Option<usize>, (Row, Row)));

/// Tells `changed` of every chunk of every question's operands that changes: the question, the high bits, the operands before and
/// after. Before a question comes and after it has gone all its operands are empty.
fn evaluate<'s, O: Clone + 'static>(
    questions: Collection<'s>,
    operands: Operands<'s>,
    name: &str,
    mut changed: impl FnMut(&Row, u64, &[&Container], &[&Container], &mut dyn FnMut(O, Diff)) + 'static,
) -> VecCollection<'s, Time, O, Diff> {
    let workers = questions.inner.scope().peers() as u64;
    let to_all = move |question: Row| (0..workers).map(move |worker| (worker, (None, (question.clone(), Row::default()))));
    let mut all: VecCollection<'s, Time, Update, Diff> = questions.flat_map(to_all);
    for (source, chunks) in operands.sources.into_iter().enumerate() {
        let ids = chunks.flat_map(move |(set, chunk)| match Raw::read(&chunk) {
            Raw::Ids(high, _) => Some((hash_bytes(&high.to_be_bytes()), (Some(source), (set, chunk)))),
            Raw::Head | Raw::Null => None,
        });
        all = all.concat(ids);
    }
    let mut evaluation = Evaluation::new(operands.of);
    per_tick(
        all,
        |update: &Update| update.0,
        name,
        move |updates, emit| {
            evaluation.tick(updates, &mut |question, high, old, new| changed(question, high, old, new, emit));
        },
    )
}

/// Is told of a change.
type Changed<'c> = &'c mut dyn FnMut(&Row, u64, &[&Container], &[&Container]);

/// A question: how often it is asked and, while it is, the number of each operand's set in the store of its source.
#[derive(Default)]
struct Question {
    asked: i64,
    sets: Vec<u32>,
}

/// A set of a source: the source, and the set's number in its store.
type Place = (usize, u32);
/// A change of a chunk: high bits, where, the difference, and the chunk's row.
type ChunkChange = (u64, Place, Diff, Row);

static EMPTY: Container = Container::new();

/// What one worker knows.
struct Evaluation {
    /// The source of each operand.
    of: Vec<usize>,
    /// Per source, each set's chunks, and the numbers of the questions that ask for the set.
    sources: Vec<ChunkStore<Vec<u32>, Container>>,
    questions: ChunkStore<Question, ()>,
    /// The sets that the tick touched, of which there may be nothing left.
    touched: BTreeSet<Place>,
}

impl Evaluation {
    fn new(of: Vec<usize>) -> Self {
        let sources = of.iter().max().map_or(0, |last| last + 1);
        let sources = (0..sources).map(|_| ChunkStore::new()).collect();
        Evaluation { of, sources, questions: ChunkStore::new(), touched: BTreeSet::new() }
    }
    fn tick(&mut self, mut updates: Vec<(Update, Diff)>, changed: Changed<'_>) {
        consolidate(&mut updates);
        let mut asked = BTreeSet::new();
        let mut changes: Vec<ChunkChange> = Vec::new();
        for ((_, (source, (name, chunk))), diff) in updates {
            match source {
                None => {
                    let number = self.questions.number(&name);
                    let question = self.questions.group_mut(number);
                    question.asked = question.asked.wrapping_add(diff);
                    asked.insert(number);
                }
                Some(source) => {
                    let Raw::Ids(high, _) = Raw::read(&chunk) else { continue };
                    changes.push((high, (source, self.sources[source].number(&name)), diff, chunk));
                }
            }
        }
        // Who goes still sees the sets as they were, who comes sees them as they are.
        asked.iter().for_each(|question| self.leave(*question, changed));
        self.change_chunks(changes, changed);
        asked.iter().for_each(|question| self.enter(*question, changed));
        for (source, set) in std::mem::take(&mut self.touched) {
            if self.sources[source].group(set).is_empty() {
                self.sources[source].release(set);
            }
        }
    }
    /// Ends a question that is no longer asked.
    fn leave(&mut self, number: u32, changed: Changed<'_>) {
        let question = self.questions.group(number);
        if question.asked > 0 || question.sets.is_empty() {
            return;
        }
        self.for_each_chunk(number, &mut |name, high, sets, none| changed(name, high, sets, none));
        let sets = std::mem::take(&mut self.questions.group_mut(number).sets);
        for place in self.of.clone().into_iter().zip(sets) {
            self.sources[place.0].group_mut(place.1).retain(|asking| *asking != number);
            self.touched.insert(place);
        }
    }
    /// Begins a question that is asked from now on.
    fn enter(&mut self, number: u32, changed: Changed<'_>) {
        let question = self.questions.group(number);
        if question.asked == 0 {
            return self.questions.release(number);
        }
        if question.asked < 0 || !question.sets.is_empty() {
            return;
        }
        let name = self.questions.key(number).clone();
        let mut sets = Vec::with_capacity(self.of.len());
        for (operand, source) in self.of.iter().enumerate() {
            let source = &mut self.sources[*source];
            let set = source.number(&Row::from_bytes(nth_field(&name, operand)));
            source.group_mut(set).push(number);
            sets.push(set);
        }
        self.questions.group_mut(number).sets = sets;
        self.for_each_chunk(number, &mut |name, high, sets, none| changed(name, high, none, sets));
    }
    /// Calls `each` with the question, the high bits, the operands and as many empty ones, wherever an operand has a chunk.
    fn for_each_chunk(&self, number: u32, each: Changed<'_>) {
        let sets = &self.questions.group(number).sets;
        let places = self.of.iter().zip(sets);
        let highs: BTreeSet<u64> = places.flat_map(|(source, set)| self.sources[*source].highs_of(*set)).collect();
        let none = vec![&EMPTY; sets.len()];
        for high in highs {
            let operands: Vec<&Container> = self.places(number).map(|place| self.chunk(place, high)).collect();
            each(self.questions.key(number), high, &operands, &none);
        }
    }
    /// Where the operands of a question are.
    fn places(&self, number: u32) -> impl Iterator<Item = Place> {
        self.of.iter().copied().zip(self.questions.group(number).sets.iter().copied())
    }
    fn chunk(&self, (source, set): Place, high: u64) -> &Container {
        self.sources[source].chunk(set, high).unwrap_or(&EMPTY)
    }
    fn change_chunks(&mut self, mut changes: Vec<ChunkChange>, changed: Changed<'_>) {
        // Retractions first: what takes a chunk out does not ask which ids it has.
        changes.sort_by_key(|(high, place, diff, _)| (*high, *place, *diff > 0));
        for at_high in changes.chunk_by(|a, b| a.0 == b.0) {
            let high = at_high[0].0;
            let mut old: BTreeMap<Place, Container> = BTreeMap::new();
            let mut asking: BTreeSet<u32> = BTreeSet::new();
            for of_set in at_high.chunk_by(|a, b| a.1 == b.1) {
                let place = of_set[0].1;
                let last = &of_set[of_set.len() - 1];
                let new = if last.2 > 0 { container(&last.3) } else { Container::new() };
                let store = &mut self.sources[place.0];
                store.change_chunk(place.1, high, |chunk| {
                    old.insert(place, std::mem::replace(chunk, new));
                    !chunk.is_empty()
                });
                asking.extend(store.group(place.1));
                self.touched.insert(place);
            }
            for number in asking {
                let after: Vec<&Container> = self.places(number).map(|place| self.chunk(place, high)).collect();
                let before = self.places(number).zip(&after).map(|(place, now)| old.get(&place).unwrap_or(now));
                changed(self.questions.key(number), high, &before.collect::<Vec<_>>(), &after);
            }
        }
    }
}

fn container(chunk: &Row) -> Container {
    match Raw::read(chunk) {
        Raw::Ids(_, bytes) => Raw::container(bytes),
        Raw::Head | Raw::Null => Container::new(),
    }
}

/// What is asked of a question: a row without a number, or the ids of an expression with its number.
type Tallied = (Row, (Option<usize>, Row));

/// The rows that ask each question, and the counts that answer it.
struct Tally {
    /// How many counts an answer has.
    count: usize,
    questions: HashMap<Row, Answer>,
}
#[derive(Default)]
struct Answer {
    rows: BTreeMap<Row, i64>,
    counts: Vec<i64>,
}

impl Tally {
    fn tick(&mut self, mut updates: Vec<(Tallied, Diff)>, emit: &mut dyn FnMut(Row, Diff)) {
        consolidate(&mut updates);
        for of_question in updates.chunk_by(|a, b| a.0.0 == b.0.0) {
            let question = &of_question[0].0.0;
            let mut answer = self.questions.remove(question).unwrap_or_default();
            answer.counts.resize(self.count, 0);
            answer.change(of_question, emit);
            if !answer.rows.is_empty() || answer.counts.iter().any(|ids| *ids != 0) {
                self.questions.insert(question.clone(), answer);
            }
        }
    }
}

impl Answer {
    fn change(&mut self, updates: &[(Tallied, Diff)], emit: &mut dyn FnMut(Row, Diff)) {
        let old = self.counts.clone();
        for ((_, (number, _)), diff) in updates {
            if let Some(number) = number {
                self.counts[*number] = self.counts[*number].wrapping_add(*diff);
            }
        }
        if old != self.counts {
            self.rows.iter().for_each(|(row, rows)| emit(with_counts(row, &old), -rows));
            self.rows.iter().for_each(|(row, rows)| emit(with_counts(row, &self.counts), *rows));
        }
        for ((_, (number, row)), diff) in updates {
            if number.is_none() {
                emit(with_counts(row, &self.counts), *diff);
                let rows = self.rows.entry(row.clone()).or_default();
                *rows = rows.wrapping_add(*diff);
                if *rows == 0 {
                    self.rows.remove(row);
                }
            }
        }
    }
}

fn with_counts(row: &Row, counts: &[i64]) -> Row {
    let mut bytes = row.to_vec();
    counts.iter().for_each(|ids| encode_int(&mut bytes, *ids));
    Row::from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::super::chunk::ids_row;
    use super::*;

    /// Sets, questions and answers that are gone take nothing.
    #[test]
    fn nothing_is_kept_of_what_left() {
        let mut evaluation = Evaluation::new(vec![0, 0]);
        let mut members = Container::new();
        members.insert(7);
        let set = handle(b"set");
        let question = Row::from_bytes(&[&set[..], &handle(b"other")].concat());
        let chunk = |diff| ((0, (Some(0), (set.clone(), ids_row(3, &members)))), diff);
        let asked = |diff| ((0, (None, (question.clone(), Row::default()))), diff);
        let mut told = 0;
        let sizes = |evaluation: &Evaluation| (evaluation.sources[0].sizes(), evaluation.questions.sizes());
        let mut tick = |evaluation: &mut Evaluation, updates| evaluation.tick(updates, &mut |_, _, _, _| told += 1);
        tick(&mut evaluation, vec![chunk(1), asked(2)]);
        assert_eq!(sizes(&evaluation), ((2, 1), (1, 0)));
        tick(&mut evaluation, vec![asked(-2)]);
        assert_eq!(sizes(&evaluation), ((1, 1), (0, 0)));
        tick(&mut evaluation, vec![asked(1), chunk(-1)]);
        tick(&mut evaluation, vec![asked(-1)]);
        assert_eq!(sizes(&evaluation), ((0, 0), (0, 0)));
        assert_eq!(told, 2);

        let mut tally = Tally { count: 1, questions: HashMap::new() };
        let update = |number, diff| ((question.clone(), (number, Row::default())), diff);
        tally.tick(vec![update(None, 2), update(Some(0), 5)], &mut |_, _| {});
        tally.tick(vec![update(None, -2)], &mut |_, _| {});
        assert!(tally.questions[&question].rows.is_empty());
        tally.tick(vec![update(Some(0), -5)], &mut |_, _| {});
        assert!(tally.questions.is_empty());
    }
}
