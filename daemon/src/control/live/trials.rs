//! Versions of plugins on trial: how a trial begins, and what is done once it has come to a verdict or its file holds something else.
//!
//! The part of the change task that does it; the reload task has it done (`verdicts.rs`). Which calls run on trial, and what they
//! show, is in `path/handler/{canary,trial}.rs`: the verdict comes from there. A version that has passed is kept for a restart before it
//! takes over; one that failed is called no more from its verdict on. A verdict goes before a change of the configuration that is not
//! made yet, since handlers that are changed begin with another trial, or none. One that calls a handler for what its version
//! on trial does not export is made, and refuses that version, as a start would.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::install::{Installed, One, note_refused, refuse};
use crate::control::config::Loaded;
use crate::gateway::{GatewayError, Prepared, Stages};
use crate::path::dispatch::Standing;
use crate::path::handler::archive::FileState;
use crate::path::handler::canary::Verdict;
use crate::path::handler::plugin::{PluginFile, PluginHash};
use crate::path::handler::{HandlerView, NewVersion, TrialStanding};
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
    let Some(trial) = view.trial() else { return };
    let one = One { config: &stages.loaded().config, archive: stages.archive(), view };
    tokio::select! {
        biased;
        // Nothing has changed, or all of it has.
        () = stop.cancelled() => {}
        _ = one.end_trial(why, trial) => {}
    }
}

/// Does everything that may fail for a configuration. Trials that come to a verdict before that is done end first: what was to be rolled
/// back is neither started nor tried anew. Cancel safe.
///
/// # Errors
/// As of [`Stages::prepare`].
pub(super) async fn prepare(stages: &Stages, candidate: Arc<Loaded>) -> Result<Prepared, GatewayError> {
    loop {
        // Those whose version cannot be kept for a restart.
        let mut stand = Vec::new();
        for view in stages.handlers() {
            let handler = Arc::clone(&view.handler().name);
            let Some(trial) = view.trial() else { continue };
            let (version, one) =
                (trial.version, One { config: &stages.loaded().config, archive: stages.archive(), view });
            if let Installed::NotKept(_) = one.end_trial(Why::Verdict, trial).await {
                stand.push((handler, version));
            }
        }
        let prepared = stages.prepare(Arc::clone(&candidate)).await?;
        // This ends: no trial begins meanwhile, and each has one verdict.
        if with_verdict(stages).iter().all(|one| stand.contains(one)) {
            return Ok(prepared);
        }
        stages.discard(&prepared);
    }
}

/// The versions on trial that have come to a verdict, with their handlers.
fn with_verdict(stages: &Stages) -> Vec<(Arc<str>, PluginHash)> {
    let verdict = |view: HandlerView| {
        let trial = view.trial().filter(|trial| trial.verdict != Verdict::Continue)?;
        Some((Arc::clone(&view.handler().name), trial.version))
    };
    stages.handlers().filter_map(verdict).collect()
}

/// Makes what was prepared. Trials that come to a verdict while that is under way speak for the handlers that take the place of theirs, where
/// these have the version on trial; where they run it, by a change that takes the trial away, it is said. Versions on trial that lack an
/// export that is asked for now are refused.
///
/// Not cancel safe.
pub(super) async fn make(stages: &mut Stages, prepared: Prepared) {
    let on_trial: Vec<HandlerView> = stages.handlers().filter(|view| view.trial().is_some()).collect();
    for view in &on_trial {
        // Before the first call for what it cannot do, which would speak against it.
        let one = One { config: prepared.config(), archive: stages.archive(), view: view.clone() };
        one.hold_to_exports().await;
    }
    stages.make(prepared).await;
    for before in on_trial {
        let (Some(trial), Some(view)) = (before.trial(), stages.handler(&before.handler().name)) else { continue };
        if trial.verdict == Verdict::RollBack && view.version() == trial.version {
            tracing::error!(handler = %view.handler().name, version = %trial.version, calls = trial.calls, failures = trial.failures,
                "a version failed on trial while a change was made by which it runs without one");
        }
        let one = One { config: &stages.loaded().config, archive: stages.archive(), view };
        one.end_trial(Why::Verdict, trial).await;
    }
}

