//! Whether and when a call that failed is made again.
//!
//! Pure: the time is told, and so is chance. `lanes.rs` keeps the message and what waits behind it; this does not know why a
//! call failed.

use std::fmt;
use std::time::{Duration, Instant};

use crate::control::config::format_duration;
use crate::control::config::model::Retry;

/// The calls that were made for one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Calls that have begun.
    begun: u32,
    /// When the first of them began.
    first: Option<Instant>,
}

/// Why no further call is made: `after 4 calls (retry.max = 3)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Calls that were made.
    calls: u32,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// As many as the handler permits.
    UsedUp { max: u32 },
    /// The next one would come too late.
    TooLate { wait: Duration, asked: bool, max_time: Duration },
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GivenUp { calls, why } = self;
        write!(f, "after {calls} {}", if *calls == 1 { "call" } else { "calls" })?;
        match why {
            Why::UsedUp { max } => write!(f, " (retry.max = {max})"),
            Why::TooLate { wait, asked, max_time } => {
                let whose = if *asked { "that it asks for" } else { "before the next one" };
                let (wait, max_time) = (format_duration(*wait), format_duration(*max_time));
                write!(f, ": the wait of {wait} {whose} is longer than what is left of retry.max-time = {max_time}")
            }
        }
    }
}

impl Tries {
    /// Another call begins now. Which one it is, from 1.
    pub fn begin(&mut self, now: Instant) -> u32 {
        self.first.get_or_insert(now);
        self.begun = self.begun.saturating_add(1);
        self.begun
    }

    /// Calls that have begun.
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// As they count for a message that was parked meanwhile: each call, but not the time.
    pub fn parked(self) -> Tries {
        Tries { first: None, ..self }
    }

    /// When to call again after a call that ended at `now`. The handler may ask for a wait of its own, `after`; otherwise it
    /// is random between the shortest wait and a longest one that doubles from call to call. `random` is uniform in 0..1.
    ///
    /// # Errors
    /// That is once too often, or would be too late.
    pub fn again(&self, retry: &Retry, now: Instant, after: Option<Duration>, random: f64) -> Result<Instant, GivenUp> {
        let calls = self.begun;
        if calls > retry.max {
            return Err(GivenUp { calls, why: Why::UsedUp { max: retry.max } });
        }
        let wait = after.unwrap_or_else(|| {
            let (shortest, longest) = (*retry.backoff.start(), *retry.backoff.end());
            let doubled = shortest.saturating_mul(1_u32.checked_shl(self.begun).unwrap_or(u32::MAX)).min(longest);
            shortest + (doubled - shortest).mul_f64(random.clamp(0.0, 1.0))
        });
        let latest = self.first.unwrap_or(now).checked_add(retry.max_time);
        let again = now.checked_add(wait).filter(|again| latest.is_none_or(|latest| *again <= latest));
        let why = Why::TooLate { wait, asked: after.is_some(), max_time: retry.max_time };
        again.ok_or(GivenUp { calls, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn policy(max: u32) -> Retry {
        Retry { max, backoff: 100 * MILLI..=1000 * MILLI, max_time: 5000 * MILLI }
    }

    /// After so many calls, the last of which ended so long after the first began: the waits with the least and the most of
    /// chance, in milliseconds.
    #[track_caller]
    fn check(max: u32, begun: u32, since: u32, after: Option<Duration>, expected: [Option<u64>; 2]) {
        let start = Instant::now();
        let now = start + since * MILLI;
        let mut tries = Tries::default();
        (0..begun).for_each(|_| _ = tries.begin(start));
        let wait = |random| {
            let again = tries.again(&policy(max), now, after, random);
            again.ok().map(|again| u64::try_from((again - now).as_millis()).expect("is short"))
        };
        assert_eq!([wait(0.0), wait(1.0)], expected);
    }

    #[test]
    fn the_longest_wait_doubles_up_to_its_limit() {
        check(9, 1, 0, None, [Some(100), Some(200)]);
        check(9, 2, 0, None, [Some(100), Some(400)]);
        check(9, 3, 0, None, [Some(100), Some(800)]);
        check(9, 4, 0, None, [Some(100), Some(1000)]);
        check(9, 9, 0, None, [Some(100), Some(1000)]);
        check(99, 77, 0, None, [Some(100), Some(1000)]);
    }

    #[test]
    fn calls_are_made_again_as_often_as_asked_for() {
        check(0, 1, 0, None, [None, None]);
        check(3, 3, 0, None, [Some(100), Some(800)]);
        check(3, 4, 0, None, [None, None]);
    }

    #[test]
    fn a_call_that_would_come_too_late_is_not_waited_for() {
        check(9, 3, 4500, None, [Some(100), None]);
        check(9, 1, 4950, None, [None, None]);
    }

    #[test]
    fn the_handler_may_say_how_long_to_wait() {
        check(9, 1, 0, Some(Duration::ZERO), [Some(0), Some(0)]);
        check(9, 1, 0, Some(3000 * MILLI), [Some(3000), Some(3000)]);
        check(9, 1, 0, Some(5001 * MILLI), [None, None]);
        check(9, 1, 0, Some(Duration::MAX), [None, None]);
    }

    #[test]
    fn it_says_why_no_further_call_is_made() {
        let start = Instant::now();
        let said = |max, begun, after: Option<u32>| {
            let mut tries = Tries::default();
            (0..begun).for_each(|_| _ = tries.begin(start));
            let now = start + 4950 * MILLI;
            let given_up =
                tries.again(&policy(max), now, after.map(|after| after * MILLI), 0.0).expect_err("no further");
            given_up.to_string()
        };
        assert_eq!(said(0, 1, None), "after 1 call (retry.max = 0)");
        assert_eq!(said(3, 4, Some(1)), "after 4 calls (retry.max = 3)");
        let late = "is longer than what is left of retry.max-time = 5s";
        assert_eq!(said(3, 2, Some(60_000)), format!("after 2 calls: the wait of 1m that it asks for {late}"));
        assert_eq!(said(3, 1, None), format!("after 1 call: the wait of 100ms before the next one {late}"));
    }
}
