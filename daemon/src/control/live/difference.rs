//! What changes from one configuration to the next, in the words of the HTTP API.
//!
//! Pure. What is done with each object was decided in `control/config/diff.rs`; here are the keys that it is done for. Keys alone:
//! a value may be a secret.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::control::admin::resource::{ChangeKind, ObjectChange, ReloadReport};
use crate::control::config::diff::{BrokerChange, Change, Difference, adjusts};
use crate::control::config::model::Subscription;
use crate::control::config::settings;
use crate::control::config::{Definition, Loaded};

/// Keys of a broker that name files, which may lead elsewhere although they are written as before.
const FILES: [&str; 4] = ["password-file", "tls.ca", "tls.certificate", "tls.key"];

/// What the difference consists of.
pub(super) fn told(old: &Loaded, new: &Loaded, difference: &Difference) -> ReloadReport {
    let settings = settings::changed(&old.config, &new.config).into_iter();
    let subscriptions = difference.subscriptions.iter().map(|(name, change)| {
        let find = |loaded: &Loaded| {
            let place = loaded.config.subscriptions.iter().position(|one| one.name == *name)?;
            Some(loaded.origins.subscriptions.get(place)?.definition.clone())
        };
        object(name, *change, differing(find(old), find(new)))
    });
    let schedules = difference.schedules.iter().map(|(name, change)| {
        let find = |loaded: &Loaded| {
            let place = loaded.config.schedules.iter().position(|one| one.name == *name)?;
            Some(loaded.origins.schedules.get(place)?.definition.clone())
        };
        object(name, *change, differing(find(old), find(new)))
    });
    let handlers = difference.handlers.iter().map(|(name, change)| {
        let find = |loaded: &Loaded| {
            let place = loaded.config.handlers.iter().position(|one| one.name == *name)?;
            Some(loaded.origins.handlers.get(place)?.object.definition.clone())
        };
        let mut keys = differing(find(old), find(new));
        if keys.is_empty() && *change == Change::Changed {
            // Its file is elsewhere now.
            keys.insert("plugins-dir".to_owned());
        }
        object(name, *change, keys)
    });
    ReloadReport {
        dry_run: false,
        settings: settings.map(|changed| changed.key.to_owned()).collect(),
        brokers: difference.brokers.iter().map(|(name, change)| broker(name, *change, old, new)).collect(),
        subscriptions: subscriptions.chain(reordered(old, new, difference)).collect(),
        handlers: handlers.collect(),
        schedules: schedules.collect(),
        warnings: Vec::new(),
    }
}

/// Whether nothing changes.
pub(super) fn is_nothing(told: &ReloadReport) -> bool {
    let ReloadReport { dry_run: _, settings, brokers, subscriptions, handlers, schedules, warnings: _ } = told;
    let objects = [brokers, subscriptions, handlers, schedules];
    settings.is_empty() && objects.into_iter().all(Vec::is_empty)
}

fn broker(name: &Arc<str>, change: BrokerChange, old: &Loaded, new: &Loaded) -> ObjectChange {
    let find = |loaded: &Loaded| {
        let place = loaded.config.brokers.iter().position(|one| one.name == *name)?;
        Some(loaded.origins.brokers.get(place)?.object.definition.clone())
    };
    let (before, now) = (find(old), find(new));
    let mut keys = differing(before, now.clone());
    if keys.is_empty() && change == BrokerChange::Reconnected {
        let now = now.iter().flat_map(Definition::keys);
        keys.extend(now.filter(|key| FILES.contains(key)).map(str::to_owned));
    }
    let (change, forced_by) = match change {
        BrokerChange::Added => (ChangeKind::Added, Vec::new()),
        BrokerChange::Removed => (ChangeKind::Removed, Vec::new()),
        BrokerChange::Adjusted => (ChangeKind::Adjusted, Vec::new()),
        BrokerChange::Reconnected => {
            (ChangeKind::Reconnected, keys.iter().filter(|key| !adjusts(key)).cloned().collect())
        }
    };
    ObjectChange { name: name.to_string(), change, keys: keys.into_iter().collect(), forced_by }
}

fn object(name: &Arc<str>, change: Change, keys: BTreeSet<String>) -> ObjectChange {
    let change = match change {
        Change::Added => ChangeKind::Added,
        Change::Changed => ChangeKind::Changed,
        Change::Removed => ChangeKind::Removed,
    };
    ObjectChange { name: name.to_string(), change, keys: keys.into_iter().collect(), forced_by: Vec::new() }
}

/// Of an object that is there before and after.
fn differing(before: Option<Definition>, now: Option<Definition>) -> BTreeSet<String> {
    before.zip(now).map(|(before, now)| before.differing(&now)).unwrap_or_default()
}

