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

pub mod client;
mod fetch;
pub mod scan;
mod shared;
pub mod source;
mod topics;
mod upkeep;

pub use client::{Connection, Watch};
pub use scan::{Scan, Topics};
pub use shared::Bell;
pub use source::KafkaSource;
