//! What runs, in the words of the HTTP API.
//!
//! Reads the configuration, each session's status and the meters; makes no wait and no change. Secrets have no way in: the types
//! that it fills have no place for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};

use super::{Live, Running, RunningBroker, park};
use crate::control::admin::resource::{
    Broker, BrokerOutbox, BrokerState, BrokerSummary, CallFailure, DeadLetterTopic, Handler, HandlerSummary, MASK,
    Messages, OnMessage, Origin, Outbox, PluginFile, PluginFileState, Quarantine, Reload, Retry, Setting, Source,
    Status, StatusMessage, Subscription, SubscriptionState, Tls, Transport, Trial, When,
};
use crate::control::config::secret::PasswordSource;
use crate::control::config::{BrokerOrigins, ObjectOrigin, format_duration, format_durations, format_size, model};
use crate::path::handler::archive::FileState;
use crate::path::handler::plugin::PluginHash;
use crate::path::handler::{CallResult, HandlerView, TrialStanding};
use crate::path::session::{SessionState, SessionStatus, Standing};

impl Running {
    /// A text as it may be shown: as it is written, where that is an interpolation. Addresses, names, topics and paths of files are no
    /// secrets, and show in logs too.
    fn written(&self, key: &str, text: &str) -> String {
        self.loaded.shown.interpolated.get(key).map_or_else(|| text.to_owned(), String::clone)
    }
}

