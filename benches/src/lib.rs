//! What the benchmarks share: workloads, measuring, and the canonical form of an answer.
//!
//! | file | what |
//! |---|---|
//! | `generator.rs` | [`generator::Workload`]: the first-touch workload, made from a seed |
//! | `random.rs` | [`random::Random`]: the seeded source behind it, the same on every machine |
//! | `topics.rs` | [`topics::TopicWriter`]: recorded topics, and plain files of JSON lines |
//! | `input.rs` | [`input::Merged`]: the workload's files, merged by time as every peer is fed |
//! | `records.rs` | the four records as borrowed structs |
//! | `ticks.rs` | [`ticks::Ticks`]: a second thread that reads and decodes |
//! | `changelog.rs` | [`changelog::ChangelogFile`]: a changelog file, written by hand |
//! | `answer.rs` | [`answer::Answer`]: a folded changelog and its hash |
//! | `measure.rs` | [`measure::Measured`]: wall time, CPU time and peak memory of a process |
//! | `single.rs` | [`single::Ticks`]: a dataflow on this thread whose ticks are timed |
//! | `latency.rs` | [`latency::Latencies`]: percentiles of single changes |

pub mod answer;
pub mod changelog;
pub mod generator;
pub mod input;
pub mod latency;
pub mod measure;
pub mod random;
pub mod records;
pub mod single;
pub mod ticks;
pub mod topics;

/// What a benchmark returns: there is nobody to handle an error but the one who reads it.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
