//! Tidegate: an MQTT gateway that runs your code on every message.
//!
//! Parses the command line and hands over to `cli`; the daemon's wiring is in `gateway.rs`.

mod cli;
mod control;
#[cfg(feature = "demo")]
mod demo;
mod gateway;
mod message;
mod path;
mod telemetry;
mod topic;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}
