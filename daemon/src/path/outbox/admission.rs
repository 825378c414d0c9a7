//! Who may put publishes into the outboxes: one owner for all of them.
//!
//! Pure: no clock, no I/O, no lock. A call's publishes form a batch that is taken whole or not at all, for every broker
//! that it names; batches that meet at a full outbox go in the order in which they came. (A permit for each outbox would
//! deadlock: X holds A and wants B, Y the reverse.) A batch that waits holds back only later batches that share a broker
//! with it, so that a broker that is down does not hold back calls that publish to others alone. Brokers come and go: what is
//! for one that is not there ends at once as purged, and the rest of its batch goes on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use super::queue::{End, EntryId, Outbox};
use crate::message::BrokerId;
use crate::path::handler::Publish;

/// The publishes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub(super) u64);

struct Batch<T> {
    /// Publishes that have not reached their end.
    open: usize,
    /// The worst end of its publishes so far.
    worst: End,
    tag: T,
}

struct Waiting<T> {
    id: BatchId,
    demand: Demand,
    publishes: Vec<Publish>,
    /// The worst end of those of its publishes that are not among them any more.
    worst: End,
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

    fn meets(&self, other: &Demand) -> bool {
        self.0.iter().any(|need| other.0.iter().any(|other| need.broker == other.broker))
    }
}

/// How much an outbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Messages.
    pub messages: usize,
    /// Bytes of topics and payloads.
    pub bytes: usize,
}

/// What became of an offered batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Offered<T> {
    /// It is in the outboxes.
    Taken(BatchId),
    /// There is no room; [`Change::Admitted`] comes later.
    Waits(BatchId),
    /// None of its brokers is there: it has ended as purged. What it was offered with.
    Purged(T),
}

/// What follows from a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// A waiting batch waits no more: it is in the outboxes now, or was purged.
    Admitted(BatchId),
    /// Every publish of a batch has reached its end.
    Ended {
        /// What the batch was offered with.
        tag: T,
        /// The worst end of its publishes.
        worst: End,
    },
}

/// One broker's place.
#[derive(Default)]
struct Slot {
    outbox: Outbox,
    /// The broker is there.
    present: bool,
    /// Batches that named it while it was there.
    offered: u64,
}

/// All outboxes and who waits for them. `T` is what a batch is offered with and given back at its end.
pub struct Admission<T> {
    /// By broker. A broker that is gone leaves its place, so that numbers of entries are never used again.
    slots: Vec<Slot>,
    capacity: Capacity,
    batches: HashMap<BatchId, Batch<T>>,
    /// In the order of coming. At most one batch for each instance of a handler, since an instance waits for its batch, and
    /// one for each command.
    waiting: VecDeque<Waiting<T>>,
    next: u64,
    /// Brokers whose outbox or offers changed since they were last asked for.
    changed: SmallVec<[BrokerId; 4]>,
}

impl<T> Admission<T> {
    /// No brokers. Each outbox will have this capacity.
    pub fn new(capacity: Capacity) -> Admission<T> {
        Admission {
            slots: Vec::new(),
            capacity,
            batches: HashMap::new(),
            waiting: VecDeque::new(),
            next: 0,
            changed: SmallVec::new(),
        }
    }

    /// A broker is there from now on, with an empty outbox; without effect if it was.
    pub fn add(&mut self, broker: BrokerId) {
        self.slot(broker).present = true;
        self.touch(broker);
    }

