//! `tidegate schedules` at the shell.

use serde_json::json;
use tidegate_tests::{Config, Daemon, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(schedules_are_listed_and_run_by_command, a_run_that_fails_is_told_by_the_exit_code);

fn schedules_are_listed_and_run_by_command(protocol: Protocol) {
    let plant = Mosquitto::start();
    let client = plant.client(protocol);
    client.subscribe("gw/#", 1);
    let stats = "[[schedules]]\nname = \"hourly\"\nevery = \"1h\"\n\
                 publish = { broker = \"plant\", topic = \"gw/hello\", message = \"hello\", qos = 1 }\n";
    let config = Config::new().broker("plant", plant.port(), protocol, "").table(stats);
    let mut daemon = Daemon::start(&config);
    let shown = daemon.json(&["schedules", "list"]);
    let of = |key: &str| shown[0][key].clone();
    assert_eq!((of("name"), of("runs"), of("last-run")), (json!("hourly"), json!(0), json!(null)), "{shown}");
    assert_eq!((of("timing"), of("action")), (json!("every 1h"), json!("publish plant:gw/hello")), "{shown}");
    assert!(of("next").as_str().is_some_and(|time| time.ends_with('Z')), "{shown}");

    assert_eq!(daemon.done(&["schedules", "run", "hourly"]), "schedule hourly has run\n");
    assert_eq!(client.collect(1)[0].text(), "hello");
    assert_eq!(daemon.json(&["schedules", "run", "hourly"]), json!({"name": "hourly", "result": "ok", "error": null}));
    assert_eq!(client.collect(1)[0].text(), "hello");
    let shown = daemon.json(&["schedules", "list", "hourly"]);
    assert_eq!((&shown["runs"], &shown["last-result"], &shown["failures"]), (&json!(2), &json!("ok"), &json!(0)));
    let table = daemon.done(&["schedules", "list"]);
    let line = table.lines().find(|line| line.starts_with("hourly ")).expect("is listed");
    assert!(line.contains("every 1h") && line.contains("publish plant:gw/hello") && line.contains(" ok "), "{table}");
    assert!(daemon.done(&["status"]).lines().any(|line| line.starts_with("hourly ")), "and the status has it");

    let said = daemon.refused(&["schedules", "run", "hurly"]);
    assert!(said.contains("there is no schedule") && said.contains("hourly"), "{said}");
    let said = daemon.refused(&["schedules", "list", "hurly"]);
    assert!(said.contains("there is no schedule") && said.contains("hourly"), "{said}");
    daemon.terminate();
}

fn a_run_that_fails_is_told_by_the_exit_code(protocol: Protocol) {
    let plant = Mosquitto::start();
    let table = "[[schedules]]\nname = \"failing\"\nevery = \"1h\"\non-schedule = \"runner\"\n";
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "")
        .guest("runner", "plant", "mode = \"reject\"", "default-broker = \"plant\"")
        .table(table);
    let mut daemon = Daemon::start(&config);
    let ran = daemon.ask(&["schedules", "run", "failing"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.starts_with("schedule failing has failed: reject: "), "{ran:?}");
    let ran = daemon.ask(&["schedules", "run", "failing", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((ran.code, &answer["result"]), (Some(1), &json!("reject")), "{ran:?}");
    let shown = daemon.json(&["schedules", "list", "failing"]);
    let of = |key: &str| shown[key].clone();
    assert_eq!((of("action"), of("runs"), of("failures")), (json!("on-schedule runner"), json!(2), json!(2)), "{shown}");
    assert!(of("last-error").as_str().is_some_and(|error| !error.is_empty()), "{shown}");
    let status = daemon.json(&["status"]);
    assert_eq!(status["schedules"][0]["last-result"], "reject", "{status}");
    daemon.terminate();
}
