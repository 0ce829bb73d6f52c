//! Predicates taken apart: conjunctions, and comparisons of times as sums of terms.
//!
//! `e.ts >= o.ts - 7` and `o.ts - e.ts <= 7` say the same. As sums both are `e.ts - o.ts + 7 >= 0`, from which the range of
//! `e.ts - o.ts`, or the instant at which a comparison with the clock turns, can be read off.

use deltaworks_dataflow::{DataType, Datum, Row};

use super::unique::Columns;
use crate::expr::{BinaryOp, Function, ScalarExpr, UnaryOp};
use crate::plan::ClockVariable;

/// Microseconds of a day.
pub(crate) const DAY: i128 = 86_400_000_000;

/// The parts of a conjunction.
pub(crate) fn conjuncts(predicate: &ScalarExpr) -> Vec<ScalarExpr> {
    predicate.clone().into_conjuncts()
}

/// The column that a conjunct holds to one value: `c = literal`.
pub(crate) fn fixed_column(conjunct: &ScalarExpr) -> Option<usize> {
    let ScalarExpr::Binary { op: BinaryOp::Eq, left, right, .. } = conjunct else {
        return None;
    };
    match (left.as_column(), right.as_column()) {
        (Some(column), None) if right.as_literal().is_some() => Some(column),
        (None, Some(column)) if left.as_literal().is_some() => Some(column),
        _ => None,
    }
}

/// The row of constant expressions; None where one of them has to be computed.
pub(super) fn constant_row(expressions: &[ScalarExpr]) -> Option<Row> {
    let values: Option<Vec<Datum<'static>>> = expressions.iter().map(|e| e.as_literal().cloned()).collect();
    Some(Row::pack(values?))
}

/// `expression IS NULL`.
pub(super) fn is_null(expression: ScalarExpr) -> ScalarExpr {
    ScalarExpr::Unary { op: UnaryOp::IsNull, input: Box::new(expression) }
}

/// `expression IS NOT NULL`.
pub(super) fn is_not_null(expression: ScalarExpr) -> ScalarExpr {
    ScalarExpr::Unary { op: UnaryOp::IsNotNull, input: Box::new(expression) }
}

/// A NULL of a type.
pub(super) fn null(data_type: DataType) -> ScalarExpr {
    ScalarExpr::literal(Datum::Null, data_type)
}

/// The columns that an expression uses.
pub(crate) fn used(expression: &ScalarExpr) -> Columns {
    let mut columns = Columns::new();
    expression.columns(&mut columns);
    columns
}

/// The columns that some expressions use.
pub(crate) fn used_by<'a>(expressions: impl IntoIterator<Item = &'a ScalarExpr>) -> Columns {
    let mut columns = Columns::new();
    expressions.into_iter().for_each(|expression| expression.columns(&mut columns));
    columns
}

/// A sum of terms with whole coefficients, in the unit of its type (days, microseconds, or what an integer counts).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sum {
    /// Expressions that are no sums themselves, each once.
    pub(super) terms: Vec<(ScalarExpr, i128)>,
    /// What is added to them.
    pub(super) constant: i128,
}

impl Sum {
    fn constant(constant: i128) -> Self {
        Sum { terms: Vec::new(), constant }
    }
    fn term(expression: ScalarExpr) -> Self {
        Sum { terms: vec![(expression, 1)], constant: 0 }
    }
    fn plus(mut self, other: Sum, times: i128) -> Self {
        for (expression, coefficient) in other.terms {
            match self.terms.iter_mut().find(|(have, _)| *have == expression) {
                Some((_, have)) => *have += coefficient * times,
                None => self.terms.push((expression, coefficient * times)),
            }
        }
        self.terms.retain(|(_, coefficient)| *coefficient != 0);
        self.constant += other.constant * times;
        self
    }
    /// The sum of the same terms with every coefficient multiplied.
    pub(super) fn times(&self, times: i128) -> Sum {
        let terms = self.terms.iter().map(|(e, c)| (e.clone(), c * times)).collect();
        Sum { terms, constant: self.constant * times }
    }

