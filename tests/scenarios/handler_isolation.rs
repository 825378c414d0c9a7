//! `isolation`: whether what a handler remembers lives on to the next message.

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol};

#[test]
fn a_reused_instance_remembers_what_it_saw() {
    assert_eq!(alarms("isolation = \"reuse\""), 1);
}

#[test]
fn an_instance_for_each_message_remembers_nothing() {
    assert_eq!(alarms("isolation = \"per-message\""), 3);
}

/// The alarms for three readings over the limit: `threshold` raises one when it is crossed, and keeps that in memory.
fn alarms(isolation: &str) -> usize {
    let broker = Mosquitto::start();
    let keys = format!("allow = {{ publish = [\"plant:alarm/#\"] }}\nconfig = {{ limit = 30 }}\n{isolation}");
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .handler("threshold", "threshold.wasm", &keys)
        .subscription("plant", "oven/+", 1, "threshold", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(Protocol::V5);
    collector.subscribe("alarm/#", 1);
    let readings: Vec<_> = (31..34).map(|c| Message::new("oven/1", format!("{{\"c\": {c}}}"))).collect();
    broker.client(Protocol::V5).publish_all(&readings);
    daemon.settle("plant", readings.len());
    collector.rest().len()
}