impl Live {
    /// Everything at a glance.
    pub fn status(&self) -> Status {
        let running = self.running();
        let obstacles: Vec<String> = self.obstacles().into_iter().map(|obstacle| obstacle.to_string()).collect();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: time(self.started.0),
            uptime: self.started.1.elapsed().as_secs_f64(),
            config: running.file.display().to_string(),
            state_dir: running.loaded.config.state_dir.display().to_string(),
            ready: obstacles.is_empty(),
            obstacles,
            last_reload: self.last_reload(),
            details: self.details(),
            messages: messages(&running),
            dead_letters: self.kept_dead_letters(),
            parked: running.parked(),
            parked_orphans: running.parked_orphans(),
            schedules: self.schedule_summaries(),
            brokers: running.brokers.iter().map(|broker| self.broker_summary(broker)).collect(),
            handlers: running.handlers.iter().map(|view| handler_summary(&running, view)).collect(),
        }
    }

    /// All brokers, in the order of the configuration.
    pub fn brokers(&self) -> Vec<Broker> {
        let running = self.running();
        let origins = running.loaded.origins.brokers.iter();
        running.brokers.iter().zip(origins).map(|(broker, origins)| self.broker(&running, broker, origins)).collect()
    }

    /// All subscriptions, in the order of the configuration.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        let running = self.running();
        let all = running.loaded.config.subscriptions.iter().zip(&running.loaded.origins.subscriptions);
        all.enumerate().map(|(place, (one, origins))| subscription(&running, place, one, origins)).collect()
    }

    /// All handlers, in the order of the configuration.
    pub fn handlers(&self) -> Vec<Handler> {
        let running = self.running();
        let origins = running.loaded.origins.handlers.iter();
        running.handlers.iter().zip(origins).map(|(view, origins)| handler(&running, view, &origins.object)).collect()
    }

    /// Every key of the configuration, with its place.
    pub fn settings(&self) -> Vec<Setting> {
        let running = self.running();
        let added = running.loaded.sources.runtime_path().to_string_lossy().into_owned();
        let settings = running.loaded.shown.settings.iter();
        let setting = |one: &crate::control::config::Setting| Setting {
            key: one.key.clone(),
            value: one.value.clone(),
            origin: Origin {
                source: if one.place.file == added { Source::Runtime } else { Source::File },
                line: one.place.position.map_or(1, |position| position.line),
                file: one.place.file.clone(),
            },
        };
        settings.map(setting).collect()
    }

    fn broker(&self, running: &Running, broker: &RunningBroker, origins: &BrokerOrigins) -> Broker {
        let config = &broker.config;
        let key = |name: &str| format!("brokers.{}.{name}", config.name);
        let written = |name: &str, text: &str| running.written(&key(name), text);
        let message = |name: &str, message: &Option<model::StatusMessage>| {
            message.as_ref().map(|message| status_message(running, &key(name), message))
        };
        let status = broker.session.status();
        let standing = Session::of(&status.borrow());
        let (password, password_file, password_env) = match &config.password {
            None => (None, None, None),
            Some(PasswordSource::Literal(_)) => (Some(MASK.to_owned()), None, None),
            Some(PasswordSource::File(path)) => (None, Some(path.display().to_string()), None),
            Some(PasswordSource::Variable(name)) => (None, None, Some(name.clone())),
        };
        Broker {
            name: config.name.to_string(),
            origin: origin(&origins.object),
            address: config.address.clone(),
            port: config.port.get(),
            protocol: protocol(config.protocol),
            client_id: written("client-id", &config.client_id),
            // Some brokers take a token as the user name.
            username: config.username.as_ref().map(|username| written("username", username)),
            password,
            password_file,
            password_env,
            keep_alive: config.keep_alive,
            auto_connect: config.auto_connect,
            clean_session: config.clean_session,
            session_expiry: (config.session_expiry > Duration::ZERO).then(|| format_duration(config.session_expiry)),
            receive_maximum: config.receive_maximum.get(),
            max_packet: format_size(u64::from(config.max_packet)),
            parallel_limit: config.parallel_limit,
            dispatch: match config.dispatch {
                model::DispatchMode::Best => "best".to_owned(),
                model::DispatchMode::All => "all".to_owned(),
            },
            tls: config.tls.as_ref().map(tls),
            transport: match &config.transport {
                model::Transport::Tcp => Transport { kind: "tcp".to_owned(), path: None },
                model::Transport::WebSocket { path } => {
                    Transport { kind: "websocket".to_owned(), path: Some(written("transport.path", path)) }
                }
            },
            will: message("will", &config.will),
            birth: message("birth", &config.birth),
            close: message("close", &config.close),
            connected: standing.state == BrokerState::Connected,
            state: standing.state,
            reason: standing.reason,
            retry_in: standing.retry_in,
            outbox: self.broker_outbox(config),
            warnings: Vec::new(),
        }
    }

    fn broker_summary(&self, running: &RunningBroker) -> BrokerSummary {
        let status = running.session.status();
        let status = status.borrow();
        let standing = Session::of(&status);
        let counts = running.meters.counts();
        BrokerSummary {
            name: running.config.name.to_string(),
            connected: standing.state == BrokerState::Connected,
            state: standing.state,
            reason: standing.reason,
            received: counts.received,
            published: counts.published,
            outbox: self.waiting(&running.config),
            outbox_on_disk: self.on_disk(&running.config),
            subscriptions: status.subscriptions.len(),
            refused: status.refused().map(|(name, _)| name.to_string()).collect(),
        }
    }

    pub(super) fn broker_outbox(&self, broker: &model::Broker) -> BrokerOutbox {
        let Outbox { messages, bytes } = self.waiting(broker);
        let limits = broker.outbox;
        BrokerOutbox {
            messages,
            bytes,
            waiting: self.waiting_calls(broker) as u64,
            store: limits.store.word().to_owned(),
            max_messages: limits.messages as u64,
            max_bytes: format_size(limits.bytes as u64),
            max_age: limits.max_age.map(format_duration),
            when_full: match limits.when_full {
                model::WhenFull::Block => "block".to_owned(),
                model::WhenFull::DropOldest => "drop-oldest".to_owned(),
                model::WhenFull::Reject => "reject".to_owned(),
            },
        }
    }

    /// What of a broker's outbox is on the disk.
    fn on_disk(&self, broker: &model::Broker) -> Outbox {
        let on_disk = self.outboxes.on_disk_of(broker.id);
        Outbox { messages: on_disk.messages as u64, bytes: on_disk.bytes as u64 }
    }

    fn waiting(&self, broker: &model::Broker) -> Outbox {
        let (messages, bytes) = self.outbox(broker);
        Outbox { messages: messages as u64, bytes: bytes as u64 }
    }
}

/// How a session stands.
struct Session {
    state: BrokerState,
    reason: Option<String>,
    retry_in: Option<f64>,
}

impl Session {
    fn of(status: &SessionStatus) -> Session {
        let (state, retry_in) = match status.state {
            SessionState::Connected => (BrokerState::Connected, None),
            SessionState::Connecting => (BrokerState::Connecting, None),
            SessionState::Idle => (BrokerState::Idle, None),
            SessionState::Disconnected => (BrokerState::Disconnected, None),
            SessionState::Waiting { until } => {
                let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
                (BrokerState::Waiting, Some((left * 10.0).round() / 10.0))
            }
        };
        Session { state, reason: status.last_error.clone(), retry_in }
    }
}

fn messages(running: &Running) -> Messages {
    let mut messages = Messages::default();
    for broker in &running.brokers {
        let counts = broker.meters.counts();
        messages.received += counts.received;
        messages.published += counts.published;
        messages.in_progress += counts.in_progress;
        for (outcome, count) in counts.finished.iter().filter(|(_, count)| *count > 0) {
            *messages.finished.entry(outcome.label().to_owned()).or_default() += count;
        }
    }
    messages
}

