//! LIKE patterns: `%` is any text, `_` one character.

/// A pattern made ready.
#[derive(Clone, Debug)]
pub(crate) struct LikePattern {
    tokens: Vec<Token>,
    ignore_case: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Any,
    One,
    Is(char),
}

impl LikePattern {
    /// Reads a pattern. The character after the escape stands for itself; without one, backslash escapes.
    pub(crate) fn new(pattern: &str, escape: Option<char>, ignore_case: bool) -> Self {
        let escape = escape.unwrap_or('\\');
        let mut tokens = Vec::new();
        let mut rest = pattern.chars();
        while let Some(letter) = rest.next() {
            let token = match letter {
                letter if letter == escape => Token::Is(rest.next().unwrap_or(letter)),
                '%' => Token::Any,
                '_' => Token::One,
                letter => Token::Is(letter),
            };
            if token != Token::Any || tokens.last() != Some(&Token::Any) {
                tokens.push(token);
            }
        }
        LikePattern { tokens, ignore_case }
    }
    /// Whether the whole text fits.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let letters: Vec<char> = text.chars().collect();
        // Where the last `%` stood, and how far it reached: on a mismatch it takes one letter more.
        let (mut token, mut letter) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while letter < letters.len() {
            match self.tokens.get(token) {
                Some(Token::Any) => {
                    retry = Some((token + 1, letter));
                    token += 1;
                    continue;
                }
                Some(Token::One) => {}
                Some(Token::Is(wanted)) if self.same(*wanted, letters[letter]) => {}
                _ => {
                    let Some((after, reached)) = retry else { return false };
                    retry = Some((after, reached + 1));
                    (token, letter) = (after, reached + 1);
                    continue;
                }
            }
            (token, letter) = (token + 1, letter + 1);
        }
        self.tokens[token..].iter().all(|token| *token == Token::Any)
    }
    fn same(&self, a: char, b: char) -> bool {
        a == b || self.ignore_case && a.to_lowercase().eq(b.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::LikePattern;

    #[test]
    fn percent_underscore_and_escape() {
        let fits = |pattern: &str, text: &str| LikePattern::new(pattern, None, false).matches(text);
        assert!(fits("%b%d_", "abcde") && fits("", "") && fits("%", "") && fits("a%", "a") && fits("%%x", "xxx"));
        assert!(!fits("a_", "a") && !fits("a", "ab") && !fits("%a", "ab") && !fits("_", ""));
        assert!(fits("100\\%", "100%") && !fits("100\\%", "1000"));
        assert!(LikePattern::new("a!_b", Some('!'), false).matches("a_b"));
        assert!(LikePattern::new("ÄB%", None, true).matches("äbc"));
    }
}
