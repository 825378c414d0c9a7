//! The open file: who reads and writes goes through here, while it may have to be opened again.
//!
//! After any error of the disk the database fails whatever comes after it, so it is opened anew where something may still come of
//! it: on a full disk. What was told as synced is there then; what was not may be there in whole or not at all. `opening.rs`
//! opens, `tables.rs` knows what is inside. Damage that shows in use, as an error or a panic, ends the use of the file until the
//! next start, which checks it whole.

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use redb::Database;

use super::disk::{Disk, FaultKind, Faults};
use super::frozen::Frozen;
use super::opening::Check;
use super::row::{Found, Row, Table, Total};
use super::{opening, tables};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("{} cannot be opened; the daemon must be able to write it and the directory that it is in", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The writer's thread does not start.
    #[error("the thread that writes the store does not start")]
    Thread(#[source] io::Error),
    /// An operation failed.
    #[error("{} cannot be {}", .path.display(), match .kind {
        FaultKind::Full => "written: there is no room on the disk; free some, or raise the quota or the limit of a file's size",
        FaultKind::Sync => "synced: the disk does not keep what it was given; check the disk and the system's log",
        FaultKind::Io => "read or written; check the disk and the system's log",
    })]
    Disk {
        /// The file.
        path: PathBuf,
        /// What failed.
        kind: FaultKind,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold what was written to it.
    #[error("{} is damaged ({why}); restart the daemon: it checks the file, and sets it aside where it cannot be used", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        why: String,
    },
}

impl StoreError {
    /// Whether there is no room.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, StoreError::Disk { kind: FaultKind::Full, .. })
    }
}

/// A database, and what failed of the disk since it was opened.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) faults: Arc<Faults>,
}

/// The file.
pub(super) struct File {
    disk: Box<dyn Disk>,
    /// Changed by whoever finds that it has to be; others use it side by side.
    state: RwLock<State>,
}

enum State {
    Open(Opened),
    /// It could not be opened again, for this reason.
    Closed(FaultKind, io::ErrorKind),
}

impl File {
    pub(super) fn new(disk: Box<dyn Disk>, opened: Opened) -> File {
        File { disk, state: RwLock::new(State::Open(opened)) }
    }

    /// Writes rows in their order, all or none, and waits until they are synced.
    pub(super) fn write<'a>(&self, changes: impl Iterator<Item = &'a Row>) -> Result<(), StoreError> {
        self.once(|database| tables::write(database, changes))
    }

    pub(super) fn read(
        &self,
        table: Table,
        group: &str,
        from: &[u8],
        most: (usize, usize),
    ) -> Result<Vec<Found>, StoreError> {
        self.reading(|database| tables::read(database, table, group, from, most))
    }

    pub(super) fn read_back(
        &self,
        table: Table,
        group: &str,
        before: &[u8],
        most: (usize, usize),
    ) -> Result<Vec<Found>, StoreError> {
        self.reading(|database| tables::read_back(database, table, group, before, most))
    }

    pub(super) fn totals(&self, table: Table) -> Result<Vec<(Arc<str>, Total)>, StoreError> {
        self.reading(|database| tables::totals(database, table))
    }

    pub(super) fn last(&self, table: Table, group: &str) -> Result<Option<Box<[u8]>>, StoreError> {
        self.reading(|database| tables::last(database, table, group))
    }

    /// The disk that it is on.
    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Opens it again where an operation found no room, with what the ballast held as room.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*state, State::Open(opened) if !opened.faults.any()) {
            return Ok(());
        }
        // What a failed database still does when it goes must not run beside the next one.
        state.close();
        let released = self.disk.release().map_err(|source| opening::of_disk(self.disk(), FaultKind::Io, source));
        state.open(released.and_then(|()| opening::open(self.disk(), self.disk.open(), Check::AfterCrash)))
    }

    /// Gives room of the file that is not used back to the disk.
    pub(super) fn shrink(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match state.take() {
            State::Open(opened) => state.open(opening::smaller(self.disk(), opened, 0)),
            closed @ State::Closed(..) => {
                *state = closed;
                Ok(())
            }
        }
    }

    /// From now on it is read alone, and nothing of the file changes.
    pub(super) fn freeze(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.close();
        let frozen = self.disk.open().and_then(Frozen::new).map(|frozen| Box::new(frozen) as _);
        state.open(opening::open(self.disk(), frozen, Check::AfterCrash))
    }

    /// Reads; once more where a write that found no room made the database unusable meanwhile.
    fn reading<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        match self.once(&work) {
            Err(error) if error.is_full() => {
                self.recover()?;
                self.once(work)
            }
            done => done,
        }
    }

    fn once<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(Opened { database, faults }) => {
                let done = catch_unwind(AssertUnwindSafe(|| work(database)));
                opening::explained(self.disk(), faults, done)
            }
            State::Closed(kind, why) => Err(opening::of_disk(self.disk(), *kind, (*why).into())),
        }
    }
}

impl State {
    fn take(&mut self) -> State {
        mem::replace(self, State::Closed(FaultKind::Io, io::ErrorKind::NotConnected))
    }

    fn close(&mut self) {
        if let State::Open(opened) = self.take() {
            opening::close(opened);
        }
    }

    fn open(&mut self, opened: Result<Opened, StoreError>) -> Result<(), StoreError> {
        match opened {
            Ok(opened) => *self = State::Open(opened),
            Err(error) => {
                let (kind, why) = match &error {
                    StoreError::Disk { kind, source, .. } => (*kind, source.kind()),
                    _ => (FaultKind::Io, io::ErrorKind::Other),
                };
                *self = State::Closed(kind, why);
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).close();
    }
}
