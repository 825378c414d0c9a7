//! The configuration as the daemon uses it: every value validated, every default filled in, every reference resolved.
//!
//! Made only by [`super::load`]; read by the gateway's wiring and by `check` and `explain`. It holds no secret in a form that
//! can be printed.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regex::bytes::Regex;

use super::secret::{PasswordSource, Secret};
use super::template::LogTemplate;
use crate::message::{BrokerId, Qos};
use crate::path::schedule::timing::Timing;
use crate::telemetry::received::Limits;
use crate::topic::{TopicFilter, TopicName};

/// One configuration: the main file and `conf.d/*.toml` beside it, merged.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the daemon keeps what must survive it.
    pub state_dir: PathBuf,
    /// Whether native plugins are permitted.
    pub native: bool,
    /// What is logged, and how.
    pub log: LogSettings,
    /// How long a stop waits for messages in progress.
    pub shutdown_grace: Duration,
    /// What is kept of the messages received: `recv-buffer` and `recv-bytes`.
    pub received: Limits,
    /// Whether the files of the configuration are read again when they change.
    pub watch_config: bool,
    /// Where the daemon is watched and operated.
    pub admin: Admin,
    /// In the order of the files.
    pub brokers: Vec<Arc<Broker>>,
    /// In the order of the files.
    pub subscriptions: Vec<Arc<Subscription>>,
    /// In the order of the files.
    pub handlers: Vec<Arc<Handler>>,
    /// In the order of the files.
    pub schedules: Vec<Arc<Schedule>>,
}

impl Config {
    /// The broker with this name.
    pub fn broker(&self, name: &str) -> Option<&Arc<Broker>> {
        self.brokers.iter().find(|broker| *broker.name == *name)
    }
}

/// `log = { level, format }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Lines below this level are not written.
    pub level: tracing::Level,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[admin]`: the HTTP API, `/metrics`, `/healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket where it is served to those who may open it; short enough for one.
    pub socket: PathBuf,
    /// Where it is served over TCP besides: a loopback address, or any with `token_file`; or off.
    pub listen: Option<SocketAddr>,
    /// Holds the token that permits changes over TCP.
    pub token_file: Option<PathBuf>,
}

/// The version of MQTT that a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

/// Which of the matching subscriptions run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispatchMode {
    /// The best-ranked one.
    Best,
    /// Each, a handler at most once.
    All,
}

/// What an outbox does with what it has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits.
    #[default]
    Block,
    /// The oldest publishes that are not on their way are dropped for it.
    DropOldest,
    /// The call has failed, and is retried.
    Reject,
}

/// Where an outbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboxStore {
    /// In memory: what it holds goes with the process, and its messages are acknowledged once it is delivered.
    #[default]
    Memory,
    /// On the disk: what it holds outlives the process, and its messages are acknowledged once it is synced.
    Disk,
}

impl OutboxStore {
    /// As it is configured.
    pub fn word(self) -> &'static str {
        match self {
            OutboxStore::Memory => "memory",
            OutboxStore::Disk => "disk",
        }
    }
}

/// `outbox = {…}` of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Where it is.
    pub store: OutboxStore,
    /// Messages that may wait to be delivered.
    pub messages: usize,
    /// Bytes of their topics, payloads and properties.
    pub bytes: usize,
    /// How old one may become that is not on its way; none is any age.
    pub max_age: Option<Duration>,
    /// What happens when there is no room.
    pub when_full: WhenFull,
}

impl Default for OutboxLimits {
    fn default() -> OutboxLimits {
        OutboxLimits {
            store: OutboxStore::default(),
            messages: 10_000,
            bytes: 64 << 20,
            max_age: None,
            when_full: WhenFull::default(),
        }
    }
}

