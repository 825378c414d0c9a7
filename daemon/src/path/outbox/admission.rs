//! Who may put publishes into the outboxes: one owner for all of them.
//!
//! Pure: no clock, no I/O, no lock. A call's publishes form a batch that is taken whole or not at all, for every broker
//! that it names; batches that meet at a full outbox go in the order in which they came. (A permit for each outbox would
//! deadlock: X holds A and wants B, Y the reverse.) A batch that waits holds back only later batches that share a broker
//! with it, so that a broker that is down does not hold back calls that publish to others alone.

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
pub enum Offered {
    /// It is in the outboxes.
    Taken(BatchId),
    /// There is no room; [`Change::Admitted`] comes later.
    Waits(BatchId),
}

/// What follows from a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// A waiting batch is in the outboxes now.
    Admitted(BatchId),
    /// Every publish of a batch has reached its end.
    Ended {
        /// What the batch was offered with.
        tag: T,
        /// The worst end of its publishes.
        worst: End,
    },
}

/// All outboxes and who waits for them. `T` is what a batch is offered with and given back at its end.
pub struct Admission<T> {
    outboxes: Vec<Outbox>,
    capacity: Capacity,
    batches: HashMap<BatchId, Batch<T>>,
    /// In the order of coming. At most one batch for each instance of a handler, since an instance waits for its batch.
    waiting: VecDeque<Waiting<T>>,
    next: u64,
}

