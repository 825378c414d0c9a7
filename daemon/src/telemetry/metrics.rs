//! The Prometheus families that the daemon exports, and handles to their children.
//!
//! Every label is bounded by the configuration: broker, handler, subscription, qos, result, reason and outcome; never a topic or
//! a client identifier. Stages hold handles ([`BrokerMeters`], [`HandlerMeters`]) so that counting costs one atomic
//! addition. The admin server renders [`Metrics::render`].

mod store;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use self::store::StoreMeters;
use crate::message::Qos;
use crate::path::dead_letter::Reason;
use crate::path::handler::CallResult;
use crate::path::outbox::DropReason;
use crate::path::receipt::Outcome;
use crate::path::schedule::RunResult;
use crate::path::session::Holder;

/// Upper bounds of the buckets of both histograms, in seconds: a warm call takes microseconds, a call deadline seconds.
const SECONDS: [f64; 14] =
    [0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// All families of one daemon.
pub struct Metrics {
    registry: Registry,
    broker_connected: IntGaugeVec,
    broker_connects: IntCounterVec,
    broker_disconnects: IntCounterVec,
    broker_ack_stalled: GaugeVec,
    broker_sessions_lost: IntCounterVec,
    broker_session_write_errors: IntCounterVec,
    received: IntCounterVec,
    finished: IntCounterVec,
    in_progress: IntGaugeVec,
    published: IntCounterVec,
    subscription_last_message: GaugeVec,
    handler_calls: IntCounterVec,
    handler_duration: HistogramVec,
    end_to_end: HistogramVec,
    handler_queue: IntGaugeVec,
    handler_retries: IntCounterVec,
    handler_retrying: IntGaugeVec,
    handler_instances: IntGaugeVec,
    handler_conflicts: IntCounterVec,
    handler_reloads: IntCounterVec,
    kv_keys: IntGaugeVec,
    kv_bytes: IntGaugeVec,
    handler_paused: IntGaugeVec,
    handler_quarantined: IntGaugeVec,
    handler_threads_stuck: IntGaugeVec,
    handler_parked_messages: IntGaugeVec,
    handler_parked_bytes: IntGaugeVec,
    handler_park_full: IntGaugeVec,
    dead_letters: IntCounterVec,
    dead_letters_dropped: IntCounterVec,
    dead_letter_store: DeadLetterStoreMeters,
    outbox_messages: IntGaugeVec,
    outbox_bytes: IntGaugeVec,
    outbox_max_messages: IntGaugeVec,
    outbox_max_bytes: IntGaugeVec,
    outbox_waiting: IntGaugeVec,
    outbox_dropped: IntCounterVec,
    certificate_expiry: GaugeVec,
    admin_refused: IntCounterVec,
    schedule_runs: IntCounterVec,
    config: ConfigMeters,
    store: Arc<StoreMeters>,
}

impl Metrics {
    /// Registers every family.
    ///
    /// # Errors
    /// A family is named twice or badly: a defect of this file, which a test finds.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let families = Families { registry: Registry::new() };
        let metrics = Metrics {
            broker_connected: families.gauge("broker_connected", "1 while the session is connected.", &["broker"])?,
            broker_connects: families.counter(
                "broker_connects_total",
                "Connection attempts by result.",
                &["broker", "result"],
            )?,
            broker_disconnects: families.counter(
                "broker_disconnects_total",
                "Connections that ended after the broker had accepted them, by reason.",
                &["broker", "reason"],
            )?,
            broker_ack_stalled: families.seconds(
                "broker_ack_stalled_seconds",
                "Age of the oldest received message that is not acknowledged yet.",
                &["broker"],
            )?,
            broker_sessions_lost: families.counter(
                "broker_sessions_lost_total",
                "Sessions that the broker was to keep and has not.",
                &["broker"],
            )?,
            broker_session_write_errors: families.counter(
                "broker_session_write_errors_total",
                "Failed writes of the record of the session's subscriptions.",
                &["broker"],
            )?,
            received: families.counter("messages_received_total", "Messages taken in.", &["broker", "qos"])?,
            finished: families.counter(
                "messages_finished_total",
                "Messages that reached their end, by outcome.",
                &["broker", "outcome"],
            )?,
            in_progress: families.gauge(
                "messages_in_progress",
                "Messages taken in that have not reached their end.",
                &["broker"],
            )?,
            published: families.counter(
                "messages_published_total",
                "Messages delivered to a broker: acknowledged by it, at QoS 0 written.",
                &["broker", "qos"],
            )?,
            subscription_last_message: families.seconds(
                "subscription_last_message_timestamp_seconds",
                "When the last message for this subscription came, in Unix time; 0 before the first.",
                &["broker", "subscription"],
            )?,
            handler_calls: families.counter(
                "handler_calls_total",
                "Handler calls by result.",
                &["handler", "result"],
            )?,
            handler_duration: families.histogram("handler_duration_seconds", "Time in the handler's call.")?,
            end_to_end: families
                .histogram("end_to_end_seconds", "From a message's arrival until its outcome is safe.")?,
            handler_queue: families.gauge(
                "handler_queue_messages",
                "Messages waiting for the handler.",
                &["handler"],
            )?,
            handler_retries: families.counter(
                "handler_retries_total",
                "Calls that failed and are made again.",
                &["handler"],
            )?,
            handler_retrying: families.gauge(
                "handler_retrying_messages",
                "Messages whose call failed and that wait for the next one.",
                &["handler"],
            )?,
            handler_instances: families.gauge("handler_instances", "Instances ready to be called.", &["handler"])?,
            handler_conflicts: families.counter(
                "handler_conflicts_total",
                "Calls that are run again because another call changed what they read.",
                &["handler"],
            )?,
            handler_reloads: families.counter(
                "handler_reloads_total",
                "New versions of the handler's plugin by result.",
                &["handler", "result"],
            )?,
            kv_keys: families.gauge("kv_keys", "Keys that the handler remembers.", &["handler"])?,
            kv_bytes: families.gauge("kv_bytes", "Bytes that count towards the handler's allow.kv.", &["handler"])?,
            handler_paused: families.gauge(
                "handler_paused",
                "1 while the handler is paused by command.",
                &["handler"],
            )?,
            handler_quarantined: families.gauge(
                "handler_quarantined",
                "1 while the handler is left alone because it failed.",
                &["handler"],
            )?,
            handler_threads_stuck: families.gauge(
                "handler_threads_stuck",
                "Threads left behind in a native plugin's code, past its call deadline.",
                &["handler"],
            )?,
            handler_parked_messages: families.gauge(
                "handler_parked_messages",
                "Messages on the disk that the handler gets later.",
                &["handler"],
            )?,
            handler_parked_bytes: families.gauge("handler_parked_bytes", "Bytes of these.", &["handler"])?,
            handler_park_full: families.gauge(
                "handler_park_full",
                "1 while a message waits to be parked for which there is no room.",
                &["handler"],
            )?,
            dead_letters: families.counter(
                "dead_letters_total",
                "Messages that failed for good and whose dead letter is safe, by reason.",
                &["handler", "reason"],
            )?,
            dead_letters_dropped: families.counter(
                "dead_letters_dropped_total",
                "Messages that failed for good and whose dead letter could not be kept.",
                &["handler"],
            )?,
            dead_letter_store: DeadLetterStoreMeters {
                messages: families.single("dead_letter_store_messages", "Dead letters that are kept on the disk.")?,
                bytes: families.single("dead_letter_store_bytes", "Bytes of these.")?,
            },
            outbox_messages: families.gauge("outbox_messages", "Messages waiting to be delivered.", &["broker"])?,
            outbox_bytes: families.gauge("outbox_bytes", "Bytes waiting to be delivered.", &["broker"])?,
            outbox_max_messages: families.gauge("outbox_max_messages", "Messages that may wait.", &["broker"])?,
            outbox_max_bytes: families.gauge("outbox_max_bytes", "Bytes that may wait.", &["broker"])?,
            outbox_waiting: families.gauge(
                "outbox_waiting_calls",
                "Calls and commands that wait for room for what they publish.",
                &["broker"],
            )?,
            outbox_dropped: families.counter(
                "outbox_dropped_total",
                "Publishes that the outbox dropped, by reason.",
                &["broker", "reason"],
            )?,
            certificate_expiry: families.seconds(
                "tls_certificate_expiry_timestamp_seconds",
                "When a certificate of the latest TLS connection expires, in Unix time.",
                &["broker", "certificate"],
            )?,
            admin_refused: families.counter(
                "admin_refused_total",
                "Requests that the admin plane did not let in, by reason.",
                &["reason"],
            )?,
            schedule_runs: families.counter(
                "schedule_runs_total",
                "Runs of schedules by result.",
                &["schedule", "result"],
            )?,
            config: ConfigMeters {
                successful: families.single(
                    "config_last_reload_successful",
                    "1 if the last reload of the configuration changed what it should, or there was none; 0 if it failed.",
                )?,
                timestamp: families.single(
                    "config_last_reload_success_timestamp_seconds",
                    "When the configuration that runs was read, in Unix time.",
                )?,
            },
            store: Arc::new(StoreMeters::new(&families.registry)?),
            registry: families.registry.clone(),
        };
        families.build_info()?;
        #[cfg(target_os = "linux")]
        families.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Handles for one broker. Its children appear at once, with zeros.
    pub fn broker(&self, name: &str) -> Arc<BrokerMeters> {
        let qos = |family: &IntCounterVec| Qos::ALL.map(|qos| family.with_label_values(&[name, qos.label()]));
        Arc::new(BrokerMeters {
            connected: self.broker_connected.with_label_values(&[name]),
            connects: ConnectResult::ALL.map(|result| self.broker_connects.with_label_values(&[name, result.label()])),
            disconnects: DisconnectReason::ALL
                .map(|reason| self.broker_disconnects.with_label_values(&[name, reason.label()])),
            ack_stalled: self.broker_ack_stalled.with_label_values(&[name]),
            sessions_lost: self.broker_sessions_lost.with_label_values(&[name]),
            session_write_errors: self.broker_session_write_errors.with_label_values(&[name]),
            received: qos(&self.received),
            finished: Outcome::ALL.map(|outcome| self.finished.with_label_values(&[name, outcome.label()])),
            in_progress: self.in_progress.with_label_values(&[name]),
            published: qos(&self.published),
            outbox_messages: self.outbox_messages.with_label_values(&[name]),
            outbox_bytes: self.outbox_bytes.with_label_values(&[name]),
            outbox_max_messages: self.outbox_max_messages.with_label_values(&[name]),
            outbox_max_bytes: self.outbox_max_bytes.with_label_values(&[name]),
            outbox_waiting: self.outbox_waiting.with_label_values(&[name]),
            outbox_dropped: DropReason::ALL
                .map(|reason| self.outbox_dropped.with_label_values(&[name, reason.label()])),
            certificate_expiry: self.certificate_expiry.clone(),
            name: name.to_owned(),
        })
    }

    /// Handles for the dead letters that are kept on the disk.
    pub fn dead_letter_store(&self) -> DeadLetterStoreMeters {
        self.dead_letter_store.clone()
    }

    /// Handles for one schedule. Its children appear at once, with zeros.
    pub fn schedule(&self, name: &str) -> Arc<ScheduleMeters> {
        let result = |result: RunResult| self.schedule_runs.with_label_values(&[name, result.label()]);
        Arc::new(ScheduleMeters {
            runs: CallResult::ALL.map(|ran| result(RunResult::Ran(ran))),
            skipped: result(RunResult::Skipped),
        })
    }

    /// Removes the children of a schedule.
    pub fn forget_schedule(&self, name: &str) {
        let ran = CallResult::ALL.iter().map(|result| RunResult::Ran(*result));
        ran.chain([RunResult::Skipped]).for_each(|result| forget(&self.schedule_runs, &[name, result.label()]));
    }

    /// Handles for reloads of the configuration.
    pub fn config(&self) -> ConfigMeters {
        self.config.clone()
    }

    /// Handles for the store.
    pub fn store(&self) -> Arc<StoreMeters> {
        Arc::clone(&self.store)
    }

    /// Handles for the admin plane. Its children appear at once, with zeros.
    pub fn admin(&self) -> AdminMeters {
        AdminMeters { refused: AdminRefusal::ALL.map(|reason| self.admin_refused.with_label_values(&[reason.label()])) }
    }

    /// The timestamp gauge of one subscription.
    pub fn subscription(&self, broker: &str, subscription: &str) -> prometheus::Gauge {
        self.subscription_last_message.with_label_values(&[broker, subscription])
    }

    /// Handles for one handler. Its children appear at once, with zeros.
    pub fn handler(&self, name: &str) -> Arc<HandlerMeters> {
        Arc::new(HandlerMeters {
            calls: CallResult::ALL.map(|result| self.handler_calls.with_label_values(&[name, result.label()])),
            duration: self.handler_duration.with_label_values(&[name]),
            end_to_end: self.end_to_end.with_label_values(&[name]),
            queue: self.handler_queue.with_label_values(&[name]),
            retries: self.handler_retries.with_label_values(&[name]),
            retrying: self.handler_retrying.with_label_values(&[name]),
            instances: self.handler_instances.with_label_values(&[name]),
            conflicts: self.handler_conflicts.with_label_values(&[name]),
            reloads: ReloadResult::ALL.map(|result| self.handler_reloads.with_label_values(&[name, result.label()])),
            paused: self.handler_paused.with_label_values(&[name]),
            quarantined: self.handler_quarantined.with_label_values(&[name]),
            threads_stuck: self.handler_threads_stuck.with_label_values(&[name]),
            parked_messages: self.handler_parked_messages.with_label_values(&[name]),
            parked_bytes: self.handler_parked_bytes.with_label_values(&[name]),
            park_full: self.handler_park_full.with_label_values(&[name]),
            dead_letters: Reason::ALL.map(|reason| self.dead_letters.with_label_values(&[name, reason.label()])),
            dead_letters_dropped: self.dead_letters_dropped.with_label_values(&[name]),
        })
    }

    /// Handles for what one handler remembers, which may be there without the handler.
    pub fn kv(&self, handler: &str) -> KvMeters {
        KvMeters {
            keys: self.kv_keys.with_label_values(&[handler]),
            bytes: self.kv_bytes.with_label_values(&[handler]),
        }
    }

    /// Removes the children of what a handler remembered.
    pub fn forget_kv(&self, handler: &str) {
        forget(&self.kv_keys, &[handler]);
        forget(&self.kv_bytes, &[handler]);
    }

    /// Removes the children of a broker, its subscriptions' included. Called once its session has ended: handles that are
    /// still held count into the void, but for the certificates of a connection, which would appear anew. Handles that are
    /// made later start at zero.
    pub fn forget_broker(&self, name: &str) {
        for family in [&self.broker_sessions_lost, &self.broker_session_write_errors] {
            forget(family, &[name]);
        }
        ConnectResult::ALL.iter().for_each(|result| forget(&self.broker_connects, &[name, result.label()]));
        DisconnectReason::ALL.iter().for_each(|reason| forget(&self.broker_disconnects, &[name, reason.label()]));
        Qos::ALL.iter().for_each(|qos| {
            forget(&self.received, &[name, qos.label()]);
            forget(&self.published, &[name, qos.label()]);
        });
        Outcome::ALL.iter().for_each(|outcome| forget(&self.finished, &[name, outcome.label()]));
        DropReason::ALL.iter().for_each(|reason| forget(&self.outbox_dropped, &[name, reason.label()]));
        for family in [&self.broker_connected, &self.in_progress, &self.outbox_messages, &self.outbox_bytes] {
            forget(family, &[name]);
        }
        for family in [&self.outbox_max_messages, &self.outbox_max_bytes, &self.outbox_waiting] {
            forget(family, &[name]);
        }
        forget(&self.broker_ack_stalled, &[name]);
        Holder::ALL.iter().for_each(|holder| forget(&self.certificate_expiry, &[name, holder.label()]));
        self.subscriptions_of(name).iter().for_each(|subscription| self.forget_subscription(name, subscription));
    }

    /// Removes the child of a subscription.
    pub fn forget_subscription(&self, broker: &str, subscription: &str) {
        forget(&self.subscription_last_message, &[broker, subscription]);
    }

    /// Removes the children of a handler, once its runners have ended.
    pub fn forget_handler(&self, name: &str) {
        CallResult::ALL.iter().for_each(|result| forget(&self.handler_calls, &[name, result.label()]));
        ReloadResult::ALL.iter().for_each(|result| forget(&self.handler_reloads, &[name, result.label()]));
        Reason::ALL.iter().for_each(|reason| forget(&self.dead_letters, &[name, reason.label()]));
        forget(&self.dead_letters_dropped, &[name]);
        for family in [&self.handler_duration, &self.end_to_end] {
            forget(family, &[name]);
        }
        forget(&self.handler_retries, &[name]);
        forget(&self.handler_conflicts, &[name]);
        for family in [&self.handler_queue, &self.handler_retrying, &self.handler_instances] {
            forget(family, &[name]);
        }
        for family in
            [&self.handler_paused, &self.handler_quarantined, &self.handler_park_full, &self.handler_threads_stuck]
        {
            forget(family, &[name]);
        }
        for family in [&self.handler_parked_messages, &self.handler_parked_bytes] {
            forget(family, &[name]);
        }
    }

    fn subscriptions_of(&self, broker: &str) -> Vec<String> {
        let families = self.subscription_last_message.collect();
        let samples = families.iter().flat_map(|family| family.get_metric());
        let subscription = |sample: &prometheus::proto::Metric| {
            let label =
                |name: &str| sample.get_label().iter().find(|pair| pair.name() == name).map(|pair| pair.value());
            label("subscription").filter(|_| label("broker") == Some(broker)).map(str::to_owned)
        };
        samples.filter_map(subscription).collect()
    }

    /// The text exposition format, version 0.0.4.
    ///
    /// # Errors
    /// A family cannot be encoded.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(page)
    }
}

