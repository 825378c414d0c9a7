//! The state directory: one daemon at a time, and what keeps it from being used or read.

use std::fs;

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Home, Message, Mosquitto, Protocol, ports, wait};

fn gateway(broker: &Mosquitto) -> Config {
    Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("echo", "plant", ECHO, "")
        .subscription("plant", "in/#", 1, "echo", "")
}

/// The second one touches nothing; the system gives the lock back when the first is killed.
#[test]
fn a_second_daemon_is_refused_with_the_firsts_process() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&gateway(&broker));
    let ran = daemon.home().run(&["run"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let told = format!("is in use by another tidegate daemon (process {})", daemon.id());
    assert!(ran.stderr.contains(&told) && ran.stderr.contains("stop that one"), "{ran:?}");
    daemon.wait_ready();

    daemon.kill();
    daemon.restart();
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    // Nobody makes a file there, not even root.
    let config = Config::new().broker("plant", 1883, Protocol::V5, "auto-connect = false").state("/proc/self".into());
    let ran = Home::new(&config, ports::free()).run(&["run"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let told = "state-dir = /proc/self must be a directory that the daemon can create or write to";
    assert!(ran.stderr.contains(told), "{ran:?}");
}

/// It is set aside as it is, an empty one is begun, and the daemon does its whole job.
#[test]
fn a_damaged_store_is_set_aside_and_the_daemon_starts() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&gateway(&broker));
    assert_eq!(daemon.metrics().sum("tidegate_store_set_aside_total", &[]), 0.0);
    daemon.terminate();
    let state = daemon.home().path().join("state");
    let junk = b"nothing that was written by a gateway\n".repeat(1000);
    fs::write(state.join("state.redb"), &junk).expect("is ours");
    daemon.restart();

    let aside = wait::until("the log names what was set aside", || {
        let told = daemon.events().into_iter().find_map(|event| event["aside"].as_str().map(str::to_owned));
        told.ok_or("no such line")
    });
    assert!(aside.starts_with(&*state.join("state.redb.corrupt-").to_string_lossy()), "{aside}");
    assert!(fs::read(aside).expect("is there") == junk, "as it was");
    assert_eq!(daemon.metrics().sum("tidegate_store_set_aside_total", &[]), 1.0);
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    assert_eq!(collector.collect(1)[0].text(), "x");
}
