//! Each quality of service, from one client through a handler to another client.

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

const COUNT: usize = 100;

on_both_protocols!(qos_0_comes_and_leaves_once_in_order);
on_both_protocols!(qos_1_comes_and_leaves_once_in_order);
on_both_protocols!(qos_2_comes_and_leaves_once_in_order_as_qos_1);

fn qos_0_comes_and_leaves_once_in_order(protocol: Protocol) {
    through_celsius(protocol, 0, 0);
}

fn qos_1_comes_and_leaves_once_in_order(protocol: Protocol) {
    through_celsius(protocol, 1, 1);
}

fn qos_2_comes_and_leaves_once_in_order_as_qos_1(protocol: Protocol) {
    through_celsius(protocol, 2, 1);
}

/// Publishes with `qos`; the daemon takes it in, and the handler's publish leaves, with `on_the_wire`.
fn through_celsius(protocol: Protocol, qos: u8, on_the_wire: u8) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .handler("celsius", "celsius.wasm", "allow = { publish = [\"plant:sensors/+/fahrenheit\"] }")
        .subscription("plant", "sensors/+", qos, "celsius", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("sensors/+/fahrenheit", 2);

    let readings: Vec<_> =
        (0..COUNT).map(|n| Message::new("sensors/boiler", format!("{{\"c\": {n}}}")).qos(qos)).collect();
    broker.client(protocol).publish_all(&readings);

    for (n, message) in collector.collect(COUNT).iter().enumerate() {
        assert_eq!(message.topic, "sensors/boiler/fahrenheit");
        let expected = n as f64 * 1.8 + 32.0;
        assert!(message.json()["f"].as_f64().is_some_and(|f| (f - expected).abs() < 0.01), "{n}th: {message:?}");
        assert_eq!((message.qos, message.retain), (on_the_wire, false), "{message:?}");
    }
    let metrics = daemon.settle("plant", COUNT);
    assert_eq!(collector.rest(), [], "nothing comes twice");
    let label = on_the_wire.to_string();
    for family in ["tidegate_messages_received_total", "tidegate_messages_published_total"] {
        assert_eq!(metrics.sum(family, &[("broker", "plant"), ("qos", &label)]), COUNT as f64, "{family}");
    }
    assert_eq!(metrics.finished("plant", "handled"), COUNT as f64);
    assert_eq!(metrics.calls("celsius", "ok"), COUNT as f64);
}
