//! The one file in which everything stands that must survive the daemon: `state.redb` in the state directory.
//!
//! Owns: the file, and the thread that writes it. What is submitted is written in the order of coming, as much at once as waits
//! (group commit), and is told as done once it is synced. Rows belong to whoever wrote them: outboxes, handlers' states, kept
//! messages. It decides nothing about them, and knows no MQTT.

mod file;
mod row;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use self::file::File;
pub use self::file::StoreError;
pub use self::row::{Found, Place, Row, Table, Total, number};
use self::writer::Queue;

/// The store. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Store {
    file: Arc<File>,
    queue: Arc<Queue>,
}

/// Why rows were not written: the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon stops before it is written to the disk; try again once it runs again")]
pub struct Unwritten;

/// Writes until it is closed.
pub struct StoreWriter {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store of a state directory, which it makes where it is missing, and begins to write. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be made, opened or read.
    pub fn open(state_dir: &Path) -> Result<(Store, StoreWriter), StoreError> {
        Store::on(File::open(state_dir)?)
    }

    /// A store that nothing survives, for the tests of other modules: the same code, without a disk.
    ///
    /// # Panics
    /// The thread that writes does not start.
    #[cfg(test)]
    pub fn in_memory() -> (Store, StoreWriter) {
        Store::on(File::in_memory().expect("memory can be written")).expect("the thread starts")
    }

    fn on(file: File) -> Result<(Store, StoreWriter), StoreError> {
        let file = Arc::new(file);
        let queue = Arc::new(Queue::default());
        let thread = writer::start(Arc::clone(&file), Arc::clone(&queue)).map_err(StoreError::Thread)?;
        let writer = StoreWriter { queue: Arc::clone(&queue), thread: Some(thread) };
        Ok((Store { file, queue }, writer))
    }

    /// Has rows written together, after all that was submitted before. `done` runs on the writer's thread once they are synced;
    /// it is dropped without a run where the daemon ends before.
    pub fn submit(&self, rows: Vec<Row>, done: impl FnOnce() + Send + 'static) {
        self.queue.submit(rows, Box::new(done));
    }

    /// Has rows written as [`Store::submit`] does, and waits until they are synced. They are written also where the waiting
    /// ends early.
    ///
    /// # Errors
    /// The daemon ends before.
    pub async fn written(&self, rows: Vec<Row>) -> Result<(), Unwritten> {
        let (sender, done) = oneshot::channel();
        // Whoever no longer waits needs no answer.
        self.submit(rows, move || drop(sender.send(())));
        done.await.map_err(|_| Unwritten)
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
    /// Writes what waits, and ends. Blocks on the disk.
    pub fn close(mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the store panicked");
        }
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.queue.close();
    }
}
