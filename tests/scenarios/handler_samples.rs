//! The sample handlers, in the daemon as their descriptions promise.

use serde_json::json;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(envelope_adds_where_and_when_a_message_came_from, threshold_tells_only_when_the_limit_is_crossed,);

fn envelope_adds_where_and_when_a_message_came_from(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .handler("envelope", "envelope.wasm", "allow = { publish = [\"plant:envelope/#\"] }")
        .subscription("plant", "site/+/line/#", 1, "envelope", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("envelope/#", 1);

    broker.client(protocol).publish(&Message::new("site/7/line/a/b", "{\"c\": 21.5}"));

    let message = collector.collect(1).remove(0);
    assert_eq!(message.topic, "envelope/site/7/line/a/b");
    let mut envelope = message.json();
    let time = envelope["time"].take();
    assert!(time.as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{time}");
    let expected = json!({
        "broker": "plant", "topic": "site/7/line/a/b", "captures": ["7", "a/b"], "payload": { "c": 21.5 }, "time": null,
    });
    assert_eq!(envelope, expected);
    daemon.settle("plant", 1);
}

fn threshold_tells_only_when_the_limit_is_crossed(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .handler(
            "threshold",
            "threshold.wasm",
            "allow = { publish = [\"plant:alarm/#\"] }\nconfig = { limit = 30 }\ninstances = 2",
        )
        .subscription("plant", "oven/+", 1, "threshold", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("alarm/#", 1);

    let readings = [20, 31, 32, 29, 28, 40];
    let messages: Vec<_> = readings.iter().map(|c| Message::new("oven/1", format!("{{\"c\": {c}}}"))).collect();
    broker.client(protocol).publish_all(&messages);

    daemon.settle("plant", readings.len());
    let alarms: Vec<_> =
        collector.rest().iter().map(|alarm| (alarm.json()["alarm"].clone(), alarm.json()["value"].clone())).collect();
    assert_eq!(alarms, [(json!(true), json!(31.0)), (json!(false), json!(29.0)), (json!(true), json!(40.0))]);
}
