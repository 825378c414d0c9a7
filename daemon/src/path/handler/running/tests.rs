//! Handlers that start, are replaced and end while messages come: what becomes of each message.

mod parking;
mod swap;
mod trial;

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::control::config::model::OutboxLimits;
use crate::control::config::model::Subscription;
use crate::message::{BrokerId, Message, Outgoing, Qos};
use crate::path::dispatch::{Job, ParallelLimit, RunEnd, RunJob, Tries};
use crate::path::handler::host::testing::{TestHandler, handler};
use crate::path::handler::wasm::testing::{PUBLISH, REJECT, RESULT, component, load_file};
use crate::path::handler::{CallResult, Publish, Trigger};
use crate::path::kept::Kept;
use crate::path::park::Parks;
use crate::path::receipt::{Outcome, Progress, Receipt};
use crate::path::schedule::Schedules;
use crate::store::Store;
use crate::store::StoreWriter;
use crate::telemetry::metrics::{BrokerMeters, Metrics};
use crate::topic::{TopicFilter, TopicName};

const PLANT: BrokerId = BrokerId(0);

/// Compiled once for all tests.
static RETURNS_OK: LazyLock<Plugin> = LazyLock::new(|| plugin(""));
static ECHO: LazyLock<Plugin> = LazyLock::new(|| {
    plugin(&format!(
        "{PUBLISH}
        (func $handle (param $message i32) (result i32)
            (drop (call $publish-bytes
                (i32.load offset=24 (local.get $message)) (i32.load offset=28 (local.get $message))))
            (i32.const {RESULT}))"
    ))
});
static LOOPS: LazyLock<Plugin> =
    LazyLock::new(|| plugin("(func $handle (param i32) (result i32) (loop $for-ever (br $for-ever)) (unreachable))"));

/// Traps where the payload begins with "b", up to the second attempt; otherwise it echoes.
static FAILS_TWICE: LazyLock<Plugin> = LazyLock::new(|| {
    plugin(&format!(
        "{PUBLISH}
        (func $handle (param $message i32) (result i32)
            (local $payload i32)
            (local.set $payload (i32.load offset=24 (local.get $message)))
            (if (i32.and
                    (i32.eq (i32.load8_u (local.get $payload)) (i32.const 98))
                    (i32.lt_u (i32.load offset=48 (local.get $message)) (i32.const 3)))
                (then unreachable))
            (drop (call $publish-bytes (local.get $payload) (i32.load offset=28 (local.get $message))))
            (i32.const {RESULT}))"
    ))
});

fn plugin(body: &str) -> Plugin {
    load_file(&component(body)).expect("is a handler")
}

struct World {
    metrics: Arc<Metrics>,
    kvs: Arc<Kvs>,
    /// Of the store.
    _state: tempfile::TempDir,
    plant: Arc<BrokerMeters>,
    progress: Arc<Progress>,
    outboxes: Arc<Outboxes>,
    brokers: BrokerNames,
    limit: Arc<ParallelLimit>,
    subscription: Arc<Subscription>,
    kept: (Kept, (StoreWriter, tempfile::TempDir)),
    parks: Parks,
    verdicts: Verdicts,
}

impl World {
    fn new() -> World {
        let (metrics, brokers, outboxes) =
            (Arc::new(Metrics::new().expect("well formed")), BrokerNames::default(), Arc::new(Outboxes::new()));
        let plant = metrics.broker("plant");
        outboxes.add(brokers.number("plant"), "plant".into(), OutboxLimits::default(), Arc::clone(&plant));
        let subscription = Subscription {
            name: "inputs".into(),
            broker: PLANT,
            topic: TopicFilter::new("#").expect("is a filter"),
            qos: Qos::AtLeastOnce,
            on_message: None,
            when: None,
            silence: None,
        };
        let state = tempfile::tempdir().expect("a directory");
        let (store, _) = Store::open(state.path()).expect("a store");
        let (kept, progress) = (Kept::testing(), Arc::<Progress>::default());
        let stopping = CancellationToken::new();
        let parks = Parks::load(kept.0.clone(), brokers.clone(), Arc::clone(&progress), stopping).expect("loads");
        World {
            kvs: Arc::new(Kvs::load(store, Arc::clone(&metrics)).expect("it is empty")),
            _state: state,
            metrics,
            plant,
            progress,
            outboxes,
            brokers,
            limit: ParallelLimit::new(None),
            subscription: Arc::new(subscription),
            parks,
            kept,
            verdicts: Verdicts::default(),
        }
    }

