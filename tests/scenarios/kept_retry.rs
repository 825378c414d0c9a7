//! Dead letters of the store that are handled again: once their handler is mended, with what they were received with; each leaves
//! the store with its effects, and not before.

use serde_json::{Value, json};
use tidegate_tests::config::ECHO;
use tidegate_tests::script::{Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Properties, Protocol, on_both_protocols, wait};

on_both_protocols!(
    a_dead_letter_is_handled_again_once_its_handler_is_mended,
    one_that_fails_again_stays_with_its_new_failure,
    one_whose_effects_are_not_safe_is_still_there_when_the_daemon_is_killed,
    a_stop_waits_for_one_that_is_handled_again,
);

fn config(port: u16, protocol: Protocol, guest: &str, keys: &str) -> Config {
    Config::new()
        .broker("plant", port, protocol, "client-id = \"gateway\"")
        .guest("guest", "plant", guest, &format!("instances = 1\n{keys}"))
        .subscription("plant", "in/#", 1, "guest", "name = \"inputs\"")
}

fn kept(daemon: &Daemon) -> Vec<Value> {
    let list = daemon.json(&["dead-letters", "list", "--last", "1000"]);
    list["dead-letters"].as_array().expect("a list").clone()
}

fn id(letter: &Value) -> String {
    letter["id"].to_string()
}

/// Waits until the store holds so many.
fn wait_kept(daemon: &Daemon, count: usize) {
    daemon.wait_metrics(&format!("the store holds {count}"), |metrics| {
        metrics.sum("tidegate_dead_letter_store_messages", &[]) == count as f64
    });
    wait::until_true(format!("{count} are listed"), || kept(daemon).len() == count);
}

/// The handler is changed while the daemon runs, by command.
fn a_dead_letter_is_handled_again_once_its_handler_is_mended(protocol: Protocol) {
    const COUNT: usize = 150;
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&Config::new().broker("plant", broker.port(), protocol, ""));
    daemon.home().plugin("misbehave.wasm");
    let add = [
        "handlers",
        "add",
        "guest",
        "--plugin",
        "misbehave.wasm",
        "--allow-publish",
        "plant:out/#",
        "--call-deadline",
        "20s",
    ];
    daemon.done(&[&add[..], &["--config", "mode=reject"]].concat());
    daemon.done(&["subscribe", "--broker", "plant", "--topic", "in/#", "--qos", "1", "--on-message", "guest"]);
    let client = broker.client(Protocol::V5);
    client.subscribe("out/#", 1);
    let first = Message::new("in/x/y", b"\x00\xff bad".to_vec())
        .with(Properties { user: vec![("k".to_owned(), "v".to_owned())], ..Properties::default() });
    // More than are handled again at once.
    let others = (1..COUNT).map(|n| Message::new(format!("in/{}", n % 3), format!("{n}")).qos((n % 2) as u8));
    let sent: Vec<Message> = std::iter::once(first).chain(others).collect();
    client.publish_all(&sent);
    let before = daemon.settle("plant", COUNT);
    assert_eq!(before.finished("plant", "dead_letter"), COUNT as f64);

    daemon.done(&["handlers", "set", "guest", "--config", "mode=echo"]);
    let one = id(&kept(&daemon)[0]);
    assert_eq!(daemon.json(&["dead-letters", "retry", &one])["dead-letters"], 1);
    let echo = client.collect(1).remove(0);
    assert_eq!((echo.topic.as_str(), &echo.payload[..]), ("out/in/x/y", &sent[0].payload[..]));
    wait_kept(&daemon, COUNT - 1);
    let said = daemon.refused(&["dead-letters", "retry", &one]);
    assert!(said.contains(&format!("there is no dead letter {one}; see")), "{said}");
    assert_eq!(daemon.json(&["dead-letters", "retry", "--all"])["dead-letters"], COUNT as u64 - 1);
    let mut came: Vec<String> = client.collect(COUNT - 1).iter().map(|message| message.text().to_owned()).collect();
    wait_kept(&daemon, 0);
    let mut expected: Vec<String> = (1..COUNT).map(|n| n.to_string()).collect();
    came.sort();
    expected.sort();
    assert_eq!(came, expected, "each once");
    assert_eq!(client.rest(), []);
    // Its broker counted them when they came.
    let after = daemon.balance();
    assert_eq!((after.received("plant"), after.finished_all("plant")), (COUNT as f64, COUNT as f64));
    assert_eq!(after.calls("guest", "ok"), COUNT as f64);
}

