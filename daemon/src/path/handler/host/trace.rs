//! What one call publishes, told to those who watch its message (`tidegate trace`).
//!
//! Fed by the host functions; exists only where somebody watches.

use std::sync::Arc;

use super::grants::Host;
use super::publish::{Held, MAX_NAME_BYTES, PublishError};
use crate::printable::printable;
use crate::telemetry::trace::Trace;

/// Denials of one call that are told to who watches its message.
const MAX_TOLD_DENIALS: u64 = 16;

/// Tells what one call publishes.
pub(super) struct CallTrace {
    trace: Arc<Trace>,
    /// Publishes that were denied.
    denied: u64,
}

impl CallTrace {
    pub(super) fn new(trace: Arc<Trace>) -> CallTrace {
        CallTrace { trace, denied: 0 }
    }

    /// The newest publish was held back.
    pub(super) fn held_back(&self, host: &Host, held: &Held) {
        if let Some(publish) = held.last() {
            self.trace.held_back(&host.name, publish);
        }
    }

    /// A guest may try without end: past the first few they are only counted.
    pub(super) fn denied(&mut self, host: &Host, broker: Option<&str>, topic: String, error: &PublishError) {
        self.denied += 1;
        if self.denied <= MAX_TOLD_DENIALS {
            let broker = broker.map(|broker| printable(broker, MAX_NAME_BYTES).into_owned());
            self.trace.denied(&host.name, broker, topic, host.reason(error));
        }
    }

    pub(super) fn end(self, host: &Host) {
        if self.denied > MAX_TOLD_DENIALS {
            self.trace.denied_more(&host.name, self.denied - MAX_TOLD_DENIALS);
        }
    }
}
