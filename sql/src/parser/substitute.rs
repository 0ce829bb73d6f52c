//! `${NAME}` in scripts.

use std::fs;

use super::error::{ParseError, Position};

/// Replaces `${NAME}` by `lookup(NAME)`, `${NAME:-default}` by the default where NAME is unset or empty, and `${file:PATH}` by
/// the file's content without its last newline. Inside strings too, but not inside comments.
///
/// # Errors
///
/// A NAME that is unset and has no default, a file that cannot be read, or a `${` that is not one of these forms.
pub fn substitute(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ParseError> {
    let mut result = String::with_capacity(text.len());
    let mut scanner = Scanner::default();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("${") && !scanner.is_comment() {
            let (reference, after) = reference(rest, scanner.at(text, rest))?;
            result.push_str(&value(reference, lookup, scanner.at(text, rest))?);
            rest = after;
            continue;
        }
        let length = scanner.step(rest).max(first.len_utf8());
        let (done, after) = rest.split_at(length);
        result.push_str(done);
        rest = after;
    }
    Ok(result)
}

/// Splits `${reference}` off the text.
fn reference(text: &str, at: Position) -> Result<(&str, &str), ParseError> {
    let inner = text.strip_prefix("${").unwrap_or(text);
    match inner.split_once('}') {
        Some((reference, after)) if !reference.contains('\n') => Ok((reference, after)),
        _ => Err(ParseError::new(at, "unterminated \"${\"", FORMS)),
    }
}

const FORMS: &str = "the forms are ${NAME}, ${NAME:-default} and ${file:PATH}";

fn value(reference: &str, lookup: &dyn Fn(&str) -> Option<String>, at: Position) -> Result<String, ParseError> {
    if let Some(path) = reference.strip_prefix("file:") {
        return file(path, at);
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if !is_name(name) {
        let message = format!("\"{reference}\" is no name");
        return Err(ParseError::new(at, message, FORMS));
    }
    match (lookup(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_string()),
        (None, None) => Err(ParseError::new(
            at,
            format!("\"{name}\" is not set"),
            format!("set it with --set {name}=VALUE, or write ${{{name}:-default}}"),
        )),
    }
}

fn file(path: &str, at: Position) -> Result<String, ParseError> {
    let content = fs::read_to_string(path).map_err(|error| {
        let message = format!("could not read file \"{path}\": {error}");
        ParseError::new(at, message, "relative paths are relative to the working directory")
    })?;
    let cut = content.strip_suffix('\n').unwrap_or(&content);
    Ok(cut.strip_suffix('\r').unwrap_or(cut).to_string())
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Knows whether a place is inside a comment.
#[derive(Debug, Default)]
enum Scanner {
    #[default]
    Plain,
    /// Inside quotes of this kind: what looks like a comment there is none.
    Quoted(char),
    Line,
    /// Inside so many block comments, which nest.
    Block(usize),
}

impl Scanner {
    fn is_comment(&self) -> bool {
        matches!(self, Scanner::Line | Scanner::Block(_))
    }

    /// Takes in what comes next and returns its length in bytes.
    fn step(&mut self, rest: &str) -> usize {
        let first = rest.chars().next().unwrap_or_default();
        let pair = ["--", "/*", "*/"].into_iter().find(|p| rest.starts_with(p));
        let (next, length) = match (&*self, first, pair) {
            (Scanner::Plain, _, Some("--")) => (Scanner::Line, 2),
            (Scanner::Plain, _, Some("/*")) => (Scanner::Block(1), 2),
            (Scanner::Plain, '\'' | '"' | '`', _) => (Scanner::Quoted(first), 1),
            (Scanner::Quoted(quote), _, _) if *quote == first => (Scanner::Plain, 1),
            (Scanner::Line, '\n', _) => (Scanner::Plain, 1),
            (Scanner::Block(depth), _, Some("/*")) => (Scanner::Block(depth + 1), 2),
            (Scanner::Block(1), _, Some("*/")) => (Scanner::Plain, 2),
            (Scanner::Block(depth), _, Some("*/")) => (Scanner::Block(depth - 1), 2),
            _ => return first.len_utf8(),
        };
        *self = next;
        length
    }

    /// Returns where `rest` begins within `text`.
    fn at(&self, text: &str, rest: &str) -> Position {
        let before = text.strip_suffix(rest).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or(before);
        Position { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, ParseError> {
        substitute(text, &|name| match name {
            "TOPIC" => Some("event".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn names_and_defaults() {
        assert_eq!(run("a '${TOPIC}' ${TOPIC}").unwrap(), "a 'event' event");
        assert_eq!(run("${TOPIC:-x}${NONE:-y}${EMPTY:-z}").unwrap(), "eventyz");
        assert_eq!(run("[${EMPTY}${NONE:-}]").unwrap(), "[]");
        assert_eq!(run("$${TOPIC} $x {TOPIC}").unwrap(), "$event $x {TOPIC}");
        assert_eq!(run("${NONE:-localhost:9092}").unwrap(), "localhost:9092");
    }

    #[test]
    fn values_are_not_substituted_again() {
        let once = substitute("${A}", &|_| Some("${A}".into()));
        assert_eq!(once.unwrap(), "${A}");
    }

    #[test]
    fn comments_are_left_alone() {
        let text = "-- ${NONE}\n/* ${NONE} /* */ ${NONE} */ '--' ${TOPIC} '/*' \"--\" ${TOPIC} 'it''s -- ${TOPIC}'";
        let expected = "-- ${NONE}\n/* ${NONE} /* */ ${NONE} */ '--' event '/*' \"--\" event 'it''s -- event'";
        assert_eq!(run(text).unwrap(), expected);
    }

    #[test]
    fn unset_names_are_errors_with_place_and_help() {
        let error = run("é;\n 'é${NONE}'").unwrap_err();
        assert_eq!((error.line, error.column), (2, 4));
        assert_eq!(error.message, "\"NONE\" is not set");
        assert_eq!(error.help, "set it with --set NONE=VALUE, or write ${NONE:-default}");
    }

    #[test]
    fn malformed_references_are_errors() {
        assert_eq!(run("${TOPIC").unwrap_err().message, "unterminated \"${\"");
        assert_eq!(run("${TOPIC\n}").unwrap_err().message, "unterminated \"${\"");
        assert_eq!(run("${}").unwrap_err().message, "\"\" is no name");
        assert_eq!(run("${a b}").unwrap_err().message, "\"a b\" is no name");
    }

    #[test]
    fn files_are_read_without_their_last_newline() {
        let path = std::env::temp_dir().join(format!("deltaworks-substitute-{}", std::process::id()));
        fs::write(&path, "geheim\n\n").unwrap();
        let text = format!("'${{file:{}}}'", path.display());
        assert_eq!(run(&text).unwrap(), "'geheim\n'");
        fs::remove_file(&path).unwrap();
        let error = run(&text).unwrap_err();
        assert!(error.message.starts_with("could not read file"), "{error}");
        assert_eq!((error.line, error.column), (1, 2));
    }
}
