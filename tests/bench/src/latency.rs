//! A histogram of latencies, exact to a sixty-fourth of the value.
//!
//! Pure. Adding a value is a few instructions: it happens for every message, while they are measured.

/// Buckets for each power of two.
const FINE: usize = 64;
/// log2 of [`FINE`].
const FINE_BITS: u32 = FINE.trailing_zeros();
/// Enough for every number of nanoseconds.
const BUCKETS: usize = FINE * (64 - FINE_BITS as usize + 1);

/// How long messages took, in nanoseconds.
#[derive(Clone)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

impl Latencies {
    /// Without any.
    pub fn new() -> Latencies {
        Latencies { buckets: vec![0; BUCKETS], count: 0 }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
    }

    /// Adds one.
    pub fn add(&mut self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)] += 1;
        self.count += 1;
    }

    /// The value, in milliseconds, that this share of all does not exceed; none without any.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.filter(|_| self.count > 0).map(|bucket| middle(bucket) / 1e6)
    }
}

fn bucket(value: u64) -> usize {
    if value < FINE as u64 {
        return value as usize;
    }
    let power = value.ilog2() - FINE_BITS;
    (power as usize + 1) * FINE + (value >> power) as usize - FINE
}

/// The value in the middle of a bucket.
fn middle(bucket: usize) -> f64 {
    if bucket < FINE {
        return bucket as f64;
    }
    let power = (bucket / FINE - 1) as i32;
    ((FINE + bucket % FINE) as f64 + 0.5) * f64::powi(2.0, power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_near_the_middle_of_its_bucket() {
        let mut value: u64 = 0;
        while value < u64::MAX / 2 {
            let shown = middle(bucket(value));
            assert!((shown - value as f64).abs() <= value as f64 / 64.0, "{value} is shown as {shown}");
            value += value / 7 + 1;
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantile(0.5), None);
        (1..=1000).for_each(|value| latencies.add(value * 1_000_000));
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0), (0.0, 1.0)] {
            let found = latencies.quantile(share).expect("there are values");
            assert!((found - expected).abs() <= expected / 64.0, "{share}: {found} instead of {expected}");
        }
        latencies.clear();
        assert_eq!(latencies.quantile(0.5), None);
    }
}
