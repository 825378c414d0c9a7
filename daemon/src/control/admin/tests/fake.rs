//! A gateway that remembers what it is asked, and answers what it was told to.

use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::control::admin::api::{Answer, Keys, Operations};
use crate::control::admin::resource::{
    Broker, DeadLetterCount, DeadLetterList, Handler, KvEntry, KvList, KvTotals, Origin, OutboxView, Publication,
    Published, Purged, ReloadReport, Reloaded, Schedule, ScheduleRun, Setting, Source, Status, Subscription,
    WholeDeadLetter,
};
use crate::control::config::runtime::Section;
use crate::control::live::{Edit, KvPage, KvSet, LetterPage, Letters, Refusal, RefusalKind};
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
        Box::pin(std::future::ready(self.noted(what, result)))
    }

    fn noted<T>(&self, what: String, result: impl FnOnce(&mut Memory) -> T) -> Result<T, Refusal> {
        let mut memory = self.memory();
        memory.asked.push(what);
        match memory.refusal.take() {
            Some(refusal) => Err(refusal),
            None => Ok(result(&mut memory)),
        }
    }

    /// Notes what was asked, and answers with what this JSON says.
    fn told<T: serde::de::DeserializeOwned + Send + 'static>(&self, what: String, json: Value) -> Answer<'_, T> {
        self.note(what, |_| read(json))
    }
}

fn list(memory: &mut Memory, section: Section) -> &mut Vec<String> {
    match section {
        Section::Brokers => &mut memory.brokers,
        Section::Subscriptions => &mut memory.subscriptions,
        Section::Handlers => &mut memory.handlers,
    }
}

/// A resource from its JSON.
fn read<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).expect("is such a resource")
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
        "name": name, "origin": origin(), "plugin": "a.wasm", "version": "0", "file": { "state": "runs" }, "instances": 1, "isolation": "reuse",
        "call-deadline": "1s", "max-memory": "64MiB", "queue": 1024, "queue-bytes": "16MiB", "overload": "drop-newest",
        "retry": { "max": 3, "backoff": "100ms..10s", "max-time": "30s" }, "retrying": 0,
        "reload": { "canary": null, "max-failures": 0.05 }, "state": "open", "parked": { "messages": 0, "bytes": 0 },
        "max-publishes": 64, "max-publish-bytes": "1MiB", "dead-letter": null, "allow-publish": [], "allow-system": false, "allow-kv": null,
        "config": {}, "calls": {}, "dead-letters": {}, "dead-letters-dropped": 0, "waiting": 0,
    }))
    .expect("is a handler")
}

