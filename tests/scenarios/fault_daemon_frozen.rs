//! The daemon's process stands still, as that of a machine that sleeps or is short of processors: calls miss their deadline through
//! no fault of their own, and nothing is lost by it.

use std::time::{Duration, Instant};

use tidegate_tests::fault::{Row, STUCK, Setup};
use tidegate_tests::{Daemon, Protocol, on_both_protocols, wait};

on_both_protocols!(calls_that_miss_their_deadline_are_made_again);

/// How long it stands still: longer than `call-deadline`, which is 1 s unless told otherwise.
const FROZEN: Duration = Duration::from_millis(1200);

/// Takes its time for every tenth message of a topic: about half of the freezes hit such a call.
const SLOW: &str = "mode = \"slow\", ms = 5, trigger = \"7 \", broker = \"cloud\"";

/// Calls that are to be hit.
const HITS: usize = 3;

/// Freezes at most: which of them hit a call is chance.
const FREEZES: usize = 25;

fn calls_that_miss_their_deadline_are_made_again(protocol: Protocol) {
    let row = Row::begin("fault_daemon_frozen");
    let bench = Setup::new(&row, protocol)
        .tables(|config| {
            // As patient as a handler is unless told otherwise.
            config.guest("slow", "cloud", SLOW, "instances = 2").subscription("plant", "in/#", 1, "slow", "")
        })
        .start();
    let (count, most, enough) = (bench.ledger.flow().count(), row.scaled(FREEZES), row.scaled(HITS) as f64);
    let hits = || bench.daemon.metrics().calls("slow", "deadline");
    let mut freezes = 0;
    while hits() < enough {
        freezes += 1;
        assert!(freezes <= most, "{most} freezes hit {} calls", hits());
        bench.ledger.wait_distinct(freezes * count / (most + 1));
        freeze(&bench.daemon);
    }
    bench.ledger.wait_distinct(count);
    let metrics = bench.daemon.metrics();
    let hits = metrics.calls("slow", "deadline");
    assert_eq!(metrics.finished("plant", "dropped_failed"), 0.0);
    let verdict = bench.finish(&row, &format!("{freezes} freezes hit {hits} calls"));
    assert_eq!(verdict.duplicates, 0, "no connection was lost");
}

/// Stops the daemon's process for a time.
fn freeze(daemon: &Daemon) {
    daemon.signal("STOP");
    let since = Instant::now();
    wait::until_within(STUCK, "the freeze is over", || if since.elapsed() >= FROZEN { Ok(()) } else { Err("not yet") });
    daemon.signal("CONT");
}
