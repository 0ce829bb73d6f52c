//! Decoding, format by format: what becomes a command, what becomes a dead letter, and why.

use super::*;
use crate::format::text::JsonRows;
use deltaworks_dataflow::bitmap;
use proptest::prelude::*;

pub(crate) fn column(name: &str, data_type: DataType) -> Column {
    Column::new(name, data_type)
}
pub(crate) fn not_null(name: &str, data_type: DataType) -> Column {
    Column { nullable: false, ..Column::new(name, data_type) }
}
pub(crate) fn decimal(precision: u8, scale: i8) -> DataType {
    DataType::Decimal { precision, scale }
}
pub(crate) fn decode_records(table: &TableFormat, records: &Records) -> Decoded {
    let mut out = Decoded::default();
    let mut decoder = table.decoder().expect("a decoder");
    decoder.decode(records, &TopicFilter::all(&["t".to_owned()]), &mut out);
    out
}
fn record<'a>(key: Option<&'a str>, value: Option<&'a str>) -> Record<'a> {
    Record { key: key.map(str::as_bytes), value: value.map(str::as_bytes), timestamp: 1000, offset: 7, ..Record::default() }
}
fn decode(table: &TableFormat, key: Option<&str>, value: Option<&str>) -> Decoded {
    let mut records = Records::new();
    records.push(record(key, value));
    decode_records(table, &records)
}
/// The commands as text: `+` upsert, `-` retract, with the full row; `x` delete, with the key.
fn commands(table: &TableFormat, decoded: &Decoded) -> Vec<String> {
    let keys = Schema::new(table.key.iter().map(|column| table.schema.columns[*column].clone()).collect());
    let show = |command: &Command| {
        let (sign, schema) = match command.kind {
            CommandKind::Upsert => ('+', &table.schema),
            CommandKind::Retract => ('-', &table.schema),
            CommandKind::Delete | CommandKind::Merge => ('x', &keys),
        };
        let mut text = vec![];
        JsonRows::new(schema).write(&command.row, &mut text);
        format!("{sign}{}", String::from_utf8(text).expect("text"))
    };
    decoded.commands.iter().map(show).collect()
}
/// What one record gives: commands, or `field: reason` of the dead letter.
pub(crate) fn check(table: &TableFormat, key: Option<&str>, value: Option<&str>, expected: &[&str]) {
    let decoded = decode(table, key, value);
    let mut found = commands(table, &decoded);
    found.extend(decoded.dead.iter().map(|dead| format!("{}: {}", dead.field.as_deref().unwrap_or("*"), dead.reason)));
    assert_eq!(found, expected, "{value:?}");
}

fn one(data_type: DataType) -> TableFormat {
    TableFormat::new(Format::Json, Schema::new(vec![column("c", data_type)]), vec![])
}
/// The one column `c` of type, from the JSON value.
fn check_value(data_type: DataType, value: &str, expected: &str) {
    check(&one(data_type), None, Some(&format!("{{\"c\":{value}}}")), &[expected]);
}

