//! The one file in which everything stands that must survive the daemon: `state.redb` in the state directory.
//!
//! Owns: the file, and the thread that writes it. What is submitted is written in the order of coming, as much at once as waits
//! (group commit), and is told as done once it is synced. Rows belong to whoever wrote them: outboxes, handlers' states, kept
//! messages. It decides nothing about them, and knows no MQTT.
//!
//! What the disk may do to it: `writer.rs` says what becomes of a full disk and of one that fails, `opening.rs` of a damaged file,
//! `lock.rs` of a second daemon.

mod disk;
mod file;
mod frozen;
mod health;
mod lock;
mod opening;
mod queue;
mod row;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use self::disk::FaultKind;
use self::file::File;
pub use self::file::StoreError;
pub use self::health::Health;
use self::health::HealthCell;
pub use self::lock::{LockError, StateLock};
use self::queue::{Queue, Submission};
pub use self::row::{Found, Place, Row, Table, Total, number};
use self::writer::Writer;
use crate::telemetry::metrics::StoreMeters;

/// The store. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Store {
    file: Arc<File>,
    queue: Arc<Queue>,
    health: Arc<HealthCell>,
}

/// Why rows were not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    /// The daemon stops.
    #[error("the daemon stops before it is written to the disk; try again once it runs again")]
    Stopping,
    /// There is no room.
    #[error("the disk of the state directory is full; free some room, then try again")]
    Full,
    /// Nothing is written any more. It may be there after the next start.
    #[error("{0}")]
    Failed(Arc<str>),
}

/// Writes until it is closed.
pub struct StoreWriter {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store of a state directory, which it makes where it is missing, and begins to write. A file that is damaged is
    /// set aside, with an error in the log, and an empty one begun. Blocks on the disk. The caller has the directory's lock.
    ///
    /// # Errors
    /// The file cannot be made, opened or read.
    pub fn start(state_dir: &Path, meters: Arc<StoreMeters>) -> Result<(Store, StoreWriter), StoreError> {
        let (folder, opened, aside) = opening::start(state_dir)?;
        if aside.is_some() {
            meters.set_aside();
        }
        Store::on(File::new(Box::new(folder), opened), meters)
    }

    /// As [`Store::start`], for the tests of other modules: what it counts nobody sees.
    ///
    /// # Errors
    /// The file cannot be made, opened or read.
    #[cfg(test)]
    pub fn open(state_dir: &Path) -> Result<(Store, StoreWriter), StoreError> {
        Store::start(state_dir, tests::meters())
    }

    /// A store that nothing survives, for the tests of other modules: the same code, without a disk.
    ///
    /// # Panics
    /// The thread that writes does not start.
    #[cfg(test)]
    pub fn in_memory() -> (Store, StoreWriter) {
        tests::on(&tests::Memory::default())
    }

    fn on(file: File, meters: Arc<StoreMeters>) -> Result<(Store, StoreWriter), StoreError> {
        let (file, queue) = (Arc::new(file), Arc::new(Queue::new(Arc::clone(&meters))));
        let health = Arc::new(HealthCell::new());
        let store = Store { file, queue, health };
        let writer = Writer {
            file: Arc::clone(&store.file),
            queue: Arc::clone(&store.queue),
            health: Arc::clone(&store.health),
            meters,
        };
        let thread = writer.start().map_err(StoreError::Thread)?;
        let writer = StoreWriter { queue: Arc::clone(&store.queue), thread: Some(thread) };
        Ok((store, writer))
    }

    /// Whether it can be written. Cheap.
    pub fn health(&self) -> Health {
        self.health.get()
    }

    /// Has rows written together, after all that was submitted before. `done` runs on the writer's thread once they are synced;
    /// it is dropped without a run where the daemon ends before. On a full disk they wait until there is room.
    pub fn submit(&self, rows: Vec<Row>, done: impl FnOnce() + Send + 'static) {
        self.queue.submit(Submission { rows, done: Box::new(done), passes: false });
    }

    /// The same, for removals that rest on nothing which was submitted before: on a full disk they go before what they do not touch.
    pub fn submit_removals(&self, rows: Vec<Row>, done: impl FnOnce() + Send + 'static) {
        let passes = rows.iter().all(Row::is_removal);
        self.queue.submit(Submission { rows, done: Box::new(done), passes });
    }

    /// Why nothing should come that can be kept from it, if that is so, in plain words: it would wait for long, or for ever.
    pub fn is_backed_up(&self) -> Option<String> {
        match self.health() {
            Health::Failed { why, .. } => Some(format!("nothing is written any more: {why}")),
            Health::Full { .. } | Health::Good if !self.queue.is_backed_up() => None,
            Health::Full { .. } => Some("the disk of the state directory is full, and much waits for it".to_owned()),
            Health::Good => Some("much waits to be written to the disk".to_owned()),
        }
    }

    /// Has rows written as [`Store::submit`] does, and waits until they are synced; for commands, which are refused where that would
    /// take no end. They are written also where the waiting ends early.
    ///
    /// # Errors
    /// The disk is full and these are not removals alone, it has failed, or the daemon stops.
    pub async fn written(&self, rows: Vec<Row>) -> Result<(), Unwritten> {
        match self.health() {
            Health::Failed { why, .. } => return Err(Unwritten::Failed(why)),
            Health::Full { .. } if !rows.iter().all(Row::is_removal) => return Err(Unwritten::Full),
            Health::Full { .. } | Health::Good => {}
        }
        let (sender, done) = oneshot::channel();
        // Whoever no longer waits needs no answer.
        self.submit_removals(rows, move || _ = sender.send(()));
        tokio::select! {
            biased;
            done = done => done.map_err(|_| Unwritten::Stopping),
            why = self.health.failed() => Err(Unwritten::Failed(why)),
        }
    }

    /// Has rows written with what is submitted next, or a little later: for removals whose loss in a crash does no harm.
    pub fn submit_later(&self, rows: impl IntoIterator<Item = Row>) {
        self.queue.submit_later(rows);
    }

    /// The first rows of a group from this key on, as they are synced: at least one where there is one, and no more than so many
    /// rows and about so many bytes. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, table: Table, group: &str, from: &[u8], most: (usize, usize)) -> Result<Vec<Found>, StoreError> {
        self.file.read(table, group, from, most)
    }

    /// As [`Self::read`], from the last row before this key backwards.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_back(
        &self,
        table: Table,
        group: &str,
        before: &[u8],
        most: (usize, usize),
    ) -> Result<Vec<Found>, StoreError> {
        self.file.read_back(table, group, before, most)
    }

    /// What each group of a table holds, as it is synced. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn totals(&self, table: Table) -> Result<Vec<(Arc<str>, Total)>, StoreError> {
        self.file.totals(table)
    }

    /// The last key of a group. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn last(&self, table: Table, group: &str) -> Result<Option<Box<[u8]>>, StoreError> {
        self.file.last(table, group)
    }
}

impl StoreWriter {
    /// Writes what waits, and ends. What cannot be written is dropped, with a warning. Blocks on the disk.
    pub fn close(mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the store panicked");
        }
        let rows = self.queue.give_up();
        if rows > 0 {
            tracing::warn!(rows, "stopped with changes that could not be written; their messages are not acknowledged");
        }
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.queue.close();
    }
}
