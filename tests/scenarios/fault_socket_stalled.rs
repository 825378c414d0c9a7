//! A socket that takes or gives nothing for longer than the keep alive, while TCP says that it stands: the daemon gives it up,
//! connects again, loses nothing; and the stream of another broker does not notice.

use std::thread::{self, Scope};
use std::time::Duration;

use tidegate_tests::Protocol::{V5, V311};
use tidegate_tests::fault::{Bench, Bystander, Direction, Mode, Proxy, Row, STUCK, Setup, relay};
use tidegate_tests::{Protocol, wait};

/// The shortest that there is.
const KEEP_ALIVE: &str = "keep-alive = 30";

/// Both at once, each with a daemon of its own: they do little but wait.
#[test]
fn a_source_that_stalls_is_given_up_and_nothing_is_lost() {
    thread::scope(|scope| {
        begin(scope, "source", V5, |bench| &bench.to_plant, Direction::Down);
        begin(scope, "source", V311, |bench| &bench.to_plant, Direction::Up);
    });
}

/// As above.
#[test]
fn a_target_that_stalls_is_given_up_and_nothing_is_lost() {
    thread::scope(|scope| {
        begin(scope, "target", V311, |bench| &bench.to_cloud, Direction::Down);
        begin(scope, "target", V5, |bench| &bench.to_cloud, Direction::Up);
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
    let name = format!("fault_socket_stalled::{leg}::{direction:?}::{protocol}");
    let run = move || stalled(leg, protocol, proxy, direction);
    thread::Builder::new().name(name).spawn_scoped(scope, run).expect("the system has a thread left");
}

fn stalled(leg: &str, protocol: Protocol, proxy: fn(&Bench) -> &Proxy, direction: Direction) {
    let row = Row::begin("fault_socket_stalled");
    let mut beside = Bystander::new(protocol);
    let tables = beside.tables();
    let setup = Setup::new(&row, protocol).plant(KEEP_ALIVE).cloud(KEEP_ALIVE);
    let bench = setup.tables(|config| tables(relay(config))).start();
    beside.start();
    bench.ledger.wait_distinct(bench.ledger.flow().count() / 2);

    let since = row.elapsed();
    proxy(&bench).set(direction, Mode::Stall);
    wait::until_within(STUCK, "the daemon connects again", || {
        beside.goes_on();
        let connections = proxy(&bench).counts().connections;
        if connections >= 2 { Ok(()) } else { Err(format!("{connections} connections")) }
    });
    let lasted = row.elapsed() - since;
    assert!(lasted > Duration::from_secs(30), "given up after {lasted:?}: the keep alive had not passed");
    assert!(bench.sender.acknowledged() > bench.ledger.distinct(), "nothing was on its way");
    // What was held arrives now, late, on the old connection: of use to nobody.
    proxy(&bench).set(direction, Mode::Pass);

    beside.finish(&bench.daemon);
    assert_eq!(proxy(&bench).counts().connections, 2, "one more was enough");
    let other = if leg == "source" { &bench.to_cloud } else { &bench.to_plant };
    assert_eq!(other.counts().connections, 1, "the connection to the other broker stood");
    let seconds = lasted.as_secs_f64();
    bench.finish(&row, &format!("{direction:?} of the {leg} stalled for {seconds:.1} s, {protocol}"));
}
