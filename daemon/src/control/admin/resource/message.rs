//! What the HTTP API says of messages: those received, and those to publish.
//!
//! Owns field names, as its parent does.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Received {
    /// Counts the messages since the daemon's start, from 1, without gaps.
    pub sequence: u64,
    /// In RFC 3339, with milliseconds.
    pub time: String,
    pub broker: String,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub data: String,
    pub encoding: Encoding,
}

/// How bytes are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    #[serde(rename = "utf-8")]
    Utf8,
    Base64,
}

/// The last messages received, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ReceivedList {
    pub messages: Vec<Received>,
    /// Messages that were received and are not kept any more: overwritten or cleared.
    pub gone: u64,
}

/// A message to publish.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Publication {
    #[schema(min_length = 1)]
    pub broker: String,
    #[schema(min_length = 1)]
    pub topic: String,
    /// As text; empty unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// As base64, in place of `message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_base64: Option<String>,
    /// 0, 1 or 2.
    #[serde(default)]
    #[schema(maximum = 2)]
    pub qos: u8,
    #[serde(default)]
    pub retain: bool,
    /// Connect a broker that is not connected; true unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Disconnect once it is published, if this made the connection.
    #[serde(default)]
    pub disconnect_after: bool,
}

/// What became of a message to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Published {
    pub broker: String,
    pub topic: String,
    /// As it was sent: QoS 2 is sent as 1 where the session is kept.
    pub qos: u8,
    /// The broker has acknowledged it; at QoS 0 it is written.
    pub acknowledged: bool,
    /// The broker was connected for it.
    pub connected_for_it: bool,
    /// And disconnected again.
    pub disconnected: bool,
}
