//! Handlers that start, and the version of its plugin that each starts with: its file's, or the one that was active before, of which a
//! copy is kept.
//!
//! Used by the stages, at the daemon's start and when a handler's configuration changes; which version goes first is decided in
//! `path/handler/archive/choice.rs`. What came of it is written to the disk once it is certain that the handlers are to run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::JoinError;

use super::GatewayError;
use super::stages::Shared;
use crate::causes::with_causes;
use crate::control::config::Loaded;
use crate::control::config::diff::{Change, Difference};
use crate::control::config::model::{Config, Handler};
use crate::path::handler::archive::{CopyError, FileState, Record, Source, Trying, sources};
use crate::path::handler::needs::not_exported;
use crate::path::handler::plugin::{LoadError, Plugin, PluginFile, PluginHash};
use crate::path::handler::{HandlerError, HandlerParts, ReadyHandler, RunningHandler, VersionError};
use crate::telemetry::metrics::ReloadResult;

/// Starts the handlers that are new or changed, and looks whether each handler exports what it is called for.
///
/// # Errors
/// Some start neither as their files say nor as they ran before, or lack an export: all of them are told.
pub(super) async fn ready(
    shared: &Shared,
    loaded: &Loaded,
    difference: &Difference,
    running: &HashMap<Arc<str>, RunningHandler>,
) -> Result<(HashMap<Arc<str>, ReadyHandler>, Vec<Found>), GatewayError> {
    // What runs already need not be compiled, nor what two handlers use be compiled twice.
    let plugins = running.values().flat_map(|handler| handler.view().plugins());
    let mut known: HashMap<PluginHash, Plugin> = plugins.map(|plugin| (plugin.hash(), plugin)).collect();
    let (mut ready, mut found, mut errors, mut failed) =
        (HashMap::new(), Vec::new(), Vec::new(), HashSet::<&str>::new());
    for (name, _) in difference.handlers.iter().filter(|(_, change)| *change != Change::Removed) {
        let Some(handler) = loaded.config.handlers.iter().find(|handler| handler.name == *name) else { continue };
        match start(shared, &loaded.config, handler, &mut known).await {
            Ok((started, what)) => {
                ready.insert(Arc::clone(name), started);
                found.push(what);
            }
            Err(error) => {
                errors.push(error);
                failed.insert(&**name);
            }
        }
    }
    let view = |name: &str| match ready.get(name) {
        Some(ready) => Some(ReadyHandler::view(ready)),
        // Of one that failed it is not known what it would export.
        None => running.get(name).filter(|_| !failed.contains(name)).map(RunningHandler::view),
    };
    // Versions on trial are not asked: one that lacks an export is refused once the change is made, as a start would refuse it.
    let missing = not_exported(&loaded.config, |name| view(name).map(|view| view.exports()));
    errors.extend(missing.into_iter().map(GatewayError::from));
    match GatewayError::of(errors) {
        None => Ok((ready, found)),
        Some(error) => Err(error),
    }
}

async fn start(
    shared: &Shared,
    config: &Config,
    handler: &Arc<Handler>,
    known: &mut HashMap<PluginHash, Plugin>,
) -> Result<(ReadyHandler, Found), GatewayError> {
    Start::of(shared, config, handler).await?.begin(known).await
}

/// Keeps what handlers start with, once that is certain, and says what an operator should know.
pub(super) async fn note(shared: &Shared, found: Vec<Found>) {
    let shared = shared.clone();
    let noted = tokio::task::spawn_blocking(move || found.into_iter().for_each(|found| found.note(&shared)));
    if let Err(panic) = noted.await {
        tracing::error!(%panic, "keeping what handlers start with panicked");
    }
}

/// One handler that is to start.
struct Start<'a> {
    shared: &'a Shared,
    config: &'a Config,
    handler: &'a Arc<Handler>,
    /// What its file holds.
    file: Result<Arc<PluginFile>, LoadError>,
    record: Record,
}

