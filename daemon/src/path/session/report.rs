//! What a session says about its connections: each change once.
//!
//! Owns: the memory of what was said. A failure that repeats goes to the debug level after its first time, and so does the
//! connecting in between; the next change is said again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::field::display;
use tracing::{debug, error, info, warn};

use super::backoff::STEADY;
use super::failure::Failure;
use super::ring::Unacknowledged;
use crate::control::config::model::{Broker, Protocol};
use crate::path::outbox::Suspect;

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loudness {
    Said,
    Repeated,
}

/// What was said last. Pure.
#[derive(Debug, Default)]
struct Memory {
    /// The failure said last; forgotten once a connection got steady.
    failure: Option<Failure>,
    /// Whether the latest failure was said aloud, so that its end is worth a line; true before the first connection.
    quiet: bool,
}

impl Memory {
    fn failed(&mut self, failure: &Failure, up: Option<Duration>) -> Loudness {
        if up.is_some_and(|up| up >= STEADY) {
            self.failure = None;
        }
        if self.failure.as_ref() == Some(failure) {
            // During one outage the first line stays the one to close; a connection in between has closed it.
            self.quiet |= up.is_some();
            return Loudness::Repeated;
        }
        self.failure = Some(failure.clone());
        self.quiet = false;
        Loudness::Said
    }

    fn connected(&self) -> Loudness {
        if self.quiet { Loudness::Repeated } else { Loudness::Said }
    }
}

/// Says what happens to one session.
pub(super) struct Report {
    broker: Arc<Broker>,
    memory: Memory,
    /// Attempts since the last connection.
    attempts: u32,
    /// When the last connection ended, or one began to be wanted.
    down_since: Instant,
}

impl Report {
    pub(super) fn new(broker: Arc<Broker>) -> Report {
        Report { broker, memory: Memory::default(), attempts: 0, down_since: Instant::now() }
    }

    /// From now on a connection is wanted, and was not before.
    pub(super) fn wanted(&mut self) {
        (self.attempts, self.down_since) = (0, Instant::now());
    }

    /// An attempt begins.
    pub(super) fn attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// The CONNACK came. `lost`: the broker was to keep the last session, and has not.
    pub(super) fn connected(&mut self, session_present: bool, lost: bool) {
        let Broker { name, address, port, .. } = &*self.broker;
        let protocol = match self.broker.protocol {
            Protocol::V311 => "3.1.1",
            Protocol::V5 => "5",
        };
        let session = if session_present { "resumed" } else { "new" };
        let attempts = self.attempts;
        let after = rounded(self.down_since.elapsed());
        match self.memory.connected() {
            Loudness::Said => info!(broker = %name, %address, port, protocol, session, attempts, %after, "connected"),
            Loudness::Repeated => {
                debug!(broker = %name, %address, port, protocol, session, attempts, %after, "connected");
            }
        }
        if lost {
            warn!(broker = %name, "session lost: the broker no longer keeps it, and with it what was published meanwhile");
        }
        self.attempts = 0;
    }

    /// A connection that stood for `up` ended, or an attempt without a connection. `retry_in`: when the next one comes by itself.
    pub(super) fn failed(&mut self, failure: &Failure, up: Option<Duration>, retry_in: Option<Duration>) {
        if up.is_some() {
            self.down_since = Instant::now();
        }
        let Broker { name, address, port, .. } = &*self.broker;
        let retry_in = retry_in.map(|delay| display(rounded(delay)));
        match (self.memory.failed(failure, up), up) {
            (Loudness::Said, Some(up)) => {
                let up = rounded(up);
                warn!(broker = %name, %address, port, reason = %failure, %up, retry_in, "connection lost");
            }
            (Loudness::Said, None) => {
                warn!(broker = %name, %address, port, reason = %failure, retry_in, "cannot connect");
            }
            (Loudness::Repeated, _) => {
                debug!(broker = %name, %address, port, reason = %failure, retry_in, "still not connected");
            }
        }
    }

    /// The broker has forgotten the session by command.
    pub(super) fn was_reset(&self) {
        info!(broker = %self.broker.name, "session reset: the broker has forgotten it by command");
    }

