//! `plain_differential DATA --out FILE`: the job hand-written on plain differential dataflow, for comparison.
//!
//! Everything is a `u64`: ids by their digits, other strings by a table of the reading thread. The operators are the stock
//! ones: `reduce` removes events that are delivered again, `join_core` and a filter make all (order, event) pairs within the
//! 7 days, a second `reduce` keeps the first of each order; then joins with campaigns and customers, and `antijoin` for the
//! unknown ones. A table beside the dataflow keeps the last version of each customer, so that it is fed exact changes.
//!
//! One worker thread, one reading thread. The changelog goes to the file; its fold, outside the measured time, is the
//! answer.

use clap::Parser;
use deltaworks_benches::Result;
use deltaworks_benches::answer::Answer;
use deltaworks_benches::changelog::ChangelogFile;
use deltaworks_benches::input::{Merged, Sequence, Topic};
use deltaworks_benches::latency::Latencies;
use deltaworks_benches::measure::Measured;
use deltaworks_benches::records::{Campaign, Customer, Event, Order};
use deltaworks_benches::ticks::Ticks;
use differential_dataflow::consolidation::consolidate_updates;
use differential_dataflow::{AsCollection, VecCollection};
use hashbrown::HashMap;
use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::core::Input as _;
use timely::dataflow::{InputHandle, ProbeHandle, Scope};
use timely::worker::Worker;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The first-touch job on plain differential dataflow.
#[derive(Clone, Parser)]
struct Arguments {
    /// The folder with event.ndjson, sale_order.ndjson, customer.ndjson and campaign.ndjson.
    data: PathBuf,
    /// The changelog.
    #[arg(long)]
    out: PathBuf,
    /// Records per tick.
    #[arg(long, default_value_t = 10_000)]
    tick: usize,
    /// Take all orders before all events.
    #[arg(long)]
    orders_first: bool,
    /// Single changes to time when everything is held, of each kind.
    #[arg(long, default_value_t = 1000)]
    latency: u64,
}

const WEEK_MS: u64 = 7 * 86_400_000;
/// Stands for no touch, no campaign, no version of a customer.
const NONE: u64 = u64::MAX;

type Time = u64;
type Diff = i64;
/// Time, event, type, campaign.
type Touch = (u64, u64, u64, u64);
/// Order, customer, time, cents.
type OrderRow = (u64, u64, u64, u64);
/// Event: customer and touch.
type EventRow = (u64, (u64, Touch));
/// Customer: segment and channel.
type CustomerRow = (u64, (u64, u64));
/// The order, its touch, the campaign's name, segment and channel.
type Mart = (OrderRow, Touch, u64, (u64, u64));
type Updates<D> = Vec<(D, Time, Diff)>;

/// The records of one tick.
#[derive(Default)]
struct Tick {
    records: usize,
    events: Updates<EventRow>,
    orders: Updates<OrderRow>,
    customers: Vec<CustomerRow>,
    campaigns: Updates<(u64, u64)>,
    /// Strings that occur for the first time.
    strings: Vec<String>,
}
impl Tick {
    fn push(&mut self, record: Decoded, time: Time) {
        match record {
            Decoded::Event(row) => self.events.push((row, time, 1)),
            Decoded::Order(row) => self.orders.push((row, time, 1)),
            Decoded::Campaign(row) => self.campaigns.push((row, time, 1)),
            Decoded::Customer(row) => self.customers.push(row),
        }
    }
}

fn build(scope: Scope<'_, Time>, probe: &ProbeHandle<Time>) -> (Inputs, Output) {
    let (events_in, events) = input(scope);
    let (orders_in, orders) = input(scope);
    let (customers_in, customers) = input(scope);
    let (campaigns_in, campaigns) = input(scope);
    let output = Output::default();
    let ours = Rc::clone(&output);
    let keep = move |_: &Time, updates: &[(Mart, Time, Diff)]| ours.borrow_mut().extend_from_slice(updates);
    let _ = mart(events, orders, customers, campaigns).inspect_batch(keep).probe_with(probe);
    let (events, orders, customers, campaigns) = (events_in, orders_in, customers_in, campaigns_in);
    (Inputs { events, orders, customers, campaigns, versions: HashMap::new() }, output)
}

