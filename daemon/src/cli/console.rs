//! What a command of the operator reads and writes: standard input, output and error, or what a test puts in their place.
//!
//! Data goes to the output, everything else to the notices, so that a script can take the output as it is.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Read, Write};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::DONE;
use super::client::{Answer, Failure};
use super::table::Look;

/// Input, output and environment of a command.
pub struct Console<'a> {
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Standard output.
    pub output: &'a mut dyn Write,
    /// Standard error.
    pub notices: &'a mut dyn Write,
    /// What suits who reads the output.
    pub look: Look,
    /// Environment variables.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Console<'_> {
    /// Runs something with this process' own streams and environment.
    pub fn of_process<R>(run: impl FnOnce(&mut Console<'_>) -> R) -> R {
        let variable = |name: &str| std::env::var_os(name);
        // https://no-color.org: set to anything but nothing.
        let unwanted = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        run(&mut Console {
            input: &mut io::stdin(),
            output: &mut io::stdout(),
            notices: &mut io::stderr(),
            look: Look {
                colour: io::stdout().is_terminal() && !unwanted,
                width: terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into()),
            },
            environment: &variable,
        })
    }

    /// Writes a line of data.
    ///
    /// # Errors
    /// Nobody reads any more, or the disk is full.
    pub fn line(&mut self, line: impl Display) -> io::Result<()> {
        writeln!(self.output, "{line}")?;
        self.output.flush()
    }

    /// Writes data; a reader that has gone away, as `head` does, ends the output quietly.
    ///
    /// # Errors
    /// The output cannot be written for another reason.
    pub fn data(&mut self, text: impl Display) -> Result<u8, Failure> {
        match self.line(text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritten(&error)),
            _ => Ok(DONE),
        }
    }

    /// Writes bytes as they are; a reader that has gone away ends the output quietly.
    ///
    /// # Errors
    /// The output cannot be written for another reason.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<u8, Failure> {
        match self.output.write_all(bytes).and_then(|()| self.output.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritten(&error)),
            _ => Ok(DONE),
        }
    }

    /// Writes a line for people.
    pub fn notice(&mut self, line: impl Display) {
        // Without standard error there is nowhere left to say anything.
        let _ = writeln!(self.notices, "{line}");
    }

    /// Shows an answer: as the API gave it, or as people read it. Gives the exit code 0.
    ///
    /// # Errors
    /// The answer is not what it should be, or cannot be written.
    pub fn show<T, S>(&mut self, json: bool, answer: &Answer, people: impl FnOnce(T) -> S) -> Result<u8, Failure>
    where
        T: DeserializeOwned,
        S: Display,
    {
        if json { self.json(&answer.json()?) } else { self.data(people(answer.read()?)) }
    }

    /// Shows that something is done: what the API gave for it, or a sentence for people. Gives the exit code 0.
    ///
    /// # Errors
    /// The answer is no JSON, or cannot be written.
    pub fn done(&mut self, json: bool, answer: &Answer, people: impl Display) -> Result<u8, Failure> {
        match answer.json()? {
            Value::Null if json => Ok(DONE),
            value if json => self.json(&value),
            value => {
                self.warnings(&value);
                self.data(people)
            }
        }
    }

    /// Says what the answer to a change warns of, as `check` does.
    pub fn warnings(&mut self, answer: &Value) {
        let warnings = answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        warnings.for_each(|warning| self.notice(format_args!("warning: {warning}")));
    }

    /// Writes JSON, indented.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn json(&mut self, value: &Value) -> Result<u8, Failure> {
        self.data(format_args!("{value:#}"))
    }

    /// Tells a failure: the daemon's own document with `json`, else sentences. Gives its exit code.
    pub fn failure(&mut self, json: bool, failure: &Failure) -> u8 {
        match failure {
            Failure::Refused(problem) if json => {
                self.notice(serde_json::to_string_pretty(problem).expect("strings and numbers become JSON"));
            }
            _ => failure.lines().into_iter().for_each(|line| self.notice(line)),
        }
        failure.code()
    }
}

/// The output cannot be written.
pub fn unwritten(error: &io::Error) -> Failure {
    Failure::No(format!("the output cannot be written: {error}"))
}
