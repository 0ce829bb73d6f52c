//! Layouts: how the rows of an arrangement are cut into key and value, and where a column is found in it.
//!
//! A column that stands in the key as it is does not stand in the value again.

use std::collections::BTreeSet;

use crate::expr::ScalarExpr;

/// Key and value expressions over an input's columns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layout {
    pub(crate) key: Vec<ScalarExpr>,
    pub(crate) value: Vec<ScalarExpr>,
}

impl Layout {
    /// Key `key`; value `first`, then every column of `wanted` that is found in neither.
    ///
    /// `repeat_key` keeps wanted columns in the value although the key holds them: for the side of an outer join that may
    /// be missing, where the key is the other side's.
    pub(crate) fn new(
        key: &[ScalarExpr],
        first: &[ScalarExpr],
        types: &[deltaworks_dataflow::DataType],
        wanted: &BTreeSet<usize>,
        repeat_key: bool,
    ) -> Self {
        let mut value = first.to_vec();
        for &column in wanted {
            let is_column = |e: &ScalarExpr| e.as_column() == Some(column);
            if value.iter().any(is_column) || (!repeat_key && key.iter().any(is_column)) {
                continue;
            }
            value.push(ScalarExpr::Column { index: column, data_type: types[column].clone() });
        }
        Layout { key: key.to_vec(), value }
    }
    /// Fields of key ++ value.
    pub(crate) fn fields(&self) -> usize {
        self.key.len() + self.value.len()
    }
    /// Where column `column` stands in key ++ value; `from_value` leaves the key out of account.
    pub(crate) fn place(&self, column: usize, from_value: bool) -> Option<usize> {
        let is_column = |e: &ScalarExpr| e.as_column() == Some(column);
        if !from_value && let Some(index) = self.key.iter().position(is_column) {
            return Some(index);
        }
        self.value.iter().position(is_column).map(|index| self.key.len() + index)
    }
}
