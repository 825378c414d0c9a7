//! What changes from one configuration to the next.
//!
//! Pure. Objects are compared by name, and by what they are made of, which is what their interpolations stood for when they were
//! read. A change by command reads none anew ([`Sources::with_runtime`](super::Sources::with_runtime)), so that a rotated file does
//! not disturb what nobody changed; a reload reads all.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::model::{Broker, OnMessage, Subscription};
use super::{Definition, Loaded};
use crate::message::BrokerId;

/// What is to be done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It stays, with other settings.
    Changed,
    /// It goes.
    Removed,
}

/// What is to be done with a broker's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerChange {
    /// It is new.
    Added,
    /// Settings that the connection was made with are others: it is made anew.
    Reconnected,
    /// Settings changed that a connection does not know.
    Adjusted,
    /// It goes.
    Removed,
}

/// The difference between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// By name, in the order of the new configuration; removed ones last.
    pub brokers: Vec<(Arc<str>, BrokerChange)>,
    /// Likewise.
    pub handlers: Vec<(Arc<str>, Change)>,
    /// Likewise.
    pub schedules: Vec<(Arc<str>, Change)>,
    /// Likewise.
    pub subscriptions: Vec<(Arc<str>, Change)>,
    /// The brokers, those that are removed apart, of which a message may now go another way.
    pub routes: BTreeSet<Arc<str>>,
}

impl Difference {
    /// From what runs, if anything does, to what is to run.
    pub fn between(old: Option<&Loaded>, new: &Loaded) -> Difference {
        let (old, new) = (old.map(Side::of).unwrap_or_default(), Side::of(new));
        let brokers = brokers(&old, &new);
        let (handlers, schedules) = (changes(&old.handlers, &new.handlers), changes(&old.schedules, &new.schedules));
        let subscriptions = changes(&named(&old.subscriptions), &named(&new.subscriptions));
        let mut routes = BTreeSet::new();
        for (broker, _) in &new.brokers {
            let before = old.brokers.iter().find(|(known, _)| known.name == broker.name);
            let same = before.is_some_and(|(before, _)| {
                let touched = |name: &Arc<str>| handlers.iter().any(|(handler, _)| handler == name);
                old.wanted(before.id) == new.wanted(broker.id) && !new.called(broker.id).any(touched)
            });
            let changed = brokers.iter().any(|(name, _)| *name == broker.name);
            if changed || !same {
                routes.insert(Arc::clone(&broker.name));
            }
        }
        Difference { brokers, handlers, schedules, subscriptions, routes }
    }
}

/// The objects of one configuration with their definitions.
#[derive(Default)]
struct Side<'a> {
    brokers: Vec<(&'a Arc<Broker>, Definition)>,
    subscriptions: Vec<(&'a Arc<Subscription>, Definition)>,
    /// With their plugins' files: where a name leads depends on `plugins-dir` too.
    handlers: Vec<(&'a Arc<str>, (Definition, &'a Path))>,
    schedules: Vec<(&'a Arc<str>, Definition)>,
}

impl<'a> Side<'a> {
    fn of(loaded: &'a Loaded) -> Side<'a> {
        let Loaded { config, origins, .. } = loaded;
        let brokers = config.brokers.iter().zip(origins.brokers.iter().map(|origin| origin.object.definition.clone()));
        let subscriptions =
            config.subscriptions.iter().zip(origins.subscriptions.iter().map(|origin| origin.definition.clone()));
        let handlers = config.handlers.iter().zip(&origins.handlers);
        let handlers =
            handlers.map(|(handler, origin)| (&handler.name, (origin.object.definition.clone(), &*handler.plugin)));
        let schedules = config.schedules.iter().map(|schedule| &schedule.name);
        let schedules = schedules.zip(origins.schedules.iter().map(|origin| origin.definition.clone()));
        Side {
            brokers: brokers.collect(),
            subscriptions: subscriptions.collect(),
            handlers: handlers.collect(),
            schedules: schedules.collect(),
        }
    }

    /// What a broker's subscriptions are made of, in their order.
    fn wanted(&self, broker: BrokerId) -> Vec<Definition> {
        let ours = self.subscriptions.iter().filter(|(subscription, _)| subscription.broker == broker);
        ours.map(|(_, definition)| definition.clone()).collect()
    }

    /// The handlers that a broker's subscriptions call.
    fn called(&self, broker: BrokerId) -> impl Iterator<Item = &'a Arc<str>> {
        let ours = self.subscriptions.iter().filter(move |(subscription, _)| subscription.broker == broker);
        ours.filter_map(|(subscription, _)| match &subscription.on_message {
            Some(OnMessage::Handler(handler)) => Some(&handler.name),
            Some(OnMessage::Log(_)) | None => None,
        })
    }
}

fn brokers(old: &Side<'_>, new: &Side<'_>) -> Vec<(Arc<str>, BrokerChange)> {
    let mut changes = Vec::new();
    for (broker, definition) in &new.brokers {
        let change = match old.brokers.iter().find(|(known, _)| known.name == broker.name) {
            None => BrokerChange::Added,
            Some((known, before)) if before == definition && leads_alike(known, broker) => continue,
            Some((known, _)) if connects_alike(known, broker) => BrokerChange::Adjusted,
            Some(_) => BrokerChange::Reconnected,
        };
        changes.push((Arc::clone(&broker.name), change));
    }
    let gone = old.brokers.iter().filter(|(known, _)| !new.brokers.iter().any(|(broker, _)| broker.name == known.name));
    changes.extend(gone.map(|(broker, _)| (Arc::clone(&broker.name), BrokerChange::Removed)));
    changes
}

/// By name.
fn named<'a>(subscriptions: &[(&'a Arc<Subscription>, Definition)]) -> Vec<(&'a Arc<str>, Definition)> {
    subscriptions.iter().map(|(subscription, definition)| (&subscription.name, definition.clone())).collect()
}

