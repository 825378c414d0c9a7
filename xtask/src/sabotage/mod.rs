//! `cargo xtask sabotage`: shows that the scenarios can fail, by breaking one promise of the daemon at a time.
//!
//! Owns: the order of the steps and the verdicts. `promises/` lists what is broken and which scenario must notice it,
//! `tree.rs` builds the broken daemon from a copy of the sources, `row.rs` runs the scenario and reads its end. The
//! daemon itself has no switch for any of this, and the tree that is worked in is only read.

mod promises;
mod row;
mod tree;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use self::promises::{Promise, Row, promises};
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
    /// Leave out the rows of the fault bench, which take a minute or two each when they are red.
    #[arg(long)]
    quick: bool,
    /// Name the promises, and what must notice that they are broken.
    #[arg(long)]
    list: bool,
}

/// A row that ran against a daemon with a broken promise.
struct Shown {
    promise: &'static str,
    row: &'static str,
    verdict: Verdict,
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

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Red(line) => write!(f, "red: {line}"),
            Verdict::Beside(line) => write!(f, "RED FOR ANOTHER REASON: {line}"),
            Verdict::Green => write!(f, "STILL GREEN"),
            Verdict::Unknown(error) => write!(f, "NOT SHOWN: {error}"),
        }
    }
}

/// Breaks each promise that is asked for, and shows that each of its rows notices.
///
/// # Errors
/// A name is none; what a scenario needs is missing; a row is red without a broken promise, or not red with one.
pub fn run(options: &Options) -> Result<()> {
    let chosen = chosen(&options.names)?;
    if options.list {
        for promise in &chosen {
            say!("{}\n  breaks: {}", promise.name, promise.sentence);
            rows_of(promise, options).for_each(|row| say!("  red: {}", row.test));
        }
        return Ok(());
    }
    setup::ensure_for_scenarios(false)?;
    let plugins = plugins::build()?;
    let rows = Rows::build(plugins)?;
    let tree = Tree::new(target_dir().join("sabotage"))?;
    let start = Instant::now();

    say!("\nthe daemon as it is: some minutes the first time");
    let daemon = tree.build(&[])?;
    let tests: BTreeSet<&str> =
        chosen.iter().flat_map(|promise| rows_of(promise, options)).map(|row| row.test).collect();
    for test in tests {
        match rows.run(test, &daemon)? {
            Ran::Green => say!("  green  {test}"),
            Ran::Red(panics) => {
                bail!("{test} is red although nothing is broken, so it can show nothing: {}", panics.first_line())
            }
        }
    }
    let mut shown = Vec::new();
    for promise in &chosen {
        say!("\n{}: not any more: {}", promise.name, promise.sentence);
        let daemon = tree.build(promise.edits);
        for row in rows_of(promise, options) {
            let verdict = match &daemon {
                Ok(daemon) => verdict(row, rows.run(row.test, daemon)),
                Err(error) => Verdict::Unknown(format!("{error:#}")),
            };
            say!("  {}  {}", row.test, verdict);
            shown.push(Shown { promise: promise.name, row: row.test, verdict });
        }
    }
    table(&shown);
    let noticed = shown.iter().filter(|shown| matches!(shown.verdict, Verdict::Red(_))).count();
    let (promises, all, seconds) = (chosen.len(), shown.len(), start.elapsed().as_secs());
    say!("\n{promises} promises broken, {noticed} of {all} rows red over it, in {seconds} s");
    if noticed < all {
        bail!("what is not noticed is not held: mend the row, or the sabotage in xtask/src/sabotage/promises");
    }
    Ok(())
}

/// The promises of these names, in the order of the table; all where there are none.
fn chosen(names: &[String]) -> Result<Vec<&'static Promise>> {
    let known = || promises().map(|promise| promise.name);
    if let Some(name) = names.iter().find(|name| !known().any(|known| known == *name)) {
        bail!("there is no promise {name:?}: use {}", known().collect::<Vec<_>>().join(", "));
    }
    let wanted = |promise: &&Promise| names.is_empty() || names.iter().any(|name| name == promise.name);
    Ok(promises().filter(wanted).collect())
}

/// The rows of a promise that are asked for.
fn rows_of(promise: &'static Promise, options: &Options) -> impl Iterator<Item = &'static Row> {
    let quick = options.quick;
    promise.rows.iter().filter(move |row| !(quick && row.is_long()))
}

/// What a row that ran against a broken daemon says.
fn verdict(row: &Row, ran: Result<Ran>) -> Verdict {
    match ran {
        Ok(Ran::Green) => Verdict::Green,
        Ok(Ran::Red(panics)) => match panics.about(row.red) {
            Some(line) => Verdict::Red(line),
            None => Verdict::Beside(panics.first_line()),
        },
        Err(error) => Verdict::Unknown(format!("{error:#}")),
    }
}

/// A line for each row, of no more than a terminal shows well.
fn table(shown: &[Shown]) {
    let width = |column: fn(&Shown) -> &str| shown.iter().map(|line| column(line).len()).max().unwrap_or(0);
    let (names, rows) = (width(|line| line.promise).max("promise broken".len()), width(|line| line.row));
    say!("\n{:names$}  {:rows$}  red because", "promise broken", "row");
    for Shown { promise, row, verdict } in shown {
        let because: String = match verdict {
            Verdict::Red(line) => line.chars().take(SHOWN).collect(),
            other => other.to_string(),
        };
        say!("{promise:names$}  {row:rows$}  {because}");
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::sabotage::row::Panics;

    #[test]
    fn a_row_is_red_only_over_its_promise() {
        let row = Row { test: "a::b", red: "in order" };
        let red = |panic: &str| verdict(&row, Ok(Ran::Red(Panics::of(&[panic]))));
        assert!(matches!(red("each once, in order\n left: 1"), Verdict::Red(line) if line == "each once, in order"));
        assert!(matches!(red("no mosquitto\nfound"), Verdict::Beside(line) if line == "no mosquitto"));
        assert!(matches!(verdict(&row, Ok(Ran::Green)), Verdict::Green));
        assert!(matches!(verdict(&row, Err(anyhow!("not run"))), Verdict::Unknown(_)));
    }

    #[test]
    fn promises_are_chosen_by_name() {
        assert_eq!(chosen(&[]).expect("all").len(), promises().count());
        let last = promises().last().expect("there are some").name;
        let one = chosen(&[last.to_owned()]).expect("it is known");
        assert_eq!(one.iter().map(|promise| promise.name).collect::<Vec<_>>(), [last]);
        let unknown = chosen(&["nonsense".to_owned()]).map(|_| ()).expect_err("it is unknown").to_string();
        assert!(unknown.contains("nonsense") && unknown.contains(last), "{unknown}");
    }
}
