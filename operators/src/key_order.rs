//! Sorts by encoded bytes without touching them more than once: on the 8 bytes behind the prefix that all have in common.

/// The numbers `0..count` in the order of their bytes, smallest first; equal ones in any order.
pub(crate) fn order_by_bytes<'a>(count: usize, bytes: impl Fn(usize) -> &'a [u8]) -> Vec<(u64, u32)> {
    if count == 0 {
        return Vec::new();
    }
    let first = bytes(0);
    let mut common = first.len();
    for index in 1..count {
        let other = bytes(index);
        if !other.starts_with(&first[..common]) {
            common = first[..common].iter().zip(other).take_while(|(a, b)| a == b).count();
        }
    }
    let mut order: Vec<(u64, u32)> = (0..count).map(|index| (prefix(&bytes(index)[common..]), index as u32)).collect();
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| bytes(a.1 as usize).cmp(bytes(b.1 as usize))));
    order
}

/// Up to 8 bytes as a number that compares like them.
fn prefix(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let size = bytes.len().min(8);
    word[..size].copy_from_slice(&bytes[..size]);
    u64::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorts_like_slices(mut rows in proptest::collection::vec(proptest::collection::vec(0u8..3, 0..12), 0..40)) {
            let order = order_by_bytes(rows.len(), |index| &rows[index]);
            let sorted: Vec<Vec<u8>> = order.iter().map(|(_, index)| rows[*index as usize].clone()).collect();
            rows.sort();
            prop_assert_eq!(sorted, rows);
        }
    }
}
