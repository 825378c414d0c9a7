//! Waiting for something observable, with a deadline. The only place of the scenarios that sleeps.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How long a condition may take that normally holds within a second: a loaded machine is not a defect.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `attempt` gives a value, for at most [`PATIENCE`]; its error says what was seen instead.
///
/// # Panics
/// The deadline passed; the message names `what` and the last error.
#[track_caller]
pub fn until<T, E: Display>(what: impl Display, attempt: impl FnMut() -> Result<T, E>) -> T {
    until_within(PATIENCE, what, attempt)
}

/// As [`until`], with a deadline of its own.
#[track_caller]
pub fn until_within<T, E: Display>(
    limit: Duration,
    what: impl Display,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > limit => panic!("{what}: not within {limit:?}; last seen: {seen}"),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Waits until `condition` holds, for at most [`PATIENCE`].
#[track_caller]
pub fn until_true(what: impl Display, mut condition: impl FnMut() -> bool) {
    until(what, || if condition() { Ok(()) } else { Err("it does not hold") });
}
