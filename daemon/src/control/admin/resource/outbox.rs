//! What the HTTP API says of outboxes.
//!
//! Owns field names, as its parent does. Sizes are bytes, durations the notation of the configuration.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What waits to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Outbox {
    pub messages: u64,
    pub bytes: u64,
}

/// A broker's outbox: `outbox` of the API. Also of a broker that is not configured any more, as long as something of it is on
/// the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct OutboxView {
    pub broker: String,
    /// False: the broker was removed, and what waits for it is kept until it is there again or is purged.
    pub configured: bool,
    /// `memory` or `disk`; null for a broker that is not configured.
    pub store: Option<String>,
    /// All that waits to be published.
    pub messages: u64,
    pub bytes: u64,
    /// What of it is on the disk.
    pub on_disk: Outbox,
    /// It was on the disk and is to be in memory: new messages wait on the disk until those before them are gone.
    pub draining: bool,
    /// Calls and commands that wait for room.
    pub waiting: u64,
    /// Seconds that the oldest has waited; null where nothing waits, or nobody keeps its time: in memory without `max-age`.
    pub oldest_age: Option<f64>,
    pub max_messages: Option<u64>,
    /// Such as `64MiB`.
    pub max_bytes: Option<String>,
    /// Such as `10m`; null is off.
    pub max_age: Option<String>,
    /// `block`, `drop-oldest` or `reject`.
    pub when_full: Option<String>,
}

/// What was purged from an outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Purged {
    pub broker: String,
    pub messages: u64,
    pub bytes: u64,
}
