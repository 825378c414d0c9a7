//! What waits to be published: an outbox for each broker, in memory or on disk.
//!
//! Owns the outboxes behind one lock that is held for a few memory operations and never across an `.await`. Fed by the
//! handlers' instances, which wait here while there is no room, and by commands; drained by each broker's feeder; told by its
//! poller what the broker has. When a call's last publish is safe, the message that caused it ends here. Brokers come and
//! go. It knows no packet identifiers and no connection.

mod admission;
mod command;
mod commit;
mod condemned;
mod dead_letter;
mod effects;
mod expiry;
mod journal;
mod keep;
mod loader;
mod news;
mod order;
mod owner;
mod queue;
mod rows;
mod run;
mod state;
mod suspicion;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use self::admission::Change;
pub use self::admission::{BatchId, DropReason, Dropped};
pub use self::command::{Command, PublishEnd};
pub use self::condemned::Cause;
use self::condemned::Condemned;
use self::dead_letter::Due;
pub use self::effects::{Commit, Effects, Touch};
pub use self::expiry::expire;
use self::journal::Journal;
use self::keep::Before;
pub use self::keep::{OutboxView, PurgeError};
pub use self::loader::load;
pub use self::news::NoRoom;
use self::news::{News, Voice};
pub use self::owner::Completion;
use self::owner::Owner;
use self::queue::End;
pub use self::queue::{EntryId, Suspect};
pub use self::run::Offered;
use self::state::{Decided, Hold, Next, State, Wait};
use crate::control::config::model::OutboxLimits;
use crate::message::{BrokerId, Message, Outgoing, Qos};
use crate::path::handler::Publish;
use crate::telemetry::metrics::BrokerMeters;

/// What is too old goes so much at a time, so that nobody waits for the lock for long.
const EXPIRED_AT_ONCE: usize = 256;

/// All outboxes. Shared by every stage that publishes.
pub struct Outboxes {
    state: Mutex<State>,
    /// Dead letters that are to be published.
    due: Mutex<Due>,
    /// Of [`Cause`]s, in this process alone.
    hasher: RandomState,
}

/// What became of an offer.
enum Standing<'a> {
    /// In the outboxes.
    In(BatchId),
    /// Ended as purged.
    Ended,
    /// It waits for room.
    Waits(Room<'a>),
    /// There is no room, and it must not wait.
    Rejected(Owner, NoRoom),
}

/// What became of a call's publishes.
#[must_use]
pub enum Submitted<'a> {
    /// They are in the outboxes, or have ended.
    Done,
    /// They wait for room.
    Waits(Room<'a>),
    /// An outbox is full and rejects: the call has failed, and may be made again.
    Rejected(Completion, NoRoom),
}

impl Default for Outboxes {
    fn default() -> Outboxes {
        Outboxes::new()
    }
}

impl Outboxes {
    /// Of no broker, and without a disk: what would be written counts as synced at once.
    pub fn new() -> Outboxes {
        Outboxes::with(Journal::none(), HashMap::new())
    }

    fn with(journal: Journal, found: HashMap<Arc<str>, Before>) -> Outboxes {
        Outboxes { state: Mutex::new(State::new(journal, found)), due: Mutex::default(), hasher: RandomState::new() }
    }

    /// A broker is there from now on, also again after its removal, with what the disk has for it.
    pub fn add(&self, broker: BrokerId, name: Arc<str>, limits: OutboxLimits, meters: Arc<BrokerMeters>) {
        {
            let mut state = self.lock();
            state.adopt(broker, &name);
            let side = state.side(broker);
            (side.meters, side.voice) = (Some(meters), Voice::of(name, limits.when_full));
        }
        self.limit(broker, limits);
    }

    /// From now on a broker's outbox has these limits. What is in stays in, also where it is more than they allow. One that is to be
    /// on disk has what is in memory written; one that was on disk stays there until that is gone.
    pub fn limit(&self, broker: BrokerId, limits: OutboxLimits) {
        self.step(&PublishEnd::Purged, |state, changes| {
            let side = state.side(broker);
            side.voice.set_when_full(limits.when_full);
            if let Some(meters) = &side.meters {
                meters.outbox.limits(limits.messages, limits.bytes);
            }
            state.admission.add(broker, limits, Instant::now(), changes);
            state.bring_in(broker);
        });
    }

