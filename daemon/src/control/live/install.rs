//! A new version of a plugin takes the place of the one that a handler runs: the part of the change task that does it.
//!
//! Fed by the reload task (`plugins.rs`), which has read and compiled the file before. A handler runs the version once instances of it
//! have started, it exports what the handler is called for, and it is kept for a restart; an earlier error changes nothing, and is
//! remembered of the version. Waits for `init` and for the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::trials::Why;
use crate::control::config::model::Config;
use crate::gateway::Stages;
use crate::path::handler::archive::{Archive, FileState};
use crate::path::handler::needs::{NotExported, not_exported};
use crate::path::handler::plugin::{Exports, Plugin, PluginFile, PluginHash};
use crate::path::handler::{HandlerError, HandlerView, VersionError};
use crate::telemetry::metrics::ReloadResult;

/// A version that handlers are to run.
pub struct Install {
    /// Their names.
    pub handlers: Vec<Arc<str>>,
    /// The file that they are configured with.
    pub path: PathBuf,
    /// What it holds.
    pub file: Arc<PluginFile>,
    /// What was made of that.
    pub plugin: Plugin,
    /// What came of it, for each that is there.
    pub answer: oneshot::Sender<Vec<(Arc<str>, Installed)>>,
}

/// What came of a version that a handler was to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// It runs, in place of this one.
    Now {
        /// The version before.
        before: PluginHash,
    },
    /// It ran already.
    Already,
    /// It is on trial beside the one that runs.
    OnTrial,
    /// It does not run, for this reason.
    Refused(String),
    /// It cannot be kept for a restart: what is in the way. It runs only where it ran already.
    NotKept(String),
}

/// Has handlers run a version, one after the other. Those that are gone, or have another file by now, are left out. A stop of the
/// daemon ends it.
pub(super) async fn install(
    stages: &Stages,
    install: &Install,
    stop: &CancellationToken,
) -> Vec<(Arc<str>, Installed)> {
    let mut results = Vec::new();
    for name in &install.handlers {
        let Some(view) = stages.handler(name).filter(|view| view.handler().plugin == install.path) else { continue };
        let one = One { config: &stages.loaded().config, archive: stages.archive(), view };
        tokio::select! {
            biased;
            // Nothing has changed, or all of it has.
            () = stop.cancelled() => break,
            result = one.install(install) => results.push((Arc::clone(name), result)),
        }
    }
    results
}

/// A handler that is to run a version.
pub(super) struct One<'a> {
    pub(super) config: &'a Config,
    pub(super) archive: &'a Archive,
    pub(super) view: HandlerView,
}