fn subscription(running: &Running, place: usize, config: &model::Subscription, origins: &ObjectOrigin) -> Subscription {
    let written = |name: &str, text: &str| running.written(&format!("subscriptions[{place}].{name}"), text);
    let broker = running.brokers.iter().find(|broker| broker.config.id == config.broker);
    let standing = broker.map(|broker| {
        let status = broker.session.status();
        let status = status.borrow();
        let found = status.subscriptions.iter().find(|(name, _)| *name == config.name);
        found.map_or(Standing::Pending, |(_, standing)| *standing)
    });
    let (state, reason) = match standing {
        Some(Standing::Granted(_)) => (SubscriptionState::Granted, None),
        Some(Standing::Refused(reason)) => (SubscriptionState::Refused, Some(reason.to_owned())),
        Some(Standing::Pending) | None => (SubscriptionState::Pending, None),
    };
    let last_message = broker.and_then(|broker| {
        let routes = broker.session.routes();
        let place = routes.table.subscriptions().iter().position(|known| known.name == config.name)?;
        let seconds = routes.last_message.get(place)?.get();
        (seconds > 0.0).then(|| time(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)))
    });
    Subscription {
        name: config.name.to_string(),
        origin: origin(origins),
        broker: broker.map(|broker| broker.config.name.to_string()).unwrap_or_default(),
        topic: config.topic.unshared().to_owned(),
        qos: config.qos.number(),
        share: config.topic.share().map(str::to_owned),
        on_message: config.on_message.as_ref().map(|action| match action {
            model::OnMessage::Handler(handler) => OnMessage::Handler(handler.name.to_string()),
            model::OnMessage::Log(template) => OnMessage::Log { log: written("on-message.log", template.text()) },
        }),
        when: config.when.as_ref().map(|when| When {
            payload: when.payload.as_ref().map(|regex| written("when.payload", regex.as_str())),
            min_bytes: when.min_bytes,
            retained: when.retained,
            otherwise: match when.otherwise {
                model::Otherwise::Stop => "stop".to_owned(),
                model::Otherwise::Next => "next".to_owned(),
            },
        }),
        silence: config.silence.map(format_duration),
        state,
        reason,
        last_message,
        warnings: Vec::new(),
    }
}

fn handler(running: &Running, view: &HandlerView, origins: &ObjectOrigin) -> Handler {
    let config = view.handler();
    let broker = |id| running.brokers.iter().find(|broker| broker.config.id == id).map(|broker| &*broker.config.name);
    let grants = config.allow.publish.iter();
    let calls = view.meters().calls().into_iter();
    let dead_letters = view.meters().dead_letters().into_iter();
    Handler {
        name: config.name.to_string(),
        origin: origin(origins),
        plugin: config.plugin.display().to_string(),
        version: view.version().to_string(),
        file: plugin_file(&running.archive.file_of(&view.handler().name)),
        trial: view.trial().map(|trial| trial_of(&trial)),
        instances: config.instances.get(),
        isolation: match config.isolation {
            model::Isolation::Reuse => "reuse".to_owned(),
            model::Isolation::PerMessage => "per-message".to_owned(),
        },
        call_deadline: format_duration(config.call_deadline),
        max_memory: format_size(config.max_memory as u64),
        queue: config.queue,
        queue_bytes: format_size(config.queue_bytes as u64),
        overload: match config.overload {
            model::Overload::DropNewest => "drop-newest".to_owned(),
            model::Overload::DropOldest => "drop-oldest".to_owned(),
        },
        retry: Retry {
            max: config.retry.max,
            backoff: format_durations(&config.retry.backoff),
            max_time: format_duration(config.retry.max_time),
        },
        quarantine: config
            .quarantine
            .map(|policy| Quarantine { after: policy.after, r#for: format_duration(policy.wait) }),
        reload: Reload { canary: config.reload.canary, max_failures: config.reload.max_failures },
        max_publishes: config.max_publishes,
        max_publish_bytes: format_size(config.max_publish_bytes as u64),
        dead_letter: config.dead_letter.as_ref().map(|place| DeadLetterTopic {
            broker: broker(place.broker).unwrap_or_default().to_owned(),
            topic: place.topic.to_string(),
        }),
        default_broker: config.default_broker.and_then(broker).map(str::to_owned),
        allow_publish: grants
            .map(|grant| format!("{}:{}", broker(grant.broker).unwrap_or_default(), grant.filter))
            .collect(),
        allow_system: config.allow.system,
        allow_kv: config.allow.kv.map(|bytes| format_size(bytes as u64)),
        config: masked(&config.config),
        calls: calls.map(|(result, count)| (result.label().to_owned(), count)).collect::<BTreeMap<_, _>>(),
        dead_letters: dead_letters
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.label().to_owned(), count))
            .collect(),
        dead_letters_dropped: view.meters().dead_letters_dropped(),
        waiting: view.queue().waiting() as u64,
        retrying: view.queue().retrying() as u64,
        state: park::state(view.queue()),
        quarantined_until: park::quarantined_until(view.queue()).map(time),
        parked: park::parked(view.queue()),
        last_failure: last_failure(view),
        warnings: Vec::new(),
    }
}

