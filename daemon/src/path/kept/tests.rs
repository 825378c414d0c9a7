//! Shelves on a real store: what survives, what is given back, and messages that are handled again.

use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::*;
use crate::message::Qos;
use crate::path::dead_letter::Reason;
use crate::path::receipt::{Outcome, Progress, Receipt};
use crate::store::StoreWriter;
use crate::telemetry::metrics::Metrics;
use crate::topic::{TopicFilter, TopicName};

fn record(payload: &[u8]) -> Record {
    let message = KeptMessage {
        handler: "celsius".into(),
        subscription: "inputs".into(),
        filter: TopicFilter::new("sensors/+").expect("is a filter"),
        broker: "plant".into(),
        topic: TopicName::new("sensors/1").expect("is a name"),
        payload: Bytes::copy_from_slice(payload),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        received: UNIX_EPOCH,
        properties: None,
        hops: 0,
    };
    Record::DeadLetter(message, failure("no"))
}

fn failure(error: &str) -> Failure {
    Failure { reason: Reason::Reject, error: error.to_owned(), attempts: 1, time: SystemTime::UNIX_EPOCH }
}

struct World {
    folder: tempfile::TempDir,
    kept: Kept,
    metrics: Metrics,
    writer: Option<StoreWriter>,
}

impl World {
    fn new() -> World {
        World::of(tempfile::tempdir().expect("a folder"))
    }

    fn of(folder: tempfile::TempDir) -> World {
        let (store, writer) = Store::open(folder.path()).expect("opens");
        let metrics = Metrics::new().expect("well formed");
        let kept = Kept::load(store, metrics.dead_letter_store()).expect("loads");
        World { folder, kept, metrics, writer: Some(writer) }
    }

    /// The process ends and another one begins.
    fn again(self) -> World {
        let World { folder, kept, mut writer, .. } = self;
        drop(kept);
        writer.take().expect("is there until then").close();
        World::of(folder)
    }

    fn write(&self, rows: Vec<Row>) {
        let (sender, done) = mpsc::channel();
        self.kept.store().submit(rows, move || sender.send(()).expect("is waited for"));
        done.recv().expect("is written");
    }

    fn put(&self, shelf: &Arc<str>, payload: &[u8]) -> u64 {
        let Placed { id, rows } = self.kept.put(shelf, &record(payload)).expect("has room");
        self.write(rows);
        id
    }

    fn on(&self, shelf: &str) -> Vec<(u64, Bytes)> {
        let entries = self.kept.read(shelf, 0, (usize::MAX, usize::MAX)).expect("reads");
        let payload = |entry: Entry| match entry.record.expect("is a record") {
            Record::DeadLetter(message, _) | Record::Parked(message) => (entry.id, message.payload),
            Record::Publish(publish, _) => (entry.id, publish.message.payload),
        };
        entries.into_iter().map(payload).collect()
    }

    fn rows(&self) -> u64 {
        let (total, _) = self.kept.held(DEAD);
        let page = String::from_utf8(self.metrics.render().expect("renders")).expect("UTF-8");
        let line = format!("tidegate_dead_letter_store_messages {}\n", total.rows);
        assert!(page.contains(&line), "{line}{page}");
        assert!(page.contains(&format!("tidegate_dead_letter_store_bytes {}\n", total.weight)), "{page}");
        total.rows
    }

    /// Has a message handled again that ends with `outcome`; what is told of it.
    fn end(&self, id: u64, outcome: Outcome, with: impl FnOnce(&Arc<Again>)) -> AgainEnd {
        let (sender, told) = mpsc::channel();
        let claim = self.kept.claim(self.kept.dead(), id).expect("is free");
        let entry = self.kept.get(DEAD, id).expect("reads").expect("is there");
        let again = claim.again(entry.weight, move |end| sender.send(end).expect("is waited for"));
        with(&again);
        let progress = Arc::<Progress>::default();
        let receipt = Receipt::again(again, Arc::clone(&progress));
        assert_eq!(progress.open(), 1);
        receipt.split(1).for_each(|part| part.end(outcome));
        assert_eq!(progress.open(), 0);
        told.recv().expect("is told")
    }
}

#[test]
fn what_was_parked_and_leads_to_no_dead_letter_goes() {
    let world = World::new();
    let park: Arc<str> = "park/celsius".into();
    let id = world.put(&park, b"a");
    let (sender, told) = mpsc::channel();
    let weight = world.kept.get(&park, id).expect("reads").expect("is there").weight;
    let again =
        world.kept.claim(&park, id).expect("is free").again(weight, move |end| sender.send(end).expect("waits"));
    Receipt::again(again, Arc::default()).split(1).for_each(|part| part.end(Outcome::DroppedFailed));
    assert_eq!(told.recv(), Ok(AgainEnd::Gone(Outcome::DroppedFailed)));
    assert_eq!((world.kept.held(&park).0, world.on(&park)), (Total::default(), vec![]));
}

