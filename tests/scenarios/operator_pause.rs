//! `tidegate handlers pause` and `resume` at the shell.

use serde_json::json;
use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, wait};

on_both_protocols!(a_handler_is_paused_and_resumed_by_command);

fn a_handler_is_paused_and_resumed_by_command(protocol: Protocol) {
    let plant = Mosquitto::start();
    let without = Config::new().broker("plant", plant.port(), protocol, "");
    let config = without.clone().guest("echo", "plant", ECHO, "").subscription("plant", "in/#", 1, "echo", "");
    let mut daemon = Daemon::start(&config);
    let client = plant.client(protocol);
    client.subscribe("out/#", 1);
    assert_eq!(daemon.json(&["handlers", "list", "echo"])["state"], "open");
    assert_eq!(daemon.done(&["handlers", "pause", "echo"]), "handler echo is paused\n");
    assert_eq!(daemon.done(&["handlers", "pause", "echo"]), "handler echo is paused\n", "twice is fine");
    for number in 0..3 {
        client.publish(&Message::new("in/a", format!("{number}")));
    }
    daemon.settle("plant", 3);
    let check = |daemon: &Daemon| {
        let shown = daemon.json(&["handlers", "list", "echo"]);
        assert_eq!((&shown["state"], &shown["parked"]["messages"]), (&json!("paused"), &json!(3)), "{shown}");
        assert_eq!(shown["quarantined-until"], serde_json::Value::Null);
        let table = daemon.done(&["handlers", "list"]);
        assert!(table.lines().any(|line| line.starts_with("echo ") && line.contains("paused, 3 parked")), "{table}");
        let status = daemon.json(&["status"]);
        assert_eq!((&status["parked"]["messages"], &status["handlers"][0]["state"]), (&json!(3), &json!("paused")));
        let table = daemon.done(&["status"]);
        assert!(table.lines().any(|line| line.starts_with("parked ") && line.contains('3')), "{table}");
    };
    check(&daemon);
    daemon.terminate();
    daemon.restart();
    check(&daemon);

    // The handler is taken out of the file for a while: what is parked for it stays, and the status says for whom.
    daemon.terminate();
    daemon.restart_with(&without);
    let status = daemon.json(&["status"]);
    assert_eq!((&status["parked"]["messages"], &status["parked-orphans"]["echo"]["messages"]), (&json!(3), &json!(3)));
    let table = daemon.done(&["status"]);
    assert!(table.contains("(3 for echo, not configured any more)"), "{table}");
    daemon.terminate();
    daemon.restart_with(&config);
    check(&daemon);

    let said = daemon.refused(&["handlers", "pause", "eco"]);
    assert!(said.contains("there is no handler eco") && said.contains("echo"), "{said}");
    assert!(daemon.refused(&["handlers", "resume", "eco"]).contains("echo"));

    assert_eq!(daemon.done(&["handlers", "resume", "echo"]), "handler echo is resumed\n");
    let came: Vec<String> = client.collect(3).iter().map(|message| message.text().to_owned()).collect();
    assert_eq!(came, ["0", "1", "2"]);
    wait::until("it is open again", || {
        let shown = daemon.json(&["handlers", "list", "echo"]);
        if shown["state"] == "open" && shown["parked"]["messages"] == 0 { Ok(()) } else { Err(shown.to_string()) }
    });
    assert_eq!(daemon.done(&["handlers", "resume", "echo"]), "handler echo is resumed\n", "also one that is open");
    daemon.terminate();
}
