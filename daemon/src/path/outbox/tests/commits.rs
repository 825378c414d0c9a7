//! What calls write beside their publishes: when it is written, in which order, and what ends with it.

use std::sync::mpsc;

use super::*;
use crate::path::kept::Kept;
use crate::store::{Place, Row, Store, StoreWriter, Table};

/// The outboxes with a store, which writes unless it is held up.
struct OnDisk {
    world: World,
    store: Store,
    _writer: StoreWriter,
    _folder: tempfile::TempDir,
}

fn on_disk() -> OnDisk {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, writer) = Store::open(folder.path()).expect("opens");
    let mut world = World::new();
    let kept = Kept::load(store.clone(), world.metrics.dead_letter_store()).expect("reads");
    world.outboxes = Outboxes::on_disk(store.clone(), kept).expect("reads");
    for (id, name) in [(PLANT, "plant"), (CLOUD, "cloud")] {
        world.outboxes.add(id, name.into(), OutboxLimits::default(), world.metrics.broker(name));
    }
    OnDisk { world, store, _writer: writer, _folder: folder }
}

fn touches(of: &[&str]) -> smallvec::SmallVec<[Touch; 4]> {
    of.iter().map(Touch::of).collect()
}

/// A call that writes one row under this key, after it read and wrote what is named so.
fn effects(publishes: Vec<Publish>, key: &str, reads: &[&str], writes: &[&str]) -> Effects {
    let at = Place { table: Table::Kv, group: "h".into(), key: key.as_bytes().into() };
    let rows = vec![Row::Put { at, weight: 1, body: key.as_bytes().to_vec() }];
    Effects { publishes, commit: Some(Box::new(Commit { rows, reads: touches(reads), writes: touches(writes) })) }
}

impl OnDisk {
    fn call(&self, effects: Effects) -> Option<Room<'_>> {
        let World { source, progress, metrics, outboxes } = &self.world;
        let receipt = Receipt::new(Arc::clone(source), Arc::clone(progress), Qos::AtMostOnce, None);
        let part = receipt.split(1).next().expect("one part");
        let completion = Completion::new(part, Instant::now(), metrics.handler("h"));
        match outboxes.submit(effects, completion, || {}) {
            Submitted::Waits(room) => Some(room),
            Submitted::Done => None,
            Submitted::Rejected(_, full) => panic!("{full}"),
        }
    }

    /// The keys that are synced once all that was submitted so far is.
    fn synced(&self) -> Vec<String> {
        let (sender, done) = mpsc::channel();
        self.store.submit(Vec::new(), move || sender.send(()).expect("is waited for"));
        done.recv().expect("is written");
        let found = self.store.read(Table::Kv, "h", &[], (100, 10_000)).expect("reads");
        found.into_iter().map(|found| String::from_utf8(found.key.into()).expect("a text")).collect()
    }

    fn handled(&self) -> u64 {
        self.world.finished(Outcome::Handled)
    }
}

#[test]
fn what_a_call_writes_is_written_once_its_publishes_are_safe_and_then_its_message_ends() {
    let disk = on_disk();
    disk.call(effects(vec![publish(PLANT), publish(CLOUD)], "a", &[], &[]));
    disk.world.deliver(PLANT);
    assert_eq!((disk.synced(), disk.handled()), (vec![], 0), "a publish is still open");
    disk.world.deliver(CLOUD);
    assert_eq!((disk.synced(), disk.handled()), (vec!["a".to_owned()], 1));
    disk.call(effects(vec![], "b", &[], &[]));
    assert_eq!((disk.synced().len(), disk.handled()), (2, 2), "a call that publishes nothing");
}

#[test]
fn what_rests_on_a_write_waits_for_it_and_nothing_else_does() {
    let disk = on_disk();
    disk.call(effects(vec![publish(PLANT)], "1", &[], &["x"]));
    disk.call(effects(vec![], "2", &["x"], &["y"]));
    disk.call(effects(vec![], "3", &[], &["y"]));
    disk.call(effects(vec![], "4", &["z"], &[]));
    assert_eq!((disk.synced(), disk.handled()), (vec!["4".to_owned()], 1));
    disk.world.deliver(PLANT);
    assert_eq!((disk.synced().len(), disk.handled()), (4, 4));
}

#[test]
fn what_waits_for_room_and_is_withdrawn_takes_along_what_rests_on_it() {
    let disk = on_disk();
    let filled = disk.world.fill(PLANT) as u64;
    let room = disk.call(effects(vec![publish(PLANT)], "1", &[], &["x"])).expect("there is no room");
    assert!(disk.call(effects(vec![], "2", &["x"], &[])).is_none(), "it needs no room");
    drop(room);
    assert_eq!(disk.world.finished(Outcome::DroppedShutdown), 2);
    (0..filled).for_each(|_| disk.world.deliver(PLANT));
    assert_eq!((disk.synced(), disk.handled()), (vec![], filled));
}

#[test]
fn what_a_call_writes_is_written_also_where_its_publish_is_refused_and_its_message_ends_with_that() {
    let disk = on_disk();
    disk.call(effects(vec![publish(PLANT)], "a", &[], &[]));
    let (entry, _) = disk.world.outboxes.take_next(PLANT).expect("is unsent");
    disk.world.outboxes.refused(PLANT, entry, "not authorised");
    disk.world.outboxes.remove(CLOUD);
    disk.call(effects(vec![publish(CLOUD)], "b", &[], &[]));
    assert_eq!(disk.synced(), ["a", "b"]);
    assert_eq!([Outcome::DroppedRefused, Outcome::DroppedPurged].map(|outcome| disk.world.finished(outcome)), [1, 1]);
}

/// The store ends before it has written: nothing ends that was not synced.
#[test]
fn a_message_does_not_end_before_what_it_writes_is_synced() {
    let disk = on_disk();
    let (held, hold) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    disk.store.submit(Vec::new(), move || {
        held.0.send(()).expect("is waited for");
        hold.1.recv().expect("is let go");
    });
    held.1.recv().expect("the writer is held up");
    disk.call(effects(vec![], "a", &[], &[]));
    assert_eq!((disk.world.progress.open(), disk.handled()), (1, 0));
    hold.0.send(()).expect("is held up");
    assert_eq!((disk.synced(), disk.world.progress.open(), disk.handled()), (vec!["a".to_owned()], 0, 1));
}
