//! `tidegate outbox` at the shell: what waits for a broker that is away, in memory and on the disk, and its end by command.

use serde_json::{Value, json};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, ports, wait};

on_both_protocols!(what_waits_in_memory_is_listed_and_purged, what_waits_on_the_disk_outlives_its_broker);

/// Messages that wait.
const SENT: usize = 20;

/// Copies `up/#` from `plant` to `cloud`, which is away.
fn config(plant: &Mosquitto, away: u16, protocol: Protocol) -> Config {
    let keys = "max-publishes = 1\nallow = { publish = [\"cloud:up/#\"] }\n\
                config = { broker = \"cloud\", topic = \"{topic}\" }";
    Config::new()
        .broker("plant", plant.port(), protocol, "receive-maximum = 100")
        .broker("cloud", away, protocol, "outbox = { max-age = \"1h\" }")
        .handler("relay", "relay.wasm", keys)
        .subscription("plant", "up/#", 1, "relay", "")
}

fn send(plant: &Mosquitto, protocol: Protocol) {
    let sent: Vec<_> = (0..SENT).map(|n| Message::new("up/a", format!("{n}"))).collect();
    plant.client(protocol).publish_all(&sent);
}

/// Waits until `outbox list` shows this of a broker.
#[track_caller]
fn wait_outbox(daemon: &Daemon, broker: &str, condition: impl Fn(&Value) -> bool) -> Value {
    wait::until(format!("the outbox of {broker}"), || {
        let list = daemon.json(&["outbox", "list", "--broker", broker]);
        if condition(&list[0]) { Ok(list[0].clone()) } else { Err(list.to_string()) }
    })
}

fn what_waits_in_memory_is_listed_and_purged(protocol: Protocol) {
    let plant = Mosquitto::start();
    let daemon = Daemon::launch(&config(&plant, ports::free(), protocol));
    daemon.wait_broker("plant");
    send(&plant, protocol);
    let shown = wait_outbox(&daemon, "cloud", |one| one["messages"] == SENT);
    let of = |key: &str| shown[key].clone();
    assert_eq!((of("store"), of("configured"), of("draining")), (json!("memory"), json!(true), json!(false)));
    assert_eq!(of("on-disk"), json!({"messages": 0, "bytes": 0}));
    assert_eq!((of("max-messages"), of("when-full")), (json!(10_000), json!("block")));
    assert_eq!(of("max-age"), "1h");
    assert!(of("oldest-age").as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{shown}");

    let table = daemon.done(&["outbox", "list"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines[1][0], lines[1][2]), ("plant", "0"), "{table}");
    assert_eq!(lines[2][..3], ["cloud", "memory", "20"], "{table}");

    let said = daemon.refused(&["outbox", "list", "--broker", "clod"]);
    assert!(said.contains("there is no broker clod") && said.contains("plant, cloud"), "{said}");
    let said = daemon.refused(&["outbox", "purge", "clod"]);
    assert!(said.contains("clod") && said.contains("known here: plant, cloud"), "{said}");

    assert_eq!(daemon.done(&["outbox", "purge", "cloud"]), format!("{SENT} messages to broker cloud are dropped\n"));
    wait_outbox(&daemon, "cloud", |one| one["messages"] == 0);
    let metrics = daemon.settle("plant", SENT);
    assert_eq!(metrics.finished("plant", "dropped_purged"), SENT as f64, "and each is counted");
    assert_eq!(daemon.json(&["outbox", "purge", "cloud"]), json!({"broker": "cloud", "messages": 0, "bytes": 0}));
}

fn what_waits_on_the_disk_outlives_its_broker(protocol: Protocol) {
    let plant = Mosquitto::start();
    let mut daemon = Daemon::start(&Config::new().broker("plant", plant.port(), protocol, "receive-maximum = 100"));
    daemon.home().plugin("relay.wasm");
    let (port, subscription) = (ports::free().to_string(), "plant:up/#");
    let address = ["--address", "127.0.0.1", "--port", &port, "--outbox-store", "disk"];
    daemon.done(&[&["brokers", "add", "cloud"][..], &address].concat());
    let keys = ["--allow-publish", "cloud:up/#", "--config", "broker=cloud", "--config", "topic={topic}"];
    daemon
        .done(&[&["handlers", "add", "relay", "--plugin", "relay.wasm", "--call-deadline", "20s"][..], &keys].concat());
    daemon.done(&["subscribe", "--broker", "plant", "--topic", "up/#", "--qos", "1", "--on-message", "relay"]);
    send(&plant, protocol);
    let shown = wait_outbox(&daemon, "cloud", |one| one["on-disk"]["messages"] == SENT);
    assert_eq!((&shown["store"], &shown["messages"]), (&json!("disk"), &json!(SENT)));
    let status = daemon.json(&["status"]);
    assert_eq!(status["brokers"][1]["outbox-on-disk"]["messages"], SENT, "{status}");
    daemon.settle("plant", SENT);

    // The broker goes: what waits for it stays, and that is said.
    daemon.done(&["unsubscribe", "--name", subscription]);
    daemon.done(&["handlers", "remove", "relay"]);
    let ran = daemon.ask(&["brokers", "remove", "cloud"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "broker cloud is removed\n"), "{ran:?}");
    assert!(ran.stderr.starts_with("warning: ") && ran.stderr.contains("outbox purge cloud"), "{ran:?}");
    for again in [false, true] {
        if again {
            daemon.terminate();
            daemon.restart();
        }
        let list = daemon.json(&["outbox", "list"]);
        let of = |key: &str| list[1][key].clone();
        assert_eq!(
            (of("broker"), of("configured"), of("store")),
            (json!("cloud"), json!(false), Value::Null),
            "{list}"
        );
        assert_eq!((of("messages"), of("on-disk")["messages"].clone()), (json!(SENT), json!(SENT)), "{list}");
        let table = daemon.done(&["outbox", "list"]);
        let told = |line: &str| line.starts_with("cloud ") && line.contains("the broker was removed");
        assert!(table.lines().any(told), "{table}");
    }

    assert_eq!(daemon.done(&["outbox", "purge", "cloud"]), format!("{SENT} messages to broker cloud are dropped\n"));
    let said = daemon.refused(&["outbox", "purge", "cloud"]);
    assert!(said.contains("cloud") && said.contains("known here: plant"), "nothing is left of it: {said}");
    daemon.terminate();
    daemon.restart();
    assert_eq!(daemon.json(&["outbox", "list"]).as_array().map(Vec::len), Some(1), "nor after a restart");
}
