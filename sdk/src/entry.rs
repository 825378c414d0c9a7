//! The way from the daemon's calls, `init`, `handle` and `run`, to the functions that the author wrote.
//!
//! Owns: the one started handler of this instance. Fed by the exports that `handler!` makes; calls the author's code. It
//! deliberately knows nothing of the component's types: `wasm.rs` translates, natively the crate `tidegate-native`.

use std::fmt::Display;

use crate::{Message, Result, Run, reject};

/// What the daemon calls for.
#[derive(Clone, Copy)]
pub enum Call<'a> {
    /// A message came.
    Message(&'a Message),
    /// A schedule is due, or a subscription silent.
    Run(&'a Run),
}

/// A handler that has been started: what its calls run.
pub type Running = Box<dyn FnMut(Call<'_>) -> Result>;

/// Starts a handler: runs the author's `init` or makes its state.
pub type Start = fn() -> Result<Running, String>;

/// A handler of messages without state of its own.
pub fn stateless<E: Display>(
    mut handle: impl FnMut(&Message) -> Result + 'static,
    init: impl FnOnce() -> Result<(), E>,
) -> Result<Running, String> {
    stateful(move |(): &mut (), message: &Message| handle(message), init)
}

/// A handler of messages with state that lives as long as its instance.
pub fn stateful<S: 'static, E: Display>(
    handle: impl FnMut(&mut S, &Message) -> Result + 'static,
    start: impl FnOnce() -> Result<S, E>,
) -> Result<Running, String> {
    stateful_both(handle, |_: &mut S, _: &Run| Err(not_exported()), start)
}

/// A handler of schedules without state of its own.
pub fn runs<E: Display>(
    mut run: impl FnMut(&Run) -> Result + 'static,
    init: impl FnOnce() -> Result<(), E>,
) -> Result<Running, String> {
    stateful_runs(move |(): &mut (), due: &Run| run(due), init)
}

/// A handler of schedules with state that lives as long as its instance.
pub fn stateful_runs<S: 'static, E: Display>(
    run: impl FnMut(&mut S, &Run) -> Result + 'static,
    start: impl FnOnce() -> Result<S, E>,
) -> Result<Running, String> {
    stateful_both(|_: &mut S, _: &Message| Err(not_exported()), run, start)
}

/// A handler of both without state of its own.
pub fn both<E: Display>(
    mut handle: impl FnMut(&Message) -> Result + 'static,
    mut run: impl FnMut(&Run) -> Result + 'static,
    init: impl FnOnce() -> Result<(), E>,
) -> Result<Running, String> {
    stateful_both(move |(): &mut (), message: &Message| handle(message), move |(): &mut (), due: &Run| run(due), init)
}

/// A handler of both with state that lives as long as its instance.
pub fn stateful_both<S: 'static, E: Display>(
    mut handle: impl FnMut(&mut S, &Message) -> Result + 'static,
    mut run: impl FnMut(&mut S, &Run) -> Result + 'static,
    start: impl FnOnce() -> Result<S, E>,
) -> Result<Running, String> {
    let mut state = start().map_err(|error| error.to_string())?;
    Ok(Box::new(move |call| match call {
        Call::Message(message) => handle(&mut state, message),
        Call::Run(due) => run(&mut state, due),
    }))
}

/// The daemon calls what a component exports, and nothing else.
fn not_exported() -> crate::Error {
    reject("this handler does not export what it was called for")
}

#[cfg(target_family = "wasm")]
mod instance {
    use std::cell::RefCell;

    use super::{Call, Running, Start};
    use crate::{Message, Result, Run, log, reject};

    thread_local! {
        /// Written by `init`, lent to one call at a time; gone with the instance.
        static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
    }

    /// The component's `init`.
    pub fn init(start: Start) -> Result<(), String> {
        log_panics();
        let running = start()?;
        RUNNING.with_borrow_mut(|slot| *slot = Some(running));
        Ok(())
    }

    /// The component's `handle`.
    pub fn call(message: &Message) -> Result {
        enter(Call::Message(message))
    }

    /// The component's `run`.
    pub fn run(due: &Run) -> Result {
        enter(Call::Run(due))
    }

    fn enter(call: Call<'_>) -> Result {
        RUNNING.with_borrow_mut(|slot| {
            let running = slot.as_mut().ok_or_else(|| reject("the handler was called before its init"))?;
            running(call)
        })
    }

    /// Says what panicked and where: all that the daemon sees of a panic is a trap.
    fn log_panics() {
        std::panic::set_hook(Box::new(|panic| {
            let at = panic.location().map(ToString::to_string).unwrap_or_default();
            let reason = panic.payload_as_str().unwrap_or("no reason given").to_owned();
            log::write(log::Level::Error, "the handler panicked", &[("reason".into(), reason), ("at".into(), at)]);
        }));
    }
}

#[cfg(target_family = "wasm")]
pub use instance::{call, init, run};
