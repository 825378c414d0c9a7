//! Drops publishes that are older than their outbox's `max-age`: one task for all outboxes.
//!
//! It sleeps until the first could be too old, and is told when another one is sooner. Without any `max-age` it sleeps for ever.
//! What is too old, and what follows from that, the pure core knows.

use std::sync::Arc;
use std::time::Instant;

use super::Outboxes;

/// Does so until it is dropped.
pub async fn expire(outboxes: Arc<Outboxes>) {
    let sooner = Arc::clone(&outboxes.lock().sooner);
    loop {
        let alarm = outboxes.expire(Instant::now());
        let asleep = async {
            match alarm {
                Some(alarm) => tokio::time::sleep_until(alarm.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = asleep => {}
            () = sooner.notified() => {}
        }
    }
}
