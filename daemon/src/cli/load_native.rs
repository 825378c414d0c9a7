//! `tidegate load-native`: loads a native plugin, and ends.
//!
//! The daemon and `check` run it before they load a version themselves; what it prints is for them. By hand, in a debugger, it shows where a
//! plugin crashes. It makes no instance, and needs no configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::path::handler::native;

/// The arguments of `load-native`.
#[derive(Args)]
pub struct LoadNative {
    /// The shared library
    file: PathBuf,
}

impl LoadNative {
    /// Exits with 0 if the library is a plugin of this version, with 1 if not.
    pub fn run(self) -> ExitCode {
        native::load_native(&self.file)
    }
}
