//! Ranges of time that a join's condition lets the right side have around the left.

use super::terms::{Comparison, used};
use crate::expr::ScalarExpr;

/// The bounds of `right time - left time`, each time over its own side's columns.
pub(super) struct TimeRange {
    pub(super) left: ScalarExpr,
    pub(super) right: ScalarExpr,
    pub(super) first: i128,
    pub(super) last: i128,
}

/// No bound.
const OPEN: i128 = i64::MAX as i128;

impl TimeRange {
    /// The range that a condition over left ++ right columns says, if it says one.
    pub(super) fn of(conjunct: &ScalarExpr, width: usize) -> Option<TimeRange> {
        let comparison = Comparison::of(conjunct)?;
        let is_right = |e: &ScalarExpr| used(e).iter().all(|c| *c >= width);
        let is_left = |e: &ScalarExpr| used(e).iter().all(|c| *c < width);
        let [one, other] = &comparison.sum.terms[..] else {
            return None;
        };
        let (right, left) = if is_right(&one.0) { (one, other) } else { (other, one) };
        if !is_right(&right.0) || !is_left(&left.0) || right.1 != -left.1 || right.1.abs() != 1 {
            return None;
        }
        let (left, right, coefficient) = (left.0.clone(), right.0.clone(), right.1);
        let comparison = if coefficient == 1 { comparison } else { comparison.negated() };
        let (first, last) = Comparison::range(comparison.op, -comparison.sum.constant);
        let right = right.map_columns(&|c| c - width);
        Some(TimeRange { left, right, first: first.unwrap_or(-OPEN), last: last.unwrap_or(OPEN) })
    }
    /// Both; None where they are about different times.
    pub(super) fn and(self, other: TimeRange) -> Option<TimeRange> {
        let same = self.left == other.left && self.right == other.right;
        same.then(|| TimeRange { first: self.first.max(other.first), last: self.last.min(other.last), ..self })
    }
}

/// The nearest bound that the operator knows.
pub(super) fn saturated(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { -i64::MAX } else { i64::MAX })
}
