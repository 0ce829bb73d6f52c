//! Sources, sinks and formats: where rows enter and leave.
//!
//! | file | what |
//! |---|---|
//! | `record.rs` | [`Records`]: a batch of raw records in one allocation, as sources read them |
//! | `source.rs` | [`RecordSource`]: what every source promises |
//! | `recorded.rs` | [`Replay`]: recorded topics, merged in the order of their timestamps; [`TickLog`] |
//! | `folder.rs` | [`FolderSource`]: a watched folder |
//! | `file.rs` | [`FileSource`]: files, folders and patterns, as JSON lines, CSV or Parquet |
//! | `ordered.rs` | [`OrderedFiles`]: file sources merged by a timestamp column |
//! | `decode.rs` | [`TableFormat`] and [`Decoder`]: from records to commands on a table, and [`DeadLetter`]s |
//! | `keys.rs` | [`KeyColumns`]: which columns the keys of records hold |
//! | `format/` | one file per format: JSON, Debezium, CSV, raw, packed; the text that rows become |
//! | `sink.rs` | [`ChangeSink`]: changelogs to files and to the standard output |
//! | `kafka/` | topics of a broker |
//! | `http.rs` | [`HttpFunction`](http::HttpFunction): calls of external functions |
//! | `options.rs` | [`Options`]: what stands behind WITH, checked and masked |
//! | `error.rs` | [`Error`]: what is broken outside the data |
//!
//! A record goes from bytes straight into a packed row: what is wrong with it is known field by field, and a bad record
//! never takes its neighbours with it. What cannot be decoded becomes a [`DeadLetter`], never an [`Error`].

pub mod decode;
pub mod error;
pub mod file;
pub mod folder;
pub mod format;
pub mod http;
pub mod kafka;
pub mod keys;
mod lines;
pub mod options;
pub mod ordered;
pub mod record;
pub mod recorded;
pub mod sink;
pub mod source;

pub use decode::{DeadLetter, Decoded, Decoder, Metadata, MetadataColumn, Prepared, TableFormat, TopicFilter};
pub use error::{Error, Result};
pub use file::FileSource;
pub use folder::FolderSource;
pub use format::Format;
pub use format::text::{JsonRows, OutputFormat, ResultSet, ResultWriter, write_json_row, write_json_value};
pub use keys::KeyColumns;
pub use options::Options;
pub use ordered::OrderedFiles;
pub use record::{NO_TIMESTAMP, Record, Records};
pub use recorded::writer::Recording;
pub use recorded::{RecordedTick, Replay, TickLog};
pub use sink::{ChangeSink, SinkSpec};
pub use source::{PartitionProgress, ReadState, RecordSource};