impl<T> Admission<T> {
    /// Empty outboxes for so many brokers, each of this capacity.
    pub fn new(brokers: usize, capacity: Capacity) -> Admission<T> {
        Admission {
            outboxes: (0..brokers).map(|_| Outbox::default()).collect(),
            capacity,
            batches: HashMap::new(),
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    /// The outbox of a broker.
    pub fn outbox(&mut self, broker: BrokerId) -> &mut Outbox {
        &mut self.outboxes[broker.index()]
    }

    /// What an entry's batch was offered with; none once the entry has reached its end.
    pub fn tag(&self, broker: BrokerId, entry: EntryId) -> Option<&T> {
        let batch = self.outboxes[broker.index()].batch(entry)?;
        self.batches.get(&batch).map(|batch| &batch.tag)
    }

    /// Offers the publishes of one call, at least one, in their order. An empty outbox has room for whatever the
    /// configuration allows one call.
    pub fn offer(&mut self, publishes: Vec<Publish>, tag: T) -> Offered {
        debug_assert!(!publishes.is_empty(), "a call without publishes has nothing to wait for");
        let id = BatchId(self.next);
        self.next += 1;
        let demand = Demand::of(&publishes);
        if self.waiting.iter().any(|earlier| earlier.demand.meets(&demand)) || !self.fits(&demand) {
            self.waiting.push_back(Waiting { id, demand, publishes, tag });
            return Offered::Waits(id);
        }
        self.take(id, publishes, tag);
        Offered::Taken(id)
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
        let Some(id) = self.outbox(broker).remove(entry, end) else { return };
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.open -= 1;
            batch.worst = batch.worst.max(end);
            if batch.open == 0
                && let Some(batch) = self.batches.remove(&id)
            {
                changes.push(Change::Ended { tag: batch.tag, worst: batch.worst });
            }
        }
        self.admit_waiting(changes);
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
                self.take(waiting.id, waiting.publishes, waiting.tag);
                changes.push(Change::Admitted(waiting.id));
            }
        }
        self.waiting = passed_over;
    }

    fn fits(&self, demand: &Demand) -> bool {
        demand.0.iter().all(|need| {
            let outbox = &self.outboxes[need.broker.index()];
            outbox.messages() + need.messages <= self.capacity.messages
                && outbox.bytes() + need.bytes <= self.capacity.bytes
        })
    }

    fn take(&mut self, id: BatchId, publishes: Vec<Publish>, tag: T) {
        self.batches.insert(id, Batch { open: publishes.len(), worst: End::Delivered, tag });
        for Publish { broker, message } in publishes {
            self.outbox(broker).push(Arc::new(message), id);
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
        let message = Outgoing { topic, payload, qos: Qos::AtLeastOnce, retain: false, properties: None };
        Publish { broker: BrokerId(broker), message }
    }

    fn batch(brokers: &[u32], payload: &str) -> Vec<Publish> {
        brokers.iter().map(|broker| publish(*broker, payload)).collect()
    }

    fn send_all(admission: &mut Admission<u32>, broker: u32) -> Vec<EntryId> {
        std::iter::from_fn(|| admission.outbox(BrokerId(broker)).take_next().map(|(id, _)| id)).collect()
    }

    #[test]
    fn a_batch_is_taken_whole_or_not_at_all() {
        let mut admission = Admission::new(2, CAPACITY);
        assert!(matches!(admission.offer(batch(&[0, 0, 0], "x"), 1), Offered::Taken(_)));
        assert!(matches!(admission.offer(batch(&[1, 0, 0], "y"), 2), Offered::Waits(_)));
        assert_eq!(admission.outbox(BrokerId(1)).messages(), 0);
    }

    #[test]
    fn a_full_outbox_does_not_hold_back_other_brokers() {
        let mut admission = Admission::new(2, CAPACITY);
        admission.offer(batch(&[0; 4], "x"), 1);
        assert!(matches!(admission.offer(batch(&[0], "x"), 2), Offered::Waits(_)));
        assert!(matches!(admission.offer(batch(&[1], "x"), 3), Offered::Taken(_)));
    }

    #[test]
    fn later_batches_do_not_overtake_one_that_waits_for_the_same_broker() {
        let mut admission = Admission::new(2, CAPACITY);
        admission.offer(batch(&[0; 3], "x"), 1);
        assert!(matches!(admission.offer(batch(&[0, 0, 1], "x"), 2), Offered::Waits(_)));
        assert!(matches!(admission.offer(batch(&[0], "x"), 3), Offered::Waits(_)), "there is room for one");
        assert!(matches!(admission.offer(batch(&[1], "x"), 4), Offered::Waits(_)));
    }

    #[test]
    fn a_withdrawn_batch_lets_the_next_in() {
        let mut admission = Admission::new(1, CAPACITY);
        admission.offer(batch(&[0; 3], "x"), 1);
        let Offered::Waits(second) = admission.offer(batch(&[0; 2], "x"), 2) else { panic!("there is no room") };
        let Offered::Waits(third) = admission.offer(batch(&[0], "x"), 3) else { panic!("it would overtake") };
        let mut changes = Vec::new();
        assert_eq!(admission.withdraw(second, &mut changes), Some(2));
        assert_eq!(changes, [Change::Admitted(third)]);
    }

    #[test]
    fn a_batch_ends_when_its_last_publish_does_and_remembers_a_refusal() {
        let mut admission = Admission::new(2, CAPACITY);
        admission.offer(batch(&[0, 1], "x"), 7);
        let (first, second) = (send_all(&mut admission, 0)[0], send_all(&mut admission, 1)[0]);
        let mut changes = Vec::new();
        admission.ended(BrokerId(0), first, End::Refused, &mut changes);
        assert_eq!(changes, []);
        admission.ended(BrokerId(1), second, End::Delivered, &mut changes);
        assert_eq!(changes, [Change::Ended { tag: 7, worst: End::Refused }]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Offer(Vec<u32>),
        Deliver(u32),
        Lose(u32),
        WithdrawFirst,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => prop::collection::vec(0..3u32, 1..=4).prop_map(Step::Offer),
            6 => (0..3u32).prop_map(Step::Deliver),
            1 => (0..3u32).prop_map(Step::Lose),
            1 => Just(Step::WithdrawFirst),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        /// Whatever happens: no outbox exceeds its capacity, every batch ends exactly once, batches leave for a broker in
        /// the order in which they were offered, and nothing waits for ever.
        #[test]
        fn nothing_is_overfilled_overtaken_or_forgotten(steps in steps()) {
            let mut admission: Admission<u32> = Admission::new(3, CAPACITY);
            let (mut offered, mut ended, mut waiting) = (0u32, Vec::new(), Vec::<BatchId>::new());
            let mut last_left = [0u64; 3];
            let note = |changes: Vec<Change<u32>>, ended: &mut Vec<u32>, waiting: &mut Vec<BatchId>| {
                for change in changes {
                    match change {
                        Change::Admitted(id) => waiting.retain(|other| *other != id),
                        Change::Ended { tag, .. } => ended.push(tag),
                    }
                }
            };
            let drain = (0..200).map(|i| Step::Deliver(i % 3));
            for step in steps.into_iter().chain(drain) {
                let mut changes = Vec::new();
                match step {
                    Step::Offer(brokers) => {
                        let number = offered;
                        offered += 1;
                        if let Offered::Waits(id) = admission.offer(batch(&brokers, &number.to_string()), number) {
                            waiting.push(id);
                        }
                    }
                    Step::Deliver(broker) => {
                        if let Some((entry, message)) = admission.outbox(BrokerId(broker)).take_next() {
                            let number: u64 = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
                            prop_assert!(number >= last_left[broker as usize], "overtaken");
                            last_left[broker as usize] = number;
                            admission.ended(BrokerId(broker), entry, End::Delivered, &mut changes);
                        }
                    }
                    Step::Lose(broker) => assert!(admission.outbox(BrokerId(broker)).connection_lost(None).is_none()),
                    Step::WithdrawFirst => {
                        if let Some(id) = waiting.first().copied() {
                            waiting.remove(0);
                            ended.extend(admission.withdraw(id, &mut changes));
                        }
                    }
                }
                note(changes, &mut ended, &mut waiting);
                for broker in 0..3 {
                    prop_assert!(admission.outbox(BrokerId(broker)).messages() <= CAPACITY.messages);
                }
            }
            for _ in 0..offered * 4 {
                for broker in 0..3 {
                    let mut changes = Vec::new();
                    if let Some((entry, _)) = admission.outbox(BrokerId(broker)).take_next() {
                        admission.ended(BrokerId(broker), entry, End::Delivered, &mut changes);
                    }
                    note(changes, &mut ended, &mut waiting);
                }
            }
            ended.sort_unstable();
            prop_assert_eq!(ended, (0..offered).collect::<Vec<_>>());
            prop_assert!(waiting.is_empty());
        }
    }
}
