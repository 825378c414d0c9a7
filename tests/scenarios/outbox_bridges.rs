//! Publishes to another broker: kept while it is away, in order, and never in the way of the other direction.

use std::collections::BTreeSet;
use std::thread;

use tidegate_tests::mosquitto::Options;
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, ports};

on_both_protocols!(
    a_target_broker_that_restarts_gets_everything_in_order,
    bridges_in_both_directions_do_not_wait_for_each_other,
    a_broker_on_demand_is_connected_for_a_publish,
    a_broker_that_was_disconnected_by_hand_is_connected_for_a_publish,
);

/// Copies `TOPIC/#` of one broker to the same topics of another.
fn bridge(config: Config, from: &str, to: &str, topic: &str) -> Config {
    let name = format!("{from}-to-{to}");
    let keys = format!(
        "allow = {{ publish = [\"{to}:{topic}/#\"] }}\nconfig = {{ broker = \"{to}\", topic = \"{{topic}}\" }}\ninstances = 2"
    );
    config.handler(&name, "relay.wasm", &keys).subscription(from, &format!("{topic}/#"), 1, &name, "")
}

/// Whether these are copies of those, in the same order; on 5 they have a further property, which counts hops.
fn same(came: &[Message], sent: &[Message]) -> bool {
    let told = |message: &Message| (message.topic.clone(), message.payload.clone());
    came.iter().map(told).eq(sent.iter().map(told))
}

fn a_target_broker_that_restarts_gets_everything_in_order(protocol: Protocol) {
    const TOPICS: usize = 4;
    const COUNT: usize = 1000;
    let (plant, mut cloud) = (Mosquitto::start(), Mosquitto::persistent());
    let config = Config::new().broker("plant", plant.port(), protocol, "").broker("cloud", cloud.port(), protocol, "");
    let daemon = Daemon::start(&bridge(config, "plant", "cloud", "up"));
    let mut collector = Client::options(cloud.port(), protocol).session("collector").connect().expect("is let in");
    collector.subscribe("up/#", 1);

    let sent: Vec<_> =
        (0..COUNT).map(|n| Message::new(format!("up/{}", n % TOPICS), format!("{}", n / TOPICS))).collect();
    let (before, meanwhile) = sent.split_at(COUNT / 2);
    let publisher = plant.client(protocol);
    publisher.publish_all(before);
    let mut came = collector.collect(10);
    cloud.stop();
    publisher.publish_all(meanwhile);
    daemon.wait_metrics("publishes wait", |m| m.sum("tidegate_outbox_messages", &[("broker", "cloud")]) >= 10.0);
    cloud.restart();
    collector.reconnect();

    let mut missing: BTreeSet<_> = sent.iter().map(|one| (one.topic.clone(), one.payload.clone())).collect();
    for message in &came {
        missing.remove(&(message.topic.clone(), message.payload.clone()));
    }
    came.extend(collector.collect_until("the missing messages", |message| {
        missing.remove(&(message.topic.clone(), message.payload.clone()));
        missing.is_empty()
    }));
    for topic in 0..TOPICS {
        let topic = format!("up/{topic}");
        let mut first: Vec<usize> = Vec::new();
        for message in came.iter().filter(|message| message.topic == topic) {
            let number = message.text().parse().expect("a number");
            if !first.contains(&number) {
                first.push(number);
            }
        }
        assert_eq!(first, (0..COUNT / TOPICS).collect::<Vec<_>>(), "{topic}: first occurrences in order");
    }
    daemon.settle("plant", COUNT);
}

