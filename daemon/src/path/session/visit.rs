//! A connection that leaves nothing behind: CONNECT with a clean session, CONNACK, DISCONNECT.
//!
//! Owns nothing that outlives it. It has no will, and nothing is subscribed or published. Used for `check --connect`
//! (`probe.rs`) and to make a broker forget a session (`opening.rs`): the clean session takes the place of the one before, and
//! ends with its connection (MQTT 3.1.1 §3.1.2.4, MQTT 5 §3.1.2.4 and §3.1.2.11.2). Here is also how a password is read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::failure::{Failure, shortened};
use super::link::Link;
use super::outlet::Outlet;
use super::packet::Welcome;
use super::transport::Transport;
use crate::control::config::model::Broker;
use crate::control::config::secret::Secret;

/// How long reading the password may take.
const FILE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a broker may take to close the connection after DISCONNECT.
pub(super) const DISCONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// Connects with these settings but for the session and the will, and disconnects. What the CONNACK says, and how long it took
/// from the look-up of the broker's name on.
///
/// # Errors
/// Why there was no CONNACK, within the deadlines of a session.
pub(super) async fn visit(broker: &Broker, transport: Arc<Transport>) -> Result<(Welcome, Duration), Failure> {
    let password = password(broker).await?;
    let clean = Broker { clean_session: true, session_expiry: Duration::ZERO, will: None, ..broker.clone() };
    let clean = Arc::new(clean);
    let outlet = Arc::new(Outlet::new(&clean));
    let begun = Instant::now();
    let (mut link, welcome) = Link::connect(transport, Arc::clone(&outlet), &clean, password.as_ref()).await?;
    let took = begun.elapsed();
    outlet.disconnect();
    // Until the broker has closed it too, so that it does not take the next connection for another client's. One that takes
    // nothing any more has answered nonetheless.
    let closed = async { while link.progress().await.is_ok() {} };
    let _ = timeout(DISCONNECT_DEADLINE, closed).await;
    Ok((welcome, took))
}

/// The password, read anew for each connection so that a changed file takes effect.
///
/// # Errors
/// Its source cannot be read in time.
pub(super) async fn password(broker: &Broker) -> Result<Option<Secret>, Failure> {
    let Some(source) = broker.password.clone() else { return Ok(None) };
    // Reading a file may take long, on a network file system for instance.
    match timeout(FILE_DEADLINE, spawn_blocking(move || source.read())).await {
        Ok(Ok(Ok(password))) => Ok(Some(password)),
        Ok(Ok(Err(error))) => Err(Failure::Password(shortened(&error.to_string()))),
        Ok(Err(_)) => Err(Failure::Defect),
        Err(_) => Err(Failure::Password(format!("its source gives nothing within {} s", FILE_DEADLINE.as_secs()))),
    }
}
