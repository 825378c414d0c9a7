//! Opening the file: at the start, and again after a full disk.
//!
//! A file that is damaged, or none of this store, is set aside under a name of its own, and an empty one begun: a gateway that
//! does not start serves nobody. What cannot be opened for want of rights, or since the disk fails, is no damage: that is an error, and the
//! file stays.
//!
//! After an unclean end the database checks itself whole. After a clean one the file is checked only where that takes no time, or where
//! damage showed in use: a mark beside the file says so.

use std::any::Any;
use std::fs::{self, File as OsFile};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, Error, StorageBackend};

use super::disk::{Disk, FaultKind, Faults, Folder, OnDisk, Watched};
use super::file::{Opened, StoreError};
use super::row::Table;
use super::tables;

/// Memory for pages of the file, in bytes.
const CACHE_BYTES: usize = 4 << 20;

/// Files up to this size are checked whole at each start, in bytes: that reads them once.
const CHECKED_BYTES: u64 = 64 << 20;

/// A file that is this much larger than what it holds, in bytes, is made smaller at the start: little is given back while it is used.
const SPARE_BYTES: u64 = 64 << 20;

/// Only a file that holds no more than this is made smaller, in bytes: the start waits for it.
const MOVED_BYTES: u64 = 64 << 20;

/// What a row takes in the file beside its weight, in bytes, roughly.
const ROW_BYTES: u64 = 64;

/// When the file is checked whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// After an unclean end, where the database does so by itself.
    AfterCrash,
    /// In any case.
    Now,
}

/// Opens the file of a state directory. Gives the path of what was set aside, if something was.
pub(super) fn start(state_dir: &Path) -> Result<(Folder, Opened, Option<PathBuf>), StoreError> {
    let unusable = |path: &Path, source| StoreError::Open { path: path.to_owned(), source };
    let folder = Folder::new(state_dir).map_err(|source| unusable(state_dir, source))?;
    let path = folder.path().to_owned();
    let mark = mark(&path);
    if !path.try_exists().map_err(|source| unusable(&path, source))? {
        create(&path)?;
    }
    let size = folder.size().map_err(|source| unusable(&path, source))?;
    let check = if size <= CHECKED_BYTES || mark.exists() { Check::Now } else { Check::AfterCrash };
    let (opened, aside) = match open(&folder, folder.open(), check) {
        Err(StoreError::Damaged { why, .. }) => {
            let aside = set_aside(&path, &why).map_err(|source| unusable(&path, source))?;
            create(&path)?;
            (open(&folder, folder.open(), Check::AfterCrash)?, Some(aside))
        }
        Err(error) if error.is_full() => {
            folder.release().map_err(|source| unusable(&path, source))?;
            (open(&folder, folder.open(), check)?, None)
        }
        opened => (opened?, None),
    };
    if mark.exists() {
        fs::remove_file(&mark).map_err(|source| unusable(&mark, source))?;
    }
    let opened = smaller(&folder, opened, SPARE_BYTES)?;
    Ok((folder, opened, aside))
}

