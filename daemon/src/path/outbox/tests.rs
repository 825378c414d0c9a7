//! The outboxes as others see them: brokers that come and go, commands, and the ends that messages get.

mod commits;
mod disk;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::brokers::BrokerNames;
use crate::control::admin::resource::{PublishResult, Step};
use crate::control::config::model::{OutboxStore, WhenFull};
use crate::message::Outgoing;
use crate::path::receipt::{Outcome, Progress, Receipt};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::received::testing::message;
use crate::telemetry::trace::{Trace, Tracer, Watch, Watched};
use crate::telemetry::wanted::Wanted;
use crate::topic::TopicName;

const PLANT: BrokerId = BrokerId(0);
/// Not the next number: brokers between them may be gone.
const CLOUD: BrokerId = BrokerId(5);

struct World {
    outboxes: Arc<Outboxes>,
    metrics: Metrics,
    source: Arc<BrokerMeters>,
    progress: Arc<Progress>,
}

impl World {
    fn new() -> World {
        let metrics = Metrics::new().expect("well formed");
        let outboxes = Arc::new(Outboxes::new());
        outboxes.add(PLANT, "plant".into(), OutboxLimits::default(), metrics.broker("plant"));
        outboxes.add(CLOUD, "cloud".into(), OutboxLimits::default(), metrics.broker("cloud"));
        World { outboxes, source: metrics.broker("source"), metrics, progress: Arc::default() }
    }

    /// A call for a message of its own, whose publishes are offered.
    fn call(&self, publishes: Vec<Publish>) -> Option<Room<'_>> {
        self.traced_call(publishes, None)
    }

    fn traced_call(&self, publishes: Vec<Publish>, trace: Option<Arc<Trace>>) -> Option<Room<'_>> {
        let receipt = Receipt::new(Arc::clone(&self.source), Arc::clone(&self.progress), Qos::AtMostOnce, None);
        let receipt = receipt.traced(trace);
        let part = receipt.split(1).next().expect("one part");
        let meters = self.metrics.handler("celsius");
        let completion = Completion::new(part, Instant::now(), meters);
        match self.outboxes.submit(publishes.into(), completion, || {}) {
            Submitted::Waits(room) => Some(room),
            Submitted::Done => None,
            Submitted::Rejected(_, full) => panic!("{full}"),
        }
    }

    /// Fills the outbox of a broker; how many publishes that took.
    fn fill(&self, broker: BrokerId) -> usize {
        (0..capacity()).filter(|_| self.call(vec![publish(broker)]).is_none()).count()
    }

    fn finished(&self, outcome: Outcome) -> u64 {
        self.source.counts().finished[outcome as usize].1
    }

    fn deliver(&self, broker: BrokerId) {
        let (entry, message) = self.outboxes.take_next(broker).expect("something is unsent");
        self.outboxes.delivered(broker, entry, message.qos);
    }
}

/// Messages that an outbox takes by default.
fn capacity() -> usize {
    OutboxLimits::default().messages
}

fn publish(broker: BrokerId) -> Publish {
    let topic = TopicName::new("t").expect("valid");
    let payload = Bytes::from_static(b"x");
    Publish {
        broker,
        message: Outgoing { topic, payload, qos: Qos::ExactlyOnce, retain: false, properties: None, hops: None },
    }
}

/// What a future says when it is asked once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Waits for what ends by itself, unless something is broken.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it ends")
}

#[test]
fn a_command_is_told_what_was_sent_or_why_it_is_refused() {
    let world = World::new();
    let mut commands = [(); 2].map(|()| world.outboxes.publish(publish(PLANT)).expect("is not rejected"));
    assert_eq!(now(commands[0].end()), None);
    let [(first, _), (second, _)] = [(); 2].map(|()| world.outboxes.take_next(PLANT).expect("is unsent"));
    world.outboxes.delivered(PLANT, first, Qos::AtLeastOnce);
    world.outboxes.refused(PLANT, second, "not authorised");
    assert_eq!(now(commands[0].end()), Some(PublishEnd::Delivered(Qos::AtLeastOnce)));
    assert_eq!(now(commands[1].end()), Some(PublishEnd::Refused("not authorised".to_owned())));
    assert_eq!(now(commands[1].end()), Some(PublishEnd::Refused("not authorised".to_owned())), "asked again");
    assert!(!commands[0].take_back(), "the broker has it");
}

