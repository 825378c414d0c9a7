//! The stages that a configuration makes: handlers, routes, sessions. Made from nothing at the start, and changed under running
//! traffic, by the same two steps: [`Stages::prepare`], which may fail and changes nothing, and [`Stages::make`], which cannot.
//!
//! Nothing old stops until everything new exists. Fed by `control/live`, whose task owns it; feeds every stage. It decides nothing
//! about messages, and what changes is decided in `control/config/diff.rs`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::GatewayError;
use super::starting::{Found, note, ready};
use crate::brokers::BrokerNames;
use crate::control::config::Loaded;
use crate::control::config::diff::{BrokerChange, Change, Difference};
use crate::control::config::model::{Broker, Config, OnMessage};
use crate::control::live::{Running, RunningBroker};
use crate::path::dead_letter::Places;
use crate::path::dispatch::{HandlerQueue, ParallelLimit};
use crate::path::handler::archive::Archive;
use crate::path::handler::plugin::Compiler;
use crate::path::handler::{HandlerView, ReadyHandler, RunningHandler, Verdicts};
use crate::path::kept::Kept;
use crate::path::kv::Kvs;
use crate::path::outbox::Outboxes;
use crate::path::park::Parks;
use crate::path::router::{BrokerRoutes, RouteTable, Router, of_broker};
use crate::path::schedule::Schedules;
use crate::path::session::{self, Legacy, Session, SessionParts, SessionState};
use crate::store::Store;
use crate::telemetry::logging;
use crate::telemetry::metrics::{BrokerMeters, Metrics};
use crate::telemetry::received::ReceivedRing;
use crate::telemetry::tap::Tap;

/// What all stages share, for as long as the daemon runs.
#[derive(Clone)]
pub struct Shared {
    /// The numbers of the brokers' names.
    pub names: BrokerNames,
    /// Where everything counts.
    pub metrics: Arc<Metrics>,
    /// What must survive the daemon.
    pub store: Store,
    /// What waits to be published.
    pub outboxes: Arc<Outboxes>,
    /// What handlers remember.
    pub kvs: Arc<Kvs>,
    /// What happens by the clock.
    pub schedules: Arc<Schedules>,
    /// Which topics have dead letters.
    pub places: Places,
    /// Messages that are kept on the disk.
    pub kept: Kept,
    /// What is parked for handlers.
    pub parks: Arc<Parks>,
    /// Where messages go.
    pub router: Arc<Router>,
    /// What is kept of the messages received.
    pub received: ReceivedRing,
    /// `shutdown-grace`, as it is now.
    pub grace: Arc<watch::Sender<Duration>>,
    /// Where what flows through is shown.
    pub tap: Tap,
    /// Compiles plugins.
    pub compiler: Compiler,
    /// The versions of plugins that run, kept for a restart.
    pub archive: Archive,
    /// Where versions on trial tell that they have come to a verdict.
    pub verdicts: Verdicts,
    /// Ends the sessions.
    pub stop_sessions: CancellationToken,
    /// The grace period of a stop is over: a change under way waits for nothing any more.
    pub hurry: CancellationToken,
}

/// One broker's stage.
struct BrokerStage {
    config: Arc<Broker>,
    session: Arc<Session>,
    meters: Arc<BrokerMeters>,
    limit: Arc<ParallelLimit>,
}

/// All that a configuration makes.
pub struct Stages {
    shared: Shared,
    /// The configuration file.
    file: PathBuf,
    /// What runs.
    loaded: Arc<Loaded>,
    brokers: HashMap<Arc<str>, BrokerStage>,
    handlers: HashMap<Arc<str>, RunningHandler>,
}

/// A configuration that can run: everything that may fail has been done for it.
pub struct Prepared {
    loaded: Arc<Loaded>,
    difference: Difference,
    ready: HashMap<Arc<str>, ReadyHandler>,
    /// What the ready ones start with.
    found: Vec<Found>,
    /// What waits for brokers that are removed is not to be sent before.
    drops: bool,
}

impl Prepared {
    /// What is configured once it is made.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// What waits in memory for brokers that are removed is dropped, also where it could be sent before.
    pub fn drop_what_waits(&mut self) {
        self.drops = true;
    }
}

