//! What the HTTP API says of subscriptions.
//!
//! Owns field names, as its parent does.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Origin;

/// One subscription: its settings and how the broker has answered.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Subscription {
    pub name: String,
    pub origin: Origin,
    pub broker: String,
    /// The topic filter, without its share.
    pub topic: String,
    pub qos: u8,
    pub share: Option<String>,
    pub on_message: Option<OnMessage>,
    pub when: Option<When>,
    /// The handler runs when nothing came for that long.
    pub silence: Option<String>,
    pub state: SubscriptionState,
    /// Why it is refused.
    pub reason: Option<String>,
    /// When its last message came, in RFC 3339.
    pub last_message: Option<String>,
    /// In the answer to a change: what the configuration is warned of since then, a sentence each. Elsewhere absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SubscriptionState {
    /// The broker has it.
    Granted,
    /// The broker was not asked yet, or has not answered.
    Pending,
    /// The broker refused it.
    Refused,
}

/// What a subscription does with a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OnMessage {
    /// Calls this handler.
    Handler(String),
    /// Writes a log line.
    Log {
        /// Its template.
        log: String,
    },
}

/// The condition of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct When {
    pub payload: Option<String>,
    pub min_bytes: Option<u64>,
    pub retained: Option<bool>,
    /// `stop` or `next`.
    pub otherwise: String,
}
