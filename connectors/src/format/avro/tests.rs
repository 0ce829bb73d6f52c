//! Avro with a registry: what is written by `apache_avro` is read, what is written here is read by it, and nothing panics.

use super::server::{Mood, Server};
use super::*;
use crate::decode::tests::{any_row, column, decimal, every_type, not_null};
use crate::decode::{DeadLetter, Decoded, TopicFilter};
use crate::error::Error;
use crate::format::Format;
use crate::format::text::JsonRows;
use crate::record::{Record, Records};
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use deltaworks_dataflow::{Column, CommandKind, DataType, Datum, Row, Schema};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// A table on a registry; with `debezium` of changes.
fn table(server: &Server, debezium: bool, columns: Vec<Column>, key: &[usize]) -> TableFormat {
    let (format, name) = if debezium { (Format::DebeziumAvro, CHANGES) } else { (Format::Avro, ROWS) };
    let options = Options::new([(format!("{name}.url"), server.url.clone())]);
    TableFormat { options, ..TableFormat::new(format, Schema::new(columns), key.to_vec()) }
}
/// A message with the id, of a body.
fn message(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], body].concat()
}
/// The body of a value, as `apache_avro` writes it.
fn body(schema: &str, value: Value) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(schema).expect("a schema");
    GenericDatumWriter::builder(&schema).build().expect("a writer").write_value_to_vec(value).expect("a value")
}
fn record(fields: &[(&str, Value)]) -> Value {
    Value::Record(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}
fn branch(index: u32, value: Value) -> Value {
    Value::Union(index, Box::new(value))
}
/// Commands and dead letters of records, as text.
fn found(table: &TableFormat, records: &[(Option<Vec<u8>>, Option<Vec<u8>>)]) -> Vec<String> {
    let mut all = Records::new();
    for (key, value) in records {
        all.push(Record { key: key.as_deref(), value: value.as_deref(), ..Record::default() });
    }
    let (topics, mut decoded) = (TopicFilter::all(&["t".to_owned()]), Decoded::default());
    let mut decoder = table.decoder().expect("a decoder");
    assert_eq!(decoder.prepare(&all, &topics), Prepared::Ready);
    decoder.decode(&all, &topics, &mut decoded);
    let keys = Schema::new(table.key.iter().map(|column| table.schema.columns[*column].clone()).collect());
    let mut lines: Vec<String> = Vec::new();
    for command in &decoded.commands {
        let (sign, schema) = match command.kind {
            CommandKind::Upsert => ('+', &table.schema),
            CommandKind::Retract => ('-', &table.schema),
            CommandKind::Delete | CommandKind::Merge => ('x', &keys),
        };
        let mut text = vec![];
        JsonRows::new(schema).write(&command.row, &mut text);
        lines.push(format!("{sign}{}", String::from_utf8(text).expect("text")));
    }
    let letter = |dead: &DeadLetter| format!("{}: {}", dead.field.as_deref().unwrap_or("*"), dead.reason);
    lines.extend(decoded.dead.iter().map(letter));
    lines.extend((0..decoded.ignored).map(|_| "ignored".to_owned()));
    lines
}
fn check(table: &TableFormat, value: Vec<u8>, expected: &[&str]) {
    assert_eq!(found(table, &[(None, Some(value))]), expected);
}
/// What the field `c` of a type, written as a value, becomes in a column of another type.
fn check_value(written: &str, value: Value, data_type: DataType, expected: &str) {
    let schema = format!(r#"{{"type":"record","name":"r","fields":[{{"name":"c","type":{written}}}]}}"#);
    let table = table(&Server::with(&schema), false, vec![column("c", data_type.clone())], &[]);
    let found = found(&table, &[(None, Some(message(1, &body(&schema, record(&[("c", value)])))))]).concat();
    let row = found.strip_prefix("+{\"c\":").and_then(|rest| rest.strip_suffix('}')).unwrap_or(&found);
    assert_eq!(row, expected, "{written} as {data_type}");
}
fn logical(base: &str, name: &str) -> String {
    format!(r#"{{"type":"{base}","logicalType":"{name}"}}"#)
}
fn connect(base: &str, name: &str) -> String {
    format!(r#"{{"type":"{base}","connect.version":1,"connect.name":"{name}"}}"#)
}

#[test]
fn values_without_a_meaning_of_their_own() {
    check_value("\"boolean\"", Value::Boolean(true), DataType::Boolean, "true");
    check_value("\"int\"", Value::Int(-7), DataType::TinyInt, "-7");
    check_value("\"int\"", Value::Int(300), DataType::TinyInt, "c: 300 is out of range for TINYINT");
    check_value("\"long\"", Value::Long(1 << 40), DataType::BigInt, "1099511627776");
    check_value("\"long\"", Value::Long(1 << 40), DataType::Int, "c: 1099511627776 is out of range for INT");
    check_value("\"long\"", Value::Long(12), decimal(10, 2), "12.00");
    check_value("\"long\"", Value::Long(12), DataType::Double, "12.0");
    check_value("\"long\"", Value::Long(12), DataType::String, "\"12\"");
    check_value("\"long\"", Value::Long(20574), DataType::Date, "\"2026-05-01\"");
    check_value("\"float\"", Value::Float(0.1), DataType::Float, "0.1");
    check_value("\"float\"", Value::Float(0.1), DataType::String, "\"0.1\"");
    check_value("\"double\"", Value::Double(0.1), DataType::Double, "0.1");
    check_value("\"double\"", Value::Double(0.125), decimal(5, 2), "0.13");
    check_value("\"double\"", Value::Double(f64::NAN), DataType::Double, "\"NaN\"");
    check_value("\"double\"", Value::Double(f64::NAN), DataType::Int, "c: expected INT, found NaN");
    check_value("\"double\"", Value::Double(1.5), DataType::Int, "c: expected INT, found 1.5");
    check_value("\"string\"", Value::String("a\"é".into()), DataType::String, "\"a\\\"é\"");
    check_value("\"string\"", Value::String("12".into()), DataType::Int, "12");
    check_value("\"string\"", Value::String("x".into()), DataType::Int, "c: expected INT, found \"x\"");
    check_value("\"string\"", Value::String("2026-05-01 09:00:00".into()), DataType::Timestamp, "\"2026-05-01 09:00:00\"");
    check_value("\"bytes\"", Value::Bytes(vec![0, 255]), DataType::Bytes, "\"AP8=\"");
    check_value("\"bytes\"", Value::Bytes(vec![65]), DataType::String, "c: expected STRING, found bytes");
    let fixed = r#"{"type":"fixed","name":"f","size":2}"#;
    check_value(fixed, Value::Fixed(2, vec![0, 255]), DataType::Bytes, "\"AP8=\"");
    let colors = r#"{"type":"enum","name":"e","symbols":["RED","GREEN"]}"#;
    check_value(colors, Value::Enum(1, "GREEN".into()), DataType::String, "\"GREEN\"");
    check_value("[\"null\",\"int\"]", branch(0, Value::Null), DataType::Int, "null");
    check_value("[\"null\",\"int\",\"string\"]", branch(2, Value::String("4".into())), DataType::Int, "4");
    check_value("\"long\"", Value::Long(5), DataType::Boolean, "c: expected BOOLEAN, found 5");
    let reason = "c: expected TIMESTAMP, found the number 5 whose unit is not known; declare the column BIGINT and convert it, e.g. with TO_TIMESTAMP_LTZ(c, 3)";
    check_value("\"long\"", Value::Long(5), DataType::Timestamp, reason);
}

#[test]
fn values_with_a_meaning() {
    // 2026-05-01 09:00:00.5 is 1777626000500 ms, day 20574.
    let price = r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}"#;
    let unscaled = |bytes: &[u8]| Value::Decimal(apache_avro::Decimal::from(bytes));
    check_value(price, unscaled(&[0x04, 0xE2]), decimal(10, 2), "12.50");
    check_value(price, unscaled(&[0xFB, 0x1E]), decimal(10, 1), "-12.5");
    check_value(price, unscaled(&[0x04, 0xE2]), DataType::String, "\"12.50\"");
    check_value(price, unscaled(&[0x04, 0xE2]), DataType::Double, "12.5");
    check_value(price, unscaled(&[0x04, 0xE2]), DataType::Int, "c: expected INT, found 12.50");
    check_value(price, unscaled(&[0x04, 0xE2]), decimal(3, 2), "c: 12.50 is out of range for DECIMAL(3, 2)");
    let fixed = r#"{"type":{"type":"fixed","name":"f","size":3},"logicalType":"decimal","precision":6,"scale":1}"#;
    check_value(fixed, unscaled(&[0xFF, 0xFF, 0xFE]), decimal(6, 1), "-0.2");
    check_value(&logical("int", "date"), Value::Date(20574), DataType::Date, "\"2026-05-01\"");
    check_value(&logical("int", "date"), Value::Date(20574), DataType::Timestamp, "\"2026-05-01 00:00:00\"");
    check_value(&logical("int", "date"), Value::Date(20574), DataType::String, "\"2026-05-01\"");
    let at = 1_777_626_000_500;
    for (name, value) in [
        ("timestamp-millis", Value::TimestampMillis(at)),
        ("timestamp-micros", Value::TimestampMicros(at * 1000)),
        ("timestamp-nanos", Value::TimestampNanos(at * 1_000_000)),
        ("local-timestamp-millis", Value::LocalTimestampMillis(at)),
        ("local-timestamp-micros", Value::LocalTimestampMicros(at * 1000)),
        ("local-timestamp-nanos", Value::LocalTimestampNanos(at * 1_000_000)),
    ] {
        check_value(&logical("long", name), value.clone(), DataType::Timestamp, "\"2026-05-01 09:00:00.5\"");
        check_value(&logical("long", name), value.clone(), DataType::TimestampLtz, "\"2026-05-01 09:00:00.5Z\"");
        check_value(&logical("long", name), value.clone(), DataType::Date, "\"2026-05-01\"");
        let text = if name.starts_with("local") { "\"2026-05-01 09:00:00.5\"" } else { "\"2026-05-01 09:00:00.5Z\"" };
        check_value(&logical("long", name), value, DataType::String, text);
    }
    check_value(&logical("long", "timestamp-millis"), Value::TimestampMillis(at), DataType::BigInt, "1777626000500");
    check_value(&logical("int", "time-millis"), Value::TimeMillis(34_200_500), DataType::String, "\"09:30:00.5\"");
    check_value(&logical("int", "time-millis"), Value::TimeMillis(34_200_500), DataType::IntervalDay, "\"PT9H30M0.5S\"");
    check_value(&logical("int", "time-millis"), Value::TimeMillis(34_200_500), DataType::Int, "34200500");
    check_value(&logical("long", "time-micros"), Value::TimeMicros(1), DataType::String, "\"00:00:00.000001\"");
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let uuid = apache_avro::Uuid::parse_str(id).expect("an id");
    check_value(&logical("string", "uuid"), Value::Uuid(uuid), DataType::String, &format!("\"{id}\""));
    let fixed = r#"{"type":"fixed","name":"u","size":16,"logicalType":"uuid"}"#;
    check_value(fixed, Value::Uuid(uuid), DataType::String, &format!("\"{id}\""));
    check_value(fixed, Value::Uuid(uuid), DataType::Bytes, "\"Z+VQRBCxQm+SR7toDl/gyA==\"");
    let duration = r#"{"type":"fixed","name":"d","size":12,"logicalType":"duration"}"#;
    let span = |months, days, millis| {
        use apache_avro::{Days, Millis, Months};
        Value::Duration(apache_avro::Duration::new(Months::new(months), Days::new(days), Millis::new(millis)))
    };
    check_value(duration, span(0, 3, 1500), DataType::IntervalDay, "\"P3DT1.5S\"");
    check_value(duration, span(14, 0, 0), DataType::IntervalMonth, "\"P1Y2M\"");
    let reason = "c: expected INTERVAL DAY TO SECOND, found 1 months, 2 days and 3 milliseconds";
    check_value(duration, span(1, 2, 3), DataType::IntervalDay, reason);
}

#[test]
fn what_connect_says_beside_the_schema() {
    let at = Value::Long(1_777_626_000_500_000);
    check_value(&connect("long", "io.debezium.time.MicroTimestamp"), at, DataType::Timestamp, "\"2026-05-01 09:00:00.5\"");
    let at = Value::Long(1_777_626_000_500);
    check_value(&connect("long", "io.debezium.time.Timestamp"), at, DataType::TimestampLtz, "\"2026-05-01 09:00:00.5Z\"");
    let at = Value::Long(1_777_626_000_500_000_000);
    check_value(&connect("long", "io.debezium.time.NanoTimestamp"), at, DataType::Timestamp, "\"2026-05-01 09:00:00.5\"");
    check_value(&connect("int", "io.debezium.time.Date"), Value::Int(20574), DataType::Date, "\"2026-05-01\"");
    check_value(&connect("long", "io.debezium.time.MicroTime"), Value::Long(1), DataType::String, "\"00:00:00.000001\"");
    check_value(
        &connect("long", "io.debezium.time.MicroDuration"),
        Value::Long(500_000),
        DataType::IntervalDay,
        "\"PT0.5S\"",
    );
    let nullable = format!("[\"null\",{}]", connect("int", "io.debezium.time.Date"));
    check_value(&nullable, branch(1, Value::Int(20574)), DataType::Timestamp, "\"2026-05-01 00:00:00\"");
    // A precision that Avro does not take leaves the scale where Connect says it.
    let wide = r#"{"type":"bytes","scale":4,"precision":2,"logicalType":"decimal","connect.name":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"4"}}"#;
    check_value(wide, Value::Bytes(vec![0x04, 0xE2]), decimal(10, 4), "0.1250");
    let variable = r#"{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}],"connect.name":"io.debezium.data.VariableScaleDecimal"}"#;
    let value = record(&[("scale", Value::Int(3)), ("value", Value::Bytes(vec![0xFF]))]);
    check_value(variable, value.clone(), decimal(10, 3), "-0.001");
    check_value(variable, value, DataType::String, "\"-0.001\"");
}

/// A person with an address, tags, and what a table does not know.
const PERSON: &str = r#"{"type":"record","name":"person","namespace":"shop","fields":[
    {"name":"unknown","type":{"type":"map","values":{"type":"array","items":"long"}},"default":{}},
    {"name":"ID","type":"long"},
    {"name":"address","type":["null",{"type":"record","name":"address","fields":[
        {"name":"more","type":"string"},{"name":"city","type":"string"},{"name":"ZIP","type":["null","int"]}]}],"default":"not null"},
    {"name":"tags","type":{"type":"array","items":["null","string"]}},
    {"name":"old_address","type":["null","address"]},
    {"name":"seen","type":{"type":"array","items":"long"}}]}"#;
fn person(zip: Value, seen: i64) -> Value {
    let address =
        record(&[("more", Value::String("x".into())), ("city", Value::String("Köln".into())), ("ZIP", branch(1, zip))]);
    let numbers = Value::Map([("k".to_owned(), Value::Array(vec![Value::Long(1), Value::Long(2)]))].into());
    let tags = Value::Array(vec![branch(1, Value::String("a".into())), branch(0, Value::Null)]);
    record(&[
        ("unknown", numbers),
        ("ID", Value::Long(7)),
        ("address", branch(1, address)),
        ("tags", tags),
        ("old_address", branch(0, Value::Null)),
        ("seen", Value::Array(vec![Value::Long(seen), Value::Long(3)])),
    ])
}
fn people(server: &Server) -> TableFormat {
    let address = || {
        DataType::Struct(vec![
            not_null("zip", DataType::SmallInt),
            column("city", DataType::String),
            column("street", DataType::String),
        ])
    };
    let columns = vec![
        column("missing", DataType::Int),
        column("address", address()),
        column("id", DataType::BigInt),
        column("tags", DataType::Array(Box::new(DataType::String))),
        column("old_address", address()),
        column("seen", DataType::Bitmap),
    ];
    table(server, false, columns, &[2])
}
/// The schema without the default that Avro would refuse.
fn person_schema() -> String {
    PERSON.replace(",\"default\":\"not null\"", "")
}

#[test]
fn fields_go_to_columns_by_name() {
    let server = Server::with(PERSON);
    let row = r#"+{"missing":null,"address":{"zip":12,"city":"Köln","street":null},"id":7,"tags":["a",null],"old_address":null,"seen":[3,5]}"#;
    check(&people(&server), message(1, &body(&person_schema(), person(Value::Int(12), 5))), &[row]);
    assert_eq!(server.state().asked, ["GET /schemas/ids/1"]);
    // An exact name before another spelling, wherever it stands.
    let twice = r#"{"type":"record","name":"r","fields":[{"name":"c","type":"int"},{"name":"C","type":"int"}]}"#;
    let one = table(&Server::with(twice), false, vec![column("c", DataType::Int)], &[]);
    check(&one, message(1, &[2, 4]), &[r#"+{"c":1}"#]);
    // A value that is no record is the one column.
    let lone = |schema: &str, bytes: &[u8], expected: &str| {
        let one = table(&Server::with(schema), false, vec![column("c", DataType::String)], &[]);
        check(&one, message(1, bytes), &[expected]);
    };
    lone("\"string\"", &[2, b'x'], r#"+{"c":"x"}"#);
    lone("[\"null\",\"string\"]", &[0], r#"+{"c":null}"#);
    check(&people(&Server::with("\"string\"")), message(1, &[2, b'x']), &["*: expected a record, found a string"]);
}

#[test]
fn what_does_not_fit_names_its_field() {
    let server = Server::with(PERSON);
    let table = people(&server);
    let written = |zip, seen| message(1, &body(&person_schema(), person(zip, seen)));
    check(&table, written(Value::Int(70_000), 5), &["address.zip: 70000 is out of range for SMALLINT"]);
    check(&table, written(Value::Int(1), -5), &["seen[0]: expected an integer from 0 to 18446744073709551615, found -5"]);
    let strict = r#"{"type":"record","name":"r","fields":[{"name":"address","type":{"type":"record","name":"a","fields":[{"name":"city","type":"string"}]}}]}"#;
    let body = [2, b'x'];
    check(&people(&Server::with(strict)), message(1, &body), &["address.zip: NULL in a NOT NULL field"]);
    let wrong = r#"{"type":"record","name":"r","fields":[{"name":"tags","type":{"type":"map","values":"int"}}]}"#;
    check(&people(&Server::with(wrong)), message(1, &[0]), &["tags: expected ARRAY<STRING>, found a map"]);
}

#[test]
fn messages_that_are_broken_are_rejected() {
    let server = Server::with(PERSON);
    let table = people(&server);
    let whole = message(1, &body(&person_schema(), person(Value::Int(12), 5)));
    // No beginning of a message is a row whose last fields are NULL.
    for length in 0..whole.len() {
        let found = found(&table, &[(None, Some(whole[..length].to_vec()))]);
        assert!(found.len() == 1 && !found[0].starts_with('+'), "{length}: {found:?}");
    }
    check(&table, vec![], &["*: no message of a schema registry: it has 0 bytes, its header 5"]);
    check(&table, whole[..4].to_vec(), &["*: no message of a schema registry: it has 4 bytes, its header 5"]);
    check(&table, b"{\"id\":1}".to_vec(), &["*: no message of a schema registry: it begins with the byte 123, not 0"]);
    check(&table, [&whole[..], &[0]].concat(), &["*: 1 bytes follow what the schema says"]);
    let unknown = format!("*: schema 9 is not in the registry at \"{}\"", server.url);
    check(&table, message(9, &[]), &[&unknown]);
    let field = |schema: &str, bytes: &[u8], expected: &str| {
        let schema = format!(r#"{{"type":"record","name":"r","fields":[{{"name":"id","type":{schema}}}]}}"#);
        check(&people(&Server::with(&schema)), message(1, bytes), &[expected]);
    };
    field("\"boolean\"", &[2], "id: a boolean is 2");
    field("[\"null\",\"long\"]", &[4], "id: a union of 2 has no branch 2");
    field("\"string\"", &[1], "id: a length is -1");
    field("\"string\"", &[2, 0xFF], "id: a string is not UTF-8");
    field("\"int\"", &[0x80, 0x80, 0x80, 0x80, 0x80, 1], "id: an int is longer than 32 bits");
    field(r#"{"type":"enum","name":"e","symbols":["A"]}"#, &[2], "id: an enum of 1 has no symbol 1");
    // Items without bytes would be repeated for ever.
    let empty = r#"{"type":"record","name":"r","fields":[{"name":"x","type":{"type":"array","items":"null"}}]}"#;
    let forever = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    let reason = "x: an array has more than 65536 items that are empty";
    check(&people(&Server::with(empty)), message(1, &forever), &[reason]);
    let list = r#"{"type":"record","name":"list","fields":[{"name":"next","type":["null","list"]}]}"#;
    let endless = message(1, &vec![2; 100_000]);
    check(&people(&Server::with(list)), endless, &["next: values are nested more than 64 deep"]);
}

#[test]
fn schemas_that_cannot_be_used() {
    let server = Server::with("{\"type\":\"recrd\"}");
    let json = "{\"schema\":\"{}\",\"schemaType\":\"JSON\"}";
    let refers = "{\"schema\":\"{}\",\"references\":[{\"name\":\"a\",\"subject\":\"a\",\"version\":1}]}";
    server.state().schemas.extend([json, refers, "no json"].map(str::to_owned));
    let table = people(&server);
    let reasons: Vec<String> = (1..5).flat_map(|id| found(&table, &[(None, Some(message(id, &[])))])).collect();
    assert!(reasons[0].starts_with("*: schema 1 cannot be read: "), "{reasons:?}");
    assert_eq!(reasons[1], "*: schema 2 is of type JSON, not AVRO");
    assert_eq!(reasons[2], "*: schema 3 refers to schemas of other subjects, which is not supported yet");
    assert!(reasons[3].starts_with("*: the registry did not answer with schema 4: "), "{reasons:?}");
}

/// An envelope as Debezium writes it, with what Kafka Connect adds.
const ENVELOPE: &str = r#"{"type":"record","name":"Envelope","namespace":"shop.public.customer","fields":[
    {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
        {"name":"id","type":"int"},
        {"name":"name","type":["null","string"],"default":null},
        {"name":"since","type":{"type":"int","connect.version":1,"connect.name":"io.debezium.time.Date"}}],
        "connect.name":"shop.public.customer.Value"}],"default":null},
    {"name":"after","type":["null","Value"],"default":null},
    {"name":"source","type":{"type":"record","name":"Source","namespace":"io.debezium.connector.postgresql","fields":[
        {"name":"db","type":"string"},{"name":"lsn","type":["null","long"],"default":null}]}},
    {"name":"op","type":"string"},
    {"name":"ts_ms","type":["null","long"],"default":null}],"connect.name":"shop.public.customer.Envelope"}"#;
const KEY: &str =
    r#"{"type":"record","name":"Key","namespace":"shop.public.customer","fields":[{"name":"id","type":"int"}]}"#;

fn image(id: i32, name: &str) -> Value {
    let since = ("since", Value::Int(20574));
    branch(1, record(&[("id", Value::Int(id)), ("name", branch(1, Value::String(name.into()))), since]))
}
fn change(before: Value, after: Value, op: &str) -> Vec<u8> {
    let source = record(&[("db", Value::String("shop".into())), ("lsn", branch(1, Value::Long(5)))]);
    let fields = [
        ("before", before),
        ("after", after),
        ("source", source),
        ("op", Value::String(op.into())),
        ("ts_ms", branch(0, Value::Null)),
    ];
    message(1, &body(ENVELOPE, record(&fields)))
}

#[test]
fn changes_of_a_database() {
    let server = Server::with(ENVELOPE);
    let key_id = server.add(KEY);
    let none = || branch(0, Value::Null);
    let columns = || vec![column("id", DataType::Int), column("name", DataType::String), column("since", DataType::Date)];
    let keyed = table(&server, true, columns(), &[0]);
    let row = |id: i32, name: &str| format!(r#"{{"id":{id},"name":"{name}","since":"2026-05-01"}}"#);
    check(&keyed, change(none(), image(1, "a"), "c"), &[&format!("+{}", row(1, "a"))]);
    check(&keyed, change(none(), image(1, "a"), "r"), &[&format!("+{}", row(1, "a"))]);
    check(&keyed, change(image(1, "a"), image(1, "b"), "u"), &[&format!("+{}", row(1, "b"))]);
    check(&keyed, change(image(2, "a"), image(1, "b"), "u"), &[r#"x{"id":2}"#, &format!("+{}", row(1, "b"))]);
    check(&keyed, change(image(1, "a"), none(), "d"), &[r#"x{"id":1}"#]);
    check(&keyed, change(none(), none(), "c"), &["after: the new image is missing"]);
    check(&keyed, change(none(), none(), "t"), &["op: the table was truncated, which is not carried over yet"]);
    check(&keyed, change(none(), none(), "q"), &["op: unknown operation \"q\""]);
    // The key says what is deleted, where nothing else does.
    let key = Some(message(key_id, &body(KEY, record(&[("id", Value::Int(4))]))));
    assert_eq!(found(&keyed, &[(key.clone(), Some(change(none(), none(), "d")))]), [r#"x{"id":4}"#]);
    assert_eq!(found(&keyed, &[(key.clone(), None)]), [r#"x{"id":4}"#]);
    assert_eq!(found(&keyed, &[(Some(b"4".to_vec()), None)]), ["ignored"]);
    let keyless = table(&server, true, columns(), &[]);
    let update = change(image(1, "a"), image(1, "b"), "u");
    check(&keyless, update.clone(), &[&format!("-{}", row(1, "a")), &format!("+{}", row(1, "b"))]);
    for length in 0..update.len() {
        let found = found(&keyless, &[(None, Some(update[..length].to_vec()))]);
        assert!(found.len() == 1 && !found[0].starts_with(['+', '-']), "{length}: {found:?}");
    }
    // A value that was not changed and not sent.
    let left_out = image(1, "__debezium_unavailable_value");
    check(&keyed, change(image(1, "a"), left_out.clone(), "u"), &[&format!("+{}", row(1, "a"))]);
    let reason = "name: the database left the unchanged value out; set REPLICA IDENTITY FULL on its table";
    check(&keyed, change(none(), left_out, "u"), &[reason]);
    let mut with_key = keyed;
    with_key.options = with_key.options.with([
        ("key.format".to_owned(), ROWS.to_owned()),
        ("key.fields".to_owned(), "id".to_owned()),
        ("value.fields-include".to_owned(), "EXCEPT_KEY".to_owned()),
    ]);
    assert_eq!(found(&with_key, &[(key, Some(change(none(), image(1, "a"), "c")))]), [format!("+{}", row(4, "a"))]);
}

#[test]
fn changes_that_were_flattened_and_what_is_no_change() {
    let flat = r#"{"type":"record","name":"Value","fields":[{"name":"id","type":"int"},{"name":"__deleted","type":["null","string"]}]}"#;
    let server = Server::with(flat);
    let heartbeat = server.add(r#"{"type":"record","name":"Heartbeat","fields":[{"name":"ts_ms","type":"long"}]}"#);
    let other = server.add(r#"{"type":"record","name":"Other","fields":[{"name":"id","type":"int"}]}"#);
    let table = table(&server, true, vec![column("id", DataType::Int)], &[0]);
    let flat_row = |deleted: &str| {
        let fields = [("id", Value::Int(1)), ("__deleted", branch(1, Value::String(deleted.into())))];
        message(1, &body(flat, record(&fields)))
    };
    check(&table, flat_row("false"), &[r#"+{"id":1}"#]);
    check(&table, flat_row("true"), &[r#"x{"id":1}"#]);
    check(&table, message(heartbeat, &[2]), &["ignored"]);
    let schema = r#"{"type":"record","name":"P","fields":[{"name":"id","type":"int"},{"name":"photo","type":"bytes"},{"name":"__op","type":"string"}]}"#;
    let id = server.add(schema);
    let columns = vec![column("id", DataType::Int), column("photo", DataType::Bytes)];
    let photos = super::tests::table(&server, true, columns, &[0]);
    let value = |photo: &[u8]| {
        let fields = [("id", Value::Int(1)), ("photo", Value::Bytes(photo.to_vec())), ("__op", Value::String("u".into()))];
        message(id, &body(schema, record(&fields)))
    };
    check(&photos, value(b"x"), &[r#"+{"id":1,"photo":"eA=="}"#]);
    let reason = "photo: the database left the unchanged value out; set REPLICA IDENTITY FULL on its table";
    check(&photos, value(b"__debezium_unavailable_value"), &[reason]);
    check(&table, message(other, &[2]), &["op: no change envelope: the operation is missing"]);
}

#[test]
fn keys_are_avro_too() {
    let server = Server::with(r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"long"}]}"#);
    let lone = server.add("\"long\"");
    let columns = vec![column("k_id", DataType::BigInt), column("id", DataType::String)];
    let options = |more: &[(&str, &str)]| {
        let url = [("key.format", ROWS), ("key.fields", "k_id"), ("value.fields-include", "EXCEPT_KEY")];
        Options::new(url.iter().chain(more).copied())
    };
    let table = |options| TableFormat { options, ..TableFormat::new(Format::Json, Schema::new(columns.clone()), vec![0]) };
    let prefixed = table(options(&[("key.fields-prefix", "k_"), ("key.avro-confluent.url", &server.url)]));
    let value = || Some(br#"{"id":"v"}"#.to_vec());
    for key in [message(1, &[14]), message(lone, &[14])] {
        assert_eq!(found(&prefixed, &[(Some(key.clone()), value())]), [r#"+{"k_id":7,"id":"v"}"#]);
        assert_eq!(found(&prefixed, &[(Some(key), None)]), [r#"x{"k_id":7}"#]);
    }
    // A lone key is the one column that keys hold, though the PRIMARY KEY has another.
    let mut wider = prefixed.clone();
    wider.key = vec![0, 1];
    assert_eq!(found(&wider, &[(Some(message(lone, &[14])), value())]), [r#"+{"k_id":7,"id":"v"}"#]);
    assert_eq!(found(&wider, &[(Some(message(lone, &[14])), None)]), ["id: key: NULL in a key column"]);
    let reason = "k_id: key: the message is cut off: it ends after 0 bytes, in the middle of a value";
    assert_eq!(found(&prefixed, &[(Some(message(1, &[])), value())]), [reason]);
    let reason = "*: key: no message of a schema registry: it begins with the byte 55, not 0";
    assert_eq!(found(&prefixed, &[(Some(b"7".to_vec()), value())]), [reason]);
    // The registry of the value, where the key names none.
    for shared in ["avro-confluent.url", "value.avro-confluent.url", "debezium-avro-confluent.url"] {
        let table = table(options(&[(shared, &server.url)]));
        assert_eq!(found(&table, &[(Some(message(lone, &[14])), value())]), [r#"+{"k_id":7,"id":"v"}"#], "{shared}");
    }
}

fn open(server: &Server, stop: &Arc<AtomicBool>) -> Result<()> {
    people(server).decoder().expect("a decoder").open(stop)
}
/// A registry in this mood is not there.
fn is_away(mood: Mood, reason: &str) {
    let (server, stop) = (Server::start(), Arc::default());
    open(&server, &stop).expect("it is there");
    server.set(mood);
    let begin = Instant::now();
    let error = open(&server, &stop).expect_err("it is not there");
    assert!(matches!(&error, Error::RegistryAway { .. }), "{error}");
    let start = format!("could not reach the schema registry at \"{}\": {reason}", server.url);
    assert!(error.to_string().starts_with(&start), "{error}");
    assert_eq!(error.help(), "check 'avro-confluent.url', and that a schema registry listens there");
    assert!(begin.elapsed() < Duration::from_secs(30), "within seconds");
    server.set(Mood::Answers);
    open(&server, &stop).expect("it is there again");
}

#[test]
fn a_registry_that_is_not_there_is_an_error_at_the_start() {
    std::thread::scope(|scope| {
        scope.spawn(|| is_away(Mood::Status(503), "it answered 503: {\"error_code\":1"));
        scope.spawn(|| is_away(Mood::HangsUp, ""));
        scope.spawn(|| is_away(Mood::Stalls, "timeout"));
    });
    let (server, stop) = (Server::start(), Arc::default());
    server.set(Mood::Status(401));
    let refused = format!("the schema registry at \"{}\" refused the connection: it answered 401: ", server.url);
    assert!(open(&server, &stop).expect_err("refused").to_string().starts_with(&refused));
    // Whoever is to stop does not wait.
    server.set(Mood::Stalls);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let begin = Instant::now();
    assert!(open(&server, &stop).expect_err("stopped").to_string().ends_with("the run was stopped"));
    assert!(begin.elapsed() < Duration::from_secs(2), "at once");
    server.set(Mood::Answers);
}

#[test]
fn a_registry_that_goes_later_is_waited_for() {
    let server = Server::with(r#"{"type":"record","name":"r","fields":[{"name":"id","type":"long"}]}"#);
    let table = people(&server);
    let mut decoder = table.decoder().expect("a decoder");
    let topics = TopicFilter::all(&["t".to_owned()]);
    let batch = |id| {
        let mut records = Records::new();
        records.push(Record { value: Some(&message(id, &[14])), ..Record::default() });
        records
    };
    let known = batch(1);
    assert_eq!(decoder.prepare(&known, &topics), Prepared::Ready);
    let second = server.add(r#"{"type":"record","name":"r","fields":[{"name":"id","type":"int"}]}"#);
    let new = batch(second);
    for mood in [Mood::HangsUp, Mood::Status(500), Mood::Status(401), Mood::Status(302)] {
        server.set(mood);
        // What is known needs no registry.
        assert_eq!(decoder.prepare(&known, &topics), Prepared::Ready);
        let fresh = table.decoder().expect("a decoder").prepare(&new, &topics);
        let Prepared::NotYet(reason) = fresh else { panic!("{mood:?}") };
        let start = format!("schema registry at \"{}\" does not say what schema 2 is: ", server.url);
        assert!(reason.starts_with(&start), "{reason}");
    }
    // It is not asked again at once.
    let asked = server.state().asked.len();
    for _ in 0..100 {
        assert!(matches!(decoder.prepare(&new, &topics), Prepared::NotYet(_)));
    }
    assert!(server.state().asked.len() <= asked + 2, "{:?}", server.state().asked);
    server.set(Mood::Answers);
    let begin = Instant::now();
    while decoder.prepare(&new, &topics) != Prepared::Ready {
        assert!(begin.elapsed() < Duration::from_secs(60), "it is back");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut decoded = Decoded::default();
    decoder.decode(&new, &topics, &mut decoded);
    assert_eq!((decoded.commands.len(), decoded.dead.len()), (1, 0));
    // An id that was missing may come; one that is known is not asked for again.
    let asked = server.state().asked.len();
    let third = batch(3);
    for _ in 0..2 {
        assert_eq!(decoder.prepare(&third, &topics), Prepared::Ready);
    }
    server.add(r#"{"type":"record","name":"r","fields":[{"name":"id","type":"int"}]}"#);
    for batch in [&third, &third, &new, &known] {
        assert_eq!(decoder.prepare(batch, &topics), Prepared::Ready);
    }
    assert_eq!(server.state().asked[asked..], ["GET /schemas/ids/3"; 3]);
    decoder.decode(&third, &topics, &mut decoded);
    assert_eq!((decoded.commands.len(), decoded.dead.len()), (2, 0));
}

#[test]
fn options_of_a_registry() {
    let schema = || Schema::new(vec![column("id", DataType::BigInt)]);
    let error = |options: &[(&str, &str)]| {
        let options = Options::new(options.iter().copied());
        let table = TableFormat { options, ..TableFormat::new(Format::Avro, schema(), vec![]) };
        table.decoder().err().expect("an error")
    };
    assert_eq!(error(&[]).to_string(), "missing option \"avro-confluent.url\" of connector \"\"");
    let https = error(&[("value.avro-confluent.url", "https://r")]);
    assert_eq!(https.to_string(), "invalid value \"https://r\" of option \"avro-confluent.url\"");
    assert_eq!(https.help(), "expected a URL as in http://host:port; https is not supported yet");
    let url = ("avro-confluent.url", "http://r:1");
    let user = ("avro-confluent.basic-auth.user-info", "secret");
    let source = "avro-confluent.basic-auth.credentials-source";
    assert!(!error(&[("avro-confluent.url", "http://u:p@r")]).to_string().contains("u:p"));
    assert_eq!(error(&[url, (source, "URL")]).to_string(), format!("invalid value \"URL\" of option \"{source}\""));
    assert!(error(&[url, user]).to_string().contains("\"***\""));
    assert_eq!(error(&[url, (source, "USER_INFO")]).to_string(), format!("missing option \"{}\" of connector \"\"", user.0));
    // Several registries hold the same: one that answers is enough.
    let server = Server::with(KEY);
    let urls = format!("http://127.0.0.1:1, {}/", server.url);
    let options = [("avro-confluent.url", urls.as_str()), (source, "USER_INFO"), (user.0, "me:pw")];
    let options = Options::new(options);
    let table = TableFormat { options, ..TableFormat::new(Format::Avro, schema(), vec![]) };
    check(&table, message(1, &[14]), &[r#"+{"id":7}"#]);
    assert_eq!(server.state().users[0].to_lowercase(), "authorization: basic bwu6chc=");
}

/// The columns of every type; c0 and c2 may not be NULL.
fn columns() -> Vec<Column> {
    let named = |(index, data_type): (usize, DataType)| Column {
        nullable: !matches!(index, 0 | 2),
        ..column(&format!("c{index}"), data_type)
    };
    every_type().into_iter().enumerate().map(named).collect()
}
fn options(server: &Server) -> Options {
    Options::new([("avro-confluent.url", server.url.as_str()), ("debezium-avro-confluent.url", server.url.as_str())])
}

#[test]
fn schemas_of_tables() {
    let server = Server::start();
    let inner = DataType::Struct(vec![not_null("zip", DataType::Int)]);
    let columns = vec![
        not_null("id", DataType::BigInt),
        column("name", DataType::String),
        column("at", DataType::TimestampLtz),
        column("price", decimal(10, 2)),
        column("places", DataType::Array(Box::new(inner))),
    ];
    let rows = AvroRows::new(&Schema::new(columns.clone()), false, &options(&server), ROWS, "a/b-value".into());
    let mut rows = rows.expect("a writer");
    rows.register(&Arc::default()).expect("registered");
    let expected = serde_json::json!({"type":"record","name":"record","fields":[
        {"name":"id","type":"long"},
        {"name":"name","type":["null","string"],"default":null},
        {"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null},
        {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}],"default":null},
        {"name":"places","type":["null",{"type":"array","items":["null",{"type":"record","name":"record_places","fields":[
            {"name":"zip","type":"int"}]}]}],"default":null}]});
    let (subject, schema) = server.state().registered[0].clone();
    assert_eq!(
        (subject.as_str(), serde_json::from_str::<serde_json::Value>(&schema).expect("json")),
        ("a%2Fb-value", expected)
    );
    // id 1, then 7, null, null, 12.50 and no places.
    let row = Row::pack([Datum::Int(7), Datum::Null, Datum::Null, Datum::Decimal(1250), Datum::Array(vec![])]);
    let mut out = vec![];
    rows.write(&row, &mut out).expect("written");
    assert_eq!(out, [0, 0, 0, 0, 1, 14, 0, 0, 2, 4, 0x04, 0xE2, 2, 0]);
    let null = Row::pack([Datum::Null, Datum::Null, Datum::Null, Datum::Null, Datum::Null]);
    assert_eq!(rows.write(&null, &mut out), Err("id".to_owned()));
    let subject = options(&server).with([("avro-confluent.subject".to_owned(), "mine".to_owned())]);
    let mut named = AvroRows::new(&Schema::new(columns.clone()), false, &subject, ROWS, "t-value".into()).expect("a writer");
    named.register(&Arc::default()).expect("registered");
    assert_eq!(server.state().registered[1].0, "mine");
    server.set(Mood::Status(409));
    let error = named.register(&Arc::default()).expect_err("refused").to_string();
    assert!(error.contains("refused the schema of subject \"mine\": it answered 409: {\"error_code\":1"), "{error}");
    let odd = Schema::new(vec![column("größe", DataType::Int)]);
    let error = AvroRows::new(&odd, false, &options(&server), ROWS, String::new()).expect_err("a name").to_string();
    assert!(error.ends_with("Avro does not allow the name \"größe\": letters, digits and _ only"), "{error}");
}

/// A row whose required columns are there.
fn full_row() -> impl Strategy<Value = Vec<Datum<'static>>> {
    any_row().prop_filter("c0 and c2 are not NULL", |row| !row[0].is_null() && !row[2].is_null())
}

proptest! {
    #[test]
    fn what_is_written_reads_back(old in full_row(), new in full_row()) {
        let server = Server::start();
        let schema = Schema::new(columns());
        let mut rows = AvroRows::new(&schema, false, &options(&server), ROWS, "t-value".into()).expect("a writer");
        let mut changes = AvroRows::new(&schema, true, &options(&server), CHANGES, "c-value".into()).expect("a writer");
        for writer in [&mut rows, &mut changes] {
            writer.register(&Arc::default()).expect("registered");
        }
        let (old, new) = (Row::pack(old), Row::pack(new));
        let (mut row, mut change) = (vec![], vec![]);
        rows.write(&new, &mut row).expect("written");
        changes.write_change(Some(&old), Some(&new), "u", &mut change).expect("written");
        let mut read = vec![];
        for (format, value) in [(Format::Avro, &row), (Format::DebeziumAvro, &change)] {
            let table = TableFormat { options: options(&server), ..TableFormat::new(format, schema.clone(), vec![]) };
            let mut records = Records::new();
            records.push(Record { value: Some(value), ..Record::default() });
            let (topics, mut decoded) = (TopicFilter::all(&["t".to_owned()]), Decoded::default());
            let mut decoder = table.decoder().expect("a decoder");
            prop_assert_eq!(decoder.prepare(&records, &topics), Prepared::Ready);
            decoder.decode(&records, &topics, &mut decoded);
            prop_assert_eq!(&decoded.dead, &vec![]);
            read.extend(decoded.commands.into_iter().map(|command| (command.kind, command.row)));
        }
        let upsert = (CommandKind::Upsert, new);
        prop_assert_eq!(read, vec![upsert.clone(), (CommandKind::Retract, old), upsert]);
        // Others read it too, to its end.
        for (writer, bytes) in [(&rows, &row), (&changes, &change)] {
            let schema = apache_avro::Schema::parse_str(writer.schema_text()).expect("a schema");
            let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().expect("a reader");
            let mut rest = &bytes[HEADER..];
            let value = reader.read_value(&mut rest).expect("a value");
            prop_assert!(rest.is_empty());
            // And write it in the same way.
            let again = GenericDatumWriter::builder(&schema).build().expect("a writer").write_value_to_vec(value);
            prop_assert_eq!(&again.expect("written")[..], &bytes[HEADER..]);
        }
    }

    #[test]
    fn nothing_panics(messages in proptest::collection::vec((0u32..6, proptest::collection::vec(any::<u8>(), 0..40)), 1..20)) {
        let server = Server::with(PERSON);
        for schema in [ENVELOPE, "\"string\"", r#"{"type":"record","name":"list","fields":[{"name":"id","type":"long"},{"name":"next","type":["null","list"]}]}"#] {
            server.add(schema);
        }
        let mut records = Records::new();
        for (id, body) in &messages {
            let bytes = if *id == 5 { body.clone() } else { message(*id, body) };
            records.push(Record { key: Some(&bytes), value: Some(&bytes), ..Record::default() });
        }
        for debezium in [false, true] {
            let mut table = people(&server);
            let own = super::tests::table(&server, debezium, table.schema.columns.clone(), &[2]);
            table = TableFormat { options: own.options.with([("key.format".to_owned(), ROWS.to_owned())]), ..own };
            let (topics, mut decoded) = (TopicFilter::all(&["t".to_owned()]), Decoded::default());
            let mut decoder = table.decoder().expect("a decoder");
            prop_assert_eq!(decoder.prepare(&records, &topics), Prepared::Ready);
            decoder.decode(&records, &topics, &mut decoded);
            let all = decoded.commands.len() + decoded.dead.len() + decoded.ignored as usize;
            prop_assert!(all >= messages.len());
        }
    }
}
