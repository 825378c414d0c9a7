//! Runs of schedules that wait for the first shard of a handler.
//!
//! A run is no message: it is not ordered against any, is in nobody's limits, and goes before the messages of its shard. There is
//! one at most for each schedule, which sees to that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;

use super::Tries;
use crate::path::handler::{CallError, Trigger};
use crate::path::schedule::Aftermath;

/// The shard whose instance runs them.
pub const RUN_SHARD: usize = 0;

/// A run to be made.
pub struct RunJob {
    /// What made it due.
    pub trigger: Trigger,
    /// The schedule's name, or the silent subscription's.
    pub name: Arc<str>,
    /// When it was due.
    pub due: SystemTime,
    /// The calls so far.
    pub tries: Tries,
    /// A further call begins before this, or not at all: then the schedule is due again.
    pub until: Option<Instant>,
    /// What ends with what it publishes.
    pub aftermath: Aftermath,
    /// Told how it ended. Dropped without a word where the handler ended before.
    pub report: oneshot::Sender<RunEnd>,
}

impl RunJob {
    /// It is not made: the handler is paused or quarantined.
    pub(super) fn not_now(self) {
        // Whoever asked may be gone.
        let _ = self.report.send(RunEnd::NotNow);
    }
}

/// How a call for a run ended.
#[derive(Debug)]
pub enum RunEnd {
    /// It returned ok, and what it published is in the outboxes.
    Ok,
    /// It was not called: the handler is paused or quarantined.
    NotNow,
    /// It failed.
    Failed {
        /// Why.
        error: CallError,
        /// When it is to be called again, and what counts the calls; none if that is no use.
        again: Option<(Instant, Tries)>,
    },
}

/// Those that wait.
#[derive(Default)]
pub(super) struct Runs(VecDeque<RunJob>);

impl Runs {
    /// One more.
    pub(super) fn push(&mut self, run: RunJob) {
        self.0.push_back(run);
    }

    /// The next one for this shard.
    pub(super) fn take(&mut self, shard: usize) -> Option<RunJob> {
        if shard == RUN_SHARD { self.0.pop_front() } else { None }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes all out, in order.
    pub(super) fn clear(&mut self) -> VecDeque<RunJob> {
        std::mem::take(&mut self.0)
    }
}
