//! Says a repeating thing now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets one of many repeats through in each period and counts the others.
pub struct Occasional {
    started: Instant,
    period: Duration,
    /// Milliseconds after `started` at which the next one is let through. Written by whoever is let through.
    next: AtomicU64,
    /// Repeats since the last one that was let through.
    unsaid: AtomicU64,
}

impl Occasional {
    /// Lets the first one through, and then one in each period.
    pub fn every(period: Duration) -> Occasional {
        Occasional { started: Instant::now(), period, next: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }

    /// Whether this one is let through; then how many were not since the last.
    pub fn due(&self) -> Option<u64> {
        let now = self.started.elapsed();
        let next = self.next.load(Ordering::Relaxed);
        let after = (now + self.period).as_millis() as u64;
        let first = now.as_millis() as u64 >= next
            && self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if first {
            return Some(self.unsaid.swap(0, Ordering::Relaxed));
        }
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_the_first_through_and_counts_the_rest() {
        let occasional = Occasional::every(Duration::from_secs(3600));
        assert_eq!(occasional.due(), Some(0));
        assert_eq!(occasional.due(), None);
        assert_eq!(occasional.due(), None);
        let always = Occasional::every(Duration::ZERO);
        assert_eq!((always.due(), always.due()), (Some(0), Some(0)));
    }
}