impl One<'_> {
    /// Cancel safe: it is kept before it runs, and nothing is waited for in between.
    async fn install(&self, install: &Install) -> Installed {
        let version = install.plugin.hash();
        if self.view.version() == version {
            return self.keep_what_runs(&install.file).await;
        }
        if self.view.trial().is_some_and(|trial| trial.version == version) {
            return self.conclude().await;
        }
        if let Some(missing) = self.missing(install.plugin.exports()) {
            return refuse(self.archive, &self.view, version, &missing.into()).await;
        }
        let new = match self.view.start_version(install.plugin.clone()).await {
            Ok(new) => new,
            Err(HandlerError::Start(error)) => {
                return refuse(self.archive, &self.view, version, &error.into()).await;
            }
            Err(HandlerError::Aborted(error)) => return self.not_kept(version, &error.to_string()),
        };
        if let Some(other) = self.view.trial() {
            self.end_trial(Why::File(other.version), other).await;
        }
        if let Some(share) = self.share_on_trial() {
            return self.try_out(new, &install.file, share);
        }
        match self.keep(&install.file).await {
            Ok(()) => self.runs(version, self.view.swap(new)),
            Err(error) => self.not_kept(version, &error),
        }
    }

    /// The file holds what runs. A start, or a change of the configuration, may not have been able to keep that for a restart.
    async fn keep_what_runs(&self, file: &Arc<PluginFile>) -> Installed {
        let (handler, version) = (self.view.handler(), file.hash());
        if self.archive.keeps(&handler.name, &handler.plugin, version) {
            self.archive.file(&handler.name, FileState::Runs);
            return Installed::Already;
        }
        match self.keep(file).await {
            Ok(()) => {
                tracing::info!(handler = %handler.name, plugin = %handler.plugin.display(), %version,
                    "the version that the handler runs is kept for a restart now");
                Installed::Already
            }
            Err(error) => self.not_kept(version, &error),
        }
    }

    /// What the handler is called for, and a version with these exports cannot serve.
    pub(super) fn missing(&self, exports: Exports) -> Option<NotExported> {
        let name = &self.view.handler().name;
        not_exported(self.config, |handler| (*handler == **name).then_some(exports)).into_iter().next()
    }

    /// It runs a version in place of another.
    pub(super) fn runs(&self, version: PluginHash, before: PluginHash) -> Installed {
        let handler = self.view.handler();
        self.view.meters().reload(ReloadResult::Ok);
        let plugin = handler.plugin.display();
        tracing::info!(handler = %handler.name, %plugin, %version, %before, "the handler runs a new version");
        Installed::Now { before }
    }

    /// Keeps the version for a restart.
    pub(super) async fn keep(&self, file: &Arc<PluginFile>) -> Result<(), String> {
        let (archive, handler, file) = (self.archive.clone(), Arc::clone(self.view.handler()), Arc::clone(file));
        let kept = tokio::task::spawn_blocking(move || archive.activate(&handler.name, &handler.plugin, &file)).await;
        match kept {
            Ok(kept) => kept.map_err(|error| error.to_string()),
            Err(panic) => Err(panic.to_string()),
        }
    }

    pub(super) fn not_kept(&self, version: PluginHash, reason: &str) -> Installed {
        let (handler, since) = (self.view.handler(), SystemTime::now());
        self.view.meters().reload(ReloadResult::Failed);
        if self.archive.file(&handler.name, FileState::NotKept { version, reason: reason.to_owned(), since }) {
            let running = self.view.version();
            let message = match running == version {
                true => "the version that the handler runs cannot be kept, a restart has the file alone",
                false => "a new version of the handler's plugin cannot be kept, the handler keeps the one that runs",
            };
            tracing::error!(handler = %handler.name, plugin = %handler.plugin.display(), %version, %running, reason,
                "{message}");
        }
        Installed::NotKept(reason.to_owned())
    }
}

/// A handler is not to run a version: what is said of that, and remembered where the version is at fault.
pub(super) async fn refuse(
    archive: &Archive,
    view: &HandlerView,
    version: PluginHash,
    error: &VersionError,
) -> Installed {
    let (handler, reason) = (view.handler(), error.to_string());
    let is_news = if error.blames_the_version() {
        view.meters().reload(ReloadResult::Refused);
        note_refused(archive, view, version, (&reason, error.blocks_the_daemon())).await
    } else {
        view.meters().reload(ReloadResult::Failed);
        let since = SystemTime::now();
        archive.file(&handler.name, FileState::Refused { version: Some(version), reason: reason.clone(), since })
    };
    if is_news {
        tracing::error!(handler = %handler.name, plugin = %handler.plugin.display(), %version,
            running = %view.version(), reason,
            "a new version of the handler's plugin is refused, the handler keeps the one that runs");
    }
    Installed::Refused(reason)
}

/// Remembers that a handler is not to run a version, nor to try it again after a restart where that is `for_good`. Whether that is news.
pub(super) async fn note_refused(
    archive: &Archive,
    view: &HandlerView,
    version: PluginHash,
    (reason, for_good): (&str, bool),
) -> bool {
    let (archive, handler, reason) = (archive.clone(), Arc::clone(view.handler()), reason.to_owned());
    let noted = move || archive.refuse(&handler.name, version, &reason, for_good);
    let noted = tokio::task::spawn_blocking(noted).await;
    noted.unwrap_or_else(|panic| {
        tracing::error!(%panic, "noting that a version is refused panicked");
        false
    })
}
