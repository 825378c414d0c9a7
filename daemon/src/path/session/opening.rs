//! One attempt to connect, and the clearing up after a connection.
//!
//! Fed by the supervisor, which watches over the connection that comes of it. Owns nothing that outlives the attempt: it
//! reads the password, has the record written, starts the poller and waits for the CONNACK.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Core};
use super::failure::{Failure, shortened};
use super::packet::Welcome;
use super::transport::Transport;
use super::{poller, report};
use crate::control::config::model::Broker;
use crate::control::config::secret::Secret;

/// How long reading the password may take.
const FILE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a broker may take to close the connection after DISCONNECT.
pub(super) const DISCONNECT_DEADLINE: Duration = Duration::from_secs(1);

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
    let password = password(&core.broker, &abort).await?;
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

/// The password, read anew for each connection so that a changed file takes effect.
pub(super) async fn password(broker: &Broker, abort: &CancellationToken) -> Result<Option<Secret>, Failure> {
    let Some(source) = broker.password.clone() else { return Ok(None) };
    // Reading a file may take long, on a network file system for instance.
    let read = tokio::task::spawn_blocking(move || source.read());
    let read = tokio::select! {
        read = tokio::time::timeout(FILE_DEADLINE, read) => read,
        () = abort.cancelled() => return Err(Failure::Stopped),
    };
    match read {
        Ok(Ok(Ok(password))) => Ok(Some(password)),
        Ok(Ok(Err(error))) => Err(Failure::Password(shortened(&error.to_string()))),
        Ok(Err(_)) => Err(Failure::Defect),
        Err(_) => Err(Failure::Password(format!("its source gives nothing within {} s", FILE_DEADLINE.as_secs()))),
    }
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
