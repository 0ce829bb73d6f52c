//! The first rows of each group, in the order of their bytes.
//!
//! **Definition.** The input's value is the ORDER BY, encoded ascending or descending, followed by the rest of the row, so that
//! byte order is the order. For each key the output is what `logic` makes of the rows whose rank, counted from 1, is more than
//! `offset` and at most `offset + limit`. A row that is there n times is n rows.
//!
//! **State.** None but the arrangement of the input. A change of a group reads its head, before and after: k values and those
//! that were cancelled in front of them and are not compacted yet, whatever the group's size.
//!
//! **On retraction.** The next row moves up: it is in the arrangement.
//!
//! **On ties, nulls, late rows.** `RowNumber` breaks ties by the rest of the row, in encoded order; for `Rank` and `DenseRank`
//! rows with equal leading `order_fields` tie, and either all or none of them are in. NULLs are where their encoding puts them.
//!
//! **Example.** MIN(x): values `x`, limit 1. The first event of a customer: values `(event_ts, event_id, ..)`, limit 1. A
//! global ORDER BY .. LIMIT: the empty key.

use differential_dataflow::{AsCollection, VecCollection};
use std::cmp::Ordering;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::changed::Changed;
use deltaworks_dataflow::row::split_fields;
use deltaworks_dataflow::{Arranged, Diff, Time, TraceCursor};

/// How rows of a group are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ranking {
    /// 1, 2, 3, 4: every row has a number of its own.
    RowNumber,
    /// 1, 2, 2, 4: one more than the number of rows before it.
    Rank,
    /// 1, 2, 2, 3: one more than the number of different rows before it.
    DenseRank,
}

/// Which rows of a group to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopK {
    /// Ranks up to this are left out.
    pub offset: usize,
    /// How many ranks to keep; None keeps all.
    pub limit: Option<usize>,
    /// How rows are ranked.
    pub ranking: Ranking,
    /// The number of leading fields of the value that are the ORDER BY.
    pub order_fields: usize,
    /// Whether `logic` wants the rank; it is 0 otherwise, and a row that only moves within the head changes nothing.
    pub emit_rank: bool,
}

impl TopK {
    /// The first row of each group.
    pub fn first() -> Self {
        TopK { offset: 0, limit: Some(1), ranking: Ranking::RowNumber, order_fields: 0, emit_rank: false }
    }
}

/// A row of the head, its rank, and how often it is there with it.
type Entry<'a> = (&'a [u8], i64, Diff);

/// Keeps the head of each group; `logic` makes an output of (key, value, rank), or none.
pub fn top_k<'s, D: Clone + 'static>(
    input: Arranged<'s>,
    spec: TopK,
    name: &str,
    mut logic: impl FnMut(&[u8], &[u8], i64) -> Option<D> + 'static,
) -> VecCollection<'s, Time, D, Diff> {
    let trace = input.trace.clone();
    input
        .stream
        .unary_frontier(Pipeline, name, move |_, _| {
            let mut changed = Changed::new(trace);
            move |(input, frontier), output| {
                input.for_each(|capability, batches| changed.receive(capability, batches));
                changed.process(frontier, |capability, group| {
                    let mut before = group.before;
                    let (mut old, mut new) = (Head::default(), Head::default());
                    for time in group.times {
                        spec.read_heads(group.cursor, before, *time, &mut old, &mut new);
                        if old.rows != new.rows {
                            let mut session = output.session(capability);
                            differences(&old.rows, &new.rows, |value, rank, diff| {
                                if let Some(row) = logic(group.key, value, rank) {
                                    session.give((row, *time, diff));
                                }
                            });
                        }
                        before = Some(*time);
                    }
                });
            }
        })
        .as_collection()
}

