//! The first-touch workload, made from a seed: campaigns, versions of customers, events and orders.
//!
//! - 60 days from 2026-01-01; the hour of the day follows a curve with two humps.
//! - Arrival: 90 % within 2 s, 9 % after an exponential delay of 20 min, 1 % within 4 h. Records come in order of arrival.
//! - 1 % of the events are delivered again, byte for byte, some minutes later.
//! - Customers by Zipf-Mandelbrot, s = 1 and q = customers / 2000 (1 % of them have about 40 % of the events); with `hot` by
//!   plain Zipf, where one customer has about 8 % of everything. Campaigns by Zipf, s = 1.3, the rest on the last one.
//! - 75 % of the orders follow an event of their customer by an exponential delay of 2 days, 10 at most; the others are
//!   independent of events.
//! - 99 % of the customers have a first version before all events; 30 % of their orders bring a new version, whose
//!   `last_purchase_ts` grows strictly per customer.
//! - With `history` K, every event has K more of the same customer, at least 8 days before all others: in no order's 7 days.
//! - Ids are scrambled: their order says nothing about times.

use std::fmt::Write;

use crate::Result;
use crate::input::{Sequence, Topic};
use crate::random::{Random, Weighted, exp, ln};

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const DAYS: i64 = 60;
/// How often each hour of the day occurs.
const HOURS: [f64; 24] = [2., 1., 1., 1., 1., 2., 3., 5., 7., 8., 8., 8., 9., 8., 7., 7., 7., 8., 9., 10., 10., 9., 6., 4.];
const EVENT_TYPES: [(&str, f64); 6] =
    [("view", 0.45), ("click", 0.25), ("visit", 0.15), ("add_to_cart", 0.08), ("open", 0.05), ("signup", 0.02)];
const SEGMENTS: [&str; 5] = ["new", "bronze", "silver", "gold", "vip"];
const CHANNELS: [&str; 7] = ["seo", "sem", "social", "email", "affiliate", "direct", "referral"];
const COUNTRIES: [&str; 10] = ["FR", "US", "DE", "GB", "ES", "IT", "BR", "IN", "JP", "CN"];
/// The sum of k^-1.3 over all k.
const ZETA: f64 = 3.931_949_211_8;

/// How much of everything there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Events, those delivered again included.
    pub events: u32,
    /// Orders.
    pub orders: u32,
    /// Customers, known or not.
    pub customers: u32,
    /// Campaigns.
    pub campaigns: u32,
}

impl Size {
    /// The size of that name: `small`, `mid`, `medium` or `large`.
    pub fn named(name: &str) -> Option<Size> {
        let (events, orders, customers, campaigns) = match name {
            "small" => (10_000, 1_000, 1_000, 20),
            "mid" => (200_000, 20_000, 20_000, 200),
            "medium" => (1_000_000, 100_000, 100_000, 200),
            "large" => (10_000_000, 1_000_000, 1_000_000, 500),
            _ => return None,
        };
        Some(Size { events, orders, customers, campaigns })
    }
}

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// How much of everything.
    pub size: Size,
    /// The seed.
    pub seed: u64,
    /// Whether one customer has about 8 % of everything.
    pub hot: bool,
    /// How many older events every event has.
    pub history: u32,
    /// In which order the topics arrive.
    pub sequence: Sequence,
}

/// A record of the workload.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// Its topic.
    pub topic: Topic,
    /// When it arrives, in milliseconds since 1970.
    pub arrival: i64,
    /// Its key.
    pub key: &'a str,
    /// Its value, as JSON.
    pub value: &'a str,
}

/// What happened to a customer, in milliseconds since the start.
#[derive(Clone, Copy)]
struct Happening {
    time: i64,
    arrival: i64,
    customer: u32,
}

/// Takes the records, topic after topic, each in order of arrival.
type Emit<'e> = dyn FnMut(Made<'_>) -> Result<()> + 'e;

