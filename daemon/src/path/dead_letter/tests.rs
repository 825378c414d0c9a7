//! Dead letters through the outboxes: how a message ends with one, and without.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::control::config::model::{OutboxLimits, OutboxStore, WhenFull};
use crate::message::Properties;
use crate::path::outbox::{Completion, Outboxes, Submitted, expire};
use crate::path::receipt::{Progress, Receipt};
use crate::store::StoreWriter;
use crate::telemetry::metrics::{BrokerMeters, Metrics};
use crate::topic::TopicFilter;

const PLANT: BrokerId = BrokerId(0);
const CLOUD: BrokerId = BrokerId(1);
const LIMITS: OutboxLimits = OutboxLimits {
    store: OutboxStore::Memory,
    messages: 10_000,
    bytes: 64 << 20,
    max_age: None,
    when_full: WhenFull::Block,
};
const DEAD: &str = "dead/celsius";

/// The brokers plant and cloud, and a handler whose dead letters go to plant.
struct World {
    outboxes: Arc<Outboxes>,
    source: Arc<BrokerMeters>,
    handler: Arc<HandlerMeters>,
    progress: Arc<Progress>,
    letters: Arc<DeadLetters>,
    subscription: Arc<Subscription>,
    /// The store is there as long as this is.
    _store: (StoreWriter, tempfile::TempDir),
}

impl World {
    fn new() -> World {
        let text = format!(
            "brokers.plant.address = \"a\"\nbrokers.cloud = {{ address = \"b\", protocol = \"3.1.1\" }}\n\
             [handlers.celsius]\nplugin = \"celsius.wasm\"\nqueue-bytes = \"1KiB\"\n\
             dead-letter = {{ broker = \"plant\", topic = \"{DEAD}\" }}\n"
        );
        let file = std::path::Path::new("/nowhere/tidegate.toml");
        let loaded = crate::control::config::load_text(file, &text, "").expect("is good");
        let metrics = Metrics::new().expect("well formed");
        let outboxes = Arc::new(Outboxes::new());
        outboxes.add(PLANT, "plant".into(), LIMITS, metrics.broker("plant"));
        outboxes.add(CLOUD, "cloud".into(), LIMITS, metrics.broker("cloud"));
        let places = Places::default();
        places.configure(&loaded.config);
        let handler = metrics.handler("celsius");
        let configured = &loaded.config.handlers[0];
        let (kept, store) = kept::Kept::testing();
        let letters = DeadLetters::of(configured, loaded.names, places, kept, Arc::clone(&handler));
        let subscription = Subscription {
            name: "inputs".into(),
            broker: CLOUD,
            topic: TopicFilter::new("#").expect("is a filter"),
            qos: Qos::AtLeastOnce,
            on_message: None,
            when: None,
            silence: None,
        };
        World {
            outboxes,
            source: metrics.broker("source"),
            handler,
            progress: Arc::default(),
            letters,
            subscription: Arc::new(subscription),
            _store: store,
        }
    }

    fn input(&self, message: Message) -> (Input, Part) {
        let receipt = Receipt::new(Arc::clone(&self.source), Arc::clone(&self.progress), message.qos, None);
        let part = receipt.split(1).next().expect("one part");
        let message = Arc::new(message);
        (Input { message, subscription: Arc::clone(&self.subscription), attempts: 2, again: None }, part)
    }

    /// A call for a message that publishes to these brokers.
    fn call(&self, message: Message, to: &[BrokerId]) {
        let (input, part) = self.input(message);
        let kept = Some(self.letters.keep(input));
        let meters = Arc::clone(&self.handler);
        let completion = Completion { kept, ..Completion::new(part, Instant::now(), meters) };
        let publishes: Vec<_> = to.iter().map(|broker| publish(*broker)).collect();
        assert!(matches!(self.outboxes.submit(publishes.into(), completion, || {}), Submitted::Done), "there is room");
    }

