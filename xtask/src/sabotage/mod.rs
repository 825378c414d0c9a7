//! `cargo xtask sabotage`: shows that the scenarios can fail, by breaking one promise of the daemon at a time.
//!
//! Owns: the order of the steps and the verdicts. `promises.rs` lists what is broken and which scenario must notice it,
//! `tree.rs` builds the broken daemon from a copy of the sources, `row.rs` runs the scenario and reads its end. The daemon
//! itself has no switch for any of this, and the tree that is worked in is only read.

mod promises;
mod row;
mod tree;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use self::promises::{PROMISES, Promise};
use self::row::{Ran, Rows};
use self::tree::Tree;
use crate::plugins;
use crate::setup;
use crate::shell::{say, target_dir};

/// Characters of a failure that the last table shows.
const SHOWN: usize = 110;

/// The options of `sabotage`.
#[derive(Args)]
pub struct Options {
    /// Break only these promises; without names, each in turn.
    names: Vec<String>,
    /// Name the promises, and what must notice that they are broken.
    #[arg(long)]
    list: bool,
}

/// What a row said of a broken promise.
enum Verdict {
    /// It failed, and says why.
    Red(String),
    /// It failed over something else than the promise.
    Beside(String),
    /// It noticed nothing.
    Green,
    /// There was no row to run, or no daemon.
    Unknown(String),
}

/// Breaks each promise that is asked for, and shows that its row notices.
///
/// # Errors
/// A name is none; what a scenario needs is missing; a row is red without a broken promise, or not red with one.
pub fn run(options: &Options) -> Result<()> {
    let chosen = chosen(&options.names)?;
    if options.list {
        chosen.iter().for_each(|promise| say!("{}\n  {}\n  {}", promise.name, promise.sentence, promise.row));
        return Ok(());
    }
    setup::ensure_for_scenarios(false)?;
    let plugins = plugins::build()?;
    let rows = Rows::build(plugins)?;
    let tree = Tree::new(target_dir().join("sabotage"));
    let start = Instant::now();

    say!("\nthe daemon as it is: some minutes the first time");
    let daemon = tree.build(&[])?;
    for row in distinct(&chosen) {
        match rows.run(row, &daemon)? {
            Ran::Green => say!("  green  {row}"),
            Ran::Red(panics) => {
                bail!("{row} is red although nothing is broken, so it can show nothing: {}", panics.first_line())
            }
        }
    }
    let verdicts: Vec<(&Promise, Verdict)> =
        chosen.iter().map(|promise| (*promise, broken(promise, &tree, &rows))).collect();
    table(&verdicts);
    let noticed = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Red(_))).count();
    say!("\n{noticed} of {} broken promises were noticed, in {} s", verdicts.len(), start.elapsed().as_secs());
    if noticed < verdicts.len() {
        bail!("what is not noticed is not held: mend the row, or the sabotage in xtask/src/sabotage/promises.rs");
    }
    Ok(())
}

/// The promises of these names, in the order of the table; all where there are none.
fn chosen(names: &[String]) -> Result<Vec<&'static Promise>> {
    let known = || PROMISES.iter().map(|promise| promise.name);
    if let Some(name) = names.iter().find(|name| !known().any(|known| known == *name)) {
        bail!("there is no promise {name:?}: use {}", known().collect::<Vec<_>>().join(", "));
    }
    let wanted = |promise: &&Promise| names.is_empty() || names.iter().any(|name| name == promise.name);
    Ok(PROMISES.iter().filter(wanted).collect())
}

/// Each row once.
fn distinct(promises: &[&'static Promise]) -> Vec<&'static str> {
    let mut rows: Vec<&str> = promises.iter().map(|promise| promise.row).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Breaks one promise and runs its row.
fn broken(promise: &Promise, tree: &Tree, rows: &Rows) -> Verdict {
    say!("\n{}: {}", promise.name, promise.sentence);
    let verdict = match tree.build(promise.edits).and_then(|daemon| rows.run(promise.row, &daemon)) {
        Ok(Ran::Green) => Verdict::Green,
        Ok(Ran::Red(panics)) => match panics.about(promise.red) {
            Some(line) => Verdict::Red(line),
            None => Verdict::Beside(panics.first_line()),
        },
        Err(error) => Verdict::Unknown(format!("{error:#}")),
    };
    let (word, detail) = shown(&verdict);
    say!("  {word}  {}  {detail}", promise.row);
    verdict
}

fn shown(verdict: &Verdict) -> (&'static str, &str) {
    match verdict {
        Verdict::Red(line) => ("red", line),
        Verdict::Beside(line) => ("RED FOR ANOTHER REASON", line),
        Verdict::Green => ("STILL GREEN", ""),
        Verdict::Unknown(error) => ("NOT SHOWN", error),
    }
}

fn table(verdicts: &[(&Promise, Verdict)]) {
    let width =
        |column: fn(&Promise) -> &str| verdicts.iter().map(|(promise, _)| column(promise).len()).max().unwrap_or(0);
    let (names, rows) = (width(|promise| promise.name).max("promise broken".len()), width(|promise| promise.row));
    say!("\n{:names$}  {:rows$}  red because", "promise broken", "row");
    for (promise, verdict) in verdicts {
        let because = match (verdict, shown(verdict)) {
            (Verdict::Red(_), (_, line)) => line.to_owned(),
            (_, (word, detail)) => format!("{word} {detail}"),
        };
        let because = because.chars().take(SHOWN).collect::<String>();
        say!("{:names$}  {:rows$}  {because}", promise.name, promise.row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_chosen_by_name() {
        assert_eq!(chosen(&[]).expect("all").len(), PROMISES.len());
        let last = PROMISES.last().expect("there are some").name;
        let one = chosen(&[last.to_owned()]).expect("it is known");
        assert_eq!(one.iter().map(|promise| promise.name).collect::<Vec<_>>(), [last]);
        let unknown = chosen(&["nonsense".to_owned()]).map(|_| ()).expect_err("it is unknown").to_string();
        assert!(unknown.contains("nonsense") && unknown.contains(last), "{unknown}");
    }
}
