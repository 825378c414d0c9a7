//! From the outboxes to the store and back: what is written, and that it is synced.
//!
//! Used under the outboxes' lock, so that what it is given is written in that order; the store's thread tells the outboxes what is
//! synced. It decides nothing.

use std::sync::Weak;

use super::Outboxes;
use super::admission::BatchId;
use crate::store::{Row, Store};

/// Where what must survive the daemon is written.
pub(super) struct Journal(Option<(Store, Weak<Outboxes>)>);

impl Journal {
    /// There is no disk.
    pub(super) fn none() -> Journal {
        Journal(None)
    }

    /// Into this store, for these outboxes.
    pub(super) fn new(store: Store, outboxes: Weak<Outboxes>) -> Journal {
        Journal(Some((store, outboxes)))
    }

    /// Has rows written for a batch, which is told as synced later. False where there is no disk.
    pub(super) fn write(&self, batch: BatchId, rows: Vec<Row>) -> bool {
        let Some((store, outboxes)) = &self.0 else { return false };
        let outboxes = Weak::clone(outboxes);
        store.submit(rows, move || {
            if let Some(outboxes) = outboxes.upgrade() {
                outboxes.synced(batch);
            }
        });
        true
    }
}
