//! Which messages somebody wants to see: the choice that `tidegate recv` and `tidegate trace` share.
//!
//! Pure. Made by the admin plane of what a request says.

use crate::message::{BrokerId, Message};
use crate::topic::TopicFilter;

/// A choice of messages. The default is every message.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those of this broker alone.
    pub broker: Option<BrokerId>,
    /// Those alone whose topic this filter matches (MQTT 5 §4.7): `#` leaves out topics that start with `$`.
    pub topic: Option<TopicFilter>,
}

impl Wanted {
    /// Whether a message is among them.
    pub fn matches(&self, message: &Message) -> bool {
        self.broker.is_none_or(|broker| broker == message.broker)
            && self.topic.as_ref().is_none_or(|filter| filter.matches(&message.topic))
    }
}
