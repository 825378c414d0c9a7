//! What follows from the end of what a run published.
//!
//! Held by the outboxes until the broker has it, or never will: a stop waits for that as for a message. The run itself has ended
//! before, as soon as it was in the outbox.

use std::sync::{Arc, Weak};

use super::Schedules;
use crate::path::receipt::Busy;

/// Ends with the last publish of a run.
pub struct Aftermath {
    pub(super) schedules: Weak<Schedules>,
    /// The schedule.
    pub(super) key: Arc<str>,
    /// A stop waits for what is published.
    pub(super) _busy: Busy,
}

impl Aftermath {
    /// All has ended; `lost` says why its broker does not have something of it, as a clause.
    pub fn end(self, lost: Option<String>) {
        if let (Some(why), Some(schedules)) = (lost, self.schedules.upgrade()) {
            schedules.lost(&self.key, &format!("what it published is lost: {why}"));
        }
    }
}
