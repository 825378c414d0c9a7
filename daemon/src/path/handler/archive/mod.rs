//! The versions of plugins that handlers run, kept so that a restart finds them: `STATE-DIR/plugins/HANDLER/`.
//!
//! Owns: a copy of each handler's active version, named by its hash, and the record of that version and of those that were refused
//! (`record.rs`); and, in memory, how each handler's file stands to what runs. Written by the change task and the reload task, read
//! by whoever shows handlers. A version's copy is on the disk before the record names it, and the record before the version runs.
//! It decides nothing: which version a handler starts with is `choice.rs`.

mod choice;
mod record;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub use self::choice::{Source, sources};
pub use self::record::{Record, Refused};
use super::plugin::{LoadError, PluginFile, PluginHash};
use crate::durable;

/// The record's file, beside the copies.
const RECORD: &str = "record.json";

/// Where a damaged record is set aside, in place of an earlier one.
const DAMAGED: &str = "record.json.damaged";

/// The kept versions of all handlers. Cheap to clone.
#[derive(Clone)]
pub struct Archive(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    /// Held for as long as the folder is read or written.
    disk: Mutex<()>,
    entries: Mutex<HashMap<Arc<str>, Entry>>,
}

#[derive(Clone, Default)]
struct Entry {
    record: Record,
    file: FileState,
}

/// How a handler's file stands to what the handler runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FileState {
    /// It holds the version that runs, as far as is known.
    #[default]
    Runs,
    /// It is gone.
    Missing {
        /// Since when that is known.
        since: SystemTime,
    },
    /// It holds a version that was refused, or none at all.
    Refused {
        /// Which; none of what cannot be read.
        version: Option<PluginHash>,
        /// Why, in plain words.
        reason: String,
        /// Since when.
        since: SystemTime,
    },
    /// It holds a version that is on trial.
    OnTrial {
        /// Which.
        version: PluginHash,
        /// Since when.
        since: SystemTime,
    },
    /// It holds a version that would run, or runs since the start, but that could not be kept.
    NotKept {
        /// Which.
        version: PluginHash,
        /// What is in the way, in plain words.
        reason: String,
        /// Since when.
        since: SystemTime,
    },
}

impl FileState {
    /// Whether the other one says the same, perhaps at another time.
    fn is_like(&self, other: &FileState) -> bool {
        match (self, other) {
            (FileState::Missing { .. }, FileState::Missing { .. }) => true,
            (FileState::OnTrial { version, .. }, FileState::OnTrial { version: other, .. }) => version == other,
            (
                FileState::Refused { version, reason, .. },
                FileState::Refused { version: other_version, reason: other_reason, .. },
            ) => version == other_version && (version.is_some() || reason == other_reason),
            (
                FileState::NotKept { version, reason, .. },
                FileState::NotKept { version: other_version, reason: other_reason, .. },
            ) => (version, reason) == (other_version, other_reason),
            (one, other) => one == other,
        }
    }
}

/// Why there is no copy of a version that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It is not there, or cannot be read.
    #[error("the kept copy {} {source}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// As of any plugin.
        source: LoadError,
    },
    /// Its bytes are others.
    #[error("the kept copy {} is damaged: its hash is {found}", path.display())]
    Damaged {
        /// Its path.
        path: PathBuf,
        /// The hash of what is there.
        found: PluginHash,
    },
}

/// A version that the daemon loads into its process, and starts, for the first time: the disk says so for as long as this is there, so that
/// a restart knows what has ended the daemon. Its end writes to the disk.
pub struct Trying {
    archive: Archive,
    handler: Arc<str>,
    version: PluginHash,
}

impl Drop for Trying {
    fn drop(&mut self) {
        self.archive.has_tried(&self.handler, self.version);
    }
}

impl Archive {
    /// What is kept in the state directory.
    pub fn new(state_dir: &Path) -> Archive {
        let folder = state_dir.join("plugins");
        Archive(Arc::new(Inner { folder, disk: Mutex::default(), entries: Mutex::default() }))
    }

