//! `by_hand_rows DATA --out FILE`: the job by hand on our packed rows and operators, as the planner should build it.
//!
//! ```text
//! campaign   last_row --------------------------------------+
//! customer   last_row -------------------------------+       |
//! event      first_row -- by customer, time --+      |       |
//! sale_order last_row --- by customer, time --+-- lookback --+-- left join --+-- left join -- changelog
//! ```
//!
//! The reading thread reads, merges, decodes, and writes the changelog; the workers do everything else. What is measured is
//! the process from its start until the changelog is written; the file's fold, outside of it, is the answer.

use clap::Parser;
use deltaworks_benches::Result;
use deltaworks_benches::answer::Answer;
use deltaworks_benches::input::{Merged, Sequence, Topic};
use deltaworks_benches::latency::Latencies;
use deltaworks_benches::measure::Measured;
use deltaworks_connectors::sink::{SinkFormat, SinkTarget};
use deltaworks_connectors::{
    ChangeSink, Decoded, Decoder, Format, Record, RecordSource, Records, Replay, SinkSpec, TableFormat, TopicFilter,
};
use deltaworks_dataflow::arrange::arrange;
use deltaworks_dataflow::changelog::Changelog;
use deltaworks_dataflow::host::{Build, Host, InputBatch};
use deltaworks_dataflow::row::{encode_int, encode_null, field_offsets};
use deltaworks_dataflow::{
    Arranged, Collection, Column, Command, CommandKind, DataType, Datum, Diff, KeyedCollection, Position, Row, Schema, Time,
};
use deltaworks_operators::gather::gather;
use deltaworks_operators::join::{OuterKind, Pick, Range, Window, lookback_join, outer_join};
use deltaworks_operators::merge::{DeleteBehavior, Engine, MergeSpec, merge};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The commands of a tick by topic.
type TopicCommands = Vec<(Topic, Vec<Command>)>;

/// The first-touch job by hand on packed rows.
#[derive(Parser)]
struct Arguments {
    /// The folder with the files of JSON lines, or with recorded topics.
    data: PathBuf,
    /// The changelog.
    #[arg(long)]
    out: PathBuf,
    /// Read recorded topics.
    #[arg(long)]
    replay: bool,
    /// Records per tick.
    #[arg(long, default_value_t = 10_000)]
    tick: usize,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Take all orders before all events.
    #[arg(long)]
    orders_first: bool,
    /// Single changes to time when everything is held, of each kind.
    #[arg(long, default_value_t = 1000)]
    latency: u64,
}

const WEEK_MS: i64 = 7 * 86_400_000;
/// Ticks that may be under way.
const IN_FLIGHT: u64 = 2;

type Changed = (Time, Vec<(Row, Diff)>);

// ---- tables

fn columns(columns: &[(&str, DataType)]) -> Schema {
    Schema::new(columns.iter().map(|(name, data_type)| Column::new(*name, data_type.clone())).collect())
}
const MONEY: DataType = DataType::Decimal { precision: 10, scale: 2 };

/// The columns that the job needs of a topic; the first is the key.
fn schema(topic: Topic) -> Schema {
    use DataType::{BigInt, Int, String};
    match topic {
        Topic::Campaign => columns(&[("id", Int), ("name", String)]),
        Topic::Customer => columns(&[("customer_id", String), ("segment", String), ("acquisition_channel", String)]),
        Topic::Event => columns(&[
            ("event_id", String),
            ("customer_id", String),
            ("event_type", String),
            ("campaign_id", String),
            ("event_ts", BigInt),
        ]),
        Topic::Order => {
            columns(&[("order_id", String), ("customer_id", String), ("total_amount", MONEY), ("order_ts", BigInt)])
        }
    }
}
fn mart_schema() -> Schema {
    use DataType::{BigInt, String};
    columns(&[
        ("order_id", String),
        ("customer_id", String),
        ("order_ts", BigInt),
        ("cents", BigInt),
        ("segment", String),
        ("acquisition_channel", String),
        ("event_id", String),
        ("event_ts", BigInt),
        ("event_type", String),
        ("campaign_name", String),
        ("delta", BigInt),
    ])
}
fn table<'s>(build: &mut Build<'_, 's>, topic: Topic) -> Collection<'s> {
    let (engine, delete) = match topic {
        Topic::Event => (Engine::FirstRow, DeleteBehavior::Ignore),
        _ => (Engine::LastRow, DeleteBehavior::Allow),
    };
    let commands = build.commands(topic as u32);
    let (rows, rejected) = merge(commands, MergeSpec::new(vec![0], engine, delete), Default::default(), topic.name());
    build.watch(rejected);
    rows
}

