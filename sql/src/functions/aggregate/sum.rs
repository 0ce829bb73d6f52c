//! SUM and AVG, rounded once.
//!
//! | argument | SUM | AVG |
//! |---|---|---|
//! | TINYINT, SMALLINT, INT | BIGINT | DOUBLE |
//! | BIGINT | DECIMAL(38, 0) | DOUBLE |
//! | DECIMAL(p, s) | DECIMAL(38, s) | DECIMAL(p + 4, s + 4), half away from zero |
//! | FLOAT, DOUBLE | DOUBLE | DOUBLE |
//! | INTERVAL | the same INTERVAL | none |
//!
//! A sum that its type cannot hold is NULL. NULL arguments are ignored; of no argument the result is NULL.

use std::collections::BTreeSet;
use std::mem::size_of_val;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use deltaworks_dataflow::batch::datum_at;
use deltaworks_dataflow::row::Row;
use deltaworks_dataflow::{DataType, Datum};
use deltaworks_operators::aggregate::exact_sum::ExactSum;

use crate::expr::BinaryOp;
use crate::expr::arithmetic::arithmetic;
use crate::functions::native::type_name;

/// SUM.
pub(crate) fn sum() -> AggregateUDF {
    AggregateUDF::new_from_impl(Sum { average: false, aliases: Vec::new(), signature: signature() })
}
/// AVG.
pub(crate) fn avg() -> AggregateUDF {
    AggregateUDF::new_from_impl(Sum { average: true, aliases: vec!["mean".into()], signature: signature() })
}
fn signature() -> Signature {
    Signature::user_defined(Volatility::Immutable)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    average: bool,
    aliases: Vec<String>,
    signature: Signature,
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        if self.average { "avg" } else { "sum" }
    }
    fn aliases(&self) -> &[String] {
        &self.aliases
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[ArrowType]) -> Result<Vec<ArrowType>> {
        use ArrowType::{Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Null, UInt8, UInt16, UInt32, UInt64};
        use ArrowType::{Duration, Interval};
        Ok(vec![match types {
            [Duration(_) | Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano)] if !self.average => {
                Duration(TimeUnit::Microsecond)
            }
            [data_type @ Interval(IntervalUnit::YearMonth)] if !self.average => data_type.clone(),
            [data_type @ (Int8 | Int16 | Int32 | Int64 | Float64 | Decimal128(..))] => data_type.clone(),
            [Float32 | Null] => Float64,
            [UInt8 | UInt16] => Int32,
            [UInt32 | UInt64] => Int64,
            [data_type] => {
                return plan_err!("function \"{}\" does not take ({})", self.name(), type_name(data_type));
            }
            _ => return plan_err!("function \"{}\" takes one argument, not {}", self.name(), types.len()),
        }])
    }
    fn return_type(&self, types: &[ArrowType]) -> Result<ArrowType> {
        Ok(match (&types[0], self.average) {
            (ArrowType::Decimal128(precision, scale), true) => {
                let precision = (precision + 4).min(38);
                ArrowType::Decimal128(precision, (scale + 4).min(precision.cast_signed()))
            }
            (_, true) => ArrowType::Float64,
            (ArrowType::Decimal128(_, scale), false) => ArrowType::Decimal128(38, *scale),
            (ArrowType::Int64, false) => ArrowType::Decimal128(38, 0),
            (kept @ (ArrowType::Float64 | ArrowType::Duration(_) | ArrowType::Interval(_)), false) => kept.clone(),
            (_, false) => ArrowType::Int64,
        })
    }
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (Some(from), Some(to)) = (
            args.expr_fields.first().and_then(|field| DataType::from_arrow(field.data_type())),
            DataType::from_arrow(args.return_type()),
        ) else {
            return exec_err!("function \"{}\" is called on an unknown type", self.name());
        };
        let distinct = args.is_distinct.then(BTreeSet::new);
        Ok(Box::new(Summing { average: self.average, from, to, total: Total::default(), distinct }))
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name: &str| Arc::new(Field::new(format!("{}[{name}]", args.name), ArrowType::Binary, true));
        Ok(if args.is_distinct { vec![field("values")] } else { vec![field("whole"), field("float"), field("count")] })
    }
}

/// The sum so far: of whole numbers or of floats.
#[derive(Clone, Debug, Default)]
struct Total {
    whole: Wide,
    float: ExactSum,
    count: i64,
}
/// A sum of 128-bit numbers: `high * 2^64 + low`.
#[derive(Clone, Copy, Debug, Default)]
struct Wide {
    high: i128,
    low: i128,
}
impl Wide {
    fn add(&mut self, value: i128, diff: i64) {
        self.high += (value >> 64) * i128::from(diff);
        self.low += i128::from(value as u64) * i128::from(diff);
        self.high += self.low >> 64;
        self.low = i128::from(self.low as u64);
    }
    fn value(self) -> Option<i128> {
        let value = (i128::from(i64::try_from(self.high).ok()?) << 64) | self.low;
        (value.unsigned_abs() < 10u128.pow(38)).then_some(value)
    }
}
impl Total {
    fn add(&mut self, value: &Datum<'_>, diff: i64) {
        match value {
            Datum::Int(value) => self.whole.add(i128::from(*value), diff),
            Datum::Decimal(value) => self.whole.add(*value, diff),
            Datum::Float(value) => self.float.add(*value, diff),
            _ => return,
        }
        self.count += diff;
    }
}

