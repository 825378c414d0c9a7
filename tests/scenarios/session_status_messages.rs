//! `birth`, `will` and `close`: what the brokers tell others about the gateway.

use tidegate_tests::{Config, Daemon, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(birth_will_and_close_are_told_at_their_time);

const STATUS: &str = r#"
    birth = { topic = "gw/1/state", message = "online", qos = 1, retain = true }
    will = { topic = "gw/1/state", message = "offline", qos = 1, retain = true }
    close = { topic = "gw/1/state", message = "stopped", qos = 1, retain = true }
"#;

fn birth_will_and_close_are_told_at_their_time(protocol: Protocol) {
    let broker = Mosquitto::start();
    let observer = broker.client(protocol);
    observer.subscribe("gw/#", 1);
    let told = |expected: &str| {
        let message = observer.collect(1).remove(0);
        assert_eq!((message.topic.as_str(), message.text()), ("gw/1/state", expected));
    };

    let mut daemon = Daemon::start(&Config::new().broker("plant", broker.port(), protocol, STATUS));
    told("online");
    daemon.kill();
    told("offline");
    daemon.restart();
    told("online");
    daemon.terminate();
    told("stopped");

    assert_eq!(observer.rest(), [], "no will after a goodbye");
    let late = broker.client(protocol);
    late.subscribe("gw/#", 1);
    let kept = late.collect(1).remove(0);
    assert_eq!((kept.text(), kept.retain), ("stopped", true));
}
