//! `convert DATA TOPICS`: the workload's files as recorded topics that replay in the order in which `input.rs` takes them.
//!
//! A record's timestamp is the time it is merged by (0 for campaigns). With one partition per topic the replay takes the
//! very same sequence. With more, a late line no longer holds back those of other partitions: the sequence differs a
//! little, the answer does not.

use clap::Parser;
use deltaworks_benches::Result;
use deltaworks_benches::input::{Lines, Sequence, Topic};
use deltaworks_benches::records::{Campaign, Customer, Event, Order};
use deltaworks_benches::topics::TopicWriter;
use std::path::{Path, PathBuf};

/// Turns files of JSON lines into recorded topics.
#[derive(Parser)]
struct Arguments {
    /// The folder with event.ndjson, sale_order.ndjson, customer.ndjson and campaign.ndjson.
    data: PathBuf,
    /// The folder to write to.
    topics: PathBuf,
    /// Partitions per topic.
    #[arg(long, default_value_t = 1)]
    partitions: usize,
    /// Put all orders before all events.
    #[arg(long)]
    orders_first: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let sequence = if arguments.orders_first { Sequence::OrdersFirst } else { Sequence::ByTime };
    for topic in Topic::ALL {
        let records = convert(topic, &arguments, sequence)?;
        println!("{}: {records} records", arguments.topics.join(topic.name()).display());
    }
    Ok(())
}

fn convert(topic: Topic, arguments: &Arguments, sequence: Sequence) -> Result<u64> {
    let mut lines = Lines::open(&source(&arguments.data, topic))?;
    let mut writer = TopicWriter::create(&arguments.topics, topic.name(), arguments.partitions)?;
    let mut records = 0;
    while let Some(line) = lines.next_line()? {
        let line = std::str::from_utf8(line)?;
        let number;
        let (time, key) = match topic {
            Topic::Event => serde_json::from_str::<Event<'_>>(line).map(|event| (event.event_ts, event.event_id))?,
            Topic::Order => serde_json::from_str::<Order<'_>>(line).map(|order| (order.order_ts, order.order_id))?,
            Topic::Customer => {
                serde_json::from_str::<Customer<'_>>(line).map(|version| (version.last_purchase_ts, version.customer_id))?
            }
            Topic::Campaign => {
                number = serde_json::from_str::<Campaign<'_>>(line)?.id.to_string();
                (0, number.as_str())
            }
        };
        writer.write(sequence.time(topic, time), key, line)?;
        records += 1;
    }
    writer.finish()?;
    Ok(records)
}
fn source(data: &Path, topic: Topic) -> PathBuf {
    data.join(format!("{}.ndjson", topic.name()))
}