#[test]
fn a_command_that_is_postponed_goes_on_waiting() {
    let world = World::new();
    let mut command = world.outboxes.publish(publish(PLANT)).expect("is not rejected");
    let (entry, _) = world.outboxes.take_next(PLANT).expect("is unsent");
    assert!(world.outboxes.postponed(PLANT, entry));
    assert_eq!(now(command.end()), None);
    assert!(command.take_back(), "the broker said that it has not taken it");
    assert_eq!(world.outboxes.usage(PLANT), (0, 0));
}

#[test]
fn a_command_takes_back_what_was_not_sent_alone() {
    let world = World::new();
    let mut command = world.outboxes.publish(publish(PLANT)).expect("is not rejected");
    let taken = world.outboxes.take_next(PLANT).expect("is unsent");
    assert!(!command.take_back(), "it is on its way");
    world.outboxes.put_back(PLANT, taken.0);
    assert!(command.take_back(), "it was not sent after all");
    assert!(!command.take_back(), "it is gone");
    assert_eq!(now(command.end()), Some(PublishEnd::Purged));
    assert!(world.outboxes.take_next(PLANT).is_none());

    let mut command = world.outboxes.publish(publish(PLANT)).expect("is not rejected");
    world.outboxes.take_next(PLANT).expect("is unsent");
    world.outboxes.connection_lost(PLANT, None);
    assert!(!command.take_back(), "the broker may have it");
    world.deliver(PLANT);
    assert_eq!(now(command.end()), Some(PublishEnd::Delivered(Qos::ExactlyOnce)));
}

#[test]
fn a_command_that_goes_away_withdraws_what_waits_for_room_and_nothing_else() {
    let world = World::new();
    let inside = world.outboxes.publish(publish(PLANT)).expect("is not rejected");
    let filled = world.fill(PLANT);
    assert_eq!(filled, capacity() - 1);
    let mut outside = world.outboxes.publish(publish(PLANT)).expect("is not rejected");
    drop(inside);
    assert_eq!(world.outboxes.usage(PLANT).0, capacity(), "what is in stays");
    let last = world.outboxes.publish(publish(PLANT)).expect("is not rejected");
    drop(last);
    (0..capacity()).for_each(|_| world.deliver(PLANT));
    assert_eq!(world.outboxes.usage(PLANT).0, 1, "the one that waited, and not the one that went away");
    world.deliver(PLANT);
    assert_eq!(now(outside.end()), Some(PublishEnd::Delivered(Qos::ExactlyOnce)));
}

#[test]
fn a_removed_broker_ends_what_waits_as_purged_and_every_message_ends_once() {
    let world = World::new();
    let filled = world.fill(PLANT);
    let mut room = world.call(vec![publish(PLANT), publish(CLOUD)]).expect("there is no room");
    let mut command = world.outboxes.publish(publish(PLANT)).expect("is not rejected");
    assert_eq!(now(room.admitted()), None);

    assert_eq!(world.outboxes.remove(PLANT), filled + 2);
    assert_eq!(now(command.end()), Some(PublishEnd::Purged));
    assert_eq!(now(room.admitted()), Some(()), "what is for the other broker is in");
    drop(room);
    assert_eq!(world.finished(Outcome::DroppedPurged), filled as u64);
    world.deliver(CLOUD);
    assert_eq!(world.finished(Outcome::DroppedPurged), filled as u64 + 1, "with the worst of its ends");

    assert!(world.call(vec![publish(PLANT)]).is_none(), "nothing waits for a broker that is gone");
    assert_eq!(now(world.outboxes.publish(publish(PLANT)).expect("is not rejected").end()), Some(PublishEnd::Purged));
    assert!(!world.outboxes.publish(publish(BrokerId(99))).expect("is not rejected").take_back());
    assert_eq!(world.outboxes.remove(PLANT), 0);
    let counts = world.source.counts();
    let finished: u64 = counts.finished.iter().map(|(_, count)| count).sum();
    assert_eq!((finished, counts.in_progress), (counts.received, 0));
    assert_eq!(counts.finished[Outcome::DroppedPurged as usize].1, counts.received);
    assert_eq!(world.progress.open(), 0);
}

