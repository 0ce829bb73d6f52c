//! `deltaworks record`: topics into a recording.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deltaworks_connectors::Options;
use deltaworks_connectors::kafka::{Bell, Connection, KafkaSource, Scan, Topics};
use deltaworks_connectors::record::Records;
use deltaworks_connectors::recorded::writer::Recording;
use deltaworks_connectors::source::{ReadState, RecordSource};

use crate::error::EngineError;

type Result<T> = std::result::Result<T, EngineError>;

/// Records and bytes that are read at a time.
const BATCH: (usize, usize) = (8192, 4 << 20);
/// How long nothing may come before it is looked whether to stop.
const IDLE: Duration = Duration::from_millis(100);

/// What is recorded, and how far.
#[derive(Clone, Debug, Default)]
pub struct RecordOptions {
    /// The brokers, `host:port,..`.
    pub brokers: String,
    /// The topics.
    pub topics: Vec<String>,
    /// Options as tables have them: `properties.*` of the client, `scan.startup.*`.
    pub options: Vec<(String, String)>,
    /// Where to: a folder that is empty or not there yet.
    pub out: PathBuf,
    /// Whether partitions are compressed with zstd.
    pub compressed: bool,
    /// Stop at what the topics hold when it begins.
    pub to_end: bool,
    /// Stop before the first record of this time or later, in microseconds since 1970.
    pub until: Option<i64>,
    /// Stop after this many records.
    pub records: Option<u64>,
}

/// Records topics until what was asked for is reached or `stop` is set. Returns how many records there are.
///
/// # Errors
/// Brokers that do not answer, unknown topics, a folder that holds something, a disk that is full.
pub fn record(options: &RecordOptions, say: &mut dyn FnMut(&str), stop: &Arc<AtomicBool>) -> Result<u64> {
    let connector = Options::new(connector_options(options));
    let (connection, scan) = (Connection::from_options(&connector)?, Scan::from_options(&connector)?);
    let bell = Bell::default();
    let topics = Topics::List(options.topics.clone());
    let mut source = KafkaSource::open(&connection, &scan, vec![topics], bell.clone(), stop)?;
    let mut recording = Recording::create(&options.out, options.compressed)?;
    let (mut taken, mut records) = (0, Records::new());
    while !stop.load(Ordering::Relaxed) {
        let left = options.records.map_or(u64::MAX, |most| most - taken);
        if left == 0 {
            break;
        }
        records.clear();
        let most = BATCH.0.min(usize::try_from(left).unwrap_or(usize::MAX));
        let state = source.read(most, BATCH.1, &mut records)?;
        source.take_news().iter().for_each(|news| say(news));
        recording.meet(source.topics(), &source.progress())?;
        recording.write(source.topics(), &records)?;
        taken += records.len() as u64;
        source.note_tick(taken);
        source.done(taken);
        match state {
            ReadState::End => break,
            ReadState::More => {}
            ReadState::Idle | ReadState::Behind => {
                recording.flush()?;
                bell.wait(IDLE);
            }
        }
    }
    recording.finish()?;
    Ok(taken)
}

fn connector_options(options: &RecordOptions) -> Vec<(String, String)> {
    let mut all = vec![
        ("connector".to_string(), "kafka".to_string()),
        ("topic".to_string(), options.topics.join(";")),
        ("properties.bootstrap.servers".to_string(), options.brokers.clone()),
    ];
    all.extend(options.options.iter().cloned());
    if let Some(until) = options.until {
        all.push(("scan.bounded.mode".into(), "timestamp".into()));
        all.push(("scan.bounded.timestamp-millis".into(), until.div_euclid(1000).to_string()));
    } else if options.to_end {
        all.push(("scan.bounded.mode".into(), "latest-offset".into()));
    }
    all
}
