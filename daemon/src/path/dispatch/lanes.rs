//! What waits for one handler, and who goes next.
//!
//! Pure: no clock, no I/O, no lock. Decides which QoS 0 message goes when the queue is full. Whether a message may start
//! now is asked of the caller, who knows connections and limits.

use std::collections::VecDeque;

use crate::control::config::model::Overload;
use crate::message::BrokerId;

/// What may wait, and what goes when it is full.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages that may wait.
    pub messages: usize,
    /// Bytes that may wait.
    pub bytes: usize,
    /// Which QoS 0 message goes when there is no room.
    pub overload: Overload,
}

/// Who may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0: needs room, and may be dropped for want of it.
    Droppable,
    /// QoS ≥ 1: waits beyond the limits, since its broker's receive maximum bounds it and it stays unacknowledged.
    Kept,
}

/// Whether the message at the head of a lane may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It starts now.
    Run,
    /// It and all behind it in its lane wait.
    Hold,
    /// It is taken out without being run.
    Discard,
}

struct Queued<J> {
    job: J,
    delivery: Delivery,
    weight: usize,
    /// Ascending in the order of coming, over all lanes.
    number: i64,
}

struct Lane<J> {
    broker: BrokerId,
    jobs: VecDeque<Queued<J>>,
}

struct Shard<J> {
    /// A lane for each broker whose messages wait, and empty ones, which any broker may have: brokers come and go.
    lanes: Vec<Lane<J>>,
    /// The lane that is asked first, so that no broker starves another.
    turn: usize,
}

impl<J> Shard<J> {
    fn new() -> Shard<J> {
        Shard { lanes: Vec::new(), turn: 0 }
    }

    fn lane(&mut self, broker: BrokerId) -> &mut VecDeque<Queued<J>> {
        let own = self.lanes.iter().position(|lane| lane.broker == broker);
        let place = own.or_else(|| self.lanes.iter().position(|lane| lane.jobs.is_empty())).unwrap_or_else(|| {
            self.lanes.push(Lane { broker, jobs: VecDeque::new() });
            self.lanes.len() - 1
        });
        let lane = &mut self.lanes[place];
        lane.broker = broker;
        &mut lane.jobs
    }
}

/// Where a job belongs, and what it counts.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its shard.
    pub shard: usize,
    /// Its broker.
    pub broker: BrokerId,
    /// Whether it may be dropped.
    pub delivery: Delivery,
    /// Bytes.
    pub weight: usize,
}

#[derive(Clone, Copy, Default)]
struct Load {
    messages: usize,
    bytes: usize,
}

/// The queue of one handler.
pub struct Lanes<J> {
    shards: Vec<Shard<J>>,
    limits: Limits,
    all: Load,
    droppable: Load,
    /// The number of the last that came.
    newest: i64,
    /// The number of the first of those that were put before all others.
    oldest: i64,
}

impl<J> Lanes<J> {
    /// An empty queue.
    pub fn new(shards: usize, limits: Limits) -> Lanes<J> {
        Lanes {
            shards: (0..shards).map(|_| Shard::new()).collect(),
            limits,
            all: Load::default(),
            droppable: Load::default(),
            newest: 0,
            oldest: 0,
        }
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.all.messages
    }

    /// Puts a job at the end of its lane. Gives back what has to go for want of room, which can be the job itself.
    pub fn push(&mut self, place: Place, job: J) -> Vec<J> {
        let mut dropped = Vec::new();
        if place.delivery == Delivery::Droppable {
            if !self.can_make_room(place.weight) {
                return vec![job];
            }
            while !self.has_room(place.weight) {
                match self.take_oldest_droppable() {
                    Some(oldest) => dropped.push(oldest),
                    None => return vec![job],
                }
            }
        }
        self.newest += 1;
        let queued = Queued { job, delivery: place.delivery, weight: place.weight, number: self.newest };
        self.count(&queued, true);
        self.shards[place.shard].lane(place.broker).push_back(queued);
        dropped
    }

    /// Puts jobs, which are in order, before all that wait: those of a queue that this one takes the place of. Whatever
    /// room there is, since they had room before.
    pub fn prepend(&mut self, jobs: impl DoubleEndedIterator<Item = (Place, J)>) {
        for (place, job) in jobs.rev() {
            self.oldest -= 1;
            let queued = Queued { job, delivery: place.delivery, weight: place.weight, number: self.oldest };
            self.count(&queued, true);
            self.shards[place.shard].lane(place.broker).push_front(queued);
        }
    }

