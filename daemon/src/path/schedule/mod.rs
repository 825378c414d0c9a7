//! What happens by the clock: schedules, and the silence of subscriptions.
//!
//! Owns: when something is due (`timing.rs` and `silence.rs`, pure), what is known of each schedule (`record.rs`), and the one task
//! that looks at the clock (`task.rs`). Fed by the configuration, by the router (a message came), by the sessions (a subscription was
//! granted) and by commands; feeds the outboxes, and the queues of handlers. A run waits for nothing that another run holds. What
//! a run publishes goes the way of every other publish; this knows no connection and no guest.

mod publish;
mod record;
mod run;
mod schedules;
pub mod silence;
mod stats;
mod task;
#[cfg(test)]
mod tests;
pub mod timing;

pub use self::publish::Aftermath;
pub use self::record::RunResult;
pub use self::schedules::{NotRun, ScheduleView, Schedules};
pub use self::silence::Heard;
pub use self::task::run;
