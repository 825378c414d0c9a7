//! What the HTTP API says: the JSON of its resources.
//!
//! Owns: field names, which scripts rely on. Keys of the configuration keep their names and notation here (`keep-alive`,
//! `"7d"`), so that what is read can be written. Made by `control/admin/api`; read by the command line's client. No type here
//! has a place for a secret: where one is set, [`MASK`] stands.

mod reload;
mod schedule;
mod stored;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::reload::{ChangeKind, LastReload, ObjectChange, ReloadReport};
pub use self::schedule::{Schedule, ScheduleRun, ScheduleSummary};
pub use self::stored::{
    DeadLetter, DeadLetterCount, DeadLetterKind, DeadLetterList, HandlerState, Kept, KvEntry, KvKey, KvList, KvTotals,
    KvValue, MessageProperties, OutboxView, Purged, WholeDeadLetter,
};
use crate::path::router::explain::{Candidate, Verdict};

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

/// One broker: its settings and how its session stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Broker {
    pub name: String,
    pub origin: Origin,
    pub address: String,
    pub port: u16,
    /// `5` or `3.1.1`.
    pub protocol: String,
    pub client_id: String,
    pub username: Option<String>,
    /// `***` if the configuration holds one.
    pub password: Option<String>,
    /// The file that the password is read from.
    pub password_file: Option<String>,
    /// The environment variable that the password is read from.
    pub password_env: Option<String>,
    /// Seconds.
    pub keep_alive: u16,
    pub auto_connect: bool,
    pub clean_session: bool,
    /// Such as `7d`; null where the broker keeps no session, or no limit can be told to it.
    pub session_expiry: Option<String>,
    pub receive_maximum: u16,
    /// Such as `1MiB`.
    pub max_packet: String,
    /// Null is off.
    pub parallel_limit: Option<u16>,
    /// `best` or `all`.
    pub dispatch: String,
    /// Null is no TLS.
    pub tls: Option<Tls>,
    pub transport: Transport,
    pub will: Option<StatusMessage>,
    pub birth: Option<StatusMessage>,
    pub close: Option<StatusMessage>,
    pub connected: bool,
    pub state: BrokerState,
    /// Why it is not connected, in plain words.
    pub reason: Option<String>,
    /// Seconds until the next attempt.
    pub retry_in: Option<f64>,
    pub outbox: BrokerOutbox,
    /// In the answer to a change: what the configuration is warned of since then, a sentence each. Elsewhere absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What is left of an object that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Removed {
    /// A sentence each.
    pub warnings: Vec<String>,
}

/// How a broker's session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerState {
    /// CONNACK has come.
    Connected,
    /// A connection is being made.
    Connecting,
    /// The next attempt comes by itself.
    Waiting,
    /// No connection is wanted: it is made by command, or when something is to be published.
    Idle,
    /// Disconnected by hand.
    Disconnected,
}

/// What waits to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Outbox {
    pub messages: u64,
    pub bytes: u64,
}

/// What waits to be published to a broker, and what may: `outbox` of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BrokerOutbox {
    pub messages: u64,
    pub bytes: u64,
    /// Calls and commands that wait for room.
    pub waiting: u64,
    /// `memory`.
    pub store: String,
    pub max_messages: u64,
    /// Such as `64MiB`.
    pub max_bytes: String,
    /// Such as `10m`; null is off.
    pub max_age: Option<String>,
    /// `block`, `drop-oldest` or `reject`.
    pub when_full: String,
}

/// So many messages wait for a broker, and so many calls and commands for room in its outbox, in plain words; none where nothing does.
pub fn what_waits(messages: u64, calls: u64) -> Option<String> {
    let messages = match messages {
        0 => None,
        1 => Some("1 message waits for it".to_owned()),
        messages => Some(format!("{messages} messages wait for it")),
    };
    let calls = match calls {
        0 => None,
        1 => Some("1 call waits for room in its outbox".to_owned()),
        calls => Some(format!("{calls} calls wait for room in its outbox")),
    };
    let both: Vec<String> = messages.into_iter().chain(calls).collect();
    (!both.is_empty()).then(|| both.join(" and "))
}

/// `tls` of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Tls {
    pub ca: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<String>,
    pub alpn: Vec<String>,
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
}

/// `transport` of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Transport {
    /// `tcp` or `websocket`.
    pub kind: String,
    /// Of a WebSocket.
    pub path: Option<String>,
}

/// `will`, `birth` and `close` of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StatusMessage {
    pub topic: String,
    pub message: String,
    pub qos: u8,
    pub retain: bool,
}

