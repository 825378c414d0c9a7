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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use tempfile::TempDir;
use tidegate_abi::{ENTRY, ENTRY_PREFIX, Entry, Fault, MAJOR};

use super::elf;
use super::error::NativeError;
use super::functions::HOST;
use super::probe;
use super::process::Entered;
use super::threads::Threads;
use super::worker::Table;
use crate::path::handler::host::deadline;
use crate::path::handler::plugin::{Exports, PluginFile, PluginHash};
use crate::printable::printable;

/// Libraries in one process, those included whose load or entry point failed only there. Each keeps its memory until the daemon ends.
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
    /// The daemon stops.
    closed: AtomicBool,
}

#[derive(Default)]
struct Loaded {
    /// By the hash of the file: what its entry point gave, which is called once.
    libraries: HashMap<PluginHash, Result<Table, NativeError>>,
    /// Copies that were made. Each has a name of its own.
    copies: u64,
    /// Libraries that are in the process, or whose initialisers hang there.
    mapped: usize,
    /// The library whose initialisers did not end in time, and whether they still run.
    hanging: Option<(PluginHash, Arc<AtomicBool>)>,
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
        let closed = AtomicBool::new(false);
        Ok(Natives { directory, _passing: None, loaded: Mutex::default(), threads: Mutex::default(), closed })
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

    /// Loads a library, unless the same file is loaded already, and checks it: in a process of its own first. Blocks while its initialisers
    /// and its entry point run, in both.
    ///
    /// # Errors
    /// It is no plugin of this machine and this version, or cannot be loaded.
    pub(in crate::path::handler) fn load(self: &Arc<Self>, file: &PluginFile) -> Result<Plugin, NativeError> {
        elf::check(file.bytes())?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let table = match loaded.libraries.get(&file.hash()) {
            Some(table) => table.clone()?,
            None => self.open(&mut loaded, file)?,
        };
        Ok(Plugin { table, version: file.hash(), natives: Arc::clone(self) })
    }

