//! What is told of the configuration: when it was read, and whether the last reload changed what it should.
//!
//! Owns these families and the handles to them. Written by `control/live/reload.rs`.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::IntGauge;

use super::families::Families;

/// Handles for reloads of the configuration.
#[derive(Clone)]
pub struct ConfigMeters {
    successful: IntGauge,
    timestamp: IntGauge,
}

impl ConfigMeters {
    pub(super) fn new(families: &Families) -> prometheus::Result<ConfigMeters> {
        Ok(ConfigMeters {
            successful: families.single(
                "config_last_reload_successful",
                "1 if the last reload of the configuration changed what it should, or there was none; 0 if it failed.",
            )?,
            timestamp: families.single(
                "config_last_reload_success_timestamp_seconds",
                "When the configuration that runs was read, in Unix time.",
            )?,
        })
    }

    /// The configuration that runs was read at this time.
    pub fn reloaded(&self, time: SystemTime) {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.timestamp.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        self.successful.set(1);
    }

    /// It was to be read again, and nothing has changed.
    pub fn failed(&self) {
        self.successful.set(0);
    }
}
