//! Write Tidegate handlers in Rust that run natively: in the daemon's own process, without a sandbox.
//!
//! All that `tidegate-sdk` has is here under the same names, so that a handler's source is the same for both: only the dependency
//! differs. Built natively, [`handler!`] exports the C ABI of `sdk/c/tidegate.h`; built for `wasm32-wasip2`, the component that
//! `tidegate-sdk` makes of it.
//!
//! ```
//! use tidegate_native::{Message, Outgoing, Result, publish};
//!
//! fn handle(message: &Message) -> Result {
//!     publish(Outgoing::new("copies/all", message.payload.clone()).qos(message.qos))?;
//!     Ok(())
//! }
//!
//! tidegate_native::handler!(handle);
//! ```
//!
//! The crate is a `cdylib`; `cargo build --release` makes `target/release/libNAME.so`, which is the plugin:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! tidegate-native = { path = "…/sdk/native" }
//! ```
//!
//! # What differs from a component
//!
//! - It is trusted: a crash, as by faulty `unsafe` code, is the daemon's crash. Files, threads and the network are there.
//! - A panic in a call is caught: it counts as a trap does, and the instance is made anew. A panic while another one unwinds, an `abort` and a
//!   stack overflow end the daemon. With `panic = "abort"` this crate does not compile.
//! - A call that does not return within its `call-deadline` cannot be ended. It costs a thread until it returns.
//! - `max-memory` does not hold.
//! - The functions of this crate work on the thread of the call. On threads that the plugin starts they return errors, and
//!   [`config`] panics.
//! - Each instance has a thread of its own, and statics are shared by all instances of the library, also those of other handlers.
//!
//! In `cargo test` the same functions run on an in-memory daemon: see [`testing`].

#![cfg_attr(not(target_family = "wasm"), allow(unsafe_code))]
#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

pub use tidegate_sdk::*;

#[cfg(not(target_family = "wasm"))]
mod call;
#[cfg(not(target_family = "wasm"))]
mod convert;
#[cfg(not(target_family = "wasm"))]
mod daemon;
#[cfg(not(target_family = "wasm"))]
mod entry;
#[cfg(all(test, not(target_family = "wasm")))]
mod tests;

#[cfg(all(not(target_family = "wasm"), panic = "abort"))]
compile_error!(
    "a native plugin must catch its panics, or each one ends the daemon: remove panic = \"abort\" from the profile"
);

/// Makes functions of this crate the handler that the plugin exports: the forms are those of [`tidegate_sdk::handler!`].
///
/// A library has one handler: the exported symbol has one name.
#[cfg(not(target_family = "wasm"))]
#[macro_export]
macro_rules! handler {
    ($($form:tt)+) => {
        $crate::__native::handler_forms!([$crate::__export_native] $($form)+);
    };
}

/// Exports the C ABI from the crate that expands it.
#[cfg(not(target_family = "wasm"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __export_native {
    (message_handler $start:expr) => { $crate::__export_native!(@export true, false, $start); };
    (schedule_handler $start:expr) => { $crate::__export_native!(@export false, true, $start); };
    (full_handler $start:expr) => { $crate::__export_native!(@export true, true, $start); };
    (@export $on_message:expr, $on_schedule:expr, $start:expr) => {
        const _: () = {
            struct Plugin;

            impl $crate::__native::Handler for Plugin {
                const START: $crate::__native::Start = $start;
                const ON_MESSAGE: bool = $on_message;
                const ON_SCHEDULE: bool = $on_schedule;
                const NAME: &'static str = ::core::env!("CARGO_PKG_NAME");
                const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn tidegate_plugin_v1(
                host: *const $crate::__native::Host,
            ) -> *const $crate::__native::Plugin {
                // SAFETY: the daemon calls this as its header says.
                unsafe { $crate::__native::enter::<Plugin>(host) }
            }
        };
    };
}

/// The guide's examples, compiled with this crate's own.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/writing-native-plugins.md")]
struct Guide;

/// What the macros of this crate expand to. Not for use by hand: it changes without notice.
#[cfg(not(target_family = "wasm"))]
#[doc(hidden)]
pub mod __native {
    pub use tidegate_abi::{Host, Plugin};
    pub use tidegate_sdk::__handler as handler_forms;
    pub use tidegate_sdk::__private::Start;

    pub use crate::entry::{Handler, enter};
}