    /// Reads an expression of a whole-number type as a sum. Overflow is not looked at: a time that is within the range of
    /// a comparison of the end of all numbers does not occur.
    pub(super) fn of(expression: &ScalarExpr) -> Sum {
        let opaque = || Sum::term(expression.clone());
        match expression {
            ScalarExpr::Literal { value: Datum::Int(value), .. } => Sum::constant(i128::from(*value)),
            ScalarExpr::Unary { op: UnaryOp::Negate, input } => Sum::of(input).times(-1),
            ScalarExpr::Cast { input, data_type } => Sum::of_cast(input, data_type).unwrap_or_else(opaque),
            ScalarExpr::Binary { op: op @ (BinaryOp::Plus | BinaryOp::Minus), left, right, data_type } => {
                let times = if *op == BinaryOp::Plus { 1 } else { -1 };
                Sum::of_sum(left, right, times, data_type).unwrap_or_else(opaque)
            }
            // DATEDIFF(end, start) counts days, as dates do.
            ScalarExpr::Call { function: Function::DateDiff, arguments, .. }
                if arguments.len() == 2 && arguments.iter().all(|argument| argument.data_type() == DataType::Date) =>
            {
                Sum::of(&arguments[0]).plus(Sum::of(&arguments[1]), -1)
            }
            ScalarExpr::Call { function: Function::ToLocal(zone) | Function::ToInstant(zone), arguments, .. }
                if *zone == chrono_tz::UTC && arguments.len() == 1 =>
            {
                Sum::of(&arguments[0])
            }
            _ => opaque(),
        }
    }
    fn of_cast(input: &ScalarExpr, data_type: &DataType) -> Option<Sum> {
        use DataType::{Date, Timestamp, TimestampLtz};
        let from = input.data_type();
        if is_widening(&from, data_type) || is_instant(&from) && is_instant(data_type) {
            return Some(Sum::of(input));
        }
        if from == Date && matches!(data_type, Timestamp | TimestampLtz) {
            let days = Sum::of(input);
            let midnight = |e: ScalarExpr| ScalarExpr::Cast { input: Box::new(e), data_type: Timestamp };
            let terms: Vec<_> = days.terms.into_iter().map(|(e, c)| (midnight(e), c)).collect();
            // Of two dates the difference is a number of days: no instant.
            return matches!(terms[..], [] | [(_, 1)]).then_some(Sum { terms, constant: days.constant * DAY });
        }
        None
    }
    fn of_sum(left: &ScalarExpr, right: &ScalarExpr, times: i128, data_type: &DataType) -> Option<Sum> {
        let (l, r) = (left.data_type(), right.data_type());
        let date = |date: &ScalarExpr, interval: &ScalarExpr, times: i128| {
            let interval = Sum::of(interval);
            let days = (interval.terms.is_empty() && interval.constant % DAY == 0).then_some(interval.constant / DAY)?;
            Some(Sum::of(date).plus(Sum::constant(days), times))
        };
        match (&l, &r) {
            (DataType::Date, DataType::IntervalDay) => match data_type {
                DataType::Date => date(left, right, times),
                // Dates become midnights where the result is an instant.
                _ => Some(Sum::of_cast(left, &DataType::Timestamp)?.plus(Sum::of(right), times)),
            },
            (DataType::IntervalDay, DataType::Date) if *data_type == DataType::Date && times == 1 => date(right, left, 1),
            (DataType::Date, DataType::Date) => None,
            (DataType::Date, _) | (_, DataType::Date) => {
                (is_integer(&l) || is_integer(&r)).then(|| Sum::of(left).plus(Sum::of(right), times))
            }
            _ if is_integer(&l) && is_integer(&r) || in_microseconds(&l) && in_microseconds(&r) => {
                Some(Sum::of(left).plus(Sum::of(right), times))
            }
            _ => None,
        }
    }
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt)
}
/// TIMESTAMP and TIMESTAMP_LTZ: casts between them keep the microseconds.
fn is_instant(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp | DataType::TimestampLtz)
}
fn in_microseconds(data_type: &DataType) -> bool {
    is_instant(data_type) || *data_type == DataType::IntervalDay
}
/// Whether the cast keeps every value.
fn is_widening(from: &DataType, to: &DataType) -> bool {
    let rank = |data_type: &DataType| match data_type {
        DataType::TinyInt => Some(1),
        DataType::SmallInt => Some(2),
        DataType::Int => Some(3),
        DataType::BigInt => Some(4),
        _ => None,
    };
    matches!((rank(from), rank(to)), (Some(from), Some(to)) if from <= to)
}

/// The expression below casts that keep order and tell all values apart: sorting by it is sorting by the expression.
pub(super) fn sorts_like(expression: &ScalarExpr) -> &ScalarExpr {
    match expression {
        ScalarExpr::Cast { input, data_type } => {
            let from = input.data_type();
            let kept = is_widening(&from, data_type)
                || is_instant(&from) && is_instant(data_type)
                || from == DataType::Date && is_instant(data_type);
            if kept { sorts_like(input) } else { expression }
        }
        ScalarExpr::Call { function: Function::ToTimestampLtz, arguments, .. }
            if arguments.get(1).is_none_or(|precision| precision.as_literal().is_some()) =>
        {
            arguments.first().map_or(expression, sorts_like)
        }
        _ => expression,
    }
}

