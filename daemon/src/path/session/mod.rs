//! Sessions: one for each broker. Only `v4.rs` and `v5.rs` know rumqttc's packets.
//!
//! Owns: connections, subscriptions on the wire, acknowledgements, and the sending of what the outbox holds. Fed by the
//! broker and by `path/outbox`; feeds `path/router`. It decides neither what a message means nor whether it is done.
//!
//! Tasks of a session:
//! - the supervisor (`supervisor.rs`), for as long as the session: connects (`opening.rs`; `clean.rs` to make a broker forget), watches deadlines, waits in
//!   between, and does what it is told by command (`steering.rs`);
//! - the poller (`poller.rs`), one for each connection: waits for the link alone, and carries the feeder (`feeder.rs`), which may
//!   wait for room without holding the poller up.
//!
//! `cover/` holds what is subscribed and which copies of a message count. `transport/` makes the byte stream; `link.rs`
//! reads and writes it, `outlet.rs` holds what is to be written, and `codec.rs` hides the difference between the two
//! versions. The rest is pure: `ring.rs` (what may be acknowledged), `inflight.rs`,
//! `packet_ids.rs` and `subscribing.rs` (what the broker's answers belong to), `deadlines.rs` (what has been owed for too
//! long), `backoff.rs`, `intent.rs` (whether a connection is wanted). `legacy.rs` is what a session leaves to the next.

mod ack;
mod backoff;
pub mod benchmarks;
mod clean;
mod codec;
mod connection;
mod cover;
mod deadlines;
mod failure;
mod feeder;
mod inflight;
mod intent;
mod legacy;
mod link;
mod opening;
mod outlet;
mod packet;
mod packet_ids;
mod poller;
pub mod probe;
mod report;
mod ring;
mod status;
mod steering;
mod subscribing;
mod supervisor;
#[cfg(test)]
mod tests;
mod transport;
mod v4;
mod v5;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::error;

pub use self::ack::{AckToken, Fate};
use self::connection::Core;
use self::cover::Cover;
pub use self::cover::WireCopy;
pub use self::intent::Kept;
use self::intent::VisitId;
use self::intent::Wish;
pub use self::legacy::Legacy;
pub use self::status::{SessionState, SessionStatus, Standing};
use self::steering::Steering;
pub use self::steering::{ConnectError, Ended, Opened, ResetError, VisitError};
pub use self::transport::Holder;
use crate::control::config::model::Broker;
use crate::message::BrokerId;
use crate::path::dispatch::HandlerQueue;
use crate::path::outbox::Outboxes;
use crate::path::router::{BrokerRoutes, Router};
use crate::telemetry::metrics::BrokerMeters;
use crate::telemetry::tap::Tap;

/// What a session is made of.
pub struct SessionParts {
    /// The broker.
    pub id: BrokerId,
    /// Its configuration.
    pub config: Arc<Broker>,
    /// Its subscriptions, and where they lead.
    pub routes: Arc<BrokerRoutes>,
    /// Where it keeps what must survive the daemon.
    pub state_dir: PathBuf,
    /// Where messages go.
    pub router: Arc<Router>,
    /// Where publishes come from.
    pub outboxes: Arc<Outboxes>,
    /// Where it counts.
    pub meters: Arc<BrokerMeters>,
    /// Where it reports what was delivered.
    pub tap: Tap,
    /// How long a disconnect by command waits for the messages in hand: `shutdown-grace`, as it is then.
    pub grace: watch::Receiver<Duration>,
    /// What the session left whose place it takes; the default where there was none.
    pub legacy: Legacy,
}

/// One broker's session, to be shared by whoever steers or watches it. Dropping the last of its owners ends it without a wait.
pub struct Session {
    core: Arc<Core>,
    status: watch::Receiver<SessionStatus>,
    /// None once it has been joined.
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    _ends_when_dropped: DropGuard,
}

/// A connection for one purpose alone. When it is dropped the connection ends as by [`Visit::leave`], and nobody waits for that.
#[must_use]
pub struct Visit {
    core: Arc<Core>,
    /// None once it is over.
    id: Option<VisitId>,
}

impl Visit {
    /// Disconnects gracefully, after what waits to be published, and leaves all as it was before the visit: idle, or
    /// disconnected by command. Not where somebody else wants the connection by now, by command or by `auto-connect`. Whether
    /// it is as before; returns once it is. Cancellation safe: it goes on.
    pub async fn leave(mut self) -> bool {
        let Some(done) = self.id.take().and_then(|id| self.core.steering.leave(id)) else { return false };
        // An error means that the session has ended, and its connection with it.
        let _ = done.await;
        true
    }

    /// The connection stays, as if it had been made by [`Session::connect`].
    pub fn stay(mut self) {
        if let Some(id) = self.id.take() {
            self.core.steering.stay(id);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            // Nobody waits for its end.
            let _ = self.core.steering.leave(id);
        }
    }
}

/// What `disconnect` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnected {
    /// It was connected.
    pub was_connected: bool,
}

/// Starts a broker's session. When `stop` fires it closes its connection and ends: what is in progress should have been
/// drained before.
pub fn spawn(parts: SessionParts, stop: &CancellationToken) -> Session {
    let SessionParts { id, config, routes, state_dir, router, outboxes, meters, tap, grace, legacy } = parts;
    let Legacy { wish, lost, queues } = legacy;
    let names = routes.table.subscriptions().iter().map(|subscription| Arc::clone(&subscription.name));
    let (sender, status) = watch::channel(SessionStatus::new(names));
    let core = Core {
        id,
        steering: Arc::new(Steering::new(config.auto_connect, wish)),
        cover: Cover::new(&config, Arc::clone(&routes), &state_dir, &meters, sender.clone()),
        broker: config,
        router,
        outboxes,
        meters,
        tap,
        status: sender,
        told: Arc::new(Notify::new()),
        queues: Mutex::new(queues),
        lost: Mutex::new(lost),
        beyond_said: AtomicBool::new(false),
        stalls: Mutex::default(),
    };
    core.adopt(&routes);
    let (core, stop) = (Arc::new(core), stop.child_token());
    let task = tokio::spawn(supervisor::run(Arc::clone(&core), grace, stop.clone()));
    let task = tokio::sync::Mutex::new(Some(task));
    Session { core, status, task, _ends_when_dropped: stop.drop_guard() }
}

