//! `tidegate kv` at the shell: what handlers remember is listed, read, set and forgotten, and is there after a restart.

use serde_json::{Value, json};
use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Mosquitto, Protocol, wait};

/// `keeper` may remember 64 KiB, `other` nothing.
fn config(broker: &Mosquitto) -> Config {
    let keys = |allow: &str| format!("config = {{ {ECHO} }}\nallow = {{ {allow} }}");
    Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .handler("keeper", "misbehave.wasm", &keys("kv = \"64KiB\""))
        .handler("other", "misbehave.wasm", &keys("publish = []"))
}

#[track_caller]
fn keys(daemon: &Daemon, words: &[&str]) -> Vec<String> {
    let list = daemon.json(&[&["kv", "list", "keeper"], words].concat());
    let keys = list["keys"].as_array().expect("an array").iter();
    keys.map(|one| one["key"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn what_a_handler_remembers_is_listed_read_set_and_forgotten() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(&broker));
    assert_eq!(daemon.done(&["kv", "set", "keeper", "a/b", "42"]), "handler keeper remembers \"a/b\"\n");
    daemon.done(&["kv", "set", "keeper", "a/ä #?%", "-1.5"]);
    let ran = daemon.ask_with_input(&["kv", "set", "keeper", "bytes", "-"], b"\x00\xff\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "handler keeper remembers \"bytes\"\n"), "{ran:?}");
    daemon.home().write("value", "from a file\n");
    assert_eq!(daemon.ask(&["kv", "set", "keeper", "file", "--file", "value", "--json"]).code, Some(0));

    assert_eq!(daemon.done(&["kv", "get", "keeper", "a/b"]), "42", "and no newline behind it");
    assert_eq!(daemon.done(&["kv", "get", "keeper", "a/ä #?%"]), "-1.5");
    assert_eq!(daemon.done(&["kv", "get", "keeper", "file"]), "from a file\n");
    let shown = daemon.json(&["kv", "get", "keeper", "bytes"]);
    assert_eq!(shown, json!({"key": "bytes", "value": "AP8K", "encoding": "base64", "expires": null}));

    assert_eq!(keys(&daemon, &[]), ["a/b", "a/ä #?%", "bytes", "file"]);
    assert_eq!(keys(&daemon, &["--prefix", "a/"]), ["a/b", "a/ä #?%"]);
    assert_eq!(keys(&daemon, &["--after", "a/ä #?%"]), ["bytes", "file"]);
    let page = daemon.json(&["kv", "list", "keeper", "--limit", "1"]);
    assert_eq!((&page["keys"][0]["bytes"], &page["more"]), (&json!(2), &json!(true)));
    let table = daemon.done(&["kv", "list", "keeper", "--prefix", "a/b"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [vec!["KEY", "BYTES", "EXPIRES"], vec!["a/b", "2", "-"]]);
    let totals = daemon.json(&["kv", "list"]);
    let told = |place: usize, key: &str| totals[place][key].clone();
    assert_eq!((told(0, "handler"), told(0, "keys"), told(0, "quota")), (json!("keeper"), json!(4), json!("64KiB")));
    assert_eq!(totals.as_array().map(Vec::len), Some(1), "the other one may not remember anything: {totals}");

    assert_eq!(daemon.done(&["kv", "delete", "keeper", "bytes"]), "handler keeper has forgotten \"bytes\"\n");
    daemon.kill();
    daemon.restart();
    assert_eq!(keys(&daemon, &[]), ["a/b", "a/ä #?%", "file"]);

    // It is not configured any more: what it remembers is kept until somebody forgets it.
    daemon.terminate();
    daemon.restart_with(&Config::new().broker("plant", broker.port(), Protocol::V5, ""));
    let totals = daemon.json(&["kv", "list"]);
    assert_eq!((&totals[0]["handler"], &totals[0]["configured"]), (&json!("keeper"), &json!(false)), "{totals}");
    assert!(daemon.done(&["kv", "list"]).contains("the handler is not configured"));
    assert_eq!(daemon.done(&["kv", "get", "keeper", "a/b"]), "42");
    for key in ["a/b", "a/ä #?%", "file"] {
        daemon.done(&["kv", "delete", "keeper", key]);
    }
    assert_eq!(daemon.json(&["kv", "list"]), json!([]));
}

#[test]
fn a_value_is_forgotten_after_its_time() {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(&broker));
    daemon.done(&["kv", "set", "keeper", "long", "x", "--ttl", "1h"]);
    let expires = daemon.json(&["kv", "get", "keeper", "long"])["expires"].clone();
    assert!(expires.as_str().is_some_and(|time| time.ends_with('Z')), "{expires}");
    daemon.done(&["kv", "set", "keeper", "short", "x", "--ttl", "200ms"]);
    wait::until_true("it is forgotten", || daemon.ask(&["kv", "get", "keeper", "short"]).code == Some(4));
    assert_eq!(keys(&daemon, &[]), ["long"]);
    daemon.done(&["kv", "set", "keeper", "long", "x"]);
    assert_eq!(daemon.json(&["kv", "get", "keeper", "long"])["expires"], Value::Null, "set anew without one");
}

#[test]
fn what_cannot_be_remembered_is_refused_with_a_remedy() {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(&broker));
    let check = |words: &[&str], parts: &[&str]| {
        let said = daemon.refused(&[&["kv"], words].concat());
        assert!(parts.iter().all(|part| said.contains(part)), "{words:?}: {said}");
    };
    daemon.done(&["kv", "set", "keeper", "counter", "1"]);
    check(&["get", "keeper", "conter"], &["remembers no key \"conter\"", "did you mean \"counter\""]);
    check(&["delete", "keeper", "xyz"], &["remembers no key \"xyz\"", "kv list keeper"]);
    check(&["get", "keper", "counter"], &["no handler keper", "keeper"]);
    check(&["list", "keper"], &["no handler keper", "keeper"]);
    check(&["set", "keper", "k", "v"], &["no handler keper", "keeper"]);
    check(&["set", "other", "k", "v"], &["handlers.other.allow.kv"]);
    check(&["set", "keeper", &"k".repeat(513), "v"], &["512 bytes"]);
    check(&["set", "keeper", "k", &"v".repeat(70_000)], &["larger", "handlers.keeper.allow.kv"]);
    check(&["set", "keeper", "k", "v", "--ttl", "soon"], &["ttl", "\"soon\""]);
    check(&["set", "keeper", "k", "v", "--ttl", "0s"], &["ttl"]);
    assert_eq!(keys(&daemon, &[]), ["counter"], "and nothing of it is kept");
    let half = "v".repeat(40_000);
    daemon.done(&["kv", "set", "keeper", "half", &half]);
    check(&["set", "keeper", "more", &half], &["64KiB", "allow.kv"]);
    let ran = daemon.ask(&["kv", "get", "keeper", ""]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
}
