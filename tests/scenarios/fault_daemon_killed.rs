//! The daemon is killed again and again in the middle of a stream: nothing is lost, each topic stays in order.

use std::time::Duration;

use tidegate_tests::fault::{Direction, Mode, Proxy, Row, STUCK, Setup};
use tidegate_tests::{Protocol, on_both_protocols, wait};

on_both_protocols!(nothing_is_lost_and_each_topic_stays_in_order);

/// In each protocol.
const KILLS: usize = 10;

/// The target's acknowledgements come this much later, so that a kill meets publishes on their way.
const LATE: Duration = Duration::from_millis(20);

fn nothing_is_lost_and_each_topic_stays_in_order(protocol: Protocol) {
    let row = Row::begin("fault_daemon_killed");
    let kills = row.scaled(KILLS);
    let mut bench = Setup::new(&row, protocol).start();
    let messages = bench.ledger.flow().count();
    bench.to_cloud.set_all(Direction::Down, Mode::Delay(LATE));
    for kill in 1..=kills {
        bench.ledger.wait_distinct(kill * messages / (kills + 1));
        wait::until_within(STUCK, "messages are on their way to the daemon and from it", || {
            let open = [&bench.to_plant, &bench.to_cloud].map(Proxy::open);
            if open.contains(&0) { Err(format!("{open:?}")) } else { Ok(()) }
        });
        bench.daemon.kill();
        bench.daemon.restart();
    }
    let interrupted = [&bench.to_plant, &bench.to_cloud].map(|proxy| proxy.counts().interrupted);
    let [source, target] = interrupted;
    let broken = format!("{kills} kills, {source} met messages from the source, {target} to the target");
    bench.finish(&row, &broken, 0);
    assert!(interrupted.iter().all(|met| *met >= kills), "of {kills} kills met messages: {interrupted:?}");
}
