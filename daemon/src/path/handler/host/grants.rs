//! What the daemon grants one handler.
//!
//! Owns: the handler's settings in the form that host functions need, and its log. Built once per handler from the
//! configuration; shared by all its instances.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use serde_json::{Map, Value};

use super::kv::KvGrant;
use super::log::HandlerLog;
use crate::brokers::BrokerNames;
use crate::control::config::model::{Handler, PublishGrant};
use crate::message::BrokerId;
use crate::printable::printable;

/// Bytes kept of a guest's own words.
pub(in crate::path::handler) const MAX_WORDS_BYTES: usize = 1024;

/// A deadline too far for the clock is this one instead: thirty years.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// So long from now on.
pub(in crate::path::handler) fn deadline(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now + FAR)
}

/// One handler's grants, limits and configuration.
pub struct Host {
    /// The handler's name.
    pub(in crate::path::handler) name: Arc<str>,
    /// The names of brokers, also of those that come later.
    pub(in crate::path::handler) brokers: BrokerNames,
    /// Where it may publish.
    pub(in crate::path::handler) allow: Vec<PublishGrant>,
    /// Where it publishes on a schedule, unless it names a broker.
    pub(in crate::path::handler) default_broker: Option<BrokerId>,
    /// Whether it may read the machine.
    pub(in crate::path::handler) allow_system: bool,
    /// Wall clock limit of one call.
    pub(in crate::path::handler) call_deadline: Duration,
    /// Linear memory of an instance, in bytes.
    pub(in crate::path::handler) max_memory: usize,
    /// Publishes of one call.
    pub(in crate::path::handler) max_publishes: usize,
    /// Topic, payload and property bytes of one call's publishes.
    pub(in crate::path::handler) max_publish_bytes: usize,
    /// What it may remember.
    pub(in crate::path::handler) kv: Option<KvGrant>,
    /// The zero of the guests' monotonic clock.
    pub(in crate::path::handler) started: Instant,
    /// Counts the threads that hang in its native code; none where nobody looks at it.
    pub(in crate::path::handler) threads_stuck: Option<IntGauge>,
    /// Where its lines go.
    pub(in crate::path::handler) log: HandlerLog,
    config: Map<String, Value>,
    /// [`Host::config`] as JSON.
    config_json: String,
}

impl Host {
    /// What the configuration grants this handler.
    pub fn new(handler: &Handler, brokers: BrokerNames, kv: Option<KvGrant>) -> Host {
        Host {
            name: Arc::clone(&handler.name),
            brokers,
            allow: handler.allow.publish.clone(),
            default_broker: handler.default_broker,
            allow_system: handler.allow.system,
            call_deadline: handler.call_deadline,
            max_memory: handler.max_memory,
            max_publishes: handler.max_publishes,
            max_publish_bytes: handler.max_publish_bytes,
            kv,
            threads_stuck: None,
            started: Instant::now(),
            log: HandlerLog::new(Arc::clone(&handler.name), handler.secrets.clone()),
            config: handler.config.clone(),
            config_json: Value::Object(handler.config.clone()).to_string(),
        }
    }

    /// Threads that hang in its native code count here.
    pub(in crate::path::handler) fn counting_threads(self, stuck: IntGauge) -> Host {
        Host { threads_stuck: Some(stuck), ..self }
    }

    /// When a call that begins now is to have ended.
    pub(in crate::path::handler) fn deadline(&self) -> Instant {
        deadline(self.call_deadline)
    }

    /// The name of a broker.
    pub fn broker(&self, broker: BrokerId) -> Arc<str> {
        self.brokers.name(broker)
    }

    /// What it may remember.
    pub fn kv(&self) -> Option<&KvGrant> {
        self.kv.as_ref()
    }

    /// What a guest says, fit for a log line, without what interpolations in the configuration stand for.
    pub(in crate::path::handler) fn words(&self, said: &str) -> String {
        printable(&self.log.mask(said), MAX_WORDS_BYTES).into_owned()
    }

    /// A value of the handler's configuration: a string as it is, anything else as JSON.
    pub(in crate::path::handler) fn config(&self, key: &str) -> Option<String> {
        self.config.get(key).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// The handler's whole configuration as a JSON object.
    pub(in crate::path::handler) fn config_json(&self) -> &str {
        &self.config_json
    }
}

#[cfg(test)]
mod tests {
    use crate::path::handler::host::testing::handler;

    #[test]
    fn configuration_reaches_the_guest_as_strings_or_json() {
        let host = handler().config(r#"{"unit":"F","limit":3.5,"on":true,"list":[1,"a"],"table":{"k":"v"}}"#).host();
        let check = |key: &str, expected: Option<&str>| assert_eq!(host.config(key).as_deref(), expected, "{key}");
        check("unit", Some("F"));
        check("limit", Some("3.5"));
        check("on", Some("true"));
        check("list", Some(r#"[1,"a"]"#));
        check("table", Some(r#"{"k":"v"}"#));
        check("absent", None);
        let whole: serde_json::Value = serde_json::from_str(host.config_json()).expect("is JSON");
        assert_eq!(whole["table"]["k"], "v");
    }

    #[test]
    fn no_configuration_is_an_empty_object() {
        assert_eq!(handler().host().config_json(), "{}");
    }
}
