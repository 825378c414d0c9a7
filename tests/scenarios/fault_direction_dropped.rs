//! One direction of a connection is thrown away, while the other passes and TCP says that all is well: the daemon or the broker
//! ends the connection, and nothing is lost.

use std::thread;

use tidegate_tests::Protocol::{V5, V311};
use tidegate_tests::fault::{Bench, Bystander, Direction, Mode, Proxy, Row, STUCK, Setup, relay};
use tidegate_tests::{Protocol, wait};

/// The shortest that there is.
const KEEP_ALIVE: &str = "keep-alive = 30";

/// Both at once, each with a daemon of its own: they do little but wait.
#[test]
fn a_source_that_is_heard_or_hears_in_one_direction_alone_loses_nothing() {
    thread::scope(|scope| {
        scope.spawn(|| dropped("source", V311, |bench| &bench.to_plant, Direction::Down));
        scope.spawn(|| dropped("source", V5, |bench| &bench.to_plant, Direction::Up));
    });
}

/// As above.
#[test]
fn a_target_that_is_heard_or_hears_in_one_direction_alone_loses_nothing() {
    thread::scope(|scope| {
        scope.spawn(|| dropped("target", V5, |bench| &bench.to_cloud, Direction::Down));
        scope.spawn(|| dropped("target", V311, |bench| &bench.to_cloud, Direction::Up));
    });
}

fn dropped(leg: &str, protocol: Protocol, proxy: fn(&Bench) -> &Proxy, direction: Direction) {
    let row = Row::begin("fault_direction_dropped");
    let mut beside = Bystander::new(protocol);
    let tables = beside.tables();
    let setup = Setup::new(&row, protocol).plant(KEEP_ALIVE).cloud(KEEP_ALIVE);
    let bench = setup.tables(|config| tables(relay(config))).start();
    beside.start();
    bench.ledger.wait_distinct(bench.ledger.flow().count() / 2);

    let since = row.elapsed();
    proxy(&bench).set(direction, Mode::Discard);
    wait::until_within(STUCK, "the daemon connects again", || {
        beside.goes_on();
        let connections = proxy(&bench).counts().connections;
        if connections == 2 { Ok(()) } else { Err(format!("{connections} connections")) }
    });
    let lasted = (row.elapsed() - since).as_secs_f64();
    assert_eq!(proxy(&bench).counts().cuts, 0, "it ended by itself");
    assert!(bench.sender.acknowledged() > bench.ledger.distinct(), "nothing was on its way");

    beside.finish(&bench.daemon);
    bench.finish(&row, &format!("{direction:?} of the {leg} thrown away for {lasted:.1} s, {protocol}"));
}
