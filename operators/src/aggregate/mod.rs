//! Aggregates: one row per group, kept exact under retraction.
//!
//! | function | result of a group | file |
//! |---|---|---|
//! | [`accumulate`] | count, sum, avg, min, max, how many different arguments | `accumulate.rs` |
//! | [`recompute`] | any function of the group's rows | `recompute.rs` |
//! | [`collate`] | the results of several of these, side by side | `collate.rs` |
//!
//! ARG_MIN, ARG_MAX and FIRST_VALUE read the head of the group: [`top_k`](crate::top_k::top_k) with k = 1.

mod accumulate;
mod collate;
pub mod exact_sum;
mod recompute;
#[cfg(test)]
mod tests;
mod values;
pub(crate) mod wide_sum;

pub use accumulate::{Accumulator, accumulate, accumulate_counting};
pub use collate::collate;
pub use recompute::recompute;
