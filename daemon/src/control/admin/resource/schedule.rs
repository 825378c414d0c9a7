//! What the HTTP API says of schedules.
//!
//! Owns field names, as its parent does.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Origin;

/// One schedule: its settings and what came of its runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Schedule {
    pub name: String,
    pub origin: Origin,
    /// As it is written: `every 60s`, or `cron 0 */5 * * * * (Europe/Riga)`.
    pub timing: String,
    /// What a run does: `publish BROKER:TOPIC`, or `on-schedule HANDLER`.
    pub action: String,
    /// When it is due next, in RFC 3339; null is never.
    pub next: Option<String>,
    /// When it last ran, in RFC 3339.
    pub last_run: Option<String>,
    /// As the metric's label: `ok`, or what failed.
    pub last_result: Option<String>,
    /// Why its last run failed, in plain words.
    pub last_error: Option<String>,
    /// Since the start.
    pub runs: u64,
    /// Those among them that failed.
    pub failures: u64,
    /// Runs that were due while the one before was under way.
    pub skipped: u64,
}

/// What came of a run by command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ScheduleRun {
    pub name: String,
    /// As the metric's label: `ok`, or what failed.
    pub result: String,
    /// Why it failed, in plain words.
    pub error: Option<String>,
}

/// A schedule in [`Status`](super::Status).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ScheduleSummary {
    pub name: String,
    /// In RFC 3339; null is never.
    pub next: Option<String>,
    pub runs: u64,
    pub failures: u64,
    pub skipped: u64,
    pub last_result: Option<String>,
    pub last_error: Option<String>,
}
