//! The routing table of one broker: its subscriptions, and the trie that ranks those that match a topic.
//!
//! Immutable once built. Built from the configuration by the gateway and by `tidegate explain`.

use std::sync::Arc;

use super::select::Places;
use crate::control::config::model::{Broker, Subscription};
use crate::topic::{TopicName, Trie};

/// One broker's subscriptions.
pub struct RouteTable {
    /// The broker.
    pub broker: Arc<Broker>,
    /// In the order of the configuration: the place of a subscription is its index here.
    subscriptions: Vec<Arc<Subscription>>,
    trie: Trie<usize>,
}

impl RouteTable {
    /// Builds the table from a broker's subscriptions in the order of the configuration.
    pub fn new(broker: Arc<Broker>, subscriptions: Vec<Arc<Subscription>>) -> RouteTable {
        let mut trie = Trie::new();
        for (place, subscription) in subscriptions.iter().enumerate() {
            trie.insert(&subscription.topic, place);
        }
        RouteTable { broker, subscriptions, trie }
    }

    /// The subscriptions in the order of the configuration.
    pub fn subscriptions(&self) -> &[Arc<Subscription>] {
        &self.subscriptions
    }

    /// The places of the subscriptions whose filters match, best rank first.
    pub fn ranked(&self, topic: &TopicName) -> Places {
        self.trie.ranked(topic).into_iter().copied().collect()
    }
}
