//! What the HTTP API says of the daemon as a whole.
//!
//! Owns field names, as its parent does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BrokerState, CallFailure, HandlerState, Kept, LastReload, Outbox, PluginFile, ScheduleSummary, Trial};

/// Everything at a glance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    pub version: String,
    /// In RFC 3339.
    pub started: String,
    /// Seconds.
    pub uptime: f64,
    /// The configuration file.
    pub config: String,
    pub state_dir: String,
    pub ready: bool,
    /// What keeps the daemon from being ready.
    pub obstacles: Vec<String>,
    /// Null where the configuration was not read again since the start.
    pub last_reload: Option<LastReload>,
    /// What else an operator should know, such as a version that was refused.
    pub details: Vec<String>,
    pub messages: Messages,
    /// Dead letters in the local store.
    pub dead_letters: Kept,
    /// Messages of paused and quarantined handlers.
    pub parked: Kept,
    /// Those among them whose handlers are not configured any more, by handler: they wait until it is there again.
    pub parked_orphans: BTreeMap<String, Kept>,
    pub brokers: Vec<BrokerSummary>,
    pub handlers: Vec<HandlerSummary>,
    pub schedules: Vec<ScheduleSummary>,
}

/// Counts since the start.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Messages {
    pub received: u64,
    /// By outcome; those that are zero are left out.
    pub finished: BTreeMap<String, u64>,
    pub in_progress: u64,
    pub published: u64,
}

/// A broker in [`Status`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BrokerSummary {
    pub name: String,
    pub connected: bool,
    pub state: BrokerState,
    pub reason: Option<String>,
    pub received: u64,
    pub published: u64,
    pub outbox: Outbox,
    /// What of it is on the disk.
    pub outbox_on_disk: Outbox,
    pub subscriptions: usize,
    /// Names.
    pub refused: Vec<String>,
}

/// A handler in [`Status`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HandlerSummary {
    pub name: String,
    pub version: String,
    /// How the plugin's file stands to that.
    pub file: PluginFile,
    /// What is on trial beside that.
    pub trial: Option<Trial>,
    pub calls: u64,
    pub failures: u64,
    pub waiting: u64,
    pub state: HandlerState,
    /// In RFC 3339.
    pub quarantined_until: Option<String>,
    pub parked: Kept,
    pub last_failure: Option<CallFailure>,
}
