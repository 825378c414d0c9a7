//! Messages of one topic stay in order, with many topics, several instances and a full pipe.

use std::collections::BTreeMap;

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(each_topic_stays_in_order_under_load_with_several_instances);

const TOPICS: usize = 16;
const EACH: usize = 320;
/// Every so many messages one takes long, so that messages of other topics pass it, and its own would if they could.
const SLOW: usize = 50;

fn each_topic_stays_in_order_under_load_with_several_instances(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("echo", "plant", "mode = \"slow\", ms = 5, trigger = \"slow\"", "instances = 4")
        .subscription("plant", "load/#", 1, "echo", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/load/#", 1);

    let messages: Vec<_> = (0..TOPICS * EACH)
        .map(|n| {
            let pace = if n % SLOW == 0 { "slow" } else { "fast" };
            Message::new(format!("load/{}", n % TOPICS), format!("{} {pace}", n / TOPICS))
        })
        .collect();
    broker.client(protocol).publish_all(&messages);

    let mut orders: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for message in collector.collect(messages.len()) {
        let number = message.text().split(' ').next().and_then(|number| number.parse().ok());
        orders.entry(message.topic.clone()).or_default().push(number.expect("begins with its number"));
    }
    let expected: Vec<_> = (0..EACH).collect();
    assert_eq!(orders.len(), TOPICS);
    for (topic, order) in orders {
        assert_eq!(order, expected, "{topic}: each once, in order");
    }
    let metrics = daemon.settle("plant", messages.len());
    assert_eq!(collector.rest(), [], "nothing comes twice");
    assert_eq!(metrics.finished("plant", "handled"), messages.len() as f64);
    assert_eq!(metrics.sum("tidegate_handler_instances", &[("handler", "echo")]), 4.0);
}
