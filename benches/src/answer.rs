//! A folded changelog and the hash of its rows, in the form in which answers of different engines are compared.
//!
//! A row is its values in the order of the columns with `|` between them, NULL as nothing. The hash of an answer is the
//! first 16 hexadecimal digits of the SHA-256 of its rows, sorted, with a line feed between them.

use hashbrown::HashMap;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use crate::Result;
use crate::input::Lines;

/// The rows that a changelog leaves.
#[derive(Debug, Default)]
pub struct Answer {
    rows: HashMap<Box<str>, i64>,
    /// By key, for changelogs in upsert form.
    keyed: HashMap<Box<str>, Box<str>>,
    changes: u64,
}

/// A line of a changelog file, in either form.
#[derive(Deserialize)]
struct Change<'a> {
    op: &'a str,
    #[serde(borrow)]
    row: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
}

impl Answer {
    /// Folds the changelog in the file.
    ///
    /// # Errors
    /// Where the file cannot be read or a line is no change.
    pub fn of_changelog(path: &Path) -> Result<Answer> {
        let mut answer = Answer::default();
        let mut lines = Lines::open(path)?;
        while let Some(line) = lines.next_line()? {
            let text = std::str::from_utf8(line)?;
            answer.change(text).map_err(|error| format!("could not fold the change {text}: {error}"))?;
        }
        Ok(answer)
    }
    fn change(&mut self, line: &str) -> Result<()> {
        let change: Change<'_> = serde_json::from_str(line)?;
        let row = change.row.map(canonical).transpose()?;
        let key = change.key.map(canonical).transpose()?;
        match (change.op, row, key) {
            ("+I" | "+U", Some(row), _) => self.add(&row, 1),
            ("-U" | "-D", Some(row), _) => self.add(&row, -1),
            ("upsert", Some(row), Some(key)) => {
                self.changes += 1;
                self.keyed.insert(key.into(), row.into());
            }
            ("delete", _, Some(key)) => {
                self.changes += 1;
                self.keyed.remove(key.as_str());
            }
            (op, _, _) => return Err(format!("\"{op}\" is no operation, or its row or key is missing").into()),
        }
        Ok(())
    }
    /// Adds a row, or takes it away.
    pub fn add(&mut self, row: &str, diff: i64) {
        self.changes += 1;
        let count = self.rows.entry_ref(row).or_insert(0);
        *count += diff;
        if *count == 0 {
            self.rows.remove(row);
        }
    }
    /// The changes that were folded.
    pub fn changes(&self) -> u64 {
        self.changes
    }
    /// The number of rows and their hash.
    ///
    /// # Errors
    /// Where a row was taken away more often than it was added.
    pub fn rows_and_hash(&self) -> Result<(usize, String)> {
        let mut rows: Vec<&str> = self.keyed.values().map(|row| &**row).collect();
        for (row, count) in &self.rows {
            let count = usize::try_from(*count).map_err(|_| format!("the row is there {count} times: {row}"))?;
            rows.extend(std::iter::repeat_n(&**row, count));
        }
        rows.sort_unstable();
        let mut hasher = Sha256::new();
        for (index, row) in rows.iter().enumerate() {
            hasher.update(if index > 0 { "\n" } else { "" });
            hasher.update(row);
        }
        let digits: String = hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok((rows.len(), digits))
    }
}

/// A JSON object as a row.
fn canonical(object: &RawValue) -> Result<String> {
    struct Row;
    impl<'de> Visitor<'de> for Row {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<String, A::Error> {
            let mut row = String::new();
            while let Some((_, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                row += &text(value).map_err(serde::de::Error::custom)?;
                row.push('|');
            }
            row.pop();
            Ok(row)
        }
    }
    Ok(serde_json::Deserializer::from_str(object.get()).deserialize_map(Row)?)
}
/// A value as it stands in a row: strings without their quotes, numbers with the digits they came with.
fn text(value: &RawValue) -> serde_json::Result<Cow<'_, str>> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') if !raw.contains('\\') => Ok(Cow::Borrowed(&raw[1..raw.len() - 1])),
        Some(b'"') => serde_json::from_str::<String>(raw).map(Cow::Owned),
        _ if raw == "null" => Ok(Cow::Borrowed("")),
        _ => Ok(Cow::Borrowed(raw)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(lines: &[&str]) -> Result<(usize, String)> {
        let mut answer = Answer::default();
        lines.iter().try_for_each(|line| answer.change(line))?;
        answer.rows_and_hash()
    }

    // The hashes are those of `printf '..' | sha256sum`.
    #[test]
    fn rows_are_sorted_and_hashed() {
        let two = (2, "f15a0e295e8b65dd".to_owned());
        let lines = [
            r#"{"op":"+I","tick":1,"row":{"id":"b","n":1.50,"x":null}}"#,
            r#"{"op":"+I","tick":1,"row":{"id":"a\u0021","n":2,"x":true}}"#,
            r#"{"op":"-U","tick":2,"row":{"id":"b","n":1.50,"x":null}}"#,
            r#"{"op":"+U","tick":2,"row":{"id":"b","n":3,"x":""}}"#,
        ];
        assert_eq!(fold(&lines).expect("an answer"), two);
        let upserts = [
            r#"{"op":"upsert","tick":1,"key":{"id":"b"},"row":{"id":"b","n":3,"x":null}}"#,
            r#"{"op":"upsert","tick":1,"key":{"id":"c"},"row":{"id":"c","n":3,"x":null}}"#,
            r#"{"op":"delete","tick":2,"key":{"id":"c"},"row":null}"#,
            r#"{"op":"upsert","tick":3,"key":{"id":"a!"},"row":{"id":"a!","n":2,"x":true}}"#,
        ];
        assert_eq!(fold(&upserts).expect("an answer"), two);
    }

    #[test]
    fn what_cannot_be_folded_is_an_error() {
        for bad in [r#"{"op":"+I","tick":1}"#, r#"{"op":"-D","row":{"a":1}}"#, r#"{"op":"?","row":{}}"#, "x"] {
            assert!(fold(&[bad]).is_err(), "{bad}");
        }
    }
}
