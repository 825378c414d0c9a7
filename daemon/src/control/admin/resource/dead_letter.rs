//! What the HTTP API says of dead letters.
//!
//! Owns field names, as its parent does. Sizes are bytes, times RFC 3339.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Encoding, Kept};

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
