//! One connection as its tasks share it, and the session as all its connections share it.
//!
//! Owns: what is on its way out of one connection. The poller (`poller.rs`) and the feeder (`feeder.rs`) work on it; the
//! supervisor (`supervisor.rs`) makes it, has its deadlines checked once a second (`deadlines.rs`) and clears up after it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Instant;

use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::SessionStatus;
use super::ack::{Hand, Standing};
use super::cover::Cover;
use super::deadlines::{ANSWER_DEADLINE, Deadlines, Seen};
use super::failure::Failure;
use super::inflight::Inflight;
use super::outlet::Outlet;
use super::packet::Welcome;
use super::packet_ids::PacketIds;
use super::report::{self, Stalls};
use super::ring::Window;
use super::steering::Steering;
use super::subscribing::Subscribing;
use crate::control::config::model::Broker;
use crate::message::{BrokerId, Outgoing, Qos};
use crate::path::dispatch::HandlerQueue;
use crate::path::outbox::{EntryId, Outboxes};
use crate::path::router::{BrokerRoutes, Router};
use crate::telemetry::metrics::BrokerMeters;
use crate::telemetry::tap::Tap;

/// Publishes on their way at the same time, at most.
pub(super) const SEND_WINDOW: usize = 64;

/// SUBSCRIBE packets on their way at the same time, at most.
pub(super) const SUBSCRIBE_WINDOW: usize = 8;

/// What all connections of one session share.
pub(super) struct Core {
    pub(super) id: BrokerId,
    pub(super) broker: Arc<Broker>,
    /// The subscriptions on the wire.
    pub(super) cover: Cover,
    pub(super) router: Arc<Router>,
    pub(super) outboxes: Arc<Outboxes>,
    pub(super) meters: Arc<BrokerMeters>,
    pub(super) tap: Tap,
    pub(super) status: watch::Sender<SessionStatus>,
    /// What is commanded.
    pub(super) steering: Arc<Steering>,
    /// Told when other subscriptions are wanted, when the connection is to end, and when nothing is in hand then. The feeder is the only one that waits
    /// for it.
    pub(super) told: Arc<Notify>,
    /// Every queue that messages of this session may wait in, those of subscriptions that it had before included.
    pub(super) queues: Mutex<Vec<Weak<HandlerQueue>>>,
    /// Lost connections whose unstarted messages wait for the next CONNACK, those of the session before this one included. Written
    /// by the supervisor at a loss, emptied by the poller at the CONNACK, or at the session's end.
    pub(super) lost: Mutex<Vec<Arc<Standing>>>,
    /// Whether it was said that the broker exceeds `receive-maximum`: it will on every connection. Written by the poller.
    pub(super) beyond_said: AtomicBool,
    /// When it was said last that messages wait unacknowledged. Written by the supervisor, for one connection after the other.
    pub(super) stalls: Mutex<Stalls>,
}

impl Core {
    fn stalls(&self) -> MutexGuard<'_, Stalls> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The CONNACK tells what becomes of the messages of the connections that were lost before.
    pub(super) fn decide_lost(&self, session_present: bool) {
        let lost = std::mem::take(&mut *self.lost());
        for standing in &lost {
            standing.decide(session_present);
        }
        if lost.is_empty() {
            return;
        }
        // Queues that held their messages back go on, or let go of them.
        let queues: Vec<Arc<HandlerQueue>> = self.queues().iter().filter_map(Weak::upgrade).collect();
        queues.iter().for_each(|queue| queue.fate_decided(self.id));
        self.outboxes.fate_decided();
    }

    /// The lost connections that nothing was decided about, for who decides instead, and the queues that their messages may be in.
    pub(super) fn hand_over_lost(&self) -> (Vec<Arc<Standing>>, Vec<Weak<HandlerQueue>>) {
        let lost = std::mem::take(&mut *self.lost());
        (lost, self.queues().clone())
    }

    /// From now on messages may go into the queues of these routes.
    pub(super) fn adopt(&self, routes: &BrokerRoutes) {
        routes.queues.iter().flatten().for_each(|queue| self.watch(queue));
    }

    /// Messages of this session may be in this queue, and wait there for their fate.
    pub(super) fn watch(&self, queue: &Arc<HandlerQueue>) {
        let mut queues = self.queues();
        queues.retain(|queue| queue.strong_count() > 0);
        if !queues.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(queue))) {
            queues.push(Arc::downgrade(queue));
        }
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Weak<HandlerQueue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether messages of lost connections wait for the next CONNACK.
    pub(super) fn has_undecided(&self) -> bool {
        !self.lost().is_empty()
    }

    pub(super) fn lost(&self) -> MutexGuard<'_, Vec<Arc<Standing>>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a publish comes from.
