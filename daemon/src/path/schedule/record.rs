//! What is known of the runs of one schedule.
//!
//! Behind the lock of [`super::Schedules`]; counts in the metrics as well. It decides nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::path::handler::CallResult;
use crate::telemetry::metrics::ScheduleMeters;
use crate::telemetry::occasional::Occasional;

/// How often a schedule's failures, and its skipped runs, are said at most.
const SAID: Duration = Duration::from_secs(10);

/// Bytes kept of why a run failed.
const ERROR_BYTES: usize = 1024;

/// How a run ended, as the metric label `result` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunResult {
    /// It was made: as a handler's call ended, and `ok` where what is published is in the outbox.
    Ran(CallResult),
    /// It was not made: the one before was still under way, or nobody looked in time.
    Skipped,
}

impl RunResult {
    /// The value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            RunResult::Ran(result) => result.label(),
            RunResult::Skipped => "skipped",
        }
    }
}

/// The last run that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRun {
    /// When it began.
    pub time: SystemTime,
    /// How it ended.
    pub result: CallResult,
}

/// What is known of the runs of one schedule.
pub(super) struct Record {
    meters: Arc<ScheduleMeters>,
    /// The number of the run under way.
    pub(super) under_way: Option<u64>,
    pub(super) last: Option<LastRun>,
    /// Why the last run failed, or what it published is lost; none since a run that was made.
    pub(super) last_error: Option<Arc<str>>,
    pub(super) runs: u64,
    pub(super) failures: u64,
    pub(super) skipped: u64,
    failed_said: Occasional,
    skipped_said: Occasional,
}

impl Record {
    /// Nothing ran yet.
    pub(super) fn new(meters: Arc<ScheduleMeters>) -> Record {
        Record {
            meters,
            under_way: None,
            last: None,
            last_error: None,
            runs: 0,
            failures: 0,
            skipped: 0,
            failed_said: Occasional::every(SAID),
            skipped_said: Occasional::every(SAID),
        }
    }

    /// So many runs were due and are not made.
    pub(super) fn skip(&mut self, schedule: &str, count: u64) {
        if count == 0 {
            return;
        }
        self.skipped += count;
        self.meters.skipped(count);
        if let Some(unsaid) = self.skipped_said.due() {
            tracing::warn!(
                schedule,
                runs = count,
                unsaid,
                "runs are skipped: the one before is still under way, the handler is paused or quarantined, or the daemon had no time"
            );
        }
    }

    /// A run that began then has ended.
    pub(super) fn ended(&mut self, schedule: &str, began: SystemTime, result: CallResult, error: Option<&str>) {
        self.runs += 1;
        self.meters.ran(result);
        self.last = Some(LastRun { time: began, result });
        self.last_error = error.map(shortened);
        if result != CallResult::Ok {
            self.failures += 1;
        }
        if let Some(error) = &self.last_error
            && let Some(unsaid) = self.failed_said.due()
        {
            tracing::warn!(schedule, result = result.label(), %error, unsaid, "the schedule's run failed");
        }
    }

    /// What a run published is lost after all.
    pub(super) fn lost(&mut self, why: &str) {
        self.last_error = Some(shortened(why));
    }
}

fn shortened(text: &str) -> Arc<str> {
    match text.len() <= ERROR_BYTES {
        true => text.into(),
        false => format!("{}…", &text[..text.floor_char_boundary(ERROR_BYTES)]).into(),
    }
}
