//! Every make of broker: retained messages reach a handler as such, once.

use tidegate_tests::broker::Keeps;
use tidegate_tests::{Broker, Config, Daemon, Make, Message, Protocol, on_every_broker, with_duplicates};

on_every_broker!(
    a_retained_message_is_replayed_with_its_flag_to_a_new_session,
    a_retained_message_is_not_replayed_to_a_resumed_session,
);
with_duplicates!(a_retained_message_is_replayed_with_its_flag_to_a_new_session);

/// Copies what matches the filter to `copy/…` with the retain flag that the handler saw.
fn relay(broker: &dyn Broker, protocol: Protocol, filter: &str) -> Daemon {
    let keys = "allow = { publish = [\"plant:copy/#\"] }\nconfig = { broker = \"plant\", topic = \"copy/{topic}\" }";
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .handler("relay", "relay.wasm", keys)
        .subscription("plant", filter, 1, "relay", "");
    Daemon::start(&config)
}

fn a_retained_message_is_replayed_with_its_flag_to_a_new_session(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let publisher = broker.client(protocol);
    publisher.publish(&Message::new("state/pump", "on").retained());
    publisher.publish(&Message::new("mode/pump", "auto").retained());
    let exact = relay(&*broker, protocol, "state/pump");
    exact.settle("plant", 1);
    publisher.publish(&Message::new("state/pump", "off").retained());
    exact.settle("plant", 2);

    let late = broker.client(protocol);
    late.subscribe("copy/state/pump", 1);
    let kept = late.collect(1).remove(0);
    assert_eq!((kept.text(), kept.retain), ("on", true), "a live message reaches the handler without the flag");
    drop(exact);

    let wild = relay(&*broker, protocol, "mode/+");
    publisher.publish(&Message::new("mode/valve", "manual"));
    wild.settle("plant", if make.retained_by_wildcard { 2 } else { 1 });
}

/// The connection is lost, and the daemon finds its session again: on 3.1.1 a SUBSCRIBE would bring the message again
/// (MQTT 3.1.1 §3.8.4).
fn a_retained_message_is_not_replayed_to_a_resumed_session(make: &Make, protocol: Protocol) {
    let mut broker = (make.start)();
    broker.client(protocol).publish(&Message::new("state/pump", "on").retained());
    let daemon = relay(&*broker, protocol, "state/pump");
    daemon.settle("plant", 1);

    broker.stop();
    daemon.wait_not_ready();
    broker.restart();
    daemon.wait_ready();
    if make.keeps == Keeps::Nothing {
        daemon.wait_event("session lost: the broker no longer keeps it, and with it what was published meanwhile", &[]);
    }
    broker.client(protocol).publish(&Message::new("state/pump", "off"));
    assert_eq!(daemon.settle("plant", 2).finished("plant", "handled"), 2.0, "no replay after a lost connection");
}
