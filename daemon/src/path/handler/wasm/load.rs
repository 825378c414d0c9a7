//! Plugins: files that were read, compiled, checked and linked, ready to make instances.
//!
//! Fed by [`super::WasmEngine::load`]; feeds [`super::Instance::start`]. It runs no guest code.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker};

use super::exports::{Exports, Linked};
use super::printable::printable;
use super::state::State;
use super::ticker::Ticker;
use super::verify;

/// Largest plugin, in bytes. The largest that languages make, a JavaScript engine or Python inside, have 12 to 19 MB.
const MAX_PLUGIN_BYTES: u64 = 64 * 1024 * 1024;

/// How a WebAssembly binary begins.
const MAGIC: &[u8] = b"\0asm";

/// What follows in a core module: version 1, layer 0.
const CORE_MODULE: &[u8] = &[0x01, 0x00, 0x00, 0x00];

/// What follows in a component: version 13, layer 1.
const COMPONENT: &[u8] = &[0x0d, 0x00, 0x01, 0x00];

/// How a native library begins.
const ELF: &[u8] = b"\x7fELF";

/// Bytes kept of a reason in wasmtime's words.
const MAX_REASON_BYTES: usize = 1024;

/// A compiled component that has a handler's imports and exports. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

struct Inner {
    component: Linked,
    ticker: Arc<Ticker>,
    hash: PluginHash,
}

impl Plugin {
    /// Loads a file.
    pub(super) fn load(linker: &Linker<State>, ticker: &Arc<Ticker>, path: &Path) -> Result<Plugin, LoadError> {
        let bytes = read(path)?;
        check_kind(&bytes)?;
        let component =
            Component::from_binary(linker.engine(), &bytes).map_err(|error| LoadError::Invalid(in_one_line(&error)))?;
        // So that the first instance starts as fast as the later ones.
        component.initialize_copy_on_write_image().map_err(|error| LoadError::Prepare(in_one_line(&error)))?;
        let component = verify::link(linker, &component)?;
        let hash = PluginHash(Sha256::digest(&bytes).into());
        Ok(Plugin { inner: Arc::new(Inner { component, ticker: Arc::clone(ticker), hash }) })
    }

    /// The SHA-256 of the file: its version for people and for reloads.
    pub fn hash(&self) -> PluginHash {
        self.inner.hash
    }

    /// What it can be called for.
    pub fn exports(&self) -> Exports {
        self.inner.component.exports()
    }

    /// What instances are made of.
    pub(super) fn component(&self) -> &Linked {
        &self.inner.component
    }

    /// What interrupts its instances.
    pub(super) fn ticker(&self) -> &Arc<Ticker> {
        &self.inner.ticker
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("hash", &self.inner.hash).finish_non_exhaustive()
    }
}

/// The SHA-256 of a plugin's file. Shown as its first 12 hexadecimal digits; the alternate form (`{:#}`) shows all 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PluginHash([u8; 32]);

impl fmt::Display for PluginHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if f.alternate() { self.0.len() } else { 6 };
        self.0[..shown].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PluginHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let metadata = path.metadata().map_err(LoadError::from_io)?;
    // Before it is opened: opening a pipe waits until somebody writes to it.
    if !metadata.is_file() {
        return Err(LoadError::NotAFile);
    }
    let file = File::open(path).map_err(LoadError::from_io)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(MAX_PLUGIN_BYTES)).unwrap_or_default());
    // One byte more than permitted tells that there is more, also where the file grows meanwhile.
    file.take(MAX_PLUGIN_BYTES + 1).read_to_end(&mut bytes).map_err(LoadError::from_io)?;
    match bytes.len() as u64 > MAX_PLUGIN_BYTES {
        true => Err(LoadError::TooLarge { bytes: metadata.len().max(bytes.len() as u64) }),
        false => Ok(bytes),
    }
}

/// Tells what is no component at all by how it begins.
fn check_kind(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if bytes.starts_with(ELF) {
        return Err(LoadError::NativeLibrary);
    }
    let Some(after) = bytes.strip_prefix(MAGIC) else {
        return Err(match std::str::from_utf8(&bytes[..bytes.len().min(4)]) {
            Ok(_) if !bytes.contains(&0) => LoadError::Text,
            _ => LoadError::NotWebAssembly,
        });
    };
    match after.get(..COMPONENT.len()) {
        Some(COMPONENT) => Ok(()),
        Some(CORE_MODULE) => Err(LoadError::CoreModule),
        Some(other) => Err(LoadError::UnknownVersion { bytes: format!("{other:02x?}") }),
        None => Err(LoadError::Invalid("it ends after the first bytes".to_owned())),
    }
}

/// All causes of an error, outermost first.
pub(super) fn in_one_line(error: &wasmtime::Error) -> String {
    printable(&format!("{error:#}"), MAX_REASON_BYTES).into_owned()
}

