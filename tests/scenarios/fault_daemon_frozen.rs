//! The daemon's process stands still, as that of a machine that sleeps or is short of processors: calls miss their deadline through
//! no fault of their own, and nothing is lost by it.

use std::time::{Duration, Instant};

use tidegate_tests::fault::{On, Row, STUCK, Setup};
use tidegate_tests::{Daemon, on_both_stores, wait};

on_both_stores!(calls_that_miss_their_deadline_are_made_again);

/// What the handler may take, in its default.
const DEADLINE: &str = "call-deadline = \"1s\"";

/// How long it stands still: longer than that.
const FROZEN: Duration = Duration::from_millis(1200);

/// A call of a topic says "holding" and then takes its time, unless it is made again: long enough to be met by a
/// freeze, and well below its deadline.
const HOLDS: &str = "mode = \"hold\", ms = 400, attempts = 1, broker = \"cloud\"";

/// Calls that are to be hit.
const HITS: usize = 3;

/// Freezes at most: a machine that is loaded besides may freeze the daemon only when the call is over.
const FREEZES: usize = 10;

fn calls_that_miss_their_deadline_are_made_again(on: On) {
    let row = Row::begin("fault_daemon_frozen", on);
    // By how their numbers end and how long they are: about 20, spread over the whole flow, and more in larger sizes.
    let (end, dots) = if row.scaled(HITS) < HITS { ("0", 115) } else { ("00", 110) };
    let holds = format!("{HOLDS}, trigger = \"{end} {}\"", ".".repeat(dots));
    let bench = Setup::new(&row)
        .tables(move |config| {
            let keys = format!("instances = 2\n{DEADLINE}");
            config.guest("slow", "cloud", &holds, &keys).subscription("plant", "in/#", 1, "slow", "")
        })
        .start();
    let (count, most, enough) = (bench.ledger.flow().count(), row.scaled(FREEZES), row.scaled(HITS) as f64);
    let hits = || bench.daemon.metrics().calls("slow", "deadline");
    let holding = || bench.daemon.log_lines(&["\"holding\""]).len();
    let (mut freezes, mut held) = (0, 0);
    while hits() < enough {
        freezes += 1;
        assert!(freezes <= most, "{most} freezes hit {} calls", hits());
        wait::until_within(STUCK, "a call holds", || if holding() > held { Ok(()) } else { Err("none") });
        freeze(&bench.daemon);
        held = holding();
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