/// One subscription: its settings and how the broker has answered.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Subscription {
    pub name: String,
    pub origin: Origin,
    pub broker: String,
    /// The topic filter, without its share.
    pub topic: String,
    pub qos: u8,
    pub share: Option<String>,
    pub on_message: Option<OnMessage>,
    pub when: Option<When>,
    /// The handler runs when nothing came for that long.
    pub silence: Option<String>,
    pub state: SubscriptionState,
    /// Why it is refused.
    pub reason: Option<String>,
    /// When its last message came, in RFC 3339.
    pub last_message: Option<String>,
    /// In the answer to a change: what the configuration is warned of since then, a sentence each. Elsewhere absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SubscriptionState {
    /// The broker has it.
    Granted,
    /// The broker was not asked yet, or has not answered.
    Pending,
    /// The broker refused it.
    Refused,
}

/// What a subscription does with a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OnMessage {
    /// Calls this handler.
    Handler(String),
    /// Writes a log line.
    Log {
        /// Its template.
        log: String,
    },
}

/// The condition of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct When {
    pub payload: Option<String>,
    pub min_bytes: Option<u64>,
    pub retained: Option<bool>,
    /// `stop` or `next`.
    pub otherwise: String,
}

/// One handler: its settings and what it has done.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Handler {
    pub name: String,
    pub origin: Origin,
    /// The plugin's path.
    pub plugin: String,
    /// The hash of the plugin that runs.
    pub version: String,
    /// How the plugin's file stands to that.
    pub file: PluginFile,
    /// What is on trial beside that.
    pub trial: Option<Trial>,
    pub instances: usize,
    /// `reuse` or `per-message`.
    pub isolation: String,
    pub call_deadline: String,
    pub max_memory: String,
    pub queue: usize,
    pub queue_bytes: String,
    pub overload: String,
    pub retry: Retry,
    /// When it is left alone because it fails; null is never.
    pub quarantine: Option<Quarantine>,
    pub reload: Reload,
    pub max_publishes: usize,
    pub max_publish_bytes: String,
    /// Where messages go whose calls have failed for good; null is the dead-letter store.
    pub dead_letter: Option<DeadLetterTopic>,
    /// Where it publishes on a schedule, unless it names a broker.
    pub default_broker: Option<String>,
    /// `BROKER:FILTER`.
    pub allow_publish: Vec<String>,
    /// How much it may remember, such as `1MiB`; null is nothing.
    pub allow_kv: Option<String>,
    /// Whether it may read the machine.
    pub allow_system: bool,
    /// With `***` in place of every text.
    #[schema(value_type = Object)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Calls by result.
    pub calls: BTreeMap<String, u64>,
    /// Dead letters that are safe, by reason; those that are zero are left out.
    pub dead_letters: BTreeMap<String, u64>,
    /// Dead letters that could not be kept.
    pub dead_letters_dropped: u64,
    /// Messages that wait for it.
    pub waiting: u64,
    /// Those among them whose call failed and is made again.
    pub retrying: u64,
    pub state: HandlerState,
    /// Of a handler in quarantine: when it is tried again, in RFC 3339.
    pub quarantined_until: Option<String>,
    /// Messages that are kept on the disk until it gets them.
    pub parked: Kept,
    pub last_failure: Option<CallFailure>,
    /// In the answer to a change: what the configuration is warned of since then, a sentence each. Elsewhere absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How the file of a handler's plugin stands to what the handler runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PluginFile {
    pub state: PluginFileState,
    /// What the file holds, where that is not what runs and can be read.
    pub version: Option<String>,
    /// Why it does not run.
    pub reason: Option<String>,
    /// Since when that is known, in RFC 3339.
    pub since: Option<String>,
}

/// What a plugin's file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PluginFileState {
    /// The version that runs.
    Runs,
    /// Nothing: it is gone.
    Missing,
    /// A version that is on trial.
    OnTrial,
    /// A version that was refused.
    Refused,
    /// A version that could not be kept for a restart, and does not run for that.
    NotKept,
}

/// What came of a command to have a handler run what its plugin's file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Reloaded {
    /// The handler's.
    pub name: String,
    /// The hash of the plugin that ran before.
    pub before: String,
    /// The hash of the plugin that runs now: the same, where the file holds nothing new.
    pub version: String,
    /// The hash of the one that is on trial beside it.
    pub on_trial: Option<String>,
}

/// A version of a handler's plugin that is on trial beside the one that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Trial {
    /// Its hash.
    pub version: String,
    /// Calls on it that have shown something.
    pub calls: u32,
    /// Calls after which it takes over.
    pub of: u32,
    /// Those that failed, and on which the version that runs did not fail.
    pub failures: u32,
}

