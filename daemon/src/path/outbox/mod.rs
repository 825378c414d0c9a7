//! What waits to be published: an outbox for each broker, in memory.
//!
//! Owns the outboxes behind one lock that is held for a few memory operations and never across an `.await`. Fed by the
//! handlers' instances, which wait here while there is no room; drained by each broker's feeder; told by its poller what
//! the broker has. When a call's last publish is safe, the message that caused it ends here. It knows no packet
//! identifiers and no connection.

mod admission;
mod condemned;
mod queue;
mod suspicion;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use self::admission::{Admission, Change, Offered};
pub use self::admission::{BatchId, Capacity};
pub use self::condemned::Cause;
use self::condemned::Condemned;
use self::queue::End;
pub use self::queue::{EntryId, Suspect};
use crate::message::{BrokerId, Message, Outgoing, Qos};
use crate::path::handler::Publish;
use crate::path::receipt::{Outcome, Part};
use crate::telemetry::metrics::{BrokerMeters, HandlerMeters};

/// What every outbox holds. When it is full, calls whose publishes do not fit wait; then their handler's queue fills.
pub const CAPACITY: Capacity = Capacity { messages: 10_000, bytes: 64 << 20 };

/// How long a connection stands before a suspect is sent on it: what ends sooner ends for another reason, such as a birth
/// message that the broker does not permit.
const PROOF: Duration = Duration::from_secs(1);

/// How long an outbox waits after its broker did not take an entry for now: so long at first, twice as long each time.
const POSTPONED: Duration = Duration::from_secs(1);

/// The longest such wait.
const POSTPONED_LONGEST: Duration = Duration::from_secs(30);

/// All outboxes. Shared by every stage that publishes.
pub struct Outboxes {
    state: Mutex<State>,
    brokers: Vec<BrokerSide>,
    /// Of [`Cause`]s, in this process alone.
    hasher: RandomState,
}

struct State {
    admission: Admission<Completion>,
    /// Who waits for admission. Written by `submit`, released at admission or when the waiter gives up.
    waiters: HashMap<BatchId, oneshot::Sender<()>>,
    /// By broker. Written by its session.
    holds: Vec<Hold>,
    /// By broker. Written when something is given up.
    condemned: Vec<Condemned>,
}

/// What stands next in an outbox.
enum Next {
    Send(EntryId, Arc<Outgoing>),
    /// It is a copy of what was given up.
    Drop(EntryId),
}

/// Whether an outbox holds back what it could give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    No,
    /// The connection is new: on a trial, from the first attempt to send on.
    OnTrial,
    Until(Instant),
}

impl State {
    /// Whether the next entry is held back at this time.
    fn is_held(&mut self, broker: BrokerId, now: Instant) -> bool {
        let hold = &mut self.holds[broker.index()];
        if *hold == Hold::OnTrial && self.admission.outbox(broker).is_on_trial() {
            *hold = Hold::Until(now + PROOF);
        }
        let held = matches!(*hold, Hold::Until(until) if now < until);
        if !held {
            *hold = Hold::No;
        }
        held
    }

    fn next(&mut self, broker: BrokerId, now: Instant) -> Option<Next> {
        if self.is_held(broker, now) {
            return None;
        }
        let (entry, message) = self.admission.outbox(broker).take_next()?;
        let condemned = &mut self.condemned[broker.index()];
        if condemned.is_empty() {
            return Some(Next::Send(entry, message));
        }
        let cause = self.admission.tag(broker, entry).and_then(|completion| completion.cause);
        let drop = cause.is_some_and(|cause| condemned.has(cause, &message.topic, now));
        Some(if drop { Next::Drop(entry) } else { Next::Send(entry, message) })
    }
}

struct BrokerSide {
    /// Calls that offered publishes to this broker so far.
    offered: AtomicU64,
    /// Told at every such offer.
    offers: Notify,
    /// Told whenever something unsent may have appeared. The feeder of the broker is the only one that waits for it.
    unsent: Notify,
    meters: Arc<BrokerMeters>,
}

/// What ends once a call's publishes are safe.
pub struct Completion {
    /// The call's part of its message.
    pub part: Part,
    /// Where a publish could hold up the acknowledgement of its own message: see [`Outboxes::cause`].
    pub cause: Option<Cause>,
    /// When the message arrived.
    pub arrived: Instant,
    /// The meters of the handler that was called.
    pub meters: Arc<HandlerMeters>,
}

