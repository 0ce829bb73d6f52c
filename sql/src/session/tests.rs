//! The batch engine and the evaluator, held against each other and against answers worked out by hand.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, LogicalPlan};
use deltaworks_dataflow::batch::{from_record_batch, to_record_batch};
use deltaworks_dataflow::{Column, DataType, Datum, Row, Schema};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlparser::ast;

use super::{ClockReading, Session};
use crate::error::SqlError;
use crate::expr::{EvalErrors, Evaluator, ScalarExpr, cast, lower_expr};
use crate::parser::{Name, Statement, parse_script, rewrite};

fn query(text: &str) -> Box<ast::Query> {
    let mut statements = parse_script(text).unwrap();
    let Statement::Query(body) = statements.pop().unwrap().node else { panic!("no query: {text}") };
    let mut query = body.query;
    rewrite(&mut query).unwrap();
    query
}
fn columns() -> Schema {
    let names = [
        ("c", DataType::TinyInt),
        ("a", DataType::Int),
        ("b", DataType::BigInt),
        ("d", DataType::Decimal { precision: 10, scale: 2 }),
        ("e", DataType::Decimal { precision: 38, scale: 6 }),
        ("f", DataType::Double),
        ("g", DataType::Float),
        ("s", DataType::String),
        ("u", DataType::String),
        ("ts", DataType::Timestamp),
        ("tz", DataType::TimestampLtz),
        ("dt", DataType::Date),
        ("p", DataType::Boolean),
        ("iv", DataType::IntervalDay),
        ("bm", DataType::Bitmap),
    ];
    Schema::new(names.into_iter().map(|(name, data_type)| Column::new(name, data_type)).collect())
}
/// A session with the rows as table `t`.
fn session_of(schema: &Schema, rows: &[Row], timezone: chrono_tz::Tz) -> Session {
    let session = Session::new(timezone).unwrap();
    let batch = to_record_batch(schema, rows.iter().map(Row::as_bytes)).unwrap();
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    session.register_table(&Name::new(["t"]), Arc::new(table)).unwrap();
    session
}
/// 2026-06-06 10:00:00.
const NOW: ClockReading = ClockReading { now: 1_780_740_000_000_000 };

/// What the batch engine answers: the types, and the rows.
fn batch(session: &Session, text: &str) -> Result<(Schema, Vec<Row>), SqlError> {
    let plan = session.logical_plan(&query(text))?;
    let schema = Schema::from_arrow(plan.schema().as_arrow()).unwrap();
    let mut rows = Vec::new();
    for batch in session.execute(plan, NOW)?.batches {
        rows.extend(from_record_batch(&schema, &batch).unwrap());
    }
    Ok((schema, rows))
}
/// The columns of a query without joins and aggregates, over the columns of `t`.
fn lowered(session: &Session, schema: &Schema, text: &str) -> Result<Vec<ScalarExpr>, SqlError> {
    let plan = session.optimize_for_stream(session.logical_plan(&query(text))?)?;
    lowered_plan(schema, &plan)
}
fn lowered_plan(schema: &Schema, plan: &LogicalPlan) -> Result<Vec<ScalarExpr>, SqlError> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let input = lowered_plan(schema, &projection.input)?;
            projection.expr.iter().map(|e| Ok(lower_expr(e, projection.input.schema())?.substitute(&input))).collect()
        }
        LogicalPlan::TableScan(scan) => {
            let column = |field: &Arc<datafusion::arrow::datatypes::Field>| {
                let index = schema.index_of(field.name()).unwrap();
                ScalarExpr::column(index, schema.columns[index].data_type.clone())
            };
            Ok(scan.projected_schema.fields().iter().map(column).collect())
        }
        other => panic!("unexpected {other}"),
    }
}
/// What the evaluator answers.
fn stream(session: &Session, schema: &Schema, rows: &[Row], text: &str) -> Vec<Row> {
    let now = ScalarExpr::literal(Datum::Int(NOW.now), DataType::Timestamp);
    let today = ScalarExpr::literal(Datum::Int(session.today(NOW).unwrap().into()), DataType::Date);
    let expressions = lowered(session, schema, text).unwrap().into_iter().map(|expr| {
        expr.transform(&|expr| match expr {
            ScalarExpr::Clock(crate::plan::ClockVariable::Now) => now.clone(),
            ScalarExpr::Clock(crate::plan::ClockVariable::CurrentDate) => today.clone(),
            other => other,
        })
    });
    let mut evaluator = Evaluator::new(expressions.collect(), EvalErrors::new());
    let answer = |row: &Row| {
        let mut out = Vec::new();
        evaluator.eval_row(row, &mut out);
        Row::from_bytes(&out)
    };
    rows.iter().map(answer).collect()
}
fn shown(schema: &Schema, row: &Row) -> Vec<String> {
    let mut bytes = row.as_bytes();
    schema.columns.iter().map(|c| cast::text(&Datum::decode(&mut bytes, &c.data_type), &c.data_type)).collect()
}
/// A constant query's only row, from both engines.
#[track_caller]
fn check(expressions: &str, expected: &[&str]) {
    check_in(chrono_tz::UTC, expressions, expected);
}
#[track_caller]
fn check_in(timezone: chrono_tz::Tz, expressions: &str, expected: &[&str]) {
    let schema = columns();
    let row = Row::pack(schema.columns.iter().map(|_| Datum::Null));
    let session = session_of(&schema, std::slice::from_ref(&row), timezone);
    let text = format!("SELECT {expressions} FROM t");
    let (types, rows) = batch(&session, &text).unwrap();
    assert_eq!(shown(&types, &rows[0]), expected, "batch: {expressions}");
    let streamed = stream(&session, &schema, &[row], &text);
    assert_eq!(shown(&types, &streamed[0]), expected, "stream: {expressions}");
}
#[track_caller]
fn check_type(expression: &str, expected: &str) {
    let session = session_of(&columns(), &[], chrono_tz::UTC);
    let plan = session.logical_plan(&query(&format!("SELECT {expression} AS x FROM t"))).unwrap();
    let schema = Schema::from_arrow(plan.schema().as_arrow()).unwrap();
    assert_eq!(schema.columns[0].data_type.to_string(), expected, "{expression}");
}
#[track_caller]
fn check_error(text: &str, place: Option<(usize, usize)>, message: &str, help: &str) {
    let session = session_of(&columns(), &[], chrono_tz::UTC);
    let error = session.logical_plan(&query(text)).unwrap_err();
    assert_eq!((error.position, error.message.as_str(), error.help.as_str()), (place, message, help));
}

