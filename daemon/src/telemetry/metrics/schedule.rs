//! What is counted for schedules: their runs.
//!
//! Owns this family and the handles to one schedule's children. Written by its record.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec};

use super::families::{Families, forget};
use crate::path::handler::CallResult;
use crate::path::schedule::RunResult;

/// The family of schedules.
pub(super) struct ScheduleFamilies {
    runs: IntCounterVec,
}

impl ScheduleFamilies {
    pub(super) fn new(families: &Families) -> prometheus::Result<ScheduleFamilies> {
        let runs = families.counter("schedule_runs_total", "Runs of schedules by result.", &["schedule", "result"])?;
        Ok(ScheduleFamilies { runs })
    }

    pub(super) fn meters(&self, name: &str) -> Arc<ScheduleMeters> {
        let result = |result: RunResult| self.runs.with_label_values(&[name, result.label()]);
        Arc::new(ScheduleMeters {
            runs: CallResult::ALL.map(|ran| result(RunResult::Ran(ran))),
            skipped: result(RunResult::Skipped),
        })
    }

    pub(super) fn forget(&self, name: &str) {
        let ran = CallResult::ALL.iter().map(|result| RunResult::Ran(*result));
        ran.chain([RunResult::Skipped]).for_each(|result| forget(&self.runs, &[name, result.label()]));
    }
}

/// What is counted for one schedule. Written by its record.
pub struct ScheduleMeters {
    /// By [`CallResult`].
    runs: [IntCounter; CallResult::ALL.len()],
    skipped: IntCounter,
}

impl ScheduleMeters {
    /// Counts a run that was made.
    pub fn ran(&self, result: CallResult) {
        self.runs[result as usize].inc();
    }

    /// Counts runs that were not made.
    pub fn skipped(&self, runs: u64) {
        self.skipped.inc_by(runs);
    }
}
