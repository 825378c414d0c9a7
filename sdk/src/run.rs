//! What a handler runs for without a message: a schedule, or silence.

use std::time::SystemTime;

/// What made a run due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A `[[schedules]]` with `on-schedule`.
    Schedule,
    /// Nothing came for a subscription for as long as its `silence` says.
    Silence,
}

/// A run: what a function given as `on_schedule` gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What made it due.
    pub trigger: Trigger,
    /// The name of the schedule, or of the silent subscription.
    pub name: String,
    /// When it was due. It runs a little later, and later still where it waits for its turn or is run again.
    pub due: SystemTime,
}
