//! When a subscription has been silent for too long.
//!
//! The core is pure: the time is told. Silence counts from the first SUBACK since the start, or from the last message; it goes on while
//! the broker is not connected. It is due once for each full period, until a message comes. [`Heard`] is where the router notes
//! that one came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a subscription's last message came. Written by the router for every message, read by the task.
#[derive(Debug)]
pub struct Heard {
    base: Instant,
    /// Microseconds since `base`, from 1; 0 is never.
    last: AtomicU64,
}

impl Heard {
    /// Nothing came yet.
    pub fn new() -> Heard {
        Heard { base: Instant::now(), last: AtomicU64::new(0) }
    }

    /// A message came at this time.
    pub fn mark(&self, arrived: Instant) {
        let micros = u64::try_from(arrived.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX);
        self.last.store(micros.max(1), Ordering::Relaxed);
    }

    /// When the last one came.
    pub fn last(&self) -> Option<Instant> {
        match self.last.load(Ordering::Relaxed) {
            0 => None,
            micros => self.base.checked_add(Duration::from_micros(micros)),
        }
    }
}

impl Default for Heard {
    fn default() -> Heard {
        Heard::new()
    }
}

/// The silence of one subscription.
#[derive(Clone, Debug)]
pub struct Silence {
    period: Duration,
    /// When the broker granted the subscription for the first time.
    granted: Option<Instant>,
    /// When it was due last.
    last: Option<Instant>,
}

/// What a look finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallen {
    /// When the silence was due that is told now.
    pub due: Instant,
    /// Periods before it that nobody looked at in time.
    pub missed: u64,
}

impl Silence {
    /// Of a subscription that was not granted yet.
    pub fn new(period: Duration) -> Silence {
        Silence { period, granted: None, last: None }
    }

    /// How long it has to be silent.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The broker has granted the subscription. Only the first time counts. Whether this was it.
    pub fn granted(&mut self, now: Instant) -> bool {
        let first = self.granted.is_none();
        self.granted.get_or_insert(now);
        first
    }

    /// When it is due next if nothing comes; none while it does not count yet.
    pub fn due(&self, heard: Option<Instant>) -> Option<Instant> {
        let since = self.granted.max(heard)?;
        self.last.map_or(since, |last| last.max(since)).checked_add(self.period)
    }

    /// Looks whether it is due; then it is due again after another period.
    pub fn look(&mut self, now: Instant, heard: Option<Instant>) -> Option<Fallen> {
        let due = self.due(heard).filter(|due| *due <= now)?;
        let missed = u64::try_from((now - due).as_nanos() / self.period.as_nanos()).unwrap_or(u64::MAX);
        let newest = due + self.period.saturating_mul(u32::try_from(missed).unwrap_or(u32::MAX));
        self.last = Some(newest);
        Some(Fallen { due: newest, missed })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn fallen(due: Instant, missed: u64) -> Option<Fallen> {
        Some(Fallen { due, missed })
    }

    #[test]
    fn silence_counts_from_the_first_suback() {
        let start = Instant::now();
        let mut silence = Silence::new(MINUTE);
        assert_eq!((silence.due(None), silence.look(start + 9 * MINUTE, None)), (None, None));
        assert!(silence.granted(start + 10 * MINUTE));
        assert!(!silence.granted(start + 10 * MINUTE + MINUTE / 2), "granted anew after a lost connection");
        assert_eq!(silence.look(start + 11 * MINUTE - Duration::from_nanos(1), None), None);
        assert_eq!(silence.look(start + 11 * MINUTE, None), fallen(start + 11 * MINUTE, 0));
    }

    #[test]
    fn a_message_ends_the_silence() {
        let start = Instant::now();
        let mut silence = Silence::new(MINUTE);
        silence.granted(start);
        let heard = Some(start + MINUTE / 2);
        assert_eq!(silence.look(start + MINUTE, heard), None);
        assert_eq!(silence.due(heard), Some(start + MINUTE / 2 + MINUTE));
        assert_eq!(silence.look(start + 2 * MINUTE, heard), fallen(start + MINUTE / 2 + MINUTE, 0));
        let heard = Some(start + 2 * MINUTE);
        assert_eq!(silence.look(start + 3 * MINUTE - Duration::from_nanos(1), heard), None);
        assert_eq!(silence.look(start + 3 * MINUTE, heard), fallen(start + 3 * MINUTE, 0));
    }

    #[test]
    fn it_is_due_once_for_each_full_period() {
        let start = Instant::now();
        let mut silence = Silence::new(MINUTE);
        silence.granted(start);
        assert_eq!(silence.look(start + MINUTE + MINUTE / 2, None), fallen(start + MINUTE, 0));
        assert_eq!(silence.look(start + 2 * MINUTE - Duration::from_nanos(1), None), None);
        assert_eq!(silence.look(start + 2 * MINUTE, None), fallen(start + 2 * MINUTE, 0));
        assert_eq!(silence.look(start + 5 * MINUTE + MINUTE / 2, None), fallen(start + 5 * MINUTE, 2));
    }

    #[test]
    fn what_is_heard_is_kept() {
        let heard = Heard::new();
        assert_eq!(heard.last(), None);
        let now = Instant::now();
        heard.mark(now);
        let last = heard.last().expect("something came");
        assert!(now.saturating_duration_since(last) < Duration::from_millis(1), "to the microsecond");
        heard.mark(heard.base);
        assert!(heard.last().is_some(), "also at the very beginning");
    }

    proptest! {
        /// Whenever somebody looks: it is told exactly when a full period has passed since the last message, the grant and what was
        /// told before.
        #[test]
        fn it_is_told_when_it_is_due(steps in prop::collection::vec((0_u64..90, any::<bool>()), 0..60)) {
            let start = Instant::now();
            let mut silence = Silence::new(MINUTE);
            silence.granted(start);
            let (mut now, mut heard, mut since) = (start, None, start);
            for (pass, message) in steps {
                now += Duration::from_secs(pass);
                if message {
                    heard = Some(now);
                    since = now;
                }
                let periods = (now - since).as_secs() / 60;
                match silence.look(now, heard) {
                    None => prop_assert_eq!(periods, 0),
                    Some(Fallen { due, missed }) => {
                        prop_assert_eq!(missed + 1, periods);
                        since += MINUTE * u32::try_from(periods).expect("is small");
                        prop_assert_eq!(due, since);
                    }
                }
            }
        }
    }
}
