//! The time, by the daemon's clocks.

use std::time::{Duration, SystemTime};

use crate::host;

/// The wall clock time. It may jump when the machine's clock is set.
pub fn now() -> SystemTime {
    from_unix(host::wall_nanos())
}

/// Time that never goes back, since an instant that is fixed for the instance's life: for durations.
///
/// ```
/// let start = tidegate_sdk::clock::monotonic();
/// assert!(tidegate_sdk::clock::monotonic() >= start);
/// ```
pub fn monotonic() -> Duration {
    Duration::from_nanos(host::monotonic_nanos())
}

/// The time so many nanoseconds after the Unix epoch.
pub fn from_unix(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// Rounded up, so that nothing comes early; a time that no clock reaches is the longest one.
pub fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
