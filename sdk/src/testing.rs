//! An in-memory daemon, for testing a handler natively.
//!
//! Owns: what a call published, logged and remembered. It stands where the component's imports are in WebAssembly, so the handler's code
//! is the same. It deliberately grants every valid topic unless told otherwise, and knows no limits of time, memory or size:
//! those are the real daemon's.
//!
//! ```
//! use tidegate_sdk::testing::{self, Host};
//! use tidegate_sdk::{Message, Outgoing, PublishError, Result, publish};
//!
//! fn handle(message: &Message) -> Result {
//!     publish(Outgoing::new("echo", message.payload.clone()))?;
//!     Ok(())
//! }
//!
//! let outcome = testing::call(handle, &testing::message("sensors/1", "21.5"));
//! assert_eq!(outcome.result, Ok(()));
//! assert_eq!(outcome.publishes, [Outgoing::new("echo", "21.5")]);
//!
//! // The publish is refused: `?` makes that the call's error.
//! let host = Host::new().refuse_publishes(PublishError::Denied("echo".into()));
//! let outcome = host.call(handle, &testing::message("sensors/1", "21.5"));
//! assert!(outcome.result.is_err());
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::log::Level;
use crate::system::Readings;
use crate::{KvError, Message, Outgoing, PublishError, Qos, Result, Run, Trigger, config, reject};

thread_local! {
    /// The host of the call that this thread runs; each `Host::run` sets it and takes it back.
    static CURRENT: RefCell<Host> = RefCell::new(Host::new());
}

/// What a call did, as the daemon sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<T = Result> {
    /// What it returned.
    pub result: T,
    /// What it published, in order, whether or not it succeeded: see [`Outcome::sent`].
    pub publishes: Vec<Outgoing>,
    /// What it logged, in order.
    pub logs: Vec<LogLine>,
    /// What the handler remembers with what this call wrote, whether or not it succeeded.
    memory: Memory,
}

/// By key: the value, and when it ends.
type Memory = BTreeMap<String, (Vec<u8>, Option<SystemTime>)>;

/// A line that a handler logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// Its text.
    pub message: String,
    /// Its fields, in order.
    pub fields: Vec<(String, String)>,
}

