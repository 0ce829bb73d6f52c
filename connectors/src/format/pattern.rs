//! Patterns of dates and times as Java writes them: `M/d/yyyy H:mm`, `yyyy-MM-dd'T'HH:mm:ss.SSSX`.
//!
//! Letters: `y u` year (two of them: 2000 to 2099), `M` month (three or more: its English name), `d` day, `H` hour, `h` hour of
//! the half day with `a` (AM or PM), `m` minute, `s` second, `S` fraction, `X x Z` zone. One letter reads as many digits as
//! there are, two or more exactly so many. Text stands in single quotes; other characters stand for themselves.

use deltaworks_dataflow::DataType;

use super::parse::{Parsed, Problem, checked_day, quoted};

/// A pattern, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Letter(char, usize),
    Text(String),
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// What was read so far.
struct Read {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    afternoon: Option<bool>,
    zone_seconds: Option<i64>,
}

impl Pattern {
    /// Takes a pattern apart; the error says what was expected.
    pub(crate) fn new(pattern: &str) -> Result<Pattern, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix('\'') {
                let end = after.find('\'').ok_or("a closing quote in the pattern")?;
                parts.push(Part::Text(if end == 0 { "'".into() } else { after[..end].into() }));
                rest = &after[end + 1..];
            } else if first.is_ascii_alphabetic() {
                let count = rest.chars().take_while(|letter| *letter == first).count();
                if !"yuMdHhmsSaXxZ".contains(first) {
                    return Err(format!("a pattern of the letters y M d H h m s S a X, not \"{first}\""));
                }
                parts.push(Part::Letter(first, count));
                rest = &rest[count..];
            } else {
                parts.push(Part::Text(first.into()));
                rest = &rest[first.len_utf8()..];
            }
        }
        Ok(Pattern { parts })
    }
    /// Reads a DATE in days or a timestamp in microseconds; UTC is meant where no zone stands.
    pub(crate) fn read(&self, text: &str, data_type: &DataType) -> Parsed<i64> {
        let mut read = Read {
            year: 1970,
            month: 1,
            day: 1,
            hour: 0,
            minute: 0,
            second: 0,
            micros: 0,
            afternoon: None,
            zone_seconds: None,
        };
        let mut rest = text;
        for part in &self.parts {
            rest = match part {
                Part::Text(wanted) => rest.strip_prefix(wanted.as_str()).ok_or(Problem::Syntax)?,
                Part::Letter(letter, count) => read.take(*letter, *count, rest)?,
            };
        }
        if !rest.is_empty() {
            return Err(Problem::Syntax);
        }
        read.finish(text, data_type)
    }
}