/// The head of a group, while the walk through its values fills it.
#[derive(Default)]
struct Head<'a> {
    rows: Vec<Entry<'a>>,
    complete: bool,
    /// The number of rows so far, the ORDER BY of the last, and its ranks.
    seen: i64,
    order: Option<&'a [u8]>,
    rank: i64,
    dense_rank: i64,
}

impl Head<'_> {
    fn clear(&mut self) {
        self.rows.clear();
        (self.complete, self.seen, self.order, self.rank, self.dense_rank) = (false, 0, None, 0, 0);
    }
}

impl TopK {
    /// The last rank that is kept.
    fn last_rank(&self) -> i64 {
        self.limit.map_or(i64::MAX, |limit| (self.offset as i64).saturating_add(limit as i64))
    }
    /// Reads the heads of the cursor's key as of `before` (nothing if None) and as of `time`, in one walk.
    fn read_heads<'a>(
        &self,
        cursor: &mut TraceCursor<'a>,
        before: Option<Time>,
        time: Time,
        old: &mut Head<'a>,
        new: &mut Head<'a>,
    ) {
        old.clear();
        new.clear();
        (old.complete, new.complete) = (before.is_none() || self.limit == Some(0), self.limit == Some(0));
        cursor.rewind_values();
        while !(old.complete && new.complete) {
            let Some(value) = cursor.value() else { return };
            let (mut old_count, mut new_count) = (0, 0);
            cursor.take_value(|at, diff| {
                old_count += if before.is_some_and(|before| at <= before) { diff } else { 0 };
                new_count += if at <= time { diff } else { 0 };
            });
            self.add(old, value, old_count);
            self.add(new, value, new_count);
        }
    }
    /// Adds the next value in order to the head.
    fn add<'a>(&self, head: &mut Head<'a>, value: &'a [u8], count: i64) {
        if count > 0 && !head.complete {
            match self.ranking {
                Ranking::RowNumber => self.number(head, value, count),
                Ranking::Rank | Ranking::DenseRank => self.rank(head, value, count),
            }
        }
    }
    fn number<'a>(&self, head: &mut Head<'a>, value: &'a [u8], count: i64) {
        let first = head.seen.max(self.offset as i64);
        head.seen += count;
        let end = head.seen.min(self.last_rank());
        if self.emit_rank {
            head.rows.extend((first..end).map(|row| (value, row + 1, 1)));
        } else if first < end {
            head.rows.push((value, 0, end - first));
        }
        head.complete = head.seen >= self.last_rank();
    }
    fn rank<'a>(&self, head: &mut Head<'a>, value: &'a [u8], count: i64) {
        let order = split_fields(value, self.order_fields).0;
        if head.order != Some(order) {
            head.order = Some(order);
            head.rank = head.seen + 1;
            head.dense_rank += 1;
        }
        head.seen += count;
        let rank = if self.ranking == Ranking::Rank { head.rank } else { head.dense_rank };
        head.complete = rank > self.last_rank();
        if !head.complete && rank > self.offset as i64 {
            head.rows.push((value, if self.emit_rank { rank } else { 0 }, count));
        }
    }
}

