//! The subscriptions of one session on the wire, as its tasks share them.
//!
//! Owns: the state machine (`machine.rs`) and the routes that its places count in, which change together; the record of it
//! on disk (`record.rs`, `store.rs`), and what is said about both. Fed by the session's owner (other routes), the poller (CONNACK, SUBACK, UNSUBACK, arriving copies); the feeder takes the next step from it and sends
//! the packets; the router reads what a copy tells (`copies.rs`). It sends nothing itself.

mod changes;
mod copies;
mod machine;
#[cfg(test)]
mod model;
mod record;
mod set;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tracing::{error, info, warn};

pub(super) use self::copies::Copied;
pub use self::copies::WireCopy;
pub use self::machine::{Batch, Begun, WireFilter};
use self::machine::{Machine, News, Offer, Step};
use self::record::{Identity, Record};
use self::set::Wanted;
use self::store::{Found, Store};
use super::SessionStatus;
use super::packet::Welcome;
use super::subscribing::Request;
use crate::control::config::model::{Broker, Protocol};
use crate::message::Qos;
use crate::path::router::BrokerRoutes;
use crate::printable::printable;
use crate::telemetry::metrics::BrokerMeters;
use crate::topic::TopicFilter;

/// How long a file may take: a file system that hangs must hold up neither the session nor a stop.
const FILE_DEADLINE: Duration = Duration::from_secs(5);

/// Bytes of a filter that a log line shows.
const MAX_LISTED: usize = 256;

const SLOW_FILES: &str = "the file system does not answer within 5s";

/// Whether two brokers lead to one session, if each keeps it: another server or client identifier is another session.
pub(super) fn is_same_session(one: &Broker, other: &Broker) -> bool {
    Identity::of(one) == Identity::of(other)
}

/// What the feeder does next.
pub(super) enum Next {
    /// Give this to [`Cover::save`], then ask again.
    Save(Unsaved),
    /// Send this packet.
    Send(Request),
    /// Wait for an answer.
    Wait,
    /// The broker has answered for every subscription.
    Done,
}

/// A record that is to be written.
pub(super) struct Unsaved {
    number: u64,
    record: Record,
}

/// What is subscribed and where it leads.
struct Wire {
    machine: Machine,
    /// Its places are those of `machine`.
    routes: Arc<BrokerRoutes>,
    /// No message is taken in any more.
    closed: bool,
}

/// One session's subscriptions.
pub(super) struct Cover {
    wire: Mutex<Wire>,
    /// Other subscriptions are wanted since the feeder looked last. Set by the session's owner, taken by the feeder.
    changed: AtomicBool,
    store: Arc<Store>,
    broker: Arc<Broker>,
    meters: Arc<BrokerMeters>,
    status: watch::Sender<SessionStatus>,
    /// How the present session began. Written by the poller, read by the supervisor.
    begun: Mutex<Begun>,
    /// The number of the latest record.
    number: AtomicU64,
    /// It was said that the record cannot be written, and it still cannot.
    unsaved_said: AtomicBool,
    ambiguity_said: AtomicBool,
}

impl Cover {
    /// The subscriptions of a session that no connection was made for yet.
    pub(super) fn new(
        broker: &Arc<Broker>,
        routes: Arc<BrokerRoutes>,
        state_dir: &Path,
        meters: &Arc<BrokerMeters>,
        status: watch::Sender<SessionStatus>,
    ) -> Cover {
        let store = Arc::new(Store::new(state_dir, &broker.name));
        let kept = keeps_session(broker);
        let identity = kept.then(|| Identity::of(broker));
        let machine = Machine::new(broker.protocol, identity, wanted(&routes), salt());
        Cover {
            wire: Mutex::new(Wire { machine, routes, closed: false }),
            changed: AtomicBool::new(false),
            store,
            broker: Arc::clone(broker),
            meters: Arc::clone(meters),
            status,
            begun: Mutex::new(Begun::New),
            number: AtomicU64::new(0),
            unsaved_said: AtomicBool::new(false),
            ambiguity_said: AtomicBool::new(false),
        }
    }

