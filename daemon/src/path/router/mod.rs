//! stub

use crate::message::{BrokerId, Message};
use crate::path::session::{AckToken, WireCopy};

/// Routes.
pub struct Router;

impl Router {
    /// Takes a message in. Never waits: what has no room is dropped by policy (QoS 0) or waits unacknowledged.
    pub fn receive(&self, _message: Message, _copy: &WireCopy<'_>, _token: Option<AckToken>) { unimplemented!() }
    /// The fate of a lost connection's messages is known now: queues that held them back go on.
    pub fn fate_decided(&self, _broker: BrokerId) { unimplemented!() }
}
