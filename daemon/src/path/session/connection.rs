//! One connection as its tasks share it, and the session as all its connections share it.
//!
//! Owns: what is on its way out of one connection, and the deadlines that the broker's answers have. The poller
//! (`poller.rs`) and the feeder (`feeder.rs`) work on it; the supervisor (`supervisor.rs`) makes it, checks its deadlines
//! once a second and clears up after it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};

use super::SessionStatus;
use super::ack::Standing;
use super::cover::Cover;
use super::failure::Failure;
use super::inflight::Inflight;
use super::link::{Client, Link, Opening, Welcome, open};
use super::ring::Window;
use super::subscribing::Subscribing;
use crate::control::config::model::{Broker, Subscription};
use crate::control::config::secret::Secret;
use crate::message::{BrokerId, Outgoing, Qos};
use crate::path::outbox::{EntryId, Outboxes};
use crate::path::router::Router;
use crate::telemetry::metrics::BrokerMeters;
use crate::telemetry::tap::Tap;

/// Publishes on their way at the same time, at most.
pub(super) const SEND_WINDOW: usize = 64;

/// SUBSCRIBE packets on their way at the same time, at most.
const SUBSCRIBE_WINDOW: usize = 8;

/// Room in the request channel beside both windows: SUBSCRIBE packets, the session's own messages, DISCONNECT. When the
/// channel is full, publishes wait; an acknowledgement that finds it full ends the connection.
const SPARE_REQUESTS: usize = 64;

/// How long a broker may owe an answer while nothing at all comes or goes but pings. On a slow link, where large messages
/// are under way, an answer may rightly take far longer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// How long a broker may owe the acknowledgement of one written publish, whatever else flows.
const ACKNOWLEDGEMENT_DEADLINE: Duration = Duration::from_secs(300);

/// How much longer than the keep alive a connection may show no event, not even a ping: rumqttc writes without a limit of
/// time, so a broker that reads nothing would hold it for ever.
const WRITE_DEADLINE: Duration = Duration::from_secs(15);

/// What all connections of one session share.
pub(super) struct Core {
    pub(super) id: BrokerId,
    pub(super) broker: Arc<Broker>,
    /// In the order of the configuration.
    pub(super) subscriptions: Vec<Arc<Subscription>>,
    /// The subscriptions on the wire.
    pub(super) cover: Cover,
    pub(super) router: Arc<Router>,
    pub(super) outboxes: Arc<Outboxes>,
    pub(super) meters: Arc<BrokerMeters>,
    pub(super) tap: Tap,
    pub(super) status: watch::Sender<SessionStatus>,
    /// Lost connections whose unstarted messages wait for the next CONNACK. Written by the supervisor at a loss, emptied
    /// by the poller at the CONNACK.
    pub(super) lost: Mutex<Vec<Arc<Standing>>>,
    /// Whether it was said that the broker exceeds `receive-maximum`: it will on every connection. Written by the poller.
    pub(super) beyond_said: AtomicBool,
}

impl Core {
    /// The CONNACK tells what becomes of the messages of the connections that were lost before.
    pub(super) fn decide_lost(&self, session_present: bool) {
        let lost = std::mem::take(&mut *self.lost());
        for standing in &lost {
            standing.decide(session_present);
        }
        if !lost.is_empty() {
            self.router.fate_decided(self.id);
        }
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
    /// When it was written; before that, when it was handed over.
    pub(super) since: Instant,
}

/// What is on its way out.
pub(super) struct Flight {
    pub(super) inflight: Inflight<Sent>,
    pub(super) subscribing: Subscribing,
}

/// One connection.
pub(super) struct Connection {
    pub(super) core: Arc<Core>,
    pub(super) client: Client,
    pub(super) standing: Arc<Standing>,
    /// Taking a publish from the outbox, handing it over and remembering it are one step under this lock.
    flight: Mutex<Flight>,
    /// Told by the poller whenever a window or the channel may have got room. The feeder alone waits for it.
    pub(super) progress: Notify,
    /// Events so far. Written by the poller, watched by the supervisor.
    pub(super) events: AtomicU64,
    /// Events so far without pings and the like. Written by the poller, watched by the supervisor.
    pub(super) traffic: AtomicU64,
    /// The gateway stops: what arrives is left to the broker. Written by the supervisor.
    pub(super) closing: AtomicBool,
    /// DISCONNECT was written. Written by the poller.
    pub(super) goodbye: AtomicBool,
}

impl Connection {
    /// Prepares a connection; nothing is sent before the link is polled.
    pub(super) fn open(core: &Arc<Core>, password: Option<Secret>, expect_releases: bool) -> (Arc<Connection>, Link) {
        let broker = &core.broker;
        let messages = usize::from(broker.receive_maximum.get());
        let window = Window { messages, bytes: messages.saturating_mul(broker.max_packet as usize) };
        let capacity = messages + SEND_WINDOW + SPARE_REQUESTS;
        let (client, link) = open(&Opening { broker, password, capacity, expect_releases });
        let flight = Flight { inflight: Inflight::new(), subscribing: Subscribing::default() };
        let connection = Connection {
            core: Arc::clone(core),
            standing: Arc::new(Standing::new(client.clone(), window, !broker.clean_session)),
            client,
            flight: Mutex::new(flight),
            progress: Notify::new(),
            events: AtomicU64::new(0),
            traffic: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            goodbye: AtomicBool::new(false),
        };
        (Arc::new(connection), link)
    }

