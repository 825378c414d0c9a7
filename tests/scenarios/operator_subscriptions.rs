//! RouterOS' `/iot mqtt subscribe`, `unsubscribe` and `subscriptions` at the shell, with real mosquitto.

use serde_json::{Value, json};
use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, wait};

on_both_protocols!(
    a_subscription_is_live_without_a_reconnect,
    a_broker_that_is_not_connected_is_connected_for_it,
    an_ended_subscription_brings_nothing_more,
    what_a_subscription_does_is_changed_live,
);

/// A daemon with the broker `plant`, whose client identifier is gw, and the handler `echo`.
fn daemon(broker: &Mosquitto, protocol: Protocol, keys: &str) -> Daemon {
    let keys = format!("client-id = \"gw\"\n{keys}");
    let config = Config::new().broker("plant", broker.port(), protocol, &keys).guest("echo", "plant", ECHO, "");
    Daemon::launch(&config)
}

/// `subscribe --broker plant --topic TOPIC` with these words.
fn subscribe<'a>(topic: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    [&["subscribe", "--broker", "plant", "--topic", topic], words].concat()
}

/// How often the daemon's client has connected.
#[track_caller]
fn connections(broker: &Mosquitto) -> usize {
    broker.log_until_now().iter().filter(|line| line.contains("New client connected") && line.contains(" gw ")).count()
}

fn a_subscription_is_live_without_a_reconnect(protocol: Protocol) {
    let broker = Mosquitto::start();
    let client = broker.client(Protocol::V5);
    client.publish(&Message::new("retained/a", "kept").retained());
    let daemon = daemon(&broker, protocol, "");
    daemon.wait_connected("plant", true);
    let told = daemon.json(&subscribe("my/test/topic", &[]));
    assert_eq!((&told["state"], &told["qos"]), (&json!("granted"), &json!(0)), "{told}");
    daemon.done(&subscribe("my/+/one", &["--qos", "1"]));
    daemon.done(&subscribe("deep/#", &["--name", "all"]));
    for topic in ["my/test/topic", "my/test/one", "my/test/two", "deep", "deep/er/still", "deeper"] {
        client.publish(&Message::new(topic, "x"));
    }
    daemon.done(&subscribe("retained/+", &[]));
    client.publish(&Message::new("my/test/topic", "end"));
    daemon.wait_received(&[
        ("my/test/topic", "x"),
        ("my/test/one", "x"),
        ("deep", "x"),
        ("deep/er/still", "x"),
        ("retained/a", "kept"),
        ("my/test/topic", "end"),
    ]);
    assert_eq!(connections(&broker), 1, "no reconnect");

    let list = daemon.done(&["subscriptions", "list"]);
    for name in ["plant:my/test/topic", "plant:my/+/one", "all", "plant:retained/+"] {
        let line = list.lines().find(|line| line.starts_with(&format!("{name} ")));
        assert!(line.is_some_and(|line| line.contains("granted")), "{name}: {list}");
    }
}

fn a_broker_that_is_not_connected_is_connected_for_it(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker, protocol, "auto-connect = false");
    let said = daemon.refused(&subscribe("t", &["--no-force"]));
    assert!(said.contains("not connected"), "{said}");
    assert_eq!(
        (connections(&broker), daemon.json(&["subscriptions", "list"])),
        (0, json!([])),
        "nothing is kept of it"
    );
    assert_eq!(daemon.json(&subscribe("t", &[]))["state"], "granted");
    assert_eq!((connections(&broker), &daemon.broker("plant")["connected"]), (1, &json!(true)));
    daemon.done(&subscribe("u", &["--no-force"]));
    broker.client(Protocol::V5).publish(&Message::new("u", "x"));
    daemon.wait_received(&[("u", "x")]);
}

/// A broker that logs every packet.
fn talkative() -> Mosquitto {
    Mosquitto::telling()
}

/// Waits until the broker has confirmed so many ends of subscriptions: a message that it sent before may come until then.
#[track_caller]
fn withdrawn(broker: &Mosquitto, count: usize) {
    wait::until(format!("{count} UNSUBACKs"), || {
        let seen = broker.log().iter().filter(|line| line.contains("Sending UNSUBACK to gw")).count();
        if seen >= count { Ok(()) } else { Err(seen) }
    });
}

