//! The engine: catalog, statements, ticks, sources, sinks and the clock.
//!
//! | file | what |
//! |---|---|
//! | `script.rs` | [`Engine`]: runs the statements of a script in order |
//! | `options.rs` | [`Options`]: how a job is run |
//! | `catalog.rs` | tables, views and what is known about them |
//! | `define.rs` | CREATE and DROP of schemas, tables and views |
//! | `create.rs` | from a CREATE TABLE to what the catalog keeps |
//! | `number.rs` | AUTO_INCREMENT: tables that number their keys |
//! | `continuous.rs` | INSERT INTO .. SELECT that goes on |
//! | `advance.rs` | installs what is pending, starts and reads sources, completes ticks, flushes sinks |
//! | `install.rs` | pending definitions become one dataflow on every worker |
//! | `ticks.rs` | sources start, their records become ticks; back-pressure |
//! | `topics.rs` | tables that read topics: which ones, of which brokers or recordings |
//! | `reader.rs` | records of a table become commands and dead letters |
//! | `letters.rs` | topics that take dead letters, and what became of those that are kept |
//! | `record.rs` | topics into a recording, without a job |
//! | `sinks.rs` | sinks that are open: changes of complete ticks are written |
//! | `pace.rs` | how fast a replay goes |
//! | `bench.rs` | how long single changes take |
//! | `clock.rs` | what NOW() sees |
//! | `query.rs` | SELECT at the newest complete tick, EXPLAIN |
//! | `analyze.rs` | EXPLAIN ANALYZE |
//! | `write.rs` | one-shot INSERT, UPDATE, DELETE, TRUNCATE |
//! | `merge.rs` | MERGE INTO |
//! | `copy.rs` | PUT, COPY INTO |
//! | `repair.rs` | REPAIR TABLE |
//! | `pipe.rs` | CREATE PIPE |
//! | `identity.rs` | what IDENTITY(links) and IDENTITY_HISTORY(links) read |
//! | `external.rs` | API connections, external functions |
//! | `calls.rs` | what continuous queries ask external functions, and the answers |
//! | `show.rs` | SHOW, DESCRIBE |
//! | `snapshot.rs` | tables as the batch engine sees them |
//! | `error.rs` | [`EngineError`]: what went wrong, where, and what would be right |

mod advance;
mod analyze;
mod bench;
mod calls;
mod catalog;
mod clock;
mod continuous;
mod copy;
mod create;
mod define;
mod error;
mod external;
mod identity;
mod install;
mod letters;
mod merge;
mod number;
mod options;
mod pace;
mod pipe;
mod query;
mod reader;
mod record;
mod repair;
mod script;
mod shared_keys;
mod show;
mod sinks;
mod snapshot;
mod tick_log;
mod ticks;
mod topics;
mod write;

pub use bench::{Figures, Measuring};
pub use clock::parse_instant;
pub use deltaworks_connectors::format::text::{OutputFormat, ResultSet, write_plain};
pub use deltaworks_dataflow::{DataType, Datum};
pub use error::EngineError;
pub use options::{ClockMode, Evaluation, Options};
pub use record::{RecordOptions, record};
pub use script::{Engine, Messages, Results, print_results, read_job};