/// Why a handler does not start with a version.
enum Failed {
    Version(VersionError),
    Copy(CopyError),
    Aborted(JoinError),
}

impl From<JoinError> for Failed {
    fn from(error: JoinError) -> Failed {
        Failed::Aborted(error)
    }
}

impl From<HandlerError> for Failed {
    fn from(error: HandlerError) -> Failed {
        match error {
            HandlerError::Start(error) => Failed::Version(error.into()),
            HandlerError::Aborted(error) => Failed::Aborted(error),
        }
    }
}

impl<'a> Start<'a> {
    /// Reads what there is to start with.
    async fn of(shared: &'a Shared, config: &'a Config, handler: &'a Arc<Handler>) -> Result<Start<'a>, GatewayError> {
        let (archive, of) = (shared.archive.clone(), Arc::clone(handler));
        let read = move || (PluginFile::read(&of.plugin).map(Arc::new), archive.record(&of.name));
        let (file, record) = tokio::task::spawn_blocking(read).await?;
        Ok(Start { shared, config, handler, file, record })
    }

    /// Starts it with the first version that starts.
    async fn begin(self, known: &mut HashMap<PluginHash, Plugin>) -> Result<(ReadyHandler, Found), GatewayError> {
        let mut trying = None;
        let begun = self.attempts(known, &mut trying).await;
        // Writes to the disk.
        tokio::task::spawn_blocking(move || drop(trying)).await?;
        begun
    }

    /// As [`Self::begin`]; what is tried for the first time is noted.
    async fn attempts(
        self,
        known: &mut HashMap<PluginHash, Plugin>,
        trying: &mut Option<Trying>,
    ) -> Result<(ReadyHandler, Found), GatewayError> {
        let version = self.file.as_ref().ok().map(|file| file.hash());
        let (mut of_file, mut of_copy) = (None, None);
        let tried = self.handler.reload.canary.is_some();
        for source in sources(version, &self.record, &self.handler.plugin, tried) {
            if *source == Source::File {
                *trying = self.tries().await?;
            }
            match self.attempt(*source, known).await {
                Ok(ready) => {
                    self.say_copy(of_copy, "the version that the handler ran before does not start, its file's does");
                    let on_trial = match (*source, &of_file) {
                        (Source::Copy, None) => self.try_out(&ready, known, trying).await?,
                        _ => None,
                    };
                    let found = self.found(*source, of_file);
                    return Ok((
                        ready,
                        on_trial.map_or(found, |what| Found { handler: Arc::clone(self.handler), what }),
                    ));
                }
                Err(Failed::Aborted(error)) => return Err(error.into()),
                Err(Failed::Version(error)) if *source == Source::File => of_file = Some(error),
                Err(Failed::Version(error)) => of_copy = Some(with_causes(&error)),
                Err(Failed::Copy(error)) => of_copy = Some(with_causes(&error)),
            }
        }
        self.say_copy(of_copy, "the version that the handler ran before does not start either");
        // What an operator sees, and can mend, is the file.
        Err(match (self.file, of_file) {
            (Err(error), _) => not_started(self.handler, error.into()),
            (Ok(_), Some(error)) => not_started(self.handler, error),
            (Ok(_), None) => unreachable!("a file that can be read is one of the sources"),
        })
    }

    fn say_copy(&self, error: Option<String>, message: &'static str) {
        if let Some(error) = error {
            tracing::error!(handler = %self.handler.name, error, "{message}");
        }
    }

    /// Puts the version of the file on trial beside that of the copy, unless it was refused before.
    async fn try_out(
        &self,
        ready: &ReadyHandler,
        known: &mut HashMap<PluginHash, Plugin>,
        trying: &mut Option<Trying>,
    ) -> Result<Option<What>, GatewayError> {
        let (Some(share), Ok(file)) = (self.handler.reload.canary, &self.file) else { return Ok(None) };
        let version = file.hash();
        if self.record.is_rolled_back(version) {
            return Ok(None);
        }
        *trying = self.tries().await?;
        let view = ready.view();
        let new = match self.plugin(Source::File, known).await {
            Ok(plugin) => view.start_version(plugin).await.map_err(Failed::from),
            Err(error) => Err(error),
        };
        Ok(Some(match new {
            Ok(new) => {
                view.try_out(new, Arc::clone(file), share);
                What::OnTrial { version, running: view.version(), share }
            }
            Err(Failed::Aborted(error)) => return Err(error.into()),
            Err(Failed::Version(error)) => What::Refused(version, error),
            Err(Failed::Copy(_)) => unreachable!("the version comes from the file"),
        }))
    }

    /// Notes that native code of the file may be loaded for the first time.
    async fn tries(&self) -> Result<Option<Trying>, JoinError> {
        let Some(file) = self.file.as_ref().ok().filter(|file| file.is_native()) else { return Ok(None) };
        let (archive, handler, version) = (self.shared.archive.clone(), Arc::clone(self.handler), file.hash());
        tokio::task::spawn_blocking(move || archive.tries(&handler.name, &handler.plugin, version)).await
    }

    async fn attempt(&self, source: Source, known: &mut HashMap<PluginHash, Plugin>) -> Result<ReadyHandler, Failed> {
        let plugin = self.plugin(source, known).await?;
        self.start(plugin).await
    }

    /// The plugin of a version, which exports what the handler is called for.
    async fn plugin(&self, source: Source, known: &mut HashMap<PluginHash, Plugin>) -> Result<Plugin, Failed> {
        let plugin = match (source, &self.file) {
            (Source::File, Ok(file)) => match known.get(&file.hash()) {
                Some(plugin) => plugin.of(file).map_err(|error| Failed::Version(error.into()))?,
                None => self.compile(Arc::clone(file)).await?,
            },
            (Source::Copy, _) | (Source::File, Err(_)) => {
                let version = self.record.active(&self.handler.plugin);
                match version.map(|version| (version, known.get(&version))) {
                    Some((_, Some(plugin))) => plugin.clone(),
                    Some((version, None)) => self.compile(self.copy(version).await?).await?,
                    // Only the file was to be tried, and it cannot be read.
                    None => return Err(Failed::Version(LoadError::Missing.into())),
                }
            }
        };
        known.insert(plugin.hash(), plugin.clone());
        let view = plugin.exports();
        let exports = |name: &str| (*name == *self.handler.name).then_some(view);
        if let Some(missing) = not_exported(self.config, exports).into_iter().next() {
            return Err(Failed::Version(missing.into()));
        }
        Ok(plugin)
    }

    async fn compile(&self, file: Arc<PluginFile>) -> Result<Plugin, Failed> {
        self.shared.compiler.compile(file).await.map_err(|error| Failed::Version(error.into()))
    }

    async fn copy(&self, version: PluginHash) -> Result<Arc<PluginFile>, Failed> {
        let (archive, handler) = (self.shared.archive.clone(), Arc::clone(&self.handler.name));
        let copy = tokio::task::spawn_blocking(move || archive.copy(&handler, version)).await?;
        copy.map(Arc::new).map_err(Failed::Copy)
    }

    async fn start(&self, plugin: Plugin) -> Result<ReadyHandler, Failed> {
        let (shared, name) = (self.shared, &self.handler.name);
        let parts = HandlerParts {
            plugin,
            handler: Arc::clone(self.handler),
            // The numbers of the brokers that come with this configuration count once it runs.
            brokers: shared.names.clone(),
            outboxes: Arc::clone(&shared.outboxes),
            kvs: Arc::clone(&shared.kvs),
            places: shared.places.clone(),
            kept: shared.kept.clone(),
            meters: shared.metrics.handler(name),
            park: shared.parks.of(name),
            tap: shared.tap.clone(),
            verdicts: shared.verdicts.clone(),
        };
        ReadyHandler::start(parts).await.map_err(Failed::from)
    }

    /// What it started with, and why that is not what its file holds.
    fn found(&self, source: Source, of_file: Option<VersionError>) -> Found {
        let handler = Arc::clone(self.handler);
        let what = match (source, &self.file, of_file) {
            (Source::File, Ok(file), _) => What::File(Arc::clone(file)),
            (_, Err(LoadError::Missing), _) => What::Missing,
            (_, Err(error), _) => What::Unreadable(VersionError::reason_of(error)),
            (Source::Copy, Ok(file), Some(error)) => What::Refused(file.hash(), error),
            (Source::Copy, Ok(file), None) => What::Known(file.hash()),
        };
        Found { handler, what }
    }
}

fn not_started(handler: &Arc<Handler>, error: VersionError) -> GatewayError {
    let name = Arc::clone(&handler.name);
    match error {
        VersionError::Load(source) => GatewayError::Load { handler: name, plugin: handler.plugin.clone(), source },
        VersionError::Start(source) => GatewayError::Start { handler: name, source },
        VersionError::NotExported(missing) => missing.into(),
    }
}

/// What a handler started with.
pub(super) struct Found {
    handler: Arc<Handler>,
    what: What,
}

enum What {
    /// What its file holds.
    File(Arc<PluginFile>),
    /// The copy: the file is gone.
    Missing,
    /// The copy: nothing in the file can be read.
    Unreadable(String),
    /// The copy: what the file holds failed on trial before.
    Known(PluginHash),
    /// The copy: what the file holds is on trial.
    OnTrial { version: PluginHash, running: PluginHash, share: f64 },
    /// The copy: what the file holds is refused now.
    Refused(PluginHash, VersionError),
}

impl Found {
    /// Keeps it for the next start, and says what an operator should know. Blocks on the disk. None of it keeps the handler from
    /// running.
    fn note(self, shared: &Shared) {
        let Found { handler, what } = self;
        let (archive, name, since) = (&shared.archive, &handler.name, SystemTime::now());
        let plugin = handler.plugin.display();
        match what {
            What::File(file) => {
                if let Err(error) = archive.activate(name, &handler.plugin, &file) {
                    let (version, reason) = (file.hash(), error.to_string());
                    tracing::error!(handler = %name, %plugin, %version, %error,
                        "the version that the handler runs cannot be kept, a restart has the file alone");
                    archive.file(name, FileState::NotKept { version, reason, since });
                }
            }
            What::Missing => {
                if archive.file(name, FileState::Missing { since }) {
                    tracing::warn!(handler = %name, %plugin,
                        "the handler's plugin file is gone, it runs the copy of the version that it ran before");
                }
            }
            What::Unreadable(reason) => {
                if archive.file(name, FileState::Refused { version: None, reason: reason.clone(), since }) {
                    tracing::error!(handler = %name, %plugin, reason,
                        "the handler's plugin file is refused, it runs the copy of the version that it ran before");
                }
            }
            What::Known(version) => {
                let Some(refused) = archive.refused(name, version) else { return };
                let (reason, since) = (refused.reason.clone(), refused.time);
                archive.file(name, FileState::Refused { version: Some(version), reason: refused.reason, since });
                tracing::warn!(handler = %name, %plugin, %version, reason,
                    "the handler's plugin file holds a version that was refused before, it runs the copy of the one before that");
            }
            What::OnTrial { version, running, share } => {
                archive.file(name, FileState::OnTrial { version, since });
                tracing::info!(handler = %name, %plugin, %version, %running, share,
                    "a new version of the handler's plugin is on trial");
            }
            What::Refused(version, error) => {
                let reason = error.to_string();
                let result = if error.blames_the_version() {
                    archive.refuse(name, version, &reason, error.blocks_the_daemon());
                    ReloadResult::Refused
                } else {
                    let state = FileState::Refused { version: Some(version), reason: reason.clone(), since };
                    archive.file(name, state);
                    ReloadResult::Failed
                };
                tracing::error!(handler = %name, %plugin, %version, reason,
                    "the handler's plugin file is refused, it runs the copy of the version that it ran before");
                shared.metrics.handler(name).reload(result);
            }
        }
    }
}
