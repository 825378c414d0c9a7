//! The queue of one handler: the gate, the lanes and the crew behind a lock, and the door at which runners wait.
//!
//! Fed by the router, which never waits; read by the handler's runners. `parking.rs` has what happens while the handler is paused
//! or quarantined. The lock is held for a few memory operations, never across an `.await`. It can be closed: then its runners end
//! once nothing waits, or another queue takes its place.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::crew::Crew;
use super::gate::{Gate, Held, Mode, Ticket};
use super::lanes::{Delivery, Limits, Place, Verdict};
use super::parallel::{ParallelLimit, Permit};
use super::quarantine::Quarantine;
use super::retry::Tries;
use super::runs::{RUN_SHARD, RunJob, Runs};
use crate::control::config::model::{Handler, Subscription};
use crate::message::{BrokerId, Message, Qos};
use crate::path::kept::Again;
use crate::path::park::Park;
use crate::path::receipt::{Outcome, Part};
use crate::path::session::Fate;
use crate::telemetry::metrics::HandlerMeters;
use crate::telemetry::occasional::Occasional;
use crate::topic::TopicName;

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
    /// How many calls may run for messages of its broker.
    pub limit: Arc<ParallelLimit>,
    /// The calls so far.
    pub tries: Tries,
    /// Its place on the disk, where it is handled again from there.
    pub again: Option<Arc<Again>>,
}

/// The queue of one handler, bounded by its `queue` and `queue-bytes`; QoS ≥ 1 messages wait beyond these, bounded by their
/// brokers' receive maximum.
pub struct HandlerQueue {
    pub(super) handler: Arc<Handler>,
    state: Mutex<State>,
    shards: usize,
    /// Where runners rest. One is called when a job, a permit or a fate may let it go on.
    pub(super) door: Arc<Notify>,
    pub(super) meters: Arc<HandlerMeters>,
    overload: Occasional,
    /// Where messages are while the handler is paused or quarantined; none where there is no disk.
    pub(super) park: Option<Arc<Park>>,
    /// Calls failed, so that one which succeeds is to be told to the quarantine. Written under the lock.
    pub(super) ailing: AtomicBool,
}

pub(super) struct State {
    pub(super) gate: Gate<Job>,
    /// Runs of schedules; no messages.
    runs: Runs,
    pub(super) crew: Crew,
    pub(super) quarantine: Quarantine,
    /// What is not called yet is to be parked: the handler or the daemon ends while parked messages are brought back.
    pub(super) winding_up: bool,
    /// What the gauges tell of this queue: one that takes its place shares them.
    told: Told,
    /// Set once, by whoever ends the handler or replaces it.
    pub(super) closed: Option<Closed>,
}

/// What the gauges tell: messages that wait, and those among them that come again.
#[derive(Clone, Copy, Default)]
struct Told {
    waiting: usize,
    put_off: usize,
}

/// What becomes of jobs that come to a closed queue, from a router that had not heard of it.
pub(super) enum Closed {
    /// They are dropped: the handler is removed. What was called already may be called again.
    Removed,
    /// They are dropped, and so is what was called and comes again.
    Purged,
    /// They go where the others went.
    Replaced(Arc<HandlerQueue>),
}

/// What a runner does next.
pub enum Work {
    /// A call, with its shard and the permit of its broker's parallel limit. To be dropped before the runner asks again.
    Call(Turn, Job, Permit),
    /// A run of a schedule, which needs no permit. Likewise.
    Run(Turn, RunJob),
    /// Nothing ever again: the queue is closed and empty.
    End,
}

/// What a look found.
enum Found {
    Call(usize, Held<Job>, Permit),
    Run(usize, RunJob),
    /// Nothing yet; something may start then.
    Nothing(Option<Instant>),
    End,
}

/// A runner's work for one shard: until it is dropped, nobody else works for the shard.
pub struct Turn {
    pub(super) queue: Arc<HandlerQueue>,
    runner: usize,
    /// The shard, and so the instance to call.
    pub shard: usize,
    pub(super) ticket: Ticket,
}

