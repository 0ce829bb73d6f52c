//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use deltaworks_engine::{ClockMode, EngineError, Options, OutputFormat, RecordOptions};

/// Keeps the answers of SQL queries exact while Kafka topics, change streams and files change underneath.
#[derive(Parser)]
#[command(name = "deltaworks", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs a job: a .sql file, or a folder with job.sql.
    Run {
        /// The job.
        job: PathBuf,
        #[command(flatten)]
        options: RunArguments,
    },
    /// Prints the plan of every continuous statement of a job.
    Explain {
        /// The job.
        job: PathBuf,
        #[command(flatten)]
        options: RunArguments,
    },
    /// Runs a job and prints what it took: seconds, CPU seconds, memory, and the time of single changes and of days that pass.
    Bench {
        /// The job.
        job: PathBuf,
        /// How many of the last records are given one by one, each waited for.
        #[arg(long, value_name = "N", default_value_t = 0)]
        single: usize,
        /// How many days the clock is then moved on, one by one, each waited for.
        #[arg(long, value_name = "N", default_value_t = 0)]
        days: usize,
        #[command(flatten)]
        options: RunArguments,
    },
    /// Interactive SQL.
    Shell {
        #[command(flatten)]
        options: RunArguments,
    },
    /// Writes topics down as a recording.
    Record(RecordArguments),
}

impl Command {
    /// How the command runs a job, if it does.
    pub(crate) fn options(&self) -> Option<&RunArguments> {
        match self {
            Command::Run { options, .. }
            | Command::Explain { options, .. }
            | Command::Bench { options, .. }
            | Command::Shell { options } => Some(options),
            Command::Record(_) => None,
        }
    }
}

#[derive(Args)]
pub(crate) struct RecordArguments {
    /// The brokers, host:port,..
    #[arg(long)]
    brokers: String,
    /// A topic; repeat for several.
    #[arg(long, required = true)]
    topic: Vec<String>,
    /// Where to: a folder that is empty or not there yet.
    #[arg(long)]
    out: PathBuf,
    /// Begin at the records of this time, such as '2026-06-06 00:00:00', or at "latest". Without it: at the earliest.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Stop before the records of this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Stop after this many records.
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    /// Stop at what the topics hold now. Without this, --until and --records it goes on until Ctrl-C.
    #[arg(long, conflicts_with = "until")]
    end: bool,
    /// Compress with zstd.
    #[arg(long)]
    compress: bool,
    /// A setting of the client, as in security.protocol=SASL_SSL; repeat for several.
    #[arg(long, value_name = "NAME=VALUE")]
    property: Vec<String>,
}

impl RecordArguments {
    /// Refuses a time to stop at that has not come yet: what the topics hold by then is not known.
    pub(crate) fn check_past(&self) -> Result<(), EngineError> {
        let Some(until) = self.until.as_deref() else { return Ok(()) };
        #[expect(clippy::disallowed_methods, reason = "a person's time is held against the machine's")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros());
        if u128::try_from(instant("--until", until)?).is_ok_and(|until| until > now) {
            let help = "record without --until and stop it with Ctrl-C, or name a time that has passed";
            return Err(EngineError::new(format!("--until \"{until}\" has not come yet"), help));
        }
        Ok(())
    }
    /// What the arguments ask for.
    pub(crate) fn options(&self) -> Result<RecordOptions, EngineError> {
        let mut options = Vec::new();
        for property in &self.property {
            let (name, value) = property.split_once('=').ok_or_else(|| {
                EngineError::new(format!("--property takes NAME=VALUE, not \"{property}\""), "write --property NAME=VALUE")
            })?;
            options.push((format!("properties.{name}"), value.to_string()));
        }
        match self.from.as_deref() {
            None => {}
            Some("latest") => options.push(("scan.startup.mode".into(), "latest-offset".into())),
            Some(time) => {
                options.push(("scan.startup.mode".into(), "timestamp".into()));
                let millis = instant("--from", time)?.div_euclid(1000);
                options.push(("scan.startup.timestamp-millis".into(), millis.to_string()));
            }
        }
        Ok(RecordOptions {
            brokers: self.brokers.clone(),
            topics: self.topic.clone(),
            options,
            out: self.out.clone(),
            compressed: self.compress,
            to_end: self.end,
            until: self.until.as_deref().map(|time| instant("--until", time)).transpose()?,
            records: self.records,
        })
    }
}
fn instant(name: &str, text: &str) -> Result<i64, EngineError> {
    deltaworks_engine::parse_instant(text).ok_or_else(|| {
        EngineError::new(format!("{name} cannot be \"{text}\""), "it is a time such as '2026-06-06 00:00:00'")
    })
}