/// The job.
fn mart<'s>(
    events: VecCollection<'s, Time, EventRow, Diff>,
    orders: VecCollection<'s, Time, OrderRow, Diff>,
    customers: VecCollection<'s, Time, CustomerRow, Diff>,
    campaigns: VecCollection<'s, Time, (u64, u64), Diff>,
) -> VecCollection<'s, Time, Mart, Diff> {
    let once = events.reduce(|_, rows, first| first.push((*rows[0].0, 1)));
    let by_customer = once.map(|(_, (customer, touch))| (customer, touch)).arrange_by_key();
    let candidates =
        orders.clone().map(|order| (order.1, order)).arrange_by_key().join_core(by_customer, |_, order, touch| {
            let (time, from) = (touch.0, order.2.saturating_sub(WEEK_MS));
            (from <= time && time <= order.2).then_some((*order, *touch))
        });
    let untouched = orders.map(|order| (order, (NONE, NONE, NONE, NONE)));
    let first = candidates.concat(untouched).reduce(|_, touches, first| first.push((*touches[0].0, 1)));
    let named = first
        .map(|(order, touch)| (touch.3, (order, touch)))
        .arrange_by_key()
        .join_core(campaigns.arrange_by_key(), |_, (order, touch), name| Some((order.1, (*order, *touch, *name))));
    let known = customers.clone().map(|(customer, _)| customer);
    let unknown = named.clone().antijoin(known).map(|(_, (order, touch, name))| (order, touch, name, (NONE, NONE)));
    named
        .arrange_by_key()
        .join_core(customers.arrange_by_key(), |_, (order, touch, name), version| Some((*order, *touch, *name, *version)))
        .concat(unknown)
}

type Handle<D> = InputHandle<Time, CapacityContainerBuilder<Updates<D>>>;
type Output = Rc<RefCell<Updates<Mart>>>;

fn input<'s, D: Clone + 'static>(scope: Scope<'s, Time>) -> (Handle<D>, VecCollection<'s, Time, D, Diff>) {
    let (handle, stream) = scope.new_input::<Updates<D>>();
    (handle, stream.as_collection())
}

struct Inputs {
    events: Handle<EventRow>,
    orders: Handle<OrderRow>,
    customers: Handle<CustomerRow>,
    campaigns: Handle<(u64, u64)>,
    /// The last version of each customer.
    versions: HashMap<u64, (u64, u64)>,
}

impl Inputs {
    /// The changes that new versions of customers bring.
    fn fold(&mut self, versions: Vec<CustomerRow>, time: Time) -> Updates<CustomerRow> {
        let mut updates = Vec::with_capacity(2 * versions.len());
        for (customer, row) in versions {
            if let Some(old) = self.versions.insert(customer, row) {
                updates.push(((customer, old), time, -1));
            }
            updates.push(((customer, row), time, 1));
        }
        updates
    }
    /// Sends a tick, and steps until everything that follows from it is there.
    fn run(&mut self, worker: &mut Worker, probe: &ProbeHandle<Time>, time: Time, mut tick: Tick) {
        let mut customers = self.fold(tick.customers, time);
        self.events.send_batch(&mut tick.events);
        self.orders.send_batch(&mut tick.orders);
        self.customers.send_batch(&mut customers);
        self.campaigns.send_batch(&mut tick.campaigns);
        let next = time + 1;
        self.events.advance_to(next);
        self.orders.advance_to(next);
        self.customers.advance_to(next);
        self.campaigns.advance_to(next);
        while probe.less_than(&next) {
            worker.step();
        }
    }
}

/// Numbers for strings.
#[derive(Default)]
struct Strings {
    numbers: HashMap<String, u64>,
    /// Those not yet handed over.
    new: Vec<String>,
}
impl Strings {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.numbers.len() as u64;
        self.numbers.insert(text.to_owned(), number);
        self.new.push(text.to_owned());
        number
    }
}

/// A record with numbers for strings.
enum Decoded {
    Event(EventRow),
    Order(OrderRow),
    Customer(CustomerRow),
    Campaign((u64, u64)),
}

/// The digits of an id behind its first letter.
fn digits(id: &str) -> Result<u64> {
    Ok(id.get(1..).ok_or("an empty id")?.parse()?)
}
fn decode(topic: Topic, line: &[u8], strings: &mut Strings) -> Result<Decoded> {
    Ok(match topic {
        Topic::Event => {
            let event: Event<'_> = serde_json::from_slice(line)?;
            let (id, kind) = (digits(event.event_id)?, strings.number(event.event_type));
            let touch = (event.event_ts as u64, id, kind, event.campaign_id.parse()?);
            Decoded::Event((id, (digits(event.customer_id)?, touch)))
        }
        Topic::Order => {
            let order: Order<'_> = serde_json::from_slice(line)?;
            let (id, customer) = (digits(order.order_id)?, digits(order.customer_id)?);
            Decoded::Order((id, customer, order.order_ts as u64, order.cents() as u64))
        }
        Topic::Customer => {
            let version: Customer<'_> = serde_json::from_slice(line)?;
            let row = (strings.number(version.segment), strings.number(version.acquisition_channel));
            Decoded::Customer((digits(version.customer_id)?, row))
        }
        Topic::Campaign => {
            let campaign: Campaign<'_> = serde_json::from_slice(line)?;
            Decoded::Campaign((campaign.id as u64, strings.number(campaign.name)))
        }
    })
}