impl Workload {
    /// Makes the records.
    ///
    /// # Errors
    /// Those of `emit`.
    pub fn make(&self, emit: &mut Emit<'_>) -> Result<()> {
        let root = Random::new(self.seed);
        let mut emit = |mut made: Made<'_>| {
            made.arrival = self.sequence.time(made.topic, made.arrival);
            emit(made)
        };
        let customers = Customers::new(self, &mut root.fork(1));
        self.campaigns(&mut emit)?;
        let events = self.events(&customers, &mut root.fork(2), &mut emit)?;
        let orders = self.orders(&customers, &events, &mut root.fork(3), &mut emit)?;
        drop(events);
        self.customers(&orders, &mut root.fork(4), &mut emit)
    }

    fn campaigns(&self, emit: &mut Emit<'_>) -> Result<()> {
        let (mut key, mut value) = (String::new(), String::new());
        for id in 1..=self.size.campaigns {
            set(&mut key, format_args!("{id}"))?;
            set(&mut value, format_args!(r#"{{"id":{id},"name":"campaign_{id:04}"}}"#))?;
            emit(Made { topic: Topic::Campaign, arrival: 0, key: &key, value: &value })?;
        }
        Ok(())
    }

    fn events(&self, customers: &Customers, random: &mut Random, emit: &mut Emit<'_>) -> Result<Vec<Happening>> {
        let (again, mut times) = (self.size.events / 100, Times::new());
        let once = self.size.events - again;
        let mut draw = |random: &mut Random| {
            let time = times.draw(random);
            Happening { time, arrival: time + delay(random), customer: customers.draw(random) }
        };
        let happenings: Vec<Happening> = (0..once).map(|_| draw(random)).collect();
        let arrivals = happenings.iter().map(|event| event.arrival).zip(0..once);
        let mut arrivals: Vec<(i64, u32)> = arrivals.collect();
        for event in random.permutation(once).into_iter().take(again as usize) {
            let later = 1 + random.exponential(600_000.0) as i64;
            arrivals.push((happenings[event as usize].arrival + later, event));
        }
        arrivals.sort_unstable();
        let mut writer = EventWriter::new(self.size.campaigns, once, random);
        self.history(&happenings, &mut writer, emit)?;
        for (arrival, event) in arrivals {
            writer.write(event, &happenings[event as usize], START + arrival, emit)?;
        }
        Ok(happenings)
    }
    /// The older events of all customers, as a block before everything else.
    fn history(&self, events: &[Happening], writer: &mut EventWriter, emit: &mut Emit<'_>) -> Result<()> {
        let span = DAYS * DAY;
        for round in 1..=self.history {
            for (index, event) in (0..).zip(events) {
                let older = Happening { time: event.time - 8 * DAY - i64::from(round) * span, ..*event };
                writer.write(round * events.len() as u32 + index, &older, START - 2 * DAY, emit)?;
            }
        }
        Ok(())
    }

    fn orders(
        &self,
        customers: &Customers,
        events: &[Happening],
        random: &mut Random,
        emit: &mut Emit<'_>,
    ) -> Result<Vec<Happening>> {
        let mut times = Times::new();
        let end = DAYS * DAY;
        let mut draw = |random: &mut Random| {
            let (mut time, customer) = if random.chance(0.75) {
                let event = &events[random.below(events.len() as u64) as usize];
                let after = random.exponential(2.0 * DAY as f64) as i64;
                (event.time + after.min(10 * DAY), event.customer)
            } else {
                (times.draw(random), customers.draw(random))
            };
            if time >= end {
                time = end - 1 - random.below(DAY as u64) as i64;
            }
            Happening { time, arrival: time + delay(random), customer }
        };
        let mut orders: Vec<Happening> = (0..self.size.orders).map(|_| draw(random)).collect();
        orders.sort_by_key(|order| order.arrival);
        let ids = random.permutation(self.size.orders);
        let (mut key, mut value) = (String::new(), String::new());
        for (order, id) in orders.iter().zip(ids) {
            let cents = (exp(8.3 + 0.9 * random.normal()) as i64 + 100).min(9_999_999);
            let (whole, rest, time) = (cents / 100, cents % 100, START + order.time);
            set(&mut key, format_args!("o{id:08}"))?;
            set(
                &mut value,
                format_args!(
                    r#"{{"order_id":"{key}","customer_id":"c{:08}","total_amount":{whole}.{rest:02},"order_ts":{time}}}"#,
                    order.customer
                ),
            )?;
            emit(Made { topic: Topic::Order, arrival: START + order.arrival, key: &key, value: &value })?;
        }
        Ok(orders)
    }

    fn customers(&self, orders: &[Happening], random: &mut Random, emit: &mut Emit<'_>) -> Result<()> {
        let known: Vec<bool> = (0..self.size.customers).map(|_| random.chance(0.99)).collect();
        let fixed: Vec<(usize, usize)> = known.iter().map(|_| (pick(random, &CHANNELS), pick(random, &COUNTRIES))).collect();
        let mut updates: Vec<(u32, i64)> = Vec::new();
        for order in orders {
            if known[order.customer as usize] && random.chance(0.30) {
                updates.push((order.customer, order.time));
            }
        }
        updates.sort_unstable();
        let mut last = (u32::MAX, 0);
        for update in &mut updates {
            if update.0 == last.0 && update.1 <= last.1 {
                update.1 = last.1 + 1;
            }
            last = *update;
        }
        updates.sort_by_key(|update| update.1);
        let first = (0..).zip(&known).filter(|(_, known)| **known).map(|(customer, _)| (customer, None));
        let later = updates.into_iter().map(|(customer, time)| (customer, Some(time)));
        let (mut key, mut value) = (String::new(), String::new());
        for (customer, update) in first.chain(later) {
            let version = update.unwrap_or_else(|| -1 - random.below(300 * DAY as u64) as i64);
            let (channel, country) = fixed[customer as usize];
            let (segment, opt_in) = (SEGMENTS[pick(random, &SEGMENTS)], random.chance(0.5));
            set(&mut key, format_args!("c{customer:08}"))?;
            set(
                &mut value,
                format_args!(
                    concat!(
                        r#"{{"customer_id":"{}","email":"u{}@example.org","phone":"+33{:09}","segment":"{}","#,
                        r#""acquisition_channel":"{}","country":"{}","opt_in":{},"last_purchase_ts":{}}}"#
                    ),
                    key,
                    customer,
                    customer,
                    segment,
                    CHANNELS[channel],
                    COUNTRIES[country],
                    opt_in,
                    START + version
                ),
            )?;
            let arrival = update.map_or(START - DAY, |time| START + time);
            emit(Made { topic: Topic::Customer, arrival, key: &key, value: &value })?;
        }
        Ok(())
    }
}

/// Writes events; what an event is depends on its number alone, so that it can be written again.
struct EventWriter {
    types: Vec<u8>,
    campaigns: Vec<u16>,
    ids: Vec<u32>,
    key: String,
    value: String,
}

impl EventWriter {
    fn new(campaigns: u32, events: u32, random: &mut Random) -> EventWriter {
        let types = Weighted::new(EVENT_TYPES.map(|(_, weight)| weight));
        let mut weights: Vec<f64> = (1..campaigns).map(|k| exp(-1.3 * ln(f64::from(k))) / ZETA).collect();
        weights.push(1.0 - weights.iter().sum::<f64>());
        let spread = Weighted::new(weights);
        EventWriter {
            types: (0..events).map(|_| types.draw(random) as u8).collect(),
            campaigns: (0..events).map(|_| spread.draw(random) as u16 + 1).collect(),
            ids: random.permutation(events),
            key: String::new(),
            value: String::new(),
        }
    }
    fn write(&mut self, number: u32, event: &Happening, arrival: i64, emit: &mut Emit<'_>) -> Result<()> {
        let (round, index) = (number as usize / self.ids.len(), number as usize % self.ids.len());
        let id = round * self.ids.len() + self.ids[index] as usize;
        let (kind, _) = EVENT_TYPES[usize::from(self.types[index])];
        let EventWriter { key, value, campaigns, .. } = self;
        set(key, format_args!("e{id:09}"))?;
        set(
            value,
            format_args!(
                r#"{{"event_id":"{key}","customer_id":"c{:08}","event_type":"{kind}","campaign_id":"{}","event_ts":{}}}"#,
                event.customer,
                campaigns[index],
                START + event.time
            ),
        )?;
        emit(Made { topic: Topic::Event, arrival, key, value })
    }
}

/// Whom events and orders happen to.
struct Customers {
    ranks: Weighted,
    /// The customer of each rank, so that busy ones are spread over the ids.
    ids: Vec<u32>,
}
impl Customers {
    fn new(workload: &Workload, random: &mut Random) -> Customers {
        let count = workload.size.customers;
        let offset = if workload.hot { 0.0 } else { f64::from(count) / 2000.0 };
        let ranks = Weighted::new((1..=count).map(|rank| 1.0 / (f64::from(rank) + offset)));
        Customers { ranks, ids: random.permutation(count) }
    }
    fn draw(&self, random: &mut Random) -> u32 {
        self.ids[self.ranks.draw(random)]
    }
}

/// When things happen, in milliseconds since the start.
struct Times {
    hours: Weighted,
}
impl Times {
    fn new() -> Times {
        Times { hours: Weighted::new(HOURS) }
    }
    fn draw(&mut self, random: &mut Random) -> i64 {
        let day = random.below(DAYS as u64) as i64;
        day * DAY + self.hours.draw(random) as i64 * HOUR + random.below(HOUR as u64) as i64
    }
}

/// How long after it happened something arrives.
fn delay(random: &mut Random) -> i64 {
    let kind = random.unit();
    let delay = if kind > 0.99 {
        random.unit() * 4.0 * HOUR as f64
    } else if kind > 0.90 {
        random.exponential(1_200_000.0)
    } else {
        random.unit() * 2000.0
    };
    (delay as i64).min(4 * HOUR)
}
fn pick<T>(random: &mut Random, of: &[T]) -> usize {
    random.below(of.len() as u64) as usize
}
fn set(text: &mut String, to: std::fmt::Arguments<'_>) -> Result<()> {
    text.clear();
    Ok(text.write_fmt(to)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Customer, Event, Order};
    use hashbrown::{HashMap, HashSet};
    use sha2::{Digest, Sha256};

    const SMALL: Workload = Workload {
        size: Size { events: 10_000, orders: 1_000, customers: 1_000, campaigns: 20 },
        seed: 42,
        hot: false,
        history: 0,
        sequence: Sequence::ByTime,
    };

    fn make(workload: Workload) -> Vec<(Topic, i64, String)> {
        let mut all = Vec::new();
        let mut keep = |made: Made<'_>| {
            all.push((made.topic, made.arrival, made.value.to_owned()));
            Ok(())
        };
        workload.make(&mut keep).expect("a workload");
        all
    }
    fn values(all: &[(Topic, i64, String)], topic: Topic) -> Vec<&str> {
        all.iter().filter(|made| made.0 == topic).map(|made| made.2.as_str()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let hash = |workload| {
            let mut hasher = Sha256::new();
            make(workload).iter().for_each(|(_, arrival, value)| hasher.update(format!("{arrival} {value}\n")));
            hasher.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(hash(SMALL), "60e651ca");
        assert_ne!(hash(Workload { seed: 43, ..SMALL }), hash(SMALL));
    }

    #[test]
    fn it_has_the_shape_that_is_described() {
        let all = make(SMALL);
        for topic in Topic::ALL {
            assert!(all.iter().filter(|made| made.0 == topic).is_sorted_by_key(|made| made.1), "{topic:?} by arrival");
        }
        let events = values(&all, Topic::Event);
        assert_eq!(events.len(), 10_000);
        assert_eq!(events.iter().collect::<HashSet<_>>().len(), 9_900);
        let parsed: Vec<Event<'_>> = events.iter().map(|line| serde_json::from_str(line).expect("an event")).collect();
        assert_eq!(parsed.iter().map(|event| event.event_id).collect::<HashSet<_>>().len(), 9_900);
        let mut of_customer: HashMap<&str, usize> = HashMap::new();
        parsed.iter().for_each(|event| *of_customer.entry(event.customer_id).or_default() += 1);
        let mut counts: Vec<usize> = of_customer.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let top: usize = counts.iter().take(10).sum();
        assert!((3_000..5_000).contains(&top), "1 % of the customers have {top} of 10000 events");
        for line in values(&all, Topic::Order) {
            serde_json::from_str::<Order<'_>>(line).expect("an order");
        }
        let mut newest: HashMap<&str, i64> = HashMap::new();
        for line in values(&all, Topic::Customer) {
            let customer: Customer<'_> = serde_json::from_str(line).expect("a customer");
            let version = newest.entry(customer.customer_id).or_insert(i64::MIN);
            assert!(*version < customer.last_purchase_ts);
            *version = customer.last_purchase_ts;
        }
        assert!((970..1_000).contains(&newest.len()));
    }

    #[test]
    fn history_is_older_than_every_window_and_changes_nothing_else() {
        let (plain, deep) = (make(SMALL), make(Workload { history: 2, ..SMALL }));
        let (old, rest): (Vec<_>, Vec<_>) = deep.into_iter().partition(|(topic, _, value)| {
            *topic == Topic::Event && serde_json::from_str::<Event<'_>>(value).expect("an event").event_ts < START - 7 * DAY
        });
        assert_eq!(old.len(), 2 * 9_900);
        assert!(rest == plain);
    }

    #[test]
    fn a_hot_customer_and_orders_first() {
        let all = make(Workload { hot: true, sequence: Sequence::OrdersFirst, ..SMALL });
        let events = values(&all, Topic::Event);
        let mut of_customer: HashMap<&str, usize> = HashMap::new();
        for line in &events {
            let event: Event<'_> = serde_json::from_str(line).expect("an event");
            *of_customer.entry(event.customer_id).or_default() += 1;
        }
        let most = of_customer.values().max().copied().unwrap_or_default();
        assert!((1_000..1_700).contains(&most), "one of 1000 customers has {most} of 10000 events");
        let first_event = all.iter().filter(|made| made.0 == Topic::Event).map(|made| made.1).min();
        let last_order = all.iter().filter(|made| made.0 == Topic::Order).map(|made| made.1).max();
        assert!(last_order < first_event);
    }
}
