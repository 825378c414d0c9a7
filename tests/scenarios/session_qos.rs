//! Each quality of service, from one client through a handler to another client.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

const COUNT: usize = 100;

on_both_protocols!(qos_0_comes_and_leaves_once_in_order);
on_both_protocols!(qos_1_comes_and_leaves_once_in_order);
on_both_protocols!(qos_2_comes_and_leaves_once_in_order_as_qos_1);
on_both_protocols!(what_an_earlier_client_of_the_session_left_half_done_is_finished);

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

/// Another client has used the client identifier, subscribed with QoS 2 and gone between PUBREC and PUBCOMP: the broker
/// releases these messages again to whoever takes the session up, and has others in its queue.
fn what_an_earlier_client_of_the_session_left_half_done_is_finished(protocol: Protocol) {
    let broker = Mosquitto::start();
    let options = Client::options(broker.port(), protocol).session("gateway");
    let earlier = options.clone().unfinished().connect().expect("is let in");
    earlier.subscribe("in/#", 2);
    let publisher = broker.client(protocol);
    publisher.publish_all(&["one", "two", "three"].map(|text| Message::new("in/a", text).qos(2)));
    earlier.wait_releases(3);
    drop(earlier);
    publisher.publish(&Message::new("in/a", "queued").qos(2));

    let config = Config::new()
        .broker("plant", broker.port(), protocol, "client-id = \"gateway\"")
        .guest("echo", "plant", ECHO, "instances = 1")
        .subscription("plant", "in/#", 2, "echo", "");
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 2);
    let mut daemon = Daemon::launch(&config);
    collector.collect_until("what was queued", |message| message.text() == "queued");
    publisher.publish(&Message::new("in/a", "live").qos(2));
    let came = collector.collect_until("a live message", |message| message.text() == "live");
    assert!(
        came.iter().all(|message| ["queued", "live"].contains(&message.text())),
        "taken by the earlier one: {came:?}"
    );
    let metrics = daemon.wait_metrics("all reach their end", |metrics| metrics.in_progress("plant") == 0.0);
    assert!(metrics.connects("plant", "accepted") <= 2.0, "it connects again and again\n{}", metrics.page);
    daemon.terminate();

    // The next client of the session gets nothing again.
    let next = options.unfinished().connect().expect("is let in");
    assert_eq!((next.rest(), next.releases()), (vec![], 0));
}
