//! What is offered on which terms, and what follows from it: the words of admission.
//!
//! Pure data.

use std::sync::Arc;

use super::BatchId;
use crate::message::{BrokerId, Outgoing};
use crate::path::outbox::effects::Touch;
use crate::path::outbox::queue::End;

/// What an offer is to be taken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Where an outbox rejects what finds no room.
    pub mode: Mode,
    /// What is written for its topic goes in the order of coming.
    pub order: Option<Touch>,
    /// It ends with the end of its publishes also where these are on the disk.
    pub followed: bool,
}

/// What an offer does where an outbox rejects what finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is rejected: what is offered can be made again.
    Rejectable,
    /// It waits, for nobody could make it again.
    Patient,
}

/// Which limit of an outbox is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max-messages`, which is so many.
    Messages(usize),
    /// `max-bytes`, which is so many.
    Bytes(usize),
    /// There may be room, but others wait for it.
    Others,
}

/// An outbox that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Whose.
    pub broker: BrokerId,
    /// Why not.
    pub limit: Limit,
}

/// What became of an offered batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Offered<T> {
    /// It is in the outboxes.
    Taken(BatchId),
    /// There is no room; [`Change::Admitted`] comes later.
    Waits(BatchId),
    /// None of its brokers is there: it has ended as purged. What it was offered with.
    Purged(T),
    /// An outbox rejects it. What it was offered with.
    Rejected(T, Full),
}

/// Why an outbox itself dropped an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// It was older than `max-age`.
    Expired,
    /// It made way for a newer one.
    Displaced,
}

impl DropReason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [DropReason; 2] = [DropReason::Expired, DropReason::Displaced];

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            DropReason::Expired => "expired",
            DropReason::Displaced => "displaced",
        }
    }

    /// How an entry ends with it.
    pub(super) fn end(self) -> End {
        match self {
            DropReason::Expired => End::Expired,
            DropReason::Displaced => End::Displaced,
        }
    }
}

/// That an outbox itself dropped an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// It was sent on a connection that is gone: its broker may have it.
    pub tried: bool,
}

/// What follows from a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// A waiting batch waits no more: it is in the outboxes now, or was purged.
    Admitted(BatchId),
    /// A batch found no room in an outbox that does not make any by itself.
    Full(Full),
    /// An outbox dropped an entry. [`Change::Ended`] follows where it was the last of its batch.
    Dropped {
        /// Whose outbox.
        broker: BrokerId,
        /// Of this batch, where that is told.
        batch: Option<BatchId>,
        /// What the entry held.
        message: Arc<Outgoing>,
        /// Why.
        dropped: Dropped,
    },
    /// Every publish of a batch has reached its end.
    Ended {
        /// Which.
        batch: BatchId,
        /// What the batch was offered with.
        tag: T,
        /// The worst end of its publishes.
        worst: End,
        /// The last of them was dropped by an outbox.
        dropped: Option<Dropped>,
    },
}
