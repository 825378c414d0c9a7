//! Acknowledgements of received messages: in the order of receipt, on the connection that brought them, each once.
//!
//! Owns: the ring of a connection's unacknowledged messages ([`AckRing`], pure) and the standing of a connection, which
//! its tokens share. Fed by the poller, which admits messages, and by receipts anywhere in the daemon, which settle
//! them; feeds the connection's request channel. Nothing here waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::link::Client;
use crate::message::Qos;

/// How long a connection whose receive window was overrun stays, so that what was taken in is acknowledged before the
/// rest is asked for again.
const OVERRUN_GRACE: Duration = Duration::from_secs(10);

/// Messages beyond `receive-maximum` that are taken in all the same. Brokers of 3.1.1 do not know our limit, and some do
/// not keep to it on 5: mosquitto 2.0.11 sends several messages for one acknowledgement when it is busy.
pub(super) const SLACK_MESSAGES: usize = 8192;

/// Payload bytes in unacknowledged messages up to which the slack holds.
const SLACK_BYTES: usize = 16 << 20;

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

/// A received packet that the broker wants to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Its packet identifier.
    pub(super) packet: u16,
    /// At least once, or exactly once from a session that an earlier client left.
    pub(super) qos: Qos,
    /// Bytes of its payload.
    pub(super) bytes: usize,
}

/// The messages of one connection that are not acknowledged, in the order of receipt.
#[derive(Debug, Default)]
struct AckRing {
    slots: VecDeque<Slot>,
    /// The number of the first slot. Numbers count the messages of the connection.
    first: u64,
    /// Payload bytes of all slots.
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    received: Received,
    arrived: Instant,
    settled: bool,
}

impl AckRing {
    /// Takes a message in; its number.
    fn receive(&mut self, received: Received, arrived: Instant) -> u64 {
        self.bytes += received.bytes;
        self.slots.push_back(Slot { received, arrived, settled: false });
        self.first + self.slots.len() as u64 - 1
    }

    /// A message needs no further delivery.
    fn settle(&mut self, number: u64) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(slot) = place.and_then(|place| self.slots.get_mut(place)) {
            slot.settled = true;
        }
    }

    /// The first message, if it is settled: it may be acknowledged (MQTT 5 §4.6 [MQTT-4.6.0-2]).
    fn release(&mut self) -> Option<Received> {
        self.slots.front().filter(|slot| slot.settled)?;
        let received = self.slots.pop_front()?.received;
        self.first += 1;
        self.bytes -= received.bytes;
        Some(received)
    }

    /// When the oldest message came.
    fn oldest(&self) -> Option<Instant> {
        self.slots.front().map(|slot| slot.arrived)
    }
}

/// Where one connection stands. Shared by its session and by the tokens of its messages.
pub(super) struct Standing {
    /// A place in [`Fate::ALL`]. Written by the poller at the loss of this connection and at the CONNACK of the next.
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
    /// The connection's own client: after the loss of the connection there is none, so that an acknowledgement can never
    /// reach the next connection, where the packet identifier means another message.
    client: Option<Client>,
    /// Acknowledgements handed over and not yet written. They fill the broker's window as unsettled messages do.
    unwritten: usize,
    /// `receive-maximum`.
    window: usize,
    /// When the broker overran the window; from then on nothing more is taken in.
    overrun: Option<Instant>,
}

impl Ledger {
    fn has_room(&self) -> bool {
        let open = self.ring.slots.len() + self.unwritten;
        open < self.window || (open < self.window + SLACK_MESSAGES && self.ring.bytes < SLACK_BYTES)
    }
}

impl Standing {
    /// A connection that is about to be made with this client. `window` is `receive-maximum`.
    pub(super) fn new(client: Client, window: u16, kept: bool) -> Standing {
        let ledger = Ledger {
            ring: AckRing::default(),
            client: Some(client),
            unwritten: 0,
            window: usize::from(window),
            overrun: None,
        };
        Standing {
            fate: AtomicU8::new(Fate::Open as u8),
            kept,
            ledger: Mutex::new(ledger),
            reason: OnceLock::new(),
            over: CancellationToken::new(),
        }
    }

    /// Takes a message in, if the window with its slack has room for it. A broker that overruns it once gets no further
    /// message in on this connection: a later one must not overtake those that were left out.
    pub(super) fn admit(self: &Arc<Self>, received: Received, arrived: Instant) -> Option<AckToken> {
        let mut ledger = self.ledger();
        if ledger.overrun.is_none() && !ledger.has_room() {
            ledger.overrun = Some(arrived);
        }
        if ledger.overrun.is_some() {
            return None;
        }
        let number = ledger.ring.receive(received, arrived);
        Some(AckToken { standing: Arc::clone(self), number })
    }