    pub(super) fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes that may be on their way to a broker: half of what it takes, so that rumqttc never reaches the limit itself.
pub(super) fn send_window(welcome: &Welcome) -> usize {
    SEND_WINDOW.min(usize::from(welcome.receive_maximum) / 2).max(1)
}

/// SUBSCRIBE packets that may be on their way: rumqttc numbers them from the same few identifiers as publishes.
pub(super) fn subscribe_window(welcome: &Welcome) -> usize {
    SUBSCRIBE_WINDOW.min(usize::from(welcome.receive_maximum) / 2).max(1)
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

/// The deadlines of one connection, checked now and then.
pub(super) struct Deadlines {
    /// The longest time without an event.
    silence: Duration,
    events: Pulse,
    traffic: Pulse,
}

impl Deadlines {
    pub(super) fn new(broker: &Broker, welcome: &Welcome, now: Instant) -> Deadlines {
        let keep_alive = Duration::from_secs(broker.keep_alive.into()).max(welcome.keep_alive.unwrap_or_default());
        let pulse = || Pulse { count: 0, moved: now };
        Deadlines { silence: keep_alive + WRITE_DEADLINE, events: pulse(), traffic: pulse() }
    }

    /// Ends the connection if the broker owes an answer for too long, and tells since when it waits for an
    /// acknowledgement.
    pub(super) fn check(&mut self, connection: &Connection, now: Instant) {
        let age = |since: Instant| now.saturating_duration_since(since);
        let stalled = connection.standing.oldest(now).map_or(0.0, |oldest| age(oldest).as_secs_f64());
        connection.core.meters.ack_stalled.set(stalled);
        if let Some(failure) = self.overdue(connection, now) {
            connection.standing.end(failure);
        }
    }

    fn overdue(&mut self, connection: &Connection, now: Instant) -> Option<Failure> {
        let (handed_over, written, subscribe) = {
            let flight = connection.flight();
            let oldest = |sent: &mut dyn Iterator<Item = &Sent>| sent.map(|sent| sent.since).min();
            let inflight = &flight.inflight;
            (oldest(&mut inflight.iter()), oldest(&mut inflight.unacknowledged()), flight.subscribing.oldest())
        };
        let silent = self.events.still(connection.events.load(Ordering::Relaxed), now);
        let idle = self.traffic.still(connection.traffic.load(Ordering::Relaxed), now);
        let owed = |since: Option<Instant>, longest: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= longest)
        };
        if idle >= ANSWER_DEADLINE && owed(subscribe, ANSWER_DEADLINE) {
            Some(Failure::SubscribeUnanswered(ANSWER_DEADLINE.as_secs()))
        } else if idle >= ANSWER_DEADLINE && owed(handed_over, ANSWER_DEADLINE) {
            Some(Failure::PublishUnanswered(ANSWER_DEADLINE.as_secs()))
        } else if owed(written, ACKNOWLEDGEMENT_DEADLINE) {
            Some(Failure::PublishUnanswered(ACKNOWLEDGEMENT_DEADLINE.as_secs()))
        } else if silent >= self.silence {
            Some(Failure::WriteStuck(self.silence.as_secs()))
        } else {
            None
        }
    }
}
