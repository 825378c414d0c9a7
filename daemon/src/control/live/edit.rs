//! Changes that an operator asks for, and the text of STATE-DIR/runtime.toml that each leads to.
//!
//! Pure: whether an object is there, and whose it is, is decided here; whether the result is a good configuration, by loading
//! it.

use serde_json::{Map, Value};

use super::refusal::{Refusal, RefusalKind};
use crate::control::config::model::{Config, Handler, OnMessage, Subscription};
use crate::control::config::runtime::{EditError, Object, RuntimeFile, Section, subscription_name};
use crate::control::config::{Loaded, ObjectOrigin, Problem, Problems};

/// A change of the running configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// A new object of these keys of the configuration; brokers and handlers have their name in `name`.
    Add {
        /// Its kind.
        section: Section,
        /// Its keys.
        keys: Map<String, Value>,
    },
    /// Other values for some keys (RFC 7396: `null` clears one).
    Set {
        /// The object's kind.
        section: Section,
        /// The object's name.
        name: String,
        /// The keys.
        keys: Map<String, Value>,
    },
    /// The end of an object.
    Remove {
        /// Its kind.
        section: Section,
        /// Its name.
        name: String,
        /// Of a broker: what waits to be published there is dropped.
        discard: bool,
    },
}

impl Edit {
    /// The text of the file once this is done.
    ///
    /// # Errors
    /// The object exists already, does not exist, or stands in a file of the operator's.
    pub fn applied(&self, loaded: &Loaded) -> Result<String, Refusal> {
        let mut file = RuntimeFile::parse(loaded.sources.runtime()).map_err(|error| {
            // It was loaded, so it is TOML.
            Refusal::new(RefusalKind::Storage, format!("the record of what was added is damaged: {error}"), "")
        })?;
        let edited = match self {
            Edit::Add { section, keys } => {
                if let Some(name) = named(*section, keys) {
                    absent(loaded, *section, &name)?;
                }
                file.add(*section, with_defaults(*section, keys))
            }
            Edit::Set { section, name, keys } => file.set(changeable(loaded, *section, name)?, cleared(*section, keys)),
            Edit::Remove { section, name, .. } => file.remove(changeable(loaded, *section, name)?),
        };
        edited.map_err(|error| {
            let kind = if matches!(error, EditError::Absent(_)) { RefusalKind::NotFound } else { RefusalKind::Invalid };
            Refusal::new(kind, error.to_string(), "")
        })?;
        Ok(file.text())
    }
}

/// The name that a new object has; none where its keys give none.
pub fn named(section: Section, keys: &Map<String, Value>) -> Option<String> {
    match section {
        Section::Brokers | Section::Handlers => keys.get("name").and_then(Value::as_str).map(str::to_owned),
        Section::Subscriptions => subscription_name(|key| keys.get(key).and_then(Value::as_str).map(str::to_owned)),
    }
}

/// RouterOS' default holds for what is added by hand: a broker is connected by command, or when something is published.
fn with_defaults(section: Section, keys: &Map<String, Value>) -> Map<String, Value> {
    let mut keys = keys.clone();
    if section == Section::Brokers && keys.get("auto-connect").is_none_or(Value::is_null) {
        keys.insert("auto-connect".to_owned(), Value::Bool(false));
    }
    keys
}

/// Cleared, `auto-connect` has that default too, and not that of the file.
fn cleared(section: Section, keys: &Map<String, Value>) -> Map<String, Value> {
    match keys.get("auto-connect") {
        Some(Value::Null) => with_defaults(section, keys),
        _ => keys.clone(),
    }
}

fn absent(loaded: &Loaded, section: Section, name: &str) -> Result<(), Refusal> {
    match find(loaded, section, name) {
        None => Ok(()),
        Some(origin) => Err(Refusal::new(
            RefusalKind::Exists,
            format!("the {} {name} exists already: {}", section.singular(), origin.table.place),
            if origin.runtime { "change it, or remove it first" } else { "use another name, or change that file" },
        )),
    }
}

fn changeable<'a>(loaded: &Loaded, section: Section, name: &'a str) -> Result<Object<'a>, Refusal> {
    match find(loaded, section, name) {
        Some(origin) if origin.runtime => Ok(object(loaded, section, name)),
        Some(origin) => Err(Refusal::new(
            RefusalKind::InFile,
            format!("the {} {name} stands in {}", section.singular(), origin.table.place),
            "change it there",
        )),
        None => Err(unknown(loaded, section, name)),
    }
}

/// An object that was added.
fn object<'a>(loaded: &Loaded, section: Section, name: &'a str) -> Object<'a> {
    if section != Section::Subscriptions {
        return Object::Named(section, name);
    }
    let subscriptions = loaded.config.subscriptions.iter().zip(&loaded.origins.subscriptions);
    let mut added = subscriptions.filter(|(_, origin)| origin.runtime).map(|(subscription, _)| &*subscription.name);
    Object::Subscription(added.position(|known| known == name).expect("its origin was found"))
}

