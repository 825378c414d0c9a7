//! Sessions: one for each broker. Only `v4.rs` and `v5.rs` know rumqttc's packets.
//!
//! Owns: connections, subscriptions on the wire, acknowledgements, and the sending of what the outbox holds. Fed by the
//! broker and by `path/outbox`; feeds `path/router`. It decides neither what a message means nor whether it is done.
//!
//! Tasks of a session:
//! - the supervisor (`supervisor.rs`), for as long as the session: connects, watches deadlines, waits in between;
//! - the poller (`poller.rs`), one for each connection: waits for the link alone, and carries the feeder (`feeder.rs`), which may
//!   wait for room without holding the poller up.
//!
//! `cover/` holds what is subscribed and which copies of a message count. `transport/` makes the byte stream; `link.rs`
//! reads and writes it, `outlet.rs` holds what is to be written, and `codec.rs` hides the difference between the two
//! versions. The rest is pure: `ring.rs` (what may be acknowledged), `inflight.rs`,
//! `packet_ids.rs` and `subscribing.rs` (what the broker's answers belong to), `deadlines.rs` (what has been owed for too
//! long), `backoff.rs`.

mod ack;
mod backoff;
pub mod benchmarks;
mod codec;
mod connection;
mod cover;
mod deadlines;
mod failure;
mod feeder;
mod inflight;
mod link;
mod outlet;
mod packet;
mod packet_ids;
mod poller;
mod report;
mod ring;
mod subscribing;
mod supervisor;
mod transport;
mod v4;
mod v5;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::ack::{AckToken, Fate};
use self::connection::Core;
use self::cover::Cover;
pub use self::cover::WireCopy;
pub use self::transport::Holder;
use crate::control::config::model::{Broker, Subscription};
use crate::message::BrokerId;
use crate::path::outbox::Outboxes;
use crate::path::router::Router;
use crate::telemetry::metrics::BrokerMeters;
use crate::telemetry::tap::Tap;

/// What a session is made of.
pub struct SessionParts {
    /// The broker.
    pub id: BrokerId,
    /// Its configuration.
    pub config: Arc<Broker>,
    /// The broker's subscriptions in the order of the configuration.
    pub subscriptions: Vec<Arc<Subscription>>,
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
}

/// A running session.
pub struct SessionHandle {
    /// How it stands.
    pub status: watch::Receiver<SessionStatus>,
    /// Ends after the stop that the session was given, a few seconds later at most.
    pub join: JoinHandle<()>,
}

/// How a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// Whether it is connected.
    pub state: SessionState,
    /// Why it is not connected, in plain words; none while it is.
    pub last_error: Option<String>,
    /// Names of the subscriptions that the broker refused on this connection, or on the last.
    pub refused: Vec<Arc<str>>,
    /// Subscriptions granted on this connection, or on the last.
    pub granted: usize,
    /// Subscriptions that the broker has not answered.
    pub pending: usize,
}

/// Whether a session is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// No connection is wanted.
    Idle,
    /// A connection is being made.
    Connecting,
    /// CONNACK has come.
    Connected,
    /// The next attempt is made at this time.
    Waiting {
        /// Monotonic.
        until: Instant,
    },
}

/// Starts a broker's session. It lives until `stop` fires; what is in progress should have been drained before.
pub fn spawn(parts: SessionParts, stop: CancellationToken) -> SessionHandle {
    let SessionParts { id, config, subscriptions, state_dir, router, outboxes, meters, tap } = parts;
    let (sender, status) = watch::channel(SessionStatus {
        state: SessionState::Idle,
        last_error: None,
        refused: Vec::new(),
        granted: 0,
        pending: subscriptions.len(),
    });
    let core = Core {
        id,
        cover: Cover::new(&config, &subscriptions, &state_dir, &meters, sender.clone()),
        broker: config,
        router,
        outboxes,
        meters,
        tap,
        status: sender,
        lost: Mutex::new(Vec::new()),
        beyond_said: AtomicBool::new(false),
    };
    SessionHandle { status, join: tokio::spawn(supervisor::run(Arc::new(core), stop)) }
}
