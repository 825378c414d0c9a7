//! What an operator sees and changes of what handlers remember.
//!
//! Fed by `control/live`. A change takes its turn among the handler's calls: it conflicts with those that have read the key and
//! not ended, which run again, and it is on the disk after what they wrote before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::mirror::Span;
use super::{Kv, KvError, Kvs, Transaction, Value, now};
use crate::path::outbox::Outboxes;

/// What one handler remembers, in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvUsage {
    /// Its name.
    pub handler: Arc<str>,
    /// Whether it is configured.
    pub configured: bool,
    /// Keys.
    pub keys: usize,
    /// As they count for the quota.
    pub bytes: usize,
    /// What its configuration grants; none where that is nothing.
    pub quota: Option<usize>,
}

/// A key, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvItem {
    /// Itself.
    pub key: Arc<str>,
    /// Bytes of its value.
    pub bytes: usize,
    /// From when on it is absent, in milliseconds since the Unix epoch.
    pub expires: Option<u64>,
}

/// Why nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvRefusal {
    /// Nothing is known of a handler of this name.
    #[error("no handler \"{0}\" is configured, and none of that name remembers anything")]
    UnknownHandler(String),
    /// Nobody would read it.
    #[error("handler \"{0}\" must not remember anything; grant it allow.kv in [handlers.{0}]")]
    NotGranted(Arc<str>),
    /// See [`KvError::Quota`].
    #[error(
        "the value has no room: handler \"{handler}\" remembers {bytes} bytes of allow.kv = {quota}; delete keys, or raise allow.kv"
    )]
    Quota {
        /// Its name.
        handler: Arc<str>,
        /// What all keys count for.
        bytes: usize,
        /// What they may count for.
        quota: usize,
    },
    /// See [`KvError::TooLarge`].
    #[error(
        "the key is longer than {longest} bytes, or the entry is larger than allow.kv of handler \"{handler}\"; use a shorter one"
    )]
    TooLarge {
        /// Its name.
        handler: Arc<str>,
        /// Bytes of the longest key.
        longest: usize,
    },
    /// What is written now would wait for long, or for ever.
    #[error("it cannot be kept: {0}")]
    Unavailable(String),
    /// The daemon stops.
    #[error("the daemon stops, and may not have kept it")]
    Stopping,
}

impl Kvs {
    /// What each handler remembers, in order of the names; those that are configured with a grant, and those that remember something.
    pub fn handlers(&self) -> Vec<KvUsage> {
        let usage = |kv: Arc<Kv>| {
            let memory = kv.lock();
            let now = now();
            KvUsage {
                handler: Arc::clone(&kv.handler),
                configured: memory.quota.is_some(),
                keys: memory.mirror.live_keys(now),
                bytes: memory.mirror.live_bytes(now),
                quota: memory.quota.filter(|quota| *quota > 0),
            }
        };
        self.all().into_iter().map(usage).filter(|usage| usage.quota.is_some() || usage.keys > 0).collect()
    }

    /// The keys that start with `prefix` and come after `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// Nothing is known of the handler.
    pub fn list(
        &self,
        handler: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<KvItem>, KvRefusal> {
        let kv = self.known(handler)?;
        let span = Span::new(prefix, after);
        Ok(kv.look(|mirror, now| {
            let items = mirror.span(&span, now).map(|(key, entry)| KvItem {
                key: Arc::clone(key),
                bytes: entry.value.bytes.len(),
                expires: entry.value.expires,
            });
            items.take(limit).collect()
        }))
    }

    /// A key's value, if there is one.
    ///
    /// # Errors
    /// Nothing is known of the handler.
    pub fn get(&self, handler: &str, key: &str) -> Result<Option<Value>, KvRefusal> {
        let kv = self.known(handler)?;
        Ok(kv.look(|mirror, now| mirror.get(key, now).map(|entry| entry.value.clone())))
    }

    /// Sets a key of a handler that may remember something. Returns once it is on the disk; a caller that goes leaves it to the daemon.
    ///
    /// # Errors
    /// See [`KvRefusal`].
    pub async fn set(
        &self,
        outboxes: &Outboxes,
        handler: &str,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), KvRefusal> {
        let kv = self.known(handler)?;
        let quota = kv.lock().quota.filter(|quota| *quota > 0);
        let quota = quota.ok_or_else(|| KvRefusal::NotGranted(Arc::clone(&kv.handler)))?;
        kv.change(outboxes, quota, |transaction, kv| {
            kv.look(|mirror, now| {
                let bytes = mirror.live_bytes(now);
                let set = transaction.set(mirror, quota, key, Value::new(value, ttl, now), now);
                set.map_err(|error| kv.refusal(error, bytes, quota))
            })
        })
        .await
    }

    /// Deletes a key, also of a handler that is not configured any more. Returns once that is on the disk; a caller that goes leaves it
    /// to the daemon. That it is not there is no error.
    ///
    /// # Errors
    /// See [`KvRefusal`].
    pub async fn delete(&self, outboxes: &Outboxes, handler: &str, key: &str) -> Result<(), KvRefusal> {
        let kv = self.known(handler)?;
        kv.change(outboxes, 0, |transaction, kv| {
            let deleted = kv.look(|mirror, now| transaction.delete(mirror, key, now));
            deleted.map_err(|error| kv.refusal(error, 0, 0))
        })
        .await
    }

    /// What a handler remembers, where it is configured or remembers something.
    fn known(&self, handler: &str) -> Result<Arc<Kv>, KvRefusal> {
        let known = self.all().into_iter().find(|kv| *kv.handler == *handler);
        let known = known.filter(|kv| {
            let memory = kv.lock();
            memory.quota.is_some() || memory.mirror.len() > 0
        });
        known.ok_or_else(|| KvRefusal::UnknownHandler(handler.to_owned()))
    }
}

impl Kv {
    async fn change(
        &self,
        outboxes: &Outboxes,
        quota: usize,
        write: impl FnOnce(&mut Transaction, &Kv) -> Result<(), KvRefusal>,
    ) -> Result<(), KvRefusal> {
        if let Some(obstacle) = self.store.as_ref().and_then(|store| store.health().obstacle()) {
            return Err(KvRefusal::Unavailable(obstacle));
        }
        // Nobody commits between the look and the commit, so that it never conflicts; and no call that runs alone is disturbed.
        let alone = self.alone().await;
        let mut transaction = Transaction::default();
        write(&mut transaction, self)?;
        let durable = {
            let ready = self.ready(transaction, quota).ok_or(KvRefusal::Stopping)?;
            ready.commit().map(|commit| outboxes.commit(commit, || ready.apply()))
        };
        drop(alone);
        let Some(durable) = durable else { return Ok(()) };
        if durable.synced().await { Ok(()) } else { Err(KvRefusal::Stopping) }
    }

    fn refusal(&self, error: KvError, bytes: usize, quota: usize) -> KvRefusal {
        let handler = Arc::clone(&self.handler);
        match error {
            KvError::Quota => KvRefusal::Quota { handler, bytes, quota },
            KvError::TooLarge => KvRefusal::TooLarge { handler, longest: super::MAX_KEY_BYTES },
            KvError::TooManyKeys => unreachable!("one key is not too many"),
        }
    }
}
