//! `tidegate dead-letters` at the shell: the local store is listed, looked at, handled again and cleared.

use serde_json::{Value, json};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, wait};

on_both_protocols!(dead_letters_are_listed_looked_at_and_cleared, a_dead_letter_is_handled_once_its_cause_is_mended);

/// A handler that rejects payloads with `bad` in them, added by command so that it can be mended so.
fn daemon(plant: &Mosquitto, protocol: Protocol) -> Daemon {
    let daemon = Daemon::start(&Config::new().broker("plant", plant.port(), protocol, ""));
    daemon.home().plugin("misbehave.wasm");
    for name in ["first", "second"] {
        let grant = ["--allow-publish", "plant:out/#", "--config", "mode=reject", "--config", "trigger=bad"];
        daemon.done(
            &[&["handlers", "add", name, "--plugin", "misbehave.wasm", "--call-deadline", "20s"][..], &grant].concat(),
        );
        let topic = format!("{name}/#");
        let subscribe = ["subscribe", "--broker", "plant", "--topic", &topic, "--qos", "1", "--on-message", name];
        daemon.done(&subscribe);
    }
    daemon
}

/// The dead letters that these words choose.
#[track_caller]
fn letters(daemon: &Daemon, words: &[&str]) -> Vec<Value> {
    let list = daemon.json(&[&["dead-letters", "list"], words].concat());
    list["dead-letters"].as_array().expect("an array").clone()
}

fn topics(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["topic"].as_str().expect("a text")).collect()
}

#[track_caller]
fn wait_letters(daemon: &Daemon, count: usize) -> Vec<Value> {
    wait::until(format!("{count} dead letters"), || {
        let found = letters(daemon, &[]);
        if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
    })
}

fn dead_letters_are_listed_looked_at_and_cleared(protocol: Protocol) {
    let plant = Mosquitto::start();
    let daemon = daemon(&plant, protocol);
    let client = plant.client(protocol);
    client.publish(&Message::new("first/a", "bad\n"));
    // Topics and handlers do not wait for each other.
    wait_letters(&daemon, 1);
    client.publish(&Message::new("first/b", b"bad\x00\xff".as_slice()));
    wait_letters(&daemon, 2);
    client.publish(&Message::new("second/c", "bad, too"));
    client.publish(&Message::new("first/d", "good"));
    daemon.settle("plant", 4);
    let all = wait_letters(&daemon, 3);
    assert_eq!(topics(&all), ["first/a", "first/b", "second/c"], "oldest first");
    let first = &all[0];
    let told =
        json!([first["kind"], first["handler"], first["broker"], first["reason"], first["attempts"], first["bytes"]]);
    assert_eq!(told, json!(["message", "first", "plant", "reject", 1, 4]), "{first}");
    assert!(first["error"].as_str().is_some_and(|error| error.contains("rejected")), "{first}");

    let table = daemon.done(&["dead-letters", "list"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "TIME", "HANDLER", "BROKER", "TOPIC", "REASON", "ERROR", "ATTEMPTS", "BYTES"]);
    assert_eq!(lines[1][2..6], ["first", "plant", "first/a", "reject"], "{table}");
    assert_eq!(topics(&letters(&daemon, &["--handler", "second"])), ["second/c"]);
    assert_eq!(topics(&letters(&daemon, &["--reason", "trap"])), Vec::<&str>::new());
    let last = daemon.json(&["dead-letters", "list", "--last", "1"]);
    assert_eq!((&last["dead-letters"][0]["topic"], &last["more"]), (&json!("second/c"), &json!(true)));
    assert_eq!(last["kept"]["messages"], 3);
    let ids: Vec<String> = all.iter().map(|letter| letter["id"].to_string()).collect();
    assert_eq!(topics(&letters(&daemon, &["--before", &ids[2], "--last", "1"])), ["first/b"]);
    let status = daemon.json(&["status"]);
    assert_eq!(status["dead-letters"]["messages"], 3, "{status}");
    assert!(daemon.done(&["status"]).lines().any(|line| line.starts_with("dead letters") && line.contains('3')));

    let shown = daemon.json(&["dead-letters", "show", &ids[1]]);
    assert_eq!((&shown["data"], &shown["encoding"]), (&json!("YmFkAP8="), &json!("base64")));
    assert_eq!(shown["subscription"], "plant:first/#");
    assert_eq!(daemon.done(&["dead-letters", "show", &ids[0], "--payload"]), "bad\n");
    let said = daemon.refused(&["dead-letters", "show", "999999"]);
    assert!(said.contains("999999") && said.contains("dead-letters list"), "{said}");

    let said = daemon.refused(&["dead-letters", "clear", &ids[0], "999999"]);
    assert!(said.contains("999999"), "{said}");
    assert_eq!(wait_letters(&daemon, 3).len(), 3, "and nothing is cleared");
    for command in [["dead-letters", "clear"], ["dead-letters", "retry"], ["dead-letters", "list"]] {
        let said = daemon.refused(&[&command[..], &["--handler", "frist"]].concat());
        assert!(said.contains("frist") && said.contains("first"), "{said}");
    }
    assert_eq!(daemon.done(&["dead-letters", "clear", &ids[0]]), "1 dead letter is forgotten\n");
    assert_eq!(topics(&wait_letters(&daemon, 2)), ["first/b", "second/c"]);
    assert_eq!(daemon.json(&["dead-letters", "clear", "--handler", "second"]), json!({"dead-letters": 1}));
    assert_eq!(daemon.done(&["dead-letters", "clear", "--all"]), "1 dead letter is forgotten\n");
    assert_eq!(daemon.done(&["dead-letters", "clear", "--all"]), "0 dead letters are forgotten\n");
    assert_eq!(daemon.json(&["status"])["dead-letters"], json!({"messages": 0, "bytes": 0}));
}

fn a_dead_letter_is_handled_once_its_cause_is_mended(protocol: Protocol) {
    let plant = Mosquitto::start();
    let mut daemon = daemon(&plant, protocol);
    let client = plant.client(protocol);
    client.subscribe("out/#", 1);
    for name in ["a", "b", "c"] {
        client.publish(&Message::new(format!("first/{name}"), format!("bad {name}")));
    }
    daemon.settle("plant", 3);
    let before = wait_letters(&daemon, 3);

    // It fails again: the store has it still, and tells of the new failure.
    assert_eq!(
        daemon.done(&["dead-letters", "retry", &before[0]["id"].to_string()]),
        "1 dead letter is handled again\n"
    );
    wait::until("it has failed again", || {
        let now = letters(&daemon, &[]);
        let later = |letter: &Value| letter["topic"] == "first/a" && letter["time"] != before[0]["time"];
        if now.len() == 3 && now.iter().any(later) { Ok(()) } else { Err(format!("{now:?}")) }
    });

    daemon.done(&["handlers", "set", "first", "--config", "mode=echo"]);
    let one = letters(&daemon, &[]).into_iter().find(|letter| letter["topic"] == "first/b").expect("is there");
    daemon.done(&["dead-letters", "retry", &one["id"].to_string()]);
    assert_eq!(client.collect(1)[0].text(), "bad b");
    wait_letters(&daemon, 2);
    assert_eq!(daemon.json(&["dead-letters", "retry", "--handler", "first"]), json!({"dead-letters": 2}));
    let mut came: Vec<String> = client.collect(2).iter().map(|message| message.text().to_owned()).collect();
    came.sort_unstable();
    assert_eq!(came, ["bad a", "bad c"]);
    wait_letters(&daemon, 0);
    daemon.terminate();
}