/// Handles for what one handler remembers.
pub struct KvMeters {
    /// Keys.
    pub keys: IntGauge,
    /// As they count towards the quota.
    pub bytes: IntGauge,
}

/// Removes one child. That there is none to take away is no error.
fn forget<T: MetricVecBuilder>(family: &MetricVec<T>, labels: &[&str]) {
    drop(family.remove_label_values(labels));
}

/// Makes families in one registry, all with the prefix `tidegate_`.
struct Families {
    registry: Registry,
}

impl Families {
    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("tidegate")
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let family = IntCounterVec::new(Self::opts(name, help), labels)?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let family = IntGaugeVec::new(Self::opts(name, help), labels)?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// One gauge, without labels.
    fn single(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::with_opts(Self::opts(name, help))?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        let family = GaugeVec::new(Self::opts(name, help), labels)?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(SECONDS.to_vec());
        let family = HistogramVec::new(opts, &["handler"])?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn build_info(&self) -> Result<(), prometheus::Error> {
        let opts = Self::opts("build_info", "1, with the version as a label.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let gauge = IntGauge::with_opts(opts)?;
        gauge.set(1);
        self.registry.register(Box::new(gauge))
    }
}

/// How an attempt to connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectResult {
    /// CONNACK with success.
    Accepted,
    /// CONNACK with a refusal: credentials, client identifier, quota.
    Refused,
    /// No CONNACK: unreachable, reset, no answer in time, not MQTT.
    Failed,
}

impl ConnectResult {
    /// All results, in the order of [`BrokerMeters::connects`].
    pub const ALL: [ConnectResult; 3] = [ConnectResult::Accepted, ConnectResult::Refused, ConnectResult::Failed];