/// A comparison as `sum op 0`.
pub(super) struct Comparison {
    /// Left side minus right side.
    pub(super) sum: Sum,
    /// `=`, `<`, `<=`, `>` or `>=`.
    pub(super) op: BinaryOp,
}

impl Comparison {
    /// Reads a comparison of whole-number types.
    pub(super) fn of(conjunct: &ScalarExpr) -> Option<Comparison> {
        let ScalarExpr::Binary { op, left, right, .. } = conjunct else {
            return None;
        };
        let ordered = matches!(op, BinaryOp::Eq | BinaryOp::Lt | BinaryOp::LtEq | BinaryOp::Gt | BinaryOp::GtEq);
        if !ordered || !left.data_type().is_int() || !right.data_type().is_int() {
            return None;
        }
        Some(Comparison { sum: Sum::of(left).plus(Sum::of(right), -1), op: *op })
    }
    /// The same comparison with the sum's sign turned.
    pub(super) fn negated(&self) -> Comparison {
        Comparison { sum: self.sum.times(-1), op: self.op.swapped().unwrap_or(self.op) }
    }
    /// The whole numbers that a value may have for `value op bound` to hold: first and last, where there are such.
    pub(super) fn range(op: BinaryOp, bound: i128) -> (Option<i128>, Option<i128>) {
        match op {
            BinaryOp::Gt => (Some(bound + 1), None),
            BinaryOp::GtEq => (Some(bound), None),
            BinaryOp::Lt => (None, Some(bound - 1)),
            BinaryOp::LtEq => (None, Some(bound)),
            _ => (Some(bound), Some(bound)),
        }
    }
}

/// What a comparison with the clock says: the row is present while `lower <= now < upper`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Presence {
    pub(super) lower: Option<ScalarExpr>,
    pub(super) upper: Option<ScalarExpr>,
}

/// Reads `clock ± constant op expression` in any arrangement of its terms.
pub(super) fn presence(conjunct: &ScalarExpr) -> Option<(ClockVariable, Presence)> {
    let comparison = Comparison::of(conjunct)?;
    let clock = comparison.sum.terms.iter().find_map(|(e, c)| Some((clock_of(e)?, e.clone(), *c)))?;
    let (variable, term, coefficient) = clock;
    let comparison = match coefficient {
        1 => comparison,
        -1 => comparison.negated(),
        _ => return None,
    };
    // clock + rest op 0, that is: clock op -rest.
    let mut bound = comparison.sum.times(-1);
    bound.terms.retain(|(e, _)| *e != term);
    let days = term.data_type() == DataType::Date;
    let unit = if days { DAY } else { 1 };
    let after = |add: i128| instant(&bound, days, add * unit);
    let presence = match comparison.op {
        BinaryOp::Gt => Presence { lower: Some(after(1)?), upper: None },
        BinaryOp::GtEq => Presence { lower: Some(after(0)?), upper: None },
        BinaryOp::Lt => Presence { lower: None, upper: Some(after(0)?) },
        BinaryOp::LtEq => Presence { lower: None, upper: Some(after(1)?) },
        _ => Presence { lower: Some(after(0)?), upper: Some(after(1)?) },
    };
    Some((variable, presence))
}

/// The variable, where a term is the clock itself or the midnight of its date.
fn clock_of(term: &ScalarExpr) -> Option<ClockVariable> {
    match term {
        ScalarExpr::Clock(variable) => Some(*variable),
        ScalarExpr::Cast { input, data_type: DataType::Timestamp } => match &**input {
            ScalarExpr::Clock(ClockVariable::CurrentDate) => Some(ClockVariable::CurrentDate),
            _ => None,
        },
        _ => None,
    }
}

/// The sum as an instant in microseconds, and some more microseconds behind it. None where it depends on the clock again or
/// is no instant.
fn instant(sum: &Sum, days: bool, more: i128) -> Option<ScalarExpr> {
    let scale = if days { DAY } else { 1 };
    let constant = i64::try_from(sum.constant * scale + more).ok()?;
    match &sum.terms[..] {
        [] => Some(ScalarExpr::literal(Datum::Int(constant), DataType::Timestamp)),
        [(term, 1)] => {
            let mut clocks = std::collections::BTreeSet::new();
            term.clocks(&mut clocks);
            let data_type = term.data_type();
            if !clocks.is_empty() || !(is_instant(&data_type) || data_type == DataType::Date) {
                return None;
            }
            let base = if is_instant(&data_type) { term.clone() } else { term.clone().cast_to(&DataType::Timestamp) };
            Some(moved(base, constant))
        }
        _ => None,
    }
}

