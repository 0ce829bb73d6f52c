//! Text to values: one reader per SQL type, shared by JSON strings, CSV fields and raw keys.
//!
//! Nothing is guessed and nothing is rounded in secret: a number that does not fit is refused, except that a DECIMAL is
//! rounded to its scale, half away from zero, from the digits as they stand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaworks_dataflow::{DataType, Datum};
use std::borrow::Cow;

/// Why a text is not a value of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is written differently.
    Syntax,
    /// It is a value, but not one that the type holds.
    Range,
    /// A nested value is wrong: where, what it should be, and why.
    Nested(String, Box<DataType>, Box<Problem>, String),
    /// What else is wrong, in words.
    Other(String),
    /// The source left the value out (Debezium's unchanged TOAST values).
    Unavailable,
}

/// The longest part of a value that a reason quotes.
const QUOTED_CHARS_MAX: usize = 80;

/// A value as a reason quotes it.
pub(crate) fn quoted(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}..", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

impl Problem {
    /// The reason, for a value that was to be of `data_type` and was written as `found`.
    pub fn reason(&self, data_type: &DataType, found: &str) -> String {
        match self {
            Problem::Syntax => format!("expected {data_type}, found {}", quoted(found)),
            Problem::Range => format!("{} is out of range for {data_type}", quoted(found)),
            Problem::Nested(_, inner_type, inner, text) => inner.reason(inner_type, text),
            Problem::Other(reason) => reason.clone(),
            Problem::Unavailable => "the value was left out by its source".into(),
        }
    }
    /// Where in the column the problem lies, e.g. `.city` or `[2]`.
    pub fn place(&self) -> String {
        match self {
            Problem::Nested(place, _, inner, _) => format!("{place}{}", inner.place()),
            _ => String::new(),
        }
    }
}

/// What reading gives.
pub type Parsed<T> = Result<T, Problem>;

/// Reads the text form of a scalar type. STRING and BITMAP, ARRAY and STRUCT, whose text is JSON, are the caller's.
pub fn scalar(text: &str, data_type: &DataType) -> Parsed<Datum<'static>> {
    match data_type {
        DataType::Boolean => boolean(text).map(Datum::Bool),
        DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt => {
            integer(text, data_type).map(Datum::Int)
        }
        DataType::Float => float(text).map(Datum::Float),
        DataType::Double => double(text).map(Datum::Float),
        DataType::Decimal { precision, scale } => decimal(text, *precision, *scale).map(Datum::Decimal),
        DataType::Date => date(text).map(Datum::Int),
        DataType::Timestamp => timestamp(text, false).map(Datum::Int),
        DataType::TimestampLtz => timestamp(text, true).map(Datum::Int),
        DataType::IntervalDay => interval_day(text).map(Datum::Int),
        DataType::IntervalMonth => interval_month(text).map(Datum::Int),
        DataType::Bytes => bytes(text).map(|b| Datum::Bytes(Cow::Owned(b))),
        DataType::String => Ok(Datum::Str(Cow::Owned(text.to_owned()))),
        DataType::Bitmap | DataType::Array(_) | DataType::Struct(_) => Err(Problem::Syntax),
    }
}

/// `true` or `false`, in any case.
pub fn boolean(text: &str) -> Parsed<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(Problem::Syntax),
    }
}

/// Base64 with the standard alphabet.
pub fn bytes(text: &str) -> Parsed<Vec<u8>> {
    STANDARD.decode(text).map_err(|_| Problem::Syntax)
}

/// An integer of the type's width. `1.0` and `1e3` are integers, `1.5` is not.
#[inline]
pub fn integer(text: &str, data_type: &DataType) -> Parsed<i64> {
    let value = match plain_integer(text.as_bytes()) {
        Some(value) => value,
        None => {
            let number = scaled(text, 0)?;
            if !number.exact {
                return Err(Problem::Syntax);
            }
            i64::try_from(number.value).map_err(|_| Problem::Range)?
        }
    };
    let fits = match data_type {
        DataType::TinyInt => i8::try_from(value).is_ok(),
        DataType::SmallInt => i16::try_from(value).is_ok(),
        DataType::Int | DataType::Date | DataType::IntervalMonth => i32::try_from(value).is_ok(),
        _ => true,
    };
    if fits { Ok(value) } else { Err(Problem::Range) }
}
/// A sign and up to 18 digits: what cannot overflow.
#[inline]
fn plain_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

