//! Who may put publishes into the outboxes: one owner for all of them.
//!
//! Pure: no clock, no I/O, no lock. A call's publishes form a batch that is taken whole or not at all, for every broker
//! that it names; batches that meet at a full outbox go in the order in which they came. (A permit for each outbox would
//! deadlock: X holds A and wants B, Y the reverse.) A batch that waits holds back only later batches that share a broker
//! with it, so that a broker that is down holds back calls that publish elsewhere only where another publishes to both. What a
//! full outbox does with a newcomer is its broker's `when-full`. Brokers come and go: what is for one that is not there ends at once as purged, and the
//! rest of its batch goes on.

mod settle;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use self::settle::Writes;
pub use self::settle::{Removal, Written};
pub use self::terms::{Change, DropReason, Dropped, Full, Limit, Mode, Offered, Terms};
use super::effects::Effects;
use super::order::Order;
use super::queue::{End, EntryId, Outbox, Removed, Suspect};
use crate::control::config::model::{OutboxLimits, OutboxStore, WhenFull};
use crate::message::BrokerId;
use crate::path::handler::Publish;

/// The publishes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub(super) u64);

struct Batch<T> {
    /// Publishes in the outboxes whose end is waited for: those in memory, and at last those on the disk where somebody asks.
    open: usize,
    /// The worst end of its publishes so far.
    worst: End,
    /// What is written once none is open; none where that is nothing.
    writes: Option<Box<Writes>>,
    terms: Terms,
    tag: T,
}

struct Waiting<T> {
    id: BatchId,
    demand: Demand,
    publishes: Vec<Publish>,
    /// The worst end of those of its publishes that are not among them any more.
    worst: End,
    writes: Option<Box<Writes>>,
    /// It has its place in the order of what is written, also where it turns out to write nothing.
    begun: bool,
    terms: Terms,
    tag: T,
}

/// What a batch needs of one broker's outbox.
#[derive(Clone, Copy)]
struct Need {
    broker: BrokerId,
    messages: usize,
    bytes: usize,
}

/// What a batch needs, a need for each broker that it names: almost always one.
struct Demand(SmallVec<[Need; 2]>);

impl Demand {
    fn of(publishes: &[Publish]) -> Demand {
        let mut needs: SmallVec<[Need; 2]> = SmallVec::new();
        for Publish { broker, message } in publishes {
            let bytes = message.weight();
            match needs.iter_mut().find(|need| need.broker == *broker) {
                Some(need) => {
                    need.messages += 1;
                    need.bytes += bytes;
                }
                None => needs.push(Need { broker: *broker, messages: 1, bytes }),
            }
        }
        Demand(needs)
    }
}

/// One broker's place.
#[derive(Default)]
struct Slot {
    outbox: Outbox,
    limits: OutboxLimits,
    /// The broker is there.
    present: bool,
    /// Batches that named it while it was there.
    offered: u64,
    /// Batches that wait for room and name it.
    waiting: usize,
    /// The newest batch that found no room here and was rejected.
    rejected: Option<BatchId>,
}

impl Slot {
    /// Which limit keeps so much out; none where it fits. An empty outbox takes any one batch: it could wait for ever.
    fn keeps_out(&self, need: &Need) -> Option<Limit> {
        let (messages, bytes) = (self.outbox.messages(), self.outbox.bytes());
        if messages == 0 {
            None
        } else if messages + need.messages > self.limits.messages {
            Some(Limit::Messages(self.limits.messages))
        } else if bytes + need.bytes > self.limits.bytes {
            Some(Limit::Bytes(self.limits.bytes))
        } else {
            None
        }
    }

    /// Whether what comes in goes to the disk: because it is to, or because something that came before is there yet.
    fn is_on_disk(&self) -> bool {
        self.limits.store == OutboxStore::Disk || self.outbox.on_disk().messages > 0
    }

    /// Whether the entries in memory cannot make enough room by themselves, but together with those on the disk alone.
    fn is_short_of(&self, need: &Need) -> bool {
        self.limits.when_full == WhenFull::DropOldest
            && !self.is_too_large(need)
            && self.outbox.has_tail()
            && self.displaced_by(need).is_none()
    }

    fn is_too_large(&self, need: &Need) -> bool {
        need.messages > self.limits.messages || need.bytes > self.limits.bytes
    }

