//! Times as handlers get them.
//!
//! Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch; 0 for a clock set before it.
pub(in crate::path::handler) fn unix_nanos(time: SystemTime) -> u64 {
    nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Nanoseconds; the largest number past the 584 years that fit.
pub(in crate::path::handler) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_nanoseconds_and_never_wrap() {
        assert_eq!(unix_nanos(UNIX_EPOCH + Duration::new(1, 5)), 1_000_000_005);
        assert_eq!(unix_nanos(UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }
}