/// A number times a power of ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// The number times 10^scale, rounded half away from zero.
    pub value: i128,
    /// Whether nothing was rounded off.
    pub exact: bool,
}

/// A DECIMAL, scaled: rounded to its scale, refused beyond its precision.
#[inline]
pub fn decimal(text: &str, precision: u8, scale: i8) -> Parsed<i128> {
    let value = match short_decimal(text.as_bytes(), scale) {
        Some(value) => value,
        None => scaled(text, i64::from(scale))?.value,
    };
    if in_precision(value, precision) { Ok(value) } else { Err(Problem::Range) }
}
/// Whether a scaled decimal has at most that many digits.
pub fn in_precision(value: i128, precision: u8) -> bool {
    value.unsigned_abs() < 10u128.pow(u32::from(precision.min(38)))
}
/// The usual case: few digits, none beyond the scale, no exponent.
#[inline]
fn short_decimal(text: &[u8], scale: i8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 17 || !digits[0].is_ascii_digit() {
        return None;
    }
    let (mut value, mut fraction, mut point) = (0i64, 0i8, false);
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            value = value * 10 + i64::from(digit);
            fraction += i8::from(point);
        } else if *byte == b'.' && !point {
            point = true;
        } else {
            return None;
        }
    }
    let shift = i32::from(scale) - i32::from(fraction);
    if !(0..=18).contains(&shift) || (point && fraction == 0) {
        return None;
    }
    let value = i128::from(value) * i128::from(10i64.pow(shift as u32));
    Some(if negative { -value } else { value })
}

/// Any decimal number (`-12.5e3`) times 10^scale, in whole digits, however long it is written.
pub fn scaled(text: &str, scale: i64) -> Parsed<Scaled> {
    let (negative, number) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let end = number.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(number.len());
    let exponent = if end < number.len() { exponent(&number[end + 1..])? } else { 0 };
    let (whole, fraction) = match number[..end].iter().position(|byte| *byte == b'.') {
        Some(point) => (&number[..point], &number[point + 1..end]),
        None => (&number[..end], &[][..]),
    };
    if whole.len() + fraction.len() == 0 || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(Problem::Syntax);
    }
    let shift = exponent.saturating_add(scale);
    let digits = whole.iter().chain(fraction).map(|byte| byte - b'0');
    let unsigned = shifted(digits, whole.len() as i64, shift)?;
    Ok(Scaled { value: if negative { -unsigned.value } else { unsigned.value }, ..unsigned })
}
fn exponent(text: &[u8]) -> Parsed<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Problem::Syntax);
    }
    let fold = |sum: i64, byte: &u8| sum.saturating_mul(10).saturating_add(i64::from(byte - b'0'));
    let value = digits.iter().fold(0i64, fold).min(1 << 40);
    Ok(if negative { -value } else { value })
}
/// The number whose digits are `digits`, the point standing after `whole` of them and then moved right by `shift`.
fn shifted(digits: impl Iterator<Item = u8>, whole: i64, shift: i64) -> Parsed<Scaled> {
    let kept = whole.saturating_add(shift);
    let (mut value, mut exact, mut round_up, mut count) = (0i128, true, false, 0i64);
    for digit in digits {
        if count < kept {
            value = times_ten(value, digit)?;
        } else {
            exact &= digit == 0;
            round_up |= count == kept && digit >= 5;
        }
        count += 1;
    }
    if value != 0 {
        for _ in count..kept {
            value = times_ten(value, 0)?;
        }
    }
    if round_up {
        value = value.checked_add(1).ok_or(Problem::Range)?;
    }
    Ok(Scaled { value, exact })
}
fn times_ten(value: i128, digit: u8) -> Parsed<i128> {
    value.checked_mul(10).and_then(|value| value.checked_add(i128::from(digit))).ok_or(Problem::Range)
}

