//! Dead letters that are kept: what is on the disk once the message has ended.

use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::message::{Message, Outgoing, Properties, Qos};
use crate::path::dead_letter::{Input, Places, Reason};
use crate::path::handler::{CallError, Publish};
use crate::path::kept::{Again, AgainEnd, Capacity, DEAD, Kept};
use crate::path::outbox::{Completion, Effects, Outboxes, Submitted};
use crate::path::receipt::{Progress, Receipt};
use crate::store::{Store, StoreWriter, Table};
use crate::telemetry::metrics::{BrokerMeters, HandlerMeters, Metrics};
use crate::topic::{TopicFilter, TopicName};

/// A broker, and a handler without a dead-letter topic.
struct World {
    kept: Kept,
    outboxes: Arc<Outboxes>,
    source: Arc<BrokerMeters>,
    handler: Arc<HandlerMeters>,
    progress: Arc<Progress>,
    letters: Arc<DeadLetters>,
    plant: crate::message::BrokerId,
    _store: (StoreWriter, tempfile::TempDir),
}

impl World {
    fn new() -> World {
        let text = "brokers.plant.address = \"a\"\n[handlers.celsius]\nplugin = \"celsius.wasm\"\n";
        let file = std::path::Path::new("/nowhere/tidegate.toml");
        let loaded = crate::control::config::load_text(file, text, "").expect("is good");
        let metrics = Metrics::new().expect("well formed");
        let folder = tempfile::tempdir().expect("a folder");
        let (store, writer) = Store::open(folder.path()).expect("opens");
        let kept = Kept::load(store.clone(), metrics.dead_letter_store()).expect("loads");
        let outboxes = Outboxes::on_disk(store, kept.clone()).expect("reads");
        let plant = loaded.names.number("plant");
        outboxes.add(plant, "plant".into(), Default::default(), metrics.broker("plant"));
        let handler = metrics.handler("celsius");
        let configured = &loaded.config.handlers[0];
        let places = Places::default();
        let letters = DeadLetters::of(configured, loaded.names, places, kept.clone(), Arc::clone(&handler));
        let (source, progress) = (metrics.broker("source"), Arc::default());
        World { kept, outboxes, source, handler, progress, letters, plant, _store: (writer, folder) }
    }

    fn input(&self, message: Message, again: Option<Arc<Again>>) -> Input {
        let subscription = Subscription {
            name: "inputs".into(),
            broker: self.plant,
            topic: TopicFilter::new("in/+").expect("is a filter"),
            qos: Qos::AtLeastOnce,
            on_message: None,
            when: None,
            silence: None,
        };
        Input { message: Arc::new(message), subscription: Arc::new(subscription), attempts: 2, again }
    }

    fn message(&self, qos: Qos) -> Message {
        Message {
            broker: self.plant,
            topic: TopicName::new("in/1").expect("is a name"),
            payload: Bytes::from_static(b"\xff\x00"),
            qos,
            retain: true,
            dup: false,
            received: std::time::UNIX_EPOCH,
            arrived: Instant::now(),
            properties: Some(Box::new(Properties { message_expiry: Some(5), ..Properties::default() })),
            hops: 2,
        }
    }

    fn receipt(&self, again: Option<&Arc<Again>>) -> crate::path::receipt::Part {
        let progress = Arc::clone(&self.progress);
        let receipt = match again {
            Some(again) => Receipt::again(Arc::clone(again), progress),
            None => Receipt::new(Arc::clone(&self.source), progress, Qos::AtLeastOnce, None),
        };
        receipt.split(1).next().expect("one part")
    }

    /// A call fails for good; returns once its message has ended.
    async fn fail(&self, message: Message, again: Option<Arc<Again>>, error: &str) {
        let part = self.receipt(again.as_ref());
        let letter = self.letters.of_call(self.input(message, again), part, &CallError::Reject(error.to_owned()), None);
        assert!(letter.is_none(), "nothing is published");
        self.progress.idle().await;
    }

