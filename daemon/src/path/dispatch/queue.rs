//! The queue of one handler: the lanes and the crew behind a lock, and the door at which runners wait.
//!
//! Fed by the router, which never waits; read by the handler's runners. The lock is held for a few memory operations, never
//! across an `.await`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::crew::Crew;
use super::lanes::{Delivery, Lanes, Limits, Verdict};
use super::parallel::{ParallelLimit, Permit};
use crate::control::config::model::{Handler, Subscription};
use crate::message::{BrokerId, Message, Qos};
use crate::path::receipt::{Outcome, Part};
use crate::path::session::Fate;
use crate::telemetry::metrics::HandlerMeters;
use crate::telemetry::occasional::Occasional;

/// How often a full queue is said.
const OVERLOAD_SAID: Duration = Duration::from_secs(10);

/// A call to be made.
pub struct Job {
    /// What to handle.
    pub message: Arc<Message>,
    /// The subscription that won.
    pub subscription: Arc<Subscription>,
    /// The call's part of the message.
    pub part: Part,
}

/// The queue of one handler, bounded by its `queue` and `queue-bytes`; QoS ≥ 1 messages wait beyond these, bounded by their
/// brokers' receive maximum.
pub struct HandlerQueue {
    handler: Arc<Handler>,
    state: Mutex<State>,
    shards: usize,
    /// Where runners rest. One is called when a job, a permit or a fate may let it go on.
    door: Arc<Notify>,
    /// By broker.
    limits: Arc<[Option<Arc<ParallelLimit>>]>,
    meters: Arc<HandlerMeters>,
    overload: Occasional,
}

struct State {
    lanes: Lanes<Job>,
    crew: Crew,
}

/// A runner's work for one shard: until it is dropped, nobody else works for the shard.
pub struct Turn {
    queue: Arc<HandlerQueue>,
    runner: usize,
    /// The shard, and so the instance to call.
    pub shard: usize,
}

impl Turn {
    /// The job takes long: another runner may be needed for what waits.
    pub fn held_up(&self) {
        let called = {
            let State { lanes, crew } = &mut *self.queue.lock();
            crew.held_up(self.runner, lanes.len(), Instant::now())
        };
        self.queue.call(called);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.lock().crew.releases(self.shard);
    }
}

impl HandlerQueue {
    /// An empty queue with a shard for each instance, and as many runners.
    pub fn new(
        handler: Arc<Handler>,
        limits: Arc<[Option<Arc<ParallelLimit>>]>,
        meters: Arc<HandlerMeters>,
    ) -> HandlerQueue {
        let shards = handler.instances.get();
        let bounds = Limits { messages: handler.queue, bytes: handler.queue_bytes, overload: handler.overload };
        HandlerQueue {
            state: Mutex::new(State { lanes: Lanes::new(shards, limits.len(), bounds), crew: Crew::new(shards) }),
            shards,
            door: Arc::new(Notify::new()),
            limits,
            meters,
            overload: Occasional::every(OVERLOAD_SAID),
            handler,
        }
    }

    /// Puts a job into the shard of its topic. Never waits: what has no room ends as dropped, by the overload policy.
    pub fn push(&self, job: Job) {
        let broker = job.message.broker;
        let shard = self.shard(&job.message);
        let delivery = if job.message.qos == Qos::AtMostOnce { Delivery::Droppable } else { Delivery::Kept };
        let (weight, arrived) = (job.message.weight(), job.message.arrived);
        let (dropped, called) = {
            let State { lanes, crew } = &mut *self.lock();
            let dropped = lanes.push(shard, broker, delivery, weight, job);
            self.meters.queue.set(lanes.len() as i64);
            (dropped, crew.job_came(shard, lanes.len(), arrived))
        };
        self.call(called);
        for job in dropped {
            if let Some(unsaid) = self.overload.due() {
                tracing::warn!(
                    handler = %self.handler.name, queue = self.handler.queue, queue_bytes = self.handler.queue_bytes, unsaid,
                    "the handler's queue is full, a QoS 0 message is dropped",
                );
            }
            job.part.end(Outcome::DroppedOverload);
        }
    }

    /// The next job that may start, with its shard and the permit of its broker's parallel limit. To be dropped before the
    /// runner asks again. Cancellation safe.
    pub async fn next(self: &Arc<Self>, runner: usize) -> (Turn, Job, Option<Permit>) {
        loop {
            if let Some((shard, job, permit)) = self.try_next(runner) {
                return (Turn { queue: Arc::clone(self), runner, shard }, job, permit);
            }
            self.door.notified().await;
        }
    }

    /// The fate of a lost connection's messages is known: those that the broker sends again go at once, also where their
    /// shard is busy and asks for nothing, so that they do not add up over many connections; the others go on.
    pub fn fate_decided(&self, broker: BrokerId) {
        let returned = {
            let lanes = &mut self.lock().lanes;
            let returned = lanes.discard(broker, |job| job.part.fate() == Fate::Returned);
            self.meters.queue.set(lanes.len() as i64);
            returned
        };
        returned.into_iter().for_each(|job| job.part.end(Outcome::Returned));
        self.door.notify_one();
    }

    /// Drops what waits: the messages stay unacknowledged.
    pub fn clear(&self) {
        let dropped = self.lock().lanes.clear();
        self.meters.queue.set(0);
        drop(dropped);
    }

    fn try_next(&self, runner: usize) -> Option<(usize, Job, Option<Permit>)> {
        let mut permit = None;
        let mut discarded = Vec::new();
        let found = {
            let State { lanes, crew } = &mut *self.lock();
            let mut verdict = |broker: BrokerId, job: &Job| match (job.part.fate(), &self.limits[broker.index()]) {
                (Fate::Returned, _) => Verdict::Discard,
                (Fate::Undecided, _) => Verdict::Hold,
                (Fate::Open, None) => Verdict::Run,
                (Fate::Open, Some(limit)) => {
                    permit = limit.try_acquire(&self.door);
                    if permit.is_some() { Verdict::Run } else { Verdict::Hold }
                }
            };
            crew.looks(runner, Instant::now());
            let found = crew.free().find_map(|shard| Some((shard, lanes.take(shard, &mut verdict, &mut discarded)?)));
            match &found {
                Some((shard, _)) => crew.takes(*shard),
                None => crew.rests(runner),
            }
            self.meters.queue.set(lanes.len() as i64);
            found
        };
        discarded.into_iter().for_each(|job| job.part.end(Outcome::Returned));
        found.map(|(shard, job)| (shard, job, permit))
    }

    fn call(&self, called: bool) {
        if called {
            self.door.notify_one();
        }
    }

    fn shard(&self, message: &Message) -> usize {
        let mut hasher = DefaultHasher::new();
        (message.broker, &message.topic).hash(&mut hasher);
        (hasher.finish() % self.shards as u64) as usize
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves nothing half done that a later holder could see: each step is one call of the core.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
