//! A sum of 128-bit integers in 192 bits: too wide to overflow, so that a sum that left the range comes back into it.

/// The sum: `high * 2^128 + low`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WideSum {
    low: u128,
    high: i64,
}

/// The least whole number of 39 digits, which no DECIMAL holds.
pub(crate) const DECIMAL_LIMIT: i128 = 10i128.pow(38);

impl WideSum {
    /// Bytes of [`to_bytes`](Self::to_bytes).
    pub(crate) const SIZE: usize = 24;

    /// Adds the value `diff` times.
    pub(crate) fn add(&mut self, value: i128, diff: i64) {
        match value.checked_mul(i128::from(diff)) {
            Some(product) => self.add_parts(product as u128, (product >> 127) as i64),
            None => {
                // Word by word: value = top * 2^64 + bottom.
                let (top, bottom) = (value >> 64, value as u64);
                let upper = top * i128::from(diff);
                self.add_parts((upper as u128) << 64, (upper >> 64) as i64);
                let lower = i128::from(bottom) * i128::from(diff);
                self.add_parts(lower as u128, (lower >> 127) as i64);
            }
        }
    }
    fn add_parts(&mut self, low: u128, high: i64) {
        let (sum, carry) = self.low.overflowing_add(low);
        self.low = sum;
        self.high = self.high.wrapping_add(high).wrapping_add(i64::from(carry));
    }
    /// The sum if it is a DECIMAL of at most 38 digits.
    pub(crate) fn value(&self) -> Option<i128> {
        let value = self.low as i128;
        (i128::from(self.high) == value >> 127 && value.unsigned_abs() < DECIMAL_LIMIT.unsigned_abs()).then_some(value)
    }
    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..16].copy_from_slice(&self.low.to_le_bytes());
        bytes[16..].copy_from_slice(&self.high.to_le_bytes());
        bytes
    }
    pub(crate) fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let (mut low, mut high) = ([0; 16], [0; 8]);
        low.copy_from_slice(&bytes[..16]);
        high.copy_from_slice(&bytes[16..]);
        WideSum { low: u128::from_le_bytes(low), high: i64::from_le_bytes(high) }
    }
}

/// The quotient, rounded half away from zero.
pub(crate) fn divide_rounding(dividend: i128, divisor: i64) -> i128 {
    let divisor = i128::from(divisor);
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    if rest.unsigned_abs() * 2 >= divisor.unsigned_abs() {
        quotient + if (dividend < 0) == (divisor < 0) { 1 } else { -1 }
    } else {
        quotient
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn leaves_the_range_and_comes_back() {
        let mut sum = WideSum::default();
        sum.add(DECIMAL_LIMIT - 1, 1);
        assert_eq!(sum.value(), Some(DECIMAL_LIMIT - 1));
        sum.add(1, 1);
        assert_eq!(sum.value(), None);
        sum.add(i128::MAX, i64::MAX);
        sum.add(i128::MIN, 1 << 60);
        assert_eq!(sum.value(), None);
        assert_eq!(WideSum::from_bytes(&sum.to_bytes()), sum);
        sum.add(i128::MIN, -(1 << 60));
        sum.add(i128::MAX, -i64::MAX);
        sum.add(-2, 1);
        assert_eq!(sum.value(), Some(DECIMAL_LIMIT - 2));
    }
    #[test]
    fn rounds_half_away_from_zero() {
        for (dividend, divisor, quotient) in
            [(5, 2, 3), (-5, 2, -3), (4, 3, 1), (-4, 3, -1), (5, 3, 2), (-5, 3, -2), (6, 3, 2)]
        {
            assert_eq!(divide_rounding(dividend, divisor), quotient, "{dividend} / {divisor}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_small_sum(values in proptest::collection::vec((-(1i128 << 100)..1i128 << 100, -1000i64..1000), 0..20)) {
            let mut sum = WideSum::default();
            values.iter().for_each(|(value, diff)| sum.add(*value, *diff));
            prop_assert_eq!(sum.value(), Some(values.iter().map(|(value, diff)| value * i128::from(*diff)).sum()));
        }
    }
}
