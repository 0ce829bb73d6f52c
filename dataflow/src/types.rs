//! What the fields of a row mean: SQL types, columns, schemas, and their Arrow counterparts.

use arrow::datatypes::{DataType as ArrowType, Field, IntervalUnit, Schema as ArrowSchema, TimeUnit};
use std::fmt;
use std::sync::Arc;

/// A SQL type. `FLOAT` is held as a double and rounded on the way in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// BOOLEAN.
    Boolean,
    /// TINYINT, 8 bits.
    TinyInt,
    /// SMALLINT, 16 bits.
    SmallInt,
    /// INT, 32 bits.
    Int,
    /// BIGINT, 64 bits.
    BigInt,
    /// FLOAT, 32 bits.
    Float,
    /// DOUBLE, 64 bits.
    Double,
    /// DECIMAL(precision, scale), at most 38 digits.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// STRING, VARCHAR.
    String,
    /// BYTES.
    Bytes,
    /// DATE: days since 1970-01-01.
    Date,
    /// TIMESTAMP: microseconds since 1970-01-01 00:00:00, no zone.
    Timestamp,
    /// TIMESTAMP_LTZ: microseconds since 1970-01-01 00:00:00 UTC.
    TimestampLtz,
    /// INTERVAL DAY TO SECOND: microseconds.
    IntervalDay,
    /// INTERVAL YEAR TO MONTH: months.
    IntervalMonth,
    /// BITMAP: a set of unsigned 64-bit integers.
    Bitmap,
    /// ARRAY<T>.
    Array(Box<DataType>),
    /// STRUCT<name T, ..>.
    Struct(Vec<Column>),
}

impl DataType {
    /// The Arrow type that carries this type between us and the batch engine. A BITMAP travels as `LargeBinary`, which
    /// nothing else uses, so that the way back is unambiguous.
    pub fn to_arrow(&self) -> ArrowType {
        match self {
            DataType::Boolean => ArrowType::Boolean,
            DataType::TinyInt => ArrowType::Int8,
            DataType::SmallInt => ArrowType::Int16,
            DataType::Int => ArrowType::Int32,
            DataType::BigInt => ArrowType::Int64,
            DataType::Float => ArrowType::Float32,
            DataType::Double => ArrowType::Float64,
            DataType::Decimal { precision, scale } => ArrowType::Decimal128(*precision, *scale),
            DataType::String => ArrowType::Utf8,
            DataType::Bytes => ArrowType::Binary,
            DataType::Date => ArrowType::Date32,
            DataType::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, None),
            DataType::TimestampLtz => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::IntervalDay => ArrowType::Duration(TimeUnit::Microsecond),
            DataType::IntervalMonth => ArrowType::Interval(IntervalUnit::YearMonth),
            DataType::Bitmap => ArrowType::LargeBinary,
            DataType::Array(item) => ArrowType::List(Arc::new(Field::new("item", item.to_arrow(), true))),
            DataType::Struct(fields) => ArrowType::Struct(fields.iter().map(Column::to_arrow).collect()),
        }
    }
    /// The type that holds values of an Arrow type; None where we have none.
    pub fn from_arrow(arrow: &ArrowType) -> Option<DataType> {
        Some(match arrow {
            ArrowType::Boolean => DataType::Boolean,
            ArrowType::Int8 => DataType::TinyInt,
            ArrowType::Int16 | ArrowType::UInt8 => DataType::SmallInt,
            ArrowType::Int32 | ArrowType::UInt16 => DataType::Int,
            ArrowType::Int64 | ArrowType::UInt32 | ArrowType::UInt64 => DataType::BigInt,
            ArrowType::Float16 | ArrowType::Float32 => DataType::Float,
            ArrowType::Float64 => DataType::Double,
            ArrowType::Decimal128(precision, scale) | ArrowType::Decimal256(precision, scale) => {
                DataType::Decimal { precision: (*precision).min(38), scale: *scale }
            }
            ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View | ArrowType::Null => DataType::String,
            ArrowType::Binary | ArrowType::BinaryView | ArrowType::FixedSizeBinary(_) => DataType::Bytes,
            ArrowType::LargeBinary => DataType::Bitmap,
            ArrowType::Date32 | ArrowType::Date64 => DataType::Date,
            ArrowType::Timestamp(_, None) => DataType::Timestamp,
            ArrowType::Timestamp(_, Some(_)) => DataType::TimestampLtz,
            ArrowType::Duration(_) | ArrowType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => {
                DataType::IntervalDay
            }
            ArrowType::Interval(IntervalUnit::YearMonth) => DataType::IntervalMonth,
            ArrowType::List(item) | ArrowType::LargeList(item) | ArrowType::FixedSizeList(item, _) => {
                DataType::Array(Box::new(DataType::from_arrow(item.data_type())?))
            }
            ArrowType::Struct(fields) => {
                let fields: Option<Vec<_>> = fields.iter().map(|field| Column::from_arrow(field)).collect();
                DataType::Struct(fields?)
            }
            ArrowType::Dictionary(_, values) => DataType::from_arrow(values)?,
            _ => return None,
        })
    }
    /// Whether values are whole numbers of some unit (`Datum::Int`).
    pub fn is_int(&self) -> bool {
        matches!(
            self,
            DataType::TinyInt
                | DataType::SmallInt
                | DataType::Int
                | DataType::BigInt
                | DataType::Date
                | DataType::Timestamp
                | DataType::TimestampLtz
                | DataType::IntervalDay
                | DataType::IntervalMonth
        )
    }
}

