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
    eprintln!("{:?} {:?}", bench.to_plant.counts(), bench.to_cloud.counts());
    // What is unacknowledged at one of two brokers alone is rare, and a kill between two messages too.
    assert!(interrupted >= kills * 9 / 10, "only {interrupted} of {kills} kills hit messages in flight");
    let verdict = bench.finish(&row, &format!("{kills} kills"));
    // At most what the daemon had taken in comes again.
    let most = kills * 64;
    assert!(verdict.duplicates <= most, "{} duplicates of {most} that {kills} kills explain", verdict.duplicates);
}
