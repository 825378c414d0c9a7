//! Payloads of every kind come through as they are.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    empty_binary_and_large_payloads_come_through_unchanged,
    a_retained_message_is_replayed_to_the_handler_and_its_copy_is_kept,
    an_empty_retained_copy_clears_the_kept_one,
    a_kept_session_gets_no_retained_message_again,
);

fn empty_binary_and_large_payloads_come_through_unchanged(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "max-packet = \"2MiB\"")
        .guest("echo", "plant", ECHO, "max-publish-bytes = \"2MiB\"")
        .subscription("plant", "in/#", 1, "echo", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);

    let payloads: [Vec<u8>; 5] = [
        Vec::new(),
        vec![0],
        (0..=255).collect(),
        b"\xff\xfe not UTF-8 \x80".to_vec(),
        (0..1 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect(),
    ];
    for qos in [0, 1] {
        let messages: Vec<_> = payloads.iter().map(|payload| Message::new("in/a", payload.clone()).qos(qos)).collect();
        broker.client(protocol).publish_all(&messages);
        for (came, sent) in collector.collect(messages.len()).iter().zip(&messages) {
            assert!(came.payload == sent.payload, "{came:?} is not {sent:?}");
            assert_eq!((came.topic.as_str(), came.qos), ("out/in/a", qos));
        }
    }
    daemon.settle("plant", 2 * payloads.len());
}

/// Copies `state/…` to `copy/state/…` with the retain flag that the handler saw.
fn relay(broker: &Mosquitto, protocol: Protocol, settings: &str) -> Daemon {
    let keys = format!(
        "allow = {{ publish = [\"plant:copy/#\"] }}\n\
         config = {{ broker = \"plant\", topic = \"copy/{{topic}}\"{settings} }}"
    );
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .handler("relay", "relay.wasm", &keys)
        .subscription("plant", "state/#", 1, "relay", "");
    Daemon::start(&config)
}

fn a_retained_message_is_replayed_to_the_handler_and_its_copy_is_kept(protocol: Protocol) {
    let broker = Mosquitto::start();
    broker.client(protocol).publish(&Message::new("state/pump", "on").retained());
    let daemon = relay(&broker, protocol, "");
    daemon.settle("plant", 1);
    broker.client(protocol).publish(&Message::new("state/valve", "open").retained());
    daemon.settle("plant", 2);

    let late = broker.client(protocol);
    late.subscribe("copy/#", 1);
    let kept: Vec<_> = late.rest().into_iter().map(|message| (message.topic, message.retain)).collect();
    assert_eq!(kept, [("copy/state/pump".to_owned(), true)], "a live message reaches the handler without the flag");
}

fn an_empty_retained_copy_clears_the_kept_one(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = relay(&broker, protocol, ", retain = true");
    let publisher = broker.client(protocol);
    publisher.publish(&Message::new("state/pump", "on"));
    daemon.settle("plant", 1);
    let first = broker.client(protocol);
    first.subscribe("copy/#", 1);
    assert_eq!(first.collect(1)[0].text(), "on");

    publisher.publish(&Message::new("state/pump", ""));
    daemon.settle("plant", 2);
    let second = broker.client(protocol);
    second.subscribe("copy/#", 1);
    assert_eq!(second.rest(), [], "nothing is kept");
}

/// The broker keeps the session, and with it the subscription. A new daemon subscribes again on 3.1.1, where that always
/// brings the retained messages (MQTT 3.1.1 §3.8.4).
fn a_kept_session_gets_no_retained_message_again(protocol: Protocol) {
    let mut broker = Mosquitto::persistent();
    broker.client(protocol).publish(&Message::new("state/pump", "on").retained());
    let mut daemon = relay(&broker, protocol, "");
    daemon.settle("plant", 1);

    broker.stop();
    daemon.wait_not_ready();
    broker.restart();
    daemon.wait_ready();
    broker.client(protocol).publish(&Message::new("state/pump", "off"));
    assert_eq!(daemon.settle("plant", 2).finished("plant", "handled"), 2.0, "no replay after a lost connection");

    if protocol == Protocol::V5 {
        daemon.terminate();
        daemon.restart();
        broker.client(protocol).publish(&Message::new("state/pump", "on"));
        assert_eq!(daemon.settle("plant", 1).finished("plant", "handled"), 1.0, "no replay to a new daemon");
    }
}

/// A broker of protocol 5 is told the limit, and leaves such a message out (MQTT 5 §3.1.2.11.4).
#[test]
fn a_message_over_max_packet_does_not_hold_up_the_next_on_5() {
    let (broker, daemon) = small_packets(Protocol::V5);
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    broker.client(Protocol::V5).publish_all(&[Message::new("in/a", vec![b'x'; 5000]), Message::new("in/a", "next")]);
    assert_eq!(collector.collect(1)[0].text(), "next");
    daemon.settle("plant", 1);
}

/// On 3.1.1 nobody tells the broker.
#[test]
fn a_message_over_max_packet_is_told_in_plain_words_on_3_1_1() {
    let (broker, daemon) = small_packets(Protocol::V311);
    broker.client(Protocol::V311).publish(&Message::new("in/a", vec![b'x'; 5000]));
    daemon.wait_event("connection lost", &[("broker", "plant"), ("reason", "set a larger max-packet")]);
}

fn small_packets(protocol: Protocol) -> (Mosquitto, Daemon) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "max-packet = \"4KiB\"")
        .guest("echo", "plant", ECHO, "")
        .subscription("plant", "in/#", 1, "echo", "");
    let daemon = Daemon::start(&config);
    (broker, daemon)
}
