//! Payloads of every kind come through as they are.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    empty_binary_and_large_payloads_come_through_unchanged,
    a_retained_message_is_replayed_to_the_handler_and_its_copy_is_kept,
    an_empty_retained_copy_clears_the_kept_one,
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
