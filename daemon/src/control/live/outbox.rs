//! Outboxes as an operator sees and purges them.

use std::time::SystemTime;

use super::{Live, Refusal, RefusalKind};
use crate::control::admin::resource::{BrokerOutbox, Outbox, OutboxView, Purged};
use crate::path::outbox::{self, PurgeError};

impl Live {
    /// All outboxes: those of the configured brokers in their order, then those of brokers that were removed.
    pub fn outboxes(&self) -> Vec<OutboxView> {
        let (running, mut kept, now) = (self.running(), self.outboxes.list(), SystemTime::now());
        let configured = running.brokers.iter().filter_map(|broker| {
            let place = kept.iter().position(|outbox| outbox.broker == Some(broker.config.id))?;
            Some(view(&kept.remove(place), Some(self.broker_outbox(&broker.config)), now))
        });
        let mut views: Vec<OutboxView> = configured.collect();
        // One that is being added or removed at this moment is in neither.
        views.extend(kept.iter().filter(|outbox| outbox.broker.is_none()).map(|outbox| view(outbox, None, now)));
        views
    }

    /// Drops what waits in a broker's outbox and is not on its way.
    ///
    /// # Errors
    /// There is no such broker, and nothing waits for one of this name; or not all of it is deleted.
    pub async fn purge_outbox(&self, broker: &str) -> Result<Purged, Refusal> {
        let known = self.running().brokers.iter().any(|known| *known.config.name == *broker);
        let orphan = || self.outboxes.list().iter().any(|outbox| *outbox.name == *broker);
        if !known && !orphan() {
            let text = format!("there is no broker {broker}, and nothing waits for one of this name");
            return Err(Refusal::new(RefusalKind::NotFound, text, "`tidegate outbox list` shows what waits"));
        }
        match self.outboxes.purge(broker).await {
            Ok(purged) => {
                let purged = purged.unwrap_or_default();
                let (messages, bytes) = (purged.messages as u64, purged.bytes as u64);
                Ok(Purged { broker: broker.to_owned(), messages, bytes })
            }
            Err(error @ PurgeError::Stopped(_)) => {
                let remedy = "the rest is there again with the next daemon";
                Err(Refusal::new(RefusalKind::Stopping, error.to_string(), remedy))
            }
            Err(error) => Err(Refusal::new(RefusalKind::Storage, error.to_string(), "the log tells more")),
        }
    }
}

/// `limits` are those of a configured broker.
fn view(outbox: &outbox::OutboxView, limits: Option<BrokerOutbox>, now: SystemTime) -> OutboxView {
    let age = |oldest| now.duration_since(oldest).unwrap_or_default().as_secs_f64();
    let orphan = OutboxView {
        broker: outbox.name.to_string(),
        configured: false,
        store: None,
        messages: outbox.all.messages as u64,
        bytes: outbox.all.bytes as u64,
        on_disk: Outbox { messages: outbox.on_disk.messages as u64, bytes: outbox.on_disk.bytes as u64 },
        draining: outbox.draining,
        waiting: 0,
        oldest_age: outbox.oldest.map(age),
        max_messages: None,
        max_bytes: None,
        max_age: None,
        when_full: None,
    };
    let Some(limits) = limits else { return orphan };
    OutboxView {
        configured: true,
        store: Some(limits.store),
        waiting: limits.waiting,
        max_messages: Some(limits.max_messages),
        max_bytes: Some(limits.max_bytes),
        max_age: limits.max_age,
        when_full: Some(limits.when_full),
        ..orphan
    }
}