/// Makes an empty file, all or nothing: an end in the middle would leave one that looks damaged.
fn create(path: &Path) -> Result<(), StoreError> {
    let unusable = |source| StoreError::Open { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    let new = tempfile::NamedTempFile::new_in(folder).map_err(unusable)?;
    let bytes = OnDisk(new.reopen().map_err(unusable)?);
    match Database::builder().create_with_backend(bytes).map_err(Error::from) {
        Ok(database) => drop(database),
        Err(Error::Io(source)) => return Err(unusable(source)),
        Err(error) => return Err(unusable(io::Error::other(error))),
    }
    new.persist(path).map_err(|error| unusable(error.error))?;
    OsFile::open(folder).and_then(|folder| folder.sync_all()).map_err(unusable)
}

/// Opens the database and looks into each of its tables.
pub(super) fn open(
    disk: &dyn Disk,
    bytes: io::Result<Box<dyn StorageBackend>>,
    check: Check,
) -> Result<Opened, StoreError> {
    let bytes = bytes.map_err(|source| StoreError::Open { path: disk.path().to_owned(), source })?;
    let faults = Arc::new(Faults::default());
    let watched = Watched { bytes, faults: Arc::clone(&faults) };
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(check == Check::Now);
    let database = catch_unwind(AssertUnwindSafe(|| builder.create_with_backend(watched).map_err(Error::from)));
    let database = explained(disk, &faults, database)?;
    let opened = Opened { database, faults };
    let seen = catch_unwind(AssertUnwindSafe(|| {
        Table::ALL.into_iter().try_for_each(|table| {
            let totals = tables::totals(&opened.database, table)?;
            totals.iter().try_for_each(|(group, _)| tables::read(&opened.database, table, group, &[], (1, 1)).map(drop))
        })
    }));
    match explained(disk, &opened.faults, seen) {
        Ok(()) => Ok(opened),
        Err(error) => {
            close(opened);
            Err(error)
        }
    }
}

/// Closes a database, which writes a little where it is whole. What goes wrong there shows at the next opening.
pub(super) fn close(opened: Opened) {
    if catch_unwind(AssertUnwindSafe(|| drop(opened))).is_err() {
        tracing::debug!("the store's file was not closed in order");
    }
}

/// What an operation's end means. Where the disk told of no fault, the file does not hold what it should.
pub(super) fn explained<T>(
    disk: &dyn Disk,
    faults: &Faults,
    done: Result<Result<T, Error>, Box<dyn Any + Send>>,
) -> Result<T, StoreError> {
    let why = match done {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the database panicked").to_owned()
        }
    };
    match faults.first() {
        Some((kind, source)) => Err(of_disk(disk, kind, source)),
        None => Err(StoreError::Damaged { path: disk.path().to_owned(), why }),
    }
}

/// That an operation of the disk failed.
pub(super) fn of_disk(disk: &dyn Disk, kind: FaultKind, source: io::Error) -> StoreError {
    StoreError::Disk { path: disk.path().to_owned(), kind, source }
}

/// The file beside it that says that it is to be checked at the next start.
fn mark(path: &Path) -> PathBuf {
    path.with_extension("redb.check")
}

/// Has the file checked at the next start.
pub(super) fn check_next_time(path: &Path) {
    if let Err(error) = fs::write(mark(path), b"") {
        tracing::warn!(file = %mark(path).display(), %error, "the mark that has the store checked cannot be made");
    }
}

fn set_aside(path: &Path, why: &str) -> io::Result<PathBuf> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ");
    let aside = path.with_extension(format!("redb.corrupt-{time}"));
    fs::rename(path, &aside)?;
    tracing::error!(
        file = %path.display(), aside = %aside.display(), why,
        "the store was damaged, or is none, and was set aside; an empty one is begun: what waited in outboxes on disk, what handlers \
         remember and kept messages are gone from here; restore a backup, or keep the file for those who can read it"
    );
    Ok(aside)
}

/// Whether a file is worth being made smaller, and soon is.
fn is_wide(size: u64, used: u64, spare: u64) -> bool {
    used <= MOVED_BYTES && size > spare + 2 * used
}

/// Gives the room back that a file does not use, where that is more than so many bytes and about half of it. Nobody else uses it.
pub(super) fn smaller(disk: &dyn Disk, mut opened: Opened, spare: u64) -> Result<Opened, StoreError> {
    let size = disk.size().map_err(|source| of_disk(disk, FaultKind::Io, source))?;
    let seen = catch_unwind(AssertUnwindSafe(|| {
        let tables: Result<Vec<_>, Error> =
            Table::ALL.into_iter().map(|table| tables::totals(&opened.database, table)).collect();
        Ok(tables?.iter().flatten().map(|(_, total)| total.weight + total.rows * ROW_BYTES).sum())
    }));
    let used = explained(disk, &opened.faults, seen)?;
    if !is_wide(size, used, spare) {
        return Ok(opened);
    }
    let done = catch_unwind(AssertUnwindSafe(|| opened.database.compact().map_err(Error::from)));
    match explained(disk, &opened.faults, done) {
        Ok(_) => Ok(opened),
        // It is whole without it.
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the store's file cannot be made smaller");
            close(opened);
            open(disk, disk.open(), Check::AfterCrash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_smaller_where_most_of_it_is_free_and_little_is_to_be_moved() {
        let check =
            |size: u64, used: u64, expected: bool| assert_eq!(is_wide(size << 20, used << 20, SPARE_BYTES), expected);
        check(64, 0, false);
        check(65, 0, true);
        check(192, 64, false);
        check(193, 64, true);
        check(1000, 65, false);
    }
}
