//! RouterOS' `/iot mqtt brokers`, `connect` and `disconnect` at the shell, with real mosquitto.

use serde_json::{Value, json};
use tidegate_tests::certificates::Authority;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, ports, wait};

on_both_protocols!(
    a_broker_added_with_auto_connect_is_kept_connected,
    a_broker_without_auto_connect_stays_down_after_a_loss,
    connect_and_disconnect_wait_for_their_result,
);

/// A daemon whose file has one broker, `file`.
fn daemon(file: &Mosquitto) -> Daemon {
    Daemon::start(&Config::new().broker("file", file.port(), Protocol::V5, ""))
}

/// Adds a broker on the loopback interface from the shell.
#[track_caller]
fn add(daemon: &Daemon, name: &str, port: u16, protocol: Protocol, options: &[&str]) {
    let (port, protocol) = (port.to_string(), protocol.to_string());
    let words = ["brokers", "add", name, "--address", "127.0.0.1", "--port", &port, "--protocol", &protocol];
    daemon.done(&[&words, options].concat());
}

#[test]
fn a_broker_is_added_with_the_defaults_of_routeros() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker);
    daemon.done(&["brokers", "add", "plant", "--address", "127.0.0.1"]);
    let shown = daemon.broker("plant");
    let expected = json!({
        "address": "127.0.0.1", "auto-connect": false, "keep-alive": 60, "port": 1883, "tls": null,
        "parallel-limit": null, "username": null, "password": null, "connected": false,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&shown[key], value, "{key}: {shown}");
    }
    assert_eq!(shown["origin"]["source"], "runtime");
    assert_eq!(daemon.broker("file")["auto-connect"], true, "in the file it is on");
    assert!(daemon.refused(&["brokers", "add", "plant", "--address", "127.0.0.1"]).contains("plant"));
}

#[test]
fn the_list_has_a_line_a_broker() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker);
    add(&daemon, "plant", broker.port(), Protocol::V5, &["--keep-alive", "30"]);
    let list = daemon.done(&["brokers", "list"]);
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..3], ["NAME", "ADDRESS", "PORT"], "{list}");
    let port = broker.port().to_string();
    let line = |name: &str| lines.iter().find(|line| line[0] == name).unwrap_or_else(|| panic!("{name}: {list}"));
    let outbox = ["0", "of", "10000"];
    assert_eq!(line("file")[..6], ["file", "127.0.0.1", &port, "no", "yes", "60"], "{list}");
    assert_eq!((&line("file")[6..9], line("file")[9]), (&outbox[..], "yes"), "{list}");
    assert_eq!(line("plant")[..6], ["plant", "127.0.0.1", &port, "no", "no", "30"], "{list}");
    assert_eq!((&line("plant")[6..9], line("plant")[9]), (&outbox[..], "no:"), "{list}");
}

#[test]
fn what_cannot_be_is_refused_with_what_to_write() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker);
    let refused = |options: &[&str], words: &[&str]| {
        let said = daemon.refused(&[&["brokers", "add", "plant"], options].concat());
        for word in words {
            assert!(said.contains(word), "{options:?}: {word}: {said}");
        }
    };
    refused(&["--address", "tcp://plant.example"], &["\"plant.example\""]);
    refused(&["--address", "ssl://plant.example"], &["\"plant.example\"", "tls"]);
    refused(&["--address", "a", "--keep-alive", "29"], &["keep-alive", "30", "64800"]);
    refused(&["--address", "a", "--keep-alive", "64801"], &["keep-alive", "64800"]);
    refused(&["--address", "a", "--parallel-limit", "2"], &["parallel-limit", "3", "1000"]);
    refused(&["--address", "a", "--port", "65536"], &["port", "65535"]);
    refused(&["--address", "a", "--certificate", "none.pem"], &["certificate", "key"]);
    let list = daemon.done(&["brokers", "list"]);
    assert!(!list.contains("plant"), "nothing of it is kept: {list}");
}

#[test]
fn the_keep_alive_and_limit_of_routeros_are_taken_to_their_ends() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker);
    for (name, keep_alive, limit, expected) in
        [("low", "30", "3", json!(3)), ("high", "64800", "1000", json!(1000)), ("off", "60", "off", Value::Null)]
    {
        let options = ["--keep-alive", keep_alive, "--parallel-limit", limit];
        daemon.done(&[&["brokers", "add", name, "--address", "a.example"], &options[..]].concat());
        let shown = daemon.broker(name);
        assert_eq!((shown["keep-alive"].to_string().as_str(), &shown["parallel-limit"]), (keep_alive, &expected));
    }
}

