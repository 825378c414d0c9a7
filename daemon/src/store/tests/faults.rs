//! What becomes of what was submitted when the disk is full, fails, or the daemon is gone in the middle.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::memory::{Memory, Op};
use super::*;

/// Waits for a condition that other threads bring about.
fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

/// Submits rows and gives what tells whether they are done.
fn submitted(store: &Store, rows: Vec<Row>) -> Arc<AtomicBool> {
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    store.submit(rows, move || tell.store(true, Ordering::SeqCst));
    told
}

fn is(told: &AtomicBool) -> bool {
    told.load(Ordering::SeqCst)
}

fn is_full(store: &Store) -> bool {
    matches!(store.health(), Health::Full { .. })
}

fn failed(store: &Store) -> Option<Arc<str>> {
    if let Health::Failed { why, .. } = store.health() { Some(why) } else { None }
}

const ALL: (usize, usize) = (usize::MAX, usize::MAX);

#[test]
fn a_full_disk_makes_all_wait_in_order_and_goes_on_when_there_is_room() {
    let disk = Memory::default();
    let (store, _writer) = on(&disk);
    write(&store, (0..50).map(|number| put("a", number, &[1; 300])).collect());
    disk.leave_room(1);
    let big = submitted(&store, (100..600).map(|number| put("a", number, &[2; 300])).collect());
    until("it is full", || is_full(&store));
    let (sender, order) = mpsc::channel();
    for number in [1, 2] {
        let sender = sender.clone();
        store.submit(vec![put("b", 1, &[number])], move || sender.send(number).expect("is waited for"));
    }
    let opened = disk.opened();
    disk.until_opened(opened + 2);
    assert!(!is(&big), "it is not there");
    assert_eq!(numbers(&store, "a", 0, ALL).len(), 50, "what is there can be read");
    disk.make_room();
    assert_eq!([order.recv(), order.recv()], [Ok(1), Ok(2)]);
    assert!(is(&big));
    until("it is good", || store.health() == Health::Good);
    assert!(disk.has_ballast());
    assert_eq!(numbers(&store, "a", 0, ALL).len(), 550);
    let found = store.read(Table::Outbox, "b", &[], ALL).expect("reads");
    assert_eq!(found[0].body, [2], "the later one stays");
}

#[test]
fn removals_get_through_on_a_full_disk_and_make_room_by_themselves() {
    let disk = Memory::default();
    let (store, _writer) = on(&disk);
    write(&store, (0..1000).map(|number| put("a", number, &[1; 300])).collect());
    disk.leave_room(0);
    let big = submitted(&store, (2000..2400).map(|number| put("a", number, &[2; 300])).collect());
    until("it is full", || is_full(&store));
    // With nothing but these pages: the disk itself stays full.
    let removed = submitted(&store, (0..500).map(|number| delete("a", number)).collect());
    store.submit_later((500..1000).map(|number| delete("a", number)));
    until("the removals are written", || is(&removed));
    until("what waited found the room", || is(&big));
    assert_eq!(numbers(&store, "a", 0, ALL), (2000..2400).collect::<Vec<_>>());
    until("it is good", || store.health() == Health::Good);
    assert!(disk.has_ballast());
}

#[test]
fn a_disk_that_is_full_at_the_start_is_told_of() {
    let disk = Memory::default();
    let (store, writer) = on(&disk);
    write(&store, vec![put("a", 1, b"one")]);
    writer.close();
    drop(store);
    disk.release().expect("is memory");
    disk.leave_room(2);
    let (store, _writer) = on(&disk);
    until("it is full", || is_full(&store));
    assert_eq!(numbers(&store, "a", 0, ALL), [1]);
    disk.make_room();
    until("it is good", || store.health() == Health::Good);
}

#[test]
fn a_stop_does_not_wait_for_room() {
    let disk = Memory::default();
    let (store, writer) = on(&disk);
    write(&store, vec![put("a", 1, b"one")]);
    disk.leave_room(0);
    let told = submitted(&store, (2..900).map(|number| put("a", number, &[2; 300])).collect());
    until("it is full", || is_full(&store));
    writer.close();
    assert!(!is(&told));
    assert_eq!(Arc::strong_count(&told), 1, "what it held is dropped");
    drop(store);
    let (store, _writer) = on(&disk.crashed(|| true));
    assert_eq!(numbers(&store, "a", 0, ALL), [1]);
}

