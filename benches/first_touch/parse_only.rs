//! `parse_only DATA`: reads and parses the workload's files and does nothing else: the floor of every engine's time.
//!
//! One pass, file after file, each line into a borrowed struct by serde_json.

use clap::Parser;
use deltaworks_benches::Result;
use deltaworks_benches::input::{Lines, Topic};
use deltaworks_benches::measure::Measured;
use deltaworks_benches::records::{Campaign, Customer, Event, Order};
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Parses the workload's JSON and does nothing else.
#[derive(Parser)]
struct Arguments {
    /// The folder with event.ndjson, sale_order.ndjson, customer.ndjson and campaign.ndjson.
    data: PathBuf,
}

fn main() -> Result<()> {
    let start = Instant::now();
    let arguments = Arguments::parse();
    let mut records = 0u64;
    for topic in Topic::ALL {
        let mut lines = Lines::open(&arguments.data.join(format!("{}.ndjson", topic.name())))?;
        while let Some(line) = lines.next_line()? {
            parse(topic, line)?;
            records += 1;
        }
    }
    println!("parse_only: {}", Measured::of_this_process(start)?.with_records(records));
    Ok(())
}

fn parse(topic: Topic, line: &[u8]) -> Result<()> {
    match topic {
        Topic::Event => drop(black_box(serde_json::from_slice::<Event<'_>>(line)?)),
        Topic::Order => drop(black_box(serde_json::from_slice::<Order<'_>>(line)?)),
        Topic::Customer => drop(black_box(serde_json::from_slice::<Customer<'_>>(line)?)),
        Topic::Campaign => drop(black_box(serde_json::from_slice::<Campaign<'_>>(line)?)),
    }
    Ok(())
}
