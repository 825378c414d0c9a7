//! Write Tidegate handlers in Rust.
//!
//! A handler is a function that gets each message of the subscriptions that name it, or one that runs on a schedule, or both. It
//! runs sandboxed, as a WebAssembly component; what it may reach is in this crate and nowhere else. The crate `tidegate-native` builds the
//! same source as a native plugin, without a sandbox.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use tidegate_sdk::{Message, Outgoing, Result, publish};
//!
//! #[derive(Deserialize)]
//! struct Reading { c: f64 }
//! #[derive(Serialize)]
//! struct Converted { f: f64 }
//!
//! fn handle(message: &Message) -> Result {
//!     let Reading { c } = message.json()?;
//!     let topic = format!("{}/fahrenheit", message.topic);
//!     publish(Outgoing::json(topic, &Converted { f: c * 1.8 + 32.0 })?.qos(message.qos))?;
//!     Ok(())
//! }
//!
//! tidegate_sdk::handler!(handle);
//! ```
//!
//! # Building one
//!
//! The crate is a `cdylib`, built for `wasm32-wasip2`; what cargo writes is the plugin:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! serde = { version = "1", features = ["derive"] }
//! tidegate-sdk = { path = "…/sdk" }
//! ```
//! ```sh
//! rustup target add wasm32-wasip2
//! cargo build --release --target wasm32-wasip2
//! ```
//!
//! # What a call means
//!
//! - A call gets one message and returns [`Ok`] or an [`Error`]. Publishes are held back until it has returned: `Ok` sends
//!   them, in order; an error or a panic drops them. A QoS ≥ 1 message is acknowledged once its publishes are.
//! - [`Error::Reject`] says that this message will never work, [`Error::Retry`] that it may later. `?` picks the right one
//!   for the SDK's own errors; for any other, [`OrFail`] lets the author pick.
//! - Calls of one instance never overlap, but there may be several instances, each with its own memory, and an instance is
//!   replaced after a panic or a missed call deadline. Messages of one topic reach one instance, in order.
//!
//! # Testing one
//!
//! Natively, in `cargo test`, the same functions run on an in-memory daemon: see [`testing`].
//!
//! This crate deliberately has no network, files or threads: a handler has none of them.

pub mod clock;
mod config;
mod entry;
mod error;
pub mod kv;
pub mod log;
mod message;
#[cfg(not(target_family = "wasm"))]
mod native;
pub mod random;
mod run;
pub mod system;
mod template;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
#[cfg(target_family = "wasm")]
mod wasm;

pub use config::{ConfigError, config};
pub use error::{Error, KvError, OrFail, PublishError, Result, reject, retry};
pub use message::{Message, Outgoing, Properties, Qos};
pub use run::{Run, Trigger};
pub use serde_json;
pub use template::{TemplateError, TopicTemplate};

#[cfg(not(target_family = "wasm"))]
use native as host;
#[cfg(target_family = "wasm")]
use wasm as host;

/// Publishes a message once the call has returned `Ok`.
///
/// Until then the daemon holds it back; an error or a panic drops it. Messages leave in the order of their publishing.
///
/// # Errors
/// The daemon says at once when it will not take it: the handler's `allow.publish` does not grant the topic, the topic is
/// not valid, or a limit of the call is reached. In `init` every publish is denied.
///
/// ```
/// use tidegate_sdk::{Message, Outgoing, Qos, Result, publish};
///
/// fn handle(message: &Message) -> Result {
///     publish(Outgoing::new("copies/all", message.payload.clone()).qos(Qos::AtLeastOnce).to_broker("cloud"))?;
///     Ok(())
/// }
/// # let message = tidegate_sdk::testing::message("a", "b");
/// # assert_eq!(tidegate_sdk::testing::call(handle, &message).publishes[0].broker.as_deref(), Some("cloud"));
/// ```
pub fn publish(message: Outgoing) -> Result<(), PublishError> {
    host::publish(message)
}