    /// How many of the oldest unsent entries have to go for so much to fit; none where it has to wait.
    fn displaced_by(&self, need: &Need) -> Option<usize> {
        match self.limits.when_full {
            _ if self.keeps_out(need).is_none() => Some(0),
            WhenFull::Block | WhenFull::Reject => None,
            WhenFull::DropOldest => {
                let messages = self.limits.messages.saturating_sub(need.messages);
                let bytes = self.limits.bytes.saturating_sub(need.bytes);
                if self.is_too_large(need) {
                    self.outbox.displaced_to(0, 0)
                } else {
                    self.outbox.displaced_to(messages, bytes)
                }
            }
        }
    }
}

/// All outboxes and who waits for them. `T` is what a batch is offered with and given back at its end.
pub struct Admission<T> {
    /// By broker. A broker that is gone leaves its place, so that numbers of entries are never used again.
    slots: Vec<Slot>,
    batches: HashMap<BatchId, Batch<T>>,
    /// In the order of coming. At most one batch for each instance of a handler, since an instance waits for its batch, and
    /// one for each command.
    waiting: VecDeque<Waiting<T>>,
    next: u64,
    /// Batches that write something, until they are settled.
    order: Order<BatchId>,
    /// Batches that are to be written, in this order.
    settled: Vec<BatchId>,
    /// Brokers whose outbox or offers changed since they were last asked for.
    changed: SmallVec<[BrokerId; 4]>,
    /// Brokers that are there and have a `max-age`.
    aging: usize,
    /// There is a disk.
    durable: bool,
    /// What is to be deleted from the disk.
    removals: Vec<Removal>,
    /// Batches that were taken back while they were written.
    unwanted: HashMap<BatchId, Box<Writes>>,
    /// The time as it was last told; what comes into an outbox that has a `max-age` is as old as this.
    now: Option<Instant>,
}

impl<T> Admission<T> {
    /// No brokers. `durable`: there is a disk for outboxes that are to be on it.
    pub fn new(durable: bool) -> Admission<T> {
        Admission {
            durable,
            removals: Vec::new(),
            unwanted: HashMap::new(),
            slots: Vec::new(),
            batches: HashMap::new(),
            waiting: VecDeque::new(),
            next: 0,
            order: Order::default(),
            settled: Vec::new(),
            changed: SmallVec::new(),
            aging: 0,
            now: None,
        }
    }

    /// A broker is there from now on, with an empty outbox and these limits; if it was, only its limits are others. What is
    /// in stays in, also where it is more than they allow. Who waits may come in.
    pub fn add(&mut self, broker: BrokerId, limits: OutboxLimits, now: Instant, changes: &mut Vec<Change<T>>) {
        self.tell_time(now);
        let slot = self.slot(broker);
        if slot.limits.max_age.is_none() && limits.max_age.is_some() {
            slot.outbox.begin_aging(now);
        }
        (slot.present, slot.limits) = (true, limits);
        self.count_aging();
        self.touch(broker);
        self.admit_waiting(changes);
    }

    /// A broker is gone. What was to be published there ends as purged; how many publishes that were, those that waited for
    /// room included. What is on the disk stays there, until the broker is there again.
    pub fn remove(&mut self, broker: BrokerId, changes: &mut Vec<Change<T>>) -> usize {
        let slot = self.slot(broker);
        (slot.present, slot.waiting, slot.rejected) = (false, 0, None);
        let purged = slot.outbox.purge();
        self.count_aging();
        let mut count = purged.len();
        purged.into_iter().for_each(|removed| self.gone(broker, removed, End::Purged, None, changes));
        for mut waiting in std::mem::take(&mut self.waiting) {
            let before = waiting.publishes.len();
            waiting.publishes.retain(|publish| publish.broker != broker);
            count += before - waiting.publishes.len();
            if waiting.publishes.is_empty() && waiting.writes.is_none() {
                self.order.ready(waiting.id, &mut self.settled);
                let (batch, worst) = (waiting.id, waiting.worst.max(End::Purged));
                changes.push(Change::Admitted(batch));
                changes.push(Change::Ended { batch, tag: waiting.tag, worst, dropped: None });
                continue;
            }
            if waiting.publishes.len() < before {
                waiting.worst = waiting.worst.max(End::Purged);
                waiting.demand = Demand::of(&waiting.publishes);
            }
            self.waiting.push_back(waiting);
        }
        self.touch(broker);
        self.admit_waiting(changes);
        count
    }

    /// The outbox of a broker; empty where the broker is not there.
    pub fn outbox(&mut self, broker: BrokerId) -> &mut Outbox {
        &mut self.slot(broker).outbox
    }

