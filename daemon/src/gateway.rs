//! All wiring: which stages exist, what connects them, in which order they start and stop.
//!
//! ```text
//! session ──> router ──> dispatch ──> handler ──> outbox ──> session
//! ```
//! Fed by a validated configuration; used by `tidegate run` and `tidegate demo`. It decides nothing about messages.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::control::admin::{Admin, BrokerHealth, Health, Pages};
use crate::control::config::model::{Config, Handler, OnMessage};
use crate::message::BrokerId;
use crate::path::dispatch::{HandlerQueue, ParallelLimit};
use crate::path::handler::instance::{Counted, InstanceParts, Instances, serve};
use crate::path::handler::wasm::{EngineError, Host, LoadError, Plugin, StartError, WasmEngine};
use crate::path::outbox::Outboxes;
use crate::path::receipt::Progress;
use crate::path::router::{BrokerRoutes, RouteTable, Router, of_broker};
use crate::path::session::{self, Session, SessionParts};
use crate::telemetry::metrics::{BrokerMeters, Metrics};
use crate::telemetry::tap::Tap;

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
    /// The admin address is taken or not ours.
    #[error("admin.listen = {address} cannot be used, choose another port")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The WebAssembly engine cannot be made.
    #[error("the WebAssembly engine does not start")]
    Engine(#[from] EngineError),
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
    /// A defect of the metrics' definitions.
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// A start step panicked.
    #[error("a start step ended early")]
    Aborted(#[from] tokio::task::JoinError),
}

/// A running gateway.
pub struct Gateway {
    config: Arc<Config>,
    admin: Option<SocketAddr>,
    tap: Tap,
    router: Arc<Router>,
    progress: Arc<Progress>,
    queues: Vec<Arc<HandlerQueue>>,
    instances: Vec<JoinHandle<()>>,
    sessions: Vec<Session>,
    admin_task: Option<JoinHandle<io::Result<()>>>,
    /// Cancelled when a stop begins: `/readyz` tells.
    stopping: CancellationToken,
    stop_sessions: CancellationToken,
    stop_admin: CancellationToken,
}

impl Gateway {
    /// Starts every stage, the sessions last, so that no message comes before its handler is ready. Returns once they
    /// run; the sessions may not be connected yet.
    ///
    /// # Errors
    /// Nothing runs then; the error says what is in the way.
    pub async fn start(config: Config) -> Result<Gateway, GatewayError> {
        let config = Arc::new(config);
        let cache = prepare_state_dir(&config.state_dir)?;
        let admin = match config.admin.listen {
            Some(address) => {
                Some(Admin::bind(address).await.map_err(|source| GatewayError::Listen { address, source })?)
            }
            None => None,
        };
        let metrics = Arc::new(Metrics::new()?);
        let tap = Tap::new();
        let progress = Arc::new(Progress::default());
        let brokers: Vec<Arc<BrokerMeters>> =
            config.brokers.iter().map(|broker| metrics.broker(&broker.name)).collect();
        let outboxes = Arc::new(Outboxes::new(brokers.clone()));
        let handlers = Handlers::start(&config, &cache, &metrics, &outboxes, &tap).await?;
        let routes =
            (0..).map(BrokerId).zip(&brokers).map(|(id, meters)| handlers.routes(&config, &metrics, id, meters));
        let router = Arc::new(Router::new(Arc::clone(&progress), tap.clone()));
        let (stopping, stop_sessions, stop_admin) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let sessions = start_sessions(&config, routes, &router, &outboxes, &tap, &stop_sessions);
        let address = admin.as_ref().map(Admin::address);
        let admin_task = admin.map(|admin| {
            let health = Health::new(broker_health(&config, &sessions), stopping.clone());
            tokio::spawn(admin.serve(Pages { metrics, health }, stop_admin.clone()))
        });
        Ok(Gateway {
            admin: address,
            tap,
            router,
            progress,
            queues: handlers.queues.into_values().collect(),
            instances: handlers.instances,
            sessions,
            admin_task,
            stopping,
            stop_sessions,
            stop_admin,
            config,
        })
    }

    /// The address of `/metrics`, `/healthz` and `/readyz`.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// What flows through, live.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// The configuration that it runs.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Drains and stops: takes nothing more in, finishes what is in progress within the grace period, acknowledges it,
    /// says goodbye to the brokers. What is not finished stays unacknowledged. Returns how many messages that were.
    pub async fn stop(self) -> u64 {
        self.stopping.cancel();
        self.router.close();
        let grace = self.config.shutdown_grace;
        let drained = tokio::time::timeout(grace, self.progress.idle()).await.is_ok();
        let left = if drained { 0 } else { self.progress.open() };
        for task in &self.instances {
            task.abort();
        }
        for task in self.instances {
            joined(task.await.err(), "an instance's task panicked");
        }
        self.queues.iter().for_each(|queue| queue.clear());
        self.stop_sessions.cancel();
        for session in &self.sessions {
            session.ended().await;
        }
        self.stop_admin.cancel();
        if let Some(task) = self.admin_task {
            // A client that keeps a connection open must not hold up the end.
            match tokio::time::timeout(ADMIN_GRACE, task).await {
                Ok(Ok(Ok(()))) | Err(_) => {}
                Ok(Ok(Err(error))) => tracing::error!(%error, "the admin server failed"),
                Ok(Err(error)) => joined(Some(error), "the admin server panicked"),
            }
        }
        left
    }
}

/// Starts the session of every broker.
fn start_sessions(
    config: &Config,
    routes: impl Iterator<Item = BrokerRoutes>,
    router: &Arc<Router>,
    outboxes: &Arc<Outboxes>,
    tap: &Tap,
    stop: &CancellationToken,
) -> Vec<Session> {
    let parts = (0..).map(BrokerId).zip(&config.brokers).zip(routes).map(|((id, broker), routes)| SessionParts {
        id,
        config: Arc::clone(broker),
        meters: Arc::clone(&routes.meters),
        routes: Arc::new(routes),
        state_dir: config.state_dir.clone(),
        router: Arc::clone(router),
        outboxes: Arc::clone(outboxes),
        tap: tap.clone(),
        grace: config.shutdown_grace,
    });
    parts.map(|parts| session::spawn(parts, stop)).collect()
}

fn broker_health(config: &Config, sessions: &[Session]) -> Vec<BrokerHealth> {
    let brokers = config.brokers.iter().zip(sessions);
    brokers.map(|(broker, session)| BrokerHealth::new(broker, session.status())).collect()
}

/// How long the admin server may take to finish its requests at a stop.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

fn joined(error: Option<tokio::task::JoinError>, message: &'static str) {
    if let Some(error) = error.filter(|error| !error.is_cancelled()) {
        tracing::error!(%error, "{message}");
    }
}

/// The directory for compiled plugins inside the state directory, made where missing, readable for its owner alone.
fn prepare_state_dir(state_dir: &Path) -> Result<PathBuf, GatewayError> {
    use std::os::unix::fs::DirBuilderExt;
    let cache = state_dir.join("compiled");
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&cache);
    made.map_err(|source| GatewayError::StateDir { path: state_dir.to_owned(), source })?;
    Ok(cache)
}