impl Operations for Fake {
    fn status(&self) -> Status {
        serde_json::from_value(json!({
            "version": "0", "started": "2023-11-14T22:13:20Z", "uptime": 1.5, "config": "tidegate.toml", "state-dir": "state",
            "ready": true, "obstacles": [], "last-reload": null, "details": [], "messages": { "received": 0, "finished": {}, "in-progress": 0, "published": 0 },
            "dead-letters": { "messages": 0, "bytes": 0 }, "parked": { "messages": 0, "bytes": 0 },
            "parked-orphans": {}, "brokers": [], "handlers": [], "schedules": [],
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

    fn reload_configuration(&self, dry_run: bool) -> Answer<'_, ReloadReport> {
        let broker = json!({ "name": "plant", "change": "reconnected", "keys": ["port"], "forced-by": ["port"] });
        let told = json!({ "dry-run": dry_run, "settings": ["log.level"], "brokers": [broker], "subscriptions": [],
            "handlers": [], "schedules": [], "warnings": [] });
        self.told(format!("reload {dry_run}"), told)
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

    fn pause<'a>(&'a self, handler: &'a str) -> Answer<'a, ()> {
        self.note(format!("pause {handler}"), |_| ())
    }

    fn resume<'a>(&'a self, handler: &'a str) -> Answer<'a, ()> {
        self.note(format!("resume {handler}"), |_| ())
    }

    fn reload<'a>(&'a self, handler: &'a str) -> Answer<'a, Reloaded> {
        let name = handler.to_owned();
        self.note(format!("reload {handler}"), |_| Reloaded {
            name,
            before: "0".into(),
            version: "1".into(),
            on_trial: None,
        })
    }

    fn outboxes(&self) -> Vec<OutboxView> {
        let waits = json!({ "messages": 3, "bytes": 30 });
        let outbox = json!({ "broker": "gone", "configured": false, "store": null, "messages": 3, "bytes": 30,
            "on-disk": waits, "draining": false, "waiting": 0, "oldest-age": null, "max-messages": null,
            "max-bytes": null, "max-age": null, "when-full": null });
        read(json!([outbox]))
    }

    fn purge_outbox<'a>(&'a self, broker: &'a str) -> Answer<'a, Purged> {
        self.told(format!("purge {broker}"), json!({ "broker": broker, "messages": 3, "bytes": 30 }))
    }

    fn dead_letters(&self, page: LetterPage) -> Answer<'_, DeadLetterList> {
        let list = json!({ "dead-letters": [letter()], "more": true, "kept": { "messages": 2, "bytes": 20 } });
        self.told(format!("{page:?}"), list)
    }

    fn dead_letter(&self, id: u64) -> Answer<'_, WholeDeadLetter> {
        let mut whole = letter();
        let more = json!({ "received": null, "properties": null, "data": "/w==", "encoding": "base64" });
        whole.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.told(format!("dead letter {id}"), whole)
    }

    fn retry_dead_letters(&self, which: Letters) -> Answer<'_, DeadLetterCount> {
        self.told(format!("retry {which:?}"), json!({ "dead-letters": 2 }))
    }

    fn clear_dead_letters(&self, which: Letters) -> Answer<'_, DeadLetterCount> {
        self.told(format!("clear {which:?}"), json!({ "dead-letters": 2 }))
    }

    fn kv(&self) -> Vec<KvTotals> {
        read(json!([{ "handler": "h", "configured": true, "keys": 1, "bytes": 9, "quota": "1MiB" }]))
    }

    fn kv_list(&self, handler: &str, page: KvPage) -> Result<KvList, Refusal> {
        let list = json!({ "keys": [{ "key": "a/b", "bytes": 1, "expires": null }], "more": false });
        self.noted(format!("list {handler} {page:?}"), |_| read(list))
    }

    fn kv_get(&self, handler: &str, key: &str) -> Result<KvEntry, Refusal> {
        let entry = json!({ "key": key, "value": "7", "encoding": "utf-8", "expires": null });
        self.noted(format!("get {handler} {key}"), |_| read(entry))
    }

    fn kv_set(&self, set: KvSet) -> Answer<'_, ()> {
        let bytes = set.value.value.as_ref().map_or(0, String::len);
        self.note(format!("set {} {} {bytes} {:?}", set.handler, set.key, set.value.ttl), |_| ())
    }

    fn kv_delete<'a>(&'a self, handler: &'a str, key: &'a str) -> Answer<'a, ()> {
        self.note(format!("delete {handler} {key}"), |_| ())
    }

    fn schedules(&self) -> Vec<Schedule> {
        read(json!([{ "name": "stats", "origin": origin(), "timing": "every 1m", "action": "publish plant:gw/stats",
            "runs": 1, "failures": 0, "skipped": 0 }]))
    }

    fn run_schedule<'a>(&'a self, name: &'a str) -> Answer<'a, ScheduleRun> {
        self.told(format!("run {name}"), json!({ "name": name, "result": "ok", "error": null }))
    }
}

fn letter() -> Value {
    json!({
        "id": 7, "kind": "message", "time": "2023-11-14T22:13:20Z", "handler": "h", "subscription": "plant:a/#",
        "broker": "plant", "topic": "a/b", "qos": 1, "retain": false, "reason": "reject", "error": "no", "attempts": 1,
        "bytes": 1,
    })
}
