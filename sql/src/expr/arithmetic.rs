//! Arithmetic that knows when it has no answer: overflow and division by zero are faults, never wrapped values.
//!
//! | operands | result |
//! |---|---|
//! | integers | the type given; `/` truncates towards zero |
//! | floats | one rounding; `/` and `%` by zero are faults; zero and NaN are canonical |
//! | decimals | the exact value, rounded half away from zero to the scale given |
//! | DATE, TIMESTAMP, intervals | a difference of timestamps is INTERVAL DAY TO SECOND, of dates a number of days |

use chrono::{DateTime, Days, Months, NaiveDate, NaiveDateTime};
use datafusion::arrow::datatypes::i256;
use deltaworks_dataflow::{DataType, Datum};

use super::BinaryOp;

/// Microseconds of a day.
pub(crate) const DAY: i64 = 86_400_000_000;

/// Why a value cannot be computed. What failed is known where it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault;

/// The result of an operator of two operands; NULL if either is.
pub(crate) fn arithmetic(
    op: BinaryOp,
    left: &Datum<'_>,
    left_type: &DataType,
    right: &Datum<'_>,
    right_type: &DataType,
    to: &DataType,
) -> Result<Datum<'static>, Fault> {
    match (left, right) {
        (Datum::Null, _) | (_, Datum::Null) => Ok(Datum::Null),
        (Datum::Float(a), Datum::Float(b)) => float(op, *a, *b, to).map(Datum::Float),
        _ if matches!(to, DataType::Decimal { .. }) => {
            decimal(op, wide(left)?, scale_of(left_type), wide(right)?, scale_of(right_type), to).map(Datum::Decimal)
        }
        (Datum::Int(a), Datum::Int(b)) => integer(op, *a, left_type, *b, right_type, to).map(Datum::Int),
        _ => Err(Fault),
    }
}

/// The same over values that are held as integers.
#[inline]
pub(crate) fn integer(
    op: BinaryOp,
    a: i64,
    left_type: &DataType,
    b: i64,
    right_type: &DataType,
    to: &DataType,
) -> Result<i64, Fault> {
    let value = match (left_type, right_type) {
        (DataType::Date, DataType::IntervalDay) => date_plus(a, b, op == BinaryOp::Minus)?,
        (DataType::IntervalDay, DataType::Date) => date_plus(b, a, false)?,
        (DataType::Date | DataType::Timestamp | DataType::TimestampLtz, DataType::IntervalMonth) => {
            plus_months(a, left_type, if op == BinaryOp::Minus { b.checked_neg().ok_or(Fault)? } else { b })?
        }
        (DataType::IntervalMonth, DataType::Date | DataType::Timestamp | DataType::TimestampLtz) => {
            plus_months(b, right_type, a)?
        }
        _ => whole(op, a, b)?,
    };
    in_range(value, to)
}
/// The operators of 64-bit integers.
#[inline]
pub(crate) fn whole(op: BinaryOp, a: i64, b: i64) -> Result<i64, Fault> {
    match op {
        BinaryOp::Plus => a.checked_add(b),
        BinaryOp::Minus => a.checked_sub(b),
        BinaryOp::Multiply => a.checked_mul(b),
        BinaryOp::Divide => a.checked_div(b),
        BinaryOp::Modulo => (b != 0).then(|| a.wrapping_rem(b)),
        _ => None,
    }
    .ok_or(Fault)
}
/// The value, where the type holds it.
#[inline]
pub(crate) fn in_range(value: i64, to: &DataType) -> Result<i64, Fault> {
    let fits = match to {
        DataType::TinyInt => i8::try_from(value).is_ok(),
        DataType::SmallInt => i16::try_from(value).is_ok(),
        DataType::Int | DataType::Date | DataType::IntervalMonth => i32::try_from(value).is_ok(),
        _ => true,
    };
    if fits { Ok(value) } else { Err(Fault) }
}

