//! The project's own commands: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`, `cargo xtask fuzz`,
//! `cargo xtask sabotage`, `cargo xtask soak`, `cargo xtask build-plugins`.
//!
//! Owns: the order of the steps. `shell.rs` runs programs, `setup.rs` finds or installs what is missing, `plugins.rs` builds
//! the handlers, `checks.rs` judges the tree, `bench.rs` has it measured, `fuzz.rs` has it fuzzed, `sabotage/` breaks it to see
//! that tests fail, `soak.rs` breaks all around it for long. It deliberately needs nothing but cargo to start.

mod bench;
mod checks;
mod fuzz;
mod plugins;
mod sabotage;
mod setup;
mod shell;
mod soak;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::shell::{cargo, say, target_dir};

/// The project's own commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and watch messages of simulated devices flow through the sample handlers.
    Demo {
        /// Passed on to `tidegate demo`, such as `--for 10s`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Check everything: format, lints, documentation, dependencies, and every test.
    Test(checks::Options),
    /// Measure the optimised daemon: against a minimal program, and the parts of it.
    Bench(bench::Options),
    /// Feed the daemon's parsers with what nobody would write.
    Fuzz(fuzz::Options),
    /// Break one promise of the daemon at a time, and see that a scenario notices.
    Sabotage(sabotage::Options),
    /// Break the daemon, its connections and its brokers in the middle of messages, for long, and check that none is lost.
    Soak(soak::Options),
    /// Build the sample handlers to target/plugins.
    BuildPlugins,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo { arguments } => demo(arguments),
        Command::Test(options) => checks::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Sabotage(options) => sabotage::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::BuildPlugins => plugins::build().map(|_| ()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends as the demo does: on success it does not return.
fn demo(arguments: Vec<OsString>) -> Result<()> {
    say!("[1/3] sample handlers");
    let plugins = plugins::build()?;
    say!("[2/3] tidegate, optimised: some minutes the first time");
    cargo().args(["build", "--release", "--package", "tidegate"]).run()?;
    say!("[3/3] tidegate demo");
    let daemon = target_dir().join("release").join("tidegate");
    shell::Program::new(daemon).arg("demo").arg("--plugins-dir").arg(plugins).args(arguments).become_it()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn arguments_of_the_demo_are_passed_on() {
        let parsed =
            Arguments::try_parse_from(["xtask", "demo", "--for", "10s", "-v"]).expect("they are not ours to refuse");
        let Command::Demo { arguments } = parsed.command else { panic!("another command") };
        assert_eq!(arguments, ["--for", "10s", "-v"]);
    }
}
