//! For the tests of this folder: handlers of any configuration, and small guests in text.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Host, LoadError, Plugin, WasmEngine};
use crate::control::config::model::{Allow, Handler, Isolation, Overload, PublishGrant};
use crate::message::BrokerId;
use crate::topic::TopicFilter;

/// A guest whose `init` and `handle` return ok.
pub(super) const RETURNS_OK: &str = "";

/// Where guests find, or write, a result.
pub(super) const RESULT: u32 = 0x80;

/// A handler named "celsius" between the brokers "plant" (0) and "cloud" (1), with generous limits and no grants.
pub(super) struct TestHandler {
    handler: Handler,
}

pub(super) fn handler() -> TestHandler {
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
            max_publishes: 64,
            max_publish_bytes: 1 << 20,
            allow: Allow::default(),
            config: serde_json::Map::new(),
            secrets: Vec::new(),
        },
    }
}

impl TestHandler {
    /// Grants as `BROKER-ID:FILTER`.
    pub(super) fn allow(mut self, grants: &[&str]) -> TestHandler {
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

    pub(super) fn config(mut self, json: &str) -> TestHandler {
        self.handler.config = serde_json::from_str(json).expect("is an object");
        self
    }

    pub(super) fn deadline(mut self, deadline: Duration) -> TestHandler {
        self.handler.call_deadline = deadline;
        self
    }

    pub(super) fn memory(mut self, bytes: usize) -> TestHandler {
        self.handler.max_memory = bytes;
        self
    }

    pub(super) fn publishes(mut self, most: usize, bytes: usize) -> TestHandler {
        (self.handler.max_publishes, self.handler.max_publish_bytes) = (most, bytes);
        self
    }

    pub(super) fn host(self) -> Host {
        Host::new(&self.handler, Arc::new(["plant".into(), "cloud".into()]))
    }
}

/// An engine without a cache.
pub(super) fn engine() -> WasmEngine {
    WasmEngine::new(None).expect("an engine")
}

/// Loads a file with these bytes.
pub(super) fn load(bytes: &[u8]) -> Result<Plugin, LoadError> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("writes");
    engine().load(file.path())
}

/// A component of the world message-handler around the text of a core module's inside.
///
/// `body` may define `$init`, which returns a pointer to its result, and `$handle`, which takes a pointer to the message
/// and returns one to its result; without them both return ok. It may call what `testing.wat` imports. At [`RESULT`] it
/// finds zeros: the result ok.
pub(super) fn component(body: &str) -> Vec<u8> {
    let unless_defined = |name: &str, default: String| match body.contains(&format!("(func {name} ")) {
        true => String::new(),
        false => default,
    };
    let init = unless_defined("$init", format!("(func $init (result i32) (i32.const {RESULT}))"));
    let handle = unless_defined("$handle", format!("(func $handle (param i32) (result i32) (i32.const {RESULT}))"));
    let text = include_str!("testing.wat").replace("$BODY$", &format!("{body}\n{init}\n{handle}"));
    wat::parse_str(text).expect("is a component")
}
