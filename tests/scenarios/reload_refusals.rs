//! A configuration with several mistakes that show only once its plugins are loaded and started: each is told, at a reload as at a start,
//! and nothing changes.

use serde_json::{Value, json};
use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Home, Protocol, ports};

fn config() -> Config {
    Config::new().broker("plant", 1883, Protocol::V5, "auto-connect = false").guest(
        "echo",
        "plant",
        ECHO,
        "instances = 1",
    )
}

/// A handler whose plugin is not there.
fn absent(config: Config, name: &str) -> Config {
    config.table(format!("[handlers.{name}]\nplugin = \"{name}.wasm\"\n"))
}

/// The lines of a refusal's problems, from what a command writes with `--json`.
#[track_caller]
fn problems(daemon: &Daemon, command: &[&str]) -> (String, Vec<String>) {
    let ran = daemon.ask(&[command, &["--json"]].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), ""), "{ran:?}");
    let document: Value = serde_json::from_str(&ran.stderr).expect("is JSON");
    assert_eq!((&document["status"], &document["type"]), (&json!(422), &json!("urn:tidegate:problem:plugin")));
    let text = |value: &Value| value.as_str().expect("is text").to_owned();
    (text(&document["detail"]), document["problems"].as_array().expect("a list").iter().map(text).collect())
}

/// In this order, each line has its words.
#[track_caller]
fn check(lines: &[impl AsRef<str>], expected: &[&str]) {
    let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, words) in lines.iter().zip(expected) {
        assert!(line.contains(words), "{words} is not in {line}");
    }
}

#[test]
fn every_handler_that_does_not_start_is_told() {
    let daemon = Daemon::start(&config());
    let wrong = absent(config(), "absent")
        .table("[handlers.broken]\nplugin = \"broken.wasm\"\n")
        .guest("refuses", "plant", "mode = \"init-fails\"", "instances = 1")
        .handler("relay", "relay.wasm", "config = { broker = \"plant\", topic = \"x\" }")
        .table("[[schedules]]\nname = \"often\"\nevery = \"1s\"\non-schedule = \"relay\"\n");
    daemon.home().write("plugins/broken.wasm", "no plugin");
    daemon.home().configure(&wrong, daemon.admin());
    let told = [
        "handlers.absent.plugin = \"absent.wasm\": does not exist",
        "handlers.broken.plugin = \"broken.wasm\": ",
        "handlers.refuses.plugin = \"misbehave.wasm\": init refused: this handler refuses to start",
        "the schedule often runs the handler relay, whose plugin does not export on-schedule; use another handler",
    ];
    let detail = "the configuration has 4 problems";
    daemon.signal("HUP");
    let failed = "the configuration is not reloaded, and nothing has changed";
    daemon.wait_event(failed, &[("trigger", "SIGHUP"), ("refusal", detail)]);
    for words in told {
        daemon.wait_event("configuration", &[("level", "ERROR"), ("problem", words)]);
    }
    for command in [&["reload"][..], &["reload", "--dry-run"]] {
        let (said, lines) = problems(&daemon, command);
        assert_eq!(said, detail);
        check(&lines, &told);
        assert!(lines.iter().all(|line| line.contains("tidegate.toml:")), "each with its line: {lines:#?}");
    }
    let told_to_people = daemon.refused(&["reload"]);
    let lines: Vec<_> = told_to_people.trim_end().lines().collect();
    assert_eq!(lines[0], format!("error: {detail}"));
    check(&lines[1..], &told);

    let status = daemon.json(&["status"])["last-reload"].clone();
    assert_eq!((&status["error"], status["problems"].as_array().map(Vec::len)), (&json!(detail), Some(4)), "{status}");
    let handlers = daemon.json(&["handlers", "list"]);
    assert_eq!(handlers.as_array().map(Vec::len), Some(1), "nothing has changed: {handlers}");

    let check = daemon.home().run(&["check", "tidegate.toml"]);
    assert_eq!(check.stdout, "tidegate.toml: 4 problems\n");
}

#[test]
fn of_many_handlers_that_do_not_start_the_first_are_told_and_how_many_more_there_are() {
    let names: Vec<String> = (0..12).map(|n| format!("absent-{n:02}")).collect();
    let wrong = names.iter().fold(config(), |config, name| absent(config, name));
    let words: Vec<_> = names.iter().map(|name| format!("handlers.{name}.plugin")).collect();
    let more = "and 2 more";
    let expected: Vec<&str> = words[..10].iter().map(String::as_str).chain([more]).collect();
    let daemon = Daemon::start(&config());
    daemon.home().configure(&wrong, daemon.admin());
    let (detail, lines) = problems(&daemon, &["reload"]);
    assert_eq!(detail, "the configuration has 12 problems");
    check(&lines, &expected);

    // At a start they are told likewise, and `check` has them all.
    let home = Home::new(&wrong, ports::free());
    let ran = home.run(&["run", "-c", "tidegate.toml"]);
    assert_eq!(ran.code, Some(1));
    let start = ran.stderr.find("error: ").unwrap_or_else(|| panic!("{ran:?}"));
    let lines: Vec<_> = ran.stderr[start..].lines().collect();
    assert_eq!(lines[0], format!("error: {detail}"));
    check(&lines[1..], &expected);
    assert_eq!(home.run(&["check", "tidegate.toml"]).stdout, "tidegate.toml: 12 problems\n");
}
