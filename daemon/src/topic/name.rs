//! Topic names: what a message is published to.
//!
//! Owns: the rules of a name, and those that names and filters share. Fed by the sessions, the configuration and the
//! handlers' publishes. It does not know what matches a name: that is `filter.rs` and `trie.rs`.

use std::fmt;
use std::sync::Arc;

/// Longest topic name or filter in bytes (MQTT 5 §1.5.4: a UTF-8 string has a two-byte length).
pub const MAX_BYTES: usize = 65_535;

/// A valid topic name (MQTT 5 §4.7): not empty, at most 65,535 bytes of UTF-8, no NUL, no wildcard. Cheap to clone.
///
/// Empty levels are levels: `/a` has two, `a//b` three.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// Says which rule of MQTT 5 §4.7 the text breaks.
    pub fn new(text: impl Into<Arc<str>>) -> Result<TopicName, NameError> {
        let text = text.into();
        check_length_and_nul(&text)?;
        match text.char_indices().find(|(_, c)| matches!(c, '+' | '#')) {
            Some((at, wildcard)) => Err(NameError::Wildcard { wildcard, at }),
            None => Ok(TopicName(text)),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic levels, at least one; any may be empty.
    pub fn levels(&self) -> std::str::Split<'_, char> {
        self.0.split('/')
    }

    /// Whether only filters whose first level is the same literal match (MQTT 5 §4.7.2).
    pub fn is_system(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Rules that names and filters share (MQTT 5 §4.7.3).
pub(super) fn check_length_and_nul(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(NameError::TooLong { bytes: text.len() });
    }
    match text.find('\0') {
        Some(at) => Err(NameError::Nul { at }),
        None => Ok(()),
    }
}

/// Why a text is not a topic name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// MQTT 5 §4.7.3 [MQTT-4.7.3-1].
    #[error("must not be empty (MQTT 5 §4.7.3)")]
    Empty,
    /// MQTT 5 §4.7.3 [MQTT-4.7.3-3].
    #[error("has {bytes} bytes, more than 65535 (MQTT 5 §4.7.3)")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// MQTT 5 §4.7.3 [MQTT-4.7.3-2].
    #[error("has the character U+0000 at byte {at} (MQTT 5 §4.7.3)")]
    Nul {
        /// Offset in bytes.
        at: usize,
    },
    /// MQTT 5 §4.7.1 [MQTT-4.7.0-1].
    #[error("has the wildcard '{wildcard}' at byte {at}, which only a topic filter may have (MQTT 5 §4.7.1)")]
    Wildcard {
        /// `+` or `#`.
        wildcard: char,
        /// Offset in bytes.
        at: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&[&str], NameError>) {
        match (TopicName::new(text), expected) {
            (Ok(name), Ok(levels)) => {
                assert_eq!(name.levels().collect::<Vec<_>>(), levels);
                assert_eq!(name.as_str(), text);
            }
            (found, expected) => assert_eq!(found.err(), expected.err(), "{text:?}"),
        }
    }

    #[test]
    fn empty_levels_are_levels() {
        check("a", Ok(&["a"]));
        check("a/b", Ok(&["a", "b"]));
        check("/a", Ok(&["", "a"]));
        check("a//b/", Ok(&["a", "", "b", ""]));
        check("/", Ok(&["", ""]));
        check("größe/温度/ ", Ok(&["größe", "温度", " "]));
    }

    #[test]
    fn invalid_names_say_what_and_where() {
        check("", Err(NameError::Empty));
        check("a\0", Err(NameError::Nul { at: 1 }));
        check("é/+", Err(NameError::Wildcard { wildcard: '+', at: 3 }));
        check("a#b", Err(NameError::Wildcard { wildcard: '#', at: 1 }));
        check(&"x".repeat(MAX_BYTES + 1), Err(NameError::TooLong { bytes: MAX_BYTES + 1 }));
        assert!(TopicName::new("/".repeat(MAX_BYTES)).is_ok());
    }

    #[test]
    fn errors_read_as_sentences_after_the_value() {
        let said = |text: &str| TopicName::new(text).expect_err("invalid").to_string();
        assert_eq!(said(""), "must not be empty (MQTT 5 §4.7.3)");
        assert_eq!(said("a/+"), "has the wildcard '+' at byte 2, which only a topic filter may have (MQTT 5 §4.7.1)");
    }

    #[test]
    fn only_a_leading_dollar_makes_a_system_topic() {
        for (text, system) in [("$SYS/x", true), ("$", true), ("a/$SYS", false), ("/$SYS", false)] {
            assert_eq!(TopicName::new(text).expect("valid").is_system(), system, "{text}");
        }
    }
}
