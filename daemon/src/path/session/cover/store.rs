//! Where the record of a broker's session is kept: `STATE-DIR/sessions/BROKER.json`.
//!
//! Owns: the file, written as a whole and synced, so that a crash leaves the old one or the new one. Called by `mod.rs`
//! on a thread that may block. What the text means is `record.rs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::record::{Record, RecordError};
use crate::durable;

/// The file of one broker's record.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    /// The number of the latest record that was written: of two writes under way the later one stays.
    written: Mutex<u64>,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// No file, or an empty folder.
    Nothing,
    /// A good record.
    Record(Record),
    /// A file that is no record: where it was set aside, and what is wrong with it.
    Damaged(PathBuf, RecordError),
}

impl Store {
    /// The record of `broker`, whose name is one of a file too.
    pub(super) fn new(state_dir: &Path, broker: &str) -> Store {
        Store { path: state_dir.join("sessions").join(format!("{broker}.json")), written: Mutex::new(0) }
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the record; a damaged one is set aside under another name, in place of an earlier one.
    ///
    /// # Errors
    /// The file exists and cannot be read or renamed.
    pub(super) fn read(&self) -> io::Result<Found> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        match Record::parse(&text) {
            Ok(record) => Ok(Found::Record(record)),
            Err(error) => {
                let aside = self.path.with_extension("json.damaged");
                fs::rename(&self.path, &aside)?;
                Ok(Found::Damaged(aside, error))
            }
        }
    }

    /// Writes a record, unless one with a higher number was written before.
    ///
    /// # Errors
    /// The folder cannot be made, or the file not be written. Then the old file is removed, if that is possible: what it
    /// says is no longer true.
    pub(super) fn write(&self, number: u64, record: &Record) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if number <= *written {
            return Ok(());
        }
        let result = durable::replace(&self.path, &record.text());
        if result.is_ok() {
            *written = number;
        } else {
            // The error that is told is that of the write.
            let _ = self.remove();
        }
        result
    }

    /// Removes the record, and sees to it that no write under way with a lower number brings it back.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub(super) fn forget(&self, number: u64) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        *written = number.max(*written);
        self.remove()
    }

    /// Removes the record: the broker keeps no session any more.
    ///
    /// # Errors
    /// The file exists and cannot be removed.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
