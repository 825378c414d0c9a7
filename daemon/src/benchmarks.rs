//! What the micro-benchmarks in `benches/` may call.
//!
//! Wrappers rather than re-exports: what they do not call stays private, so that the compiler still finds dead code.
//! Nothing in the daemon uses them. They measure nothing themselves.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use crate::control::config;
use crate::control::config::model::OutboxLimits;
use crate::message::{BrokerId, Message, Outgoing, Qos};
use crate::path::handler::host::{Host, KvGrant};
use crate::path::handler::plugin::{Instance, Loader, PluginFile};
use crate::path::handler::wasm::WasmEngine;
use crate::path::handler::{Call, Publish};
use crate::path::outbox::{Completion, Outboxes, Submitted};
use crate::path::receipt::{Progress, Receipt};
pub use crate::path::session::benchmarks::Acknowledgements;
use crate::telemetry::metrics::{BrokerMeters, HandlerMeters, Metrics};
use crate::telemetry::received::{Limits, ReceivedRing};
use crate::topic::{TopicFilter, TopicName, Trie};

/// The broker of everything here.
const BROKER: BrokerId = BrokerId(0);

/// A topic filter.
pub struct Filter(TopicFilter);

impl Filter {
    /// Checks and takes it.
    ///
    /// # Errors
    /// It is none.
    pub fn new(text: String) -> Result<Filter> {
        Ok(Filter(TopicFilter::new(text)?))
    }
}

/// A topic name.
pub struct Name(TopicName);

impl Name {
    /// Checks and takes it.
    ///
    /// # Errors
    /// It is none.
    pub fn new(text: String) -> Result<Name> {
        Ok(Name(TopicName::new(text)?))
    }
}

/// The trie that the router asks for every message.
pub struct Filters(Trie<u32>);

impl Filters {
    /// Without filters.
    #[expect(clippy::new_without_default, reason = "a benchmark has one way to make it")]
    pub fn new() -> Filters {
        Filters(Trie::new())
    }

    /// Adds a filter.
    pub fn insert(&mut self, filter: &Filter, value: u32) {
        self.0.insert(&filter.0, value);
    }

    /// The values of all matching filters in order of rank: how many there are, and the best.
    pub fn ranked(&self, name: &Name) -> (usize, Option<u32>) {
        let found = self.0.ranked(&name.0);
        (found.len(), found.first().map(|value| **value))
    }
}

/// One warm instance of a handler, on a thread of its own.
pub struct Handler {
    runtime: Runtime,
    instance: Instance,
    kv: Option<KvGrant>,
}

impl Handler {
    /// Starts the first handler of a configuration. Its plugin is compiled each time: no cache is used.
    ///
    /// # Errors
    /// The configuration, the plugin or the instance is not in order.
    pub fn start(configuration: &Path) -> Result<Handler> {
        let config::Loaded { config, names, .. } = config::load(configuration)?;
        let handler = config.handlers.first().context("the configuration has no handler")?;
        let loader = Loader::passing(WasmEngine::new(None)?, [&**handler])?;
        let plugin = loader.load(&PluginFile::read(&handler.plugin)?)?;
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let kv = KvGrant::detached(handler);
        let host = Host::new(handler, names, kv.as_ref().map(KvGrant::share));
        let instance = runtime.block_on(Instance::start(&plugin, Arc::new(host)))?;
        Ok(Handler { runtime, instance, kv })
    }

    /// Calls it so many times with one message; the last payload that it published. What a call writes to its kv takes effect before
    /// the next, as in the daemon, but for the disk.
    ///
    /// # Errors
    /// A call failed, or published something else than one message.
    pub fn calls(&mut self, topic: &str, payload: &[u8], calls: u64) -> Result<Bytes> {
        let message = Arc::new(message(TopicName::new(topic)?, payload));
        let (instance, kv) = (&mut self.instance, &self.kv);
        self.runtime.block_on(async {
            let mut last = Bytes::new();
            for _ in 0..calls {
                let call =
                    Call { message: &message, subscription: "local:bench", captures: &[], attempt: 1, trace: None };
                let mut publishes = instance.call(call).await?;
                let transaction = instance.take_kv();
                if let Some(KvGrant { kv, quota }) = kv {
                    let ready = kv.ready(transaction, *quota).context("nobody else writes")?;
                    black_box(ready.commit());
                    ready.apply();
                }
                let publish = publishes.pop().filter(|_| publishes.is_empty());
                last = publish.ok_or_else(|| anyhow!("not one message was published"))?.message.payload;
            }
            Ok(last)
        })
    }
}