/// A message as a QoS 0 publish to this topic brings it, from a broker and a subscription that are both named `test`. Set
/// its public fields for more.
pub fn message(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Message {
    Message {
        broker: "test".into(),
        subscription: "test".into(),
        topic: topic.into(),
        payload: payload.into(),
        qos: Qos::AtMostOnce,
        retain: false,
        dup: false,
        received: SystemTime::UNIX_EPOCH,
        attempt: 1,
        captures: Vec::new(),
        properties: None,
    }
}

/// A run of the schedule of this name, due at the Unix epoch.
pub fn scheduled(name: impl Into<String>) -> Run {
    Run { trigger: Trigger::Schedule, name: name.into(), due: SystemTime::UNIX_EPOCH }
}

/// A run for the silence of the subscription of this name, due at the Unix epoch.
pub fn silent(subscription: impl Into<String>) -> Run {
    Run { trigger: Trigger::Silence, name: subscription.into(), due: SystemTime::UNIX_EPOCH }
}

/// Readings of a small machine.
pub fn readings() -> Readings {
    Readings {
        model: "test".into(),
        serial_number: "unknown".into(),
        os_version: "Test 1".into(),
        cpu_load: 7,
        used_memory: 100 << 20,
        free_memory: 156 << 20,
        uptime: 3_600,
    }
}

/// Calls a handler on a host with an empty configuration.
pub fn call(handle: impl FnOnce(&Message) -> Result, message: &Message) -> Outcome {
    Host::new().call(handle, message)
}

/// The daemon around one instance.
#[derive(Clone, Debug)]
#[must_use = "a host does nothing until `call` or `run`"]
pub struct Host {
    config: String,
    now: SystemTime,
    level: Level,
    refusal: Option<PublishError>,
    memory: Memory,
    kv_refusal: Option<KvError>,
    readings: Option<Readings>,
    publishes: Vec<Outgoing>,
    logs: Vec<LogLine>,
}

impl Host {
    /// A host with an empty configuration, all log levels, and the Unix epoch as its time.
    pub fn new() -> Host {
        Host {
            config: "{}".into(),
            now: SystemTime::UNIX_EPOCH,
            level: Level::Trace,
            refusal: None,
            memory: Memory::new(),
            kv_refusal: None,
            readings: None,
            publishes: Vec::new(),
            logs: Vec::new(),
        }
    }

    /// With this `[handlers.NAME.config]`.
    ///
    /// # Panics
    /// If the value has no JSON form.
    pub fn config(self, config: &impl Serialize) -> Host {
        Host { config: serde_json::to_string(config).expect("the configuration has a JSON form"), ..self }
    }

    /// With this time on both clocks; they stand still. Times before the Unix epoch count as the epoch.
    pub fn now(self, now: SystemTime) -> Host {
        Host { now, ..self }
    }

    /// Keeping only log lines of this level and above.
    pub fn log_level(self, level: Level) -> Host {
        Host { level, ..self }
    }

    /// Refusing every publish with this error.
    pub fn refuse_publishes(self, error: PublishError) -> Host {
        Host { refusal: Some(error), ..self }
    }

    /// Granting `allow.system`, with these readings.
    pub fn system(self, readings: &Readings) -> Host {
        Host { readings: Some(readings.clone()), ..self }
    }

    /// Remembering this value under this key.
    pub fn remembers(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Host {
        self.memory.insert(key.into(), (value.into(), None));
        self
    }

    /// Remembering what is there after a call: the new values if it succeeded.
    pub fn after(self, outcome: &Outcome) -> Host {
        if outcome.result.is_ok() { Host { memory: outcome.memory.clone(), ..self } } else { self }
    }

    /// Refusing every use of [`kv`](crate::kv) with this error.
    pub fn refuse_kv(self, error: KvError) -> Host {
        Host { kv_refusal: Some(error), ..self }
    }

    /// Calls a handler, as a new instance.
    pub fn call(&self, handle: impl FnOnce(&Message) -> Result, message: &Message) -> Outcome {
        self.run(|| handle(message))
    }

    /// Runs any code of a handler, as a new instance: its `init`, what it does on a schedule, or several calls of one that keeps
    /// state.
    pub fn run<T>(&self, code: impl FnOnce() -> T) -> Outcome<T> {
        config::forget();
        CURRENT.set(self.clone());
        let result = code();
        let Host { publishes, logs, memory, .. } = CURRENT.replace(Host::new());
        config::forget();
        Outcome { result, publishes, logs, memory }
    }

    fn alive(&self, key: &str) -> Option<&Vec<u8>> {
        let (value, end) = self.memory.get(key)?;
        end.is_none_or(|end| self.now < end).then_some(value)
    }

    fn since_epoch(&self) -> Duration {
        self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl Outcome {
    /// What really leaves: the publishes of a call that succeeded, nothing of one that failed.
    pub fn sent(&self) -> &[Outgoing] {
        if self.result.is_ok() { &self.publishes } else { &[] }
    }
}

impl<T> Outcome<T> {
    /// What the handler would remember under this key, if the call succeeded. A time to live is not looked at.
    pub fn remembered(&self, key: &str) -> Option<&[u8]> {
        self.memory.get(key).map(|(value, _)| &value[..])
    }
}

pub(crate) fn kv_get(key: &str) -> Result<Option<Vec<u8>>, KvError> {
    with_kv(key, |host| host.alive(key).cloned())
}

pub(crate) fn kv_set(key: &str, value: &[u8], time: Option<Duration>) -> Result<(), KvError> {
    with_kv(key, |host| {
        // Past the end of the clock is for ever.
        let end = time.and_then(|time| host.now.checked_add(time));
        host.memory.insert(key.to_owned(), (value.to_owned(), end));
    })
}

pub(crate) fn kv_delete(key: &str) -> Result<(), KvError> {
    with_kv(key, |host| drop(host.memory.remove(key)))
}

pub(crate) fn kv_keys(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError> {
    let start = after.filter(|after| *after >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
    with_kv("", |host| {
        let keys = host.memory.range::<str, _>((start, Bound::Unbounded)).map(|(key, _)| key);
        let keys = keys.take_while(|key| key.starts_with(prefix)).filter(|key| host.alive(key).is_some());
        keys.take(limit.min(1_000) as usize).cloned().collect()
    })
}

fn with_kv<T>(key: &str, work: impl FnOnce(&mut Host) -> T) -> Result<T, KvError> {
    CURRENT.with_borrow_mut(|host| match &host.kv_refusal {
        Some(refusal) => Err(refusal.clone()),
        None if key.len() > 512 => Err(KvError::TooLarge),
        None => Ok(work(host)),
    })
}

pub(crate) fn publish(message: Outgoing) -> Result<(), PublishError> {
    if message.topic.is_empty() {
        return Err(PublishError::InvalidTopic("must not be empty".into()));
    }
    if message.topic.contains(['+', '#', '\0']) {
        return Err(PublishError::InvalidTopic(message.topic));
    }
    CURRENT.with_borrow_mut(|host| match &host.refusal {
        Some(refusal) => Err(refusal.clone()),
        None => {
            host.publishes.push(message);
            Ok(())
        }
    })
}

pub(crate) fn log_enabled(level: Level) -> bool {
    CURRENT.with_borrow(|host| level >= host.level)
}

pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
    let line = LogLine { level, message: message.to_owned(), fields: fields.to_vec() };
    CURRENT.with_borrow_mut(|host| host.logs.push(line));
}

pub(crate) fn wall_nanos() -> u64 {
    CURRENT.with_borrow(|host| u64::try_from(host.since_epoch().as_nanos()).unwrap_or(u64::MAX))
}

pub(crate) fn monotonic_nanos() -> u64 {
    wall_nanos()
}

/// Different at each call; a test must not depend on more.
pub(crate) fn random_bytes(len: u32) -> Vec<u8> {
    use std::hash::{BuildHasher, RandomState};
    let words = std::iter::repeat_with(|| RandomState::new().hash_one(0).to_le_bytes());
    words.flatten().take(len as usize).collect()
}

pub(crate) fn system() -> Result<Readings> {
    CURRENT.with_borrow(|host| host.readings.clone()).ok_or_else(|| reject("the host grants no allow.system"))
}

pub(crate) fn config_json() -> String {
    CURRENT.with_borrow(|host| host.config.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, random, reject};

    #[test]
    fn a_failed_call_sends_nothing() {
        let publish_then_fail = |_: &Message| {
            crate::publish(Outgoing::new("a", "1"))?;
            Err(reject("no"))
        };
        let outcome = call(publish_then_fail, &message("t", ""));
        assert_eq!((outcome.publishes.len(), outcome.sent()), (1, &[][..]));
    }

    #[test]
    fn a_topic_with_a_wildcard_is_refused() {
        let publish = |topic: &str| Host::new().run(|| crate::publish(Outgoing::new(topic, ""))).result;
        assert_eq!(publish("a/#"), Err(PublishError::InvalidTopic("a/#".into())));
        assert_eq!(publish(""), Err(PublishError::InvalidTopic("must not be empty".into())));
        assert_eq!(publish("a/b"), Ok(()));
    }

    #[test]
    fn each_run_is_a_new_instance_with_its_own_configuration() {
        let read = |limit: u32| Host::new().config(&[limit]).run(|| config::config::<Vec<u32>>().cloned()).result;
        assert_eq!(read(1).expect("a list"), [1]);
        assert_eq!(read(2).expect("a list"), [2]);
    }

    #[test]
    fn what_a_call_wrote_is_remembered_if_it_succeeded() {
        let write = |result: Result| move |_: &Message| crate::kv::set("a", "1").map_err(Into::into).and(result);
        let host = Host::new();
        let failed = host.call(write(Err(reject("no"))), &message("t", ""));
        assert_eq!(failed.remembered("a"), Some(&b"1"[..]));
        let read = || crate::kv::get("a");
        assert_eq!(host.clone().after(&failed).run(read).result, Ok(None));
        let written = host.call(write(Ok(())), &message("t", ""));
        assert_eq!(host.after(&written).run(read).result, Ok(Some(b"1".to_vec())));
    }

    #[test]
    fn what_is_set_with_ttl_a_time_is_absent_after_it() {
        let second = Duration::from_secs(1);
        let outcome = Host::new().call(|_| Ok(crate::kv::set_with_ttl("a", "1", second)?), &message("t", ""));
        let keys = |passed| {
            let host = Host::new().now(SystemTime::UNIX_EPOCH + passed).after(&outcome);
            host.run(|| (crate::kv::get("a"), crate::kv::keys("", 9))).result
        };
        assert_eq!(keys(second / 2), (Ok(Some(b"1".to_vec())), Ok(vec!["a".to_owned()])));
        assert_eq!(keys(second), (Ok(None), Ok(Vec::new())));
    }

    #[test]
    fn every_use_of_kv_can_be_refused() {
        let outcome = Host::new().refuse_kv(KvError::Quota).run(|| crate::kv::set("a", ""));
        assert_eq!(outcome.result, Err(KvError::Quota));
    }

    #[test]
    fn the_clock_stands_where_it_was_set() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(12 * 3600);
        assert_eq!(Host::new().now(noon).run(clock::now).result, noon);
    }

    #[test]
    fn random_bytes_are_as_many_as_asked_for() {
        assert_eq!(random::bytes(13).len(), 13);
        assert_ne!(random::number(), random::number());
    }
}