    async fn ready(&self, plugin: &Plugin, handler: TestHandler) -> ReadyHandler {
        let handler = Arc::new(handler.allow(&["0:out/+"]).queue(100_000).configured());
        let parts = HandlerParts {
            meters: self.metrics.handler(&handler.name),
            handler,
            plugin: plugin.clone(),
            brokers: self.brokers.clone(),
            outboxes: Arc::clone(&self.outboxes),
            kvs: Arc::clone(&self.kvs),
            places: Places::default(),
            kept: self.kept.0.clone(),
            park: self.parks.of(&"celsius".into()),
            tap: Tap::new(),
            verdicts: self.verdicts.clone(),
        };
        ReadyHandler::start(parts).await.expect("starts")
    }

    /// A message that is received and goes to this queue.
    fn push(&self, queue: &HandlerQueue, topic: &str, payload: &str) {
        let message = Message { broker: PLANT, ..Message::testing(topic, payload) };
        let receipt = Receipt::new(Arc::clone(&self.plant), Arc::clone(&self.progress), message.qos, None);
        let part = receipt.split(1).next().expect("one part");
        let (subscription, limit) = (Arc::clone(&self.subscription), Arc::clone(&self.limit));
        queue.push(Job { message: Arc::new(message), subscription, part, limit, tries: Tries::default(), again: None });
    }

    fn finished(&self, outcome: Outcome) -> u64 {
        self.plant.counts().finished[outcome as usize].1
    }

    fn calls(&self, result: CallResult) -> u64 {
        self.metrics.handler("celsius").calls()[result as usize].1
    }

