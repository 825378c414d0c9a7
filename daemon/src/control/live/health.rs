//! Whether the gateway does its whole job: what `/readyz` and `tidegate status` tell.
//!
//! Reads each session's status; decides nothing.

use std::fmt;

use super::{Live, RunningBroker};
use crate::path::session::SessionState;

/// What keeps the gateway from being ready, in plain words.
#[derive(Debug, PartialEq, Eq)]
pub struct Obstacle(String);

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Live {
    /// Everything that keeps the gateway from being ready; nothing when it is. A broker that connects only on demand, or was
    /// disconnected by command, is no obstacle while it is not connected.
    pub fn obstacles(&self) -> Vec<Obstacle> {
        let stopping = self.stopping.is_cancelled().then(|| Obstacle("the daemon is stopping".to_owned()));
        stopping.into_iter().chain(self.running().brokers.iter().flat_map(obstacles)).collect()
    }
}

fn obstacles(broker: &RunningBroker) -> Vec<Obstacle> {
    let status = broker.session.status();
    let status = status.borrow();
    let name = &broker.config.name;
    if status.state != SessionState::Connected {
        if !broker.config.auto_connect || status.state == SessionState::Disconnected {
            return Vec::new();
        }
        let why = status.last_error.as_deref().unwrap_or("no attempt has ended yet");
        return vec![Obstacle(format!("broker {name} is not connected: {why}"))];
    }
    let refused = status.refused();
    let mut obstacles: Vec<Obstacle> =
        refused.map(|(one, _)| Obstacle(format!("broker {name} refused the subscription {one}"))).collect();
    if status.pending() > 0 {
        obstacles.push(Obstacle(format!("broker {name} has yet to grant {} subscriptions", status.pending())));
    }
    obstacles
}