    /// The next job of a shard that may start, taking turns between brokers. `verdict` is asked about the head of each
    /// lane; what it discards is put into `discarded`.
    pub fn take(&mut self, shard: usize, mut verdict: impl FnMut(&J) -> Verdict, discarded: &mut Vec<J>) -> Option<J> {
        let count = self.shards[shard].lanes.len();
        for step in 0..count {
            let place = (self.shards[shard].turn + step) % count;
            while let Some(head) = self.shards[shard].lanes[place].jobs.front() {
                let verdict = verdict(&head.job);
                if verdict == Verdict::Hold {
                    break;
                }
                let Some(head) = self.shards[shard].lanes[place].jobs.pop_front() else { break };
                self.count(&head, false);
                if verdict == Verdict::Run {
                    self.shards[shard].turn = place + 1;
                    return Some(head.job);
                }
                discarded.push(head.job);
            }
        }
        None
    }

    /// Takes out what a broker's lanes hold and `goes` names, wherever it waits; the rest stays in order.
    pub fn discard(&mut self, broker: BrokerId, goes: impl Fn(&J) -> bool) -> Vec<J> {
        let mut discarded = Vec::new();
        for shard in 0..self.shards.len() {
            let own = self.shards[shard].lanes.iter().position(|lane| lane.broker == broker);
            let Some(place) = own else { continue };
            for queued in std::mem::take(&mut self.shards[shard].lanes[place].jobs) {
                if goes(&queued.job) {
                    self.count(&queued, false);
                    discarded.push(queued.job);
                } else {
                    self.shards[shard].lanes[place].jobs.push_back(queued);
                }
            }
        }
        discarded
    }

    /// Takes everything out, in the order of coming.
    pub fn clear(&mut self) -> Vec<J> {
        (self.all, self.droppable) = (Load::default(), Load::default());
        let lanes = self.shards.iter_mut().flat_map(|shard| shard.lanes.iter_mut());
        let mut queued: Vec<Queued<J>> = lanes.flat_map(|lane| std::mem::take(&mut lane.jobs)).collect();
        queued.sort_unstable_by_key(|queued| queued.number);
        queued.into_iter().map(|queued| queued.job).collect()
    }

    fn has_room(&self, weight: usize) -> bool {
        self.all.messages < self.limits.messages && self.all.bytes + weight <= self.limits.bytes
    }

    /// Whether dropping what the policy lets go would make room, so that nothing is dropped in vain.
    fn can_make_room(&self, weight: usize) -> bool {
        match self.limits.overload {
            Overload::DropNewest => self.has_room(weight),
            Overload::DropOldest => {
                self.all.messages - self.droppable.messages < self.limits.messages
                    && self.all.bytes - self.droppable.bytes + weight <= self.limits.bytes
            }
        }
    }

    /// Looks at each lane up to its first QoS 0 message: messages before it are bounded by the receive maximum.
    fn take_oldest_droppable(&mut self) -> Option<J> {
        let lanes = self.shards.iter_mut().flat_map(|shard| shard.lanes.iter_mut());
        let oldest = lanes
            .filter_map(|Lane { jobs: lane, .. }| {
                let place = lane.iter().position(|queued| queued.delivery == Delivery::Droppable)?;
                Some((lane[place].number, place, lane))
            })
            .min_by_key(|(number, _, _)| *number);
        let queued = oldest.and_then(|(_, place, lane)| lane.remove(place))?;
        self.count(&queued, false);
        Some(queued.job)
    }