impl Turn {
    /// The job takes long: another runner may be needed for what waits.
    pub fn held_up(&self) {
        let called = {
            let State { gate, runs, crew, .. } = &mut *self.queue.lock();
            crew.held_up(self.runner, gate.callable() + runs.len(), Instant::now())
        };
        self.queue.call(called);
    }

    /// The call of this turn's job failed: the job is called again, not before `due`, and what comes after it in its topic
    /// waits behind it. Whoever takes the place of the handler meanwhile calls it at once. Where the handler is paused or
    /// quarantined by now, it is parked instead.
    pub fn again(&self, job: Job, due: Instant) {
        self.queue.put_off(self.shard, Held { ticket: self.ticket, job }, due);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.crew.releases(self.shard);
        self.queue.turn_ended(&mut state, self.ticket);
    }
}

impl HandlerQueue {
    /// An empty queue with a shard for each instance, and as many runners. What `park` holds comes before all else; without one
    /// the handler can neither be paused nor quarantined.
    pub fn new(handler: Arc<Handler>, meters: Arc<HandlerMeters>, park: Option<Arc<Park>>) -> HandlerQueue {
        let shards = handler.instances.get();
        let bounds = Limits { messages: handler.queue, bytes: handler.queue_bytes, overload: handler.overload };
        if let Some(park) = &park {
            park.restart();
        }
        let mode = match &park {
            Some(park) if park.is_paused() => Mode::Parking,
            Some(park) if park.held().rows > 0 => Mode::Replaying,
            Some(_) | None => Mode::Open,
        };
        let state = State {
            gate: Gate::new(shards, bounds, mode),
            runs: Runs::default(),
            crew: Crew::new(shards),
            quarantine: Quarantine::new(handler.quarantine.filter(|_| park.is_some())),
            winding_up: false,
            told: Told::default(),
            closed: None,
        };
        HandlerQueue {
            park,
            ailing: AtomicBool::new(false),
            state: Mutex::new(state),
            shards,
            door: Arc::new(Notify::new()),
            meters,
            overload: Occasional::every(OVERLOAD_SAID),
            handler,
        }
    }

