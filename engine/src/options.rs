//! How a job is run.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What NOW() and CURRENT_DATE see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockMode {
    /// The machine's time.
    #[default]
    System,
    /// The largest record timestamp taken so far.
    Replay,
    /// Always this instant, microseconds since 1970-01-01 00:00:00 UTC.
    Fixed(i64),
}

/// How dynamic tables are evaluated. Everything but `Stream` is for tests that hold the ways against each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Evaluation {
    /// Incrementally.
    #[default]
    Stream,
    /// By the batch engine, from the tables, when they are read.
    Batch,
    /// Incrementally, with every one-shot write cut into random ticks, rows retracted and put back; by this seed.
    Chopped(u64),
}

/// How a job is run. The defaults are those of the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Read Kafka tables from recorded topics in this folder.
    pub replay: Option<PathBuf>,
    /// Write down what is read from topics, with the ticks, in this folder.
    pub record: Option<PathBuf>,
    /// How many times faster than it was recorded a replay goes; None: as fast as it can.
    pub replay_speed: Option<f64>,
    /// Records that a replay puts into a tick.
    pub tick_records: usize,
    /// The clock; None: `Replay` with `replay`, else `System`.
    pub clock: Option<ClockMode>,
    /// The session's time zone, an IANA name.
    pub timezone: String,
    /// Worker threads.
    pub workers: usize,
    /// Values for `${NAME}`.
    pub set: BTreeMap<String, String>,
    /// The user volume.
    pub volume: PathBuf,
    /// Where a replay writes Kafka sinks.
    pub out: PathBuf,
    /// How dynamic tables are evaluated.
    pub evaluation: Evaluation,
    /// Whether every table and view is kept readable, because later statements are not known yet.
    pub interactive: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            replay: None,
            record: None,
            replay_speed: None,
            tick_records: 8192,
            clock: None,
            timezone: "UTC".into(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            set: BTreeMap::new(),
            volume: PathBuf::from("volume"),
            out: PathBuf::from("out"),
            evaluation: Evaluation::Stream,
            interactive: false,
        }
    }
}