/// `[brokers.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Broker {
    /// Its number in this process.
    pub id: BrokerId,
    /// Its name everywhere.
    pub name: Arc<str>,
    /// IP address or host name, without brackets.
    pub address: String,
    /// TCP port.
    pub port: NonZeroU16,
    /// How the connection is secured; none is not at all.
    pub tls: Option<Tls>,
    /// What carries MQTT's packets.
    pub transport: Transport,
    /// The version spoken.
    pub protocol: Protocol,
    /// MQTT client identifier.
    pub client_id: String,
    /// User name of the CONNECT packet.
    pub username: Option<String>,
    /// Where its password comes from; present only with a user name on 3.1.1.
    pub password: Option<PasswordSource>,
    /// Seconds, 30..=64800.
    pub keep_alive: u16,
    /// Connect at start and for ever after a loss; otherwise only when something is to be published.
    pub auto_connect: bool,
    /// The broker forgets the session when the connection ends.
    pub clean_session: bool,
    /// How long the broker keeps the session of a lost connection; protocol 5 only. Zero with `clean_session`.
    pub session_expiry: Duration,
    /// Messages with QoS ≥ 1 taken in and not yet acknowledged.
    pub receive_maximum: NonZeroU16,
    /// Largest packet taken in, in bytes.
    pub max_packet: u32,
    /// Handler calls for this broker's messages at the same time, 3..=1000; none is no limit.
    pub parallel_limit: Option<u16>,
    /// Which of the matching subscriptions run.
    pub dispatch: DispatchMode,
    /// What may wait to be published to it.
    pub outbox: OutboxLimits,
    /// Published by the broker when the connection is lost.
    pub will: Option<StatusMessage>,
    /// Published after connecting.
    pub birth: Option<StatusMessage>,
    /// Published before disconnecting.
    pub close: Option<StatusMessage>,
}

/// `tls`: `true` is everything at its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities that may sign the broker's certificate; none is those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The client's own certificate.
    pub identity: Option<Identity>,
    /// Protocols offered to the broker (RFC 7301), the preferred one first; none offers nothing.
    pub alpn: Vec<String>,
    /// The name that the broker's certificate must have; none is the address.
    pub server_name: Option<String>,
    /// The broker's certificate is not verified.
    pub insecure_skip_verify: bool,
}

/// The client's certificate, with which it proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What carries MQTT's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The TCP connection, or TLS on it.
    Tcp,
    /// A WebSocket on either (MQTT 5 §6).
    WebSocket {
        /// The part of its URL after host and port.
        path: String,
    },
}

/// `will`, `birth` and `close`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusMessage {
    /// The topic to publish to.
    pub topic: TopicName,
    /// The payload.
    pub message: Bytes,
    /// MQTT quality of service.
    pub qos: Qos,
    /// The broker keeps it for later subscribers.
    pub retain: bool,
}

/// `[[subscriptions]]`.
#[derive(Debug)]
pub struct Subscription {
    /// Unique; `BROKER:TOPIC` unless given, the topic with its share.
    pub name: Arc<str>,
    /// Where it subscribes.
    pub broker: BrokerId,
    /// What it subscribes to, with its share.
    pub topic: TopicFilter,
    /// As configured; the wire asks for at most QoS 1.
    pub qos: Qos,
    /// What runs.
    pub on_message: Option<OnMessage>,
    /// The condition under which it runs.
    pub when: Option<When>,
    /// The handler runs when nothing came for that long.
    pub silence: Option<Duration>,
}

/// `[[schedules]]`.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Unique.
    pub name: Arc<str>,
    /// When it is due.
    pub timing: Timing,
    /// A run begins so much later at most, at random.
    pub jitter: Duration,
    /// What it does.
    pub action: ScheduleAction,
}

/// What a schedule does.
#[derive(Clone, Debug)]
pub enum ScheduleAction {
    /// It publishes.
    Publish(ScheduledPublish),
    /// The handler of this name runs.
    Handler(Arc<str>),
}

/// `publish = {…}` of a schedule.
#[derive(Clone, Debug)]
pub struct ScheduledPublish {
    /// Where to.
    pub broker: BrokerId,
    /// Under this topic.
    pub topic: TopicName,
    /// What.
    pub payload: ScheduledPayload,
    /// MQTT quality of service.
    pub qos: Qos,
    /// The broker keeps it for later subscribers.
    pub retain: bool,
}

/// What a schedule publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduledPayload {
    /// The same each time.
    Message(Bytes),
    /// Readings of the machine, as RouterOS' script has them.
    SystemStats,
}

/// What a subscription does with a message.
#[derive(Clone, Debug)]
pub enum OnMessage {
    /// Calls a handler.
    Handler(Arc<Handler>),
    /// Writes a log line.
    Log(LogTemplate),
}

/// `when = {…}`: every given condition must hold.
#[derive(Clone, Debug)]
pub struct When {
    /// Must match somewhere in the payload.
    pub payload: Option<Regex>,
    /// Smallest payload, in bytes.
    pub min_bytes: Option<u64>,
    /// Whether the message must, or must not, be a replayed retained one.
    pub retained: Option<bool>,
    /// What happens when a condition does not hold.
    pub otherwise: Otherwise,
}

/// What happens when a condition does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// Nothing runs.
    Stop,
    /// The next subscription by rank is tried.
    Next,
}

