//! A plugin's file: its bytes, its hash, and what kind of plugin it is by how it begins.
//!
//! Fed by the files of `plugins-dir`; feeds the loading of each kind. It runs nothing and understands nothing of what is inside.

use std::ffi::OsStr;
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
    /// What its name says that it is. A copy that the daemon made has none that does.
    named: Option<Kind>,
}

impl PluginFile {
    /// Reads a file, and hashes it. Blocks.
    ///
    /// # Errors
    /// It is no regular file, is too large, or cannot be read.
    pub fn read(path: &Path) -> Result<PluginFile, LoadError> {
        let named = kind_by_name(path);
        read(path).map(|bytes| PluginFile { path: Some(path.to_owned()), named, ..PluginFile::new(bytes) })
    }

    /// Of bytes that were read elsewhere.
    pub(in crate::path::handler) fn new(bytes: Vec<u8>) -> PluginFile {
        PluginFile { path: None, hash: PluginHash(Sha256::digest(&bytes).into()), bytes, named: None }
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

    /// Whether it is code that runs in the daemon's process, and may end it.
    pub fn is_native(&self) -> bool {
        self.kind().is_ok_and(|kind| kind == Kind::NativeLibrary)
    }

    /// What kind of plugin it is.
    ///
    /// # Errors
    /// None that this version runs, or another than its name says: who may run native code is asked by names.
    pub fn kind(&self) -> Result<Kind, LoadError> {
        kind(&self.bytes, self.named)
    }
}

/// Kinds of plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A WebAssembly component.
    Component,
    /// A shared library of this machine.
    NativeLibrary,
}

/// The SHA-256 of a plugin's file. Shown as its first 12 hexadecimal digits; the alternate form (`{:#}`) shows all 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PluginHash([u8; 32]);

impl PluginHash {
    /// Reads all 64 digits, as the alternate form shows them.
    pub fn parse(text: &str) -> Option<PluginHash> {
        let mut hash = [0; 32];
        if text.len() != 2 * hash.len() || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(PluginHash(hash))
    }
}

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

/// What a file's name says that it is, if it says anything.
pub(super) fn kind_by_name(path: &Path) -> Option<Kind> {
    match path.extension().and_then(OsStr::to_str) {
        Some("wasm") => Some(Kind::Component),
        Some("so") => Some(Kind::NativeLibrary),
        _ => None,
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
fn kind(bytes: &[u8], named: Option<Kind>) -> Result<Kind, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    let named_native = named == Some(Kind::NativeLibrary);
    if bytes.starts_with(ELF) {
        return if named == Some(Kind::Component) { Err(LoadError::NativeLibrary) } else { Ok(Kind::NativeLibrary) };
    }
    let Some(after) = bytes.strip_prefix(MAGIC) else {
        return Err(match std::str::from_utf8(&bytes[..bytes.len().min(4)]) {
            _ if named_native => LoadError::NotNative,
            Ok(_) if !bytes.contains(&0) => LoadError::Text,
            _ => LoadError::NotWebAssembly,
        });
    };
    match after.get(..COMPONENT.len()) {
        Some(COMPONENT | CORE_MODULE) if named_native => Err(LoadError::ComponentAsNative),
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
        check_named(bytes, Kind::Component, expected);
    }

    fn check_named(bytes: &[u8], named: Kind, expected: &str) {
        let error = kind(bytes, Some(named)).expect_err("is no plugin").to_string();
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }

    #[test]
    fn a_file_is_what_its_name_says() {
        let (library, component) = (b"\x7fELF\x02\x01\x01\0", b"\0asm\x0d\0\x01\0");
        let kinds = |bytes: &[u8]| {
            [None, Some(Kind::Component), Some(Kind::NativeLibrary)].map(|named| kind(bytes, named).ok())
        };
        assert_eq!(kinds(library), [Some(Kind::NativeLibrary), None, Some(Kind::NativeLibrary)]);
        assert_eq!(kinds(component), [Some(Kind::Component), Some(Kind::Component), None]);
        check_named(component, Kind::NativeLibrary, "is a WebAssembly component with the name of a native plugin;");
        check_named(
            b"#!/bin/sh",
            Kind::NativeLibrary,
            "is not a native plugin: it does not begin with the bytes 7f 45 4c 46",
        );
        check_named(b"", Kind::NativeLibrary, "is empty");
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
        assert_eq!(PluginHash::parse(&whole), Some(file.hash()));
        for text in ["", &whole[..63], &whole.to_uppercase(), &format!("{whole}0"), &whole.replace('a', "g")] {
            assert_eq!(PluginHash::parse(text), None, "{text}");
        }
    }
}
