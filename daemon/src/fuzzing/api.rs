//! What must hold for the body of any request.
//!
//! Any JSON object is tried as all that a body may be: a message to publish, an object to add, and the changes of an object.
//! What the text of runtime.toml should be afterwards comes from a merge patch of its own, which shares no code with the
//! daemon's.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{FILE, judge, line};
use crate::control::admin::resource::Publication;
use crate::control::config;
use crate::control::config::Loaded;
use crate::control::config::runtime::Section;
use crate::control::config::secret::PasswordSource;
use crate::control::live::{Edit, Refusal, RefusalKind, named, outgoing, refused};

/// An object of each kind that was added, for changes.
const ADDED: &str = "[brokers.cloud]\naddress = \"a\"\nkeep-alive = 30\ntls = { alpn = [\"mqtt\"] }\n\
                     [handlers.more]\nplugin = \"more.wasm\"\nconfig = { unit = \"F\", list = [1, { a = true }] }\n\
                     [[subscriptions]]\nbroker = \"cloud\"\ntopic = \"t\"\nshare = \"g\"\nwhen = { min-bytes = 1 }\n";

/// The body of a request is taken, or refused in lines for people. What is added stands in runtime.toml as it was given, and
/// can be removed again: then all is as if it had never been there. What is changed is as RFC 7396 has it. Nothing in it is
/// ever interpolated.
///
/// # Panics
/// It is not so.
pub fn api(data: &[u8]) {
    publication(data);
    let Ok(keys) = serde_json::from_slice::<Map<String, Value>>(data) else { return };
    let loaded = config::load_text(Path::new("tidegate.toml"), FILE, ADDED).expect("it is a good configuration");
    for section in [Section::Brokers, Section::Subscriptions, Section::Handlers] {
        added(&loaded, section, &keys);
    }
    changed(&loaded, Section::Brokers, "cloud", &keys);
    changed(&loaded, Section::Subscriptions, "cloud:$share/g/t", &keys);
    changed(&loaded, Section::Handlers, "more", &keys);
}

fn publication(data: &[u8]) {
    let Ok(publication) = serde_json::from_slice::<Publication>(data) else { return };
    match outgoing(&publication) {
        Ok(message) => {
            assert_eq!(message.topic.to_string(), publication.topic);
            assert_eq!((message.qos.number(), message.retain), (publication.qos, publication.retain));
            if let Some(text) = &publication.message {
                assert_eq!(message.payload, text.as_bytes());
            }
        }
        Err(refusal) => told(&refusal),
    }
}

fn added(before: &Loaded, section: Section, keys: &Map<String, Value>) {
    let edit = Edit::Add { section, keys: keys.clone() };
    let Some((after, loaded)) = made(before, &edit) else { return };
    let mut object = keys.clone();
    if section == Section::Brokers && object.get("auto-connect").is_none_or(Value::is_null) {
        object.insert("auto-connect".to_owned(), false.into());
    }
    let name = named(section, keys);
    let mut expected = plain(before.sources.runtime());
    match &mut expected[section.key()] {
        Value::Array(list) => list.push(patched(&json!({}), &object)),
        others => {
            object.remove("name");
            others[name.as_deref().expect("no other can be added")] = patched(&json!({}), &object);
        }
    }
    assert_eq!(after, expected);
    let (Some(loaded), Some(name)) = (loaded, name) else { return };
    means_itself(&loaded, section, &name, keys);
    let removed = Edit::Remove { section, name, discard: false }.applied(&loaded).expect("it was added before");
    assert_eq!(plain(&removed), plain(before.sources.runtime()));
    let left = judge(loaded.sources.with_runtime(removed, &before.names)).expect("it was good without it");
    assert_eq!(left.shown.export, before.shown.export);
}

fn changed(before: &Loaded, section: Section, name: &str, keys: &Map<String, Value>) {
    let edit = Edit::Set { section, name: name.to_owned(), keys: keys.clone() };
    let Some((after, _)) = made(before, &edit) else { return };
    let mut keys = keys.clone();
    if section == Section::Brokers && keys.get("auto-connect").is_some_and(Value::is_null) {
        // What was added by hand goes back to the default of what is added by hand.
        keys.insert("auto-connect".to_owned(), false.into());
    }
    let mut expected = plain(before.sources.runtime());
    let object = match &mut expected[section.key()] {
        Value::Array(list) => &mut list[0],
        others => &mut others[name],
    };
    *object = patched(object, &keys);
    assert_eq!(after, expected);
}

