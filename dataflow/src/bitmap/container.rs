//! One chunk of a set: ids that share their high 48 bits, as their low 16.
//!
//! Up to [`ARRAY_MAX`] members are a sorted array, more are one bit each; which of the two it is follows from the number of
//! members, so equal chunks are equal values. Runs exist in stored bytes only. A full chunk takes 8 KiB, one of n members in
//! an array 2n bytes.

/// More members than this take less space as bits.
pub(super) const ARRAY_MAX: usize = 4096;
/// Words of a chunk as bits.
const WORDS: usize = 1024;

/// Up to 65,536 members.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container(Form);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Array(Vec<u16>),
    Bits(Box<Bits>),
}
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bits {
    len: u32,
    words: [u64; WORDS],
}

/// How two sets become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetOperation {
    /// What is in both.
    And,
    /// What is in one or both.
    Or,
    /// What is in one but not in both.
    Xor,
    /// What is in the first but not in the second.
    AndNot,
}

impl SetOperation {
    /// Whether something that only the first, or only the second set has is in the result.
    pub fn keeps(self) -> (bool, bool) {
        match self {
            SetOperation::And => (false, false),
            SetOperation::Or | SetOperation::Xor => (true, true),
            SetOperation::AndNot => (true, false),
        }
    }
    fn words(self, a: u64, b: u64) -> u64 {
        match self {
            SetOperation::And => a & b,
            SetOperation::Or => a | b,
            SetOperation::Xor => a ^ b,
            SetOperation::AndNot => a & !b,
        }
    }
}

/// How stored bytes hold a chunk: whatever is smallest, and an array or bits rather than runs where it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredForm {
    Array,
    Bits,
    Runs(usize),
}

impl Default for Container {
    fn default() -> Self {
        Container::new()
    }
}