    /// What a broker's outbox may hold.
    pub fn limits(&self, broker: BrokerId) -> OutboxLimits {
        self.slots.get(broker.index()).map(|slot| slot.limits).unwrap_or_default()
    }

    /// Batches that wait for room and name this broker.
    pub fn waiting(&self, broker: BrokerId) -> usize {
        self.slots.get(broker.index()).map_or(0, |slot| slot.waiting)
    }

    /// Batches that were offered so far and named this broker, those that wait for room or were rejected for want of it
    /// included. Never falls.
    pub fn offered(&self, broker: BrokerId) -> u64 {
        self.slots.get(broker.index()).map_or(0, |slot| slot.offered)
    }

    /// The number of the newest batch that was ever offered, to any broker; numbers ascend from 1.
    pub fn newest(&self) -> u64 {
        self.next
    }

    /// The number of the newest batch of which something is still to be published to this broker, those that wait for room
    /// included, and those that were rejected because of what is in; 0 if there is none.
    pub fn newest_open(&self, broker: BrokerId) -> u64 {
        let Some(slot) = self.slots.get(broker.index()) else { return 0 };
        let names = |waiting: &&Waiting<T>| waiting.demand.0.iter().any(|need| need.broker == broker);
        // Batches that share a broker never overtake each other: what waits is newer than what is in.
        let waiting = self.waiting.iter().rev().find(names).map(|waiting| waiting.id);
        let newest = waiting.or_else(|| slot.outbox.newest());
        newest.map_or(0, |batch| batch.max(slot.rejected.unwrap_or(batch)).0 + 1)
    }

    /// The brokers whose outbox or offers changed since this was last asked, each once.
    pub fn changed(&mut self) -> SmallVec<[BrokerId; 4]> {
        std::mem::take(&mut self.changed)
    }

    /// What an entry's batch was offered with; none once the entry has reached its end.
    pub fn tag(&self, broker: BrokerId, entry: EntryId) -> Option<&T> {
        let batch = self.slots.get(broker.index())?.outbox.batch(entry)?;
        self.batches.get(&batch).map(|batch| &batch.tag)
    }

    /// The same, to write what becomes of it.
    pub fn tag_mut(&mut self, broker: BrokerId, entry: EntryId) -> Option<&mut T> {
        let batch = self.slots.get(broker.index())?.outbox.batch(entry)?;
        self.batches.get_mut(&batch).map(|batch| &mut batch.tag)
    }

    /// What batches were offered with that have not ended: of those that are in, and of those that wait for room.
    pub fn tags(&mut self) -> (impl Iterator<Item = &mut T>, impl Iterator<Item = (BatchId, &T)>) {
        let waiting = self.waiting.iter().map(|waiting| (waiting.id, &waiting.tag));
        (self.batches.values_mut().map(|batch| &mut batch.tag), waiting)
    }

    /// A batch in the outboxes: its publishes that have not reached their end, and what it was offered with.
    pub fn batch(&self, id: BatchId) -> Option<(usize, &T)> {
        self.batches.get(&id).map(|batch| (batch.open, &batch.tag))
    }

    /// Whether what is offered to one of these brokers ages: then the time is to be told before.
    pub fn ages(&self, publishes: &[Publish]) -> bool {
        let ages = |broker: BrokerId| self.slots.get(broker.index()).is_some_and(|slot| slot.limits.max_age.is_some());
        self.aging > 0 && publishes.iter().any(|publish| ages(publish.broker))
    }

    /// Whether something that waits for room may age once it is in: then the time is to be told before anything ends.
    pub fn waiting_may_age(&self) -> bool {
        self.aging > 0 && !self.waiting.is_empty()
    }

    /// Tells the time.
    pub fn tell_time(&mut self, now: Instant) {
        self.now = Some(self.now.map_or(now, |before| before.max(now)));
    }

    /// When the first entry of a broker's outbox becomes too old, if none is sent before.
    pub fn next_expiry(&self, broker: BrokerId) -> Option<Instant> {
        let slot = self.slots.get(broker.index()).filter(|slot| slot.present)?;
        Some(slot.outbox.oldest_unsent()?.1? + slot.limits.max_age?)
    }

    /// When the first entry of all outboxes becomes too old.
    pub fn first_expiry(&self) -> Option<Instant> {
        if self.aging == 0 {
            return None;
        }
        (0..self.slots.len() as u32).filter_map(|broker| self.next_expiry(BrokerId(broker))).min()
    }

