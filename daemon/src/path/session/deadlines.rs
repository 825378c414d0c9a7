//! When a broker has owed something for too long.
//!
//! Pure: no clock of its own. Fed once a second by the supervisor with what a connection has seen so far; its answer ends
//! that connection. It watches over what the link cannot notice by itself: answers that never come although the connection
//! lives, and writes that never end. Pings, and CONNECT, are the link's own to watch.

use std::time::{Duration, Instant};

use super::failure::Failure;
use super::packet::Welcome;

/// How long a broker may owe an answer while nothing at all comes or goes but pings. On a slow link, where large messages
/// are under way, an answer may rightly take longer.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// How long a broker may owe the answer to one SUBSCRIBE or UNSUBSCRIBE, whatever else flows: under constant traffic the
/// deadline above never passes, and no subscription would ever be asked for again.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(60);

/// How long a broker may owe the acknowledgement of one written publish, whatever else flows.
const ACKNOWLEDGEMENT_DEADLINE: Duration = Duration::from_secs(300);

/// How much longer than the keep alive a socket may take nothing, whatever it brings.
const WRITE_DEADLINE: Duration = Duration::from_secs(15);

/// What a connection has seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Packets received and writes finished, pings apart.
    pub(super) traffic: u64,
    /// Since when the oldest SUBSCRIBE or UNSUBSCRIBE is unanswered.
    pub(super) subscribe: Option<Instant>,
    /// Since when the socket takes nothing.
    pub(super) blocked: Option<Instant>,
    /// Since when the oldest written publish is unacknowledged.
    pub(super) written: Option<Instant>,
}

/// The deadlines of one connection.
pub(super) struct Deadlines {
    /// The longest time that the socket may take nothing while other things happen.
    blocked: Duration,
    traffic: Pulse,
}

impl Deadlines {
    /// Of a connection that was accepted `now` after a CONNECT with this keep alive, in seconds.
    pub(super) fn new(keep_alive: u16, welcome: &Welcome, now: Instant) -> Deadlines {
        Deadlines::of(Duration::from_secs(keep_alive.into()).max(welcome.keep_alive.unwrap_or_default()), now)
    }

    fn of(keep_alive: Duration, now: Instant) -> Deadlines {
        Deadlines { blocked: keep_alive + WRITE_DEADLINE, traffic: Pulse { count: 0, moved: now } }
    }

    /// Why the connection is to end, if the broker has owed something for too long.
    pub(super) fn overdue(&mut self, now: Instant, seen: Seen) -> Option<Failure> {
        let idle = self.traffic.still(seen.traffic, now) >= ANSWER_DEADLINE;
        let owed = |since: Option<Instant>, longest: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= longest)
        };
        if idle && owed(seen.subscribe, ANSWER_DEADLINE) {
            Some(Failure::SubscribeUnanswered(ANSWER_DEADLINE.as_secs()))
        } else if owed(seen.subscribe, SUBSCRIBE_DEADLINE) {
            Some(Failure::SubscribeUnanswered(SUBSCRIBE_DEADLINE.as_secs()))
        } else if idle && owed(seen.blocked, ANSWER_DEADLINE) {
            // Before what is written: where the socket takes nothing, that is unacknowledged for this reason.
            Some(Failure::WriteStuck(ANSWER_DEADLINE.as_secs()))
        } else if owed(seen.blocked, self.blocked) {
            Some(Failure::WriteStuck(self.blocked.as_secs()))
        } else if idle && owed(seen.written, ANSWER_DEADLINE) {
            Some(Failure::PublishUnanswered(ANSWER_DEADLINE.as_secs()))
        } else if owed(seen.written, ACKNOWLEDGEMENT_DEADLINE) {
            Some(Failure::PublishUnanswered(ACKNOWLEDGEMENT_DEADLINE.as_secs()))
        } else {
            None
        }
    }
}

/// A count that grows while something moves.
struct Pulse {
    count: u64,
    /// When the count was last seen to have grown.
    moved: Instant,
}

