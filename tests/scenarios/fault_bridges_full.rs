//! Bridges in both directions between two brokers, both outboxes full at the same time, again and again: neither waits for the
//! other for ever, and nothing is lost.

use std::sync::Arc;

use tidegate_tests::fault::{
    AHEAD, Collector, Direction, Flow, Ledger, Mode, On, PATIENT, Pace, Proxy, Row, STUCK, Sender,
};
use tidegate_tests::metrics::Metrics;
use tidegate_tests::{Config, Daemon, Mosquitto, on_both_stores, wait};

on_both_stores!(neither_waits_for_the_other);

/// Messages in each direction, in the smallest size.
const MESSAGES: usize = 20_000;

const TOPICS: usize = 16;

/// What each outbox holds: less than the source brokers have on their way.
const SMALL: usize = 12;

/// How often both outboxes are made full in mid-stream, in the smallest size.
const ROUNDS: usize = 10;

/// One bridge: what goes in, and what comes out at the other side.
struct Way {
    sender: Sender,
    collector: Collector,
    ledger: Arc<Ledger>,
}

fn neither_waits_for_the_other(on: On) {
    let (row, protocol) = (Row::begin("fault_bridges_full", on), on.protocol);
    let (plant, cloud) = (Mosquitto::persistent(), Mosquitto::persistent());
    let (to_plant, to_cloud) = (Proxy::start(plant.port(), protocol), Proxy::start(cloud.port(), protocol));
    let outbox = format!("{}outbox.max-messages = {SMALL}", on.outbox());
    let config = Config::new().broker("plant", to_plant.port(), protocol, &outbox);
    let config = bridge(config.broker("cloud", to_cloud.port(), protocol, &outbox), "plant", "cloud", "up");
    let daemon = Daemon::start(&bridge(config, "cloud", "plant", "down"));
    let (up, down) = (way(&row, &plant, &cloud, "up"), way(&row, &cloud, &plant, "down"));

    let (count, rounds) = (up.ledger.flow().count(), row.scaled(ROUNDS));
    let full = |broker| move |metrics: &Metrics| waiting(metrics, broker) == SMALL as f64;
    for round in 1..=rounds {
        let enough = |ledger: &Ledger| ledger.distinct() >= round * count / (rounds + 2);
        wait::until_within(STUCK, "both directions go on", || {
            let seen = [&up, &down].map(|way| way.ledger.distinct());
            if enough(&up.ledger) || enough(&down.ledger) { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        // Neither broker gets what is for it, nor the acknowledgements that make it send more.
        [&to_plant, &to_cloud].into_iter().for_each(|proxy| proxy.set(Direction::Up, Mode::Stall));
        daemon.wait_metrics("both outboxes are full", |metrics| full("plant")(metrics) && full("cloud")(metrics));
        [&to_plant, &to_cloud].into_iter().for_each(|proxy| proxy.set(Direction::Up, Mode::Pass));
    }

    let ways = [("plant", up, &to_plant), ("cloud", down, &to_cloud)];
    ways.iter().for_each(|(.., way, _)| way.ledger.wait_distinct(count));
    for (source, way, proxy) in ways {
        way.sender.finish();
        let metrics = daemon.settle(source, count);
        assert_eq!(metrics.finished(source, "handled"), count as f64);
        way.collector.drain();
        way.collector.finish();
        let verdict = way.ledger.verdict();
        row.report(&verdict, &format!("from {source}, both outboxes full {rounds} times"));
        verdict.hold();
        assert_eq!(verdict.duplicates, 0, "no connection was lost");
        assert_eq!(proxy.violations(), [""; 0]);
        assert_eq!(proxy.counts().connections, 1, "no connection was lost");
    }
    daemon.balance();
}

fn waiting(metrics: &Metrics, broker: &str) -> f64 {
    metrics.sum("tidegate_outbox_messages", &[("broker", broker)])
}

/// Copies `TOPIC/#` of one broker to `out/` of another.
fn bridge(config: Config, from: &str, to: &str, topic: &str) -> Config {
    let name = format!("{from}-to-{to}");
    let keys = format!(
        "allow = {{ publish = [\"{to}:out/#\"] }}\nconfig = {{ broker = \"{to}\", topic = \"out/{{topic}}\" }}\n\
         max-publishes = 1\ninstances = 2\n{PATIENT}"
    );
    config.handler(&name, "relay.wasm", &keys).subscription(from, &format!("{topic}/#"), 1, &name, "")
}

/// Sends `NAME/0` and so on to one broker, faster than it can come out at the other.
fn way(row: &Row, from: &Mosquitto, to: &Mosquitto, name: &str) -> Way {
    let protocol = row.on().protocol;
    let flow = Flow::new(name, TOPICS, row.scaled(MESSAGES));
    let ledger = Ledger::new(&flow, "out/");
    let collector = Collector::start(to.port(), protocol, &ledger);
    let sender = Sender::start(&flow, from.port(), protocol, Pace::Ahead(Arc::clone(&ledger), AHEAD));
    Way { sender, collector, ledger }
}