    /// A call that fails; what it waits for.
    fn fail(&self, message: Message) -> Option<crate::path::outbox::Room<'_>> {
        let (input, part) = self.input(message);
        let letter = self.letters.of_call(input, part, &CallError::Reject("no".to_owned()), None)?;
        self.outboxes.submit_letter(letter)
    }

    fn refuse(&self, broker: BrokerId, words: &str) {
        let (entry, _) = self.outboxes.take_next(broker).expect("is unsent");
        self.outboxes.refused(broker, entry, words);
    }

    /// The next publish, which is delivered: its topic, and the values of these properties of ours.
    fn deliver<const N: usize>(&self, broker: BrokerId, keys: [&str; N]) -> (String, [String; N]) {
        let (entry, message) = self.outboxes.take_next(broker).expect("is unsent");
        self.outboxes.delivered(broker, entry, message.qos);
        let user = message.properties.as_ref().map(|properties| properties.user.clone()).unwrap_or_default();
        let value = |key| user.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        (message.topic.to_string(), keys.map(|key| value(key).unwrap_or_default()))
    }

    fn fill(&self, broker: BrokerId, messages: usize) {
        for _ in self.outboxes.usage(broker).0..messages {
            let (_, part) = self.input(message(Qos::AtMostOnce, "filler"));
            let meters = Arc::clone(&self.handler);
            let completion = Completion::new(part, Instant::now(), meters);
            assert!(matches!(self.outboxes.submit(vec![publish(broker)].into(), completion, || {}), Submitted::Done));
        }
    }

    /// All that ended, by outcome, and the dead letters that were kept and those that were not.
    #[track_caller]
    fn check(&self, ended: &[(Outcome, u64)], kept: &[(Reason, u64)], dropped: u64) {
        let finished = self.source.counts().finished;
        let seen: Vec<_> = finished.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(seen, ended);
        let seen: Vec<_> = self.handler.dead_letters().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(seen, kept);
        assert_eq!(self.handler.dead_letters_dropped(), dropped);
    }
}

fn message(qos: Qos, topic: &str) -> Message {
    Message { broker: CLOUD, qos, ..Message::testing(topic, "21.5") }
}

fn publish(broker: BrokerId) -> Publish {
    let topic = TopicName::new("out").expect("is a name");
    let (payload, qos) = (Bytes::from_static(b"x"), Qos::AtLeastOnce);
    Publish { broker, message: Outgoing { topic, payload, qos, retain: false, properties: None, hops: None } }
}

/// What a future says when it is asked once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn a_message_that_fails_ends_once_its_dead_letter_is_delivered() {
    let world = World::new();
    assert!(world.fail(message(Qos::AtLeastOnce, "in")).is_none());
    world.check(&[], &[], 0);
    let keys = ["tidegate-reason", "tidegate-error", "tidegate-attempts", "tidegate-broker", "tidegate-topic"];
    let (topic, told) = world.deliver(PLANT, keys);
    assert_eq!(topic, DEAD);
    assert_eq!(told, ["reject", "the handler rejected the message: no", "2", "cloud", "in"]);
    world.check(&[(Outcome::DeadLetter, 1)], &[(Reason::Reject, 1)], 0);
}

#[test]
fn a_publish_that_is_refused_makes_its_message_a_dead_letter() {
    let world = World::new();
    world.call(message(Qos::AtLeastOnce, "in"), &[CLOUD, CLOUD, PLANT]);
    world.deliver(CLOUD, []);
    world.refuse(CLOUD, "not authorised");
    assert_eq!(world.outboxes.usage(PLANT).0, 1, "the call's other publishes go first");
    world.deliver(PLANT, []);
    world.check(&[], &[], 0);
    let (topic, told) = world.deliver(PLANT, ["tidegate-reason", "tidegate-error"]);
    assert_eq!(topic, DEAD);
    assert_eq!(told, ["publish_refused", "the broker cloud refuses the publish to out: not authorised"]);
    world.check(&[(Outcome::DeadLetter, 1)], &[(Reason::PublishRefused, 1)], 0);
}

