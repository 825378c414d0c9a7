//! From the outboxes to the store and back: what is written, and that it is synced.
//!
//! Used under the outboxes' lock, so that what it is given is written in that order; the store's thread tells the outboxes what is
//! synced. It decides nothing.

use std::sync::{Arc, Weak};

use super::Outboxes;
use super::admission::BatchId;
use super::queue::EntryId;
use crate::message::BrokerId;
use crate::path::kept::Kept;
use crate::store::{Row, Store};

/// Where what must survive the daemon is written.
pub(super) struct Journal(Option<Disk>);

struct Disk {
    store: Store,
    kept: Kept,
    outboxes: Weak<Outboxes>,
}

impl Journal {
    /// There is no disk.
    pub(super) fn none() -> Journal {
        Journal(None)
    }

    /// Into this store, for these outboxes; what a broker never takes becomes one of these dead letters.
    pub(super) fn new(store: Store, kept: Kept, outboxes: Weak<Outboxes>) -> Journal {
        Journal(Some(Disk { store, kept, outboxes }))
    }

    /// The store, where there is a disk.
    pub(super) fn store(&self) -> Option<&Store> {
        self.0.as_ref().map(|disk| &disk.store)
    }

    /// The dead letters, where there is a disk.
    pub(super) fn kept(&self) -> Option<&Kept> {
        self.0.as_ref().map(|disk| &disk.kept)
    }

    /// Has rows written that nobody waits for.
    pub(super) fn bury(&self, rows: Vec<Row>) {
        self.submit(rows, |_| {});
    }

    /// Has rows written for a batch, which is told as synced later. False where there is no disk.
    pub(super) fn write(&self, batch: BatchId, rows: Vec<Row>) -> bool {
        self.submit(rows, move |outboxes| outboxes.synced(batch))
    }

    /// Has entries of a broker's outbox written that are in memory, with the handlers that published them.
    pub(super) fn bring_in(&self, broker: BrokerId, entries: Vec<(EntryId, Option<Arc<str>>)>, rows: Vec<Row>) {
        self.submit(rows, move |outboxes| outboxes.stored(broker, entries));
    }

    fn submit(&self, rows: Vec<Row>, done: impl FnOnce(&Outboxes) + Send + 'static) -> bool {
        let Some(Disk { store, outboxes, .. }) = &self.0 else { return false };
        let outboxes = Weak::clone(outboxes);
        store.submit(rows, move || {
            if let Some(outboxes) = outboxes.upgrade() {
                done(&outboxes);
            }
        });
        true
    }
}
