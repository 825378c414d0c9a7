//! Keys of the configuration as options of the command line, and what is given for them as the JSON that the API takes.
//!
//! Owns: how a kind of value is written. Each resource has a table of its [`Key`]s, from which its options, the values of
//! `--unset` and the body of a request are made. Ranges and rules are the daemon's to check: it has them once.

use std::marker::PhantomData;

use clap::builder::{BoolishValueParser, PossibleValuesParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use serde_json::{Map, Number, Value};

use crate::cli::client::Failure;

/// A key of the configuration, and the option that sets it.
#[derive(Debug)]
pub struct Key {
    /// The option's name, which is the key's; within `will`, `birth` and the like with that before it.
    pub option: &'static str,
    /// Where it stands.
    pub path: &'static [&'static str],
    pub kind: Kind,
    /// What its value is called in the help.
    pub value: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Not negative.
    Integer,
    /// A number or the word `off`.
    IntegerOrOff,
    /// With or without a fraction.
    Number,
    /// Such a one or the word `off`.
    NumberOrOff,
    /// Without a value it is true.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts, an option each.
    List,
    /// `KEY=VALUE`s, an option each.
    Table,
}

/// A row of a resource's table.
pub const fn key(
    option: &'static str,
    path: &'static [&'static str],
    kind: Kind,
    value: &'static str,
    help: &'static str,
) -> Key {
    Key { option, path, kind, value, help }
}

/// What has keys in the configuration.
pub trait Resource {
    /// All that can be set.
    const KEYS: &'static [Key];
    /// What `--unset` takes besides: tables, by their names.
    const TABLES: &'static [&'static str] = &[];
    /// Options without which their table is nothing, so that only the whole table can be unset.
    const NEEDED: &'static [&'static str] = &[];
}

/// The keys that were given, nested as in the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keys(Map<String, Value>);

impl Keys {
    /// Sets a key. What stands in the way of a table is replaced by it.
    pub fn put(&mut self, path: &[&str], value: impl Into<Value>) {
        let Some((last, tables)) = path.split_last() else { return };
        let mut table = &mut self.0;
        for name in tables {
            let entry = table.entry(*name).or_insert(Value::Null);
            if !entry.is_object() {
                *entry = Value::Object(Map::new());
            }
            table = entry.as_object_mut().expect("it was made one");
        }
        table.insert((*last).to_owned(), value.into());
    }

    /// Sets a key unless it is given.
    pub fn put_default(&mut self, path: &[&str], value: impl Into<Value>) {
        if self.get(path).is_none() {
            self.put(path, value);
        }
    }

    /// A key that was given; null if it is to be cleared.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(*first)?, |value, name| value.get(name))
    }

    /// Takes a key back; the tables that it stood in stay.
    pub fn take(&mut self, path: &[&str]) -> Option<Value> {
        let (last, tables) = path.split_last()?;
        let mut table = &mut self.0;
        for name in tables {
            table = table.get_mut(*name)?.as_object_mut()?;
        }
        table.remove(*last)
    }

    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The body of a request.
    pub fn into_json(self) -> Value {
        Value::Object(self.0)
    }
}

/// The options of a resource's keys.
#[derive(Debug)]
pub struct Settings<R> {
    /// What was given.
    pub keys: Keys,
    resource: PhantomData<R>,
}

