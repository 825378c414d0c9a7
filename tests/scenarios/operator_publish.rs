//! RouterOS' `/iot mqtt publish` at the shell, with real mosquitto.

use serde_json::json;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::operator::freeze;
use tidegate_tests::process::Process;
use tidegate_tests::{Client, Config, Daemon, Home, Message, Mosquitto, Protocol, on_both_protocols, wait};

on_both_protocols!(
    a_message_arrives_as_it_was_given,
    a_broker_that_is_not_connected_is_connected_for_it,
    a_broker_disconnected_by_hand_is_connected_for_it,
    the_connection_ends_afterwards_only_if_it_was_made_for_it,
    a_publish_ends_no_connection_that_something_else_wants,
    after_a_publish_a_broker_is_disconnected_by_hand_as_before,
    what_a_handler_publishes_while_a_disconnect_drains_arrives,
    the_acknowledgement_is_waited_for,
);

/// A broker, a daemon that connects it only when it must, and who listens to everything.
fn parts(protocol: Protocol) -> (Mosquitto, Daemon, Client) {
    let broker = Mosquitto::start();
    let listener = broker.client(Protocol::V5);
    listener.subscribe("#", 2);
    let other = Config::new().broker("plant", broker.port(), protocol, "auto-connect = false");
    (broker, Daemon::launch(&other), listener)
}

/// `publish --broker plant --topic TOPIC` with these words.
fn publish<'a>(topic: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    [&["publish", "--broker", "plant", "--topic", topic], words].concat()
}

fn a_message_arrives_as_it_was_given(protocol: Protocol) {
    let (_broker, daemon, listener) = parts(protocol);
    let arrived = |payload: &[u8], qos: u8| {
        let message = listener.collect(1).remove(0);
        assert_eq!((&*message.topic, &*message.payload, message.qos), ("my/test/topic", payload, qos));
    };
    // RouterOS' defaults: an empty message with QoS 0.
    daemon.done(&publish("my/test/topic", &[]));
    arrived(b"", 0);
    daemon.done(&publish("my/test/topic", &["--message", "test-message"]));
    arrived(b"test-message", 0);
    let told = daemon.json(&publish("my/test/topic", &["--message", "grüezi", "--qos", "1"]));
    arrived("grüezi".as_bytes(), 1);
    assert_eq!((&told["acknowledged"], &told["qos"]), (&json!(true), &json!(1)), "{told}");

    let binary: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    daemon.home().write("payload.bin", &binary);
    daemon.done(&publish("my/test/topic", &["--file", "payload.bin", "--qos", "1"]));
    arrived(&binary, 1);
    let ran = daemon.ask_with_input(&publish("my/test/topic", &["-"]), &binary);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    arrived(&binary, 0);
    let ran = daemon.ask_with_input(&publish("my/test/topic", &["-"]), b"line\n");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    arrived(b"line\n", 0);
}

#[test]
fn a_session_that_ends_with_its_connection_publishes_with_qos_2() {
    let broker = Mosquitto::start();
    let listener = broker.client(Protocol::V5);
    listener.subscribe("#", 2);
    let keys = "auto-connect = false\nclean-session = true";
    let daemon = Daemon::launch(&Config::new().broker("plant", broker.port(), Protocol::V5, keys));
    let told = daemon.json(&publish("t", &["--qos", "2"]));
    assert_eq!((&told["qos"], listener.collect(1)[0].qos), (&json!(2), 2));
}

#[test]
fn a_retained_message_is_kept_and_an_empty_one_clears_it() {
    let (broker, daemon, _listener) = parts(Protocol::V5);
    let kept = |topic: &str| {
        let late = broker.client(Protocol::V5);
        late.subscribe("t/#", 1);
        late.until_own(&Message::new(topic, ""))
    };
    daemon.done(&publish("t/a", &["--message", "kept", "--qos", "1", "--retain"]));
    daemon.done(&publish("t/b", &["--message", "not kept", "--qos", "1"]));
    let found = kept("t/end-1");
    assert_eq!(found.iter().map(|message| (&*message.topic, message.text())).collect::<Vec<_>>(), [("t/a", "kept")]);
    daemon.done(&publish("t/a", &["--qos", "1", "--retain"]));
    assert_eq!(kept("t/end-2"), []);
}