fn bridges_in_both_directions_do_not_wait_for_each_other(protocol: Protocol) {
    const COUNT: usize = 1000;
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let mut config =
        Config::new().broker("plant", plant.port(), protocol, "").broker("cloud", cloud.port(), protocol, "");
    config = bridge(config, "plant", "cloud", "up");
    config = bridge(config, "cloud", "plant", "down");
    let daemon = Daemon::start(&config);

    let flow = |from: &Mosquitto, to: &Mosquitto, topic: &str| {
        let collector = to.client(protocol);
        collector.subscribe(&format!("{topic}/#"), 1);
        let sent: Vec<_> = (0..COUNT).map(|n| Message::new(format!("{topic}/a"), format!("{n}"))).collect();
        from.client(protocol).publish_all(&sent);
        let came = collector.collect(COUNT);
        assert!(same(&came, &sent), "{topic}: each once, in order");
    };
    thread::scope(|scope| {
        scope.spawn(|| flow(&plant, &cloud, "up"));
        scope.spawn(|| flow(&cloud, &plant, "down"));
    });
    daemon.settle("plant", COUNT);
    daemon.settle("cloud", COUNT);
}

fn a_broker_on_demand_is_connected_for_a_publish(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let config = Config::new().broker("plant", plant.port(), protocol, "").broker(
        "cloud",
        cloud.port(),
        protocol,
        "auto-connect = false",
    );
    let daemon = Daemon::start(&bridge(config, "plant", "cloud", "up"));
    let collector = cloud.client(protocol);
    collector.subscribe("up/#", 1);
    assert_eq!(daemon.metrics().connects("cloud", "accepted"), 0.0);

    plant.client(protocol).publish(&Message::new("up/a", "x"));

    assert_eq!(collector.collect(1)[0].text(), "x");
    assert_eq!(daemon.settle("plant", 1).connects("cloud", "accepted"), 1.0);
}

fn a_broker_that_was_disconnected_by_hand_is_connected_for_a_publish(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let config = Config::new().broker("plant", plant.port(), protocol, "").broker("cloud", cloud.port(), protocol, "");
    let daemon = Daemon::start(&bridge(config, "plant", "cloud", "up"));
    let collector = cloud.client(protocol);
    collector.subscribe("up/#", 1);
    daemon.done(&["brokers", "disconnect", "cloud"]);
    daemon.wait_shown("cloud", "is disconnected by hand", |shown| shown["state"] == "disconnected");

    plant.client(protocol).publish(&Message::new("up/a", "x"));

    assert_eq!(collector.collect(1)[0].text(), "x");
    assert_eq!(daemon.settle("plant", 1).connects("cloud", "accepted"), 2.0);
    daemon.wait_connected("cloud", true);
}

/// 10,000 messages are kept for a broker that is away; further calls wait with theirs, and nothing is dropped.
#[test]
fn more_publishes_than_the_outbox_holds_wait_and_leave_in_order() {
    const COUNT: usize = 12_000;
    let plant = Mosquitto::start();
    let cloud_port = ports::free();
    let config = Config::new().broker("plant", plant.port(), Protocol::V5, "receive-maximum = 15000").broker(
        "cloud",
        cloud_port,
        Protocol::V5,
        "",
    );
    let daemon = Daemon::launch(&bridge(config, "plant", "cloud", "up"));
    daemon.wait_broker("plant");
    let sent: Vec<_> = (0..COUNT).map(|n| Message::new("up/a", format!("{n}"))).collect();
    plant.client(Protocol::V5).publish_all(&sent);
    let metrics = daemon.wait_metrics("the outbox is full and a call waits", |metrics| {
        metrics.calls("plant-to-cloud", "ok") > 10_000.0
            && metrics.sum("tidegate_outbox_messages", &[("broker", "cloud")]) >= 10_000.0
    });
    assert_eq!(metrics.sum("tidegate_outbox_messages", &[("broker", "cloud")]), 10_000.0);

    let cloud = Mosquitto::on(cloud_port, Options::default());
    let collector = cloud.client(Protocol::V5);
    collector.subscribe("up/#", 1);
    // What left before the collector was there is the head of the stream.
    let came = collector.collect_until("the last message", |message| message.payload == sent[COUNT - 1].payload);
    assert!(same(&came, &sent[COUNT - came.len()..]), "each once, in order");
    daemon.settle("plant", COUNT);
}
