//! The part of the reload task that has trials end: once they have come to a verdict, and when their files hold something else.
//!
//! Fed by the runners, which tell of verdicts, and by the looks at files (`plugins.rs`). The change task does what follows
//! (`trials.rs`), and this waits for it.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::change::Request;
use super::plugins::Plugins;
use super::trials::{TrialEnd, Why};
use crate::path::handler::HandlerView;
use crate::path::handler::canary::Verdict;
use crate::path::handler::plugin::PluginHash;

impl Plugins {
    /// Has the change task do what follows from the verdicts of trials.
    pub(super) async fn conclude_trials(&self) {
        let views = self.running.borrow().handlers.clone();
        let has_verdict = |view: &&HandlerView| view.trial().is_some_and(|trial| trial.verdict != Verdict::Continue);
        for view in views.iter().filter(has_verdict) {
            self.have_trial_end(view, Why::Verdict).await;
        }
    }

    /// Ends the trials of all other versions than the one that the file of these handlers holds, if it holds one.
    pub(super) async fn end_other_trials(&self, views: &[HandlerView], file: Option<PluginHash>) {
        for view in views {
            if let Some(trial) = view.trial().filter(|trial| Some(trial.version) != file) {
                self.have_trial_end(view, Why::File(trial.version)).await;
            }
        }
    }

    async fn have_trial_end(&self, view: &HandlerView, why: Why) {
        let (done, told) = oneshot::channel();
        let end = TrialEnd { handler: Arc::clone(&view.handler().name), why, done };
        // Where the daemon stops, a restart begins the trial anew.
        if self.changes.send(Request::Trial(end)).await.is_ok() {
            let _ = told.await;
        }
    }
}
