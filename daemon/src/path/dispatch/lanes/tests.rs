//! What waits, against a plain list, and one example for each rule.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn lanes(messages: usize, bytes: usize, overload: Overload) -> Lanes<u32> {
    Lanes::new(2, Limits { messages, bytes, overload })
}

fn take_all(lanes: &mut Lanes<u32>, shard: usize) -> Vec<u32> {
    std::iter::from_fn(|| lanes.take(shard, Instant::now(), |_| Verdict::Run, &mut Vec::new())).collect()
}

fn at(shard: usize, broker: BrokerId, delivery: Delivery, weight: usize) -> Place {
    Place { shard, broker, topic: 0, delivery, weight }
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
    assert_eq!(lanes.take(0, Instant::now(), hold_a, &mut Vec::new()), Some(2));
    assert_eq!(lanes.take(0, Instant::now(), hold_a, &mut Vec::new()), None);
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
    assert_eq!(lanes.take(0, Instant::now(), verdict, &mut discarded), Some(3));
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

const SECOND: Duration = Duration::from_secs(1);

fn of_topic(topic: u64) -> Place {
    Place { topic, ..at(0, A, Delivery::Kept, 1) }
}

#[test]
fn a_topic_waits_behind_its_message_that_comes_again_and_others_pass() {
    let mut lanes = lanes(9, 99, Overload::DropNewest);
    let start = Instant::now();
    for (topic, job) in [(1, 1), (1, 2), (2, 3), (1, 4)] {
        lanes.push(of_topic(topic), job);
    }
    let take = |lanes: &mut Lanes<u32>, now| lanes.take(0, now, |_| Verdict::Run, &mut Vec::new());
    assert_eq!(take(&mut lanes, start), Some(1));
    lanes.put_off(0, 1, start + SECOND);
    assert_eq!((lanes.len(), lanes.put_off_count()), (4, 1));
    assert_eq!(take(&mut lanes, start), Some(3));
    assert_eq!(take(&mut lanes, start), None);
    assert_eq!(lanes.next_due(start), Some(start + SECOND));
    lanes.push(of_topic(1), 5);
    assert_eq!(take(&mut lanes, start), None);

    let later = start + SECOND;
    assert_eq!(lanes.next_due(later), None, "it is due");
    assert_eq!(take(&mut lanes, later), Some(1));
    assert_eq!(lanes.put_off_count(), 0);
    lanes.put_off(0, 1, later + SECOND);
    assert_eq!(take(&mut lanes, later), None);
    let all: Vec<u32> = std::iter::from_fn(|| take(&mut lanes, later + SECOND)).collect();
    assert_eq!(all, [1, 2, 4, 5]);
    assert_eq!(lanes.next_due(start), None);
}

#[test]
fn a_held_topic_makes_way_by_the_overload_policy_and_keeps_its_order_when_another_queue_takes_over() {
    let mut queue = lanes(3, 99, Overload::DropOldest);
    let start = Instant::now();
    let droppable = |topic| Place { delivery: Delivery::Droppable, ..of_topic(topic) };
    (1..=3).for_each(|job| assert!(queue.push(droppable(1), job).is_empty()));
    let take = |lanes: &mut Lanes<u32>| lanes.take(0, start, |_| Verdict::Run, &mut Vec::new());
    assert_eq!(take(&mut queue), Some(1));
    queue.put_off(0, 1, start + SECOND);
    assert_eq!(take(&mut queue), None);
    assert_eq!(queue.push(droppable(2), 4), [1], "the oldest, wherever it waits");
    assert_eq!(queue.put_off_count(), 0);
    assert_eq!(queue.clear(), [2, 3, 4]);
}

#[test]
fn what_holds_back_a_broker_holds_back_what_comes_again() {
    let mut lanes = lanes(9, 99, Overload::DropNewest);
    let start = Instant::now();
    lanes.push(of_topic(1), 1);
    lanes.push(of_topic(1), 2);
    assert_eq!(lanes.take(0, start, |_| Verdict::Run, &mut Vec::new()), Some(1));
    lanes.put_off(0, 1, start);
    assert_eq!(lanes.take(0, start, |_| Verdict::Hold, &mut Vec::new()), None);
    let mut discarded = Vec::new();
    let goes = |job: &u32| if *job == 1 { Verdict::Discard } else { Verdict::Run };
    assert_eq!(lanes.take(0, start, goes, &mut discarded), Some(2));
    assert_eq!(discarded, [1]);
}

#[derive(Clone, Debug)]
enum Step {
    Push {
        shard: usize,
        broker: u32,
        topic: u64,
        kept: bool,
        weight: usize,
    },
    Take(usize),
    /// What was taken last from the shard comes again after so many seconds.
    PutOff(usize, u32),
    /// So many seconds pass.
    Pass(u32),
    Discard(u32),
    /// Another queue takes this one's place, after so many jobs came there already.
    TakeOver(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let push = (0..2usize, 0..3u32, 0..3u64, any::<bool>(), 0..6usize);
    let push = push.prop_map(|(shard, broker, topic, kept, weight)| Step::Push { shard, broker, topic, kept, weight });
    prop_oneof![
        20 => push,
        14 => (0..2usize).prop_map(Step::Take),
        7 => (0..2usize, 0..4u32).prop_map(|(shard, wait)| Step::PutOff(shard, wait)),
        4 => (1..3u32).prop_map(Step::Pass),
        1 => (0..3u32).prop_map(Step::Discard),
        1 => (0..4usize).prop_map(Step::TakeOver),
    ]
}

/// A topic of a shard.
type Key = (usize, u32, u64);

/// The jobs so far, each with its place, and what became of them.
struct Account {
    lanes: Lanes<u32>,
    now: Instant,
    places: Vec<Place>,
    waiting: Vec<u32>,
    gone: Vec<u32>,
    run: Vec<u32>,
    /// What was taken last from each shard.
    taken: [Option<u32>; 2],
    /// The job of a topic that was put off last, and until when.
    off: BTreeMap<Key, (u32, Instant)>,
}

impl Account {
    fn new(lanes: Lanes<u32>) -> Account {
        let (now, off) = (Instant::now(), BTreeMap::new());
        Account { lanes, now, places: vec![], waiting: vec![], gone: vec![], run: vec![], taken: [None; 2], off }
    }

    fn key(&self, job: u32) -> Key {
        let place = self.places[job as usize];
        (place.shard, place.broker.0, place.topic)
    }

    fn push(&mut self, place: Place) {
        let job = self.places.len() as u32;
        self.places.push(place);
        self.waiting.push(job);
        let gone = self.lanes.push(place, job);
        assert!(gone.iter().all(|job| self.places[*job as usize].delivery == Delivery::Droppable), "a kept one goes");
        self.ended(gone);
    }

    fn ended(&mut self, jobs: Vec<u32>) {
        self.waiting.retain(|job| !jobs.contains(job));
        self.gone.extend(jobs);
    }

    /// The first of each topic of a shard: whether it surely may start, and whether it may at all.
    fn firsts(&self, shard: usize) -> Vec<(u32, bool, bool)> {
        let mut keys = Vec::new();
        let mut firsts = Vec::new();
        for job in self.waiting.iter().filter(|job| self.places[**job as usize].shard == shard) {
            let key = self.key(*job);
            if keys.contains(&key) {
                continue;
            }
            keys.push(key);
            firsts.push(match self.off.get(&key) {
                Some((off, until)) if off == job => (*job, *until <= self.now, *until <= self.now),
                // What it waited for was dropped: it may go on now or when that would have come again.
                Some((off, until)) if self.gone.contains(off) => (*job, *until <= self.now, true),
                _ => (*job, true, true),
            });
        }
        firsts
    }

    fn take(&mut self, shard: usize) {
        let firsts = self.firsts(shard);
        self.taken[shard] = self.lanes.take(shard, self.now, |_| Verdict::Run, &mut Vec::new());
        match self.taken[shard] {
            Some(job) => {
                assert!(firsts.iter().any(|(first, _, may)| *first == job && *may), "{job} of {firsts:?}");
                let key = self.key(job);
                self.off.remove(&key);
                self.waiting.retain(|other| *other != job);
                self.run.push(job);
            }
            None => assert!(!firsts.iter().any(|(_, surely, _)| *surely), "{firsts:?}"),
        }
    }

    fn put_off(&mut self, shard: usize, wait: u32) {
        let Some(job) = self.taken[shard].take() else { return };
        let until = self.now + wait * SECOND;
        self.lanes.put_off(shard, job, until);
        self.off.insert(self.key(job), (job, until));
        self.run.retain(|other| *other != job);
        let place = self.waiting.iter().position(|other| *other > job).unwrap_or(self.waiting.len());
        self.waiting.insert(place, job);
    }

    fn take_over(&mut self, empty: Lanes<u32>, came: usize) {
        let mut old = std::mem::replace(&mut self.lanes, empty);
        let before = self.waiting.clone();
        for number in 0..came {
            self.push(at(number % 2, BrokerId(1000), Delivery::Kept, 1));
        }
        let jobs = old.clear();
        assert_eq!(jobs, before, "in the order of coming");
        assert_eq!((old.len(), old.put_off_count(), old.next_due(self.now)), (0, 0, None));
        let places = self.places.clone();
        self.lanes.prepend(jobs.into_iter().map(|job| (places[job as usize], job)));
        (self.taken, self.off) = ([None; 2], BTreeMap::new());
    }
}

proptest! {
    /// Against a plain list: of each topic only the first that waits may start, once its time has come, and any that may
    /// does; droppable messages respect the limits; every job comes out exactly once: run, dropped or discarded. Also
    /// across queues that take one another's place.
    #[test]
    fn every_job_comes_out_once_and_in_order(
        steps in prop::collection::vec(step(), 0..200),
        oldest in any::<bool>(),
    ) {
        let overload = if oldest { Overload::DropOldest } else { Overload::DropNewest };
        let mut account = Account::new(lanes(5, 20, overload));
        for step in steps {
            match step {
                Step::Push { shard, broker, topic, kept, weight } => {
                    let delivery = if kept { Delivery::Kept } else { Delivery::Droppable };
                    let waiting = account.lanes.len();
                    account.push(Place { topic, ..at(shard, BrokerId(broker * 1000), delivery, weight) });
                    prop_assert!(kept || account.lanes.len() <= waiting.max(5));
                }
                Step::Take(shard) => account.take(shard),
                Step::PutOff(shard, wait) => account.put_off(shard, wait),
                Step::Pass(seconds) => account.now += seconds * SECOND,
                Step::Discard(broker) => {
                    let goes = |job: &u32| job.is_multiple_of(2);
                    let mut gone = account.lanes.discard(BrokerId(broker * 1000), goes);
                    gone.sort_unstable();
                    let places = &account.places;
                    let of_broker = |job: &&u32| places[**job as usize].broker.0 == broker * 1000 && goes(job);
                    let mut expected: Vec<u32> = account.waiting.iter().filter(of_broker).copied().collect();
                    expected.sort_unstable();
                    prop_assert_eq!(&gone, &expected);
                    account.ended(gone);
                }
                Step::TakeOver(came) => account.take_over(lanes(5, 20, overload), came),
            }
            prop_assert_eq!(account.lanes.len(), account.waiting.len());
            let comes_again = account.off.values().filter(|(job, _)| account.waiting.contains(job)).count();
            // A queue that takes over does not know what was called before.
            prop_assert_eq!(account.lanes.put_off_count(), comes_again);
        }
        account.now += 9 * SECOND;
        for shard in 0..2 {
            (0..=account.waiting.len()).for_each(|_| account.take(shard));
        }
        let Account { lanes, places, waiting, gone, run, now, .. } = account;
        prop_assert!(waiting.is_empty());
        let loads = [lanes.all, lanes.droppable, lanes.again].map(|load| (load.messages, load.bytes));
        prop_assert_eq!((loads, lanes.next_due(now)), ([(0, 0); 3], None));
        let mut all = [gone, run].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..places.len() as u32).collect::<Vec<_>>());
    }
}
