//! Set operations on two bitmaps that travel in chunks: BITMAP_AND, _OR, _XOR, _ANDNOT.
//!
//! **Definition.** For each key that has a bitmap on both sides, the chunks of what the operation makes of the two: chunk by
//! chunk, since ids with different high bits have nothing to do with each other. NULL if one of the two is NULL.
//!
//! **State.** The ids of both sides, 2 bytes each or 8 KiB per 65,536.
//!
//! **On retraction.** A changed chunk is combined again, before and after; the others are not looked at. A bitmap that comes or
//! goes brings or takes all its chunks.
//!
//! **On ties, nulls, late rows.** That a key has one bitmap per side is relied upon, not checked. Each tick is applied as a
//! whole, to both sides at once; a chunk that stays emits nothing.
//!
//! **Example.** `BITMAP_COUNT(BITMAP_AND(a.bm, b.bm))` of one row each: [`combine_chunks`] on the empty key, then
//! [`assemble`](super::assemble).

use differential_dataflow::consolidation::consolidate;

use super::chunk::{Chunk, Heads, Raw, emit_change};
use super::store::{ChunkStore, for_each_chunk, per_tick};
use deltaworks_dataflow::bitmap::{Container, SetOperation};
use deltaworks_dataflow::{Diff, KeyedCollection, Row};

/// Combines the two bitmaps of each key.
pub fn combine_chunks<'s>(
    left: KeyedCollection<'s>,
    right: KeyedCollection<'s>,
    operation: SetOperation,
    name: &str,
) -> KeyedCollection<'s> {
    let tagged = |chunks: KeyedCollection<'s>, right: bool| chunks.map(move |(key, row)| (key, (right, row)));
    let mut combination = Combination { operation, store: ChunkStore::new() };
    per_tick(tagged(left, false).concat(tagged(right, true)), name, move |mut updates, emit| {
        consolidate(&mut updates);
        for of_group in updates.chunk_by(|a, b| a.0.0 == b.0.0) {
            combination.change_group(of_group, emit);
        }
    })
}

/// The chunks of both sides with the same high bits.
#[derive(Default)]
struct Pair {
    left: Container,
    right: Container,
}

struct Combination {
    operation: SetOperation,
    store: ChunkStore<[Heads; 2], Pair>,
}

/// An update of the input: the key, whether it is of the right side, the chunk's row, and the difference.
type SideUpdate = ((Row, (bool, Row)), Diff);
/// A change of a chunk: its high bits, and whether it is on the right, the ids, and the difference.
type Change = (u64, (bool, Container, Diff));

impl Combination {
    /// Whether the group has a result that is not NULL; None if it has none.
    fn state(&self, number: u32) -> Option<bool> {
        let [left, right] = self.store.group(number);
        let (left, right) = (left.state()?, right.state()?);
        Some(left && right)
    }
    fn change_group(&mut self, updates: &[SideUpdate], emit: &mut dyn FnMut(&Row, Row, Diff)) {
        let key = &updates[0].0.0;
        let number = self.store.number(key);
        let before = self.state(number);
        let mut changes: Vec<Change> = Vec::new();
        for ((_, (right, row)), diff) in updates {
            match Raw::read(row) {
                Raw::Ids(high, bytes) => changes.push((high, (*right, Raw::container(bytes), *diff))),
                head => self.store.group_mut(number)[usize::from(*right)].add(&head, *diff),
            }
        }
        // Retractions first: what takes a chunk out does not ask which ids it has.
        changes.sort_by_key(|(high, (right, _, diff))| (*high, *right, *diff > 0));
        let after = self.state(number);
        if before != after {
            head(before).into_iter().for_each(|head| emit(key, head, -1));
            head(after).into_iter().for_each(|head| emit(key, head, 1));
        }
        let visible = (before == Some(true), after == Some(true));
        let all = if visible.0 == visible.1 { Vec::new() } else { self.store.highs_of(number) };
        for_each_chunk(&changes, &all, |high, changes| {
            self.change_chunk(number, high, changes, visible, &mut |row, diff| emit(key, row, diff));
        });
        if *self.store.group(number) == <[Heads; 2]>::default() {
            self.store.release(number);
        }
    }
    /// Applies the changes of one chunk; `visible` is whether its result is to be seen before and after.
    fn change_chunk(
        &mut self,
        number: u32,
        high: u64,
        changes: &[Change],
        visible: (bool, bool),
        emit: &mut impl FnMut(Row, Diff),
    ) {
        let operation = self.operation;
        let result = |pair: &Pair, visible: bool| match visible {
            true => pair.left.combine(operation, &pair.right),
            false => Container::new(),
        };
        self.store.change_chunk(number, high, |pair| {
            let old = result(pair, visible.0);
            for (_, (right, ids, diff)) in changes {
                let side = if *right { &mut pair.right } else { &mut pair.left };
                *side = if *diff > 0 { ids.clone() } else { Container::new() };
            }
            emit_change(high, &old, &result(pair, visible.1), emit);
            !(pair.left.is_empty() && pair.right.is_empty())
        });
    }
}

fn head(state: Option<bool>) -> Option<Row> {
    state.map(|set| if set { Chunk::Head.to_row() } else { Chunk::Null.to_row() })
}