impl Container {
    /// The chunk without members.
    pub const fn new() -> Self {
        Container(Form::Array(Vec::new()))
    }
    /// The chunk of sorted, different members.
    pub(super) fn from_sorted(members: Vec<u16>) -> Self {
        if members.len() <= ARRAY_MAX {
            return Container(Form::Array(members));
        }
        let mut bits = Bits::empty();
        members.iter().for_each(|member| bits.set(*member));
        bits.len = members.len() as u32;
        Container(Form::Bits(bits))
    }
    /// The chunk with these bits.
    pub(super) fn from_words(words: impl Iterator<Item = u64>) -> Self {
        let mut bits = Bits::empty();
        bits.words.iter_mut().zip(words).for_each(|(word, new)| *word = new);
        bits.settle()
    }
    /// The chunk of runs, each the first member and how many follow it; None where they leave the chunk.
    pub(super) fn from_runs(runs: impl Iterator<Item = (u16, u16)>) -> Option<Self> {
        let mut bits = Bits::empty();
        for (start, more) in runs {
            bits.set_range(start, start.checked_add(more)?);
        }
        Some(bits.settle())
    }
    /// How many members.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Form::Array(members) => members.len() as u64,
            Form::Bits(bits) => bits.len.into(),
        }
    }
    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes that it holds on the heap.
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            Form::Array(members) => 2 * members.capacity(),
            Form::Bits(_) => size_of::<Bits>(),
        }
    }
    /// Whether this is a member.
    #[inline]
    pub fn contains(&self, member: u16) -> bool {
        match &self.0 {
            Form::Array(members) => members.binary_search(&member).is_ok(),
            Form::Bits(bits) => bits.has(member),
        }
    }
    /// Adds a member; false if it is one already.
    pub fn insert(&mut self, member: u16) -> bool {
        match &mut self.0 {
            Form::Array(members) => {
                // Ascending order is usual, and then the place is the end.
                let place = match members.last() {
                    Some(last) if *last < member => members.len(),
                    _ => match members.binary_search(&member) {
                        Ok(_) => return false,
                        Err(place) => place,
                    },
                };
                members.insert(place, member);
                if members.len() > ARRAY_MAX {
                    *self = Container::from_sorted(std::mem::take(members));
                }
            }
            Form::Bits(bits) => {
                if bits.has(member) {
                    return false;
                }
                bits.set(member);
                bits.len += 1;
            }
        }
        true
    }
    /// Takes a member out; false if it is none.
    pub fn remove(&mut self, member: u16) -> bool {
        match &mut self.0 {
            Form::Array(members) => match members.binary_search(&member) {
                Ok(place) => members.remove(place) == member,
                Err(_) => false,
            },
            Form::Bits(bits) => {
                if !bits.has(member) {
                    return false;
                }
                bits.words[usize::from(member >> 6)] &= !(1 << (member & 63));
                bits.len -= 1;
                if bits.len as usize <= ARRAY_MAX {
                    *self = Container(Form::Array(self.iter().collect()));
                }
                true
            }
        }
    }
    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let (array, words): (&[u16], &[u64]) = match &self.0 {
            Form::Array(members) => (members, &[]),
            Form::Bits(bits) => (&[], &bits.words),
        };
        let of_word = |(index, word): (usize, &u64)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                (bit < 64).then_some((index as u16) << 6 | bit as u16)
            })
        };
        array.iter().copied().chain(words.iter().enumerate().flat_map(of_word))
    }
    /// What the operation makes of two chunks.
    pub fn combine(&self, operation: SetOperation, other: &Container) -> Container {
        use SetOperation::{And, AndNot, Or, Xor};
        match (operation, &self.0, &other.0) {
            (And, Form::Array(members), _) => filtered(members, |member| other.contains(member)),
            (And, _, Form::Array(members)) => filtered(members, |member| self.contains(member)),
            (AndNot, Form::Array(members), _) => filtered(members, |member| !other.contains(member)),
            (Or | Xor, Form::Array(a), Form::Array(b)) => merged(a, b, operation == Xor),
            (Or | Xor, Form::Array(_), Form::Bits(bits)) => bits.clone().changed(operation, self),
            (_, Form::Bits(bits), _) => bits.clone().changed(operation, other),
        }
    }
    /// How many members the combined chunk has.
    pub fn combined_len(&self, operation: SetOperation, other: &Container) -> u64 {
        let both = match (&self.0, &other.0) {
            (Form::Array(members), _) => members.iter().filter(|member| other.contains(**member)).count() as u64,
            (_, Form::Array(members)) => members.iter().filter(|member| self.contains(**member)).count() as u64,
            (Form::Bits(a), Form::Bits(b)) => {
                a.words.iter().zip(&b.words).map(|(a, b)| u64::from((a & b).count_ones())).sum()
            }
        };
        match operation {
            SetOperation::And => both,
            SetOperation::Or => self.len() + other.len() - both,
            SetOperation::Xor => self.len() + other.len() - 2 * both,
            SetOperation::AndNot => self.len() - both,
        }
    }
    /// How stored bytes hold it.
    pub(super) fn stored_form(&self) -> StoredForm {
        let (plain, size, runs) = match &self.0 {
            Form::Array(members) => {
                let breaks = members.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
                (StoredForm::Array, 2 * members.len(), breaks + usize::from(!members.is_empty()))
            }
            Form::Bits(bits) => (StoredForm::Bits, 8 * WORDS, bits.runs()),
        };
        if 2 + 4 * runs < size { StoredForm::Runs(runs) } else { plain }
    }
    /// Appends its stored bytes.
    pub(super) fn write(&self, form: StoredForm, out: &mut Vec<u8>) {
        match (&self.0, form) {
            (_, StoredForm::Runs(runs)) => {
                out.extend_from_slice(&(runs as u16).to_le_bytes());
                self.for_each_run(|start, more| {
                    out.extend_from_slice(&start.to_le_bytes());
                    out.extend_from_slice(&more.to_le_bytes());
                });
            }
            (Form::Array(members), _) => members.iter().for_each(|member| out.extend_from_slice(&member.to_le_bytes())),
            (Form::Bits(bits), _) => bits.words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes())),
        }
    }
    /// Calls `each` for every run: its first member, and how many follow it.
    fn for_each_run(&self, mut each: impl FnMut(u16, u16)) {
        if let Form::Bits(bits) = &self.0 {
            let mut start = bits.next(0, true);
            while start < 64 * WORDS {
                let end = bits.next(start, false);
                each(start as u16, (end - start - 1) as u16);
                start = bits.next(end, true);
            }
            return;
        }
        let mut run: Option<(u16, u16)> = None;
        for member in self.iter() {
            run = match run {
                Some((start, more)) if start + more + 1 == member => Some((start, more + 1)),
                ended => {
                    ended.into_iter().for_each(|(start, more)| each(start, more));
                    Some((member, 0))
                }
            };
        }
        run.into_iter().for_each(|(start, more)| each(start, more));
    }
}