impl Stages {
    /// The stages of the first configuration.
    ///
    /// # Errors
    /// Nothing runs then.
    pub async fn start(shared: Shared, file: PathBuf, loaded: Loaded) -> Result<Stages, GatewayError> {
        let difference = Difference::between(None, &loaded);
        let (ready, found) = ready(&shared, &loaded, &difference, &HashMap::new()).await?;
        let (archive, configured) = (shared.archive.clone(), loaded.config.handlers.iter());
        let configured = configured.map(|handler| Arc::clone(&handler.name)).collect();
        tokio::task::spawn_blocking(move || archive.remove_all_but(&configured)).await?;
        let loaded = Arc::new(loaded);
        let mut stages =
            Stages { shared, file, loaded: Arc::clone(&loaded), brokers: HashMap::new(), handlers: HashMap::new() };
        stages.make(Prepared { loaded, difference, ready, found, drops: false }).await;
        Ok(stages)
    }

    /// The configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The configuration that runs.
    pub fn loaded(&self) -> &Arc<Loaded> {
        &self.loaded
    }

    /// The numbers of the brokers' names.
    pub fn names(&self) -> &BrokerNames {
        &self.shared.names
    }

    /// A handler that runs.
    pub fn handler(&self, name: &str) -> Option<HandlerView> {
        self.handlers.get(name).map(RunningHandler::view)
    }

    /// All handlers that run.
    pub fn handlers(&self) -> impl Iterator<Item = HandlerView> {
        self.handlers.values().map(RunningHandler::view)
    }

    /// The versions of plugins that run, kept for a restart.
    pub fn archive(&self) -> &Archive {
        &self.shared.archive
    }

    /// Messages that wait to be published to a broker, those on the disk apart, and calls and commands that wait for room there.
    pub fn waiting(&self, broker: &str) -> usize {
        self.brokers.get(broker).map_or(0, |stage| {
            let (id, outboxes) = (stage.config.id, &self.shared.outboxes);
            outboxes.usage(id).0.saturating_sub(outboxes.on_disk_of(id).messages) + outboxes.waiting(id)
        })
    }

    /// Messages that wait in memory to be published to a broker that is not connected, so that they would be dropped with it.
    pub fn stranded(&self, broker: &str) -> usize {
        let connected = |stage: &BrokerStage| stage.session.status().borrow().state == SessionState::Connected;
        if self.brokers.get(broker).is_some_and(connected) { 0 } else { self.waiting(broker) }
    }

    /// Messages on the disk for a broker that was removed.
    pub fn left_on_disk(&self, broker: &str) -> usize {
        let outboxes = self.shared.outboxes.list();
        let orphan = outboxes.iter().find(|outbox| outbox.broker.is_none() && *outbox.name == *broker);
        orphan.map_or(0, |orphan| orphan.on_disk.messages)
    }

    /// What runs now, for those who look at it.
    pub fn running(&self) -> Running {
        let brokers = self.loaded.config.brokers.iter().filter_map(|broker| self.brokers.get(&broker.name));
        let handlers = self.loaded.config.handlers.iter().filter_map(|handler| self.handlers.get(&handler.name));
        let running = |stage: &BrokerStage| RunningBroker {
            config: Arc::clone(&stage.config),
            session: Arc::clone(&stage.session),
            meters: Arc::clone(&stage.meters),
            limit: Arc::clone(&stage.limit),
        };
        Running {
            file: self.file.clone(),
            loaded: Arc::clone(&self.loaded),
            brokers: brokers.map(running).collect(),
            handlers: handlers.map(RunningHandler::view).collect(),
            kvs: Arc::clone(&self.shared.kvs),
            parks: Arc::clone(&self.shared.parks),
            archive: self.shared.archive.clone(),
        }
    }

    /// Does everything that may fail for a configuration that is to follow this one: new and changed handlers start. Nothing
    /// changes. Cancel safe.
    ///
    /// # Errors
    /// Plugins do not load or lack an export, or instances do not start: all of them are told.
    pub async fn prepare(&self, loaded: Arc<Loaded>) -> Result<Prepared, GatewayError> {
        let difference = Difference::between(Some(&self.loaded), &loaded);
        match ready(&self.shared, &loaded, &difference, &self.handlers).await {
            Ok((ready, found)) => Ok(Prepared { loaded, difference, ready, found, drops: false }),
            Err(error) => {
                self.forget_added(&difference);
                Err(error)
            }
        }
    }

