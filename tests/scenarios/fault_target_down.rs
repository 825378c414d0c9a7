//! The broker that gets the outputs is down for a third of the run: they wait in its outbox, the inputs wait unacknowledged at
//! their own broker, and nothing is lost.

use std::time::{Duration, Instant};

use tidegate_tests::fault::{Bench, Cut, PATIENT, Row, Setup};
use tidegate_tests::{Protocol, on_both_protocols};

on_both_protocols!(
    outputs_wait_for_their_broker_and_inputs_stay_unacknowledged,
    a_full_outbox_holds_the_source_broker_back,
);

/// Inputs a second, whether they come out or not.
const RATE: u32 = 2500;

/// What mosquitto has in flight to a client on 3.1.1, unless told otherwise.
const MOSQUITTO_IN_FLIGHT: usize = 20;

fn outputs_wait_for_their_broker_and_inputs_stay_unacknowledged(protocol: Protocol) {
    let row = Row::begin("fault_target_down");
    let setup = Setup::new(&row, protocol);
    run(&row, setup, |waiting, in_progress| waiting == in_progress);
}

fn a_full_outbox_holds_the_source_broker_back(protocol: Protocol) {
    // Less than the source broker has on its way.
    let small = if protocol == Protocol::V5 { 100 } else { MOSQUITTO_IN_FLIGHT / 2 };
    let row = Row::begin("fault_target_down");
    let setup = Setup::new(&row, protocol)
        .plant("receive-maximum = 300")
        .cloud(&format!("outbox = {{ max-messages = {small} }}"))
        .tables(|config| {
            let keys = "allow = { publish = [\"cloud:out/#\"] }\nmax-publishes = 1\n\
                        config = { broker = \"cloud\", topic = \"out/{topic}\" }\ninstances = 2";
            let keys = format!("{keys}\n{PATIENT}");
            config.handler("relay", "relay.wasm", &keys).subscription("plant", "in/#", 1, "relay", "")
        });
    run(&row, setup, |waiting, in_progress| waiting == small as f64 && in_progress > waiting);
}

/// `full` is given how many outputs wait and how many inputs are in progress, and tells whether nothing can move.
fn run(row: &Row, setup: Setup, full: impl Fn(f64, f64) -> bool) {
    let mut bench = setup.rate(RATE).start();
    let count = bench.ledger.flow().count();
    let mut down = Duration::ZERO;

    bench.sender.wait_acknowledged(count / 6);
    let since = Instant::now();
    bench.cloud.stop();
    holds_until(&bench, count / 3, &full);
    bench.cloud.restart();
    down += since.elapsed();
    bench.ledger.wait_distinct(count / 3);

    bench.sender.wait_acknowledged(count / 2);
    let since = Instant::now();
    bench.to_cloud.turn_away(true);
    assert_eq!(bench.to_cloud.cut(Cut::Reset), 1, "the daemon was connected to the target broker");
    // What the broker has acknowledged and then forgets is not the daemon's loss.
    bench.collector.drain();
    bench.cloud.save();
    bench.cloud.kill();
    holds_until(&bench, count * 2 / 3, &full);
    bench.cloud.restart();
    bench.to_cloud.turn_away(false);
    down += since.elapsed();

    bench.ledger.wait_distinct(count);
    let metrics = bench.daemon.metrics();
    assert_eq!(metrics.finished("plant", "handled"), metrics.finished_all("plant"), "nothing was dropped");
    let turned_away = bench.to_cloud.counts().turned_away;
    assert!(turned_away > 1, "the daemon has tried {turned_away} times");
    // What was on its way from the target broker to the collector when the broker was saved.
    let broken = format!("target down for {:.1} s, {turned_away} connections refused", down.as_secs_f64());
    bench.finish_after_deaths_of_target(row, &broken, MOSQUITTO_IN_FLIGHT);
}

/// Holds that nothing more is acknowledged, until so many inputs are sent.
#[track_caller]
fn holds_until(bench: &Bench, sent: usize, full: impl Fn(f64, f64) -> bool) {
    let metrics = bench.daemon.wait_metrics("nothing moves", |metrics| {
        let waiting = metrics.sum("tidegate_outbox_messages", &[("broker", "cloud")]);
        metrics.sum("tidegate_broker_connected", &[("broker", "cloud")]) == 0.0
            && full(waiting, metrics.in_progress("plant"))
    });
    bench.sender.wait_acknowledged(sent);
    let finished = metrics.finished_all("plant");
    assert_eq!(bench.daemon.metrics().finished_all("plant"), finished, "inputs are final whose outputs wait");
    // In the order of arrival: of those that are final, some may be behind one that is not.
    let acknowledged = bench.to_plant.counts().acknowledged as f64;
    assert!(acknowledged <= finished, "{acknowledged} inputs are acknowledged, {finished} are final");
}