    /// Puts a job into the shard of its topic. Never waits: what has no room ends as dropped, by the overload policy.
    pub fn push(&self, job: Job) {
        let (place, arrived) = (self.place(&job), job.message.arrived);
        let (dropped, called) = {
            let mut state = self.lock();
            match &state.closed {
                None => {}
                Some(Closed::Replaced(successor)) => {
                    let successor = Arc::clone(successor);
                    drop(state);
                    return successor.push(job);
                }
                Some(Closed::Removed | Closed::Purged) => {
                    drop(state);
                    return job.part.end(Outcome::DroppedPurged);
                }
            }
            let dropped = state.gate.push(place, job);
            self.tell(&mut state);
            let State { gate, crew, .. } = &mut *state;
            let open = gate.mode() == Mode::Open;
            if !open {
                self.wake_park();
            }
            (dropped, open && crew.job_came(place.shard, gate.callable(), arrived))
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

    /// Puts a run into the first shard. A handler that is paused or quarantined makes none; one that is removed drops it without a
    /// word.
    pub fn push_run(&self, run: RunJob) {
        let called = {
            let mut state = self.lock();
            match &state.closed {
                None => {}
                Some(Closed::Replaced(successor)) => {
                    let successor = Arc::clone(successor);
                    drop(state);
                    return successor.push_run(run);
                }
                Some(Closed::Removed | Closed::Purged) => return,
            }
            if state.gate.mode() == Mode::Parking {
                drop(state);
                return run.not_now();
            }
            state.runs.push(run);
            let State { gate, runs, crew, .. } = &mut *state;
            crew.job_came(RUN_SHARD, gate.callable() + runs.len(), Instant::now())
        };
        self.call(called);
    }

    /// What a runner does next; waits for it. Cancellation safe.
    pub async fn next(self: &Arc<Self>, runner: usize) -> Work {
        loop {
            match self.try_next(runner) {
                Found::Call(shard, Held { ticket, job }, permit) => {
                    return Work::Call(Turn { queue: Arc::clone(self), runner, shard, ticket }, job, permit);
                }
                Found::Run(shard, run) => {
                    let ticket = Ticket::default();
                    return Work::Run(Turn { queue: Arc::clone(self), runner, shard, ticket }, run);
                }
                Found::Nothing(None) => self.door.notified().await,
                Found::Nothing(Some(due)) => {
                    // Either way there may be something to start.
                    let _ = tokio::time::timeout_at(due.into(), self.door.notified()).await;
                }
                Found::End => return Work::End,
            }
        }
    }

    /// A job that was called comes again: into this queue, or first into the one that took its place.
    fn put_off(&self, shard: usize, held: Held<Job>, due: Instant) {
        let mut state = self.lock();
        match &state.closed {
            None | Some(Closed::Removed) => {
                let stays = state.gate.put_off(shard, self.place(&held.job), held, due);
                self.stay(&mut state, stays);
                self.tell(&mut state);
            }
            Some(Closed::Replaced(successor)) => {
                let successor = Arc::clone(successor);
                drop(state);
                successor.put_first(held);
            }
            Some(Closed::Purged) => {
                drop(state);
                purged(held);
            }
        }
    }

    /// Puts a job before all that wait, here or in the queue that took this one's place.
    fn put_first(&self, held: Held<Job>) {
        let mut state = self.lock();
        match &state.closed {
            None => {
                let stays = state.gate.put_first(self.place(&held.job), held);
                self.stay(&mut state, stays);
                self.tell(&mut state);
                drop(state);
                self.door.notify_one();
            }
            Some(Closed::Replaced(successor)) => {
                let successor = Arc::clone(successor);
                drop(state);
                successor.put_first(held);
            }
            Some(Closed::Removed | Closed::Purged) => {
                drop(state);
                purged(held);
            }
        }
    }

    /// The fate of a lost connection's messages is known: those that the broker sends again go at once, also where their
    /// shard is busy and asks for nothing, so that they do not add up over many connections; the others go on.
    pub fn fate_decided(&self, broker: BrokerId) {
        let returned = {
            let mut state = self.lock();
            let returned = state.gate.discard(broker, |job| job.part.fate() == Fate::Returned);
            self.tell(&mut state);
            returned
        };
        returned.into_iter().for_each(|job| job.part.end(Outcome::Returned));
        self.door.notify_one();
        self.wake_park();
    }

    /// Nothing comes any more: what waits is done, that which comes again included, and then the runners end. Where messages are
    /// parked, what waits is parked too. A job that comes all the same is purged.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed.get_or_insert(Closed::Removed);
        self.wind_up(&mut state);
        drop(state);
        self.door.notify_one();
    }

    /// Moves what waits into another handler's queue, before what waits there, and what comes later behind it. Calls go on;
    /// the runners end after them. No message is lost, and none overtakes another of its topic as long as the other queue's
    /// runners begin after these have ended.
    pub fn hand_over(&self, successor: &Arc<HandlerQueue>) {
        {
            let mut state = self.lock();
            state.closed = Some(Closed::Replaced(Arc::clone(successor)));
            let runs = state.runs.clear();
            // Under both locks: what is put off meanwhile goes before these, and a lock is taken after an older queue's alone.
            let mut next = successor.lock();
            self.hand_over_to(&mut state, successor, &mut next);
            self.tell(&mut state);
            successor.tell(&mut next);
            runs.into_iter().for_each(|run| next.runs.push(run));
        }
        self.door.notify_one();
        successor.door.notify_one();
    }

    /// Ends what waits as purged, and acknowledges it: left open, it would hold up the acknowledgements of all that follows
    /// on its connection. How many messages that were.
    pub fn purge(&self) -> usize {
        self.lock().closed = Some(Closed::Purged);
        // What is parked stays so.
        let gone: Vec<Held<Job>> = self.take_all().into_iter().filter(|held| !held.ticket.replayed).collect();
        let count = gone.len();
        gone.into_iter().for_each(purged);
        self.door.notify_one();
        count
    }

    /// Drops what waits: the messages stay unacknowledged.
    pub fn clear(&self) {
        drop(self.take_all());
    }

    /// Messages that wait, those that come again included.
    pub fn waiting(&self) -> usize {
        self.lock().gate.len()
    }

    /// Messages that wait to be called again.
    pub fn retrying(&self) -> usize {
        self.lock().gate.put_off_count()
    }

    fn take_all(&self) -> Vec<Held<Job>> {
        let mut state = self.lock();
        let jobs = state.gate.clear();
        let runs = state.runs.clear();
        self.tell(&mut state);
        drop(state);
        drop(runs);
        jobs
    }

    fn try_next(&self, runner: usize) -> Found {
        let mut permit = None;
        let mut discarded = Vec::new();
        let (found, ended, due) = {
            let mut state = self.lock();
            let State { gate, runs, crew, closed, .. } = &mut *state;
            let mut verdict = |job: &Job| match job.part.fate() {
                Fate::Returned => Verdict::Discard,
                Fate::Undecided => Verdict::Hold,
                Fate::Open => {
                    permit = job.limit.try_acquire(&self.door);
                    if permit.is_some() { Verdict::Run } else { Verdict::Hold }
                }
            };
            let now = Instant::now();
            crew.looks(runner, now);
            let run = crew.free().find_map(|shard| Some((shard, runs.take(shard)?)));
            if let Some((shard, run)) = run {
                crew.takes(shard);
                return Found::Run(shard, run);
            }
            let number = || self.park.as_ref().map_or(0, |park| park.number());
            let take = |shard| Some((shard, gate.take(shard, now, &mut verdict, &mut discarded, number)?));
            let found = crew.free().find_map(take);
            match &found {
                Some((shard, _)) => crew.takes(*shard),
                None => crew.rests(runner),
            }
            let ended = found.is_none() && gate.len() + runs.len() == 0 && self.has_ended(closed.as_ref());
            let due = if found.is_none() { gate.next_due(now) } else { None };
            self.tell(&mut state);
            (found, ended, due)
        };
        discarded.into_iter().for_each(|job| job.part.end(Outcome::Returned));
        if ended {
            // The next one that rests learns of it from this one.
            self.door.notify_one();
            return Found::End;
        }
        match found {
            Some((shard, job)) => Found::Call(shard, job, permit.expect("the verdict is to run only with a permit")),
            None => Found::Nothing(due),
        }
    }

    /// Whether nothing more is to be done where nothing waits.
    fn has_ended(&self, closed: Option<&Closed>) -> bool {
        match closed {
            None => false,
            // What is on its way to the park is told to the other one.
            Some(Closed::Replaced(_)) => true,
            // Nor is it waited for where the time is over: a full disk may keep it waiting for ever.
            Some(Closed::Purged) => true,
            Some(Closed::Removed) => self.park.as_ref().is_none_or(|park| park.is_written()),
        }
    }

    /// Tells the gauges what changed.
    pub(super) fn tell(&self, state: &mut State) {
        let now = Told { waiting: state.gate.len(), put_off: state.gate.put_off_count() };
        let told = std::mem::replace(&mut state.told, now);
        self.meters.queue.add(now.waiting as i64 - told.waiting as i64);
        if now.put_off != told.put_off {
            self.meters.retrying.add(now.put_off as i64 - told.put_off as i64);
        }
    }

    pub(super) fn call(&self, called: bool) {
        if called {
            self.door.notify_one();
        }
    }

    pub(super) fn place(&self, job: &Job) -> Place {
        let message = &job.message;
        let topic = self.topic(message.broker, &message.topic);
        let shard = (topic % self.shards as u64) as usize;
        // What comes from the disk is bounded by who brings it.
        let droppable = message.qos == Qos::AtMostOnce && job.again.is_none();
        let delivery = if droppable { Delivery::Droppable } else { Delivery::Kept };
        Place { shard, broker: message.broker, topic, delivery, weight: message.weight() }
    }

    /// The number that stands for a topic of a broker.
    pub(super) fn topic(&self, broker: BrokerId, topic: &TopicName) -> u64 {
        let mut hasher = DefaultHasher::new();
        (broker, topic).hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves nothing half done that a later holder could see: each step is one call of the core.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Its handler is gone. What is on the disk stays there.
fn purged(held: Held<Job>) {
    if !held.ticket.replayed {
        held.job.part.end(Outcome::DroppedPurged);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::TryLockError;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;

    use super::*;
    use crate::control::config::load_text;
    use crate::path::receipt::{Progress, Receipt};
    use crate::telemetry::metrics::Metrics;
    use crate::topic::TopicFilter;

    struct World {
        metrics: Metrics,
        handler: Arc<Handler>,
        progress: Arc<Progress>,
        limit: Arc<ParallelLimit>,
    }

    impl World {
        fn new() -> World {
            let text = "brokers.plant.address = \"a\"\n[handlers.celsius]\nplugin = \"celsius.wasm\"\ninstances = 1\n";
            let loaded = load_text(std::path::Path::new("/nowhere/tidegate.toml"), text, "").expect("is good");
            World {
                metrics: Metrics::new().expect("well formed"),
                handler: Arc::clone(&loaded.config.handlers[0]),
                progress: Arc::default(),
                limit: ParallelLimit::new(None),
            }
        }

        fn queue(&self) -> Arc<HandlerQueue> {
            Arc::new(HandlerQueue::new(Arc::clone(&self.handler), self.metrics.handler("celsius"), None))
        }

        fn push(&self, queue: &HandlerQueue, payload: &'static str) {
            let message = Message::testing("t", payload);
            let receipt = Receipt::new(self.metrics.broker("plant"), Arc::clone(&self.progress), message.qos, None);
            let part = receipt.split(1).next().expect("one part");
            let subscription = Subscription {
                name: "inputs".into(),
                broker: BrokerId(0),
                topic: TopicFilter::new("#").expect("is a filter"),
                qos: Qos::AtLeastOnce,
                on_message: None,
                when: None,
                silence: None,
            };
            let (message, subscription, limit) = (Arc::new(message), Arc::new(subscription), Arc::clone(&self.limit));
            queue.push(Job { message, subscription, part, limit, tries: Tries::default(), again: None });
        }
    }

    fn next(queue: &Arc<HandlerQueue>) -> (Turn, Job) {
        match pin!(queue.next(0)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Work::Call(turn, job, _)) => (turn, job),
            Poll::Ready(Work::End | Work::Run(..)) => panic!("it has ended, or runs"),
            Poll::Pending => panic!("nothing waits"),
        }
    }

    /// A call that fails while what waits is handed over: its message still goes before those of its topic that waited.
    #[test]
    fn a_message_that_fails_during_the_hand_over_is_not_overtaken() {
        for _ in 0..20 {
            let world = World::new();
            let (old, new) = (world.queue(), world.queue());
            world.push(&old, "1");
            world.push(&old, "2");
            let (turn, job) = next(&old);
            assert_eq!(&job.message.payload[..], b"1");
            std::thread::scope(|scope| {
                // The hand-over gets as far as it can without the other queue.
                let busy = new.lock();
                scope.spawn(|| old.hand_over(&new));
                let begun = || match old.state.try_lock() {
                    Ok(state) => state.closed.is_some(),
                    Err(TryLockError::WouldBlock) => true,
                    Err(TryLockError::Poisoned(_)) => panic!("poisoned"),
                };
                while !begun() {
                    std::thread::yield_now();
                }
                drop(busy);
                turn.again(job, Instant::now());
            });
            drop(turn);
            let order = [(); 2].map(|()| next(&new).1.message.payload.clone());
            assert_eq!(order, [Bytes::from_static(b"1"), Bytes::from_static(b"2")]);
        }
    }
}