// ---- the job

/// Builds rows from fields of others.
#[derive(Default)]
struct Fields {
    ends: Vec<usize>,
    key: Vec<u8>,
    value: Vec<u8>,
}
impl Fields {
    /// The row's fields as key and value.
    fn split(&mut self, row: &[u8], key: &[usize], value: &[usize]) -> (Row, Row) {
        field_offsets(row, &mut self.ends);
        self.key.clear();
        self.value.clear();
        for (columns, bytes) in [(key, &mut self.key), (value, &mut self.value)] {
            for column in columns {
                bytes.extend_from_slice(&row[self.ends[*column]..self.ends[*column + 1]]);
            }
        }
        (Row::from_bytes(&self.key), Row::from_bytes(&self.value))
    }
}
fn keyed<'s>(rows: Collection<'s>, key: &'static [usize], value: &'static [usize]) -> KeyedCollection<'s> {
    let mut fields = Fields::default();
    rows.map(move |row| fields.split(&row, key, value))
}

/// Orders with their first touch, by campaign: customer, order_ts, order, amount, event_ts, event, type.
fn touched<'s>(orders: Arranged<'s>, events: Arranged<'s>) -> KeyedCollection<'s> {
    let (mut key, mut value, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let week = Range::Window(Window { before: WEEK_MS, after: 0 });
    lookback_join(orders, events, week, Pick::First, true, "Lookback", move |customer, order, event, _| {
        key.clear();
        value.clear();
        value.extend_from_slice(customer);
        value.extend_from_slice(order);
        match event {
            Some(event) => {
                field_offsets(event, &mut ends);
                value.extend_from_slice(&event[..ends[3]]);
                campaign_number(&event[ends[3]..], &mut key);
            }
            None => (0..3).for_each(|_| encode_null(&mut value)),
        }
        if key.is_empty() {
            encode_null(&mut key);
        }
        Some((Row::from_bytes(&key), Row::from_bytes(&value)))
    })
}
/// CAST(campaign_id AS INT).
fn campaign_number(mut field: &[u8], key: &mut Vec<u8>) {
    if let Datum::Str(text) = Datum::decode(&mut field, &DataType::String)
        && let Ok(number) = text.parse::<i32>()
    {
        encode_int(key, number.into());
    }
}
/// The same with the campaign's name behind, by customer.
fn named<'s>(touched: Arranged<'s>, campaigns: Arranged<'s>) -> KeyedCollection<'s> {
    let (mut fields, mut row) = (Fields::default(), Vec::new());
    outer_join(touched, campaigns, OuterKind::Left, false, false, "Join: campaign", move |_, touched, name| {
        row.clear();
        row.extend_from_slice(touched.unwrap_or_default());
        match name {
            Some(name) => row.extend_from_slice(name),
            None => encode_null(&mut row),
        }
        Some(fields.split(&row, &[0], &[1, 2, 3, 4, 5, 6, 7]))
    })
}
/// The mart's rows.
fn mart<'s>(named: Arranged<'s>, customers: Arranged<'s>) -> Collection<'s> {
    let (mut row, mut ends) = (Vec::new(), Vec::new());
    outer_join(named, customers, OuterKind::Left, false, false, "Join: customer", move |customer, order, version| {
        let order = order.unwrap_or_default();
        field_offsets(order, &mut ends);
        let field = |column: usize| &order[ends[column]..ends[column + 1]];
        row.clear();
        // order_id, customer_id, order_ts; a DECIMAL(10, 2) and its cents are the same bytes.
        [field(1), customer, field(0), field(2)].iter().for_each(|field| row.extend_from_slice(field));
        match version {
            Some(version) => row.extend_from_slice(version),
            None => (0..2).for_each(|_| encode_null(&mut row)),
        }
        [field(4), field(3), field(5), field(6)].iter().for_each(|field| row.extend_from_slice(field));
        match (integer(field(0)), integer(field(3))) {
            (Some(order), Some(event)) => encode_int(&mut row, order - event),
            _ => encode_null(&mut row),
        }
        Some(Row::from_bytes(&row))
    })
}
fn integer(mut field: &[u8]) -> Option<i64> {
    match Datum::decode(&mut field, &DataType::BigInt) {
        Datum::Int(value) => Some(value),
        _ => None,
    }
}

fn build(build: &mut Build<'_, '_>, changed: &Sender<Changed>) {
    let [campaigns, customers, events, orders] = Topic::ALL.map(|topic| table(build, topic));
    let events = arrange(keyed(events, &[1], &[4, 0, 2, 3]), "Arrange: event");
    let orders = arrange(keyed(orders, &[1], &[3, 0, 2]), "Arrange: sale_order");
    let campaigns = arrange(keyed(campaigns, &[0], &[1]), "Arrange: campaign");
    let customers = arrange(keyed(customers, &[0], &[1, 2]), "Arrange: customer");
    let touched = arrange(touched(orders, events), "Arrange: touch");
    let named = arrange(named(touched, campaigns), "Arrange: by customer");
    let changed = changed.clone();
    let done = gather(mart(named, customers), build.start, "Sink", move |tick, updates| {
        // Nobody listens any more only when the run has failed.
        let _ = changed.send((tick, updates));
    });
    build.watch(done);
}

// ---- input

/// Reads ticks of records and decodes them.
struct Input {
    source: Source,
    decoders: Vec<(Topic, Box<dyn Decoder>, TopicFilter)>,
    records: Records,
    decoded: Decoded,
}
enum Source {
    Files(Box<Merged>),
    Topics(Replay),
}

impl Input {
    fn open(arguments: &Arguments) -> Result<Input> {
        let names = Topic::ALL.map(|topic| topic.name().to_owned());
        let decoder = |topic: Topic| {
            let format = TableFormat::new(Format::Json, schema(topic), vec![0]);
            Ok((topic, format.decoder()?, TopicFilter::new(&names, |name| name == topic.name())))
        };
        let sequence = if arguments.orders_first { Sequence::OrdersFirst } else { Sequence::ByTime };
        let source = match arguments.replay {
            true => Source::Topics(Replay::open(&arguments.data, &names)?),
            false => Source::Files(Box::new(Merged::open(&arguments.data, sequence)?)),
        };
        let decoders = Topic::ALL.into_iter().map(decoder).collect::<Result<_>>()?;
        Ok(Input { source, decoders, records: Records::new(), decoded: Decoded::default() })
    }
    /// The number of records of the next tick, and its commands.
    fn next_tick(&mut self, size: usize) -> Result<(usize, TopicCommands)> {
        self.records.clear();
        match &mut self.source {
            Source::Files(files) => read_lines(files, size, &mut self.records)?,
            Source::Topics(topics) => drop(topics.read(size, usize::MAX, &mut self.records)?),
        }
        let mut batches = Vec::with_capacity(4);
        for (topic, decoder, filter) in &mut self.decoders {
            decoder.decode(&self.records, filter, &mut self.decoded);
            batches.push((*topic, std::mem::take(&mut self.decoded.commands)));
        }
        match self.decoded.dead.first() {
            Some(dead) => Err(format!("a record was rejected: {}", dead.reason).into()),
            None => Ok((self.records.len(), batches)),
        }
    }
}
fn read_lines(files: &mut Merged, size: usize, into: &mut Records) -> Result<()> {
    while into.len() < size {
        let Some((topic, timestamp, line)) = files.next_record()? else { break };
        let offset = into.len() as u64;
        into.push(Record { topic: topic as u32, offset, timestamp, value: Some(line), ..Record::default() });
    }
    Ok(())
}

// ---- the run

struct Run {
    host: Host,
    changed: Receiver<Changed>,
    changelog: Changelog,
    sink: Box<dyn ChangeSink>,
    lines: u64,
}

impl Run {
    fn start(arguments: &Arguments) -> Result<Run> {
        let host = Host::start(arguments.workers)?;
        let (sender, changed) = channel();
        host.install("first_touch", Arc::new(move |b: &mut Build<'_, '_>| build(b, &sender)));
        let target = SinkTarget::File(arguments.out.clone());
        let sink = SinkSpec::new(target, SinkFormat::ChangelogJson, &mart_schema(), &[0])?.open()?;
        Ok(Run { host, changed, changelog: Changelog::new(vec![0]), sink, lines: 0 })
    }
    /// Starts a tick with the commands dealt to the workers, who exchange them by key.
    fn tick(&mut self, batches: Vec<(Topic, Vec<Command>)>) -> Time {
        let workers = self.host.workers();
        let mut inputs: Vec<Vec<(u32, InputBatch)>> = (0..workers).map(|_| Vec::new()).collect();
        for (topic, mut commands) in batches {
            for (index, input) in inputs.iter_mut().enumerate().rev() {
                let share = commands.split_off(commands.len() * index / (index + 1));
                if !share.is_empty() {
                    input.push((topic as u32, InputBatch::Commands(share)));
                }
            }
        }
        self.host.tick(inputs)
    }
    /// Writes what has arrived.
    fn write(&mut self) -> Result<()> {
        while let Ok((tick, updates)) = self.changed.try_recv() {
            let changes = self.changelog.changes(tick, updates);
            self.lines += changes.entries.len() as u64;
            self.sink.write(&changes)?;
        }
        Ok(())
    }
    /// Runs all ticks and returns the numbers of records and ticks.
    fn all(&mut self, input: &mut Input, size: usize) -> Result<(u64, u64)> {
        let (mut records, mut ticks) = (0, 0);
        loop {
            let (count, batches) = input.next_tick(size)?;
            if count == 0 {
                break;
            }
            records += count as u64;
            ticks += 1;
            let tick = self.tick(batches);
            if let Some(before) = tick.checked_sub(IN_FLIGHT).filter(|before| *before > 0) {
                self.host.wait_complete(before)?;
            }
            self.write()?;
        }
        self.host.wait_complete(self.host.next_tick() - 1)?;
        self.write()?;
        self.sink.finish()?;
        Ok((records, ticks))
    }
    /// Times single changes with everything held: from the request to its completion on all workers, the sink included.
    fn latencies(&mut self, count: u64) -> Result<()> {
        for topic in [Topic::Order, Topic::Event, Topic::Customer] {
            let mut all = Latencies::default();
            for index in 0..count {
                let batches = vec![(topic, vec![single(topic, index)])];
                let start = Instant::now();
                let tick = self.tick(batches);
                self.host.wait_complete(tick)?;
                all.push(start.elapsed());
                self.changed.try_iter().for_each(drop);
                // Lets the worker go to sleep, as it would between changes that come one by one.
                std::thread::sleep(Duration::from_micros(50));
            }
            println!("by_hand_rows: one {}: {all}", topic.name());
        }
        Ok(())
    }
}

/// A change that has not been there before.
fn single(topic: Topic, index: u64) -> Command {
    let end = 1_772_000_000_000;
    let customer = format!("c{:08}", index * 17 % 1000);
    let row = match topic {
        Topic::Order => [Datum::str(format!("x{index}")), Datum::str(customer), Datum::Int(100), Datum::Int(end)].to_vec(),
        Topic::Event => [
            Datum::str(format!("x{index}")),
            Datum::str(customer),
            Datum::str("view"),
            Datum::str("1"),
            Datum::Int(end + index as i64),
        ]
        .to_vec(),
        _ => [Datum::str(customer), Datum::str("vip"), Datum::str(format!("z{index}"))].to_vec(),
    };
    Command { position: Position::default(), kind: CommandKind::Upsert, row: Row::pack(row) }
}

fn main() -> Result<()> {
    let start = Instant::now();
    let arguments = Arguments::parse();
    let mut run = Run::start(&arguments)?;
    let (records, ticks) = run.all(&mut Input::open(&arguments)?, arguments.tick)?;
    let measured = Measured::of_this_process(start)?;
    let (rows, hash) = Answer::of_changelog(&arguments.out)?.rows_and_hash()?;
    let changes = run.lines;
    println!("by_hand_rows: {} ticks={ticks} changes={changes} rows={rows} answer={hash}", measured.with_records(records));
    if arguments.latency > 0 {
        run.latencies(arguments.latency)?;
    }
    Ok(run.host.stop()?)
}
