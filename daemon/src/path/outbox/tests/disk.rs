//! Outboxes on a real store: what is there when the process begins again, what an operator sees of it, and what ends there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::loader::{self, Read};
use super::super::queue::Load;
use super::*;
use crate::control::config::model::OutboxStore;
use crate::path::kept::Kept;
use crate::store::{Store, StoreError, StoreWriter, Table, Total};

const DISK: OutboxLimits = OutboxLimits {
    store: OutboxStore::Disk,
    messages: 1000,
    bytes: 1 << 20,
    max_age: None,
    when_full: WhenFull::Block,
};

/// One process.
struct Process {
    world: World,
    store: Store,
    kept: Kept,
    writer: StoreWriter,
    loader: tokio::task::JoinHandle<()>,
}

impl Process {
    /// Begins with what the last one left in this folder, and with both brokers.
    fn begin(folder: &Path) -> Process {
        let process = Process::without_brokers(folder);
        process.add(PLANT, "plant");
        process.add(CLOUD, "cloud");
        process
    }

    fn without_brokers(folder: &Path) -> Process {
        Process::reading(folder, loader::read)
    }

    /// Whose outboxes are read in this way.
    fn reading(
        folder: &Path,
        read: impl Fn(&Store, &Arc<str>, Load) -> Result<Read, StoreError> + Copy + Send + 'static,
    ) -> Process {
        let (store, writer) = Store::open(folder).expect("opens");
        let mut world = World::new();
        let kept = Kept::load(store.clone(), world.metrics.dead_letter_store()).expect("reads");
        world.outboxes = Outboxes::on_disk(store.clone(), kept.clone()).expect("reads");
        let loader = tokio::spawn(loader::load_by(Arc::clone(&world.outboxes), read));
        Process { world, store, kept, writer, loader }
    }

    fn add(&self, broker: BrokerId, name: &str) {
        self.world.outboxes.add(broker, name.into(), DISK, self.world.metrics.broker(name));
    }

    /// Waits until all that was submitted is synced.
    async fn synced(&self) {
        self.store.written(Vec::new()).await.expect("it runs");
    }

    async fn end(self) {
        self.loader.abort();
        drop((self.world, self.store, self.kept));
        _ = self.loader.await;
        tokio::task::spawn_blocking(|| self.writer.close()).await.expect("ends");
    }

    /// Sends all that waits for a broker, which has it at once: the numbers of the entries and what they held.
    async fn deliver(&self, broker: BrokerId, count: usize) -> Vec<(EntryId, String)> {
        let mut sent = Vec::new();
        while sent.len() < count {
            in_time(self.world.outboxes.ready(broker)).await;
            while let Some((entry, message)) = self.world.outboxes.take_next(broker) {
                self.world.outboxes.delivered(broker, entry, message.qos);
                sent.push((entry, String::from_utf8(message.payload.to_vec()).expect("a text")));
            }
        }
        sent
    }

    fn on_disk(&self, broker: &str) -> Total {
        let totals = self.store.totals(Table::Outbox).expect("reads");
        totals.into_iter().find(|(name, _)| **name == *broker).map_or_else(Total::default, |(_, total)| total)
    }
}

fn text(broker: BrokerId, text: usize) -> Publish {
    let mut publish = publish(broker);
    publish.message.payload = Bytes::from(text.to_string());
    publish
}

#[tokio::test]
async fn what_is_on_the_disk_is_sent_in_order_by_the_next_process_and_numbers_are_not_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::begin(folder.path());
    (0..20).for_each(|number| assert!(process.world.call(vec![text(PLANT, number)]).is_none()));
    process.synced().await;
    assert_eq!(process.world.finished(Outcome::Handled), 20, "it is safe");
    let sent = process.deliver(PLANT, 3).await;
    assert!(sent.len() >= 3);
    process.synced().await;
    assert_eq!(process.on_disk("plant").rows, 20 - sent.len() as u64);
    process.end().await;

    let process = Process::begin(folder.path());
    assert_eq!(process.world.outboxes.usage(PLANT).0, 20 - sent.len());
    (20..30).for_each(|number| assert!(process.world.call(vec![text(PLANT, number)]).is_none()));
    let rest = process.deliver(PLANT, 30 - sent.len()).await;
    let texts: Vec<String> = sent.iter().chain(&rest).map(|(_, text)| text.clone()).collect();
    assert_eq!(texts, (0..30).map(|number| number.to_string()).collect::<Vec<_>>());
    process.synced().await;
    assert_eq!((process.on_disk("plant"), process.world.outboxes.usage(PLANT)), (Total::default(), (0, 0)));
    process.end().await;

    let process = Process::begin(folder.path());
    assert!(process.world.call(vec![text(PLANT, 30)]).is_none());
    let last = process.deliver(PLANT, 1).await;
    assert!(last[0].0 > rest.last().expect("some").0, "nothing is left on the disk that told the number");
    process.end().await;
}

