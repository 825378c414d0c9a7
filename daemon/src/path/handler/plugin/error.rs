//! Why a file is not a plugin that this version runs, in plain words.
//!
//! Pure. Made by [`super::file`] and by each kind's loading; told by the start, by `check` and by reloads.

use std::io;

use super::file::MAX_PLUGIN_BYTES;
use crate::path::handler::native::NativeError;

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
    /// A component with the name of a native plugin: whoever gave it that name expects other rights.
    #[error("is a WebAssembly component with the name of a native plugin; give it a name that ends in .wasm")]
    ComponentAsNative,
    /// Something else with the name of a native plugin.
    #[error("is not a native plugin: it does not begin with the bytes 7f 45 4c 46 (ELF); build it as a shared library")]
    NotNative,
    /// A native plugin that does not load.
    #[error(transparent)]
    Native(#[from] NativeError),
    /// A shared object or program of this machine, with the name of a component.
    #[error(
        "is native code (ELF), not a WebAssembly component; build the handler for wasm32-wasip2, or name it NAME.so"
    )]
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
    #[error("imports {}, which this version does not provide; it provides {provided}", names.join(", "))]
    UnknownImports {
        /// All of them.
        names: Vec<String>,
        /// Those that it knows, for people.
        provided: &'static str,
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
    /// Whether the file is at fault, and not the daemon or the machine.
    pub fn blames_the_version(&self) -> bool {
        !matches!(self, LoadError::Missing | LoadError::Read(_) | LoadError::Prepare(_))
    }

    pub(super) fn from_io(error: io::Error) -> LoadError {
        match error.kind() {
            io::ErrorKind::NotFound => LoadError::Missing,
            _ => LoadError::Read(error),
        }
    }
}
