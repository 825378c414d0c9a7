//! What a handler is called with, and how its call ended: the same for every kind of plugin.
//!
//! Pure words. Made by the runners and by each kind's instances.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::limit::Limit;
use crate::message::{BrokerId, Message};
use crate::path::outbox::NoRoom;
use crate::telemetry::trace::Trace;

/// What a guest is called with.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// To be handled. Native code may keep it for longer than the call may take.
    pub message: &'a Arc<Message>,
    /// The name of the subscription that brought it.
    pub subscription: &'a str,
    /// What the subscription's wildcards matched.
    pub captures: &'a [String],
    /// From 1.
    pub attempt: u32,
    /// Where its publishes are told, if somebody watches the message.
    pub trace: Option<&'a Arc<Trace>>,
}

/// What a guest runs for on a schedule.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// What made it due.
    pub trigger: Trigger,
    /// The schedule's name, or the silent subscription's.
    pub name: &'a str,
    /// When it was due.
    pub due: SystemTime,
}

/// What makes a run due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A schedule.
    Schedule,
    /// Nothing came for a subscription of this broker for as long as its `silence` says.
    Silence(BrokerId),
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
    /// The guest trapped: a panic, a bad memory access. Or there was no room for an instance of it.
    Trap,
    /// It did not return within its call deadline.
    Deadline,
    /// It reached `max-memory`.
    Memory,
    /// It went past another limit: publishes, call stack, tables, core instances.
    Limit,
}

impl CallResult {
    /// All results, in the order of their declaration.
    pub const ALL: [CallResult; 7] = [
        CallResult::Ok,
        CallResult::Reject,
        CallResult::Retry,
        CallResult::Trap,
        CallResult::Deadline,
        CallResult::Memory,
        CallResult::Limit,
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
            CallResult::Limit => "limit",
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
    /// The call deadline passed in native code, which still runs: its thread, and its instance, are left behind.
    #[error(
        "the call took longer than call-deadline = {}, and native code cannot be stopped: its thread is left behind",
        humantime::format_duration(*.0)
    )]
    Stuck(Duration),
    /// The memory limit was reached and the guest gave up; its instance is gone.
    #[error("the handler needs more than max-memory = {0} bytes")]
    Memory(usize),
    /// It went past another limit, whatever it returned; its instance is gone.
    #[error(transparent)]
    Limit(Limit),
    /// There was no instance, since the daemon or the machine has no room for one, whatever it is. In plain words, with what to do.
    #[error("no instance of the handler can be made: {0}")]
    Unavailable(String),
}

impl CallError {
    /// The metric label's value.
    pub fn result(&self) -> CallResult {
        match self {
            CallError::Reject(_) => CallResult::Reject,
            CallError::Retry { .. } | CallError::NoRoom(_) => CallResult::Retry,
            CallError::Trap(_) | CallError::Unavailable(_) => CallResult::Trap,
            CallError::Deadline(_) | CallError::Stuck(_) => CallResult::Deadline,
            CallError::Memory(_) => CallResult::Memory,
            CallError::Limit(_) => CallResult::Limit,
        }
    }

    /// Whether the instance may be called again.
    pub fn keeps_instance(&self) -> bool {
        matches!(self, CallError::Reject(_) | CallError::Retry { .. } | CallError::NoRoom(_))
    }
}

/// What is configured to call a handler is held against its plugin before: a defect of the daemon.
pub(super) fn not_exported(export: &str) -> CallError {
    CallError::Trap(format!("its plugin does not export {export}"))
}

/// Why there is no instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// `init` returned an error: its words.
    #[error("init refused: {0}")]
    Refused(String),
    /// The guest trapped, or the daemon could not make the instance. In plain words.
    #[error("the handler does not start: {0}")]
    Trap(String),
    /// The call deadline passed.
    #[error("init took longer than call-deadline = {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The call deadline passed in native code, which still runs: its thread is left behind.
    #[error(
        "init took longer than call-deadline = {}, and native code cannot be stopped: its thread is left behind",
        humantime::format_duration(*.0)
    )]
    Stuck(Duration),
    /// The memory limit was reached.
    #[error("the handler needs more than max-memory = {0} bytes to start")]
    Memory(usize),
    /// It went past another limit.
    #[error("the handler does not start: {0}")]
    Limit(Limit),
    /// The daemon or the machine has no room for it, whatever it is. In plain words, with what to do.
    #[error("the handler does not start: {0}")]
    Unavailable(String),
    /// No more of it is begun, since too many of its threads hang in native code. In plain words, with what to do.
    #[error("the handler does not start: {0}")]
    LeftBehind(String),
}

impl StartError {
    /// Whether the version is at fault by what it does when it starts, so that it would fail again.
    pub fn blames_the_version(&self) -> bool {
        match self {
            StartError::Refused(_)
            | StartError::Trap(_)
            | StartError::Deadline(_)
            | StartError::Stuck(_)
            | StartError::Memory(_)
            | StartError::Limit(_) => true,
            StartError::Unavailable(_) | StartError::LeftBehind(_) => false,
        }
    }
}
