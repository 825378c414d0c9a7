//! Schedules as an operator sees and runs them.

use super::{Live, Refusal};
use crate::control::admin::resource::{Schedule, ScheduleRun, ScheduleSummary};

impl Live {
    /// All schedules.
    pub fn schedules(&self) -> Vec<Schedule> {
        Vec::new()
    }

    /// All schedules at a glance.
    pub(super) fn schedule_summaries(&self) -> Vec<ScheduleSummary> {
        Vec::new()
    }

    /// Runs a schedule at once.
    ///
    /// # Errors
    /// There is no such schedule, or it is under way.
    pub async fn run_schedule(&self, _name: &str) -> Result<ScheduleRun, Refusal> {
        Err(super::outbox::not_yet())
    }
}
