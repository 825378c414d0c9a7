//! Messages that fail for good, of handlers without a dead-letter topic: kept on the disk before they are acknowledged, whole, for
//! as long as nobody clears them, within limits.

use serde_json::{Value, json};
use tidegate_tests::script::{Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Properties, Protocol, on_both_protocols};

on_both_protocols!(
    a_message_that_fails_for_good_is_kept_whole_and_survives,
    what_is_acknowledged_is_kept_when_the_daemon_is_killed,
    each_way_to_fail_is_kept_with_its_reason,
    what_is_cleared_is_gone_for_good,
);

/// Rejects what contains "bad" and echoes the rest.
const REJECT_BAD: &str = "mode = \"reject\", trigger = \"bad\"";

fn config(port: u16, protocol: Protocol, guest: &str, keys: &str) -> Config {
    Config::new()
        .broker("plant", port, protocol, "client-id = \"gateway\"")
        .guest("guest", "plant", guest, &format!("instances = 1\n{keys}"))
        .subscription("plant", "in/#", 1, "guest", "name = \"inputs\"")
}

/// All dead letters of the store.
fn kept(daemon: &Daemon) -> Vec<Value> {
    let list = daemon.json(&["dead-letters", "list", "--last", "1000"]);
    list["dead-letters"].as_array().expect("a list").clone()
}

fn holds(daemon: &Daemon, messages: f64) {
    let metrics = daemon.metrics();
    assert_eq!(metrics.sum("tidegate_dead_letter_store_messages", &[]), messages);
    assert_eq!(metrics.sum("tidegate_dead_letter_store_bytes", &[]) > 0.0, messages > 0.0);
    assert_eq!(daemon.json(&["status"])["dead-letters"]["messages"], messages as u64);
}

fn a_message_that_fails_for_good_is_kept_whole_and_survives(protocol: Protocol) {
    let broker = Mosquitto::telling();
    let config = config(broker.port(), protocol, REJECT_BAD, "");
    let mut daemon = Daemon::start(&config);
    let client = broker.client(Protocol::V5);
    client.subscribe("out/#", 1);
    let properties = Properties {
        content_type: Some("text/plain".to_owned()),
        user: vec![("line".to_owned(), "7".to_owned()), ("line".to_owned(), "8".to_owned())],
        ..Properties::default()
    };
    let bad = Message::new("in/b/ä", b"\xff\x00bad\n".to_vec()).with(properties.clone());
    client.publish_all(&[Message::new("in/a", "1"), bad, Message::new("in/b/ä", "2")]);
    let metrics = daemon.settle("plant", 3);
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "dead_letter")), (2.0, 1.0));
    let counted = [("handler", "guest"), ("reason", "reject")];
    assert_eq!(metrics.sum("tidegate_dead_letters_total", &counted), 1.0);
    assert_eq!(metrics.sum("tidegate_dead_letters_dropped_total", &[]), 0.0);
    assert_eq!(client.collect(2).len(), 2, "the others go on");
    holds(&daemon, 1.0);

    let mut letter = kept(&daemon).remove(0);
    let time = letter["time"].take();
    assert!(time.as_str().is_some_and(|time| time.ends_with('Z')), "{time}");
    let id = letter["id"].as_u64().expect("a number").to_string();
    let expected = json!({
        "id": letter["id"], "kind": "message", "time": null, "handler": "guest", "subscription": "inputs",
        "broker": "plant", "topic": "in/b/ä", "qos": 1, "retain": false, "reason": "reject",
        "error": "the handler rejected the message: asked to reject", "attempts": 1, "bytes": 6,
    });
    assert_eq!(letter, expected);
    let whole = daemon.json(&["dead-letters", "show", &id]);
    assert_eq!((&whole["data"], &whole["encoding"]), (&json!("/wBiYWQK"), &json!("base64")));
    if protocol == Protocol::V5 {
        let seen = &whole["properties"];
        assert_eq!(seen["content-type"], json!(properties.content_type), "{whole}");
        assert_eq!(seen["user"], json!([["line", "7"], ["line", "8"]]), "{whole}");
    } else {
        assert_eq!(whole["properties"], Value::Null, "3.1.1 carries none");
    }

    // Ended in order, and killed: it is there, and its message does not come again.
    daemon.terminate();
    daemon.restart();
    assert_eq!(daemon.json(&["dead-letters", "show", &id]), whole);
    broker.wait_acknowledged();
    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.json(&["dead-letters", "show", &id]), whole);
    holds(&daemon, 1.0);
    client.publish(&Message::new("in/b/ä", "3"));
    assert_eq!(client.collect(1)[0].text(), "3");
    assert_eq!(daemon.settle("plant", 1).received("plant"), 1.0);
    client.publish(&Message::new("in/a", "bad again"));
    daemon.settle("plant", 2);
    let ids: Vec<u64> = kept(&daemon).iter().filter_map(|letter| letter["id"].as_u64()).collect();
    assert!(ids.len() == 2 && ids[0] < ids[1], "{ids:?}");
}