    /// A broker is gone. What was to be published there ends as purged; how many publishes that were, those that waited for
    /// room included.
    pub fn remove(&mut self, broker: BrokerId, changes: &mut Vec<Change<T>>) -> usize {
        let slot = self.slot(broker);
        slot.present = false;
        let purged = slot.outbox.purge();
        let mut count = purged.len();
        purged.into_iter().for_each(|batch| self.publish_ended(batch, End::Purged, changes));
        for mut waiting in std::mem::take(&mut self.waiting) {
            let before = waiting.publishes.len();
            waiting.publishes.retain(|publish| publish.broker != broker);
            count += before - waiting.publishes.len();
            if waiting.publishes.is_empty() {
                changes.push(Change::Admitted(waiting.id));
                changes.push(Change::Ended { tag: waiting.tag, worst: waiting.worst.max(End::Purged) });
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

    /// Batches that were offered so far and named this broker, those that wait for room included. Never falls.
    pub fn offered(&self, broker: BrokerId) -> u64 {
        self.slots.get(broker.index()).map_or(0, |slot| slot.offered)
    }

    /// The number of the newest batch that was ever offered, to any broker; numbers ascend from 1.
    pub fn newest(&self) -> u64 {
        self.next
    }

    /// The number of the newest batch of which something is still to be published to this broker, those that wait for room
    /// included; 0 if there is none.
    pub fn newest_open(&self, broker: BrokerId) -> u64 {
        let names = |waiting: &&Waiting<T>| waiting.demand.0.iter().any(|need| need.broker == broker);
        // Batches that share a broker never overtake each other: what waits is newer than what is in.
        let waiting = self.waiting.iter().rev().find(names).map(|waiting| waiting.id);
        let newest = waiting.or_else(|| self.slots.get(broker.index())?.outbox.newest());
        newest.map_or(0, |batch| batch.0 + 1)
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

    /// A batch in the outboxes: its publishes that have not reached their end, and what it was offered with.
    pub fn batch(&self, id: BatchId) -> Option<(usize, &T)> {
        self.batches.get(&id).map(|batch| (batch.open, &batch.tag))
    }

    /// Offers the publishes of one call, at least one, in their order. An empty outbox has room for whatever the
    /// configuration allows one call.
    pub fn offer(&mut self, mut publishes: Vec<Publish>, tag: T) -> Offered<T> {
        debug_assert!(!publishes.is_empty(), "a call without publishes has nothing to wait for");
        let id = BatchId(self.next);
        self.next += 1;
        let mut worst = End::Delivered;
        if publishes.iter().any(|publish| !self.is_present(publish.broker)) {
            publishes.retain(|publish| self.is_present(publish.broker));
            worst = End::Purged;
            if publishes.is_empty() {
                return Offered::Purged(tag);
            }
        }
        let demand = Demand::of(&publishes);
        for need in &demand.0 {
            self.slot(need.broker).offered += 1;
            self.touch(need.broker);
        }
        if self.waiting.iter().any(|earlier| earlier.demand.meets(&demand)) || !self.fits(&demand) {
            self.waiting.push_back(Waiting { id, demand, publishes, worst, tag });
            return Offered::Waits(id);
        }
        self.take(id, publishes, worst, tag);
        Offered::Taken(id)
    }

    /// Takes a batch of one publish back, whether it waits for room or in its broker's outbox, unless the broker has it or
    /// may have it. Its tag, if it was taken back. Later batches may come in.
    pub fn take_back(&mut self, id: BatchId, broker: BrokerId, changes: &mut Vec<Change<T>>) -> Option<T> {
        if !self.outbox(broker).take_back(id) {
            return self.withdraw(id, changes);
        }
        self.touch(broker);
        let batch = self.batches.remove(&id)?;
        self.admit_waiting(changes);
        Some(batch.tag)
    }

    /// Takes a waiting batch back; its tag, if it still waited. Later batches may come in.
    pub fn withdraw(&mut self, id: BatchId, changes: &mut Vec<Change<T>>) -> Option<T> {
        let place = self.waiting.iter().position(|waiting| waiting.id == id)?;
        let waiting = self.waiting.remove(place)?;
        self.admit_waiting(changes);
        Some(waiting.tag)
    }

    /// An entry has reached its end.
    pub fn ended(&mut self, broker: BrokerId, entry: EntryId, end: End, changes: &mut Vec<Change<T>>) {
        let Some(batch) = self.outbox(broker).remove(entry, end) else { return };
        self.touch(broker);
        self.publish_ended(batch, end, changes);
        self.admit_waiting(changes);
    }

    fn publish_ended(&mut self, id: BatchId, end: End, changes: &mut Vec<Change<T>>) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        batch.open -= 1;
        batch.worst = batch.worst.max(end);
        if batch.open == 0
            && let Some(batch) = self.batches.remove(&id)
        {
            changes.push(Change::Ended { tag: batch.tag, worst: batch.worst });
        }
    }

    fn admit_waiting(&mut self, changes: &mut Vec<Change<T>>) {
        if self.waiting.is_empty() {
            return;
        }
        let mut passed_over: VecDeque<Waiting<T>> = VecDeque::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let held_back = passed_over.iter().any(|earlier| earlier.demand.meets(&waiting.demand));
            if held_back || !self.fits(&waiting.demand) {
                passed_over.push_back(waiting);
            } else {
                self.take(waiting.id, waiting.publishes, waiting.worst, waiting.tag);
                changes.push(Change::Admitted(waiting.id));
            }
        }
        self.waiting = passed_over;
    }

    fn fits(&self, demand: &Demand) -> bool {
        demand.0.iter().all(|need| {
            let outbox = &self.slots[need.broker.index()].outbox;
            outbox.messages() + need.messages <= self.capacity.messages
                && outbox.bytes() + need.bytes <= self.capacity.bytes
        })
    }

    fn take(&mut self, id: BatchId, publishes: Vec<Publish>, worst: End, tag: T) {
        self.batches.insert(id, Batch { open: publishes.len(), worst, tag });
        for Publish { broker, message } in publishes {
            self.outbox(broker).push(Arc::new(message), id);
            self.touch(broker);
        }
    }

    fn is_present(&self, broker: BrokerId) -> bool {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Outgoing, Qos};
    use crate::topic::TopicName;

    const CAPACITY: Capacity = Capacity { messages: 4, bytes: 1000 };

    fn publish(broker: u32, payload: &str) -> Publish {
        let topic = TopicName::new("t").expect("valid");
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let message = Outgoing { topic, payload, qos: Qos::AtLeastOnce, retain: false, properties: None, hops: None };
        Publish { broker: BrokerId(broker), message }
    }

    fn batch(brokers: &[u32], payload: &str) -> Vec<Publish> {
        brokers.iter().map(|broker| publish(*broker, payload)).collect()
    }

    fn admission(brokers: u32) -> Admission<u32> {
        let mut admission = Admission::new(CAPACITY);
        (0..brokers).for_each(|broker| admission.add(BrokerId(broker)));
        admission
    }

    fn send_all(admission: &mut Admission<u32>, broker: u32) -> Vec<EntryId> {
        std::iter::from_fn(|| admission.outbox(BrokerId(broker)).take_next().map(|(id, _)| id)).collect()
    }

    #[test]
    fn a_batch_is_taken_whole_or_not_at_all() {
        let mut admission = admission(2);
        assert!(matches!(admission.offer(batch(&[0, 0, 0], "x"), 1), Offered::Taken(_)));
        assert!(matches!(admission.offer(batch(&[1, 0, 0], "y"), 2), Offered::Waits(_)));
        assert_eq!(admission.outbox(BrokerId(1)).messages(), 0);
    }

    #[test]
    fn a_full_outbox_does_not_hold_back_other_brokers() {
        let mut admission = admission(2);
        admission.offer(batch(&[0; 4], "x"), 1);
        assert!(matches!(admission.offer(batch(&[0], "x"), 2), Offered::Waits(_)));
        assert!(matches!(admission.offer(batch(&[1], "x"), 3), Offered::Taken(_)));
    }

    #[test]
    fn later_batches_do_not_overtake_one_that_waits_for_the_same_broker() {
        let mut admission = admission(2);
        admission.offer(batch(&[0; 3], "x"), 1);
        assert!(matches!(admission.offer(batch(&[0, 0, 1], "x"), 2), Offered::Waits(_)));
        assert!(matches!(admission.offer(batch(&[0], "x"), 3), Offered::Waits(_)), "there is room for one");
        assert!(matches!(admission.offer(batch(&[1], "x"), 4), Offered::Waits(_)));
    }

    #[test]
    fn a_withdrawn_batch_lets_the_next_in() {
        let mut admission = admission(1);
        admission.offer(batch(&[0; 3], "x"), 1);
        let Offered::Waits(second) = admission.offer(batch(&[0; 2], "x"), 2) else { panic!("there is no room") };
        let Offered::Waits(third) = admission.offer(batch(&[0], "x"), 3) else { panic!("it would overtake") };
        let mut changes = Vec::new();
        assert_eq!(admission.withdraw(second, &mut changes), Some(2));
        assert_eq!(changes, [Change::Admitted(third)]);
    }

    #[test]
    fn a_batch_ends_when_its_last_publish_does_and_remembers_a_refusal() {
        let mut admission = admission(2);
        admission.offer(batch(&[0, 1], "x"), 7);
        let (first, second) = (send_all(&mut admission, 0)[0], send_all(&mut admission, 1)[0]);
        let mut changes = Vec::new();
        admission.ended(BrokerId(0), first, End::Refused, &mut changes);
        assert_eq!(changes, []);
        admission.ended(BrokerId(1), second, End::Delivered, &mut changes);
        assert_eq!(changes, [Change::Ended { tag: 7, worst: End::Refused }]);
    }

    #[test]
    fn what_is_for_a_broker_that_is_not_there_is_purged_and_the_rest_goes_on() {
        let mut admission = admission(1);
        assert_eq!(admission.offer(batch(&[7, 9], "x"), 1), Offered::Purged(1));
        assert!(matches!(admission.offer(batch(&[7, 0], "x"), 2), Offered::Taken(_)));
        let entry = send_all(&mut admission, 0)[0];
        let mut changes = Vec::new();
        admission.ended(BrokerId(0), entry, End::Delivered, &mut changes);
        assert_eq!(changes, [Change::Ended { tag: 2, worst: End::Purged }]);
        assert_eq!((admission.offered(BrokerId(0)), admission.offered(BrokerId(7))), (1, 0));
    }

    #[test]
    fn a_removed_broker_takes_along_what_waits_and_frees_others() {
        let mut admission = admission(2);
        admission.offer(batch(&[0; 4], "x"), 1);
        admission.offer(batch(&[1; 3], "x"), 2);
        let Offered::Waits(third) = admission.offer(batch(&[0, 1], "x"), 3) else { panic!("there is no room") };
        let Offered::Waits(fourth) = admission.offer(batch(&[0], "x"), 4) else { panic!("there is no room") };
        let mut changes = Vec::new();
        assert_eq!(admission.remove(BrokerId(0), &mut changes), 6);
        let ended = |tag| Change::Ended { tag, worst: End::Purged };
        assert_eq!(changes, [ended(1), Change::Admitted(fourth), ended(4), Change::Admitted(third)]);
        let mut changes = Vec::new();
        for entry in send_all(&mut admission, 1) {
            admission.ended(BrokerId(1), entry, End::Delivered, &mut changes);
        }
        assert_eq!(changes, [Change::Ended { tag: 2, worst: End::Delivered }, ended(3)]);
    }

    #[test]
    fn an_entry_of_a_removed_broker_is_none_of_the_new_one() {
        let mut admission = admission(1);
        admission.offer(batch(&[0], "x"), 1);
        let old = send_all(&mut admission, 0)[0];
        let mut changes = Vec::new();
        admission.remove(BrokerId(0), &mut changes);
        admission.add(BrokerId(0));
        changes.clear();
        admission.offer(batch(&[0], "y"), 2);
        admission.ended(BrokerId(0), old, End::Delivered, &mut changes);
        assert_eq!(changes, []);
        assert_eq!(admission.outbox(BrokerId(0)).messages(), 1);
    }

    const BROKERS: u32 = 3;

    #[derive(Clone, Debug)]
    enum Step {
        Offer(Vec<u32>),
        Deliver(u32),
        Lose(u32),
        WithdrawFirst,
        Command(u32),
        TakeBack(prop::sample::Index),
        Remove(u32),
        Add(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            10 => prop::collection::vec(0..BROKERS, 1..=4).prop_map(Step::Offer),
            12 => (0..BROKERS).prop_map(Step::Deliver),
            2 => (0..BROKERS).prop_map(Step::Lose),
            2 => Just(Step::WithdrawFirst),
            4 => (0..BROKERS).prop_map(Step::Command),
            2 => any::<prop::sample::Index>().prop_map(Step::TakeBack),
            1 => (0..BROKERS).prop_map(Step::Remove),
            3 => (0..BROKERS).prop_map(Step::Add),
        ];
        prop::collection::vec(step, 0..150)
    }

    /// What a naive account knows of one batch.
    #[derive(Default)]
    struct Known {
        /// Publishes to brokers that were there, and have not reached their end.
        open: Vec<u32>,
        delivered: usize,
        publishes: usize,
        /// Its number while it waits for room.
        waits: Option<BatchId>,
        /// Of a command.
        command: Option<BatchId>,
        ends: Vec<Option<End>>,
    }

    struct World {
        admission: Admission<u32>,
        known: Vec<Known>,
        present: [bool; BROKERS as usize],
        last_left: [u64; BROKERS as usize],
        offered: [u64; BROKERS as usize],
        /// As somebody sees the outboxes who looks only at what changed.
        gauges: [(usize, u64); BROKERS as usize],
    }

    impl World {
        fn offer(&mut self, brokers: &[u32], command: bool) {
            let number = self.known.len();
            let open: Vec<u32> = brokers.iter().copied().filter(|broker| self.present[*broker as usize]).collect();
            (0..BROKERS).filter(|broker| open.contains(broker)).for_each(|broker| self.offered[broker as usize] += 1);
            self.known.push(Known { publishes: brokers.len(), open, ..Known::default() });
            let (mut waits, mut id) = (None, None);
            match self.admission.offer(batch(brokers, &number.to_string()), number as u32) {
                Offered::Taken(taken) => id = Some(taken),
                Offered::Waits(waiting) => (waits, id) = (Some(waiting), Some(waiting)),
                Offered::Purged(tag) => {
                    assert!(self.known[number].open.is_empty());
                    self.known[tag as usize].ends.push(Some(End::Purged));
                }
            }
            self.known[number].waits = waits;
            self.known[number].command = id.filter(|_| command);
        }

        fn deliver(&mut self, broker: u32) {
            let Some((entry, message)) = self.admission.outbox(BrokerId(broker)).take_next() else { return };
            let number: usize = std::str::from_utf8(&message.payload).expect("a number").parse().expect("a number");
            assert!(number as u64 >= self.last_left[broker as usize], "overtaken");
            self.last_left[broker as usize] = number as u64;
            let known = &mut self.known[number];
            known.delivered += 1;
            let place = known.open.iter().position(|open| *open == broker).expect("is open");
            known.open.remove(place);
            let mut changes = Vec::new();
            self.admission.ended(BrokerId(broker), entry, End::Delivered, &mut changes);
            self.note(changes);
        }

        fn withdraw(&mut self, number: usize) {
            let mut changes = Vec::new();
            let Some(id) = self.known[number].waits.take() else { return };
            assert_eq!(self.admission.withdraw(id, &mut changes), Some(number as u32));
            self.known[number].ends.push(None);
            self.known[number].open.clear();
            self.note(changes);
        }

        fn take_back(&mut self, number: usize) {
            let Some(id) = self.known[number].command else { return };
            let Some(broker) = self.known[number].open.first().copied() else { return };
            let mut changes = Vec::new();
            // Whether it may be taken back is the outbox's own test.
            if self.admission.take_back(id, BrokerId(broker), &mut changes).is_some() {
                self.known[number].ends.push(None);
                self.known[number].open.clear();
                self.known[number].waits = None;
            }
            self.note(changes);
        }

        fn remove(&mut self, broker: u32) {
            self.present[broker as usize] = false;
            let open = |known: &mut Known| {
                let before = known.open.len();
                known.open.retain(|open| *open != broker);
                before - known.open.len()
            };
            let expected: usize = self.known.iter_mut().map(open).sum();
            let mut changes = Vec::new();
            assert_eq!(self.admission.remove(BrokerId(broker), &mut changes), expected);
            self.note(changes);
        }

        fn note(&mut self, changes: Vec<Change<u32>>) {
            for change in changes {
                match change {
                    Change::Admitted(id) => {
                        self.known
                            .iter_mut()
                            .filter(|known| known.waits == Some(id))
                            .for_each(|known| known.waits = None);
                    }
                    Change::Ended { tag, worst } => self.known[tag as usize].ends.push(Some(worst)),
                }
            }
        }

        fn check(&mut self) {
            for broker in self.admission.changed() {
                let messages = self.admission.outbox(broker).messages();
                self.gauges[broker.index()] = (messages, self.admission.offered(broker));
            }
            for broker in (0..BROKERS).map(BrokerId) {
                let messages = self.admission.outbox(broker).messages();
                assert!(messages <= CAPACITY.messages);
                assert_eq!(self.gauges[broker.index()], (messages, self.offered[broker.index()]), "{broker:?}");
                assert!(messages == 0 || self.present[broker.index()]);
            }
            for known in &self.known {
                assert_eq!(known.open.is_empty(), !known.ends.is_empty(), "ends with its last publish");
                if let [Some(end)] = known.ends[..] {
                    assert_eq!(end == End::Delivered, known.delivered == known.publishes);
                }
                assert!(known.ends.len() <= 1);
            }
        }
    }

    proptest! {
        /// Whatever happens: no outbox exceeds its capacity, every batch ends exactly once and as purged where a broker was
        /// gone, batches leave for a broker in the order in which they were offered, nothing waits for ever, and who looks
        /// only at what changed sees all.
        #[test]
        fn nothing_is_overfilled_overtaken_or_forgotten(steps in steps()) {
            let mut world = World {
                admission: admission(BROKERS), known: Vec::new(), present: [true; BROKERS as usize],
                last_left: Default::default(), offered: Default::default(), gauges: Default::default(),
            };
            for step in steps {
                match step {
                    Step::Offer(brokers) => world.offer(&brokers, false),
                    Step::Command(broker) => world.offer(&[broker], true),
                    Step::Deliver(broker) => world.deliver(broker),
                    Step::Lose(broker) => {
                        prop_assert!(world.admission.outbox(BrokerId(broker)).connection_lost(None).is_none());
                    }
                    Step::WithdrawFirst => {
                        if let Some(number) = world.known.iter().position(|known| known.waits.is_some()) {
                            world.withdraw(number);
                        }
                    }
                    Step::TakeBack(index) if !world.known.is_empty() => {
                        let number = index.index(world.known.len());
                        world.take_back(number);
                    }
                    Step::TakeBack(_) => {}
                    Step::Remove(broker) => world.remove(broker),
                    Step::Add(broker) => {
                        world.present[broker as usize] = true;
                        world.admission.add(BrokerId(broker));
                    }
                }
                world.check();
            }
            for _ in 0..world.known.len() * 4 {
                (0..BROKERS).for_each(|broker| world.deliver(broker));
            }
            world.check();
            prop_assert!(world.known.iter().all(|known| known.ends.len() == 1 && known.waits.is_none()));
        }
    }
}
