//! Whatever happens, each message is called once with success, and those of a topic in order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use proptest::prelude::*;

use super::super::lanes::{Delivery, Limits, Place, Verdict};
use super::*;
use crate::control::config::model::Overload;
use crate::path::park::replay::{Brought, Reading, Replay};

const SHARDS: usize = 2;

/// After every other replacement.
const MORE_SHARDS: usize = 3;
const TOPICS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    topic: usize,
    turn: usize,
}

fn place(job: &Job) -> Place {
    among(SHARDS, job)
}

fn among(shards: usize, job: &Job) -> Place {
    let broker = BrokerId(u32::try_from(job.topic / 2).expect("is small"));
    Place { shard: job.topic % shards, broker, topic: job.topic as u64, delivery: Delivery::Kept, weight: 1 }
}

#[derive(Clone, Debug)]
enum Event {
    Comes(usize),
    Take(usize),
    Succeed(usize),
    Fail(usize),
    Pause,
    Resume,
    Trial,
    Park,
    /// The oldest write is synced.
    Sync,
    ReadBegins,
    /// From this place on, what was found is not brought after all: something is in the way of one.
    ReadEnds(Option<usize>),
    /// What a call did is safe, and what it handled is in the park no more.
    Safe(prop::sample::Index),
    HandOver,
    /// The broker's connection is lost: its messages wait for the next CONNACK.
    Lost(u32),
    /// It finds the session gone.
    Decided(u32),
    /// The broker whose messages were parked by an earlier process is configured again.
    Known,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..TOPICS).prop_map(Event::Comes),
        8 => (0..MORE_SHARDS).prop_map(Event::Take),
        4 => (0..MORE_SHARDS).prop_map(Event::Succeed),
        4 => (0..MORE_SHARDS).prop_map(Event::Fail),
        2 => Just(Event::Pause),
        2 => Just(Event::Resume),
        1 => Just(Event::Trial),
        6 => Just(Event::Park),
        6 => Just(Event::Sync),
        3 => Just(Event::ReadBegins),
        3 => prop::option::weighted(0.2, 0_usize..3).prop_map(Event::ReadEnds),
        3 => any::<prop::sample::Index>().prop_map(Event::Safe),
        1 => Just(Event::HandOver),
        1 => (0_u32..2).prop_map(Event::Lost),
        1 => (0_u32..2).prop_map(Event::Decided),
        1 => Just(Event::Known),
    ]
}

/// A reading of the disk that is under way: what it began with, and whether it is for a trial.
struct Snapshot {
    reading: Reading,
    found: Vec<(u64, Job)>,
    trial: bool,
}

/// The gate with a disk and runners that do what is asked.
struct World {
    gate: Gate<Job>,
    shards: usize,
    replay: Replay,
    next: u64,
    now: Instant,
    paused: bool,
    /// The disk, and what is on its way there.
    disk: BTreeMap<u64, Job>,
    writes: VecDeque<(u64, Job)>,
    calls: [Option<Held<Job>>; MORE_SHARDS],
    /// The calls belong to a handler that is replaced: the other's begin after them.
    replaced: bool,
    /// Calls that succeeded, and are not yet safe.
    unsafe_yet: Vec<Held<Job>>,
    snapshot: Option<Snapshot>,
    /// Which brokers are: what is parked of another's messages is passed over, and none come.
    known: [bool; 2],
    lost: [bool; 2],
    came: [usize; TOPICS],
    done: [Vec<usize>; TOPICS],
}

impl World {
    /// An earlier process has parked messages of these topics, all of them of a broker that is not known now.
    fn new(parked: &[usize]) -> World {
        let mut world = World::with(World::empty(SHARDS));
        for topic in parked {
            world.next += 1;
            world.disk.insert(world.next, Job { topic: *topic, turn: world.came[*topic] });
            world.came[*topic] += 1;
        }
        if !parked.is_empty() {
            world.known[1] = false;
            world.start_replay();
        }
        world
    }

    fn with(gate: Gate<Job>) -> World {
        World {
            gate,
            shards: SHARDS,
            replay: Replay::default(),
            next: 1,
            now: Instant::now(),
            paused: false,
            disk: BTreeMap::new(),
            writes: VecDeque::new(),
            calls: [const { None }; MORE_SHARDS],
            replaced: false,
            unsafe_yet: Vec::new(),
            snapshot: None,
            known: [true; 2],
            lost: [false; 2],
            came: [0; TOPICS],
            done: [const { Vec::new() }; TOPICS],
        }
    }

    fn empty(shards: usize) -> Gate<Job> {
        Gate::new(shards, Limits { messages: 1000, bytes: 1000, overload: Overload::DropNewest }, Mode::Open)
    }

    fn stay(&mut self, held: impl IntoIterator<Item = Held<Job>>) {
        for held in held {
            self.replay.stays(held.ticket.number.expect("what is in the park has a number"));
        }
    }