    /// Drops what is too old and not on its way, no more than `most` of it at once. Who waits may come in.
    pub fn expire(&mut self, now: Instant, most: usize, changes: &mut Vec<Change<T>>) {
        self.tell_time(now);
        let mut left = most;
        for broker in (0..self.slots.len() as u32).map(BrokerId) {
            while left > 0 && self.next_expiry(broker).is_some_and(|expiry| expiry <= now) {
                self.drop_oldest(broker, DropReason::Expired, changes);
                left -= 1;
            }
        }
        self.admit_waiting(changes);
    }

    /// Offers what one call did, at least something. Its publishes keep their order.
    pub fn offer(&mut self, effects: Effects, terms: Terms, tag: T, changes: &mut Vec<Change<T>>) -> Offered<T> {
        let Effects { mut publishes, commit } = effects;
        debug_assert!(!publishes.is_empty() || commit.is_some(), "a call without effects has nothing to wait for");
        let id = BatchId(self.next);
        self.next += 1;
        let mut worst = End::Delivered;
        if publishes.iter().any(|publish| !self.is_present(publish.broker)) {
            publishes.retain(|publish| self.is_present(publish.broker));
            worst = End::Purged;
            if publishes.is_empty() && commit.is_none() {
                return Offered::Purged(tag);
            }
        }
        let demand = Demand::of(&publishes);
        let behind = demand.0.iter().any(|need| self.slots[need.broker.index()].waiting > 0);
        let room = if behind { None } else { self.room_for(&demand) };
        let Some(room) = room else {
            self.tell_full(&demand, changes);
            if let Some(full) = self.rejects(&demand).filter(|_| terms.mode == Mode::Rejectable) {
                let slot = self.slot(full.broker);
                // What is in keeps it out: that is worth a connection.
                (slot.offered, slot.rejected) = (slot.offered + 1, Some(id));
                self.touch(full.broker);
                return Offered::Rejected(tag, full);
            }
            self.count_offer(&demand);
            let writes = self.begin_writes(id, commit, terms);
            // What is offered later must not be written before it, wherever the outboxes are when it comes in.
            let begun = writes.is_some() || self.begin_waiting(id, terms);
            if !behind {
                self.make_way(&demand, changes);
            }
            self.wait(Waiting { id, demand, publishes, worst, writes, begun, terms, tag });
            return Offered::Waits(id);
        };
        self.count_offer(&demand);
        self.displace(room, changes);
        let writes = self.begin_writes(id, commit, terms);
        let begun = writes.is_some();
        self.take(id, (publishes, begun), Batch { open: 0, worst, writes, terms, tag }, changes);
        Offered::Taken(id)
    }

    /// Takes a batch of one publish back, whether it waits for room or in its broker's outbox, unless the broker has it or
    /// may have it. Its tag, if it was taken back. Later batches may come in.
    pub fn take_back(&mut self, id: BatchId, broker: BrokerId, changes: &mut Vec<Change<T>>) -> Option<T> {
        if let Some(removed) = self.outbox(broker).take_back(id) {
            self.remove_from_disk(broker, removed, End::Purged);
        } else if !self.take_back_writes(id) {
            // Who takes back one publish writes nothing else, so that nobody rests on it.
            return self.withdraw(id, changes).pop().map(|(_, tag)| tag);
        }
        self.touch(broker);
        let batch = self.batches.remove(&id)?;
        self.admit_waiting(changes);
        Some(batch.tag)
    }

    /// Takes a waiting batch back, and all that rests on what it would have written: what they were offered with, itself first;
    /// nothing if it does not wait any more. Later batches may come in.
    pub fn withdraw(&mut self, id: BatchId, changes: &mut Vec<Change<T>>) -> Vec<(BatchId, T)> {
        let Some(waiting) =
            self.waiting.iter().position(|waiting| waiting.id == id).and_then(|place| self.waiting.remove(place))
        else {
            return Vec::new();
        };
        self.waits_no_more(&waiting.demand);
        let mut withdrawn = vec![(id, waiting.tag)];
        withdrawn.extend(self.cancel(id));
        self.admit_waiting(changes);
        withdrawn
    }

    /// An entry has reached its end.
    pub fn ended(&mut self, broker: BrokerId, entry: EntryId, end: End, changes: &mut Vec<Change<T>>) {
        let Some(removed) = self.outbox(broker).remove(entry, end) else { return };
        self.touch(broker);
        self.gone(broker, removed, end, None, changes);
        self.admit_waiting(changes);
    }

