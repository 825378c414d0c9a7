//! One attempt to connect, and the clearing up after a connection.
//!
//! Fed by the supervisor, which watches over the connection that comes of it. Owns nothing that outlives the attempt: it
//! has the password read and the record written, starts the poller and waits for the CONNACK. `visit.rs` makes the other kind
//! of connection, by which a broker forgets a session.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Core};
use super::failure::Failure;
use super::packet::Welcome;
use super::transport::Transport;
use super::visit::{password, visit};
use super::{poller, report};

/// A connection that was accepted.
pub(super) struct Open {
    pub(super) connection: Arc<Connection>,
    /// Its poller, which ends with it and says why.
    pub(super) polling: JoinHandle<Failure>,
    pub(super) welcome: Welcome,
}

/// Makes one connection. `abort` ends the attempt.
///
/// # Errors
/// Why there is none; nothing is left of the attempt then.
pub(super) async fn open(
    core: Arc<Core>,
    transport: Arc<Transport>,
    abort: CancellationToken,
) -> Result<Open, Failure> {
    let password = tokio::select! {
        password = password(&core.broker) => password?,
        () = abort.cancelled() => return Err(Failure::Stopped),
    };
    core.cover.connecting().await;
    let connection = Arc::new(Connection::new(&core));
    let (accepted, connected) = oneshot::channel();
    let mut polling = tokio::spawn(poller::run(Arc::clone(&connection), transport, password, accepted));
    let welcome = tokio::select! {
        biased;
        welcome = connected => welcome.ok(),
        () = abort.cancelled() => {
            connection.standing.end(Failure::Stopped);
            None
        }
    };
    if let Some(welcome) = welcome {
        return Ok(Open { connection, polling, welcome });
    }
    let failure = outcome((&mut polling).await);
    clear_up(&connection, (!abort.is_cancelled()).then_some(&failure)).await;
    Err(failure)
}

/// What follows from the end of a connection, once its task runs no more. `failure`: why it ended, unless this side ended it.
pub(super) async fn clear_up(connection: &Connection, failure: Option<&Failure>) {
    let core = &connection.core;
    let blamed = failure.and_then(|failure| connection.blamed(failure, Instant::now()));
    if let Some(suspect) = core.outboxes.connection_lost(core.id, blamed) {
        report::suspected(&core.broker, &suspect);
    }
    core.meters.connected.set(0);
    core.meters.ack_stalled.set(0.0);
    if connection.standing.is_undecided() {
        core.lost().push(Arc::clone(&connection.standing));
    }
    core.cover.settle().await;
}

/// Why a poller ended.
pub(super) fn outcome(ended: Result<Failure, tokio::task::JoinError>) -> Failure {
    ended.unwrap_or(Failure::Defect)
}

/// Makes the broker forget the session. `abort` ends the attempt.
///
/// # Errors
/// Why there was no CONNACK.
pub(super) async fn forget(core: &Core, transport: Arc<Transport>, abort: &CancellationToken) -> Result<(), Failure> {
    tokio::select! {
        visited = visit(&core.broker, transport) => visited.map(|_| ()),
        () = abort.cancelled() => Err(Failure::Stopped),
    }
}
