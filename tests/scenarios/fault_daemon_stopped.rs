//! The daemon is stopped in order and started again in the middle of a stream: nothing is lost, each topic stays in order, and
//! what was finished within `shutdown-grace` does not run again.

use tidegate_tests::fault::{On, Row, STUCK, Setup};
use tidegate_tests::{on_both_stores, wait};

on_both_stores!(nothing_is_lost_and_nothing_runs_twice);

/// In each protocol.
const STOPS: usize = 4;

fn nothing_is_lost_and_nothing_runs_twice(on: On) {
    let row = Row::begin("fault_daemon_stopped", on);
    let stops = row.scaled(STOPS);
    let mut bench = Setup::new(&row).start();
    let messages = bench.ledger.flow().count();
    for stop in 1..=stops {
        bench.wait_distinct(stop * messages / (stops + 1));
        wait::until_within(STUCK, "messages are on their way", || match bench.to_plant.open() {
            0 => Err("none"),
            _ => Ok(()),
        });
        bench.daemon.terminate();
        bench.daemon.restart();
    }
    let verdict = bench.finish(&row, &format!("{stops} stops"));
    assert_eq!(verdict.duplicates, 0, "what was handled is acknowledged before the end");
}
