//! The properties of protocol 5 reach the handler and leave with its publish; 3.1.1 goes without.

use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Properties, Protocol};

#[test]
fn properties_come_and_leave_on_5() {
    let properties = relayed(Protocol::V5, Protocol::V5);
    let Properties { message_expiry: Some(seconds), .. } = properties else { panic!("{properties:?}") };
    assert!((3590..=3600).contains(&seconds), "the broker counts down: {seconds}");
    assert_eq!(Properties { message_expiry: Some(3600), ..properties }, with_hops(sample()));
}

#[test]
fn a_message_goes_without_properties_to_a_broker_on_3_1_1() {
    assert_eq!(relayed(Protocol::V5, Protocol::V311), Properties::default());
}

#[test]
fn a_message_from_a_broker_on_3_1_1_has_none() {
    assert_eq!(relayed(Protocol::V311, Protocol::V5), with_hops(Properties::default()));
}

fn sample() -> Properties {
    Properties {
        utf8_payload: true,
        message_expiry: Some(3600),
        content_type: Some("application/json".to_owned()),
        response_topic: Some("answers/7".to_owned()),
        correlation_data: Some(vec![0, 1, 255]),
        user: vec![("trace".to_owned(), "1".to_owned()), ("trace".to_owned(), "2".to_owned())],
    }
}

/// The number of calls that a message came from is told to every broker on 5.
fn with_hops(mut properties: Properties) -> Properties {
    properties.user.push(("tidegate-hops".to_owned(), "1".to_owned()));
    properties
}

/// What arrives of [`sample`] when the gateway speaks these protocols to its two brokers.
fn relayed(from: Protocol, to: Protocol) -> Properties {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let config = Config::new()
        .broker("plant", plant.port(), from, "")
        .broker("cloud", cloud.port(), to, "")
        .handler(
            "relay",
            "relay.wasm",
            "allow = { publish = [\"cloud:up/#\"] }\nconfig = { broker = \"cloud\", topic = \"up/{1}\" }",
        )
        .subscription("plant", "in/+", 1, "relay", "");
    let daemon = Daemon::start(&config);
    let collector = Client::connect(cloud.port(), Protocol::V5);
    collector.subscribe("up/#", 1);

    plant.client(Protocol::V5).publish(&Message::new("in/7", "{}").with(sample()));

    let message = collector.collect(1).remove(0);
    assert_eq!((message.topic.as_str(), message.text()), ("up/7", "{}"));
    daemon.settle("plant", 1);
    message.properties
}
