//! What an outbox has to say in the log: that it is full, and what it drops. Each thing now and then only.
//!
//! Noted under the outboxes' lock, said outside it, since a log may be slow. It counts nothing: that is the metrics' part.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::admission::{DropReason, Limit};
use crate::control::config::format_duration;
use crate::control::config::format_size;
use crate::control::config::model::{OutboxLimits, WhenFull};
use crate::path::kept::Full as NotKept;
use crate::telemetry::occasional::Occasional;
use crate::topic::TopicName;

/// How often each thing is said of an outbox, at most.
const SAID: Duration = Duration::from_secs(10);

/// What one outbox has to say, and when it did so last.
pub(super) struct Voice {
    /// The broker's name; empty while the broker is not there.
    name: Arc<str>,
    when_full: WhenFull,
    full: Occasional,
    /// By [`DropReason`].
    dropped: [Occasional; DropReason::ALL.len()],
}

impl Default for Voice {
    fn default() -> Voice {
        Voice::of(Arc::from(""), WhenFull::Block)
    }
}

impl Voice {
    /// Of a broker's outbox.
    pub(super) fn of(name: Arc<str>, when_full: WhenFull) -> Voice {
        Voice {
            name,
            when_full,
            full: Occasional::every(SAID),
            dropped: DropReason::ALL.map(|_| Occasional::every(SAID)),
        }
    }

    /// The broker's name.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What happens when it is full is something else from now on.
    pub(super) fn set_when_full(&mut self, when_full: WhenFull) {
        self.when_full = when_full;
    }

    /// Something found no room.
    pub(super) fn full(&self, limit: Limit) -> Option<News> {
        let unsaid = self.full.due()?;
        Some(News::Full { name: Arc::clone(&self.name), limit, when_full: self.when_full, unsaid })
    }

    /// Something was dropped.
    pub(super) fn dropped(&self, reason: DropReason, publishes: u64, limits: OutboxLimits) -> Option<News> {
        let unsaid = self.dropped[reason as usize].due()?;
        Some(News::Dropped { name: Arc::clone(&self.name), reason, publishes, limits, unsaid })
    }
}

/// Something to be said. `unsaid` counts its like since the last time.
pub(super) enum News {
    /// Something found no room.
    Full { name: Arc<str>, limit: Limit, when_full: WhenFull, unsaid: u64 },
    /// So many publishes were dropped.
    Dropped { name: Arc<str>, reason: DropReason, publishes: u64, limits: OutboxLimits, unsaid: u64 },
    /// A publish that its broker never takes is dropped, since there is no room for one more dead letter.
    NotKept { name: Arc<str>, topic: TopicName, reason: &'static str, full: NotKept },
}

impl News {
    /// Says it.
    pub(super) fn say(self) {
        match self {
            News::Full { name, limit, when_full: WhenFull::Reject, unsaid } => tracing::warn!(
                broker = %name, %limit, unsaid, "the outbox is full: calls that publish to this broker fail, and are retried"
            ),
            News::Full { name, limit, when_full: WhenFull::Block | WhenFull::DropOldest, unsaid } => tracing::warn!(
                broker = %name, %limit, unsaid, "the outbox is full: calls that publish to this broker wait for room"
            ),
            News::NotKept { name, topic, reason, full } => {
                tracing::error!(broker = %name, %topic, reason, %full, "publish dropped: there is no dead letter of it");
            }
            News::Dropped { name, reason: DropReason::Displaced, publishes, limits, unsaid } => {
                let OutboxLimits { messages, bytes, .. } = limits;
                let bytes = format_size(bytes as u64);
                tracing::warn!(
                    broker = %name, publishes, unsaid,
                    limit = %format_args!("max-messages = {messages}, max-bytes = \"{bytes}\""),
                    "the outbox is full: its oldest publishes are dropped for newer ones",
                );
            }
            News::Dropped { name, reason: DropReason::Expired, publishes, limits, unsaid } => {
                let max_age = limits.max_age.map(format_duration).unwrap_or_default();
                tracing::warn!(
                    broker = %name, publishes, unsaid, limit = %format_args!("max-age = \"{max_age}\""),
                    "publishes are dropped: they were in the outbox for longer than max-age",
                );
            }
        }
    }
}

impl fmt::Display for Limit {
    /// As a clause with the key and its value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Messages(messages) => write!(f, "max-messages = {messages}"),
            Limit::Bytes(bytes) => write!(f, "max-bytes = \"{}\"", format_size(*bytes as u64)),
            Limit::Others => f.write_str("others wait for room before it"),
        }
    }
}

/// That an outbox has no room for what a call or a command publishes, and does not let it wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox of {broker} is full (brokers.{broker}.outbox: {limit}, when-full = \"reject\")")]
pub struct NoRoom {
    /// The name of the broker.
    pub broker: Arc<str>,
    /// Which limit is reached.
    pub limit: Limit,
}
