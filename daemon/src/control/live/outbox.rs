//! Outboxes as an operator sees and purges them.

use super::{Live, Refusal, RefusalKind};
use crate::control::admin::resource::{Outbox, OutboxView, Purged};

pub(super) fn not_yet() -> Refusal {
    Refusal::new(RefusalKind::Storage, "this daemon keeps nothing of this kind", "")
}

impl Live {
    /// All outboxes.
    pub fn outboxes(&self) -> Vec<OutboxView> {
        let running = self.running();
        let one = |broker: &super::RunningBroker| {
            let outbox = self.broker_outbox(&broker.config);
            OutboxView {
                broker: broker.config.name.to_string(),
                configured: true,
                store: Some(outbox.store),
                messages: outbox.messages,
                bytes: outbox.bytes,
                on_disk: Outbox { messages: 0, bytes: 0 },
                draining: false,
                waiting: outbox.waiting,
                oldest_age: None,
                max_messages: Some(outbox.max_messages),
                max_bytes: Some(outbox.max_bytes),
                max_age: outbox.max_age,
                when_full: Some(outbox.when_full),
            }
        };
        running.brokers.iter().map(one).collect()
    }

    /// Drops what waits in a broker's outbox.
    ///
    /// # Errors
    /// There is no such broker, and nothing waits for one of this name.
    pub async fn purge_outbox(&self, _broker: &str) -> Result<Purged, Refusal> {
        Err(not_yet())
    }
}
