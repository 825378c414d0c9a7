//! A gateway that remembers what it is asked, and answers what it was told to.

use std::sync::{Mutex, MutexGuard};

use serde_json::json;

use crate::control::admin::api::{Answer, Keys, Operations};
use crate::control::admin::resource::{
    Broker, Handler, Origin, Publication, Published, Setting, Source, Status, Subscription,
};
use crate::control::config::runtime::Section;
use crate::control::live::{Edit, Refusal, RefusalKind};
use crate::path::router::explain::{Explanation, Verdict};
use crate::path::router::select::Facts;
use crate::topic::TopicName;

/// Objects by name, requests, and the next refusal.
#[derive(Default)]
pub(super) struct Fake(Mutex<Memory>);

#[derive(Default)]
pub(super) struct Memory {
    pub(super) brokers: Vec<String>,
    pub(super) subscriptions: Vec<String>,
    pub(super) handlers: Vec<String>,
    /// What was asked, in words.
    pub(super) asked: Vec<String>,
    pub(super) refusal: Option<Refusal>,
    /// Of the next change.
    pub(super) warnings: Vec<String>,
}

impl Fake {
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().expect("no test panics with it")
    }

    /// The next change is refused.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.memory().refusal = Some(refusal);
    }

    /// What was asked since the last look.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.memory().asked)
    }

    fn note<T: Send + 'static>(&self, what: String, result: impl FnOnce(&mut Memory) -> T) -> Answer<'_, T> {
        let mut memory = self.memory();
        memory.asked.push(what);
        let answer = match memory.refusal.take() {
            Some(refusal) => Err(refusal),
            None => Ok(result(&mut memory)),
        };
        Box::pin(std::future::ready(answer))
    }
}

fn list(memory: &mut Memory, section: Section) -> &mut Vec<String> {
    match section {
        Section::Brokers => &mut memory.brokers,
        Section::Subscriptions => &mut memory.subscriptions,
        Section::Handlers => &mut memory.handlers,
    }
}

fn origin() -> Origin {
    Origin { source: Source::Runtime, file: "runtime.toml".into(), line: 1 }
}

fn broker(name: &str) -> Broker {
    serde_json::from_value(json!({
        "name": name, "origin": origin(), "address": "mqtt.example", "port": 1883, "protocol": "5", "client-id": "c",
        "keep-alive": 60, "auto-connect": false, "clean-session": false, "receive-maximum": 64, "max-packet": "1MiB",
        "dispatch": "best", "transport": { "kind": "tcp" }, "connected": false, "state": "idle",
        "outbox": { "messages": 0, "bytes": 0, "waiting": 0, "store": "memory", "max-messages": 10000,
            "max-bytes": "64MiB", "when-full": "block" },
    }))
    .expect("is a broker")
}

fn subscription(name: &str) -> Subscription {
    serde_json::from_value(json!({
        "name": name, "origin": origin(), "broker": "plant", "topic": "a/#", "qos": 0, "state": "pending",
    }))
    .expect("is a subscription")
}

fn handler(name: &str) -> Handler {
    serde_json::from_value(json!({
        "name": name, "origin": origin(), "plugin": "a.wasm", "version": "0", "instances": 1, "isolation": "reuse",
        "call-deadline": "1s", "max-memory": "64MiB", "queue": 1024, "queue-bytes": "16MiB", "overload": "drop-newest",
        "retry": { "max": 3, "backoff": "100ms..10s", "max-time": "30s" }, "retrying": 0,
        "max-publishes": 64, "max-publish-bytes": "1MiB", "dead-letter": null, "allow-publish": [], "allow-system": false,
        "config": {}, "calls": {}, "dead-letters": {}, "dead-letters-dropped": 0, "waiting": 0,
    }))
    .expect("is a handler")
}

impl Operations for Fake {
    fn status(&self) -> Status {
        serde_json::from_value(json!({
            "version": "0", "started": "2023-11-14T22:13:20Z", "uptime": 1.5, "config": "tidegate.toml", "state-dir": "state",
            "ready": true, "obstacles": [], "messages": { "received": 0, "finished": {}, "in-progress": 0, "published": 0 },
            "brokers": [], "handlers": [],
        }))
        .expect("is a status")
    }

    fn brokers(&self) -> Vec<Broker> {
        self.memory().brokers.iter().map(|name| broker(name)).collect()
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        self.memory().subscriptions.iter().map(|name| subscription(name)).collect()
    }

    fn handlers(&self) -> Vec<Handler> {
        self.memory().handlers.iter().map(|name| handler(name)).collect()
    }

    fn settings(&self) -> Vec<Setting> {
        vec![Setting { key: "brokers.plant.port".into(), value: json!(1883), origin: origin() }]
    }

    fn export(&self) -> String {
        "[brokers.plant]\n".into()
    }

    fn explain(&self, broker: Option<&str>, topic: &TopicName, facts: Facts<'_>) -> Result<Vec<Explanation>, Refusal> {
        match broker {
            Some("plant") | None => Ok(vec![Explanation {
                broker: "plant".into(),
                topic: topic.as_str().into(),
                dispatch: format!("{:?} {}", String::from_utf8_lossy(facts.payload), facts.retain),
                outcome: Verdict::Unmatched,
                subscriptions: Vec::new(),
            }]),
            Some(_) => Err(Refusal::new(RefusalKind::NotFound, "there is no such broker", "")),
        }
    }

    fn change(&self, edit: Edit) -> Answer<'_, Vec<String>> {
        self.note(format!("{edit:?}"), |memory| {
            match edit {
                Edit::Add { section, keys } => {
                    list(memory, section).push(keys["name"].as_str().expect("was looked at").to_owned());
                }
                Edit::Set { .. } => {}
                Edit::Remove { section, name, .. } => list(memory, section).retain(|known| *known != name),
            }
            std::mem::take(&mut memory.warnings)
        })
    }

    fn subscribe(&self, keys: Keys, force: bool) -> Answer<'_, (String, Vec<String>)> {
        self.note(format!("subscribe {} {force}", serde_json::Value::Object(keys)), |memory| {
            memory.subscriptions.push("plant:a/#".into());
            ("plant:a/#".into(), std::mem::take(&mut memory.warnings))
        })
    }

    fn connect<'a>(&'a self, broker: &'a str) -> Answer<'a, ()> {
        self.note(format!("connect {broker}"), |_| ())
    }

    fn disconnect<'a>(&'a self, broker: &'a str) -> Answer<'a, ()> {
        self.note(format!("disconnect {broker}"), |_| ())
    }

    fn reset_session<'a>(&'a self, broker: &'a str) -> Answer<'a, ()> {
        self.note(format!("reset-session {broker}"), |_| ())
    }

    fn publish(&self, publication: Publication) -> Answer<'_, Published> {
        let bytes = publication.message.as_ref().map_or(0, String::len);
        self.note(format!("publish {} {} {bytes}", publication.broker, publication.topic), |_| Published {
            broker: publication.broker,
            topic: publication.topic,
            qos: publication.qos,
            acknowledged: true,
            connected_for_it: false,
            disconnected: false,
        })
    }
}