fn message(topic: TopicName, payload: &[u8]) -> Message {
    Message {
        broker: BROKER,
        topic,
        payload: Bytes::copy_from_slice(payload),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        received: SystemTime::now(),
        arrived: Instant::now(),
        properties: None,
        hops: 0,
    }
}

/// The outboxes of one broker, with meters and receipts as in the daemon.
pub struct Outbox {
    outboxes: Outboxes,
    broker: Arc<BrokerMeters>,
    handler: Arc<HandlerMeters>,
    progress: Arc<Progress>,
    publish: Publish,
}

impl Outbox {
    /// Empty. Everything that goes through it is a message with this topic and payload.
    ///
    /// # Errors
    /// The topic is none.
    pub fn new(topic: &str, payload: &[u8]) -> Result<Outbox> {
        let metrics = Metrics::new()?;
        let broker = metrics.broker("local");
        let message = Outgoing {
            topic: TopicName::new(topic)?,
            payload: Bytes::copy_from_slice(payload),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: None,
            hops: None,
        };
        let outboxes = Outboxes::new();
        outboxes.add(BROKER, Arc::from("local"), OutboxLimits::default(), Arc::clone(&broker));
        Ok(Outbox {
            outboxes,
            handler: metrics.handler("celsius"),
            progress: Arc::new(Progress::default()),
            publish: Publish { broker: BROKER, message },
            broker,
        })
    }

    /// Takes in the publish of so many calls, sends them all, and has them delivered in order.
    ///
    /// # Errors
    /// They do not fit.
    pub fn pass(&self, calls: usize) -> Result<()> {
        for _ in 0..calls {
            self.submit()?;
        }
        let sent: Vec<_> = std::iter::from_fn(|| self.outboxes.take_next(BROKER)).collect();
        for (entry, message) in sent {
            drop(message);
            self.outboxes.delivered(BROKER, entry, Qos::AtLeastOnce);
        }
        Ok(())
    }

    /// Messages that went in and were not delivered.
    pub fn open(&self) -> u64 {
        self.progress.open()
    }

    fn submit(&self) -> Result<()> {
        let receipt = Receipt::new(Arc::clone(&self.broker), Arc::clone(&self.progress), Qos::AtLeastOnce, None);
        let part = receipt.split(1).next().context("a receipt of one part has one")?;
        let completion = Completion::new(part, Instant::now(), Arc::clone(&self.handler));
        match self.outboxes.submit(vec![self.publish.clone()].into(), completion, || {}) {
            Submitted::Done => Ok(()),
            Submitted::Waits(_) | Submitted::Rejected(..) => {
                Err(anyhow!("the outbox is full: pass fewer calls at a time"))
            }
        }
    }
}

/// The ring of messages received, with the limits that the configuration has by default.
pub struct Received {
    ring: ReceivedRing,
    message: Message,
}

impl Received {
    /// Without messages. Everything that is put in has this topic and payload.
    ///
    /// # Errors
    /// The topic is none.
    pub fn new(topic: &str, payload: &[u8]) -> Result<Received> {
        let ring = ReceivedRing::new(Limits { messages: 1024, bytes: 8 << 20 });
        Ok(Received { ring, message: message(TopicName::new(topic)?, payload) })
    }

    /// Makes a message as the router does, and puts it in where `kept`. The sequence of the newest message.
    pub fn take_in(&self, kept: bool) -> u64 {
        let message =
            Arc::new(Message { payload: Bytes::copy_from_slice(&self.message.payload), ..self.message.clone() });
        if kept { self.ring.push(&message) } else { 0 }
    }
}
