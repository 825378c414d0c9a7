//! `cargo xtask test`: everything that must hold before a change is merged.
//!
//! Owns: the steps, their order and how each is run alone. The first that fails ends the run.

use std::ffi::OsString;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::fuzz;
use crate::plugins;
use crate::setup::{self, WASM_TARGET};
use crate::shell::{Program, cargo, say, target_dir};

#[derive(Args)]
pub struct Options {
    /// Run only these steps.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STEP")]
    only: Vec<Step>,
    /// Run the long set too: RabbitMQ, schemathesis against the HTTP API, the fault bench on the disk in its full size, all of Miri's, and
    /// a minute of fuzzing for each target.
    #[arg(long)]
    long: bool,
    /// Passed on to the scenario tests: only these run, such as `-- retained`.
    #[arg(last = true)]
    scenarios: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The code is formatted.
    Fmt,
    /// The code has no lint warning, natively and as handlers.
    Clippy,
    /// The documentation builds without warning.
    Doc,
    /// Dependencies: licences, bans, sources, advisories.
    Deny,
    /// What native plugins and the daemon point to for each other, under Miri.
    Miri,
    /// Unit, property, documentation and scenario tests.
    Test,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().expect("no step is hidden").get_name().fmt(f)
    }
}

/// Runs the steps that are asked for; with arguments for the scenarios, only those.
///
/// # Errors
/// What a step needs is missing, or a step fails; it is named before.
pub fn run(options: &Options) -> Result<()> {
    let steps = match (&*options.only, &*options.scenarios) {
        ([], []) => Step::value_variants(),
        ([], _) => &[Step::Test],
        (only, _) => only,
    };
    let start = Instant::now();
    for (place, step) in steps.iter().enumerate() {
        say!("\n[{}/{}] {step}, after {}", place + 1, steps.len(), shown(start.elapsed()));
        let done = match step {
            Step::Fmt => fmt(),
            Step::Clippy => clippy(),
            Step::Doc => doc(),
            Step::Deny => deny(),
            Step::Miri => miri(options),
            Step::Test => test(options),
        };
        if done.is_err() {
            let after = shown(start.elapsed());
            say!("\n{step} failed after {after}; to run it alone: cargo xtask test --only {step}");
        }
        done?;
    }
    Ok(())
}

/// As `1:05`, in minutes and seconds.
fn shown(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

fn fmt() -> Result<()> {
    cargo().args(["fmt", "--all", "--check"]).run()
}

fn clippy() -> Result<()> {
    cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]).run()?;
    setup::ensure_wasm_target()?;
    // What only a handler compiles: the SDK's side of the component's interface.
    let packages = plugins::packages()?;
    let names = packages.iter().flat_map(|package| ["--package", package]);
    let handlers = cargo().args(["clippy", "--target", WASM_TARGET, "--package", "tidegate-sdk"]).args(names);
    handlers.args(["--", "--deny", "warnings"]).run()
}

fn doc() -> Result<()> {
    let doc = cargo().args(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    doc.env("RUSTDOCFLAGS", "--deny warnings").run()
}

fn deny() -> Result<()> {
    let Some(deny) = setup::cargo_deny()? else {
        say!(
            "skipped: cargo-deny is not installed (cargo install cargo-deny --locked); build servers always run this step"
        );
        return Ok(());
    };
    let deny = || Program::new(&deny).arg("--workspace");
    deny().args(["check", "bans", "licenses", "sources"]).run()?;
    match deny().args(["fetch", "db"]).read() {
        Ok(_) => deny().args(["check", "--disable-fetch", "advisories"]).run(),
        Err(error) => {
            say!("advisories skipped: their database cannot be fetched: {error:#}");
            Ok(())
        }
    }
}

/// The reading of what the other side of the C ABI points to. In the long set the way through it too: it takes minutes.
fn miri(options: &Options) -> Result<()> {
    let test = |package| {
        let Some(miri) = setup::miri() else { return Ok(false) };
        let test = miri.args(["test", "--package", package, "--lib"]);
        // Clocks and random numbers are the machine's. An instance's configuration and what panics while it is dropped are left behind.
        test.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-ignore-leaks").run().map(|()| true)
    };
    if test("tidegate-abi")? && options.long {
        test("tidegate-native")?;
    }
    Ok(())
}

fn test(options: &Options) -> Result<()> {
    setup::ensure_for_scenarios(options.long)?;
    let plugins = plugins::build()?;
    // All packages together, as the tests are built: otherwise dependencies are compiled twice, with other features.
    cargo().args(["build", "--workspace", "--bin", "tidegate"]).run()?;
    let daemon = target_dir().join("debug").join("tidegate");
    let schemathesis = options.long.then(setup::schemathesis).transpose()?;
    let test = || {
        let test = cargo().args(["test", "--workspace"]).env("TIDEGATE_BIN", &daemon).env("TIDEGATE_PLUGINS", &plugins);
        match &schemathesis {
            Some(program) => test.env("TIDEGATE_SCHEMATHESIS", program),
            None => test,
        }
    };
    let scenarios = || test().args(["--test", "scenarios", "--no-fail-fast", "--"]);
    match (&*options.scenarios, options.long) {
        ([], false) => test().arg("--no-fail-fast").run(),
        ([], true) => {
            test().arg("--no-fail-fast").run()?;
            scenarios().arg("--ignored").run()?;
            fuzz::all()
        }
        (filter, false) => scenarios().args(filter).run(),
        (filter, true) => scenarios().arg("--include-ignored").args(filter).run(),
    }
}
