//! Functions beyond DataFusion's, and those of its own that mean something else here.
//!
//! | family | file |
//! |---|---|
//! | text | `text.rs` |
//! | numbers | `numeric.rs` |
//! | dates and times | `datetime.rs` |
//! | bitmaps | `bitmap.rs`, `aggregate/bitmap.rs` |
//! | the clock | `clock.rs` |
//! | SUM and AVG, exact | `aggregate/sum.rs` |
//! | ARG_MIN and ARG_MAX | `aggregate/arg.rs` |
//! | `CREATE FUNCTION`, `CREATE EXTERNAL FUNCTION` | `macros.rs`, `external.rs` |
//! | how these become functions of the batch engine | `native.rs`, `guarded.rs` |
//!
//! A function is implemented once, over single values; the batch engine calls the same code row by row, so that a SELECT and
//! a continuous query cannot disagree.

pub mod aggregate;
pub mod bitmap;
pub mod clock;
pub mod datetime;
pub mod external;
pub(crate) mod guarded;
pub(crate) mod macros;
pub(crate) mod native;
pub(crate) mod numeric;
pub(crate) mod text;

use datafusion::arrow::datatypes::{DataType as ArrowType, Field, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use deltaworks_dataflow::DataType;
use std::sync::Arc;

use crate::expr::Function;
use crate::parser::CAST_MARK;
use bitmap::BitmapFunction;
use native::{Native, Takes};

/// Functions whose value is not determined by their arguments; continuous queries refuse them.
const RANDOM: [&str; 4] = ["random", "rand", "uuid", "gen_random_uuid"];

/// Whether a function's value depends on its arguments (and the clock) alone. Approximate aggregates do not count: their value
/// depends on the order of their input.
pub fn is_deterministic(function: &str) -> bool {
    let function = function.to_ascii_lowercase();
    !RANDOM.contains(&function.as_str()) && !function.starts_with("approx_")
}

fn int(data_type: &ArrowType) -> bool {
    data_type.is_integer() || data_type.is_null()
}
fn texts(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    let nested = types.iter().any(|data_type| data_type.is_nested() || *data_type == ArrowType::LargeBinary);
    (!types.is_empty() && !nested).then(|| vec![ArrowType::Utf8; types.len()])
}
fn substr_takes(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    let numbers = types.get(1..)?;
    let right = (1..=2).contains(&numbers.len()) && numbers.iter().all(int) && !types[0].is_nested();
    right.then(|| [vec![ArrowType::Utf8], vec![ArrowType::Int64; numbers.len()]].concat())
}
fn micros() -> ArrowType {
    ArrowType::Timestamp(TimeUnit::Microsecond, None)
}
fn temporal(data_type: &ArrowType) -> bool {
    use ArrowType::{Date32, Date64, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Date32 | Date64 | Timestamp(..) | Null)
}
fn dates(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    (types.len() == 2 && types.iter().all(temporal)).then(|| vec![ArrowType::Date32; 2])
}
fn format_takes(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    (types.len() == 2 && temporal(&types[0])).then(|| vec![micros(), ArrowType::Utf8])
}
fn epoch_takes(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    ((1..=2).contains(&types.len()) && types.iter().all(int)).then(|| vec![ArrowType::Int64; types.len()])
}
fn from_unixtime_takes(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    match types {
        [seconds] if int(seconds) => Some(vec![ArrowType::Int64]),
        [seconds, _] if int(seconds) => Some(vec![ArrowType::Int64, ArrowType::Utf8]),
        _ => None,
    }
}
fn unix_timestamp_takes(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    match types {
        // The planner gives the call without arguments the clock.
        [] => Some(Vec::new()),
        [at] if temporal(at) => Some(vec![ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))]),
        [at, _] if temporal(at) => Some(vec![ArrowType::Utf8; 2]),
        _ => None,
    }
}
fn zoned_takes(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    Some(types.to_vec())
}

fn is_bitmap(data_type: &ArrowType) -> bool {
    matches!(data_type, ArrowType::LargeBinary | ArrowType::Binary | ArrowType::Null)
}
fn one_bitmap(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    (types.len() == 1 && is_bitmap(&types[0])).then(|| vec![ArrowType::LargeBinary])
}
fn two_bitmaps(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    (types.len() == 2 && types.iter().all(is_bitmap)).then(|| vec![ArrowType::LargeBinary; 2])
}
fn bitmap_and_id(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    (types.len() == 2 && is_bitmap(&types[0]) && int(&types[1])).then(|| vec![ArrowType::LargeBinary, ArrowType::Int64])
}
fn one_id(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    (types.len() == 1 && int(&types[0])).then(|| vec![ArrowType::Int64])
}
fn ids(types: &[ArrowType]) -> Option<Vec<ArrowType>> {
    let list = ArrowType::List(Arc::new(Field::new("item", ArrowType::Int64, true)));
    (types.len() == 1 && matches!(types[0], ArrowType::List(_) | ArrowType::LargeList(_) | ArrowType::Null))
        .then(|| vec![list])
}

