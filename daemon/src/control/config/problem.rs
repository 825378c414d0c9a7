//! What is wrong with a configuration, and where: `file:line:column: field = value: problem; remedy`.
//!
//! Owns: the form of a problem on a terminal and in JSON. Made by the reader and its sections, and by later checks
//! through [`Origin::problem`]; printed by `check`, logged by `run`. It holds values as they are written in the file,
//! never what an interpolation made of them, and masks the value of fields that hold secrets.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::printable::{is_hidden, push_escaped};

/// Longest value that a problem repeats, in characters.
const MAX_SHOWN: usize = 80;

/// What stands in place of a secret value.
pub(super) const MASK: &str = "***";

/// A place in a configuration file, or the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file as it was named on the command line; those of `conf.d` follow its folder.
    pub file: String,
    /// None is the whole file.
    #[serde(flatten)]
    pub position: Option<Position>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match self.position {
            Some(Position { line, column }) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

/// Line and column of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// Where a value of the configuration comes from, kept for checks that need more than the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where the value stands; for a missing one, where its table begins.
    pub place: Place,
    /// The path of keys, such as `brokers.plant.port`. Elements of arrays count from 0 in each file.
    pub field: String,
    /// The value as written, on one line and shortened; none for tables, missing keys and broken syntax.
    pub value: Option<String>,
}

impl Origin {
    /// A problem with this value.
    pub fn problem(&self, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        // Both may repeat what stands in a file, such as the name of a handler.
        Problem { origin: self.clone(), message: one_line(&message.into()), remedy: one_line(&remedy.into()) }
    }
}

/// One thing that is wrong, or looks wrong, with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is about.
    pub origin: Origin,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to write or do; may be empty where the message says all.
    pub remedy: String,
}

impl Problem {
    /// What is wrong, without the remedy; and without the place, where that is in a file that the reader has never written.
    pub fn sentence(&self, unfamiliar: &Path) -> String {
        let Origin { place, field, value } = &self.origin;
        let place = if Path::new(&place.file) == unfamiliar { String::new() } else { format!("{place}: ") };
        match (field.as_str(), value) {
            ("", _) => format!("{place}{}", self.message),
            (field, None) => format!("{place}{field}: {}", self.message),
            (field, Some(value)) => format!("{place}{field} = {value}: {}", self.message),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence(Path::new("")))?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl Serialize for Problem {
    /// The fields of [`Place`], `field`, `value`, `message`, `remedy`, and `text`: the line for people.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json<'a> {
            #[serde(flatten)]
            place: &'a Place,
            field: &'a str,
            value: Option<&'a str>,
            message: &'a str,
            remedy: &'a str,
            text: String,
        }
        let Origin { place, field, value } = &self.origin;
        Json {
            place,
            field,
            value: value.as_deref(),
            message: &self.message,
            remedy: &self.remedy,
            text: self.to_string(),
        }
        .serialize(serializer)
    }
}

/// A value as a problem shows it: on one line, and not longer than a line can hold.
pub(super) fn shown(written: &str) -> String {
    let mut shown = String::new();
    for (count, character) in written.chars().enumerate() {
        // What a string with several lines holds may not be what was meant to stand in it: a password of a later line.
        if count == MAX_SHOWN || character == '\n' {
            shown.push('…');
            break;
        }
        if is_hidden(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    push_escaped(&mut line, text);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line() {
        let place = Place { file: "a.toml".into(), position: Some(Position { line: 3, column: 8 }) };
        let origin = Origin { place, field: "brokers.x.port".into(), value: Some(shown("\"a\tb\"")) };
        let problem = origin.problem("is wrong", "use 1");
        assert_eq!(problem.to_string(), "a.toml:3:8: brokers.x.port = \"a\\tb\": is wrong; use 1");
        assert_eq!(
            problem.origin.problem("is\nwrong", "\u{1b}").to_string(),
            "a.toml:3:8: brokers.x.port = \"a\\tb\": is\\nwrong; \\u{1b}"
        );
        let json = serde_json::to_value(&problem).expect("serialises");
        assert_eq!(json["line"], 3);
        assert_eq!(json["file"], "a.toml");
        assert_eq!(json["text"], problem.to_string());
    }

    #[test]
    fn a_long_value_is_shortened() {
        assert_eq!(shown("\"\"\"one\ntwo\"\"\""), "\"\"\"one…");
        assert_eq!(shown(&"é".repeat(100)), format!("{}…", "é".repeat(MAX_SHOWN)));
    }
}