fn handler_summary(running: &Running, view: &HandlerView) -> HandlerSummary {
    let calls = view.meters().calls();
    let failed = calls.iter().filter(|(result, _)| *result != CallResult::Ok);
    HandlerSummary {
        name: view.handler().name.to_string(),
        version: view.version().to_string(),
        file: plugin_file(&running.archive.file_of(&view.handler().name)),
        trial: view.trial().map(|trial| trial_of(&trial)),
        calls: calls.iter().map(|(_, count)| count).sum(),
        failures: failed.map(|(_, count)| count).sum(),
        waiting: view.queue().waiting() as u64,
        state: park::state(view.queue()),
        quarantined_until: park::quarantined_until(view.queue()).map(time),
        parked: park::parked(view.queue()),
        last_failure: last_failure(view),
    }
}

fn trial_of(trial: &TrialStanding) -> Trial {
    let TrialStanding { version, calls, of, failures, .. } = trial;
    Trial { version: version.to_string(), calls: *calls, of: *of, failures: *failures }
}

fn plugin_file(file: &FileState) -> PluginFile {
    let (state, version, reason, since) = match file {
        FileState::Runs => (PluginFileState::Runs, None, None, None),
        FileState::Missing { since } => (PluginFileState::Missing, None, None, Some(since)),
        FileState::Refused { version, reason, since } => {
            (PluginFileState::Refused, version.as_ref(), Some(reason), Some(since))
        }
        FileState::OnTrial { version, since } => (PluginFileState::OnTrial, Some(version), None, Some(since)),
        FileState::NotKept { version, reason, since } => {
            (PluginFileState::NotKept, Some(version), Some(reason), Some(since))
        }
    };
    PluginFile {
        state,
        version: version.map(PluginHash::to_string),
        reason: reason.cloned(),
        since: since.copied().map(time),
    }
}

fn last_failure(view: &HandlerView) -> Option<CallFailure> {
    let failure = view.last_failure()?;
    Some(CallFailure {
        time: time(failure.time),
        result: failure.result.label().to_owned(),
        error: failure.error.to_string(),
    })
}

pub(super) fn origin(origins: &ObjectOrigin) -> Origin {
    let place = &origins.table.place;
    Origin {
        source: if origins.runtime { Source::Runtime } else { Source::File },
        file: place.file.clone(),
        line: place.position.map_or(1, |position| position.line),
    }
}

fn protocol(protocol: model::Protocol) -> String {
    match protocol {
        model::Protocol::V311 => "3.1.1".to_owned(),
        model::Protocol::V5 => "5".to_owned(),
    }
}

fn tls(tls: &model::Tls) -> Tls {
    let path = |path: &std::path::Path| path.display().to_string();
    Tls {
        ca: tls.ca.as_deref().map(path),
        certificate: tls.identity.as_ref().map(|identity| path(&identity.certificate)),
        key: tls.identity.as_ref().map(|identity| path(&identity.key)),
        alpn: tls.alpn.clone(),
        server_name: tls.server_name.clone(),
        insecure_skip_verify: tls.insecure_skip_verify,
    }
}

fn status_message(running: &Running, key: &str, message: &model::StatusMessage) -> StatusMessage {
    StatusMessage {
        topic: message.topic.to_string(),
        message: running.written(&format!("{key}.message"), &String::from_utf8_lossy(&message.message)),
        qos: message.qos.number(),
        retain: message.retain,
    }
}

/// What a handler is given may be a secret of its own: texts are masked.
fn masked(config: &Map<String, Value>) -> Map<String, Value> {
    fn mask(value: &Value) -> Value {
        match value {
            Value::String(_) => MASK.into(),
            Value::Array(items) => items.iter().map(mask).collect(),
            Value::Object(keys) => Value::Object(masked(keys)),
            other => other.clone(),
        }
    }
    config.iter().map(|(key, value)| (key.clone(), mask(value))).collect()
}

/// In RFC 3339, with milliseconds.
pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
