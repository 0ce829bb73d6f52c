//! The types that declarations and casts name.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use deltaworks_dataflow::{Column, DataType};
use sqlparser::ast::{self, ArrayElemTypeDef, ExactNumberInfo, IntervalFields};

use crate::error::SqlError;

/// Our types for the batch engine's planner.
#[derive(Debug)]
pub(super) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, data_type: &ast::DataType) -> Result<Option<FieldRef>> {
        // What we do not have is left to DataFusion: it may still stand inside an expression.
        Ok(sql_type(data_type).ok().map(|data_type| Arc::new(Field::new("", data_type.to_arrow(), true))))
    }
}

/// The type of a declaration.
pub(super) fn sql_type(data_type: &ast::DataType) -> std::result::Result<DataType, SqlError> {
    use ast::DataType as D;
    Ok(match data_type {
        D::Boolean | D::Bool => DataType::Boolean,
        D::TinyInt(_) => DataType::TinyInt,
        D::SmallInt(_) | D::Int2(_) => DataType::SmallInt,
        D::Int(_) | D::Integer(_) | D::Int4(_) | D::MediumInt(_) => DataType::Int,
        D::BigInt(_) | D::Int8(_) | D::Int64 => DataType::BigInt,
        D::Float(ExactNumberInfo::Precision(25..)) => DataType::Double,
        D::Float(_) | D::Real | D::Float4 | D::Float32 => DataType::Float,
        D::Double(_) | D::DoublePrecision | D::Float8 | D::Float64 => DataType::Double,
        D::Decimal(info) | D::Numeric(info) | D::Dec(info) => decimal(info)?,
        D::Varchar(_)
        | D::Char(_)
        | D::Character(_)
        | D::CharacterVarying(_)
        | D::CharVarying(_)
        | D::Nvarchar(_)
        | D::String(_)
        | D::Text => DataType::String,
        D::Bytes(_) | D::Bytea | D::Binary(_) | D::Varbinary(_) | D::Blob(_) => DataType::Bytes,
        D::Date => DataType::Date,
        D::Timestamp(_, ast::TimezoneInfo::WithTimeZone | ast::TimezoneInfo::Tz) => DataType::TimestampLtz,
        D::Timestamp(..) | D::TimestampNtz(_) | D::Datetime(_) => DataType::Timestamp,
        D::Interval { fields, .. } => interval(fields.as_ref()),
        D::Array(ArrayElemTypeDef::AngleBracket(item) | ArrayElemTypeDef::SquareBracket(item, _)) => {
            DataType::Array(Box::new(sql_type(item)?))
        }
        D::Array(ArrayElemTypeDef::Parenthesis(item)) => DataType::Array(Box::new(sql_type(item)?)),
        D::Struct(fields, _) => {
            let field = |(index, field): (usize, &ast::StructField)| {
                let name = field.field_name.as_ref().map_or_else(|| format!("c{index}"), crate::parser::fold);
                Ok(Column::new(name, sql_type(&field.field_type)?))
            };
            DataType::Struct(fields.iter().enumerate().map(field).collect::<std::result::Result<_, SqlError>>()?)
        }
        D::Custom(name, _) => custom(data_type, &name.to_string().to_ascii_uppercase())?,
        _ => return Err(unknown(data_type)),
    })
}
fn custom(data_type: &ast::DataType, name: &str) -> std::result::Result<DataType, SqlError> {
    Ok(match name {
        "STRING" => DataType::String,
        "BYTES" => DataType::Bytes,
        "BITMAP" => DataType::Bitmap,
        "TIMESTAMP_LTZ" => DataType::TimestampLtz,
        "TIMESTAMP_NTZ" => DataType::Timestamp,
        _ => return Err(unknown(data_type)),
    })
}
/// The error of a type that we do not have.
pub(crate) fn unknown(data_type: &dyn std::fmt::Display) -> SqlError {
    SqlError::new(
        format!("unknown type {data_type}"),
        "BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), STRING, BYTES, DATE, TIMESTAMP, TIMESTAMP_LTZ, \
         INTERVAL, BITMAP, ARRAY<T> and STRUCT<name T, ..> are known",
    )
}
/// DECIMAL without digits is DECIMAL(10, 0).
fn decimal(info: &ExactNumberInfo) -> std::result::Result<DataType, SqlError> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (10, 0),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let help = "write DECIMAL(p, s) with p from 1 to 38 and s from 0 to p";
    let wrong = || SqlError::new(format!("DECIMAL({precision}, {scale}) cannot be"), help);
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p @ 1..=38), Ok(s @ 0..)) if s.unsigned_abs() <= p => Ok(DataType::Decimal { precision: p, scale: s }),
        _ => Err(wrong()),
    }
}
fn interval(fields: Option<&IntervalFields>) -> DataType {
    match fields {
        Some(IntervalFields::Year | IntervalFields::Month | IntervalFields::YearToMonth) => DataType::IntervalMonth,
        _ => DataType::IntervalDay,
    }
}