    /// The value of the label `result`.
    pub fn label(self) -> &'static str {
        match self {
            ConnectResult::Accepted => "accepted",
            ConnectResult::Refused => "refused",
            ConnectResult::Failed => "failed",
        }
    }
}

/// Why a connection ended that the broker had accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The broker closed it without a word.
    Closed,
    /// The broker or the network reset it.
    Reset,
    /// The broker's DISCONNECT, with another reason than those below.
    Disconnected,
    /// Another client with the same client identifier.
    TakenOver,
    /// No PINGRESP.
    KeepAlive,
    /// A write did not end.
    WriteStuck,
    /// No SUBACK or UNSUBACK.
    SubscribeUnanswered,
    /// No acknowledgement of a publish.
    PublishUnanswered,
    /// A packet beyond `max-packet` came.
    PacketTooLarge,
    /// More unacknowledged messages came than there is memory for.
    ReceiveWindow,
    /// The broker broke the protocol.
    Protocol,
    /// Another failure of the network.
    Network,
    /// A defect of the gateway.
    Defect,
    /// The gateway stopped.
    Stopped,
}

impl DisconnectReason {
    /// All reasons, in the order of [`BrokerMeters::disconnects`].
    pub const ALL: [DisconnectReason; 14] = [
        DisconnectReason::Closed,
        DisconnectReason::Reset,
        DisconnectReason::Disconnected,
        DisconnectReason::TakenOver,
        DisconnectReason::KeepAlive,
        DisconnectReason::WriteStuck,
        DisconnectReason::SubscribeUnanswered,
        DisconnectReason::PublishUnanswered,
        DisconnectReason::PacketTooLarge,
        DisconnectReason::ReceiveWindow,
        DisconnectReason::Protocol,
        DisconnectReason::Network,
        DisconnectReason::Defect,
        DisconnectReason::Stopped,
    ];

    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            DisconnectReason::Closed => "closed",
            DisconnectReason::Reset => "reset",
            DisconnectReason::Disconnected => "disconnected",
            DisconnectReason::TakenOver => "taken_over",
            DisconnectReason::KeepAlive => "keep_alive",
            DisconnectReason::WriteStuck => "write_stuck",
            DisconnectReason::SubscribeUnanswered => "subscribe_unanswered",
            DisconnectReason::PublishUnanswered => "publish_unanswered",
            DisconnectReason::PacketTooLarge => "packet_too_large",
            DisconnectReason::ReceiveWindow => "receive_window",
            DisconnectReason::Protocol => "protocol",
            DisconnectReason::Network => "network",
            DisconnectReason::Defect => "defect",
            DisconnectReason::Stopped => "stopped",
        }
    }
}