/// A handler's dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DeadLetterTopic {
    pub broker: String,
    pub topic: String,
}

/// When a handler's call that failed is made again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Retry {
    /// Further calls for one message.
    pub max: u32,
    /// The shortest and the longest wait, such as `100ms..10s`.
    pub backoff: String,
    pub max_time: String,
}

/// When a handler that fails is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Quarantine {
    /// Failures, one after the other.
    pub after: u32,
    /// For how long, the first time; each trial that fails doubles it, up to ten minutes.
    pub r#for: String,
}

/// How a new version of a handler's plugin takes the place of the one that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Reload {
    /// The share of first calls that run on it while it is on trial; null is no trial.
    pub canary: Option<f64>,
    /// The largest share of these that may fail.
    pub max_failures: f64,
}

/// A handler's call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CallFailure {
    /// In RFC 3339.
    pub time: String,
    /// As the metric's label: `reject`, `trap`, …
    pub result: String,
    /// In plain words.
    pub error: String,
}

/// Everything at a glance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    pub version: String,
    /// In RFC 3339.
    pub started: String,
    /// Seconds.
    pub uptime: f64,
    /// The configuration file.
    pub config: String,
    pub state_dir: String,
    pub ready: bool,
    /// What keeps the daemon from being ready.
    pub obstacles: Vec<String>,
    /// Null where the configuration was not read again since the start.
    pub last_reload: Option<LastReload>,
    /// What else an operator should know, such as a version that was refused.
    pub details: Vec<String>,
    pub messages: Messages,
    /// Dead letters in the local store.
    pub dead_letters: Kept,
    /// Messages of paused and quarantined handlers.
    pub parked: Kept,
    /// Those among them whose handlers are not configured any more, by handler: they wait until it is there again.
    pub parked_orphans: BTreeMap<String, Kept>,
    pub brokers: Vec<BrokerSummary>,
    pub handlers: Vec<HandlerSummary>,
    pub schedules: Vec<ScheduleSummary>,
}

/// Counts since the start.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Messages {
    pub received: u64,
    /// By outcome; those that are zero are left out.
    pub finished: BTreeMap<String, u64>,
    pub in_progress: u64,
    pub published: u64,
}

/// A broker in [`Status`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BrokerSummary {
    pub name: String,
    pub connected: bool,
    pub state: BrokerState,
    pub reason: Option<String>,
    pub received: u64,
    pub published: u64,
    pub outbox: Outbox,
    /// What of it is on the disk.
    pub outbox_on_disk: Outbox,
    pub subscriptions: usize,
    /// Names.
    pub refused: Vec<String>,
}

/// A handler in [`Status`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HandlerSummary {
    pub name: String,
    pub version: String,
    /// How the plugin's file stands to that.
    pub file: PluginFile,
    /// What is on trial beside that.
    pub trial: Option<Trial>,
    pub calls: u64,
    pub failures: u64,
    pub waiting: u64,
    pub state: HandlerState,
    /// In RFC 3339.
    pub quarantined_until: Option<String>,
    pub parked: Kept,
    pub last_failure: Option<CallFailure>,
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Received {
    /// Counts the messages since the daemon's start, from 1, without gaps.
    pub sequence: u64,
    /// In RFC 3339, with milliseconds.
    pub time: String,
    pub broker: String,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub data: String,
    pub encoding: Encoding,
}

/// How bytes are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    #[serde(rename = "utf-8")]
    Utf8,
    Base64,
}

/// The last messages received, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ReceivedList {
    pub messages: Vec<Received>,
    /// Messages that were received and are not kept any more: overwritten or cleared.
    pub gone: u64,
}

/// One step on the way of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TraceStep {
    /// Which message: as in [`Received`].
    pub sequence: u64,
    /// When, in RFC 3339, with microseconds.
    pub time: String,
    /// Microseconds since the message was received.
    pub elapsed: u64,
    /// What happened.
    #[serde(flatten)]
    pub step: Step,
}

