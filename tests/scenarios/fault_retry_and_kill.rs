//! A handler that fails and traps now and then, while connections are cut and the daemon is killed: what was to be called again
//! is not lost, and its topic stays in order.

use tidegate_tests::fault::{Bench, Cut, Direction, On, PATIENT, Row, STUCK, Setup};
use tidegate_tests::on_both_stores;

on_both_stores!(nothing_is_lost_and_each_topic_stays_in_order);

/// Kills, and as many cuts of a connection to each broker.
const ROUNDS: usize = 4;

/// Never the end of a message, and long enough that some wait to be called again at any time.
const RETRY: &str = "retry = { max = 1000, backoff = \"5ms..50ms\", max-time = \"1h\" }\ninstances = 2";

fn nothing_is_lost_and_each_topic_stays_in_order(on: On) {
    let mut row = Row::begin("fault_retry_and_kill", on);
    let rounds = row.scaled(ROUNDS);
    let seed = row.random().below(0..1 << 32);
    let guest = format!("mode = \"flaky\", fails = 0.1, traps = 0.01, seed = {seed}, broker = \"cloud\"");
    let mut bench = Setup::new(&row)
        .tables(move |config| {
            config
                .guest("flaky", "cloud", &guest, &format!("{RETRY}\n{PATIENT}"))
                .subscription("plant", "in/#", 1, "flaky", "")
        })
        .start();
    let count = bench.ledger.flow().count();
    let mut failed = 0.0;
    for round in 0..rounds {
        let reach = |step| (round * 3 + step) * count / (rounds * 3 + 1);
        bench.ledger.wait_distinct(reach(1));
        cut(&bench, "plant", row.random().below(1..4_000));
        bench.ledger.wait_distinct(reach(2));
        cut(&bench, "cloud", row.random().below(1..4_000));
        bench.ledger.wait_distinct(reach(3));
        // Its counters die with it.
        failed += failures(&bench);
        bench.daemon.kill();
        bench.daemon.restart();
    }
    bench.ledger.wait_distinct(count);
    failed += failures(&bench);
    assert!(failed > 0.08 * count as f64, "only {failed} calls failed");
    let interrupted = bench.to_plant.counts().interrupted + bench.to_cloud.counts().interrupted;
    assert!(interrupted >= rounds * 2, "only {interrupted} connections ended with messages in flight");
    bench.finish(&row, &format!("{failed} calls failed, {rounds} kills, {} cuts", rounds * 2));
}

/// Calls that were to be made again.
fn failures(bench: &Bench) -> f64 {
    bench.daemon.metrics().sum("tidegate_handler_retries_total", &[("handler", "flaky")])
}

/// Cuts a connection where messages pass, and has it made again.
fn cut(bench: &Bench, broker: &str, bytes: u64) {
    let (proxy, direction) =
        if broker == "plant" { (&bench.to_plant, Direction::Down) } else { (&bench.to_cloud, Direction::Up) };
    let before = proxy.counts();
    proxy.cut_after(direction, bytes, Cut::Reset);
    proxy.wait(STUCK, "a cut", |counts| counts.cuts > before.cuts);
    // An operator does not wait for as long as the daemon does after several cuts.
    bench.daemon.ask(&["brokers", "connect", broker]);
    proxy.wait(STUCK, "another connection", |counts| counts.connections > before.connections);
}
