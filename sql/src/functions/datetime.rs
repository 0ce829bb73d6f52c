//! Functions of dates and times.

use std::borrow::Cow;
use std::fmt;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Offset, TimeZone, Timelike};
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use deltaworks_dataflow::{DataType, Datum};

use crate::expr::Function;
use crate::expr::arithmetic::{DAY, Fault, date_of, datetime_of, days_of};

const SECOND: i64 = 1_000_000;

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Years.
    Year,
    /// Quarters.
    Quarter,
    /// Months.
    Month,
    /// Weeks, which start on Monday.
    Week,
    /// Days.
    Day,
    /// Hours.
    Hour,
    /// Minutes.
    Minute,
    /// Seconds.
    Second,
    /// Milliseconds.
    Millisecond,
}

impl Unit {
    /// The unit of that name, in any case.
    pub(crate) fn of(name: &str) -> Option<Unit> {
        Some(match name.to_ascii_lowercase().as_str() {
            "year" => Unit::Year,
            "quarter" => Unit::Quarter,
            "month" => Unit::Month,
            "week" => Unit::Week,
            "day" => Unit::Day,
            "hour" => Unit::Hour,
            "minute" => Unit::Minute,
            "second" => Unit::Second,
            "millisecond" => Unit::Millisecond,
            _ => return None,
        })
    }
    /// Microseconds, where the unit always has the same.
    fn micros(self) -> Option<i64> {
        Some(match self {
            Unit::Day => DAY,
            Unit::Hour => 3600 * SECOND,
            Unit::Minute => 60 * SECOND,
            Unit::Second => SECOND,
            Unit::Millisecond => 1000,
            _ => return None,
        })
    }
}
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_uppercase())
    }
}

/// The function's value; no argument is NULL.
pub(crate) fn call<'a>(function: Function, args: &[Datum<'a>], types: &[DataType]) -> Result<Datum<'a>, Fault> {
    let int = |index: usize| match args.get(index) {
        Some(Datum::Int(value)) => Ok(*value),
        _ => Err(Fault),
    };
    let text = |index: usize| match args.get(index) {
        Some(Datum::Str(text)) => Ok(text.as_ref()),
        _ => Err(Fault),
    };
    Ok(match function {
        Function::DateDiff => Datum::Int(int(0)? - int(1)?),
        Function::DateTrunc(unit) => Datum::Int(truncate(int(0)?, unit)?),
        Function::DatePart(unit) => {
            let micros =
                if types.first() == Some(&DataType::Date) { int(0)?.checked_mul(DAY).ok_or(Fault)? } else { int(0)? };
            Datum::Int(part(micros, unit)?)
        }
        Function::ToTimestampLtz => Datum::Int(epoch(int(0)?, if args.len() > 1 { int(1)? } else { 3 })?),
        Function::FromUnixtime => {
            let pattern = if args.len() > 1 { text(1)? } else { DEFAULT_PATTERN };
            format(int(0)?.checked_mul(SECOND).ok_or(Fault)?, pattern)?
        }
        Function::DateFormat => format(int(0)?, text(1)?)?,
        Function::UnixTimestamp => Datum::Int(match args.len() {
            1 => int(0)?.div_euclid(SECOND),
            _ => parse(text(0)?, text(1)?)?.div_euclid(SECOND),
        }),
        Function::ToLocal(zone) => Datum::Int(local(int(0)?, zone)?),
        Function::ToInstant(zone) => Datum::Int(instant(int(0)?, zone)?),
        Function::ParseInstant(zone) => {
            let at = string_to_datetime(&zone, text(0)?).map_err(|_| Fault)?;
            Datum::Int(at.timestamp_micros())
        }
        _ => return Err(Fault),
    })
}

