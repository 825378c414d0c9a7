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
    number: u64,
}

struct Shard<J> {
    /// A lane for each broker by its place.
    lanes: Vec<VecDeque<Queued<J>>>,
    /// The lane that is asked first, so that no broker starves another.
    turn: usize,
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
    coming: u64,
}

impl<J> Lanes<J> {
    /// An empty queue.
    pub fn new(shards: usize, brokers: usize, limits: Limits) -> Lanes<J> {
        let shard = || Shard { lanes: (0..brokers).map(|_| VecDeque::new()).collect(), turn: 0 };
        Lanes {
            shards: (0..shards).map(|_| shard()).collect(),
            limits,
            all: Load::default(),
            droppable: Load::default(),
            coming: 0,
        }
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.all.messages
    }

    /// Puts a job of `weight` bytes at the end of its lane. Gives back what has to go for want of room, which can be the
    /// job itself.
    pub fn push(&mut self, shard: usize, broker: BrokerId, delivery: Delivery, weight: usize, job: J) -> Vec<J> {
        let mut dropped = Vec::new();
        if delivery == Delivery::Droppable {
            if !self.can_make_room(weight) {
                return vec![job];
            }
            while !self.has_room(weight) {
                match self.take_oldest_droppable() {
                    Some(oldest) => dropped.push(oldest),
                    None => return vec![job],
                }
            }
        }
        self.coming += 1;
        let queued = Queued { job, delivery, weight, number: self.coming };
        self.count(&queued, true);
        self.shards[shard].lanes[broker.index()].push_back(queued);
        dropped
    }

