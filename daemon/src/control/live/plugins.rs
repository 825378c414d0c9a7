//! The reload task: handlers run what their plugins' files hold.
//!
//! Fed by the watch (`control/watch`), which tells of files that have settled and of files that went, and by commands through a bounded
//! channel. It reads and hashes a file, compares that with what runs and with what was refused, and has the rest compiled on the
//! compiler's thread, once for all handlers of the file; the change task makes them run it (`install.rs`). What came of a look is put into
//! words in `looked.rs`; how it has trials end is in `verdicts.rs`. One file at a time. It waits for the disk, for compilations and for
//! the change task, and nobody waits for it but who commanded. It ends when a stop begins.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::change::{Request, stopping};
use super::install::{Install, refuse};
use super::looked::{Looked, looked, told};
use super::unread::Unread;
use super::{Live, Refusal, RefusalKind, Running, WAITING_RELOADS};
use crate::control::admin::resource::Reloaded;
use crate::control::config::model::Handler;
use crate::control::watch::{PLUGINS, Seen, Settled, Sight, Wanted, Watch};
use crate::path::handler::archive::{Archive, FileState};
use crate::path::handler::plugin::{Compiler, LoadError, Plugin, PluginFile, PluginHash};
use crate::path::handler::{HandlerView, Verdicts, VersionError};
use crate::telemetry::metrics::ReloadResult;

/// A command to look at the file of a handler's plugin now.
pub struct Reload {
    handler: String,
    answer: oneshot::Sender<Result<Reloaded, Refusal>>,
}

