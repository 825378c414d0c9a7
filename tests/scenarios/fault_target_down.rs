//! The broker that gets the outputs is down for half of the time until its last return: they wait in its outbox, the inputs wait unacknowledged at
//! their own broker, and nothing is lost.

use std::time::{Duration, Instant};

use tidegate_tests::fault::{Bench, Cut, On, Row, STUCK, Setup, relay};
use tidegate_tests::{Protocol, on_both_protocols, wait};

on_both_protocols!(
    outputs_wait_for_their_broker_and_inputs_stay_unacknowledged,
    a_full_outbox_holds_the_source_broker_back,
);

/// Inputs a second, whether they come out or not.
const RATE: u32 = 2500;

/// What mosquitto has in flight to a client on 3.1.1, unless told otherwise.
const MOSQUITTO_IN_FLIGHT: usize = 20;

fn outputs_wait_for_their_broker_and_inputs_stay_unacknowledged(protocol: Protocol) {
    let row = Row::begin("fault_target_down", On::memory(protocol));
    let setup = Setup::new(&row);
    run(&row, setup, |waiting, in_progress| waiting == in_progress);
}

fn a_full_outbox_holds_the_source_broker_back(protocol: Protocol) {
    // Less than the source broker has on its way.
    let small = if protocol == Protocol::V5 { 100 } else { MOSQUITTO_IN_FLIGHT / 2 };
    let row = Row::begin("fault_target_down", On::memory(protocol));
    let setup = Setup::new(&row)
        .plant("receive-maximum = 300")
        .cloud(&format!("outbox.max-messages = {small}"))
        .tables(|config| relay(config, "max-publishes = 1"));
    run(&row, setup, |waiting, in_progress| waiting == small as f64 && in_progress > waiting);
}

/// `full` is given how many outputs wait and how many inputs are in progress, and tells whether nothing can move.
fn run(row: &Row, setup: Setup, full: impl Fn(f64, f64) -> bool) {
    let mut bench = setup.rate(RATE).start();
    let (begun, count) = (Instant::now(), bench.ledger.flow().count());
    let mut down = Duration::ZERO;

    // What came before an outage is known, and enough is sent in it, however slow the machine is.
    bench.sender.send_until(count / 6);
    bench.ledger.wait_distinct(count / 6);
    let since = Instant::now();
    bench.cloud.stop();
    holds_until(&bench, count / 3, &full);
    wait_half(begun, down, since);
    bench.cloud.restart();
    down += since.elapsed();
    bench.ledger.wait_distinct(count / 3);

    bench.sender.send_until(count * 2 / 3);
    let since = Instant::now();
    bench.to_cloud.turn_away(true);
    assert_eq!(bench.to_cloud.cut(Cut::Reset), 1, "the daemon was connected to the target broker");
    // What the broker has acknowledged and then forgets is not the daemon's loss.
    bench.collector.drain();
    bench.cloud.save();
    bench.cloud.kill();
    holds_until(&bench, count * 5 / 6, &full);
    bench.to_cloud.wait(STUCK, "the daemon tries to connect, more than once", |counts| counts.turned_away > 1);
    wait_half(begun, down, since);
    bench.cloud.restart();
    bench.to_cloud.turn_away(false);
    down += since.elapsed();
    assert!(down * 3 >= begun.elapsed(), "down for {down:?} of {:?}", begun.elapsed());

    bench.sender.release();
    bench.ledger.wait_distinct(count);
    let metrics = bench.daemon.metrics();
    assert_eq!(metrics.finished("plant", "handled"), metrics.finished_all("plant"), "nothing was dropped");
    let refused = bench.to_cloud.counts().turned_away;
    let (down, all) = (down.as_secs_f64(), begun.elapsed().as_secs_f64());
    let broken = format!("target down for {down:.1} of {all:.1} s, {refused} connections refused");
    // What was on its way from the target broker to the collector when the broker was saved.
    bench.finish_after_deaths_of_target(row, &broken, MOSQUITTO_IN_FLIGHT);
}

/// Waits until the target was down for half of the time so far: some is still to come in which it is not.
#[track_caller]
fn wait_half(begun: Instant, before: Duration, since: Instant) {
    wait::until_within(STUCK, "the target was down for long enough", || {
        let (down, all) = (before + since.elapsed(), begun.elapsed());
        if down * 2 >= all { Ok(()) } else { Err(format!("down for {down:?} of {all:?}")) }
    });
}

/// Sends so many inputs, and holds that none is acknowledged but those whose outputs the collector has: the target is down.
#[track_caller]
fn holds_until(bench: &Bench, sent: usize, full: impl Fn(f64, f64) -> bool) {
    bench.sender.send_until(sent);
    bench.daemon.wait_metrics("nothing moves", |metrics| {
        let waiting = metrics.sum("tidegate_outbox_messages", &[("broker", "cloud")]);
        metrics.sum("tidegate_broker_connected", &[("broker", "cloud")]) == 0.0
            && waiting > 0.0
            && full(waiting, metrics.in_progress("plant"))
    });
    let acknowledged = bench.to_plant.acknowledged();
    let lacking = bench.ledger.lacking(&acknowledged);
    assert!(lacking.is_empty(), "acknowledged before their outputs came: {lacking:?}");
    // In the order of arrival: of those that are final, some may be behind one that is not.
    let (acknowledged, finished) = (acknowledged.len() as f64, bench.daemon.metrics().finished_all("plant"));
    assert!(acknowledged <= finished, "{acknowledged} inputs are acknowledged, {finished} are final");
    // Each final one has its output: those that came are known.
    let came = bench.ledger.distinct() as f64;
    assert!(finished <= came, "{finished} inputs are final, {came} have an output");
}
