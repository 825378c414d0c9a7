//! A live view of the path: what arrived, which handler ran, what left.
//!
//! Fed by the router, the handlers' tasks and the sessions; read by `tidegate demo`. Nothing is built unless somebody
//! listens, and a slow listener misses sightings rather than holding up the path.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::message::{BrokerId, Message, Outgoing};
use crate::path::handler::CallResult;

/// Sightings kept for a listener that lags behind; past it the oldest are overwritten.
const CAPACITY: usize = 1024;

/// Something seen on the path.
#[derive(Clone, Debug)]
pub enum Sighting {
    /// A message was taken in.
    Received(Arc<Message>),
    /// A handler's call ended.
    Called {
        /// The handler's name.
        handler: Arc<str>,
        /// The message.
        message: Arc<Message>,
        /// How it ended.
        result: CallResult,
        /// Time in the call.
        took: Duration,
    },
    /// A broker has a publish: acknowledged, at QoS 0 written.
    Published(BrokerId, Arc<Outgoing>),
}

/// Where sightings are reported. Cheap to clone.
#[derive(Clone)]
pub struct Tap {
    sender: broadcast::Sender<Sighting>,
}

impl Tap {
    /// A tap that nobody listens to yet.
    pub fn new() -> Tap {
        Tap { sender: broadcast::Sender::new(CAPACITY) }
    }

    /// Reports what `sighting` builds, if somebody listens.
    pub fn report(&self, sighting: impl FnOnce() -> Sighting) {
        if self.sender.receiver_count() > 0 {
            // An error means that the last listener has just gone: nothing is lost that anybody waits for.
            let _ = self.sender.send(sighting());
        }
    }

    /// Listens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Sighting> {
        self.sender.subscribe()
    }
}
