//! What is counted for what handlers remember.
//!
//! Owns these families and the handles to one handler's children, which may be there without the handler. Written by `path/kv/`.

use prometheus::{IntGauge, IntGaugeVec};

use super::families::{Families, forget};

/// The families of what handlers remember.
pub(super) struct KvFamilies {
    keys: IntGaugeVec,
    bytes: IntGaugeVec,
}

impl KvFamilies {
    pub(super) fn new(families: &Families) -> prometheus::Result<KvFamilies> {
        Ok(KvFamilies {
            keys: families.gauge("kv_keys", "Keys that the handler remembers.", &["handler"])?,
            bytes: families.gauge("kv_bytes", "Bytes that count towards the handler's allow.kv.", &["handler"])?,
        })
    }

    pub(super) fn meters(&self, handler: &str) -> KvMeters {
        KvMeters { keys: self.keys.with_label_values(&[handler]), bytes: self.bytes.with_label_values(&[handler]) }
    }

    pub(super) fn forget(&self, handler: &str) {
        forget(&self.keys, &[handler]);
        forget(&self.bytes, &[handler]);
    }
}

/// Handles for what one handler remembers.
pub struct KvMeters {
    /// Keys.
    pub keys: IntGauge,
    /// As they count towards the quota.
    pub bytes: IntGauge,
}