/// What is counted for one broker. Written by its session, its router and its messages' receipts.
pub struct BrokerMeters {
    /// 1 while connected.
    pub connected: IntGauge,
    /// By [`ConnectResult`].
    connects: [IntCounter; ConnectResult::ALL.len()],
    /// By [`DisconnectReason`].
    disconnects: [IntCounter; DisconnectReason::ALL.len()],
    /// Seconds since the oldest unacknowledged message came.
    pub ack_stalled: prometheus::Gauge,
    /// Sessions that the broker was to keep and has not.
    pub sessions_lost: IntCounter,
    /// Failed writes of the record of the session's subscriptions.
    pub session_write_errors: IntCounter,
    /// By QoS.
    received: [IntCounter; 3],
    /// By [`Outcome`].
    finished: [IntCounter; Outcome::ALL.len()],
    /// Received minus finished.
    pub in_progress: IntGauge,
    /// By QoS.
    published: [IntCounter; 3],
    /// Messages in the outbox.
    pub outbox_messages: IntGauge,
    /// Bytes in the outbox.
    pub outbox_bytes: IntGauge,
    outbox_max_messages: IntGauge,
    outbox_max_bytes: IntGauge,
    /// Calls and commands that wait for room in the outbox.
    pub outbox_waiting: IntGauge,
    /// By [`Reason`].
    outbox_dropped: [IntCounter; DropReason::ALL.len()],
    /// The whole family: only brokers with TLS have children, by what their connections show.
    certificate_expiry: GaugeVec,
    name: String,
}