#[test]
fn after_a_failed_sync_nothing_is_written_or_told_as_done_until_the_next_start() {
    let disk = Memory::default();
    let (store, writer) = on(&disk);
    write(&store, vec![put("a", 1, b"one")]);
    // It fails once: what comes after it would seem to be synced.
    disk.fail(Op::Sync, 0, ErrorKind::Other);
    let second = submitted(&store, vec![put("a", 2, b"two")]);
    until("it has failed", || failed(&store).is_some());
    disk.heal();
    let synced = disk.syncs();
    let third = submitted(&store, vec![put("a", 3, b"three")]);
    assert!(numbers(&store, "a", 0, ALL).contains(&1), "what is there can be read");
    writer.close();
    assert!(!is(&second) && !is(&third));
    assert_eq!(disk.syncs(), synced, "the disk is left alone");
    assert!(failed(&store).expect("has failed").contains("cannot be synced"));
}

#[test]
fn a_full_disk_that_shows_in_a_sync_is_a_failed_sync() {
    let disk = Memory::default();
    let (store, _writer) = on(&disk);
    write(&store, vec![put("a", 1, b"one")]);
    disk.fail(Op::Sync, 0, ErrorKind::StorageFull);
    let told = submitted(&store, vec![put("a", 2, b"two")]);
    until("it has failed", || failed(&store).is_some());
    assert!(!is(&told));
}

#[test]
fn an_error_of_writing_or_reading_ends_the_writing() {
    for op in [Op::Write, Op::SetLen, Op::Read] {
        let disk = Memory::default();
        let (store, _writer) = on(&disk);
        write(&store, (0..3000).map(|number| put("a", number, &[7; 4000])).collect());
        disk.fail(op, 0, ErrorKind::Other);
        let told = submitted(&store, (0..3000).map(|number| put("b", number, &[7; 4000])).collect());
        until("it has failed", || failed(&store).is_some());
        assert!(!is(&told), "{op:?}");
        assert!(failed(&store).expect("has failed").contains("cannot be read or written"), "{op:?}");
        disk.heal();
    }
}

#[test]
fn damage_that_shows_in_use_ends_the_writing_and_no_thread() {
    let disk = Memory::default();
    let (store, writer) = on(&disk);
    write(&store, (0..3000).map(|number| put("a", number, &[7; 4000])).collect());
    disk.spoil(|bytes| bytes[8192..].fill(0xa5));
    let told = submitted(&store, (0..3000).map(|number| put("a", number, &[8; 4000])).collect());
    until("it has failed", || failed(&store).is_some());
    assert!(!is(&told));
    assert!(failed(&store).expect("has failed").contains("is damaged"));
    let error = store.read(Table::Outbox, "a", &[], ALL).expect_err("is damaged").to_string();
    assert!(error.starts_with("memory is damaged"), "{error}");
    writer.close();
}

#[tokio::test]
async fn a_command_is_refused_where_it_would_wait_without_end() {
    let disk = Memory::default();
    let (store, _writer) = on(&disk);
    assert_eq!(store.written(vec![put("a", 1, b"one")]).await, Ok(()));
    disk.leave_room(0);
    store.submit((2..900).map(|number| put("a", number, &[2; 300])).collect(), || {});
    until("it is full", || is_full(&store));
    assert_eq!(store.written(vec![put("a", 2, b"two")]).await, Err(Unwritten::Full));
    assert_eq!(store.written(vec![delete("a", 1)]).await, Ok(()));
    disk.fail(Op::Sync, 0, ErrorKind::Other);
    disk.make_room();
    let refused = store.written(vec![delete("a", 1)]).await.expect_err("fails while it waits");
    assert!(matches!(&refused, Unwritten::Failed(why) if why.contains("cannot be synced")), "{refused}");
    assert_eq!(store.written(vec![delete("a", 1)]).await, Err(refused));
}

