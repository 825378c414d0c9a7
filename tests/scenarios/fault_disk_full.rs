//! The disk of the state is full in the middle of a stream, and has room again: nothing is lost, nothing is acknowledged that is not
//! safe, and it goes on by itself.
//!
//! What is acknowledged while the disk is full is held against what comes out after the daemon was killed in that moment: what it had
//! acknowledged is not sent to the next one.

use tidegate_tests::Daemon;
use tidegate_tests::disk::{Disk, Means};
use tidegate_tests::fault::{Bench, On, Row, STUCK, Setup, relay};
use tidegate_tests::{Protocol, on_disk, wait};

on_disk!(nothing_is_lost_and_it_goes_on_by_itself);

/// Inputs a second, whether they are taken or not.
const RATE: u32 = 5000;

/// What waits for the target has room in its outbox: it is the disk that is full.
const WIDE: &str = "outbox.max-messages = 100000";

fn nothing_is_lost_and_it_goes_on_by_itself(on: On) {
    let row = Row::begin("fault_disk_full", on);
    // A small file system on one protocol, where that is permitted, and a limit on the other.
    let disk = Disk::new(if on.protocol == Protocol::V5 { Means::FileSystem } else { Means::Limit });
    let (state, means) = (disk.state(), disk.means());
    let setup = Setup::new(&row).cloud(WIDE).tables(move |config| relay(config.state(state), "")).rate(RATE).until(0);
    let mut bench = setup.start();
    let count = bench.ledger.flow().count();
    // So that what waits grows, and the disk is needed.
    bench.cloud.stop();

    // It has room again, and the daemon goes on by itself.
    let first = until_full(&bench, &disk, 0, count / 2);
    assert!(first < count / 2, "all of {first} fitted: the disk was not full");
    disk.free(Some(&bench.daemon));
    healthy(&bench.daemon, true);
    acknowledged(&bench, count / 2);
    assert_eq!(bench.to_plant.counts().connections, 1, "the source's connection stood");

    // It is killed while it is full.
    let second = until_full(&bench, &disk, count / 2, count);
    bench.daemon.kill();
    disk.free(None);
    bench.daemon.launch_again();
    bench.daemon.wait_broker("plant");
    bench.cloud.restart();
    bench.finish(&row, &format!("{means:?} full twice, with {first} and {second} inputs acknowledged"));
}

/// Fills the disk and sends further messages, up to this place, until the daemon says that it is full and messages wait. How many it
/// has acknowledged then.
#[track_caller]
fn until_full(bench: &Bench, disk: &Disk, from: usize, to: usize) -> usize {
    acknowledged(bench, from);
    disk.fill(&bench.daemon);
    bench.sender.release_until(to);
    healthy(&bench.daemon, false);
    let told = bench.daemon.wait_not_ready();
    assert!(told.contains("the disk of the state directory is full since"), "{told}");
    bench.daemon.wait_metrics("messages wait", |metrics| metrics.in_progress("plant") > 0.0);
    // In the order of arrival: of those that are final, some may be behind one that waits for room.
    let acknowledged = bench.to_plant.counts().acknowledged;
    let finished = bench.daemon.metrics().finished_all("plant");
    assert!(acknowledged as f64 <= finished, "{acknowledged} inputs are acknowledged, {finished} are final");
    acknowledged
}

/// Waits until so many inputs are acknowledged.
#[track_caller]
fn acknowledged(bench: &Bench, count: usize) {
    bench.to_plant.wait(STUCK, "what came is acknowledged", |counts| counts.acknowledged >= count);
}

#[track_caller]
fn healthy(daemon: &Daemon, healthy: bool) {
    let wanted = format!("tidegate_store_healthy {}", u8::from(healthy));
    wait::until_within(STUCK, format!("the store is healthy: {healthy}"), || {
        let page = daemon.metrics().page;
        if page.lines().any(|line| line == wanted) { Ok(()) } else { Err("it is not") }
    });
}