    /// What the next publish says; it is delivered.
    fn delivered(&self) -> Option<String> {
        let (entry, message) = self.outboxes.take_next(PLANT)?;
        self.outboxes.delivered(PLANT, entry, message.qos);
        Some(String::from_utf8(message.payload.to_vec()).expect("is text"))
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Waits for what ends by itself, unless something is broken.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it ends")
}

/// Waits until something holds, which other tasks of the runtime bring about.
async fn until(mut holds: impl FnMut() -> bool) {
    let end = soon();
    while !holds() {
        assert!(Instant::now() < end, "it never held");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_drain_does_what_waits_and_ends_every_runner() {
    let world = World::new();
    let running = world.ready(&RETURNS_OK, handler().instances(3)).await.serve();
    world.limit.set_most(Some(0));
    (0..20).for_each(|number| world.push(running.queue(), &format!("t/{number}"), ""));
    let meters = world.metrics.handler("celsius");
    assert_eq!((meters.queue.get(), meters.instances.get()), (20, 3));
    let draining = tokio::spawn(running.drain(soon(), CancellationToken::new()));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!draining.is_finished(), "messages wait");
    world.limit.set_most(Some(1));
    assert_eq!(in_time(draining).await.expect("ends"), 0);
    assert_eq!((world.finished(Outcome::Handled), world.progress.open()), (20, 0));
    assert_eq!((meters.queue.get(), meters.instances.get()), (0, 0));
}

#[tokio::test]
async fn an_idle_handler_drains_at_once_and_takes_nothing_more() {
    let world = World::new();
    let running = world.ready(&RETURNS_OK, handler().instances(3)).await.serve();
    let queue = Arc::clone(running.queue());
    tokio::task::yield_now().await;
    assert_eq!(in_time(running.drain(soon(), CancellationToken::new())).await, 0);
    world.push(&queue, "t", "from a router that had not heard of it");
    assert_eq!((world.finished(Outcome::DroppedPurged), world.progress.open()), (1, 0));
}

#[tokio::test]
async fn what_is_not_done_at_the_deadline_is_purged_and_every_message_ends() {
    let world = World::new();
    let running = world.ready(&RETURNS_OK, handler().instances(2)).await.serve();
    world.limit.set_most(Some(0));
    (0..20).for_each(|number| world.push(running.queue(), &format!("t/{number}"), ""));
    assert_eq!(in_time(running.drain(Instant::now(), CancellationToken::new())).await, 20);
    let counts = world.plant.counts();
    assert_eq!((world.finished(Outcome::DroppedPurged), counts.received, counts.in_progress), (20, 20, 0));
    assert_eq!(world.metrics.handler("celsius").queue.get(), 0);
}

#[tokio::test]
async fn a_call_that_does_not_end_is_given_up_at_the_deadline() {
    let world = World::new();
    let running = world.ready(&LOOPS, handler().deadline(Duration::from_secs(3600))).await.serve();
    world.limit.set_most(Some(1));
    world.push(running.queue(), "t", "");
    until(|| running.queue().waiting() == 0).await;
    assert_eq!(in_time(running.drain(Instant::now(), CancellationToken::new())).await, 1);
    assert_eq!((world.finished(Outcome::DroppedPurged), world.progress.open()), (1, 0));
    assert_eq!(world.metrics.handler("celsius").instances.get(), 0);
    assert!(world.limit.try_acquire(&Arc::default()).is_some(), "its permit is free");
}

/// A stop of the daemon whose grace period is over while a handler is removed.
#[tokio::test]
async fn a_drain_that_is_hurried_ends_and_leaves_what_is_not_done_unacknowledged() {
    let world = World::new();
    let running = world.ready(&LOOPS, handler().deadline(HOUR)).await.serve();
    let queue = Arc::clone(running.queue());
    world.push(&queue, "t", "");
    until(|| queue.waiting() == 0).await;
    world.push(&queue, "t", "");
    let hurry = CancellationToken::new();
    let draining = tokio::spawn(running.drain(Instant::now() + HOUR, hurry.clone()));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!draining.is_finished(), "one is in a call, and one waits");
    hurry.cancel();
    assert_eq!(in_time(draining).await.expect("ends"), 0);
    assert_eq!((world.finished(Outcome::DroppedShutdown), world.finished(Outcome::DroppedPurged)), (2, 0));
    assert_eq!((world.progress.open(), world.metrics.handler("celsius").instances.get()), (0, 0));
}

#[tokio::test]
async fn what_waits_for_room_at_the_deadline_is_published_all_the_same() {
    let world = World::new();
    let topic = TopicName::new("t").expect("is a name");
    for _ in 0..OutboxLimits::default().messages {
        let (topic, payload) = (topic.clone(), Bytes::from_static(b"other"));
        let message = Outgoing { topic, payload, qos: Qos::AtMostOnce, retain: false, properties: None, hops: None };
        drop(world.outboxes.publish(Publish { broker: PLANT, message }));
    }
    let running = world.ready(&ECHO, handler()).await.serve();
    world.push(running.queue(), "t", "mine");
    let offers = OutboxLimits::default().messages as u64;
    in_time(world.outboxes.offered_beyond(PLANT, offers)).await;
    assert_eq!(in_time(running.drain(Instant::now(), CancellationToken::new())).await, 0);
    assert_eq!(world.progress.open(), 1, "its publish waits");
    for _ in 0..offers {
        assert_eq!(world.delivered().as_deref(), Some("other"));
    }
    assert_eq!(world.delivered().as_deref(), Some("mine"));
    assert_eq!((world.finished(Outcome::Handled), world.progress.open()), (1, 0));
}

#[tokio::test]
async fn a_successor_takes_over_what_waits_in_order() {
    let world = World::new();
    let old = world.ready(&ECHO, handler()).await.serve();
    let old_queue = Arc::clone(old.queue());
    world.limit.set_most(Some(0));
    (0..5).for_each(|number| world.push(&old_queue, "t", &number.to_string()));
    let new = world.ready(&ECHO, handler().instances(4)).await;
    let (view, gauge) = (new.view(), &world.metrics.handler("celsius").queue);
    (5..8).for_each(|number| world.push(new.queue(), "t", &number.to_string()));
    assert_eq!(gauge.get(), 8);
    let new = in_time(new.succeed(old, CancellationToken::new())).await;
    assert_eq!((old_queue.waiting(), view.queue().waiting(), gauge.get()), (0, 8, 8));
    world.push(&old_queue, "t", "8");
    world.limit.set_most(None);
    for number in 0..9 {
        in_time(world.outboxes.ready(PLANT)).await;
        assert_eq!(world.delivered(), Some(number.to_string()));
    }
    assert_eq!((world.finished(Outcome::Handled), world.progress.open()), (9, 0));
    in_time(new.stop()).await;
}

#[tokio::test]
async fn a_successor_calls_nothing_before_the_last_call_of_the_old_one_has_ended() {
    let world = World::new();
    // Compiled before the call begins, whose time is short.
    LazyLock::force(&RETURNS_OK);
    let old = world.ready(&LOOPS, handler().deadline(Duration::from_secs(1))).await.serve();
    world.push(old.queue(), "t", "");
    until(|| old.queue().waiting() == 0).await;
    world.push(old.queue(), "t", "");
    let new = world.ready(&RETURNS_OK, handler()).await;
    let replacing = tokio::spawn(new.succeed(old, CancellationToken::new()));
    until(|| {
        assert_eq!(world.calls(CallResult::Ok), 0);
        world.calls(CallResult::Deadline) == 1
    })
    .await;
    let new = in_time(replacing).await.expect("ends");
    until(|| world.calls(CallResult::Ok) == 1).await;
    assert_eq!(in_time(new.drain(soon(), CancellationToken::new())).await, 0);
    in_time(world.progress.idle()).await;
}

/// On several threads: every message is handled exactly once, and those of a topic in order, while handlers with different
/// numbers of instances follow one another and the router hears of each a little late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_doubled_or_overtaken_while_handlers_follow_one_another() {
    const TOPICS: usize = 7;
    const ROUNDS: usize = 12;
    const MESSAGES: usize = 100;
    let world = Arc::new(World::new());
    let mut running = world.ready(&ECHO, handler().instances(2)).await.serve();
    let route = Arc::new(std::sync::Mutex::new(Arc::clone(running.queue())));
    let router = tokio::spawn({
        let (world, route) = (Arc::clone(&world), Arc::clone(&route));
        async move {
            for number in 0..ROUNDS * MESSAGES {
                let queue = Arc::clone(&route.lock().expect("no panic"));
                if number % 10 == 0 {
                    tokio::task::yield_now().await;
                }
                world.push(&queue, &format!("t/{}", number % TOPICS), &format!("{} {number}", number % TOPICS));
            }
        }
    });
    for round in 0..ROUNDS {
        let next = world.ready(&ECHO, handler().instances(1 + round % 4)).await;
        // The one message that the router has in hand while this changes goes to the old queue, and on from there.
        *route.lock().expect("no panic") = Arc::clone(next.queue());
        running = in_time(next.succeed(running, CancellationToken::new())).await;
    }
    in_time(router).await.expect("ends");
    assert_eq!(in_time(running.drain(soon(), CancellationToken::new())).await, 0);
    let mut last = [None; TOPICS];
    let mut count = 0;
    while let Some(payload) = world.delivered() {
        let (topic, number) = payload.split_once(' ').expect("two numbers");
        let (topic, number): (usize, usize) = (topic.parse().expect("a number"), number.parse().expect("a number"));
        assert!(last[topic] < Some(number), "{number} after {:?}", last[topic]);
        last[topic] = Some(number);
        count += 1;
    }
    assert_eq!(count, ROUNDS * MESSAGES);
    assert_eq!(world.finished(Outcome::Handled), (ROUNDS * MESSAGES) as u64);
    assert_eq!(world.metrics.handler("celsius").queue.get(), 0);
}

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_call_that_failed_is_made_again_before_its_topic_goes_on_and_others_pass() {
    let world = World::new();
    let running = world.ready(&FAILS_TWICE, handler().retry(2, 20 * MILLI)).await.serve();
    for (topic, payload) in [("t", "bad"), ("t", "second"), ("u", "other"), ("t", "b3")] {
        world.push(running.queue(), topic, payload);
    }
    let mut came = Vec::new();
    until(|| {
        came.extend(world.delivered());
        came.len() == 4
    })
    .await;
    assert_eq!(came, ["other", "bad", "second", "b3"]);
    let meters = world.metrics.handler("celsius");
    assert_eq!((world.calls(CallResult::Ok), world.calls(CallResult::Trap), meters.retries.get()), (4, 4, 4));
    assert_eq!((world.finished(Outcome::Handled), world.progress.open()), (4, 0));
    assert_eq!((meters.retrying.get(), meters.queue.get()), (0, 0));
    in_time(running.stop()).await;
}