/// A DOUBLE: a number, `NaN`, `Infinity` or `-Infinity`.
pub fn double(text: &str) -> Parsed<f64> {
    match special(text) {
        Some(value) => Ok(value),
        None => finite(number_text(text)?.parse::<f64>().map_err(|_| Problem::Syntax)?),
    }
}
/// A FLOAT, rounded once from the text.
pub fn float(text: &str) -> Parsed<f64> {
    match special(text) {
        Some(value) => Ok(value),
        None => finite(f64::from(number_text(text)?.parse::<f32>().map_err(|_| Problem::Syntax)?)),
    }
}
fn special(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" | "+Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}
/// Leaves out the words that Rust takes for numbers.
fn number_text(text: &str) -> Parsed<&str> {
    let numeric = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    if text.bytes().all(numeric) { Ok(text) } else { Err(Problem::Syntax) }
}
fn finite(value: f64) -> Parsed<f64> {
    if value.is_finite() { Ok(value) } else { Err(Problem::Range) }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
pub fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}
/// The number of days of a month; 0 where there is no such month.
fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => 0,
    }
}
/// The day of a date that exists.
pub(crate) fn checked_day(year: i64, month: i64, day: i64) -> Parsed<i64> {
    if day >= 1 && day <= days_in_month(year, month) { Ok(days_from_date(year, month, day)) } else { Err(Problem::Range) }
}

/// Reads fixed shapes off the front of a text.
struct Scanner<'a>(&'a [u8]);
impl Scanner<'_> {
    fn digits(&mut self, count: usize) -> Parsed<i64> {
        let digits = self.0.get(..count).filter(|digits| digits.iter().all(u8::is_ascii_digit)).ok_or(Problem::Syntax)?;
        let value = digits.iter().fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0'));
        self.0 = &self.0[count..];
        Ok(value)
    }
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> Option<u8> {
        let (first, rest) = self.0.split_first().filter(|(first, _)| wanted(**first))?;
        self.0 = rest;
        Some(*first)
    }
    fn expect(&mut self, byte: u8) -> Parsed<()> {
        self.take(|found| found == byte).map(|_| ()).ok_or(Problem::Syntax)
    }
    fn end(&self) -> Parsed<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::Syntax) }
    }
    fn day(&mut self) -> Parsed<i64> {
        let year = self.digits(4)?;
        self.expect(b'-')?;
        let month = self.digits(2)?;
        self.expect(b'-')?;
        let day = self.digits(2)?;
        checked_day(year, month, day)
    }
    /// Microseconds since midnight.
    fn clock(&mut self) -> Parsed<i64> {
        let hour = self.digits(2)?;
        self.expect(b':')?;
        let minute = self.digits(2)?;
        let second = if self.take(|byte| byte == b':').is_some() { self.digits(2)? } else { 0 };
        let micros = if self.take(|byte| matches!(byte, b'.' | b',')).is_some() { self.fraction()? } else { 0 };
        if hour > 23 || minute > 59 || second > 59 {
            return Err(Problem::Range);
        }
        Ok((hour * 3600 + minute * 60 + second) * 1_000_000 + micros)
    }
    /// Up to 9 digits after the point, as microseconds; those after the sixth are cut.
    fn fraction(&mut self) -> Parsed<i64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 || count > 9 {
            return Err(Problem::Syntax);
        }
        let value = self.digits(count)?;
        Ok(if count <= 6 { value * 10i64.pow(6 - count as u32) } else { value / 10i64.pow(count as u32 - 6) })
    }
    /// `Z`, `+02:00`, `+0200` or `+02`, in seconds; None where nothing stands.
    fn zone(&mut self) -> Parsed<Option<i64>> {
        self.take(|byte| byte == b' ');
        match self.take(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-')) {
            None => Ok(None),
            Some(b'Z' | b'z') => Ok(Some(0)),
            Some(sign) => {
                let hours = self.digits(2)?;
                let colon = self.take(|byte| byte == b':').is_some();
                let minutes = if colon || !self.0.is_empty() { self.digits(2)? } else { 0 };
                if hours > 18 || minutes > 59 {
                    return Err(Problem::Range);
                }
                let seconds = hours * 3600 + minutes * 60;
                Ok(Some(if sign == b'-' { -seconds } else { seconds }))
            }
        }
    }
}

