//! Kafka: topics of a broker.
//!
//! | file | what |
//! |---|---|
//! | `client.rs` | [`Connection`]: from options to a client's settings; [`Watch`]: what a client says about its brokers |

pub mod client;

pub use client::{Connection, Watch};
