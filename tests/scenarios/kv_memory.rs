//! What a handler remembers: its own writes at once, those of calls that returned ok for good, within its quota and its times.

use std::time::Duration;

use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, wait};

on_both_protocols!(
    a_call_reads_its_own_writes_and_one_that_fails_leaves_none,
    what_is_remembered_survives_a_stop_and_a_kill,
);

/// The guest does what payloads say, with 2 KiB of room.
fn gateway(broker: &Mosquitto, protocol: Protocol, keys: &str) -> Config {
    Config::new()
        .broker("plant", broker.port(), protocol, "client-id = \"gateway\"")
        .remembering("memory", "plant", "mode = \"kv\"", "2KiB", keys)
        .subscription("plant", "in/#", 1, "memory", "")
}

/// What the guest answers to commands.
#[track_caller]
fn ask(client: &Client, commands: &str) -> String {
    client.publish(&Message::new("in/a", commands));
    client.collect(1)[0].text().to_owned()
}

fn client(broker: &Mosquitto, protocol: Protocol) -> Client {
    let client = broker.client(protocol);
    client.subscribe("out/#", 1);
    client
}

fn a_call_reads_its_own_writes_and_one_that_fails_leaves_none(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&gateway(&broker, protocol, ""));
    let client = client(&broker, protocol);
    assert_eq!(ask(&client, "get a;set a 1;get a;set b 2;keys ;delete a;get a;keys "), "none;ok;1;ok;a,b;ok;none;b");
    client.publish(&Message::new("in/a", "set b 3;set c 3;reject"));
    assert_eq!(ask(&client, "get b;keys "), "2;b");
    assert_eq!(ask(&client, "set b/2 x;set b/1 x;set c x;keys b/;keys b 2;keys z"), "ok;ok;ok;b/1,b/2;b,b/1;");
    let metrics = daemon.settle("plant", 4);
    assert_eq!(metrics.sum("tidegate_kv_keys", &[("handler", "memory")]), 4.0);
    // Keys and values, and 128 bytes for each entry.
    assert_eq!(metrics.sum("tidegate_kv_bytes", &[("handler", "memory")]), f64::from(4 * 128 + 2 + 4 + 4 + 2));
}

fn what_is_remembered_survives_a_stop_and_a_kill(protocol: Protocol) {
    let broker = Mosquitto::telling();
    let mut daemon = Daemon::start(&gateway(&broker, protocol, ""));
    let client = client(&broker, protocol);
    assert_eq!(ask(&client, "set a 1;set b 1;set c 1"), "ok;ok;ok");
    daemon.settle("plant", 1);
    daemon.terminate();
    daemon.restart();
    assert_eq!(ask(&client, "get a;set b 2;delete c"), "1;ok;ok");
    // Acknowledged only once it is on the disk.
    daemon.settle("plant", 1);
    broker.wait_acknowledged();
    daemon.kill();
    daemon.restart();
    assert_eq!(ask(&client, "keys ;get a;get b"), "a,b;1;2");
    daemon.settle("plant", 1);
}

#[test]
fn a_changed_handler_remembers_what_it_did_and_so_does_one_that_comes_back() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&Config::new().broker("plant", broker.port(), Protocol::V5, ""));
    daemon.home().plugin("misbehave.wasm");
    let add = || {
        let plugin = [
            "handlers",
            "add",
            "memory",
            "--plugin",
            "misbehave.wasm",
            "--config",
            "mode=kv",
            "--call-deadline",
            "20s",
        ];
        daemon.done(&[&plugin[..], &["--allow-publish", "plant:out/#", "--allow-kv", "2KiB"]].concat());
        daemon.done(&["subscribe", "--broker", "plant", "--topic", "in/#", "--qos", "1", "--on-message", "memory"]);
    };
    let keys = || daemon.metrics().sum("tidegate_kv_keys", &[("handler", "memory")]);
    add();
    assert_eq!(daemon.json(&["handlers", "list", "memory"])["allow-kv"], "2KiB");
    let client = client(&broker, Protocol::V5);
    assert_eq!(ask(&client, "set a 1"), "ok");
    daemon.done(&["handlers", "set", "memory", "--queue", "9"]);
    assert_eq!(ask(&client, "get a;set a 2"), "1;ok");

    daemon.done(&["handlers", "set", "memory", "--unset", "allow-kv"]);
    assert!(ask(&client, "get a").contains("allow.kv grants nothing"));
    assert_eq!(keys(), 1.0, "it is kept without the grant");
    daemon.done(&["unsubscribe", "--broker", "plant", "--topic", "in/#"]);
    daemon.done(&["handlers", "remove", "memory"]);
    assert_eq!(keys(), 1.0, "and without the handler");
    add();
    assert_eq!(ask(&client, "get a;delete a;set b 3"), "2;ok;ok");
    daemon.settle("plant", 4);
    daemon.terminate();
    daemon.restart();
    assert_eq!(ask(&client, "keys ;get b"), "b;3");
}

