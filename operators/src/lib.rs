//! The operators of a dataflow, one file each.
pub mod aggregate;
mod changed;
pub mod commands;
pub mod consolidate;
pub mod distinct;
pub mod gather;
mod key_order;
pub mod keyed_store;
pub mod merge;
mod pending;
pub mod stamp;
pub mod temporal_filter;
pub mod top_k;

pub mod join;
#[cfg(test)]
mod testing;
