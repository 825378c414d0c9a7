//! What the HTTP API says of handlers. Which version of its plugin one runs is in `version.rs`.
//!
//! Owns field names, as its parent does.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Kept, Origin, PluginFile, Trial};

/// One handler: its settings and what it has done.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Handler {
    pub name: String,
    pub origin: Origin,
    /// The plugin's path.
    pub plugin: String,
    /// The hash of the plugin that runs.
    pub version: String,
    /// How the plugin's file stands to that.
    pub file: PluginFile,
    /// What is on trial beside that.
    pub trial: Option<Trial>,
    pub instances: usize,
    /// `reuse` or `per-message`.
    pub isolation: String,
    pub call_deadline: String,
    pub max_memory: String,
    pub queue: usize,
    pub queue_bytes: String,
    pub overload: String,
    pub retry: Retry,
    /// When it is left alone because it fails; null is never.
    pub quarantine: Option<Quarantine>,
    pub reload: Reload,
    pub max_publishes: usize,
    pub max_publish_bytes: String,
    /// Where messages go whose calls have failed for good; null is the dead-letter store.
    pub dead_letter: Option<DeadLetterTopic>,
    /// Where it publishes on a schedule, unless it names a broker.
    pub default_broker: Option<String>,
    /// `BROKER:FILTER`.
    pub allow_publish: Vec<String>,
    /// How much it may remember, such as `1MiB`; null is nothing.
    pub allow_kv: Option<String>,
    /// Whether it may read the machine.
    pub allow_system: bool,
    /// With `***` in place of every text.
    #[schema(value_type = Object)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Calls by result.
    pub calls: BTreeMap<String, u64>,
    /// Dead letters that are safe, by reason; those that are zero are left out.
    pub dead_letters: BTreeMap<String, u64>,
    /// Dead letters that could not be kept.
    pub dead_letters_dropped: u64,
    /// Messages that wait for it.
    pub waiting: u64,
    /// Those among them whose call failed and is made again.
    pub retrying: u64,
    pub state: HandlerState,
    /// Of a handler in quarantine: when it is tried again, in RFC 3339.
    pub quarantined_until: Option<String>,
    /// Messages that are kept on the disk until it gets them.
    pub parked: Kept,
    pub last_failure: Option<CallFailure>,
    /// In the answer to a change: what the configuration is warned of since then, a sentence each. Elsewhere absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
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

/// A handler's dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DeadLetterTopic {
    pub broker: String,
    pub topic: String,
}

/// When a handler's call that failed is made again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Retry {
    /// Further calls for one message.
    pub max: u32,
    /// The shortest and the longest wait, such as `100ms..10s`.
    pub backoff: String,
    pub max_time: String,
}

/// When a handler that fails is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Quarantine {
    /// Failures, one after the other.
    pub after: u32,
    /// For how long, the first time; each trial that fails doubles it, up to ten minutes.
    pub r#for: String,
}

/// How a new version of a handler's plugin takes the place of the one that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Reload {
    /// The share of first calls that run on it while it is on trial; null is no trial.
    pub canary: Option<f64>,
    /// The largest share of these that may fail.
    pub max_failures: f64,
}

/// A handler's call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CallFailure {
    /// In RFC 3339.
    pub time: String,
    /// As the metric's label: `reject`, `trap`, …
    pub result: String,
    /// In plain words.
    pub error: String,
}
