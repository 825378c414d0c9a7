//! What is counted for brokers: their connections, messages and subscriptions.
//!
//! Owns these families and the handles to one broker's children, which its session, its router and its messages' receipts write. What
//! its outbox writes is in `outbox.rs`, what the labels of connections say in `connection.rs`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::connection::{ConnectResult, DisconnectReason};
use super::families::{Families, forget};
use super::outbox::{OutboxFamilies, OutboxMeters};
use crate::message::Qos;
use crate::path::receipt::Outcome;
use crate::path::session::Holder;

/// The families that have a broker's name as a label.
pub(super) struct BrokerFamilies {
    connected: IntGaugeVec,
    connects: IntCounterVec,
    disconnects: IntCounterVec,
    ack_stalled: GaugeVec,
    sessions_lost: IntCounterVec,
    session_write_errors: IntCounterVec,
    received: IntCounterVec,
    finished: IntCounterVec,
    in_progress: IntGaugeVec,
    published: IntCounterVec,
    subscription_last_message: GaugeVec,
    certificate_expiry: GaugeVec,
    outbox: OutboxFamilies,
}

impl BrokerFamilies {
    pub(super) fn new(families: &Families) -> prometheus::Result<BrokerFamilies> {
        Ok(BrokerFamilies {
            connected: families.gauge("broker_connected", "1 while the session is connected.", &["broker"])?,
            connects: families.counter(
                "broker_connects_total",
                "Connection attempts by result.",
                &["broker", "result"],
            )?,
            disconnects: families.counter(
                "broker_disconnects_total",
                "Connections that ended after the broker had accepted them, by reason.",
                &["broker", "reason"],
            )?,
            ack_stalled: families.seconds(
                "broker_ack_stalled_seconds",
                "Age of the oldest received message that is not acknowledged yet.",
                &["broker"],
            )?,
            sessions_lost: families.counter(
                "broker_sessions_lost_total",
                "Sessions that the broker was to keep and has not.",
                &["broker"],
            )?,
            session_write_errors: families.counter(
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
            certificate_expiry: families.seconds(
                "tls_certificate_expiry_timestamp_seconds",
                "When a certificate of the latest TLS connection expires, in Unix time.",
                &["broker", "certificate"],
            )?,
            outbox: OutboxFamilies::new(families)?,
        })
    }

    pub(super) fn meters(&self, name: &str) -> Arc<BrokerMeters> {
        let qos = |family: &IntCounterVec| Qos::ALL.map(|qos| family.with_label_values(&[name, qos.label()]));
        Arc::new(BrokerMeters {
            connected: self.connected.with_label_values(&[name]),
            connects: ConnectResult::ALL.map(|result| self.connects.with_label_values(&[name, result.label()])),
            disconnects: DisconnectReason::ALL
                .map(|reason| self.disconnects.with_label_values(&[name, reason.label()])),
            ack_stalled: self.ack_stalled.with_label_values(&[name]),
            sessions_lost: self.sessions_lost.with_label_values(&[name]),
            session_write_errors: self.session_write_errors.with_label_values(&[name]),
            received: qos(&self.received),
            finished: Outcome::ALL.map(|outcome| self.finished.with_label_values(&[name, outcome.label()])),
            in_progress: self.in_progress.with_label_values(&[name]),
            published: qos(&self.published),
            outbox: self.outbox.meters(name),
            certificate_expiry: self.certificate_expiry.clone(),
            name: name.to_owned(),
        })
    }

    pub(super) fn forget(&self, name: &str) {
        for family in [&self.sessions_lost, &self.session_write_errors] {
            forget(family, &[name]);
        }
        ConnectResult::ALL.iter().for_each(|result| forget(&self.connects, &[name, result.label()]));
        DisconnectReason::ALL.iter().for_each(|reason| forget(&self.disconnects, &[name, reason.label()]));
        Qos::ALL.iter().for_each(|qos| {
            forget(&self.received, &[name, qos.label()]);
            forget(&self.published, &[name, qos.label()]);
        });
        Outcome::ALL.iter().for_each(|outcome| forget(&self.finished, &[name, outcome.label()]));
        for family in [&self.connected, &self.in_progress] {
            forget(family, &[name]);
        }
        forget(&self.ack_stalled, &[name]);
        Holder::ALL.iter().for_each(|holder| forget(&self.certificate_expiry, &[name, holder.label()]));
        self.outbox.forget(name);
        self.subscriptions_of(name).iter().for_each(|subscription| self.forget_subscription(name, subscription));
    }

    /// The timestamp of a subscription's last message.
    pub(super) fn subscription(&self, broker: &str, subscription: &str) -> Gauge {
        self.subscription_last_message.with_label_values(&[broker, subscription])
    }

    pub(super) fn forget_subscription(&self, broker: &str, subscription: &str) {
        forget(&self.subscription_last_message, &[broker, subscription]);
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
    pub ack_stalled: Gauge,
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
    /// What waits to be published.
    pub outbox: OutboxMeters,
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
