//! A runner's work for a run of a schedule: the call, and the hand-over of what it did.
//!
//! As for a message, under the same limits, and run again where another call overtook it; but for no message: nothing is
//! acknowledged, nothing becomes a dead letter, no broker's parallel limit counts it, and it says nothing of the handler's
//! quarantine, unless native code hangs in it. A run that fails on a version on trial runs again at once on the one that runs. Who asked
//! for the run is told how it ended, and decides what follows.

use std::time::{Duration, Instant};

use super::instance::{InstanceParts, LastFailure};
use super::reruns::Reruns;
use super::trial::{Ground, is_failure};
use super::versions::Begun;
use super::{CallError, CallResult, Publish, Run};
use crate::chance;
use crate::control::config::model::Isolation;
use crate::path::dispatch::{RunEnd, RunJob, Sign, Tries, Turn};
use crate::path::kv::{Ready, Transaction};
use crate::path::outbox::{Effects, Offered, Room};
use crate::path::schedule::Aftermath;

/// A call for a run that has run.
struct Called {
    result: Result<Vec<Publish>, CallError>,
    /// What it read and wrote.
    kv: Transaction,
}

impl InstanceParts {
    /// One run from its call to the hand-over of what it did; how long the call took.
    pub(super) async fn run_due(&self, turn: &Turn, job: RunJob) -> Duration {
        let RunJob { trigger, name, due, mut tries, until, aftermath, report } = job;
        let mut aftermath = Some(aftermath);
        let started = Instant::now();
        let first = tries.begin(started) == 1;
        let run = Run { trigger, name: &name, due };
        let Begun { current, trial } = self.versions.begin(|| first);
        let settled = match &trial {
            None => self.settle_run(turn.shard, run, Ground::active(&current), &mut aftermath).await,
            Some(trial) => match self.settle_run(turn.shard, run, Ground::trial(trial), &mut aftermath).await {
                Some(Err(error)) if is_failure(&error) => {
                    self.meters.call(error.result());
                    self.say_run_failed_on_trial(trial, &name, &error);
                    let again = self.settle_run(turn.shard, run, Ground::active(&current), &mut aftermath).await;
                    match &again {
                        Some(Err(failure)) if is_failure(failure) => {}
                        Some(_) => trial.failed(&error),
                        None => {}
                    }
                    again
                }
                Some(Ok(room)) => {
                    trial.worked();
                    Some(Ok(room))
                }
                settled => settled,
            },
        };
        let took = started.elapsed();
        // The handler is removed, and the schedule was before.
        let Some(settled) = settled else { return took };
        let end = match settled {
            Ok(room) => {
                if let Some(room) = room {
                    self.admitted(room).await;
                }
                RunEnd::Ok
            }
            Err(error) => {
                if matches!(error, CallError::Stuck(_)) {
                    self.shows((turn, &current), Sign::Hangs, &error);
                }
                self.run_failed(error, tries, until)
            }
        };
        // Whoever asked may be gone.
        let _ = report.send(end);
        took
    }

    /// Calls one version for a run until no other call overtakes it, and hands on what it did; what waits for room, if anything does.
    /// None where the call was given up.
    async fn settle_run(
        &self,
        shard: usize,
        run: Run<'_>,
        ground: Ground<'_>,
        aftermath: &mut Option<Aftermath>,
    ) -> Option<Result<Option<Room<'_>>, CallError>> {
        let started = Instant::now();
        let mut hand_over = |publishes, ready| {
            let aftermath = aftermath.take().expect("a call that returned ok is the last one");
            self.hand_over(publishes, ready, aftermath)
        };
        let mut reruns = Reruns::of(self.host.kv());
        let (settled, took) = loop {
            let called = tokio::select! {
                biased;
                called = self.call_run((shard, ground), run, &mut reruns) => called,
                () = self.ending.cut.cancelled() => return None,
            };
            let took = started.elapsed();
            let grant = self.host.kv().filter(|_| !called.kv.is_empty());
            let failed_on = |error: &CallError| {
                matches!(error, CallError::Deadline(_) | CallError::Stuck(_) | CallError::Memory(_))
            };
            match (called.result, grant) {
                (Ok(publishes), None) => break (hand_over(publishes, None), took),
                (Ok(publishes), Some(grant)) => {
                    if let Some(ready) = grant.kv.ready(called.kv, grant.quota) {
                        break (hand_over(publishes, Some(ready)), took);
                    }
                }
                (Err(error), Some(grant)) if !failed_on(&error) && grant.kv.misread(&called.kv) => {}
                (Err(error), _) => break (Err(error), took),
            }
            reruns.overtaken();
            self.meters.conflicts.inc();
        };
        self.meters.duration.observe(took.as_secs_f64());
        Some(settled)
    }

    /// Calls the shard's instance, which is made anew where it was used up.
    async fn call_run(&self, (shard, ground): (usize, Ground<'_>), run: Run<'_>, reruns: &mut Reruns<'_>) -> Called {
        reruns.begin().await;
        let mut counted = match self.instance(shard, ground).await {
            Ok(counted) => counted,
            Err(error) => return Called { result: Err(error), kv: Transaction::default() },
        };
        let result = counted.instance.run(run).await;
        let kv = counted.instance.take_kv();
        let reusable = result.as_ref().map_or_else(CallError::keeps_instance, |_| true);
        if reusable && self.handler.isolation == Isolation::Reuse {
            self.instances(ground).put(shard, counted);
        }
        reruns.end(&kv).await;
        Called { result, kv }
    }

    /// Hands what a call did to the outboxes; what waits there for room, if anything does.
    fn hand_over(
        &self,
        mut publishes: Vec<Publish>,
        ready: Option<Ready<'_>>,
        aftermath: Aftermath,
    ) -> Result<Option<Room<'_>>, CallError> {
        publishes.iter_mut().for_each(|publish| publish.message.hops = Some(1));
        let effects = Effects { publishes, commit: ready.as_ref().and_then(Ready::commit) };
        let accepted = || {
            self.meters.call(CallResult::Ok);
            if let Some(ready) = ready {
                ready.apply();
            }
        };
        match self.outboxes.submit_run(effects, aftermath, accepted) {
            Offered::Done => Ok(None),
            Offered::Waits(room) => Ok(Some(room)),
            Offered::Rejected(full) => Err(CallError::NoRoom(full)),
        }
    }

    /// A run did not return ok: only where the handler asks for it, or an outbox had no room, is it called again.
    fn run_failed(&self, error: CallError, tries: Tries, until: Option<Instant>) -> RunEnd {
        self.meters.call(error.result());
        self.note_failure(LastFailure::now(&error));
        let after = match &error {
            CallError::Retry { after, .. } => Some(*after),
            CallError::NoRoom(_) => Some(None),
            _ => None,
        };
        let retry = &self.handler.retry;
        let again = after.and_then(|after| tries.again(retry, Instant::now(), after, chance::random()).ok());
        let again = again.filter(|again| until.is_none_or(|until| *again < until));
        if again.is_some() {
            self.meters.retries.inc();
        }
        RunEnd::Failed { error, again: again.map(|again| (again, tries)) }
    }
}
