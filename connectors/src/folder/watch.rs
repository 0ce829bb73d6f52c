//! When a file in a folder is whole: a fold over what successive looks at the folder show.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// How long a file's size must have stayed the same, in microseconds.
const STABLE: i64 = 2_000_000;

/// A file as one look shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileState {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Microseconds since 1970.
    pub(super) modified: i64,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// It has looked like this since that instant.
    Waiting { size: u64, modified: i64, since: i64 },
    /// It was taken when it looked like this.
    Taken { size: u64, modified: i64, reported: bool },
}

/// What a look gives.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The files that are whole now.
    pub(super) whole: Vec<PathBuf>,
    /// The files that have changed although they were taken, each once.
    pub(super) changed: Vec<PathBuf>,
}

/// The files of a folder.
#[derive(Debug, Default)]
pub(super) struct Watch {
    files: BTreeMap<PathBuf, Known>,
    previous: Option<i64>,
}

impl Watch {
    /// The files that are there and not whole yet.
    pub(super) fn waiting(&self) -> Vec<PathBuf> {
        let waiting = self.files.iter().filter(|(_, known)| matches!(known, Known::Waiting { .. }));
        waiting.map(|(path, _)| path.clone()).collect()
    }
    /// Takes one look at the folder, at the instant `now`.
    pub(super) fn look(&mut self, listing: &[FileState], now: i64) -> Seen {
        let mut seen = Seen::default();
        let previous = self.previous.replace(now);
        // A file that was not whole when it went was never there.
        let is_there = |path: &PathBuf| listing.iter().any(|file| file.path == *path);
        self.files.retain(|path, known| matches!(known, Known::Taken { .. }) || is_there(path));
        for FileState { path, size, modified } in listing {
            let (size, modified) = (*size, *modified);
            let taken = Known::Taken { size, modified, reported: false };
            let waiting = Known::Waiting { size, modified, since: now };
            let next = match self.files.get(path).copied() {
                // Written before the look at which it was not there: it was renamed in.
                None if previous.is_some_and(|previous| modified < previous) || now - modified >= STABLE => taken,
                None => waiting,
                Some(Known::Waiting { size: old_size, modified: old, since }) if (old_size, old) == (size, modified) => {
                    if now - since >= STABLE {
                        taken
                    } else {
                        continue;
                    }
                }
                Some(Known::Waiting { .. }) => waiting,
                Some(Known::Taken { size: old_size, modified: old, .. }) if (old_size, old) == (size, modified) => continue,
                Some(Known::Taken { reported, .. }) => {
                    seen.changed.extend((!reported).then(|| path.clone()));
                    self.files.insert(path.clone(), Known::Taken { size, modified, reported: true });
                    continue;
                }
            };
            if matches!(next, Known::Taken { .. }) {
                seen.whole.push(path.clone());
            }
            self.files.insert(path.clone(), next);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look at second `now` at files (name, size, second of modification): those taken, and those reported.
    fn look(watch: &mut Watch, now: f64, files: &[(&str, u64, f64)]) -> (Vec<String>, Vec<String>) {
        let micros = |seconds: f64| (seconds * 1e6) as i64;
        let state = |(name, size, modified): &(&str, u64, f64)| FileState {
            path: PathBuf::from(name),
            size: *size,
            modified: micros(*modified),
        };
        let seen = watch.look(&files.iter().map(state).collect::<Vec<_>>(), micros(now));
        let names = |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect();
        (names(seen.whole), names(seen.changed))
    }
    fn nothing() -> (Vec<String>, Vec<String>) {
        (vec![], vec![])
    }
    fn whole(name: &str) -> (Vec<String>, Vec<String>) {
        (vec![name.to_string()], vec![])
    }

    #[test]
    fn a_file_that_is_written_is_taken_when_its_size_has_stood_still() {
        let mut watch = Watch::default();
        assert_eq!(look(&mut watch, 10.0, &[]), nothing());
        assert_eq!(look(&mut watch, 11.0, &[("a", 5, 10.9)]), nothing());
        assert_eq!(look(&mut watch, 12.9, &[("a", 9, 12.5)]), nothing());
        assert_eq!(look(&mut watch, 14.8, &[("a", 9, 12.5)]), nothing());
        assert_eq!(watch.waiting(), [PathBuf::from("a")]);
        assert_eq!(look(&mut watch, 14.9, &[("a", 9, 12.5)]), whole("a"));
        assert_eq!(look(&mut watch, 99.0, &[("a", 9, 12.5)]), nothing());
        assert!(watch.waiting().is_empty());
    }
    #[test]
    fn what_lies_there_and_what_is_renamed_in_is_taken_at_once() {
        let mut watch = Watch::default();
        assert_eq!(look(&mut watch, 10.0, &[("old", 5, 8.0), ("new", 5, 9.0)]), whole("old"));
        // Last written before the look that did not show it.
        assert_eq!(look(&mut watch, 10.5, &[("old", 5, 8.0), ("new", 5, 9.0), ("in", 1, 9.9)]), whole("in"));
        assert_eq!(look(&mut watch, 12.0, &[("old", 5, 8.0), ("new", 5, 9.0), ("in", 1, 9.9)]), whole("new"));
    }
    #[test]
    fn a_changed_file_is_reported_once_and_never_taken_again() {
        let mut watch = Watch::default();
        assert_eq!(look(&mut watch, 10.0, &[("a", 5, 1.0)]), whole("a"));
        let reported = (vec![], vec!["a".to_string()]);
        assert_eq!(look(&mut watch, 11.0, &[("a", 6, 10.5)]), reported);
        assert_eq!(look(&mut watch, 20.0, &[("a", 6, 10.5)]), nothing());
        assert_eq!(look(&mut watch, 21.0, &[("a", 7, 20.5)]), nothing());
        // Gone and back: known by its path, size and time.
        assert_eq!(look(&mut watch, 22.0, &[]), nothing());
        assert_eq!(look(&mut watch, 23.0, &[("a", 7, 20.5)]), nothing());
    }
    #[test]
    fn a_file_that_goes_before_it_is_whole_was_never_there() {
        let mut watch = Watch::default();
        assert_eq!(look(&mut watch, 10.0, &[("a", 5, 9.9)]), nothing());
        assert_eq!(look(&mut watch, 10.5, &[]), nothing());
        assert!(watch.waiting().is_empty());
        assert_eq!(look(&mut watch, 12.5, &[("a", 5, 12.4)]), nothing());
        assert_eq!(look(&mut watch, 14.5, &[("a", 5, 12.4)]), whole("a"));
    }
}
