//! Sinks: every form of a change, and what is refused.

use super::*;
use deltaworks_dataflow::{Column, Datum, Row};

fn schema() -> Schema {
    Schema::new(vec![Column::new("id", DataType::BigInt), Column::new("name", DataType::String)])
}
fn row(id: i64, name: &'static str) -> Row {
    Row::pack([Datum::Int(id), Datum::str(name)])
}
fn changes(kinds: &[RowKind]) -> Changes {
    let entries = kinds.iter().enumerate().map(|(index, kind)| (*kind, row(index as i64, "a\"b"))).collect();
    Changes { tick: 7, entries, conflicts: Vec::new() }
}
fn options(path: &Path, more: &[(&str, &str)]) -> Options {
    let path = path.to_string_lossy().into_owned();
    let mut all = vec![("connector".to_owned(), "filesystem".to_owned()), ("path".to_owned(), path)];
    all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Options::new(all)
}
fn written(more: &[(&str, &str)], kinds: &[RowKind]) -> Result<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("new/folder/out.txt");
    let spec = SinkSpec::from_options(&options(&path, more), &schema(), &[0])?;
    let mut sink = spec.open()?;
    sink.write(&changes(&[RowKind::Insert]))?;
    sink.finish()?;
    // Opening again begins anew.
    let mut sink = spec.open()?;
    sink.write(&changes(kinds))?;
    sink.flush()?;
    sink.finish()?;
    Ok(std::fs::read_to_string(path).expect("a file"))
}
const ALL: [RowKind; 4] = [RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter, RowKind::Delete];

#[test]
fn changelogs() {
    let expected = concat!(
        "{\"op\":\"+I\",\"tick\":7,\"row\":{\"id\":0,\"name\":\"a\\\"b\"}}\n",
        "{\"op\":\"-U\",\"tick\":7,\"row\":{\"id\":1,\"name\":\"a\\\"b\"}}\n",
        "{\"op\":\"+U\",\"tick\":7,\"row\":{\"id\":2,\"name\":\"a\\\"b\"}}\n",
        "{\"op\":\"-D\",\"tick\":7,\"row\":{\"id\":3,\"name\":\"a\\\"b\"}}\n",
    );
    assert_eq!(written(&[], &ALL).expect("a changelog"), expected);
    assert_eq!(written(&[("format", "changelog-json")], &ALL).expect("a changelog"), expected);
}

#[test]
fn upserts() {
    let expected = concat!(
        "{\"op\":\"upsert\",\"tick\":7,\"key\":{\"id\":0},\"row\":{\"id\":0,\"name\":\"a\\\"b\"}}\n",
        "{\"op\":\"upsert\",\"tick\":7,\"key\":{\"id\":2},\"row\":{\"id\":2,\"name\":\"a\\\"b\"}}\n",
        "{\"op\":\"delete\",\"tick\":7,\"key\":{\"id\":3},\"row\":null}\n",
    );
    assert_eq!(written(&[("format", "upsert-json")], &ALL).expect("upserts"), expected);
    assert_eq!(written(&[("changelog.mode", "upsert")], &ALL).expect("upserts"), expected);
    let error = SinkSpec::new(SinkTarget::Stdout, SinkFormat::UpsertJson, &schema(), &[]).expect_err("no key");
    assert_eq!(error.to_string(), "sink \"stdout\" writes by key, but its table has no key");
}

#[test]
fn rows_alone() {
    let inserts = [RowKind::Insert; 2];
    let json = "{\"id\":0,\"name\":\"a\\\"b\"}\n{\"id\":1,\"name\":\"a\\\"b\"}\n";
    assert_eq!(written(&[("format", "json")], &inserts).expect("rows"), json);
    let csv = "0,\"a\"\"b\"\n1,\"a\"\"b\"\n";
    assert_eq!(written(&[("format", "csv")], &inserts).expect("rows"), csv);
    let headed = written(&[("format", "csv"), ("header", "true")], &inserts).expect("rows");
    assert_eq!(headed, format!("id,name\n{csv}"));
    let error = written(&[("format", "csv"), ("sep", ";")], &inserts).expect_err("another separator").to_string();
    assert_eq!(error, "invalid value \";\" of option \"sep\"");
    for format in ["json", "csv"] {
        for kind in &ALL[1..] {
            let error = written(&[("format", format)], &[*kind]).expect_err("no insert").to_string();
            let end = format!("\" only appends, but the query takes rows back ({} in tick 7)", kind.symbol());
            assert!(error.ends_with(&end), "{error}");
        }
    }
}

#[test]
fn other_targets() {
    for connector in ["stdout", "print", "blackhole"] {
        let spec = SinkSpec::from_options(&Options::new([("connector", connector)]), &schema(), &[]).expect("a sink");
        assert_eq!(spec.target == SinkTarget::Blackhole, connector == "blackhole");
    }
    let spec = SinkSpec::new(SinkTarget::Blackhole, SinkFormat::ChangelogJson, &schema(), &[]).expect("a sink");
    let mut sink = spec.open().expect("a sink");
    assert!(sink.write(&changes(&ALL)).is_ok() && sink.flush().is_ok() && sink.finish().is_ok());
}