#[tokio::test]
async fn a_message_whose_calls_all_fail_is_given_up_and_its_topic_goes_on() {
    let world = World::new();
    let running = world.ready(&FAILS_TWICE, handler().retry(1, MILLI)).await.serve();
    world.push(running.queue(), "t", "bad");
    world.push(running.queue(), "t", "second");
    until(|| world.delivered().as_deref() == Some("second")).await;
    in_time(world.progress.idle()).await;
    assert_eq!((world.finished(Outcome::DeadLetter), world.finished(Outcome::Handled)), (1, 1));
    assert_eq!((world.calls(CallResult::Trap), world.metrics.handler("celsius").retries.get()), (2, 1));
    in_time(running.stop()).await;
}

/// So that whoever mends a handler need not wait for what its broken version had put off.
#[tokio::test]
async fn a_successor_calls_at_once_what_was_to_be_called_again_and_in_order() {
    let world = World::new();
    let old = world.ready(&FAILS_TWICE, handler().retry(2, HOUR)).await.serve();
    let view = old.view();
    world.push(old.queue(), "t", "bad");
    world.push(old.queue(), "t", "second");
    until(|| view.queue().retrying() == 1).await;
    assert_eq!(world.metrics.handler("celsius").retrying.get(), 1);
    let new = world.ready(&ECHO, handler()).await;
    let new = in_time(new.succeed(old, CancellationToken::new())).await;
    for expected in ["bad", "second"] {
        in_time(world.outboxes.ready(PLANT)).await;
        assert_eq!(world.delivered().as_deref(), Some(expected));
    }
    assert_eq!(world.metrics.handler("celsius").retrying.get(), 0);
    in_time(new.stop()).await;
}