#[test]
fn what_is_set_for_a_time_is_absent_after_it_and_gone_from_the_disk() {
    let broker = Mosquitto::telling();
    let mut daemon = Daemon::start(&gateway(&broker, Protocol::V5, ""));
    let client = client(&broker, Protocol::V5);
    assert_eq!(ask(&client, "set a 1 5000;set b 1 3600000;set c 1 1;get a"), "ok;ok;ok;1");
    wait::until("the first one is absent", || match &*ask(&client, "get a;keys ") {
        "none;b" => Ok(()),
        other => Err(other.to_owned()),
    });
    daemon.wait_metrics("it is swept", |metrics| metrics.sum("tidegate_kv_keys", &[("handler", "memory")]) == 1.0);
    assert_eq!(ask(&client, "set d 1 1"), "ok");
    daemon.wait_metrics("all of it is safe", |metrics| metrics.in_progress("plant") == 0.0);
    // Absent at the next start too, whether it was swept or not.
    broker.wait_acknowledged();
    daemon.kill();
    daemon.restart();
    assert_eq!(ask(&client, "keys "), "b");
    assert_eq!(ask(&client, "set b 2;get b"), "ok;2");
    daemon.terminate();
}

#[test]
fn what_has_no_room_is_refused_and_what_makes_room_is_not() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&gateway(&broker, Protocol::V5, ""));
    let client = client(&broker, Protocol::V5);
    let (full, too_large) = (
        "there is no room for it within allow.kv",
        "the key is longer than 512 bytes, or the entry is larger than allow.kv",
    );
    assert_eq!(ask(&client, "fill a 1000;fill b 1000;fill b 2000"), format!("ok;{full};{too_large}"));
    assert_eq!(ask(&client, &format!("set {} x", "k".repeat(513))), too_large);
    assert_eq!(ask(&client, "fill b 700;fill c 0;delete a;fill c 900;fill d 200"), format!("ok;{full};ok;ok;{full}"));
    daemon.settle("plant", 3);
    daemon.terminate();

    // Less than is there.
    let less = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "client-id = \"gateway\"")
        .remembering("memory", "plant", "mode = \"kv\"", "1500B", "")
        .subscription("plant", "in/#", 1, "memory", "");
    daemon.restart_with(&less);
    assert_eq!(ask(&client, "keys ;fill d 0;fill b 701;fill b 700"), format!("b,c;{full};{full};ok"));
    assert_eq!(ask(&client, "delete c;fill d 300"), "ok;ok");
}

#[test]
fn nothing_is_remembered_without_a_grant_or_in_init() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("without", "plant", "mode = \"kv\"", "")
        .remembering("early", "plant", "mode = \"init-kv\"", "1KiB", "instances = 1")
        .subscription("plant", "in/#", 1, "without", "");
    let daemon = Daemon::start(&config);
    daemon.wait_event("kv in init", &[("handler", "early"), ("fields", "read=\"Ok(None)\"")]);
    daemon.wait_event("kv in init", &[("fields", "must not write to kv in init; write when it is called")]);
    let client = client(&broker, Protocol::V5);
    let said = ask(&client, "set a 1");
    assert_eq!(
        said,
        "handler \"without\" must not use kv: allow.kv grants nothing; to permit it, add kv = \"64KiB\", or another size, to allow \
         of [handlers.without]"
    );
    assert_eq!(ask(&client, "get a"), said);
    wait::until_within(Duration::from_secs(5), "nothing is counted", || {
        let keys = daemon.metrics().sum("tidegate_kv_keys", &[]);
        if keys == 0.0 { Ok(()) } else { Err(keys) }
    });
}
