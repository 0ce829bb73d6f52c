//! A watched folder: what is taken, when, and once.

use super::*;
use crate::format::Format;
use deltaworks_dataflow::{Column, DataType, Schema};

fn format() -> TableFormat {
    let schema = Schema::new(vec![Column::new("n", DataType::Int)]);
    TableFormat::new(Format::Csv, schema, vec![])
}
/// Everything that can be read now: (file name, line, value or reason).
fn drain(source: &mut FolderSource) -> (Vec<(String, u64, String)>, ReadState) {
    let mut all = Vec::new();
    loop {
        let mut records = Records::new();
        let state = source.read(100, 1 << 20, &mut records).unwrap();
        for record in records.iter() {
            let path = Path::new(&source.topics()[record.topic as usize]);
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = record.broken.map(str::to_string);
            let text = text.unwrap_or_else(|| String::from_utf8_lossy(record.value.unwrap()).into_owned());
            all.push((name, record.offset, text));
        }
        if state != ReadState::More {
            return (all, state);
        }
    }
}
fn put(folder: &Path, name: &str, text: &str, age_s: u64) {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the age of a file is the machine's time")]
    let then = SystemTime::now() - Duration::from_secs(age_s);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
}
fn line(name: &str, offset: u64, text: &str) -> (String, u64, String) {
    (name.to_string(), offset, text.to_string())
}

#[test]
fn a_bounded_source_reads_what_is_there_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "b.csv", "3\n", 0);
    put(folder.path(), "a.csv", "1\n2\n", 100);
    put(folder.path(), ".hidden", "9\n", 100);
    std::fs::create_dir(folder.path().join("inside")).unwrap();
    let mut source = FolderSource::open(folder.path(), &[], &format(), true).unwrap();
    let (lines, state) = drain(&mut source);
    assert_eq!(lines, [line("a.csv", 1, "1"), line("a.csv", 2, "2"), line("b.csv", 1, "3")]);
    assert_eq!(state, ReadState::End);
}
#[test]
fn a_watched_folder_gives_each_file_once() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.csv", "1\n", 100);
    put(folder.path(), "b.csv", "2\n", 0);
    put(folder.path(), "other.txt", "x\n", 100);
    let names = ["a.csv".to_string(), "b.csv".into(), "c.csv".into()];
    let mut source = FolderSource::open(folder.path(), &names, &format(), false).unwrap();
    assert_eq!(drain(&mut source), (vec![line("a.csv", 1, "1")], ReadState::Idle));
    assert_eq!(source.waiting(), [folder.path().join("b.csv")]);
    // Looks come no more often than they are due; this stands for the time between two of them.
    source.look_again();
    put(folder.path(), "a.csv", "1\n7\n", 100);
    put(folder.path(), "c.csv", "3\n", 100);
    assert_eq!(drain(&mut source), (vec![line("c.csv", 1, "3")], ReadState::Idle));
    assert_eq!(source.take_changed(), [folder.path().join("a.csv")]);
}
#[test]
fn a_file_that_cannot_be_read_is_a_broken_record() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.csv.zst", "this is not compressed\n", 100);
    put(folder.path(), "b.csv", "2\n", 100);
    let mut source = FolderSource::open(folder.path(), &[], &format(), true).unwrap();
    let (lines, _) = drain(&mut source);
    let [(broken, _, reason), good] = &lines[..] else { panic!("{lines:?}") };
    assert!(broken == "a.csv.zst" && reason.contains("a.csv.zst"), "{reason}");
    assert_eq!(*good, line("b.csv", 1, "2"));
}
#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = FolderSource::open(Path::new("/no/such/folder"), &[], &format(), false).err().unwrap();
    assert!(error.to_string().contains("/no/such/folder"));
}
