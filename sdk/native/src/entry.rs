//! The way from the daemon's calls to the functions that the author wrote.
//!
//! Owns: the plugin's table, the state of each instance, and the line that no panic crosses. Fed by the daemon; calls the author's code. One
//! state is one started handler, as the SDK makes it of every form of `handler!`.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use tidegate_abi::{
    self as abi, ANY_DELAY, Bytes, Call, Host, Message, MessageView, Plugin, Run, RunView, Status, read,
};
use tidegate_sdk::__private::{Call as Work, Running, Start, native, whole_millis};

use crate::call::{self, current, function};
use crate::convert::{self, Unreadable};
use crate::daemon::Native;
use crate::{Error, Result, reject};

/// What [`handler!`](crate::handler!) makes of the author's functions.
pub trait Handler {
    /// Starts an instance.
    const START: Start;
    /// Whether it handles messages.
    const ON_MESSAGE: bool;
    /// Whether it runs on a schedule.
    const ON_SCHEDULE: bool;
    /// The crate's name.
    const NAME: &'static str;
    /// The crate's version.
    const VERSION: &'static str;
}

/// The table of a handler, at one place for each.
struct Table<H>(H);

impl<H: Handler> Table<H> {
    const TABLE: &'static Plugin = &Plugin {
        size: size_of::<Plugin>() as u32,
        minor: abi::MINOR,
        name: Bytes::of_text(H::NAME),
        version: Bytes::of_text(H::VERSION),
        create: Some(create::<H>),
        on_message: if H::ON_MESSAGE { Some(on_message) } else { None },
        on_schedule: if H::ON_SCHEDULE { Some(on_schedule) } else { None },
        destroy: Some(destroy),
    };
}

/// The entry point of a library with this handler; null where the daemon's table is not what version 1.0 has.
///
/// # Safety
/// As `sdk/c/tidegate.h` says: the table lives as long as the process.
pub unsafe fn enter<H: Handler>(host: *const Host) -> *const Plugin {
    // SAFETY: as asked of the caller.
    let Ok(host) = (unsafe { read(host) }) else { return std::ptr::null() };
    if !call::keep(host) {
        return std::ptr::null();
    }
    native::install(&Native);
    hear_panics();
    Table::<H>::TABLE
}

/// Begins an instance.
///
/// # Safety
/// As `sdk/c/tidegate.h` says of `create`.
unsafe extern "C" fn create<H: Handler>(call: *mut Call, state: *mut *mut c_void) -> Status {
    let work = || {
        native::begin();
        let running: Running = (H::START)().map_err(reject)?;
        let running = Box::into_raw(Box::new(running));
        // SAFETY: the daemon gives room for the state.
        unsafe { state.write(running.cast()) };
        Ok(())
    };
    // SAFETY: the call is the one that this callback was given.
    unsafe { guard(call, work) }
}

/// Handles a message.
///
/// # Safety
/// As `sdk/c/tidegate.h` says of `on_message`.
unsafe extern "C" fn on_message(state: *mut c_void, call: *mut Call, message: *const Message) -> Status {
    let work = || {
        // SAFETY: it is the daemon's until the callback returns, and is copied.
        let view = unsafe { MessageView::of(message) }.map_err(|fault| Unreadable::Fault("message", fault));
        let message = view.and_then(convert::message).map_err(|unreadable| reject(unreadable.to_string()))?;
        // SAFETY: `create` made the state, and no other call has it now.
        let running = unsafe { &mut *state.cast::<Running>() };
        running(Work::Message(&message))
    };
    // SAFETY: the call is the one that this callback was given.
    unsafe { guard(call, work) }
}

/// Does what a schedule asks for.
///
/// # Safety
/// As `sdk/c/tidegate.h` says of `on_schedule`.
unsafe extern "C" fn on_schedule(state: *mut c_void, call: *mut Call, run: *const Run) -> Status {
    let work = || {
        // SAFETY: it is the daemon's until the callback returns, and is copied.
        let view = unsafe { RunView::of(run) }.map_err(|fault| Unreadable::Fault("run", fault));
        let due = view.and_then(convert::run).map_err(|unreadable| reject(unreadable.to_string()))?;
        // SAFETY: `create` made the state, and no other call has it now.
        let running = unsafe { &mut *state.cast::<Running>() };
        running(Work::Run(&due))
    };
    // SAFETY: the call is the one that this callback was given.
    unsafe { guard(call, work) }
}

/// Ends an instance.
///
/// # Safety
/// As `sdk/c/tidegate.h` says of `destroy`.
unsafe extern "C" fn destroy(state: *mut c_void) {
    let end = || {
        // SAFETY: `create` made it, and this is its last use.
        drop(unsafe { Box::from_raw(state.cast::<Running>()) });
    };
    // There is no call left to fail: what the author's `drop` panicked with was written to standard error.
    if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(end)) {
        discard(panic);
    }
}

/// Runs a callback's work, and tells the daemon how it ended. Nothing unwinds out of it.
///
/// # Safety
/// The call is the one that the callback was given, on this thread.
unsafe fn guard(call: *mut Call, work: impl FnOnce() -> Result) -> Status {
    let all = move || {
        LAST_PANIC.take();
        match panic::catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => Status::OK,
            Ok(Err(Error::Reject(reason))) => fail(Status::REJECT, &reason, ANY_DELAY),
            Ok(Err(Error::Retry { reason, after })) => {
                // The longest delay is not "any": it gives the message up.
                let after = after.map_or(ANY_DELAY, |after| whole_millis(after).min(ANY_DELAY - 1));
                fail(Status::RETRY, &reason, after)
            }
            Err(panic) => {
                // Before what was panicked with is dropped: that may panic too.
                let words = LAST_PANIC.take().unwrap_or_else(|| "it panicked".to_owned());
                discard(panic);
                fail(Status::PANIC, &words, ANY_DELAY)
            }
        }
    };
    // SAFETY: as asked of the caller.
    unsafe { call::enter(call, all) }
}

/// Gives the words of a failure.
fn fail(status: Status, words: &str, after_ms: u64) -> Status {
    if let Some((functions, call)) = current() {
        let set_error = function!(functions, set_error);
        // SAFETY: the call is in progress on this thread, and the words live until it returns.
        unsafe { set_error(call, Bytes::of_text(words), after_ms) };
    }
    status
}

/// Drops what was panicked with, which may panic too: then it is left behind.
fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

thread_local! {
    /// What the last panic on this thread was, in words; written by the hook, taken by the callback.
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// Has panics of calls told to the daemon, with their place, instead of written to standard error. Each library has a hook of its own.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if current().is_none() {
                return before(panic);
            }
            let at = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
            let reason = panic.payload_as_str().unwrap_or("no reason given");
            LAST_PANIC.set(Some(format!("it panicked{at}: {reason}")));
        }));
    });
}