    /// A broker is gone. What waits there in memory, or for room there, is dropped, and its messages end as purged, as do those whose
    /// publishes come later; what is on the disk stays there. How many publishes were dropped. Its session must have ended: it would send to nobody.
    pub fn remove(&self, broker: BrokerId) -> usize {
        self.step(&PublishEnd::Purged, |state, changes| {
            let dropped = state.admission.remove(broker, changes);
            let side = state.side(broker);
            // Who waits for its outbox goes on waiting, until it is there again.
            (side.hold, side.condemned) = (Hold::No, Condemned::default());
            (side.meters, side.voice) = (None, Voice::default());
            dropped
        })
    }

    /// Messages in a broker's outbox, and the bytes of their topics, payloads and properties.
    pub fn usage(&self, broker: BrokerId) -> (usize, usize) {
        let mut state = self.lock();
        let outbox = state.admission.outbox(broker);
        (outbox.messages(), outbox.bytes())
    }

    /// Whether a publish to this broker is in memory alone, on its way and held back ones included, or waits for room.
    pub fn holds_in_memory(&self, broker: BrokerId) -> bool {
        let mut state = self.lock();
        let outbox = state.admission.outbox(broker);
        outbox.messages() > outbox.on_disk().messages || state.admission.waiting(broker) > 0
    }

    /// Calls and commands that wait for room in a broker's outbox.
    pub fn waiting(&self, broker: BrokerId) -> usize {
        self.lock().admission.waiting(broker)
    }

    /// Offers so far that named this broker, those that wait for room or were rejected included: a call's publishes are one,
    /// and so is a command's. Never falls, not even when the broker is removed.
    pub fn offered(&self, broker: BrokerId) -> u64 {
        self.lock().admission.offered(broker)
    }

    /// The number of the newest offer, to whichever broker; numbers ascend from 1 and are not those of [`Self::offered`].
    pub fn newest(&self) -> u64 {
        self.lock().admission.newest()
    }

    /// The number of the newest offer, as [`Self::newest`] has it, of which something is still to be published to this broker,
    /// those that wait for room included; 0 if there is none.
    pub fn newest_open(&self, broker: BrokerId) -> u64 {
        self.lock().admission.newest_open(broker)
    }

    /// Waits until more than so many offers have named this broker. Cancellation safe; for any number of waiters.
    pub async fn offered_beyond(&self, broker: BrokerId, count: u64) {
        let offers = Arc::clone(&self.lock().side(broker).offers);
        loop {
            let told = offers.notified();
            let mut told = std::pin::pin!(told);
            // Before the look at the count, so that no offer falls between.
            told.as_mut().enable();
            if self.offered(broker) > count {
                return;
            }
            told.await;
        }
    }

    /// What tells a message that its broker sends again, if a call's publishes can hold up its acknowledgement.
    pub fn cause(&self, message: &Message, publishes: &[Publish]) -> Option<Cause> {
        let holds_up = |publish: &Publish| publish.broker == message.broker && publish.message.qos != Qos::AtMostOnce;
        (message.qos != Qos::AtMostOnce && publishes.iter().any(holds_up))
            .then(|| Cause(self.hasher.hash_one((&message.topic, &message.payload))))
    }