fn date_plus(days: i64, micros: i64, minus: bool) -> Result<i64, Fault> {
    let at = days.checked_mul(DAY).ok_or(Fault)?;
    let moved = if minus { at.checked_sub(micros) } else { at.checked_add(micros) };
    Ok(moved.ok_or(Fault)?.div_euclid(DAY))
}
/// Adds months; a day that the month does not have becomes its last.
fn plus_months(value: i64, data_type: &DataType, months: i64) -> Result<i64, Fault> {
    let count = Months::new(u32::try_from(months.unsigned_abs()).map_err(|_| Fault)?);
    if *data_type == DataType::Date {
        let date = date_of(value)?;
        let moved = if months < 0 { date.checked_sub_months(count) } else { date.checked_add_months(count) };
        return Ok(days_of(moved.ok_or(Fault)?));
    }
    let at = datetime_of(value)?;
    let moved = if months < 0 { at.checked_sub_months(count) } else { at.checked_add_months(count) };
    Ok(moved.ok_or(Fault)?.and_utc().timestamp_micros())
}
/// The date of a number of days since 1970-01-01.
pub(crate) fn date_of(days: i64) -> Result<NaiveDate, Fault> {
    let epoch = DateTime::UNIX_EPOCH.date_naive();
    let moved = if days < 0 {
        epoch.checked_sub_days(Days::new(days.unsigned_abs()))
    } else {
        epoch.checked_add_days(Days::new(days.unsigned_abs()))
    };
    moved.ok_or(Fault)
}
/// Days since 1970-01-01.
pub(crate) fn days_of(date: NaiveDate) -> i64 {
    date.signed_duration_since(DateTime::UNIX_EPOCH.date_naive()).num_days()
}
/// The date and time of a number of microseconds since 1970-01-01.
pub(crate) fn datetime_of(micros: i64) -> Result<NaiveDateTime, Fault> {
    DateTime::from_timestamp_micros(micros).map(|at| at.naive_utc()).ok_or(Fault)
}

fn float(op: BinaryOp, a: f64, b: f64, to: &DataType) -> Result<f64, Fault> {
    let value = match op {
        BinaryOp::Plus => a + b,
        BinaryOp::Minus => a - b,
        BinaryOp::Multiply => a * b,
        BinaryOp::Divide if b != 0.0 => a / b,
        BinaryOp::Modulo if b != 0.0 => a % b,
        _ => return Err(Fault),
    };
    Ok(canonical(if *to == DataType::Float { f64::from(value as f32) } else { value }))
}
/// One zero and one NaN.
pub(crate) fn canonical(value: f64) -> f64 {
    if value.is_nan() { f64::NAN.abs() } else { value + 0.0 }
}