/// By name.
fn changes<T: PartialEq>(old: &[(&Arc<str>, T)], new: &[(&Arc<str>, T)]) -> Vec<(Arc<str>, Change)> {
    let mut changes = Vec::new();
    for (name, definition) in new {
        let change = match old.iter().find(|(known, _)| known == name) {
            None => Change::Added,
            Some((_, known)) if known == definition => continue,
            Some(_) => Change::Changed,
        };
        changes.push((Arc::clone(name), change));
    }
    let gone = old.iter().filter(|(known, _)| !new.iter().any(|(name, _)| name == known));
    changes.extend(gone.map(|(name, _)| (Arc::clone(name), Change::Removed)));
    changes
}

/// Whether two brokers that are written alike are alike: relative paths lead from the folder of the file that they stand in. The
/// name of the machine is no part of it.
fn leads_alike(one: &Broker, other: &Broker) -> bool {
    Broker { id: other.id, client_id: other.client_id.clone(), ..one.clone() } == *other
}

/// Whether a connection that was made with one may stay with the other.
fn connects_alike(one: &Broker, other: &Broker) -> bool {
    let Broker { auto_connect, parallel_limit, dispatch, outbox, .. } = *other;
    Broker { auto_connect, parallel_limit, dispatch, outbox, ..one.clone() } == *other
}

/// Whether a broker's key, with its path, is one that a connection does not know: as [`connects_alike`] has it.
pub fn adjusts(key: &str) -> bool {
    let first = key.split_once('.').map_or(key, |(first, _)| first);
    matches!(first, "auto-connect" | "parallel-limit" | "dispatch" | "outbox")
}

#[cfg(test)]
mod tests {
    use super::super::Environment;
    use super::super::source::SourceFile;
    use super::*;
    use crate::brokers::BrokerNames;

    const BEFORE: &str = "[brokers.a]\naddress = \"x\"\n[brokers.b]\naddress = \"y\"\n[handlers.h]\nplugin = \"h.wasm\"\n\
        [[subscriptions]]\nbroker = \"a\"\ntopic = \"t\"\non-message = \"h\"\n[[subscriptions]]\nbroker = \"b\"\ntopic = \"t\"\n";

    fn loaded(text: &str) -> Loaded {
        let nothing = |state_dir: &std::path::Path| Ok(SourceFile::runtime(state_dir.join("runtime.toml"), ""));
        let files = [SourceFile::new("tidegate.toml", text)];
        super::super::assemble(&files, nothing, &Environment::of_process(), &BrokerNames::default()).expect("good")
    }

    /// The difference that a replacement in the text makes, in words.
    fn check(from: &str, to: &str, expected: &str) {
        assert!(BEFORE.contains(from), "{from}");
        let found = Difference::between(Some(&loaded(BEFORE)), &loaded(&BEFORE.replacen(from, to, 1)));
        let brokers = found.brokers.iter().map(|(name, change)| format!("{name} {change:?}"));
        let handlers = found.handlers.iter().map(|(name, change)| format!("{name} {change:?}"));
        let schedules = found.schedules.iter().map(|(name, change)| format!("{name} {change:?}"));
        let subscriptions = found.subscriptions.iter().map(|(name, change)| format!("{name} {change:?}"));
        let routes = found.routes.iter().map(|name| format!("routes of {name}"));
        let objects = brokers.chain(handlers).chain(schedules).chain(subscriptions);
        assert_eq!(objects.chain(routes).collect::<Vec<_>>().join(", "), expected);
    }