#[test]
fn numbers() {
    check("1.0 / 3, 2.0 / 3, 1 / 2, -7 / 2, -7 % 3, 5 * 1.0", &["0.33333", "0.66667", "0", "-3", "-1", "5.0"]);
    check("1 / 0, 1.5 / 0, 1 % 0, CAST(1 AS DOUBLE) / 0 AS x", &["NULL", "NULL", "NULL", "NULL"]);
    check("9223372036854775807 + 1, CAST(127 AS TINYINT) + CAST(1 AS TINYINT)", &["NULL", "NULL"]);
    check("ROUND(2.5), ROUND(-2.5), ROUND(1.005, 2), ROUND(CAST(2.5 AS DOUBLE)) AS x", &["3", "-3", "1.01", "3.0"]);
    check("CAST('x' AS INT), CAST('' AS BIGINT), CAST(300 AS TINYINT), CAST('7' AS INT)", &["NULL", "NULL", "NULL", "7"]);
    check("CAST(0.0 AS DOUBLE) * -1, CAST('-0.0' AS DOUBLE), ABS(-3)", &["0.0", "0.0", "3"]);
    check("CAST('NaN' AS DOUBLE) = CAST('NaN' AS DOUBLE), CAST('NaN' AS DOUBLE) > 1e300", &["true", "true"]);
}
#[test]
fn text() {
    check("CONCAT('a', NULL, 'b'), 'a' || NULL, CONCAT('a', 1), 'a' || 'b'", &["NULL", "NULL", "a1", "ab"]);
    check("SUBSTR('abcdef', -2), SUBSTRING('abcdef', 2, 3), SUBSTRING('abcdef' FROM 3 FOR 2)", &["ef", "bcd", "cd"]);
    check(
        "LPAD('7', 3, '0'), 'abc' LIKE 'a%', UPPER('ä'), NULLIF('a', 'a'), LENGTH('äb')",
        &["007", "true", "Ä", "NULL", "2"],
    );
    check("IF(1 > 2, 'a', 'b'), IF(TRUE, 1, 2.5), COALESCE(NULL, 3)", &["b", "1.0", "3"]);
}
#[test]
fn times() {
    check(
        "DATEDIFF(DATE '2026-06-06', '2026-05-31'), DATEDIFF(CURRENT_DATE(), TIMESTAMP '2026-06-01 23:00:00')",
        &["6", "5"],
    );
    check(
        "TIMESTAMP '2026-01-02 00:00:00' - TIMESTAMP '2026-01-01 00:00:00' > INTERVAL '23' HOUR, DATE '2024-01-31' + INTERVAL '1' MONTH",
        &["true", "2024-02-29"],
    );
    check("TO_TIMESTAMP_LTZ(1714550400000, 3), FROM_UNIXTIME(0)", &["2024-05-01 08:00:00Z", "1970-01-01 00:00:00"]);
    check(
        "DATE_TRUNC('month', TIMESTAMP '2026-05-20 13:14:15'), EXTRACT(YEAR FROM DATE '2026-05-20'), DATE_FORMAT(TIMESTAMP '2026-05-20 13:14:15', 'yyyy/M/d H:mm')",
        &["2026-05-01 00:00:00", "2026", "2026/5/20 13:14"],
    );
    check(
        "TO_DATE('nonsense'), UNIX_TIMESTAMP(TIMESTAMP '1970-01-01 00:01:00'), NOW()",
        &["NULL", "60", "2026-06-06 10:00:00"],
    );
    check("TIMESTAMP '2026-01-31 00:00:00' - INTERVAL '1 month 1 day'", &["2025-12-30 00:00:00"]);
    check("NOW() - INTERVAL '7' DAY < NOW(), UNIX_TIMESTAMP()", &["true", "1780740000"]);
}
#[test]
fn the_session_zone() {
    let berlin = chrono_tz::Europe::Berlin;
    check_in(berlin, "NOW(), CAST(TO_TIMESTAMP_LTZ(0, 3) AS STRING)", &["2026-06-06 12:00:00", "1970-01-01 01:00:00"]);
    check_in(berlin, "CAST(TIMESTAMP '2026-07-01 12:00:00' AS TIMESTAMP_LTZ)", &["2026-07-01 10:00:00Z"]);
    check_in(berlin, "TO_TIMESTAMP_LTZ(0, 3) = TIMESTAMP '1970-01-01 01:00:00'", &["true"]);
    check_in(
        berlin,
        "CAST('2026-07-01 12:00:00' AS TIMESTAMP_LTZ), CAST('2026-07-01T12:00:00Z' AS TIMESTAMP_LTZ) AS z, CAST(TO_TIMESTAMP_LTZ(82800, 0) AS DATE)",
        &["2026-07-01 10:00:00Z", "2026-07-01 12:00:00Z", "1970-01-02"],
    );
    check_in(
        berlin,
        "DATE_TRUNC('day', TO_TIMESTAMP_LTZ(0, 3)), EXTRACT(HOUR FROM TO_TIMESTAMP_LTZ(0, 3)), FROM_UNIXTIME(0), FROM_UNIXTIME(0, 'HH')",
        &["1969-12-31 23:00:00Z", "1", "1970-01-01 01:00:00", "01"],
    );
    check_in(
        berlin,
        "UNIX_TIMESTAMP(), UNIX_TIMESTAMP('1970-01-01 01:00:00'), UNIX_TIMESTAMP(TO_TIMESTAMP_LTZ(5, 0))",
        &["1780740000", "0", "5"],
    );
    check_in(
        berlin,
        "DATEDIFF(TO_TIMESTAMP_LTZ(82800, 0), DATE '1970-01-01'), NOW() = TO_TIMESTAMP_LTZ(1780740000, 0)",
        &["1", "true"],
    );
}
#[test]
fn bitmaps() {
    check(
        "BITMAP_TO_STRING(BITMAP_OR(TO_BITMAP(5), TO_BITMAP(3))), BITMAP_COUNT(BITMAP_BUILD(ARRAY[1, 2, 2])), TO_BITMAP(-1)",
        &["3,5", "2", "NULL"],
    );
    check(
        "BITMAP_CONTAINS(TO_BITMAP(5), 5), BITMAP_HAS_ALL(BITMAP_BUILD(ARRAY[1, 2]), TO_BITMAP(2)), BITMAP_MAX(BITMAP_BUILD(ARRAY[1, 9]))",
        &["true", "true", "9"],
    );
}
#[test]
fn structs_and_arrays() {
    check("STRUCT(1 AS x, 'b' AS y)['y'], NAMED_STRUCT('x', 7)['x'], ARRAY[4, 5][2]", &["b", "7", "5"]);
}
#[test]
fn types_of_aggregates() {
    check_type("SUM(a)", "BIGINT");
    check_type("SUM(c)", "BIGINT");
    check_type("SUM(b)", "DECIMAL(38, 0)");
    check_type("SUM(d)", "DECIMAL(38, 2)");
    check_type("SUM(f)", "DOUBLE");
    check_type("AVG(a)", "DOUBLE");
    check_type("AVG(d)", "DECIMAL(14, 6)");
    check_type("ts - ts", "INTERVAL DAY TO SECOND");
    check_type("dt - dt", "BIGINT");
    check_type("GROUP_BITMAP_STATE(a)", "BITMAP");
    check_type("a / 2", "BIGINT");
}
#[test]
fn aggregates() {
    let schema = Schema::new(vec![Column::new("f", DataType::Double), Column::new("b", DataType::BigInt)]);
    let values = [0.1, 0.2, 1e300, -1e300, 0.3, 0.1];
    let row = |(index, value): (usize, &f64)| Row::pack([Datum::Float(*value), Datum::Int(i64::MAX - index as i64)]);
    let rows: Vec<Row> = values.iter().enumerate().map(row).collect();
    let session = session_of(&schema, &rows, chrono_tz::UTC);
    let text = "SELECT SUM(f), AVG(f), SUM(DISTINCT f), SUM(b), AVG(b), ARG_MIN(b, f), ARG_MAX(f, b), MIN(f), \
                GROUP_BITMAP(b), BITMAP_COUNT(GROUP_BITMAP_STATE(b)), COUNT(DISTINCT f) FROM t";
    let (types, rows) = batch(&session, text).unwrap();
    let sum = (i128::from(i64::MAX) * 6 - 15).to_string();
    // 0.1 + 0.2 + 0.3 + 0.1 as the nearest doubles, added exactly and rounded once.
    let expected = [
        "0.7",
        "0.11666666666666665",
        "0.6",
        &sum,
        "9.223372036854776e18",
        "9223372036854775804",
        "0.1",
        "-1e300",
        "6",
        "6",
        "5",
    ];
    assert_eq!(shown(&types, &rows[0]), expected);
    let (types, rows) = batch(&session, "SELECT SUM(f), GROUP_BITMAP(b), COUNT(*) FROM t WHERE f > 1e301").unwrap();
    assert_eq!(shown(&types, &rows[0]), ["NULL", "0", "0"]);
}
#[test]
fn text_is_not_compared_with_numbers() {
    let help = "cast explicitly: CAST(s AS INT)";
    check_error("SELECT 1 FROM t WHERE s = a", Some((1, 23)), "STRING (s) cannot be compared with INT (a)", help);
    check_error("SELECT 1 FROM t\nWHERE a IN (s)", Some((2, 7)), "INT (a) cannot be compared with STRING (s)", help);
    let session = session_of(&columns(), &[], chrono_tz::UTC);
    for text in [
        "SELECT 1 FROM t WHERE a = '5'",
        "SELECT 1 FROM t WHERE s BETWEEN 1 AND 2",
        "SELECT CASE s WHEN 1 THEN 2 END FROM t",
        "SELECT 1 FROM t JOIN (SELECT b AS s FROM t) x USING (s)",
        "SELECT 1 FROM t WHERE s IN (SELECT a FROM t)",
    ] {
        assert!(session.logical_plan(&query(text)).is_err(), "{text}");
    }
    for text in [
        "SELECT 1 FROM t WHERE ts > '2026-01-01'",
        "SELECT 1 FROM t WHERE CAST(s AS INT) = a",
        "SELECT 1 FROM t WHERE s = NULL",
    ] {
        session.logical_plan(&query(text)).unwrap();
    }
}
#[test]
fn nulls_sort_last_ascending_and_first_descending() {
    let schema = Schema::new(vec![Column::new("a", DataType::Int)]);
    let rows = [Row::pack([Datum::Null]), Row::pack([Datum::Int(1)]), Row::pack([Datum::Int(2)])];
    let session = session_of(&schema, &rows, chrono_tz::UTC);
    let ascending = batch(&session, "SELECT a FROM t ORDER BY a").unwrap().1;
    assert_eq!(ascending, [rows[1].clone(), rows[2].clone(), rows[0].clone()]);
    let descending = batch(&session, "SELECT a FROM t ORDER BY a DESC").unwrap().1;
    assert_eq!(descending, [rows[0].clone(), rows[2].clone(), rows[1].clone()]);
}
#[test]
fn the_clock_is_not_folded() {
    let session = session_of(&columns(), &[], chrono_tz::UTC);
    for call in [
        "NOW()",
        "CURRENT_TIMESTAMP",
        "CURRENT_TIMESTAMP()",
        "PROCTIME()",
        "CURRENT_DATE",
        "CURRENT_DATE()",
        "LOCALTIMESTAMP",
    ] {
        let lowered = lowered(&session, &columns(), &format!("SELECT a, {call} AS x FROM t")).unwrap();
        assert!(matches!(lowered[1], ScalarExpr::Clock(_)), "{call}: {}", lowered[1]);
    }
    let lowered = lowered(&session, &columns(), "SELECT a, WRITE_TIMESTAMP() AS x FROM t").unwrap();
    assert_eq!(lowered[1].to_string(), "WRITE_TIMESTAMP()");
}
#[test]
fn created_functions_are_inlined() {
    let session = session_of(&columns(), &[], chrono_tz::UTC);
    let text = "CREATE FUNCTION cdp.short(x STRING, n INT) RETURNS STRING AS CASE WHEN n > 1 THEN SUBSTR(x, -n) ELSE IF(n = 1, 'one', x) END";
    let Statement::CreateFunction(function) = parse_script(text).unwrap().pop().unwrap().node else { panic!() };
    session.create_function(&function).unwrap();
    let lowered = lowered(&session, &columns(), "SELECT a, cdp.short(s, a) AS x FROM t").unwrap();
    assert!(lowered[1].to_string().contains("SUBSTR(#7, "), "{}", lowered[1]);
}
#[test]
fn failures_are_counted_net_of_retractions() {
    let schema = columns();
    let session = session_of(&schema, &[], chrono_tz::UTC);
    let lowered = lowered(&session, &schema, "SELECT CAST(s AS INT) AS i, a / c AS q FROM t").unwrap();
    let errors = EvalErrors::new();
    let mut evaluator = Evaluator::named(lowered, &schema, Rc::clone(&errors));
    let row = |s: &'static str, c| {
        Row::pack(schema.columns.iter().map(move |column| match column.name.as_str() {
            "s" => Datum::str(s),
            "a" => Datum::Int(7),
            "c" => Datum::Int(c),
            _ => Datum::Null,
        }))
    };
    for (s, c, diff) in [("x", 1, 1), ("y", 0, 2), ("5", 0, 1), ("5", 0, -1), ("x", 1, -1)] {
        evaluator.set_diff(diff);
        evaluator.eval_row(&row(s, c), &mut Vec::new());
    }
    let report: Vec<_> = errors.report().into_iter().map(|e| (e.expression, e.count, e.samples.join("; "))).collect();
    assert_eq!(
        report,
        [("CAST(s AS INT)".to_string(), 2, "x; y".to_string()), ("a / CAST(c AS INT)".into(), 2, "7, 0".into())]
    );
}