impl BrokerMeters {
    /// Counts an attempt to connect.
    pub fn connect(&self, result: ConnectResult) {
        self.connects[result as usize].inc();
    }

    /// Counts the end of a connection.
    pub fn disconnect(&self, reason: DisconnectReason) {
        self.disconnects[reason as usize].inc();
    }

    /// Counts a message taken in; it is in progress from now on.
    pub fn received(&self, qos: Qos) {
        self.in_progress.inc();
        self.received[qos as usize].inc();
    }

    /// Counts a message's end.
    pub fn finished(&self, outcome: Outcome) {
        self.finished[outcome as usize].inc();
        self.in_progress.dec();
    }

    /// Notes when a certificate of the latest connection expires; none if it has no such certificate.
    pub fn certificate_expires(&self, certificate: Holder, end: Option<SystemTime>) {
        let labels = [self.name.as_str(), certificate.label()];
        match end.and_then(|end| end.duration_since(UNIX_EPOCH).ok()) {
            Some(end) => self.certificate_expiry.with_label_values(&labels).set(end.as_secs_f64()),
            None => forget(&self.certificate_expiry, &labels),
        }
    }

    /// Counts a delivered publish.
    pub fn published(&self, qos: Qos) {
        self.published[qos as usize].inc();
    }

    /// Notes what the outbox may hold.
    pub fn outbox_limits(&self, messages: usize, bytes: usize) {
        self.outbox_max_messages.set(messages as i64);
        self.outbox_max_bytes.set(bytes as i64);
    }