    /// A call publishes once, which is refused; returns once its message has ended.
    async fn refuse(&self, message: Message, again: Option<Arc<Again>>) {
        self.refused(message, again);
        self.progress.idle().await;
    }

    fn refused(&self, message: Message, again: Option<Arc<Again>>) {
        let part = self.receipt(again.as_ref());
        let kept = Some(self.letters.keep(self.input(message, again.clone())));
        let completion = Completion { kept, ..Completion::new(part, Instant::now(), Arc::clone(&self.handler)) };
        let topic = TopicName::new("out").expect("is a name");
        let (payload, qos) = (Bytes::from_static(b"x"), Qos::AtLeastOnce);
        let message = Outgoing { topic, payload, qos, retain: false, properties: None, hops: None };
        let mut effects = Effects::from(vec![Publish { broker: self.plant, message }]);
        if let Some(again) = again {
            effects.commit.get_or_insert_default().rows.push(again.removal_with_effects());
        }
        assert!(matches!(self.outboxes.submit(effects, completion, || {}), Submitted::Done), "there is room");
        let (entry, _) = self.outboxes.take_next(self.plant).expect("is unsent");
        self.outboxes.refused(self.plant, entry, "not authorised");
    }

    /// The dead letters on the disk.
    #[track_caller]
    fn kept(&self) -> Vec<(u64, KeptMessage, Failure)> {
        let entries = self.kept.read(DEAD, 0, (usize::MAX, usize::MAX)).expect("reads");
        let (total, _) = self.kept.held(DEAD);
        let on_disk = self.kept.store().totals(Table::Kept).expect("reads");
        assert_eq!(on_disk.first().map_or_else(Default::default, |(_, total)| *total), total);
        let letter = |entry: crate::path::kept::Entry| match entry.record.expect("is a record") {
            Record::DeadLetter(message, failure) => (entry.id, message, failure),
            other => panic!("{other:?}"),
        };
        entries.into_iter().map(letter).collect()
    }

    /// Begins to handle the dead letter with this number again.
    fn again(&self, id: u64) -> (Arc<Again>, std::sync::mpsc::Receiver<AgainEnd>) {
        let claim = self.kept.claim(self.kept.dead(), id).expect("is free");
        let weight = self.kept.get(DEAD, id).expect("reads").expect("is there").weight;
        let (sender, told) = std::sync::mpsc::channel();
        (claim.again(weight, move |end| sender.send(end).expect("is waited for")), told)
    }

    #[track_caller]
    fn check(&self, ended: &[(Outcome, u64)], safe: u64, dropped: u64) {
        let seen: Vec<_> = self.source.counts().finished.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(seen, ended);
        let counted: u64 = self.handler.dead_letters().into_iter().map(|(_, count)| count).sum();
        assert_eq!((counted, self.handler.dead_letters_dropped()), (safe, dropped));
    }
}

#[tokio::test]
async fn a_message_that_fails_is_on_the_disk_when_it_ends() {
    let world = World::new();
    for qos in [Qos::AtLeastOnce, Qos::AtMostOnce] {
        world.fail(world.message(qos), None, "no").await;
    }
    world.check(&[(Outcome::DeadLetter, 2)], 2, 0);
    let kept = world.kept();
    assert_eq!(
        kept.iter().map(|(id, message, _)| (*id, message.qos)).collect::<Vec<_>>(),
        [(1, Qos::AtLeastOnce), (2, Qos::AtMostOnce)]
    );
    let (_, message, failure) = &kept[0];
    let input = world.input(world.message(Qos::AtLeastOnce), None);
    assert_eq!(*message, KeptMessage::of(&input.message, "plant".into(), "celsius".into(), &input.subscription));
    assert_eq!((failure.reason, failure.attempts), (Reason::Reject, 2));
    assert_eq!(failure.error, "the handler rejected the message: no");
}