#[test]
fn json_values() {
    check_value(DataType::BigInt, "9007199254740993", r#"+{"c":9007199254740993}"#);
    check_value(DataType::BigInt, "\"-5\"", r#"+{"c":-5}"#);
    check_value(DataType::BigInt, "1e3", r#"+{"c":1000}"#);
    check_value(decimal(38, 20), "0.10000000000000000001", r#"+{"c":0.10000000000000000001}"#);
    check_value(decimal(10, 2), "\"-2.345\"", r#"+{"c":-2.35}"#);
    check_value(DataType::Double, "0.1", r#"+{"c":0.1}"#);
    check_value(DataType::Double, "\"NaN\"", r#"+{"c":"NaN"}"#);
    check_value(DataType::Boolean, "\"TRUE\"", r#"+{"c":true}"#);
    check_value(DataType::Boolean, "false", r#"+{"c":false}"#);
    check_value(DataType::String, r#""a\n\u00e9""#, r#"+{"c":"a\né"}"#);
    check_value(DataType::String, "1.50", r#"+{"c":"1.50"}"#);
    check_value(DataType::String, "true", r#"+{"c":"true"}"#);
    check_value(DataType::String, r#"{"a": [1]}"#, r#"+{"c":"{\"a\": [1]}"}"#);
    check_value(DataType::Bytes, "\"AP8=\"", r#"+{"c":"AP8="}"#);
    check_value(DataType::Date, "\"2026-05-01\"", r#"+{"c":"2026-05-01"}"#);
    check_value(DataType::Date, "20574", r#"+{"c":"2026-05-01"}"#);
    check_value(DataType::Timestamp, "\"2026-05-01T09:00:00.5\"", r#"+{"c":"2026-05-01 09:00:00.5"}"#);
    check_value(DataType::TimestampLtz, "\"2026-05-01 09:00:00+02:00\"", r#"+{"c":"2026-05-01 07:00:00Z"}"#);
    check_value(DataType::IntervalDay, "\"P3DT4H5M6.789S\"", r#"+{"c":"P3DT4H5M6.789S"}"#);
    check_value(DataType::IntervalMonth, "\"P14M\"", r#"+{"c":"P1Y2M"}"#);
    check_value(DataType::Bitmap, "[5,1,5,18446744073709551615]", r#"+{"c":[1,5,18446744073709551615]}"#);
    check_value(DataType::Array(Box::new(DataType::Date)), "[\"2026-05-01\",null]", r#"+{"c":["2026-05-01",null]}"#);
    let address = DataType::Struct(vec![column("city", DataType::String), column("zip", DataType::Int)]);
    check_value(address, r#"{"ZIP":12,"city":"x","city":"y","more":{}}"#, r#"+{"c":{"city":"y","zip":12}}"#);
    check_value(DataType::Int, "null", r#"+{"c":null}"#);
}

#[test]
fn json_values_that_do_not_fit_are_named() {
    check_value(DataType::BigInt, "\"abc\"", "c: expected BIGINT, found \"abc\"");
    check_value(DataType::BigInt, "1.5", "c: expected BIGINT, found 1.5");
    check_value(DataType::BigInt, "true", "c: expected BIGINT, found true");
    check_value(DataType::BigInt, "[1]", "c: expected BIGINT, found [1]");
    check_value(DataType::TinyInt, "300", "c: 300 is out of range for TINYINT");
    check_value(decimal(4, 2), "123.4", "c: 123.4 is out of range for DECIMAL(4, 2)");
    check_value(DataType::Double, "1e999", "c: 1e999 is out of range for DOUBLE");
    check_value(DataType::Boolean, "1", "c: expected BOOLEAN, found 1");
    check_value(DataType::Bytes, "\"?\"", "c: expected BYTES, found \"?\"");
    check_value(DataType::Date, "\"2026-02-30\"", "c: \"2026-02-30\" is out of range for DATE");
    let reason = "c: expected TIMESTAMP, found the number 1777608347000 whose unit is not known; declare the column BIGINT and convert it, e.g. with TO_TIMESTAMP_LTZ(c, 3)";
    check_value(DataType::Timestamp, "1777608347000", reason);
    let reason = "c: expected TIMESTAMP, found 2026-05-01T09:00:00Z with a time zone; TIMESTAMP_LTZ holds it";
    check_value(DataType::Timestamp, "\"2026-05-01T09:00:00Z\"", reason);
    check_value(DataType::Bitmap, "[1,-2]", "c[1]: expected an integer from 0 to 18446744073709551615, found -2");
    let address = DataType::Struct(vec![column("zip", DataType::Array(Box::new(DataType::Int)))]);
    check_value(address.clone(), r#"{"zip":[1,"x"]}"#, "c.zip[1]: expected INT, found \"x\"");
    check_value(address, "5", "c: expected STRUCT<zip ARRAY<INT>>, found 5");
    check_value(DataType::String, r#""\ud800""#, "c: invalid string: unexpected end of hex escape at line 1 column 8");
    let long = format!("\"{}\"", "é".repeat(200));
    let quoted = format!("c: expected INT, found \"{}..", "é".repeat(79));
    check_value(DataType::Int, &long, &quoted);
}

fn people() -> TableFormat {
    let columns = vec![column("id", DataType::BigInt), not_null("name", DataType::String), column("age", DataType::Int)];
    TableFormat::new(Format::Json, Schema::new(columns), vec![0])
}

#[test]
fn json_objects() {
    let table = people();
    check(&table, None, Some(r#"{"id":1,"name":"a","age":3}"#), &[r#"+{"id":1,"name":"a","age":3}"#]);
    check(&table, None, Some(r#" {"age":3,"x":[{}],"NAME":"a","id":1} "#), &[r#"+{"id":1,"name":"a","age":3}"#]);
    check(&table, None, Some(r#"{"id":1,"name":"a"}"#), &[r#"+{"id":1,"name":"a","age":null}"#]);
    check(&table, None, Some(r#"{"id":1,"name":"a","name":"b","age":3}"#), &[r#"+{"id":1,"name":"b","age":3}"#]);
    check(&table, None, Some(r#"{"id":1,"name":"a","Name":"b"}"#), &[r#"+{"id":1,"name":"a","age":null}"#]);
    check(&table, None, Some(r#"{"id":1,"Name":"b","name":"a"}"#), &[r#"+{"id":1,"name":"a","age":null}"#]);
    check(&table, None, Some(r#"{"id":1}"#), &["name: the field is missing in a NOT NULL column"]);
    check(&table, None, Some(r#"{"id":1,"name":null}"#), &["name: NULL in a NOT NULL column"]);
    check(&table, None, Some(r#"{"id":null,"name":"a"}"#), &["id: NULL in a key column"]);
    check(&table, None, Some("{}"), &["id: the field is missing in a key column"]);
    check(&table, None, Some("[1]"), &["*: expected an object, found an array"]);
    check(&table, None, Some("null"), &["*: expected an object, found null"]);
    check(&table, None, Some(""), &["*: expected an object, found nothing"]);
    check(&table, None, Some(r#"{"id":1,"name":"a"} x"#), &["*: invalid JSON: trailing characters at line 1 column 21"]);
    check(&table, None, Some(r#"{"id":1,"#), &["*: invalid JSON: EOF while parsing a value at line 1 column 8"]);
    let mut strict = people();
    strict.options = Options::new([("json.fail-on-missing-field", "true")]);
    check(&strict, None, Some(r#"{"id":1,"name":"a"}"#), &["age: the field is missing"]);
}

#[test]
fn not_utf8() {
    let mut records = Records::new();
    records.push(Record { value: Some(b"{\"id\":\xFF"), ..Record::default() });
    assert_eq!(decode_records(&people(), &records).dead[0].reason, "not UTF-8 at byte 6");
}

#[test]
fn tombstones_delete_by_key() {
    check(&people(), Some("12"), None, &[r#"x{"id":12}"#]);
    check(&people(), Some("ab"), None, &["id: key: expected BIGINT, found ab"]);
    check(&people(), None, None, &["*: neither a value nor a key"]);
    let mut text_key = people();
    text_key.key = vec![1];
    check(&text_key, Some("C-01"), None, &[r#"x{"name":"C-01"}"#]);
    let mut two = people();
    two.key = vec![2, 0];
    check(&two, Some(r#"{"id":1,"age":2}"#), None, &[r#"x{"age":2,"id":1}"#]);
    check(&two, Some(r#"{"id":1}"#), None, &["age: key: NULL in a key column"]);
    check(&two, Some("7"), None, &["*: key: expected an object, found a number"]);
    let mut as_object = people();
    as_object.options = Options::new([("key.format", "json")]);
    check(&as_object, Some(r#"{"id":1}"#), None, &[r#"x{"id":1}"#]);
    let mut keyless = people();
    keyless.key = vec![];
    check(&keyless, Some("1"), None, &["*: a record without a value deletes by key, but the table has no key"]);
}

#[test]
fn metadata_comes_from_the_record() {
    let columns = vec![
        column("id", DataType::Int),
        column("topic", DataType::String),
        column("at", DataType::TimestampLtz),
        column("name", DataType::String),
        column("part", DataType::Int),
        column("off", DataType::BigInt),
        column("ms", DataType::BigInt),
        column("heads", DataType::String),
        column("k", DataType::Bytes),
    ];
    let mut table = TableFormat::new(Format::Json, Schema::new(columns), vec![]);
    let metadata =
        [(1, "topic"), (2, "timestamp"), (4, "partition"), (5, "offset"), (6, "timestamp"), (7, "headers"), (8, "key")];
    table.metadata = metadata
        .into_iter()
        .map(|(column, name)| MetadataColumn { column, metadata: Metadata::from_name(name).expect("metadata") })
        .collect();
    let mut records = Records::new();
    let value = br#"{"id":1,"topic":"not this","name":"n"}"#;
    records.push(Record { value: Some(value), headers: Some("{}"), partition: 3, ..record(Some("k"), None) });
    let decoded = decode_records(&table, &records);
    let expected =
        r#"+{"id":1,"topic":"t","at":"1970-01-01 00:00:01Z","name":"n","part":3,"off":7,"ms":1000,"heads":"{}","k":"aw=="}"#;
    assert_eq!(commands(&table, &decoded), [expected]);
    assert_eq!(decoded.commands[0].position, Position { timestamp: 1000, source: 0, partition: 3, offset: 7 });
    table.schema.columns[1].data_type = DataType::Int;
    let error = table.decoder().err().expect("a wrong type");
    assert_eq!(
        error.to_string(),
        "format \"metadata\" cannot hold the columns of this table: column \"topic\" of type INT cannot hold that metadata"
    );
    assert_eq!(Metadata::from_name("offsets"), None);
}

#[test]
fn other_topics_are_left_alone() {
    let mut records = Records::new();
    for topic in [0, 1, 2, 0] {
        records.push(Record { topic, ..record(None, Some("{\"c\":1}")) });
    }
    let topics = ["a", "b"].map(str::to_owned);
    let mut out = Decoded::default();
    one(DataType::Int).decoder().expect("a decoder").decode(
        &records,
        &TopicFilter::new(&topics, |name| name == "a"),
        &mut out,
    );
    assert_eq!((out.commands.len(), out.dead.len()), (2, 0));
}

#[test]
fn dead_letters_are_rows() {
    let mut records = Records::new();
    records.push(record(Some("k"), Some("[]")));
    records.push(Record {
        broken: Some("line 3 is not a record: x"),
        value: Some(b"x"),
        timestamp: NO_TIMESTAMP,
        ..Record::default()
    });
    let decoded = decode_records(&people(), &records);
    let print = |dead: &DeadLetter| {
        let mut text = vec![];
        JsonRows::new(&DeadLetter::schema()).write(&dead.to_row(2_000_000), &mut text);
        String::from_utf8(text).expect("text")
    };
    let expected = r#"{"source":"t","partition":0,"position":7,"record_ts":"1970-01-01 00:00:01Z","key":"aw==","value":"W10=","field":null,"reason":"expected an object, found an array","seen_at":"1970-01-01 00:00:02Z"}"#;
    assert_eq!(print(&decoded.dead[0]), expected);
    let expected = r#"{"source":"t","partition":0,"position":0,"record_ts":null,"key":null,"value":"eA==","field":null,"reason":"line 3 is not a record: x","seen_at":"1970-01-01 00:00:02Z"}"#;
    assert_eq!(print(&decoded.dead[1]), expected);
}

#[test]
fn raw_values() {
    let mut table = one(DataType::String);
    table.format = Format::Raw;
    check(&table, None, Some("{x"), &[r#"+{"c":"{x"}"#]);
    table.schema.columns[0].data_type = DataType::Int;
    let error = table.decoder().err().expect("a wrong type");
    assert_eq!(
        error.to_string(),
        "format \"raw\" cannot hold the columns of this table: it takes one column of type STRING or BYTES, beside metadata"
    );
}

fn csv(options: &[(&str, &str)]) -> TableFormat {
    TableFormat { format: Format::Csv, options: Options::new(options.iter().copied()), ..people() }
}

#[test]
fn csv_lines() {
    let table = csv(&[]);
    check(&table, None, Some("1,a,3"), &[r#"+{"id":1,"name":"a","age":3}"#]);
    check(&table, None, Some("1,\"a,\"\"b\"\"\nc\", 3\r\n"), &[r#"+{"id":1,"name":"a,\"b\"\nc","age":3}"#]);
    check(&table, None, Some("1,\"\","), &[r#"+{"id":1,"name":"","age":null}"#]);
    check(&table, None, Some("1,,3"), &["name: NULL in a NOT NULL column"]);
    check(&table, None, Some("1,a"), &["age: the line has 2 fields, the table 3 columns: none is left for this one"]);
    check(&table, None, Some("1,a,3,4"), &["*: the line has 4 fields, the table 3 columns"]);
    check(&table, None, Some("1,\"a,3"), &["*: a field in quotes is not closed"]);
    check(&table, None, Some("1,a,3\n2,b,4"), &["*: a line break outside of quotes"]);
    check(&table, None, Some("1,a,x"), &["age: expected INT, found x"]);
    let other = csv(&[("sep", "\\t"), ("quote", "'"), ("nullValue", "-")]);
    check(&other, None, Some("1\t'-\t'\t-"), &[r#"+{"id":1,"name":"-\t","age":null}"#]);
    check(&other, None, Some("1\t\t"), &[r#"+{"id":1,"name":"","age":null}"#]);
    let error = csv(&[("sep", "ab")]).decoder().err().expect("a wrong delimiter");
    assert_eq!(error.to_string(), "invalid value \"ab\" of option \"sep\"");
}

#[test]
fn csv_times_and_nested_values() {
    let columns = vec![
        column("at", DataType::Timestamp),
        column("tags", DataType::Array(Box::new(DataType::String))),
        column("on", DataType::Boolean),
    ];
    let mut table = TableFormat::new(Format::Csv, Schema::new(columns), vec![]);
    table.options = Options::new([("timestampFormat", "M/d/yyyy H:mm"), ("delimiter", ";")]);
    check(&table, None, Some("12/1/2009 7:45;[\"a\"];1"), &[r#"+{"at":"2009-12-01 07:45:00","tags":["a"],"on":true}"#]);
    check(&table, None, Some("2009-12-01;[];f"), &["at: expected TIMESTAMP, found 2009-12-01"]);
    check(&table, None, Some(";[1;t"), &["tags: expected ARRAY<STRING>, found [1"]);
    let columns = vec![column("at", DataType::Timestamp), column("day", DataType::Date)];
    let mut dates = TableFormat::new(Format::Csv, Schema::new(columns), vec![]);
    dates.options = Options::new([("timestampFormat", "M/d/yyyy H:mm")]);
    check(&dates, None, Some("12/1/2009 7:45,2009-12-01"), &[r#"+{"at":"2009-12-01 07:45:00","day":"2009-12-01"}"#]);
    check(&dates, None, Some(",12/2/2009 7:45"), &[r#"+{"at":null,"day":"2009-12-02"}"#]);
    check(&dates, None, Some(",nonsense"), &["day: expected DATE, found nonsense"]);
    table.options = Options::new([("timestampFormat", "Q")]);
    assert_eq!(table.decoder().err().expect("a pattern").to_string(), "invalid value \"Q\" of option \"timestampFormat\"");
}

fn debezium() -> TableFormat {
    TableFormat { format: Format::Debezium, ..people() }
}

#[test]
fn debezium_operations() {
    let table = debezium();
    let row = r#"{"id":1,"name":"a","age":3}"#;
    let upsert = r#"+{"id":1,"name":"a","age":3}"#;
    for op in ["c", "r"] {
        let value = format!(r#"{{"before":null,"after":{row},"source":{{"db":"d"}},"op":"{op}","ts_ms":1}}"#);
        check(&table, None, Some(&value), &[upsert]);
        check(&table, None, Some(&format!(r#"{{"schema":{{"type":"struct","fields":[]}},"payload":{value}}}"#)), &[upsert]);
        check(&table, None, Some(&format!(r#"{{"payload":{value}}}"#)), &[upsert]);
    }
    check(&table, None, Some(&format!(r#"{{"before":null,"after":{row},"op":"u"}}"#)), &[upsert]);
    check(&table, None, Some(&format!(r#"{{"before":{{"id":1,"name":"b"}},"after":{row},"op":"u"}}"#)), &[upsert]);
    let moved = format!(r#"{{"before":{{"id":2,"name":"b"}},"after":{row},"op":"u"}}"#);
    check(&table, None, Some(&moved), &[r#"x{"id":2}"#, upsert]);
    let delete = r#"{"before":{"id":1,"name":null},"after":null,"op":"d"}"#;
    check(&table, None, Some(delete), &[r#"x{"id":1}"#]);
    for key in [r#"{"id":4}"#, r#"{"schema":{},"payload":{"id":4}}"#, "4"] {
        check(&table, Some(key), Some(r#"{"before":null,"op":"d"}"#), &[r#"x{"id":4}"#]);
        check(&table, Some(key), None, &[r#"x{"id":4}"#]);
        check(&table, Some(key), Some(r#"{"schema":null,"payload":null}"#), &[r#"x{"id":4}"#]);
    }
    check(&table, None, Some(r#"{"op":"t"}"#), &["op: the table was truncated, which is not carried over yet"]);
    check(&table, None, Some(r#"{"op":"q"}"#), &["op: unknown operation \"q\""]);
    check(&table, None, Some(r#"{"op":"c"}"#), &["after: the new image is missing"]);
    check(&table, None, Some(r#"{"id":1}"#), &["op: no change envelope: the operation is missing"]);
    check(&table, None, Some("7"), &["*: expected a change envelope, which is an object"]);
    check(
        &table,
        None,
        Some(r#"{"op":7}"#),
        &["*: invalid change envelope: invalid type: integer `7`, expected a string at line 1 column 7"],
    );
    check(&table, None, Some(r#"{"op":"u","before":{"id":"x"},"after":{}}"#), &["id: before: expected BIGINT, found \"x\""]);
    for ignored in [None, Some(r#"{"ts_ms":5}"#), Some(r#"{"op":"m","message":{}}"#)] {
        let decoded = decode(&table, None, ignored);
        assert_eq!((decoded.commands.len(), decoded.dead.len(), decoded.ignored), (0, 0, 1), "{ignored:?}");
    }
}

#[test]
fn what_a_table_does_not_take_is_rejected_as_a_whole() {
    let refused = Refused { deletes: Some("no deletes"), retractions: None };
    let plain = TableFormat { refused, ..people() };
    check(&plain, Some("1"), None, &["*: no deletes"]);
    check(&plain, None, Some(r#"{"id":1,"name":"a","age":3}"#), &[r#"+{"id":1,"name":"a","age":3}"#]);
    let table = TableFormat { refused, ..debezium() };
    check(&table, None, Some(r#"{"before":{"id":1},"op":"d"}"#), &["*: no deletes"]);
    check(&table, None, Some(r#"{"id":1,"__deleted":"true"}"#), &["*: no deletes"]);
    // A key that changes deletes the old one; the new row must not come alone.
    let moved = r#"{"before":{"id":2,"name":"b"},"after":{"id":1,"name":"a"},"op":"u"}"#;
    check(&table, None, Some(moved), &["*: no deletes"]);
    // What comes behind the delete says nothing more.
    assert_eq!(decode(&table, Some("1"), None).ignored, 1);
    let refused = Refused { deletes: None, retractions: Some("nothing back") };
    let aggregate = TableFormat { old_images: true, refused, ..debezium() };
    let update = r#"{"before":{"id":1,"name":"b","age":2},"after":{"id":1,"name":"a","age":3},"op":"u"}"#;
    check(&aggregate, None, Some(update), &["*: nothing back"]);
}

#[test]
fn a_record_that_is_too_large_is_not_looked_into() {
    let mut table = people();
    table.options = Options::new([(RECORD_BYTES_MAX, "40")]);
    let row = r#"{"id":1,"name":"a","age":3}"#;
    // 27 bytes of value, 13 or 14 of key.
    check(&table, Some("0123456789abc"), Some(row), &[r#"+{"id":1,"name":"a","age":3}"#]);
    let reason = "*: too large: 41 bytes are more than the 40 of 'errors.record-bytes-max'";
    check(&table, Some("0123456789abcd"), Some(row), &[reason]);
    check(&table, Some(&"0".repeat(41)), None, &[reason]);
    let decoded = decode(&table, Some("0123456789abcd"), Some(row));
    assert_eq!(decoded.dead[0].value.as_deref(), Some(row.as_bytes()));
    // Without the option it is 64 MiB.
    let large = format!("{{\"id\":1,\"name\":\"{}\"}}", "x".repeat((64 << 20) - 18));
    assert_eq!(decode(&people(), None, Some(&large)).commands.len(), 1);
    assert_eq!(decode(&people(), Some("1"), Some(&large)).dead.len(), 1);
    table.options = Options::new([(RECORD_BYTES_MAX, "large")]);
    assert!(table.decoder().is_err());
}

#[test]
fn debezium_old_images() {
    let update = r#"{"before":{"id":1,"name":"b","age":2},"after":{"id":1,"name":"a","age":3},"op":"u"}"#;
    let old = r#"-{"id":1,"name":"b","age":2}"#;
    let new = r#"+{"id":1,"name":"a","age":3}"#;
    let delete = r#"{"before":{"id":1,"name":"b","age":2},"op":"d"}"#;
    let keyless = TableFormat { key: vec![], ..debezium() };
    let subtracting = TableFormat { old_images: true, ..debezium() };
    for table in [&keyless, &subtracting] {
        check(table, None, Some(update), &[old, new]);
        check(table, None, Some(delete), &[old]);
        assert_eq!(decode(table, Some("1"), None).ignored, 1);
    }
    let blind = r#"{"before":null,"after":{"id":1,"name":"a"},"op":"u"}"#;
    check(&keyless, None, Some(blind), &["before: an update of a table without a key needs the old image"]);
    check(&keyless, None, Some(r#"{"op":"d"}"#), &["before: a delete from a table without a key needs the old image"]);
    // The new image is wrong: the old one must not be taken back alone.
    let half = r#"{"before":{"id":1,"name":"b"},"after":{"id":1},"op":"u"}"#;
    check(&keyless, None, Some(half), &["name: the field is missing in a NOT NULL column"]);
}

#[test]
fn debezium_flattened() {
    let table = debezium();
    check(&table, None, Some(r#"{"id":1,"name":"a","age":3,"__op":"u"}"#), &[r#"+{"id":1,"name":"a","age":3}"#]);
    check(&table, None, Some(r#"{"id":1,"name":"a","__deleted":"false"}"#), &[r#"+{"id":1,"name":"a","age":null}"#]);
    check(&table, None, Some(r#"{"id":1,"name":"a","__deleted":"true"}"#), &[r#"x{"id":1}"#]);
    check(&table, Some("9"), Some(r#"{"__op":"d"}"#), &[r#"x{"id":9}"#]);
    let reason = "name: the database left the unchanged value out; set REPLICA IDENTITY FULL on its table";
    check(&table, None, Some(r#"{"id":1,"name":"__debezium_unavailable_value","__op":"u"}"#), &[reason]);
}

#[test]
fn debezium_encodings() {
    let columns = vec![
        column("id", DataType::Int),
        column("at", DataType::Timestamp),
        column("day", DataType::Date),
        column("amount", decimal(10, 2)),
        column("on", DataType::Boolean),
        column("text", DataType::String),
    ];
    let table = |options: &[(&str, &str)]| TableFormat {
        options: Options::new(options.iter().copied()),
        ..TableFormat::new(Format::Debezium, Schema::new(columns.clone()), vec![0])
    };
    let after = |fields: &str| format!(r#"{{"op":"c","after":{{"id":1,{fields}}}}}"#);
    let unit = table(&[("debezium-json.timestamp-unit", "us"), ("debezium-json.decimal", "bytes")]);
    let all = r#""at":1777626000500000,"day":20574,"amount":"AJiW","on":1,"text":"x""#;
    let row = r#"+{"id":1,"at":"2026-05-01 09:00:00.5","day":"2026-05-01","amount":390.62,"on":true,"text":"x"}"#;
    check(&unit, None, Some(&after(all)), &[row]);
    let reason = "at: expected TIMESTAMP, found the number 5 whose unit is not known; set 'debezium-json.timestamp-unit' to ms, us or ns";
    check(&table(&[]), None, Some(&after(r#""at":5"#)), &[reason]);
    let text = |amount: &str| format!(r#"+{{"id":1,"at":null,"day":null,"amount":{amount},"on":null,"text":null}}"#);
    for (written, read) in [
        ("\"12.50\"", "12.50"),
        ("12.5", "12.50"),
        (r#"{"scale":3,"value":"/w=="}"#, "0.00"),
        (r#"{"scale":1,"value":"/w=="}"#, "-0.10"),
    ] {
        check(&table(&[]), None, Some(&after(&format!("\"amount\":{written}"))), &[&text(read)]);
    }
    let schema = r#"{"type":"struct","fields":[{"field":"before","type":"struct","fields":[{"field":"id","type":"int32"},
        {"field":"AT","type":"int64","name":"io.debezium.time.Timestamp"},
        {"field":"amount","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"4"}}]}]}"#;
    let wrapped = |schema: &str, after: &str| format!("{{\"schema\":{schema},\"payload\":{after}}}");
    let fields = after(r#""at":1777626000500,"amount":"AJiW""#);
    let row = r#"+{"id":1,"at":"2026-05-01 09:00:00.5","day":null,"amount":3.91,"on":null,"text":null}"#;
    check(&table(&[]), None, Some(&wrapped(schema, &fields)), &[row]);
    let micros = schema.replace("time.Timestamp", "time.MicroTimestamp");
    let fields = after(r#""at":1777626000500000,"amount":"AJiW""#);
    check(&table(&[]), None, Some(&wrapped(&micros, &fields)), &[row]);
    let error = table(&[("debezium-json.timestamp-unit", "s")]).decoder().err().expect("a unit");
    assert_eq!(error.help(), "expected ms, us or ns");
    let error = table(&[("debezium-json.decimal", "s")]).decoder().err().expect("a form");
    assert_eq!(error.help(), "expected text or bytes");
}

#[test]
fn debezium_values_that_were_left_out() {
    let table = debezium();
    let left_out = r#"{"id":1,"name":"__debezium_unavailable_value","age":3}"#;
    let full = format!(r#"{{"op":"u","before":{{"id":1,"name":"long","age":2}},"after":{left_out}}}"#);
    check(&table, None, Some(&full), &[r#"+{"id":1,"name":"long","age":3}"#]);
    let reason = "name: the database left the unchanged value out; set REPLICA IDENTITY FULL on its table";
    check(&table, None, Some(&format!(r#"{{"op":"u","after":{left_out}}}"#)), &[reason]);
    let key_only = format!(r#"{{"op":"u","before":{{"id":1,"name":null}},"after":{left_out}}}"#);
    check(&table, None, Some(&key_only), &[reason]);
}

#[test]
fn debezium_without_key_takes_no_metadata() {
    let mut table = TableFormat { key: vec![], ..debezium() };
    table.metadata = vec![MetadataColumn { column: 2, metadata: Metadata::Partition }];
    assert!(matches!(table.decoder(), Err(Error::Columns { format: "debezium-json", .. })));
}

pub(crate) fn every_type() -> Vec<DataType> {
    let mut types = vec![
        DataType::Boolean,
        DataType::TinyInt,
        DataType::BigInt,
        DataType::Float,
        DataType::Double,
        decimal(38, 10),
        DataType::String,
        DataType::Bytes,
        DataType::Date,
        DataType::Timestamp,
        DataType::TimestampLtz,
        DataType::IntervalDay,
        DataType::IntervalMonth,
        DataType::Bitmap,
    ];
    types.push(DataType::Array(Box::new(DataType::String)));
    types.push(DataType::Struct(vec![column("a", DataType::Int), column("b", DataType::Array(Box::new(DataType::Double)))]));
    types
}

/// Values of [`every_type`] that have one text.
pub(crate) fn any_row() -> impl Strategy<Value = Vec<Datum<'static>>> {
    let micros = -60_000_000_000_000_000i64..250_000_000_000_000_000;
    let fixed = (
        any::<bool>(),
        any::<i8>(),
        any::<i64>(),
        any::<f32>(),
        any::<f64>(),
        any::<i128>().prop_map(|d| d % 10i128.pow(38)),
        ".*",
        proptest::collection::vec(any::<u8>(), 0..9),
        -700_000i64..2_900_000,
        micros.clone(),
    );
    let more = (
        micros,
        -i64::MAX..i64::MAX,
        any::<i32>(),
        proptest::collection::vec(any::<u64>(), 0..5),
        proptest::collection::vec(proptest::option::of("[a\"\\x00]{0,3}"), 0..4),
        any::<i32>(),
        proptest::collection::vec(any::<f64>(), 0..3),
    );
    let nulls = proptest::collection::vec(proptest::bool::weighted(0.1), 16);
    (fixed, more, nulls).prop_map(|(f, m, nulls)| {
        let text = |t: Option<String>| t.map_or(Datum::Null, Datum::str);
        let floats = m.6.into_iter().map(Datum::Float).collect();
        let row = vec![
            Datum::Bool(f.0),
            Datum::Int(f.1.into()),
            Datum::Int(f.2),
            Datum::Float(f.3.into()),
            Datum::Float(f.4),
            Datum::Decimal(f.5),
            Datum::str(f.6),
            Datum::Bytes(Cow::Owned(f.7)),
            Datum::Int(f.8),
            Datum::Int(f.9),
            Datum::Int(m.0),
            Datum::Int(m.1),
            Datum::Int((m.2 % 2_000_000_000).into()),
            bitmap::from_members(m.3),
            Datum::Array(m.4.into_iter().map(text).collect()),
            Datum::Struct(vec![Datum::Int(m.5.into()), Datum::Array(floats)]),
        ];
        row.into_iter().zip(nulls).map(|(datum, null)| if null { Datum::Null } else { datum }).collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_as_json_reads_back(row in any_row(), order in Just((0..16).collect::<Vec<usize>>()).prop_shuffle()) {
        let columns: Vec<Column> = every_type().into_iter().enumerate().map(|(i, t)| column(&format!("c{i}"), t)).collect();
        let table = TableFormat::new(Format::Json, Schema::new(columns.clone()), vec![]);
        let shuffled = Schema::new(order.iter().map(|i| columns[*i].clone()).collect());
        let mut text = vec![];
        JsonRows::new(&shuffled).write(&Row::pack(order.iter().map(|i| row[*i].clone())), &mut text);
        let mut records = Records::new();
        records.push(Record { value: Some(&text), ..Record::default() });
        let decoded = decode_records(&table, &records);
        prop_assert_eq!(&decoded.dead, &vec![]);
        prop_assert_eq!(&decoded.commands[0].row, &Row::pack(row));
    }

    #[test]
    fn what_is_written_as_csv_reads_back(row in any_row()) {
        let columns: Vec<Column> = every_type().into_iter().enumerate().map(|(i, t)| column(&format!("c{i}"), t)).collect();
        let table = TableFormat::new(Format::Csv, Schema::new(columns), vec![]);
        let mut line = vec![];
        crate::format::text::write_csv_row(&every_type(), &Row::pack(row.clone()), &mut line);
        let mut records = Records::new();
        records.push(Record { value: Some(&line), ..Record::default() });
        let decoded = decode_records(&table, &records);
        prop_assert_eq!(&decoded.dead, &vec![]);
        prop_assert_eq!(&decoded.commands[0].row, &Row::pack(row));
    }

    #[test]
    fn nothing_panics_and_every_record_is_accounted_for(values in proptest::collection::vec(
        prop_oneof![
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            "[{}\\[\\]\",:0-9a-z\\\\ ]{0,40}".prop_map(|s| Some(s.into_bytes())),
            ("(before|after|op|payload|schema|c[0-9])", "[{}\\[\\]\",:0-9a-z\\\\ ]{0,20}")
                .prop_map(|(name, rest)| Some(format!("{{\"op\":\"u\",\"{name}\":{rest}}}").into_bytes())),
            ("c[0-9]", "[-\"0-9a-zTZ:.+ ]{0,20}").prop_map(|(name, rest)| Some(format!("{{\"{name}\":{rest}}}").into_bytes())),
        ], 0..10), keyed: bool) {
        let columns: Vec<Column> = every_type().into_iter().enumerate().map(|(i, t)| column(&format!("c{i}"), t)).collect();
        let mut records = Records::new();
        for value in &values {
            records.push(Record { value: value.as_deref(), key: value.as_deref(), ..Record::default() });
        }
        for format in [Format::Json, Format::Debezium, Format::Csv] {
            let table = TableFormat::new(format, Schema::new(columns.clone()), if keyed { vec![1] } else { vec![] });
            let decoded = decode_records(&table, &records);
            let all = decoded.commands.len() + decoded.dead.len() + decoded.ignored as usize;
            prop_assert!(all >= values.len(), "{format:?}: {decoded:?}");
        }
    }
}