    /// Counts publishes that the outbox dropped.
    pub fn outbox_dropped(&self, reason: DropReason, publishes: u64) {
        self.outbox_dropped[reason as usize].inc_by(publishes);
    }

    /// What was counted so far. While messages flow the numbers may be of slightly different times.
    pub fn counts(&self) -> BrokerCounts {
        BrokerCounts {
            received: self.received.iter().map(IntCounter::get).sum(),
            published: self.published.iter().map(IntCounter::get).sum(),
            finished: Outcome::ALL.map(|outcome| (outcome, self.finished[outcome as usize].get())),
            in_progress: u64::try_from(self.in_progress.get()).unwrap_or_default(),
        }
    }
}

/// What was counted for one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerCounts {
    /// Messages taken in.
    pub received: u64,
    /// Messages delivered to it.
    pub published: u64,
    /// Messages that reached their end, by outcome in order of severity.
    pub finished: [(Outcome, u64); Outcome::ALL.len()],
    /// Received and not finished.
    pub in_progress: u64,
}

/// What came of a version that a handler was to run, as the metric label `result` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// It runs.
    Ok,
    /// It does not load, start or export what it is called for.
    Refused,
    /// It failed on trial.
    RolledBack,
    /// It could not be kept for a restart, and does not run for that.
    Failed,
}