fn a_broker_that_is_not_connected_is_connected_for_it(protocol: Protocol) {
    let (_broker, daemon, listener) = parts(protocol);
    let said = daemon.refused(&publish("t", &["--message", "refused", "--no-force"]));
    assert!(said.contains("not connected"), "{said}");
    assert_eq!(daemon.broker("plant")["connected"], false);
    let told = daemon.json(&publish("t", &["--message", "forced"]));
    assert_eq!(told["connected-for-it"], true, "{told}");
    assert_eq!(daemon.broker("plant")["connected"], true, "it stays connected");
    daemon.done(&publish("t", &["--message", "open", "--no-force"]));
    let texts: Vec<String> = listener.collect(2).iter().map(|message| message.text().to_owned()).collect();
    assert_eq!(texts, ["forced", "open"]);
}

fn a_broker_disconnected_by_hand_is_connected_for_it(protocol: Protocol) {
    let (_broker, daemon, listener) = parts(protocol);
    daemon.done(&["brokers", "connect", "plant"]);
    daemon.done(&["brokers", "disconnect", "plant"]);
    daemon.refused(&publish("t", &["--no-force"]));
    daemon.done(&publish("t", &["--message", "forced", "--qos", "1"]));
    assert_eq!(listener.collect(1)[0].text(), "forced");
    assert_eq!(daemon.broker("plant")["connected"], true);
}

fn the_connection_ends_afterwards_only_if_it_was_made_for_it(protocol: Protocol) {
    let (broker, daemon, listener) = parts(protocol);
    let told = daemon.json(&publish("t", &["--message", "one", "--disconnect-after"]));
    assert_eq!((&told["connected-for-it"], &told["disconnected"]), (&json!(true), &json!(true)), "{told}");
    let shown = daemon.broker("plant");
    assert_eq!((&shown["connected"], &shown["retry-in"]), (&json!(false), &json!(null)), "{shown}");
    assert!(shown["state"] == "disconnected" || shown["state"] == "idle", "none is to be made: {shown}");
    assert_eq!(listener.collect(1)[0].text(), "one");
    // The default client identifier ends in the broker's name.
    let seen = |what: &str| {
        broker.log_until_now().iter().filter(|line| line.contains(what) && line.contains("-plant")).count()
    };
    wait::until_true("the broker sees it go", || seen(" disconnected") == 1);
    assert_eq!(seen("New client connected"), 1);

    // By hand it is connected again, which is the second time: nothing else has.
    daemon.done(&["brokers", "connect", "plant"]);
    assert_eq!(seen("New client connected"), 2);
    let said = daemon.refused(&publish("t", &["--message", "two", "--disconnect-after"]));
    assert!(said.contains("connected already"), "{said}");
    assert_eq!(daemon.broker("plant")["connected"], true);
    assert_eq!(listener.until_own(&Message::new("end", "")), [], "nothing was published");
}

fn a_publish_ends_no_connection_that_something_else_wants(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new().broker("plant", broker.port(), protocol, "");
    let config = config.broker("other", broker.port(), protocol, "auto-connect = false\nclient-id = \"other\"");
    freeze(broker.id(), true);
    let daemon = Daemon::launch(&config);
    daemon.wait_shown("plant", "is connecting", |shown| shown["state"] == "connecting");
    // By auto-connect.
    let said = daemon.refused(&publish("t", &["--disconnect-after"]));
    assert!(said.contains("is kept connected (auto-connect), and a publish ends only a connection"), "{said}");
    // By another command.
    let mut connecting = daemon.begin(&["brokers", "connect", "other"]);
    daemon.wait_shown("other", "is connecting", |shown| shown["state"] == "connecting");
    let said = daemon.refused(&["publish", "--broker", "other", "--topic", "t", "--disconnect-after"]);
    assert!(said.contains("is being connected already, and a publish ends only a connection"), "{said}");
    let plain = ["publish", "--broker", "other", "--topic", "t", "--qos", "1", "--json"];
    let mut publishing = daemon.begin(&plain);
    freeze(broker.id(), false);
    assert_eq!(connecting.wait(wait::PATIENCE).code(), Some(0), "{:?}", connecting.lines());
    assert_eq!(publishing.wait(wait::PATIENCE).code(), Some(0), "{:?}", publishing.lines());
    assert!(publishing.lines().concat().contains("\"connected-for-it\": false"), "{:?}", publishing.lines());
    daemon.wait_connected("plant", true);
    assert_eq!(daemon.broker("other")["connected"], true);
}