    /// What is recorded of a handler; nothing of one that never ran. A damaged record is set aside, which the log tells. Blocks.
    pub fn record(&self, handler: &Arc<str>) -> Record {
        let _disk = self.disk();
        self.read(handler)
    }

    /// The copy of a version. Blocks.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn copy(&self, handler: &str, version: PluginHash) -> Result<PluginFile, CopyError> {
        let path = self.path(handler).join(format!("{version:#}"));
        let file = match PluginFile::read(&path) {
            Ok(file) => file,
            Err(source) => return Err(CopyError::Unreadable { path, source }),
        };
        match file.hash() {
            found if found == version => Ok(file),
            found => Err(CopyError::Damaged { path, found }),
        }
    }

    /// Keeps a version of `plugin` as the active one, so that a restart finds it: once this returns, it may run. The copies of others
    /// are removed. Blocks on the disk.
    ///
    /// # Errors
    /// It cannot be written. The version that was active before is so still.
    pub fn activate(&self, handler: &Arc<str>, plugin: &Path, file: &PluginFile) -> io::Result<()> {
        let _disk = self.disk();
        let (folder, before) = (self.path(handler), self.read(handler));
        let copy = folder.join(format!("{:#}", file.hash()));
        // Read, since a copy that is damaged would be found out when it is needed.
        if self.copy(handler, file.hash()).is_err() {
            durable::replace(&copy, file.bytes())?;
        }
        let mut record = before.clone();
        record.activate(file.hash(), plugin);
        if record != before {
            durable::replace(&folder.join(RECORD), &record.text())?;
        }
        if let Err(error) = prune(&folder, &record) {
            tracing::warn!(%handler, folder = %folder.display(), %error,
                "old versions of the handler's plugin cannot be removed, they take room until the next one comes");
        }
        self.enter(handler, record, FileState::Runs);
        Ok(())
    }

    /// Notes that a handler is not to run a version. Whether that is news: it was not known of what the file holds. Blocks on the
    /// disk; where that cannot be written, a restart tries the version again.
    pub fn refuse(&self, handler: &Arc<str>, version: PluginHash, reason: &str, rolled_back: bool) -> bool {
        let _disk = self.disk();
        let mut record = self.read(handler);
        let since = SystemTime::now();
        record.refuse(Refused { version, reason: reason.to_owned(), time: since, rolled_back });
        let path = self.path(handler).join(RECORD);
        if let Err(error) = durable::replace(&path, &record.text()) {
            tracing::error!(%handler, file = %path.display(), %error,
                "that a version of the handler's plugin is refused cannot be written, a restart tries it again");
        }
        let state = FileState::Refused { version: Some(version), reason: reason.to_owned(), since };
        self.enter(handler, record, state)
    }

    /// Notes that a version is about to be loaded into the process for the first time; nothing where it is the active one, or none
    /// is that could run instead. Blocks on the disk; where that cannot be written, the version is tried all the same.
    pub fn tries(&self, handler: &Arc<str>, plugin: &Path, version: PluginHash) -> Option<Trying> {
        let _disk = self.disk();
        let mut record = self.read(handler);
        if record.active(plugin).is_none_or(|active| active == version) {
            return None;
        }
        record.tries(version, SystemTime::now());
        if let Err(error) = self.note(handler, record) {
            tracing::warn!(%handler, %version, %error,
                "that a version of the handler's plugin is tried cannot be written, a restart tries it again");
        }
        Some(Trying { archive: self.clone(), handler: Arc::clone(handler), version })
    }

    /// The daemon has outlived the first start of a version.
    fn has_tried(&self, handler: &Arc<str>, version: PluginHash) {
        let _disk = self.disk();
        let mut record = self.read(handler);
        // A verdict has taken the note back, or the handler is gone.
        if !record.has_tried(version) {
            return;
        }
        if let Err(error) = self.note(handler, record) {
            tracing::warn!(%handler, %version, %error,
                "that a version of the handler's plugin was tried cannot be written, a restart refuses it");
        }
    }

    /// Changes the record of a handler alone.
    fn note(&self, handler: &Arc<str>, record: Record) -> io::Result<()> {
        let written = durable::replace(&self.path(handler).join(RECORD), &record.text());
        self.entries().entry(Arc::clone(handler)).or_default().record = record;
        written
    }

    /// Notes how a handler's file stands. Whether that is news.
    pub fn file(&self, handler: &Arc<str>, file: FileState) -> bool {
        let mut entries = self.entries();
        let entry = entries.entry(Arc::clone(handler)).or_default();
        let is_news = !entry.file.is_like(&file);
        if is_news {
            entry.file = file;
        }
        is_news
    }

    /// How a handler's file stands.
    pub fn file_of(&self, handler: &str) -> FileState {
        self.entries().get(handler).map(|entry| entry.file.clone()).unwrap_or_default()
    }

    /// Whether a version is the one that a restart finds where the handler's plugin is this file.
    pub fn keeps(&self, handler: &str, plugin: &Path, version: PluginHash) -> bool {
        self.entries().get(handler).is_some_and(|entry| entry.record.active(plugin) == Some(version))
    }

    /// What is known against a version, as far as it was read or written since the start.
    pub fn refused(&self, handler: &str, version: PluginHash) -> Option<Refused> {
        self.entries().get(handler).and_then(|entry| entry.record.refused(version).cloned())
    }

    /// Removes what is kept of a handler that is gone. Blocks.
    pub fn remove(&self, handler: &str) {
        let _disk = self.disk();
        self.entries().remove(handler);
        self.remove_folder(&self.path(handler));
    }

    /// Removes what is kept of handlers that are not configured any more. Blocks.
    pub fn remove_all_but(&self, handlers: &HashSet<Arc<str>>) {
        let _disk = self.disk();
        let Ok(folders) = fs::read_dir(&self.0.folder) else { return };
        let gone = |entry: &fs::DirEntry| entry.file_name().to_str().is_none_or(|name| !handlers.contains(name));
        folders.flatten().filter(gone).for_each(|entry| self.remove_folder(&entry.path()));
    }

    fn remove_folder(&self, folder: &Path) {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), %error, "the plugins of a handler that is gone cannot be removed");
            }
            _ => {}
        }
    }

    fn path(&self, handler: &str) -> PathBuf {
        self.0.folder.join(handler)
    }

    fn disk(&self) -> MutexGuard<'_, ()> {
        self.0.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, handler: &Arc<str>, record: Record, file: FileState) -> bool {
        let mut entries = self.entries();
        let entry = entries.entry(Arc::clone(handler)).or_default();
        let is_news = !entry.file.is_like(&file);
        *entry = Entry { record, file };
        is_news
    }

    /// The record as it is known, or else as it is on the disk.
    fn read(&self, handler: &Arc<str>) -> Record {
        if let Some(entry) = self.entries().get(handler) {
            return entry.record.clone();
        }
        let record = read(handler, &self.path(handler));
        self.entries().entry(Arc::clone(handler)).or_default().record.clone_from(&record);
        record
    }
}

