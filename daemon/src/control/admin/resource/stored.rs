//! What the HTTP API says of what is kept: outboxes, dead letters, parked messages, what handlers remember.
//!
//! Owns field names, as its parent does. Sizes are bytes, times RFC 3339, durations the notation of the configuration.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Encoding, Outbox};

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

/// Messages that are kept, and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Kept {
    pub messages: u64,
    pub bytes: u64,
}

/// How a handler stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HandlerState {
    /// It gets messages as they come.
    #[default]
    Open,
    /// Paused by command: what comes is kept on the disk.
    Paused,
    /// Too many calls failed one after the other: what comes is kept on the disk until it is tried again.
    Quarantined,
    /// It gets what was kept, in its order; what comes waits behind that.
    Replaying,
}

impl fmt::Display for HandlerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandlerState::Open => "open",
            HandlerState::Paused => "paused",
            HandlerState::Quarantined => "quarantined",
            HandlerState::Replaying => "replaying",
        })
    }
}

/// A dead letter in the local store, without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DeadLetter {
    /// Its number, which no other one gets.
    pub id: u64,
    pub kind: DeadLetterKind,
    /// When it was given up, in RFC 3339.
    pub time: String,
    /// The one that it is for, or whose call made it; null for a publish that no handler made.
    pub handler: Option<String>,
    /// The name of the subscription by which it came to the handler.
    pub subscription: Option<String>,
    /// Where the message came from, or where the publish was to go.
    pub broker: String,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    /// As the metric's label: `reject`, `trap`, `publish_refused`, …
    pub reason: String,
    /// In plain words.
    pub error: String,
    /// Calls that were made for it.
    pub attempts: u32,
    /// Of its payload.
    pub bytes: u64,
}

/// What a dead letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeadLetterKind {
    /// A message that was received: it is handled again by a retry.
    Message,
    /// What a call published: it is published again by a retry.
    Publish,
}

/// A dead letter with all that is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct WholeDeadLetter {
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// When the message was received, in RFC 3339; null for a publish.
    pub received: Option<String>,
    pub properties: Option<MessageProperties>,
    /// The payload.
    pub data: String,
    pub encoding: Encoding,
}

/// Properties of a message (MQTT 5 §3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct MessageProperties {
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    /// As base64.
    pub correlation_data_base64: Option<String>,
    /// Seconds.
    pub message_expiry: Option<u32>,
    pub utf8_payload: bool,
    /// Keys and values.
    pub user: Vec<(String, String)>,
}

/// Dead letters of the local store, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DeadLetterList {
    pub dead_letters: Vec<DeadLetter>,
    /// Older ones match too: ask for those `before` the first one here.
    pub more: bool,
    /// All that the store holds, of any handler and reason.
    pub kept: Kept,
}

/// Dead letters that something was done with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DeadLetterCount {
    pub dead_letters: u64,
}

/// What one handler remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct KvTotals {
    pub handler: String,
    /// False: the handler is not configured any more. What it remembers is kept.
    pub configured: bool,
    pub keys: u64,
    /// Of keys and values, as they count for the quota.
    pub bytes: u64,
    /// `allow.kv`, such as `1MiB`; null where it is not granted.
    pub quota: Option<String>,
}

/// A key that a handler remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct KvKey {
    pub key: String,
    /// Of its value.
    pub bytes: u64,
    /// When it is forgotten, in RFC 3339; null is never.
    pub expires: Option<String>,
}

/// Keys that a handler remembers, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct KvList {
    pub keys: Vec<KvKey>,
    /// Further ones match too: ask for those `after` the last one here.
    pub more: bool,
}

/// What a handler remembers under a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct KvEntry {
    pub key: String,
    pub value: String,
    pub encoding: Encoding,
    /// When it is forgotten, in RFC 3339; null is never.
    pub expires: Option<String>,
}

/// A value to be remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KvValue {
    /// As text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// As base64, in place of `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// For how long, such as `5m`; for ever unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}
