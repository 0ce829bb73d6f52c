//! Functions of text.

use std::borrow::Cow;

use deltaworks_dataflow::Datum;

use crate::expr::Function;
use crate::expr::arithmetic::Fault;

/// CONCAT, SUBSTR, UPPER, LOWER, CHAR_LENGTH; no argument is NULL.
pub(crate) fn call<'a>(function: Function, args: &[Datum<'a>]) -> Result<Datum<'a>, Fault> {
    if function == Function::Concat {
        let mut all = String::new();
        for arg in args {
            all.push_str(str_of(arg)?);
        }
        return Ok(Datum::Str(Cow::Owned(all)));
    }
    let Some(Datum::Str(text)) = args.first() else { return Err(Fault) };
    Ok(match function {
        Function::Upper => Datum::Str(Cow::Owned(text.to_uppercase())),
        Function::Lower => Datum::Str(Cow::Owned(text.to_lowercase())),
        Function::CharLength => Datum::Int(characters(text)),
        Function::Substr => {
            let length = args.get(2).map(int_of).transpose()?;
            let (from, to) = span(text, int_of(args.get(1).ok_or(Fault)?)?, length);
            Datum::Str(match text {
                Cow::Borrowed(text) => Cow::Borrowed(&text[from..to]),
                Cow::Owned(text) => Cow::Owned(text[from..to].to_string()),
            })
        }
        _ => return Err(Fault),
    })
}
/// Trims spaces, or any of the characters of the second argument.
pub(crate) fn trim<'a>(args: &[Datum<'a>], front: bool, back: bool) -> Result<Datum<'a>, Fault> {
    let text = str_of(args.first().ok_or(Fault)?)?;
    let set = args.get(1).map(str_of).transpose()?.unwrap_or(" ");
    let mut rest = text;
    if front {
        rest = rest.trim_start_matches(|letter| set.contains(letter));
    }
    if back {
        rest = rest.trim_end_matches(|letter| set.contains(letter));
    }
    Ok(Datum::Str(Cow::Owned(rest.to_string())))
}

fn str_of<'b>(datum: &'b Datum<'_>) -> Result<&'b str, Fault> {
    match datum {
        Datum::Str(text) => Ok(text),
        _ => Err(Fault),
    }
}
fn int_of(datum: &Datum<'_>) -> Result<i64, Fault> {
    match datum {
        Datum::Int(value) => Ok(*value),
        _ => Err(Fault),
    }
}
fn characters(text: &str) -> i64 {
    if text.is_ascii() { text.len() as i64 } else { text.chars().count() as i64 }
}
/// The bytes that SUBSTR takes. A negative start counts from the end; what lies outside the text is not there.
fn span(text: &str, start: i64, length: Option<i64>) -> (usize, usize) {
    let count = characters(text);
    let from = match start {
        1.. => start - 1,
        0 => 0,
        _ => count.saturating_add(start),
    };
    let to = length.map_or(count, |length| from.saturating_add(length.max(0)).clamp(0, count));
    let from = from.clamp(0, to);
    (byte_of(text, from), byte_of(text, to))
}
/// The byte at which a character starts.
fn byte_of(text: &str, character: i64) -> usize {
    let character = character as usize;
    if text.is_ascii() {
        return character.min(text.len());
    }
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substr_counts_from_both_ends() {
        let substr = |text: &str, start, length| {
            let (from, to) = span(text, start, length);
            text[from..to].to_string()
        };
        assert_eq!(substr("abcdef", 2, Some(3)), "bcd");
        assert_eq!(substr("abcdef", -2, None), "ef");
        assert_eq!(substr("abcdef", -9, Some(4)), "a");
        assert_eq!(substr("abcdef", -9, None), "abcdef");
        assert_eq!(substr("abc", 0, Some(2)), "ab");
        assert_eq!(substr("äöü", -2, Some(1)), "ö");
        assert_eq!(substr("abc", 5, None), "");
        assert_eq!(substr("abc", 2, Some(-1)), "");
    }
}