/// The broker of which each acknowledgement is seen as it comes.
fn what_is_acknowledged_is_kept_when_the_daemon_is_killed(protocol: Protocol) {
    const ROUNDS: usize = 3;
    let broker = ScriptedBroker::listen(protocol);
    let mut daemon = Daemon::launch(&config(broker.port(), protocol, REJECT_BAD, ""));
    for round in 1..=ROUNDS {
        // A broker that forgot the session: nothing comes by itself.
        let mut peer = broker.accept(false);
        peer.grant();
        for id in 1..=5 {
            peer.publish(id, &Message::new("in/a", format!("bad {round} {id}")));
            assert_eq!(peer.request(), Request::PubAck(id));
        }
        daemon.kill();
        daemon.launch_again();
        assert_eq!(kept(&daemon).len(), 5 * round, "what was acknowledged is kept");
    }
}

fn each_way_to_fail_is_kept_with_its_reason(protocol: Protocol) {
    let ways = [
        ("trap", "mode = \"trap\"", "the handler trapped: "),
        ("deadline", "mode = \"loop\"", "the call took longer than call-deadline = 2s"),
        ("retry", "mode = \"retry\"", "the handler asks for a retry: asked to retry"),
    ];
    let given_up = "; given up after 2 calls (retry.max = 1)";
    let broker = Mosquitto::start();
    let mut config = Config::new().broker("plant", broker.port(), protocol, "");
    for (way, guest, _) in ways {
        let deadline = if way == "deadline" { "2s" } else { "30s" };
        let keys =
            format!("instances = 1\ncall-deadline = \"{deadline}\"\nretry = {{ max = 1, backoff = \"10ms..10ms\" }}");
        config = config.guest(way, "plant", guest, &keys).subscription("plant", &format!("in/{way}"), 0, way, "");
    }
    let daemon = Daemon::start(&config);
    // QoS 0 too.
    broker.client(protocol).publish_all(&ways.map(|(way, ..)| Message::new(format!("in/{way}"), way).qos(1)));
    let metrics = daemon.settle("plant", ways.len());
    assert_eq!(metrics.finished("plant", "dead_letter"), ways.len() as f64);
    for (way, _, error) in ways {
        let list = daemon.json(&["dead-letters", "list", "--reason", way]);
        let letters = list["dead-letters"].as_array().expect("a list");
        let [letter] = &letters[..] else { panic!("{list}") };
        assert_eq!((&letter["handler"], &letter["attempts"], &letter["qos"]), (&json!(way), &json!(2), &json!(0)));
        let told = letter["error"].as_str().expect("a sentence");
        assert!(told.starts_with(error) && told.ends_with(given_up), "{letter}");
        assert_eq!(daemon.json(&["dead-letters", "list", "--handler", way])["dead-letters"], json!([letter]));
    }
    let page = daemon.json(&["dead-letters", "list", "--last", "2"]);
    assert_eq!((&page["more"], page["dead-letters"].as_array().map(Vec::len)), (&json!(true), Some(2)));
    let before = page["dead-letters"][0]["id"].to_string();
    let rest = daemon.json(&["dead-letters", "list", "--before", &before]);
    assert_eq!((&rest["more"], rest["dead-letters"].as_array().map(Vec::len)), (&json!(false), Some(1)));
    let said = daemon.refused(&["dead-letters", "list", "--reason", "lopo"]);
    assert!(said.contains("there is no reason \"lopo\"; use one of reject, retry, "), "{said}");
    let said = daemon.refused(&["dead-letters", "list", "--handler", "other"]);
    assert!(said.contains("there is no handler other"), "{said}");
}

