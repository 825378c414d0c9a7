//! The end of a message's way: one receipt for each message taken in, finished exactly once.
//!
//! Owns: the count of what a message still waits for, its outcome, and the moment of its acknowledgement. Made by the
//! router; held by queued calls and by the outbox while publishes are not safe. It decides nothing about retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::message::Qos;
use crate::path::kept::Again;
use crate::path::session::{AckToken, Fate};
use crate::telemetry::metrics::BrokerMeters;
use crate::telemetry::trace::Trace;

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
    /// Its handler is paused or quarantined, and it is on the disk until that gets it.
    Parked,
    /// The call failed for good, and the dead letter that tells of it is safe.
    DeadLetter,
    /// Its topic is no topic name.
    DroppedInvalid,
    /// QoS 0, and the handler's queue was full.
    DroppedOverload,
    /// It went through too many handlers: it goes in a circle.
    DroppedLoop,
    /// A publish was older than its outbox keeps any.
    DroppedExpired,
    /// A publish made way for a newer one in a full outbox.
    DroppedOutboxFull,
    /// The broker that a publish was meant for was removed, or the handler that it waited for.
    DroppedPurged,
    /// A publish was refused for good by the broker that it was meant for.
    DroppedRefused,
    /// The broker that a publish was meant for ended one connection after the other over it.
    DroppedPoisoned,
    /// The call failed for good, and there is no dead letter of it.
    DroppedFailed,
    /// Left to the broker, which sends it again: its connection was lost before the call began.
    Returned,
    /// Not acknowledged when the daemon stopped; a kept session gets it again.
    DroppedShutdown,
}

impl Outcome {
    /// All outcomes, in order of severity.
    pub const ALL: [Outcome; 18] = [
        Outcome::Unmatched,
        Outcome::Copy,
        Outcome::Filtered,
        Outcome::Logged,
        Outcome::Handled,
        Outcome::Parked,
        Outcome::DeadLetter,
        Outcome::DroppedInvalid,
        Outcome::DroppedOverload,
        Outcome::DroppedLoop,
        Outcome::DroppedExpired,
        Outcome::DroppedOutboxFull,
        Outcome::DroppedPurged,
        Outcome::DroppedRefused,
        Outcome::DroppedPoisoned,
        Outcome::DroppedFailed,
        Outcome::Returned,
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
            Outcome::Parked => "parked",
            Outcome::DeadLetter => "dead_letter",
            Outcome::Returned => "returned",
            Outcome::DroppedInvalid => "dropped_invalid",
            Outcome::DroppedOverload => "dropped_overload",
            Outcome::DroppedLoop => "dropped_loop",
            Outcome::DroppedExpired => "dropped_expired",
            Outcome::DroppedOutboxFull => "dropped_outbox_full",
            Outcome::DroppedPurged => "dropped_purged",
            Outcome::DroppedRefused => "dropped_refused",
            Outcome::DroppedPoisoned => "dropped_poisoned",
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
        self.open.load(Ordering::SeqCst)
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

    /// Work for no message, for which a stop waits as for one.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.begin();
        Busy(Arc::clone(self))
    }

