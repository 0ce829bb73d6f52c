//! A watched folder as a source: every file that is put there is read once, in the order in which files become whole.
//!
//! A file is known by its path, size and modification time. It is taken once its size has stayed the same for 2 s, or at once if
//! it was renamed in: it is there at one look with a modification time before the look at which it was not. A file that changes
//! after it was taken is reported and not read again. Names that begin with a dot, and folders, are passed over.
//!
//! *Guarantee*: each file once, as long as the process lives. The source never ends, unless it is opened to read what is there.
//! A file that cannot be read is one broken record with the reason.

mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::decode::TableFormat;
use crate::error::{Error, Result};
use crate::file::FileSource;
use crate::record::Records;
use crate::source::{PartitionProgress, ReadState, RecordSource};

use watch::{FileState, Watch};

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Reads a folder.
pub struct FolderSource {
    folder: PathBuf,
    /// The names that are read; empty for all.
    names: Vec<String>,
    files: FileSource,
    watch: Watch,
    looked: Option<i64>,
    /// Whether the next read looks in any case.
    due: bool,
    /// Whether the source ends when what was there at the first look is read.
    bounded: bool,
    changed: Vec<PathBuf>,
}

impl FolderSource {
    /// Watches a folder for files of these names, or for all. A `bounded` source reads what is there, however new, and ends.
    ///
    /// # Errors
    /// There is no such folder; options with impossible values.
    pub fn open(folder: &Path, names: &[String], table: &TableFormat, bounded: bool) -> Result<FolderSource> {
        if !folder.is_dir() {
            return Err(Error::MissingFile { path: folder.to_path_buf() });
        }
        Ok(FolderSource {
            folder: folder.to_path_buf(),
            names: names.to_vec(),
            files: FileSource::from_files(Vec::new(), table)?,
            watch: Watch::default(),
            looked: None,
            due: false,
            bounded,
            changed: Vec::new(),
        })
    }
    /// Whether the source never ends.
    pub fn is_unbounded(&self) -> bool {
        !self.bounded
    }
    /// The files that are there and not whole yet.
    pub fn waiting(&self) -> Vec<PathBuf> {
        self.watch.waiting()
    }
    /// Lets the next read look at the folder, however recent the last look is.
    pub fn look_again(&mut self) {
        self.due = true;
    }
    /// The files that were seen to have changed after they were taken, each named once.
    pub fn take_changed(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.changed)
    }
    fn look_if_due(&mut self) -> Result<()> {
        #[expect(clippy::disallowed_methods, reason = "modification times of files are the machine's time")]
        let now = micros(SystemTime::now());
        let due =
            self.due || self.looked.is_none_or(|looked| (now - looked).unsigned_abs() >= LOOK_EVERY.as_micros() as u64);
        if !due || (self.bounded && self.looked.is_some()) {
            return Ok(());
        }
        (self.looked, self.due) = (Some(now), false);
        let listing = self.list()?;
        if self.bounded {
            listing.into_iter().for_each(|file| self.files.push(file.path));
            return Ok(());
        }
        let seen = self.watch.look(&listing, now);
        seen.whole.into_iter().for_each(|path| self.files.push(path));
        self.changed.extend(seen.changed);
        Ok(())
    }
    /// The files in the folder, by name. What vanishes meanwhile is not there.
    fn list(&self) -> Result<Vec<FileState>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(Error::io("read", &self.folder))? {
            let entry = entry.map_err(Error::io("read", &self.folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let wanted = self.names.is_empty() || self.names.contains(&name);
            let Ok(about) = std::fs::metadata(entry.path()) else { continue };
            if name.starts_with('.') || !wanted || !about.is_file() {
                continue;
            }
            let modified = about.modified().map_or(0, micros);
            files.push(FileState { path: entry.path(), size: about.len(), modified });
        }
        files.sort();
        Ok(files)
    }
}

/// Microseconds since 1970.
fn micros(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}

impl RecordSource for FolderSource {
    fn topics(&self) -> &[String] {
        self.files.topics()
    }
    fn read(&mut self, max_records: usize, max_bytes: usize, into: &mut Records) -> Result<ReadState> {
        self.look_if_due()?;
        let state = match self.files.read(max_records, max_bytes, into) {
            Ok(state) => state,
            Err(error) => {
                self.files.skip(&error.to_string(), into);
                ReadState::More
            }
        };
        Ok(if state == ReadState::End && !self.bounded { ReadState::Idle } else { state })
    }
    fn progress(&self) -> Vec<PartitionProgress> {
        self.files.progress()
    }
}

#[cfg(test)]
mod tests;