    /// What was prepared is not to be made after all.
    pub fn discard(&self, prepared: &Prepared) {
        self.forget_added(&prepared.difference);
    }

    /// A handler that never ran leaves no metric.
    fn forget_added(&self, difference: &Difference) {
        for (name, _) in difference.handlers.iter().filter(|(_, change)| *change == Change::Added) {
            self.shared.metrics.forget_handler(name);
        }
    }

    /// Changes what runs to what was prepared: new routes first, then the handlers that these lead to, then sessions that are made
    /// anew, then the end of what nothing leads to any more: handlers before brokers, so that what their last calls publish still
    /// gets there. Takes as long as the graceful end of sessions and handlers does: a call's deadline for all handlers that are
    /// changed, `shutdown-grace` at most for each session that ends and each handler that is removed.
    ///
    /// Not cancel safe.
    pub async fn make(&mut self, prepared: Prepared) {
        let Prepared { loaded, difference, mut ready, found, drops } = prepared;
        note(&self.shared, found).await;
        let changed: HashMap<&Arc<str>, BrokerChange> =
            difference.brokers.iter().map(|(name, change)| (name, *change)).collect();
        let comes = |broker: &&Arc<Broker>| changed.get(&broker.name) == Some(&BrokerChange::Added);
        // Before anybody publishes to them, since that would be dropped: before a schedule is due, before a handler serves, which may have
        // messages on the disk, and before what is parked of their own messages is brought back.
        loaded.config.brokers.iter().filter(comes).for_each(|broker| self.open(broker));
        self.shared.names.adopt(&loaded.names);
        self.shared.places.configure(&loaded.config);
        let old = std::mem::replace(&mut self.loaded, loaded);
        self.set(&old.config);
        let queues = self.queues(&ready);
        // Before their handlers and brokers go; the runs of those that come wait until their handlers serve.
        let schedules: Vec<Arc<str>> = difference.schedules.iter().map(|(name, _)| Arc::clone(name)).collect();
        self.shared.schedules.configure(&self.loaded.config, &schedules, queues.clone());
        let added: Vec<&Arc<Broker>> = self.loaded.config.brokers.iter().filter(comes).collect();
        added.iter().for_each(|broker| self.shared.parks.broker_is_there(broker.id, true));
        let names: HashSet<Arc<str>> = added.iter().map(|broker| Arc::clone(&broker.name)).collect();
        // Before anything else comes from them, since that goes behind what is parked.
        self.handlers.values().for_each(|handler| handler.queue().look_again(&names));
        for (name, _) in difference.handlers.iter().filter(|(_, change)| *change == Change::Added) {
            // Before any message can come for it.
            let added = ready.remove(name).map(ReadyHandler::serve);
            self.handlers.extend(added.map(|handler| (Arc::clone(name), handler)));
        }
        for broker in &self.loaded.config.brokers.clone() {
            match changed.get(&broker.name) {
                Some(BrokerChange::Added) => self.add(broker, &queues),
                // Its session goes on until no handler waits for its end.
                Some(BrokerChange::Reconnected) => self.limit(broker),
                Some(BrokerChange::Adjusted) => self.adjust(broker, &queues),
                Some(BrokerChange::Removed) | None if difference.routes.contains(&broker.name) => {
                    self.route(&broker.name, &queues);
                }
                Some(BrokerChange::Removed) | None => {}
            }
        }
        let removed = difference.brokers.iter().filter(|(_, change)| *change == BrokerChange::Removed);
        // Nothing may come for a handler that ends.
        removed.clone().filter_map(|(name, _)| self.brokers.get(name)).for_each(|stage| stage.session.take_nothing());
        let gone = removed.clone().filter_map(|(name, _)| self.brokers.get(name));
        gone.for_each(|stage| self.shared.parks.broker_is_there(stage.config.id, false));
        // Messages are routed to them already, also of brokers that others are waited for below.
        self.replace_handlers(ready).await;
        for broker in &self.loaded.config.brokers.clone() {
            if changed.get(&broker.name) == Some(&BrokerChange::Reconnected) {
                self.reconnect(broker, &queues).await;
            }
        }
        for (name, _) in difference.handlers.iter().filter(|(_, change)| *change == Change::Removed) {
            self.remove_handler(name).await;
        }
        for (name, _) in removed {
            self.remove(name, drops).await;
        }
        self.shared.kvs.configure(&self.loaded.config.handlers);
        self.forget_subscriptions(&old);
        let sessions = self.brokers.values().map(|stage| (stage.config.id, stage.session.status()));
        self.shared.schedules.watch(sessions);
    }

