//! What changes from one configuration to the next.
//!
//! Pure. Objects are compared by name, and by what they are made of as it is written: what an interpolation stands for does
//! not count, so that a rotated file does not disturb what nobody changed.

use std::collections::BTreeSet;
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
    /// The brokers, those that are removed apart, of which a message may now go another way.
    pub routes: BTreeSet<Arc<str>>,
}

impl Difference {
    /// From what runs, if anything does, to what is to run.
    pub fn between(old: Option<&Loaded>, new: &Loaded) -> Difference {
        let (old, new) = (old.map(Side::of).unwrap_or_default(), Side::of(new));
        let brokers = brokers(&old, &new);
        let (handlers, schedules) = (changes(&old.handlers, &new.handlers), changes(&old.schedules, &new.schedules));
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
        Difference { brokers, handlers, schedules, routes }
    }
}

/// The objects of one configuration with their definitions.
#[derive(Default)]
struct Side<'a> {
    brokers: Vec<(&'a Arc<Broker>, Definition)>,
    subscriptions: Vec<(&'a Arc<Subscription>, Definition)>,
    handlers: Vec<(&'a Arc<str>, Definition)>,
    schedules: Vec<(&'a Arc<str>, Definition)>,
}

impl<'a> Side<'a> {
    fn of(loaded: &'a Loaded) -> Side<'a> {
        let Loaded { config, origins, .. } = loaded;
        let brokers = config.brokers.iter().zip(origins.brokers.iter().map(|origin| origin.object.definition));
        let subscriptions =
            config.subscriptions.iter().zip(origins.subscriptions.iter().map(|origin| origin.definition));
        let handlers = config.handlers.iter().map(|handler| &handler.name);
        let handlers = handlers.zip(origins.handlers.iter().map(|origin| origin.object.definition));
        let schedules = config.schedules.iter().map(|schedule| &schedule.name);
        let schedules = schedules.zip(origins.schedules.iter().map(|origin| origin.definition));
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
        ours.map(|(_, definition)| *definition).collect()
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
            Some((_, known)) if known == definition => continue,
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
fn changes(old: &[(&Arc<str>, Definition)], new: &[(&Arc<str>, Definition)]) -> Vec<(Arc<str>, Change)> {
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

/// Whether a connection that was made with one may stay with the other.
fn connects_alike(one: &Broker, other: &Broker) -> bool {
    let Broker { auto_connect, parallel_limit, dispatch, outbox, .. } = *other;
    Broker { auto_connect, parallel_limit, dispatch, outbox, ..one.clone() } == *other
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
        let routes = found.routes.iter().map(|name| format!("routes of {name}"));
        assert_eq!(brokers.chain(handlers).chain(schedules).chain(routes).collect::<Vec<_>>().join(", "), expected);
    }

    #[test]
    fn only_what_is_written_otherwise_changes() {
        check("[brokers.a]", "# a comment\n[brokers.a]", "");
        check("address = \"x\"", "address = \"z\"", "a Reconnected, routes of a");
        check("address = \"x\"", "address = \"x\"\nauto-connect = false", "a Adjusted, routes of a");
        check("address = \"x\"", "address = \"x\"\nkeep-alive = 60", "a Adjusted, routes of a");
        check("address = \"x\"", "address = \"x\"\noutbox = { max-messages = 64 }", "a Adjusted, routes of a");
        check("plugin = \"h.wasm\"", "plugin = \"h.wasm\"\nqueue = 5", "h Changed, routes of a");
        check("broker = \"b\"\ntopic = \"t\"", "broker = \"b\"\ntopic = \"u\"", "routes of b");
        check("broker = \"b\"\ntopic = \"t\"", "broker = \"a\"\ntopic = \"u\"", "routes of a, routes of b");
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
    fn what_is_gone_is_removed() {
        let (before, after) = (loaded(BEFORE), loaded("[brokers.b]\naddress = \"y\"\n"));
        let found = Difference::between(Some(&before), &after);
        assert_eq!(found.brokers, [("a".into(), BrokerChange::Removed)]);
        assert_eq!(found.handlers, [("h".into(), Change::Removed)]);
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
