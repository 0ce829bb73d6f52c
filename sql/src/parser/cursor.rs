//! A place in a script and the small steps that all statements are read with.
//!
//! sqlparser reads expressions, types and queries; most of our own words (DYNAMIC, PIPE, FRESHNESS) are no keywords of it, so that
//! they are compared as plain words here.

use std::ops::ControlFlow;

use sqlparser::ast::{DataType, Expr, OptimizerHintStyle, Query, Select, VisitMut, VisitorMut};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

use super::dialect::DeltaworksDialect;
use super::error::{ParseError, Position, Result, describe};
use super::options::Options;
use super::source::SourceText;
use super::spelling::respell;
use super::statement::{Body, ColumnName, Name, fold};

static DIALECT: DeltaworksDialect = DeltaworksDialect;

/// How deep expressions and queries may nest. A hundred levels overflow the 2 MiB stack of a thread in a build without
/// optimisation.
const NESTING_MAX: usize = 50;

/// Splits a text into tokens.
pub(crate) fn parse_tokens(text: &str) -> Result<Vec<TokenWithSpan>> {
    Ok(Tokenizer::new(&DIALECT, text).tokenize_with_location()?)
}

/// A place in a script.
pub(super) struct Cursor<'a> {
    parser: Parser<'static>,
    source: SourceText<'a>,
}

impl<'a> Cursor<'a> {
    /// Places a cursor before the first token.
    pub(super) fn new(text: &'a str) -> Result<Self> {
        let mut tokens = parse_tokens(text)?;
        respell(&mut tokens);
        let parser = Parser::new(&DIALECT).with_recursion_limit(NESTING_MAX).with_tokens_with_locations(tokens);
        Ok(Cursor { parser, source: SourceText::new(text) })
    }

    /// Returns the token `n` places ahead.
    pub(super) fn token(&self, n: usize) -> &Token {
        &self.parser.peek_nth_token_ref(n).token
    }

    /// Steps over `n` tokens.
    pub(super) fn skip(&mut self, n: usize) {
        for _ in 0..n {
            self.parser.advance_token();
        }
    }

    /// Returns whether everything is read.
    pub(super) fn at_end(&self) -> bool {
        *self.token(0) == Token::EOF
    }

    /// Returns whether the token `n` places ahead is this word, unquoted and in any case.
    pub(super) fn is_word(&self, n: usize, word: &str) -> bool {
        unquoted(self.token(n)).is_some_and(|w| w.value.eq_ignore_ascii_case(word))
    }

    /// Returns whether these words, separated by blanks, come next.
    pub(super) fn at(&self, words: &str) -> bool {
        words.split(' ').enumerate().all(|(n, word)| self.is_word(n, word))
    }

    /// Steps over these words if they come next.
    pub(super) fn accept(&mut self, words: &str) -> bool {
        let found = self.at(words);
        if found {
            self.skip(words.split(' ').count());
        }
        found
    }

    /// Steps over these words.
    pub(super) fn expect(&mut self, words: &str) -> Result<()> {
        if self.accept(words) {
            return Ok(());
        }
        // The first word that differs is what is missing.
        let same = words.split(' ').enumerate().take_while(|(n, word)| self.is_word(*n, word)).count();
        let missing = words.split(' ').nth(same).unwrap_or(words).to_string();
        self.skip(same);
        Err(self.expected(&missing))
    }

