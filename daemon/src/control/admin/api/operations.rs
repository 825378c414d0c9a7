//! What the HTTP API sees of the gateway and asks of it.
//!
//! Implemented by the running gateway, and in the API's tests by one that only remembers. Views are of this moment and are
//! made without waiting; what changes something returns once it has taken effect.

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use crate::control::admin::resource::{Broker, Handler, Publication, Published, Setting, Status, Subscription};
use crate::control::live::{Edit, Refusal};
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
}