#[tokio::test]
async fn an_orphan_is_listed_and_is_the_brokers_that_comes_or_is_purged() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::begin(folder.path());
    (0..20).for_each(|number| assert!(process.world.call(vec![text(PLANT, number), text(CLOUD, number)]).is_none()));
    process.synced().await;
    assert_eq!(process.world.outboxes.remove(PLANT), 0, "nothing is dropped");
    process.end().await;

    let process = Process::without_brokers(folder.path());
    let outboxes = &process.world.outboxes;
    let told = |outboxes: &Outboxes| -> Vec<(String, bool, usize)> {
        let list = outboxes.list().into_iter().filter(|outbox| outbox.all.messages > 0);
        list.map(|outbox| (outbox.name.to_string(), outbox.broker.is_some(), outbox.on_disk.messages)).collect()
    };
    assert_eq!(told(outboxes), [("cloud".to_owned(), false, 20), ("plant".to_owned(), false, 20)]);
    process.add(PLANT, "plant");
    process.deliver(PLANT, 10).await;
    process.world.outboxes.remove(PLANT);
    process.add(PLANT, "plant");
    assert_eq!(outboxes.purge("nobody").await.expect("reads"), None);
    assert_eq!(outboxes.purge("cloud").await.expect("reads").map(|amount| amount.messages), Some(20));
    let left = outboxes.usage(PLANT).0;
    assert_eq!(outboxes.purge("plant").await.expect("reads").map(|amount| amount.messages), Some(left));
    assert_eq!(
        (told(outboxes), process.on_disk("plant"), process.on_disk("cloud")),
        (vec![], Total::default(), Total::default())
    );
    process.add(CLOUD, "cloud");
    assert!(process.world.call(vec![text(CLOUD, 99)]).is_none());
    assert_eq!(process.deliver(CLOUD, 1).await[0].1, "99");
    process.end().await;
}

#[tokio::test]
async fn what_its_broker_never_takes_becomes_a_dead_letter_unless_somebody_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::begin(folder.path());
    let outboxes = &process.world.outboxes;
    let mut command = outboxes.publish(publish(PLANT)).expect("is not rejected");
    assert!(process.world.call(vec![publish(PLANT)]).is_none());
    for _ in 0..2 {
        in_time(outboxes.ready(PLANT)).await;
        let (entry, _) = outboxes.take_next(PLANT).expect("is unsent");
        outboxes.refused(PLANT, entry, "not authorised");
    }
    assert_eq!(in_time(command.end()).await, PublishEnd::Refused("not authorised".to_owned()));
    process.synced().await;
    assert_eq!((process.kept.held("dead").0.rows, process.on_disk("plant")), (1, Total::default()));
    let entries = process.kept.read("dead", 0, (9, 9999)).expect("reads");
    let told = format!("{:?}", entries[0].record.as_ref().expect("is readable"));
    assert!(told.contains("the broker plant refuses the publish to t: not authorised"), "{told}");
    assert_eq!(process.world.finished(Outcome::Handled), 1, "its message had ended");
    process.end().await;
}

#[tokio::test]
async fn a_command_takes_back_what_is_on_the_disk_and_was_not_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::begin(folder.path());
    let outboxes = &process.world.outboxes;
    (0..9).for_each(|number| assert!(process.world.call(vec![text(PLANT, number)]).is_none()));
    let mut written = outboxes.publish(publish(PLANT)).expect("is not rejected");
    process.synced().await;
    let mut writing = outboxes.publish(publish(PLANT)).expect("is not rejected");
    assert!(written.take_back() && writing.take_back(), "neither was sent");
    // What was on its way to the disk is deleted once it is there.
    in_time(async {
        while process.on_disk("plant").rows != 9 {
            process.synced().await;
        }
    })
    .await;
    assert_eq!(outboxes.usage(PLANT).0, 9);
    assert_eq!(process.deliver(PLANT, 9).await.len(), 9);
    process.end().await;
}

#[tokio::test]
async fn an_outbox_that_cannot_be_read_holds_up_no_other_and_is_tried_again() {
    const MESSAGES: usize = 20;
    static DAMAGED: AtomicBool = AtomicBool::new(true);
    static FAILED: AtomicUsize = AtomicUsize::new(0);
    let read = |store: &Store, broker: &Arc<str>, load: Load| {
        if **broker == *"plant" && DAMAGED.load(Ordering::SeqCst) {
            FAILED.fetch_add(1, Ordering::SeqCst);
            let (path, why) = ("state.redb".into(), "a page".to_owned());
            return Err(StoreError::Damaged { path, why });
        }
        loader::read(store, broker, load)
    };
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::begin(folder.path());
    for number in 0..MESSAGES {
        assert!(process.world.call(vec![text(PLANT, number), text(CLOUD, number)]).is_none());
    }
    process.synced().await;
    process.end().await;

    let process = Process::reading(folder.path(), read);
    process.add(PLANT, "plant");
    process.add(CLOUD, "cloud");
    let texts = |sent: Vec<(EntryId, String)>| sent.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    let all: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    // Several times what is in memory at once, so that it is read again and again.
    assert_eq!(texts(process.deliver(CLOUD, MESSAGES).await), all);
    assert!(FAILED.load(Ordering::SeqCst) > 0, "the other one was tried before");
    assert!(process.world.outboxes.take_next(PLANT).is_none());
    DAMAGED.store(false, Ordering::SeqCst);
    assert_eq!(texts(process.deliver(PLANT, MESSAGES).await), all);
    process.end().await;
}