#[test]
fn a_publish_that_is_given_up_makes_its_message_a_dead_letter() {
    let world = World::new();
    world.call(message(Qos::AtLeastOnce, "in"), &[CLOUD]);
    let mut given_up = false;
    while !given_up {
        let (entry, _) = world.outboxes.take_next(CLOUD).expect("is unsent");
        given_up = matches!(
            world.outboxes.connection_lost(CLOUD, Some(entry)),
            Some(crate::path::outbox::Suspect::Guilty { .. })
        );
    }
    let (_, told) = world.deliver(PLANT, ["tidegate-reason", "tidegate-error"]);
    assert_eq!(told, ["publish_poisoned", "the broker cloud ends each connection over the publish to out"]);
    world.check(&[(Outcome::DeadLetter, 1)], &[(Reason::PublishPoisoned, 1)], 0);
}

#[test]
fn what_was_configured_to_be_dropped_is_no_failure() {
    let world = World::new();
    world.call(message(Qos::AtLeastOnce, "in"), &[CLOUD]);
    world.outboxes.remove(CLOUD);
    assert_eq!(world.outboxes.usage(PLANT), (0, 0));
    world.check(&[(Outcome::DroppedPurged, 1)], &[], 0);
}

#[test]
fn a_dead_letter_that_is_not_kept_begets_no_other() {
    let world = World::new();
    assert!(world.fail(message(Qos::AtLeastOnce, "in")).is_none());
    world.refuse(PLANT, "not authorised");
    world.check(&[(Outcome::DroppedFailed, 1)], &[], 1);
    world.call(message(Qos::AtLeastOnce, "in"), &[CLOUD]);
    world.refuse(CLOUD, "not authorised");
    world.refuse(PLANT, "not authorised");
    world.check(&[(Outcome::DroppedRefused, 1), (Outcome::DroppedFailed, 1)], &[], 2);
    world.outboxes.remove(PLANT);
    assert!(world.fail(message(Qos::AtLeastOnce, "in")).is_none());
    world.check(&[(Outcome::DroppedRefused, 1), (Outcome::DroppedFailed, 2)], &[], 3);
    assert_eq!((world.outboxes.usage(PLANT), world.outboxes.usage(CLOUD)), ((0, 0), (0, 0)));
}

/// Both kinds, that of a call and that of a publish, so that each outcome shows which way its message ended.
#[tokio::test]
async fn a_dead_letter_that_becomes_too_old_ends_its_message_as_without_one() {
    let world = World::new();
    let aged = |age| OutboxLimits { max_age: Some(age), ..LIMITS };
    world.outboxes.limit(PLANT, aged(Duration::from_secs(3600)));
    assert!(world.fail(message(Qos::AtLeastOnce, "in")).is_none());
    world.call(message(Qos::AtLeastOnce, "in"), &[CLOUD]);
    world.refuse(CLOUD, "not authorised");
    assert_eq!(now(expire(Arc::clone(&world.outboxes))), None);
    assert_eq!(world.outboxes.usage(PLANT).0, 2, "they are not too old yet");
    world.check(&[], &[], 0);
    world.outboxes.limit(PLANT, aged(Duration::ZERO));
    assert_eq!(now(expire(Arc::clone(&world.outboxes))), None);
    assert_eq!(world.outboxes.usage(PLANT), (0, 0));
    world.check(&[(Outcome::DroppedRefused, 1), (Outcome::DroppedFailed, 1)], &[], 2);
}

#[test]
fn a_dead_letter_whose_broker_is_removed_ends_its_message_as_without_one() {
    let world = World::new();
    world.outboxes.limit(PLANT, OutboxLimits { messages: 2, ..LIMITS });
    assert!(world.fail(message(Qos::AtLeastOnce, "in")).is_none());
    world.call(message(Qos::AtLeastOnce, "in"), &[CLOUD]);
    world.refuse(CLOUD, "not authorised");
    let mut room = world.fail(message(Qos::AtLeastOnce, "in")).expect("waits");
    assert_eq!(now(room.admitted()), None);
    world.check(&[], &[], 0);
    world.outboxes.remove(PLANT);
    assert_eq!(now(room.admitted()), Some(()), "nothing is waited for any more");
    drop(room);
    assert_eq!((world.outboxes.usage(PLANT), world.outboxes.usage(CLOUD)), ((0, 0), (0, 0)));
    world.check(&[(Outcome::DroppedRefused, 1), (Outcome::DroppedFailed, 2)], &[], 3);
}

