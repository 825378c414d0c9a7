//! The broker that gets the outputs is down for the first half, and its outbox is on the disk: the source's broker has nothing left to
//! send meanwhile, although the daemon ends and is started again, and everything arrives in order.

use std::collections::BTreeSet;

use tidegate_tests::fault::{Bench, On, Row, STUCK, Setup, relay};
use tidegate_tests::{Daemon, on_disk, wait};

on_disk!(
    what_waits_outlives_stops_and_is_acknowledged,
    what_waits_outlives_kills_and_is_acknowledged,
    a_full_outbox_holds_the_source_broker_back,
);

/// Inputs a second, whether they come out or not.
const RATE: u32 = 5000;

/// How often the daemon ends while the target is down.
const ENDS: usize = 3;

/// What comes again after a kill takes room in the outbox a second time.
const WIDE: &str = "outbox.max-messages = 100000";

/// What a small outbox holds.
const SMALL: usize = 100;

fn what_waits_outlives_stops_and_is_acknowledged(on: On) {
    let (bench, row) = down(on, Daemon::terminate);
    let verdict = bench.finish(&row, &format!("target down for half of the messages, {ENDS} stops meanwhile"));
    assert_eq!(verdict.duplicates, 0, "what was acknowledged is not handled again");
}

fn what_waits_outlives_kills_and_is_acknowledged(on: On) {
    let (bench, row) = down(on, Daemon::kill);
    bench.finish(&row, &format!("target down for half of the messages, {ENDS} kills meanwhile"));
}

/// The target is down for the first half, in which the daemon ends several times.
fn down(on: On, end: fn(&mut Daemon)) -> (Bench, Row) {
    let row = Row::begin("fault_target_down_on_disk", on);
    let mut bench = Setup::new(&row).cloud(WIDE).rate(RATE).until(0).start();
    let half = bench.ledger.flow().count() / 2;
    bench.cloud.stop();
    for round in 1..=ENDS {
        let sent = round * half / ENDS;
        bench.sender.release_until(sent);
        bench.sender.wait_acknowledged((2 * round - 1) * half / (2 * ENDS));
        end(&mut bench.daemon);
        bench.daemon.launch_again();
        bench.daemon.wait_broker("plant");
        bench.sender.wait_acknowledged(sent);
        nothing_is_left_at_the_source(&bench, sent);
    }
    bench.cloud.restart();
    bench.sender.release();
    bench.wait_distinct(bench.ledger.flow().count());
    let metrics = bench.daemon.metrics();
    assert_eq!(metrics.finished("plant", "handled"), metrics.finished_all("plant"), "nothing was dropped");
    (bench, row)
}

/// Waits until so many inputs have been sent to the daemon and acknowledged by it, while none has come out.
#[track_caller]
fn nothing_is_left_at_the_source(bench: &Bench, sent: usize) {
    let flow = bench.ledger.flow();
    wait::until_within(STUCK, "the source's broker has nothing left", || {
        let delivered = bench.to_plant.delivered();
        let places: BTreeSet<_> = delivered
            .iter()
            .map(|message| flow.place(&message.topic, &message.payload).expect("of the flow").1)
            .collect();
        let (came, open) = (places.len(), bench.to_plant.open());
        if (came, open) == (sent, 0) { Ok(()) } else { Err(format!("{came} of {sent} came, {open} unacknowledged")) }
    });
    let metrics = bench.daemon.wait_metrics("each is at its end", |metrics| metrics.in_progress("plant") == 0.0);
    let waiting = metrics.sum("tidegate_outbox_messages", &[("broker", "cloud")]);
    assert!(waiting >= sent as f64, "{sent} inputs are acknowledged, {waiting} outputs wait");
    assert_eq!(bench.ledger.distinct(), 0, "the target is down");
}

fn a_full_outbox_holds_the_source_broker_back(on: On) {
    let row = Row::begin("fault_target_down_on_disk", on);
    let keys = format!("outbox.max-messages = {SMALL}");
    let tables = |config| relay(config, "max-publishes = 1");
    let mut bench = Setup::new(&row).cloud(&keys).tables(tables).rate(RATE).until(0).start();
    let half = bench.ledger.flow().count() / 2;
    bench.cloud.stop();
    bench.sender.send_until(half);
    // What has come in counts as waiting before it is on the disk.
    let full = |bench: &Bench, finished: f64| {
        let metrics = bench.daemon.wait_metrics("nothing moves", |metrics| {
            let waiting = metrics.sum("tidegate_outbox_messages", &[("broker", "cloud")]);
            waiting == SMALL as f64 && metrics.in_progress("plant") > 0.0 && metrics.finished_all("plant") >= finished
        });
        metrics.finished_all("plant")
    };
    assert_eq!(full(&bench, SMALL as f64), SMALL as f64, "what has no room is not acknowledged");
    // In the order of arrival: of those that are final, some may be behind one that is not.
    let acknowledged = bench.to_plant.counts().acknowledged;
    assert!(acknowledged <= SMALL, "{acknowledged} inputs are acknowledged");
    bench.daemon.kill();
    bench.daemon.launch_again();
    assert_eq!(full(&bench, 0.0), 0.0, "what has no room is not acknowledged");
    bench.cloud.restart();
    bench.sender.release();
    bench.finish(&row, &format!("an outbox of {SMALL} messages, full for half of the messages, 1 kill meanwhile"));
}