    /// The next job of a shard that may start, taking turns between brokers. `verdict` is asked about the head of each
    /// lane; what it discards is put into `discarded`.
    pub fn take(
        &mut self,
        shard: usize,
        mut verdict: impl FnMut(BrokerId, &J) -> Verdict,
        discarded: &mut Vec<J>,
    ) -> Option<J> {
        let count = self.shards[shard].lanes.len();
        for step in 0..count {
            let place = (self.shards[shard].turn + step) % count;
            let broker = BrokerId(u32::try_from(place).expect("a broker's place is its number"));
            while let Some(head) = self.shards[shard].lanes[place].front() {
                let verdict = verdict(broker, &head.job);
                if verdict == Verdict::Hold {
                    break;
                }
                let Some(head) = self.shards[shard].lanes[place].pop_front() else { break };
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
            let lane = std::mem::take(&mut self.shards[shard].lanes[broker.index()]);
            for queued in lane {
                if goes(&queued.job) {
                    self.count(&queued, false);
                    discarded.push(queued.job);
                } else {
                    self.shards[shard].lanes[broker.index()].push_back(queued);
                }
            }
        }
        discarded
    }

    /// Takes everything out, in no particular order.
    pub fn clear(&mut self) -> Vec<J> {
        (self.all, self.droppable) = (Load::default(), Load::default());
        let lanes = self.shards.iter_mut().flat_map(|shard| shard.lanes.iter_mut());
        lanes.flat_map(std::mem::take).map(|queued| queued.job).collect()
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
            .filter_map(|lane| {
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
        Lanes::new(2, 2, Limits { messages, bytes, overload })
    }

    fn take_all(lanes: &mut Lanes<u32>, shard: usize) -> Vec<u32> {
        std::iter::from_fn(|| lanes.take(shard, |_, _| Verdict::Run, &mut Vec::new())).collect()
    }

    const A: BrokerId = BrokerId(0);
    const B: BrokerId = BrokerId(1);

    #[test]
    fn drop_newest_refuses_the_arriving_message() {
        let mut lanes = lanes(2, 100, Overload::DropNewest);
        assert!(lanes.push(0, A, Delivery::Droppable, 1, 1).is_empty());
        assert!(lanes.push(1, A, Delivery::Droppable, 1, 2).is_empty());
        assert_eq!(lanes.push(0, A, Delivery::Droppable, 1, 3), [3]);
        assert_eq!(take_all(&mut lanes, 0), [1]);
    }

    #[test]
    fn drop_oldest_makes_room_across_shards_and_spares_what_is_kept() {
        let mut lanes = lanes(3, 100, Overload::DropOldest);
        lanes.push(0, A, Delivery::Kept, 1, 1);
        lanes.push(1, A, Delivery::Droppable, 1, 2);
        lanes.push(0, A, Delivery::Droppable, 1, 3);
        assert_eq!(lanes.push(0, A, Delivery::Droppable, 1, 4), [2]);
        assert_eq!(take_all(&mut lanes, 0), [1, 3, 4]);
    }

    #[test]
    fn bytes_are_a_limit_too_and_nothing_is_dropped_in_vain() {
        let mut lanes = lanes(10, 10, Overload::DropOldest);
        lanes.push(0, A, Delivery::Droppable, 6, 1);
        assert_eq!(lanes.push(0, A, Delivery::Droppable, 11, 2), [2], "it never fits");
        assert_eq!(lanes.push(0, A, Delivery::Droppable, 10, 3), [1]);
    }

    #[test]
    fn kept_messages_wait_beyond_the_limits() {
        let mut lanes = lanes(1, 1, Overload::DropNewest);
        assert!(lanes.push(0, A, Delivery::Kept, 5, 1).is_empty());
        assert!(lanes.push(0, A, Delivery::Kept, 5, 2).is_empty());
        assert_eq!(lanes.push(0, A, Delivery::Droppable, 0, 3), [3]);
        assert_eq!(take_all(&mut lanes, 0), [1, 2]);
    }

    #[test]
    fn a_held_broker_does_not_hold_back_another() {
        let mut lanes = lanes(9, 99, Overload::DropNewest);
        lanes.push(0, A, Delivery::Kept, 1, 1);
        lanes.push(0, B, Delivery::Kept, 1, 2);
        let hold_a = |broker, _: &u32| if broker == A { Verdict::Hold } else { Verdict::Run };
        assert_eq!(lanes.take(0, hold_a, &mut Vec::new()), Some(2));
        assert_eq!(lanes.take(0, hold_a, &mut Vec::new()), None);
        assert_eq!(lanes.len(), 1);
    }

    #[test]
    fn brokers_take_turns() {
        let mut lanes = lanes(9, 99, Overload::DropNewest);
        for (broker, job) in [(A, 1), (A, 2), (A, 3), (B, 4), (B, 5)] {
            lanes.push(0, broker, Delivery::Kept, 1, job);
        }
        assert_eq!(take_all(&mut lanes, 0), [1, 4, 2, 5, 3]);
    }

    #[test]
    fn discarded_heads_make_way() {
        let mut lanes = lanes(9, 99, Overload::DropNewest);
        (1..=3).for_each(|job| assert!(lanes.push(0, A, Delivery::Kept, 1, job).is_empty()));
        let mut discarded = Vec::new();
        let verdict = |_, job: &u32| if *job < 3 { Verdict::Discard } else { Verdict::Run };
        assert_eq!(lanes.take(0, verdict, &mut discarded), Some(3));
        assert_eq!(discarded, [1, 2]);
    }

    #[test]
    fn what_is_discarded_makes_room_wherever_it_waits() {
        let mut lanes = lanes(3, 99, Overload::DropNewest);
        for (shard, broker, job) in [(0, A, 1), (0, A, 2), (1, A, 3), (1, B, 4)] {
            lanes.push(shard, broker, Delivery::Kept, 1, job);
        }
        assert_eq!(lanes.discard(A, |job| *job != 2), [1, 3]);
        assert_eq!(lanes.len(), 2);
        assert_eq!((take_all(&mut lanes, 0), take_all(&mut lanes, 1)), (vec![2], vec![4]));
    }

    proptest! {
        /// Against a plain list: order within (shard, broker) holds, droppable messages respect the limits, and every job
        /// comes out exactly once: run or dropped.
        #[test]
        fn every_job_comes_out_once_and_in_order(
            steps in prop::collection::vec((0..2usize, 0..2u32, any::<bool>(), 0..6usize, any::<bool>()), 0..200),
            oldest in any::<bool>(),
        ) {
            let overload = if oldest { Overload::DropOldest } else { Overload::DropNewest };
            let mut lanes: Lanes<u32> = lanes(5, 20, overload);
            let mut places = Vec::new();
            let (mut dropped, mut run) = (Vec::new(), Vec::new());
            let mut kept_waiting = 0;
            for (number, (shard, broker, kept, weight, take)) in steps.into_iter().enumerate() {
                let delivery = if kept { Delivery::Kept } else { Delivery::Droppable };
                places.push((shard, broker, kept));
                kept_waiting += usize::from(kept);
                let gone = lanes.push(shard, BrokerId(broker), delivery, weight, number as u32);
                prop_assert!(gone.iter().all(|job| !places[*job as usize].2), "a kept message was dropped");
                dropped.extend(gone);
                prop_assert!(lanes.len() <= 5.max(kept_waiting + 5));
                if take && let Some(job) = lanes.take(shard, |_, _| Verdict::Run, &mut Vec::new()) {
                    kept_waiting -= usize::from(places[job as usize].2);
                    run.push(job);
                }
            }
            for shard in 0..2 { run.extend(take_all(&mut lanes, shard)); }
            for lane in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let of_lane = run.iter().filter(|job| { let p = places[**job as usize]; (p.0, p.1) == lane });
                prop_assert!(of_lane.is_sorted());
            }
            let mut all = [dropped, run].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..places.len() as u32).collect::<Vec<_>>());
            prop_assert_eq!(lanes.len(), 0);
        }
    }
}
