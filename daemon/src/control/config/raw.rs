//! TOML as it is written, before anything is made of it.
//!
//! Owns: the conversion of the parser's values, which keep their places, into plain ones. Used where text is compared or
//! shown rather than understood: what changed between two configurations (`definition`), and what `config show` prints.

use sha2::{Digest, Sha256};
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

/// Tells whether an object of the configuration is written as before: what it is made of, without comments and places.
/// Interpolations count as written: a changed variable or file is no change of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition([u8; 32]);

impl Definition {
    pub(super) fn of(value: &DeValue<'_>) -> Definition {
        // A digest, since the text may hold a password, which nobody is to keep longer than needed.
        Definition(Sha256::digest(json(&plain(value)).to_string()).into())
    }
}