pub(super) enum Origin {
    /// An outbox's entry.
    Outbox(EntryId),
    /// The session's own message, by its key in the configuration; the sender is used once the broker has it.
    Own(&'static str, Option<oneshot::Sender<()>>),
}

/// A publish on its way.
pub(super) struct Sent {
    pub(super) origin: Origin,
    pub(super) message: Arc<Outgoing>,
    /// As sent.
    pub(super) qos: Qos,
    /// When it was written; none before.
    pub(super) written: Option<Instant>,
}

/// What is on its way out.
pub(super) struct Flight {
    pub(super) inflight: Inflight<Sent>,
    pub(super) subscribing: Subscribing,
    ids: PacketIds,
}

impl Flight {
    /// A packet identifier that nothing on its way has.
    pub(super) fn next_packet(&mut self) -> u16 {
        let Flight { inflight, subscribing, ids } = self;
        ids.next(|packet| inflight.has(packet) || subscribing.has(packet))
    }
}

/// Counts what the poller does for the feeder. Both are on one task, which polls the feeder again as long as the count grows:
/// waking the task that runs would put another thread on it.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU64);

impl Progress {
    /// How much was made so far.
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Something was done that the feeder may wait for.
    pub(super) fn made(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Resolves once more was made. Only for the connection's own task.
    pub(super) async fn more(&self) {
        let before = self.now();
        poll_fn(|_| if self.now() == before { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

/// How far the end of a connection is that this side wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It is not to end.
    Serving,
    /// What arrives is left to the broker; what is in hand is finished, acknowledged and published, then it ends.
    Draining,
    /// It ends now.
    Leaving,
}

impl Phase {
    const ALL: [Phase; 3] = [Phase::Serving, Phase::Draining, Phase::Leaving];
}

/// One connection.
pub(super) struct Connection {
    pub(super) core: Arc<Core>,
    pub(super) outlet: Arc<Outlet>,
    pub(super) standing: Arc<Standing>,
    /// Taking a publish from the outbox, handing it over and remembering it are one step under this lock.
    flight: Mutex<Flight>,
    /// Made by the poller whenever a window or the outlet may have got room; the feeder waits for it.
    pub(super) progress: Progress,
    /// Packets received and writes finished so far, pings apart. Written by the poller, watched by the supervisor.
    pub(super) traffic: AtomicU64,
    /// A place in [`Phase::ALL`]. Written by the supervisor, read by the feeder.
    phase: AtomicU8,
    /// For the messages that are taken in; none when nothing more is. Given back by the supervisor.
    hand: Mutex<Option<Arc<Hand>>>,
    in_hand: Weak<Hand>,
    /// Cancelled by the poller once DISCONNECT is written.
    pub(super) goodbye: CancellationToken,
}

impl Connection {
    /// Prepares a connection; nothing is sent before a link is made for it.
    pub(super) fn new(core: &Arc<Core>) -> Connection {
        let broker = &core.broker;
        let messages = usize::from(broker.receive_maximum.get());
        let window = Window { messages, bytes: messages.saturating_mul(broker.max_packet as usize) };
        let outlet = Arc::new(Outlet::new(broker));
        let flight =
            Flight { inflight: Inflight::new(), subscribing: Subscribing::default(), ids: PacketIds::default() };
        let hand = Hand::new(&core.told);
        Connection {
            core: Arc::clone(core),
            standing: Arc::new(Standing::new(Arc::clone(&outlet), window, !broker.clean_session)),
            outlet,
            flight: Mutex::new(flight),
            progress: Progress::default(),
            traffic: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Serving as u8),
            in_hand: Arc::downgrade(&hand),
            hand: Mutex::new(Some(hand)),
            goodbye: CancellationToken::new(),
        }
    }

    pub(super) fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far its end is.
    pub(super) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    /// Its end has come so far: from now on nothing is taken in.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        let hand = self.hand.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(hand);
        self.core.told.notify_one();
    }

    /// What a message that is taken in holds until its end; none if nothing is taken in any more.
    pub(super) fn hand(&self) -> Option<Arc<Hand>> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether messages that were taken in have not reached their end.
    pub(super) fn has_in_hand(&self) -> bool {
        self.in_hand.strong_count() > 0
    }

    /// Ends the connection if the broker has owed something for too long, and tells since when a message waits for its
    /// acknowledgement.
    pub(super) fn check(&self, deadlines: &mut Deadlines, now: Instant) {
        let age = |since: Instant| now.saturating_duration_since(since);
        let unacknowledged = self.standing.unacknowledged(now);
        self.core.meters.ack_stalled.set(unacknowledged.map_or(0.0, |oldest| age(oldest.since).as_secs_f64()));
        if let Some(stalled) = unacknowledged
            && self.core.stalls().is_due(stalled.since, now)
        {
            report::stalled(&self.core.broker, &stalled, age(stalled.since));
        }
        if let Some(failure) = deadlines.overdue(now, self.seen()) {
            self.standing.end(failure);
        }
    }

    /// The outbox's entry that the broker may have ended the connection over: the oldest one that it has seen something of,
    /// not long ago, and has not acknowledged. The beginning of a packet is enough for one that finds it too large.
    pub(super) fn blamed(&self, failure: &Failure, now: Instant) -> Option<EntryId> {
        if !failure.may_blame_a_publish() {
            return None;
        }
        let flight = self.flight();
        // A message of the session's own that is older could as well be the cause; then nothing is blamed.
        let entry = |origin: &Origin| match origin {
            Origin::Outbox(entry) => Some(*entry),
            Origin::Own(..) => None,
        };
        // What is not written to its end is younger than what is.
        let key = |sent: &Sent| (sent.written.is_none(), sent.written, entry(&sent.origin));
        let (_, written, entry) = flight.inflight.begun(self.outlet.taken()).map(key).min()?;
        let long_ago = written.is_some_and(|since| now.saturating_duration_since(since) >= ANSWER_DEADLINE);
        entry.filter(|_| !long_ago)
    }

    fn seen(&self) -> Seen {
        let flight = self.flight();
        Seen {
            traffic: self.traffic.load(Ordering::Relaxed),
            subscribe: flight.subscribing.oldest(),
            blocked: self.outlet.blocked_since(),
            written: flight.inflight.iter().filter_map(|sent| sent.written).min(),
        }
    }
}

/// Publishes with QoS ≥ 1 that may be on their way to a broker.
pub(super) fn send_window(welcome: &Welcome) -> usize {
    SEND_WINDOW.min(usize::from(welcome.receive_maximum))
}
