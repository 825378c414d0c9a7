//! Whether the gateway does its whole job: what `/readyz` tells.
//!
//! Reads each session's status; decides nothing.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::control::config::model::Broker;
use crate::path::session::{SessionState, SessionStatus};

/// One broker's part.
pub struct BrokerHealth {
    name: Arc<str>,
    auto_connect: bool,
    status: watch::Receiver<SessionStatus>,
}

impl BrokerHealth {
    /// The health of this broker's session.
    pub fn new(broker: &Broker, status: watch::Receiver<SessionStatus>) -> BrokerHealth {
        BrokerHealth { name: Arc::clone(&broker.name), auto_connect: broker.auto_connect, status }
    }
}

/// All brokers' sessions, and whether the daemon stops.
pub struct Health {
    brokers: Vec<BrokerHealth>,
    stopping: CancellationToken,
}

/// What keeps the gateway from being ready, in plain words.
#[derive(Debug, PartialEq, Eq)]
pub struct Obstacle(String);

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Health {
    /// The health of these brokers, until `stopping`.
    pub fn new(brokers: Vec<BrokerHealth>, stopping: CancellationToken) -> Health {
        Health { brokers, stopping }
    }

    /// Everything that keeps the gateway from being ready; nothing when it is. A broker that connects only on demand, or was
    /// disconnected by command, is no obstacle while it is not connected.
    pub fn obstacles(&self) -> Vec<Obstacle> {
        let stopping = self.stopping.is_cancelled().then(|| Obstacle("the daemon is stopping".to_owned()));
        stopping.into_iter().chain(self.brokers.iter().flat_map(BrokerHealth::obstacles)).collect()
    }
}

impl BrokerHealth {
    fn obstacles(&self) -> Vec<Obstacle> {
        let status = self.status.borrow();
        let name = &self.name;
        if status.state != SessionState::Connected {
            if !self.auto_connect || status.state == SessionState::Disconnected {
                return Vec::new();
            }
            let why = status.last_error.as_deref().unwrap_or("no attempt has ended yet");
            return vec![Obstacle(format!("broker {name} is not connected: {why}"))];
        }
        let refused = status.refused();
        let mut obstacles: Vec<Obstacle> =
            refused.map(|(one, _)| Obstacle(format!("broker {name} refused the subscription {one}"))).collect();
        let pending = status.pending();
        if pending > 0 {
            obstacles.push(Obstacle(format!("broker {name} has yet to grant {pending} subscriptions")));
        }
        obstacles
    }
}
