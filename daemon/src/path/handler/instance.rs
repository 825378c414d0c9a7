//! The task that owns one instance of a handler: takes jobs from its shard, calls, hands the publishes on.
//!
//! Runs on the same threads as the sessions; a guest gives its thread back after a millisecond. Waits for: its shard of the queue, and room in the outboxes. It does
//! not wait for acknowledgements, and holds a broker's permit for the call alone.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use super::wasm::{Host, Instance, Plugin, StartError};
use super::{CallError, CallResult, Publish};
use crate::control::config::model::{Handler, Isolation};
use crate::path::dispatch::{HandlerQueue, Job};
use crate::path::outbox::{Completion, Outboxes};
use crate::path::receipt::Outcome;
use crate::telemetry::metrics::HandlerMeters;
use crate::telemetry::occasional::Occasional;
use crate::telemetry::tap::{Sighting, Tap};

/// Calls after which other tasks get their turn, even though more jobs wait: what they published waits that long to be sent.
const CALLS_A_TURN: usize = 64;

/// Time after which other tasks get their turn.
const TURN: Duration = Duration::from_micros(500);

/// How often a failing handler's calls are said, at most.
const FAILURE_SAID: Duration = Duration::from_millis(100);

/// What the instances of one handler share.
pub struct InstanceParts {
    /// The configured handler.
    pub handler: Arc<Handler>,
    /// What runs.
    pub plugin: Plugin,
    /// What the guest may ask of the daemon.
    pub host: Arc<Host>,
    /// Where jobs come from.
    pub queue: Arc<HandlerQueue>,
    /// Where publishes go.
    pub outboxes: Arc<Outboxes>,
    /// The handler's meters.
    pub meters: Arc<HandlerMeters>,
    /// Limits how often failures are said.
    pub failures: Occasional,
    /// Where calls are reported.
    pub tap: Tap,
}

impl InstanceParts {
    /// A limit for the failures of one handler.
    pub fn failures() -> Occasional {
        Occasional::every(FAILURE_SAID)
    }

    /// An instance, ready to be called.
    ///
    /// # Errors
    /// It cannot be made, or its `init` fails.
    pub async fn start(&self) -> Result<Instance, StartError> {
        Instance::start(&self.plugin, Arc::clone(&self.host)).await
    }
}

/// Serves one shard of a handler's queue for ever, beginning with an instance that was started already. Dropping the future
/// stops it at its next wait, or in the middle of a call, whose message then stays unacknowledged.
pub async fn serve(parts: Arc<InstanceParts>, shard: usize, first: Instance) {
    let mut first = Some(first);
    loop {
        // A task of its own, so that a panic, which is a defect of the daemon, costs one call and not the shard.
        let calls = tokio::spawn(call_for_ever(Arc::clone(&parts), shard, first.take()));
        let Err(panic) = AbortOnDropHandle::new(calls).await;
        tracing::error!(handler = %parts.handler.name, %panic, "a handler's task panicked, its message is dropped");
    }
}

async fn call_for_ever(parts: Arc<InstanceParts>, shard: usize, first: Option<Instance>) -> Infallible {
    let mut slot = Slot::new(&parts, first);
    let (mut calls, mut spent) = (0, Duration::ZERO);
    loop {
        let (job, permit) = parts.queue.next(shard).await;
        let started = Instant::now();
        let result = slot.call(&job).await;
        let took = started.elapsed();
        drop(permit);
        parts.finish(job, result, took).await;
        (calls, spent) = (calls + 1, spent + took);
        if calls >= CALLS_A_TURN || spent >= TURN {
            (calls, spent) = (0, Duration::ZERO);
            tokio::task::yield_now().await;
        }
    }
}

/// A call that finds no instance fails as the instance's start did.
fn not_started(error: StartError) -> CallError {
    match error {
        StartError::Deadline(limit) => CallError::Deadline(limit),
        StartError::Memory(limit) => CallError::Memory(limit),
        StartError::Refused(_) | StartError::Trap(_) => CallError::Trap(error.to_string()),
    }
}

/// The instance of one shard, made anew when it is used up.
struct Slot<'a> {
    parts: &'a InstanceParts,
    instance: Option<Instance>,
}

impl Slot<'_> {
    fn new(parts: &InstanceParts, instance: Option<Instance>) -> Slot<'_> {
        parts.meters.instances.add(i64::from(instance.is_some()));
        Slot { parts, instance }
    }

    async fn call(&mut self, job: &Job) -> Result<Vec<Publish>, CallError> {
        if self.instance.is_none() {
            self.instance = Some(self.parts.start().await.map_err(not_started)?);
            self.parts.meters.instances.inc();
        }
        let instance = self.instance.as_mut().expect("made above where there was none");
        let captures = job.subscription.topic.captures(&job.message.topic).unwrap_or_default();
        let result = instance.call(&job.message, &job.subscription.name, &captures, 1).await;
        let reusable = result.as_ref().map_or_else(CallError::keeps_instance, |_| true);
        if !reusable || self.parts.handler.isolation == Isolation::PerMessage {
            self.instance = None;
            self.parts.meters.instances.dec();
        }
        result
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if self.instance.is_some() {
            self.parts.meters.instances.dec();
        }
    }
}

impl InstanceParts {
    async fn finish(&self, job: Job, result: Result<Vec<Publish>, CallError>, took: Duration) {
        let outcome = result.as_ref().map_or_else(CallError::result, |_| CallResult::Ok);
        self.meters.call(outcome);
        self.meters.duration.observe(took.as_secs_f64());
        self.tap.report(|| {
            let (handler, message) = (Arc::clone(&self.handler.name), Arc::clone(&job.message));
            Sighting::Called { handler, message, result: outcome, took }
        });
        let Job { message, subscription, part } = job;
        match result {
            Ok(publishes) => {
                let cause = self.outboxes.cause(&message, &publishes);
                let completion = Completion { part, cause, arrived: message.arrived, meters: Arc::clone(&self.meters) };
                self.outboxes.submit(publishes, completion).await;
            }
            Err(error) => {
                if let Some(unsaid) = self.failures.due() {
                    tracing::warn!(
                        handler = %self.handler.name, subscription = %subscription.name, topic = %message.topic,
                        result = outcome.label(), %error, unsaid,
                        "the call failed, its message is dropped",
                    );
                }
                self.meters.end_to_end.observe(message.arrived.elapsed().as_secs_f64());
                part.end(Outcome::DroppedFailed);
            }
        }
    }
}