    /// Takes over what an earlier daemon recorded. To be called before the first connection.
    pub(super) async fn load(&self) {
        let store = Arc::clone(&self.store);
        let kept = keeps_session(&self.broker);
        let path = store.path().display().to_string();
        let read = move || if kept { store.read() } else { store.remove().map(|()| Found::Nothing) };
        let name = &self.broker.name;
        let found = match tokio::time::timeout(FILE_DEADLINE, tokio::task::spawn_blocking(read)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, SLOW_FILES)),
        };
        match found {
            Ok(Found::Nothing) => {}
            Ok(Found::Record(record)) => {
                if !self.wire().machine.restore(&record) {
                    info!(broker = %name, file = path,
                        "the recorded subscriptions are those of another server or client-id: a new record replaces them");
                }
            }
            Ok(Found::Damaged(aside, error)) => {
                warn!(broker = %name, file = path, %error, aside = %aside.display(),
                    "the record of the session's subscriptions is damaged and was set aside: filters that are no longer \
                     configured cannot be given back");
            }
            Err(error) => {
                warn!(broker = %name, file = path, %error,
                    "the record of the session's subscriptions cannot be read: filters that are no longer configured \
                     cannot be given back");
            }
        }
    }

    /// A connection is about to be made.
    pub(super) async fn connecting(&self) {
        let unsaved = self.wire().machine.connecting();
        if let Some(record) = unsaved {
            self.save(self.unsaved(record)).await;
        }
    }

    /// A connection was accepted.
    pub(super) fn connected(&self, welcome: &Welcome) {
        let mut wire = self.wire();
        let begun = wire.machine.connected(Offer {
            session_present: welcome.session_present,
            identifiers: welcome.identifiers,
            shares: welcome.shares,
            wildcards: welcome.wildcards,
        });
        let ambiguous = wire.machine.is_ambiguous() && !self.ambiguity_said.swap(true, Ordering::Relaxed);
        // Before the state says that it is connected: what the session lost is not granted.
        self.tell(&mut wire);
        drop(wire);
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        let name = &self.broker.name;
        match begun {
            Begun::Lost => self.meters.sessions_lost.inc(),
            Begun::Unknown => info!(broker = %name,
                "the broker has kept a session that nothing is recorded of: filters of it that are not configured cannot \
                 be given back; use another client-id, or let the session expire"),
            Begun::New | Begun::Resumed => {}
        }
        if ambiguous {
            warn!(broker = %name,
                "the broker has no subscription identifiers: messages that several filters match may be handled more \
                 than once, and those of shared subscriptions by several members");
        }
    }

    /// How the present session began.
    pub(super) fn begun(&self) -> Begun {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do next; a packet that it names counts as sent.
    pub(super) fn next(&self, batch: Batch) -> Next {
        let mut wire = self.wire();
        let next = match wire.machine.next(batch) {
            Step::Save(record) => Next::Save(self.unsaved(record)),
            Step::Subscribe(filters) => Next::Send(Request::Subscribe(filters)),
            Step::Unsubscribe(filters) => {
                info!(broker = %self.broker.name, filters = %listed(&filters), "filters given back");
                Next::Send(Request::Unsubscribe(filters))
            }
            Step::Wait => Next::Wait,
            Step::Done => Next::Done,
        };
        self.tell(&mut wire);
        next
    }

    /// A SUBACK came for these filters.
    pub(super) fn subscribed(&self, filters: &[WireFilter], reasons: &[Result<Qos, &'static str>]) {
        let filters: Vec<TopicFilter> = filters.iter().map(|wire| wire.filter.clone()).collect();
        let mut wire = self.wire();
        wire.machine.subscribed(&filters, reasons);
        self.tell(&mut wire);
    }

    /// An UNSUBACK came for these filters.
    pub(super) fn unsubscribed(&self, filters: &[TopicFilter], reasons: &[Result<(), &'static str>]) {
        let mut wire = self.wire();
        wire.machine.unsubscribed(filters, reasons);
        self.tell(&mut wire);
    }

    /// Calls `receive` with the routes that hold for a copy of a message, and what the copy tells. Not once nothing is taken in.
    pub(super) fn arrived(&self, copy: &Copied<'_>, receive: impl FnOnce(&BrokerRoutes, &WireCopy<'_>)) {
        let Wire { machine, routes, closed } = &mut *self.wire();
        if !*closed {
            receive(routes, &machine.arrived(copy));
        }
    }

    /// No message is taken in from now on.
    pub(super) fn take_nothing(&self) {
        self.wire().closed = true;
    }

    /// Other subscriptions are wanted from now on, and lead elsewhere: both at once, for a message's copy tells of places.
    /// What is to be asked of the broker for them, the feeder learns from [`Self::next`].
    pub(super) fn route(&self, routes: Arc<BrokerRoutes>) {
        let mut wire = self.wire();
        wire.machine.want(wanted(&routes));
        wire.routes = routes;
        let subscriptions = wire.routes.table.subscriptions();
        let names = subscriptions.iter().map(|subscription| Arc::clone(&subscription.name));
        let fresh: Vec<_> = names.zip(wire.machine.standings()).collect();
        // Under the lock: a later answer of the broker counts in the new places.
        self.status.send_modify(|status| status.subscriptions = fresh);
        self.tell(&mut wire);
        drop(wire);
        self.changed.store(true, Ordering::Release);
    }

    /// Where messages lead now.
    pub(super) fn routes(&self) -> Arc<BrokerRoutes> {
        Arc::clone(&self.wire().routes)
    }

    /// Whether other subscriptions are wanted since the last call.
    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed) && self.changed.swap(false, Ordering::Acquire)
    }

    /// The broker was made to forget the session: so is what is recorded of it.
    pub(super) async fn was_reset(&self) {
        let number = {
            let mut wire = self.wire();
            wire.machine.was_reset();
            self.tell(&mut wire);
            self.next_number()
        };
        let store = Arc::clone(&self.store);
        let removed = tokio::task::spawn_blocking(move || store.forget(number));
        let error = match tokio::time::timeout(FILE_DEADLINE, removed).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => SLOW_FILES.to_owned(),
        };
        // It is written anew once something is subscribed; before, a restart finds a session that is not there any more, and
        // tells of a loss.
        warn!(broker = %self.broker.name, file = %self.store.path().display(), error,
            "the record of the session that was reset cannot be removed");
    }

    /// Writes a record and waits until it is safe. Where that fails, the session goes on without.
    pub(super) async fn save(&self, unsaved: Unsaved) {
        let store = Arc::clone(&self.store);
        let path = store.path().display().to_string();
        let name = &self.broker.name;
        let Unsaved { number, record } = unsaved;
        let write = tokio::task::spawn_blocking(move || store.write(number, &record));
        let error = match tokio::time::timeout(FILE_DEADLINE, write).await {
            Ok(Ok(Ok(()))) => {
                if self.unsaved_said.swap(false, Ordering::Relaxed) {
                    info!(broker = %name, file = path, "the record of the session's subscriptions is written again");
                }
                return;
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => SLOW_FILES.to_owned(),
        };
        self.wire().machine.not_saved();
        self.meters.session_write_errors.inc();
        if !self.unsaved_said.swap(true, Ordering::Relaxed) {
            warn!(broker = %name, file = path, error,
                "the record of the session's subscriptions cannot be written: after a restart, filters that are no longer \
                 configured may stay subscribed");
        }
    }

    /// Writes what is not written yet, at the end of a connection.
    pub(super) async fn settle(&self) {
        let unsaved = self.wire().machine.unsaved();
        if let Some(record) = unsaved {
            self.save(self.unsaved(record)).await;
        }
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsaved(&self, record: Record) -> Unsaved {
        Unsaved { number: self.next_number(), record }
    }

    fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Says what is new, and how the subscriptions stand.
    fn tell(&self, wire: &mut Wire) {
        let name = &self.broker.name;
        let Wire { machine, routes, .. } = wire;
        for news in machine.news() {
            match news {
                News::Refused(asked, reason) => {
                    let subscriptions = routes.table.subscriptions().iter();
                    for subscription in subscriptions.filter(|subscription| subscription.topic == asked) {
                        error!(broker = %name, subscription = %subscription.name, filter = %subscription.topic, reason,
                            "subscription refused");
                    }
                }
                News::Kept(filter, reason) => {
                    warn!(broker = %name, %filter, reason, "the broker does not give a filter back that is not configured");
                }
                News::Lowered(filter, asked, granted) => {
                    warn!(broker = %name, %filter, %asked, %granted, "subscription granted at a lower QoS");
                }
            }
        }
        self.status.send_if_modified(|status| {
            let mut modified = false;
            for ((_, told), standing) in status.subscriptions.iter_mut().zip(machine.standings()) {
                modified |= *told != standing;
                *told = standing;
            }
            modified
        });
    }
}

/// What the subscriptions of these routes want, by place.
fn wanted(routes: &BrokerRoutes) -> Vec<Wanted> {
    let wanted = routes.table.subscriptions().iter().map(|subscription| Wanted {
        filter: subscription.topic.clone(),
        qos: subscription.qos,
        acts: subscription.on_message.is_some(),
    });
    wanted.collect()
}

/// Whether the broker is to keep the session of a lost connection.
fn keeps_session(broker: &Broker) -> bool {
    !broker.clean_session && (broker.protocol == Protocol::V311 || broker.session_expiry > Duration::ZERO)
}

/// A number that no earlier daemon had.
fn salt() -> u64 {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    getrandom::u64().unwrap_or_else(|_| u64::try_from(clock()).unwrap_or_default())
}

/// On one line: a session's record may be older than the rules for filters.
fn listed(filters: &[TopicFilter]) -> String {
    filters.iter().map(|filter| printable(filter.as_str(), MAX_LISTED)).collect::<Vec<_>>().join(", ")
}
