//! The exact sum of floats, rounded once, from which every addend can be taken back.
//!
//! `+=` on `f64` rounds at every step, so that a sum depends on the order of its addends and does not return to where it was
//! when one is subtracted. Here the sum is a whole number of units of 2^-1074, the smallest float: every finite float is one,
//! and so is every sum. It is held in two's complement in words of 64 bits, only those between the lowest and the highest
//! that were ever needed at a time, four for most data; 34 are the most for a single term of every size.
//!
//! NaN and the infinities are counted beside it, so that they can be taken back too. Rounding is to the nearest float, ties
//! to even; a sum beyond the largest float is infinite.

use smallvec::SmallVec;

/// Words of the sum and what is not finite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExactSum {
    /// The position of `words[0]`, in words, above 2^-1074.
    low: u16,
    /// Two's complement, least significant first; the last word's top bit is the sign. Empty is zero.
    words: SmallVec<[u64; 4]>,
    special: Option<Box<Special>>,
}
/// How often each was added, net of retractions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Special {
    nan: i64,
    positive: i64,
    negative: i64,
}

const MANTISSA_BITS: u32 = 52;
const EXPONENT_MAX: u64 = 0x7FF;

impl ExactSum {
    /// Zero.
    pub fn new() -> Self {
        ExactSum::default()
    }
    /// Adds the value `diff` times.
    pub fn add(&mut self, value: f64, diff: i64) {
        let bits = value.to_bits();
        let exponent = bits >> MANTISSA_BITS & EXPONENT_MAX;
        let fraction = bits & ((1 << MANTISSA_BITS) - 1);
        if exponent == EXPONENT_MAX {
            return self.add_special(value, diff);
        }
        // A float is `mantissa` units of 2^-1074, shifted left.
        let (mantissa, shift) = if exponent == 0 { (fraction, 0) } else { (fraction | 1 << MANTISSA_BITS, exponent - 1) };
        let product = i128::from(mantissa) * i128::from(diff);
        if product != 0 {
            self.add_shifted(if value.is_sign_negative() { -product } else { product }, shift as usize);
        }
    }
    fn add_special(&mut self, value: f64, diff: i64) {
        let special = self.special.get_or_insert_default();
        let count = match value {
            value if value.is_nan() => &mut special.nan,
            f64::INFINITY => &mut special.positive,
            _ => &mut special.negative,
        };
        *count += diff;
        if **special == Special::default() {
            self.special = None;
        }
    }
    /// Adds `product` times 2^shift units.
    fn add_shifted(&mut self, product: i128, shift: usize) {
        let (word, bits) = (shift / 64, shift % 64);
        let low = (product as u128) << bits;
        let high = if bits == 0 { product >> 127 } else { product >> (128 - bits) };
        self.add_words(word, [low as u64, (low >> 64) as u64, high as u64]);
    }
    /// Adds three words in two's complement, the first at the given position.
    fn add_words(&mut self, at: usize, addend: [u64; 3]) {
        // One word more than either addend: the sum of two numbers of n words needs at most n + 1.
        let end = (at + addend.len()).max(usize::from(self.low) + self.words.len());
        self.cover(at, end + 1);
        let extension = ((addend[2] as i64) >> 63) as u64;
        let offset = at - usize::from(self.low);
        let mut carry = false;
        for (index, word) in self.words[offset..].iter_mut().enumerate() {
            let (sum, overflow) = word.overflowing_add(addend.get(index).copied().unwrap_or(extension));
            let (sum, more) = sum.overflowing_add(u64::from(carry));
            *word = sum;
            carry = overflow | more;
        }
        self.trim();
    }
    /// Makes the words span at least the positions from `from` to before `to`.
    fn cover(&mut self, from: usize, to: usize) {
        if self.words.is_empty() {
            self.low = from as u16;
        }
        while usize::from(self.low) > from {
            self.words.insert(0, 0);
            self.low -= 1;
        }
        let sign = self.sign();
        while usize::from(self.low) + self.words.len() < to {
            self.words.push(sign);
        }
    }
    /// What the words above the last would all be.
    fn sign(&self) -> u64 {
        self.words.last().map_or(0, |last| ((*last as i64) >> 63) as u64)
    }
    /// Drops the words at the top that only repeat the sign, and the zeros at the bottom.
    fn trim(&mut self) {
        while let [.., below, last] = self.words[..] {
            if last != ((below as i64) >> 63) as u64 {
                break;
            }
            self.words.pop();
        }
        let zeros = self.words.iter().take_while(|word| **word == 0).count();
        self.words.drain(..zeros);
        self.low = if self.words.is_empty() { 0 } else { self.low + zeros as u16 };
    }
    /// Adds another sum.
    pub fn merge(&mut self, other: &ExactSum) {
        for (index, word) in other.words.iter().enumerate() {
            let top = index + 1 == other.words.len();
            let extension = if top { ((*word as i64) >> 63) as u64 } else { 0 };
            self.add_words(usize::from(other.low) + index, [*word, extension, extension]);
        }
        if let Some(special) = &other.special {
            self.add_special(f64::NAN, special.nan);
            self.add_special(f64::INFINITY, special.positive);
            self.add_special(f64::NEG_INFINITY, special.negative);
        }
    }
    /// Whether everything that was added was taken back (or cancels out).
    pub fn is_zero(&self) -> bool {
        self.words.is_empty() && self.special.is_none()
    }
    /// The sum, rounded to the nearest float.
    pub fn value(&self) -> f64 {
        if let Some(special) = &self.special {
            return match (special.nan != 0, special.positive != 0, special.negative != 0) {
                (false, true, false) => f64::INFINITY,
                (false, false, true) => f64::NEG_INFINITY,
                _ => f64::NAN,
            };
        }
        let negative = self.sign() != 0;
        let magnitude = self.magnitude(negative);
        let value = round(&magnitude, usize::from(self.low));
        if negative { -value } else { value }
    }
    fn magnitude(&self, negative: bool) -> SmallVec<[u64; 4]> {
        let mut words = self.words.clone();
        if negative {
            let mut carry = true;
            for word in &mut words {
                (*word, carry) = (!*word).overflowing_add(u64::from(carry));
            }
        }
        words
    }
    /// The sum as bytes, for states that are rows.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(3 + 8 * self.words.len());
        bytes.push(u8::from(self.special.is_some()));
        bytes.extend_from_slice(&self.low.to_le_bytes());
        if let Some(special) = &self.special {
            for count in [special.nan, special.positive, special.negative] {
                bytes.extend_from_slice(&count.to_le_bytes());
            }
        }
        for word in &self.words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    }
    /// The sum whose [`to_bytes`](Self::to_bytes) these are; zero for anything shorter.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let Some(([special, low, high], rest)) = bytes.split_first_chunk() else { return ExactSum::default() };
        let mut words: SmallVec<[u64; 4]> = rest.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let special = (*special == 1 && words.len() >= 3).then(|| {
            let counts: SmallVec<[u64; 3]> = words.drain(..3).collect();
            Box::new(Special { nan: counts[0] as i64, positive: counts[1] as i64, negative: counts[2] as i64 })
        });
        ExactSum { low: u16::from_le_bytes([*low, *high]), words, special }
    }
}

