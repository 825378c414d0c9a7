//! What is added while the daemon runs: kept, whole, and apart from what stands in the file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tidegate_tests::daemon::Ran;
use tidegate_tests::{Config, Daemon, Mosquitto, Protocol, wait};

/// Rounds of killing a daemon that writes.
const KILLS: u64 = 12;

/// A command that is done, and what it printed.
#[track_caller]
fn done(daemon: &Daemon, arguments: &[&str]) -> String {
    let ran = daemon.home().run(arguments);
    assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
    ran.stdout
}

/// A command that the daemon refuses, and why.
#[track_caller]
fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let ran = daemon.home().run(arguments);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), ""), "{arguments:?}: {ran:?}");
    ran.stderr
}

fn names(daemon: &Daemon, list: &str) -> BTreeSet<String> {
    let json: Value = serde_json::from_str(&done(daemon, &[list, "list", "--json"])).expect("is JSON");
    let names = json.as_array().expect("a list").iter().map(|one| one["name"].as_str().expect("has a name").to_owned());
    names.collect()
}

#[test]
fn what_was_added_comes_back_after_a_stop_and_after_a_crash() {
    let mosquitto = Mosquitto::start();
    let port = mosquitto.port().to_string();
    let mut daemon = Daemon::start(&Config::new());
    daemon.home().plugin("celsius.wasm");
    done(&daemon, &["brokers", "add", "plant", "--address", "127.0.0.1", "--port", &port, "--auto-connect"]);
    done(
        &daemon,
        &[
            "handlers",
            "add",
            "celsius",
            "--plugin",
            "celsius.wasm",
            "--allow-publish",
            "plant:#",
            "--call-deadline",
            "20s",
        ],
    );
    done(&daemon, &["subscribe", "--broker", "plant", "--topic", "t/+", "--qos", "1", "--on-message", "celsius"]);
    daemon.wait_broker("plant");
    daemon.terminate();
    daemon.restart();
    daemon.wait_broker("plant");
    daemon.kill();
    daemon.launch_again();
    daemon.wait_broker("plant");
    assert_eq!(names(&daemon, "brokers"), BTreeSet::from(["plant".to_owned()]));
    assert_eq!(names(&daemon, "subscriptions"), BTreeSet::from(["plant:t/+".to_owned()]));
    assert_eq!(names(&daemon, "handlers"), BTreeSet::from(["celsius".to_owned()]));
    // And it works: the reading comes back converted.
    done(&daemon, &["publish", "--broker", "plant", "--topic", "t/a", "--message", "{\"c\":21}", "--qos", "1"]);
    daemon.wait_metrics("the handler was called", |metrics| metrics.calls("celsius", "ok") == 1.0);
}

/// The file is not there yet, or it is a whole one.
#[track_caller]
fn assert_whole(file: &Path) {
    let Ok(text) = fs::read_to_string(file) else { return };
    let count = |words: &str| text.matches(words).count();
    let whole = text.starts_with("# What was added") && text.ends_with('\n');
    assert!(whole && count("[brokers.") == count("address = \"127.0.0.1\""), "{text:?}");
}

#[test]
fn a_crash_in_the_middle_of_a_change_leaves_every_confirmed_one() {
    let mut daemon = Daemon::start(&Config::new());
    let mut confirmed: BTreeSet<String> = BTreeSet::new();
    for round in 0..KILLS {
        let over = AtomicBool::new(false);
        let count = AtomicUsize::new(0);
        let added = thread::scope(|scope| {
            let home = daemon.home();
            let (over, count) = (&over, &count);
            let adding = scope.spawn(move || {
                let mut added = Vec::new();
                for number in 0.. {
                    let name = format!("b{round}-{number}");
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let ran = home.run(&["brokers", "add", &name, "--address", "127.0.0.1"]);
                    match ran.code {
                        Some(0) => added.push(name),
                        // The daemon is gone: whether this one was added, nobody knows.
                        Some(3) => break,
                        _ => panic!("{ran:?}"),
                    }
                    count.store(added.len(), Ordering::Relaxed);
                }
                added
            });
            let file = home.path().join("state/runtime.toml");
            let reading = scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    assert_whole(&file);
                }
            });
            wait::until_true("changes are made", || count.load(Ordering::Relaxed) > 0);
            // The moment of the crash moves through what a change consists of.
            thread::sleep(Duration::from_millis(3 * round));
            daemon.signal("KILL");
            over.store(true, Ordering::Relaxed);
            reading.join().expect("whoever reads the file finds all of it");
            adding.join().expect("adds")
        });
        confirmed.extend(added);
        daemon.kill();
        daemon.launch_again();
        wait::until_true("the daemon answers", || daemon.home().run(&["status"]).code == Some(0));
        let found = names(&daemon, "brokers");
        assert!(found.is_superset(&confirmed), "lost: {:?}", confirmed.difference(&found).collect::<Vec<_>>());
    }
    assert!(confirmed.len() as u64 >= KILLS, "each round adds: {confirmed:?}");
}

#[test]
fn what_stands_in_the_file_is_changed_there() {
    let mosquitto = Mosquitto::start();
    let config = Config::new()
        .broker("plant", mosquitto.port(), Protocol::V5, "")
        .table("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a\"\non-message = { log = \"x\" }\n");
    let daemon = Daemon::start(&config);
    let line = |words: &str| {
        let text = fs::read_to_string(daemon.home().path().join("tidegate.toml")).expect("is there");
        text.lines().position(|line| line == words).expect("stands there") + 1
    };
    let file = daemon.home().path().join("tidegate.toml");
    let file = file.display();
    let broker = format!("error: the broker plant stands in {file}:{}:1; change it there\n", line("[brokers.plant]"));
    let subscription =
        format!("error: the subscription plant:a stands in {file}:{}:1; change it there\n", line("[[subscriptions]]"));
    assert_eq!(refused(&daemon, &["brokers", "set", "plant", "--port", "1"]), broker);
    assert_eq!(refused(&daemon, &["brokers", "remove", "plant"]), broker);
    assert_eq!(refused(&daemon, &["unsubscribe", "--broker", "plant", "--topic", "a"]), subscription);
    assert_eq!(refused(&daemon, &["subscriptions", "set", "plant:a", "--qos", "1"]), subscription);
    assert!(!daemon.home().path().join("state/runtime.toml").exists(), "nothing was added");
}

#[test]
fn a_change_that_cannot_be_kept_is_not_made() {
    let daemon = Daemon::start(&Config::new());
    // A folder cannot be replaced by a file, not even by root.
    fs::create_dir(daemon.home().path().join("state/runtime.toml")).expect("the folder is ours");
    let error = refused(&daemon, &["brokers", "add", "plant", "--address", "127.0.0.1"]);
    assert!(error.contains("runtime.toml cannot be written: ") && error.contains("make room"), "{error}");
    assert_eq!(names(&daemon, "brokers"), BTreeSet::new());
}

#[test]
fn a_file_of_what_was_added_that_is_broken_is_told_with_its_line() {
    let daemon = Daemon::start(&Config::new());
    done(&daemon, &["brokers", "add", "plant", "--address", "127.0.0.1"]);
    let home = daemon.home().path();
    let file = home.join("state/runtime.toml");
    let text = fs::read_to_string(&file).expect("is written");
    fs::write(&file, text.replace("[brokers.plant]", "[brokers.plant]\nport = 0")).expect("is ours");
    let Ran { code, stderr, .. } = daemon.home().run(&["check"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("state/runtime.toml:5:8: brokers.plant.port = 0: must be 1 to 65535; use 1"), "{stderr}");
}