    fn count(&mut self, queued: &Queued<J>, comes: bool) {
        let loads = [Some(&mut self.all), (queued.delivery == Delivery::Droppable).then_some(&mut self.droppable)];
        for load in loads.into_iter().flatten() {
            if comes {
                load.messages += 1;
                load.bytes += queued.weight;
            } else {
                load.messages -= 1;
                load.bytes -= queued.weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lanes(messages: usize, bytes: usize, overload: Overload) -> Lanes<u32> {
        Lanes::new(2, Limits { messages, bytes, overload })
    }

    fn take_all(lanes: &mut Lanes<u32>, shard: usize) -> Vec<u32> {
        std::iter::from_fn(|| lanes.take(shard, |_| Verdict::Run, &mut Vec::new())).collect()
    }

    fn at(shard: usize, broker: BrokerId, delivery: Delivery, weight: usize) -> Place {
        Place { shard, broker, delivery, weight }
    }

    const A: BrokerId = BrokerId(7);
    const B: BrokerId = BrokerId(1_000_000);

    #[test]
    fn drop_newest_refuses_the_arriving_message() {
        let mut lanes = lanes(2, 100, Overload::DropNewest);
        assert!(lanes.push(at(0, A, Delivery::Droppable, 1), 1).is_empty());
        assert!(lanes.push(at(1, A, Delivery::Droppable, 1), 2).is_empty());
        assert_eq!(lanes.push(at(0, A, Delivery::Droppable, 1), 3), [3]);
        assert_eq!(take_all(&mut lanes, 0), [1]);
    }

    #[test]
    fn drop_oldest_makes_room_across_shards_and_spares_what_is_kept() {
        let mut lanes = lanes(3, 100, Overload::DropOldest);
        lanes.push(at(0, A, Delivery::Kept, 1), 1);
        lanes.push(at(1, A, Delivery::Droppable, 1), 2);
        lanes.push(at(0, A, Delivery::Droppable, 1), 3);
        assert_eq!(lanes.push(at(0, A, Delivery::Droppable, 1), 4), [2]);
        assert_eq!(take_all(&mut lanes, 0), [1, 3, 4]);
    }

    #[test]
    fn bytes_are_a_limit_too_and_nothing_is_dropped_in_vain() {
        let mut lanes = lanes(10, 10, Overload::DropOldest);
        lanes.push(at(0, A, Delivery::Droppable, 6), 1);
        assert_eq!(lanes.push(at(0, A, Delivery::Droppable, 11), 2), [2], "it never fits");
        assert_eq!(lanes.push(at(0, A, Delivery::Droppable, 10), 3), [1]);
    }

    #[test]
    fn kept_messages_wait_beyond_the_limits() {
        let mut lanes = lanes(1, 1, Overload::DropNewest);
        assert!(lanes.push(at(0, A, Delivery::Kept, 5), 1).is_empty());
        assert!(lanes.push(at(0, A, Delivery::Kept, 5), 2).is_empty());
        assert_eq!(lanes.push(at(0, A, Delivery::Droppable, 0), 3), [3]);
        assert_eq!(take_all(&mut lanes, 0), [1, 2]);
    }

    #[test]
    fn a_held_broker_does_not_hold_back_another() {
        let mut lanes = lanes(9, 99, Overload::DropNewest);
        lanes.push(at(0, A, Delivery::Kept, 1), 1);
        lanes.push(at(0, B, Delivery::Kept, 1), 2);
        let hold_a = |job: &u32| if *job == 1 { Verdict::Hold } else { Verdict::Run };
        assert_eq!(lanes.take(0, hold_a, &mut Vec::new()), Some(2));
        assert_eq!(lanes.take(0, hold_a, &mut Vec::new()), None);
        assert_eq!(lanes.len(), 1);
    }

    #[test]
    fn brokers_take_turns() {
        let mut lanes = lanes(9, 99, Overload::DropNewest);
        for (broker, job) in [(A, 1), (A, 2), (A, 3), (B, 4), (B, 5)] {
            lanes.push(at(0, broker, Delivery::Kept, 1), job);
        }
        assert_eq!(take_all(&mut lanes, 0), [1, 4, 2, 5, 3]);
    }

    #[test]
    fn discarded_heads_make_way() {
        let mut lanes = lanes(9, 99, Overload::DropNewest);
        (1..=3).for_each(|job| assert!(lanes.push(at(0, A, Delivery::Kept, 1), job).is_empty()));
        let mut discarded = Vec::new();
        let verdict = |job: &u32| if *job < 3 { Verdict::Discard } else { Verdict::Run };
        assert_eq!(lanes.take(0, verdict, &mut discarded), Some(3));
        assert_eq!(discarded, [1, 2]);
    }

    #[test]
    fn what_is_discarded_makes_room_wherever_it_waits() {
        let mut lanes = lanes(3, 99, Overload::DropNewest);
        for (shard, broker, job) in [(0, A, 1), (0, A, 2), (1, A, 3), (1, B, 4)] {
            lanes.push(at(shard, broker, Delivery::Kept, 1), job);
        }
        assert_eq!(lanes.discard(A, |job| *job != 2), [1, 3]);
        assert_eq!(lanes.len(), 2);
        assert_eq!((take_all(&mut lanes, 0), take_all(&mut lanes, 1)), (vec![2], vec![4]));
    }

    #[test]
    fn lanes_are_as_many_as_brokers_whose_messages_wait() {
        let mut lanes = lanes(9, 99, Overload::DropNewest);
        for broker in 0..1000 {
            lanes.push(at(0, BrokerId(broker), Delivery::Kept, 1), 1);
            lanes.push(at(0, BrokerId(broker + 1), Delivery::Kept, 1), 2);
            assert_eq!(take_all(&mut lanes, 0).len(), 2);
        }
        assert_eq!(lanes.shards[0].lanes.len(), 2);
    }

    #[test]
    fn what_is_put_before_the_others_comes_first_and_is_the_oldest() {
        let mut lanes = lanes(3, 99, Overload::DropOldest);
        lanes.push(at(0, A, Delivery::Droppable, 1), 3);
        let before = [(at(0, A, Delivery::Droppable, 1), 1), (at(1, B, Delivery::Droppable, 1), 2)];
        lanes.prepend(before.into_iter());
        assert_eq!(lanes.push(at(1, B, Delivery::Droppable, 1), 4), [1]);
        assert_eq!((take_all(&mut lanes, 0), take_all(&mut lanes, 1)), (vec![3], vec![2, 4]));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push {
            shard: usize,
            broker: u32,
            kept: bool,
            weight: usize,
        },
        Take(usize),
        Discard(u32),
        /// Another queue takes this one's place, after so many jobs came there already.
        TakeOver(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let push = (0..2usize, 0..4u32, any::<bool>(), 0..6usize);
        let push = push.prop_map(|(shard, broker, kept, weight)| Step::Push { shard, broker, kept, weight });
        prop_oneof![
            20 => push,
            10 => (0..2usize).prop_map(Step::Take),
            1 => (0..4u32).prop_map(Step::Discard),
            1 => (0..4usize).prop_map(Step::TakeOver),
        ]
    }

    /// The jobs so far, each with its place, and what became of them.
    struct Account {
        lanes: Lanes<u32>,
        places: Vec<Place>,
        waiting: Vec<u32>,
        gone: Vec<u32>,
        run: Vec<u32>,
    }

    impl Account {
        fn push(&mut self, place: Place) {
            let job = self.places.len() as u32;
            self.places.push(place);
            self.waiting.push(job);
            let gone = self.lanes.push(place, job);
            assert!(
                gone.iter().all(|job| self.places[*job as usize].delivery == Delivery::Droppable),
                "a kept one goes"
            );
            self.ended(gone);
        }

        fn ended(&mut self, jobs: Vec<u32>) {
            self.waiting.retain(|job| !jobs.contains(job));
            self.gone.extend(jobs);
        }

        fn take(&mut self, shard: usize) {
            if let Some(job) = self.lanes.take(shard, |_| Verdict::Run, &mut Vec::new()) {
                self.waiting.retain(|other| *other != job);
                self.run.push(job);
            }
        }
    }

    proptest! {
        /// Against a plain list: order within (shard, broker) holds, droppable messages respect the limits, and every job
        /// comes out exactly once: run, dropped or discarded. Also across queues that take one another's place.
        #[test]
        fn every_job_comes_out_once_and_in_order(
            steps in prop::collection::vec(step(), 0..200),
            oldest in any::<bool>(),
        ) {
            let overload = if oldest { Overload::DropOldest } else { Overload::DropNewest };
            let mut account = Account {
                lanes: lanes(5, 20, overload), places: vec![], waiting: vec![], gone: vec![], run: vec![],
            };
            for step in steps {
                match step {
                    Step::Push { shard, broker, kept, weight } => {
                        let delivery = if kept { Delivery::Kept } else { Delivery::Droppable };
                        let waiting = account.lanes.len();
                        account.push(at(shard, BrokerId(broker * 1000), delivery, weight));
                        prop_assert!(kept || account.lanes.len() <= waiting.max(5));
                    }
                    Step::Take(shard) => account.take(shard),
                    Step::Discard(broker) => {
                        let goes = |job: &u32| job.is_multiple_of(2);
                        let gone = account.lanes.discard(BrokerId(broker * 1000), goes);
                        let places = &account.places;
                        let of_broker = |job: &&u32| places[**job as usize].broker.0 == broker * 1000 && goes(job);
                        let mut expected: Vec<u32> = account.waiting.iter().filter(of_broker).copied().collect();
                        expected.sort_by_key(|job| (places[*job as usize].shard, *job));
                        prop_assert_eq!(&gone, &expected);
                        account.ended(gone);
                    }
                    Step::TakeOver(came) => {
                        let mut old = std::mem::replace(&mut account.lanes, lanes(5, 20, overload));
                        let before = account.waiting.clone();
                        for number in 0..came {
                            account.push(at(number % 2, BrokerId(1000), Delivery::Kept, 1));
                        }
                        let jobs = old.clear();
                        prop_assert_eq!(&jobs, &before, "in the order of coming");
                        prop_assert_eq!(old.len(), 0);
                        let places = account.places.clone();
                        account.lanes.prepend(jobs.into_iter().map(|job| (places[job as usize], job)));
                    }
                }
                prop_assert_eq!(account.lanes.len(), account.waiting.len());
            }
            for shard in 0..2 {
                (0..=account.waiting.len()).for_each(|_| account.take(shard));
            }
            let Account { lanes, places, waiting, gone, run } = account;
            prop_assert!(waiting.is_empty());
            prop_assert_eq!((lanes.len(), lanes.all.bytes, lanes.droppable.messages, lanes.droppable.bytes), (0, 0, 0, 0));
            for broker in 0..4 {
                for shard in 0..2 {
                    let here = |job: &&u32| {
                        let place = places[**job as usize];
                        (place.shard, place.broker.0) == (shard, broker * 1000)
                    };
                    prop_assert!(run.iter().filter(here).is_sorted());
                }
            }
            let mut all = [gone, run].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..places.len() as u32).collect::<Vec<_>>());
        }
    }
}
