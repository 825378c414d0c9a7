//! Whether the store can be written, for those who ask and those who wait.
//!
//! Told by the writer alone.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

/// Whether the store can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Good,
    /// The disk is full: removals are tried, all else waits until there is room.
    Full {
        /// Since when.
        since: SystemTime,
    },
    /// Nothing is written any more before the next start.
    Failed {
        /// Since when.
        since: SystemTime,
        /// Why, in plain words, with a remedy.
        why: Arc<str>,
    },
}

impl Health {
    /// What keeps the daemon from its whole job, if anything does, in plain words.
    pub fn obstacle(&self) -> Option<String> {
        let at =
            |time: &SystemTime| jiff::Timestamp::try_from(*time).map(|time| format!("{time:.0}")).unwrap_or_default();
        match self {
            Health::Good => None,
            Health::Full { since } => Some(format!(
                "the disk of the state directory is full since {}: what is to be kept waits, unacknowledged; free some room",
                at(since)
            )),
            Health::Failed { since, why } => {
                Some(format!("nothing is kept any more since {}, until the daemon is started again: {why}", at(since)))
            }
        }
    }
}

/// The store's health, shared.
#[derive(Debug)]
pub(super) struct HealthCell(watch::Sender<Health>);

impl HealthCell {
    pub(super) fn new() -> HealthCell {
        HealthCell(watch::Sender::new(Health::Good))
    }

    pub(super) fn get(&self) -> Health {
        self.0.borrow().clone()
    }

    pub(super) fn set(&self, health: Health) {
        self.0.send_replace(health);
    }

    /// Waits until nothing is written any more. Why.
    pub(super) async fn failed(&self) -> Arc<str> {
        let mut health = self.0.subscribe();
        let failed = health.wait_for(|health| matches!(health, Health::Failed { .. })).await;
        match failed.as_deref() {
            Ok(Health::Failed { why, .. }) => Arc::clone(why),
            // The sender lives as long as this does.
            _ => "the store is gone".into(),
        }
    }
}
