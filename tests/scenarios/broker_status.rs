//! Every make of broker: `birth`, `will` and `close` tell others about the daemon.

use tidegate_tests::{Config, Daemon, Make, Message, Protocol, on_every_broker};

on_every_broker!(birth_will_and_close_are_told_at_their_time);

const STATUS: &str = r#"
    birth = { topic = "gw/1/state", message = "online", qos = 1, retain = true }
    will = { topic = "gw/1/state", message = "offline", qos = 1, retain = true }
    close = { topic = "gw/1/state", message = "stopped", qos = 1, retain = true }
"#;

fn birth_will_and_close_are_told_at_their_time(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let observer = broker.client(protocol);
    observer.subscribe("gw/#", 1);
    let told = |expected: &str| {
        let message = observer.collect(1).remove(0);
        assert_eq!((&*message.topic, message.text(), message.retain), ("gw/1/state", expected, false));
    };

    let mut daemon = Daemon::start(&Config::new().broker("plant", broker.port(), protocol, STATUS));
    told("online");
    daemon.kill();
    told("offline");
    daemon.restart();
    told("online");
    daemon.terminate();
    told("stopped");

    assert_eq!(observer.until_own(&Message::new("gw/end", "")), [], "no will after a goodbye");
    let late = broker.client(protocol);
    late.subscribe("gw/1/state", 1);
    let kept = late.collect(1).remove(0);
    assert_eq!((kept.text(), kept.retain), ("stopped", true));
}
