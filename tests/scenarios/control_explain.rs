//! `tidegate explain`: which subscriptions match, which handler runs, as the exit code and in words.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Home, Mosquitto, Protocol};

fn home() -> Home {
    let config = Config::new()
        .broker("plant", 1883, Protocol::V5, "")
        .guest("narrow", "plant", ECHO, "")
        .guest("wide", "plant", ECHO, "")
        .subscription("plant", "some/sort/of/+", 1, "narrow", "when = { min-bytes = 2, otherwise = \"next\" }")
        .subscription("plant", "some/#", 1, "wide", "");
    Home::new(&config, tidegate_tests::ports::free())
}

/// The exit code, and the handlers that run.
#[track_caller]
fn check(arguments: &[&str], code: i32, runs: &[&str]) {
    let home = home();
    let ran = home.run(&[&["explain", "--json"], arguments].concat());
    assert_eq!(ran.code, Some(code), "{ran:?}");
    let explained: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    let subscriptions = explained[0]["subscriptions"].as_array().cloned().unwrap_or_default();
    let running: Vec<_> = subscriptions
        .iter()
        .filter(|one| one["runs"] == true)
        .map(|one| one["on-message"].as_str().expect("a text").to_owned())
        .collect();
    let expected: Vec<_> = runs.iter().map(|handler| format!("handler {handler}")).collect();
    assert_eq!(running, expected, "{}", ran.stdout);
}

#[test]
fn the_handler_that_runs_is_told_with_exit_code_0() {
    check(&["some/sort/of/thing", "--message", "long enough"], 0, &["narrow"]);
    check(&["some/sort/of/thing", "--message", "x"], 0, &["wide"]);
    check(&["some/name", "--broker", "plant"], 0, &["wide"]);
}

#[test]
fn a_topic_that_nothing_runs_for_is_1() {
    check(&["other/name"], 1, &[]);
}

#[test]
fn wrong_use_is_2() {
    check(&["some/+"], 2, &[]);
    check(&["some/name", "--broker", "plan"], 2, &[]);
}

#[test]
fn people_read_ranks_and_reasons() {
    let ran = home().run(&["explain", "some/sort/of/thing", "--message", "x"]);
    for words in ["some/sort/of/+", "some/#", "narrow", "wide", "min-bytes"] {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
}

#[test]
fn the_running_daemon_answers_and_not_a_file_that_was_edited_since() {
    let broker = Mosquitto::start();
    let log = "[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a\"\non-message = { log = \"x\" }";
    let mut daemon = Daemon::start(&Config::new().broker("plant", broker.port(), Protocol::V5, "").table(log));
    let file = daemon.home().path().join("tidegate.toml");
    let edited = std::fs::read_to_string(&file).expect("the home has it").replace("topic = \"a\"", "topic = \"b\"");
    std::fs::write(&file, edited).expect("it is ours");
    let explain = |daemon: &Daemon, words: &[&str], code: i32, source: &str| {
        let ran = daemon.ask(&[&["explain"], words].concat());
        assert_eq!(ran.code, Some(code), "{words:?}: {ran:?}");
        assert!(ran.stderr.starts_with(source), "{words:?}: {ran:?}");
    };
    explain(&daemon, &["a"], 0, "the running daemon answers");
    explain(&daemon, &["b"], 1, "the running daemon answers");
    explain(&daemon, &["b", "-c", "tidegate.toml"], 0, "");
    explain(&daemon, &["a", "--broker", "plan"], 2, "error: ");
    daemon.terminate();
    explain(&daemon, &["b"], 0, "the files answer: no daemon at ");
    explain(&daemon, &["a"], 1, "the files answer: no daemon at ");
}
