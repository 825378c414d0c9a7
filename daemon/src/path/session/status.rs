//! How a session stands, for whoever shows or watches it.
//!
//! Owns: the words for it. Written by the supervisor (state), the poller (connected) and the cover (subscriptions); read
//! through a watch channel by the admin plane. It decides nothing.

use std::sync::Arc;
use std::time::Instant;

use crate::message::Qos;

/// How a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// Whether it is connected.
    pub state: SessionState,
    /// Why it is not connected, in plain words; none while it is, and where nobody wants it to be.
    pub last_error: Option<String>,
    /// The names of its subscriptions in the order of the configuration, and what the broker said of each on this connection,
    /// or on the last.
    pub subscriptions: Vec<(Arc<str>, Standing)>,
}

/// What the broker says of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was not asked yet, or has not answered.
    Pending,
    /// It has a filter that serves the subscription, at this QoS. On 3.1.1 the session of a lost connection is not asked
    /// for again (MQTT 3.1.1 §3.8.4): then it is the QoS that was asked for.
    Granted(Qos),
    /// It refuses it, for this reason.
    Refused(&'static str),
}

/// Whether a session is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// No connection is wanted until there is something to publish.
    Idle,
    /// Disconnected by command: it stays so until it is connected by command, or something new is to be published.
    Disconnected,
    /// A connection is being made.
    Connecting,
    /// CONNACK has come.
    Connected,
    /// The next attempt is made at this time.
    Waiting {
        /// Monotonic.
        until: Instant,
    },
}

impl SessionStatus {
    /// Of a session that has not begun.
    pub(super) fn new(names: impl Iterator<Item = Arc<str>>) -> SessionStatus {
        let subscriptions = names.map(|name| (name, Standing::Pending)).collect();
        SessionStatus { state: SessionState::Idle, last_error: None, subscriptions }
    }

    /// Subscriptions that the broker has not answered.
    pub fn pending(&self) -> usize {
        self.subscriptions.iter().filter(|(_, standing)| *standing == Standing::Pending).count()
    }

    /// Names of the subscriptions that the broker refused, with its reason.
    pub fn refused(&self) -> impl Iterator<Item = (&Arc<str>, &'static str)> {
        self.subscriptions.iter().filter_map(|(name, standing)| match standing {
            Standing::Refused(reason) => Some((name, *reason)),
            Standing::Pending | Standing::Granted(_) => None,
        })
    }
}
