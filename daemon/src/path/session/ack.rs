//! Acknowledgements of received messages: in the order of receipt, on the connection that brought them, each once.
//!
//! Owns: the standing of a connection, which its tokens share; `ring.rs` decides what may be acknowledged. Fed by the
//! poller, which admits messages, and by receipts anywhere in the daemon, which settle them; feeds the connection's outlet.
//! Nothing here waits.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::outlet::Outlet;
use super::ring::{AckRing, Admission, Received, Unacknowledged, Window};

/// How long a connection whose receive window was overrun stays, so that what was taken in is acknowledged before the
/// rest is asked for again.
const OVERRUN_GRACE: Duration = Duration::from_secs(10);

/// Whether a message may still be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its connection stands, or its session is gone and no other copy will come: run it.
    Open,
    /// Its connection is lost and the next CONNACK has not come yet: wait.
    Undecided,
    /// The session was resumed: the broker sends it again, discard this copy.
    Returned,
}

impl Fate {
    const ALL: [Fate; 3] = [Fate::Open, Fate::Undecided, Fate::Returned];
}

/// Where one connection stands. Shared by its session and by the tokens of its messages.
pub(super) struct Standing {
    /// A place in [`Fate::ALL`]. Written by the poller at the loss of this connection and at the CONNACK of the next, or at the end of
    /// the session where no CONNACK will tell.
    fate: AtomicU8,
    /// Whether the broker keeps the session when the connection is lost.
    kept: bool,
    ledger: Mutex<Ledger>,
    /// Why the connection is ended from this side. The first reason counts.
    reason: OnceLock<Failure>,
    /// Cancelled to end the connection, and in any case once it has ended.
    over: CancellationToken,
}

/// What is owed to the broker.
struct Ledger {
    ring: AckRing,
    /// The connection's own outlet: an acknowledgement can never reach the next connection, where the packet identifier means
    /// another message. None after the loss of the connection.
    outlet: Option<Arc<Outlet>>,
    /// The broker sent more messages than the window has.
    beyond: bool,
    /// When the broker overran the memory of the window; from then on nothing more is taken in.
    overrun: Option<Instant>,
}

impl Standing {
    /// A connection that is about to be made, with its outlet.
    pub(super) fn new(outlet: Arc<Outlet>, window: Window, kept: bool) -> Standing {
        let ledger = Ledger { ring: AckRing::new(window), outlet: Some(outlet), beyond: false, overrun: None };
        Standing {
            fate: AtomicU8::new(Fate::Open as u8),
            kept,
            ledger: Mutex::new(ledger),
            reason: OnceLock::new(),
            over: CancellationToken::new(),
        }
    }

    /// Takes a message in, if the window has room for it. A broker that overruns the window's memory once gets no further
    /// message in on this connection: a later one must not overtake those that were left out.
    pub(super) fn admit(self: &Arc<Self>, received: Received, arrived: Instant) -> Admitted {
        let mut ledger = self.ledger();
        if ledger.overrun.is_some() {
            return Admitted::No;
        }
        let token = |number| Right { standing: Arc::clone(self), number };
        match ledger.ring.receive(received, arrived) {
            Admission::Within(number) => Admitted::Yes(token(number)),
            Admission::Beyond(number) if ledger.beyond => Admitted::Yes(token(number)),
            Admission::Beyond(number) => {
                ledger.beyond = true;
                Admitted::FirstBeyond(token(number))
            }
            Admission::Refused => {
                ledger.overrun = Some(arrived);
                Admitted::No
            }
            Admission::Known => Admitted::Known,
        }
    }

    /// So many acknowledgements begin to be written.
    pub(super) fn acknowledgements_leave(&self, count: usize) {
        let mut ledger = self.ledger();
        ledger.ring.leave(count);
        ledger.acknowledge();
        if ledger.overrun.is_some() && ledger.ring.is_clear() {
            // With DISCONNECT: a connection that is closed while something is unread is reset, and the acknowledgements
            // that were written last would be lost on the way.
            let _ = self.reason.set(Failure::ReceiveWindow(ledger.ring.window()));
            if let Some(outlet) = &ledger.outlet {
                outlet.disconnect();
            }
        }
    }

    /// Whether an acknowledgement waits for its turn or is on its way.
    pub(super) fn is_acknowledging(&self) -> bool {
        self.ledger().ring.is_acknowledging()
    }

