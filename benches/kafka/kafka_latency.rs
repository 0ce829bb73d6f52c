//! `kafka_latency`: from the broker's acknowledgement of an event to the changed record in a sink topic.
//!
//! Sends events at a steady rate while a job runs (`latency.sql`) whose sink has a record per event, and waits for each of them.
//! Latency is the time between the acknowledgement by the broker and the moment at which a consumer has the sink's record.

use clap::Parser;
use deltaworks_benches::Result;
use deltaworks_benches::latency::Latencies;
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Measures from acknowledgement to changed record.
#[derive(Parser)]
struct Arguments {
    /// The brokers, host:port,..
    #[arg(long, default_value = "localhost:9092")]
    brokers: String,
    /// The topic that the job reads.
    #[arg(long, default_value = "latency_event")]
    events: String,
    /// The topic that it writes, of one partition.
    #[arg(long, default_value = "latency_mart")]
    mart: String,
    /// Events per second.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// For so many seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds at the beginning that do not count.
    #[arg(long, default_value_t = 3)]
    warm_up: u64,
}

/// When each event was acknowledged.
#[derive(Clone)]
struct Acknowledged(Arc<Mutex<Vec<Option<Instant>>>>);
impl ClientContext for Acknowledged {}
impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<usize>;
    fn delivery(&self, result: &DeliveryResult<'_>, event: Self::DeliveryOpaque) {
        if let (Ok(_), Ok(mut times)) = (result, self.0.lock()) {
            times[*event] = Some(Instant::now());
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let events = (arguments.rate * (arguments.warm_up + arguments.seconds)) as usize;
    let acknowledged = Acknowledged(Arc::new(Mutex::new(vec![None; events])));
    let producer: BaseProducer<Acknowledged> = ClientConfig::new()
        .set("bootstrap.servers", &arguments.brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .create_with_context(acknowledged.clone())?;
    let consumer = consumer(&arguments)?;
    let received = std::thread::spawn(move || receive(&consumer, events));
    let begin = Instant::now();
    for event in 0..events {
        let due = Duration::from_nanos(event as u64 * 1_000_000_000 / arguments.rate);
        while begin.elapsed() < due {
            producer.poll(Duration::from_micros(200));
        }
        let value = format!(
            "{{\"event_id\":\"{event}\",\"customer_id\":\"C{}\",\"event_type\":\"click\",\"event_ts\":{event}}}",
            event * 7919 % 100_000
        );
        let key = event.to_string();
        let record = BaseRecord::with_opaque_to(&arguments.events, Box::new(event)).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(Duration::from_secs(60))?;
    let took = begin.elapsed();
    let received = received.join().map_err(|_| "the consumer failed")?.map_err(|error| error.to_string())?;
    let acknowledged = acknowledged.0.lock().map_err(|_| "a callback failed")?;
    let mut latencies = Latencies::default();
    for (acknowledged, received) in acknowledged.iter().zip(&received).skip((arguments.rate * arguments.warm_up) as usize) {
        let acknowledged = acknowledged.ok_or("an event was not acknowledged")?;
        // A record may be seen before the acknowledgement of its event is.
        latencies.push(received.saturating_duration_since(acknowledged));
    }
    println!("kafka_latency: events={events} rate={:.0}/s {latencies}", events as f64 / took.as_secs_f64());
    Ok(())
}

/// A consumer that begins behind what the sink's topic holds now.
fn consumer(arguments: &Arguments) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &arguments.brokers)
        .set("group.id", "kafka-latency")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "5")
        .create()?;
    let (_, end) = consumer.fetch_watermarks(&arguments.mart, 0, Duration::from_secs(30))?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&arguments.mart, 0, Offset::Offset(end))?;
    consumer.assign(&partitions)?;
    Ok(consumer)
}

/// When each event's record came first.
fn receive(consumer: &BaseConsumer, events: usize) -> std::result::Result<Vec<Instant>, String> {
    let mut times: Vec<Option<Instant>> = vec![None; events];
    let mut missing = events;
    while missing > 0 {
        let message = consumer.poll(Duration::from_secs(30)).ok_or(format!("{missing} records did not come"))?;
        let message = message.map_err(|error| error.to_string())?;
        let now = Instant::now();
        let digits: String = message
            .key()
            .map(|key| String::from_utf8_lossy(key).chars().filter(char::is_ascii_digit).collect())
            .unwrap_or_default();
        let event: usize = digits.parse().map_err(|_| "a record of the sink has no event's key".to_string())?;
        if times[event].is_none() {
            times[event] = Some(now);
            missing -= 1;
        }
    }
    Ok(times.into_iter().flatten().collect())
}