impl ReloadResult {
    /// All results, in the order of their declaration.
    pub const ALL: [ReloadResult; 4] =
        [ReloadResult::Ok, ReloadResult::Refused, ReloadResult::RolledBack, ReloadResult::Failed];

    /// The value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            ReloadResult::Ok => "ok",
            ReloadResult::Refused => "refused",
            ReloadResult::RolledBack => "rolled_back",
            ReloadResult::Failed => "failed",
        }
    }
}

/// What is counted for one handler. Written by its queue and its instances' tasks.
pub struct HandlerMeters {
    /// By [`CallResult`].
    calls: [IntCounter; CallResult::ALL.len()],
    /// Seconds in the call.
    pub duration: Histogram,
    /// Seconds from arrival until the outcome is safe.
    pub end_to_end: Histogram,
    /// Messages waiting.
    pub queue: IntGauge,
    /// Calls that failed and are made again.
    pub retries: IntCounter,
    /// Messages waiting for that.
    pub retrying: IntGauge,
    /// Instances ready to be called.
    pub instances: IntGauge,
    /// Calls that are run again at once, because another changed what they read.
    pub conflicts: IntCounter,
    /// By [`ReloadResult`].
    reloads: [IntCounter; ReloadResult::ALL.len()],
    paused: IntGauge,
    quarantined: IntGauge,
    /// Threads that hang in its native code.
    pub threads_stuck: IntGauge,
    parked_messages: IntGauge,
    parked_bytes: IntGauge,
    park_full: IntGauge,
    /// By [`Reason`].
    dead_letters: [IntCounter; Reason::ALL.len()],
    /// Those that could not be kept.
    dead_letters_dropped: IntCounter,
}

impl HandlerMeters {
    /// Counts a call.
    pub fn call(&self, result: CallResult) {
        self.calls[result as usize].inc();
    }

    /// Counts a version that the handler was to run.
    pub fn reload(&self, result: ReloadResult) {
        self.reloads[result as usize].inc();
    }

    /// Whether the handler is paused by command, and whether it is quarantined.
    pub fn paused(&self, paused: bool, quarantined: bool) {
        self.paused.set(i64::from(paused));
        self.quarantined.set(i64::from(quarantined));
    }