/// Makes functions of this crate the handler that the plugin exports.
///
/// | form | when |
/// |---|---|
/// | `handler!(handle)` | `handle` is a `fn(&Message) -> Result` |
/// | `handler!(handle, init = check)` | `check`, a `fn() -> Result<(), impl Display>`, runs before an instance's first call; its error refuses the plugin |
/// | `handler!(handle, state = start)` | `start`, a `fn() -> Result<State, impl Display>`, makes what `handle`, a `fn(&mut State, &Message) -> Result`, keeps between calls. State lives and dies with its instance |
/// | `handler!(on_schedule = run)` | `run`, a `fn(&Run) -> Result`, runs on schedules and on silence; the handler gets no messages |
/// | `handler!(handle, on_schedule = run)` | the handler does both |
///
/// `init` and `state` stand behind `on_schedule` too: with a state, `run` is a `fn(&mut State, &Run) -> Result`. Runs are calls of
/// the handler's first instance, so with `instances = 1` they see the state that messages left.
///
/// ```
/// use tidegate_sdk::{Message, Result, info};
///
/// struct Counter { seen: u64 }
///
/// fn start() -> Result<Counter> {
///     Ok(Counter { seen: 0 })
/// }
///
/// fn count(counter: &mut Counter, message: &Message) -> Result {
///     counter.seen += 1;
///     info!(topic = message.topic, seen = counter.seen; "another message");
///     Ok(())
/// }
///
/// tidegate_sdk::handler!(count, state = start);
/// ```
///
/// ```
/// use tidegate_sdk::{Outgoing, Result, Run, publish};
///
/// fn beat(run: &Run) -> Result {
///     publish(Outgoing::new("gateway/heartbeat", run.name.as_str()).to_broker("plant"))?;
///     Ok(())
/// }
///
/// tidegate_sdk::handler!(on_schedule = beat);
/// ```
#[macro_export]
macro_rules! handler {
    ($($form:tt)+) => {
        $crate::__handler!([$crate::__export] $($form)+);
    };
}

/// Gives the macro in brackets what to export, and how it starts: the forms of [`handler!`], for whoever exports them.
#[doc(hidden)]
#[macro_export]
macro_rules! __handler {
    ([$($export:tt)+] on_schedule = $run:expr $(,)?) => {
        $crate::__handler!([$($export)+] on_schedule = $run, init = || Ok::<(), $crate::Error>(()));
    };
    ([$($export:tt)+] on_schedule = $run:expr, init = $init:expr $(,)?) => {
        $($export)+!(schedule_handler || $crate::__private::runs($run, $init));
    };
    ([$($export:tt)+] on_schedule = $run:expr, state = $start:expr $(,)?) => {
        $($export)+!(schedule_handler || $crate::__private::stateful_runs($run, $start));
    };
    ([$($export:tt)+] $handle:expr, on_schedule = $run:expr $(,)?) => {
        $crate::__handler!([$($export)+] $handle, on_schedule = $run, init = || Ok::<(), $crate::Error>(()));
    };
    ([$($export:tt)+] $handle:expr, on_schedule = $run:expr, init = $init:expr $(,)?) => {
        $($export)+!(full_handler || $crate::__private::both($handle, $run, $init));
    };
    ([$($export:tt)+] $handle:expr, on_schedule = $run:expr, state = $start:expr $(,)?) => {
        $($export)+!(full_handler || $crate::__private::stateful_both($handle, $run, $start));
    };
    ([$($export:tt)+] $handle:expr $(,)?) => {
        $crate::__handler!([$($export)+] $handle, init = || Ok::<(), $crate::Error>(()));
    };
    ([$($export:tt)+] $handle:expr, init = $init:expr $(,)?) => {
        $($export)+!(message_handler || $crate::__private::stateless($handle, $init));
    };
    ([$($export:tt)+] $handle:expr, state = $start:expr $(,)?) => {
        $($export)+!(message_handler || $crate::__private::stateful($handle, $start));
    };
}

/// Exports a component. Natively there is nothing to export, but the functions are checked, and are in use.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($world:ident $start:expr) => {
        #[cfg(not(target_family = "wasm"))]
        const _: $crate::__private::Start = $start;
        #[cfg(target_family = "wasm")]
        const _: () = {
            const START: $crate::__private::Start = $start;
    $crate::__private::export_component!($world START);
        };
    };
}

/// What the macros of this crate expand to. Not for use by hand: it changes without notice.
#[doc(hidden)]
pub mod __private {
    /// For whoever stands in the daemon's place natively.
    #[cfg(not(target_family = "wasm"))]
    pub mod native {
        pub use crate::native::{Daemon, begin, blank_message, install};
    }
    #[cfg(target_family = "wasm")]
    pub use crate::{
        __export_component as export_component,
        entry::{call, init, run},
        wasm::{bindings, due, failure, lifecycle, on_message, on_schedule},
    };
    pub use crate::{
        clock::{from_unix, whole_millis},
        entry::{Call, Running, Start, both, runs, stateful, stateful_both, stateful_runs, stateless},
    };
}

/// The guide's examples, compiled with this crate's own.
#[cfg(doctest)]
#[doc = include_str!("../../docs/writing-handlers.md")]
struct Guide;