/// There is no such object.
pub fn unknown(loaded: &Loaded, section: Section, name: &str) -> Refusal {
    unknown_of(section.singular(), name, names(loaded, section))
}

/// There is no object of this kind and name, but these.
pub fn unknown_of<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Refusal {
    let known: Vec<&str> = known.into_iter().collect();
    let remedy = match &*known {
        [] => format!("there are no {kind}s"),
        known => format!("known here: {}", known.join(", ")),
    };
    Refusal::new(RefusalKind::NotFound, format!("there is no {kind} {name}"), remedy)
}

fn names(loaded: &Loaded, section: Section) -> Box<dyn Iterator<Item = &str> + '_> {
    let config = &loaded.config;
    match section {
        Section::Brokers => Box::new(config.brokers.iter().map(|broker| &*broker.name)),
        Section::Subscriptions => Box::new(config.subscriptions.iter().map(|subscription| &*subscription.name)),
        Section::Handlers => Box::new(config.handlers.iter().map(|handler| &*handler.name)),
    }
}

fn find<'a>(loaded: &'a Loaded, section: Section, name: &str) -> Option<&'a ObjectOrigin> {
    let place = names(loaded, section).position(|known| known == name)?;
    let origins = &loaded.origins;
    match section {
        Section::Brokers => origins.brokers.get(place).map(|origins| &origins.object),
        Section::Subscriptions => origins.subscriptions.get(place),
        Section::Handlers => origins.handlers.get(place).map(|origins| &origins.object),
    }
}

/// What refers to an object.
fn needing(config: &Config, section: Section, name: &str) -> Vec<String> {
    let broker = config.broker(name).map(|broker| broker.id).filter(|_| section == Section::Brokers);
    let handler = |subscription: &Subscription| match &subscription.on_message {
        Some(OnMessage::Handler(handler)) => section == Section::Handlers && *handler.name == *name,
        Some(OnMessage::Log(_)) | None => false,
    };
    let subscriptions = config.subscriptions.iter();
    let subscriptions = subscriptions.filter(|one| Some(one.broker) == broker || handler(one));
    let publishes = |handler: &Handler| {
        let dead_letter = handler.dead_letter.iter().map(|place| place.broker);
        handler.allow.publish.iter().map(|grant| grant.broker).chain(dead_letter).any(|one| Some(one) == broker)
    };
    let handlers = config.handlers.iter().filter(|one| publishes(one));
    let subscriptions = subscriptions.map(|one| format!("the subscription {}", one.name));
    subscriptions.chain(handlers.map(|one| format!("the handler {}", one.name))).collect()
}