/// The instant of a number of seconds (precision 0), milliseconds (3) or microseconds (6).
fn epoch(value: i64, precision: i64) -> Result<i64, Fault> {
    let factor = match precision {
        0 => SECOND,
        3 => 1000,
        6 => 1,
        _ => return Err(Fault),
    };
    value.checked_mul(factor).ok_or(Fault)
}
/// The start of the unit that an instant lies in.
pub(crate) fn truncate(micros: i64, unit: Unit) -> Result<i64, Fault> {
    if let Some(size) = unit.micros() {
        return Ok(micros - micros.rem_euclid(size));
    }
    let date = date_of(micros.div_euclid(DAY))?;
    let start = match unit {
        Unit::Year => NaiveDate::from_ymd_opt(date.year(), 1, 1),
        Unit::Quarter => NaiveDate::from_ymd_opt(date.year(), date.month0() / 3 * 3 + 1, 1),
        Unit::Month => date.with_day(1),
        _ => date_of(days_of(date) - i64::from(date.weekday().num_days_from_monday())).ok(),
    };
    days_of(start.ok_or(Fault)?).checked_mul(DAY).ok_or(Fault)
}
fn part(micros: i64, unit: Unit) -> Result<i64, Fault> {
    let at = datetime_of(micros)?;
    Ok(match unit {
        Unit::Year => i64::from(at.year()),
        Unit::Quarter => i64::from(at.month0() / 3 + 1),
        Unit::Month => i64::from(at.month()),
        Unit::Week => i64::from(at.iso_week().week()),
        Unit::Day => i64::from(at.day()),
        Unit::Hour => i64::from(at.hour()),
        Unit::Minute => i64::from(at.minute()),
        Unit::Second => i64::from(at.second()),
        Unit::Millisecond => micros.rem_euclid(60 * SECOND) / 1000,
    })
}
fn local(micros: i64, zone: chrono_tz::Tz) -> Result<i64, Fault> {
    let at = datetime_of(micros)?;
    let offset = zone.offset_from_utc_datetime(&at).fix().local_minus_utc();
    micros.checked_add(i64::from(offset) * SECOND).ok_or(Fault)
}
/// The date of an instant in a zone, in days since 1970-01-01.
pub(crate) fn local_day(micros: i64, zone: chrono_tz::Tz) -> Option<i32> {
    i32::try_from(local(micros, zone).ok()?.div_euclid(DAY)).ok()
}
/// A wall-clock time that occurs twice is its first occurrence; one that is skipped is the instant of the change.
fn instant(micros: i64, zone: chrono_tz::Tz) -> Result<i64, Fault> {
    let at = datetime_of(micros)?;
    match zone.from_local_datetime(&at).earliest() {
        Some(found) => Ok(found.timestamp_micros()),
        None => {
            let before = at - chrono::Duration::hours(3);
            let offset = zone.from_local_datetime(&before).earliest().ok_or(Fault)?.offset().fix().local_minus_utc();
            micros.checked_sub(i64::from(offset) * SECOND).ok_or(Fault)
        }
    }
}

/// The pattern of FROM_UNIXTIME without one.
pub(crate) const DEFAULT_PATTERN: &str = "yyyy-MM-dd HH:mm:ss";

fn format<'a>(micros: i64, pattern: &str) -> Result<Datum<'a>, Fault> {
    let at = datetime_of(micros)?;
    let pattern = chrono_pattern(pattern).ok_or(Fault)?;
    let items: Vec<Item<'_>> = StrftimeItems::new(&pattern).collect();
    if items.contains(&Item::Error) {
        return Err(Fault);
    }
    Ok(Datum::Str(Cow::Owned(at.format_with_items(items.iter()).to_string())))
}
fn parse(text: &str, pattern: &str) -> Result<i64, Fault> {
    let pattern = chrono_pattern(pattern).ok_or(Fault)?;
    if let Ok(at) = NaiveDateTime::parse_from_str(text, &pattern) {
        return Ok(at.and_utc().timestamp_micros());
    }
    let date = NaiveDate::parse_from_str(text, &pattern).map_err(|_| Fault)?;
    let midnight = date.and_hms_opt(0, 0, 0).ok_or(Fault)?;
    Ok(DateTime::<chrono::Utc>::from_naive_utc_and_offset(midnight, chrono::Utc).timestamp_micros())
}

