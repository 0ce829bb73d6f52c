//! What stands for `avro/` in a build without the feature `avro`: whoever asks for its formats is told how to get them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaworks_dataflow::Schema;

use super::json::Field;
use super::{RecordFormat, Reject, ValueFormat};
use crate::decode::{Prepared, Slots, TableFormat, Target};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::record::Record;

/// The name of the format of rows.
pub(crate) const ROWS: &str = "avro-confluent";
/// The name of the format of changes.
pub(crate) const CHANGES: &str = "debezium-avro-confluent";

fn not_built<T>(name: &str) -> Result<T> {
    Err(Error::NotBuilt { name: name.to_owned(), feature: "avro" })
}

/// A reader of keys that cannot be made.
pub(crate) struct AvroReader(Infallible);
impl AvroReader {
    pub(crate) fn of_key(_: Vec<Field>, _: bool, _: &Options) -> Result<AvroReader> {
        not_built(ROWS)
    }
    pub(crate) fn open(&mut self, _: &Arc<AtomicBool>) -> Result<()> {
        match self.0 {}
    }
    pub(crate) fn prepare(&mut self, _: &mut dyn Iterator<Item = &[u8]>) -> Prepared {
        match self.0 {}
    }
    pub(crate) fn read(&self, _: &[u8], _: &mut Slots) -> std::result::Result<(), Reject> {
        match self.0 {}
    }
}

/// Values that cannot be read.
pub(crate) struct Avro(Infallible);
impl Avro {
    pub(crate) fn new(_: &TableFormat) -> Result<Avro> {
        not_built(ROWS)
    }
}
impl ValueFormat for Avro {
    fn fields(&mut self, _: &[u8], _: &mut Target<'_>) -> std::result::Result<(), Reject> {
        match self.0 {}
    }
}

/// Envelopes that cannot be read.
pub(crate) struct DebeziumAvro(Infallible);
impl DebeziumAvro {
    pub(crate) fn new(_: &TableFormat) -> Result<DebeziumAvro> {
        not_built(CHANGES)
    }
}
impl RecordFormat for DebeziumAvro {
    fn decode(&mut self, _: &Record<'_>, _: &mut Target<'_>) -> std::result::Result<(), Reject> {
        match self.0 {}
    }
}

/// A writer of rows that cannot be made.
#[derive(Clone, Debug)]
pub(crate) struct AvroRows(Infallible);
impl AvroRows {
    pub(crate) fn new(_: &Schema, _: bool, _: &Options, format: &'static str, _: String) -> Result<AvroRows> {
        not_built(format)
    }
    pub(crate) fn of_key(_: &Schema, _: &Options, _: String) -> Result<AvroRows> {
        not_built(ROWS)
    }
    pub(crate) fn register(&mut self, _: &Arc<AtomicBool>) -> Result<()> {
        match self.0 {}
    }
    pub(crate) fn write(&self, _: &[u8], _: &mut Vec<u8>) -> std::result::Result<(), String> {
        match self.0 {}
    }
    pub(crate) fn write_change(
        &self,
        _: Option<&[u8]>,
        _: Option<&[u8]>,
        _: &str,
        _: &mut Vec<u8>,
    ) -> std::result::Result<(), String> {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::column;
    use crate::format::Format;
    use crate::kafka::KafkaSinkSpec;
    use deltaworks_dataflow::DataType;

    #[test]
    fn formats_say_which_build_has_them() {
        let schema = Schema::new(vec![column("id", DataType::BigInt)]);
        let check = |error: Error, name: &str| {
            assert_eq!(error.to_string(), format!("unknown format \"{name}\""));
            assert_eq!(error.help(), "it needs a build of deltaworks with `--features avro`");
        };
        for name in [ROWS, CHANGES] {
            let format = Format::from_name(name).expect("a name");
            check(TableFormat::new(format, schema.clone(), vec![]).decoder().err().expect("no decoder"), name);
            let options = Options::new([("connector", "kafka"), ("topic", "t"), ("format", name)]);
            check(KafkaSinkSpec::from_options(&options, &schema, &[0]).expect_err("no sink"), name);
        }
        let options = Options::new([("connector", "kafka"), ("topic", "t"), ("key.format", ROWS)]);
        check(KafkaSinkSpec::from_options(&options, &schema, &[0]).expect_err("no sink"), ROWS);
        let table = TableFormat { options, ..TableFormat::new(Format::Json, schema, vec![0]) };
        check(table.decoder().err().expect("no decoder"), ROWS);
    }
}