#[test]
fn one_transaction_costs_one_sync() {
    let disk = Memory::default();
    let (store, _writer) = on(&disk);
    write(&store, vec![put("a", 1, b"one")]);
    let before = disk.syncs();
    (2..12).for_each(|number| write(&store, vec![put("a", number, b"x")]));
    assert_eq!(disk.syncs() - before, 10);
}

/// What a run does at one point.
#[derive(Clone, Debug)]
enum Step {
    /// Writes rows under these numbers: a number stands for its body too.
    Put(Vec<u64>),
    Delete(Vec<u64>),
    /// From so many operations on this one fails.
    Fail(Op, u32, ErrorKind),
    Heal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let numbers = || proptest::collection::vec(0..200_u64, 1..60);
    let op = prop_oneof![Just(Op::Read), Just(Op::Write), Just(Op::SetLen), Just(Op::Sync)];
    let kind = prop_oneof![Just(ErrorKind::Other), Just(ErrorKind::StorageFull), Just(ErrorKind::FileTooLarge)];
    let step = prop_oneof![
        6 => numbers().prop_map(Step::Put),
        3 => numbers().prop_map(Step::Delete),
        1 => (op, 0..20_u32, kind).prop_map(|(op, after, kind)| Step::Fail(op, after, kind)),
        2 => Just(Step::Heal),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Each transaction writes its own number under a key of its own too, so that what is there tells which were written.
    #[test]
    fn what_was_told_as_done_is_there_after_a_crash_and_nothing_in_part(steps in steps(), kept in any::<u64>()) {
        let disk = Memory::default();
        let (store, writer) = on(&disk);
        let mut told = Vec::new();
        let mut transactions = Vec::new();
        for step in steps {
            let rows = match step {
                Step::Put(numbers) => {
                    let stamp = transactions.len() as u64;
                    let body: Vec<u8> = stamp.to_le_bytes().repeat(60);
                    numbers.into_iter().map(|number| put("a", number, &body)).collect()
                }
                Step::Delete(numbers) => numbers.into_iter().map(|number| delete("a", number)).collect(),
                Step::Fail(op, after, kind) => {
                    disk.fail(op, after, kind);
                    continue;
                }
                Step::Heal => {
                    disk.heal();
                    continue;
                }
            };
            let mut rows: Vec<Row> = rows;
            // It also puts a row, so that it passes nothing.
            rows.push(put("stamps", transactions.len() as u64, b""));
            transactions.push(rows.clone());
            let done = submitted(&store, rows);
            // Some are grouped, others are not.
            if transactions.len() % 3 == 0 {
                let end = Instant::now() + Duration::from_millis(20);
                while !is(&done) && Instant::now() < end {
                    std::thread::yield_now();
                }
            }
            told.push(done);
        }
        let done = told.iter().filter(|told| is(told)).count();
        prop_assert!(told[..done].iter().all(|told| is(told)), "in order");
        let mut bits = kept;
        let crashed = disk.crashed(|| {
            bits = bits.rotate_left(1) ^ 0x5bd1_e995;
            bits & 1 == 1
        });
        disk.heal();
        writer.close();
        let (store, _writer) = on(&crashed);
        let stamps = numbers(&store, "stamps", 0, ALL);
        prop_assert!(stamps.len() >= done, "{done} were told as done, {} are there", stamps.len());
        prop_assert_eq!(&stamps, &(0..stamps.len() as u64).collect::<Vec<_>>(), "in order, without a gap");
        let mut model = std::collections::BTreeMap::new();
        for row in transactions.iter().take(stamps.len()).flatten() {
            let key = number(&row.place().key).expect("is a number");
            match row {
                Row::Put { at, body, .. } if &*at.group == "a" => drop(model.insert(key, body.clone())),
                Row::Put { .. } => {}
                Row::Delete { .. } => drop(model.remove(&key)),
            }
        }
        let found = store.read(Table::Outbox, "a", &[], ALL).expect("reads");
        let found: std::collections::BTreeMap<_, _> =
            found.into_iter().map(|found| (number(&found.key).expect("is a number"), found.body)).collect();
        let totals = store.totals(Table::Outbox).expect("reads");
        let rows = totals.iter().find(|(group, _)| &**group == "a").map_or(0, |(_, total)| total.rows);
        prop_assert_eq!(rows, model.len() as u64);
        prop_assert_eq!(found, model);
    }
}
