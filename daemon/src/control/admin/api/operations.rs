//! What the HTTP API sees of the gateway and asks of it.
//!
//! Implemented by the running gateway, and in the API's tests by one that only remembers. Views are of this moment and are
//! made without waiting; what changes something returns once it has taken effect.

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use crate::control::admin::resource::{
    Broker, DeadLetterCount, DeadLetterList, Handler, KvEntry, KvList, KvTotals, OutboxView, Publication, Published,
    Purged, ReloadReport, Reloaded, Schedule, ScheduleRun, Setting, Status, Subscription, WholeDeadLetter,
};
use crate::control::live::{Edit, KvPage, KvSet, LetterPage, Letters, Refusal};
use crate::path::router::explain::Explanation;
use crate::path::router::select::Facts;
use crate::topic::TopicName;

/// Keys of the configuration, as they are written there.
pub type Keys = Map<String, Value>;

/// What comes of a request that the gateway may refuse.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Refusal>>;

/// The gateway that the API operates.
pub trait Operations: Send + Sync + 'static {
    /// Everything at a glance.
    fn status(&self) -> Status;
    /// All brokers, in the order of the configuration.
    fn brokers(&self) -> Vec<Broker>;
    /// All subscriptions, in the order of the configuration.
    fn subscriptions(&self) -> Vec<Subscription>;
    /// All handlers, in the order of the configuration.
    fn handlers(&self) -> Vec<Handler>;
    /// The merged configuration.
    fn settings(&self) -> Vec<Setting>;
    /// The merged configuration as one file, secrets masked.
    fn export(&self) -> String;
    /// What happens with a message from each broker, or from one.
    ///
    /// # Errors
    /// There is no such broker.
    fn explain(&self, broker: Option<&str>, topic: &TopicName, facts: Facts<'_>) -> Result<Vec<Explanation>, Refusal>;
    /// Reads the configuration's files again and makes what they say, or tells what that would change.
    fn reload_configuration(&self, dry_run: bool) -> Answer<'_, ReloadReport>;
    /// Changes the running configuration. The warnings that are new with it.
    fn change(&self, edit: Edit) -> Answer<'_, Vec<String>>;
    /// Adds a subscription and waits for the broker's answer; with `force`, a broker that is not connected is connected for it.
    /// Its name, and the warnings that are new with it.
    fn subscribe(&self, keys: Keys, force: bool) -> Answer<'_, (String, Vec<String>)>;
    /// Connects a broker and waits for the result.
    fn connect<'a>(&'a self, broker: &'a str) -> Answer<'a, ()>;
    /// Disconnects a broker; it stays so until somebody connects it.
    fn disconnect<'a>(&'a self, broker: &'a str) -> Answer<'a, ()>;
    /// Makes a broker forget the session.
    fn reset_session<'a>(&'a self, broker: &'a str) -> Answer<'a, ()>;
    /// Publishes a message and waits for its end.
    fn publish(&self, publication: Publication) -> Answer<'_, Published>;

    /// Makes a handler pause: what comes for it is kept on the disk. One that is paused stays so.
    fn pause<'a>(&'a self, handler: &'a str) -> Answer<'a, ()>;
    /// Gives a handler what was kept for it, and then what comes.
    fn resume<'a>(&'a self, handler: &'a str) -> Answer<'a, ()>;

    /// Has a handler run what its plugin's file holds.
    fn reload<'a>(&'a self, handler: &'a str) -> Answer<'a, Reloaded>;

    /// All outboxes: those of the configured brokers in their order, then those of brokers that were removed.
    fn outboxes(&self) -> Vec<OutboxView>;
    /// Drops what waits in a broker's outbox and is not on its way.
    fn purge_outbox<'a>(&'a self, broker: &'a str) -> Answer<'a, Purged>;

    /// Dead letters of the local store, oldest first.
    fn dead_letters(&self, page: LetterPage) -> Answer<'_, DeadLetterList>;
    /// One dead letter with its payload.
    fn dead_letter(&self, id: u64) -> Answer<'_, WholeDeadLetter>;
    /// Handles dead letters again. Returns once it is begun with all of them.
    fn retry_dead_letters(&self, which: Letters) -> Answer<'_, DeadLetterCount>;
    /// Forgets dead letters.
    fn clear_dead_letters(&self, which: Letters) -> Answer<'_, DeadLetterCount>;

    /// What each handler remembers: those of the configuration in their order, then those that are not there any more.
    fn kv(&self) -> Vec<KvTotals>;
    /// Keys that a handler remembers, in order.
    ///
    /// # Errors
    /// There is no such handler, and nothing of it.
    fn kv_list(&self, handler: &str, page: KvPage) -> Result<KvList, Refusal>;
    /// What a handler remembers under a key.
    ///
    /// # Errors
    /// There is no such handler, or no such key.
    fn kv_get(&self, handler: &str, key: &str) -> Result<KvEntry, Refusal>;
    /// Lets a handler remember a value. Returns once it is on the disk.
    fn kv_set(&self, set: KvSet) -> Answer<'_, ()>;
    /// Lets a handler forget a key, which it must know. Returns once that is on the disk.
    fn kv_delete<'a>(&'a self, handler: &'a str, key: &'a str) -> Answer<'a, ()>;

    /// All schedules, in the order of the configuration.
    fn schedules(&self) -> Vec<Schedule>;
    /// Runs a schedule at once and waits for what comes of it.
    fn run_schedule<'a>(&'a self, name: &'a str) -> Answer<'a, ScheduleRun>;
}
