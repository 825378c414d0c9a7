//! `cargo xtask soak`: the fault rows in a larger size, in turn and with another chance each time, until the time is over.
//!
//! Owns: which rows there are (the scenarios `fault_*`), their order, size and seeds. How a row works is `tests/src/fault`'s; in
//! their smallest size the rows run in `cargo xtask test`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::plugins;
use crate::setup;
use crate::shell::{Program, cargo, root, say, target_dir};

/// The options of `soak`.
#[derive(Args)]
pub struct Options {
    /// Run only the rows whose names have this in them, such as `connection_cut`.
    #[arg(default_value = "")]
    rows: String,
    /// How long: the row that runs then is the last.
    #[arg(long)]
    minutes: u32,
    /// Multiplies the messages and faults of each row.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    size: u16,
}

/// Builds what is needed and runs row after row.
///
/// # Errors
/// Something does not build, there is no such row, or a row failed: it has said what it saw, and how it is repeated.
pub fn run(options: &Options) -> Result<()> {
    let rows: Vec<_> = rows()?.into_iter().filter(|row| row.contains(&options.rows)).collect();
    if rows.is_empty() {
        bail!("no row has {:?} in its name: use a part of one of {}", options.rows, self::rows()?.join(", "));
    }
    setup::ensure_for_scenarios(false)?;
    let plugins = plugins::build()?;
    cargo().args(["build", "--workspace", "--bin", "tidegate"]).run()?;
    let daemon = target_dir().join("debug").join("tidegate");
    let scenarios = || {
        let test = cargo().args(["test", "--quiet", "--workspace", "--test", "scenarios"]);
        test.env("TIDEGATE_BIN", &daemon).env("TIDEGATE_PLUGINS", &plugins)
    };
    scenarios().arg("--no-run").run()?;

    let (start, limit) = (Instant::now(), Duration::from_secs(60 * u64::from(options.minutes)));
    let mut done = 0;
    for row in rows.iter().cycle() {
        soak(scenarios(), row, options.size)?;
        done += 1;
        if start.elapsed() >= limit {
            break;
        }
    }
    say!("\n{done} rows in {} minutes, none failed", start.elapsed().as_secs() / 60);
    if let Some(never) = never_ran(&rows, done) {
        say!("{never}");
    }
    Ok(())
}

/// After so many rows in turn: those that the time was too short for.
fn never_ran(rows: &[String], done: usize) -> Option<String> {
    let never = rows.get(done..).filter(|never| !never.is_empty())?;
    let (all, count) = (rows.len(), never.len());
    Some(format!("{count} of {all} rows never ran, use more --minutes: {}", never.join(", ")))
}

/// Runs a row once.
fn soak(scenarios: Program, row: &str, size: u16) -> Result<()> {
    let seed = RandomState::new().build_hasher().finish();
    let chance = [("TIDEGATE_FAULT_SEED", seed.to_string()), ("TIDEGATE_FAULT_SIZE", size.to_string())];
    say!("\n{row}, size {size}, seed {seed}");
    let test = chance.iter().fold(scenarios, |test, (name, value)| test.env(name, value));
    test.args(["--", "--nocapture", row]).run().with_context(|| {
        let chance = chance.iter().map(|(name, value)| format!("{name}={value} ")).collect::<String>();
        format!("{row} failed; the same faults again: {chance}cargo xtask test -- --nocapture {row}")
    })
}

/// The names of the rows, which are those of their files.
fn rows() -> Result<Vec<String>> {
    let folder = root().join("tests/scenarios");
    let mut names = Vec::new();
    for entry in folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))? {
        let file = entry?.path();
        names.extend(file.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.retain(|name| name.starts_with("fault_"));
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_which_rows_never_ran() {
        let rows = ["a", "b", "c"].map(str::to_owned);
        let told = |done| never_ran(&rows, done);
        assert_eq!(told(1).as_deref(), Some("2 of 3 rows never ran, use more --minutes: b, c"));
        assert_eq!(told(2).as_deref(), Some("1 of 3 rows never ran, use more --minutes: c"));
        assert_eq!((told(3), told(4)), (None, None), "each ran, some more than once");
    }

    #[test]
    fn each_row_is_a_scenario() {
        let scenarios =
            std::fs::read_to_string(root().join("tests/scenarios/main.rs")).expect("it is part of the repository");
        let rows = rows().expect("they are part of the repository");
        assert!(!rows.is_empty());
        for row in rows {
            assert!(scenarios.contains(&format!("mod {row};")), "{row} is not listed");
        }
    }
}
