//! `cargo xtask fuzz`: the daemon's parsers against what nobody would write.
//!
//! Owns: how the targets in `tests/fuzz` are built and run. No sanitizer, so that the stable toolchain can do it: the daemon's
//! own code has no `unsafe`, and what is looked for are panics, hangs and promises that do not hold. What a run learns stays in
//! `target/fuzz/corpus`, and the next one begins there.

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::setup;
use crate::shell::{Program, root, say, target_dir};

/// Longest input, in bytes.
const MAX_INPUT: usize = 4096;

/// Seconds for one input: one that takes longer is a find.
const DEADLINE: usize = 10;

/// The options of `fuzz`.
#[derive(Args)]
pub struct Options {
    /// Run only this target.
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs one target or each.
///
/// # Errors
/// A target does not build, or finds something: libFuzzer has said what, and cargo-fuzz how to run it again.
pub fn run(options: &Options) -> Result<()> {
    let known = targets()?;
    match &options.target {
        Some(target) if !known.contains(target) => bail!("there is no target {target:?}: use {}", known.join(", ")),
        Some(target) => fuzz(target, options.seconds),
        None => known.iter().try_for_each(|target| fuzz(target, options.seconds)),
    }
}

/// Runs each target for a minute.
///
/// # Errors
/// As [`run`].
pub fn all() -> Result<()> {
    run(&Options { target: None, seconds: 60 })
}

/// The names of the targets, which are those of their files.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("tests/fuzz/targets");
    let mut names = Vec::new();
    for entry in folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))? {
        let file = entry?.path();
        names.extend(file.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn fuzz(target: &str, seconds: u32) -> Result<()> {
    let program = setup::cargo_fuzz()?;
    let build = target_dir().join("fuzz");
    // The first corpus is the one that is written to.
    let learned = build.join("corpus").join(target);
    std::fs::create_dir_all(&learned).with_context(|| format!("cannot make {}", learned.display()))?;
    say!("fuzzing {target} for {seconds} s; building it takes some minutes the first time");
    Program::new(program)
        .args(["run", "--fuzz-dir", "tests/fuzz", "--sanitizer", "none", "--target-dir"])
        .arg(build)
        .arg(target)
        .arg(learned)
        .arg(root().join("tests/fuzz/corpus").join(target))
        .arg("--")
        .args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={MAX_INPUT}"),
            format!("-timeout={DEADLINE}"),
            "-verbosity=0".to_owned(),
            "-print_final_stats=1".to_owned(),
        ])
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_a_program_and_seeds() {
        let manifest =
            std::fs::read_to_string(root().join("tests/fuzz/Cargo.toml")).expect("it is part of the repository");
        let targets = targets().expect("they are part of the repository");
        assert_eq!(targets.len(), manifest.matches("[[bin]]").count(), "{targets:?}");
        for target in targets {
            assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target}");
            let seeds = root().join("tests/fuzz/corpus").join(&target).read_dir().expect(&target).count();
            assert!(seeds > 0, "{target}");
        }
    }
}