#[test]
fn rows_in_parts() {
    let column = |index| ScalarExpr::column(index, DataType::BigInt);
    let row = |from: i64| Row::pack((from..from + 2).map(Datum::Int));
    let (left, right, rest) = (row(10), row(1000), row(100_000));
    let whole = Row::from_bytes(&[left.as_bytes(), &right, &rest].concat());
    for pick in [vec![0, 1, 2, 3, 4, 5], vec![1, 2], vec![5, 0], vec![1, 2, 3, 4], vec![3]] {
        let mut evaluator = Evaluator::new(pick.into_iter().map(column).collect(), EvalErrors::new());
        let (mut parts, mut one) = (Vec::new(), Vec::new());
        evaluator.eval_parts(&[&left, &right, &rest], &mut parts);
        evaluator.eval_row(&whole, &mut one);
        assert_eq!(parts, one);
    }
}
#[test]
fn an_expression_over_a_table() {
    let session = session_of(&columns(), &[], chrono_tz::UTC);
    let text = "SELECT TO_TIMESTAMP_LTZ(b, 3)";
    let ast::SetExpr::Select(select) = *query(text).body else { panic!() };
    let ast::SelectItem::UnnamedExpr(expr) = &select.projection[0] else { panic!() };
    let lowered = session.expression(expr, &columns()).unwrap();
    assert_eq!(lowered.to_string(), "TO_TIMESTAMP_LTZ(#2, 3)");
}

