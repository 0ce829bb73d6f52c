//! The value as it is, in the table's one column that is no metadata: STRING (UTF-8) or BYTES.

use deltaworks_dataflow::{DataType, Datum};
use std::borrow::Cow;

use super::json::utf8;
use super::{Reject, ValueFormat};
use crate::decode::{TableFormat, Target};
use crate::error::{Error, Result};

/// Values that are one column.
pub(crate) struct Raw {
    column: usize,
    text: bool,
}

impl Raw {
    pub(crate) fn new(table: &TableFormat) -> Result<Self> {
        match &table.in_value()?[..] {
            [field] if field.data_type == DataType::String => Ok(Raw { column: field.slot, text: true }),
            [field] if field.data_type == DataType::Bytes => Ok(Raw { column: field.slot, text: false }),
            _ => {
                let reason = "it takes one column of type STRING or BYTES, beside metadata".to_owned();
                Err(Error::Columns { format: "raw", reason })
            }
        }
    }
}
impl ValueFormat for Raw {
    fn fields(&mut self, value: &[u8], target: &mut Target<'_>) -> std::result::Result<(), Reject> {
        let datum = if self.text { Datum::str(utf8(value)?) } else { Datum::Bytes(Cow::Borrowed(value)) };
        target.slots().put(self.column, &datum);
        Ok(())
    }
}