/// What is wrong with the configuration that an edit of this one leads to.
pub fn refused(edit: &Edit, problems: &Problems, loaded: &Loaded) -> Refusal {
    let added = loaded.sources.runtime_path();
    if let Edit::Remove { section, name, .. } = edit
        && let needing @ [_, ..] = &*needing(&loaded.config, *section, name)
    {
        let detail = format!("the {} {name} is still needed by {}", section.singular(), needing.join(", "));
        return Refusal::new(RefusalKind::InUse, detail, "remove or change that first");
    }
    let kind = RefusalKind::Invalid;
    let line = |problem: &Problem| match &*problem.remedy {
        "" => problem.sentence(added),
        remedy => format!("{}; {remedy}", problem.sentence(added)),
    };
    match &*problems.errors {
        [one] => Refusal::new(kind, one.sentence(added), one.remedy.clone()),
        all => Refusal {
            problems: all.iter().map(line).collect(),
            ..Refusal::new(kind, format!("the configuration would have {} problems", all.len()), "")
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::brokers::BrokerNames;

    const FILE: &str = "[brokers.plant]\naddress = \"mqtt.example\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a\"\n\
        on-message = { log = \"x\" }\n";
    const ADDED: &str = "[brokers.cloud]\naddress = \"a\"\n[[subscriptions]]\nbroker = \"cloud\"\ntopic = \"t\"\n";

    /// A configuration of a file and of what was added, and its folder.
    fn loaded() -> (Loaded, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tidegate.toml");
        let state = serde_json::Value::from(folder.path().to_string_lossy()).to_string();
        std::fs::write(&file, format!("state-dir = {state}\n{FILE}")).expect("writes");
        std::fs::write(folder.path().join("runtime.toml"), ADDED).expect("writes");
        (crate::control::config::load(&file).unwrap_or_else(|problems| panic!("{problems}")), folder)
    }

    fn keys(json: Value) -> Map<String, Value> {
        json.as_object().cloned().expect("an object")
    }

    /// What becomes of an edit: refused, with the kind and the text; or a good configuration.
    #[track_caller]
    fn check(edit: &Edit, expected: Result<(), (RefusalKind, &str)>) {
        let (loaded, folder) = loaded();
        let found = edit.applied(&loaded).and_then(|text| {
            let candidate = loaded.sources.with_runtime(text, &BrokerNames::default());
            candidate.map(|_| ()).map_err(|problems| refused(edit, &problems, &loaded))
        });
        let found = found.map_err(|refusal| {
            (refusal.kind, refusal.to_string().replace(&folder.path().display().to_string(), "DIR"))
        });
        assert_eq!(found, expected.map_err(|(kind, text)| (kind, text.to_owned())));
    }

    fn add(section: Section, json: Value) -> Edit {
        Edit::Add { section, keys: keys(json) }
    }

    fn set(section: Section, name: &str, json: Value) -> Edit {
        Edit::Set { section, name: name.to_owned(), keys: keys(json) }
    }

    fn remove(section: Section, name: &str) -> Edit {
        Edit::Remove { section, name: name.to_owned(), discard: false }
    }

    #[test]
    fn what_is_new_is_added() {
        check(&add(Section::Brokers, json!({"name": "b", "address": "x"})), Ok(()));
        check(&add(Section::Subscriptions, json!({"broker": "plant", "topic": "b"})), Ok(()));
        check(
            &add(Section::Brokers, json!({"name": "plant", "address": "x"})),
            Err((
                RefusalKind::Exists,
                "the broker plant exists already: DIR/tidegate.toml:2:1; use another name, or change that file",
            )),
        );
        check(
            &add(Section::Subscriptions, json!({"broker": "cloud", "topic": "t"})),
            Err((
                RefusalKind::Exists,
                "the subscription cloud:t exists already: DIR/runtime.toml:3:1; change it, or remove it first",
            )),
        );
        check(&add(Section::Brokers, json!({"address": "x"})), Err((RefusalKind::Invalid, "a broker needs a name")));
    }

    #[test]
    fn a_mistake_is_told_as_in_a_file() {
        check(
            &add(Section::Brokers, json!({"name": "b", "address": "tcp://x:1884"})),
            Err((
                RefusalKind::Invalid,
                "brokers.b.address = \"tcp://x:1884\": must not have a prefix: a name or address alone; use \"x\" and port = 1884",
            )),
        );
        check(
            &set(Section::Brokers, "cloud", json!({"port": 0, "keep-alive": 1})),
            Err((RefusalKind::Invalid, "the configuration would have 2 problems")),
        );
    }

    #[test]
    fn what_stands_in_a_file_is_changed_there() {
        check(
            &set(Section::Brokers, "plant", json!({"port": 1884})),
            Err((RefusalKind::InFile, "the broker plant stands in DIR/tidegate.toml:2:1; change it there")),
        );
        check(
            &remove(Section::Subscriptions, "plant:a"),
            Err((RefusalKind::InFile, "the subscription plant:a stands in DIR/tidegate.toml:4:1; change it there")),
        );
        check(&set(Section::Brokers, "cloud", json!({"port": 1884, "keep-alive": null})), Ok(()));
        check(&set(Section::Subscriptions, "cloud:t", json!({"on-message": {"log": "{payload}"}})), Ok(()));
        check(
            &set(Section::Handlers, "h", json!({})),
            Err((RefusalKind::NotFound, "there is no handler h; there are no handlers")),
        );
    }

    #[test]
    fn what_is_needed_is_not_removed() {
        check(&remove(Section::Subscriptions, "cloud:t"), Ok(()));
        check(
            &remove(Section::Brokers, "cloud"),
            Err((
                RefusalKind::InUse,
                "the broker cloud is still needed by the subscription cloud:t; remove or change that first",
            )),
        );
    }

    /// Who edits the file while the daemon does not run may interpolate.
    #[test]
    fn an_interpolated_name_is_a_name() {
        let added = "[[subscriptions]]\nname = \"${env:CARGO_PKG_NAME}\"\nbroker = \"plant\"\ntopic = \"b\"\n\
                     [[subscriptions]]\nname = \"$${x}\"\nbroker = \"plant\"\ntopic = \"c\"\n";
        let loaded = crate::control::config::load_text("tidegate.toml".as_ref(), FILE, added).expect("is good");
        for (name, left) in [("tidegate", "c"), ("${x}", "b")] {
            assert!(set(Section::Subscriptions, name, json!({"qos": 1})).applied(&loaded).is_ok(), "{name}");
            let text = remove(Section::Subscriptions, name).applied(&loaded).expect("is possible");
            let candidate = loaded.sources.with_runtime(text, &loaded.names).expect("is good");
            let topics: Vec<&str> = candidate.config.subscriptions.iter().map(|one| one.topic.as_str()).collect();
            assert_eq!(topics, ["a", left], "{name}");
        }
    }

    #[test]
    fn a_broker_that_is_added_is_connected_by_command() {
        let (loaded, _folder) = loaded();
        let names = BrokerNames::default();
        for (given, expected) in [(json!({}), false), (json!({"auto-connect": true}), true)] {
            let mut keys = keys(given);
            keys.extend([("name".into(), "b".into()), ("address".into(), "x".into())]);
            let text = Edit::Add { section: Section::Brokers, keys }.applied(&loaded).expect("is possible");
            let candidate = loaded.sources.with_runtime(text, &names).expect("is good");
            assert_eq!(candidate.config.broker("b").map(|broker| broker.auto_connect), Some(expected));
        }
    }
}
