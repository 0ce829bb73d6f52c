//! Tokens respelled for sqlparser, before it reads them.
//!
//! - `ROW<..>` is `STRUCT<..>`, and `TIMESTAMP(p) WITH LOCAL TIME ZONE` is `TIMESTAMP_LTZ(p)`.
//! - `AT`, `BEFORE` and `CHANGES` begin a version of a table in other dialects. Without a parenthesis behind them they are aliases
//!   here: `FROM orders changes`.
//!
//! Tokens keep their number and places.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use super::cursor::unquoted;

/// What the type of a field begins with.
const TYPES: &[&str] = &[
    "ARRAY",
    "BIGINT",
    "BINARY",
    "BITMAP",
    "BOOL",
    "BOOLEAN",
    "BYTES",
    "CHAR",
    "DATE",
    "DEC",
    "DECIMAL",
    "DOUBLE",
    "FLOAT",
    "INT",
    "INTEGER",
    "INTERVAL",
    "MAP",
    "NUMERIC",
    "REAL",
    "ROW",
    "SMALLINT",
    "STRING",
    "STRUCT",
    "TEXT",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMP_LTZ",
    "TINYINT",
    "VARBINARY",
    "VARCHAR",
];

/// Respells the tokens of a script.
pub(super) fn respell(tokens: &mut [TokenWithSpan]) {
    let places: Vec<usize> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !matches!(token.token, Token::Whitespace(_)))
        .map(|(place, _)| place)
        .collect();
    for first in 0..places.len() {
        let next = places.get(first..).unwrap_or_default();
        Window { tokens, next }.respell();
    }
}

/// The tokens from a place on, without the blanks between them.
struct Window<'a> {
    tokens: &'a mut [TokenWithSpan],
    next: &'a [usize],
}

impl Window<'_> {
    fn respell(&mut self) {
        if self.is_word(0, "ROW") {
            self.row_type();
        } else if self.is_word(0, "TIMESTAMP") {
            self.timestamp_type();
        } else if ["AT", "BEFORE", "CHANGES"].iter().any(|word| self.is_word(0, word)) {
            self.alias();
        }
    }

    fn token(&self, n: usize) -> Option<&Token> {
        let place = *self.next.get(n)?;
        self.tokens.get(place).map(|token| &token.token)
    }

    fn is(&self, n: usize, token: &Token) -> bool {
        self.token(n) == Some(token)
    }

    fn is_word(&self, n: usize, word: &str) -> bool {
        let found = self.token(n).and_then(unquoted);
        found.is_some_and(|found| found.value.eq_ignore_ascii_case(word))
    }

    fn set(&mut self, n: usize, token: Token) {
        let place = self.next.get(n).and_then(|&place| self.tokens.get_mut(place));
        if let Some(old) = place {
            old.token = token;
        }
    }

    fn row_type(&mut self) {
        // A name and a type after the bracket tell it from a comparison with a column called row.
        let has_name = matches!(self.token(2), Some(Token::Word(_)));
        let has_type = TYPES.iter().any(|name| self.is_word(3, name));
        if self.is(1, &Token::Lt) && has_name && has_type {
            self.set(0, Token::make_keyword("STRUCT"));
        }
    }

    fn timestamp_type(&mut self) {
        let has_precision = self.is(1, &Token::LParen) && self.is(3, &Token::RParen);
        let zone = if has_precision { 4 } else { 1 };
        let words = ["WITH", "LOCAL", "TIME", "ZONE"];
        let mut places = words.iter().zip(zone..);
        if places.all(|(word, n)| self.is_word(n, word)) {
            self.set(0, Token::make_word("TIMESTAMP_LTZ", None));
            (zone..zone + words.len()).for_each(|n| self.set(n, Token::Whitespace(Whitespace::Space)));
        }
    }

    fn alias(&mut self) {
        // AT TIME ZONE keeps its meaning.
        if self.is(1, &Token::LParen) || self.is_word(1, "TIME") {
            return;
        }
        if let Some(Token::Word(word)) = self.token(0) {
            let mut word = word.clone();
            word.keyword = Keyword::NoKeyword;
            self.set(0, Token::Word(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cursor::Cursor;

    fn data_type(text: &str) -> String {
        Cursor::new(text).unwrap().data_type().unwrap().to_string()
    }

    fn query(text: &str) -> String {
        Cursor::new(text).unwrap().body().unwrap().query.to_string()
    }

    #[test]
    fn types_of_the_other_family() {
        assert_eq!(data_type("ROW<a INT, b ROW<c STRING>>"), "STRUCT<a INT, b STRUCT<c STRING>>");
        assert_eq!(data_type("ARRAY<ROW<`a` INT>>"), "ARRAY<STRUCT<`a` INT>>");
        assert_eq!(data_type("timestamp(3) with local time zone"), "TIMESTAMP_LTZ(3)");
        assert_eq!(data_type("TIMESTAMP WITH LOCAL TIME ZONE"), "TIMESTAMP_LTZ");
        assert_eq!(data_type("TIMESTAMP WITH TIME ZONE"), "TIMESTAMP WITH TIME ZONE");
    }

    #[test]
    fn a_column_called_row_is_compared() {
        assert_eq!(
            query("SELECT row < 3, row<b AND b>c, row<b FROM t"),
            "SELECT row < 3, row < b AND b > c, row < b FROM t"
        );
    }

    #[test]
    fn words_of_table_versions_are_aliases() {
        for word in ["at", "before", "changes"] {
            let text = format!("SELECT {word}.a FROM t {word} JOIN u {word} ON {word}.a = 1");
            assert_eq!(query(&text), text);
        }
        assert_eq!(query("SELECT a AT TIME ZONE 'UTC' FROM t"), "SELECT a AT TIME ZONE 'UTC' FROM t");
    }
}
