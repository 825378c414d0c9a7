//! The daemon is killed again and again in the middle of a stream: nothing is lost, each topic stays in order.

use tidegate_tests::fault::{Direction, Mode, Proxy, Row, STUCK, Setup};
use tidegate_tests::{Protocol, on_both_protocols, wait};

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
        // The target's acknowledgements are kept back, so that the kill meets publishes on their way, and inputs that wait for them.
        bench.to_cloud.set(Direction::Down, Mode::Stall);
        wait::until_within(STUCK, "messages are on their way to the daemon and from it", || {
            let open = [&bench.to_plant, &bench.to_cloud].map(Proxy::open);
            if open.contains(&0) { Err(format!("{open:?}")) } else { Ok(()) }
        });
        bench.daemon.kill();
        bench.to_cloud.wait(STUCK, "the kill met publishes on their way", |counts| counts.interrupted >= kill);
        bench.to_cloud.set(Direction::Down, Mode::Pass);
        bench.daemon.restart();
    }
    let interrupted = [&bench.to_plant, &bench.to_cloud].map(|proxy| proxy.counts().interrupted);
    let [source, target] = interrupted;
    let broken = format!("{kills} kills, {source} met messages from the source, {target} to the target");
    bench.finish(&row, &broken);
    assert!(interrupted.iter().all(|met| *met >= kills), "of {kills} kills met messages: {interrupted:?}");
}
