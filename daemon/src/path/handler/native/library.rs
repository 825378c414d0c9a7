//! Libraries: private copies, loaded once and never unloaded; and the plugins in them.
//!
//! Owns: the directory of the copies, and which versions are in the process. Fed by [`super::super::plugin::Loader`], on a thread that may
//! wait; feeds [`super::Instance::start`]. A library is copied because the dynamic linker knows libraries by their path and takes a
//! changed file for the one that it has; and never unloaded because code of it may still be referred to, by a thread's destructors at least.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use tempfile::TempDir;
use tidegate_abi::{ENTRY, ENTRY_PREFIX, Entry, Fault, MAJOR};

use super::elf;
use super::error::NativeError;
use super::functions::HOST;
use super::threads::Threads;
use super::worker::Table;
use crate::path::handler::plugin::{Exports, PluginFile, PluginHash};
use crate::printable::printable;

/// Libraries in one process, those included that turned out to be no plugins. Each keeps its memory until the daemon ends.
pub(super) const MAX_LIBRARIES: usize = 64;

/// How long the initialisers of a library may take.
pub(super) const LOAD_DEADLINE: Duration = Duration::from_secs(10);

/// Versions of the ABI that are looked for where this daemon's is not there.
const MAJORS: std::ops::RangeInclusive<u32> = 1..=64;

/// What the dynamic linker says of a file system whose files must not run.
const MAP_REFUSED: &str = "failed to map segment from shared object";

/// Bytes kept of a reason in the dynamic linker's words, and of a plugin's name.
const MAX_WORDS_BYTES: usize = 1024;

/// The native libraries of the daemon.
pub struct Natives {
    directory: PathBuf,
    /// Removed with this, where nobody else knows the directory.
    _passing: Option<TempDir>,
    loaded: Mutex<Loaded>,
    /// By handler; what hangs stays counted when the handler's configuration changes.
    threads: Mutex<HashMap<Arc<str>, Arc<Threads>>>,
}

#[derive(Default)]
struct Loaded {
    /// By the hash of the file.
    libraries: HashMap<PluginHash, &'static Library>,
    /// Copies that were made. Each has a name of its own.
    copies: u64,
    /// Libraries that are in the process, or whose initialisers hang there.
    mapped: usize,
}

impl Natives {
    /// With this directory for private copies, which is made where missing, for its owner alone, and emptied.
    ///
    /// # Errors
    /// It cannot be made or emptied.
    pub fn new(directory: PathBuf) -> io::Result<Natives> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        // It may be there with other rights: what is in it becomes code of the daemon.
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for left in fs::read_dir(&directory)? {
            fs::remove_file(left?.path())?;
        }
        Ok(Natives { directory, _passing: None, loaded: Mutex::default(), threads: Mutex::default() })
    }

    /// With a directory that goes with this.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn passing() -> io::Result<Natives> {
        let folder = tempfile::tempdir()?;
        let natives = Natives::new(folder.path().join("native"))?;
        Ok(Natives { _passing: Some(folder), ..natives })
    }

    /// Loads a library, unless the same file is loaded already, and checks it. Blocks while its initialisers run.
    ///
    /// # Errors
    /// It is no plugin of this machine and this version, or cannot be loaded.
    pub(in crate::path::handler) fn load(self: &Arc<Self>, file: &PluginFile) -> Result<Plugin, NativeError> {
        elf::check(file.bytes())?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let library = match loaded.libraries.get(&file.hash()) {
            Some(library) => *library,
            None => self.open(&mut loaded, file)?,
        };
        drop(loaded);
        let table = in_time(|| read(library))??;
        Ok(Plugin { table, natives: Arc::clone(self) })
    }

    /// Has the dynamic linker load a private copy.
    fn open(&self, loaded: &mut Loaded, file: &PluginFile) -> Result<&'static Library, NativeError> {
        if loaded.mapped >= MAX_LIBRARIES {
            return Err(NativeError::TooMany);
        }
        loaded.copies += 1;
        let path = self.directory.join(format!("{}-{}.so", file.hash(), loaded.copies));
        let copied = copy(&path, file.bytes());
        let opened = copied.map_err(NativeError::Copy).and_then(|()| {
            let path = path.clone();
            // SAFETY: initialisers of native plugins may do anything: who permits them with `native = true` trusts them with the process.
            // The copy has no other name and its directory no other user, so that it is not changed while it is mapped.
            in_time(move || unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) })
        });
        // What is mapped stays, and the linker takes no other file for it while its memory holds on to it.
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "the private copy of a native plugin cannot be removed");
        }
        // What the linker refuses it does not keep.
        loaded.mapped += usize::from(matches!(opened, Ok(Ok(_)) | Err(NativeError::Hangs)));
        let library = opened?.map_err(|error| NativeError::Refused(linker_words(&error, &path)))?;
        let library: &'static Library = Box::leak(Box::new(library));
        loaded.libraries.insert(file.hash(), library);
        Ok(library)
    }

    /// The threads of a handler.
    pub(super) fn threads(&self, handler: &Arc<str>) -> Arc<Threads> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(threads.entry(Arc::clone(handler)).or_default())
    }
}

