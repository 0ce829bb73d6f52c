//! `aggregation`: per column an aggregate of all rows that arrived.
//!
//! **Definition.** A column of the row of a key is its [`ColumnAggregate`] over that column of all upserts on the key. The row
//! is there as long as more rows arrived than were taken back.
//!
//! **State.** The row, followed by hidden fields: the number of rows, and for each `sum` and `avg` its exact sum and how many
//! values are in it.
//!
//! **On retraction.** `sum`, `count` and `avg` subtract; a table with any other aggregate rejects the retraction. A delete of
//! the key, if the table allows it, forgets everything about the key.
//!
//! **On ties, nulls, late rows.** NULL is ignored, except by `first` and `last`; a sum or average of no value is NULL. Sums of
//! floats are exact and rounded once. A sum that does not fit its column is NULL until it fits again. A bitmap of no bitmap is
//! NULL, of empty ones empty.

use super::{Folded, MergeEngine};
use crate::aggregate::exact_sum::ExactSum;
use crate::aggregate::wide_sum::{DECIMAL_LIMIT, divide_rounding};
use deltaworks_dataflow::bitmap::{SetOperation, combine};
use deltaworks_dataflow::row::{encode_bitmap, encode_int, encode_null, encode_wide, is_null_field, split_field};
use deltaworks_dataflow::{Command, CommandKind, DataType, Datum, Row};
use std::borrow::Cow;

/// How one column folds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnAggregate {
    /// A column of the key: the same in all rows.
    Key,
    /// The sum.
    Sum,
    /// How many values are not NULL.
    Count,
    /// The average.
    Avg,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The last, even if NULL.
    Last,
    /// The last that is not NULL.
    LastNonNull,
    /// The first, even if NULL.
    First,
    /// The first that is not NULL.
    FirstNonNull,
    /// Whether all are true.
    BoolAnd,
    /// Whether one is true.
    BoolOr,
    /// The ids of all bitmaps.
    Bitmap,
}

impl ColumnAggregate {
    /// Whether a retracted row can be subtracted.
    pub fn subtracts(self) -> bool {
        matches!(self, Self::Key | Self::Sum | Self::Count | Self::Avg)
    }
    fn sums(self) -> bool {
        matches!(self, Self::Sum | Self::Avg)
    }
}

/// A column and how it folds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregatedColumn {
    /// The aggregate.
    pub aggregate: ColumnAggregate,
    /// The column's type.
    pub data_type: DataType,
}

pub(super) struct Aggregation {
    columns: Vec<AggregatedColumn>,
    subtracts: bool,
}

impl Aggregation {
    pub(super) fn new(columns: Vec<AggregatedColumn>) -> Self {
        let subtracts = columns.iter().all(|column| column.aggregate.subtracts());
        Aggregation { columns, subtracts }
    }
    /// The state's fields: the visible ones, and what follows them.
    fn split<'a>(&self, state: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let mut rest = state;
        for _ in &self.columns {
            split_field(&mut rest);
        }
        state.split_at(state.len() - rest.len())
    }
    fn update(&self, current: Option<&[u8]>, row: &[u8], diff: i64) -> Folded {
        let (mut visible, mut hidden) = current.map_or((&[][..], &[][..]), |state| self.split(state));
        let rows = diff + current.map_or(0, |_| take_int(&mut hidden));
        let (mut row, mut new, mut new_hidden) = (row, Vec::new(), Vec::new());
        encode_int(&mut new_hidden, rows);
        let mut blank = rows == 0;
        for column in &self.columns {
            let old = current.map(|_| split_field(&mut visible));
            let argument = split_field(&mut row);
            if column.aggregate.sums() {
                let Some(mut sum) = Sum::decode(&column.data_type, current.map(|_| &mut hidden)) else {
                    return Folded::Rejected("the state of a sum cannot be read");
                };
                if !sum.add(argument, &column.data_type, diff) {
                    return Folded::Rejected("a sum is out of range");
                }
                blank &= sum.is_blank();
                sum.show(column, &mut new);
                sum.encode(&mut new_hidden);
            } else if column.aggregate == ColumnAggregate::Count {
                let count = old.map_or(0, |mut old| take_int(&mut old)) + if is_null_field(argument) { 0 } else { diff };
                blank &= count == 0;
                encode_int(&mut new, count);
            } else if column.aggregate == ColumnAggregate::Bitmap {
                if !unite(old, argument, &mut new) {
                    return Folded::Rejected("a bitmap cannot be read");
                }
            } else {
                new.extend_from_slice(choose(column.aggregate, old, argument));
            }
        }
        if blank {
            return if current.is_some() { Folded::Remove } else { Folded::Keep };
        }
        new.extend_from_slice(&new_hidden);
        Folded::Replace(Row::from_bytes(&new))
    }
}

impl MergeEngine for Aggregation {
    fn fold(&mut self, current: Option<&[u8]>, command: &Command) -> Folded {
        match command.kind {
            CommandKind::Upsert => self.update(current, &command.row, 1),
            CommandKind::Retract if self.subtracts => self.update(current, &command.row, -1),
            CommandKind::Retract => Folded::Rejected("an aggregate of this table cannot take a row back"),
            CommandKind::Delete if current.is_some() => Folded::Remove,
            CommandKind::Delete | CommandKind::Merge => Folded::Keep,
        }
    }
    fn visible<'a>(&self, state: &'a [u8]) -> Option<&'a [u8]> {
        let (visible, mut hidden) = self.split(state);
        (take_int(&mut hidden) > 0).then_some(visible)
    }
    /// Here a retraction never is a delete: where it cannot be subtracted, it is rejected.
    fn subtracts(&self) -> bool {
        true
    }
}

