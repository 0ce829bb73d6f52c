//! Values that are packed rows already: the columns of the table that are no metadata, encoded, in order.

use deltaworks_dataflow::row::split_field;

use super::{Reject, ValueFormat};
use crate::decode::{TableFormat, Target};

/// Values that a source of our own encoded.
pub(crate) struct Packed {
    columns: Vec<usize>,
}

impl Packed {
    pub(crate) fn new(table: &TableFormat) -> Self {
        Packed { columns: table.physical().iter().map(|field| field.slot).collect() }
    }
}
impl ValueFormat for Packed {
    fn fields(&mut self, mut value: &[u8], target: &mut Target<'_>) -> Result<(), Reject> {
        let slots = target.slots();
        for column in &self.columns {
            slots.put_encoded(*column, split_field(&mut value));
        }
        Ok(())
    }
}
