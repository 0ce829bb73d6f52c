//! Bitmaps that retract: sets of ids per group, exact under deletes and updates.
//!
//! | function | from | to | file |
//! |---|---|---|---|
//! | [`group_bitmap`] | ids | GROUP_BITMAP, GROUP_BITMAP_STATE | `ids.rs` |
//! | [`group_bitmap_chunks`] | ids | GROUP_BITMAP_STATE in chunks | `ids.rs` |
//! | [`into_chunks`] | whole bitmaps | chunks | `chunk.rs` |
//! | [`fold_chunks`] | chunks of any number of bitmaps | GROUP_BITMAP_AND, _OR, _XOR in chunks | `fold.rs` |
//! | [`combine_chunks`] | chunks of two bitmaps | BITMAP_AND, _OR, _XOR, _ANDNOT in chunks | `combine.rs` |
//! | [`count_sets`], [`combine_sets`] | chunks of many bitmaps, and who asks for which | trees of BITMAP_AND, _OR, _XOR, _ANDNOT: how many ids, or in chunks | `evaluate.rs` |
//! | [`assemble`] | chunks | the bitmap, or how many ids it has | `assemble.rs` |
//!
//! ```text
//!   ids ──group_bitmap_chunks──┐
//!                              ├─► chunks ──► fold, combine, .. ──► chunks ──► assemble ──► BITMAP or cardinality
//!   BITMAP column ─into_chunks─┘
//! ```
//!
//! Inside a view a bitmap travels in chunks, one row per 65,536 ids (see [`Chunk`]): one member that enters a set of ten million
//! changes one row of at most 8 KiB, not one of 2.5 MB. A collection of chunks is keyed by the group's columns, or by the
//! [`handle`] that stands for them in other rows: joins, filters and projections take handles, not chunks.

mod assemble;
mod chunk;
mod combine;
mod evaluate;
mod fold;
mod ids;
mod store;
#[cfg(test)]
mod tests;

pub use assemble::assemble;
pub use chunk::{Chunk, handle, handle_key, into_chunks, whole};
pub use combine::combine_chunks;
pub use deltaworks_dataflow::bitmap::SetOperation;
pub use evaluate::{Operands, SetExpression, combine_sets, count_sets};
pub use fold::{FoldOperation, fold_chunks};
pub use ids::{group_bitmap, group_bitmap_chunks};

/// What a group's set of ids is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetResult {
    /// The canonical bytes, a BITMAP.
    Bitmap,
    /// How many ids, a BIGINT.
    Cardinality,
}