    fn take(&mut self, shard: usize) -> bool {
        if shard >= self.shards
            || self.calls[shard].is_some()
            || (self.replaced && self.calls.iter().any(Option::is_some))
        {
            return false;
        }
        self.replaced = false;
        let next = &mut self.next;
        let number = || {
            *next += 1;
            *next
        };
        let lost = self.lost;
        let verdict = |job: &Job| if lost[job.topic / 2] { Verdict::Hold } else { Verdict::Run };
        self.calls[shard] = self.gate.take(shard, self.now, verdict, &mut Vec::new(), number);
        assert!(
            self.gate.mode() != Mode::Parking || self.calls[shard].as_ref().is_none_or(|held| held.ticket.trial),
            "nothing is called while parking, but for a trial"
        );
        self.calls[shard].is_some()
    }

    fn end(&mut self, shard: usize, ok: bool) {
        let Some(held) = self.calls[shard].take() else { return };
        if ok {
            self.done[held.job.topic].push(held.job.turn);
            if held.ticket.trial && !self.paused && self.gate.mode() == Mode::Parking {
                self.start_replay();
            }
            self.unsafe_yet.push(held);
            return;
        }
        let at = among(self.shards, &held.job);
        let stays =
            if self.replaced { self.gate.put_first(at, held) } else { self.gate.put_off(shard, at, held, self.now) };
        self.stay(stays);
    }

    fn start_replay(&mut self) {
        let shards = self.shards;
        self.gate.replay(|job| among(shards, job));
        self.replay.restart();
    }

    fn park(&mut self) -> bool {
        let lost = self.lost;
        let verdict = |job: &Job| if lost[job.topic / 2] { Verdict::Hold } else { Verdict::Run };
        let before = self.gate.behind();
        let Some(held) = self.gate.take_to_park(self.now, verdict, &mut Vec::new()) else { return false };
        assert_eq!(self.gate.behind(), before - 1);
        let number = held.ticket.number.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        self.writes.push_back((number, held.job));
        true
    }

    fn sync(&mut self) -> bool {
        let Some((number, job)) = self.writes.pop_front() else { return false };
        assert!(self.disk.insert(number, job).is_none(), "a number is given once");
        true
    }

    fn read_begins(&mut self, trial: bool) {
        let may = if trial {
            let idle = self.calls.iter().all(Option::is_none) && self.gate.callable() == 0 && self.writes.is_empty();
            self.gate.mode() == Mode::Parking && !self.paused && idle
        } else {
            self.gate.mode() == Mode::Replaying && self.writes.is_empty()
        };
        if !may {
            return;
        }
        if trial {
            self.replay.restart();
        }
        if let Some(reading) = self.replay.read() {
            let found = self.disk.range(reading.from..).take(reading.messages.min(3)).map(|(n, job)| (*n, *job));
            self.snapshot = Some(Snapshot { reading, found: found.collect(), trial });
        }
    }

    fn read_ends(&mut self, busy: Option<usize>) {
        let Some(Snapshot { reading, found, trial }) = self.snapshot.take() else { return };
        if trial && (self.gate.mode() != Mode::Parking || self.paused) {
            return;
        }
        let numbers: Vec<(u64, usize)> = found.iter().map(|(number, _)| (*number, 1)).collect();
        let job = |number: u64| found.iter().find(|(known, _)| *known == number).expect("was found").1;
        let (gate, shards, known) = (&self.gate, self.shards, self.known);
        let behind = |job: Job| trial && gate.stands_before(job.topic as u64);
        let takes = |number| known[job(number).topic / 2] && !behind(job(number));
        let brought = self.replay.found(reading, &numbers, if trial { 1 } else { usize::MAX }, takes);
        match brought {
            Brought::Stale => {}
            Brought::End if trial => {}
            Brought::End => self.gate.open(|job| among(shards, job)),
            Brought::Some(numbers) => {
                for (at, number) in numbers.into_iter().enumerate() {
                    if busy.is_some_and(|busy| at >= busy) {
                        self.replay.stays(number);
                        continue;
                    }
                    self.gate.replayed(among(self.shards, &job(number)), number, job(number), trial);
                }
            }
        }
    }

    fn safe(&mut self, which: usize) {
        let held = self.unsafe_yet.remove(which);
        if held.ticket.replayed {
            let number = held.ticket.number.expect("has one");
            assert_eq!(self.disk.remove(&number), Some(held.job));
            self.replay.ended(number);
        }
    }

    fn pause(&mut self) {
        let shards = self.shards;
        self.paused = true;
        if self.gate.mode() != Mode::Parking {
            let stays = self.gate.park(|job| among(shards, job));
            self.replay.interrupt();
            self.stay(stays);
        }
    }

    fn resume(&mut self) {
        self.paused = false;
        if self.gate.mode() == Mode::Parking {
            self.start_replay();
        }
    }

    fn look_again(&mut self) {
        self.known = [true; 2];
        if self.gate.mode() == Mode::Open {
            self.start_replay();
        } else {
            self.replay.restart();
        }
    }

