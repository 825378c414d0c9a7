//! The store as its users see it, on a disk in memory; `faults.rs` breaks that disk, `files.rs` has the real one.

mod faults;
mod files;
mod memory;

use std::sync::mpsc;

use prometheus::Registry;

pub use self::memory::Memory;
use super::disk::Disk;
use super::opening::Check;
use super::*;

pub fn meters() -> Arc<StoreMeters> {
    Arc::new(StoreMeters::new(&Registry::new()).expect("families are well formed"))
}

/// A store on a disk in memory.
pub fn on(disk: &Memory) -> (Store, StoreWriter) {
    let opened = opening::open(disk, disk.open(), Check::AfterCrash).expect("memory can be read");
    Store::on(File::new(Box::new(disk.clone()), opened), meters()).expect("the thread starts")
}

fn put(group: &str, number: u64, body: &[u8]) -> Row {
    let at = Place::numbered(Table::Outbox, group.into(), number);
    Row::Put { at, weight: body.len() as u32, body: body.to_vec() }
}

fn delete(group: &str, number: u64) -> Row {
    Row::Delete { at: Place::numbered(Table::Outbox, group.into(), number) }
}

/// Writes rows and waits until they are synced.
fn write(store: &Store, rows: Vec<Row>) {
    let (sender, done) = mpsc::channel();
    store.submit(rows, move || sender.send(()).expect("is waited for"));
    done.recv().expect("is written");
}

fn numbers(store: &Store, group: &str, from: u64, most: (usize, usize)) -> Vec<u64> {
    let found = store.read(Table::Outbox, group, &from.to_be_bytes(), most).expect("reads");
    found.iter().filter_map(|found| number(&found.key)).collect()
}

#[test]
fn reading_begins_where_it_is_told_and_is_bounded() {
    let (store, _writer) = Store::in_memory();
    assert_eq!(store.last(Table::Outbox, "a").expect("reads"), None);
    write(&store, (0..10).map(|number| put("a", number, b"xy")).chain([put("b", 77, b"")]).collect());
    assert_eq!(numbers(&store, "a", 3, (2, 1000)), [3, 4]);
    assert_eq!(numbers(&store, "a", 8, (9, 1000)), [8, 9]);
    assert_eq!(numbers(&store, "a", 0, (9, 5)), [0, 1, 2], "as much as fills so many bytes");
    assert_eq!(numbers(&store, "a", 0, (9, 0)), [0], "one at least");
    let back = |before: u64, most| {
        let found = store.read_back(Table::Outbox, "a", &before.to_be_bytes(), most).expect("reads");
        found.iter().filter_map(|found| number(&found.key)).collect::<Vec<_>>()
    };
    assert_eq!((back(u64::MAX, (2, 1000)), back(3, (9, 1000))), (vec![9, 8], vec![2, 1, 0]));
    assert_eq!((back(8, (9, 5)), back(8, (9, 0)), back(0, (9, 9))), (vec![7, 6, 5], vec![7], vec![]));
    assert_eq!(store.last(Table::Outbox, "a").expect("reads").as_deref().and_then(number), Some(9));
}

#[test]
fn a_row_that_is_written_again_counts_once() {
    let (store, _writer) = Store::in_memory();
    write(&store, vec![put("a", 1, b"one")]);
    write(&store, vec![put("a", 1, b"longer"), delete("a", 5)]);
    assert_eq!(store.totals(Table::Outbox).expect("reads"), [("a".into(), Total { rows: 1, weight: 6 })]);
    write(&store, vec![delete("a", 1), delete("a", 1)]);
    assert_eq!(store.totals(Table::Outbox).expect("reads"), []);
}

#[tokio::test]
async fn a_command_waits_until_its_rows_are_written_and_is_told_when_they_never_are() {
    let (store, writer) = Store::in_memory();
    assert_eq!(store.written(vec![put("a", 1, b"one")]).await, Ok(()));
    assert_eq!(numbers(&store, "a", 0, (9, 9)), [1]);
    writer.close();
    assert_eq!(store.written(vec![put("a", 2, b"two")]).await, Err(Unwritten::Stopping));
    assert_eq!(numbers(&store, "a", 0, (9, 9)), [1]);
}
