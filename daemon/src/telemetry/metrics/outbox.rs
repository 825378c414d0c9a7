//! What is counted for outboxes: what waits in them, what may, and what they dropped.
//!
//! Owns these families and the handles to one broker's children. Written by its outbox.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::{Families, forget};
use crate::path::outbox::DropReason;

/// The families of outboxes.
pub(super) struct OutboxFamilies {
    messages: IntGaugeVec,
    bytes: IntGaugeVec,
    max_messages: IntGaugeVec,
    max_bytes: IntGaugeVec,
    waiting: IntGaugeVec,
    dropped: IntCounterVec,
}

impl OutboxFamilies {
    pub(super) fn new(families: &Families) -> prometheus::Result<OutboxFamilies> {
        Ok(OutboxFamilies {
            messages: families.gauge("outbox_messages", "Messages waiting to be delivered.", &["broker"])?,
            bytes: families.gauge("outbox_bytes", "Bytes waiting to be delivered.", &["broker"])?,
            max_messages: families.gauge("outbox_max_messages", "Messages that may wait.", &["broker"])?,
            max_bytes: families.gauge("outbox_max_bytes", "Bytes that may wait.", &["broker"])?,
            waiting: families.gauge(
                "outbox_waiting_calls",
                "Calls and commands that wait for room for what they publish.",
                &["broker"],
            )?,
            dropped: families.counter(
                "outbox_dropped_total",
                "Publishes that the outbox dropped, by reason.",
                &["broker", "reason"],
            )?,
        })
    }

    pub(super) fn meters(&self, broker: &str) -> OutboxMeters {
        OutboxMeters {
            messages: self.messages.with_label_values(&[broker]),
            bytes: self.bytes.with_label_values(&[broker]),
            max_messages: self.max_messages.with_label_values(&[broker]),
            max_bytes: self.max_bytes.with_label_values(&[broker]),
            waiting: self.waiting.with_label_values(&[broker]),
            dropped: DropReason::ALL.map(|reason| self.dropped.with_label_values(&[broker, reason.label()])),
        }
    }

    pub(super) fn forget(&self, broker: &str) {
        for family in [&self.messages, &self.bytes, &self.max_messages, &self.max_bytes, &self.waiting] {
            forget(family, &[broker]);
        }
        DropReason::ALL.iter().for_each(|reason| forget(&self.dropped, &[broker, reason.label()]));
    }
}

/// What is counted for one broker's outbox.
pub struct OutboxMeters {
    /// Messages in it.
    pub messages: IntGauge,
    /// Bytes in it.
    pub bytes: IntGauge,
    max_messages: IntGauge,
    max_bytes: IntGauge,
    /// Calls and commands that wait for room in it.
    pub waiting: IntGauge,
    /// By [`DropReason`].
    dropped: [IntCounter; DropReason::ALL.len()],
}

impl OutboxMeters {
    /// Notes what it may hold.
    pub fn limits(&self, messages: usize, bytes: usize) {
        self.max_messages.set(messages as i64);
        self.max_bytes.set(bytes as i64);
    }

    /// Counts publishes that it dropped.
    pub fn dropped(&self, reason: DropReason, publishes: u64) {
        self.dropped[reason as usize].inc_by(publishes);
    }
}
