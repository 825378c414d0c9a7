//! The merged configuration as people read it: each key with its place, and the whole as one file.
//!
//! Pure: texts in, texts out. Secrets are masked here, before anything leaves: passwords, and the texts that are given to
//! handlers. What interpolations stand for is never looked at.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

use super::problem::{MASK, Place};
use super::raw;
use super::source::SourceFile;

/// Lists of tables, whose members count over all files.
const LISTS: [&str; 2] = ["subscriptions", "schedules"];

/// One key as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its path, such as `brokers.plant.port`; subscriptions and schedules count over all files.
    pub key: String,
    /// Masked if it is a secret.
    pub value: serde_json::Value,
    /// Where it stands.
    pub place: Place,
}

/// A configuration as it may be shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Every key as it is written, with its place; secrets masked.
    pub settings: Vec<Setting>,
    /// The texts that are interpolated, as they are written, by their keys: what they stand for may be a secret.
    pub interpolated: HashMap<String, String>,
    /// One file that says what all of them say; secrets left out, and named in its first lines.
    pub export: String,
}

impl Shown {
    /// Of the texts of all files, in their order.
    pub(super) fn of(files: &[(&SourceFile, &DeTable<'_>)]) -> Shown {
        let settings = settings(files);
        let interpolated = settings.iter().filter_map(|one| match &one.value {
            serde_json::Value::String(text) if text.replace("$${", "").contains("${") => {
                Some((one.key.clone(), text.clone()))
            }
            _ => None,
        });
        let tables: Vec<&DeTable<'_>> = files.iter().map(|(_, table)| *table).collect();
        Shown { interpolated: interpolated.collect(), export: export(&tables), settings }
    }
}

/// Every key of all files, in their order.
fn settings(files: &[(&SourceFile, &DeTable<'_>)]) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut seen = HashMap::new();
    for (file, table) in files {
        Walk { file, seen: &mut seen, settings: &mut settings }.table("", table);
    }
    settings
}

struct Walk<'a> {
    file: &'a SourceFile,
    /// The members of each list, of earlier files and those seen.
    seen: &'a mut HashMap<&'static str, usize>,
    settings: &'a mut Vec<Setting>,
}

impl Walk<'_> {
    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let key = super::reader::join(path, key.get_ref());
            self.value(key, value);
        }
    }

    fn value(&mut self, key: String, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(&key, table),
            DeValue::Array(items) if LISTS.contains(&key.as_str()) => {
                let list = LISTS.into_iter().find(|list| *list == key).unwrap_or_default();
                for item in items.iter() {
                    let place = self.seen.entry(list).or_default();
                    let key = format!("{key}[{place}]");
                    *place += 1;
                    self.value(key, item);
                }
            }
            leaf => {
                let mut leaf = raw::plain(leaf);
                mask(&key, &mut leaf);
                let place = self.file.place(value.span().start);
                self.settings.push(Setting { key, value: raw::json(&leaf), place });
            }
        }
    }
}

