//! RouterOS' `/iot mqtt subscriptions recv` at the shell, live and into a file too, with real mosquitto.

use serde_json::{Value, json};
use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, wait};

on_both_protocols!(every_received_message_is_listed, one_messages_way_is_told_live);

/// Subscriptions to everything of `plant`: what is in `in/` runs the handler `echo`, the rest nothing.
fn config(broker: &Mosquitto, protocol: Protocol) -> Config {
    Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("echo", "plant", ECHO, "")
        .subscription("plant", "in/#", 1, "echo", "")
        .table("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"quiet/#\"\nqos = 1\n")
}

/// Whether it is RFC 3339 in UTC, with milliseconds.
fn is_time(text: &str) -> bool {
    let digits = text.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte }).collect::<Vec<_>>();
    digits == b"0000-00-00T00:00:00.000Z"
}

fn every_received_message_is_listed(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(&broker, protocol));
    let client = broker.client(Protocol::V5);
    client.publish(&Message::new("in/a", "handled"));
    client.publish(&Message::new("quiet/a", "grüezi\n"));
    client.publish(&Message::new("quiet/b", [0x00, 0xff]).qos(0));
    daemon.settle("plant", 3);

    let list = daemon.json(&["recv", "list"]);
    let messages = list["messages"].as_array().expect("an array");
    let told: Vec<Value> = messages
        .iter()
        .map(|one| json!([one["broker"], one["topic"], one["data"], one["encoding"], one["qos"]]))
        .collect();
    let expected = [
        json!(["plant", "in/a", "handled", "utf-8", 1]),
        json!(["plant", "quiet/a", "grüezi\n", "utf-8", 1]),
        json!(["plant", "quiet/b", "AP8=", "base64", 0]),
    ];
    assert_eq!(told, expected);
    assert!(messages.iter().all(|one| one["time"].as_str().is_some_and(is_time)), "{list}");

    let table = daemon.done(&["recv", "list"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["BROKER", "TOPIC", "DATA", "TIME"]);
    assert_eq!(lines[1][..3], ["plant", "in/a", "handled"]);
    assert_eq!(lines[2][..3], ["plant", "quiet/a", "grüezi\\n"]);
    assert_eq!(lines[3][..3], ["plant", "quiet/b", "0x00ff"]);
    assert!(is_time(lines[1][3]), "{table}");

    let chosen = |words: &[&str]| {
        let list = daemon.json(&[&["recv", "list"], words].concat());
        list["messages"].as_array().expect("an array").iter().map(|one| one["topic"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["--topic", "quiet/+"]), ["quiet/a", "quiet/b"]);
    assert_eq!(chosen(&["--last", "1"]), ["quiet/b"]);
    assert_eq!(chosen(&["--broker", "plant", "--topic", "in/#"]), ["in/a"]);
    assert!(daemon.refused(&["recv", "list", "--broker", "plan"]).contains("plan"));

    daemon.done(&["recv", "clear"]);
    assert_eq!(daemon.received(), []);
    client.publish(&Message::new("quiet/c", "new"));
    daemon.wait_received(&[("quiet/c", "new")]);
}

#[test]
fn the_oldest_of_more_than_1024_is_overwritten() {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(&broker, Protocol::V5));
    let messages: Vec<Message> = (0..1_030).map(|number| Message::new("quiet/n", number.to_string())).collect();
    broker.client(Protocol::V5).publish_all(&messages);
    daemon.settle("plant", 1_030);
    let list = daemon.json(&["recv", "list"]);
    let kept = list["messages"].as_array().expect("an array");
    assert_eq!((kept.len(), &kept[0]["data"], &kept[1_023]["data"]), (1_024, &json!("6"), &json!("1029")));
    assert_eq!(list["gone"], 6);
}

#[test]
fn messages_are_followed_as_they_come() {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(&broker, Protocol::V5));
    let client = broker.client(Protocol::V5);
    let mut people = daemon.begin(&["recv", "follow", "--topic", "quiet/#"]);
    let mut script = daemon.begin(&["recv", "follow", "--json"]);
    // They say nothing until messages come; each of the two must have seen one before what counts is published.
    wait::until("both follow", || {
        client.publish(&Message::new("quiet/begin", "x"));
        if people.lines().is_empty() || script.lines().is_empty() { Err("one is silent") } else { Ok(()) }
    });
    client.publish(&Message::new("in/a", "handled"));
    client.publish(&Message::new("quiet/end", "a\tb"));
    wait::until_true("people see the last", || {
        people.lines().iter().any(|line| line.ends_with("plant quiet/end  a\\tb"))
    });
    wait::until_true("scripts see the last", || script.lines().iter().any(|line| line.contains("quiet/end")));
    assert!(!people.lines().iter().any(|line| line.contains("in/a")), "{:?}", people.lines());
    let lines = script.lines();
    let seen: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let handled = seen.iter().find(|one| one["topic"] == "in/a").expect("it has come");
    assert_eq!(handled["data"], "handled");

    people.signal("INT");
    script.signal("TERM");
    assert_eq!((people.wait(wait::PATIENCE).code(), script.wait(wait::PATIENCE).code()), (Some(0), Some(0)));
}