#[tokio::test]
async fn a_drain_waits_for_what_is_called_again_and_purges_what_comes_too_late() {
    let world = World::new();
    let running = world.ready(&FAILS_TWICE, handler().retry(2, 20 * MILLI)).await.serve();
    world.push(running.queue(), "t", "bad");
    assert_eq!(in_time(running.drain(soon(), CancellationToken::new())).await, 0);
    assert_eq!((world.finished(Outcome::Handled), world.delivered().as_deref()), (0, Some("bad")));

    let running = world.ready(&FAILS_TWICE, handler().retry(2, HOUR)).await.serve();
    world.push(running.queue(), "t", "bad");
    until(|| running.queue().retrying() == 1).await;
    assert_eq!(in_time(running.drain(Instant::now(), CancellationToken::new())).await, 1);
    assert_eq!((world.finished(Outcome::DroppedPurged), world.progress.open()), (1, 0));
}

#[tokio::test]
async fn a_stop_leaves_what_waits_unacknowledged() {
    let world = World::new();
    let running = world.ready(&RETURNS_OK, handler()).await.serve();
    world.limit.set_most(Some(0));
    (0..3).for_each(|_| world.push(running.queue(), "t", ""));
    in_time(running.stop()).await;
    assert_eq!((world.finished(Outcome::DroppedShutdown), world.progress.open()), (3, 0));
}

#[tokio::test]
async fn the_last_failure_is_kept() {
    let world = World::new();
    let rejects = plugin(&format!("{REJECT} (func $handle (param i32) (result i32) (call $reject))"));
    let running = world.ready(&rejects, handler()).await.serve();
    let view = running.view();
    assert_eq!(view.last_failure(), None);
    assert_eq!((view.version(), view.handler().instances), (rejects.hash(), NonZeroUsize::MIN));
    let before = SystemTime::now();
    world.push(running.queue(), "t", "");
    until(|| view.last_failure().is_some()).await;
    let failure = view.last_failure().expect("failed");
    assert_eq!((failure.result, &*failure.error), (CallResult::Reject, "the handler rejected the message: no"));
    assert!(failure.time >= before);
    assert_eq!(view.meters().calls()[CallResult::Reject as usize].1, 1);
    in_time(running.stop()).await;
}