#[derive(Args)]
pub(crate) struct RunArguments {
    /// Read every Kafka table from recorded topics in DIR/<topic>/ instead of a broker.
    #[arg(long, value_name = "DIR")]
    replay: Option<PathBuf>,
    /// How fast a replay goes: max, 1x, 10x, ..
    #[arg(long, value_name = "SPEED", default_value = "max")]
    replay_speed: String,
    /// Records that a replay puts into a tick.
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..))]
    tick_records: u32,
    /// Write down what the job consumes, with its ticks.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// What NOW() and CURRENT_DATE see: system, replay, or a time such as '2026-06-06 00:00:00'.
    #[arg(long, value_name = "CLOCK")]
    clock: Option<String>,
    /// The session's time zone.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// Durable state; the same command resumes where it stopped.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How often state is made durable.
    #[arg(long, value_name = "DURATION")]
    checkpoint_interval: Option<String>,
    /// Worker threads; default: the cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Replaces ${NAME} in the SQL; repeat for several.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// The user volume.
    #[arg(long, value_name = "DIR", default_value = "./volume")]
    volume: PathBuf,
    /// Where a replay writes Kafka sinks.
    #[arg(long, value_name = "DIR", default_value = "./out")]
    out: PathBuf,
    /// How result sets print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The machines of a job on several machines.
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// This machine's number.
    #[arg(long, value_name = "I")]
    process: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

impl RunArguments {
    /// What the arguments ask for.
    pub(crate) fn options(&self) -> Result<Options, EngineError> {
        self.refuse_unsupported()?;
        let mut options = Options {
            replay: self.replay.clone(),
            record: self.record.clone(),
            replay_speed: self.speed()?,
            tick_records: self.tick_records as usize,
            clock: self.clock.as_deref().map(clock).transpose()?,
            timezone: self.timezone.clone(),
            volume: self.volume.clone(),
            out: self.out.clone(),
            ..Options::default()
        };
        if let Some(workers) = self.workers {
            options.workers = usize::from(workers);
        }
        for set in &self.set {
            let (name, value) = set.split_once('=').ok_or_else(|| {
                EngineError::new(format!("--set takes NAME=VALUE, not \"{set}\""), "write --set NAME=VALUE")
            })?;
            options.set.insert(name.to_string(), value.to_string());
        }
        Ok(options)
    }
    /// Checks that there is what the arguments name.
    pub(crate) fn check_folders(&self) -> Result<(), EngineError> {
        if let Some(dir) = self.replay.as_ref().filter(|dir| !dir.is_dir()) {
            return Err(EngineError::new(
                format!("there is no folder \"{}\" to replay", dir.display()),
                "name the folder that holds one folder per topic",
            ));
        }
        Ok(())
    }
    /// How result sets print.
    pub(crate) fn format(&self) -> OutputFormat {
        match self.format {
            Format::Table => OutputFormat::Table,
            Format::Csv => OutputFormat::Csv,
            Format::Json => OutputFormat::Json,
        }
    }
    fn speed(&self) -> Result<Option<f64>, EngineError> {
        let speed = speed(&self.replay_speed)?;
        if speed.is_some() && self.replay.is_none() {
            return Err(EngineError::new("--replay-speed needs a replay", "name the recording with --replay DIR"));
        }
        Ok(speed)
    }
    fn refuse_unsupported(&self) -> Result<(), EngineError> {
        let asked = [
            ("--state", self.state.is_some()),
            ("--checkpoint-interval", self.checkpoint_interval.is_some()),
            ("--hosts", self.hosts.is_some()),
            ("--process", self.process.is_some()),
        ];
        match asked.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(EngineError::new(format!("{name} is not supported yet"), "leave it out")),
            None => Ok(()),
        }
    }
}

/// None is as fast as possible.
fn speed(text: &str) -> Result<Option<f64>, EngineError> {
    if text == "max" {
        return Ok(None);
    }
    let factor = text.strip_suffix('x').and_then(|factor| factor.parse::<f64>().ok()).filter(|f| f.is_finite() && *f > 0.0);
    factor.map(Some).ok_or_else(|| {
        EngineError::new(format!("--replay-speed cannot be \"{text}\""), "it is max, or a factor such as 1x or 10x")
    })
}
fn clock(text: &str) -> Result<ClockMode, EngineError> {
    match text {
        "system" => return Ok(ClockMode::System),
        "replay" => return Ok(ClockMode::Replay),
        _ => {}
    }
    deltaworks_engine::parse_instant(text).map(ClockMode::Fixed).ok_or_else(|| {
        EngineError::new(
            format!("--clock cannot be \"{text}\""),
            "it is system, replay, or a time such as '2026-06-06 00:00:00' (UTC)",
        )
    })
}