#[test]
fn what_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let message = |options: &Options| SinkSpec::from_options(options, &schema(), &[0]).expect_err("an error").to_string();
    assert_eq!(message(&Options::new([("connector", "filesystem")])), "missing option \"path\" of connector \"filesystem\"");
    assert_eq!(message(&Options::new([("path", "x")])), "missing option \"connector\" of connector \"\"");
    let folder = message(&options(dir.path(), &[]));
    assert_eq!(folder, format!("invalid value \"{}\" of option \"path\"", dir.path().display()));
    let path = dir.path().join("x");
    assert_eq!(message(&options(&path, &[("format", "avro")])), "unknown format \"avro\"");
    assert_eq!(message(&options(&path, &[("changelog.mode", "all")])), "invalid value \"all\" of option \"changelog.mode\"");
    assert_eq!(message(&options(&path, &[("pth", "all")])), "unknown option \"pth\" of connector \"filesystem\"");
    assert_eq!(message(&Options::new([("connector", "kafka"), ("topic", "t")])), "unknown connector \"kafka\"");
    let two = Schema::new(vec![Column::new("a", DataType::Int), Column::new("a", DataType::Int)]);
    let error = SinkSpec::new(SinkTarget::Stdout, SinkFormat::Json, &two, &[]).expect_err("two of one name");
    assert!(matches!(error, Error::DuplicateColumn { .. }));
    std::fs::write(&path, "").expect("a file");
    let below = SinkSpec::from_options(&options(&path.join("y"), &[]), &schema(), &[0]).expect("a sink");
    let error = below.open().err().expect("a file in the way").to_string();
    assert!(error.starts_with("could not create \""), "{error}");
}

#[test]
fn snapshots_hold_the_rows_that_are_there() {
    let entry = |kind, id, name| (kind, row(id, name));
    let first = [entry(RowKind::Insert, 2, "b"), entry(RowKind::Insert, 1, "a,"), entry(RowKind::Insert, 3, "c")];
    let second = [entry(RowKind::UpdateBefore, 2, "b"), entry(RowKind::UpdateAfter, 2, "B"), entry(RowKind::Delete, 3, "c")];
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
    let cases: [Case<'_>; 3] = [
        (&[("format", "csv")], "1,\"a,\"\n2,b\n3,c\n", "1,\"a,\"\n2,B\n"),
        (&[("format", "csv"), ("header", "true")], "id,name\n1,\"a,\"\n2,b\n3,c\n", "id,name\n1,\"a,\"\n2,B\n"),
        (
            &[("format", "json")],
            "{\"id\":1,\"name\":\"a,\"}\n{\"id\":2,\"name\":\"b\"}\n{\"id\":3,\"name\":\"c\"}\n",
            "{\"id\":1,\"name\":\"a,\"}\n{\"id\":2,\"name\":\"B\"}\n",
        ),
    ];
    for (format, after_first, after_second) in cases {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("new/rows");
        let all = [format, &[("sink.mode", "snapshot")]].concat();
        let spec = SinkSpec::from_options(&options(&path, &all), &schema(), &[0]).expect("a sink");
        let mut sink = spec.open().expect("an open sink");
        let read = || std::fs::read_to_string(&path).expect("a file");
        assert!(!read().contains('1'));
        sink.write(&Changes { tick: 1, entries: first.to_vec(), conflicts: Vec::new() }).expect("written");
        sink.flush().expect("flushed");
        assert_eq!(read(), after_first);
        sink.write(&Changes { tick: 2, entries: second.to_vec(), conflicts: Vec::new() }).expect("written");
        sink.finish().expect("finished");
        assert_eq!(read(), after_second);
        assert_eq!(std::fs::read_dir(path.parent().expect("a folder")).expect("a folder").count(), 1);
    }
}

#[test]
fn raw_lines_are_one_text() {
    let texts = Schema::new(vec![Column::new("id", DataType::String)]);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("ids.txt");
    let all = options(&path, &[("format", "raw"), ("sink.mode", "snapshot")]);
    let mut sink = SinkSpec::from_options(&all, &texts, &[0]).and_then(|spec| spec.open()).expect("an open sink");
    let entry = |kind, id| (kind, Row::pack([Datum::str(id)]));
    let entries = vec![entry(RowKind::Insert, "b"), entry(RowKind::Insert, "a\"c"), entry(RowKind::Delete, "b")];
    sink.write(&Changes { tick: 1, entries, conflicts: Vec::new() }).expect("written");
    sink.finish().expect("finished");
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), "a\"c\n");
    let error = SinkSpec::from_options(&options(&path, &[("format", "raw")]), &schema(), &[0]).expect_err("two columns");
    assert!(error.to_string().contains("one column of type STRING"), "{error}");
    let changelog = options(&path, &[("sink.mode", "snapshot")]);
    let error = SinkSpec::from_options(&changelog, &schema(), &[0]).expect_err("a changelog is no snapshot");
    assert!(error.to_string().contains("sink.mode"), "{error}");
}
