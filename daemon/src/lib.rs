//! Tidegate: an MQTT gateway that runs your code on every message.
//!
//! Holds the modules of the daemon, which are private: this library has no users but the program in `main.rs`, the
//! micro-benchmarks in `benches/` and the fuzz targets in `tests/fuzz/`. The command line is in `cli`, the daemon's wiring
//! in `gateway.rs`.

#[doc(hidden)]
pub mod benchmarks;
mod brokers;
mod causes;
mod chance;
mod cli;
mod control;
#[cfg(feature = "demo")]
mod demo;
mod durable;
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod message;
mod path;
mod printable;
mod store;
mod system;
mod telemetry;
mod topic;

use std::process::ExitCode;

use clap::Parser;

/// The program: does what its command line says and gives its exit code.
pub fn main() -> ExitCode {
    cli::Cli::parse().run()
}
