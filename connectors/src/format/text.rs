//! The way out: rows as JSON, CSV and aligned text, exactly as result sets and changelogs print them.
//!
//! DECIMAL prints all its digits, DOUBLE the shortest text that reads back, NaN and the infinities as strings, DATE, TIMESTAMP
//! and TIMESTAMP_LTZ as `2026-05-01 09:00:00.5` (the last with `Z`), BYTES as base64, BITMAP as an ascending array, INTERVAL as
//! ISO 8601, STRUCT as an object, NULL as `null`: never left out. Nothing is allocated per row.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaworks_dataflow::row::{field_offsets, is_null_field};
use deltaworks_dataflow::temporal::write_temporal;
use deltaworks_dataflow::{DataType, Datum, Row, Schema};
use std::io::Write;

use crate::error::{Error, Result};
use deltaworks_dataflow::bitmap;

/// How result sets print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// Aligned text, for people.
    #[default]
    Table,
    /// RFC 4180 with a header; NULL is empty, the empty string is `""`; an empty line between result sets.
    Csv,
    /// One line per result set: an array of objects.
    Json,
}

/// The rows of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// The columns.
    pub schema: Schema,
    /// The rows, in the order in which they print.
    pub rows: Vec<Row>,
}

/// Prints result sets one after another.
#[derive(Debug)]
pub struct ResultWriter<W> {
    format: OutputFormat,
    out: W,
    printed: bool,
}

impl<W: Write> ResultWriter<W> {
    /// A writer of the format.
    pub fn new(format: OutputFormat, out: W) -> Self {
        ResultWriter { format, out, printed: false }
    }
    /// Prints a result set and flushes.
    ///
    /// # Errors
    /// Two columns of one name in JSON; an output that does not take what is written.
    pub fn write(&mut self, result: &ResultSet) -> Result<()> {
        let mut text = Vec::new();
        if self.printed && self.format != OutputFormat::Json {
            text.push(b'\n');
        }
        write_result(self.format, result, &mut text)?;
        self.printed = true;
        self.out.write_all(&text).and_then(|()| self.out.flush()).map_err(Error::Output)
    }
}

/// Appends one result set as text.
///
/// # Errors
/// Two columns of one name in JSON.
pub fn write_result(format: OutputFormat, result: &ResultSet, out: &mut Vec<u8>) -> Result<()> {
    match format {
        OutputFormat::Json => write_json_result(result, out)?,
        OutputFormat::Csv => {
            write_csv_header(&result.schema, out);
            let types = result.schema.types();
            result.rows.iter().for_each(|row| write_csv_row(&types, row, out));
        }
        OutputFormat::Table => write_table(result, out),
    }
    Ok(())
}
fn write_json_result(result: &ResultSet, out: &mut Vec<u8>) -> Result<()> {
    check_unique(&result.schema)?;
    let rows = JsonRows::new(&result.schema);
    out.push(b'[');
    for (index, row) in result.rows.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        rows.write(row, out);
    }
    out.extend_from_slice(b"]\n");
    Ok(())
}
/// Refuses a schema in which two columns have one name.
pub(crate) fn check_unique(schema: &Schema) -> Result<()> {
    for (index, column) in schema.columns.iter().enumerate() {
        if schema.columns[..index].iter().any(|other| other.name == column.name) {
            return Err(Error::DuplicateColumn { name: column.name.clone() });
        }
    }
    Ok(())
}

/// Writes the rows of one schema as JSON objects; the names are rendered once.
#[derive(Clone, Debug)]
pub struct JsonRows {
    columns: Vec<(Vec<u8>, DataType)>,
}

impl JsonRows {
    /// A writer of rows of the schema.
    pub fn new(schema: &Schema) -> Self {
        let named = |(index, column): (usize, &deltaworks_dataflow::Column)| {
            let mut name = if index == 0 { vec![] } else { vec![b','] };
            write_json_string(&column.name, &mut name);
            name.push(b':');
            (name, column.data_type.clone())
        };
        JsonRows { columns: schema.columns.iter().enumerate().map(named).collect() }
    }
    /// Appends a row as an object.
    #[inline]
    pub fn write(&self, mut row: &[u8], out: &mut Vec<u8>) {
        out.push(b'{');
        for (name, data_type) in &self.columns {
            out.extend_from_slice(name);
            write_json_datum(&Datum::decode(&mut row, data_type), data_type, out);
        }
        out.push(b'}');
    }
}