    fn hand_over(&mut self) {
        let shards = SHARDS + MORE_SHARDS - self.shards;
        self.shards = shards;
        let mut successor = World::empty(shards);
        let was_parking = self.gate.mode() == Mode::Parking;
        let stays = self.gate.hand_over(&mut successor, self.paused, |job| among(shards, job));
        self.stay(stays);
        if was_parking {
            self.replay.restart();
        } else {
            self.replay.interrupt();
        }
        self.gate = successor;
        self.replaced = true;
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Comes(topic) if !self.known[*topic / 2] => {}
            Event::Comes(topic) => {
                let job = Job { topic: *topic, turn: self.came[*topic] };
                self.came[*topic] += 1;
                assert!(self.gate.push(among(self.shards, &job), job).is_empty());
            }
            Event::Take(shard) => drop(self.take(*shard)),
            Event::Succeed(shard) => self.end(*shard, true),
            Event::Fail(shard) => self.end(*shard, false),
            Event::Pause => self.pause(),
            Event::Resume => self.resume(),
            Event::Trial => self.read_begins(true),
            Event::Park => drop(self.park()),
            Event::Sync => drop(self.sync()),
            Event::ReadBegins => self.read_begins(false),
            Event::ReadEnds(busy) => self.read_ends(*busy),
            Event::Safe(which) if !self.unsafe_yet.is_empty() => self.safe(which.index(self.unsafe_yet.len())),
            Event::Safe(_) => {}
            Event::HandOver => self.hand_over(),
            Event::Lost(broker) => self.lost[*broker as usize] = true,
            Event::Decided(broker) => self.lost[*broker as usize] = false,
            Event::Known => self.look_again(),
        }
    }

    /// All faults are over, and the handler goes on until nothing is left to do.
    fn settle(&mut self) {
        self.lost = [false; 2];
        self.resume();
        self.look_again();
        for _ in 0..10_000 {
            while self.sync() {}
            while !self.unsafe_yet.is_empty() {
                self.safe(0);
            }
            self.read_begins(false);
            self.read_ends(None);
            for shard in 0..MORE_SHARDS {
                self.end(shard, true);
                self.take(shard);
            }
            let idle = self.calls.iter().all(Option::is_none) && self.gate.len() == 0;
            if idle && self.gate.mode() == Mode::Open && self.unsafe_yet.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest: {:?}, {} wait", self.gate.mode(), self.gate.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn each_message_is_handled_once_and_in_the_order_of_its_topic(
        parked in prop::collection::vec(2..TOPICS, 0..6),
        events in prop::collection::vec(event(), 0..150),
    ) {
        let mut world = World::new(&parked);
        for event in &events {
            world.happens(event);
        }
        world.settle();
        for topic in 0..TOPICS {
            prop_assert_eq!(&world.done[topic], &(0..world.came[topic]).collect::<Vec<_>>(), "topic {}", topic);
        }
        prop_assert!(world.disk.is_empty() && world.replay.out() == 0);
    }
}

fn job(turn: usize) -> Job {
    Job { topic: 0, turn }
}

fn taken(gate: &mut Gate<Job>, number: u64) -> Option<Held<Job>> {
    gate.take(0, Instant::now(), |_| Verdict::Run, &mut Vec::new(), || number)
}

#[test]
fn a_call_that_fails_while_parking_is_parked_before_those_that_waited_behind_it() {
    let mut gate = World::empty(SHARDS);
    for turn in 0..3 {
        gate.push(place(&job(turn)), job(turn));
    }
    let first = taken(&mut gate, 7).expect("waits");
    assert!(gate.park(place).is_empty());
    assert!(taken(&mut gate, 8).is_none(), "nothing is called while parking");
    let parked = |gate: &mut Gate<Job>| {
        let held = gate.take_to_park(Instant::now(), |_| Verdict::Run, &mut Vec::new()).expect("waits");
        (held.ticket.number, held.job.turn)
    };
    assert_eq!([parked(&mut gate), parked(&mut gate)], [(None, 1), (None, 2)]);
    assert!(gate.put_off(0, place(&job(0)), first, Instant::now()).is_none());
    assert!(gate.stands_before(0));
    assert_eq!(parked(&mut gate), (Some(7), 0));
    assert!(!gate.stands_before(0));
}

#[test]
fn what_comes_while_parked_ones_are_called_waits_until_the_last_of_them_is_brought() {
    let mut gate = World::empty(SHARDS);
    gate.park(place);
    gate.replay(place);
    gate.push(place(&job(1)), job(1));
    assert!(taken(&mut gate, 9).is_none(), "it would overtake what is parked");
    gate.replayed(place(&job(0)), 3, job(0), false);
    assert_eq!(taken(&mut gate, 9).expect("is brought").job, job(0));
    gate.open(place);
    assert_eq!(taken(&mut gate, 9).expect("is let in").job, job(1));
}
