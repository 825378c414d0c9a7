//! The lock on the state directory: one daemon at a time.
//!
//! Taken at the start, before anything else there is touched, and held until the process ends: the system takes it back then, however
//! it ended. Nobody but the daemon takes it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file that is locked. It stays when the daemon ends: who removed it could lock another one of the same name.
const NAME: &str = "lock";

/// Why the state directory is not this daemon's.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon runs on it.
    #[error(
        "state-dir = {} is in use by another tidegate daemon{}; stop that one, or give each a state-dir of its own",
        .path.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Taken {
        /// The state directory.
        path: PathBuf,
        /// The other daemon's process, where it has said so already.
        pid: Option<u32>,
    },
    /// It cannot be locked.
    #[error("state-dir = {} must be a directory that the daemon can create or write to", .path.display())]
    Unusable {
        /// The state directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The state directory is this daemon's as long as this is there.
#[derive(Debug)]
pub struct StateLock {
    /// Locked until it is closed.
    _file: File,
}

impl StateLock {
    /// Takes a state directory, which is made where it is missing, readable for its owner alone. Blocks on the disk, never on
    /// another daemon.
    ///
    /// # Errors
    /// Another daemon runs on it, or it cannot be written.
    pub fn take(state_dir: &Path) -> Result<StateLock, LockError> {
        let unusable = |source| LockError::Unusable { path: state_dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(unusable)?;
        let path = state_dir.join(NAME);
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                return Err(LockError::Taken { path: state_dir.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let told = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = told {
            // The lock holds without it; a full disk is told of elsewhere.
            tracing::debug!(file = %path.display(), %error, "the process's number cannot be written");
        }
        Ok(StateLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_with_the_first_ones_process_until_that_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let state_dir = folder.path().join("state");
        let first = StateLock::take(&state_dir).expect("is free");
        let error = StateLock::take(&state_dir).expect_err("is taken").to_string();
        let (path, pid) = (state_dir.display(), std::process::id());
        let expected = format!(
            "state-dir = {path} is in use by another tidegate daemon (process {pid}); stop that one, or give each a state-dir \
             of its own"
        );
        assert_eq!(error, expected);
        StateLock::take(&folder.path().join("other")).expect("has nothing to do with the first");
        drop(first);
        StateLock::take(&state_dir).expect("is free again");
    }

    #[test]
    fn what_is_no_directory_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = StateLock::take(file.path()).expect_err("is a file");
        assert!(matches!(&error, LockError::Unusable { path, .. } if path == file.path()), "{error}");
    }
}