    /// Settings of the whole daemon that were others before.
    fn set(&self, old: &Config) {
        let new = &self.loaded.config;
        self.shared.grace.send_replace(new.shutdown_grace);
        if new.received != old.received {
            self.shared.received.limit(new.received);
        }
        if new.log.level != old.log.level {
            logging::level(new.log.level);
        }
    }

    /// The queues of all handlers that are to run.
    fn queues(&self, ready: &HashMap<Arc<str>, ReadyHandler>) -> HashMap<Arc<str>, Arc<HandlerQueue>> {
        let old = self.handlers.iter().map(|(name, handler)| (Arc::clone(name), Arc::clone(handler.queue())));
        let new = ready.iter().map(|(name, handler)| (Arc::clone(name), Arc::clone(handler.queue())));
        old.chain(new).collect()
    }

    /// Opens what a broker has without a session: what is published to it waits from now on, and its parallel limit holds.
    fn open(&self, broker: &Arc<Broker>) {
        let meters = self.shared.metrics.broker(&broker.name);
        self.shared.parks.limit(broker.id).set_most(broker.parallel_limit.map(usize::from));
        self.shared.outboxes.add(broker.id, Arc::clone(&broker.name), broker.outbox, meters);
    }

    /// Begins the session of a broker that is open.
    fn add(&mut self, broker: &Arc<Broker>, queues: &HashMap<Arc<str>, Arc<HandlerQueue>>) {
        let meters = self.shared.metrics.broker(&broker.name);
        let limit = self.shared.parks.limit(broker.id);
        let routes = self.routes(broker, &meters, &limit, queues);
        let session = self.session(broker, routes, &meters, Legacy::default());
        let stage = BrokerStage { config: Arc::clone(broker), session, meters, limit };
        self.brokers.insert(Arc::clone(&broker.name), stage);
    }

    /// Its connection was made with other settings: the session ends, and another one begins. It connects by itself where that
    /// one was connected, and stays disconnected where that was commanded: a change waits for no broker.
    async fn reconnect(&mut self, broker: &Arc<Broker>, queues: &HashMap<Arc<str>, Arc<HandlerQueue>>) {
        let Some(mut stage) = self.brokers.remove(&broker.name) else { return };
        let legacy = self.end(&stage.session, false, Some(broker)).await;
        let routes = self.routes(broker, &stage.meters, &stage.limit, queues);
        stage.session = self.session(broker, routes, &stage.meters, legacy);
        stage.config = Arc::clone(broker);
        self.brokers.insert(Arc::clone(&broker.name), stage);
    }

    /// Its limits are these from now on, whether or not it has a session.
    fn limit(&self, broker: &Broker) {
        self.shared.parks.limit(broker.id).set_most(broker.parallel_limit.map(usize::from));
        self.shared.outboxes.limit(broker.id, broker.outbox);
    }

    fn adjust(&mut self, broker: &Arc<Broker>, queues: &HashMap<Arc<str>, Arc<HandlerQueue>>) {
        self.limit(broker);
        if let Some(stage) = self.brokers.get_mut(&broker.name) {
            stage.session.auto_connect(broker.auto_connect);
            stage.config = Arc::clone(broker);
        }
        self.route(&broker.name, queues);
    }

    fn route(&self, broker: &str, queues: &HashMap<Arc<str>, Arc<HandlerQueue>>) {
        if let Some(stage) = self.brokers.get(broker) {
            stage.session.route(self.routes(&stage.config, &stage.meters, &stage.limit, queues));
        }
    }

    async fn remove(&mut self, broker: &str, drops: bool) {
        let delivers = !drops && self.waiting(broker) > 0;
        let Some(stage) = self.brokers.remove(broker) else { return };
        drop(self.end(&stage.session, delivers, None).await);
        let dropped = self.shared.outboxes.remove(stage.config.id);
        if dropped > 0 {
            tracing::warn!(broker, messages = dropped, "what waited to be published to the removed broker is dropped");
        }
        self.shared.metrics.forget_broker(broker);
    }

