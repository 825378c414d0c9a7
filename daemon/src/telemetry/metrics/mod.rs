//! The Prometheus families that the daemon exports, and handles to their children.
//!
//! Every label is bounded by the configuration: broker, handler, subscription, qos, result, reason and outcome; never a topic or
//! a client identifier. Stages hold handles ([`BrokerMeters`], [`HandlerMeters`]) so that counting costs one atomic
//! addition. The admin server renders [`Metrics::render`]. Names, help texts, labels and handles of a group of families stand
//! together in a file of their own; here is what they have in common: the registry.

mod admin;
mod broker;
mod config;
mod connection;
mod dead_letter;
mod families;
mod handler;
mod kv;
mod outbox;
mod park;
mod schedule;
mod store;

use std::sync::Arc;

use prometheus::{Encoder, Registry, TextEncoder};

use self::admin::AdminFamilies;
pub use self::admin::{AdminMeters, AdminRefusal};
use self::broker::BrokerFamilies;
pub use self::broker::BrokerMeters;
pub use self::config::ConfigMeters;
pub use self::connection::{ConnectResult, DisconnectReason};
pub use self::dead_letter::DeadLetterStoreMeters;
use self::families::Families;
use self::handler::HandlerFamilies;
pub use self::handler::{HandlerMeters, ReloadResult};
use self::kv::KvFamilies;
pub use self::kv::KvMeters;
use self::schedule::ScheduleFamilies;
pub use self::schedule::ScheduleMeters;
pub use self::store::StoreMeters;

/// All families of one daemon.
pub struct Metrics {
    registry: Registry,
    brokers: BrokerFamilies,
    handlers: HandlerFamilies,
    kv: KvFamilies,
    schedules: ScheduleFamilies,
    dead_letter_store: DeadLetterStoreMeters,
    admin: AdminFamilies,
    config: ConfigMeters,
    store: Arc<StoreMeters>,
}

impl Metrics {
    /// Registers every family.
    ///
    /// # Errors
    /// A family is named twice or badly: a defect of this folder, which a test finds.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::new(registry.clone());
        families.build_info()?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Metrics {
            brokers: BrokerFamilies::new(&families)?,
            handlers: HandlerFamilies::new(&families)?,
            kv: KvFamilies::new(&families)?,
            schedules: ScheduleFamilies::new(&families)?,
            dead_letter_store: DeadLetterStoreMeters::new(&families)?,
            admin: AdminFamilies::new(&families)?,
            config: ConfigMeters::new(&families)?,
            store: Arc::new(StoreMeters::new(&registry)?),
            registry,
        })
    }

    /// Handles for one broker. Its children appear at once, with zeros.
    pub fn broker(&self, name: &str) -> Arc<BrokerMeters> {
        self.brokers.meters(name)
    }

    /// Handles for the dead letters that are kept on the disk.
    pub fn dead_letter_store(&self) -> DeadLetterStoreMeters {
        self.dead_letter_store.clone()
    }

    /// Handles for one schedule. Its children appear at once, with zeros.
    pub fn schedule(&self, name: &str) -> Arc<ScheduleMeters> {
        self.schedules.meters(name)
    }

    /// Removes the children of a schedule.
    pub fn forget_schedule(&self, name: &str) {
        self.schedules.forget(name);
    }

    /// Handles for reloads of the configuration.
    pub fn config(&self) -> ConfigMeters {
        self.config.clone()
    }

    /// Handles for the store.
    pub fn store(&self) -> Arc<StoreMeters> {
        Arc::clone(&self.store)
    }

    /// Handles for the admin plane. Its children appear at once, with zeros.
    pub fn admin(&self) -> AdminMeters {
        self.admin.meters()
    }

    /// The timestamp gauge of one subscription.
    pub fn subscription(&self, broker: &str, subscription: &str) -> prometheus::Gauge {
        self.brokers.subscription(broker, subscription)
    }

    /// Handles for one handler. Its children appear at once, with zeros.
    pub fn handler(&self, name: &str) -> Arc<HandlerMeters> {
        self.handlers.meters(name)
    }

    /// Handles for what one handler remembers, which may be there without the handler.
    pub fn kv(&self, handler: &str) -> KvMeters {
        self.kv.meters(handler)
    }

    /// Removes the children of what a handler remembered.
    pub fn forget_kv(&self, handler: &str) {
        self.kv.forget(handler);
    }

    /// Removes the children of a broker, its subscriptions' included. Called once its session has ended: handles that are
    /// still held count into the void, but for the certificates of a connection, which would appear anew. Handles that are
    /// made later start at zero.
    pub fn forget_broker(&self, name: &str) {
        self.brokers.forget(name);
    }

    /// Removes the child of a subscription.
    pub fn forget_subscription(&self, broker: &str, subscription: &str) {
        self.brokers.forget_subscription(broker, subscription);
    }

    /// Removes the children of a handler, once its runners have ended.
    pub fn forget_handler(&self, name: &str) {
        self.handlers.forget(name);
    }

    /// The text exposition format, version 0.0.4.
    ///
    /// # Errors
    /// A family cannot be encoded.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(page)
    }
}

#[cfg(test)]
mod tests;
