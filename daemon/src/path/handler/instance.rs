//! The runners of a handler: each takes jobs, calls the instance of the job's shard, and hands the publishes on.
//!
//! There are as many runners as instances, and few of them are awake (`path/dispatch/crew.rs`). They run on the sessions'
//! threads; a guest gives its thread back after a millisecond. A runner waits for jobs and for room in the outboxes. It does
//! not wait for acknowledgements, and holds a broker's permit for the call alone. It ends when its queue does.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::field::display;

use super::host::Host;
use super::instances::{Counted, Instances};
use super::reruns::Reruns;
use super::trial::{Ground, Trial, Verdicts, is_failure};
use super::versions::{Begun, Version, Versions};
use super::{Call, CallError, CallResult, Publish, StartError};
use crate::chance;
use crate::control::config::format_duration;
use crate::control::config::model::{Handler, Isolation};
use crate::message::{HOP_LIMIT, Message};
use crate::path::dead_letter::{DeadLetters, Input, Letter};
use crate::path::dispatch::{GivenUp, HandlerQueue, Job, Permit, Sign, Standing, Turn, Work};
use crate::path::kv::{Ready, Transaction};
use crate::path::outbox::{Completion, Effects, Outboxes, Room, Submitted, Touch};
use crate::path::receipt::Outcome;
use crate::path::session::Fate;
use crate::telemetry::metrics::HandlerMeters;
use crate::telemetry::occasional::Occasional;
use crate::telemetry::tap::{Sighting, Tap};

/// Calls after which other tasks get their turn, even though more jobs wait: what they published waits that long to be sent.
const CALLS_A_TURN: usize = 64;

/// Time after which other tasks get their turn.
const TURN: Duration = Duration::from_micros(500);

/// How often a failing handler's calls are said, at most.
const FAILURE_SAID: Duration = Duration::from_millis(100);

/// How often a handler's messages that go in a circle are said, at most.
const LOOP_SAID: Duration = Duration::from_secs(1);

/// Bytes kept of what went wrong in the last call that failed.
const LAST_ERROR_BYTES: usize = 1024;

/// What the instances of one handler share.
pub(super) struct InstanceParts {
    /// The configured handler.
    pub(super) handler: Arc<Handler>,
    /// What runs.
    pub(super) versions: Versions,
    /// What the guest may ask of the daemon.
    pub(super) host: Arc<Host>,
    /// Where jobs come from.
    pub(super) queue: Arc<HandlerQueue>,
    /// Where publishes go.
    pub(super) outboxes: Arc<Outboxes>,
    /// The handler's meters.
    pub(super) meters: Arc<HandlerMeters>,
    /// Where messages go that failed for good.
    pub(super) dead_letters: Arc<DeadLetters>,
    /// Limit how often failures are said: those of calls that are made again, and those that are final.
    pub(super) failures: [Occasional; 2],
    /// Limits how often messages that go in a circle are said.
    pub(super) loops: Occasional,
    /// Where calls are reported.
    pub(super) tap: Tap,
    /// An instance for each shard.
    pub(super) instances: Instances,
    /// Where a version on trial tells that it has come to a verdict.
    pub(super) verdicts: Verdicts,
    /// How the runners are hurried.
    pub(super) ending: Ending,
    /// Written at each failure.
    pub(super) last_failure: Mutex<Option<LastFailure>>,
}

/// A handler's call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// When it ended.
    pub time: SystemTime,
    /// How.
    pub result: CallResult,
    /// Why, in plain words of bounded length.
    pub error: Arc<str>,
}

impl LastFailure {
    pub(super) fn now(error: &CallError) -> LastFailure {
        let mut text = error.to_string();
        if text.len() > LAST_ERROR_BYTES {
            text.truncate(text.floor_char_boundary(LAST_ERROR_BYTES));
            text.push('…');
        }
        LastFailure { time: SystemTime::now(), result: error.result(), error: text.into() }
    }
}

/// What makes the runners of a handler that ends go sooner than their jobs would let them.
#[derive(Default)]
pub(super) struct Ending {
    /// Publishes that wait for room are left to the outboxes.
    pub(super) hand_off: CancellationToken,
    /// Calls in progress are given up.
    pub(super) cut: CancellationToken,
    /// Calls that were given up.
    pub(super) given_up: AtomicUsize,
}

impl InstanceParts {
    /// Limits for the failures of one handler.
    pub(super) fn failures() -> [Occasional; 2] {
        [Occasional::every(FAILURE_SAID), Occasional::every(FAILURE_SAID)]
    }

