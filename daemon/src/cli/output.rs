//! Writing to standard output and standard error, for every command.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

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

/// An error and its causes, in one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Says why a command fails, with every cause, and gives its exit code.
pub fn failure(error: &dyn Error, code: u8) -> ExitCode {
    notice(format_args!("error: {}", with_causes(error)));
    ExitCode::from(code)
}