/// Why a file is not a handler that this version runs. Each text is a sentence whose subject, the plugin, is left out.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("does not exist")]
    Missing,
    /// The operating system refuses. Its reason is part of the text, since the sentence says nothing without it.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// A directory, socket or the like.
    #[error("is not a regular file")]
    NotAFile,
    /// Past [`MAX_PLUGIN_BYTES`].
    #[error("has {bytes} bytes, more than {MAX_PLUGIN_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// A shared object or program of this machine, whatever its name.
    #[error("is native code (ELF), not a WebAssembly component; build the handler for wasm32-wasip2")]
    NativeLibrary,
    /// Some text, perhaps the text form of WebAssembly.
    #[error("is text, not a WebAssembly component; build the handler for wasm32-wasip2")]
    Text,
    /// Some other file.
    #[error("is not WebAssembly: it does not begin with the bytes 00 61 73 6d; build the handler for wasm32-wasip2")]
    NotWebAssembly,
    /// WebAssembly without the component around it.
    #[error(
        "is a core WebAssembly module, not a component; build the handler for wasm32-wasip2, or make a component of it \
         with `wasm-tools component new`"
    )]
    CoreModule,
    /// WebAssembly of another age.
    #[error("is WebAssembly of the unknown version {bytes}; build the handler with the tools of this release")]
    UnknownVersion {
        /// The four bytes after the magic ones.
        bytes: String,
    },
    /// Truncated, corrupted, or of proposals that are off.
    #[error("is damaged, incomplete or uses WebAssembly features that are not enabled: {0}")]
    Invalid(String),
    /// Valid, but this machine cannot take it now.
    #[error("cannot be prepared to run: {0}")]
    Prepare(String),
    /// Interfaces that this version does not know.
    #[error("imports {}, which this version does not provide; it provides {}", names.join(", "), verify::PROVIDED)]
    UnknownImports {
        /// All of them.
        names: Vec<String>,
    },
    /// A known interface with other functions or types.
    #[error("imports {name} in another form than this version provides: {reason}; build the handler with this release")]
    ImportType {
        /// The interface.
        name: String,
        /// What differs.
        reason: String,
    },
    /// An interface that every handler exports.
    #[error("does not export {name}, as a handler must; {}", match found {
        Some(found) => format!("it exports {found}, which this version does not know"),
        None => "build it for the world message-handler, schedule-handler or full-handler".to_owned(),
    })]
    MissingExport {
        /// The interface.
        name: &'static str,
        /// Another version of it, if there is one.
        found: Option<String>,
    },
    /// Nothing that it could be called for.
    #[error(
        "exports neither {on_message} nor {on_schedule}, as a handler must; build it for the world message-handler, \
         schedule-handler or full-handler"
    )]
    NoCall {
        /// The interface for messages.
        on_message: &'static str,
        /// The interface for schedules.
        on_schedule: &'static str,
    },
    /// An exported interface without its function, or with other types.
    #[error("exports {name} in another form than this version calls: {reason}; build the handler with this release")]
    ExportType {
        /// The interface.
        name: &'static str,
        /// What differs.
        reason: String,
    },
}

impl LoadError {
    fn from_io(error: io::Error) -> LoadError {
        match error.kind() {
            io::ErrorKind::NotFound => LoadError::Missing,
            _ => LoadError::Read(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::handler::wasm::testing;

    fn load(bytes: &[u8]) -> Result<Plugin, LoadError> {
        testing::load(bytes)
    }

    fn check(bytes: &[u8], expected: &str) {
        let error = load(bytes).expect_err("is no handler").to_string();
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }

    #[test]
    fn what_is_no_component_is_told_by_its_kind() {
        check(b"", "is empty");
        check(b"\x7fELF\x02\x01\x01\0", "is native code (ELF), not a WebAssembly component;");
        check(b"(component)", "is text, not a WebAssembly component;");
        check(b"PK\x03\x04\0\0", "is not WebAssembly: it does not begin with the bytes 00 61 73 6d;");
        check(b"\0asm", "is damaged, incomplete or uses WebAssembly features that are not enabled: it ends after");
        check(b"\0asm\x01\0\0\0", "is a core WebAssembly module, not a component;");
        check(b"\0asm\x0a\0\x01\0", "is WebAssembly of the unknown version [0a, 00, 01, 00];");
    }

    #[test]
    fn a_damaged_component_is_told_with_what_is_wrong() {
        let whole = testing::component(testing::RETURNS_OK);
        load(&whole).expect("loads");
        for end in [whole.len() - 1, whole.len() / 2, 9] {
            check(&whole[..end], "is damaged, incomplete or uses WebAssembly features that are not enabled: ");
        }
        let memory64 = wat::parse_str("(component (core module (memory i64 1)))").expect("is a component");
        check(
            &memory64,
            "is damaged, incomplete or uses WebAssembly features that are not enabled: failed to parse WebAssembly \
             module: memory64 must be enabled",
        );
    }

    #[test]
    fn a_path_that_is_no_file_is_told() {
        let engine = testing::engine();
        let directory = tempfile::tempdir().expect("a directory");
        let error = |path: &Path| engine.load(path).expect_err("is no handler").to_string();
        assert_eq!(error(&directory.path().join("x.wasm")), "does not exist");
        assert_eq!(error(directory.path()), "is not a regular file");
        let large = directory.path().join("large.wasm");
        File::create(&large).and_then(|file| file.set_len(MAX_PLUGIN_BYTES + 7)).expect("is sparse");
        assert_eq!(error(&large), "has 67108871 bytes, more than 67108864");
    }

    #[test]
    fn the_hash_is_short_for_people_and_whole_on_demand() {
        let bytes = testing::component(testing::RETURNS_OK);
        let plugin = load(&bytes).expect("loads");
        let whole: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(format!("{:#}", plugin.hash()), whole);
        assert_eq!(plugin.hash().to_string(), whole[..12]);
    }
}