fn one_that_fails_again_stays_with_its_new_failure(protocol: Protocol) {
    let broker = Mosquitto::telling();
    let mut daemon = Daemon::start(&config(broker.port(), protocol, "mode = \"reject\"", ""));
    broker.client(protocol).publish_all(&["a", "b"].map(|text| Message::new("in/a", text)));
    daemon.settle("plant", 2);
    let before = kept(&daemon);
    daemon.terminate();
    daemon.restart_with(&config(
        broker.port(),
        protocol,
        "mode = \"trap\", trigger = \"a\"",
        "retry = { max = 2, backoff = \"1ms\" }",
    ));
    assert_eq!(daemon.json(&["dead-letters", "retry", "--handler", "guest"])["dead-letters"], 2);
    let said = daemon.wait_event("a dead letter failed again, and stays", &[("level", "WARN")]);
    assert_eq!(said["id"], before[0]["id"], "{said}");
    wait_kept(&daemon, 1);
    let after = kept(&daemon).remove(0);
    assert_eq!((&after["id"], &after["topic"]), (&before[0]["id"], &before[0]["topic"]));
    assert_eq!((&after["reason"], &after["attempts"]), (&json!("trap"), &json!(3)), "attempts count anew: {after}");
    assert!(after["time"].as_str() > before[0]["time"].as_str(), "{after}");
    let counted = [("handler", "guest"), ("reason", "trap")];
    assert_eq!(daemon.metrics().sum("tidegate_dead_letters_total", &counted), 1.0);
    broker.wait_acknowledged();
    daemon.kill();
    daemon.restart();
    assert_eq!(kept(&daemon), [after]);
}

/// The broker that gets the outputs does not acknowledge them at first.
fn one_whose_effects_are_not_safe_is_still_there_when_the_daemon_is_killed(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let config = |guest| config(broker.port(), protocol, guest, "");
    let mut daemon = Daemon::launch(&config("mode = \"reject\""));
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(1, &Message::new("in/a", "x"));
    assert_eq!(peer.request(), Request::PubAck(1));
    daemon.terminate();
    drop(peer);
    daemon.launch_again_with(&config(ECHO));
    let mut peer = broker.accept(false);
    peer.grant();
    let letter = id(&kept(&daemon)[0]);
    daemon.done(&["dead-letters", "retry", &letter]);
    let Request::Publish(output, _) = peer.request() else { panic!("its output is sent") };
    assert_eq!((output.topic.as_str(), output.text()), ("out/in/a", "x"));
    let said = daemon.refused(&["dead-letters", "retry", &letter]);
    assert!(said.contains(&format!("the dead letter {letter} is in progress already; ")), "{said}");
    let said = daemon.refused(&["dead-letters", "clear", &letter]);
    assert!(said.contains(&format!("the dead letter {letter} is in progress already; ")), "{said}");
    assert_eq!(daemon.json(&["dead-letters", "clear", "--all"])["dead-letters"], 0);
    daemon.kill();
    drop(peer);

    daemon.launch_again();
    let mut peer = broker.accept(false);
    peer.grant();
    assert_eq!(
        kept(&daemon).iter().map(id).collect::<Vec<_>>(),
        std::slice::from_ref(&letter),
        "its output was not acknowledged"
    );
    daemon.done(&["dead-letters", "retry", &letter]);
    let Request::Publish(_, output) = peer.request() else { panic!("its output is sent again") };
    peer.acknowledge(output);
    wait_kept(&daemon, 0);
    daemon.kill();
    daemon.launch_again();
    assert_eq!(kept(&daemon).len(), 0);
}

fn a_stop_waits_for_one_that_is_handled_again(protocol: Protocol) {
    let broker = Mosquitto::start();
    let guest = |guest: &str| config(broker.port(), protocol, guest, "call-deadline = \"30s\"");
    let mut daemon = Daemon::start(&guest("mode = \"reject\""));
    broker.client(protocol).publish(&Message::new("in/a", "x"));
    daemon.settle("plant", 1);
    daemon.terminate();
    daemon.restart_with(&guest("mode = \"hold\", ms = 1000"));
    let client = broker.client(protocol);
    client.subscribe("out/#", 1);
    daemon.done(&["dead-letters", "retry", "--all"]);
    daemon.wait_log(&["holding"]);
    daemon.terminate();
    assert_eq!(client.collect(1)[0].text(), "x");
    daemon.restart();
    assert_eq!(kept(&daemon).len(), 0);
    assert_eq!(client.rest(), []);
}

#[test]
fn what_nobody_can_handle_is_told() {
    let broker = Mosquitto::start();
    let plant = |name: &str| Config::new().broker(name, broker.port(), Protocol::V5, "");
    let first =
        plant("plant").guest("guest", "plant", "mode = \"reject\"", "").subscription("plant", "in/#", 1, "guest", "");
    let mut daemon = Daemon::start(&first);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    daemon.settle("plant", 1);
    let letter = id(&kept(&daemon)[0]);
    let said = daemon.refused(&["dead-letters", "retry", "4711"]);
    assert!(
        said.contains("there is no dead letter 4711; see which there are with tidegate dead-letters list"),
        "{said}"
    );
    daemon.terminate();
    daemon.restart_with(&plant("plant"));
    let remedy = "which is not configured; add it again, or clear the dead letter";
    let said = daemon.refused(&["dead-letters", "retry", &letter]);
    assert!(said.contains(&format!("the dead letter {letter} is for the handler guest, {remedy}")), "{said}");
    daemon.terminate();
    daemon
        .restart_with(&plant("other").guest("guest", "other", ECHO, "").subscription("other", "in/#", 1, "guest", ""));
    let said = daemon.refused(&["dead-letters", "retry", "--all"]);
    assert!(said.contains(&format!("the dead letter {letter} is from the broker plant, {remedy}")), "{said}");
    assert_eq!(kept(&daemon).len(), 1);
}
