//! The way from the daemon's two calls, `init` and `handle`, to the functions that the author wrote.
//!
//! Owns: the one started handler of this instance. Fed by the exports that `handler!` makes; calls the author's code. It
//! deliberately knows nothing of the component's types: `wasm.rs` translates.

use std::fmt::Display;

use crate::{Message, Result};

/// A handler that has been started: what `handle` runs.
pub type Running = Box<dyn FnMut(&Message) -> Result>;

/// Starts a handler: runs the author's `init` or makes its state.
pub type Start = fn() -> Result<Running, String>;

/// A handler without state of its own.
pub fn stateless<E: Display>(
    handle: impl FnMut(&Message) -> Result + 'static,
    init: impl FnOnce() -> Result<(), E>,
) -> Result<Running, String> {
    init().map_err(|error| error.to_string())?;
    Ok(Box::new(handle))
}

/// A handler with state that lives as long as its instance.
pub fn stateful<S: 'static, E: Display>(
    mut handle: impl FnMut(&mut S, &Message) -> Result + 'static,
    start: impl FnOnce() -> Result<S, E>,
) -> Result<Running, String> {
    let mut state = start().map_err(|error| error.to_string())?;
    Ok(Box::new(move |message| handle(&mut state, message)))
}

#[cfg(target_family = "wasm")]
mod instance {
    use std::cell::RefCell;

    use super::{Running, Start};
    use crate::{Message, Result, log, reject};

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
        RUNNING.with_borrow_mut(|slot| {
            let handle = slot.as_mut().ok_or_else(|| reject("the handler was called before its init"))?;
            handle(message)
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
pub use instance::{call, init};
