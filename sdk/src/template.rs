//! Topics that are made from a message: `cloud/{broker}/{1}`.
//!
//! Owns: the little language and its errors. Fed by a handler's configuration; used by the author's code.

use serde::{Deserialize, Deserializer, de};

use crate::{Message, Result, reject};

/// A topic with gaps that a message fills.
///
/// | gap | becomes |
/// |---|---|
/// | `{topic}` | the message's topic |
/// | `{broker}` | the name of the broker that it came from |
/// | `{1}`, `{2}`, … | what the subscription's first, second, … wildcard matched |
/// | `{{`, `}}` | a brace |
///
/// As a field of a configuration it is checked when the configuration is read.
///
/// ```
/// use tidegate_sdk::{TopicTemplate, testing::message};
///
/// let mut reading = message("site/7/temp", "21.5");
/// reading.captures = vec!["7".into(), "temp".into()]; // from site/+/+
///
/// let template: TopicTemplate = "cloud/{2}/{1}".parse()?;
/// assert_eq!(template.fill(&reading), Ok("cloud/temp/7".to_owned()));
/// # Ok::<(), tidegate_sdk::TemplateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    Broker,
    /// Counted from 0.
    Capture(usize),
}

/// Why a text is not a [`TopicTemplate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// What stands between the braces means nothing.
    #[error("{{{0}}} is not known; use {{topic}}, {{broker}} or {{1}}, {{2}}, … for wildcards")]
    UnknownGap(String),
    /// A brace without its partner.
    #[error("'{0}' has no partner; write it twice for a brace of the topic")]
    LoneBrace(char),
    /// Only gaps are filled; a topic to publish to has no wildcard.
    #[error("'{0}' is a wildcard, which only a topic filter may have")]
    Wildcard(char),
}

impl TopicTemplate {
    /// The topic for this message.
    ///
    /// # Errors
    /// A rejection where the template asks for a capture that the message's subscription has no wildcard for.
    pub fn fill(&self, message: &Message) -> Result<String> {
        let mut topic = String::new();
        for part in &self.0 {
            topic.push_str(match part {
                Part::Text(text) => text,
                Part::Topic => &message.topic,
                Part::Broker => &message.broker,
                Part::Capture(place) => message.captures.get(*place).ok_or_else(|| {
                    let (gap, subscription, count) = (place + 1, &message.subscription, message.captures.len());
                    reject(format!(
                        "the topic asks for {{{gap}}}, but subscription \"{subscription}\" captures {count}"
                    ))
                })?,
            });
        }
        Ok(topic)
    }
}

impl std::str::FromStr for TopicTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<TopicTemplate, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            rest = after;
            match c {
                '{' | '}' if after.starts_with(c) => {
                    literal.push(c);
                    rest = &after[1..];
                }
                '{' => {
                    let (name, behind) = after.split_once('}').ok_or(TemplateError::LoneBrace('{'))?;
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(gap(name)?);
                    rest = behind;
                }
                '}' => return Err(TemplateError::LoneBrace('}')),
                '+' | '#' => return Err(TemplateError::Wildcard(c)),
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(TopicTemplate(parts))
    }
}

fn gap(name: &str) -> Result<Part, TemplateError> {
    match (name, name.parse::<usize>().ok().and_then(|number| number.checked_sub(1))) {
        ("topic", _) => Ok(Part::Topic),
        ("broker", _) => Ok(Part::Broker),
        (_, Some(place)) => Ok(Part::Capture(place)),
        _ => Err(TemplateError::UnknownGap(name.to_owned())),
    }
}

impl<'de> Deserialize<'de> for TopicTemplate {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<TopicTemplate, D::Error> {
        String::deserialize(source)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, expected: Result<&str, &str>) {
        let mut message = crate::testing::message("a/b/c", "");
        message.broker = "plant".into();
        message.captures = vec!["b".into(), String::new()];
        let topic = template.parse::<TopicTemplate>().map_err(|error| error.to_string());
        let topic = topic.and_then(|template| template.fill(&message).map_err(|error| error.to_string()));
        assert_eq!(topic.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn gaps_are_filled() {
        check("", Ok(""));
        check("plain/ä", Ok("plain/ä"));
        check("{topic}", Ok("a/b/c"));
        check("x/{broker}/{topic}/y", Ok("x/plant/a/b/c/y"));
        check("{1}{1}/{2}/z", Ok("bb//z"));
        check("{{{1}}}/{{topic}}", Ok("{b}/{topic}"));
    }

    #[test]
    fn mistakes_are_named() {
        check("a/{3}", Err("the topic asks for {3}, but subscription \"test\" captures 2"));
        check("a/{0}", Err("{0} is not known; use {topic}, {broker} or {1}, {2}, … for wildcards"));
        check("a/{Topic}", Err("{Topic} is not known; use {topic}, {broker} or {1}, {2}, … for wildcards"));
        check("a/{topic", Err("'{' has no partner; write it twice for a brace of the topic"));
        check("a/topic}", Err("'}' has no partner; write it twice for a brace of the topic"));
        check("a/+/{topic}", Err("'+' is a wildcard, which only a topic filter may have"));
    }
}
