//! Why a library is not a native plugin that this daemon runs, in plain words.
//!
//! Pure. Each text is a sentence whose subject, the plugin, is left out.

use super::library::{LOAD_DEADLINE, MAX_LIBRARIES};
use super::probe::Part;
use crate::path::handler::plugin::PluginHash;

/// Why a library does not become a plugin.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NativeError {
    /// The daemon was started without them.
    #[error("is a native plugin, which this daemon was not started for; set native = true, and start the daemon again")]
    NotPermitted,
    /// Its header, or what that names, is not whole.
    #[error("is damaged or incomplete: {0}; copy it again")]
    Damaged(&'static str),
    /// An executable, an object file, a core dump.
    #[error("is {0}, not a shared library; link it with -shared, from code compiled with -fPIC")]
    NotShared(&'static str),
    /// For another machine.
    #[error("is built for {built}, and this machine runs {here}; build it for this machine")]
    OtherMachine {
        /// What it is built for.
        built: String,
        /// What the daemon is built for.
        here: String,
    },
    /// The private copy cannot be made. Its reason is part of the text, since the sentence says nothing without it.
    #[error("cannot be copied into state-dir: {0}")]
    Copy(String),
    /// So many that an end must be made.
    #[error(
        "cannot be loaded: {MAX_LIBRARIES} native libraries are loaded already, and none can be unloaded; restart the daemon"
    )]
    TooMany,
    /// The machine has no thread to give. Its reason is part of the text.
    #[error("cannot be loaded: no thread can be made for it: {0}")]
    NoThread(String),
    /// The dynamic linker refuses, such as for a library that it needs.
    #[error("cannot be loaded: {0}")]
    Refused(String),
    /// No process of its own could try it, or tell what came of that.
    #[error(
        "cannot be tried in a process of its own: {0}; the daemon starts its own program for that, before it loads a native plugin; try \
         again once that is possible"
    )]
    NotTried(String),
    /// What a process of its own says of it: the text of another one of these.
    #[error("{0}")]
    Tried(String),
    /// It ended a process of its own.
    #[error(
        "cannot be loaded: {part} ended the process that tried it first, {how}; `tidegate load-native FILE` shows it"
    )]
    Ends {
        /// What of it ran last.
        part: Part,
        /// By which signal, or with which exit status.
        how: String,
    },
    /// It did not end in a process of its own.
    #[error(
        "cannot be loaded: {part} did not end within {} in the process that tried it first; `tidegate load-native FILE` shows it",
        humantime::format_duration(LOAD_DEADLINE)
    )]
    TookTooLong {
        /// What of it runs on.
        part: Part,
    },
    /// Its initialisers run on in the daemon itself, although they ended before.
    #[error(
        "cannot be loaded: its initialisers did not end within {}; the thread that runs them is left behind, and no other native \
         plugin can be loaded before they end; restart the daemon",
        humantime::format_duration(LOAD_DEADLINE)
    )]
    Hangs,
    /// Those of another library run on, and hold what the dynamic linker needs.
    #[error(
        "cannot be loaded: the initialisers of another native plugin, version {other}, have not ended yet, and no other can be loaded \
         before they do; restart the daemon"
    )]
    Blocked {
        /// The other one.
        other: PluginHash,
    },
    /// Its entry point runs on in the daemon itself, although it returned before.
    #[error(
        "cannot be loaded: its entry point did not return within {}; the thread that runs it is left behind; restart the daemon",
        humantime::format_duration(LOAD_DEADLINE)
    )]
    EntryHangs,
    /// No entry point of any version.
    #[error(
        "is a shared library, but not a plugin: it does not export {entry}; build it with tidegate.h or tidegate-native"
    )]
    NoEntry {
        /// The symbol of this version.
        entry: String,
    },
    /// An entry point of another version alone.
    #[error(
        "is built for version {found} of the native interface, and this daemon has version {ours}; build it with the header or SDK \
         of this release"
    )]
    OtherAbi {
        /// Its version.
        found: u32,
        /// The daemon's.
        ours: u32,
    },
    /// Its entry point returned null.
    #[error("refuses to be loaded: its entry point returned a null pointer; it may need a newer daemon")]
    RefusesHost,
    /// What it says of itself cannot be.
    #[error("breaks the rules of tidegate.h: its {part} {fault}")]
    Breaks {
        /// Of what it says.
        part: &'static str,
        /// What is wrong with it.
        fault: tidegate_abi::Fault,
    },
    /// Nothing that it could be called for.
    #[error("has neither on_message nor on_schedule, as a handler must; set one of them in its tg_plugin")]
    NoCall,
}

impl NativeError {
    /// Whether the library is at fault, and not the daemon or the machine.
    pub fn blames_the_version(&self) -> bool {
        match self {
            NativeError::NotPermitted
            | NativeError::Copy(_)
            | NativeError::TooMany
            | NativeError::NoThread(_)
            | NativeError::NotTried(_)
            | NativeError::Blocked { .. } => false,
            NativeError::Damaged(_)
            | NativeError::NotShared(_)
            | NativeError::OtherMachine { .. }
            | NativeError::Refused(_)
            | NativeError::Tried(_)
            | NativeError::Ends { .. }
            | NativeError::TookTooLong { .. }
            | NativeError::Hangs
            | NativeError::EntryHangs
            | NativeError::NoEntry { .. }
            | NativeError::OtherAbi { .. }
            | NativeError::RefusesHost
            | NativeError::Breaks { .. }
            | NativeError::NoCall => true,
        }
    }
}