/// Whether instances live on between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// One warm instance for many calls.
    Reuse,
    /// A new instance for each call.
    PerMessage,
}

/// Which QoS 0 message goes when a handler's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// The arriving one.
    DropNewest,
    /// The oldest waiting one.
    DropOldest,
}

/// `retry = {…}`: when a call that failed is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further calls for one message, after the first.
    pub max: u32,
    /// The shortest and the longest wait before one, unless the handler says how long.
    pub backoff: RangeInclusive<Duration>,
    /// From the beginning of the first call to that of the last, at most.
    pub max_time: Duration,
}

/// `quarantine = {…}`: when a handler that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantinePolicy {
    /// Failures, one after the other.
    pub after: u32,
    /// For how long, the first time.
    pub wait: Duration,
}

/// `reload = {…}`: how a new version of the plugin takes the place of the one that runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReloadPolicy {
    /// The share of first calls that run on it while it is on trial, more than 0 and at most 1; none is no trial.
    pub canary: Option<f64>,
    /// The largest share of these that may fail, at least 0 and less than 1.
    pub max_failures: f64,
}

/// `[handlers.NAME]`.
pub struct Handler {
    /// Its name everywhere.
    pub name: Arc<str>,
    /// The plugin's path: `plugins-dir` joined with the configured file name.
    pub plugin: PathBuf,
    /// How many instances run beside each other.
    pub instances: NonZeroUsize,
    /// Whether instances live on between calls.
    pub isolation: Isolation,
    /// Wall clock limit of one call, host calls included.
    pub call_deadline: Duration,
    /// Linear memory of an instance, in bytes.
    pub max_memory: usize,
    /// Messages that may wait; QoS ≥ 1 messages wait beyond it, unacknowledged, within their broker's receive maximum.
    pub queue: usize,
    /// Topic, payload and property bytes that may wait; the same exception holds.
    pub queue_bytes: usize,
    /// Which QoS 0 message goes when the queue is full.
    pub overload: Overload,
    /// When a call that failed is made again.
    pub retry: Retry,
    /// When it is left alone because it fails; none is never.
    pub quarantine: Option<QuarantinePolicy>,
    /// How a new version of the plugin takes the place of the one that runs.
    pub reload: ReloadPolicy,
    /// Publishes of one call.
    pub max_publishes: usize,
    /// Topic, payload and property bytes of one call's publishes.
    pub max_publish_bytes: usize,
    /// Where messages go whose calls have failed for good; none is the dead-letter store.
    pub dead_letter: Option<DeadLetterTopic>,
    /// Where it publishes on a schedule, unless it names a broker.
    pub default_broker: Option<BrokerId>,
    /// What it may do.
    pub allow: Allow,
    /// `[handlers.NAME.config]`, given to the handler.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// What interpolations in `config` stand for: masked in whatever the handler says.
    pub secrets: Vec<Secret>,
}

impl fmt::Debug for Handler {
    /// Everything but the values of `config`, which may be secrets of the handler.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("name", &self.name)
            .field("plugin", &self.plugin)
            .field("instances", &self.instances)
            .field("isolation", &self.isolation)
            .field("call_deadline", &self.call_deadline)
            .field("max_memory", &self.max_memory)
            .field("queue", &self.queue)
            .field("queue_bytes", &self.queue_bytes)
            .field("overload", &self.overload)
            .field("retry", &self.retry)
            .field("quarantine", &self.quarantine)
            .field("reload", &self.reload)
            .field("max_publishes", &self.max_publishes)
            .field("max_publish_bytes", &self.max_publish_bytes)
            .field("dead_letter", &self.dead_letter)
            .field("default_broker", &self.default_broker)
            .field("allow", &self.allow)
            .field("config", &self.config.keys())
            .finish()
    }
}

/// `dead-letter = {…}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterTopic {
    /// On this broker,
    pub broker: BrokerId,
    /// under this topic.
    pub topic: TopicName,
}

/// `allow = {…}`: nothing unless given.
#[derive(Clone, Debug, Default)]
pub struct Allow {
    /// Where it may publish.
    pub publish: Vec<PublishGrant>,
    /// Bytes that it may remember; none where it may remember nothing.
    pub kv: Option<usize>,
    /// Whether it may read the machine.
    pub system: bool,
}

/// One entry of `allow.publish`: `BROKER:FILTER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishGrant {
    /// On this broker,
    pub broker: BrokerId,
    /// to topics that match.
    pub filter: TopicFilter,
}
