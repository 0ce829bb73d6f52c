//! What is broken outside the data: paths, options, files that are not what they claim to be.

use std::path::{Path, PathBuf};

/// The result of what may meet a broken outside.
pub type Result<T> = std::result::Result<T, Error>;

/// What is broken, with a help in [`Error::help`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read or written.
    #[error("could not {action} \"{path}\": {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The standard output does not take what is written.
    #[error("could not write to the standard output: {0}")]
    Output(std::io::Error),
    /// The folder of recorded topics does not hold a topic.
    #[error("topic \"{topic}\" is not recorded: there is no folder \"{path}\"")]
    MissingTopic {
        /// The topic.
        topic: String,
        /// The folder that should be there.
        path: PathBuf,
    },
    /// The folder of a recorded topic holds no partition.
    #[error("topic \"{topic}\" has no recorded partition in \"{path}\"")]
    NoPartition {
        /// The topic.
        topic: String,
        /// Its folder.
        path: PathBuf,
    },
    /// One partition is recorded twice, plain and compressed.
    #[error("partition {partition} of topic \"{topic}\" is recorded twice in \"{path}\"")]
    PartitionTwice {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The topic's folder.
        path: PathBuf,
    },
    /// A partition goes back while it is recorded: its topic was made anew.
    #[error(
        "topic \"{topic}\" partition {partition} begins again at offset {offset}, and a recording holds one generation of it"
    )]
    RecordedAnew {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset that is there already.
        offset: u64,
    },
    /// A recording would go into a folder that holds something.
    #[error("\"{path}\" is not empty")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A file in the folder of a recorded topic is no partition.
    #[error("\"{path}\" is not a recorded partition")]
    NotAPartition {
        /// The file.
        path: PathBuf,
    },
    /// A line of a tick log is not a tick.
    #[error("\"{path}\" line {line} is not a tick: {reason}")]
    TickLog {
        /// The tick log.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// No file lies at a path, or none matches a pattern.
    #[error("no file at \"{path}\"")]
    MissingFile {
        /// The path or pattern.
        path: PathBuf,
    },
    /// A Parquet file is damaged, or its columns do not fit the table.
    #[error("could not read \"{path}\" as parquet: {reason}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A table names a connector that does not exist.
    #[error("unknown connector \"{name}\"")]
    UnknownConnector {
        /// The name.
        name: String,
    },
    /// A table names a format that does not exist here.
    #[error("unknown format \"{name}\"")]
    UnknownFormat {
        /// The name.
        name: String,
        /// The formats that may stand here.
        known: String,
    },
    /// A format that this build does not have.
    #[error("unknown format \"{name}\"")]
    NotBuilt {
        /// The format.
        name: String,
        /// The feature that it is behind.
        feature: &'static str,
    },
    /// No schema registry answers.
    #[error("could not reach the schema registry at \"{registry}\": {reason}")]
    RegistryAway {
        /// The registry.
        registry: String,
        /// Why not.
        reason: String,
    },
    /// Something that a schema registry does not do.
    #[error("the schema registry at \"{registry}\" refused {what}: {reason}")]
    RegistryRefused {
        /// The registry.
        registry: String,
        /// What it was asked for.
        what: String,
        /// What it said.
        reason: String,
    },
    /// A table has an option that its connector does not know.
    #[error("unknown option \"{name}\" of connector \"{connector}\"")]
    UnknownOption {
        /// The option.
        name: String,
        /// The connector.
        connector: String,
        /// The options that it knows.
        known: String,
    },
    /// A table lacks an option that its connector needs.
    #[error("missing option \"{name}\" of connector \"{connector}\"")]
    MissingOption {
        /// The option.
        name: String,
        /// The connector.
        connector: String,
    },
    /// An option has a value that it cannot have.
    #[error("invalid value {value} of option \"{name}\"")]
    InvalidOption {
        /// The option.
        name: String,
        /// Its value, masked where the name says that it is a secret.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// Options that mean nothing together.
    #[error("{what}")]
    Together {
        /// Which, and why not.
        what: String,
        /// What would be right.
        help: String,
    },
    /// Two columns of a result have one name, which a JSON object cannot hold.
    #[error("column \"{name}\" appears twice in a result that is printed as json")]
    DuplicateColumn {
        /// The name.
        name: String,
    },
    /// A sink that only appends was given a change that takes a row back.
    #[error("sink \"{sink}\" only appends, but the query takes rows back ({kind} in tick {tick})")]
    NotAppendOnly {
        /// The sink's path or name.
        sink: String,
        /// The row kind.
        kind: &'static str,
        /// The tick.
        tick: u64,
    },
    /// A sink by key has no key.
    #[error("sink \"{sink}\" writes by key, but its table has no key")]
    NoKey {
        /// The sink's path or name.
        sink: String,
    },
    /// The columns of a table do not fit its format.
    #[error("format \"{format}\" cannot hold the columns of this table: {reason}")]
    Columns {
        /// The format.
        format: &'static str,
        /// Why not.
        reason: String,
    },
    /// No broker answers.
    #[error("could not reach Kafka at \"{brokers}\": {reason}")]
    Unreachable {
        /// The brokers.
        brokers: String,
        /// What the client said last.
        reason: String,
    },
    /// The job is to stop, and waits for brokers no longer.
    #[error("stopped while waiting for Kafka")]
    Stopped,
    /// An option names a partition that there is not.
    #[error("option \"{option}\" names partition {partition}, which does not exist")]
    UnknownPartition {
        /// The option.
        option: &'static str,
        /// The partition.
        partition: i32,
        /// How many there are.
        partitions: usize,
    },
    /// The brokers do not let us in.
    #[error("Kafka at \"{brokers}\" refused the connection: {reason}")]
    LoginRefused {
        /// The brokers.
        brokers: String,
        /// What they said.
        reason: String,
    },
    /// A property that the client does not know, or a value that it cannot have.
    #[error("Kafka property \"{name}\": {reason}")]
    Property {
        /// The option.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A Kafka client could not be made.
    #[error("could not make a Kafka client: {reason}")]
    Client {
        /// Why not.
        reason: String,
    },
    /// A topic that is not there.
    #[error("topic \"{topic}\" does not exist at \"{brokers}\"")]
    UnknownTopic {
        /// The topic.
        topic: String,
        /// The brokers.
        brokers: String,
        /// Some of those that are there.
        known: Vec<String>,
    },
    /// A group that is to say where reading begins, and does not.
    #[error("group \"{group}\" has no committed offset of topic \"{topic}\" partition {partition}")]
    NoCommittedOffset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// Records that a topic does not take.
    #[error("could not write topic \"{topic}\": {what}")]
    Delivery {
        /// The topic.
        topic: String,
        /// What happened to which record.
        what: String,
        /// What would be right.
        help: String,
        /// Whether it only took too long.
        timed_out: bool,
    },
    /// Something that the brokers did not do.
    #[error("could not {action}: {reason}")]
    Kafka {
        /// What was tried.
        action: String,
        /// What they said.
        reason: String,
    },
}

impl Error {
    /// What would be right; empty where the message says it all.
    pub fn help(&self) -> String {
        match self {
            Error::Io { .. } => "check that the path exists and may be accessed".into(),
            Error::Output(_) => String::new(),
            Error::MissingTopic { .. } => {
                "record the topic, or point --replay at the folder that holds one folder per topic".into()
            }
            Error::NoPartition { .. } => "put its records into 0.jsonl, 1.jsonl, .. or 0.jsonl.zst, ..".into(),
            Error::PartitionTwice { partition, .. } => {
                format!("remove one of \"{partition}.jsonl\" and \"{partition}.jsonl.zst\"")
            }
            Error::RecordedAnew { .. } => "what came before is recorded; begin another recording in a folder of its own".into(),
            Error::NotEmpty { .. } => "record into a folder of its own: what is in this one stays as it is".into(),
            Error::NotAPartition { .. } => {
                "a topic's folder holds <partition>.jsonl and <partition>.jsonl.zst only, e.g. 0.jsonl".into()
            }
            Error::TickLog { .. } => {
                "a tick is {\"tick\":1,\"clock\":\"2026-05-01 09:00:00Z\",\"upto\":{\"event/0\":120}}".into()
            }
            Error::MissingFile { .. } => {
                "relative paths are relative to the working directory; patterns take * and ?".into()
            }
            Error::Parquet { .. } => "check the file, and compare its columns with the table's".into(),
            Error::UnknownConnector { .. } => format!("connectors are {}", crate::options::connector_names()),
            Error::UnknownFormat { known, .. } => format!("formats are {known}"),
            Error::NotBuilt { feature, .. } => format!("it needs a build of deltaworks with `--features {feature}`"),
            Error::RegistryAway { .. } => "check 'avro-confluent.url', and that a schema registry listens there".into(),
            Error::RegistryRefused { .. } => {
                "check the user, its rights, and under which subject with which compatibility the schema is registered".into()
            }
            Error::UnknownOption { known, .. } => format!("options are {known}"),
            Error::MissingOption { name, .. } => format!("add '{name}' = '..' to the table's WITH"),
            Error::InvalidOption { expected, .. } => format!("expected {expected}"),
            Error::Together { help, .. } => help.clone(),
            Error::DuplicateColumn { .. } => "give one of them another name with AS".into(),
            Error::NotAppendOnly { .. } => "write the changes with 'format' = 'changelog-json' or 'upsert-json'".into(),
            Error::NoKey { .. } => "declare a PRIMARY KEY on the sink's table".into(),
            Error::Columns { .. } => "change the columns or the format".into(),
            Error::Unreachable { .. } => {
                "check 'properties.bootstrap.servers' and 'properties.security.protocol', and that a broker listens there".into()
            }
            Error::Stopped => String::new(),
            Error::UnknownPartition { partitions, .. } => {
                format!("partitions are counted from 0, and there are {partitions}")
            }
            Error::LoginRefused { .. } => {
                "check 'properties.security.protocol', 'properties.sasl.mechanism', the user, the password and the certificates".into()
            }
            Error::Property { .. } | Error::Client { .. } => {
                "properties are those of librdkafka, see its CONFIGURATION.md, under 'properties.<name>'".into()
            }
            Error::UnknownTopic { known, .. } if known.is_empty() => "create the topic: there is none yet".into(),
            Error::UnknownTopic { known, .. } => format!("create the topic, or name one that is there: {}", known.join(", ")),
            Error::NoCommittedOffset { .. } => {
                "set 'properties.auto.offset.reset' = 'earliest' or 'latest', or another 'scan.startup.mode'".into()
            }
            Error::Delivery { help, .. } => help.clone(),
            Error::Kafka { .. } => "the broker's own log may say more".into(),
        }
    }
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }
}
