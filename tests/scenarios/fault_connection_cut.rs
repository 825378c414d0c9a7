//! Connections to both brokers are cut at random bytes of either direction, again and again: nothing is lost, each topic stays in
//! order, and on each connection acknowledgements leave in the order of arrival [MQTT-4.6.0-2].

use tidegate_tests::fault::{Bench, Cut, Direction, On, Random, Row, STUCK, Setup};
use tidegate_tests::on_both_stores;
use tidegate_tests::wait;

on_both_stores!(nothing_is_lost_and_each_topic_stays_in_order);

/// In each protocol.
const CUTS: usize = 50;

fn nothing_is_lost_and_each_topic_stays_in_order(on: On) {
    let mut row = Row::begin("fault_connection_cut", on);
    let cuts = row.scaled(CUTS);
    let bench = Setup::new(&row).start();
    for _ in 0..cuts {
        cut(&bench, row.random());
    }
    bench.hurry();
    let left = bench.ledger.missing();
    let interrupted = [&bench.to_plant, &bench.to_cloud].map(|proxy| proxy.counts().interrupted);
    let [source, target] = interrupted;
    let broken = format!("{cuts} cuts, {source} met messages from the source, {target} to the target");
    bench.finish(&row, &broken);
    assert!(left > 0, "the last cuts came too late to show anything");
    assert!(source + target >= cuts / 2, "only {interrupted:?} of {cuts} cuts hit messages in flight");
    assert!(interrupted.iter().all(|met| *met >= cuts / 10), "only {interrupted:?} of {cuts} cuts on one of the legs");
}

/// Cuts a connection to one of the brokers, and has it made again.
fn cut(bench: &Bench, random: &mut Random) {
    let (broker, proxy) = random.pick(&[("plant", &bench.to_plant), ("cloud", &bench.to_cloud)]);
    let direction = random.pick(&[Direction::Up, Direction::Down]);
    let carries_messages = (broker == "plant") == (direction == Direction::Down);
    let bytes = match (random.below(0..4), carries_messages) {
        // In the first packets, often.
        (0, _) => random.below(1..200),
        (_, true) => random.below(1..30_000),
        // Acknowledgements are short.
        (_, false) => random.below(1..1_200),
    };
    let how = random.pick(&[Cut::Close, Cut::Reset]);
    let before = proxy.counts().cuts;
    proxy.cut_after(direction, bytes, how);
    wait::until_within(STUCK, format!("a cut of {broker}, {direction:?}, after {bytes} bytes"), || {
        if proxy.counts().cuts > before {
            return Ok(());
        }
        bench.hurry();
        Err("it stands")
    });
}