#[test]
fn a_broker_that_is_added_again_starts_empty_and_forgets_what_its_name_owed() {
    let world = World::new();
    world.call(vec![publish(PLANT)]);
    let (old, _) = world.outboxes.take_next(PLANT).expect("is unsent");
    world.outboxes.remove(PLANT);
    world.metrics.forget_broker("plant");
    let meters = world.metrics.broker("plant");
    world.outboxes.add(PLANT, "plant".into(), OutboxLimits::default(), Arc::clone(&meters));
    world.call(vec![publish(PLANT)]);
    world.outboxes.delivered(PLANT, old, Qos::AtLeastOnce);
    assert_eq!((world.outboxes.usage(PLANT).0, meters.outbox.messages.get()), (1, 1), "it was the old one's");
    world.deliver(PLANT);
    assert_eq!((world.outboxes.usage(PLANT).0, meters.outbox.messages.get()), (0, 0));
}

#[test]
fn a_step_touches_the_gauges_of_its_brokers_alone() {
    let world = World::new();
    let (plant, cloud) = (world.metrics.broker("plant"), world.metrics.broker("cloud"));
    cloud.outbox.messages.set(-1);
    world.call(vec![publish(PLANT)]);
    assert_eq!((plant.outbox.messages.get(), cloud.outbox.messages.get()), (1, -1));
    world.deliver(PLANT);
    assert_eq!((plant.outbox.messages.get(), cloud.outbox.messages.get()), (0, -1));
    world.call(vec![publish(CLOUD)]);
    assert_eq!(cloud.outbox.messages.get(), 1);
}

#[test]
fn what_is_left_goes_in_when_there_is_room_and_what_is_dropped_does_not() {
    let world = World::new();
    let filled = world.fill(PLANT);
    world.call(vec![publish(PLANT)]).expect("there is no room").leave();
    drop(world.call(vec![publish(PLANT)]).expect("there is no room"));
    assert_eq!(world.finished(Outcome::DroppedShutdown), 1);
    (0..=filled).for_each(|_| world.deliver(PLANT));
    assert!(world.outboxes.take_next(PLANT).is_none());
    assert_eq!(world.finished(Outcome::Handled), filled as u64 + 1);
}

#[tokio::test]
async fn an_offer_is_told_also_when_it_waits_for_room() {
    let world = World::new();
    let filled = world.fill(PLANT) as u64;
    assert_eq!((world.outboxes.offered(PLANT), world.outboxes.offered(CLOUD)), (filled, 0));
    in_time(world.outboxes.offered_beyond(PLANT, filled - 1)).await;
    let waiters = [(); 2].map(|()| {
        let outboxes = Arc::clone(&world.outboxes);
        tokio::spawn(async move { outboxes.offered_beyond(PLANT, filled).await })
    });
    tokio::task::yield_now().await;
    world.deliver(PLANT);
    world.call(vec![publish(CLOUD)]);
    tokio::task::yield_now().await;
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()), "nothing was offered to it");
    world.call(vec![publish(PLANT)]);
    let room = world.call(vec![publish(PLANT)]).expect("there is no room");
    assert_eq!(world.outboxes.offered(PLANT), filled + 2);
    for waiter in waiters {
        in_time(waiter).await.expect("ends");
    }
    drop(room);
    world.outboxes.remove(PLANT);
    assert_eq!(world.outboxes.offered(PLANT), filled + 2, "it never falls");
}

