//! Brings the next of what is on the disk alone into memory: one task for all outboxes.
//!
//! Told by the outboxes when one of them runs low; reads outside their lock, on a thread that may block. It decides neither how
//! much nor when: the pure core does.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::Outboxes;
use super::queue::{EntryId, Load, Stored};
use super::rows::{self, Now};
use crate::store::{Store, StoreError, Table, number};

/// After which time reading is tried again that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Rows and bytes that are read at once where numbers alone are wanted.
const AT_ONCE: (usize, usize) = (1024, 4 << 20);

/// Does so until it is dropped.
pub async fn load(outboxes: Arc<Outboxes>) {
    load_by(outboxes, read).await;
}

/// As [`load`], by this way to read.
pub(super) async fn load_by(
    outboxes: Arc<Outboxes>,
    read: impl Fn(&Store, &Arc<str>, Load) -> Result<Read, StoreError> + Copy + Send + 'static,
) {
    let low = Arc::clone(&outboxes.lock().low);
    let Some(store) = outboxes.lock().journal.store().cloned() else { return std::future::pending().await };
    // What could not be read counts as being read until it is tried again, so that it holds up no other outbox.
    let mut failed = JoinSet::new();
    loop {
        while let Some(Ok((broker, load))) = failed.try_join_next() {
            outboxes.not_loaded(broker, load);
        }
        let Some((broker, name, load)) = outboxes.next_load() else {
            tokio::select! {
                () = low.notified() => {}
                Some(Ok((broker, load))) = failed.join_next() => outboxes.not_loaded(broker, load),
            }
            continue;
        };
        let (store, group) = (store.clone(), Arc::clone(&name));
        match readable(&name, tokio::task::spawn_blocking(move || read(&store, &group, load)).await) {
            Some(read) => outboxes.loaded(broker, load, read),
            None => drop(failed.spawn(later((broker, load)))),
        }
    }
}

/// What it is given, once it may be tried again.
async fn later<T>(failed: T) -> T {
    tokio::time::sleep(AGAIN).await;
    failed
}

/// What was read, unless that failed, which is said.
fn readable(broker: &str, read: Result<Result<Read, StoreError>, JoinError>) -> Option<Read> {
    match read {
        Ok(Ok(read)) => return Some(read),
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(broker, error, "an outbox on disk cannot be read, it is tried again");
        }
        Err(panic) => tracing::error!(broker, %panic, "reading an outbox on disk panicked, it is tried again"),
    }
    None
}

/// What was read of an outbox' tail, and up to below which number.
pub(super) struct Read {
    pub(super) found: Vec<Stored>,
    pub(super) up_to: u64,
}

/// Reads part of a tail. Blocks on the disk.
pub(super) fn read(store: &Store, broker: &Arc<str>, load: Load) -> Result<Read, StoreError> {
    let most = (load.most.messages, load.most.bytes);
    let rows = store.read(Table::Outbox, broker, &load.from.to_be_bytes(), most)?;
    let last = rows.last().and_then(|found| number(&found.key));
    let weighs: usize = rows.iter().map(|found| found.body.len()).sum();
    let is_all = rows.len() < most.0 && weighs < most.1;
    let up_to = if is_all { load.end } else { last.map_or(load.end, |last| last + 1) };
    let now = Now::read();
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        match rows::read(row, now) {
            Ok(stored) => found.push(stored),
            Err(error) => {
                let number = number(&row.key);
                tracing::error!(broker = %broker, number, %error, "a publish on the disk is left there: it cannot be read");
            }
        }
    }
    Ok(Read { found, up_to })
}

/// The numbers of the first of an outbox' rows from one to below another; none where there are none. Blocks on the disk.
pub(super) fn numbers(store: &Store, broker: &str, from: u64, end: u64) -> Result<Vec<EntryId>, StoreError> {
    let rows = store.read(Table::Outbox, broker, &from.to_be_bytes(), AT_ONCE)?;
    Ok(rows.iter().filter_map(|row| number(&row.key)).filter(|number| *number < end).map(EntryId).collect())
}