fn what_is_cleared_is_gone_for_good(protocol: Protocol) {
    let broker = Mosquitto::telling();
    let config = config(broker.port(), protocol, "mode = \"reject\"", "")
        .guest("other", "plant", "mode = \"reject\"", "instances = 1")
        .subscription("plant", "other/#", 1, "other", "");
    let mut daemon = Daemon::start(&config);
    let messages: Vec<Message> =
        (0..10).map(|n| Message::new(if n < 6 { "in/a" } else { "other/a" }, format!("{n}"))).collect();
    broker.client(protocol).publish_all(&messages);
    daemon.settle("plant", messages.len());
    let id_of = |payload: &str| {
        let whole = kept(&daemon).into_iter().map(|letter| letter["id"].to_string());
        let found = whole.into_iter().find(|id| daemon.json(&["dead-letters", "show", id])["data"] == payload);
        found.unwrap_or_else(|| panic!("there is no {payload}"))
    };
    let [first, second] = ["0", "3"].map(id_of);
    let said = daemon.refused(&["dead-letters", "clear", &first, "9999"]);
    assert!(said.contains("there is no dead letter 9999; see which there are with"), "{said}");
    assert_eq!(kept(&daemon).len(), 10, "then none is forgotten");
    assert_eq!(daemon.json(&["dead-letters", "clear", &first, &second])["dead-letters"], 2);
    let said = daemon.refused(&["dead-letters", "show", &first]);
    assert!(said.contains(&format!("there is no dead letter {first}; see")), "{said}");
    assert_eq!(daemon.json(&["dead-letters", "clear", "--handler", "other"])["dead-letters"], 4);
    broker.wait_acknowledged();
    daemon.kill();
    daemon.restart();
    assert_eq!(kept(&daemon).len(), 4);
    assert_eq!(daemon.json(&["dead-letters", "clear", "--all"])["dead-letters"], 4);
    holds(&daemon, 0.0);
    daemon.terminate();
    daemon.restart();
    assert_eq!(kept(&daemon).len(), 0);
    assert_eq!(daemon.json(&["dead-letters", "clear", "--handler", "other"])["dead-letters"], 0);
}

/// 64 MiB: as many of a million bytes as are below it.
#[test]
fn what_a_full_store_has_no_room_for_is_dropped_and_what_is_there_stays() {
    const FIT: usize = 67;
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(broker.port(), Protocol::V5, "mode = \"reject\"", ""));
    let client = broker.client(Protocol::V5);
    let large = |n: usize| Message::new("in/a", format!("{n:02}").repeat(500_000));
    for n in 0..FIT + 2 {
        client.publish(&large(n));
    }
    let metrics = daemon.settle("plant", FIT + 2);
    let ended = ["dead_letter", "dropped_failed"].map(|outcome| metrics.finished("plant", outcome));
    assert_eq!(ended, [FIT as f64, 2.0]);
    assert_eq!(metrics.sum("tidegate_dead_letters_dropped_total", &[("handler", "guest")]), 2.0);
    let said = daemon.wait_event(
        "message dropped: there is no dead letter of it",
        &[("level", "ERROR"), ("handler", "guest"), ("topic", "in/a")],
    );
    let why = said["why"].as_str().expect("a sentence");
    assert!(why.starts_with("the dead-letter store is full: ") && why.ends_with("retry or clear"), "{why}");
    let letters = kept(&daemon);
    assert_eq!(letters.len(), FIT);
    daemon.done(&["dead-letters", "clear", &letters[0]["id"].to_string()]);
    client.publish(&large(FIT));
    assert_eq!(daemon.settle("plant", FIT + 3).finished("plant", "dead_letter"), (FIT + 1) as f64);
}