/// What is to be done about a version on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Its trial is over.
    Nothing,
    /// Its trial goes on.
    GoesOn,
    /// It takes the place of the one that runs.
    TakesOver,
    /// It is refused.
    RollsBack,
    /// Its trial ends without a verdict.
    Ends,
}

/// What follows from a trial of this version that stands so, for a handler that has `on_trial` on trial.
fn step(why: Why, (version, verdict): (PluginHash, Verdict), on_trial: Option<PluginHash>) -> Step {
    if on_trial != Some(version) {
        return Step::Nothing;
    }
    match (why, verdict) {
        // Whatever the file holds: it may hold this version again.
        (_, Verdict::RollBack) => Step::RollsBack,
        (Why::File(gone), _) if gone == version => Step::Ends,
        (Why::File(_), _) | (Why::Verdict, Verdict::Continue) => Step::GoesOn,
        (Why::Verdict, Verdict::Promote) => Step::TakesOver,
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

    /// Does what follows from the verdict of the trial, if there is one. Cancel safe.
    pub(super) async fn conclude(&self) -> Installed {
        match self.view.trial() {
            Some(trial) => self.end_trial(Why::Verdict, trial).await,
            None => Installed::Already,
        }
    }

    /// Does what follows from a trial that stands so: the handler's, or that of the one whose place it has taken. Cancel safe: a version
    /// is kept before it runs, and nothing is waited for in between; one that is rolled back is gone before that is remembered.
    pub(super) async fn end_trial(&self, why: Why, trial: TrialStanding) -> Installed {
        let (version, on_trial) = (trial.version, self.view.trial().map(|trial| trial.version));
        match (step(why, (version, trial.verdict), on_trial), self.missing(trial.exports)) {
            (Step::RollsBack, _) => self.roll_back(trial).await,
            (Step::Ends, _) => {
                self.withdraw(&trial);
                Installed::Already
            }
            (Step::GoesOn | Step::TakesOver, Some(missing)) => {
                self.view.end_trial();
                refuse(self.archive, &self.view, version, &missing.into()).await
            }
            (Step::TakesOver, None) => match self.keep(&trial.file).await {
                Ok(()) => self.view.promote().map_or(Installed::Already, |before| self.runs(version, before)),
                Err(error) => self.not_kept(version, &error),
            },
            (Step::GoesOn, None) | (Step::Nothing, _) => Installed::OnTrial,
        }
    }

    /// Refuses the version on trial if it lacks an export, unless it has failed already.
    async fn hold_to_exports(&self) {
        let Some(trial) = self.view.trial().filter(|trial| trial.verdict != Verdict::RollBack) else { return };
        if let Some(missing) = self.missing(trial.exports) {
            self.view.end_trial();
            _ = refuse(self.archive, &self.view, trial.version, &missing.into()).await;
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
    fn withdraw(&self, trial: &TrialStanding) {
        let handler = self.view.handler();
        self.view.end_trial();
        tracing::info!(handler = %handler.name, plugin = %handler.plugin.display(), version = %trial.version,
            running = %self.view.version(), calls = trial.calls, failures = trial.failures,
            "the trial ends: the handler's plugin file holds something else");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_counts_for_the_handler_that_has_the_version_on_trial_and_a_rollback_whatever_the_file_holds() {
        let [tried, other] = ["1", "2"].map(|digit| PluginHash::parse(&digit.repeat(64)).expect("is a hash"));
        let verdicts = [Verdict::Continue, Verdict::Promote, Verdict::RollBack];
        let check = |why, on_trial, expected: [Step; 3]| {
            assert_eq!(verdicts.map(|verdict| step(why, (tried, verdict), on_trial)), expected, "{why:?} {on_trial:?}");
        };
        check(Why::Verdict, Some(tried), [Step::GoesOn, Step::TakesOver, Step::RollsBack]);
        check(Why::File(tried), Some(tried), [Step::Ends, Step::Ends, Step::RollsBack]);
        check(Why::File(other), Some(tried), [Step::GoesOn, Step::GoesOn, Step::RollsBack]);
        // It runs, or is gone; or the next one is on trial, of which this says nothing.
        for (why, on_trial) in [
            (Why::Verdict, None),
            (Why::Verdict, Some(other)),
            (Why::File(tried), Some(other)),
            (Why::File(tried), None),
        ] {
            check(why, on_trial, [Step::Nothing; 3]);
        }
    }
}