/// `instant + microseconds`.
fn moved(instant: ScalarExpr, microseconds: i64) -> ScalarExpr {
    if microseconds == 0 {
        return instant;
    }
    let data_type = instant.data_type();
    let interval = ScalarExpr::literal(Datum::Int(microseconds), DataType::IntervalDay);
    ScalarExpr::Binary { op: BinaryOp::Plus, left: Box::new(instant), right: Box::new(interval), data_type }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(index: usize) -> ScalarExpr {
        ScalarExpr::column(index, DataType::BigInt)
    }
    fn arithmetic(op: BinaryOp, left: ScalarExpr, right: ScalarExpr) -> ScalarExpr {
        let data_type = left.data_type();
        ScalarExpr::Binary { op, left: Box::new(left), right: Box::new(right), data_type }
    }
    fn number(value: i64) -> ScalarExpr {
        ScalarExpr::literal(Datum::Int(value), DataType::BigInt)
    }

    #[test]
    fn the_same_range_written_in_several_ways_is_one_sum() {
        // #1 >= #0 - 7 and #0 - #1 <= 7
        let one = ScalarExpr::predicate(BinaryOp::GtEq, int(1), arithmetic(BinaryOp::Minus, int(0), number(7)));
        let other = ScalarExpr::predicate(BinaryOp::LtEq, arithmetic(BinaryOp::Minus, int(0), int(1)), number(7));
        let one = Comparison::of(&one).unwrap();
        let other = Comparison::of(&other).unwrap().negated();
        assert_eq!(one.sum.constant, other.sum.constant);
        assert_eq!(one.op, other.op);
        for (expression, coefficient) in &one.sum.terms {
            assert!(other.sum.terms.contains(&(expression.clone(), *coefficient)));
        }
    }

    #[test]
    fn terms_that_cancel_are_gone() {
        let sum = Sum::of(&arithmetic(BinaryOp::Minus, arithmetic(BinaryOp::Plus, int(0), number(3)), int(0)));
        assert_eq!(sum, Sum::constant(3));
    }

    #[test]
    fn a_date_moves_by_whole_days_only() {
        let date = ScalarExpr::column(0, DataType::Date);
        let interval = |micros: i128| ScalarExpr::literal(Datum::Int(micros as i64), DataType::IntervalDay);
        let moved = |micros| Sum::of(&arithmetic(BinaryOp::Minus, date.clone(), interval(micros)));
        assert_eq!(moved(2 * DAY), Sum { terms: vec![(date.clone(), 1)], constant: -2 });
        assert_eq!(moved(DAY / 2).constant, 0);
        assert!(moved(DAY / 2).terms[0].0 != date);
    }

    #[test]
    fn a_comparison_with_the_clock_is_a_presence() {
        // ts > now - 10 us: until now = ts + 10 us
        let ts = ScalarExpr::column(0, DataType::Timestamp);
        let interval = ScalarExpr::literal(Datum::Int(10), DataType::IntervalDay);
        let now = ScalarExpr::Clock(ClockVariable::Now);
        let test = ScalarExpr::predicate(BinaryOp::Gt, ts.clone(), arithmetic(BinaryOp::Minus, now, interval));
        let (variable, presence) = presence(&test).unwrap();
        assert_eq!(variable, ClockVariable::Now);
        assert_eq!(presence, Presence { lower: None, upper: Some(moved(ts, 10)) });
    }

    #[test]
    fn a_comparison_with_todays_date_turns_at_midnight() {
        // d >= today - 1 day: until the midnight two days after d
        let d = ScalarExpr::column(0, DataType::Date);
        let day = ScalarExpr::literal(Datum::Int(DAY as i64), DataType::IntervalDay);
        let today = ScalarExpr::Clock(ClockVariable::CurrentDate);
        let test = ScalarExpr::predicate(BinaryOp::GtEq, d.clone(), arithmetic(BinaryOp::Minus, today, day));
        let (_, presence) = presence(&test).unwrap();
        assert_eq!(presence.lower, None);
        assert_eq!(presence.upper, Some(moved(d.cast_to(&DataType::Timestamp), 2 * DAY as i64)));
    }
}
