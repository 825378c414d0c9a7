//! What a reload of the configuration has changed, or would; and what came of the last one.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a reload has changed, or would change. Objects by name, in the order of the new configuration, those that are removed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ReloadReport {
    /// Nothing was changed: this is what a reload would do.
    pub dry_run: bool,
    /// Keys of the whole daemon that have other values, such as `log.level`.
    pub settings: Vec<String>,
    pub brokers: Vec<ObjectChange>,
    pub subscriptions: Vec<ObjectChange>,
    pub handlers: Vec<ObjectChange>,
    pub schedules: Vec<ObjectChange>,
    /// What the configuration is warned of since then, a sentence each.
    pub warnings: Vec<String>,
}

/// What becomes of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ObjectChange {
    pub name: String,
    pub change: ChangeKind,
    /// The keys that were added, removed, or have other values, such as `outbox.max-age`; also where only what an interpolation
    /// stands for is another. None of an object that is added or removed.
    pub keys: Vec<String>,
    /// Of a broker that is reconnected: the keys among them that a connection cannot take over.
    pub forced_by: Vec<String>,
}

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    Added,
    Changed,
    Removed,
    /// A broker: its connection is made anew.
    Reconnected,
    /// A broker: its connection stays.
    Adjusted,
    /// A subscription: it stands at another place among those of its broker.
    Reordered,
}

impl ChangeKind {
    /// As it is told.
    pub fn word(self) -> &'static str {
        match self {
            ChangeKind::Added => "added",
            ChangeKind::Changed => "changed",
            ChangeKind::Removed => "removed",
            ChangeKind::Reconnected => "reconnected",
            ChangeKind::Adjusted => "adjusted",
            ChangeKind::Reordered => "reordered",
        }
    }
}

/// What came of the last reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LastReload {
    /// In RFC 3339.
    pub time: String,
    /// Otherwise nothing was changed.
    pub successful: bool,
    /// `command`, `SIGHUP` or `watch-config`.
    pub trigger: String,
    /// Why nothing was changed.
    pub error: Option<String>,
    /// Everything that is wrong with the configuration, a line each, where that is more than one thing.
    pub problems: Vec<String>,
}

impl LastReload {
    /// That it failed and why, in a line; none where it did not.
    pub fn failure(&self) -> Option<String> {
        let LastReload { time, trigger, error, problems, .. } = self;
        let first = problems.first().map(|problem| format!(": {problem}")).unwrap_or_default();
        let error = error.as_ref()?;
        Some(format!(
            "the last reload of the configuration failed at {time} ({trigger}) and has changed nothing: {error}{first}"
        ))
    }
}