#[tokio::test]
async fn who_waits_for_a_removed_broker_goes_on_once_it_is_there_again() {
    let world = World::new();
    world.outboxes.remove(PLANT);
    let ready = tokio::spawn({
        let outboxes = Arc::clone(&world.outboxes);
        async move { outboxes.ready(PLANT).await }
    });
    tokio::task::yield_now().await;
    world.call(vec![publish(PLANT)]);
    tokio::task::yield_now().await;
    assert!(!ready.is_finished());
    world.outboxes.add(PLANT, "plant".into(), OutboxLimits::default(), world.metrics.broker("plant"));
    world.call(vec![publish(PLANT)]);
    in_time(ready).await.expect("ends");
}

fn watched() -> (Tracer, Watch) {
    let names = BrokerNames::default();
    ["plant", "1", "2", "3", "4", "cloud"].into_iter().for_each(|name| {
        names.number(name);
    });
    let tracer = Tracer::new(names);
    let watch = tracer.watch(Wanted::default(), None);
    (tracer, watch)
}

/// What a watch says now, but for the message's receipt.
fn steps(watch: &mut Watch) -> Vec<Step> {
    let next = std::iter::from_fn(|| match now(watch.next()).flatten() {
        Some(Watched::Step(step)) => Some(step.step),
        Some(Watched::Missed(missed)) => panic!("{missed} steps are missed"),
        None => None,
    });
    next.filter(|step| !matches!(step, Step::Received { .. })).collect()
}

fn published(broker: &str, result: PublishResult, qos: Option<u8>, reason: Option<&str>) -> Step {
    let (broker, reason) = (broker.to_owned(), reason.map(str::to_owned));
    Step::Published { broker, topic: "t".to_owned(), result, qos, reason }
}

fn ended(outcome: &str) -> Step {
    Step::Ended { outcome: outcome.to_owned() }
}

#[test]
fn who_watches_a_message_is_told_how_its_publishes_end() {
    let (world, (tracer, mut watch)) = (World::new(), watched());
    let traced = |publishes| world.traced_call(publishes, tracer.begin(1, &message("t", 1)));
    assert!(traced(vec![publish(PLANT), publish(CLOUD), publish(PLANT)]).is_none());
    assert_eq!(steps(&mut watch), [Step::Admitted { publishes: 3 }]);
    let [first, second] = [(); 2].map(|()| world.outboxes.take_next(PLANT).expect("is unsent").0);
    world.outboxes.refused(PLANT, second, "not authorised");
    world.outboxes.delivered(PLANT, first, Qos::AtLeastOnce);
    world.deliver(CLOUD);
    let expected = [
        published("plant", PublishResult::Refused, None, Some("not authorised")),
        published("plant", PublishResult::Delivered, Some(1), None),
        published("cloud", PublishResult::Delivered, Some(2), None),
        ended("dropped_refused"),
    ];
    assert_eq!(steps(&mut watch), expected);
    assert!(traced(vec![]).is_none());
    assert_eq!(steps(&mut watch), [ended("handled")]);
    // One that nobody watches.
    assert!(world.call(vec![publish(PLANT)]).is_none());
    world.deliver(PLANT);
    assert_eq!(steps(&mut watch), []);
}

#[test]
fn who_watches_a_message_is_told_that_it_waits_for_room() {
    let (world, (tracer, mut watch)) = (World::new(), watched());
    let traced = |publishes| world.traced_call(publishes, tracer.begin(1, &message("t", 1)));
    world.fill(PLANT);
    let _room = traced(vec![publish(PLANT), publish(CLOUD)]).expect("waits");
    let _behind = traced(vec![publish(PLANT)]).expect("waits");
    let waits = |publishes| Step::WaitsForRoom { publishes };
    assert_eq!(steps(&mut watch), [waits(2), waits(1)]);
    world.deliver(PLANT);
    assert_eq!(steps(&mut watch), [Step::Admitted { publishes: 2 }]);
    // The second is purged while it waits: it is never in.
    world.outboxes.remove(PLANT);
    assert_eq!(steps(&mut watch), [ended("dropped_purged")]);
    world.deliver(CLOUD);
    let delivered = published("cloud", PublishResult::Delivered, Some(2), None);
    assert_eq!(steps(&mut watch), [delivered, ended("dropped_purged")]);
}

