//! Topic filters: what a subscription asks for.

use std::fmt;
use std::sync::Arc;

use super::name::{NameError, TopicName, check_length_and_nul};

/// A valid topic filter (MQTT 5 §4.7), with `$share/NAME/` in front for a shared subscription (§4.8.2). Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter {
    /// As written, the share included.
    text: Arc<str>,
    /// Where the filter proper begins: after `$share/NAME/`.
    start: usize,
}

impl TopicFilter {
    /// Checks and takes a filter.
    ///
    /// # Errors
    /// Says which rule of MQTT 5 §4.7 or §4.8.2 the text breaks, and what to write.
    pub fn new(text: impl Into<Arc<str>>) -> Result<TopicFilter, FilterError> {
        let text = text.into();
        check_length_and_nul(&text)?;
        let start = if text.starts_with("$share/") { share_prefix(&text)? } else { 0 };
        check_wildcards(&text[start..])?;
        Ok(TopicFilter { text, start })
    }

    /// The filter as written, with its share.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The share name of a shared subscription.
    pub fn share(&self) -> Option<&str> {
        (self.start > 0).then(|| &self.text["$share/".len()..self.start - 1])
    }

    /// The filter without its share: what topic names are matched against.
    pub fn unshared(&self) -> &str {
        &self.text[self.start..]
    }

    /// The levels of [`Self::unshared`], at least one; any may be empty.
    pub fn levels(&self) -> std::str::Split<'_, char> {
        self.unshared().split('/')
    }

    /// Whether it ends in `#`.
    pub fn is_multi_level(&self) -> bool {
        self.unshared().ends_with('#')
    }

    /// Whether a message with this topic name reaches a subscriber of this filter.
    ///
    /// `#` also matches its parent level (MQTT 5 §4.7.1.2), and a filter that starts with a wildcard matches no topic that
    /// starts with `$` (§4.7.2).
    pub fn matches(&self, topic: &TopicName) -> bool {
        let mut filter = self.levels();
        let mut names = topic.levels();
        let mut first = true;
        loop {
            match (filter.next(), names.next()) {
                (Some("#"), _) => return !(first && topic.is_system()),
                (Some("+"), Some(_)) if !(first && topic.is_system()) => {}
                (Some(level), Some(name)) if level == name && level != "+" => {}
                (None, None) => return true,
                _ => return false,
            }
            first = false;
        }
    }

    /// Whether every topic name that `other` matches is matched by this one too. Shares are not compared.
    pub fn covers(&self, other: &TopicFilter) -> bool {
        if other.unshared().starts_with('$') && self.unshared().starts_with(['+', '#']) {
            return false;
        }
        let mut mine = self.levels();
        let mut theirs = other.levels();
        loop {
            match (mine.next(), theirs.next()) {
                (Some("#"), _) => return true,
                (Some("+"), Some(level)) if level != "#" => {}
                (Some(a), Some(b)) if a == b && a != "+" => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    /// What the wildcards matched, in order, if the topic name matches: a level for each `+`, and one entry for what `#`
    /// matched, empty for the parent level itself.
    pub fn captures(&self, topic: &TopicName) -> Option<Vec<String>> {
        if !self.matches(topic) {
            return None;
        }
        let mut captures = Vec::new();
        let mut rest = Some(topic.as_str());
        for level in self.levels() {
            if level == "#" {
                captures.push(rest.unwrap_or_default().to_owned());
                break;
            }
            let text = rest.unwrap_or_default();
            let (head, tail) = text.split_once('/').map_or((text, None), |(head, tail)| (head, Some(tail)));
            if level == "+" {
                captures.push(head.to_owned());
            }
            rest = tail;
        }
        Some(captures)
    }
}

/// The length of `$share/NAME/`, checked by MQTT 5 §4.8.2.
fn share_prefix(text: &str) -> Result<usize, FilterError> {
    let after = &text["$share/".len()..];
    let (name, filter) = after.split_once('/').ok_or(FilterError::ShareWithoutFilter)?;
    if name.is_empty() || name.contains(['+', '#']) {
        return Err(FilterError::ShareName);
    }
    if filter.is_empty() {
        return Err(FilterError::ShareWithoutFilter);
    }
    Ok("$share/".len() + name.len() + 1)
}

/// Wildcards stand alone in their level, `#` in the last (MQTT 5 §4.7.1).
fn check_wildcards(filter: &str) -> Result<(), FilterError> {
    let mut levels = filter.split('/').peekable();
    let mut kept = Vec::new();
    while let Some(level) = levels.next() {
        if level == "#" {
            if levels.peek().is_some() {
                kept.push("#");
                return Err(FilterError::HashNotLast { instead: kept.join("/") });
            }
        } else if level != "+" && level.contains(['+', '#']) {
            let wildcard = if level.contains('#') { '#' } else { '+' };
            return Err(FilterError::WildcardInLevel { wildcard, level: level.to_owned() });
        }
        kept.push(level);
    }
    Ok(())
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// Why a text is not a topic filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A rule that names have too.
    #[error(transparent)]
    Text(#[from] NameError),
    /// MQTT 5 §4.7.1.2 [MQTT-4.7.1-1].
    #[error("'#' must be the last level (MQTT 5 §4.7.1.2); use \"{instead}\"")]
    HashNotLast {
        /// The filter up to its first `#`.
        instead: String,
    },
    /// MQTT 5 §4.7.1.2, §4.7.1.3.
    #[error("'{wildcard}' must be a level of its own, not part of \"{level}\" (MQTT 5 §4.7.1)")]
    WildcardInLevel {
        /// `+` or `#`.
        wildcard: char,
        /// The level that holds it.
        level: String,
    },
    /// MQTT 5 §4.8.2 [MQTT-4.8.2-1], [MQTT-4.8.2-2].
    #[error("the share name must have a character and no wildcard (MQTT 5 §4.8.2); use \"$share/NAME/FILTER\"")]
    ShareName,
    /// MQTT 5 §4.8.2 [MQTT-4.8.2-2].
    #[error("a shared subscription needs a filter (MQTT 5 §4.8.2); use \"$share/NAME/FILTER\"")]
    ShareWithoutFilter,
}
