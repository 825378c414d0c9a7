//! Whether the gateway does its whole job: what `/readyz` and `tidegate status` tell.
//!
//! Reads the store's health, each session's status, and what its outbox holds; decides nothing.

use std::fmt;

use super::{Live, RunningBroker};
use crate::control::admin::resource::what_waits;
use crate::control::config::model::Broker;
use crate::path::session::{SessionState, SessionStatus};

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
    /// disconnected by command, is no obstacle while it is not connected, unless something waits for it.
    pub fn obstacles(&self) -> Vec<Obstacle> {
        let stopping = self.stopping.is_cancelled().then(|| Obstacle("the daemon is stopping".to_owned()));
        let store = self.store.health().obstacle().map(Obstacle);
        stopping
            .into_iter()
            .chain(store)
            .chain(self.running().brokers.iter().flat_map(|broker| self.of_broker(broker)))
            .collect()
    }

    /// What an operator should know, and what keeps the gateway from nothing: a sentence each.
    pub fn details(&self) -> Vec<String> {
        let failed = self.last_reload().and_then(|last| last.failure());
        failed.into_iter().chain(self.running().of_plugins()).collect()
    }

    fn of_broker(&self, broker: &RunningBroker) -> Vec<Obstacle> {
        let status = broker.session.status();
        let status = status.borrow();
        if status.state == SessionState::Connected {
            return of_subscriptions(&broker.config.name, &status);
        }
        let (messages, calls) = (self.outbox(&broker.config).0, self.waiting_calls(&broker.config));
        let waits = what_waits(messages as u64, calls as u64);
        not_connected(&broker.config, &status, waits).into_iter().collect()
    }
}

/// That a broker is not connected, if that is in the way of anything.
fn not_connected(broker: &Broker, status: &SessionStatus, waits: Option<String>) -> Option<Obstacle> {
    let name = &broker.name;
    let disconnected = status.state == SessionState::Disconnected;
    if waits.is_none() && (disconnected || !broker.auto_connect) {
        return None;
    }
    let waits = waits.map(|waits| format!(", and {waits}")).unwrap_or_default();
    let why = match &status.last_error {
        _ if disconnected => format!("disconnected by command; connect it with `tidegate brokers connect {name}`"),
        Some(error) => error.clone(),
        None => "no attempt has ended yet".to_owned(),
    };
    Some(Obstacle(format!("broker {name} is not connected{waits}: {why}")))
}

fn of_subscriptions(name: &str, status: &SessionStatus) -> Vec<Obstacle> {
    let refused = status.refused();
    let mut obstacles: Vec<Obstacle> =
        refused.map(|(one, _)| Obstacle(format!("broker {name} refused the subscription {one}"))).collect();
    if status.pending() > 0 {
        obstacles.push(Obstacle(format!("broker {name} has yet to grant {} subscriptions", status.pending())));
    }
    obstacles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::load_text;

    #[test]
    fn a_broker_that_is_not_connected_is_in_the_way_where_it_should_be_or_something_waits() {
        let check = |auto: bool, state, error: Option<&str>, waiting: (u64, u64), expected: Option<&str>| {
            let text = format!("brokers.b = {{ address = \"a\", auto-connect = {auto} }}\n");
            let file = std::path::Path::new("/nowhere/tidegate.toml");
            let broker = load_text(file, &text, "").expect("is good").config.brokers.remove(0);
            let status = SessionStatus { state, last_error: error.map(str::to_owned), subscriptions: Vec::new() };
            let told = not_connected(&broker, &status, what_waits(waiting.0, waiting.1));
            assert_eq!(told.map(|told| told.to_string()).as_deref(), expected);
        };
        let (idle, by_hand) = (SessionState::Idle, SessionState::Disconnected);
        check(true, SessionState::Connecting, Some("no route"), (0, 0), Some("broker b is not connected: no route"));
        check(true, idle, None, (0, 0), Some("broker b is not connected: no attempt has ended yet"));
        check(false, idle, None, (0, 0), None);
        check(false, by_hand, None, (0, 0), None);
        check(true, by_hand, None, (0, 0), None);
        let waits = "broker b is not connected, and 1 message waits for it: no route";
        check(false, SessionState::Connecting, Some("no route"), (1, 0), Some(waits));
        let by_command = "disconnected by command; connect it with `tidegate brokers connect b`";
        let waits = "64 messages wait for it and 46 calls wait for room in its outbox";
        check(false, by_hand, None, (64, 46), Some(&format!("broker b is not connected, and {waits}: {by_command}")));
        let waits = "1 call waits for room in its outbox";
        check(true, by_hand, None, (0, 1), Some(&format!("broker b is not connected, and {waits}: {by_command}")));
    }
}
