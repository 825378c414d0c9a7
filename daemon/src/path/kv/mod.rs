//! What handlers remember: keys with values, for each handler its own, in memory and on disk.
//!
//! Owns: each handler's mirror behind a lock that is held for a few memory operations, and the turnstile before it. Fed by the
//! store at the start, then by the transactions of calls, which take effect here the moment that their effects are accepted; what they
//! write goes to the disk with those effects, through the outboxes, and in their order. Lock order: a mirror's, then the outboxes'; never
//! two mirrors'. What expires is absent at once, and is forgotten by [`sweep()`]. It decides nothing about calls that conflict:
//! `path/handler` has them run again.

mod mirror;
mod operate;
mod rows;
mod sweep;
#[cfg(test)]
mod tests;
mod transaction;
mod turnstile;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use self::mirror::weight;
pub use self::mirror::{Mirror, Value};
pub use self::operate::{KvItem, KvRefusal, KvUsage};
pub use self::sweep::sweep;
pub use self::transaction::{KvError, MAX_KEY_BYTES, MAX_TOUCHED_KEYS, Transaction};
use self::turnstile::Turnstile;
pub use self::turnstile::{Alone, Pass};
use crate::control::config::model::Handler;
use crate::path::outbox::{Commit, Touch};
use crate::store::{Place, Row, Store, StoreError, Table};
use crate::telemetry::metrics::{KvMeters, Metrics};

/// Rows that are read at once at the start, and about their bytes.
const LOADED_AT_ONCE: (usize, usize) = (4096, 4 << 20);

/// What all handlers remember, also of handlers that are not configured (any more).
pub struct Kvs {
    store: Store,
    metrics: Arc<Metrics>,
    handlers: Mutex<BTreeMap<Arc<str>, Arc<Kv>>>,
}

/// What one handler remembers. Shared by its instances, and by the one that takes its place.
pub struct Kv {
    handler: Arc<str>,
    memory: Mutex<Memory>,
    turnstile: Turnstile,
    /// None where nothing is kept.
    store: Option<Store>,
}

/// What stands behind the lock.
#[derive(Default)]
struct Memory {
    mirror: Mirror,
    /// Bytes that the running configuration grants; none where the handler is not configured. What a call may use is told by
    /// the call itself.
    quota: Option<usize>,
    /// None where there is nothing to tell.
    meters: Option<KvMeters>,
}

impl Kvs {
    /// What the store holds. Blocks on the disk.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(store: Store, metrics: Arc<Metrics>) -> Result<Kvs, StoreError> {
        let kvs = Kvs { store, metrics, handlers: Mutex::default() };
        for (handler, _) in kvs.store.totals(Table::Kv)? {
            kvs.of(&handler).load(&kvs.store)?;
        }
        Ok(kvs)
    }

    /// What this handler remembers.
    pub fn of(&self, handler: &Arc<str>) -> Arc<Kv> {
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let kv = handlers
            .entry(Arc::clone(handler))
            .or_insert_with(|| Arc::new(Kv { store: Some(self.store.clone()), ..Kv::detached(Arc::clone(handler)) }));
        Arc::clone(kv)
    }

    /// These handlers are configured from now on. What others remember stays.
    pub fn configure(&self, configured: &[Arc<Handler>]) {
        let quotas: HashMap<&Arc<str>, usize> =
            configured.iter().map(|handler| (&handler.name, handler.allow.kv.unwrap_or(0))).collect();
        for kv in self.all() {
            let mut memory = kv.lock();
            memory.quota = quotas.get(&kv.handler).copied();
            memory.meters = (memory.quota.is_some_and(|quota| quota > 0) || memory.mirror.len() > 0)
                .then(|| self.metrics.kv(&kv.handler));
            if memory.meters.is_none() {
                self.metrics.forget_kv(&kv.handler);
            }
            memory.tell();
        }
    }

    fn all(&self) -> Vec<Arc<Kv>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Memory {
    fn tell(&self) {
        if let Some(meters) = &self.meters {
            meters.keys.set(self.mirror.len() as i64);
            meters.bytes.set(self.mirror.bytes() as i64);
        }
    }
}

impl Kv {
    /// Of a handler that remembers nothing, and of which nothing is kept.
    pub fn detached(handler: Arc<str>) -> Kv {
        Kv { handler, memory: Mutex::default(), turnstile: Turnstile::default(), store: None }
    }

    /// Looks at what is there, now.
    pub fn look<T>(&self, look: impl FnOnce(&Mirror, u64) -> T) -> T {
        look(&self.lock().mirror, now())
    }