impl Completion {
    fn end(self, worst: End) {
        self.meters.end_to_end.observe(self.arrived.elapsed().as_secs_f64());
        self.part.end(match worst {
            End::Delivered => Outcome::Handled,
            End::Refused => Outcome::DroppedRefused,
            End::Poisoned => Outcome::DroppedPoisoned,
        });
    }
}

impl Outboxes {
    /// Empty outboxes, one for each broker by [`BrokerId`].
    pub fn new(meters: Vec<Arc<BrokerMeters>>) -> Outboxes {
        let admission = Admission::new(meters.len(), CAPACITY);
        let holds = vec![Hold::No; meters.len()];
        let condemned = meters.iter().map(|_| Condemned::default()).collect();
        Outboxes {
            state: Mutex::new(State { admission, waiters: HashMap::new(), holds, condemned }),
            hasher: RandomState::new(),
            brokers: meters
                .into_iter()
                .map(|meters| BrokerSide {
                    offered: AtomicU64::new(0),
                    offers: Notify::new(),
                    unsent: Notify::new(),
                    meters,
                })
                .collect(),
        }
    }

    /// What tells a message that its broker sends again, if a call's publishes can hold up its acknowledgement.
    pub fn cause(&self, message: &Message, publishes: &[Publish]) -> Option<Cause> {
        let holds_up = |publish: &Publish| publish.broker == message.broker && publish.message.qos != Qos::AtMostOnce;
        (message.qos != Qos::AtMostOnce && publishes.iter().any(holds_up))
            .then(|| Cause(self.hasher.hash_one((&message.topic, &message.payload))))
    }

    /// Puts a call's publishes into the outboxes, all or none, and waits while there is no room. Its message ends once
    /// every publish is safe; at once when there is none.
    ///
    /// Dropping the future while it waits withdraws the publishes and leaves the message unacknowledged.
    pub async fn submit(&self, publishes: Vec<Publish>, completion: Completion) {
        if publishes.is_empty() {
            return completion.end(End::Delivered);
        }
        for publish in &publishes {
            let side = &self.brokers[publish.broker.index()];
            side.offered.fetch_add(1, Ordering::Relaxed);
            side.offers.notify_waiters();
        }
        let (batch, admitted) = {
            let mut state = self.lock();
            let Offered::Waits(batch) = state.admission.offer(publishes, completion) else {
                self.refresh(&mut state);
                return;
            };
            let (sender, admitted) = oneshot::channel();
            state.waiters.insert(batch, sender);
            (batch, admitted)
        };
        let _withdraw_when_dropped = Withdrawal { outboxes: self, batch };
        // The sender is dropped only together with its batch, by the withdrawal above.
        let _ = admitted.await;
    }

    /// Waits until the broker's outbox has something to send; returns at once while it has. Cancellation safe. For one
    /// waiter a broker.
    pub async fn ready(&self, broker: BrokerId) {
        let unsent = &self.brokers[broker.index()].unsent;
        loop {
            let held = {
                let mut state = self.lock();
                match (state.admission.outbox(broker).has_unsent(), state.holds[broker.index()]) {
                    (false, _) => None,
                    (true, Hold::Until(until)) if Instant::now() < until => Some(until),
                    (true, _) => return,
                }
            };
            match held {
                None => unsent.notified().await,
                Some(until) => tokio::time::sleep_until(until.into()).await,
            }
        }
    }

    /// Publishes that were offered to this broker so far, those that wait for room included.
    pub fn offered(&self, broker: BrokerId) -> u64 {
        self.brokers[broker.index()].offered.load(Ordering::Relaxed)
    }

    /// Waits until more than so many were offered. Cancellation safe.
    pub async fn offered_beyond(&self, broker: BrokerId, count: u64) {
        let offers = &self.brokers[broker.index()].offers;
        loop {
            let mut told = std::pin::pin!(offers.notified());
            told.as_mut().enable();
            if self.offered(broker) > count {
                return;
            }
            told.await;
        }
    }

    /// The next unsent entry, which counts as sent from now on. None also while it is held back. Copies of what was given
    /// up end on the way.
    pub fn take_next(&self, broker: BrokerId) -> Option<(EntryId, Arc<Outgoing>)> {
        loop {
            let next = self.lock().next(broker, Instant::now())?;
            match next {
                Next::Send(entry, message) => return Some((entry, message)),
                Next::Drop(entry) => self.ended(broker, entry, End::Poisoned),
            }
        }
    }

    /// A sent entry was not sent after all: it is the next one again.
    pub fn put_back(&self, broker: BrokerId, entry: EntryId) {
        self.lock().admission.outbox(broker).put_back(entry);
        self.brokers[broker.index()].unsent.notify_one();
    }