#[derive(Debug)]
struct Summing {
    average: bool,
    from: DataType,
    to: DataType,
    total: Total,
    /// For DISTINCT: the values, encoded.
    distinct: Option<BTreeSet<Row>>,
}

impl Summing {
    fn fold(&mut self, array: &ArrayRef, diff: i64) {
        for index in 0..array.len() {
            let value = datum_at(array, &self.from, index);
            match &mut self.distinct {
                Some(_) if value.is_null() => {}
                Some(values) => {
                    values.insert(Row::pack([value]));
                }
                None => self.total.add(&value, diff),
            }
        }
    }
    fn distinct_total(&self) -> Total {
        let Some(values) = &self.distinct else { return self.total.clone() };
        let mut total = Total::default();
        for value in values {
            total.add(&Datum::decode(&mut value.as_bytes(), &self.from), 1);
        }
        total
    }
    fn result(&self) -> Datum<'static> {
        let total = self.distinct_total();
        if total.count == 0 {
            return Datum::Null;
        }
        let is_float = matches!(self.from, DataType::Float | DataType::Double);
        match (self.average, is_float) {
            (false, true) => Datum::Float(total.float.value()),
            (true, true) => Datum::Float(total.float.value() / total.count as f64),
            (average, false) => match (total.whole.value(), &self.to) {
                (None, _) => Datum::Null,
                (Some(sum), DataType::Double) => Datum::Float(sum as f64 / total.count as f64),
                (Some(sum), DataType::Decimal { .. }) if average => self.decimal_average(sum, total.count),
                (Some(sum), DataType::Decimal { .. }) => Datum::Decimal(sum),
                (Some(sum), DataType::IntervalMonth) => i32::try_from(sum).map_or(Datum::Null, |sum| Datum::Int(sum.into())),
                (Some(sum), _) => i64::try_from(sum).map_or(Datum::Null, Datum::Int),
            },
        }
    }
    fn decimal_average(&self, sum: i128, count: i64) -> Datum<'static> {
        let scale = match &self.from {
            DataType::Decimal { scale, .. } => *scale,
            _ => 0,
        };
        let sum_type = DataType::Decimal { precision: 38, scale };
        let (sum, count) = (Datum::Decimal(sum), Datum::Int(count));
        let average = arithmetic(BinaryOp::Divide, &sum, &sum_type, &count, &DataType::BigInt, &self.to);
        average.unwrap_or(Datum::Null)
    }
}

impl Accumulator for Summing {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.fold(&values[0], 1);
        Ok(())
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.fold(&values[0], -1);
        Ok(())
    }
    fn supports_retract_batch(&self) -> bool {
        self.distinct.is_none()
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for index in 0..states[0].len() {
            let bytes = |state: &ArrayRef| state.as_binary::<i32>().value(index).to_vec();
            if let Some(values) = &mut self.distinct {
                let packed = bytes(&states[0]);
                let mut rest = &packed[..];
                while !rest.is_empty() {
                    values.insert(Row::from_bytes(deltaworks_dataflow::row::split_field(&mut rest)));
                }
                continue;
            }
            let (high, low) = two_words(&bytes(&states[0]));
            self.total.whole.high += high;
            self.total.whole.add(low, 1);
            self.total.float.merge(&ExactSum::from_bytes(&bytes(&states[1])));
            self.total.count += two_words(&bytes(&states[2])).0 as i64;
        }
        Ok(())
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let binary = |bytes: Vec<u8>| ScalarValue::Binary(Some(bytes));
        if let Some(values) = &self.distinct {
            return Ok(vec![binary(values.iter().flat_map(|value| value.as_bytes().to_vec()).collect())]);
        }
        let whole = [self.total.whole.high.to_le_bytes(), self.total.whole.low.to_le_bytes()].concat();
        let count = [i128::from(self.total.count).to_le_bytes(), [0; 16]].concat();
        Ok(vec![binary(whole), binary(self.total.float.to_bytes()), binary(count)])
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let array = deltaworks_dataflow::batch::to_array(&[self.result()], &self.to);
        ScalarValue::try_from_array(&array, 0)
    }
    fn size(&self) -> usize {
        size_of_val(self) + self.distinct.as_ref().map_or(0, |values| values.len() * size_of::<Row>() * 2)
    }
}
fn two_words(bytes: &[u8]) -> (i128, i128) {
    let word = |at: usize| bytes.get(at..at + 16).and_then(|word| word.try_into().ok()).map_or(0, i128::from_le_bytes);
    (word(0), word(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_sums_leave_the_range_and_return() {
        let mut wide = Wide::default();
        let most = 10i128.pow(38) - 1;
        wide.add(most, 1);
        wide.add(most, 2);
        assert_eq!(wide.value(), None);
        wide.add(most, -4);
        assert_eq!(wide.value(), Some(-most));
        wide.add(-1, -1);
        assert_eq!(wide.value(), Some(1 - most));
    }
}