#[tokio::test]
async fn what_a_full_store_has_no_room_for_is_dropped_and_what_is_there_stays() {
    let world = World::new();
    world.kept.limit(world.kept.dead(), Capacity { messages: 1, bytes: 10_000 });
    world.fail(world.message(Qos::AtLeastOnce), None, "first").await;
    world.fail(world.message(Qos::AtLeastOnce), None, "second").await;
    world.check(&[(Outcome::DeadLetter, 1), (Outcome::DroppedFailed, 1)], 1, 1);
    assert_eq!(world.kept()[0].2.error, "the handler rejected the message: first");
    assert_eq!(world.kept().len(), 1);
}

#[tokio::test]
async fn a_publish_that_is_refused_has_its_message_kept() {
    let world = World::new();
    world.refuse(world.message(Qos::AtLeastOnce), None).await;
    world.check(&[(Outcome::DeadLetter, 1)], 1, 0);
    let failure = &world.kept()[0].2;
    assert_eq!(failure.reason, Reason::PublishRefused);
    assert_eq!(failure.error, "the broker plant refuses the publish to out: not authorised");
}

#[tokio::test]
async fn a_dead_letter_that_fails_again_is_its_new_failure_in_the_same_place() {
    let world = World::new();
    world.fail(world.message(Qos::AtLeastOnce), None, "first").await;
    world.fail(world.message(Qos::AtLeastOnce), None, "another").await;
    let (again, told) = world.again(1);
    world.fail(world.message(Qos::AtLeastOnce), Some(again), "second, which is longer").await;
    let error = "the handler rejected the message: second, which is longer";
    assert_eq!(told.recv(), Ok(AgainEnd::FailedAgain(error.to_owned())));
    let (again, told) = world.again(1);
    // Also where its effects were to be written with its removal.
    world.refuse(world.message(Qos::AtLeastOnce), Some(again)).await;
    let error = "the broker plant refuses the publish to out: not authorised";
    assert_eq!(told.recv(), Ok(AgainEnd::FailedAgain(error.to_owned())));
    let kept: Vec<_> = world.kept().into_iter().map(|(id, _, failure)| (id, failure.error)).collect();
    let other = "the handler rejected the message: another";
    assert_eq!(kept, [(1, error.to_owned()), (2, other.to_owned())]);
    world.check(&[(Outcome::DeadLetter, 2)], 4, 0);
}

/// Its removal is not written before its next failure is: in between, a crash would lose it.
#[tokio::test]
async fn a_dead_letter_whose_publish_is_refused_is_never_gone_from_the_disk() {
    let world = World::new();
    world.fail(world.message(Qos::AtLeastOnce), None, "first").await;
    let (again, told) = world.again(1);
    let (release, held) = std::sync::mpsc::channel();
    world.kept.store().submit(Vec::new(), move || held.recv().expect("is released"));
    world.refused(world.message(Qos::AtLeastOnce), Some(again));
    // What follows from the call's effects is written after the transaction of which this is told.
    let (sender, between) = std::sync::mpsc::channel();
    let kept = world.kept.clone();
    world.kept.store().submit(Vec::new(), move || {
        let entry = kept.get(DEAD, 1).expect("reads");
        sender.send(entry.map(|entry| entry.record)).expect("is waited for");
    });
    release.send(()).expect("is waited for");
    let Some(Ok(Record::DeadLetter(_, failure))) = between.recv().expect("is told") else { panic!("it is gone") };
    assert_eq!(failure.reason, Reason::Reject);
    world.progress.idle().await;
    assert!(matches!(told.recv(), Ok(AgainEnd::FailedAgain(_))));
    assert_eq!(world.kept()[0].2.reason, Reason::PublishRefused);
}

#[tokio::test]
async fn a_message_that_is_a_dead_letter_by_what_it_carries_is_not_kept() {
    let world = World::new();
    let user = vec![("tidegate-reason".to_owned(), "reject".to_owned())];
    let properties = Some(Box::new(Properties { user, ..Properties::default() }));
    world.fail(Message { properties, ..world.message(Qos::AtLeastOnce) }, None, "no").await;
    world.check(&[(Outcome::DroppedFailed, 1)], 0, 1);
    assert_eq!(world.kept().len(), 0);
}
