//! Keys of records: which columns they fill, what they delete, and which options go together.

use super::*;
use crate::decode::tests::{check, column, decode_records, not_null};
use crate::decode::{Metadata, MetadataColumn};
use crate::options::Options;
use crate::record::{Record, Records};
use deltaworks_dataflow::{Row, Schema};

/// id BIGINT, shop STRING, name STRING; not keyed.
fn table(format: Format, options: &[(&str, &str)]) -> TableFormat {
    let columns = vec![column("id", DataType::BigInt), column("shop", DataType::String), column("name", DataType::String)];
    let options = Options::new(options.iter().copied());
    TableFormat { options, ..TableFormat::new(format, Schema::new(columns), vec![]) }
}
fn keyed(key: &[usize], format: Format, options: &[(&str, &str)]) -> TableFormat {
    TableFormat { key: key.to_vec(), ..table(format, options) }
}
const TWO: [(&str, &str); 2] = [("key.fields", "shop;id"), ("key.format", "json")];
const EXCEPT: (&str, &str) = ("value.fields-include", "EXCEPT_KEY");

#[test]
fn a_field_of_the_value_wins() {
    let table = table(Format::Json, &TWO);
    let key = Some(r#"{"id":1,"shop":"s","more":[]}"#);
    check(&table, key, Some(r#"{"name":"n"}"#), &[r#"+{"id":1,"shop":"s","name":"n"}"#]);
    check(&table, key, Some(r#"{"ID":2,"name":"n"}"#), &[r#"+{"id":2,"shop":"s","name":"n"}"#]);
    // NULL is a value too.
    check(&table, key, Some(r#"{"id":null,"shop":"t"}"#), &[r#"+{"id":null,"shop":"t","name":null}"#]);
    check(&table, Some(r#"{"shop":null}"#), Some("{}"), &[r#"+{"id":null,"shop":null,"name":null}"#]);
    check(&table, None, Some(r#"{"id":2}"#), &[r#"+{"id":2,"shop":null,"name":null}"#]);
    let csv = TableFormat { format: Format::Csv, ..table };
    check(&csv, key, Some("3,,n"), &[r#"+{"id":3,"shop":null,"name":"n"}"#]);
}

#[test]
fn a_value_without_the_key_does_not_see_its_columns() {
    let key = Some(r#"{"id":1,"shop":"s"}"#);
    let row = r#"+{"id":1,"shop":"s","name":"n"}"#;
    let except = [TWO[0], TWO[1], EXCEPT];
    check(&table(Format::Json, &except), key, Some(r#"{"id":9,"name":"n"}"#), &[row]);
    check(&table(Format::Csv, &except), key, Some("n"), &[row]);
    check(&table(Format::Csv, &except), key, Some("1,s,n"), &["*: the line has 3 fields, the table 1 columns"]);
    check(&table(Format::Raw, &except), key, Some("n"), &[row]);
    let strict = [TWO[0], TWO[1], EXCEPT, ("json.fail-on-missing-field", "true")];
    check(&table(Format::Json, &strict), key, Some(r#"{"name":"n"}"#), &[row]);
    check(&table(Format::Json, &strict[..]), key, Some("{}"), &["name: the field is missing"]);
    let all = [TWO[0], TWO[1], ("value.json.fail-on-missing-field", "true")];
    check(&table(Format::Json, &all), key, Some(r#"{"name":"n"}"#), &["id: the field is missing"]);
    let nothing_left = [("key.fields", "id;name;shop"), TWO[1], EXCEPT];
    check(&table(Format::Csv, &nothing_left), key, Some(""), &[r#"+{"id":1,"shop":"s","name":null}"#]);
}

#[test]
fn keys_have_formats() {
    let named = |fields, format| table(Format::Json, &[("key.fields", fields), ("key.format", format), EXCEPT]);
    let row = |id: &str, shop: &str| format!(r#"+{{"id":{id},"shop":{shop},"name":null}}"#);
    check(&named("id", "raw"), Some("12"), Some("{}"), &[&row("12", "null")]);
    check(&named("shop", "raw"), Some(""), Some("{}"), &[&row("null", "\"\"")]);
    check(&named("id", "csv"), Some("12"), Some("{}"), &[&row("12", "null")]);
    check(&named("shop;id", "csv"), Some("\"a,\"\"\",3"), Some("{}"), &[&row("3", r#""a,\"""#)]);
    check(&named("shop;id", "csv"), Some("\"\",3"), Some("{}"), &[&row("3", "\"\"")]);
    check(&named("shop;id", "csv"), Some(",3"), Some("{}"), &[&row("3", "null")]);
    check(&named("id;shop", "json"), Some(r#"{"SHOP":"s"}"#), Some("{}"), &[&row("null", "\"s\"")]);
    check(&named("id", "debezium-json"), Some(r#"{"schema":{},"payload":{"id":4}}"#), Some("{}"), &[&row("4", "null")]);
    let semicolon = [("key.fields", "shop;id"), ("key.format", "csv"), ("key.csv.field-delimiter", ";"), EXCEPT];
    check(&table(Format::Json, &semicolon), Some("s;3"), Some("{}"), &[&row("3", "\"s\"")]);
    // The separator of values is not that of keys.
    let value = [("key.fields", "shop;id"), ("key.format", "csv"), ("csv.field-delimiter", ";"), EXCEPT];
    check(&table(Format::Csv, &value), Some("s,3"), Some("n"), &[r#"+{"id":3,"shop":"s","name":"n"}"#]);
    let strict = [TWO[0], TWO[1], ("key.json.fail-on-missing-field", "true")];
    check(&table(Format::Json, &strict), Some(r#"{"id":1}"#), Some("{}"), &["shop: key: the field is missing"]);
}

#[test]
fn a_key_of_any_type_is_its_text() {
    let raw = |data_type| {
        let columns = Schema::new(vec![column("k", data_type), column("v", DataType::String)]);
        let options = Options::new([("key.fields", "k"), ("key.format", "raw"), EXCEPT]);
        TableFormat { options, ..TableFormat::new(Format::Raw, columns, vec![]) }
    };
    check(&raw(DataType::Bytes), Some("AP8="), Some("x"), &[r#"+{"k":"QVA4PQ==","v":"x"}"#]);
    check(&raw(DataType::Date), Some("2026-05-01"), Some("x"), &[r#"+{"k":"2026-05-01","v":"x"}"#]);
    check(&raw(DataType::Array(Box::new(DataType::Int))), Some("[1, 2]"), Some("x"), &[r#"+{"k":[1,2],"v":"x"}"#]);
    let reason = "k[1]: key: expected INT, found \"b\"";
    check(&raw(DataType::Array(Box::new(DataType::Int))), Some("[1,\"b\"]"), Some("x"), &[reason]);
    check(&raw(DataType::Array(Box::new(DataType::Int))), Some("[1"), Some("x"), &["k: key: expected ARRAY<INT>, found [1"]);
}

#[test]
fn a_prefix_stands_in_the_table_alone() {
    let columns = vec![column("k_id", DataType::BigInt), column("id", DataType::BigInt), column("K_shop", DataType::String)];
    let options = [("key.fields", "k_id;K_shop"), ("key.format", "json"), ("key.fields-prefix", "k_"), EXCEPT];
    let table =
        TableFormat { options: Options::new(options), ..TableFormat::new(Format::Json, Schema::new(columns), vec![0]) };
    check(&table, Some(r#"{"id":1,"shop":"s"}"#), Some(r#"{"id":2}"#), &[r#"+{"k_id":1,"id":2,"K_shop":"s"}"#]);
    check(&table, Some(r#"{"id":1}"#), None, &[r#"x{"k_id":1}"#]);
    check(&table, Some(r#"{"id":"x"}"#), Some(r#"{"id":2}"#), &["k_id: key: expected BIGINT, found \"x\""]);
    // It is the name of another column that the key has here.
    check(&table, Some(r#"{"k_id":1}"#), Some(r#"{"id":2}"#), &["k_id: the field is missing in a key column"]);
}

#[test]
fn keys_that_are_missing_or_wrong() {
    let raw = [("key.fields", "id"), ("key.format", "raw")];
    let optional = table(Format::Json, &raw);
    check(&optional, None, Some(r#"{"name":"n"}"#), &[r#"+{"id":null,"shop":null,"name":"n"}"#]);
    check(&optional, Some("x"), Some(r#"{"id":1}"#), &["id: key: expected BIGINT, found x"]);
    check(&optional, Some("1.5"), Some(r#"{"id":1}"#), &["id: key: expected BIGINT, found 1.5"]);
    let keyed = TableFormat { key: vec![0], ..optional.clone() };
    check(&keyed, None, Some(r#"{"name":"n"}"#), &["id: the field is missing in a key column"]);
    check(&keyed, None, Some(r#"{"id":1}"#), &[r#"+{"id":1,"shop":null,"name":null}"#]);
    let mut required = optional;
    required.schema.columns[0] = not_null("id", DataType::BigInt);
    check(&required, None, Some("{}"), &["id: the field is missing in a NOT NULL column"]);
    let object = table(Format::Json, &TWO);
    check(&object, Some("[1]"), Some("{}"), &["*: key: expected an object, found an array"]);
    check(&object, Some("null"), Some("{}"), &["*: key: expected an object, found null"]);
    check(&object, Some(r#"{"id":[1]}"#), Some("{}"), &["id: key: expected BIGINT, found [1]"]);
    let lines = table(Format::Json, &[("key.fields", "shop;id"), ("key.format", "csv")]);
    check(&lines, Some("s"), Some("{}"), &["id: key: the line has 1 fields, the key 2 columns: none is left for this one"]);
}

#[test]
fn every_record_has_a_key_of_its_own() {
    let table = keyed(&[0], Format::Json, &[("key.fields", "id"), ("key.format", "raw"), EXCEPT]);
    let mut records = Records::new();
    for (key, value) in
        [(Some("1"), Some("{}")), (Some("x"), Some("{}")), (Some("2"), Some("{}")), (Some("3"), None), (None, None)]
    {
        let bytes = |text: Option<&'static str>| text.map(str::as_bytes);
        records.push(Record { key: bytes(key), value: bytes(value), ..Record::default() });
    }
    let decoded = decode_records(&table, &records);
    let reasons: Vec<&str> = decoded.dead.iter().map(|dead| dead.reason.as_str()).collect();
    assert_eq!(reasons, ["key: expected BIGINT, found x", "neither a value nor a key"]);
    let row = |id| Row::pack([Datum::Int(id), Datum::Null, Datum::Null]);
    let rows: Vec<Row> = decoded.commands.into_iter().map(|command| command.row).collect();
    assert_eq!(rows, [row(1), row(2), Row::pack([Datum::Int(3)])]);
}

#[test]
fn deletes_find_the_primary_key_in_the_key() {
    let delete = |key: &[usize], format: &str, text: &str, expected: &str| {
        let options = [("key.fields", "shop;id"), ("key.format", format)];
        check(&keyed(key, Format::Json, &options), Some(text), None, &[expected]);
    };
    let object = r#"{"id":1,"shop":"s"}"#;
    delete(&[1, 0], "json", object, r#"x{"shop":"s","id":1}"#);
    delete(&[0, 1], "json", object, r#"x{"id":1,"shop":"s"}"#);
    delete(&[0, 1], "csv", "s,1", r#"x{"id":1,"shop":"s"}"#);
    delete(&[0], "csv", "s,1", r#"x{"id":1}"#);
    delete(&[0], "json", r#"{"id":1}"#, r#"x{"id":1}"#);
    delete(&[0, 2], "json", r#"{"id":1,"shop":"s","name":"n"}"#, r#"x{"id":1,"name":"n"}"#);
    delete(&[0, 2], "json", object, "name: key: NULL in a key column");
    delete(&[0, 2], "csv", "s,1", "name: key: it does not hold this column of the PRIMARY KEY");
    delete(&[1], "csv", "s,x", "id: key: expected BIGINT, found x");
    delete(&[0], "csv", "s,", "id: key: NULL in a key column");
    check(&keyed(&[0], Format::Json, &TWO), None, None, &["*: neither a value nor a key"]);
    check(
        &table(Format::Json, &TWO),
        Some(object),
        None,
        &["*: a record without a value deletes by key, but the table has no key"],
    );
    // Without key.fields the key says what is deleted and fills nothing.
    let only_deletes = keyed(&[0], Format::Json, &[("key.format", "raw")]);
    check(&only_deletes, Some("7"), None, &[r#"x{"id":7}"#]);
    check(&only_deletes, Some("7"), Some("{}"), &["id: the field is missing in a key column"]);
    check(&only_deletes, Some("x"), Some(r#"{"id":1}"#), &[r#"+{"id":1,"shop":null,"name":null}"#]);
}

#[test]
fn upserts_are_keyed_by_the_primary_key() {
    let row = r#"+{"id":1,"shop":"s","name":"n"}"#;
    let upsert = ("connector", "upsert-kafka");
    let json = keyed(&[1, 0], Format::Json, &[upsert, ("key.format", "json")]);
    let key = Some(r#"{"id":1,"shop":"s"}"#);
    check(&json, key, Some(r#"{"name":"n"}"#), &[row]);
    check(&json, key, None, &[r#"x{"shop":"s","id":1}"#]);
    check(&json, Some("1"), Some(r#"{"id":1,"shop":"s","name":"n"}"#), &["*: key: expected an object, found a number"]);
    check(&json, None, Some(r#"{"id":1,"shop":"s","name":"n"}"#), &[row]);
    let named = keyed(&[1, 0], Format::Csv, &[upsert, ("key.format", "csv"), ("key.fields", "id;shop"), EXCEPT]);
    check(&named, Some("1,s"), Some("n"), &[row]);
    check(&named, Some("1,s"), None, &[r#"x{"shop":"s","id":1}"#]);
    // Without a word about keys, the key is looked at where the value lacks a part of it.
    for silent in [("connector", "upsert-kafka"), ("changelog.mode", "upsert")] {
        let silent = keyed(&[0], Format::Json, &[silent]);
        check(&silent, Some("1"), Some(r#"{"shop":"s","name":"n"}"#), &[row]);
        check(&silent, Some("x"), Some(r#"{"id":1,"shop":"s","name":"n"}"#), &[row]);
        check(&silent, Some("x"), Some("{}"), &["id: key: expected BIGINT, found x"]);
        check(&silent, None, Some("{}"), &["id: the field is missing in a key column"]);
    }
    let except = keyed(&[0], Format::Json, &[upsert, EXCEPT]);
    check(&except, Some("1"), Some(r#"{"id":5,"shop":"s","name":"n"}"#), &[row]);
}

#[test]
fn images_of_a_change_are_filled_from_the_key() {
    let options = [("key.fields", "id"), ("key.format", "json"), EXCEPT];
    let debezium = keyed(&[0], Format::Debezium, &options);
    let key = Some(r#"{"id":1}"#);
    let update = r#"{"op":"u","before":{"name":"a"},"after":{"name":"b","id":9}}"#;
    check(&debezium, key, Some(update), &[r#"+{"id":1,"shop":null,"name":"b"}"#]);
    check(&debezium, key, Some(r#"{"op":"d","before":{"name":"a"}}"#), &[r#"x{"id":1}"#]);
    check(&debezium, key, Some(r#"{"op":"d"}"#), &[r#"x{"id":1}"#]);
    check(&debezium, key, Some(r#"{"name":"a","__op":"c"}"#), &[r#"+{"id":1,"shop":null,"name":"a"}"#]);
    check(&debezium, key, Some(r#"{"name":"a","__deleted":"true"}"#), &[r#"x{"id":1}"#]);
    check(&debezium, Some("{"), Some(update), &["*: key: invalid JSON: EOF while parsing an object at line 1 column 1"]);
    let keyless = table(Format::Debezium, &options);
    check(&keyless, key, Some(update), &[r#"-{"id":1,"shop":null,"name":"a"}"#, r#"+{"id":1,"shop":null,"name":"b"}"#]);
    // With ALL the images say for themselves that the key changed.
    let all = keyed(&[0], Format::Debezium, &options[..2]);
    let moved = r#"{"op":"u","before":{"id":2},"after":{"id":1,"name":"b"}}"#;
    check(&all, key, Some(moved), &[r#"x{"id":2}"#, r#"+{"id":1,"shop":null,"name":"b"}"#]);
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let refused = |key: &[usize], options: &[(&str, &str)], message: &str, help: &str| {
        let mut table = keyed(key, Format::Json, options);
        table.metadata = vec![MetadataColumn { column: 2, metadata: Metadata::Topic }];
        let error = table.decoder().err().unwrap_or_else(|| panic!("{options:?} are taken"));
        assert_eq!(error.to_string(), message);
        assert!(error.help().contains(help), "{message}: {}", error.help());
    };
    let json = ("key.format", "json");
    let prefix = ("key.fields-prefix", "s");
    let upsert = ("connector", "upsert-kafka");
    refused(
        &[0],
        &[("key.fields", "id")],
        "option \"key.fields\" needs 'key.format', which says how keys are written",
        "'raw'",
    );
    refused(
        &[],
        &[json],
        "option \"key.format\" is of no use: the records' keys hold no column of this table",
        "'key.fields'",
    );
    refused(
        &[],
        &[EXCEPT],
        "option \"value.fields-include\" is of no use: the records' keys hold no column of this table",
        "a;b",
    );
    refused(&[], &[("key.fields", "id;nam"), json], "invalid value \"id;nam\" of option \"key.fields\"", "a;b: id, shop");
    // A metadata column is in no key.
    refused(&[], &[("key.fields", "name"), json], "invalid value \"name\" of option \"key.fields\"", "a;b: id, shop");
    refused(&[], &[("key.fields", "id;id"), json], "invalid value \"id;id\" of option \"key.fields\"", "once");
    refused(
        &[0],
        &[("key.fields", " ; "), ("value.fields-include", "ALL")],
        "invalid value \"\" of option \"key.fields\"",
        "one column",
    );
    refused(
        &[],
        &[("key.fields", "id"), json, ("value.fields-include", "KEY")],
        "invalid value \"KEY\" of option \"value.fields-include\"",
        "EXCEPT_KEY",
    );
    refused(
        &[],
        &[("key.fields", "shop"), json, prefix],
        "option \"key.fields-prefix\" needs 'value.fields-include' = 'EXCEPT_KEY'",
        "set it",
    );
    refused(
        &[],
        &[("key.fields", "shop;id"), json, prefix, EXCEPT],
        "invalid value \"s\" of option \"key.fields-prefix\"",
        "\"id\" does not",
    );
    refused(
        &[],
        &[("key.fields", "shop;id"), ("key.format", "raw")],
        "invalid value \"raw\" of option \"key.format\"",
        "several",
    );
    refused(&[], &[("key.fields", "id"), ("key.format", "jsn")], "unknown format \"jsn\"", "raw, json, csv");
    refused(
        &[0],
        &[upsert, ("key.fields", "shop"), json],
        "invalid value \"shop\" of option \"key.fields\"",
        "the PRIMARY KEY",
    );
}