fn wide(value: &Datum<'_>) -> Result<i128, Fault> {
    match value {
        Datum::Int(value) => Ok(i128::from(*value)),
        Datum::Decimal(value) => Ok(*value),
        _ => Err(Fault),
    }
}
fn scale_of(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal { scale, .. } => i32::from(*scale),
        _ => 0,
    }
}
fn decimal(op: BinaryOp, a: i128, a_scale: i32, b: i128, b_scale: i32, to: &DataType) -> Result<i128, Fault> {
    let to_scale = scale_of(to);
    let value = match op {
        BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Modulo => {
            let scale = a_scale.max(b_scale);
            let (a, b) = (scaled(a, scale - a_scale)?, scaled(b, scale - b_scale)?);
            let value = match op {
                BinaryOp::Plus => a.checked_add(b),
                BinaryOp::Minus => a.checked_sub(b),
                _ if b == i256::ZERO => None,
                _ => a.checked_rem(b),
            };
            rescaled(value.ok_or(Fault)?, to_scale - scale)?
        }
        BinaryOp::Multiply => {
            let product = i256::from_i128(a).checked_mul(i256::from_i128(b)).ok_or(Fault)?;
            rescaled(product, to_scale - a_scale - b_scale)?
        }
        BinaryOp::Divide if b != 0 => {
            let shift = to_scale - a_scale + b_scale;
            if shift >= 0 {
                divided(scaled(a, shift)?, i256::from_i128(b))?
            } else {
                divided(i256::from_i128(a), scaled(b, -shift)?)?
            }
        }
        _ => return Err(Fault),
    };
    in_precision(value.to_i128().ok_or(Fault)?, to)
}
/// The value, where the decimal type has digits enough.
pub(crate) fn in_precision(value: i128, to: &DataType) -> Result<i128, Fault> {
    let DataType::Decimal { precision, .. } = to else { return Ok(value) };
    let limit = 10u128.checked_pow(u32::from(*precision)).ok_or(Fault)?;
    if value.unsigned_abs() < limit { Ok(value) } else { Err(Fault) }
}
fn power(exponent: i32) -> Result<i256, Fault> {
    i256::from_i128(10).checked_pow(u32::try_from(exponent).map_err(|_| Fault)?).ok_or(Fault)
}
fn scaled(value: i128, by: i32) -> Result<i256, Fault> {
    i256::from_i128(value).checked_mul(power(by)?).ok_or(Fault)
}
/// The value times ten to a power, rounded half away from zero.
fn rescaled(value: i256, by: i32) -> Result<i256, Fault> {
    if by >= 0 { value.checked_mul(power(by)?).ok_or(Fault) } else { divided(value, power(-by)?) }
}
/// The quotient, rounded half away from zero.
fn divided(value: i256, by: i256) -> Result<i256, Fault> {
    let quotient = value.checked_div(by).ok_or(Fault)?;
    let rest = value.checked_rem(by).ok_or(Fault)?.wrapping_abs();
    let magnitude = by.wrapping_abs();
    if rest < magnitude.wrapping_sub(rest) {
        return Ok(quotient);
    }
    let away = if (value < i256::ZERO) == (by < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
    quotient.checked_add(away).ok_or(Fault)
}
/// A decimal in another scale and precision, rounded half away from zero.
pub(crate) fn rescale(value: i128, from: i32, to: &DataType) -> Result<i128, Fault> {
    let by = scale_of(to) - from;
    if by == 0 {
        return in_precision(value, to);
    }
    if let (1..=18, Ok(narrow)) = (by, i64::try_from(value)) {
        return in_precision(i128::from(narrow) * 10i128.pow(by as u32), to);
    }
    in_precision(rescaled(i256::from_i128(value), by)?.to_i128().ok_or(Fault)?, to)
}

/// The value with its sign turned.
pub(crate) fn negate(value: &Datum<'_>, data_type: &DataType) -> Result<Datum<'static>, Fault> {
    Ok(match value {
        Datum::Int(value) => Datum::Int(in_range(value.checked_neg().ok_or(Fault)?, data_type)?),
        Datum::Decimal(value) => Datum::Decimal(value.checked_neg().ok_or(Fault)?),
        Datum::Float(value) => Datum::Float(canonical(-value)),
        Datum::Null => Datum::Null,
        _ => return Err(Fault),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: DataType = DataType::BigInt;

    fn dec(precision: u8, scale: i8) -> DataType {
        DataType::Decimal { precision, scale }
    }

    #[test]
    fn integers_do_not_wrap() {
        let int = |op, a, b, to: &DataType| integer(op, a, to, b, to, to);
        assert_eq!(int(BinaryOp::Plus, i64::MAX, 1, &BIG), Err(Fault));
        assert_eq!(int(BinaryOp::Plus, 100, 28, &DataType::TinyInt), Err(Fault));
        assert_eq!(int(BinaryOp::Divide, i64::MIN, -1, &BIG), Err(Fault));
        assert_eq!(int(BinaryOp::Modulo, i64::MIN, -1, &BIG), Ok(0));
        assert_eq!(int(BinaryOp::Divide, -7, 2, &BIG), Ok(-3));
        assert_eq!(int(BinaryOp::Modulo, 7, 0, &BIG), Err(Fault));
    }

    #[test]
    fn decimals_round_half_away_from_zero() {
        // 2.00 / 3 = 0.6667, -2.00 / 3 = -0.6667, 1 / 8 at two digits = 0.13
        assert_eq!(decimal(BinaryOp::Divide, 200, 2, 3, 0, &dec(10, 4)), Ok(6667));
        assert_eq!(decimal(BinaryOp::Divide, -200, 2, 3, 0, &dec(10, 4)), Ok(-6667));
        assert_eq!(decimal(BinaryOp::Divide, 1, 0, -8, 0, &dec(10, 2)), Ok(-13));
        assert_eq!(decimal(BinaryOp::Divide, 1, 0, 0, 2, &dec(10, 2)), Err(Fault));
        assert_eq!(decimal(BinaryOp::Multiply, 15, 1, 15, 1, &dec(10, 1)), Ok(23));
        assert_eq!(decimal(BinaryOp::Plus, 99, 0, 1, 0, &dec(2, 0)), Err(Fault));
        let wide = 10i128.pow(37);
        assert_eq!(decimal(BinaryOp::Multiply, wide, 30, wide, 30, &dec(38, 23)), Ok(10i128.pow(37)));
    }

    #[test]
    fn months_end_on_the_last_day() {
        let day = |y, m, d| days_of(NaiveDate::from_ymd_opt(y, m, d).unwrap());
        let plus = |a, b| integer(BinaryOp::Plus, a, &DataType::Date, b, &DataType::IntervalMonth, &DataType::Date);
        assert_eq!(plus(day(2024, 1, 31), 1), Ok(day(2024, 2, 29)));
        assert_eq!(plus(day(2024, 3, 31), -1), Ok(day(2024, 2, 29)));
        assert_eq!(date_plus(0, -1, false), Ok(-1));
    }

    #[test]
    fn floats_have_one_zero() {
        let times = float(BinaryOp::Multiply, -1.0, 0.0, &DataType::Double).unwrap();
        assert!(times == 0.0 && times.is_sign_positive());
        assert_eq!(float(BinaryOp::Divide, 1.0, 0.0, &DataType::Double), Err(Fault));
        assert_eq!(float(BinaryOp::Plus, 0.1, 0.2, &DataType::Float), Ok(f64::from(0.1f64 as f32 + 0.2f32)));
    }
}
