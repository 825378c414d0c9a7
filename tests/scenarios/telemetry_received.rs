//! The messages kept for `tidegate recv`: every message that was received, handled or not, of all brokers, within bounds.

use serde_json::Value;
use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(every_message_is_kept_handled_or_not, only_the_last_are_kept);

/// What the daemon keeps: its messages, and how many are gone.
fn received(daemon: &Daemon, query: &str) -> (Vec<Value>, u64) {
    let response = daemon.get(&format!("/api/v1/received{query}"));
    assert_eq!(response.status, 200, "{}", response.body);
    let mut list: Value = serde_json::from_str(&response.body).expect("is JSON");
    let gone = list["gone"].as_u64().expect("a number");
    let Value::Array(messages) = list["messages"].take() else { panic!("{list}") };
    (messages, gone)
}

fn fields(messages: &[Value], key: &str) -> Vec<String> {
    messages.iter().map(|message| message[key].to_string().trim_matches('"').to_owned()).collect()
}

fn every_message_is_kept_handled_or_not(protocol: Protocol) {
    let (plant, lab) = (Mosquitto::start(), Mosquitto::start());
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "")
        .broker("lab", lab.port(), protocol, "")
        .guest("echo", "plant", ECHO, "")
        .guest("fails", "plant", "mode = \"trap\"", "")
        .subscription("plant", "in/+", 1, "echo", "")
        .subscription("plant", "fails/+", 1, "fails", "")
        .subscription("lab", "in/+", 0, "echo", "when = { payload = \"never\" }")
        .table("[[subscriptions]]\nbroker = \"lab\"\ntopic = \"seen/#\"\nqos = 1");
    let daemon = Daemon::start(&config);
    let bytes = Message::new("seen/bytes", [0xff, 0x00]);
    // One after the other, so that their order is known.
    for (broker, message, count) in [
        (&plant, &Message::new("in/a", "handled"), 1),
        (&plant, &Message::new("fails/a", "failed"), 2),
        (&lab, &Message::new("in/a", "filtered"), 1),
        (&lab, &Message::new("seen/a", "unmatched"), 2),
        (&lab, &bytes, 3),
    ] {
        broker.client(protocol).publish(message);
        daemon.settle(if std::ptr::eq(broker, &plant) { "plant" } else { "lab" }, count);
    }
    let (messages, gone) = received(&daemon, "");
    assert_eq!(gone, 0);
    assert_eq!(fields(&messages, "sequence"), ["1", "2", "3", "4", "5"]);
    assert_eq!(fields(&messages, "broker"), ["plant", "plant", "lab", "lab", "lab"]);
    assert_eq!(fields(&messages, "topic"), ["in/a", "fails/a", "in/a", "seen/a", "seen/bytes"]);
    assert_eq!(fields(&messages, "data"), ["handled", "failed", "filtered", "unmatched", "/wA="]);
    assert_eq!(fields(&messages, "qos"), ["1", "1", "0", "1", "1"]);
    assert_eq!((&messages[0]["encoding"], &messages[4]["encoding"]), (&"utf-8".into(), &"base64".into()));
    assert!(fields(&messages, "time").is_sorted());

    let sequences = |query| fields(&received(&daemon, query).0, "sequence");
    assert_eq!(sequences("?broker=lab"), ["3", "4", "5"]);
    assert_eq!(sequences("?topic=in/%2B"), ["1", "3"]);
    assert_eq!(sequences("?topic=%23&last=2"), ["4", "5"]);
}

fn only_the_last_are_kept(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .top("recv-buffer = 3\nrecv-bytes = \"20B\"")
        .broker("plant", broker.port(), protocol, "")
        .table("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"#\"\nqos = 1");
    let daemon = Daemon::start(&config);
    let publisher = broker.client(protocol);
    publisher.publish_all(&[1, 2, 3, 4, 5].map(|number| Message::new("t", format!("{number}"))));
    daemon.settle("plant", 5);
    let kept = || {
        let (messages, gone) = received(&daemon, "");
        (fields(&messages, "data"), gone)
    };
    assert_eq!(kept(), (vec!["3".into(), "4".into(), "5".into()], 2));
    publisher.publish(&Message::new("t", "x".repeat(20)));
    daemon.settle("plant", 6);
    assert_eq!(kept(), (vec!["3".into(), "4".into(), "5".into()], 3), "a message that is too large drives out nothing");
    publisher.publish(&Message::new("t", "y".repeat(17)));
    daemon.settle("plant", 7);
    assert_eq!(kept(), (vec!["5".into(), "y".repeat(17)], 5));
}

/// On protocol 5 this broker sends a copy for each filter.
#[test]
fn further_copies_of_a_message_are_not_kept() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("echo", "plant", ECHO, "")
        .subscription("plant", "a/+", 1, "echo", "")
        .subscription("plant", "+/b", 1, "echo", "");
    let daemon = Daemon::start(&config);
    let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    broker
        .client(Protocol::V5)
        .publish_all(&numbers.iter().map(|n| Message::new("a/b", n.as_str())).collect::<Vec<_>>());
    let metrics = daemon.settle("plant", 2 * numbers.len());
    assert_eq!(metrics.finished("plant", "copy"), numbers.len() as f64);
    let (messages, gone) = received(&daemon, "");
    assert_eq!((fields(&messages, "data"), gone), (numbers, 0));
}
