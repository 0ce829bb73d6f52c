//! The operators of a dataflow, one file each.
//!
//! | where | what |
//! |---|---|
//! | `join` | half, lookup, delta, linear, outer, semi and anti, lookback |
//! | `bitmap` | sets of ids per group that retract, whole or in chunks |
//! | `aggregate` | accumulated, distinct, recomputed aggregates, and how their parts come together |
//! | `top_k.rs` | the first rows of each group |
//! | `components` | connected components of links, under additions and removals: one id for all ids of one |
//! | `distinct.rs`, `consolidate.rs` | each row once; the updates of a time summed |
//! | `merge` | how commands on a key fold into a table's row; `keyed_store.rs` holds the rows |
//! | `commands.rs` | what a query's changes ask of a keyed table |
//! | `dictionary.rs` | every distinct string as a number, for ever |
//! | `temporal_filter.rs`, `stamp.rs` | rows that come and go with the clock; when a row was written |
//! | `retention.rs`, `letters.rs` | rows that leave a table when they have reached an age; dead letters, which also leave for room |
//! | `gather.rs` | all updates, tick by tick, on one worker: for sinks |

pub mod aggregate;
pub mod bitmap;
mod changed;
pub mod commands;
pub mod components;
pub mod consolidate;
pub mod dictionary;
pub mod distinct;
pub mod gather;
pub mod join;
mod key_order;
pub mod keyed_store;
pub mod letters;
pub mod merge;
mod pending;
mod per_tick;
pub mod retention;
mod schedule;
pub mod stamp;
pub mod temporal_filter;
#[cfg(test)]
mod testing;
pub mod top_k;
