//! One connection for `tidegate check --connect`: as a session makes it, and nothing else.
//!
//! Owns: the facts that such a connection shows. It has a client identifier of its own, so that it takes over no running
//! session; `clean.rs` makes the connection, which leaves nothing behind. It does not know what the broker's limits mean for a
//! configuration: its caller does.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::clean::clean_connection;
use super::failure::Failure;
use super::packet::LARGEST_PACKET;
use super::transport::Transport;
use crate::control::config::model::Broker;
use crate::message::Qos;
use crate::telemetry::metrics::BrokerMeters;

/// What a broker says of itself in its CONNACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// From the look-up of its name to its CONNACK.
    pub took: Duration,
    /// The highest QoS that it takes.
    pub max_qos: Qos,
    /// It takes retained messages.
    pub retain: bool,
    /// It takes wildcards in topic filters.
    pub wildcards: bool,
    /// It takes shared subscriptions.
    pub shares: bool,
    /// Largest packet that it takes, in bytes, if it has a limit of its own.
    pub max_packet: Option<u32>,
    /// The keep alive in seconds that it imposes, if any; zero is none at all.
    pub keep_alive: Option<u64>,
}

/// Why there was no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoConnection {
    /// In plain words, with a remedy behind a semicolon where there is one.
    pub told: String,
    /// The broker may have refused nothing but the identifier, which only this connection has.
    pub identifier: bool,
}

/// The client identifier of a probe: nobody else has it.
pub fn identifier(broker: &Broker) -> String {
    // Without randomness two checks at the same time end each other, nothing else.
    format!("{}-check-{:08x}", broker.client_id, getrandom::u32().unwrap_or_default())
}

/// Connects with the broker's settings and this client identifier, and disconnects.
///
/// # Errors
/// Why it could not, within the deadlines of a session.
pub async fn probe(broker: &Broker, client_id: String, meters: &Arc<BrokerMeters>) -> Result<Facts, NoConnection> {
    connect(broker, client_id, meters).await.map_err(|failure| NoConnection {
        identifier: matches!(
            failure,
            Failure::ClientIdentifier | Failure::NotAuthorised | Failure::Refused(_) | Failure::ClosedOnConnect { .. }
        ),
        told: match failure {
            // To set another one would not help.
            Failure::ClientIdentifier => "the broker refuses the client identifier of this check".to_owned(),
            failure => failure.to_string(),
        },
    })
}

async fn connect(broker: &Broker, client_id: String, meters: &Arc<BrokerMeters>) -> Result<Facts, Failure> {
    let broker = Arc::new(Broker { client_id, ..broker.clone() });
    let transport = Arc::new(Transport::new(&broker, meters));
    let (welcome, took) = clean_connection(&broker, transport, &CancellationToken::new()).await?;
    Ok(Facts {
        took,
        max_qos: welcome.max_qos,
        retain: welcome.retain,
        wildcards: welcome.wildcards,
        shares: welcome.shares,
        max_packet: (welcome.max_packet < LARGEST_PACKET).then_some(welcome.max_packet),
        keep_alive: welcome.keep_alive.map(|duration| duration.as_secs()),
    })
}