fn connect_and_disconnect_wait_for_their_result(protocol: Protocol) {
    let mut broker = Mosquitto::start();
    let other = Mosquitto::start();
    let daemon = daemon(&other);
    add(&daemon, "plant", broker.port(), protocol, &["--client-id", "gw-plant"]);
    let connects = || broker_log(&broker, &["New client connected", "gw-plant"]);
    assert_eq!(connects(), 0);

    daemon.done(&["brokers", "connect", "plant"]);
    assert_eq!((connects(), &daemon.broker("plant")["connected"]), (1, &json!(true)));
    daemon.done(&["brokers", "connect", "plant"]);
    assert_eq!(connects(), 1, "it was connected already");

    daemon.done(&["brokers", "disconnect", "plant"]);
    let shown = daemon.broker("plant");
    assert_eq!((&shown["connected"], &shown["state"]), (&json!(false), &json!("disconnected")), "{shown}");
    wait::until_true("the broker sees it go", || broker_log(&broker, &["gw-plant", "disconnected"]) == 1);
    assert!(daemon.done(&["brokers", "list"]).contains("disconnected by hand"));

    broker.stop();
    let said = daemon.refused(&["brokers", "connect", "plant"]);
    assert!(said.contains("refused"), "{said}");
    broker.restart();
    daemon.done(&["brokers", "connect", "plant"]);
    assert_eq!(daemon.broker("plant")["connected"], true);
}

/// Lines of a broker's log with each of these words.
#[track_caller]
fn broker_log(broker: &Mosquitto, words: &[&str]) -> usize {
    broker.log_until_now().iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[test]
fn a_login_that_is_refused_is_told() {
    let login = Some(("u".to_owned(), "right".to_owned()));
    let broker = Mosquitto::with(Options { login, ..Options::default() });
    let other = Mosquitto::start();
    let daemon = daemon(&other);
    let words = ["brokers", "add", "plant", "--address", "127.0.0.1", "--username", "u", "--password", "-", "--port"];
    let ran = daemon.ask_with_input(&[&words[..], &[&broker.port().to_string()]].concat(), b"wrong\n");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let said = daemon.refused(&["brokers", "connect", "plant"]);
    assert!(said.contains("password"), "{said}");

    let ran = daemon.ask_with_input(&["brokers", "set", "plant", "--password", "-"], b"right\n");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    daemon.done(&["brokers", "connect", "plant"]);
    let everything = daemon.json(&["brokers", "list"]).to_string() + &daemon.done(&["config", "show"]);
    assert!(!everything.contains("right") && everything.contains("***"), "{everything}");
}

fn a_broker_added_with_auto_connect_is_kept_connected(protocol: Protocol) {
    let mut broker = Mosquitto::start();
    let other = Mosquitto::start();
    let daemon = daemon(&other);
    add(&daemon, "plant", broker.port(), protocol, &["--auto-connect", "yes", "--client-id", "gw-plant"]);
    daemon.wait_connected("plant", true);
    broker.kill();
    daemon.wait_connected("plant", false);
    broker.restart();
    daemon.wait_connected("plant", true);

    // By hand it stays so, whatever auto-connect says, until it is connected by hand.
    daemon.done(&["brokers", "disconnect", "plant"]);
    add(&daemon, "witness", broker.port(), protocol, &["--auto-connect", "yes"]);
    lose_twice(&daemon, &mut broker);
    assert_eq!(broker_log(&broker, &["New client connected", "gw-plant"]), 0);
    assert_eq!(daemon.broker("plant")["state"], "disconnected");
    daemon.done(&["brokers", "connect", "plant"]);
    broker.kill();
    broker.restart();
    daemon.wait_connected("plant", true);
}

/// Ends and starts a broker twice. The second time its log begins long after whoever tries again after the first loss has done
/// so: the daemon's connection `witness`, which is kept, has come back from both.
#[track_caller]
fn lose_twice(daemon: &Daemon, broker: &mut Mosquitto) {
    for _ in 0..2 {
        daemon.wait_connected("witness", true);
        broker.kill();
        daemon.wait_connected("witness", false);
        broker.restart();
        daemon.wait_connected("witness", true);
    }
}

fn a_broker_without_auto_connect_stays_down_after_a_loss(protocol: Protocol) {
    let mut broker = Mosquitto::start();
    let other = Mosquitto::start();
    let daemon = daemon(&other);
    add(&daemon, "plant", broker.port(), protocol, &["--client-id", "gw-plant"]);
    daemon.done(&["brokers", "connect", "plant"]);
    broker.kill();
    daemon.wait_shown("plant", "is idle", |shown| shown["state"] == "idle");
    broker.restart();
    add(&daemon, "witness", broker.port(), protocol, &["--auto-connect", "yes"]);
    lose_twice(&daemon, &mut broker);
    assert_eq!(broker_log(&broker, &["New client connected", "gw-plant"]), 0);
    assert_eq!(daemon.broker("plant")["state"], "idle");
    daemon.done(&["brokers", "set", "plant", "--auto-connect", "yes"]);
    daemon.wait_connected("plant", true);
}

#[test]
fn tls_is_turned_on_from_the_shell() {
    let (authority, port) = (Authority::new(), ports::free());
    let options = Options::default().tls_listener(port, &authority, &authority.server(), "require_certificate true");
    let broker = Mosquitto::with(options);
    let daemon = daemon(&broker);
    let (ca, pair) = (authority.file().display().to_string(), authority.client("gw"));
    let (certificate, key) = (pair.certificate.display().to_string(), pair.key.display().to_string());
    add(&daemon, "plant", port, Protocol::V5, &["--ca", &ca]);
    let said = daemon.refused(&["brokers", "connect", "plant"]);
    assert!(said.contains("certificate"), "{said}");
    daemon.done(&["brokers", "set", "plant", "--certificate", &certificate, "--key", &key]);
    daemon.done(&["brokers", "connect", "plant"]);
    assert_eq!(daemon.broker("plant")["tls"]["ca"], ca.as_str());
    assert!(daemon.done(&["brokers", "list"]).lines().any(|line| line.starts_with("plant") && line.contains(" yes ")));
}

#[test]
fn a_change_takes_effect_at_once() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker);
    add(&daemon, "plant", broker.port(), Protocol::V5, &["--auto-connect", "--client-id", "gw-one"]);
    daemon.wait_connected("plant", true);
    daemon.done(&["brokers", "set", "plant", "--client-id", "gw-two", "--keep-alive", "77"]);
    wait::until_true("the new client comes", || broker_log(&broker, &["New client connected", "gw-two", "k77"]) == 1);
    daemon.wait_connected("plant", true);
    daemon.done(&["brokers", "set", "plant", "--unset", "keep-alive"]);
    assert_eq!(daemon.broker("plant")["keep-alive"], 60);
    let ran = daemon.ask(&["brokers", "set", "plant"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(daemon.refused(&["brokers", "set", "plan", "--keep-alive", "30"]).contains("plan"));
}

#[test]
fn a_broker_is_removed_once_nothing_depends_on_it() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker);
    add(&daemon, "plant", broker.port(), Protocol::V5, &["--client-id", "gw-plant"]);
    daemon.done(&["subscribe", "--broker", "plant", "--topic", "t"]);
    let said = daemon.refused(&["brokers", "remove", "plant"]);
    assert!(said.contains("plant:t"), "{said}");
    daemon.done(&["unsubscribe", "--broker", "plant", "--topic", "t"]);
    daemon.done(&["brokers", "remove", "plant"]);
    wait::until_true("the broker sees it go", || broker_log(&broker, &["gw-plant", "disconnected"]) == 1);
    assert!(!daemon.done(&["brokers", "list"]).contains("plant"));
    assert!(!daemon.metrics().page.contains("\"plant\""), "it leaves no metrics");
}