/// Calls `emit` for what turns one head into the other; both are in the order of value and rank.
fn differences(mut old: &[Entry<'_>], mut new: &[Entry<'_>], mut emit: impl FnMut(&[u8], i64, Diff)) {
    loop {
        let order = match (old.first(), new.first()) {
            (Some(old), Some(new)) => (old.0, old.1).cmp(&(new.0, new.1)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let ((value, rank, diff), in_old, in_new) = match order {
            Ordering::Less => ((old[0].0, old[0].1, -old[0].2), 1, 0),
            Ordering::Greater => (new[0], 0, 1),
            Ordering::Equal => ((new[0].0, new[0].1, new[0].2 - old[0].2), 1, 1),
        };
        if diff != 0 {
            emit(value, rank, diff);
        }
        (old, new) = (&old[in_old..], &new[in_new..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Multiset, Pair, Random, Script, Shape, add, check, ints, run};
    use deltaworks_dataflow::Row;
    use deltaworks_dataflow::arrange::arrange;
    use std::collections::BTreeMap;

    fn script(seed: u64, negative: bool) -> Script {
        let number =
            |random: &mut Random, limit: u64| if random.once_in(5) { None } else { Some(random.below(limit) as i64) };
        let row =
            |random: &mut Random| (ints(&[Some(random.below(2) as i64)]), ints(&[number(random, 3), number(random, 3)]));
        let shape = Shape { inputs: 1, ticks: 14, row: &|random, _, _| row(random), expired: &|_, _| false, negative };
        Script::random(seed, &shape)
    }
    /// Every row of the group with its rank, straight from the definition.
    fn naive(held: &Multiset<Pair>, spec: &TopK) -> Multiset<(Row, Row, i64)> {
        let mut groups: BTreeMap<&Row, Vec<&Row>> = BTreeMap::new();
        for ((key, value), count) in held {
            (0..*count).for_each(|_| groups.entry(key).or_default().push(value));
        }
        let mut head = Multiset::new();
        for (key, rows) in groups {
            for (index, row) in rows.iter().enumerate() {
                let order = split_fields(row, spec.order_fields).0;
                let before = rows.iter().filter(|other| split_fields(other, spec.order_fields).0 < order);
                let rank = match spec.ranking {
                    Ranking::RowNumber => index,
                    Ranking::Rank => before.count(),
                    Ranking::DenseRank => before
                        .map(|other| split_fields(other, spec.order_fields).0)
                        .collect::<std::collections::BTreeSet<_>>()
                        .len(),
                };
                if rank >= spec.offset && spec.limit.is_none_or(|limit| rank < spec.offset + limit) {
                    let rank = if spec.emit_rank { rank as i64 + 1 } else { 0 };
                    add(&mut head, (key.clone(), (*row).clone(), rank), 1);
                }
            }
        }
        head
    }
    fn check_spec(seed: u64, spec: TopK) {
        check(
            [1, 1, 2, 4][seed as usize % 4],
            seed,
            &script(seed, seed.is_multiple_of(5)),
            move |mut inputs| {
                top_k(arrange(inputs.remove(0), "Values"), spec, "TopK", |key, value, rank| {
                    Some((Row::from_bytes(key), Row::from_bytes(value), rank))
                })
            },
            move |held| naive(&held[0], &spec),
        );
    }

    #[test]
    fn agrees_with_sorting_every_group() {
        let mut seed = 0;
        for ranking in [Ranking::RowNumber, Ranking::Rank, Ranking::DenseRank] {
            for (offset, limit) in [(0, Some(1)), (0, Some(3)), (1, Some(2)), (2, None), (0, Some(0))] {
                for emit_rank in [false, true] {
                    check_spec(seed, TopK { offset, limit, ranking, order_fields: 1, emit_rank });
                    seed += 1;
                }
            }
        }
        (0..8).for_each(|seed| check_spec(seed, TopK::first()));
    }

    #[test]
    fn a_head_that_stays_emits_nothing() {
        let script = script(1, false);
        let updates = run(1, 1, &script, |mut inputs| {
            top_k(arrange(inputs.remove(0), "Values"), TopK { limit: Some(3), ..TopK::first() }, "TopK", |key, value, _| {
                Some((Row::from_bytes(key), Row::from_bytes(value)))
            })
        });
        let mut seen = Multiset::new();
        for (row, time, diff) in &updates {
            add(&mut seen, (row.clone(), *time), *diff);
        }
        assert_eq!(seen.len(), updates.len());
    }

    #[test]
    fn logic_may_leave_rows_out() {
        let updates = run(1, 2, &script(2, false), |mut inputs| {
            top_k(arrange(inputs.remove(0), "Values"), TopK::first(), "TopK", |_, _, _| None::<Row>)
        });
        assert_eq!(updates, []);
    }
}
