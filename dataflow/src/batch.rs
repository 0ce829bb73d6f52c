//! Rows to and from Arrow record batches.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float32Builder, Float64Builder,
    LargeBinaryBuilder, ListArray, NullArray, PrimitiveBuilder, RecordBatch, RecordBatchOptions, StringBuilder, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType as ArrowType, Date32Type, DurationMicrosecondType, Field, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalYearMonthType, TimestampMicrosecondType,
};
use std::borrow::Cow;
use std::sync::Arc;

use crate::row::{Datum, Row};
use crate::types::{DataType, Schema};

/// The rows as one record batch of the schema.
///
/// # Errors
/// Where Arrow refuses the columns, e.g. NULL in a column that may not be NULL.
pub fn to_record_batch<'a>(
    schema: &Schema,
    rows: impl Iterator<Item = &'a [u8]>,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let types = schema.types();
    let mut columns: Vec<Vec<Datum<'a>>> = types.iter().map(|_| Vec::new()).collect();
    let mut count = 0;
    for mut bytes in rows {
        count += 1;
        for (column, data_type) in columns.iter_mut().zip(&types) {
            column.push(Datum::decode(&mut bytes, data_type));
        }
    }
    let arrays: Vec<ArrayRef> = columns.iter().zip(&types).map(|(column, data_type)| to_array(column, data_type)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(Arc::new(schema.to_arrow()), arrays, &options)
}

fn ints<T: ArrowPrimitiveType>(data: &[Datum<'_>], cast: impl Fn(i64) -> T::Native) -> PrimitiveBuilder<T> {
    let mut builder = PrimitiveBuilder::<T>::with_capacity(data.len());
    for datum in data {
        match datum {
            Datum::Int(value) => builder.append_value(cast(*value)),
            _ => builder.append_null(),
        }
    }
    builder
}

/// The data as one Arrow array of the type.
pub fn to_array(data: &[Datum<'_>], data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::TinyInt => Arc::new(ints::<Int8Type>(data, |v| v as i8).finish()),
        DataType::SmallInt => Arc::new(ints::<Int16Type>(data, |v| v as i16).finish()),
        DataType::Int => Arc::new(ints::<Int32Type>(data, |v| v as i32).finish()),
        DataType::BigInt => Arc::new(ints::<Int64Type>(data, |v| v).finish()),
        DataType::Date => Arc::new(ints::<Date32Type>(data, |v| v as i32).finish()),
        DataType::Timestamp => Arc::new(ints::<TimestampMicrosecondType>(data, |v| v).finish()),
        DataType::TimestampLtz => {
            Arc::new(ints::<TimestampMicrosecondType>(data, |v| v).finish().with_timezone_opt(Some("UTC")))
        }
        DataType::IntervalDay => Arc::new(ints::<DurationMicrosecondType>(data, |v| v).finish()),
        DataType::IntervalMonth => Arc::new(ints::<IntervalYearMonthType>(data, |v| v as i32).finish()),
        DataType::Boolean => {
            let mut builder = BooleanBuilder::with_capacity(data.len());
            data.iter().for_each(|d| builder.append_option(if let Datum::Bool(b) = d { Some(*b) } else { None }));
            Arc::new(builder.finish())
        }
        DataType::Float => {
            let mut builder = Float32Builder::with_capacity(data.len());
            data.iter().for_each(|d| builder.append_option(if let Datum::Float(f) = d { Some(*f as f32) } else { None }));
            Arc::new(builder.finish())
        }
        DataType::Double => {
            let mut builder = Float64Builder::with_capacity(data.len());
            data.iter().for_each(|d| builder.append_option(if let Datum::Float(f) = d { Some(*f) } else { None }));
            Arc::new(builder.finish())
        }
        DataType::Decimal { precision, scale } => {
            let mut builder = Decimal128Builder::with_capacity(data.len());
            data.iter().for_each(|d| {
                builder.append_option(match d {
                    Datum::Decimal(v) => Some(*v),
                    Datum::Int(v) => Some(i128::from(*v)),
                    _ => None,
                });
            });
            Arc::new(builder.finish().with_data_type(ArrowType::Decimal128(*precision, *scale)))
        }
        DataType::String => {
            let mut builder = StringBuilder::new();
            data.iter().for_each(|d| builder.append_option(if let Datum::Str(s) = d { Some(s) } else { None }));
            Arc::new(builder.finish())
        }
        DataType::Bytes => {
            let mut builder = BinaryBuilder::new();
            data.iter().for_each(|d| builder.append_option(if let Datum::Bytes(b) = d { Some(b) } else { None }));
            Arc::new(builder.finish())
        }
        DataType::Bitmap => {
            let mut builder = LargeBinaryBuilder::new();
            data.iter().for_each(|d| builder.append_option(if let Datum::Bitmap(b) = d { Some(b) } else { None }));
            Arc::new(builder.finish())
        }
        DataType::Array(item) => to_list(data, item),
        DataType::Struct(_) => to_struct(data, data_type),
    }
}
fn to_list(data: &[Datum<'_>], item: &DataType) -> ArrayRef {
    let mut items: Vec<Datum<'_>> = Vec::new();
    let lengths: Vec<usize> = data
        .iter()
        .map(|datum| match datum {
            Datum::Array(values) => {
                items.extend(values.iter().cloned());
                values.len()
            }
            _ => 0,
        })
        .collect();
    let nulls: NullBuffer = data.iter().map(|datum| !datum.is_null()).collect();
    let field = Arc::new(Field::new("item", item.to_arrow(), true));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), to_array(&items, item), Some(nulls)))
}
fn to_struct(data: &[Datum<'_>], data_type: &DataType) -> ArrayRef {
    let (DataType::Struct(columns), ArrowType::Struct(fields)) = (data_type, data_type.to_arrow()) else {
        return Arc::new(NullArray::new(data.len()));
    };
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let field: Vec<Datum<'_>> = data
                .iter()
                .map(|datum| match datum {
                    Datum::Struct(values) => values[index].clone(),
                    _ => Datum::Null,
                })
                .collect();
            to_array(&field, &column.data_type)
        })
        .collect();
    let nulls: NullBuffer = data.iter().map(|datum| !datum.is_null()).collect();
    Arc::new(StructArray::new(fields, arrays, Some(nulls)))
}

