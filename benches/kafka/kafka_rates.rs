//! `kafka_rates`: what the client library does without us: records produced and consumed per second.
//!
//!   kafka_rates produce --brokers B --topic T FILE..     every line of the files as a value, in order
//!   kafka_rates consume --brokers B --topic T --records N

use clap::{Parser, Subcommand};
use deltaworks_benches::Result;
use deltaworks_benches::input::Lines;
use deltaworks_benches::measure::Measured;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Records that the client library produces and consumes.
#[derive(Parser)]
struct Arguments {
    /// The brokers, host:port,..
    #[arg(long, global = true, default_value = "localhost:9092")]
    brokers: String,
    /// The topic, of one partition for `consume`.
    #[arg(long, global = true, default_value = "event")]
    topic: String,
    #[command(subcommand)]
    command: Command,
}
#[derive(Subcommand)]
enum Command {
    /// Sends every line of the files, keyed by the string field of that name.
    Produce {
        /// Files of JSON lines.
        files: Vec<PathBuf>,
        /// The field whose value is the key.
        #[arg(long)]
        key: String,
        /// The field, the last one of the line, whose milliseconds are the record's timestamp.
        #[arg(long)]
        timestamp: Option<String>,
    },
    /// Reads so many records of partition 0 and forgets them.
    Consume {
        /// How many.
        #[arg(long)]
        records: u64,
    },
}

fn main() -> Result<()> {
    let start = Instant::now();
    let arguments = Arguments::parse();
    let (name, records) = match &arguments.command {
        Command::Produce { files, key, timestamp } => {
            ("kafka_produce", produce(&arguments, files, key, timestamp.as_deref())?)
        }
        Command::Consume { records } => ("kafka_consume", consume(&arguments, *records)?),
    };
    println!("{name}: {}", Measured::of_this_process(start)?.with_records(records));
    Ok(())
}

/// Makes the topic, of one partition, where it is not there yet.
fn create_topic(arguments: &Arguments) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &arguments.brokers).create()?;
    // The records' timestamps are old: a broker would throw them away while they are read.
    let topic = NewTopic::new(&arguments.topic, 1, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let created = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))?;
    match created.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((topic, code))) => Err(format!("could not make the topic {topic}: {code}").into()),
    }
}

fn produce(arguments: &Arguments, files: &[PathBuf], key: &str, timestamp: Option<&str>) -> Result<u64> {
    create_topic(arguments)?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &arguments.brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .create()?;
    let (key, timestamp) = (format!("\"{key}\":\""), timestamp.map(|name| format!("\"{name}\":")));
    let mut records = 0;
    for file in files {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next_line()? {
            let text = std::str::from_utf8(line)?;
            let key = text.split_once(&*key).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
            let mut record = BaseRecord::to(&arguments.topic).key(key).payload(line);
            if let Some(at) = timestamp.as_deref().and_then(|name| text.split_once(name)) {
                record = record.timestamp(at.1.trim_end_matches('}').parse()?);
            }
            while let Err((error, again)) = producer.send(record) {
                match error {
                    KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => producer.poll(Duration::from_millis(10)),
                    other => return Err(other.into()),
                };
                record = again;
            }
            records += 1;
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(records)
}

fn consume(arguments: &Arguments, records: u64) -> Result<u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &arguments.brokers)
        .set("group.id", "kafka-rates")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&arguments.topic, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    let (mut taken, mut bytes) = (0, 0);
    while taken < records {
        let message = consumer.poll(Duration::from_secs(10)).ok_or("nothing came for ten seconds")??;
        bytes += message.payload_len();
        taken += 1;
    }
    eprintln!("{bytes} bytes");
    Ok(taken)
}
