//! A connection that stands, as TCP says, and in one direction of which nothing comes through any more.
//!
//! What the rows of stalled sockets and of lost directions share: the daemon, or the broker, ends such a connection, another is
//! made, nothing is lost, and the stream of another broker does not notice. Two legs at once, each with a daemon of its own: they do
//! little but wait.

use std::thread;
use std::time::Duration;

use super::{Bench, Bystander, Direction, Mode, On, Proxy, Row, STUCK, Setup, relay};
use crate::wait;

/// The shortest that there is.
const KEEP_ALIVE: &str = "keep-alive = 30";
const KEEP_ALIVE_PASSED: Duration = Duration::from_secs(30);

/// Which connection falls silent.
#[derive(Clone, Copy, Debug)]
pub enum Leg {
    /// That to the broker which the messages come from.
    Source,
    /// That to the broker which they are for.
    Target,
}

impl Leg {
    /// The connection's proxy, and that of the other.
    fn proxies(self, bench: &Bench) -> (&Proxy, &Proxy) {
        match self {
            Leg::Source => (&bench.to_plant, &bench.to_cloud),
            Leg::Target => (&bench.to_cloud, &bench.to_plant),
        }
    }
}

/// Runs a row's legs beside each other, each in a thread that tells by its name what it is about. With [`Mode::Stall`] what was
/// held arrives in the end, late; with [`Mode::Discard`] never.
pub fn fall_silent(row: &'static str, mode: Mode, legs: [(Leg, On, Direction); 2]) {
    thread::scope(|scope| {
        for (leg, on, direction) in legs {
            let name = format!("{row}::{leg:?}::{direction:?}::{}::{:?}", on.protocol, on.store);
            let run = move || one(row, mode, leg, on, direction);
            thread::Builder::new().name(name).spawn_scoped(scope, run).expect("the system has a thread left");
        }
    });
}

fn one(row: &'static str, mode: Mode, leg: Leg, on: On, direction: Direction) {
    let row = Row::begin(row, on);
    let mut beside = Bystander::new(on.protocol);
    let tables = beside.tables();
    let setup = Setup::new(&row).plant(KEEP_ALIVE).cloud(KEEP_ALIVE);
    let bench = setup.tables(|config| tables(relay(config, ""))).start();
    beside.start();
    bench.wait_distinct(bench.ledger.flow().count() / 2);

    let (proxy, other) = leg.proxies(&bench);
    let since = row.elapsed();
    proxy.set(direction, mode);
    wait::until_within(STUCK, "the daemon connects again", || {
        beside.goes_on();
        let connections = proxy.counts().connections;
        if connections >= 2 { Ok(()) } else { Err(format!("{connections} connections")) }
    });
    let lasted = row.elapsed() - since;
    assert_eq!(proxy.counts().cuts, 0, "it ended by itself");
    assert!(bench.sender.acknowledged() > bench.ledger.distinct(), "nothing was on its way");
    if mode == Mode::Stall {
        assert!(lasted > KEEP_ALIVE_PASSED, "given up after {lasted:?}: the keep alive had not passed");
        // What was held arrives now, on the old connection: of use to nobody.
        proxy.set(direction, Mode::Pass);
    }

    beside.finish(&bench.daemon);
    assert_eq!(proxy.counts().connections, 2, "one more was enough");
    assert_eq!(other.counts().connections, 1, "the connection to the other broker stood");
    let seconds = lasted.as_secs_f64();
    bench.finish(
        &row,
        &format!("{mode:?} {direction:?} of the {leg:?} for {seconds:.1} s, {}, {:?}", on.protocol, on.store),
    );
}