fn after_a_publish_a_broker_is_disconnected_by_hand_as_before(protocol: Protocol) {
    let broker = Mosquitto::start();
    let listener = broker.client(protocol);
    listener.subscribe("#", 1);
    let daemon = Daemon::start(&Config::new().broker("plant", broker.port(), protocol, ""));
    daemon.done(&["brokers", "disconnect", "plant"]);
    let told = daemon.json(&publish("t", &["--message", "one", "--qos", "1", "--disconnect-after"]));
    assert_eq!((&told["connected-for-it"], &told["disconnected"]), (&json!(true), &json!(true)), "{told}");
    assert_eq!(listener.collect(1)[0].text(), "one");
    assert_eq!(daemon.broker("plant")["state"], "disconnected");

    // Asked for meanwhile it stays connected.
    freeze(broker.id(), true);
    let mut publishing = daemon.begin(&publish("t", &["--qos", "1", "--disconnect-after"]));
    daemon.wait_shown("plant", "is connecting", |shown| shown["state"] == "connecting");
    let mut connecting = daemon.begin(&["brokers", "connect", "plant"]);
    freeze(broker.id(), false);
    assert_eq!(publishing.wait(wait::PATIENCE).code(), Some(0), "{:?}", publishing.lines());
    assert_eq!(connecting.wait(wait::PATIENCE).code(), Some(0), "{:?}", connecting.lines());
    assert_eq!(daemon.broker("plant")["connected"], true);
}

/// Disconnects a frozen broker that has something to acknowledge: it drains until the broker goes on.
fn begin_draining(daemon: &Daemon) -> [Process; 2] {
    let publishing = daemon.begin(&publish("first", &["--qos", "1"]));
    daemon.wait_shown("plant", "has it in its outbox", |shown| shown["outbox"]["messages"] == 1);
    let disconnecting = daemon.begin(&["brokers", "disconnect", "plant"]);
    // One that is about to end is not connected.
    wait::until_true("it drains", || daemon.ask(&publish("before", &["--no-force"])).code == Some(4));
    [publishing, disconnecting]
}

fn what_a_handler_publishes_while_a_disconnect_drains_arrives(protocol: Protocol) {
    let (source, plant) = (Mosquitto::start(), Mosquitto::start());
    let relay = "allow = { publish = [\"plant:up\"] }\nconfig = { broker = \"plant\", topic = \"{topic}\" }";
    let config = Config::new()
        .broker("source", source.port(), protocol, "")
        .broker("plant", plant.port(), protocol, "")
        .handler("relay", "relay.wasm", relay)
        .subscription("source", "up", 1, "relay", "");
    let daemon = Daemon::start(&config);
    let listener = plant.client(protocol);
    listener.subscribe("up", 1);
    freeze(plant.id(), true);
    let commands = begin_draining(&daemon);
    source.client(protocol).publish(&Message::new("up", "late"));
    daemon.wait_shown("plant", "has both in its outbox", |shown| shown["outbox"]["messages"] == 2);
    freeze(plant.id(), false);
    for mut command in commands {
        assert_eq!(command.wait(wait::PATIENCE).code(), Some(0), "{:?}", command.lines());
    }
    // By force, as what is published after a disconnect.
    assert_eq!(listener.collect(1)[0].text(), "late");
    daemon.wait_connected("plant", true);
}

