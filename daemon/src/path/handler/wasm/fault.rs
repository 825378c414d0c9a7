//! Why a guest did not come back, in plain words.
//!
//! Pure. Fed by wasmtime's errors; feeds the errors of calls and of starts. After any of these the instance is gone.

use std::time::Duration;

use wasmtime::Trap;
use wasmtime_wasi::I32Exit;

use super::limits;
use super::state::State;
use crate::path::handler::Limit;
use crate::path::handler::host::{Host, MAX_WORDS_BYTES};
use crate::printable::printable;

/// The store's epoch callback found that the call deadline has passed.
#[derive(Debug, thiserror::Error)]
#[error("the call deadline passed")]
pub(super) struct DeadlinePassed;

/// A host function that has no error for it stops the guest.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Too much of `random.bytes`.
    #[error("it asked for {asked} random bytes at once, more than {most}")]
    Random {
        /// Bytes.
        asked: u32,
        /// Bytes.
        most: u32,
    },
    /// The operating system has none.
    #[error("the operating system gave no random bytes: {0}")]
    NoRandom(getrandom::Error),
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Did not return within this call deadline.
    Deadline(Duration),
    /// Needs more than these bytes.
    Memory(usize),
    /// Went past another limit.
    Limit(Limit),
    /// Anything else, in plain words.
    Trap(String),
}

impl Fault {
    /// The fault of a call that wasmtime ended with this error.
    pub(super) fn new(error: &wasmtime::Error, state: &State) -> Fault {
        if error.is::<DeadlinePassed>() {
            return Fault::Deadline(state.call.host.call_deadline);
        }
        if let Some(limit) = limit(error, &state.call.host) {
            return Fault::Limit(limit);
        }
        // Guests rarely say what they were refused: most abort.
        if state.limits.refused_memory() {
            return Fault::Memory(state.call.host.max_memory);
        }
        if let Some(limit) = state.limits.refused_tables().or(state.call.exceeded()) {
            return Fault::Limit(limit);
        }
        let mut reason = reason(error);
        if gave_up(error)
            && let Some(words) = state.console.last_words()
        {
            reason = format!("{reason}: {}", state.call.host.words(words.trim_end()));
        }
        Fault::Trap(reason)
    }
}

/// The limit that wasmtime ended a call at, if it did.
fn limit(error: &wasmtime::Error, host: &Host) -> Option<Limit> {
    if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
        return Some(Limit::CallStack(limits::MAX_WASM_STACK));
    }
    // These have no type of their own; tests hold the words.
    let text = error.root_cause().to_string();
    if text.contains("fuel allocated for hostcalls has been exhausted") {
        return Some(Limit::Passed(limits::most_passed(host)));
    }
    let (kind, _) = text.strip_prefix("resource limit exceeded: ")?.split_once(" count too high")?;
    match kind {
        "instance" => Some(Limit::CoreInstances(limits::MAX_INSTANCES)),
        "table" => Some(Limit::Tables(limits::MAX_TABLES)),
        "memory" => Some(Limit::Memories(limits::MAX_MEMORIES)),
        _ => None,
    }
}

/// Whether the guest ended itself, so that what it said last tells why.
fn gave_up(error: &wasmtime::Error) -> bool {
    error.is::<I32Exit>() || error.downcast_ref::<Trap>() == Some(&Trap::UnreachableCodeReached)
}

/// What happened, without the guest's own words.
fn reason(error: &wasmtime::Error) -> String {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return refusal.to_string();
    }
    if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
        return format!("it exited with status {status}");
    }
    if error.root_cause().is::<std::str::Utf8Error>() || error.root_cause().is::<std::string::FromUtf8Error>() {
        return "it passed text to the daemon that is not UTF-8".to_owned();
    }
    match error.downcast_ref::<Trap>() {
        Some(trap) => trap_in_words(*trap),
        // What it passes across the boundary is malformed, or the machine has no room for it: wasmtime's words are plain.
        None => format!("it was stopped: {}", printable(&error.root_cause().to_string(), MAX_WORDS_BYTES)),
    }
}

fn trap_in_words(trap: Trap) -> String {
    match trap {
        Trap::UnreachableCodeReached => "it panicked or aborted".to_owned(),
        Trap::MemoryOutOfBounds => {
            "it accessed memory out of bounds, as by a bad pointer or endless recursion".to_owned()
        }
        Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature => {
            "it called a function through a bad pointer".to_owned()
        }
        Trap::IntegerDivisionByZero => "it divided an integer by zero".to_owned(),
        Trap::IntegerOverflow => "it divided integers with a result out of range".to_owned(),
        Trap::BadConversionToInteger => "it converted a number out of range to an integer".to_owned(),
        Trap::CannotEnterComponent => "it was called again after it had trapped".to_owned(),
        // Wasmtime's text without its prefix.
        other => {
            let text = other.to_string();
            format!("it was stopped: {}", text.strip_prefix("wasm trap: ").unwrap_or(&text))
        }
    }
}
