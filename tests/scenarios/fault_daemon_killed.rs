//! The daemon is killed again and again in the middle of a stream: nothing is lost, each topic stays in order.

use tidegate_tests::fault::{Row, Setup};
use tidegate_tests::{Protocol, on_both_protocols};

on_both_protocols!(nothing_is_lost_and_each_topic_stays_in_order);

/// In each protocol.
const KILLS: usize = 10;

fn nothing_is_lost_and_each_topic_stays_in_order(protocol: Protocol) {
    let row = Row::begin("fault_daemon_killed");
    let kills = row.scaled(KILLS);
    let mut bench = Setup::new(&row, protocol).start();
    let messages = bench.ledger.flow().count();
    for kill in 1..=kills {
        bench.ledger.wait_distinct(kill * messages / (kills + 1));
        bench.daemon.kill();
        bench.daemon.restart();
    }
    let interrupted = bench.to_plant.counts().interrupted;
    bench.finish(&row, &format!("{kills} kills"));
    assert_eq!(interrupted, kills, "a kill between two messages shows nothing");
}
