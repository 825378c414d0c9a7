//! A version of a handler's plugin on trial: its instances beside those that run, and what the runners tell of its calls.
//!
//! Owns: the trial's `canary.rs` and its instances. Fed by the runners; what has come to a verdict is told to whoever acts on it, who
//! reads it from the handler and makes the version the active one, or refuses it. Nothing here writes a file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::CallError;
use super::canary::{Canary, PASSED_AT, Shown, Verdict};
use super::instance::{InstanceParts, LastFailure};
use super::instances::Instances;
use super::plugin::{Exports, Plugin, PluginFile, PluginHash};
use super::versions::Version;
use crate::path::dispatch::Job;
use crate::telemetry::occasional::Occasional;

/// How often calls that fail on trial are said, at most.
const FAILURE_SAID: Duration = Duration::from_millis(100);

/// Where trials tell that they have come to a verdict. Cheap to clone; one waits.
#[derive(Clone, Default)]
pub struct Verdicts(Arc<Notify>);

impl Verdicts {
    /// Waits until some trial has come to a verdict since the last time. Cancellation safe.
    pub async fn told(&self) {
        self.0.notified().await;
    }
}

/// How a trial stands.
#[derive(Clone)]
pub struct TrialStanding {
    /// What is on trial.
    pub version: PluginHash,
    /// What that can be called for.
    pub exports: Exports,
    /// Calls on it that have shown something.
    pub calls: u32,
    /// Calls after which it has passed.
    pub of: u32,
    /// Those that failed, and on which the version that runs did not fail.
    pub failures: u32,
    /// What follows.
    pub verdict: Verdict,
    /// What the version was made of.
    pub file: Arc<PluginFile>,
    /// Why it is to be refused, where that is the verdict.
    pub refusal: Option<String>,
}

/// A version on trial.
pub(super) struct Trial {
    pub(super) version: Arc<Version>,
    pub(super) instances: Instances,
    /// Kept so that the version can be kept for a restart once it has passed, whatever became of the file.
    file: Arc<PluginFile>,
    state: Mutex<State>,
    said: Occasional,
    verdicts: Verdicts,
}

struct State {
    canary: Canary,
    /// Written at each failure that counts.
    last: Option<LastFailure>,
    /// The last one is a call that cannot be ended.
    hangs: bool,
}

impl Trial {
    /// Of a version that was not called yet; its instances come into their shards.
    pub(super) fn new(
        (version, file): (Arc<Version>, Arc<PluginFile>),
        instances: Instances,
        canary: Canary,
        verdicts: Verdicts,
    ) -> Trial {
        let state = Mutex::new(State { canary, last: None, hangs: false });
        Trial { version, instances, file, state, said: Occasional::every(FAILURE_SAID), verdicts }
    }

    /// What is on trial.
    pub(super) fn plugin(&self) -> &Plugin {
        &self.version.plugin
    }

    /// Whether the first call that comes now runs on this version.
    pub(super) fn chooses(&self) -> bool {
        self.lock().canary.chooses()
    }

    /// A call on trial returned ok.
    pub(super) fn worked(&self) {
        let verdict = self.lock().canary.ended(Shown::Works);
        self.tell(verdict);
    }

    /// A call on trial failed, and the version that runs did not fail on the same; or it hangs. Where there was no room for an instance,
    /// that is not the version's fault, and shows nothing.
    pub(super) fn failed(&self, error: &CallError) {
        if matches!(error, CallError::Unavailable(_)) {
            return;
        }
        let verdict = {
            let State { canary, last, hangs } = &mut *self.lock();
            // After the verdict nothing counts, and its reason stands.
            if canary.verdict() == Verdict::Continue {
                *last = Some(LastFailure::now(error));
                *hangs = matches!(error, CallError::Stuck(_));
            }
            if *hangs { canary.hangs() } else { canary.ended(Shown::Fails) }
        };
        self.tell(verdict);
    }

    /// The version that runs is left alone since it fails.
    pub(super) fn is_needed(&self) {
        let verdict = self.lock().canary.is_needed();
        self.tell(verdict);
    }

    fn tell(&self, verdict: Verdict) {
        if verdict != Verdict::Continue {
            self.verdicts.0.notify_one();
        }
    }

    /// How it stands.
    pub(super) fn standing(&self) -> TrialStanding {
        let State { canary, last, hangs } = &*self.lock();
        let (calls, failures, verdict) = (canary.calls(), canary.failures(), canary.verdict());
        let refusal = || {
            let last = last.as_ref().map(|last| format!("; the last: {}", last.error)).unwrap_or_default();
            let most = canary.max_failures();
            if *hangs {
                return format!("a call on trial hangs{last}");
            }
            format!("{failures} of {calls} calls on trial failed, more than max-failures = {most}{last}")
        };
        let refusal = (verdict == Verdict::RollBack).then(refusal);
        let Version { plugin, .. } = &*self.version;
        let (version, exports, file) = (plugin.hash(), plugin.exports(), Arc::clone(&self.file));
        TrialStanding { version, exports, calls, of: PASSED_AT, failures, verdict, file, refusal }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call runs on.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) version: &'a Arc<Version>,
    /// The trial, if it is a version on trial.
    pub(super) trial: Option<&'a Trial>,
}

impl<'a> Ground<'a> {
    /// A version that runs.
    pub(super) fn active(version: &'a Arc<Version>) -> Ground<'a> {
        Ground { version, trial: None }
    }

    /// A version on trial.
    pub(super) fn trial(trial: &'a Trial) -> Ground<'a> {
        Ground { version: &trial.version, trial: Some(trial) }
    }
}

/// Whether a call that failed on trial is made again on the version that runs, and may tell of the trial. Full outboxes do not: the call
/// returned ok, and another version would find no more room.
pub(super) fn is_failure(error: &CallError) -> bool {
    !matches!(error, CallError::NoRoom(_))
}

impl InstanceParts {
    /// Where the instances for a call are. Those of a version that has passed its trial meanwhile go where the others are.
    pub(super) fn instances<'a>(&'a self, ground: Ground<'a>) -> &'a Instances {
        match ground.trial {
            Some(trial) if !self.versions.is_current(&trial.version) => &trial.instances,
            Some(_) | None => &self.instances,
        }
    }

    /// A message's call failed on trial: it is made again at once on the version that runs.
    pub(super) fn say_failed_on_trial(&self, trial: &Trial, job: &Job, error: &CallError) {
        let Some(unsaid) = trial.said.due() else { return };
        let (handler, topic, result) = (&self.handler.name, &job.message.topic, error.result().label());
        let (subscription, version) = (&job.subscription.name, trial.plugin().hash());
        tracing::warn!(%handler, %subscription, %topic, %version, result, %error, unsaid,
            "the call failed on the version on trial, it is made again on the one that runs");
    }

    /// Likewise for a run.
    pub(super) fn say_run_failed_on_trial(&self, trial: &Trial, run: &str, error: &CallError) {
        let Some(unsaid) = trial.said.due() else { return };
        let (handler, result, version) = (&self.handler.name, error.result().label(), trial.plugin().hash());
        tracing::warn!(%handler, run, %version, result, %error, unsaid,
            "the run failed on the version on trial, it is made again on the one that runs");
    }
}