impl Pulse {
    /// How long the count has stood still.
    fn still(&mut self, count: u64, now: Instant) -> Duration {
        if count != self.count {
            *self = Pulse { count, moved: now };
        }
        now.saturating_duration_since(self.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second, at most 1,000, in which the connection is ended, and why. `see` tells what was seen until a second.
    fn ends(see: impl Fn(u64, &dyn Fn(u64) -> Option<Instant>) -> Seen) -> Option<(u64, Failure)> {
        let start = Instant::now();
        let at = |second: u64| Some(start + Duration::from_secs(second));
        let mut deadlines = Deadlines::of(Duration::from_secs(60), start);
        (0..=1000).find_map(|second| {
            let seen = see(second, &at);
            deadlines.overdue(start + Duration::from_secs(second), seen).map(|failure| (second, failure))
        })
    }

    /// Pings at most, which are no traffic.
    fn quiet(_second: u64) -> Seen {
        Seen::default()
    }

    /// Messages every second.
    fn busy(second: u64) -> Seen {
        Seen { traffic: second, ..Seen::default() }
    }

    #[test]
    fn a_connection_on_which_nothing_is_owed_stays() {
        assert_eq!(ends(|second, _| quiet(second)), None);
        assert_eq!(ends(|second, _| busy(second)), None);
    }

    #[test]
    fn a_subscribe_is_answered_within_half_a_minute_of_quiet_and_a_minute_of_traffic() {
        let owed = |seen: Seen, since| Seen { subscribe: since, ..seen };
        assert_eq!(ends(|second, at| owed(quiet(second), at(0))), Some((30, Failure::SubscribeUnanswered(30))));
        assert_eq!(ends(|second, at| owed(busy(second), at(0))), Some((60, Failure::SubscribeUnanswered(60))));
        // Answers that come in time: another SUBSCRIBE every 50 seconds.
        assert_eq!(ends(|second, at| owed(busy(second), at(second / 50 * 50))), None);
    }

    #[test]
    fn a_publish_is_acknowledged_within_half_a_minute_of_quiet_and_five_minutes_of_traffic() {
        let owed = |seen: Seen, since| Seen { written: since, ..seen };
        assert_eq!(ends(|second, at| owed(quiet(second), at(0))), Some((30, Failure::PublishUnanswered(30))));
        assert_eq!(ends(|second, at| owed(busy(second), at(0))), Some((300, Failure::PublishUnanswered(300))));
        assert_eq!(ends(|second, at| owed(busy(second), at(second / 250 * 250))), None);
    }

    #[test]
    fn a_write_ends_within_half_a_minute_of_quiet() {
        let stuck = |second, at: &dyn Fn(u64) -> Option<Instant>| Seen { blocked: at(0), written: at(0), ..second };
        assert_eq!(ends(|second, at| stuck(quiet(second), at)), Some((30, Failure::WriteStuck(30))));
    }

    #[test]
    fn a_socket_that_takes_nothing_ends_soon_after_the_keep_alive_whatever_it_brings() {
        let stuck = |seen: Seen, since| Seen { blocked: since, ..seen };
        assert_eq!(ends(|second, at| stuck(busy(second), at(0))), Some((75, Failure::WriteStuck(75))));
        // Something is taken now and then.
        assert_eq!(ends(|second, at| stuck(busy(second), at(second / 70 * 70))), None);
    }

    #[test]
    fn a_keep_alive_that_the_broker_imposes_counts_only_where_it_is_longer() {
        let welcome = |seconds| Welcome {
            session_present: false,
            receive_maximum: 1,
            exactly_once_window: 1,
            max_packet: 1,
            max_qos: crate::message::Qos::AtLeastOnce,
            retain: true,
            identifiers: true,
            shares: true,
            wildcards: true,
            keep_alive: Some(Duration::from_secs(seconds)),
        };
        let now = Instant::now();
        let blocked = |seconds| Deadlines::new(60, &welcome(seconds), now).blocked.as_secs();
        assert_eq!((blocked(10), blocked(60), blocked(600)), (75, 75, 615));
    }
}
