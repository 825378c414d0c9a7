//! stub

use std::sync::Arc;

use crate::message::{BrokerId, Outgoing};

/// An entry of an outbox. Ascending in the order of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub u64);

/// All outboxes.
pub struct Outboxes;

impl Outboxes {
    /// Waits until the broker's outbox has something to send that is not sent yet. Cancellation safe; returns at once
    /// while there is something.
    pub async fn ready(&self, _broker: BrokerId) { unimplemented!() }
    /// The next unsent entry, which counts as sent from now on.
    pub fn take_next(&self, _broker: BrokerId) -> Option<(EntryId, Arc<Outgoing>)> { unimplemented!() }
    /// It was not sent after all: it is the next again.
    pub fn put_back(&self, _broker: BrokerId, _entry: EntryId) { unimplemented!() }
    /// Acknowledged by the broker, at QoS 0 written.
    pub fn delivered(&self, _broker: BrokerId, _entry: EntryId) { unimplemented!() }
    /// The broker will never take it.
    pub fn refused(&self, _broker: BrokerId, _entry: EntryId) { unimplemented!() }
    /// The connection is gone: what was sent and is neither delivered nor refused is unsent again, in order.
    pub fn connection_lost(&self, _broker: BrokerId) { unimplemented!() }
}
