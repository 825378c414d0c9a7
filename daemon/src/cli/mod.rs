//! The commands of the one binary, a file each.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 the answer is no, 2 wrong use,
//! 3 the daemon cannot be reached, 4 refused by the daemon.

mod check;
mod client;
mod console;
mod explain;
mod import;
mod load_native;
mod operator;
pub mod output;
mod pages;
pub mod run;
mod table;
mod topic;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::control::config;

/// An MQTT gateway that runs your code on every message.
#[derive(Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or SIGINT
    Run(run::Run),
    /// Watch messages flow: an embedded broker, simulated devices and the sample handlers
    #[cfg(feature = "demo")]
    Demo(crate::demo::Demo),
    /// Tell every problem of a configuration, its plugins loaded
    Check(check::Check),
    /// Tell which subscriptions match a topic and which handler runs
    Explain(explain::Explain),
    /// Make a configuration of another system's
    Import(import::ImportArgs),
    /// Work with topic names and filters
    Topic(topic::TopicArgs),
    #[command(flatten)]
    Operator(operator::Operator),
    /// Load a native plugin, and tell how far that gets: what the daemon does in a process of its own first
    #[command(hide = true)]
    LoadNative(load_native::LoadNative),
    /// Print completions for a shell
    Completions(pages::Completions),
    /// Print the manual, or write all its pages to a folder
    Man(pages::Man),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Run(run) => run.run(),
            #[cfg(feature = "demo")]
            Command::Demo(demo) => demo.run(),
            Command::Check(check) => check.run(),
            Command::Explain(explain) => explain.run(),
            Command::Import(import) => import.run(),
            Command::Topic(topic) => topic.run(),
            Command::Operator(operator) => operator.run(),
            Command::LoadNative(load) => load.run(),
            Command::Completions(completions) => completions.run(Cli::command()),
            Command::Man(man) => man.run(Cli::command()),
        }
    }
}

/// Done.
pub const DONE: u8 = 0;
/// The answer is no.
pub const NO: u8 = 1;
/// Wrong use.
pub const WRONG_USE: u8 = 2;
/// The daemon cannot be reached.
pub const UNREACHABLE: u8 = 3;
/// Refused by the daemon.
pub const REFUSED: u8 = 4;

/// The configuration file to use: the one that was named, else the first default that exists.
fn configuration_file(named: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(config::default_file)
}
