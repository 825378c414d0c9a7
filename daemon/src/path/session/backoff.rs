//! How long a session waits before it connects again.
//!
//! Pure: no clock, no randomness of its own. Fed by the supervisor with what became of each attempt; it does not know
//! what a failure is, only how patient it asks to be.

use std::time::Duration;

/// The first delay, and the smallest ever: a broker that restarts is met again at once.
const FIRST: Duration = Duration::from_millis(100);

/// The longest delay, and the scale of patience where retrying soon can only do harm.
const LONGEST: Duration = Duration::from_secs(30);

/// A connection that stood for so long was no accident: what happened before it is forgotten.
pub(super) const STEADY: Duration = Duration::from_secs(60);

/// How patient a failure asks to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Progress was made: the shortest delay.
    Quick,
    /// Exponential with jitter.
    Growing,
    /// Only a person can mend it, or two clients fight over one client identifier: the longest delays from the start.
    Slow,
}

/// The history that the next delay depends on.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Attempts without a CONNACK since the last one.
    failures: u32,
    /// Accepted connections in a row that did not get steady. Kept apart from failures so that the retries during an
    /// outage do not slow down the first retry after the next one.
    flaps: u32,
}

impl Backoff {
    /// An attempt ended without a connection.
    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// A connection ended that had stood for `up`.
    pub(super) fn ended(&mut self, up: Duration) {
        self.failures = 0;
        self.flaps = if up >= STEADY { 0 } else { self.flaps.saturating_add(1) };
    }

    /// The delay before the next attempt. `random` is uniform in 0..1.
    pub(super) fn delay(&self, pace: Pace, random: f64) -> Duration {
        let (shortest, longest) = match pace {
            Pace::Quick => (FIRST, FIRST),
            Pace::Slow => (LONGEST / 2, LONGEST),
            Pace::Growing => {
                let doublings = self.failures.saturating_add(self.flaps).saturating_sub(1).min(16);
                (FIRST, (FIRST * (1 << doublings)).min(LONGEST))
            }
        };
        shortest + (longest - shortest).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest delays after each of these events: an attempt that failed, or a connection that stood so long.
    fn check(events: &[Option<u64>], expected_millis: &[u64]) {
        let mut backoff = Backoff::default();
        let mut delays = Vec::new();
        for event in events {
            match event {
                None => backoff.failed(),
                Some(seconds) => backoff.ended(Duration::from_secs(*seconds)),
            }
            assert_eq!(backoff.delay(Pace::Growing, 0.0), FIRST);
            delays.push(u64::try_from(backoff.delay(Pace::Growing, 1.0).as_millis()).expect("fits"));
        }
        assert_eq!(delays, expected_millis);
    }

    #[test]
    fn failures_double_the_longest_delay_up_to_half_a_minute() {
        check(&[None; 11], &[100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
    }

    #[test]
    fn the_first_retry_after_a_steady_connection_is_quick() {
        check(&[None, None, None, Some(60), None], &[100, 200, 400, 100, 100]);
    }

    #[test]
    fn an_outage_does_not_slow_down_the_first_retry_after_the_next() {
        check(&[Some(5), None, None, None, Some(5), None], &[100, 200, 400, 800, 200, 400]);
    }

    #[test]
    fn connections_that_never_get_steady_slow_down() {
        check(&[Some(0), Some(0), Some(59), Some(0)], &[100, 200, 400, 800]);
    }

    #[test]
    fn paces_bound_the_delay() {
        let backoff = Backoff { failures: 7, flaps: 3 };
        assert_eq!(backoff.delay(Pace::Quick, 0.7), FIRST);
        assert_eq!(backoff.delay(Pace::Slow, 0.0), Duration::from_secs(15));
        assert_eq!(backoff.delay(Pace::Slow, 1.0), Duration::from_secs(30));
        assert_eq!(Backoff { failures: u32::MAX, flaps: u32::MAX }.delay(Pace::Growing, 1.0), LONGEST);
    }
}
