//! A handler whose queue is full: QoS 0 messages go as `overload` says and are counted; QoS 1 messages wait.

use tidegate_tests::gate::{AT_W, ECHO, Gate};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    drop_newest_keeps_the_oldest,
    drop_oldest_keeps_the_newest,
    messages_with_qos_1_wait_beyond_the_queue
);

const QUEUE: usize = 5;
const SENT: usize = 20;

fn drop_newest_keeps_the_oldest(protocol: Protocol) {
    assert_eq!(kept(protocol, "drop-newest"), ["0", "1", "2", "3", "4"]);
}

fn drop_oldest_keeps_the_newest(protocol: Protocol) {
    assert_eq!(kept(protocol, "drop-oldest"), ["15", "16", "17", "18", "19"]);
}

fn bounded(overload: &str) -> String {
    format!("instances = 1\nqueue = {QUEUE}\noverload = \"{overload}\"")
}

/// Which messages are handled that come while a call takes long.
fn kept(protocol: Protocol, overload: &str) -> Vec<String> {
    let (broker, gate) = (Mosquitto::start(), Gate::new());
    let allow = "allow = { publish = [\"plant:out/#\"] }\ncall-deadline = \"1m\"";
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .native("echo", gate.plugin("", &format!("{AT_W}{ECHO}")), &format!("{}\n{allow}", bounded(overload)))
        .subscription("plant", "in/#", 1, "echo", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);
    publisher.publish(&Message::new("in/a", "wait").qos(0));
    gate.wait_reached();
    publisher.publish_all(&(0..SENT).map(|n| Message::new("in/a", format!("{n}")).qos(0)).collect::<Vec<_>>());
    let dropped = (SENT - QUEUE) as f64;
    daemon.wait_metrics("what has no room is dropped", |metrics| {
        metrics.received("plant") == (1 + SENT) as f64 && metrics.finished("plant", "dropped_overload") == dropped
    });
    gate.open();

    let metrics = daemon.settle("plant", 1 + SENT);
    assert_eq!(metrics.finished("plant", "dropped_overload"), dropped);
    let came = collector.collect(1 + QUEUE);
    assert_eq!(collector.rest(), []);
    assert_eq!(came[0].text(), "wait");
    came[1..].iter().map(|message| message.text().to_owned()).collect()
}

fn messages_with_qos_1_wait_beyond_the_queue(protocol: Protocol) {
    const COUNT: usize = 300;
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("echo", "plant", "mode = \"slow\", ms = 1", &bounded("drop-newest"))
        .subscription("plant", "in/#", 1, "echo", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let messages: Vec<_> = (0..COUNT).map(|n| Message::new("in/a", format!("{n}"))).collect();
    broker.client(protocol).publish_all(&messages);
    let came = collector.collect(COUNT);
    assert!(came.iter().zip(&messages).all(|(came, sent)| came.payload == sent.payload), "each once, in order");
    assert_eq!(daemon.settle("plant", COUNT).finished("plant", "handled"), COUNT as f64);
}