/// One file that says what all files say together, without secrets: its first lines name what is to be written again. Relative
/// paths stay as written.
fn export(files: &[&DeTable<'_>]) -> String {
    let mut merged = toml::Table::new();
    for file in files {
        merge(&mut merged, raw::plain_table(file));
    }
    let mut left_out = Vec::new();
    leave_out("", &mut merged, &mut left_out);
    let mut text = String::new();
    for key in left_out {
        text.push_str(&format!("# left out, since it may be a secret: {key}\n"));
    }
    text.push_str(&toml::to_string_pretty(&merged).expect("what was parsed can be written"));
    text
}

/// Tables are united, lists joined; two files never set the same key otherwise.
fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(known)), Value::Table(more)) => merge(known, more),
            (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Takes secrets out: one that is masked would be taken for the value.
fn leave_out(path: &str, table: &mut toml::Table, left_out: &mut Vec<String>) {
    table.retain(|key, value| {
        let key = super::reader::join(path, key);
        match value {
            Value::Table(table) => {
                leave_out(&key, table, left_out);
                true
            }
            leaf => {
                let secret = mask(&key, leaf);
                left_out.extend(secret.then_some(key));
                !secret
            }
        }
    });
}

/// Replaces a secret; whether there was one. A text that is nothing but one interpolation tells no secret.
fn mask(key: &str, value: &mut Value) -> bool {
    if !is_secret(key) {
        return false;
    }
    match value {
        Value::String(text) if is_interpolation(text) => false,
        Value::String(text) => {
            MASK.clone_into(text);
            true
        }
        // Each of them, not only the first that is one.
        Value::Array(items) => items.iter_mut().filter_map(|item| mask(key, item).then_some(())).count() > 0,
        Value::Table(table) => table.iter_mut().filter_map(|(_, item)| mask(key, item).then_some(())).count() > 0,
        _ => false,
    }
}

/// Passwords, and whatever a handler is given.
fn is_secret(key: &str) -> bool {
    let mut levels = key.split('.');
    matches!(
        (levels.next(), levels.next(), levels.next()),
        (Some("brokers"), Some(_), Some("password")) | (Some("handlers"), Some(_), Some("config"))
    )
}

fn is_interpolation(text: &str) -> bool {
    text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(|inner| !inner.contains(['$', '}']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "shutdown-grace = \"5s\"\n[brokers.plant]\naddress = \"mqtt.example\"\npassword = \"hunter2\"\n\
        tls = { ca = \"ca.pem\" }\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a\"\n[[schedules]]\nname = \"r\"\n";
    const MORE: &str = "[handlers.h]\nplugin = \"h.wasm\"\nconfig = { token = \"hunter3\", level = 3, key = \"${env:KEY}\", \
        list = [\"hunter4\"] }\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"b\"\n[[schedules]]\nname = \"s\"\n";

    fn with<T>(check: impl FnOnce(&[(&SourceFile, &DeTable<'_>)]) -> T) -> T {
        let files = [SourceFile::new("a.toml", MAIN), SourceFile::new("b.toml", MORE)];
        let tables: Vec<DeTable<'_>> = files.iter().map(|file| file.parse().0).collect();
        check(&files.iter().zip(&tables).collect::<Vec<_>>())
    }

    #[test]
    fn each_key_is_shown_with_its_place_and_no_secret() {
        let shown = with(settings);
        let lines: Vec<String> =
            shown.iter().map(|one| format!("{}: {} = {}", one.place, one.key, one.value)).collect();
        assert_eq!(
            lines,
            [
                "a.toml:1:18: shutdown-grace = \"5s\"",
                "a.toml:3:11: brokers.plant.address = \"mqtt.example\"",
                "a.toml:4:12: brokers.plant.password = \"***\"",
                "a.toml:5:14: brokers.plant.tls.ca = \"ca.pem\"",
                "a.toml:7:10: subscriptions[0].broker = \"plant\"",
                "a.toml:8:9: subscriptions[0].topic = \"a\"",
                "a.toml:10:8: schedules[0].name = \"r\"",
                "b.toml:2:10: handlers.h.plugin = \"h.wasm\"",
                "b.toml:3:20: handlers.h.config.token = \"***\"",
                "b.toml:3:39: handlers.h.config.level = 3",
                "b.toml:3:48: handlers.h.config.key = \"${env:KEY}\"",
                "b.toml:3:69: handlers.h.config.list = [\"***\"]",
                "b.toml:5:10: subscriptions[1].broker = \"plant\"",
                "b.toml:6:9: subscriptions[1].topic = \"b\"",
                "b.toml:8:8: schedules[1].name = \"s\"",
            ]
        );
    }

    #[test]
    fn the_export_is_one_file_without_secrets() {
        let text = with(|files| export(&files.iter().map(|(_, table)| *table).collect::<Vec<_>>()));
        assert!(!text.contains("hunter"), "{text}");
        for key in ["brokers.plant.password", "handlers.h.config.token", "handlers.h.config.list"] {
            assert!(text.contains(&format!("# left out, since it may be a secret: {key}\n")), "{text}");
        }
        assert!(!text.contains(MASK), "it would be taken for the password: {text}");
        let table: toml::Table = text.parse().expect("is TOML");
        assert_eq!(table["subscriptions"].as_array().map(Vec::len), Some(2));
        assert_eq!(table["brokers"]["plant"]["tls"]["ca"].as_str(), Some("ca.pem"));
        assert_eq!(table["handlers"]["h"]["config"]["key"].as_str(), Some("${env:KEY}"));
    }
}
