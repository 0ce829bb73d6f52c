//! What a sink writes, a source with the same options reads back: rows to messages to commands, over all ways to write keys.

use super::*;
use crate::decode::tests::{any_row, column, decode_records, every_type};
use crate::decode::{Decoded, TableFormat};
use crate::format::Format;
use crate::record::{Record, Records};
use deltaworks_dataflow::changelog::RowKind;
use deltaworks_dataflow::row::{is_null_field, project};
use deltaworks_dataflow::{Command, CommandKind, Datum, Row};
use proptest::prelude::*;

/// How a topic is written and read.
#[derive(Clone, Debug)]
struct Topic {
    options: Vec<(&'static str, String)>,
    format: Format,
    /// The PRIMARY KEY.
    key: Vec<usize>,
    columns: usize,
}
impl Topic {
    fn schema(&self) -> Schema {
        let named = |(index, data_type)| column(&format!("c{index}"), data_type);
        Schema::new(every_type().into_iter().take(self.columns).enumerate().map(named).collect())
    }
    fn options(&self) -> Options {
        Options::new(self.options.iter().map(|(name, value)| (*name, value.as_str())))
    }
    fn written(&self, changes: &Changes) -> Result<Records> {
        let spec = KafkaSinkSpec::from_options(&self.options(), &self.schema(), &self.key)?;
        let mut batch = Batch::default();
        spec.encoder.encode(changes, &mut batch)?;
        let mut records = Records::new();
        batch.iter().for_each(|(key, value)| records.push(Record { key, value, ..Record::default() }));
        Ok(records)
    }
    fn read(&self, records: &Records) -> Decoded {
        let options = self.options();
        let table = TableFormat { options, ..TableFormat::new(self.format, self.schema(), self.key.clone()) };
        decode_records(&table, records)
    }
}

/// Every way to write keys of one to three columns that both sides take.
fn any_topic() -> impl Strategy<Value = Topic> {
    let formats = [("json", Format::Json), ("csv", Format::Csv), ("debezium-json", Format::Debezium)];
    let fields = proptest::sample::subsequence(vec![1, 2, 3, 6, 7, 8, 14, 15], 1..4).prop_shuffle();
    let choices = (0..3usize, fields, proptest::sample::select(vec!["raw", "csv", "json"]), 0..3usize);
    (choices, any::<bool>(), any::<bool>()).prop_map(move |((format, fields, keys, form), except, prefixed)| {
        let (name, format) = formats[format];
        let upsert = form > 0 && format != Format::Debezium;
        let fields: Vec<usize> = fields.into_iter().take(if keys == "raw" { 1 } else { 3 }).collect();
        let names: Vec<String> = fields.iter().map(|field| format!("c{field}")).collect();
        let mut options = vec![
            ("connector", if upsert && form == 1 { "upsert-kafka" } else { "kafka" }.to_owned()),
            ("topic", "t".to_owned()),
            ("value.format", name.to_owned()),
            ("key.format", keys.to_owned()),
        ];
        if upsert && form == 2 {
            options.push(("changelog.mode", "upsert".to_owned()));
        }
        if !upsert || form == 2 {
            options.push(("key.fields", names.join(";")));
        }
        if except {
            options.push(("value.fields-include", "EXCEPT_KEY".to_owned()));
        }
        if except && prefixed {
            options.push(("key.fields-prefix", "c".to_owned()));
        }
        let key = if upsert || format == Format::Debezium { fields } else { vec![] };
        Topic { options, format, key, columns: 16 }
    })
}
fn command(kind: CommandKind, row: &[u8]) -> (CommandKind, Row) {
    (kind, Row::from_bytes(row))
}

proptest! {
    #[test]
    fn what_a_sink_writes_a_source_reads(topic in any_topic(), old in any_row(), new in any_row()) {
        let (old, mut new) = (Row::pack(old), new);
        let mut fields = vec![];
        let mut rest: &[u8] = &old;
        for (place, data_type) in every_type().iter().enumerate() {
            let datum = Datum::decode(&mut rest, data_type);
            if topic.key.contains(&place) {
                new[place] = datum.clone().into_owned();
            }
            fields.push(datum);
        }
        // A key is not NULL.
        prop_assume!(!topic.key.iter().any(|place| fields[*place].is_null()));
        let new = Row::pack(new);
        let mut deleted = vec![];
        project(&old, &topic.key, &mut deleted);
        let (mut entries, mut expected) = (vec![(RowKind::Insert, old.clone())], vec![command(CommandKind::Upsert, &old)]);
        if !topic.key.is_empty() {
            entries.extend([(RowKind::UpdateBefore, old), (RowKind::UpdateAfter, new.clone()), (RowKind::Delete, new.clone())]);
            expected.extend([command(CommandKind::Upsert, &new), command(CommandKind::Delete, &deleted)]);
        }
        let records = topic.written(&Changes { tick: 1, entries, conflicts: Vec::new() }).expect("both sides take it");
        let decoded = topic.read(&records);
        prop_assert_eq!(&decoded.dead, &vec![]);
        let read = |command: &Command| (command.kind, command.row.clone());
        prop_assert_eq!(decoded.commands.iter().map(read).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn raw_values_beside_a_key(row in any_row(), keys in proptest::sample::select(vec!["csv", "json"])) {
        let options = [("connector", "kafka"), ("topic", "t"), ("value.format", "raw"), ("key.format", keys),
            ("key.fields", "c0;c5;c4;c3;c2;c1"), ("value.fields-include", "EXCEPT_KEY")];
        let options = options.map(|(name, value)| (name, value.to_owned())).to_vec();
        let topic = Topic { options, format: Format::Raw, key: vec![], columns: 7 };
        let row = Row::pack(row.into_iter().take(7));
        let mut value = vec![];
        project(&row, &[6], &mut value);
        // Nothing stands for a value that is NULL but no value.
        prop_assume!(!is_null_field(&value));
        let entries = vec![(RowKind::Insert, row.clone())];
        let decoded = topic.read(&topic.written(&Changes { tick: 1, entries, conflicts: Vec::new() }).expect("both sides take it"));
        prop_assert_eq!(&decoded.dead, &vec![]);
        prop_assert_eq!(&decoded.commands[0].row, &row);
    }
}
