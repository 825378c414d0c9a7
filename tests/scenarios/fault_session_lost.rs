//! The source broker is killed in the middle of a stream and forgets the session: what it had sent to the gateway has its output
//! all the same, once and in order.
//!
//! What had not left the broker is lost with it, and is sent again from there: the proxy tells how far the gateway's share goes.

use std::collections::BTreeSet;

use tidegate_tests::fault::{Bench, On, Row, STUCK, Setup};
use tidegate_tests::{on_both_stores, wait};

on_both_stores!(what_was_delivered_has_its_output_once);

/// In each protocol.
const LOSSES: usize = 5;

fn what_was_delivered_has_its_output_once(on: On) {
    let row = Row::begin("fault_session_lost", on);
    let losses = row.scaled(LOSSES);
    let mut bench = Setup::new(&row).start();
    let messages = bench.ledger.flow().count();
    for loss in 1..=losses {
        bench.wait_distinct(loss * messages / (losses + 1));
        wait::until_within(STUCK, "messages are on their way", || match bench.to_plant.open() {
            0 => Err("none"),
            _ => Ok(()),
        });
        // Nothing is sent while nobody has subscribed. What is on its way meets the death.
        bench.sender.hold();
        bench.plant.kill();
        bench.to_plant.wait_ended(STUCK);
        let next = first_undelivered(&bench);
        bench.plant.restart();
        bench.hurry();
        let accepted = (loss + 1) as f64;
        bench.daemon.wait_metrics("the daemon is back", |metrics| metrics.connects("plant", "accepted") == accepted);
        bench.daemon.wait_broker("plant");
        bench.sender.rewind(next);
    }
    let interrupted = bench.to_plant.counts().interrupted;
    let lost = bench.daemon.metrics().sum("tidegate_broker_sessions_lost_total", &[("broker", "plant")]);
    assert_eq!(lost, losses as f64, "the broker forgot the session");
    let verdict = bench.finish(&row, &format!("{losses} lost sessions"));
    assert_eq!(verdict.duplicates, 0, "nothing was delivered twice");
    // Between the look and the death all of them may come through.
    assert!(2 * interrupted >= losses, "{interrupted} of {losses}: a death between two messages shows nothing");
}

/// The place of the flow up to which everything was passed on to the daemon, and after which nothing was.
fn first_undelivered(bench: &Bench) -> usize {
    let flow = bench.ledger.flow();
    let place = |topic: &str, payload: &[u8]| flow.place(topic, payload).expect("only the flow is sent").1;
    let delivered: BTreeSet<_> =
        bench.to_plant.delivered().iter().map(|message| place(&message.topic, &message.payload)).collect();
    assert!(delivered.iter().copied().eq(0..delivered.len()), "the broker delivers in order");
    delivered.len()
}