    #[test]
    fn only_what_is_written_otherwise_changes() {
        check("[brokers.a]", "# a comment\n[brokers.a]", "");
        check("address = \"x\"", "address = \"z\"", "a Reconnected, routes of a");
        check("address = \"x\"", "address = \"x\"\nauto-connect = false", "a Adjusted, routes of a");
        check("address = \"x\"", "address = \"x\"\nkeep-alive = 60", "a Adjusted, routes of a");
        check("address = \"x\"", "address = \"x\"\noutbox = { max-messages = 64 }", "a Adjusted, routes of a");
        check("plugin = \"h.wasm\"", "plugin = \"h.wasm\"\nqueue = 5", "h Changed, routes of a");
        check("broker = \"b\"\ntopic = \"t\"", "broker = \"b\"\ntopic = \"u\"", "b:u Added, b:t Removed, routes of b");
        check(
            "broker = \"b\"\ntopic = \"t\"",
            "broker = \"a\"\ntopic = \"u\"",
            "a:u Added, b:t Removed, routes of a, routes of b",
        );
        check("topic = \"t\"\non", "topic = \"t\"\nqos = 1\non", "a:t Changed, routes of a");
        check("[brokers.a]", "plugins-dir = \"elsewhere\"\n[brokers.a]", "h Changed, routes of a");
        check("[brokers.a]", "[brokers.c]\naddress = \"z\"\n[brokers.a]", "c Added, routes of c");
        check("[handlers.h]", "[handlers.i]\nplugin = \"i.wasm\"\n[handlers.h]", "i Added");
    }

    #[test]
    fn schedules_change_by_name() {
        let schedule = |name: &str, every: &str| {
            format!("[[schedules]]\nname = \"{name}\"\nevery = \"{every}\"\non-schedule = \"h\"\n")
        };
        let before = format!("{BEFORE}{}{}{}", schedule("x", "1s"), schedule("y", "1s"), schedule("z", "1s"));
        let after = format!("{BEFORE}# moved\n{}{}{}", schedule("w", "1s"), schedule("z", "1s"), schedule("x", "2s"));
        let found = Difference::between(Some(&loaded(&before)), &loaded(&after));
        let expected = [("w", Change::Added), ("x", Change::Changed), ("y", Change::Removed)];
        assert_eq!(found.schedules, expected.map(|(name, change)| (Arc::from(name), change)));
        assert_eq!(Difference { schedules: Vec::new(), ..found }, Difference::default());
    }

    #[test]
    fn what_an_interpolation_stands_for_counts_once_it_is_read_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, address) = (folder.path().join("tidegate.toml"), folder.path().join("address"));
        let state = toml::Value::from(folder.path().to_string_lossy().into_owned());
        let text = format!("state-dir = {state}\n[brokers.a]\naddress = \"${{file:address}}\"\n");
        std::fs::write(&file, text).expect("writes");
        std::fs::write(&address, "one\n").expect("writes");
        let before = super::super::load(&file).expect("good");
        std::fs::write(&address, "two\n").expect("writes");
        let edited = before.sources.with_runtime(String::new(), &before.names).expect("good");
        assert_eq!(edited.config.brokers[0].address, "one");
        assert_eq!(Difference::between(Some(&before), &edited), Difference::default());
        let again = super::super::load_again(&file, &before.names).expect("good");
        let found = Difference::between(Some(&edited), &again);
        assert_eq!(found.brokers, [("a".into(), BrokerChange::Reconnected)]);
        let [before, again] = [&before, &again].map(|loaded| &loaded.origins.brokers[0].object.definition);
        assert_eq!(before.differing(again), BTreeSet::from(["address".to_owned()]));
    }

    #[test]
    fn a_broker_that_moves_to_another_file_stays_unless_its_paths_lead_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let main = SourceFile::new(folder.path().join("tidegate.toml"), BEFORE);
        let nothing = |state_dir: &Path| Ok(SourceFile::runtime(state_dir.join("runtime.toml"), ""));
        let load = |in_main: &str, beside: &str| {
            let main = SourceFile::new(folder.path().join("tidegate.toml"), format!("{in_main}{}", main.text()));
            let files = [main, SourceFile::new(folder.path().join("conf.d/c.toml"), beside)];
            let names = BrokerNames::default();
            super::super::assemble(&files, nothing, &Environment::of_process(), &names).expect("good")
        };
        let check = |broker: &str, expected: &[BrokerChange]| {
            let found = Difference::between(Some(&load(broker, "")), &load("", broker));
            assert_eq!(found.brokers.iter().map(|(_, change)| *change).collect::<Vec<_>>(), expected);
        };
        check("[brokers.c]\naddress = \"z\"\n", &[]);
        let with_file = "[brokers.c]\naddress = \"z\"\nusername = \"u\"\npassword-file = \"p\"\n";
        check(with_file, &[BrokerChange::Reconnected]);
    }

    #[test]
    fn what_is_gone_is_removed() {
        let (before, after) = (loaded(BEFORE), loaded("[brokers.b]\naddress = \"y\"\n"));
        let found = Difference::between(Some(&before), &after);
        assert_eq!(found.brokers, [("a".into(), BrokerChange::Removed)]);
        assert_eq!(found.handlers, [("h".into(), Change::Removed)]);
        assert_eq!(found.subscriptions, [("a:t".into(), Change::Removed), ("b:t".into(), Change::Removed)]);
        assert_eq!(found.routes, BTreeSet::from(["b".into()]));
    }

    #[test]
    fn at_the_start_everything_is_new() {
        let found = Difference::between(None, &loaded(BEFORE));
        assert_eq!(found.brokers, [("a".into(), BrokerChange::Added), ("b".into(), BrokerChange::Added)]);
        assert_eq!(found.handlers, [("h".into(), Change::Added)]);
        assert_eq!(found.routes.len(), 2);
    }
}