impl Bits {
    fn empty() -> Box<Self> {
        Box::new(Bits { len: 0, words: [0; WORDS] })
    }
    #[inline]
    fn has(&self, member: u16) -> bool {
        self.words[usize::from(member >> 6)] >> (member & 63) & 1 == 1
    }
    #[inline]
    fn set(&mut self, member: u16) {
        self.words[usize::from(member >> 6)] |= 1 << (member & 63);
    }
    fn set_range(&mut self, first: u16, last: u16) {
        let (from, to) = (usize::from(first >> 6), usize::from(last >> 6));
        for (index, word) in self.words[from..=to].iter_mut().enumerate() {
            let below = if index == 0 { u64::MAX << (first & 63) } else { u64::MAX };
            let above = if from + index == to { u64::MAX >> (63 - (last & 63)) } else { u64::MAX };
            *word |= below & above;
        }
    }
    /// The first number from `from` on that is a member, or (not `member`) that is none; behind the last there is none.
    fn next(&self, from: usize, member: bool) -> usize {
        let mut shift = from % 64;
        for (index, word) in self.words.iter().enumerate().skip(from / 64) {
            let word = (if member { *word } else { !*word }) >> shift;
            if word != 0 {
                return 64 * index + shift + word.trailing_zeros() as usize;
            }
            shift = 0;
        }
        64 * WORDS
    }
    /// Counts the members and returns the container that so many are in.
    fn settle(mut self: Box<Self>) -> Container {
        self.len = self.words.iter().map(|word| word.count_ones()).sum();
        let bits = Container(Form::Bits(self));
        if bits.len() as usize > ARRAY_MAX { bits } else { Container(Form::Array(bits.iter().collect())) }
    }
    fn changed(mut self: Box<Self>, operation: SetOperation, other: &Container) -> Container {
        match &other.0 {
            Form::Bits(bits) => {
                self.words.iter_mut().zip(&bits.words).for_each(|(word, other)| *word = operation.words(*word, *other));
            }
            Form::Array(members) => {
                for member in members {
                    let word = &mut self.words[usize::from(member >> 6)];
                    *word = match operation {
                        SetOperation::Or => *word | 1 << (member & 63),
                        SetOperation::Xor => *word ^ 1 << (member & 63),
                        SetOperation::And | SetOperation::AndNot => *word & !(1 << (member & 63)),
                    };
                }
            }
        }
        self.settle()
    }
    /// How many runs: as many as members without a member just before them.
    fn runs(&self) -> usize {
        let mut before = 0;
        let starts = self.words.iter().map(|word| {
            let starts = word & !(word << 1 | before);
            before = word >> 63;
            starts.count_ones() as usize
        });
        starts.sum()
    }
}

fn filtered(members: &[u16], keep: impl Fn(u16) -> bool) -> Container {
    Container(Form::Array(members.iter().copied().filter(|member| keep(*member)).collect()))
}
/// What is in one or both, or (`exclusive`) not in both.
fn merged(mut a: &[u16], mut b: &[u16], exclusive: bool) -> Container {
    let mut members = Vec::with_capacity(a.len() + b.len());
    while let ([first, rest_a @ ..], [other, rest_b @ ..]) = (a, b) {
        if first != other || !exclusive {
            members.push(*first.min(other));
        }
        let (in_a, in_b) = (first <= other, other <= first);
        a = if in_a { rest_a } else { a };
        b = if in_b { rest_b } else { b };
    }
    members.extend_from_slice(a);
    members.extend_from_slice(b);
    Container::from_sorted(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Sets on both sides of the limit between array and bits, some of them with long runs.
    fn members() -> impl Strategy<Value = BTreeSet<u16>> {
        let range = (any::<u16>(), 0u16..6000);
        (proptest::collection::vec(range, 0..3), proptest::collection::vec(any::<u16>(), 0..40), 1u16..3).prop_map(
            |(ranges, singles, step)| {
                let of_range = |(start, size): &(u16, u16)| {
                    (*start..start.saturating_add(*size)).step_by(usize::from(step)).collect::<Vec<_>>()
                };
                ranges.iter().flat_map(of_range).chain(singles).collect()
            },
        )
    }
    fn container(members: &BTreeSet<u16>) -> Container {
        Container::from_sorted(members.iter().copied().collect())
    }

    proptest! {
        #[test]
        fn operations_are_those_of_sets(a in members(), b in members()) {
            use SetOperation::{And, AndNot, Or, Xor};
            for (operation, expected) in [(And, &a & &b), (Or, &a | &b), (Xor, &a ^ &b), (AndNot, &a - &b)] {
                let combined = container(&a).combine(operation, &container(&b));
                prop_assert_eq!(&combined, &container(&expected), "{:?}", operation);
                prop_assert_eq!(container(&a).combined_len(operation, &container(&b)), expected.len() as u64);
                prop_assert_eq!(combined.iter().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
            }
        }
        #[test]
        fn single_changes_are_those_of_a_set(start in members(), changes in proptest::collection::vec(any::<u16>(), 0..200)) {
            let (mut set, mut chunk) = (start.clone(), container(&start));
            for change in changes.iter().chain(start.iter().take(300)) {
                if change % 3 == 0 {
                    prop_assert_eq!(chunk.insert(*change), set.insert(*change));
                } else {
                    prop_assert_eq!(chunk.remove(*change), set.remove(change));
                }
                prop_assert_eq!(chunk.contains(*change), set.contains(change));
            }
            prop_assert_eq!(chunk.len(), set.len() as u64);
            prop_assert_eq!(chunk, container(&set));
        }
    }

    #[test]
    fn the_form_follows_the_number_of_members() {
        let mut chunk = Container::new();
        (0..8192).step_by(2).for_each(|member| assert!(chunk.insert(member)));
        assert!(matches!(chunk.0, Form::Array(_)));
        assert!(chunk.insert(1));
        assert!(matches!(chunk.0, Form::Bits(_)));
        assert!(chunk.remove(1));
        assert!(matches!(chunk.0, Form::Array(_)));
    }
}
