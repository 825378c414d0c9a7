//! `tidegate topic match FILTER TOPIC`: whether a filter matches a topic name, and why.
//!
//! Needs neither a configuration nor the daemon. The answer itself is [`TopicFilter::matches`]'s; this file only puts the
//! reason into words.

use std::fmt;
use std::process::ExitCode;

use serde::Serialize;

use super::{NO, WRONG_USE, output};
use crate::topic::{TopicFilter, TopicName};

/// Answers questions about MQTT topics.
#[derive(Debug, clap::Args)]
pub struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TopicCommand {
    /// Tell whether a topic filter matches a topic name, and why
    ///
    /// Exit code 0: it matches; 1: it does not; 2: one of them is not valid.
    Match(MatchArgs),
}

#[derive(Debug, clap::Args)]
struct MatchArgs {
    /// A topic filter, such as 'sensors/+/temperature' or 'sensors/#'
    #[arg(allow_hyphen_values = true)]
    filter: String,
    /// A topic name, such as sensors/hall/temperature
    #[arg(allow_hyphen_values = true)]
    topic: String,
    /// Print one JSON object: filter, topic, match, captures, reason
    #[arg(long)]
    json: bool,
}

impl TopicArgs {
    /// Answers on standard output; what is not valid is said on standard error.
    pub fn run(self) -> ExitCode {
        let TopicCommand::Match(args) = self.command;
        let answer = match answer(&args.filter, &args.topic) {
            Ok(answer) => answer,
            Err(problem) => {
                output::notice(format_args!("error: {problem}"));
                return ExitCode::from(WRONG_USE);
            }
        };
        match args.json {
            true => output::data(serde_json::to_string(&answer).expect("strings and a boolean become JSON")),
            false => output::data(&answer),
        }
        if answer.matches { ExitCode::SUCCESS } else { ExitCode::from(NO) }
    }
}

/// The answer, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    filter: &'a str,
    topic: &'a str,
    #[serde(rename = "match")]
    matches: bool,
    /// One for each wildcard, in order; empty without a match.
    captures: Vec<String>,
    reason: String,
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.matches { "match" } else { "no match" }, self.reason)
    }
}

fn answer<'a>(filter: &'a str, topic: &'a str) -> Result<Answer<'a>, String> {
    let valid_filter = TopicFilter::new(filter).map_err(|error| format!("the filter {filter:?}: {error}"))?;
    let valid_topic = TopicName::new(topic).map_err(|error| format!("the topic {topic:?}: {error}"))?;
    let captures = valid_filter.captures(&valid_topic);
    let mut reason = match &captures {
        Some(captures) => what_matched(&valid_filter, &valid_topic, captures),
        None => what_differs(&valid_filter, &valid_topic),
    };
    if let Some(share) = valid_filter.share() {
        reason.push_str(&format!(" (the share {share:?} plays no part)"));
    }
    Ok(Answer { filter, topic, matches: captures.is_some(), captures: captures.unwrap_or_default(), reason })
}

fn what_matched(filter: &TopicFilter, topic: &TopicName, captures: &[String]) -> String {
    let on_parent = topic.levels().count() < filter.levels().count();
    let wildcards = filter.levels().filter(|level| matches!(*level, "+" | "#"));
    let matched = wildcards.zip(captures).map(|(wildcard, text)| match (wildcard, text.as_str()) {
        ("#", "") if on_parent => "# matched the level before it".to_owned(),
        (_, "") => format!("{wildcard} matched an empty level"),
        _ => format!("{wildcard} matched {text:?}"),
    });
    let matched = matched.collect::<Vec<_>>().join(", ");
    if matched.is_empty() { "all levels are equal".to_owned() } else { matched }
}

/// The first difference of a filter and a name that it does not match.
fn what_differs(filter: &TopicFilter, topic: &TopicName) -> String {
    if topic.is_system() && filter.unshared().starts_with(['+', '#']) {
        let first = topic.levels().next().unwrap_or_default();
        return format!(
            "a wildcard in the first level matches no topic that starts with '$' (MQTT 5 §4.7.2); one for it begins with {first:?}"
        );
    }
    let mut filter = filter.levels();
    let mut names = topic.levels();
    let mut number = 1;
    loop {
        match (filter.next(), names.next()) {
            (Some(level), Some(name)) if level == "+" || level == name => {}
            (Some(level), Some(name)) => {
                return format!("level {number} differs: the filter has {level:?}, the topic {name:?}");
            }
            (Some(level), None) => {
                return format!("the topic ends after level {}, the filter goes on with {level:?}", number - 1);
            }
            (None, name) => {
                let name = name.unwrap_or_default();
                return format!("the filter ends after level {}, the topic goes on with {name:?}", number - 1);
            }
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(filter: &str, topic: &str, expected: &str) {
        let found = match answer(filter, topic) {
            Ok(answer) => answer.to_string(),
            Err(problem) => format!("error: {problem}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_match_says_what_the_wildcards_matched() {
        check("a/b", "a/b", "match: all levels are equal");
        check("a/+/c/#", "a/b/c/d/e", r#"match: + matched "b", # matched "d/e""#);
        check("a/+/#", "a/", "match: + matched an empty level, # matched the level before it");
        check("a/#", "a/", "match: # matched an empty level");
        check("$share/g/a/+", "a/b", r#"match: + matched "b" (the share "g" plays no part)"#);
        check("+", "a\n", r#"match: + matched "a\n""#);
    }

    #[test]
    fn a_mismatch_says_where() {
        check("a/b/c", "a/x/c", r#"no match: level 2 differs: the filter has "b", the topic "x""#);
        check("a/+", "a/b/c", r#"no match: the filter ends after level 2, the topic goes on with "c""#);
        check("a/+", "a", r#"no match: the topic ends after level 1, the filter goes on with "+""#);
        check("a//b/#", "a/b", r#"no match: level 2 differs: the filter has "", the topic "b""#);
        check("a", "a/", r#"no match: the filter ends after level 1, the topic goes on with """#);
        let rule = "a wildcard in the first level matches no topic that starts with '$' (MQTT 5 §4.7.2)";
        check("#", "$SYS/x", &format!(r#"no match: {rule}; one for it begins with "$SYS""#));
        check("$SYS", "$SYS/x", r#"no match: the filter ends after level 1, the topic goes on with "x""#);
    }

    #[test]
    fn what_is_not_valid_is_named() {
        check("a/#/b", "a", r##"error: the filter "a/#/b": '#' must be the last level (MQTT 5 §4.7.1.2); use "a/#""##);
        check("a", "", r#"error: the topic "": must not be empty (MQTT 5 §4.7.3)"#);
    }

    #[test]
    fn json_has_stable_fields() {
        let json = |filter, topic| serde_json::to_string(&answer(filter, topic).expect("valid")).expect("JSON");
        assert_eq!(
            json("a/+", "a/b"),
            r#"{"filter":"a/+","topic":"a/b","match":true,"captures":["b"],"reason":"+ matched \"b\""}"#
        );
        assert_eq!(
            json("a", "b"),
            r#"{"filter":"a","topic":"b","match":false,"captures":[],"reason":"level 1 differs: the filter has \"a\", the topic \"b\""}"#
        );
    }
}
