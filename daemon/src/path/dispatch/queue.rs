//! The queue of one handler: the lanes behind a lock, and the shards' wakers.
//!
//! Fed by the router, which never waits; read by the handler's instances, one for each shard. The lock is held for a few
//! memory operations, never across an `.await`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

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
    lanes: Mutex<Lanes<Job>>,
    /// One for each shard. Told when a job, a permit or a fate may let it go on.
    wakers: Vec<Arc<Notify>>,
    /// By broker.
    limits: Arc<[Option<Arc<ParallelLimit>>]>,
    meters: Arc<HandlerMeters>,
    overload: Occasional,
}

impl HandlerQueue {
    /// An empty queue with a shard for each instance.
    pub fn new(
        handler: Arc<Handler>,
        limits: Arc<[Option<Arc<ParallelLimit>>]>,
        meters: Arc<HandlerMeters>,
    ) -> HandlerQueue {
        let shards = handler.instances.get();
        let bounds = Limits { messages: handler.queue, bytes: handler.queue_bytes, overload: handler.overload };
        HandlerQueue {
            lanes: Mutex::new(Lanes::new(shards, limits.len(), bounds)),
            wakers: (0..shards).map(|_| Arc::new(Notify::new())).collect(),
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
        let weight = job.message.weight();
        let dropped = {
            let mut lanes = self.lock();
            let dropped = lanes.push(shard, broker, delivery, weight, job);
            self.meters.queue.set(lanes.len() as i64);
            dropped
        };
        self.wakers[shard].notify_one();
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

    /// The next job of a shard that may start, with the permit of its broker's parallel limit. Cancellation safe.
    pub async fn next(&self, shard: usize) -> (Job, Option<Permit>) {
        loop {
            if let Some(next) = self.try_next(shard) {
                return next;
            }
            self.wakers[shard].notified().await;
        }
    }

    /// The fate of a lost connection's messages is known: those that the broker sends again go at once, also where their
    /// shard is busy and asks for nothing, so that they do not add up over many connections; the others go on.
    pub fn fate_decided(&self, broker: BrokerId) {
        let returned = {
            let mut lanes = self.lock();
            let returned = lanes.discard(broker, |job| job.part.fate() == Fate::Returned);
            self.meters.queue.set(lanes.len() as i64);
            returned
        };
        returned.into_iter().for_each(|job| job.part.end(Outcome::Returned));
        self.wakers.iter().for_each(|waker| waker.notify_one());
    }

    /// Drops what waits: the messages stay unacknowledged.
    pub fn clear(&self) {
        let dropped = self.lock().clear();
        self.meters.queue.set(0);
        drop(dropped);
    }

    fn try_next(&self, shard: usize) -> Option<(Job, Option<Permit>)> {
        let mut permit = None;
        let mut discarded = Vec::new();
        let job = {
            let mut lanes = self.lock();
            let job = lanes.take(
                shard,
                |broker, job| match (job.part.fate(), &self.limits[broker.index()]) {
                    (Fate::Returned, _) => Verdict::Discard,
                    (Fate::Undecided, _) => Verdict::Hold,
                    (Fate::Open, None) => Verdict::Run,
                    (Fate::Open, Some(limit)) => {
                        permit = limit.try_acquire(&self.wakers[shard]);
                        if permit.is_some() { Verdict::Run } else { Verdict::Hold }
                    }
                },
                &mut discarded,
            );
            self.meters.queue.set(lanes.len() as i64);
            job
        };
        discarded.into_iter().for_each(|job| job.part.end(Outcome::Returned));
        job.map(|job| (job, permit))
    }

    fn shard(&self, message: &Message) -> usize {
        let mut hasher = DefaultHasher::new();
        (message.broker, &message.topic).hash(&mut hasher);
        (hasher.finish() % self.wakers.len() as u64) as usize
    }

    fn lock(&self) -> MutexGuard<'_, Lanes<Job>> {
        // A panic under this lock leaves nothing half done that a later holder could see: each step is one call of the core.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