impl Session {
    /// How it stands.
    pub fn status(&self) -> watch::Receiver<SessionStatus> {
        self.status.clone()
    }

    /// Connects at once, also where the backoff would wait, and waits for what comes of that attempt. Afterwards the session
    /// goes on as `auto-connect` says: with it a connection is made again whenever there is none, without it a failed attempt
    /// or a lost connection is left at that. Cancellation safe: the attempt goes on.
    ///
    /// # Errors
    /// Why it is not connected.
    pub async fn connect(&self) -> Result<Opened, ConnectError> {
        match self.core.steering.connect() {
            Some(answer) => answer.await.unwrap_or(Err(ConnectError::Ended)),
            None => Ok(Opened::Already),
        }
    }

    /// Connects at once as [`Self::connect`] does, for one purpose alone: only where nothing else wants the connection.
    /// Cancellation safe: all is left as it was before.
    ///
    /// # Errors
    /// Something else wants the connection, or why it is not connected.
    pub async fn visit(&self) -> Result<Visit, VisitError> {
        let (id, connected) = self.core.steering.visit().map_err(VisitError::Kept)?;
        let visit = Visit { core: Arc::clone(&self.core), id: Some(id) };
        match connected.await.unwrap_or(Err(ConnectError::Ended)) {
            Ok(_) => Ok(visit),
            Err(error) => Err(VisitError::NotConnected(error)),
        }
    }

    /// Does this if it is connected and not about to disconnect; no command comes in between. `act` must not steer the
    /// session.
    pub fn while_connected<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        self.core.steering.while_connected(act)
    }

    /// Disconnects and stays so, whatever `auto-connect` says, until it is connected by command or something new is to be
    /// published (force): also what is offered while it disconnects, and not sent by then. Nothing more is taken in; messages in hand are finished and acknowledged within the grace period;
    /// what is not started then is left to the broker. Returns once it is disconnected. Cancellation safe: it goes on.
    ///
    /// # Errors
    /// It has ended by [`Self::end`]: another session may have taken its place.
    pub async fn disconnect(&self) -> Result<Disconnected, Ended> {
        let core = &self.core;
        let (was_connected, done) = core.steering.disconnect(core.outboxes.newest())?;
        // An error means that the session has ended, which disconnects too; one that follows stays disconnected.
        let _ = done.await;
        Ok(Disconnected { was_connected })
    }

    /// Makes the broker forget the session: its subscriptions and what it has queued. Where it was connected, it disconnects
    /// gracefully before and connects again after. Cancellation safe: it goes on.
    ///
    /// # Errors
    /// The broker cannot be asked, or cannot be connected again.
    pub async fn reset(&self) -> Result<(), ResetError> {
        let (done, again) = self.core.steering.reset();
        done.await.unwrap_or(Err(ResetError::Ended))?;
        if let Some(again) = again {
            again.await.unwrap_or(Err(ConnectError::Ended)).map_err(ResetError::NotConnected)?;
        }
        Ok(())
    }

    /// `auto-connect` is this from now on. It ends no connection, and does not connect what was disconnected by command.
    pub fn auto_connect(&self, auto: bool) {
        self.core.steering.auto_connect(auto);
    }

    /// Other subscriptions, or other ends of them, from now on: each message is routed either by the old ones or by the new.
    /// What is to be subscribed and given back for them follows on the connection that stands, while publishes and messages
    /// flow on.
    pub fn route(&self, routes: Arc<BrokerRoutes>) {
        self.core.adopt(&routes);
        self.core.cover.route(routes);
        self.core.told.notify_one();
    }

    /// A queue takes over what waits in another: messages of this session may be among that, whatever the routes are now.
    pub fn watch(&self, queue: &Arc<HandlerQueue>) {
        self.core.watch(queue);
    }

    /// Where messages lead now.
    pub fn routes(&self) -> Arc<BrokerRoutes> {
        self.core.cover.routes()
    }

    /// From now on nothing is taken in: what comes is left to the broker, unacknowledged. What was taken in goes on, and so do
    /// publishes and acknowledgements. For a broker that is about to be removed.
    pub fn take_nothing(&self) {
        self.core.cover.take_nothing();
    }

    /// Disconnects gracefully and ends: for a broker that is removed, or gets another session. Where it `delivers`, all that waits to
    /// be published is sent before, within the grace period. `successor`: the broker of the other session, which is to get what is
    /// returned; of messages in no call then, those that the broker will not send again are handled all the same.
    pub async fn end(&self, delivers: bool, successor: Option<&Broker>) -> Legacy {
        self.core.steering.end(delivers);
        self.ended().await;
        Legacy::of(&self.core, self.core.steering.hand_over(), successor)
    }

    /// Waits until it has ended, after the stop that it was given or [`Self::end`]: a few seconds at most. Cancellation safe.
    pub async fn ended(&self) {
        let mut task = self.task.lock().await;
        let Some(running) = task.as_mut() else { return };
        if let Err(error) = running.await {
            error!(broker = %self.core.broker.name, %error, "the session's task panicked");
        }
        *task = None;
    }
}