    /// A call that has run may commit with this in hand; waits while another runs alone, at most as long as that may take.
    /// Cancellation safe.
    pub async fn pass(&self) -> Pass<'_> {
        self.turnstile.pass().await
    }

    /// While this is in hand, no other call commits. Cancellation safe; who comes first is first.
    pub async fn alone(&self) -> Alone<'_> {
        self.turnstile.alone().await
    }

    /// A call's transaction may take effect if it conflicts with nothing: then nothing changes until what is returned is gone, and
    /// that must be soon. `quota` is what the call's handler is granted.
    pub fn ready(&self, transaction: Transaction, quota: usize) -> Option<Ready<'_>> {
        let memory = self.lock();
        let conflicts = transaction.conflicts(&memory.mirror, quota, now());
        (!conflicts).then(|| Ready { kv: self, memory, transaction })
    }

    /// Whether what a call saw is not so any more.
    pub fn misread(&self, transaction: &Transaction) -> bool {
        transaction.misread(&self.lock().mirror, now())
    }

    /// Why nothing more is kept before the next start, if that is so. A full disk is none: what is written waits for room.
    pub fn failed(&self) -> Option<String> {
        self.store.as_ref()?.is_backed_up()
    }

    fn load(&self, store: &Store) -> Result<(), StoreError> {
        let (mut memory, now) = (self.lock(), now());
        let (mut from, mut expired) = (Vec::new(), Vec::new());
        loop {
            let found = store.read(Table::Kv, &self.handler, &from, LOADED_AT_ONCE)?;
            let Some(last) = found.last() else { break };
            from = [&last.key[..], &[0]].concat();
            for row in found {
                let Ok(key) = std::str::from_utf8(&row.key).map(Arc::<str>::from) else {
                    tracing::error!(handler = %self.handler, key = %row.key.escape_ascii(),
                        "a key of the handler's state is no text; it is left on the disk and not used");
                    continue;
                };
                match rows::decode(&row.body) {
                    Ok(value) if value.is_expired(now) => expired.push(self.row(&key, None)),
                    Ok(value) => memory.mirror.write(&key, Some(value)),
                    Err(error) => tracing::error!(handler = %self.handler, %key, %error,
                        "a value of the handler's state cannot be read; it is left on the disk and not used"),
                }
            }
        }
        if !expired.is_empty() {
            store.submit_removals(expired, || ());
        }
        Ok(())
    }

    fn row(&self, key: &Arc<str>, value: Option<&Value>) -> Row {
        let at = Place { table: Table::Kv, group: Arc::clone(&self.handler), key: key.as_bytes().into() };
        let Some(value) = value else { return Row::Delete { at } };
        let weight = u32::try_from(weight(key, value.bytes.len())).unwrap_or(u32::MAX);
        Row::Put { at, weight, body: rows::encode(value) }
    }

    fn touch(&self, key: &str) -> Touch {
        Touch::of((Table::Kv, &*self.handler, Some(key)))
    }

    /// That which keys are gone: who lists keys cannot name those that it does not see.
    fn removals(&self) -> Touch {
        Touch::of((Table::Kv, &*self.handler, None::<&str>))
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // A panic under this lock leaves nothing half done that a later holder could see: each write is one call of the core.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction that conflicts with nothing, for as long as this holds the mirror's lock.
#[must_use]
pub struct Ready<'a> {
    kv: &'a Kv,
    memory: MutexGuard<'a, Memory>,
    transaction: Transaction,
}

impl Ready<'_> {
    /// What is to be written, and what that rests on; none where the call looked at nothing.
    pub fn commit(&self) -> Option<Box<Commit>> {
        let Ready { kv, memory, transaction } = self;
        if transaction.is_empty() {
            return None;
        }
        let mut commit = Commit::default();
        let mut removes = false;
        for (key, value) in transaction.writes() {
            commit.writes.push(kv.touch(key));
            // What is not there needs no removal, but waits for the one that was.
            if value.is_some() || memory.mirror.has(key) {
                removes |= value.is_none();
                commit.rows.push(kv.row(key, value));
            }
        }
        commit.reads = transaction.reads().map(|key| kv.touch(key)).collect();
        if removes {
            commit.writes.push(kv.removals());
        }
        if transaction.lists() {
            commit.reads.push(kv.removals());
        }
        Some(Box::new(commit))
    }

    /// The writes take effect, before they are on the disk.
    pub fn apply(mut self) {
        self.transaction.apply(&mut self.memory.mirror);
        self.memory.tell();
    }
}

/// Milliseconds since the Unix epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