    /// Takes what a call did, all or nothing: its publishes go into the outboxes, and who calls waits where there is no room; what
    /// it writes is written once its publishes to outboxes in memory are safe, after what it rests on. Its message ends once every
    /// publish is safe and all is synced; at once when there is nothing of either. `accepted` is done once it is sure that no
    /// outbox rejects them, and before the message can end; under a lock, so that it must be short.
    pub fn submit(&self, effects: Effects, completion: Completion, accepted: impl FnOnce()) -> Submitted<'_> {
        if effects.publishes.is_empty() && effects.commit.is_none() {
            accepted();
            self.finish(Owner::Call(completion), End::Delivered, &PublishEnd::Delivered(Qos::AtMostOnce));
            return Submitted::Done;
        }
        match self.offer(effects, Owner::Call(completion), accepted) {
            Standing::Waits(room) => Submitted::Waits(room),
            Standing::Rejected(Owner::Call(completion), full) => Submitted::Rejected(completion, full),
            // A call comes back as a call.
            Standing::In(_)
            | Standing::Ended
            | Standing::Rejected(Owner::Command(_) | Owner::Letter { .. } | Owner::Run(_), _) => Submitted::Done,
        }
    }

    fn offer(&self, effects: Effects, owner: Owner, accepted: impl FnOnce()) -> Standing<'_> {
        let decided = self.step(&PublishEnd::Purged, |state, changes| state.offer(effects, owner, accepted, changes));
        match decided {
            Decided::In(batch) => Standing::In(batch),
            Decided::Waits(batch, admitted) => Standing::Waits(Room { outboxes: self, batch, admitted, left: false }),
            Decided::Rejected(owner, full) => Standing::Rejected(owner, full),
            Decided::Purged(owner) => {
                self.finish(owner, End::Purged, &PublishEnd::Purged);
                Standing::Ended
            }
        }
    }

    /// Waits until the broker's outbox has something to send; returns at once while it has. Cancellation safe. For one
    /// waiter a broker.
    pub async fn ready(&self, broker: BrokerId) {
        loop {
            let wait = self.lock().waits(broker, Instant::now());
            match wait {
                Wait::No => return,
                Wait::ForUnsent(unsent) => unsent.notified().await,
                Wait::Until(until) => tokio::time::sleep_until(until.into()).await,
            }
        }
    }

    /// The next unsent entry, which counts as sent from now on. None also while it is held back. Copies of what was given
    /// up end on the way.
    pub fn take_next(&self, broker: BrokerId) -> Option<(EntryId, Arc<Outgoing>)> {
        loop {
            let next = self.lock().next(broker, Instant::now())?;
            match next {
                Next::Send(entry, message) => return Some((entry, message)),
                Next::Drop(entry) => self.ended(broker, entry, &PublishEnd::Poisoned),
            }
        }
    }

    /// A sent entry was not sent after all: it is the next one again.
    pub fn put_back(&self, broker: BrokerId, entry: EntryId) {
        self.step(&PublishEnd::Purged, |state, changes| state.admission.put_back(broker, entry, changes));
    }

    /// The broker has it, sent with this QoS: acknowledged, at QoS 0 written.
    pub fn delivered(&self, broker: BrokerId, entry: EntryId, qos: Qos) {
        self.ended(broker, entry, &PublishEnd::Delivered(qos));
    }

    /// The broker will never take it, for this reason in plain words. Its message ends as refused.
    pub fn refused(&self, broker: BrokerId, entry: EntryId, reason: impl Into<String>) {
        self.ended(broker, entry, &PublishEnd::Refused(reason.into()));
    }

    /// The broker does not take it for now: it is the next one again, after a while. Whether that was not so before.
    pub fn postponed(&self, broker: BrokerId, entry: EntryId) -> bool {
        let now = Instant::now();
        self.step(&PublishEnd::Purged, |state, changes| state.postponed(broker, entry, now, changes))
    }

    /// A new connection of the broker's session was accepted.
    pub fn connected(&self, broker: BrokerId) {
        self.lock().side(broker).hold = Hold::OnTrial;
    }

    /// The connection is gone: what was sent and is neither delivered nor refused is unsent again, in order. `blamed` is
    /// the oldest entry that was written and not acknowledged, where the broker may have ended the connection over what it
    /// was sent. Returns what is to be told of that: the message of a guilty one has ended as poisoned.
    pub fn connection_lost(&self, broker: BrokerId, blamed: Option<EntryId>) -> Option<Suspect> {
        let suspect = self.step(&PublishEnd::Purged, |state, changes| {
            state.side(broker).hold = Hold::No;
            let suspect = state.admission.connection_lost(broker, blamed, changes);
            if let Some(Suspect::Guilty { entry, message, .. }) = &suspect
                && let Some(cause) = state.admission.tag(broker, *entry).and_then(Owner::cause)
            {
                state.side(broker).condemned.add(cause, message.topic.clone(), Instant::now());
            }
            suspect
        });
        if let Some(Suspect::Guilty { entry, .. }) = &suspect {
            self.ended(broker, *entry, &PublishEnd::Poisoned);
        }
        self.lock().side(broker).unsent.notify_one();
        suspect
    }

    /// Drops what is too old at this time. When the next one is.
    fn expire(&self, now: Instant) -> Option<Instant> {
        // Whatever is last is told with the entry itself.
        self.step(&PublishEnd::Purged, |state, changes| state.admission.expire(now, EXPIRED_AT_ONCE, changes));
        let mut state = self.lock();
        state.alarm = state.admission.first_expiry();
        state.alarm
    }

    fn ended(&self, broker: BrokerId, entry: EntryId, end: &PublishEnd) {
        self.step(end, |state, changes| {
            state.tell_end(broker, entry, end);
            state.blame(broker, entry, end);
            state.admission.ended(broker, entry, end.kind(), changes);
        });
    }

    /// Takes the one publish of a batch back; whether that was possible.
    fn take_back(&self, batch: BatchId, broker: BrokerId) -> bool {
        let owner = self.step(&PublishEnd::Purged, |state, changes| {
            let owner = state.admission.take_back(batch, broker, changes);
            state.waiters.remove(&batch);
            owner
        });
        owner.is_some()
    }

    fn withdraw(&self, batch: BatchId) {
        // Outside the lock: a dropped owner ends its part, which reaches into the session.
        drop(self.recall(batch));
    }

    /// Takes back what waits for room, and all that rests on what it would have written: whose they are, its own owner first;
    /// nothing if it is in or has ended.
    fn recall(&self, batch: BatchId) -> Vec<(BatchId, Owner)> {
        self.step(&PublishEnd::Purged, |state, changes| {
            let withdrawn = state.admission.withdraw(batch, changes);
            withdrawn.iter().for_each(|(batch, _)| drop(state.waiters.remove(batch)));
            withdrawn
        })
    }

    /// Does something under the lock, and what follows from it. `last` is the end of the publish that ends messages by it, unless
    /// their outbox dropped it.
    fn step<R>(&self, last: &PublishEnd, work: impl FnOnce(&mut State, &mut Vec<Change<Owner>>) -> R) -> R {
        let mut changes = Vec::new();
        let (result, news) = {
            let mut state = self.lock();
            // Whatever is done may let in what waits: its age counts from then.
            if state.admission.waiting_may_age() {
                state.admission.tell_time(Instant::now());
            }
            let result = work(&mut state, &mut changes);
            state.write(last, &mut changes);
            let news = state.apply(&changes);
            (result, news)
        };
        // Outside the lock: a log may be slow, and the acknowledgement of a message reaches into its session.
        news.into_iter().for_each(News::say);
        for change in changes {
            if let Change::Ended { tag, worst, dropped, .. } = change {
                match dropped {
                    Some(dropped) => self.finish(tag, worst, &PublishEnd::Dropped(dropped)),
                    None => self.finish(tag, worst, last),
                }
            }
        }
        result
    }

    /// Tells an owner the end of what it offered, which may make a dead letter of its message. Outside the lock.
    fn finish(&self, owner: Owner, worst: End, last: &PublishEnd) {
        if let Some(letter) = owner.end(worst, last) {
            self.post(letter);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves nothing half done that a later holder could see: each step is one call of the core.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's publishes that wait for room. Dropping it withdraws them, and leaves their message unacknowledged.
#[must_use]
pub struct Room<'a> {
    outboxes: &'a Outboxes,
    batch: BatchId,
    admitted: oneshot::Receiver<()>,
    left: bool,
}

impl Room<'_> {
    /// Waits until they are in the outboxes, or have ended because their brokers were removed. Cancellation safe.
    pub async fn admitted(&mut self) {
        // The sender is dropped only together with its batch, by the withdrawal below.
        let _ = (&mut self.admitted).await;
    }

    /// Leaves them to the outboxes: they go in when there is room, and nobody waits for that.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// As [`Self::leave`], for who can withdraw them by their number.
    fn left_to_its_owner(self) -> BatchId {
        let batch = self.batch;
        self.leave();
        batch
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if !self.left {
            // Without effect once they are in.
            self.outboxes.withdraw(self.batch);
        }
    }
}