    /// So many messages of so many bytes are parked; whether there is no room for more.
    pub fn parked(&self, messages: u64, bytes: u64, full: bool) {
        self.parked_messages.set(i64::try_from(messages).unwrap_or(i64::MAX));
        self.parked_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.park_full.set(i64::from(full));
    }

    /// Messages that are parked, and whether there is no room for more.
    #[cfg(test)]
    pub fn counts_parked(&self) -> (i64, bool) {
        (self.parked_messages.get(), self.park_full.get() == 1)
    }

    /// Counts a dead letter that is safe.
    pub fn dead_letter(&self, reason: Reason) {
        self.dead_letters[reason as usize].inc();
    }

    /// Counts a dead letter that could not be kept.
    pub fn dead_letter_dropped(&self) {
        self.dead_letters_dropped.inc();
    }

    /// Dead letters so far by reason, in the order of [`Reason::ALL`].
    pub fn dead_letters(&self) -> [(Reason, u64); Reason::ALL.len()] {
        Reason::ALL.map(|reason| (reason, self.dead_letters[reason as usize].get()))
    }

    /// Dead letters so far that could not be kept.
    pub fn dead_letters_dropped(&self) -> u64 {
        self.dead_letters_dropped.get()
    }

    /// Calls so far by result, in the order of [`CallResult::ALL`].
    pub fn calls(&self) -> [(CallResult, u64); CallResult::ALL.len()] {
        CallResult::ALL.map(|result| (result, self.calls[result as usize].get()))
    }
}

/// Handles for the dead letters that are kept on the disk.
#[derive(Clone)]
pub struct DeadLetterStoreMeters {
    messages: IntGauge,
    bytes: IntGauge,
}

impl DeadLetterStoreMeters {
    /// So many messages of so many bytes are kept.
    pub fn holds(&self, messages: u64, bytes: u64) {
        self.messages.set(i64::try_from(messages).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Handles for reloads of the configuration.
#[derive(Clone)]
pub struct ConfigMeters {
    successful: IntGauge,
    timestamp: IntGauge,
}

impl ConfigMeters {
    /// The configuration that runs was read at this time.
    pub fn reloaded(&self, time: SystemTime) {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.timestamp.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        self.successful.set(1);
    }

    /// It was to be read again, and nothing has changed.
    pub fn failed(&self) {
        self.successful.set(0);
    }
}

/// What is counted for one schedule. Written by its record.
pub struct ScheduleMeters {
    /// By [`CallResult`].
    runs: [IntCounter; CallResult::ALL.len()],
    skipped: IntCounter,
}

impl ScheduleMeters {
    /// Counts a run that was made.
    pub fn ran(&self, result: CallResult) {
        self.runs[result as usize].inc();
    }

    /// Counts runs that were not made.
    pub fn skipped(&self, runs: u64) {
        self.skipped.inc_by(runs);
    }
}

/// Why the admin plane does not let a request in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminRefusal {
    /// Its token is not the right one.
    WrongToken,
    /// It brings none.
    TokenMissing,
    /// A token is needed, and none is configured.
    NoToken,
    /// A page of another site is behind it.
    CrossSite,
    /// Its Host is a name that anyone could make lead here.
    Host,
}

impl AdminRefusal {
    /// All reasons, in the order of [`AdminMeters::refused`].
    pub const ALL: [AdminRefusal; 5] = [
        AdminRefusal::WrongToken,
        AdminRefusal::TokenMissing,
        AdminRefusal::NoToken,
        AdminRefusal::CrossSite,
        AdminRefusal::Host,
    ];

    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            AdminRefusal::WrongToken => "wrong_token",
            AdminRefusal::TokenMissing => "token_missing",
            AdminRefusal::NoToken => "no_token",
            AdminRefusal::CrossSite => "cross_site",
            AdminRefusal::Host => "host",
        }
    }
}

/// What is counted for the admin plane. Written by its gate.
pub struct AdminMeters {
    /// By [`AdminRefusal`].
    refused: [IntCounter; AdminRefusal::ALL.len()],
}

impl AdminMeters {
    /// Counts a request that is not let in.
    pub fn refused(&self, reason: AdminRefusal) {
        self.refused[reason as usize].inc();
    }
}

#[cfg(test)]
mod tests;
