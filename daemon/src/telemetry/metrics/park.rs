//! What is counted for paused and quarantined handlers: that they are, and what waits for them.
//!
//! Owns these families and the handles to one handler's children. Written by its park.

use prometheus::{IntGauge, IntGaugeVec};

use super::families::{Families, forget};

/// The families of parks.
pub(super) struct ParkFamilies {
    paused: IntGaugeVec,
    quarantined: IntGaugeVec,
    messages: IntGaugeVec,
    bytes: IntGaugeVec,
    full: IntGaugeVec,
}

impl ParkFamilies {
    pub(super) fn new(families: &Families) -> prometheus::Result<ParkFamilies> {
        Ok(ParkFamilies {
            paused: families.gauge("handler_paused", "1 while the handler is paused by command.", &["handler"])?,
            quarantined: families.gauge(
                "handler_quarantined",
                "1 while the handler is left alone because it failed.",
                &["handler"],
            )?,
            messages: families.gauge(
                "handler_parked_messages",
                "Messages on the disk that the handler gets later.",
                &["handler"],
            )?,
            bytes: families.gauge("handler_parked_bytes", "Bytes of these.", &["handler"])?,
            full: families.gauge(
                "handler_park_full",
                "1 while a message waits to be parked for which there is no room.",
                &["handler"],
            )?,
        })
    }

    pub(super) fn meters(&self, handler: &str) -> ParkMeters {
        ParkMeters {
            paused: self.paused.with_label_values(&[handler]),
            quarantined: self.quarantined.with_label_values(&[handler]),
            messages: self.messages.with_label_values(&[handler]),
            bytes: self.bytes.with_label_values(&[handler]),
            full: self.full.with_label_values(&[handler]),
        }
    }

    pub(super) fn forget(&self, handler: &str) {
        for family in [&self.paused, &self.quarantined, &self.messages, &self.bytes, &self.full] {
            forget(family, &[handler]);
        }
    }
}

/// What is counted for one handler's park.
pub struct ParkMeters {
    paused: IntGauge,
    quarantined: IntGauge,
    messages: IntGauge,
    bytes: IntGauge,
    full: IntGauge,
}

impl ParkMeters {
    /// Whether the handler is paused by command, and whether it is quarantined.
    pub fn paused(&self, paused: bool, quarantined: bool) {
        self.paused.set(i64::from(paused));
        self.quarantined.set(i64::from(quarantined));
    }

    /// So many messages of so many bytes are parked; whether there is no room for more.
    pub fn holds(&self, messages: u64, bytes: u64, full: bool) {
        self.messages.set(i64::try_from(messages).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.full.set(i64::from(full));
    }

    /// Messages that are parked, and whether there is no room for more.
    #[cfg(test)]
    pub fn counts(&self) -> (i64, bool) {
        (self.messages.get(), self.full.get() == 1)
    }
}
