//! What the HTTP API says: the JSON of its resources.
//!
//! Owns: field names, which scripts rely on. Keys of the configuration keep their names and notation here (`keep-alive`,
//! `"7d"`), so that what is read can be written. Made by `control/admin/api`; read by the command line's client. No type here
//! has a place for a secret: where one is set, [`MASK`] stands.

mod broker;
mod dead_letter;
mod handler;
mod kv;
mod message;
mod outbox;
mod reload;
mod schedule;
mod settings;
mod status;
mod subscription;
mod trace;
mod version;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::broker::{Broker, BrokerOutbox, BrokerState, StatusMessage, Tls, Transport, what_waits};
pub use self::dead_letter::{
    DeadLetter, DeadLetterCount, DeadLetterKind, DeadLetterList, MessageProperties, WholeDeadLetter,
};
pub use self::handler::{CallFailure, DeadLetterTopic, Handler, HandlerState, Quarantine, Reload, Retry};
pub use self::kv::{KvEntry, KvKey, KvList, KvTotals, KvValue};
pub use self::message::{Encoding, Publication, Published, Received, ReceivedList};
pub use self::outbox::{Outbox, OutboxView, Purged};
pub use self::reload::{ChangeKind, LastReload, ObjectChange, ReloadReport};
pub use self::schedule::{Schedule, ScheduleRun, ScheduleSummary};
pub use self::settings::{Setting, Settings};
pub use self::status::{BrokerSummary, HandlerSummary, Messages, Status};
pub use self::subscription::{OnMessage, Subscription, SubscriptionState, When};
pub use self::trace::{PublishResult, Step, TraceStep};
pub use self::version::{PluginFile, PluginFileState, Reloaded, Trial};

/// Stands in place of a secret.
pub const MASK: &str = "***";

/// Where an object of the configuration stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Origin {
    /// `file`: it is changed there. `runtime`: it was added while the daemon ran, and can be changed in the same way.
    pub source: Source,
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
}

/// Who owns an object of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The operator's files.
    File,
    /// STATE-DIR/runtime.toml, which the daemon writes.
    Runtime,
}

/// What is left of an object that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Removed {
    /// A sentence each.
    pub warnings: Vec<String>,
}

/// Messages that are kept, and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Kept {
    pub messages: u64,
    pub bytes: u64,
}

/// Why a request is not done (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ProblemDocument {
    /// `urn:tidegate:problem:KIND`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What is in the way.
    pub detail: String,
    /// What to do.
    pub remedy: Option<String>,
    /// Everything that is wrong with the configuration that would result, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}
