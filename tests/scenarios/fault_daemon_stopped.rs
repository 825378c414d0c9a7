//! The daemon is stopped in order and started again in the middle of a stream: nothing is lost, each topic stays in order, and
//! what was finished within `shutdown-grace` does not run again.

use tidegate_tests::fault::{Row, Setup};
use tidegate_tests::{Protocol, on_both_protocols};

on_both_protocols!(nothing_is_lost_and_nothing_runs_twice);

/// In each protocol.
const STOPS: usize = 4;

fn nothing_is_lost_and_nothing_runs_twice(protocol: Protocol) {
    let row = Row::begin("fault_daemon_stopped");
    let stops = row.scaled(STOPS);
    let mut bench = Setup::new(&row, protocol).start();
    let messages = bench.ledger.flow().count();
    let mut interrupted = 0;
    for stop in 1..=stops {
        bench.wait_distinct(stop * messages / (stops + 1));
        interrupted += usize::from(bench.to_plant.open() > 0);
        bench.daemon.terminate();
        bench.daemon.restart();
    }
    let verdict = bench.finish(&row, &format!("{stops} stops"));
    assert_eq!(verdict.duplicates, 0, "what was handled is acknowledged before the end");
    assert_eq!(interrupted, stops, "a stop between two messages shows nothing");
}
