//! What handlers may ask of the daemon, decided the same way for every kind of plugin.
//!
//! Owns: one handler's grants and limits ([`Host`]), its log, and what a call in progress holds back ([`CallState`]). Fed by the host
//! functions of `wasm/` and `native/`, which turn what crosses their boundary into the words used here. It deliberately knows no boundary: no engine,
//! no store, no pointer. Nothing here waits, and nothing takes longer than the memory that it touches.

mod call;
mod grants;
mod kv;
mod log;
mod properties;
mod publish;
mod system;
#[cfg(test)]
pub(in crate::path) mod testing;
mod time;
mod trace;

pub(super) use self::call::{CallState, Origin};
pub use self::grants::Host;
pub(super) use self::grants::{MAX_WORDS_BYTES, deadline};
pub(super) use self::kv::KvError;
pub use self::kv::KvGrant;
pub(super) use self::log::{Line, enabled, join};
pub(super) use self::publish::{PublishError, PublishRequest};
pub(super) use self::time::{nanos, unix_nanos};