fn take_int(bytes: &mut &[u8]) -> i64 {
    match Datum::decode(bytes, &DataType::BigInt) {
        Datum::Int(value) => value,
        _ => 0,
    }
}

/// One of the two values, for aggregates that are one of their arguments. `old` is None in the first row of a key.
fn choose<'a>(aggregate: ColumnAggregate, old: Option<&'a [u8]>, argument: &'a [u8]) -> &'a [u8] {
    let Some(old) = old else { return argument };
    let argument_is_null = is_null_field(argument);
    let takes_argument = match aggregate {
        ColumnAggregate::Last => true,
        ColumnAggregate::Key | ColumnAggregate::First => false,
        ColumnAggregate::LastNonNull => !argument_is_null,
        ColumnAggregate::FirstNonNull => is_null_field(old),
        // Encoded, false is less than true and NULL more than everything.
        ColumnAggregate::Min | ColumnAggregate::BoolAnd => argument < old,
        ColumnAggregate::Max | ColumnAggregate::BoolOr => !argument_is_null && (is_null_field(old) || argument > old),
        ColumnAggregate::Sum | ColumnAggregate::Count | ColumnAggregate::Avg | ColumnAggregate::Bitmap => true,
    };
    if takes_argument { argument } else { old }
}

/// Appends the ids of both bitmaps; false where one of them is damaged.
fn unite(old: Option<&[u8]>, argument: &[u8], out: &mut Vec<u8>) -> bool {
    let bitmap = |mut field: &[u8]| match Datum::decode(&mut field, &DataType::Bitmap) {
        Datum::Bitmap(bytes) => Some(bytes.into_owned()),
        _ => None,
    };
    let (old, new) = (old.and_then(bitmap), bitmap(argument));
    match (old, new) {
        (Some(old), Some(new)) => match combine(SetOperation::Or, &old, &new) {
            Some(united) => encode_bitmap(out, &united),
            None => return false,
        },
        (Some(one), None) | (None, Some(one)) => encode_bitmap(out, &one),
        (None, None) => encode_null(out),
    }
    true
}

/// A sum that values can be taken back from, and how many are in it.
struct Sum {
    total: Total,
    count: i64,
}
enum Total {
    Whole(i128),
    Float(ExactSum),
}

impl Sum {
    fn decode(data_type: &DataType, hidden: Option<&mut &[u8]>) -> Option<Self> {
        let float = matches!(data_type, DataType::Float | DataType::Double);
        let Some(hidden) = hidden else {
            let total = if float { Total::Float(ExactSum::new()) } else { Total::Whole(0) };
            return Some(Sum { total, count: 0 });
        };
        let total = match Datum::decode(hidden, &DataType::Decimal { precision: 38, scale: 0 }) {
            Datum::Decimal(whole) => Total::Whole(whole),
            Datum::Bytes(bytes) => Total::Float(ExactSum::from_bytes(&bytes)),
            _ => return None,
        };
        Some(Sum { total, count: take_int(hidden) })
    }
    fn encode(&self, out: &mut Vec<u8>) {
        match &self.total {
            Total::Whole(whole) => encode_wide(out, *whole),
            Total::Float(sum) => Datum::Bytes(Cow::Owned(sum.to_bytes())).encode(out),
        }
        encode_int(out, self.count);
    }
    /// Adds the argument unless it is NULL; false if that overflows.
    fn add(&mut self, mut argument: &[u8], data_type: &DataType, diff: i64) -> bool {
        let datum = Datum::decode(&mut argument, data_type);
        let value = match datum {
            Datum::Int(value) => i128::from(value),
            Datum::Decimal(value) => value,
            Datum::Float(value) => {
                if let Total::Float(sum) = &mut self.total {
                    sum.add(value, diff);
                }
                0
            }
            _ => return true,
        };
        self.count += diff;
        match &mut self.total {
            Total::Float(_) => true,
            Total::Whole(whole) => {
                let sum = value.checked_mul(i128::from(diff)).and_then(|value| whole.checked_add(value));
                *whole = sum.unwrap_or(*whole);
                sum.is_some()
            }
        }
    }
    fn is_blank(&self) -> bool {
        self.count == 0
            && match &self.total {
                Total::Whole(whole) => *whole == 0,
                Total::Float(sum) => sum.is_zero(),
            }
    }
    /// Appends the column's value.
    fn show(&self, column: &AggregatedColumn, out: &mut Vec<u8>) {
        let average = column.aggregate == ColumnAggregate::Avg;
        if self.count == 0 {
            return encode_null(out);
        }
        let (narrow, whole) = match &self.total {
            Total::Float(sum) => {
                let value = if average { sum.value() / self.count as f64 } else { sum.value() };
                let value = if column.data_type == DataType::Float { f64::from(value as f32) } else { value };
                return Datum::Float(value).encode(out);
            }
            Total::Whole(whole) => {
                (column.data_type.is_int(), if average { divide_rounding(*whole, self.count) } else { *whole })
            }
        };
        let fits = if narrow { i64::try_from(whole).is_ok() } else { whole.unsigned_abs() < DECIMAL_LIMIT.unsigned_abs() };
        if fits { encode_wide(out, whole) } else { encode_null(out) }
    }
}
