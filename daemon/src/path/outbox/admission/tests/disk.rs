//! Outboxes on disk with a store that loses what is not synced: whatever happens, and when.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::path::outbox::queue::{Amount, Load, Stored};

const DISK: OutboxLimits = OutboxLimits { store: OutboxStore::Disk, messages: 12, ..LIMITS };
const MEMORY: OutboxLimits = OutboxLimits { messages: 12, ..LIMITS };
const TOPICS: u32 = 2;

#[derive(Clone, Debug)]
enum Happens {
    /// A call for a message of this topic publishes to these brokers.
    Offer(u32, Vec<u32>),
    /// The store syncs what was submitted first.
    Sync,
    Send(u32),
    /// The broker has the first that was sent.
    Deliver(u32),
    Lose(u32),
    /// Part of an outbox begins to be read, or what was read is brought.
    BeginLoad,
    EndLoad,
    /// The process ends, and another one begins.
    Crash,
    Store(u32, OutboxStore),
}

fn happens() -> impl Strategy<Value = Vec<Happens>> {
    let store = prop_oneof![Just(OutboxStore::Memory), Just(OutboxStore::Disk)];
    let step = prop_oneof![
        10 => (0..TOPICS, prop::collection::vec(0..BROKERS, 1..=3)).prop_map(|(topic, to)| Happens::Offer(topic, to)),
        8 => Just(Happens::Sync),
        6 => (0..BROKERS).prop_map(Happens::Send),
        6 => (0..BROKERS).prop_map(Happens::Deliver),
        1 => (0..BROKERS).prop_map(Happens::Lose),
        3 => Just(Happens::BeginLoad),
        3 => Just(Happens::EndLoad),
        1 => Just(Happens::Crash),
        1 => ((0..BROKERS), store).prop_map(|(broker, store)| Happens::Store(broker, store)),
    ];
    prop::collection::vec(step, 0..160)
}

/// A row: the number of a message, and what it weighs.
type Rows = BTreeMap<(u32, u64), (u32, usize)>;

enum Done {
    Batch(BatchId),
    BroughtIn(BrokerId, Vec<EntryId>),
}

struct Transaction {
    puts: Vec<((u32, u64), (u32, usize))>,
    done: Done,
}

#[derive(Default)]
struct Store {
    rows: Rows,
    submitted: VecDeque<Transaction>,
    later: Vec<(u32, u64)>,
    /// Numbers from these on were never used.
    next: [u64; BROKERS as usize],
}

/// What a source broker and its message know.
struct Message {
    topic: u32,
    to: Vec<u32>,
    acknowledged: bool,
}

struct Crashing {
    admission: Admission<u32>,
    store: Store,
    limits: [OutboxLimits; BROKERS as usize],
    messages: Vec<Message>,
    sent: [Vec<(EntryId, u32)>; BROKERS as usize],
    /// What each broker has, in the order in which it came first.
    arrived: [Vec<u32>; BROKERS as usize],
    reading: Option<(BrokerId, Load, Vec<Stored>, u64)>,
    now: Instant,
}

fn number_of(message: &Outgoing) -> u32 {
    std::str::from_utf8(&message.payload).expect("UTF-8").parse().expect("a number")
}

impl Crashing {
    fn new() -> Crashing {
        let limits = [DISK, MEMORY, DISK];
        let mut world = Crashing {
            admission: Admission::new(true),
            store: Store::default(),
            limits,
            messages: Vec::new(),
            sent: Default::default(),
            arrived: Default::default(),
            reading: None,
            now: Instant::now(),
        };
        world.begin();
        world
    }

    /// A process begins: it finds what the last one left.
    fn begin(&mut self) {
        self.admission = Admission::new(true);
        for broker in 0..BROKERS {
            let rows = self.store.rows.range((broker, 0)..(broker + 1, 0));
            let mut amount = Amount::default();
            let mut next = self.store.next[broker as usize];
            for ((_, number), (_, weight)) in rows {
                amount.add(*weight);
                next = next.max(number + 1);
            }
            if next > 0 {
                self.admission.found(BrokerId(broker), amount, next);
            }
            let limits = self.limits[broker as usize];
            self.step(|admission, now, changes| admission.add(BrokerId(broker), limits, now, changes));
        }
    }

    fn crash(&mut self) {
        (self.store.submitted, self.store.later, self.reading) = (VecDeque::new(), Vec::new(), None);
        self.sent.iter_mut().for_each(Vec::clear);
        self.begin();
        // The source brokers send again what they have no acknowledgement of, in its order.
        for number in 0..self.messages.len() {
            if !self.messages[number].acknowledged {
                self.offer(number as u32);
            }
        }
    }