    /// A limit for the messages of one handler that go in a circle.
    pub(super) fn loops() -> Occasional {
        Occasional::every(LOOP_SAID)
    }

    /// An instance of a version, ready to be called.
    ///
    /// # Errors
    /// It cannot be made, or its `init` fails.
    pub(super) async fn start(&self, version: &Arc<Version>) -> Result<Counted, StartError> {
        Counted::start(version, &self.host, &self.meters).await
    }

    /// The shard's instance of this version, which is made anew where there is none.
    ///
    /// # Errors
    /// It cannot be made, or its `init` fails.
    pub(super) async fn instance(&self, shard: usize, ground: Ground<'_>) -> Result<Counted, CallError> {
        match self.instances(ground).take(shard, ground.version) {
            Some(instance) => Ok(instance),
            None => self.start(ground.version).await.map_err(not_started),
        }
    }
}

/// Does the jobs of a handler, as one of its runners, until its queue ends. Dropping the future stops it at its next wait, or
/// in the middle of a call, whose message then stays unacknowledged.
pub(super) async fn serve(parts: Arc<InstanceParts>, runner: usize) {
    loop {
        // A task of its own, so that a panic, which is a defect of the daemon, costs one call and not the runner.
        let calls = tokio::spawn(call_until_the_end(Arc::clone(&parts), runner));
        let Err(panic) = AbortOnDropHandle::new(calls).await else { return };
        tracing::error!(handler = %parts.handler.name, %panic, "a handler's task panicked, its message is dropped");
    }
}

async fn call_until_the_end(parts: Arc<InstanceParts>, runner: usize) {
    let (mut calls, mut spent) = (0, Duration::ZERO);
    loop {
        let took = match parts.queue.next(runner).await {
            Work::Call(turn, job, permit) => watched(&turn, parts.run(&turn, job, permit)).await,
            Work::Run(turn, run) => watched(&turn, parts.run_due(&turn, run)).await,
            Work::End => return,
        };
        (calls, spent) = (calls + 1, spent + took);
        if calls >= CALLS_A_TURN || spent >= TURN {
            (calls, spent) = (0, Duration::ZERO);
            tokio::task::yield_now().await;
        }
    }
}

/// Does the work of a turn, and tells when it takes long: a call that did not end within its first tick, or a wait for room.
async fn watched<T>(turn: &Turn, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            turn.held_up();
        }
        polled
    })
    .await
}

/// What a call that did not return ok shows of its handler.
fn sign(error: &CallError, given_up: bool) -> Sign {
    match error {
        CallError::Trap(_)
        | CallError::Unavailable(_)
        | CallError::Deadline(_)
        | CallError::Memory(_)
        | CallError::Limit(_) => Sign::Fails,
        CallError::Stuck(_) => Sign::Hangs,
        CallError::Retry { .. } if given_up => Sign::Fails,
        // It is the message that is bad.
        CallError::Reject(_) => Sign::Works,
        // The other is not the handler's fault: it returned ok.
        CallError::Retry { .. } | CallError::NoRoom(_) => Sign::None,
    }
}

/// A call that finds no instance fails as the instance's start did.
fn not_started(error: StartError) -> CallError {
    match error {
        StartError::Deadline(limit) => CallError::Deadline(limit),
        StartError::Stuck(limit) => CallError::Stuck(limit),
        StartError::Memory(limit) => CallError::Memory(limit),
        StartError::Limit(limit) => CallError::Limit(limit),
        StartError::Unavailable(reason) => CallError::Unavailable(reason),
        StartError::Refused(_) | StartError::Trap(_) | StartError::LeftBehind(_) => CallError::Trap(error.to_string()),
    }
}

/// A call that has run.
struct Called {
    result: Result<Vec<Publish>, CallError>,
    /// What it read and wrote.
    kv: Transaction,
}

/// What became of a call that has run.
enum Settled<'a> {
    /// Another one changed what it read: it has to run again.
    Overtaken(Job),
    /// It failed.
    Failed(Box<Job>, CallError),
    /// Its effects are handed on, and may wait for room.
    Submitted(Option<Room<'a>>),
}