fn an_ended_subscription_brings_nothing_more(protocol: Protocol) {
    let broker = talkative();
    let daemon = daemon(&broker, protocol, "");
    daemon.wait_connected("plant", true);
    daemon.done(&subscribe("end/#", &[]));
    daemon.done(&subscribe("a/+", &["--qos", "1"]));
    daemon.done(&subscribe("b", &["--name", "named"]));
    let client = broker.client(Protocol::V5);
    client.publish(&Message::new("a/1", "before"));
    daemon.wait_received(&[("a/1", "before")]);
    daemon.done(&["unsubscribe", "--broker", "plant", "--topic", "a/+"]);
    // Of two that are given back soon after each other, one packet may tell.
    withdrawn(&broker, 1);
    daemon.done(&["unsubscribe", "--name", "named"]);
    withdrawn(&broker, 2);
    for topic in ["a/1", "b", "end/1"] {
        client.publish(&Message::new(topic, "after"));
    }
    daemon.wait_received(&[("a/1", "before"), ("end/1", "after")]);
    assert_eq!(connections(&broker), 1, "no reconnect");
    let ran = daemon.ask(&["unsubscribe", "--broker", "plant", "--topic", "a/+"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(daemon.refused(&["unsubscribe", "--name", "named"]).contains("named"));
}

fn what_a_subscription_does_is_changed_live(protocol: Protocol) {
    let broker = talkative();
    let daemon = daemon(&broker, protocol, "");
    daemon.wait_connected("plant", true);
    let listener = broker.client(Protocol::V5);
    listener.subscribe("out/#", 1);
    daemon.done(&subscribe("in/#", &["--qos", "1"]));
    let send = |text: &str| broker.client(Protocol::V5).publish(&Message::new("in/a", text));
    let set = |words: &[&str]| {
        daemon.done(&[&["subscriptions", "set", "plant:in/#"], words].concat());
    };
    send("nothing");
    daemon.settle("plant", 1);
    set(&["--on-message", "echo"]);
    send("echoed");
    assert_eq!(listener.collect(1)[0].text(), "echoed");

    set(&["--when-payload", "^yes"]);
    send("no");
    send("yes, this");
    assert_eq!(listener.collect(1)[0].text(), "yes, this");
    assert_eq!(daemon.settle("plant", 4).finished("plant", "filtered"), 1.0);
    set(&["--no-when"]);
    send("anything");
    assert_eq!(listener.collect(1)[0].text(), "anything");

    set(&["--log", "Got data {payload} from topic {topic}"]);
    send("test-message");
    daemon.wait_log(&["Got data test-message from topic in/a"]);
    set(&["--no-on-message"]);
    send("cleared");
    let end = daemon.settle("plant", 7);
    assert_eq!(end.finished("plant", "unmatched"), 2.0);
    assert_eq!(daemon.json(&["subscriptions", "list", "plant:in/#"])["on-message"], Value::Null);

    let told = daemon.json(&["subscriptions", "set", "plant:in/#", "--topic", "other/+", "--qos", "0"]);
    assert_eq!(told["name"], "plant:other/+", "its name follows");
    daemon.wait_granted("plant:other/+");
    withdrawn(&broker, 1);
    broker.client(Protocol::V5).publish_all(&[Message::new("in/a", "old"), Message::new("other/a", "new")]);
    daemon.settle("plant", 8);
    assert_eq!(daemon.received().last(), Some(&("other/a".to_owned(), "new".to_owned())));
    assert_eq!(connections(&broker), 1, "no reconnect");
}

#[test]
fn what_cannot_be_is_refused() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker, Protocol::V5, "");
    daemon.wait_connected("plant", true);
    daemon.done(&subscribe("t", &["--on-message", "echo"]));
    let refused = |words: &[&str], reason: &str| {
        let said = daemon.refused(words);
        assert!(said.contains(reason), "{words:?}: {said}");
    };
    refused(&subscribe("t", &["--on-message", "echo"]), "plant:t");
    refused(&subscribe("a/#/b", &[]), "'#' must be the last level");
    refused(&subscribe("u", &["--qos", "3"]), "qos");
    refused(&subscribe("u", &["--on-message", "none"]), "none");
    refused(&subscribe("u", &["--log", "{nothing}"]), "{payload}");
    refused(&["subscribe", "--broker", "plan", "--topic", "u"], "plan");
    refused(&["subscriptions", "set", "plant:u", "--qos", "1"], "plant:u");
    let names: Vec<Value> = daemon
        .json(&["subscriptions", "list"])
        .as_array()
        .expect("an array")
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    assert_eq!(names, ["plant:t"]);
}

#[test]
fn subscriptions_come_back_after_a_restart() {
    let broker = Mosquitto::start();
    let mut daemon = daemon(&broker, Protocol::V5, "");
    daemon.wait_connected("plant", true);
    daemon.done(&subscribe("in/#", &["--qos", "1", "--on-message", "echo"]));
    daemon.kill();
    daemon.restart();
    let listener = broker.client(Protocol::V5);
    listener.subscribe("out/#", 1);
    listener.publish(&Message::new("in/a", "again"));
    assert_eq!(listener.collect(1)[0].text(), "again");
    // explain sees what was added at run time.
    assert!(daemon.done(&["explain", "in/a"]).contains("plant:in/#"));
}

#[test]
fn what_stands_in_the_file_is_changed_there() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .table("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"t\"\non-message = { log = \"x\" }");
    let daemon = Daemon::start(&config);
    let text = std::fs::read_to_string(daemon.home().path().join("tidegate.toml")).expect("the home has it");
    let line = 1 + text.lines().position(|line| line.contains("[[subscriptions]]")).expect("it is there");
    for words in [&["subscriptions", "set", "plant:t", "--no-on-message"][..], &["unsubscribe", "--name", "plant:t"]] {
        let said = daemon.refused(words);
        assert!(said.contains(&format!("tidegate.toml:{line}")), "{said}");
    }
}
