//! `allow.publish`: a handler publishes only where it was allowed to.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(a_denied_publish_reaches_the_guest_and_the_log_and_nobody_else);

fn a_denied_publish_reaches_the_guest_and_the_log_and_nobody_else(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("bad", "plant", "mode = \"denied\"", "")
        .guest("good", "plant", ECHO, "")
        .subscription("plant", "bad/+", 1, "bad", "")
        .subscription("plant", "good/+", 1, "good", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("#", 1);

    let publisher = broker.client(protocol);
    publisher.publish(&Message::new("bad/a", "x"));
    publisher.publish(&Message::new("good/a", "y"));

    let metrics = daemon.settle("plant", 2);
    daemon.wait_log(&["\"bad\"", "allow.publish"]);
    let topics: Vec<_> = collector.rest().into_iter().map(|message| message.topic).collect();
    assert!(topics.contains(&"out/good/a".to_owned()), "{topics:?}");
    assert_eq!(metrics.published("plant"), topics.iter().filter(|topic| topic.starts_with("out/")).count() as f64);
}