impl<R: Resource> Args for Settings<R> {
    fn augment_args(command: Command) -> Command {
        command.args(R::KEYS.iter().map(option))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<R: Resource> FromArgMatches for Settings<R> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut keys = Keys::default();
        R::KEYS.iter().for_each(|key| read(key, matches, &mut keys));
        Ok(Settings { keys, resource: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `--unset`.
#[derive(Debug)]
pub struct Unset<R> {
    options: Vec<String>,
    resource: PhantomData<R>,
}

impl<R: Resource> Unset<R> {
    /// Clears what is to be unset (RFC 7396: null removes).
    ///
    /// # Errors
    /// What is to be unset is given as well, or is needed by the rest of its table.
    pub fn clear(&self, keys: &mut Keys) -> Result<(), Failure> {
        // Tables last: with the whole, its parts go.
        let (tables, within): (Vec<&str>, Vec<&str>) =
            self.options.iter().map(String::as_str).partition(|option| R::TABLES.contains(option));
        for option in within {
            let Some(key) = R::KEYS.iter().find(|key| key.option == option) else { continue };
            let whole = key.path[0];
            if R::NEEDED.contains(&option) && !tables.contains(&whole) {
                let last = key.path[key.path.len() - 1];
                return Err(Failure::WrongUse(format!(
                    "--unset {option}: there is no {whole} without its {last}; use --unset {whole}, which takes all of it away"
                )));
            }
            remove(keys, option, key.path)?;
        }
        tables.into_iter().try_for_each(|table| remove(keys, table, &[table]))
    }
}

/// Has a key removed, unless what is given in place of its table has none such.
fn remove(keys: &mut Keys, option: &str, path: &[&str]) -> Result<(), Failure> {
    let replaced = (1..path.len()).any(|end| keys.get(&path[..end]).is_some_and(|table| !table.is_object()));
    if replaced {
        return Ok(());
    }
    if keys.get(path).is_some_and(sets) {
        return Err(Failure::WrongUse(format!(
            "--unset {option} contradicts an option that sets it; give one of them"
        )));
    }
    keys.put(path, Value::Null);
    Ok(())
}

/// Whether a value sets something, other than one that only removes.
fn sets(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(fields) => fields.is_empty() || fields.values().any(sets),
        _ => true,
    }
}

impl<R: Resource> Args for Unset<R> {
    fn augment_args(command: Command) -> Command {
        let keys = R::KEYS.iter().filter(|key| !R::TABLES.contains(&key.option)).map(|key| key.option);
        let tables = match R::TABLES {
            [] => String::new(),
            tables => format!("; {}: all of it", tables.join(", ")),
        };
        let names: Vec<&str> = keys.chain(R::TABLES.iter().copied()).collect();
        command.arg(
            Arg::new("unset")
                .long("unset")
                .value_name("KEY")
                .action(ArgAction::Append)
                .value_parser(PossibleValuesParser::new(names))
                .hide_possible_values(true)
                .help(format!("Go back to the default of a key, named as its option; again for further ones{tables}")),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<R: Resource> FromArgMatches for Unset<R> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let options = matches.get_many::<String>("unset").into_iter().flatten().cloned().collect();
        Ok(Unset { options, resource: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn option(key: &Key) -> Arg {
    let mut arg = Arg::new(key.option).long(key.option).value_name(key.value).help(key.help);
    arg = match key.path {
        ["tls", ..] => arg.help_heading("TLS"),
        ["outbox", ..] => arg.help_heading("Outbox"),
        ["will" | "birth" | "close", ..] => arg.help_heading("Status messages"),
        ["when", ..] => arg.help_heading("Conditions"),
        _ => arg,
    };
    match key.kind {
        Kind::Text => arg.allow_hyphen_values(true),
        Kind::Integer => arg.value_parser(value_parser!(u64)),
        Kind::IntegerOrOff => arg.value_parser(integer_or_off),
        Kind::Number => arg.value_parser(number).allow_negative_numbers(true),
        Kind::NumberOrOff => arg.value_parser(number_or_off).allow_negative_numbers(true),
        Kind::Boolean => {
            let words = BoolishValueParser::new();
            arg.num_args(0..=1).default_missing_value("true").value_parser(words).hide_possible_values(true)
        }
        Kind::Choice(words) => arg.value_parser(PossibleValuesParser::new(words)),
        Kind::List => arg.action(ArgAction::Append),
        Kind::Table => arg.action(ArgAction::Append).value_parser(entry),
    }
}

fn read(key: &Key, matches: &ArgMatches, keys: &mut Keys) {
    match key.kind {
        Kind::Text | Kind::Choice(_) => {
            if let Some(text) = matches.get_one::<String>(key.option) {
                keys.put(key.path, text.as_str());
            }
        }
        Kind::Integer => {
            if let Some(number) = matches.get_one::<u64>(key.option) {
                keys.put(key.path, *number);
            }
        }
        Kind::IntegerOrOff | Kind::Number | Kind::NumberOrOff => {
            if let Some(value) = matches.get_one::<Value>(key.option) {
                keys.put(key.path, value.clone());
            }
        }
        Kind::Boolean => {
            if let Some(boolean) = matches.get_one::<bool>(key.option) {
                keys.put(key.path, *boolean);
            }
        }
        Kind::List => {
            if let Some(texts) = matches.get_many::<String>(key.option) {
                keys.put(key.path, texts.cloned().collect::<Vec<_>>());
            }
        }
        Kind::Table => {
            for (name, value) in matches.get_many::<(String, Value)>(key.option).into_iter().flatten() {
                let path: Vec<&str> = key.path.iter().copied().chain([name.as_str()]).collect();
                keys.put(&path, value.clone());
            }
        }
    }
}

fn integer_or_off(text: &str) -> Result<Value, String> {
    match (text, text.parse::<u64>()) {
        ("off", _) => Ok(Value::from("off")),
        (_, Ok(number)) => Ok(Value::from(number)),
        _ => Err("neither a number nor off".to_owned()),
    }
}

/// As it is written: an integer stays one.
fn number(text: &str) -> Result<Value, String> {
    serde_json::from_str::<Number>(text).map(Value::Number).map_err(|_| "not a number".to_owned())
}

fn number_or_off(text: &str) -> Result<Value, String> {
    match text {
        "off" => Ok(Value::from("off")),
        _ => number(text).map_err(|_| "neither a number nor off".to_owned()),
    }
}

/// `KEY=VALUE`: JSON where the value is some, else text.
fn entry(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("there is no = in it; write KEY=VALUE")?;
    if key.is_empty() {
        return Err("there is no key before =; write KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_nested() {
        let mut keys = Keys::default();
        assert!(keys.is_empty());
        keys.put(&["tls"], true);
        keys.put(&["tls", "ca"], "ca.pem");
        keys.put(&["tls", "key"], Value::Null);
        keys.put_default(&["tls", "ca"], "other.pem");
        keys.put_default(&["auto-connect"], false);
        keys.put(&["tls", "on"], 1);
        assert_eq!(keys.take(&["tls", "on"]), Some(json!(1)));
        assert_eq!(keys.take(&["auto-connect", "on"]), None);
        assert_eq!(keys.get(&["tls", "key"]), Some(&Value::Null));
        assert_eq!(keys.get(&["port"]), None);
        assert_eq!(keys.into_json(), json!({"tls": {"ca": "ca.pem", "key": null}, "auto-connect": false}));
    }

    /// The keys of a table in the reference, by path; what is within these tables is not looked at.
    fn paths(table: &toml::Table, within: &[&str], whole: &[&str]) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for (name, value) in table {
            let path: Vec<&str> = within.iter().copied().chain([name.as_str()]).collect();
            match value {
                toml::Value::Table(inner) if !whole.contains(&name.as_str()) => {
                    found.extend(paths(inner, &path, whole))
                }
                _ => found.push(path.into_iter().map(str::to_owned).collect()),
            }
        }
        found
    }

    #[track_caller]
    fn check_options<R: Resource>(objects: &[&toml::Value], whole: &[&str]) {
        let tables = objects.iter().map(|object| object.as_table().expect("a table"));
        let keys: Vec<Vec<String>> = tables.flat_map(|table| paths(table, &[], whole)).collect();
        assert!(keys.len() > R::KEYS.len() / 2, "the reference has them: {keys:?}");
        for path in keys {
            // `tls` and `transport` stand for more than one option.
            let has = |key: &Key| key.path == path || key.path.starts_with(&[&path[0]]) && path.len() == 1;
            assert!(R::KEYS.iter().any(has), "no option for {}", path.join("."));
        }
    }

    #[test]
    fn every_key_of_the_configuration_has_an_option() {
        let reference = include_str!("../../../../config/reference.toml").parse::<toml::Table>().expect("it is TOML");
        let all = |name: &str| match &reference[name] {
            toml::Value::Table(named) => named.values().collect::<Vec<_>>(),
            toml::Value::Array(list) => list.iter().collect(),
            other => panic!("{name}: {other}"),
        };
        check_options::<super::super::broker_keys::Broker>(&all("brokers"), &[]);
        check_options::<super::super::subscriptions::SubscriptionKeys>(&all("subscriptions"), &[]);
        check_options::<super::super::handlers::HandlerKeys>(&all("handlers"), &["config"]);
    }

    #[test]
    fn no_option_is_named_after_another_key() {
        fn check<R: Resource>() {
            for key in R::KEYS {
                let last = key.path.last().expect("is not empty");
                let named =
                    key.option.ends_with(last) || key.path == ["tls", "on"] || key.path == ["transport", "kind"];
                let log = key.path == ["on-message", "log"];
                assert!(named || log, "{} for {:?}", key.option, key.path);
            }
        }
        check::<super::super::broker_keys::Broker>();
        check::<super::super::subscriptions::SubscriptionKeys>();
        check::<super::super::handlers::HandlerKeys>();
    }

    #[test]
    fn what_is_unset_is_removed_as_a_whole_or_in_parts() {
        use super::super::testing::{check_refused, check_request};
        let check = |options: &str, body: Value| {
            check_request(&format!("brokers set b {options}"), b"", "PATCH /api/v1/brokers/b", body);
        };
        check("--unset will", json!({"will": null}));
        check("--unset will-qos --unset keep-alive", json!({"will": {"qos": null}, "keep-alive": null}));
        // All of it, whatever is said of its parts, in either order.
        check("--unset will --unset will-topic --unset will-message", json!({"will": null}));
        check("--unset will-message --unset will", json!({"will": null}));
        check("--transport tcp --unset websocket-path", json!({"transport": "tcp"}));
        check("--unset tls --unset ca", json!({"tls": null}));
        check(
            "--outbox-max-messages 5 --unset outbox-max-age",
            json!({"outbox": {"max-messages": 5, "max-age": null}}),
        );

        let refused = |options: &str, reason: &str| check_refused(&format!("brokers set b {options}"), 2, reason);
        let needed = "there is no birth without its topic; use --unset birth, which takes all of it away";
        refused("--unset birth-topic --unset birth-message", needed);
        refused("--unset close-topic", "use --unset close,");
        let both = |option: &str| format!("--unset {option} contradicts an option that sets it; give one of them");
        refused("--keep-alive 30 --unset keep-alive", &both("keep-alive"));
        refused("--unset will --will-qos 1", &both("will"));
        refused("--unset tls --tls", &both("tls"));
    }

    #[test]
    fn the_help_tells_which_tables_can_be_unset() {
        let help =
            Unset::<super::super::broker_keys::Broker>::augment_args(Command::new("set")).render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains("; tls, transport, outbox, will, birth, close: all of it"), "{help}");
    }

    #[test]
    fn entries_are_json_where_they_can_be() {
        let check = |text: &str, expected: Value| assert_eq!(entry(text).expect("an entry").1, expected, "{text}");
        check("unit=F", json!("F"));
        check("count=3", json!(3));
        check("count=\"3\"", json!("3"));
        check("list=[1, 2]", json!([1, 2]));
        check("text=a=b", json!("a=b"));
        check("gone=null", Value::Null);
        check("empty=", json!(""));
        assert!(entry("unit").is_err() && entry("=F").is_err());
    }
}