/// The float nearest to an unsigned number of units of 2^(64 low - 1074), ties to even.
fn round(words: &[u64], low: usize) -> f64 {
    let Some(top_word) = words.iter().rposition(|word| *word != 0) else { return 0.0 };
    let top = 64 * top_word + 63 - words[top_word].leading_zeros() as usize;
    let position = top + 64 * low;
    let mantissa_bits = MANTISSA_BITS as usize;
    if position < mantissa_bits + 1 {
        // Small enough that every unit counts: the bits of such a float are the number itself.
        return f64::from_bits(words[0]);
    }
    // The lowest bit of the mantissa; below the words held if the number has fewer bits.
    let shift = top as isize - mantissa_bits as isize;
    let mantissa = bits_from(words, shift);
    let half = shift > 0 && bit(words, shift as usize - 1);
    let sticky = shift > 1 && any_bit_below(words, shift as usize - 1);
    let up = half && (sticky || mantissa & 1 == 1);
    // Adding the mantissa, its leading bit included, to the exponent's field raises it by one; so does a carry.
    let exponent = (position - mantissa_bits) as u64;
    if exponent >= EXPONENT_MAX - 1 {
        return f64::INFINITY;
    }
    f64::from_bits((exponent << MANTISSA_BITS) + mantissa + u64::from(up))
}
/// The 53 bits from `shift` on, zeros below the first word.
fn bits_from(words: &[u64], shift: isize) -> u64 {
    if shift < 0 {
        return words[0] << -shift;
    }
    let (word, bits) = (shift as usize / 64, shift as usize % 64);
    let high = words.get(word + 1).copied().unwrap_or(0);
    let both = u128::from(high) << 64 | u128::from(words[word]);
    (both >> bits) as u64 & ((1 << (MANTISSA_BITS + 1)) - 1)
}
fn bit(words: &[u64], index: usize) -> bool {
    words[index / 64] >> (index % 64) & 1 == 1
}
fn any_bit_below(words: &[u64], index: usize) -> bool {
    words[..index / 64].iter().any(|word| *word != 0) || words[index / 64] & ((1 << (index % 64)) - 1) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::new();
        values.iter().for_each(|value| sum.add(*value, 1));
        sum
    }
    fn any_finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite()),
            (-1000i32..1000).prop_map(|cents| f64::from(cents) / 100.0),
            Just(f64::MAX),
            Just(-f64::MAX),
            Just(5e-324),
            Just(-0.0),
        ]
    }

    #[test]
    fn a_single_value_comes_back() {
        for value in [0.1, -0.1, 1.0, 5e-324, -5e-324, f64::MAX, f64::MIN_POSITIVE, 2.225073858507201e-308, 1e300] {
            assert_eq!(sum(&[value]).value(), value);
        }
    }
    #[test]
    fn rounds_once_and_half_to_even() {
        assert_eq!(sum(&[0.1; 10]).value(), 1.0);
        assert_eq!(sum(&[1e308, 1e308, -1e308]).value(), 1e308);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
        assert_eq!(sum(&[-f64::MAX, -f64::MAX]).value(), f64::NEG_INFINITY);
        let half = 2f64.powi(-53);
        assert_eq!(sum(&[1.0, half]).value(), 1.0);
        assert_eq!(sum(&[1.0 + 2.0 * half, half]).value(), 1.0 + 4.0 * half);
        assert_eq!(sum(&[1.0, half, 5e-324]).value(), 1.0 + 2.0 * half);
        assert_eq!(sum(&[1e16, 1.0, 1.0]).value(), 1e16 + 2.0);
    }
    #[test]
    fn grows_as_far_as_it_must() {
        let mut sum = sum(&[1.0]);
        (0..20_000).for_each(|_| sum.add(f64::MAX, i64::MAX));
        assert_eq!(sum.value(), f64::INFINITY);
        (0..20_000).for_each(|_| sum.add(f64::MAX, -i64::MAX));
        assert_eq!(sum.value(), 1.0);
    }
    #[test]
    fn what_is_not_finite_can_be_taken_back() {
        let mut sum = sum(&[1.5, f64::NAN, f64::INFINITY]);
        assert!(sum.value().is_nan());
        sum.add(f64::NAN, -1);
        assert_eq!(sum.value(), f64::INFINITY);
        sum.add(f64::NEG_INFINITY, 1);
        assert!(sum.value().is_nan());
        sum.add(f64::NEG_INFINITY, -1);
        sum.add(f64::INFINITY, -1);
        assert_eq!(sum.value(), 1.5);
        sum.add(1.5, -1);
        assert!(sum.is_zero());
    }
    /// The sum as a fraction of whole numbers, for numbers of few bits: scaled by 2^60.
    fn reference(values: &[(i64, i32, i64)]) -> f64 {
        let total: i128 = values.iter().map(|(m, e, d)| (i128::from(*m) << e) * i128::from(*d)).sum();
        total as f64 / 2f64.powi(60)
    }

    proptest! {
        #[test]
        fn agrees_with_whole_numbers(values in proptest::collection::vec((-1000i64..1000, 0i32..100, -3i64..4), 0..20)) {
            let mut sum = ExactSum::new();
            for (mantissa, exponent, diff) in &values {
                sum.add(*mantissa as f64 * 2f64.powi(exponent - 60), *diff);
            }
            prop_assert_eq!(sum.value(), reference(&values));
        }

        #[test]
        fn order_does_not_matter_and_everything_can_be_taken_back(
            values in proptest::collection::vec((any_finite(), 1i64..5), 0..20), split in any::<prop::sample::Index>()
        ) {
            let mut forward = ExactSum::new();
            values.iter().for_each(|(value, diff)| forward.add(*value, *diff));
            let split = split.index(values.len() + 1);
            let (mut left, mut right) = (ExactSum::new(), ExactSum::new());
            values[..split].iter().rev().for_each(|(value, diff)| left.add(*value, *diff));
            values[split..].iter().for_each(|(value, diff)| right.add(*value, *diff));
            right.merge(&left);
            prop_assert_eq!(&forward, &right);
            prop_assert_eq!(&ExactSum::from_bytes(&forward.to_bytes()), &forward);
            values.iter().rev().for_each(|(value, diff)| forward.add(-*value, *diff));
            prop_assert!(forward.is_zero());
            values.iter().for_each(|(value, diff)| right.add(*value, -*diff));
            prop_assert!(right.is_zero());
        }
    }
}
