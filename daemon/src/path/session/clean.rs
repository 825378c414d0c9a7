//! A short connection with a clean session, which ends as soon as the broker has accepted it.
//!
//! Owns: what such a connection must not do. Nothing is subscribed, nothing published, and no session or will left. It makes a
//! broker forget a session that it has under the same client identifier, and shows whether it can be reached at all
//! (`probe.rs`). Its deadlines are those of every connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::link::Link;
use super::opening::{DISCONNECT_DEADLINE, password};
use super::outlet::Outlet;
use super::packet::Welcome;
use super::transport::Transport;
use crate::control::config::model::Broker;

/// Connects with a clean session that ends with the connection (MQTT 3.1.1 §3.1.2.4, MQTT 5 §3.1.2.4 and §3.1.2.11.2), and
/// disconnects. What the broker says of itself, and how long that took from the look-up of its name. `abort` ends the attempt.
///
/// # Errors
/// Why there was no CONNACK.
pub(super) async fn clean_connection(
    broker: &Broker,
    transport: Arc<Transport>,
    abort: &CancellationToken,
) -> Result<(Welcome, Duration), Failure> {
    let password = password(broker, abort).await?;
    let clean = Broker { clean_session: true, session_expiry: Duration::ZERO, will: None, ..broker.clone() };
    let clean = Arc::new(clean);
    let outlet = Arc::new(Outlet::new(&clean));
    let begun = Instant::now();
    let connecting = Link::connect(transport, Arc::clone(&outlet), &clean, password.as_ref());
    let (mut link, welcome) = tokio::select! {
        made = connecting => made?,
        () = abort.cancelled() => return Err(Failure::Stopped),
    };
    let took = begun.elapsed();
    outlet.disconnect();
    // Until the broker has closed it too, so that it does not take the next connection for another client's.
    let closed = async { while link.progress().await.is_ok() {} };
    // A broker that does not close it has answered nonetheless.
    let _ = tokio::time::timeout(DISCONNECT_DEADLINE, closed).await;
    Ok((welcome, took))
}