// Random expressions over random rows: the batch engine and the evaluator give the same bytes.

fn numeric_text() -> BoxedStrategy<String> {
    prop_oneof![
        (-300i64..300).prop_map(|v| v.to_string()),
        any::<i64>().prop_map(|v| v.to_string()),
        (-99999i64..99999).prop_map(|v| format!("{}.{:02}", v / 100, v.abs() % 100)),
        "[0-9x +.e-]{0,4}",
        Just("2026-05-01".to_string()),
        Just("2026-05-01 10:11:12.5".to_string()),
        Just("true".to_string()),
    ]
    .boxed()
}
fn datum(data_type: &DataType) -> BoxedStrategy<Datum<'static>> {
    let day = 20_000i64..21_000;
    let micros = prop_oneof![1_700_000_000_000_000i64..1_800_000_000_000_000, -5_000_000_000i64..5_000_000_000];
    let value = match data_type {
        DataType::TinyInt => prop_oneof![-3i64..4, -128i64..128].prop_map(Datum::Int).boxed(),
        DataType::Int => prop_oneof![-5i64..6, any::<i32>().prop_map(i64::from)].prop_map(Datum::Int).boxed(),
        DataType::BigInt => prop_oneof![-5i64..6, any::<i64>(), Just(i64::MIN), Just(i64::MAX)].prop_map(Datum::Int).boxed(),
        DataType::Decimal { precision: 10, .. } => (-9_999_999_999i128..10_000_000_000).prop_map(Datum::Decimal).boxed(),
        DataType::Decimal { .. } => {
            prop_oneof![-5_000_000i128..5_000_000, -(10i128.pow(38) - 1)..10i128.pow(38)].prop_map(Datum::Decimal).boxed()
        }
        DataType::Double => prop_oneof![
            (-50i32..50).prop_map(|v| f64::from(v) / 4.0),
            any::<f64>(),
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(0.0)
        ]
        .prop_map(Datum::Float)
        .boxed(),
        DataType::Float => {
            prop_oneof![(-50i32..50).prop_map(|v| v as f32 / 4.0), any::<f32>()].prop_map(|v| Datum::Float(v.into())).boxed()
        }
        DataType::String => prop_oneof![numeric_text(), "[aAbé%_ ]{0,5}"].prop_map(Datum::str).boxed(),
        DataType::Date => day.prop_map(Datum::Int).boxed(),
        DataType::Timestamp | DataType::TimestampLtz => micros.prop_map(Datum::Int).boxed(),
        DataType::IntervalDay => (-10_000_000_000i64..10_000_000_000).prop_map(Datum::Int).boxed(),
        DataType::Boolean => any::<bool>().prop_map(Datum::Bool).boxed(),
        _ => proptest::collection::vec(0u64..9, 0..4)
            .prop_map(|ids| {
                let set = ids.into_iter().collect();
                Datum::Bitmap(crate::functions::bitmap::encode_bitmap(&set).into())
            })
            .boxed(),
    };
    // FLOAT and DOUBLE data are canonical in rows: one zero and one NaN.
    prop_oneof![5 => value, 1 => Just(Datum::Null)].boxed()
}
fn row() -> BoxedStrategy<Row> {
    let fields: Vec<_> = columns().columns.iter().map(|column| datum(&column.data_type)).collect();
    fields.prop_map(Row::pack).boxed()
}

