//! One handler from its start to its end: instances, queue and runners.
//!
//! Made, replaced and ended one at a time by the gateway, while others go on. It knows nothing of subscriptions: who routes
//! messages to a handler takes its queue from here, and has stopped doing so before the handler ends.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::canary::Canary;
use super::host::{Host, KvGrant};
use super::instance::{Ending, InstanceParts, LastFailure, serve};
use super::instances::{Counted, Instances};
use super::plugin::{Exports, Plugin, PluginFile, PluginHash};
use super::trial::{Trial, TrialStanding, Verdicts};
use super::versions::{Version, Versions};
use super::{StartError, parking};
use crate::brokers::BrokerNames;
use crate::control::config::model::Handler;
use crate::path::dead_letter::{DeadLetters, Places};
use crate::path::dispatch::HandlerQueue;
use crate::path::kept::Kept;
use crate::path::kv::Kvs;
use crate::path::outbox::Outboxes;
use crate::path::park::Park;
use crate::telemetry::metrics::HandlerMeters;
use crate::telemetry::tap::Tap;

/// What a handler is made of.
pub struct HandlerParts {
    /// As configured.
    pub handler: Arc<Handler>,
    /// What runs.
    pub plugin: Plugin,
    /// The brokers that it may name, also those that come later.
    pub brokers: BrokerNames,
    /// Where its publishes go.
    pub outboxes: Arc<Outboxes>,
    /// What handlers remember.
    pub kvs: Arc<Kvs>,
    /// Which topics have dead letters.
    pub places: Places,
    /// Where the dead letters of a handler without such a topic are kept.
    pub kept: Kept,
    /// Its meters; a handler that takes another's place counts on.
    pub meters: Arc<HandlerMeters>,
    /// Where its messages are while it is paused or quarantined.
    pub park: Arc<Park>,
    /// Where its calls are reported.
    pub tap: Tap,
    /// Where versions on trial tell that they have come to a verdict.
    pub verdicts: Verdicts,
}