/// All scalar functions of our own.
pub(crate) fn scalar_functions() -> Vec<ScalarUDF> {
    let mut all = vec![
        Native::udf("concat", &[], Function::Concat, texts, DataType::String),
        Native::udf("substr", &["substring"], Function::Substr, substr_takes, DataType::String),
        Native::udf("datediff", &[], Function::DateDiff, dates, DataType::Int),
        date_format(),
        to_timestamp_ltz(),
        Native::udf("from_unixtime", &[], Function::FromUnixtime, from_unixtime_takes, DataType::String),
        Native::udf("unix_timestamp", &[], Function::UnixTimestamp, unix_timestamp_takes, DataType::BigInt),
        ScalarUDF::new_from_impl(If { signature: Signature::any(3, Volatility::Immutable) }),
        ScalarUDF::new_from_impl(AsCast { signature: Signature::any(2, Volatility::Immutable) }),
    ];
    all.extend(bitmap_functions());
    all.extend(clock::all());
    all
}
fn bitmap_functions() -> Vec<ScalarUDF> {
    use BitmapFunction as B;
    let array = || DataType::Array(Box::new(DataType::BigInt));
    let rows: [(&'static str, &[&str], B, Takes, DataType); 18] = [
        ("to_bitmap", &[], B::ToBitmap, one_id, DataType::Bitmap),
        ("bitmap_build", &[], B::Build, ids, DataType::Bitmap),
        ("bitmap_and", &[], B::And, two_bitmaps, DataType::Bitmap),
        ("bitmap_or", &[], B::Or, two_bitmaps, DataType::Bitmap),
        ("bitmap_xor", &[], B::Xor, two_bitmaps, DataType::Bitmap),
        ("bitmap_andnot", &[], B::AndNot, two_bitmaps, DataType::Bitmap),
        ("bitmap_and_cardinality", &[], B::AndCardinality, two_bitmaps, DataType::BigInt),
        ("bitmap_or_cardinality", &[], B::OrCardinality, two_bitmaps, DataType::BigInt),
        ("bitmap_xor_cardinality", &[], B::XorCardinality, two_bitmaps, DataType::BigInt),
        ("bitmap_andnot_cardinality", &[], B::AndNotCardinality, two_bitmaps, DataType::BigInt),
        ("bitmap_count", &["bitmap_cardinality"], B::Count, one_bitmap, DataType::BigInt),
        ("bitmap_contains", &[], B::Contains, bitmap_and_id, DataType::Boolean),
        ("bitmap_has_any", &[], B::HasAny, two_bitmaps, DataType::Boolean),
        ("bitmap_has_all", &[], B::HasAll, two_bitmaps, DataType::Boolean),
        ("bitmap_min", &[], B::Min, one_bitmap, DataType::BigInt),
        ("bitmap_max", &[], B::Max, one_bitmap, DataType::BigInt),
        ("bitmap_to_array", &[], B::ToArray, one_bitmap, array()),
        ("bitmap_to_string", &[], B::ToString, one_bitmap, DataType::String),
    ];
    let udf = |(name, aliases, function, takes, gives)| Native::udf(name, aliases, Function::Bitmap(function), takes, gives);
    rows.into_iter().map(udf).collect()
}
/// The function that gives floats one zero and one NaN.
pub(crate) fn canonical_float(gives: &ArrowType) -> ScalarUDF {
    let gives = if *gives == ArrowType::Float32 { DataType::Float } else { DataType::Double };
    Native::udf("canonical", &[], Function::CanonicalFloat, zoned_takes, gives)
}
/// The wall-clock time of an instant in a zone.
pub(crate) fn to_local(zone: chrono_tz::Tz) -> ScalarUDF {
    Native::udf("local_time", &[], Function::ToLocal(zone), zoned_takes, DataType::Timestamp)
}
/// The instant of a wall-clock time in a zone.
pub(crate) fn to_instant(zone: chrono_tz::Tz) -> ScalarUDF {
    Native::udf("instant", &[], Function::ToInstant(zone), zoned_takes, DataType::TimestampLtz)
}

/// The instant that a text names: by its own offset, else in a zone.
pub(crate) fn parse_instant(zone: chrono_tz::Tz) -> ScalarUDF {
    Native::udf("parse_instant", &[], Function::ParseInstant(zone), zoned_takes, DataType::TimestampLtz)
}
/// The text of a timestamp or interval.
pub(crate) fn temporal_text() -> ScalarUDF {
    Native::udf("text", &[], Function::TemporalText, zoned_takes, DataType::String)
}
/// `DATE_FORMAT`.
pub(crate) fn date_format() -> ScalarUDF {
    Native::udf("date_format", &[], Function::DateFormat, format_takes, DataType::String)
}
/// `TO_TIMESTAMP_LTZ`.
pub(crate) fn to_timestamp_ltz() -> ScalarUDF {
    Native::udf("to_timestamp_ltz", &[], Function::ToTimestampLtz, epoch_takes, DataType::TimestampLtz)
}

/// A cast with a name of its own, see `parser::name_apart`: the planner puts the argument in its place.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct AsCast {
    signature: Signature,
}
impl ScalarUDFImpl for AsCast {
    fn name(&self) -> &str {
        CAST_MARK
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [value, Expr::Literal(scalar, _)] => {
                let name = scalar.try_as_str().flatten().unwrap_or_default();
                Ok(format!("CAST({} AS {name})", value.schema_name()))
            }
            _ => datafusion::common::plan_err!("there is no function \"{CAST_MARK}\""),
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[ArrowType]) -> Result<ArrowType> {
        Ok(types[0].clone())
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        datafusion::common::internal_err!("function \"{CAST_MARK}\" was not replaced by its argument")
    }
}

/// `IF(condition, then, otherwise)`: the planner makes a CASE of it, so that only one value is computed.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct If {
    signature: Signature,
}
impl ScalarUDFImpl for If {
    fn name(&self) -> &str {
        "if"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[ArrowType]) -> Result<ArrowType> {
        let coerced = datafusion::logical_expr::type_coercion::other::get_coerce_type_for_case_expression(&types[1..], None);
        Ok(coerced.unwrap_or_else(|| types[1].clone()))
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        datafusion::common::internal_err!("function \"if\" was not replaced by a CASE")
    }
}