    fn step<R>(&mut self, work: impl FnOnce(&mut Admission<u32>, Instant, &mut Vec<Change<u32>>) -> R) -> R {
        let mut changes = Vec::new();
        let result = work(&mut self.admission, self.now, &mut changes);
        self.write();
        for change in changes {
            if let Change::Ended { tag, worst, .. } = change {
                assert_eq!(worst, End::Delivered);
                self.acknowledge(tag);
            }
        }
        result
    }

    /// Submits what is settled.
    fn write(&mut self) {
        for batch in self.admission.settled() {
            let tag = self.admission.batch(batch).map(|(_, tag)| *tag).expect("is in progress");
            let written = self.admission.write(batch, self.now, |_| None).expect("it writes something");
            let puts: Vec<_> = written.publishes.iter().map(|(broker, stored)| put(broker.0, stored)).collect();
            assert!(puts.iter().all(|(_, (number, _))| *number == tag));
            // What is for brokers in memory is there before.
            for broker in &self.messages[tag as usize].to {
                let on_disk = puts.iter().any(|((other, _), _)| other == broker);
                assert!(on_disk || self.is_safe(tag, *broker), "{tag} is written before {broker} has it");
            }
            self.submit(puts, Done::Batch(batch));
        }
        let removals = self.admission.removals();
        self.store.later.extend(removals.iter().map(|removal| (removal.broker.0, removal.entry.0)));
    }

    fn submit(&mut self, puts: Vec<((u32, u64), (u32, usize))>, done: Done) {
        for ((broker, number), _) in &puts {
            assert!(*number >= self.store.next[*broker as usize], "numbers ascend");
            self.store.next[*broker as usize] = number + 1;
        }
        self.store.submitted.push_back(Transaction { puts, done });
    }

    fn sync(&mut self) {
        let Some(Transaction { puts, done }) = self.store.submitted.pop_front() else { return };
        self.store.rows.extend(puts);
        for place in self.store.later.drain(..) {
            self.store.rows.remove(&place);
        }
        match done {
            Done::Batch(batch) => self.step(|admission, _, changes| admission.synced(batch, changes)),
            Done::BroughtIn(broker, entries) => self.step(|admission, _, changes| {
                admission.stored(broker, entries.into_iter().map(|entry| (entry, None)).collect(), changes);
            }),
        }
    }

    fn has_row(&self, number: u32, broker: u32) -> bool {
        self.store.rows.range((broker, 0)..(broker + 1, 0)).any(|(_, (other, _))| *other == number)
    }

    /// Whether nothing that may happen keeps a message from a broker.
    fn is_safe(&self, number: u32, broker: u32) -> bool {
        self.arrived[broker as usize].contains(&number) || self.has_row(number, broker)
    }

    fn acknowledge(&mut self, number: u32) {
        for broker in self.messages[number as usize].to.clone() {
            assert!(self.is_safe(number, broker), "{number} is acknowledged and not safe at {broker}");
        }
        self.messages[number as usize].acknowledged = true;
    }

    fn offer(&mut self, number: u32) {
        let Message { topic, to, .. } = &self.messages[number as usize];
        let (publishes, order) = (batch(to, &number.to_string()), Some(Touch::of(topic)));
        let terms = Terms { mode: Mode::Patient, order, followed: false };
        // Every other call writes something beside.
        let effects = Effects { publishes, commit: (number % 2 == 1).then(Box::default) };
        self.step(|admission, _, changes| admission.offer(effects, terms, number, changes));
    }

    fn send(&mut self, broker: u32) {
        let Some((entry, message)) = self.admission.outbox(BrokerId(broker)).take_next() else { return };
        let number = number_of(&message);
        // What goes to the disk is sent once it is there; an outbox in memory may be brought to the disk meanwhile.
        let brought_in = self.store.submitted.iter().any(
            |transaction| matches!(&transaction.done, Done::BroughtIn(to, entries) if to.0 == broker && entries.contains(&entry)),
        );
        let on_disk = self.admission.outbox(BrokerId(broker)).on_disk().messages > 0;
        assert!(!on_disk || brought_in || self.has_row(number, broker), "{number} is sent before it is synced");
        self.sent[broker as usize].push((entry, number));
    }

    fn deliver(&mut self, broker: u32) {
        if self.sent[broker as usize].is_empty() {
            return;
        }
        let (entry, number) = self.sent[broker as usize].remove(0);
        if !self.arrived[broker as usize].contains(&number) {
            let topic = self.messages[number as usize].topic;
            let of_topic = |other: &&u32| self.messages[**other as usize].topic == topic;
            let last = self.arrived[broker as usize].iter().rev().find(of_topic);
            assert!(last.is_none_or(|last| *last < number), "{number} is overtaken by {last:?} at {broker}");
            self.arrived[broker as usize].push(number);
        }
        self.step(|admission, _, changes| admission.ended(BrokerId(broker), entry, End::Delivered, changes));
    }

