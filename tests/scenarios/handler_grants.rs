//! `allow.publish`: a handler publishes only where it was allowed to.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    a_denied_publish_reaches_the_guest_and_the_log_and_nobody_else,
    a_grant_for_one_broker_is_none_for_another,
);

fn a_denied_publish_reaches_the_guest_and_the_log_and_nobody_else(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("fails", "plant", "mode = \"denied\"", "")
        .guest("goes-on", "plant", "mode = \"denied\", then-ok = true", "")
        .guest("good", "plant", ECHO, "")
        .subscription("plant", "fails/+", 1, "fails", "")
        .subscription("plant", "goes-on/+", 1, "goes-on", "")
        .subscription("plant", "good/+", 1, "good", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("#", 1);

    let publisher = broker.client(protocol);
    let sent = ["fails/a", "goes-on/a", "good/a"].map(|topic| Message::new(topic, "x"));
    publisher.publish_all(&sent);

    let metrics = daemon.settle("plant", sent.len());
    assert_eq!((metrics.calls("fails", "ok"), metrics.calls("goes-on", "ok")), (0.0, 1.0));
    assert_eq!((metrics.finished("plant", "dead_letter"), metrics.finished("plant", "handled")), (1.0, 2.0));
    for handler in ["fails", "goes-on"] {
        let reason = format!(
            "handler \"{handler}\" must not publish to \"plant:forbidden/topic\": allow.publish grants \"plant:out/#\"; \
             to permit it, add \"plant:forbidden/topic\" or a filter that matches to allow.publish of [handlers.{handler}]"
        );
        daemon.wait_event("publish denied", &[("handler", handler), ("reason", &reason)]);
        // What the guest was told, as a field of its own line: quoted.
        daemon.wait_event("publish refused", &[("handler", handler), ("fields", &reason.replace('"', "\\\""))]);
    }
    let came: Vec<_> = collector.rest().into_iter().filter(|message| !sent.contains(message)).collect();
    let came: Vec<_> = came.iter().map(|message| (&*message.topic, message.text())).collect();
    assert_eq!(came, [("out/good/a", "x")], "nothing else left");
}

fn a_grant_for_one_broker_is_none_for_another(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "")
        .broker("cloud", cloud.port(), protocol, "")
        .guest("strays", "plant", "mode = \"denied\", topic = \"out/a\", broker = \"cloud\"", "")
        .subscription("plant", "in/+", 1, "strays", "");
    let daemon = Daemon::start(&config);
    let collector = cloud.client(protocol);
    collector.subscribe("#", 1);
    plant.client(protocol).publish(&Message::new("in/a", "x"));
    daemon.settle("plant", 1);
    daemon.wait_event("publish denied", &[("reason", "must not publish to \"cloud:out/a\"")]);
    assert_eq!(collector.rest(), []);
}
