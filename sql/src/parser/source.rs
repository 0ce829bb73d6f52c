//! The text of a script, addressed by line and column.

use sqlparser::tokenizer::Location;

/// A text with the byte offset of each of its lines.
#[derive(Debug)]
pub(crate) struct SourceText<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> SourceText<'a> {
    /// Indexes a text.
    pub(crate) fn new(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        SourceText { text, lines: std::iter::once(0).chain(ends).collect() }
    }

    /// Returns the byte offset of a location; the end of the text for one beyond it.
    pub(crate) fn offset(&self, at: Location) -> usize {
        let line = (at.line as usize).saturating_sub(1);
        let Some(&start) = self.lines.get(line) else {
            return self.text.len();
        };
        let column = (at.column as usize).saturating_sub(1);
        let rest = self.text.get(start..).unwrap_or_default();
        let within = rest.char_indices().nth(column).map_or(rest.len(), |(i, _)| i);
        start + within
    }

    /// Returns the text between two locations, the second excluded.
    pub(crate) fn slice(&self, from: Location, to: Location) -> &'a str {
        self.text.get(self.offset(from)..self.offset(to)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let source = SourceText::new("é1\r\n\nxyz");
        assert_eq!(source.offset(Location { line: 1, column: 2 }), 2);
        assert_eq!(source.offset(Location { line: 3, column: 1 }), 6);
        assert_eq!(source.offset(Location { line: 3, column: 9 }), 9);
        assert_eq!(source.offset(Location { line: 7, column: 1 }), 9);
        let (from, to) = (Location { line: 1, column: 1 }, Location { line: 3, column: 3 });
        assert_eq!(source.slice(from, to), "é1\r\n\nxy");
    }
}
