//! Publishes to another broker: kept while it is away, in order, and never in the way of the other direction.

use std::collections::BTreeSet;
use std::thread;

use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    a_target_broker_that_restarts_gets_everything_in_order,
    bridges_in_both_directions_do_not_wait_for_each_other,
);

/// Copies `TOPIC/#` of one broker to the same topics of another.
fn bridge(config: Config, from: &str, to: &str, topic: &str) -> Config {
    let name = format!("{from}-to-{to}");
    let keys = format!(
        "allow = {{ publish = [\"{to}:{topic}/#\"] }}\nconfig = {{ broker = \"{to}\", topic = \"{{topic}}\" }}\ninstances = 2"
    );
    config.handler(&name, "relay.wasm", &keys).subscription(from, &format!("{topic}/#"), 1, &name, "")
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
        assert!(came == sent, "{topic}: each once, in order");
    };
    thread::scope(|scope| {
        scope.spawn(|| flow(&plant, &cloud, "up"));
        scope.spawn(|| flow(&cloud, &plant, "down"));
    });
    daemon.settle("plant", COUNT);
    daemon.settle("cloud", COUNT);
}
