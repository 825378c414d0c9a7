//! One direction of a connection is thrown away, while the other passes and TCP says that all is well: the daemon or the broker
//! ends the connection, and nothing is lost.

use std::thread::{self, Scope};

use tidegate_tests::Protocol::{V5, V311};
use tidegate_tests::fault::{Bench, Bystander, Direction, Mode, Proxy, Row, STUCK, Setup, relay};
use tidegate_tests::{Protocol, wait};

/// The shortest that there is.
const KEEP_ALIVE: &str = "keep-alive = 30";

/// Both at once, each with a daemon of its own: they do little but wait.
#[test]
fn a_source_that_is_heard_or_hears_in_one_direction_alone_loses_nothing() {
    thread::scope(|scope| {
        begin(scope, "source", V311, |bench| &bench.to_plant, Direction::Down);
        begin(scope, "source", V5, |bench| &bench.to_plant, Direction::Up);
    });
}

/// As above.
#[test]
fn a_target_that_is_heard_or_hears_in_one_direction_alone_loses_nothing() {
    thread::scope(|scope| {
        begin(scope, "target", V5, |bench| &bench.to_cloud, Direction::Down);
        begin(scope, "target", V311, |bench| &bench.to_cloud, Direction::Up);
    });
}

/// Runs in a thread that tells by its name what it is about.
fn begin<'scope>(
    scope: &'scope Scope<'scope, '_>,
    leg: &'static str,
    protocol: Protocol,
    proxy: fn(&Bench) -> &Proxy,
    direction: Direction,
) {
    let name = format!("fault_direction_dropped::{leg}::{direction:?}::{protocol}");
    let run = move || dropped(leg, protocol, proxy, direction);
    thread::Builder::new().name(name).spawn_scoped(scope, run).expect("the system has a thread left");
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
        if connections >= 2 { Ok(()) } else { Err(format!("{connections} connections")) }
    });
    let lasted = (row.elapsed() - since).as_secs_f64();
    assert_eq!(proxy(&bench).counts().cuts, 0, "it ended by itself");
    assert!(bench.sender.acknowledged() > bench.ledger.distinct(), "nothing was on its way");

    beside.finish(&bench.daemon);
    assert_eq!(proxy(&bench).counts().connections, 2, "one more was enough");
    let other = if leg == "source" { &bench.to_cloud } else { &bench.to_plant };
    assert_eq!(other.counts().connections, 1, "the connection to the other broker stood");
    bench.finish(&row, &format!("{direction:?} of the {leg} thrown away for {lasted:.1} s, {protocol}"));
}
