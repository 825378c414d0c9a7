//! Outboxes as an operator sees and purges them.
//!
//! Translates between the API and `path/outbox`, which decides.

use std::time::SystemTime;

use super::edit::unknown_of;
use super::{Live, Refusal, RefusalKind};
use crate::causes::with_causes;
use crate::control::admin::resource::{Outbox, OutboxView, Purged};
use crate::path::outbox::{self, PurgeError};

impl Live {
    /// All outboxes: those of the configured brokers in their order, then those of brokers that were removed.
    pub fn outboxes(&self) -> Vec<OutboxView> {
        let running = self.running();
        let all = self.outboxes.list();
        let configured = running.brokers.iter().filter_map(|broker| {
            let view = all.iter().find(|view| view.broker == Some(broker.config.id))?;
            let outbox = self.broker_outbox(&broker.config);
            Some(OutboxView {
                configured: true,
                store: Some(outbox.store),
                waiting: outbox.waiting,
                max_messages: Some(outbox.max_messages),
                max_bytes: Some(outbox.max_bytes),
                max_age: outbox.max_age,
                when_full: Some(outbox.when_full),
                ..shown(view)
            })
        });
        let orphans = all.iter().filter(|view| view.broker.is_none()).map(shown);
        configured.chain(orphans).collect()
    }

    /// Drops what waits in a broker's outbox and is not on its way.
    ///
    /// # Errors
    /// There is no such broker, and nothing waits for one of this name; or the disk may still have some of it.
    pub async fn purge_outbox(&self, broker: &str) -> Result<Purged, Refusal> {
        let configured = self.running().broker(broker).is_ok();
        let purged = self.outboxes.purge(broker).await.map_err(|error| not_purged(&error))?;
        match purged {
            Some(amount) if configured || amount.messages > 0 => {
                let (messages, bytes) = (amount.messages as u64, amount.bytes as u64);
                if messages > 0 {
                    tracing::warn!(broker, messages, bytes, "what waited for a broker is dropped by command");
                }
                Ok(Purged { broker: broker.to_owned(), messages, bytes })
            }
            Some(_) | None => {
                let known = self.outboxes();
                Err(unknown_of("broker", broker, known.iter().map(|one| one.broker.as_str())))
            }
        }
    }
}

/// What is known of an outbox without its broker's configuration.
fn shown(view: &outbox::OutboxView) -> OutboxView {
    let age = view.oldest.map(|since| SystemTime::now().duration_since(since).unwrap_or_default());
    OutboxView {
        broker: view.name.to_string(),
        configured: false,
        store: None,
        messages: view.all.messages as u64,
        bytes: view.all.bytes as u64,
        on_disk: on_disk(view),
        draining: view.draining,
        waiting: 0,
        oldest_age: age.map(|age| age.as_secs_f64()),
        max_messages: None,
        max_bytes: None,
        max_age: None,
        when_full: None,
    }
}

/// What of an outbox is on the disk.
fn on_disk(view: &outbox::OutboxView) -> Outbox {
    Outbox { messages: view.on_disk.messages as u64, bytes: view.on_disk.bytes as u64 }
}

fn not_purged(error: &PurgeError) -> Refusal {
    let (kind, remedy) = match error {
        PurgeError::Stopped(_) => (RefusalKind::Stopping, "the rest is there again with the next daemon"),
        PurgeError::Store(_) | PurgeError::Panicked(_) => (RefusalKind::Storage, "see the daemon's log"),
    };
    Refusal::new(kind, with_causes(error), remedy)
}
