//! What handlers remember, from the store and back: loading, calls, operators, expiry, grants that come and go.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::path::handler::host::testing::handler;
use crate::path::kept::Kept;
use crate::path::outbox::Outboxes;
use crate::store::StoreWriter;

const QUOTA: usize = 4096;

struct World {
    store: Store,
    _writer: StoreWriter,
    metrics: Arc<Metrics>,
    outboxes: Arc<Outboxes>,
    kvs: Kvs,
}

impl World {
    fn new() -> World {
        let (store, writer) = Store::in_memory();
        let metrics = Arc::new(Metrics::new().expect("well formed"));
        let kvs = Kvs::load(store.clone(), Arc::clone(&metrics)).expect("it is empty");
        let kept = Kept::load(store.clone(), metrics.dead_letter_store()).expect("it is empty");
        let outboxes = Outboxes::on_disk(store.clone(), kept).expect("it is empty");
        World { outboxes, _writer: writer, store, metrics, kvs }
    }

    /// With the handler "celsius", which may remember something.
    fn granted() -> World {
        let world = World::new();
        world.kvs.of(&"celsius".into());
        world.configure(Some(QUOTA));
        world
    }

    fn configure(&self, kv: Option<usize>) {
        let mut celsius = handler().configured();
        celsius.allow.kv = kv;
        self.kvs.configure(&[Arc::new(celsius)]);
    }

    async fn set(&self, key: &str, value: &str, ttl: Option<Duration>) -> Result<(), KvRefusal> {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.kvs.set(&self.outboxes, "celsius", key, value, ttl).await
    }

    fn get(&self, key: &str) -> Option<String> {
        let value = self.kvs.get("celsius", key).expect("is known");
        value.map(|value| String::from_utf8(value.bytes.to_vec()).expect("is text"))
    }

    fn gauges(&self) -> Vec<String> {
        let page = String::from_utf8(self.metrics.render().expect("renders")).expect("UTF-8");
        page.lines().filter(|line| line.starts_with("tidegate_kv_keys{")).map(str::to_owned).collect()
    }

    /// The keys in the store.
    fn stored(&self) -> Vec<String> {
        let found = self.store.read(Table::Kv, "celsius", &[], (99, 9999)).expect("reads");
        found.iter().map(|row| String::from_utf8(row.key.to_vec()).expect("is text")).collect()
    }

    /// As the next daemon finds it.
    fn again(&self) -> Kvs {
        Kvs::load(self.store.clone(), Arc::clone(&self.metrics)).expect("reads")
    }
}

#[tokio::test]
async fn what_an_operator_sets_is_on_the_disk_and_there_at_the_next_start() {
    let world = World::granted();
    world.set("a", "1", None).await.expect("is set");
    world.set("b", "2", Some(Duration::from_secs(3600))).await.expect("is set");
    world.set("c", "3", None).await.expect("is set");
    world.kvs.delete(&world.outboxes, "celsius", "c").await.expect("is deleted");
    world.kvs.delete(&world.outboxes, "celsius", "never there").await.expect("is no error");
    assert_eq!(world.stored(), ["a", "b"]);
    let again = world.again();
    let items = again.list("celsius", "", None, 9).expect("is known");
    assert_eq!(items.iter().map(|item| (&*item.key, item.bytes)).collect::<Vec<_>>(), [("a", 1), ("b", 1)]);
    assert!(items[0].expires.is_none() && items[1].expires.is_some_and(|expires| expires > now()));
    assert_eq!(again.list("celsius", "", Some("a"), 9).expect("is known").len(), 1);
    assert_eq!(again.list("celsius", "", None, 1).expect("is known").len(), 1);
}

#[tokio::test]
async fn what_an_operator_asks_for_in_vain_is_told() {
    let world = World::granted();
    let unknown = KvRefusal::UnknownHandler("kelvin".into());
    assert_eq!(world.kvs.get("kelvin", "a"), Err(unknown.clone()));
    assert_eq!(world.kvs.delete(&world.outboxes, "kelvin", "a").await, Err(unknown));
    let (celsius, longest): (Arc<str>, usize) = ("celsius".into(), MAX_KEY_BYTES);
    let too_large = Err(KvRefusal::TooLarge { handler: Arc::clone(&celsius), longest });
    assert_eq!(world.set("a", &"x".repeat(QUOTA), None).await, too_large);
    assert_eq!(world.set(&"k".repeat(513), "", None).await, too_large);
    world.set("a", &"x".repeat(QUOTA - 200), None).await.expect("fits");
    let bytes = weight("a", QUOTA - 200);
    let full = Err(KvRefusal::Quota { handler: Arc::clone(&celsius), bytes, quota: QUOTA });
    assert_eq!(world.set("b", "", None).await, full);
    world.configure(None);
    assert_eq!(world.set("a", "", None).await, Err(KvRefusal::NotGranted(celsius)));
    world.kvs.delete(&world.outboxes, "celsius", "a").await.expect("needs no grant");
    assert_eq!(world.stored(), [] as [String; 0]);
}

