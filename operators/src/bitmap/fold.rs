//! All bitmaps of a group made one: GROUP_BITMAP_AND, _OR, _XOR of bitmaps that travel in chunks.
//!
//! **Definition.** For each key with a head, NULL or not, one bitmap in chunks: the ids that are in all, in one or more, or in an
//! odd number of the key's bitmaps. Those that are NULL do not take part; of none at all the result is the empty bitmap.
//!
//! **State.** Per chunk the different sets that the group's bitmaps have there, each with how often: the ids of all bitmaps,
//! 2 bytes each or 8 KiB per 65,536.
//!
//! **On retraction.** A changed chunk is folded again, before and after, over the group's bitmaps. The intersection of a chunk
//! also changes with the number of bitmaps: when one comes or goes, all chunks of the group are folded.
//!
//! **On ties, nulls, late rows.** Each tick is applied as a whole; a chunk that stays emits nothing. A chunk that was retracted
//! more often than inserted does not take part until it is there again.
//!
//! **Example.** Bitmaps {1, 2} and {2, 70000} of one group: {2}, {1, 2, 70000} and {1, 70000}.

use differential_dataflow::consolidation::consolidate;

use super::chunk::{Chunk, Heads, Raw, emit_change};
use super::store::{ChunkStore, for_each_chunk, per_tick};
use deltaworks_dataflow::bitmap::{Container, SetOperation};
use deltaworks_dataflow::{Diff, KeyedCollection, Row};

/// How the bitmaps of a group become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FoldOperation {
    /// What is in all.
    And,
    /// What is in one or more.
    Or,
    /// What is in an odd number.
    Xor,
}

/// Folds all bitmaps of each key to one.
pub fn fold_chunks<'s>(chunks: KeyedCollection<'s>, operation: FoldOperation, name: &str) -> KeyedCollection<'s> {
    let mut folding = Folding { operation, store: ChunkStore::new() };
    per_tick(chunks, name, move |mut updates, emit| {
        consolidate(&mut updates);
        for of_group in updates.chunk_by(|a, b| a.0.0 == b.0.0) {
            folding.change_group(of_group, emit);
        }
    })
}

/// The sets that bitmaps have at the same high bits, in order, each with how often.
type Sets = Vec<(Container, Diff)>;

struct Folding {
    operation: FoldOperation,
    store: ChunkStore<Heads, Sets>,
}

impl Folding {
    fn change_group(&mut self, updates: &[((Row, Row), Diff)], emit: &mut dyn FnMut(&Row, Row, Diff)) {
        let key = &updates[0].0.0;
        let number = self.store.number(key);
        let before = *self.store.group(number);
        // Encoded numbers sort as they are, so the changes come in the order of their high bits.
        let mut changes: Vec<(u64, (Container, Diff))> = Vec::new();
        for ((_, row), diff) in updates {
            match Raw::read(row) {
                Raw::Ids(high, bytes) => changes.push((high, (Raw::container(bytes), *diff))),
                head => self.store.group_mut(number).add(&head, *diff),
            }
        }
        let after = *self.store.group(number);
        let (was, is) = (before.state().is_some(), after.state().is_some());
        if was != is {
            emit(key, Chunk::Head.to_row(), if is { 1 } else { -1 });
        }
        let bitmaps = (was.then_some(before.set), is.then_some(after.set));
        let all_change = was != is || (self.operation == FoldOperation::And && before.set != after.set);
        let all = if all_change { self.store.highs_of(number) } else { Vec::new() };
        for_each_chunk(&changes, &all, |high, changes| {
            self.change_chunk(number, high, changes, bitmaps, &mut |row, diff| emit(key, row, diff));
        });
        if after == Heads::default() {
            self.store.release(number);
        }
    }
    /// Applies the changes of one chunk; `bitmaps` is how many the group has before and after, None while it has no result.
    fn change_chunk(
        &mut self,
        number: u32,
        high: u64,
        changes: &[(u64, (Container, Diff))],
        bitmaps: (Option<i64>, Option<i64>),
        emit: &mut impl FnMut(Row, Diff),
    ) {
        let operation = self.operation;
        self.store.change_chunk(number, high, |sets| {
            let old = bitmaps.0.map(|bitmaps| operation.fold(sets, bitmaps)).unwrap_or_default();
            changes.iter().for_each(|(_, (set, diff))| add(sets, set, *diff));
            let new = bitmaps.1.map(|bitmaps| operation.fold(sets, bitmaps)).unwrap_or_default();
            emit_change(high, &old, &new, emit);
            !sets.is_empty()
        });
    }
}

fn add(sets: &mut Sets, set: &Container, diff: Diff) {
    match sets.binary_search_by(|(other, _)| other.cmp(set)) {
        Err(place) => sets.insert(place, (set.clone(), diff)),
        Ok(place) => {
            sets[place].1 = sets[place].1.wrapping_add(diff);
            if sets[place].1 == 0 {
                sets.remove(place);
            }
        }
    }
}

impl FoldOperation {
    /// The ids that so many bitmaps with these sets, the others empty, leave.
    fn fold(self, sets: &Sets, bitmaps: i64) -> Container {
        let present = || sets.iter().filter(|(_, count)| *count > 0);
        let all = |operation: SetOperation, sets: &mut dyn Iterator<Item = &Container>| {
            let first = sets.next().cloned().unwrap_or_default();
            sets.fold(first, |folded, set| folded.combine(operation, set))
        };
        match self {
            FoldOperation::And if present().map(|(_, count)| count).sum::<i64>() < bitmaps => Container::new(),
            FoldOperation::And => all(SetOperation::And, &mut present().map(|(set, _)| set)),
            FoldOperation::Or => all(SetOperation::Or, &mut present().map(|(set, _)| set)),
            FoldOperation::Xor => {
                all(SetOperation::Xor, &mut present().filter(|(_, count)| count % 2 == 1).map(|(set, _)| set))
            }
        }
    }
}
