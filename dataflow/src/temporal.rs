//! Dates, timestamps and intervals as text, the same in result sets, sinks, casts and messages.
//!
//! | type | text |
//! |---|---|
//! | DATE | `2026-05-01` |
//! | TIMESTAMP | `2026-05-01 09:00:00[.ffffff]`, trailing zeros cut |
//! | TIMESTAMP_LTZ | the same with `Z` |
//! | INTERVAL | ISO 8601: `P3DT4H5M6.789S`, `P1Y2M` |

use crate::types::DataType;

/// Appends a value of one of these types; false, and nothing appended, for other types.
#[inline]
pub fn write_temporal(value: i64, data_type: &DataType, out: &mut Vec<u8>) -> bool {
    match data_type {
        DataType::Date => write_date(value, out),
        DataType::Timestamp => write_timestamp(value, out),
        DataType::TimestampLtz => {
            write_timestamp(value, out);
            out.push(b'Z');
        }
        DataType::IntervalDay => write_interval_day(value, out),
        DataType::IntervalMonth => write_interval_month(value, out),
        _ => return false,
    }
    true
}
#[inline]
fn write_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Year, month and day of a day since 1970.
fn date_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}
fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = date_from_days(days);
    if (0..=9999).contains(&year) {
        write_two(year / 100, out);
        write_two(year % 100, out);
    } else {
        write_integer(year, out);
    }
    out.push(b'-');
    write_two(month, out);
    out.push(b'-');
    write_two(day, out);
}
#[inline]
fn write_two(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}
fn write_timestamp(micros: i64, out: &mut Vec<u8>) {
    write_date(micros.div_euclid(86_400_000_000), out);
    let of_day = micros.rem_euclid(86_400_000_000);
    let seconds = of_day / 1_000_000;
    out.push(b' ');
    write_two(seconds / 3600, out);
    out.push(b':');
    write_two(seconds / 60 % 60, out);
    out.push(b':');
    write_two(seconds % 60, out);
    write_fraction((of_day % 1_000_000) as u64, out);
}
/// Appends `.5` for half a million microseconds; nothing for none.
fn write_fraction(micros: u64, out: &mut Vec<u8>) {
    if micros == 0 {
        return;
    }
    let digits = [100_000, 10_000, 1000, 100, 10, 1].map(|unit| b'0' + (micros / unit % 10) as u8);
    let end = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    out.push(b'.');
    out.extend_from_slice(&digits[..end]);
}
fn write_interval_day(micros: i64, out: &mut Vec<u8>) {
    if micros < 0 {
        out.push(b'-');
    }
    out.push(b'P');
    let micros = micros.unsigned_abs();
    let seconds = micros / 1_000_000;
    let (days, of_day) = (seconds / 86_400, micros % 86_400_000_000);
    let part = |value: u64, unit: u8, out: &mut Vec<u8>| {
        if value > 0 {
            write_integer(value, out);
            out.push(unit);
        }
    };
    part(days, b'D', out);
    if of_day == 0 && days > 0 {
        return;
    }
    out.push(b'T');
    part(seconds / 3600 % 24, b'H', out);
    part(seconds / 60 % 60, b'M', out);
    if of_day % 60_000_000 > 0 || micros == 0 {
        write_integer(seconds % 60, out);
        write_fraction(micros % 1_000_000, out);
        out.push(b'S');
    }
}
fn write_interval_month(months: i64, out: &mut Vec<u8>) {
    if months < 0 {
        out.push(b'-');
    }
    out.push(b'P');
    let (years, months) = (months.unsigned_abs() / 12, months.unsigned_abs() % 12);
    if years > 0 {
        write_integer(years, out);
        out.push(b'Y');
    }
    if months > 0 || years == 0 {
        write_integer(months, out);
        out.push(b'M');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_one_text() {
        const DAY: i64 = 86_400_000_000;
        let cases = [
            (20_574, DataType::Date, "2026-05-01"),
            (-719_529, DataType::Date, "-1-12-31"),
            (20_574 * DAY + 32_400_000_000, DataType::Timestamp, "2026-05-01 09:00:00"),
            (-500_000, DataType::Timestamp, "1969-12-31 23:59:59.5"),
            (1_000, DataType::TimestampLtz, "1970-01-01 00:00:00.001Z"),
            (3 * DAY + 14_706_789_000, DataType::IntervalDay, "P3DT4H5M6.789S"),
            (0, DataType::IntervalDay, "PT0S"),
            (-14, DataType::IntervalMonth, "-P1Y2M"),
        ];
        for (value, data_type, text) in cases {
            let mut out = Vec::new();
            assert!(write_temporal(value, &data_type, &mut out));
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        assert!(!write_temporal(1, &DataType::Int, &mut Vec::new()));
    }
}
