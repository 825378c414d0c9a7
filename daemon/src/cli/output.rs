//! Writing to standard output and standard error, for every command.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::causes::with_causes;

/// Writes a line of data. A reader that has gone away, as `head` does, ends the output quietly.
pub fn data(line: impl std::fmt::Display) {
    // An error here means that nobody reads any more; the exit code still tells the answer.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes a line for people.
pub fn notice(line: impl std::fmt::Display) {
    // Without standard error there is nowhere left to say anything.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Says why a command fails, with every cause, and gives its exit code.
pub fn failure(error: &dyn Error, code: u8) -> ExitCode {
    notice(format_args!("error: {}", with_causes(error)));
    ExitCode::from(code)
}