fn read(arguments: &Arguments) -> Result<Ticks<Tick>> {
    let sequence = if arguments.orders_first { Sequence::OrdersFirst } else { Sequence::ByTime };
    let (mut records, mut strings) = (Merged::open(&arguments.data, sequence)?, Strings::default());
    let (size, mut time) = (arguments.tick, 0);
    Ticks::start(move || {
        let mut tick = Tick::default();
        if time == 0 {
            tick.campaigns.push(((NONE, NONE), time, 1));
        }
        while tick.records < size {
            let Some((topic, _, line)) = records.next_record()? else { break };
            tick.push(decode(topic, line, &mut strings)?, time);
            tick.records += 1;
        }
        tick.strings.append(&mut strings.new);
        time += 1;
        Ok((tick.records > 0).then_some(tick))
    })
}

/// Writes the changes of a tick.
fn write(file: &mut ChangelogFile, time: Time, updates: &mut Updates<Mart>, strings: &[String]) -> Result<()> {
    consolidate_updates(updates);
    for group in updates.chunk_by(|a, b| a.0.0.0 == b.0.0.0) {
        file.write_key(time, group, |mart, out| write_row(mart, strings, out))?;
    }
    updates.clear();
    Ok(())
}
fn write_row(mart: &Mart, strings: &[String], out: &mut dyn Write) -> std::io::Result<()> {
    let ((order, customer, order_ts, cents), (event_ts, event, kind, _), name, (segment, channel)) = *mart;
    let text = |number: u64| strings.get(number as usize).map_or_else(|| "null".to_owned(), |text| format!("\"{text}\""));
    write!(out, r#"{{"order_id":"o{order:08}","customer_id":"c{customer:08}","order_ts":{order_ts},"cents":{cents},"#)?;
    write!(out, r#""segment":{},"acquisition_channel":{},"#, text(segment), text(channel))?;
    if event == NONE {
        return out.write_all(br#""event_id":null,"event_ts":null,"event_type":null,"campaign_name":null,"delta":null}"#);
    }
    write!(out, r#""event_id":"e{event:09}","event_ts":{event_ts},"event_type":{},"#, text(kind))?;
    write!(out, r#""campaign_name":{},"delta":{}}}"#, text(name), order_ts - event_ts)
}

/// Times single changes with everything held.
fn latencies(worker: &mut Worker, inputs: &mut Inputs, probe: &ProbeHandle<Time>, mut time: Time, count: u64) {
    let end: u64 = 1_772_000_000_000;
    for kind in ["order", "event", "customer"] {
        let mut all = Latencies::default();
        for index in 0..count {
            let customer = index * 17 % 1000;
            let record = match kind {
                "order" => Decoded::Order((90_000_000 + index, customer, end, 100)),
                "event" => Decoded::Event((900_000_000 + index, (customer, (end + index, 900_000_000 + index, 0, 1)))),
                _ => Decoded::Customer((customer, (index % 2, 1_000 + index))),
            };
            let mut tick = Tick::default();
            tick.push(record, time);
            let start = Instant::now();
            inputs.run(worker, probe, time, tick);
            all.push(start.elapsed());
            time += 1;
        }
        println!("plain_differential: one {kind}: {all}");
    }
}

fn run(worker: &mut Worker, arguments: &Arguments, start: Instant) -> Result<()> {
    let mut ticks = read(arguments)?;
    let mut file = ChangelogFile::create(&arguments.out)?;
    let probe = ProbeHandle::new();
    let (mut inputs, output) = worker.dataflow::<Time, _, _>(|scope| build(scope, &probe));
    let (mut time, mut records, mut strings) = (0, 0, Vec::new());
    while let Some(mut tick) = ticks.next_tick()? {
        records += tick.records as u64;
        strings.append(&mut tick.strings);
        inputs.run(worker, &probe, time, tick);
        write(&mut file, time, &mut output.borrow_mut(), &strings)?;
        time += 1;
    }
    let lines = file.finish()?;
    let measured = Measured::of_this_process(start)?;
    let (rows, hash) = Answer::of_changelog(&arguments.out)?.rows_and_hash()?;
    println!(
        "plain_differential: {} ticks={time} changes={lines} rows={rows} answer={hash}",
        measured.with_records(records)
    );
    if arguments.latency > 0 {
        latencies(worker, &mut inputs, &probe, time, arguments.latency);
    }
    Ok(())
}

fn main() -> Result<()> {
    let start = Instant::now();
    let arguments = Arguments::parse();
    timely::execute::execute_directly(move |worker| run(worker, &arguments, start))
}
