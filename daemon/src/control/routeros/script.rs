//! The `on-message` scripts that Tidegate has words for: a line in the log, under a condition on the payload.
//!
//! Owns: the recognition, and the keys of a subscription that do the same. Fed by `write.rs` with a script; what it does not
//! recognise from the first character to the last is left to a person. It runs nothing.

use std::path::Path;

use regex::escape;

use super::lexer::{Part, Scanner, decode};
use super::write::quote;
use crate::control::config;

/// What stands in for a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suggestion {
    /// The value of `when`.
    pub(super) when: Option<String>,
    /// The value of `on-message`; none where only the condition was recognised.
    pub(super) log: Option<String>,
    /// The log level of RouterOS, where it is not `info`.
    pub(super) level: Option<&'static str>,
}

/// Levels of RouterOS' `:log`.
const LEVELS: [&str; 4] = ["info", "warning", "error", "debug"];

/// The suggestion for a script, which `tidegate check` accepts.
pub(super) fn recognise(script: &str) -> Option<Suggestion> {
    let mut reader = Reader(Scanner::new(script));
    reader.skip();
    // A script that is a group of commands: there may be one such pair of braces.
    let suggestion = if reader.0.rest().starts_with('{') {
        let inside = reader.0.balanced().ok()?;
        reader.at_end().then_some(())?;
        reader = Reader(Scanner::new(inside));
        reader.skip();
        reader.script()
    } else {
        reader.script()
    }?;
    (reader.at_end() && is_accepted(&suggestion)).then_some(suggestion)
}

/// The configuration's own opinion: RouterOS' expressions are POSIX', and any text may stand in a template.
fn is_accepted(suggestion: &Suggestion) -> bool {
    let Suggestion { when, log, .. } = suggestion;
    let mut toml = "[brokers.a]\naddress = \"a\"\n[[subscriptions]]\nbroker = \"a\"\ntopic = \"a\"\n".to_owned();
    for (key, value) in [("when", when), ("on-message", log)] {
        value.iter().for_each(|value| toml += &format!("{key} = {value}\n"));
    }
    config::load_text(Path::new("tidegate.toml"), &toml, "").is_ok()
}

struct Reader<'a>(Scanner<'a>);

impl Reader<'_> {
    /// Skips what means nothing within a command.
    fn skip(&mut self) {
        while !self.0.take_while(char::is_whitespace).is_empty() {
            self.0.skip_blanks();
        }
        self.0.skip_blanks();
    }

    /// Takes a word of the language.
    fn eat(&mut self, word: &str) -> bool {
        let found = self.0.eat(word);
        self.skip();
        found
    }

    fn at_end(&mut self) -> bool {
        self.0.take_while(|c| c.is_whitespace() || c == ';');
        self.0.rest().is_empty()
    }

    fn script(&mut self) -> Option<Suggestion> {
        if !self.eat(":if") {
            let (level, log) = self.log()?;
            return Some(Suggestion { when: None, log: Some(log), level });
        }
        let when = self.condition()?;
        let when = Some(format!("{{ payload = {} }}", quote(&when)));
        if !(self.eat("do") && self.eat("=") && self.0.rest().starts_with('{')) {
            return None;
        }
        let mut body = Reader(Scanner::new(self.0.balanced().ok()?));
        body.skip();
        match body.log() {
            Some((level, log)) if body.at_end() => Some(Suggestion { when, log: Some(log), level }),
            _ => Some(Suggestion { when, log: None, level: None }),
        }
    }

    /// `:log info "…"`: its level and the value of `on-message`.
    fn log(&mut self) -> Option<(Option<&'static str>, String)> {
        (self.eat(":log") || self.eat("/log")).then_some(())?;
        let level = LEVELS.into_iter().find(|level| self.eat(level))?;
        if self.eat("message") {
            self.eat("=").then_some(())?;
        }
        let mut template = String::new();
        for part in self.expression()? {
            match part {
                Part::Text(bytes) => match decode(bytes) {
                    (text, false) => template += &text.replace('{', "{{").replace('}', "}}"),
                    (_, true) => return None,
                },
                Part::Variable(name) => template += placeholder(&name)?,
                Part::Expression => return None,
            }
        }
        Some(((level != "info").then_some(level), format!("{{ log = {} }}", quote(&template))))
    }

    /// `($msgData ~ "…")` or `($msgData = "…")`, as a regular expression.
    fn condition(&mut self) -> Option<String> {
        let parenthesised = self.eat("(");
        matches!(self.operand()?.as_slice(), [Part::Variable(name)] if name == "msgData").then_some(())?;
        let search = self.eat("~");
        if !search {
            self.eat("=").then_some(())?;
        }
        let text = match <[Part; 1]>::try_from(self.operand()?) {
            Ok([Part::Text(bytes)]) => match decode(bytes) {
                (text, false) => text,
                (_, true) => return None,
            },
            _ => return None,
        };
        if parenthesised && !self.eat(")") {
            return None;
        }
        // Like RouterOS, without respect to lines.
        Some(if search { text } else { format!(r"\A{}\z", escape(&text)) })
    }

    /// A text or variable, or several in parentheses, joined by dots.
    fn expression(&mut self) -> Option<Vec<Part>> {
        if !self.eat("(") {
            return self.operand();
        }
        let mut parts = self.operand()?;
        while self.eat(".") {
            parts.extend(self.operand()?);
        }
        self.eat(")").then_some(parts)
    }

    fn operand(&mut self) -> Option<Vec<Part>> {
        let parts = match self.0.rest().chars().next()? {
            '"' => self.0.quoted().ok()?,
            '$' => {
                self.0.eat("$");
                vec![self.0.variable()?]
            }
            _ => return None,
        };
        self.skip();
        Some(parts)
    }
}

/// The placeholder of a template for a variable of RouterOS.
fn placeholder(variable: &str) -> Option<&'static str> {
    match variable {
        "msgData" => Some("{payload}"),
        "msgTopic" => Some("{topic}"),
        _ => None,
    }
}
