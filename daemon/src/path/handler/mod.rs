//! Handlers: configured uses of plugins, and what a call of one gives back.
//!
//! Owns: the vocabulary of calls. `running.rs` makes, replaces and ends a handler; `instance.rs` has its runners, which call
//! the instance of a job's shard, `reruns.rs` the calls that others overtook; `wasm/` is the only place that knows wasmtime. Fed by `path/dispatch`; feeds `path/outbox`.

mod instance;
pub mod needs;
mod parking;
mod reruns;
mod running;
mod runs;
pub mod wasm;

use std::time::Duration;

pub use self::running::{HandlerError, HandlerParts, HandlerView, ReadyHandler, RunningHandler};
pub use self::wasm::Trigger;
use crate::message::{BrokerId, Outgoing};
use crate::path::outbox::NoRoom;

/// A handler's publish, held back until its call has returned ok.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where to.
    pub broker: BrokerId,
    /// What.
    pub message: Outgoing,
}

/// How a call ended, as the metric label `result` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// It returned ok.
    Ok,
    /// The handler says that this message will never work.
    Reject,
    /// The handler asks for a later attempt, or an outbox has no room for what it published.
    Retry,
    /// The guest trapped: a panic, a bad memory access, a stack overflow.
    Trap,
    /// It did not return within its call deadline.
    Deadline,
    /// It reached `max-memory`.
    Memory,
}

impl CallResult {
    /// All results, in the order of their declaration.
    pub const ALL: [CallResult; 6] = [
        CallResult::Ok,
        CallResult::Reject,
        CallResult::Retry,
        CallResult::Trap,
        CallResult::Deadline,
        CallResult::Memory,
    ];

    /// The value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            CallResult::Ok => "ok",
            CallResult::Reject => "reject",
            CallResult::Retry => "retry",
            CallResult::Trap => "trap",
            CallResult::Deadline => "deadline",
            CallResult::Memory => "memory",
        }
    }
}

/// Why a call failed. Its publishes are dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The handler says that this message will never work.
    #[error("the handler rejected the message: {0}")]
    Reject(String),
    /// The handler asks for a later attempt.
    #[error("the handler asks for a retry: {reason}")]
    Retry {
        /// In the handler's words.
        reason: String,
        /// Not before this time; none is the handler's backoff.
        after: Option<Duration>,
    },
    /// It returned ok, and an outbox has no room for what it published: it may have some later.
    #[error("what the handler publishes has no room: {0}")]
    NoRoom(NoRoom),
    /// The guest trapped; its instance is gone. In plain words.
    #[error("the handler trapped: {0}")]
    Trap(String),
    /// The call deadline passed; its instance is gone.
    #[error("the call took longer than call-deadline = {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The memory limit was reached and the guest gave up; its instance is gone.
    #[error("the handler needs more than max-memory = {0} bytes")]
    Memory(usize),
}

impl CallError {
    /// The metric label's value.
    pub fn result(&self) -> CallResult {
        match self {
            CallError::Reject(_) => CallResult::Reject,
            CallError::Retry { .. } | CallError::NoRoom(_) => CallResult::Retry,
            CallError::Trap(_) => CallResult::Trap,
            CallError::Deadline(_) => CallResult::Deadline,
            CallError::Memory(_) => CallResult::Memory,
        }
    }

    /// Whether the instance may be called again.
    pub fn keeps_instance(&self) -> bool {
        matches!(self, CallError::Reject(_) | CallError::Retry { .. } | CallError::NoRoom(_))
    }
}