    /// A sent entry was not sent after all: it is the next one again.
    pub fn put_back(&mut self, broker: BrokerId, entry: EntryId, changes: &mut Vec<Change<T>>) {
        self.outbox(broker).put_back(entry);
        self.unsent_again(broker, changes);
    }

    /// A broker does not take an entry for now. How often in a row that happened, this time included.
    pub fn postpone(&mut self, broker: BrokerId, entry: EntryId, changes: &mut Vec<Change<T>>) -> u32 {
        let times = self.outbox(broker).postpone(entry);
        self.unsent_again(broker, changes);
        times
    }

    /// The connection of a broker is gone: see [`Outbox::connection_lost`].
    pub fn connection_lost(
        &mut self,
        broker: BrokerId,
        blamed: Option<EntryId>,
        changes: &mut Vec<Change<T>>,
    ) -> Option<Suspect> {
        let suspect = self.outbox(broker).connection_lost(blamed);
        self.unsent_again(broker, changes);
        suspect
    }

    /// What is unsent again can make way again, and be too old.
    fn unsent_again(&mut self, broker: BrokerId, changes: &mut Vec<Change<T>>) {
        self.touch(broker);
        if self.slot(broker).limits.when_full == WhenFull::DropOldest {
            self.admit_waiting(changes);
        }
    }

    /// An entry is in its outbox no more.
    fn gone(
        &mut self,
        broker: BrokerId,
        removed: Removed,
        end: End,
        dropped: Option<Dropped>,
        changes: &mut Vec<Change<T>>,
    ) {
        let batch = removed.batch;
        self.remove_from_disk(broker, removed, end);
        if let Some(batch) = batch {
            self.publish_ended(batch, end, dropped, changes);
        }
    }

