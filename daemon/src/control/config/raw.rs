//! TOML as it is written, before anything is made of it.
//!
//! Owns: the conversion of the parser's values, which keep their places, into plain ones. Used where text is compared or
//! shown rather than understood: what changed between two configurations (`definition`), and what `config show` prints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use toml::Value;
use toml::de::{DeTable, DeValue};

/// A value without its places. Numbers that do not fit are kept as text: they are errors anyway.
pub(super) fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map_or_else(|_| Value::String(number.as_str().to_owned()), Value::Integer)
        }
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::String(number.as_str().to_owned()), Value::Float)
        }
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(plain_table(table)),
    }
}

/// A table without its places.
pub(super) fn plain_table(table: &DeTable<'_>) -> toml::Table {
    table.iter().map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref()))).collect()
}

/// As JSON; dates as texts.
pub(super) fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(flag) => (*flag).into(),
        Value::Datetime(time) => time.to_string().into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Table(table) => {
            serde_json::Value::Object(table.iter().map(|(key, value)| (key.clone(), json(value))).collect())
        }
    }
}

/// Tells whether an object of the configuration is made of the same as before, and which of its keys are not. Comments and places do
/// not count; what interpolations stand for does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition(Arc<BTreeMap<String, Digest>>);

/// Of a value, since it may be a password, which nobody is to keep longer than needed.
type Digest = [u8; 32];

impl Definition {
    /// `meant`: what a string stands for.
    pub(super) fn of(value: &DeValue<'_>, meant: &dyn Fn(&str) -> String) -> Definition {
        let mut keys = BTreeMap::new();
        digest("", &plain(value), meant, &mut keys);
        Definition(Arc::new(keys))
    }

    /// Its keys, those of tables with their path.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The keys that one has and the other has not, or has another value of.
    pub fn differing(&self, other: &Definition) -> BTreeSet<String> {
        let missing = |one: &Definition, other: &Definition| -> Vec<String> {
            one.0.iter().filter(|(key, value)| other.0.get(*key) != Some(value)).map(|(key, _)| key.clone()).collect()
        };
        missing(self, other).into_iter().chain(missing(other, self)).collect()
    }
}

/// Enters each value that is no table, and each table without keys.
fn digest(path: &str, value: &Value, meant: &dyn Fn(&str) -> String, keys: &mut BTreeMap<String, Digest>) {
    match value {
        Value::Table(table) if !table.is_empty() => {
            table.iter().for_each(|(key, value)| digest(&super::reader::join(path, key), value, meant, keys));
        }
        leaf => {
            let text = json(&expanded(leaf, meant)).to_string();
            keys.insert(path.to_owned(), Sha256::digest(text).into());
        }
    }
}

fn expanded(value: &Value, meant: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(meant(text)),
        Value::Array(items) => Value::Array(items.iter().map(|item| expanded(item, meant)).collect()),
        Value::Table(table) => {
            Value::Table(table.iter().map(|(key, value)| (key.clone(), expanded(value, meant))).collect())
        }
        value => value.clone(),
    }
}
