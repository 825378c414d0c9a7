//! What is added while the daemon runs: the text of STATE-DIR/runtime.toml, and how an operator's commands change it.
//!
//! Pure: text in, text out. It knows how objects are named and nothing of what their keys mean: whether the result is a good
//! configuration is decided as for every other file, by loading it. The file itself is written by `control/live`.

use serde_json::{Map, Value as Json};
use toml::{Table, Value};

use super::reader::join;

/// The first lines of the file.
const HEADER: &str = "# What was added while the daemon ran: written by tidegate, changed by its commands (tidegate brokers, \
                      subscriptions, handlers).\n# Edit it only while the daemon does not run.\n\n";

/// The kinds of objects that can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// `[brokers.NAME]`.
    Brokers,
    /// `[[subscriptions]]`.
    Subscriptions,
    /// `[handlers.NAME]`.
    Handlers,
}

impl Section {
    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Section::Brokers => "brokers",
            Section::Subscriptions => "subscriptions",
            Section::Handlers => "handlers",
        }
    }

    /// What one of its objects is called.
    pub fn singular(self) -> &'static str {
        match self {
            Section::Brokers => "broker",
            Section::Subscriptions => "subscription",
            Section::Handlers => "handler",
        }
    }
}

/// Which object of the text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object<'a> {
    /// The broker or handler of this name.
    Named(Section, &'a str),
    /// The subscription at this place, from 0. Its name may be known only to who has read what it interpolates.
    Subscription(usize),
}

impl Object<'_> {
    fn section(self) -> Section {
        match self {
            Object::Named(section, _) => section,
            Object::Subscription(_) => Section::Subscriptions,
        }
    }
}

/// Why a text cannot be changed as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Nothing of this name was added.
    #[error("no such {} was added", .0.singular())]
    Absent(Section),
    /// The name is missing or no text.
    #[error("a {} needs a name", .0.singular())]
    Nameless(Section),
    /// JSON has what TOML has not: `null` where nothing can be cleared, or a number that does not fit.
    #[error("the value of {0} cannot stand in a configuration")]
    Value(String),
}

/// The parsed text.
#[derive(Clone, Debug, Default)]
pub struct RuntimeFile(Table);

impl RuntimeFile {
    /// Takes a text that was loaded as a good configuration.
    ///
    /// # Errors
    /// It is not TOML.
    pub fn parse(text: &str) -> Result<RuntimeFile, toml::de::Error> {
        text.parse().map(RuntimeFile)
    }

    /// The text to be written.
    pub fn text(&self) -> String {
        let text = toml::to_string_pretty(&self.0).expect("a table of plain values can be written");
        format!("{HEADER}{text}")
    }

    /// Adds an object of these keys of the configuration. Brokers and handlers have their name in `name`, which is no key of
    /// theirs; what stands under that name is replaced: whether there is such an object is for the caller to know, who sees
    /// all files.
    ///
    /// # Errors
    /// The name is missing, or a value has no form in TOML.
    pub fn add(&mut self, section: Section, mut keys: Map<String, Json>) -> Result<(), EditError> {
        if section == Section::Subscriptions {
            let subscription = Value::Table(table(section.key(), keys)?);
            self.subscriptions().push(subscription);
            return Ok(());
        }
        let Some(Json::String(name)) = keys.remove("name") else { return Err(EditError::Nameless(section)) };
        let object = table(&join(section.key(), &name), keys)?;
        self.named(section).insert(name, Value::Table(object));
        Ok(())
    }

    /// Changes keys of an object as RFC 7396 says: those that are given are replaced, `null` clears one, tables are changed key
    /// by key.
    ///
    /// # Errors
    /// There is no such object, or a value has no form in TOML.
    pub fn set(&mut self, object: Object<'_>, keys: Map<String, Json>) -> Result<(), EditError> {
        let (path, table) = match object {
            Object::Subscription(place) => {
                (format!("{}[{place}]", Section::Subscriptions.key()), self.subscriptions().get_mut(place))
            }
            Object::Named(section, name) => (join(section.key(), name), self.named(section).get_mut(name)),
        };
        merge(&path, table.and_then(Value::as_table_mut).ok_or(EditError::Absent(object.section()))?, keys)
    }

