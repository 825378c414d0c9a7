//! Topic filters: what a subscription asks for, and what a handler is allowed to publish to.
//!
//! Owns: the rules of a filter and what one filter means: which names it matches, which filters it covers, what its
//! wildcards captured. Fed by the configuration and the command line. Finding the filters of a name among many is
//! `trie.rs`; which of them is best is `rank.rs`.

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
        check_wildcards(&text, start)?;
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

    /// Whether it has `+` or `#`.
    pub fn has_wildcard(&self) -> bool {
        // A wildcard stands alone in its level, and a share name holds none.
        self.text.contains(['+', '#'])
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
                (Some(level), Some(name)) if level == name => {}
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
        // `#` matches its parent level, so this is `#` in other words; the walk below would not see that.
        if self.unshared() == "+/#" {
            return true;
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

    /// Whether some topic name is matched by both. Shares are not compared.
    pub fn overlaps(&self, other: &TopicFilter) -> bool {
        let (mut mine, mut theirs) = (self.levels(), other.levels());
        let mut first = true;
        loop {
            // A wildcard in the first level matches no name that starts with `$` (MQTT 5 §4.7.2).
            let free = |level: &str| !(first && level.starts_with('$'));
            match (mine.next(), theirs.next()) {
                // `/#` has the parent level too, but a name of one empty level does not exist.
                (Some("#"), None) | (None, Some("#")) => return !(self.is_below_empty() || other.is_below_empty()),
                (Some("#"), Some(level)) | (Some(level), Some("#")) => return free(level),
                (Some("+"), Some(level)) | (Some(level), Some("+")) if free(level) => {}
                (Some(a), Some(b)) if a == b => {}
                (None, None) => return true,
                _ => return false,
            }
            first = false;
        }
    }

    fn is_below_empty(&self) -> bool {
        self.unshared() == "/#"
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

/// Wildcards stand alone in their level, `#` in the last (MQTT 5 §4.7.1). The filter proper begins at `start`.
fn check_wildcards(text: &str, start: usize) -> Result<(), FilterError> {
    let mut end = start;
    for level in text[start..].split('/') {
        end += level.len();
        if level == "#" {
            if end < text.len() {
                return Err(FilterError::HashNotLast { instead: text[..end].to_owned() });
            }
        } else if level != "+" && level.contains(['+', '#']) {
            let wildcard = if level.contains('#') { '#' } else { '+' };
            return Err(FilterError::WildcardInLevel { wildcard, level: level.to_owned() });
        }
        end += "/".len();
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
    /// MQTT 5 §4.7.1.2 [MQTT-4.7.1-1], §4.7.1.3 [MQTT-4.7.1-2].
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::testing::{filter, filter_text, naive_match, name, name_text, name_with_two_filters};

    #[track_caller]
    fn check<T: PartialEq + fmt::Debug>(found: T, expected: T) {
        assert_eq!(found, expected);
    }

    fn error(text: &str) -> FilterError {
        TopicFilter::new(text).expect_err(text)
    }

    #[test]
    fn wildcards_stand_alone_and_hash_stands_last() {
        check(error(""), FilterError::Text(NameError::Empty));
        check(error("a\0"), FilterError::Text(NameError::Nul { at: 1 }));
        check(error("a/#/b"), FilterError::HashNotLast { instead: "a/#".to_owned() });
        check(error("#/"), FilterError::HashNotLast { instead: "#".to_owned() });
        check(error("$share/g/é/#/b"), FilterError::HashNotLast { instead: "$share/g/é/#".to_owned() });
        check(error("a/b+/c"), FilterError::WildcardInLevel { wildcard: '+', level: "b+".to_owned() });
        check(error("a/b#"), FilterError::WildcardInLevel { wildcard: '#', level: "b#".to_owned() });
        check(error("+#"), FilterError::WildcardInLevel { wildcard: '#', level: "+#".to_owned() });
        for text in ["#", "+", "/", "+/+", "a/+/#", "/+/", "$SYS/#", "a b/ü"] {
            check(filter(text).as_str(), text);
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        check(error("a/#/b").to_string().as_str(), "'#' must be the last level (MQTT 5 §4.7.1.2); use \"a/#\"");
        check(error("a/b+").to_string().as_str(), "'+' must be a level of its own, not part of \"b+\" (MQTT 5 §4.7.1)");
    }

    #[test]
    fn a_shared_subscription_has_a_name_and_a_filter() {
        let shared = |text: &str| {
            let filter = filter(text);
            (filter.share().map(str::to_owned), filter.unshared().to_owned())
        };
        check(shared("$share/g/a/+"), (Some("g".to_owned()), "a/+".to_owned()));
        check(shared("$share/g//"), (Some("g".to_owned()), "/".to_owned()));
        check(shared("$share/g/$SYS/#"), (Some("g".to_owned()), "$SYS/#".to_owned()));
        check(shared("$shared/g/a"), (None, "$shared/g/a".to_owned()));
        check(shared("$share"), (None, "$share".to_owned()));
        check(error("$share/"), FilterError::ShareWithoutFilter);
        check(error("$share/g"), FilterError::ShareWithoutFilter);
        check(error("$share/g/"), FilterError::ShareWithoutFilter);
        check(error("$share//a"), FilterError::ShareName);
        check(error("$share/g+/a"), FilterError::ShareName);
    }

    #[test]
    fn matching_follows_the_standard() {
        // The examples of MQTT 5 §4.7.1 and §4.7.2 first.
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("+/#", "a", true),
            ("a/+/#", "a", false),
            ("a//b", "a/b", false),
            ("a/+/b", "a//b", true),
            ("a/$x", "a/$x", true),
            ("a/+", "a/$x", true),
            ("A", "a", false),
            ("a", "a/", false),
            ("$share/g/a/+", "a/b", true),
        ];
        for (pattern, topic, expected) in cases {
            assert_eq!(filter(pattern).matches(&name(topic)), expected, "{pattern} {topic}");
        }
    }

    #[test]
    fn captures_are_what_the_wildcards_matched() {
        let captures = |pattern: &str, topic: &str| filter(pattern).captures(&name(topic));
        let some = |levels: &[&str]| Some(levels.iter().map(|&level| level.to_owned()).collect::<Vec<_>>());
        check(captures("a/b", "a/b"), some(&[]));
        check(captures("a/+/c/+", "a/b/c/"), some(&["b", ""]));
        check(captures("a/+/#", "a/b/c/d"), some(&["b", "c/d"]));
        check(captures("a/#", "a"), some(&[""]));
        check(captures("+/#", "a"), some(&["a", ""]));
        check(captures("#", "/a"), some(&["/a"]));
        check(captures("$share/g/+", "a"), some(&["a"]));
        check(captures("a/+", "b/c"), None);
    }

    #[test]
    fn covering_knows_the_dollar_rule_and_the_parent_level() {
        let cases = [
            ("#", "a/+", true),
            ("#", "$SYS/a", false),
            ("+/#", "$SYS/#", false),
            ("$SYS/#", "$SYS/+", true),
            ("+/#", "#", true),
            ("#", "+/#", true),
            ("+/+/#", "#", false),
            ("a/#", "a", true),
            ("a/+", "a/#", false),
            ("a/+", "a/+", true),
            ("a/b", "a/+", false),
            ("+", "#", false),
            ("a/+/#", "a/#", false),
        ];
        for (wide, narrow, expected) in cases {
            assert_eq!(filter(wide).covers(&filter(narrow)), expected, "{wide} {narrow}");
        }
    }

    /// Every name of up to three levels over an alphabet that has a level which no filter here spells out: enough to tell
    /// any two filters of at most two levels apart.
    fn all_short_names() -> Vec<TopicName> {
        let levels = ["a", "b", "", "$x", "other"];
        let mut texts: Vec<String> = levels.iter().map(|&level| level.to_owned()).collect();
        let mut longer = texts.clone();
        for _ in 0..2 {
            longer = longer.iter().flat_map(|head| levels.iter().map(move |tail| format!("{head}/{tail}"))).collect();
            texts.extend_from_slice(&longer);
        }
        texts.into_iter().filter_map(|text| TopicName::new(text).ok()).collect()
    }

    #[test]
    fn covering_is_exact_for_all_short_filters() {
        let levels = ["a", "b", "", "$x", "+", "#"];
        let pairs = levels.iter().flat_map(|head| levels.iter().map(move |tail| format!("{head}/{tail}")));
        let texts = levels.iter().map(|&level| level.to_owned()).chain(pairs);
        let filters: Vec<TopicFilter> = texts.filter_map(|text| TopicFilter::new(text).ok()).collect();
        let names = all_short_names();
        for wide in &filters {
            for narrow in &filters {
                let expected = names.iter().all(|name| !narrow.matches(name) || wide.matches(name));
                assert_eq!(wide.covers(narrow), expected, "{wide} {narrow}");
            }
        }
    }

    #[test]
    fn overlapping_is_exact_for_all_short_filters() {
        let levels = ["a", "b", "", "$x", "+", "#"];
        let pairs = levels.iter().flat_map(|head| levels.iter().map(move |tail| format!("{head}/{tail}")));
        let texts = levels.iter().map(|&level| level.to_owned()).chain(pairs);
        let filters: Vec<TopicFilter> = texts.filter_map(|text| TopicFilter::new(text).ok()).collect();
        let names = all_short_names();
        for one in &filters {
            for other in &filters {
                let expected = names.iter().any(|name| one.matches(name) && other.matches(name));
                assert_eq!(one.overlaps(other), expected, "{one} {other}");
            }
        }
    }

    proptest! {
        #[test]
        fn filters_of_one_name_overlap((topic, [one, other]) in name_with_two_filters(), third in filter_text()) {
            let (topic, one, other, third) = (name(&topic), filter(&one), filter(&other), filter(&third));
            prop_assert!(one.overlaps(&other) && other.overlaps(&one));
            prop_assert_eq!(one.overlaps(&third), third.overlaps(&one));
            prop_assert!(one.overlaps(&third) || !third.matches(&topic));
        }

        #[test]
        fn matching_agrees_with_the_naive_matcher(pattern in filter_text(), topic in name_text()) {
            prop_assert_eq!(filter(&pattern).matches(&name(&topic)), naive_match(&pattern, &topic));
        }

        #[test]
        fn a_covering_filter_matches_whatever_the_other_matches(
            wide in filter_text(), narrow in filter_text(), topic in name_text()
        ) {
            let (wide, narrow, topic) = (filter(&wide), filter(&narrow), name(&topic));
            prop_assert!(!(wide.covers(&narrow) && narrow.matches(&topic)) || wide.matches(&topic));
        }

        #[test]
        fn filling_the_captures_in_gives_the_name(pattern in filter_text(), topic in name_text()) {
            let (pattern, topic) = (filter(&pattern), name(&topic));
            let Some(captures) = pattern.captures(&topic) else {
                prop_assert!(!pattern.matches(&topic));
                return Ok(());
            };
            let mut captured = captures.iter();
            let mut filled = Vec::new();
            for level in pattern.levels() {
                filled.push(if matches!(level, "+" | "#") { captured.next().expect("one for each") } else { level });
            }
            prop_assert!(captured.next().is_none());
            let mut filled = filled.join("/");
            if pattern.is_multi_level() && captures.last().is_some_and(String::is_empty) && filled != topic.as_str() {
                filled.truncate(filled.len() - 1); // `#` matched the parent level itself.
            }
            prop_assert_eq!(filled, topic.as_str());
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            if let (Ok(pattern), Ok(topic)) = (TopicFilter::new(text.as_str()), TopicName::new(text.as_str())) {
                // Without a wildcard a text is both, and matches itself, unless it is a share.
                prop_assert_eq!(pattern.matches(&topic), pattern.share().is_none());
            }
        }
    }
}
