//! Functions that are interpreted natively: what they are and what they return for one row.

use std::fmt;

use deltaworks_dataflow::{DataType, Datum};

use super::arithmetic::{Fault, canonical};
use super::cast;
use super::like::LikePattern;
use crate::functions::bitmap::BitmapFunction;
use crate::functions::datetime::{self, Unit};
use crate::functions::{bitmap, numeric, text};

/// A function that is interpreted natively.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// The first argument that is not NULL.
    Coalesce,
    /// The arguments one after the other; NULL if any is.
    Concat,
    /// `SUBSTR(text, start[, length])`: counts characters from 1, a negative start from the end.
    Substr,
    /// Upper case.
    Upper,
    /// Lower case.
    Lower,
    /// Without the given characters (spaces) at the front, the back or both.
    Trim {
        /// Whether the front is trimmed.
        front: bool,
        /// Whether the back is trimmed.
        back: bool,
    },
    /// How many characters.
    CharLength,
    /// `value LIKE pattern`.
    Like {
        /// NOT LIKE.
        negated: bool,
        /// ILIKE.
        ignore_case: bool,
        /// ESCAPE.
        escape: Option<char>,
    },
    /// `value IN (items)`.
    InList {
        /// NOT IN.
        negated: bool,
    },
    /// `ROUND(number[, digits])`, half away from zero.
    Round,
    /// The magnitude.
    Abs,
    /// One zero and one NaN.
    CanonicalFloat,
    /// `DATEDIFF(end, start)`: days from start to end.
    DateDiff,
    /// The start of the unit that a date or timestamp lies in.
    DateTrunc(Unit),
    /// One part of a date or timestamp.
    DatePart(Unit),
    /// The text of a timestamp or interval: what a cast to STRING gives.
    TemporalText,
    /// `DATE_FORMAT(timestamp, pattern)` with a Java-style pattern.
    DateFormat,
    /// `TO_TIMESTAMP_LTZ(number, precision)`: seconds (0), milliseconds (3) or microseconds (6) since 1970.
    ToTimestampLtz,
    /// `FROM_UNIXTIME(seconds[, pattern])`: as text.
    FromUnixtime,
    /// `UNIX_TIMESTAMP(timestamp)`: seconds since 1970.
    UnixTimestamp,
    /// The wall-clock time of an instant in a zone.
    ToLocal(chrono_tz::Tz),
    /// The instant of a wall-clock time in a zone.
    ToInstant(chrono_tz::Tz),
    /// The instant that a text names: by its own offset, else in a zone.
    ParseInstant(chrono_tz::Tz),
    /// `WRITE_TIMESTAMP()`: stamped by the planner's table, NULL where nothing stamps it.
    WriteTimestamp,
    /// A struct of the arguments.
    MakeStruct,
    /// The field at a position of a struct.
    GetField(usize),
    /// An array of the arguments.
    MakeArray,
    /// A function of bitmaps.
    Bitmap(BitmapFunction),
}

impl Function {
    /// The value for one row.
    pub(crate) fn call<'a>(&self, args: &[Datum<'a>], types: &[DataType], to: &DataType) -> Result<Datum<'a>, Fault> {
        match self {
            Function::Coalesce => return Ok(args.iter().find(|arg| !arg.is_null()).cloned().unwrap_or(Datum::Null)),
            Function::MakeStruct => return Ok(Datum::Struct(args.to_vec())),
            Function::MakeArray => return Ok(Datum::Array(args.to_vec())),
            Function::InList { negated } => return Ok(in_list(args, *negated)),
            Function::WriteTimestamp => return Ok(Datum::Null),
            _ => {}
        }
        if args.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        match self {
            Function::Concat | Function::Substr | Function::Upper | Function::Lower | Function::CharLength => {
                text::call(*self, args)
            }
            Function::Trim { front, back } => text::trim(args, *front, *back),
            Function::Like { negated, ignore_case, escape } => match args {
                [Datum::Str(value), Datum::Str(pattern)] => {
                    Ok(Datum::Bool(LikePattern::new(pattern, *escape, *ignore_case).matches(value) != *negated))
                }
                _ => Err(Fault),
            },
            Function::Round => numeric::round(args, &types[0], to),
            Function::Abs => numeric::abs(&args[0], to),
            Function::CanonicalFloat => match &args[0] {
                Datum::Float(value) => Ok(Datum::Float(canonical(*value))),
                _ => Err(Fault),
            },
            Function::GetField(index) => match &args[0] {
                Datum::Struct(fields) => fields.get(*index).cloned().ok_or(Fault),
                _ => Err(Fault),
            },
            Function::Bitmap(function) => bitmap::call(*function, args),
            Function::TemporalText => cast::cast(args[0].clone(), &types[0], to),
            _ => datetime::call(*self, args, types),
        }
    }
}

fn in_list<'a>(args: &[Datum<'a>], negated: bool) -> Datum<'a> {
    match args {
        [value, items @ ..] if !value.is_null() => {
            if items.contains(value) {
                Datum::Bool(!negated)
            } else if items.iter().any(Datum::is_null) {
                Datum::Null
            } else {
                Datum::Bool(negated)
            }
        }
        _ => Datum::Null,
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Function::Coalesce => "COALESCE",
            Function::Concat => "CONCAT",
            Function::Substr => "SUBSTR",
            Function::Upper => "UPPER",
            Function::Lower => "LOWER",
            Function::Trim { front: true, back: true } => "TRIM",
            Function::Trim { front: true, .. } => "LTRIM",
            Function::Trim { .. } => "RTRIM",
            Function::CharLength => "CHAR_LENGTH",
            Function::Like { negated: false, ignore_case: false, .. } => "LIKE",
            Function::Like { negated: true, ignore_case: false, .. } => "NOT LIKE",
            Function::Like { negated: false, .. } => "ILIKE",
            Function::Like { .. } => "NOT ILIKE",
            Function::InList { negated: false } => "IN",
            Function::InList { .. } => "NOT IN",
            Function::Round => "ROUND",
            Function::Abs => "ABS",
            Function::CanonicalFloat => "CANONICAL",
            Function::DateDiff => "DATEDIFF",
            Function::DateTrunc(unit) => return write!(f, "DATE_TRUNC_{unit}"),
            Function::DatePart(unit) => return write!(f, "DATE_PART_{unit}"),
            Function::TemporalText => "TEXT",
            Function::DateFormat => "DATE_FORMAT",
            Function::ToTimestampLtz => "TO_TIMESTAMP_LTZ",
            Function::FromUnixtime => "FROM_UNIXTIME",
            Function::UnixTimestamp => "UNIX_TIMESTAMP",
            Function::ToLocal(zone) => return write!(f, "LOCAL[{zone}]"),
            Function::ToInstant(zone) => return write!(f, "INSTANT[{zone}]"),
            Function::ParseInstant(zone) => return write!(f, "PARSE_INSTANT[{zone}]"),
            Function::WriteTimestamp => "WRITE_TIMESTAMP",
            Function::MakeStruct => "STRUCT",
            Function::GetField(index) => return write!(f, "FIELD_{index}"),
            Function::MakeArray => "ARRAY",
            Function::Bitmap(function) => return write!(f, "{function}"),
        })
    }
}