    /// Changed handlers take the places of those that run, none of them waiting for another.
    async fn replace_handlers(&mut self, ready: HashMap<Arc<str>, ReadyHandler>) {
        let mut successions = Vec::new();
        for (name, ready) in ready {
            let Some(old) = self.handlers.remove(&name) else {
                debug_assert!(false, "what changes was there");
                continue;
            };
            self.brokers.values().for_each(|stage| stage.session.watch(ready.queue()));
            let hurry = self.shared.hurry.clone();
            successions.push(async move { (name, ready.succeed(old, hurry).await) });
        }
        self.handlers.extend(join_all(successions).await);
    }

    async fn remove_handler(&mut self, name: &Arc<str>) {
        let Some(old) = self.handlers.remove(name) else { return debug_assert!(false, "what goes was there") };
        old.drain(Instant::now() + self.loaded.config.shutdown_grace, self.shared.hurry.clone()).await;
        self.shared.metrics.forget_handler(name);
        let (archive, name) = (self.shared.archive.clone(), Arc::clone(name));
        if let Err(error) = tokio::task::spawn_blocking(move || archive.remove(&name)).await {
            tracing::error!(%error, "removing the plugins of a handler that is gone panicked");
        }
    }

    /// Ends a session gracefully, where it `delivers` after what waits to be published; unless the daemon's stop cannot wait for
    /// that. What it leaves to that of its `successor`; nothing where its broker is removed.
    async fn end(&self, session: &Session, delivers: bool, successor: Option<&Broker>) -> Legacy {
        tokio::select! {
            legacy = session.end(delivers, successor) => legacy,
            () = self.shared.hurry.cancelled() => {
                self.shared.stop_sessions.cancel();
                session.end(false, successor).await
            }
        }
    }

    /// What was subscribed and is not any more leaves no metric.
    fn forget_subscriptions(&self, old: &Loaded) {
        let subscriptions = self.loaded.config.subscriptions.iter();
        let stays: HashSet<_> = subscriptions.map(|known| (known.broker, &known.name)).collect();
        for gone in old.config.subscriptions.iter().filter(|old| !stays.contains(&(old.broker, &old.name))) {
            self.shared.metrics.forget_subscription(&self.shared.names.name(gone.broker), &gone.name);
        }
    }

    fn routes(
        &self,
        broker: &Arc<Broker>,
        meters: &Arc<BrokerMeters>,
        limit: &Arc<ParallelLimit>,
        queues: &HashMap<Arc<str>, Arc<HandlerQueue>>,
    ) -> Arc<BrokerRoutes> {
        let subscriptions = of_broker(&self.loaded.config.subscriptions, broker.id);
        let queue = |action: &Option<OnMessage>| match action {
            Some(OnMessage::Handler(handler)) => queues.get(&handler.name).cloned(),
            Some(OnMessage::Log(_)) | None => None,
        };
        let last_message = |name: &str| self.shared.metrics.subscription(&broker.name, name);
        Arc::new(BrokerRoutes {
            queues: subscriptions.iter().map(|subscription| queue(&subscription.on_message)).collect(),
            heard: subscriptions.iter().map(|one| self.shared.schedules.heard(one)).collect(),
            last_message: subscriptions.iter().map(|subscription| last_message(&subscription.name)).collect(),
            meters: Arc::clone(meters),
            limit: Arc::clone(limit),
            table: RouteTable::new(Arc::clone(broker), subscriptions),
        })
    }

    fn session(
        &self,
        broker: &Arc<Broker>,
        routes: Arc<BrokerRoutes>,
        meters: &Arc<BrokerMeters>,
        legacy: Legacy,
    ) -> Arc<Session> {
        let config = &self.loaded.config;
        let parts = SessionParts {
            id: broker.id,
            config: Arc::clone(broker),
            routes,
            state_dir: config.state_dir.clone(),
            router: Arc::clone(&self.shared.router),
            outboxes: Arc::clone(&self.shared.outboxes),
            meters: Arc::clone(meters),
            tap: self.shared.tap.clone(),
            grace: self.shared.grace.subscribe(),
            legacy,
        };
        Arc::new(session::spawn(parts, &self.shared.stop_sessions))
    }

    /// Ends handlers, then sessions, at once: what is in progress should have been drained before.
    pub async fn stop(self) {
        for (_, handler) in self.handlers {
            handler.stop().await;
        }
        self.shared.stop_sessions.cancel();
        for stage in self.brokers.values() {
            stage.session.ended().await;
        }
    }
}