impl InstanceParts {
    /// One job from its call to the hand-over of what it published; how long the call took.
    async fn run(&self, turn: &Turn, mut job: Job, permit: Permit) -> Duration {
        if job.message.hops >= HOP_LIMIT {
            drop(permit);
            self.goes_in_a_circle(job).await;
            return Duration::ZERO;
        }
        let started = Instant::now();
        // Of a message that the broker sends again, the daemon does not know how often it came.
        let attempt = job.tries.begin(started);
        let Begun { current, trial } = self.versions.begin(|| attempt == 1 && !turn.decides_quarantine());
        let settled = match &trial {
            None => self.settled(turn, job, (attempt, started), Ground::active(&current)).await,
            // Boxed, since it holds two calls, and almost none is on trial.
            Some(trial) => Box::pin(self.settled_on_trial(turn, job, (attempt, started), trial, &current)).await,
        };
        let took = started.elapsed();
        // Who waits for room holds up no other call.
        drop(permit);
        match settled {
            Some(Settled::Submitted(Some(room))) => self.admitted(room).await,
            Some(Settled::Failed(job, error)) => self.failed((turn, &current), *job, &error).await,
            Some(Settled::Submitted(None) | Settled::Overtaken(_)) | None => {}
        }
        took
    }

    /// A job's call on a version on trial. Where it fails it runs again at once on the version that runs, as the same attempt: nothing
    /// that the failed one did is left.
    async fn settled_on_trial(
        &self,
        turn: &Turn,
        job: Job,
        (attempt, started): (u32, Instant),
        trial: &Trial,
        current: &Arc<Version>,
    ) -> Option<Settled<'_>> {
        match self.settled(turn, job, (attempt, started), Ground::trial(trial)).await? {
            Settled::Failed(job, error) if is_failure(&error) => {
                self.say_failed_on_trial(trial, &job, &error);
                // A thread is lost, whatever the other version makes of the message.
                let hangs = matches!(error, CallError::Stuck(_));
                if hangs {
                    trial.failed(&error);
                }
                let again = self.settled(turn, *job, (attempt, Instant::now()), Ground::active(current)).await?;
                if !hangs && !matches!(&again, Settled::Failed(_, failure) if is_failure(failure)) {
                    trial.failed(&error);
                }
                Some(again)
            }
            Settled::Submitted(room) => {
                trial.worked();
                Some(Settled::Submitted(room))
            }
            full => Some(full),
        }
    }

    /// A job's call on one version, and what became of it once no other call overtook it; none where it was given up.
    async fn settled(
        &self,
        turn: &Turn,
        mut job: Job,
        (attempt, started): (u32, Instant),
        ground: Ground<'_>,
    ) -> Option<Settled<'_>> {
        if let Some(trace) = job.part.trace() {
            let version = ground.version.plugin.hash().to_string();
            trace.call_begins(&self.handler.name, &job.subscription.name, version, attempt);
        }
        let mut reruns = Reruns::of(self.host.kv());
        loop {
            let called = tokio::select! {
                biased;
                called = self.call((turn.shard, ground), &job, attempt, &mut reruns) => called,
                () = self.ending.cut.cancelled() => {
                    self.ending.given_up.fetch_add(1, Ordering::Relaxed);
                    // What is on the disk stays there.
                    if job.again.is_none() {
                        job.part.end(Outcome::DroppedPurged);
                    }
                    return None;
                }
            };
            match self.settle(turn, job, called, (started, ground)) {
                Settled::Overtaken(again) => job = again,
                settled => return Some(settled),
            }
            if let Some(trace) = job.part.trace() {
                trace.overtaken(&self.handler.name);
            }
            reruns.overtaken();
            self.meters.conflicts.inc();
        }
    }

    /// Calls the shard's instance, which is made anew where it was used up. A call that is dropped in the middle uses it up.
    async fn call(
        &self,
        (shard, ground): (usize, Ground<'_>),
        job: &Job,
        attempt: u32,
        reruns: &mut Reruns<'_>,
    ) -> Called {
        reruns.begin().await;
        let mut counted = match self.instance(shard, ground).await {
            Ok(counted) => counted,
            Err(error) => return Called { result: Err(error), kv: Transaction::default() },
        };
        let captures = job.subscription.topic.captures(&job.message.topic).unwrap_or_default();
        let call = Call {
            message: &job.message,
            subscription: &job.subscription.name,
            captures: &captures,
            attempt,
            trace: job.part.trace(),
        };
        let result = counted.instance.call(call).await;
        let kv = counted.instance.take_kv();
        let reusable = result.as_ref().map_or_else(CallError::keeps_instance, |_| true);
        if reusable && self.handler.isolation == Isolation::Reuse {
            self.instances(ground).put(shard, counted);
        }
        reruns.end(&kv).await;
        Called { result, kv }
    }

    /// A call has run: its effects are handed on as a whole, unless what it read is not so any more.
    fn settle(&self, turn: &Turn, job: Job, called: Called, (started, ground): (Instant, Ground<'_>)) -> Settled<'_> {
        let Called { result, kv } = called;
        let grant = self.host.kv().filter(|_| !kv.is_empty());
        let failed_on =
            |error: &CallError| matches!(error, CallError::Deadline(_) | CallError::Stuck(_) | CallError::Memory(_));
        let ready = match (&result, grant) {
            (_, None) => None,
            (Ok(_), Some(grant)) => match grant.kv.ready(kv, grant.quota) {
                Some(ready) => Some(ready),
                None => return Settled::Overtaken(job),
            },
            // What it decided, it decided on what is not so. But the limits of a call are also those of its reruns.
            (Err(error), Some(grant)) if !failed_on(error) && grant.kv.misread(&kv) => return Settled::Overtaken(job),
            (Err(_), Some(_)) => None,
        };
        let took = started.elapsed();
        self.meters.duration.observe(took.as_secs_f64());
        if let Some(trace) = job.part.trace() {
            trace.call_ended(&self.handler.name, &result, took);
        }
        match result {
            Ok(publishes) => {
                // A version on trial shows nothing of the one that runs.
                if ground.trial.is_none() && self.versions.is_current(ground.version) {
                    turn.shows(Sign::Works, String::new);
                }
                self.submit(job, publishes, ready, took)
            }
            Err(error) => {
                self.called(&job.message, error.result(), took);
                Settled::Failed(Box::new(job), error)
            }
        }
    }

    /// Counts a call.
    fn called(&self, message: &Arc<Message>, result: CallResult, took: Duration) {
        self.meters.call(result);
        self.tap.report(|| {
            let (handler, message) = (Arc::clone(&self.handler.name), Arc::clone(message));
            Sighting::Called { handler, message, result, took }
        });
    }

    /// Hands a call's effects to the outboxes. Where one rejects its publishes, the call has failed: it counts as ok, and what it
    /// writes takes effect, only once that is not so.
    fn submit(&self, job: Job, mut publishes: Vec<Publish>, ready: Option<Ready<'_>>, took: Duration) -> Settled<'_> {
        let Job { message, subscription, part, limit, tries, again } = job;
        publishes.iter_mut().for_each(|publish| publish.message.hops = Some(message.next_hop()));
        let cause = self.outboxes.cause(&message, &publishes);
        let kept = self.dead_letters.keep(Input {
            message: Arc::clone(&message),
            subscription: Arc::clone(&subscription),
            attempts: tries.begun(),
            again: again.clone(),
        });
        let order = Some(Touch::of((&self.handler.name, message.broker, &message.topic)));
        let handler = Some(Arc::clone(&self.handler.name));
        let completion = Completion {
            cause,
            kept: Some(kept),
            order,
            handler,
            ..Completion::new(part, message.arrived, Arc::clone(&self.meters))
        };
        let mut effects = Effects { publishes, commit: ready.as_ref().and_then(Ready::commit) };
        if let Some(again) = &again {
            effects.commit.get_or_insert_default().rows.push(again.removal_with_effects());
        }
        let accepted = || {
            self.called(&message, CallResult::Ok, took);
            if let Some(ready) = ready {
                ready.apply();
            }
        };
        match self.outboxes.submit(effects, completion, accepted) {
            Submitted::Done => Settled::Submitted(None),
            Submitted::Waits(room) => Settled::Submitted(Some(room)),
            Submitted::Rejected(Completion { part, .. }, full) => {
                if let Some(again) = &again {
                    again.has_no_effects();
                }
                let error = CallError::NoRoom(full);
                self.called(&message, error.result(), took);
                Settled::Failed(Box::new(Job { message, subscription, part, limit, tries, again }), error)
            }
        }
    }

    /// Waits until what was offered is in the outboxes, or is to be left to them.
    pub(super) async fn admitted(&self, mut room: Room<'_>) {
        tokio::select! {
            biased;
            () = room.admitted() => {}
            () = self.ending.hand_off.cancelled() => room.leave(),
        }
    }

    /// A call did not return ok: it is made again later, unless that is no use.
    async fn failed(&self, (turn, version): (&Turn, &Arc<Version>), job: Job, error: &CallError) {
        self.note_failure(LastFailure::now(error));
        let now = Instant::now();
        let again = match error {
            CallError::Reject(_) => Err(None),
            CallError::Retry { after, .. } => {
                job.tries.again(&self.handler.retry, now, *after, chance::random()).map_err(Some)
            }
            CallError::NoRoom(_)
            | CallError::Trap(_)
            | CallError::Unavailable(_)
            | CallError::Deadline(_)
            | CallError::Stuck(_)
            | CallError::Memory(_)
            | CallError::Limit(_) => job.tries.again(&self.handler.retry, now, None, chance::random()).map_err(Some),
        };
        self.shows((turn, version), sign(error, again.is_err()), error);
        match again {
            Ok(due) => {
                self.say_called_again(&job, error, due.saturating_duration_since(now));
                self.meters.retries.inc();
                turn.again(job, due);
            }
            Err(given_up) => {
                self.say_final(&job, error, given_up);
                self.give_up(job, error, given_up).await;
            }
        }
    }

    /// A call on this version has shown something. Nothing of the one that runs, where that is another by now.
    pub(super) fn shows(&self, (turn, version): (&Turn, &Arc<Version>), sign: Sign, error: &CallError) {
        if !self.versions.is_current(version) {
            return;
        }
        turn.shows(sign, || error.to_string());
        let trial = self.versions.trial();
        if let Some(trial) = trial.filter(|_| matches!(self.queue.standing(), Standing::Quarantined(_))) {
            trial.is_needed();
        }
    }

    pub(super) fn note_failure(&self, failure: LastFailure) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    fn say_called_again(&self, job: &Job, error: &CallError, wait: Duration) {
        if let Some(trace) = job.part.trace() {
            trace.waits_for_retry(&self.handler.name, wait);
        }
        let Some(unsaid) = self.failures[0].due() else { return };
        let (handler, topic, result) = (&self.handler.name, &job.message.topic, error.result().label());
        let (subscription, attempt, wait) = (&job.subscription.name, job.tries.begun(), format_duration(wait));
        tracing::warn!(%handler, %subscription, %topic, result, %error, attempt, wait, unsaid,
            "the call failed, it is made again");
    }

    fn say_final(&self, job: &Job, error: &CallError, given_up: Option<GivenUp>) {
        let Some(unsaid) = self.failures[1].due() else { return };
        let (handler, topic, result) = (&self.handler.name, &job.message.topic, error.result().label());
        let (subscription, attempt, given_up) = (&job.subscription.name, job.tries.begun(), given_up.map(display));
        tracing::warn!(%handler, %subscription, %topic, result, %error, attempt, given_up, unsaid,
            "the call failed, its message becomes a dead letter");
    }

    /// A message came from so many calls that it is not called.
    async fn goes_in_a_circle(&self, job: Job) {
        let Job { message, subscription, part, again, .. } = job;
        if let Some(trace) = part.trace() {
            trace.goes_in_a_circle(&self.handler.name, message.hops);
        }
        if let Some(unsaid) = self.loops.due() {
            let broker = self.host.broker(message.broker);
            let (handler, subscription, topic) = (&self.handler.name, &subscription.name, &message.topic);
            tracing::warn!(%broker, %topic, %handler, %subscription, hops = message.hops, unsaid,
                "the message becomes a dead letter: it goes in a circle");
        }
        let input = Input { message, subscription, attempts: 0, again };
        self.post(self.dead_letters.of_loop(input, part)).await;
    }

    /// The message's calls have failed for good, the last one with this error.
    async fn give_up(&self, job: Job, error: &CallError, given_up: Option<GivenUp>) {
        let Job { message, subscription, part, tries, again, .. } = job;
        if part.fate() == Fate::Returned {
            // The copy that the broker sends again will fail as well, and get what follows from that.
            return part.end(Outcome::Returned);
        }
        let input = Input { message, subscription, attempts: tries.begun(), again };
        self.post(self.dead_letters.of_call(input, part, error, given_up)).await;
    }

    /// Hands a dead letter to its outbox, and waits until there is room for it.
    async fn post(&self, letter: Option<Letter>) {
        if let Some(letter) = letter
            && let Some(room) = self.outboxes.submit_letter(letter)
        {
            self.admitted(room).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_failure_is_bounded() {
        let failure = LastFailure::now(&CallError::Trap("ü".repeat(9999)));
        assert_eq!(failure.result, CallResult::Trap);
        assert!(failure.error.len() <= LAST_ERROR_BYTES + '…'.len_utf8());
        assert!(failure.error.starts_with("the handler trapped: üü") && failure.error.ends_with("ü…"));
        let short = LastFailure::now(&CallError::Reject("no".to_owned()));
        assert_eq!(&*short.error, "the handler rejected the message: no");
    }
}
