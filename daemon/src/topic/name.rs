//! Topic names: what a message is published to.

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
    /// MQTT 5 §4.7.1 [MQTT-4.7.1-1].
    #[error("has the wildcard '{wildcard}' at byte {at}, which only a topic filter may have (MQTT 5 §4.7.1)")]
    Wildcard {
        /// `+` or `#`.
        wildcard: char,
        /// Offset in bytes.
        at: usize,
    },
}