#[test]
fn what_is_kept_is_there_after_a_restart_and_numbers_go_on() {
    let world = World::new();
    let park: Arc<str> = "park/celsius".into();
    let dead = Arc::clone(world.kept.dead());
    assert_eq!([world.put(&dead, b"a"), world.put(&park, b"b"), world.put(&dead, b"c")], [1, 1, 2]);
    let held = world.kept.held(DEAD);
    let world = world.again();
    assert_eq!(world.kept.held(DEAD), held);
    assert_eq!(world.on(DEAD), [(1, Bytes::from_static(b"a")), (2, Bytes::from_static(b"c"))]);
    assert_eq!(world.on("park/celsius"), [(1, Bytes::from_static(b"b"))]);
    assert_eq!(world.rows(), 2);
    world.write(vec![Kept::removal(&dead, 1), Kept::removal(&dead, 2)]);
    let world = world.again();
    assert_eq!(world.rows(), 0);
    assert!(world.put(&dead, b"d") > 2, "a number is never given again");
}

#[test]
fn one_is_read_by_its_number_alone() {
    let world = World::new();
    let dead = Arc::clone(world.kept.dead());
    for payload in [b"a", b"b", b"c"] {
        world.put(&dead, payload);
    }
    world.write(vec![Kept::removal(&dead, 2)]);
    assert!(world.kept.get(DEAD, 2).expect("reads").is_none(), "the one behind it is another");
    assert_eq!(world.kept.get(DEAD, 3).expect("reads").expect("is there").record, Ok(record(b"c")));
    assert_eq!(world.kept.read(DEAD, 1, (5, usize::MAX)).expect("reads").len(), 1);
    assert_eq!(world.kept.read(DEAD, u64::MAX, (5, usize::MAX)).expect("reads").len(), 0);
}

#[test]
fn nobody_else_claims_what_is_claimed() {
    let world = World::new();
    let dead = Arc::clone(world.kept.dead());
    let claim = world.kept.claim(&dead, 1).expect("is free");
    assert_eq!(world.kept.claim(&dead, 1).err(), Some(Busy));
    assert!(world.kept.claim(&dead, 2).is_ok(), "another one is another");
    drop(claim);
    assert!(world.kept.claim(&dead, 1).is_ok());
}

#[test]
fn one_that_is_handled_is_gone_and_its_room_is_given_back() {
    let world = World::new();
    let id = world.put(&Arc::clone(world.kept.dead()), b"a");
    // Its removal is in one transaction with its effects, which is written before the end.
    let end = world.end(id, Outcome::Handled, |again| world.write(vec![again.removal_with_effects()]));
    assert_eq!((end, world.rows(), world.on(DEAD)), (AgainEnd::Gone(Outcome::Handled), 0, vec![]));
    // A publish of its call was dropped as was configured: its effects are written all the same.
    let id = world.put(&Arc::clone(world.kept.dead()), b"b");
    let end = world.end(id, Outcome::DroppedExpired, |again| world.write(vec![again.removal_with_effects()]));
    assert_eq!((end, world.rows(), world.on(DEAD)), (AgainEnd::Gone(Outcome::DroppedExpired), 0, vec![]));
    // Its dead letter is published.
    let id = world.put(&Arc::clone(world.kept.dead()), b"c");
    let end = world.end(id, Outcome::DeadLetter, |_| {});
    assert_eq!((end, world.rows(), world.on(DEAD)), (AgainEnd::Gone(Outcome::DeadLetter), 0, vec![]));
}

#[test]
fn one_that_fails_again_is_kept_as_that() {
    let world = World::new();
    let id = world.put(&Arc::clone(world.kept.dead()), b"a");
    let end = world.end(id, Outcome::DeadLetter, |again| {
        let Record::DeadLetter(message, _) = record(b"a") else { panic!("is one") };
        let (row, weight) = again.replacement(&Record::DeadLetter(message, failure("a longer error")));
        world.write(vec![row]);
        again.replaced(weight, "a longer error".to_owned());
    });
    assert_eq!(end, AgainEnd::FailedAgain("a longer error".to_owned()));
    let entry = world.kept.get(DEAD, id).expect("reads").expect("is there");
    let Ok(Record::DeadLetter(_, failure)) = entry.record else { panic!("is one") };
    assert_eq!(failure.error, "a longer error");
    assert_eq!(world.kept.held(DEAD).0, world.kept.store().totals(Table::Kept).expect("reads")[0].1);
    assert_eq!(world.rows(), 1);
    assert!(world.kept.claim(world.kept.dead(), id).is_ok(), "it may be handled once more");
}

#[test]
fn one_that_nothing_follows_from_stays() {
    let world = World::new();
    let id = world.put(&Arc::clone(world.kept.dead()), b"a");
    for outcome in [Outcome::DroppedShutdown, Outcome::DroppedPurged, Outcome::DroppedFailed] {
        assert_eq!(world.end(id, outcome, |_| {}), AgainEnd::Stays(outcome));
        // Its effects were handed on, and are not written.
        let rejected = |again: &Arc<Again>| {
            drop(again.removal_with_effects());
            again.has_no_effects();
        };
        assert_eq!(world.end(id, outcome, rejected), AgainEnd::Stays(outcome));
    }
    let stopped = world.end(id, Outcome::DroppedShutdown, |again| drop(again.removal_with_effects()));
    assert_eq!(stopped, AgainEnd::Stays(Outcome::DroppedShutdown));
    assert_eq!(world.rows(), 1);
    assert_eq!(world.on(DEAD).len(), 1);
}
