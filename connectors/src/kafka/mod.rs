//! Kafka: topics of a broker.
//!
//! | file | what |
//! |---|---|
//! | `client.rs` | [`Connection`]: from options to a client's settings; [`Watch`]: what a client says about its brokers |
//! | `scan.rs` | [`Topics`] and [`Scan`]: what is read |
//! | `topics.rs` | which partitions there are, and where reading them begins and ends |
//! | `source.rs` | [`KafkaSource`]: the records of all partitions, merged while there is a backlog |
//! | `fetch.rs` | the thread behind it, which owns the client; `shared.rs` is what lies between the two |
//! | `upkeep.rs` | what that thread looks after beside records: brokers and topics that go and come |
//! | `sink.rs` | [`KafkaSinkSpec`]: a topic that is written; the options of sinks |
//! | `messages.rs` | from changes to keys and values |
//! | `producer.rs` | records on their way: waiting, and giving up |
//! | `epochs.rs` | exactly once: a transaction per epoch |
//! | `letters.rs` | [`KafkaLetters`]: dead letters to a topic, with where they are from and why |

pub mod client;
mod epochs;
mod fetch;
pub mod letters;
mod messages;
mod producer;
pub mod scan;
mod shared;
pub mod sink;
pub mod source;
mod topics;
mod upkeep;

pub use client::{Connection, Watch};
pub use letters::KafkaLetters;
pub use messages::Form;
pub use scan::{Scan, Topics};
pub use shared::Bell;
pub use sink::{Caller, KafkaSinkSpec};
pub use source::KafkaSource;
