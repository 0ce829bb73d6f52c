//! Key-value options of tables, pipes and connections, and which of them must not be shown.

use std::fmt;

use super::cursor::parse_tokens;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::source::SourceText;

/// What a secret prints as.
const MASK: &str = "***";

/// Options in the order of the script. Keys compare without regard to case; each occurs once.
///
/// `Debug` and `Display` print `***` for the values of secrets (see [`is_secret`]); [`Options::get`] returns them as they are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options(Vec<(String, String)>);

impl Options {
    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    }

    /// Adds an option; returns false, and changes nothing, where the key is there already.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) -> bool {
        let key = key.into();
        let is_new = self.get(&key).is_none();
        if is_new {
            self.0.push((key, value.into()));
        }
        is_new
    }

    /// Iterates over keys and values in the order of the script.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Returns whether there is no option.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of options.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Iterates over keys and values as they may be shown.
    pub fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().map(|(k, v)| (k, if is_secret(k) { MASK } else { v }))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut options = Options::default();
        for (key, value) in pairs {
            options.insert(key, value);
        }
        options
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl fmt::Display for Options {
    /// Prints `'k' = 'v', ..` as it stands inside `WITH (..)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.shown().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}'{}' = '{}'", quoted(key), quoted(value))?;
        }
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    text.replace('\'', "''")
}

/// Returns whether an option's value must not be shown: a part of its name ends in `password`, `secret`, `token` or `jaas`, its
/// last part ends in `key`, it belongs to `sasl`, or it holds HTTP headers.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let mut parts = key.split(|c: char| !c.is_ascii_alphanumeric());
    let ends = |part: &str, ends: &[&str]| ends.iter().any(|end| part.ends_with(end));
    let last_is_key = parts.clone().next_back().is_some_and(|p| ends(p, &["key"]));
    last_is_key
        || parts.any(|part| {
            part == "info" && key.ends_with("user-info")
                || part == "sasl"
                || part == "headers"
                || ends(part, &["password", "passphrase", "secret", "token", "jaas"])
        })
}

/// Returns a statement's text with `***` for the values of secrets, for messages and logs.
pub fn redact(text: &str) -> String {
    let Ok(tokens) = parse_tokens(text) else {
        return MASK.into();
    };
    let source = SourceText::new(text);
    let words: Vec<&TokenWithSpan> = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    let mut shown = String::new();
    let mut end = 0;
    for window in words.windows(3) {
        let [key, equals, value] = window else { continue };
        let is_pair = matches!(equals.token, Token::Eq);
        if is_pair && option_name(&key.token).is_some_and(is_secret) {
            let from = source.offset(value.span.start);
            shown.push_str(text.get(end..from).unwrap_or_default());
            shown.push_str("'***'");
            end = source.offset(value.span.end);
        }
    }
    shown.push_str(text.get(end..).unwrap_or_default());
    shown
}

fn option_name(token: &Token) -> Option<&str> {
    match token {
        Token::Word(word) => Some(&word.value),
        Token::SingleQuotedString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name() {
        for key in [
            "password",
            "properties.sasl.jaas.config",
            "sasl.mechanism",
            "ssl.key.password",
            "API_KEY",
            "client-secret",
            "access_token",
            "ssl.keystore.key",
            "HEADERS",
            "key.avro-confluent.basic-auth.user-info",
        ] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["key.format", "topic", "bootstrap.servers", "monkeys", "value.fields-include"] {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let options: Options = [("topic", "it's"), ("password", "hunter2")].into_iter().collect();
        assert_eq!(options.to_string(), "'topic' = 'it''s', 'password' = '***'");
        assert_eq!(format!("{options:?}"), r#"{"topic": "it's", "password": "***"}"#);
        assert_eq!(options.get("PASSWORD"), Some("hunter2"));
    }

    #[test]
    fn a_key_is_given_once() {
        let mut options = Options::default();
        assert!(options.insert("a", "1"));
        assert!(!options.insert("A", "2"));
        assert_eq!((options.get("a"), options.len()), (Some("1"), 1));
    }

    #[test]
    fn statements_are_redacted() {
        assert_eq!(
            redact("create table t (a int) -- é\nwith ('topic'='x', 'sasl.jaas.config' = 'é', password=p)"),
            "create table t (a int) -- é\nwith ('topic'='x', 'sasl.jaas.config' = '***', password='***')"
        );
        assert_eq!(redact("select 'open"), "***");
    }
}
