//! Versions of plugins on trial: how a trial begins, and what is done once it has come to a verdict or its file holds something else.
//!
//! The part of the change task that does it; the reload task has it done (`verdicts.rs`). Which calls run on trial, and what they
//! show, is in `path/handler/{canary,trial}.rs`: the verdict comes from there. A version that has passed is kept for a restart before it
//! takes over; one that failed is called no more from its verdict on.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::install::{Installed, One, note_refused};
use crate::gateway::Stages;
use crate::path::dispatch::Standing;
use crate::path::handler::archive::FileState;
use crate::path::handler::canary::Verdict;
use crate::path::handler::plugin::{PluginFile, PluginHash};
use crate::path::handler::{NewVersion, TrialStanding};
use crate::telemetry::metrics::ReloadResult;

/// A trial that is to end.
pub struct TrialEnd {
    /// The handler's name.
    pub handler: Arc<str>,
    /// Why.
    pub why: Why,
    /// Told when it is done.
    pub done: oneshot::Sender<()>,
}

/// Why a trial is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has come to a verdict.
    Verdict,
    /// This version is not what the plugin's file holds any more.
    File(PluginHash),
}

/// Ends a handler's trial, unless it has ended already. A stop of the daemon cuts it short.
pub(super) async fn end(stages: &Stages, handler: &str, why: Why, stop: &CancellationToken) {
    let Some(view) = stages.handler(handler) else { return };
    let one = One { config: &stages.loaded().config, archive: stages.archive(), view };
    match why {
        Why::Verdict => tokio::select! {
            biased;
            // Nothing has changed, or all of it has.
            () = stop.cancelled() => {}
            _ = one.conclude() => {}
        },
        Why::File(version) => one.withdraw(version),
    }
}

impl One<'_> {
    /// The share of first calls that a new version is tried on, if it is. A handler in quarantine has no version that works, and which
    /// could run where the new one fails.
    pub(super) fn share_on_trial(&self) -> Option<f64> {
        let quarantined = matches!(self.view.queue().standing(), Standing::Quarantined(_));
        self.view.handler().reload.canary.filter(|_| !quarantined)
    }

    /// Puts a version on trial.
    pub(super) fn try_out(&self, new: NewVersion, file: &Arc<PluginFile>, share: f64) -> Installed {
        let (handler, version) = (self.view.handler(), file.hash());
        self.view.try_out(new, Arc::clone(file), share);
        self.archive.file(&handler.name, FileState::OnTrial { version, since: SystemTime::now() });
        tracing::info!(handler = %handler.name, plugin = %handler.plugin.display(), %version,
            running = %self.view.version(), share, "a new version of the handler's plugin is on trial");
        Installed::OnTrial
    }

    /// Does what follows from the verdict of the trial. Cancel safe: a version is kept before it runs, and nothing is waited for in
    /// between; one that is rolled back is gone before that is remembered.
    pub(super) async fn conclude(&self) -> Installed {
        let Some(trial) = self.view.trial() else { return Installed::Already };
        let version = trial.version;
        match trial.verdict {
            Verdict::Continue => Installed::OnTrial,
            Verdict::Promote => match self.keep(&trial.file).await {
                Ok(()) => self.view.promote().map_or(Installed::Already, |before| self.runs(version, before)),
                Err(error) => self.not_kept(version, &error),
            },
            Verdict::RollBack => self.roll_back(trial).await,
        }
    }

    async fn roll_back(&self, trial: TrialStanding) -> Installed {
        let (handler, version) = (self.view.handler(), trial.version);
        self.view.end_trial();
        self.view.meters().reload(ReloadResult::RolledBack);
        let reason = trial.refusal.unwrap_or_default();
        if note_refused(self.archive, &self.view, version, (&reason, true)).await {
            tracing::error!(handler = %handler.name, plugin = %handler.plugin.display(), %version,
                running = %self.view.version(), reason,
                "the version of the handler's plugin on trial is rolled back, the handler keeps the one that runs");
        }
        Installed::Refused(reason)
    }

    /// Ends the trial of a version that its file does not hold any more.
    fn withdraw(&self, version: PluginHash) {
        let handler = self.view.handler();
        let Some(trial) = self.view.trial().filter(|trial| trial.version == version) else { return };
        self.view.end_trial();
        tracing::info!(handler = %handler.name, plugin = %handler.plugin.display(), %version,
            running = %self.view.version(), calls = trial.calls, failures = trial.failures,
            "the trial ends: the handler's plugin file holds something else");
    }
}