/// The rows of a record batch, which must have the schema's types (`Schema::to_arrow`), in order.
///
/// # Errors
/// Names the first column that cannot be cast to its type.
pub fn from_record_batch(schema: &Schema, batch: &RecordBatch) -> Result<Vec<Row>, arrow::error::ArrowError> {
    let arrays: Vec<ArrayRef> = schema
        .columns
        .iter()
        .zip(batch.columns())
        .map(|(column, array)| arrow::compute::cast(array, &column.data_type.to_arrow()))
        .collect::<Result<_, _>>()?;
    let mut scratch = Vec::new();
    let mut rows = Vec::with_capacity(batch.num_rows());
    for index in 0..batch.num_rows() {
        scratch.clear();
        for (array, column) in arrays.iter().zip(&schema.columns) {
            datum_at(array, &column.data_type, index).encode(&mut scratch);
        }
        rows.push(Row::from_bytes(&scratch));
    }
    Ok(rows)
}

/// The value at `index` of an array of exactly the type's Arrow type.
pub fn datum_at<'a>(array: &'a ArrayRef, data_type: &DataType, index: usize) -> Datum<'a> {
    if array.is_null(index) {
        return Datum::Null;
    }
    match data_type {
        DataType::Boolean => Datum::Bool(array.as_boolean().value(index)),
        DataType::TinyInt => Datum::Int(array.as_primitive::<Int8Type>().value(index).into()),
        DataType::SmallInt => Datum::Int(array.as_primitive::<Int16Type>().value(index).into()),
        DataType::Int => Datum::Int(array.as_primitive::<Int32Type>().value(index).into()),
        DataType::BigInt => Datum::Int(array.as_primitive::<Int64Type>().value(index)),
        DataType::Date => Datum::Int(array.as_primitive::<Date32Type>().value(index).into()),
        DataType::Timestamp | DataType::TimestampLtz => {
            Datum::Int(array.as_primitive::<TimestampMicrosecondType>().value(index))
        }
        DataType::IntervalDay => Datum::Int(array.as_primitive::<DurationMicrosecondType>().value(index)),
        DataType::IntervalMonth => Datum::Int(array.as_primitive::<IntervalYearMonthType>().value(index).into()),
        DataType::Float => Datum::Float(array.as_primitive::<arrow::datatypes::Float32Type>().value(index).into()),
        DataType::Double => Datum::Float(array.as_primitive::<arrow::datatypes::Float64Type>().value(index)),
        DataType::Decimal { .. } => Datum::Decimal(array.as_primitive::<arrow::datatypes::Decimal128Type>().value(index)),
        DataType::String => Datum::Str(Cow::Borrowed(array.as_string::<i32>().value(index))),
        DataType::Bytes => Datum::Bytes(Cow::Borrowed(array.as_binary::<i32>().value(index))),
        DataType::Bitmap => Datum::Bitmap(Cow::Borrowed(array.as_binary::<i64>().value(index))),
        DataType::Array(item) => {
            let values = array.as_list::<i32>().value(index);
            Datum::Array((0..values.len()).map(|i| datum_at(&values, item, i).into_owned()).collect())
        }
        DataType::Struct(columns) => {
            let array = array.as_struct();
            let field = |(i, column): (usize, &crate::types::Column)| datum_at(array.column(i), &column.data_type, index);
            Datum::Struct(columns.iter().enumerate().map(field).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Column;

    #[test]
    fn round_trip() {
        let structure = DataType::Struct(vec![Column::new("a", DataType::Int), Column::new("b", DataType::String)]);
        let cases = [
            (DataType::Boolean, Datum::Bool(true)),
            (DataType::TinyInt, Datum::Int(-7)),
            (DataType::SmallInt, Datum::Int(300)),
            (DataType::Int, Datum::Int(70000)),
            (DataType::BigInt, Datum::Int(i64::MIN)),
            (DataType::Float, Datum::Float(1.5)),
            (DataType::Double, Datum::Float(-0.1)),
            (DataType::Decimal { precision: 38, scale: 2 }, Datum::Decimal(i128::from(i64::MAX) * 9)),
            (DataType::String, Datum::str("é\0")),
            (DataType::Bytes, Datum::Bytes(Cow::Borrowed(&[0, 255]))),
            (DataType::Date, Datum::Int(-1)),
            (DataType::Timestamp, Datum::Int(1_777_000_000_000_000)),
            (DataType::TimestampLtz, Datum::Int(5)),
            (DataType::IntervalDay, Datum::Int(-5)),
            (DataType::IntervalMonth, Datum::Int(14)),
            (DataType::Bitmap, Datum::Bitmap(Cow::Borrowed(&[1, 2]))),
            (DataType::Array(Box::new(DataType::String)), Datum::Array(vec![Datum::str("x"), Datum::Null])),
            (structure, Datum::Struct(vec![Datum::Int(1), Datum::Null])),
        ];
        let schema =
            Schema::new(cases.iter().enumerate().map(|(i, (t, _))| Column::new(format!("c{i}"), t.clone())).collect());
        let full = Row::pack(cases.iter().map(|(_, d)| d.clone()));
        let nulls = Row::pack(cases.iter().map(|_| Datum::Null));
        let batch = to_record_batch(&schema, [&full[..], &nulls[..]].into_iter()).expect("a batch");
        assert_eq!(from_record_batch(&schema, &batch).expect("rows"), vec![full, nulls]);
        assert_eq!(Schema::from_arrow(&batch.schema()).expect("a schema").types(), schema.types());
    }
}