impl Live {
    /// Has a handler run what its plugin's file holds, also where that was refused before. Cancellation safe: it goes on.
    ///
    /// # Errors
    /// There is no such handler; or why it keeps the version that runs.
    pub async fn reload(&self, handler: &str) -> Result<Reloaded, Refusal> {
        self.running().handler(handler)?;
        let (answer, told) = oneshot::channel();
        self.reloads.try_send(Reload { handler: handler.to_owned(), answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::new(
                RefusalKind::Busy,
                format!("{WAITING_RELOADS} commands to reload a handler wait already"),
                "try again when they are done",
            ),
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        told.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// The reload task.
pub struct Plugins {
    pub(super) running: watch::Receiver<Arc<Running>>,
    pub(super) changes: mpsc::Sender<Request>,
    verdicts: Verdicts,
    archive: Archive,
    compiler: Compiler,
    watch: Watch,
    sight: Sight,
    /// Of what runs, as it was looked at last.
    handlers: Vec<Arc<Handler>>,
    /// Files of which a version was compiled and dropped for a newer one: the next is installed, so that a file that changes all the
    /// time does not keep its handlers from every new version.
    dropped: HashSet<PathBuf>,
    /// Files that are looked at again.
    unread: Unread,
}

/// Who is asked for.
#[derive(Clone, Copy)]
enum Whom<'a> {
    /// All handlers of the file that need it, as long as the file is as it was seen.
    Those(&'a Settled),
    /// All of them, as the file is now.
    All,
    /// This one, whatever is known against the version.
    One(&'a str),
}

impl Whom<'_> {
    /// Whether the file has changed since it was seen: that is told of again.
    async fn is_outdated(self) -> bool {
        let Whom::Those(settled) = self else { return false };
        let settled = settled.clone();
        !tokio::task::spawn_blocking(move || settled.holds()).await.unwrap_or(false)
    }
}

/// The files of all handlers.
fn wanted(handlers: &[Arc<Handler>]) -> Wanted {
    Wanted { files: handlers.iter().map(|handler| handler.plugin.clone()).collect(), folders: Vec::new() }
}

/// What runs.
fn handlers(running: &Running) -> Vec<Arc<Handler>> {
    running.handlers.iter().map(|view| Arc::clone(view.handler())).collect()
}

/// The files of handlers that were started since `before`.
fn newly_read(before: &[Arc<Handler>], now: &[Arc<Handler>]) -> BTreeSet<PathBuf> {
    let is_new = |handler: &&Arc<Handler>| !before.iter().any(|known| Arc::ptr_eq(known, handler));
    now.iter().filter(is_new).map(|handler| handler.plugin.clone()).collect()
}

impl Plugins {
    /// The task for what runs; `changes` leads to the change task, and `verdicts` comes from the trials. Watches the files of all handlers
    /// from now on.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn new(
        running: watch::Receiver<Arc<Running>>,
        (changes, verdicts): (mpsc::Sender<Request>, Verdicts),
        archive: Archive,
        compiler: Compiler,
    ) -> io::Result<Plugins> {
        let handlers = handlers(&running.borrow());
        let (watch, sight) = Watch::start("plugins-dir", PLUGINS, wanted(&handlers))?;
        Ok(Plugins {
            running,
            changes,
            verdicts,
            archive,
            compiler,
            watch,
            sight,
            handlers,
            dropped: HashSet::new(),
            unread: Unread::default(),
        })
    }

    /// Reloads what is to be reloaded, until a stop.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Reload>, stopping: CancellationToken) {
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = self.work(&mut commands) => {}
        }
    }

    async fn work(&mut self, commands: &mut mpsc::Receiver<Reload>) {
        let (mut running, verdicts) = (self.running.clone(), self.verdicts.clone());
        loop {
            let again = self.unread.next();
            tokio::select! {
                Some(command) = commands.recv() => self.obey(command).await,
                () = verdicts.told() => self.conclude_trials().await,
                Some(seen) = self.sight.next() => {
                    for one in seen {
                        self.saw(&one).await;
                    }
                }
                Ok(()) = running.changed() => {
                    let handlers = handlers(&running.borrow_and_update());
                    self.follow(handlers);
                    // A handler that was not among those that run when its trial came to a verdict.
                    self.conclude_trials().await;
                }
                () = sleep_until(again.unwrap_or_else(Instant::now).into()), if again.is_some() => {
                    for path in self.unread.due(Instant::now()) {
                        self.look(&path, Whom::All).await;
                    }
                }
                // Nobody is left who could ask.
                else => return,
            }
        }
    }

    /// What runs has changed. A handler that was started for that has read its file before anybody saw it here: what the file has become
    /// since then may have been told of for the file's other handlers alone.
    fn follow(&mut self, handlers: Vec<Arc<Handler>>) {
        self.watch.want(wanted(&handlers));
        self.watch.tell_again(newly_read(&self.handlers, &handlers));
        self.handlers = handlers;
    }

    /// A file has changed. What comes of it is said by whoever brings it about.
    async fn saw(&mut self, seen: &Seen) {
        match seen {
            Seen::Settled(settled) => {
                self.look(&settled.path, Whom::Those(settled)).await;
            }
            Seen::Gone(path) => {
                let running = Arc::clone(&self.running.borrow());
                let views = running.handlers.iter().filter(|view| view.handler().plugin == *path);
                let views: Vec<HandlerView> = views.cloned().collect();
                self.end_other_trials(&views, None).await;
                views.iter().for_each(|view| drop(self.missing(view)));
            }
        }
    }

    async fn obey(&mut self, Reload { handler, answer }: Reload) {
        let running = Arc::clone(&self.running.borrow());
        let answered = match running.handler(&handler) {
            Err(refusal) => Err(refusal),
            Ok(view) => {
                let before = view.version();
                let looked = self.look(&view.handler().plugin.clone(), Whom::One(&handler)).await;
                told(&handler, before, looked.into_iter().next().map(|(_, looked)| looked))
            }
        };
        // Whoever asked may have gone.
        let _ = answer.send(answered);
    }

    /// Looks at a file, and has handlers run what it holds. What came of it for those that it is about.
    async fn look(&mut self, path: &Path, whom: Whom<'_>) -> Vec<(Arc<str>, Looked)> {
        let views = self.views(path, whom);
        let all = !matches!(whom, Whom::One(_));
        if views.is_empty() {
            // Nobody has it any more.
            self.unread.was_read(path, all);
            return Vec::new();
        }
        let read = {
            let path = path.to_owned();
            tokio::task::spawn_blocking(move || PluginFile::read(&path)).await
        };
        if whom.is_outdated().await {
            return Vec::new();
        }
        match &read {
            Ok(Err(LoadError::Read(_))) => self.unread.failed(path, Instant::now()),
            Ok(read) => {
                self.unread.was_read(path, all);
                self.end_other_trials(&views, read.as_ref().ok().map(PluginFile::hash)).await;
            }
            Err(_) => {}
        }
        match read {
            Ok(Ok(file)) => self.found(path, Arc::new(file), views, whom).await,
            Ok(Err(LoadError::Missing)) => views.iter().map(|view| self.missing(view)).collect(),
            Ok(Err(error)) => views.iter().map(|view| self.unreadable(view, &error)).collect(),
            Err(panic) => {
                tracing::error!(%panic, plugin = %path.display(), "reading a plugin panicked");
                Vec::new()
            }
        }
    }

    /// The handlers of a file.
    fn views(&self, path: &Path, whom: Whom<'_>) -> Vec<HandlerView> {
        let running = self.running.borrow();
        let is_meant = |view: &&HandlerView| match whom {
            Whom::Those(_) | Whom::All => true,
            Whom::One(name) => *view.handler().name == *name,
        };
        running.handlers.iter().filter(|view| view.handler().plugin == path).filter(is_meant).cloned().collect()
    }

    async fn found(
        &mut self,
        path: &Path,
        file: Arc<PluginFile>,
        views: Vec<HandlerView>,
        whom: Whom<'_>,
    ) -> Vec<(Arc<str>, Looked)> {
        let (version, mut results, mut wanting) = (file.hash(), Vec::new(), Vec::new());
        for view in views {
            match self.known(&view, version, whom) {
                Some(looked) => results.push((Arc::clone(&view.handler().name), looked)),
                None => wanting.push(view),
            }
        }
        if !wanting.is_empty() {
            results.extend(self.have_run(path, file, wanting, whom).await);
        }
        results
    }

    /// What follows from what is known of a version, if that is enough.
    fn known(&self, view: &HandlerView, version: PluginHash, whom: Whom<'_>) -> Option<Looked> {
        let (name, plugin) = (&view.handler().name, view.handler().plugin.display());
        if view.version() == version {
            // What a start or a change of the configuration could not keep, the change task keeps now.
            if !self.archive.keeps(name, &view.handler().plugin, version) {
                return None;
            }
            if self.archive.file(name, FileState::Runs) {
                tracing::info!(handler = %name, %plugin, %version, "the handler's plugin file holds the version that runs");
            }
            return Some(Looked::Runs);
        }
        if let Whom::One(_) = whom {
            return None;
        }
        let refused = self.archive.refused(name, version)?;
        let (reason, since) = (refused.reason.clone(), refused.time);
        if self.archive.file(name, FileState::Refused { version: Some(version), reason: refused.reason, since }) {
            tracing::warn!(handler = %name, %plugin, %version, running = %view.version(), reason,
                "the handler's plugin file holds a version that was refused before, the handler keeps the one that runs");
        }
        Some(Looked::Keeps(RefusalKind::Plugin, reason))
    }

    /// Has handlers run a version. What is native is noted before it is loaded for the first time, until that was outlived.
    async fn have_run(
        &mut self,
        path: &Path,
        file: Arc<PluginFile>,
        wanting: Vec<HandlerView>,
        whom: Whom<'_>,
    ) -> Vec<(Arc<str>, Looked)> {
        if !file.is_native() {
            return self.install(path, file, wanting, whom).await;
        }
        let (archive, version) = (self.archive.clone(), file.hash());
        // What runs, and is to be kept alone, was outlived; so was what is on trial.
        let is_new = |view: &&HandlerView| !view.plugins().any(|plugin| plugin.hash() == version);
        let tried = wanting.iter().filter(is_new);
        let handlers: Vec<_> = tried.map(|view| Arc::clone(view.handler())).collect();
        let tries = move || {
            let tries = |handler: &Arc<Handler>| archive.tries(&handler.name, &handler.plugin, version);
            handlers.iter().filter_map(tries).collect::<Vec<_>>()
        };
        let trying = tokio::task::spawn_blocking(tries).await;
        let results = self.install(path, file, wanting, whom).await;
        // Writes to the disk.
        let tried = tokio::task::spawn_blocking(move || trying.map(drop)).await;
        if let Err(panic) | Ok(Err(panic)) = tried {
            tracing::error!(%panic, plugin = %path.display(), "noting that a plugin is tried panicked");
        }
        results
    }

    /// Has handlers run a version.
    async fn install(
        &mut self,
        path: &Path,
        file: Arc<PluginFile>,
        wanting: Vec<HandlerView>,
        whom: Whom<'_>,
    ) -> Vec<(Arc<str>, Looked)> {
        let version = file.hash();
        // Another handler may run it already.
        let runs = self
            .running
            .borrow()
            .handlers
            .iter()
            .flat_map(HandlerView::plugins)
            .find(|plugin| plugin.hash() == version);
        let compiled = match runs {
            Some(plugin) => plugin.of(&file),
            None => self.compile(path, Arc::clone(&file)).await,
        };
        if !self.dropped.remove(path) && whom.is_outdated().await {
            self.dropped.insert(path.to_owned());
            return Vec::new();
        }
        let plugin = match compiled {
            Ok(plugin) => plugin,
            Err(error) => {
                let (error, mut results) = (error.into(), Vec::new());
                for view in wanting {
                    let installed = refuse(&self.archive, &view, version, &error).await;
                    results.push((Arc::clone(&view.handler().name), looked(installed, version)));
                }
                return results;
            }
        };
        let (answer, installed) = oneshot::channel();
        let handlers = wanting.iter().map(|view| Arc::clone(&view.handler().name)).collect();
        let install = Install { handlers, path: path.to_owned(), file, plugin, answer };
        if self.changes.send(Request::Install(install)).await.is_err() {
            return Vec::new();
        }
        let installed = installed.await.unwrap_or_default();
        installed.into_iter().map(|(name, installed)| (name, looked(installed, version))).collect()
    }

    async fn compile(&self, path: &Path, file: Arc<PluginFile>) -> Result<Plugin, LoadError> {
        let (begun, version) = (Instant::now(), file.hash());
        let plugin = self.compiler.compile(file).await?;
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
        tracing::info!(plugin = %path.display(), %version, milliseconds, "a plugin's new version was compiled");
        Ok(plugin)
    }

    fn missing(&self, view: &HandlerView) -> (Arc<str>, Looked) {
        let handler = view.handler();
        let plugin = handler.plugin.display();
        if self.archive.file(&handler.name, FileState::Missing { since: SystemTime::now() }) {
            tracing::warn!(handler = %handler.name, %plugin, running = %view.version(),
                "the handler's plugin file is gone, the handler keeps the version that runs");
        }
        let looked = Looked::Keeps(RefusalKind::Plugin, format!("{plugin} does not exist"));
        (Arc::clone(&handler.name), looked)
    }

    /// What is in the file has no version.
    fn unreadable(&self, view: &HandlerView, error: &LoadError) -> (Arc<str>, Looked) {
        let (handler, reason) = (view.handler(), VersionError::reason_of(error));
        let plugin = handler.plugin.display();
        let state = FileState::Refused { version: None, reason: reason.clone(), since: SystemTime::now() };
        if self.archive.file(&handler.name, state) {
            view.meters().reload(ReloadResult::Refused);
            tracing::error!(handler = %handler.name, %plugin, running = %view.version(), reason,
                "the handler's plugin file is refused, the handler keeps the version that runs");
        }
        (Arc::clone(&handler.name), Looked::Keeps(RefusalKind::Plugin, format!("{plugin} is refused: {reason}")))
    }
}