fn read(handler: &str, folder: &Path) -> Record {
    let path = folder.join(RECORD);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Record::default(),
        Err(error) => {
            tracing::error!(%handler, file = %path.display(), %error,
                "the record of the handler's versions cannot be read, it starts with its file");
            return Record::default();
        }
    };
    Record::parse(&text).unwrap_or_else(|error| {
        let aside = folder.join(DAMAGED);
        let moved = fs::rename(&path, &aside);
        tracing::error!(%handler, file = %path.display(), set_aside = %aside.display(), %error, moved = moved.is_ok(),
            "the record of the handler's versions is damaged and set aside, it starts with its file");
        Record::default()
    })
}

/// Removes what the record does not name, and what a crash left half written.
fn prune(folder: &Path, record: &Record) -> io::Result<()> {
    let stays = |name: &str| {
        matches!(name, RECORD | DAMAGED) || PluginHash::parse(name).is_some_and(|version| record.keeps(version))
    };
    let mut result = Ok(());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(stays) {
            // What cannot be removed keeps nothing else.
            result = fs::remove_file(entry.path()).and(result);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PLUGIN: &str = "plugins/celsius.wasm";

    #[test]
    fn what_is_tried_is_on_the_disk_until_that_was_outlived() {
        let mut world = World::new();
        let (old, new) = (file("old").hash(), file("new").hash());
        let tries = |world: &World, version| world.archive.tries(&world.handler, Path::new(PLUGIN), version);
        assert!(tries(&world, new).is_none(), "nothing could run instead");
        world.activate("old").expect("is writable");
        assert!(tries(&world, old).is_none(), "it ran before");
        drop(tries(&world, new).expect("is tried"));
        world.again();
        assert!(!world.archive.record(&world.handler).is_rolled_back(new), "it was outlived");
        let crash = tries(&world, new).expect("is tried");
        assert!(!world.archive.record(&world.handler).is_rolled_back(new), "it is tried just now");
        world.again();
        assert!(world.archive.record(&world.handler).is_rolled_back(new), "it has ended the daemon");
        std::mem::forget(crash);
    }

    struct World {
        state: tempfile::TempDir,
        archive: Archive,
        handler: Arc<str>,
    }

    impl World {
        fn new() -> World {
            let state = tempfile::tempdir().expect("a directory");
            World { archive: Archive::new(state.path()), state, handler: "celsius".into() }
        }

        /// As after a restart.
        fn again(&mut self) {
            self.archive = Archive::new(self.state.path());
        }

        fn activate(&self, bytes: &str) -> io::Result<()> {
            self.archive.activate(&self.handler, Path::new(PLUGIN), &file(bytes))
        }

        fn active(&self) -> Option<PluginHash> {
            self.archive.record(&self.handler).active(Path::new(PLUGIN))
        }

        fn folder(&self) -> PathBuf {
            self.state.path().join("plugins/celsius")
        }

        fn names(&self) -> Vec<String> {
            let folder = fs::read_dir(self.folder()).expect("is there");
            let mut names: Vec<_> =
                folder.map(|entry| entry.expect("reads").file_name().into_string().expect("text")).collect();
            names.sort();
            names
        }
    }

    fn file(bytes: &str) -> PluginFile {
        PluginFile::new(bytes.as_bytes().to_vec())
    }

    fn name(bytes: &str) -> String {
        format!("{:#}", file(bytes).hash())
    }

    #[test]
    fn the_active_version_is_there_after_a_restart_and_no_other() {
        let mut world = World::new();
        assert_eq!(world.active(), None);
        world.activate("one").expect("writes");
        world.activate("two").expect("writes");
        assert_eq!(world.names(), [name("two"), RECORD.to_owned()]);
        world.again();
        assert_eq!(world.active(), Some(file("two").hash()));
        let copy = world.archive.copy("celsius", file("two").hash()).expect("is good");
        assert_eq!(copy.bytes(), b"two");
        let mode = |path: &Path| path.metadata().expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(&world.folder()), mode(&world.folder().join(RECORD))), (0o700, 0o600));
    }

    /// The record never names what is not there: a crash, or a full disk, in the middle leaves the version before.
    #[test]
    fn a_version_that_cannot_be_kept_leaves_the_one_before() {
        let mut world = World::new();
        world.activate("one").expect("writes");
        let in_the_way = world.folder().join(name("two"));
        fs::create_dir_all(in_the_way.join("x")).expect("makes");
        let keeps = |world: &World| {
            ["one", "two"].map(|bytes| world.archive.keeps("celsius", Path::new(PLUGIN), file(bytes).hash()))
        };
        world.activate("two").expect_err("something is in its place");
        assert_eq!((world.active(), keeps(&world)), (Some(file("one").hash()), [true, false]));
        world.again();
        assert_eq!(world.active(), Some(file("one").hash()));
        assert!(world.archive.copy("celsius", file("one").hash()).is_ok());
        fs::remove_dir_all(&in_the_way).expect("is ours");
        world.activate("two").expect("writes");
        assert_eq!(keeps(&world), [false, true]);
        assert!(!world.archive.keeps("celsius", Path::new("plugins/other.wasm"), file("two").hash()));
        assert!(!world.archive.keeps("other", Path::new(PLUGIN), file("two").hash()));
    }

    #[test]
    fn what_a_crash_left_half_written_goes_with_the_next_version() {
        let world = World::new();
        world.activate("one").expect("writes");
        fs::write(world.folder().join(".tmpAbCdEf"), "half").expect("writes");
        world.activate("two").expect("writes");
        assert_eq!(world.names(), [name("two"), RECORD.to_owned()]);
    }

    #[test]
    fn a_damaged_copy_is_not_used_and_is_written_anew() {
        let mut world = World::new();
        world.activate("one").expect("writes");
        let copy = world.folder().join(name("one"));
        fs::write(&copy, "two").expect("writes");
        let hash = file("one").hash();
        let error = world.archive.copy("celsius", hash).err().expect("is another").to_string();
        assert_eq!(error, format!("the kept copy {} is damaged: its hash is {}", copy.display(), file("two").hash()));
        fs::remove_file(&copy).expect("is there");
        let error = world.archive.copy("celsius", hash).err().expect("is gone").to_string();
        assert_eq!(error, format!("the kept copy {} does not exist", copy.display()));
        world.again();
        world.activate("one").expect("writes");
        assert!(world.archive.copy("celsius", hash).is_ok());
    }

    #[test]
    fn what_was_refused_is_known_after_a_restart_and_said_once() {
        let mut world = World::new();
        world.activate("one").expect("writes");
        let bad = file("bad").hash();
        assert!(world.archive.refuse(&world.handler, bad, "does not start", false));
        assert!(!world.archive.refuse(&world.handler, bad, "does not start", false), "that is known");
        assert_eq!(world.active(), Some(file("one").hash()));
        world.again();
        assert_eq!(world.archive.record(&world.handler).refused(bad).expect("is known").reason, "does not start");
        assert_eq!(world.archive.refused("celsius", bad).expect("was read").reason, "does not start");
        world.archive.file(&world.handler, FileState::Runs);
        assert!(
            world.archive.refuse(&world.handler, bad, "does not start", false),
            "the file held another one meanwhile"
        );
        world.activate("bad").expect("writes");
        assert_eq!((world.archive.refused("celsius", bad), world.archive.file_of("celsius")), (None, FileState::Runs));
    }

    #[test]
    fn how_a_file_stands_is_news_once() {
        let world = World::new();
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let news = |state| world.archive.file(&world.handler, state);
        assert!(!news(FileState::Runs));
        assert!(news(FileState::Missing { since: at(1) }));
        assert!(!news(FileState::Missing { since: at(2) }));
        assert_eq!(world.archive.file_of("celsius"), FileState::Missing { since: at(1) });
        let unreadable =
            |reason: &str, second| FileState::Refused { version: None, reason: reason.into(), since: at(second) };
        assert!(news(unreadable("is not a regular file", 3)));
        assert!(!news(unreadable("is not a regular file", 4)));
        assert!(news(unreadable("is empty", 5)));
        let not_kept =
            |second| FileState::NotKept { version: file("x").hash(), reason: "full".into(), since: at(second) };
        assert!(news(not_kept(6)) && !news(not_kept(7)));
        assert!(news(FileState::Runs));
    }

    #[test]
    fn a_damaged_record_is_set_aside() {
        let mut world = World::new();
        world.activate("one").expect("writes");
        fs::write(world.folder().join(RECORD), "{").expect("writes");
        world.again();
        assert_eq!(world.active(), None);
        assert!(world.folder().join(DAMAGED).is_file() && !world.folder().join(RECORD).exists());
        world.activate("two").expect("writes");
        assert_eq!(world.names(), [name("two"), RECORD.to_owned(), DAMAGED.to_owned()]);
    }

    #[test]
    fn nothing_is_kept_of_handlers_that_are_gone() {
        let world = World::new();
        world.activate("one").expect("writes");
        let other: Arc<str> = "other".into();
        world.archive.activate(&other, Path::new(PLUGIN), &file("one")).expect("writes");
        world.archive.remove_all_but(&HashSet::from([Arc::clone(&other)]));
        assert!(!world.folder().exists() && world.state.path().join("plugins/other").is_dir());
        world.archive.remove("other");
        world.archive.remove("other");
        assert!(!world.state.path().join("plugins/other").exists());
        assert_eq!(world.archive.record(&other), Record::default());
    }
}