    /// Steps over a token if it comes next.
    pub(super) fn accept_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    /// Steps over a token.
    pub(super) fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.accept_token(token) {
            return Ok(());
        }
        Err(self.expected(&describe(token)))
    }

    /// Returns where the next token begins; for the end of the script, where the last token ends.
    pub(super) fn location(&self) -> Location {
        let next = self.parser.peek_token_ref();
        if next.token == Token::EOF {
            return self.end();
        }
        next.span.start
    }

    /// Returns [`Cursor::location`] as a position.
    pub(super) fn position(&self) -> Position {
        self.location().into()
    }

    /// Returns where the last token that was read ends.
    fn end(&self) -> Location {
        let mut at = self.parser.get_current_index();
        while at > 0 && matches!(self.parser.token_at(at).token, Token::Whitespace(_) | Token::EOF) {
            at -= 1;
        }
        self.parser.token_at(at).span.end
    }

    /// Returns the text from a location to the last token that was read.
    pub(super) fn text_since(&self, start: Location) -> &'a str {
        self.source.slice(start, self.end())
    }

    /// Returns the error that something else was expected here.
    pub(super) fn expected(&self, what: &str) -> ParseError {
        let found = describe(self.token(0));
        self.error(format!("expected {what}, found {found}"), "")
    }

    /// Returns an error at the next token.
    pub(super) fn error(&self, message: impl Into<String>, help: impl Into<String>) -> ParseError {
        ParseError::new(self.position(), message, help)
    }

    /// Runs one of sqlparser's own rules.
    pub(super) fn sqlparser<T>(
        &mut self,
        rule: impl FnOnce(&mut Parser<'static>) -> std::result::Result<T, ParserError>,
    ) -> Result<T> {
        rule(&mut self.parser).map_err(|error| ParseError::from_sqlparser(error, self.position()))
    }

    /// Reads an expression.
    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.sqlparser(|parser| parser.parse_expr())
    }

    /// Reads a type.
    pub(super) fn data_type(&mut self) -> Result<DataType> {
        self.sqlparser(|parser| parser.parse_data_type())
    }

    /// Returns whether a query comes next.
    pub(super) fn at_query(&self) -> bool {
        ["SELECT", "WITH", "VALUES"].iter().any(|word| self.is_word(0, word)) || *self.token(0) == Token::LParen
    }

    /// Reads a query and takes the hints out of it.
    pub(super) fn body(&mut self) -> Result<Body> {
        if !self.at_query() {
            return Err(self.expected("a query").or_help("a query begins with SELECT, WITH or VALUES"));
        }
        let mut query = self.sqlparser(|parser| parser.parse_query())?;
        super::identity::name_identities(&mut query)?;
        let hints = take_hints(&mut query);
        Ok(Body { query, hints })
    }

    /// Reads a string literal.
    pub(super) fn string(&mut self) -> Result<String> {
        let Token::SingleQuotedString(text) = self.token(0) else {
            return Err(self.expected("a string in single quotes"));
        };
        let text = text.clone();
        self.skip(1);
        Ok(text)
    }

    /// Reads an identifier and folds it.
    pub(super) fn identifier(&mut self) -> Result<String> {
        let Token::Word(word) = self.token(0) else {
            return Err(self.expected("a name"));
        };
        let name = folded(word);
        self.skip(1);
        Ok(name)
    }

    /// Reads a name of one part or more.
    pub(super) fn name(&mut self) -> Result<Name> {
        let mut parts = vec![self.identifier()?];
        while self.accept_token(&Token::Period) {
            parts.push(self.identifier()?);
        }
        Ok(Name::new(parts))
    }

    /// Reads `IF NOT EXISTS` if it comes next.
    pub(super) fn if_not_exists(&mut self) -> bool {
        self.accept("IF NOT EXISTS")
    }

    /// Reads `(item, item, ..)`.
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect_token(&Token::LParen)?;
        let mut items = Vec::new();
        if self.accept_token(&Token::RParen) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.accept_token(&Token::RParen) {
                return Ok(items);
            }
            if !self.accept_token(&Token::Comma) {
                return Err(self.expected("\",\" or \")\""));
            }
        }
    }

    /// Reads a parenthesised list of column names if one comes next; a query in parentheses is none.
    pub(super) fn column_names(&mut self) -> Result<Vec<ColumnName>> {
        let is_query =
            ["SELECT", "WITH", "VALUES"].iter().any(|word| self.is_word(1, word)) || *self.token(1) == Token::LParen;
        if *self.token(0) != Token::LParen || is_query {
            return Ok(Vec::new());
        }
        self.list(|cursor| Ok(ColumnName { position: cursor.position(), name: cursor.identifier()? }))
    }

    /// Reads `('k' = 'v', ..)`.
    pub(super) fn options(&mut self) -> Result<Options> {
        let mut options = Options::default();
        self.list(|cursor| cursor.option(&mut options))?;
        Ok(options)
    }

    /// Reads `k = 'v' k = 'v' ..`, with or without commas between them.
    pub(super) fn bare_options(&mut self) -> Result<Options> {
        let mut options = Options::default();
        while self.at_option() {
            self.option(&mut options)?;
            self.accept_token(&Token::Comma);
        }
        Ok(options)
    }

    /// Returns whether `k =` comes next.
    pub(super) fn at_option(&self) -> bool {
        matches!(self.token(0), Token::Word(_) | Token::SingleQuotedString(_)) && *self.token(1) == Token::Eq
    }

    /// Reads `k = v` into options.
    pub(super) fn option(&mut self, options: &mut Options) -> Result<()> {
        let at = self.position();
        let key = self.option_key()?;
        self.expect_token(&Token::Eq).map_err(|e| e.or_help("an option is written 'key' = 'value'"))?;
        let value = self.option_value()?;
        if options.insert(key.clone(), value) {
            return Ok(());
        }
        let message = format!("option \"{key}\" is given twice");
        Err(ParseError::new(at, message, "leave one of them out"))
    }

    /// Reads the name of an option: a string, or words with dots between them.
    pub(super) fn option_key(&mut self) -> Result<String> {
        if let Token::SingleQuotedString(_) = self.token(0) {
            return self.string();
        }
        let not_a_key = |e: ParseError| e.or_help("an option is written 'key' = 'value'");
        let mut key = self.raw_word("the name of an option").map_err(not_a_key)?;
        while self.accept_token(&Token::Period) {
            key = format!("{key}.{}", self.raw_word("the name of an option").map_err(not_a_key)?);
        }
        Ok(key)
    }

    /// Reads the value of an option: a string, a number, or words with dots between them.
    pub(super) fn option_value(&mut self) -> Result<String> {
        let sign = if self.accept_token(&Token::Minus) { "-" } else { "" };
        let value = match self.token(0) {
            Token::SingleQuotedString(text) if sign.is_empty() => text.clone(),
            Token::Number(digits, _) => format!("{sign}{digits}"),
            Token::Word(_) if sign.is_empty() => return self.dotted_word(),
            _ => {
                let error = self.expected("the value of an option");
                return Err(error.or_help("a value is a string in single quotes, a number or a word"));
            }
        };
        self.skip(1);
        Ok(value)
    }

    fn dotted_word(&mut self) -> Result<String> {
        let mut words = self.raw_word("a word")?;
        while self.accept_token(&Token::Period) {
            words = format!("{words}.{}", self.raw_word("a word")?);
        }
        Ok(words)
    }

    /// Reads a word as it is written, without folding.
    fn raw_word(&mut self, what: &str) -> Result<String> {
        let Token::Word(word) = self.token(0) else {
            return Err(self.expected(what));
        };
        let word = word.value.clone();
        self.skip(1);
        Ok(word)
    }

    /// Returns up to `count` words from here on, for a message.
    pub(super) fn first_words(&self, count: usize) -> String {
        let words: Vec<&str> = (0..count)
            .map_while(|n| match self.token(n) {
                Token::Word(word) => Some(word.value.as_str()),
                _ => None,
            })
            .collect();
        words.join(" ")
    }
}

/// Returns the word that a token is, unless it is quoted.
pub(super) fn unquoted(token: &Token) -> Option<&Word> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word),
        _ => None,
    }
}

fn folded(word: &Word) -> String {
    fold(&word.clone().into_ident(sqlparser::tokenizer::Span::empty()))
}

/// Takes the hints out of all SELECTs of a query, the outermost first.
fn take_hints(query: &mut Query) -> Vec<String> {
    struct Hints(Vec<String>);
    impl VisitorMut for Hints {
        type Break = ();
        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            for hint in std::mem::take(&mut select.optimizer_hints) {
                // sqlparser takes `--+` for a hint too; to us that is a comment.
                if hint.style == OptimizerHintStyle::MultiLine {
                    self.0.extend(split_hints(&hint.text));
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut hints = Hints(Vec::new());
    // Nothing breaks the visit off.
    let _ = query.visit(&mut hints);
    hints.0
}

/// Splits `a, b(c, d) e` into `A`, `B(C, D)` and `E`.
fn split_hints(text: &str) -> Vec<String> {
    let mut depth = 0usize;
    let is_between = |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && (c == ',' || c.is_whitespace())
    };
    text.split(is_between).filter(|hint| !hint.is_empty()).map(str::to_uppercase).collect()
}
