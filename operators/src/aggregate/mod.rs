//! Aggregates: one row per group, kept exact under retraction.
//!
//! | function | result of a group | file |
//! |---|---|---|
//! | [`accumulate`] | count, sum, avg: constant state per group | `accumulate.rs` |
//! | [`distinct_count`] | how many different arguments | `distinct_count.rs` |
//! | [`recompute`] | any function of the group's rows | `recompute.rs` |
//! | [`collate`] | the results of several of these, side by side | `collate.rs` |
//!
//! MIN, MAX, ARG_MIN and FIRST_VALUE read the head of the group: [`top_k`](crate::top_k::top_k) with k = 1.

mod accumulate;
mod collate;
mod distinct_count;
pub mod exact_sum;
mod recompute;
#[cfg(test)]
mod tests;
pub(crate) mod wide_sum;

pub use accumulate::{Accumulator, accumulate, accumulate_counting};
pub use collate::collate;
pub use distinct_count::distinct_count;
pub use recompute::recompute;
