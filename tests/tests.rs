//! End-to-end tests of the binary.
//!
//! | module | what |
//! |---|---|
//! | `replay` | the first-touch job on its recorded topics: complete, delivered twice, other tick sizes, 1, 2 and 4 workers |
//! | `jobs` | the uplift and the customer job on their recorded topics: the same, and chopped at random |
//! | `command_line` | exit codes, messages, formats |
//! | `avro` | Avro with a schema registry that fails and recovers, in a build with that feature |
//! | `bad_input` | broken records and broken scripts |
//! | `bitmaps` | bitmaps that travel in chunks, against the same queries asked anew |
//! | `external` | external functions against a small HTTP server |
//! | `mission` | the statements that the documents behind the project print, where they are there |
//! | `letters` | how long dead letters are kept, and what reads them |
//! | `loading` | COPY INTO, REPAIR TABLE, pipes |
//! | `shared_keys` | sinks whose key several rows share |
//! | `statements` | what statements say on stderr |
//! | `retention` | streams, rows that leave with age, the pace of a replay, the limit of joins without equality |
//! | `explain_analyze` | the rows and failures of every operator |
//! | `identity` | the identity function on real person records, where they are there |
//! | `kafka` | jobs against a real broker; `broker` starts it |
//! | `kafka_faults` | what goes wrong around a job that reads and writes Kafka |
//! | `kafka_formats` | formats of keys and values: recorded topics, and what jobs write to a broker and read back |
//! | `kafka_letters` | records that cannot be decoded: in `$errors`, in a topic, repaired |
//! | `kafka_sinks` | topics that jobs write, epochs, a broker that goes and comes back |
//! | `recording` | `--record`, `deltaworks record` |
//! | `real_input` | the jobs on real data, where it is there |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "avro")]
#[path = "end_to_end/avro.rs"]
mod avro;
#[path = "end_to_end/bad_input.rs"]
mod bad_input;
#[path = "end_to_end/bitmaps.rs"]
mod bitmaps;
#[path = "end_to_end/broker.rs"]
mod broker;
#[path = "end_to_end/command_line.rs"]
mod command_line;
#[path = "end_to_end/explain_analyze.rs"]
mod explain_analyze;
#[path = "end_to_end/external.rs"]
mod external;
#[path = "end_to_end/http.rs"]
mod http;
#[path = "end_to_end/identity.rs"]
mod identity;
#[path = "end_to_end/jobs.rs"]
mod jobs;
#[path = "end_to_end/kafka.rs"]
mod kafka;
#[path = "end_to_end/kafka_faults.rs"]
mod kafka_faults;
#[path = "end_to_end/kafka_formats.rs"]
mod kafka_formats;
#[path = "end_to_end/kafka_letters.rs"]
mod kafka_letters;
#[path = "end_to_end/kafka_sinks.rs"]
mod kafka_sinks;
#[path = "end_to_end/letters.rs"]
mod letters;
#[path = "end_to_end/loading.rs"]
mod loading;
#[path = "end_to_end/mission.rs"]
mod mission;
#[path = "end_to_end/program.rs"]
mod program;
#[path = "end_to_end/real_input.rs"]
mod real_input;
#[path = "end_to_end/recording.rs"]
mod recording;
#[path = "end_to_end/replay.rs"]
mod replay;
#[path = "end_to_end/retention.rs"]
mod retention;
#[path = "end_to_end/shared_keys.rs"]
mod shared_keys;
#[path = "end_to_end/statements.rs"]
mod statements;