/// A DATE, `2026-05-01`, in days since 1970.
pub fn date(text: &str) -> Parsed<i64> {
    let mut scanner = Scanner(text.as_bytes());
    let day = scanner.day()?;
    scanner.end()?;
    Ok(day)
}

/// A timestamp in microseconds since 1970: `2026-05-01 09:00:00.123` or with `T`; a date alone is its midnight.
///
/// With `zoned` (TIMESTAMP_LTZ) a zone may follow and UTC is meant without one; else a zone is refused, because leaving it
/// out would move the time.
pub fn timestamp(text: &str, zoned: bool) -> Parsed<i64> {
    let mut scanner = Scanner(text.as_bytes());
    let midnight = scanner.day()? * 86_400_000_000;
    if scanner.0.is_empty() {
        return Ok(midnight);
    }
    scanner.take(|byte| matches!(byte, b' ' | b'T' | b't')).ok_or(Problem::Syntax)?;
    let clock = scanner.clock()?;
    let zone = scanner.zone()?;
    scanner.end()?;
    match zone {
        Some(_) if !zoned => Err(Problem::Other(format!(
            "expected TIMESTAMP, found {} with a time zone; TIMESTAMP_LTZ holds it",
            quoted(text)
        ))),
        zone => Ok(midnight + clock - zone.unwrap_or(0) * 1_000_000),
    }
}