/// Appends a row as an object; [`JsonRows`] is faster for many.
pub fn write_json_row(schema: &Schema, row: &[u8], out: &mut Vec<u8>) {
    JsonRows::new(schema).write(row, out);
}
/// Appends the field at the front of `row` as a JSON value and moves `row` past it.
pub fn write_json_value(data_type: &DataType, row: &mut &[u8], out: &mut Vec<u8>) {
    write_json_datum(&Datum::decode(row, data_type), data_type, out);
}

/// Appends a value as JSON.
pub fn write_json_datum(datum: &Datum<'_>, data_type: &DataType, out: &mut Vec<u8>) {
    match datum {
        Datum::Null => out.extend_from_slice(b"null"),
        Datum::Str(text) => write_json_string(text, out),
        Datum::Int(_) if is_quoted(data_type) => {
            out.push(b'"');
            write_plain(datum, data_type, out);
            out.push(b'"');
        }
        Datum::Float(value) if !value.is_finite() => {
            out.push(b'"');
            write_plain(datum, data_type, out);
            out.push(b'"');
        }
        Datum::Bytes(_) => {
            out.push(b'"');
            write_plain(datum, data_type, out);
            out.push(b'"');
        }
        _ => write_plain(datum, data_type, out),
    }
}
fn is_quoted(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Date | DataType::Timestamp | DataType::TimestampLtz | DataType::IntervalDay | DataType::IntervalMonth
    )
}

/// Appends a value as text without quotes; NULL is empty; ARRAY, STRUCT and BITMAP are their JSON.
pub fn write_plain(datum: &Datum<'_>, data_type: &DataType, out: &mut Vec<u8>) {
    match datum {
        Datum::Null => {}
        Datum::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Datum::Int(value) => write_int(*value, data_type, out),
        Datum::Decimal(value) => match data_type {
            DataType::Decimal { scale, .. } => write_decimal(*value, *scale, out),
            _ => write_decimal(*value, 0, out),
        },
        Datum::Float(value) => write_float(*value, matches!(data_type, DataType::Float), out),
        Datum::Str(text) => out.extend_from_slice(text.as_bytes()),
        Datum::Bytes(bytes) => write_base64(bytes, out),
        Datum::Bitmap(bytes) => write_bitmap(bytes, out),
        Datum::Array(items) => write_array(items, data_type, out),
        Datum::Struct(fields) => write_struct(fields, data_type, out),
    }
}
fn write_int(value: i64, data_type: &DataType, out: &mut Vec<u8>) {
    if !write_temporal(value, data_type, out) {
        write_integer(value, out);
    }
}
#[inline]
fn write_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}
/// Appends a decimal with exactly `scale` digits after the point.
fn write_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = match u64::try_from(value.unsigned_abs()) {
        Ok(narrow) => buffer.format(narrow),
        Err(_) => buffer.format(value.unsigned_abs()),
    };
    let Ok(scale) = usize::try_from(scale) else {
        out.extend_from_slice(digits.as_bytes());
        let zeros = if value == 0 { 0 } else { usize::from(scale.unsigned_abs()) };
        return out.resize(out.len() + zeros, b'0');
    };
    if scale == 0 {
        return out.extend_from_slice(digits.as_bytes());
    }
    if digits.len() <= scale {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + scale - digits.len(), b'0');
        return out.extend_from_slice(digits.as_bytes());
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    out.extend_from_slice(whole.as_bytes());
    out.push(b'.');
    out.extend_from_slice(fraction.as_bytes());
}
fn write_float(value: f64, single: bool, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else if single {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value as f32).as_bytes());
    } else {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("the space was made");
}
fn write_bitmap(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, member) in bitmap::to_set(bytes).iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_integer(member, out);
    }
    out.push(b']');
}
fn write_array(items: &[Datum<'_>], data_type: &DataType, out: &mut Vec<u8>) {
    let DataType::Array(item_type) = data_type else { return };
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json_datum(item, item_type, out);
    }
    out.push(b']');
}
fn write_struct(fields: &[Datum<'_>], data_type: &DataType, out: &mut Vec<u8>) {
    let DataType::Struct(columns) = data_type else { return };
    out.push(b'{');
    for (index, (field, column)) in fields.iter().zip(columns).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json_string(&column.name, out);
        out.push(b':');
        write_json_datum(field, &column.data_type, out);
    }
    out.push(b'}');
}

