//! What the HTTP API says of what handlers remember.
//!
//! Owns field names, as its parent does. Sizes are bytes, times RFC 3339, durations the notation of the configuration.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Encoding;

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