#[test]
fn a_broker_that_is_changed_while_a_disconnect_drains_stays_disconnected() {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&Config::new());
    let port = broker.port().to_string();
    let words = ["brokers", "add", "plant", "--address", "127.0.0.1", "--port", &port, "--client-id", "gw-plant"];
    daemon.done(&[&words[..], &["--auto-connect"]].concat());
    daemon.wait_connected("plant", true);
    freeze(broker.id(), true);
    let [mut publishing, mut disconnecting] = begin_draining(&daemon);
    let mut changing = daemon.begin(&["brokers", "set", "plant", "--keep-alive", "77"]);
    freeze(broker.id(), false);
    for command in [&mut publishing, &mut disconnecting, &mut changing] {
        assert_eq!(command.wait(wait::PATIENCE).code(), Some(0), "{:?}", command.lines());
    }
    let shown = daemon.broker("plant");
    assert_eq!((&shown["state"], &shown["keep-alive"]), (&json!("disconnected"), &json!(77)), "{shown}");
    let is_ours = |line: &&String| line.contains("New client connected") && line.contains("gw-plant");
    let connects = broker.log().iter().filter(is_ours).count();
    assert_eq!(connects, 1, "{:?}", broker.log());
}

fn the_acknowledgement_is_waited_for(protocol: Protocol) {
    let (broker, daemon, listener) = parts(protocol);
    daemon.done(&["brokers", "connect", "plant"]);
    freeze(broker.id(), true);
    let mut command = daemon.begin(&publish("t", &["--message", "slow", "--qos", "1"]));
    daemon.wait_shown("plant", "has it in its outbox", |shown| shown["outbox"]["messages"] == 1);
    assert!(command.ended().is_none(), "{:?}", command.lines());
    freeze(broker.id(), false);
    assert_eq!(command.wait(wait::PATIENCE).code(), Some(0), "{:?}", command.lines());
    assert_eq!(listener.collect(1)[0].text(), "slow");
    assert_eq!(daemon.broker("plant")["outbox"]["messages"], 0);
}

#[test]
fn what_no_broker_takes_is_wrong_use() {
    let (_broker, daemon, listener) = parts(Protocol::V5);
    let wrong = |words: &[&str], reason: &str| {
        let ran = daemon.ask(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
        assert!(ran.stderr.contains(reason), "{ran:?}");
    };
    wrong(&publish("a/+", &[]), "§4.7");
    wrong(&publish("a/#", &[]), "§4.7");
    wrong(&publish("", &[]), "must not be empty");
    wrong(&publish("t", &["--qos", "3"]), "use 0, 1 or 2");
    wrong(&publish("t", &["--message", "x", "--file", "y"]), "cannot be used with");
    wrong(&publish("t", &["--file", "/dev/zero"]), "/dev/zero holds more than 16777216 bytes");
    wrong(&publish("t", &["--no-force", "--disconnect-after"]), "give one of them");
    wrong(&["publish", "--topic", "t"], "--broker");
    assert_eq!(daemon.broker("plant")["connected"], false, "nothing was sent");
    assert_eq!(listener.until_own(&Message::new("end", "")), []);
    let said = daemon.refused(&["publish", "--broker", "plan", "--topic", "t"]);
    assert!(said.contains("broker plan;"), "{said}");
}

#[test]
fn a_refusal_of_the_broker_is_told() {
    let home = Home::empty();
    home.write("acl", "topic readwrite allowed/#\n");
    let extra = format!("acl_file {}", home.path().join("acl").display());
    let broker = Mosquitto::with(Options { extra, ..Options::default() });
    let daemon = Daemon::start(&Config::new().broker("plant", broker.port(), Protocol::V5, ""));
    daemon.done(&publish("allowed/t", &["--qos", "1"]));
    let said = daemon.refused(&publish("t", &["--qos", "1"]));
    assert!(said.contains("access rules"), "{said}");
}

#[test]
fn a_broker_that_cannot_be_reached_is_told() {
    let (mut broker, daemon, _listener) = parts(Protocol::V5);
    broker.stop();
    let said = daemon.refused(&publish("t", &["--qos", "1"]));
    assert!(said.contains("plant") && said.contains("refused"), "{said}");
    // What was refused is not published later, when nobody expects it.
    broker.restart();
    let late = broker.client(Protocol::V5);
    late.subscribe("#", 1);
    daemon.done(&["brokers", "connect", "plant"]);
    assert_eq!(late.until_own(&Message::new("end", "")), []);
}

#[test]
fn without_a_daemon_the_exit_code_is_3() {
    let (_broker, mut daemon, _listener) = parts(Protocol::V5);
    daemon.terminate();
    let ran = daemon.ask(&publish("t", &[]));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("admin.sock") && ran.stderr.contains("tidegate run"), "{ran:?}");
}