/// What is in the file after an edit, and the configuration if it is a good one. None if the edit is refused.
fn made(before: &Loaded, edit: &Edit) -> Option<(Value, Option<Loaded>)> {
    let text = match edit.applied(before) {
        Ok(text) => text,
        Err(refusal) => {
            told(&refusal);
            return None;
        }
    };
    let after = plain(&text);
    let loaded = judge(before.sources.with_runtime(text, &before.names));
    let loaded = loaded.map_err(|problems| told(&refused(edit, &problems, before))).ok();
    Some((after, loaded))
}

/// A refusal is for people, and never the daemon's own fault.
fn told(refusal: &Refusal) {
    line(&refusal.to_string());
    refusal.problems.iter().for_each(|problem| line(problem));
    assert_ne!(refusal.kind, RefusalKind::Storage, "{refusal}");
}

/// Texts that are kept from the configuration to the model arrive as they were given.
fn means_itself(loaded: &Loaded, section: Section, name: &str, keys: &Map<String, Value>) {
    let given = |key: &str| keys.get(key).and_then(Value::as_str);
    match section {
        Section::Brokers => {
            let broker = loaded.config.broker(name).expect("it was added");
            assert_eq!(broker.username.as_deref(), given("username"));
            if let Some(PasswordSource::Literal(password)) = &broker.password {
                assert_eq!(Some(password.expose()), given("password"));
            }
        }
        Section::Handlers => {
            let handler = loaded.config.handlers.iter().find(|handler| *handler.name == *name).expect("it was added");
            let config = keys.get("config").and_then(Value::as_object);
            let config = config.map_or_else(|| json!({}), |config| patched(&json!({}), config));
            assert_eq!(Value::Object(handler.config.clone()), config);
        }
        Section::Subscriptions => {
            let mut all = loaded.config.subscriptions.iter();
            let one = all.find(|subscription| *subscription.name == *name).expect("it was added");
            let whole = given("share").map_or_else(String::new, |share| format!("$share/{share}/"));
            assert_eq!(one.topic.as_str(), whole + given("topic").unwrap_or_default());
        }
    }
}

/// What a text of TOML says, with every `$${` as what it stands for.
///
/// # Panics
/// It is not TOML, or has an interpolation.
fn plain(text: &str) -> Value {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut value = serde_json::to_value(table).expect("JSON has everything but dates, which JSON has not given");
    literal(&mut value);
    value
}

fn literal(value: &mut Value) {
    match value {
        Value::String(text) => {
            let interpolations = text.match_indices("${").filter(|(at, _)| !text[..*at].ends_with('$')).count();
            assert_eq!(interpolations, 0, "{text:?}");
            *text = text.replace("$${", "${");
        }
        Value::Array(items) => items.iter_mut().for_each(literal),
        Value::Object(keys) => keys.values_mut().for_each(literal),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// RFC 7396, section 2. TOML has no `null`, so that an object in a list is without those too.
fn patched(target: &Value, patch: &Map<String, Value>) -> Value {
    let mut result = target.as_object().cloned().unwrap_or_default();
    for (key, value) in patch {
        let value = match value {
            Value::Null => None,
            Value::Object(keys) => Some(patched(result.get(key).unwrap_or(&Value::Null), keys)),
            Value::Array(items) => Some(Value::Array(items.iter().map(without_null).collect())),
            value => Some(value.clone()),
        };
        match value {
            None => result.remove(key),
            Some(value) => result.insert(key.clone(), value),
        };
    }
    Value::Object(result)
}

fn without_null(value: &Value) -> Value {
    match value {
        Value::Object(keys) => patched(&Value::Null, keys),
        Value::Array(items) => Value::Array(items.iter().map(without_null).collect()),
        value => value.clone(),
    }
}