    /// The broker has it: acknowledged, at QoS 0 written.
    pub fn delivered(&self, broker: BrokerId, entry: EntryId) {
        self.ended(broker, entry, End::Delivered);
    }

    /// The broker will never take it. Its message ends as refused.
    pub fn refused(&self, broker: BrokerId, entry: EntryId) {
        self.ended(broker, entry, End::Refused);
    }

    /// The broker does not take it for now: it is the next one again, after a while. Whether that was not so before.
    pub fn postponed(&self, broker: BrokerId, entry: EntryId) -> bool {
        let (now, mut state) = (Instant::now(), self.lock());
        if matches!(state.holds[broker.index()], Hold::Until(until) if now < until) {
            // Sent with the one that began the wait, which is still the first.
            state.admission.outbox(broker).put_back(entry);
            return false;
        }
        let times = state.admission.outbox(broker).postpone(entry);
        let wait = POSTPONED_LONGEST.min(POSTPONED * (1 << (times - 1).min(5)));
        state.holds[broker.index()] = Hold::Until(now + wait);
        drop(state);
        // Who waits for something unsent learns of the wait.
        self.brokers[broker.index()].unsent.notify_one();
        times == 1
    }

    /// A new connection of the broker's session was accepted.
    pub fn connected(&self, broker: BrokerId) {
        self.lock().holds[broker.index()] = Hold::OnTrial;
    }

    /// The connection is gone: what was sent and is neither delivered nor refused is unsent again, in order. `blamed` is
    /// the oldest entry that was written and not acknowledged, where the broker may have ended the connection over what it
    /// was sent. Returns what is to be told of that: the message of a guilty one has ended as poisoned.
    pub fn connection_lost(&self, broker: BrokerId, blamed: Option<EntryId>) -> Option<Suspect> {
        let suspect = {
            let mut state = self.lock();
            state.holds[broker.index()] = Hold::No;
            let suspect = state.admission.outbox(broker).connection_lost(blamed);
            if let Some(Suspect::Guilty { entry, message, .. }) = &suspect
                && let Some(cause) = state.admission.tag(broker, *entry).and_then(|completion| completion.cause)
            {
                state.condemned[broker.index()].add(cause, message.topic.clone(), Instant::now());
            }
            suspect
        };
        if let Some(Suspect::Guilty { entry, .. }) = &suspect {
            self.ended(broker, *entry, End::Poisoned);
        }
        self.brokers[broker.index()].unsent.notify_one();
        suspect
    }

    fn ended(&self, broker: BrokerId, entry: EntryId, end: End) {
        let mut changes = Vec::new();
        {
            let mut state = self.lock();
            state.admission.ended(broker, entry, end, &mut changes);
            self.apply_admissions(&mut state, &changes);
        }
        self.end_batches(changes);
    }

    fn withdraw(&self, batch: BatchId) {
        let mut changes = Vec::new();
        let withdrawn = {
            let mut state = self.lock();
            state.waiters.remove(&batch);
            let withdrawn = state.admission.withdraw(batch, &mut changes);
            self.apply_admissions(&mut state, &changes);
            withdrawn
        };
        // Outside the lock: a dropped completion ends its part, which reaches into the session.
        drop(withdrawn);
        self.end_batches(changes);
    }

    fn apply_admissions(&self, state: &mut State, changes: &[Change<Completion>]) {
        for change in changes {
            if let Change::Admitted(batch) = change
                && let Some(waiter) = state.waiters.remove(batch)
            {
                // An error means that the waiter is giving up at this moment: its publishes are admitted all the same.
                let _ = waiter.send(());
            }
        }
        self.refresh(state);
    }

    /// Messages end outside the lock, since their acknowledgement reaches into the session.
    fn end_batches(&self, changes: Vec<Change<Completion>>) {
        for change in changes {
            if let Change::Ended { tag, worst } = change {
                tag.end(worst);
            }
        }
    }

    /// Sets the gauges and wakes the feeders that have something to send.
    fn refresh(&self, state: &mut State) {
        for (id, side) in (0..).map(BrokerId).zip(&self.brokers) {
            let outbox = state.admission.outbox(id);
            side.meters.outbox_messages.set(outbox.messages() as i64);
            side.meters.outbox_bytes.set(outbox.bytes() as i64);
            if outbox.has_unsent() {
                side.unsent.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves nothing half done that a later holder could see: each step is one call of the core.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a waiting batch back when its submitter goes away; without effect once it is admitted.
struct Withdrawal<'a> {
    outboxes: &'a Outboxes,
    batch: BatchId,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        self.outboxes.withdraw(self.batch);
    }
}
