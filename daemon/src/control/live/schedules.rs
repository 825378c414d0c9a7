//! Schedules as an operator sees and runs them.

use super::edit::unknown_of;
use super::view::{origin, time};
use super::{Live, Refusal, RefusalKind, Running};
use crate::control::admin::resource::{Origin, Schedule, ScheduleRun, ScheduleSummary};
use crate::control::config::model::{OnMessage, ScheduleAction};
use crate::path::handler::CallResult;
use crate::path::schedule::{NotRun, ScheduleView};

impl Live {
    /// All schedules, in the order of the configuration, then the silences of subscriptions.
    pub fn schedules(&self) -> Vec<Schedule> {
        let running = self.running();
        // A change that is under way may know one more or less.
        self.schedules.list().into_iter().filter_map(|view| schedule(&running, view)).collect()
    }

    /// The same at a glance.
    pub(super) fn schedule_summaries(&self) -> Vec<ScheduleSummary> {
        let summary = |view: ScheduleView| ScheduleSummary {
            name: view.name.to_string(),
            next: view.next.map(time),
            runs: view.runs,
            failures: view.failures,
            skipped: view.skipped,
            last_result: view.last.map(|last| last.result.label().to_owned()),
            last_error: view.last_error.as_deref().map(str::to_owned),
        };
        self.schedules.list().into_iter().map(summary).collect()
    }

    /// Runs a schedule at once and waits for what comes of it.
    ///
    /// # Errors
    /// There is no such schedule, or it is under way.
    pub async fn run_schedule(&self, name: &str) -> Result<ScheduleRun, Refusal> {
        if self.stopping.is_cancelled() {
            return Err(Refusal::new(RefusalKind::Stopping, "the daemon is stopping", "start it again"));
        }
        let report = self.schedules.run(name).await.map_err(|error| self.not_run(&error))?;
        Ok(ScheduleRun { name: name.to_owned(), result: report.result.label().to_owned(), error: report.error })
    }

    fn not_run(&self, error: &NotRun) -> Refusal {
        let (kind, remedy) = match error {
            NotRun::Unknown(name) => {
                let known = self.schedules.list();
                return unknown_of("schedule", name, known.iter().map(|view| &*view.name));
            }
            NotRun::UnderWay(_) => (RefusalKind::UnderWay, "try again when it has ended"),
            NotRun::CutShort(_) => (RefusalKind::Changed, "look at what it is now, and try again"),
        };
        Refusal::new(kind, error.to_string(), remedy)
    }
}

fn schedule(running: &Running, view: ScheduleView) -> Option<Schedule> {
    let (origin, action) = described(running, &view)?;
    let ScheduleView { name, silence_of: _, timing, next, last, last_error, runs, failures, skipped } = view;
    Some(Schedule {
        name: name.to_string(),
        origin,
        timing,
        action,
        next: next.map(time),
        last_run: last.as_ref().map(|last| time(last.time)),
        last_result: last.as_ref().map(|last| CallResult::label(last.result).to_owned()),
        last_error: last_error.as_deref().map(str::to_owned),
        runs,
        failures,
        skipped,
    })
}

/// Where it stands, and what it does.
fn described(running: &Running, view: &ScheduleView) -> Option<(Origin, String)> {
    let (config, origins) = (&running.loaded.config, &running.loaded.origins);
    if let Some(subscription) = &view.silence_of {
        let place = config.subscriptions.iter().position(|known| known.name == *subscription)?;
        let Some(OnMessage::Handler(handler)) = &config.subscriptions[place].on_message else { return None };
        return Some((origin(&origins.subscriptions[place]), format!("on-schedule {}", handler.name)));
    }
    let place = config.schedules.iter().position(|known| known.name == view.name)?;
    let action = match &config.schedules[place].action {
        ScheduleAction::Handler(handler) => format!("on-schedule {handler}"),
        ScheduleAction::Publish(publish) => {
            let broker = running.loaded.names.name(publish.broker);
            format!("publish {broker}:{}", publish.topic)
        }
    };
    Some((origin(&origins.schedules[place]), action))
}
