//! Measures the built daemon against a minimal program on rumqttc (the floor) and against the broker alone.
//!
//! Owns: the command line and the exit code: 1 when a result is wrong, out of order or lost at a rate that must be
//! sustained, never because of a time. `measure.rs`, `operating.rs`, `disk.rs`, `hostile.rs`, `full.rs` and `reload.rs` say what is
//! measured, `station.rs` runs it, `report.rs`
//! prints it; `load.rs` and `receiver.rs` are the two ends, `crowd.rs` asks meanwhile. Built optimised and run by `cargo xtask bench`, which builds what it needs.

mod clock;
mod connection;
mod contrast;
mod crowd;
mod disk;
mod full;
mod hostile;
mod latency;
mod load;
mod measure;
mod operating;
mod packets;
mod process;
mod readings;
mod receiver;
mod reload;
mod report;
mod station;
mod tally;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::measure::{Measurement, Run};
use crate::report::{Conditions, Report};
use crate::station::Programs;

/// Writes a line of progress.
macro_rules! say {
    ($($line:tt)*) => { crate::say_line(format_args!($($line)*)) };
}
pub(crate) use say;

#[expect(clippy::print_stderr, reason = "progress is for the terminal")]
fn say_line(line: fmt::Arguments<'_>) {
    eprintln!("{line}");
}

/// Measures the daemon.
#[derive(Parser)]
struct Arguments {
    /// The daemon to measure.
    #[arg(long, value_name = "FILE")]
    tidegate: PathBuf,
    /// The minimal program to measure it against.
    #[arg(long, value_name = "FILE")]
    floor: PathBuf,
    /// The folder of the built handlers.
    #[arg(long, value_name = "DIR")]
    plugins: PathBuf,
    /// Measure only these.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    only: Vec<Measurement>,
    /// Measure everything so often.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Measure each load for so long.
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    seconds: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=3_600.0).contains(&seconds) { Ok(seconds) } else { Err("must be from 0.1 to 3600".to_owned()) }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            say!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { tidegate, floor, plugins, only, repeats, seconds, json } = arguments;
    let conditions = Conditions {
        version: env!("CARGO_PKG_VERSION"),
        cores: std::thread::available_parallelism()?.get(),
        load_before: load_average()?,
        repeats: usize::from(repeats),
        seconds,
    };
    // The programs run in folders of their own.
    let found = |path: PathBuf| path.canonicalize().with_context(|| format!("{} is not built", path.display()));
    let programs = Programs { tidegate: found(tidegate)?, floor: found(floor)?, plugins: found(plugins)? };
    let mut run = Run::new(programs, only, usize::from(repeats), seconds);
    let (mut figures, mut samples) = (Vec::new(), Vec::new());
    for number in 1..=usize::from(repeats) {
        let repeat = run.repeat(number)?;
        say!("{repeat}");
        figures.push(repeat);
        let operating = run.operating(number)?;
        operating.iter().for_each(|sample| say!("  {sample}"));
        samples.push(operating);
    }
    let right = run.violations.is_empty();
    let report = Report::new(conditions, &figures, contrast::contrasts(&samples), run.violations);
    let text = if json { report.json()? + "\n" } else { report.to_string() };
    io::stdout().lock().write_all(text.as_bytes()).context("cannot write the report")?;
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Of the last minute: how much else the machine does.
fn load_average() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("the benchmark runs on Linux: no /proc/loadavg")?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_is_sound() {
        Arguments::command().debug_assert();
    }
}
