//! Percentiles of how long single changes took.

use std::fmt;
use std::time::Duration;

/// Durations of one kind of change.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    all: Vec<Duration>,
}

impl Latencies {
    /// Adds one.
    pub fn push(&mut self, latency: Duration) {
        self.all.push(latency);
    }
    /// The smallest latency that `percent` of all do not exceed (nearest rank); zero where there is none.
    pub fn percentile(&self, percent: f64) -> Duration {
        let mut sorted = self.all.clone();
        sorted.sort_unstable();
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |percent| self.percentile(percent).as_secs_f64() * 1e6;
        write!(f, "p50_us={:.1} p99_us={:.1} max_us={:.1}", micros(50.0), micros(99.0), micros(100.0))?;
        write!(f, " n={}", self.all.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50.0), Duration::ZERO);
        (1..=200).rev().for_each(|i| latencies.push(Duration::from_micros(i)));
        assert_eq!(latencies.percentile(50.0), Duration::from_micros(100));
        assert_eq!(latencies.percentile(99.0), Duration::from_micros(198));
        assert_eq!(latencies.percentile(100.0), Duration::from_micros(200));
    }
}
