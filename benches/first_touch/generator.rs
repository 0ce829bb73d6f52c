//! `generator --out DIR`: makes the first-touch workload, as recorded topics or as plain files of JSON lines.

use clap::{Parser, ValueEnum};
use deltaworks_benches::Result;
use deltaworks_benches::generator::{Made, Size, Workload};
use deltaworks_benches::input::{Sequence, Topic};
use deltaworks_benches::topics::{TopicWriter, buffered};
use std::fs::{File, create_dir_all};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Makes the first-touch workload from a seed.
#[derive(Parser)]
struct Arguments {
    /// small (1e4 events), mid (2e5), medium (1e6) or large (1e7).
    #[arg(long, default_value = "small")]
    size: String,
    /// The folder to write to.
    #[arg(long)]
    out: PathBuf,
    /// Recorded topics (`DIR/<topic>/<partition>.jsonl`) or plain files (`DIR/<topic>.ndjson`).
    #[arg(long, value_enum, default_value = "topics")]
    format: Format,
    /// Partitions per recorded topic.
    #[arg(long, default_value_t = 1)]
    partitions: usize,
    /// The seed.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Give one customer about 8 % of everything.
    #[arg(long)]
    hot: bool,
    /// Let all orders arrive before all events (recorded topics only: plain files bear no arrival).
    #[arg(long)]
    orders_first: bool,
    /// Older events per event, outside every order's 7 days.
    #[arg(long, default_value_t = 0)]
    history: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Topics,
    Ndjson,
}

/// Where a topic's records go.
enum Out {
    Topic(TopicWriter),
    File(BufWriter<File>),
}

impl Out {
    fn open(arguments: &Arguments, topic: Topic) -> Result<Out> {
        create_dir_all(&arguments.out)?;
        Ok(match arguments.format {
            Format::Topics => Out::Topic(TopicWriter::create(&arguments.out, topic.name(), arguments.partitions)?),
            Format::Ndjson => Out::File(buffered(&arguments.out.join(format!("{}.ndjson", topic.name())))?),
        })
    }
    fn write(&mut self, made: &Made<'_>) -> Result<()> {
        match self {
            Out::Topic(topic) => topic.write(made.arrival, made.key, made.value),
            Out::File(file) => Ok(writeln!(file, "{}", made.value)?),
        }
    }
    fn finish(self) -> Result<()> {
        match self {
            Out::Topic(topic) => topic.finish(),
            Out::File(mut file) => Ok(file.flush()?),
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let size = Size::named(&arguments.size).ok_or("--size is small, mid, medium or large")?;
    let sequence = if arguments.orders_first { Sequence::OrdersFirst } else { Sequence::ByTime };
    let Arguments { seed, hot, history, .. } = arguments;
    let workload = Workload { size, seed, hot, history, sequence };
    let [campaign, customer, event, order] = Topic::ALL.map(|topic| Out::open(&arguments, topic));
    let mut outs = [campaign?, customer?, event?, order?];
    let mut counts = [0u64; 4];
    workload.make(&mut |made| {
        counts[made.topic as usize] += 1;
        outs[made.topic as usize].write(&made)
    })?;
    for ((topic, out), count) in Topic::ALL.into_iter().zip(outs).zip(counts) {
        out.finish()?;
        println!("{}: {count} records", topic.name());
    }
    Ok(())
}