/// The chrono pattern of a Java-style one (`yyyy-MM-dd HH:mm:ss.SSS`); None for letters that have no counterpart.
pub fn chrono_pattern(pattern: &str) -> Option<String> {
    let letters: Vec<char> = pattern.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < letters.len() {
        let letter = letters[at];
        let count = letters[at..].iter().take_while(|other| **other == letter).count();
        at += count;
        match letter {
            '\'' if count >= 2 => out.push_str(&"'".repeat(count / 2)),
            '\'' => {
                let end = letters[at..].iter().position(|other| *other == '\'')? + at;
                out.extend(&letters[at..end]);
                at = end + 1;
            }
            letter if letter.is_ascii_alphabetic() => out.push_str(chrono_letters(letter, count)?),
            '%' => out.push_str(&"%%".repeat(count)),
            _ => out.extend(std::iter::repeat_n(letter, count)),
        }
    }
    Some(out)
}
fn chrono_letters(letter: char, count: usize) -> Option<&'static str> {
    Some(match (letter, count) {
        ('y' | 'u', 2) => "%y",
        ('y' | 'u', _) => "%Y",
        ('M', 1) => "%-m",
        ('M', 2) => "%m",
        ('M', 3) => "%b",
        ('M', 4) => "%B",
        ('d', 1) => "%-d",
        ('d', 2) => "%d",
        ('D', _) => "%j",
        ('H', 1) => "%-H",
        ('H', 2) => "%H",
        ('h', 1) => "%-I",
        ('h', 2) => "%I",
        ('m', 1) => "%-M",
        ('m', 2) => "%M",
        ('s', 1) => "%-S",
        ('s', 2) => "%S",
        ('S', 1..=3) => "%3f",
        ('S', 4..=6) => "%6f",
        ('S', 7..=9) => "%9f",
        ('a', _) => "%p",
        ('E', 1..=3) => "%a",
        ('E', _) => "%A",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_patterns() {
        assert_eq!(chrono_pattern("M/d/yyyy H:mm").as_deref(), Some("%-m/%-d/%Y %-H:%M"));
        assert_eq!(chrono_pattern("yyyy-MM-dd'T'HH:mm:ss.SSS").as_deref(), Some("%Y-%m-%dT%H:%M:%S.%3f"));
        assert_eq!(chrono_pattern("QQQ"), None);
    }

    #[test]
    fn summer_time() {
        let zone = chrono_tz::Europe::Berlin;
        let at = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros();
        assert_eq!(local(at("2026-07-01 10:00"), zone), Ok(at("2026-07-01 12:00")));
        assert_eq!(instant(at("2026-07-01 12:00"), zone), Ok(at("2026-07-01 10:00")));
        // 02:30 is skipped on 2026-03-29: it counts as 01:30 UTC, which is 03:30 local.
        assert_eq!(instant(at("2026-03-29 02:30"), zone), Ok(at("2026-03-29 01:30")));
        // 02:30 happens twice on 2026-10-25: the first is 00:30 UTC.
        assert_eq!(instant(at("2026-10-25 02:30"), zone), Ok(at("2026-10-25 00:30")));
    }

    #[test]
    fn units() {
        let at = NaiveDate::from_ymd_opt(2026, 5, 20).unwrap().and_hms_milli_opt(13, 14, 15, 16).unwrap();
        let micros = at.and_utc().timestamp_micros();
        let start = |unit| datetime_of(truncate(micros, unit).unwrap()).unwrap().to_string();
        assert_eq!(start(Unit::Week), "2026-05-18 00:00:00");
        assert_eq!(start(Unit::Quarter), "2026-04-01 00:00:00");
        assert_eq!(start(Unit::Hour), "2026-05-20 13:00:00");
        assert_eq!(part(micros, Unit::Millisecond), Ok(15016));
        assert_eq!(truncate(-1, Unit::Day), Ok(-DAY));
    }
}