/// The SQL name of the type.
impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            DataType::Boolean => "BOOLEAN",
            DataType::TinyInt => "TINYINT",
            DataType::SmallInt => "SMALLINT",
            DataType::Int => "INT",
            DataType::BigInt => "BIGINT",
            DataType::Float => "FLOAT",
            DataType::Double => "DOUBLE",
            DataType::Decimal { precision, scale } => return write!(f, "DECIMAL({precision}, {scale})"),
            DataType::String => "STRING",
            DataType::Bytes => "BYTES",
            DataType::Date => "DATE",
            DataType::Timestamp => "TIMESTAMP",
            DataType::TimestampLtz => "TIMESTAMP_LTZ",
            DataType::IntervalDay => "INTERVAL DAY TO SECOND",
            DataType::IntervalMonth => "INTERVAL YEAR TO MONTH",
            DataType::Bitmap => "BITMAP",
            DataType::Array(item) => return write!(f, "ARRAY<{item}>"),
            DataType::Struct(fields) => {
                f.write_str("STRUCT<")?;
                for (index, field) in fields.iter().enumerate() {
                    write!(f, "{}{} {}", if index > 0 { ", " } else { "" }, field.name, field.data_type)?;
                }
                return f.write_str(">");
            }
        };
        f.write_str(name)
    }
}

/// A named, typed column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// The name, folded to lower case unless it was quoted.
    pub name: String,
    /// The type.
    pub data_type: DataType,
    /// Whether NULL may stand here.
    pub nullable: bool,
}

impl Column {
    /// A column that may be NULL.
    pub fn new(name: impl Into<String>, data_type: DataType) -> Self {
        Column { name: name.into(), data_type, nullable: true }
    }
    fn to_arrow(&self) -> Field {
        Field::new(&self.name, self.data_type.to_arrow(), self.nullable)
    }
    fn from_arrow(field: &Field) -> Option<Self> {
        let data_type = DataType::from_arrow(field.data_type())?;
        Some(Column { name: field.name().clone(), data_type, nullable: field.is_nullable() })
    }
}

/// The columns of a row, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Schema {
    /// The columns, in the order of the row's fields.
    pub columns: Vec<Column>,
}

impl Schema {
    /// A schema of the given columns.
    pub fn new(columns: Vec<Column>) -> Self {
        Schema { columns }
    }
    /// The number of columns.
    pub fn len(&self) -> usize {
        self.columns.len()
    }
    /// Whether there is no column.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }
    /// The position of the column of that name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
    /// The types, in order.
    pub fn types(&self) -> Vec<DataType> {
        self.columns.iter().map(|column| column.data_type.clone()).collect()
    }
    /// The Arrow schema.
    pub fn to_arrow(&self) -> ArrowSchema {
        ArrowSchema::new(self.columns.iter().map(Column::to_arrow).collect::<Vec<_>>())
    }
    /// The schema of an Arrow schema.
    ///
    /// # Errors
    /// The name and type of the first column whose type we cannot hold.
    pub fn from_arrow(schema: &ArrowSchema) -> Result<Schema, String> {
        let column = |field: &Arc<Field>| {
            Column::from_arrow(field)
                .ok_or_else(|| format!("column \"{}\" has the unsupported type {}", field.name(), field.data_type()))
        };
        Ok(Schema { columns: schema.fields().iter().map(column).collect::<Result<_, _>>()? })
    }
}