/// Subscriptions that have another place among those of their broker, and are the same otherwise: the order counts where filters
/// are equal.
fn reordered(old: &Loaded, new: &Loaded, difference: &Difference) -> Vec<ObjectChange> {
    let unchanged = |one: &&Arc<Subscription>| !difference.subscriptions.iter().any(|(name, _)| *name == one.name);
    let order = |loaded: &Loaded, broker: &str| {
        let ours = loaded.config.broker(broker).map(|broker| broker.id);
        let all = loaded.config.subscriptions.iter().filter(|one| Some(one.broker) == ours);
        all.filter(unchanged).map(|one| Arc::clone(&one.name)).collect::<Vec<_>>()
    };
    let mut moved = Vec::new();
    for broker in &difference.routes {
        let (before, now) = (order(old, broker), order(new, broker));
        let elsewhere = now.iter().zip(&before).filter(|(now, before)| now != before);
        moved.extend(elsewhere.map(|(name, _)| ObjectChange {
            name: name.to_string(),
            change: ChangeKind::Reordered,
            keys: Vec::new(),
            forced_by: Vec::new(),
        }));
    }
    moved
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::control::config::load_text;

    const BEFORE: &str = "shutdown-grace = \"1s\"\n[brokers.a]\naddress = \"x\"\nusername = \"u\"\npassword = \"hunter2\"\n\
        [brokers.b]\naddress = \"y\"\n[handlers.h]\nplugin = \"h.wasm\"\nconfig = { token = \"hunter3\" }\n\
        [[subscriptions]]\nbroker = \"a\"\ntopic = \"t\"\non-message = \"h\"\nwhen.min-bytes = 5\nwhen.otherwise = \"next\"\n\
        [[subscriptions]]\nname = \"second\"\nbroker = \"a\"\ntopic = \"t\"\nqos = 1\n\
        [[schedules]]\nname = \"s\"\nevery = \"1m\"\non-schedule = \"h\"\n";

    fn load(text: &str) -> Loaded {
        load_text(Path::new("/nowhere/tidegate.toml"), text, "").unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The difference, a word for each object.
    #[track_caller]
    fn check(new: &str, expected: &[&str]) {
        let (old, new) = (load(BEFORE), load(new));
        let told = told(&old, &new, &Difference::between(Some(&old), &new));
        assert_eq!(is_nothing(&told), expected.is_empty());
        let json = serde_json::to_string(&told).expect("becomes JSON");
        assert!(!json.contains("hunter"), "{json}");
        let word = |kind: &str, one: &ObjectChange| {
            let ObjectChange { name, change, keys, forced_by } = one;
            let forced = if forced_by.is_empty() { String::new() } else { format!(" by {}", forced_by.join(" ")) };
            format!("{kind} {name} {change:?}: {}{forced}", keys.join(" "))
        };
        let settings = told.settings.iter().map(|key| format!("setting {key}"));
        let brokers = told.brokers.iter().map(|one| word("broker", one));
        let subscriptions = told.subscriptions.iter().map(|one| word("subscription", one));
        let handlers = told.handlers.iter().map(|one| word("handler", one));
        let schedules = told.schedules.iter().map(|one| word("schedule", one));
        let all = settings.chain(brokers).chain(subscriptions).chain(handlers).chain(schedules);
        assert_eq!(all.collect::<Vec<_>>(), expected);
    }

    /// With one text in place of another.
    #[track_caller]
    fn check_with(from: &str, to: &str, expected: &[&str]) {
        assert!(BEFORE.contains(from), "{from}");
        check(&BEFORE.replacen(from, to, 1), expected);
    }

    #[test]
    fn what_changes_is_told_by_its_keys() {
        check_with("[brokers.a]", "# a comment\n[brokers.a]", &[]);
        check_with("\"1s\"", "\"2s\"", &["setting shutdown-grace"]);
        check_with(
            "password = \"hunter2\"",
            "password = \"hunter4\"\noutbox.max-messages = 900\nkeep-alive = 60",
            &["broker a Reconnected: keep-alive outbox.max-messages password by keep-alive password"],
        );
        check_with("address = \"y\"", "address = \"y\"\nauto-connect = false", &["broker b Adjusted: auto-connect"]);
        check_with("hunter3", "hunter5", &["handler h Changed: config.token"]);
        check_with("h.wasm\"", "h.wasm\"\nallow.kv = \"1KiB\"", &["handler h Changed: allow.kv"]);
        check_with("min-bytes = 5", "min-bytes = 6", &["subscription a:t Changed: when.min-bytes"]);
        check_with("every = \"1m\"", "every = \"2m\"", &["schedule s Changed: every"]);
        check_with("shutdown-grace", "plugins-dir = \"p\"\nshutdown-grace", &["handler h Changed: plugins-dir"]);
    }

    #[test]
    fn what_comes_goes_or_moves_is_told() {
        check(
            "shutdown-grace = \"1s\"\n[brokers.c]\naddress = \"x\"\n[[subscriptions]]\nbroker = \"c\"\ntopic = \"t\"\n",
            &[
                "broker c Added: ",
                "broker a Removed: ",
                "broker b Removed: ",
                "subscription c:t Added: ",
                "subscription a:t Removed: ",
                "subscription second Removed: ",
                "handler h Removed: ",
                "schedule s Removed: ",
            ],
        );
        let second = "[[subscriptions]]\nname = \"second\"\nbroker = \"a\"\ntopic = \"t\"\nqos = 1\n";
        let moved =
            BEFORE.replacen(second, "", 1).replacen("[[subscriptions]]", &format!("{second}[[subscriptions]]"), 1);
        check(&moved, &["subscription second Reordered: ", "subscription a:t Reordered: "]);
    }
}