/// Why a handler does not start.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// An instance does not.
    #[error("the first instance does not start")]
    Start(#[from] StartError),
    /// A defect of the daemon.
    #[error("a start step ended early")]
    Aborted(#[from] JoinError),
}

/// How a handler stands: what can be read of it from anywhere. Cheap to clone; keeps its instances alive.
#[derive(Clone)]
pub struct HandlerView(Arc<InstanceParts>);

impl HandlerView {
    /// As configured.
    pub fn handler(&self) -> &Arc<Handler> {
        &self.0.handler
    }

    /// The hash of the plugin that runs.
    pub fn version(&self) -> PluginHash {
        self.0.versions.current().plugin.hash()
    }

    /// What the version that runs exports; one on trial may export less.
    pub fn exports(&self) -> Exports {
        self.0.versions.current().plugin.exports()
    }

    /// Where its messages wait.
    pub fn queue(&self) -> &Arc<HandlerQueue> {
        &self.0.queue
    }

    /// Its meters.
    pub fn meters(&self) -> &HandlerMeters {
        &self.0.meters
    }

    /// What runs, and what is on trial.
    pub fn plugins(&self) -> impl Iterator<Item = Plugin> + use<> {
        let trial = self.0.versions.trial().map(|trial| trial.plugin().clone());
        std::iter::once(self.0.versions.current().plugin.clone()).chain(trial)
    }

    /// Makes instances of another version beside those that run. Nothing changes by that.
    ///
    /// Cancel safe: dropped, nothing is left of it.
    ///
    /// # Errors
    /// One of them does not start; the others are gone then.
    pub async fn start_version(&self, plugin: Plugin) -> Result<NewVersion, HandlerError> {
        let version = self.0.versions.next(plugin);
        let instances = self.0.start_all(&version).await?;
        Ok(NewVersion { version, instances })
    }

    /// Has the handler run another version, whose instances have started: calls begin on them from now on. Calls in progress end on
    /// the old version; what waits stays where it is, in order. A trial ends, and what the old one failed at is forgotten. The hash of
    /// the version before.
    pub fn swap(&self, new: NewVersion) -> PluginHash {
        let NewVersion { version, instances } = new;
        let instances = instances.into_iter().enumerate();
        let before = self.0.versions.swap(version, || self.0.instances.put_all(instances));
        self.0.queue.version_changed();
        before.plugin.hash()
    }

    /// Puts a version, whose instances have started, on trial beside the one that runs, in place of any other: this share of the first
    /// calls, more than 0 and at most 1, runs on it, as long as no larger share of them fails than the handler permits. A verdict
    /// changes nothing by itself, but that calls end after a rollback. `file` is what it was made of.
    pub fn try_out(&self, new: NewVersion, file: Arc<PluginFile>, share: f64) {
        let NewVersion { version, instances } = new;
        let shards = Instances::new(instances.len());
        for (shard, instance) in instances.into_iter().enumerate() {
            shards.put(shard, instance);
        }
        let canary = Canary::new(share, self.0.handler.reload.max_failures);
        let trial = Trial::new((version, file), shards, canary, self.0.verdicts.clone());
        drop(self.0.versions.set_trial(Some(Arc::new(trial))));
    }

    /// How the version on trial stands, if there is one.
    pub fn trial(&self) -> Option<TrialStanding> {
        self.0.versions.trial().map(|trial| trial.standing())
    }

    /// The version on trial takes the place of the one that runs, with the instances that it has. The hash of the version before;
    /// none where nothing is on trial.
    pub fn promote(&self) -> Option<PluginHash> {
        let trial = self.0.versions.trial()?;
        let take_places = || self.0.instances.put_all(trial.instances.take_all());
        let before = self.0.versions.swap(Arc::clone(&trial.version), take_places);
        self.0.queue.version_changed();
        Some(before.plugin.hash())
    }

    /// Nothing is on trial any more. Calls in progress end as if it were.
    pub fn end_trial(&self) {
        drop(self.0.versions.set_trial(None));
    }

    /// Its last call that failed, those on trial apart.
    pub fn last_failure(&self) -> Option<LastFailure> {
        self.0.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A version whose instances have started, and which is not called yet.
pub struct NewVersion {
    version: Arc<Version>,
    /// One for each shard.
    instances: Vec<Counted>,
}

/// A handler whose instances have started, and which calls none yet. Messages may be routed to its queue.
pub struct ReadyHandler {
    parts: Arc<InstanceParts>,
}

impl ReadyHandler {
    /// Starts the instances; `init` of each has run when it returns. Cancel safe: a start that is dropped leaves nothing behind.
    ///
    /// # Errors
    /// One of them does not start; the others are gone then.
    pub async fn start(parts: HandlerParts) -> Result<ReadyHandler, HandlerError> {
        let HandlerParts { handler, plugin, brokers, outboxes, kvs, places, kept, meters, park, tap, verdicts } = parts;
        let dead_letters = DeadLetters::of(&handler, brokers.clone(), places, kept, Arc::clone(&meters));
        let parts = Arc::new(InstanceParts {
            versions: Versions::new(plugin),
            host: Arc::new(
                Host::new(&handler, brokers, KvGrant::of(&handler, &kvs))
                    .counting_threads(meters.threads_stuck.clone()),
            ),
            queue: Arc::new(HandlerQueue::new(Arc::clone(&handler), Arc::clone(&meters), Some(park))),
            outboxes,
            meters,
            dead_letters,
            failures: InstanceParts::failures(),
            loops: InstanceParts::loops(),
            tap,
            instances: Instances::new(handler.instances.get()),
            verdicts,
            ending: Ending::default(),
            last_failure: Mutex::default(),
            handler,
        });
        let version = parts.versions.current();
        for (shard, instance) in parts.start_all(&version).await?.into_iter().enumerate() {
            parts.instances.put(shard, instance);
        }
        Ok(ReadyHandler { parts })
    }

    /// What can be read of it before it runs.
    pub fn view(&self) -> HandlerView {
        HandlerView(Arc::clone(&self.parts))
    }

    /// Where its messages wait.
    pub fn queue(&self) -> &Arc<HandlerQueue> {
        &self.parts.queue
    }

    /// Calls from now on.
    pub fn serve(self) -> RunningHandler {
        let ReadyHandler { parts } = self;
        let mut runners = JoinSet::new();
        for runner in 0..parts.handler.instances.get() {
            runners.spawn(serve(Arc::clone(&parts), runner));
        }
        tracing::info!(
            handler = %parts.handler.name, plugin = %parts.handler.plugin.display(),
            version = %parts.versions.current().plugin.hash(),
            instances = parts.handler.instances, "handler started",
        );
        let parking = parts.queue.park().map(|park| {
            AbortOnDropHandle::new(tokio::spawn(parking::keep(Arc::clone(&parts.queue), Arc::clone(park))))
        });
        RunningHandler { parts, runners, parking }
    }

    /// Takes the place of another handler: what waits there moves here, before what came here already, and calls begin once
    /// the other's calls have ended, so that no message is lost and none overtakes another. That takes no longer than one
    /// of the other's calls, and the start of an instance, may take. Messages should be routed here before; those that reach
    /// the other queue all the same come here. When `hurry` fires, the daemon's stop, what is in the middle of a call stays
    /// unacknowledged.
    ///
    /// Not cancel safe: dropped in the middle, it leaves messages that nobody handles.
    pub async fn succeed(self, other: RunningHandler, hurry: CancellationToken) -> RunningHandler {
        let RunningHandler { parts: old, mut runners, parking } = other;
        old.queue.hand_over(&self.parts.queue);
        end(parking).await;
        // What these publish goes before what is published from here on, since outboxes take batches in the order of coming.
        old.ending.hand_off.cancel();
        let hurried = tokio::select! {
            () = join(&mut runners) => false,
            () = hurry.cancelled() => true,
        };
        if hurried {
            runners.abort_all();
            join(&mut runners).await;
        }
        // What it counted goes on, too.
        let last_failure = old.last_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        *self.parts.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = last_failure;
        drop(old);
        self.serve()
    }
}

/// A handler that does its jobs. Dropped, it stops at once, and what it has in hand stays unacknowledged.
pub struct RunningHandler {
    parts: Arc<InstanceParts>,
    runners: JoinSet<()>,
    /// Keeps the park.
    parking: Option<AbortOnDropHandle<()>>,
}

impl RunningHandler {
    /// What can be read of it.
    pub fn view(&self) -> HandlerView {
        HandlerView(Arc::clone(&self.parts))
    }

    /// Where its messages wait.
    pub fn queue(&self) -> &Arc<HandlerQueue> {
        &self.parts.queue
    }

    /// Ends a handler that is removed, once no message is routed to it any more: it does what waits. What is not done at the
    /// deadline, calls in progress included, ends as purged and is acknowledged: left open, it would hold up all that
    /// follows on its connection. What was published and waits for room is left to the outboxes. When `hurry` fires before,
    /// the daemon's stop, it stops at once as by [`Self::stop`]. How many messages were purged.
    pub async fn drain(mut self, deadline: Instant, hurry: CancellationToken) -> usize {
        let RunningHandler { parts, runners, .. } = &mut self;
        parts.queue.close();
        tokio::select! {
            biased;
            () = join(runners) => return 0,
            () = hurry.cancelled() => {
                self.stop().await;
                return 0;
            }
            () = tokio::time::sleep_until(deadline.into()) => {}
        }
        let waiting = parts.queue.purge();
        parts.ending.hand_off.cancel();
        parts.ending.cut.cancel();
        join(runners).await;
        let purged = waiting + parts.ending.given_up.load(Ordering::Relaxed);
        if purged > 0 {
            tracing::warn!(handler = %parts.handler.name, messages = purged,
                "the handler is removed before it has handled all its messages; those that are left are dropped");
        }
        purged
    }

    /// Stops at once: what waits, and what is in the middle of a call, stays unacknowledged. Its instances are gone, whoever looks at it.
    pub async fn stop(mut self) {
        self.runners.abort_all();
        join(&mut self.runners).await;
        end(self.parking.take()).await;
        self.parts.queue.clear();
        drop(self.parts.instances.take_all());
        drop(self.parts.versions.set_trial(None));
    }
}

impl InstanceParts {
    /// An instance for each shard: the first alone, so that a version that does not start costs one start, and then the others beside
    /// each other. Cancel safe: a start that is dropped leaves nothing behind.
    async fn start_all(self: &Arc<Self>, version: &Arc<Version>) -> Result<Vec<Counted>, HandlerError> {
        let start = |_| {
            let (parts, version) = (Arc::clone(self), Arc::clone(version));
            AbortOnDropHandle::new(tokio::spawn(async move { parts.start(&version).await }))
        };
        let mut started = vec![start(0).await??];
        let others: Vec<AbortOnDropHandle<Result<Counted, StartError>>> =
            (1..self.handler.instances.get()).map(start).collect();
        for instance in others {
            started.push(instance.await??);
        }
        Ok(started)
    }
}

/// Ends the task that keeps the park, and waits until it has ended.
async fn end(parking: Option<AbortOnDropHandle<()>>) {
    if let Some(parking) = parking {
        parking.abort();
        if let Err(error) = parking.await
            && !error.is_cancelled()
        {
            tracing::error!(%error, "the task that keeps a handler's park panicked");
        }
    }
}

/// Waits until every runner has ended. Cancellation safe.
async fn join(runners: &mut JoinSet<()>) {
    while let Some(ended) = runners.join_next().await {
        if let Err(error) = ended
            && !error.is_cancelled()
        {
            tracing::error!(%error, "a handler's runner panicked");
        }
    }
}

#[cfg(test)]
mod tests;