/// Limits of one message.
const ONE: OutboxLimits =
    OutboxLimits { store: OutboxStore::Memory, messages: 1, bytes: 1024, max_age: None, when_full: WhenFull::Block };

fn dropped(reason: DropReason, tried: bool) -> PublishEnd {
    PublishEnd::Dropped(Dropped { reason, tried })
}

#[test]
fn what_is_rejected_comes_back_and_has_left_no_trace_of_itself() {
    let world = World::new();
    world.outboxes.limit(PLANT, OutboxLimits { when_full: WhenFull::Reject, ..ONE });
    assert!(world.call(vec![publish(PLANT)]).is_none());
    let (tracer, mut watch) = watched();
    let receipt = Receipt::new(Arc::clone(&world.source), Arc::clone(&world.progress), Qos::AtMostOnce, None);
    let receipt = receipt.traced(tracer.begin(1, &message("t", 1)));
    let part = receipt.split(1).next().expect("one part");
    let meters = world.metrics.handler("celsius");
    let completion = Completion::new(part, Instant::now(), meters);
    let accepted = || panic!("it is rejected");
    let submitted = world.outboxes.submit(vec![publish(CLOUD), publish(PLANT)].into(), completion, accepted);
    let Submitted::Rejected(completion, full) = submitted else { panic!("it is not rejected") };
    let sentence = "the outbox of plant is full (brokers.plant.outbox: max-messages = 1, when-full = \"reject\")";
    assert_eq!(full.to_string(), sentence);
    assert_eq!(steps(&mut watch), [Step::NoRoom { publishes: 2, reason: sentence.to_owned() }]);
    assert_eq!((world.outboxes.usage(CLOUD).0, world.outboxes.waiting(PLANT)), (0, 0));
    assert_eq!(world.progress.open(), 2, "the message is in hand, beside the first");
    completion.part.end(Outcome::DroppedFailed);
    assert_eq!(world.finished(Outcome::DroppedFailed), 1);
    let refused = world.outboxes.publish(publish(PLANT)).err();
    assert_eq!(refused.map(|full| full.to_string()).as_deref(), Some(sentence));
}

#[test]
fn what_is_not_rejected_is_told_before_its_message_can_end() {
    let world = World::new();
    for publishes in [vec![], vec![publish(PLANT)], vec![publish(BrokerId(99))]] {
        let receipt = Receipt::new(Arc::clone(&world.source), Arc::clone(&world.progress), Qos::AtMostOnce, None);
        let part = receipt.split(1).next().expect("one part");
        let completion = Completion::new(part, Instant::now(), world.metrics.handler("h"));
        let mut told = None;
        let submitted = world.outboxes.submit(publishes.into(), completion, || told = Some(world.progress.open()));
        assert!(matches!(submitted, Submitted::Done));
        assert_eq!(told, Some(1), "with its message in hand");
        world.outboxes.remove(PLANT);
        world.outboxes.add(PLANT, "plant".into(), OutboxLimits::default(), world.metrics.broker("plant"));
        assert_eq!(world.progress.open(), 0);
    }
}

