//! Handlers and the whole configuration at the shell.

use serde_json::{Value, json};
use tidegate_tests::{Config, Daemon, Home, Message, Mosquitto, Protocol, ports};

/// A daemon with the broker `plant`, and the plugin of the test guest in its folder.
fn daemon(broker: &Mosquitto) -> Daemon {
    let daemon = Daemon::start(&Config::new().broker("plant", broker.port(), Protocol::V5, ""));
    daemon.home().plugin("misbehave.wasm");
    daemon
}

const ADD: [&str; 9] = [
    "handlers",
    "add",
    "echo",
    "--plugin",
    "misbehave.wasm",
    "--allow-publish",
    "plant:out/#",
    "--config",
    "mode=echo",
];

#[test]
fn a_handler_comes_works_and_goes_while_messages_flow() {
    let broker = Mosquitto::start();
    let mut daemon = daemon(&broker);
    daemon.done(&ADD);
    daemon.done(&["subscribe", "--broker", "plant", "--topic", "in/#", "--qos", "1", "--on-message", "echo"]);
    let client = broker.client(Protocol::V5);
    client.subscribe("out/#", 1);
    client.publish(&Message::new("in/a", "one"));
    assert_eq!(client.collect(1)[0].text(), "one");
    daemon.settle("plant", 1);
    let shown = daemon.json(&["handlers", "list", "echo"]);
    assert_eq!((&shown["calls"]["ok"], &shown["allow-publish"]), (&json!(1), &json!(["plant:out/#"])), "{shown}");

    daemon.done(&["handlers", "set", "echo", "--allow-publish", "plant:elsewhere/#"]);
    client.publish(&Message::new("in/a", "two"));
    daemon.settle("plant", 2);
    let list = daemon.done(&["handlers", "list"]);
    assert!(
        list.lines().any(|line| line.starts_with("echo ") && line.contains("the handler rejected the message")),
        "its failure is told: {list}"
    );
    daemon.done(&["handlers", "set", "echo", "--queue", "9"]);
    let shown = daemon.json(&["handlers", "list", "echo"]);
    assert_eq!((&shown["last-failure"]["result"], &shown["calls"]["reject"]), (&json!("reject"), &json!(1)), "{shown}");
    let whole = daemon.done(&["handlers", "list", "echo"]);
    assert!(whole.contains("elsewhere"), "and all of it with its name: {whole}");

    let said = daemon.refused(&["handlers", "remove", "echo"]);
    assert!(said.contains("plant:in/#"), "{said}");
    daemon.done(&["subscriptions", "set", "plant:in/#", "--no-on-message"]);
    daemon.done(&["handlers", "remove", "echo"]);
    assert_eq!(daemon.json(&["handlers", "list"]), json!([]));
    daemon.terminate();
}

#[test]
fn what_a_change_is_warned_of_is_told_once() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker);
    let warned = |arguments: &[&str]| {
        let ran = daemon.ask(arguments);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stderr
    };
    assert_eq!(warned(&ADD), "", "that no subscription leads to it yet goes without saying");
    let subscribe = ["subscribe", "--broker", "plant", "--topic", "in/#", "--on-message", "echo"];
    assert_eq!(warned(&subscribe), "");
    let circle = ["subscribe", "--broker", "plant", "--topic", "out/+", "--on-message", "echo", "--json"];
    let ran = daemon.ask(&circle);
    let answer: Value = serde_json::from_str(&ran.stdout).expect("is JSON");
    let warnings = answer["warnings"].as_array().expect("has some");
    assert!(warnings.len() == 1 && warnings[0].as_str().is_some_and(|told| told.contains(" in a circle ")), "{answer}");
    daemon.wait_log(&["WARN", "configuration", " in a circle "]);
    assert_eq!(daemon.json(&["subscriptions", "list", "plant:out/+"]).get("warnings"), None);
    assert_eq!(warned(&["handlers", "set", "echo", "--queue", "9"]), "", "that is known");
    let dead = ["handlers", "set", "echo", "--dead-letter-broker", "plant", "--dead-letter-topic", "out/dead"];
    let told = warned(&dead);
    let again = "hands dead letters to a handler again";
    assert!(told.starts_with("warning: ") && told.contains(again) && told.lines().count() == 1, "{told}");
}

#[test]
fn a_plugin_that_does_not_load_is_refused() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker);
    daemon.home().write("plugins/broken.wasm", b"\0asm broken");
    for plugin in ["none.wasm", "broken.wasm"] {
        let said = daemon.refused(&["handlers", "add", "h", "--plugin", plugin]);
        assert!(said.contains(plugin), "{said}");
    }
    assert_eq!(daemon.json(&["handlers", "list"]), json!([]));
}

