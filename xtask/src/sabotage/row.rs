//! One scenario as a row of the sabotage: run alone, against a given daemon, and told apart from a harness that fails.
//!
//! Fed by the list of promises. What counts is the end that the test runner tells for the one test by its name, and what
//! the test said when it failed: an exit code alone would take a missing test, or a program that cannot be started, for a
//! red row.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::shell::{Program, cargo};

/// The scenarios, built.
pub struct Rows {
    plugins: PathBuf,
}

/// How a row ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ran {
    /// It passed.
    Green,
    /// It failed.
    Red(Panics),
}

/// What a failed test said, a text for each panic, in their order.
#[derive(Debug, PartialEq, Eq)]
pub struct Panics(Vec<String>);

impl Panics {
    /// Of these texts.
    #[cfg(test)]
    pub fn of(texts: &[&str]) -> Panics {
        Panics(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    /// The line with these words, or others behind a `|`, of the first panic that has any.
    pub fn about(&self, words: &str) -> Option<String> {
        let has = |line: &&str| words.split('|').any(|words| line.contains(words));
        self.0.iter().flat_map(|panic| panic.lines()).find(has).map(|line| line.trim().to_owned())
    }

    /// How the first panic begins.
    pub fn first_line(&self) -> String {
        self.0.first().and_then(|panic| panic.lines().next()).unwrap_or("it does not say why").trim().to_owned()
    }
}

impl Rows {
    /// Builds the scenarios, whose plugins are in this folder.
    ///
    /// # Errors
    /// They do not build.
    pub fn build(plugins: PathBuf) -> Result<Rows> {
        tests().arg("--no-run").run()?;
        Ok(Rows { plugins })
    }

    /// Runs one scenario against this daemon.
    ///
    /// # Errors
    /// It was not run to its end: there is no such scenario, or the runner did not say how it ended.
    pub fn run(&self, test: &str, daemon: &Path) -> Result<Ran> {
        let program = tests().env("TIDEGATE_BIN", daemon).env("TIDEGATE_PLUGINS", &self.plugins);
        let output = program.args(["--", "--exact", test]).output()?;
        match read(test, &String::from_utf8_lossy(&output.stdout)) {
            Some(ran) => Ok(ran),
            None => {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("{test} was not run: {}", said.trim().lines().last().unwrap_or("there is no such scenario"))
            }
        }
    }
}

fn tests() -> Program {
    cargo().args(["test", "--workspace", "--test", "scenarios"])
}

/// What the test runner says of one test; none if it says nothing of it.
fn read(test: &str, said: &str) -> Option<Ran> {
    let end = said.lines().find_map(|line| line.strip_prefix(&format!("test {test} ... ")))?;
    match end {
        "ok" if said.contains("test result: ok. 1 passed; 0 failed;") => Some(Ran::Green),
        "FAILED" if said.contains("test result: FAILED. 0 passed; 1 failed;") => Some(Ran::Red(panics(test, said))),
        _ => None,
    }
}

fn panics(test: &str, said: &str) -> Panics {
    let output = said.lines().skip_while(|line| *line != format!("---- {test} stdout ----"));
    let output = output.take_while(|line| *line != "failures:");
    let mut panics: Vec<String> = Vec::new();
    let mut inside = false;
    for line in output {
        if line.starts_with("thread '") && line.contains(" panicked at ") {
            panics.push(String::new());
            inside = true;
        } else if line.starts_with("note: ") || line.starts_with("stack backtrace:") || line.starts_with("--- ") {
            inside = false;
        } else if let Some(panic) = panics.last_mut().filter(|_| inside) {
            panic.push_str(line);
            panic.push('\n');
        }
    }
    Panics(panics)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "
running 1 test
test outbox::it_holds::on_5 ... FAILED

failures:

---- outbox::it_holds::on_5 stdout ----
20000 sent

thread 'outbox::it_holds::on_5' (4711) panicked at tests/scenarios/outbox.rs:12:5:
assertion `left == right` failed: each once, in order
  left: 1
 right: 2
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
--- the last lines of tidegate (process 12):
thread 'no' said the daemon, each once
---

failures:
    outbox::it_holds::on_5

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 300 filtered out; finished in 0.03s
";

    #[test]
    fn a_failure_is_told_with_what_the_test_said() {
        let Some(Ran::Red(panics)) = read("outbox::it_holds::on_5", FAILED) else { panic!("it failed") };
        assert_eq!(panics.first_line(), "assertion `left == right` failed: each once, in order");
        assert_eq!(panics.about("right: 2").as_deref(), Some("right: 2"));
        assert_eq!(panics.about("no such words|right: 2").as_deref(), Some("right: 2"));
        assert_eq!(panics.about("20000"), None, "said before it failed");
        assert_eq!(panics.about("daemon"), None, "said by another program");
    }

    #[test]
    fn a_pass_is_told() {
        let passed = "test a::b ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 300 filtered out";
        assert_eq!(read("a::b", passed), Some(Ran::Green));
    }

    #[test]
    fn what_was_not_run_to_its_end_is_neither() {
        let none = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 301 filtered out";
        assert_eq!(read("a::b", none), None, "no such test");
        assert_eq!(read("a::b", "running 1 test\n"), None, "killed");
        assert_eq!(read("a::b", "test a::b ... ignored\n\ntest result: ok. 0 passed; 0 failed; 1 ignored"), None);
        assert_eq!(read("a::b", FAILED), None, "another test");
        assert_eq!(read("a::b", ""), None, "the tests do not build");
    }
}
