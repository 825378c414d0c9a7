//! The end of a message's way: one receipt for each message taken in, finished exactly once.
//!
//! Owns: the count of what a message still waits for, its outcome, and the moment of its acknowledgement. Made by the
//! router; held by queued calls and by the outbox while publishes are not safe. It decides nothing about retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::message::Qos;
use crate::path::session::{AckToken, Fate};
use crate::telemetry::metrics::BrokerMeters;

/// How a message's way ended. The order is that of severity: of several calls for one message the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// No subscription with `on-message` matched.
    Unmatched,
    /// A further copy that the broker sent because subscriptions overlap; the copy that counts is handled.
    Copy,
    /// A condition did not hold.
    Filtered,
    /// Written to the log, as the subscription asks.
    Logged,
    /// The call returned ok and its publishes are safe.
    Handled,
    /// Left to the broker, which sends it again: its connection was lost before the call began.
    Returned,
    /// QoS 0, and the handler's queue was full.
    DroppedOverload,
    /// A publish was refused for good by the broker that it was meant for.
    DroppedRefused,
    /// The call failed.
    DroppedFailed,
    /// Not acknowledged when the daemon stopped; a kept session gets it again.
    DroppedShutdown,
}

impl Outcome {
    /// All outcomes, in order of severity.
    pub const ALL: [Outcome; 10] = [
        Outcome::Unmatched,
        Outcome::Copy,
        Outcome::Filtered,
        Outcome::Logged,
        Outcome::Handled,
        Outcome::Returned,
        Outcome::DroppedOverload,
        Outcome::DroppedRefused,
        Outcome::DroppedFailed,
        Outcome::DroppedShutdown,
    ];

    /// The value of the metric label `outcome`.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Unmatched => "unmatched",
            Outcome::Copy => "copy",
            Outcome::Filtered => "filtered",
            Outcome::Logged => "logged",
            Outcome::Handled => "handled",
            Outcome::Returned => "returned",
            Outcome::DroppedOverload => "dropped_overload",
            Outcome::DroppedRefused => "dropped_refused",
            Outcome::DroppedFailed => "dropped_failed",
            Outcome::DroppedShutdown => "dropped_shutdown",
        }
    }

    /// Whether the broker is told that the message needs no further delivery.
    fn is_final(self) -> bool {
        !matches!(self, Outcome::Returned | Outcome::DroppedShutdown)
    }
}

/// Counts the messages that have not reached their end, for the drain at a stop.
#[derive(Default)]
pub struct Progress {
    open: AtomicU64,
    /// Told whenever the count falls to zero.
    idle: Notify,
}

impl Progress {
    /// Messages that have not reached their end.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until every message has reached its end. Cancellation safe.
    pub async fn idle(&self) {
        loop {
            let told = self.idle.notified();
            let mut told = std::pin::pin!(told);
            told.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            told.await;
        }
    }

    fn begin(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }
}

/// A message that was taken in and has not reached its end.
pub struct Receipt {
    meters: Arc<BrokerMeters>,
    progress: Arc<Progress>,
    /// None for QoS 0, which has no acknowledgement.
    token: Option<AckToken>,
}

impl Receipt {
    /// Takes a message in, which counts as received from now on.
    pub fn new(meters: Arc<BrokerMeters>, progress: Arc<Progress>, qos: Qos, token: Option<AckToken>) -> Receipt {
        meters.received(qos);
        progress.begin();
        Receipt { meters, progress, token }
    }

    /// Ends a message that needs no call.
    pub fn finish(self, outcome: Outcome) {
        self.conclude(outcome);
    }

    /// Splits what the message waits for into `count` parts, at least one.
    pub fn split(self, count: usize) -> impl Iterator<Item = Part> {
        let shared = Arc::new(Shared { receipt: self, open: AtomicUsize::new(count), worst: AtomicU8::new(0) });
        std::iter::repeat_n(shared, count).map(|shared| Part { shared, ended: false })
    }

    fn conclude(&self, outcome: Outcome) {
        self.meters.finished(outcome);
        if let Some(token) = self.token.as_ref().filter(|_| outcome.is_final()) {
            token.settle();
        }
        self.progress.end();
    }
}

struct Shared {
    receipt: Receipt,
    /// Parts that have not ended. Written by every part; the one that takes it to zero ends the message.
    open: AtomicUsize,
    /// The worst outcome so far, as its place in [`Outcome::ALL`].
    worst: AtomicU8,
}

impl Shared {
    fn part_ended(&self, outcome: Outcome) {
        self.worst.fetch_max(outcome as u8, Ordering::AcqRel);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.receipt.conclude(Outcome::ALL[usize::from(self.worst.load(Ordering::Acquire))]);
        }
    }
}

/// One thing that a message waits for: a call and the delivery of its publishes. Dropping it without an end, as a stop
/// does with queued calls, leaves the message unacknowledged.
pub struct Part {
    shared: Arc<Shared>,
    ended: bool,
}

impl Part {
    /// Where the message stands with its broker: whether it may still be started.
    pub fn fate(&self) -> Fate {
        self.shared.receipt.token.as_ref().map_or(Fate::Open, AckToken::fate)
    }

    /// Ends this part. When it is the message's last, the message ends with the worst outcome of all parts, and is
    /// acknowledged unless the broker is to send it again.
    pub fn end(mut self, outcome: Outcome) {
        self.ended = true;
        self.shared.part_ended(outcome);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.part_ended(Outcome::DroppedShutdown);
        }
    }
}