#[test]
fn the_configuration_is_shown_with_its_origins_and_exported_as_a_file() {
    let broker = Mosquitto::start();
    let daemon = daemon(&broker);
    daemon.home().plugin("celsius.wasm");
    daemon.done(&["handlers", "add", "celsius", "--plugin", "celsius.wasm", "--queue", "7", "--call-deadline", "20s"]);
    let ran = daemon.ask_with_input(
        &["brokers", "add", "more", "--address", "a.example", "--username", "u", "--password", "-"],
        b"hunter2\n",
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let table = daemon.done(&["config", "show"]);
    let line = |key: &str| {
        let found = table.lines().find(|line| line.starts_with(&format!("{key} ")));
        found.unwrap_or_else(|| panic!("{key}: {table}")).split_whitespace().collect::<Vec<_>>()
    };
    assert!(line("brokers.plant.address")[2].contains("tidegate.toml:"), "{table}");
    assert_eq!(line("brokers.more.address")[1..], ["\"a.example\"", "runtime"]);
    assert_eq!(line("brokers.more.password")[1..], ["\"***\"", "runtime"]);
    assert_eq!(line("handlers.celsius.plugin")[2], "runtime");
    assert!(!table.contains("hunter2"));

    let exported = daemon.done(&["config", "export"]);
    assert!(!exported.contains("hunter2") && !exported.contains("***"), "{exported}");
    assert!(exported.starts_with("# left out, since it may be a secret: brokers.more.password\n"), "{exported}");
    // As a file of its own: where the state is, what was added is there already.
    let state = daemon.home().path().join("state").display().to_string();
    assert!(exported.contains(&state), "{exported}");
    let home = Home::empty();
    home.write("tidegate.toml", exported.replace(&state, "elsewhere"));
    let ran = home.run(&["check", "tidegate.toml"]);
    assert_eq!(ran.code, Some(0), "{ran:?}\n{exported}");
}

#[test]
fn the_status_tells_everything_at_a_glance() {
    let mut broker = Mosquitto::start();
    let daemon = daemon(&broker);
    daemon.done(&ADD);
    daemon.done(&["subscribe", "--broker", "plant", "--topic", "in/#", "--qos", "1", "--on-message", "echo"]);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    daemon.settle("plant", 1);
    let status = daemon.json(&["status"]);
    assert_eq!((&status["ready"], &status["messages"]["received"]), (&json!(true), &json!(1)), "{status}");
    assert_eq!(status["messages"]["finished"], json!({"handled": 1}));
    let plant = &status["brokers"][0];
    assert_eq!((&plant["name"], &plant["connected"], &plant["published"]), (&json!("plant"), &json!(true), &json!(1)));
    assert_eq!(status["handlers"][0]["calls"], 1);
    broker.stop();
    daemon.wait_connected("plant", false);
    let table = daemon.done(&["status"]);
    assert!(table.lines().any(|line| line.starts_with("ready") && line.contains("no: ")), "{table}");
    assert!(table.lines().any(|line| line.starts_with("plant") && line.contains("no: ")), "{table}");
}

#[test]
fn over_tcp_a_change_needs_the_token() {
    let broker = Mosquitto::start();
    let home = Home::empty();
    home.write("token", "0123456789abcdef0123456789abcdef\n");
    let token = home.path().join("token").display().to_string();
    let admin = ports::free();
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "");
    let mut text = config.tables.clone();
    text.insert_str(
        0,
        &format!(
            "state-dir = \"{0}/state\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\ntoken-file = \"{token}\"\n",
            home.path().display()
        ),
    );
    home.write("tidegate.toml", text);
    let mut daemon = home.start(&["run"]);
    let url = format!("http://127.0.0.1:{admin}");
    let list = || home.run(&["brokers", "list", "--json", "--url", &url]);
    let found = tidegate_tests::wait::until("the daemon answers", || match list() {
        ran if ran.code == Some(0) => Ok(ran.stdout),
        ran => Err(ran.stderr),
    });
    let brokers: Value = serde_json::from_str(&found).expect("JSON");
    assert_eq!(brokers[0]["name"], "plant");
    let add = ["brokers", "add", "more", "--address", "a.example", "--url", &url];
    let ran = home.run(&add);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("token"), "{ran:?}");
    home.write("wrong", "another-token-that-is-not-it\n");
    let ran = home.run(&[&add[..], &["--token-file", "wrong"]].concat());
    assert_eq!(ran.code, Some(4), "{ran:?}");
    let ran = home.run(&[&add[..], &["--token-file", "token"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(tidegate_tests::wait::PATIENCE).code(), Some(0));
}