fn one_of(choices: &'static [&'static str]) -> BoxedStrategy<String> {
    proptest::sample::select(choices).prop_map(str::to_string).boxed()
}
/// Puts expressions into a template: `%n` a number, `%i` an integer, `%s` a text, `%b` a truth value, `%t` a time, `%v` an interval.
fn fill(templates: &'static [&'static str], depth: u32) -> BoxedStrategy<String> {
    let template = proptest::sample::select(templates);
    template
        .prop_flat_map(move |template| {
            let mut parts: Vec<BoxedStrategy<String>> = Vec::new();
            let mut rest = template;
            while let Some(at) = rest.find('%') {
                parts.push(Just(rest[..at].to_string()).boxed());
                parts.push(expression(rest.as_bytes()[at + 1], depth - 1));
                rest = &rest[at + 2..];
            }
            parts.push(Just(rest.to_string()).boxed());
            parts.prop_map(|parts| parts.concat())
        })
        .boxed()
}
const NUMBERS: &[&str] = &[
    "(%n + %n)",
    "(%n - %n)",
    "(%n * %n)",
    "(%n / %n)",
    "(%n % %n)",
    "(- %n)",
    "ROUND(%n)",
    "ROUND(%n, 1)",
    "%i",
    "CAST(%n AS DOUBLE)",
    "CAST(%n AS FLOAT)",
    "CAST(%n AS DECIMAL(12, 3))",
    "CAST(%s AS DECIMAL(10, 2))",
    "CAST(%s AS DOUBLE)",
    "CASE WHEN %b THEN %n ELSE %n END",
    "COALESCE(%n, %n)",
    "NULLIF(%n, %n)",
    "ABS(%n)",
    "CAST(%s AS FLOAT)",
];
const INTEGERS: &[&str] = &[
    "(%i + %i)",
    "(%i - %i)",
    "(%i * %i)",
    "(%i / %i)",
    "(%i % %i)",
    "CAST(%n AS INT)",
    "CAST(%n AS BIGINT)",
    "CAST(%s AS BIGINT)",
    "CAST(%n AS TINYINT)",
    "CAST(%s AS SMALLINT)",
    "LENGTH(%s)",
    "DATEDIFF(%t, %t)",
    "EXTRACT(MONTH FROM %t)",
    "EXTRACT(DAY FROM %t)",
    "EXTRACT(HOUR FROM ts)",
    "EXTRACT(WEEK FROM %t)",
    "EXTRACT(QUARTER FROM %t)",
    "BITMAP_COUNT(bm)",
    "UNIX_TIMESTAMP(%t)",
    "IF(%b, %i, %i)",
    "CAST(%b AS INT)",
    "CAST(ts AS BIGINT)",
    "(dt - dt)",
    "BITMAP_MIN(bm)",
    "POSITION('a' IN %s)",
];
const TEXTS: &[&str] = &[
    "CONCAT(%s, %s)",
    "(%s || %s)",
    "UPPER(%s)",
    "LOWER(%s)",
    "TRIM(%s)",
    "SUBSTR(%s, 2)",
    "SUBSTR(%s, -2, 1)",
    "CAST(%i AS STRING)",
    "CAST(%n AS STRING)",
    "CAST(%t AS STRING)",
    "CAST(%b AS STRING)",
    "REPLACE(%s, 'a', 'b')",
    "LPAD(%s, 3, 'x')",
    "LTRIM(%s)",
    "RTRIM(%s)",
    "CASE %s WHEN %s THEN %s END",
    "COALESCE(%s, %s)",
    "BITMAP_TO_STRING(bm)",
    "REVERSE(%s)",
    "IF(%b, %s, %s)",
    "DATE_FORMAT(ts, 'yyyy-MM')",
    "REGEXP_REPLACE(%s, '[0-9]', 'd')",
];
const TRUTHS: &[&str] = &[
    "(%n = %n)",
    "(%n < %n)",
    "(%i >= %i)",
    "(%s <> %s)",
    "(%s < %s)",
    "(%t > %t)",
    "(%b AND %b)",
    "(%b OR %b)",
    "(NOT %b)",
    "(%n IS NULL)",
    "(%s IS NOT NULL)",
    "(%n IS DISTINCT FROM %n)",
    "(%s IS NOT DISTINCT FROM %s)",
    "(%b IS TRUE)",
    "(%b IS NOT FALSE)",
    "(%i BETWEEN %i AND %i)",
    "(%n NOT BETWEEN %n AND %n)",
    "(%i IN (1, 2, NULL))",
    "(%s IN ('a', 'b'))",
    "(%n IN (%n, %n))",
    "(%s LIKE '%_a%')",
    "(%s LIKE %s)",
    "(%s NOT ILIKE 'A%')",
    "CAST(%s AS BOOLEAN)",
    "(%b IS UNKNOWN)",
    "(ts = tz)",
    "(%v < %v)",
    "BITMAP_CONTAINS(bm, %i)",
    "(dt <= ts)",
    "(%s ~ '[0-9]')",
];
const TIMES: &[&str] = &[
    "CAST(dt AS TIMESTAMP)",
    "DATE_TRUNC('month', %t)",
    "DATE_TRUNC('week', ts)",
    "DATE_TRUNC('hour', ts)",
    "(ts + %v)",
    "(ts - %v)",
    "(ts + INTERVAL '1' MONTH)",
    "CAST(%s AS TIMESTAMP)",
    "CAST(ts AS DATE)",
    "CAST(tz AS TIMESTAMP)",
    "(dt + INTERVAL '3' DAY)",
    "(dt - INTERVAL '2' MONTH)",
    "CAST(%s AS DATE)",
    "TO_DATE(%s)",
    "COALESCE(ts, %t)",
    "(NOW() - INTERVAL '1' HOUR)",
    "CURRENT_DATE()",
];
const INTERVALS: &[&str] =
    &["(ts - ts)", "(ts - NOW())", "INTERVAL '5' HOUR", "(iv + iv)", "(- iv)", "INTERVAL '36' MINUTE"];

