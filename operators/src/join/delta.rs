//! The delta join: n inputs, one path of half joins per input, and no intermediate arrangement.
//!
//! *Definition.* Path i takes the updates of input i and half-joins them with all others in an order of the planner's
//! choice. The rows of input j count up to the update's own time for j < i, and before it for j > i; so every combination
//! of rows is found once, by the path of the row that came last (of the highest input, within a tick):
//!
//! ```text
//! d(A x B x C) = dA x B(t-1) x C(t-1)  +  A(t) x dB x C(t-1)  +  A(t) x B(t) x dC
//! ```
//!
//! *State.* The shared arrangements that the hops probe, by as many keys as the paths ask for; nothing of the output.
//!
//! *On retraction.* Exact: the paths' sum changes by what the join changes by.
//!
//! *On ties, nulls, late rows.* A NULL in a hop's key matches nothing. The order of arrival does not matter. A path's
//! columns come in the path's own order: the last hop's `merge`, or a projection behind it, brings all paths to one.
//! All arrangements must begin at one time: imported ones are brought to a common `since` first.
//!
//! *Example.* Orders, customers, campaigns: a new order probes customers, then campaigns; a new campaign probes the orders
//! by campaign, then customers.

use deltaworks_dataflow::{Arranged, Collection, Row};

use super::half::{When, half_join};

/// Computes the key to probe with from a row.
pub type HopKey = Box<dyn FnMut(&[u8], &mut Vec<u8>)>;
/// Makes the next row from the row, the arrangement's key and its value; false rejects the pair.
pub type HopMerge = Box<dyn FnMut(&[u8], &[u8], &[u8], &mut Vec<u8>) -> bool>;

/// One half join of a path.
pub struct Hop<'s> {
    /// The input that is probed.
    pub input: usize,
    /// An arrangement of it, by the key that `key` computes.
    pub arranged: Arranged<'s>,
    /// The key of the row so far.
    pub key: HopKey,
    /// The row so far with the columns that the probed input adds, most simply appended.
    pub merge: HopMerge,
}

/// Sends the updates of input `index` through the hops, one for each other input.
pub fn delta_path<'s>(updates: Collection<'s>, index: usize, hops: Vec<Hop<'s>>, name: &str) -> Collection<'s> {
    hops.into_iter().fold(updates, |rows, hop| {
        let Hop { input, arranged, mut key, mut merge } = hop;
        let when = if input < index { When::UpTo } else { When::Before };
        let mut space = Vec::new();
        let keyed = rows.map(move |row| {
            space.clear();
            key(&row, &mut space);
            (Row::from_bytes(&space), row)
        });
        let mut space = Vec::new();
        half_join(keyed, arranged, when, false, name, move |key, row, value| {
            space.clear();
            merge(row, key, value?, &mut space).then(|| Row::from_bytes(&space))
        })
    })
}

/// Joins n inputs: for each its updates and its path. The rows of all paths must have the same columns in the end.
pub fn delta_join<'s>(paths: Vec<(Collection<'s>, Vec<Hop<'s>>)>, name: &str) -> Option<Collection<'s>> {
    let rows = paths.into_iter().enumerate().map(|(index, (updates, hops))| delta_path(updates, index, hops, name));
    rows.reduce(|all, path| all.concat(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Multiset, Pair, Random, Script, Shape, add, check, flat, ints, joined};
    use deltaworks_dataflow::arrange::arrange;
    use deltaworks_dataflow::row::{is_null_field, project};
    use deltaworks_dataflow::{KeyedCollection, Time};

    fn hop<'s>(input: usize, arranged: Arranged<'s>, key_column: usize) -> Hop<'s> {
        Hop {
            input,
            arranged,
            key: Box::new(move |row, out| project(row, &[key_column], out)),
            merge: Box::new(|row, key, value, out| {
                out.extend_from_slice(row);
                out.extend_from_slice(key);
                out.extend_from_slice(value);
                true
            }),
        }
    }
    /// A collection of two columns by its second.
    fn by_second<'s>(rows: Collection<'s>) -> KeyedCollection<'s> {
        rows.map(|row| {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            project(&row, &[1], &mut key);
            project(&row, &[0], &mut value);
            (Row::from_bytes(&key), Row::from_bytes(&value))
        })
    }
    /// A(x, y) join B(y, z) join C(z, u), with the columns in the order A, B, C: x y y z z u.
    fn chain<'s>(inputs: Vec<KeyedCollection<'s>>) -> Collection<'s> {
        let [a, b, c]: [_; 3] = inputs.try_into().ok().expect("three inputs");
        let (b_by_y, c_by_z) = (arrange(b.clone(), "BByY"), arrange(c.clone(), "CByZ"));
        let (a, b, c) = (flat(a), flat(b), flat(c));
        let (a_by_y, b_by_z) = (arrange(by_second(a.clone()), "AByY"), arrange(by_second(b.clone()), "BByZ"));
        let in_order = |columns: [usize; 6]| {
            move |row: Row| {
                let mut out = Vec::new();
                project(&row, &columns, &mut out);
                Row::from_bytes(&out)
            }
        };
        // From a, then b (key y), then c (key z): x y | y z | z u.
        let from_a = delta_path(a, 0, vec![hop(1, b_by_y, 1), hop(2, c_by_z.clone(), 3)], "FromA");
        // From b: y z | y x | z u; a's key comes before its value.
        let from_b = delta_path(b, 1, vec![hop(0, a_by_y.clone(), 0), hop(2, c_by_z, 1)], "FromB");
        let from_b = from_b.map(in_order([3, 2, 0, 1, 4, 5]));
        // From c: z u | z y | y x.
        let from_c = delta_path(c, 2, vec![hop(1, b_by_z, 0), hop(0, a_by_y, 3)], "FromC");
        let from_c = from_c.map(in_order([5, 4, 3, 2, 0, 1]));
        from_a.concat(from_b).concat(from_c)
    }
    fn reference(held: &[Multiset<Pair>]) -> Multiset<Row> {
        let equal = |a: &Row, b: &Row| a == b && !is_null_field(a);
        let mut expected = Multiset::new();
        for ((x, y), a) in &held[0] {
            for ((y2, z), b) in held[1].iter().filter(|((y2, _), _)| equal(y, y2)) {
                for ((z2, u), c) in held[2].iter().filter(|((z2, _), _)| equal(z, z2)) {
                    add(&mut expected, joined(&[x, y, y2, z, z2, u]), a * b * c);
                }
            }
        }
        expected
    }

    #[test]
    fn a_chain_is_as_brute_force_says_at_every_tick() {
        let row = |random: &mut Random, _: usize, _: Time| {
            let mut field = || {
                let number = random.below(6) as i64;
                ints(&[(number > 0).then_some(number)])
            };
            (field(), field())
        };
        for seed in 0..9 {
            let shape = Shape { inputs: 3, ticks: 120, row: &row, expired: &|_, _| false, negative: true };
            check([1, 2, 4][seed as usize % 3], seed, &Script::random(seed, &shape), chain, reference);
        }
    }
}