#[test]
fn who_made_way_is_told_so_also_where_another_publish_made_room() {
    let world = World::new();
    world.outboxes.limit(PLANT, OutboxLimits { messages: 2, when_full: WhenFull::DropOldest, ..ONE });
    let mut commands = [(); 2].map(|()| world.outboxes.publish(publish(PLANT)).expect("is not rejected"));
    assert!(world.call(vec![publish(PLANT)]).is_none());
    assert_eq!(now(commands[0].end()), Some(dropped(DropReason::Displaced, false)));
    assert_eq!(now(commands[1].end()), None);
    // Both are on their way, so that the next one waits; the end of one lets it in, and the loss of the other the one behind.
    let first = world.outboxes.take_next(PLANT).expect("is unsent").0;
    world.outboxes.take_next(PLANT).expect("is unsent");
    let mut waits = [(); 2].map(|()| world.outboxes.publish(publish(PLANT)).expect("is not rejected"));
    assert_eq!(world.outboxes.waiting(PLANT), 2);
    world.outboxes.delivered(PLANT, first, Qos::AtLeastOnce);
    assert_eq!(now(commands[1].end()), Some(PublishEnd::Delivered(Qos::AtLeastOnce)));
    assert_eq!(now(waits[0].end()), Some(dropped(DropReason::Displaced, false)), "and is displaced by it at once");
    world.outboxes.connection_lost(PLANT, None);
    assert!(world.call(vec![publish(PLANT)]).is_none());
    assert_eq!(world.finished(Outcome::DroppedOutboxFull), 1, "the one that was on its way");
    assert_eq!(now(waits[1].end()), None);
    let page = String::from_utf8(world.metrics.render().expect("renders")).expect("UTF-8");
    assert!(page.contains("tidegate_outbox_dropped_total{broker=\"plant\",reason=\"displaced\"} 3\n"), "{page}");
    assert!(page.contains("tidegate_outbox_max_messages{broker=\"plant\"} 2\n"), "{page}");
}

#[tokio::test]
async fn what_is_too_old_goes_by_itself_and_the_soonest_first() {
    let world = World::new();
    let _expiry = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(expire(Arc::clone(&world.outboxes))));
    let aged = |age| OutboxLimits { max_age: Some(age), ..OutboxLimits::default() };
    // The task sleeps by now for as long as nothing ages, and then for an hour.
    tokio::task::yield_now().await;
    world.outboxes.limit(CLOUD, aged(Duration::from_secs(3600)));
    let mut long = world.outboxes.publish(publish(CLOUD)).expect("is not rejected");
    tokio::task::yield_now().await;
    world.outboxes.limit(PLANT, aged(Duration::from_millis(20)));
    let (begun, mut short) = (Instant::now(), world.outboxes.publish(publish(PLANT)).expect("is not rejected"));
    assert_eq!(in_time(short.end()).await, dropped(DropReason::Expired, false));
    assert!(begun.elapsed() >= Duration::from_millis(20));
    // What was on its way expires once it is not any more.
    let mut tried = world.outboxes.publish(publish(PLANT)).expect("is not rejected");
    world.outboxes.take_next(PLANT).expect("is unsent");
    // A look for what must not come.
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert_eq!(now(tried.end()), None);
    world.outboxes.connection_lost(PLANT, None);
    assert_eq!(in_time(tried.end()).await, dropped(DropReason::Expired, true));
    assert_eq!(now(long.end()), None);
}

#[test]
fn who_watches_a_message_is_told_that_an_outbox_dropped_its_publishes() {
    let (world, (tracer, mut watch)) = (World::new(), watched());
    world.outboxes.limit(PLANT, OutboxLimits { messages: 2, when_full: WhenFull::DropOldest, ..ONE });
    let traced = |publishes| world.traced_call(publishes, tracer.begin(1, &message("t", 1)));
    assert!(traced(vec![publish(PLANT), publish(PLANT), publish(CLOUD)]).is_none());
    assert!(world.call(vec![publish(PLANT), publish(PLANT)]).is_none());
    world.deliver(CLOUD);
    let gone = || published("plant", PublishResult::Displaced, None, None);
    let there = published("cloud", PublishResult::Delivered, Some(2), None);
    assert_eq!(
        steps(&mut watch),
        [Step::Admitted { publishes: 3 }, gone(), gone(), there, ended("dropped_outbox_full")]
    );
    // Its end comes with the last publish that it loses.
    assert!(traced(vec![publish(PLANT), publish(PLANT)]).is_none());
    assert!(world.call(vec![publish(PLANT), publish(PLANT)]).is_none());
    assert_eq!(steps(&mut watch), [Step::Admitted { publishes: 2 }, gone(), gone(), ended("dropped_outbox_full")]);
}
