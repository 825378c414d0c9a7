//! A message is acknowledged when its outcome is safe: not before, and then for good.

use tidegate_tests::config::ECHO;
use tidegate_tests::metrics::Metrics;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::numbered::{assert_order, collect_all, numbered};
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, ports};

on_both_protocols!(
    what_is_handled_does_not_come_again,
    what_failed_is_acknowledged_and_does_not_come_again,
    a_daemon_killed_in_mid_stream_loses_nothing_and_keeps_the_order,
    an_input_stays_unacknowledged_while_the_target_broker_is_down,
);

fn gateway(broker: &Mosquitto, protocol: Protocol, guest: &str) -> Config {
    Config::new()
        .broker("plant", broker.port(), protocol, "client-id = \"gateway\"")
        .guest("echo", "plant", guest, "instances = 1")
        .subscription("plant", "in/#", 1, "echo", "")
}

fn what_is_handled_does_not_come_again(protocol: Protocol) {
    acknowledged_for_good(protocol, ECHO, "handled");
}

fn what_failed_is_acknowledged_and_does_not_come_again(protocol: Protocol) {
    acknowledged_for_good(protocol, "mode = \"reject\"", "dead_letter");
}

/// Ends the daemon when all messages have ended so; its session gets none of them again.
fn acknowledged_for_good(protocol: Protocol, guest: &str, outcome: &str) {
    const COUNT: usize = 30;
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&gateway(&broker, protocol, guest));
    let publisher = broker.client(protocol);
    publisher.publish_all(&(0..COUNT).map(|n| Message::new("in/a", format!("{n}"))).collect::<Vec<_>>());
    assert_eq!(daemon.settle("plant", COUNT).finished("plant", outcome), COUNT as f64);
    daemon.terminate();

    // The session was kept: what is published meanwhile comes, and only that.
    publisher.publish(&Message::new("in/a", "while it was away"));
    daemon.restart();
    daemon.settle("plant", 1);
}

fn a_daemon_killed_in_mid_stream_loses_nothing_and_keeps_the_order(protocol: Protocol) {
    const TOPICS: usize = 4;
    const COUNT: usize = 200;
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&gateway(&broker, protocol, "mode = \"slow\", ms = 10"));
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let messages = numbered(COUNT, TOPICS);
    broker.client(protocol).publish_all(&messages);

    let mut came = collector.collect(COUNT / 10);
    daemon.kill();
    daemon.restart();

    collect_all(&collector, &messages, &mut came);
    assert_order(&came);
    daemon.wait_metrics("everything reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    daemon.balance();
}

fn an_input_stays_unacknowledged_while_the_target_broker_is_down(protocol: Protocol) {
    const COUNT: usize = 5;
    let plant = Mosquitto::start();
    let cloud_port = ports::free();
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "client-id = \"gateway\"")
        .broker("cloud", cloud_port, protocol, "")
        .handler(
            "relay",
            "relay.wasm",
            "allow = { publish = [\"cloud:up/#\"] }\n[handlers.relay.config]\nbroker = \"cloud\"\ntopic = \"up/{topic}\"",
        )
        .subscription("plant", "in/#", 1, "relay", "");
    let mut daemon = Daemon::launch(&config);
    daemon.wait_broker("plant");
    let publisher = plant.client(protocol);
    let messages: Vec<_> = (0..COUNT).map(|n| Message::new("in/a", format!("{n}"))).collect();
    publisher.publish_all(&messages);
    let waiting = |m: &Metrics| m.sum("tidegate_outbox_messages", &[("broker", "cloud")]) == COUNT as f64;
    let metrics = daemon.wait_metrics("what the relay publishes waits in the outbox", waiting);
    assert_eq!(metrics.calls("relay", "ok"), COUNT as f64);
    assert_eq!(metrics.in_progress("plant"), COUNT as f64, "nothing is final");
    daemon.kill();

    let cloud = Mosquitto::on(cloud_port, Options::default());
    let collector = Client::connect(cloud.port(), protocol);
    collector.subscribe("up/#", 1);
    daemon.restart();

    let came = collector.collect(COUNT);
    let payloads: Vec<_> = came.iter().map(Message::text).collect();
    assert_eq!(payloads, ["0", "1", "2", "3", "4"], "all of them come again, in order");
    daemon.settle("plant", COUNT);
    assert_eq!(collector.rest(), []);
}
