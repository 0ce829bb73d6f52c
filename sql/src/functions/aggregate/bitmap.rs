//! Aggregates of bitmaps.
//!
//! | function | argument | result of a group |
//! |---|---|---|
//! | `GROUP_BITMAP` | ids | how many different ids |
//! | `GROUP_BITMAP_STATE` | ids | the BITMAP of the ids |
//! | `GROUP_BITMAP_AND`, `_OR`, `_XOR` | BITMAP | how many ids the combined bitmap holds |
//! | `GROUP_BITMAP_AND_STATE`, .. | BITMAP | the combined bitmap |
//!
//! NULL is ignored; a negative id cannot be in a bitmap and is ignored too. Of no argument the bitmap is empty.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use roaring::RoaringTreemap;

use crate::functions::bitmap::{decode_bitmap, encode_bitmap, member};
use crate::functions::native::type_name;

/// How the arguments of a group are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fold {
    Ids,
    And,
    Or,
    Xor,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct GroupBitmap {
    name: &'static str,
    fold: Fold,
    /// Whether the result is the bitmap itself.
    state: bool,
    signature: Signature,
}

/// All of them.
pub(crate) fn all() -> Vec<AggregateUDF> {
    let rows = [
        ("group_bitmap", Fold::Ids, false),
        ("group_bitmap_state", Fold::Ids, true),
        ("group_bitmap_and", Fold::And, false),
        ("group_bitmap_and_state", Fold::And, true),
        ("group_bitmap_or", Fold::Or, false),
        ("group_bitmap_or_state", Fold::Or, true),
        ("group_bitmap_xor", Fold::Xor, false),
        ("group_bitmap_xor_state", Fold::Xor, true),
    ];
    let udf = |(name, fold, state)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        AggregateUDF::new_from_impl(GroupBitmap { name, fold, state, signature })
    };
    rows.into_iter().map(udf).collect()
}

impl AggregateUDFImpl for GroupBitmap {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[ArrowType]) -> Result<Vec<ArrowType>> {
        match (self.fold, types) {
            (Fold::Ids, [data_type]) if data_type.is_integer() || data_type.is_null() => Ok(vec![ArrowType::Int64]),
            (Fold::And | Fold::Or | Fold::Xor, [ArrowType::LargeBinary | ArrowType::Binary | ArrowType::Null]) => {
                Ok(vec![ArrowType::LargeBinary])
            }
            _ => {
                let given: Vec<String> = types.iter().map(type_name).collect();
                let wanted = if self.fold == Fold::Ids { "one integer" } else { "one BITMAP" };
                plan_err!("function \"{}\" takes {wanted}, not ({})", self.name, given.join(", "))
            }
        }
    }
    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType> {
        Ok(if self.state { ArrowType::LargeBinary } else { ArrowType::Int64 })
    }
    fn is_nullable(&self) -> bool {
        false
    }
    fn default_value(&self, _: &ArrowType) -> Result<ScalarValue> {
        Ok(self.result(&RoaringTreemap::new()))
    }
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let seen = (args.is_distinct && self.fold == Fold::Xor).then(BTreeSet::new);
        Ok(Box::new(Folding { fold: self.fold, state: self.state, set: None, seen }))
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[set]", args.name), ArrowType::LargeBinary, true))])
    }
}
impl GroupBitmap {
    fn result(&self, set: &RoaringTreemap) -> ScalarValue {
        result(self.state, set)
    }
}
fn result(state: bool, set: &RoaringTreemap) -> ScalarValue {
    match state {
        true => ScalarValue::LargeBinary(Some(encode_bitmap(set))),
        false => ScalarValue::Int64(i64::try_from(set.len()).ok()),
    }
}

struct Folding {
    fold: Fold,
    state: bool,
    /// None before the first argument: the neutral element of AND is no bitmap.
    set: Option<RoaringTreemap>,
    /// The bitmaps that were folded already, where equal ones count once and that matters.
    seen: Option<BTreeSet<Vec<u8>>>,
}
impl fmt::Debug for Folding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folding").field("fold", &self.fold).finish_non_exhaustive()
    }
}
impl Folding {
    fn fold_bitmaps(&mut self, array: &ArrayRef) -> Result<()> {
        for bytes in array.as_binary::<i64>().iter().flatten() {
            if self.seen.as_mut().is_some_and(|seen| !seen.insert(bytes.to_vec())) {
                continue;
            }
            let Some(set) = decode_bitmap(bytes) else { return exec_err!("a BITMAP cannot be read") };
            match (&mut self.set, self.fold) {
                (none @ None, _) => *none = Some(set),
                (Some(all), Fold::And) => *all &= set,
                (Some(all), Fold::Xor) => *all ^= set,
                (Some(all), Fold::Or | Fold::Ids) => *all |= set,
            }
        }
        Ok(())
    }
}
impl Accumulator for Folding {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.fold != Fold::Ids {
            return self.fold_bitmaps(&values[0]);
        }
        let ids = cast(&values[0], &ArrowType::Int64)?;
        let set = self.set.get_or_insert_default();
        for id in ids.as_primitive::<Int64Type>().iter().flatten().filter_map(|id| member(id).ok()) {
            set.insert(id);
        }
        Ok(())
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if self.seen.is_some() {
            return exec_err!("distinct bitmaps are folded in one partition");
        }
        self.fold_bitmaps(&states[0])
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::LargeBinary(self.set.as_ref().map(encode_bitmap))])
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(result(self.state, self.set.as_ref().unwrap_or(&RoaringTreemap::new())))
    }
    fn size(&self) -> usize {
        size_of_val(self) + self.set.as_ref().map_or(0, RoaringTreemap::serialized_size)
    }
}
