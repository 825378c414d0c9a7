//! Templates of log lines: `{ log = "Got data {payload} from topic {topic}" }`.
//!
//! Owns: the placeholders that such a line may have and how a message fills them. Parsed with the configuration; rendered
//! by the dispatch. What a message brings cannot break out of its line: control and format characters are escaped.

use std::fmt::Write as _;

use crate::message::Message;
use crate::printable::push_escaped;

/// Bytes of a payload that a line shows; what is cut off is replaced by `…`.
pub const MAX_PAYLOAD: usize = 1024;

/// A valid template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTemplate {
    /// As it is written.
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Fill(Placeholder),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Payload,
    Topic,
    Broker,
    Subscription,
    Qos,
    Retain,
}

impl Placeholder {
    const ALL: [(&'static str, Placeholder); 6] = [
        ("payload", Placeholder::Payload),
        ("topic", Placeholder::Topic),
        ("broker", Placeholder::Broker),
        ("subscription", Placeholder::Subscription),
        ("qos", Placeholder::Qos),
        ("retain", Placeholder::Retain),
    ];

    fn named(name: &str) -> Result<Placeholder, TemplateError> {
        let found = Placeholder::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, placeholder)| *placeholder).ok_or_else(|| TemplateError::Unknown { name: name.to_owned() })
    }
}

impl LogTemplate {
    /// Checks and takes a template. `{{` and `}}` are braces.
    ///
    /// # Errors
    /// Says which brace or placeholder is wrong.
    pub fn new(text: &str) -> Result<LogTemplate, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(TemplateError::Unopened);
            }
            let (name, after) = rest.split_once('}').ok_or(TemplateError::Unclosed)?;
            let placeholder = Placeholder::named(name)?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Fill(placeholder));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(LogTemplate { text: text.to_owned(), parts })
    }

    /// The template as it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The placeholders that there are, as a list for people.
    pub fn placeholders() -> String {
        let names: Vec<String> = Placeholder::ALL.iter().map(|(name, _)| format!("{{{name}}}")).collect();
        names.join(", ")
    }

    /// The line for one message: its payload as UTF-8 with what is not replaced by U+FFFD, at most [`MAX_PAYLOAD`] bytes
    /// of it. `broker` and `subscription` are their names.
    pub fn render(&self, message: &Message, broker: &str, subscription: &str) -> String {
        let mut line = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Fill(Placeholder::Payload) => push_payload(&mut line, &message.payload),
                Part::Fill(Placeholder::Topic) => push_escaped(&mut line, message.topic.as_str()),
                Part::Fill(Placeholder::Broker) => push_escaped(&mut line, broker),
                Part::Fill(Placeholder::Subscription) => push_escaped(&mut line, subscription),
                Part::Fill(Placeholder::Qos) => {
                    write!(line, "{}", message.qos).expect("writing to a string cannot fail");
                }
                Part::Fill(Placeholder::Retain) => line.push_str(if message.retain { "true" } else { "false" }),
            }
        }
        line
    }
}

fn push_payload(line: &mut String, payload: &[u8]) {
    let mut end = payload.len().min(MAX_PAYLOAD);
    // Not within a character: step back over the continuation bytes (10xxxxxx) of the one that would be cut.
    while end < payload.len() && end > 0 && payload[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    push_escaped(line, &String::from_utf8_lossy(&payload[..end]));
    if end < payload.len() {
        line.push('…');
    }
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No message has such a value.
    #[error("unknown placeholder {{{name}}}; use {}", LogTemplate::placeholders())]
    Unknown {
        /// Between the braces.
        name: String,
    },
    /// A brace that stands for itself is written twice.
    #[error("a \"{{\" has no \"}}\"; close it, or write \"{{{{\" for a brace")]
    Unclosed,
    /// A brace that stands for itself is written twice.
    #[error("a \"}}\" has no \"{{\" before it; write \"}}}}\" for a brace")]
    Unopened,
}

#[cfg(test)]
mod tests {

    use super::*;

    fn message(payload: &[u8]) -> Message {
        Message { retain: true, ..Message::testing("a/\u{1}b", payload) }
    }

    #[test]
    fn lines() {
        let check = |template: &str, payload: &[u8], expected: &str| {
            let template = LogTemplate::new(template).expect("a template");
            assert_eq!(template.render(&message(payload), "plant", "all"), expected);
        };
        check("Got data {payload} from topic {topic}", b"21.5", "Got data 21.5 from topic a/\\u{1}b");
        check("{broker} {subscription} {qos} {retain}", b"", "plant all 1 true");
        check("{{{payload}}}", b"x", "{x}");
        check("", b"x", "");
        check("{payload}", b"one\ntwo\x1b[31m\xff", "one\\ntwo\\u{1b}[31m\u{fffd}");
        check("{payload}", "on\u{202e}ffo\u{200b}".as_bytes(), "on\\u{202e}ffo\\u{200b}");
    }

    #[test]
    fn a_long_payload_is_cut_between_characters() {
        let template = LogTemplate::new("{payload}").expect("a template");
        let check = |payload: &str, expected: &str| {
            assert_eq!(template.render(&message(payload.as_bytes()), "", ""), expected);
        };
        let whole = "x".repeat(MAX_PAYLOAD);
        check(&whole, &whole);
        check(&format!("{whole}y"), &format!("{whole}…"));
        check(&format!("{}ä", &whole[1..]), &format!("{}…", &whole[1..]));
    }

    #[test]
    fn mistakes() {
        let check = |template: &str, expected: &str| {
            assert_eq!(LogTemplate::new(template).expect_err(template).to_string(), expected);
        };
        let known = "use {payload}, {topic}, {broker}, {subscription}, {qos}, {retain}";
        check("{data}", &format!("unknown placeholder {{data}}; {known}"));
        check("{}", &format!("unknown placeholder {{}}; {known}"));
        check("{payload", "a \"{\" has no \"}\"; close it, or write \"{{\" for a brace");
        check("payload}", "a \"}\" has no \"{\" before it; write \"}}\" for a brace");
    }
}
