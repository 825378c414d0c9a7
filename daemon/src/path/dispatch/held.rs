//! Topics of one shard whose messages wait behind one that is to be called again.
//!
//! Pure: the time is told; no I/O, no lock. Part of `lanes.rs`, which counts what waits and asks whether a job may start. A
//! shard's jobs are called one at a time, so that the last one taken is the one that is put off.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use smallvec::SmallVec;

use super::lanes::{Queued, Verdict};
use crate::message::BrokerId;

/// What stands for a topic of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TopicKey {
    pub(super) broker: BrokerId,
    /// A hash: two topics with the same one only wait for each other.
    pub(super) topic: u64,
}

/// When a topic goes on, and the number of its first message, so that of two at the same time the older goes first.
type Due = (Instant, i64);

struct Topic<J> {
    /// In order. Empty only while its last message is being called.
    jobs: VecDeque<Queued<J>>,
    /// None while one of its messages is being called.
    due: Option<Due>,
}

/// The topics that are held, and when each goes on.
pub(super) struct Held<J> {
    topics: HashMap<TopicKey, Topic<J>>,
    /// Of every topic with a due time.
    order: BTreeSet<(Due, TopicKey)>,
    /// The topic of the job that was taken last, until the next is taken.
    called: Option<TopicKey>,
}

impl<J> Held<J> {
    /// No topic.
    pub(super) fn new() -> Held<J> {
        Held { topics: HashMap::new(), order: BTreeSet::new(), called: None }
    }

    /// A job of this topic is taken: it may be put off.
    pub(super) fn calls(&mut self, topic: TopicKey) {
        self.called = Some(topic);
    }

    /// The job that was taken last has ended, unless it was put off: what waits behind it may go.
    pub(super) fn resume(&mut self, now: Instant) {
        let Some(key) = self.called.take() else { return };
        let Some(topic) = self.topics.get_mut(&key) else { return };
        match topic.jobs.front() {
            _ if topic.due.is_some() => {}
            Some(first) => {
                let due = (now, first.number);
                topic.due = Some(due);
                self.order.insert((due, key));
            }
            None => drop(self.topics.remove(&key)),
        }
    }

    /// The job that was taken last comes again, at `due`, before what came after it.
    pub(super) fn put_off(&mut self, queued: Queued<J>, due: Instant) {
        let (key, due) = (queued.topic, (due, queued.number));
        let topic = self.topics.entry(key).or_insert_with(|| Topic { jobs: VecDeque::new(), due: None });
        topic.jobs.push_front(queued);
        if let Some(earlier) = topic.due.replace(due) {
            self.order.remove(&(earlier, key));
        }
        self.order.insert((due, key));
    }

    /// What waits of this topic, where it is held: what comes later belongs behind it.
    pub(super) fn behind(&mut self, topic: TopicKey) -> Option<&mut VecDeque<Queued<J>>> {
        if self.topics.is_empty() { None } else { self.topics.get_mut(&topic).map(|topic| &mut topic.jobs) }
    }

    /// The first job, by due time, that may start. What `verdict` discards is put into `discarded`.
    pub(super) fn take(
        &mut self,
        now: Instant,
        verdict: &mut impl FnMut(&J) -> Verdict,
        discarded: &mut Vec<Queued<J>>,
    ) -> Option<Queued<J>> {
        // What holds back one message of a broker, its limit or its lost connection, holds back the others.
        let mut holding: SmallVec<[BrokerId; 4]> = SmallVec::new();
        let mut after = None;
        while let Some((due, key)) = self.next_after(after).filter(|((due, _), _)| *due <= now) {
            after = Some((due, key));
            if holding.contains(&key.broker) {
                continue;
            }
            while let Some(first) = self.topics.get(&key).and_then(|topic| topic.jobs.front()) {
                let verdict = verdict(&first.job);
                if verdict == Verdict::Hold {
                    holding.push(key.broker);
                    break;
                }
                let Some(first) = self.topics.get_mut(&key).and_then(|topic| topic.jobs.pop_front()) else { break };
                if verdict == Verdict::Run {
                    self.order.remove(&(due, key));
                    if let Some(topic) = self.topics.get_mut(&key) {
                        topic.due = None;
                    }
                    return Some(first);
                }
                discarded.push(first);
            }
            self.forget_empty(key);
        }
        None
    }

    /// When the next topic goes on that does not yet.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.order.iter().map(|((due, _), _)| *due).find(|due| *due > now)
    }

    /// Takes out what `goes` names; the rest stays in order.
    pub(super) fn discard(&mut self, goes: impl Fn(&Queued<J>) -> bool) -> Vec<Queued<J>> {
        let mut discarded = Vec::new();
        let keys: Vec<TopicKey> = self.topics.keys().copied().collect();
        for key in keys {
            let Some(topic) = self.topics.get_mut(&key) else { continue };
            for queued in std::mem::take(&mut topic.jobs) {
                if goes(&queued) {
                    discarded.push(queued);
                } else {
                    topic.jobs.push_back(queued);
                }
            }
            self.forget_empty(key);
        }
        discarded.sort_unstable_by_key(|queued| queued.number);
        discarded
    }

    /// The oldest job that `fits`, which is taken out.
    pub(super) fn oldest(&self, fits: impl Fn(&Queued<J>) -> bool) -> Option<(i64, TopicKey)> {
        let oldest = |(key, topic): (&TopicKey, &Topic<J>)| {
            let queued = topic.jobs.iter().find(|queued| fits(queued))?;
            Some((queued.number, *key))
        };
        self.topics.iter().filter_map(oldest).min()
    }

    /// Takes the job with this number out of a topic.
    pub(super) fn remove(&mut self, key: TopicKey, number: i64) -> Option<Queued<J>> {
        let jobs = &mut self.topics.get_mut(&key)?.jobs;
        let place = jobs.iter().position(|queued| queued.number == number)?;
        let queued = jobs.remove(place);
        self.forget_empty(key);
        queued
    }

    /// Takes everything out, in no order.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = Queued<J>> + use<J> {
        (self.order, self.called) = (BTreeSet::new(), None);
        std::mem::take(&mut self.topics).into_values().flat_map(|topic| topic.jobs)
    }

    fn next_after(&self, after: Option<(Due, TopicKey)>) -> Option<(Due, TopicKey)> {
        use std::ops::Bound::{Excluded, Unbounded};
        match after {
            Some(after) => self.order.range((Excluded(after), Unbounded)).next().copied(),
            None => self.order.first().copied(),
        }
    }

    /// A topic of which nothing waits is held no more; while one of its messages is being called it is held again when that
    /// is put off.
    fn forget_empty(&mut self, key: TopicKey) {
        if self.topics.get(&key).is_some_and(|topic| topic.jobs.is_empty())
            && let Some(due) = self.topics.remove(&key).and_then(|topic| topic.due)
        {
            self.order.remove(&(due, key));
        }
    }
}
