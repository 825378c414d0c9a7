//! `cargo xtask bench`: how the daemon compares with a minimal program on the same machine, and what its parts cost.
//!
//! Owns: building everything optimised, and the choice between the two kinds of benchmarks. `tests/bench` measures whole
//! processes; it is a program of its own because xtask itself is built unoptimised. `daemon/benches` measures parts.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::plugins;
use crate::setup;
use crate::shell::{Program, cargo, say, target_dir};

/// The options of `bench`.
#[derive(Args)]
pub struct Options {
    /// Run only these.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    only: Vec<Part>,
    /// Measure everything so often; the report has the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Measure each load for so many seconds.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Print JSON; not for micro, whose figures criterion keeps in target/criterion.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From start to the first result, with an empty compile cache and with a filled one.
    Start,
    /// From publisher to receiver, at 1,000 messages a second.
    Latency,
    /// Processor time of a message, at 10,000 a second.
    Cpu,
    /// Memory, idle and at 10,000 messages a second.
    Memory,
    /// The highest rate without loss and with 99 % of the results within 50 ms.
    Max,
    /// What 500 slow clients of the admin plane cost a stream of 5,000 messages a second.
    Admin,
    /// What it costs to keep messages for `tidegate recv`, at 10,000 a second.
    Received,
    /// What an outbox on the disk costs at QoS 1: latency, processor time, the highest rate.
    Disk,
    /// From start until everything is ready, with 1,000,000 publishes on the disk; some minutes to fill it.
    StartFull,
    /// What a stream of 1,000 messages a second suffers beside handlers that do their worst, each alone.
    Hostile,
    /// From the rename of a plugin's file until its version runs, with 1,000 messages a second and with none.
    Reload,
    /// The parts of the daemon that every message passes, each alone.
    Micro,
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().expect("no part is hidden").get_name().to_owned()
    }
}

/// Builds what is needed and measures.
///
/// # Errors
/// Something does not build or does not start; or a result was wrong, out of order or lost at a rate that must be
/// sustained. Never because of a time.
pub fn run(options: &Options) -> Result<()> {
    let (micro, whole): (Vec<Part>, Vec<Part>) = options.only.iter().partition(|part| **part == Part::Micro);
    let everything = options.only.is_empty();
    if options.json && !micro.is_empty() {
        bail!("micro has no --json: criterion keeps its figures in target/criterion");
    }
    if everything || !whole.is_empty() {
        compare(options, &whole)?;
    }
    if !micro.is_empty() || (everything && !options.json) {
        parts()?;
    }
    Ok(())
}

/// Whole processes against each other.
fn compare(options: &Options, only: &[Part]) -> Result<()> {
    setup::ensure_mosquitto()?;
    let plugins = plugins::build()?;
    say!("building tidegate, optimised: some minutes the first time");
    // Alone, so that it is the program that is shipped: the others might ask for more features of what they share.
    cargo().args(["build", "--release", "--package", "tidegate"]).run()?;
    cargo().args(["build", "--release", "--package", "tidegate-floor", "--package", "tidegate-bench"]).run()?;
    let built = target_dir().join("release");
    let mut bench = Program::new(built.join("tidegate-bench"))
        .arg("--tidegate")
        .arg(built.join("tidegate"))
        .arg("--floor")
        .arg(built.join("tidegate-floor"))
        .arg("--plugins")
        .arg(plugins)
        .args(["--repeats", &options.repeats.to_string(), "--seconds", &options.seconds.to_string()]);
    if !only.is_empty() {
        bench = bench.arg("--only").arg(only.iter().map(|part| part.name()).collect::<Vec<_>>().join(","));
    }
    if options.json { bench.arg("--json") } else { bench }.run()
}

/// Parts of the daemon, each alone.
fn parts() -> Result<()> {
    let plugins = plugins::build()?;
    let bench = cargo().args(["bench", "--package", "tidegate", "--bench", "micro"]);
    bench.env("TIDEGATE_PLUGINS", plugins).run()
}