    fn begin(&self) {
        // Ordered with the router's `closed`: a stop that misses this message is seen by it.
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    fn end(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }
}

/// Where a message came from, which is told its end.
enum Source {
    /// A broker.
    Broker {
        meters: Arc<BrokerMeters>,
        /// What it holds of the connection that brought it.
        token: Option<AckToken>,
    },
    /// The disk: its broker's counts had it when it came, and its acknowledgement.
    Kept(Arc<Again>),
}

/// Counts as progress until it is dropped.
pub struct Busy(Arc<Progress>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A message that was taken in and has not reached its end.
pub struct Receipt {
    source: Source,
    progress: Arc<Progress>,
    /// Where somebody watches the message.
    trace: Option<Arc<Trace>>,
}

impl Receipt {
    /// Takes a message in, which counts as received from now on.
    pub fn new(meters: Arc<BrokerMeters>, progress: Arc<Progress>, qos: Qos, token: Option<AckToken>) -> Receipt {
        meters.received(qos);
        progress.begin();
        Receipt { source: Source::Broker { meters, token }, progress, trace: None }
    }

    /// Takes in a kept message, which its broker counted when it came. It counts as in progress alone.
    pub fn again(again: Arc<Again>, progress: Arc<Progress>) -> Receipt {
        progress.begin();
        Receipt { source: Source::Kept(again), progress, trace: None }
    }

    /// The same, watched from now on.
    pub fn traced(self, trace: Option<Arc<Trace>>) -> Receipt {
        Receipt { trace, ..self }
    }

    /// Where steps of the message are told, if somebody watches it.
    pub fn trace(&self) -> Option<&Arc<Trace>> {
        self.trace.as_ref()
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
        if let Source::Broker { meters, .. } = &self.source {
            meters.finished(outcome);
        }
        if let Some(trace) = &self.trace {
            trace.ended(outcome);
        }
        match &self.source {
            Source::Broker { token, .. } => token.iter().filter(|_| outcome.is_final()).for_each(AckToken::settle),
            Source::Kept(again) => again.ended(outcome),
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
/// does with queued calls, leaves the message unacknowledged; dropped by a panic, its call has failed.
pub struct Part {
    shared: Arc<Shared>,
    ended: bool,
}

impl Part {
    /// Where the message stands with its broker: whether it may still be started.
    pub fn fate(&self) -> Fate {
        match &self.shared.receipt.source {
            Source::Broker { token: Some(token), .. } => token.fate(),
            Source::Broker { token: None, .. } | Source::Kept(_) => Fate::Open,
        }
    }

    /// Where steps of the message are told, if somebody watches it.
    pub fn trace(&self) -> Option<&Arc<Trace>> {
        self.shared.receipt.trace()
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
            // A message whose handling panics would do so again and again if the broker got to send it again.
            let panicked = std::thread::panicking();
            self.shared.part_ended(if panicked { Outcome::DroppedFailed } else { Outcome::DroppedShutdown });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn receipt(metrics: &Metrics, progress: &Arc<Progress>) -> Receipt {
        Receipt::new(metrics.broker("plant"), Arc::clone(progress), Qos::AtMostOnce, None)
    }

    /// Runs `end` on a message's parts and expects it to end with `expected`.
    fn check(parts: usize, expected: Outcome, end: impl FnOnce(Vec<Part>)) {
        let (metrics, progress) = (Metrics::new().expect("well formed"), Arc::default());
        let parts: Vec<Part> = receipt(&metrics, &progress).split(parts).collect();
        assert_eq!(progress.open(), 1);
        end(parts);
        assert_eq!(progress.open(), 0);
        let page = String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
        for outcome in Outcome::ALL {
            let count = u8::from(outcome == expected);
            let line = format!("finished_total{{broker=\"plant\",outcome=\"{}\"}} {count}\n", outcome.label());
            assert!(page.contains(&line), "{line}{page}");
        }
        assert!(page.contains("in_progress{broker=\"plant\"} 0\n"), "{page}");
    }

    #[test]
    fn the_worst_outcome_of_all_parts_counts() {
        let end = |outcomes: [Outcome; 3]| {
            move |parts: Vec<Part>| parts.into_iter().zip(outcomes).for_each(|(part, o)| part.end(o))
        };
        check(3, Outcome::Handled, end([Outcome::Logged, Outcome::Handled, Outcome::Logged]));
        check(3, Outcome::DroppedFailed, end([Outcome::DroppedFailed, Outcome::Handled, Outcome::Logged]));
        check(3, Outcome::DroppedShutdown, end([Outcome::Handled, Outcome::DroppedShutdown, Outcome::DroppedFailed]));
    }

    #[test]
    fn a_part_that_is_dropped_was_stopped_and_one_dropped_by_a_panic_has_failed() {
        check(2, Outcome::DroppedShutdown, drop);
        check(1, Outcome::DroppedFailed, |parts| {
            let panicked = std::thread::spawn(move || {
                let _parts = parts;
                panic!("a defect");
            });
            assert!(panicked.join().is_err());
        });
    }

    #[tokio::test]
    async fn progress_is_idle_when_the_last_message_has_ended() {
        let (metrics, progress) = (Metrics::new().expect("well formed"), Arc::<Progress>::default());
        let (one, other) = (receipt(&metrics, &progress), receipt(&metrics, &progress));
        let idle = tokio::spawn({
            let progress = Arc::clone(&progress);
            async move { progress.idle().await }
        });
        one.finish(Outcome::Filtered);
        tokio::task::yield_now().await;
        assert!(!idle.is_finished());
        other.finish(Outcome::Filtered);
        idle.await.expect("ends");
    }
}
