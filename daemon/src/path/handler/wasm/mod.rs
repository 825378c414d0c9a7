//! Sandboxed handlers: WebAssembly components run by wasmtime.
//!
//! Owns: the engine with its 1 ms epoch, the threads that compile, the loading and checking of plugins, and instances: a store each, with the host
//! functions of `wit/handler.wit`, limits and a context of WASI 0.2 that grants nothing but clocks, random numbers and
//! output to the log. Fed by the handlers' runners, which call a [`PlacedInstance`] on the sessions' threads; gives back the publishes that a call held back. This is the only place that knows wasmtime. It deliberately has no
//! queue, no retry and no metrics.

mod aside;
mod bindings;
mod compilers;
mod console;
mod convert;
mod engine;
mod exports;
mod fault;
#[cfg(test)]
mod hostile;
mod imports;
mod instance;
mod limits;
mod load;
mod placed;
mod priority;
mod state;
mod store;
#[cfg(test)]
pub(in crate::path) mod testing;
mod ticker;
mod verify;
mod wasi;

pub use engine::{EngineError, WasmEngine};
pub use load::Plugin;
pub use placed::PlacedInstance;
