//! What is on its way to one broker's socket: packets as bytes, in the order in which they were handed over.
//!
//! Owns: the bytes that the link has not taken yet. Fed by the feeder (publishes, subscriptions), by acknowledgements from
//! anywhere in the daemon and by the poller (releases, pings); emptied by the link, which it wakes. Everything that was handed
//! over until the link takes it leaves in one write. Nothing here waits.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::BytesMut;

use super::codec::{Answer, Codec, Sending};
use super::packet::Welcome;
use super::ring::Received;
use super::subscribing::Request;
use crate::control::config::model::Broker;
use crate::control::config::secret::Secret;
use crate::message::{Outgoing, Qos};

/// Bytes that wait for the socket when no further publish or SUBSCRIBE is taken: one more packet fits in whatever its size, so
/// this and the largest packet are what a connection holds. Acknowledgements are always taken; the receive window bounds them.
const HIGH_WATER: usize = 64 * 1024;

/// Bytes that wait when no further answer to a PUBREC or PUBREL is taken: beyond what a broker can ask for that keeps to one
/// question for each packet identifier.
const FLOOD: usize = HIGH_WATER + 8 * 65_536;

/// Memory that an emptied buffer keeps for the next packets, in bytes.
const KEPT: usize = 2 * HIGH_WATER;

/// Too many bytes wait already, or the connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// How many bytes a connection has sent up to some packet's end: positions are ascending in the order of handing over.
pub(super) type Position = u64;

/// The way to one broker's socket. Shared by whoever sends on a connection.
pub(super) struct Outlet {
    codec: Codec,
    pending: Mutex<Pending>,
}

struct Pending {
    /// In the order of leaving. Emptied by the link.
    bytes: BytesMut,
    /// Of all that was ever handed over.
    end: Position,
    /// PUBACK and PUBREC packets among `bytes`.
    acknowledgements: usize,
    /// There is something but pings among `bytes`.
    traffic: bool,
    /// DISCONNECT is the last packet.
    disconnected: bool,
    /// The connection is over: nothing is taken any more.
    closed: bool,
    /// Since when the socket takes nothing. Written by the link.
    blocked: Option<Instant>,
    /// Waits for something to take. Written by the link, used up by whoever hands over next.
    link: Option<Waker>,
}

/// What the link has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Where it ends.
    pub(super) end: Position,
    /// PUBACK and PUBREC packets in it.
    pub(super) acknowledgements: usize,
    /// It is more than pings.
    pub(super) traffic: bool,
    /// DISCONNECT ends it.
    pub(super) disconnected: bool,
}

impl Outlet {
    /// Of a connection that is about to be made.
    pub(super) fn new(broker: &Arc<Broker>) -> Outlet {
        let pending = Pending {
            bytes: BytesMut::new(),
            end: 0,
            acknowledgements: 0,
            traffic: false,
            disconnected: false,
            closed: false,
            blocked: None,
            link: None,
        };
        Outlet { codec: Codec::new(broker), pending: Mutex::new(pending) }
    }

    /// The broker's packets.
    pub(super) fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Hands CONNECT over, the first packet of all.
    pub(super) fn connect(&self, password: Option<&Secret>) {
        self.add(|codec, pending| codec.connect(password, &mut pending.bytes));
    }

    /// Hands a publish over; the position at which it ends.
    pub(super) fn publish(&self, message: &Outgoing, sending: Sending) -> Result<Position, NoRoom> {
        self.unless_full(|codec, bytes| codec.publish(message, sending, bytes))
    }

    /// Hands one SUBSCRIBE or UNSUBSCRIBE over.
    pub(super) fn request(&self, packet: u16, request: &Request, welcome: &Welcome) -> Result<(), NoRoom> {
        self.unless_full(|codec, bytes| codec.request(packet, request, welcome, bytes)).map(|_| ())
    }

    /// Acknowledges a received message: PUBACK, or PUBREC for one with QoS 2.
    pub(super) fn acknowledge(&self, received: Received) {
        let answer = if received.qos == Qos::ExactlyOnce { Answer::Receive } else { Answer::Acknowledge };
        self.add(|codec, pending| {
            codec.answer(answer, received.packet, &mut pending.bytes);
            pending.acknowledgements += 1;
        });
    }