    /// The connection ended with the gateway, or by command.
    pub(super) fn stopped(&self, goodbye: bool, failure: &Failure) {
        let name = &self.broker.name;
        if goodbye {
            info!(broker = %name, "disconnected");
        } else {
            warn!(broker = %name, reason = %failure, "disconnected without a goodbye");
        }
    }
}

/// The broker keeps ending its connections over what it is sent.
pub(super) fn suspected(broker: &Broker, suspect: &Suspect) {
    let broker = &broker.name;
    match suspect {
        Suspect::OnTrial(message) => warn!(%broker, topic = %message.topic,
            "the broker keeps ending the connection before it acknowledges this message; messages to it are sent one at a \
             time until the cause is found"),
        Suspect::Guilty { message, losses, .. } => error!(%broker, topic = %message.topic,
            bytes = message.payload.len(), attempts = losses,
            "message dropped: the broker ends the connection whenever it is sent; see the broker's own log for the reason, \
             and its access rules and limits for this topic"),
    }
}

/// How long the oldest message waits for its acknowledgement before that is said, and how often it is.
const STALL: Duration = Duration::from_secs(60);

/// When it was said last that messages wait unacknowledged. Pure.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    said: Option<Instant>,
}

impl Stalls {
    /// Whether it is to be said now of messages of which the oldest came at `since`.
    pub(super) fn is_due(&mut self, since: Instant, now: Instant) -> bool {
        let passed = |since: Instant| now.saturating_duration_since(since) >= STALL;
        let due = passed(since) && self.said.is_none_or(passed);
        if due {
            self.said = Some(now);
        }
        due
    }
}

/// The oldest message of a broker has been unacknowledged for long.
pub(super) fn stalled(broker: &Broker, stalled: &Unacknowledged, age: Duration) {
    let (oldest, receive_maximum) = (rounded(age), broker.receive_maximum);
    let broker = &broker.name;
    let (in_progress, receive_window_full) = (stalled.messages, stalled.full);
    warn!(%broker, %oldest, in_progress, receive_maximum, receive_window_full,
        "messages wait unacknowledged for a minute and longer, and with a full receive window nothing more comes: see with \
         `tidegate status` whether a broker is away that they are published to, and with `tidegate handlers list` whether a \
         handler fails, is slow or has many waiting");
}

/// For people: to the millisecond, above ten seconds to the second.
fn rounded(duration: Duration) -> humantime::FormattedDuration {
    let exact = if duration < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_secs(duration.as_secs())
    };
    humantime::format_duration(exact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_said_once() {
        use Loudness::{Repeated, Said};
        let mut memory = Memory::default();
        assert_eq!(memory.failed(&Failure::ConnectionRefused, None), Said);
        assert_eq!(memory.failed(&Failure::ConnectionRefused, None), Repeated);
        assert_eq!(memory.failed(&Failure::NotAuthorised, None), Said);
        assert_eq!(memory.failed(&Failure::NotAuthorised, None), Repeated);
        assert_eq!(memory.connected(), Said);
        assert_eq!(memory.failed(&Failure::Closed, Some(Duration::from_secs(5))), Said);
        assert_eq!(memory.connected(), Said);
    }

    #[test]
    fn a_stall_is_said_after_a_minute_and_then_once_a_minute() {
        let came = Instant::now();
        let mut stalls = Stalls::default();
        let mut said =
            |since: u64, at: u64| stalls.is_due(came + Duration::from_secs(since), came + Duration::from_secs(at));
        assert!(!said(0, 59));
        assert!(said(0, 60));
        assert!(!said(0, 61) && !said(0, 119));
        assert!(said(0, 120));
        // Another message, also of another connection.
        assert!(!said(100, 179));
        assert!(said(100, 180));
    }

    #[test]
    fn a_connection_that_keeps_breaking_in_the_same_way_is_said_once() {
        use Loudness::{Repeated, Said};
        let soon = Some(Duration::from_secs(1));
        let mut memory = Memory::default();
        assert_eq!(memory.connected(), Said);
        assert_eq!(memory.failed(&Failure::Closed, soon), Said);
        assert_eq!(memory.connected(), Said);
        assert_eq!(memory.failed(&Failure::Closed, soon), Repeated);
        assert_eq!(memory.connected(), Repeated);
        assert_eq!(memory.failed(&Failure::Closed, Some(STEADY)), Said);
        assert_eq!(memory.connected(), Said);
    }
}