/// What happened on the way of a message. The last step is `ended`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// It was received.
    Received {
        broker: String,
        topic: String,
        qos: u8,
        retain: bool,
        dup: bool,
        /// Of its payload.
        bytes: u64,
    },
    /// The subscriptions that match, best rank first, and which of them run.
    Matched { outcome: Verdict, subscriptions: Vec<Candidate> },
    /// It goes into a handler's queue.
    Queued { handler: String, subscription: String },
    /// The handler is called.
    CallBegins {
        handler: String,
        subscription: String,
        /// The hash of the plugin that runs.
        version: String,
        /// From 1.
        attempt: u32,
    },
    /// The handler publishes; it is held back until the call has returned ok.
    HeldBack {
        handler: String,
        broker: String,
        topic: String,
        qos: u8,
        retain: bool,
        /// Of its payload.
        bytes: u64,
    },
    /// The handler must not publish this.
    Denied {
        handler: String,
        /// As the handler names it; null is the message's own.
        broker: Option<String>,
        topic: String,
        /// Why, and what to change.
        reason: String,
    },
    /// So many more publishes were denied in the same call.
    DeniedMore { handler: String, publishes: u64 },
    /// The call has ended. Unless its result is `ok`, what was held back is dropped.
    CallEnded {
        handler: String,
        /// As the metric's label: `ok`, `reject`, `trap`, …
        result: String,
        /// In plain words.
        error: Option<String>,
        /// Microseconds in the call.
        took: u64,
        /// What it published.
        publishes: u64,
    },
    /// It came from so many calls, one after the other, that the handler is not called: it goes in a circle.
    GoesInACircle { handler: String, hops: u8 },
    /// It failed for good: its dead letter is to be published.
    DeadLetter {
        handler: String,
        broker: String,
        topic: String,
        /// As the metric's label: `reject`, `publish_refused`, `loop`, …
        reason: String,
    },
    /// It failed for good: it is to be kept in the dead-letter store.
    KeptDeadLetter {
        handler: String,
        /// As the metric's label: `reject`, `publish_refused`, `loop`, …
        reason: String,
    },
    /// There is no dead letter of it, or none that is kept.
    NoDeadLetter {
        handler: String,
        /// Why, in plain words.
        reason: String,
    },
    /// Another call changed what this one read in `kv` before it ended: what it did is dropped, and it is run again at once.
    Overtaken { handler: String },
    /// The call failed, and is made again.
    WaitsForRetry {
        handler: String,
        /// Microseconds until then.
        wait: u64,
    },
    /// An outbox has no room for what the call published: it waits, all of it.
    WaitsForRoom { publishes: u64 },
    /// An outbox has no room for what the call published, and rejects it: the call counts as one that asks for a retry.
    NoRoom {
        publishes: u64,
        /// Whose outbox, and which limit is reached.
        reason: String,
    },
    /// What the call published is in the outboxes.
    Admitted { publishes: u64 },
    /// A publish has reached its end.
    Published {
        broker: String,
        topic: String,
        result: PublishResult,
        /// As it was delivered: 2 is sent as 1 where the session is kept.
        qos: Option<u8>,
        /// Why it was refused.
        reason: Option<String>,
    },
    /// The message has ended.
    Ended {
        /// As the metric's label: `handled`, `filtered`, `dropped_failed`, …
        outcome: String,
    },
}

/// How a publish reached its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PublishResult {
    /// It is safe on the disk of this machine, until the broker has it.
    Kept,
    /// The broker has acknowledged it; at QoS 0 it is written.
    Delivered,
    /// The broker will never take it.
    Refused,
    /// The broker ended one connection after the other over it.
    Poisoned,
    /// The broker was removed before it had it.
    Purged,
    /// It was in the outbox for longer than `max-age`.
    Expired,
    /// It made way for a newer one in a full outbox.
    Displaced,
}

/// A message to publish.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Publication {
    #[schema(min_length = 1)]
    pub broker: String,
    #[schema(min_length = 1)]
    pub topic: String,
    /// As text; empty unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// As base64, in place of `message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_base64: Option<String>,
    /// 0, 1 or 2.
    #[serde(default)]
    #[schema(maximum = 2)]
    pub qos: u8,
    #[serde(default)]
    pub retain: bool,
    /// Connect a broker that is not connected; true unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Disconnect once it is published, if this made the connection.
    #[serde(default)]
    pub disconnect_after: bool,
}

/// What became of a message to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Published {
    pub broker: String,
    pub topic: String,
    /// As it was sent: QoS 2 is sent as 1 where the session is kept.
    pub qos: u8,
    /// The broker has acknowledged it; at QoS 0 it is written.
    pub acknowledged: bool,
    /// The broker was connected for it.
    pub connected_for_it: bool,
    /// And disconnected again.
    pub disconnected: bool,
}

/// One key of the merged configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Setting {
    /// Its path, such as `brokers.plant.port`.
    pub key: String,
    /// As written; `***` in place of a secret.
    pub value: serde_json::Value,
    pub origin: Origin,
}

/// The merged configuration.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    pub settings: Vec<Setting>,
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
