//! What the HTTP API says of the versions of a handler's plugin: what its file holds, what is on trial.
//!
//! Owns field names, as its parent does.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the file of a handler's plugin stands to what the handler runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PluginFile {
    pub state: PluginFileState,
    /// What the file holds, where that is not what runs and can be read.
    pub version: Option<String>,
    /// Why it does not run.
    pub reason: Option<String>,
    /// Since when that is known, in RFC 3339.
    pub since: Option<String>,
}

/// What a plugin's file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PluginFileState {
    /// The version that runs.
    Runs,
    /// Nothing: it is gone.
    Missing,
    /// A version that is on trial.
    OnTrial,
    /// A version that was refused.
    Refused,
    /// A version that could not be kept for a restart, and does not run for that.
    NotKept,
}

/// What came of a command to have a handler run what its plugin's file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Reloaded {
    /// The handler's.
    pub name: String,
    /// The hash of the plugin that ran before.
    pub before: String,
    /// The hash of the plugin that runs now: the same, where the file holds nothing new.
    pub version: String,
    /// The hash of the one that is on trial beside it.
    pub on_trial: Option<String>,
}

/// A version of a handler's plugin that is on trial beside the one that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Trial {
    /// Its hash.
    pub version: String,
    /// Calls on it that have shown something.
    pub calls: u32,
    /// Calls after which it takes over.
    pub of: u32,
    /// Those that failed, and on which the version that runs did not fail.
    pub failures: u32,
}
