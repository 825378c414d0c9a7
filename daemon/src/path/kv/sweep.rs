//! Forgets keys that have expired. Whoever reads does not see them any more; this gives their memory and their rows back.

use std::sync::Arc;
use std::time::Duration;

use super::{Kv, Kvs, now};
use crate::store::Store;

/// How long an expired key stays in memory and on disk, about.
const EVERY: Duration = Duration::from_secs(1);

/// Keys that are forgotten at a time, so that nobody waits for the lock for long.
const AT_ONCE: usize = 256;

/// Forgets what has expired, for ever.
pub async fn sweep(kvs: Arc<Kvs>) {
    loop {
        tokio::time::sleep(EVERY).await;
        for kv in kvs.all() {
            while kv.forget_expired(&kvs.store) == AT_ONCE {
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Kv {
    /// How many keys it has forgotten.
    pub(super) fn forget_expired(&self, store: &Store) -> usize {
        let mut memory = self.lock();
        let expired = memory.mirror.expire(now(), AT_ONCE);
        if expired.is_empty() {
            return 0;
        }
        // Under the lock, and not `submit_later`: a key that is set again is written after. What was set before and is on its way comes
        // after too, and stays on the disk, as expired, until the next start.
        store.submit_removals(expired.iter().map(|key| self.row(key, None)).collect(), || ());
        memory.tell();
        expired.len()
    }
}