#[test]
fn a_dead_letter_that_comes_in_again_and_fails_begets_no_other() {
    let world = World::new();
    let by_topic = Message { broker: PLANT, ..message(Qos::AtLeastOnce, DEAD) };
    let user = vec![("tidegate-reason".to_owned(), "reject".to_owned())];
    let properties = Some(Box::new(Properties { user, ..Properties::default() }));
    let by_mark = Message { properties, ..message(Qos::AtLeastOnce, "in") };
    for message in [by_topic, by_mark] {
        assert!(world.fail(message.clone()).is_none());
        world.call(message, &[CLOUD]);
        world.refuse(CLOUD, "not authorised");
    }
    assert_eq!(world.outboxes.usage(PLANT), (0, 0));
    world.check(&[(Outcome::DroppedRefused, 2), (Outcome::DroppedFailed, 2)], &[], 4);
    // The same topic on another broker is another one.
    assert!(world.fail(message(Qos::AtLeastOnce, DEAD)).is_none());
    assert_eq!(world.outboxes.usage(PLANT).0, 1);
}

#[test]
fn a_dead_letter_that_is_on_its_way_when_its_topic_changes_begets_no_other() {
    let world = World::new();
    for broker in [PLANT, CLOUD] {
        let protocol = world.letters.places.protocol(broker);
        let (input, _part) = world.input(message(Qos::AtLeastOnce, "in"));
        let failed = Failed {
            message: &input.message,
            broker: "plant",
            handler: "celsius",
            subscription: "inputs",
            reason: Reason::Reject,
            error: "no",
            given_up: None,
            attempts: 1,
            time: SystemTime::now(),
        };
        let letter = letter::letter(&failed, TopicName::new("dead/before").expect("is a name"), protocol);
        let Outgoing { topic, payload, properties, .. } = letter;
        let message = Message { broker, topic, payload, properties, ..message(Qos::AtLeastOnce, "in") };
        assert!(world.letters.places.is_dead_letter(&message), "{protocol:?}");
    }
}

#[test]
fn where_there_is_no_room_a_runner_waits_and_a_dropped_one_leaves_the_message_open() {
    let world = World::new();
    world.fill(PLANT, LIMITS.messages);
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let mut room = world.fail(message(qos, "in")).expect("waits");
        assert_eq!(now(room.admitted()), None);
        world.deliver(PLANT, []);
        assert_eq!(now(room.admitted()), Some(()));
        drop(room);
    }
    let waiting = world.fail(message(Qos::AtLeastOnce, "in")).expect("waits");
    drop(waiting);
    world.check(&[(Outcome::Handled, 2), (Outcome::DroppedShutdown, 1)], &[], 0);
}

#[test]
fn where_nobody_can_wait_a_qos_0_message_is_dropped_and_any_other_is_left_to_the_outboxes() {
    let world = World::new();
    world.call(message(Qos::AtMostOnce, "in"), &[CLOUD]);
    world.call(message(Qos::AtLeastOnce, "in"), &[CLOUD]);
    world.fill(PLANT, LIMITS.messages);
    world.refuse(CLOUD, "not authorised");
    world.check(&[(Outcome::DroppedRefused, 1)], &[], 1);
    world.refuse(CLOUD, "not authorised");
    world.check(&[(Outcome::DroppedRefused, 1)], &[], 1);
    (0..LIMITS.messages).for_each(|_| drop(world.deliver(PLANT, [])));
    assert_eq!(world.deliver(PLANT, []).0, DEAD);
    let handled = (Outcome::Handled, LIMITS.messages as u64);
    let ended = [handled, (Outcome::DeadLetter, 1), (Outcome::DroppedRefused, 1)];
    world.check(&ended, &[(Reason::PublishRefused, 1)], 1);
}