#[test]
fn messages_are_recorded_to_a_file() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(&broker, Protocol::V5));
    let client = broker.client(Protocol::V5);
    let file = daemon.home().path().join("recording.jsonl");
    let recorded = || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect::<Vec<Value>>()
    };
    let mut recording = daemon.begin(&["recv", "record", "recording.jsonl", "--topic", "quiet/#"]);
    wait::until_true("it records", || recording.lines().iter().any(|line| line.contains("recording to")));
    client.publish(&Message::new("in/a", "left out"));
    client.publish(&Message::new("quiet/a", [0xff]));
    client.publish(&Message::new("quiet/b", "two"));
    wait::until_true("two are in the file", || recorded().len() == 2);
    recording.signal("INT");
    assert_eq!(recording.wait(wait::PATIENCE).code(), Some(0));
    assert!(recording.lines().iter().any(|line| line == "2 messages recorded"), "{:?}", recording.lines());
    let told: Vec<Value> = recorded().iter().map(|one| json!([one["topic"], one["data"], one["encoding"]])).collect();
    assert_eq!(told, [json!(["quiet/a", "/w==", "base64"]), json!(["quiet/b", "two", "utf-8"])]);

    let ran = daemon.ask(&["recv", "record", "recording.jsonl"]);
    assert_eq!(ran.code, Some(2), "it exists: {ran:?}");
    let mut recording = daemon.begin(&["recv", "record", "recording.jsonl", "--append"]);
    wait::until_true("it records", || recording.lines().iter().any(|line| line.contains("recording to")));
    client.publish(&Message::new("quiet/c", "three"));
    wait::until_true("three are in the file", || recorded().len() == 3);
    daemon.terminate();
    assert_eq!(recording.wait(wait::PATIENCE).code(), Some(3), "the daemon has ended: {:?}", recording.lines());
}

fn one_messages_way_is_told_live(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(&broker, protocol));
    let client = broker.client(Protocol::V5);
    let mut people = daemon.begin(&["trace", "in/+"]);
    let mut script = daemon.begin(&["trace", "in/#", "--broker", "plant", "--json"]);
    let has_ended = |lines: &[String], words: &str| lines.iter().any(|line| line.contains(words));
    wait::until("both trace", || {
        client.publish(&Message::new("in/a", "hello"));
        let ended =
            has_ended(&people.lines(), "ended: handled") && has_ended(&script.lines(), "\"outcome\":\"handled\"");
        if ended { Ok(()) } else { Err(format!("{:?}", people.lines())) }
    });
    people.signal("INT");
    script.signal("INT");
    assert_eq!((people.wait(wait::PATIENCE).code(), script.wait(wait::PATIENCE).code()), (Some(0), Some(0)));

    let steps: Vec<Value> =
        script.lines().iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let first = &steps[0]["sequence"];
    let names: Vec<&str> =
        steps.iter().filter(|step| step["sequence"] == *first).filter_map(|step| step["step"].as_str()).collect();
    let way =
        ["received", "matched", "queued", "call-begins", "held-back", "call-ended", "admitted", "published", "ended"];
    assert_eq!(names, way, "{steps:?}");
    let version = daemon.json(&["handlers", "list", "echo"])["version"].clone();
    let begins = steps.iter().find(|step| step["step"] == "call-begins").expect("is among them");
    assert_eq!((&begins["handler"], &begins["version"]), (&json!("echo"), &version));
}

#[test]
fn a_trace_ends_by_itself_after_its_count() {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(&broker, Protocol::V5));
    let client = broker.client(Protocol::V5);
    let mut trace = daemon.begin(&["trace", "#", "--count", "1"]);
    let ended = wait::until("the trace ends", || {
        client.publish(&Message::new("quiet/a", "hello"));
        trace.ended().ok_or("it goes on")
    });
    assert_eq!(ended.code(), Some(0));
    let lines = trace.lines();
    assert!(lines.iter().any(|line| line.contains("no subscription with on-message")), "{lines:?}");
    assert!(lines.last().is_some_and(|line| line.ends_with("ended: unmatched")), "{lines:?}");
}
