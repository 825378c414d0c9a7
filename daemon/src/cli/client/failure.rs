//! Why a command does not do what it was asked, and the exit code that tells it.
//!
//! Made by the client and by the commands; told by [`Console`](crate::cli::console::Console).

use crate::cli::{NO, REFUSED, UNREACHABLE, WRONG_USE};
use crate::control::admin::resource::ProblemDocument;
use crate::printable::printable;

/// Longest part of an error that is shown, in bytes: a broker's reason may stand in it.
const MAX_SHOWN: usize = 4_096;

/// Why a command fails.
#[derive(Debug)]
pub enum Failure {
    /// The answer is no, or something on this side fails, such as writing a file.
    No(String),
    /// The command line asks for what cannot be.
    WrongUse(String),
    /// A configuration cannot be used: its problems, a line each.
    Configuration(String),
    /// No daemon answers, or what answers is none.
    Unreachable {
        /// Its socket or URL.
        at: String,
        /// What happened.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The daemon says no.
    Refused(Box<ProblemDocument>),
}

impl Failure {
    /// What is chosen here from a list of the daemon's is not in it: as the daemon says it of a name.
    pub fn not_found(detail: String, remedy: String) -> Failure {
        Failure::Refused(Box::new(ProblemDocument {
            kind: "urn:tidegate:problem:not-found".to_owned(),
            title: "there is no such object".to_owned(),
            status: 404,
            detail,
            remedy: Some(remedy),
            problems: Vec::new(),
        }))
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::No(_) => NO,
            Failure::WrongUse(_) | Failure::Configuration(_) => WRONG_USE,
            Failure::Unreachable { .. } => UNREACHABLE,
            Failure::Refused(_) => REFUSED,
        }
    }

    /// What is in the way and what to do, without control characters; further lines are the problems of a configuration.
    pub fn lines(&self) -> Vec<String> {
        let (first, further): (String, &[String]) = match self {
            Failure::No(text) | Failure::WrongUse(text) => (text.clone(), &[]),
            Failure::Configuration(problems) => {
                return problems.lines().map(|line| printable(line, MAX_SHOWN).into_owned()).collect();
            }
            Failure::Unreachable { at, reason, remedy } => {
                (format!("cannot reach the daemon at {at}: {reason}; {remedy}"), &[])
            }
            Failure::Refused(problem) => {
                let remedy = problem.remedy.as_deref().filter(|remedy| !remedy.is_empty());
                let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
                (format!("{}{remedy}", problem.detail), &problem.problems)
            }
        };
        let further = further.iter().map(|line| format!("  {line}"));
        let lines = std::iter::once(format!("error: {first}")).chain(further);
        lines.map(|line| printable(&line, MAX_SHOWN).into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(detail: &str, remedy: Option<&str>, problems: &[&str]) -> Failure {
        Failure::Refused(Box::new(ProblemDocument {
            kind: "urn:tidegate:problem:invalid".to_owned(),
            title: "not valid".to_owned(),
            status: 422,
            detail: detail.to_owned(),
            remedy: remedy.map(str::to_owned),
            problems: problems.iter().map(|line| (*line).to_owned()).collect(),
        }))
    }

    #[track_caller]
    fn check(failure: &Failure, code: u8, lines: &[&str]) {
        assert_eq!((failure.code(), failure.lines()), (code, lines.iter().map(|line| (*line).to_owned()).collect()));
    }

    #[test]
    fn a_failure_says_what_to_do() {
        check(&Failure::No("the file is full".into()), 1, &["error: the file is full"]);
        check(&Failure::WrongUse("no".into()), 2, &["error: no"]);
        check(&Failure::Configuration("t:1: a\nt:2: b".into()), 2, &["t:1: a", "t:2: b"]);
        let unreachable =
            Failure::Unreachable { at: "/run/x.sock".into(), reason: "it is gone".into(), remedy: "start it".into() };
        check(&unreachable, 3, &["error: cannot reach the daemon at /run/x.sock: it is gone; start it"]);
        check(&refused("it is there", Some("use set"), &[]), 4, &["error: it is there; use set"]);
        check(&refused("it is there", None, &[]), 4, &["error: it is there"]);
        check(&refused("not valid", Some(""), &["a: b", "c"]), 4, &["error: not valid", "  a: b", "  c"]);
    }

    #[test]
    fn what_a_broker_says_cannot_break_out_of_its_line() {
        check(&refused("it says \"a\nb\u{1b}[2J\"", None, &[]), 4, &["error: it says \"a\\nb\\u{1b}[2J\""]);
    }
}
