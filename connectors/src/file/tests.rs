//! Files: JSON lines, CSV and Parquet, one or many, and what is wrong with them.

use super::*;
use crate::decode::{Decoded, TopicFilter};
use crate::format::text::JsonRows;
use crate::options::Options;
use arrow::array::{
    BinaryArray, Decimal128Array, DictionaryArray, Float64Array, Int64Array, LargeStringArray, TimestampMillisecondArray,
    UInt64Array,
};
use arrow::datatypes::Int32Type;
use deltaworks_dataflow::{Column, Schema};
use std::fs;
use std::sync::Arc;

fn table(format: Format, options: &[(&str, &str)]) -> TableFormat {
    let columns = vec![Column::new("id", DataType::BigInt), Column::new("name", DataType::String)];
    let options = Options::new(options.iter().copied());
    TableFormat { options, ..TableFormat::new(format, Schema::new(columns), vec![]) }
}
/// Rows as JSON, dead letters as `position: reason`, in the order in which reading gives them.
fn read(source: &mut FileSource, table: &TableFormat, size: usize) -> Vec<String> {
    let mut decoder = table.decoder().expect("a decoder");
    let topics = TopicFilter::all(source.topics());
    let (rows, mut seen, mut records) = (JsonRows::new(&table.schema), vec![], Records::new());
    loop {
        records.clear();
        let state = source.read(size, usize::MAX, &mut records).expect("records");
        let mut out = Decoded::default();
        decoder.decode(&records, &topics, &mut out);
        for command in &out.commands {
            let mut text = vec![];
            rows.write(&command.row, &mut text);
            seen.push(format!("{} {}", command.position.offset, String::from_utf8(text).expect("text")));
        }
        seen.extend(out.dead.iter().map(|dead| format!("{}: {}", dead.position, dead.reason)));
        if state == ReadState::End {
            return seen;
        }
    }
}
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        fs::write(dir.path().join(name), content).expect("a file");
    }
    dir
}
fn path(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).to_string_lossy().into_owned()
}

#[test]
fn json_lines() {
    let dir = folder(&[
        ("b.json", "{\"id\":3}\n"),
        ("a.json", "{\"id\":1}\r\n\n{\"id\":2,\"name\":\"x\"}\nbad"),
        (".c.json", "x"),
        ("d.csv", "x"),
    ]);
    let table = table(Format::Json, &[]);
    for size in [1, 2, 10] {
        let mut source = FileSource::open(&path(&dir, "?.js*n"), &table).expect("files");
        assert_eq!(source.topics(), [path(&dir, "a.json"), path(&dir, "b.json")]);
        let mut seen = read(&mut source, &table, size);
        seen.sort();
        let expected = [
            "1 {\"id\":1,\"name\":null}",
            "1 {\"id\":3,\"name\":null}",
            "3 {\"id\":2,\"name\":\"x\"}",
            "4: invalid JSON: expected value at line 1 column 1",
        ];
        assert_eq!(seen, expected);
        let progress: Vec<_> = source.progress().iter().map(|p| (p.partition, p.records, p.next_offset, p.ended)).collect();
        assert_eq!(progress, [(0, 3, 5, true), (1, 1, 2, true)]);
    }
    assert_eq!(FileSource::open(&path(&dir, ""), &table).expect("a folder").topics().len(), 3);
    assert_eq!(FileSource::open(&format!("file://{}", path(&dir, "d.csv")), &table).expect("a file").topics().len(), 1);
}