/// A loaded library that is a plugin. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    table: Table,
    natives: Arc<Natives>,
}

impl Plugin {
    /// What it can be called for.
    pub fn exports(&self) -> Exports {
        self.table.exports()
    }

    /// Of callbacks that no library has.
    #[cfg(test)]
    pub(super) fn of(table: Table, natives: Arc<Natives>) -> Plugin {
        Plugin { table, natives }
    }

    /// What it is called by.
    pub(super) fn table(&self) -> Table {
        self.table
    }

    /// The threads of a handler.
    pub(super) fn threads(&self, handler: &Arc<str>) -> Arc<Threads> {
        self.natives.threads(handler)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").finish_non_exhaustive()
    }
}

/// Runs the library's code on a thread of its own, so that what does not end holds up nobody for longer.
fn in_time<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T, NativeError> {
    let (done, result) = mpsc::sync_channel(1);
    // Nobody may be there any more to hear of it.
    let begun = std::thread::Builder::new().name("native-load".to_owned()).spawn(move || _ = done.send(run()));
    begun.map_err(|error| NativeError::Refused(format!("no thread can be made for it: {error}")))?;
    result.recv_timeout(LOAD_DEADLINE).map_err(|_| NativeError::Hangs)
}

/// Writes a copy that only the daemon's user can read, and nobody can write.
fn copy(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(bytes)
}

/// Finds the entry point, calls it, and reads what it gives.
fn read(library: &'static Library) -> Result<Table, NativeError> {
    // SAFETY: a symbol of this name is the entry point of tidegate.h, whose type this is.
    let entry = unsafe { library.get::<Entry>(ENTRY) };
    let Ok(entry) = entry else { return Err(no_entry(library)) };
    // SAFETY: the table of functions lives as long as the process, as the header promises to the plugin.
    let plugin = unsafe { entry(&raw const HOST) };
    if plugin.is_null() {
        return Err(NativeError::RefusesHost);
    }
    let breaks = |part: &'static str| move |fault: Fault| NativeError::Breaks { part, fault };
    // SAFETY: the header has the plugin give a table that lives as long as the process and never changes.
    let plugin = unsafe { tidegate_abi::read(plugin) }.map_err(breaks("tg_plugin"))?;
    // SAFETY: as above; the texts live as long as the table.
    let name = unsafe { plugin.name.text() }.map_err(breaks("name"))?;
    // SAFETY: as above.
    let version = unsafe { plugin.version.text() }.map_err(breaks("version"))?;
    if plugin.on_message.is_none() && plugin.on_schedule.is_none() {
        return Err(NativeError::NoCall);
    }
    let [name, version] = [name, version].map(|text| printable(text, MAX_WORDS_BYTES));
    tracing::info!(%name, %version, "native plugin loaded");
    let tidegate_abi::Plugin { create, on_message, on_schedule, destroy, .. } = plugin;
    Ok(Table { create, on_message, on_schedule, destroy })
}

/// Why there is no entry point of this version.
fn no_entry(library: &Library) -> NativeError {
    let symbol =
        |major: u32| CString::new(format!("{ENTRY_PREFIX}{major}")).expect("letters and digits have no zero byte");
    // SAFETY: that there is such a symbol is all that is asked; nothing is done with it.
    let exports = |major: &u32| unsafe { library.get::<*const ()>(&*symbol(*major)) }.is_ok();
    match MAJORS.filter(|major| *major != MAJOR).find(exports) {
        Some(found) => NativeError::OtherAbi { found, ours: MAJOR },
        None => NativeError::NoEntry { entry: ENTRY.to_string_lossy().into_owned() },
    }
}

/// What the dynamic linker says, without the copy's name, which nobody knows.
fn linker_words(error: &libloading::Error, copy: &Path) -> String {
    let words = match error {
        libloading::Error::DlOpen { source } => source.to_string(),
        other => other.to_string(),
    };
    let mut words = words.replace(&format!("{}: ", copy.display()), "");
    if let Some(directory) = copy.parent().filter(|_| words.contains(MAP_REFUSED)) {
        words.push_str(&format!("; is the file system of {} mounted noexec?", directory.display()));
    }
    printable(&words, MAX_WORDS_BYTES).into_owned()
}