#[test]
fn qos_0_messages_are_kept_within_a_limit() {
    let world = World::new();
    // Topic and payload of six bytes: 170 of them are within 1 KiB.
    (0..171).for_each(|_| world.call(message(Qos::AtMostOnce, "in"), &[CLOUD]));
    (0..2).for_each(|_| world.call(message(Qos::AtLeastOnce, "in"), &[CLOUD]));
    (0..173).for_each(|_| world.refuse(CLOUD, "not authorised"));
    assert_eq!(world.outboxes.usage(PLANT).0, 172);
    world.check(&[(Outcome::DroppedRefused, 1)], &[], 1);
    (0..172).for_each(|_| drop(world.deliver(PLANT, [])));
    // What was kept is let go of.
    (0..170).for_each(|_| world.call(message(Qos::AtMostOnce, "in"), &[CLOUD]));
    (0..170).for_each(|_| world.refuse(CLOUD, "not authorised"));
    assert_eq!(world.outboxes.usage(PLANT).0, 170);
}

#[test]
fn a_dead_letter_that_is_larger_than_its_outbox_goes_in_alone() {
    let world = World::new();
    let payload = Bytes::from(vec![b'x'; LIMITS.bytes]);
    assert!(world.fail(Message { payload, ..message(Qos::AtLeastOnce, "in") }).is_none());
    let waits = world.fail(message(Qos::AtLeastOnce, "in")).expect("waits");
    world.deliver(PLANT, []);
    world.check(&[(Outcome::DeadLetter, 1)], &[(Reason::Reject, 1)], 0);
    drop(waits);
}

#[test]
fn a_dead_letter_waits_where_a_call_is_rejected_and_one_that_its_outbox_drops_begets_no_other() {
    let world = World::new();
    let limits = |when_full| OutboxLimits { messages: 1, when_full, ..LIMITS };
    world.outboxes.limit(PLANT, limits(WhenFull::Reject));
    world.fill(PLANT, 1);
    let room = world.fail(message(Qos::AtLeastOnce, "in")).expect("waits");
    room.leave();
    world.deliver(PLANT, []);
    world.check(&[(Outcome::Handled, 1)], &[], 0);
    world.outboxes.limit(PLANT, limits(WhenFull::DropOldest));
    assert!(world.fail(message(Qos::AtLeastOnce, "in")).is_none(), "it displaces the one before");
    world.check(&[(Outcome::Handled, 1), (Outcome::DroppedFailed, 1)], &[], 1);
    world.deliver(PLANT, []);
    let ended = [(Outcome::Handled, 1), (Outcome::DeadLetter, 1), (Outcome::DroppedFailed, 1)];
    world.check(&ended, &[(Reason::Reject, 1)], 1);
}

/// Each dead letter displaces a publish whose message becomes one in turn, until one displaces another dead letter.
#[test]
fn dead_letters_that_displace_publishes_do_so_one_after_the_other() {
    const ROOM: usize = 2_000;
    let world = World::new();
    let limits = OutboxLimits { messages: ROOM, when_full: WhenFull::DropOldest, ..LIMITS };
    world.outboxes.limit(PLANT, limits);
    // All of them have a publish that was refused, and wait for their last one.
    for _ in 0..ROOM {
        world.call(message(Qos::AtLeastOnce, "in"), &[CLOUD, PLANT]);
        world.refuse(CLOUD, "not authorised");
    }
    world.check(&[], &[], 0);
    let submit = || assert!(world.fail(message(Qos::AtLeastOnce, "in")).is_none());
    // A small stack: a step within the step before would not fit.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 << 10);
        thread.spawn_scoped(scope, submit).expect("starts");
    });
    assert_eq!(world.outboxes.usage(PLANT).0, ROOM, "dead letters alone");
    world.check(&[(Outcome::DroppedFailed, 1)], &[], 1);
    (0..ROOM).for_each(|_| assert_eq!(world.deliver(PLANT, []).0, DEAD));
    let ended = [(Outcome::DeadLetter, ROOM as u64), (Outcome::DroppedFailed, 1)];
    world.check(&ended, &[(Reason::PublishRefused, ROOM as u64)], 1);
}