#[tokio::test]
async fn what_is_remembered_is_told_of_with_and_without_its_handler() {
    let world = World::granted();
    let usage = |keys, bytes, configured, quota| KvUsage { handler: "celsius".into(), configured, keys, bytes, quota };
    assert_eq!(world.kvs.handlers(), [usage(0, 0, true, Some(QUOTA))]);
    assert_eq!(world.gauges(), ["tidegate_kv_keys{handler=\"celsius\"} 0"]);
    world.set("a", "1", None).await.expect("is set");
    assert_eq!(world.kvs.handlers(), [usage(1, weight("a", 1), true, Some(QUOTA))]);
    world.kvs.configure(&[]);
    assert_eq!(world.kvs.handlers(), [usage(1, weight("a", 1), false, None)]);
    assert_eq!(world.gauges(), ["tidegate_kv_keys{handler=\"celsius\"} 1"]);
    world.kvs.delete(&world.outboxes, "celsius", "a").await.expect("is deleted");
    world.kvs.configure(&[]);
    assert_eq!((world.kvs.handlers(), world.gauges()), (vec![], vec![]));
    // The same one again.
    world.configure(Some(QUOTA));
    world.set("a", "1", None).await.expect("is set");
    assert_eq!(world.gauges(), ["tidegate_kv_keys{handler=\"celsius\"} 1"]);
}

#[tokio::test]
async fn what_expired_is_forgotten_in_memory_and_on_the_disk() {
    let world = World::granted();
    let kv = world.kvs.of(&"celsius".into());
    world.set("a", "1", Some(Duration::ZERO)).await.expect("is set");
    world.set("b", "2", None).await.expect("is set");
    assert_eq!((world.get("a"), world.get("b").as_deref()), (None, Some("2")));
    assert_eq!(world.stored(), ["a", "b"]);
    // Were the daemon killed now, the next one would drop it.
    let again = world.again();
    assert!(!again.of(&"celsius".into()).lock().mirror.has("a"));
    world.set("c", "3", Some(Duration::ZERO)).await.expect("is set");
    assert_eq!((kv.forget_expired(&world.store), kv.forget_expired(&world.store)), (2, 0));
    world.set("a", "set anew", None).await.expect("is set, after the removal");
    assert_eq!(world.stored(), ["a", "b"]);
    assert_eq!(world.get("a").as_deref(), Some("set anew"));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_left_alone() {
    let world = World::granted();
    let row = |key: &[u8], body: &[u8]| {
        let at = Place { table: Table::Kv, group: "celsius".into(), key: key.into() };
        Row::Put { at, weight: 1, body: body.to_vec() }
    };
    world
        .store
        .written(vec![row(b"good", &[1, 0, b'x']), row(b"newer", &[9, 9]), row(&[0xff], &[1, 0])])
        .await
        .expect("is written");
    let again = world.again();
    let items = again.list("celsius", "", None, 9).expect("is known");
    assert_eq!(items.iter().map(|item| &*item.key).collect::<Vec<_>>(), ["good"]);
    assert_eq!(world.store.totals(Table::Kv).expect("reads")[0].1.rows, 3);
}

#[tokio::test]
async fn an_operator_waits_for_a_call_that_runs_alone_and_overtakes_others() {
    let world = World::granted();
    world.set("a", "1", None).await.expect("is set");
    let kv = world.kvs.of(&"celsius".into());
    let read = || {
        let mut call = Transaction::default();
        kv.look(|mirror, now| call.get(mirror, "a", now)).expect("may read");
        call
    };
    let beside = read();
    world.set("a", "2", None).await.expect("is set");
    assert!(kv.misread(&beside) && kv.ready(beside, QUOTA).is_none());

    let alone = kv.alone().await;
    let call = read();
    let mut set = pin!(world.set("a", "3", None));
    assert!(set.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    kv.ready(call, QUOTA).expect("nobody has changed it").apply();
    assert_eq!(world.get("a").as_deref(), Some("2"));
    drop(alone);
    set.await.expect("is set");
    assert_eq!((world.get("a").as_deref(), world.stored().len()), (Some("3"), 1));
}

#[test]
fn a_commit_names_what_it_rests_on() {
    let kv = Kv::detached("celsius".into());
    let commit = |work: &dyn Fn(&mut Transaction, &Mirror)| {
        let mut call = Transaction::default();
        kv.look(|mirror, _| work(&mut call, mirror));
        let ready = kv.ready(call, QUOTA).expect("nobody else is there");
        let commit = ready.commit();
        ready.apply();
        commit
    };
    assert!(commit(&|_, _| ()).is_none());
    let put = |call: &mut Transaction, mirror: &Mirror| {
        call.set(mirror, QUOTA, "a", Value::new(Bytes::new(), None, 0), 0).expect("fits");
    };
    let commit_of_a_write = commit(&put).expect("writes");
    assert_eq!((commit_of_a_write.rows.len(), commit_of_a_write.reads.len()), (1, 0));
    assert_eq!(commit_of_a_write.writes[..], [kv.touch("a")]);
    let list = |call: &mut Transaction, mirror: &Mirror| {
        call.keys(mirror, ("", None), 9, 0).expect("may list");
    };
    // What it sees, and that there is no more: what was removed is not seen.
    assert_eq!(commit(&list).expect("reads").reads[..], [kv.touch("a"), kv.removals()]);
    let delete = |call: &mut Transaction, mirror: &Mirror| call.delete(mirror, "a", 0).expect("may delete");
    let commit_of_a_removal = commit(&delete).expect("writes");
    assert_eq!(commit_of_a_removal.writes[..], [kv.touch("a"), kv.removals()]);
    let in_vain = commit(&delete).expect("rests on the removal before");
    assert_eq!((in_vain.rows.len(), &in_vain.writes[..]), (0, &[kv.touch("a")][..]));
    assert_ne!(kv.touch("a"), Kv::detached("kelvin".into()).touch("a"));
}