    /// Answers a PUBREC: the broker may let go of the message's identifier.
    pub(super) fn release(&self, packet: u16) -> Result<(), NoRoom> {
        self.answer(Answer::Release, packet)
    }

    /// Answers a PUBREL.
    pub(super) fn complete(&self, packet: u16) -> Result<(), NoRoom> {
        self.answer(Answer::Complete, packet)
    }

    /// Asks the broker for a sign of life.
    pub(super) fn ping(&self) {
        self.append(false, |codec, pending| codec.ping(&mut pending.bytes));
    }

    /// Ends the connection after what was handed over before.
    pub(super) fn disconnect(&self) {
        self.add(|codec, pending| {
            codec.disconnect(&mut pending.bytes);
            pending.disconnected = true;
        });
    }

    /// Where what the link has taken so far ends.
    pub(super) fn taken(&self) -> Position {
        let pending = self.lock();
        pending.end - pending.bytes.len() as u64
    }

    /// Since when the socket takes nothing.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.lock().blocked
    }

    /// The socket takes nothing since then, or something again.
    pub(super) fn blocked(&self, since: Option<Instant>) {
        self.lock().blocked = since;
    }

    /// The connection is over.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// The link is about to be polled: until it waits, nobody needs to wake it.
    pub(super) fn attend(&self) {
        self.lock().link = None;
    }

    /// Has the link woken once something is handed over; false if something is there already.
    pub(super) fn wait(&self, link: &Context<'_>) -> bool {
        let mut pending = self.lock();
        let empty = pending.bytes.is_empty();
        if empty && !pending.link.as_ref().is_some_and(|known| known.will_wake(link.waker())) {
            pending.link = Some(link.waker().clone());
        }
        empty
    }

    /// Moves everything that was handed over into the link's empty buffer.
    pub(super) fn take(&self, into: &mut BytesMut) -> Option<Taken> {
        let mut pending = self.lock();
        if pending.bytes.is_empty() {
            return None;
        }
        if into.capacity() > KEPT {
            *into = BytesMut::new();
        }
        mem::swap(&mut pending.bytes, into);
        pending.bytes.clear();
        let acknowledgements = mem::take(&mut pending.acknowledgements);
        let traffic = mem::take(&mut pending.traffic);
        Some(Taken { end: pending.end, acknowledgements, traffic, disconnected: pending.disconnected })
    }

    fn unless_full(&self, write: impl FnOnce(&Codec, &mut BytesMut)) -> Result<Position, NoRoom> {
        let mut position = Err(NoRoom);
        self.add(|codec, pending| {
            if pending.bytes.len() < HIGH_WATER {
                let before = pending.bytes.len();
                write(codec, &mut pending.bytes);
                position = Ok(pending.end + (pending.bytes.len() - before) as u64);
            }
        });
        position
    }

    fn answer(&self, answer: Answer, packet: u16) -> Result<(), NoRoom> {
        let mut answered = Ok(());
        self.add(|codec, pending| {
            if pending.bytes.len() < FLOOD {
                codec.answer(answer, packet, &mut pending.bytes);
            } else {
                answered = Err(NoRoom);
            }
        });
        answered
    }

    fn add(&self, write: impl FnOnce(&Codec, &mut Pending)) {
        self.append(true, write);
    }

    fn append(&self, traffic: bool, write: impl FnOnce(&Codec, &mut Pending)) {
        let waiting = {
            let mut pending = self.lock();
            if pending.closed || pending.disconnected {
                return;
            }
            let before = pending.bytes.len();
            write(&self.codec, &mut pending);
            pending.end += (pending.bytes.len() - before) as u64;
            pending.traffic |= traffic;
            if pending.bytes.is_empty() { None } else { pending.link.take() }
        };
        // Outside the lock: a woken link may be polled on this thread at once.
        if let Some(link) = waiting {
            link.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A panic under this lock may leave half a packet: the connection ends with the task that panicked.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
