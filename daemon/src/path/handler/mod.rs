//! Handlers: configured uses of plugins, and what a call of one gives back.
//!
//! `call.rs` has the vocabulary of calls, `limit.rs` that of their limits, `plugin/` what is called. `running.rs` makes, replaces and ends a handler; `versions.rs` swaps
//! what it runs, `trial.rs` has one on trial, and `canary.rs` judges it; `archive/` keeps what runs for a restart; `instance.rs` has its
//! runners, which call the instance of a job's shard, `reruns.rs` the calls that others overtook; `host/` decides what a plugin may do,
//! `wasm/` is the only place that knows wasmtime, `native/` the only one that loads libraries. Fed by `path/dispatch`; feeds `path/outbox`.

pub mod archive;
mod call;
pub mod canary;
pub mod host;
mod instance;
mod instances;
mod limit;
pub mod native;
pub mod needs;
mod parking;
pub mod plugin;
mod reruns;
mod running;
mod runs;
mod trial;
mod version_error;
mod versions;
pub mod wasm;

pub use self::call::{Call, CallError, CallResult, Run, StartError, Trigger};
pub use self::limit::Limit;
pub use self::running::{HandlerError, HandlerParts, HandlerView, NewVersion, ReadyHandler, RunningHandler};
pub use self::trial::{TrialStanding, Verdicts};
pub use self::version_error::VersionError;
use crate::message::{BrokerId, Outgoing};

/// A handler's publish, held back until its call has returned ok.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where to.
    pub broker: BrokerId,
    /// What.
    pub message: Outgoing,
}