    /// Removes an object.
    ///
    /// # Errors
    /// There is no such object.
    pub fn remove(&mut self, object: Object<'_>) -> Result<(), EditError> {
        let removed = match object {
            Object::Subscription(place) => {
                let subscriptions = self.subscriptions();
                (place < subscriptions.len()).then(|| subscriptions.remove(place))
            }
            Object::Named(section, name) => self.named(section).remove(name),
        };
        removed.map(|_| ()).ok_or(EditError::Absent(object.section()))
    }

    fn named(&mut self, section: Section) -> &mut Table {
        let entry = self.0.entry(section.key()).or_insert_with(|| Value::Table(Table::new()));
        if !entry.is_table() {
            *entry = Value::Table(Table::new());
        }
        entry.as_table_mut().expect("it is one by now")
    }

    fn subscriptions(&mut self) -> &mut Vec<Value> {
        let entry = self.0.entry(Section::Subscriptions.key()).or_insert_with(|| Value::Array(Vec::new()));
        if !entry.is_array() {
            *entry = Value::Array(Vec::new());
        }
        entry.as_array_mut().expect("it is one by now")
    }
}

/// The name of a subscription, given its keys that are texts: `name`, else BROKER:TOPIC with its share, as
/// `section/subscription.rs` has it. None without broker or topic.
pub fn subscription_name(key: impl Fn(&str) -> Option<String>) -> Option<String> {
    if let Some(name) = key("name") {
        return Some(name);
    }
    let (broker, topic) = (key("broker")?, key("topic")?);
    Some(match key("share") {
        Some(share) => format!("{broker}:$share/{share}/{topic}"),
        None => format!("{broker}:{topic}"),
    })
}

/// A table without what is `null`.
fn table(path: &str, keys: Map<String, Json>) -> Result<Table, EditError> {
    let mut table = Table::new();
    merge(path, &mut table, keys)?;
    Ok(table)
}

fn merge(path: &str, table: &mut Table, keys: Map<String, Json>) -> Result<(), EditError> {
    for (key, value) in keys {
        let path = join(path, &key);
        match value {
            Json::Null => {
                table.remove(&key);
            }
            Json::Object(keys) => {
                let inner = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
                if !inner.is_table() {
                    // `tls = true` becomes a table of its keys.
                    *inner = Value::Table(Table::new());
                }
                merge(&path, inner.as_table_mut().expect("it is one by now"), keys)?;
            }
            value => {
                table.insert(key, plain(&path, value)?);
            }
        }
    }
    Ok(())
}