    fn lose(&mut self, broker: u32) {
        self.sent[broker as usize].clear();
        self.step(|admission, _, changes| admission.connection_lost(BrokerId(broker), None, changes));
    }

    fn begin_load(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let Some((broker, load)) = self.admission.next_load() else { return };
        let rows = self.store.rows.range((broker.0, load.from)..(broker.0 + 1, 0));
        let (mut found, mut up_to) = (Vec::new(), load.end);
        for ((_, number), (message, _)) in rows {
            if found.len() == load.most.messages {
                break;
            }
            let Publish { message, .. } = publish(broker.0, &message.to_string());
            up_to = number + 1;
            found.push(Stored { id: EntryId(*number), message: Arc::new(message), handler: None, since: self.now });
        }
        if found.len() < load.most.messages {
            up_to = load.end;
        }
        self.reading = Some((broker, load, found, up_to));
    }

    fn end_load(&mut self) {
        let Some((broker, load, found, up_to)) = self.reading.take() else { return };
        let missing = self.step(|admission, _, changes| admission.loaded(broker, load, (found, up_to), changes));
        assert_eq!(missing, Amount::default(), "what is counted is there");
    }

    fn keep_in(&mut self, broker: u32, store: OutboxStore) {
        let limits = OutboxLimits { store, ..self.limits[broker as usize] };
        self.limits[broker as usize] = limits;
        let mut brought_in = Vec::new();
        self.step(|admission, now, changes| {
            admission.add(BrokerId(broker), limits, now, changes);
            brought_in = admission.begin_storing(BrokerId(broker), now, |_| None);
        });
        // In the daemon both are one step; nothing may have been settled by the first that the second must precede.
        if !brought_in.is_empty() {
            let puts = brought_in.iter().map(|stored| put(broker, stored)).collect();
            let entries = brought_in.iter().map(|stored| stored.id).collect();
            self.submit(puts, Done::BroughtIn(BrokerId(broker), entries));
        }
    }

    fn happens(&mut self, happens: Happens) {
        match happens {
            Happens::Offer(topic, to) => {
                let number = self.messages.len() as u32;
                self.messages.push(Message { topic, to, acknowledged: false });
                self.offer(number);
            }
            Happens::Sync => self.sync(),
            Happens::Send(broker) => self.send(broker),
            Happens::Deliver(broker) => self.deliver(broker),
            Happens::Lose(broker) => self.lose(broker),
            Happens::BeginLoad => self.begin_load(),
            Happens::EndLoad => self.end_load(),
            Happens::Crash => self.crash(),
            Happens::Store(broker, store) => self.keep_in(broker, store),
        }
    }

    /// Everything that is held up goes on.
    fn settle(&mut self) {
        for _ in 0..self.messages.len() * 8 + 8 {
            self.sync();
            self.begin_load();
            self.end_load();
            for broker in 0..BROKERS {
                self.send(broker);
                self.deliver(broker);
            }
        }
    }
}

fn put(broker: u32, stored: &Stored) -> ((u32, u64), (u32, usize)) {
    ((broker, stored.id.0), (number_of(&stored.message), stored.message.weight()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens, and whenever the process ends: nothing is acknowledged that is not safe everywhere, nothing that goes to
    /// the disk is sent before it is synced or written before what is for brokers in memory is there, the messages of a topic
    /// come first to each broker in their order, and everything comes in the end and leaves nothing behind.
    #[test]
    fn nothing_acknowledged_is_lost_whenever_the_process_ends(steps in happens()) {
        let mut world = Crashing::new();
        for step in steps {
            world.happens(step);
        }
        (0..BROKERS).for_each(|broker| world.lose(broker));
        world.settle();
        for (number, message) in world.messages.iter().enumerate() {
            prop_assert!(message.acknowledged, "{} is left", number);
            for broker in &message.to {
                prop_assert!(world.arrived[*broker as usize].contains(&(number as u32)));
            }
        }
        let gone: Vec<_> = world.store.later.drain(..).collect();
        gone.iter().for_each(|place| _ = world.store.rows.remove(place));
        prop_assert_eq!(&world.store.rows, &Rows::new());
        for broker in 0..BROKERS {
            let outbox = world.admission.outbox(BrokerId(broker));
            prop_assert_eq!((outbox.messages(), outbox.bytes(), outbox.on_disk()), (0, 0, Amount::default()));
        }
        prop_assert!(world.admission.has_settled_all());
    }
}
