//! The source broker is killed again and again in the middle of a stream: nothing that it remembers is lost, each topic stays in
//! order.
//!
//! mosquitto forgets what happened between its last save and its death, what it had acknowledged included: that is not the
//! gateway's loss, and the sender sends it again. The outputs go to a broker that stays.

use tidegate_tests::fault::{AHEAD, On, Row, STUCK, Setup};
use tidegate_tests::{on_both_stores, wait};

on_both_stores!(nothing_is_lost_and_each_topic_stays_in_order);

/// In each protocol.
const KILLS: usize = 5;
const FEWEST: usize = 4;

/// Outputs between a save and the death after it.
const FORGOTTEN: std::ops::Range<u64> = 1..1000;

fn nothing_is_lost_and_each_topic_stays_in_order(on: On) {
    let mut row = Row::begin("fault_broker_killed", on);
    let kills = row.scaled(KILLS).max(FEWEST);
    let mut bench = Setup::new(&row).start();
    let messages = bench.ledger.flow().count();
    for kill in 1..=kills {
        bench.wait_distinct(kill * messages / (kills + 1));
        let saved = bench.sender.hold();
        bench.plant.save();
        bench.sender.release();
        let forgotten = usize::try_from(row.random().below(FORGOTTEN)).expect("it is small");
        // Never all: some are on their way then.
        bench.wait_distinct((saved + forgotten).min(messages - AHEAD));
        wait::until_within(STUCK, "messages are on their way", || match bench.to_plant.open() {
            0 => Err("none"),
            _ => Ok(()),
        });
        bench.plant.kill();
        bench.sender.rewind(saved);
        bench.plant.restart();
        bench.hurry();
        bench.to_plant.wait(STUCK, "the daemon connects again", |counts| counts.connections > kill);
        assert_eq!(bench.to_plant.counts().connections, kill + 1, "one more was enough");
    }
    let interrupted = bench.to_plant.counts().interrupted;
    bench.finish(&row, &format!("{kills} kills"));
    // What goes to the disk is acknowledged soon: between a look and a kill nothing may be left.
    let enough = if on.on_disk() { kills.div_ceil(2) } else { kills };
    assert!(interrupted >= enough, "{interrupted} of {kills}: a kill between two messages shows nothing");
}