fn plain(path: &str, value: Json) -> Result<Value, EditError> {
    let unfit = || EditError::Value(path.to_owned());
    Ok(match value {
        Json::Null => return Err(unfit()),
        Json::Bool(flag) => Value::Boolean(flag),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(float)) if !number.is_u64() => Value::Float(float),
            _ => return Err(unfit()),
        },
        // What comes over the API means itself: an interpolation would give away what only the daemon may read.
        Json::String(text) => Value::String(text.replace("${", "$${")),
        Json::Array(items) => Value::Array(items.into_iter().map(|item| plain(path, item)).collect::<Result<_, _>>()?),
        Json::Object(keys) => Value::Table(table(path, keys)?),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(json: Json) -> Map<String, Json> {
        json.as_object().cloned().expect("an object")
    }

    const PLANT: Object<'static> = Object::Named(Section::Brokers, "plant");

    /// The file after these edits, without its header.
    fn text(edit: impl FnOnce(&mut RuntimeFile) -> Result<(), EditError>) -> String {
        let mut file = RuntimeFile::parse(
            "[brokers.plant]\naddress = \"a\"\ntls = true\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"t\"\n\
             [[subscriptions]]\nbroker = \"plant\"\ntopic = \"t\"\nshare = \"g\"\n",
        )
        .expect("is TOML");
        edit(&mut file).expect("is possible");
        let text = file.text();
        assert!(text.parse::<Table>().is_ok(), "{text}");
        text.strip_prefix(HEADER).expect("begins with it").to_owned()
    }

    #[test]
    fn objects_are_added() {
        let added = text(|file| {
            file.add(Section::Brokers, keys(json!({"name": "cloud", "address": "b", "port": 8883, "username": null})))?;
            file.add(Section::Subscriptions, keys(json!({"broker": "cloud", "topic": "x/#", "when": {"min-bytes": 1}})))
        });
        assert!(added.contains("[brokers.cloud]\naddress = \"b\"\nport = 8883\n"), "{added}");
        assert!(added.contains("topic = \"x/#\"\n\n[subscriptions.when]\nmin-bytes = 1\n"), "{added}");
    }

    #[test]
    fn keys_are_replaced_cleared_and_merged() {
        let set = text(|file| {
            file.set(PLANT, keys(json!({"address": "c", "keep-alive": 30, "tls": {"ca": "/ca"}})))?;
            file.set(PLANT, keys(json!({"keep-alive": null, "tls": {"key": "/key"}})))?;
            file.set(Object::Subscription(0), keys(json!({"qos": 1})))?;
            file.set(Object::Subscription(1), keys(json!({"name": "shared"})))?;
            file.set(Object::Subscription(1), keys(json!({"qos": 2})))
        });
        assert!(set.contains("address = \"c\"\n\n[brokers.plant.tls]\nca = \"/ca\"\nkey = \"/key\"\n"), "{set}");
        assert!(set.contains("qos = 1\ntopic = \"t\"\n"), "{set}");
        assert!(set.contains("name = \"shared\"\nqos = 2\nshare = \"g\"\n"), "{set}");
    }

    #[test]
    fn objects_are_removed() {
        let left = text(|file| {
            file.remove(Object::Subscription(0))?;
            file.remove(PLANT)
        });
        assert!(left.contains("share = \"g\"") && !left.contains("address"), "{left}");
        let mut file = RuntimeFile::default();
        let handler = Object::Named(Section::Handlers, "h");
        assert_eq!(file.remove(handler), Err(EditError::Absent(Section::Handlers)));
        assert_eq!(file.set(PLANT, Map::new()), Err(EditError::Absent(Section::Brokers)));
        assert_eq!(file.remove(Object::Subscription(0)), Err(EditError::Absent(Section::Subscriptions)));
        assert_eq!(file.add(Section::Brokers, Map::new()), Err(EditError::Nameless(Section::Brokers)));
    }

    #[test]
    fn what_is_given_means_itself() {
        let added = text(|file| {
            file.add(Section::Brokers, keys(json!({"name": "c", "address": "x", "username": "${file:/etc/passwd}"})))
        });
        assert!(added.contains("username = \"$${file:/etc/passwd}\""), "{added}");
        let mut file = RuntimeFile::default();
        let unfit = file.add(Section::Handlers, keys(json!({"name": "h", "config": {"list": [null]}})));
        assert_eq!(unfit, Err(EditError::Value("handlers.h.config.list".into())));
        let unfit = file.add(Section::Handlers, keys(json!({"name": "h", "queue": u64::MAX})));
        assert_eq!(unfit, Err(EditError::Value("handlers.h.queue".into())));
        // A person is told a line, whatever a key is.
        let unfit = file.add(Section::Handlers, keys(json!({"name": "h", "config": {"a\nb": {"c": [null]}}})));
        assert_eq!(unfit, Err(EditError::Value("handlers.h.config.\"a\\nb\".c".into())));
    }
}