    /// What is not acknowledged. Ends a connection whose window was overrun some time ago.
    pub(super) fn unacknowledged(&self, now: Instant) -> Option<Unacknowledged> {
        let ledger = self.ledger();
        if ledger.overrun.is_some_and(|since| now.saturating_duration_since(since) >= OVERRUN_GRACE) {
            self.end(Failure::ReceiveWindow(ledger.ring.window()));
        }
        ledger.ring.unacknowledged()
    }

    /// Ends the connection from this side.
    pub(super) fn end(&self, reason: Failure) {
        // Only the first reason is of interest: the others follow from it.
        let _ = self.reason.set(reason);
        self.over.cancel();
    }

    /// Resolves once the connection is to end or has ended.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Whether the connection is to end or has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Why this side ended the connection, if it did.
    pub(super) fn reason(&self) -> Option<Failure> {
        self.reason.get().cloned()
    }

    /// The connection is gone. Messages that have not been started wait until [`Self::decide`]; those of a session that
    /// the broker does not keep never come again, so they go on.
    pub(super) fn lose(&self) {
        if self.kept {
            self.fate.store(Fate::Undecided as u8, Ordering::SeqCst);
        }
        if let Some(outlet) = self.ledger().outlet.take() {
            outlet.close();
        }
        self.over.cancel();
    }

    /// Whether messages of this lost connection wait for a decision.
    pub(super) fn is_undecided(&self) -> bool {
        self.fate() == Fate::Undecided && self.ledger().ring.holds_any()
    }

    /// The next CONNACK tells whether the broker sends the unacknowledged messages again.
    pub(super) fn decide(&self, session_present: bool) {
        let fate = if session_present { Fate::Returned } else { Fate::Open };
        self.fate.store(fate as u8, Ordering::SeqCst);
    }

    fn fate(&self) -> Fate {
        Fate::ALL[usize::from(self.fate.load(Ordering::SeqCst))]
    }

    fn settle(&self, number: u64) {
        let mut ledger = self.ledger();
        ledger.ring.settle(number);
        ledger.acknowledge();
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Hands over every acknowledgement that may leave now.
    fn acknowledge(&mut self) {
        while let Some(received) = self.ring.release() {
            if let Some(outlet) = &self.outlet {
                outlet.acknowledge(received);
            }
        }
    }
}

/// Whether a message was taken in.
pub(super) enum Admitted {
    /// With the right to acknowledge it.
    Yes(Right),
    /// As before, and the first on this connection that exceeds `receive-maximum`.
    FirstBeyond(Right),
    /// There is no room: it is left to the broker, which sends it again on the next connection.
    No,
    /// It was taken in before, on this connection.
    Known,
}

/// The messages that a connection has taken in and that have not reached their end. Shared by their tokens, and by the
/// connection while it takes more in: when the last one goes, what is in hand is finished.
pub(super) struct Hand {
    told: Arc<Notify>,
}

impl Hand {
    /// Of a connection; `told` when nothing is left.
    pub(super) fn new(told: &Arc<Notify>) -> Arc<Hand> {
        Arc::new(Hand { told: Arc::clone(told) })
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.told.notify_one();
    }
}

/// What a message that was taken in holds of its connection until its end: the right to acknowledge it there, if it is to be.
pub struct AckToken {
    /// None for QoS 0.
    right: Option<Right>,
    _in_hand: Arc<Hand>,
}

/// The right to acknowledge one message on the connection that brought it.
pub(super) struct Right {
    standing: Arc<Standing>,
    number: u64,
}

impl AckToken {
    /// Of a message in hand.
    pub(super) fn new(right: Option<Right>, hand: Arc<Hand>) -> AckToken {
        AckToken { right, _in_hand: hand }
    }

    /// Whether the message may still be started. With QoS 0 always: no other copy will come.
    pub fn fate(&self) -> Fate {
        self.right.as_ref().map_or(Fate::Open, |right| right.standing.fate())
    }

    /// The message needs no further delivery: acknowledges it as soon as all that came before it on its connection are
    /// settled too (MQTT-4.6.0-2). Without effect once the connection is gone, and with QoS 0.
    pub fn settle(&self) {
        if let Some(right) = &self.right {
            right.standing.settle(right.number);
        }
    }
}
