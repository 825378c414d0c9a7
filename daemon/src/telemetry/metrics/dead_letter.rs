//! What is counted for the dead-letter store: what it holds.
//!
//! Owns these families and the handles to them. Written by `path/kept/`; how many dead letters a handler makes is in `handler.rs`.

use prometheus::IntGauge;

use super::families::Families;

/// Handles for the dead letters that are kept on the disk.
#[derive(Clone)]
pub struct DeadLetterStoreMeters {
    messages: IntGauge,
    bytes: IntGauge,
}

impl DeadLetterStoreMeters {
    pub(super) fn new(families: &Families) -> prometheus::Result<DeadLetterStoreMeters> {
        Ok(DeadLetterStoreMeters {
            messages: families.single("dead_letter_store_messages", "Dead letters that are kept on the disk.")?,
            bytes: families.single("dead_letter_store_bytes", "Bytes of these.")?,
        })
    }

    /// So many messages of so many bytes are kept.
    pub fn holds(&self, messages: u64, bytes: u64) {
        self.messages.set(i64::try_from(messages).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