/// All handlers, their queues and their running instances.
struct Handlers {
    queues: HashMap<Arc<str>, Arc<HandlerQueue>>,
    instances: Vec<JoinHandle<()>>,
}

impl Handlers {
    async fn start(
        config: &Arc<Config>,
        cache: &Path,
        metrics: &Metrics,
        outboxes: &Arc<Outboxes>,
        tap: &Tap,
    ) -> Result<Handlers, GatewayError> {
        let plugins = load_plugins(Arc::clone(config), cache.to_owned()).await?;
        let names: Arc<[Arc<str>]> = config.brokers.iter().map(|broker| Arc::clone(&broker.name)).collect();
        let limits: Arc<[Option<Arc<ParallelLimit>>]> = config
            .brokers
            .iter()
            .map(|broker| broker.parallel_limit.map(|most| ParallelLimit::new(usize::from(most))))
            .collect();
        let mut handlers = Handlers { queues: HashMap::new(), instances: Vec::new() };
        for (handler, plugin) in config.handlers.iter().zip(plugins) {
            let meters = metrics.handler(&handler.name);
            let queue = Arc::new(HandlerQueue::new(Arc::clone(handler), Arc::clone(&limits), Arc::clone(&meters)));
            let parts = Arc::new(InstanceParts {
                handler: Arc::clone(handler),
                plugin,
                host: Arc::new(Host::new(handler, Arc::clone(&names))),
                queue: Arc::clone(&queue),
                outboxes: Arc::clone(outboxes),
                meters,
                failures: InstanceParts::failures(),
                tap: tap.clone(),
                instances: Instances::new(handler.instances.get()),
            });
            handlers.start_instances(handler, &parts).await?;
            handlers.queues.insert(Arc::clone(&handler.name), queue);
        }
        Ok(handlers)
    }

    /// Starts the instances beside each other, and serves once all have started.
    async fn start_instances(&mut self, handler: &Handler, parts: &Arc<InstanceParts>) -> Result<(), GatewayError> {
        let mut starting: Vec<JoinHandle<Result<Counted, StartError>>> = Vec::new();
        for _ in 0..handler.instances.get() {
            let parts = Arc::clone(parts);
            starting.push(tokio::spawn(async move { parts.start().await }));
        }
        for (shard, instance) in starting.into_iter().enumerate() {
            let refused = |source| GatewayError::Start { handler: Arc::clone(&handler.name), source };
            parts.instances.put(shard, instance.await?.map_err(refused)?);
        }
        for runner in 0..handler.instances.get() {
            self.instances.push(tokio::spawn(serve(Arc::clone(parts), runner)));
        }
        tracing::info!(
            handler = %handler.name, plugin = %handler.plugin.display(), version = %parts.plugin.hash(),
            instances = handler.instances, "handler started",
        );
        Ok(())
    }

    fn routes(&self, config: &Config, metrics: &Metrics, id: BrokerId, meters: &Arc<BrokerMeters>) -> BrokerRoutes {
        let broker = &config.brokers[id.index()];
        let subscriptions = of_broker(&config.subscriptions, id);
        let queue = |action: &Option<OnMessage>| match action {
            Some(OnMessage::Handler(handler)) => self.queues.get(&handler.name).cloned(),
            Some(OnMessage::Log(_)) | None => None,
        };
        BrokerRoutes {
            queues: subscriptions.iter().map(|subscription| queue(&subscription.on_message)).collect(),
            last_message: subscriptions.iter().map(|one| metrics.subscription(&broker.name, &one.name)).collect(),
            meters: Arc::clone(meters),
            table: RouteTable::new(Arc::clone(broker), subscriptions),
        }
    }
}

/// Reads and compiles every handler's plugin, off the threads that do I/O.
async fn load_plugins(config: Arc<Config>, cache: PathBuf) -> Result<Vec<Plugin>, GatewayError> {
    tokio::task::spawn_blocking(move || {
        let engine = WasmEngine::new(Some(&cache))?;
        let load = |handler: &Arc<Handler>| {
            let (name, plugin) = (Arc::clone(&handler.name), handler.plugin.clone());
            engine.load(&handler.plugin).map_err(|source| GatewayError::Load { handler: name, plugin, source })
        };
        config.handlers.iter().map(load).collect()
    })
    .await?
}
