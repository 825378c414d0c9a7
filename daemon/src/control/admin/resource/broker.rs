//! What the HTTP API says of brokers.
//!
//! Owns field names, as its parent does.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Origin;

/// One broker: its settings and how its session stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Broker {
    pub name: String,
    pub origin: Origin,
    pub address: String,
    pub port: u16,
    /// `5` or `3.1.1`.
    pub protocol: String,
    pub client_id: String,
    pub username: Option<String>,
    /// `***` if the configuration holds one.
    pub password: Option<String>,
    /// The file that the password is read from.
    pub password_file: Option<String>,
    /// The environment variable that the password is read from.
    pub password_env: Option<String>,
    /// Seconds.
    pub keep_alive: u16,
    pub auto_connect: bool,
    pub clean_session: bool,
    /// Such as `7d`; null where the broker keeps no session, or no limit can be told to it.
    pub session_expiry: Option<String>,
    pub receive_maximum: u16,
    /// Such as `1MiB`.
    pub max_packet: String,
    /// Null is off.
    pub parallel_limit: Option<u16>,
    /// `best` or `all`.
    pub dispatch: String,
    /// Null is no TLS.
    pub tls: Option<Tls>,
    pub transport: Transport,
    pub will: Option<StatusMessage>,
    pub birth: Option<StatusMessage>,
    pub close: Option<StatusMessage>,
    pub connected: bool,
    pub state: BrokerState,
    /// Why it is not connected, in plain words.
    pub reason: Option<String>,
    /// Seconds until the next attempt.
    pub retry_in: Option<f64>,
    pub outbox: BrokerOutbox,
    /// In the answer to a change: what the configuration is warned of since then, a sentence each. Elsewhere absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How a broker's session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerState {
    /// CONNACK has come.
    Connected,
    /// A connection is being made.
    Connecting,
    /// The next attempt comes by itself.
    Waiting,
    /// No connection is wanted: it is made by command, or when something is to be published.
    Idle,
    /// Disconnected by hand.
    Disconnected,
}

/// What waits to be published to a broker, and what may: `outbox` of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BrokerOutbox {
    pub messages: u64,
    pub bytes: u64,
    /// Calls and commands that wait for room.
    pub waiting: u64,
    /// `memory`.
    pub store: String,
    pub max_messages: u64,
    /// Such as `64MiB`.
    pub max_bytes: String,
    /// Such as `10m`; null is off.
    pub max_age: Option<String>,
    /// `block`, `drop-oldest` or `reject`.
    pub when_full: String,
}

/// So many messages wait for a broker, and so many calls and commands for room in its outbox, in plain words; none where nothing does.
pub fn what_waits(messages: u64, calls: u64) -> Option<String> {
    let messages = match messages {
        0 => None,
        1 => Some("1 message waits for it".to_owned()),
        messages => Some(format!("{messages} messages wait for it")),
    };
    let calls = match calls {
        0 => None,
        1 => Some("1 call waits for room in its outbox".to_owned()),
        calls => Some(format!("{calls} calls wait for room in its outbox")),
    };
    let both: Vec<String> = messages.into_iter().chain(calls).collect();
    (!both.is_empty()).then(|| both.join(" and "))
}

/// `tls` of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Tls {
    pub ca: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<String>,
    pub alpn: Vec<String>,
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
}

/// `transport` of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Transport {
    /// `tcp` or `websocket`.
    pub kind: String,
    /// Of a WebSocket.
    pub path: Option<String>,
}

/// `will`, `birth` and `close` of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StatusMessage {
    pub topic: String,
    pub message: String,
    pub qos: u8,
    pub retain: bool,
}
