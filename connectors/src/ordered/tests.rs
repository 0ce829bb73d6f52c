//! Merged files: one order, whatever the blocks and ticks.

use super::*;
use crate::decode::{Decoder, TopicFilter};
use crate::format::Format;
use crate::options::Options;
use deltaworks_dataflow::{Column, Schema};
use proptest::prelude::*;

fn table(column: &str, data_type: DataType) -> TableFormat {
    let columns = vec![Column::new("id", DataType::BigInt), Column::new("ts", data_type)];
    let options = Options::new([("connector", "filesystem"), (TIMESTAMP_COLUMN, column)]);
    TableFormat { options, ..TableFormat::new(Format::Json, Schema::new(columns), vec![]) }
}
/// Reads lanes of timestamps (None: NULL) in ticks of `size`: (lane, number in the lane, place in time) in the order taken.
fn read(lanes: &[Vec<Option<i64>>], size: usize) -> Vec<(usize, i64, i64)> {
    let dir = tempfile::tempdir().expect("a folder");
    let table = table("ts", DataType::BigInt);
    let mut sources = Vec::new();
    let mut decoders: Vec<(Box<dyn Decoder>, TopicFilter)> = Vec::new();
    for (lane, timestamps) in lanes.iter().enumerate() {
        let path = dir.path().join(format!("{lane}.json"));
        let line = |(id, ts): (usize, &Option<i64>)| {
            format!("{{\"id\":{id},\"ts\":{}}}\n", ts.map_or("null".into(), |ts| ts.to_string()))
        };
        std::fs::write(&path, timestamps.iter().enumerate().map(line).collect::<String>()).expect("a file");
        let source = FileSource::from_files(vec![path], &table).expect("a source");
        decoders.push((table.decoder().expect("a decoder"), TopicFilter::all(source.topics())));
        sources.push((source, TimestampColumn::of(&table).expect("it is there").expect("it is named")));
    }
    let mut files = OrderedFiles::new(sources);
    let mut taken = Vec::new();
    loop {
        let mut out = vec![Decoded::default(); lanes.len()];
        let mut decode = |lane: usize, records: &Records, out: &mut Decoded| {
            let (decoder, topics) = &mut decoders[lane];
            decoder.decode(records, topics, out);
        };
        let state = files.read(size, &mut decode, &mut out).expect("commands");
        let mut tick: Vec<(i64, usize, i64)> = Vec::new();
        for (lane, decoded) in out.iter().enumerate() {
            assert!(decoded.dead.is_empty());
            for command in &decoded.commands {
                let Datum::Int(id) = Datum::decode(&mut &command.row[..], &DataType::BigInt) else { panic!("an id") };
                tick.push((command.position.timestamp, lane, id));
            }
        }
        assert!(tick.len() <= size);
        tick.sort();
        taken.extend(tick.into_iter().map(|(time, lane, id)| (lane, id, time)));
        if state == ReadState::End {
            return taken;
        }
    }
}

proptest! {
    #[test]
    fn lanes_merge_in_the_order_of_their_largest_timestamps_so_far(
        lanes in proptest::collection::vec(proptest::collection::vec(proptest::option::of(0i64..20), 0..30), 1..4),
        size in 1usize..12,
    ) {
        let mut expected = Vec::new();
        for (lane, timestamps) in lanes.iter().enumerate() {
            let mut largest = NO_TIMESTAMP;
            for (id, timestamp) in timestamps.iter().enumerate() {
                largest = timestamp.unwrap_or(NO_TIMESTAMP).max(largest);
                expected.push((largest, lane, id as i64));
            }
        }
        expected.sort();
        let expected: Vec<(usize, i64, i64)> = expected.into_iter().map(|(time, lane, id)| (lane, id, time)).collect();
        prop_assert_eq!(read(&lanes, size), expected);
    }
}

#[test]
fn blocks_do_not_show() {
    let lanes = [(0..3000).map(|i| Some(i * 2)).collect(), (0..2500).map(|i| Some(i * 3 + 1)).collect::<Vec<_>>()];
    let taken = read(&lanes, 700);
    assert_eq!(taken.len(), 5500);
    assert!(taken.is_sorted_by_key(|(lane, _, time)| (*time, *lane)));
}

#[test]
fn a_column_that_holds_no_timestamps_is_refused() {
    for (column, data_type) in [("tss", DataType::BigInt), ("ts", DataType::String), ("ts", DataType::Int)] {
        let error = TimestampColumn::of(&table(column, data_type)).expect_err("refused").to_string();
        assert!(error.contains("scan.timestamp-column"), "{error}");
    }
    let none = TableFormat { options: Options::default(), ..table("ts", DataType::BigInt) };
    assert_eq!(TimestampColumn::of(&none).expect("nothing wrong"), None);
}
