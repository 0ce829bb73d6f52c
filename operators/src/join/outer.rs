//! The outer join: matching pairs, and the rows of the kept sides that have no match.
//!
//! *Definition.* `out = L x R`, plus `(l, NULL)` for every left row without a match (left, full), plus `(NULL, r)` for every
//! right row without one (right, full). A pair of equal keys matches unless there is a residual condition and `logic`
//! returns None for it. A row has a match if some row of the other side that matches is there a positive number of times.
//!
//! *State.* The two shared arrangements: no `distinct` of the keys, no copy of the kept side.
//!
//! *On retraction.* Exact, by the bilinear change of each term per key and time. Without a residual a changed row costs its
//! matches and a test for presence; the other side's group is walked when the group's presence changes. With a residual,
//! each row of the other side that the changed row matches looks for another match.
//!
//! *On ties, nulls, late rows.* A key with a NULL field matches nothing (so its rows of the kept sides always come alone)
//! unless `null_equal` is set. A null-extended row is retracted when its first match comes, and comes back when the last
//! one goes.
//!
//! *Example.* LEFT: (a, 1) with no R(a): (1, NULL). Then R(a) gets x: -(1, NULL), +(1, x).

use deltaworks_dataflow::{Arranged, Diff, Time};
use differential_dataflow::VecCollection;
use std::cell::RefCell;

use super::linear::matches;
use super::pair::{Moment, PairLogic, pair};
use super::semi::Gate;

/// Which sides' rows are kept without a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OuterKind {
    /// The left side's.
    Left,
    /// The right side's.
    Right,
    /// Both sides'.
    Full,
}

/// Joins two arrangements, keeping rows without a match. `residual`: `logic` may reject pairs by returning None, and a
/// rejected pair is no match; without it, None merely leaves the pair out.
pub fn outer_join<'s, D: Clone + 'static>(
    left: Arranged<'s>,
    right: Arranged<'s>,
    kind: OuterKind,
    residual: bool,
    null_equal: bool,
    name: &str,
    logic: impl FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Option<D> + 'static,
) -> VecCollection<'s, Time, D, Diff> {
    pair(left, right, name, Outer { kind, residual, null_equal, logic })
}

struct Outer<F> {
    kind: OuterKind,
    residual: bool,
    null_equal: bool,
    logic: F,
}

impl<D, F: FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Option<D>> PairLogic<D> for Outer<F> {
    fn null_equal(&self) -> bool {
        self.null_equal
    }
    fn step(&mut self, now: &mut Moment<'_, '_>, emit: &mut impl FnMut(D, Diff)) {
        matches(now, |key, left, right, _| (self.logic)(key, Some(left), Some(right)), emit);
        let key = now.key;
        let gate = Gate { before: now.before, upto: now.upto, matchable: now.matchable, matched: false };
        // The test for a match and the null-extended row are both the caller's `logic`.
        let logic = RefCell::new(&mut self.logic);
        if self.kind != OuterKind::Right {
            let test = |left: &[u8], right: &[u8]| (logic.borrow_mut())(key, Some(left), Some(right)).is_some();
            let residual = self.residual.then_some(test);
            gate.pass(&mut now.left, &mut now.right, residual, |left, diff| {
                if let Some(row) = (logic.borrow_mut())(key, Some(left), None) {
                    emit(row, diff);
                }
            });
        }
        if self.kind != OuterKind::Left {
            let test = |right: &[u8], left: &[u8]| (logic.borrow_mut())(key, Some(left), Some(right)).is_some();
            let residual = self.residual.then_some(test);
            gate.pass(&mut now.right, &mut now.left, residual, |right, diff| {
                if let Some(row) = (logic.borrow_mut())(key, None, Some(right)) {
                    emit(row, diff);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Multiset, Pair, add, check, small_script};
    use deltaworks_dataflow::Row;
    use deltaworks_dataflow::arrange::arrange;

    type Output = (Row, Option<Row>, Option<Row>);

    fn rejected(left: &[u8], right: &[u8]) -> bool {
        (left[left.len() - 1] + right[right.len() - 1]).is_multiple_of(3)
    }
    fn reference(held: &[Multiset<Pair>], kind: OuterKind, residual: bool, null_equal: bool) -> Multiset<Output> {
        let (lefts, rights) = (&held[0], &held[1]);
        let matching = |(a, left): &Pair, (b, right): &Pair| {
            a == b && (null_equal || !super::super::has_null(a)) && !(residual && rejected(left, right))
        };
        let mut expected = Multiset::new();
        for (left, count) in lefts {
            for (right, other) in rights.iter().filter(|(right, _)| matching(left, right)) {
                add(&mut expected, (left.0.clone(), Some(left.1.clone()), Some(right.1.clone())), count * other);
            }
            if kind != OuterKind::Right && !rights.iter().any(|(right, there)| *there > 0 && matching(left, right)) {
                add(&mut expected, (left.0.clone(), Some(left.1.clone()), None), *count);
            }
        }
        for (right, count) in rights {
            if kind != OuterKind::Left && !lefts.iter().any(|(left, there)| *there > 0 && matching(left, right)) {
                add(&mut expected, (right.0.clone(), None, Some(right.1.clone())), *count);
            }
        }
        expected
    }

    #[test]
    fn every_tick_is_as_brute_force_says() {
        let mut seed = 0;
        for kind in [OuterKind::Left, OuterKind::Right, OuterKind::Full] {
            for (residual, null_equal) in [(false, false), (false, true), (true, false), (true, true)] {
                for workers in [1, 2] {
                    seed += 1;
                    check(
                        workers,
                        seed,
                        &small_script(seed, 120, 2),
                        move |inputs| {
                            let [left, right]: [_; 2] = inputs.try_into().ok().expect("two inputs");
                            let (left, right) = (arrange(left, "Left"), arrange(right, "Right"));
                            outer_join(left, right, kind, residual, null_equal, "Outer", move |key, left, right| {
                                let pass = !residual || !left.zip(right).is_some_and(|(l, r)| rejected(l, r));
                                pass.then(|| (Row::from_bytes(key), left.map(Row::from_bytes), right.map(Row::from_bytes)))
                            })
                        },
                        |held| reference(held, kind, residual, null_equal),
                    );
                }
            }
        }
    }
}
