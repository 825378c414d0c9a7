//! A plugin's file: its bytes, its hash, and what kind of plugin it is by how it begins.
//!
//! Fed by the files of `plugins-dir`; feeds the loading of each kind. It runs nothing and understands nothing of what is inside.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::LoadError;

/// Largest plugin, in bytes. The largest that languages make, a JavaScript engine or Python inside, have 12 to 19 MB.
pub(super) const MAX_PLUGIN_BYTES: u64 = 64 * 1024 * 1024;

/// How a WebAssembly binary begins.
const MAGIC: &[u8] = b"\0asm";

/// What follows in a core module: version 1, layer 0.
const CORE_MODULE: &[u8] = &[0x01, 0x00, 0x00, 0x00];

/// What follows in a component: version 13, layer 1.
const COMPONENT: &[u8] = &[0x0d, 0x00, 0x01, 0x00];

/// How a native library begins.
const ELF: &[u8] = b"\x7fELF";

/// A file that was read.
pub struct PluginFile {
    path: Option<PathBuf>,
    bytes: Vec<u8>,
    hash: PluginHash,
}

impl PluginFile {
    /// Reads a file, and hashes it. Blocks.
    ///
    /// # Errors
    /// It is no regular file, is too large, or cannot be read.
    pub fn read(path: &Path) -> Result<PluginFile, LoadError> {
        read(path).map(|bytes| PluginFile { path: Some(path.to_owned()), ..PluginFile::new(bytes) })
    }

    /// Of bytes that were read elsewhere.
    pub(in crate::path::handler) fn new(bytes: Vec<u8>) -> PluginFile {
        PluginFile { path: None, hash: PluginHash(Sha256::digest(&bytes).into()), bytes }
    }

    /// Where it was read, for people.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its hash: the version.
    pub fn hash(&self) -> PluginHash {
        self.hash
    }

    /// What kind of plugin it is.
    ///
    /// # Errors
    /// None that this version runs.
    pub fn kind(&self) -> Result<Kind, LoadError> {
        kind(&self.bytes)
    }
}

/// Kinds of plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A WebAssembly component.
    Component,
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

/// Tells what is no plugin at all by how it begins.
fn kind(bytes: &[u8]) -> Result<Kind, LoadError> {
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
        Some(COMPONENT) => Ok(Kind::Component),
        Some(CORE_MODULE) => Err(LoadError::CoreModule),
        Some(other) => Err(LoadError::UnknownVersion { bytes: format!("{other:02x?}") }),
        None => Err(LoadError::Invalid("it ends after the first bytes".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &str) {
        let error = kind(bytes).expect_err("is no plugin").to_string();
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
    fn a_path_that_is_no_file_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = |path: &Path| PluginFile::read(path).err().expect("is no plugin").to_string();
        assert_eq!(error(&directory.path().join("x.wasm")), "does not exist");
        assert_eq!(error(directory.path()), "is not a regular file");
        let large = directory.path().join("large.wasm");
        File::create(&large).and_then(|file| file.set_len(MAX_PLUGIN_BYTES + 7)).expect("is sparse");
        assert_eq!(error(&large), "has 67108871 bytes, more than 67108864");
    }

    #[test]
    fn the_hash_is_short_for_people_and_whole_on_demand() {
        let file = PluginFile::new(b"\0asm".to_vec());
        let whole: String = Sha256::digest(b"\0asm").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(format!("{:#}", file.hash()), whole);
        assert_eq!(file.hash().to_string(), whole[..12]);
    }
}