/// Appends a JSON string with its quotes.
#[inline]
pub fn write_json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if needs_escape(text.as_bytes()) {
        write_escaped(text.as_bytes(), out);
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
}
/// Whether a quote, a backslash or a control character is among the bytes; looks at eight of them at once.
#[inline]
fn needs_escape(bytes: &[u8]) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // Subtracting borrows into the high bit of a byte that is smaller; a byte that had that bit does not count.
    let below = |word: u64, limit: u8| word.wrapping_sub(LOW * u64::from(limit)) & !word & HIGH;
    let equal = |word: u64, byte: u8| below(word ^ (LOW * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut found = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        found |= below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
    }
    found != 0 || rest.iter().any(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'))
}
#[cold]
fn write_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        let short = match byte {
            b'"' | b'\\' => *byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => {
                out.push(*byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            out.extend_from_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Appends the names of the columns as a line of CSV.
pub fn write_csv_header(schema: &Schema, out: &mut Vec<u8>) {
    for (index, column) in schema.columns.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let start = out.len();
        out.extend_from_slice(column.name.as_bytes());
        quote_csv(start, out);
    }
    out.push(b'\n');
}
/// Appends a row as a line of CSV (RFC 4180, `\n` at the end): NULL is empty, an empty text is `""`.
pub fn write_csv_row(types: &[DataType], mut row: &[u8], out: &mut Vec<u8>) {
    for (index, data_type) in types.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let datum = Datum::decode(&mut row, data_type);
        if !datum.is_null() {
            let start = out.len();
            write_plain(&datum, data_type, out);
            quote_csv(start, out);
        }
    }
    out.push(b'\n');
}
/// Puts quotes around the field that starts at `start`, where it needs them.
fn quote_csv(start: usize, out: &mut Vec<u8>) {
    let field = &out[start..];
    if !field.is_empty() && !field.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        return;
    }
    let field = field.to_vec();
    out.insert(start, b'"');
    out.truncate(start + 1);
    for byte in field {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Appends the rows as a table: names, a rule, one line per row; numbers to the right.
fn write_table(result: &ResultSet, out: &mut Vec<u8>) {
    let columns = &result.schema.columns;
    let mut offsets = Vec::new();
    let mut cells: Vec<Vec<String>> = Vec::with_capacity(result.rows.len());
    for row in &result.rows {
        field_offsets(row, &mut offsets);
        let cell = |(index, column): (usize, &deltaworks_dataflow::Column)| {
            let mut field = &row[offsets[index]..offsets[index + 1]];
            if is_null_field(field) {
                return "NULL".to_owned();
            }
            let mut text = Vec::new();
            write_plain(&Datum::decode(&mut field, &column.data_type), &column.data_type, &mut text);
            one_line(&String::from_utf8_lossy(&text))
        };
        cells.push(columns.iter().enumerate().map(cell).collect());
    }
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let longest = cells.iter().map(|row| row[index].chars().count()).max().unwrap_or(0);
            longest.max(column.name.chars().count())
        })
        .collect();
    let right: Vec<bool> = columns.iter().map(|column| is_number(&column.data_type)).collect();
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    write_cells(&names, &widths, &right, out);
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    out.extend_from_slice(rule.join("-+-").as_bytes());
    out.push(b'\n');
    cells.iter().for_each(|row| write_cells(row, &widths, &right, out));
}
fn is_number(data_type: &DataType) -> bool {
    let float = matches!(data_type, DataType::Float | DataType::Double | DataType::Decimal { .. });
    float || (data_type.is_int() && !is_quoted(data_type))
}
/// A text without what would break its line.
fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}
fn write_cells(cells: &[String], widths: &[usize], right: &[bool], out: &mut Vec<u8>) {
    let mut line = String::new();
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            line.push_str(" | ");
        }
        let padding = " ".repeat(widths[index] - cell.chars().count());
        let (before, after) = if right[index] { (&*padding, "") } else { ("", &*padding) };
        line.push_str(before);
        line.push_str(cell);
        line.push_str(after);
    }
    out.extend_from_slice(line.trim_end().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::parse;
    use deltaworks_dataflow::Column;
    use proptest::prelude::*;
    use std::borrow::Cow;

    fn json(datum: Datum<'_>, data_type: &DataType) -> String {
        let mut out = Vec::new();
        write_json_datum(&datum, data_type, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn every_type_prints_as_promised() {
        let decimal = |precision, scale| DataType::Decimal { precision, scale };
        let structure = DataType::Struct(vec![Column::new("a\"", DataType::Int), Column::new("b", DataType::String)]);
        let day = 86_400_000_000;
        let may = 20_574;
        let cases = [
            (Datum::Null, DataType::Int, "null"),
            (Datum::Bool(true), DataType::Boolean, "true"),
            (Datum::Int(i64::MIN), DataType::BigInt, "-9223372036854775808"),
            (Datum::Decimal(10000), decimal(10, 4), "1.0000"),
            (Datum::Decimal(-5), decimal(10, 4), "-0.0005"),
            (Datum::Decimal(0), decimal(10, 2), "0.00"),
            (Datum::Decimal(i128::from(u64::MAX) * 10), decimal(38, 1), "18446744073709551615.0"),
            (Datum::Decimal(12), decimal(5, -3), "12000"),
            (Datum::Decimal(7), decimal(5, 0), "7"),
            (Datum::Float(0.1), DataType::Double, "0.1"),
            (Datum::Float(f64::from(0.1f32)), DataType::Float, "0.1"),
            (Datum::Float(1.0), DataType::Double, "1.0"),
            (Datum::Float(f64::NAN), DataType::Double, "\"NaN\""),
            (Datum::Float(f64::NEG_INFINITY), DataType::Double, "\"-Infinity\""),
            (Datum::str("a\"\\\n\u{1}é"), DataType::String, "\"a\\\"\\\\\\n\\u0001é\""),
            (Datum::Bytes(Cow::Borrowed(b"ab")), DataType::Bytes, "\"YWI=\""),
            (Datum::Int(may), DataType::Date, "\"2026-05-01\""),
            (Datum::Int(may * day + 9 * 3_600_000_000), DataType::Timestamp, "\"2026-05-01 09:00:00\""),
            (Datum::Int(may * day + 120_000), DataType::TimestampLtz, "\"2026-05-01 00:00:00.12Z\""),
            (Datum::Int(-1), DataType::Timestamp, "\"1969-12-31 23:59:59.999999\""),
            (Datum::Int(3 * day + 14_706_789_000), DataType::IntervalDay, "\"P3DT4H5M6.789S\""),
            (Datum::Int(0), DataType::IntervalDay, "\"PT0S\""),
            (Datum::Int(2 * day), DataType::IntervalDay, "\"P2D\""),
            (Datum::Int(-60_000_000), DataType::IntervalDay, "\"-PT1M\""),
            (Datum::Int(14), DataType::IntervalMonth, "\"P1Y2M\""),
            (Datum::Int(24), DataType::IntervalMonth, "\"P2Y\""),
            (Datum::Int(0), DataType::IntervalMonth, "\"P0M\""),
            (bitmap::from_members([7, 1, 1 << 40]), DataType::Bitmap, "[1,7,1099511627776]"),
            (Datum::Array(vec![Datum::Int(1), Datum::Null]), DataType::Array(Box::new(DataType::Int)), "[1,null]"),
            (Datum::Struct(vec![Datum::Int(1), Datum::str("x")]), structure, "{\"a\\\"\":1,\"b\":\"x\"}"),
        ];
        for (datum, data_type, expected) in cases {
            assert_eq!(json(datum, &data_type), expected);
        }
    }

    fn people() -> ResultSet {
        let columns = vec![Column::new("id", DataType::BigInt), Column::new("name", DataType::String)];
        let rows = [(1, Some("Ann")), (20, None), (3, Some("")), (4, Some("a,\"b\"\nc"))];
        let row =
            |(id, name): (i64, Option<&'static str>)| Row::pack([Datum::Int(id), name.map_or(Datum::Null, Datum::str)]);
        ResultSet { schema: Schema::new(columns), rows: rows.into_iter().map(row).collect() }
    }
    fn printed(format: OutputFormat, results: &[ResultSet]) -> Result<String> {
        let mut out = Vec::new();
        let mut writer = ResultWriter::new(format, &mut out);
        results.iter().try_for_each(|result| writer.write(result))?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn result_sets() {
        let empty = ResultSet { schema: people().schema, rows: vec![] };
        let both = [people(), empty];
        let json = "[{\"id\":1,\"name\":\"Ann\"},{\"id\":20,\"name\":null},{\"id\":3,\"name\":\"\"},{\"id\":4,\"name\":\"a,\\\"b\\\"\\nc\"}]\n[]\n";
        assert_eq!(printed(OutputFormat::Json, &both).expect("json"), json);
        let csv = "id,name\n1,Ann\n20,\n3,\"\"\n4,\"a,\"\"b\"\"\nc\"\n\nid,name\n";
        assert_eq!(printed(OutputFormat::Csv, &both).expect("csv"), csv);
        let table = "id | name\n---+---------\n 1 | Ann\n20 | NULL\n 3 |\n 4 | a,\"b\"\\nc\n\nid | name\n---+-----\n";
        assert_eq!(printed(OutputFormat::Table, &both).expect("a table"), table);
    }

    #[test]
    fn two_columns_of_one_name_are_no_json() {
        let column = Column::new("a", DataType::Int);
        let result = ResultSet { schema: Schema::new(vec![column.clone(), column]), rows: vec![] };
        let error = printed(OutputFormat::Json, std::slice::from_ref(&result)).expect_err("a duplicate");
        assert_eq!(error.to_string(), "column \"a\" appears twice in a result that is printed as json");
        assert_eq!(printed(OutputFormat::Csv, &[result]).expect("csv"), "a,a\n");
    }

    proptest! {
        #[test]
        fn strings_are_json(text in ".*|[\\x00-\\x7f]*") {
            prop_assert_eq!(serde_json::from_str::<String>(&json(Datum::str(text.clone()), &DataType::String)).expect("json"), text);
        }

        #[test]
        fn what_is_written_reads_back(value: i64, wide: i128, float: f64, kind in 0usize..8, scale in 0i8..38) {
            let types = [DataType::BigInt, DataType::Double, DataType::Decimal { precision: 38, scale }, DataType::Date,
                DataType::Timestamp, DataType::TimestampLtz, DataType::IntervalDay, DataType::IntervalMonth];
            let data_type = &types[kind];
            // Years 0 to 9999 and what fits the type.
            let datum = match data_type {
                DataType::Double => Datum::Float(float),
                DataType::Decimal { .. } => Datum::Decimal(wide % 10i128.pow(38)),
                DataType::Date => Datum::Int((value % 2_900_000).max(-700_000)),
                DataType::Timestamp | DataType::TimestampLtz => Datum::Int((value % 250_000_000_000_000_000).max(-60_000_000_000_000_000)),
                DataType::IntervalMonth => Datum::Int(value % 2_000_000_000),
                _ => Datum::Int(value),
            };
            let mut text = Vec::new();
            write_plain(&datum, data_type, &mut text);
            let text = String::from_utf8(text).expect("text");
            // The smallest interval has no positive counterpart to read.
            prop_assume!(!(matches!(data_type, DataType::IntervalDay) && value == i64::MIN));
            prop_assert_eq!(parse::scalar(&text, data_type).map_err(|p| p.reason(data_type, &text)), Ok(datum));
        }

        #[test]
        fn csv_reads_back(fields in proptest::collection::vec(proptest::option::of("[a,\"\\n\\r é]{0,6}"), 2..5)) {
            let types: Vec<DataType> = fields.iter().map(|_| DataType::String).collect();
            let row = Row::pack(fields.iter().map(|f| f.as_ref().map_or(Datum::Null, |f| Datum::str(f.as_str()))));
            let mut line = Vec::new();
            write_csv_row(&types, &row, &mut line);
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&line[..]);
            let record = reader.records().next().expect("a record").expect("csv");
            let expected: Vec<&str> = fields.iter().map(|f| f.as_deref().unwrap_or("")).collect();
            prop_assert_eq!(record.iter().collect::<Vec<_>>(), expected);
        }
    }
}