    /// An acknowledgement was written.
    pub(super) fn acknowledgement_written(&self) {
        let mut ledger = self.ledger();
        ledger.unwritten = ledger.unwritten.saturating_sub(1);
        if ledger.overrun.is_some() && ledger.ring.slots.is_empty() && ledger.unwritten == 0 {
            // With DISCONNECT: a connection that is closed while something is unread is reset, and the acknowledgements
            // that were written last would be lost on the way.
            let _ = self.reason.set(Failure::ReceiveWindow { limit: ledger.window });
            let asked = ledger.client.as_ref().is_some_and(|client| client.try_disconnect().is_ok());
            if !asked {
                self.over.cancel();
            }
        }
    }

    /// When the oldest unacknowledged message came. Ends a connection whose window was overrun some time ago.
    pub(super) fn oldest(&self, now: Instant) -> Option<Instant> {
        let ledger = self.ledger();
        if ledger.overrun.is_some_and(|since| now.saturating_duration_since(since) >= OVERRUN_GRACE) {
            self.end(Failure::ReceiveWindow { limit: ledger.window });
        }
        ledger.ring.oldest()
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
        self.ledger().client = None;
        self.over.cancel();
    }

    /// Whether messages of this lost connection wait for a decision.
    pub(super) fn is_undecided(&self) -> bool {
        self.fate() == Fate::Undecided && !self.ledger().ring.slots.is_empty()
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
        while let Some(received) = ledger.ring.release() {
            let Some(client) = &ledger.client else { continue };
            if client.try_ack(received).is_ok() {
                ledger.unwritten += 1;
            } else {
                // The channel has room for the whole window, so this is a defect or the connection's end. Without the
                // acknowledgement the order is broken: only a new connection, where the broker sends again, mends that.
                ledger.client = None;
                self.end(Failure::AcknowledgementStuck);
            }
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no code panics while it holds this lock")
    }
}

/// The right to acknowledge one message on the connection that brought it.
pub struct AckToken {
    standing: Arc<Standing>,
    number: u64,
}

impl AckToken {
    /// Whether the message may still be started.
    pub fn fate(&self) -> Fate {
        self.standing.fate()
    }

    /// The message needs no further delivery: acknowledges it as soon as all that came before it on its connection are
    /// settled too (MQTT-4.6.0-2). Without effect once the connection is gone.
    pub fn settle(&self) {
        self.standing.settle(self.number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Receive,
        Settle { pick: usize },
        SettleAgain { pick: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Receive),
            3 => any::<usize>().prop_map(|pick| Step::Settle { pick }),
            1 => any::<usize>().prop_map(|pick| Step::SettleAgain { pick }),
        ]
    }

    proptest! {
        /// Against the rule itself: acknowledged is, at any time, exactly the longest prefix of the received messages
        /// that are all settled.
        #[test]
        fn acknowledges_the_settled_prefix_in_order(steps in prop::collection::vec(step(), 0..200)) {
            let start = Instant::now();
            let mut ring = AckRing::default();
            let mut settled: Vec<bool> = Vec::new();
            let mut acknowledged: Vec<u16> = Vec::new();
            for step in steps {
                match step {
                    Step::Receive => {
                        let packet = u16::try_from(settled.len()).expect("few");
                        let arrived = start + Duration::from_secs(settled.len() as u64);
                        let number = ring.receive(Received { packet, qos: Qos::AtLeastOnce, bytes: 10 }, arrived);
                        prop_assert_eq!(number, settled.len() as u64);
                        settled.push(false);
                    }
                    Step::Settle { pick } => {
                        let open: Vec<usize> = (0..settled.len()).filter(|place| !settled[*place]).collect();
                        if open.is_empty() { continue }
                        let place = open[pick % open.len()];
                        settled[place] = true;
                        ring.settle(place as u64);
                    }
                    Step::SettleAgain { pick } if !settled.is_empty() => {
                        let place = pick % settled.len();
                        if settled[place] {
                            ring.settle(place as u64);
                        }
                    }
                    Step::SettleAgain { .. } => {}
                }
                acknowledged.extend(std::iter::from_fn(|| ring.release()).map(|received| received.packet));
                let prefix = settled.iter().take_while(|settled| **settled).count();
                let expected: Vec<u16> = (0..prefix).map(|packet| u16::try_from(packet).expect("few")).collect();
                prop_assert_eq!(&acknowledged, &expected);
                prop_assert_eq!(ring.bytes, 10 * (settled.len() - prefix));
                let oldest = (prefix < settled.len()).then(|| start + Duration::from_secs(prefix as u64));
                prop_assert_eq!(ring.oldest(), oldest);
            }
        }
    }
}