fn expression(kind: u8, depth: u32) -> BoxedStrategy<String> {
    let (leaves, templates): (&'static [&'static str], &'static [&'static str]) = match kind {
        b'n' => (&["a", "b", "c", "d", "e", "f", "g", "1.5", "-2", "0", "1e3", "0.01"], NUMBERS),
        b'i' => (&["a", "b", "c", "1", "-3", "9223372036854775807"], INTEGERS),
        b's' => (&["s", "u", "'a'", "''", "'12'", "'b_%'"], TEXTS),
        b'b' => (&["p", "TRUE", "NULL"], TRUTHS),
        b't' => (&["ts", "dt", "tz", "TIMESTAMP '2026-05-01 10:00:00'"], TIMES),
        b'v' => (&["iv", "INTERVAL '1' DAY"], INTERVALS),
        // A percent sign of the template's own.
        other => return Just(format!("%{}", char::from(other))).boxed(),
    };
    if depth == 0 {
        return one_of(leaves);
    }
    prop_oneof![1 => one_of(leaves), 3 => fill(templates, depth)].boxed()
}

#[test]
fn the_evaluator_agrees_with_the_batch_engine() {
    let kinds = proptest::sample::select(&b"nisbtv"[..]);
    let expressions = proptest::collection::vec(kinds.prop_flat_map(|kind| expression(kind, 3)), 6);
    let rows = proptest::collection::vec(row(), 1..30);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40);
    let mut runner = TestRunner::new(Config { cases, max_shrink_iters: 300, ..Config::default() });
    let zones = proptest::sample::select(&[chrono_tz::UTC, chrono_tz::America::New_York][..]);
    let (compared, refused) = (Cell::new(0), Cell::new(0));
    let outcome = runner.run(&(expressions, rows, zones), |(expressions, rows, zone)| {
        let count = agree(&expressions, &rows, zone)?;
        compared.set(compared.get() + count);
        refused.set(refused.get() + expressions.len() - count);
        Ok(())
    });
    if let Err(error) = outcome {
        // The reason says which expression and which row.
        let proptest::test_runner::TestError::Fail(reason, _) = error else { panic!("{error}") };
        panic!("{reason}");
    }
    assert!(compared.get() > 3 * refused.get(), "{} compared, {} refused", compared.get(), refused.get());
}
/// Returns how many of the expressions have a type and were compared.
fn agree(expressions: &[String], rows: &[Row], zone: chrono_tz::Tz) -> Result<usize, TestCaseError> {
    let schema = columns();
    let session = session_of(&schema, rows, zone);
    let mut compared = 0;
    for expression in expressions {
        // A second column keeps the projection where the expression is constant.
        let text = format!("SELECT {expression} AS x, a FROM t");
        // Some combinations have no type, e.g. text compared with a number: then there is nothing to compare.
        let Ok((types, answered)) = batch(&session, &text) else { continue };
        let streamed = stream(&session, &schema, rows, &text);
        for ((row, left), right) in rows.iter().zip(&answered).zip(&streamed) {
            prop_assert_eq!(
                shown(&types, left),
                shown(&types, right),
                "batch and stream of {} over {:?}",
                expression,
                shown(&schema, row)
            );
            prop_assert_eq!(left, right, "bytes of {}", expression);
        }
        prop_assert_eq!(answered.len(), streamed.len());
        compared += 1;
    }
    Ok(compared)
}
#[test]
fn most_random_expressions_have_a_type() {
    let session = session_of(&columns(), &[], chrono_tz::UTC);
    let mut runner = TestRunner::deterministic();
    let mut refused = BTreeSet::new();
    for templates in [NUMBERS, INTEGERS, TEXTS, TRUTHS, TIMES, INTERVALS] {
        for template in templates {
            let filled = fill(
                proptest::sample::select(templates).new_tree(&mut runner).map(|_| std::slice::from_ref(template)).unwrap(),
                1,
            );
            let text = proptest::strategy::ValueTree::current(&filled.new_tree(&mut runner).unwrap());
            if session.logical_plan(&query(&format!("SELECT {text} AS x, a FROM t"))).is_err() {
                refused.insert(*template);
            }
        }
    }
    assert!(refused.len() <= 2, "{refused:?}");
}
#[test]
fn analysis_is_idempotent() {
    let session = session_of(&columns(), &[], chrono_tz::UTC);
    let text = "SELECT SUM(CAST(s AS DOUBLE) / a), ROUND(AVG(f), 2) FROM t WHERE TO_DATE(u) > dt GROUP BY LEFT(s, 2)";
    let once = session.logical_plan(&query(text)).unwrap();
    let twice = session.analyse(once.clone()).unwrap();
    assert_eq!(once.to_string(), twice.to_string());
    let mut casts = 0;
    once.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                casts += usize::from(matches!(expr, Expr::Cast(_)));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .unwrap();
    assert_eq!(casts, 0);
}