    fn publish_ended(&mut self, id: BatchId, end: End, dropped: Option<Dropped>, changes: &mut Vec<Change<T>>) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        batch.open -= 1;
        batch.worst = batch.worst.max(end);
        if batch.open > 0 {
            return;
        }
        if batch.writes.is_some() {
            self.order.ready(id, &mut self.settled);
        } else if let Some(batch) = self.batches.remove(&id) {
            changes.push(Change::Ended { batch: id, tag: batch.tag, worst: batch.worst, dropped });
        }
    }

    fn admit_waiting(&mut self, changes: &mut Vec<Change<T>>) {
        if self.waiting.is_empty() {
            return;
        }
        let mut passed_over: VecDeque<Waiting<T>> = VecDeque::new();
        let mut held: SmallVec<[BrokerId; 4]> = SmallVec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let behind = waiting.demand.0.iter().any(|need| held.contains(&need.broker));
            let room = if behind { None } else { self.room_for(&waiting.demand) };
            let Some(room) = room else {
                if !behind {
                    self.make_way(&waiting.demand, changes);
                }
                held.extend(waiting.demand.0.iter().map(|need| need.broker));
                passed_over.push_back(waiting);
                continue;
            };
            self.waits_no_more(&waiting.demand);
            self.displace(room, changes);
            changes.push(Change::Admitted(waiting.id));
            let Waiting { id, publishes, worst, writes, begun, terms, tag, .. } = waiting;
            self.take(id, (publishes, begun), Batch { open: 0, worst, writes, terms, tag }, changes);
        }
        self.waiting = passed_over;
    }

    /// A batch may need more room than the entries in memory of an outbox on disk can make: then they make what room they can,
    /// and those behind them are read from the disk.
    fn make_way(&mut self, demand: &Demand, changes: &mut Vec<Change<T>>) {
        let slot = |need: &Need| &self.slots[need.broker.index()];
        let short = |need: &Need| slot(need).is_short_of(need);
        if !demand.0.iter().all(|need| slot(need).displaced_by(need).is_some() || short(need)) {
            return;
        }
        let short: SmallVec<[BrokerId; 2]> =
            demand.0.iter().filter(|need| short(need)).map(|need| need.broker).collect();
        for broker in short {
            while self.outbox(broker).oldest_unsent().is_some() {
                self.drop_oldest(broker, DropReason::Displaced, changes);
            }
        }
    }

    /// How many of its oldest unsent entries each outbox has to drop so that a batch fits everywhere; none where it has to wait.
    fn room_for(&self, demand: &Demand) -> Option<SmallVec<[(BrokerId, usize); 2]>> {
        let room = |need: &Need| Some((need.broker, self.slots[need.broker.index()].displaced_by(need)?));
        demand.0.iter().map(room).collect()
    }

    fn displace(&mut self, room: SmallVec<[(BrokerId, usize); 2]>, changes: &mut Vec<Change<T>>) {
        for (broker, count) in room {
            (0..count).for_each(|_| self.drop_oldest(broker, DropReason::Displaced, changes));
        }
    }

    /// Drops the oldest entry that is not on its way.
    fn drop_oldest(&mut self, broker: BrokerId, reason: DropReason, changes: &mut Vec<Change<T>>) {
        let outbox = self.outbox(broker);
        let Some((entry, _)) = outbox.oldest_unsent() else { return };
        let Some(message) = outbox.message(entry).map(Arc::clone) else { return };
        let dropped = Dropped { reason, tried: outbox.is_tried(entry) };
        let Some(removed) = outbox.remove(entry, reason.end()) else { return };
        self.touch(broker);
        changes.push(Change::Dropped { broker, batch: removed.batch, message, dropped });
        self.gone(broker, removed, reason.end(), Some(dropped), changes);
    }

    fn tell_full(&self, demand: &Demand, changes: &mut Vec<Change<T>>) {
        for need in &demand.0 {
            let slot = &self.slots[need.broker.index()];
            if let (None, Some(limit)) = (slot.displaced_by(need), slot.keeps_out(need)) {
                changes.push(Change::Full(Full { broker: need.broker, limit }));
            }
        }
    }

    /// The first outbox without room for a batch that names one which lets nobody wait. Where that has room itself, and another
    /// has not, the batch is rejected all the same: waiting, it would keep later ones out of an outbox that has room.
    fn rejects(&self, demand: &Demand) -> Option<Full> {
        let slots = || demand.0.iter().map(|need| (need, &self.slots[need.broker.index()]));
        if !slots().any(|(_, slot)| slot.limits.when_full == WhenFull::Reject) {
            return None;
        }
        slots().find_map(|(need, slot)| {
            let full = slot.keeps_out(need).filter(|_| slot.displaced_by(need).is_none());
            let limit = full.or((slot.waiting > 0).then_some(Limit::Others))?;
            Some(Full { broker: need.broker, limit })
        })
    }

    fn count_offer(&mut self, demand: &Demand) {
        for need in &demand.0 {
            self.slot(need.broker).offered += 1;
            self.touch(need.broker);
        }
    }

    fn wait(&mut self, waiting: Waiting<T>) {
        waiting.demand.0.iter().for_each(|need| self.slot(need.broker).waiting += 1);
        self.waiting.push_back(waiting);
    }

    fn waits_no_more(&mut self, demand: &Demand) {
        for need in &demand.0 {
            self.slot(need.broker).waiting -= 1;
            self.touch(need.broker);
        }
    }

    /// A batch comes in. `begun`: it has its place in the order of what is written.
    fn take(
        &mut self,
        id: BatchId,
        (publishes, begun): (Vec<Publish>, bool),
        mut batch: Batch<T>,
        changes: &mut Vec<Change<T>>,
    ) {
        let now = self.now;
        for Publish { broker, message } in publishes {
            self.touch(broker);
            let slot = &mut self.slots[broker.index()];
            if self.durable && slot.is_on_disk() {
                slot.outbox.reserve(message.weight(), id);
                let writes = match &mut batch.writes {
                    Some(writes) => writes,
                    none if begun => none.insert(Box::default()),
                    none => none.insert(self.begin_new_writes(id, batch.terms)),
                };
                writes.add(broker, message);
            } else {
                let since = slot.limits.max_age.and(now);
                slot.outbox.push(Arc::new(message), id, since);
                batch.open += 1;
            }
        }
        if begun && batch.writes.is_none() {
            self.order.ready(id, &mut self.settled);
        }
        let settled = batch.open == 0;
        self.batches.insert(id, batch);
        if settled {
            self.settle(id, changes);
        }
    }

    fn count_aging(&mut self) {
        self.aging = self.slots.iter().filter(|slot| slot.present && slot.limits.max_age.is_some()).count();
    }

    /// Whether a broker is there.
    pub fn is_present(&self, broker: BrokerId) -> bool {
        self.slots.get(broker.index()).is_some_and(|slot| slot.present)
    }

    fn slot(&mut self, broker: BrokerId) -> &mut Slot {
        if self.slots.len() <= broker.index() {
            self.slots.resize_with(broker.index() + 1, Slot::default);
        }
        &mut self.slots[broker.index()]
    }

    fn touch(&mut self, broker: BrokerId) {
        if !self.changed.contains(&broker) {
            self.changed.push(broker);
        }
    }
}
