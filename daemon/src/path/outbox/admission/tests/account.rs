//! Outboxes in memory: whatever happens, against a naive account.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Offer(Vec<u32>, bool),
    Deliver(u32),
    Send(u32),
    Lose(u32),
    WithdrawFirst,
    Command(u32),
    TakeBack(prop::sample::Index),
    Remove(u32),
    Limit(u32, OutboxLimits),
    Pass(u32),
}

fn limits() -> impl Strategy<Value = OutboxLimits> {
    let when_full = prop_oneof![Just(WhenFull::Block), Just(WhenFull::DropOldest), Just(WhenFull::Reject)];
    let max_age = prop::option::of((1_u32..20).prop_map(|seconds| SECOND * seconds));
    (1_usize..6, when_full, max_age).prop_map(|(messages, when_full, max_age)| OutboxLimits {
        messages,
        when_full,
        max_age,
        ..LIMITS
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (prop::collection::vec(0..BROKERS, 1..=4), any::<bool>()).prop_map(|(to, patient)| Step::Offer(to, patient)),
        10 => (0..BROKERS).prop_map(Step::Deliver),
        4 => (0..BROKERS).prop_map(Step::Send),
        2 => (0..BROKERS).prop_map(Step::Lose),
        2 => Just(Step::WithdrawFirst),
        4 => (0..BROKERS).prop_map(Step::Command),
        2 => any::<prop::sample::Index>().prop_map(Step::TakeBack),
        1 => (0..BROKERS).prop_map(Step::Remove),
        3 => (0..BROKERS, limits()).prop_map(|(broker, limits)| Step::Limit(broker, limits)),
        4 => (0_u32..6).prop_map(Step::Pass),
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
    /// The worst end of its publishes that was seen, if not all of them were delivered.
    worst: Option<End>,
    ends: Vec<Option<End>>,
}

/// A publish in an outbox, as a naive account has it.
#[derive(Clone, Copy, Debug)]
struct Inside {
    number: usize,
    since: Instant,
    sent: bool,
}

struct World {
    bench: Bench,
    known: Vec<Known>,
    limits: [Option<OutboxLimits>; BROKERS as usize],
    /// What is in each outbox, in order.
    inside: [Vec<Inside>; BROKERS as usize],
    /// The most that an outbox may hold: less only after its limits were lowered, more only for one batch.
    last_left: [u64; BROKERS as usize],
    offered: [u64; BROKERS as usize],
    /// As somebody sees the outboxes who looks only at what changed.
    gauges: [(usize, u64, usize); BROKERS as usize],
}

impl World {
    fn new() -> World {
        World {
            bench: Bench::of(&[LIMITS; BROKERS as usize]),
            known: Vec::new(),
            limits: [Some(LIMITS); BROKERS as usize],
            inside: Default::default(),
            last_left: Default::default(),
            offered: Default::default(),
            gauges: Default::default(),
        }
    }

    fn is_present(&self, broker: u32) -> bool {
        self.limits[broker as usize].is_some()
    }

    fn count(&mut self, brokers: &[u32]) {
        (0..BROKERS).filter(|broker| brokers.contains(broker)).for_each(|broker| self.offered[broker as usize] += 1);
    }

    fn offer(&mut self, brokers: &[u32], mode: Mode, command: bool) {
        let number = self.known.len();
        let open: Vec<u32> = brokers.iter().copied().filter(|broker| self.is_present(*broker)).collect();
        let purged = (open.len() < brokers.len()).then_some(End::Purged);
        let known = Known { publishes: brokers.len(), open: open.clone(), worst: purged, ..Known::default() };
        self.known.push(known);
        let room_everywhere = (0..BROKERS).all(|broker| self.has_room(broker, &open));
        let rejects =
            |broker: &u32| self.limits[*broker as usize].is_some_and(|limits| limits.when_full == WhenFull::Reject);
        let rejectable = mode == Mode::Rejectable && open.iter().any(rejects);
        let offered = self.bench.offer_as(mode, batch(brokers, &number.to_string()), number as u32);
        let (mut waits, mut id) = (None, None);
        match offered {
            Offered::Taken(taken) => {
                self.count(&open);
                id = Some(taken);
                self.note();
                self.come_in(number);
            }
            Offered::Waits(waiting) => {
                assert!(!room_everywhere && !rejectable, "there was room, or it must not wait");
                self.count(&open);
                (waits, id) = (Some(waiting), Some(waiting));
                self.note();
            }
            Offered::Purged(tag) => {
                assert!(self.known[number].open.is_empty());
                self.known[tag as usize].ends.push(Some(End::Purged));
            }
            Offered::Rejected(tag, full) => {
                assert!(rejectable && !self.has_room(full.broker.0, &open), "{full:?}");
                let broker = full.broker.index();
                self.offered[broker] += 1;
                self.known[number].open.clear();
                self.known[tag as usize].ends.push(None);
                self.note();
            }
        }
        self.known[number].waits = waits;
        self.known[number].command = id.filter(|_| command);
    }

    /// Whether what an offer names of a broker fits at once, and nobody waits before it.
    fn has_room(&self, broker: u32, open: &[u32]) -> bool {
        let wanted = open.iter().filter(|other| **other == broker).count();
        let inside = self.inside[broker as usize].len();
        let most = self.limits[broker as usize].map_or(0, |limits| limits.messages);
        let waits = |known: &Known| known.waits.is_some() && known.open.contains(&broker);
        wanted == 0 || (inside == 0 || inside + wanted <= most) && !self.known.iter().any(waits)
    }

    /// A batch is in the outboxes.
    fn come_in(&mut self, number: usize) {
        for broker in self.known[number].open.clone() {
            let inside = &mut self.inside[broker as usize];
            inside.push(Inside { number, since: self.bench.now, sent: false });
        }
        for broker in 0..BROKERS as usize {
            let own = self.inside[broker].iter().filter(|inside| inside.number == number).count();
            let most = self.limits[broker].map_or(0, |limits| limits.messages);
            let all = self.inside[broker].len();
            assert!(own == 0 || all <= most || all == own, "{broker}: {all} of {most}");
        }
    }

    fn send(&mut self, broker: u32) -> Option<EntryId> {
        let (entry, message) = self.bench.admission.outbox(BrokerId(broker)).take_next()?;
        let number: usize = std::str::from_utf8(&message.payload).expect("a number").parse().expect("a number");
        let next = self.inside[broker as usize].iter_mut().find(|inside| !inside.sent).expect("something is unsent");
        assert_eq!(next.number, number, "the oldest leaves first");
        next.sent = true;
        Some(entry)
    }

    fn deliver(&mut self, broker: u32) {
        let Some(entry) = self.send(broker) else { return };
        let inside = &mut self.inside[broker as usize];
        let place = inside.iter().rposition(|inside| inside.sent).expect("was sent");
        let number = inside.remove(place).number;
        assert!(number as u64 >= self.last_left[broker as usize], "overtaken");
        self.last_left[broker as usize] = number as u64;
        self.known[number].delivered += 1;
        self.close(number, broker, None);
        self.bench.end(broker, entry, End::Delivered);
        self.note();
    }

    fn lose(&mut self, broker: u32) {
        self.inside[broker as usize].iter_mut().for_each(|inside| inside.sent = false);
        self.last_left[broker as usize] = 0;
        self.bench.lose(broker);
        self.note();
    }

    fn close(&mut self, number: usize, broker: u32, end: Option<End>) {
        let known = &mut self.known[number];
        let place = known.open.iter().position(|open| *open == broker).expect("is open");
        known.open.remove(place);
        known.worst = known.worst.max(end);
    }

    fn withdraw(&mut self, number: usize) {
        let Some(id) = self.known[number].waits.take() else { return };
        let withdrawn = self.bench.step(|admission, _, changes| admission.withdraw(id, changes));
        assert_eq!(withdrawn, [(id, number as u32)]);
        self.known[number].ends.push(None);
        self.known[number].open.clear();
        self.note();
    }

    fn take_back(&mut self, number: usize) {
        let Some(id) = self.known[number].command else { return };
        let Some(broker) = self.known[number].open.first().copied() else { return };
        // Whether it may be taken back is the outbox's own test.
        let back = self.bench.step(|admission, _, changes| admission.take_back(id, BrokerId(broker), changes));
        if back.is_some() {
            self.known[number].ends.push(None);
            self.known[number].open.clear();
            self.known[number].waits = None;
            self.inside[broker as usize].retain(|inside| inside.number != number);
        }
        self.note();
    }

    fn remove(&mut self, broker: u32) {
        self.limits[broker as usize] = None;
        self.inside[broker as usize].clear();
        let open = |known: &mut Known| {
            let before = known.open.len();
            known.open.retain(|open| *open != broker);
            if known.open.len() < before {
                known.worst = known.worst.max(Some(End::Purged));
            }
            before - known.open.len()
        };
        let expected: usize = self.known.iter_mut().map(open).sum();
        let removed = self.bench.step(|admission, _, changes| admission.remove(BrokerId(broker), changes));
        assert_eq!(removed, expected);
        self.note();
    }

    fn limit(&mut self, broker: u32, limits: OutboxLimits) {
        let aged = self.limits[broker as usize].is_some_and(|limits| limits.max_age.is_some());
        self.limits[broker as usize] = Some(limits);
        if !aged {
            let now = self.bench.now;
            self.inside[broker as usize].iter_mut().for_each(|inside| inside.since = now);
        }
        self.bench.limit(broker, limits);
        self.note();
    }

    /// What followed from a step, in its order.
    fn note(&mut self) {
        for change in std::mem::take(&mut self.bench.changes) {
            match change {
                Change::Admitted(id) => {
                    let number = self.known.iter().position(|known| known.waits == Some(id)).expect("it waits");
                    self.known[number].waits = None;
                    self.come_in(number);
                }
                Change::Full(full) => {
                    let inside = self.inside[full.broker.index()].len();
                    assert!(inside > 0, "an empty outbox is never full");
                }
                Change::Dropped { broker, message, dropped, .. } => {
                    let number: usize =
                        std::str::from_utf8(&message.payload).expect("UTF-8").parse().expect("a number");
                    let inside = &mut self.inside[broker.index()];
                    let place = inside.iter().position(|inside| !inside.sent).expect("something is unsent");
                    let gone = inside.remove(place);
                    assert_eq!(gone.number, number, "the oldest goes");
                    let limits = self.limits[broker.index()].expect("is there");
                    match dropped.reason {
                        DropReason::Expired => {
                            let age = self.bench.now - gone.since;
                            assert!(limits.max_age.is_some_and(|most| age >= most), "{age:?} of {limits:?}");
                        }
                        DropReason::Displaced => assert_eq!(limits.when_full, WhenFull::DropOldest),
                    }
                    self.close(number, broker.0, Some(dropped.reason.end()));
                }
                Change::Ended { tag, worst, .. } => self.known[tag as usize].ends.push(Some(worst)),
            }
        }
    }

    fn check(&mut self) {
        for broker in self.bench.admission.changed() {
            let (offered, waiting) = (self.bench.admission.offered(broker), self.bench.admission.waiting(broker));
            let messages = self.bench.admission.outbox(broker).messages();
            self.gauges[broker.index()] = (messages, offered, waiting);
        }
        for broker in 0..BROKERS {
            let inside = &self.inside[broker as usize];
            let waits = |known: &&Known| known.waits.is_some() && known.open.contains(&broker);
            let waiting = self.known.iter().filter(waits).count();
            let expected = (inside.len(), self.offered[broker as usize], waiting);
            assert_eq!(self.gauges[broker as usize], expected, "{broker}");
            assert!(inside.is_empty() || self.is_present(broker));
            let max_age = self.limits[broker as usize].and_then(|limits| limits.max_age);
            let oldest = inside.iter().find(|inside| !inside.sent);
            let expiry = max_age.and_then(|max_age| Some(oldest?.since + max_age));
            assert_eq!(self.bench.admission.next_expiry(BrokerId(broker)), expiry, "{broker}");
        }
        for known in &self.known {
            assert_eq!(known.open.is_empty(), !known.ends.is_empty(), "ends with its last publish");
            if let [Some(end)] = known.ends[..] {
                assert_eq!(end == End::Delivered, known.delivered == known.publishes);
                assert_eq!(end, known.worst.unwrap_or(End::Delivered));
            }
            assert!(known.ends.len() <= 1);
        }
    }
}

proptest! {
    /// Whatever happens: an outbox exceeds its limits by one batch at most that came while it was empty, every batch ends
    /// exactly once and with the worst end of its publishes, batches leave for a broker in the order in which they were
    /// offered, only what is unsent and the oldest is dropped, nothing waits that has room or waits for ever, and who looks
    /// only at what changed sees all.
    #[test]
    fn nothing_is_overfilled_overtaken_or_forgotten(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Offer(brokers, patient) => {
                    world.offer(&brokers, if patient { Mode::Patient } else { Mode::Rejectable }, false);
                }
                Step::Command(broker) => world.offer(&[broker], Mode::Rejectable, true),
                Step::Deliver(broker) => world.deliver(broker),
                Step::Send(broker) => _ = world.send(broker),
                Step::Lose(broker) => world.lose(broker),
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
                Step::Limit(broker, limits) => world.limit(broker, limits),
                Step::Pass(seconds) => {
                    world.bench.pass(SECOND * seconds);
                    world.note();
                    let (now, next) = (world.bench.now, world.bench.admission.first_expiry());
                    prop_assert!(next.is_none_or(|next| next > now), "something is too old");
                }
            }
            world.check();
        }
        (0..BROKERS).for_each(|broker| world.lose(broker));
        for _ in 0..world.known.len() * 4 {
            (0..BROKERS).for_each(|broker| world.deliver(broker));
        }
        world.check();
        prop_assert!(world.known.iter().all(|known| known.ends.len() == 1 && known.waits.is_none()));
    }
}
