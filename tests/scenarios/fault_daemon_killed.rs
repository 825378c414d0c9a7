//! The daemon is killed again and again in the middle of a stream: nothing is lost, each topic stays in order.

use tidegate_tests::fault::{Direction, Mode, On, Proxy, Row, STUCK, Setup};
use tidegate_tests::{on_both_stores, wait};

on_both_stores!(nothing_is_lost_and_each_topic_stays_in_order);

/// In each protocol.
const KILLS: usize = 10;

fn nothing_is_lost_and_each_topic_stays_in_order(on: On) {
    let row = Row::begin("fault_daemon_killed", on);
    let kills = row.scaled(KILLS);
    let mut bench = Setup::new(&row).start();
    let messages = bench.ledger.flow().count();
    for kill in 1..=kills {
        bench.ledger.wait_distinct(kill * messages / (kills + 1));
        // The target's acknowledgements are kept back, so that the kill meets publishes on their way, and inputs that wait for them.
        bench.to_cloud.set(Direction::Down, Mode::Stall);
        wait::until_within(STUCK, "messages are on their way to the daemon and from it", || {
            let open = [&bench.to_plant, &bench.to_cloud].map(Proxy::open);
            // What is on the disk is acknowledged: the source may have nothing open for a moment.
            let needed = if on.on_disk() { &open[1..] } else { &open };
            if needed.contains(&0) { Err(format!("{open:?}")) } else { Ok(()) }
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
    assert!(target >= kills, "of {kills} kills met messages to the target: {target}");
    assert!(on.on_disk() || source >= kills, "of {kills} kills met messages from the source: {source}");
}
