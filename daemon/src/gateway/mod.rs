//! All wiring: which stages exist, what connects them, in which order they start and stop.
//!
//! ```text
//! session ──> router ──> dispatch ──> handler ──> outbox ──> session
//! ```
//! Fed by a validated configuration; used by `tidegate run` and `tidegate demo`. It decides nothing about messages.

mod stages;
mod starting;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::stages::Shared;
pub use self::stages::{Prepared, Stages};
use crate::causes::{first_of, with_causes};
use crate::control::admin::api::Api;
use crate::control::admin::{Admin, AdminError, Pages};
use crate::control::config::Loaded;
use crate::control::config::model::Config;
use crate::control::live::{self, Live, Plugins, Reloads, Retries};
use crate::path::dead_letter::Places;
use crate::path::handler::archive::Archive;
use crate::path::handler::native::Natives;
use crate::path::handler::needs::NotExported;
use crate::path::handler::plugin::{Compiler, LoadError, Loader};
use crate::path::handler::wasm::{EngineError, WasmEngine};
use crate::path::handler::{StartError, Verdicts};
use crate::path::kept::Kept;
use crate::path::kv::{self, Kvs};
use crate::path::outbox::{self, Outboxes};
use crate::path::park::Parks;
use crate::path::receipt::Progress;
use crate::path::router::Router;
use crate::path::schedule::{self, Schedules};
use crate::store::{LockError, StateLock, Store, StoreError, StoreWriter};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::received::ReceivedRing;
use crate::telemetry::tap::Tap;
use crate::telemetry::trace::Tracer;

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The state directory cannot be used.
    #[error("state-dir = {} must be a directory that the daemon can create or write to", .path.display())]
    StateDir {
        /// As configured.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The state directory is another daemon's, or cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A signal cannot be handled.
    #[error("the signal about the limit of a file's size cannot be handled")]
    Signal(#[source] io::Error),
    /// What must survive the daemon cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The admin plane cannot be reached.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The WebAssembly engine cannot be made.
    #[error("the WebAssembly engine does not start")]
    Engine(#[from] EngineError),
    /// The thread that compiles plugins does not start.
    #[error("the thread that compiles plugins does not start")]
    Compiler(#[source] io::Error),
    /// The thread that watches plugins does not start.
    #[error("the thread that watches plugins-dir does not start")]
    Watch(#[source] io::Error),
    /// A plugin does not load.
    #[error("handlers.{handler}.plugin = {}", .plugin.display())]
    Load {
        /// The handler's name.
        handler: Arc<str>,
        /// The plugin's path.
        plugin: PathBuf,
        /// What is wrong with it.
        source: LoadError,
    },
    /// A plugin's first instance does not start.
    #[error("handlers.{handler}: the first instance does not start")]
    Start {
        /// The handler's name.
        handler: Arc<str>,
        /// What is wrong with it.
        source: StartError,
    },
    /// A plugin does not export what the configuration calls it for.
    #[error(transparent)]
    NotExported(#[from] NotExported),
    /// Several of what may be wrong with handlers, in the order of the configuration.
    #[error("the configuration has {} problems{}", .0.len(), lines(.0))]
    Several(Vec<GatewayError>),
    /// A defect of the metrics' definitions.
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// A start step panicked.
    #[error("a start step ended early")]
    Aborted(#[from] tokio::task::JoinError),
}

impl GatewayError {
    /// As one error; none of none.
    fn of(mut errors: Vec<GatewayError>) -> Option<GatewayError> {
        if errors.len() > 1 { Some(GatewayError::Several(errors)) } else { errors.pop() }
    }
}

/// The first of several errors, a line each.
fn lines(errors: &[GatewayError]) -> String {
    first_of(errors.iter().map(|error| with_causes(error))).iter().map(|line| format!("\n  {line}")).collect()
}

/// A running gateway.
pub struct Gateway {
    config: Arc<Config>,
    admin: Option<SocketAddr>,
    tap: Tap,
    live: Live,
    /// Has the configuration read again when its files change. Ends when a stop begins.
    watch_config: AbortOnDropHandle<()>,
    router: Arc<Router>,
    /// `shutdown-grace`, as it is now.
    grace: Arc<watch::Sender<Duration>>,
    progress: Arc<Progress>,
    /// Loads plugins.
    plugin_loader: Loader,
    /// Owns the stages until it is stopped.
    changes: JoinHandle<Stages>,
    stop_changes: CancellationToken,
    /// Cancelled when the grace period of a stop is over.
    hurry: CancellationToken,
    admin_task: JoinHandle<()>,
    /// Writes what must survive the daemon. Closed last.
    writer: StoreWriter,
    /// Nobody else uses the state directory while this is there.
    lock: StateLock,
    /// Drops publishes that are too old. Aborted when this goes.
    expiry: AbortOnDropHandle<()>,
    /// Forgets keys that have expired. Aborted when this goes.
    sweep: AbortOnDropHandle<()>,
    /// Has dead letters handled again. Ends when a stop begins.
    retries: AbortOnDropHandle<()>,
    /// Has handlers run what their plugins' files hold. Ends when a stop begins.
    plugins: AbortOnDropHandle<()>,
    /// Reads what outboxes have on the disk. Aborted when this goes.
    loader: AbortOnDropHandle<()>,
    /// Looks at the clock. Aborted when this goes.
    schedules: AbortOnDropHandle<()>,
    /// Cancelled when a stop begins: `/readyz` tells, and nothing is due any more.
    stopping: CancellationToken,
    stop_admin: CancellationToken,
}

impl Gateway {
    /// Starts every stage, the sessions last, so that no message comes before its handler is ready. Returns once they
    /// run; the sessions may not be connected yet. `file` is where the configuration comes from.
    ///
    /// # Errors
    /// Nothing runs then; the error says what is in the way.
    pub async fn start(file: PathBuf, loaded: Loaded) -> Result<Gateway, GatewayError> {
        let config = Arc::new(loaded.config.clone());
        let lock = StateLock::take(&config.state_dir)?;
        outlive_file_size_limit().map_err(GatewayError::Signal)?;
        let cache = prepare_state_dir(&config.state_dir)?;
        let metrics = Arc::new(Metrics::new()?);
        let (state_dir, meters) = (config.state_dir.clone(), metrics.store());
        let (store, writer) = tokio::task::spawn_blocking(move || Store::start(&state_dir, meters)).await??;
        let kept = {
            let (store, meters) = (store.clone(), metrics.dead_letter_store());
            tokio::task::spawn_blocking(move || Kept::load(store, meters)).await??
        };
        let admin = Admin::bind(&config.admin).await?;
        let tap = Tap::new();
        let progress = Arc::new(Progress::default());
        let received = ReceivedRing::new(config.received);
        let tracer = Tracer::new(loaded.names.clone());
        let kvs = {
            let (store, metrics) = (store.clone(), Arc::clone(&metrics));
            Arc::new(tokio::task::spawn_blocking(move || Kvs::load(store, metrics)).await??)
        };
        let sweep = AbortOnDropHandle::new(tokio::spawn(kv::sweep(Arc::clone(&kvs))));
        let stopping = CancellationToken::new();
        let parks = {
            let (names, progress) = (loaded.names.clone(), Arc::clone(&progress));
            let (kept, stopping) = (kept.clone(), stopping.clone());
            tokio::task::spawn_blocking(move || Parks::load(kept, names, progress, stopping)).await??
        };
        let outboxes = {
            let (store, kept) = (store.clone(), kept.clone());
            tokio::task::spawn_blocking(move || Outboxes::on_disk(store, kept)).await??
        };
        let schedules = Schedules::new(Arc::clone(&metrics), Arc::clone(&outboxes), Arc::clone(&progress));
        let plugin_loader = loader(&config, cache).await?;
        let shared = Shared {
            names: loaded.names.clone(),
            metrics,
            schedules: Arc::new(schedules),
            outboxes,
            store,
            kvs,
            places: Places::default(),
            parks: Arc::new(parks),
            kept: kept.clone(),
            router: Arc::new(Router::new(Arc::clone(&progress), received.clone(), tracer.clone(), tap.clone())),
            received: received.clone(),
            grace: Arc::new(watch::channel(config.shutdown_grace).0),
            tap: tap.clone(),
            compiler: Compiler::start(plugin_loader.clone()).map_err(GatewayError::Compiler)?,
            archive: Archive::new(&config.state_dir),
            verdicts: Verdicts::default(),
            stop_sessions: CancellationToken::new(),
            hurry: CancellationToken::new(),
        };
        let expiry = AbortOnDropHandle::new(tokio::spawn(outbox::expire(Arc::clone(&shared.outboxes))));
        let loader = AbortOnDropHandle::new(tokio::spawn(outbox::load(Arc::clone(&shared.outboxes))));
        let stages = Stages::start(shared.clone(), file, loaded).await?;
        shared.outboxes.tell_orphans();
        let (stop_changes, stop_admin) = (CancellationToken::new(), CancellationToken::new());
        let schedules = tokio::spawn(schedule::run(Arc::clone(&shared.schedules), stopping.clone()));
        let (sender, running) = watch::channel(Arc::new(stages.running()));
        let (requests, queue) = mpsc::channel(live::WAITING_CHANGES);
        let (retries, batches) = mpsc::channel(live::WAITING_RETRIES);
        let again = Retries::new(
            kept.clone(),
            running.clone(),
            Arc::clone(&shared.outboxes),
            Arc::clone(&progress),
            stopping.clone(),
        );
        let retries_task = AbortOnDropHandle::new(tokio::spawn(again.run(batches)));
        let configuration = Arc::new(Reloads::new(shared.metrics.config()));
        let (reloads, commands) = mpsc::channel(live::WAITING_RELOADS);
        let plugins = Plugins::new(
            running.clone(),
            (requests.clone(), shared.verdicts.clone()),
            shared.archive.clone(),
            shared.compiler.clone(),
        );
        let plugins = plugins.map_err(GatewayError::Watch)?;
        let plugins = AbortOnDropHandle::new(tokio::spawn(plugins.run(commands, stopping.clone())));
        let live = Live::new(
            running,
            (requests, reloads),
            Arc::clone(&shared.outboxes),
            (kept, retries),
            (Arc::clone(&shared.schedules), shared.store.clone(), Arc::clone(&configuration)),
            stopping.clone(),
        );
        let address = admin.address();
        let (watched, told) = (live.clone(), live.clone());
        let (obstacles, details) = (Box::new(move || watched.obstacles()), Box::new(move || told.details()));
        let pages = Pages { metrics: Arc::clone(&shared.metrics), obstacles, details };
        let api = Api::new(Arc::new(live.clone()), received, tracer, shared.names.clone(), stop_admin.clone());
        let admin_task = tokio::spawn(admin.serve(pages, api, stop_admin.clone()));
        let watch_config = AbortOnDropHandle::new(tokio::spawn(live::watch_configuration(live.clone())));
        Ok(Gateway {
            admin: address,
            tap,
            router: shared.router,
            grace: shared.grace,
            progress,
            plugin_loader,
            changes: tokio::spawn(live::run(stages, queue, sender, configuration, stop_changes.clone())),
            live,
            watch_config,
            stop_changes,
            hurry: shared.hurry,
            admin_task,
            writer,
            lock,
            expiry,
            sweep,
            retries: retries_task,
            plugins,
            loader,
            schedules: AbortOnDropHandle::new(schedules),
            stopping,
            stop_admin,
            config,
        })
    }

    /// The address of `/metrics`, `/healthz` and `/readyz`.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// What runs, for those who look at it and steer it.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// What flows through, live.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// The configuration that it was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Drains and stops: takes nothing more in, finishes what is in progress within the grace period, acknowledges it,
    /// says goodbye to the brokers. What is not finished stays unacknowledged. Returns how many messages that were.
    pub async fn stop(self) -> u64 {
        self.stopping.cancel();
        self.plugin_loader.close();
        self.router.close();
        self.watch_config.abort();
        joined(self.watch_config.await.err(), "the task that watches the configuration panicked");
        self.stop_changes.cancel();
        joined(self.retries.await.err(), "the task that has dead letters handled again panicked");
        joined(self.plugins.await.err(), "the task that reloads plugins panicked");
        let grace = *self.grace.borrow();
        let drained = tokio::time::timeout(grace, self.progress.idle()).await.is_ok();
        let left = if drained { 0 } else { self.progress.open() };
        self.hurry.cancel();
        match self.changes.await {
            Ok(stages) => stages.stop().await,
            Err(error) => joined(Some(error), "the task that changes the configuration panicked"),
        }
        self.plugin_loader.ended(grace).await;
        self.schedules.abort();
        joined(self.schedules.await.err(), "the task that looks at the clock panicked");
        self.expiry.abort();
        joined(self.expiry.await.err(), "the task that drops publishes which are too old panicked");
        self.sweep.abort();
        joined(self.sweep.await.err(), "the task that forgets expired keys panicked");
        self.loader.abort();
        joined(self.loader.await.err(), "the task that reads outboxes from the disk panicked");
        self.stop_admin.cancel();
        // A client that keeps a connection open must not hold up the end.
        if let Ok(ended) = tokio::time::timeout(ADMIN_GRACE, self.admin_task).await {
            joined(ended.err(), "the admin server panicked");
        }
        let writer = self.writer;
        joined(tokio::task::spawn_blocking(|| writer.close()).await.err(), "the store's end panicked");
        drop(self.lock);
        left
    }
}

/// What loads plugins: native ones too, where they are permitted.
async fn loader(config: &Config, cache: PathBuf) -> Result<Loader, GatewayError> {
    let loader = Loader::new(tokio::task::spawn_blocking(move || WasmEngine::new(Some(&cache))).await??);
    if !config.native {
        return Ok(loader);
    }
    let copies = config.state_dir.join("native");
    let natives = tokio::task::spawn_blocking(move || Natives::new(copies)).await?;
    let natives = natives.map_err(|source| GatewayError::StateDir { path: config.state_dir.clone(), source })?;
    Ok(loader.permitting_native(natives))
}

/// How long the admin server may take to finish its requests at a stop.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

fn joined(error: Option<tokio::task::JoinError>, message: &'static str) {
    if let Some(error) = error.filter(|error| !error.is_cancelled()) {
        tracing::error!(%error, "{message}");
    }
}

/// Has a write beyond the limit of a file's size (RLIMIT_FSIZE) fail as on a full disk; it would end the process otherwise.
fn outlive_file_size_limit() -> io::Result<()> {
    // The handler stays for good, whatever becomes of what is told of it.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// The directory for compiled plugins inside the state directory, made where missing, readable for its owner alone.
fn prepare_state_dir(state_dir: &Path) -> Result<PathBuf, GatewayError> {
    use std::os::unix::fs::DirBuilderExt;
    let cache = state_dir.join("compiled");
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&cache);
    made.map_err(|source| GatewayError::StateDir { path: state_dir.to_owned(), source })?;
    Ok(cache)
}
