//! The disk under the store: opening the file, the ballast, and which operation failed.
//!
//! The database tells of an error, and fails whatever comes after it, but not of which operation it was, and that decides what
//! may be done about it. So every operation passes [`Watched`], which notes the first that fails. What is done about it is
//! `file.rs`'s and `writer.rs`'s.
//!
//! The ballast is a file of random bytes beside the database. A full disk cannot take the removal of a row either: a removal
//! writes pages anew. The ballast's room is given up for them.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use redb::StorageBackend;

/// The file's name in the state directory.
pub(super) const NAME: &str = "state.redb";

/// The name of the file that keeps room for removals.
const BALLAST: &str = "state.ballast";

/// How much room it keeps, in bytes: the pages that some thousand removals write.
const BALLAST_BYTES: u64 = 4 << 20;

/// What kind of operation failed, which decides what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A write found no room.
    Full,
    /// A sync failed, for whatever reason.
    Sync,
    /// A read, or a write for another reason.
    Io,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [FaultKind; 3] = [FaultKind::Full, FaultKind::Sync, FaultKind::Io];

    /// The value of the label `kind`.
    pub fn label(self) -> &'static str {
        match self {
            FaultKind::Full => "full",
            FaultKind::Sync => "sync",
            FaultKind::Io => "io",
        }
    }

    /// Of an error of writing.
    pub(super) fn of_write(error: &io::Error) -> FaultKind {
        let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
        if full { FaultKind::Full } else { FaultKind::Io }
    }
}

/// The first operation that failed since the file was opened.
#[derive(Debug, Default)]
pub(super) struct Faults(OnceLock<(FaultKind, io::Error)>);

impl Faults {
    /// Whether one failed.
    pub(super) fn any(&self) -> bool {
        self.0.get().is_some()
    }

    /// Which one failed first, if any.
    pub(super) fn first(&self) -> Option<(FaultKind, io::Error)> {
        self.0.get().map(|(kind, error)| (*kind, again(error)))
    }

    fn note(&self, kind: FaultKind, error: &io::Error) {
        // One that failed earlier stays.
        drop(self.0.set((kind, again(error))));
    }
}

/// The same error once more.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

/// Where the store's bytes are kept.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// The file, for messages.
    fn path(&self) -> &Path;
    /// Opens the file, which is empty where there was none.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;
    /// Has the ballast there in full.
    fn reserve(&self) -> io::Result<()>;
    /// Gives the ballast's room up.
    fn release(&self) -> io::Result<()>;
    /// The file's size in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// A state directory.
#[derive(Debug)]
pub(super) struct Folder {
    file: PathBuf,
    ballast: PathBuf,
}

impl Folder {
    /// Makes the directory where it is missing, readable for its owner alone.
    pub(super) fn new(state_dir: &Path) -> io::Result<Folder> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
        Ok(Folder { file: state_dir.join(NAME), ballast: state_dir.join(BALLAST) })
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

impl Disk for Folder {
    fn path(&self) -> &Path {
        &self.file
    }

    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(OnDisk(private().open(&self.file)?)))
    }

    fn reserve(&self) -> io::Result<()> {
        let mut file = private().open(&self.ballast)?;
        if file.metadata()?.len() == BALLAST_BYTES {
            return Ok(());
        }
        let written = write_ballast(&mut file).and_then(|()| file.sync_all());
        if written.is_err() {
            // A part of it would take away the room that others may need.
            file.set_len(0)?;
        }
        written
    }

    fn release(&self) -> io::Result<()> {
        match OpenOptions::new().write(true).open(&self.ballast) {
            Ok(file) => file.set_len(0),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.file)?.len())
    }
}

/// Bytes that no file system compresses, so that they take the room that they seem to. Beginning at the start of the file.
fn write_ballast(file: &mut fs::File) -> io::Result<()> {
    file.set_len(0)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(1 << 16);
    for _ in 0..BALLAST_BYTES >> 16 {
        block.clear();
        while block.len() < 1 << 16 {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}

/// A file of the system. It is not locked: the state directory is.
#[derive(Debug)]
pub(super) struct OnDisk(pub(super) fs::File);

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// Notes what fails.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) bytes: Box<dyn StorageBackend>,
    pub(super) faults: Arc<Faults>,
}

impl Watched {
    fn noted<T>(&self, result: io::Result<T>, kind: impl FnOnce(&io::Error) -> FaultKind) -> io::Result<T> {
        result.inspect_err(|error| self.faults.note(kind(error), error))
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.noted(self.bytes.len(), |_| FaultKind::Io)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.bytes.read(offset, out) {
            // The file is shorter than it says itself: that is damage, which the database finds, and no fault of the disk.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(error),
            result => self.noted(result, |_| FaultKind::Io),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noted(self.bytes.set_len(len), FaultKind::of_write)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noted(self.bytes.sync_data(), |_| FaultKind::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noted(self.bytes.write(offset, data), FaultKind::of_write)
    }

    fn close(&self) -> io::Result<()> {
        self.bytes.close()
    }
}
