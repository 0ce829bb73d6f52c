//! The planner's names for types and constants, said in ours.

/// The text between two others.
pub(super) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after).map_or(rest, |(inside, _)| inside))
}
/// The text with its first letter small, unless it begins with a name in capitals.
pub(super) fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(letters).collect(),
        _ => text.to_string(),
    }
}
/// The text with `table.column` as `column`.
pub(super) fn unqualified(text: &str) -> String {
    let name = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$';
    let mut out = String::new();
    for (index, part) in text.split('.').enumerate() {
        // What stands before the point is a name, unless it is a number's whole part.
        let begins = part.chars().next().is_some_and(|letter| letter.is_alphabetic() || letter == '_');
        if index > 0 {
            let start = out.trim_end_matches(name).len();
            let names_table = out[start..].chars().next().is_some_and(|letter| letter.is_alphabetic() || letter == '_');
            if begins && names_table { out.truncate(start) } else { out.push('.') }
        }
        out.push_str(part);
    }
    out
}

/// The text with types and constants as we write them: `Utf8` is STRING, `Int64(1)` is 1, `Utf8("x")` is 'x'.
pub(super) fn in_our_types(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
        if word == 0 {
            let letter = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..letter]);
            rest = &rest[letter..];
            continue;
        }
        let (name, after) = rest.split_at(word);
        let arguments = arguments(after);
        match ours(name, arguments) {
            Some(text) => {
                out.push_str(&text);
                rest = arguments.map_or(after, |inside| &after[inside.len() + 2..]);
            }
            None => {
                out.push_str(name);
                rest = after;
            }
        }
    }
    out
}
/// What stands in the parentheses with which the text begins.
fn arguments(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('(')?;
    let (mut depth, mut quoted) = (1, false);
    for (at, letter) in inside.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&inside[..at]);
        }
    }
    None
}
/// A type or constant in our words; None where the name is neither.
fn ours(name: &str, arguments: Option<&str>) -> Option<String> {
    let plain = match name {
        "Utf8" | "LargeUtf8" | "Utf8View" => "STRING",
        "Boolean" => "BOOLEAN",
        "Int8" => "TINYINT",
        "Int16" | "UInt8" => "SMALLINT",
        "Int32" | "UInt16" => "INT",
        "Int64" | "UInt32" | "UInt64" => "BIGINT",
        "Float32" => "FLOAT",
        "Float64" => "DOUBLE",
        "Date32" => "DATE",
        "Binary" => "BYTES",
        "LargeBinary" => "BITMAP",
        "Timestamp" if arguments?.contains(',') => return Some("TIMESTAMP_LTZ".into()),
        "Timestamp" => return Some("TIMESTAMP".into()),
        "Duration" => return arguments.map(|_| "INTERVAL DAY TO SECOND".into()),
        "Interval" => return arguments.map(|_| "INTERVAL".into()),
        "Decimal128" => return arguments.map(decimal),
        _ => return None,
    };
    Some(match arguments {
        None => plain.to_string(),
        Some(value) if plain == "STRING" => format!("'{}'", value.trim_matches('"').replace('\'', "''")),
        Some(value) => value.to_uppercase(),
    })
}
/// `Some(15),2,1` is the constant 1.5, `10, 2` a type.
fn decimal(arguments: &str) -> String {
    let parts: Vec<&str> = arguments.split(',').map(str::trim).collect();
    let digits = parts[0].strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')'));
    let (Some(digits), Some(Ok(scale))) = (digits, parts.get(2).map(|scale| scale.parse::<usize>())) else {
        return format!("DECIMAL({arguments})");
    };
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_constants() {
        let cases = [
            ("abs(Utf8)", "abs(STRING)"),
            ("t.a > Int64(1)", "t.a > 1"),
            ("Utf8(\"it's (x)\")", "'it''s (x)'"),
            ("Timestamp(µs) - Timestamp(µs, \"UTC\")", "TIMESTAMP - TIMESTAMP_LTZ"),
            ("Decimal128(Some(-5),3,2) * Decimal128(10, 2)", "-0.05 * DECIMAL(10, 2)"),
            ("Boolean(true) OR Duration(µs)", "TRUE OR INTERVAL DAY TO SECOND"),
            ("Utf8_column", "Utf8_column"),
        ];
        for (text, expected) in cases {
            assert_eq!(in_our_types(text), expected);
        }
    }
    #[test]
    fn columns_without_their_tables() {
        assert_eq!(unqualified("t.a > 1.5 AND s.t.b = c"), "a > 1.5 AND b = c");
    }
}