impl Read {
    /// Reads one part and returns what follows it.
    fn take<'t>(&mut self, letter: char, count: usize, text: &'t str) -> Parsed<&'t str> {
        match letter {
            'M' if count >= 3 => return self.month_name(count, text),
            'a' => return self.half_day(text),
            'X' | 'x' | 'Z' => return self.zone(text),
            'S' => return self.fraction(text),
            _ => {}
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let size = match count {
            1 => digits.min(if matches!(letter, 'y' | 'u') { 4 } else { 2 }),
            count => count,
        };
        if size == 0 || size > digits || size > 9 {
            return Err(Problem::Syntax);
        }
        let value: i64 = text[..size].parse().map_err(|_| Problem::Syntax)?;
        match letter {
            'y' | 'u' => self.year = if count == 2 { 2000 + value } else { value },
            'M' => self.month = value,
            'd' => self.day = value,
            'm' => self.minute = value,
            's' => self.second = value,
            'h' if !(1..=12).contains(&value) => return Err(Problem::Range),
            _ => self.hour = value,
        }
        Ok(&text[size..])
    }
    fn month_name<'t>(&mut self, count: usize, text: &'t str) -> Parsed<&'t str> {
        for (index, name) in MONTHS.iter().enumerate() {
            let name = if count == 3 { &name[..3] } else { name };
            if text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) {
                self.month = index as i64 + 1;
                return Ok(&text[name.len()..]);
            }
        }
        Err(Problem::Syntax)
    }
    fn half_day<'t>(&mut self, text: &'t str) -> Parsed<&'t str> {
        let half = text.get(..2).ok_or(Problem::Syntax)?;
        self.afternoon = match half.to_ascii_lowercase().as_str() {
            "am" => Some(false),
            "pm" => Some(true),
            _ => return Err(Problem::Syntax),
        };
        Ok(&text[2..])
    }
    fn fraction<'t>(&mut self, text: &'t str) -> Parsed<&'t str> {
        let size = text.bytes().take_while(u8::is_ascii_digit).count();
        if size == 0 || size > 9 {
            return Err(Problem::Syntax);
        }
        let nanos: i64 = format!("{:0<9}", &text[..size]).parse().map_err(|_| Problem::Syntax)?;
        self.micros = nanos / 1000;
        Ok(&text[size..])
    }
    fn zone<'t>(&mut self, text: &'t str) -> Parsed<&'t str> {
        if let Some(rest) = text.strip_prefix(['Z', 'z']) {
            self.zone_seconds = Some(0);
            return Ok(rest);
        }
        let sign = match text.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(Problem::Syntax),
        };
        let end = text[1..].bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b':').count() + 1;
        let digits: String = text[1..end].chars().filter(char::is_ascii_digit).collect();
        let value: i64 = digits.parse().map_err(|_| Problem::Syntax)?;
        let (hours, minutes) = match digits.len() {
            2 => (value, 0),
            4 => (value / 100, value % 100),
            _ => return Err(Problem::Syntax),
        };
        if hours > 18 || minutes > 59 {
            return Err(Problem::Range);
        }
        self.zone_seconds = Some(sign * (hours * 3600 + minutes * 60));
        Ok(&text[end..])
    }
    fn finish(self, text: &str, data_type: &DataType) -> Parsed<i64> {
        let day = checked_day(self.year, self.month, self.day)?;
        let hour = match self.afternoon {
            Some(afternoon) => self.hour % 12 + if afternoon { 12 } else { 0 },
            None => self.hour,
        };
        if hour > 23 || self.minute > 59 || self.second > 59 {
            return Err(Problem::Range);
        }
        let seconds = hour * 3600 + self.minute * 60 + self.second;
        match (data_type, self.zone_seconds) {
            (DataType::Date, _) => Ok(day),
            (DataType::Timestamp, Some(_)) => Err(Problem::Other(format!(
                "expected TIMESTAMP, found {} with a time zone; TIMESTAMP_LTZ holds it",
                quoted(text)
            ))),
            (_, zone) => Ok((day * 86_400 + seconds - zone.unwrap_or(0)) * 1_000_000 + self.micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::parse;
    use proptest::prelude::*;

    fn read(pattern: &str, text: &str) -> Parsed<i64> {
        Pattern::new(pattern).expect("a pattern").read(text, &DataType::TimestampLtz)
    }

    #[test]
    fn patterns() {
        let expected = |text: &str| parse::timestamp(text, true);
        assert_eq!(read("M/d/yyyy H:mm", "12/1/2009 7:45"), expected("2009-12-01 07:45:00"));
        assert_eq!(read("yyyy-MM-dd'T'HH:mm:ss.SSSX", "2009-12-01T07:45:01.250Z"), expected("2009-12-01 07:45:01.25"));
        assert_eq!(read("yyyyMMddHHmmss", "20091201074501"), expected("2009-12-01 07:45:01"));
        assert_eq!(read("d MMM yy h:mm a", "1 Dec 09 12:05 am"), expected("2009-12-01 00:05:00"));
        assert_eq!(read("d MMMM yyyy HH:mm XXX", "1 December 2009 09:45 +02:00"), expected("2009-12-01 07:45:00"));
        assert_eq!(read("M/d/yyyy H:mm", "13/1/2009 7:45"), Err(Problem::Range));
        assert_eq!(read("M/d/yyyy H:mm", "12/1/2009 7:45 "), Err(Problem::Syntax));
        assert_eq!(
            Pattern::new("yyyy-QQ").map(|_| ()),
            Err("a pattern of the letters y M d H h m s S a X, not \"Q\"".into())
        );
        assert!(Pattern::new("yyyy'").is_err());
        assert!(matches!(
            Pattern::new("yyyy X").expect("a pattern").read("2009 Z", &DataType::Timestamp),
            Err(Problem::Other(_))
        ));
    }

    proptest! {
        #[test]
        fn nothing_panics(pattern in "[yMdHhmsSaXé/' ]{0,12}", text in "[0-9a-zé/:+ ]{0,20}") {
            if let Ok(pattern) = Pattern::new(&pattern) {
                let _ = pattern.read(&text, &DataType::Date);
            }
        }
    }
}
