//! A seeded source of random numbers that gives the same sequence on every machine.
//!
//! The logarithm and exponential are our own: those of the system's library may differ in the last bit.

/// xoshiro256**, seeded through splitmix64 (Blackman and Vigna, "Scrambled linear pseudorandom number generators").
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Random {
        let mut next = seed;
        let state = std::array::from_fn(|_| {
            next = next.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = next;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^ (word >> 31)
        });
        Random { state }
    }
    /// A sequence of its own for one purpose, so that drawing more for one leaves the others as they are.
    pub fn fork(&self, purpose: u64) -> Random {
        Random::new(self.state[0] ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }
    /// A number in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
    /// A number less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(limit)) >> 64) as u64
    }
    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }
    /// An exponentially distributed number.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * ln(1.0 - self.unit())
    }
    /// A normally distributed number, as closely as the sum of twelve uniform ones.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
    /// The numbers less than `size` in random order.
    pub fn permutation(&mut self, size: u32) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..size).collect();
        for index in (1..numbers.len()).rev() {
            numbers.swap(index, self.below(index as u64 + 1) as usize);
        }
        numbers
    }
}

/// Draws an index with a probability proportional to its weight.
#[derive(Clone, Debug)]
pub struct Weighted {
    /// The sums of the weights up to each index, scaled to 1.
    sums: Vec<f64>,
}

impl Weighted {
    /// A distribution with these weights.
    pub fn new(weights: impl IntoIterator<Item = f64>) -> Weighted {
        let mut total = 0.0;
        let mut sums: Vec<f64> = Vec::new();
        for weight in weights {
            total += weight;
            sums.push(total);
        }
        sums.iter_mut().for_each(|sum| *sum /= total);
        Weighted { sums }
    }
    /// An index.
    pub fn draw(&self, random: &mut Random) -> usize {
        let at = random.unit();
        self.sums.partition_point(|sum| *sum <= at).min(self.sums.len() - 1)
    }
}

/// The natural logarithm of a positive, normal number.
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    // ln m = 2 artanh((m - 1) / (m + 1)), a series that converges quickly for m in 1..2.
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let (mut power, mut sum) = (z, 0.0);
    for odd in (1..40).step_by(2) {
        sum += power / f64::from(odd);
        power *= z * z;
    }
    2.0 * sum + exponent as f64 * std::f64::consts::LN_2
}
/// The exponential of a number of moderate size.
pub fn exp(x: f64) -> f64 {
    let halvings = 8;
    let small = x / f64::from(1 << halvings);
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1..16 {
        term *= small / f64::from(n);
        sum += term;
    }
    (0..halvings).fold(sum, |value, _| value * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_right() {
        for x in [1e-300, 0.001, 0.5, 1.0, 1.999, 2.0, 3.7, 1e18] {
            assert!((ln(x) - x.ln()).abs() < 1e-12 * x.ln().abs().max(1.0), "ln {x}");
        }
        for x in [-20.0f64, -1.0, 0.0, 0.3, 8.3, 20.0] {
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-12, "exp {x}");
        }
    }

    #[test]
    fn distributions_have_their_means() {
        let mut random = Random::new(1);
        let mut mean = |draw: &mut dyn FnMut(&mut Random) -> f64| (0..100_000).map(|_| draw(&mut random)).sum::<f64>() / 1e5;
        assert!((mean(&mut |r| r.unit()) - 0.5).abs() < 0.01);
        assert!((mean(&mut |r| r.exponential(3.0)) - 3.0).abs() < 0.05);
        assert!((mean(&mut |r| r.normal().powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&mut |r| r.below(10) as f64) - 4.5).abs() < 0.05);
        let weighted = Weighted::new([1.0, 0.0, 3.0]);
        assert!((mean(&mut |r| weighted.draw(r) as f64) - 1.5).abs() < 0.02);
        let mut sorted = random.permutation(100);
        assert_ne!(sorted[..3], [0, 1, 2]);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
