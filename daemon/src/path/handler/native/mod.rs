//! Native handlers: shared libraries of `sdk/c/tidegate.h`, loaded into the daemon's process.
//!
//! Owns: the private copies of the libraries, which a process of its own loads first, and which are never unloaded; and instances, a thread each, with the host functions of the ABI.
//! Fed by the handlers' runners; gives back the publishes that a call held back. This is the only place that loads libraries, and the
//! only one in the daemon with `unsafe`: each block says why it may. What a handler may do is decided in `host/`, what the other side
//! points to is read by `tidegate-abi`. It deliberately stops nothing: code that does not come back keeps its thread, is counted, and its
//! effects are dropped, and where it still runs at the end of the process, that ends around it; and no limit of memory holds for it.

#![expect(unsafe_code, reason = "the code of a library is called, and what it points to is read")]
#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block, unsafe_op_in_unsafe_fn)]

mod caller;
mod elf;
mod error;
mod functions;
mod instance;
mod library;
mod life;
mod probe;
mod process;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod threads;
mod worker;

pub use self::error::NativeError;
pub use self::instance::Instance;
pub use self::library::{Natives, Plugin};
pub use self::probe::load_native;
pub use self::process::end_if_inside;
