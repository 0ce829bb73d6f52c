//! The linear join: the matching pairs of two arrangements.
//!
//! *Definition.* `out = { logic(k, l, r) : l in L(k), r in R(k) }`, counts multiplied; its change at time t is
//! `dL(t) x R(t) + L(t-1) x dR(t)`. `logic` is told how often the pair comes or goes; where it returns None, the pair is left out.
//!
//! *State.* The two shared arrangements; nothing is kept of the output.
//!
//! *On retraction.* A retracted row takes back exactly its pairs. A change costs one key lookup and its matches.
//!
//! *On ties, nulls, late rows.* Every pair counts, whatever the order of arrival. A key with a NULL field matches nothing,
//! except in [`linear_join_null_equal`].
//!
//! *Example.* L = (a, 1), R = (a, x) twice: (a, 1, x) twice.

use deltaworks_dataflow::{Arranged, Diff, Time};
use differential_dataflow::VecCollection;

use super::pair::{Moment, PairLogic, pair};

/// Joins two arrangements; a NULL in the key matches nothing.
pub fn linear_join<'s, D: Clone + 'static>(
    left: Arranged<'s>,
    right: Arranged<'s>,
    name: &str,
    logic: impl FnMut(&[u8], &[u8], &[u8], Diff) -> Option<D> + 'static,
) -> VecCollection<'s, Time, D, Diff> {
    pair(left, right, name, Linear { null_equal: false, logic })
}

/// Joins two arrangements by IS NOT DISTINCT FROM: NULL fields of the key match each other.
pub fn linear_join_null_equal<'s, D: Clone + 'static>(
    left: Arranged<'s>,
    right: Arranged<'s>,
    name: &str,
    logic: impl FnMut(&[u8], &[u8], &[u8], Diff) -> Option<D> + 'static,
) -> VecCollection<'s, Time, D, Diff> {
    pair(left, right, name, Linear { null_equal: true, logic })
}

struct Linear<F> {
    null_equal: bool,
    logic: F,
}
impl<D, F: FnMut(&[u8], &[u8], &[u8], Diff) -> Option<D>> PairLogic<D> for Linear<F> {
    fn null_equal(&self) -> bool {
        self.null_equal
    }
    fn step(&mut self, now: &mut Moment<'_, '_>, emit: &mut impl FnMut(D, Diff)) {
        matches(now, &mut self.logic, emit);
    }
}

/// Emits the changes of the matching pairs at one key and time.
pub(super) fn matches<D>(
    now: &mut Moment<'_, '_>,
    mut logic: impl FnMut(&[u8], &[u8], &[u8], Diff) -> Option<D>,
    emit: &mut impl FnMut(D, Diff),
) {
    if !now.matchable {
        return;
    }
    if !now.left.changes.is_empty() {
        let rights = now.right.scan.load(now.upto);
        for change in now.left.changes {
            for (right, count) in rights {
                let diff = change.diff * count;
                if let Some(row) = logic(now.key, change.value, right, diff) {
                    emit(row, diff);
                }
            }
        }
    }
    if !now.right.changes.is_empty() {
        let lefts = now.left.scan.load(now.before);
        for (left, count) in lefts {
            for change in now.right.changes {
                let diff = count * change.diff;
                if let Some(row) = logic(now.key, left, change.value, diff) {
                    emit(row, diff);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Multiset, Pair, check, small_script};
    use deltaworks_dataflow::Row;
    use deltaworks_dataflow::arrange::arrange;

    fn reference(held: &[Multiset<Pair>], null_equal: bool) -> Multiset<(Row, Row, Row)> {
        let mut expected = Multiset::new();
        for ((key, left), count) in &held[0] {
            for ((_, right), other) in held[1].iter().filter(|((other, _), _)| other == key) {
                if null_equal || !super::super::has_null(key) {
                    expected.insert((key.clone(), left.clone(), right.clone()), count * other);
                }
            }
        }
        expected
    }

    #[test]
    fn every_tick_is_as_brute_force_says() {
        for seed in 0..12 {
            let null_equal = seed % 2 == 1;
            check(
                [1, 2, 4][seed as usize % 3],
                seed,
                &small_script(seed, 150, 2),
                move |inputs| {
                    let [left, right]: [_; 2] = inputs.try_into().ok().expect("two inputs");
                    let (left, right) = (arrange(left, "Left"), arrange(right, "Right"));
                    let logic = |k: &[u8], l: &[u8], r: &[u8], _: Diff| {
                        Some((Row::from_bytes(k), Row::from_bytes(l), Row::from_bytes(r)))
                    };
                    if null_equal {
                        linear_join_null_equal(left, right, "Linear", logic)
                    } else {
                        linear_join(left, right, "Linear", logic)
                    }
                },
                |held| reference(held, null_equal),
            );
        }
    }

    #[test]
    fn a_collection_joins_itself() {
        check(
            2,
            7,
            &small_script(7, 100, 1),
            |mut inputs| {
                let both = arrange(inputs.remove(0), "Both");
                linear_join(both.clone(), both, "Linear", |k, l, r, _| {
                    Some((Row::from_bytes(k), Row::from_bytes(l), Row::from_bytes(r)))
                })
            },
            |held| reference(&[held[0].clone(), held[0].clone()], false),
        );
    }
}