#[tokio::test]
async fn a_handler_that_does_not_start_leaves_nothing_behind() {
    let world = World::new();
    let refuses = plugin(&format!(
        "(data (i32.const 0x100) \"no\")
        (func $init (result i32)
            (i32.store (i32.const {RESULT}) (i32.const 1))
            (i32.store (i32.const 0x84) (i32.const 0x100))
            (i32.store (i32.const 0x88) (i32.const 2))
            (i32.const {RESULT}))"
    ));
    let handler = Arc::new(handler().instances(3).configured());
    let parts = HandlerParts {
        meters: world.metrics.handler(&handler.name),
        handler,
        plugin: refuses,
        brokers: world.brokers.clone(),
        outboxes: Arc::clone(&world.outboxes),
        kvs: Arc::clone(&world.kvs),
        places: Places::default(),
        kept: world.kept.0.clone(),
        park: world.parks.of(&"celsius".into()),
        tap: Tap::new(),
        verdicts: Verdicts::default(),
    };
    let error = ReadyHandler::start(parts).await.err().expect("is refused");
    assert!(matches!(&error, HandlerError::Start(StartError::Refused(words)) if words == "no"), "{error:?}");
    until(|| world.metrics.handler("celsius").instances.get() == 0).await;
}

/// Publishes the name of the run.
static RUNS: LazyLock<Plugin> = LazyLock::new(|| {
    plugin(&format!(
        "{PUBLISH}
        (func $handle (param i32) (result i32) (i32.const {RESULT}))
        (func $run (param i32 i32 i32 i64) (result i32)
            (drop (call $publish-bytes (local.get 1) (local.get 2)))
            (i32.const {RESULT}))"
    ))
});

impl World {
    /// A run that goes to this queue.
    fn push_run(&self, queue: &HandlerQueue, name: &str) -> oneshot::Receiver<RunEnd> {
        let (report, ended) = oneshot::channel();
        let schedules = Schedules::new(Arc::new(Metrics::new().expect("well formed")), Arc::default(), Arc::default());
        queue.push_run(RunJob {
            trigger: Trigger::Silence(PLANT),
            name: name.into(),
            due: SystemTime::now(),
            tries: Tries::default(),
            until: None,
            aftermath: Arc::new(schedules).aftermath(&self.progress, name),
            report,
        });
        ended
    }
}

#[tokio::test]
async fn a_run_needs_no_permit_and_its_publishes_hold_up_a_stop() {
    let world = World::new();
    let running = world.ready(&RUNS, handler().instances(2)).await.serve();
    world.limit.set_most(Some(0));
    world.push(running.queue(), "t", "");
    let ended = world.push_run(running.queue(), "stats");
    assert!(matches!(in_time(ended).await, Ok(RunEnd::Ok)));
    assert_eq!((running.queue().waiting(), world.calls(CallResult::Ok)), (1, 1));
    assert_eq!(world.progress.open(), 2, "the message, and what was published");
    assert_eq!(world.delivered().as_deref(), Some("stats"));
    assert_eq!(world.progress.open(), 1);
    running.stop().await;
}

#[tokio::test]
async fn runs_that_wait_go_to_the_handler_that_takes_the_place_of_another() {
    let world = World::new();
    let (old, new) = (world.ready(&RUNS, handler()).await, world.ready(&RUNS, handler()).await);
    let waits = world.push_run(old.queue(), "waits");
    old.queue().hand_over(new.queue());
    let late = world.push_run(old.queue(), "late");
    let running = new.serve();
    assert!(matches!(in_time(waits).await, Ok(RunEnd::Ok)));
    assert!(matches!(in_time(late).await, Ok(RunEnd::Ok)));
    assert_eq!([world.delivered(), world.delivered()], [Some("waits".to_owned()), Some("late".to_owned())]);
    let queue = Arc::clone(running.queue());
    assert_eq!(in_time(running.drain(soon(), CancellationToken::new())).await, 0);
    assert!(in_time(world.push_run(&queue, "gone")).await.is_err(), "a handler that is removed makes none");
}