#[test]
fn csv_with_header_and_quoted_lines() {
    let content = "\u{feff}id,name\n1,a\n\n2,\"b\nc\"\"\n\"\n3\n4,d\"\n5,\"open\n6,x\n";
    let dir = folder(&[("a.csv", content)]);
    let table = table(Format::Csv, &[("header", "true")]);
    let seen = read(&mut FileSource::open(&path(&dir, "a.csv"), &table).expect("a file"), &table, 100);
    let expected = [
        "2 {\"id\":1,\"name\":\"a\"}",
        "4 {\"id\":2,\"name\":\"b\\nc\\\"\\n\"}",
        "8 {\"id\":4,\"name\":\"d\\\"\"}",
        "7: the line has 1 fields, the table 2 columns: none is left for this one",
        "9: a field in quotes is not closed",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn compressed_files() {
    let dir = folder(&[]);
    fs::write(dir.path().join("a.csv.zst"), zstd::encode_all(&b"1,a\n"[..], 0).expect("compressed")).expect("a file");
    let table = table(Format::Csv, &[]);
    let seen = read(&mut FileSource::open(&path(&dir, "*"), &table).expect("a file"), &table, 100);
    assert_eq!(seen, ["1 {\"id\":1,\"name\":\"a\"}"]);
}

#[test]
fn missing_files_are_named() {
    let dir = folder(&[]);
    for name in ["", "x.csv", "*.csv", "no/*.csv", "no/x"] {
        let error = FileSource::open(&path(&dir, name), &table(Format::Csv, &[])).err().expect("an error");
        assert_eq!(error.to_string(), format!("no file at \"{}\"", path(&dir, name)));
    }
    let gone = FileSource::from_files(vec![dir.path().join("x")], &table(Format::Csv, &[]));
    assert!(matches!(gone, Err(Error::MissingFile { .. })));
    let wrong = FileSource::open(&path(&folder(&[("a", "")]), "a"), &table(Format::Csv, &[("header", "x")]));
    assert!(matches!(wrong, Err(Error::MissingFile { .. }) | Err(Error::InvalidOption { .. })));
}

#[test]
fn patterns_of_names() {
    for (pattern, name, expected) in [
        ("*", "a", true),
        ("*.csv", "a.csv", true),
        ("*.csv", "a.csv.zst", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*a*b", "xxaxxabxb", true),
        ("*a*b", "xxaxxabx", false),
        ("a**", "a", true),
    ] {
        assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
    }
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> tempfile::TempDir {
    let dir = folder(&[]);
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let file = File::create(dir.path().join("a.parquet")).expect("a file");
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    dir
}
fn read_parquet(dir: &tempfile::TempDir, columns: Vec<Column>) -> Result<Vec<String>> {
    let table = TableFormat::new(Format::Packed, Schema::new(columns), vec![]);
    let mut source = FileSource::open(&path(dir, "a.parquet"), &table)?;
    let mut records = Records::new();
    source.read(0, 1, &mut records)?;
    source.open_next()?;
    Ok(read(&mut source, &table, 2))
}

#[test]
fn parquet_columns_map_by_name() {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None, Some("x")].into_iter().collect();
    let decimals =
        Decimal128Array::from(vec![Some(12345), None, Some(-1)]).with_precision_and_scale(10, 3).expect("decimals");
    let dir = parquet(vec![
        ("D", Arc::new(decimals)),
        ("unused", Arc::new(Float64Array::from(vec![1.5, 2.5, 3.5]))),
        ("ID", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![0, 1, -1]))),
        ("kind", Arc::new(dictionary)),
        ("day", Arc::new(LargeStringArray::from(vec!["2026-05-01", "1970-01-01", "2026-05-02"]))),
        ("raw", Arc::new(BinaryArray::from(vec![&b"a"[..], b"", b"b"]))),
    ]);
    let columns = vec![
        Column::new("raw", DataType::Bytes),
        Column::new("id", DataType::Int),
        Column::new("day", DataType::Date),
        Column::new("missing", DataType::String),
        Column::new("kind", DataType::String),
        Column::new("d", DataType::Decimal { precision: 10, scale: 2 }),
        Column::new("at", DataType::Timestamp),
    ];
    let seen = read_parquet(&dir, columns).expect("rows");
    let expected = [
        r#"1 {"raw":"YQ==","id":1,"day":"2026-05-01","missing":null,"kind":"x","d":12.35,"at":"1970-01-01 00:00:00"}"#,
        r#"2 {"raw":"","id":null,"day":"1970-01-01","missing":null,"kind":null,"d":null,"at":"1970-01-01 00:00:00.001"}"#,
        r#"3 {"raw":"Yg==","id":3,"day":"2026-05-02","missing":null,"kind":"x","d":0.00,"at":"1969-12-31 23:59:59.999"}"#,
    ];
    assert_eq!(seen, expected);
}

#[test]
fn parquet_values_that_do_not_fit() {
    let dir = parquet(vec![
        ("a", Arc::new(UInt64Array::from(vec![1, u64::MAX, 2]))),
        ("b", Arc::new(LargeStringArray::from(vec!["1", "2", "x"]))),
        ("c", Arc::new(Float64Array::from(vec![1.5, 2.5, 3.5]))),
    ]);
    let column = |name: &str, data_type| vec![Column::new(name, data_type)];
    let seen = read_parquet(&dir, column("a", DataType::BigInt)).expect("rows");
    assert_eq!(seen, ["1 {\"a\":1}", "2: column \"a\": 18446744073709551615 is out of range for BIGINT", "3 {\"a\":2}"]);
    let seen = read_parquet(&dir, column("b", DataType::Int)).expect("rows");
    assert_eq!(seen, ["1 {\"b\":1}", "2 {\"b\":2}", "3: column \"b\": expected INT, found x"]);
    let error = read_parquet(&dir, column("c", DataType::BigInt)).expect_err("a loss").to_string();
    assert!(error.ends_with("as parquet: column \"c\" is Float64 in the file and BIGINT in the table"), "{error}");
    let damaged = folder(&[("a.parquet", "nonsense")]);
    let error = read_parquet(&damaged, column("c", DataType::BigInt)).expect_err("damage").to_string();
    assert!(error.starts_with("could not read \""), "{error}");
}
