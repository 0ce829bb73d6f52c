//! A changelog file, written by hand: what a peer without SQL puts its answer into.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use deltaworks_dataflow::changelog::RowKind;
use deltaworks_dataflow::{Diff, Time};

use crate::Result;
use crate::topics::buffered;

/// A file of changelog lines.
pub struct ChangelogFile {
    file: BufWriter<File>,
    lines: u64,
}

impl ChangelogFile {
    /// Creates the file.
    ///
    /// # Errors
    /// Where it cannot be created.
    pub fn create(path: &Path) -> Result<ChangelogFile> {
        Ok(ChangelogFile { file: buffered(path)?, lines: 0 })
    }
    /// Writes the consolidated updates of one key at one tick, of which at most one retracts and one inserts. `row` writes a
    /// row as a JSON object.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_key<R>(
        &mut self,
        tick: Time,
        updates: &[(R, Time, Diff)],
        mut row: impl FnMut(&R, &mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let old = updates.iter().find(|update| update.2 < 0);
        let new = updates.iter().find(|update| update.2 > 0);
        let kinds = match (old, new) {
            (Some(_), Some(_)) => (RowKind::UpdateBefore, RowKind::UpdateAfter),
            _ => (RowKind::Delete, RowKind::Insert),
        };
        for (kind, update) in [(kinds.0, old), (kinds.1, new)] {
            if let Some((data, _, _)) = update {
                write!(self.file, r#"{{"op":"{}","tick":{tick},"row":"#, kind.symbol())?;
                row(data, &mut self.file)?;
                self.file.write_all(b"}\n")?;
                self.lines += 1;
            }
        }
        Ok(())
    }
    /// Writes out what is buffered and returns the number of lines.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn finish(mut self) -> Result<u64> {
        self.file.flush()?;
        Ok(self.lines)
    }
}
