//! The sections of a configuration: one file for each, with its keys, defaults, ranges and rules.
//!
//! Owns: what sections share, which is names, references to them, and topics. Fed by the reader's tables; each section
//! gives validated parts of the model. A section never looks at the file system, except for `password-file`,
//! `token-file` and the files of `tls`.

pub(super) mod address;
mod admin;
pub(super) mod broker;
pub(super) mod daemon;
mod dead_letter;
pub(super) mod handler;
pub(super) mod json;
mod loops;
mod outbox;
pub(super) mod schedule;
pub(super) mod subscription;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;

use toml::de::DeValue;

use super::interpolate::Text;
use super::reader::{Table, Value};
use super::suggest::{either, nearest};
use crate::message::Qos;
use crate::topic::{self, FilterError, TopicFilter, TopicName};

/// Longest name of a broker or handler, in characters.
const MAX_NAME: usize = 64;

/// A broker or handler under its name.
pub(super) struct Named<'a, T> {
    pub(super) name: Arc<str>,
    /// Its table.
    pub(super) value: Value<'a>,
    /// None if it has errors, which are reported: references to it are still good.
    pub(super) item: Option<T>,
}

/// The first value of a key that only one file may set.
fn single<'a>(roots: &[Table<'a>], key: &'static str) -> Option<Value<'a>> {
    let mut values = roots.iter().filter_map(|root| root.get(key));
    let first = values.next();
    let defined = first.as_ref().map(|value| value.origin().place);
    for (value, place) in values.zip(defined.iter().cycle()) {
        value.error(format!("also set at {place}"), "keep one of the two");
    }
    first
}

/// The entries of `[KEY.NAME]` of all files, with good and unique names.
fn named<'a>(roots: &[Table<'a>], key: &'static str) -> Vec<(&'a str, Value<'a>)> {
    let mut entries: Vec<(&'a str, Value<'a>)> = Vec::new();
    for root in roots {
        let Some(table) = root.get(key) else { continue };
        for (name, value) in table.named_entries(&format!("[{key}.NAME]")) {
            // Where the name was forgotten, this is a key of the broker or handler, and its value may be a password.
            let value = if matches!(value.raw(), DeValue::Table(_)) { value } else { value.secret() };
            if let Some((_, first)) = entries.iter().find(|(known, _)| *known == name) {
                value.error(format!("also defined at {}", first.origin().place), "keep one of the two");
                continue;
            }
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if !name.chars().all(allowed) || !(1..=MAX_NAME).contains(&name.len()) {
                value.error(
                    format!("not a name: 1 to {MAX_NAME} letters, digits, \"-\" and \"_\""),
                    "rename it (a grant \"BROKER:FILTER\" ends the name at the first colon)",
                );
            }
            entries.push((name, value));
        }
    }
    entries
}

/// The place of the broker or handler that a value names. `kind` is `broker` or `handler`.
fn resolve<T>(value: &Value<'_>, name: &Text, known: &[Named<'_, T>], kind: &str) -> Option<usize> {
    let place = known.iter().position(|named| *named.name == *name.value);
    if place.is_none() && !value.reading.is_incomplete() {
        value.error(format!("no such {kind}"), choose(&name.value, known, kind));
    }
    place
}

/// What to write in place of an unknown name.
fn choose<T>(name: &str, known: &[Named<'_, T>], kind: &str) -> String {
    match nearest(name, known.iter().map(|named| &*named.name)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None if known.is_empty() => format!("add [{kind}s.NAME]"),
        None => format!("use {}, or add another [{kind}s.NAME]", either(known.iter().map(|named| &*named.name))),
    }
}

/// What to write in place of a shared filter, given its share and the filter proper where they may be repeated.
type ShareRemedy = fn(Option<(&str, &str)>) -> String;

/// A topic filter, not shared. `text` is the value or its part that holds the filter; `shared` is what a shared one is
/// told: what is wrong with it, and what to write for a share, if it is known, and a filter.
fn filter(value: &Value<'_>, text: &str, hidden: bool, shared: (&str, ShareRemedy)) -> Option<TopicFilter> {
    let (problem, remedy) = shared;
    match TopicFilter::new(text) {
        Ok(_) if !reaches_brokers(value, text) => None,
        Ok(filter) => match filter.share() {
            None => Some(filter),
            Some(share) => {
                value.error(problem, remedy((!hidden).then_some((share, filter.unshared()))));
                None
            }
        },
        Err(FilterError::ShareName | FilterError::ShareWithoutFilter) => {
            value.error(problem, remedy(None));
            None
        }
        // What came from outside the file is not repeated.
        Err(FilterError::HashNotLast { .. }) if hidden => {
            value.error("'#' must be the last level (MQTT 5 §4.7.1.2)", "use a topic filter");
            None
        }
        Err(FilterError::WildcardInLevel { wildcard, .. }) if hidden => {
            value.error(format!("'{wildcard}' must be a level of its own (MQTT 5 §4.7.1)"), "use a topic filter");
            None
        }
        Err(error) => {
            let told = error.to_string();
            let (message, remedy) =
                told.split_once("; ").unwrap_or((&told, "use a topic filter such as \"a/+/b\" or \"a/#\""));
            value.error(message, remedy);
            None
        }
    }
}

/// A topic name, to publish to; `example` is a good one, for who writes a bad one.
fn topic_name(value: &Value<'_>, example: &str) -> Option<TopicName> {
    let text = value.text()?;
    let name = TopicName::new(text.value);
    let name = name.map_err(|error| value.error(error.to_string(), format!("use one topic such as \"{example}\"")));
    name.ok().filter(|name| reaches_brokers(value, name.as_str()))
}

/// Whether a topic has only characters that every broker takes.
fn reaches_brokers(value: &Value<'_>, topic: &str) -> bool {
    let character = topic::refusable(topic);
    if let Some(character) = character {
        value.error(topic::refused(character), "remove it");
    }
    character.is_none()
}

/// `qos`: 0 to 2, 0 unless given.
fn qos(table: &Table<'_>) -> Qos {
    table
        .get("qos")
        .and_then(|value| value.integer(0..=2, " (MQTT 5 §4.3)"))
        .and_then(|number| Qos::from_number(u8::try_from(number).ok()?))
        .unwrap_or(Qos::AtMostOnce)
}

/// A path; a relative one starts from the folder of the file that holds it.
fn path(value: &Value<'_>) -> Option<PathBuf> {
    let text = value.text()?;
    if text.value.is_empty() || text.value.contains('\0') {
        value.error("not a path", "use the path of a file or folder");
        return None;
    }
    if value.is_runtime() && !std::path::Path::new(&text.value).is_absolute() {
        value.error("a relative path, in what is added while the daemon runs", "use an absolute path");
        return None;
    }
    Some(value.folder().join(text.value))
}

/// A text that MQTT sends as a UTF-8 string (MQTT 5 §1.5.4).
fn mqtt_string(value: &Value<'_>) -> Option<String> {
    let text = value.text()?.value;
    if text.contains('\0') {
        value.error("has the character U+0000 (MQTT 5 §1.5.4)", "remove it");
        return None;
    }
    if text.len() > usize::from(u16::MAX) {
        value.error(format!("has {} bytes, more than 65535 (MQTT 5 §1.5.4)", text.len()), "use a shorter one");
        return None;
    }
    Some(text)
}

/// A size in memory; more than the machine can address is all of it.
pub(super) fn addressable(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
