//! For the tests of this folder and those beside it: handlers of any configuration.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::{Host, KvGrant};
use crate::brokers::BrokerNames;
use crate::control::config::model::{
    Allow, Handler, Isolation, Overload, PublishGrant, QuarantinePolicy, ReloadPolicy, Retry,
};
use crate::message::BrokerId;
use crate::topic::TopicFilter;

/// A handler named "celsius" between the brokers "plant" (0) and "cloud" (1), with generous limits and no grants.
pub(in crate::path) struct TestHandler {
    handler: Handler,
}

pub(in crate::path) fn handler() -> TestHandler {
    TestHandler {
        handler: Handler {
            name: "celsius".into(),
            plugin: PathBuf::from("celsius.wasm"),
            instances: NonZeroUsize::MIN,
            isolation: Isolation::Reuse,
            call_deadline: Duration::from_secs(10),
            max_memory: 1 << 20,
            queue: 1,
            queue_bytes: 1 << 20,
            overload: Overload::DropNewest,
            retry: Retry { max: 0, backoff: Duration::ZERO..=Duration::ZERO, max_time: Duration::ZERO },
            max_publishes: 64,
            max_publish_bytes: 1 << 20,
            dead_letter: None,
            quarantine: None,
            reload: ReloadPolicy { canary: None, max_failures: 0.05 },
            default_broker: None,
            allow: Allow::default(),
            config: serde_json::Map::new(),
            secrets: Vec::new(),
        },
    }
}

impl TestHandler {
    /// Calls that fail are made again so many times, after so long each.
    pub(in crate::path::handler) fn retry(mut self, max: u32, wait: Duration) -> TestHandler {
        self.handler.retry = Retry { max, backoff: wait..=wait, max_time: (10 * wait).max(Duration::from_secs(10)) };
        self
    }

    /// It is left alone after so many failures, for so long.
    pub(in crate::path::handler) fn quarantine(mut self, after: u32, wait: Duration) -> TestHandler {
        self.handler.quarantine = Some(QuarantinePolicy { after, wait });
        self
    }

    /// So large a share of the calls on trial may fail.
    pub(in crate::path::handler) fn max_failures(mut self, share: f64) -> TestHandler {
        self.handler.reload.max_failures = share;
        self
    }

    /// Grants as `BROKER-ID:FILTER`.
    pub(in crate::path::handler) fn allow(mut self, grants: &[&str]) -> TestHandler {
        let grant = |text: &&str| {
            let (broker, filter) = text.split_once(':').expect("has a colon");
            PublishGrant {
                broker: BrokerId(broker.parse().expect("is a number")),
                filter: TopicFilter::new(filter).expect("is a filter"),
            }
        };
        self.handler.allow.publish = grants.iter().map(grant).collect();
        self
    }

    /// Where a publish goes on a schedule that names no broker.
    pub(in crate::path::handler) fn default_broker(mut self, broker: BrokerId) -> TestHandler {
        self.handler.default_broker = Some(broker);
        self
    }

    /// It may remember so many bytes.
    pub(in crate::path::handler) fn kv(mut self, bytes: usize) -> TestHandler {
        self.handler.allow.kv = Some(bytes);
        self
    }

    /// It may read the machine.
    pub(in crate::path::handler) fn system(mut self) -> TestHandler {
        self.handler.allow.system = true;
        self
    }

    pub(in crate::path::handler) fn config(mut self, json: &str) -> TestHandler {
        self.handler.config = serde_json::from_str(json).expect("is an object");
        self
    }

    pub(in crate::path::handler) fn deadline(mut self, deadline: Duration) -> TestHandler {
        self.handler.call_deadline = deadline;
        self
    }

    pub(in crate::path::handler) fn memory(mut self, bytes: usize) -> TestHandler {
        self.handler.max_memory = bytes;
        self
    }

    pub(in crate::path::handler) fn publishes(mut self, most: usize, bytes: usize) -> TestHandler {
        (self.handler.max_publishes, self.handler.max_publish_bytes) = (most, bytes);
        self
    }

    pub(in crate::path::handler) fn instances(mut self, count: usize) -> TestHandler {
        self.handler.instances = NonZeroUsize::new(count).expect("at least one");
        self
    }

    pub(in crate::path::handler) fn queue(mut self, messages: usize) -> TestHandler {
        self.handler.queue = messages;
        self
    }

    pub(in crate::path) fn configured(self) -> Handler {
        self.handler
    }

    pub(in crate::path::handler) fn host(self) -> Host {
        let brokers = BrokerNames::default();
        ["plant", "cloud"].iter().for_each(|name| _ = brokers.number(name));
        Host::new(&self.handler, brokers, KvGrant::detached(&self.handler))
    }
}