#[test]
fn what_stands_in_the_file_is_changed_there() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker);
    let text = std::fs::read_to_string(daemon.home().path().join("tidegate.toml")).expect("the home has it");
    let line = 1 + text.lines().position(|line| line.contains("[brokers.file]")).expect("it is there");
    for words in [&["set", "file", "--keep-alive", "30"][..], &["remove", "file"]] {
        let said = daemon.refused(&[&["brokers"], words].concat());
        assert!(said.contains(&format!("tidegate.toml:{line}")), "{said}");
    }
    daemon.done(&["brokers", "disconnect", "file"]);
    daemon.done(&["brokers", "connect", "file"]);
}

#[test]
fn what_was_added_comes_back_after_a_restart() {
    let broker = Mosquitto::start();
    let mut daemon = daemon(&broker);
    add(&daemon, "plant", broker.port(), Protocol::V311, &["--auto-connect", "--keep-alive", "99"]);
    daemon.wait_connected("plant", true);
    daemon.kill();
    daemon.restart();
    daemon.wait_connected("plant", true);
    let shown = daemon.broker("plant");
    assert_eq!((&shown["keep-alive"], &shown["protocol"]), (&json!(99), &json!("3.1.1")));
    daemon.done(&["brokers", "remove", "plant"]);
    daemon.terminate();
    daemon.restart();
    assert!(!daemon.done(&["brokers", "list"]).contains("plant"));
}

#[test]
fn the_broker_forgets_a_session_only_when_it_is_told_to() {
    let broker = Mosquitto::persistent();
    let daemon = daemon(&broker);
    add(&daemon, "plant", broker.port(), Protocol::V5, &["--client-id", "gw-plant"]);
    daemon.done(&["subscribe", "--broker", "plant", "--topic", "t", "--qos", "1"]);
    daemon.done(&["brokers", "disconnect", "plant"]);
    let client = broker.client(Protocol::V5);
    client.publish(&Message::new("t", "kept"));
    daemon.done(&["brokers", "connect", "plant"]);
    daemon.wait_received(&[("t", "kept")]);

    daemon.done(&["brokers", "disconnect", "plant"]);
    client.publish(&Message::new("t", "forgotten"));
    daemon.done(&["brokers", "reset-session", "plant"]);
    daemon.done(&["brokers", "connect", "plant"]);
    // A new session has no subscriptions until they are granted again.
    daemon.wait_granted("plant:t");
    client.publish(&Message::new("t", "new"));
    daemon.wait_received(&[("t", "kept"), ("t", "new")]);
}
