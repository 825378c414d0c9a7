//! `tidegate check`: every problem of a configuration in one run, plugins included.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::{NO, configuration_file, output};
use crate::control::config::{self, Loaded, Problem};
use crate::path::handler::wasm::{Host, Instance, WasmEngine};

/// The arguments of `check`.
#[derive(Args)]
pub struct Check {
    /// The configuration file [default: ./tidegate.toml, then /etc/tidegate/tidegate.toml]
    file: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}
