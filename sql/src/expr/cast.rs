//! Casts, as the batch engine makes them, one value at a time.
//!
//! The frequent pairs of types are computed here, the others by Arrow's kernel on arrays of one row. What a value has no
//! counterpart for in the other type is a fault.

use std::borrow::Cow;

use datafusion::arrow::array::Array;
use datafusion::arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    Date32Type, Decimal128Type, DecimalType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use deltaworks_dataflow::batch::{datum_at, to_array};
use deltaworks_dataflow::temporal::write_temporal;
use deltaworks_dataflow::{DataType, Datum};

use super::arithmetic::{DAY, Fault, canonical, in_precision, in_range, rescale};

/// The value in another type.
pub(crate) fn cast<'a>(value: Datum<'a>, from: &DataType, to: &DataType) -> Result<Datum<'a>, Fault> {
    if from == to || value.is_null() {
        return Ok(value);
    }
    match (&value, from, to) {
        (Datum::Int(i), _, _) => {
            if let Some(done) = from_int(*i, from, to) {
                return done;
            }
        }
        (Datum::Decimal(d), DataType::Decimal { precision, scale }, _) => {
            if let Some(done) = from_decimal(*d, *precision, *scale, to) {
                return done;
            }
        }
        (Datum::Float(v), DataType::Float, DataType::Double) => return Ok(Datum::Float(*v)),
        (Datum::Float(v), DataType::Double, DataType::Float) => return Ok(Datum::Float(f64::from(*v as f32))),
        (Datum::Str(text), _, _) => {
            if let Some(done) = from_text(text, to) {
                return done;
            }
        }
        _ => {}
    }
    by_kernel(&value, from, to)
}

/// Types that are a count of the same unit hold each other's values unchanged.
fn same_unit(from: &DataType, to: &DataType) -> bool {
    use DataType::{BigInt, Timestamp, TimestampLtz};
    matches!(
        (from, to),
        (Timestamp, TimestampLtz | BigInt) | (TimestampLtz, Timestamp | BigInt) | (BigInt, Timestamp | TimestampLtz)
    )
}
/// Whether the type is one of the integers.
pub(crate) fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt)
}
fn from_int<'a>(value: i64, from: &DataType, to: &DataType) -> Option<Result<Datum<'a>, Fault>> {
    Some(match to {
        DataType::String => {
            let mut text = Vec::new();
            if !write_temporal(value, from, &mut text) {
                return Some(Ok(Datum::Str(Cow::Owned(value.to_string()))));
            }
            String::from_utf8(text).map(|text| Datum::Str(Cow::Owned(text))).map_err(|_| Fault)
        }
        _ if same_unit(from, to) => Ok(Datum::Int(value)),
        DataType::Timestamp | DataType::TimestampLtz if *from == DataType::Date => {
            value.checked_mul(DAY).map(Datum::Int).ok_or(Fault)
        }
        DataType::Date if matches!(from, DataType::Timestamp | DataType::TimestampLtz) => {
            in_range(value.div_euclid(DAY), to).map(Datum::Int)
        }
        _ if !is_integer(from) => return None,
        to if is_integer(to) => in_range(value, to).map(Datum::Int),
        DataType::Double => Ok(Datum::Float(value as f64)),
        DataType::Float => Ok(Datum::Float(f64::from(value as f32))),
        DataType::Decimal { scale: 0.., .. } => rescale(i128::from(value), 0, to).map(Datum::Decimal),
        DataType::Boolean => Ok(Datum::Bool(value != 0)),
        _ => return None,
    })
}
fn from_decimal<'a>(value: i128, precision: u8, scale: i8, to: &DataType) -> Option<Result<Datum<'a>, Fault>> {
    Some(match to {
        DataType::Decimal { .. } => rescale(value, i32::from(scale), to).map(Datum::Decimal),
        DataType::Double => Ok(Datum::Float(canonical(value as f64 / 10f64.powi(i32::from(scale))))),
        DataType::String => Ok(Datum::Str(Cow::Owned(Decimal128Type::format_decimal(value, precision, scale)))),
        to if is_integer(to) && scale >= 0 => {
            let whole = value / 10i128.pow(u32::from(scale.unsigned_abs()));
            i64::try_from(whole).map_err(|_| Fault).and_then(|v| in_range(v, to)).map(Datum::Int)
        }
        _ => return None,
    })
}
fn from_text<'a>(text: &str, to: &DataType) -> Option<Result<Datum<'a>, Fault>> {
    let int = |value: Option<i64>| Some(value.map(Datum::Int).ok_or(Fault));
    let float = |value: Option<f64>| Some(value.map(|v| Datum::Float(canonical(v))).ok_or(Fault));
    match to {
        DataType::TinyInt => int(Int8Type::parse(text).map(i64::from)),
        DataType::SmallInt => int(Int16Type::parse(text).map(i64::from)),
        DataType::Int => int(Int32Type::parse(text).map(i64::from)),
        DataType::BigInt => int(Int64Type::parse(text)),
        DataType::Date => int(Date32Type::parse(text).map(i64::from)),
        DataType::Timestamp | DataType::TimestampLtz => {
            int(string_to_datetime(&chrono::Utc, text).ok().map(|at| at.timestamp_micros()))
        }
        DataType::Double => float(Float64Type::parse(text)),
        DataType::Float => float(Float32Type::parse(text).map(f64::from)),
        _ => None,
    }
}
/// The cast of Arrow, on arrays of one row.
fn by_kernel(value: &Datum<'_>, from: &DataType, to: &DataType) -> Result<Datum<'static>, Fault> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let array = to_array(std::slice::from_ref(value), from);
    let array = cast_with_options(&array, &to.to_arrow(), &options).map_err(|_| Fault)?;
    if array.is_null(0) {
        return Err(Fault);
    }
    match datum_at(&array, to, 0).into_owned() {
        Datum::Float(value) => Ok(Datum::Float(canonical(value))),
        Datum::Decimal(value) => in_precision(value, to).map(Datum::Decimal),
        value => Ok(value),
    }
}

/// A value as text.
pub(crate) fn text(value: &Datum<'_>, data_type: &DataType) -> String {
    match value {
        Datum::Str(text) => text.to_string(),
        Datum::Bitmap(bytes) => format!("<bitmap of {} bytes>", bytes.len()),
        Datum::Null => "NULL".into(),
        _ => match cast(value.clone().into_owned(), data_type, &DataType::String) {
            Ok(Datum::Str(text)) => text.into_owned(),
            _ => format!("{value:?}"),
        },
    }
}
