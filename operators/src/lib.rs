//! The operators of a dataflow, one file each.
pub mod aggregate;
pub mod temporal_filter;
pub mod commands;
pub mod consolidate;
pub mod distinct;
pub mod gather;
pub mod keyed_store;
pub mod merge;
pub mod stamp;
pub mod top_k;
mod changed;
mod key_order;
mod pending;

pub mod join;
#[cfg(test)]
mod testing;
