//! One run, from the moment that it is due to its end.
//!
//! A publish goes into its outbox; a handler's call into the handler's queue, again where the handler asks for that. Made by the
//! task, a future for each run; waits for room in an outbox, or for the handler. Nothing waits for it but its own schedule.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::schedules::{RunReport, Schedules, Start, Work};
use super::stats;
use crate::control::config::model::{ScheduledPayload, ScheduledPublish};
use crate::message::Outgoing;
use crate::path::dispatch::{RunEnd, RunJob, Tries};
use crate::path::handler::{CallError, CallResult, Publish, Trigger};
use crate::path::outbox::Offered;

/// Makes a run and notes its end. `stop`: the daemon stops, nothing is tried again.
pub(super) async fn make(schedules: Arc<Schedules>, start: Start, stop: CancellationToken) {
    // A stop waits for it.
    let _busy = schedules.progress.busy();
    let Start { key, run, work, due, until, told } = start;
    let under_way = UnderWay { schedules: &schedules, key: &key, run, began: SystemTime::now(), report: None };
    tracing::debug!(schedule = %key, "the schedule runs");
    let report = match work {
        Work::Publish(publish) => Some(publish_now(&schedules, &key, &publish).await),
        Work::Call { handler, trigger, name } => {
            let call = Call { handler, trigger, name, due, until };
            call.make(&schedules, &key, &stop).await
        }
    };
    under_way.end(report.clone());
    if let (Some(told), Some(report)) = (told, report) {
        // Whoever asked may be gone.
        let _ = told.send(report);
    }
}

/// A run that its schedule takes for one under way until this is dropped.
struct UnderWay<'a> {
    schedules: &'a Schedules,
    key: &'a str,
    run: u64,
    began: SystemTime,
    report: Option<RunReport>,
}

impl UnderWay<'_> {
    fn end(mut self, report: Option<RunReport>) {
        self.report = report;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.schedules.ended(self.key, self.run, self.began, self.report.as_ref());
    }
}

async fn publish_now(schedules: &Arc<Schedules>, key: &Arc<str>, publish: &ScheduledPublish) -> RunReport {
    let payload = match &publish.payload {
        ScheduledPayload::Message(message) => message.clone(),
        ScheduledPayload::SystemStats => match crate::system::read() {
            Ok(readings) => stats::json(&readings).into(),
            Err(error) => return RunReport { result: CallResult::Reject, error: Some(error) },
        },
    };
    let message = Outgoing {
        topic: publish.topic.clone(),
        payload,
        qos: publish.qos,
        retain: publish.retain,
        properties: None,
        hops: None,
    };
    let publish = Publish { broker: publish.broker, message };
    match schedules.outboxes.submit_run(vec![publish].into(), schedules.aftermath(&schedules.progress, key), || {}) {
        Offered::Done => {}
        Offered::Waits(mut room) => room.admitted().await,
        Offered::Rejected(full) => {
            return RunReport {
                result: CallResult::Retry,
                error: Some(format!("what it publishes has no room: {full}")),
            };
        }
    }
    RunReport { result: CallResult::Ok, error: None }
}

struct Call {
    handler: Arc<str>,
    trigger: Trigger,
    name: Arc<str>,
    due: SystemTime,
    until: Option<Instant>,
}

impl Call {
    /// None where the handler ended before the run did.
    async fn make(self, schedules: &Arc<Schedules>, key: &Arc<str>, stop: &CancellationToken) -> Option<RunReport> {
        let mut tries = Tries::default();
        loop {
            let queue = schedules.queue(&self.handler)?;
            let (report, ended) = oneshot::channel();
            queue.push_run(RunJob {
                trigger: self.trigger,
                name: Arc::clone(&self.name),
                due: self.due,
                tries,
                until: self.until,
                aftermath: schedules.aftermath(&schedules.progress, key),
                report,
            });
            match ended.await.ok()? {
                RunEnd::Ok => return Some(RunReport { result: CallResult::Ok, error: None }),
                RunEnd::NotNow => {
                    schedules.skipped(key);
                    return None;
                }
                RunEnd::Failed { error, again: Some((again, tried)) } => {
                    let wait = again.saturating_duration_since(Instant::now());
                    tracing::debug!(schedule = %key, %error, ?wait, "the schedule's run failed, it is made again");
                    if wait > Duration::ZERO && !slept(again, stop).await {
                        return Some(failed(&error));
                    }
                    tries = tried;
                }
                RunEnd::Failed { error, again: None } => return Some(failed(&error)),
            }
        }
    }
}

/// Waits until then. Whether nothing stopped it.
async fn slept(until: Instant, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep_until(until.into()) => true,
        () = stop.cancelled() => false,
    }
}

fn failed(error: &CallError) -> RunReport {
    let told = match error {
        CallError::Reject(reason) => format!("the handler rejected the run: {reason}"),
        error => error.to_string(),
    };
    RunReport { result: error.result(), error: Some(told) }
}
