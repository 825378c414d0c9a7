//! What waits for one handler, and who goes next.
//!
//! Pure: the time is told; no I/O, no lock. Decides which QoS 0 message goes when the queue is full. Whether a message may
//! start now is asked of the caller, who knows connections and limits. A message that is to be called again is put off:
//! what comes after it in its topic waits behind it, and all else passes (`held.rs`).

use std::collections::VecDeque;
use std::time::Instant;

use super::held::{Held, TopicKey};
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

/// A job that waits.
pub(super) struct Queued<J> {
    pub(super) job: J,
    pub(super) topic: TopicKey,
    delivery: Delivery,
    weight: usize,
    /// Ascending in the order of coming, over all lanes.
    pub(super) number: i64,
    /// It was called and comes again.
    again: bool,
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
    /// Topics whose messages wait behind one that is to be called again.
    held: Held<J>,
    /// Whether these are asked before the lanes the next time: they take turns, so that neither starves the other.
    held_first: bool,
    /// What was taken last, while it may be put off.
    taken: Option<Taken>,
}

/// What is known of a job that was taken.
#[derive(Clone, Copy)]
struct Taken {
    topic: TopicKey,
    delivery: Delivery,
    weight: usize,
    number: i64,
}

impl<J> Shard<J> {
    fn new() -> Shard<J> {
        Shard { lanes: Vec::new(), turn: 0, held: Held::new(), held_first: true, taken: None }
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

    fn take_next(
        &mut self,
        now: Instant,
        verdict: &mut impl FnMut(&J) -> Verdict,
        discarded: &mut Vec<Queued<J>>,
    ) -> Option<Queued<J>> {
        let held_first = std::mem::replace(&mut self.held_first, true);
        if held_first && let Some(found) = self.held.take(now, verdict, discarded) {
            self.held_first = false;
            return Some(found);
        }
        let found = self.take_from_lanes(verdict, discarded);
        if held_first { found } else { found.or_else(|| self.held.take(now, verdict, discarded)) }
    }

    fn take_from_lanes(
        &mut self,
        verdict: &mut impl FnMut(&J) -> Verdict,
        discarded: &mut Vec<Queued<J>>,
    ) -> Option<Queued<J>> {
        let count = self.lanes.len();
        for step in 0..count {
            let place = (self.turn + step) % count;
            while let Some(head) = self.lanes[place].jobs.front() {
                if let Some(behind) = self.held.behind(head.topic) {
                    behind.extend(self.lanes[place].jobs.pop_front());
                    continue;
                }
                let verdict = verdict(&head.job);
                if verdict == Verdict::Hold {
                    break;
                }
                let Some(head) = self.lanes[place].jobs.pop_front() else { break };
                if verdict == Verdict::Run {
                    self.turn = place + 1;
                    return Some(head);
                }
                discarded.push(head);
            }
        }
        None
    }
}

impl Place {
    fn queued<J>(self, job: J, number: i64) -> Queued<J> {
        let topic = TopicKey { broker: self.broker, topic: self.topic };
        Queued { job, topic, delivery: self.delivery, weight: self.weight, number, again: false }
    }
}

/// Where a job belongs, and what it counts.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its shard.
    pub shard: usize,
    /// Its broker.
    pub broker: BrokerId,
    /// A number that stands for broker and topic: two topics with the same one only wait for each other.
    pub topic: u64,
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

impl Load {
    fn count(&mut self, weight: usize, comes: bool) {
        if comes {
            self.messages += 1;
            self.bytes += weight;
        } else {
            self.messages -= 1;
            self.bytes -= weight;
        }
    }
}

/// The queue of one handler.
pub struct Lanes<J> {
    shards: Vec<Shard<J>>,
    limits: Limits,
    all: Load,
    droppable: Load,
    again: Load,
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
            again: Load::default(),
            newest: 0,
            oldest: 0,
        }
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.all.messages
    }

    /// Messages among those that wait which were called and come again.
    pub fn put_off_count(&self) -> usize {
        self.again.messages
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
        let queued = place.queued(job, self.newest);
        self.count(&queued, true);
        self.shards[place.shard].lane(place.broker).push_back(queued);
        dropped
    }

    /// Puts jobs, which are in order, before all that wait: those of a queue that this one takes the place of. Whatever
    /// room there is, since they had room before.
    pub fn prepend(&mut self, jobs: impl DoubleEndedIterator<Item = (Place, J)>) {
        for (place, job) in jobs.rev() {
            self.oldest -= 1;
            let queued = place.queued(job, self.oldest);
            self.count(&queued, true);
            self.shards[place.shard].lane(place.broker).push_front(queued);
        }
    }

    /// Puts jobs, which are in order, behind all that wait, whatever room there is.
    pub fn append(&mut self, jobs: impl Iterator<Item = (Place, J)>) {
        for (place, job) in jobs {
            self.newest += 1;
            let queued = place.queued(job, self.newest);
            self.count(&queued, true);
            self.shards[place.shard].lane(place.broker).push_back(queued);
        }
    }

    /// The next job of a shard that may start: one whose time to be called again has come, or what waits behind such a one, and
    /// the others, by turns and taking turns between brokers. `verdict` is asked about the first of each topic that is held and of
    /// each lane; what it discards is put into `discarded`. What was taken before has ended, unless it was put off.
    pub fn take(
        &mut self,
        shard: usize,
        now: Instant,
        mut verdict: impl FnMut(&J) -> Verdict,
        discarded: &mut Vec<J>,
    ) -> Option<J> {
        let place = &mut self.shards[shard];
        place.held.resume(now);
        place.taken = None;
        let mut gone = Vec::new();
        let found = place.take_next(now, &mut verdict, &mut gone);
        for queued in gone {
            self.count(&queued, false);
            discarded.push(queued.job);
        }
        let found = found?;
        self.count(&found, false);
        let Queued { topic, delivery, weight, number, .. } = found;
        let place = &mut self.shards[shard];
        place.held.calls(topic);
        place.taken = Some(Taken { topic, delivery, weight, number });
        Some(found.job)
    }

    /// The job that was taken last from this shard is to be called again, not before `due`. What comes after it in its topic
    /// waits behind it.
    pub fn put_off(&mut self, shard: usize, job: J, due: Instant) {
        let Some(Taken { topic, delivery, weight, number }) = self.shards[shard].taken.take() else {
            debug_assert!(false, "only what was taken is put off");
            return;
        };
        let queued = Queued { job, topic, delivery, weight, number, again: true };
        self.count(&queued, true);
        self.shards[shard].held.put_off(queued, due);
    }

    /// When something may start that may not yet, because it was put off.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        self.shards.iter().filter_map(|shard| shard.held.next_due(now)).min()
    }

    /// Takes out what waits of a broker's messages and `goes` names, wherever it waits; the rest stays in order.
    pub fn discard(&mut self, broker: BrokerId, goes: impl Fn(&J) -> bool) -> Vec<J> {
        let mut discarded = Vec::new();
        for shard in &mut self.shards {
            discarded.extend(shard.held.discard(|queued| queued.topic.broker == broker && goes(&queued.job)));
            let Some(lane) = shard.lanes.iter_mut().find(|lane| lane.broker == broker) else { continue };
            for queued in std::mem::take(&mut lane.jobs) {
                if goes(&queued.job) {
                    discarded.push(queued);
                } else {
                    lane.jobs.push_back(queued);
                }
            }
        }
        discarded.iter().for_each(|queued| self.count(queued, false));
        discarded.into_iter().map(|queued| queued.job).collect()
    }

    /// Whether a job of this topic waits that `fits`.
    pub fn holds(&self, topic: u64, fits: impl Fn(&J) -> bool) -> bool {
        let fits = |queued: &Queued<J>| queued.topic.topic == topic && fits(&queued.job);
        let in_lanes = |shard: &Shard<J>| shard.lanes.iter().any(|lane| lane.jobs.iter().any(fits));
        self.shards.iter().any(|shard| in_lanes(shard) || shard.held.oldest(fits).is_some())
    }

    /// Takes everything out, in the order of coming.
    pub fn clear(&mut self) -> Vec<J> {
        (self.all, self.droppable, self.again) = (Load::default(), Load::default(), Load::default());
        let all = self.shards.iter_mut().flat_map(|shard| {
            let lanes = shard.lanes.iter_mut().flat_map(|lane| std::mem::take(&mut lane.jobs));
            shard.held.clear().chain(lanes).collect::<Vec<_>>()
        });
        let mut queued: Vec<Queued<J>> = all.collect();
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

    /// Looks at each lane, and each topic that is held, up to its first QoS 0 message: those before it are bounded by the
    /// receive maximum.
    fn take_oldest_droppable(&mut self) -> Option<J> {
        let droppable = |queued: &Queued<J>| queued.delivery == Delivery::Droppable;
        let oldest = self.shards.iter().enumerate().flat_map(|(place, shard)| {
            let held = shard.held.oldest(droppable).map(|(number, key)| (number, place, Where::Held(key)));
            let lanes = shard.lanes.iter().enumerate().filter_map(move |(lane, Lane { jobs, .. })| {
                let found = jobs.iter().position(droppable)?;
                Some((jobs[found].number, place, Where::Lane(lane, found)))
            });
            lanes.chain(held)
        });
        let (number, shard, place) = oldest.min_by_key(|(number, _, _)| *number)?;
        let shard = &mut self.shards[shard];
        let queued = match place {
            Where::Held(key) => shard.held.remove(key, number),
            Where::Lane(lane, found) => shard.lanes[lane].jobs.remove(found),
        }?;
        self.count(&queued, false);
        Some(queued.job)
    }

    fn count(&mut self, queued: &Queued<J>, comes: bool) {
        self.all.count(queued.weight, comes);
        if queued.delivery == Delivery::Droppable {
            self.droppable.count(queued.weight, comes);
        }
        if queued.again {
            self.again.count(queued.weight, comes);
        }
    }
}

/// Where a job waits in its shard.
enum Where {
    Held(TopicKey),
    /// The lane, and the place in it.
    Lane(usize, usize),
}

#[cfg(test)]
mod tests;