/// An INTERVAL DAY TO SECOND, `P3DT4H5M6.789S`, in microseconds.
pub fn interval_day(text: &str) -> Parsed<i64> {
    let unit = |letter: u8, time: bool| match (letter, time) {
        (b'W', false) => Some(7 * 86_400_000_000),
        (b'D', false) => Some(86_400_000_000),
        (b'H', true) => Some(3_600_000_000),
        (b'M', true) => Some(60_000_000),
        (b'S', true) => Some(1_000_000),
        _ => None,
    };
    interval(text, unit)
}
/// An INTERVAL YEAR TO MONTH, `P1Y2M`, in months.
pub fn interval_month(text: &str) -> Parsed<i64> {
    let unit = |letter: u8, time: bool| match (letter, time) {
        (b'Y', false) => Some(12),
        (b'M', false) => Some(1),
        _ => None,
    };
    let months = interval(text, unit)?;
    if i32::try_from(months).is_ok() { Ok(months) } else { Err(Problem::Range) }
}
/// The sum of the parts of an ISO 8601 duration, by the size of each part's unit. Signs may stand before `P` and before parts.
fn interval(text: &str, unit: impl Fn(u8, bool) -> Option<i64>) -> Parsed<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut rest = rest.strip_prefix('P').ok_or(Problem::Syntax)?;
    let (mut total, mut time, mut parts) = (0i64, false, 0);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('T').filter(|_| !time) {
            (rest, time) = (after, true);
            continue;
        }
        let end = rest.bytes().position(|byte| byte.is_ascii_alphabetic()).ok_or(Problem::Syntax)?;
        let size = unit(rest.as_bytes()[end], time).ok_or(Problem::Syntax)?;
        let part = scaled(&rest[..end], 6)?.value.checked_mul(i128::from(size)).ok_or(Problem::Range)?;
        let part = i64::try_from(part / 1_000_000).map_err(|_| Problem::Range)?;
        total = total.checked_add(part).ok_or(Problem::Range)?;
        (rest, parts) = (&rest[end + 1..], parts + 1);
    }
    if parts == 0 {
        return Err(Problem::Syntax);
    }
    Ok(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MICROS: i64 = 1_000_000;

    #[test]
    fn decimals_are_exact() {
        let cases: [(&str, u8, i8, Parsed<i128>); 22] = [
            ("0.1", 38, 38, Ok(10i128.pow(37))),
            ("214.40", 10, 2, Ok(21440)),
            ("214.4", 10, 2, Ok(21440)),
            ("-0.005", 10, 2, Ok(-1)),
            ("0.005", 10, 2, Ok(1)),
            ("0.00499999999999999999999999999999999999999999999999999", 10, 2, Ok(0)),
            ("0.0049999999999999999", 10, 2, Ok(0)),
            ("1e2", 5, 2, Ok(10000)),
            ("12.5E-1", 5, 2, Ok(125)),
            ("1e-400", 5, 2, Ok(0)),
            ("0e99999999999999999999", 5, 2, Ok(0)),
            ("1e99999999999999999999", 5, 2, Err(Problem::Range)),
            ("99999999999999999999999999999999999999", 38, 0, Ok(10i128.pow(38) - 1)),
            ("100000000000000000000000000000000000000", 38, 0, Err(Problem::Range)),
            ("999.995", 5, 2, Err(Problem::Range)),
            ("1234.5", 5, 2, Err(Problem::Range)),
            ("9007199254740993", 20, 0, Ok(9007199254740993)),
            ("1550", 10, -2, Ok(16)),
            ("", 5, 2, Err(Problem::Syntax)),
            (".", 5, 2, Err(Problem::Syntax)),
            ("1.2.3", 5, 2, Err(Problem::Syntax)),
            ("0x1", 5, 2, Err(Problem::Syntax)),
        ];
        for (text, precision, scale, expected) in cases {
            assert_eq!(decimal(text, precision, scale), expected, "{text}");
        }
    }

    #[test]
    fn integers_are_checked() {
        assert_eq!(integer("9223372036854775807", &DataType::BigInt), Ok(i64::MAX));
        assert_eq!(integer("-9223372036854775808", &DataType::BigInt), Ok(i64::MIN));
        assert_eq!(integer("9223372036854775808", &DataType::BigInt), Err(Problem::Range));
        assert_eq!(integer("128", &DataType::TinyInt), Err(Problem::Range));
        assert_eq!(integer("-32769", &DataType::SmallInt), Err(Problem::Range));
        assert_eq!(integer("2147483648", &DataType::Int), Err(Problem::Range));
        assert_eq!(integer("1e3", &DataType::Int), Ok(1000));
        assert_eq!(integer("7.0", &DataType::Int), Ok(7));
        for text in ["1.5", "", "-", "1 ", "abc", "--1"] {
            assert_eq!(integer(text, &DataType::Int), Err(Problem::Syntax), "{text}");
        }
    }

    #[test]
    fn floats() {
        assert_eq!(double("0.1"), Ok(0.1));
        assert_eq!(float("0.1"), Ok(f64::from(0.1f32)));
        assert!(double("NaN").is_ok_and(f64::is_nan));
        assert_eq!(double("-Infinity"), Ok(f64::NEG_INFINITY));
        assert_eq!(double("1e999"), Err(Problem::Range));
        assert_eq!(float("1e39"), Err(Problem::Range));
        assert_eq!(double("inf"), Err(Problem::Syntax));
    }

    #[test]
    fn timestamps() {
        let at = |day: i64, seconds: i64, micros: i64| Ok((day * 86400 + seconds) * MICROS + micros);
        assert_eq!(date("1970-01-01"), Ok(0));
        assert_eq!(date("2024-02-29"), Ok(19782));
        assert_eq!(date("1969-12-31"), Ok(-1));
        assert_eq!(date("2023-02-29"), Err(Problem::Range));
        assert_eq!(date("2023-2-9"), Err(Problem::Syntax));
        assert_eq!(timestamp("1970-01-02 01:02:03.5", false), at(1, 3723, 500_000));
        assert_eq!(timestamp("1970-01-02T01:02:03.123456789", false), at(1, 3723, 123_456));
        assert_eq!(timestamp("1970-01-02", false), at(1, 0, 0));
        assert_eq!(timestamp("1970-01-02T01:02:03Z", true), at(1, 3723, 0));
        assert_eq!(timestamp("1970-01-02 01:02:03+01:00", true), at(1, 123, 0));
        assert_eq!(timestamp("1970-01-02 01:02-0130", true), at(1, 3720 + 5400, 0));
        assert_eq!(timestamp("1970-01-02 24:00:00", true), Err(Problem::Range));
        assert_eq!(timestamp("1970-01-02 01:02:03x", true), Err(Problem::Syntax));
        assert!(matches!(timestamp("1970-01-02T01:02:03Z", false), Err(Problem::Other(_))));
    }

    #[test]
    fn intervals() {
        assert_eq!(interval_day("P3DT4H5M6.789S"), Ok(((3 * 24 + 4) * 3600 + 5 * 60 + 6) * MICROS + 789_000));
        assert_eq!(interval_day("-PT1S"), Ok(-MICROS));
        assert_eq!(interval_day("PT-1.5S"), Ok(-1_500_000));
        assert_eq!(interval_day("P2W"), Ok(14 * 86400 * MICROS));
        assert_eq!(interval_day("PT9223372036854.775807S"), Ok(i64::MAX));
        assert_eq!(interval_month("P1Y2M"), Ok(14));
        for text in ["P", "PT", "", "1D", "P1H", "PT1D", "P1Y", "PT1M2"] {
            assert_eq!(interval_day(text), Err(Problem::Syntax), "{text}");
        }
        assert_eq!(interval_day("P999999999999D"), Err(Problem::Range));
    }

    proptest! {
        #[test]
        fn short_and_long_decimals_agree(whole in 0u64..100_000_000, fraction in "[0-9]{0,6}", scale in 0i8..9, negative: bool) {
            let sign = if negative { "-" } else { "" };
            let text = if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
            let long = scaled(&text, i64::from(scale)).expect("a number");
            prop_assert_eq!(decimal(&text, 38, scale), Ok(long.value));
            if let Some(short) = short_decimal(text.as_bytes(), scale) {
                prop_assert_eq!(short, long.value);
            }
        }

        #[test]
        fn no_text_panics(text in prop_oneof![".*", "[-+0-9.eEPTDHMSYZ: ]{0,30}"]) {
            let types = [DataType::Boolean, DataType::TinyInt, DataType::BigInt, DataType::Float, DataType::Double,
                DataType::Decimal { precision: 38, scale: 10 }, DataType::Decimal { precision: 5, scale: -3 }, DataType::Date,
                DataType::Timestamp, DataType::TimestampLtz, DataType::IntervalDay, DataType::IntervalMonth, DataType::Bytes];
            for data_type in types {
                if let Err(problem) = scalar(&text, &data_type) {
                    prop_assert!(!problem.reason(&data_type, &text).is_empty());
                }
            }
        }

        #[test]
        fn dates_count_on(day in -700_000i64..2_900_000) {
            let date = date_by_counting(day);
            prop_assert_eq!(days_from_date(date.0, date.1, date.2), day);
        }
    }
    /// The naive way back: year by year, month by month.
    fn date_by_counting(mut day: i64) -> (i64, i64, i64) {
        let mut year = 1970i64;
        let size = |year: i64| (1..=12).map(|month| days_in_month(year, month)).sum::<i64>();
        while day < 0 {
            year -= 1;
            day += size(year);
        }
        while day >= size(year) {
            day -= size(year);
            year += 1;
        }
        let mut month = 1;
        while day >= days_in_month(year, month) {
            day -= days_in_month(year, month);
            month += 1;
        }
        (year, month, day + 1)
    }
}
