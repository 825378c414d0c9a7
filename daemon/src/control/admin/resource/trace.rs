//! What the HTTP API says of a message's way.
//!
//! Owns field names, as its parent does.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::path::router::explain::{Candidate, Verdict};

/// One step on the way of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TraceStep {
    /// Which message: as in `Received`.
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