    /// Has a process of its own load a private copy, and then the dynamic linker of this one; calls its entry point.
    fn open(&self, loaded: &mut Loaded, file: &PluginFile) -> Result<Table, NativeError> {
        if loaded.mapped >= MAX_LIBRARIES {
            return Err(NativeError::TooMany);
        }
        if let Some((other, hangs)) = &loaded.hanging
            && hangs.load(Ordering::Acquire)
        {
            return Err(NativeError::Blocked { other: *other });
        }
        loaded.copies += 1;
        // The last line of a daemon that the library ends. And what a thread needs for its first line it could not get while the library's
        // initialisers hang, since the linker is held then.
        let origin = file.path().map(|path| path.display().to_string());
        tracing::info!(version = %file.hash(), path = origin, "loading a native plugin");
        let path = self.directory.join(format!("{}-{}.so", file.hash(), loaded.copies));
        let initialising = Arc::new(AtomicBool::new(true));
        let copied = copy(&path, file.bytes()).map_err(|error| NativeError::Copy(error.to_string()));
        let opened = copied.and_then(|()| probe::check(&path)).and_then(|()| {
            if self.closed.load(Ordering::Acquire) {
                return Err(NativeError::NotTried("the daemon stops".to_owned()));
            }
            let (path, initialising) = (path.clone(), Arc::clone(&initialising));
            in_time(move || open(&path, |_| initialising.store(false, Ordering::Release)))
        });
        // What is mapped stays, and the linker takes no other file for it while its memory holds on to it.
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "the private copy of a native plugin cannot be removed");
        }
        let table = match opened? {
            // What the linker refuses it does not keep, nor what a process of its own tells of.
            Some(opened) => opened?,
            None if initialising.load(Ordering::Acquire) => {
                // Said here: whoever asked may need a new thread to say it, and none gets past its first steps while the linker is held.
                tracing::error!(version = %file.hash(), path = origin,
                    "the initialisers of a native plugin hang: nothing can be loaded or changed any more, restart the daemon");
                loaded.hanging = Some((file.hash(), initialising));
                Err(NativeError::Hangs)
            }
            None => Err(NativeError::EntryHangs),
        };
        loaded.mapped += 1;
        loaded.libraries.insert(file.hash(), table.clone());
        table
    }

    /// No library is loaded any more: what is being tried is for nobody.
    pub(in crate::path::handler) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Waits until the threads of instances that are gone have destroyed their state: each within its call deadline, and no longer than
    /// this. Cancellation safe.
    pub(in crate::path::handler) async fn ended(&self, at_most: Duration) {
        let at_most = deadline(at_most);
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect::<Vec<_>>();
        for threads in threads {
            threads.ended(at_most).await;
        }
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
    version: PluginHash,
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
        Plugin { table, version: PluginFile::new(Vec::new()).hash(), natives }
    }

    /// The hash of its file.
    pub(super) fn version(&self) -> PluginHash {
        self.version
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

/// Has the dynamic linker load a library, and calls its entry point. Tells when the linker is done, and whether it has loaded it: what it
/// has is never unloaded, also where it is no plugin.
///
/// # Errors
/// The linker refuses it. Inside: it is loaded, and is no plugin of this version.
pub(super) fn open(path: &Path, done: impl FnOnce(bool)) -> Result<Result<Table, NativeError>, NativeError> {
    // SAFETY: initialisers of native plugins may do anything: who permits them with `native = true` trusts them with the process. The
    // copy has no other name and its directory no other user, so that it is not changed while it is mapped.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    done(library.is_ok());
    // Also where nobody waits for it any more.
    let library = library.map(|library| &*Box::leak(Box::new(library)));
    library.map(read).map_err(|error| NativeError::Refused(linker_words(&error, path)))
}

/// Runs the library's code on a thread of its own, so that what does not end holds up nobody for longer: then there is no result.
pub(super) fn in_time<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>, NativeError> {
    let (done, result) = mpsc::sync_channel(1);
    let entered = Entered::new();
    let begun = std::thread::Builder::new().name("native-load".to_owned()).spawn(move || {
        let _entered = entered;
        // Nobody may be there any more to hear of it.
        let _ = done.send(run());
    });
    begun.map_err(|error| NativeError::NoThread(error.to_string()))?;
    Ok(result.recv_timeout(LOAD_DEADLINE).ok())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing but its header.
    fn library() -> PluginFile {
        PluginFile::new(elf::tests::header())
    }

    #[track_caller]
    fn refused(natives: &Arc<Natives>, file: &PluginFile) -> NativeError {
        natives.load(file).expect_err("is refused")
    }

    /// The linker is not asked for anything while another library holds it.
    #[test]
    fn a_library_whose_initialisers_hang_keeps_out_all_others_until_they_end() {
        let (natives, file) = (Arc::new(Natives::passing().expect("there is room for a directory")), library());
        let (other, hangs) = (PluginFile::new(b"other".to_vec()).hash(), Arc::new(AtomicBool::new(true)));
        natives.loaded.lock().expect("is whole").hanging = Some((other, Arc::clone(&hangs)));
        let error = refused(&natives, &file);
        let words =
            format!("cannot be loaded: the initialisers of another native plugin, version {other}, have not ended");
        assert!(error.to_string().starts_with(&words), "{error}");
        assert!(!error.blames_the_version());
        hangs.store(false, Ordering::Release);
        // This program, which the probe starts, is not the daemon: it is asked, and cannot tell.
        let error = refused(&natives, &file);
        assert!(matches!(error, NativeError::NotTried(_)), "{error}");
        let left = fs::read_dir(&natives.directory).expect("is there").count();
        assert_eq!((natives.loaded.lock().expect("is whole").mapped, left), (0, 0));
    }

    #[test]
    fn there_is_an_end_to_libraries() {
        let (natives, file) = (Arc::new(Natives::passing().expect("there is room for a directory")), library());
        natives.loaded.lock().expect("is whole").mapped = MAX_LIBRARIES;
        let error = refused(&natives, &file);
        assert!(matches!(error, NativeError::TooMany) && !error.blames_the_version(), "{error}");
    }
}
