//! The way of a message, in the order of the folders.
//!
//! ```text
//!         broker                                                                      broker
//!           │                                                                           ▲
//!           ▼                                                                           │
//!   session (poller) ──▶ router ──▶ dispatch ──▶ handler ──▶ outbox ──▶ session (feeder)
//!           ▲                       queues       instances     │
//!           └────────────── receipt: acknowledge in order ◀────┘
//! ```
//! Each arrow is a call that does not wait, but for two: an instance waits for a job, and for room in the outboxes.

pub mod dead_letter;
pub mod dispatch;
pub mod handler;
pub mod kept;
pub mod kv;
pub mod outbox;
pub mod park;
pub mod receipt;
pub mod router;
pub mod schedule;
pub mod session;
